//! The rings of one stream: that of its publisher, and those of earlier publishers whose messages upstreams still need.

use std::collections::VecDeque;

use liveedgecast_common::sys::RingMemory;

use super::index::Memory;
use crate::receive::SpareRings;

/// Rings at most: publishers that came and went within one replay window. The oldest makes room.
pub(super) const MAX_RINGS: usize = 4;

/// Rings by their number, ascending. The last one is the publisher's.
#[derive(Debug)]
pub(super) struct Rings {
    rings: VecDeque<(u32, RingMemory)>,
    /// Gets the rings from which nothing is read any more.
    spares: SpareRings,
}

impl Rings {
    pub(super) fn new(number: u32, ring: Option<RingMemory>, spares: SpareRings) -> Self {
        Self { rings: ring.into_iter().map(|ring| (number, ring)).collect(), spares }
    }

    /// Adds the ring of the next publisher.
    pub(super) fn push(&mut self, number: u32, ring: RingMemory) {
        self.rings.push_back((number, ring));
    }

    /// Number of rings.
    pub(super) fn len(&self) -> usize {
        self.rings.len()
    }

    /// Gives the rings with lower numbers than this away, from which nothing is read any more. The publisher's ring stays.
    pub(super) fn forget(&mut self, below: u32) {
        while self.rings.len() > 1 && self.rings.front().is_some_and(|(number, _)| *number < below) {
            if let Some((_, ring)) = self.rings.pop_front() {
                self.spares.put(ring);
            }
        }
    }

    /// The publisher's ring.
    pub(super) fn current(&self) -> Option<&RingMemory> {
        self.rings.back().map(|(_, ring)| ring)
    }

    /// The publisher's ring, to receive into.
    pub(super) fn current_mut(&mut self) -> Option<&mut RingMemory> {
        self.rings.back_mut().map(|(_, ring)| ring)
    }
}

/// The stream has ended: its rings can be those of other streams.
impl Drop for Rings {
    fn drop(&mut self) {
        for (_, ring) in self.rings.drain(..) {
            self.spares.put(ring);
        }
    }
}

impl Memory for Rings {
    fn bytes(&self, ring: u32, position: u64, len: usize) -> &[u8] {
        let found = self.rings.iter().find(|(number, _)| *number == ring);
        found.map(|(_, ring)| ring.bytes(position, len)).unwrap_or_default()
    }
}
