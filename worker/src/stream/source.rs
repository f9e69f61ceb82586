//! The publisher's connection while it is this stream's: bytes in, answers out, by descriptor or by link. Part of the shell.
//!
//! What surprised us: after a read that did not fill its room the socket is empty, and asking it again would cost as much as the read. So
//! the readiness is given back at once, which the runtime only lets us do by claiming that the read would have blocked.
//!
//! A successor treats every answer from before the snapshot as sent. So the answers go first: by link they are in front of the checkpoint on
//! the same connection, by descriptor they are written, and what the publisher's socket does not take goes into the snapshot. A publisher
//! with a small window is answered at every message, and would never be without an answer under way.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use liveedgecast_common::handoff::limits::MAX_UNCHECKED_BYTES;
use liveedgecast_common::handoff::{Assignment, Close, Frame, PublisherEnd, Snapshot, page};
use liveedgecast_common::rtmp::limits::FULL_OUTPUT;
use liveedgecast_common::rtmp::server::{Refusal, ServerSession};
use liveedgecast_common::sys::RingMemory;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Publisher;
use super::ending::Ending;
use super::resume::read_room;
use crate::receive::HandoffStream;

/// A link's sign of life, when nothing else is to be said: the activator gives a worker up after 2 s.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// A link on which nothing has come for this long is lost, though nobody said so. The activator speaks every 500 ms; one that was
/// stopped for a moment must not cost a publisher.
const LINK_SILENT_AFTER: Duration = Duration::from_secs(10);
/// By link, a snapshot at the next message after so many bytes: a successor has that much less to read again.
const LINK_SNAPSHOT_BYTES: u64 = 1 << 20;
/// Another snapshot only after so many bytes, however long the message is that begins: a publisher may begin one with every dozen bytes, and
/// what is behind the last snapshot is that much at most.
const SNAPSHOT_STEP: u64 = 64 << 10;
/// Without a keyframe, a snapshot this often: what a successor would repeat of a stream that is audio alone.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// Streams in which every frame is a keyframe need no snapshot of each.
const MIN_SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);
/// What has come.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The socket can be read.
    Readable,
    /// Bytes, by link.
    Bytes(Bytes),
    /// The publisher is gone.
    Lost(&'static str, Close),
    /// The activator wants it ended.
    Kick(String),
}

pub(super) struct Source {
    /// By descriptor.
    socket: Option<TcpStream>,
    /// `None`: the activator is gone (by descriptor; by link, so is the publisher).
    control: Option<HandoffStream>,
    pub(super) session: ServerSession,
    /// Everything before it has been received.
    pub(super) head: u64,
    /// Messages that were complete before this position are known already: the connection was handed over again.
    pub(super) known_before: u64,
    output: Vec<u8>,
    alive_at: Instant,
    /// When the activator was heard last, by link.
    heard: Instant,
    /// Position of the last snapshot that was published.
    snapshot: u64,
    /// When the last snapshot was made, published or not.
    made: Option<Instant>,
    /// There is news that a successor must know: that the publisher was told to start.
    snapshot_due: bool,
    /// It was logged that a snapshot is too large.
    told_of_large: bool,
}

impl Source {
    pub(super) fn new(now: Instant, publisher: Publisher, session: ServerSession, head: u64) -> Self {
        let (socket, control) = match publisher {
            Publisher::Descriptor { socket, control } => (Some(socket), control),
            Publisher::Link { control } => (None, control),
        };
        let position = session.position();
        let mut source = Self {
            socket,
            control: Some(control),
            session,
            head,
            known_before: 0,
            output: Vec::new(),
            alive_at: now,
            heard: now,
            snapshot: position,
            made: None,
            snapshot_due: false,
            told_of_large: false,
        };
        source.say(&Frame::Accepted);
        if source.session.is_started() {
            // By a worker before: its activator may not have heard of it.
            source.say(&Frame::Started);
        }
        source
    }

    pub(super) fn is_link(&self) -> bool {
        self.socket.is_none()
    }

    /// Whether there is an activator that the publisher could be given back to.
    pub(super) fn has_activator(&self) -> bool {
        self.control.is_some()
    }

    /// The next thing of the publisher or its activator.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Arrival> {
        while let Some(control) = &mut self.control {
            let frame = match control.poll_frame(cx) {
                Poll::Pending if self.socket.is_none() && self.heard + LINK_SILENT_AFTER <= now => {
                    if control.has_more() {
                        self.heard = now;
                        continue;
                    }
                    return Poll::Ready(Arrival::Lost("link silent", Close::Abort));
                }
                Poll::Pending => break,
                Poll::Ready(frame) => frame,
            };
            self.heard = now;
            match frame {
                Ok(Frame::Data(bytes)) if self.socket.is_none() => return Poll::Ready(Arrival::Bytes(bytes)),
                Ok(Frame::End(end)) => return Poll::Ready(lost(end)),
                Ok(Frame::Kick(reason)) => return Poll::Ready(Arrival::Kick(reason)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "connection to the activator lost");
                    self.control = None;
                }
            }
        }
        match &self.socket {
            Some(socket) => match ready!(socket.poll_read_ready(cx)) {
                Ok(()) => Poll::Ready(Arrival::Readable),
                Err(_) => Poll::Ready(Arrival::Lost("connection broken", Close::Abort)),
            },
            None if self.control.is_none() => Poll::Ready(Arrival::Lost("link lost", Close::Abort)),
            None => Poll::Pending,
        }
    }

    /// Receives into the ring, at most `room` bytes. `Ok(None)`: nothing there.
    pub(super) fn receive(&mut self, ring: &mut RingMemory, room: usize) -> Result<Option<usize>, Arrival> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let space = ring.space(self.head, room);
        let mut received = None;
        let result = socket.try_io(Interest::READABLE, || {
            let (count, _) = rustix::net::recv(socket, &mut *space, RecvFlags::empty())?;
            received = Some(count);
            if count > 0 && count < space.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (received, result) {
            (Some(0), _) => Err(Arrival::Lost("connection closed", Close::Graceful)),
            (Some(count), _) => {
                self.head += count as u64;
                Ok(Some(count))
            }
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            (None, _) => Err(Arrival::Lost("connection broken", Close::Abort)),
        }
    }

    /// Takes the session's answers over and writes what can be written. `Err`: the connection broke.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Arrival> {
        let broken = Arrival::Lost("connection broken", Close::Abort);
        loop {
            if self.answer().is_err() {
                return Err(broken);
            }
            match &self.socket {
                Some(socket) if !self.output.is_empty() => match socket.poll_write_ready(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(_)) => return Err(broken),
                    Poll::Ready(Ok(())) => {}
                },
                // The answers that a full output had no room for: without them, nothing would wake this task.
                _ if self.session.has_output() => {}
                _ => break,
            }
        }
        if self.is_link() && self.alive_at <= now {
            self.alive_at = now + ALIVE_INTERVAL;
            self.say(&Frame::Alive);
        }
        if let Some(control) = &mut self.control
            && let Poll::Ready(Err(error)) = control.poll_flush(cx)
        {
            tracing::debug!(%error, "connection to the activator lost");
            self.control = None;
        }
        Ok(())
    }

    /// Sends the session's answers on: by link all of them, by descriptor what the socket takes. A full one leaves them with the session, which
    /// keeps them few.
    fn answer(&mut self) -> io::Result<()> {
        if self.session.has_output() && self.output.len() < FULL_OUTPUT {
            self.output.extend(self.session.take_output());
        }
        if self.output.is_empty() {
            return Ok(());
        }
        let Some(socket) = &self.socket else {
            let bytes = Bytes::from(std::mem::take(&mut self.output));
            self.say(&Frame::Reply(bytes));
            return Ok(());
        };
        while !self.output.is_empty() {
            match socket.try_write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The bytes that the publisher has not been sent.
    fn unsent(&self) -> Vec<u8> {
        [&self.output, self.session.output()].concat()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let link = self.is_link() && self.control.is_some();
        link.then(|| self.alive_at.min(self.heard + LINK_SILENT_AFTER))
    }

    fn say(&mut self, frame: &Frame) {
        let Some(control) = &mut self.control else { return };
        if let Err(error) = control.queue(frame) {
            tracing::debug!(%error, "the activator does not listen");
            self.control = None;
        }
    }

    /// `Publish.Start`, and a snapshot that says so as soon as it is written.
    pub(super) fn start(&mut self) {
        self.session.accept_publish();
        self.say(&Frame::Started);
        self.snapshot_due = true;
    }

    /// The publisher is told to start, which makes it come again when it is closed, and the activator is not: nothing has started.
    pub(super) fn send_away(&mut self) {
        self.session.accept_publish();
    }

    pub(super) fn refuse(&mut self, text: &str) {
        self.session.refuse_publish(Refusal::BadName, text);
    }

    /// Whether a snapshot is to be made now that a message has begun.
    pub(super) fn wants_snapshot(&self, now: Instant, keyframe: bool, has_video: bool) -> bool {
        let age = self.made.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        (keyframe && age >= MIN_SNAPSHOT_INTERVAL) || (!has_video && age >= SNAPSHOT_INTERVAL)
    }

    /// A snapshot has been made.
    pub(super) fn snapshot_made(&mut self, now: Instant) {
        self.made = Some(now);
    }

    /// Whether a successor would have to go back rather far, now that a message of this length begins.
    pub(super) fn needs_snapshot(&self, ring: &RingMemory, coming: u32) -> bool {
        let since = self.session.position().saturating_sub(self.snapshot);
        self.goes_far(ring, self.snapshot) || since >= SNAPSHOT_STEP && !self.reaches(ring, self.snapshot, coming)
    }

    /// Whether from that position on there is enough for another snapshot.
    pub(super) fn goes_far(&self, ring: &RingMemory, from: u64) -> bool {
        let half = ring.most() as u64 / 2;
        let most = if self.is_link() { LINK_SNAPSHOT_BYTES.min(half) } else { half };
        self.session.position().saturating_sub(from) >= most
    }

    /// Whether a successor that begins at that position finds everything, also when a message of this length has come.
    pub(super) fn reaches(&self, ring: &RingMemory, from: u64, coming: u32) -> bool {
        let most = if self.is_link() {
            MAX_UNCHECKED_BYTES
        } else {
            // It does not look into what the last read may have been receiving into; and this is asked after a read.
            (ring.most() - 2 * read_room(ring.most())) as u64
        };
        // Chunk headers at the smallest chunk size in use (128), of up to eight bytes.
        let coming = u64::from(coming) + u64::from(coming / 16);
        self.session.position().saturating_sub(from) + coming < most
    }

    /// Position of the last snapshot that was published.
    pub(super) fn snapshot_position(&self) -> u64 {
        self.snapshot
    }

    /// Hands a snapshot to whom it may concern.
    pub(super) fn publish(&mut self, now: Instant, mut snapshot: Snapshot, ring: &mut RingMemory) {
        let position = snapshot.session.position();
        // The next flush finds out that the connection broke.
        let _ = self.answer();
        snapshot.session.set_output(self.unsent());
        if self.is_link() {
            self.alive_at = now + ALIVE_INTERVAL;
            self.say(&Frame::Checkpoint(Box::new(snapshot)));
        } else if !page::publish(ring.page_mut(), &snapshot) {
            // Every message that follows may come here.
            if !std::mem::replace(&mut self.told_of_large, true) {
                tracing::warn!(at = position, "a snapshot is too large for the state page; said once per publisher");
            }
            return;
        }
        self.snapshot = position;
        self.snapshot_due = false;
    }

    /// Everything from there on may still be asked for: messages need `needed`, a successor what is behind the last snapshot.
    pub(super) fn needs_from(&self, needed: Option<u64>) -> u64 {
        needed.unwrap_or(self.head).min(self.snapshot).min(self.session.position())
    }

    /// The publisher was told to start, and no snapshot tells of it yet.
    pub(super) fn owes_snapshot(&self) -> bool {
        self.snapshot_due
    }

    /// Ends the publisher's connection.
    pub(super) fn end(mut self, now: Instant, how: Close, reason: String) -> Ending {
        if how == Close::Graceful && self.session.has_output() {
            self.output.extend(self.session.take_output());
        }
        if self.is_link() && how == Close::Graceful && !self.output.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.output));
            self.say(&Frame::Reply(bytes));
        }
        Ending::new(now, self.socket, self.control, self.output, how, reason)
    }

    /// Leaves the connection to the activator, in the state that it is in after the publisher's goodbye. Without an activator, it is ended when the
    /// publisher does, or after a moment.
    pub(super) fn part(mut self, now: Instant, ring: &RingMemory) -> Ending {
        // The activator finds out if the connection broke.
        let _ = self.answer();
        let mut session = self.session.state();
        session.set_output(self.unsent());
        let position = session.position();
        // By link the activator has these bytes.
        let unread = if self.is_link() { &[] } else { ring.bytes(position, (self.head - position) as usize) };
        let snapshot = Snapshot { session, stream: None, unread: unread.to_vec() };
        self.say(&Frame::Parted(Box::new(snapshot)));
        match (self.socket, self.control) {
            (socket, None) => Ending::awaited(now, socket, self.output),
            // Its socket is closed here, before the frame is written.
            (_, Some(control)) => Ending::said(now, control),
        }
    }

    /// Gives the publisher back as it is.
    pub(super) fn give_back(self, now: Instant) -> Ending {
        // Nearly always nothing: what the publisher was sent is whole already.
        if let Some(socket) = &self.socket
            && !self.output.is_empty()
        {
            let _ = socket.try_write(&self.output);
        }
        Ending::given_back(now, self.control)
    }
}

/// A publisher that was never this stream's.
pub(super) fn refused(now: Instant, publisher: Publisher, assignment: &Assignment, frame: &Frame) -> Ending {
    let (Publisher::Descriptor { mut control, .. } | Publisher::Link { mut control }) = publisher;
    if let Err(error) = control.queue(frame) {
        tracing::debug!(%error, stream = %assignment.stream_id, "the activator does not listen");
    }
    Ending::said(now, control)
}

fn lost(end: PublisherEnd) -> Arrival {
    match end {
        PublisherEnd::Fin => Arrival::Lost("connection closed", Close::Graceful),
        PublisherEnd::Reset => Arrival::Lost("connection broken", Close::Abort),
        PublisherEnd::Silent => Arrival::Lost("silent", Close::Abort),
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
