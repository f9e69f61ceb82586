//! A connection that holds its place among those that there may be. In: a listener. Out: connections for tonic.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, a pause")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// The connection and its place.
pub(super) struct Placed {
    socket: TcpStream,
    _place: OwnedSemaphorePermit,
}

/// Accepts while there are places, until nobody wants connections any more.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    places: Arc<Semaphore>,
    accepted: mpsc::Sender<io::Result<Placed>>,
) {
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(socket, _)| (socket, place))
        };
        let next = tokio::select! {
            next = next => next,
            () = accepted.closed() => return,
        };
        match next {
            Ok((socket, place)) => {
                let _ = socket.set_nodelay(true);
                if accepted.send(Ok(Placed { socket, _place: place })).await.is_err() {
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
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
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
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
