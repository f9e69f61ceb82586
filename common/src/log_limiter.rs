//! A limit on log lines that a stranger can cause at will. In: the time. Out: whether a line is due.
//!
//! Note: an operator wants a warning per refused proof when one worker has an old secret; when somebody sends a hundred thousand bad
//! proofs, the same warning fills the disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one log line through per interval.
#[derive(Debug)]
pub struct LogLimiter {
    every: Duration,
    // A lock, because it is a static that tasks share; held for one comparison.
    last: Mutex<Option<Instant>>,
}

impl LogLimiter {
    /// A limiter that lets the first line through at once, and then at most one per `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// True if a line may be logged at `now`; it counts as logged then.
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
    use crate::testkit::origin;

    #[test]
    fn first_line_passes_then_one_per_interval() {
        let (limiter, origin) = (LogLimiter::new(Duration::from_secs(1)), origin());
        let due =
            [0, 0, 400, 999, 1000, 1001, 1999, 9000, 9000].map(|at| limiter.is_due(origin + Duration::from_millis(at)));
        assert_eq!(due, [true, false, false, false, true, false, false, true, false]);
    }
}
