//! The `/metrics` page. In: each room's own metrics, which this gathers, and those that workers tell. Out: the Prometheus text format.

use liveedgecast_common::metrics::{
    ProcessUsage, dropped_log_lines, dropped_spans, gauges, measure_log, measure_traces, opts, register,
    register_process, text,
};
use prometheus::{Counter, IntCounter, IntGaugeVec, Registry};

use crate::accept::AcceptMetrics;
use crate::admission::AdmissionMetrics;
use crate::config::Fleet;
use crate::control::ControlMetrics;
use crate::events::EventMetrics;
use crate::handoff::HandoffMetrics;
use crate::kubernetes::KubernetesMetrics;
use crate::lobby::LobbyMetrics;
use crate::peers::PeersMetrics;
use crate::processes::ProcessMetrics;
use crate::publisher::PublisherMetrics;
use crate::reload::ReloadMetrics;
use crate::scaler::ScalerMetrics;
use crate::totals::WorkerTotals;

/// The metrics of all rooms, and of the process.
#[derive(Clone, Debug)]
pub struct ActivatorMetrics {
    registry: Registry,
    /// Connections.
    pub accept: AcceptMetrics,
    /// Events.
    pub events: EventMetrics,
    /// Hooks, files.
    pub admission: AdmissionMetrics,
    /// Streams that follow changed files.
    pub reload: ReloadMetrics,
    /// Publishers.
    pub publisher: PublisherMetrics,
    /// Memory of streams by descriptor.
    pub handoff: HandoffMetrics,
    /// Streams that wait, workers.
    pub lobby: LobbyMetrics,
    /// Calls of workers.
    pub control: ControlMetrics,
    /// Worker processes.
    pub processes: ProcessMetrics,
    /// Other activators.
    pub peers: PeersMetrics,
    /// KEDA.
    pub scaler: ScalerMetrics,
    /// The Kubernetes API.
    pub kubernetes: KubernetesMetrics,
    /// Metrics that workers tell.
    pub totals: WorkerTotals,
    certificates: IntGaugeVec,
    fleet: IntGaugeVec,
    ended_workers: Counter,
    log_lines_dropped: IntCounter,
    spans_dropped: IntCounter,
}

impl ActivatorMetrics {
    /// Registers them all, at zero.
    ///
    /// # Errors
    /// Two have the same name: a mistake in this program, which the test below finds.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        register_process(r, env!("CARGO_PKG_VERSION"))?;
        let control = ControlMetrics::new(r)?;
        Ok(Self {
            accept: AcceptMetrics::new(r)?,
            events: EventMetrics::new(r)?,
            admission: AdmissionMetrics::new(r)?,
            reload: ReloadMetrics::new(r)?,
            publisher: PublisherMetrics::new(r)?,
            handoff: HandoffMetrics::new(r)?,
            lobby: LobbyMetrics::new(r, control.excess(), control.disbelieved())?,
            control,
            processes: ProcessMetrics::new(r)?,
            peers: PeersMetrics::new(r)?,
            scaler: ScalerMetrics::new(r)?,
            kubernetes: KubernetesMetrics::new(r)?,
            totals: WorkerTotals::new(r)?,
            certificates: register(
                r,
                IntGaugeVec::new(
                    opts(
                        "certificate_expiry_timestamp_seconds",
                        "Time at which the first certificate of a listener expires, since the Unix epoch",
                    ),
                    &["listener"],
                )?,
            )?,
            fleet: gauges(
                r,
                "fleet",
                "1 for the starter of workers (FLEET)",
                "kind",
                &[Fleet::Process.as_str(), Fleet::External.as_str()],
            )?,
            ended_workers: register(
                r,
                Counter::with_opts(opts(
                    "ended_workers_cpu_seconds_total",
                    "CPU time of worker processes that have ended",
                ))?,
            )?,
            log_lines_dropped: dropped_log_lines(r, "log_lines_dropped_total")?,
            spans_dropped: dropped_spans(r)?,
            registry,
        })
    }

    /// Notes the starter of workers.
    pub fn fleet_is(&self, fleet: Fleet) {
        self.fleet.with_label_values(&[fleet.as_str()]).set(1);
    }

    /// Notes the time at which the first certificate of a listener expires.
    pub fn certificate_ends(&self, listener: &str, end: Option<u64>) {
        if let Some(end) = end {
            self.certificates.with_label_values(&[listener]).set(i64::try_from(end).unwrap_or(i64::MAX));
        }
    }

    /// The page in the Prometheus text format.
    pub fn text(&self) -> String {
        if let Some(usage) = ProcessUsage::now() {
            let risen = usage.ended_children.as_secs_f64() - self.ended_workers.get();
            self.ended_workers.inc_by(risen.max(0.0));
        }
        measure_log(&self.log_lines_dropped);
        measure_traces(&self.spans_dropped);
        text(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_ours_and_there_from_the_start() {
        let metrics = ActivatorMetrics::new().unwrap();
        let text = metrics.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let ours = |line: &str| line.starts_with("liveedgecast_") || line.starts_with("process_");
        assert!(samples.clone().all(ours), "{text}");
        assert!(samples.count() > 40);
        // The metrics of `kubernetes` exist in a build without that feature, too.
        for row in [
            "liveedgecast_streams{state=\"waiting\"} 0",
            "liveedgecast_publishers_refused_total{reason=\"key\"} 0",
            "liveedgecast_watchdog_total{result=\"patched\"} 0",
            "liveedgecast_kubernetes_errors_total{reason=\"late\"} 0",
        ] {
            assert!(text.contains(row), "{text}");
        }
    }
}
