//! A connection that holds its place among those that there may be. In: a listener. Out: connections for tonic.
//!
//! Surprise: anybody may knock here, so whoever holds 64 idle connections could keep KEDA out. The oldest makes room instead; KEDA, which
//! can be that one, comes again at once. It is asked in every direction: a peer that never reads has the server wait for writing alone.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, a pause")]

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use liveedgecast_common::crowd::Crowd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// The connection and its place.
pub(super) struct Placed {
    socket: TcpStream,
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
pub(super) async fn accept(listener: Arc<TcpListener>, places: Crowd, accepted: mpsc::Sender<io::Result<Placed>>) {
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
                if accepted.send(Ok(Placed { socket, lost })).await.is_err() {
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

impl Connected for Placed {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
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
