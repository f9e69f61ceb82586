//! The control listener (gRPC), which workers dial (architecture.md, "Workers dial in"). In: their calls, with a proof of the control
//! secret; our own proof goes out with the head of each answer. Out: messages of workers, to `lobby`; offers, to workers.
//!
//! Note: one worker reaches one activator by several addresses (`localhost` is two), so a second call by a name that is
//! registered is answered with Welcome and ended: the worker sees that it knows this activator and stops dialing that address.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, tasks, deadlines")]

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::control::wire::control_server::{Control, ControlServer};
use liveedgecast_common::control::wire::worker_says::Say as WorkerSay;
use liveedgecast_common::control::wire::{ActivatorSays, Activators, Challenge, Greeting, Stranger, WorkerSays};
use liveedgecast_common::control::{ActivatorMessage, Hello, Malformed, Welcome, WorkerMessage};
use liveedgecast_common::encryption::{ChannelBinding, Protection};
use liveedgecast_common::event;
use liveedgecast_common::evicting_limit::{EvictingLimit, Slot};
use liveedgecast_common::key::{LogSafe, Secret};
use liveedgecast_common::listen::accept_tcp;
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::proof::{self, Exchange, Nonce, Purpose};
use liveedgecast_common::random;
use liveedgecast_common::socket::PeerSocket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::addresses::{AddressPlace, AddressShares};
use super::metrics::{CallRefusal, ControlMetrics};
use crate::dispatch::Introduction;
use crate::lobby::{MAX_UNREAD, WorkerCalls};
use crate::net::{CurrentTokens, Expiring};
use crate::peers::service::{self as peers_service, Gate, ProvedCaller};
use crate::peers::{Cluster, RequestHandler};
use crate::totals::WorkerTotals;

/// Workers at once: a large site's.
const MAX_WORKERS: usize = 1024;
/// Connections with a proof, for each worker that there may be: its call and its questions for the other activators, which have connections
/// of their own; the rest is for other activators.
const PROVED_PER_WORKER: usize = 4;
/// Workers from one address, and their connections in proportion: a worker for each core of the largest machine. One that is taken over leaves room for
/// the others.
const WORKERS_PER_ADDRESS: usize = 256;
/// Connections without a proof. One more evicts the oldest: a worker proves itself in its first packet, so connections that stay
/// undecided do not keep it out.
const MAX_STRANGERS: usize = 256;
/// Longest time from the connection to a call with a proof. A worker has it in its first packet.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time from the call to Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence of a connection after which it is pinged …
const PING_EVERY: Duration = Duration::from_secs(5);
/// … and the time in which it has to answer: a host that vanished is noticed within the sum of both.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls on one connection: a worker has one.
const MAX_CALLS: u32 = 4;
/// Bytes of a message. Hello lists up to 10,000 sessions of some 300 bytes.
const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of a call's headers; ours are some 300.
const MAX_HEADERS: u32 = 8 << 10;
/// Bytes that are read of a connection that has not proved itself: more than a request that another activator passes on, whose proof is looked at
/// when the whole of it is here.
const MAX_UNPROVED: usize = 512 << 10;

/// Limit of log lines about refusals: any peer that can connect can cause one. `control_refused_total` counts all of them.
static REFUSALS: LogLimiter = LogLimiter::new(Duration::from_secs(1));

/// The settings of the control service.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Welcome to every worker.
    pub welcome: Welcome,
    /// Connections of callers that are encrypted.
    pub protection: Protection,
    /// Control secret that a caller has to prove to know.
    pub secret: Secret,
    /// Secrets of which another activator has to prove to know one; no worker knows them.
    pub activators: CurrentTokens,
    /// Network namespace of this process; empty if it is unknown.
    pub network: String,
    /// Metrics of workers.
    pub totals: WorkerTotals,
    /// Carries out requests that other activators pass on.
    pub handler: RequestHandler,
}

/// The control listeners.
pub struct ControlListeners {
    /// Listener on the port that is configured.
    pub all: TcpListener,
    /// Listener of this activator alone, if others listen on the configured port, too.
    pub ours: Option<TcpListener>,
    /// Cancelled when the configured port is left to the others.
    pub release: CancellationToken,
}

#[cfg(test)]
impl From<TcpListener> for ControlListeners {
    fn from(all: TcpListener) -> Self {
        Self { all, ours: None, release: CancellationToken::new() }
    }
}

/// Serves `listeners` until `stop`.
///
/// # Errors
/// The server cannot run.
pub async fn serve(
    listeners: ControlListeners,
    terms: Terms,
    workers: WorkerCalls,
    cluster: Cluster,
    metrics: ControlMetrics,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    serve_up_to(MAX_WORKERS, listeners, terms, workers, cluster, metrics, stop).await
}

async fn serve_up_to(
    most: usize,
    listeners: ControlListeners,
    terms: Terms,
    workers: WorkerCalls,
    cluster: Cluster,
    metrics: ControlMetrics,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (places, proved) = (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(PROVED_PER_WORKER * most)));
    let found_at = cluster.found_at();
    let handler = terms.handler.clone();
    let protection = terms.protection.clone();
    let shares = [WORKERS_PER_ADDRESS, PROVED_PER_WORKER * WORKERS_PER_ADDRESS].map(AddressShares::new);
    let service = Arc::new(ControlService { terms, workers, found_at, metrics, places, proved, shares });
    let peers = peers_service::server(Arc::clone(&service), cluster, handler, stop.clone());
    let service = ControlServer::from_arc(service).max_decoding_message_size(MAX_MESSAGE);
    // Length one, because every accepted connection is served at once.
    let (accepted, incoming) = mpsc::channel(1);
    let doors = Doors { protection, strangers: EvictingLimit::new(MAX_STRANGERS), accepted };
    let ours = listeners.ours.map(|listener| tokio::spawn(accept(listener, doors.clone())));
    let (released, kept) = (listeners.release, doors.clone());
    let all = tokio::spawn(async move {
        tokio::select! {
            () = accept(listeners.all, doors) => {}
            () = released.cancelled() => {}
        }
    });
    let served = Server::builder()
        .max_concurrent_streams(MAX_CALLS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(service)
        .add_service(peers)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move { stop.cancelled().await })
        .await;
    drop(kept);
    ours.into_iter().chain([all]).for_each(|accepting| accepting.abort());
    served
}

/// The accept loop of one listener. Each connection has a task of its own until it is known whether it is encrypted.
async fn accept(listener: TcpListener, doors: Doors) {
    loop {
        let (socket, peer) = tokio::select! {
            () = doors.accepted.closed() => return,
            accepted = accept_tcp(&listener, "control", || ()) => accepted,
        };
        tokio::spawn(doors.clone().secure(socket, peer));
    }
}

/// The way of a connection from the listener to the server.
#[derive(Clone)]
struct Doors {
    protection: Protection,
    strangers: EvictingLimit,
    accepted: mpsc::Sender<io::Result<Guarded>>,
}

impl Doors {
    /// Makes the handshake if the caller wants one, within the time and the number of strangers.
    async fn secure(self, socket: TcpStream, peer: SocketAddr) {
        let (slot, until) = (self.strangers.enter(), now() + PROOF_TIMEOUT);
        let ours = socket.local_addr().ok();
        let secured = tokio::select! {
            () = self.accepted.closed() => return,
            () = slot.lost() => return,
            () = sleep_until(Some(until)) => return,
            secured = self.protection.accept(socket, peer.ip()) => secured,
        };
        match secured.and_then(|socket| Ok((ChannelBinding::of(&socket)?, socket))) {
            Ok((binding, socket)) => {
                let _ = self.accepted.send(Ok(guarded(socket, (peer, ours), binding, slot, until))).await;
            }
            Err(error) => {
                debug!(event = event::CONTROL_UNSECURED, peer = %peer.ip(), %error, "connection closed before its first call");
            }
        }
    }
}

/// A connection that is closed unless it has proved itself in time.
type Guarded = Expiring<PeerSocket, ControlConnection>;

/// The connection, as its calls see it.
#[derive(Clone)]
struct ControlConnection {
    address: IpAddr,
    /// Local address of the connection.
    ours: Option<SocketAddr>,
    /// Binds secrets to this connection.
    binding: ChannelBinding,
    /// Cancelled once the caller has proved itself.
    proved: CancellationToken,
    /// Nonces for the proof of the next call: the caller's, and ours. There is a lock, because connections serve calls from several
    /// tasks; held for one store or take.
    greeted: Arc<Mutex<Option<(Nonce, Nonce)>>>,
    /// Permit of a connection that has proved itself.
    room: Arc<OnceLock<(OwnedSemaphorePermit, AddressPlace)>>,
}

fn guarded(
    socket: PeerSocket,
    (peer, ours): (SocketAddr, Option<SocketAddr>),
    binding: ChannelBinding,
    slot: Slot,
    until: Instant,
) -> Guarded {
    let peer = ControlConnection {
        address: peer.ip(),
        ours: ours.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())),
        binding,
        proved: CancellationToken::new(),
        greeted: Arc::default(),
        room: Arc::default(),
    };
    let proved = peer.proved.clone();
    let unproved = peer.proved.clone();
    let over = async move {
        tokio::select! {
            biased;
            () = proved.cancelled() => {}
            () = slot.lost() => return,
            () = sleep_until(Some(until)) => return,
        }
        drop(slot);
        pending().await
    };
    Expiring::new(socket, peer, Box::pin(over)).holding(MAX_UNPROVED, unproved)
}

struct ControlService {
    terms: Terms,
    workers: WorkerCalls,
    /// Control address of this activator, if the address that a caller dialed leads to others too.
    found_at: Option<SocketAddr>,
    metrics: ControlMetrics,
    places: Arc<Semaphore>,
    /// Permits for connections that have proved themselves.
    proved: Arc<Semaphore>,
    /// Shares of one address in both.
    shares: [AddressShares; 2],
}

#[tonic::async_trait]
impl Control for ControlService {
    type JoinStream = Outgoing;

    async fn join(&self, request: Request<Streaming<WorkerSays>>) -> Result<Response<Outgoing>, Status> {
        let (peer, caller) = self.admitted(&request, Purpose::Join)?;
        let full = |_| self.full(peer.address, "as many workers are registered as can be".to_owned());
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(full)?;
        let share = self.shares[0].take(peer.address).ok_or_else(|| self.full_of(peer.address))?;
        let (outbox, from) = mpsc::channel(MAX_UNREAD);
        let refusal = Arc::default();
        let call = Conversation {
            terms: self.terms.clone(),
            workers: self.workers.clone(),
            metrics: self.metrics.clone(),
            peer: peer.address,
            refusal: Arc::clone(&refusal),
            _place: (place, share),
        };
        // The conversation has a task of its own, because the answer's head has to go out before Hello comes.
        tokio::spawn(call.run(request.into_inner(), outbox));
        Ok(caller.answer(Outgoing { from, refusal }))
    }

    async fn greet(&self, request: Request<Greeting>) -> Result<Response<Challenge>, Status> {
        let peer = peer_of(&request)?;
        let caller = request.get_ref().nonce.as_slice().try_into();
        let caller: Nonce = caller.map_err(|_| Status::invalid_argument("a nonce has 32 bytes"))?;
        let ours: Nonce = random::bytes();
        *peer.greeted.lock().unwrap_or_else(PoisonError::into_inner) = Some((caller, ours));
        Ok(Response::new(Challenge { nonce: ours.to_vec(), activator: self.terms.welcome.activator.clone() }))
    }

    async fn introduce(&self, request: Request<Stranger>) -> Result<Response<Activators>, Status> {
        let (peer, caller) = self.admitted(&request, Purpose::Introduce)?;
        let others = self.workers.activators();
        // A connection to the address of a Kubernetes Service still ends at our own address.
        let addresses =
            self.found_at.or(peer.ours).into_iter().chain(others).map(|address| address.to_string()).collect();
        Ok(caller.answer(Activators { addresses }))
    }
}

impl Gate for ControlService {
    fn admit<T>(&self, request: &Request<T>, purpose: Purpose) -> Result<ProvedCaller, Status> {
        self.admitted(request, purpose).map(|(_, caller)| caller)
    }

    fn full(&self, peer: IpAddr, text: String) -> Status {
        self.refused(peer, CallRefusal::Full, Status::resource_exhausted(text))
    }
}

fn peer_of<T>(request: &Request<T>) -> Result<&ControlConnection, Status> {
    request.extensions().get::<ControlConnection>().ok_or_else(|| Status::internal("the connection is not known"))
}

impl ControlService {
    /// The connection and the caller, if it has proved that it knows the secret.
    fn admitted<'a, T>(
        &self,
        request: &'a Request<T>,
        purpose: Purpose,
    ) -> Result<(&'a ControlConnection, ProvedCaller), Status> {
        let peer = peer_of(request)?;
        let refused = |why, status| Err(self.refused(peer.address, why, status));
        let told = request.metadata().get(proof::METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !proof::is_readable(told) {
            return refused(CallRefusal::Proof, Status::unauthenticated(proof::ProofError::Malformed.to_string()));
        }
        // The challenge is taken, so a second call with it is refused.
        let Some((caller, challenge)) = peer.greeted.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            let text = "this connection has no challenge that was not answered yet: dial again";
            return refused(CallRefusal::Replay, Status::aborted(text));
        };
        let activator = self.terms.welcome.activator.clone();
        let exchange = Exchange { purpose, caller, challenge, activator };
        let secrets = match purpose {
            Purpose::Join | Purpose::Introduce => vec![self.terms.secret.clone()],
            Purpose::Follow => self.terms.activators.of_activators(),
            Purpose::Act => self.terms.activators.of_acting_activators(),
        };
        let mut judged = Err(proof::ProofError::Wrong);
        for secret in secrets {
            let secret = peer.binding.bound(&secret);
            judged = exchange.judge_caller(&secret, told).map(|()| secret);
            if judged.is_ok() {
                break;
            }
        }
        let secret = match judged {
            Ok(secret) => secret,
            Err(error) => return refused(CallRefusal::Proof, Status::unauthenticated(error.to_string())),
        };
        if peer.room.get().is_none() {
            let full = |_| self.full(peer.address, "there are as many connections as can be".to_owned());
            let room = Arc::clone(&self.proved).try_acquire_owned().map_err(full)?;
            let share = self.shares[1].take(peer.address).ok_or_else(|| self.full_of(peer.address))?;
            let _ = peer.room.set((room, share));
        }
        peer.proved.cancel();
        let proof = MetadataValue::try_from(exchange.activator_proof(&secret));
        let proof = proof.map_err(|_| Status::internal("the proof is no metadata"))?;
        Ok((peer, ProvedCaller { address: peer.address, secret, proof, exchange }))
    }

    /// Refuses a caller whose address has its share.
    fn full_of(&self, peer: IpAddr) -> Status {
        self.full(peer, "there are as many workers or connections of this address as can be".to_owned())
    }

    /// Counts and logs a refusal.
    fn refused(&self, peer: IpAddr, why: CallRefusal, status: Status) -> Status {
        refused(&self.metrics, peer, why, status.message());
        status
    }
}

/// Counts a refusal, and logs one each second at most. A second call of a joined worker is as it should be.
fn refused(metrics: &ControlMetrics, peer: IpAddr, why: CallRefusal, text: &str) {
    metrics.refused(why).inc();
    if why != CallRefusal::Joined && REFUSALS.is_due(now()) {
        warn!(event = event::CONTROL_REFUSED, %peer, why = why.as_str(), text, "control call refused");
    } else {
        debug!(event = event::CONTROL_REFUSED, %peer, why = why.as_str(), text, "control call refused");
    }
}

/// The messages to a worker, then the status with which the call ends.
pub(crate) struct Outgoing {
    from: mpsc::Receiver<ActivatorMessage>,
    // There is a lock, because the task of the conversation writes it, once, and the task of the server reads it.
    refusal: Arc<Mutex<Option<Status>>>,
}

impl Stream for Outgoing {
    type Item = Result<ActivatorSays, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.from.poll_recv(cx).map(|said| match said {
            Some(message) => Some(Ok(message.into())),
            None => self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err),
        })
    }
}

/// A call of a worker, from its proof to its end.
struct Conversation {
    terms: Terms,
    workers: WorkerCalls,
    metrics: ControlMetrics,
    peer: IpAddr,
    refusal: Arc<Mutex<Option<Status>>>,
    _place: (OwnedSemaphorePermit, AddressPlace),
}

impl Conversation {
    async fn run(self, mut incoming: Streaming<WorkerSays>, outbox: mpsc::Sender<ActivatorMessage>) {
        let first = match timeout(HELLO_TIMEOUT, incoming.message()).await {
            Ok(Ok(Some(WorkerSays { say: Some(WorkerSay::Hello(hello)) }))) => Hello::try_from(hello),
            Ok(Err(error)) => {
                debug!(event = event::CONTROL_BROKEN, peer = %self.peer, %error, "control call broke before Hello");
                return;
            }
            _ => return self.refuse_hello("the first message is to be Hello, and soon"),
        };
        let hello = match first {
            Ok(hello) => hello,
            Err(error) => return self.refuse_hello(&error.to_string()),
        };
        let (network, version) = (hello.network.clone(), hello.version.clone());
        let introduction = introduction(hello, &self.terms.network);
        let (name, capacity, same_host) = (introduction.name.clone(), introduction.capacity, introduction.same_host);
        // Welcome goes before any offer, which follows from the registration. There is room: the channel is new.
        let _ = outbox.try_send(ActivatorMessage::Welcome(self.terms.welcome.clone()));
        let held_open = outbox.clone();
        let Some(call) = self.workers.join(introduction, outbox) else {
            let text = format!("a worker named {} is registered already", LogSafe(&name));
            return self.refuse(CallRefusal::Joined, Status::already_exists(text));
        };
        drop(held_open);
        let (event, peer) = (event::WORKER_REGISTERED, self.peer);
        info!(event, worker = name, capacity, %peer, same_host, version, "worker registered");
        let (event, ours) = (event::NETWORKS_COMPARED, &self.terms.network);
        debug!(event, worker = name, theirs = network, ours, "network namespaces compared");
        let (totals, mut tells) = (self.terms.totals.call(), false);
        let end = loop {
            match incoming.message().await {
                // A second Hello changes nothing, good or bad; and this version does not know every kind of message.
                Ok(Some(WorkerSays { say: Some(WorkerSay::Hello(_)) | None })) => {}
                Ok(Some(WorkerSays { say: Some(say) })) => match WorkerMessage::try_from(say) {
                    Ok(WorkerMessage::Totals(rows)) => {
                        totals.add(rows);
                        if !std::mem::replace(&mut tells, true) {
                            self.workers.tells(call);
                        }
                    }
                    Ok(message) => self.workers.said(call, message),
                    Err(Malformed::Session) => self.metrics.refused(CallRefusal::Session).inc(),
                    Err(error @ (Malformed::Capacity | Malformed::Streams { .. })) => {
                        self.workers.lost(call);
                        let text = error.to_string();
                        info!(event = event::WORKER_LEFT, worker = name, end = text, "worker left");
                        return self.refuse(CallRefusal::Load, Status::invalid_argument(text));
                    }
                    Err(Malformed::Name | Malformed::Declined | Malformed::Excerpt) => {}
                },
                Ok(None) => break "it hung up".to_owned(),
                Err(status) => break format!("{:?}: {}", status.code(), LogSafe(status.message())),
            }
        };
        self.workers.lost(call);
        info!(event = event::WORKER_LEFT, worker = name, end, "worker left");
    }

    fn refuse_hello(self, text: &str) {
        self.refuse(CallRefusal::Hello, Status::invalid_argument(text));
    }

    /// Ends the call with this status, as soon as the outbox is dropped.
    fn refuse(self, why: CallRefusal, status: Status) {
        refused(&self.metrics, self.peer, why, status.message());
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

/// The part of a Hello that the dispatcher uses.
fn introduction(hello: Hello, network: &str) -> Introduction {
    Introduction {
        name: hello.name,
        capacity: hello.capacity,
        availability: hello.availability,
        same_host: !network.is_empty() && hello.network == network,
        sessions: hello.sessions,
        takes_lists: hello.takes_lists,
        key: hello.key,
        age: hello.age,
        excerpts: hello.excerpts,
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
