//! The small messages as types. In: payloads of whole messages. Out: [`Control`]s and [`Command`]s, and back. Next: the sessions.
//!
//! Both directions are tolerant of what is seen in the field: AMF3 commands (type 17) are AMF0 behind a zero byte, also without it;
//! arguments may be missing; unknown user control events are kept as they are.
//!
//! Note: `releaseStream` may come as name and number alone (rml_rtmp panics on it); GStreamer uses transaction 0 for commands that want an
//! answer; a command's object is sometimes left out altogether.

use std::fmt;

use super::amf0::{self, Amf0Error, Value};
use super::{MessageHeader, type_id, writer};

/// Chunk stream of protocol control messages (RTMP 1.0, 5.4).
pub const CONTROL_CSID: u32 = 2;

/// A protocol control or user control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Bytes of payload in a chunk, from the next one on (RTMP 1.0, 5.4.1).
    SetChunkSize(u32),
    /// The rest of this chunk stream's open message will not come (5.4.2).
    Abort(u32),
    /// Bytes received so far, wrapping at 2^32 (5.4.3).
    Acknowledgement(u32),
    /// A user control event (7.1.7).
    UserControl(UserControl),
    /// Bytes that may be under way before an acknowledgement is awaited (5.4.4).
    WindowAckSize(u32),
    /// Window to which the receiver should limit its output (5.4.5).
    SetPeerBandwidth {
        /// Window in bytes.
        size: u32,
        /// 0 hard, 1 soft, 2 dynamic.
        limit: u8,
    },
}

/// A user control event (RTMP 1.0, 7.1.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserControl {
    /// The message stream can be used.
    StreamBegin(u32),
    /// The message stream has ended.
    StreamEof(u32),
    /// There is no more data for the moment.
    StreamDry(u32),
    /// The client's buffer.
    SetBufferLength {
        /// Message stream.
        stream_id: u32,
        /// Length of the buffer.
        milliseconds: u32,
    },
    /// The message stream is recorded.
    StreamIsRecorded(u32),
    /// The answer must have the same timestamp.
    PingRequest(u32),
    /// Answer to a ping.
    PingResponse(u32),
    /// Unknown event, or one with too few bytes: its number and the bytes after it.
    Other(u16, Vec<u8>),
}

/// The reason why the peer's message cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Type that is none of these.
    #[error("message type {0} is not one of these")]
    Type(u8),
    /// Fewer bytes than the type needs.
    #[error("message of type {type_id} has only {length} bytes")]
    Short {
        /// Message type.
        type_id: u8,
        /// Length of the payload.
        length: usize,
    },
    /// The payload of a command is not AMF0.
    #[error(transparent)]
    Amf0(#[from] Amf0Error),
    /// A command does not begin with its name.
    #[error("command without a name")]
    Nameless,
}

impl Control {
    /// Reads the payload of a message of the types 1 to 6. Bytes beyond what the type needs are ignored.
    ///
    /// # Errors
    /// Another type, or too few bytes.
    pub fn parse(type_id: u8, payload: &[u8]) -> Result<Self, MessageError> {
        let short = MessageError::Short { type_id, length: payload.len() };
        let first = || u32_at(payload, 0).ok_or(short);
        Ok(match type_id {
            type_id::SET_CHUNK_SIZE => Self::SetChunkSize(first()?),
            type_id::ABORT => Self::Abort(first()?),
            type_id::ACKNOWLEDGEMENT => Self::Acknowledgement(first()?),
            type_id::USER_CONTROL => Self::UserControl(UserControl::parse(payload).ok_or(short)?),
            type_id::WINDOW_ACK_SIZE => Self::WindowAckSize(first()?),
            type_id::SET_PEER_BANDWIDTH => {
                Self::SetPeerBandwidth { size: first()?, limit: *payload.get(4).ok_or(short)? }
            }
            other => return Err(MessageError::Type(other)),
        })
    }

    /// Type of the message.
    #[must_use]
    pub const fn type_id(&self) -> u8 {
        match self {
            Self::SetChunkSize(_) => type_id::SET_CHUNK_SIZE,
            Self::Abort(_) => type_id::ABORT,
            Self::Acknowledgement(_) => type_id::ACKNOWLEDGEMENT,
            Self::UserControl(_) => type_id::USER_CONTROL,
            Self::WindowAckSize(_) => type_id::WINDOW_ACK_SIZE,
            Self::SetPeerBandwidth { .. } => type_id::SET_PEER_BANDWIDTH,
        }
    }

    /// Payload of the message.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        match self {
            Self::SetChunkSize(value)
            | Self::Abort(value)
            | Self::Acknowledgement(value)
            | Self::WindowAckSize(value) => value.to_be_bytes().to_vec(),
            Self::UserControl(event) => event.payload(),
            Self::SetPeerBandwidth { size, limit } => [&size.to_be_bytes()[..], &[*limit]].concat(),
        }
    }

    /// Appends the whole message, on its own chunk stream, with timestamp 0. All but odd user control events fit into the smallest chunk
    /// size in use (128), so that `chunk_size` rarely matters.
    pub fn write(&self, out: &mut Vec<u8>, chunk_size: u32) {
        let header =
            MessageHeader { csid: CONTROL_CSID, timestamp: 0, length: 0, type_id: self.type_id(), stream_id: 0 };
        writer::write_message(out, &header, &self.payload(), chunk_size);
    }
}

impl UserControl {
    /// Parses an event; `None` if there is not even an event number.
    fn parse(payload: &[u8]) -> Option<Self> {
        let (number, rest) = payload.split_first_chunk::<2>()?;
        let number = u16::from_be_bytes(*number);
        let known = || {
            let first = u32_at(rest, 0)?;
            Some(match number {
                0 => Self::StreamBegin(first),
                1 => Self::StreamEof(first),
                2 => Self::StreamDry(first),
                3 => Self::SetBufferLength { stream_id: first, milliseconds: u32_at(rest, 4)? },
                4 => Self::StreamIsRecorded(first),
                6 => Self::PingRequest(first),
                7 => Self::PingResponse(first),
                _ => return None,
            })
        };
        Some(known().unwrap_or_else(|| Self::Other(number, rest.to_vec())))
    }

    fn payload(&self) -> Vec<u8> {
        let event = |number: u16, values: &[u32]| {
            let values = values.iter().flat_map(|value| value.to_be_bytes());
            number.to_be_bytes().into_iter().chain(values).collect()
        };
        match self {
            Self::StreamBegin(stream_id) => event(0, &[*stream_id]),
            Self::StreamEof(stream_id) => event(1, &[*stream_id]),
            Self::StreamDry(stream_id) => event(2, &[*stream_id]),
            Self::SetBufferLength { stream_id, milliseconds } => event(3, &[*stream_id, *milliseconds]),
            Self::StreamIsRecorded(stream_id) => event(4, &[*stream_id]),
            Self::PingRequest(timestamp) => event(6, &[*timestamp]),
            Self::PingResponse(timestamp) => event(7, &[*timestamp]),
            Self::Other(number, rest) => [&number.to_be_bytes()[..], rest].concat(),
        }
    }
}

/// A command or its answer (RTMP 1.0, 7.1.1). `Debug` tells name and transaction only: the arguments hold stream keys.
#[derive(Clone, PartialEq)]
pub struct Command {
    /// `connect`, `publish`, `_result`, `onStatus`, …
    pub name: String,
    /// Number of the command that an answer refers to; 0 where no answer is wanted, or where the sender left it out.
    pub transaction: f64,
    /// The command object; [`Value::Null`] where there is none.
    pub object: Value,
    /// Arguments after the command object.
    pub arguments: Vec<Value>,
}

impl Command {
    /// Reads the payload of a command, type 20 or 17.
    ///
    /// # Errors
    /// Another type, no name, or not AMF0. Missing parts are no error.
    pub fn parse(type_id: u8, payload: &[u8]) -> Result<Self, MessageError> {
        let payload = match type_id {
            type_id::COMMAND_AMF0 => payload,
            // The zero is the format selector; a command cannot begin with a number, which a zero would mean in AMF0.
            type_id::COMMAND_AMF3 => payload.strip_prefix(&[0]).unwrap_or(payload),
            other => return Err(MessageError::Type(other)),
        };
        let mut values = amf0::read_all(payload)?.into_iter();
        let name = match values.next() {
            Some(Value::String(name) | Value::LongString(name)) => name,
            _ => return Err(MessageError::Nameless),
        };
        let transaction = values.next().and_then(|value| value.as_f64()).unwrap_or(0.0);
        let object = values.next().unwrap_or(Value::Null);
        Ok(Self { name, transaction, object, arguments: values.collect() })
    }

    /// The argument of that index, if it is there.
    #[must_use]
    pub fn argument(&self, index: usize) -> Option<&Value> {
        self.arguments.get(index)
    }

    /// The payload, for type 20.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        amf0::write(&mut payload, &Value::String(self.name.clone()));
        amf0::write(&mut payload, &Value::Number(self.transaction));
        amf0::write(&mut payload, &self.object);
        self.arguments.iter().for_each(|value| amf0::write(&mut payload, value));
        payload
    }

    /// Appends the whole message (type 20, timestamp 0) in chunks.
    pub fn write(&self, out: &mut Vec<u8>, csid: u32, stream_id: u32, chunk_size: u32) {
        let header = MessageHeader { csid, timestamp: 0, length: 0, type_id: type_id::COMMAND_AMF0, stream_id };
        writer::write_message(out, &header, &self.encode(), chunk_size);
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Command")
            .field("name", &self.name)
            .field("transaction", &self.transaction)
            .finish_non_exhaustive()
    }
}

fn u32_at(bytes: &[u8], from: usize) -> Option<u32> {
    bytes.get(from..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
