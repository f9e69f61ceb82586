//! The messages that a cursor has decided to write, in chunks: items go in, parts of a vectored write come out, counted by the byte.
//!
//! Note: the encoded form of a message is never made. The end of a partial write is one number, from which the chunk and the place in it
//! follow.

use std::collections::VecDeque;

use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::media::{HeaderSlot, Kind};
use liveedgecast_common::rtmp::message::CONTROL_CSID;
use liveedgecast_common::rtmp::writer::{continuation_header, first_header, message_len, write_message};
use liveedgecast_common::sys::prefetch_behind;

use super::cursor::WritePlan;
use super::index::{Header, Index, IndexEntry, Memory, Segment};
use super::timeline::Timeline;

mod early;

pub(super) use self::early::Completed;
use self::early::{EarlyChunkStream, EarlyItem};

/// Chunk streams that we write on, whatever the publisher used: one for each kind, as ffmpeg does. nginx-rtmp takes ids below 32 only.
const AUDIO_CSID: u32 = 4;
const VIDEO_CSID: u32 = 6;
const DATA_CSID: u32 = 5;
const _: () = assert!(CONTROL_CSID < AUDIO_CSID);

/// Messages that were written and are not known to be acknowledged, at most: beyond it the oldest is taken for
/// acknowledged. A socket's buffer holds fewer.
const MAX_UNCONFIRMED: usize = 16 << 10;

/// A message or some chunks to be written whole.
#[derive(Debug)]
pub(super) struct QueueItem {
    what: QueuedBytes,
    /// Number of the message in the stream.
    pub(super) number: Option<u64>,
    /// A header put in front of the message at which a session goes on: not in the stream's order.
    pub(super) injected: bool,
    /// Kind of the header that it is, and the message that brought it.
    pub(super) header_of: Option<(HeaderSlot, Option<u64>)>,
    /// The session's time before this item was given its timestamp: it holds again if the item is taken back.
    before: Option<Timeline>,
    /// Bytes in encoded form.
    length: u64,
}

/// A message that is written without going through the queue, unless the upstream takes a part of it only.
#[derive(Debug)]
pub(super) struct SingleItem {
    /// Number of the message in the stream.
    pub(super) number: u64,
    /// Bytes in encoded form.
    pub(super) length: u64,
    pub(super) header: MessageHeader,
    /// As in a [`QueueItem`].
    pub(super) before: Timeline,
}

#[derive(Debug)]
enum QueuedBytes {
    /// Encoded chunks.
    Bytes(Vec<u8>),
    /// A header's payload, before it is encoded.
    Header(MessageHeader, Vec<u8>),
    /// An entry of the index, with the message header to send.
    IndexEntry(MessageHeader),
}

/// A slice of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum WritePart {
    /// A chunk header from its byte `from` on.
    Head { at: usize, from: usize },
    /// Payload in a ring.
    Ring { ring: u32, segment: Segment },
    /// Bytes of the item at this place in the queue.
    Bytes { at: usize, from: usize },
}

/// The leading segments of a message that are written to their ends.
#[derive(Clone, Copy, Debug, Default)]
struct WrittenSegments {
    count: usize,
    /// Bytes of payload in them.
    bytes: u64,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct WriteQueue {
    chunk_size: u32,
    items: VecDeque<QueueItem>,
    /// Bytes of the first item that are written.
    offset: u64,
    /// Segments of the first item that need no further look, if it is an entry: a long one in small chunks takes many writes, and has many segments.
    done: WrittenSegments,
    /// Bytes written in this session.
    written: u64,
    /// Bytes written up to the end of the item that was popped last.
    popped: u64,
    /// Ends of messages in the session's bytes, with their numbers, for those that the peer may not have.
    unconfirmed: VecDeque<(u64, u64)>,
    early: Option<EarlyItem>,
    early_stream: EarlyChunkStream,
}

impl QueueItem {
    pub(super) fn entry(number: u64, entry: &IndexEntry, timestamp: u32, stream_id: u32, before: Timeline) -> Self {
        Self {
            what: QueuedBytes::IndexEntry(message_header(entry, timestamp, stream_id)),
            number: Some(number),
            injected: false,
            header_of: entry.header.map(|slot| (slot, Some(number))),
            before: Some(before),
            length: 0,
        }
    }

    pub(super) fn injected(header: Header, timestamp: u32, stream_id: u32, before: Timeline) -> Self {
        let csid = match header.slot {
            HeaderSlot::Metadata => DATA_CSID,
            HeaderSlot::Audio { .. } | HeaderSlot::AudioChannels { .. } => AUDIO_CSID,
            HeaderSlot::Video { .. } | HeaderSlot::VideoMetadata { .. } => VIDEO_CSID,
        };
        let length = header.payload.len() as u32;
        let message = MessageHeader { csid, timestamp, length, type_id: header.type_id, stream_id };
        Self {
            what: QueuedBytes::Header(message, header.payload),
            number: header.number,
            injected: true,
            header_of: Some((header.slot, header.number)),
            before: Some(before),
            length: 0,
        }
    }
}

/// The header that an entry is sent with.
pub(super) fn message_header(entry: &IndexEntry, timestamp: u32, stream_id: u32) -> MessageHeader {
    let (csid, length, type_id) = (csid(entry.kind), entry.length(), entry.type_id());
    MessageHeader { csid, timestamp, length, type_id, stream_id }
}

fn csid(kind: Kind) -> u32 {
    match kind {
        Kind::Audio => AUDIO_CSID,
        Kind::Video => VIDEO_CSID,
        Kind::Data => DATA_CSID,
    }
}

impl WriteQueue {
    pub(super) fn new(chunk_size: u32) -> Self {
        Self {
            chunk_size: chunk_size.max(1),
            items: VecDeque::new(),
            offset: 0,
            done: WrittenSegments::default(),
            written: 0,
            popped: 0,
            unconfirmed: VecDeque::new(),
            early: None,
            early_stream: EarlyChunkStream::default(),
        }
    }

    /// Lets the processor fetch the place that the next message will be noted in.
    pub(super) fn prefetch_behind(&self) {
        self.unconfirmed.back().map(prefetch_behind);
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Returns whether a part of the first item is written.
    pub(super) fn is_started(&self) -> bool {
        self.offset > 0
    }

    pub(super) fn push(&mut self, mut item: QueueItem) {
        item.what = match item.what {
            QueuedBytes::Header(header, payload) => {
                let mut bytes = Vec::with_capacity(payload.len() + 64);
                write_message(&mut bytes, &header, &payload, self.chunk_size);
                QueuedBytes::Bytes(bytes)
            }
            what => what,
        };
        item.length = match &item.what {
            QueuedBytes::Bytes(bytes) | QueuedBytes::Header(_, bytes) => bytes.len() as u64,
            QueuedBytes::IndexEntry(header) => self.encoded(header),
        };
        self.items.push_back(item);
    }

    /// Lays out a message that need not wait, because everything before it is written; returns its length.
    pub(super) fn single(
        &mut self,
        header: &MessageHeader,
        entry: &IndexEntry,
        index: &Index,
        plan: &mut WritePlan,
        most: usize,
    ) -> u64 {
        self.entry_parts(header, entry, index, 0, plan, most);
        self.encoded(header)
    }

    /// Notes that `count` bytes of such a message are written; returns whether that is all of it. Otherwise it is in the queue from now on,
    /// as if none of it was written.
    pub(super) fn wrote_single(&mut self, single: &SingleItem, count: u64) -> bool {
        let SingleItem { number, length, header, before } = single;
        let whole = count == *length;
        if whole {
            self.written += count;
            self.passed_out(*length, Some(*number));
        } else {
            self.items.push_back(QueueItem {
                what: QueuedBytes::IndexEntry(*header),
                number: Some(*number),
                injected: false,
                header_of: None,
                before: Some(*before),
                length: *length,
            });
        }
        whole
    }

    /// Puts chunks of the connection itself in front of every item that has not been started.
    pub(super) fn push_control(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len() as u64;
        let what = QueuedBytes::Bytes(bytes);
        let item = QueueItem { what, number: None, injected: false, header_of: None, before: None, length };
        // Chunks of the connection keep their order among themselves.
        let first = usize::from(self.is_started());
        let behind = self.items.iter().skip(first).take_while(|item| item.before.is_none()).count();
        self.items.insert(first + behind, item);
    }

    fn encoded(&self, header: &MessageHeader) -> u64 {
        message_len(header, self.chunk_size)
    }

    /// Numbers of the queued messages.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> + Clone + '_ {
        self.items.iter().filter_map(|item| item.number)
    }

    /// The first message in the stream's order of which no byte was written.
    pub(super) fn first_unstarted(&self) -> Option<u64> {
        let unstarted = self.items.iter().skip(usize::from(self.is_started()));
        unstarted.filter(|item| !item.injected).find_map(|item| item.number)
    }

    pub(super) fn holds_header(&self, header: (HeaderSlot, Option<u64>)) -> bool {
        self.items.iter().any(|item| item.header_of == Some(header))
    }

    /// Takes back the items of which no byte was written, except chunks of the connection itself. Returns the session's time before them.
    pub(super) fn drop_unstarted(&mut self) -> Option<Timeline> {
        let started = usize::from(self.is_started());
        let time = self.items.iter().skip(started).find_map(|item| item.before);
        let mut at = 0;
        self.items.retain(|item| {
            at += 1;
            at <= started || item.before.is_none()
        });
        time
    }

    /// Copies the rest of the first item, if that is a message before `until` that is partly written.
    pub(super) fn save_started(&mut self, until: u64, index: &Index, memory: &impl Memory) {
        let started = self.is_started();
        let Some(item) = self.items.front_mut().filter(|item| started && item.number.is_some_and(|at| at < until))
        else {
            return;
        };
        let QueuedBytes::IndexEntry(header) = &item.what else { return };
        let Some(entry) = item.number.and_then(|number| index.entry(number)) else { return };
        let mut payload = Vec::with_capacity(header.length as usize);
        for segment in index.segments(entry) {
            payload.extend_from_slice(memory.bytes(entry.place.ring, segment.position, segment.len as usize));
        }
        let mut bytes = Vec::with_capacity(item.length as usize);
        write_message(&mut bytes, header, &payload, self.chunk_size);
        item.what = QueuedBytes::Bytes(bytes);
    }

    /// The bytes of an item from `from` on.
    pub(super) fn bytes(&self, at: usize, from: usize) -> &[u8] {
        match self.items.get(at).map(|item| &item.what) {
            Some(QueuedBytes::Bytes(bytes)) => bytes.get(from..).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Lays out the next write.
    pub(super) fn parts(&mut self, index: &Index, plan: &mut WritePlan, most: usize) {
        for at in 0..self.items.len() {
            if plan.parts.len() >= most {
                return;
            }
            let skip = if at == 0 { self.offset } else { 0 };
            let item = &self.items[at];
            match item.what {
                QueuedBytes::Bytes(_) | QueuedBytes::Header(..) => {
                    plan.parts.push(WritePart::Bytes { at, from: skip as usize })
                }
                QueuedBytes::IndexEntry(header) => {
                    // Always there: an entry that is about to be forgotten was saved or taken back.
                    let Some(entry) = item.number.and_then(|number| index.entry(number)) else { return };
                    self.entry_parts(&header, entry, index, skip, plan, most);
                }
            }
        }
    }

    /// Goes over the segments of the first item that end at byte `to` of its payload or before.
    #[inline(never)]
    fn skip_written(&mut self, entry: &IndexEntry, index: &Index, to: u64) -> WrittenSegments {
        for segment in index.segments_from(entry, self.done.count) {
            let bytes = self.done.bytes + u64::from(segment.len);
            if bytes > to {
                break;
            }
            self.done = WrittenSegments { count: self.done.count + 1, bytes };
        }
        self.done
    }

    /// Lays out an entry without the `skip` bytes of its encoded form that are written, which is zero for all but the first item.
    fn entry_parts(
        &mut self,
        header: &MessageHeader,
        entry: &IndexEntry,
        index: &Index,
        skip: u64,
        plan: &mut WritePlan,
        most: usize,
    ) {
        let WritePlan { parts, heads, .. } = plan;
        let size = u64::from(self.chunk_size);
        let (first, continuation) = (first_header(header), continuation_header(header));
        let (first_len, continuation_len) = (first.len() as u64, continuation.len() as u64);
        // The chunk, and how much of its header and payload is written.
        let (chunk, into, head) = match skip.checked_sub(first_len + size) {
            None => (0, skip, first),
            Some(rest) => (1 + rest / (continuation_len + size), rest % (continuation_len + size), continuation),
        };
        let head_len = head.len() as u64;
        if into < head_len {
            parts.push(WritePart::Head { at: heads.len(), from: into as usize });
            heads.push(head);
        }
        let mut done = chunk * size + into.saturating_sub(head_len);
        let mut chunk_end = (chunk + 1) * size;
        let written = if skip == 0 { WrittenSegments::default() } else { self.skip_written(entry, index, done) };
        let mut seen = written.bytes;
        for segment in index.segments_from(entry, written.count) {
            let end = seen + u64::from(segment.len);
            while done < end {
                if done == chunk_end {
                    if parts.len() >= most {
                        return;
                    }
                    parts.push(WritePart::Head { at: heads.len(), from: 0 });
                    heads.push(continuation);
                    chunk_end += size;
                }
                if parts.len() >= most {
                    return;
                }
                let len = end.min(chunk_end) - done;
                let segment = Segment { position: segment.position + (done - seen), len: len as u32 };
                parts.push(WritePart::Ring { ring: entry.place.ring, segment });
                done += len;
            }
            seen = end;
        }
    }

    /// Notes that `count` of the laid-out bytes are written.
    pub(super) fn wrote(&mut self, count: u64) {
        self.written += count;
        self.offset += count;
    }

    /// The next item that is written to its end.
    pub(super) fn pop_written(&mut self) -> Option<QueueItem> {
        let length = self.items.front()?.length;
        let rest = self.offset.checked_sub(length)?;
        let item = self.items.pop_front()?;
        self.offset = rest;
        self.done = WrittenSegments::default();
        if self.items.is_empty() {
            // The next item goes where this one was, which is in the cache.
            self.items.clear();
        }
        self.passed_out(item.length, item.number.filter(|_| !item.injected));
        Some(item)
    }

    /// Notes that an item is written to its end.
    fn passed_out(&mut self, length: u64, number: Option<u64>) {
        self.popped += length;
        if let Some(number) = number {
            self.unconfirmed.push_back((self.popped, number));
            if self.unconfirmed.len() > MAX_UNCONFIRMED {
                self.unconfirmed.pop_front();
            }
        }
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    pub(super) fn oldest_unconfirmed(&self) -> Option<u64> {
        self.unconfirmed.front().map(|(_, number)| *number)
    }

    /// Calls `confirm` with each message that has reached the peer.
    pub(super) fn acknowledged(&mut self, unacknowledged: u64, mut confirm: impl FnMut(u64)) {
        let reached = self.written.saturating_sub(unacknowledged);
        while let Some((_, number)) = self.unconfirmed.front().copied().filter(|(end, _)| *end <= reached) {
            self.unconfirmed.pop_front();
            confirm(number);
        }
    }

    /// Messages that were written to their end and were not confirmed by [`Self::acknowledged`].
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = u64> + '_ {
        self.unconfirmed.iter().map(|(_, number)| *number)
    }
}
