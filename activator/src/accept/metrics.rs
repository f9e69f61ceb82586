//! Metrics of this room. In: connections, as the accept loop lets them in or turns them away. Out: the registry.

use liveedgecast_common::metrics::{counter, counters};
use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{TlsFailure, TurnedAway};

/// Counters of the accept loop.
#[derive(Clone, Debug)]
pub struct AcceptMetrics {
    /// Connections let in.
    pub accepted: IntCounter,
    turned_away: IntCounterVec,
    tls_failed: IntCounterVec,
    /// Connections of trusted proxies that named no client.
    pub(super) nameless: IntCounter,
    /// Connections of trusted proxies that ended without a byte.
    pub(super) probes: IntCounter,
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
                "reason",
                &TurnedAway::ALL.map(TurnedAway::as_str),
            )?,
            tls_failed: counters(
                registry,
                "rtmps_handshakes_failed_total",
                "Connections to the RTMPS port that ended before their TLS handshake",
                "reason",
                &TlsFailure::ALL.map(TlsFailure::as_str),
            )?,
            nameless: counter(
                registry,
                "proxy_headers_missing_total",
                "Connections of trusted proxies refused for want of a PROXY header",
            )?,
            probes: counter(
                registry,
                "proxy_probes_total",
                "Connections of trusted proxies that ended without a byte, as health checks do",
            )?,
            exhausted: counter(
                registry,
                "accept_exhausted_total",
                "Times that accept found no descriptor or memory left",
            )?,
        })
    }

    /// Counts a connection to the RTMPS port without TLS.
    pub(super) fn tls_failed(&self, why: TlsFailure) {
        self.tls_failed.with_label_values(&[why.as_str()]).inc();
    }

    /// Counts a connection that was closed at once, or closed to make room for a newer one.
    pub fn turned_away(&self, why: TurnedAway) {
        self.turned_away.with_label_values(&[why.as_str()]).inc();
    }
}
