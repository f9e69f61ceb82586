//! A publisher's connection, whatever carries its RTMP. In: waits, reads and writes of `publisher` and `link`. Out: bytes, ends, errors.
//! Next: `publisher`, then `handoff` or `link`.
//!
//! Another transport is another variant here, and a listener beside that of RTMP. One whose keys live in this process, as those of TLS do,
//! is not movable: its streams go to workers by link alone.
//!
//! Note: with unread media in the socket it is readable for ever, so "readable" cannot tell the peer's end. Tokio's interest in priority
//! data is ready at the end of the peer (EPOLLRDHUP) too, and at nothing else where no such data is asked for.

use std::future::pending;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use bytes::BytesMut;
use liveedgecast_common::sys;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, Interest};
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
    /// There are bytes to be read, or they were read.
    Bytes,
    /// The peer has ended the connection.
    End,
    /// There is room for bytes to the publisher, or nothing after all.
    Writable,
}

/// The events that a stream by link waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    /// Bytes are read; without this they stay in the kernel.
    pub(crate) bytes: bool,
    /// The end is of interest while bytes are not.
    pub(crate) end: bool,
    /// There are bytes to be written.
    pub(crate) writable: bool,
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

    /// Waits for what is wanted; bytes are read into `block`, which has room. Cancel safe.
    ///
    /// Note: a read that did not fill its room tells the runtime that the socket is empty, which saves the next read a call that finds
    /// nothing; [`Self::watch`] and [`Self::try_read`] do not have that.
    pub(crate) async fn next(&mut self, wants: Wants, block: &mut BytesMut) -> io::Result<ConnectionEvent> {
        let Self::Tcp(stream) = self;
        let (mut from_publisher, to_publisher) = stream.split();
        let read = async {
            if wants.bytes {
                return match from_publisher.read_buf(block).await? {
                    0 => Ok(ConnectionEvent::End),
                    _ => Ok(ConnectionEvent::Bytes),
                };
            }
            if wants.end {
                from_publisher.ready(Interest::PRIORITY).await?;
                return Ok(ConnectionEvent::End);
            }
            pending().await
        };
        tokio::select! {
            event = read => event,
            // The write tells how it went.
            _ = to_publisher.writable(), if wants.writable => Ok(ConnectionEvent::Writable),
        }
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
