//! The engine's task: owns the table, starts threads when they are needed, hands streams to them and collects what they say.
#![expect(clippy::disallowed_methods, reason = "shell: a task, its clock, threads")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::clock::now;
use liveedgecast_common::control::{Session, SessionState};
use liveedgecast_common::handoff::{Decline, Frame};
use liveedgecast_common::key::{Identity, StreamId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::account::Account;
use super::table::{Claim, Gone, Placing, Slot, Table};
use super::thread::{self, Notice, Start};
use crate::metrics::{Metrics, Streams};
use crate::receive::{self, Parcel};
use crate::stream::{Contest, Report};

/// Orders to the engine that wait: one per offer being taken and a few kicks; the engine never waits for a peer.
const ORDERS: usize = 64;
/// Reports of all streams that wait. A stream that finds no room waits a moment; the engine only notes them.
const REPORTS: usize = 1024;
/// Notices of threads that wait: the same, one per stream and life.
const NOTICES: usize = 256;
/// Reports taken at once before sessions are published again.
const BATCH: usize = 256;
/// Counters are published this long after they changed at the latest; states at once. Activators are told of counters more
/// rarely still.
const COUNTERS_DELAY: Duration = Duration::from_millis(500);
/// A parcel that has waited this long for an upstream of one stream does not wait for one of another stream too: each may take 2.5 s, and
/// activators withdraw an offer after 3 s. By descriptor a withdrawal ends the worker.
const ANOTHER_CONTEST: Duration = Duration::from_millis(300);

/// What the engine must know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams at most.
    pub capacity: usize,
    /// Threads at most.
    pub threads: usize,
}

/// What became of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a stream of its own.
    Started,
    /// It went to the stream that has its identity.
    Attached,
    /// It was given back.
    Declined(Decline),
}

enum Order {
    Take(Box<Parcel>, oneshot::Sender<Verdict>),
    Kick(String, String),
    Fence(String, u64),
    Alone(bool),
    HandBack(oneshot::Sender<()>),
}

/// The way to the engine's task. The task ends when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    orders: mpsc::Sender<Order>,
    sessions: watch::Receiver<Arc<[Session]>>,
}

impl Engine {
    /// Starts the task on the current runtime, and no thread yet.
    #[must_use]
    pub fn start(settings: &Settings, start: Start, metrics: &Metrics) -> Self {
        let (orders, orders_in) = mpsc::channel(ORDERS);
        let (reports, reports_in) = mpsc::channel(REPORTS);
        let (notices, notices_in) = mpsc::channel(NOTICES);
        let (published, sessions) = watch::channel(Arc::from([]));
        let task = Task {
            table: Table::new(settings.capacity, settings.threads),
            contenders: Vec::new(),
            answers: Vec::new(),
            start,
            reports,
            notices,
            threads: HashMap::new(),
            published,
            publish_at: None,
            account: Account::new(metrics.upstreams.clone(), metrics.streams.received.clone()),
            metrics: metrics.streams.clone(),
        };
        tokio::spawn(task.run(orders_in, reports_in, notices_in));
        Self { orders, sessions }
    }

    /// Gives it a stream. When this returns, [`Self::sessions`] lists a stream that was started.
    pub async fn take(&self, parcel: Parcel) -> Verdict {
        let (verdict, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Take(Box::new(parcel), verdict)).await;
        answer.await.unwrap_or(Verdict::Declined(Decline::Other))
    }

    /// Ends a stream.
    pub async fn kick(&self, stream_id: String, reason: String) {
        let _ = self.orders.send(Order::Kick(stream_id, reason)).await;
    }

    /// Ends what there is of a stream under a lower epoch than this.
    pub async fn fence(&self, stream_id: String, epoch: u64) {
        let _ = self.orders.send(Order::Fence(stream_id, epoch)).await;
    }

    /// Tells every stream whether there is no activator through which its publisher could return.
    pub async fn alone(&self, alone: bool) {
        let _ = self.orders.send(Order::Alone(alone)).await;
    }

    /// Takes nothing more and asks every stream to go back to its activator; returns when all have been asked.
    pub async fn hand_back(&self) {
        let (asked, answer) = oneshot::channel();
        let _ = self.orders.send(Order::HandBack(asked)).await;
        let _ = answer.await;
    }

    /// What is served, all of it, and with the state `Ended` what was a moment ago.
    #[must_use]
    pub fn sessions(&self) -> watch::Receiver<Arc<[Session]>> {
        self.sessions.clone()
    }

    /// Returns when nothing is served.
    pub async fn idle(&self) {
        let _ = self.sessions().wait_for(|sessions| !sessions.iter().any(is_served)).await;
    }

    /// Streams that are served.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.sessions.borrow().iter().filter(|session| is_served(session)).count()
    }
}

fn is_served(session: &Session) -> bool {
    session.state != SessionState::Ended
}

/// A parcel that waits for an upstream of another stream.
struct Contender {
    slot: Slot,
    parcel: Parcel,
    verdict: Option<oneshot::Sender<Verdict>>,
    /// When it began to wait for the first such stream.
    since: Instant,
}

struct Task {
    table: Table,
    /// Bounded by the table: a few per stream.
    contenders: Vec<Contender>,
    /// Answers of streams to contenders, not acted upon yet.
    answers: Vec<(StreamId, Option<Vec<Identity>>)>,
    start: Start,
    reports: mpsc::Sender<Report>,
    notices: mpsc::Sender<Notice>,
    threads: HashMap<usize, mpsc::Sender<thread::Order>>,
    published: watch::Sender<Arc<[Session]>>,
    publish_at: Option<Instant>,
    account: Account,
    metrics: Streams,
}

impl Task {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut reports: mpsc::Receiver<Report>,
        mut notices: mpsc::Receiver<Notice>,
    ) {
        let mut batch = Vec::new();
        loop {
            let due = self.publish_at;
            tokio::select! {
                // A stream's last report comes before the notice that it is gone.
                biased;
                _ = reports.recv_many(&mut batch, BATCH) => {
                    batch.drain(..).for_each(|report| self.reported(report));
                    self.act_on_answers().await;
                }
                Some(notice) = notices.recv() => {
                    while let Ok(report) = reports.try_recv() {
                        self.reported(report);
                    }
                    self.act_on_answers().await;
                    self.noticed(notice).await;
                }
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => self.publish(),
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Take(parcel, verdict) => self.take(*parcel, Some(verdict), None).await,
            Order::Kick(stream_id, reason) => {
                if let Some((slot, thread)) = self.table.find(&StreamId(stream_id)) {
                    self.tell(thread, thread::Order::Kick(slot, reason)).await;
                }
            }
            Order::Fence(stream_id, epoch) => {
                if let Some((slot, thread)) = self.table.find(&StreamId(stream_id)) {
                    self.tell(thread, thread::Order::Fence(slot, epoch)).await;
                }
            }
            Order::Alone(alone) => {
                for thread in self.threads.values() {
                    let _ = thread.send(thread::Order::Alone(alone)).await;
                }
            }
            Order::HandBack(asked) => {
                self.table.drain();
                for thread in self.threads.values() {
                    let _ = thread.send(thread::Order::HandBack).await;
                }
                let _ = asked.send(());
            }
        }
    }

    /// Finds a place for it. One that has to wait for a stream's answer is taken again with that, and with the time since which it waits.
    async fn take(&mut self, parcel: Parcel, verdict: Option<oneshot::Sender<Verdict>>, since: Option<Instant>) {
        let assignment = &parcel.assignment;
        let claim = Claim {
            stream_id: assignment.stream_id.clone(),
            epoch: assignment.epoch,
            app: assignment.app.name().to_owned(),
            identities: assignment.identities.clone(),
        };
        let taken = match self.table.place(now(), claim) {
            Placing::Start { slot, thread } => {
                self.publish();
                if self.open(thread) {
                    self.tell(thread, thread::Order::Start(slot, parcel)).await;
                    Verdict::Started
                } else {
                    self.forget(slot);
                    decline(parcel, Decline::Other)
                }
            }
            Placing::Attach { slot, thread } => {
                self.tell(thread, thread::Order::Attach(slot, parcel)).await;
                Verdict::Attached
            }
            Placing::Contend { slot, .. } if since.is_some_and(|since| since + ANOTHER_CONTEST <= now()) => {
                // The upstream that it has waited for is free when it is offered again.
                self.table.answered(slot, &parcel.assignment.stream_id, &[]);
                decline(parcel, Decline::Other)
            }
            Placing::Contend { slot, thread } => {
                let assignment = &parcel.assignment;
                let contest = Contest {
                    stream_id: assignment.stream_id.clone(),
                    identities: assignment.identities.clone(),
                    destinations: assignment.destinations.iter().map(|it| it.url.clone()).collect(),
                };
                let since = since.unwrap_or_else(now);
                self.contenders.push(Contender { slot, parcel, verdict, since });
                return self.tell(thread, thread::Order::Contend(slot, contest)).await;
            }
            Placing::Decline(why) => decline(parcel, why),
        };
        if let Some(verdict) = verdict {
            let _ = verdict.send(taken);
        }
    }

    /// Contenders that were answered are placed again, or refused.
    async fn act_on_answers(&mut self) {
        for (stream_id, given_up) in std::mem::take(&mut self.answers) {
            let waits = |contender: &Contender| contender.parcel.assignment.stream_id == stream_id;
            let Some(at) = self.contenders.iter().position(waits) else { continue };
            let Contender { slot, parcel, verdict, since } = self.contenders.remove(at);
            self.table.answered(slot, &stream_id, given_up.as_deref().unwrap_or_default());
            if given_up.is_some() {
                self.publish();
                self.take(parcel, verdict, Some(since)).await;
                continue;
            }
            tracing::info!(event = "stream.refused", stream = %stream_id, reason = "upstream_in_use", "stream refused");
            tokio::spawn(receive::refuse(parcel.connection, Frame::Duplicate));
            if let Some(verdict) = verdict {
                let _ = verdict.send(Verdict::Declined(Decline::Other));
            }
        }
    }

    /// Whether the thread runs, now if it did not.
    fn open(&mut self, thread: usize) -> bool {
        if self.threads.get(&thread).is_some_and(|orders| !orders.is_closed()) {
            return true;
        }
        match thread::start(thread, Arc::clone(&self.start), self.reports.clone(), self.notices.clone()) {
            Ok(orders) => {
                self.threads.insert(thread, orders);
                true
            }
            Err(error) => {
                tracing::error!(%error, thread, "no thread for streams");
                false
            }
        }
    }

    async fn tell(&self, thread: usize, order: thread::Order) {
        if let Some(orders) = self.threads.get(&thread) {
            // A thread takes its orders without waiting for anything.
            let _ = orders.send(order).await;
        }
    }

    fn reported(&mut self, report: Report) {
        match report {
            Report::Session(session) => {
                let Some(noted) = self.table.reported(now(), session.clone()) else { return };
                self.account.reported(noted.slot, &session);
                if let Some(took) = noted.took {
                    self.metrics.start_upstream.observe(took.as_secs_f64());
                }
                if noted.loud { self.publish() } else { self.publish_soon() }
            }
            Report::ClockJumps { count } => self.metrics.clock_jumps.inc_by(count),
            Report::Skipped(messages) => self.metrics.skipped.inc_by(messages),
            Report::Ended { stream_id } => self.table.ended(&stream_id),
            Report::AttachDecided { stream_id, accepted } => {
                self.table.decided(&stream_id, accepted);
                self.publish();
            }
            Report::ContestDecided { stream_id, given_up } => self.answers.push((stream_id, given_up)),
        }
    }

    async fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Gone(slot) => self.lost(slot).await,
            Notice::Missed(slot, parcel) => {
                // Its own notice is on the way.
                self.lost(slot).await;
                self.take(*parcel, None, None).await;
            }
            Notice::Unheard(stream_id) => self.give_back(&stream_id),
        }
    }

    /// A stream is gone, and with it its answer to those who wait for its upstreams.
    async fn lost(&mut self, slot: Slot) {
        self.forget(slot);
        while let Some(at) = self.contenders.iter().position(|contender| contender.slot == slot) {
            let Contender { parcel, verdict, since, .. } = self.contenders.remove(at);
            self.take(parcel, verdict, Some(since)).await;
        }
    }

    /// A contender that nobody will answer goes back to its activator.
    fn give_back(&mut self, stream_id: &StreamId) {
        let waits = |contender: &Contender| contender.parcel.assignment.stream_id == *stream_id;
        let Some(at) = self.contenders.iter().position(waits) else { return };
        let Contender { slot, parcel, verdict, .. } = self.contenders.remove(at);
        self.table.answered(slot, stream_id, &[]);
        let declined = decline(parcel, Decline::Other);
        if let Some(verdict) = verdict {
            let _ = verdict.send(declined);
        }
    }

    fn forget(&mut self, slot: Slot) {
        let Some((stream, gone)) = self.table.gone(now(), slot) else { return };
        self.account.closed(slot);
        match gone {
            Gone::Ended => self.metrics.ended.inc(),
            Gone::Died => {
                self.metrics.died.inc();
                tracing::error!(%stream, "a stream's task died; its activator has the stream still");
            }
        }
        self.publish();
    }

    fn publish_soon(&mut self) {
        let at = now() + COUNTERS_DELAY;
        self.publish_at = Some(self.publish_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn publish(&mut self) {
        self.table.handle_timeout(now());
        self.publish_at = self.table.poll_timeout();
        self.metrics.live.set(i64::try_from(self.table.streams()).unwrap_or(i64::MAX));
        self.published.send_replace(self.table.sessions().into());
    }
}

fn decline(parcel: Parcel, why: Decline) -> Verdict {
    tokio::spawn(receive::refuse(parcel.connection, Frame::Returned { why }));
    Verdict::Declined(why)
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
