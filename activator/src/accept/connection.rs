//! A publisher's connection, whatever carries its RTMP. In: waits, reads and writes of `publisher` and `link`. Out: bytes, ends, errors.
//! Next: `publisher`, then `handoff` or `link`.
//!
//! Another transport is another variant here, and a listener beside that of RTMP. TLS, whose keys live in this process, is not movable: its
//! streams go to workers by link alone.
//!
//! Note: with unread media in the socket it is readable for ever, so "readable" cannot tell the peer's end. Tokio's interest in priority
//! data is ready at the end of the peer (EPOLLRDHUP) too, and at nothing else where no such data is asked for.

use std::io::{self, IoSliceMut};
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

use liveedgecast_common::socket::TlsConnection;
use liveedgecast_common::{socket, sys};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A publisher's connection.
#[derive(Debug)]
pub enum PublisherConnection {
    /// Plain RTMP.
    Tcp(TcpStream),
    /// RTMPS, after its handshake. Boxed: most connections are plain.
    Tls(Box<TlsConnection>),
}

/// The signs of a publisher that a held connection is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchFor {
    /// Bytes, or the end in their place.
    Bytes,
    /// The end alone; bytes stay in the kernel.
    End,
    /// A reset alone: bytes before an orderly end are the next worker's.
    Reset,
}

/// A sign of the publisher, or room for what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEvent {
    /// There are bytes to be read.
    Bytes,
    /// The peer has ended the connection.
    End,
    /// There is room for bytes to the publisher, or nothing after all.
    Writable,
}

impl PublisherConnection {
    /// Tells whether a worker can take the connection over as a descriptor.
    pub(crate) fn is_movable(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Tls(_) => false,
        }
    }

    /// The socket, out of epoll: from here on this process is told nothing about it. `None` for a connection that is not movable.
    pub(crate) fn into_socket(self) -> Option<std::net::TcpStream> {
        match self {
            Self::Tcp(stream) => stream.into_std().ok(),
            Self::Tls(_) => None,
        }
    }

    /// Bytes of a movable connection that have been read, by any process.
    pub(crate) fn position(&self) -> Option<u64> {
        match self {
            Self::Tcp(stream) => sys::bytes_received(stream).ok(),
            Self::Tls(_) => None,
        }
    }

    /// Bytes that the kernel has for whoever reads next; 0 if it does not tell.
    pub(crate) fn waiting(&self) -> u64 {
        rustix::io::ioctl_fionread(self.socket()).unwrap_or_default()
    }

    /// The connection of a socket that a worker has let go of.
    pub(crate) fn from_socket(socket: std::net::TcpStream) -> io::Result<Self> {
        // A worker whose arrivals gathered, and that was killed, has left its mark.
        sys::set_receive_low_water(&socket, 1)?;
        TcpStream::from_std(socket).map(Self::Tcp)
    }

    /// The socket, whatever it carries: to wait for, and to set options of.
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(tls) => tls.socket(),
        }
    }

    /// Waits for what is watched, and for room if there are bytes to be written. Cancel safe.
    pub(crate) async fn watch(&self, watch: WatchFor, writes: bool) -> io::Result<ConnectionEvent> {
        let interest = match watch {
            WatchFor::Bytes if matches!(self, Self::Tls(tls) if tls.has_more()) => return Ok(ConnectionEvent::Bytes),
            WatchFor::Bytes => Interest::READABLE,
            WatchFor::End => Interest::PRIORITY,
            WatchFor::Reset => Interest::ERROR,
        };
        let ready = self.socket().ready(if writes { interest | Interest::WRITABLE } else { interest }).await?;
        Ok(match watch {
            WatchFor::Bytes if ready.is_readable() => ConnectionEvent::Bytes,
            WatchFor::End if ready.is_read_closed() => ConnectionEvent::End,
            WatchFor::Reset if ready.is_error() => ConnectionEvent::End,
            _ => ConnectionEvent::Writable,
        })
    }

    /// Waits for the publisher's end; its bytes stay in the kernel. Cancel safe.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.socket().ready(Interest::PRIORITY).await.map(drop)
    }

    /// Ready when there may be bytes of the publisher, or its end.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_readable(cx),
        }
    }

    /// Ready when there may be room for bytes to the publisher.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_write_ready(cx)
    }

    /// Reads once, if there is something, as [`socket::receive`] does: a read that did not fill its room saves the next one a call that finds
    /// nothing. No bytes are the peer's end.
    pub(crate) fn receive(&self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => socket::receive(stream, room),
            Self::Tls(tls) => tls.receive(room, socket::receive),
        }
    }

    /// Reads once, whether the runtime knows of bytes or not: what gathers below a low-water mark is not reported. No bytes are the peer's end.
    pub(crate) fn receive_now(&self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => socket::receive_now(stream, room),
            Self::Tls(tls) => tls.receive(room, socket::receive_now),
        }
    }

    /// Reports the connection as readable only from so many bytes on, and at its end; reports from before are forgotten. That loses none, since the
    /// runtime has one thread: it hears of the kernel between polls only.
    pub(crate) fn set_low_water(&self, bytes: u32) {
        let stream = self.socket();
        // Without the mark, arrivals are reported one by one as before.
        let _ = sys::set_receive_low_water(stream, bytes);
        socket::forget_readiness(stream);
    }

    /// Reads once, if there is something. No bytes are the peer's end.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self {
            Self::Tcp(stream) => stream.try_read(buffer)?,
            Self::Tls(tls) => tls.receive(&mut [IoSliceMut::new(buffer)], socket::receive)?,
        };
        // The kernel falls back to delayed acknowledgements by itself; with the client's Nagle each of them costs 40 ms.
        let _ = sys::quick_ack(self.socket());
        Ok(read)
    }

    /// Writes once, as much as there is room for.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Gives the kernel the written bytes that wait here to be sent, as many as it takes.
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Tells whether the kernel has all bytes that were written.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Tls(tls) => tls.is_flushed(),
        }
    }

    /// Tells the publisher that nothing more comes; its own bytes can still be read.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Tls(tls) => tls.finish(),
        }
    }

    /// Closes with a reset.
    pub(crate) fn abort(self) {
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }
}
