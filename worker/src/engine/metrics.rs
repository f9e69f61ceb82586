//! Metrics of this room. In: reports of streams. Out: the registry.
//!
//! Note: hosts of upstreams come from the push URLs of activators, which may change as often as somebody likes while this worker runs. The
//! number of hosts is bounded here, or they could fill a metrics server with labels.

use std::collections::HashSet;

use liveedgecast_common::control::UpstreamCounts;
use liveedgecast_common::control::totals::START_BUCKETS;
use liveedgecast_common::metrics::{counter, gauge, histograms, opts, register};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

/// Parts of a start that a worker sees: from the offer to the stream's task, and from there to `Publish.Start` upstream.
const START_PHASES: [&str; 2] = ["handoff", "upstream"];
/// Most hosts that get rows of their own. All others share one row.
const MOST_HOSTS: usize = 256;
/// The row of all others.
const OTHER_HOSTS: &str = "other";

/// Counters, gauges and histograms of streams and their upstreams.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    /// Streams served now.
    pub(super) live: IntGauge,
    /// Most streams that are served at once.
    pub(super) capacity: IntGauge,
    /// Bytes that publishers sent.
    pub(super) received_bytes: IntCounter,
    /// Messages that publishers sent.
    pub(super) received: IntCounter,
    /// Frames at which the clock of a publisher jumped.
    pub(super) clock_jumps: IntCounter,
    /// Messages that no upstream gets: too long for the ring, or long and of an unknown type.
    pub(super) skipped: IntCounter,
    /// Streams that have ended.
    pub(super) ended: IntCounter,
    /// Streams whose task panicked.
    pub(super) died: IntCounter,
    /// From the offer to the stream's task; `register` observes it.
    pub start_handoff: Histogram,
    /// From the stream's task to the first live upstream.
    pub(super) start_upstream: Histogram,
    /// Counters by host, in the order of [`UpstreamCounts::FIGURES`].
    pub(crate) figures: Vec<IntCounterVec>,
    /// Upstreams now, by state.
    pub(crate) upstreams: IntGaugeVec,
}

impl EngineMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let r = registry;
        let start = histograms(
            r,
            "worker_start_seconds",
            "Time of each part of a stream's start",
            ("phase", &START_PHASES),
            START_BUCKETS,
        )?;
        Ok(Self {
            live: gauge(r, "worker_streams", "Streams of workers: starting, live or in grace")?,
            capacity: gauge(r, "worker_capacity", "Most streams that the workers take")?,
            received_bytes: counter(
                r,
                "received_bytes_total",
                "Bytes of publishers' streams that workers have received",
            )?,
            received: counter(r, "received_messages_total", "Audio, video and data messages from publishers")?,
            clock_jumps: counter(r, "publisher_clock_jumps_total", "Frames at which a publisher's clock jumped")?,
            skipped: counter(
                r,
                "skipped_messages_total",
                "Messages of publishers that are too long for the replay window, or long and of an unknown type",
            )?,
            ended: counter(r, "worker_streams_ended_total", "Streams that have ended")?,
            died: counter(r, "worker_streams_died_total", "Streams whose task panicked")?,
            start_handoff: start.with_label_values(&["handoff"]),
            start_upstream: start.with_label_values(&["upstream"]),
            figures: UpstreamCounts::FIGURES
                .iter()
                .map(|figure| by_host(r, figure.metric, figure.help))
                .collect::<prometheus::Result<_>>()?,
            upstreams: register(r, IntGaugeVec::new(opts("upstreams", "Upstreams by state"), &["host", "state"])?)?,
        })
    }

    /// Metrics that nobody exports.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        Self::new(&Registry::new()).unwrap()
    }
}

/// The hosts that have rows of their own.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashSet<String>);

impl Hosts {
    /// The label of a host.
    pub(super) fn label<'a>(&mut self, host: &'a str) -> &'a str {
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
