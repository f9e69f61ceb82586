//! The names of everything that is counted. In: events of the rooms, one struct per room; workers' metrics. Out: the Prometheus text
//! format.

pub(crate) mod fetch;
pub(crate) mod merge;
mod process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use liveedgecast_common::metrics::{
    counter, counters, dropped_log_lines, gauge, gauges, histogram, histograms, measure_log, opts, register, text,
};
use prometheus::{Counter, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::accept::{Observe, TurnedAway};
use crate::{admission, lobby};

/// From a fraction of a millisecond (everything is warm) to the longest hold that is usual.
const START_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0];

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Room 1.
    pub accept: Accept,
    /// Rooms 2 and 3.
    pub publisher: Publisher,
    /// Room 4.
    pub lobby: Lobby,
    /// Room 5.
    pub fleet: Fleet,
    /// Beside the path.
    pub scaler: Scaler,
    /// Beside the path, too.
    pub kubernetes: Kubernetes,
    /// Other activators, by whether they can be heard.
    pub peers: IntGaugeVec,
    used: Used,
    log_lines_dropped: IntCounter,
}

/// By this process and its children.
#[derive(Clone, Debug)]
struct Used {
    own: Counter,
    ended_workers: Counter,
    resident: IntGauge,
}

/// Of `accept`.
#[derive(Clone, Debug)]
pub struct Accept {
    /// Connections let in.
    pub accepted: IntCounter,
    /// Connections closed at once, by why.
    pub turned_away: IntCounterVec,
    /// Times that nothing was left to accept with.
    pub exhausted: IntCounter,
}

/// Of `publisher` and `admission`.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// Connections open now.
    pub connections: IntGauge,
    /// Publishers admitted.
    pub admitted: IntCounter,
    /// Publishers that waited for their turn.
    pub delayed: IntCounter,
    /// Publishers told no, by why (admission's and the lobby's reasons).
    pub refused: IntCounterVec,
    /// Admitted publishers whose stay is over, by how it ended.
    pub ended: IntCounterVec,
    /// Connections that ended before `publish`, by the error's word.
    pub errors: IntCounterVec,
}

/// Of `lobby`.
#[derive(Clone, Debug)]
pub struct Lobby {
    /// Streams that wait.
    pub waiting: IntGauge,
    /// Streams that we hold a connection of and that a worker has.
    pub live: IntGauge,
    /// Waiting and live streams that we know of, of all activators.
    pub demand: IntGauge,
    /// Offers, by what became of them.
    pub offers: IntCounterVec,
    /// Streams that came back, by why.
    pub back: IntCounterVec,
    /// Streams that a worker took and that ended before they ran.
    pub never_started: IntCounter,
    /// From `publish` to `Publish.Start`, by whether a worker had to be started.
    pub start: HistogramVec,
    /// The parts of a start without a worker.
    pub cold_start: HistogramVec,
}

/// Of `fleet`.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Workers, by state.
    pub workers: IntGaugeVec,
    /// Worker processes started.
    pub started: IntCounter,
    /// Worker processes that ended, by how.
    pub ended: IntCounterVec,
    /// Calls on the control listener that were refused, by why.
    pub refused: IntCounterVec,
    /// Workers' metrics that could not be fetched.
    pub scrape_failures: IntCounter,
    /// Lines of workers' metrics that were not passed on.
    pub lines_left_out: IntCounter,
    /// From its start to its registration, of a worker process.
    pub registration: Histogram,
}

/// Of `scaler`.
#[derive(Clone, Debug)]
pub struct Scaler {
    /// KEDA's calls, by name.
    pub calls: IntCounterVec,
    /// Those that were answered with an error.
    pub errors: IntCounterVec,
    /// Push streams that are open.
    pub push_streams: IntGauge,
    /// Times that `true` was pushed.
    pub pushed: IntCounter,
    /// Time since KEDA was told the metric.
    pub since_poll: Gauge,
    last_poll: Arc<Mutex<Option<Instant>>>,
}

impl Scaler {
    /// KEDA has called.
    pub fn called(&self, call: &str, well: bool) {
        self.calls.with_label_values(&[call]).inc();
        if !well {
            self.errors.with_label_values(&[call]).inc();
        }
    }

    /// KEDA was told the metric.
    pub fn polled(&self, now: Instant) {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Puts the gauge right; called when somebody looks.
    pub fn measure(&self, now: Instant) {
        let last = *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
        self.since_poll.set(last.map_or(-1.0, |last| now.saturating_duration_since(last).as_secs_f64()));
    }
}

/// Of `kubernetes`.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// Times that streams had waited too long, by what became of it.
    pub watchdog: IntCounterVec,
    /// Calls to the API, by name.
    pub calls: IntCounterVec,
    /// Those that failed, by how.
    pub errors: IntCounterVec,
    /// Workers that were taken out of use, let go, or used again.
    pub scale_in: IntCounterVec,
}

/// What becomes of a look of the watchdog.
pub const WATCHDOG_OUTCOMES: [&str; 5] = ["patched", "enough", "at_most", "changed", "failed"];

/// Calls to the Kubernetes API.
pub const KUBERNETES_CALLS: [&str; 3] = ["get_scale", "patch_scale", "patch_pod"];

/// How they fail.
pub const KUBERNETES_ERRORS: [&str; 7] =
    ["outside", "forbidden", "missing", "changed", "refused", "unreachable", "late"];

/// What happens to workers that are not needed.
pub const SCALE_IN_STEPS: [&str; 3] = ["cordoned", "leaving", "returned"];

/// How an admitted publisher's stay ends.
pub const PUBLISHER_ENDS: [&str; 6] = ["left_held", "kicked", "done", "disconnected", "gone", "stranded"];

/// States of workers.
pub const WORKER_STATES: [&str; 5] = ["starting", "ready", "cordoned", "leaving", "draining"];

/// KEDA's calls.
pub const SCALER_CALLS: [&str; 4] = ["IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"];

/// What becomes of an offer.
pub const OFFER_OUTCOMES: [&str; 5] = ["accepted", "declined", "unreachable", "expired", "withdrawn"];

/// Parts of a cold start, in their order: what one line of the log shows too.
pub const COLD_START_PHASES: [&str; 5] = ["detect", "scale", "register", "handoff", "upstream"];

/// How a worker process ends.
pub const ENDED: [&str; 6] = ["asked", "terminated", "crashed", "at_start", "never_registered", "silent"];

/// Why a call on the control listener is refused; `session` and `excess`: what a worker said is left out, and its call goes on.
pub const CONTROL_REFUSED: [&str; 8] = ["proof", "replay", "hello", "joined", "full", "load", "session", "excess"];

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// Two have the same name: a mistake of this file, which its test finds.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let refusals = admission::Reason::ALL.map(admission::Reason::as_str);
        let refusals: Vec<&str> = refusals.into_iter().chain(lobby::Reason::ALL.map(lobby::Reason::as_str)).collect();
        Ok(Self {
            accept: Accept {
                accepted: counter(r, "connections_total", "Publishers' connections let in")?,
                turned_away: counters(
                    r,
                    "connections_turned_away_total",
                    "Connections closed at once, or while they knocked, for want of room",
                    "why",
                    &TurnedAway::ALL.map(TurnedAway::as_str),
                )?,
                exhausted: counter(r, "accept_exhausted_total", "Times that nothing was left to accept with")?,
            },
            publisher: Publisher {
                connections: gauge(r, "connections", "Publishers' connections open now")?,
                admitted: counter(r, "publishers_admitted_total", "Publishers that may publish")?,
                delayed: counter(
                    r,
                    "publishers_delayed_total",
                    "Publishers that waited for their turn because their address brings many",
                )?,
                refused: counters(r, "publishers_refused_total", "Publishers told no", "why", &refusals)?,
                ended: counters(
                    r,
                    "publishers_ended_total",
                    "Admitted publishers whose stay is over",
                    "how",
                    &PUBLISHER_ENDS,
                )?,
                errors: counters(r, "publisher_errors_total", "Connections that ended by an error", "error", &[])?,
            },
            lobby: Lobby {
                waiting: gauge(r, "waiting_streams", "Streams held here, waiting for a worker")?,
                live: gauge(r, "held_live_streams", "Live streams whose publishers are connected here")?,
                demand: gauge(
                    r,
                    "cluster_demand",
                    "Streams waiting or live, all that we know of; for max(), not sum()",
                )?,
                offers: counters(r, "offers_total", "Offers to workers", "outcome", &OFFER_OUTCOMES)?,
                back: counters(
                    r,
                    "streams_back_total",
                    "Streams that a worker did not keep",
                    "why",
                    &lobby::Back::ALL.map(lobby::Back::as_str),
                )?,
                never_started: counter(
                    r,
                    "starts_failed_total",
                    "Streams that a worker took and that ended before they ran",
                )?,
                start: histograms(
                    r,
                    "start_seconds",
                    "From publish to Publish.Start",
                    ("start", &["cold", "warm"]),
                    START_BUCKETS,
                )?,
                cold_start: histograms(
                    r,
                    "cold_start_seconds",
                    "Parts of a start for which a worker had to be started",
                    ("phase", &COLD_START_PHASES),
                    START_BUCKETS,
                )?,
            },
            fleet: Fleet {
                workers: gauges(r, "workers", "Workers", "state", &WORKER_STATES)?,
                started: counter(r, "worker_processes_started_total", "Worker processes started")?,
                ended: counters(r, "worker_processes_ended_total", "Worker processes that ended", "how", &ENDED)?,
                refused: counters(r, "control_refused_total", "Control calls refused", "why", &CONTROL_REFUSED)?,
                scrape_failures: counter(
                    r,
                    "worker_scrape_failures_total",
                    "Workers' metrics that were not to be had",
                )?,
                lines_left_out: counter(
                    r,
                    "worker_metric_lines_left_out_total",
                    "Lines of workers' metrics that were not passed on, because a scraper would reject them or they are not a worker's to say",
                )?,
                registration: histogram(
                    r,
                    "worker_registration_seconds",
                    "From a process's start to its registration",
                    START_BUCKETS,
                )?,
            },
            kubernetes: Kubernetes {
                watchdog: counters(
                    r,
                    "watchdog_total",
                    "Times that streams had waited and nobody added a worker",
                    "outcome",
                    &WATCHDOG_OUTCOMES,
                )?,
                calls: counters(r, "kubernetes_calls_total", "Calls to the Kubernetes API", "call", &KUBERNETES_CALLS)?,
                errors: counters(r, "kubernetes_errors_total", "Those that failed", "error", &KUBERNETES_ERRORS)?,
                scale_in: counters(
                    r,
                    "scale_in_total",
                    "Workers taken out of use, let go, used again",
                    "step",
                    &SCALE_IN_STEPS,
                )?,
            },
            peers: gauges(r, "peers", "Other activators", "state", &["synced", "unreachable"])?,
            scaler: Scaler {
                calls: counters(r, "scaler_calls_total", "Calls of KEDA", "call", &SCALER_CALLS)?,
                errors: counters(
                    r,
                    "scaler_errors_total",
                    "Calls of KEDA that were answered with an error",
                    "call",
                    &SCALER_CALLS,
                )?,
                push_streams: gauge(r, "scaler_push_streams", "Push streams of KEDA that are open")?,
                pushed: counter(r, "scaler_pushed_total", "Times that true was pushed to KEDA")?,
                since_poll: register(
                    r,
                    Gauge::with_opts(opts(
                        "scaler_seconds_since_poll",
                        "Time since KEDA was last told the metric; -1 if it never was",
                    ))?,
                )?,
                last_poll: Arc::default(),
            },
            used: Used {
                own: seconds(r, "activator_cpu_seconds_total", "CPU time of the activator")?,
                ended_workers: seconds(
                    r,
                    "ended_workers_cpu_seconds_total",
                    "CPU time of worker processes that have ended",
                )?,
                resident: gauge(r, "activator_resident_bytes", "Resident memory of the activator")?,
            },
            log_lines_dropped: dropped_log_lines(r, "activator_log_lines_dropped_total")?,
            registry,
        })
    }

    /// Everything in the Prometheus text format.
    pub fn text(&self) -> String {
        if let Some(usage) = process::Usage::now() {
            let risen = |counter: &Counter, to: std::time::Duration| {
                counter.inc_by((to.as_secs_f64() - counter.get()).max(0.0))
            };
            risen(&self.used.own, usage.own);
            risen(&self.used.ended_workers, usage.ended_children);
            self.used.resident.set(i64::try_from(usage.resident).unwrap_or(i64::MAX));
        }
        measure_log(&self.log_lines_dropped);
        text(&self.registry)
    }
}

impl Observe for Accept {
    fn turned_away(&self, why: TurnedAway) {
        self.turned_away.with_label_values(&[why.as_str()]).inc();
    }

    fn exhausted(&self) {
        self.exhausted.inc();
    }
}

fn seconds(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Counter> {
    register(registry, Counter::with_opts(opts(name, help))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_ours_and_there_from_the_start() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        assert!(samples.clone().all(|line| line.starts_with("liveedgecast_")), "{text}");
        assert!(samples.count() > 40);
        for row in ["liveedgecast_waiting_streams 0", "liveedgecast_publishers_refused_total{why=\"key\"} 0"] {
            assert!(text.contains(row), "{text}");
        }
    }
}
