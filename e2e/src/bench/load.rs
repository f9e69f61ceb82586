//! One row under load. In: a relay, a number of streams, a rate, a time. Out: a [`Row`].
#![expect(clippy::disallowed_methods, reason = "shell: tasks and clocks")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::pacer::Pacer;
use super::procfs::{self, Cost};
use super::publisher::{PacedPublisher, PublishResult};
use super::relay::{BenchRelay, RelayKind, RelaySettings, Subject};
use super::schedule::{MediaRate, scramble};
use super::sink::{Arrived, CountingSink};
use super::watchers::Watchers;
use super::{BenchClock, report};

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct BenchLoad {
    /// Streams at once.
    pub streams: u32,
    /// Media of each stream.
    pub rate: MediaRate,
    /// Length of the measurement.
    pub time: Duration,
}

/// The cores of relay and generator, if they are pinned.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Core of the relay.
    pub relay: usize,
    /// Core of generator and sink.
    pub generator: usize,
}

/// New publishers per second.
const STARTS_PER_SECOND: u32 = 100;
/// Time between the last start and the measurement, in which the first two keyframes pass.
pub const SETTLE: Duration = Duration::from_secs(2);
/// Longest wait for messages in flight after publishers have stopped.
const DRAIN: Duration = Duration::from_secs(10);
/// A core with a smaller share of idle time is full.
const LEAST_IDLE: f64 = 0.03;

/// Results of one relay under one load.
#[derive(Clone, Debug)]
pub struct Row {
    /// The measured relay.
    pub subject: Subject,
    /// CPU seconds per gigabyte (10^9 bytes of messages at the first sink) during the measurement, all processes of the relay.
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
    /// What generator and sink cost, and whether they were the limit.
    pub ground: Ground,
    /// Whether everything arrived.
    pub checks: Checks,
}

impl Row {
    /// A row of which nothing was measured.
    #[must_use]
    pub fn nothing(subject: Subject) -> Self {
        Self {
            subject,
            cpu_per_gb: 0.0,
            cpu_per_stream_hour: 0.0,
            start_cpu: 0.0,
            kb_per_stream: 0.0,
            window_kb_per_stream: 0.0,
            p50: 0.0,
            p99: 0.0,
            start: 0.0,
            first: 0.0,
            ground: Ground::default(),
            checks: Checks::default(),
        }
    }
}

/// The generator's and the sink's own cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ground {
    /// Share of a core that the generator took, percent.
    pub generator: f64,
    /// Share of a core that the sink took, percent.
    pub sink: f64,
    /// Time by which messages were written late, ms, 99th percentile.
    pub late: f64,
    /// True if their core had no time left: latencies then mean nothing.
    pub full: bool,
}

/// Losses and the like, of all streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks {
    /// Streams whose publisher received `Publish.Start`.
    pub started: u32,
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

/// A relay that runs, with its sinks.
#[derive(Debug)]
pub struct Bed {
    /// The relay.
    pub relay: BenchRelay,
    /// The sinks, of which the last may stall.
    pub sinks: Vec<CountingSink>,
    /// The publishers' timer.
    pub pacer: Pacer,
    clock: BenchClock,
    stalls: bool,
}

impl Bed {
    /// Starts a relay for so many streams. LiveEdgeCast has a running worker then: cold starts are measured separately.
    ///
    /// # Errors
    /// The relay does not start.
    pub async fn start(
        subject: &Subject,
        streams: u32,
        clock: BenchClock,
        cores: Option<Cores>,
    ) -> anyhow::Result<Self> {
        let mut sinks = Vec::new();
        for _ in 0..subject.destinations.max(1) {
            sinks.push(CountingSink::start(clock).await?);
        }
        let addresses: Vec<SocketAddr> = sinks.iter().map(|sink| sink.address).collect();
        let settings = RelaySettings {
            rings: streams + 8,
            routes: subject.routes,
            arguments: subject.arguments.clone(),
            ..RelaySettings::default()
        };
        let relay = BenchRelay::start(subject.kind, &addresses, cores.map(|cores| cores.relay), &settings).await?;
        let bed = Self { relay, sinks, pacer: Pacer::start(clock)?, clock, stalls: subject.stall };
        if subject.kind.ours() {
            let warm = PacedPublisher::start(bed.relay.address, "live", u32::MAX, clock).await?;
            let stop = CancellationToken::new();
            stop.cancel();
            warm.run(MediaRate::default(), &bed.pacer, stop).await;
        }
        bed.sinks.iter().for_each(CountingSink::reset);
        Ok(bed)
    }

    /// The sinks that read.
    pub fn reading(&self) -> &[CountingSink] {
        &self.sinks[..self.sinks.len() - usize::from(self.stalls)]
    }

    /// Bytes at the first sink.
    fn bytes(&self) -> u64 {
        self.sinks[0].tally.borrow().bytes
    }

    /// Publishes a stream until `stop`; `None` if it was not started, which is written to standard error.
    pub async fn publish(
        address: SocketAddr,
        stream: u32,
        rate: MediaRate,
        pacer: Pacer,
        clock: BenchClock,
        started: impl FnOnce(),
        stop: CancellationToken,
    ) -> Option<(u32, PublishResult)> {
        let publisher = PacedPublisher::start(address, "live", stream, clock).await;
        started();
        match publisher {
            Ok(publisher) => Some((stream, publisher.run(rate, &pacer, stop).await)),
            Err(error) => {
                eprintln!("stream {stream}: not started: {error}");
                None
            }
        }
    }

    /// Starts the publishers one after the other; returns when each has been answered with `Publish.Start` or refused.
    pub async fn start_all(
        &self,
        streams: u32,
        rate: MediaRate,
    ) -> (JoinSet<Option<(u32, PublishResult)>>, CancellationToken) {
        let stop = CancellationToken::new();
        let mut publishers = JoinSet::new();
        let (answered, mut answers) = tokio::sync::mpsc::channel(streams.max(1) as usize);
        for stream in 0..streams {
            let answered = answered.clone();
            // The channel has as many places as streams: it is never full.
            let started = move || _ = answered.try_send(());
            let (pacer, clock) = (self.pacer.clone(), self.clock);
            publishers.spawn_local(Self::publish(
                self.relay.address,
                stream,
                rate,
                pacer,
                clock,
                started,
                stop.clone(),
            ));
            sleep(slot(stream, STARTS_PER_SECOND)).await;
        }
        for _ in 0..streams {
            answers.recv().await;
        }
        (publishers, stop)
    }

    /// Waits until every message has arrived, or no further message does.
    pub async fn wait_until_quiet(&self, published: &[(u32, PublishResult)]) {
        let mut last = 0;
        loop {
            let complete = self.reading().iter().all(|sink| {
                let tally = sink.tally.borrow();
                let all = |(stream, one): &(u32, PublishResult)| Some(tally.streams.get(stream)?.next >= one.messages);
                published.iter().all(|one| all(one) == Some(true))
            });
            let bytes = self.reading().iter().map(|sink| sink.tally.borrow().bytes).sum();
            if complete || bytes == last {
                return;
            }
            last = bytes;
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Compares what arrived with what was sent, at every sink that reads.
    pub fn checks(&self, published: &[(u32, PublishResult)]) -> Checks {
        let started = u32::try_from(published.len()).unwrap_or(u32::MAX);
        let cut = published.iter().filter(|(_, one)| one.cut).count();
        let mut checks = Checks { started, cut: u32::try_from(cut).unwrap_or(u32::MAX), ..Checks::default() };
        for sink in self.reading() {
            let tally = sink.tally.borrow();
            for (stream, one) in published {
                let nothing = Arrived::default();
                let came = tally.streams.get(stream).unwrap_or(&nothing);
                let first = came.first.map_or(one.messages, |(_, number)| number);
                checks.lost_at_start += (first + came.lost_at_start) as f64 / f64::from(started);
                checks.lost += came.lost + one.messages.saturating_sub(came.next.max(first));
                checks.repeated += came.repeated;
                checks.corrupt += came.corrupt;
                checks.undecodable += u32::from(one.messages > 0 && came.began_decodable != Some(true));
            }
        }
        checks
    }

    /// Times from `publish` to the first media at the first sink, nanoseconds, sorted.
    pub fn first_media(&self, published: &[(u32, PublishResult)]) -> Vec<u64> {
        let tally = self.sinks[0].tally.borrow();
        let first =
            |(stream, one): &(u32, PublishResult)| Some(tally.streams.get(stream)?.first?.0.saturating_sub(one.asked));
        let mut all: Vec<u64> = published.iter().filter_map(first).collect();
        all.sort_unstable();
        all
    }
}

/// Times from `publish` to `Publish.Start`, nanoseconds, sorted.
#[must_use]
pub fn starts(published: &[(u32, PublishResult)]) -> Vec<u64> {
    let mut all: Vec<u64> = published.iter().map(|(_, one)| one.started - one.asked).collect();
    all.sort_unstable();
    all
}

/// Time from one start to the next: a random part of twice the mean, so that starts have no rhythm.
#[must_use]
pub fn slot(stream: u32, per_second: u32) -> Duration {
    let mean = 1_000_000_000 / u64::from(per_second.max(1));
    Duration::from_nanos(scramble(u64::from(stream) << 8 | 3) % (2 * mean))
}

/// Waits for publishers that have been told to stop.
///
/// # Errors
/// They do not.
pub async fn results(publishers: JoinSet<Option<(u32, PublishResult)>>) -> anyhow::Result<Vec<(u32, PublishResult)>> {
    Ok(timeout(DRAIN, publishers.join_all()).await?.into_iter().flatten().collect())
}

/// The state of both sides at a moment.
struct Moment {
    cost: Cost,
    bytes: u64,
    thread: f64,
    idle: Option<f64>,
    at: u64,
}

impl Moment {
    fn take(bed: &Bed, cores: Option<Cores>) -> Self {
        Self {
            cost: bed.relay.cost(),
            bytes: bed.bytes(),
            thread: procfs::this_thread(),
            idle: cores.and_then(|cores| procfs::idle(cores.generator)),
            at: bed.clock.now(),
        }
    }
}

/// What generator and sink cost between two moments.
fn ground(bed: &Bed, before: &Moment, after: &Moment) -> Ground {
    let seconds = (after.at - before.at) as f64 / 1e9;
    let tally = bed.pacer.tally();
    let both = (after.thread - before.thread) / seconds;
    let generator = (tally.busy / seconds).min(both);
    let idle = match (before.idle, after.idle) {
        (Some(before), Some(after)) => (after - before) / seconds,
        _ => 1.0 - both,
    };
    let mut late = tally.late;
    late.sort_unstable();
    Ground {
        generator: generator * 100.0,
        sink: (both - generator) * 100.0,
        late: report::quantile(&late, 0.99) / 1e6,
        full: idle < LEAST_IDLE,
    }
}

/// Runs one load through one relay.
///
/// # Errors
/// The relay does not start, or no publisher could publish.
pub async fn run(subject: &Subject, load: BenchLoad, clock: BenchClock, cores: Option<Cores>) -> anyhow::Result<Row> {
    let bed = Bed::start(subject, load.streams, clock, cores).await?;
    let idle = Moment::take(&bed, cores);
    let (publishers, stop) = bed.start_all(load.streams, load.rate).await;
    let watchers = subject.watched.then(|| Watchers::start(bed.relay.http));
    sleep(SETTLE).await;
    if let (true, Some(last)) = (subject.stall, bed.sinks.last()) {
        last.stalled.set(true);
    }
    let before = Moment::take(&bed, cores);
    bed.pacer.reset();
    for sink in &bed.sinks {
        let mut tally = sink.tally.borrow_mut();
        (tally.measure_from, tally.measure_to) = (clock.now(), u64::MAX);
    }
    sleep(load.time).await;
    bed.sinks.iter().for_each(|sink| sink.tally.borrow_mut().measure_to = clock.now());
    let after = Moment::take(&bed, cores);
    let ground = ground(&bed, &before, &after);
    if let Some(watchers) = watchers {
        eprintln!("{}: {}", subject.name(), watchers.stop()?);
    }

    stop.cancel();
    let published = results(publishers).await?;
    anyhow::ensure!(!published.is_empty(), "{}: no publisher could publish", subject.name());
    bed.wait_until_quiet(&published).await;

    let checks = bed.checks(&published);
    let started = f64::from(checks.started);
    let mut latencies = Vec::new();
    bed.reading().iter().for_each(|sink| latencies.extend_from_slice(&sink.tally.borrow().latencies));
    latencies.sort_unstable();
    let cpu = after.cost.cpu - before.cost.cpu;
    let cpu_per_gb = cpu / ((after.bytes - before.bytes) as f64 / 1e9);
    let media = (before.bytes - idle.bytes) as f64 / 1e9 * cpu_per_gb;
    let per_stream = |after: u64, before: u64| after.saturating_sub(before) as f64 / 1000.0 / started;
    let own = |cost: &Cost| cost.resident.saturating_sub(cost.shared);
    // The floor's memory is there before the first stream.
    let windows = if subject.kind == RelayKind::Floor { 0 } else { idle.cost.shared };
    Ok(Row {
        subject: subject.clone(),
        cpu_per_gb,
        cpu_per_stream_hour: cpu / ((after.at - before.at) as f64 / 1e9) * 3600.0 / started,
        start_cpu: (before.cost.cpu - idle.cost.cpu - media) * 1000.0 / started,
        kb_per_stream: per_stream(own(&after.cost), own(&idle.cost)),
        window_kb_per_stream: per_stream(after.cost.shared, windows),
        p50: report::quantile(&latencies, 0.5) / 1e6,
        p99: report::quantile(&latencies, 0.99) / 1e6,
        start: report::quantile(&starts(&published), 0.5) / 1e6,
        first: report::quantile(&bed.first_media(&published), 0.5) / 1e6,
        ground,
        checks,
    })
}
