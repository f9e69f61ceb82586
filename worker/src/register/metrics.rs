//! Metrics of this room. In: calls to activators, and offers. Out: the registry.

use liveedgecast_common::metrics::{counters, gauge};
use prometheus::{Histogram, IntCounterVec, IntGauge, Registry};

use crate::receive;

/// Outcomes of offers that were taken.
const OFFER_OUTCOMES: [&str; 4] = ["started", "attached", "declined", "failed"];

/// Counters and gauges of the registration.
#[derive(Clone, Debug)]
pub struct RegisterMetrics {
    /// Activators at which this worker is registered.
    pub(super) joined: IntGauge,
    /// Calls to activators that ended, by how.
    pub(super) calls_ended: IntCounterVec,
    /// Offers that were taken, by outcome.
    pub(super) offers: IntCounterVec,
    /// Streams that could not be fetched, by the cause.
    pub(super) fetch_failures: IntCounterVec,
    /// From the offer to the stream's task. A part of the engine's metric of starts.
    pub(super) start_handoff: Histogram,
}

impl RegisterMetrics {
    /// Registers them, at zero: those that an activator shows in `totals`, the others in `own`. `start_handoff` belongs to the engine and is
    /// registered there.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(totals: &Registry, own: &Registry, start_handoff: Histogram) -> prometheus::Result<Self> {
        let r = totals;
        Ok(Self {
            joined: gauge(own, "worker_activators", "Activators at which this worker is registered")?,
            calls_ended: counters(
                r,
                "worker_calls_ended_total",
                "Calls to activators that ended",
                "reason",
                &["broken", "refused"],
            )?,
            offers: counters(r, "worker_offers_total", "Offers that were taken", "result", &OFFER_OUTCOMES)?,
            fetch_failures: counters(
                r,
                "worker_fetch_failures_total",
                "Streams that could not be fetched",
                "reason",
                &receive::FAILURES,
            )?,
            start_handoff,
        })
    }
}
