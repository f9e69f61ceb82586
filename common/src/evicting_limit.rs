//! A bound on peers that have not proved themselves yet: the newest is always let in, and the oldest makes room.
//!
//! In: a new peer. Out: a [`Slot`], always; when all are taken, the peer that has held one for longest loses it. Next: the code that serves
//! the peer until it has proved itself or is done. Pure but for a lock and the cancellation of the evicted peer's token.
//!
//! Note: a bound that refuses the newest peer, or leaves it in the backlog, favours peers that came first and stay. One stranger with a
//! hundred idle connections kept every probe and every worker out. Our own peers are done within milliseconds, so they are never the
//! oldest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// A bounded number of slots, shared by its clones.
#[derive(Clone, Debug)]
pub struct EvictingLimit {
    most: usize,
    // A lock, because slots are given back wherever their owners end; held for one or two map operations.
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Taken slots by number, oldest first.
    slots: BTreeMap<u64, CancellationToken>,
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
        if taken.slots.len() >= self.most
            && let Some((_, oldest)) = taken.slots.pop_first()
        {
            oldest.cancel();
        }
        let number = taken.next;
        taken.next += 1;
        taken.slots.insert(number, lost.clone());
        drop(taken);
        Slot { limit: self.clone(), number, lost }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
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
        self.limit.taken().slots.remove(&self.number);
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
        assert!(limit.taken().slots.is_empty());
    }
}
