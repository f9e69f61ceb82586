//! Where to go on with a publisher: what was handed over comes in, a session at a position goes out, with the bytes behind it in the ring.
//!
//! By descriptor, a publisher that another worker had before is wherever the kernel says it was read to. The state page says from where the
//! bytes in the ring can be understood; nobody vouches for it, so it is taken only if all of it fits. Next room: [`super::task`].
//!
//! What surprised us: the worker that died may have been killed inside a `recv`. What it was receiving into is lost, although its position
//! was never passed: hence [`READ_BYTES`] less than the whole ring.

use liveedgecast_common::handoff::{Assignment, Snapshot, StreamState, page};
use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::server::ServerSession;
use liveedgecast_common::sys::{self, RingMemory};

use super::index::Segment;
use super::{Command, Incoming, Publisher};

/// Bytes of one read at most: what a socket of a fast publisher has after a few milliseconds.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Room to read into, for a ring of this size.
pub(super) fn read_room(capacity: usize) -> usize {
    READ_BYTES.min(capacity / 4)
}

/// A publisher that can be gone on with.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) assignment: Assignment,
    pub(super) publisher: Publisher,
    pub(super) ring: RingMemory,
    /// Everything before its position has been understood.
    pub(super) session: ServerSession,
    /// Everything before it has been received.
    pub(super) head: u64,
    pub(super) stream: Option<StreamState>,
    /// Open media messages: header, and the bytes of it that were received before the session's position.
    pub(super) open: Vec<(MessageHeader, Option<Segment>)>,
    /// The engine's command that came while the stream waited for the end of the one before.
    pub(super) told: Option<Command>,
}

/// Why there is no way to go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the publisher's connection cannot be asked how far it was read: {0}")]
    Position(#[from] std::io::Error),
    #[error("neither the state page nor the assignment fits the publisher's connection")]
    State,
}

/// Finds out where to go on.
pub(super) fn prepare(incoming: Incoming) -> Result<Prepared, (Unusable, Box<Incoming>)> {
    match find(&incoming) {
        Ok(found) => Ok(take_up(incoming, found)),
        Err(error) => Err((error, Box::new(incoming))),
    }
}

struct Found {
    session: ServerSession,
    snapshot: Snapshot,
    head: u64,
}

fn find(incoming: &Incoming) -> Result<Found, Unusable> {
    let given = &incoming.assignment.snapshot;
    let given_head = given.session.position() + given.unread.len() as u64;
    let head = match &incoming.publisher {
        Publisher::Descriptor { socket, .. } if incoming.assignment.resumed => sys::bytes_received(socket)?,
        _ => given_head,
    };
    let published = match &incoming.publisher {
        Publisher::Descriptor { .. } if incoming.assignment.resumed => page::read(incoming.ring.page()),
        _ => None,
    };
    // A page of another connection, or an older one, would be before where this one began.
    let published =
        published.filter(|page| page.session.position() >= given.session.position() && page.unread.is_empty());
    let candidates = published.into_iter().chain(std::iter::once(given.clone()));
    for snapshot in candidates {
        if let Some(session) = fits(&snapshot, head, incoming.ring.capacity()) {
            return Ok(Found { session, snapshot, head });
        }
    }
    Err(Unusable::State)
}

/// The snapshot's session, if all bytes from its position to `head` are in a ring of that size.
fn fits(snapshot: &Snapshot, head: u64, capacity: usize) -> Option<ServerSession> {
    let position = snapshot.session.position();
    let reach = (capacity - read_room(capacity)) as u64;
    if position + (snapshot.unread.len() as u64) > head || head - position > reach {
        return None;
    }
    let session = ServerSession::restore(&snapshot.session).ok()?;
    (session.publish().is_some() && !session.is_ended()).then_some(session)
}

fn take_up(incoming: Incoming, found: Found) -> Prepared {
    let Incoming { assignment, publisher, mut ring } = incoming;
    let Found { session, snapshot, head } = found;
    let position = session.position();
    let unread = &snapshot.unread;
    ring.space(position, unread.len()).copy_from_slice(unread);
    // What came of open messages before the snapshot goes where it looks as if it had been received just before the position.
    let mut before = position;
    let mut open = Vec::new();
    for (header, received) in snapshot.session.open_media() {
        let kept = snapshot.stream.iter().flat_map(|stream| &stream.open).find(|open| open.csid == header.csid);
        let Some(kept) = kept.filter(|kept| kept.received.len() == received as usize) else { continue };
        let Some(start) = before.checked_sub(u64::from(received)) else { continue };
        if head - start > (ring.capacity() - read_room(ring.capacity())) as u64 {
            continue;
        }
        ring.space(start, received as usize).copy_from_slice(&kept.received);
        open.push((header, (received > 0).then_some(Segment { position: start, len: received })));
        before = start;
    }
    Prepared { assignment, publisher, ring, session, head, stream: snapshot.stream, open, told: None }
}
