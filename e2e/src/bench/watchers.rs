//! The watchers of a relay while it is measured: pages in browsers and a Prometheus, as far as the activator can tell. In: the address of its HTTP port.
//! Out: load on it, and how much of it was answered.
//!
//! A page keeps one connection for the events and asks for the rest every two seconds, all of it on one connection, as `page.js` does with a browser.
#![expect(clippy::disallowed_methods, reason = "shell: tasks, sockets, the clock")]

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Pages that are open.
const PAGES: u32 = 3;
/// Interval in which a page asks.
const PAGE_EVERY: Duration = Duration::from_secs(2);
/// Interval of scrapes.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);

/// Pages and a scraper that run until they are stopped.
#[derive(Debug)]
pub struct Watchers {
    tasks: JoinSet<anyhow::Result<()>>,
    counts: Rc<WatchedCounts>,
}

#[derive(Debug, Default)]
struct WatchedCounts {
    scrapes: Cell<u64>,
    answers: Cell<u64>,
    events: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Watchers {
    /// Opens the pages and begins to scrape, in the current `LocalSet`.
    #[must_use]
    pub fn start(http: SocketAddr) -> Self {
        let (mut tasks, counts) = (JoinSet::new(), Rc::<WatchedCounts>::default());
        for _ in 0..PAGES {
            tasks.spawn_local(listen(http, Rc::clone(&counts)));
            tasks.spawn_local(look(http, Rc::clone(&counts)));
        }
        tasks.spawn_local(scrape(http, Rc::clone(&counts)));
        Self { tasks, counts }
    }

    /// Closes everything; returns what was done, in words.
    ///
    /// # Errors
    /// A page or the scraper had no answer, so that nothing was measured.
    pub fn stop(mut self) -> anyhow::Result<String> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended?.context("a watcher has ended")?;
        }
        let (scrapes, answers, events) =
            (self.counts.scrapes.get(), self.counts.answers.get(), self.counts.events.get());
        ensure!(
            scrapes > 0 && answers > 0 && events > 0,
            "{scrapes} scrapes, {answers} answers, {events} lines of events"
        );
        Ok(format!("{PAGES} pages with {answers} answers and {events} lines of events, {scrapes} scrapes"))
    }
}

/// The event stream of a page.
async fn listen(http: SocketAddr, counts: Rc<WatchedCounts>) -> anyhow::Result<()> {
    let mut connection = KeptConnection::open(http).await?;
    connection.ask("/api/v1/events").await?;
    loop {
        let mut line = Vec::new();
        ensure!(connection.0.read_until(b'\n', &mut line).await? > 0, "the events have ended");
        count(&counts.events);
    }
}

/// The questions of a page.
async fn look(http: SocketAddr, counts: Rc<WatchedCounts>) -> anyhow::Result<()> {
    let mut due = interval(PAGE_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        // The activator ends connections now and then, so each round has one of its own.
        let mut connection = KeptConnection::open(http).await?;
        connection.get("/api/v1/demand").await?;
        let streams: Value = serde_json::from_slice(&connection.get("/api/v1/streams").await?)?;
        connection.get("/api/v1/workers").await?;
        for stream in streams.as_array().context("a list of streams")? {
            let id = stream["id"].as_str().context("an id")?;
            connection.get(&format!("/api/v1/streams/{id}/destinations")).await?;
            count(&counts.answers);
        }
    }
}

async fn scrape(http: SocketAddr, counts: Rc<WatchedCounts>) -> anyhow::Result<()> {
    let mut due = interval(SCRAPE_EVERY);
    loop {
        due.tick().await;
        KeptConnection::open(http).await?.get("/metrics").await?;
        count(&counts.scrapes);
    }
}

/// A connection that stays open between requests.
struct KeptConnection(BufReader<TcpStream>);

impl KeptConnection {
    async fn open(http: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(http).await?;
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::new(socket)))
    }

    /// Sends a request and reads the head of its answer; returns the length of the body, if the head tells it.
    async fn ask(&mut self, path: &str) -> anyhow::Result<Option<usize>> {
        // The activator answers a reader without a token at its own address alone.
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.0.get_ref().peer_addr()?);
        self.0.get_mut().write_all(request.as_bytes()).await?;
        let (mut first, mut length) = (true, None);
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line).await? > 0, "{path}: no answer");
            if std::mem::take(&mut first) {
                ensure!(line.contains(" 200 "), "{path}: {line}");
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                return Ok(length);
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
        }
    }

    /// The body of an answer.
    async fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        if let Some(length) = self.ask(path).await? {
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            return Ok(body);
        }
        let mut body = Vec::new();
        loop {
            let mut size = String::new();
            self.0.read_line(&mut size).await?;
            let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("{path}: no size of a chunk"))?;
            let begun = body.len();
            body.resize(begun + size + 2, 0);
            self.0.read_exact(&mut body[begun..]).await?;
            body.truncate(begun + size);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
