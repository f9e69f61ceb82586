//! An activator's control listener: a real gRPC server that checks proofs.
#![expect(clippy::disallowed_methods, reason = "tests: tasks and a clock")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use liveedgecast_common::control::totals::{FAMILIES, Total, TotalFamily, TotalKey};
use liveedgecast_common::control::wire::control_server::{Control, ControlServer};
use liveedgecast_common::control::wire::{ActivatorSays, Activators, Challenge, Greeting, Stranger, WorkerSays};
use liveedgecast_common::control::{ActivatorMessage, Hello, Session, SessionState, Welcome, WorkerMessage};
use liveedgecast_common::handoff::{Decline, Frame};
use liveedgecast_common::key::Secret;
use liveedgecast_common::proof::{self, Exchange, Purpose};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{JoinHandle, spawn_local};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Response, Status, Streaming};

use super::{secret, soon};
use crate::engine::StartStream;
use crate::receive::HandoffStream;
use crate::stream::{IncomingStream, PublisherHandoff, Report, StreamCommand};

/// A worker's call, seen from the activator.
pub(crate) struct Incall {
    says: Streaming<WorkerSays>,
    /// The worker's metrics, as its activator shows them.
    totals: HashMap<TotalKey, Total>,
    answers: Sender<Result<ActivatorSays, Status>>,
}

impl Incall {
    pub(crate) async fn next(&mut self) -> Option<WorkerMessage> {
        let says = soon(self.says.message()).await.ok().flatten();
        let said = says.and_then(|says| says.say).map(|say| WorkerMessage::try_from(say).unwrap());
        if let Some(WorkerMessage::Totals(rows)) = &said {
            rows.iter().for_each(|(key, total)| self.add(key, total));
        }
        said
    }

    fn add(&mut self, key: &TotalKey, total: &Total) {
        match self.totals.get_mut(key).filter(|_| !Total::is_momentary(FAMILIES[key.family].kind)) {
            Some(known) => known.add(total),
            None => drop(self.totals.insert(key.clone(), total.clone())),
        }
    }

    /// The value of a metric of the worker so far, or its number of observations; `label`: the value of its label, empty for none.
    pub(crate) fn counted(&self, name: &str, label: &str) -> u64 {
        let (family, _) = TotalFamily::named(name).unwrap();
        let labels = Some(label).filter(|label| !label.is_empty()).map(str::to_owned).into_iter().collect();
        match self.totals.get(&TotalKey { family, labels }) {
            Some(Total::Number(number)) => format!("{number:.0}").parse().unwrap(),
            Some(Total::Histogram { count, .. }) => *count,
            None => 0,
        }
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.next().await {
            Some(WorkerMessage::Hello(hello)) => hello,
            other => panic!("{other:?} before Hello"),
        }
    }

    pub(crate) async fn say(&self, message: ActivatorMessage) {
        soon(self.answers.send(Ok(message.into()))).await.unwrap();
    }

    /// Says the same to a worker that may have hung up.
    pub(crate) async fn try_say(&self, message: ActivatorMessage) {
        let _ = self.answers.send(Ok(message.into())).await;
    }

    /// Reads on until it says something like this.
    pub(crate) async fn until<T>(&mut self, mut find: impl FnMut(WorkerMessage) -> Option<T>) -> T {
        loop {
            let say = self.next().await.expect("the worker hung up");
            if let Some(found) = find(say) {
                return found;
            }
        }
    }

    pub(crate) async fn session(&mut self, stream_id: &str, state: SessionState) -> Session {
        self.until(|say| match say {
            WorkerMessage::Session(session) if session.stream_id == stream_id && session.state == state => {
                Some(session)
            }
            _ => None,
        })
        .await
    }
}

/// The kind of activator.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Honest,
    /// An impostor, which does not know the secret: it accepts every proof, and shows this one.
    Impostor(Shown),
}

/// The proof of an impostor.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Shown {
    Nothing,
    AnotherSecrets,
    /// The one that it was sent.
    Callers,
}

pub(crate) struct Service {
    secret: Secret,
    kind: Kind,
    /// The exchanges of connections, by the caller's address.
    greeted: Mutex<HashMap<SocketAddr, Exchange>>,
    calls: Sender<Incall>,
    /// The one activator that it tells of.
    tells_of: SocketAddr,
}

#[tonic::async_trait]
impl Control for Service {
    type JoinStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<ActivatorSays, Status>> + Send>>;

    async fn join(&self, request: tonic::Request<Streaming<WorkerSays>>) -> Result<Response<Self::JoinStream>, Status> {
        let proof = self.prove(&request, Purpose::Join)?;
        let (answers, out) = mpsc::channel(16);
        let call = Incall { says: request.into_inner(), totals: HashMap::new(), answers };
        self.calls.send(call).await.map_err(|_| Status::unavailable("going down"))?;
        let says: Self::JoinStream = Box::pin(ReceiverStream::new(out));
        Ok(answer(says, &proof))
    }

    async fn greet(&self, request: tonic::Request<Greeting>) -> Result<Response<Challenge>, Status> {
        let caller = request.get_ref().nonce.as_slice().try_into().unwrap();
        let challenge = liveedgecast_common::random::bytes();
        let exchange = Exchange { purpose: Purpose::Join, caller, challenge, activator: "a".into() };
        self.greeted.lock().unwrap().insert(request.remote_addr().unwrap(), exchange);
        Ok(Response::new(Challenge { nonce: challenge.to_vec(), activator: "a".into() }))
    }

    async fn introduce(&self, request: tonic::Request<Stranger>) -> Result<Response<Activators>, Status> {
        let proof = self.prove(&request, Purpose::Introduce)?;
        Ok(answer(Activators { addresses: vec![self.tells_of.to_string()] }, &proof))
    }
}

impl Service {
    /// Checks the caller's proof, if it can; returns this side's proof.
    fn prove<T>(&self, request: &tonic::Request<T>, purpose: Purpose) -> Result<String, Status> {
        let shown = request.metadata().get(proof::METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let exchange = self.greeted.lock().unwrap().remove(&request.remote_addr().unwrap());
        let exchange = Exchange { purpose, ..exchange.ok_or_else(|| Status::aborted("not greeted"))? };
        match self.kind {
            Kind::Honest => {
                let judged = exchange.judge_caller(&self.secret, shown);
                judged.map_err(|error| Status::unauthenticated(error.to_string()))?;
                Ok(exchange.activator_proof(&self.secret))
            }
            Kind::Impostor(Shown::Nothing) => Ok(String::new()),
            Kind::Impostor(Shown::AnotherSecrets) => Ok(exchange.activator_proof(&Secret::new("another"))),
            Kind::Impostor(Shown::Callers) => Ok(shown.to_owned()),
        }
    }
}

fn answer<T>(body: T, proof: &str) -> Response<T> {
    let mut response = Response::new(body);
    response.metadata_mut().insert(proof::METADATA, proof.parse().unwrap());
    response
}

/// An activator that can die.
pub(crate) struct Activator {
    pub(crate) address: SocketAddr,
    calls: Receiver<Incall>,
    server: JoinHandle<()>,
}

impl Activator {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = liveedgecast_common::listen::listen(address).unwrap();
        let address = listener.local_addr().unwrap();
        Self::serve(listener, address, Kind::Honest)
    }

    /// Starts an activator that does not know the secret.
    pub(crate) fn impostor(shown: Shown) -> Self {
        let listener = liveedgecast_common::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        Self::serve(listener, address, Kind::Impostor(shown))
    }

    /// Starts an introducer, which only tells where this activator is.
    pub(crate) fn introducing(other: SocketAddr) -> Self {
        Self::introducing_as(other, Kind::Honest)
    }

    /// Starts an introducer that may be none of ours.
    pub(crate) fn introducing_as(other: SocketAddr, kind: Kind) -> Self {
        Self::serve(liveedgecast_common::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap(), other, kind)
    }

    fn serve(listener: TcpListener, tells_of: SocketAddr, kind: Kind) -> Self {
        let address = listener.local_addr().unwrap();
        let (calls, incoming) = mpsc::channel(4);
        let service =
            ControlServer::new(Service { secret: secret(), kind, greeted: Mutex::default(), calls, tells_of });
        let server = tonic::transport::Server::builder().add_service(service);
        let server = tokio::spawn(async move {
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Self { address, calls: incoming, server }
    }

    pub(crate) async fn call(&mut self) -> Incall {
        soon(self.calls.recv()).await.unwrap()
    }

    /// Ends the activator: its port is closed.
    pub(crate) async fn die(self) {
        self.server.abort();
        let _ = self.server.await;
    }

    /// A worker that is welcome.
    pub(crate) async fn joined(&mut self, welcome: Welcome) -> (Incall, Hello) {
        let mut call = self.call().await;
        let hello = call.hello().await;
        call.say(ActivatorMessage::Welcome(welcome)).await;
        (call, hello)
    }
}

/// A stream that lives until it is kicked or handed back; with the key `stubborn`, until it is kicked.
pub(crate) fn tiny() -> StartStream {
    Arc::new(|mut incoming: IncomingStream, reports| {
        let (sender, mut commands) = mpsc::channel(2);
        spawn_local(async move {
            let control: &mut HandoffStream = match &mut incoming.publisher {
                PublisherHandoff::Descriptor { control, .. } | PublisherHandoff::Link { control } => control,
            };
            let _ = control.queue(&Frame::Accepted);
            let _ = std::future::poll_fn(|cx| control.poll_flush(cx)).await;
            let stream_id = incoming.assignment.stream_id.clone();
            let mut session =
                Session { stream_id: stream_id.0.clone(), state: SessionState::Live, epoch: 1, ..Session::default() };
            let _ = reports.send(Report::Session(session.clone())).await;
            let stubborn = incoming.assignment.key.expose() == "stubborn";
            loop {
                match commands.recv().await {
                    Some(StreamCommand::HandBack) if stubborn => {}
                    Some(StreamCommand::HandBack) => {
                        let _ = control.queue(&Frame::Returned { why: Decline::Moving });
                        let _ = std::future::poll_fn(|cx| control.poll_flush(cx)).await;
                        break;
                    }
                    Some(StreamCommand::Kick(reason)) => {
                        session.reason = reason;
                        break;
                    }
                    _ => break,
                }
            }
            session.state = SessionState::Ended;
            let _ = reports.send(Report::Session(session)).await;
            let _ = reports.send(Report::Ended { stream_id }).await;
        });
        sender
    })
}
