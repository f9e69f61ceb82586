//! The rules of which stream gets which worker. In: admitted publishers, messages of workers, news of other activators, time. Out:
//! offers, refusals, orders for worker processes, the demand. Next: `lobby`, the shell that carries them out.
//!
//! Everything here is pure. [`Machine`] joins the [`dispatcher`] with the fleet of worker [`processes`]; `placing` alone decides which
//! worker gets a stream, and [`tally`] adds up the demand.

mod accounts;
mod changes;
mod credit;
mod dispatcher;
mod elsewhere;
mod kept_changes;
mod machine;
mod mail;
pub(crate) mod messages;
mod news;
mod phases;
mod placing;
mod pods;
pub mod processes;
mod publisher_totals;
mod rates;
mod tally;
mod view;
mod worker_seconds;
mod workers;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use liveedgecast_common::handoff::preface::{NONCE_BYTES, TOKEN_BYTES};
use liveedgecast_common::key::{AppName, Identity, StreamId, StreamKey};

pub use changes::{PlacedStream, RoutedStream};
pub use elsewhere::{Elsewhere, Ourselves, PeerStream};
pub(crate) use machine::{Machine, Output};
pub(crate) use mail::Mail;
pub(crate) use messages::Input;
pub use messages::{Key, Rules};
pub(crate) use news::FollowerView;
pub use news::PeerChange;
pub(crate) use phases::{COLD_START_PHASES, ColdPhase, ColdStartPhases};
pub(crate) use placing::rank;
#[cfg(feature = "kubernetes")]
pub(crate) use pods::PodNews;
pub(crate) use tally::workers as tallied_workers;
pub use tally::{ByApp, Need, Tally, WorkerTally};
pub use view::{
    AudioView, Demand, Holder, StreamView, UpstreamView, VideoView, WallClock, WorkerSecondsView, WorkerState,
    WorkerView,
};
pub use worker_seconds::BaselineCounter;
pub use workers::{CallId, Introduction};

use crate::config::Handoff;
use crate::destinations::StreamDestinations;

/// The secrets of one offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The secret that a worker presents to get the stream it was offered; good once. A peer that has it and the control secret gets the
    /// stream.
    pub presented: [u8; TOKEN_BYTES],
    /// Our nonce for that worker. The worker knows it from the offer, and so proves itself in its first message.
    pub challenge: [u8; NONCE_BYTES],
}

#[cfg(test)]
impl Token {
    /// The token of a test.
    pub(crate) fn of(presented: [u8; TOKEN_BYTES]) -> Self {
        Self { presented, challenge: [7; NONCE_BYTES] }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A publisher that asks for a place.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name of the stream in logs and the API; unique.
    pub stream_id: StreamId,
    /// The stream's own identity, then those of its upstreams that take no `{key}`.
    pub identities: Vec<Identity>,
    /// The stream's destinations.
    pub destinations: StreamDestinations,
    /// The app that the publisher named.
    pub app: AppName,
    /// The publisher's name in the configuration file.
    pub publisher: Option<String>,
    /// The stream key, if `/stat` is to show it.
    pub shown_key: Option<StreamKey>,
    /// The time at which the publisher connected, for traces.
    pub connected: Option<Instant>,
    /// The address of the publisher.
    pub client: SocketAddr,
    /// The end of the hold.
    pub deadline: Instant,
    /// Longest hold, also once a worker has lost the stream.
    pub hold: Duration,
    /// The ways in which this stream may be handed over.
    pub handoff: Handoff,
    /// The publisher's connection can be passed to another process, so that workers on this host can get the stream by descriptor.
    pub movable: bool,
}

impl Entry {
    /// The publisher's name, if the configuration file lists the publisher; a name that a token or a server gives is none.
    pub(crate) fn listed_name(&self) -> Option<&str> {
        self.publisher.as_deref().filter(|_| self.destinations.is_of_entry())
    }

    /// How a worker gets the stream: by descriptor (true) or by link (false); `None` if it cannot.
    pub(crate) fn way_to(&self, same_host: bool) -> Option<bool> {
        let by_descriptor = same_host && self.movable;
        match self.handoff {
            Handoff::Auto => Some(by_descriptor),
            Handoff::Descriptor => by_descriptor.then_some(true),
            Handoff::Link => Some(false),
        }
    }
}

/// An event of one place, for its publisher's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceEvent {
    /// A worker was told to fetch the stream: the handoff listener expects it.
    Offered {
        /// The number of this claim; greater than any before.
        epoch: u64,
        /// The token that the worker will present.
        token: Token,
        /// The name of the worker.
        worker: String,
        /// Handed over by descriptor, otherwise by link.
        descriptor: bool,
    },
    /// The offer is void and its token is forgotten. The place is kept and another offer follows.
    Withdrawn {
        /// The number of the void claim.
        epoch: u64,
    },
    /// The publisher gets no worker: the place is gone.
    Refused(PlaceRefusal),
    /// The stream's destinations have changed.
    Changed,
    /// The bytes that are kept of the stream are asked for.
    Asked,
    /// An operator ends the stream, now, also when it is live; the reason is for the publisher.
    Kicked(String),
}

/// Why a publisher gets no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceRefusal {
    /// The stream has another publisher: trying again is of no use.
    Duplicate,
    /// No worker came in time.
    HoldSpent,
    /// No worker came in time: the fleet has as many as it may have, and all are full.
    FleetFull,
    /// The activator drains.
    Draining,
    /// The stream may go by descriptor alone, and its connection cannot be passed to another process.
    Unmovable,
}

impl PlaceRefusal {
    /// Every reason, for metrics that exist before the first event.
    pub const ALL: [Self; 5] = [Self::Duplicate, Self::HoldSpent, Self::FleetFull, Self::Draining, Self::Unmovable];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::HoldSpent => "hold_spent",
            Self::FleetFull => "fleet_full",
            Self::Draining => "draining",
            Self::Unmovable => "unmovable",
        }
    }

    /// Advice for the operator.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Duplicate => "another encoder publishes with this key: stop it, or use another key",
            Self::HoldSpent => {
                "look why no worker came: their log, KEDA, the cluster's capacity; or raise HOLD_TIMEOUT"
            }
            Self::FleetFull => "raise MAX_WORKERS or CAPACITY: all workers are full",
            Self::Draining => "nothing: it comes again, to the activator that follows",
            Self::Unmovable => "use HANDOFF=auto or link: this kind of connection cannot be passed to a worker",
        }
    }
}

/// The outcome of an offer to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferOutcome {
    /// The worker has accepted the stream.
    Accepted,
    /// The worker declined it.
    Declined,
    /// The worker could not be given it.
    Unreachable,
    /// The worker did not fetch it in time.
    Expired,
    /// The worker was lost, or went down, before it had accepted.
    Withdrawn,
}

impl OfferOutcome {
    /// Every outcome, for metrics that exist before the first event.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Declined, Self::Unreachable, Self::Expired, Self::Withdrawn];

    /// Label of the outcome in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Declined => "declined",
            Self::Unreachable => "unreachable",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Why a publisher is back in the lobby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// The worker came and gave it back before it was its.
    Declined,
    /// The worker could not be given it.
    Unreachable,
    /// The worker is dead.
    Died,
    /// The connection to the worker broke; it may be alive.
    Broken,
    /// The worker goes down and has given it back.
    Moving,
}

impl Back {
    /// Every reason, for metrics that exist before the first event.
    pub const ALL: [Self; 5] = [Self::Declined, Self::Unreachable, Self::Died, Self::Broken, Self::Moving];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::Unreachable => "unreachable",
            Self::Died => "died",
            Self::Broken => "broken",
            Self::Moving => "moving",
        }
    }
}
