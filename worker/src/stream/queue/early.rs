//! A message of which chunks are written before its last byte has come (architecture.md, "The stream ring").
//!
//! In: the chunks of its payload that are wholly there. Out: parts of a write, behind everything that is queued; in the end an ordinary item of
//! the queue, partly written.
//!
//! Note:
//! - Its chunks have a chunk stream of their own, so that complete messages may be written between two of them, and so that the rest may never
//!   come: the next such message then takes a chunk stream that was not used before. nginx-rtmp and ffmpeg take that; a new message on the same
//!   chunk stream, an Abort Message or padding loses or corrupts the session there.
//! - A chunk that the upstream takes in part becomes an item of the queue, with its bytes. So between two writes this message is always at
//!   the end of a chunk, and it can be left at any time.

use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::writer::{continuation_header, continuation_header_len, first_header, first_header_len};

use super::{DATA_CSID, QueueItem, QueuedBytes, VIDEO_CSID, WritePart, WriteQueue, WrittenSegments};
use crate::stream::cursor::WritePlan;
use crate::stream::index::{EarlyMessage, EntryPlace, IndexEntry, Memory, PayloadPlace};
use crate::stream::timeline::Timeline;

/// Chunk stream of the first message that leaves early, and of all until the rest of one does not come.
const FIRST_CSID: u32 = 7;
/// The last chunk stream id that nginx-rtmp takes.
const LAST_CSID: u32 = 31;
const _: () = assert!(VIDEO_CSID < FIRST_CSID && DATA_CSID < FIRST_CSID);

/// The chunk streams of messages that leave early.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyChunkStream(u32);

impl Default for EarlyChunkStream {
    fn default() -> Self {
        Self(FIRST_CSID)
    }
}

/// The outcome of [`WriteQueue::complete_early`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) enum Completed {
    /// The message is an item of the queue, and partly written.
    Item,
    /// Something in front of it is not written yet.
    Waits,
    /// No chunk of it was written: it can go like any other.
    Unwritten,
}

/// A message that is being written, and whose last byte had not come when it was begun.
#[derive(Clone, Copy, Debug)]
pub(in crate::stream) struct EarlyItem {
    /// The message header to send.
    header: MessageHeader,
    /// Ring and publisher of the message.
    pub(in crate::stream) place: EntryPlace,
    /// Position of its first byte.
    pub(in crate::stream) start: u64,
    /// The chunks that are written, or have become items.
    chunks: u64,
    /// The end of the written chunks in the payload, as of the last layout: the next one goes on from there.
    written_to: PayloadPlace,
    /// The place in the session's bytes at which the last chunk that has become an item ends.
    item_ends: u64,
    /// The number of the message, once it is complete.
    pub(in crate::stream) number: Option<u64>,
}

impl EarlyItem {
    pub(in crate::stream) fn length(&self) -> u32 {
        self.header.length
    }

    /// Bytes of the chunk of this number.
    fn chunk_len(&self, chunk: u64, size: u64) -> u64 {
        let head = if chunk == 0 { first_header_len(&self.header) } else { continuation_header_len(&self.header) };
        head as u64 + size.min(u64::from(self.header.length).saturating_sub(chunk * size))
    }

    /// Bytes of the first `chunks` chunks, none of which is the last one.
    fn encoded(&self, chunks: u64, size: u64) -> u64 {
        match chunks {
            0 => 0,
            chunks => self.chunk_len(0, size) + (chunks - 1) * self.chunk_len(1, size),
        }
    }
}

impl WriteQueue {
    /// The early message.
    pub(in crate::stream) fn early(&self) -> Option<&EarlyItem> {
        self.early.as_ref()
    }

    pub(in crate::stream) fn early_mut(&mut self) -> Option<&mut EarlyItem> {
        self.early.as_mut()
    }

    /// Returns whether another message may be begun early: there is a chunk stream for it.
    pub(in crate::stream) fn takes_early(&self) -> bool {
        self.early.is_none() && self.items.is_empty() && self.early_stream.0 <= LAST_CSID
    }

    /// Bytes of payload in each chunk.
    pub(in crate::stream) fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Begins a message of which the first chunk is there. [`Self::takes_early`] must be true.
    pub(in crate::stream) fn begin_early(&mut self, entry: &IndexEntry, timestamp: u32, stream_id: u32) {
        let (csid, length, type_id) = (self.early_stream.0, entry.length(), entry.type_id());
        let header = MessageHeader { csid, timestamp, length, type_id, stream_id };
        self.early = Some(EarlyItem {
            header,
            place: entry.place,
            start: entry.start,
            chunks: 0,
            written_to: PayloadPlace::default(),
            item_ends: 0,
            number: None,
        });
    }

    /// Leaves the early message as it is: no more of it is written.
    pub(in crate::stream) fn leave_early(&mut self) {
        if let Some(early) = self.early.take() {
            self.early_stream.0 += u32::from(early.chunks > 0);
        }
    }

    /// Makes an item of the early message, which is complete, if everything in front of it is written.
    pub(in crate::stream) fn complete_early(&mut self, number: u64, before: Timeline) -> Completed {
        let Some(early) = self.early else { return Completed::Waits };
        if early.chunks == 0 {
            return Completed::Unwritten;
        }
        let has_item = self.written < early.item_ends;
        if self.items.len() > usize::from(has_item) {
            return Completed::Waits;
        }
        self.early = None;
        self.items.clear();
        self.done = WrittenSegments::default();
        let length = self.encoded(&early.header);
        self.items.push_back(QueueItem {
            what: QueuedBytes::IndexEntry(early.header),
            number: Some(number),
            injected: false,
            header_of: None,
            before: Some(before),
            length,
        });
        self.offset += early.encoded(early.chunks - u64::from(has_item), u64::from(self.chunk_size));
        self.popped = self.written - self.offset;
        Completed::Item
    }

    /// Lays out the whole chunks that are there, behind every item.
    pub(in crate::stream) fn early_parts(&mut self, message: &EarlyMessage<'_>, plan: &mut WritePlan, most: usize) {
        let Some(early) = &mut self.early else { return };
        plan.early = Some(plan.parts.len());
        let WritePlan { parts, heads, .. } = plan;
        let size = u64::from(self.chunk_size);
        early.written_to.skip_to(message.segments, early.chunks * size);
        let mut place = early.written_to;
        for chunk in early.chunks.. {
            let to = (chunk + 1) * size;
            // The last chunk is there when the message is complete, and then it is an item.
            if to > message.received || to >= u64::from(early.header.length) {
                return;
            }
            let (parts_before, head) = (parts.len(), heads.len());
            heads.push(if chunk == 0 { first_header(&early.header) } else { continuation_header(&early.header) });
            parts.push(WritePart::Head { at: head, from: 0 });
            let ring = early.place.ring;
            while parts.len() <= most
                && let Some(segment) = place.take(message.segments, to)
            {
                parts.push(WritePart::Ring { ring, segment });
            }
            if parts.len() > most {
                parts.truncate(parts_before);
                heads.truncate(head);
                return;
            }
        }
    }

    /// Notes that `count` of the bytes of the early message's part of the plan are written, which begins at the part `from`.
    pub(in crate::stream) fn wrote_early(&mut self, plan: &WritePlan, from: usize, count: u64, memory: &impl Memory) {
        let Some(early) = &mut self.early else { return };
        let size = u64::from(self.chunk_size);
        self.written += count;
        let mut whole = 0;
        while whole < count {
            let length = early.chunk_len(early.chunks, size);
            early.chunks += 1;
            if whole + length > count {
                let bytes = plan.copied(from, whole, length, memory);
                let what = QueuedBytes::Bytes(bytes);
                let item = QueueItem { what, number: None, injected: false, header_of: None, before: None, length };
                self.items.push_front(item);
                self.offset = count - whole;
                early.item_ends = self.popped + whole + length;
                break;
            }
            whole += length;
        }
        self.popped += whole;
    }

    /// Bytes of the items that are not written.
    pub(in crate::stream) fn unwritten(&self) -> u64 {
        self.items.iter().map(|item| item.length).sum::<u64>() - self.offset
    }
}

impl WritePlan {
    /// Copies `length` bytes of the parts from the part `from` on, without the first `skip` of them.
    fn copied(&self, from: usize, skip: u64, length: u64, memory: &impl Memory) -> Vec<u8> {
        let (mut skip, length) = (skip as usize, length as usize);
        let mut copy = Vec::with_capacity(length);
        for part in &self.parts[from..] {
            let bytes = match part {
                WritePart::Head { at, from } => &self.heads[*at][*from..],
                WritePart::Ring { ring, segment } => memory.bytes(*ring, segment.position, segment.len as usize),
                // Only items of the queue have bytes of their own.
                WritePart::Bytes { .. } => &[],
            };
            let Some(bytes) = bytes.get(skip..).filter(|bytes| !bytes.is_empty()) else {
                skip -= bytes.len();
                continue;
            };
            skip = 0;
            copy.extend_from_slice(&bytes[..bytes.len().min(length - copy.len())]);
            if copy.len() == length {
                break;
            }
        }
        copy
    }
}
