//! Metrics of this room. In: outputs of the machines, and their state when somebody looks. Out: the registry.
#![expect(clippy::disallowed_methods, reason = "shell: the time of day at which a traced start was observed")]

use std::time::Duration;

use liveedgecast_common::clock::utc;
use liveedgecast_common::metrics::{
    Exemplar, Exemplars, PREFIX, counter, counters, gauges, histogram, histograms, opts, register,
};
use liveedgecast_common::trace;
use prometheus::{CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use crate::dispatch::processes::ProcessOutcome;
use crate::dispatch::{Back, COLD_START_PHASES, OfferOutcome, WorkerState};

/// Buckets from a fraction of a millisecond (everything is warm) to the longest hold that is usual.
const START_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0];

/// Name of the histogram of cold starts.
const COLD_START: &str = "cold_start_seconds";

/// Buckets from a test of the encoder to a channel that is on for days.
const DURATION_BUCKETS: &[f64] =
    &[10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 86_400.0, 259_200.0, 604_800.0];

/// Worker-seconds that workers have run.
pub(super) const USED: &str = "used";
/// Worker-seconds that an always-on fleet would have run in vain.
pub(super) const AVOIDED: &str = "avoided";

/// State of a stream that waits for a worker.
pub(super) const WAITING: &str = "waiting";
/// State of a stream that a worker has.
pub(super) const LIVE: &str = "live";

/// Counters, gauges and histograms of the lobby, its workers and their processes.
#[derive(Clone, Debug)]
pub struct LobbyMetrics {
    /// Streams whose publishers are connected here, by state.
    pub(super) streams: IntGaugeVec,
    /// Offers, by outcome.
    pub(super) offers: IntCounterVec,
    /// Streams that came back, by [`Back`].
    pub(super) back: IntCounterVec,
    /// Streams that a worker took and that ended before they ran.
    pub(super) never_started: IntCounter,
    /// Time from `publish` to `Publish.Start`, by whether a worker had to be started.
    pub(super) start: HistogramVec,
    /// The parts of a start for which a worker had to be started.
    pub(super) cold_start: HistogramVec,
    /// Traces of cold starts.
    exemplars: Exemplars,
    /// Time that publishers were live.
    pub(super) duration: Histogram,
    /// Worker-seconds, by whether they were used or avoided.
    pub(super) worker_seconds: CounterVec,
    /// Streams of publishers of the configuration file, by name and state.
    pub(super) publisher_streams: IntGaugeVec,
    /// Bytes of publishers of the configuration file, by name.
    pub(super) publisher_bytes: IntCounterVec,
    /// Workers, by state.
    pub(super) workers: IntGaugeVec,
    /// Time from the start of a worker process to its registration.
    pub(super) registration: Histogram,
    /// Worker processes that have ended, by how.
    pub(super) processes_ended: IntCounterVec,
    /// Sessions left out because a worker reported more than its capacity. A row of the control service's metric of refusals.
    pub(super) excess: IntCounter,
    /// Reports of streams left out because their worker was not given the stream. Another row of that metric.
    pub(super) disbelieved: IntCounter,
}

impl LobbyMetrics {
    /// Notes one phase of a cold start.
    pub(super) fn note_phase(&self, stream: &str, phase: &str, time: Duration) {
        self.cold_start.with_label_values(&[phase]).observe(time.as_secs_f64());
        if let Some(trace_id) = trace::id_of(stream) {
            self.exemplars
                .note(format!("phase=\"{phase}\""), Exemplar { trace_id, value: time.as_secs_f64(), at: utc() });
        }
    }

    /// Returns a page of metrics as OpenMetrics, with the traces of cold starts.
    #[must_use]
    pub fn open_page(&self, text: &str) -> String {
        self.exemplars.page(text, &format!("{PREFIX}{COLD_START}"))
    }

    /// Registers them, at zero; `excess` and `disbelieved` belong to the control service and are registered there.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry, excess: IntCounter, disbelieved: IntCounter) -> prometheus::Result<Self> {
        let r = registry;
        Ok(Self {
            streams: gauges(
                r,
                "streams",
                "Streams whose publishers are connected here: they wait for a worker, or a worker has them",
                "state",
                &[WAITING, LIVE],
            )?,
            offers: counters(
                r,
                "offers_total",
                "Offers to workers",
                "result",
                &OfferOutcome::ALL.map(OfferOutcome::as_str),
            )?,
            back: counters(
                r,
                "streams_back_total",
                "Streams that a worker gave back or lost",
                "reason",
                &Back::ALL.map(Back::as_str),
            )?,
            never_started: counter(
                r,
                "starts_failed_total",
                "Streams that a worker took and that ended before they were live",
            )?,
            start: histograms(
                r,
                "publish_start_seconds",
                "Time from publish to Publish.Start",
                ("kind", &["cold", "warm"]),
                START_BUCKETS,
            )?,
            exemplars: Exemplars::default(),
            cold_start: histograms(
                r,
                COLD_START,
                "Time of each phase of a start for which a worker had to come up; the phase ends at the milestone that it is named after",
                ("phase", &COLD_START_PHASES),
                START_BUCKETS,
            )?,
            duration: histogram(
                r,
                "stream_duration_seconds",
                "Time from Publish.Start until the publisher has left this activator",
                DURATION_BUCKETS,
            )?,
            worker_seconds: worker_seconds(r)?,
            publisher_streams: register(
                r,
                IntGaugeVec::new(
                    opts(
                        "publisher_streams",
                        "Streams connected here of publishers that the configuration file lists, with LIVEEDGECAST_PUBLISHER_METRICS",
                    ),
                    &["publisher", "state"],
                )?,
            )?,
            publisher_bytes: register(
                r,
                IntCounterVec::new(
                    opts(
                        "publisher_received_bytes_total",
                        "Bytes that workers have received of publishers that the configuration file lists, with LIVEEDGECAST_PUBLISHER_METRICS",
                    ),
                    &["publisher"],
                )?,
            )?,
            workers: gauges(r, "workers", "Workers", "state", &WorkerState::ALL.map(WorkerState::as_str))?,
            registration: histogram(
                r,
                "worker_registration_seconds",
                "Time from the start of a worker process to its registration",
                START_BUCKETS,
            )?,
            processes_ended: counters(
                r,
                "worker_processes_ended_total",
                "Worker processes that ended",
                "reason",
                &ProcessOutcome::ALL.map(ProcessOutcome::as_str),
            )?,
            excess,
            disbelieved,
        })
    }

    /// The number of worker processes that have ended in this way.
    #[cfg(test)]
    pub(crate) fn ended(&self, how: ProcessOutcome) -> u64 {
        self.processes_ended.with_label_values(&[how.as_str()]).get()
    }

    /// Metrics that nobody exports.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        let counter = |name: &str| IntCounter::new(name, name).unwrap();
        Self::new(&Registry::new(), counter("excess"), counter("disbelieved")).unwrap()
    }
}

fn worker_seconds(registry: &Registry) -> prometheus::Result<CounterVec> {
    let help = "Worker-seconds that registered workers have used, and that an always-on fleet of LIVEEDGECAST_BASELINE_WORKERS would have used beyond those; \
                each second is counted by one activator";
    let seconds = CounterVec::new(opts("worker_seconds_total", help), &["result"])?;
    [USED, AVOIDED].iter().for_each(|result| drop(seconds.with_label_values(&[result])));
    register(registry, seconds)
}
