//! Cold starts on a real cluster: a publisher outside, KEDA, a pod, a sink outside. In: the number of starts. Out: the duration of each
//! part of a start.
//!
//! Publisher and sink are this process and share one clock. Changes of objects are timed when the API reports them, which is a few
//! milliseconds late. A pod's status gives the start of its container in whole seconds, and a second late: the first line of the worker's
//! log gives the time at which its process ran, by the clock of its node.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::pacer::Pacer;
use super::publisher::{PacedPublisher, PublishResult};
use super::schedule::MediaRate;
use super::sink::CountingSink;
use super::{BenchClock, cold, report};
use crate::cluster::install::Installation;
use crate::cluster::pods::{Pod, time};
use crate::cluster::relay::ClusterRelay;
use crate::cluster::watch::{ObjectWatch, WatchEvent};
use crate::cluster::{Relays, api, scenario};
use crate::wait::{until_some, wall};

/// The parts of a start, in their order. Their sum is the time from `publish` to the first media at the sink.
const PARTS: [(&str, bool); 8] = [
    ("told to KEDA, scale written", false),
    ("pod made", false),
    ("pod given to a node", false),
    ("process runs", false),
    ("worker registered", true),
    ("stream handed over", true),
    ("upstream started", true),
    ("first media at the sink", true),
];

/// Durations of a single start, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct ColdStart {
    start: f64,
    media: f64,
    parts: [f64; PARTS.len()],
}

impl ColdStart {
    /// The share of LiveEdgeCast in the start, without KEDA's and Kubernetes' parts.
    fn ours(&self) -> f64 {
        self.parts.iter().zip(PARTS).filter(|(_, (_, ours))| *ours).map(|(part, _)| part).sum()
    }
}

/// Measures `runs` starts one after the other, each from zero workers, on the cluster that the environment names; returns a table.
///
/// # Errors
/// The environment names no cluster, or a start fails.
pub fn run(runs: u32, clock: BenchClock) -> anyhow::Result<String> {
    let mut table = Ok(String::new());
    scenario(|relays| table = measure(relays, runs, clock).map(|starts| report(&starts)));
    table
}

fn measure(relays: &Relays<'_>, runs: u32, clock: BenchClock) -> anyhow::Result<Vec<ColdStart>> {
    // The installation as shipped, except for a shorter time until it is at zero again.
    let wanted = Installation { activator: Vec::new(), worker: Vec::new(), ..Installation::default() };
    let relay = relays.installed(&wanted.keda("pollingInterval", json!(5)).keda("cooldownPeriod", json!(1)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let started = async { anyhow::Ok((CountingSink::start(clock).await?, Pacer::start(clock)?)) };
    let (sink, pacer) = local.block_on(&runtime, started)?;
    relay.pushes_to(sink.address);
    let mut starts = Vec::new();
    for run in 0..runs {
        relay.is_back_to_zero();
        sink.reset();
        let (pods, deployments) = (relay.watch("worker"), ObjectWatch::new(relay.api(), &api::path("deployments")));
        let before = phases(&relay);
        let once = publish_once(relay.socket(), run, (&sink, &pacer), clock);
        let (published, first) = local.block_on(&runtime, once)?;
        let phases = until_some("the activator's phases", || {
            let after = phases(&relay);
            (after.0 > before.0).then(|| [0, 1, 2].map(|at| (after.1[at] - before.1[at]) * 1000.0))
        });
        let start = take_apart(&relay, (published, first, clock), &pods, &deployments, phases)?;
        eprintln!("{:3} of {runs}: {:6.1} ms, ours {:5.1}, {:.1?}", run + 1, start.media, start.ours(), start.parts);
        starts.push(start);
    }
    Ok(starts)
}

/// Publishes a stream and returns the time of its first media at the sink.
async fn publish_once(
    to: std::net::SocketAddr,
    stream: u32,
    (sink, pacer): (&CountingSink, &Pacer),
    clock: BenchClock,
) -> anyhow::Result<(PublishResult, u64)> {
    let publisher = PacedPublisher::start(to, "live", stream, clock).await.context("not started")?;
    let stop = CancellationToken::new();
    let (publishing, first) = tokio::join!(publisher.run(MediaRate::default(), pacer, stop.clone()), async {
        let first = cold::first(sink, stream).await;
        stop.cancel();
        first
    });
    ensure!(!publishing.cut, "the publisher was cut");
    ensure!(first.1 == 0, "the first {} messages were lost", first.1);
    Ok((publishing, first.0))
}

/// The number of cold starts that activators have counted; seconds up to the registration, of the handoff, and up to the start.
fn phases(relay: &ClusterRelay<'_>) -> (f64, [f64; 3]) {
    let sum = |phase: &str, what: &str| {
        relay.sum(&format!("liveedgecast_cold_start_seconds_{what}"), &[&format!("phase=\"{phase}\"")])
    };
    let register = ["pushed", "scaled", "pod_created", "scheduled", "process_started", "registered"]
        .iter()
        .map(|phase| sum(phase, "sum"))
        .sum();
    (sum("live", "count"), [register, sum("handed_over", "sum"), sum("live", "sum")])
}

fn take_apart(
    relay: &ClusterRelay<'_>,
    (published, first, clock): (PublishResult, u64, BenchClock),
    pods: &ObjectWatch,
    deployments: &ObjectWatch,
    [register, handoff, upstream]: [f64; 3],
) -> anyhow::Result<ColdStart> {
    let asked = clock.instant(published.asked);
    let since = |at: Instant| at.saturating_duration_since(asked).as_secs_f64() * 1000.0;
    let worker = |event: &WatchEvent| event.name() == "liveedgecast-worker" && event.object["spec"]["replicas"] == 1;
    let scaled = since(deployments.first("the scale", |event| event.at > asked && worker(event)).at);
    let made = pods.first("the pod", |event| event.at > asked && event.what == "ADDED");
    let name = made.name().to_owned();
    let given = |event: &WatchEvent| event.name() == name && event.object["spec"]["nodeName"].is_string();
    let given = since(pods.first("its node", given).at);
    let runs = began(relay, &Pod::new(made.object.clone())).context("the worker's log has no time")?;
    let runs = runs.duration_since(wall(asked)).unwrap_or(Duration::ZERO).as_secs_f64() * 1000.0;
    let media = (first - published.asked) as f64 / 1e6;
    let ends =
        [scaled, since(made.at), given, runs, register, register + handoff, register + handoff + upstream, media];
    let mut parts = [0.0; PARTS.len()];
    let mut last = 0.0;
    for (part, end) in parts.iter_mut().zip(ends) {
        *part = end - last;
        last = end;
    }
    Ok(ColdStart { start: (published.started - published.asked) as f64 / 1e6, media, parts })
}

/// Time at which a worker's process wrote its first line of log.
fn began(relay: &ClusterRelay<'_>, pod: &Pod) -> Option<SystemTime> {
    let log = until_some("the worker's log", || {
        relay
            .api()
            .text(&format!("{}/{}/log?limitBytes=4096", api::path("pods"), pod.name))
            .filter(|log| log.contains('\n'))
    });
    let line: serde_json::Value = serde_json::from_str(log.lines().next()?).ok()?;
    time(line["timestamp"].as_str()?)
}

fn report(starts: &[ColdStart]) -> String {
    let row = |name: &str, value: &dyn Fn(&ColdStart) -> f64| {
        let mut micros: Vec<u64> = starts.iter().map(|start| (value(start).max(0.0) * 1000.0) as u64).collect();
        micros.sort_unstable();
        let at = |q| report::quantile(&micros, q) / 1000.0;
        format!("| {name} | {:.1} | {:.1} | {:.1} | {:.1} |\n", at(0.0), at(0.5), at(0.95), at(1.0))
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let mut out = format!("{} cold starts on the cluster; load of this machine at the end {load}\n\n", starts.len());
    out += "| ms | least | p50 | p95 | most |\n| --- | --- | --- | --- | --- |\n";
    out += &row("`publish` → `Publish.Start`", &|it| it.start);
    out += &row("`publish` → first media at the sink", &|it| it.media);
    for (at, (name, ours)) in PARTS.into_iter().enumerate() {
        out += &row(&format!("→ {name}{}", if ours { " (ours)" } else { "" }), &|it| it.parts[at]);
    }
    out + &row("ours together", &ColdStart::ours)
}
