//! All the state that is needed to resume a stream elsewhere, as data. The activator makes a snapshot when a publisher has been admitted,
//! and the worker makes one at every keyframe; it travels in an assignment, in a checkpoint or on the state page, and comes back through
//! [`Snapshot::decode`], which trusts nothing.
//!
//! A snapshot belongs to a position in the publisher's connection. A successor needs the bytes from that position on: they are in `unread`,
//! or in the ring, or follow by link.
//!
//! Note: at a keyframe of an encoder that interleaves, an audio message may be half received. Its first bytes lie before the snapshot's
//! position, so they are in the snapshot.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::{
    MAX_HEADER_BYTES, MAX_HEADERS, MAX_METADATA_BYTES, MAX_OPEN_BYTES, MAX_OPEN_MESSAGES, MAX_SNAPSHOT_BYTES,
    MAX_UNREAD_BYTES,
};
use super::wire::{self, WireError, within};
use crate::rtmp::media::HeaderSlot;
use crate::rtmp::server::ServerSessionState;

/// The version that [`Snapshot::encode`] writes.
pub const VERSION: u16 = 1;

/// An RTMP session as of one position of the publisher's connection.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// RTMP session with its chunk streams. The session's position is the snapshot's.
    pub session: ServerSessionState,
    /// State learned from media; `None` before the first media message.
    pub stream: Option<StreamState>,
    /// Bytes after the position that were read already; at most [`MAX_UNREAD_BYTES`]. Empty where they are kept elsewhere.
    pub unread: Vec<u8>,
}

/// The state that a stream has learned from its media.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Headers in force, in the order in which to send them: sequence headers of [`MAX_HEADER_BYTES`] together at most, and metadata of
    /// [`MAX_METADATA_BYTES`].
    pub headers: Vec<StoredHeader>,
    /// Timestamps of the last messages before the position.
    pub last_timestamp: LastTimestamps,
    /// True if the message at the position is a keyframe, or there is no video to wait for.
    pub began_with_keyframe: bool,
    /// Bytes received of media messages that are open at the position; together at most [`MAX_OPEN_BYTES`].
    pub open: Vec<OpenMessage>,
}

/// A header that every new upstream session begins with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHeader {
    /// Kind of header.
    pub slot: HeaderSlot,
    /// Type of the message (see [`crate::rtmp::type_id`]).
    pub type_id: u8,
    /// Timestamp of the publisher, in milliseconds.
    pub timestamp: u32,
    /// Whole payload of the message.
    pub payload: Vec<u8>,
}

/// The publisher's timestamps, in milliseconds, of the last frame of each kind, and of the last data message; `None` before the first.
/// Headers do not count: their timestamps say nothing about the clock of the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTimestamps {
    /// Last audio frame.
    pub audio: Option<u32>,
    /// Last video frame.
    pub video: Option<u32>,
    /// Last data message.
    pub data: Option<u32>,
}

/// The beginning of a media message whose rest comes after the snapshot's position.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenMessage {
    /// Chunk stream of the message; the session has its header.
    pub csid: u32,
    /// Bytes of its payload before the position.
    pub received: Vec<u8>,
}

impl Snapshot {
    /// Encodes the snapshot, in the newest version.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(VERSION, self)
    }

    /// Reads a snapshot of any version that was ever written. Its session is still to be checked by
    /// [`ServerSession::restore`](crate::rtmp::server::ServerSession::restore).
    ///
    /// # Errors
    /// An unknown version, unreadable bytes, or parts larger than their limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        within(bytes.len(), MAX_SNAPSHOT_BYTES, "snapshot")?;
        let (version, rest) = wire::version(bytes)?;
        let snapshot: Self = match version {
            1 => wire::decode(rest)?,
            theirs => return Err(WireError::Version { theirs, ours: VERSION }),
        };
        snapshot.check()?;
        Ok(snapshot)
    }

    /// Checks that every part is within its limit, also for a snapshot that has not been encoded yet.
    pub(super) fn check(&self) -> Result<(), WireError> {
        within(self.unread.len(), MAX_UNREAD_BYTES, "unread bytes")?;
        let Some(stream) = &self.stream else { return Ok(()) };
        within(stream.headers.len(), MAX_HEADERS, "headers")?;
        let bytes = |of: fn(&StoredHeader) -> bool| -> usize {
            stream.headers.iter().filter(|header| of(header)).map(|header| header.payload.len()).sum()
        };
        within(bytes(|header| header.slot != HeaderSlot::Metadata), MAX_HEADER_BYTES, "bytes of sequence headers")?;
        // Counted together: an earlier release allowed metadata to take the room that the sequence headers left.
        within(bytes(|_| true), MAX_HEADER_BYTES + MAX_METADATA_BYTES, "bytes of headers")?;
        within(stream.open.len(), MAX_OPEN_MESSAGES, "open messages")?;
        within(stream.open.iter().map(|open| open.received.len()).sum(), MAX_OPEN_BYTES, "bytes of open messages")
    }
}

/// Shows the number of unread bytes only: they may hold the key.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("session", &self.session)
            .field("stream", &self.stream)
            .field("unread", &self.unread.len())
            .finish()
    }
}

impl fmt::Debug for StoredHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}(type {}, {} ms, {} bytes)", self.slot, self.type_id, self.timestamp, self.payload.len())
    }
}

impl fmt::Debug for OpenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenMessage(csid {}, {} bytes)", self.csid, self.received.len())
    }
}
