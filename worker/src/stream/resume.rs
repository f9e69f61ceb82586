//! The point from which a publisher's connection is read on. In: a stream that was handed over. Out: a session at a position, with the bytes
//! behind that position in the ring. Next room: [`super::task`].
//!
//! By descriptor, a publisher that another worker had before is wherever the kernel says it was read to. The state page says from which
//! position the bytes in the ring can be understood; nothing vouches for the page, so it is taken only if all of it fits.
//!
//! Note: the worker that died may have been killed inside a `recv`. That read may have overwritten the oldest bytes of the ring without
//! moving the position: hence a successor counts on the lap in use without the room of a read ([`read_room`]).

use std::io;

use liveedgecast_common::handoff::{Assignment, Snapshot, StreamState, page};
use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::server::ServerSession;
use liveedgecast_common::sys::{self, RingMemory, UnmappedRing};

use super::index::Segment;
use super::{IncomingStream, PublisherHandoff, StreamCommand};
use crate::receive::FetchedRing;

/// Bytes of one read at most: a socket of a fast publisher has that many after a few milliseconds.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Bytes to read into at once, for a ring of this size.
pub(super) fn read_room(capacity: usize) -> usize {
    READ_BYTES.min(capacity / 4)
}

/// Bytes in front of the head that are there for certain, in a ring of this size: all but the room of a read. A successor counts on them, and
/// a message that takes no more fits.
pub(super) fn reach(capacity: usize) -> u64 {
    (capacity - read_room(capacity)) as u64
}

/// Bytes of a message with so many bytes of payload, with chunk headers of up to eight bytes at the smallest chunk size in use (128).
pub(super) fn with_chunk_headers(payload: u32) -> u64 {
    u64::from(payload) + u64::from(payload / 16)
}

/// A publisher whose connection can be read on from here.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) assignment: Assignment,
    pub(super) publisher: PublisherHandoff,
    pub(super) ring: PreparedRing,
    pub(super) point: ResumePoint,
    /// A command of the engine that came while the stream waited for the end of the one before.
    pub(super) told: Option<StreamCommand>,
}

/// The ring of a publisher that is ready.
#[derive(Debug)]
pub(super) enum PreparedRing {
    /// One of its own.
    Own(RingMemory),
    /// The ring of the stream that the publisher came to: that stream has its memory mapped already.
    Same(UnmappedRing),
}

/// The point to read on from.
#[derive(Debug)]
pub(super) struct ResumePoint {
    /// The publisher's session: every byte before its position has been understood.
    pub(super) session: ServerSession,
    /// Position of the connection up to which every byte has been received.
    pub(super) head: u64,
    /// The snapshot that the session is from.
    snapshot: Snapshot,
    /// The ring is this publisher's alone, so that it may grow before the first read.
    own_ring: bool,
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

/// Finds the point to read on from, and writes nothing. `mapped`: the ring of the stream that the publisher is handed over to; a publisher
/// that is handed over once more to the same stream comes with the same memory.
pub(super) fn prepare(incoming: IncomingStream, mapped: Option<&RingMemory>) -> Result<Prepared, Box<NotResumed>> {
    let IncomingStream { assignment, publisher, ring } = incoming;
    let ring = match ring {
        FetchedRing::Mapped(ring) => Ok(PreparedRing::Own(ring)),
        FetchedRing::Unmapped(memory) if mapped.is_some_and(|mapped| mapped.is_of(&memory)) => {
            Ok(PreparedRing::Same(memory))
        }
        // The stream that had it mapped has ended since, or its publisher is another one by now.
        FetchedRing::Unmapped(memory) => memory.map().map(PreparedRing::Own).map_err(ResumeError::Memory),
    };
    let found = ring.and_then(|ring| {
        let known = match &ring {
            PreparedRing::Own(own) => Some(own),
            PreparedRing::Same(_) => mapped,
        };
        let own = matches!(ring, PreparedRing::Own(_));
        let point = known.map_or(Err(ResumeError::State), |known| find(&assignment, &publisher, known, own))?;
        Ok((ring, point))
    });
    match found {
        Ok((ring, point)) => Ok(Prepared { assignment, publisher, ring, point, told: None }),
        Err(error) => Err(Box::new(NotResumed { error, assignment, publisher })),
    }
}

impl Prepared {
    /// Begins a stream with a publisher that waited for the end of the stream before, whose rings are unmapped.
    pub(super) fn after_the_end(self) -> Result<Self, Box<NotResumed>> {
        let Self { assignment, publisher, ring, point, told } = self;
        match ring {
            PreparedRing::Own(_) => Ok(Self { assignment, publisher, ring, point, told }),
            PreparedRing::Same(memory) => {
                let ring = FetchedRing::Unmapped(memory);
                Ok(Self { told, ..prepare(IncomingStream { assignment, publisher, ring }, None)? })
            }
        }
    }
}

fn find(
    assignment: &Assignment,
    publisher: &PublisherHandoff,
    ring: &RingMemory,
    own_ring: bool,
) -> Result<ResumePoint, ResumeError> {
    let given = &assignment.snapshot;
    let given_head = given.session.position() + given.unread.len() as u64;
    let (head, published, ring_bytes) = match publisher {
        PublisherHandoff::Descriptor { socket, .. } if assignment.resumed => {
            let head = sys::bytes_received(socket).map_err(ResumeError::Position)?;
            (head, page::read(ring.page()), ring.capacity())
        }
        // Nothing has been received into the ring, so that it can grow to what comes with the snapshot.
        _ => (given_head, None, if own_ring { ring.most() } else { ring.capacity() }),
    };
    // A page of another connection, or an older one, would be before where this one began.
    let published =
        published.filter(|page| page.session.position() >= given.session.position() && page.unread.is_empty());
    let candidates = published.into_iter().chain(std::iter::once(given.clone()));
    for snapshot in candidates {
        if let Some(session) = fits(&snapshot, head, ring_bytes) {
            return Ok(ResumePoint { session, snapshot, head, own_ring });
        }
    }
    Err(ResumeError::State)
}

/// The session of the snapshot, if all bytes from its position to `head` are in a ring of that size.
fn fits(snapshot: &Snapshot, head: u64, capacity: usize) -> Option<ServerSession> {
    let position = snapshot.session.position();
    if position + (snapshot.unread.len() as u64) > head || head - position > reach(capacity) {
        return None;
    }
    let session = ServerSession::restore(&snapshot.session).ok()?;
    (session.publish().is_some() && !session.is_ended()).then_some(session)
}

impl ResumePoint {
    /// Puts the bytes that came with the snapshot into the publisher's ring, and returns the open media messages: the header, and the bytes
    /// that were received of each before the session's position.
    pub(super) fn take_up(&self, ring: &mut RingMemory) -> Vec<(MessageHeader, Option<Segment>)> {
        let Self { session, snapshot, head, own_ring } = self;
        let position = session.position();
        let unread = &snapshot.unread;
        let kept = snapshot.stream.iter().flat_map(|stream| &stream.open).map(|open| open.received.len() as u64);
        let wanted = head - position + kept.sum::<u64>();
        // The bytes in front of the head that the snapshot does not bring are in the ring.
        let received = position + unread.len() as u64;
        while *own_ring && wanted > reach(ring.capacity()) && ring.grow(received, *head) {}
        ring.space(position, unread.len()).copy_from_slice(unread);
        // The bytes of open messages from before the snapshot go where they look as if they had been received just before the position.
        let mut before = position;
        let mut open = Vec::new();
        for (header, received) in snapshot.session.open_media() {
            let kept = snapshot.stream.iter().flat_map(|stream| &stream.open).find(|open| open.csid == header.csid);
            let Some(kept) = kept.filter(|kept| kept.received.len() == received as usize) else { continue };
            let Some(start) = before.checked_sub(u64::from(received)) else { continue };
            if head - start > reach(ring.capacity()) {
                continue;
            }
            ring.space(start, received as usize).copy_from_slice(&kept.received);
            open.push((header, (received > 0).then_some(Segment { position: start, len: received })));
            before = start;
        }
        open
    }

    /// The stream's state of the snapshot.
    pub(super) fn stream(&self) -> Option<&StreamState> {
        self.snapshot.stream.as_ref()
    }
}
