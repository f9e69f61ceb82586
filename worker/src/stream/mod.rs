//! One stream, from the publisher's bytes to the writes to its upstreams. The heart of the worker.
//!
//! In: a stream that was fetched ([`IncomingStream`]), and [`StreamCommand`]s of the engine. Out: media to each [`crate::upstream`], answers to the
//! publisher, snapshots for a successor, and [`Report`]s. In the order of the bytes:
//! - `task`: the shell; one task per stream polls the publisher, the handoff connection, the upstreams and one timer, as far as they have news
//!   (`wakes`).
//! - [`index`]: the place of each message in the ring, and its time by the publisher's [`clock`].
//! - [`cursor`]: an upstream's place in the index, and the messages to write to it next; with [`timeline`] and `ledger`.
//! - `lanes`: the upstreams that begin and end when the list of destinations changes.
//! - `excerpt`: a file of what the index knows, when somebody asks.
//! - [`machine`]: starting, live, grace, ended; `snapshots`, `link_watch` and `reports` have the other rules.
//!
//! Note: nearly everything that can go wrong (a flap, a crash, a slow upstream, a late one) is the same thing, a cursor
//! that begins again at a keyframe.

use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::control::{ExcerptPart, ExcerptRefusal, Session};
use liveedgecast_common::handoff::Assignment;
use liveedgecast_common::key::{Identity, StreamId};
use liveedgecast_common::url::PushUrl;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

pub use self::excerpt::ExcerptPieces;
use crate::receive::{FetchedRing, HandoffStream, SpareRings};
use crate::upstream::UpstreamContext;

pub mod clock;
pub mod cursor;
mod ending;
mod excerpt;
mod feed;
mod figures;
pub mod index;
mod lanes;
mod ledger;
mod link_watch;
pub mod machine;
mod need;
mod queue;
mod reports;
mod resume;
mod rings;
mod snapshots;
mod source;
mod task;
pub mod timeline;
mod wakes;

/// Commands to one stream that may wait: at most an attach, a kick and the drain come at one time.
const COMMANDS: usize = 8;

/// A stream that was fetched: `Assign` has come, and has no answer yet.
#[derive(Debug)]
pub struct IncomingStream {
    /// Identity, destinations and state of the stream.
    pub assignment: Assignment,
    /// The publisher's connection.
    pub publisher: PublisherHandoff,
    /// The ring for the publisher's bytes: by descriptor in the memory that came along, by link in memory of this process.
    pub ring: FetchedRing,
}

/// A publisher's connection, in this runtime.
#[derive(Debug)]
pub enum PublisherHandoff {
    /// The publisher's own socket. The activator holds a duplicate: only an explicit shutdown ends the connection.
    Descriptor {
        /// The socket.
        socket: TcpStream,
        /// The connection to the activator. The stream outlives it.
        control: HandoffStream,
    },
    /// Frames of the activator with the publisher's bytes.
    Link {
        /// The connection to the activator. The publisher is lost with it.
        control: HandoffStream,
    },
}

/// A contest for upstreams that a stream has and another one wants: they lead to the same place for every publisher.
#[derive(Clone, Debug)]
pub struct Contest {
    /// The contender.
    pub stream_id: StreamId,
    /// Identities of the contender, its own first.
    pub identities: Vec<Identity>,
    /// Destinations of the contender.
    pub destinations: Vec<PushUrl>,
}

/// The engine's commands to a stream.
#[derive(Debug)]
pub enum StreamCommand {
    /// A publisher of the same identity has come: decide (see [`Report::AttachDecided`]), and answer `Accepted` or `Duplicate`.
    Attach(Box<IncomingStream>),
    /// Give upstreams up to another stream, or keep them; answered by [`Report::ContestDecided`].
    Contend(Contest),
    /// End the stream; the reason is for the log and the activator.
    Kick(String),
    /// Give way to the worker that has the stream under this epoch: end an older one, close the upstreams at once, and leave the publisher alone.
    Fence(u64),
    /// Note whether no activator is there through which a lost publisher could return.
    Alone(bool),
    /// Give the stream back with its state: the worker goes down.
    HandBack,
    /// Make a file of what is kept. A stream makes one at a time; the newest question is answered.
    Excerpt(ExcerptRequest),
}

/// A question for an excerpt.
#[derive(Debug)]
pub struct ExcerptRequest {
    /// The part that is asked for.
    pub part: ExcerptPart,
    /// Gets the pieces of the file. It is closed without an answer if the stream ends before.
    pub answer: oneshot::Sender<ExcerptAnswer>,
}

/// The pieces of an excerpt, or the reason for which there are none.
pub type ExcerptAnswer = Result<ExcerptPieces, ExcerptRefusal>;

/// Reports of a stream to the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The session as it is now: more than its counters has changed.
    Session(Session),
    /// The session as it is now, reported for its counters: they alone have grown, so there is no hurry.
    Counters(Session),
    /// An attach was decided. Accepted: the stream goes on under this id; a stream of another id has ended.
    AttachDecided {
        /// Id of the stream that was to be attached.
        stream_id: StreamId,
        /// `true`: it is this stream now. `false`: the activator was told already.
        accepted: bool,
    },
    /// A contest was decided. A stream that ends with the upstreams that it gives up does not report it.
    ContestDecided {
        /// The contender.
        stream_id: StreamId,
        /// Identities whose upstreams this stream has closed; `None`: it keeps them.
        given_up: Option<Vec<Identity>>,
    },
    /// The publisher's clock has jumped; see [`clock`].
    ClockJumps {
        /// Frames at which the clock jumped, since the last report of this kind.
        count: u64,
    },
    /// The number of further messages of the publisher that were skipped: too long for the ring, long and of an unknown type, or begun
    /// at a worker that was lost.
    Skipped(u64),
    /// The stream has ended, and its task ends. Reported once, after the last [`Report::Session`].
    Ended {
        /// Id of the stream.
        stream_id: StreamId,
    },
}

/// The things that all streams of a worker have in common.
#[derive(Clone, Debug, Default)]
pub struct StreamContext {
    /// Name service, TLS and counters of the upstreams.
    pub upstreams: UpstreamContext,
    /// Time for which what a publisher sends gathers before it is read, by descriptor; zero: it is read as it comes.
    pub gather: Duration,
    /// Gets the rings of streams that have ended.
    pub spares: SpareRings,
}

/// Starts the task of a stream in the current `LocalRuntime` (or `LocalSet`), and returns the sender of its commands, which is closed when the task has ended. The
/// task answers `Accepted` to the activator itself, and tells the engine everything by `reports`.
pub fn spawn(
    incoming: IncomingStream,
    shared: Arc<StreamContext>,
    reports: mpsc::Sender<Report>,
) -> mpsc::Sender<StreamCommand> {
    let (sender, commands) = mpsc::channel(COMMANDS);
    task::spawn(incoming, shared, commands, reports);
    sender
}

#[cfg(test)]
mod tests;
