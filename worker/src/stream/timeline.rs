//! Timestamps of one upstream session (architecture.md, "Upstream sessions"). Times of a [`super::clock`] come in, timestamps go out, which wrap at
//! 2^32.
//!
//! Within one publisher and one upstream session the offset is constant, as long as the publisher's clock does not jump. It changes where
//! another publisher takes over: the next timestamp is then the last one sent plus the wall time since.
//!
//! No message is sent with a time before the beginning of its publisher's part of the session: a timestamp below 0 would be one of 49 days, which
//! nginx-rtmp's HLS answers with empty fragments. So the first frame is placed such that the frames that will come after it and are earlier
//! than it (audio that was interleaved late) fit in front of it, and a frame that does not fit is sent at the beginning.
//!
//! Note: encoders send metadata and sequence headers with timestamp 0 and go on at the uptime of the machine. So headers and data do not
//! decide the offset, the first frame does; and ffmpeg takes metadata for a track of subtitles unless it comes at 0.

use std::time::{Duration, Instant};

/// Latest beginning of a new session's frames, in milliseconds: room for audio that is a little early, and for messages that
/// overtake each other. A publisher that begins below it keeps its timestamps. A publisher that takes over goes no further back than that.
const START: i64 = 250;

/// The timestamps of one upstream session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeline {
    origin: Option<PublisherOrigin>,
    /// The highest time sent, and when its message came.
    last: Option<(i64, Instant)>,
}

/// The beginning of a publisher's part of the session.
#[derive(Clone, Copy, Debug)]
struct PublisherOrigin {
    /// The publisher.
    clock: u32,
    /// Milliseconds added to its times.
    offset: i64,
    /// The lowest time that is sent of it.
    floor: i64,
}

impl Timeline {
    /// Returns whether no frame has been placed yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.origin.is_none()
    }

    /// Returns whether this publisher's first frame has been placed.
    #[must_use]
    pub fn has_begun(&self, clock: u32) -> bool {
        self.origin.is_some_and(|origin| origin.clock == clock)
    }

    /// Places a publisher's first frame, of the time `first`, which came at `arrived`. `lowest`: the earliest time of this frame and all
    /// that follow.
    pub fn begin(&mut self, clock: u32, first: i64, lowest: i64, arrived: Instant) {
        let room = (first - lowest).max(0);
        let (out, floor) = match (self.origin, self.last) {
            (Some(_), Some((last, at))) => (last + since(at, arrived).max(room), (last - START).max(0)),
            _ => (first.clamp(0, START).max(room), 0),
        };
        self.origin = Some(PublisherOrigin { clock, offset: out - first, floor });
    }

    /// The timestamp to send. `clock`: the publisher; `time`: that of its message, which came at `arrived`.
    pub fn map(&mut self, clock: u32, time: i64, arrived: Instant) -> u32 {
        let out = match (self.origin, self.last) {
            (Some(origin), _) if origin.clock == clock => (time + origin.offset).max(origin.floor),
            // Headers that came before their publisher's first frame.
            (Some(_), Some((last, at))) => last + since(at, arrived),
            _ if (0..=START).contains(&time) => time,
            _ => 0,
        };
        if self.last.is_none_or(|(last, _)| out >= last) {
            self.last = Some((out, arrived));
        }
        out as u32
    }
}

/// Milliseconds, at least one.
fn since(at: Instant, arrived: Instant) -> i64 {
    let elapsed: Duration = arrived.saturating_duration_since(at);
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX / 2).max(1)
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

    /// A session that begins with a frame of this time.
    fn begun(first: i64, lowest: i64) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.begin(0, first, lowest, at(0));
        timeline
    }

    #[test]
    fn publisher_that_begins_near_0_keeps_its_timestamps() {
        let mut timeline = Timeline::default();
        assert_eq!([timeline.map(0, 0, at(0)), timeline.map(0, 20, at(0))], [0, 20], "headers");
        timeline.begin(0, 23, 0, at(0));
        assert_eq!([23, 0, 5_000].map(|time| timeline.map(0, time, at(0))), [23, 0, 5_000]);
    }

    #[test]
    fn headers_of_a_publisher_that_begins_at_its_uptime_are_sent_at_0() {
        let mut timeline = Timeline::default();
        assert_eq!([timeline.map(0, 9_000_000, at(0)), timeline.map(0, 0, at(0))], [0, 0]);
        timeline.begin(0, 9_000_000, 8_999_990, at(0));
        assert_eq!([9_000_000, 8_999_990, 9_000_040].map(|time| timeline.map(0, time, at(0))), [250, 240, 290]);
    }

    #[test]
    fn frames_that_come_late_fit_before_the_first_one() {
        let mut timeline = begun(9_000_000, 8_999_200);
        assert_eq!([9_000_000, 8_999_200, 9_000_040].map(|time| timeline.map(0, time, at(0))), [800, 0, 840]);
    }

    #[test]
    fn nothing_is_sent_below_0() {
        let mut timeline = begun(100_000, 100_000);
        // A header with timestamp 0, and audio that came unexpectedly.
        assert_eq!([0, 99_200, 99_760].map(|time| timeline.map(0, time, at(0))), [0, 0, 10]);
    }

    #[test]
    fn session_that_runs_for_50_days_wraps() {
        let mut timeline = begun(0, 0);
        assert_eq!(timeline.map(0, (1 << 32) - 10, at(0)), u32::MAX - 9);
        assert_eq!(timeline.map(0, (1 << 32) + 10, at(0)), 10);
    }

    #[test]
    fn another_publisher_goes_on_after_the_wall_time_that_has_passed() {
        let mut timeline = begun(0, 0);
        assert_eq!(timeline.map(0, 1_000, at(1_000)), 1_000);
        // Its header, then its first frame.
        assert_eq!(timeline.map(1, 0, at(4_000)), 4_000);
        timeline.begin(1, 70_000, 69_990, at(4_010));
        assert_eq!(timeline.map(1, 70_000, at(4_010)), 4_010);
        assert_eq!(timeline.map(1, 70_040, at(4_050)), 4_050);
        // At once is one millisecond more.
        timeline.begin(2, 5, 5, at(4_050));
        assert_eq!(timeline.map(2, 5, at(4_050)), 4_051);
        assert_eq!([0, -900].map(|time| timeline.map(2, time, at(4_050))), [4_046, 3_800]);
        timeline.begin(3, 5, -900, at(4_060));
        assert_eq!([5, -900].map(|time| timeline.map(3, time, at(4_060))), [4_956, 4_051]);
    }
}
