//! Metrics of this room. In: processes that were started. Out: the registry. (Their ends are counted in the lobby, where the machine is.)

use liveedgecast_common::metrics::counter;
use prometheus::{IntCounter, Registry};

/// Counters of worker processes.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    /// Worker processes started.
    pub(super) started: IntCounter,
}

impl ProcessMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self { started: counter(registry, "worker_processes_started_total", "Worker processes started")? })
    }
}
