//! The way of one stream from an activator to us: dial, prove, take. In: the offer, and what the activator said of itself.
//! Out: a [`FetchedStream`]. Next: the engine. Whatever goes wrong, the connection is closed and the activator has the stream still.
//!
//! What surprised us: descriptors that come while nobody made room for them are dropped without an error, so every read of
//! the Unix socket makes room, the preface's too.
#![expect(clippy::disallowed_methods, reason = "shell: sockets and a deadline")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use liveedgecast_common::control::{Offer, Welcome};
use liveedgecast_common::handoff::preface::{NONCE_BYTES, Step, TOKEN_BYTES};
use liveedgecast_common::handoff::{Assignment, Decline, Frame, PrefaceError, SessionKeys, Transport, WorkerSide};
use liveedgecast_common::key::Secret;
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::sys::ring_memory::{MAX_RING_BYTES, MIN_RING_BYTES};
use liveedgecast_common::sys::{self, ProcessHandle, UnmappedRing};
use liveedgecast_common::{event, handoff, random};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::connection::{Detached, HandoffError, HandoffStream};

/// From the first SYN to the whole assignment. A publisher waits at the other end: a SYN that got lost may be repeated twice,
/// and what takes longer is better tried with another worker.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a refusal may take to be written: it is a few bytes into an empty socket.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Room of one read. An assignment without media is a few KiB.
const READ_BYTES: usize = 16 << 10;
/// Descriptors of a handoff: the publisher's socket, then the ring's memory.
const DESCRIPTORS: usize = 2;

/// A stream with all that belongs to it, in no runtime.
#[derive(Debug)]
pub struct FetchedStream {
    /// Who it is and what is to be done with it.
    pub assignment: Assignment,
    /// The connection to the activator that has it.
    pub connection: Detached,
    /// The publisher's socket, by descriptor.
    pub publisher: Option<std::net::TcpStream>,
    /// Its ring: the one that came along, or a new one.
    pub ring: UnmappedRing,
}

/// Why a stream could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The activator did not say where.
    #[error("the activator offers no {0}")]
    Nowhere(&'static str),
    /// It cannot be reached.
    #[error("cannot dial {to}: {error}")]
    Dial {
        /// Where to.
        to: String,
        /// Why.
        error: io::Error,
    },
    /// The Unix socket belongs to somebody else.
    #[error("the handoff socket belongs to user {uid}, not to root or us: who took the activator's place?")]
    Stranger {
        /// Who.
        uid: u32,
    },
    /// The connection broke, or what came on it cannot be understood.
    #[error(transparent)]
    Connection(#[from] HandoffError),
    /// It is no activator of ours.
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    /// It is the wrong stream, or not all of it.
    #[error("the activator sent {0}")]
    Unexpected(&'static str),
    /// Something is wrong on our side.
    #[error("no ring for the stream: {0}")]
    Ring(io::Error),
    /// [`FETCH_TIMEOUT`].
    #[error("nothing came within {} s", FETCH_TIMEOUT.as_secs())]
    TooLate,
}

/// The words of [`FetchError::as_str`].
pub const FAILURES: [&str; 8] =
    ["nowhere", "dial", "stranger", "connection", "preface", "unexpected", "ring", "too_late"];

impl FetchError {
    /// The word in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Nowhere(_) => "nowhere",
            Self::Dial { .. } => "dial",
            Self::Stranger { .. } => "stranger",
            Self::Connection(_) => "connection",
            Self::Preface(_) => "preface",
            Self::Unexpected(_) => "unexpected",
            Self::Ring(_) => "ring",
            Self::TooLate => "too_late",
        }
    }
}

/// Fetches an offered stream. `host`: where the activator was dialed.
///
/// # Errors
/// The stream is still the activator's, which may offer it to somebody else.
pub async fn fetch(
    secret: &Secret,
    host: SocketAddr,
    welcome: &Welcome,
    offer: &Offer,
) -> Result<FetchedStream, FetchError> {
    let fetched = timeout(FETCH_TIMEOUT, async {
        let mut dialed = Dialed::dial(host, welcome, offer.descriptor).await?;
        let (keys, rest) = prove(&mut dialed, secret, offer.token).await?;
        receive(dialed, &keys, rest, offer).await
    });
    fetched.await.unwrap_or(Err(FetchError::TooLate))
}

/// Gives a stream back that was fetched and is not wanted. Best effort: the end of the connection says the same, less clearly.
pub(crate) async fn refuse(connection: Detached, refusal: Frame) {
    let refused = async {
        let mut connection = connection.attach()?;
        connection.queue(&refusal)?;
        std::future::poll_fn(|cx| connection.poll_flush(cx)).await
    };
    if let Ok(Err(error)) = timeout(REFUSAL_TIMEOUT, refused).await {
        tracing::debug!(event = event::REFUSAL_FAILED, %error, ?refusal, "refusal of a fetched stream was not written");
    }
}

/// A socket to the activator and the descriptors that came over it.
struct Dialed {
    socket: PeerSocket,
    fds: Vec<OwnedFd>,
}

impl Dialed {
    async fn dial(host: SocketAddr, welcome: &Welcome, descriptor: bool) -> Result<Self, FetchError> {
        let socket = if descriptor {
            PeerSocket::Unix(dial_unix(&welcome.handoff_socket).await?)
        } else {
            PeerSocket::Tcp(dial_tcp(host, welcome.link_port).await?)
        };
        Ok(Self { socket, fds: Vec::new() })
    }

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, HandoffError> {
        let read = self.socket.recv_with_fds(bytes, &mut self.fds).await?;
        if read == 0 { Err(HandoffError::Ended) } else { Ok(read) }
    }

    /// Passes our process on, too: where it is in another container the activator knows of its end by that alone, and must before it
    /// gives the stream to anybody else.
    async fn write_first(&mut self, bytes: &[u8]) -> Result<(), HandoffError> {
        match (&self.socket, ProcessHandle::ours()) {
            (PeerSocket::Unix(socket), Ok(ours)) => Ok(sys::send_with_fds(socket, bytes, &[ours.as_fd()]).await?),
            _ => self.write(bytes).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), HandoffError> {
        Ok(self.socket.write_all(bytes).await?)
    }
}

async fn dial_unix(name: &str) -> Result<UnixStream, FetchError> {
    if name.is_empty() {
        return Err(FetchError::Nowhere("descriptor handoff"));
    }
    let dialed = UnixStream::connect(format!("\0{name}")).await;
    let socket = dialed.map_err(|error| FetchError::Dial { to: format!("@{name}"), error })?;
    // Names of abstract sockets are anyone's who comes first. The preface would find out too, but by then our proof is out.
    let peer = sys::peer(&socket).map_err(HandoffError::Broken)?;
    if !is_trusted(peer.uid, rustix::process::geteuid().as_raw()) {
        return Err(FetchError::Stranger { uid: peer.uid });
    }
    Ok(socket)
}

/// Root may do anything to us anyway, and so may our own user.
fn is_trusted(user: u32, ours: u32) -> bool {
    user == 0 || user == ours
}

async fn dial_tcp(host: SocketAddr, port: u16) -> Result<TcpStream, FetchError> {
    if port == 0 {
        return Err(FetchError::Nowhere("link"));
    }
    let to = SocketAddr::new(host.ip(), port);
    let socket = TcpStream::connect(to).await.map_err(|error| FetchError::Dial { to: to.to_string(), error })?;
    socket.set_nodelay(true).map_err(HandoffError::Broken)?;
    Ok(socket)
}

/// The preface. Gives what came after it too.
async fn prove(
    dialed: &mut Dialed,
    secret: &Secret,
    token: [u8; TOKEN_BYTES],
) -> Result<(SessionKeys, Vec<u8>), FetchError> {
    let (mut side, first) = WorkerSide::new(secret, token, random::bytes::<NONCE_BYTES>());
    dialed.write_first(&first).await?;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = dialed.read(&mut bytes).await?;
        let progress = side.handle(&bytes[..read]);
        if !progress.output.is_empty() {
            dialed.write(&progress.output).await?;
        }
        match progress.step {
            Step::More => {}
            Step::Done(keys) => return Ok((keys, bytes[progress.used..read].to_vec())),
            Step::Failed(error) => return Err(error.into()),
        }
    }
}

async fn receive(
    mut dialed: Dialed,
    keys: &SessionKeys,
    rest: Vec<u8>,
    offer: &Offer,
) -> Result<FetchedStream, FetchError> {
    let (mut reader, writer) = keys.worker_end();
    reader.buffer().extend_from_slice(&rest);
    let mut bytes = vec![0; READ_BYTES];
    let assignment = loop {
        match reader.next().map_err(HandoffError::Frame)? {
            Some(Frame::Assign(assignment)) => break *assignment,
            Some(Frame::Alive) => {}
            Some(_) => return Err(FetchError::Unexpected("something else than an assignment")),
            None => {
                let read = dialed.read(&mut bytes).await?;
                reader.buffer().extend_from_slice(&bytes[..read]);
            }
        }
    };
    if assignment.stream_id.as_str() != offer.stream_id || assignment.epoch != offer.epoch {
        return Err(FetchError::Unexpected("another stream than it offered"));
    }
    let fds = std::mem::take(&mut dialed.fds);
    let connection = HandoffStream::new(dialed.socket, (reader, writer)).detach().map_err(HandoffError::Broken)?;
    let belongings = match assignment.transport {
        Transport::Descriptor if offer.descriptor => belongings(fds),
        Transport::Link if !offer.descriptor && fds.is_empty() => new_ring(&assignment.policy),
        _ => Err(FetchError::Unexpected("a stream by another way than it offered")),
    };
    match belongings {
        Ok((publisher, ring)) => Ok(FetchedStream { assignment, connection, publisher, ring }),
        Err(error) => {
            refuse(connection, Frame::Returned { why: Decline::Other }).await;
            Err(error)
        }
    }
}

type Belongings = (Option<std::net::TcpStream>, UnmappedRing);

/// What came along by descriptor.
fn belongings(fds: Vec<OwnedFd>) -> Result<Belongings, FetchError> {
    let Ok([publisher, memory]) = <[OwnedFd; DESCRIPTORS]>::try_from(fds) else {
        return Err(FetchError::Unexpected("another number of descriptors than two"));
    };
    let publisher = Socket::from(publisher);
    let is_tcp =
        matches!(publisher.domain(), Ok(Domain::IPV4 | Domain::IPV6)) && publisher.r#type().ok() == Some(Type::STREAM);
    if !is_tcp {
        return Err(FetchError::Unexpected("a descriptor that is no publisher's socket"));
    }
    publisher.set_nonblocking(true).map_err(HandoffError::Broken)?;
    let ring = UnmappedRing::check(memory).map_err(FetchError::Ring)?;
    Ok((Some(publisher.into()), ring))
}

/// A ring for a stream that comes by link.
fn new_ring(policy: &handoff::Policy) -> Result<Belongings, FetchError> {
    let wanted = usize::try_from(policy.replay_bytes).unwrap_or(usize::MAX);
    let bytes = wanted.clamp(MIN_RING_BYTES, MAX_RING_BYTES).next_power_of_two();
    let ring = UnmappedRing::create(bytes).map_err(FetchError::Ring)?;
    Ok((None, ring))
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
