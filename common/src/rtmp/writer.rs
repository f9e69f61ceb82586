//! Chunk headers for our own messages. In: a message header. Out: at most 18 bytes of chunk header; the payload is the caller's, who may
//! write it straight from the memory in which it lies. Next: a socket.
//!
//! The first chunk always has fmt0 and the others fmt3: a message then depends on no other message of its chunk stream, so that messages
//! can be skipped or injected freely. The 4 to 8 bytes that fmt1-3 would save per message are below 0.1 % of a stream.
//!
//! Note: a receiver that follows the specification wants the extended timestamp repeated in every fmt3 chunk, and the only receivers that
//! do not (old librtmp) compare the bytes before they skip them.

use std::ops::Deref;

use super::MessageHeader;
use super::limits::{EXTENDED_TIMESTAMP, MAX_CSID, MIN_CSID};

/// Longest chunk header: 3 bytes of basic header, 11 of message header, 4 of extended timestamp.
pub const MAX_CHUNK_HEADER: usize = 18;

/// The bytes of one chunk header, inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    bytes: [u8; MAX_CHUNK_HEADER],
    len: u8,
}

impl ChunkHeader {
    const fn new() -> Self {
        Self { bytes: [0; MAX_CHUNK_HEADER], len: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let from = usize::from(self.len);
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    /// Basic header (RTMP 1.0, 5.3.1.1); an id that cannot be written is moved to the nearest one that can.
    fn basic(&mut self, format: u8, csid: u32) {
        let csid = csid.clamp(MIN_CSID, MAX_CSID);
        match csid {
            2..=63 => self.push(&[format << 6 | csid as u8]),
            64..=319 => self.push(&[format << 6, (csid - 64) as u8]),
            _ => {
                let [low, high, ..] = (csid - 64).to_le_bytes();
                self.push(&[format << 6 | 1, low, high]);
            }
        }
    }

    fn extended(&mut self, timestamp: u32) {
        if timestamp >= EXTENDED_TIMESTAMP {
            self.push(&timestamp.to_be_bytes());
        }
    }
}

impl Deref for ChunkHeader {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for ChunkHeader {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Highest chunk stream id whose basic header has one byte.
const MAX_SHORT_CSID: u32 = 63;

/// True if the chunk headers of a message have the form that nearly all have: one byte of basic header, no extended timestamp.
const fn is_plain(header: &MessageHeader) -> bool {
    MIN_CSID <= header.csid && header.csid <= MAX_SHORT_CSID && header.timestamp < EXTENDED_TIMESTAMP
}

/// Header of a message's first chunk: fmt0, with an extended timestamp from 0xFFFFFF on (RTMP 1.0, 5.3.1.2.1).
#[must_use]
#[inline]
pub fn first_header(header: &MessageHeader) -> ChunkHeader {
    if !is_plain(header) {
        return long_first_header(header);
    }
    let mut bytes = [0; MAX_CHUNK_HEADER];
    let length = header.length.min(0xFF_FFFF);
    bytes[..4].copy_from_slice(&(header.csid << 24 | header.timestamp).to_be_bytes());
    bytes[4..8].copy_from_slice(&(length << 8 | header.type_id as u32).to_be_bytes());
    bytes[8..12].copy_from_slice(&header.stream_id.to_le_bytes());
    ChunkHeader { bytes, len: 12 }
}

#[cold]
fn long_first_header(header: &MessageHeader) -> ChunkHeader {
    let mut chunk = ChunkHeader::new();
    chunk.basic(0, header.csid);
    chunk.push(&header.timestamp.min(EXTENDED_TIMESTAMP).to_be_bytes()[1..]);
    chunk.push(&header.length.min(0xFF_FFFF).to_be_bytes()[1..]);
    chunk.push(&[header.type_id]);
    chunk.push(&header.stream_id.to_le_bytes());
    chunk.extended(header.timestamp);
    chunk
}

/// Header of a message's further chunks: fmt3, repeating the extended timestamp if there is one (RTMP 1.0, 5.3.1.3).
#[must_use]
#[inline]
pub fn continuation_header(header: &MessageHeader) -> ChunkHeader {
    if !is_plain(header) {
        return long_continuation_header(header);
    }
    let mut bytes = [0; MAX_CHUNK_HEADER];
    bytes[0] = 0xC0 | header.csid as u8;
    ChunkHeader { bytes, len: 1 }
}

#[cold]
fn long_continuation_header(header: &MessageHeader) -> ChunkHeader {
    let mut chunk = ChunkHeader::new();
    chunk.basic(3, header.csid);
    chunk.extended(header.timestamp);
    chunk
}

/// Bytes of [`first_header`].
#[must_use]
#[inline]
pub const fn first_header_len(header: &MessageHeader) -> usize {
    11 + continuation_header_len(header)
}

/// Bytes of [`continuation_header`].
#[must_use]
#[inline]
pub const fn continuation_header_len(header: &MessageHeader) -> usize {
    if is_plain(header) {
        return 1;
    }
    let basic = match header.csid {
        0..=MAX_SHORT_CSID => 1,
        64..=319 => 2,
        _ => 3,
    };
    if header.timestamp < EXTENDED_TIMESTAMP { basic } else { basic + 4 }
}

/// Bytes of a whole message of `header.length` bytes in chunks of `chunk_size`, as [`write_message`] writes it.
#[must_use]
#[inline]
pub const fn message_len(header: &MessageHeader, chunk_size: u32) -> u64 {
    let one_chunk = first_header_len(header) as u64 + header.length as u64;
    if header.length <= chunk_size {
        return one_chunk;
    }
    let chunk_size = if chunk_size == 0 { 1 } else { chunk_size };
    one_chunk + (header.length - 1) as u64 / chunk_size as u64 * continuation_header_len(header) as u64
}

/// Appends a whole message in chunks of `chunk_size`. `payload`'s length counts, not the header's; at most 2^24 - 1 bytes of it are written.
pub fn write_message(out: &mut Vec<u8>, header: &MessageHeader, payload: &[u8], chunk_size: u32) {
    let payload = &payload[..payload.len().min(0xFF_FFFF)];
    let header = MessageHeader { length: payload.len() as u32, ..*header };
    let mut chunks = payload.chunks(chunk_size.max(1) as usize);
    out.extend_from_slice(&first_header(&header));
    out.extend_from_slice(chunks.next().unwrap_or_default());
    let continuation = continuation_header(&header);
    for chunk in chunks {
        out.extend_from_slice(&continuation);
        out.extend_from_slice(chunk);
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
