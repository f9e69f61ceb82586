//! The `/metrics` page. In: each room's own metrics, which this gathers, and those that workers tell. Out: the Prometheus text format.

mod process;

use liveedgecast_common::metrics::{dropped_log_lines, gauge, measure_log, opts, register, text};
use prometheus::{Counter, IntCounter, IntGauge, Registry};

use crate::accept::AcceptMetrics;
use crate::admission::AdmissionMetrics;
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
    used: Used,
    log_lines_dropped: IntCounter,
}

/// Resources that this process and its children have used.
#[derive(Clone, Debug)]
struct Used {
    own: Counter,
    ended_workers: Counter,
    resident: IntGauge,
}

impl ActivatorMetrics {
    /// Registers them all, at zero.
    ///
    /// # Errors
    /// Two have the same name: a mistake in this program, which the test below finds.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
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
            used: Used {
                own: seconds(r, "activator_cpu_seconds_total", "CPU time of the activator")?,
                ended_workers: seconds(
                    r,
                    "ended_workers_cpu_seconds_total",
                    "CPU time of worker processes that have ended",
                )?,
                resident: gauge(r, "activator_resident_bytes", "Resident memory of the activator")?,
            },
            log_lines_dropped: dropped_log_lines(r, "log_lines_dropped_total")?,
            registry,
        })
    }

    /// The page in the Prometheus text format.
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

fn seconds(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Counter> {
    register(registry, Counter::with_opts(opts(name, help))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_ours_and_there_from_the_start() {
        let metrics = ActivatorMetrics::new().unwrap();
        let text = metrics.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        assert!(samples.clone().all(|line| line.starts_with("liveedgecast_")), "{text}");
        assert!(samples.count() > 40);
        // The metrics of `kubernetes` exist in a build without that feature, too.
        for row in [
            "liveedgecast_waiting_streams 0",
            "liveedgecast_publishers_refused_total{reason=\"key\"} 0",
            "liveedgecast_watchdog_total{result=\"patched\"} 0",
            "liveedgecast_kubernetes_errors_total{reason=\"late\"} 0",
        ] {
            assert!(text.contains(row), "{text}");
        }
    }
}
