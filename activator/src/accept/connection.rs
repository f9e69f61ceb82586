//! A publisher's connection, whatever carries its RTMP. In: waits, reads and writes of `publisher` and `link`. Out: bytes, ends, errors.
//! Next: `publisher`, then `handoff` or `link`.
//!
//! Another transport is another variant here, and a listener beside that of RTMP. One whose keys live in this process, as those of TLS do,
//! is not movable: its streams go to workers by link alone.
//!
//! Note: with unread media in the socket it is readable for ever, so "readable" cannot tell the peer's end. Tokio's interest in priority
//! data is ready at the end of the peer (EPOLLRDHUP) too, and at nothing else where no such data is asked for.

use std::io::{self, IoSliceMut};
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

use liveedgecast_common::{socket, sys};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A publisher's connection.
#[derive(Debug)]
pub enum PublisherConnection {
    /// Plain RTMP.
    Tcp(TcpStream),
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
        }
    }

    /// The socket, out of epoll: from here on this process is told nothing about it. `None` for a connection that is not movable.
    pub(crate) fn into_socket(self) -> Option<std::net::TcpStream> {
        match self {
            Self::Tcp(stream) => stream.into_std().ok(),
        }
    }

    /// The connection of a socket that a worker has let go of.
    pub(crate) fn from_socket(socket: std::net::TcpStream) -> io::Result<Self> {
        // A worker whose arrivals gathered, and that was killed, has left its mark.
        sys::set_receive_low_water(&socket, 1)?;
        TcpStream::from_std(socket).map(Self::Tcp)
    }

    /// Waits for what is watched, and for room if there are bytes to be written. Cancel safe.
    pub(crate) async fn watch(&self, watch: WatchFor, writes: bool) -> io::Result<ConnectionEvent> {
        let Self::Tcp(stream) = self;
        let interest = match watch {
            WatchFor::Bytes => Interest::READABLE,
            WatchFor::End => Interest::PRIORITY,
            WatchFor::Reset => Interest::ERROR,
        };
        let ready = stream.ready(if writes { interest | Interest::WRITABLE } else { interest }).await?;
        Ok(match watch {
            WatchFor::Bytes if ready.is_readable() => ConnectionEvent::Bytes,
            WatchFor::End if ready.is_read_closed() => ConnectionEvent::End,
            WatchFor::Reset if ready.is_error() => ConnectionEvent::End,
            _ => ConnectionEvent::Writable,
        })
    }

    /// Waits for the publisher's end; its bytes stay in the kernel. Cancel safe.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        let Self::Tcp(stream) = self;
        stream.ready(Interest::PRIORITY).await.map(drop)
    }

    /// Ready when there may be bytes of the publisher, or its end.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Tcp(stream) = self;
        stream.poll_read_ready(cx)
    }

    /// Ready when there may be room for bytes to the publisher.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Tcp(stream) = self;
        stream.poll_write_ready(cx)
    }

    /// Reads once, if there is something, as [`socket::receive`] does: a read that did not fill its room saves the next one a call that finds
    /// nothing. No bytes are the peer's end.
    pub(crate) fn receive(&self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Self::Tcp(stream) = self;
        socket::receive(stream, room)
    }

    /// Reads once, whether the runtime knows of bytes or not: what gathers below a low-water mark is not reported. No bytes are the peer's end.
    pub(crate) fn receive_now(&self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Self::Tcp(stream) = self;
        socket::receive_now(stream, room)
    }

    /// Reports the connection as readable only from so many bytes on, and at its end; reports from before are forgotten. That loses none, since the
    /// runtime has one thread: it hears of the kernel between polls only.
    pub(crate) fn set_low_water(&self, bytes: u32) {
        let Self::Tcp(stream) = self;
        // Without the mark, arrivals are reported one by one as before.
        let _ = sys::set_receive_low_water(stream, bytes);
        socket::forget_readiness(stream);
    }

    /// Reads once, if there is something. No bytes are the peer's end.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self::Tcp(stream) = self;
        let read = stream.try_read(buffer)?;
        // The kernel falls back to delayed acknowledgements by itself; with the client's Nagle each of them costs 40 ms.
        let _ = sys::quick_ack(stream);
        Ok(read)
    }

    /// Writes once, as much as there is room for.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Self::Tcp(stream) = self;
        stream.try_write(bytes)
    }

    /// Tells the publisher that nothing more comes; its own bytes can still be read.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let Self::Tcp(stream) = self;
        SockRef::from(stream).shutdown(Shutdown::Write)
    }

    /// Closes with a reset.
    pub(crate) fn abort(self) {
        let Self::Tcp(stream) = self;
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}
