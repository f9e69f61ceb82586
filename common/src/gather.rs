//! When a publisher's socket is read, where its arrivals are to gather first (`GATHER`). Pure; the shells are the worker's stream, by
//! descriptor, and the activator's link.
//!
//! ```text
//!          bytes have come                        time is up: read
//!  Idle ─────────────────────▶ Gathering ──────────────────────────┐
//!   ▲                           │     ▲                            │
//!   └───────────────────────────┘     └────────────────────────────┘
//!     time is up, and nothing has come
//! ```
//!
//! While arrivals gather, the kernel wakes nobody for them (a low-water mark of [`LOW_WATER`] bytes): that, and fewer and longer reads and
//! writes, is what costs less.

use std::time::{Duration, Instant};

/// Bytes that wake the reader before the time is up: one read.
pub const LOW_WATER: u32 = 64 << 10;

/// See the picture above.
#[derive(Debug)]
pub struct Gather {
    time: Duration,
    /// The end of the time, while arrivals gather.
    until: Option<Instant>,
}

impl Gather {
    /// Creates the rules for arrivals that gather for `time`; `None`: they are read as they come.
    #[must_use]
    pub fn new(time: Duration) -> Option<Self> {
        (time > Duration::ZERO).then_some(Self { time, until: None })
    }

    /// Notes that bytes have come, and returns whether arrivals begin to gather with them.
    pub fn begins(&mut self, now: Instant) -> bool {
        let begins = self.until.is_none();
        if begins {
            self.until = Some(now + self.time);
        }
        begins
    }

    /// Returns whether what has gathered is to be read.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Notes that everything that had gathered was read, and returns whether that was nothing: then the next arrival is waited for.
    pub fn was_read(&mut self, now: Instant, something: bool) -> bool {
        self.until = something.then(|| now + self.time);
        !something
    }

    /// Deadline of the next read.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use crate::testkit::origin;

    use super::*;

    #[test]
    fn arrivals_gather_from_the_first_one_on_until_nothing_comes() {
        let (start, ms) = (origin(), Duration::from_millis(1));
        let mut gather = Gather::new(30 * ms).unwrap();
        assert!(!gather.is_due(start) && gather.poll_timeout().is_none());
        assert!(gather.begins(start));
        assert!(!gather.begins(start + 10 * ms), "a second arrival gathers with the first one");
        assert_eq!(gather.poll_timeout(), Some(start + 30 * ms));
        assert!(!gather.is_due(start + 29 * ms) && gather.is_due(start + 30 * ms));
        assert!(!gather.was_read(start + 31 * ms, true));
        assert!(!gather.is_due(start + 60 * ms) && gather.is_due(start + 61 * ms));
        assert!(gather.was_read(start + 61 * ms, false));
        assert!(gather.poll_timeout().is_none());
        assert!(gather.begins(start + 90 * ms));
    }

    #[test]
    fn no_time_gathers_nothing() {
        assert!(Gather::new(Duration::ZERO).is_none());
    }
}
