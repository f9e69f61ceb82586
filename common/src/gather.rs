//! When a publisher's socket is read, where its arrivals are to gather first (`GATHER`). Pure; the shells are the worker's stream, by
//! descriptor, and the activator's link.
//!
//! ```text
//!          bytes have come soon after others      time is up: read
//!  Idle ─────────────────────────────────▶ Gathering ──────────────┐
//!   ▲                                       │     ▲                │
//!   └───────────────────────────────────────┘     └────────────────┘
//!     time is up, and nothing has come
//! ```
//!
//! While arrivals gather, the kernel wakes nobody for them (a low-water mark of [`LOW_WATER`] bytes): that, and fewer and longer reads and
//! writes, is what costs less. Bytes that come further apart than the time are read as they come, because nothing would gather with them.
//!
//! The time is up at multiples of a step that all streams have in common. So a thread wakes once for all streams whose time is up, and so do the
//! next process and the upstream. The streams are spread over some such points, because one burst with all of them would add its own length to the
//! latency of the last.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Bytes that wake the reader before the time is up: one read.
pub const LOW_WATER: u32 = 64 << 10;

/// Steps in the time: as many as these, or more, …
const LEAST_STEPS: u128 = 4;
/// … so that a step is short enough for a burst of hundreds of streams to end within it …
const MOST_STEP: Duration = Duration::from_millis(10);
/// … but no shorter than the resolution of the runtime's timers.
const LEAST_STEP: Duration = Duration::from_millis(1);

/// The point from which steps count in this process.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// See the picture above.
#[derive(Debug)]
pub struct Gather {
    /// Time from one read to the next, in whole steps.
    time: Duration,
    step: Duration,
    /// The end of the time, while arrivals gather.
    until: Option<Instant>,
    /// The time of the last arrival that did not gather.
    last: Option<Instant>,
}

impl Gather {
    /// Creates the rules for arrivals that gather for `time` at most; `None`: they are read as they come.
    #[must_use]
    pub fn new(time: Duration) -> Option<Self> {
        if time.is_zero() {
            return None;
        }
        let most = (time.as_nanos() / LEAST_STEP.as_nanos()).max(1);
        let steps = time.as_nanos().div_ceil(MOST_STEP.as_nanos()).max(LEAST_STEPS).min(most) as u32;
        let step = time / steps;
        Some(Self { time: step * steps, step, until: None, last: None })
    }

    /// Notes that bytes have come, and returns whether arrivals begin to gather with them.
    pub fn begins(&mut self, now: Instant) -> bool {
        if self.until.is_some() {
            return false;
        }
        let before = self.last.replace(now);
        if before.is_none_or(|before| before + self.time < now) {
            return false;
        }
        self.until = Some(self.next(now));
        true
    }

    /// The last common point within the time.
    fn next(&self, now: Instant) -> Instant {
        let origin = *ORIGIN.get_or_init(|| now);
        let step = self.step.as_nanos() as i128;
        let since = now.saturating_duration_since(origin).as_nanos() as i128;
        let until = origin.saturating_duration_since(now).as_nanos() as i128;
        now + self.time - Duration::from_nanos((since - until).rem_euclid(step) as u64)
    }

    /// Returns whether what has gathered is to be read.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Notes that everything that had gathered was read, and returns whether that was nothing: then the next arrival is waited for.
    pub fn was_read(&mut self, now: Instant, something: bool) -> bool {
        self.until = something.then(|| self.next(now));
        self.last = None;
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

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn arrivals_gather_from_the_second_one_on_until_nothing_comes() {
        let start = origin();
        let mut gather = Gather::new(40 * MS).unwrap();
        assert!(!gather.begins(start), "it is not known yet whether more comes");
        assert!(!gather.is_due(start) && gather.poll_timeout().is_none());
        assert!(gather.begins(start + 20 * MS));
        assert!(!gather.begins(start + 25 * MS), "so many bytes that they are read at once");
        let first = gather.poll_timeout().unwrap();
        assert!(first > start + 50 * MS && first <= start + 60 * MS);
        assert!(!gather.is_due(first - MS) && gather.is_due(first));
        assert!(!gather.was_read(first + 2 * MS, true));
        assert_eq!(gather.poll_timeout(), Some(first + 40 * MS), "a late read delays no other");
        assert!(gather.was_read(first + 40 * MS, false));
        assert!(gather.poll_timeout().is_none());
        assert!(!gather.begins(first + 60 * MS));
        assert!(gather.begins(first + 61 * MS));
    }

    #[test]
    fn arrivals_far_apart_are_not_delayed() {
        let start = origin();
        let mut gather = Gather::new(40 * MS).unwrap();
        assert!((0..100).all(|number| !gather.begins(start + number * 41 * MS)));
    }

    #[test]
    fn streams_are_read_at_common_points_within_their_time() {
        for time in [1, 3, 4, 5, 7, 30, 40, 50, 100, 1000] {
            let (start, most) = (origin(), time * MS);
            let mut points = std::collections::BTreeSet::new();
            for stream in 0..200 {
                let mut gather = Gather::new(most).unwrap();
                let mut at = start + 3 * MS + stream * Duration::from_micros(1237);
                gather.begins(at);
                assert!(gather.begins(at));
                for _ in 0..5 {
                    let until = gather.poll_timeout().unwrap();
                    assert!(until > at && until <= at + most, "{time}");
                    points.insert(until);
                    at = until + Duration::from_micros(stream.into());
                    gather.was_read(at, true);
                }
            }
            let steps: Vec<Duration> =
                points.iter().zip(points.iter().skip(1)).map(|(one, next)| *next - *one).collect();
            assert!(steps.iter().all(|step| *step >= MS), "{time}: {steps:?}");
            assert!(steps.iter().all(|step| *step >= (most / 4).min(5 * MS)), "{time}: {steps:?}");
        }
    }

    #[test]
    fn no_time_gathers_nothing() {
        assert!(Gather::new(Duration::ZERO).is_none());
    }
}
