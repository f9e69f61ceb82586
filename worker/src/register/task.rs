//! The registration's task: owns the machine, makes its calls, asks for addresses, has offers fetched. In: events of calls, the sessions
//! that the engine serves, the drain's requests. Out: fetched streams for the engine, kicks and fences. Next: `receive`, `engine`.
#![expect(clippy::disallowed_methods, reason = "shell: tasks, a clock, name resolution")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::control::limits::MAX_TOTALS;
use liveedgecast_common::control::{ExcerptOrder, Offer, Welcome, WorkerMessage};
use liveedgecast_common::discovery::AttemptId;
use liveedgecast_common::encryption::Protection;
use liveedgecast_common::key::{LogSafe, Secret};
use liveedgecast_common::metrics::gathered;
use liveedgecast_common::trace::{self, StartSpan};
use liveedgecast_common::{event, introduce};
use prometheus::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::call::{ControlCall, FLUSH_TIMEOUT, UNSENT_MESSAGES};
use super::excerpts::{ExcerptQuestion, Excerpts};
use super::ledger::TotalsLedger;
use super::machine::{CallEnd, Input, Output, Register, Settings};
use super::metrics::RegisterMetrics;
use super::unreached::UnreachedWarning;
use crate::config::Activator;
use crate::engine::{Engine, SessionFeed, TakeOutcome};
use crate::receive::{self, SpareRings};
use crate::stream::ExcerptAnswer;

/// Events of all calls that wait. A call that finds no room waits, and with it, by way of HTTP/2, its activator.
const EVENTS: usize = 256;
/// Requests of the drain: two in a life.
const REQUESTS: usize = 2;

/// A request of the drain.
#[derive(Debug)]
pub enum RegistrationRequest {
    /// Take nothing more; answered when all activators have been told.
    Drain(oneshot::Sender<()>),
    /// Say goodbye and end.
    Leave,
}

/// Why the task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationEnd {
    /// The drain asked it to leave.
    Left,
    /// There has been no activator for a while, and no stream.
    Orphaned,
}

/// The task before it runs.
#[derive(Debug)]
pub struct Registration {
    /// The worker's word about itself.
    pub settings: Settings,
    /// Name or address of the activators.
    pub activator: Activator,
    /// Name or address behind which there is any one activator, which tells of the others.
    pub introducer: Option<Activator>,
    /// Connections to them that are encrypted.
    pub protection: Protection,
    /// Secret that it shares with them.
    pub secret: Secret,
    /// Next room of a fetched stream.
    pub engine: Engine,
    /// Rings that can be used again.
    pub spares: SpareRings,
    /// Counters of this room and of offers.
    pub metrics: RegisterMetrics,
    /// The metrics that an activator shows.
    pub totals: Registry,
}

impl Registration {
    /// Channel for requests: the drain's end and the task's.
    #[must_use]
    pub fn requests() -> (mpsc::Sender<RegistrationRequest>, mpsc::Receiver<RegistrationRequest>) {
        mpsc::channel(REQUESTS)
    }

    /// Registers and stays until asked to leave. `joined` always has the number of activators at which the worker is registered.
    pub async fn run(
        self,
        mut requests: mpsc::Receiver<RegistrationRequest>,
        joined: watch::Sender<usize>,
    ) -> RegistrationEnd {
        let (events, mut happened) = mpsc::channel(EVENTS);
        // One is made at a time; those whose turn is over are ignored.
        let (excerpts_made, mut made) = mpsc::channel(1);
        let feed = self.engine.feed();
        let register = Register::new(now(), self.settings.clone());
        let mut registrar = Registrar {
            shell: Arc::new(self),
            register,
            events,
            calls: HashMap::new(),
            excerpts: Excerpts::default(),
            excerpts_made,
            ledger: TotalsLedger::default(),
            call_tasks: JoinSet::new(),
            tasks: JoinSet::new(),
        };
        let mut unreached = UnreachedWarning::new();
        loop {
            if registrar.act().await.is_some_and(|Orphaned| true) {
                registrar.flush().await;
                joined.send_replace(0);
                return RegistrationEnd::Orphaned;
            }
            let now_joined = registrar.register.joined();
            registrar.shell.metrics.joined.set(i64::try_from(now_joined).unwrap_or(i64::MAX));
            joined.send_if_modified(|before| std::mem::replace(before, now_joined) != now_joined);

            if let Some(time) = unreached.handle(now(), now_joined) {
                let (activator, unreached_ms) = (&registrar.shell.activator, time.as_millis());
                let advice = "check ACTIVATOR, whether an activator runs there, and that ENCRYPTION is the same there";
                tracing::warn!(event = event::ACTIVATOR_UNREACHED, %activator, unreached_ms, advice, "registered with no activator: asked again");
            }
            let due = registrar.register.poll_timeout().into_iter().chain(unreached.poll_timeout()).min();
            tokio::select! {
                Some(input) = happened.recv() => {
                    // The engine passes on a stream's session before its offer counts as taken, or its place would be free in between.
                    if matches!(input, Input::Taken(_)) {
                        registrar.sessions(&feed);
                    }
                    registrar.handle(input);
                }
                () = feed.changed() => registrar.sessions(&feed),
                Some((question, answer)) = made.recv() => registrar.excerpts.made(question, answer),
                Some(request) = requests.recv() => match request {
                    RegistrationRequest::Drain(told) => {
                        registrar.handle(Input::Drain);
                        let _ = registrar.act().await;
                        let _ = told.send(());
                    }
                    RegistrationRequest::Leave => {
                        registrar.sessions(&feed);
                        registrar.handle(Input::Leave);
                        let _ = registrar.act().await;
                        registrar.flush().await;
                        joined.send_replace(0);
                        return RegistrationEnd::Left;
                    }
                },
                () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => {
                    registrar.sessions(&feed);
                    registrar.register.handle_timeout(now());
                }
            }
        }
    }
}

/// The task's end of a call.
struct CallHandle {
    messages: mpsc::Sender<WorkerMessage>,
    hung_up: CancellationToken,
}

struct Registrar {
    shell: Arc<Registration>,
    register: Register,
    events: mpsc::Sender<Input>,
    calls: HashMap<AttemptId, CallHandle>,
    excerpts: Excerpts,
    /// Answers of streams.
    excerpts_made: mpsc::Sender<(ExcerptQuestion, Option<ExcerptAnswer>)>,
    ledger: TotalsLedger,
    /// Tasks of the calls, of those too that were hung up just now.
    call_tasks: JoinSet<()>,
    /// Other tasks: questions for addresses, fetches.
    tasks: JoinSet<()>,
}

/// The machine has found that no activator needs the worker.
struct Orphaned;

impl Registrar {
    fn handle(&mut self, input: Input) {
        if let Input::Ended(attempt, end) = &input {
            self.calls.remove(attempt);
            self.excerpts.call_ended(*attempt);
            let how = match end {
                CallEnd::Broken => "broken",
                CallEnd::Refused => "refused",
            };
            self.shell.metrics.calls_ended.with_label_values(&[how]).inc();
        }
        self.register.handle(now(), input);
    }

    fn sessions(&mut self, feed: &SessionFeed) {
        let changed = feed.take();
        if !changed.is_empty() {
            self.handle(Input::Sessions(changed));
        }
    }

    /// Does all that the machine asks for.
    async fn act(&mut self) -> Option<Orphaned> {
        let mut orphaned = None;
        while let Some(output) = self.register.poll_output() {
            match output {
                Output::Resolve => self.resolve(),
                Output::Ask => self.ask(),
                Output::Dial { attempt, address, patience } => self.dial(attempt, address, patience),
                Output::Say(attempt, message) => self.say(attempt, message),
                Output::HangUp(attempt) => {
                    if let Some(call) = self.calls.remove(&attempt) {
                        call.hung_up.cancel();
                    }
                }
                Output::Take { attempt, address, welcome, offer } => self.take(attempt, address, welcome, offer),
                Output::Kick { stream_id, reason } => {
                    let (stream, told) = (LogSafe(&stream_id), LogSafe(&reason).to_string());
                    tracing::debug!(event = event::STREAM_KICKED, %stream, reason = told, "end of the stream requested");
                    self.shell.engine.kick(stream_id, reason).await;
                }
                Output::GiveBack => self.shell.engine.give_back().await,
                Output::Fence { stream_id, epoch } => self.shell.engine.fence(stream_id, epoch).await,
                Output::Excerpt(attempt, order) => self.excerpt(attempt, order),
                Output::ExcerptNext { attempt, number, drop: true } => self.excerpts.dropped((attempt, number)),
                Output::ExcerptNext { attempt, number, drop: false } => self.excerpts.taken(now(), (attempt, number)),
                Output::TellTotals { attempt, anew } => self.tell_totals(attempt, anew),
                Output::Alone(alone) => {
                    if alone && self.shell.engine.streams() > 0 {
                        tracing::info!(
                            event = event::ACTIVATOR_NONE,
                            "no activator left: lost publishers are not waited for"
                        );
                    }
                    self.shell.engine.alone(alone).await;
                }
                Output::Orphaned => orphaned = Some(Orphaned),
            }
        }
        while let Some((attempt, piece)) = self.excerpts.poll_output() {
            self.say(attempt, WorkerMessage::Excerpt(piece));
        }
        // Ended tasks are reaped, so that the sets are as large as the number of tasks that run.
        while self.call_tasks.try_join_next().is_some() {}
        while self.tasks.try_join_next().is_some() {}
        orphaned
    }

    fn dial(&mut self, attempt: AttemptId, address: SocketAddr, patience: Duration) {
        let (messages, unsent) = mpsc::channel(UNSENT_MESSAGES);
        let hung_up = CancellationToken::new();
        let events = self.events.clone();
        let call = ControlCall { attempt, address, patience, messages: unsent, events, hung_up: hung_up.clone() };
        self.calls.insert(attempt, CallHandle { messages, hung_up });
        let (protection, secret) = (self.shell.protection.clone(), self.shell.secret.clone());
        self.call_tasks.spawn(call.run(protection, secret));
    }

    fn say(&mut self, attempt: AttemptId, message: WorkerMessage) {
        let Some(call) = self.calls.get(&attempt) else { return };
        if call.messages.try_send(message).is_err() {
            // The machine hears of this end like of any other, when this round is over.
            tracing::warn!(event = event::CALL_STALLED, call = attempt.0, "call ended: its activator did not read");
            call.hung_up.cancel();
            self.calls.remove(&attempt);
            let events = self.events.clone();
            self.tasks.spawn(async move {
                let _ = events.send(Input::Ended(attempt, CallEnd::Broken)).await;
            });
        }
    }

    fn tell_totals(&mut self, attempt: AttemptId, anew: bool) {
        let mut news = self.ledger.news(gathered(&self.shell.totals), anew);
        while !news.is_empty() {
            let rest = news.split_off(news.len().min(MAX_TOTALS));
            self.say(attempt, WorkerMessage::Totals(news));
            news = rest;
        }
    }

    fn excerpt(&mut self, attempt: AttemptId, order: ExcerptOrder) {
        let question = (attempt, order.number);
        let unsent = self.calls.get(&attempt).map_or(0, |call| UNSENT_MESSAGES - call.messages.capacity());
        if !self.excerpts.ask(now(), question, unsent) {
            return;
        }
        let (shell, made) = (Arc::clone(&self.shell), self.excerpts_made.clone());
        self.tasks.spawn(async move {
            let answer = shell.engine.excerpt(order.stream_id, order.part).await;
            let _ = made.send((question, answer)).await;
        });
    }

    fn resolve(&mut self) {
        let (activator, events) = (self.shell.activator.clone(), self.events.clone());
        self.tasks.spawn(async move {
            let _ = events.send(resolved(&activator).await).await;
        });
    }

    fn ask(&mut self) {
        let (shell, events) = (Arc::clone(&self.shell), self.events.clone());
        self.tasks.spawn(async move {
            let (host, port) = match &shell.introducer {
                None => return,
                Some(Activator::Address(at)) => (at.ip().to_string(), at.port()),
                Some(Activator::Name { host, port }) => (host.clone(), *port),
            };
            let activators = introduce::ask(&host, port, &shell.protection, &shell.secret).await;
            let _ = events.send(Input::Introduced(activators)).await;
        });
    }

    fn take(&mut self, attempt: AttemptId, address: SocketAddr, welcome: Welcome, offer: Offer) {
        let (shell, events) = (Arc::clone(&self.shell), self.events.clone());
        let span = tracing::debug_span!("handoff", stream = %LogSafe(&offer.stream_id), epoch = offer.epoch);
        let taken = async move {
            let begun = now();
            let metrics = &shell.metrics;
            let (secret, protection) = (&shell.secret, &shell.protection);
            let outcome = match receive::fetch(secret, protection, address, &welcome, &offer, &shell.spares).await {
                Ok(parcel) => {
                    let verdict = shell.engine.take(parcel).await;
                    metrics.start_handoff.observe(now().saturating_duration_since(begun).as_secs_f64());
                    tracing::debug!(event = event::STREAM_FETCHED, ?verdict, "stream fetched");
                    if trace::is_on() {
                        trace::record(StartSpan::new(&offer.stream_id, "fetch", begun, now()));
                    }
                    match verdict {
                        TakeOutcome::Started => "started",
                        TakeOutcome::Attached => "attached",
                        TakeOutcome::Declined(_) => "declined",
                    }
                }
                Err(error) => {
                    metrics.fetch_failures.with_label_values(&[error.as_str()]).inc();
                    tracing::warn!(event = event::FETCH_FAILED, %error, "stream not fetched");
                    "failed"
                }
            };
            metrics.offers.with_label_values(&[outcome]).inc();
            let input = match outcome {
                "failed" => Input::NotTaken(attempt, offer.stream_id, offer.epoch),
                // A declined one too: the activator was told on the handoff's own connection.
                _ => Input::Taken(offer.stream_id),
            };
            let _ = events.send(input).await;
        };
        self.tasks.spawn(taken.instrument(span));
    }

    /// Waits until the last messages have been sent.
    async fn flush(mut self) {
        self.calls.clear();
        let _ = timeout(FLUSH_TIMEOUT, async { while self.call_tasks.join_next().await.is_some() {} }).await;
    }
}

/// Every address of the activators.
async fn resolved(activator: &Activator) -> Input {
    match activator {
        Activator::Address(address) => Input::Resolved(vec![*address]),
        Activator::Name { host, port } => {
            introduce::resolve(host, *port).await.map_or(Input::Unresolved, Input::Resolved)
        }
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
