//! One row under load. In: a relay, a number of streams, a rate, a time. Out: a [`Row`].
#![expect(clippy::disallowed_methods, reason = "shell: tasks and clocks")]

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::publisher::{BitRate, PacedPublisher, PublishResult};
use super::relay::{BenchRelay, RelayKind, RelaySettings};
use super::sink::{Arrived, CountingSink};
use super::{BenchClock, report};

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct BenchLoad {
    /// Streams at once.
    pub streams: u32,
    /// Bit rate of each stream.
    pub rate: BitRate,
    /// Length of the measurement.
    pub time: Duration,
}

/// New publishers per second.
const STARTS_PER_SECOND: u64 = 100;
/// Time between the last start and the measurement, in which the first two keyframes pass.
const SETTLE: Duration = Duration::from_secs(2);
/// Longest wait for messages in flight after publishers have stopped.
const DRAIN: Duration = Duration::from_secs(10);

/// Results of one relay under one load.
#[derive(Clone, Debug)]
pub struct Row {
    /// The measured relay.
    pub kind: RelayKind,
    /// Streams whose publisher received `Publish.Start`.
    pub started: u32,
    /// CPU seconds per gigabyte (10^9 bytes of messages at the sink) during the measurement, all processes of the relay.
    pub cpu_per_gb: f64,
    /// CPU seconds per stream and hour during the measurement.
    pub cpu_per_stream_hour: f64,
    /// CPU milliseconds per start: all that was spent from the first connection to the measurement, less the share of the media of that time.
    pub start_cpu: f64,
    /// Resident memory per stream, kB, without the replay windows.
    pub kb_per_stream: f64,
    /// Shared memory per stream, kB: the replay windows.
    pub window_kb_per_stream: f64,
    /// Latency from write to complete read, ms, median.
    pub p50: f64,
    /// Latency from write to complete read, ms, 99th percentile.
    pub p99: f64,
    /// `publish` → `Publish.Start`, ms, median.
    pub start: f64,
    /// `publish` → first media at the sink, ms, median.
    pub first: f64,
    /// Messages per stream that never arrived because the publisher sent them before the relay was ready.
    pub lost_at_start: f64,
    /// Messages lost after a stream's first.
    pub lost: u64,
    /// Messages that arrived twice.
    pub repeated: u64,
    /// Messages whose bytes were changed.
    pub corrupt: u64,
    /// Publishers whose connection the relay ended.
    pub cut: u32,
    /// Streams whose first video message was no keyframe.
    pub undecodable: u32,
}

/// Runs one load through one relay.
///
/// # Errors
/// The relay does not start, or no publisher could publish.
pub async fn run(kind: RelayKind, load: BenchLoad, clock: BenchClock, core: Option<usize>) -> anyhow::Result<Row> {
    let sink = CountingSink::start(clock).await?;
    sink.reset();
    let settings = RelaySettings { rings: load.streams + 8, ..RelaySettings::default() };
    let relay = BenchRelay::start(kind, sink.address, core, &settings).await?;
    // One worker runs before the measurement begins; cold starts are measured separately.
    if kind.ours() {
        let warm = PacedPublisher::start(relay.address, "live", u32::MAX, clock).await?;
        warm.run(load.rate, stopped()).await;
    }
    sink.reset();
    let (idle, bytes_idle) = (relay.cost(), sink.tally.borrow().bytes);
    let (publishers, stop) = start_all(&relay, load, clock).await;

    sleep(SETTLE).await;
    let (before, bytes_before) = (relay.cost(), sink.tally.borrow().bytes);
    sink.tally.borrow_mut().measure_from = clock.now();
    sink.tally.borrow_mut().measure_to = u64::MAX;
    sleep(load.time).await;
    sink.tally.borrow_mut().measure_to = clock.now();
    let (after, bytes_after) = (relay.cost(), sink.tally.borrow().bytes);

    stop.cancel();
    let published: Vec<(u32, PublishResult)> =
        timeout(DRAIN, publishers.join_all()).await?.into_iter().flatten().collect();
    let started = u32::try_from(published.len()).unwrap_or(u32::MAX);
    anyhow::ensure!(started > 0, "{}: no publisher could publish", kind.as_str());
    wait_until_quiet(&sink, &published).await;
    let gigabytes = (bytes_after - bytes_before) as f64 / 1e9;
    let cpu_per_gb = (after.cpu - before.cpu) / gigabytes;
    let media = (bytes_before - bytes_idle) as f64 / 1e9 * cpu_per_gb;
    // The floor's memory is there before the first stream.
    let windows_idle = if kind == RelayKind::Floor { 0 } else { idle.shared };
    let per_stream = |after: u64, before: u64| after.saturating_sub(before) as f64 / 1000.0 / f64::from(started);
    let own = |cost: &super::procfs::Cost| cost.resident.saturating_sub(cost.shared);

    let tally = sink.tally.borrow();
    let arrived = |stream: &u32| tally.streams.get(stream);
    let mut latencies = tally.latencies.clone();
    latencies.sort_unstable();
    let mut row = Row {
        kind,
        started,
        cpu_per_gb,
        cpu_per_stream_hour: (after.cpu - before.cpu) / load.time.as_secs_f64() * 3600.0 / f64::from(started),
        start_cpu: (before.cpu - idle.cpu - media) * 1000.0 / f64::from(started),
        kb_per_stream: per_stream(own(&after), own(&idle)),
        window_kb_per_stream: per_stream(after.shared, windows_idle),
        p50: report::quantile(&latencies, 0.5) / 1e6,
        p99: report::quantile(&latencies, 0.99) / 1e6,
        start: median(published.iter().map(|(_, one)| one.started - one.asked)),
        first: median(
            published.iter().filter_map(|(stream, one)| Some(arrived(stream)?.first?.0.saturating_sub(one.asked))),
        ),
        lost_at_start: 0.0,
        lost: 0,
        repeated: 0,
        corrupt: 0,
        cut: u32::try_from(published.iter().filter(|(_, one)| one.cut).count()).unwrap_or(u32::MAX),
        undecodable: 0,
    };
    for (stream, one) in &published {
        let nothing = Arrived { next: 0, ..Arrived::default() };
        let came = arrived(stream).unwrap_or(&nothing);
        let first = came.first.map_or(one.messages, |(_, number)| number);
        row.lost_at_start += (first + came.lost_at_start) as f64 / f64::from(started);
        row.lost += came.lost + one.messages.saturating_sub(came.next.max(first));
        row.repeated += came.repeated;
        row.corrupt += came.corrupt;
        row.undecodable += u32::from(came.began_decodable != Some(true));
    }
    Ok(row)
}

/// A cancelled token: a publisher that gets it says goodbye at once.
fn stopped() -> CancellationToken {
    let stop = CancellationToken::new();
    stop.cancel();
    stop
}

/// Starts the publishers one after the other; returns when each has been answered with `Publish.Start` or refused.
async fn start_all(
    relay: &BenchRelay,
    load: BenchLoad,
    clock: BenchClock,
) -> (JoinSet<Option<(u32, PublishResult)>>, CancellationToken) {
    let stop = CancellationToken::new();
    let mut publishers = JoinSet::new();
    let (answered, mut answers) = tokio::sync::mpsc::channel(load.streams as usize);
    for stream in 0..load.streams {
        let (address, stop, answered) = (relay.address, stop.clone(), answered.clone());
        publishers.spawn_local(async move {
            let started = PacedPublisher::start(address, "live", stream, clock).await;
            // The channel has as many places as streams: it is never full.
            let _ = answered.try_send(());
            match started {
                Ok(publisher) => Some((stream, publisher.run(load.rate, stop).await)),
                Err(error) => {
                    eprintln!("stream {stream}: not started: {error}");
                    None
                }
            }
        });
        sleep(Duration::from_millis(1000 / STARTS_PER_SECOND)).await;
    }
    for _ in 0..load.streams {
        answers.recv().await;
    }
    (publishers, stop)
}

/// Waits until every message has arrived, or no further message does.
async fn wait_until_quiet(sink: &CountingSink, published: &[(u32, PublishResult)]) {
    let mut last = 0;
    loop {
        let complete = {
            let tally = sink.tally.borrow();
            published
                .iter()
                .all(|(stream, one)| tally.streams.get(stream).is_some_and(|came| came.next >= one.messages))
        };
        let bytes = sink.tally.borrow().bytes;
        if complete || bytes == last {
            return;
        }
        last = bytes;
        sleep(Duration::from_secs(1)).await;
    }
}

fn median(values: impl Iterator<Item = u64>) -> f64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    report::quantile(&values, 0.5) / 1e6
}
