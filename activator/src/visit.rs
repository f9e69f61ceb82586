//! Connections of strangers, as tonic's servers take them. In: a listener; a socket, and when its time is over. Out: the same socket,
//! which is of no use from then on. Next: [`crate::fleet`], which gives strangers time to prove themselves, and [`crate::scaler`], where
//! whoever has stayed longest makes room.
//!
//! What surprised us: a gRPC server has no deadline for a connection that never sends a request. So the socket itself asks whether it
//! has to go, whichever way it is polled: a peer that sends pings and never reads has the server wait for writing alone.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// When a visit is over.
pub(crate) type Over = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that has to go when its time is over.
pub(crate) struct Visit<S, P> {
    socket: S,
    /// What calls know of it.
    peer: P,
    over: Over,
}

impl<S, P> Visit<S, P> {
    /// Of `peer`, until `over`.
    pub(crate) fn new(socket: S, peer: P, over: Over) -> Self {
        Self { socket, peer, over }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.over.as_mut().poll(cx).is_ready() {
            self.over = Box::pin(ready(()));
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl<S, P: Clone + Send + Sync + 'static> Connected for Visit<S, P> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Visit<S, P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Visit<S, P> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_visit_that_is_over_ends_whoever_waits_for_it() {
        // As much as the other side takes without reading.
        const ROOM: usize = 8;
        let (ours, mut theirs) = duplex(ROOM);
        let (end, ended) = oneshot::channel::<()>();
        let over = Box::pin(async { _ = ended.await });
        let (mut read, mut write) = split(Visit::new(ours, (), over));
        theirs.write_all(b"ping").await.unwrap();
        assert_eq!(read.read(&mut [0; ROOM]).await.unwrap(), 4);
        write.write_all(&[0; ROOM]).await.unwrap();
        let later = async {
            tokio::task::yield_now().await;
            drop(end);
        };
        let (wrote, ()) = tokio::join!(write.write(&[0]), later);
        assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // Also where it has not been asked yet, and again.
        assert_eq!(read.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let some = [io::IoSlice::new(&[0])];
        assert_eq!(write.write_vectored(&some).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
