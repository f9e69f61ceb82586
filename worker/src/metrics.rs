//! The names of everything that is counted. In: events of the rooms, one struct per room. Out: the Prometheus text format.
//!
//! The activator serves these under its own `/metrics` too, with a worker label, so no name may be one of the activator's.
//! What surprised us: hosts of upstreams come from routes, and a route may have the publisher's name in the host. Their
//! number is bounded here, or a stranger could fill a metrics server with labels.

use std::collections::HashSet;

use liveedgecast_common::control::UpstreamCounts;
use liveedgecast_common::metrics::{
    counter, counters, dropped_log_lines, gauge, gauges, histograms, measure_log, opts, register, text,
};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::drain::WorkerPhase;
use crate::receive;
use crate::upstream::Fault;

/// From a handoff on one host to an upstream that had to be dialed several times.
const START_BUCKETS: &[f64] =
    &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Different hosts that get rows of their own. All others share one row.
const MOST_HOSTS: usize = 256;
/// The row of all others.
const OTHER_HOSTS: &str = "other";

/// What becomes of an offer that was taken.
pub const OFFER_OUTCOMES: [&str; 4] = ["started", "attached", "declined", "failed"];
/// Parts of a start that a worker sees: from the offer to the stream's task, and from there to `Publish.Start` upstream.
pub const START_PHASES: [&str; 2] = ["handoff", "upstream"];

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Room 8.
    pub register: Register,
    /// Rooms 9 and 10.
    pub streams: Streams,
    /// Room 11, by host.
    pub upstreams: Upstreams,
    phase: IntGaugeVec,
    log_lines_dropped: IntCounter,
}

/// Of `register`.
#[derive(Clone, Debug)]
pub struct Register {
    /// Activators that know us.
    pub joined: IntGauge,
    /// Calls to activators that ended, by how.
    pub ended: IntCounterVec,
}

/// Of `receive` and the engine.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Streams served now.
    pub live: IntGauge,
    /// Streams at most.
    pub capacity: IntGauge,
    /// Offers that the rules let us take, by what became of them.
    pub offers: IntCounterVec,
    /// Those that could not be fetched, by why.
    pub failures: IntCounterVec,
    /// Messages that publishers sent.
    pub received: IntCounter,
    /// Frames at which the clock of a publisher jumped.
    pub clock_jumps: IntCounter,
    /// Messages that no upstream gets: too long for the ring, or long and of an unknown type.
    pub skipped: IntCounter,
    /// Streams that are over.
    pub ended: IntCounter,
    /// Streams whose task panicked.
    pub died: IntCounter,
    /// From the offer to the stream's task.
    pub start_handoff: Histogram,
    /// From there to the first live upstream.
    pub start_upstream: Histogram,
}

/// Of all upstreams of a host.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// Counters by host, in the order of [`UpstreamCounts::FIGURES`].
    pub figures: Vec<IntCounterVec>,
    /// Attempts and sessions that failed, by class.
    pub failures: IntCounterVec,
    /// Upstreams now, by state.
    pub now: IntGaugeVec,
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// Two have the same name: a mistake of this file, which its test finds.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let start = histograms(
            r,
            "worker_start_seconds",
            "Parts of a stream's start",
            ("phase", &START_PHASES),
            START_BUCKETS,
        )?;
        let phases = WorkerPhase::ALL.map(WorkerPhase::as_str);
        Ok(Self {
            register: Register {
                joined: gauge(r, "worker_activators", "Activators that this worker is registered at")?,
                ended: counters(r, "worker_calls_ended_total", "Calls to activators", "how", &["broken", "refused"])?,
            },
            streams: Streams {
                live: gauge(r, "live_streams", "Streams starting, live or in grace here")?,
                capacity: gauge(r, "worker_capacity", "Streams that this worker takes")?,
                offers: counters(r, "worker_offers_total", "Streams offered and taken", "outcome", &OFFER_OUTCOMES)?,
                failures: counters(
                    r,
                    "worker_fetch_failures_total",
                    "Streams that could not be fetched",
                    "why",
                    &receive::FAILURES,
                )?,
                received: counter(r, "received_messages_total", "Audio, video and data messages from publishers")?,
                clock_jumps: counter(r, "publisher_clock_jumps_total", "Frames at which a publisher's clock jumped")?,
                skipped: counter(
                    r,
                    "worker_skipped_messages_total",
                    "Messages of publishers that are too long for the replay window, or long and of an unknown type",
                )?,
                ended: counter(r, "worker_streams_ended_total", "Streams that are over")?,
                died: counter(r, "worker_streams_died_total", "Streams whose task panicked")?,
                start_handoff: start.with_label_values(&["handoff"]),
                start_upstream: start.with_label_values(&["upstream"]),
            },
            upstreams: Upstreams {
                figures: UpstreamCounts::FIGURES
                    .iter()
                    .map(|figure| by_host(r, figure.metric, figure.help))
                    .collect::<prometheus::Result<_>>()?,
                failures: counters(
                    r,
                    "upstream_failures_total",
                    "Attempts and sessions of upstreams that failed",
                    "fault",
                    &Fault::ALL.map(Fault::as_str),
                )?,
                now: register(r, IntGaugeVec::new(opts("upstreams", "Upstreams by state"), &["host", "state"])?)?,
            },
            phase: gauges(r, "worker_phase", "1 for the phase of going down that the worker is in", "phase", &phases)?,
            log_lines_dropped: dropped_log_lines(r, "worker_log_lines_dropped_total")?,
            registry,
        })
    }

    /// Notes where on the list of going down we are.
    pub fn phase(&self, now: WorkerPhase) {
        for phase in WorkerPhase::ALL {
            self.phase.with_label_values(&[phase.as_str()]).set(i64::from(phase == now));
        }
    }

    /// Everything in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        measure_log(&self.log_lines_dropped);
        text(&self.registry)
    }
}

/// Which hosts have rows of their own.
#[derive(Debug, Default)]
pub struct Hosts(HashSet<String>);

impl Hosts {
    /// The label of a host.
    pub fn label<'a>(&mut self, host: &'a str) -> &'a str {
        if self.0.contains(host) {
            return host;
        }
        if self.0.len() >= MOST_HOSTS {
            return OTHER_HOSTS;
        }
        self.0.insert(host.to_owned());
        host
    }
}

fn by_host(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
    register(registry, IntCounterVec::new(opts(name, help), &["host"])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_ours_and_there_from_the_start() {
        let metrics = Metrics::new().unwrap();
        metrics.phase(WorkerPhase::Serving);
        let text = metrics.text();
        let mut samples = text.lines().filter(|line| !line.starts_with('#'));
        assert!(samples.clone().all(|line| line.starts_with("liveedgecast_")), "{text}");
        for row in [
            "liveedgecast_live_streams 0",
            "liveedgecast_worker_offers_total{outcome=\"attached\"} 0",
            "liveedgecast_worker_fetch_failures_total{why=\"preface\"} 0",
            "liveedgecast_worker_phase{phase=\"serving\"} 1",
        ] {
            assert!(samples.any(|line| line == row) || text.contains(row), "{row}: {text}");
        }
    }

    #[test]
    fn hosts_are_bounded() {
        let mut hosts = Hosts::default();
        for number in 0..MOST_HOSTS {
            let host = format!("host-{number}:1935");
            assert_eq!(hosts.label(&host), host);
        }
        assert_eq!(hosts.label("one-more:1935"), OTHER_HOSTS);
        assert_eq!(hosts.label("host-0:1935"), "host-0:1935");
    }
}
