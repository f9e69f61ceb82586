//! The accept loop. In: a listener. Out: one call of `spawn` per connection that was let in.
#![expect(clippy::disallowed_methods, reason = "shell: waits when the process has no descriptor left")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::log_limiter::LogLimiter;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::limits::{Doorman, Permit};
use super::metrics::AcceptMetrics;
use super::socket::{client_of, prepare};

/// Pause after `accept` found no descriptor or memory left. The connection stays in the backlog meanwhile, and
/// epoll would report it at once: without a pause the loop is a busy one.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// It goes on for as long as a stranger likes, and is counted.
static EXHAUSTIONS: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// A connection that was let in.
pub struct Accepted {
    /// TCP_NODELAY and keepalive are set.
    pub socket: TcpStream,
    /// The peer, unmapped.
    pub client: SocketAddr,
    /// Its place; dropped with the connection.
    pub permit: Permit,
}

/// Accepts until dropped. `spawn` must return at once.
pub async fn run(listener: TcpListener, door: Doorman, metrics: AcceptMetrics, mut spawn: impl FnMut(Accepted)) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_exhausted(&error) => {
                metrics.exhausted.inc();
                if EXHAUSTIONS.is_due(now()) {
                    warn!(%error, "accept: nothing left to accept with; raise RLIMIT_NOFILE or lower --max-connections");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
            // The peer gave up in the backlog, or its network did (accept(2) names a dozen): the next one is fine.
            Err(error) => {
                debug!(%error, "accept: a connection was gone before it was taken");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let client = client_of(peer);
        match door.enter(client.ip()) {
            Ok(permit) => {
                if let Some(why) = permit.instead() {
                    metrics.turned_away(why);
                    debug!(%client, why = why.as_str(), "accept: let in instead of another");
                }
                match prepare(&socket) {
                    Ok(()) => {
                        metrics.accepted.inc();
                        spawn(Accepted { socket, client, permit });
                    }
                    Err(error) => debug!(%client, %error, "accept: the connection was gone at once"),
                }
            }
            Err(why) => {
                metrics.turned_away(why);
                debug!(%client, why = why.as_str(), "accept: turned away");
                // A flood leaves no TIME_WAIT behind.
                let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
