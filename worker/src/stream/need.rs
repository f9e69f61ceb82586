//! The longest part of its ring that a stream has needed lately. In: what it needs, now and then. Out: the longest of the last 10 to 20 s. Pure.
//! User: `task::arrivals`, which makes the lap of the ring shorter.
//!
//! A stream needs next to nothing behind a keyframe and a whole group of pictures in front of the next one. So it is asked at keyframes, and
//! once a second for streams that have none.

use std::time::{Duration, Instant};

/// Time after which a longer need is forgotten, at least: longer than a usual group of pictures. Tests do not wait for so long.
const SPAN: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// See the file's header.
#[derive(Debug)]
pub(super) struct LongestNeed {
    /// The longest since the present span began.
    current: u64,
    /// The longest of the span before. `None`: there was none yet.
    before: Option<u64>,
    /// End of the present span.
    until: Instant,
}

impl LongestNeed {
    /// Nothing is known yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { current: 0, before: None, until: now + SPAN }
    }

    /// Notes what is needed now, in bytes.
    pub(super) fn note(&mut self, now: Instant, need: u64) {
        if now >= self.until {
            self.before = Some(std::mem::replace(&mut self.current, 0));
            self.until = now + SPAN;
        }
        self.current = self.current.max(need);
    }

    /// The longest need of the last span at least. `None`: the stream is younger than that.
    pub(super) fn longest(&self) -> Option<u64> {
        self.before.map(|before| before.max(self.current))
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn long_need_is_forgotten_after_one_to_two_spans() {
        let (start, step) = (origin(), SPAN / 10);
        let mut need = LongestNeed::new(start);
        // Time, what is needed then, the longest.
        let table = [
            (0, 700, None),
            (9, 100, None),
            (10, 80, Some(700)),
            (19, 90, Some(700)),
            (20, 60, Some(90)),
            (21, 300, Some(300)),
            (30, 10, Some(300)),
            (39, 20, Some(300)),
            (40, 30, Some(30)),
        ];
        for (at, noted, longest) in table {
            need.note(start + at * step, noted);
            assert_eq!(need.longest(), longest, "after {at} tenths of a span");
        }
    }
}
