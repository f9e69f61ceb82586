//! Workers' metrics. In: the addresses of workers. Out: the pages that arrived in time, and the number of failed scrapes. Next: `merge`.
//!
//! HTTP/1.0, by hand: one request that never changes, to a server of our own.
#![expect(clippy::disallowed_methods, reason = "shell: sockets and deadlines")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use liveedgecast_common::event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

/// The deadline of one page. Scrapers wait for 10 s; a worker answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of one page: some 100 bytes a sample, some samples an upstream host.
const MAX_PAGE: usize = 1 << 20;
/// Bytes of all pages together: they are held until they are merged. A thousand workers have some 10 KiB each.
const MAX_PAGES: usize = 64 << 20;
/// Bytes that are read at once.
const PIECE: usize = 4 << 10;

/// Fetches all pages at the same time; those that fail are left out and counted.
pub(crate) async fn all(workers: Vec<(String, SocketAddr)>) -> (Vec<(String, String)>, u64) {
    let mut fetches = JoinSet::new();
    let left = Arc::new(AtomicUsize::new(MAX_PAGES));
    for (name, address) in workers {
        let left = Arc::clone(&left);
        fetches.spawn(async move {
            let page =
                timeout(TIMEOUT, page(address, &left)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            (name, page)
        });
    }
    let (mut pages, mut failures) = (Vec::new(), 0);
    for (name, page) in fetches.join_all().await {
        match page {
            Ok(page) => pages.push((name, page)),
            Err(error) => {
                failures += 1;
                debug!(event = event::SCRAPE_FAILED, worker = name, %error, "scrape failed");
            }
        }
    }
    pages.sort();
    (pages, failures)
}

/// `left`: the bytes that all pages together may still have.
async fn page(address: SocketAddr, left: &AtomicUsize) -> io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
    let (mut answer, mut piece) = (Vec::new(), vec![0; PIECE]);
    loop {
        let read = socket.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..read]);
        if answer.len() > MAX_PAGE {
            return Err(invalid("its page is too long"));
        }
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(read)).is_err() {
            return Err(invalid("all pages together are too long"));
        }
    }
    let answer = String::from_utf8(answer).map_err(|_| invalid("its page is no text"))?;
    let (head, page) = answer.split_once("\r\n\r\n").ok_or_else(|| invalid("its answer is cut short"))?;
    let status = head.split(' ').nth(1);
    if status != Some("200") {
        return Err(invalid("its answer is not 200"));
    }
    Ok(page.to_owned())
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::http::{Answer, Routes, serve};
    use liveedgecast_common::listen::listen;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn any() -> (tokio::net::TcpListener, SocketAddr) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_harms_nobody() {
        let stop = CancellationToken::new();
        let (good, good_at) = any();
        let routes = Routes::new().get("/metrics", |_| async { Answer::metrics("a 1\n") });
        tokio::spawn(serve(good, routes, stop.clone()));
        let (long, long_at) = any();
        let routes = Routes::new().get("/metrics", |_| async { Answer::text("x".repeat(2 << 20)) });
        tokio::spawn(serve(long, routes, stop.clone()));
        let (other, other_at) = any();
        tokio::spawn(serve(other, Routes::new(), stop.clone()));
        let (_silent, silent_at) = any();
        let (gone, gone_at) = any();
        drop(gone);
        let workers =
            [("silent", silent_at), ("long", long_at), ("good", good_at), ("other", other_at), ("gone", gone_at)];
        let (pages, failures) = all(workers.map(|(name, at)| (name.to_owned(), at)).to_vec()).await;
        assert_eq!(pages, [("good".to_owned(), "a 1\n".to_owned())]);
        assert_eq!(failures, 4);
        stop.cancel();
    }
}
