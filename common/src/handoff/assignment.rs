//! The assignment of a stream to a worker: its names, its destinations, its policy, its state. In: the activator's decisions; it owns routes and
//! secrets. Out: bytes, which [`super::frame`] seals, and the same read again. Next: the worker's stream.

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
    /// The name of the stream while this publisher has it, for logs and the API.
    pub stream_id: StreamId,
    /// Number of this claim on the stream; a lower one is refused.
    pub epoch: u64,
    /// The activator that holds the publisher.
    pub activator: String,
    /// The publisher's address.
    pub client: SocketAddr,
    /// The application that the publisher names.
    pub app: AppName,
    /// The stream key, byte for byte.
    pub key: StreamKey,
    /// The stream's own identity first, then those of destinations that take no `{key}`.
    pub identities: Vec<Identity>,
    /// The stream's upstreams, resolved.
    pub destinations: Vec<Destination>,
    /// The stream's times and sizes.
    pub policy: Policy,
    /// The way of the publisher's bytes.
    pub transport: Transport,
    /// A worker had the stream before: `Publish.Start` may have been said, and a state page or checkpoint be newer than the start.
    pub resumed: bool,
    /// The state of the session. If the stream is resumed by descriptor, the state page in the ring may hold a newer one.
    pub snapshot: Snapshot,
}

/// An upstream of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The push URL, credentials included.
    pub url: PushUrl,
    /// The stream starts only when a required upstream has started, and ends if that one refuses.
    pub required: bool,
}

/// Times and sizes of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Rest of the time that the publisher may be held.
    pub hold_left: Duration,
    /// Time that a lost publisher is waited for.
    pub grace: Duration,
    /// Length of the replay window.
    pub replay_time: Duration,
    /// Size of the replay window, in bytes.
    pub replay_bytes: u64,
    /// Longest lag of an upstream.
    pub lag_time: Duration,
    /// Largest lag of an upstream, in bytes.
    pub lag_bytes: u64,
}

/// The way of a publisher's bytes to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// The publisher's socket and the ring's memory come along; the activator leaves the path.
    Descriptor,
    /// The activator stays in the path and sends frames.
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
    /// The bytes of the assignment, in the newest version. They hold secrets: [`super::frame`] seals them.
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
    /// The version is unknown, the bytes cannot be read, or a part exceeds its limit.
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

    /// Checks every part against its limit.
    pub(super) fn check(&self) -> Result<(), WireError> {
        within(self.stream_id.as_str().len(), MAX_NAME_BYTES, "stream id")?;
        within(self.activator.len(), MAX_NAME_BYTES, "name of the activator")?;
        within(self.identities.len(), MAX_IDENTITIES, "identities")?;
        within(self.destinations.len(), MAX_DESTINATIONS, "destinations")?;
        self.snapshot.check()
    }
}

const _: () = assert!(snapshot::VERSION == 1, "an assignment of version 1 carries snapshots of any version");
