//! Messages whose last byte has not come, and the payload of those that are scattered over many chunks.

use std::time::Instant;

use liveedgecast_common::rtmp::MessageHeader;
use smallvec::SmallVec;

use super::early::EarlyFacts;
use super::{Memory, Segment};

/// Segments of one message: those of a usual one stand in the list itself.
pub(super) type SegmentList = SmallVec<[Segment; 4]>;

/// A message whose last byte has not come.
#[derive(Debug)]
pub(super) struct OpenEntry {
    pub(super) header: MessageHeader,
    pub(super) segments: SegmentList,
    /// The message has too many segments: its bytes are not noted any more.
    pub(super) given_up: bool,
    /// The time at which a part of the message was there, if it is long.
    pub(super) since: Option<Instant>,
    /// The message may leave before its last byte has come.
    pub(super) offer: Option<EarlyFacts>,
}

impl OpenEntry {
    pub(super) fn new(header: MessageHeader, segments: SegmentList) -> Self {
        Self { header, segments, given_up: false, since: None, offer: None }
    }

    /// Adds the bytes that have come of the message. `room`: there may be another segment.
    pub(super) fn add(&mut self, segment: Segment, room: bool) {
        if segment.len == 0 || self.given_up {
            return;
        }
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

    pub(super) fn received(&self) -> usize {
        self.segments.iter().map(|segment| segment.len as usize).sum()
    }

    /// Returns whether all bytes that have come of the message are noted and in the ring.
    pub(super) fn is_there(&self, floor: u64) -> bool {
        !self.given_up && self.reaches(floor)
    }

    pub(super) fn reaches(&self, floor: u64) -> bool {
        self.segments.iter().all(|segment| segment.position >= floor)
    }
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
        let take = (segment.len as usize).min(prefix.len() - length);
        prefix[length..length + take].copy_from_slice(memory.bytes(ring, segment.position, take));
        length += take;
        if length == prefix.len() {
            break;
        }
    }
    &prefix[..length]
}

/// Collects the segments of a part of a payload.
pub(super) fn part(segments: &[Segment], from: usize, len: usize, into: &mut Vec<Segment>) {
    into.clear();
    let (mut skip, mut left) = (from, len);
    for segment in segments {
        let have = segment.len as usize;
        if skip >= have {
            skip -= have;
            continue;
        }
        let take = (have - skip).min(left);
        if take == 0 {
            break;
        }
        into.push(Segment { position: segment.position + skip as u64, len: take as u32 });
        left -= take;
        skip = 0;
    }
}
