//! Frames of a handoff connection, after its preface. Bytes come in through [`Reader`], whole frames go out to the publisher's task (in
//! the activator) or the stream's (in the worker); [`Writer`] is the other way.
//!
//! ```text
//!  type u8 | length u32, big endian | payload
//! ```
//!
//! Frames that hold secrets (assignment, checkpoint) are sealed: AES-256-GCM with a key per direction, a counter as nonce, the type as
//! additional data. Media is not: it is what the publisher sends over the network anyway.
//!
//! What surprised us: a checkpoint holds the stream key too, in the session's `publish`.

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::snapshot::Snapshot;
use super::wire::WireError;

/// What one side says.
#[derive(Clone, PartialEq)]
pub enum Frame {
    // From the activator.
    /// Take this stream. The first frame, and the only one of its kind; by descriptor, the publisher's socket and the ring's memory
    /// come with its first byte.
    Assign(Box<Assignment>),
    /// Bytes of the publisher (by link).
    Data(Bytes),
    /// There will be no more bytes of the publisher (by link).
    End(PublisherEnd),
    /// End the stream, for this reason.
    Kick(String),
    // From both.
    /// Nothing new.
    Alive,
    // From the worker.
    /// The stream is mine.
    Accepted,
    /// The stream is not mine (any more): give it to somebody.
    Returned {
        /// Why.
        why: Decline,
    },
    /// Somebody publishes this already: the publisher is to be refused.
    Duplicate,
    /// The publisher has been told `Publish.Start`.
    Started,
    /// Bytes for the publisher (by link).
    Reply(Bytes),
    /// All bytes of the publisher before the snapshot's position are mine (by link).
    Checkpoint(Box<Snapshot>),
    /// The stream has ended. The publisher's connection is to be ended like this (by link; by descriptor the worker did it).
    Done {
        /// How.
        how: Close,
        /// For logs.
        reason: String,
    },
}

/// How a publisher's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PublisherEnd {
    /// It closed its side.
    Fin,
    /// The connection broke.
    Reset,
    /// It was silent for too long.
    Silent,
}

/// How to end a publisher's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Close {
    /// Everything written arrives.
    Graceful,
    /// At once.
    Abort,
}

/// Why a worker does not have a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Decline {
    /// It serves as many as it can.
    Full,
    /// It takes no more, because it is going down.
    Draining,
    /// Something is wrong on its side.
    Other,
    /// It had the stream and is going down: its state is current, another one can go on.
    Moving,
}

/// The other side erred, or is not who it proved to be; the connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type that this side does not take.
    #[error("frame of type {0} is not expected")]
    Type(u8),
    /// Longer than its type may be, or (when written) than anything may be.
    #[error("frame of type {type_id} would be {length} bytes long, at most {limit} are taken")]
    TooLong {
        /// Its type.
        type_id: u8,
        /// The length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The payload is not what its type says.
    #[error("frame of type {0} cannot be read")]
    Malformed(u8),
    /// A sealed frame was made with another key, changed, repeated or left out.
    #[error("frame of type {0} is not sealed with this session's key")]
    Seal(u8),
    /// An assignment or snapshot in it.
    #[error("frame holds something wrong: {0}")]
    Content(#[from] WireError),
}

/// Reads frames. Fill [`Self::buffer`], then take [`Self::next`] until it is `None`.
#[derive(Debug)]
pub struct Reader {
    buffer: BytesMut,
}

impl Reader {
    /// Where the next bytes of the connection go, appended: `socket.read_buf(reader.buffer())`.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame. Its `Data` and `Reply` share the buffer's memory. `None`: more bytes are needed.
    ///
    /// # Errors
    /// The connection is of no further use; the error is said again.
    #[expect(clippy::should_implement_trait, reason = "it is fed between calls, so it is no iterator")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        todo!()
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct Writer {
    _private: (),
}

impl Writer {
    /// Appends a frame to `out`. Longer `Data` and `Reply` become several; text is cut to its limit.
    ///
    /// # Errors
    /// An assignment or snapshot is larger than its limit; nothing was appended.
    pub fn write(&mut self, out: &mut Vec<u8>, frame: &Frame) -> Result<(), FrameError> {
        let _ = (out, frame);
        todo!()
    }
}

/// What precedes the bytes of a `Data` frame, so that they can be written from where they lie.
///
/// # Panics
/// `length` is more than [`MAX_DATA_BYTES`](super::limits::MAX_DATA_BYTES).
#[must_use]
pub fn data_header(length: usize) -> [u8; 5] {
    let _ = length;
    todo!()
}

/// Bytes of a publisher are counted, not shown.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assign(assignment) => f.debug_tuple("Assign").field(assignment).finish(),
            Self::Data(bytes) => write!(f, "Data({} bytes)", bytes.len()),
            Self::End(end) => f.debug_tuple("End").field(end).finish(),
            Self::Kick(reason) => f.debug_tuple("Kick").field(reason).finish(),
            Self::Alive => f.write_str("Alive"),
            Self::Accepted => f.write_str("Accepted"),
            Self::Returned { why } => f.debug_struct("Returned").field("why", why).finish(),
            Self::Duplicate => f.write_str("Duplicate"),
            Self::Started => f.write_str("Started"),
            Self::Reply(bytes) => write!(f, "Reply({} bytes)", bytes.len()),
            Self::Checkpoint(snapshot) => f.debug_tuple("Checkpoint").field(snapshot).finish(),
            Self::Done { how, reason } => f.debug_struct("Done").field("how", how).field("reason", reason).finish(),
        }
    }
}
