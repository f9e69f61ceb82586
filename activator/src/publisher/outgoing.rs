//! A publisher's connection with the bytes that it has not taken yet. In: bytes for the publisher. Out: the same, in order; in the end a close
//! that the publisher's client can read. No rule of RTMP.
#![expect(clippy::disallowed_methods, reason = "shell: the deadline of a close")]

use std::io;

use liveedgecast_common::clock::{now, sleep_until};

use super::limits::{LINGER_BYTES, LINGER_TIME, MAX_UNSENT, READ_BYTES};
use crate::accept::{ConnectionEvent, PublisherConnection, WatchFor};

/// A publisher's connection, and its unsent bytes.
pub(super) struct BufferedConnection {
    connection: PublisherConnection,
    unsent: Vec<u8>,
}

impl BufferedConnection {
    /// A connection without unsent bytes.
    pub(super) fn new(connection: PublisherConnection) -> Self {
        Self { connection, unsent: Vec::new() }
    }

    /// The connection itself, for a worker: it begins with an empty line.
    pub(super) fn connection(&mut self) -> &mut PublisherConnection {
        &mut self.connection
    }

    /// The connection by value, for a worker by descriptor.
    pub(super) fn into_connection(self) -> PublisherConnection {
        self.connection
    }

    /// Bytes that some worker has read of the connection; `None` if the kernel does not tell.
    pub(super) fn position(&self) -> Option<u64> {
        self.connection.position()
    }

    /// Bytes of the publisher that no process has read; 0 if the kernel does not tell.
    pub(super) fn waiting(&self) -> u64 {
        self.connection.waiting()
    }

    /// Tells whether a worker can take the connection over as a descriptor.
    pub(super) fn is_movable(&self) -> bool {
        self.connection.is_movable()
    }

    /// Waits for what is watched, and for room for unsent bytes. Cancel safe.
    pub(super) async fn watch(&self, watch: WatchFor) -> io::Result<ConnectionEvent> {
        self.connection.watch(watch, !self.is_flushed()).await
    }

    /// Reads once into `buffer`; `None` when there is nothing after all. No bytes are the peer's end.
    pub(super) fn read<'a>(&self, buffer: &'a mut [u8; READ_BYTES]) -> io::Result<Option<&'a [u8]>> {
        match self.connection.try_read(buffer) {
            Ok(read) => Ok(Some(&buffer[..read])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes after the unsent bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            let written = self.try_write(bytes)?;
            self.unsent.extend_from_slice(&bytes[written..]);
        } else {
            self.unsent.extend_from_slice(bytes);
        }
        if self.unsent.len() > MAX_UNSENT { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Writes the unsent bytes, as many as there is room for.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let written = self.try_write(&self.unsent)?;
            if written == 0 {
                return Ok(());
            }
            self.unsent.drain(..written);
        }
        self.unsent = Vec::new();
        self.connection.flush()
    }

    /// Tells whether the publisher's socket has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.connection.is_flushed()
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.connection.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Closes so that the written bytes arrive. Note: a socket that is closed with unread bytes is reset, and the reset overtakes our words.
    pub(super) async fn close_gracefully(mut self) {
        let until = now() + LINGER_TIME;
        tokio::select! {
            _ = self.linger() => {}
            () = sleep_until(Some(until)) => {}
        }
    }

    async fn linger(&mut self) -> io::Result<()> {
        while !self.is_flushed() {
            // Nothing but a reset, or room.
            self.connection.watch(WatchFor::Reset, true).await?;
            self.flush()?;
        }
        self.connection.finish()?;
        let mut discarded = 0;
        while discarded < LINGER_BYTES {
            self.connection.watch(WatchFor::Bytes, false).await?;
            match self.discard()? {
                Some(0) => break,
                Some(bytes) => discarded += bytes,
                None => {}
            }
        }
        Ok(())
    }

    /// Reads once and drops the bytes. A function of its own, so that its buffer is not part of every publisher's task.
    fn discard(&self) -> io::Result<Option<usize>> {
        Ok(self.read(&mut [0; READ_BYTES])?.map(<[u8]>::len))
    }

    /// Closes with a reset.
    pub(super) fn abort(self) {
        self.connection.abort();
    }
}
