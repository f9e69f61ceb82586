//! Cold starts, timed by publisher and sink. In: the number of starts. Out: milliseconds from `publish` to `Publish.Start` and to the first
//! media at the sink.
#![expect(clippy::disallowed_methods, reason = "shell: waits for workers to end")]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::pacer::Pacer;
use super::publisher::PacedPublisher;
use super::relay::{BenchRelay, RelayKind, RelaySettings};
use super::schedule::MediaRate;
use super::sink::CountingSink;
use super::{BenchClock, report};

/// Measured cold starts.
#[derive(Clone, Debug)]
pub struct Cold {
    /// `publish` → `Publish.Start`, nanoseconds, sorted.
    pub start: Vec<u64>,
    /// `publish` → first media at the sink, nanoseconds, sorted.
    pub first_media: Vec<u64>,
    /// Number of streams whose first message at the sink was not the first that the publisher sent.
    pub lost_the_first: u32,
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures `runs` starts one after the other, each without any worker process at its beginning.
///
/// # Errors
/// A start fails, or workers do not end.
pub async fn run(kind: RelayKind, runs: u32, clock: BenchClock) -> anyhow::Result<Cold> {
    let (sink, pacer) = (CountingSink::start(clock).await?, Pacer::start(clock)?);
    let settings = RelaySettings { cooldown: "0s".into(), ..RelaySettings::default() };
    let relay = BenchRelay::start(kind, &[sink.address], None, &settings).await?;
    let mut cold = Cold { start: Vec::new(), first_media: Vec::new(), lost_the_first: 0 };
    for run in 0..runs {
        timeout(PATIENCE, none_left(&relay)).await.context("workers do not end")?;
        sink.reset();
        let publisher = PacedPublisher::start(relay.address, "live", run, clock).await.context("not started")?;
        let stop = CancellationToken::new();
        let (stopped, pacer) = (stop.clone(), pacer.clone());
        let publishing =
            tokio::task::spawn_local(async move { publisher.run(MediaRate::default(), &pacer, stopped).await });
        let (at, number) = timeout(PATIENCE, first(&sink, run)).await.context("no media arrived")?;
        stop.cancel();
        let published = publishing.await?;
        ensure!(!published.cut, "the publisher was cut");
        cold.start.push(published.started - published.asked);
        cold.first_media.push(at - published.asked);
        cold.lost_the_first += u32::from(number != 0);
    }
    cold.start.sort_unstable();
    cold.first_media.sort_unstable();
    Ok(cold)
}

async fn none_left(relay: &BenchRelay) {
    while relay.processes() > 1 {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Arrival of a stream's first media at the sink, and the number of that message.
pub(super) async fn first(sink: &CountingSink, stream: u32) -> (u64, u64) {
    loop {
        let rung = sink.first.notified();
        let first = sink.tally.borrow().streams.get(&stream).and_then(|came| came.first);
        match first {
            Some(first) => return first,
            None => rung.await,
        }
    }
}

/// The table of the report.
#[must_use]
pub fn table(rows: &[(RelayKind, Cold)]) -> String {
    let mut out = String::from(
        "| cold start | runs | `publish` → Start ms: p50, p99, max | → first media at the sink ms: p50, p99, max | first message lost |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for (kind, cold) in rows {
        let three = |sorted: &[u64]| {
            let at = |q| report::quantile(sorted, q) / 1e6;
            format!("{:.1}, {:.1}, {:.1}", at(0.5), at(0.99), at(1.0))
        };
        let (start, media) = (three(&cold.start), three(&cold.first_media));
        out += &format!("| {} | {} | {start} | {media} | {} |\n", kind.as_str(), cold.start.len(), cold.lost_the_first);
    }
    out
}
