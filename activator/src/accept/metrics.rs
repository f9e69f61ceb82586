//! Metrics of this room. In: connections, as the accept loop lets them in or turns them away. Out: the registry.

use liveedgecast_common::metrics::{counter, counters};
use prometheus::{IntCounter, IntCounterVec, Registry};

use super::TurnedAway;

/// Counters of the accept loop.
#[derive(Clone, Debug)]
pub struct AcceptMetrics {
    /// Connections let in.
    pub accepted: IntCounter,
    turned_away: IntCounterVec,
    /// Times that `accept` found no descriptor or memory left.
    pub exhausted: IntCounter,
}

impl AcceptMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            accepted: counter(registry, "connections_total", "Connections of publishers accepted")?,
            turned_away: counters(
                registry,
                "connections_turned_away_total",
                "Connections closed for want of room, at once or while undecided",
                "why",
                &TurnedAway::ALL.map(TurnedAway::as_str),
            )?,
            exhausted: counter(
                registry,
                "accept_exhausted_total",
                "Times that accept found no descriptor or memory left",
            )?,
        })
    }

    /// Counts a connection that was closed at once, or closed to make room for a newer one.
    pub fn turned_away(&self, why: TurnedAway) {
        self.turned_away.with_label_values(&[why.as_str()]).inc();
    }
}
