//! Binding TCP listeners, and the one accept loop of every listener, TCP or Unix.
//!
//! In: an address from the configuration. Out: a listener in non-blocking mode, or an error that names the address; then its connections.
//! Two processes can listen on one address only if both say so; otherwise a process that was started by mistake would take half of the
//! connections.
//!
//! Note: `[::]` means "every address" to people, but with `net.ipv6.bindv6only=1` it is IPv6 alone, and on a machine that was started with
//! `ipv6.disable=1` it cannot be bound at all. Both cases are handled here. And `accept` reports the errors of a connection that broke in
//! the backlog as its own (accept(2) names a dozen): only errors that say that this process or the kernel has run out, and those that last, are worth a pause.
#![expect(clippy::disallowed_methods, reason = "shell: a pause, and the time for a log line")]

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::clock::now;
use crate::event;
use crate::log_limiter::LogLimiter;
use crate::socket::PeerSocket;
use crate::sys::reuse_port;

/// Connections that the kernel keeps ready between two accepts; more than any burst seen, and the kernel clamps it to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// Pause after `accept` found no descriptor or memory left, or has failed many times. The connection stays in the backlog meanwhile, and epoll would report it at
/// once: without a pause the loop is a busy one.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Failures of `accept` in a row, for other causes, after which the loop pauses too. A burst of connections that broke in the backlog is
/// worked off at full speed up to here; an error that lasts, as EINVAL of a listener that was shut down, would keep a core busy.
const FAILURES_IN_A_ROW: u32 = 64;

/// Exhaustion lasts for as long as a stranger likes, and the same descriptors are missing at every listener of the process.
static EXHAUSTIONS: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// Binds `address`: IPv4 too when it is `[::]`, IPv4 alone where the machine has no IPv6. Must be called in a runtime.
///
/// # Errors
/// The kernel's, with the address in front.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_as(address, false)
}

/// Binds `address` as [`listen`] does, beside other processes of this user that do so too. Connections are spread over all of them.
///
/// # Errors
/// The kernel's, with the address in front.
pub fn listen_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = listen_as(address, true)?;
    // Fails if no process has changed the selection.
    let _ = reuse_port::steer_to_any(&listener);
    Ok(listener)
}

fn listen_as(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let bound = match bind(address, shared) {
        Err(error) if wildcard6(address) && no_ipv6(&error) => {
            bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()), shared)
        }
        other => other,
    };
    bound.map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ": end the program that has the port (`ss -ltnp` names it), or choose another port"
            }
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{fix}"))
    })
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if wildcard6(address) {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the TIME_WAIT of connections that the last process closed.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Accepts processes on this host.
    Unix(UnixListener),
    /// Accepts any host.
    Tcp(TcpListener),
}

impl Listener {
    /// The next connection and its peer, `::ffff:` taken off; a peer on a Unix socket is on this host, and has no port. `room` names the
    /// listener in the log. TCP_NODELAY is set. Cancel safe.
    pub async fn accept(&self, room: &'static str) -> (PeerSocket, SocketAddr) {
        match self {
            Self::Unix(listener) => {
                let (socket, _) = accepted(room, || listener.accept(), || ()).await;
                (socket.into(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            }
            Self::Tcp(listener) => {
                let (socket, peer) = accept_tcp(listener, room, || ()).await;
                (socket.into(), peer)
            }
        }
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// The next connection as from [`Listener::accept`], for code that serves TCP alone. `exhausted` is called each time that `accept` has failed
/// for want of descriptors or memory.
pub async fn accept_tcp(listener: &TcpListener, room: &'static str, exhausted: impl Fn()) -> (TcpStream, SocketAddr) {
    let (socket, peer) = accepted(room, || listener.accept(), exhausted).await;
    // Fails only for a connection that is gone already, which its owner notices soon enough.
    let _ = socket.set_nodelay(true);
    (socket, SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// The accept loop, up to the next connection. Nothing here waits for a peer.
async fn accepted<T, F>(room: &'static str, accept: impl Fn() -> F, exhausted: impl Fn()) -> T
where
    F: Future<Output = io::Result<T>>,
{
    let mut failures = 0;
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_exhausted(&error) => {
                exhausted();
                if EXHAUSTIONS.is_due(now()) {
                    let advice = advice(room);
                    tracing::warn!(event = event::ACCEPT_EXHAUSTED, room, %error, advice, "nothing left to accept connections with");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(event = event::ACCEPT_FAILED, room, %error, "connection lost before it was accepted");
                failures += 1;
                match failures % FAILURES_IN_A_ROW {
                    0 => tokio::time::sleep(EXHAUSTED_PAUSE).await,
                    _ => tokio::task::yield_now().await,
                }
            }
        }
    }
}

/// The remedy for the operator. Streams take the descriptors of every listener in a process; only `http` is a room of workers too.
fn advice(room: &str) -> &'static str {
    match room {
        "http" => "raise RLIMIT_NOFILE, or lower MAX_CONNECTIONS of an activator, CAPACITY of a worker",
        _ => "raise RLIMIT_NOFILE or lower MAX_CONNECTIONS",
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| exhausted.contains(&errno))
}

fn wildcard6(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unspecified())
}

fn no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT)) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn wildcard_listener_accepts_ipv4_too() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let (accepted, connected) = tokio::join!(listener.accept(), client);
        accepted.unwrap();
        connected.unwrap();
    }

    #[tokio::test]
    async fn error_names_the_taken_port() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("ss -ltnp"), "{error}");
    }

    #[tokio::test]
    async fn address_is_shared_only_if_both_processes_ask_for_it() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = listen_shared(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let shared = listen_shared("[::]:0".parse().unwrap()).unwrap();
        let address = shared.local_addr().unwrap();
        assert_eq!(listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(listen_shared(address).unwrap().local_addr().unwrap(), address);
    }

    #[tokio::test(start_paused = true)]
    async fn exhaustion_pauses_the_accept_loop_and_a_lost_connection_does_not() {
        let answers = Mutex::new(vec![Ok("accepted"), Err(Errno::NFILE), Err(Errno::CONNABORTED), Err(Errno::MFILE)]);
        let (exhausted, begun) = (AtomicUsize::new(0), now());
        let next = || std::future::ready(answers.lock().unwrap().pop().unwrap().map_err(io::Error::from));
        let count = || _ = exhausted.fetch_add(1, Ordering::Relaxed);
        assert_eq!(accepted("test", next, count).await, "accepted");
        assert_eq!((exhausted.into_inner(), now() - begun), (2, 2 * EXHAUSTED_PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn error_that_lasts_pauses_the_accept_loop_now_and_then() {
        let (calls, begun) = (AtomicU32::new(0), now());
        let next = || {
            let lasts = calls.fetch_add(1, Ordering::Relaxed) < 3 * FAILURES_IN_A_ROW;
            std::future::ready(if lasts { Err(Errno::INVAL.into()) } else { Ok(()) })
        };
        accepted("test", next, || panic!("nothing is exhausted")).await;
        assert_eq!(now() - begun, 3 * EXHAUSTED_PAUSE);
    }
}
