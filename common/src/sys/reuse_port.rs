//! The choice of a listener among processes that share a port (`SO_REUSEPORT`). In: a listener. Out: a selection in the kernel, which
//! otherwise spreads connections by the hash of their addresses.
//!
//! Note: a connection belongs to a listener from its SYN on, and connections in the backlog of a listener that closes are reset, though
//! another one is there (unless `net.ipv4.tcp_migrate_req` is 1). A process that goes down therefore sends new connections to the other
//! one first, accepts its backlog, and closes then. The selection outlives the process that has attached it, and names listeners by the
//! order in which they were bound.
#![allow(unsafe_code, reason = "socket options that no crate offers")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// `SO_DETACH_REUSEPORT_BPF` of Linux 5.3, the same number on every architecture that Rust's tier 1 has.
const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;
/// "Return this number", of classic BPF.
const RETURN: u16 = 0x06;
/// Index of the listener that came after the first one.
const SECOND: u32 = 1;

/// Sends new connections to the listener that was bound second, which is the successor's; to any listener while there is only one.
///
/// # Errors
/// The kernel's, if the port is not shared.
pub fn steer_to_successor(listener: impl AsFd) -> io::Result<()> {
    let mut program = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: SECOND }];
    let program = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which lives until the end of this function.
    unsafe { set(listener, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// Spreads new connections over all listeners again.
///
/// # Errors
/// The kernel's; no selection was in force.
pub fn steer_to_any(listener: impl AsFd) -> io::Result<()> {
    // SAFETY: the kernel reads an integer, or nothing.
    unsafe { set(listener, SO_DETACH_REUSEPORT_BPF, &0_i32) }
}

/// # Safety
/// `value` must be what the kernel expects of this option.
unsafe fn set<T>(socket: impl AsFd, name: libc::c_int, value: &T) -> io::Result<()> {
    let (socket, value) = (socket.as_fd().as_raw_fd(), std::ptr::from_ref(value).cast());
    // SAFETY: `value` is as many readable bytes as its length says, and fits the option, as the caller promises.
    let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, name, value, size_of::<T>() as libc::socklen_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn shared(at: SocketAddr) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    }

    /// The number of connections, of `count`, that each listener gets.
    fn spread(at: SocketAddr, count: usize, listeners: &[&TcpListener]) -> Vec<usize> {
        // All are connected before any is accepted: on loopback a connection waits at its listener then.
        let connected: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(at).unwrap()).collect();
        let waiting = |listener: &&TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
        let spread = listeners.iter().map(waiting).collect();
        drop(connected);
        spread
    }

    #[test]
    fn new_connections_go_to_the_listener_that_was_chosen() {
        let elder = shared("127.0.0.1:0".parse().unwrap());
        let at = elder.local_addr().unwrap();
        assert_eq!(spread(at, 8, &[&elder]), [8]);
        let younger = shared(at);
        let both = spread(at, 64, &[&elder, &younger]);
        assert!(both.iter().all(|count| *count > 0) && both.iter().sum::<usize>() == 64, "{both:?}");
        assert!(steer_to_any(&younger).is_err(), "nothing was said yet");

        steer_to_successor(&elder).unwrap();
        assert_eq!(spread(at, 64, &[&elder, &younger]), [0, 64]);
        drop(elder);
        assert_eq!(spread(at, 8, &[&younger]), [8], "who is alone gets all, whatever the program says");

        // The program outlives the process that attached it, so a third listener has to undo it.
        let third = shared(at);
        assert_eq!(spread(at, 64, &[&younger, &third]), [0, 64]);
        steer_to_any(&third).unwrap();
        let both = spread(at, 64, &[&younger, &third]);
        assert!(both.iter().all(|count| *count > 0), "{both:?}");
    }

    #[test]
    fn a_port_that_is_not_shared_has_no_second() {
        assert!(steer_to_successor(TcpListener::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
