//! Room 10, the heart: one stream, from the publisher's bytes to what is written to its upstreams.
//!
//! In: a stream that was fetched ([`IncomingStream`]), and [`StreamCommand`]s of the engine. Out: media to each [`crate::upstream`], answers to the
//! publisher, snapshots for a successor, and [`Report`]s. In the order of the bytes:
//! - `task`: the shell; one task per stream polls the publisher, the handoff connection, the upstreams and one timer.
//! - [`index`]: what lies where in the ring, and at which time by the publisher's [`clock`].
//! - [`cursor`]: where an upstream is in it, and what is to be written next; with [`timeline`] and `ledger`.
//! - [`machine`]: starting, live, grace, ended.
//!
//! What surprised us: nearly everything that can go wrong (a flap, a crash, a slow upstream, a late one) is the same thing, a cursor
//! that begins again at a keyframe.

use std::sync::Arc;

use liveedgecast_common::control::Session;
use liveedgecast_common::handoff::Assignment;
use liveedgecast_common::key::{Identity, StreamId};
use liveedgecast_common::sys::UnmappedRing;
use liveedgecast_common::url::PushUrl;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::receive::HandoffStream;
use crate::upstream::UpstreamContext;

pub mod clock;
pub mod cursor;
mod ending;
mod feed;
pub mod index;
mod ledger;
mod link_watch;
pub mod machine;
mod queue;
mod reports;
mod resume;
mod rings;
mod snapshots;
mod source;
mod task;
pub mod timeline;

/// Commands to one stream that may wait: an attach, a kick and the drain are all there is at one time.
const COMMANDS: usize = 8;

/// A stream that was fetched: `Assign` has come, nothing has been answered.
#[derive(Debug)]
pub struct IncomingStream {
    /// Who it is, where it goes, where it stands.
    pub assignment: Assignment,
    /// How its bytes come.
    pub publisher: PublisherConnection,
    /// Where they go: by descriptor the memory that came along, by link memory of our own.
    pub ring: UnmappedRing,
}

/// The publisher, in this runtime.
#[derive(Debug)]
pub enum PublisherConnection {
    /// Its own socket. The activator holds a duplicate: only an explicit shutdown ends the connection.
    Descriptor {
        /// The socket.
        socket: TcpStream,
        /// The connection to the activator. The stream outlives it.
        control: HandoffStream,
    },
    /// In frames of the activator.
    Link {
        /// The connection to the activator. With it, the publisher is lost.
        control: HandoffStream,
    },
}

/// Another stream wants upstreams that this one has: they lead to the same place for every publisher.
#[derive(Clone, Debug)]
pub struct Contest {
    /// The other stream.
    pub stream_id: StreamId,
    /// Its identities, its own first.
    pub identities: Vec<Identity>,
    /// Its destinations.
    pub destinations: Vec<PushUrl>,
}

/// What the engine wants of a stream.
#[derive(Debug)]
pub enum StreamCommand {
    /// The same identity has come again: decide (see [`Report::AttachDecided`]), and answer `Accepted` or `Duplicate`.
    Attach(Box<IncomingStream>),
    /// Give upstreams up to another stream, or keep them; answered by [`Report::ContestDecided`].
    Contend(Contest),
    /// End it; the reason is for the log and the activator.
    Kick(String),
    /// Another worker has the stream under this epoch: end what is older, close the upstreams at once, and leave the publisher alone.
    Fence(u64),
    /// Whether no activator is there through which a lost publisher could return.
    Alone(bool),
    /// This worker goes down: give the stream back, state and all.
    HandBack,
}

/// What the engine learns of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Its state has changed, or its counters have and it is time to say so.
    Session(Session),
    /// An attach has been decided. Accepted: the stream goes on under this id; one of another id has ended.
    AttachDecided {
        /// Of the stream that was to be attached.
        stream_id: StreamId,
        /// Whether it is this stream now. Where not, the activator has been told already.
        accepted: bool,
    },
    /// A contest has been decided. Not said by a stream that ends with the upstreams that it gives up.
    ContestDecided {
        /// The other stream.
        stream_id: StreamId,
        /// The identities whose upstreams this stream has closed; `None`: it keeps them.
        given_up: Option<Vec<Identity>>,
    },
    /// The publisher's clock has jumped; see [`clock`].
    ClockJumps {
        /// Frames at which it did, since the last report of this kind.
        count: u64,
    },
    /// So many more of the publisher's messages were skipped: too long for the ring, or long and of an unknown type.
    Skipped(u64),
    /// It is over; the task ends. Said once, after the last [`Report::Session`].
    Ended {
        /// Which.
        stream_id: StreamId,
    },
}

/// Starts the task of a stream in the current `LocalSet`. It answers `Accepted` to the activator itself, and tells the engine everything
/// by `reports`.
pub fn spawn(
    incoming: IncomingStream,
    shared: Arc<UpstreamContext>,
    reports: mpsc::Sender<Report>,
) -> mpsc::Sender<StreamCommand> {
    let (sender, commands) = mpsc::channel(COMMANDS);
    task::spawn(incoming, shared, commands, reports);
    sender
}

#[cfg(test)]
mod tests;
