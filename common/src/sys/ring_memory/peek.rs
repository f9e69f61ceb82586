//! A look into a ring that another process writes to. In: the memory's descriptor. Out: copies of the last published snapshot and of the bytes
//! behind it. User: the activator's `excerpt`.
//!
//! The memory is read by calls of the kernel and not mapped, because its bytes change at any time; see the assumption in [`super`].
//!
//! A worker keeps every byte behind the snapshot that it has published last, for a successor. So bytes that were copied are good if that snapshot
//! and the length of the lap are the same afterwards: [`RingPeek::is_unchanged`].

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::fstat;
use rustix::io::pread;

use super::lap::LAP_AT;
use super::{STATE_BYTES, valid};
use crate::handoff::{Snapshot, page};

/// A memory as it was at one moment.
#[derive(Debug)]
pub struct RingPeek<'a> {
    memory: &'a OwnedFd,
    lap: u64,
    snapshot: Snapshot,
}

impl<'a> RingPeek<'a> {
    /// Reads the state page. `None`: no snapshot has been published yet, or one is just being written.
    ///
    /// # Errors
    /// The kernel's; not the memory of a ring.
    pub fn new(memory: &'a OwnedFd) -> io::Result<Option<Self>> {
        let mut state = vec![0; STATE_BYTES];
        read(memory, &mut state, 0)?;
        let lap = state[LAP_AT..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let size = u64::try_from(fstat(memory)?.st_size).unwrap_or(0);
        let is_lap = usize::try_from(lap).is_ok_and(valid) && STATE_BYTES as u64 + lap <= size;
        let snapshot = page::read(&state).filter(|_| is_lap);
        Ok(snapshot.map(|snapshot| Self { memory, lap, snapshot }))
    }

    /// The last published snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Tells whether a ring with this lap can still have all bytes from the snapshot to `head`.
    #[must_use]
    pub fn reaches(&self, head: u64) -> bool {
        head.checked_sub(self.snapshot.session.position()).is_some_and(|behind| behind <= self.lap)
    }

    /// Copies bytes from a position of the publisher's connection on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn copy(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        let mut at = position;
        let mut rest = into;
        while !rest.is_empty() {
            let place = at & (self.lap - 1);
            let piece = usize::try_from(self.lap - place).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(piece);
            read(self.memory, now, STATE_BYTES as u64 + place)?;
            at += piece as u64;
            rest = later;
        }
        Ok(())
    }

    /// Tells whether every byte that was copied from behind the snapshot was in its place.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        let now = Self::new(self.memory)?;
        Ok(now.is_some_and(|now| {
            now.lap == self.lap && now.snapshot.session.position() == self.snapshot.session.position()
        }))
    }
}

fn read(memory: &OwnedFd, mut into: &mut [u8], at: u64) -> io::Result<()> {
    let mut at = at;
    while !into.is_empty() {
        let count = pread(memory, &mut *into, at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = &mut into[count..];
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{MIN_RING_BYTES, RingMemory, UnmappedRing};
    use super::*;
    use crate::rtmp::server::ServerSession;

    fn snapshot(position: u64) -> Snapshot {
        Snapshot { session: ServerSession::new(position).state(), stream: None, unread: Vec::new() }
    }

    #[test]
    fn bytes_are_read_across_the_end_of_the_lap_and_are_good_until_the_worker_moves_on() {
        let memory = RingMemory::create(4 * MIN_RING_BYTES).unwrap();
        let mut ring = UnmappedRing::check(memory.try_clone().unwrap()).unwrap().map().unwrap();
        assert!(RingPeek::new(&memory).unwrap().is_none(), "nothing is published");
        let lap = ring.capacity() as u64;
        let position = 7 * lap - 10;
        ring.space(position, 20).copy_from_slice(b"0123456789abcdefghij");
        assert!(page::publish(ring.page_mut(), &snapshot(position)));
        let peek = RingPeek::new(&memory).unwrap().expect("a snapshot");
        assert_eq!(peek.snapshot().session.position(), position);
        let mut copy = [0; 20];
        peek.copy(position, &mut copy).unwrap();
        assert_eq!(&copy, b"0123456789abcdefghij");
        assert!(peek.reaches(position) && peek.reaches(position + lap));
        assert!(!peek.reaches(position - 1) && !peek.reaches(position + lap + 1));
        assert!(peek.is_unchanged().unwrap());
        assert!(ring.grow(position, position + 20));
        assert!(!peek.is_unchanged().unwrap(), "the bytes have other places");
        let peek = RingPeek::new(&memory).unwrap().expect("a snapshot");
        copy.fill(0);
        peek.copy(position, &mut copy).unwrap();
        assert_eq!(&copy, b"0123456789abcdefghij");
        assert!(page::publish(ring.page_mut(), &snapshot(position + 5)));
        assert!(!peek.is_unchanged().unwrap(), "the first bytes may be overwritten from here on");
    }

    #[test]
    fn memory_that_is_no_ring_is_refused() {
        let other = rustix::fs::memfd_create("other", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(RingPeek::new(&other).is_err());
        rustix::fs::ftruncate(&other, STATE_BYTES as u64).unwrap();
        assert!(RingPeek::new(&other).unwrap().is_none());
    }
}
