//! Binding a TCP listener the way both processes want it.
//!
//! In: an address from the configuration. Out: a listener in non-blocking mode, or an error that names the address.
//! Two processes can listen on one address only if both say so, or one that was started by mistake would take half of the connections.
//! Surprise: `[::]` means "every address" to people, but with `net.ipv6.bindv6only=1` it is IPv6 alone, and on a
//! machine that was started with `ipv6.disable=1` it cannot be bound at all. Both are taken care of here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::sys::reuse_port;

/// Connections the kernel keeps ready for us between two accepts; more than any burst seen, and the kernel clamps it
/// to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Binds `address`: IPv4 too when it is `[::]`, IPv4 alone where the machine has no IPv6. Must be called in a runtime.
///
/// # Errors
/// What the kernel said, with the address in front.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_as(address, false)
}

/// The same, beside other processes of this user that do it too. Connections are spread over all of them.
///
/// # Errors
/// What the kernel said, with the address in front.
pub fn listen_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = listen_as(address, true)?;
    // Fails when nobody has said anything else.
    let _ = reuse_port::to_any(&listener);
    Ok(listener)
}

fn listen_as(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let bound = match bind(address, shared) {
        Err(error) if wildcard6(address) && no_ipv6(&error) => {
            bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()), shared)
        }
        other => other,
    };
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if wildcard6(address) {
        socket.set_only_v6(false)?;
    }
    // Restarting must not wait for the TIME_WAIT of connections that the last process closed.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
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
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn every_address_means_ipv4_too() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let (accepted, connected) = tokio::join!(listener.accept(), client);
        accepted.unwrap();
        connected.unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
    #[tokio::test]
    async fn an_address_is_shared_only_if_both_say_so() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = listen_shared(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let shared = listen_shared("[::]:0".parse().unwrap()).unwrap();
        let address = shared.local_addr().unwrap();
        assert_eq!(listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(listen_shared(address).unwrap().local_addr().unwrap(), address);
    }
}
