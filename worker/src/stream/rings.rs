//! The rings of one stream: that of its publisher, and those of publishers before it that messages are still to be read from.

use std::collections::VecDeque;

use liveedgecast_common::sys::RingMemory;

use super::index::Memory;

/// Rings at most: publishers that came and went within one replay window. The oldest makes room.
pub(super) const MAX_RINGS: usize = 4;

/// By their number, ascending.
#[derive(Debug)]
pub(super) struct Rings {
    rings: VecDeque<(u32, RingMemory)>,
}

impl Rings {
    pub(super) fn new(number: u32, ring: RingMemory) -> Self {
        Self { rings: VecDeque::from([(number, ring)]) }
    }

    /// The publisher's ring from now on; one of the same number is replaced.
    pub(super) fn push(&mut self, number: u32, ring: RingMemory) {
        self.rings.retain(|(known, _)| *known != number);
        self.rings.push_back((number, ring));
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.rings.len()
    }

    /// Nothing is read any more from rings with lower numbers than this; that of the publisher stays.
    pub(super) fn forget(&mut self, below: u32) {
        while self.rings.len() > 1 && self.rings.front().is_some_and(|(number, _)| *number < below) {
            self.rings.pop_front();
        }
    }

    /// That of the publisher.
    pub(super) fn current(&self) -> Option<&RingMemory> {
        self.rings.back().map(|(_, ring)| ring)
    }

    /// That of the publisher.
    pub(super) fn current_mut(&mut self) -> Option<&mut RingMemory> {
        self.rings.back_mut().map(|(_, ring)| ring)
    }
}

impl Memory for Rings {
    fn bytes(&self, ring: u32, position: u64, len: usize) -> &[u8] {
        let found = self.rings.iter().find(|(number, _)| *number == ring);
        found.map(|(_, ring)| ring.bytes(position, len)).unwrap_or_default()
    }
}
