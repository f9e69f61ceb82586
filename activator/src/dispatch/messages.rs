//! The words of [`super::dispatcher::Dispatcher`]: what it is told, and what it says.

use std::time::{Duration, Instant};

use liveedgecast_common::control::WorkerMessage;

use super::elsewhere::{Elsewhere, Ourselves};
use super::workers::{CallId, Introduction};
use super::{Back, Reason};
use crate::config::Handoff;

/// A place. Never used twice; of two the smaller one came first.
pub type Key = u64;

/// What the dispatcher is told once.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Longest hold, also of a stream that lost its worker.
    pub hold: Duration,
    /// How streams may be handed over.
    pub handoff: Handoff,
    /// Workers do not end with us: what they have by descriptor goes on without us.
    pub workers_stay: bool,
}

/// What the shell tells the machine.
#[derive(Debug)]
pub(crate) enum Input {
    /// The publisher or its task has gone.
    Left(Key),
    /// The publisher has answered.
    Heard(Key),
    /// A worker has accepted.
    Taken(Key, u64),
    /// The publisher was told to start.
    Started(Key),
    /// The worker has not kept it.
    Back(Key, u64, Back),
    /// A worker has registered. Its name is not that of another, see [`super::dispatcher::Dispatcher::is_joined`].
    Joined(CallId, Introduction),
    /// A worker has said something else than Hello.
    Said(CallId, WorkerMessage),
    /// A worker's call has ended.
    Lost(CallId),
    /// The process fleet stops this worker.
    Retire(String),
    /// Whether there are as many workers as may be.
    FleetFull(bool),
    /// Who we are among activators.
    Ourselves(Ourselves),
    /// Another activator's publisher, as it is now; or it is gone.
    Elsewhere(String, u64, Option<Elsewhere>),
    /// Nothing of this activator stands any more.
    ForgetPeer(String),
    /// A number that others look at has changed.
    Changed,
    /// Nobody is held any more.
    Drain,
    /// Nobody is served any more.
    Close,
}

/// What the machine asks of the shell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Tell both sides, the publisher's task first.
    Offer {
        /// Whose place.
        key: Key,
        /// Which worker.
        call: CallId,
        /// Its name.
        worker: String,
        /// The stream.
        stream_id: String,
        /// The claim.
        epoch: u64,
        /// By descriptor.
        descriptor: bool,
        /// The worker has the stream, or an upstream that it wants.
        known: bool,
    },
    /// The offer does not stand any more.
    Withdrawn(Key, u64),
    /// The place is gone.
    Refused(Key, Reason),
    /// End the stream, says who holds its publisher.
    Kicked(Key, String),
    /// End the stream of another activator's publisher, or of one that has gone.
    KickOnWorker(CallId, String, String),
    /// End what this worker has of the stream under an epoch lower than this: another worker gets it.
    Fence(CallId, String, u64),
    /// A stream runs for the first time.
    Started(Box<Started>),
    /// A stream that a worker had taken has ended before it ran.
    NeverStarted {
        /// The stream.
        stream_id: String,
        /// The worker that had it.
        worker: String,
        /// When its publisher entered.
        entered: Instant,
    },
    /// What became of an offer, for metrics.
    Outcome(&'static str),
    /// A worker has been silent though it serves something.
    Suspect(String),
    /// A worker tells of so many sessions more than there is room for; they are not taken note of.
    Excess(String, usize),
}

/// How a stream came to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Started {
    /// The stream.
    pub(crate) stream_id: String,
    /// The worker that has it.
    pub(crate) worker: String,
    /// When the publisher entered,
    pub(crate) entered: Instant,
    /// its worker registered (before, if it was there),
    pub(crate) joined: Instant,
    /// took the stream,
    pub(crate) taken: Instant,
    /// and started it.
    pub(crate) started: Instant,
    /// When its process was asked for, and when it ran; unknown when somebody else starts workers.
    pub(crate) process: Option<(Instant, Instant)>,
}
