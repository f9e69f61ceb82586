//! The metrics of all rooms. In: each room's own metrics, which this gathers. Out: two registries: the totals, which an activator shows on its page
//! for this worker, and the rest, which is this worker's own `/metrics`.
//!
//! Note: no metric is on both pages, or a sum over everything that is scraped would count it twice.

use liveedgecast_common::metrics::{
    dropped_log_lines, dropped_spans, gauges, measure_log, measure_traces, register_process, text,
};
use prometheus::{IntCounter, IntGaugeVec, Registry};

use crate::drain::WorkerPhase;
use crate::engine::EngineMetrics;
use crate::receive::SpareMetrics;
use crate::register::RegisterMetrics;
use crate::upstream::UpstreamMetrics;

/// The metrics of all rooms, and of the process.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    /// The metrics that an activator shows: those of [`FAMILIES`](liveedgecast_common::control::totals::FAMILIES).
    pub totals: Registry,
    own: Registry,
    /// Upstream sessions.
    pub upstream: UpstreamMetrics,
    /// Streams.
    pub engine: EngineMetrics,
    /// Rings that are used again.
    pub spares: SpareMetrics,
    /// Calls to activators, and offers.
    pub register: RegisterMetrics,
    phase: IntGaugeVec,
    log_lines_dropped: IntCounter,
    spans_dropped: IntCounter,
}

impl WorkerMetrics {
    /// Registers them all, at zero.
    ///
    /// # Errors
    /// Two have the same name: a mistake in this program, which the test below finds.
    pub fn new() -> prometheus::Result<Self> {
        let (totals, own) = (Registry::new(), Registry::new());
        register_process(&own, env!("CARGO_PKG_VERSION"))?;
        let upstream = UpstreamMetrics::new(&totals)?;
        let engine = EngineMetrics::new(&totals, upstream.labels.clone())?;
        let phases = WorkerPhase::ALL.map(WorkerPhase::as_str);
        Ok(Self {
            upstream,
            spares: SpareMetrics::new(&totals)?,
            register: RegisterMetrics::new(&totals, &own, engine.start_handoff.clone())?,
            engine,
            phase: gauges(&own, "worker_phase", "1 for the current phase of going down", "phase", &phases)?,
            log_lines_dropped: dropped_log_lines(&own, "log_lines_dropped_total")?,
            spans_dropped: dropped_spans(&own)?,
            totals,
            own,
        })
    }

    /// Sets the gauge of the phase in which the process is.
    pub fn phase(&self, now: WorkerPhase) {
        for phase in WorkerPhase::ALL {
            self.phase.with_label_values(&[phase.as_str()]).set(i64::from(phase == now));
        }
    }

    /// The worker's own page in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        measure_log(&self.log_lines_dropped);
        measure_traces(&self.spans_dropped);
        text(&self.own)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use liveedgecast_common::control::totals::{FAMILIES, TotalKind};
    use liveedgecast_common::control::{UpstreamCounts, UpstreamState};
    use liveedgecast_common::metrics::{PREFIX, gathered};
    use prometheus::proto::MetricType;

    use super::*;
    use crate::upstream::Fault;

    #[test]
    fn every_name_is_ours_and_there_from_the_start() {
        let metrics = WorkerMetrics::new().unwrap();
        metrics.phase(WorkerPhase::Serving);
        let page = metrics.text() + &text(&metrics.totals);
        let ours = |line: &str| line.starts_with(PREFIX) || line.starts_with("process_");
        assert!(page.lines().filter(|line| !line.starts_with('#')).all(ours), "{page}");
        for row in [
            "liveedgecast_worker_streams 0",
            "liveedgecast_worker_offers_total{result=\"attached\"} 0",
            "liveedgecast_worker_fetch_failures_total{reason=\"preface\"} 0",
            "liveedgecast_worker_phase{phase=\"serving\"} 1",
        ] {
            assert!(page.lines().any(|line| line == row), "{row}: {page}");
        }
    }

    #[test]
    fn totals_are_the_families_that_activators_know() {
        let metrics = WorkerMetrics::new().unwrap();
        // Rows of destinations come with the first stream.
        metrics.engine.upstreams.with_label_values(&["youtube", UpstreamState::Live.as_str()]).set(1);
        metrics.engine.lag.with_label_values(&["youtube"]).set(1.0);
        metrics.engine.skipped_time.with_label_values(&["youtube"]).inc();
        metrics.upstream.failed("youtube", Fault::Lost);
        for figure in &metrics.engine.figures {
            figure.with_label_values(&["youtube"]).inc();
        }
        assert_eq!(metrics.engine.figures.len(), UpstreamCounts::FIGURES.len());
        let known: BTreeSet<String> = FAMILIES.iter().map(|family| format!("{PREFIX}{}", family.name)).collect();
        let told = metrics.totals.gather();
        assert_eq!(told.iter().map(|metric| metric.name().to_owned()).collect::<BTreeSet<_>>(), known);
        for metric in told {
            let family = FAMILIES.iter().find(|family| metric.name() == format!("{PREFIX}{}", family.name)).unwrap();
            let kind = match family.kind {
                TotalKind::Counter => MetricType::COUNTER,
                TotalKind::Gauge | TotalKind::Highest => MetricType::GAUGE,
                TotalKind::Histogram(bounds) => {
                    let buckets = metric.get_metric()[0].get_histogram().get_bucket();
                    let told: Vec<f64> = buckets.iter().map(|bucket| bucket.upper_bound()).collect();
                    assert_eq!(told, bounds);
                    MetricType::HISTOGRAM
                }
            };
            assert_eq!((metric.help(), metric.get_field_type()), (family.help, kind), "{}", family.name);
            let labels: Vec<&str> = metric.get_metric()[0].get_label().iter().map(|pair| pair.name()).collect();
            assert_eq!(labels, family.labels, "{}", family.name);
        }
        assert!(gathered(&metrics.totals).len() > 30);
    }
}
