//! The inputs and outputs of the [`Dispatcher`](super::dispatcher::Dispatcher).

use std::time::{Duration, Instant};

use liveedgecast_common::control::WorkerMessage;

use super::elsewhere::{Elsewhere, Ourselves};
use super::phases::ColdStartPhases;
use super::pods::{PodNews, PodTimes};
use super::worker_seconds::BaselineCounter;
use super::workers::{CallId, Introduction};
use super::{Back, OfferOutcome, PlaceRefusal};

/// The number of a place. Never used twice; of two places the one with the smaller number was taken first.
pub type Key = u64;

/// The settings of the dispatcher.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Workers outlive this process: a stream that one has by descriptor continues without us.
    pub workers_stay: bool,
    /// Workers of the always-on fleet that worker-seconds are compared with.
    pub baseline: u32,
    /// Bytes are counted by the names that publishers have in the configuration file.
    pub names_publishers: bool,
}

/// An event that the shell reports.
#[derive(Debug)]
pub(crate) enum Input {
    /// The publisher of this place left, or its task ended.
    Left(Key),
    /// The connection of this place's publisher broke, and it may come back within this time. `Left` follows.
    PublisherLost(Key, Duration),
    /// The publisher of this place answered.
    Heard(Key),
    /// The connection of this place's publisher has ended while the stream waited; its rest is kept for another worker.
    Gone(Key),
    /// A worker accepted the stream of this place, under this epoch.
    Taken(Key, u64),
    /// The worker told the publisher of this place to start.
    Started(Key),
    /// The worker did not keep the stream of this place, which it had under this epoch.
    Back(Key, u64, Back),
    /// A worker registered. No other worker has its name, see [`super::dispatcher::Dispatcher::is_joined`].
    Joined(CallId, Introduction),
    /// A registered worker sent a message.
    Said(CallId, WorkerMessage),
    /// A worker's call ended.
    Lost(CallId),
    /// The process fleet is about to stop the worker of this name.
    Retire(String),
    /// The process fleet has, or no longer has, as many workers as it may have.
    FleetFull(bool),
    /// The name and the clock of this activator among the others.
    Ourselves(Ourselves),
    /// A publisher of another activator, by the activator's name and its number there, as it is now; `None`: it left.
    Elsewhere(String, u64, Option<Elsewhere>),
    /// The activator of this name is gone, with everything that it told.
    ForgetPeer(String),
    /// KEDA was told of the demand, of one app or of all.
    Pushed(Option<String>),
    /// The Kubernetes API told of a worker's pod.
    #[cfg_attr(not(feature = "kubernetes"), expect(dead_code, reason = "the Kubernetes API alone tells of pods"))]
    Pod(PodNews),
    /// A worker tells its counters to this activator.
    Tells(CallId),
    /// The activator that counts the time of missing workers.
    Counts(BaselineCounter),
    /// A figure changed that others look at and that is kept elsewhere.
    Changed,
    /// The drain began: publishers are no longer held.
    Drain,
    /// The drain ends: streams are no longer served.
    Close,
}

/// A decision that the shell carries out or reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// A stream is offered to a worker: both sides are told, the publisher's task first.
    Offer {
        /// The place of the publisher.
        key: Key,
        /// The call of the worker.
        call: CallId,
        /// The name of the worker.
        worker: String,
        /// The stream.
        stream_id: String,
        /// The number of this claim.
        epoch: u64,
        /// Handed over by descriptor, otherwise by link.
        descriptor: bool,
        /// The worker has the stream, or an upstream that it wants.
        known: bool,
    },
    /// The offer of this epoch is void.
    Withdrawn(Key, u64),
    /// The publisher is refused and its place is gone.
    Refused(Key, PlaceRefusal),
    /// The destinations of the stream have changed, which the worker is to be told.
    Changed(Key),
    /// The publisher's task ends the stream, for this reason.
    Kicked(Key, String),
    /// A worker ends a stream, for this reason; its publisher is connected to another activator, or is gone.
    KickOnWorker(CallId, String, String),
    /// A worker ends its part of a stream under a lower epoch than this: another worker gets the stream.
    Fence(CallId, String, u64),
    /// A stream started for the first time.
    Started(Box<Started>),
    /// A worker had to come up for a stream, and the first media of the stream went to an upstream, or the stream is over.
    ColdStart(Box<ColdStartPhases>),
    /// A worker took over a stream that another one had.
    TakenOver {
        /// The stream.
        stream_id: String,
        /// The name of the worker that had it.
        from: String,
        /// The name of the worker that has it now.
        to: String,
        /// The first one was lost with the stream, or its connection was.
        fault: bool,
    },
    /// A publisher whose stream was live since then has left.
    Over(Instant),
    /// A stream that a worker had taken ended before it started.
    NeverStarted {
        /// The stream.
        stream_id: String,
        /// The worker that had it.
        worker: String,
        /// The time at which its publisher entered.
        entered: Instant,
    },
    /// The outcome of an offer, for metrics.
    Outcome(OfferOutcome),
    /// A worker was silent although it serves streams.
    Suspect(String),
    /// A worker is not registered any more.
    WorkerGone(String),
    /// A worker died with this many streams of ours.
    WorkerLost(String, usize),
    /// A worker reported a session of a stream that it was not given; the report is left out.
    Disbelieved(String, String),
    /// A worker reported this many sessions beyond its capacity; they are left out.
    Excess(String, usize),
}

/// The times of a start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Started {
    /// The stream.
    pub(crate) stream_id: String,
    /// The worker that has it.
    pub(crate) worker: String,
    /// The publisher connected.
    pub(crate) connected: Option<Instant>,
    /// The publisher entered.
    pub(crate) entered: Instant,
    /// KEDA was told of the demand while the publisher waited.
    pub(crate) pushed: Option<Instant>,
    /// The worker registered; before `entered` if the worker was running already.
    pub(crate) joined: Instant,
    /// The worker's process began, by the worker's own word.
    pub(crate) began: Option<Instant>,
    /// The worker took the stream.
    pub(crate) taken: Instant,
    /// The worker told the publisher to start.
    pub(crate) started: Instant,
    /// The worker's process was ordered, and was spawned; unknown when another program starts workers.
    pub(crate) process: Option<(Instant, Instant)>,
    /// The times of the worker's pod.
    pub(crate) pod: PodTimes,
    /// The stream that the publisher had before, if it goes on in the sessions of that one.
    pub(crate) returns_to: Option<String>,
}
