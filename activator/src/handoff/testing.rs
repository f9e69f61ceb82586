//! Support for tests of handoffs: keys, snapshots, assignments, and the worker's end of a connection.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as std_unix;
use std::time::Duration;

use liveedgecast_common::handoff::frame::{Reader, Writer};
use liveedgecast_common::handoff::preface::Step;
use liveedgecast_common::handoff::{
    ActivatorSide, Assignment, Frame, Policy, SessionKeys, Snapshot, Transport, WorkerSide,
};
use liveedgecast_common::key::{AppName, Identity, Secret, StreamId, StreamKey};
use liveedgecast_common::random;
use liveedgecast_common::rtmp::server::ServerSession;
use liveedgecast_common::socket::PeerSocket;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::HandoffListener;

/// Session keys as a preface makes them.
pub(crate) fn keys() -> SessionKeys {
    let secret = Secret::new("secret");
    let (mut worker, hello) = WorkerSide::new(&secret, [1; 16], [2; 32]);
    let mut activator = ActivatorSide::new(&secret, [3; 32]);
    let answer = activator.handle(&hello).output;
    let proof = worker.handle(&answer).output;
    match activator.handle(&proof).step {
        Step::Done(keys) => keys,
        other => panic!("{other:?}"),
    }
}

/// A session that has read nothing but the handshake, as of a position.
pub(crate) fn snapshot(position: u64) -> Snapshot {
    Snapshot { session: ServerSession::new(position).state(), stream: None, unread: Vec::new() }
}

/// A stream without a destination.
pub(crate) fn assignment(transport: Transport, epoch: u64, snapshot: Snapshot) -> Assignment {
    let app = AppName::parse("live").unwrap();
    let key = StreamKey::parse("alpha").unwrap();
    Assignment {
        stream_id: StreamId::from_bytes([7; 8]),
        epoch,
        activator: "test".to_owned(),
        client: "127.0.0.1:1".parse().unwrap(),
        identities: vec![Identity::of_stream(&Secret::new("secret"), &app, &key)],
        app,
        key,
        destinations: Vec::new(),
        policy: Policy {
            hold_left: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            replay_time: Duration::from_secs(4),
            replay_bytes: 8 << 20,
            lag_time: Duration::from_secs(2),
            lag_bytes: 8 << 20,
        },
        transport,
        resumed: false,
        snapshot,
    }
}

/// A worker's end of a handoff connection.
pub(crate) struct WorkerEnd {
    wire: PeerSocket,
    reader: Reader,
    writer: Writer,
    pub(crate) fds: Vec<OwnedFd>,
}

impl WorkerEnd {
    /// Dials the listener and proves itself.
    pub(crate) async fn dial(listener: &HandoffListener, secret: &Secret, token: [u8; 16], descriptor: bool) -> Self {
        Self::try_dial(listener, secret, token, descriptor).await.expect("an answer to the proof")
    }

    /// Dials the listener and proves itself; `None`: the connection ends before the listener's own proof.
    pub(crate) async fn try_dial(
        listener: &HandoffListener,
        secret: &Secret,
        token: [u8; 16],
        descriptor: bool,
    ) -> Option<Self> {
        if descriptor {
            return Self::try_socket(&listener.socket_name(), secret, token).await;
        }
        let stream = TcpStream::connect(("127.0.0.1", listener.link_port())).await.unwrap();
        Self::prove(PeerSocket::Tcp(stream), secret, token).await
    }

    /// Dials an abstract socket by its name and proves itself.
    pub(crate) async fn dial_socket(name: &str, secret: &Secret, token: [u8; 16]) -> Self {
        Self::try_socket(name, secret, token).await.expect("an answer to the proof")
    }

    async fn try_socket(name: &str, secret: &Secret, token: [u8; 16]) -> Option<Self> {
        let address = std_unix::SocketAddr::from_abstract_name(name).unwrap();
        let stream = std_unix::UnixStream::connect_addr(&address).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self::prove(PeerSocket::Unix(UnixStream::from_std(stream).unwrap()), secret, token).await
    }

    async fn prove(wire: PeerSocket, secret: &Secret, token: [u8; 16]) -> Option<Self> {
        let (mut side, hello) = WorkerSide::new(secret, token, random::bytes());
        // Replaced by the session's own keys when the preface is done.
        let (reader, writer) = keys().worker_end();
        let mut end = Self { wire, reader, writer, fds: Vec::new() };
        let mut output = hello;
        loop {
            end.write(&output).await;
            let mut input = [0; 256];
            let read = end.read(&mut input).await;
            if read == 0 {
                return None;
            }
            let progress = side.handle(&input[..read]);
            output = progress.output;
            match progress.step {
                Step::More => {}
                Step::Done(keys) => {
                    (end.reader, end.writer) = keys.worker_end();
                    end.reader.buffer().extend_from_slice(&input[progress.used..read]);
                    return Some(end);
                }
                Step::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// Writes one frame.
    pub(crate) async fn say(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        self.writer.write(&mut bytes, &frame).unwrap();
        self.write(&bytes).await;
    }

    /// The next frame; `None` is the end of the connection.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next().unwrap() {
                return Some(frame);
            }
            let mut input = [0; 4096];
            match self.read(&mut input).await {
                0 => return None,
                read => self.reader.buffer().extend_from_slice(&input[..read]),
            }
        }
    }

    /// The next frame that is not a sign of life.
    pub(crate) async fn hear_news(&mut self) -> Option<Frame> {
        loop {
            match self.hear().await {
                Some(Frame::Alive) => {}
                other => return other,
            }
        }
    }

    /// The assignment, which comes first.
    pub(crate) async fn assignment(&mut self) -> Assignment {
        match self.hear().await {
            Some(Frame::Assign(assignment)) => *assignment,
            other => panic!("{other:?}"),
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        // A refused peer sees the end when it reads.
        let _ = self.wire.write_all(bytes).await;
    }

    async fn read(&mut self, bytes: &mut [u8]) -> usize {
        self.wire.recv_with_fds(bytes, &mut self.fds).await.unwrap_or(0)
    }
}
