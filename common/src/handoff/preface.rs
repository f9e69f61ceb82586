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

use super::frame::{Direction, Reader, Seal, Writer};
use crate::key::Secret;

/// Bytes of an offer's one-time token.
pub const TOKEN_BYTES: usize = 16;
/// Bytes of each side's nonce.
pub const NONCE_BYTES: usize = 32;
/// The version of preface, frames and of the memory that is handed over (see [`super::page`]).
pub const VERSION: u16 = 1;

/// What a handoff connection begins with, both ways.
const MAGIC: [u8; 4] = *b"LECH";
const PROOF_BYTES: usize = 32;
/// Magic and version.
const HEAD_BYTES: usize = 6;
/// What the worker says first, and what the activator answers.
const HELLO_BYTES: usize = HEAD_BYTES + TOKEN_BYTES + NONCE_BYTES;
const CHALLENGE_BYTES: usize = HEAD_BYTES + NONCE_BYTES;

// What the secret signs, each for one purpose; the transcript that follows always has the same length.
const WORKER_PROOF: &[u8] = b"handoff worker";
const ACTIVATOR_PROOF: &[u8] = b"handoff activator";
const KEY_TO_WORKER: &[u8] = b"handoff key to worker";
const KEY_TO_ACTIVATOR: &[u8] = b"handoff key to activator";

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

/// A message of known length that begins with magic and version, or a proof, as it comes in.
#[derive(Debug, Default)]
struct Incoming(Vec<u8>);

impl Incoming {
    /// Takes what belongs to a message of `length` bytes; returns how many that were.
    fn fill(&mut self, input: &[u8], length: usize) -> usize {
        let used = input.len().min(length - self.0.len());
        self.0.extend_from_slice(&input[..used]);
        used
    }

    /// The message, once it is whole.
    fn whole(&mut self, length: usize) -> Option<Vec<u8>> {
        (self.0.len() == length).then(|| std::mem::take(&mut self.0))
    }

    /// Judges magic and version as soon as they are there: strangers are not listened to for longer.
    fn check_head(&self) -> Result<(), PrefaceError> {
        let known = self.0.len().min(MAGIC.len());
        if self.0[..known] != MAGIC[..known] {
            return Err(PrefaceError::Magic);
        }
        match self.0.get(MAGIC.len()..HEAD_BYTES) {
            Some(&[high, low]) if [high, low] != VERSION.to_be_bytes() => {
                Err(PrefaceError::Version { theirs: u16::from_be_bytes([high, low]) })
            }
            _ => Ok(()),
        }
    }
}

fn head() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_be_bytes()].concat()
}

/// What is common to both sides.
struct Side {
    secret: Secret,
    incoming: Incoming,
    /// Hello, then challenge.
    transcript: Vec<u8>,
    /// `More` until the end.
    step: Step,
}

impl Side {
    fn new(secret: &Secret) -> Self {
        let incoming = Incoming::default();
        Self { secret: secret.clone(), incoming, transcript: Vec::new(), step: Step::More }
    }

    fn proof(&self, whose: &[u8]) -> [u8; PROOF_BYTES] {
        self.secret.sign(&[whose, &self.transcript])
    }

    fn judge(&self, whose: &[u8], proof: &[u8]) -> Step {
        if !self.secret.verify(&[whose, &self.transcript], proof) {
            return Step::Failed(PrefaceError::Proof);
        }
        let to_worker = self.secret.sign(&[KEY_TO_WORKER, &self.transcript]);
        let to_activator = self.secret.sign(&[KEY_TO_ACTIVATOR, &self.transcript]);
        Step::Done(SessionKeys { to_worker, to_activator })
    }
}

/// The activator's side. Whether the token is expected is for its owner to look up, when it is done.
pub struct ActivatorSide {
    side: Side,
    nonce: [u8; NONCE_BYTES],
}

impl ActivatorSide {
    /// Of one connection; `nonce` is random.
    #[must_use]
    pub fn new(secret: &Secret, nonce: [u8; NONCE_BYTES]) -> Self {
        Self { side: Side::new(secret), nonce }
    }

    /// Takes what the worker sent.
    pub fn handle(&mut self, input: &[u8]) -> Progress {
        let side = &mut self.side;
        let (mut used, mut output) = (0, Vec::new());
        if side.step == Step::More && side.transcript.is_empty() {
            used = side.incoming.fill(input, HELLO_BYTES);
            if let Err(error) = side.incoming.check_head() {
                if matches!(error, PrefaceError::Version { .. }) {
                    // It will find the version that it should have.
                    output = [&head()[..], &self.nonce].concat();
                }
                side.step = Step::Failed(error);
            } else if let Some(hello) = side.incoming.whole(HELLO_BYTES) {
                side.transcript = hello;
                output = [&head()[..], &self.nonce].concat();
                side.transcript.extend_from_slice(&output);
            }
        }
        if side.step == Step::More && !side.transcript.is_empty() {
            used += side.incoming.fill(&input[used..], PROOF_BYTES);
            if let Some(proof) = side.incoming.whole(PROOF_BYTES) {
                side.step = side.judge(WORKER_PROOF, &proof);
                if matches!(side.step, Step::Done(_)) {
                    output.extend_from_slice(&side.proof(ACTIVATOR_PROOF));
                }
            }
        }
        Progress { used, output, step: side.step.clone() }
    }

    /// The token that the worker showed; to be trusted when the preface is done.
    #[must_use]
    pub fn token(&self) -> Option<[u8; TOKEN_BYTES]> {
        self.side.transcript.get(HEAD_BYTES..)?.first_chunk().copied()
    }
}

/// The worker's side.
pub struct WorkerSide {
    side: Side,
}

impl WorkerSide {
    /// Of one connection, and the bytes to send first; `nonce` is random.
    #[must_use]
    pub fn new(secret: &Secret, token: [u8; TOKEN_BYTES], nonce: [u8; NONCE_BYTES]) -> (Self, Vec<u8>) {
        let mut side = Side::new(secret);
        side.transcript = [&head()[..], &token, &nonce].concat();
        let hello = side.transcript.clone();
        (Self { side }, hello)
    }

    /// Takes what the activator sent.
    pub fn handle(&mut self, input: &[u8]) -> Progress {
        let side = &mut self.side;
        let (mut used, mut output) = (0, Vec::new());
        if side.step == Step::More && side.transcript.len() == HELLO_BYTES {
            used = side.incoming.fill(input, CHALLENGE_BYTES);
            if let Err(error) = side.incoming.check_head() {
                side.step = Step::Failed(error);
            } else if let Some(challenge) = side.incoming.whole(CHALLENGE_BYTES) {
                side.transcript.extend(challenge);
                output = side.proof(WORKER_PROOF).to_vec();
            }
        }
        if side.step == Step::More && side.transcript.len() > HELLO_BYTES {
            used += side.incoming.fill(&input[used..], PROOF_BYTES);
            if let Some(proof) = side.incoming.whole(PROOF_BYTES) {
                side.step = side.judge(ACTIVATOR_PROOF, &proof);
            }
        }
        Progress { used, output, step: side.step.clone() }
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
        (Reader::new(Direction::ToActivator, Seal::new(&self.to_activator)), Writer::new(Seal::new(&self.to_worker)))
    }

    /// Reader and writer of the worker's end.
    #[must_use]
    pub fn worker_end(&self) -> (Reader, Writer) {
        (Reader::new(Direction::ToWorker, Seal::new(&self.to_worker)), Writer::new(Seal::new(&self.to_activator)))
    }
}

// The token and the secret are nobody's business.
impl fmt::Debug for ActivatorSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActivatorSide").field("step", &self.side.step).finish_non_exhaustive()
    }
}

impl fmt::Debug for WorkerSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSide").field("step", &self.side.step).finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}
