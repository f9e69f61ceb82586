//! The accept loop. In: a listener. Out: one call of `spawn` per connection that was let in. Next: `publisher`, in a task of its own, where
//! `opening` comes first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::event;
use liveedgecast_common::listen::accept_tcp;
use tokio::net::TcpListener;
use tracing::debug;

use super::connection::PublisherConnection;
use super::limits::{ConnectionLimits, Permit};
use super::metrics::AcceptMetrics;
use super::secure::RtmpsListener;
use super::socket::prepare;
use crate::config::TrustedProxies;

/// A connection that was let in.
pub struct Accepted {
    /// The connection, with TCP_NODELAY and keepalive.
    pub connection: PublisherConnection,
    /// The peer's address, unmapped.
    pub client: SocketAddr,
    /// The connection's place; dropped with the connection.
    pub permit: Permit,
    /// The listener whose TLS handshake the connection still has before it.
    pub(super) rtmps: Option<Arc<RtmpsListener>>,
    /// The connection is a trusted proxy's, and has its client's address before everything else.
    pub(super) proxied: bool,
    pub(super) metrics: AcceptMetrics,
}

/// Accepts until dropped; `rtmps` if publishers come to this listener by TLS. `spawn` must return at once.
pub async fn run(
    listener: TcpListener,
    rtmps: Option<Arc<RtmpsListener>>,
    proxies: TrustedProxies,
    limits: ConnectionLimits,
    metrics: AcceptMetrics,
    mut spawn: impl FnMut(Accepted),
) {
    loop {
        let (socket, client) = accept_tcp(&listener, "accept", || metrics.exhausted.inc()).await;
        let proxied = proxies.trusts(client.ip());
        let entered = if proxied { limits.enter_nameless() } else { limits.enter(client.ip()) };
        match entered {
            Ok(permit) => {
                if let Some(why) = permit.instead() {
                    metrics.turned_away(why);
                    debug!(event = event::CONNECTION_EVICTED, %client, why = why.as_str(), "undecided connection evicted for a new one");
                }
                match prepare(&socket) {
                    Ok(()) => {
                        metrics.accepted.inc();
                        let connection = PublisherConnection::Tcp(socket);
                        let (rtmps, metrics) = (rtmps.clone(), metrics.clone());
                        spawn(Accepted { connection, client, permit, rtmps, proxied, metrics });
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
