//! The options of a publisher's socket. In: a fresh connection. Out: the same with its options. Next: `task`.
//! (Binding, dual-stack and SO_REUSEADDR are `common::listen`.)

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Silence after which the kernel asks the peer whether it is still there (architecture.md, "When the publisher goes").
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// Time between two of these questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// Questions without an answer after which the peer is gone.
const KEEPALIVE_PROBES: u32 = 3;

/// Sets the options: small answers leave at once, and a peer that is gone is noticed within 25 s.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_PROBES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}
