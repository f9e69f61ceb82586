//! An activator's control listener: a real gRPC server that checks proofs.
#![expect(clippy::disallowed_methods, reason = "tests: tasks and a clock")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use liveedgecast_common::control::activator_says::Say as ActivatorSay;
use liveedgecast_common::control::control_server::{Control, ControlServer};
use liveedgecast_common::control::session::State;
use liveedgecast_common::control::worker_says::Say;
use liveedgecast_common::control::{ActivatorSays, Activators, Hello, Session, Stranger, Welcome, WorkerSays};
use liveedgecast_common::handoff::{Decline, Frame};
use liveedgecast_common::key::Secret;
use liveedgecast_common::proof;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{JoinHandle, spawn_local};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Response, Status, Streaming};

use super::{secret, soon};
use crate::engine::Start;
use crate::receive::HandoffStream;
use crate::stream::{Command, Incoming, Publisher, Report};

/// One worker's call, seen from the activator.
pub(crate) struct Incall {
    says: Streaming<WorkerSays>,
    answers: Sender<Result<ActivatorSays, Status>>,
}

impl Incall {
    pub(crate) async fn next(&mut self) -> Option<Say> {
        soon(self.says.message()).await.ok().flatten().and_then(|says| says.say)
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.next().await {
            Some(Say::Hello(hello)) => hello,
            other => panic!("{other:?} before Hello"),
        }
    }

    pub(crate) async fn say(&self, say: ActivatorSay) {
        soon(self.answers.send(Ok(ActivatorSays { say: Some(say) }))).await.unwrap();
    }

    /// Reads on until it says something like this.
    pub(crate) async fn until<T>(&mut self, mut find: impl FnMut(Say) -> Option<T>) -> T {
        loop {
            let say = self.next().await.expect("the worker hung up");
            if let Some(found) = find(say) {
                return found;
            }
        }
    }

    pub(crate) async fn session(&mut self, stream_id: &str, state: State) -> Session {
        self.until(|say| match say {
            Say::Session(session) if session.stream_id == stream_id && session.state() == state => Some(session),
            _ => None,
        })
        .await
    }
}

pub(crate) struct Service {
    secret: Secret,
    calls: Sender<Incall>,
    /// The one activator that it tells of.
    tells_of: SocketAddr,
}

#[tonic::async_trait]
impl Control for Service {
    type JoinStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<ActivatorSays, Status>> + Send>>;

    async fn join(&self, request: tonic::Request<Streaming<WorkerSays>>) -> Result<Response<Self::JoinStream>, Status> {
        let value = request.metadata().get(proof::METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        proof::verify(self.secret.expose().as_bytes(), value, unix)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let (answers, out) = mpsc::channel(16);
        let call = Incall { says: request.into_inner(), answers };
        self.calls.send(call).await.map_err(|_| Status::unavailable("going down"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }

    async fn introduce(&self, _: tonic::Request<Stranger>) -> Result<Response<Activators>, Status> {
        Ok(Response::new(Activators { addresses: vec![self.tells_of.to_string()] }))
    }
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
        Self::serve(listener, address)
    }

    /// One that is only asked where this one is.
    pub(crate) fn introducing(other: SocketAddr) -> Self {
        Self::serve(liveedgecast_common::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap(), other)
    }

    fn serve(listener: TcpListener, tells_of: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let (calls, incoming) = mpsc::channel(4);
        let service = ControlServer::new(Service { secret: secret(), calls, tells_of });
        let server = tonic::transport::Server::builder().add_service(service);
        let server = tokio::spawn(async move {
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Self { address, calls: incoming, server }
    }

    pub(crate) async fn call(&mut self) -> Incall {
        soon(self.calls.recv()).await.unwrap()
    }

    /// It dies: nobody listens any more.
    pub(crate) async fn die(self) {
        self.server.abort();
        let _ = self.server.await;
    }

    /// A worker that is welcome.
    pub(crate) async fn joined(&mut self, welcome: Welcome) -> (Incall, Hello) {
        let mut call = self.call().await;
        let hello = call.hello().await;
        call.say(ActivatorSay::Welcome(welcome)).await;
        (call, hello)
    }
}

/// A stream that lives until it is kicked or handed back; with the key `stubborn`, until it is kicked.
pub(crate) fn tiny() -> Start {
    Arc::new(|mut incoming: Incoming, reports| {
        let (sender, mut commands) = mpsc::channel(2);
        spawn_local(async move {
            let control: &mut HandoffStream = match &mut incoming.publisher {
                Publisher::Descriptor { control, .. } | Publisher::Link { control } => control,
            };
            let _ = control.queue(&Frame::Accepted);
            let _ = std::future::poll_fn(|cx| control.poll_flush(cx)).await;
            let stream_id = incoming.assignment.stream_id.clone();
            let mut session =
                Session { stream_id: stream_id.0.clone(), state: State::Live.into(), epoch: 1, ..Session::default() };
            let _ = reports.send(Report::Session(session.clone())).await;
            let stubborn = incoming.assignment.key.expose() == "stubborn";
            loop {
                match commands.recv().await {
                    Some(Command::HandBack) if stubborn => {}
                    Some(Command::HandBack) => {
                        let _ = control.queue(&Frame::Returned { why: Decline::Moving });
                        let _ = std::future::poll_fn(|cx| control.poll_flush(cx)).await;
                        break;
                    }
                    Some(Command::Kick(reason)) => {
                        session.reason = reason;
                        break;
                    }
                    _ => break,
                }
            }
            session.state = State::Ended.into();
            let _ = reports.send(Report::Session(session)).await;
            let _ = reports.send(Report::Ended { stream_id }).await;
        });
        sender
    })
}
