//! Metrics of this room. In: reports of streams. Out: the registry.

use liveedgecast_common::control::UpstreamCounts;
use liveedgecast_common::control::totals::START_BUCKETS;
use liveedgecast_common::metrics::{counter, gauge, histograms, opts, register};
use prometheus::{CounterVec, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::upstream::DestinationLabels;

/// Parts of a start that a worker sees: from the offer to the stream's task, and from there to `Publish.Start` upstream.
const START_PHASES: [&str; 2] = ["handoff", "upstream"];
const SKIPPED_HELP: &str =
    "Time of streams that was passed over on the way to the destination, because it lagged or was away";
const KEYFRAME_HELP: &str = "Time since the last keyframe of a stream with video, the worst of all streams; streams without arrivals stay as they were";
const LAG_HELP: &str =
    "Age of the oldest message that waits to be written to the destination, the worst of all streams";

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
    /// Messages that no upstream gets: too long for the ring, long and of an unknown type, or begun at a worker that was lost.
    pub(super) skipped: IntCounter,
    /// Streams that have ended.
    pub(super) ended: IntCounter,
    /// Streams whose task panicked.
    pub(super) died: IntCounter,
    /// From the offer to the stream's task; `register` observes it.
    pub start_handoff: Histogram,
    /// From the stream's task to the first live upstream.
    pub(super) start_upstream: Histogram,
    /// Counters by destination, in the order of [`UpstreamCounts::FIGURES`].
    pub(crate) figures: Vec<IntCounterVec>,
    /// Time of streams that a destination did not get.
    pub(crate) skipped_time: CounterVec,
    /// Time since a stream's last keyframe, the worst of all streams.
    pub(super) keyframe_age: Gauge,
    /// Labels of destinations.
    pub(super) labels: DestinationLabels,
    /// Age of the oldest message that waits to be written to a destination, the worst of all streams.
    pub(crate) lag: GaugeVec,
    /// Upstreams now, by state.
    pub(crate) upstreams: IntGaugeVec,
}

impl EngineMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry, labels: DestinationLabels) -> prometheus::Result<Self> {
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
                "Messages of publishers that are too long for the replay window, long and of an unknown type, or begun at a worker that was lost",
            )?,
            ended: counter(r, "worker_streams_ended_total", "Streams that have ended")?,
            died: counter(r, "worker_streams_died_total", "Streams whose task panicked")?,
            start_handoff: start.with_label_values(&["handoff"]),
            start_upstream: start.with_label_values(&["upstream"]),
            figures: UpstreamCounts::FIGURES
                .iter()
                .map(|figure| by_destination(r, figure.metric, figure.help))
                .collect::<prometheus::Result<_>>()?,
            skipped_time: register(
                r,
                CounterVec::new(opts("upstream_skipped_seconds_total", SKIPPED_HELP), &["destination"])?,
            )?,
            keyframe_age: register(r, Gauge::with_opts(opts("keyframe_age_seconds", KEYFRAME_HELP))?)?,
            labels,
            lag: register(r, GaugeVec::new(opts("upstream_lag_seconds", LAG_HELP), &["destination"])?)?,
            upstreams: register(
                r,
                IntGaugeVec::new(opts("upstreams", "Upstreams by state"), &["destination", "state"])?,
            )?,
        })
    }

    /// Metrics that nobody exports.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        Self::new(&Registry::new(), DestinationLabels::default()).unwrap()
    }
}

fn by_destination(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
    register(registry, IntCounterVec::new(opts(name, help), &["destination"])?)
}
