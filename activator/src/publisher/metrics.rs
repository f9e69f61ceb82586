//! Metrics of this room. In: publishers, as they are admitted, refused and end. Out: the registry.

use liveedgecast_common::metrics::{counter, counters, gauge};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::machine::CloseReason;
use crate::admission::RefusalReason;
use crate::dispatch;

/// Counters and gauges of publishers.
#[derive(Clone, Debug)]
pub struct PublisherMetrics {
    /// Connections open now.
    pub(super) connections: IntGauge,
    /// Publishers admitted.
    pub(super) admitted: IntCounter,
    /// Publishers that waited for their turn.
    pub(super) delayed: IntCounter,
    /// Refused publishers, by the reason of the admission or the lobby.
    pub(super) refused: IntCounterVec,
    /// Admitted publishers that have ended, by [`CloseReason`].
    pub(super) ended: IntCounterVec,
    /// Connections that ended before `publish`, by [`CloseReason`].
    pub(super) errors: IntCounterVec,
    /// Bytes that were kept for another worker, by the [`CloseReason`] for which none has got them.
    pub(super) rest_lost: IntCounterVec,
}

impl PublisherMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let refusals = RefusalReason::ALL.map(RefusalReason::as_str);
        let refusals: Vec<&str> =
            refusals.into_iter().chain(dispatch::PlaceRefusal::ALL.map(dispatch::PlaceRefusal::as_str)).collect();
        Ok(Self {
            connections: gauge(registry, "open_connections", "Publishers' connections open now")?,
            admitted: counter(registry, "publishers_admitted_total", "Publishers admitted")?,
            delayed: counter(
                registry,
                "publishers_delayed_total",
                "Publishers that waited for their turn because their address starts many",
            )?,
            refused: counters(registry, "publishers_refused_total", "Publishers refused", "reason", &refusals)?,
            ended: counters(
                registry,
                "publishers_ended_total",
                "Admitted publishers that have ended",
                "reason",
                &CloseReason::ENDS.map(CloseReason::as_str),
            )?,
            errors: counters(
                registry,
                "publisher_errors_total",
                "Connections of publishers that ended with an error",
                "reason",
                &[],
            )?,
            rest_lost: counters(
                registry,
                "stream_rest_lost_bytes_total",
                "Bytes of live streams that were kept for another worker and that none has got, so that upstreams may lack them",
                "reason",
                &CloseReason::LOSSES.map(CloseReason::as_str),
            )?,
        })
    }
}
