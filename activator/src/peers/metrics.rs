//! Metrics of this room. In: [`Cluster::measure`](super::Cluster::measure), at every scrape. Out: the registry.

use liveedgecast_common::metrics::{gauge, gauges};
use prometheus::{IntGauge, IntGaugeVec, Registry};

/// Gauges of the knowledge of all activators together.
#[derive(Clone, Debug)]
pub struct PeersMetrics {
    /// Other activators, by whether they can be heard.
    pub(super) peers: IntGaugeVec,
    /// Waiting and live streams of all activators, as far as they are known here.
    pub(super) demand: IntGauge,
}

impl PeersMetrics {
    /// Registers the gauges, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            peers: gauges(registry, "peers", "Other activators", "state", &["synced", "unreachable"])?,
            demand: gauge(
                registry,
                "cluster_demand",
                "Waiting and live streams of all activators as this one knows them; for max(), not sum()",
            )?,
        })
    }
}
