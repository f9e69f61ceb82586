//! A connection by TLS, after its handshake: a publisher's, or one between our own processes. In: waits, reads and writes, never waiting. Out:
//! bytes in the clear, ends, errors. Next: the code that has one of several transports.
//!
//! Bytes of the kernel are decrypted until there is no room left or nothing more has come; the rest stays here, so a connection whose
//! last read has filled its room is readable whatever the kernel says. A peer that closes without `close_notify`, as most publishers do, has
//! ended all the same: RTMP and the handoff have goodbyes of their own.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::Connection;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::receive;

/// Room for one read of the kernel: a whole record (RFC 8446, 5.2: 16 KiB, 256 bytes, and its header) and the beginning of the next one.
const ENCRYPTED_READ: usize = 20 << 10;

/// A connection that TLS protects.
#[derive(Debug)]
pub struct TlsConnection {
    socket: TcpStream,
    told: Option<TlsErrorSink>,
    // A lock, because reads and writes share the state of TLS, and both have the connection by reference; its one task never waits for it.
    session: Mutex<TlsSession>,
}

#[derive(Debug)]
struct TlsSession {
    tls: Connection,
    /// Bytes of the kernel that TLS has not taken, because there was no room for what they say.
    pending: Vec<u8>,
    /// There may be more to read, whatever the kernel says.
    more: bool,
    /// The way in which the publisher's bytes have ended.
    end: Option<Result<(), io::ErrorKind>>,
}

/// Hears of errors of TLS after the handshake.
type TlsErrorSink = fn(&TcpStream, &rustls::Error);

/// A TLS connection between two runtimes.
#[derive(Debug)]
pub struct DetachedTls {
    socket: std::net::TcpStream,
    told: Option<TlsErrorSink>,
    session: TlsSession,
}

/// The function that reads once from the kernel.
type Receive = fn(&TcpStream, &mut [IoSliceMut<'_>]) -> io::Result<usize>;

impl TlsConnection {
    /// The connection after a handshake, which may have brought the peer's first bytes along.
    #[must_use]
    pub fn new(socket: TcpStream, tls: impl Into<Connection>) -> Self {
        let session = TlsSession { tls: tls.into(), pending: Vec::new(), more: true, end: None };
        Self { socket, told: None, session: Mutex::new(session) }
    }

    /// Lets `told` hear of an error of TLS; the reads say no more than that TLS is broken.
    #[must_use]
    pub fn telling(self, told: fn(&TcpStream, &rustls::Error)) -> Self {
        Self { told: Some(told), ..self }
    }

    fn session(&self) -> MutexGuard<'_, TlsSession> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket underneath, to wait for.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// A value that both ends of this TLS connection know and nobody else does, under this label (RFC 8446, 7.5).
    ///
    /// # Errors
    /// TLS has none to give.
    pub fn exporter(&self, label: &[u8]) -> io::Result<[u8; 32]> {
        self.session().tls.export_keying_material([0; 32], label, None).map_err(io::Error::other)
    }

    /// True if there may be bytes here that the kernel has given already.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.session().more
    }

    /// Ready when there may be bytes of the peer, or its end. Gives the kernel what it has not taken yet.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        // An error is found by the read.
        while session.tls.wants_write()
            && self.socket.poll_write_ready(cx).is_ready()
            && session.flush(&self.socket).is_ok()
        {}
        if session.more { Poll::Ready(Ok(())) } else { self.socket.poll_read_ready(cx) }
    }

    /// Reads what there is, if there is something, up to the room, which is not empty. No bytes are the peer's end.
    ///
    /// # Errors
    /// The kernel's, or the peer broke TLS; [`io::ErrorKind::WouldBlock`] when there is nothing.
    pub fn receive(&self, parts: &mut [IoSliceMut<'_>], receive: Receive) -> io::Result<usize> {
        let mut session = self.session();
        let mut room = ReadRoom { parts, part: 0, offset: 0, filled: 0 };
        let pending = std::mem::take(&mut session.pending);
        let tell = |error: &rustls::Error| self.told.iter().for_each(|told| told(&self.socket, error));
        let mut used = session.decrypt(&pending, &mut room, tell);
        if used < pending.len() {
            session.pending = pending[used..].to_vec();
        }
        while !room.is_full() && session.end.is_none() {
            let mut buffer = [0; ENCRYPTED_READ];
            let read = match receive(&self.socket, &mut [IoSliceMut::new(&mut buffer)]) {
                Ok(0) => {
                    session.end = Some(Ok(()));
                    break;
                }
                Ok(read) => read,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                Err(error) => {
                    session.end = Some(Err(error.kind()));
                    break;
                }
            };
            used = session.decrypt(&buffer[..read], &mut room, tell);
            session.pending.extend_from_slice(&buffer[used..read]);
            if read < buffer.len() {
                break;
            }
        }
        // An answer of TLS itself, such as an alert.
        let _ = session.flush(&self.socket);
        session.more = room.is_full() || session.end.is_some();
        match session.end {
            _ if room.filled > 0 => Ok(room.filled),
            Some(Ok(())) => Ok(0),
            Some(Err(kind)) => Err(kind.into()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes once, as much as there is room for. A part may wait here for the kernel: see [`Self::poll_flushed`].
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when there is no room.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// Writes several parts as [`Self::try_write`] does.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] when there is no room.
    pub fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session();
        session.flush(&self.socket)?;
        if session.tls.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = session.tls.writer().write_vectored(parts)?;
        session.flush(&self.socket)?;
        Ok(written)
    }

    /// Gives the kernel what it has not taken yet, as much as it takes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn flush(&self) -> io::Result<()> {
        self.session().flush(&self.socket)
    }

    /// Tells whether the kernel has taken everything.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        !self.session().tls.wants_write()
    }

    /// Ready when the kernel has taken everything. When it is pending, the task is woken when the kernel takes more.
    ///
    /// # Errors
    /// The kernel's.
    pub fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.flush()?;
            if self.is_flushed() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_write_ready(cx))?;
        }
    }

    /// Tells the peer that nothing more comes; its own bytes can still be read.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish(&self) -> io::Result<()> {
        let mut session = self.session();
        session.tls.send_close_notify();
        session.flush(&self.socket)?;
        SockRef::from(&self.socket).shutdown(Shutdown::Write)
    }

    /// Takes the connection out of this runtime.
    ///
    /// # Errors
    /// The runtime does not let go of it.
    pub fn detach(self) -> io::Result<DetachedTls> {
        let session = self.session.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(DetachedTls { socket: self.socket.into_std()?, told: self.told, session })
    }
}

impl DetachedTls {
    /// Puts the connection into this runtime.
    ///
    /// # Errors
    /// The runtime does not take it.
    pub fn attach(self) -> io::Result<TlsConnection> {
        let mut session = self.session;
        // The other runtime may have heard of bytes that nobody has read since.
        session.more = true;
        Ok(TlsConnection { socket: TcpStream::from_std(self.socket)?, told: self.told, session: Mutex::new(session) })
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while buffer.remaining() > 0 {
            ready!(self.poll_readable(cx))?;
            match self.receive(&mut [IoSliceMut::new(buffer.initialize_unfilled())], receive) {
                Ok(read) => {
                    buffer.advance(read);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write_vectored(parts) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flushed(cx))?;
        Poll::Ready(self.finish())
    }
}

impl TlsSession {
    /// Decrypts bytes of the kernel into the room; returns the number of bytes that TLS has taken, which are all unless the room is full.
    fn decrypt(&mut self, bytes: &[u8], room: &mut ReadRoom<'_, '_>, tell: impl Fn(&rustls::Error)) -> usize {
        let mut used = 0;
        loop {
            match room.fill(&mut self.tls) {
                // close_notify
                Ok(true) => self.end = self.end.or(Some(Ok(()))),
                Ok(false) => {}
                Err(kind) => self.end = self.end.or(Some(Err(kind))),
            }
            if used == bytes.len() || room.is_full() || self.end.is_some() {
                return used;
            }
            let taken = self.tls.read_tls(&mut &bytes[used..]).map_err(|error| error.kind());
            let taken = taken.and_then(|taken| {
                let processed = self.tls.process_new_packets().inspect_err(&tell);
                processed.map_err(|_| io::ErrorKind::InvalidData).map(|_| taken)
            });
            match taken {
                Ok(0) => self.end = Some(Ok(())),
                Ok(taken) => used += taken,
                Err(kind) => {
                    self.end = Some(Err(kind));
                    return bytes.len();
                }
            }
        }
    }

    /// Writes the records that TLS has made ready, as many as the kernel takes.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Records(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A socket as rustls reads from it and writes to it.
#[derive(Debug)]
pub struct Records<'a>(pub &'a TcpStream);

impl Write for Records<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Records<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

/// The room of a read, and how much of it is filled.
struct ReadRoom<'a, 'b> {
    parts: &'a mut [IoSliceMut<'b>],
    part: usize,
    /// Bytes of this part that are filled.
    offset: usize,
    filled: usize,
}

impl ReadRoom<'_, '_> {
    fn is_full(&self) -> bool {
        self.part == self.parts.len()
    }

    /// Takes what TLS has decrypted, until it has no more or the room is full; true at `close_notify`.
    fn fill(&mut self, tls: &mut Connection) -> Result<bool, io::ErrorKind> {
        while let Some(part) = self.parts.get_mut(self.part) {
            let rest = &mut part[self.offset..];
            if rest.is_empty() {
                (self.part, self.offset) = (self.part + 1, 0);
                continue;
            }
            match tls.reader().read(rest) {
                Ok(0) => return Ok(true),
                Ok(read) => {
                    self.offset += read;
                    self.filled += read;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.kind()),
            }
        }
        Ok(false)
    }
}
