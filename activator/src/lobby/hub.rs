//! One lock over the machine of `dispatch`, and the mail for publishers and workers. In: changes, from the handles. Out: mail, messages for
//! workers, orders; what is to be logged and counted, to `report`.
//!
//! There is a lock and no channel towards the machine: places are given back in `Drop`, which can neither wait nor fail, and a channel
//! that never fails has no bound. The lock is held for one step of the machine and never across an await. Mail and messages are queued
//! under it, because two steps at once must not change the order in which the machine has decided. Queuing never waits; it wakes the task that
//! reads the queue (`notify_one`, `try_send`), and an offer's token is drawn from the kernel, whose random numbers are always ready.
//! Logging, counting and events come after the lock, and so do the lobby's own timer and the tasks that watch the whole.
#![expect(clippy::disallowed_methods, reason = "shell: the lobby's clock and timer")]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::control::{ActivatorMessage, Offer};
use liveedgecast_common::random;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::excerpts::AskedExcerpts;
use super::metrics::LobbyMetrics;
use super::report::report;
use crate::dispatch::messages::Output as Decision;
use crate::dispatch::processes::{self, Output as ProcessOutput};
use crate::dispatch::{CallId, Input, Key, Machine, Mail, Output, PlaceEvent, Rules, Token};
use crate::events::Events;
use crate::excerpt::KeptBytes;

/// Messages to a worker that it has not read yet. The machine has 64 offers open at most, each for 3 s, so this many are only reached
/// by a worker that has stopped reading; it is given up then.
pub(crate) const MAX_UNREAD: usize = 256;

/// The state that all handles share.
pub(super) struct Hub {
    state: Mutex<State>,
    pub(super) metrics: LobbyMetrics,
    pub(super) events: Events,
    /// The timer has to be set anew.
    rearm: Notify,
    /// There are orders for the process fleet.
    pub(super) ordered: Notify,
    /// A place was given back, or a process has ended.
    pub(super) left: Notify,
    /// The revision of the dispatcher: see [`PeerNews::changes`](super::PeerNews).
    pub(super) changes: watch::Sender<u64>,
}

/// The part of the state that is behind the lock.
pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) mail: HashMap<Key, Mailbox>,
    calls: HashMap<CallId, mpsc::Sender<ActivatorMessage>>,
    next_call: u64,
    /// Orders for the process fleet; bounded by the number of processes, each of which is spawned, stopped and killed once.
    pub(super) orders: VecDeque<Order>,
    pub(super) armed: Option<Instant>,
    /// The control listeners of the other activators: every worker is told of them.
    pub(super) met: BTreeSet<SocketAddr>,
    /// The excerpts that workers have been asked for.
    pub(super) excerpts: AskedExcerpts,
}

/// An order for the process fleet's shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Start a worker process of this name.
    Spawn(String),
    /// Ask this one to go.
    Stop(String),
    /// Kill this one.
    Kill(String),
}

/// The unread events of one place, and the means to wake its task.
pub(super) struct Mailbox {
    pub(super) mail: Mail,
    wake: Arc<Notify>,
    /// Gets the bytes that are kept of the stream; the last one that asked.
    pub(super) asker: Option<oneshot::Sender<KeptBytes>>,
}

impl Hub {
    pub(super) fn new(
        rules: Rules,
        processes: Option<processes::Rules>,
        metrics: LobbyMetrics,
        events: Events,
    ) -> Self {
        let mut machine = Machine::new(rules, processes);
        machine.dispatcher.count_seconds(now());
        let state = State {
            machine,
            mail: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            orders: VecDeque::new(),
            armed: None,
            met: BTreeSet::new(),
            excerpts: AskedExcerpts::default(),
        };
        Self {
            state: Mutex::new(state),
            metrics,
            events,
            rearm: Notify::new(),
            ordered: Notify::new(),
            left: Notify::new(),
            changes: watch::channel(0).0,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one change of the machine and carries out everything that follows from it.
    pub(super) fn step<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = now();
        let mut state = self.lock();
        let changed = change(&mut state, now);
        let outputs = state.carry_out(now);
        let revision = state.machine.dispatcher.revision();
        let due = state.machine.poll_timeout();
        let rearm = std::mem::replace(&mut state.armed, due) != due;
        let ordered = !state.orders.is_empty();
        drop(state);

        if rearm {
            self.rearm.notify_one();
        }
        if ordered {
            self.ordered.notify_one();
        }
        // A step at the same time may have come first with a later one.
        self.changes.send_if_modified(|known| std::mem::replace(known, revision.max(*known)) < revision);
        outputs.iter().for_each(|output| report(&self.metrics, &self.events, now, output));
        changed
    }

    pub(super) fn tell(&self, input: Input) {
        self.step(|state, now| state.machine.handle(now, input));
    }

    /// Keeps the machine's time, until dropped. Sleeps without a timer while nothing is due.
    pub(super) async fn keep_time(&self) {
        loop {
            let due = self.lock().armed;
            tokio::select! {
                () = sleep_until(due) => self.step(|state, now| {
                    state.armed = None;
                    state.machine.handle_timeout(now);
                }),
                () = self.rearm.notified() => {}
            }
        }
    }

    /// Returns when this holds; looked at again whenever a place was given back or a process has ended.
    pub(super) async fn until(&self, holds: impl Fn(&State) -> bool) {
        loop {
            let left = self.left.notified();
            if holds(&self.lock()) {
                return;
            }
            left.await;
        }
    }
}

impl State {
    /// Opens the mailbox of a place.
    pub(super) fn open_mailbox(&mut self, key: Key, wake: Arc<Notify>) {
        self.mail.insert(key, Mailbox { mail: Mail::default(), wake, asker: None });
    }

    /// Takes a worker's call: what it is told goes to `outbox`.
    pub(super) fn open_call(&mut self, now: Instant, outbox: mpsc::Sender<ActivatorMessage>) -> CallId {
        self.next_call += 1;
        let call = CallId(self.next_call);
        self.calls.insert(call, outbox);
        for address in self.met.clone() {
            self.say(now, call, ActivatorMessage::Meet(address));
        }
        call
    }

    pub(super) fn close_call(&mut self, call: CallId) {
        self.calls.remove(&call);
        self.excerpts.call_ended(call);
    }

    /// Queues a message for every worker.
    pub(super) fn say_to_all(&mut self, now: Instant, message: &ActivatorMessage) {
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        calls.into_iter().for_each(|call| self.say(now, call, message.clone()));
    }

    /// Queues a message for a worker. One that does not read is given up: its call ends with the channel, and its offers go to others.
    pub(super) fn say(&mut self, now: Instant, call: CallId, message: ActivatorMessage) {
        let Some(outbox) = self.calls.get(&call) else { return };
        if outbox.try_send(message).is_err() {
            self.calls.remove(&call);
            self.machine.handle(now, Input::Lost(call));
        }
    }

    /// Queues everything that the machine has decided; returns it, to be reported.
    fn carry_out(&mut self, now: Instant) -> Vec<Output> {
        self.machine.settle(now);
        let mut outputs = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match &output {
                Output::Dispatcher(decision) => self.deliver(now, decision),
                Output::Processes(ProcessOutput::Spawn(name)) => self.orders.push_back(Order::Spawn(name.clone())),
                Output::Processes(ProcessOutput::Stop(name)) => self.orders.push_back(Order::Stop(name.clone())),
                Output::Processes(ProcessOutput::Kill(name)) => self.orders.push_back(Order::Kill(name.clone())),
                Output::Processes(_) => {}
            }
            outputs.push(output);
        }
        outputs
    }

    fn deliver(&mut self, now: Instant, decision: &Decision) {
        match decision {
            Decision::Offer { key, call, worker, stream_id, epoch, descriptor, known } => {
                let token = Token { presented: random::bytes(), challenge: random::bytes() };
                let (epoch, descriptor) = (*epoch, *descriptor);
                // The publisher's task first: it has to expect the worker before that comes.
                self.post(*key, PlaceEvent::Offered { epoch, token, worker: worker.clone(), descriptor });
                let stream_id = stream_id.clone();
                let Token { presented: token, challenge } = token;
                let challenge = Some(challenge);
                let offer = Offer { stream_id, epoch, token, descriptor, known: *known, challenge };
                self.say(now, *call, ActivatorMessage::Offer(offer));
            }
            Decision::Withdrawn(key, epoch) => self.post(*key, PlaceEvent::Withdrawn { epoch: *epoch }),
            Decision::Refused(key, reason) => self.post(*key, PlaceEvent::Refused(*reason)),
            Decision::Changed(key) => self.post(*key, PlaceEvent::Changed),
            Decision::Kicked(key, reason) => self.post(*key, PlaceEvent::Kicked(reason.clone())),
            Decision::KickOnWorker(call, stream_id, reason) => {
                let (stream_id, reason) = (stream_id.clone(), reason.clone());
                self.say(now, *call, ActivatorMessage::Kick { stream_id, reason });
            }
            Decision::Fence(call, stream_id, epoch) => {
                self.say(now, *call, ActivatorMessage::Fence { stream_id: stream_id.clone(), epoch: *epoch });
            }
            Decision::Started(_)
            | Decision::ColdStart(_)
            | Decision::Over(_)
            | Decision::TakenOver { .. }
            | Decision::NeverStarted { .. }
            | Decision::Outcome(_)
            | Decision::Suspect(_)
            | Decision::WorkerGone(_)
            | Decision::WorkerLost(..)
            | Decision::Disbelieved(..)
            | Decision::Excess(..) => {}
        }
    }

    /// Asks the task of a place for the bytes that are kept of the stream.
    pub(super) fn ask(&mut self, key: Key, asker: oneshot::Sender<KeptBytes>) {
        if let Some(mailbox) = self.mail.get_mut(&key) {
            mailbox.asker = Some(asker);
        }
        self.post(key, PlaceEvent::Asked);
    }

    fn post(&mut self, key: Key, event: PlaceEvent) {
        if let Some(mailbox) = self.mail.get_mut(&key) {
            mailbox.mail.post(event);
            mailbox.wake.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
