//! A publisher's session: from the first byte after the handshake to the end of its connection.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::chunk::{ChunkError, Scanned};
use super::ingest::IngestState;
use super::message::MessageError;
use crate::key::{NameError, StreamKey};

/// What a publisher said in `connect`. `Debug` leaves out everything that may hold a query.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectInfo {
    /// As it came; [`crate::key::AppName::parse`] judges it.
    pub app: String,
    /// URL the client thinks it connected to, query included.
    pub tc_url: String,
    /// What the client says it is.
    pub flash_ver: String,
    /// `swfUrl`, for hooks.
    pub swf_url: String,
    /// `pageUrl`, for hooks.
    pub page_url: String,
    /// It asked for Enhanced RTMP.
    pub enhanced: bool,
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectInfo").field("enhanced", &self.enhanced).finish_non_exhaustive()
    }
}

/// What a publisher said in `publish`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// The publishing name with its query, byte for byte.
    pub key: StreamKey,
    /// `live`, `record`, `append`: told, never acted upon.
    pub kind: String,
    /// Message stream of the command; its media comes on it.
    pub message_stream: u32,
    /// Transaction of the command.
    pub transaction: f64,
}

/// How a publish is refused: the two codes that every client measured understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `NetStream.Publish.BadName`.
    BadName,
    /// `NetStream.Publish.Denied`.
    Denied,
}

/// What a clean end of the publish was said with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndedBy {
    /// `FCUnpublish`.
    FcUnpublish,
    /// `deleteStream`.
    DeleteStream,
    /// `closeStream`.
    CloseStream,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `connect` has been answered: see [`ServerSession::connect`].
    Connected,
    /// It wants to publish, see [`ServerSession::publish`], and waits for [`ServerSession::accept_publish`].
    Publish,
    /// Audio, video, data or an aggregate of the published stream.
    Media(Scanned),
    /// The publish has ended cleanly. Once.
    Ended(EndedBy),
    /// Answer to a [`ServerSession::ping`] of these milliseconds.
    Pong(u32),
}

/// The publisher erred; what [`ServerSession::take_output`] still has should be sent, then the connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Its chunks cannot be read.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A command cannot be read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A name that no stream can have; it has been told.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A state that no session can have been in.
    #[error("session state is not valid: {0}")]
    State(&'static str),
}

/// Everything a [`ServerSession`] knows, as data. Comes back through [`ServerSession::restore`], which trusts nothing.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    ingest: IngestState,
}

impl SessionState {
    /// Position of the next byte, counted from the start of the connection.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.ingest.position()
    }
}

impl fmt::Debug for SessionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SessionState").field("position", &self.position()).finish_non_exhaustive()
    }
}

/// Media that was not passed on, because it belongs to no published stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Messages begun.
    pub messages: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// A publisher's session.
#[derive(Clone, Debug)]
pub struct ServerSession {}

impl ServerSession {
    /// A session whose first byte has this position in the connection: [`super::handshake::HANDSHAKE_BYTES`].
    #[must_use]
    pub fn new(_position: u64) -> Self {
        todo!()
    }

    /// Continues from a state, which may come from a page that anybody wrote to: every bound is checked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn restore(_state: &SessionState) -> Result<Self, SessionError> {
        todo!()
    }

    /// The state between any two calls.
    #[must_use]
    pub fn state(&self) -> SessionState {
        todo!()
    }

    /// The state as of the first byte of the chunk that began the last message, but with what we decided since.
    #[must_use]
    pub fn state_before_chunk(&self) -> SessionState {
        todo!()
    }

    /// Position of the next byte to be given.
    #[must_use]
    pub fn position(&self) -> u64 {
        todo!()
    }

    /// Finds the next event in `input`, whose first byte is the one at [`Self::position`]. What it used is gone: the next call wants the
    /// bytes from the new position on. `None`: more bytes are needed than were given (some may have been used all the same).
    ///
    /// # Errors
    /// The connection is of no further use.
    pub fn next(&mut self, _input: &[u8]) -> Result<Option<Event>, SessionError> {
        todo!()
    }

    /// Bytes for the publisher, in order.
    pub fn take_output(&mut self) -> Vec<u8> {
        todo!()
    }

    /// Whether [`Self::take_output`] has something.
    #[must_use]
    pub fn has_output(&self) -> bool {
        todo!()
    }

    /// Queues a PingRequest.
    pub fn ping(&mut self, _milliseconds: u32) {
        todo!()
    }

    /// Tells the publisher to start. Does nothing unless it waits for that.
    pub fn accept_publish(&mut self) {
        todo!()
    }

    /// Tells the publisher that it may not publish (any longer); the connection should be closed then. `description` is shown to people.
    pub fn refuse_publish(&mut self, _refusal: Refusal, _description: &str) {
        todo!()
    }

    /// `Publish.Start` has been queued.
    #[must_use]
    pub fn is_started(&self) -> bool {
        todo!()
    }

    /// The publish has ended, or was refused; there will be no other on this connection.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        todo!()
    }

    /// What it wants to publish, from [`Event::Publish`] on.
    #[must_use]
    pub fn publish(&self) -> Option<&PublishRequest> {
        todo!()
    }

    /// What it said in `connect`, from [`Event::Connected`] on.
    #[must_use]
    pub fn connect(&self) -> Option<&ConnectInfo> {
        todo!()
    }

    /// Media before `publish`, after the end, or of other message streams.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        todo!()
    }
}
