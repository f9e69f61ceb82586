//! The lap of a ring: how much of it is in use. In: the positions of the bytes to keep. Out: the same bytes, where their positions say in a lap
//! of twice or half the length. User: `worker::stream`, when its window needs more room than the lap has, or much less.
//!
//! ```text
//!  mapping:  [ state page ][ lap ][ the lap again ][ … ][ the whole ring again: where parts of it are mapped from ]
//! ```
//!
//! A byte of position `p` lies at `p mod lap`. The length of the lap stands at the end of the state page, and nothing else says where the bytes
//! are. A worker may be killed at any instruction, so the length is written in one store, and at that moment the bytes to keep lie where the
//! length before says **and** where the new one says:
//! - To grow, the bytes whose place moves are copied from the lower half of the new lap to its upper half, which the old lap does not use.
//! - To shrink, they are copied from the upper half of the old lap to its lower half. Such a byte `p` goes to `p mod half`. The old lap has
//!   another byte there whose position differs from `p` by an odd multiple of `half`. Two bytes to keep never differ by so much, because
//!   all of them fit into `half`. So no byte to keep is overwritten.
//!
//! The mapping is not part of that: it dies with the process, and a successor makes its own.
//!
//! Such laps are powers of two. Steps in between would save a sixth of the memory on average, and need an origin beside the length, in the same
//! word, because a byte cannot keep its place in a lap that is longer by half.
//!
//! A ring that no other process has (by link) has no successor: its bytes are copied out and in again, so that its lap may be any multiple of
//! [`FIRST_LAP_BYTES`] up to half of the ring, or the whole ring. It grows in smaller steps, and is fitted to what its stream has needed.
//!
//! Note: a page fault costs five times as much as the same page of a range that is populated at once.
#![allow(unsafe_code, reason = "mapping memory")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use rustix::mm::{Advice, madvise};

use super::{MIN_RING_BYTES, RingMemory, STATE_BYTES, valid};

/// Lap of a new ring. A stream of 32 kbps never needs more; one of 2.5 Mbps grows it with its first keyframe.
pub(super) const FIRST_LAP_BYTES: usize = MIN_RING_BYTES;

/// Lap of a ring whose state page names none: processes before this version began with that.
const UNNAMED_LAP_BYTES: usize = 256 << 10;

/// Offset of the lap's length: behind both slots of the state page.
pub(super) const LAP_AT: usize = STATE_BYTES - size_of::<u64>();

/// Room for a read, in a lap that is fitted to a need: as much as a stream reads at once.
const READ_ROOM: u64 = 64 << 10;

/// Laps up to this one are doubled in any ring: a stream that begins grows quickly.
const LONGEST_DOUBLED: usize = 512 << 10;

/// Bytes of a lap that grows that are populated at once at most: 128 pages, some 50 µs. A longer lap gets the rest page by page, as it is written.
const MOST_POPULATED: usize = 512 << 10;

impl RingMemory {
    /// Uses the lap that the state page names.
    pub(super) fn use_lap(&mut self) -> io::Result<()> {
        let written = self.page()[LAP_AT..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let lap = match usize::try_from(written) {
            Ok(0) => UNNAMED_LAP_BYTES.min(self.whole),
            Ok(lap) if valid(lap) && lap <= self.whole => lap,
            // Not a length of ours. A successor will not find anything where its positions say.
            _ => self.whole,
        };
        if lap < self.whole {
            self.mirror(0, lap, lap)?;
        }
        self.lap = lap;
        // All of it: a lap has its memory from a stream before, unless it is as short as that of a new ring.
        self.populate(0, lap);
        Ok(())
    }

    /// Makes the lap longer, twice as long at most, unless no other process has the memory and the whole ring follows. The bytes from `from` to
    /// `to` stay where their positions say. `false`: the whole ring is in use already, or the kernel has no mapping left.
    ///
    /// # Panics
    /// From `from` to `to` is more than [`Self::capacity`]; or the kernel does not restore a mapping that it had made.
    pub fn grow(&mut self, from: u64, to: u64) -> bool {
        let (lap, next) = (self.lap, self.lap * 2);
        assert!(to - from <= lap as u64, "the bytes to keep are no longer than the lap");
        if lap == self.whole {
            return false;
        }
        if self.private {
            return self.refit(from, to, self.next_lap());
        }
        if self.map_lap(next).is_err() {
            // It takes no mapping more than there was before. Without it, a window across the end of the lap would show other bytes.
            assert!(self.map_lap(lap).is_ok(), "the kernel does not map again what it had mapped");
            return false;
        }
        self.populate(lap, lap.min(MOST_POPULATED));
        self.copy_between_halves(from, to, lap, LapHalf::Upper);
        self.write_lap(next);
        true
    }

    /// Makes the lap shorter where a shorter one would do for `longest` bytes, and gives the rest back to the kernel. The bytes from `from` to `to`
    /// stay where their positions say. `false`: none would, or too many bytes are kept now.
    ///
    /// Worth a call once a second, never per message, with the longest need of some seconds: a window varies by a group of pictures. To grow
    /// again costs more than a shorter lap gains in a few seconds (300 µs a megabyte).
    ///
    /// # Panics
    /// The kernel does not restore a mapping that it had made.
    pub fn shorten(&mut self, longest: u64, from: u64, to: u64) -> bool {
        if self.private {
            let lap = fitted(longest);
            return self.is_long_for(longest) && to.saturating_sub(from) <= lap as u64 / 2 && self.refit(from, to, lap);
        }
        let before = self.lap;
        while Self::shrinks_for(self.lap, longest) && self.shrink(from, to) {}
        self.lap < before
    }

    /// Returns whether a shorter lap would do for `longest` bytes, so that [`Self::shorten`] is worth a call.
    #[must_use]
    pub fn is_long_for(&self, longest: u64) -> bool {
        if self.private {
            let lap = fitted(longest);
            lap + FIRST_LAP_BYTES.max(self.lap / 8) <= self.lap && 2 * lap <= self.whole
        } else {
            Self::shrinks_for(self.lap, longest)
        }
    }

    /// Halves the lap and gives the other half back to the kernel. The bytes from `from` to `to` stay where their positions say. `false`: they
    /// are more than three quarters of the half, the lap is as short as that of a new ring, or the kernel has no mapping left.
    ///
    /// # Panics
    /// The kernel does not restore a mapping that it had made; or no other process has the memory.
    pub fn shrink(&mut self, from: u64, to: u64) -> bool {
        assert!(!self.private, "its lap need not be a power of two");
        let (lap, half) = (self.lap, self.lap / 2);
        if !Self::shrinks_for(lap, to.saturating_sub(from)) {
            return false;
        }
        self.copy_between_halves(from, to, half, LapHalf::Lower);
        if self.map_lap(half).is_err() {
            let restored = self.mirror(half, half, half);
            assert!(restored.is_ok(), "the kernel does not map again what it had mapped");
            return false;
        }
        self.write_lap(half);
        self.give_back(half, lap);
        true
    }

    /// Returns whether half of a lap would do for so many bytes.
    fn shrinks_for(lap: usize, bytes: u64) -> bool {
        let half = lap / 2;
        // A successor does not count on the room of the last read, a quarter of a lap at most; and the next read is not to grow it again.
        half >= FIRST_LAP_BYTES && bytes <= (half - half / 4) as u64
    }

    /// The lap that follows on this one in a ring that no other process has.
    fn next_lap(&self) -> usize {
        let step = if self.lap < LONGEST_DOUBLED { self.lap } else { (1 << self.lap.ilog2()) / 4 };
        let next = self.lap + step;
        // The second half of the ring is where parts of it are mapped from, unless all of it is in use.
        if 2 * next > self.whole { self.whole } else { next }
    }

    /// Uses a lap of another length, in a ring that no other process has. `false`: the kernel has no mapping left.
    fn refit(&mut self, from: u64, to: u64, lap: usize) -> bool {
        let before = self.lap;
        let kept = self.bytes(from, (to - from) as usize).to_vec();
        if self.map_lap(lap).is_err() {
            let restored = if lap < before { self.mirror(lap, before - lap, lap) } else { Ok(()) };
            let restored = restored.and_then(|()| self.map_lap(before));
            assert!(restored.is_ok(), "the kernel does not map again what it had mapped");
            return false;
        }
        if lap > before {
            self.populate(before, (lap - before).min(MOST_POPULATED));
        }
        self.write_lap(lap);
        self.space(from, kept.len()).copy_from_slice(&kept);
        if lap < before {
            self.give_back(lap, before);
        }
        true
    }

    /// Maps the first lap as itself, and once more behind itself.
    fn map_lap(&mut self, lap: usize) -> io::Result<()> {
        if lap > self.lap {
            // Its upper half was the lower half once more.
            self.mirror(self.lap, lap - self.lap, self.lap)?;
        }
        // The whole ring is mapped again behind itself anyway.
        if lap < self.whole { self.mirror(0, lap, lap) } else { Ok(()) }
    }

    /// Copies the bytes whose place differs between laps of `half` and of twice as much, and leaves them in the other place as well.
    fn copy_between_halves(&mut self, from: u64, to: u64, half: usize, target: LapHalf) {
        let mut at = from;
        while at < to {
            let place = (at & (half as u64 - 1)) as usize;
            let len = usize::try_from(to - at).unwrap_or(half).min(half - place);
            if at & half as u64 != 0 {
                // SAFETY: both ranges are within the ring, one in the lower half and the other in the upper one.
                unsafe {
                    let lower = self.base.as_ptr().add(STATE_BYTES + place);
                    let upper = lower.add(half);
                    match target {
                        LapHalf::Upper => std::ptr::copy_nonoverlapping(lower, upper, len),
                        LapHalf::Lower => std::ptr::copy_nonoverlapping(upper, lower, len),
                    }
                }
            }
            at += len as u64;
        }
    }

    /// Tells a successor, and from here on this process, the length of the lap.
    fn write_lap(&mut self, lap: usize) {
        // A worker is killed between two instructions, so their order is enough: no bytes are copied behind this store, none received before it.
        compiler_fence(Ordering::SeqCst);
        self.word(LAP_AT).store(lap as u64, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        self.lap = lap;
    }

    /// A word of the state page.
    pub(super) fn word(&mut self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(size_of::<u64>()) && at < STATE_BYTES, "a word of the state page");
        // SAFETY: the address is within the state page, and aligned: a mapping begins with a page.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// Maps `len` bytes of the ring from `from` on again, at `to` of the ring's first mapping.
    fn mirror(&mut self, from: usize, len: usize, to: usize) -> io::Result<()> {
        if let Some(memory) = &self.memory {
            let memory = memory.try_clone()?;
            return self.map_at(memory, STATE_BYTES + to, len, (STATE_BYTES + from) as u64);
        }
        // From the second mapping of the whole ring, which a lap of less than the ring leaves alone: two laps are no longer than the ring.
        self.map_again(STATE_BYTES + self.whole + from, len, STATE_BYTES + to)
    }

    /// Takes memory for `len` bytes of the lap from `at` on, at once and not page by page. Best effort: Linux before 5.14 cannot.
    fn populate(&mut self, at: usize, len: usize) {
        // SAFETY: a range of the first mapping; its bytes stay as they are.
        let _ = unsafe {
            let start = self.base.as_ptr().add(STATE_BYTES + at);
            madvise(start.cast(), len, Advice::LinuxPopulateWrite)
        };
    }

    /// Gives the memory of a part of the ring back to the kernel. Best effort: what stays is taken into use again when the lap grows.
    fn give_back(&mut self, from: usize, to: usize) {
        debug_assert!(from >= self.lap, "the lap stays");
        // SAFETY: a range of the second mapping of the whole ring, outside the lap: no window shows it, so that it becomes zeros unseen.
        let _ = unsafe {
            let start = self.base.as_ptr().add(STATE_BYTES + self.whole + from);
            madvise(start.cast(), to - from, Advice::LinuxRemove)
        };
    }
}

/// The shortest lap for so many bytes, a little more, and the room for a read.
fn fitted(bytes: u64) -> usize {
    let bytes = bytes + bytes / 16;
    // A read takes a quarter of a short lap.
    let short = (bytes * 4).div_ceil(3);
    let wanted = if short <= 4 * READ_ROOM { short } else { bytes + READ_ROOM };
    usize::try_from(wanted).unwrap_or(usize::MAX / 2).max(1).next_multiple_of(FIRST_LAP_BYTES)
}

/// The half of a lap to copy to.
#[derive(Clone, Copy)]
enum LapHalf {
    Upper,
    Lower,
}

#[cfg(test)]
#[path = "lap_tests.rs"]
mod tests;
