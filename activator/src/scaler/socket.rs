//! The connections of the scaler and their limits. In: a listener. Out: connections, each of which holds its place, with TLS around them
//! if it is configured. Next: `service`, whose tonic server reads them.
//!
//! Any host may connect here. A connection is a stranger's until its certificate has been verified (where one is asked for) or it has made
//! one of KEDA's calls; from then on its place is among the callers', which strangers cannot take. When either limit is reached, the
//! oldest connection of that kind is closed.
//!
//! Note: in the clear, a stranger that makes calls is a caller like KEDA. `SCALER_TLS_CLIENT_CA_FILE` keeps it out.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, tasks, deadlines")]

use std::io;
use std::sync::Arc;

use liveedgecast_common::event;
use liveedgecast_common::evicting_limit::EvictingLimit;
use liveedgecast_common::listen::accept_tcp;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::limits::{HANDSHAKE_TIMEOUT, MAX_CALLERS, MAX_STRANGERS};
use crate::config::ScalerTls;
use crate::net::{CurrentTls, Expiring, Expiry};

/// The scaler's certificate and its clients' authorities, as they are now.
pub type ScalerCertificates = CurrentTls<ScalerTls>;

/// A connection that ends when it loses its place.
pub(super) type Placed = Expiring<Either<TcpStream, Box<TlsStream<TcpStream>>>, Caller>;

/// The places of strangers' and callers' connections.
#[derive(Clone)]
pub(super) struct ConnectionPlaces {
    strangers: EvictingLimit,
    callers: EvictingLimit,
}

impl ConnectionPlaces {
    pub(super) fn new() -> Self {
        Self { strangers: EvictingLimit::new(MAX_STRANGERS), callers: EvictingLimit::new(MAX_CALLERS) }
    }

    /// Takes a place for a connection, a stranger's until `caller` is known. The future ends when the place is lost.
    fn enter(&self, caller: &Caller) -> Expiry {
        let (place, callers, known) = (self.strangers.enter(), self.callers.clone(), caller.known.clone());
        Box::pin(async move {
            tokio::select! {
                biased;
                () = known.cancelled() => {}
                () = place.lost() => return,
            }
            drop(place);
            callers.enter().lost().await;
        })
    }
}

/// The state of a connection that its calls share.
#[derive(Clone, Default)]
pub(super) struct Caller {
    /// Cancelled when the connection is a caller's.
    known: CancellationToken,
}

impl Caller {
    /// Marks the connection as a caller's: it has made a call, or shown a trusted certificate.
    pub(super) fn known(&self) {
        self.known.cancel();
    }
}

/// Accepts until the receiver of connections is dropped.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    places: ConnectionPlaces,
    tls: Option<Arc<ScalerCertificates>>,
    accepted: mpsc::Sender<io::Result<Placed>>,
) {
    loop {
        let (socket, _) = tokio::select! {
            next = accept_tcp(&listener, "scaler", || ()) => next,
            () = accepted.closed() => return,
        };
        let caller = Caller::default();
        let lost = places.enter(&caller);
        if let Some(tls) = &tls {
            tokio::spawn(handshake(socket, tls.config(), caller, lost, accepted.clone()));
        } else if accepted.send(Ok(Expiring::new(Either::Left(socket), caller, lost))).await.is_err() {
            return;
        }
    }
}

/// Finishes the TLS handshake of one connection, in a task of its own, while the connection has its place: a peer that never finishes
/// delays no other.
async fn handshake(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    caller: Caller,
    mut lost: Expiry,
    accepted: mpsc::Sender<io::Result<Placed>>,
) {
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(socket)) => shaken,
        () = &mut lost => return,
    };
    match shaken {
        Ok(Ok(socket)) => {
            // rustls keeps a peer's certificate only if one was requested and has been verified.
            if socket.get_ref().1.peer_certificates().is_some() {
                caller.known();
            }
            let _ = accepted.send(Ok(Expiring::new(Either::Right(Box::new(socket)), caller, lost))).await;
        }
        Ok(Err(error)) => debug!(event = event::SCALER_HANDSHAKE_FAILED, %error, "TLS handshake failed"),
        Err(_) => debug!(event = event::SCALER_HANDSHAKE_FAILED, error = "deadline", "TLS handshake failed"),
    }
}
