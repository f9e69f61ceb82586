//! A publisher's bytes since the worker's last checkpoint, and the part of them that the present worker was given. In: blocks as they were
//! read. Out: slices to write, again from the start for the next worker. Nothing is copied. Pure. Next: `machine`, which frames them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// The bytes from one position of the publisher's connection to another.
#[derive(Debug)]
pub(crate) struct ReplayBuffer {
    blocks: VecDeque<Bytes>,
    /// Position of the first kept byte.
    start: u64,
    /// Position of the next byte to come.
    end: u64,
    /// Position of the first byte that the worker was not given.
    given: u64,
    /// The block of that byte, and the offset in the block.
    cursor: (usize, usize),
}

impl ReplayBuffer {
    /// An empty buffer; the next byte has this position.
    pub(crate) fn new(position: u64) -> Self {
        Self { blocks: VecDeque::new(), start: position, end: position, given: position, cursor: (0, 0) }
    }

    /// The number of bytes in the buffer.
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// The number of bytes that the worker was not given yet.
    pub(crate) fn waiting(&self) -> usize {
        (self.end - self.given) as usize
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, block: Bytes) {
        if !block.is_empty() {
            self.end += block.len() as u64;
            self.blocks.push_back(block);
        }
    }

    /// Adds to `out` the next `len` bytes to be given, or as many as fit into `most` slices.
    pub(crate) fn slices<'a>(&'a self, mut len: usize, most: usize, out: &mut Vec<IoSlice<'a>>) {
        let (block, mut offset) = self.cursor;
        for block in self.blocks.iter().skip(block).take(most) {
            if len == 0 {
                return;
            }
            let rest = &block[offset..];
            let take = rest.len().min(len);
            out.push(IoSlice::new(&rest[..take]));
            len -= take;
            offset = 0;
        }
    }

    /// Counts `len` more bytes as given.
    pub(crate) fn gave(&mut self, len: usize) {
        debug_assert!(len <= self.waiting(), "more was given than there is");
        self.given += len as u64;
        let (mut block, mut offset) = self.cursor;
        offset += len;
        while let Some(size) = self.blocks.get(block).map(Bytes::len)
            && offset >= size
        {
            offset -= size;
            block += 1;
        }
        self.cursor = (block, offset);
    }

    /// Forgets the bytes before `position`, which the worker has for good. False if the worker cannot have them: it was not given them.
    pub(crate) fn forget_before(&mut self, position: u64) -> bool {
        if position < self.start || position > self.given {
            return false;
        }
        let mut gone = (position - self.start) as usize;
        while let Some(first) = self.blocks.front()
            && gone >= first.len()
        {
            gone -= first.len();
            self.blocks.pop_front();
            self.cursor.0 = self.cursor.0.saturating_sub(1);
        }
        if gone > 0
            && let Some(first) = self.blocks.front_mut()
        {
            first.advance(gone);
            if self.cursor.0 == 0 {
                self.cursor.1 -= gone;
            }
        }
        self.start = position;
        true
    }

    /// The bytes of the buffer, for this process to read on.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.blocks.into_iter().flatten().collect()
    }

    /// Starts over, for another worker, which gets every byte of the buffer.
    pub(crate) fn rewind(&mut self) {
        self.given = self.start;
        self.cursor = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(kept: &ReplayBuffer, len: usize) -> Vec<u8> {
        let mut slices = Vec::new();
        kept.slices(len, usize::MAX, &mut slices);
        slices.iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn bytes_that_were_not_given_cannot_be_forgotten() {
        let mut kept = ReplayBuffer::new(100);
        kept.push(Bytes::from_static(b"0123456789"));
        assert!(!kept.forget_before(101));
        kept.gave(4);
        assert!(!kept.forget_before(105) && !kept.forget_before(99));
        assert!(kept.forget_before(104));
        assert_eq!((kept.len(), kept.waiting()), (6, 6));
        assert_eq!(next(&kept, 3), b"456");
    }

    proptest! {
        /// The model is one long vector with two positions in it.
        #[test]
        fn buffer_behaves_like_a_vector_with_positions(steps in proptest::collection::vec((0..4_u8, 0..300_usize), 1..100)) {
            let origin = 3073;
            let mut kept = ReplayBuffer::new(origin);
            let mut all: Vec<u8> = Vec::new();
            let (mut start, mut given) = (0, 0);
            for (step, amount) in steps {
                match step {
                    0 => {
                        let block: Vec<u8> = (0..amount).map(|at| (all.len() + at) as u8 ^ (amount as u8)).collect();
                        all.extend(&block);
                        kept.push(block.into());
                    }
                    1 => {
                        let len = amount.min(all.len() - given);
                        prop_assert_eq!(next(&kept, len), &all[given..given + len]);
                        kept.gave(len);
                        given += len;
                    }
                    2 => {
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
            }
        }
    }
}
