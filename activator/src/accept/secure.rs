//! The TLS handshake of a publisher. In: a connection to the RTMPS port, without a byte so far. Out: a [`PublisherConnection`] in the clear for
//! this process, or the reason why there is none. Next: `publisher`.
//!
//! ```text
//!  ClientHello ──▶ turn ──▶ keys and signature, in a thread of their own ──▶ Finished ──▶ RTMP
//! ```
//! A stranger's ClientHello costs this process a signature: 0.1 ms with an ECDSA key, 1 ms with an RSA key of 2048 bits. So handshakes have
//! turns, one at a time, and after each of them the next one begins no sooner than it has taken: strangers cost half a core at most, and live
//! streams of this process are not delayed by signatures.
//!
//! Everything is bounded as before RTMP's handshake: the deadline and the bytes of the ClientHello here, and the connection's permit, which the
//! next connection may take.
#![expect(clippy::disallowed_methods, reason = "shell: clock, deadline, a thread for signatures")]

use std::io;
use std::sync::Arc;
use std::time::Instant;

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::encryption::Flaw;
use liveedgecast_common::proxy::is_announced;
use liveedgecast_common::socket::{Records, TlsConnection};
use rustls::ServerConnection;
use rustls::server::{Accepted, Acceptor};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::connection::PublisherConnection;
use super::limits::{HANDSHAKE_BYTES, TLS_TIME};
use crate::config::RtmpsTls;
use crate::net::CurrentTls;

/// First byte of a TLS connection: a handshake record (RFC 8446, 5.1).
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;
/// First byte of plain RTMP (RTMP 1.0, 5.2.2).
const RTMP_VERSION: u8 = 3;

/// The certificates of the RTMPS listener, and the turns of handshakes.
pub struct RtmpsListener {
    certificates: CurrentTls<RtmpsTls>,
    /// The time from which on the next handshake may begin. Whoever has the lock has the turn, in the order in which they asked.
    turn: Arc<Mutex<Instant>>,
}

/// The reason why a connection has no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The peer speaks plain RTMP.
    PlainRtmp,
    /// The peer begins with a PROXY header, and is no trusted proxy.
    Proxied,
    /// The peer speaks neither TLS nor RTMP.
    NotTls,
    /// The peer does not like our certificate, or has no version or cipher in common with us, or broke TLS.
    Handshake,
    /// The peer did not finish in time.
    Slow,
    /// The peer has left.
    Left,
    /// The connection's place was given to another one.
    Evicted,
}

impl TlsFailure {
    /// Every reason, for metrics that exist before the first event.
    pub(crate) const ALL: [Self; 7] =
        [Self::PlainRtmp, Self::Proxied, Self::NotTls, Self::Handshake, Self::Slow, Self::Left, Self::Evicted];

    /// The reason as logs and metrics show it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PlainRtmp => "plain_rtmp",
            Self::Proxied => "proxied",
            Self::NotTls => "not_tls",
            Self::Handshake => "handshake",
            Self::Slow => "slow",
            Self::Left => "left",
            Self::Evicted => "evicted",
        }
    }
}

/// A failed handshake.
pub(super) struct FailedHandshake {
    pub(super) why: TlsFailure,
    /// The words of TLS, for the log.
    pub(super) detail: String,
    pub(super) socket: TcpStream,
}

/// A step that has failed.
type HandshakeStep<T> = Result<T, (TlsFailure, String)>;

impl RtmpsListener {
    /// Reads the certificates.
    ///
    /// # Errors
    /// A file cannot be read, or does not fit the others.
    pub fn new(files: RtmpsTls) -> Result<Self, Flaw> {
        Ok(Self { certificates: CurrentTls::new(files)?, turn: Arc::new(Mutex::new(now())) })
    }

    /// Seconds since 1970 at which the first of the certificates expires, if that can be told.
    pub(crate) fn end(&self) -> Option<u64> {
        self.certificates.end()
    }

    /// Makes the handshake. Cancelling it closes the connection.
    pub(super) async fn secure(&self, socket: TcpStream) -> Result<PublisherConnection, FailedHandshake> {
        let until = now() + TLS_TIME;
        let shaken = tokio::select! {
            shaken = self.shake_hands(&socket) => shaken,
            () = sleep_until(Some(until)) => Err((TlsFailure::Slow, "deadline".to_owned())),
        };
        match shaken {
            Ok(tls) => Ok(PublisherConnection::Tls(Box::new(TlsConnection::new(socket, tls)))),
            Err((why, detail)) => Err(FailedHandshake { why, detail, socket }),
        }
    }

    async fn shake_hands(&self, socket: &TcpStream) -> HandshakeStep<ServerConnection> {
        let mut first = [0; 6];
        match socket.peek(&mut first).await {
            Ok(1..) if first[0] == TLS_HANDSHAKE => {}
            Ok(1..) if first[0] == RTMP_VERSION => return Err((TlsFailure::PlainRtmp, String::new())),
            Ok(1..) if is_announced(&first) => return Err((TlsFailure::Proxied, String::new())),
            Ok(1..) => return Err((TlsFailure::NotTls, format!("the first byte is {:#04x}", first[0]))),
            Ok(0) => return Err((TlsFailure::Left, String::new())),
            Err(error) => return Err((TlsFailure::Left, error.to_string())),
        }
        let mut bytes = 0;
        let hello = hear_hello(socket, &mut bytes).await?;
        let mut tls = self.answer(hello, socket).await?;
        loop {
            while tls.wants_write() {
                socket.writable().await.map_err(left)?;
                match tls.write_tls(&mut Records(socket)) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(left(error)),
                    _ => {}
                }
            }
            if !tls.is_handshaking() {
                return Ok(tls);
            }
            read_some(socket, &mut bytes, |records| tls.read_tls(records)).await?;
            if let Err(error) = tls.process_new_packets() {
                let _ = tls.write_tls(&mut Records(socket));
                return Err((TlsFailure::Handshake, error.to_string()));
            }
        }
    }

    /// Waits for the turn, and answers the ClientHello.
    async fn answer(&self, hello: Accepted, socket: &TcpStream) -> HandshakeStep<ServerConnection> {
        let config = self.certificates.config();
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
        sleep_until(Some(*turn)).await;
        // The turn goes along: a connection that is closed meanwhile does not end the signature.
        let answered = spawn_blocking(move || {
            let begun = now();
            let answered = hello.into_connection(config);
            let ended = now();
            *turn = ended + (ended - begun);
            answered
        });
        let tls = answered.await.map_err(|error| (TlsFailure::Handshake, error.to_string()))?;
        tls.map_err(|(error, mut alert)| {
            let _ = alert.write(&mut Records(socket));
            (TlsFailure::Handshake, error.to_string())
        })
    }
}

/// Reads the ClientHello.
async fn hear_hello(socket: &TcpStream, bytes: &mut usize) -> HandshakeStep<Accepted> {
    let mut acceptor = Acceptor::default();
    loop {
        read_some(socket, bytes, |records| acceptor.read_tls(records)).await?;
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let _ = alert.write(&mut Records(socket));
                return Err((TlsFailure::Handshake, error.to_string()));
            }
        }
    }
}

/// Reads once, and counts the bytes of the handshake.
async fn read_some(
    socket: &TcpStream,
    bytes: &mut usize,
    mut read: impl FnMut(&mut Records<'_>) -> io::Result<usize>,
) -> HandshakeStep<()> {
    if *bytes > HANDSHAKE_BYTES {
        return Err((TlsFailure::Handshake, format!("more than {HANDSHAKE_BYTES} bytes")));
    }
    loop {
        socket.readable().await.map_err(left)?;
        match read(&mut Records(socket)) {
            Ok(0) => return Err((TlsFailure::Left, String::new())),
            Ok(read) => {
                *bytes += read;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(left(error)),
        }
    }
}

fn left(error: io::Error) -> (TlsFailure, String) {
    (TlsFailure::Left, error.to_string())
}

#[cfg(test)]
#[path = "secure_tests.rs"]
mod tests;
