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

impl Index {
    /// The headers in force now.
    #[must_use]
    pub fn header_mark(&self) -> HeaderMark {
        HeaderMark { clock: self.place.clock, newest: self.headers.back().copied(), before: self.base.len() }
    }

    /// Milliseconds between the last two keyframes of the present publisher, if both are still there.
    #[must_use]
    pub fn keyframe_interval(&self) -> Option<u32> {
        let mut last = self.joins.iter().rev().filter_map(|number| self.entry(*number));
        let (newest, before) = (last.next()?, last.next()?);
        // Without video every message is one to join at.
        let same = newest.place.clock == before.place.clock && self.has_video;
        u32::try_from(newest.time - before.time).ok().filter(|_| same)
    }
}
