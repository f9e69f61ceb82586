//! The shell of the lobby: its handles, its clock, its mail.
//!
//! In: calls of publishers' tasks, of the control service, of the process fleet. Out: mail for places, messages for workers, orders
//! for the process fleet. Next: `handoff`.
//!
//! One lock, and no channel towards it: places are given back in `Drop`, which can neither wait nor fail, and a channel that never
//! fails has no bound. The lock is held for one step of the machines, never across an await.
#![expect(clippy::disallowed_methods, reason = "shell: the lobby's clock and timer")]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use liveedgecast_common::clock::now;
use liveedgecast_common::control::wire::activator_says::Say as ActivatorSay;
use liveedgecast_common::control::wire::worker_says::Say as WorkerSay;
use liveedgecast_common::control::wire::{Fence, Kick, Meet, Offer};
use liveedgecast_common::key::Identity;
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::random;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, error, info, warn};

use super::metrics::{LobbyMetrics, WORKER_STATES};
use crate::dispatch::messages::{Output, Started};
use crate::dispatch::processes::{self, Processes};
use crate::dispatch::{
    self, Back, Call, Demand, Elsewhere, Entry, Input, Introduction, Key, Machine, Ourselves, PeerChange, PlaceEvent,
    Reason, Rules, StreamView, Tally, Token, Told, WorkerView,
};

/// Messages to a worker that it has not read yet. The machine has 64 offers open at most, each for 3 s, so this many are only reached
/// by a worker that has stopped reading; it is given up then.
pub(crate) const MAX_UNREAD: usize = 256;

/// A worker may tell of too many sessions as often as it likes; they are counted.
static EXCESSES: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// The lobby. Clones are the same one.
#[derive(Clone)]
pub struct Lobby {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    metrics: LobbyMetrics,
    /// The timer has to be set anew.
    rearm: Notify,
    /// There are orders for the process fleet.
    orders: Notify,
    /// A place was given back, or a process has ended.
    left: Notify,
    /// What others may want to see has changed: [`Matching::revision`](crate::dispatch::Tally).
    changes: watch::Sender<u64>,
}

struct State {
    machine: Machine,
    mail: HashMap<Key, Mail>,
    calls: HashMap<Call, mpsc::Sender<ActivatorSay>>,
    next_call: u64,
    /// For the process fleet; bounded by the number of processes, each of which is spawned, stopped and killed once.
    orders: VecDeque<Order>,
    /// Process ids of worker processes, by name.
    pids: HashMap<String, u32>,
    armed: Option<Instant>,
    /// Where the other activators are: every worker is told.
    met: BTreeSet<SocketAddr>,
}

/// What the process fleet's shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Spawn(String),
    Stop(String),
    Kill(String),
}

/// What a publisher's task has not read yet: at most one of each kind, because a newer one makes the older one void.
#[derive(Default)]
struct Mail {
    wake: Arc<Notify>,
    withdrawn: Option<u64>,
    offered: Option<PlaceEvent>,
    refused: Option<Reason>,
    kicked: Option<String>,
}

impl Mail {
    fn withdraw(&mut self, withdrawn: u64) {
        // An offer that was not read and its end cancel each other out.
        match &self.offered {
            Some(PlaceEvent::Offered { epoch, .. }) if *epoch == withdrawn => self.offered = None,
            _ => self.withdrawn = Some(withdrawn),
        }
    }

    fn take(&mut self) -> Option<PlaceEvent> {
        if let Some(reason) = self.kicked.take() {
            return Some(PlaceEvent::Kicked(reason));
        }
        if let Some(reason) = self.refused.take() {
            (self.offered, self.withdrawn) = (None, None);
            return Some(PlaceEvent::Refused(reason));
        }
        let withdrawn = self.withdrawn.take().map(|epoch| PlaceEvent::Withdrawn { epoch });
        withdrawn.or_else(|| self.offered.take())
    }
}

impl Lobby {
    /// An empty lobby; with a process fleet if its rules are given. [`Self::run`] has to run.
    #[must_use]
    pub fn new(rules: Rules, processes: Option<processes::Rules>, metrics: LobbyMetrics) -> Self {
        let state = State {
            machine: Machine::new(rules, processes),
            mail: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            orders: VecDeque::new(),
            pids: HashMap::new(),
            armed: None,
            met: BTreeSet::new(),
        };
        let (rearm, orders, left) = (Notify::new(), Notify::new(), Notify::new());
        let (changes, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { state: Mutex::new(state), metrics, rearm, orders, left, changes }) }
    }

    /// Keeps the lobby's time, until dropped. Sleeps without a timer while nothing is due.
    pub async fn run(&self) {
        loop {
            let due = self.shared.lock().armed;
            let slept = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = slept => self.shared.step(|state, now| {
                    state.armed = None;
                    state.machine.handle_timeout(now);
                }),
                () = self.shared.rearm.notified() => {}
            }
        }
    }

    /// Takes a place. It is offered to workers from now on, in the order of arrival.
    pub fn enter(&self, entry: Entry) -> Place {
        let wake = Arc::new(Notify::new());
        let key = self.shared.step(|state, now| {
            let key = state.machine.dispatcher.enter(now, entry);
            state.mail.insert(key, Mail { wake: Arc::clone(&wake), ..Mail::default() });
            key
        });
        Place { shared: Arc::clone(&self.shared), key, wake }
    }

    /// Streams waiting and live.
    #[must_use]
    pub fn demand(&self) -> Demand {
        self.shared.lock().machine.dispatcher.demand()
    }

    /// What we know of the demand by ourselves.
    pub(crate) fn tally(&self) -> Tally {
        self.shared.lock().machine.dispatcher.tally(now())
    }

    /// Changes when [`Self::tally`] may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// We are one of several activators, and this is our name among them.
    pub(crate) fn meet(&self, name: &str) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let origin = (now(), u64::try_from(unix.as_micros()).unwrap_or(u64::MAX));
        self.tell(Input::Ourselves(Ourselves { name: name.to_owned(), origin }));
    }

    /// Another activator's publisher, as it is now; or it is gone.
    pub(crate) fn elsewhere(&self, peer: String, number: u64, held: Option<Elsewhere>) {
        self.tell(Input::Elsewhere(peer, number, held));
    }

    /// Nothing of this activator stands any more.
    pub(crate) fn forget_peer(&self, peer: String) {
        self.tell(Input::ForgetPeer(peer));
    }

    /// Another activator is there, or is not any more: workers are to dial it.
    pub(crate) fn met(&self, address: SocketAddr, is_there: bool) {
        self.shared.step(|state, now| {
            if !is_there {
                state.met.remove(&address);
            } else if state.met.insert(address) {
                let calls: Vec<Call> = state.calls.keys().copied().collect();
                calls.into_iter().for_each(|call| state.say(now, call, meet(address)));
            }
        });
    }

    /// Takes a worker out of use, or uses it again. `leaving`: its pod may go. What it says to that is its state.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn cordon(&self, worker: &str, on: bool, leaving: bool) {
        self.shared.step(|state, now| {
            use liveedgecast_common::control::wire::Cordon;
            if let Some(call) = state.machine.dispatcher.named(worker) {
                state.say(now, call, ActivatorSay::Cordon(Cordon { on, leaving }));
            }
        });
    }

    /// Where the other activators are.
    pub(crate) fn activators(&self) -> Vec<SocketAddr> {
        self.shared.lock().met.iter().copied().collect()
    }

    /// A number that others look at has changed.
    pub(crate) fn changed(&self) {
        self.tell(Input::Changed);
    }

    /// What another activator is to be told that knows this much.
    pub(crate) fn news(&self, told: &mut Told) -> Vec<PeerChange> {
        self.shared.lock().machine.dispatcher.tell(now(), told)
    }

    /// Every stream.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamView> {
        self.shared.lock().machine.dispatcher.streams().collect()
    }

    /// Gives streams to `take`, from the one with this number on, until it wants no more; then the number of the one that it did not want.
    pub(crate) fn each_stream(&self, from: usize, mut take: impl FnMut(StreamView) -> bool) -> Option<usize> {
        let state = self.shared.lock();
        let mut streams = state.machine.dispatcher.streams().enumerate().skip(from);
        streams.find_map(|(number, stream)| (!take(stream)).then_some(number))
    }

    /// Every worker: those that are starting first.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        let state = self.shared.lock();
        let starting = state.machine.processes.iter().flat_map(|processes| {
            processes.starting().map(|name| WorkerView {
                name: name.to_owned(),
                state: "starting",
                streams: 0,
                capacity: u32::try_from(processes.capacity()).unwrap_or(u32::MAX),
            })
        });
        starting.chain(state.machine.dispatcher.workers()).collect()
    }

    /// Where workers serve their metrics.
    #[must_use]
    pub fn scrapes(&self) -> Vec<(String, SocketAddr)> {
        self.shared.lock().machine.dispatcher.scrapes()
    }

    /// Ends a stream; false when nobody has it.
    #[must_use]
    pub fn kick(&self, stream_id: &str, reason: &str) -> bool {
        self.shared.step(|state, _| state.machine.dispatcher.kick(stream_id, reason))
    }

    /// Lets go whoever is held; from now on nobody is.
    pub fn drain(&self) {
        self.tell(Input::Drain);
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.tell(Input::Close);
    }

    /// Returns when no publisher has a place here.
    pub async fn emptied(&self) {
        loop {
            let left = self.shared.left.notified();
            if self.shared.lock().machine.dispatcher.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Puts the gauges right; called when somebody looks.
    pub fn measure(&self) {
        let (demand, workers) = (self.demand(), self.workers());
        let here = self.shared.lock().machine.dispatcher.live_here();
        let set = |gauge: &prometheus::IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.shared.metrics.waiting, demand.waiting);
        set(&self.shared.metrics.live, here);
        for state in WORKER_STATES {
            let gauge = self.shared.metrics.workers.with_label_values(&[state]);
            set(&gauge, workers.iter().filter(|worker| worker.state == state).count());
        }
    }

    /// A worker has said Hello. Its messages go to `outbox`; `None` when a worker of its name is there already.
    pub(crate) fn join(&self, mut introduction: Introduction, outbox: mpsc::Sender<ActivatorSay>) -> Option<Call> {
        self.shared.step(|state, now| {
            if state.machine.dispatcher.is_joined(&introduction.name) {
                return None;
            }
            // Only of our own children we know that the number means the same process here.
            if state.pids.get(&introduction.name) != Some(&introduction.pid) {
                introduction.pid = 0;
            }
            if let Some((_, spawned)) = state.machine.processes.as_ref().and_then(|all| all.times(&introduction.name)) {
                self.shared.metrics.registration.observe(now.saturating_duration_since(spawned).as_secs_f64());
            }
            state.next_call += 1;
            let call = Call(state.next_call);
            state.calls.insert(call, outbox);
            for address in state.met.clone() {
                state.say(now, call, meet(address));
            }
            state.machine.handle(now, Input::Joined(call, introduction));
            Some(call)
        })
    }

    /// A worker has said something else.
    pub(crate) fn said(&self, call: Call, say: WorkerSay) {
        self.tell(Input::Said(call, say));
    }

    /// A worker's call has ended.
    pub(crate) fn lost(&self, call: Call) {
        self.shared.step(|state, now| {
            state.calls.remove(&call);
            state.machine.handle(now, Input::Lost(call));
        });
    }

    /// The next thing that the process fleet's shell is to do.
    pub(crate) async fn order(&self) -> Order {
        loop {
            let more = self.shared.orders.notified();
            if let Some(order) = self.shared.lock().orders.pop_front() {
                return order;
            }
            more.await;
        }
    }

    /// Something happened to a worker process.
    pub(crate) fn process(&self, input: processes::Input, pid: Option<u32>) {
        self.shared.step(|state, now| {
            match &input {
                processes::Input::Spawned(name) => state.pids.extend(pid.map(|pid| (name.clone(), pid))),
                processes::Input::Ended(name, _) => drop(state.pids.remove(name)),
                _ => {}
            }
            state.machine.process(now, input);
        });
        self.shared.left.notify_waiters();
    }

    /// Returns when there is no worker process.
    pub(crate) async fn without_processes(&self) {
        loop {
            let left = self.shared.left.notified();
            if self.shared.lock().machine.processes.as_ref().is_none_or(Processes::is_empty) {
                return;
            }
            left.await;
        }
    }

    fn tell(&self, input: Input) {
        self.shared.step(|state, now| state.machine.handle(now, input));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change of the machines, then everything that follows from it.
    fn step<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = now();
        let mut state = self.lock();
        let changed = change(&mut state, now);
        state.machine.settle(now);
        while let Some(output) = state.machine.poll_output() {
            match output {
                dispatch::Output::Dispatcher(output) => self.carry_out(&mut state, now, output),
                dispatch::Output::Processes(output) => self.order(&mut state, output),
            }
        }
        let revision = state.machine.dispatcher.revision();
        self.changes.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        let due = state.machine.poll_timeout();
        if due != state.armed {
            state.armed = due;
            self.rearm.notify_one();
        }
        changed
    }

    fn order(&self, state: &mut State, output: processes::Output) {
        let order = match output {
            processes::Output::Spawn(name) => Order::Spawn(name),
            processes::Output::Stop(name) => Order::Stop(name),
            processes::Output::Kill(name) => Order::Kill(name),
            processes::Output::Failed { name, how, why, last_words, pause } => {
                self.metrics.processes_ended.with_label_values(&[how]).inc();
                let last_words = last_words.join("\n");
                error!(worker = name, why, last_words, pause_ms = pause.as_millis(), "a worker process failed");
                return;
            }
            processes::Output::Gone(name) => {
                self.metrics.processes_ended.with_label_values(&["asked"]).inc();
                info!(worker = name, "the worker process has gone");
                return;
            }
            processes::Output::Terminated(name) => {
                self.metrics.processes_ended.with_label_values(&["terminated"]).inc();
                info!(
                    event = "worker.terminated",
                    worker = name,
                    "worker process ended in order without being asked: somebody terminated it, or it had lost this activator"
                );
                return;
            }
        };
        state.orders.push_back(order);
        self.orders.notify_one();
    }

    fn carry_out(&self, state: &mut State, now: Instant, output: Output) {
        match output {
            Output::Offer { key, call, worker, pid, stream_id, epoch, descriptor, known } => {
                let token = Token(random::bytes());
                debug!(stream = stream_id, worker, epoch, descriptor, "offered");
                // The publisher's task first: it has to expect the worker before that comes.
                state.post(key, |mail| {
                    mail.offered = Some(PlaceEvent::Offered { epoch, token, worker, descriptor, pid });
                });
                let offer = Offer { stream_id, epoch, token: token.0.to_vec(), descriptor, known };
                state.say(now, call, ActivatorSay::Offer(offer));
            }
            Output::Withdrawn(key, epoch) => state.post(key, |mail| mail.withdraw(epoch)),
            Output::Refused(key, reason) => state.post(key, |mail| mail.refused = Some(reason)),
            Output::Kicked(key, reason) => state.post(key, |mail| mail.kicked = Some(reason)),
            Output::KickOnWorker(call, stream_id, reason) => {
                state.say(now, call, ActivatorSay::Kick(Kick { stream_id, reason }));
            }
            Output::Fence(call, stream_id, epoch) => {
                info!(
                    event = "stream.fenced",
                    stream = stream_id,
                    epoch,
                    "old worker told to end its part of a stream"
                );
                state.say(now, call, ActivatorSay::Fence(Fence { stream_id, epoch }));
            }
            Output::Started(started) => self.started(state, &started),
            Output::NeverStarted { stream_id, worker, entered } => {
                self.metrics.never_started.inc();
                let whole_ms = now.saturating_duration_since(entered).as_millis();
                // Why, the worker says.
                info!(event = "start.failed", stream = stream_id, worker, whole_ms, "start failed");
            }
            Output::Outcome(outcome) => self.metrics.offers.with_label_values(&[outcome]).inc(),
            Output::Excess(worker, sessions) => {
                self.metrics.excess.inc_by(u64::try_from(sessions).unwrap_or(u64::MAX));
                if EXCESSES.is_due(now) {
                    warn!(
                        worker,
                        sessions, "a worker tells of more sessions than it has capacity for; they do not count"
                    );
                }
            }
            Output::Suspect(worker) => warn!(worker, "a worker that serves streams is silent; it is offered nothing"),
        }
    }

    fn started(&self, state: &State, started: &Started) {
        let process = state.machine.processes.as_ref().and_then(|processes| processes.times(&started.worker));
        let whole = started.started.saturating_duration_since(started.entered);
        let (stream, worker) = (&started.stream_id, &started.worker);
        let milliseconds = |time: std::time::Duration| time.as_micros() as f64 / 1000.0;
        let Some(phases) = dispatch::cold(started, process) else {
            self.metrics.start.with_label_values(&["warm"]).observe(whole.as_secs_f64());
            debug!(stream, worker, whole_ms = milliseconds(whole), "started on a running worker");
            return;
        };
        self.metrics.start.with_label_values(&["cold"]).observe(whole.as_secs_f64());
        for (name, time) in phases.named() {
            self.metrics.cold_start.with_label_values(&[name]).observe(time.as_secs_f64());
        }
        info!(
            stream,
            worker,
            detect_ms = milliseconds(phases.detect),
            scale_ms = milliseconds(phases.scale),
            register_ms = milliseconds(phases.register),
            handoff_ms = milliseconds(phases.handoff),
            upstream_ms = milliseconds(phases.upstream),
            whole_ms = milliseconds(whole),
            "cold start"
        );
    }
}

impl State {
    fn post(&mut self, key: Key, write: impl FnOnce(&mut Mail)) {
        if let Some(mail) = self.mail.get_mut(&key) {
            write(mail);
            mail.wake.notify_one();
        }
    }

    fn say(&mut self, now: Instant, call: Call, say: ActivatorSay) {
        let Some(outbox) = self.calls.get(&call) else { return };
        if outbox.try_send(say).is_err() {
            // Its call ends with the channel; what it was offered goes to others.
            self.calls.remove(&call);
            self.machine.handle(now, Input::Lost(call));
        }
    }
}

/// A publisher's place, waiting or live. Dropping it leaves the lobby: an offer that is on is void (the worker finds nobody who
/// expects it), a live stream is no longer counted as ours.
pub struct Place {
    shared: Arc<Shared>,
    key: Key,
    wake: Arc<Notify>,
}

impl Place {
    /// What happened to it. Cancel safe. After [`PlaceEvent::Refused`] nothing more comes.
    pub async fn event(&mut self) -> PlaceEvent {
        loop {
            if let Some(event) = self.shared.lock().mail.get_mut(&self.key).and_then(Mail::take) {
                return event;
            }
            self.wake.notified().await;
        }
    }

    /// The publisher answered something: it is alive. A second publisher of the same stream takes over one that was
    /// silent for some seconds.
    pub fn heard(&mut self) {
        let now = now();
        // Nothing follows from it, so nothing is settled.
        self.shared.lock().machine.dispatcher.handle(now, Input::Heard(self.key));
    }

    /// The stream's own identity, then those of upstreams that it has not lost to other streams; `None` once the place is gone.
    #[must_use]
    pub fn identities(&self) -> Option<Vec<Identity>> {
        self.shared.lock().machine.dispatcher.identities(self.key).map(<[Identity]>::to_vec)
    }

    /// A worker has accepted the stream under this epoch: it is live from here on. A withdrawn epoch changes nothing.
    pub fn taken(&mut self, epoch: u64) {
        self.tell(Input::Taken(self.key, epoch));
    }

    /// The worker has told the publisher to start.
    pub fn started(&mut self) {
        self.tell(Input::Started(self.key));
    }

    /// It waits again: in its place, or at the front when it was live.
    pub fn back(&mut self, epoch: u64, why: Back) {
        self.shared.metrics.back.with_label_values(&[why.as_str()]).inc();
        self.tell(Input::Back(self.key, epoch, why));
    }

    fn tell(&self, input: Input) {
        self.shared.step(|state, now| state.machine.handle(now, input));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.step(|state, now| {
            state.mail.remove(&self.key);
            state.machine.handle(now, Input::Left(self.key));
        });
        self.shared.left.notify_waiters();
    }
}

fn meet(address: SocketAddr) -> ActivatorSay {
    ActivatorSay::Meet(Meet { address: address.to_string() })
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
