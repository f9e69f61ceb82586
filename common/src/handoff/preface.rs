//! The beginning of a handoff connection: the worker that dialed in shows the offer's token, then each side proves that it knows the
//! control secret. In: bytes of the connection. Out: answers, and at the end [`SessionKeys`]. Next: [`super::frame`].
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
//! The offer may have told the worker the activator's nonce, over the control connection. Then the worker's proof goes with its first message, and
//! all the rest comes in one answer: the same bytes, one round trip less. The activator draws a nonce for each offer as it draws the token.
//! The nonce is forgotten with the token, by the first worker that proves itself: the keys of a session are its own.
//!
//! Note: the side that proves itself first gives any listener a proof to try weak secrets on. So the worker is first, because it dials an
//! address that a proven activator gave it; a stranger who dials the activator learns nothing.

use std::fmt;

use super::frame::{Direction, Reader, Seal, Writer};
use crate::key::Secret;

/// Bytes of an offer's one-time token.
pub const TOKEN_BYTES: usize = 16;
/// Bytes of each side's nonce.
pub const NONCE_BYTES: usize = 32;
/// The version of preface, frames and of the memory that is handed over (see [`super::page`]).
pub const VERSION: u16 = 1;

/// First bytes of a handoff connection, both ways.
const MAGIC: [u8; 4] = *b"LECH";
const PROOF_BYTES: usize = 32;
/// Bytes of magic and version.
const HEAD_BYTES: usize = 6;
/// Bytes of the worker's first message, and of the activator's answer.
const HELLO_BYTES: usize = HEAD_BYTES + TOKEN_BYTES + NONCE_BYTES;
const CHALLENGE_BYTES: usize = HEAD_BYTES + NONCE_BYTES;

// Labels under which the secret signs, each for one purpose; the transcript that follows always has the same length.
const WORKER_PROOF: &[u8] = b"handoff worker";
const ACTIVATOR_PROOF: &[u8] = b"handoff activator";
const KEY_TO_WORKER: &[u8] = b"handoff key to worker";
const KEY_TO_ACTIVATOR: &[u8] = b"handoff key to activator";

/// The reason why the preface failed. The connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    /// The other side speaks another protocol.
    #[error("this is not a handoff connection")]
    Magic,
    /// The other side speaks another version of the handoff.
    #[error("the other side speaks version {theirs} of the handoff, this one {VERSION}: run one version of both")]
    Version {
        /// Version of the other side.
        theirs: u16,
    },
    /// The proof was made with another secret.
    #[error("the other side has another secret: give both sides the same CONTROL_SECRET")]
    Proof,
}

/// The result of handling some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefaceProgress {
    /// Bytes of the input that belong to the preface; the rest are frames. Fewer than all only with [`Step::Done`].
    pub used: usize,
    /// Bytes for the other side; they are sent even when the connection is closed after [`Step::Failed`].
    pub output: Vec<u8>,
    /// State of the preface after these bytes.
    pub step: Step,
}

/// The state of a preface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// Done: both sides have proved themselves.
    Done(SessionKeys),
    /// Close the connection.
    Failed(PrefaceError),
}

/// A message of known length that begins with magic and version, or a proof, as it arrives.
#[derive(Debug, Default)]
struct Incoming(Vec<u8>);

impl Incoming {
    /// Takes the bytes that belong to a message of `length` bytes; returns their number.
    fn fill(&mut self, input: &[u8], length: usize) -> usize {
        let used = input.len().min(length - self.0.len());
        self.0.extend_from_slice(&input[..used]);
        used
    }

    /// The message, if it has arrived whole.
    fn whole(&mut self, length: usize) -> Option<Vec<u8>> {
        (self.0.len() == length).then(|| std::mem::take(&mut self.0))
    }

    /// Checks magic and version as soon as they have arrived: a stranger gets no more time than that.
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

/// State that both sides have in common.
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

/// The activator's side. Its owner looks up whether the token is expected, once the preface is done.
pub struct ActivatorSide {
    side: Side,
    nonce: NonceOfToken,
}

/// The activator's nonce for the worker that shows a token.
type NonceOfToken = Box<dyn FnMut([u8; TOKEN_BYTES]) -> [u8; NONCE_BYTES] + Send>;

impl ActivatorSide {
    /// The activator's side of one connection; `nonce` is random.
    #[must_use]
    pub fn new(secret: &Secret, nonce: [u8; NONCE_BYTES]) -> Self {
        Self::challenging(secret, move |_| nonce)
    }

    /// The same, with the nonce that the offer with the worker's token has told. `nonce` is asked once; for a token of no offer it gives a
    /// random one.
    #[must_use]
    pub fn challenging(
        secret: &Secret,
        nonce: impl FnMut([u8; TOKEN_BYTES]) -> [u8; NONCE_BYTES] + Send + 'static,
    ) -> Self {
        Self { side: Side::new(secret), nonce: Box::new(nonce) }
    }

    /// Handles bytes of the worker.
    pub fn handle(&mut self, input: &[u8]) -> PrefaceProgress {
        let side = &mut self.side;
        let (mut used, mut output) = (0, Vec::new());
        if side.step == Step::More && side.transcript.is_empty() {
            used = side.incoming.fill(input, HELLO_BYTES);
            if let Err(error) = side.incoming.check_head() {
                if matches!(error, PrefaceError::Version { .. }) {
                    // The worker finds the expected version in this answer.
                    output = challenge(&[0; NONCE_BYTES]);
                }
                side.step = Step::Failed(error);
            } else if let Some(hello) = side.incoming.whole(HELLO_BYTES) {
                let token = token(&hello).unwrap_or_default();
                side.transcript = hello;
                output = challenge(&(self.nonce)(token));
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
        PrefaceProgress { used, output, step: side.step.clone() }
    }

    /// The token that the worker showed; trustworthy once the preface is done.
    #[must_use]
    pub fn token(&self) -> Option<[u8; TOKEN_BYTES]> {
        token(&self.side.transcript)
    }
}

fn token(hello: &[u8]) -> Option<[u8; TOKEN_BYTES]> {
    hello.get(HEAD_BYTES..)?.first_chunk().copied()
}

fn challenge(nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
    [&head()[..], nonce].concat()
}

/// The worker's side.
pub struct WorkerSide {
    side: Side,
    challenge: ExpectedChallenge,
}

/// The worker's knowledge of the activator's challenge.
enum ExpectedChallenge {
    /// It is to come, and the worker's proof after it.
    Unknown,
    /// The offer has told it, and the proof has been sent.
    Told(Vec<u8>),
    /// It has come.
    Arrived,
}

impl WorkerSide {
    /// The worker's side of one connection, and the bytes to send first; `nonce` is random.
    #[must_use]
    pub fn new(secret: &Secret, token: [u8; TOKEN_BYTES], nonce: [u8; NONCE_BYTES]) -> (Self, Vec<u8>) {
        let mut side = Side::new(secret);
        side.transcript = [&head()[..], &token, &nonce].concat();
        let hello = side.transcript.clone();
        (Self { side, challenge: ExpectedChallenge::Unknown }, hello)
    }

    /// The same, for an offer that has told the activator's nonce, `theirs`: the bytes to send first have the proof in them.
    #[must_use]
    pub fn told(
        secret: &Secret,
        token: [u8; TOKEN_BYTES],
        nonce: [u8; NONCE_BYTES],
        theirs: [u8; NONCE_BYTES],
    ) -> (Self, Vec<u8>) {
        let (mut this, mut first) = Self::new(secret, token, nonce);
        let challenge = challenge(&theirs);
        this.side.transcript.extend_from_slice(&challenge);
        first.extend_from_slice(&this.side.proof(WORKER_PROOF));
        this.challenge = ExpectedChallenge::Told(challenge);
        (this, first)
    }

    /// Handles bytes of the activator.
    pub fn handle(&mut self, input: &[u8]) -> PrefaceProgress {
        let side = &mut self.side;
        let (mut used, mut output) = (0, Vec::new());
        if side.step == Step::More && !matches!(self.challenge, ExpectedChallenge::Arrived) {
            used = side.incoming.fill(input, CHALLENGE_BYTES);
            if let Err(error) = side.incoming.check_head() {
                side.step = Step::Failed(error);
            } else if let Some(challenge) = side.incoming.whole(CHALLENGE_BYTES) {
                match std::mem::replace(&mut self.challenge, ExpectedChallenge::Arrived) {
                    ExpectedChallenge::Told(told) if told == challenge => {}
                    // Another process answers than the one that made the offer, and it has no use for our proof.
                    ExpectedChallenge::Told(_) => side.step = Step::Failed(PrefaceError::Proof),
                    ExpectedChallenge::Unknown | ExpectedChallenge::Arrived => {
                        side.transcript.extend(challenge);
                        output = side.proof(WORKER_PROOF).to_vec();
                    }
                }
            }
        }
        if side.step == Step::More && matches!(self.challenge, ExpectedChallenge::Arrived) {
            used += side.incoming.fill(&input[used..], PROOF_BYTES);
            if let Some(proof) = side.incoming.whole(PROOF_BYTES) {
                side.step = side.judge(ACTIVATOR_PROOF, &proof);
            }
        }
        PrefaceProgress { used, output, step: side.step.clone() }
    }
}

/// The keys that seal the frames of one connection, one per direction.
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

// Token and secret stay out of `Debug`.
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
