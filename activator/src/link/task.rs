//! The shell of a stream by link: carries the publisher's bytes to a worker and the worker's answers back. In: both connections. Out: an
//! [`HandoffOutcome`]. Bytes are written as they come, from where they were received to: one read, one vectored write. Next: the worker's
//! `receive`.
//!
//! Nearly every wake-up is for bytes of the publisher. So the other sources cost next to nothing until they have an event: each has a waker of
//! its own, and the timer is set again only when it has fired or is to fire earlier.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use liveedgecast_common::clock::now;
use liveedgecast_common::event;
use liveedgecast_common::gather::{Gather, LOW_WATER};
use liveedgecast_common::handoff::frame::Reader;
use liveedgecast_common::handoff::{Assignment, PublisherEnd};
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::wakes::SourceWakers;
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;
use tracing::{debug, warn};

use super::limits::{ARRIVALS_PER_POLL, ARRIVED_READS, FRAME_READS_PER_POLL, KEPT_FRAMES, MAX_SLICES};
use super::machine::{Carried, Machine, Output};
use crate::accept::PublisherConnection;
use crate::handoff::progress::WorkerLoss;
use crate::handoff::{AssignedStream, ClaimedPlace, HandoffConnection, HandoffOutcome, Interruption};

/// Room for a read of the worker's frames: a usual checkpoint.
const FRAMES_READ: usize = 4 << 10;

/// The number of sources that have wakers of their own.
const SOURCES: usize = 3;
/// The lobby.
const LOBBY: usize = 0;
/// The frames of the worker.
const WORKER: usize = 1;
/// The timer.
const TIMER: usize = 2;
/// The bits of these sources.
const ALL_SOURCES: u64 = (1 << SOURCES) - 1;

/// Assigns the stream to the worker and carries it until the end.
pub(crate) async fn carry(
    connection: HandoffConnection,
    stream: AssignedStream,
    gather: Duration,
    publisher: &mut PublisherConnection,
    carried: &mut Carried,
    place: &mut ClaimedPlace<'_>,
) -> HandoffOutcome {
    let HandoffConnection { wire: worker, preface: mut assigned, reader, mut writer, .. } = connection;
    if worker.is_unix() {
        return HandoffOutcome::untouched();
    }
    let Assignment { epoch, resumed, ref stream_id, .. } = stream.assignment;
    let stream_id = stream_id.clone();
    if let Err(error) = stream.write(&mut writer, &mut assigned) {
        warn!(event = event::LINK_NOT_ASSIGNED, stream = %stream_id, %error, "stream not assigned");
        return HandoffOutcome::untouched();
    }
    let machine = Machine::new(now(), carried, writer, assigned);
    let mut link = Link::new(machine, publisher, worker, reader, resumed, Gather::new(gather));
    loop {
        let news = {
            let mut interruption = pin!(place.interruption());
            // The reads of a turn are counted here, and a waker that was given to a socket is relied upon: the runtime's own count
            // would say "not yet" without giving it.
            link.woken = ALL_SOURCES;
            unconstrained(poll_fn(|cx| link.poll(cx, interruption.as_mut()))).await
        };
        match news {
            LinkEvent::Interrupted(Interruption::Kicked(reason)) => link.machine.kick(now(), reason),
            LinkEvent::Interrupted(Interruption::Changed(list)) => {
                if let Err(error) = link.machine.change(*list) {
                    warn!(event = event::DESTINATIONS_KEPT, stream = %stream_id, %error, "destinations not told to the worker");
                }
            }
            LinkEvent::Interrupted(Interruption::Asked) => place.answer(Some(link.machine.kept())),
            LinkEvent::Interrupted(Interruption::Withdrawn) => link.machine.handle_lost(now(), WorkerLoss::Withdrawn),
            LinkEvent::Said(Output::Accepted) => place.accepted(),
            LinkEvent::Said(Output::Started) => place.started(),
            LinkEvent::Said(Output::Over(outcome)) => {
                match link.machine.lost() {
                    Some(how) if how.is_fault() => {
                        warn!(event = event::LINK_WORKER_LOST, stream = %stream_id, epoch, how = how.as_str(), "worker given up");
                    }
                    Some(how) => {
                        debug!(event = event::LINK_WORKER_LOST, stream = %stream_id, epoch, how = how.as_str(), "worker lost");
                    }
                    None => {}
                }
                return outcome;
            }
        }
    }
}

/// The next reader of the publisher's connection hears of every byte again.
impl Drop for Link<'_, '_> {
    fn drop(&mut self) {
        if self.gather.is_some() {
            self.publisher.set_low_water(1);
        }
    }
}

/// News of a link, for the task that owns the place in the lobby.
enum LinkEvent {
    /// The machine has an order.
    Said(Output),
    /// The lobby has an event.
    Interrupted(Interruption),
}

/// Both connections of a stream, and the machine between them.
struct Link<'a, 'c> {
    machine: Machine<'c>,
    publisher: &'a PublisherConnection,
    worker: PeerSocket,
    reader: Reader,
    /// Waits for the publisher's end while its bytes are not read, until a worker has accepted.
    end: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>>,
    /// Arrivals gather in the kernel before they are read.
    gather: Option<Gather>,
    wakes: SourceWakers,
    /// Sources that are to be looked at.
    woken: u64,
    timer: Pin<Box<Sleep>>,
    /// Deadline of the timer, if it is set.
    armed: Option<Instant>,
}

impl<'a, 'c> Link<'a, 'c> {
    fn new(
        machine: Machine<'c>,
        publisher: &'a PublisherConnection,
        worker: PeerSocket,
        reader: Reader,
        resumed: bool,
        gather: Option<Gather>,
    ) -> Self {
        // The last bytes of a publisher that was live are to be read by the worker all the same.
        let end: Option<Pin<Box<dyn Future<Output = _> + Send>>> =
            if resumed { None } else { Some(Box::pin(publisher.ended())) };
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let (wakes, woken) = (SourceWakers::default(), ALL_SOURCES);
        Self { machine, publisher, worker, reader, end, gather, wakes, woken, timer, armed: None }
    }

    /// Does what there is to do; ready when the machine or the lobby has something to say.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        interruption: Pin<&mut impl Future<Output = Interruption>>,
    ) -> Poll<LinkEvent> {
        match self.wakes.take(cx, SOURCES) {
            Some(woken) => self.woken |= woken,
            None => {
                self.woken = ALL_SOURCES;
                // The timer is to wake the task by the new waker.
                self.armed = None;
            }
        }
        // The lobby's next event is not this handoff's any more once that is over.
        if let Some(output) = self.machine.poll_output() {
            return Poll::Ready(LinkEvent::Said(output));
        }
        if self.is_woken(LOBBY)
            && let Poll::Ready(interruption) = interruption.poll(&mut Context::from_waker(self.wakes.of(LOBBY)))
        {
            return Poll::Ready(LinkEvent::Interrupted(interruption));
        }
        for arrivals in 0.. {
            let heard = self.is_woken(WORKER) && self.hear_worker();
            if self.is_woken(TIMER) && self.armed.is_some() && self.timer.is_elapsed() {
                self.handle_timeout();
            }
            let arrived = self.receive(cx);
            if arrivals > 0 && !heard && !arrived {
                break;
            }
            self.send(cx);
            self.reply(cx);
            if let Some(output) = self.machine.poll_output() {
                return Poll::Ready(LinkEvent::Said(output));
            }
            if arrivals == ARRIVALS_PER_POLL {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.arm();
        Poll::Pending
    }

    /// Returns whether the source is to be looked at, and forgets that.
    fn is_woken(&mut self, source: usize) -> bool {
        let woken = self.woken & 1 << source != 0;
        self.woken &= !(1 << source);
        woken
    }

    /// Receives bytes of the publisher, or its end; false if there is nothing.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(end) = &mut self.end {
            if self.machine.is_accepted() {
                self.end = None;
            } else {
                let Poll::Ready(ended) = end.as_mut().poll(cx) else { return false };
                self.end = None;
                self.machine.handle_publisher_end(now(), ended.err().as_ref().map_or(PublisherEnd::Fin, end_of));
                return true;
            }
        }
        if !self.machine.reads() {
            return false;
        }
        let received = match self.poll_publisher(cx) {
            Poll::Pending => return false,
            Poll::Ready(received) => received,
        };
        match received {
            Ok(0) => {
                self.machine.handle_publisher(now, 0);
                self.machine.handle_publisher_end(now(), PublisherEnd::Fin);
            }
            Ok(len) => self.machine.handle_publisher(now, len),
            Err(error) => {
                self.machine.handle_publisher(now, 0);
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    self.machine.handle_publisher_end(now(), end_of(&error));
                }
            }
        }
        true
    }

    /// Reads once from the publisher, if it is time.
    fn poll_publisher(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(gather) = &mut self.gather else {
            ready!(self.publisher.poll_readable(cx))?;
            return Poll::Ready(self.publisher.receive(&mut self.machine.space()));
        };
        let now = now();
        if !gather.is_due(now) {
            loop {
                ready!(self.publisher.poll_readable(cx))?;
                if !gather.begins(now) {
                    return Poll::Ready(self.publisher.receive(&mut self.machine.space()));
                }
                self.publisher.set_low_water(LOW_WATER);
            }
        }
        let mut space = self.machine.space();
        let room: usize = space.iter().map(|part| part.len()).sum();
        let received = self.publisher.receive_now(&mut space);
        match &received {
            // There may be more.
            Ok(len) if *len == room => {}
            Ok(_) => drop(gather.was_read(now, true)),
            Err(_) => {
                gather.was_read(now, false);
                self.publisher.set_low_water(1);
            }
        }
        Poll::Ready(received)
    }

    /// Takes the frames that the worker's socket has had an event for; false if there are none.
    fn hear_worker(&mut self) -> bool {
        let (mut heard, mut reads) = (self.take_frames(), 0);
        // An error is found by the read.
        while self.worker.poll_read_ready(&mut Context::from_waker(self.wakes.of(WORKER))).is_ready() {
            if reads == FRAME_READS_PER_POLL {
                // The rest is read in the next turn.
                self.wakes.of(WORKER).wake_by_ref();
                break;
            }
            reads += 1;
            let mut room = [0; FRAMES_READ];
            match self.worker.receive(&mut [IoSliceMut::new(&mut room)]) {
                Ok(read @ 1..) => {
                    self.reader.buffer().extend_from_slice(&room[..read]);
                    heard |= self.take_frames();
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Ok(0) | Err(_) => {
                    self.machine.handle_lost(now(), WorkerLoss::Ended);
                    return true;
                }
            }
        }
        heard
    }

    /// Takes the whole frames of the reader; false if there are none.
    fn take_frames(&mut self) -> bool {
        if self.reader.buffer().is_empty() {
            return false;
        }
        let (now, mut heard) = (now(), false);
        loop {
            match self.reader.next() {
                Ok(Some(frame)) => {
                    heard = true;
                    self.machine.handle_frame(now, frame);
                }
                Ok(None) => break,
                Err(error) => {
                    warn!(event = event::LINK_UNREADABLE, %error, "frame of a worker unreadable");
                    self.machine.handle_lost(now, WorkerLoss::Unreadable);
                    return true;
                }
            }
        }
        let buffer = self.reader.buffer();
        if buffer.is_empty() && buffer.capacity() > KEPT_FRAMES {
            *buffer = BytesMut::new();
        }
        heard
    }

    fn handle_timeout(&mut self) {
        self.armed = None;
        let now = now();
        if self.machine.poll_timeout().is_none_or(|at| at > now) {
            // What has gathered is to be read.
            return;
        }
        if self.machine.gives_up(now) {
            self.hear_waiting();
        }
        self.machine.handle_timeout(now);
    }

    /// Takes the frames of the worker that wait in the kernel, whether the runtime knows of them or not.
    fn hear_waiting(&mut self) {
        for _ in 0..ARRIVED_READS {
            match self.worker.read_now(self.reader.buffer()) {
                Ok(1..) => {
                    self.take_frames();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => return self.machine.handle_lost(now(), WorkerLoss::Ended),
            }
        }
    }

    /// Writes to the worker, as much as its socket takes.
    fn send(&mut self, cx: &mut Context<'_>) {
        while self.machine.transmit() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let used = self.machine.slices(&mut slices);
            match self.worker.try_write_vectored(&slices[..used]) {
                Ok(written) => self.machine.transmitted(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.worker.poll_write_ready(cx).is_pending() {
                        return;
                    }
                }
                Err(_) => return self.machine.handle_lost(now(), WorkerLoss::Ended),
            }
        }
        if let Poll::Ready(Err(_)) = self.worker.poll_flushed(cx) {
            self.machine.handle_lost(now(), WorkerLoss::Ended);
        }
    }

    /// Writes the worker's answers to the publisher, as much as its socket takes.
    fn reply(&mut self, cx: &mut Context<'_>) {
        while let Some(bytes) = self.machine.reply() {
            match self.publisher.try_write(bytes) {
                Ok(written) => self.machine.replied(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.publisher.poll_writable(cx).is_pending() {
                        return;
                    }
                }
                // Reading tells how it ended.
                Err(_) => return self.machine.handle_publisher_end(now(), PublisherEnd::Reset),
            }
        }
    }

    /// Sets the timer. It may fire too early: that costs less than setting it at every arrival.
    fn arm(&mut self) {
        // At the bound nothing is read, and nothing to be done when the time is up.
        let gathered = self.gather.as_ref().filter(|_| self.machine.reads()).and_then(Gather::poll_timeout);
        let Some(wanted) = self.machine.poll_timeout().into_iter().chain(gathered).min() else { return };
        if self.armed.is_some_and(|armed| armed <= wanted) {
            return;
        }
        self.timer.as_mut().reset(wanted.into());
        self.armed = Some(wanted);
        let cx = &mut Context::from_waker(self.wakes.of(TIMER));
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

fn end_of(error: &io::Error) -> PublisherEnd {
    // TCP keepalive gives up with a time-out.
    if error.kind() == io::ErrorKind::TimedOut { PublisherEnd::Silent } else { PublisherEnd::Reset }
}
