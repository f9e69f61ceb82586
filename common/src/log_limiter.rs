//! A limit on log lines that a stranger can cause at will. In: the time. Out: whether a line is due.
//!
//! Note: an operator wants a warning per refused proof when one worker has an old secret; when somebody sends a hundred thousand bad
//! proofs, the same warning fills the disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one log line, or a small number of lines, through per interval.
#[derive(Debug)]
pub struct LogLimiter {
    every: Duration,
    /// Most lines of one interval.
    most: u32,
    // A lock, because it is a static that tasks share; held for one comparison. The beginning of the current interval, and its lines.
    interval: Mutex<Option<(Instant, u32)>>,
}

impl LogLimiter {
    /// A limiter that lets the first line through at once, and then at most one per `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self::several(1, every)
    }

    /// A limiter that lets at most `most` lines through in an interval of `every`, which begins with the first of them.
    #[must_use]
    pub const fn several(most: u32, every: Duration) -> Self {
        Self { every, most, interval: Mutex::new(None) }
    }

    /// True if a line may be logged at `now`; it counts as logged then.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut interval = self.interval.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, lines) =
            interval.filter(|(begun, _)| now.saturating_duration_since(*begun) < self.every).unwrap_or((now, 0));
        let due = lines < self.most;
        *interval = Some((begun, lines + u32::from(due)));
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

    #[test]
    fn several_lines_pass_in_each_interval() {
        let (limiter, origin) = (LogLimiter::several(2, Duration::from_secs(1)), origin());
        let due = [0, 900, 950, 1000, 1001, 1002].map(|at| limiter.is_due(origin + Duration::from_millis(at)));
        assert_eq!(due, [true, true, false, true, true, false]);
    }
}
