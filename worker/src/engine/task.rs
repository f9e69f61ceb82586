//! The engine's task: owns the table, starts threads when they are needed, hands streams to them and collects their reports.
#![expect(clippy::disallowed_methods, reason = "shell: a task, its clock, threads")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::clock::now;
use liveedgecast_common::control::ExcerptPart;
use liveedgecast_common::event;
use liveedgecast_common::handoff::{Decline, Frame};
use liveedgecast_common::key::{Identity, StreamId};
use tokio::sync::{mpsc, oneshot, watch};

use super::counters::StreamCounters;
use super::feed::SessionFeed;
use super::metrics::EngineMetrics;
use super::table::{Placing, StreamClaim, StreamSlot, Table, TaskEnd};
use super::thread::{self, StartStream, ThreadNotice, ThreadRequest};
use crate::receive::{self, FetchedStream};
use crate::stream::{Contest, ExcerptAnswer, ExcerptRequest, Report};

/// Orders to the engine that wait: one per offer being taken and a few kicks; the engine never waits for a peer.
const REQUESTS: usize = 64;
/// Batches of reports that wait: a few of each thread. A thread that finds no room waits, and so do its streams' reports; the engine only notes
/// them.
const REPORTS: usize = 64;
/// Notices of all threads that wait: one per stream and life. The engine only notes these, too.
const NOTICES: usize = 256;
/// Time after which a stream that has waited for another stream's upstream does not wait for a third stream's as well: each wait may take
/// 2.5 s, and activators withdraw an offer after 3 s. By descriptor a withdrawal ends the worker.
const ANOTHER_CONTEST: Duration = Duration::from_millis(300);

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams at most.
    pub capacity: usize,
    /// Threads at most.
    pub threads: usize,
}

/// The engine's answer to a stream that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOutcome {
    /// Started as a new stream.
    Started,
    /// Attached to the stream that has its identity.
    Attached,
    /// Given back to its activator.
    Declined(Decline),
}

enum EngineRequest {
    Take(Box<FetchedStream>, oneshot::Sender<TakeOutcome>),
    Kick(String, String),
    Excerpt(String, ExcerptRequest),
    Fence(String, u64),
    Alone(bool),
    GiveBack,
    HandBack(oneshot::Sender<()>),
}

/// The way to the engine's task. The task ends when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    requests: mpsc::Sender<EngineRequest>,
    served: watch::Receiver<usize>,
    feed: SessionFeed,
}

impl Engine {
    /// Starts the task on the current runtime, and no thread yet.
    #[must_use]
    pub fn start(settings: &Settings, start: StartStream, metrics: &EngineMetrics) -> Self {
        metrics.capacity.set(i64::try_from(settings.capacity).unwrap_or(i64::MAX));
        let (requests, requests_in) = mpsc::channel(REQUESTS);
        let (reports, reports_in) = mpsc::channel(REPORTS);
        let (notices, notices_in) = mpsc::channel(NOTICES);
        let (served, streams) = watch::channel(0);
        let feed = SessionFeed::default();
        let task = EngineTask {
            table: Table::new(settings.capacity, settings.threads),
            contenders: Vec::new(),
            answers: Vec::new(),
            start,
            reports,
            notices,
            threads: HashMap::new(),
            served,
            feed: feed.clone(),
            counters: StreamCounters::new(metrics.clone()),
            metrics: metrics.clone(),
        };
        tokio::spawn(task.run(requests_in, reports_in, notices_in));
        Self { requests, served: streams, feed }
    }

    /// Hands a stream to the engine. When this returns, [`Self::feed`] has the session of a stream that was started.
    pub async fn take(&self, fetched: FetchedStream) -> TakeOutcome {
        let (outcome, answer) = oneshot::channel();
        let _ = self.requests.send(EngineRequest::Take(Box::new(fetched), outcome)).await;
        answer.await.unwrap_or(TakeOutcome::Declined(Decline::Other))
    }

    /// Ends a stream.
    pub async fn kick(&self, stream_id: String, reason: String) {
        let _ = self.requests.send(EngineRequest::Kick(stream_id, reason)).await;
    }

    /// A file of what is kept of a stream, or the reason for which there is none; `None`: the stream is not there.
    pub async fn excerpt(&self, stream_id: String, part: ExcerptPart) -> Option<ExcerptAnswer> {
        let (answer, made) = oneshot::channel();
        self.requests.send(EngineRequest::Excerpt(stream_id, ExcerptRequest { part, answer })).await.ok()?;
        made.await.ok()
    }

    /// Ends a stream that runs under a lower epoch than this.
    pub async fn fence(&self, stream_id: String, epoch: u64) {
        let _ = self.requests.send(EngineRequest::Fence(stream_id, epoch)).await;
    }

    /// Tells every stream whether there is no activator through which its publisher could return.
    pub async fn alone(&self, alone: bool) {
        let _ = self.requests.send(EngineRequest::Alone(alone)).await;
    }

    /// Asks every stream to go back to its activator; streams that come later are taken.
    pub async fn give_back(&self) {
        let _ = self.requests.send(EngineRequest::GiveBack).await;
    }

    /// Takes nothing more and asks every stream to go back to its activator; returns when all have been asked.
    pub async fn hand_back(&self) {
        let (asked, answer) = oneshot::channel();
        let _ = self.requests.send(EngineRequest::HandBack(asked)).await;
        let _ = answer.await;
    }

    /// The sessions that change, for one reader.
    #[must_use]
    pub fn feed(&self) -> SessionFeed {
        self.feed.clone()
    }

    /// Waits until no stream is served.
    pub async fn idle(&self) {
        let _ = self.served.clone().wait_for(|served| *served == 0).await;
    }

    /// Number of streams that are served.
    #[must_use]
    pub fn streams(&self) -> usize {
        *self.served.borrow()
    }
}

/// A stream that waits for an upstream of another stream.
struct Contender {
    slot: StreamSlot,
    fetched: FetchedStream,
    outcome: Option<oneshot::Sender<TakeOutcome>>,
    /// The time since which it has waited for such streams.
    since: Instant,
}

struct EngineTask {
    table: Table,
    /// Bounded by the table: a few per stream.
    contenders: Vec<Contender>,
    /// Answers of streams to contenders, not acted upon yet.
    answers: Vec<(StreamId, Option<Vec<Identity>>)>,
    start: StartStream,
    reports: mpsc::Sender<Vec<Report>>,
    notices: mpsc::Sender<ThreadNotice>,
    threads: HashMap<usize, mpsc::Sender<ThreadRequest>>,
    /// Number of streams that are served.
    served: watch::Sender<usize>,
    feed: SessionFeed,
    counters: StreamCounters,
    metrics: EngineMetrics,
}

impl EngineTask {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<EngineRequest>,
        mut reports: mpsc::Receiver<Vec<Report>>,
        mut notices: mpsc::Receiver<ThreadNotice>,
    ) {
        loop {
            tokio::select! {
                // A stream's last report comes before the notice that it is gone.
                biased;
                Some(batch) = reports.recv() => {
                    self.all_reported(batch);
                    self.act_on_answers().await;
                }
                Some(notice) = notices.recv() => {
                    while let Ok(batch) = reports.try_recv() {
                        self.all_reported(batch);
                    }
                    self.act_on_answers().await;
                    self.noticed(notice).await;
                }
                request = requests.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => return,
                },
            }
        }
    }

    async fn handle(&mut self, request: EngineRequest) {
        match request {
            EngineRequest::Take(fetched, outcome) => self.take(*fetched, Some(outcome), None).await,
            EngineRequest::Kick(stream_id, reason) => {
                if let Some((slot, thread)) = self.table.find(&StreamId(stream_id)) {
                    self.tell(thread, ThreadRequest::Kick(slot, reason)).await;
                }
            }
            EngineRequest::Excerpt(stream_id, request) => {
                if let Some((slot, thread)) = self.table.find(&StreamId(stream_id)) {
                    self.tell(thread, ThreadRequest::Excerpt(slot, request)).await;
                }
            }
            EngineRequest::Fence(stream_id, epoch) => {
                if let Some((slot, thread)) = self.table.find(&StreamId(stream_id)) {
                    self.tell(thread, ThreadRequest::Fence(slot, epoch)).await;
                }
            }
            EngineRequest::Alone(alone) => {
                for thread in self.threads.values() {
                    let _ = thread.send(ThreadRequest::Alone(alone)).await;
                }
            }
            EngineRequest::GiveBack => self.ask_back().await,
            EngineRequest::HandBack(asked) => {
                self.table.drain();
                self.ask_back().await;
                let _ = asked.send(());
            }
        }
    }

    async fn ask_back(&self) {
        for thread in self.threads.values() {
            let _ = thread.send(ThreadRequest::HandBack).await;
        }
    }

    /// Places a stream. A stream that has to wait for another one's answer is taken again with that, and with the time since which it waits.
    async fn take(
        &mut self,
        fetched: FetchedStream,
        outcome: Option<oneshot::Sender<TakeOutcome>>,
        since: Option<Instant>,
    ) {
        let assignment = &fetched.assignment;
        let claim = StreamClaim {
            stream_id: assignment.stream_id.clone(),
            epoch: assignment.epoch,
            app: assignment.app.name().to_owned(),
            identities: assignment.identities.clone(),
        };
        let taken = match self.table.place(now(), claim) {
            Placing::Start { slot, thread } => {
                self.publish(true);
                if self.open(thread) {
                    self.tell(thread, ThreadRequest::Start(slot, fetched)).await;
                    TakeOutcome::Started
                } else {
                    self.forget(slot);
                    decline(fetched, Decline::Other)
                }
            }
            Placing::Attach { slot, thread } => {
                self.tell(thread, ThreadRequest::Attach(slot, fetched)).await;
                TakeOutcome::Attached
            }
            Placing::Contend { slot, .. } if since.is_some_and(|since| since + ANOTHER_CONTEST <= now()) => {
                // By the time of the next offer, the upstream that the stream has waited for is free.
                self.table.answered(slot, &fetched.assignment.stream_id, &[]);
                decline(fetched, Decline::Other)
            }
            Placing::Contend { slot, thread } => {
                let assignment = &fetched.assignment;
                let contest = Contest {
                    stream_id: assignment.stream_id.clone(),
                    identities: assignment.identities.clone(),
                    destinations: assignment.destinations.iter().map(|it| it.url.clone()).collect(),
                };
                let since = since.unwrap_or_else(now);
                self.contenders.push(Contender { slot, fetched, outcome, since });
                return self.tell(thread, ThreadRequest::Contend(slot, contest)).await;
            }
            Placing::Decline(why) => decline(fetched, why),
        };
        if let Some(outcome) = outcome {
            let _ = outcome.send(taken);
        }
    }

    /// Places contenders that were answered again, or refuses them.
    async fn act_on_answers(&mut self) {
        for (stream_id, given_up) in std::mem::take(&mut self.answers) {
            let waits = |contender: &Contender| contender.fetched.assignment.stream_id == stream_id;
            let Some(at) = self.contenders.iter().position(waits) else { continue };
            let Contender { slot, fetched, outcome, since } = self.contenders.remove(at);
            self.table.answered(slot, &stream_id, given_up.as_deref().unwrap_or_default());
            if given_up.is_some() {
                self.publish(true);
                self.take(fetched, outcome, Some(since)).await;
                continue;
            }
            tracing::info!(event = event::STREAM_REFUSED, stream = %stream_id, reason = "upstream_in_use", "stream refused");
            tokio::spawn(receive::refuse(fetched.connection, Frame::Duplicate));
            if let Some(outcome) = outcome {
                let _ = outcome.send(TakeOutcome::Declined(Decline::Other));
            }
        }
    }

    /// Starts the thread unless it runs; returns whether it runs.
    fn open(&mut self, thread: usize) -> bool {
        if self.threads.get(&thread).is_some_and(|requests| !requests.is_closed()) {
            return true;
        }
        match thread::start(thread, Arc::clone(&self.start), self.reports.clone(), self.notices.clone()) {
            Ok(requests) => {
                self.threads.insert(thread, requests);
                true
            }
            Err(error) => {
                tracing::error!(event = event::THREAD_FAILED, %error, thread, "thread for streams failed to start");
                false
            }
        }
    }

    async fn tell(&self, thread: usize, request: ThreadRequest) {
        if let Some(requests) = self.threads.get(&thread) {
            // A thread takes its requests without waiting for anything.
            let _ = requests.send(request).await;
        }
    }

    /// Notes reports, and passes on the sessions that have changed.
    fn all_reported(&mut self, batch: Vec<Report>) {
        let loud = batch.into_iter().map(|report| self.reported(report)).fold(false, std::ops::BitOr::bitor);
        self.publish(loud);
    }

    /// Notes a report; returns whether activators should hear of it at once.
    fn reported(&mut self, report: Report) -> bool {
        match report {
            Report::Session(session) | Report::Counters(session) => {
                let Some(noted) = self.table.reported(now(), session) else { return false };
                if let Some(session) = self.table.session(noted.slot) {
                    self.counters.reported(noted.slot, session);
                }
                if let Some(took) = noted.took {
                    self.metrics.start_upstream.observe(took.as_secs_f64());
                }
                return noted.loud;
            }
            Report::ClockJumps { count } => self.metrics.clock_jumps.inc_by(count),
            Report::Skipped(messages) => self.metrics.skipped.inc_by(messages),
            Report::Ended { stream_id } => self.table.ended(&stream_id),
            Report::AttachDecided { stream_id, accepted } => {
                self.table.decided(&stream_id, accepted);
                return true;
            }
            Report::ContestDecided { stream_id, given_up } => self.answers.push((stream_id, given_up)),
        }
        false
    }

    async fn noticed(&mut self, notice: ThreadNotice) {
        match notice {
            ThreadNotice::TaskEnd(slot) => self.lost(slot).await,
            ThreadNotice::Missed(slot, fetched) => {
                // The stream's own notice is on the way.
                self.lost(slot).await;
                self.take(*fetched, None, None).await;
            }
            ThreadNotice::Unheard(stream_id) => self.give_back(&stream_id),
        }
    }

    /// Places the contenders of a stream that has ended, and so will not answer them.
    async fn lost(&mut self, slot: StreamSlot) {
        self.forget(slot);
        while let Some(at) = self.contenders.iter().position(|contender| contender.slot == slot) {
            let Contender { fetched, outcome, since, .. } = self.contenders.remove(at);
            self.take(fetched, outcome, Some(since)).await;
        }
    }

    /// Gives back a contender that no stream will answer.
    fn give_back(&mut self, stream_id: &StreamId) {
        let waits = |contender: &Contender| contender.fetched.assignment.stream_id == *stream_id;
        let Some(at) = self.contenders.iter().position(waits) else { return };
        let Contender { slot, fetched, outcome, .. } = self.contenders.remove(at);
        self.table.answered(slot, stream_id, &[]);
        let declined = decline(fetched, Decline::Other);
        if let Some(outcome) = outcome {
            let _ = outcome.send(declined);
        }
    }

    fn forget(&mut self, slot: StreamSlot) {
        let Some((stream, gone)) = self.table.gone(slot) else { return };
        self.counters.closed(slot);
        match gone {
            TaskEnd::Ended => self.metrics.ended.inc(),
            TaskEnd::Died => {
                self.metrics.died.inc();
                tracing::error!(event = event::STREAM_DIED, %stream, "stream's task died; the activator still has the stream");
            }
        }
        self.publish(true);
    }

    /// Passes on the sessions that have changed. `loud`: at once, and not only when the reader looks by itself.
    fn publish(&mut self, loud: bool) {
        self.metrics.live.set(i64::try_from(self.table.streams()).unwrap_or(i64::MAX));
        self.table.take_changed().for_each(|session| self.feed.put(session));
        if loud {
            self.feed.wake();
        }
        let served = self.table.served();
        self.served.send_if_modified(|before| std::mem::replace(before, served) != served);
    }
}

fn decline(fetched: FetchedStream, why: Decline) -> TakeOutcome {
    tokio::spawn(receive::refuse(fetched.connection, Frame::Returned { why }));
    TakeOutcome::Declined(why)
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
