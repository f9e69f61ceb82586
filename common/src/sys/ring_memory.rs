//! A stream's memory: a memfd that the activator creates and keeps, and that the worker maps and receives into. When the worker dies the
//! bytes are still there, for its successor.
//!
//! ```text
//!  memfd:    [ state page, STATE_BYTES ][ ring, a power of two ]
//!  mapping:  [ state page              ][ ring                 ][ the same ring again ]
//! ```
//!
//! Mapped twice in a row, any window of the ring is one slice, wherever it begins. A byte is addressed by its position in the
//! publisher's connection.
//!
//! A stream whose window is small uses only the first part of its ring, the *lap*, round and round:
//! ```text
//!  mapping:  [ state page ][ lap ][ the lap again ][ … ][ the whole ring again: where parts of it are mapped from ]
//! ```
//! The lap doubles when the window needs it; what was received goes on being where its position says. How long it is stands at the end of
//! the state page, for a successor.
//!
//! What surprised us, too: giving memory behind a window back to the kernel and taking it again in front cost a fifth of all that a relay
//! does. A lap that stays costs nothing.
//!
//! What surprised us: whoever holds a descriptor of ordinary shared memory can shrink it and so kill everybody who has it mapped, by
//! SIGBUS. Seals forbid it, so they are checked, not assumed.
#![allow(unsafe_code, reason = "mapping memory")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mremap_fixed, munmap};

use crate::handoff::page;

/// Bytes of the state page: both slots. Untouched pages cost nothing; a usual snapshot touches one or two in each slot.
pub const STATE_BYTES: usize = 2 * page::SLOT_BYTES;

/// Smallest ring: a multiple of every page size that Linux has.
pub const MIN_RING_BYTES: usize = 64 << 10;

/// First lap of a ring that grows: a second of 2 Mbps. An audio stream never needs more.
const FIRST_LAP_BYTES: usize = 256 << 10;

/// Where the length of the lap stands: behind both slots of the state page.
const LAP_AT: usize = STATE_BYTES - size_of::<u64>();

/// Largest ring: beyond it a setting is a mistake.
pub const MAX_RING_BYTES: usize = 1 << 30;

const _: () = assert!(STATE_BYTES.is_multiple_of(MIN_RING_BYTES));

/// The seals that let nobody change the size any more.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The mapped memory of one stream. Nobody else writes to it: the activator does not map it, and a predecessor is dead, which
/// [`super::ProcessHandle`] makes certain.
#[derive(Debug)]
pub struct RingMemory {
    /// The state page, then the ring twice.
    base: NonNull<u8>,
    whole: usize,
    /// Bytes of the ring that are in use; a power of two, at most `whole`.
    lap: usize,
}

// SAFETY: the mapping belongs to this value alone, like the memory of a `Box<[u8]>`.
unsafe impl Send for RingMemory {}
// SAFETY: `&self` only reads.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Creates the memory, sealed and not mapped. It is all zeros and takes no room yet.
    ///
    /// # Errors
    /// `ring_bytes` is not a power of two from [`MIN_RING_BYTES`] to [`MAX_RING_BYTES`]; or the kernel's.
    pub fn create(ring_bytes: usize) -> io::Result<OwnedFd> {
        if !valid(ring_bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ring is a power of two, 64 KiB to 1 GiB"));
        }
        let memory = memfd_create("liveedgecast-stream", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, (STATE_BYTES + ring_bytes) as u64)?;
        fcntl_add_seals(&memory, SEALS)?;
        Ok(memory)
    }

    /// Maps memory that somebody sent. Its size and seals are checked first.
    ///
    /// # Errors
    /// It is not memory as [`Self::create`] makes it; or the kernel's.
    pub fn map(memory: OwnedFd) -> io::Result<Self> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        // What is no memfd has no seals.
        let seals = fcntl_get_seals(&memory).map_err(|_| wrong("the ring's descriptor is not memory"))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(wrong("the ring's memory is not sealed"));
        }
        let size = usize::try_from(fstat(&memory)?.st_size).unwrap_or(0);
        let capacity = size.checked_sub(STATE_BYTES).filter(|capacity| valid(*capacity));
        let capacity = capacity.ok_or_else(|| wrong("the ring's memory has a wrong size"))?;

        let reserved = STATE_BYTES + 2 * capacity;
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| wrong("the kernel mapped nothing"))?;
        // From here on dropping unmaps it.
        let this = Self { base, whole: capacity, lap: capacity };
        this.map_at(&memory, 0, STATE_BYTES + capacity, 0)?;
        this.map_at(&memory, STATE_BYTES + capacity, capacity, STATE_BYTES as u64)?;
        Ok(this)
    }

    /// The same; but only as much of the ring is used as the window needs, see [`Self::grow`].
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn map_growing(memory: OwnedFd) -> io::Result<Self> {
        let mut this = Self::map(memory)?;
        let written = this.page()[LAP_AT..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let lap = match usize::try_from(written) {
            Ok(0) => FIRST_LAP_BYTES.min(this.whole),
            Ok(lap) if valid(lap) && lap <= this.whole => lap,
            // A stranger's. Nothing will be found where it was said to be.
            _ => this.whole,
        };
        if lap < this.whole {
            this.mirror(0, lap, lap)?;
            this.lap = lap;
        }
        Ok(this)
    }

    /// Doubles the part of the ring that is in use. The bytes from `from` to `to` stay where their positions say. `false`: all of it is in
    /// use, or the kernel has no mapping left.
    ///
    /// # Panics
    /// From `from` to `to` is more than [`Self::capacity`]; or the kernel takes back what it had given.
    pub fn grow(&mut self, from: u64, to: u64) -> bool {
        let (lap, next) = (self.lap, self.lap * 2);
        assert!(to - from <= lap as u64, "what is to stay is no longer than the lap");
        // The upper half, as itself and no longer as the lower half again; then the new lap again, unless it is there already.
        let mapped = next <= self.whole
            && self.mirror(lap, lap, lap).is_ok()
            && (next == self.whole || self.mirror(0, next, next).is_ok());
        if !mapped {
            let restored = lap == self.whole || self.mirror(0, lap, lap).is_ok();
            // It takes no mapping more than there was before. Without it, a window over the end of the lap would be other bytes.
            assert!(restored, "the kernel does not map again what it had mapped");
            return false;
        }
        let mut at = from;
        while at < to {
            let place = (at & (lap as u64 - 1)) as usize;
            let len = usize::try_from(to - at).unwrap_or(lap).min(lap - place);
            if at & lap as u64 != 0 {
                // SAFETY: both ranges are within the ring, and one is in its lower half, the other in its upper one.
                unsafe {
                    let lower = self.base.as_ptr().add(STATE_BYTES + place);
                    std::ptr::copy_nonoverlapping(lower, lower.add(lap), len);
                }
            }
            at += len as u64;
        }
        // Killed before, a successor finds everything in the old lap; killed behind it, in the new one.
        // SAFETY: it is within the state page, and aligned: the page's length is a multiple of it.
        unsafe { self.base.as_ptr().add(LAP_AT).cast::<u64>().write_volatile(next as u64) };
        self.lap = next;
        true
    }

    /// Maps `len` bytes of the ring from `from` on again, at `to` of the ring's first mapping.
    fn mirror(&self, from: usize, len: usize, to: usize) -> io::Result<()> {
        let second = STATE_BYTES + self.whole;
        let start = self.base.as_ptr();
        // SAFETY: from the second mapping of the whole ring, which a lap of less than the ring leaves alone (two laps are no longer than the
        // ring), to a place within the first, which nobody looks at while `self` is being made or borrowed exclusively. A length of 0 maps
        // shared memory a second time and leaves the first mapping (mremap(2)).
        unsafe {
            let (from, to) = (start.add(second + from).cast(), start.add(STATE_BYTES + to).cast());
            mremap_fixed(from, 0, len, MremapFlags::MAYMOVE, to)?;
        }
        Ok(())
    }

    fn map_at(&self, memory: impl AsFd, at: usize, len: usize, offset: u64) -> io::Result<()> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: `at..at + len` lies within what `map` has reserved, which nobody else uses; FIXED replaces just that.
        unsafe { mmap(self.base.as_ptr().add(at).cast(), len, access, flags, memory, offset)? };
        Ok(())
    }

    /// Bytes of the ring that are in use.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.lap
    }

    /// Bytes of the ring that can be in use.
    #[must_use]
    pub fn most(&self) -> usize {
        self.whole
    }

    /// Offset of a window in the mapping.
    fn window(&self, position: u64, len: usize) -> usize {
        assert!(len <= self.lap, "a window is no longer than the ring");
        STATE_BYTES + (position & (self.lap as u64 - 1)) as usize
    }

    /// The `len` bytes from a position of the connection on. Whether they are still, or already, there is for the caller to know.
    ///
    /// # Panics
    /// `len` is more than [`Self::capacity`].
    #[must_use]
    pub fn bytes(&self, position: u64, len: usize) -> &[u8] {
        let at = self.window(position, len);
        // SAFETY: `at` is less than the capacity behind the page, so `at + len` is within the two mappings of the ring, which are
        // readable as long as `self` lives. The memory is initialised (the kernel's zeros at least), and nobody writes while `self` is
        // borrowed (see the type). The size cannot change: it is sealed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), len) }
    }

    /// The same, to receive into.
    ///
    /// # Panics
    /// `len` is more than [`Self::capacity`].
    #[must_use]
    pub fn space(&mut self, position: u64, len: usize) -> &mut [u8] {
        let at = self.window(position, len);
        // SAFETY: as in `bytes`; and a window no longer than the ring holds no byte twice, so the slice does not alias itself.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), len) }
    }

    /// The state page: see [`crate::handoff::page`].
    #[must_use]
    pub fn page(&self) -> &[u8] {
        // SAFETY: as in `bytes`; the page is the first part of the mapping.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), STATE_BYTES) }
    }

    /// The state page, to publish to.
    #[must_use]
    pub fn page_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `page`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), STATE_BYTES) }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` has reserved; no slice outlives `self`. It fails only for wrong arguments.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), STATE_BYTES + 2 * self.whole) };
    }
}

fn valid(ring_bytes: usize) -> bool {
    ring_bytes.is_power_of_two() && (MIN_RING_BYTES..=MAX_RING_BYTES).contains(&ring_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> RingMemory {
        RingMemory::map(RingMemory::create(MIN_RING_BYTES).unwrap()).unwrap()
    }

    #[test]
    fn a_window_over_the_end_is_one_slice() {
        let mut ring = ring();
        let capacity = ring.capacity() as u64;
        // Far into a connection, ten bytes before the end.
        let position = 7 * capacity - 10;
        ring.space(position, 20).copy_from_slice(b"0123456789abcdefghij");
        assert_eq!(ring.bytes(position, 20), b"0123456789abcdefghij");
        assert_eq!(ring.bytes(position + 10, 10), b"abcdefghij");
        assert_eq!(ring.bytes(0, 10), b"abcdefghij");
        assert_eq!(ring.bytes(capacity - 10, 10), b"0123456789");
        // The whole ring, from the middle.
        assert_eq!(ring.bytes(capacity / 2, capacity as usize).len(), capacity as usize);
        ring.space(capacity - 1, capacity as usize).fill(7);
        assert!(ring.bytes(0, capacity as usize).iter().all(|byte| *byte == 7));
    }

    #[test]
    fn the_page_is_apart_and_outlives_the_mapping() {
        let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
        let kept = memory.try_clone().unwrap();
        let mut ring = RingMemory::map(memory).unwrap();
        assert!(ring.page().iter().all(|byte| *byte == 0) && ring.page().len() == STATE_BYTES);
        ring.page_mut().fill(1);
        ring.space(0, ring.capacity()).fill(2);
        assert!(ring.page().iter().all(|byte| *byte == 1));
        drop(ring);
        let again = RingMemory::map(kept).unwrap();
        assert!(again.page().iter().all(|byte| *byte == 1));
        assert!(again.bytes(5, again.capacity()).iter().all(|byte| *byte == 2));
    }

    /// Bytes that tell their position.
    fn fill(ring: &mut RingMemory, from: u64, to: u64) {
        for position in from..to {
            ring.space(position, 1)[0] = (position % 251) as u8;
        }
    }

    fn is_filled(ring: &RingMemory, from: u64, to: u64) -> bool {
        let bytes = ring.bytes(from, (to - from) as usize);
        bytes.iter().zip(from..to).all(|(byte, position)| u64::from(*byte) == position % 251)
    }

    #[test]
    fn a_lap_grows_and_keeps_what_was_received() {
        let first = FIRST_LAP_BYTES as u64;
        // The window begins in the lower half of the next lap, in its upper one, and lies across.
        for start in [0, first - 5, first, 3 * first + 77, 4 * first, 1000 * first + 12_345] {
            let memory = RingMemory::create(4 * FIRST_LAP_BYTES).unwrap();
            let mut ring = RingMemory::map_growing(memory.try_clone().unwrap()).unwrap();
            assert_eq!((ring.capacity(), ring.most()), (FIRST_LAP_BYTES, 4 * FIRST_LAP_BYTES));
            let mut head = start + first;
            fill(&mut ring, start, head);
            for lap in [2 * first, 4 * first] {
                assert!(ring.grow(start, head));
                assert_eq!(ring.capacity() as u64, lap);
                assert!(is_filled(&ring, start, head), "from {start}, lap {lap}");
                // A successor, and one that maps the whole ring.
                let again = RingMemory::map_growing(memory.try_clone().unwrap()).unwrap();
                assert!(again.capacity() as u64 == lap && is_filled(&again, start, head));
                fill(&mut ring, head, start + lap);
                head = start + lap;
                assert!(is_filled(&ring, start, head), "from {start}, lap {lap}");
            }
            assert!(!ring.grow(start, head), "all is in use");
            assert!(is_filled(&ring, start, head));
        }
    }

    #[test]
    fn a_small_window_takes_no_more_memory_than_its_lap() {
        let memory = RingMemory::create(16 * FIRST_LAP_BYTES).unwrap();
        let mut ring = RingMemory::map_growing(memory.try_clone().unwrap()).unwrap();
        for position in (0..64 * FIRST_LAP_BYTES as u64).step_by(1000) {
            ring.space(position, 1000).fill(1);
        }
        let taken = fstat(&memory).unwrap().st_blocks * 512;
        // And the page on which the lap's length stands.
        assert!(taken <= (FIRST_LAP_BYTES + MIN_RING_BYTES) as i64, "{taken}");
    }

    #[test]
    fn a_lap_that_a_stranger_wrote_is_within_the_ring() {
        for lap in [1, 3 << 16, u64::MAX, 1 << 40, 32 * FIRST_LAP_BYTES as u64] {
            let memory = RingMemory::create(16 * FIRST_LAP_BYTES).unwrap();
            let mut ring = RingMemory::map(memory.try_clone().unwrap()).unwrap();
            ring.page_mut()[LAP_AT..].copy_from_slice(&lap.to_ne_bytes());
            assert_eq!(RingMemory::map_growing(memory).unwrap().capacity(), ring.most());
        }
    }

    #[test]
    #[should_panic(expected = "no longer than the ring")]
    fn a_window_is_bounded() {
        let _ = ring().bytes(0, MIN_RING_BYTES + 1);
    }

    #[test]
    fn only_powers_of_two() {
        for size in [0, 1, 4096, MIN_RING_BYTES - 1, MIN_RING_BYTES + 4096, 3 * MIN_RING_BYTES, 2 * MAX_RING_BYTES] {
            assert_eq!(RingMemory::create(size).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{size}");
        }
    }

    #[test]
    fn a_strangers_descriptor_is_refused() {
        let unsealed = || memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let refusal = |memory: OwnedFd| {
            let error = RingMemory::map(memory).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            error.to_string()
        };
        assert_eq!(refusal(tempfile::tempfile().unwrap().into()), "the ring's descriptor is not memory");
        assert_eq!(
            refusal(std::net::UdpSocket::bind("[::1]:0").unwrap().into()),
            "the ring's descriptor is not memory"
        );

        let memory = unsealed();
        ftruncate(&memory, (STATE_BYTES + MIN_RING_BYTES) as u64).unwrap();
        assert_eq!(refusal(memory.try_clone().unwrap()), "the ring's memory is not sealed");
        fcntl_add_seals(&memory, SealFlags::GROW).unwrap();
        assert_eq!(refusal(memory.try_clone().unwrap()), "the ring's memory is not sealed");
        fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        assert!(RingMemory::map(memory).is_ok());

        for size in [0, STATE_BYTES, STATE_BYTES + 4096, STATE_BYTES + 3 * MIN_RING_BYTES] {
            let memory = unsealed();
            ftruncate(&memory, size as u64).unwrap();
            fcntl_add_seals(&memory, SEALS).unwrap();
            assert_eq!(refusal(memory), "the ring's memory has a wrong size");
        }
    }

    #[test]
    fn nobody_can_take_the_memory_away() {
        let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
        assert!(ftruncate(&memory, 0).is_err() && ftruncate(&memory, 1 << 30).is_err());
        assert!(fcntl_add_seals(&memory, SealFlags::WRITE).is_err());
    }
}
