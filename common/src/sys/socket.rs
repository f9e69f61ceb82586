//! The kernel's knowledge of a connection that the file system does not tell: the bytes read, the bytes unsent, the process at the other
//! end; and descriptors sent along with bytes.
//!
//! Note:
//! - A FIN counts as one received byte, and not as one that waits to be read. So a position is one less after it.
//! - Once a connection has ended (a FIN of both sides, or a reset after a FIN) the kernel does not tell of the FIN: the position is one too
//!   high then. It matters only for a message whose sender left out just its last byte: that message is taken for complete.
//! - The kernel drops descriptors beyond the room that was given for them without an error, only with a flag.
#![expect(clippy::disallowed_methods, reason = "shell: /proc says which boot this is")]
#![allow(unsafe_code, reason = "socket options that no crate offers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use bytes::BytesMut;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors with one message: the handoff sends two.
pub const MAX_DESCRIPTORS: usize = 4;

/// Readings of a position until two of them agree: each takes a microsecond, and between most two of them nothing arrives.
const MAX_READINGS: usize = 10_000;

/// TCP states in which a FIN has been received (`tcp_states.h`): TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING.
const FIN_RECEIVED: [u8; 4] = [6, 8, 9, 11];

/// `SO_PEERPIDFD` of Linux 6.5, the same number on every architecture that Rust's tier 1 has.
const SO_PEERPIDFD: libc::c_int = 77;

/// Reads a socket option that is plain bytes. Returns the number of bytes written.
///
/// # Safety
/// Any bytes must be a valid `T`.
unsafe fn option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &mut T) -> io::Result<usize> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` writable bytes, any of which are valid, as the caller promises; the kernel writes at most `len`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, std::ptr::from_mut(value).cast(), &raw mut len) };
    if result == 0 { Ok(len as usize) } else { Err(io::Error::last_os_error()) }
}

fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<(u8, u64)> {
    // SAFETY: a struct of integers, for which zeros are valid.
    let mut info: libc::tcp_info = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: as above, any bytes.
    let len = unsafe { option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)? };
    if len < std::mem::offset_of!(libc::tcp_info, tcpi_bytes_received) + size_of::<u64>() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel does not count received bytes (Linux 4.1 does)",
        ));
    }
    Ok((info.tcpi_state, info.tcpi_bytes_received))
}

/// Bytes of a TCP connection that have been read, by any process: the position of the next one. No process may read meanwhile; more bytes
/// may arrive.
///
/// # Errors
/// The kernel's; not a TCP socket.
pub fn bytes_received(socket: impl AsFd) -> io::Result<u64> {
    let socket = socket.as_fd();
    for _ in 0..MAX_READINGS {
        let before = tcp_info(socket)?;
        let unread = rustix::io::ioctl_fionread(socket)?;
        if tcp_info(socket)? == before {
            let (state, received) = before;
            let fin = u64::from(FIN_RECEIVED.contains(&state));
            return Ok(received.saturating_sub(unread + fin));
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "bytes arrive faster than they can be counted"))
}

/// Bytes written that the peer's kernel has not acknowledged (`SIOCOUTQ`).
///
/// # Errors
/// The kernel's; not a TCP socket.
pub fn unsent(socket: impl AsFd) -> io::Result<u32> {
    let mut queued: libc::c_int = 0;
    // SAFETY: this request writes one int.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    if result == 0 { Ok(queued.try_into().unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Reads the bytes of a connection that the kernel has, appended to `buffer`: once, at most 16 KiB, without waiting. Zero is the end.
///
/// Call it before the silence of the other side is judged. A runtime only knows of bytes that its event queue has reported, and a process
/// that was stopped hears of its timers first: the kernel interrupts the wait for events when such a process goes on.
///
/// # Errors
/// `WouldBlock`: there is nothing to read. Otherwise the kernel's.
pub fn read_now(socket: impl AsFd, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut bytes = [0; 16 << 10];
    let (read, _) = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    buffer.extend_from_slice(&bytes[..read]);
    Ok(read)
}

/// Acknowledges bytes as they arrive, without waiting for more (`TCP_QUICKACK`). The kernel falls back to waiting by itself: call it again
/// and again.
///
/// # Errors
/// The kernel's; not a TCP socket.
pub fn quick_ack(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_tcp_quickack(socket, true)?)
}

/// Sets the number of bytes that must wait before the kernel reports a socket as readable (`SO_RCVLOWAT`; 1 by default). An end or an
/// error is reported at once, and so is a full receive buffer. The setting belongs to the connection, so the next process that has its
/// descriptor has it too.
///
/// # Errors
/// The kernel's.
pub fn set_receive_low_water(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `value` is `len` readable bytes.
    let result = unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, std::ptr::from_ref(&value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The process at the other end of a Unix socket, as of its `connect` or `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id, in this process's namespace; 0 if it has none there.
    pub pid: u32,
    /// User id.
    pub uid: u32,
}

/// The process at the other end of a Unix socket (`SO_PEERCRED`).
///
/// # Errors
/// The kernel's; not a Unix socket.
pub fn peer(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    // SAFETY: three integers, any bytes. (Not rustix: its process id cannot be 0, which a peer in another namespace has.)
    let len = unsafe { option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut credentials)? };
    if len != size_of::<libc::ucred>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no credentials"));
    }
    Ok(PeerCredentials { pid: credentials.pid.try_into().unwrap_or(0), uid: credentials.uid })
}

/// A pidfd of the process at the other end of a Unix socket.
pub(super) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    // SAFETY: one integer.
    unsafe { option(socket, libc::SOL_SOCKET, SO_PEERPIDFD, &mut fd)? };
    if fd < 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the peer has no process"));
    }
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec, as every pidfd).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Names this process's network namespace: of two processes with equal names, one can use the other's sockets for as long as either
/// lives, and reach its abstract Unix sockets. Boot id and inode; empty if the system does not tell.
#[must_use]
pub fn network_namespace() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = rustix::fs::stat("/proc/self/ns/net");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{}:{}", boot.trim(), namespace.st_ino),
        _ => String::new(),
    }
}

/// Writes all bytes; the descriptors go with the first byte.
///
/// # Errors
/// The kernel's; no bytes to send them with, or more than [`MAX_DESCRIPTORS`]. Part of it may have been sent.
pub async fn send_with_fds(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || fds.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptors need bytes to go with"));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        let fds = if sent == 0 { fds } else { &[] };
        sent += stream.async_io(Interest::WRITABLE, || send_some(stream.as_fd(), &bytes[sent..], fds)).await?;
    }
    Ok(())
}

fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

/// Reads some bytes, and the descriptors that came with them, which are closed on exec. 0: the other end has closed.
///
/// # Errors
/// The kernel's; more descriptors than [`MAX_DESCRIPTORS`] in `fds`.
pub async fn recv_with_fds(stream: &UnixStream, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    stream.async_io(Interest::READABLE, || recv_some(stream.as_fd(), bytes, fds)).await
}

fn recv_some(socket: BorrowedFd<'_>, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "more descriptors came than are taken, or than RLIMIT_NOFILE has room for",
        ));
    }
    Ok(received.bytes)
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
