//! A bound on peers that have not proved themselves yet: the newest is always let in, and the oldest makes room.
//!
//! In: a new peer. Out: a [`Slot`], always; when all are taken, the peer that has held one for longest loses it. Next: the code that serves
//! the peer until it has proved itself or is done. Pure but for a lock and the cancellation of the evicted peer's token.
//!
//! Note: a bound that refuses the newest peer, or leaves it in the backlog, favours peers that came first and stay. One stranger with a
//! hundred idle connections kept every probe and every worker out. Our own peers are done within milliseconds, so they are never the
//! oldest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Peers that can be evicted, in the order of their arrival and in groups. Pure, but for the cancellation of an evicted peer's token.
#[derive(Debug)]
pub struct EvictionOrder<G> {
    next: u64,
    /// Peers by number, oldest first.
    peers: BTreeMap<u64, (G, CancellationToken)>,
    /// The same peers by group.
    by_group: BTreeSet<(G, u64)>,
}

impl<G> Default for EvictionOrder<G> {
    fn default() -> Self {
        Self { next: 0, peers: BTreeMap::new(), by_group: BTreeSet::new() }
    }
}

impl<G: Copy + Ord> EvictionOrder<G> {
    /// Adds the newest peer; eviction cancels `lost`. Returns the peer's number.
    pub fn insert(&mut self, group: G, lost: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.peers.insert(number, (group, lost));
        self.by_group.insert((group, number));
        number
    }

    /// Removes a peer that is not to be evicted any more; false when it was evicted before.
    pub fn remove(&mut self, number: u64) -> bool {
        self.take(number).is_some()
    }

    /// Evicts the oldest peer, of a group or of all; returns its group.
    pub fn evict(&mut self, group: Option<G>) -> Option<G> {
        let number = match group {
            None => self.peers.first_key_value().map(|(number, _)| *number)?,
            Some(group) => self.by_group.range((group, 0)..=(group, u64::MAX)).next().map(|(_, number)| *number)?,
        };
        let (group, lost) = self.take(number)?;
        lost.cancel();
        Some(group)
    }

    /// The number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// True if no slot is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn take(&mut self, number: u64) -> Option<(G, CancellationToken)> {
        let (group, lost) = self.peers.remove(&number)?;
        self.by_group.remove(&(group, number));
        Some((group, lost))
    }
}

/// A bounded number of slots, shared by its clones.
#[derive(Clone, Debug)]
pub struct EvictingLimit {
    most: usize,
    // A lock, because slots are given back wherever their owners end; held for a few map operations.
    taken: Arc<Mutex<EvictionOrder<()>>>,
}

impl EvictingLimit {
    /// A limit with `most` slots, at least one, all free.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), taken: Arc::default() }
    }

    /// A slot; the oldest one is evicted if all are taken.
    #[must_use]
    pub fn enter(&self) -> Slot {
        self.enter_with(CancellationToken::new())
    }

    /// A slot as from [`Self::enter`]; eviction cancels `lost`, which several slots may share.
    #[must_use]
    pub fn enter_with(&self, lost: CancellationToken) -> Slot {
        let mut taken = self.taken();
        if taken.len() >= self.most {
            taken.evict(None);
        }
        let number = taken.insert((), lost.clone());
        drop(taken);
        Slot { limit: self.clone(), number, lost }
    }

    fn taken(&self) -> MutexGuard<'_, EvictionOrder<()>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A taken slot. Dropping the slot gives it back.
#[derive(Debug)]
pub struct Slot {
    limit: EvictingLimit,
    number: u64,
    lost: CancellationToken,
}

impl Slot {
    /// Returns when this slot has been evicted. Cancel safe.
    pub fn lost(&self) -> WaitForCancellationFuture<'_> {
        self.lost.cancelled()
    }

    /// The token that eviction of this slot cancels.
    #[must_use]
    pub fn loss(&self) -> CancellationToken {
        self.lost.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.limit.taken().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_slot_is_evicted_first() {
        let limit = EvictingLimit::new(2);
        let (first, second) = (limit.enter(), limit.enter());
        let third = limit.enter();
        assert!(first.lost.is_cancelled() && !second.lost.is_cancelled());
        // An evicted slot gives nothing back.
        drop(first);
        let fourth = limit.enter();
        assert!(second.lost.is_cancelled() && !third.lost.is_cancelled() && !fourth.lost.is_cancelled());
    }

    #[test]
    fn returned_slot_evicts_nobody() {
        let limit = EvictingLimit::new(2);
        let (first, second) = (limit.enter(), limit.enter());
        drop(second);
        let third = limit.enter();
        assert!(!first.lost.is_cancelled() && !third.lost.is_cancelled());
        drop((first, third));
        assert!(limit.taken().is_empty());
    }
}
