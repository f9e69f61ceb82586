//! The PROXY header and the TLS handshake of a connection, before its first byte of RTMP. In: a connection as the loop has
//! accepted it. Out: the same in the clear for this process, or nothing, after an orderly close. Next: `publisher`.
#![expect(clippy::disallowed_methods, reason = "shell: deadlines, the time for a log line")]

use std::net::Shutdown;
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::event;
use liveedgecast_common::log_limiter::LogLimiter;
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::connection::PublisherConnection;
use super::limits::{FAREWELL_BYTES, FAREWELL_TIME, PROXY_TIME};
use super::proxied::{self, NotNamed};
use super::secure::{FailedHandshake, RtmpsListener, TlsFailure};
use super::task::Accepted;

/// Limits the lines about proxies that do not name their clients.
static NAMELESS: LogLimiter = LogLimiter::new(Duration::from_secs(10));

/// Limits the lines about connections to the RTMPS port that do not become publishers, for each reason.
static FAILED: [LogLimiter; TlsFailure::ALL.len()] =
    [const { LogLimiter::new(Duration::from_secs(10)) }; TlsFailure::ALL.len()];

impl Accepted {
    /// The connection in the clear and with its client's own address, after its PROXY header and its TLS handshake if it has them before it.
    /// `None`: there is nobody to talk to.
    pub(crate) async fn opened(mut self) -> Option<Self> {
        // Boxed: most connections have no use for the room.
        if self.proxied {
            self = Box::pin(self.named()).await?;
        }
        match self.rtmps.take() {
            None => Some(self),
            Some(rtmps) => Box::pin(self.secured(&rtmps)).await,
        }
    }

    /// The connection with the address of the proxy's client.
    async fn named(mut self) -> Option<Self> {
        let PublisherConnection::Tcp(socket) = &mut self.connection else { return None };
        let named = tokio::select! {
            named = timeout(PROXY_TIME, proxied::client(socket)) => named,
            () = self.permit.lost() => return None,
        };
        let proxy = self.client;
        let why = match named {
            Ok(Ok(client)) => {
                self.client = client.unwrap_or(proxy);
                match self.permit.name(self.client.ip()) {
                    Ok(()) => {
                        if let Some(why) = self.permit.instead() {
                            self.metrics.turned_away(why);
                        }
                        return Some(self);
                    }
                    Err(why) => {
                        self.metrics.turned_away(why);
                        let client = self.client;
                        debug!(event = event::CONNECTION_REFUSED, %client, %proxy, why = why.as_str(), "connection refused");
                        return None;
                    }
                }
            }
            Ok(Err(NotNamed::Probe)) => {
                self.metrics.probes.inc();
                debug!(event = event::PROXY_PROBED, %proxy, "connection of a proxy ended without a byte");
                return None;
            }
            Ok(Err(why)) => why.to_string(),
            Err(_) => "no PROXY header in time".to_owned(),
        };
        self.metrics.nameless.inc();
        if NAMELESS.is_due(now()) {
            let advice = "let the proxy send PROXY headers, version 1 or 2, or take its address out of TRUSTED_PROXIES";
            warn!(event = event::PROXY_REFUSED, %proxy, why, advice, "connection of a proxy refused: its client is not known");
        }
        let Self { connection: PublisherConnection::Tcp(socket), permit, .. } = self else { return None };
        close(socket).await;
        drop(permit);
        None
    }

    async fn secured(self, rtmps: &RtmpsListener) -> Option<Self> {
        let Self { connection, client, permit, metrics, proxied, .. } = self;
        let PublisherConnection::Tcp(socket) = connection else { return None };
        let secured = tokio::select! {
            secured = rtmps.secure(socket) => secured,
            () = permit.lost() => {
                metrics.tls_failed(TlsFailure::Evicted);
                return None;
            }
        };
        let FailedHandshake { why, detail, socket } = match secured {
            Ok(connection) => return Some(Self { connection, client, permit, rtmps: None, proxied, metrics }),
            Err(failed) => failed,
        };
        metrics.tls_failed(why);
        match why {
            TlsFailure::PlainRtmp | TlsFailure::Handshake | TlsFailure::Proxied
                if FAILED[why as usize].is_due(now()) =>
            {
                let advice = why.advice();
                info!(event = event::RTMPS_FAILED, %client, class = why.as_str(), detail, advice, "publisher by RTMPS failed");
            }
            _ => {
                debug!(event = event::RTMPS_FAILED, %client, class = why.as_str(), detail, "publisher by RTMPS failed")
            }
        }
        // The permit is held until the end.
        close(socket).await;
        drop(permit);
        None
    }
}

/// Advice on a PROXY header that nobody has asked for.
pub(crate) const UNTRUSTED: &str = "if this is a proxy of yours, name its address in TRUSTED_PROXIES";

impl TlsFailure {
    /// Advice for the operator.
    fn advice(self) -> &'static str {
        match self {
            Self::PlainRtmp => "the publisher speaks plain RTMP: write rtmps:// in its URL, or the port of RTMP_LISTEN",
            Self::Proxied => UNTRUSTED,
            _ => "the publisher's TLS and RTMPS_CERT_FILE do not fit: the detail says why",
        }
    }
}

/// Closes so that a last answer arrives. Note: a socket that is closed with unread bytes is reset, and the reset overtakes the answer.
async fn close(mut socket: TcpStream) {
    let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
    let discarded = async {
        let (mut buffer, mut bytes) = ([0; 1024], 0);
        while let Ok(read @ 1..) = socket.read(&mut buffer).await {
            bytes += read;
            if bytes > FAREWELL_BYTES {
                return;
            }
        }
    };
    let _ = timeout(FAREWELL_TIME, discarded).await;
}
