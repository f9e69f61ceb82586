//! Log lines that a stranger can cause as often as he likes: one in a while is enough. In: the time. Out: whether it is time for one.
//!
//! What surprised us: a warning per refused proof is what an operator wants of one worker with an old secret, and a full disk when
//! somebody sends a hundred thousand.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one of many through.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    // A lock, because it is a static that tasks share; held for one comparison.
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// One per so much time, the first at once.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Whether this is the one.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= self.every);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn the_first_and_then_one_in_a_while() {
        let (seldom, origin) = (Seldom::new(Duration::from_secs(1)), Instant::now());
        let due =
            [0, 0, 400, 999, 1000, 1001, 1999, 9000, 9000].map(|at| seldom.is_due(origin + Duration::from_millis(at)));
        assert_eq!(due, [true, false, false, false, true, false, false, true, false]);
    }
}
