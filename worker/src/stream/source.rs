//! The publisher's connection while it is this stream's: bytes in, answers out, by descriptor or by link. Part of the shell.
//!
//! In: bytes of the publisher, frames of its activator. Out: answers to the publisher, frames to the activator, snapshots on the state page or
//! on the link. The rules are those of [`super::snapshots`] and [`super::link_watch`].
//!
//! Note: after a read that did not fill its room the socket is empty, and asking it again would cost as much as the read. So the readiness
//! is given back at once, which the runtime allows only if the read claims that it would have blocked.
//!
//! A successor treats every answer from before the snapshot as sent. So the answers go first: by link they precede the checkpoint on the same
//! connection; by descriptor they are written, and the rest that the publisher's socket does not take goes into the snapshot. A snapshot
//! cannot wait for a moment without unwritten answers: a publisher with a small window is answered at every message.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use liveedgecast_common::event;
use liveedgecast_common::gather::{Gather, LOW_WATER};
use liveedgecast_common::handoff::{Assignment, Close, DestinationList, Frame, PublisherEnd, Snapshot, page};
use liveedgecast_common::rtmp::limits::FULL_OUTPUT;
use liveedgecast_common::rtmp::server::{Refusal, ServerSession};
use liveedgecast_common::socket::{forget_readiness, receive_now};
use liveedgecast_common::sys::{self, RingMemory, prefetch, prefetch_start};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::PublisherHandoff;
use super::ending::PublisherEnding;
use super::link_watch::LinkWatch;
use super::snapshots::SnapshotRules;
use super::wakes::{Sources, Wakes};
use crate::receive::{HandoffError, HandoffStream, LinkArrival};

/// The end of a link: nothing else would bring the publisher's bytes.
const LINK_LOST: SourceEvent = SourceEvent::Lost("link lost", Close::Abort);

/// Bytes of the session that every message needs.
const SESSION_START: usize = 128;

/// News of a publisher's connection.
#[derive(Debug)]
pub(super) enum SourceEvent {
    /// The connection that brings media can be read.
    Readable,
    /// The publisher is gone.
    Lost(&'static str, Close),
    /// The activator asks to end the publisher.
    Kick(String),
    /// The activator tells the stream's destinations.
    Destinations(Box<DestinationList>),
}

/// The fields that every message needs come first.
#[repr(C)]
pub(super) struct PublisherSource {
    /// The publisher's socket, by descriptor.
    socket: Option<TcpStream>,
    /// Position up to which every byte has been received.
    pub(super) head: u64,
    /// Messages that were complete before this position are in the index already: the connection was handed over again.
    pub(super) known_before: u64,
    output: Vec<u8>,
    /// Arrivals gather in the kernel before they are read.
    gather: Option<Gather>,
    /// A frame was queued and not written, or a snapshot is due.
    unsaid: bool,
    /// A snapshot that is too large was logged.
    logged_large: bool,
    pub(super) session: ServerSession,
    pub(super) snapshots: SnapshotRules,
    /// Signs of life, by link.
    watch: Option<LinkWatch>,
    /// `None`: the connection to the activator was lost (by descriptor; by link, the publisher is lost with it).
    control: Option<HandoffStream>,
    /// Position of `head` at the beginning.
    first: u64,
}

impl PublisherSource {
    /// `ring_bytes`: bytes of the ring that can be in use.
    pub(super) fn new(
        now: Instant,
        publisher: PublisherHandoff,
        session: ServerSession,
        head: u64,
        ring_bytes: usize,
    ) -> Self {
        let (socket, control) = match publisher {
            PublisherHandoff::Descriptor { socket, control } => (Some(socket), control),
            PublisherHandoff::Link { control } => (None, control),
        };
        let link = socket.is_none();
        let mut source = Self {
            socket,
            control: Some(control),
            snapshots: SnapshotRules::new(session.position(), link, ring_bytes),
            session,
            head,
            first: head,
            known_before: 0,
            output: Vec::new(),
            gather: None,
            watch: link.then(|| LinkWatch::new(now)),
            unsaid: false,
            logged_large: false,
        };
        source.say(&Frame::Accepted);
        if source.session.is_started() {
            // A worker before told the publisher to start: the activator may not have heard of it.
            source.say(&Frame::Started);
        }
        source
    }

    /// Lets arrivals of a publisher that came by descriptor gather for `time`. By link they have gathered in the activator.
    pub(super) fn gathering(mut self, time: Duration) -> Self {
        self.gather = Gather::new(time).filter(|_| !self.is_link());
        // A worker before that was killed may have left its mark.
        if self.session.is_started() {
            self.set_low_water(1);
        }
        self
    }

    /// The time at which arrivals that gather in the kernel are to be read.
    pub(super) fn gathered_at(&self) -> Option<Instant> {
        self.gather.as_ref().and_then(Gather::poll_timeout)
    }

    /// Returns whether arrivals gather in the kernel now.
    pub(super) fn gathers(&self) -> bool {
        self.gathered_at().is_some()
    }

    fn set_low_water(&self, bytes: u32) {
        if let Some(socket) = &self.socket
            && let Err(error) = sys::set_receive_low_water(socket, bytes)
        {
            tracing::debug!(event = event::PUBLISHER_ERRED, %error, "low-water mark of a publisher's socket was not set");
        }
    }

    /// Lets the next reader of the publisher's socket hear of every byte.
    fn stop_gathering(&mut self) {
        if self.gather.take().is_some() {
            self.set_low_water(1);
        }
    }

    /// Returns whether a read need not be preceded by a question: by descriptor, unless arrivals gather.
    pub(super) fn is_read_at_once(&self) -> bool {
        self.socket.is_some() && self.gather.is_none()
    }

    /// Lets the processor fetch what every message needs.
    pub(super) fn prefetch(&self) {
        prefetch_start(self, std::mem::offset_of!(Self, session));
        prefetch_start(&self.session, SESSION_START);
        prefetch(&self.snapshots);
    }

    pub(super) fn is_link(&self) -> bool {
        self.socket.is_none()
    }

    /// Bytes of the publisher that were received here.
    pub(super) fn received(&self) -> u64 {
        self.head - self.first
    }

    /// Returns whether there is an activator that the publisher could be given back to.
    pub(super) fn has_activator(&self) -> bool {
        self.control.is_some()
    }

    /// The next event of the publisher or its activator. The connection that brings media is asked always, and wakes the task itself.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wakes: &Wakes,
        woken: &mut Sources,
        now: Instant,
    ) -> Poll<SourceEvent> {
        if self.is_link() {
            woken.take(Sources::ACTIVATOR);
            return self.poll_link(cx, now);
        }
        while woken.has(Sources::ACTIVATOR)
            && let Some(control) = &mut self.control
        {
            let activator = &mut Context::from_waker(wakes.of(Sources::ACTIVATOR));
            let Poll::Ready(frame) = control.poll_frame(activator) else { break };
            match frame {
                Ok(Frame::Kick(reason)) => return Poll::Ready(SourceEvent::Kick(reason)),
                Ok(Frame::Destinations(list)) => return Poll::Ready(SourceEvent::Destinations(list)),
                Ok(Frame::End(end)) => return Poll::Ready(lost(end)),
                Ok(_) => {}
                Err(error) => self.control_lost(&error),
            }
        }
        woken.take(Sources::ACTIVATOR);
        if self.gather.as_ref().is_some_and(|gather| gather.is_due(now)) {
            return Poll::Ready(SourceEvent::Readable);
        }
        match &self.socket {
            Some(socket) => loop {
                if ready!(socket.poll_read_ready(cx)).is_err() {
                    return Poll::Ready(SourceEvent::Lost("connection broken", Close::Abort));
                }
                if !self.gather.as_mut().is_some_and(|gather| gather.begins(now)) {
                    return Poll::Ready(SourceEvent::Readable);
                }
                self.set_low_water(LOW_WATER);
                // Gives the readiness back: the kernel reports the next one when so many bytes wait, or at the end. The runtime hears of the kernel only
                // between polls, since it has one thread. With another thread, a report of this moment would be forgotten, too.
                forget_readiness(socket);
            },
            None => Poll::Pending,
        }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<SourceEvent> {
        let Some(control) = &mut self.control else { return Poll::Ready(LINK_LOST) };
        if control.poll_readable(cx).is_ready() {
            return Poll::Ready(SourceEvent::Readable);
        }
        match &mut self.watch {
            Some(watch) if watch.is_silent(now) && control.has_more() => {
                watch.heard(now);
                control.poll_readable(cx).map(|()| SourceEvent::Readable)
            }
            Some(watch) if watch.is_silent(now) => Poll::Ready(SourceEvent::Lost("link silent", Close::Abort)),
            _ => Poll::Pending,
        }
    }

    fn control_lost(&mut self, error: &HandoffError) {
        tracing::debug!(event = event::HANDOFF_LOST, %error, "connection to the activator lost");
        self.control = None;
    }

    /// Receives into the ring, at most `room` bytes. `Ok(None)`: the socket has none.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        ring: &mut RingMemory,
        room: usize,
    ) -> Result<Option<usize>, SourceEvent> {
        let space = ring.space(self.head, room);
        let Some(socket) = &self.socket else { return self.receive_by_link(now, space) };
        if let Some(gather) = self.gather.as_mut().filter(|gather| gather.is_due(now)) {
            // Below the mark the runtime knows of no bytes.
            return match receive_now(socket, &mut [IoSliceMut::new(space)]) {
                Ok(0) => Err(SourceEvent::Lost("connection closed", Close::Graceful)),
                Ok(count) => {
                    // The time is still up if there may be more.
                    if count < room {
                        gather.was_read(now, true);
                    }
                    self.head += count as u64;
                    Ok(Some(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    gather.was_read(now, false);
                    self.set_low_water(1);
                    Ok(None)
                }
                Err(_) => Err(SourceEvent::Lost("connection broken", Close::Abort)),
            };
        }
        let mut received = None;
        let result = socket.try_io(Interest::READABLE, || {
            let (count, _) = rustix::net::recv(socket, &mut *space, RecvFlags::empty())?;
            received = Some(count);
            if count > 0 && count < space.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (received, result) {
            (Some(0), _) => Err(SourceEvent::Lost("connection closed", Close::Graceful)),
            (Some(count), _) => {
                self.head += count as u64;
                Ok(Some(count))
            }
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            (None, _) => Err(SourceEvent::Lost("connection broken", Close::Abort)),
        }
    }

    /// Receives from the link, the bytes straight into `space`. Other frames come behind the bytes before them.
    fn receive_by_link(&mut self, now: Instant, space: &mut [u8]) -> Result<Option<usize>, SourceEvent> {
        while let Some(control) = &mut self.control {
            let arrival = match control.receive(space) {
                Ok(None) => return Ok(None),
                Ok(Some(arrival)) => arrival,
                Err(error) => {
                    self.control_lost(&error);
                    break;
                }
            };
            self.watch.iter_mut().for_each(|watch| watch.heard(now));
            match arrival {
                LinkArrival::Data(count) => {
                    self.head += count as u64;
                    return Ok(Some(count));
                }
                LinkArrival::Frame(Frame::End(end)) => return Err(lost(end)),
                LinkArrival::Frame(Frame::Kick(reason)) => return Err(SourceEvent::Kick(reason)),
                LinkArrival::Frame(Frame::Destinations(list)) => return Err(SourceEvent::Destinations(list)),
                LinkArrival::Frame(_) => {}
            }
        }
        Err(LINK_LOST)
    }

    /// Returns whether there is something to write. Signs of life have deadlines, at which [`Self::flush`] is called, too.
    pub(super) fn has_output(&self) -> bool {
        self.unsaid || !self.output.is_empty() || self.session.has_output()
    }

    /// Takes over the session's answers and writes as much as the sockets take. `Err`: the connection broke.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), SourceEvent> {
        let broken = SourceEvent::Lost("connection broken", Close::Abort);
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
                // Answers that a full output had no room for: unless they are written now, nothing would wake this task.
                _ if self.session.has_output() => {}
                _ => break,
            }
        }
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.is_alive_due(now)) {
            watch.spoke(now);
            self.say(&Frame::Alive);
        }
        self.unsaid = false;
        // When pending, the task is woken when the socket takes more; what is queued until then waits behind it.
        if let Some(control) = &mut self.control
            && let Poll::Ready(Err(error)) = control.poll_flush(cx)
        {
            self.control_lost(&error);
        }
        if self.is_link() && self.control.is_none() {
            // Nothing else would wake the task.
            return Err(LINK_LOST);
        }
        Ok(())
    }

    /// Sends the session's answers on: by link all of them, by descriptor as many as the socket takes. A full output leaves the rest with the
    /// session, which keeps them few.
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

    /// The answers that were not written to the publisher.
    fn unsent(&self) -> Vec<u8> {
        [&self.output, self.session.output()].concat()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.watch.as_ref().filter(|_| self.control.is_some()).map(LinkWatch::poll_timeout)
    }

    fn say(&mut self, frame: &Frame) {
        let Some(control) = &mut self.control else { return };
        self.unsaid = true;
        if let Err(error) = control.queue(frame) {
            tracing::debug!(event = event::HANDOFF_LOST, %error, "frame to the activator was not queued");
            self.control = None;
        }
    }

    /// Says `Publish.Start`; a snapshot that says so is due as soon as it is written.
    pub(super) fn start(&mut self) {
        self.session.accept_publish();
        self.say(&Frame::Started);
        self.snapshots.started();
        self.unsaid = true;
    }

    /// Says `Publish.Start` to the publisher, which makes it come again when it is closed, and nothing to the activator: nothing has started.
    pub(super) fn send_away(&mut self) {
        self.session.accept_publish();
    }

    pub(super) fn refuse(&mut self, text: &str) {
        self.session.refuse_publish(Refusal::BadName, text);
    }

    /// Publishes a snapshot: by link to the activator, by descriptor on the state page.
    pub(super) fn publish(&mut self, now: Instant, mut snapshot: Snapshot, ring: &mut RingMemory) {
        let position = snapshot.session.position();
        // The next flush finds out that the connection broke.
        let _ = self.answer();
        snapshot.session.set_output(self.unsent());
        if self.is_link() {
            self.watch.iter_mut().for_each(|watch| watch.spoke(now));
            self.say(&Frame::Checkpoint(Box::new(snapshot)));
        } else if !page::publish(ring.page_mut(), &snapshot) {
            // Every message from here on may come here again.
            if !std::mem::replace(&mut self.logged_large, true) {
                tracing::warn!(
                    event = event::SNAPSHOT_TOO_LARGE,
                    position,
                    "snapshot was too large for the state page; logged once per publisher"
                );
            }
            return;
        }
        self.snapshots.published(position);
    }

    /// The position from which bytes may still be read: messages need those from `needed` on, a successor those behind the last snapshot.
    pub(super) fn needs_from(&self, needed: Option<u64>) -> u64 {
        needed.unwrap_or(self.head).min(self.snapshots.position()).min(self.session.position())
    }

    /// Ends the publisher's connection.
    pub(super) fn end(mut self, now: Instant, how: Close, reason: String) -> PublisherEnding {
        self.stop_gathering();
        if how == Close::Graceful && self.session.has_output() {
            self.output.extend(self.session.take_output());
        }
        if self.is_link() && how == Close::Graceful && !self.output.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.output));
            self.say(&Frame::Reply(bytes));
        }
        PublisherEnding::new(now, self.socket, self.control, self.output, how, reason)
    }

    /// Leaves the connection to the activator, as it is after the publisher's goodbye. Without an activator, the connection is ended when the
    /// publisher ends it, or after 2 s.
    pub(super) fn part(mut self, now: Instant, ring: &RingMemory) -> PublisherEnding {
        self.stop_gathering();
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
            (socket, None) => PublisherEnding::awaited(now, socket, self.output),
            // Its socket is closed here, before the frame is written.
            (_, Some(control)) => PublisherEnding::said(now, control),
        }
    }

    /// Gives the publisher back as it is.
    pub(super) fn give_back(mut self, now: Instant) -> PublisherEnding {
        self.stop_gathering();
        // Nearly always empty: the answers to the publisher were written whole.
        if let Some(socket) = &self.socket
            && !self.output.is_empty()
        {
            let _ = socket.try_write(&self.output);
        }
        PublisherEnding::given_back(now, self.control)
    }
}

/// Answers for a publisher that never was this stream's.
pub(super) fn refused(
    now: Instant,
    publisher: PublisherHandoff,
    assignment: &Assignment,
    frame: &Frame,
) -> PublisherEnding {
    let (PublisherHandoff::Descriptor { mut control, .. } | PublisherHandoff::Link { mut control }) = publisher;
    if let Err(error) = control.queue(frame) {
        tracing::debug!(event = event::HANDOFF_LOST, %error, stream = %assignment.stream_id, "refusal to the activator was not queued");
    }
    PublisherEnding::said(now, control)
}

fn lost(end: PublisherEnd) -> SourceEvent {
    match end {
        PublisherEnd::Fin => SourceEvent::Lost("connection closed", Close::Graceful),
        PublisherEnd::Reset => SourceEvent::Lost("connection broken", Close::Abort),
        PublisherEnd::Silent => SourceEvent::Lost("silent", Close::Abort),
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
