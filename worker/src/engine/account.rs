//! What streams and their upstreams count, the latter added up by host. In: sessions as streams report them, with counters
//! that grow. Out: the metrics of all streams, so that neither `stream` nor `upstream` knows of metrics.
//!
//! What surprised us: a stream that gets its publisher back reports under another id and goes on counting, so accounts are
//! kept by its place and not by its name.

use std::collections::HashMap;

use liveedgecast_common::control::{Session, Upstream};
use prometheus::{IntCounter, IntCounterVec};

use super::table::Slot;
use crate::metrics::{Hosts, Upstreams};

/// What was counted so far.
#[derive(Debug)]
pub(super) struct Account {
    metrics: Upstreams,
    hosts: Hosts,
    received: IntCounter,
    streams: HashMap<Slot, Known>,
}

/// The newest report of a stream.
#[derive(Debug, Default)]
struct Known {
    messages: u64,
    upstreams: Vec<Upstream>,
}

impl Account {
    pub(super) fn new(metrics: Upstreams, received: IntCounter) -> Self {
        Self { metrics, hosts: Hosts::default(), received, streams: HashMap::new() }
    }

    /// A stream's newest report.
    pub(super) fn reported(&mut self, slot: Slot, session: &Session) {
        let known = Known { messages: session.messages, upstreams: session.upstreams.clone() };
        let Known { messages, upstreams: before } = self.streams.insert(slot, known).unwrap_or_default();
        self.received.inc_by(growth(messages, session.messages));
        for (at, upstream) in session.upstreams.iter().enumerate() {
            let host = self.hosts.label(&upstream.host);
            let known = before.get(at).filter(|known| known.host == upstream.host);
            let zero = Upstream::default();
            let last = known.unwrap_or(&zero);
            let grow = |counter: &IntCounterVec, last: u64, now: u64| {
                counter.with_label_values(&[host]).inc_by(growth(last, now));
            };
            grow(&self.metrics.bytes, last.bytes, upstream.bytes);
            grow(&self.metrics.messages, last.messages, upstream.messages);
            grow(&self.metrics.lost, last.lost, upstream.lost);
            grow(&self.metrics.replayed, last.replayed, upstream.replayed);
            grow(&self.metrics.reconnects, last.reconnects.into(), upstream.reconnects.into());
        }
        self.count(&before, -1);
        self.count(&session.upstreams, 1);
    }

    /// A stream is over.
    pub(super) fn closed(&mut self, slot: Slot) {
        let known = self.streams.remove(&slot).unwrap_or_default();
        self.count(&known.upstreams, -1);
    }

    fn count(&mut self, upstreams: &[Upstream], by: i64) {
        for upstream in upstreams {
            let host = self.hosts.label(&upstream.host);
            self.metrics.now.with_label_values(&[host, state(upstream)]).add(by);
        }
    }
}

/// What a counter has grown by. One that went back began anew: its stream's task went on with another publisher.
fn growth(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}

/// A state's label. What is no state that we know has none of its own.
fn state(upstream: &Upstream) -> &'static str {
    let known = crate::metrics::UPSTREAM_STATES.into_iter().find(|state| *state == upstream.state);
    known.unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn session(bytes: u64, state: &str) -> Session {
        let upstream = Upstream {
            host: "a:1935".into(),
            state: state.into(),
            bytes,
            messages: bytes / 10,
            reconnects: 1,
            ..Upstream::default()
        };
        Session { upstreams: vec![upstream], messages: bytes, ..Session::default() }
    }

    #[test]
    fn only_what_is_new_is_added_and_states_are_moved() {
        let metrics = Metrics::new().unwrap();
        let mut account = Account::new(metrics.upstreams.clone(), metrics.streams.received.clone());
        account.reported(Slot(1), &session(100, "dialing"));
        account.reported(Slot(1), &session(150, "live"));
        account.reported(Slot(2), &session(10, "live"));
        let count = |counter: &IntCounterVec| counter.with_label_values(&["a:1935"]).get();
        let now = |state| metrics.upstreams.now.with_label_values(&["a:1935", state]).get();
        assert_eq!(
            (count(&metrics.upstreams.bytes), count(&metrics.upstreams.messages), count(&metrics.upstreams.reconnects)),
            (160, 16, 2)
        );
        assert_eq!(metrics.streams.received.get(), 160);
        assert_eq!((now("dialing"), now("live")), (0, 2));
        account.reported(Slot(1), &session(30, "live"));
        assert_eq!(count(&metrics.upstreams.bytes), 190, "it began anew");
        account.reported(Slot(2), &session(10, "closed"));
        assert_eq!((now("live"), now("closed"), now("unknown")), (1, 1, 0));
        account.reported(Slot(2), &session(10, "live"));
        account.closed(Slot(1));
        account.closed(Slot(1));
        assert_eq!((now("live"), count(&metrics.upstreams.bytes)), (1, 190));
    }
}
