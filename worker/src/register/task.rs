//! The registration's task: owns the machine, makes its calls, asks for addresses, has offers fetched. In: what calls say,
//! what the engine serves, the drain's requests. Out: parcels for the engine, kicks.
#![expect(clippy::disallowed_methods, reason = "shell: tasks, a clock, name resolution")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::control::{Offer, Session, Welcome, WorkerMessage};
use liveedgecast_common::introduce;
use liveedgecast_common::key::{LogSafe, Secret};
use tokio::net::lookup_host;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::call::{Call, LAST_WORDS, WORDS};
use super::machine::{Input, LinkEnd, LinkId, Output, Register, Settings};
use crate::config::Activator;
use crate::engine::{Engine, TakeOutcome};
use crate::metrics::Metrics;
use crate::receive;

/// Events of all calls that wait. A call that finds no room waits, and with it, by way of HTTP/2, its activator.
const EVENTS: usize = 256;
/// Requests of the drain: two in a life.
const REQUESTS: usize = 2;
/// How long a name server may take. The resolver of the C library has limits of its own, usually 5 s per server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the drain wants.
#[derive(Debug)]
pub enum Request {
    /// Take nothing more; answered when all activators have been told.
    Drain(oneshot::Sender<()>),
    /// Say goodbye and end.
    Leave,
}

/// Why the task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Left,
    /// There has been no activator for a while, and no stream.
    Orphaned,
}

/// All that the task needs.
#[derive(Debug)]
pub struct Registration {
    /// What we say of ourselves.
    pub settings: Settings,
    /// Where activators are.
    pub activator: Activator,
    /// Where one of them is, whichever, which tells of the others.
    pub introducer: Option<Activator>,
    /// Shared with them.
    pub secret: Secret,
    /// Where streams go.
    pub engine: Engine,
    /// What is counted.
    pub metrics: Metrics,
}

impl Registration {
    /// The way to ask the task something, and the task.
    #[must_use]
    pub fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
        mpsc::channel(REQUESTS)
    }

    /// Registers and stays until asked to leave. `joined` always has the number of activators that know us.
    pub async fn run(self, mut requests: mpsc::Receiver<Request>, joined: watch::Sender<usize>) -> Ending {
        let (events, mut happened) = mpsc::channel(EVENTS);
        let mut sessions = self.engine.sessions();
        let register = Register::new(now(), self.settings.clone());
        let mut desk = Desk {
            shell: Arc::new(self),
            register,
            events,
            calls: HashMap::new(),
            lines: JoinSet::new(),
            tasks: JoinSet::new(),
        };
        loop {
            if desk.act().await.is_some_and(|Orphaned| true) {
                return Ending::Orphaned;
            }
            let now_joined = desk.register.joined();
            desk.shell.metrics.register.joined.set(i64::try_from(now_joined).unwrap_or(i64::MAX));
            joined.send_if_modified(|before| std::mem::replace(before, now_joined) != now_joined);

            let due = desk.register.poll_timeout();
            tokio::select! {
                Some(input) = happened.recv() => {
                    // The engine lists a stream before its offer counts as taken, or its place would be free in between.
                    if matches!(input, Input::Taken(_)) && sessions.has_changed().unwrap_or(false) {
                        desk.sessions(&mut sessions);
                    }
                    desk.handle(input);
                }
                Ok(()) = sessions.changed() => desk.sessions(&mut sessions),
                Some(request) = requests.recv() => match request {
                    Request::Drain(told) => {
                        desk.handle(Input::Drain);
                        let _ = desk.act().await;
                        let _ = told.send(());
                    }
                    Request::Leave => {
                        desk.handle(Input::Leave);
                        let _ = desk.act().await;
                        desk.last_words().await;
                        joined.send_replace(0);
                        return Ending::Left;
                    }
                },
                () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => {
                    desk.register.handle_timeout(now());
                }
            }
        }
    }
}

/// A call that is on.
struct Line {
    words: mpsc::Sender<WorkerMessage>,
    hung_up: CancellationToken,
}

struct Desk {
    shell: Arc<Registration>,
    register: Register,
    events: mpsc::Sender<Input>,
    calls: HashMap<LinkId, Line>,
    /// The tasks of the calls, those too that were hung up just now.
    lines: JoinSet<()>,
    /// What else runs: questions for addresses, fetches.
    tasks: JoinSet<()>,
}

/// The machine says that nobody needs us.
struct Orphaned;

impl Desk {
    fn handle(&mut self, input: Input) {
        if let Input::Ended(link, end) = &input {
            self.calls.remove(link);
            let how = match end {
                LinkEnd::Broken => "broken",
                LinkEnd::Refused => "refused",
            };
            self.shell.metrics.register.ended.with_label_values(&[how]).inc();
        }
        self.register.handle(now(), input);
    }

    fn sessions(&mut self, sessions: &mut watch::Receiver<Arc<[Session]>>) {
        let all = sessions.borrow_and_update().to_vec();
        self.handle(Input::Sessions(all));
    }

    /// Does all that the machine asks for.
    async fn act(&mut self) -> Option<Orphaned> {
        let mut orphaned = None;
        while let Some(output) = self.register.poll_output() {
            match output {
                Output::Resolve => self.resolve(),
                Output::Ask => self.ask(),
                Output::Dial { link, address, patience } => self.dial(link, address, patience),
                Output::Say(link, say) => self.say(link, say),
                Output::Hangup(link) => {
                    if let Some(line) = self.calls.remove(&link) {
                        line.hung_up.cancel();
                    }
                }
                Output::Take { link, address, welcome, offer } => self.take(link, address, welcome, offer),
                Output::Kick { stream_id, reason } => {
                    tracing::info!(stream = %LogSafe(&stream_id), reason = %LogSafe(&reason), "told to end a stream");
                    self.shell.engine.kick(stream_id, reason).await;
                }
                Output::Fence { stream_id, epoch } => self.shell.engine.fence(stream_id, epoch).await,
                Output::Alone(alone) => {
                    if alone && self.shell.engine.streams() > 0 {
                        tracing::info!(event = "activator.none", "no activator: lost publishers are not waited for");
                    }
                    self.shell.engine.alone(alone).await;
                }
                Output::Orphaned => orphaned = Some(Orphaned),
            }
        }
        // Reap what has ended, so that the sets stay as large as what runs.
        while self.lines.try_join_next().is_some() {}
        while self.tasks.try_join_next().is_some() {}
        orphaned
    }

    fn dial(&mut self, link: LinkId, address: SocketAddr, patience: Duration) {
        let (words, said) = mpsc::channel(WORDS);
        let hung_up = CancellationToken::new();
        let call = Call { link, address, patience, words: said, events: self.events.clone(), hung_up: hung_up.clone() };
        self.calls.insert(link, Line { words, hung_up });
        let secret = self.shell.secret.clone();
        self.lines.spawn(call.run(secret));
    }

    fn say(&mut self, link: LinkId, message: WorkerMessage) {
        let Some(line) = self.calls.get(&link) else { return };
        if line.words.try_send(message).is_err() {
            // Its end is told like any other, when this round is over.
            tracing::warn!("an activator does not listen: the call is given up");
            line.hung_up.cancel();
            self.calls.remove(&link);
            let events = self.events.clone();
            self.tasks.spawn(async move {
                let _ = events.send(Input::Ended(link, LinkEnd::Broken)).await;
            });
        }
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
            let activators = match &shell.introducer {
                None => return,
                Some(Activator::Address(at)) => introduce::ask(&at.ip().to_string(), at.port(), &shell.secret).await,
                Some(Activator::Name { host, port }) => introduce::ask(host, *port, &shell.secret).await,
            };
            let _ = events.send(Input::Introduced(activators)).await;
        });
    }

    fn take(&mut self, link: LinkId, address: SocketAddr, welcome: Welcome, offer: Offer) {
        let (shell, events) = (Arc::clone(&self.shell), self.events.clone());
        let span = tracing::debug_span!("handoff", stream = %LogSafe(&offer.stream_id), epoch = offer.epoch);
        let taken = async move {
            let begun = now();
            let metrics = &shell.metrics.streams;
            let outcome = match receive::fetch(&shell.secret, address, &welcome, &offer).await {
                Ok(parcel) => {
                    let verdict = shell.engine.take(parcel).await;
                    metrics.start_handoff.observe(now().saturating_duration_since(begun).as_secs_f64());
                    tracing::debug!(?verdict, "fetched");
                    match verdict {
                        TakeOutcome::Started => "started",
                        TakeOutcome::Attached => "attached",
                        TakeOutcome::Declined(_) => "declined",
                    }
                }
                Err(error) => {
                    metrics.failures.with_label_values(&[error.as_str()]).inc();
                    tracing::warn!(%error, "a stream could not be fetched");
                    "failed"
                }
            };
            metrics.offers.with_label_values(&[outcome]).inc();
            let input = match outcome {
                "failed" => Input::NotTaken(link, offer.stream_id, offer.epoch),
                // Declined too: that was said on the handoff's own connection.
                _ => Input::Taken(offer.stream_id),
            };
            let _ = events.send(input).await;
        };
        self.tasks.spawn(taken.instrument(span));
    }

    /// Waits until what was said last has been sent.
    async fn last_words(mut self) {
        self.calls.clear();
        let _ = timeout(LAST_WORDS, async { while self.lines.join_next().await.is_some() {} }).await;
    }
}

/// Every address of the activator.
async fn resolved(activator: &Activator) -> Input {
    let (host, port) = match activator {
        Activator::Address(address) => return Input::Resolved(vec![*address]),
        Activator::Name { host, port } => (host, *port),
    };
    match timeout(RESOLVE_TIMEOUT, lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => Input::Resolved(addresses.collect()),
        Ok(Err(error)) => {
            tracing::debug!(host, %error, "the activator's name cannot be resolved");
            Input::Unresolved
        }
        Err(_) => {
            tracing::debug!(host, "no answer to the question for the activator's name");
            Input::Unresolved
        }
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
