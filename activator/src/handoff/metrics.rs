//! Metrics of this room. In: memories of streams by descriptor, as they are kept and used again. Out: the registry.

use liveedgecast_common::metrics::{counter, gauge};
use prometheus::{IntCounter, IntGauge, Registry};

/// The counter and the gauge of memory that is used again.
#[derive(Clone, Debug)]
pub struct HandoffMetrics {
    /// Memories of ended streams that were handed over with another stream.
    pub(super) reused: IntCounter,
    /// Bytes of memory that is kept for the next stream.
    pub(super) spare_bytes: IntGauge,
}

impl HandoffMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            reused: counter(
                registry,
                "rings_reused_total",
                "Memories of ended streams that were handed to a worker for another stream, also if it declined that",
            )?,
            spare_bytes: gauge(
                registry,
                "spare_ring_bytes",
                "Memory of ended streams by descriptor, kept for the next streams of the same workers",
            )?,
        })
    }

    /// Metrics that nobody exports.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        Self::new(&Registry::new()).unwrap()
    }
}
