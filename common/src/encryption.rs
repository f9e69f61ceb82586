//! Encryption between our own processes: TLS 1.3, without certificates to manage or with given ones. In: an address to dial, or a connection that was accepted.
//! Out: a [`PeerSocket`], plain or by TLS, and the control secret as it counts on this connection. Next: the proofs, of [`crate::greet`] and
//! the control service, and of [`crate::handoff`].
//!
//! ```text
//!  dialing side                                                    accepting side
//!    │ ClientHello (first byte 0x16) ─────────────────────────────▶ │   or a plain first byte: for loopback or with `off`
//!    │ ◀────────────────────── ServerHello, a certificate of no one │
//!    │ both: exporter of this connection (RFC 9266)                 │
//!    │ ◀──────────── proofs under HMAC(secret, exporter) ─────────▶ │
//! ```
//! Each process makes itself a key, and nobody checks its certificate, unless certificates are given (`given`). The proof is the check: it is made with a secret that is derived from
//! the control secret and the exporter of the TLS connection. A stranger in the path who ends TLS on both sides has two connections
//! with two exporters, so a proof of the one is none on the other, and the stranger cannot make one. Frames and messages that a secret seals are
//! sealed with the derived one, too.
//!
//! The accepting side looks at the first byte, so no side has to be told what the other one does: both gRPC's and the handoff's dialing
//! side speak first, and neither begins with 0x16.
//!
//! A stranger's ClientHello costs the accepting process a signature of some 0.1 ms. So handshakes have turns, one at a time, with pauses three
//! times as long as they have taken: strangers cost a quarter of a core at most.
//!
//! `pem` reads files of certificates, `end` their last day, `given` makes configurations of them, `refusal` says what to do about one that is refused.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, and the time for a log line")]

mod end;
mod given;
mod pem;
mod refusal;

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme,
};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

pub use self::end::certificate_end;
pub use self::given::InternalTlsArgs;
use self::given::{BothSides, GivenCertificates};
pub use self::pem::{CertificateFiles, Flaw, certificates, flaw, private_key};
use crate::clock::now;
use crate::event;
use crate::key::Secret;
use crate::log_limiter::LogLimiter;
use crate::socket::{PeerSocket, Records, TlsConnection};

/// The name of what is spoken inside (ALPN): a client of something else is refused by TLS itself.
const PROTOCOL: &[u8] = b"liveedgecast/1";
/// The name in certificates. Nobody checks it.
const NAME: &str = "liveedgecast";
/// Label of the value that binds proofs to a TLS connection (RFC 9266, 4.2).
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
/// Label of secrets that are bound to a connection.
const BOUND: &[u8] = b"channel binding\0";
/// First byte of a TLS connection: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Longest handshake for the dialing side. The other side may have many at once, which have turns.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause of handshakes, in times of what they have taken.
const PAUSE_PER_TURN: u32 = 3;
/// Shortest pause. Timers are no finer than a millisecond, so a pause after each handshake would be far longer than it is meant to be.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// Time in which a peer whose certificate is refused reads the reason: an immediate close could discard it on its way.
const REFUSAL_TIME: Duration = Duration::from_millis(500);
/// Bytes that such a peer may send meanwhile: the beginning of a call.
const REFUSAL_BYTES: usize = 64 << 10;

/// The turn of a handshake on the accepting side, and the pause that is due.
static TURN: Mutex<Duration> = Mutex::const_new(Duration::ZERO);

/// Limits the lines about peers that do not encrypt: anybody who can connect can cause one.
static PLAIN: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// The connections between our own processes that are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// All but those within this machine, by loopback.
    #[default]
    Auto,
    /// All.
    On,
    /// None that this process dials; it accepts both kinds.
    Off,
}

impl Encryption {
    /// The words of the setting `ENCRYPTION`.
    pub const CHOICES: [(&str, Self); 3] = [("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];

    /// The word of the setting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// Tells whether a connection to this address is encrypted.
    fn encrypts(self, address: IpAddr) -> bool {
        match self {
            Self::Auto => !address.to_canonical().is_loopback(),
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// The way in which connections between our own processes are protected: which of them are encrypted, and with which certificates.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    encryption: Encryption,
    /// `None`: each process makes one for itself, which nobody checks.
    certificates: Option<Arc<GivenCertificates>>,
}

impl From<Encryption> for Protection {
    fn from(encryption: Encryption) -> Self {
        Self { encryption, certificates: None }
    }
}

impl Protection {
    /// The flags by which another process of ours gets the same.
    #[must_use]
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        let certificates = self.certificates.iter().flat_map(|given| given.flags());
        [("--encryption", self.encryption.as_str().to_owned())].into_iter().chain(certificates).collect()
    }

    /// Seconds since 1970 at which the given certificate of this process expires; `None` without one.
    #[must_use]
    pub fn certificate_end(&self) -> Option<u64> {
        self.certificates.as_ref().and_then(|given| given.end())
    }

    fn both_sides(&self) -> io::Result<BothSides> {
        match &self.certificates {
            Some(given) => Ok(given.both_sides()),
            None => SELF_MADE.clone().map_err(io::Error::other),
        }
    }

    /// Connects, with TLS if it is due. TCP_NODELAY is set. `patience`: how long the connection may take, without the handshake of TLS.
    ///
    /// # Errors
    /// The kernel's, TLS failed, or the time is over.
    pub async fn dial(&self, address: SocketAddr, patience: Duration) -> io::Result<PeerSocket> {
        let socket = timeout(patience, TcpStream::connect(address)).await;
        let late =
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} ms", patience.as_millis()));
        let socket = socket.map_err(late)??;
        socket.set_nodelay(true)?;
        if !self.encryption.encrypts(address.ip()) {
            return Ok(socket.into());
        }
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let tls = ClientConnection::new(self.both_sides()?.dialing, name).map_err(io::Error::other)?;
        let shaken = timeout(HANDSHAKE_TIMEOUT, shake_hands(socket, tls.into())).await;
        shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")))
    }

    /// The connection that `peer` dialed, after the handshake if it speaks TLS. The caller has to limit the time.
    ///
    /// # Errors
    /// The peer does not encrypt and should, TLS failed, or the connection broke.
    pub async fn accept(&self, socket: TcpStream, peer: IpAddr) -> io::Result<PeerSocket> {
        let mut first = [0];
        if socket.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[0] == TLS_HANDSHAKE {
            let tls = ServerConnection::new(self.both_sides()?.accepting).map_err(io::Error::other)?;
            return shake_hands(socket, tls.into()).await;
        }
        if self.encryption.encrypts(peer) {
            if PLAIN.is_due(now()) {
                let advice = "give both sides the same ENCRYPTION; a release before encryption has to be replaced";
                let ours = self.encryption.as_str();
                tracing::warn!(event = event::PLAIN_REFUSED, %peer, encryption = ours, advice, "connection without encryption refused");
            }
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the peer does not encrypt: see ENCRYPTION"));
        }
        Ok(socket.into())
    }
}

/// The value that both ends of a connection know and nobody else does; a plain connection has none.
#[derive(Clone)]
pub struct ChannelBinding(Option<[u8; 32]>);

impl ChannelBinding {
    /// The binding of this connection.
    ///
    /// # Errors
    /// TLS has no exporter.
    pub fn of(socket: &PeerSocket) -> io::Result<Self> {
        match socket {
            PeerSocket::Unix(_) | PeerSocket::Tcp(_) => Ok(Self(None)),
            PeerSocket::Tls(tls) => tls.exporter(EXPORTER).map(|exporter| Self(Some(exporter))),
        }
    }

    /// A secret as it counts on this connection: itself on a plain one.
    #[must_use]
    pub fn bound(&self, secret: &Secret) -> Secret {
        match &self.0 {
            Some(exporter) => secret.derived(&[BOUND, exporter]),
            None => secret.clone(),
        }
    }
}

/// A secret as it counts on this connection; see [`ChannelBinding`].
///
/// # Errors
/// TLS has no exporter.
pub fn bound_secret(secret: &Secret, socket: &PeerSocket) -> io::Result<Secret> {
    Ok(ChannelBinding::of(socket)?.bound(secret))
}

async fn shake_hands(socket: TcpStream, mut tls: Connection) -> io::Result<PeerSocket> {
    loop {
        while tls.wants_write() {
            socket.writable().await?;
            match tls.write_tls(&mut Records(&socket)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        if !tls.is_handshaking() {
            return Ok(TlsConnection::new(socket, tls).telling(tell).into());
        }
        socket.readable().await?;
        match tls.read_tls(&mut Records(&socket)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if let Err(error) = process(&mut tls).await {
            // The alert tells the peer why.
            let _ = tls.write_tls(&mut Records(&socket));
            tell(&socket, &error);
            if matches!(tls, Connection::Server(_)) {
                linger(&socket).await;
            }
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no TLS with the peer: {error}")));
        }
    }
}

/// Logs an error of TLS that is about a certificate.
fn tell(socket: &TcpStream, error: &rustls::Error) {
    if let Ok(peer) = socket.peer_addr() {
        refusal::tell(peer.ip().to_canonical(), error);
    }
}

/// Waits until the peer has read the alert, or for a moment.
async fn linger(socket: &TcpStream) {
    let _ = SockRef::from(socket).shutdown(Shutdown::Write);
    let (mut bytes, mut left) = ([0; 1024], REFUSAL_BYTES);
    let read = async {
        while left > 0 && socket.readable().await.is_ok() {
            match socket.try_read(&mut bytes) {
                Ok(0) => return,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(REFUSAL_TIME, read).await;
}

/// Lets TLS see what has come; the accepting side, to which strangers come, waits for its turn.
async fn process(tls: &mut Connection) -> Result<(), rustls::Error> {
    if matches!(tls, Connection::Client(_)) {
        return tls.process_new_packets().map(drop);
    }
    let mut turn = TURN.lock().await;
    let begun = now();
    let processed = tls.process_new_packets().map(drop);
    *turn += now().saturating_duration_since(begun) * PAUSE_PER_TURN;
    if *turn >= LEAST_PAUSE {
        // In a task of its own, because a stranger that is closed meanwhile must not end the pause.
        tokio::spawn(async move {
            sleep(std::mem::take(&mut *turn)).await;
            drop(turn);
        });
    }
    processed
}

/// The configurations with the key of this process.
static SELF_MADE: LazyLock<Result<BothSides, String>> =
    LazyLock::new(|| self_made().map_err(|error| error.to_string()));

fn self_made() -> Result<BothSides, Box<dyn std::error::Error>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13])?;
    let mut accepting = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key.into())?;
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let mut dialing = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    for_us_alone(&mut accepting, &mut dialing);
    Ok(BothSides { dialing: Arc::new(dialing), accepting: Arc::new(accepting) })
}

/// Sets what all connections between our own processes have in common.
fn for_us_alone(accepting: &mut ServerConfig, dialing: &mut ClientConfig) {
    accepting.alpn_protocols = vec![PROTOCOL.to_vec()];
    dialing.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Every connection has a handshake of its own, so tickets would be bytes for nothing.
    accepting.send_tls13_tickets = 0;
    dialing.resumption = rustls::client::Resumption::disabled();
    dialing.enable_sni = false;
}

/// Accepts the certificate of anybody, because the proof of the secret covers the connection; the handshake's signature is checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 alone is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "encryption_tests.rs"]
mod tests;
