//! A message in the index, in one cache line: each message writes one that has left the cache since it was last in use.

use std::time::Instant;

use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::media::{HeaderSlot, Inspection, Kind};

/// The origin of an entry: its ring and its publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryPlace {
    /// Number of the ring.
    pub ring: u32,
    /// Number of the publisher: times of different publishers have nothing to do with each other.
    pub clock: u32,
}

/// A complete message.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct IndexEntry {
    /// The time of the timestamp: milliseconds that neither wrap nor jump (see [`crate::stream::clock`]).
    pub time: i64,
    /// Arrival of the last byte.
    pub arrived: Instant,
    /// Lowest position of its payload.
    pub start: u64,
    /// Ring and publisher of the message.
    pub place: EntryPlace,
    /// The timestamp as the publisher sent it.
    pub timestamp: u32,
    /// Length and type as on the wire: 24 bits, 8 bits.
    length_and_type: u32,
    /// Bytes before `start` that an entry behind this one needs in the same ring.
    held: u32,
    /// Number of its first segment, wrapping.
    pub(super) first_segment: u32,
    /// Number of its segments, in the bits above the marks.
    segments_and_marks: u32,
    /// Kind of the message.
    pub kind: Kind,
    /// Slot whose header the message replaces.
    pub header: Option<HeaderSlot>,
}

const _: () = assert!(size_of::<IndexEntry>() == 64);

/// The message is a keyframe that a session can begin at.
const JOIN: u32 = 1;
/// The message's bytes are in the ring.
const WHOLE: u32 = 1 << 1;
const MARKS: u32 = 2;

impl IndexEntry {
    pub(super) fn new(header: &MessageHeader, inspection: &Inspection, arrived: Instant, time: i64) -> Self {
        Self {
            time,
            arrived,
            start: 0,
            place: EntryPlace::default(),
            timestamp: header.timestamp,
            length_and_type: header.length << 8 | u32::from(header.type_id),
            held: 0,
            first_segment: 0,
            segments_and_marks: 0,
            kind: inspection.kind,
            header: inspection.header,
        }
    }

    /// Sets the place of the payload. `whole`: see [`Self::is_whole`].
    pub(super) fn at(
        mut self,
        place: EntryPlace,
        start: u64,
        whole: bool,
        first_segment: u64,
        segments: usize,
    ) -> Self {
        (self.place, self.start) = (place, start);
        self.first_segment = first_segment as u32;
        self.segments_and_marks |= (segments as u32) << MARKS | if whole { WHOLE } else { 0 };
        self
    }

    /// Marks the message as one to join at.
    pub(super) fn joining(mut self, join: bool) -> Self {
        self.segments_and_marks |= if join { JOIN } else { 0 };
        self
    }

    /// Bytes of payload.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.length_and_type >> 8
    }

    /// Message type.
    #[must_use]
    pub const fn type_id(&self) -> u8 {
        self.length_and_type as u8
    }

    /// Returns whether the message is a keyframe that a session can begin at.
    #[must_use]
    pub const fn is_join(&self) -> bool {
        self.segments_and_marks & JOIN != 0
    }

    /// Returns whether the message's bytes are in the ring. Otherwise they were overwritten before the message was complete, so that it can only
    /// be counted as lost.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.segments_and_marks & WHOLE != 0
    }

    /// Returns whether the message is audio or video proper: no header and no data.
    #[must_use]
    pub const fn is_frame(&self) -> bool {
        !matches!(self.kind, Kind::Data) && self.header.is_none()
    }

    pub(super) const fn segments(&self) -> usize {
        (self.segments_and_marks >> MARKS) as usize
    }

    /// Lowest position of its payload and that of all entries behind it in the same ring.
    pub(super) const fn hold(&self) -> u64 {
        self.start - self.held as u64
    }

    /// Notes that an entry behind this one needs the bytes from `position` on; `false`: they were needed before.
    pub(super) const fn hold_from(&mut self, position: u64) -> bool {
        let lower = position < self.hold();
        if lower {
            // Both are in one ring.
            self.held = (self.start - position) as u32;
        }
        lower
    }
}
