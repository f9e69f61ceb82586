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
//! The scanner gives single events ([`ChunkScanner::scan`]) or, of media in the usual form, all events of a message that have come at once
//! ([`Run`]). What such a message needs of the scanner lies in one or two cache lines, its chunk stream in another one.
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

pub use self::run::{Piece, Run};
use self::stream::{ChunkStream, PackedStream, StreamLine, repeats};
use super::limits::{DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, MAX_CHUNK_STREAMS, MAX_CSID, MIN_CSID, max_message};
use super::{MessageHeader, type_id};

mod run;
mod stream;

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
///
/// The fields that a message of a known chunk stream needs come first and take one cache line, the chunk stream takes another one.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct ChunkScanner {
    streams: Vec<StreamLine>,
    position: u64,
    /// Chunk streams that have changed since the last message began, one bit each: `before` of these is valid.
    touched: u64,
    /// Position of the first byte of the chunk that began the last message.
    before_position: u64,
    /// Ids below 64 of the first eight chunk streams, each in the byte of its index, so that the search touches no other chunk stream.
    ids: u64,
    chunk_size: u32,
    /// Payload bytes still to come of the current chunk; 0 only for an empty message whose `Payload` has not been returned.
    remaining: u32,
    /// Index of the chunk stream of the current or last chunk.
    last: u8,
    in_chunk: bool,
    /// True if any of the fields below says more than that nothing has happened.
    eventful: bool,
    /// Chunk stream and missing bytes of an `Aborted` that the next scan will return.
    aborted: Option<(u32, u32)>,
    /// The rest of the state before the last message began. Once one has begun, there was neither a chunk nor an `Aborted`.
    before_chunk_size: u32,
    before_chunk: Option<Chunk>,
    before_aborted: Option<(u32, u32)>,
}

impl ChunkScanner {
    /// A scanner whose first byte has this position in the connection.
    #[must_use]
    pub fn new(position: u64) -> Self {
        Self {
            streams: Vec::new(),
            position,
            touched: 0,
            before_position: position,
            chunk_size: DEFAULT_CHUNK_SIZE,
            remaining: 0,
            last: 0,
            in_chunk: false,
            ids: 0,
            eventful: false,
            aborted: None,
            before_chunk_size: DEFAULT_CHUNK_SIZE,
            before_chunk: None,
            before_aborted: None,
        }
    }

    /// Continues from a state, which may come from a page that any process wrote to: every bound is checked.
    ///
    /// # Errors
    /// [`ChunkError::State`], with the reason why the state is not valid.
    pub fn restore(state: &ScannerState) -> Result<Self, ChunkError> {
        validate(state)?;
        let line = |stream| StreamLine { now: PackedStream::pack(stream), before: PackedStream::NONE };
        let ids = state.streams.iter().enumerate().fold(0, |ids, (index, stream)| ids | id_byte(index, stream.csid));
        Ok(Self {
            streams: state.streams.iter().map(line).collect(),
            position: state.position,
            touched: 0,
            before_position: state.position,
            chunk_size: state.chunk_size,
            remaining: state.chunk.map_or(0, |chunk| chunk.remaining),
            last: state.chunk.map_or(0, |chunk| chunk.stream),
            in_chunk: state.chunk.is_some(),
            ids,
            eventful: state.chunk.is_some() || state.aborted.is_some(),
            aborted: state.aborted,
            before_chunk_size: state.chunk_size,
            before_chunk: state.chunk,
            before_aborted: state.aborted,
        })
    }

    /// The chunk streams that a publisher uses, apart from those of one that uses very many.
    pub(super) fn chunk_streams(&self) -> &[impl Sized + use<>] {
        &self.streams[..self.streams.len().min(4)]
    }

    /// Position of the next byte to scan.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The peer's current chunk size.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// The state between any two scans.
    #[must_use]
    pub fn state(&self) -> ScannerState {
        ScannerState {
            position: self.position,
            chunk_size: self.chunk_size,
            streams: self.streams.iter().filter_map(|line| line.now.unpack()).collect(),
            chunk: self.in_chunk.then_some(Chunk { stream: self.last, remaining: self.remaining }),
            aborted: self.aborted,
        }
    }

    /// The state as of the first byte of the chunk whose `Begin` was last returned; before any `Begin`, as of the start.
    #[must_use]
    pub fn state_before_chunk(&self) -> ScannerState {
        ScannerState {
            position: self.before_position,
            chunk_size: self.before_chunk_size,
            streams: self.streams_before().filter_map(PackedStream::unpack).collect(),
            chunk: self.before_chunk,
            aborted: self.before_aborted,
        }
    }

    /// Headers of the messages that are incomplete in [`Self::state_before_chunk`], with the number of bytes received of each.
    pub(super) fn open_before(&self) -> impl Iterator<Item = (MessageHeader, u32)> + '_ {
        self.streams_before().filter(|stream| stream.is_open()).map(|stream| (stream.header(), stream.received))
    }

    fn streams_before(&self) -> impl Iterator<Item = &PackedStream> {
        let touched = |index: usize| self.touched & 1 << index != 0;
        self.streams.iter().enumerate().map(move |(index, line)| if touched(index) { &line.before } else { &line.now })
    }

    /// Chunk stream of an `Aborted` that the next scan will return; taking it is up to the caller.
    pub(super) fn aborted(&mut self) -> &mut Option<(u32, u32)> {
        &mut self.aborted
    }

    /// Messages begun and not complete.
    #[must_use]
    pub fn open_messages(&self) -> usize {
        self.streams.iter().filter(|line| line.now.is_open()).count()
    }

    /// Header of the last message begun on a chunk stream.
    #[must_use]
    pub fn header(&self, csid: u32) -> Option<MessageHeader> {
        self.progress(csid).map(|(header, _)| header)
    }

    /// Header of the last message begun on a chunk stream, and the number of bytes received of it.
    pub(super) fn progress(&self, csid: u32) -> Option<(MessageHeader, u32)> {
        self.find(csid).map(|index| &self.streams[index].now).map(|stream| (stream.header(), stream.received))
    }

    /// Finds the next event in `input`, whose first byte is the one at [`Self::position`]. Used bytes are gone: the next call wants the
    /// bytes from the new position on. `None`: more bytes are needed than were given (some may have been used all the same).
    ///
    /// # Errors
    /// The peer broke the protocol or a limit; the scanner stays at its position and returns the same error again.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<Scanned>, ChunkError> {
        if let Some((csid, missing)) = self.aborted.take() {
            return Ok(Some(Scanned::Aborted { csid, missing }));
        }
        let mut input = input;
        if !self.in_chunk {
            let before = self.position;
            if let Some(found) = self.scan_header(input)? {
                return Ok(Some(found));
            }
            if !self.in_chunk {
                return Ok(None);
            }
            // At most 18 bytes, all of them in `input`.
            input = &input[(self.position - before) as usize..];
        }
        self.scan_payload(input)
    }

    /// Reads one chunk header, if it is there whole. Returns `Begin` or `Aborted`; a continuation only opens the chunk.
    fn scan_header(&mut self, input: &[u8]) -> Result<Option<Scanned>, ChunkError> {
        let Some((format, csid, basic)) = basic_header(input) else { return Ok(None) };
        let known = self.find(csid);
        if let Some(index) = known
            && self.streams[index].now.is_open()
        {
            if format == 3 {
                self.continue_message(index, basic, &input[basic..]);
                return Ok(None);
            }
            let stream = self.touch(index);
            stream.close();
            return Ok(Some(Scanned::Aborted { csid, missing: stream.missing() }));
        }
        let mut stream = match known {
            Some(index) => self.streams[index].now,
            None if format == 3 => return Err(ChunkError::NeverBegan { csid }),
            None if self.streams.len() >= MAX_CHUNK_STREAMS => return Err(ChunkError::TooManyChunkStreams),
            None => PackedStream::new(csid),
        };
        let Some(used) = stream.begin(format, &input[basic..]) else { return Ok(None) };
        let (type_id, length, limit) = (stream.type_id(), stream.length(), max_message(stream.type_id()));
        if length > limit {
            return Err(ChunkError::MessageTooLong { type_id, length, limit });
        }
        if stream.is_control() && length < 4 {
            return Err(ChunkError::ShortControl { type_id, length });
        }
        let at = self.position;
        self.begin(known, stream, basic + used);
        Ok(Some(Scanned::Begin { header: stream.header(), at }))
    }

    /// Index of a chunk stream.
    #[inline]
    fn find(&self, csid: u32) -> Option<usize> {
        const ONES: u64 = 0x0101_0101_0101_0101;
        if (MIN_CSID..64).contains(&csid) {
            // The lowest byte that is zero is the first one that has the id.
            let differ = self.ids ^ (u64::from(csid) * ONES);
            let zeros = differ.wrapping_sub(ONES) & !differ & (ONES << 7);
            if zeros != 0 {
                return Some(zeros.trailing_zeros() as usize / 8);
            }
        }
        self.find_slowly(csid)
    }

    #[cold]
    fn find_slowly(&self, csid: u32) -> Option<usize> {
        let last = usize::from(self.last);
        if self.streams.get(last).is_some_and(|line| line.now.csid() == csid) {
            return Some(last);
        }
        self.streams.iter().position(|line| line.now.csid() == csid)
    }

    /// A chunk stream that is about to change: it is kept as it was for [`Self::state_before_chunk`].
    fn touch(&mut self, index: usize) -> &mut PackedStream {
        let line = &mut self.streams[index];
        if self.touched & 1 << index == 0 {
            self.touched |= 1 << index;
            line.before = line.now;
        }
        &mut line.now
    }

    /// Begins a message: this is the state that [`Self::state_before_chunk`] gives from now on. Only chunk streams that change afterwards are
    /// copied: with 64 of them, and empty messages of one byte each, the whole state would be 4 KiB per byte received.
    fn begin(&mut self, known: Option<usize>, stream: PackedStream, header_bytes: usize) {
        if self.eventful {
            self.before_chunk_size = self.chunk_size;
            (self.before_chunk, self.before_aborted, self.eventful) = (None, None, false);
        }
        self.before_position = self.position;
        let index = known.unwrap_or(self.streams.len());
        match self.streams.get_mut(index) {
            Some(line) => (line.before, line.now) = (line.now, stream),
            None => {
                self.ids |= id_byte(index, stream.csid());
                self.streams.push(StreamLine { now: stream, before: PackedStream::NONE });
            }
        }
        self.touched = 1 << index;
        self.last = index as u8;
        self.in_chunk = true;
        self.remaining = self.chunk_size.min(stream.length());
        self.position += header_bytes as u64;
    }

    /// Opens the next chunk of a message at a fmt3 header, which can only hold a repeated extended timestamp.
    fn continue_message(&mut self, index: usize, basic: usize, input: &[u8]) {
        let stream = &self.streams[index].now;
        let extended = match stream.extended().map(|value| repeats(value, input)) {
            Some(None) => return,
            Some(Some(true)) => 4,
            Some(Some(false)) | None => 0,
        };
        self.remaining = self.chunk_size.min(stream.missing());
        self.in_chunk = true;
        self.position += (basic + extended) as u64;
        self.last = index as u8;
    }

    /// The payload of the current chunk, as far as it is there.
    fn scan_payload(&mut self, input: &[u8]) -> Result<Option<Scanned>, ChunkError> {
        let len = self.remaining.min(u32::try_from(input.len()).unwrap_or(u32::MAX));
        if len == 0 && self.remaining > 0 {
            return Ok(None);
        }
        let stream = self.touch(usize::from(self.last));
        let last = stream.received + len == stream.length();
        let control = stream.is_control();
        if control {
            for (slot, byte) in stream.control.iter_mut().skip(stream.received as usize).zip(&input[..len as usize]) {
                *slot = *byte;
            }
            let size = u32::from_be_bytes(stream.control);
            if last && stream.type_id() == type_id::SET_CHUNK_SIZE && !(1..=0x7FFF_FFFF).contains(&size) {
                return Err(ChunkError::ChunkSize { size });
            }
        }
        stream.received += len;
        if last {
            stream.close();
        }
        let done = *stream;
        self.remaining -= len;
        self.in_chunk = self.remaining > 0;
        let at = self.position;
        self.position += u64::from(len);
        if control && last {
            self.apply(&done);
        }
        Ok(Some(Scanned::Payload { csid: done.csid(), at, len, last }))
    }

    /// Applies a complete Set Chunk Size or Abort to the scanner. The message itself is closed by now, in case an Abort names its own chunk
    /// stream.
    fn apply(&mut self, message: &PackedStream) {
        let value = u32::from_be_bytes(message.control);
        if message.type_id() == type_id::SET_CHUNK_SIZE {
            self.chunk_size = value.min(MAX_CHUNK_SIZE);
            self.eventful = true;
        } else if let Some(index) = self.find(value).filter(|index| self.streams[*index].now.is_open()) {
            let stream = self.touch(index);
            stream.close();
            self.aborted = Some((value, stream.missing()));
            self.eventful = true;
        }
    }
}

/// [`ChunkScanner::touched`] has a bit for each.
const _: () = assert!(MAX_CHUNK_STREAMS <= 64);

/// The byte of a chunk stream in [`ChunkScanner::ids`]; 0 if it has none.
const fn id_byte(index: usize, csid: u32) -> u64 {
    if csid < 64 && index < 8 { (csid as u64) << (8 * index) } else { 0 }
}

/// Format, chunk stream id and length of a basic header (RTMP 1.0, 5.3.1.1).
#[inline]
fn basic_header(input: &[u8]) -> Option<(u8, u32, usize)> {
    let first = *input.first()?;
    let format = first >> 6;
    match first & 0x3F {
        0 => Some((format, 64 + u32::from(*input.get(1)?), 2)),
        1 => Some((format, 64 + u32::from(*input.get(1)?) + 256 * u32::from(*input.get(2)?), 3)),
        csid => Some((format, u32::from(csid), 1)),
    }
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
