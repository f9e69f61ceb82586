//! Everything that is needed to go on with a stream elsewhere, as data. Made by the activator when a publisher has been admitted and by a
//! worker at every keyframe; goes into an assignment, a checkpoint or the state page; comes back through [`Snapshot::decode`], which
//! trusts nothing.
//!
//! A snapshot is of a position in the publisher's connection. Whoever continues needs the bytes from there on: they are in `unread`,
//! or in the ring, or follow by link.
//!
//! What surprised us: at a keyframe of an encoder that interleaves, an audio message may be half there. Its first bytes lie before the
//! snapshot's position, so they are in the snapshot.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::{
    MAX_HEADER_BYTES, MAX_HEADERS, MAX_METADATA_BYTES, MAX_OPEN_BYTES, MAX_OPEN_MESSAGES, MAX_SNAPSHOT_BYTES,
    MAX_UNREAD_BYTES,
};
use super::wire::{self, WireError, within};
use crate::rtmp::media::HeaderSlot;
use crate::rtmp::server::SessionState;

/// The version that [`Snapshot::encode`] writes.
pub const VERSION: u16 = 1;

/// An RTMP session as of one position of the publisher's connection.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The session, chunk streams and all. Its position is the snapshot's.
    pub session: SessionState,
    /// What was learned from media; `None` before the first media message.
    pub stream: Option<StreamState>,
    /// Bytes from the position on that were read already; at most [`MAX_UNREAD_BYTES`]. Empty where they are kept elsewhere.
    pub unread: Vec<u8>,
}

/// What a stream has learned from its media.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// The headers in force, in the order to send them in: sequence headers of [`MAX_HEADER_BYTES`] together at most, and metadata of
    /// [`MAX_METADATA_BYTES`].
    pub headers: Vec<StoredHeader>,
    /// Timestamps of the last messages before the position.
    pub last_timestamp: LastTimestamps,
    /// The message at the position is a keyframe, or there is no video to wait for.
    pub began_with_keyframe: bool,
    /// What has come of media messages that are open at the position; together at most [`MAX_OPEN_BYTES`].
    pub open: Vec<OpenMessage>,
}

/// A header that every new upstream session begins with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHeader {
    /// The kind of header.
    pub slot: HeaderSlot,
    /// Type of the message (see [`crate::rtmp::type_id`]).
    pub type_id: u8,
    /// The publisher's, in milliseconds.
    pub timestamp: u32,
    /// The whole payload.
    pub payload: Vec<u8>,
}

/// The publisher's timestamps, in milliseconds, of the last frame of each kind, and of the last data; `None` before there was one. Headers do
/// not count: theirs say nothing of the frames' clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTimestamps {
    /// Of audio.
    pub audio: Option<u32>,
    /// Of video.
    pub video: Option<u32>,
    /// Of data.
    pub data: Option<u32>,
}

/// The beginning of a media message whose rest comes after the snapshot's position.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenMessage {
    /// Its chunk stream: the session has its header.
    pub csid: u32,
    /// All of its payload before the position.
    pub received: Vec<u8>,
}

impl Snapshot {
    /// Its bytes, in the newest version.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(VERSION, self)
    }

    /// Reads any version there has been. The session in it is still to be judged by
    /// [`ServerSession::restore`](crate::rtmp::server::ServerSession::restore).
    ///
    /// # Errors
    /// Another version, not readable, or more than the limits allow.
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

    /// Whether every part is within its limit: also those of a snapshot that has not been encoded yet.
    pub(super) fn check(&self) -> Result<(), WireError> {
        within(self.unread.len(), MAX_UNREAD_BYTES, "unread bytes")?;
        let Some(stream) = &self.stream else { return Ok(()) };
        within(stream.headers.len(), MAX_HEADERS, "headers")?;
        let bytes = |of: fn(&StoredHeader) -> bool| -> usize {
            stream.headers.iter().filter(|header| of(header)).map(|header| header.payload.len()).sum()
        };
        within(bytes(|header| header.slot != HeaderSlot::Metadata), MAX_HEADER_BYTES, "bytes of sequence headers")?;
        // Together: an earlier release allowed metadata to take what the sequence headers left.
        within(bytes(|_| true), MAX_HEADER_BYTES + MAX_METADATA_BYTES, "bytes of headers")?;
        within(stream.open.len(), MAX_OPEN_MESSAGES, "open messages")?;
        within(stream.open.iter().map(|open| open.received.len()).sum(), MAX_OPEN_BYTES, "bytes of open messages")
    }
}

/// Unread bytes may hold the key: only their number is shown.
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
