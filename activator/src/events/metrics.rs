//! Metrics of this room. In: attempts to deliver, events that are not delivered. Out: the registry.

use liveedgecast_common::metrics::{counters, gauge};
use prometheus::{IntCounterVec, IntGauge, Registry};

use super::delivery_rules::DropCause;

/// The results of attempts.
const RESULTS: [&str; 2] = ["taken", "failed"];

/// Counters and the gauge of delivery.
#[derive(Clone, Debug)]
pub struct EventMetrics {
    attempts: IntCounterVec,
    pub(super) dropped: IntCounterVec,
    /// Events that wait for delivery.
    pub(super) waiting: IntGauge,
}

impl EventMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let causes = DropCause::ALL.map(DropCause::as_str);
        Ok(Self {
            attempts: counters(
                registry,
                "event_deliveries_total",
                "Attempts to deliver an event to LIVEEDGECAST_EVENTS_URL",
                "result",
                &RESULTS,
            )?,
            dropped: counters(
                registry,
                "events_dropped_total",
                "Events that were not delivered to LIVEEDGECAST_EVENTS_URL",
                "reason",
                &causes,
            )?,
            waiting: gauge(
                registry,
                "events_waiting",
                "Events that wait for their delivery to LIVEEDGECAST_EVENTS_URL",
            )?,
        })
    }

    pub(super) fn attempted(&self, taken: bool) {
        self.attempts.with_label_values(&[RESULTS[usize::from(!taken)]]).inc();
    }

    /// Metrics that nobody exports.
    #[cfg(test)]
    pub(super) fn unregistered() -> Self {
        Self::new(&Registry::new()).unwrap()
    }
}
