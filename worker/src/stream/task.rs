//! The shell of a stream: one task that polls its publisher, the activator, its upstreams, the engine's commands and one timer.
//!
//! In: bytes of the publisher, frames of the activator, [`StreamCommand`]s. Out: writes to the upstreams, [`Report`]s. The decisions are those
//! of [`super::machine`], [`super::index`], [`super::cursor`], [`super::snapshots`] and [`super::reports`].
//!
//! Per arrival: one `recv` straight into the ring, a scan in place, one vectored write per upstream.
//!
//! Note: with hundreds of streams in a thread, nothing of a stream is in the processor's cache when it is woken, and each place in memory that
//! is looked at costs as much as a hundred instructions. So a wake-up that brings media looks at the publisher, the index and the cursors
//! alone; everything else waits until its own source is woken ([`super::wakes`]), an order was given (`stirred`), or the timer is due.
#![expect(clippy::disallowed_methods, reason = "shell: it owns the clock and the timer of its stream")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use liveedgecast_common::clock::utc;
use liveedgecast_common::control::Session;
use liveedgecast_common::event;
use liveedgecast_common::handoff::{Assignment, Close, Decline, Destination, Frame};
use liveedgecast_common::key::{Identity, StreamId};
use liveedgecast_common::sys::{RingMemory, prefetch};
use liveedgecast_common::trace::{self, StartSpan};
use liveedgecast_common::url::PushUrl;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Sleep;

use super::cursor::Bounds;
use super::ending::PublisherEnding;
use super::feed::{FeedEvent, UpstreamFeed};
use super::figures::ShownFigures;
use super::index::{Continue, Index};
use super::lanes::{Lane, LaneSeat};
use super::machine::{AttachDecision, Input, Machine, Newcomer, NewcomerMemory, Output, State, Times};
use super::need::LongestNeed;
use super::reports::Reports;
use super::resume::{NotResumed, Prepared, PreparedRing, ResumeError, prepare};
use super::rings::{MAX_RINGS, Rings};
use super::source::{self, PublisherSource, SourceEvent};
use super::wakes::{Sources, Wakes};
use super::{Contest, IncomingStream, PublisherHandoff, Report, StreamCommand, StreamContext};

/// Events of the publisher that are handled before the other streams of the thread have their turn.
const ARRIVALS_PER_POLL: usize = 16;

mod arrivals;
mod destinations;
mod excerpts;

use destinations::WantedUpstreams;
use excerpts::ExcerptWork;

#[cfg(test)]
pub(super) use self::arrivals::room_for_pieces;

/// Starts the task in the current `LocalRuntime`, or `LocalSet`.
pub(super) fn spawn(
    incoming: IncomingStream,
    shared: Arc<StreamContext>,
    mut commands: mpsc::Receiver<StreamCommand>,
    reports: mpsc::Sender<Report>,
) {
    tokio::task::spawn_local(async move {
        let mut next = Some(prepare(incoming, None).map(Box::new));
        let mut alone = false;
        while let Some(prepared) = next {
            let now = Instant::now();
            let mut prepared = match prepared {
                Ok(prepared) => prepared,
                Err(failed) => {
                    let stream_id = failed.assignment.stream_id.clone();
                    let mut ending = not_resumed(now, *failed);
                    poll_ending(&mut ending).await;
                    let _ = reports.send(Report::Ended { stream_id }).await;
                    return;
                }
            };
            let told = prepared.told.take();
            let mut stream = StreamTask::new(now, *prepared, Arc::clone(&shared), reports.clone());
            // The engine has told the stream before this one whether an activator is there.
            stream.machine.handle(now, Input::Alone(alone));
            told.into_iter().for_each(|command| stream.command(now, command));
            let successor = poll_fn(|cx| stream.poll(cx, &mut commands)).await;
            alone = stream.machine.is_alone();
            // Unmaps the rings, or gives them away: the successor may have come with the memory of one.
            drop(stream);
            next = successor.map(|successor| successor.after_the_end().map(Box::new));
        }
    });
}

async fn poll_ending(ending: &mut PublisherEnding) {
    while tokio::time::timeout_at(ending.deadline().into(), poll_fn(|cx| ending.poll(cx, Instant::now())))
        .await
        .is_err()
    {
        // The deadline has passed: the next poll ends it, or sets the next deadline.
    }
}

/// Ends the connection of a publisher whose stream cannot be resumed. If the memory alone is the reason, the publisher is given back.
fn not_resumed(now: Instant, failed: NotResumed) -> PublisherEnding {
    let NotResumed { error, assignment, publisher } = failed;
    tracing::warn!(event = event::STREAM_RESUME_FAILED, %error, stream = %assignment.stream_id, "stream resume failed");
    if let ResumeError::Memory(_) = error {
        return source::refused(now, publisher, &assignment, &Frame::Returned { why: Decline::Other });
    }
    let (socket, mut control) = match publisher {
        PublisherHandoff::Descriptor { socket, control } => (Some(socket), control),
        PublisherHandoff::Link { control } => (None, control),
    };
    let control = control.queue(&Frame::Accepted).is_ok().then_some(control);
    PublisherEnding::new(now, socket, control, Vec::new(), Close::Abort, error.to_string())
}

/// The fields that every message needs come first.
#[repr(C, align(64))]
struct StreamTask {
    /// Sources that were woken and have not been looked at.
    woken: Sources,
    /// More than media has come: everything that it may lead to is done before the task waits again.
    stirred: bool,
    cutting: bool,
    /// A skipped message was logged.
    logged_skipped: bool,
    /// The state that was logged last.
    logged: State,
    /// The stream was live once.
    was_live: bool,
    engine_gone: bool,
    wakes: Wakes,
    /// Deadline of the timer, if it is set: no deadline of the stream is earlier.
    armed: Option<Instant>,
    /// The next deadline but that of arrivals that gather, as of the last time that anything but media came.
    deadline: Option<Instant>,
    /// The number of messages that were complete when the last one began: the snapshot of its beginning includes them.
    begun_at: u64,
    /// Time for which arrivals gather.
    gather: Duration,
    /// Position up to which the ring has room without a look at what is needed.
    room_until: u64,
    /// The time at which old messages are to be forgotten next.
    expires_at: Instant,
    need: LongestNeed,
    feeds: Vec<UpstreamFeed>,
    rings: Rings,
    reports: Reports,
    machine: Machine,
    source: Option<PublisherSource>,
    index: Index,
    assignment: Assignment,
    /// Position up to which the publisher had been received when it was lost.
    left_at: u64,
    endings: Vec<PublisherEnding>,
    /// The publisher that the machine decides about, while its outputs are performed.
    newcomer: Option<Box<Prepared>>,
    /// The stream that begins when this one has ended.
    successor: Option<Box<Prepared>>,
    /// The identities of this stream's upstreams that other streams may want. A publisher that comes back with other identities changes
    /// nothing: the upstreams stay as they are.
    shared: Vec<Identity>,
    /// The contest that the machine decides about, while its outputs are performed.
    contest: Option<Contest>,
    /// Upstreams that are being closed for other streams.
    giving_up: Vec<GivingUp>,
    /// The upstreams that the stream is to have.
    wanted: WantedUpstreams,
    began: Instant,
    /// Time from then until the first media were written to an upstream, in microseconds; 0 before.
    first_media: u64,
    /// Bytes received from publishers that are gone.
    received: u64,
    shown: ShownFigures,
    engine: mpsc::Sender<Report>,
    /// The excerpt that is being made.
    excerpt: Option<Box<ExcerptWork>>,
    timer: Pin<Box<Sleep>>,
}

/// Upstreams that are being closed for another stream.
struct GivingUp {
    to: StreamId,
    identities: Vec<Identity>,
    feeds: Vec<usize>,
}

impl StreamTask {
    fn new(now: Instant, prepared: Prepared, context: Arc<StreamContext>, engine: mpsc::Sender<Report>) -> Self {
        let policy = &prepared.assignment.policy;
        let times = Times { hold_left: policy.hold_left, grace: policy.grace };
        let bounds = Bounds { time: policy.lag_time, bytes: policy.lag_bytes };
        let destinations = &prepared.assignment.destinations;
        let required = destinations.iter().map(|destination| destination.required).collect();
        let started = prepared.point.session.is_started();
        let wanted = WantedUpstreams::new(context.upstreams.clone(), bounds);
        let upstream = |url: &PushUrl| {
            let upstream = wanted.upstream(now, url, &prepared.assignment.stream_id);
            if started { upstream.resumed() } else { upstream }
        };
        let feed = |to: &Destination| UpstreamFeed::new(upstream(&to.url), bounds, Lane::default());
        let feeds = destinations.iter().map(feed).collect();
        let shared = prepared.assignment.identities.iter().skip(1).copied().collect();
        let mut index = Index::new(policy.replay_time);
        let machine = Machine::new(now, times, required, started);
        let Prepared { assignment, publisher, ring, point, .. } = prepared;
        let mut ring = match ring {
            PreparedRing::Own(ring) => Some(ring),
            PreparedRing::Same(_) => None,
        };
        let open = ring.as_mut().map(|ring| point.take_up(ring)).unwrap_or_default();
        if let Some(state) = point.stream() {
            index.restore(now, state, &open);
        }
        let ring_bytes = ring.as_ref().map_or(0, RingMemory::most);
        let mut stream = Self {
            woken: Sources::ALL,
            stirred: true,
            wakes: Wakes::default(),
            assignment,
            machine,
            rings: Rings::new(index.place().ring, ring, context.spares.clone()),
            index,
            feeds,
            source: Some(
                PublisherSource::new(now, publisher, point.session, point.head, ring_bytes).gathering(context.gather),
            ),
            begun_at: 0,
            left_at: 0,
            gather: context.gather,
            room_until: 0,
            expires_at: now,
            need: LongestNeed::new(now),
            endings: Vec::new(),
            newcomer: None,
            successor: None,
            shared,
            contest: None,
            giving_up: Vec::new(),
            wanted,
            cutting: false,
            logged_skipped: false,
            logged: State::Starting,
            was_live: started,
            began: now,
            first_media: 0,
            received: 0,
            reports: Reports::new(now),
            shown: ShownFigures::default(),
            engine,
            excerpt: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            deadline: None,
            engine_gone: false,
        };
        stream.scan(now);
        stream
    }

    /// Ready when the stream has ended, with the stream that follows it.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        commands: &mut mpsc::Receiver<StreamCommand>,
    ) -> Poll<Option<Box<Prepared>>> {
        self.prefetch();
        let now = Instant::now();
        self.look(cx, now);
        if self.woken.take(Sources::COMMANDS) {
            self.poll_commands(now, commands);
        }
        if self.stirred && self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        let mut again = false;
        for arrivals in 0.. {
            let arrived = self.poll_source(cx, now, arrivals == 0);
            self.poll_feeds(now, arrived);
            // The upstreams are polled after every order to them: otherwise nothing wakes this task before its next deadline.
            if !self.perform(now) && !arrived {
                break;
            }
            if arrivals == ARRIVALS_PER_POLL {
                again = true;
                break;
            }
        }
        self.flush(now);
        if self.stirred {
            self.poll_endings(now);
            self.note_closed(now);
            again |= self.perform(now);
            self.note_given_up();
            again |= self.go_on_with_excerpt();
        }
        self.report(now);
        if self.stirred {
            if self.machine.state() == State::Ended && self.reports.is_empty() {
                return Poll::Ready(self.successor.take());
            }
            again |= self.arm(now);
        } else if self.armed.is_some_and(|at| at <= now) || self.source.as_ref().is_some_and(PublisherSource::gathers) {
            again |= self.set_timer(now);
        }
        self.stirred = again;
        if again {
            cx.waker().wake_by_ref();
        }
        debug_assert!(again || self.woken.is_empty(), "{:?} wakes nobody", self.woken);
        Poll::Pending
    }

    /// Notes which sources were woken. A deadline of whatever wakes all of them, since each handles its own. That of arrivals that gather wakes
    /// none: the connection that brings media is asked anyway.
    fn look(&mut self, cx: &Context<'_>, now: Instant) {
        self.woken.add(self.wakes.take(cx, self.feeds.len()));
        let fired = self.woken.take(Sources::TIMER) || self.armed.is_some_and(|at| at <= now);
        if fired && self.deadline.is_none_or(|at| at <= now) {
            self.woken.add(Sources::CONNECTIONS);
        }
        self.stirred |= !self.woken.is_empty();
    }

    /// Lets the processor fetch what every message needs, all of it at the same time.
    fn prefetch(&self) {
        prefetch(&self.reports);
        prefetch(&self.machine);
        self.source.iter().for_each(PublisherSource::prefetch);
        self.index.prefetch();
        self.feeds.iter().for_each(UpstreamFeed::prefetch);
    }

    fn poll_commands(&mut self, now: Instant, commands: &mut mpsc::Receiver<StreamCommand>) {
        while !self.engine_gone
            && let Poll::Ready(command) = commands.poll_recv(&mut Context::from_waker(self.wakes.of(Sources::COMMANDS)))
        {
            match command {
                Some(command) => self.command(now, command),
                None => self.engine_gone = true,
            }
        }
    }

    /// Tells the machine an event; its outputs are performed before the task waits.
    fn tell(&mut self, now: Instant, input: Input) {
        self.machine.handle(now, input);
        self.stirred = true;
    }

    fn command(&mut self, now: Instant, command: StreamCommand) {
        // The engine means the stream that follows; this one is about to end anyway.
        if let (Some(successor), StreamCommand::Fence(_) | StreamCommand::Kick(_) | StreamCommand::HandBack) =
            (&mut self.successor, &command)
        {
            successor.told.get_or_insert(command);
            return;
        }
        match command {
            StreamCommand::Attach(incoming) => self.attach(now, *incoming),
            StreamCommand::Contend(contest) => {
                self.contest = Some(contest);
                self.tell(now, Input::Contend);
            }
            StreamCommand::Fence(epoch) if self.assignment.epoch < epoch => self.tell(now, Input::Fence),
            StreamCommand::Fence(_) => {}
            StreamCommand::Alone(alone) => self.tell(now, Input::Alone(alone)),
            StreamCommand::Kick(reason) => self.tell(now, Input::Kick(reason)),
            StreamCommand::Excerpt(request) => self.begin_excerpt(request),
            StreamCommand::HandBack => {
                let possible = self.source.as_ref().is_some_and(PublisherSource::has_activator);
                self.tell(now, Input::HandBack { possible });
            }
        }
        self.perform(now);
    }

    fn attach(&mut self, now: Instant, incoming: IncomingStream) {
        let stream_id = incoming.assignment.stream_id.clone();
        match prepare(incoming, self.rings.current()) {
            Ok(prepared) => {
                let known = &self.assignment;
                let newcomer = Newcomer {
                    same: known.stream_id == stream_id && prepared.assignment.epoch > known.epoch,
                    started: prepared.point.session.is_started(),
                    hold_left: prepared.assignment.policy.hold_left,
                    may_follow: self.may_follow(&prepared.assignment),
                    memory: match prepared.ring {
                        PreparedRing::Own(_) => NewcomerMemory::Own,
                        PreparedRing::Same(_) => NewcomerMemory::Same,
                    },
                };
                self.newcomer = Some(Box::new(prepared));
                self.tell(now, Input::Attach(newcomer));
            }
            Err(failed) => self.refuse(now, *failed),
        }
    }

    fn refuse(&mut self, now: Instant, failed: NotResumed) {
        let stream_id = failed.assignment.stream_id.clone();
        self.end(not_resumed(now, failed));
        self.reports.push(Report::AttachDecided { stream_id, accepted: false });
    }

    /// Returns whether a stream of this assignment could begin in the place of this one: it wants no shared upstreams but this stream's.
    fn may_follow(&self, assignment: &Assignment) -> bool {
        assignment.identities.iter().skip(1).all(|identity| self.shared.contains(identity))
    }

    fn give_up(&mut self, now: Instant, gives_up: bool) {
        let Some(Contest { stream_id: to, mut identities, destinations }) = self.contest.take() else { return };
        if !gives_up {
            return self.reports.push(Report::ContestDecided { stream_id: to, given_up: None });
        }
        identities.retain(|identity| self.shared.contains(identity));
        self.shared.retain(|identity| !identities.contains(identity));
        let places = self.feeds.iter().map(UpstreamFeed::url).enumerate();
        let wanted = places.filter(|(_, url)| destinations.iter().any(|other| other.is_same_place(url)));
        let feeds: Vec<usize> = wanted.map(|(at, _)| at).collect();
        let names: Vec<&str> = feeds.iter().map(|at| self.feeds[*at].lane.name.as_str()).collect();
        tracing::info!(
            event = event::UPSTREAM_TAKEN_OVER,
            stream = %self.assignment.stream_id,
            publisher = self.wanted.publisher(),
            destinations = names.join(" "),
            by = %to,
            upstreams = feeds.len(),
            "upstreams taken over by another stream"
        );
        for at in &feeds {
            self.feeds[*at].give_up();
            if self.feeds[*at].lane.seat == LaneSeat::Main {
                self.feeds[*at].lane.seat = LaneSeat::GivenUp;
            }
            self.tell(now, Input::GivenUp(*at));
        }
        self.giving_up.push(GivingUp { to, identities, feeds });
        self.reports.session_changed(now);
    }

    /// Tells the streams that wait for upstreams of this one when these are closed. If this stream ends with them, the report of its end tells them.
    fn note_given_up(&mut self) {
        let ends = matches!(self.machine.state(), State::Closing | State::Ended) && self.successor.is_none();
        if ends {
            return;
        }
        let feeds = &self.feeds;
        let closed = |giving_up: &mut GivingUp| giving_up.feeds.iter().all(|at| feeds[*at].is_closed());
        for GivingUp { to, identities, .. } in self.giving_up.extract_if(.., closed) {
            self.reports.push(Report::ContestDecided { stream_id: to, given_up: Some(identities) });
        }
    }

    /// Polls the upstreams that were woken, and writes to those that may take something. `arrived`: the publisher has sent something.
    fn poll_feeds(&mut self, now: Instant, arrived: bool) {
        self.poll_woken_feeds(now, arrived);
        // A change of an upstream's state may let another one begin or end.
        while self.wanted.is_to_be_settled() {
            self.settle(now);
            self.poll_woken_feeds(now, false);
        }
    }

    fn poll_woken_feeds(&mut self, now: Instant, arrived: bool) {
        let woken = self.woken.take_upstreams();
        if woken.is_empty() && !arrived {
            return;
        }
        let head = self.source.as_ref().map_or(0, |source| source.head);
        for at in 0..self.feeds.len() {
            let source = Sources::upstream(at);
            let mut polls = woken.has(source);
            if !polls && !self.feeds[at].is_worth_writing(now) {
                continue;
            }
            loop {
                while polls
                    && let Poll::Ready(event) =
                        self.feeds[at].poll(&mut Context::from_waker(self.wakes.of(source)), now, &self.index)
                {
                    match event {
                        FeedEvent::Live => {
                            // Its session gets no more than the replay window, even if the ring has more.
                            self.expire(now);
                            self.machine.handle(now, Input::UpstreamLive(at));
                            self.wanted.settle_soon();
                        }
                        FeedEvent::Refused => self.machine.handle(now, Input::UpstreamRefused(at)),
                        FeedEvent::Closed => self.wanted.settle_soon(),
                        FeedEvent::Lost | FeedEvent::Renewed => {}
                    }
                    self.reports.session_changed(now);
                }
                let feed = &mut self.feeds[at];
                let cx = &mut Context::from_waker(self.wakes.of(source));
                polls = feed.write(cx, now, &self.index, head, &self.rings);
                polls |= feed.close(now, &self.index, self.cutting);
                if !polls {
                    break;
                }
                self.stirred = true;
            }
            // What has come may have set a deadline: audio alone is written after a while.
            self.stirred |= self.feeds[at].waits_for_keyframe(&self.index);
        }
    }

    /// Adds the end of a publisher's connection, which is polled before the task waits.
    fn end(&mut self, ending: PublisherEnding) {
        self.endings.push(ending);
        self.woken.add(Sources::ENDINGS);
        self.stirred = true;
    }

    fn poll_endings(&mut self, now: Instant) {
        if self.woken.take(Sources::ENDINGS) {
            let cx = &mut Context::from_waker(self.wakes.of(Sources::ENDINGS));
            self.endings.retain_mut(|ending| ending.poll(cx, now).is_pending());
        }
    }

    /// Performs the machine's outputs, and returns whether there were any: then every connection is to be looked at.
    fn perform(&mut self, now: Instant) -> bool {
        // Without a word to the machine, it has none.
        if !self.stirred {
            return false;
        }
        let mut said = false;
        while let Some(output) = self.machine.poll_output() {
            said = true;
            match output {
                Output::Start => self.source.iter_mut().for_each(PublisherSource::start),
                Output::SendAway => self.source.iter_mut().for_each(PublisherSource::send_away),
                Output::Refuse(text) => self.source.iter_mut().for_each(|source| source.refuse(&text)),
                Output::Ping => {
                    if let Some(source) = &mut self.source {
                        source.session.ping(0);
                    }
                }
                Output::EndPublisher { how, reason } => {
                    if let Some(source) = self.source.take() {
                        self.left_at = source.head;
                        self.received += source.received();
                        self.end(source.end(now, how, reason));
                    }
                }
                Output::PartPublisher => {
                    if let (Some(source), Some(ring)) = (self.source.take(), self.rings.current()) {
                        self.left_at = source.head;
                        self.received += source.received();
                        let ending = source.part(now, ring);
                        self.end(ending);
                    }
                }
                Output::GiveBack => {
                    if let Some(source) = self.source.take() {
                        self.received += source.received();
                        self.end(source.give_back(now));
                    }
                }
                Output::Decide(decision) => self.decided(now, decision),
                Output::GiveUp(gives_up) => self.give_up(now, gives_up),
                Output::CloseUpstreams => self.feeds.iter_mut().for_each(UpstreamFeed::drain),
                Output::CutUpstreams => self.cutting = true,
                Output::State(state) => {
                    self.log(now, state);
                    self.reports.session_changed(now);
                    self.report_session(now);
                    if state == State::Ended {
                        self.report_jumps(now, true);
                        let stream_id = self.assignment.stream_id.clone();
                        self.reports.push(Report::Ended { stream_id });
                    }
                }
            }
        }
        if said {
            self.woken.add(Sources::CONNECTIONS);
        }
        said
    }

    /// Logs each new state once: the turns of the stream's life at info, the steps between at debug.
    fn log(&mut self, now: Instant, state: State) {
        let before = std::mem::replace(&mut self.logged, state);
        let first = state == State::Live && !self.was_live;
        self.was_live |= state == State::Live;
        let (stream, app, reason) = (&self.assignment.stream_id, &self.assignment.app, self.machine.reason());
        let (client, publisher) = (self.assignment.client, self.wanted.publisher());
        match (before, state) {
            (_, State::Grace) => {
                tracing::info!(event = event::PUBLISHER_LOST, %stream, %app, publisher, %client, reason, "publisher lost: its upstreams are kept for the grace time");
            }
            (State::Grace, State::Live) => {
                tracing::info!(event = event::PUBLISHER_BACK, %stream, %app, publisher, %client, "publisher back");
            }
            (_, State::Live) if first => {
                tracing::info!(event = event::STREAM_LIVE, %stream, %app, publisher, %client, "stream live");
            }
            (_, State::Closing) if self.machine.goes_on() => {
                let state = before.as_str();
                tracing::debug!(event = event::STREAM_GIVEN_BACK, %stream, %app, %client, state, reason, "stream given back");
            }
            (_, State::Closing) => {
                let state = before.as_str();
                let bytes = self.received + self.source.as_ref().map_or(0, PublisherSource::received);
                let duration_ms = now.saturating_duration_since(self.began).as_millis();
                tracing::info!(event = event::STREAM_ENDED, %stream, %app, publisher, %client, state, reason, duration_ms, bytes, "stream ended");
            }
            (_, state) => {
                let (state, steps_back) = (state.as_str(), self.index.steps_back());
                tracing::debug!(event = event::STREAM_MOVED, %stream, %app, state, reason, steps_back, "stream {state}");
            }
        }
    }

    fn decided(&mut self, now: Instant, decision: AttachDecision) {
        let Some(newcomer) = self.newcomer.take() else { return };
        let stream_id = newcomer.assignment.stream_id.clone();
        let accepted = matches!(decision, AttachDecision::Adopt | AttachDecision::Follow);
        tracing::debug!(event = event::PUBLISHER_ATTACHED, stream = %stream_id, to = %self.assignment.stream_id, ?decision, "publisher came to a stream of this worker");
        self.reports.push(Report::AttachDecided { stream_id, accepted });
        let refusal = match decision {
            AttachDecision::Adopt => return self.adopt(now, *newcomer),
            AttachDecision::Follow => return self.successor = Some(newcomer),
            AttachDecision::Duplicate => Frame::Duplicate,
            AttachDecision::Return => Frame::Returned { why: Decline::Other },
        };
        let Prepared { publisher, assignment, .. } = *newcomer;
        self.end(source::refused(now, publisher, &assignment, &refusal));
    }

    fn adopt(&mut self, now: Instant, prepared: Prepared) {
        let same = prepared.assignment.stream_id == self.assignment.stream_id;
        // A return within the grace time has a line of its own, once the stream is live again.
        if !same && self.logged != State::Grace {
            let (stream, by) = (&self.assignment.stream_id, &prepared.assignment.stream_id);
            tracing::info!(event = event::PUBLISHER_REPLACED, %stream, publisher = self.wanted.publisher(), %by, "silent publisher replaced");
        }
        let how = match &prepared.ring {
            PreparedRing::Same(_) => Continue::SameRing,
            PreparedRing::Own(_) if same => Continue::SamePublisher,
            PreparedRing::Own(_) => Continue::OtherPublisher,
        };
        let left_at = match self.source.take() {
            Some(source) => {
                self.received += source.received();
                source.head
            }
            None => self.left_at,
        };
        let known_before = if same { left_at } else { 0 };
        if how != Continue::SameRing && self.rings.len() >= MAX_RINGS {
            let oldest = self.index.oldest_ring();
            let until = self.index.first_of_ring_after(oldest);
            self.evict(until, 0);
        }
        let place = self.index.begin(how);
        if let PreparedRing::Own(ring) = prepared.ring {
            self.rings.push(place.ring, ring);
        }
        self.room_until = 0;
        self.need = LongestNeed::new(now);
        let point = prepared.point;
        let open = self.rings.current_mut().map(|ring| point.take_up(ring)).unwrap_or_default();
        if let Some(state) = point.stream() {
            self.index.restore(now, state, &open);
        }
        if !same {
            self.forget_list();
        }
        self.assignment = prepared.assignment;
        self.feeds.iter_mut().for_each(|feed| feed.rename_stream(&self.assignment.stream_id));
        let ring_bytes = self.rings.current().map_or(0, RingMemory::most);
        let mut source =
            PublisherSource::new(now, prepared.publisher, point.session, point.head, ring_bytes).gathering(self.gather);
        source.known_before = known_before;
        self.reports.restart_skipped(self.index.unfit());
        self.source = Some(source);
        self.scan(now);
    }

    /// Writes answers and frames, and says what is due.
    fn flush(&mut self, now: Instant) {
        let woken = self.woken.take(Sources::OUTPUT);
        let Some(source) = &mut self.source else { return };
        if !woken && !source.has_output() {
            return;
        }
        let cx = &mut Context::from_waker(self.wakes.of(Sources::OUTPUT));
        if let Err(SourceEvent::Lost(why, how)) = source.flush(cx, now) {
            return self.tell(now, Input::Lost { why, how });
        }
        self.snapshot_of_start(now);
        let cx = &mut Context::from_waker(self.wakes.of(Sources::OUTPUT));
        if let Some(source) = self.source.as_mut().filter(|source| source.is_link())
            && let Err(SourceEvent::Lost(why, how)) = source.flush(cx, now)
        {
            self.tell(now, Input::Lost { why, how });
        }
    }

    fn note_closed(&mut self, now: Instant) {
        if self.machine.state() != State::Closing {
            return;
        }
        if self.source.is_none() && self.endings.is_empty() {
            self.tell(now, Input::PublisherClosed);
        }
        if self.feeds.iter().all(UpstreamFeed::is_closed) {
            self.tell(now, Input::UpstreamsClosed);
        }
    }

    /// Notes the first media of all upstreams; an upstream may be gone by the next report.
    fn note_first_media(&mut self) {
        if self.first_media == 0
            && let Some(first) = self.feeds.iter().filter_map(UpstreamFeed::first_media).min()
        {
            let time = first.saturating_duration_since(self.began).as_micros();
            self.first_media = u64::try_from(time).unwrap_or(u64::MAX).max(1);
            // A successor of another worker does not start the stream.
            if trace::is_on() && !self.assignment.resumed {
                trace::record(StartSpan::new(self.assignment.stream_id.as_str(), "first media", self.began, first));
            }
        }
    }

    fn report_session(&mut self, now: Instant) {
        let bytes = self.received + self.source.as_ref().map_or(0, PublisherSource::received);
        self.note_first_media();
        let mut figures = self.shown.of_stream(bytes, self.first_media, &self.index, &self.rings);
        let age = self.index.without_keyframe_since().map(|since| now.saturating_duration_since(since).as_millis());
        figures.keyframe_age = age.map_or(0, |age| u64::try_from(age).unwrap_or(u64::MAX));
        let assignment = &self.assignment;
        let own = assignment.identities.first().into_iter();
        // An upstream is this stream's until it is closed: no other stream is to dial it before.
        let giving_up = self.giving_up.iter().flat_map(|it| &it.identities);
        let leaving = self.leaving_identities();
        let mut session = Session {
            stream_id: assignment.stream_id.to_string(),
            identities: own.chain(&self.shared).chain(giving_up).chain(&leaving).copied().collect(),
            state: self.machine.told(),
            epoch: assignment.epoch,
            app: assignment.app.name().to_owned(),
            publisher: self.wanted.publisher().unwrap_or_default().to_owned(),
            upstreams: self.upstream_reports(),
            revision: self.wanted.revision(),
            reason: self.machine.reason().to_owned(),
            messages: self.index.end(),
            figures,
        };
        let lags: Vec<u64> = self.shown_feeds().map(|feed| feed.lag(now, &self.index)).collect();
        self.shown.complete(utc(), &mut session.upstreams, lags.into_iter());
        self.reports.push_session(now, session);
    }

    fn report(&mut self, now: Instant) {
        if !self.reports.is_due(now) {
            return;
        }
        if self.reports.is_session_due(now) && self.machine.state() != State::Ended {
            self.report_session(now);
        }
        while let Some(report) = self.reports.next() {
            match self.engine.try_send(report) {
                Ok(()) => {}
                Err(TrySendError::Full(report)) => {
                    self.stirred = true;
                    return self.reports.put_back(now, report);
                }
                // The engine has ended, and nothing else reads reports.
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }

    /// Finds the next deadline and sets the timer; returns whether it is due.
    fn arm(&mut self, now: Instant) -> bool {
        let feeds = self.feeds.iter().filter_map(|feed| feed.next_timeout(&self.index));
        let source = self.source.iter().filter_map(PublisherSource::next_timeout);
        let endings = self.endings.iter().map(PublisherEnding::deadline);
        let own = [self.machine.poll_timeout(), self.reports.poll_timeout()].into_iter().flatten();
        self.deadline = feeds.chain(source).chain(endings).chain(own).min();
        self.set_timer(now)
    }

    /// Sets the timer, and returns whether it is due. It may fire too early: that costs less than setting it at every arrival, which moves
    /// deadlines, but to later times only.
    fn set_timer(&mut self, now: Instant) -> bool {
        let gathered = self.source.as_ref().and_then(PublisherSource::gathered_at);
        let Some(wanted) = self.deadline.into_iter().chain(gathered).min() else { return false };
        if self.armed.is_none_or(|armed| wanted < armed || armed <= now) {
            self.timer.as_mut().reset(wanted.into());
            self.armed = Some(wanted);
        }
        let cx = &mut Context::from_waker(self.wakes.of(Sources::TIMER));
        let due = self.timer.as_mut().poll(cx).is_ready();
        if due {
            self.armed = None;
            if self.deadline.is_some_and(|at| at <= now) {
                self.woken.add(Sources::CONNECTIONS);
            }
        }
        due
    }
}

/// The stream's id alone.
impl std::fmt::Debug for StreamTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stream_id: &StreamId = &self.assignment.stream_id;
        f.debug_struct("StreamTask").field("stream_id", stream_id).finish_non_exhaustive()
    }
}
