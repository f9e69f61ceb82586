//! Signs of life on a link, in both directions: when the worker says `Alive`, and when the activator has been silent for too long. Pure; the
//! shell is `source`.

use std::time::{Duration, Instant};

/// Interval of the worker's signs of life, when nothing else is to be said: the activator takes a worker for lost after 2 s.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// A link on which nothing has come for this long is lost, even without an error. The activator speaks every 500 ms; an activator that was
/// stopped for a moment must not cost a publisher.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(10);

/// The two clocks of a link.
#[derive(Debug)]
pub(super) struct LinkWatch {
    alive_at: Instant,
    /// The time at which the activator was heard last.
    heard: Instant,
}

impl LinkWatch {
    /// A link on which the activator was heard just now. The first sign of life is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { alive_at: now, heard: now }
    }

    /// Notes that the activator was heard.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Returns whether the activator has been silent for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.heard + SILENT_AFTER <= now
    }

    /// Returns whether a sign of life is due.
    pub(super) fn is_alive_due(&self, now: Instant) -> bool {
        self.alive_at <= now
    }

    /// Notes that the worker has said something.
    pub(super) fn spoke(&mut self, now: Instant) {
        self.alive_at = now + ALIVE_INTERVAL;
    }

    /// Deadline of the next question.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.alive_at.min(self.heard + SILENT_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn link_speaks_every_half_second_and_is_lost_after_ten_of_silence() {
        let (start, ms) = (origin(), Duration::from_millis(1));
        let mut link = LinkWatch::new(start);
        // time, heard then, spoke then; silent, sign of life due, next deadline
        let table = [
            (0, false, false, false, true, 0),
            (0, false, true, false, false, 500),
            (499, false, false, false, false, 500),
            (500, false, false, false, true, 500),
            (700, true, true, false, false, 1_200),
            (10_699, false, true, false, false, 10_700),
            (10_700, false, true, true, false, 10_700),
            (10_700, true, true, false, false, 11_200),
        ];
        for (row, (at, heard, spoke, silent, due, next)) in table.into_iter().enumerate() {
            let now = start + at * ms;
            if heard {
                link.heard(now);
            }
            if spoke {
                link.spoke(now);
            }
            let found = (link.is_silent(now), link.is_alive_due(now), link.poll_timeout());
            assert_eq!(found, (silent, due, start + next * ms), "row {row}");
        }
    }
}
