//! A stream as it is given to a worker: who it is, where it goes, how it is to be treated, where it stands. Made by the activator, which
//! owns routes and secrets; sealed by [`super::frame`]; used by the worker's stream.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{MAX_ASSIGNMENT_BYTES, MAX_DESTINATIONS, MAX_IDENTITIES, MAX_NAME_BYTES};
use super::snapshot::{self, Snapshot};
use super::wire::{self, WireError, within};
use crate::key::{AppName, Identity, StreamId, StreamKey};
use crate::url::PushUrl;

/// The version that [`Assignment::encode`] writes.
pub const VERSION: u16 = 1;

/// A stream for a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The name of this stay of the publisher.
    pub stream_id: StreamId,
    /// Number of this claim on the stream; a lower one is refused.
    pub epoch: u64,
    /// The activator that holds the publisher.
    pub activator: String,
    /// The publisher's address.
    pub client: SocketAddr,
    /// The application it publishes to.
    pub app: AppName,
    /// Its stream key, byte for byte.
    pub key: StreamKey,
    /// The stream's own identity first, then those of destinations that take no `{key}`.
    pub identities: Vec<Identity>,
    /// Where it goes, resolved.
    pub destinations: Vec<Destination>,
    /// How it is to be treated.
    pub policy: Policy,
    /// How its bytes come.
    pub transport: Transport,
    /// Another worker had it before: `Publish.Start` may have been said, and a state page or checkpoint be newer than the start.
    pub resumed: bool,
    /// Where it stands. By descriptor and resumed, the state page in the ring may hold a newer one.
    pub snapshot: Snapshot,
}

/// One upstream of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Where to push, credentials included.
    pub url: PushUrl,
    /// The stream starts only when this one has started, and ends if it refuses.
    pub required: bool,
}

/// Times and sizes of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What is left of the time that the publisher may be held.
    pub hold_left: Duration,
    /// How long a lost publisher is waited for.
    pub grace: Duration,
    /// How far back the replay window reaches.
    pub replay_time: Duration,
    /// What it holds at most, in bytes.
    pub replay_bytes: u64,
    /// How far an upstream may lag.
    pub lag_time: Duration,
    /// And by how many bytes.
    pub lag_bytes: u64,
}

/// How a publisher's bytes reach the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// Its socket and the ring's memory come along; the activator leaves the path.
    Descriptor,
    /// Through the activator, as frames.
    Link,
}

/// Version 1 on the wire; the snapshot has a version of its own.
#[derive(Serialize, Deserialize)]
struct V1 {
    stream_id: StreamId,
    epoch: u64,
    activator: String,
    client: SocketAddr,
    app: AppName,
    key: StreamKey,
    identities: Vec<Identity>,
    destinations: Vec<Destination>,
    policy: Policy,
    transport: Transport,
    resumed: bool,
    snapshot: Vec<u8>,
}

impl Assignment {
    /// Its bytes, in the newest version. They hold secrets: [`super::frame`] seals them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            stream_id,
            epoch,
            activator,
            client,
            app,
            key,
            identities,
            destinations,
            policy,
            transport,
            resumed,
            snapshot,
        } = self.clone();
        let snapshot = snapshot.encode();
        let fields = V1 {
            stream_id,
            epoch,
            activator,
            client,
            app,
            key,
            identities,
            destinations,
            policy,
            transport,
            resumed,
            snapshot,
        };
        wire::encode(VERSION, &fields)
    }

    /// Reads any version there has been.
    ///
    /// # Errors
    /// Another version, not readable, or more than the limits allow.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        within(bytes.len(), MAX_ASSIGNMENT_BYTES, "assignment")?;
        let (version, rest) = wire::version(bytes)?;
        let V1 {
            stream_id,
            epoch,
            activator,
            client,
            app,
            key,
            identities,
            destinations,
            policy,
            transport,
            resumed,
            snapshot,
        } = match version {
            1 => wire::decode(rest)?,
            theirs => return Err(WireError::Version { theirs, ours: VERSION }),
        };
        let snapshot = Snapshot::decode(&snapshot)?;
        let assignment = Self {
            stream_id,
            epoch,
            activator,
            client,
            app,
            key,
            identities,
            destinations,
            policy,
            transport,
            resumed,
            snapshot,
        };
        assignment.check()?;
        Ok(assignment)
    }

    /// Whether every part is within its limit.
    pub(super) fn check(&self) -> Result<(), WireError> {
        within(self.stream_id.as_str().len(), MAX_NAME_BYTES, "stream id")?;
        within(self.activator.len(), MAX_NAME_BYTES, "name of the activator")?;
        within(self.identities.len(), MAX_IDENTITIES, "identities")?;
        within(self.destinations.len(), MAX_DESTINATIONS, "destinations")?;
        self.snapshot.check()
    }
}

const _: () = assert!(snapshot::VERSION == 1, "an assignment of version 1 carries snapshots of any version");
