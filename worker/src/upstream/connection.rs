//! A connection to an upstream, with or without TLS: bytes in both directions, never waiting, nothing copied where there is no TLS. The
//! session's own bytes and the media are both written here, and leave the process.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use liveedgecast_common::sys;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Bytes that rustls takes before it wants to be flushed (its default, which is kept), with room for the headers of its records.
const TLS_BUFFER: u64 = (64 << 10) + (4 << 10);

#[derive(Debug)]
enum UpstreamSocket {
    Plain(TcpStream),
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        /// Bytes taken since the kernel had everything.
        unflushed: u64,
    },
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Connection {
    transport: UpstreamSocket,
}

impl Connection {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self { transport: UpstreamSocket::Plain(stream) }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { transport: UpstreamSocket::Tls { stream: Box::new(stream), unflushed: 0 } }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match &self.transport {
            UpstreamSocket::Plain(stream) => stream,
            UpstreamSocket::Tls { stream, .. } => stream.get_ref().0,
        }
    }

    /// Ready when [`Self::poll_read`] is worth a buffer. TLS may have bytes that the socket has given up already, so it is always asked.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.transport {
            UpstreamSocket::Plain(stream) => stream.poll_read_ready(cx),
            UpstreamSocket::Tls { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Reads some bytes; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            UpstreamSocket::Plain(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
            UpstreamSocket::Tls { stream, .. } => {
                let mut buffer = ReadBuf::new(buffer);
                match ready!(Pin::new(stream).poll_read(cx, &mut buffer)) {
                    // The peer went without close_notify, as most servers do: RTMP has its own ends, so nothing can be cut off unseen.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
                    Err(error) => Poll::Ready(Err(error)),
                    Ok(()) => Poll::Ready(Ok(buffer.filled().len())),
                }
            }
        }
    }

    /// Writes at least one byte, unless the slices have none.
    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            UpstreamSocket::Plain(stream) => loop {
                // Nearly every write finds room, and asks for nothing else.
                match stream.try_write_vectored(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_write_ready(cx))?,
                    result => return Poll::Ready(result),
                }
            },
            UpstreamSocket::Tls { stream, unflushed } => {
                let taken = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices))?;
                // TLS has given the kernel as much as that would take.
                *unflushed = if stream.get_ref().1.wants_write() { *unflushed + taken as u64 } else { 0 };
                Poll::Ready(Ok(taken))
            }
        }
    }

    /// Returns whether TLS has bytes that the kernel has not.
    pub(super) fn is_unflushed(&self) -> bool {
        matches!(self.transport, UpstreamSocket::Tls { unflushed: 1.., .. })
    }

    /// Gives the kernel the bytes that TLS still has.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            UpstreamSocket::Tls { stream, unflushed } if *unflushed > 0 => {
                ready!(Pin::new(stream).poll_flush(cx))?;
                *unflushed = 0;
                Poll::Ready(Ok(()))
            }
            UpstreamSocket::Plain(_) | UpstreamSocket::Tls { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Ends the writing side of the connection.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            UpstreamSocket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            UpstreamSocket::Tls { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Bytes written that the peer's kernel has not acknowledged, those in TLS's buffer included; with TLS rather too many than too few.
    /// `None`: the kernel does not tell.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        let unsent = u64::from(sys::unsent(self.socket()).ok()?);
        let buffered = match &self.transport {
            UpstreamSocket::Plain(_) => 0,
            UpstreamSocket::Tls { unflushed, .. } => (*unflushed).min(TLS_BUFFER),
        };
        Some(unsent + buffered)
    }

    /// Acknowledges the next segments at once: servers that leave Nagle on wait for that between two answers.
    pub(super) fn quick_ack(&self) {
        // Without it everything works, 40 ms later.
        let _ = sys::quick_ack(self.socket());
    }
}
