//! A publisher's bytes since the worker's last checkpoint, and the part of them that the present worker was given. In: bytes, received straight
//! into the buffer. Out: slices to write, again from the start for the next worker. Nothing is copied. Pure. Next: `machine`, which frames them.
//!
//! The bytes lie in blocks that all streams share: the buffer has as many as it needs, and a checkpoint makes those before it free.
//! ```text
//!          start          given           end
//!  [ ......|######][######|>>>>>>][>>>>>>>|......]
//!  forgotten  the worker's   to be given    free
//! ```

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::ops::{Deref, DerefMut};

use liveedgecast_common::sys::MemoryBlock;
use liveedgecast_common::sys::blocks::BLOCK_BYTES;

use super::limits::{LEAST_READ, MOST_READ};

/// Most pieces of the room for a read: the rest of a block, and whole blocks.
const MOST_PARTS: usize = MOST_READ.div_ceil(BLOCK_BYTES) + 1;

/// The bytes from one position of the publisher's connection to another.
#[derive(Debug)]
pub(crate) struct ReplayBuffer {
    /// All are full but the last one.
    blocks: VecDeque<MemoryBlock>,
    /// Bytes at the beginning of the first block that are forgotten.
    forgotten: usize,
    /// Position of the first kept byte.
    start: u64,
    /// Position of the next byte to come.
    end: u64,
    /// Position of the first byte that the worker was not given.
    given: u64,
    /// Least room for the next read.
    room: usize,
    /// The room that the last [`Self::space`] has had.
    offered: usize,
}

/// Room for a read, behind the bytes of a buffer.
pub(crate) struct Space<'a> {
    parts: [IoSliceMut<'a>; MOST_PARTS],
    used: usize,
}

impl ReplayBuffer {
    /// An empty buffer; the next byte has this position.
    pub(crate) fn new(position: u64) -> Self {
        Self {
            blocks: VecDeque::new(),
            forgotten: 0,
            start: position,
            end: position,
            given: position,
            room: LEAST_READ,
            offered: 0,
        }
    }

    /// The number of bytes in the buffer.
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// The number of bytes that the worker was not given yet.
    pub(crate) fn waiting(&self) -> usize {
        (self.end - self.given) as usize
    }

    /// Room for the next bytes; [`Self::received`] follows.
    pub(crate) fn space(&mut self) -> Space<'_> {
        let filled = self.forgotten + self.len();
        while self.blocks.len() * BLOCK_BYTES < filled + self.room {
            self.blocks.push_back(MemoryBlock::take());
        }
        self.offered = self.blocks.len() * BLOCK_BYTES - filled;
        let mut space = Space { parts: std::array::from_fn(|_| IoSliceMut::new(&mut [])), used: 0 };
        let mut offset = filled % BLOCK_BYTES;
        for (part, block) in space.parts.iter_mut().zip(self.blocks.iter_mut().skip(filled / BLOCK_BYTES)) {
            *part = IoSliceMut::new(&mut block[offset..]);
            space.used += 1;
            offset = 0;
        }
        space
    }

    /// Counts the first `len` bytes of the last [`Self::space`] as received. A read that has filled its room doubles that of the next one.
    pub(crate) fn received(&mut self, len: usize) {
        debug_assert!(len <= self.offered, "more was received than there was room for");
        self.end += len as u64;
        self.room = if len == self.offered { (self.room * 2).min(MOST_READ) } else { LEAST_READ };
        self.free();
    }

    /// Takes the next bytes, as a copy.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = self.forgotten + self.len();
            if filled == self.blocks.len() * BLOCK_BYTES {
                self.blocks.push_back(MemoryBlock::take());
            }
            let Some(last) = self.blocks.back_mut() else { unreachable!("a block has room") };
            let room = &mut last[filled % BLOCK_BYTES..];
            let take = room.len().min(bytes.len());
            room[..take].copy_from_slice(&bytes[..take]);
            self.end += take as u64;
            bytes = &bytes[take..];
        }
    }

    /// Puts the next `len` bytes to be given, or as many as fit, into `out` from `at` on. Returns the number of the first slice that is not used.
    pub(crate) fn slices<'a>(&'a self, len: usize, out: &mut [IoSlice<'a>], mut at: usize) -> usize {
        self.each_slice(len, |slice| {
            if let Some(next) = out.get_mut(at) {
                *next = IoSlice::new(slice);
                at += 1;
            }
        });
        at
    }

    fn each_slice<'a>(&'a self, len: usize, mut take: impl FnMut(&'a [u8])) {
        let mut len = len.min(self.waiting());
        let first = self.forgotten + (self.given - self.start) as usize;
        let mut offset = first % BLOCK_BYTES;
        for block in self.blocks.iter().skip(first / BLOCK_BYTES) {
            if len == 0 {
                return;
            }
            let rest = &block[offset..];
            let now = rest.len().min(len);
            take(&rest[..now]);
            len -= now;
            offset = 0;
        }
    }

    /// Counts `len` more bytes as given.
    pub(crate) fn gave(&mut self, len: usize) {
        debug_assert!(len <= self.waiting(), "more was given than there is");
        self.given += len as u64;
    }

    /// Forgets the bytes before `position`, which the worker has for good. False if the worker cannot have them: it was not given them.
    pub(crate) fn forget_before(&mut self, position: u64) -> bool {
        if position < self.start || position > self.given {
            return false;
        }
        self.forgotten += (position - self.start) as usize;
        self.start = position;
        self.free();
        true
    }

    /// Frees the blocks before and behind the bytes. A stream of which nothing is kept has none.
    fn free(&mut self) {
        if self.len() == 0 {
            self.blocks.clear();
            self.forgotten = 0;
            return;
        }
        while self.forgotten >= BLOCK_BYTES {
            self.blocks.pop_front();
            self.forgotten -= BLOCK_BYTES;
        }
        let needed = (self.forgotten + self.len()).div_ceil(BLOCK_BYTES);
        while self.blocks.len() > needed {
            self.blocks.pop_back();
        }
    }

    /// A copy of all bytes of the buffer.
    pub(crate) fn copy(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        let mut from = self.forgotten;
        for block in &self.blocks {
            let rest = &block[from..];
            bytes.extend_from_slice(&rest[..rest.len().min(self.len() - bytes.len())]);
            from = 0;
        }
        bytes
    }

    /// The bytes of the buffer, for this process to read on.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.rewind();
        let mut bytes = Vec::with_capacity(self.len());
        self.each_slice(usize::MAX, |slice| bytes.extend_from_slice(slice));
        bytes
    }

    /// Starts over, for another worker, which gets every byte of the buffer.
    pub(crate) fn rewind(&mut self) {
        self.given = self.start;
    }
}

impl<'a> Deref for Space<'a> {
    type Target = [IoSliceMut<'a>];

    fn deref(&self) -> &[IoSliceMut<'a>] {
        &self.parts[..self.used]
    }
}

impl DerefMut for Space<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.parts[..self.used]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(kept: &ReplayBuffer, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        kept.each_slice(len, |slice| all.extend_from_slice(slice));
        all
    }

    #[test]
    fn bytes_that_were_not_given_cannot_be_forgotten() {
        let mut kept = ReplayBuffer::new(100);
        kept.push(b"0123456789");
        assert!(!kept.forget_before(101));
        kept.gave(4);
        assert!(!kept.forget_before(105) && !kept.forget_before(99));
        assert!(kept.forget_before(104));
        assert_eq!((kept.len(), kept.waiting()), (6, 6));
        assert_eq!(next(&kept, 3), b"456");
    }

    #[test]
    fn buffer_has_the_blocks_that_its_bytes_need() {
        let mut kept = ReplayBuffer::new(0);
        assert_eq!(kept.blocks.len(), 0);
        for _ in 0..3 {
            let room: usize = kept.space().iter().map(|part| part.len()).sum();
            assert!(room >= LEAST_READ);
            kept.received(0);
            assert_eq!(kept.blocks.len(), 0, "nothing came");
        }
        kept.push(&vec![7; 3 * BLOCK_BYTES]);
        assert_eq!(kept.blocks.len(), 3);
        kept.push(b"7");
        assert_eq!(kept.blocks.len(), 4);
        kept.gave(3 * BLOCK_BYTES + 1);
        assert!(kept.forget_before(BLOCK_BYTES as u64 - 1));
        assert_eq!(kept.blocks.len(), 4);
        assert!(kept.forget_before(BLOCK_BYTES as u64));
        assert_eq!(kept.blocks.len(), 3);
        assert!(kept.forget_before(3 * BLOCK_BYTES as u64 + 1));
        assert_eq!(kept.blocks.len(), 0);
    }

    #[test]
    fn read_that_fills_its_room_makes_the_next_one_larger_and_small_reads_make_it_small_again() {
        let mut kept = ReplayBuffer::new(0);
        let mut rooms = Vec::new();
        for part in [1, 1, 1, 1, 0, 0, 0] {
            let room: usize = kept.space().iter().map(|part| part.len()).sum();
            rooms.push(room);
            kept.received(room * part);
        }
        assert!(rooms.iter().all(|room| *room <= MOST_READ + BLOCK_BYTES), "{rooms:?}");
        assert!(rooms[3] >= MOST_READ && rooms[6] < LEAST_READ + BLOCK_BYTES, "{rooms:?}");
    }

    proptest! {
        /// The model is one long vector with two positions in it.
        #[test]
        fn buffer_behaves_like_a_vector_with_positions(steps in proptest::collection::vec((0..5_u8, 0..3_usize, 0..300_usize), 1..100)) {
            let origin = 3073;
            let mut kept = ReplayBuffer::new(origin);
            let mut all: Vec<u8> = Vec::new();
            let (mut start, mut given) = (0, 0);
            for (step, blocks, amount) in steps {
                // Mostly near the edge of a block, where there is most to go wrong.
                let amount = blocks * (BLOCK_BYTES - 100) + amount;
                match step {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..amount).map(|at| (all.len() + at) as u8 ^ (amount as u8)).collect();
                        all.extend(&bytes);
                        if step == 0 {
                            kept.push(&bytes);
                        } else {
                            receive(&mut kept, &bytes);
                        }
                    }
                    2 => {
                        let len = amount.min(all.len() - given);
                        prop_assert_eq!(next(&kept, len), &all[given..given + len]);
                        kept.gave(len);
                        given += len;
                    }
                    3 => {
                        let to = start + amount;
                        prop_assert_eq!(kept.forget_before(origin + to as u64), to <= given);
                        if to <= given {
                            start = to;
                        }
                    }
                    _ if amount < 50 => {
                        kept.rewind();
                        given = start;
                    }
                    _ => {}
                }
                prop_assert_eq!(kept.len(), all.len() - start);
                prop_assert_eq!(kept.waiting(), all.len() - given);
                prop_assert_eq!(next(&kept, usize::MAX), &all[given..]);
                prop_assert_eq!(kept.copy(), &all[start..]);
                prop_assert!(kept.blocks.len() * BLOCK_BYTES < kept.len() + 2 * BLOCK_BYTES);
            }
            prop_assert_eq!(kept.into_bytes(), &all[start..]);
        }
    }

    /// Receives like a socket: as much as there is room for, in each call.
    fn receive(kept: &mut ReplayBuffer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let before = bytes.len();
            for part in kept.space().iter_mut() {
                let take = part.len().min(bytes.len());
                part[..take].copy_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
            }
            kept.received(before - bytes.len());
        }
    }
}
