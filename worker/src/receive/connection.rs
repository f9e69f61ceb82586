//! The connection of one handoff, after its preface: frames in, frames out, over a Unix socket or TCP, never blocking and
//! bounded both ways. In: a socket and the session's reader and writer. Out: [`HandoffStream`], which the stream's task owns
//! and polls together with everything else of its stream.
//!
//! Note: a socket of tokio belongs to the runtime in which it was made, so it is taken out of the runtime that
//! fetched it ([`Detached`]) and put into the one of the stream's thread.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use liveedgecast_common::handoff::frame::{Reader, Writer};
use liveedgecast_common::handoff::{Frame, FrameError};
use liveedgecast_common::socket::{DetachedTls, PeerSocket};
use tokio::net::{TcpStream, UnixStream};

/// Bytes that may wait to be written. A checkpoint is a quarter of it at most, and the activator reads all the time: an activator that has
/// not read this much hangs, and its streams are better off in its memory of the last checkpoint.
pub const MAX_QUEUED: usize = 1 << 20;
/// Room of the first read. By descriptor next to nothing comes, so that a stream costs no more than this.
const LEAST_READ: usize = 2 << 10;
/// Room of a read at most: one data frame.
const MOST_READ: usize = 64 << 10;

/// The reason why a handoff connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The activator ended it.
    #[error("the activator closed the handoff connection")]
    Ended,
    /// The kernel reported an error.
    #[error("the handoff connection broke: {0}")]
    Broken(#[from] io::Error),
    /// A frame is not of our protocol, or was not made with the session's keys.
    #[error("the activator sent something else than expected: {0}")]
    Frame(#[from] FrameError),
    /// More than [`MAX_QUEUED`] bytes wait.
    #[error("the activator has stopped reading: {MAX_QUEUED} bytes wait for it")]
    Overfull,
}

/// News of a link.
#[derive(Debug)]
pub enum LinkArrival {
    /// So many bytes of the publisher, at the beginning of the space that was given.
    Data(usize),
    /// A frame without bytes of the publisher.
    Frame(Frame),
}

/// A handoff connection in a runtime.
#[derive(Debug)]
pub struct HandoffStream {
    socket: PeerSocket,
    reader: Reader,
    writer: Writer,
    /// Queued bytes; the first `sent` of them are on their way.
    queued: Vec<u8>,
    sent: usize,
    /// Room of the next read.
    room: usize,
}

/// A handoff connection between two runtimes.
#[derive(Debug)]
pub struct Detached {
    socket: StdSocket,
    reader: Reader,
    writer: Writer,
    queued: Vec<u8>,
}

#[derive(Debug)]
enum StdSocket {
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream),
    Tls(Box<DetachedTls>),
}

impl HandoffStream {
    /// Creates a connection over `socket`, after the last byte of the preface. Reader and writer are those of
    /// [`SessionKeys::worker_end`](liveedgecast_common::handoff::SessionKeys).
    #[must_use]
    pub fn new(socket: impl Into<PeerSocket>, (reader, writer): (Reader, Writer)) -> Self {
        Self { socket: socket.into(), reader, writer, queued: Vec::new(), sent: 0, room: LEAST_READ }
    }

    /// The next frame. When it is pending, the task is woken when there is more.
    ///
    /// # Errors
    /// The connection has ended, or a frame cannot be understood; either way no more will come.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, HandoffError>> {
        loop {
            if let Some(frame) = self.reader.next()? {
                return Poll::Ready(Ok(frame));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(HandoffError::Ended));
            }
        }
    }

    /// Ready when [`Self::receive`] may find something. Otherwise the task is woken when there is more.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is found by the read.
        if self.reader.has_more() { Poll::Ready(()) } else { self.socket.poll_read_ready(cx).map(drop) }
    }

    /// Takes what has come by link; the publisher's bytes are received straight into `space`, which is not empty: as a rule all that has come,
    /// with one call of the kernel. `None`: there is nothing more.
    ///
    /// # Errors
    /// The connection ended or broke, or a frame cannot be understood; either way no more will come.
    pub fn receive(&mut self, space: &mut [u8]) -> Result<Option<LinkArrival>, HandoffError> {
        loop {
            let mut data = self.reader.take_data(space)?;
            if data == 0 {
                if let Some(frame) = self.reader.next()? {
                    return Ok(Some(LinkArrival::Frame(frame)));
                }
                let (direct, received) = match self.reader.parts(space) {
                    Some(mut parts) => (true, self.socket.receive(&mut parts)),
                    None => (false, self.fill()),
                };
                match received {
                    Ok(0) => return Err(HandoffError::Ended),
                    Ok(count) if direct => data = self.reader.received(space, count)?,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
            if data > 0 {
                return Ok(Some(LinkArrival::Data(data)));
            }
        }
    }

    /// Returns whether the connection has bytes that the runtime has not told of: the next [`Self::poll_frame`] finds them. Ask before the
    /// other side's silence is judged.
    pub fn has_more(&mut self) -> bool {
        let read = self.socket.read_now(self.reader.buffer());
        matches!(read, Ok(1..))
    }

    /// Reads once, straight into the reader's buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.fill() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let buffer = self.reader.buffer();
        buffer.reserve(self.room);
        let mut limited = buffer.limit(self.room);
        let read = self.socket.try_read_buf(&mut limited)?;
        self.room = if read == self.room { (self.room * 2).min(MOST_READ) } else { self.room };
        Ok(read)
    }

    /// Puts a frame behind the queued ones. It goes out with [`Self::poll_flush`].
    ///
    /// # Errors
    /// Too much waits already, or the frame is larger than any may be. Nothing of it was queued.
    pub fn queue(&mut self, frame: &Frame) -> Result<(), HandoffError> {
        if self.queued() > MAX_QUEUED {
            return Err(HandoffError::Overfull);
        }
        self.writer.write(&mut self.queued, frame)?;
        Ok(())
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.len() - self.sent
    }

    /// Writes the queued bytes. Ready when none wait any more; when pending, the task is woken when more can be written.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandoffError>> {
        while self.sent < self.queued.len() {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write(&self.queued[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        ready!(self.socket.poll_flushed(cx))?;
        // A checkpoint is large and rare: its memory is not kept.
        if self.queued.capacity() > LEAST_READ {
            self.queued = Vec::new();
        }
        self.queued.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes the connection out of this runtime.
    ///
    /// # Errors
    /// The runtime does not let go of it.
    pub fn detach(mut self) -> io::Result<Detached> {
        self.queued.drain(..self.sent);
        let socket = match self.socket {
            PeerSocket::Unix(socket) => StdSocket::Unix(socket.into_std()?),
            PeerSocket::Tcp(socket) => StdSocket::Tcp(socket.into_std()?),
            PeerSocket::Tls(socket) => StdSocket::Tls(Box::new(socket.detach()?)),
        };
        Ok(Detached { socket, reader: self.reader, writer: self.writer, queued: self.queued })
    }
}

impl Detached {
    /// Puts the connection into this runtime.
    ///
    /// # Errors
    /// The runtime does not take it.
    pub fn attach(self) -> io::Result<HandoffStream> {
        let socket = match self.socket {
            StdSocket::Unix(socket) => PeerSocket::Unix(UnixStream::from_std(socket)?),
            StdSocket::Tcp(socket) => PeerSocket::Tcp(TcpStream::from_std(socket)?),
            StdSocket::Tls(socket) => socket.attach()?.into(),
        };
        let Self { reader, writer, queued, .. } = self;
        Ok(HandoffStream { socket, reader, writer, queued, sent: 0, room: LEAST_READ })
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
