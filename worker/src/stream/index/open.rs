//! Messages whose last byte has not come, and the payload of those that are scattered over many chunks.

use std::time::Instant;

use liveedgecast_common::rtmp::MessageHeader;
use smallvec::SmallVec;

use super::early::EarlyOffer;
use super::{Memory, Segment};

/// Segments of one message: those of a usual one stand in the list itself.
pub(super) type SegmentList = SmallVec<[Segment; 4]>;

/// A message whose last byte has not come.
#[derive(Debug)]
pub(super) struct OpenEntry {
    pub(super) header: MessageHeader,
    pub(super) segments: SegmentList,
    /// Bytes that have come of the message. With very small chunks, to count them in the segments at each arrival would cost more than anything else.
    pub(super) received: u32,
    /// The message has too many segments: its bytes are not noted any more.
    pub(super) given_up: bool,
    /// The time at which a part of the message was there, if it is long.
    pub(super) since: Option<Instant>,
    /// Whether the message may leave before its last byte has come.
    pub(super) offer: EarlyOffer,
}

impl OpenEntry {
    /// Creates the entry of a message of which these bytes have come.
    pub(super) fn new(header: MessageHeader, segments: SegmentList) -> Self {
        let received = segments.iter().map(|segment| segment.len).sum();
        Self { header, segments, received, given_up: false, since: None, offer: EarlyOffer::Undecided }
    }

    /// Adds the bytes that have come of the message. `room`: there may be another segment.
    pub(super) fn add(&mut self, segment: Segment, room: bool) {
        if segment.len == 0 || self.given_up {
            return;
        }
        self.received += segment.len;
        if let Some(last) =
            self.segments.last_mut().filter(|last| last.position + u64::from(last.len) == segment.position)
        {
            last.len += segment.len;
        } else if !room {
            self.given_up = true;
            self.segments = SegmentList::new();
        } else {
            self.segments.push(segment);
        }
    }

    /// Returns whether all bytes that have come of the message are noted and in the ring.
    pub(super) fn is_there(&self, floor: u64) -> bool {
        // Payload comes in the order of its positions.
        !self.given_up && self.segments.first().is_none_or(|first| first.position >= floor)
    }
}

/// A place in a payload that lies in segments. It goes forward only, so that a payload that is passed in steps is walked once. The last segment
/// may grow meanwhile, and others may follow it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::stream) struct PayloadPlace {
    /// Bytes of the payload before the place.
    at: u64,
    segment: usize,
    /// Bytes of that segment before the place.
    offset: u32,
}

impl PayloadPlace {
    /// Goes to byte `to` of the payload, as far as that is there.
    pub(in crate::stream) fn skip_to(&mut self, segments: &[Segment], to: u64) {
        while self.take(segments, to).is_some() {}
    }

    /// Takes the next run of payload up to byte `to`. `None`: that byte is reached, or no more is there.
    pub(in crate::stream) fn take(&mut self, segments: &[Segment], to: u64) -> Option<Segment> {
        let left = to.checked_sub(self.at).filter(|left| *left > 0)?;
        loop {
            let segment = segments.get(self.segment)?;
            note_look();
            let rest = segment.len - self.offset;
            if rest > 0 {
                let position = segment.position + u64::from(self.offset);
                let len = u64::from(rest).min(left) as u32;
                self.offset += len;
                self.at += u64::from(len);
                return Some(Segment { position, len });
            }
            if self.segment + 1 == segments.len() {
                return None;
            }
            (self.segment, self.offset) = (self.segment + 1, 0);
        }
    }
}

#[cfg(test)]
thread_local! {
    /// The number of segments that this thread has looked at.
    static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The number of segments that `work` looks at.
#[cfg(test)]
pub(in crate::stream) fn looks(work: impl FnOnce()) -> u64 {
    let before = LOOKS.get();
    work();
    LOOKS.get() - before
}

/// Counts a look at a segment, in tests alone: the work per arrival is to be bounded, and time does not show that reliably.
#[inline]
pub(super) fn note_look() {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
}

/// The first bytes of a payload, as many as `prefix` has room for: where they lie, or copied into `prefix` if they are scattered.
pub(super) fn first_bytes<'a>(
    prefix: &'a mut [u8],
    segments: &[Segment],
    ring: u32,
    memory: &'a impl Memory,
) -> &'a [u8] {
    match segments {
        [] => return &[],
        [first, ..] if first.len as usize >= prefix.len() => {
            return memory.bytes(ring, first.position, prefix.len());
        }
        [only] => return memory.bytes(ring, only.position, only.len as usize),
        _ => {}
    }
    let mut length = 0;
    for segment in segments {
        note_look();
        let take = (segment.len as usize).min(prefix.len() - length);
        prefix[length..length + take].copy_from_slice(memory.bytes(ring, segment.position, take));
        length += take;
        if length == prefix.len() {
            break;
        }
    }
    &prefix[..length]
}
