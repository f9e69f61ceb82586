//! The part of the index that describes the stream to people. In: the index. Out: which headers are in force, the distance of keyframes.

use super::Index;

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

    /// Milliseconds between the last two keyframes of the present publisher, also if they are not kept any more.
    #[must_use]
    pub fn keyframe_interval(&self) -> Option<u32> {
        self.keyframes.filter(|keyframes| keyframes.clock == self.place.clock)?.interval
    }
}
