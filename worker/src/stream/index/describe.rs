//! The part of the index that describes the stream to people. In: the index. Out: which headers are in force, the distance of keyframes.

use liveedgecast_common::rtmp::describe::{PlainAudio, plain_audio};
use liveedgecast_common::rtmp::media::{INSPECT_BYTES, Kind};

use super::open::first_bytes;
use super::{Index, Memory};

/// Messages that are looked at for one of sound: some two seconds of video.
const LOOKED_AT: usize = 64;

/// The headers that were in force at some time: equal marks stand for the same headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderMark {
    clock: u32,
    /// Number of the newest message that brought a header and is still there.
    newest: Option<u64>,
    /// Number of headers that came before the messages which are still there.
    before: usize,
}

/// The newest keyframe of the video, and its distance from the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyframes {
    clock: u32,
    newest: i64,
    interval: Option<u32>,
}

impl Keyframes {
    /// The state after a keyframe of `time` by the clock of the publisher with the number `clock`.
    pub(super) fn after(before: Option<Self>, clock: u32, time: i64) -> Self {
        let before = before.filter(|before| before.clock == clock);
        let interval = before.and_then(|before| u32::try_from(time - before.newest).ok());
        Self { clock, newest: time, interval }
    }
}

impl Index {
    /// The headers in force now.
    #[must_use]
    pub fn header_mark(&self) -> HeaderMark {
        HeaderMark { clock: self.place.clock, newest: self.headers.back().copied(), before: self.base.len() }
    }

    /// The format of the sound, if its codec has no header and a frame of it is among the last messages.
    pub(in crate::stream) fn plain_audio(&self, memory: &impl Memory) -> Option<PlainAudio> {
        let last = self.entries.iter().rev().take(LOOKED_AT);
        let same = |entry: &&super::IndexEntry| entry.kind == Kind::Audio && entry.place.clock == self.place.clock;
        let entry = last.filter(same).find(|entry| entry.is_whole() && entry.length() > 0)?;
        let mut prefix = [0; INSPECT_BYTES];
        let segments: Vec<_> = self.segments(entry).collect();
        plain_audio(first_bytes(&mut prefix, &segments, entry.place.ring, memory))
    }

    /// Returns whether the publisher has sent video, or a header of it.
    pub(in crate::stream) fn announces_video(&self) -> bool {
        self.has_video || self.has_video_header()
    }

    /// Returns whether the publisher has sent sound, and nothing of video.
    pub(in crate::stream) fn is_without_video(&self) -> bool {
        self.last.audio.is_some() && !self.announces_video()
    }

    /// Milliseconds between the last two keyframes of the present publisher, also if they are not kept any more.
    #[must_use]
    pub fn keyframe_interval(&self) -> Option<u32> {
        self.keyframes.filter(|keyframes| keyframes.clock == self.place.clock)?.interval
    }
}
