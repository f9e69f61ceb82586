//! A connection that ends by itself, as tonic's servers take it. In: a socket, and the end of its time. Out: the same socket, whose reads
//! and writes fail from then on. Next: `control`, which gives strangers time to prove themselves, and `scaler`, where the oldest
//! stranger makes room.
//!
//! Note: a gRPC server has no deadline for a connection that never sends a request. The socket itself therefore checks whether its time is
//! over, whichever way it is polled: for a peer that sends pings and never reads, the server waits for writing alone.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// Completes at the end of a connection's time.
pub(crate) type Expiry = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket that fails once its time is over.
pub(crate) struct Expiring<S, P> {
    socket: S,
    /// Connection's data for the calls on it.
    peer: P,
    over: Expiry,
    /// Bytes that may still be read until the token is cancelled; `None`: any number.
    unproved: Option<(usize, CancellationToken)>,
}

impl<S, P> Expiring<S, P> {
    /// The socket of `peer`, usable until `over`.
    pub(crate) fn new(socket: S, peer: P, over: Expiry) -> Self {
        Self { socket, peer, over, unproved: None }
    }

    /// The same socket, of which no more than about `most` bytes are read until `proved` is cancelled. `over` waits for that, too.
    pub(crate) fn holding(self, most: usize, proved: CancellationToken) -> Self {
        Self { unproved: Some((most, proved)), ..self }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.over.as_mut().poll(cx).is_ready() {
            self.over = Box::pin(ready(()));
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl<S, P: Clone + Send + Sync + 'static> Connected for Expiring<S, P> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Expiring<S, P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        match &self.unproved {
            Some((_, proved)) if proved.is_cancelled() => self.unproved = None,
            // `over` wakes the task, which `check` has told it of.
            Some((0, _)) => return Poll::Pending,
            _ => {}
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if let Some((left, _)) = &mut self.unproved {
            *left = left.saturating_sub(buf.filled().len() - before);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Expiring<S, P> {
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
    async fn expired_socket_fails_reads_and_writes_that_wait() {
        // Bytes that the other side takes without reading.
        const ROOM: usize = 8;
        let (ours, mut theirs) = duplex(ROOM);
        let (end, ended) = oneshot::channel::<()>();
        let over = Box::pin(async { _ = ended.await });
        let (mut read, mut write) = split(Expiring::new(ours, (), over));
        theirs.write_all(b"ping").await.unwrap();
        assert_eq!(read.read(&mut [0; ROOM]).await.unwrap(), 4);
        write.write_all(&[0; ROOM]).await.unwrap();
        let later = async {
            tokio::task::yield_now().await;
            drop(end);
        };
        let (wrote, ()) = tokio::join!(write.write(&[0]), later);
        assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // Operations that begin after the end fail too, and again.
        assert_eq!(read.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let some = [io::IoSlice::new(&[0])];
        assert_eq!(write.write_vectored(&some).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn bytes_of_a_stranger_stay_in_the_kernel_until_it_has_proved_itself() {
        let (ours, mut theirs) = duplex(64);
        let proved = CancellationToken::new();
        let known = proved.clone();
        let over = Box::pin(async move {
            known.cancelled().await;
            std::future::pending().await
        });
        let mut socket = Expiring::new(ours, (), over).holding(4, proved.clone());
        theirs.write_all(b"pingpong").await.unwrap();
        let mut bytes = [0; 4];
        socket.read_exact(&mut bytes).await.unwrap();
        let early = tokio::select! { biased; _ = socket.read(&mut bytes) => true, () = ready(()) => false };
        assert!(!early);
        let later = async {
            tokio::task::yield_now().await;
            proved.cancel();
        };
        let (read, ()) = tokio::join!(socket.read(&mut bytes), later);
        assert_eq!((read.unwrap(), &bytes), (4, b"pong"));
    }
}
