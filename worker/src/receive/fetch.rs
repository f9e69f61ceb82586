//! The way of one stream from an activator to this worker: dial, prove, take. In: the offer, and the activator's `Welcome`. Out: a
//! [`FetchedStream`]. Next room: `engine`. If anything goes wrong, the connection is closed and the activator still has the stream.
//!
//! Note: the kernel drops descriptors without an error when the read makes no room for them, so every read of the Unix socket makes room,
//! the preface's too.
#![expect(clippy::disallowed_methods, reason = "shell: sockets and a deadline")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use liveedgecast_common::control::{Offer, Welcome};
use liveedgecast_common::encryption::{Protection, bound_secret};
use liveedgecast_common::handoff::preface::{NONCE_BYTES, Step};
use liveedgecast_common::handoff::{Assignment, Decline, Frame, PrefaceError, SessionKeys, Transport, WorkerSide};
use liveedgecast_common::key::Secret;
use liveedgecast_common::socket::PeerSocket;
use liveedgecast_common::sys::ring_memory::{MAX_RING_BYTES, MIN_RING_BYTES};
use liveedgecast_common::sys::{self, ProcessHandle, RingMemory, UnmappedRing};
use liveedgecast_common::{event, handoff, random};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::connection::{Detached, HandoffError, HandoffStream};
use super::spare::SpareRings;

/// Time from the first SYN to the whole assignment. A publisher waits at the other end: a lost SYN may be repeated twice, and a handoff that
/// takes longer is better tried with another worker.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a refusal to be written: a few bytes into an empty socket.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of one read. An assignment without media is a few KiB.
const READ_BYTES: usize = 16 << 10;
/// Descriptors of a handoff: the publisher's socket, then the ring's memory.
const DESCRIPTORS: usize = 2;

/// A stream with everything that belongs to it, in no runtime.
#[derive(Debug)]
pub struct FetchedStream {
    /// Identity, destinations and policy of the stream.
    pub assignment: Assignment,
    /// The connection to the activator that has the stream.
    pub connection: Detached,
    /// The publisher's socket, by descriptor.
    pub publisher: Option<std::net::TcpStream>,
    /// Its ring: by descriptor in the memory that came along, by link in memory of this process, which may be that of a stream that has ended.
    pub ring: FetchedRing,
}

/// The ring of a fetched stream.
#[derive(Debug)]
pub enum FetchedRing {
    /// Mapped for this stream.
    Mapped(RingMemory),
    /// Not mapped: a stream of this process has the memory mapped still, and the publisher comes again to it.
    Unmapped(UnmappedRing),
}

impl FetchedRing {
    /// Maps a ring here, so that the stream's thread does not have to.
    fn map(ring: UnmappedRing) -> Result<Self, FetchError> {
        match ring.map() {
            Ok(mapped) => Ok(Self::Mapped(mapped)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self::Unmapped(ring)),
            Err(error) => Err(FetchError::Ring(error)),
        }
    }
}

/// The reason why a stream was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The activator named no place to dial.
    #[error("the activator offers no {0}")]
    Nowhere(&'static str),
    /// The activator cannot be reached.
    #[error("cannot dial {to}: {error}")]
    Dial {
        /// Address that was dialed.
        to: String,
        /// Error of the kernel, or of TLS.
        error: io::Error,
    },
    /// The Unix socket belongs to a stranger.
    #[error("the handoff socket belongs to user {uid}, not to root or us: who took the activator's place?")]
    Stranger {
        /// User at the other end.
        uid: u32,
    },
    /// The connection broke, or a frame on it cannot be understood.
    #[error(transparent)]
    Connection(#[from] HandoffError),
    /// The other end is no activator of ours.
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    /// The activator sent a wrong stream, or a part of one.
    #[error("the activator sent {0}")]
    Unexpected(&'static str),
    /// Memory for the ring is wrong, or there is none.
    #[error("no ring for the stream: {0}")]
    Ring(io::Error),
    /// [`FETCH_TIMEOUT`] is over.
    #[error("nothing came within {} s", FETCH_TIMEOUT.as_secs())]
    TooLate,
}

/// The words of [`FetchError::as_str`].
pub const FAILURES: [&str; 8] =
    ["nowhere", "dial", "stranger", "connection", "preface", "unexpected", "ring", "too_late"];

impl FetchError {
    /// The word of metrics.
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

/// Fetches an offered stream. `host`: the address at which the activator was dialed; `spares`: rings that can be used again.
///
/// # Errors
/// The stream is still the activator's, which may offer it to another worker.
pub async fn fetch(
    secret: &Secret,
    protection: &Protection,
    host: SocketAddr,
    welcome: &Welcome,
    offer: &Offer,
    spares: &SpareRings,
) -> Result<FetchedStream, FetchError> {
    let fetched = timeout(FETCH_TIMEOUT, async {
        let mut dialed = Dialed::dial(host, protection, welcome, offer.descriptor).await?;
        let secret = bound_secret(secret, &dialed.socket).map_err(HandoffError::Broken)?;
        let (keys, rest) = prove(&mut dialed, &secret, offer).await?;
        receive(dialed, &keys, rest, offer, spares).await
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
    async fn dial(
        host: SocketAddr,
        protection: &Protection,
        welcome: &Welcome,
        descriptor: bool,
    ) -> Result<Self, FetchError> {
        let socket = if descriptor {
            PeerSocket::Unix(dial_unix(&welcome.handoff_socket).await?)
        } else {
            dial_tcp(host, protection, welcome.link_port).await?
        };
        Ok(Self { socket, fds: Vec::new() })
    }

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, HandoffError> {
        let read = self.socket.recv_with_fds(bytes, &mut self.fds).await?;
        if read == 0 { Err(HandoffError::Ended) } else { Ok(read) }
    }

    /// Writes the first bytes, and passes a pidfd of this process along: in another container the activator learns of its end by that alone,
    /// and must, before it gives the stream to another worker.
    async fn write_first(&mut self, bytes: &[u8]) -> Result<(), HandoffError> {
        match (&self.socket, ProcessHandle::ours()) {
            (PeerSocket::Unix(socket), Ok(ours)) => Ok(sys::send_with_fds(socket, bytes, &[ours.as_fd()]).await?),
            _ => self.write(bytes).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), HandoffError> {
        self.socket.write_all(bytes).await?;
        Ok(self.socket.flush().await?)
    }
}

async fn dial_unix(name: &str) -> Result<UnixStream, FetchError> {
    if name.is_empty() {
        return Err(FetchError::Nowhere("descriptor handoff"));
    }
    let dialed = UnixStream::connect(format!("\0{name}")).await;
    let socket = dialed.map_err(|error| FetchError::Dial { to: format!("@{name}"), error })?;
    // An abstract socket's name belongs to the first process that takes it. The preface would find out too, but only after our proof was sent.
    let peer = sys::peer(&socket).map_err(HandoffError::Broken)?;
    if !is_trusted(peer.uid, rustix::process::geteuid().as_raw()) {
        return Err(FetchError::Stranger { uid: peer.uid });
    }
    Ok(socket)
}

/// Returns whether that user is trusted: root and our own user may do anything to this process anyway.
fn is_trusted(user: u32, ours: u32) -> bool {
    user == 0 || user == ours
}

async fn dial_tcp(host: SocketAddr, protection: &Protection, port: u16) -> Result<PeerSocket, FetchError> {
    if port == 0 {
        return Err(FetchError::Nowhere("link"));
    }
    let to = SocketAddr::new(host.ip(), port);
    protection.dial(to, FETCH_TIMEOUT).await.map_err(|error| FetchError::Dial { to: to.to_string(), error })
}

/// Runs the preface; returns the keys, and the bytes that came behind it.
async fn prove(dialed: &mut Dialed, secret: &Secret, offer: &Offer) -> Result<(SessionKeys, Vec<u8>), FetchError> {
    let nonce = random::bytes::<NONCE_BYTES>();
    let (mut side, first) = match offer.challenge {
        Some(theirs) => WorkerSide::told(secret, offer.token, nonce, theirs),
        None => WorkerSide::new(secret, offer.token, nonce),
    };
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
    spares: &SpareRings,
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
        Transport::Link if !offer.descriptor && fds.is_empty() => own_ring(&assignment.policy, spares),
        _ => {
            // The worker's word that it has given the stream back is believed: it holds the publisher's socket no longer when it says so.
            drop(fds);
            Err(FetchError::Unexpected("a stream by another way than it offered"))
        }
    };
    match belongings {
        Ok((publisher, ring)) => Ok(FetchedStream { assignment, connection, publisher, ring }),
        Err(error) => {
            refuse(connection, Frame::Returned { why: Decline::Other }).await;
            Err(error)
        }
    }
}

type Belongings = (Option<std::net::TcpStream>, FetchedRing);

/// The socket and the memory that came along by descriptor.
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
    Ok((Some(publisher.into()), FetchedRing::map(ring)?))
}

/// The ring for a stream that comes by link: one that was used before, or a new one.
fn own_ring(policy: &handoff::Policy, spares: &SpareRings) -> Result<Belongings, FetchError> {
    let wanted = usize::try_from(policy.replay_bytes).unwrap_or(usize::MAX);
    let bytes = wanted.clamp(MIN_RING_BYTES, MAX_RING_BYTES).next_power_of_two();
    if let Some(ring) = spares.take(bytes) {
        return Ok((None, FetchedRing::Mapped(ring)));
    }
    let ring = UnmappedRing::create(bytes).map_err(FetchError::Ring)?;
    Ok((None, FetchedRing::map(ring)?))
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
