//! A connection that holds its place among those that there may be. In: a listener. Out: connections for tonic, with TLS around
//! them if it is asked for.
//!
//! Surprise: anybody may knock here, so whoever holds 64 idle connections could keep KEDA out. The oldest makes room instead; KEDA, which
//! can be that one, comes again at once. It is asked in every direction: a peer that never reads has the server wait for writing alone.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, a pause")]

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use liveedgecast_common::crowd::Crowd;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use super::limits::HANDSHAKE_TIMEOUT;
use super::tls::Current;

/// The connection and its place.
pub(super) struct Placed {
    socket: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// Ready when its place is somebody else's.
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Placed {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.lost.as_mut().poll(cx).is_ready() {
            self.lost = Box::pin(ready(()));
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }
}

/// Accepts until nobody wants connections any more.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    places: Crowd,
    tls: Option<Arc<Mutex<Current>>>,
    accepted: mpsc::Sender<io::Result<Placed>>,
) {
    loop {
        let next = tokio::select! {
            next = listener.accept() => next,
            () = accepted.closed() => return,
        };
        match next {
            Ok((socket, _)) => {
                let _ = socket.set_nodelay(true);
                let place = places.enter();
                let lost = Box::pin(async move { place.lost().await });
                if let Some(tls) = &tls {
                    let config = tls.lock().unwrap_or_else(PoisonError::into_inner).config();
                    tokio::spawn(handshake(socket, config, lost, accepted.clone()));
                } else if accepted.send(Ok(Placed { socket: Either::Left(socket), lost })).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "scaler: cannot accept");
                // Out of descriptors, most likely: accepting again at once would fail again at once.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A task for each connection, as long as it has its place: whoever never finishes holds up nobody.
async fn handshake(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    mut lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    accepted: mpsc::Sender<io::Result<Placed>>,
) {
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(socket)) => shaken,
        () = &mut lost => return,
    };
    match shaken {
        Ok(Ok(socket)) => {
            let _ = accepted.send(Ok(Placed { socket: Either::Right(Box::new(socket)), lost })).await;
        }
        Ok(Err(error)) => debug!(%error, "scaler: no TLS handshake"),
        Err(_) => debug!("scaler: no TLS handshake in time"),
    }
}

impl Connected for Placed {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.socket {
            Either::Left(socket) => socket.connect_info(),
            Either::Right(socket) => socket.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
