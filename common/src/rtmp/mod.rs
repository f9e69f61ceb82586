//! RTMP without IO. In: bytes of a connection. Out: messages, and the other way round.
//!
//! In the order of the bytes:
//! - [`handshake`]: the bytes before the first chunk, both roles.
//! - [`chunk`]: finds message and chunk boundaries in place, copies nothing ([`ChunkScanner`]).
//! - [`ingest`]: the scanner plus assembly of the small messages that a session must read ([`Ingest`]).
//! - [`message`], [`amf0`]: those small messages as types.
//! - [`server`]: a publisher's session.
//! - [`client`], [`auth`]: a session towards an upstream, and the credentials that it asks for.
//! - [`media`], [`aggregate`]: the information in the first bytes of an audio, video or data message.
//! - [`describe`]: codecs, size and frame rate, for people.
//! - [`flv`]: the bytes around a payload in a file.
//! - [`writer`]: chunk headers for our own messages.
//! - [`limits`]: every bound on what a peer may make this process hold.
//!
//! The notes in each file's header list the clients that stretch RTMP 1.0, which most do.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

pub mod aggregate;
pub mod amf0;
pub mod auth;
pub mod chunk;
pub mod client;
pub mod describe;
pub mod flv;
pub mod handshake;
pub mod ingest;
pub mod limits;
pub mod media;
pub mod message;
pub mod server;
pub mod writer;

pub use chunk::{ChunkError, ChunkScanner, Piece, Run, Scanned, ScannerState};
pub use ingest::{Ingest, IngestState, Ingested};

#[cfg(test)]
#[path = "../../tests/tables/mod.rs"]
mod tables;

/// Message type ids (RTMP 1.0, 5.4 and 7.1).
pub mod type_id {
    /// Protocol control: chunk size of the sender from now on.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Protocol control: the rest of a chunk stream's open message will not come.
    pub const ABORT: u8 = 2;
    /// Protocol control: bytes received so far.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User control events (stream begin, ping, …).
    pub const USER_CONTROL: u8 = 4;
    /// Protocol control: bytes that the sender sends between acknowledgements.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Protocol control: limit on the receiver's output.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data, AMF3: in practice AMF0 behind one zero byte.
    pub const DATA_AMF3: u8 = 15;
    /// Command, AMF3: in practice AMF0 behind one zero byte.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data (`@setDataFrame`, `onMetaData`, …), AMF0.
    pub const DATA_AMF0: u8 = 18;
    /// Command (`connect`, `publish`, …), AMF0.
    pub const COMMAND_AMF0: u8 = 20;
    /// Several audio, video and data messages in one.
    pub const AGGREGATE: u8 = 22;
}

/// True if a message is part of the stream that is relayed, rather than one that the session must read.
#[must_use]
pub const fn is_media(type_id: u8) -> bool {
    matches!(type_id, type_id::AUDIO | type_id::VIDEO | type_id::DATA_AMF3 | type_id::DATA_AMF0 | type_id::AGGREGATE)
}

/// True if a session must read messages of that type: protocol control and commands.
#[must_use]
pub const fn is_heeded(type_id: u8) -> bool {
    matches!(
        type_id,
        type_id::SET_CHUNK_SIZE..=type_id::SET_PEER_BANDWIDTH | type_id::COMMAND_AMF3 | type_id::COMMAND_AMF0
    )
}

/// The header of one message, as its chunk stream gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageHeader {
    /// Chunk stream id, 2..=65599.
    pub csid: u32,
    /// Absolute milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// Bytes of payload, at most 2^24 - 1 on the wire.
    pub length: u32,
    /// Message type; see [`type_id`].
    pub type_id: u8,
    /// Message stream id: 0 for the connection, else what `createStream` returned.
    pub stream_id: u32,
}
