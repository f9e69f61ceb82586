//! For tests: an activator's side of control and handoff, in process, and streams to give away.
#![expect(clippy::disallowed_methods, reason = "tests: tasks, and a deadline that turns a hang into a failure")]

pub(crate) mod control;

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use liveedgecast_common::control::{Offer, Welcome};
use liveedgecast_common::handoff::preface::{Step, TOKEN_BYTES};
use liveedgecast_common::handoff::{
    ActivatorSide, Assignment, Frame, Policy, PrefaceError, SessionKeys, Snapshot, Transport,
};
use liveedgecast_common::key::{AppName, Identity, Secret, StreamId, StreamKey};
use liveedgecast_common::random;
use liveedgecast_common::rtmp::server::ServerSession;
use liveedgecast_common::sys::ring_memory::MIN_RING_BYTES;
use liveedgecast_common::sys::{RingMemory, UnmappedRing, send_with_fds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::receive::{Detached, FetchedRing, FetchedStream, HandoffError, HandoffStream};

/// Longest wait of a test. Never reached when it passes.
const HANG: Duration = Duration::from_secs(30);

/// Fails instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("it hangs")
}

pub(crate) fn secret() -> Secret {
    Secret::new("0123456789abcdef")
}

/// An assignment of a stream that was not started; its own identity is made from `key`.
pub(crate) fn assignment(id: &str, key: &str, transport: Transport) -> Assignment {
    let (app, key) = (AppName::parse("live").unwrap(), StreamKey::parse(key).unwrap());
    Assignment {
        stream_id: StreamId(id.to_owned()),
        epoch: 1,
        activator: "a".to_owned(),
        client: SocketAddr::from(([127, 0, 0, 1], 5)),
        identities: vec![Identity::of_stream(&secret(), &app, &key)],
        app,
        key,
        destinations: Vec::new(),
        policy: Policy {
            hold_left: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            replay_time: Duration::from_secs(4),
            replay_bytes: u64::try_from(MIN_RING_BYTES).unwrap(),
            lag_time: Duration::from_secs(2),
            lag_bytes: 1 << 20,
        },
        transport,
        resumed: false,
        snapshot: Snapshot { session: ServerSession::new(3073).state(), stream: None, unread: Vec::new() },
    }
}

pub(crate) fn offer(assignment: &Assignment, token: [u8; TOKEN_BYTES]) -> Offer {
    Offer {
        stream_id: assignment.stream_id.0.clone(),
        epoch: assignment.epoch,
        token,
        descriptor: assignment.transport == Transport::Descriptor,
        known: false,
        challenge: None,
    }
}

/// A publisher's connection: the activator's end, and the publisher's.
pub(crate) async fn publisher() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (accepted, client) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    (accepted.unwrap().0.into_std().unwrap().into(), client.unwrap())
}

pub(crate) fn memory() -> OwnedFd {
    RingMemory::create(MIN_RING_BYTES).unwrap()
}

/// A fetched stream, and the activator's end of it.
pub(crate) async fn fetched_stream(assignment: Assignment) -> (FetchedStream, HandoffStream) {
    let keys = keys();
    let (theirs, ours) = UnixStream::pair().unwrap();
    let connection: Detached = HandoffStream::new(ours, keys.worker_end()).detach().unwrap();
    let ring = FetchedRing::Unmapped(UnmappedRing::check(memory()).unwrap());
    let activator = HandoffStream::new(theirs, keys.activator_end());
    (FetchedStream { assignment, connection, publisher: None, ring }, activator)
}

/// Session keys, as a preface makes them.
pub(crate) fn keys() -> SessionKeys {
    let (mut worker, hello) =
        liveedgecast_common::handoff::WorkerSide::new(&secret(), random::bytes(), random::bytes());
    let mut activator = ActivatorSide::new(&secret(), random::bytes());
    let answer = activator.handle(&hello).output;
    let proof = worker.handle(&answer).output;
    match activator.handle(&proof).step {
        Step::Done(keys) => keys,
        other => panic!("{other:?}"),
    }
}

/// The listener at which workers dial for their streams.
pub(crate) enum Desk {
    Unix(UnixListener, String),
    Tcp(TcpListener),
}

impl Desk {
    pub(crate) fn unix() -> Self {
        let name = format!("liveedgecast-test-{}", StreamId::from_bytes(random::bytes()));
        Self::Unix(UnixListener::bind(format!("\0{name}")).unwrap(), name)
    }

    pub(crate) async fn tcp() -> Self {
        Self::Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// The activator's `Welcome`.
    pub(crate) fn welcome(&self) -> Welcome {
        let (handoff_socket, link_port) = match self {
            Self::Unix(_, name) => (name.clone(), 0),
            Self::Tcp(listener) => (String::new(), listener.local_addr().unwrap().port()),
        };
        Welcome { activator: "a".to_owned(), handoff_socket, link_port, counters: true, totals: true }
    }

    pub(crate) async fn accept(&self) -> Caller {
        match self {
            Self::Unix(listener, _) => Caller::Unix(soon(listener.accept()).await.unwrap().0),
            Self::Tcp(listener) => Caller::Tcp(soon(listener.accept()).await.unwrap().0),
        }
    }
}

/// A worker that dialed in.
pub(crate) enum Caller {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Caller {
    pub(crate) async fn read(&mut self, bytes: &mut [u8]) -> usize {
        match self {
            Self::Unix(socket) => soon(socket.read(bytes)).await.unwrap_or(0),
            Self::Tcp(socket) => soon(socket.read(bytes)).await.unwrap_or(0),
        }
    }

    /// Writes the bytes; no error when the worker has hung up.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = match self {
            Self::Unix(socket) => socket.write_all(bytes).await,
            Self::Tcp(socket) => socket.write_all(bytes).await,
        };
    }

    /// Runs the preface, in pieces of this size. Returns the keys, and the token that was shown.
    pub(crate) async fn prove(
        &mut self,
        secret: &Secret,
        piece: usize,
    ) -> Result<(SessionKeys, [u8; TOKEN_BYTES]), PrefaceError> {
        let mut side = ActivatorSide::new(secret, random::bytes());
        let mut bytes = vec![0; 4096];
        loop {
            let read = self.read(&mut bytes).await;
            assert_ne!(read, 0, "the worker hung up");
            let progress = side.handle(&bytes[..read]);
            for piece in progress.output.chunks(piece) {
                self.write(piece).await;
            }
            match progress.step {
                Step::More => {}
                Step::Done(keys) => return Ok((keys, side.token().unwrap())),
                Step::Failed(error) => return Err(error),
            }
        }
    }

    /// Sends the first frame with its descriptors; then the connection is framed.
    pub(crate) async fn give(self, keys: &SessionKeys, frame: Frame, fds: &[BorrowedFd<'_>]) -> HandoffStream {
        let (reader, mut writer) = keys.activator_end();
        let mut bytes = Vec::new();
        writer.write(&mut bytes, &frame).unwrap();
        match self {
            Self::Unix(socket) => {
                let _ = send_with_fds(&socket, &bytes, fds).await;
                HandoffStream::new(socket, (reader, writer))
            }
            Self::Tcp(mut socket) => {
                assert!(fds.is_empty());
                let _ = socket.write_all(&bytes).await;
                HandoffStream::new(socket, (reader, writer))
            }
        }
    }

    /// Hands a stream over, as an activator does.
    pub(crate) async fn hand_over(mut self, assignment: Assignment) -> (HandoffStream, Option<TcpStream>) {
        let (keys, _) = self.prove(&secret(), usize::MAX).await.unwrap();
        if assignment.transport == Transport::Link {
            return (self.give(&keys, Frame::Assign(Box::new(assignment)), &[]).await, None);
        }
        let ((held, client), memory) = (publisher().await, memory());
        let fds = [held.as_fd(), memory.as_fd()];
        (self.give(&keys, Frame::Assign(Box::new(assignment)), &fds).await, Some(client))
    }
}

pub(crate) async fn frame(stream: &mut HandoffStream) -> Result<Frame, HandoffError> {
    soon(std::future::poll_fn(|cx| stream.poll_frame(cx))).await
}

pub(crate) async fn say(stream: &mut HandoffStream, frame: &Frame) {
    stream.queue(frame).unwrap();
    soon(std::future::poll_fn(|cx| stream.poll_flush(cx))).await.unwrap();
}
