//! A connection that holds its place among those that there may be. In: a listener. Out: connections for tonic, with TLS around
//! them if it is asked for.
//!
//! Surprise: anybody may knock here, so whoever holds 64 idle connections could keep KEDA out. The oldest makes room instead; KEDA, which
//! can be that one, comes again at once.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, tasks, deadlines")]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use liveedgecast_common::crowd::Crowd;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use super::limits::HANDSHAKE_TIMEOUT;
use super::tls::Current;
use crate::visit::{self, Over, Visit};

/// A connection as long as it has its place.
pub(super) type Placed = Visit<Either<TcpStream, Box<TlsStream<TcpStream>>>, ()>;

/// Accepts until nobody wants connections any more.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    places: Crowd,
    tls: Option<Arc<Mutex<Current>>>,
    accepted: mpsc::Sender<io::Result<Placed>>,
) {
    loop {
        let (socket, _) = tokio::select! {
            next = visit::next(&listener, "scaler") => next,
            () = accepted.closed() => return,
        };
        let place = places.enter();
        let lost: Over = Box::pin(async move { place.lost().await });
        if let Some(tls) = &tls {
            let config = tls.lock().unwrap_or_else(PoisonError::into_inner).config();
            tokio::spawn(handshake(socket, config, lost, accepted.clone()));
        } else if accepted.send(Ok(Visit::new(Either::Left(socket), (), lost))).await.is_err() {
            return;
        }
    }
}

/// A task for each connection, as long as it has its place: whoever never finishes holds up nobody.
async fn handshake(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    mut lost: Over,
    accepted: mpsc::Sender<io::Result<Placed>>,
) {
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(socket)) => shaken,
        () = &mut lost => return,
    };
    match shaken {
        Ok(Ok(socket)) => {
            let _ = accepted.send(Ok(Visit::new(Either::Right(Box::new(socket)), (), lost))).await;
        }
        Ok(Err(error)) => debug!(%error, "scaler: no TLS handshake"),
        Err(_) => debug!("scaler: no TLS handshake in time"),
    }
}
