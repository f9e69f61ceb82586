//! The accept loop. In: a listener. Out: one call of `spawn` per connection that was let in.

use std::net::SocketAddr;
use std::time::Duration;

use liveedgecast_common::listen::accept_tcp;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use super::limits::{Doorman, Permit};
use super::metrics::AcceptMetrics;
use super::socket::prepare;

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
        let (socket, client) = accept_tcp(&listener, "accept", || metrics.exhausted.inc()).await;
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
