//! The other handles: one for each kind of caller. In: their calls. Out: answers from the state behind the lock, or one step of it.
#![expect(clippy::disallowed_methods, reason = "shell: the wall clock")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use liveedgecast_common::clock::{now, utc};
use liveedgecast_common::control::{ActivatorMessage, Session, WorkerMessage};
use liveedgecast_common::event;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info};

use super::hub::{Hub, Order};
use super::metrics::{AVOIDED, LIVE, LobbyMetrics, USED, WAITING};
use super::places::Places;
use crate::config::RouteDestination;
use crate::destinations::{Change, ChangeError, DestinationView};
use crate::dispatch::processes::{self, Processes};
use crate::dispatch::{
    BaselineCounter, CallId, Demand, Elsewhere, FollowerView, Holder, Input, Introduction, Ourselves, PeerChange,
    RoutedStream, Rules, StreamView, Tally, WallClock, WorkerSecondsView, WorkerState, WorkerView,
};

use crate::events::{self, Events};
use crate::excerpt::KeptBytes;

/// A handle for each kind of caller, all on one hub.
#[derive(Clone)]
pub struct Lobby {
    /// Handle of publishers' tasks.
    pub places: Places,
    /// Handle of the control service and the scale-in.
    pub workers: WorkerCalls,
    /// Handle of the process fleet's shell.
    pub processes: ProcessOrders,
    /// Handle of peers.
    pub peers: PeerNews,
    /// Handle of HTTP, metrics and Kubernetes.
    pub views: Views,
    /// Handle of those who change destinations.
    pub streams: Streams,
    /// Handle of the drain.
    pub drain: DrainSwitch,
}

impl Lobby {
    /// An empty lobby; with a process fleet if its rules are given. [`Self::keep_time`] has to run.
    #[must_use]
    pub fn new(rules: Rules, processes: Option<processes::Rules>, metrics: LobbyMetrics, events: Events) -> Self {
        let hub = Arc::new(Hub::new(rules, processes, metrics, events));
        Self {
            places: Places(Arc::clone(&hub)),
            workers: WorkerCalls(Arc::clone(&hub)),
            processes: ProcessOrders(Arc::clone(&hub)),
            peers: PeerNews(Arc::clone(&hub)),
            views: Views(Arc::clone(&hub)),
            streams: Streams(Arc::clone(&hub)),
            drain: DrainSwitch(hub),
        }
    }

    /// Keeps the lobby's time, until dropped. Sleeps without a timer while nothing is due.
    pub fn keep_time(&self) -> impl Future<Output = ()> + Send + use<> {
        let hub = Arc::clone(&self.views.0);
        async move { hub.keep_time().await }
    }
}

/// The calls of workers.
#[derive(Clone)]
pub struct WorkerCalls(pub(super) Arc<Hub>);

impl WorkerCalls {
    /// Registers a worker. Messages for it go to `outbox`; `None` when a worker of its name is registered already.
    pub(crate) fn join(&self, introduction: Introduction, outbox: mpsc::Sender<ActivatorMessage>) -> Option<CallId> {
        let sessions = introduction.sessions.clone();
        let (call, spawned) = self.0.step(|state, now| {
            if state.machine.dispatcher.is_joined(&introduction.name) {
                return None;
            }
            let times = state.machine.processes.as_ref().and_then(|all| all.times(&introduction.name));
            let call = state.open_call(now, outbox);
            state.machine.handle(now, Input::Joined(call, introduction));
            Some((call, times.map(|(_, spawned)| now.saturating_duration_since(spawned))))
        })?;
        sessions.iter().for_each(|session| self.note_session(call, session));
        spawned.into_iter().for_each(|time: Duration| self.0.metrics.registration.observe(time.as_secs_f64()));
        Some(call)
    }

    /// Passes on a message of a registered worker.
    pub(crate) fn said(&self, call: CallId, message: WorkerMessage) {
        self.note(call, &message);
        self.0.step(|state, now| {
            if let WorkerMessage::Excerpt(piece) = &message {
                state.excerpts.arrived(call, piece.clone());
            }
            state.machine.handle(now, Input::Said(call, message));
        });
    }

    /// Notes the part of a message from which events may follow.
    fn note(&self, call: CallId, message: &WorkerMessage) {
        match message {
            WorkerMessage::Session(session) => self.note_session(call, session),
            WorkerMessage::Counters(streams) => {
                let name = self.0.lock().machine.dispatcher.name_of(call).map(str::to_owned);
                name.into_iter().for_each(|worker| self.0.events.note(events::Input::Counted(&worker, streams)));
            }
            _ => {}
        }
    }

    /// Notes that a worker tells its counters to this activator.
    pub(crate) fn tells(&self, call: CallId) {
        // Nothing follows from it, so nothing is settled.
        self.0.lock().machine.dispatcher.handle(now(), Input::Tells(call));
    }

    /// Notes a session, if the worker is believed.
    fn note_session(&self, call: CallId, session: &Session) {
        let name = self.0.lock().machine.dispatcher.reporter(now(), call, session).map(str::to_owned);
        name.into_iter().for_each(|worker| self.0.events.note(events::Input::Reported(&worker, session)));
    }

    /// Ends a worker's call.
    pub(crate) fn lost(&self, call: CallId) {
        self.0.step(|state, now| {
            state.close_call(call);
            state.machine.handle(now, Input::Lost(call));
        });
    }

    /// Takes a worker out of use, or uses it again. Its answer is its next report of its load.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn cordon(&self, worker: &str, cordon: liveedgecast_common::control::Cordon) {
        self.0.step(|state, now| {
            if let Some(call) = state.machine.dispatcher.named(worker) {
                state.say(now, call, ActivatorMessage::Cordon(cordon));
            }
        });
    }

    /// The control listeners of the other activators.
    pub(crate) fn activators(&self) -> Vec<SocketAddr> {
        self.0.lock().met.iter().copied().collect()
    }
}

/// The orders for worker processes.
#[derive(Clone)]
pub struct ProcessOrders(pub(super) Arc<Hub>);

impl ProcessOrders {
    /// The next order.
    pub(crate) async fn order(&self) -> Order {
        loop {
            let more = self.0.ordered.notified();
            if let Some(order) = self.0.lock().orders.pop_front() {
                return order;
            }
            more.await;
        }
    }

    /// Reports an event of a worker process.
    pub(crate) fn process(&self, input: processes::Input) {
        self.0.step(|state, now| state.machine.process(now, input));
        self.0.left.notify_waiters();
    }
}

/// News for peers and from peers.
#[derive(Clone)]
pub struct PeerNews(pub(super) Arc<Hub>);

impl PeerNews {
    /// The demand, as this activator knows it by itself.
    pub(crate) fn tally(&self) -> Tally {
        self.0.lock().machine.dispatcher.tally(now())
    }

    /// Changes when [`Self::tally`] may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Gives this activator its name among several.
    pub(crate) fn meet(&self, name: &str) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let origin: (Instant, u64) = (now(), u64::try_from(unix.as_micros()).unwrap_or(u64::MAX));
        self.0.tell(Input::Ourselves(Ourselves { name: name.to_owned(), origin }));
    }

    /// Stores a publisher of another activator as it is now, or removes it.
    pub(crate) fn elsewhere(&self, peer: String, number: u64, held: Option<Elsewhere>) {
        self.0.tell(Input::Elsewhere(peer, number, held));
    }

    /// Removes everything that this activator told.
    pub(crate) fn forget_peer(&self, peer: String) {
        self.0.tell(Input::ForgetPeer(peer));
    }

    /// Adds or removes another activator: workers are told to dial those that are there.
    pub(crate) fn met(&self, address: SocketAddr, is_there: bool) {
        self.0.step(|state, now| {
            if !is_there {
                state.met.remove(&address);
            } else if state.met.insert(address) {
                state.say_to_all(now, &ActivatorMessage::Meet(address));
            }
        });
    }

    /// Notes that KEDA was told of the demand, of one app or of all.
    pub(crate) fn pushed(&self, app: Option<&str>) {
        self.0.tell(Input::Pushed(app.map(str::to_owned)));
    }

    /// Notes news of a worker's pod.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn pod_seen(&self, news: crate::dispatch::PodNews) {
        self.0.tell(Input::Pod(news));
    }

    /// Notes which activator counts the time of missing workers.
    pub(crate) fn counts(&self, counter: BaselineCounter) {
        // Nothing follows from it, so nothing is settled.
        self.0.lock().machine.dispatcher.handle(now(), Input::Counts(counter));
    }

    /// Announces a change of a figure that others look at.
    pub(crate) fn changed(&self) {
        self.0.tell(Input::Changed);
    }

    /// The changes since `told`, which is brought up to date.
    pub(crate) fn news(&self, told: &mut FollowerView) -> Vec<PeerChange> {
        self.0.lock().machine.dispatcher.tell(now(), told)
    }
}

/// Streams and workers, to be shown.
#[derive(Clone)]
pub struct Views(pub(super) Arc<Hub>);

impl Views {
    /// Streams waiting and live.
    #[must_use]
    pub fn demand(&self) -> Demand {
        self.0.lock().machine.dispatcher.demand()
    }

    /// Worker-seconds so far, as this activator has seen all workers.
    #[must_use]
    pub fn worker_seconds(&self) -> WorkerSecondsView {
        let time = self.0.lock().machine.dispatcher.worker_seconds(now());
        WorkerSecondsView { used: time.used.as_secs_f64(), avoided: time.avoided.as_secs_f64() }
    }

    /// Every stream.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamView> {
        self.0.lock().machine.dispatcher.streams(wall_clock()).collect()
    }

    /// Passes streams to `take`, from number `from` on, until it returns false; returns the number of the stream that it did not take.
    pub(crate) fn each_stream(&self, from: usize, mut take: impl FnMut(StreamView) -> bool) -> Option<usize> {
        let state = self.0.lock();
        let mut streams = state.machine.dispatcher.streams(wall_clock()).enumerate().skip(from);
        streams.find_map(|(number, stream)| (!take(stream)).then_some(number))
    }

    /// Every worker: those that are starting first.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        self.0.lock().machine.workers()
    }

    /// The one that can end or change a stream; `None` if there is no such stream.
    #[must_use]
    pub fn holder(&self, stream_id: &str) -> Option<Holder> {
        self.0.lock().machine.dispatcher.holder(stream_id)
    }

    /// Asks the task of a stream's publisher for the bytes that are kept of the stream; `None`: no publisher of this activator has it. The channel
    /// closes without an answer when nothing is kept.
    #[must_use]
    pub fn kept(&self, stream_id: &str) -> Option<oneshot::Receiver<KeptBytes>> {
        let (asker, kept) = oneshot::channel();
        let mut state = self.0.lock();
        let key = state.machine.dispatcher.place_of(stream_id)?;
        state.ask(key, asker);
        Some(kept)
    }

    /// Returns whether a worker has the stream.
    #[must_use]
    pub fn is_served(&self, stream_id: &str) -> bool {
        self.0.lock().machine.dispatcher.is_served(stream_id)
    }

    /// Has a worker give its streams to others and take no more, or take streams again; false when no worker has this name.
    #[must_use]
    pub fn drain_worker(&self, worker: &str, on: bool) -> bool {
        self.0.step(|state, now| {
            let call = state.machine.dispatcher.named(worker);
            call.into_iter().for_each(|call| state.say(now, call, ActivatorMessage::Drain(on)));
            call.is_some()
        })
    }

    /// Ends a stream; false when no worker and no publisher has it.
    #[must_use]
    pub fn kick(&self, stream_id: &str, reason: &str) -> bool {
        self.0.step(|state, _| state.machine.dispatcher.kick(stream_id, reason))
    }

    /// Puts the gauges right; called when they are scraped.
    pub fn measure(&self) {
        let (demand, workers) = (self.demand(), self.workers());
        let (here, named) = {
            let state = self.0.lock();
            (state.machine.dispatcher.live_here(), state.machine.dispatcher.named_publishers())
        };
        let set = |gauge: &prometheus::IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        for (state, count) in [(WAITING, demand.waiting), (LIVE, here)] {
            set(&self.0.metrics.streams.with_label_values(&[state]), count);
        }
        let metrics = &self.0.metrics;
        let share = self.0.lock().machine.dispatcher.share_of_worker_seconds(now());
        for (result, time) in [(USED, share.used), (AVOIDED, share.avoided)] {
            let counter = metrics.worker_seconds.with_label_values(&[result]);
            counter.inc_by((time.as_secs_f64() - counter.get()).max(0.0));
        }
        for publisher in named {
            let name = publisher.name.as_str();
            for (state, count) in [(WAITING, publisher.waiting), (LIVE, publisher.live)] {
                set(&metrics.publisher_streams.with_label_values(&[name, state]), count);
            }
            let counter = metrics.publisher_bytes.with_label_values(&[name]);
            counter.inc_by(publisher.bytes.saturating_sub(counter.get()));
        }
        for state in WorkerState::ALL {
            let gauge = self.0.metrics.workers.with_label_values(&[state.as_str()]);
            set(&gauge, workers.iter().filter(|worker| worker.state == state).count());
        }
    }
}

/// The present moment by both clocks.
fn wall_clock() -> WallClock {
    WallClock { now: now(), utc: utc() }
}

/// The destinations of streams whose publishers are connected here.
#[derive(Clone)]
pub struct Streams(pub(super) Arc<Hub>);

impl Streams {
    /// Changes the destinations of a stream, and returns the revision in force. The worker that has the stream is told at once, and so is every later
    /// one; what becomes of it at the upstreams is in the views.
    ///
    /// # Errors
    /// The change cannot be made, and nothing has changed.
    pub fn change(&self, stream_id: &str, change: &Change) -> Result<u64, ChangeError> {
        let follows = matches!(change, Change::Route(_));
        let (before, revision, differing) = self.0.step(|state, _| {
            let dispatcher = &mut state.machine.dispatcher;
            let (before, listed) =
                (dispatcher.changes_of(stream_id), dispatcher.listed(stream_id).filter(|_| follows).cloned());
            let revision = dispatcher.change(stream_id, change);
            // A changed file does not name the destinations that it has changed.
            let differing =
                dispatcher.listed(stream_id).zip(listed.as_ref()).map(|(now, before)| now.differing(before));
            let differing: Vec<&str> = differing.into_iter().flatten().collect();
            (before, revision, differing.join(" "))
        });
        let (kind, named) = change.shown();
        let destination = if follows { differing.as_str() } else { named };
        match &revision {
            Ok(revision) if before == Some(*revision) => {}
            Ok(revision) => {
                info!(
                    event = event::DESTINATIONS_CHANGED,
                    stream = stream_id,
                    change = kind,
                    destination,
                    revision,
                    "destinations changed"
                );
            }
            Err(error) => {
                debug!(event = event::DESTINATIONS_KEPT, stream = stream_id, change = kind, destination, %error, "destinations not changed");
            }
        }
        revision
    }

    /// Has a stream's destinations follow the configuration file; false if that changes nothing, or the stream has left.
    ///
    /// # Errors
    /// The stream cannot follow, and nothing has changed.
    pub(crate) fn follow(&self, stream_id: &str, route: Vec<RouteDestination>) -> Result<bool, ChangeError> {
        let before = self.0.lock().machine.dispatcher.changes_of(stream_id);
        match self.change(stream_id, &Change::Route(route)) {
            Ok(revision) => Ok(before != Some(revision)),
            Err(ChangeError::UnknownStream) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The streams whose destinations can be changed, in the order in which their publishers came.
    #[must_use]
    pub fn routed(&self) -> Vec<RoutedStream> {
        self.0.lock().machine.dispatcher.routed()
    }

    /// The destinations of a stream, in order; `None`: no publisher of this activator has it.
    #[must_use]
    pub fn destinations(&self, stream_id: &str) -> Option<Vec<DestinationView>> {
        self.0.lock().machine.dispatcher.destinations(stream_id)
    }
}

/// The end of everything that the lobby holds.
#[derive(Clone)]
pub struct DrainSwitch(pub(super) Arc<Hub>);

impl DrainSwitch {
    /// Lets the publishers go that wait; from now on none is held.
    pub fn drain(&self) {
        self.0.tell(Input::Drain);
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.0.tell(Input::Close);
    }

    /// Returns when no publisher has a place here.
    pub async fn emptied(&self) {
        self.0.until(|state| state.machine.dispatcher.is_empty()).await;
    }

    /// Asks every worker process to go; none is started any more.
    pub fn stop_processes(&self) {
        self.0.step(|state, now| state.machine.process(now, processes::Input::Stop));
    }

    /// Kills every worker process that is left.
    pub fn kill_processes(&self) {
        self.0.step(|state, now| state.machine.process(now, processes::Input::Kill));
    }

    /// Returns when there is no worker process.
    pub async fn without_processes(&self) {
        self.0.until(|state| state.machine.processes.as_ref().is_none_or(Processes::is_empty)).await;
    }
}
