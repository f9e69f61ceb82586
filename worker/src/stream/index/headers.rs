//! The headers of an [`Index`]: those in force at any of its entries, and the stream's part of a snapshot.
//!
//! In: entries that are headers, and copies of those that have left the ring. Out: [`Header`]s for a cursor, a [`StreamState`] for a
//! successor, and back.

use std::time::Instant;

use liveedgecast_common::handoff::limits::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_METADATA_BYTES, MAX_OPEN_BYTES};
use liveedgecast_common::handoff::{OpenMessage, StoredHeader, StreamState};
use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::media::HeaderSlot;

use super::open::OpenEntry;
use super::{Index, IndexEntry, Memory, Segment};
use crate::stream::clock::PublisherClock;

/// A header in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Track and kind that the header describes.
    pub slot: HeaderSlot,
    /// Type of the message.
    pub type_id: u8,
    /// Timestamp of the publisher.
    pub timestamp: u32,
    /// Number of the message that brought the header; `None`: that message came before this index.
    pub number: Option<u64>,
    /// The whole payload.
    pub payload: Vec<u8>,
    pub(super) clock: u32,
}

impl Index {
    /// Takes over the headers of a snapshot, before the first entry of this ring. `headers` are those of its open messages, in any order;
    /// their bytes are given as segments of the ring.
    pub fn restore(&mut self, now: Instant, state: &StreamState, open: &[(MessageHeader, Option<Segment>)]) {
        self.last = state.last_timestamp;
        if self.clock.is_unset() {
            self.clock = PublisherClock::restored(now, &state.last_timestamp);
        }
        self.has_video = state.headers.iter().any(|header| matches!(header.slot, HeaderSlot::Video { .. }))
            || state.last_timestamp.video.is_some();
        self.without_keyframe_since = self.has_video.then_some(now);
        for stored in &state.headers {
            let header = Header {
                slot: stored.slot,
                type_id: stored.type_id,
                timestamp: stored.timestamp,
                number: None,
                payload: stored.payload.clone(),
                clock: self.place.clock,
            };
            self.kept.put(header.slot, header.payload.len());
            put(&mut self.base, header);
        }
        for (header, segment) in open {
            let mut segments = self.spare.pop().unwrap_or_default();
            segments.extend(*segment);
            self.open.push(OpenEntry::new(*header, segments));
        }
    }

    /// The headers in force just before the entry of this number, in the order to send them in.
    #[must_use]
    pub fn headers_before(&self, number: u64, memory: &impl Memory) -> Vec<Header> {
        let clock = self.entry(number).map_or(self.place.clock, |entry| entry.place.clock);
        let mut headers: Vec<Header> = self.base.iter().filter(|header| header.clock == clock).cloned().collect();
        for at in self.headers.iter().copied().take_while(|at| *at < number) {
            if let Some(entry) = self.entry(at).filter(|entry| entry.place.clock == clock) {
                self.put_entry(&mut headers, at, entry, memory);
            }
        }
        headers.sort_by_key(|header| header.slot);
        headers
    }

    /// Returns whether the publisher has sent a header of video.
    pub(super) fn has_video_header(&self) -> bool {
        self.kept.lengths.iter().any(|(slot, _)| matches!(slot, HeaderSlot::Video { .. }))
    }

    /// Puts a header as [`put`] does; its payload is copied only if it is kept.
    pub(super) fn put_entry(&self, headers: &mut Vec<Header>, number: u64, entry: &IndexEntry, memory: &impl Memory) {
        let Some(slot) = entry.header else { return };
        if make_room(headers, entry.place.clock, slot, entry.length() as usize) {
            headers.push(self.header_of(slot, number, entry, memory));
        }
    }

    fn header_of(&self, slot: HeaderSlot, number: u64, entry: &IndexEntry, memory: &impl Memory) -> Header {
        let mut payload = Vec::with_capacity(entry.length() as usize);
        for segment in self.segments(entry) {
            payload.extend_from_slice(memory.bytes(entry.place.ring, segment.position, segment.len as usize));
        }
        Header {
            slot,
            type_id: entry.type_id(),
            timestamp: entry.timestamp,
            number: Some(number),
            payload,
            clock: entry.place.clock,
        }
    }

    /// The stream's part of a snapshot as of the beginning of the last message. `keyframe`: that message is one to join at.
    #[must_use]
    pub fn state(&self, keyframe: bool, memory: &impl Memory) -> StreamState {
        self.state_but(self.last_begun, keyframe, memory)
    }

    /// The stream's state for a snapshot as of now.
    #[must_use]
    pub fn state_now(&self, memory: &impl Memory) -> StreamState {
        self.state_but(None, false, memory)
    }

    /// The stream's state without the open message of this chunk stream.
    fn state_but(&self, csid: Option<u32>, keyframe: bool, memory: &impl Memory) -> StreamState {
        let stored =
            |Header { slot, type_id, timestamp, payload, .. }| StoredHeader { slot, type_id, timestamp, payload };
        let headers = self.headers_before(self.end(), memory).into_iter().map(stored).collect();
        let mut open = Vec::new();
        let mut bytes = 0;
        for message in self.open.iter().filter(|message| Some(message.header.csid) != csid) {
            let more = message.received as usize;
            if bytes + more > MAX_OPEN_BYTES || !message.is_there(self.floor) {
                continue;
            }
            bytes += more;
            let mut received = Vec::with_capacity(more);
            for segment in &message.segments {
                received.extend_from_slice(memory.bytes(self.place.ring, segment.position, segment.len as usize));
            }
            open.push(OpenMessage { csid: message.header.csid, received });
        }
        StreamState { headers, last_timestamp: self.last, began_with_keyframe: keyframe || !self.has_video, open }
    }
}

/// Replaces the header of its slot and publisher, unless the headers kept of that publisher would become too long.
pub(super) fn put(headers: &mut Vec<Header>, header: Header) {
    if make_room(headers, header.clock, header.slot, header.payload.len()) {
        headers.push(header);
    }
}

/// Removes the header of this slot and publisher; returns whether one of so many bytes may take its place.
fn make_room(headers: &mut Vec<Header>, clock: u32, slot: HeaderSlot, bytes: usize) -> bool {
    headers.retain(|known| (known.clock, known.slot) != (clock, slot));
    let same_clock = headers.iter().filter(|known| known.clock == clock);
    fits(same_clock.map(|known| (known.slot, known.payload.len())), slot, bytes)
}

/// Returns whether one more header may be kept. Metadata has a bound of its own: it neither takes room
/// from sequence headers nor waits for the room that they leave.
fn fits(kept: impl Iterator<Item = (HeaderSlot, usize)>, slot: HeaderSlot, bytes: usize) -> bool {
    if slot == HeaderSlot::Metadata {
        return bytes <= MAX_METADATA_BYTES;
    }
    let sequence = kept.filter(|(slot, _)| *slot != HeaderSlot::Metadata);
    let (count, together) = sequence.fold((0, bytes), |(count, together), (_, bytes)| (count + 1, together + bytes));
    count < MAX_HEADERS - 1 && together <= MAX_HEADER_BYTES
}

/// The lengths of the headers that the newest publisher has sent, and the slots of which one header was too long to be kept.
#[derive(Debug, Default)]
pub(super) struct StoredHeaders {
    lengths: Vec<(HeaderSlot, usize)>,
    left_out: Vec<HeaderSlot>,
}

impl StoredHeaders {
    /// Notes a header, by the same rule as [`put`]; `false`: it is the first of its slot that cannot be kept. A header that fits changes
    /// nothing about that, because a publisher can send long and short ones in turns.
    pub(super) fn put(&mut self, slot: HeaderSlot, bytes: usize) -> bool {
        self.lengths.retain(|(known, _)| *known != slot);
        if fits(self.lengths.iter().copied(), slot, bytes) {
            self.lengths.push((slot, bytes));
            return true;
        }
        let known = self.left_out.contains(&slot);
        // A publisher with more slots than that was logged often enough.
        if !known && self.left_out.len() < MAX_HEADERS {
            self.left_out.push(slot);
            return false;
        }
        true
    }
}
