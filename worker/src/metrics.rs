//! The `/metrics` page. In: each room's own metrics, which this gathers. Out: the Prometheus text format.
//!
//! The activator serves these under its own `/metrics` too, with a worker label, so no name may be one of the activator's.

use liveedgecast_common::metrics::{dropped_log_lines, gauges, measure_log, text};
use prometheus::{IntCounter, IntGaugeVec, Registry};

use crate::drain::WorkerPhase;
use crate::engine::EngineMetrics;
use crate::receive::SpareMetrics;
use crate::register::RegisterMetrics;
use crate::upstream::UpstreamMetrics;

/// The metrics of all rooms, and of the process.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    registry: Registry,
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
}

impl WorkerMetrics {
    /// Registers them all, at zero.
    ///
    /// # Errors
    /// Two have the same name: a mistake in this program, which the test below finds.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let engine = EngineMetrics::new(r)?;
        let phases = WorkerPhase::ALL.map(WorkerPhase::as_str);
        Ok(Self {
            upstream: UpstreamMetrics::new(r)?,
            spares: SpareMetrics::new(r)?,
            register: RegisterMetrics::new(r, engine.start_handoff.clone())?,
            engine,
            phase: gauges(r, "worker_phase", "1 for the current phase of going down", "phase", &phases)?,
            log_lines_dropped: dropped_log_lines(r, "worker_log_lines_dropped_total")?,
            registry,
        })
    }

    /// Sets the gauge of the phase in which the process is.
    pub fn phase(&self, now: WorkerPhase) {
        for phase in WorkerPhase::ALL {
            self.phase.with_label_values(&[phase.as_str()]).set(i64::from(phase == now));
        }
    }

    /// The page in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        measure_log(&self.log_lines_dropped);
        text(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_ours_and_there_from_the_start() {
        let metrics = WorkerMetrics::new().unwrap();
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
}
