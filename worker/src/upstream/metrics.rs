//! Metrics of this room. In: faults of attempts and sessions. Out: the registry. (Bytes and messages are in the reports of streams, and
//! `engine` counts them.)

use liveedgecast_common::metrics::counters;
use prometheus::{IntCounterVec, Registry};

use super::Fault;

/// Counters of upstream sessions.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    /// Attempts and sessions that failed, by [`Fault`].
    pub failures: IntCounterVec,
}

impl UpstreamMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            failures: counters(
                registry,
                "upstream_failures_total",
                "Attempts and sessions of upstreams that failed",
                "reason",
                &Fault::ALL.map(Fault::as_str),
            )?,
        })
    }
}
