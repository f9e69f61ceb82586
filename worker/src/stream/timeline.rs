//! From the publisher's time to an upstream session's (DESIGN 4.6). Timestamps come in, timestamps go out; all of it wraps at 2^32.
//!
//! Within one publisher and one upstream session the offset is constant, whatever the publisher does. It changes where another publisher
//! takes over: the next timestamp is then the last one sent plus the wall time since.
//!
//! What surprised us: encoders send metadata and sequence headers with timestamp 0 and go on at the uptime of the machine. So headers
//! and data do not decide the offset, the first frame does.

use std::time::{Duration, Instant};

/// A new session begins at most here, in milliseconds: not at 0, because what follows a keyframe may be a little earlier than it (audio
/// that was interleaved late), and must not wrap to 49 days. A publisher that begins below it keeps its timestamps.
const START: u32 = 250;

/// The timestamps of one upstream session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeline {
    /// Publisher, and what is added to its timestamps.
    offset: Option<(u32, u32)>,
    /// The highest timestamp sent, and when its message came.
    last: Option<(u32, Instant)>,
}

impl Timeline {
    /// The timestamp to send. `clock`: the publisher; `frame`: audio or video proper, which decides the offset; `arrived`: when it came.
    pub fn map(&mut self, clock: u32, timestamp: u32, frame: bool, arrived: Instant) -> u32 {
        let out = match self.offset {
            Some((known, offset)) if known == clock => timestamp.wrapping_add(offset),
            _ => {
                let out = self.join(timestamp, arrived);
                if frame {
                    self.offset = Some((clock, out.wrapping_sub(timestamp)));
                }
                out
            }
        };
        match &mut self.last {
            Some((last, _)) if (out.wrapping_sub(*last) as i32) < 0 => {}
            last => *last = Some((out, arrived)),
        }
        out
    }

    fn join(&self, timestamp: u32, arrived: Instant) -> u32 {
        match self.last {
            // Nothing but headers so far: they were sent at 0 and the session has not really begun.
            None => timestamp.min(START),
            Some((last, _)) if self.offset.is_none() => timestamp.min(START).max(last),
            Some((last, at)) => last.wrapping_add(milliseconds(arrived.saturating_duration_since(at)).max(1)),
        }
    }
}

fn milliseconds(duration: Duration) -> u32 {
    // Wraps, as timestamps do.
    duration.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        use std::sync::OnceLock;
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "an origin is needed; nothing is measured")]
        let origin = *ORIGIN.get_or_init(Instant::now);
        origin + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_publisher_that_begins_near_0_keeps_its_timestamps() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.map(0, 0, false, at(0)), 0);
        assert_eq!(timeline.map(0, 23, true, at(0)), 23);
        assert_eq!(timeline.map(0, 0, true, at(0)), 0);
        assert_eq!(timeline.map(0, 5_000, true, at(40)), 5_000);
    }

    #[test]
    fn headers_at_0_do_not_decide_where_a_session_begins() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.map(0, 0, false, at(0)), 0);
        assert_eq!(timeline.map(0, 9_000_000, true, at(0)), START);
        assert_eq!(timeline.map(0, 8_999_990, true, at(0)), START - 10);
        assert_eq!(timeline.map(0, 9_000_040, true, at(40)), START + 40);
    }

    #[test]
    fn a_publisher_that_steps_back_keeps_its_offset() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.map(0, 100_000, true, at(0)), START);
        assert_eq!(timeline.map(0, 0, true, at(10)), START.wrapping_sub(100_000));
        assert_eq!(timeline.map(0, 100_040, true, at(40)), START + 40);
    }

    #[test]
    fn it_wraps() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.map(0, u32::MAX - 9, true, at(0)), START);
        assert_eq!(timeline.map(0, 10, true, at(20)), START + 20);
    }

    #[test]
    fn another_publisher_goes_on_after_the_wall_time_that_has_passed() {
        let mut timeline = Timeline::default();
        timeline.map(0, 0, true, at(0));
        assert_eq!(timeline.map(0, 1_000, true, at(1_000)), 1_000);
        // Its header, then its first frame.
        assert_eq!(timeline.map(1, 0, false, at(4_000)), 4_000);
        assert_eq!(timeline.map(1, 70_000, true, at(4_010)), 4_010);
        assert_eq!(timeline.map(1, 70_040, true, at(4_050)), 4_050);
        // At once is one millisecond more.
        assert_eq!(timeline.map(2, 5, true, at(4_050)), 4_051);
    }
}
