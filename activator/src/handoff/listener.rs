//! The listeners where workers fetch the streams that they were offered. In: connections on an abstract Unix socket and on the link listener.
//! Out: those of peers that proved to know the control secret and presented a token that a publisher's task expects. Next: `descriptor`, or
//! `link`.
//!
//! Note: anybody on the host can connect to an abstract socket, whatever the file system says, and after a restart its name could be somebody
//! else's. So the name is random, the peer's user is checked, and both sides prove themselves all the same.
#![expect(clippy::disallowed_methods, reason = "shell: accept loops and the preface's deadline")]

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as std_unix;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use liveedgecast_common::encryption::{Protection, bound_secret};
use liveedgecast_common::evicting_limit::EvictingLimit;
use liveedgecast_common::handoff::frame::{Reader, Writer};
use liveedgecast_common::handoff::preface::{NONCE_BYTES, Step, TOKEN_BYTES};
use liveedgecast_common::handoff::{ActivatorSide, PrefaceError};
use liveedgecast_common::key::Secret;
use liveedgecast_common::listen::Listener;
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::sys::ProcessHandle;
use liveedgecast_common::{clock, event, random, sys};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::limits::{MAX_GREETINGS, PREFACE_TIME};
use crate::dispatch::Token;

/// The two listeners, and the workers that are expected. Dropping the last clone closes the listeners.
#[derive(Clone)]
pub struct HandoffListener {
    shared: Arc<Expectations>,
    socket_name: Arc<str>,
    link_port: u16,
    _open: Arc<DropGuard>,
}

struct Expectations {
    secret: Secret,
    protection: Protection,
    // A lock, because a publisher's task may end at any time and its token must be forgotten then; held for one map operation.
    expected: Mutex<HashMap<[u8; TOKEN_BYTES], Expectation>>,
}

struct Expectation {
    /// Our nonce for the connections that present the token. The first one that proves itself takes the expectation with it, so no two
    /// sessions have the same keys, and a stranger that has seen the token spoils nothing.
    challenge: [u8; NONCE_BYTES],
    publisher: oneshot::Sender<HandoffConnection>,
}

impl Expectations {
    fn expected(&self) -> MutexGuard<'_, HashMap<[u8; TOKEN_BYTES], Expectation>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nonce that the offer has told, while its token is expected, and a new one for any other token.
    fn challenge(&self, token: [u8; TOKEN_BYTES]) -> [u8; NONCE_BYTES] {
        let told = self.expected().get(&token).map(|expectation| expectation.challenge);
        told.unwrap_or_else(random::bytes)
    }
}

impl HandoffListener {
    /// Opens the abstract Unix socket and serves it and `link`. Must be called in a runtime.
    ///
    /// # Errors
    /// The Unix socket cannot be bound.
    pub fn open(link: TcpListener, protection: Protection, secret: Secret) -> io::Result<Self> {
        let link_port = link.local_addr()?.port();
        let socket_name = format!("liveedgecast-{:032x}", u128::from_be_bytes(random::bytes()));
        let unix = std_unix::UnixListener::bind_addr(&std_unix::SocketAddr::from_abstract_name(&socket_name)?)?;
        unix.set_nonblocking(true)?;
        let unix = UnixListener::from_std(unix)?;

        let shared = Arc::new(Expectations { secret, protection, expected: Mutex::default() });
        let closed = CancellationToken::new();
        tokio::spawn(serve(unix.into(), Arc::clone(&shared), closed.clone()));
        tokio::spawn(serve(link.into(), Arc::clone(&shared), closed.clone()));
        Ok(Self { shared, socket_name: socket_name.into(), link_port, _open: Arc::new(closed.drop_guard()) })
    }

    /// The connection of the worker that will present `token`. Dropping it forgets the token; its owner sets the deadline.
    pub fn expect(&self, token: Token) -> ExpectedWorker {
        let (publisher, receiver) = oneshot::channel();
        let Token { presented: token, challenge } = token;
        self.shared.expected().insert(token, Expectation { challenge, publisher });
        ExpectedWorker { token, receiver: Some(receiver), shared: Arc::clone(&self.shared) }
    }

    /// Name of the abstract Unix socket, without its leading NUL, for [`liveedgecast_common::control::Welcome`].
    pub fn socket_name(&self) -> String {
        self.socket_name.as_ref().to_owned()
    }

    /// Port of the link listener.
    pub fn link_port(&self) -> u16 {
        self.link_port
    }
}

/// A worker that is expected.
pub struct ExpectedWorker {
    token: [u8; TOKEN_BYTES],
    /// `None` once another task expects the same token: no worker will come here.
    receiver: Option<oneshot::Receiver<HandoffConnection>>,
    shared: Arc<Expectations>,
}

impl Future for ExpectedWorker {
    type Output = HandoffConnection;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<HandoffConnection> {
        let Some(receiver) = &mut self.receiver else { return Poll::Pending };
        match Pin::new(receiver).poll(cx) {
            Poll::Ready(Ok(connection)) => Poll::Ready(connection),
            Poll::Ready(Err(_)) => {
                self.receiver = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for ExpectedWorker {
    fn drop(&mut self) {
        self.receiver = None;
        let mut expected = self.shared.expected();
        if expected.get(&self.token).is_some_and(|expectation| expectation.publisher.is_closed()) {
            expected.remove(&self.token);
        }
    }
}

/// The connection of a worker that has proved itself.
pub struct HandoffConnection {
    pub(crate) wire: PeerSocket,
    /// The end of the preface, which is to be written before everything else: it goes out together with the assignment.
    pub(crate) preface: Vec<u8>,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// The worker's process, if the worker has passed a handle of it.
    pub(crate) process: Option<ProcessHandle>,
}

/// The accept loop of one listener. It awaits no peer: each is greeted in a task of its own.
async fn serve(listener: Listener, shared: Arc<Expectations>, closed: CancellationToken) {
    let limit = EvictingLimit::new(MAX_GREETINGS);
    loop {
        let (wire, peer) = tokio::select! {
            () = closed.cancelled() => return,
            accepted = listener.accept("handoff") => accepted,
        };
        let (shared, closed, slot) = (Arc::clone(&shared), closed.clone(), limit.enter());
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = slot.lost() => debug!(event = event::HANDOFF_PEER_REFUSED, "connection closed: too many have not proved themselves"),
                () = greet(wire, peer.ip(), &shared) => {}
            }
        });
    }
}

/// Limits the lines about peers that fail to prove themselves: anybody who can connect can cause one.
static MISTAKES: LogLimiter = LogLimiter::new(Duration::from_secs(1));

/// The reason for which a connection is closed before it is a worker's.
#[derive(Debug, thiserror::Error)]
enum PeerRefusal {
    #[error("it runs as user {0}, not as this one")]
    User(u32),
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    #[error("nobody expects its token any more")]
    Token,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it did not prove itself in {} s", PREFACE_TIME.as_secs())]
    Slow,
}

async fn greet(wire: PeerSocket, peer: IpAddr, shared: &Arc<Expectations>) {
    let greeted = match tokio::time::timeout(PREFACE_TIME, listen(wire, peer, shared)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(PeerRefusal::Slow),
    };
    match greeted {
        Ok(()) => {}
        // A mistake of configuration, most likely: its operator should see it.
        Err(why @ PeerRefusal::Preface(PrefaceError::Version { .. } | PrefaceError::Proof))
            if MISTAKES.is_due(clock::now()) =>
        {
            warn!(event = event::HANDOFF_PEER_REFUSED, %why, "worker refused");
        }
        Err(why) => debug!(event = event::HANDOFF_PEER_REFUSED, %why, "connection refused"),
    }
}

async fn listen(wire: PeerSocket, peer: IpAddr, shared: &Arc<Expectations>) -> Result<(), PeerRefusal> {
    let mut wire = match wire {
        PeerSocket::Unix(stream) => {
            let uid = sys::peer(&stream)?.uid;
            if uid != 0 && uid != rustix::process::geteuid().as_raw() {
                return Err(PeerRefusal::User(uid));
            }
            PeerSocket::Unix(stream)
        }
        PeerSocket::Tcp(stream) => shared.protection.accept(stream, peer).await?,
        PeerSocket::Tls(stream) => PeerSocket::Tls(stream),
    };
    let mut passed = Vec::new();
    let Proved { token, preface, reader, writer } = prove(&mut wire, &mut passed, shared).await?;
    let process = passed.pop().and_then(|pidfd| ProcessHandle::passed(pidfd).ok());
    let Expectation { publisher, .. } = shared.expected().remove(&token).ok_or(PeerRefusal::Token)?;
    publisher.send(HandoffConnection { wire, preface, reader, writer, process }).map_err(|_| PeerRefusal::Token)
}

/// A worker that has proved itself, and our own proof for it.
struct Proved {
    token: [u8; TOKEN_BYTES],
    preface: Vec<u8>,
    reader: Reader,
    writer: Writer,
}

async fn prove(
    wire: &mut PeerSocket,
    passed: &mut Vec<OwnedFd>,
    shared: &Arc<Expectations>,
) -> Result<Proved, PeerRefusal> {
    let offers = Arc::clone(shared);
    let secret = bound_secret(&shared.secret, wire)?;
    let mut side = ActivatorSide::challenging(&secret, move |token| offers.challenge(token));
    let mut input = [0; 256];
    loop {
        let read = wire.recv_with_fds(&mut input, passed).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let progress = side.handle(&input[..read]);
        if let Step::Done(keys) = progress.step {
            let token = side.token().ok_or(PeerRefusal::Token)?;
            let (mut reader, writer) = keys.activator_end();
            reader.buffer().extend_from_slice(&input[progress.used..read]);
            return Ok(Proved { token, preface: progress.output, reader, writer });
        }
        if !progress.output.is_empty() {
            wire.write_all(&progress.output).await?;
            wire.flush().await?;
        }
        if let Step::Failed(error) = progress.step {
            return Err(error.into());
        }
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
