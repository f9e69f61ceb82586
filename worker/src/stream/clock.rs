//! The clock of one publisher: timestamps of 32 bits come in, a time in milliseconds that neither wraps nor jumps goes out. Next room:
//! [`super::timeline`], which moves that time into a session of an upstream.
//!
//! Every frame (audio or video proper) moves the clock. Audio and video share one offset between timestamp and time unless the publisher
//! gives them clocks of their own. There are three cases:
//! - A frame that follows the last one of its kind keeps that one's offset.
//! - A frame that does not follow it is tried with three offsets: that of this kind, the one that this kind had before, that of the other
//!   kind. It fits with an offset if its time is then neither [`FAR`] from the newest time nor a [`STEP_BACK`] before both kinds. Of those
//!   with which it fits, it takes the one that puts it nearest to the last frame of its kind. So both kinds stay together, and one wrong
//!   timestamp has no consequences.
//! - Any other frame comes from another clock: its time is the last time plus the wall time since, and a jump is counted.
//!
//! Note: encoders send metadata and sequence headers with timestamp 0 and go on at the uptime of the machine, some of them with every
//! keyframe. Headers and data therefore never move the clock.

use std::time::Instant;

use liveedgecast_common::handoff::LastTimestamps;
use liveedgecast_common::rtmp::media::Kind;

/// A frame within so many milliseconds of the last frame of its kind follows it.
const SMOOTH: i64 = 1_000;
/// A frame of a kind that has been away for this long does not follow the last one.
const AWAY: i64 = 10_000;
/// A frame this far, in milliseconds, from the newest time comes from another clock. ffmpeg's muxer lets audio and video drift up to 10 s
/// apart before it writes one without the other (`max_interleave_delta`); live encoders stay below 2 s. An encoder on a congested network
/// leaves out less.
const FAR: i64 = 10_000;
/// A frame this far before the last one of its own kind, and far from the other kind, comes from another clock: a track of several may be a
/// second behind the others, and a clip that is played in a loop is longer.
const STEP_BACK: i64 = 3_000;

/// A frame that did not fit the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Audio or video.
    pub kind: Kind,
    /// The publisher's timestamp that this kind would have had.
    pub expected: u32,
    /// The publisher's timestamp of the frame.
    pub timestamp: u32,
}

/// See the file's header.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublisherClock {
    audio: Option<Track>,
    video: Option<Track>,
    /// The highest time, and the arrival of its frame.
    newest: Option<(i64, Instant)>,
    /// The offset of the frame that came last.
    offset: u32,
}

/// Audio, or video.
#[derive(Clone, Copy, Debug)]
struct Track {
    /// The number added to a timestamp, modulo 2^32.
    offset: u32,
    /// The offset before that one.
    previous: u32,
    /// The time of the last frame, and its arrival.
    last: i64,
    at: Instant,
}

impl PublisherClock {
    /// The clock of a publisher that another worker had. `last`: timestamps of its last frames.
    #[must_use]
    pub fn restored(now: Instant, last: &LastTimestamps) -> Self {
        let mut clock = Self::default();
        for (kind, timestamp) in [(Kind::Video, last.video), (Kind::Audio, last.audio)] {
            if let Some(timestamp) = timestamp {
                clock.frame(now, kind, timestamp);
            }
        }
        clock
    }

    /// Returns whether no frame has come yet.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        self.newest.is_none()
    }

    /// The time of a frame, and the jump, if it is one.
    pub fn frame(&mut self, now: Instant, kind: Kind, timestamp: u32) -> (i64, Option<Jump>) {
        let own = *self.track(kind);
        let (time, offset, jumped) = self.place(now, own, kind, timestamp);
        let jump = jumped.then(|| {
            let expected = time.wrapping_sub(i64::from(own.map_or(self.offset, |own| own.offset)));
            Jump { kind, expected: expected as u32, timestamp }
        });
        if self.newest.is_none_or(|(newest, _)| time > newest) {
            self.newest = Some((time, now));
        }
        self.offset = offset;
        let previous = match own {
            Some(own) if own.offset == offset => own.previous,
            Some(own) => own.offset,
            None => offset,
        };
        *self.track(kind) = Some(Track { offset, previous, last: time, at: now });
        (time, jump)
    }

    /// Time and offset of a frame, and whether it jumps.
    fn place(&self, now: Instant, own: Option<Track>, kind: Kind, timestamp: u32) -> (i64, u32, bool) {
        let Some((newest, at)) = self.newest else { return (i64::from(timestamp), 0, false) };
        if let Some(own) = own {
            let (time, away) = (near(own.last, timestamp, own.offset), milliseconds(now, own.at));
            if away < AWAY && time >= own.last - SMOOTH && time <= own.last + SMOOTH + away {
                return (time, own.offset, false);
            }
        }
        let elapsed = milliseconds(now, at);
        let other = if kind == Kind::Video { self.audio } else { self.video };
        let fits = |offset: u32| {
            let time = near(newest, timestamp, offset);
            let with_own = own.is_none_or(|own| time > own.last - STEP_BACK);
            let with_other = other.is_some_and(|other| belong_together(time, other.last, STEP_BACK));
            let fits = with_other || (with_own && time > newest - FAR);
            (fits && time < newest + elapsed + FAR).then_some((time, offset))
        };
        let mine = own.into_iter().flat_map(|own| [own.offset, own.previous]);
        let found = mine.chain(other.map(|other| other.offset)).filter_map(fits);
        let reference = own.map_or(newest, |own| own.last);
        match found.min_by_key(|(time, _)| time.abs_diff(reference)) {
            Some((time, offset)) => (time, offset, false),
            None => {
                let time = newest + elapsed.max(1);
                (time, (time as u32).wrapping_sub(timestamp), true)
            }
        }
    }

    /// The time of a header or of data: that of its timestamp, but never ahead of the frames.
    #[must_use]
    pub fn other(&self, now: Instant, timestamp: u32) -> i64 {
        let Some((newest, at)) = self.newest else { return i64::from(timestamp) };
        let time = near(newest, timestamp, self.offset);
        if time < newest + milliseconds(now, at) + FAR { time } else { newest }
    }

    /// The time of the last frame of a kind.
    #[must_use]
    pub fn last(&self, kind: Kind) -> Option<i64> {
        match kind {
            Kind::Audio => self.audio,
            Kind::Video => self.video,
            Kind::Data => None,
        }
        .map(|track| track.last)
    }

    fn track(&mut self, kind: Kind) -> &mut Option<Track> {
        if kind == Kind::Video { &mut self.video } else { &mut self.audio }
    }
}

/// The time next to `newest` that the timestamp can mean.
fn near(newest: i64, timestamp: u32, offset: u32) -> i64 {
    let difference = timestamp.wrapping_add(offset).wrapping_sub(newest as u32) as i32;
    newest + i64::from(difference)
}

fn milliseconds(now: Instant, since: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(i64::MAX / 2)
}

/// Returns whether a session that begins with a frame of this time leaves room for the other kind, whose frames are at that time.
#[must_use]
pub fn leaves_room(one: i64, other: i64) -> bool {
    belong_together(one, other, FAR)
}

fn belong_together(one: i64, other: i64, most: i64) -> bool {
    one.abs_diff(other) <= most.unsigned_abs()
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
