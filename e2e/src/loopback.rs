//! Addresses for the servers of scenarios. Out: a loopback address that no other server has, on which the usual ports are free.
//!
//! Note: the whole of 127.0.0.0/8 is loopback on Linux. With an address per server no ports have to be picked, and no race for a port can
//! be lost to another test or to the source port of a connection (those are on 127.0.0.1).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses handed out by this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Addresses that one test process may hand out before it meets the next process's.
const PER_PROCESS: u32 = 1024;

/// Listens on `port` of an address that no other server has.
///
/// # Panics
/// A thousand addresses in a row are taken.
#[must_use]
pub fn listener(port: u16, listen: impl Fn(SocketAddr) -> io::Result<TcpListener>) -> (SocketAddr, TcpListener) {
    let tries = (0..PER_PROCESS).map(|_| SocketAddr::from((address(&[port]), port)));
    let mut listeners = tries.filter_map(|address| Some((address, listen(address).ok()?)));
    listeners.next().expect("a loopback address on which one can listen")
}

/// An address that no other server has, on which all of `ports` are free.
///
/// # Panics
/// A thousand addresses in a row are taken.
#[must_use]
pub fn address(ports: &[u16]) -> Ipv4Addr {
    // 127.0.x.x is left to all other software on the machine.
    let base = std::process::id().wrapping_mul(PER_PROCESS);
    for _ in 0..PER_PROCESS {
        let number = base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, a, b, c] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, a.max(1), b, c);
        if (1..=254).contains(&c) && ports.iter().all(|port| TcpListener::bind((address, *port)).is_ok()) {
            return address;
        }
    }
    panic!("no loopback address has the ports {ports:?} free");
}

/// A socket address on a loopback address that no other server has.
#[must_use]
pub fn socket(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(address(&[port]), port))
}
