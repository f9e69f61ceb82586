//! Frames of a handoff connection, after its preface. In: bytes of the connection, through [`Reader`]. Out: whole frames, for the
//! publisher's task (in the activator) or the stream's (in the worker); [`Writer`] is the other way.
//!
//! ```text
//!  type u8 | length u32, big endian | payload
//! ```
//!
//! Frames that hold secrets (assignment, destinations, checkpoint) are sealed: AES-256-GCM with a key per direction, a counter as nonce, the type as
//! additional data. Media is not sealed: the publisher sends it over the network in the clear anyway.
//!
//! A new type of frame is no new version: it goes only to a side that has said, on the control connection, that it takes it.
//!
//! Note: a checkpoint holds the stream key too, in the session's `publish`.

use std::fmt;
use std::io::IoSliceMut;

use bytes::{Buf, Bytes, BytesMut};
use ring::aead;

use super::assignment::Assignment;
use super::destinations::DestinationList;
use super::limits::{MAX_ASSIGNMENT_BYTES, MAX_DATA_BYTES, MAX_LIST_BYTES, MAX_SNAPSHOT_BYTES, MAX_TEXT_BYTES};
use super::snapshot::Snapshot;
use super::wire::WireError;

/// Type and length.
const HEAD_BYTES: usize = 5;
/// Authentication tag of AES-GCM.
const TAG_BYTES: usize = 16;

/// Largest buffer of a reader that is kept while data frames go elsewhere; the assignment needs a larger one, once.
const KEPT_BUFFER: usize = 256;

mod type_id {
    //! Frame types; a number is never reused for another frame.
    pub(super) const ASSIGN: u8 = 1;
    pub(super) const DATA: u8 = 2;
    pub(super) const END: u8 = 3;
    pub(super) const KICK: u8 = 4;
    pub(super) const DESTINATIONS: u8 = 5;
    pub(super) const ALIVE: u8 = 16;
    pub(super) const ACCEPTED: u8 = 32;
    pub(super) const RETURNED: u8 = 33;
    pub(super) const DUPLICATE: u8 = 34;
    pub(super) const STARTED: u8 = 35;
    pub(super) const REPLY: u8 = 36;
    pub(super) const CHECKPOINT: u8 = 37;
    pub(super) const DONE: u8 = 38;
    pub(super) const PARTED: u8 = 39;
}

/// The direction in which frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToWorker,
    ToActivator,
}

impl Direction {
    /// The longest payload of a type in this direction, in bytes, or `None` for a type that does not go this way.
    fn limit(self, type_id: u8) -> Option<usize> {
        let limit = match (self, type_id) {
            (_, type_id::ALIVE) => 0,
            (Self::ToWorker, type_id::ASSIGN) => MAX_ASSIGNMENT_BYTES + TAG_BYTES,
            (Self::ToWorker, type_id::DATA) => MAX_DATA_BYTES,
            (Self::ToWorker, type_id::END) => 1,
            (Self::ToWorker, type_id::KICK) => MAX_TEXT_BYTES,
            (Self::ToWorker, type_id::DESTINATIONS) => MAX_LIST_BYTES + TAG_BYTES,
            (Self::ToActivator, type_id::ACCEPTED | type_id::DUPLICATE | type_id::STARTED) => 0,
            (Self::ToActivator, type_id::RETURNED) => 1,
            (Self::ToActivator, type_id::REPLY) => MAX_DATA_BYTES,
            (Self::ToActivator, type_id::CHECKPOINT | type_id::PARTED) => MAX_SNAPSHOT_BYTES + TAG_BYTES,
            (Self::ToActivator, type_id::DONE) => 1 + MAX_TEXT_BYTES,
            _ => return None,
        };
        Some(limit)
    }
}

/// A frame.
#[derive(Clone, PartialEq)]
pub enum Frame {
    // From the activator.
    /// Take this stream. It is the first frame, and the only one of its kind; by descriptor, the publisher's socket and the ring's memory
    /// come with its first byte.
    Assign(Box<Assignment>),
    /// Bytes of the publisher (by link).
    Data(Bytes),
    /// No more bytes of the publisher will come (by link).
    End(PublisherEnd),
    /// End the stream, for this reason.
    Kick(String),
    /// The stream has these destinations from now on. For a worker that has said that it takes this frame.
    Destinations(Box<DestinationList>),
    // From both.
    /// Proof that the sender is alive.
    Alive,
    // From the worker.
    /// The worker has taken the stream.
    Accepted,
    /// The worker does not have the stream, or no longer: the activator offers it to another worker.
    Returned {
        /// Reason of the return.
        why: Decline,
    },
    /// The stream is live elsewhere already: the publisher is to be refused.
    Duplicate,
    /// The publisher has been told `Publish.Start`.
    Started,
    /// Bytes for the publisher (by link).
    Reply(Bytes),
    /// The worker holds all bytes of the publisher before the snapshot's position (by link).
    Checkpoint(Box<Snapshot>),
    /// The publisher has said goodbye: the stream has ended, and the connection is the activator's again, from this state on. By
    /// descriptor, bytes that the worker had read beyond that point come along as unread; the worker closes its duplicate of the socket
    /// first.
    Parted(Box<Snapshot>),
    /// The stream has ended. By link, the activator closes the publisher's connection in the way given here; by descriptor the worker has
    /// closed it.
    Done {
        /// Way to close the connection.
        how: Close,
        /// Text for logs.
        reason: String,
    },
}

/// The end of a publisher's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublisherEnd {
    /// The publisher closed its side.
    Fin,
    /// The connection broke.
    Reset,
    /// The publisher was silent for too long.
    Silent,
}

/// The way to close a publisher's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// Gracefully: everything written arrives.
    Graceful,
    /// Immediately, with a reset.
    Abort,
}

/// The reason why a worker does not have a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decline {
    /// The worker serves as many streams as it can.
    Full,
    /// The worker is draining and takes no more streams.
    Draining,
    /// An error on the worker's side.
    Other,
    /// The worker had the stream and is draining: its state is current, and another worker can resume the stream.
    Moving,
}

/// An error of the other side, or a sign that it is not the side that proved itself; the connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type that this side does not take.
    #[error("frame of type {0} is not expected")]
    Type(u8),
    /// Longer than its type may be, or (when written) longer than any frame may be.
    #[error("frame of type {type_id} would be {length} bytes long, at most {limit} are taken")]
    TooLong {
        /// Type of the frame.
        type_id: u8,
        /// Length of its payload, in bytes.
        length: usize,
        /// Longest payload that is allowed, in bytes.
        limit: usize,
    },
    /// The payload does not fit its type.
    #[error("frame of type {0} cannot be read")]
    Malformed(u8),
    /// A sealed frame was made with another key, changed, repeated or left out.
    #[error("frame of type {0} is not sealed with this session's key")]
    Seal(u8),
    /// An error in the assignment or snapshot that the frame holds.
    #[error("frame holds something wrong: {0}")]
    Content(#[from] WireError),
}

/// The key of one direction, and the number of frames that were sealed with it.
pub(super) struct Seal {
    key: aead::LessSafeKey,
    next: u64,
}

impl Seal {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let Ok(key) = aead::UnboundKey::new(&aead::AES_256_GCM, key) else {
            unreachable!("the key has the right length")
        };
        Self { key: aead::LessSafeKey::new(key), next: 0 }
    }

    /// The next nonce: each number is used once per key and direction. The other side counts too, so a frame repeated or left out is
    /// noticed.
    fn nonce(&mut self) -> aead::Nonce {
        let mut nonce = [0; aead::NONCE_LEN];
        nonce[4..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        aead::Nonce::assume_unique_for_key(nonce)
    }

    fn close(&mut self, type_id: u8, mut payload: Vec<u8>) -> Result<Vec<u8>, FrameError> {
        let nonce = self.nonce();
        let sealed = self.key.seal_in_place_append_tag(nonce, aead::Aad::from([type_id]), &mut payload);
        sealed.map_err(|_| FrameError::Seal(type_id))?;
        Ok(payload)
    }

    fn open<'a>(&mut self, type_id: u8, payload: &'a mut [u8]) -> Result<&'a [u8], FrameError> {
        let nonce = self.nonce();
        let opened = self.key.open_in_place(nonce, aead::Aad::from([type_id]), payload);
        opened.map(|payload| &*payload).map_err(|_| FrameError::Seal(type_id))
    }
}

/// Reads frames. Fill [`Self::buffer`], then take [`Self::next`] until it is `None`: so it never holds more than the longest frame and the
/// bytes of one read.
pub struct Reader {
    direction: Direction,
    seal: Seal,
    buffer: BytesMut,
    /// The assignment has come: it comes first and once.
    assigned: bool,
    /// Bytes of the present data frame that have not been taken.
    data_left: usize,
    /// Room for the header of the next frame, while its bytes are received elsewhere.
    head: [u8; HEAD_BYTES],
    failed: Option<FrameError>,
}

impl Reader {
    pub(super) fn new(direction: Direction, seal: Seal) -> Self {
        let buffer = BytesMut::new();
        Self { direction, seal, buffer, assigned: false, data_left: 0, head: [0; HEAD_BYTES], failed: None }
    }

    /// The buffer to which the next bytes of the connection are appended: `socket.read_buf(reader.buffer())`. Bytes that the preface did
    /// not use come first.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame. Its `Data` and `Reply` share the buffer's memory. `None`: more bytes are needed.
    ///
    /// # Errors
    /// The connection is of no further use; further calls return the same error.
    #[expect(clippy::should_implement_trait, reason = "it is fed between calls, so it is no iterator")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let frame = self.read();
        self.failed = frame.as_ref().err().copied();
        frame
    }

    fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.data_left > 0 {
            let rest = self.buffer.split_to(self.data_left.min(self.buffer.len()));
            self.data_left -= rest.len();
            return Ok((!rest.is_empty()).then(|| Frame::Data(rest.freeze())));
        }
        let Some(head) = self.buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let (type_id, length) = self.check(*head)?;
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let payload = self.buffer.split_to(length);
        self.assigned |= type_id == type_id::ASSIGN;
        self.parse(type_id, payload).map(Some)
    }

    /// The type and the length of the frame with this header, if such a frame may come now.
    fn check(&self, [type_id, a, b, c, d]: [u8; HEAD_BYTES]) -> Result<(u8, usize), FrameError> {
        let limit = self.direction.limit(type_id).ok_or(FrameError::Type(type_id))?;
        if self.direction == Direction::ToWorker && self.assigned == (type_id == type_id::ASSIGN) {
            return Err(FrameError::Type(type_id));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > limit { Err(FrameError::TooLong { type_id, length, limit }) } else { Ok((type_id, length)) }
    }

    /// Copies the publisher's bytes that [`Self::buffer`] begins with into `space`, without the headers of their frames, and returns their
    /// number.
    ///
    /// # Errors
    /// As those of [`Self::next`].
    pub fn take_data(&mut self, space: &mut [u8]) -> Result<usize, FrameError> {
        let mut taken = 0;
        while !self.buffer.is_empty() {
            if self.data_left == 0 {
                let Some(head) = self.buffer.first_chunk::<HEAD_BYTES>() else { break };
                if head[0] != type_id::DATA {
                    break;
                }
                self.data_left = self.begin(*head)?;
                self.buffer.advance(HEAD_BYTES);
                continue;
            }
            let len = self.data_left.min(self.buffer.len()).min(space.len() - taken);
            if len == 0 {
                break;
            }
            self.buffer.copy_to_slice(&mut space[taken..taken + len]);
            self.data_left -= len;
            taken += len;
        }
        Ok(taken)
    }

    /// The memory to receive the next bytes of the connection into, in this order, so that the publisher's bytes land in `space` without a
    /// copy; [`Self::received`] follows. It expects a data frame, as nearly every frame is one. `None`: [`Self::buffer`] holds a part of
    /// another frame and is to be filled.
    pub fn parts<'a>(&'a mut self, space: &'a mut [u8]) -> Option<[IoSliceMut<'a>; 2]> {
        if !self.buffer.is_empty() {
            return None;
        }
        if self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = BytesMut::new();
        }
        Some(match self.data_left {
            0 => [IoSliceMut::new(&mut self.head), IoSliceMut::new(space)],
            // The header of the next frame comes along.
            left if left <= space.len() => [IoSliceMut::new(&mut space[..left]), IoSliceMut::new(&mut self.head)],
            _ => [IoSliceMut::new(space), IoSliceMut::new(&mut [])],
        })
    }

    /// Counts the first `count` bytes of the last [`Self::parts`], made with the same `space`, as received. Returns the number of the publisher's
    /// bytes, which `space` begins with; everything else is in [`Self::buffer`].
    ///
    /// # Errors
    /// As those of [`Self::next`].
    pub fn received(&mut self, space: &mut [u8], count: usize) -> Result<usize, FrameError> {
        if self.data_left > 0 {
            let len = count.min(self.data_left).min(space.len());
            self.data_left -= len;
            self.buffer.extend_from_slice(&self.head[..count - len]);
            return Ok(len);
        }
        let Some(end) = count.checked_sub(HEAD_BYTES) else {
            self.buffer.extend_from_slice(&self.head[..count]);
            return Ok(0);
        };
        let (mut head, mut taken, mut at) = (self.head, 0, 0);
        while head[0] == type_id::DATA {
            let length = self.begin(head)?;
            let len = length.min(end - at);
            // Nothing moves for the first frame.
            space.copy_within(at..at + len, taken);
            (taken, at) = (taken + len, at + len);
            self.data_left = length - len;
            let Some(next) = space[at..end].first_chunk() else {
                self.buffer.extend_from_slice(&space[at..end]);
                return Ok(taken);
            };
            (head, at) = (*next, at + HEAD_BYTES);
        }
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(&space[at..end]);
        Ok(taken)
    }

    /// Begins a data frame, and returns its length.
    fn begin(&mut self, head: [u8; HEAD_BYTES]) -> Result<usize, FrameError> {
        let length = self.failed.map_or_else(|| self.check(head), Err).map(|(_, length)| length);
        self.failed = length.err();
        length
    }

    /// Returns whether there is something to take without receiving: bytes of the publisher, a whole frame or an error.
    #[must_use]
    pub fn has_more(&self) -> bool {
        if self.data_left > 0 || self.failed.is_some() {
            return self.failed.is_some() || !self.buffer.is_empty();
        }
        let Some(head) = self.buffer.first_chunk::<HEAD_BYTES>() else { return false };
        match self.check(*head) {
            Ok((type_id, length)) => {
                let wanted = if type_id == type_id::DATA { length.min(1) } else { length };
                self.buffer.len() >= HEAD_BYTES + wanted
            }
            Err(_) => true,
        }
    }

    fn parse(&mut self, type_id: u8, mut payload: BytesMut) -> Result<Frame, FrameError> {
        let malformed = FrameError::Malformed(type_id);
        let frame = match type_id {
            type_id::ASSIGN => Frame::Assign(Box::new(Assignment::decode(self.seal.open(type_id, &mut payload)?)?)),
            type_id::DATA => Frame::Data(payload.freeze()),
            type_id::END => Frame::End(one(&payload, &END_CODES).ok_or(malformed)?),
            type_id::KICK => Frame::Kick(text(&payload).ok_or(malformed)?),
            type_id::DESTINATIONS => {
                Frame::Destinations(Box::new(DestinationList::decode(self.seal.open(type_id, &mut payload)?)?))
            }
            type_id::REPLY => Frame::Reply(payload.freeze()),
            type_id::RETURNED => Frame::Returned { why: one(&payload, &DECLINE_CODES).ok_or(malformed)? },
            type_id::CHECKPOINT => {
                Frame::Checkpoint(Box::new(Snapshot::decode(self.seal.open(type_id, &mut payload)?)?))
            }
            type_id::PARTED => Frame::Parted(Box::new(Snapshot::decode(self.seal.open(type_id, &mut payload)?)?)),
            type_id::DONE => {
                let (how, reason) = payload.split_at_checked(1).ok_or(malformed)?;
                let how = one(how, &CLOSE_CODES).ok_or(malformed)?;
                Frame::Done { how, reason: text(reason).ok_or(malformed)? }
            }
            // Their limit is 0 bytes, so their payload is empty.
            type_id::ACCEPTED => Frame::Accepted,
            type_id::DUPLICATE => Frame::Duplicate,
            type_id::STARTED => Frame::Started,
            type_id::ALIVE => Frame::Alive,
            _ => return Err(FrameError::Type(type_id)),
        };
        Ok(frame)
    }
}

/// Writes frames.
pub struct Writer {
    seal: Seal,
}

impl Writer {
    pub(super) fn new(seal: Seal) -> Self {
        Self { seal }
    }

    /// Appends a frame to `out`. Long `Data` and `Reply` become several frames, empty ones none; text is cut to its limit.
    ///
    /// # Errors
    /// A part of an assignment, list or snapshot is larger than its limit; nothing was appended.
    pub fn write(&mut self, out: &mut Vec<u8>, frame: &Frame) -> Result<(), FrameError> {
        match frame {
            Frame::Assign(assignment) => {
                assignment.check()?;
                let sealed = self.seal.close(type_id::ASSIGN, assignment.encode())?;
                put(out, type_id::ASSIGN, &[&sealed]);
            }
            Frame::Data(bytes) => bytes.chunks(MAX_DATA_BYTES).for_each(|part| put(out, type_id::DATA, &[part])),
            Frame::End(end) => put(out, type_id::END, &[&[code(*end, &END_CODES)]]),
            Frame::Kick(reason) => put(out, type_id::KICK, &[cut(reason).as_bytes()]),
            Frame::Destinations(list) => {
                list.check()?;
                let sealed = self.seal.close(type_id::DESTINATIONS, list.encode())?;
                put(out, type_id::DESTINATIONS, &[&sealed]);
            }
            Frame::Alive => put(out, type_id::ALIVE, &[]),
            Frame::Accepted => put(out, type_id::ACCEPTED, &[]),
            Frame::Returned { why } => put(out, type_id::RETURNED, &[&[code(*why, &DECLINE_CODES)]]),
            Frame::Duplicate => put(out, type_id::DUPLICATE, &[]),
            Frame::Started => put(out, type_id::STARTED, &[]),
            Frame::Reply(bytes) => bytes.chunks(MAX_DATA_BYTES).for_each(|part| put(out, type_id::REPLY, &[part])),
            Frame::Checkpoint(snapshot) => {
                snapshot.check()?;
                let sealed = self.seal.close(type_id::CHECKPOINT, snapshot.encode())?;
                put(out, type_id::CHECKPOINT, &[&sealed]);
            }
            Frame::Parted(snapshot) => {
                snapshot.check()?;
                let sealed = self.seal.close(type_id::PARTED, snapshot.encode())?;
                put(out, type_id::PARTED, &[&sealed]);
            }
            Frame::Done { how, reason } => {
                put(out, type_id::DONE, &[&[code(*how, &CLOSE_CODES)], cut(reason).as_bytes()]);
            }
        }
        Ok(())
    }
}

/// The header of a `Data` frame, so that its bytes can be written from the memory in which they lie.
///
/// # Panics
/// `length` is more than [`MAX_DATA_BYTES`].
#[must_use]
pub fn data_header(length: usize) -> [u8; HEAD_BYTES] {
    assert!(length <= MAX_DATA_BYTES, "one frame takes no more");
    header(type_id::DATA, length)
}

fn header(type_id: u8, length: usize) -> [u8; HEAD_BYTES] {
    // Every limit fits into 32 bits.
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [type_id, a, b, c, d]
}

fn put(out: &mut Vec<u8>, type_id: u8, parts: &[&[u8]]) {
    out.extend_from_slice(&header(type_id, parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

const END_CODES: [(u8, PublisherEnd); 3] =
    [(0, PublisherEnd::Fin), (1, PublisherEnd::Reset), (2, PublisherEnd::Silent)];
const CLOSE_CODES: [(u8, Close); 2] = [(0, Close::Graceful), (1, Close::Abort)];
const DECLINE_CODES: [(u8, Decline); 4] =
    [(0, Decline::Other), (1, Decline::Full), (2, Decline::Draining), (3, Decline::Moving)];

fn one<T: Copy>(payload: &[u8], codes: &[(u8, T)]) -> Option<T> {
    let &[code] = payload else { return None };
    codes.iter().find(|(known, _)| *known == code).map(|(_, value)| *value)
}

fn code<T: Copy + PartialEq>(value: T, codes: &[(u8, T)]) -> u8 {
    codes.iter().find(|(_, known)| *known == value).map_or(0, |(code, _)| *code)
}

fn text(payload: &[u8]) -> Option<String> {
    String::from_utf8(payload.to_vec()).ok()
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("direction", &self.direction)
            .field("buffered", &self.buffer.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// Shows the number of a publisher's bytes, never the bytes.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assign(assignment) => f.debug_tuple("Assign").field(assignment).finish(),
            Self::Data(bytes) => write!(f, "Data({} bytes)", bytes.len()),
            Self::End(end) => f.debug_tuple("End").field(end).finish(),
            Self::Kick(reason) => f.debug_tuple("Kick").field(reason).finish(),
            Self::Destinations(list) => f.debug_tuple("Destinations").field(list).finish(),
            Self::Alive => f.write_str("Alive"),
            Self::Accepted => f.write_str("Accepted"),
            Self::Returned { why } => f.debug_struct("Returned").field("why", why).finish(),
            Self::Duplicate => f.write_str("Duplicate"),
            Self::Started => f.write_str("Started"),
            Self::Reply(bytes) => write!(f, "Reply({} bytes)", bytes.len()),
            Self::Checkpoint(snapshot) => f.debug_tuple("Checkpoint").field(snapshot).finish(),
            Self::Parted(snapshot) => f.debug_tuple("Parted").field(snapshot).finish(),
            Self::Done { how, reason } => f.debug_struct("Done").field("how", how).field("reason", reason).finish(),
        }
    }
}
