//! An excerpt of a stream: the messages that its index knows, as an FLV file. In: the index, the bytes of the rings, the part that is asked for. Out:
//! the file in pieces. Pure; the shell is `task`, which calls [`ExcerptFile::step`] in turns with everything else that it does.
//!
//! Nothing is kept for excerpts. A step copies no more than [`STEP_BYTES`], some 50 µs, so that the other streams of the thread do not wait. Messages
//! that leave the ring between two steps end the excerpt: that takes a publisher which is faster than a copy.
//!
//! Note: times are those of the stream's clock, which neither wraps nor jumps; a successor may read a file that the publisher's own timestamps would
//! tear apart.

use std::ops::ControlFlow;

use bytes::Bytes;
use liveedgecast_common::control::limits::MAX_PIECE;
use liveedgecast_common::control::{ExcerptPart, ExcerptRefusal};
use liveedgecast_common::rtmp::media::{HeaderSlot, Kind};
use liveedgecast_common::rtmp::{flv, type_id};

use super::cursor::SentKeyframe;
use super::index::{Header, Index, IndexEntry, Memory};

/// Bytes of a file at most, but for the last message: twice the default of the replay window. Where more is kept, whole groups of pictures at the
/// beginning are left out.
pub(super) const MOST_BYTES: u64 = 16 << 20;
/// Bytes of payload that a step copies at most, but for the last message …
const STEP_BYTES: u64 = 256 << 10;
/// … and messages.
const STEP_MESSAGES: u64 = 1024;

/// The pieces of a file.
pub type ExcerptPieces = Vec<Bytes>;

/// A file that is being made.
#[derive(Debug)]
pub(super) struct ExcerptFile {
    /// The next message.
    next: u64,
    end: u64,
    /// Time of the first message.
    origin: i64,
    /// Publisher of the messages.
    clock: u32,
    pieces: ExcerptPieces,
    piece: Vec<u8>,
    written: u64,
}

impl ExcerptFile {
    /// Finds the first message and writes the headers in force there. `sent`: the destination's last keyframe, where it is asked for.
    pub(super) fn begin(
        part: &ExcerptPart,
        sent: Option<SentKeyframe>,
        index: &Index,
        memory: &impl Memory,
    ) -> Result<Self, ExcerptRefusal> {
        let clock = index.place().clock;
        let found = match (part, sent) {
            (ExcerptPart::All, _) => first_of_all(index, clock).ok_or(ExcerptRefusal::NoKeyframe)?,
            (ExcerptPart::SentKeyframe(_), None) => return Err(ExcerptRefusal::DestinationUnknown),
            _ if index.is_without_video() => return Err(ExcerptRefusal::NoVideo),
            (ExcerptPart::LastKeyframe, _) => {
                index.last_join().filter(|join| is_of(index, *join, clock)).ok_or(ExcerptRefusal::NoKeyframe)?
            }
            (ExcerptPart::SentKeyframe(_), Some(SentKeyframe::Kept(number))) => number,
            (ExcerptPart::SentKeyframe(_), Some(SentKeyframe::Never)) => return Err(ExcerptRefusal::NeverSent),
            (ExcerptPart::SentKeyframe(_), Some(SentKeyframe::NotKept)) => return Err(ExcerptRefusal::NotKept),
        };
        let (first, whole) = (found, *part == ExcerptPart::All);
        let entry = index.entry(first).ok_or(ExcerptRefusal::NoKeyframe)?;
        let end = if whole { index.end() } else { first + 1 };
        let (origin, clock) = (entry.time, entry.place.clock);
        let mut headers = index.headers_before(first, memory);
        if !whole {
            let heard = |slot| matches!(slot, HeaderSlot::Audio { .. } | HeaderSlot::AudioChannels { .. });
            headers.retain(|header| !heard(header.slot));
        }
        let mut file = Self { next: first, end, origin, clock, pieces: Vec::new(), piece: Vec::new(), written: 0 };
        let entries = (first..end).filter_map(|number| index.entry(number));
        let of_headers = headers.iter().map(|header| header.type_id);
        let types: Vec<u8> = entries.take(STEP_MESSAGES as usize).map(IndexEntry::type_id).chain(of_headers).collect();
        file.put(&flv::file_head(types.contains(&type_id::AUDIO), types.contains(&type_id::VIDEO)));
        for Header { type_id, payload, .. } in &headers {
            file.tag(*type_id, 0, &[payload]);
        }
        Ok(file)
    }

    /// Writes the next messages; `Break` when the file is complete, or cannot be.
    pub(super) fn step(&mut self, index: &Index, memory: &impl Memory) -> ControlFlow<Result<(), ExcerptRefusal>> {
        if index.front() > self.next {
            return ControlFlow::Break(Err(ExcerptRefusal::NoKeyframe));
        }
        let (before, until) = (self.written, self.end.min(self.next + STEP_MESSAGES));
        while self.next < until && self.written - before < STEP_BYTES {
            let Some(entry) = index.entry(self.next).filter(|entry| entry.place.clock == self.clock) else {
                // The publisher is another one from here on.
                return ControlFlow::Break(Ok(()));
            };
            self.next += 1;
            let since = entry.time - self.origin;
            // Sound that belongs before the first picture.
            if !entry.is_whole() || since < 0 && entry.header.is_none() {
                continue;
            }
            let bytes =
                |segment: super::index::Segment| memory.bytes(entry.place.ring, segment.position, segment.len as usize);
            let payload: Vec<&[u8]> = index.segments(entry).map(bytes).collect();
            self.tag(entry.type_id(), u32::try_from(since.max(0)).unwrap_or(u32::MAX), &payload);
            if self.written > MOST_BYTES {
                return ControlFlow::Break(Ok(()));
            }
        }
        if self.next < self.end { ControlFlow::Continue(()) } else { ControlFlow::Break(Ok(())) }
    }

    /// The pieces of the file.
    pub(super) fn into_pieces(mut self) -> ExcerptPieces {
        self.pieces.push(self.piece.into());
        self.pieces
    }

    fn tag(&mut self, type_id: u8, timestamp: u32, payload: &[&[u8]]) {
        if matches!(type_id, type_id::DATA_AMF0 | type_id::DATA_AMF3) {
            let whole = payload.concat();
            return self.tag_of(type_id, timestamp, &[flv::tag_payload(type_id, &whole)]);
        }
        self.tag_of(type_id, timestamp, payload);
    }

    fn tag_of(&mut self, type_id: u8, timestamp: u32, payload: &[&[u8]]) {
        let length = payload.iter().map(|part| part.len() as u32).sum();
        self.put(&flv::tag_head(type_id, timestamp, length));
        payload.iter().for_each(|part| self.put(part));
        self.put(&flv::back_pointer(length));
    }

    fn put(&mut self, mut bytes: &[u8]) {
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.piece.len() == MAX_PIECE {
                self.pieces.push(std::mem::take(&mut self.piece).into());
            }
            let (now, later) = bytes.split_at(bytes.len().min(MAX_PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
        }
    }
}

/// The message of this number, if it is one of this publisher.
fn is_of(index: &Index, number: u64, clock: u32) -> bool {
    index.entry(number).is_some_and(|entry| entry.place.clock == clock)
}

/// The oldest keyframe of the publisher such that all from there on fits into a file; the newest one if none does. Without video, the oldest sound.
fn first_of_all(index: &Index, clock: u32) -> Option<u64> {
    let mut bytes = 0;
    let mut first = None;
    for number in (index.front()..index.end()).rev() {
        let Some(entry) = index.entry(number).filter(|entry| entry.place.clock == clock) else { break };
        bytes += u64::from(entry.length()) + flv::TAG_BYTES as u64;
        if bytes > MOST_BYTES && first.is_some() {
            break;
        }
        let begins = if index.announces_video() {
            entry.is_join()
        } else {
            entry.kind == Kind::Audio && entry.is_frame() && entry.is_whole()
        };
        if begins {
            first = Some(number);
        }
    }
    first
}

#[cfg(test)]
#[path = "excerpt_tests.rs"]
mod tests;
