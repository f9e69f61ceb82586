//! The point from which a publisher's connection is read on. In: a stream that was handed over. Out: a session at a position, with the bytes
//! behind that position in the ring. Next room: [`super::task`].
//!
//! By descriptor, a publisher that another worker had before is wherever the kernel says it was read to. The state page says from which
//! position the bytes in the ring can be understood; nothing vouches for the page, so it is taken only if all of it fits.
//!
//! Note: the worker that died may have been killed inside a `recv`. That read may have overwritten the oldest bytes of the ring without
//! moving the position: hence a successor counts on [`READ_BYTES`] less than the whole ring.

use std::io;

use liveedgecast_common::handoff::{Assignment, Snapshot, StreamState, page};
use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::server::ServerSession;
use liveedgecast_common::sys::{self, RingMemory};

use super::index::Segment;
use super::{IncomingStream, PublisherHandoff, StreamCommand};

/// Bytes of one read at most: a socket of a fast publisher has that many after a few milliseconds.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Bytes to read into at once, for a ring of this size.
pub(super) fn read_room(capacity: usize) -> usize {
    READ_BYTES.min(capacity / 4)
}

/// A publisher whose connection can be read on from here.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) assignment: Assignment,
    pub(super) publisher: PublisherHandoff,
    /// The publisher's ring. `None`: the one that the stream has mapped already.
    pub(super) ring: Option<RingMemory>,
    /// The publisher's session: every byte before its position has been understood.
    pub(super) session: ServerSession,
    /// Position of the connection up to which every byte has been received.
    pub(super) head: u64,
    pub(super) stream: Option<StreamState>,
    /// Open media messages: of each the header, and the number of its bytes received before the session's position.
    pub(super) open: Vec<(MessageHeader, Option<Segment>)>,
    /// A command of the engine that came while the stream waited for the end of the one before.
    pub(super) told: Option<StreamCommand>,
}

/// A publisher after a failed resume.
#[derive(Debug)]
pub(super) struct NotResumed {
    pub(super) error: ResumeError,
    pub(super) assignment: Assignment,
    pub(super) publisher: PublisherHandoff,
}

/// The cause of a failed resume.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResumeError {
    #[error("the publisher's connection cannot be asked how far it was read: {0}")]
    Position(io::Error),
    #[error("neither the state page nor the assignment fits the publisher's connection")]
    State,
    #[error("no ring for the stream: {0}")]
    Memory(io::Error),
}

/// Finds the point to read on from, and puts the bytes that came with the assignment into the ring. `mapped`: the ring of the stream that the
/// publisher is handed over to; a publisher that is handed over once more to the same stream comes with the same memory.
pub(super) fn prepare(incoming: IncomingStream, mapped: Option<&mut RingMemory>) -> Result<Prepared, Box<NotResumed>> {
    let IncomingStream { assignment, publisher, ring: memory } = incoming;
    let mut own = None;
    let ring = match mapped.filter(|mapped| mapped.is_of(&memory)) {
        Some(mapped) => Ok(mapped),
        None => match &publisher {
            PublisherHandoff::Descriptor { .. } => memory.map_growing(),
            PublisherHandoff::Link { .. } => memory.map(),
        }
        .map(|mapped| own.insert(mapped)),
    };
    let found = ring.map_err(ResumeError::Memory).and_then(|ring| {
        let found = find(&assignment, &publisher, ring)?;
        let open = take_up(&found, ring);
        Ok((found, open))
    });
    match found {
        Ok((Found { session, snapshot, head }, open)) => {
            Ok(Prepared { assignment, publisher, ring: own, session, head, stream: snapshot.stream, open, told: None })
        }
        Err(error) => Err(Box::new(NotResumed { error, assignment, publisher })),
    }
}

struct Found {
    session: ServerSession,
    snapshot: Snapshot,
    head: u64,
}

fn find(assignment: &Assignment, publisher: &PublisherHandoff, ring: &RingMemory) -> Result<Found, ResumeError> {
    let given = &assignment.snapshot;
    let given_head = given.session.position() + given.unread.len() as u64;
    let (head, published) = match publisher {
        PublisherHandoff::Descriptor { socket, .. } if assignment.resumed => {
            (sys::bytes_received(socket).map_err(ResumeError::Position)?, page::read(ring.page()))
        }
        _ => (given_head, None),
    };
    // A page of another connection, or an older one, would be before where this one began.
    let published =
        published.filter(|page| page.session.position() >= given.session.position() && page.unread.is_empty());
    let candidates = published.into_iter().chain(std::iter::once(given.clone()));
    for snapshot in candidates {
        if let Some(session) = fits(&snapshot, head, ring.capacity()) {
            return Ok(Found { session, snapshot, head });
        }
    }
    Err(ResumeError::State)
}

/// The session of the snapshot, if all bytes from its position to `head` are in a ring of that size.
fn fits(snapshot: &Snapshot, head: u64, capacity: usize) -> Option<ServerSession> {
    let position = snapshot.session.position();
    let reach = (capacity - read_room(capacity)) as u64;
    if position + (snapshot.unread.len() as u64) > head || head - position > reach {
        return None;
    }
    let session = ServerSession::restore(&snapshot.session).ok()?;
    (session.publish().is_some() && !session.is_ended()).then_some(session)
}

/// Puts the bytes that a snapshot has into the ring, and returns the open media messages.
fn take_up(found: &Found, ring: &mut RingMemory) -> Vec<(MessageHeader, Option<Segment>)> {
    let Found { session, snapshot, head } = found;
    let position = session.position();
    let unread = &snapshot.unread;
    ring.space(position, unread.len()).copy_from_slice(unread);
    // The bytes of open messages from before the snapshot go where they look as if they had been received just before the position.
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
    open
}
