//! A publisher's task: from its first byte until nothing of it is ours any more. Owns the socket, the session, the place in the lobby.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::handoff::{Assignment, Close, Destination, Policy, Snapshot, Transport};
use liveedgecast_common::key::{AppName, Identity, StreamId};
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::random;
use liveedgecast_common::sys::RingMemory;
use liveedgecast_common::url::PushUrl;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info, trace, warn};

use super::limits::READ_BYTES;
use super::machine::{Closing, Input, Output, Publisher, Why};
use super::metrics::PublisherMetrics;
use super::socket::{Happened, Socket};
use crate::accept::{Accepted, Permit};
use crate::admission::{self, Admission, Admitted, Verdict};
use crate::config::Settings;
use crate::dispatch;
use crate::dispatch::{Entry, PlaceEvent};
use crate::handoff::claim::{self, Claim, Offer};
use crate::handoff::keeper::{self, Duplicates};
use crate::handoff::{Desk, HandoffConnection, Outcome};
use crate::link::{self, Carried};
use crate::lobby::{Place, Places};

/// Publishers that wait for their turn are counted; a line for one of them in a while is enough.
static DELAYED: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// Between two lines about refusals of one kind.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(1);
/// One for each kind.
static REFUSED: [LogLimiter; admission::Reason::ALL.len()] =
    [const { LogLimiter::new(REFUSALS_LOGGED_EVERY) }; admission::Reason::ALL.len()];
/// The same for what the lobby says.
static SENT_AWAY: [LogLimiter; dispatch::Reason::ALL.len()] =
    [const { LogLimiter::new(REFUSALS_LOGGED_EVERY) }; dispatch::Reason::ALL.len()];
/// The same for those that leave by themselves.
static LEFT_HELD: LogLimiter = LogLimiter::new(REFUSALS_LOGGED_EVERY);

/// What every publisher's task uses.
pub struct Context {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Who may publish.
    pub admission: Arc<Admission>,
    /// Where the admitted ones wait.
    pub places: Places,
    /// Where workers fetch what they were offered.
    pub desk: Desk,
    /// This activator's name, for workers' logs.
    pub name: String,
    /// What is counted.
    pub metrics: PublisherMetrics,
    /// Cancelled when the activator goes down, after the lobby was told. Note: a publisher that waits for its turn or for a refusal is not
    /// in the lobby; without this it was cut off with the process, and OBS comes back by itself only from a stream that was started.
    pub draining: CancellationToken,
}

/// Serves one connection to its end.
pub async fn run(accepted: Accepted, context: Arc<Context>) {
    let Accepted { socket, client, permit } = accepted;
    let stream_id = StreamId::from_bytes(random::bytes());
    let span = debug_span!("publisher", %stream_id, %client);
    let _counted = Counted::new(&context.metrics);
    let stay = Stay {
        machine: Publisher::new(now()),
        socket: Some(Socket::new(socket)),
        stream_id,
        client,
        permit,
        held: None,
        offer: None,
        resume: None,
        context: Arc::clone(&context),
    };
    trace!(parent: &span, "publisher: connected");
    stay.serve().instrument(span).await;
}

/// One connection in the gauge.
struct Counted(prometheus::IntGauge);

impl Counted {
    fn new(metrics: &PublisherMetrics) -> Self {
        metrics.connections.inc();
        Self(metrics.connections.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What an admitted publisher has.
struct Held {
    admitted: Box<Admitted>,
    place: Place,
}

/// What a worker left behind, for the next one.
enum Resume {
    /// By descriptor: the ring with its state page, and where the first worker began.
    Descriptor(OwnedFd, Box<Snapshot>),
    /// By link: the last checkpoint and the bytes since.
    Link(Box<Carried>),
    /// By either, after the publisher's goodbye: nothing but the connection, for us to read on.
    Parted(Box<Snapshot>),
}

struct Stay {
    machine: Publisher,
    /// None while a worker has it by descriptor.
    socket: Option<Socket>,
    stream_id: StreamId,
    client: SocketAddr,
    permit: Permit,
    held: Option<Held>,
    offer: Option<Offer>,
    resume: Option<Resume>,
    context: Arc<Context>,
}

enum Next {
    Happened(io::Result<Happened>),
    Evicted,
    Draining,
    Place(PlaceEvent),
    /// Boxed: its keys take a kilobyte, and who waits has none.
    Came(Box<HandoffConnection>),
    Timeout,
}

impl Stay {
    async fn serve(mut self) {
        let (how, why) = loop {
            if let Some(end) = self.act() {
                break end;
            }
            match self.next().await {
                Next::Happened(Ok(Happened::Bytes)) => self.read(),
                Next::Happened(Ok(Happened::Nothing)) => {}
                Next::Happened(Ok(Happened::End) | Err(_)) => self.machine.handle(now(), Input::Ended),
                Next::Evicted => self.machine.handle(now(), Input::Evicted),
                Next::Draining => self.machine.handle(now(), Input::Draining),
                Next::Place(event) => self.lobby_says(event),
                Next::Came(connection) => {
                    self.machine.handle(now(), Input::Came);
                    // Boxed, like the closing: ten thousand held publishers have no use for the room.
                    let (outcome, next) = Box::pin(self.hand_over(*connection)).await;
                    debug!(?outcome, "publisher: the handoff is over");
                    match self.resume.take() {
                        Some(Resume::Parted(snapshot)) => self.machine.part(now(), *snapshot),
                        resume => {
                            self.resume = resume;
                            self.machine.handle(now(), Input::Over(outcome));
                        }
                    }
                    match next {
                        Some(claim::Next::Offer(offer)) => self.offered(offer),
                        Some(claim::Next::Refused(reason)) => self.lobby_says(PlaceEvent::Refused(reason)),
                        None => {}
                    }
                }
                Next::Timeout => self.machine.handle_timeout(now()),
            }
        };
        Box::pin(self.close(how, why)).await;
    }

    /// Does what the machine wants, until it wants nothing more; then, in the end, how to close.
    fn act(&mut self) -> Option<(Closing, Why)> {
        if self.socket.as_mut().is_some_and(|socket| socket.flush().is_err()) {
            self.machine.handle(now(), Input::Ended);
        }
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Write(bytes) => {
                    if self.socket.as_mut().is_some_and(|socket| socket.write(&bytes).is_err()) {
                        self.machine.handle(now(), Input::Ended);
                    }
                }
                Output::Judge => self.judge(),
                Output::Enter(admitted) => self.enter(admitted),
                Output::Heard => {
                    if let Some(held) = &mut self.held {
                        held.place.heard();
                    }
                }
                Output::Expect => {
                    if let Some(offer) = &mut self.offer {
                        offer.expected.get_or_insert_with(|| self.context.desk.expect(offer.token));
                    }
                }
                Output::Forget => self.offer = None,
                Output::Back(epoch, why) => {
                    self.offer = None;
                    if let Some(held) = &mut self.held {
                        held.place.back(epoch, why);
                    }
                }
                Output::Part(why) => {
                    self.context.metrics.ended.with_label_values(&[why.as_str()]).inc();
                    self.log(why);
                    if let Some(seat) = self.held.take().and_then(|held| held.admitted.seat) {
                        seat.end();
                    }
                    // A publisher that brings the same name again finds it free.
                    (self.offer, self.resume) = (None, None);
                    self.stream_id = StreamId::from_bytes(random::bytes());
                    debug!(next = %self.stream_id, "publisher: its stream has ended, and it may publish again");
                }
                Output::Close(how, why) => return Some((how, why)),
            }
        }
        None
    }

    async fn next(&mut self) -> Next {
        let (watch, timeout) = (self.machine.watch(), self.machine.poll_timeout());
        let put_off = self.machine.is_put_off();
        tokio::select! {
            happened = async {
                match &self.socket {
                    Some(socket) => socket.watch(watch).await,
                    None => pending().await,
                }
            } => Next::Happened(happened),
            event = async {
                match &mut self.held {
                    Some(held) => held.place.event().await,
                    None => pending().await,
                }
            } => Next::Place(event),
            connection = async {
                match self.offer.as_mut().and_then(|offer| offer.expected.as_mut()) {
                    Some(expected) => expected.await,
                    None => pending().await,
                }
            } => Next::Came(Box::new(connection)),
            () = self.permit.lost() => Next::Evicted,
            () = async {
                match put_off {
                    // Boxed: few are put off, and ten thousand held publishers have no use for the room.
                    true => Box::pin(self.context.draining.cancelled()).await,
                    false => pending().await,
                }
            } => Next::Draining,
            () = sleep_until(timeout) => Next::Timeout,
        }
    }

    fn read(&mut self) {
        let Some(socket) = &self.socket else { return };
        match socket.read(&mut [0; READ_BYTES]) {
            Ok(Some([])) | Err(_) => self.machine.handle(now(), Input::Ended),
            Ok(Some(bytes)) => self.machine.handle_bytes(now(), bytes),
            Ok(None) => {}
        }
    }

    fn judge(&mut self) {
        self.permit.judged();
        let now = now();
        let verdict = match self.machine.asks() {
            Some((app, key)) => self.context.admission.judge(now, self.client.ip(), app, key),
            None => return,
        };
        if let Verdict::Admit { after, .. } = &verdict {
            self.permit.admitted();
            self.context.metrics.admitted.inc();
            if *after > Duration::ZERO {
                self.context.metrics.delayed.inc();
                if DELAYED.is_due(now) {
                    let advice = admission::Reason::Rate.advice();
                    let after_ms = after.as_millis();
                    info!(event = "publisher.delayed", stream = %self.stream_id, client = %self.client, after_ms, advice, "publisher waits for its turn: its address brings many");
                }
            }
        }
        self.machine.handle(now, Input::Verdict(verdict));
    }

    fn enter(&mut self, admitted: Box<Admitted>) {
        debug!(app = %admitted.app, "publisher: held");
        let deadline = admitted.deadline;
        let place = self.context.places.enter(Entry {
            stream_id: self.stream_id.clone(),
            identities: admitted.identities.clone(),
            app: admitted.app.clone(),
            client: self.client,
            deadline,
        });
        self.held = Some(Held { admitted, place });
    }

    fn lobby_says(&mut self, event: PlaceEvent) {
        let input = match event {
            PlaceEvent::Offered { epoch, token, worker, descriptor, .. } => {
                debug!(worker, epoch, descriptor, "publisher: a worker is coming");
                return self.offered(Offer { epoch, token, descriptor, expected: None });
            }
            PlaceEvent::Withdrawn { epoch } => Input::Withdrawn { epoch },
            PlaceEvent::Refused(reason) => Input::Refused(reason),
            PlaceEvent::Kicked(reason) => {
                debug!(reason, "publisher: kicked");
                Input::Kicked
            }
        };
        self.machine.handle(now(), input);
    }

    fn offered(&mut self, offer: Offer) {
        let fits = match &self.resume {
            None => true,
            Some(Resume::Descriptor(..)) => offer.descriptor,
            Some(Resume::Link(_)) => !offer.descriptor,
            Some(Resume::Parted(_)) => false,
        };
        let epoch = offer.epoch;
        self.offer = Some(offer);
        self.machine.handle(now(), Input::Offered { epoch, fits });
    }

    /// Gives the publisher to the worker that has come and waits for the end of that.
    async fn hand_over(&mut self, connection: HandoffConnection) -> (Outcome, Option<claim::Next>) {
        let (Some(held), Some(offer), Some(socket)) = (&mut self.held, self.offer.take(), self.socket.take()) else {
            return (Outcome::untouched(), None);
        };
        let begin = Begin {
            identities: held.place.identities().unwrap_or_else(|| held.admitted.identities.clone()),
            stream_id: &self.stream_id,
            client: self.client,
            epoch: offer.epoch,
            admitted: &held.admitted,
            context: &self.context,
        };
        // What we still have to say must not come after what the worker says.
        let possible = socket.is_flushed() && connection.wire.is_unix() == offer.descriptor;
        let (Some(snapshot), true) = (self.machine.snapshot(), possible) else {
            self.socket = Some(socket);
            return (Outcome::untouched(), None);
        };
        let mut claim = Claim::new(&mut held.place, &self.context.desk, offer.epoch);
        let resume = self.resume.take();
        let (outcome, socket, resume) = if offer.descriptor {
            by_descriptor(connection, begin, snapshot, socket, resume, &mut claim).await
        } else {
            by_link(connection, begin, snapshot, socket, resume, &mut claim).await
        };
        let next = claim.next();
        self.socket = socket;
        self.resume = resume;
        (outcome, next)
    }

    /// Logs the ends that no worker's log has. The ends of streams that a worker had are in its own lines; those that strangers can cause as often as
    /// they like are counted, and one in a while is logged.
    fn log(&self, why: Why) {
        let (stream, client) = (&self.stream_id, self.client);
        let app = self.machine.asks().and_then(|(app, _)| AppName::parse(app).ok()).map(tracing::field::display);
        match why {
            Why::Refused(reason) if REFUSED[reason as usize].is_due(now()) => {
                let slip = self.machine.slip();
                info!(event = "publisher.refused", %stream, %client, app, class = why.as_str(), slip, advice = reason.advice(), "publisher refused");
            }
            Why::Lobby(reason) if SENT_AWAY[reason as usize].is_due(now()) => {
                info!(event = "publisher.sent_away", %stream, %client, app, class = why.as_str(), advice = reason.advice(), "publisher sent away");
            }
            Why::LeftHeld if LEFT_HELD.is_due(now()) => {
                info!(event = "publisher.left", %stream, %client, app, class = why.as_str(), "publisher left before a worker had its stream");
            }
            Why::Stranded => {
                info!(event = "publisher.stranded", %stream, %client, app, class = why.as_str(), "publisher closed: no worker can go on with its stream");
            }
            _ => {}
        }
    }

    async fn close(mut self, how: Closing, why: Why) {
        // The lobby and the desk have nothing to wait for; the peer may take its time.
        self.held = None;
        self.offer = None;
        self.resume = None;
        debug!(why = why.as_str(), ?how, "publisher: closed");
        let metrics = &self.context.metrics;
        match why {
            Why::Refused(_) | Why::Lobby(_) => metrics.refused.with_label_values(&[why.as_str()]).inc(),
            Why::Protocol | Why::Slow | Why::Evicted => metrics.errors.with_label_values(&[why.as_str()]).inc(),
            Why::Stranded => {
                metrics.errors.with_label_values(&[why.as_str()]).inc();
                metrics.ended.with_label_values(&[why.as_str()]).inc();
            }
            Why::LeftHeld | Why::Kicked | Why::Done | Why::Disconnected | Why::Gone => {
                metrics.ended.with_label_values(&[why.as_str()]).inc();
            }
            Why::Left => {}
        }
        self.log(why);
        let Some(socket) = self.socket.take() else { return };
        match how {
            Closing::Graceful => socket.close_gracefully().await,
            Closing::Abort => socket.abort(),
            Closing::Gone => {}
        }
    }
}

/// What an assignment is made of.
struct Begin<'a> {
    stream_id: &'a StreamId,
    client: SocketAddr,
    epoch: u64,
    admitted: &'a Admitted,
    /// The admitted destinations that the stream has not lost to other streams.
    identities: Vec<Identity>,
    context: &'a Context,
}

impl Begin<'_> {
    fn assignment(&self, transport: Transport, resumed: bool, snapshot: Snapshot) -> Assignment {
        let settings = &self.context.settings;
        let lost = |url: &PushUrl| {
            let identity = Identity::of_upstream(&settings.secret, url);
            self.admitted.identities.contains(&identity) && !self.identities.contains(&identity)
        };
        let destinations = self.admitted.destinations.iter().filter(|url| !lost(url));
        Assignment {
            stream_id: self.stream_id.clone(),
            epoch: self.epoch,
            activator: self.context.name.clone(),
            client: self.client,
            app: self.admitted.app.clone(),
            key: self.admitted.key.clone(),
            identities: self.identities.clone(),
            // Only a routes file can require one.
            destinations: destinations.map(|url| Destination { url: url.clone(), required: false }).collect(),
            policy: Policy {
                hold_left: self.admitted.deadline.saturating_duration_since(now()),
                grace: settings.grace,
                replay_time: settings.replay.time,
                replay_bytes: settings.replay.bytes,
                lag_time: settings.upstream_lag,
                lag_bytes: settings.replay.bytes,
            },
            transport,
            resumed,
            snapshot,
        }
    }
}

type After = (Outcome, Option<Socket>, Option<Resume>);

async fn by_descriptor(
    connection: HandoffConnection,
    begin: Begin<'_>,
    snapshot: Snapshot,
    socket: Socket,
    resume: Option<Resume>,
    claim: &mut Claim<'_>,
) -> After {
    let (memory, snapshot, resumed) = match resume {
        Some(Resume::Descriptor(memory, snapshot)) => (Ok(memory), snapshot, true),
        _ => (ring(begin.context), Box::new(snapshot), false),
    };
    let memory = match memory {
        Ok(memory) => memory,
        Err(error) => {
            warn!(%error, "publisher: no memory for a stream's ring");
            return (Outcome::untouched(), Some(socket), None);
        }
    };
    // Out of epoll: from here on this process is told nothing about it.
    let Ok(socket) = socket.stream.into_std() else { return (Outcome::PublisherGone, None, None) };
    let duplicates = Duplicates { socket, memory };
    let assignment = begin.assignment(Transport::Descriptor, resumed, snapshot.as_ref().clone());
    let mut parted = None;
    let outcome = keeper::keep(connection, assignment, &duplicates, claim, &mut parted).await;
    let Duplicates { socket, memory } = duplicates;
    let socket = TcpStream::from_std(socket).ok().map(Socket::new);
    match outcome {
        // The worker has said its last words and closed; ours is a duplicate.
        Outcome::Done(Close::Graceful) => (outcome, None, None),
        Outcome::Parted => (outcome, socket, parted.map(Resume::Parted)),
        Outcome::Returned { touched, .. } | Outcome::Lost { touched, .. } if touched || resumed => {
            (outcome, socket, Some(Resume::Descriptor(memory, snapshot)))
        }
        _ => (outcome, socket, None),
    }
}

async fn by_link(
    connection: HandoffConnection,
    begin: Begin<'_>,
    snapshot: Snapshot,
    mut socket: Socket,
    resume: Option<Resume>,
    claim: &mut Claim<'_>,
) -> After {
    let (mut carried, resumed) = match resume {
        Some(Resume::Link(carried)) => (carried, true),
        _ => (Box::new(Carried::new(snapshot)), false),
    };
    let assignment = begin.assignment(Transport::Link, resumed, carried.checkpoint.clone());
    let outcome = link::carry(connection, assignment, &mut socket.stream, &mut carried, claim).await;
    match outcome {
        Outcome::Broken { .. } => (outcome, Some(socket), Some(Resume::Link(carried))),
        Outcome::Returned { touched, .. } | Outcome::Lost { touched, .. } if touched || resumed => {
            (outcome, Some(socket), Some(Resume::Link(carried)))
        }
        Outcome::Parted => (outcome, Some(socket), Some(Resume::Parted(Box::new(carried.parted())))),
        _ => (outcome, Some(socket), None),
    }
}

/// A stream's memory, as large as the replay window.
fn ring(context: &Context) -> io::Result<OwnedFd> {
    RingMemory::create(usize::try_from(context.settings.replay.bytes).map_err(io::Error::other)?)
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
