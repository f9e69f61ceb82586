//! Room for those who have not shown yet what they want.
//!
//! In: somebody who comes. Out: a [`Place`], always: when there is none left, whoever has had one for longest loses it. Next: whoever
//! serves him, until he is known or done. Pure but for a lock and the word to the one who has to go.
//!
//! What surprised us: a bound that turns the next one away, or leaves him in the backlog, is a gift to who comes first and stays. One
//! stranger with a hundred idle connections kept every probe and every worker out. Ours are done within milliseconds, so they never are
//! the ones who have stayed longest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// A bounded number of places.
#[derive(Clone, Debug)]
pub struct Crowd {
    room: usize,
    // A lock, because places are given back wherever their owners end; held for one or two map operations.
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    /// By the order in which they came.
    places: BTreeMap<u64, CancellationToken>,
}

impl Crowd {
    /// An empty one, with room for so many; at least for one.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { room: room.max(1), inside: Arc::default() }
    }

    /// A place, at the cost of whoever has one for longest if need be.
    #[must_use]
    pub fn enter(&self) -> Place {
        self.enter_with(CancellationToken::new())
    }

    /// The same; the loss of the place cancels `lost`, which several places may share.
    #[must_use]
    pub fn enter_with(&self, lost: CancellationToken) -> Place {
        let mut inside = self.inside();
        if inside.places.len() >= self.room
            && let Some((_, longest)) = inside.places.pop_first()
        {
            longest.cancel();
        }
        let number = inside.next;
        inside.next += 1;
        inside.places.insert(number, lost.clone());
        drop(inside);
        Place { crowd: self.clone(), number, lost }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody's place. Dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    crowd: Crowd,
    number: u64,
    lost: CancellationToken,
}

impl Place {
    /// Returns when somebody else has it. Cancel safe.
    pub fn lost(&self) -> WaitForCancellationFuture<'_> {
        self.lost.cancelled()
    }

    /// The token that the loss of this place cancels.
    #[must_use]
    pub fn loss(&self) -> CancellationToken {
        self.lost.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.inside().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_stayed_longest_goes_first() {
        let crowd = Crowd::new(2);
        let (first, second) = (crowd.enter(), crowd.enter());
        let third = crowd.enter();
        assert!(first.lost.is_cancelled() && !second.lost.is_cancelled());
        // Who has lost his place gives none back.
        drop(first);
        let fourth = crowd.enter();
        assert!(second.lost.is_cancelled() && !third.lost.is_cancelled() && !fourth.lost.is_cancelled());
    }

    #[test]
    fn a_place_that_was_given_back_costs_nobody_his() {
        let crowd = Crowd::new(2);
        let (first, second) = (crowd.enter(), crowd.enter());
        drop(second);
        let third = crowd.enter();
        assert!(!first.lost.is_cancelled() && !third.lost.is_cancelled());
        drop((first, third));
        assert!(crowd.inside().places.is_empty());
    }
}
