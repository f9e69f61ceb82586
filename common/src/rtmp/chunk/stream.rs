//! A chunk stream, twice: as data for a snapshot, and packed for the scanner, which finds everything that a message changes in one cache line.
//! In: the bytes of message headers. Out: a chunk stream with the message that they begin.

use serde::{Deserialize, Serialize};

use super::super::limits::{EXTENDED_TIMESTAMP, MAX_CSID};
use super::super::{MessageHeader, type_id};

/// A chunk stream: the last message header, and the progress of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChunkStream {
    pub(super) csid: u32,
    /// Absolute timestamp of the last message begun.
    pub(super) timestamp: u32,
    /// Delta that a fmt3 adds when it begins a message.
    pub(super) delta: u32,
    /// Extended field of the last header, which fmt3 repeats.
    pub(super) extended: Option<u32>,
    pub(super) length: u32,
    pub(super) type_id: u8,
    pub(super) stream_id: u32,
    /// True if the last message begun is not complete.
    pub(super) open: bool,
    /// Payload bytes of the open message so far.
    pub(super) received: u32,
    /// First four payload bytes of a Set Chunk Size or Abort.
    pub(super) control: [u8; 4],
}

impl ChunkStream {
    pub(super) const fn header(&self) -> MessageHeader {
        MessageHeader {
            csid: self.csid,
            timestamp: self.timestamp,
            length: self.length,
            type_id: self.type_id,
            stream_id: self.stream_id,
        }
    }
}

const CSID: u32 = 0x01_FFFF;
const OPEN: u32 = 1 << 31;
const EXTENDED: u32 = 1 << 30;
const _: () = assert!(MAX_CSID <= CSID);

/// A [`ChunkStream`] in 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedStream {
    /// Chunk stream id; in the highest bits [`ChunkStream::open`], and whether there is an extended field.
    id: u32,
    timestamp: u32,
    delta: u32,
    extended: u32,
    /// Length and type as on the wire: 24 bits, 8 bits.
    length_and_type: u32,
    pub(super) stream_id: u32,
    pub(super) received: u32,
    pub(super) control: [u8; 4],
}

const _: () = assert!(size_of::<PackedStream>() == 32);

impl PackedStream {
    /// The place of a chunk stream that did not exist yet.
    pub(super) const NONE: Self = Self::new(0);

    pub(super) const fn new(csid: u32) -> Self {
        Self {
            id: csid,
            timestamp: 0,
            delta: 0,
            extended: 0,
            length_and_type: 0,
            stream_id: 0,
            received: 0,
            control: [0; 4],
        }
    }

    /// Packs a valid state: the length has 24 bits.
    pub(super) fn pack(stream: &ChunkStream) -> Self {
        let open = if stream.open { OPEN } else { 0 };
        let extended = if stream.extended.is_some() { EXTENDED } else { 0 };
        Self {
            id: stream.csid | open | extended,
            timestamp: stream.timestamp,
            delta: stream.delta,
            extended: stream.extended.unwrap_or(0),
            length_and_type: stream.length << 8 | u32::from(stream.type_id),
            stream_id: stream.stream_id,
            received: stream.received,
            control: stream.control,
        }
    }

    /// The chunk stream as data; `None` for [`Self::NONE`].
    pub(super) fn unpack(&self) -> Option<ChunkStream> {
        (self.csid() != 0).then(|| ChunkStream {
            csid: self.csid(),
            timestamp: self.timestamp,
            delta: self.delta,
            extended: self.extended(),
            length: self.length(),
            type_id: self.type_id(),
            stream_id: self.stream_id,
            open: self.is_open(),
            received: self.received,
            control: self.control,
        })
    }

    pub(super) const fn csid(&self) -> u32 {
        self.id & CSID
    }

    pub(super) const fn length(&self) -> u32 {
        self.length_and_type >> 8
    }

    pub(super) const fn type_id(&self) -> u8 {
        self.length_and_type as u8
    }

    pub(super) fn extended(&self) -> Option<u32> {
        (self.id & EXTENDED != 0).then_some(self.extended)
    }

    pub(super) const fn is_open(&self) -> bool {
        self.id & OPEN != 0
    }

    pub(super) const fn close(&mut self) {
        self.id &= !OPEN;
    }

    /// Payload bytes of the open message that have not come.
    pub(super) const fn missing(&self) -> u32 {
        self.length() - self.received
    }

    /// True for the messages whose first payload bytes are kept in `control`.
    pub(super) const fn is_control(&self) -> bool {
        matches!(self.type_id(), type_id::SET_CHUNK_SIZE | type_id::ABORT)
    }

    pub(super) const fn header(&self) -> MessageHeader {
        MessageHeader {
            csid: self.csid(),
            timestamp: self.timestamp,
            length: self.length(),
            type_id: self.type_id(),
            stream_id: self.stream_id,
        }
    }

    /// Begins the message whose header, behind the basic header, is in `input`. Returns the header's length, or `None` when it is not there
    /// whole (RTMP 1.0, 5.3.1.2): then this is half read, and to be thrown away. There must be no open message.
    #[inline]
    pub(super) fn begin(&mut self, format: u8, input: &[u8]) -> Option<usize> {
        let mut used;
        if format == 3 {
            let repeated = match self.extended() {
                Some(value) => repeats(value, input)?,
                None => false,
            };
            self.timestamp = self.timestamp.wrapping_add(self.delta);
            used = if repeated { 4 } else { 0 };
        } else {
            let field;
            match format {
                0 => {
                    let fields = input.first_chunk::<11>()?;
                    field = be24(fields);
                    self.length_and_type = u32::from_be_bytes([fields[3], fields[4], fields[5], fields[6]]);
                    self.stream_id = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
                    used = 11;
                }
                1 => {
                    let fields = input.first_chunk::<7>()?;
                    field = be24(fields);
                    self.length_and_type = u32::from_be_bytes([fields[3], fields[4], fields[5], fields[6]]);
                    used = 7;
                }
                _ => {
                    field = be24(input.first_chunk::<3>()?);
                    used = 3;
                }
            }
            (self.id, self.extended, self.delta) = (self.id & !EXTENDED, 0, field);
            if field == EXTENDED_TIMESTAMP {
                self.delta = u32::from_be_bytes(*input[used..].first_chunk()?);
                (self.id, self.extended) = (self.id | EXTENDED, self.delta);
                used += 4;
            }
            self.timestamp = if format == 0 { self.delta } else { self.timestamp.wrapping_add(self.delta) };
        }
        self.id |= OPEN;
        self.received = 0;
        self.control = [0; 4];
        Some(used)
    }
}

/// A chunk stream in one cache line: as it is, and as it was when the last message of any chunk stream began, if it has changed since.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct StreamLine {
    pub(super) now: PackedStream,
    pub(super) before: PackedStream,
}

/// True if the bytes after a fmt3 basic header repeat the extended timestamp. `None`: the bytes given do not tell.
pub(super) fn repeats(value: u32, input: &[u8]) -> Option<bool> {
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
