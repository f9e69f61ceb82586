//! What a publisher's task does with the socket. In: what the machine wants. Out: bytes, ends, errors. No rule.
//!
//! What surprised us: with unread media in the socket it is readable for ever, so "readable" cannot tell the end. Tokio's interest in
//! priority data is ready with the end of the peer (EPOLLRDHUP) too, and with nothing else where no such data is asked for.
#![expect(clippy::disallowed_methods, reason = "shell: the clock and its timers")]

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::sys;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::limits::{LINGER_BYTES, LINGER_TIME, MAX_UNSENT, READ_BYTES};
use super::machine::Watch;

/// A publisher's socket with what it has not taken yet.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    unsent: Vec<u8>,
}

/// What happened on it.
#[derive(Debug)]
pub(super) enum Happened {
    /// There are bytes to be read.
    Bytes,
    /// The peer's end.
    End,
    /// It may be again as it was.
    Nothing,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unsent: Vec::new() }
    }

    /// Waits for what is wanted, and for room for what is unsent. Cancel safe.
    pub(super) async fn watch(&self, watch: Watch) -> io::Result<Happened> {
        let mut interest = match watch {
            Watch::Bytes => Interest::READABLE,
            Watch::End => Interest::PRIORITY,
            Watch::Reset => Interest::ERROR,
        };
        if !self.unsent.is_empty() {
            interest |= Interest::WRITABLE;
        }
        let ready = self.stream.ready(interest).await?;
        Ok(match watch {
            Watch::Bytes if ready.is_readable() => Happened::Bytes,
            Watch::End if ready.is_read_closed() => Happened::End,
            Watch::Reset if ready.is_error() => Happened::End,
            _ => Happened::Nothing,
        })
    }

    /// Reads once into `buffer`; `None` when there is nothing after all. No bytes are the peer's end.
    pub(super) fn read<'a>(&self, buffer: &'a mut [u8; READ_BYTES]) -> io::Result<Option<&'a [u8]>> {
        match self.stream.try_read(buffer) {
            Ok(read) => {
                // The kernel falls back to delayed acknowledgements by itself; with the client's Nagle each of them costs 40 ms.
                let _ = sys::quick_ack(&self.stream);
                Ok(Some(&buffer[..read]))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes, after what is unsent.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            let written = self.try_write(bytes)?;
            self.unsent.extend_from_slice(&bytes[written..]);
        } else {
            self.unsent.extend_from_slice(bytes);
        }
        if self.unsent.len() > MAX_UNSENT { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Writes what is unsent, as far as it goes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let written = self.try_write(&self.unsent)?;
            if written == 0 {
                return Ok(());
            }
            self.unsent.drain(..written);
        }
        self.unsent = Vec::new();
        Ok(())
    }

    /// Whether everything was taken: a worker begins with an empty line.
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Closes so that what was written arrives: a socket that is closed with unread bytes is reset, and the reset overtakes our words.
    pub(super) async fn close_gracefully(mut self) {
        let until = now() + LINGER_TIME;
        tokio::select! {
            _ = self.linger() => {}
            () = sleep_until(Some(until)) => {}
        }
    }

    async fn linger(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            self.stream.writable().await?;
            self.flush()?;
        }
        SockRef::from(&self.stream).shutdown(Shutdown::Write)?;
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES {
            self.stream.readable().await?;
            match self.throw_away()? {
                Some(0) => break,
                Some(bytes) => thrown_away += bytes,
                None => {}
            }
        }
        Ok(())
    }

    /// Reads once for nothing. A function of its own, so that its buffer is not part of every publisher's task.
    fn throw_away(&self) -> io::Result<Option<usize>> {
        Ok(self.read(&mut [0; READ_BYTES])?.map(<[u8]>::len))
    }

    /// Resets it.
    pub(super) fn abort(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}
