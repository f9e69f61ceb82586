//! Room 4. In: publishers that were admitted, and what the fleet's workers can take. Out: an offer to one worker and the
//! [`PlaceEvent`] that tells the publisher's task to expect it. Next: `handoff`. What waits here is the demand.

mod core;
mod elsewhere;
mod machine;
mod metrics;
mod phases;
mod task;

use std::net::SocketAddr;
use std::time::Instant;

use liveedgecast_common::key::{AppName, Identity, StreamId};

use crate::handoff::Token;
pub use elsewhere::Elsewhere;
pub(crate) use machine::Told;
pub use machine::{Demand, Key, Rules, StreamView, UpstreamView, WorkerView};
pub use metrics::LobbyMetrics;
pub use task::{Lobby, Place};
pub(crate) use task::{MAX_UNREAD, Order};

/// A publisher that enters.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in logs and the API; unique.
    pub stream_id: StreamId,
    /// Who it is: the stream's own identity, then those of upstreams that take no `{key}`.
    pub identities: Vec<Identity>,
    /// The app it publishes to.
    pub app: AppName,
    /// Where it comes from.
    pub client: SocketAddr,
    /// End of its hold.
    pub deadline: Instant,
}

/// What a publisher's task is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceEvent {
    /// A worker was told to fetch the stream: expect it at the desk.
    Offered {
        /// The number of this claim; greater than any before.
        epoch: u64,
        /// What the worker will present.
        token: Token,
        /// Its name.
        worker: String,
        /// By descriptor, else by link.
        descriptor: bool,
        /// The worker's process id where it can be known (same network namespace), else 0.
        pid: u32,
    },
    /// The offer does not stand any more: forget its token. The place is kept, another offer follows.
    Withdrawn {
        /// Which.
        epoch: u64,
    },
    /// There will be no worker: the place is gone.
    Refused(Reason),
    /// Somebody wants the stream to end, now, also when it is live.
    Kicked(String),
}

/// Why a publisher gets no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody else publishes this stream: for good.
    Duplicate,
    /// No worker came in time.
    HoldSpent,
    /// No worker came in time, because there are as many as may be and all are full.
    FleetFull,
    /// We are going down.
    Draining,
}

impl Reason {
    /// Every reason, for metrics that exist before the first event.
    pub const ALL: [Self; 4] = [Self::Duplicate, Self::HoldSpent, Self::FleetFull, Self::Draining];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::HoldSpent => "hold_spent",
            Self::FleetFull => "fleet_full",
            Self::Draining => "draining",
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
