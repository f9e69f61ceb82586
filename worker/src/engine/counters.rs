//! The counters of streams and their upstreams, the latter added up by host. In: sessions as streams report them, with counters
//! that grow. Out: the metrics of all streams, so that neither `stream` nor `upstream` knows of metrics.
//!
//! Note: a stream that gets its publisher back reports under another id and goes on counting, so the reports are kept by the stream's slot
//! and not by its id.

use std::collections::HashMap;

use liveedgecast_common::control::{Session, UpstreamCounts, UpstreamReport};

use super::metrics::{EngineMetrics, Hosts};
use super::table::StreamSlot;

/// The counters, and the newest report of each stream.
#[derive(Debug)]
pub(super) struct StreamCounters {
    metrics: EngineMetrics,
    hosts: Hosts,
    streams: HashMap<StreamSlot, Known>,
}

/// The newest report of a stream.
#[derive(Debug, Default)]
struct Known {
    messages: u64,
    upstreams: Vec<UpstreamReport>,
}

impl StreamCounters {
    pub(super) fn new(metrics: EngineMetrics) -> Self {
        Self { metrics, hosts: Hosts::default(), streams: HashMap::new() }
    }

    /// Adds the growth since the last report of a stream.
    pub(super) fn reported(&mut self, slot: StreamSlot, session: &Session) {
        let known = Known { messages: session.messages, upstreams: session.upstreams.clone() };
        let Known { messages, upstreams: before } = self.streams.insert(slot, known).unwrap_or_default();
        self.metrics.received.inc_by(growth(messages, session.messages));
        for (at, upstream) in session.upstreams.iter().enumerate() {
            let host = self.hosts.label(&upstream.host);
            let known = before.get(at).filter(|known| known.host == upstream.host);
            let last = known.map(|known| known.counts).unwrap_or_default();
            for (figure, counter) in UpstreamCounts::FIGURES.iter().zip(&self.metrics.figures) {
                let grown = growth((figure.of)(&last), (figure.of)(&upstream.counts));
                counter.with_label_values(&[host]).inc_by(grown);
            }
        }
        self.count(&before, -1);
        self.count(&session.upstreams, 1);
    }

    /// Notes that a stream has ended.
    pub(super) fn closed(&mut self, slot: StreamSlot) {
        let known = self.streams.remove(&slot).unwrap_or_default();
        self.count(&known.upstreams, -1);
    }

    fn count(&mut self, upstreams: &[UpstreamReport], by: i64) {
        for upstream in upstreams {
            let host = self.hosts.label(&upstream.host);
            self.metrics.upstreams.with_label_values(&[host, upstream.state.as_str()]).add(by);
        }
    }
}

/// Growth of a counter. A counter that went back began anew: its stream's task went on with another publisher.
fn growth(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use liveedgecast_common::control::UpstreamState;

    fn session(bytes: u64, state: UpstreamState) -> Session {
        let counts = UpstreamCounts { bytes, messages: bytes / 10, reconnects: 1, ..UpstreamCounts::default() };
        let upstream = UpstreamReport { host: "a:1935".into(), state, counts, ..UpstreamReport::default() };
        Session { upstreams: vec![upstream], messages: bytes, ..Session::default() }
    }

    #[test]
    fn reports_add_their_growth_and_move_states() {
        let metrics = EngineMetrics::unregistered();
        let mut counters = StreamCounters::new(metrics.clone());
        counters.reported(StreamSlot(1), &session(100, UpstreamState::Dialing));
        counters.reported(StreamSlot(1), &session(150, UpstreamState::Live));
        counters.reported(StreamSlot(2), &session(10, UpstreamState::Live));
        let count = |metric: &str| {
            let at = UpstreamCounts::FIGURES.iter().position(|figure| figure.metric == metric).unwrap();
            metrics.figures[at].with_label_values(&["a:1935"]).get()
        };
        let now = |state| metrics.upstreams.with_label_values(&["a:1935", state]).get();
        assert_eq!(
            (count("upstream_bytes_total"), count("upstream_messages_total"), count("upstream_reconnects_total")),
            (160, 16, 2)
        );
        assert_eq!(metrics.received.get(), 160);
        assert_eq!((now("dialing"), now("live")), (0, 2));
        counters.reported(StreamSlot(1), &session(30, UpstreamState::Live));
        assert_eq!(count("upstream_bytes_total"), 190, "it began anew");
        counters.reported(StreamSlot(2), &session(10, UpstreamState::Closed));
        assert_eq!((now("live"), now("closed"), now("unknown")), (1, 1, 0));
        counters.reported(StreamSlot(2), &session(10, UpstreamState::Live));
        counters.closed(StreamSlot(1));
        counters.closed(StreamSlot(1));
        assert_eq!((now("live"), count("upstream_bytes_total")), (1, 190));
    }
}
