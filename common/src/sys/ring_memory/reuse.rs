//! The memory of a stream that has ended, for another stream. In: memory that a worker has had. Out: whether that worker has unmapped it, and the
//! same memory without the stream's state. User: the activator's `handoff`, which keeps such memory and gives it to the same worker again. Rings by
//! link are the worker's own, stay mapped, and need none of this: `worker::receive`.
//!
//! Fresh memory is expensive: the kernel takes a page at a time and fills it with zeros, in the thread that writes to it first. Memory that was
//! used before keeps its pages and the length of its lap, which is taken from the kernel at once when it is mapped.
//!
//! A worker that still had the memory mapped would write into the stream of another publisher. So a mapping that ends in order says so in a word
//! behind the state page's snapshots, after the ring itself was unmapped. A worker that is killed never says it. Nothing vouches for the word, so
//! the activator gives the memory to no other worker than the one that has had it: that one can harm its own streams alone, which
//! it could before.
//!
//! Nothing of the old stream is understood: the state page is cleared, with the old stream's key in its snapshots, and nothing but a snapshot
//! says which bytes of the ring mean anything. The old media stay, since clearing them would give up the pages. They are the same worker's own,
//! and a successor that takes the new stream over after the worker's death finds what the new stream has not overwritten.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, fallocate, fstat};
use rustix::io::pread;

use super::lap::LAP_AT;
use super::{RingMemory, STATE_BYTES, UnmappedRing};
use crate::handoff::page::SLOT_BYTES;

/// Offset of the word of a mapping that has ended, in front of the lap's length.
pub(super) const LEFT_AT: usize = LAP_AT - size_of::<u64>();

/// The word of a mapping that has ended in order.
const LEFT: u64 = u64::from_ne_bytes(*b"unmapped");

impl RingMemory {
    /// Says that this mapping has begun.
    pub(super) fn write_entered(&mut self) {
        self.word(LEFT_AT).store(0, Ordering::Release);
    }

    /// Says that this mapping is over.
    pub(super) fn write_left(&mut self) {
        self.word(LEFT_AT).store(LEFT, Ordering::Release);
    }
}

/// Returns whether the last process that had this memory mapped has unmapped it in order. Memory that was never mapped counts as mapped.
#[must_use]
pub fn is_left(memory: &OwnedFd) -> bool {
    let mut word = [0; size_of::<u64>()];
    matches!(pread(memory, &mut word, LEFT_AT as u64), Ok(read) if read == word.len())
        && u64::from_ne_bytes(word) == LEFT
}

/// Makes memory that [`is_left`] the memory of a stream that has not begun. The ring keeps its pages and its lap.
///
/// # Errors
/// The kernel's: the memory is not to be used.
pub fn clear(memory: &OwnedFd) -> io::Result<()> {
    const { assert!(2 * SLOT_BYTES == STATE_BYTES && LAP_AT + size_of::<u64>() == STATE_BYTES) };
    // The lap's length is the last word of the page.
    fallocate(memory, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, LAP_AT as u64)?;
    Ok(())
}

/// Bytes that the kernel has given to this memory.
#[must_use]
pub fn taken_bytes(memory: &OwnedFd) -> u64 {
    fstat(memory).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
}

/// Bytes of the ring in this memory.
///
/// # Errors
/// See [`UnmappedRing::check`].
pub fn ring_bytes(memory: &OwnedFd) -> io::Result<usize> {
    Ok(UnmappedRing::check(memory.try_clone()?)?.ring_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::{Snapshot, page};
    use crate::rtmp::server::ServerSession;

    const RING: usize = 1 << 20;

    fn mapped(memory: &OwnedFd) -> RingMemory {
        UnmappedRing::check(memory.try_clone().unwrap()).unwrap().map().unwrap()
    }

    fn snapshot(position: u64) -> Snapshot {
        Snapshot { session: ServerSession::new(position).state(), stream: None, unread: Vec::new() }
    }

    #[test]
    fn memory_is_left_when_its_mapping_has_ended_and_not_before() {
        let memory = RingMemory::create(RING).unwrap();
        assert!(!is_left(&memory), "it was never mapped");
        let ring = mapped(&memory);
        assert!(!is_left(&memory));
        drop(ring);
        assert!(is_left(&memory));
        clear(&memory).unwrap();
        assert!(!is_left(&memory), "it is another stream's");
        let ring = mapped(&memory);
        assert!(!is_left(&memory));
        drop(ring);
        assert!(is_left(&memory));
    }

    #[test]
    fn cleared_memory_has_its_lap_and_its_pages_and_no_snapshot() {
        let memory = RingMemory::create(RING).unwrap();
        let mut ring = mapped(&memory);
        while ring.capacity() < RING / 2 && ring.grow(0, 0) {}
        ring.space(0, RING / 2).fill(7);
        // In both slots.
        for position in [3073, 5000] {
            assert!(page::publish(ring.page_mut(), &snapshot(position)));
        }
        assert_eq!(page::read(ring.page()).unwrap().session.position(), 5000);
        drop(ring);
        let taken = taken_bytes(&memory);
        assert!(taken >= RING as u64 / 2);
        clear(&memory).unwrap();
        let kept = taken_bytes(&memory);
        assert!((RING as u64 / 2..=taken).contains(&kept), "{kept}");
        assert_eq!(ring_bytes(&memory).unwrap(), RING);
        let mut ring = mapped(&memory);
        assert!(ring.page()[..LEFT_AT].iter().all(|byte| *byte == 0), "something of the old stream is left");
        assert_eq!((ring.capacity(), page::read(ring.page())), (RING / 2, None));
        // The next snapshots are read as in fresh memory, whatever their number.
        for position in [4000, 4100, 4200] {
            assert!(page::publish(ring.page_mut(), &snapshot(position)));
            assert_eq!(page::read(ring.page()).unwrap().session.position(), position);
        }
    }

    #[test]
    fn memory_of_this_process_alone_is_told_from_memory_that_was_passed() {
        let memory = RingMemory::create(RING).unwrap();
        assert!(!mapped(&memory).is_private());
        assert!(UnmappedRing::create(RING).unwrap().map().unwrap().is_private());
    }
}
