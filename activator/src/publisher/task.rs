//! The task of one publisher, from its first byte until nothing of it is ours any more. In: a connection, the lobby's events, workers that have
//! come. Out: what the machine orders. Owns the connection, the machine, the place in the lobby. Next: `handover`.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::key::{AppName, StreamId};
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::{event, random, trace};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info, trace, warn};

use super::handover::{AssignmentParts, by_descriptor, by_link};
use super::limits::READ_BYTES;
use super::machine::{CloseReason, Closing, Input, Machine, Output};
use super::metrics::PublisherMetrics;
use super::outgoing::BufferedConnection;
use super::resume::{Readiness, Resume};
use crate::accept::{Accepted, ConnectionEvent, Permit, UNTRUSTED};
use crate::admission::{Admission, AdmissionRequest, Admitted, ClientFacts, RefusalReason, Verdict};
use crate::dispatch::{self, Entry, PlaceEvent, PlacedStream};
use crate::events::{Events, Fact, StreamEvents, StreamLabel};
use crate::excerpt::KeptBytes;
use crate::handoff::{
    ClaimedPlace, ExpectedOffer, FollowUp, HandoffConnection, HandoffListener, HandoffOutcome, SpareMemories,
};
use crate::lobby::{Place, Places};

/// Limits the lines about publishers that wait for their turn, which are counted.
static DELAYED: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// Time between two lines about refusals of one kind.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(1);
/// Limits the lines about refusals of admission, for each reason.
static REFUSED: [LogLimiter; RefusalReason::ALL.len()] =
    [const { LogLimiter::new(REFUSALS_LOGGED_EVERY) }; RefusalReason::ALL.len()];
/// Limits the lines about refusals of the lobby, for each reason.
static SENT_AWAY: [LogLimiter; dispatch::PlaceRefusal::ALL.len()] =
    [const { LogLimiter::new(REFUSALS_LOGGED_EVERY) }; dispatch::PlaceRefusal::ALL.len()];
/// Limits the lines about publishers that no worker has accepted yet: each may be refused at once, as a second encoder in a loop. The limit
/// is far above the rate at which people begin to publish, since an operator looks for this line first.
static PUBLISHED: LogLimiter = LogLimiter::several(20, Duration::from_secs(1));
/// Limits the lines about publishers that leave by themselves.
static LEFT_HELD: LogLimiter = LogLimiter::new(REFUSALS_LOGGED_EVERY);

/// Limits the lines about PROXY headers of strangers.
static UNTRUSTED_HEADER: LogLimiter = LogLimiter::new(Duration::from_secs(10));
/// Limits the lines about TLS on the port for plain RTMP.
static SENT_TLS: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// The rooms that every publisher's task uses.
pub struct Context {
    /// The decision about who may publish.
    pub admission: Arc<Admission>,
    /// The lobby's places, where admitted publishers wait.
    pub places: Places,
    /// The listener where workers fetch the streams that they were offered.
    pub listener: HandoffListener,
    /// The events.
    pub events: Events,
    /// Memory of ended streams, for the next ones.
    pub spares: SpareMemories,
    /// The name of this activator, for workers' logs.
    pub name: String,
    /// `/stat` shows keys.
    pub stat_shows_keys: bool,
    /// The counters of this room.
    pub metrics: PublisherMetrics,
    /// Cancelled when the activator goes down, after the lobby was told. Note: a publisher that waits for its turn or for a refusal is not
    /// in the lobby; without this it was cut off with the process, and OBS comes back by itself only from a stream that was started.
    pub draining: CancellationToken,
}

/// Serves one connection to its end.
pub async fn run(accepted: Accepted, context: Arc<Context>) {
    let _counted = ConnectionCount::new(&context.metrics);
    let Some(Accepted { connection, client, permit, .. }) = accepted.opened().await else { return };
    let stream_id = StreamId::from_bytes(random::bytes());
    let span = debug_span!("publisher", stream = %stream_id, %client);
    let connected = now();
    let task = PublisherTask {
        machine: Machine::new(connected),
        connected,
        connection: Some(BufferedConnection::new(connection)),
        stream_id,
        client,
        permit,
        verdict: None,
        held: None,
        offer: None,
        resume: None,
        context: Arc::clone(&context),
    };
    trace!(parent: &span, event = event::PUBLISHER_CONNECTED, "publisher connected");
    task.serve().instrument(span).await;
}

/// Counts one connection in the gauge.
struct ConnectionCount(prometheus::IntGauge);

impl ConnectionCount {
    fn new(metrics: &PublisherMetrics) -> Self {
        metrics.connections.inc();
        Self(metrics.connections.clone())
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An admitted publisher's stream and place.
struct HeldPublisher {
    admitted: Box<Admitted>,
    place: Place,
    published: PublishedLine,
    /// Dropped after the place.
    _told: StreamEvents,
}

/// The line about a published stream: written at once where the limit allows it, else when a worker accepts the stream, and once.
struct PublishedLine {
    stream_id: StreamId,
    client: SocketAddr,
    app: AppName,
    /// The publisher's name in the configuration file.
    publisher: Option<String>,
    upstreams: String,
    written: bool,
}

impl PublishedLine {
    fn write(&mut self) {
        if !std::mem::replace(&mut self.written, true) {
            let Self { stream_id, client, app, publisher, upstreams, .. } = self;
            info!(event = event::STREAM_PUBLISHED, stream = %stream_id, %client, %app, publisher, upstreams, "stream published");
        }
    }
}

struct PublisherTask {
    machine: Machine,
    connected: Instant,
    /// `None` while a worker has the publisher.
    connection: Option<BufferedConnection>,
    stream_id: StreamId,
    client: SocketAddr,
    permit: Permit,
    /// The answer of admission, while it is awaited.
    verdict: Option<Pin<Box<dyn Future<Output = Verdict> + Send>>>,
    held: Option<HeldPublisher>,
    offer: Option<ExpectedOffer>,
    resume: Option<Resume>,
    context: Arc<Context>,
}

enum TaskEvent {
    Connection(io::Result<ConnectionEvent>),
    Evicted,
    Draining,
    Verdict(Verdict),
    Place(PlaceEvent),
    /// Boxed: its keys take a kilobyte, and a waiting publisher has none.
    Came(Box<HandoffConnection>),
    Timeout,
}

impl PublisherTask {
    /// Serves the publisher to its end. No `async fn`, whose future would have room for `self` twice: as its argument, and as the variable that
    /// it becomes.
    #[allow(clippy::manual_async_fn, reason = "the future of an async fn has room for its argument twice")]
    fn serve(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let (how, why) = loop {
                if let Some(end) = self.act() {
                    break end;
                }
                match self.next().await {
                    TaskEvent::Connection(Ok(ConnectionEvent::Bytes)) => self.read(),
                    TaskEvent::Connection(Ok(ConnectionEvent::Writable)) => {}
                    TaskEvent::Connection(Ok(ConnectionEvent::End) | Err(_)) => {
                        self.machine.handle(now(), Input::Ended)
                    }
                    TaskEvent::Evicted => self.machine.handle(now(), Input::Evicted),
                    TaskEvent::Draining => self.machine.handle(now(), Input::Draining),
                    TaskEvent::Verdict(verdict) => self.judged(verdict),
                    TaskEvent::Place(event) => self.lobby_says(event),
                    TaskEvent::Came(connection) => {
                        self.machine.handle(now(), Input::Came);
                        // Boxed, like the closing: ten thousand held publishers have no use for the room.
                        let (outcome, follow_up) = Box::pin(self.hand_over(*connection)).await;
                        debug!(event = event::PUBLISHER_RETURNED, ?outcome, "handoff ended");
                        match self.resume.take() {
                            Some(Resume::Parted(snapshot)) => self.machine.part(now(), *snapshot),
                            resume => {
                                self.resume = resume;
                                self.machine.handle(now(), Input::Over(outcome));
                            }
                        }
                        match follow_up {
                            Some(FollowUp::Offer(offer)) => self.offered(offer),
                            Some(FollowUp::Refused(reason)) => self.lobby_says(PlaceEvent::Refused(reason)),
                            None => {}
                        }
                    }
                    TaskEvent::Timeout => self.machine.handle_timeout(now()),
                }
            };
            Box::pin(self.close(how, why)).await;
        }
    }

    /// Carries out the machine's orders; in the end, how to close and why.
    fn act(&mut self) -> Option<(Closing, CloseReason)> {
        if self.connection.as_mut().is_some_and(|connection| connection.flush().is_err()) {
            self.machine.handle(now(), Input::Ended);
        }
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Write(bytes) => {
                    if self.connection.as_mut().is_some_and(|connection| connection.write(&bytes).is_err()) {
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
                Output::Gone => self.held.iter_mut().for_each(|held| held.place.gone()),
                Output::Expect => {
                    if let Some(offer) = &mut self.offer {
                        offer.expected.get_or_insert_with(|| self.context.listener.expect(offer.token));
                    }
                }
                Output::Forget => self.offer = None,
                Output::Back(epoch, why) => {
                    // The next offer may have come during the handoff that this one led to.
                    self.offer.take_if(|offer| offer.epoch == epoch);
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
                    debug!(event = event::PUBLISHER_PARTED, next = %self.stream_id, "publisher parted, and may publish again");
                }
                Output::Close(how, why) => return Some((how, why)),
            }
        }
        None
    }

    async fn next(&mut self) -> TaskEvent {
        let (watch, timeout) = (self.machine.watch(), self.machine.poll_timeout());
        let (put_off, gone) = (self.machine.is_put_off(), self.machine.is_gone());
        tokio::select! {
            event = async {
                match &self.connection {
                    Some(connection) if !gone => connection.watch(watch).await,
                    _ => pending().await,
                }
            } => TaskEvent::Connection(event),
            verdict = async {
                match &mut self.verdict {
                    Some(verdict) => verdict.await,
                    None => pending().await,
                }
            } => TaskEvent::Verdict(verdict),
            event = async {
                match &mut self.held {
                    Some(held) => held.place.event().await,
                    None => pending().await,
                }
            } => TaskEvent::Place(event),
            connection = async {
                match self.offer.as_mut().and_then(|offer| offer.expected.as_mut()) {
                    Some(expected) => expected.await,
                    None => pending().await,
                }
            } => TaskEvent::Came(Box::new(connection)),
            () = self.permit.lost() => TaskEvent::Evicted,
            () = async {
                match put_off {
                    // Boxed: few are put off, and ten thousand held publishers have no use for the room.
                    true => Box::pin(self.context.draining.cancelled()).await,
                    false => pending().await,
                }
            } => TaskEvent::Draining,
            () = sleep_until(timeout) => TaskEvent::Timeout,
        }
    }

    fn read(&mut self) {
        let Some(connection) = &self.connection else { return };
        match connection.read(&mut [0; READ_BYTES]) {
            Ok(Some([])) | Err(_) => self.machine.handle(now(), Input::Ended),
            Ok(Some(bytes)) => self.machine.handle_bytes(now(), bytes),
            Ok(None) => {}
        }
    }

    fn judge(&mut self) {
        let Some((app, key)) = self.machine.asks() else { return };
        let facts = self.machine.connect_info().map(|connect| ClientFacts {
            id: self.stream_id.to_string(),
            tc_url: connect.tc_url.clone(),
            flash_ver: connect.flash_ver.clone(),
            swf_url: connect.swf_url.clone(),
            page_url: connect.page_url.clone(),
        });
        let facts = facts.unwrap_or_default();
        let request = AdmissionRequest { client: self.client.ip(), app: app.to_owned(), key: key.clone(), facts };
        let admission = Arc::clone(&self.context.admission);
        self.verdict = Some(Box::pin(async move { admission.judge(request).await }));
    }

    fn judged(&mut self, verdict: Verdict) {
        self.verdict = None;
        self.permit.decided();
        let now = now();
        if let Verdict::Admit { after, .. } = &verdict {
            self.permit.admitted();
            self.context.metrics.admitted.inc();
            if *after > Duration::ZERO {
                self.context.metrics.delayed.inc();
                if DELAYED.is_due(now) {
                    let advice = RefusalReason::Rate.advice();
                    let after_ms = after.as_millis();
                    info!(event = event::PUBLISHER_DELAYED, stream = %self.stream_id, client = %self.client, after_ms, advice, "publisher delayed: its address brings many");
                }
            }
        }
        self.machine.handle(now, Input::Verdict(verdict));
    }

    fn enter(&mut self, admitted: Box<Admitted>) {
        let upstreams: Vec<String> =
            admitted.destinations.list().destinations.iter().map(|to| to.url.authority()).collect();
        let mut published = PublishedLine {
            stream_id: self.stream_id.clone(),
            client: self.client,
            app: admitted.app.clone(),
            publisher: admitted.publisher.clone(),
            upstreams: upstreams.join(" "),
            written: false,
        };
        if PUBLISHED.is_due(now()) {
            published.write();
        }
        let label = StreamLabel {
            stream: self.stream_id.0.clone(),
            app: admitted.app.to_string(),
            publisher: admitted.publisher.clone(),
        };
        let names = admitted.destinations.list().destinations.into_iter().map(|to| to.name).collect();
        let told = self.context.events.entered(label, admitted.identities.first().copied(), names);
        let place = self.context.places.enter(Entry {
            stream_id: self.stream_id.clone(),
            identities: admitted.identities.clone(),
            destinations: admitted.destinations.clone(),
            app: admitted.app.clone(),
            publisher: admitted.publisher.clone(),
            connected: trace::is_on().then_some(self.connected),
            shown_key: self.context.stat_shows_keys.then(|| admitted.key.clone()),
            client: self.client,
            deadline: admitted.policy.deadline,
            hold: admitted.policy.hold,
            handoff: admitted.policy.handoff,
            movable: self.connection.as_ref().is_some_and(BufferedConnection::is_movable),
        });
        self.context.admission.files().entered(&admitted);
        self.held = Some(HeldPublisher { admitted, place, published, _told: told });
    }

    fn lobby_says(&mut self, event: PlaceEvent) {
        let input = match event {
            PlaceEvent::Offered { epoch, token, worker, descriptor } => {
                debug!(event = event::PUBLISHER_OFFERED, worker, epoch, descriptor, "stream offered to a worker");
                return self.offered(ExpectedOffer { epoch, token, descriptor, expected: None });
            }
            PlaceEvent::Withdrawn { epoch } => Input::Withdrawn { epoch },
            PlaceEvent::Refused(reason) => Input::Refused(reason),
            // The next worker gets the destinations as they are then.
            PlaceEvent::Changed => return,
            PlaceEvent::Asked => {
                let kept = self.kept();
                if let Some(held) = &mut self.held {
                    held.place.answer(kept);
                }
                return;
            }
            PlaceEvent::Kicked(reason) => {
                debug!(event = event::PUBLISHER_KICKED, reason, "publisher kicked");
                Input::Kicked
            }
        };
        self.machine.handle(now(), input);
    }

    /// The bytes of a stream that waits for another worker.
    fn kept(&self) -> Option<KeptBytes> {
        match self.resume.as_ref()? {
            Resume::Descriptor(memory, _) => {
                let head = self.connection.as_ref()?.position()?;
                Some(KeptBytes::Memory { memory: memory.try_clone().ok()?, head })
            }
            Resume::Link(carried) => Some(carried.kept()),
            Resume::Parted(_) => None,
        }
    }

    fn offered(&mut self, offer: ExpectedOffer) {
        let fits = Resume::fits(self.resume.as_ref(), offer.descriptor);
        let epoch = offer.epoch;
        self.offer = Some(offer);
        self.machine.handle(now(), Input::Offered { epoch, fits });
    }

    /// Gives the publisher to the worker that has come, and waits for the end of that.
    async fn hand_over(&mut self, connection: HandoffConnection) -> (HandoffOutcome, Option<FollowUp>) {
        let (Some(held), Some(offer), Some(publisher)) = (&mut self.held, self.offer.take(), self.connection.take())
        else {
            return (HandoffOutcome::untouched(), None);
        };
        let placed = held.place.stream().unwrap_or_else(|| PlacedStream {
            identities: held.admitted.identities.clone(),
            destinations: held.admitted.destinations.list(),
            takes_lists: false,
        });
        let parts = AssignmentParts {
            placed,
            stream_id: &self.stream_id,
            client: self.client,
            epoch: offer.epoch,
            admitted: &held.admitted,
            activator: &self.context.name,
        };
        let readiness = Readiness {
            flushed: publisher.is_flushed(),
            movable: publisher.is_movable(),
            unix: connection.wire.is_unix(),
            descriptor: offer.descriptor,
        };
        let (Some(snapshot), true) = (self.machine.snapshot(), readiness.can_begin()) else {
            self.connection = Some(publisher);
            return (HandoffOutcome::untouched(), None);
        };
        let mut accepted = || held.published.write();
        let mut place = ClaimedPlace::new(&mut held.place, &self.context.listener, offer.epoch, &mut accepted);
        let resume = self.resume.take();
        let (outcome, publisher, resume) = if offer.descriptor {
            by_descriptor(connection, &self.context.spares, parts, snapshot, publisher, resume, &mut place).await
        } else {
            by_link(connection, parts, snapshot, publisher, resume, &mut place).await
        };
        if place.is_kicked() {
            self.machine.handle(now(), Input::Kicked);
        }
        let follow_up = place.follow_up();
        self.connection = publisher;
        self.resume = resume;
        (outcome, follow_up)
    }

    /// The names of the stream, as far as it has any.
    fn label(&self) -> StreamLabel {
        let app = self.machine.asks().and_then(|(app, _)| AppName::parse(app).ok());
        let app = app.map(|app| app.to_string()).unwrap_or_default();
        let publisher = self.held.as_ref().and_then(|held| held.admitted.publisher.clone());
        StreamLabel { stream: self.stream_id.0.clone(), app, publisher }
    }

    /// Logs the ends that no worker's log has. A worker logs the ends of its streams itself; ends that strangers can cause as often as they like
    /// are counted, and logged once in a while.
    fn log(&self, why: CloseReason) {
        let (stream, client) = (&self.stream_id, self.client);
        let app = self.machine.asks().and_then(|(app, _)| AppName::parse(app).ok()).map(tracing::field::display);
        let publisher = self.held.as_ref().and_then(|held| held.admitted.publisher.as_deref());
        match why {
            CloseReason::Refused(reason) if REFUSED[reason as usize].is_due(now()) => {
                let slip = self.machine.slip();
                // The words of a hook may hold a key.
                let said = self.machine.says().filter(|_| reason != RefusalReason::Hook);
                info!(event = event::PUBLISHER_REFUSED, %stream, %client, app, class = why.as_str(), slip, said, advice = reason.advice(), "publisher refused");
                let (of, class, client) = (self.label(), reason.as_str(), client.ip().to_string());
                self.context.events.tell(Fact::PublisherRefused { of, class, client });
            }
            CloseReason::Lobby(reason) if SENT_AWAY[reason as usize].is_due(now()) => {
                info!(event = event::PUBLISHER_SENT_AWAY, %stream, %client, app, publisher, class = why.as_str(), advice = reason.advice(), "publisher sent away");
                let (of, class, client) = (self.label(), reason.as_str(), client.ip().to_string());
                self.context.events.tell(Fact::PublisherSentAway { of, class, client });
            }
            CloseReason::LeftHeld if LEFT_HELD.is_due(now()) => {
                info!(event = event::PUBLISHER_LEFT, %stream, %client, app, publisher, class = why.as_str(), "publisher left before a worker had its stream");
            }
            CloseReason::Tls if SENT_TLS.is_due(now()) => {
                let advice =
                    "write rtmp:// in the publisher's URL, or the port of RTMPS_LISTEN, which needs RTMPS_CERT_FILE";
                info!(event = event::PUBLISHER_SENT_TLS, %client, advice, "publisher sent TLS to the port for plain RTMP");
            }
            CloseReason::Proxied if UNTRUSTED_HEADER.is_due(now()) => {
                info!(event = event::PROXY_UNTRUSTED, %client, advice = UNTRUSTED, "PROXY header from an address that is no trusted proxy");
            }
            CloseReason::Stranded => {
                info!(event = event::PUBLISHER_STRANDED, %stream, %client, app, publisher, class = why.as_str(), "publisher stranded: no worker can go on with its stream");
            }
            _ => {}
        }
    }

    /// Counts the bytes that were kept for another worker, which none has got.
    fn count_rest(&self, why: CloseReason) {
        let started = self.machine.is_started();
        let bytes = self.resume.as_ref().map_or(0, |resume| resume.at_stake(self.connection.as_ref(), started));
        // An operator wants the end of a stream that is kicked, without its rest.
        if bytes == 0 || why == CloseReason::Kicked {
            return;
        }
        let (of, reason) = (self.label(), why.as_str());
        let (stream, client, app, publisher) = (&self.stream_id, self.client, &of.app, of.publisher.as_deref());
        warn!(event = event::STREAM_REST_LOST, %stream, %client, app, publisher, class = reason, bytes, "rest of a stream lost: no worker has passed it on");
        self.context.metrics.rest_lost.with_label_values(&[reason]).inc_by(bytes);
        self.context.events.tell(Fact::StreamRestLost { of, reason, bytes });
    }

    async fn close(mut self, how: Closing, why: CloseReason) {
        self.log(why);
        if let (Some(held), true) = (&mut self.held, why.is_loss() && !self.machine.has_parted()) {
            held.place.publisher_lost(held.admitted.policy.grace);
        }
        self.count_rest(why);
        // Lobby and listener have nothing to wait for; the peer may take its time.
        self.held = None;
        self.offer = None;
        self.resume = None;
        if self.verdict.take().is_some() {
            // The verdict is late, which is a refusal too.
            self.permit.decided();
        }
        debug!(event = event::PUBLISHER_CLOSED, why = why.as_str(), ?how, "publisher closed");
        let metrics = &self.context.metrics;
        match why {
            CloseReason::Refused(_) | CloseReason::Lobby(_) => metrics.refused.with_label_values(&[why.as_str()]).inc(),
            CloseReason::Protocol
            | CloseReason::Tls
            | CloseReason::Proxied
            | CloseReason::Slow
            | CloseReason::Evicted => metrics.errors.with_label_values(&[why.as_str()]).inc(),
            CloseReason::Stranded => {
                metrics.errors.with_label_values(&[why.as_str()]).inc();
                metrics.ended.with_label_values(&[why.as_str()]).inc();
            }
            CloseReason::LeftHeld
            | CloseReason::Kicked
            | CloseReason::FailedStart
            | CloseReason::Done
            | CloseReason::Broke
            | CloseReason::Disconnected
            | CloseReason::Gone => {
                metrics.ended.with_label_values(&[why.as_str()]).inc();
            }
            CloseReason::Left => {}
        }
        let Some(connection) = self.connection.take() else { return };
        match how {
            Closing::Graceful => connection.close_gracefully().await,
            Closing::Abort => connection.abort(),
            Closing::Gone => {}
        }
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
