//! The shell of a stream: one task that polls its publisher, the activator, its upstreams, the engine's commands and one timer. What it
//! does is decided by [`super::machine`], [`super::index`] and [`super::cursor`].
//!
//! Per arrival: one `recv` straight into the ring, a scan in place, one vectored write per upstream.
//!
//! What surprised us: everything can be polled at every wake-up. Where there is nothing new, that is a look at a flag, and far below the
//! cost of one system call.
#![expect(clippy::disallowed_methods, reason = "shell: it owns the clock and the timer of its stream")]

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use liveedgecast_common::control::Session;
use liveedgecast_common::handoff::{Assignment, Close, Decline, Frame, Snapshot};
use liveedgecast_common::key::{Identity, StreamId};
use liveedgecast_common::random;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Sleep;

use super::cursor::Bounds;
use super::ending::Ending;
use super::index::{Continue, Index};
use super::leg::{Leg, LegEvent};
use super::machine::{Arrival as Newcomer, Input, Machine, Output, State, Times};
use super::resume::{Prepared, prepare};
use super::rings::{MAX_RINGS, Rings};
use super::source::{self, Arrival, Source};
use super::{Command, Contest, Incoming, Publisher, Report};
use crate::upstream::{Shared, Upstream};

/// Arrivals handled before the other streams of the thread have their turn.
const ARRIVALS_PER_POLL: usize = 16;
/// Between two reports of counters, while there are arrivals.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// After this, a report that found no room is tried again.
const REPORT_RETRY: Duration = Duration::from_millis(50);

mod arrivals;

/// Starts the task in the current `LocalSet`.
pub(super) fn spawn(
    incoming: Incoming,
    shared: Arc<Shared>,
    mut commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<Report>,
) {
    tokio::task::spawn_local(async move {
        let now = Instant::now();
        let mut next = match prepare(incoming) {
            Ok(prepared) => Some(Box::new(prepared)),
            Err((error, incoming)) => {
                tracing::warn!(%error, stream = %incoming.assignment.stream_id, "a stream cannot be gone on with");
                let stream_id = incoming.assignment.stream_id.clone();
                let mut ending = unusable(now, *incoming, &error.to_string());
                poll_ending(&mut ending).await;
                let _ = reports.send(Report::Ended { stream_id }).await;
                None
            }
        };
        let mut alone = false;
        while let Some(prepared) = next {
            let now = Instant::now();
            let mut prepared = prepared;
            let told = prepared.told.take();
            let mut stream = Stream::new(now, *prepared, Arc::clone(&shared), reports.clone());
            // It was said to the stream before.
            stream.machine.handle(now, Input::Alone(alone));
            told.into_iter().for_each(|command| stream.command(now, command));
            next = poll_fn(|cx| stream.poll(cx, &mut commands)).await;
            alone = stream.machine.is_alone();
        }
    });
}

async fn poll_ending(ending: &mut Ending) {
    while tokio::time::timeout_at(ending.deadline().into(), poll_fn(|cx| ending.poll(cx, Instant::now())))
        .await
        .is_err()
    {
        // Once the time is up, polling says so, or gives the next deadline.
    }
}

/// Nobody knows how to go on with this publisher: its connection is ended.
fn unusable(now: Instant, incoming: Incoming, reason: &str) -> Ending {
    let (socket, mut control) = match incoming.publisher {
        Publisher::Descriptor { socket, control } => (Some(socket), control),
        Publisher::Link { control } => (None, control),
    };
    let control = control.queue(&Frame::Accepted).is_ok().then_some(control);
    Ending::new(now, socket, control, Vec::new(), Close::Abort, reason.to_owned())
}

struct Stream {
    assignment: Assignment,
    machine: Machine,
    index: Index,
    rings: Rings,
    legs: Vec<Leg>,
    source: Option<Source>,
    /// Made and not published yet, with the number of the first message behind each.
    snapshots: VecDeque<(u64, Snapshot)>,
    /// Messages that were complete when the last one began: what its snapshot takes for known.
    begun_at: u64,
    /// How far the publisher had been received when it was lost.
    left_at: u64,
    endings: Vec<Ending>,
    /// Being decided about, while the machine's outputs are performed.
    newcomer: Option<Box<Prepared>>,
    /// Begins when this stream has ended.
    successor: Option<Box<Prepared>>,
    /// The identities of upstreams that this stream has and that others may want. Its publisher may come back with others: they do not
    /// count, because the upstreams stay what they are.
    shared: Vec<Identity>,
    /// Being decided about, while the machine's outputs are performed.
    contest: Option<Contest>,
    /// Upstreams that are being closed for other streams.
    giving_up: Vec<GivingUp>,
    cutting: bool,
    /// Jumps of the publisher's clock that have been reported, and when.
    jumps_told: (u64, Option<Instant>),
    /// Messages of the publisher's that were passed over.
    passed: u64,
    told_of_passed: bool,
    /// As logged last.
    logged: State,
    reports: mpsc::Sender<Report>,
    outbox: VecDeque<Report>,
    report_at: Instant,
    retry_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// When the timer will go off, if it is set.
    armed: Option<Instant>,
    engine_gone: bool,
}

/// Upstreams of a stream on their way to another one.
struct GivingUp {
    to: StreamId,
    identities: Vec<Identity>,
    legs: Vec<usize>,
}

impl Stream {
    fn new(now: Instant, prepared: Prepared, shared: Arc<Shared>, reports: mpsc::Sender<Report>) -> Self {
        let policy = &prepared.assignment.policy;
        let times = Times { hold_left: policy.hold_left, grace: policy.grace };
        let bounds = Bounds { time: policy.lag_time, bytes: policy.lag_bytes };
        let destinations = &prepared.assignment.destinations;
        let required = destinations.iter().map(|destination| destination.required).collect();
        let started = prepared.session.is_started();
        let upstream = |url: &liveedgecast_common::url::PushUrl| {
            let upstream = Upstream::new(url.clone(), &shared, u64::from_ne_bytes(random::bytes()), now)
                .of_stream(&prepared.assignment.stream_id);
            if started { upstream.resumed() } else { upstream }
        };
        let legs = destinations.iter().map(|destination| Leg::new(upstream(&destination.url), bounds)).collect();
        let shared = prepared.assignment.identities.iter().skip(1).copied().collect();
        let mut index = Index::new(policy.replay_time);
        if let Some(state) = &prepared.stream {
            index.restore(now, state, &prepared.open);
        }
        let machine = Machine::new(now, times, required, started);
        let Prepared { assignment, publisher, ring, session, head, .. } = prepared;
        let mut stream = Self {
            assignment,
            machine,
            rings: Rings::new(index.place().ring, ring),
            index,
            legs,
            source: Some(Source::new(now, publisher, session, head)),
            snapshots: VecDeque::new(),
            begun_at: 0,
            left_at: 0,
            endings: Vec::new(),
            newcomer: None,
            successor: None,
            shared,
            contest: None,
            giving_up: Vec::new(),
            cutting: false,
            jumps_told: (0, None),
            passed: 0,
            told_of_passed: false,
            logged: State::Starting,
            reports,
            outbox: VecDeque::new(),
            report_at: now,
            retry_at: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            engine_gone: false,
        };
        stream.scan(now);
        stream
    }

    /// Ready when the stream is over, with the one that follows it.
    fn poll(&mut self, cx: &mut Context<'_>, commands: &mut mpsc::Receiver<Command>) -> Poll<Option<Box<Prepared>>> {
        let now = Instant::now();
        while !self.engine_gone
            && let Poll::Ready(command) = commands.poll_recv(cx)
        {
            match command {
                Some(command) => self.command(now, command),
                None => self.engine_gone = true,
            }
        }
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        for arrivals in 0.. {
            let arrived = self.poll_source(cx, now);
            self.poll_legs(cx, now);
            // The upstreams are polled after everything that they are told: otherwise nothing wakes this task before its next deadline.
            if !self.perform(now) && !arrived {
                break;
            }
            if arrivals == ARRIVALS_PER_POLL {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.flush(cx, now);
        self.endings.retain_mut(|ending| ending.poll(cx, now).is_pending());
        self.note_closed(now);
        if self.perform(now) {
            cx.waker().wake_by_ref();
        }
        self.note_given_up();
        self.report(now);
        if self.machine.state() == State::Ended && self.outbox.is_empty() {
            return Poll::Ready(self.successor.take());
        }
        self.arm(cx, now);
        Poll::Pending
    }

    fn command(&mut self, now: Instant, command: Command) {
        // The engine means the stream that follows; this one is about to end anyway.
        if let (Some(successor), Command::Fence(_) | Command::Kick(_) | Command::HandBack | Command::Close(_)) =
            (&mut self.successor, &command)
        {
            successor.told.get_or_insert(command);
            return;
        }
        match command {
            Command::Attach(incoming) => self.attach(now, *incoming),
            Command::Contend(contest) => {
                self.contest = Some(contest);
                self.machine.handle(now, Input::Contend);
            }
            Command::Fence(epoch) if self.assignment.epoch < epoch => self.machine.handle(now, Input::Fence),
            Command::Fence(_) => {}
            Command::Alone(alone) => self.machine.handle(now, Input::Alone(alone)),
            Command::Kick(reason) => self.machine.handle(now, Input::Kick(reason)),
            Command::HandBack => {
                let possible = self.source.as_ref().is_some_and(Source::has_activator);
                self.machine.handle(now, Input::HandBack { possible });
            }
            Command::Close(reason) => self.machine.handle(now, Input::Close(reason)),
        }
        self.perform(now);
    }

    fn attach(&mut self, now: Instant, incoming: Incoming) {
        let stream_id = incoming.assignment.stream_id.clone();
        match prepare(incoming) {
            Ok(prepared) => {
                let known = &self.assignment;
                let newcomer = Newcomer {
                    same: known.stream_id == stream_id && prepared.assignment.epoch > known.epoch,
                    started: prepared.session.is_started(),
                    hold_left: prepared.assignment.policy.hold_left,
                    may_follow: self.may_follow(&prepared.assignment),
                };
                self.newcomer = Some(Box::new(prepared));
                self.machine.handle(now, Input::Attach(newcomer));
            }
            Err((error, incoming)) => {
                tracing::warn!(%error, stream = %stream_id, "a stream cannot be gone on with");
                self.endings.push(unusable(now, *incoming, &error.to_string()));
                self.outbox.push_back(Report::AttachDecided { stream_id, accepted: false });
            }
        }
    }

    /// Whether a stream of this assignment could begin in the place of this one: it may only want upstreams that are this one's.
    fn may_follow(&self, assignment: &Assignment) -> bool {
        assignment.identities.iter().skip(1).all(|identity| self.shared.contains(identity))
    }

    fn give_up(&mut self, now: Instant, gives_up: bool) {
        let Some(Contest { stream_id: to, mut identities, destinations }) = self.contest.take() else { return };
        if !gives_up {
            return self.outbox.push_back(Report::ContestDecided { stream_id: to, given_up: None });
        }
        identities.retain(|identity| self.shared.contains(identity));
        self.shared.retain(|identity| !identities.contains(identity));
        let places = self.legs.iter().map(Leg::url).enumerate();
        let wanted = places.filter(|(_, url)| destinations.iter().any(|other| other.is_same_place(url)));
        let legs: Vec<usize> = wanted.map(|(at, _)| at).collect();
        tracing::info!(
            event = "upstream.taken_over",
            stream = %self.assignment.stream_id,
            by = %to,
            upstreams = legs.len(),
            "another stream took over upstreams"
        );
        for at in &legs {
            self.legs[*at].give_up();
            self.machine.handle(now, Input::GivenUp(*at));
        }
        self.giving_up.push(GivingUp { to, identities, legs });
        self.report_at = now;
    }

    /// Tells those who wait for upstreams that these are closed. If the stream ends with them, its end says so.
    fn note_given_up(&mut self) {
        let ends = matches!(self.machine.state(), State::Closing | State::Ended) && self.successor.is_none();
        if ends {
            return;
        }
        let legs = &self.legs;
        let closed = |giving_up: &mut GivingUp| giving_up.legs.iter().all(|at| legs[*at].is_closed());
        for GivingUp { to, identities, .. } in self.giving_up.extract_if(.., closed) {
            self.outbox.push_back(Report::ContestDecided { stream_id: to, given_up: Some(identities) });
        }
    }

    fn poll_legs(&mut self, cx: &mut Context<'_>, now: Instant) {
        let head = self.source.as_ref().map_or(0, |source| source.head);
        for (at, leg) in self.legs.iter_mut().enumerate() {
            loop {
                while let Poll::Ready(event) = leg.poll(cx, now, &self.index) {
                    match event {
                        LegEvent::Live => self.machine.handle(now, Input::UpstreamLive(at)),
                        LegEvent::Refused => self.machine.handle(now, Input::UpstreamRefused(at)),
                        LegEvent::Lost | LegEvent::Closed => {}
                    }
                    self.report_at = now;
                }
                let failed = leg.write(cx, now, &self.index, head, &self.rings);
                let closing = leg.close(&self.index, self.cutting);
                if !failed && !closing {
                    break;
                }
            }
        }
    }

    /// Does what the machine says, and returns whether it said anything.
    fn perform(&mut self, now: Instant) -> bool {
        let mut said = false;
        while let Some(output) = self.machine.poll_output() {
            said = true;
            match output {
                Output::Start => self.source.iter_mut().for_each(Source::start),
                Output::SendAway => self.source.iter_mut().for_each(Source::send_away),
                Output::Refuse(text) => self.source.iter_mut().for_each(|source| source.refuse(&text)),
                Output::Ping => {
                    if let Some(source) = &mut self.source {
                        source.session.ping(0);
                    }
                }
                Output::EndPublisher { how, reason } => {
                    if let Some(source) = self.source.take() {
                        self.left_at = source.head;
                        self.endings.push(source.end(now, how, reason));
                    }
                }
                Output::PartPublisher => {
                    if let (Some(source), Some(ring)) = (self.source.take(), self.rings.current()) {
                        self.left_at = source.head;
                        self.endings.push(source.part(now, ring));
                    }
                }
                Output::GiveBack => {
                    if let Some(source) = self.source.take() {
                        self.endings.push(source.give_back(now));
                    }
                }
                Output::Decide(accepted) => self.decided(now, accepted),
                Output::GiveUp(gives_up) => self.give_up(now, gives_up),
                Output::CloseUpstreams => self.legs.iter_mut().for_each(Leg::drain),
                Output::CutUpstreams => self.cutting = true,
                Output::State(state) => {
                    self.log(state);
                    self.report_at = now;
                    self.report_session(now);
                    if state == State::Ended {
                        self.tell_of_jumps(now, true);
                        let stream_id = self.assignment.stream_id.clone();
                        self.outbox.push_back(Report::Ended { stream_id });
                    }
                }
            }
        }
        said
    }

    /// Every new state once; for everybody to see that the publisher was lost or has come back, and why the stream is over.
    fn log(&mut self, state: State) {
        let before = std::mem::replace(&mut self.logged, state);
        let (stream, app, reason) = (&self.assignment.stream_id, &self.assignment.app, self.machine.reason());
        let client = self.assignment.client;
        match (before, state) {
            (_, State::Grace) => {
                tracing::info!(event = "publisher.lost", %stream, %app, %client, reason, "publisher lost: its upstreams are kept for the grace time");
            }
            (State::Grace, State::Live) => {
                tracing::info!(event = "publisher.returned", %stream, %app, %client, "publisher returned")
            }
            (_, State::Closing) => {
                let state = before.as_str();
                tracing::info!(event = "stream.ended", %stream, %app, %client, state, reason, "stream ended");
            }
            (_, state) => {
                let (state, steps_back) = (state.as_str(), self.index.steps_back());
                tracing::debug!(%stream, %app, state, reason, steps_back, "stream");
            }
        }
    }

    fn decided(&mut self, now: Instant, accepted: bool) {
        let Some(newcomer) = self.newcomer.take() else { return };
        let stream_id = newcomer.assignment.stream_id.clone();
        self.outbox.push_back(Report::AttachDecided { stream_id, accepted });
        if !accepted {
            let Prepared { publisher, assignment, .. } = *newcomer;
            let over = match self.machine.state() {
                State::Closing => !self.may_follow(&assignment),
                state => state == State::Ended,
            };
            let frame = if over { Frame::Returned { why: Decline::Other } } else { Frame::Duplicate };
            self.endings.push(source::refused(now, publisher, &assignment, &frame));
        } else if self.machine.state() == State::Closing {
            self.successor = Some(newcomer);
        } else {
            self.adopt(now, *newcomer);
        }
    }

    fn adopt(&mut self, now: Instant, prepared: Prepared) {
        let same = prepared.assignment.stream_id == self.assignment.stream_id;
        let by_descriptor = matches!(prepared.publisher, Publisher::Descriptor { .. });
        let how = match &self.source {
            // The new mapping is of the same memory.
            Some(source) if same && by_descriptor && !source.is_link() => Continue::SameRing,
            _ if same => Continue::SamePublisher,
            _ => Continue::OtherPublisher,
        };
        let left_at = self.source.take().map_or(self.left_at, |source| source.head);
        let known_before = if same { left_at } else { 0 };
        if how != Continue::SameRing && self.rings.len() >= MAX_RINGS {
            let oldest = self.index.oldest_ring();
            let until = self.index.first_of_ring_after(oldest);
            self.evict(until, 0);
        }
        self.snapshots.clear();
        let place = self.index.begin(how);
        self.rings.push(place.ring, prepared.ring);
        if let Some(state) = &prepared.stream {
            self.index.restore(now, state, &prepared.open);
        }
        self.assignment = prepared.assignment;
        self.legs.iter_mut().for_each(|leg| leg.rename_stream(&self.assignment.stream_id));
        let mut source = Source::new(now, prepared.publisher, prepared.session, prepared.head);
        source.known_before = known_before;
        self.passed = self.index.unfit();
        self.source = Some(source);
        self.scan(now);
    }

    fn flush(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Some(source) = &mut self.source else { return };
        if let Err(Arrival::Lost(why, how)) = source.flush(cx, now) {
            return self.machine.handle(now, Input::Lost { why, how });
        }
        self.snapshot_of_start(now);
        if let Some(source) = self.source.as_mut().filter(|source| source.is_link())
            && let Err(Arrival::Lost(why, how)) = source.flush(cx, now)
        {
            self.machine.handle(now, Input::Lost { why, how });
        }
    }

    fn note_closed(&mut self, now: Instant) {
        if self.machine.state() != State::Closing {
            return;
        }
        if self.source.is_none() && self.endings.is_empty() {
            self.machine.handle(now, Input::PublisherClosed);
        }
        if self.legs.iter().all(Leg::is_closed) {
            self.machine.handle(now, Input::UpstreamsClosed);
        }
    }

    fn report_session(&mut self, now: Instant) {
        self.report_at = now + REPORT_INTERVAL;
        let assignment = &self.assignment;
        let own = assignment.identities.first().into_iter();
        // An upstream is this stream's until it is closed: nobody else is to dial it before.
        let giving_up = self.giving_up.iter().flat_map(|it| &it.identities);
        let session = Session {
            stream_id: assignment.stream_id.to_string(),
            identities: own.chain(&self.shared).chain(giving_up).copied().collect(),
            state: self.machine.state().told(),
            epoch: assignment.epoch,
            app: assignment.app.name().to_owned(),
            upstreams: self.legs.iter().map(Leg::report).collect(),
            reason: self.machine.reason().to_owned(),
            messages: self.index.end(),
        };
        // The newest alone is of interest.
        self.outbox.retain(|report| !matches!(report, Report::Session(_)));
        self.outbox.push_back(Report::Session(session));
    }

    fn report(&mut self, now: Instant) {
        if self.report_at <= now && self.machine.state() != State::Ended {
            self.report_session(now);
        }
        self.retry_at = None;
        while let Some(report) = self.outbox.pop_front() {
            match self.reports.try_send(report) {
                Ok(()) => {}
                Err(TrySendError::Full(report)) => {
                    self.outbox.push_front(report);
                    self.retry_at = Some(now + REPORT_RETRY);
                    return;
                }
                // The engine is gone: nobody is interested.
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }

    /// Sets the timer. It may go off too early: that costs less than setting it at every arrival.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant) {
        let legs = self.legs.iter().filter_map(|leg| leg.next_timeout(&self.index));
        let source = self.source.iter().filter_map(Source::next_timeout);
        let endings = self.endings.iter().map(Ending::deadline);
        let own = [self.machine.poll_timeout(), self.retry_at].into_iter().flatten();
        let Some(wanted) = legs.chain(source).chain(endings).chain(own).min() else { return };
        if self.armed.is_none_or(|armed| wanted < armed || armed <= now) {
            self.timer.as_mut().reset(wanted.into());
            self.armed = Some(wanted);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            self.armed = None;
            cx.waker().wake_by_ref();
        }
    }
}

/// Named in logs by its stream alone.
impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stream_id: &StreamId = &self.assignment.stream_id;
        f.debug_struct("Stream").field("stream_id", stream_id).finish_non_exhaustive()
    }
}
