//! A connected socket, Unix, TCP, or TCP with TLS: the one enum for code that serves all of them. In: a socket of tokio. Out: reads and writes,
//! and descriptors where they can travel.

mod tls;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

pub use self::tls::{DetachedTls, Records, TlsConnection};
use crate::sys;

/// A connection to a peer.
#[derive(Debug)]
pub enum PeerSocket {
    /// A connection to a process on this host. Descriptors can travel.
    Unix(UnixStream),
    /// A connection to any host.
    Tcp(TcpStream),
    /// A connection to any host, by TLS. Boxed: the state of TLS has more than a kilobyte.
    Tls(Box<TlsConnection>),
}

/// Room for a read that is decrypted elsewhere than in its buffer: a record of TLS.
const RECORD_READ: usize = 16 << 10;

/// Receives the bytes that have come, with one call of the kernel, or none if the runtime knows of nothing. Zero is the end.
///
/// Note: after a read that did not fill its room the socket is empty, and asking it again would cost as much as the read. So the readiness
/// is given back at once, which the runtime allows only if the read claims that it would have blocked.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::WouldBlock`] when there is nothing.
pub fn receive(socket: &TcpStream, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let most = room.iter().map(|part| part.len()).sum();
    let mut received = None;
    let result = socket.try_io(Interest::READABLE, || {
        let count = receive_once(socket, room)?;
        received = Some(count);
        if count > 0 && count < most { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    received.map_or_else(|| result.and(Err(io::ErrorKind::WouldBlock.into())), Ok)
}

/// Receives the bytes that have come without waiting, whether the runtime knows of them or not. Zero is the end.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::WouldBlock`] when there is nothing.
pub fn receive_now(socket: &TcpStream, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match receive_once(socket, room) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(io::ErrorKind::WouldBlock.into()),
        received => received,
    }
}

/// Tells the runtime that the socket has nothing to read: it is readable again when the kernel says so.
///
/// For runtimes of one thread, which hear of the kernel between polls only. In another thread the runtime could hear meanwhile that there are bytes:
/// that would be forgotten, and nothing would wake the task.
pub fn forget_readiness(socket: &TcpStream) {
    let _ = socket.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
}

fn receive_once(socket: impl AsFd, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    Ok(match room {
        // It costs less than a vectored one.
        [part] => rustix::net::recv(socket, &mut **part, RecvFlags::empty())?.0,
        parts => rustix::io::readv(socket, parts)?,
    })
}

macro_rules! either {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            PeerSocket::Unix($inner) => $call,
            PeerSocket::Tcp($inner) => $call,
            PeerSocket::Tls($inner) => $call,
        }
    };
}

/// Reads from TLS into a buffer that may be not initialised.
fn read_tls(
    socket: &TlsConnection,
    buffer: &mut impl BufMut,
    receive: fn(&TcpStream, &mut [IoSliceMut<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut room = [0; RECORD_READ];
    let most = room.len().min(buffer.remaining_mut());
    let read = socket.receive(&mut [IoSliceMut::new(&mut room[..most])], receive)?;
    buffer.put_slice(&room[..read]);
    Ok(read)
}

impl PeerSocket {
    /// True if this is a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Reads once, and appends the descriptors that came along to `fds`; over TCP there are none. Zero is the end. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn recv_with_fds(&mut self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => sys::recv_with_fds(socket, bytes, fds).await,
            Self::Tcp(socket) => socket.read(bytes).await,
            Self::Tls(socket) => socket.read(bytes).await,
        }
    }

    /// Ready when there may be something to read.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(socket) => socket.poll_read_ready(cx),
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Tls(socket) => socket.poll_readable(cx),
        }
    }

    /// Reads into `buffer` without waiting.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_read_buf(buffer),
            Self::Tcp(socket) => socket.try_read_buf(buffer),
            Self::Tls(socket) => read_tls(socket, buffer, receive),
        }
    }

    /// Appends what has come to `buffer`, whether the runtime knows of it or not; see [`sys::read_now`].
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub fn read_now(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => sys::read_now(socket, buffer),
            Self::Tcp(socket) => sys::read_now(socket, buffer),
            Self::Tls(socket) => read_tls(socket, buffer, receive_now),
        }
    }

    /// Receives the bytes that have come, as [`receive`] does.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub fn receive(&self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => receive(socket, room),
            Self::Tls(socket) => socket.receive(room, receive),
            // A short read of such a socket may have ended where descriptors came along.
            Self::Unix(socket) => socket.try_io(Interest::READABLE, || receive_once(socket, room)),
        }
    }

    /// Ready when there may be room to write.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(socket) => socket.poll_write_ready(cx),
            Self::Tcp(socket) => socket.poll_write_ready(cx),
            Self::Tls(socket) => socket.socket().poll_write_ready(cx),
        }
    }

    /// Writes as many bytes as the kernel has room for, without waiting.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when there is no room.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, socket => socket.try_write(bytes))
    }

    /// Writes several parts as [`Self::try_write`] does.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when there is no room.
    pub fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, socket => socket.try_write_vectored(parts))
    }

    /// Ready when the kernel has taken all that was written; TLS may keep a part. When it is pending, the task is woken when the kernel takes more.
    ///
    /// # Errors
    /// The kernel's.
    pub fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(_) | Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(socket) => socket.poll_flushed(cx),
        }
    }
}

impl From<UnixStream> for PeerSocket {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket)
    }
}

impl From<TcpStream> for PeerSocket {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl From<TlsConnection> for PeerSocket {
    fn from(socket: TlsConnection) -> Self {
        Self::Tls(Box::new(socket))
    }
}

impl AsyncRead for PeerSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_read(cx, buffer))
    }
}

impl AsyncWrite for PeerSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}
