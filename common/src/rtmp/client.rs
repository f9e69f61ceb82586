//! An RTMP session towards an upstream, without IO: from the first byte of the handshake to the end.
//!
//! In: the upstream's bytes. Out: bytes for it, and [`ClientEvent`]s. Next room: the worker's `upstream`, which owns socket and clock.

use super::auth;
use crate::url::PushUrl;

/// What kind of no an upstream said: it decides when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The name is taken (`NetStream.Publish.BadName`): mostly our own stale session, so ask again soon.
    BadName,
    /// Denied, unauthorized, wrong credentials, unknown app: somebody has to change something, so ask again slowly and say it loudly.
    Denied,
    /// It ended, restarts, or fails for another reason of its own.
    Gone,
    /// It does not speak RTMP as we understand it.
    Protocol,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// C0, C1 are sent; S0, S1, S2 are awaited.
    Handshake,
    /// `connect` is sent.
    Connect,
    /// `releaseStream`, `FCPublish`, `createStream` are sent.
    CreateStream,
    /// `publish` is sent.
    Publish,
    /// `NetStream.Publish.Start` has come: media may be sent.
    Live,
    /// Refused, or ended by either side.
    Ended,
}

/// What the owner must know.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// Media may be sent from now on, on [`ClientSession::message_stream`].
    Started,
    /// The upstream said no; the text is for the log and holds no secret.
    Refused(Class, String),
    /// It wants credentials on a new connection.
    AuthAsked(auth::Challenge),
    /// It ended the publishing; the text is for the log.
    Ended(String),
    /// Bytes it says it has received, wrapping at 2^32.
    Acknowledged(u32),
}

/// The upstream broke the protocol; the connection is of no further use.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// After the handshake.
    #[error(transparent)]
    Chunk(#[from] super::ChunkError),
}

/// See the file's header. Bytes of the upstream come in by [`Self::handle`]; drain [`Self::poll_event`] and [`Self::take_output`] after it.
pub struct ClientSession {
    stage: Stage,
}

impl ClientSession {
    /// A session that publishes to `url`. `auth`: the answer to what the connection before was asked.
    #[must_use]
    pub fn new(url: &PushUrl, auth: Option<auth::Answer>) -> Self {
        let _ = (url, auth);
        Self { stage: Stage::Handshake }
    }

    /// Queues C0 and C1.
    pub fn start(&mut self) {
        todo!()
    }

    /// Takes bytes of the upstream, all of them.
    ///
    /// # Errors
    /// The upstream broke the protocol.
    pub fn handle(&mut self, input: &[u8]) -> Result<(), ClientError> {
        let _ = input;
        todo!()
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        todo!()
    }

    /// Bytes for the upstream; empty when there are none.
    pub fn take_output(&mut self) -> Vec<u8> {
        todo!()
    }

    /// Whether [`Self::take_output`] would give anything.
    #[must_use]
    pub fn has_output(&self) -> bool {
        todo!()
    }

    /// How far it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The message stream id that `createStream` returned; 0 before.
    #[must_use]
    pub fn message_stream(&self) -> u32 {
        todo!()
    }

    /// Bytes of payload in each chunk that we send, as announced by Set Chunk Size before `connect`.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        todo!()
    }

    /// Queues `FCUnpublish` and `deleteStream`, if publishing had begun.
    pub fn end(&mut self) {
        todo!()
    }
}
