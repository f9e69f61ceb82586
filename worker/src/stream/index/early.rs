//! The messages that may leave before their last byte has come (architecture.md, "The stream ring"): which they are, and what became of them.
//!
//! In: what has come of a long message. Out: an [`EarlyMessage`] for the cursors.
//!
//! Note: the publisher's clock is asked for the time of such a message when it is offered, since its timestamp leaves with its first byte. The
//! entry that the message becomes has that time, too.

use std::time::{Duration, Instant};

use liveedgecast_common::rtmp::media::{INSPECT_BYTES, Inspection, inspect};
use liveedgecast_common::rtmp::type_id;

use super::open::{OpenEntry, first_bytes};
use super::{EntryPlace, Index, IndexEntry, Memory, Segment};
use crate::stream::resume::with_chunk_headers;

/// Length up to which a message leaves as a whole.
pub const LEAVES_WHOLE: u32 = 16 << 10;
/// Time that a message must have been open before it may leave: one that comes faster gains nothing, and would cost a write for each read.
/// `LEAVES_WHOLE` bytes take so long at 65 Mbps.
const OPEN_FOR: Duration = Duration::from_millis(2);

/// The bounds beyond which messages may leave early.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyBounds {
    /// Length that the message exceeds.
    pub(super) length: u32,
    /// Time since its first bytes.
    pub(super) open_for: Duration,
}

impl Default for EarlyBounds {
    fn default() -> Self {
        Self { length: LEAVES_WHOLE, open_for: OPEN_FOR }
    }
}

/// The decision whether an open message may leave before its last byte has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum EarlyOffer {
    /// Too little of the message has come.
    Undecided,
    /// The message leaves as a whole.
    Never,
    /// The message may leave.
    Made(EarlyFacts),
}

impl EarlyOffer {
    /// The facts of a message that may leave.
    pub(super) fn made(&self) -> Option<EarlyFacts> {
        if let Self::Made(facts) = self { Some(*facts) } else { None }
    }
}

/// The facts that an open message leaves with.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyFacts {
    /// The time of its timestamp.
    pub(super) time: i64,
    arrived: Instant,
    inspection: Inspection,
}

/// A message that may leave, and whose last byte has not come.
#[derive(Clone, Copy, Debug)]
pub struct EarlyMessage<'a> {
    /// The entry that the message will become, without segments.
    pub entry: IndexEntry,
    /// The bytes that have come.
    pub segments: &'a [Segment],
    /// The number of these bytes.
    pub received: u64,
}

impl Index {
    /// Looks at a message whose last byte has not come, after [`Self::receive`]. `reach`: bytes in front of the head that the ring can hold; a message
    /// that takes more is overwritten before it is complete, and would stay open at every upstream.
    pub fn offer(&mut self, now: Instant, csid: u32, reach: u64, memory: &impl Memory) {
        let Some(at) = self.open.iter().position(|open| open.header.csid == csid) else { return };
        let EarlyBounds { length, open_for } = self.early_bounds;
        let open = &mut self.open[at];
        let since = *open.since.get_or_insert(now);
        let header = open.header;
        let media = matches!(header.type_id, type_id::AUDIO | type_id::VIDEO | type_id::DATA_AMF0 | type_id::DATA_AMF3);
        let due = media && header.length > length && now.saturating_duration_since(since) >= open_for;
        let undecided = matches!(open.offer, EarlyOffer::Undecided);
        if !due || !undecided || (open.received as usize) < INSPECT_BYTES || !open.is_there(self.floor) {
            return;
        }
        let mut prefix = [0; INSPECT_BYTES];
        let inspection = inspect(header.type_id, first_bytes(&mut prefix, &open.segments, self.place.ring, memory));
        // A header changes what a session has.
        self.open[at].offer = if inspection.header.is_some() || with_chunk_headers(header.length) > reach {
            EarlyOffer::Never
        } else {
            let time = self.note_time(now, header.timestamp, &inspection);
            EarlyOffer::Made(EarlyFacts { time, arrived: now, inspection })
        };
    }

    /// Returns whether the last byte of any message has not come.
    #[must_use]
    #[inline]
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The first open message that may leave.
    #[must_use]
    pub fn early(&self) -> Option<EarlyMessage<'_>> {
        self.open.iter().find_map(|open| self.early_message(open))
    }

    /// The open message whose payload begins at `start`, if it may still leave.
    #[must_use]
    pub fn early_at(&self, place: EntryPlace, start: u64) -> Option<EarlyMessage<'_>> {
        let mut open = self.open.iter().filter_map(|open| self.early_message(open));
        open.find(|message| message.entry.place == place && message.entry.start == start)
    }

    /// The complete message that was the early one which began at `start`, with its number: one of `from` and those behind it.
    #[must_use]
    pub fn completed_early(&self, from: u64, place: EntryPlace, start: u64, length: u32) -> Option<(u64, &IndexEntry)> {
        let entries = (from.max(self.front)..self.end()).filter_map(|number| Some((number, self.entry(number)?)));
        entries.into_iter().find(|(_, entry)| {
            let same = entry.place == place && entry.start == start && entry.length() == length;
            same && entry.is_whole() && entry.header.is_none()
        })
    }

    /// Offers messages of more than `length` bytes at once.
    #[cfg(test)]
    pub(in crate::stream) fn offer_beyond(&mut self, length: u32) {
        self.early_bounds = EarlyBounds { length, open_for: Duration::ZERO };
    }

    fn early_message<'a>(&self, open: &'a OpenEntry) -> Option<EarlyMessage<'a>> {
        let EarlyFacts { time, arrived, inspection } = open.offer.made().filter(|_| open.is_there(self.floor))?;
        let start = open.segments.first()?.position;
        let join = inspection.keyframe && self.lowest_track.is_none_or(|lowest| inspection.track <= lowest);
        let entry = IndexEntry::new(&open.header, &inspection, arrived, time);
        let entry = entry.at(self.place, start, true, self.front_segment, 0).joining(join);
        Some(EarlyMessage { entry, segments: &open.segments, received: u64::from(open.received) })
    }
}
