//! The end of a publisher's connection: the last bytes are written, then FIN, incoming bytes are discarded for a moment, then the activator is
//! told. Part of the shell.
//!
//! Note: the activator holds a duplicate of the socket, so that closing ours tells the publisher nothing: only a shutdown does. And a
//! connection that is closed with unread bytes is reset, which takes back the last bytes on their way.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use liveedgecast_common::handoff::{Close, Frame};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::receive::HandoffStream;

/// Time for a connection's other end to close its side (architecture.md, "When the publisher goes").
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Bytes of one read of discarded input.
const DISCARD_BYTES: usize = 16 << 10;

pub(super) struct PublisherEnding {
    socket: Option<TcpStream>,
    control: Option<HandoffStream>,
    output: Vec<u8>,
    written: usize,
    /// FIN is sent.
    shut: bool,
    /// The frame for the activator when the socket is closed.
    done: Option<Frame>,
    deadline: Instant,
}

impl PublisherEnding {
    pub(super) fn new(
        now: Instant,
        socket: Option<TcpStream>,
        control: Option<HandoffStream>,
        output: Vec<u8>,
        how: Close,
        reason: String,
    ) -> Self {
        let mut ending = Self {
            socket,
            control,
            output,
            written: 0,
            shut: false,
            done: Some(Frame::Done { how, reason }),
            deadline: now + DISCARD_TIME,
        };
        if how == Close::Abort {
            ending.end_socket();
        }
        ending
    }

    /// Waits for a publisher that has ended its stream to end its connection: no activator is there to do so.
    pub(super) fn awaited(now: Instant, socket: Option<TcpStream>, output: Vec<u8>) -> Self {
        // No FIN before the publisher's own: a publisher that finds it in front of its last command takes it for an error.
        Self { shut: true, ..Self::new(now, socket, None, output, Close::Graceful, String::new()) }
    }

    /// Gives the publisher back, for another worker; its socket is closed without a shutdown.
    pub(super) fn given_back(now: Instant, control: Option<HandoffStream>) -> Self {
        let why = liveedgecast_common::handoff::Decline::Moving;
        let mut ending = Self::said_or_not(now, control);
        ending.done = Some(Frame::Returned { why });
        ending
    }

    /// Writes the queued frames to the activator.
    pub(super) fn said(now: Instant, control: HandoffStream) -> Self {
        Self::said_or_not(now, Some(control))
    }

    fn said_or_not(now: Instant, control: Option<HandoffStream>) -> Self {
        let deadline = now + DISCARD_TIME;
        Self { socket: None, control, output: Vec::new(), written: 0, shut: false, done: None, deadline }
    }

    /// Ready when the end is done. Timeouts are handled here: poll at [`Self::deadline`], too.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let late = self.deadline <= now;
        if self.socket.is_some() {
            match self.poll_socket(cx) {
                Poll::Pending if !late => return Poll::Pending,
                Poll::Pending | Poll::Ready(_) => {
                    self.end_socket();
                    // The activator has its own 2 s.
                    self.deadline = now + DISCARD_TIME;
                }
            }
        } else if late {
            return Poll::Ready(());
        }
        self.poll_control(cx)
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = &self.socket else { return Poll::Ready(Ok(())) };
        while self.written < self.output.len() {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !self.shut {
            self.shut = true;
            socket2::SockRef::from(socket).shutdown(Shutdown::Write)?;
        }
        let mut rest = [0; DISCARD_BYTES];
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let read =
                socket.try_io(Interest::READABLE, || Ok(rustix::net::recv(socket, &mut rest, RecvFlags::empty())?.0));
            match read {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn end_socket(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Fails when the publisher has closed it before.
            let _ = socket2::SockRef::from(&socket).shutdown(Shutdown::Both);
        }
    }

    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(control) = &mut self.control else { return Poll::Ready(()) };
        if let Some(done) = self.done.take()
            && control.queue(&done).is_err()
        {
            return Poll::Ready(());
        }
        if ready!(control.poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        // Until the activator closes the connection; frames that were on their way do not matter.
        while let Poll::Ready(frame) = control.poll_frame(cx) {
            if frame.is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
