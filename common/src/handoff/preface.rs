//! How a handoff connection begins: the worker that dialed in shows the offer's token, then each side proves that it knows the control
//! secret. Bytes come in, answers and at the end [`SessionKeys`] go out; [`super::frame`] is next.
//!
//! ```text
//!  worker                                                          activator
//!    │ magic 4 | version u16 | token 16 | nonce 32  ─────────────────▶ │
//!    │ ◀───────────────────────────── magic 4 | version u16 | nonce 32 │
//!    │ proof 32: HMAC(secret, "worker" | all of the above) ──────────▶ │   is the secret ours? is the token expected?
//!    │ ◀──────────── proof 32: HMAC(secret, "activator" | the same)    │   Done
//!    │ Done                                                            │
//! ```
//!
//! What surprised us: the one who proves first gives whoever listens something to try weak secrets on. So it is the worker, which dials
//! an address that a proven activator gave it; a stranger who dials the activator learns nothing.

use std::fmt;

use super::frame::{Reader, Writer};
use crate::key::Secret;

/// Bytes of an offer's one-time token.
pub const TOKEN_BYTES: usize = 16;
/// Bytes of each side's nonce.
pub const NONCE_BYTES: usize = 32;
/// The version of preface and frames.
pub const VERSION: u16 = 1;

/// Why the preface failed. The connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    /// The other side is something else.
    #[error("this is not a handoff connection")]
    Magic,
    /// Another version.
    #[error("the other side speaks version {theirs} of the handoff, this one {VERSION}: run one version of both")]
    Version {
        /// What it speaks.
        theirs: u16,
    },
    /// The proof is wrong.
    #[error("the other side has another secret: give both sides the same CONTROL_SECRET")]
    Proof,
}

/// What came of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes of the input belong to the preface; the rest are frames. Less than all only with [`Step::Done`].
    pub used: usize,
    /// Bytes for the other side: also before the connection is closed after [`Step::Failed`].
    pub output: Vec<u8>,
    /// Where it stands.
    pub step: Step,
}

/// Where a preface stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// Both have proved themselves.
    Done(SessionKeys),
    /// Close the connection.
    Failed(PrefaceError),
}

/// The activator's side. Whether the token is expected is for its owner to look up, when it is done.
#[derive(Debug)]
pub struct ActivatorSide {
    _private: (),
}

impl ActivatorSide {
    /// Of one connection; `nonce` is random.
    #[must_use]
    pub fn new(secret: &Secret, nonce: [u8; NONCE_BYTES]) -> Self {
        let _ = (secret, nonce);
        todo!()
    }

    /// Takes what the worker sent.
    pub fn handle(&mut self, input: &[u8]) -> Progress {
        let _ = input;
        todo!()
    }

    /// The token that the worker showed; to be trusted when the preface is done.
    #[must_use]
    pub fn token(&self) -> Option<[u8; TOKEN_BYTES]> {
        todo!()
    }
}

/// The worker's side.
#[derive(Debug)]
pub struct WorkerSide {
    _private: (),
}

impl WorkerSide {
    /// Of one connection, and the bytes to send first; `nonce` is random.
    #[must_use]
    pub fn new(secret: &Secret, token: [u8; TOKEN_BYTES], nonce: [u8; NONCE_BYTES]) -> (Self, Vec<u8>) {
        let _ = (secret, token, nonce);
        todo!()
    }

    /// Takes what the activator sent.
    pub fn handle(&mut self, input: &[u8]) -> Progress {
        let _ = input;
        todo!()
    }
}

/// What seals the frames of one connection: a key per direction.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKeys {
    to_worker: [u8; 32],
    to_activator: [u8; 32],
}

impl SessionKeys {
    /// Reader and writer of the activator's end.
    #[must_use]
    pub fn activator_end(&self) -> (Reader, Writer) {
        todo!()
    }

    /// Reader and writer of the worker's end.
    #[must_use]
    pub fn worker_end(&self) -> (Reader, Writer) {
        todo!()
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}
