//! Starts beside live streams. In: a relay, live streams, short streams a second. Out: times from `publish` to `Publish.Start` and to the first
//! media at the sink.
//!
//! Both contain round trips that are not the relay's: a push client needs several from its sink before the first media. The rows `direct` and
//! `floor` have them too, so the times beyond theirs are the relay's.
#![expect(clippy::disallowed_methods, reason = "shell: tasks and clocks")]

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::load::{self, Bed, Checks, Cores};
use super::relay::{RelayKind, Subject};
use super::schedule::MediaRate;
use super::{BenchClock, report};

/// A load of starts.
#[derive(Clone, Copy, Debug)]
pub struct StartsLoad {
    /// Streams that stay.
    pub live: u32,
    /// Short streams that begin in a second.
    pub per_second: u32,
    /// Seconds of starts.
    pub seconds: u32,
    /// Media of each stream.
    pub rate: MediaRate,
}

/// Life of a short stream.
const SHORT: Duration = Duration::from_secs(1);

/// Measured starts.
#[derive(Clone, Debug)]
pub struct Starts {
    /// The measured relay.
    pub subject: Subject,
    /// `publish` → `Publish.Start`, nanoseconds, sorted.
    pub start: Vec<u64>,
    /// `publish` → first media at the sink, nanoseconds, sorted.
    pub first_media: Vec<u64>,
    /// Starts that were asked for.
    pub asked: u32,
    /// Whether everything of the short streams arrived.
    pub short: Checks,
    /// Whether everything of the live streams arrived.
    pub live: Checks,
}

/// One of the lists of times.
type StartTimes = fn(&Starts) -> &[u64];

/// Measures starts through one relay.
///
/// # Errors
/// The relay does not start, or publishers do not stop.
pub async fn run(
    subject: &Subject,
    load: StartsLoad,
    clock: BenchClock,
    cores: Option<Cores>,
) -> anyhow::Result<Starts> {
    let asked = load.per_second * load.seconds;
    let bed = Bed::start(subject, load.live + 2 * load.per_second, clock, cores).await?;
    let (live, stop) = bed.start_all(load.live, load.rate).await;
    sleep(load::SETTLE).await;
    let mut short = JoinSet::new();
    for stream in load.live..load.live + asked {
        let (address, pacer) = (bed.relay.address, bed.pacer.clone());
        short.spawn_local(async move {
            let stop = CancellationToken::new();
            let guard = stop.clone().drop_guard();
            let publishing = Bed::publish(address, stream, load.rate, pacer, clock, || (), stop);
            let publishing = tokio::task::spawn_local(publishing);
            sleep(SHORT).await;
            drop(guard);
            publishing.await.ok().flatten()
        });
        sleep(load::slot(stream, load.per_second)).await;
    }
    let short = load::results(short).await?;
    bed.wait_until_quiet(&short).await;
    stop.cancel();
    let live = load::results(live).await?;
    bed.wait_until_quiet(&live).await;
    Ok(Starts {
        subject: subject.clone(),
        start: load::starts(&short),
        first_media: bed.first_media(&short),
        asked,
        short: bed.checks(&short),
        live: bed.checks(&live),
    })
}

/// The table of the report.
#[must_use]
pub fn table(subjects: &[Subject], repetitions: &[Vec<Starts>]) -> String {
    let mut out = report::head(&[
        "starts",
        "started of",
        "`publish` → Start ms: p50",
        "p99",
        "max",
        "p50 beyond direct",
        "→ first media at the sink ms: p50",
        "p99",
        "max",
        "p50 beyond direct",
        "p50 beyond floor",
        "lost at start/stream",
        "lost, cut: short",
        "lost, cut: live",
    ]);
    let direct = Subject::plain(RelayKind::Direct);
    let floor = Subject::plain(RelayKind::Floor);
    for subject in subjects {
        let rows: Vec<&Starts> = repetitions.iter().flatten().filter(|row| row.subject == *subject).collect();
        let at = |times: StartTimes, q: f64| {
            report::span(rows.iter().map(|row| report::quantile(times(row), q) / 1e6).collect(), 1)
        };
        let beyond = |other: &Subject, times: StartTimes| {
            let pairs = repetitions.iter().filter_map(|rows| {
                let of = |subject: &Subject| rows.iter().find(|row| row.subject == *subject).map(times);
                Some((report::quantile(of(subject)?, 0.5) - report::quantile(of(other)?, 0.5)) / 1e6)
            });
            report::span(pairs.collect(), 1)
        };
        let (start, media): (StartTimes, StartTimes) = (|row| &row.start, |row| &row.first_media);
        let sum = |value: fn(&Starts) -> u64| rows.iter().map(|row| value(row)).sum::<u64>();
        let lost = |checks: fn(&Starts) -> &Checks| {
            let lost: u64 = rows.iter().map(|row| checks(row).lost).sum();
            format!("{lost}, {}", rows.iter().map(|row| checks(row).cut).sum::<u32>())
        };
        out += &report::line(&[
            subject.name(),
            format!("{} of {}", sum(|row| row.start.len() as u64), sum(|row| u64::from(row.asked))),
            at(start, 0.5),
            at(start, 0.99),
            at(start, 1.0),
            beyond(&direct, start),
            at(media, 0.5),
            at(media, 0.99),
            at(media, 1.0),
            beyond(&direct, media),
            beyond(&floor, media),
            report::span(rows.iter().map(|row| row.short.lost_at_start).collect(), 1),
            lost(|row| &row.short),
            lost(|row| &row.live),
        ]);
    }
    out
}
