//! The counters of streams and their upstreams, the latter added up by host. In: sessions as streams report them, with counters
//! that grow. Out: the metrics of all streams, so that neither `stream` nor `upstream` knows of metrics.
//!
//! Note: a stream that gets its publisher back reports under another id and goes on counting, so the reports are kept by the stream's slot
//! and not by its id.
//!
//! Note: a figure of an upstream may go down within a stream: a message that counts as written counts as lost when its session breaks before
//! it was acknowledged, and the other way round when a later session delivers it. So each figure is counted up to the highest value so far.
//! Only another stream in the same slot begins anew; its publisher's messages begin anew, too, and these never go down within a stream.

use std::collections::HashMap;

use liveedgecast_common::control::{Session, SessionState, UpstreamCounts, UpstreamReport};

use super::metrics::{EngineMetrics, Hosts};
use super::table::StreamSlot;

/// The counters, and the newest report of each stream.
#[derive(Debug)]
pub(super) struct StreamCounters {
    metrics: EngineMetrics,
    hosts: Hosts,
    streams: HashMap<StreamSlot, Known>,
}

/// The newest report of a stream, but with the highest figures of its upstreams so far.
#[derive(Debug, Default)]
struct Known {
    ended: bool,
    messages: u64,
    bytes: u64,
    upstreams: Vec<UpstreamReport>,
}

impl StreamCounters {
    pub(super) fn new(metrics: EngineMetrics) -> Self {
        Self { metrics, hosts: Hosts::default(), streams: HashMap::new() }
    }

    /// Adds the growth since the last report of a stream.
    pub(super) fn reported(&mut self, slot: StreamSlot, session: &Session) {
        let ended = session.state == SessionState::Ended;
        let before = self.streams.remove(&slot).unwrap_or_default();
        let anew = session.messages < before.messages || (before.ended && !ended);
        let (messages, bytes) = if anew { (0, 0) } else { (before.messages, before.bytes) };
        self.metrics.received.inc_by(session.messages - messages);
        self.metrics.received_bytes.inc_by(session.figures.bytes.saturating_sub(bytes));
        let mut upstreams = session.upstreams.clone();
        for (at, upstream) in upstreams.iter_mut().enumerate() {
            let host = self.hosts.label(&upstream.host);
            // Upstreams come and go while a stream runs; before the first list they have no names.
            let named = |known: &&UpstreamReport| !known.name.is_empty() && known.name == upstream.name;
            let unnamed = || before.upstreams.get(at).filter(|known| known.name.is_empty());
            let known = before.upstreams.iter().find(named).or_else(unnamed);
            let known = known.filter(|known| !anew && known.host == upstream.host);
            let last = known.map(|known| known.counts).unwrap_or_default();
            for (figure, counter) in UpstreamCounts::FIGURES.iter().zip(&self.metrics.figures) {
                let grown = (figure.of)(&upstream.counts).saturating_sub((figure.of)(&last));
                counter.with_label_values(&[host]).inc_by(grown);
            }
            upstream.counts = upstream.counts.highest(&last);
        }
        self.count(&before.upstreams, -1);
        self.count(&upstreams, 1);
        let (messages, bytes) = (session.messages, session.figures.bytes.max(bytes));
        self.streams.insert(slot, Known { ended, messages, bytes, upstreams });
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
            (
                count("upstream_sent_bytes_total"),
                count("upstream_sent_messages_total"),
                count("upstream_reconnects_total")
            ),
            (160, 16, 2)
        );
        assert_eq!(metrics.received.get(), 160);
        assert_eq!((now("dialing"), now("live")), (0, 2));
        counters.reported(StreamSlot(1), &session(30, UpstreamState::Live));
        assert_eq!(count("upstream_sent_bytes_total"), 190, "it began anew");
        counters.reported(StreamSlot(2), &session(10, UpstreamState::Closed));
        assert_eq!((now("live"), now("closed"), now("unknown")), (1, 1, 0));
        counters.reported(StreamSlot(2), &session(10, UpstreamState::Live));
        counters.closed(StreamSlot(1));
        counters.closed(StreamSlot(1));
        assert_eq!((now("live"), count("upstream_sent_bytes_total")), (1, 190));
    }

    #[test]
    fn upstreams_are_known_by_name_when_others_come_and_go() {
        let metrics = EngineMetrics::unregistered();
        let mut counters = StreamCounters::new(metrics.clone());
        let report = |upstreams: &[(&str, &str, u64)]| {
            let upstream = |(name, host, bytes): &(&str, &str, u64)| UpstreamReport {
                name: (*name).into(),
                host: (*host).into(),
                counts: UpstreamCounts { bytes: *bytes, ..UpstreamCounts::default() },
                ..UpstreamReport::default()
            };
            Session { upstreams: upstreams.iter().map(upstream).collect(), ..Session::default() }
        };
        counters.reported(StreamSlot(1), &report(&[("", "a:1", 10), ("", "b:1", 100)]));
        counters.reported(StreamSlot(1), &report(&[("one", "a:1", 20), ("two", "b:1", 200)]));
        counters.reported(StreamSlot(1), &report(&[("two", "b:1", 300)]));
        counters.reported(StreamSlot(1), &report(&[("new", "b:1", 7), ("two", "b:1", 400)]));
        let at =
            UpstreamCounts::FIGURES.iter().position(|figure| figure.metric == "upstream_sent_bytes_total").unwrap();
        let count = |host| metrics.figures[at].with_label_values(&[host]).get();
        assert_eq!((count("a:1"), count("b:1")), (20, 407));
    }

    #[test]
    fn a_figure_that_goes_down_within_a_stream_is_counted_up_to_its_highest_value() {
        let metrics = EngineMetrics::unregistered();
        let mut counters = StreamCounters::new(metrics.clone());
        let counted = || {
            let of = |at: usize| metrics.figures[at].with_label_values(&["a:1935"]).get();
            let place = |metric| UpstreamCounts::FIGURES.iter().position(|figure| figure.metric == metric).unwrap();
            (of(place("upstream_sent_messages_total")), of(place("upstream_lost_messages_total")))
        };
        let report = |state, received, messages, lost| {
            let counts = UpstreamCounts { messages, lost, ..UpstreamCounts::default() };
            let upstream = UpstreamReport { host: "a:1935".into(), counts, ..UpstreamReport::default() };
            Session { state, messages: received, upstreams: vec![upstream], ..Session::default() }
        };
        for (received, messages, lost, expected) in [(10, 10, 0, (10, 0)), (12, 7, 5, (10, 5)), (13, 12, 1, (12, 5))] {
            counters.reported(StreamSlot(1), &report(SessionState::Live, received, messages, lost));
            assert_eq!(counted(), expected);
        }
        counters.reported(StreamSlot(1), &report(SessionState::Ended, 13, 12, 1));
        counters.reported(StreamSlot(1), &report(SessionState::Live, 20, 20, 0));
        assert_eq!(counted(), (32, 5), "another stream in the slot");
        assert_eq!(metrics.received.get(), 33);
    }
}
