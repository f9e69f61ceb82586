//! One handover of a publisher to a worker that has come. In: the worker's connection, the publisher's connection and snapshot, what an earlier
//! worker left behind. Out: the outcome, and everything that the next worker, or this process, goes on from. Next: `handoff` by descriptor,
//! or `link`.
#![expect(clippy::disallowed_methods, reason = "shell: the clock of what is left of a hold")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use liveedgecast_common::clock::now;
use liveedgecast_common::event;
use liveedgecast_common::handoff::{Assignment, Close, Snapshot, Transport};
use liveedgecast_common::key::StreamId;
use liveedgecast_common::sys::RingMemory;
use tracing::warn;

use super::outgoing::BufferedConnection;
use super::resume::{Remains, Resume, may_be_reused, unnamed};
use crate::accept::PublisherConnection;
use crate::admission::Admitted;
use crate::dispatch::PlacedStream;
use crate::handoff::descriptor::{self, Duplicates};
use crate::handoff::{AssignedStream, ClaimedPlace, HandoffConnection, HandoffOutcome, PeerProcess, SpareMemories};
use crate::link::{self, Carried};

/// The parts of an assignment that do not depend on the transport.
pub(super) struct AssignmentParts<'a> {
    pub(super) stream_id: &'a StreamId,
    pub(super) client: SocketAddr,
    pub(super) epoch: u64,
    pub(super) admitted: &'a Admitted,
    /// The identities and destinations in force.
    pub(super) placed: PlacedStream,
    /// The name of this activator.
    pub(super) activator: &'a str,
}

impl AssignmentParts<'_> {
    fn stream(&self, transport: Transport, resumed: bool, snapshot: Snapshot) -> AssignedStream {
        let PlacedStream { identities, destinations, takes_lists } = self.placed.clone();
        let assignment = Assignment {
            stream_id: self.stream_id.clone(),
            epoch: self.epoch,
            activator: self.activator.to_owned(),
            client: self.client,
            app: self.admitted.app.clone(),
            key: self.admitted.key.clone(),
            identities,
            destinations: unnamed(&destinations),
            policy: self.admitted.policy.on_wire(now()),
            transport,
            resumed,
            snapshot,
        };
        AssignedStream { assignment, destinations: takes_lists.then_some(destinations) }
    }
}

/// The outcome, the connection if it is ours again, and what the next worker goes on from.
pub(super) type HandedBack = (HandoffOutcome, Option<BufferedConnection>, Option<Resume>);

/// Hands the connection itself over.
pub(super) async fn by_descriptor(
    mut connection: HandoffConnection,
    spares: &SpareMemories,
    parts: AssignmentParts<'_>,
    snapshot: Snapshot,
    publisher: BufferedConnection,
    resume: Option<Resume>,
    place: &mut ClaimedPlace<'_>,
) -> HandedBack {
    let worker = descriptor::process(&mut connection);
    let (memory, snapshot, resumed) = match resume {
        Some(Resume::Descriptor(memory, snapshot)) => (Ok(memory), snapshot, true),
        _ => (ring(parts.admitted, spares, &worker), Box::new(snapshot), false),
    };
    let memory = match memory {
        Ok(memory) => memory,
        Err(error) => {
            warn!(event = event::RING_FAILED, %error, "no memory for a stream's ring");
            return (HandoffOutcome::untouched(), Some(publisher), None);
        }
    };
    let Some(socket) = publisher.into_connection().into_socket() else {
        return (HandoffOutcome::PublisherGone, None, None);
    };
    let duplicates = Duplicates { socket, memory };
    let stream = parts.stream(Transport::Descriptor, resumed, snapshot.as_ref().clone());
    let mut parted = None;
    let outcome = descriptor::hand_over(connection, &worker, stream, &duplicates, place, &mut parted).await;
    let Duplicates { socket, memory } = duplicates;
    let publisher = PublisherConnection::from_socket(socket).ok().map(BufferedConnection::new);
    // The worker has said its last words and closed; ours is a duplicate.
    let publisher = publisher.filter(|_| !matches!(outcome, HandoffOutcome::Done { how: Close::Graceful, .. }));
    let resume = match Remains::of(&outcome, resumed) {
        Remains::Stream => Some(Resume::Descriptor(memory, snapshot)),
        remains => {
            if may_be_reused(&outcome, resumed) {
                spares.put(memory, worker);
            }
            parted.filter(|_| remains == Remains::Connection).map(Resume::Parted)
        }
    };
    (outcome, publisher, resume)
}

/// Carries the bytes of the connection, which stays here.
pub(super) async fn by_link(
    connection: HandoffConnection,
    parts: AssignmentParts<'_>,
    snapshot: Snapshot,
    mut publisher: BufferedConnection,
    resume: Option<Resume>,
    place: &mut ClaimedPlace<'_>,
) -> HandedBack {
    let (mut carried, resumed) = match resume {
        Some(Resume::Link(carried)) => (carried, true),
        _ => (Box::new(Carried::new(snapshot)), false),
    };
    let stream = parts.stream(Transport::Link, resumed, carried.checkpoint.clone());
    let gather = parts.admitted.policy.gather;
    let outcome = link::carry(connection, stream, gather, publisher.connection(), &mut carried, place).await;
    let resume = match Remains::of(&outcome, resumed) {
        Remains::Stream => Some(Resume::Link(carried)),
        Remains::Connection => Some(Resume::Parted(Box::new(carried.parted()))),
        // Its bytes are counted as lost.
        Remains::Nothing if outcome == HandoffOutcome::PublisherGone => Some(Resume::Link(carried)),
        Remains::Nothing => None,
    };
    (outcome, Some(publisher), resume)
}

/// The memory of a stream, as large as its replay window: that of a stream that this worker has had, or fresh memory.
fn ring(admitted: &Admitted, spares: &SpareMemories, worker: &PeerProcess) -> io::Result<OwnedFd> {
    let bytes = usize::try_from(admitted.policy.replay.bytes).map_err(io::Error::other)?;
    spares.take(worker, bytes).map_or_else(|| RingMemory::create(bytes), Ok)
}
