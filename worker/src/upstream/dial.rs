//! Names to addresses and addresses to connections. Next room: [`super::tls`] or [`super::connection`].
//!
//! What surprised us: on one host, dialing a port of the ephemeral range where nobody listens can connect the socket to itself.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// Addresses of one name that are looked at. CDNs return up to 8 of each family.
const MAX_ADDRESSES: usize = 16;
/// How long bytes may stay unacknowledged, or the peer's window closed, before the kernel gives the connection up. An upstream that stalls
/// for 10 s must be survived; OBS gives up after 15.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// While nothing is sent (10 s + 3 × 5 s), as towards publishers.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)).with_retries(3);

pub(super) type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;
pub(super) type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// Asks the system's resolver, on a blocking thread; nothing is kept for the next time.
pub(super) fn lookup(host: &str, port: u16) -> Lookup {
    let target = (host.to_owned(), port);
    Box::pin(async move { Ok(tokio::net::lookup_host(target).await?.take(MAX_ADDRESSES).collect()) })
}

pub(super) fn dial(address: SocketAddr) -> Dial {
    Box::pin(async move {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        // Commands and media are small writes that nothing may hold back.
        socket.set_nodelay(true)?;
        let options = SockRef::from(&socket);
        options.set_tcp_keepalive(&KEEPALIVE)?;
        options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let stream = socket.connect(address).await?;
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    })
}
