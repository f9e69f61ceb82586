//! The accept loop. In: a listener. Out: one call of `spawn` per connection that was let in. Next: `publisher`, in a task of its own.

use std::net::SocketAddr;
use std::time::Duration;

use liveedgecast_common::event;
use liveedgecast_common::listen::accept_tcp;
use tokio::net::TcpListener;
use tracing::debug;

use super::connection::PublisherConnection;
use super::limits::{ConnectionLimits, Permit};
use super::metrics::AcceptMetrics;
use super::socket::prepare;

/// A connection that was let in.
pub struct Accepted {
    /// The connection, with TCP_NODELAY and keepalive.
    pub connection: PublisherConnection,
    /// The peer's address, unmapped.
    pub client: SocketAddr,
    /// The connection's place; dropped with the connection.
    pub permit: Permit,
}

/// Accepts until dropped. `spawn` must return at once.
pub async fn run(
    listener: TcpListener,
    limits: ConnectionLimits,
    metrics: AcceptMetrics,
    mut spawn: impl FnMut(Accepted),
) {
    loop {
        let (socket, client) = accept_tcp(&listener, "accept", || metrics.exhausted.inc()).await;
        match limits.enter(client.ip()) {
            Ok(permit) => {
                if let Some(why) = permit.instead() {
                    metrics.turned_away(why);
                    debug!(event = event::CONNECTION_EVICTED, %client, why = why.as_str(), "undecided connection evicted for a new one");
                }
                match prepare(&socket) {
                    Ok(()) => {
                        metrics.accepted.inc();
                        spawn(Accepted { connection: PublisherConnection::Tcp(socket), client, permit });
                    }
                    Err(error) => debug!(event = event::CONNECTION_LOST, %client, %error, "connection lost at once"),
                }
            }
            Err(why) => {
                metrics.turned_away(why);
                debug!(event = event::CONNECTION_REFUSED, %client, why = why.as_str(), "connection refused");
                // A flood leaves no TIME_WAIT behind.
                let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
        }
    }
}
