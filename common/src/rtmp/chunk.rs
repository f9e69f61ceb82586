//! The chunk scanner. In: bytes of one RTMP connection. Out: message and payload boundaries. Nothing is copied and nothing is allocated per
//! message; payload stays in place, named by its position in the connection. Next: [`super::ingest`], or the stream ring's index in the
//! worker.
//!
//! ```text
//!            basic + message header                 payload bytes
//!   Between ───────────────────────▶ InChunk ──────────────────────▶ Between
//!      │        Begin (first chunk)      │  Payload …  (chunk spent)
//!      └ fmt0-2 on an open message: Aborted, then the header again
//! ```
//!
//! Note:
//! - The specification says that a fmt3 chunk repeats the extended timestamp, old librtmp does not repeat it, and nginx-rtmp has a setting.
//!   We compare the four bytes with the value they would have to repeat, byte by byte, so that a last chunk of fewer than four bytes does
//!   not wait for bytes that belong to the next message.
//! - The extended timestamp of fmt1 and fmt2 is a delta for ffmpeg and gortmplib and absolute for SRS (enhanced-rtmp#42). It
//!   is read as a delta, as the specification says. It takes a gap of 4 h 39 m within one chunk stream to see the difference.
//! - fmt3 that begins a message adds the previous delta; after fmt0 that delta is the timestamp of the fmt0 (RTMP 1.0, 5.3.1.2.4).
//!   ffmpeg writes so; nginx-rtmp reads 0 there.
//! - librtmp begins with fmt1, DJI with fmt2, on a chunk stream that has never been used: it counts as following an empty message at 0.
//! - A fmt0, fmt1 or fmt2 header inside an unfinished message begins a new one; the old one is reported as aborted.

use serde::{Deserialize, Serialize};

use super::limits::{
    DEFAULT_CHUNK_SIZE, EXTENDED_TIMESTAMP, MAX_CHUNK_SIZE, MAX_CHUNK_STREAMS, MAX_CSID, MIN_CSID, max_message,
};
use super::{MessageHeader, type_id};

/// An event of the scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A message begins.
    Begin {
        /// Header of the message, complete whatever the format of the chunk header was.
        header: MessageHeader,
        /// Position of the first byte of its first chunk header.
        at: u64,
    },
    /// Payload, as it arrives: a chunk may come in several parts. An empty message has one `Payload` with `len` 0.
    Payload {
        /// Chunk stream of the message.
        csid: u32,
        /// Position of the first byte.
        at: u64,
        /// Bytes of payload.
        len: u32,
        /// True if the message is complete.
        last: bool,
    },
    /// The rest of the open message of this chunk stream will not come: an Abort named it, or a new header replaced it.
    Aborted {
        /// Chunk stream of the message.
        csid: u32,
        /// Bytes of payload that never came.
        missing: u32,
    },
}

/// The error of a publisher or upstream; the connection cannot be read any further. Retrying is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// First header of a chunk stream is fmt3.
    #[error("chunk stream {csid} continues a message that never began")]
    NeverBegan {
        /// Chunk stream id.
        csid: u32,
    },
    /// Number of chunk streams above [`MAX_CHUNK_STREAMS`].
    #[error("more than {MAX_CHUNK_STREAMS} chunk streams")]
    TooManyChunkStreams,
    /// A message longer than its type may be.
    #[error("message of type {type_id} is {length} bytes long, at most {limit} are taken")]
    MessageTooLong {
        /// Message type.
        type_id: u8,
        /// Claimed length.
        length: u32,
        /// Longest message of the type ([`max_message`]).
        limit: u32,
    },
    /// Set Chunk Size with 0 or with its highest bit set (RTMP 1.0, 5.4.1).
    #[error("chunk size {size:#x} is not allowed")]
    ChunkSize {
        /// Value sent.
        size: u32,
    },
    /// Set Chunk Size or Abort with fewer than four bytes.
    #[error("protocol control message of type {type_id} has only {length} bytes")]
    ShortControl {
        /// Message type.
        type_id: u8,
        /// Length of its payload.
        length: u32,
    },
    /// Incomplete small messages hold more than [`super::limits::MAX_ASSEMBLY`] bytes together.
    #[error("incomplete messages hold too many bytes")]
    TooMuchAssembly,
    /// A state that no scanner can have been in.
    #[error("scanner state is not valid: {0}")]
    State(&'static str),
}

/// A chunk stream: the last message header, and the progress of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ChunkStream {
    csid: u32,
    /// Absolute timestamp of the last message begun.
    timestamp: u32,
    /// Delta that a fmt3 adds when it begins a message.
    delta: u32,
    /// Extended field of the last header, which fmt3 repeats.
    extended: Option<u32>,
    length: u32,
    type_id: u8,
    stream_id: u32,
    /// True if the last message begun is not complete.
    open: bool,
    /// Payload bytes of the open message so far.
    received: u32,
    /// First four payload bytes of a Set Chunk Size or Abort.
    control: [u8; 4],
}

impl ChunkStream {
    const fn new(csid: u32) -> Self {
        Self {
            csid,
            timestamp: 0,
            delta: 0,
            extended: None,
            length: 0,
            type_id: 0,
            stream_id: 0,
            open: false,
            received: 0,
            control: [0; 4],
        }
    }

    const fn header(&self) -> MessageHeader {
        MessageHeader {
            csid: self.csid,
            timestamp: self.timestamp,
            length: self.length,
            type_id: self.type_id,
            stream_id: self.stream_id,
        }
    }
}

/// The chunk whose payload is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Chunk {
    /// Index into the chunk streams.
    stream: u8,
    /// Payload bytes still to come; 0 only for an empty message whose `Payload` has not been returned.
    remaining: u32,
}

/// The whole state of a scanner, as data: a part of every snapshot. Comes back through [`ChunkScanner::restore`], which trusts nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannerState {
    position: u64,
    chunk_size: u32,
    streams: Vec<ChunkStream>,
    chunk: Option<Chunk>,
    aborted: Option<(u32, u32)>,
}

impl ScannerState {
    /// Position of the next byte, counted from the start of the connection.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Incomplete messages.
    #[must_use]
    pub fn open_messages(&self) -> usize {
        self.streams.iter().filter(|stream| stream.open).count()
    }

    /// Headers of the incomplete messages, with the number of bytes received of each.
    pub fn open(&self) -> impl Iterator<Item = (MessageHeader, u32)> + '_ {
        self.streams.iter().filter(|stream| stream.open).map(|stream| (stream.header(), stream.received))
    }
}

/// Scans the bytes that a peer sends after the handshake. Applies Set Chunk Size and Abort itself; both are still reported.
#[derive(Clone, Debug)]
pub struct ChunkScanner {
    state: ScannerState,
    /// State as of the first byte of the chunk whose `Begin` was last returned.
    before: ScannerState,
    /// Chunk streams that may differ from those in `before`, one bit each.
    touched: u64,
    /// Index of the chunk stream of the last chunk: the first one to compare.
    last: usize,
}

impl ChunkScanner {
    /// A scanner whose first byte has this position in the connection.
    #[must_use]
    pub fn new(position: u64) -> Self {
        let state =
            ScannerState { position, chunk_size: DEFAULT_CHUNK_SIZE, streams: Vec::new(), chunk: None, aborted: None };
        Self { before: state.clone(), state, touched: 0, last: 0 }
    }

    /// Continues from a state, which may come from a page that any process wrote to: every bound is checked.
    ///
    /// # Errors
    /// [`ChunkError::State`], with the reason why the state is not valid.
    pub fn restore(state: &ScannerState) -> Result<Self, ChunkError> {
        validate(state)?;
        Ok(Self { before: state.clone(), state: state.clone(), touched: 0, last: 0 })
    }

    /// Position of the next byte to scan.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.state.position
    }

    /// The peer's current chunk size.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.state.chunk_size
    }

    /// The state between any two scans.
    #[must_use]
    pub fn state(&self) -> ScannerState {
        self.state.clone()
    }

    /// The state as of the first byte of the chunk whose `Begin` was last returned; before any `Begin`, as of the start.
    #[must_use]
    pub fn state_before_chunk(&self) -> ScannerState {
        self.before.clone()
    }

    /// The state of [`Self::state_before_chunk`], borrowed.
    #[must_use]
    pub(super) fn before_chunk(&self) -> &ScannerState {
        &self.before
    }

    /// Chunk stream of an `Aborted` that the next scan will return; taking it is up to the caller.
    pub(super) fn aborted(&mut self) -> &mut Option<(u32, u32)> {
        &mut self.state.aborted
    }

    /// Messages begun and not complete.
    #[must_use]
    pub fn open_messages(&self) -> usize {
        self.state.open_messages()
    }

    /// Header of the last message begun on a chunk stream.
    #[must_use]
    pub fn header(&self, csid: u32) -> Option<MessageHeader> {
        self.state.streams.iter().find(|stream| stream.csid == csid).map(ChunkStream::header)
    }

    /// Finds the next event in `input`, whose first byte is the one at [`Self::position`]. Used bytes are gone: the next call wants the
    /// bytes from the new position on. `None`: more bytes are needed than were given (some may have been used all the same).
    ///
    /// # Errors
    /// The peer broke the protocol or a limit; the scanner stays at its position and returns the same error again.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<Scanned>, ChunkError> {
        if let Some((csid, missing)) = self.state.aborted.take() {
            return Ok(Some(Scanned::Aborted { csid, missing }));
        }
        let mut input = input;
        if self.state.chunk.is_none() {
            let before = self.state.position;
            if let Some(found) = self.scan_header(input)? {
                return Ok(Some(found));
            }
            if self.state.chunk.is_none() {
                return Ok(None);
            }
            // At most 18 bytes, all of them in `input`.
            input = &input[(self.state.position - before) as usize..];
        }
        self.scan_payload(input)
    }

    /// Reads one chunk header, if it is there whole. Returns `Begin` or `Aborted`; a continuation only opens the chunk.
    fn scan_header(&mut self, input: &[u8]) -> Result<Option<Scanned>, ChunkError> {
        let Some((format, csid, basic)) = basic_header(input) else { return Ok(None) };
        let known = self.find(csid);
        if let (3, Some(index)) = (format, known)
            && self.state.streams[index].open
        {
            self.continue_message(index, basic, &input[basic..]);
            return Ok(None);
        }
        let mut stream = match known {
            Some(index) => self.state.streams[index],
            None if format == 3 => return Err(ChunkError::NeverBegan { csid }),
            None if self.state.streams.len() >= MAX_CHUNK_STREAMS => return Err(ChunkError::TooManyChunkStreams),
            None => ChunkStream::new(csid),
        };
        if let (true, Some(index)) = (stream.open, known) {
            self.state.streams[index].open = false;
            self.touched |= 1 << index;
            return Ok(Some(Scanned::Aborted { csid, missing: stream.length - stream.received }));
        }

        let Some(used) = message_header(&mut stream, format, &input[basic..]) else { return Ok(None) };
        let limit = max_message(stream.type_id);
        if stream.length > limit {
            return Err(ChunkError::MessageTooLong { type_id: stream.type_id, length: stream.length, limit });
        }
        if matches!(stream.type_id, type_id::SET_CHUNK_SIZE | type_id::ABORT) && stream.length < 4 {
            return Err(ChunkError::ShortControl { type_id: stream.type_id, length: stream.length });
        }
        self.remember();
        stream.open = true;
        stream.received = 0;
        stream.control = [0; 4];
        let index = known.unwrap_or(self.state.streams.len());
        if index == self.state.streams.len() {
            self.state.streams.push(stream);
        } else {
            self.state.streams[index] = stream;
        }
        self.touched |= 1 << index;
        self.last = index;
        let at = self.state.position;
        self.state.chunk = Some(Chunk { stream: index as u8, remaining: self.state.chunk_size.min(stream.length) });
        self.state.position += (basic + used) as u64;
        Ok(Some(Scanned::Begin { header: stream.header(), at }))
    }

    /// Index of a chunk stream. Most chunks belong to the same one as the chunk before.
    fn find(&self, csid: u32) -> Option<usize> {
        let streams = &self.state.streams;
        if streams.get(self.last).is_some_and(|stream| stream.csid == csid) {
            return Some(self.last);
        }
        streams.iter().position(|stream| stream.csid == csid)
    }

    /// Opens the next chunk of a message at a fmt3 header, which can only hold a repeated extended timestamp.
    fn continue_message(&mut self, index: usize, basic: usize, input: &[u8]) {
        let stream = &self.state.streams[index];
        let extended = match stream.extended.map(|value| repeats(value, input)) {
            Some(None) => return,
            Some(Some(true)) => 4,
            Some(Some(false)) | None => 0,
        };
        let remaining = self.state.chunk_size.min(stream.length - stream.received);
        self.state.chunk = Some(Chunk { stream: index as u8, remaining });
        self.state.position += (basic + extended) as u64;
        self.last = index;
    }

    /// Keeps the state for [`Self::state_before_chunk`]. Only chunk streams that changed since the last time are copied: with 64 chunk
    /// streams, and empty messages of one byte each, the whole state would be 3 KiB per byte received.
    fn remember(&mut self) {
        self.before.position = self.state.position;
        self.before.chunk_size = self.state.chunk_size;
        self.before.chunk = None;
        self.before.aborted = None;
        while self.touched != 0 {
            let index = self.touched.trailing_zeros() as usize;
            self.touched &= self.touched - 1;
            let stream = self.state.streams[index];
            match self.before.streams.get_mut(index) {
                Some(before) => *before = stream,
                None => self.before.streams.push(stream),
            }
        }
    }

    /// The payload of the current chunk, as far as it is there.
    fn scan_payload(&mut self, input: &[u8]) -> Result<Option<Scanned>, ChunkError> {
        let Some(chunk) = self.state.chunk else { return Ok(None) };
        let len = chunk.remaining.min(u32::try_from(input.len()).unwrap_or(u32::MAX));
        if len == 0 && chunk.remaining > 0 {
            return Ok(None);
        }
        let stream = &mut self.state.streams[usize::from(chunk.stream)];
        let last = stream.received + len == stream.length;
        let control = matches!(stream.type_id, type_id::SET_CHUNK_SIZE | type_id::ABORT);
        if control {
            for (slot, byte) in stream.control.iter_mut().skip(stream.received as usize).zip(&input[..len as usize]) {
                *slot = *byte;
            }
            let size = u32::from_be_bytes(stream.control);
            if last && stream.type_id == type_id::SET_CHUNK_SIZE && !(1..=0x7FFF_FFFF).contains(&size) {
                return Err(ChunkError::ChunkSize { size });
            }
        }
        self.touched |= 1 << chunk.stream;
        stream.received += len;
        stream.open = !last;
        let done = *stream;
        let remaining = chunk.remaining - len;
        self.state.chunk = (remaining > 0).then_some(Chunk { remaining, ..chunk });
        let at = self.state.position;
        self.state.position += u64::from(len);
        if control && last {
            self.apply(&done);
        }
        Ok(Some(Scanned::Payload { csid: done.csid, at, len, last }))
    }

    /// Applies a complete Set Chunk Size or Abort to the scanner. The message itself is closed by now, in case an Abort names its own chunk
    /// stream.
    fn apply(&mut self, message: &ChunkStream) {
        let value = u32::from_be_bytes(message.control);
        if message.type_id == type_id::SET_CHUNK_SIZE {
            self.state.chunk_size = value.min(MAX_CHUNK_SIZE);
        } else if let Some(index) = self.find(value).filter(|index| self.state.streams[*index].open) {
            let stream = &mut self.state.streams[index];
            stream.open = false;
            self.touched |= 1 << index;
            self.state.aborted = Some((value, stream.length - stream.received));
        }
    }
}

/// [`ChunkScanner::touched`] has a bit for each.
const _: () = assert!(MAX_CHUNK_STREAMS <= 64);

/// Format, chunk stream id and length of a basic header (RTMP 1.0, 5.3.1.1).
fn basic_header(input: &[u8]) -> Option<(u8, u32, usize)> {
    let first = *input.first()?;
    let format = first >> 6;
    match first & 0x3F {
        0 => Some((format, 64 + u32::from(*input.get(1)?), 2)),
        1 => Some((format, 64 + u32::from(*input.get(1)?) + 256 * u32::from(*input.get(2)?), 3)),
        csid => Some((format, u32::from(csid), 1)),
    }
}

/// Reads a message header into `stream` and returns its length, or `None` when it is not there whole (RTMP 1.0, 5.3.1.2). `stream` is a
/// copy, so a half-read header does no harm; it has no open message.
fn message_header(stream: &mut ChunkStream, format: u8, input: &[u8]) -> Option<usize> {
    let fields = match format {
        0 => 11,
        1 => 7,
        2 => 3,
        _ => {
            let repeated = match stream.extended {
                Some(value) => repeats(value, input)?,
                None => false,
            };
            stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
            return Some(if repeated { 4 } else { 0 });
        }
    };
    let input = input.get(..fields + 4).or_else(|| input.get(..fields))?;
    let field = be24(input);
    stream.extended = None;
    let mut used = fields;
    if field == EXTENDED_TIMESTAMP {
        let bytes = input.get(fields..fields + 4)?;
        stream.extended = Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        used += 4;
    }
    let value = stream.extended.unwrap_or(field);
    stream.delta = value;
    stream.timestamp = if format == 0 { value } else { stream.timestamp.wrapping_add(value) };
    if format < 2 {
        stream.length = be24(&input[3..]);
        stream.type_id = input[6];
    }
    if format == 0 {
        stream.stream_id = u32::from_le_bytes([input[7], input[8], input[9], input[10]]);
    }
    Some(used)
}

/// True if the bytes after a fmt3 basic header repeat the extended timestamp. `None`: the bytes given do not tell.
fn repeats(value: u32, input: &[u8]) -> Option<bool> {
    let expected = value.to_be_bytes();
    let given = input.len().min(4);
    if input[..given] != expected[..given] {
        return Some(false);
    }
    (given == 4).then_some(true)
}

fn be24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

fn validate(state: &ScannerState) -> Result<(), ChunkError> {
    let check = |good: bool, what: &'static str| if good { Ok(()) } else { Err(ChunkError::State(what)) };
    check(state.position <= u64::MAX / 2, "position")?;
    check((1..=MAX_CHUNK_SIZE).contains(&state.chunk_size), "chunk size")?;
    check(state.streams.len() <= MAX_CHUNK_STREAMS, "number of chunk streams")?;
    for (index, stream) in state.streams.iter().enumerate() {
        check((MIN_CSID..=MAX_CSID).contains(&stream.csid), "chunk stream id")?;
        check(!state.streams[..index].iter().any(|other| other.csid == stream.csid), "chunk stream twice")?;
        check(stream.length <= max_message(stream.type_id), "message length")?;
        let current = state.chunk.filter(|chunk| usize::from(chunk.stream) == index);
        check(current.is_none() || stream.open, "chunk of a complete message")?;
        if stream.open {
            let missing = stream.length.checked_sub(stream.received).ok_or(ChunkError::State("received bytes"))?;
            check(missing > 0 || (stream.length == 0 && current.is_some()), "open message without rest")?;
            let control = matches!(stream.type_id, type_id::SET_CHUNK_SIZE | type_id::ABORT);
            check(!control || stream.length >= 4, "length of a control message")?;
            if let Some(chunk) = current {
                check(chunk.remaining <= missing.min(state.chunk_size), "rest of the chunk")?;
                check(chunk.remaining > 0 || stream.length == 0, "empty chunk")?;
            }
        }
    }
    if let Some((csid, _)) = state.aborted {
        let closed = state.streams.iter().any(|stream| stream.csid == csid && !stream.open);
        check(closed && state.chunk.is_none(), "aborted message")?;
    }
    check(state.chunk.is_none_or(|chunk| usize::from(chunk.stream) < state.streams.len()), "chunk of no chunk stream")?;
    Ok(())
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "chunk_model_tests.rs"]
mod model_tests;
