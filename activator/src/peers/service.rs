//! The service that other activators follow. In: their calls on the control listener, proved like a worker's. Out: this activator's name,
//! the publishers that wait here, the load of workers; then every change of these. And requests of the API for publishers that are held here. Next: the peers, in `follow`.
#![expect(clippy::disallowed_methods, reason = "shell: a task for each follower, a pause")]

use std::net::IpAddr;
use std::sync::Arc;

use liveedgecast_common::key::Secret;
use liveedgecast_common::proof::{self, Exchange, Purpose};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};

use super::cluster::Cluster;
use super::courier::{ForwardedAnswer, ForwardedRequest, RequestHandler};
use super::limits::{MAX_ACT, MAX_FOLLOWERS, PAUSE, UNSENT};
use super::proto::peers_server::{Peers, PeersServer};
use super::proto::says::Say;
use super::proto::{Acted, Goodbye, Held, Hello, Says, Sealed, Synced, Welcome, Worker};
use crate::dispatch::{FollowerView, PeerChange, WorkerTally};

/// Proofs of callers, which the control listener asks for.
pub(crate) trait Gate: Send + Sync + 'static {
    /// The caller, if it has proved that it knows the secret.
    ///
    /// # Errors
    /// The caller has not proved it.
    fn admit<T>(&self, request: &Request<T>, purpose: Purpose) -> Result<ProvedCaller, Status>;

    /// Notes that a caller that has proved itself found no place, and returns the answer for it.
    fn full(&self, peer: IpAddr, text: String) -> Status;
}

/// A caller that has proved itself.
pub(crate) struct ProvedCaller {
    /// Address of the caller.
    pub(crate) address: IpAddr,
    /// Control secret as it counts on the caller's connection.
    pub(crate) secret: Secret,
    /// Proof of this activator, for the answer.
    pub(crate) proof: MetadataValue<Ascii>,
    /// The exchange that was proved.
    pub(crate) exchange: Exchange,
}

impl ProvedCaller {
    /// Opens what the caller has sealed for this activator; `None`: it was sealed with another key.
    fn open(&self, sealed: Vec<u8>) -> Option<Vec<u8>> {
        self.exchange.open(&self.secret, sealed)
    }

    /// The answer, with this activator's proof in its head.
    pub(crate) fn answer<T>(self, body: T) -> Response<T> {
        let mut response = Response::new(body);
        response.metadata_mut().insert(proof::METADATA, self.proof);
        response
    }
}

/// The service. `gate` judges proofs; `cluster` has the facts to tell; `handler` carries out requests of the API; at `stop` followers hear a
/// goodbye.
pub(crate) fn server<G: Gate>(
    gate: Arc<G>,
    cluster: Cluster,
    handler: RequestHandler,
    stop: CancellationToken,
) -> PeersServer<PeersService<G>> {
    let places = Arc::new(Semaphore::new(MAX_FOLLOWERS));
    PeersServer::new(PeersService { gate, cluster, handler, stop, places }).max_decoding_message_size(MAX_ACT)
}

pub(crate) struct PeersService<G> {
    gate: Arc<G>,
    cluster: Cluster,
    handler: RequestHandler,
    stop: CancellationToken,
    places: Arc<Semaphore>,
}

#[tonic::async_trait]
impl<G: Gate> Peers for PeersService<G> {
    type FollowStream = ReceiverStream<Result<Says, Status>>;

    async fn follow(&self, request: Request<Hello>) -> Result<Response<Self::FollowStream>, Status> {
        let admitted = self.gate.admit(&request, Purpose::Follow)?;
        let address = admitted.address;
        let Some(me) = self.cluster.peers().map(|peers| peers.me().clone()) else {
            return Err(Status::unimplemented("this activator is alone: set ACTIVATOR_PEERS"));
        };
        let full = |_| self.gate.full(address, format!("{MAX_FOLLOWERS} activators follow us, as many as can"));
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(full)?;
        let hello = request.into_inner();
        if let Some(at) = me
            .find(address, u16::try_from(hello.control_port).unwrap_or_default())
            .filter(|_| hello.activator != me.name)
        {
            self.cluster.met(at);
        }
        let (messages, unsent) = mpsc::channel(UNSENT);
        let (cluster, stop) = (self.cluster.clone(), self.stop.clone());
        let own_port = if me.shares_ports { me.control.port() } else { 0 };
        let welcome = Welcome { activator: me.name, control_port: own_port.into(), started: me.started };
        tokio::spawn(async move {
            let _place = place;
            let follower = Follower { messages: messages.clone(), cluster };
            tokio::select! {
                _ = follower.tell(welcome) => {}
                () = stop.cancelled() => {
                    let _ = messages.send(said(Say::Goodbye(Goodbye {}))).await;
                }
            }
        });
        Ok(admitted.answer(ReceiverStream::new(unsent)))
    }

    async fn act(&self, request: Request<Sealed>) -> Result<Response<Acted>, Status> {
        let admitted = self.gate.admit(&request, Purpose::Act)?;
        let content = admitted.open(request.into_inner().content);
        let content = content.ok_or_else(|| Status::unauthenticated("the request is not sealed for this activator"))?;
        let request: ForwardedRequest =
            serde_json::from_slice(&content).map_err(|_| Status::invalid_argument("the request cannot be read"))?;
        let ForwardedAnswer { status, body } = (self.handler.0)(&request);
        Ok(admitted.answer(Acted { status: status.into(), body }))
    }
}

struct Follower {
    messages: mpsc::Sender<Result<Says, Status>>,
    cluster: Cluster,
}

/// The follower has ended its call.
struct FollowerGone;

impl Follower {
    async fn tell(self, welcome: Welcome) -> Result<(), FollowerGone> {
        let mut changes = self.cluster.changes();
        let mut told = FollowerView::default();
        self.say(Say::Welcome(welcome)).await?;
        let mut first = Some(Say::Synced(Synced {}));
        let mut acts = false;
        loop {
            changes.mark_unchanged();
            let able = self.cluster.acts();
            let acting = (std::mem::replace(&mut acts, able) != able).then_some(Say::Acts(able));
            let news = self.cluster.news.news(&mut told);
            for say in news.into_iter().map(changed).chain(acting).chain(first.take()) {
                self.say(say).await?;
            }
            sleep(PAUSE).await;
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| FollowerGone)?,
                () = self.messages.closed() => return Err(FollowerGone),
            }
        }
    }

    async fn say(&self, say: Say) -> Result<(), FollowerGone> {
        self.messages.send(said(say)).await.map_err(|_| FollowerGone)
    }
}

fn said(say: Say) -> Result<Says, Status> {
    Ok(Says { say: Some(say) })
}

fn changed(change: PeerChange) -> Say {
    match change {
        PeerChange::Held(number, held) => Say::Held(Held {
            number,
            identities: held.identities.iter().map(|identity| identity.0.to_vec()).collect(),
            app: held.app,
            entered: held.entered,
            waiting: held.waiting,
            provided: held.provided,
            worker: held.worker,
            epoch: held.epoch,
            stream_id: held.stream.id,
            publisher: held.stream.publisher,
            client: held.stream.client.map(|client| client.to_string()).unwrap_or_default(),
        }),
        PeerChange::Gone(number) => Say::Gone(number),
        PeerChange::Worker(name, worker) => Say::Worker(told_worker(name, worker)),
        PeerChange::WorkerGone(name) => Say::WorkerGone(name),
    }
}

fn told_worker(name: String, worker: WorkerTally) -> Worker {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Worker {
        name,
        draining: worker.draining,
        cordoned: worker.cordoned,
        leaving: worker.leaving,
        room: count(worker.room),
        streams: worker.streams.into_iter().map(|(app, streams)| (app, count(streams))).collect(),
    }
}
