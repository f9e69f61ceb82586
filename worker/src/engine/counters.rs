//! The counters of streams and their upstreams, the latter added up by destination. In: sessions as streams report them, with counters
//! that grow. Out: the metrics of all streams, so that neither `stream` nor `upstream` knows of metrics.
//!
//! Note: a stream that gets its publisher back reports under another id and goes on counting, so the reports are kept by the stream's slot
//! and not by its id.
//!
//! Note: a figure of an upstream may go down within a stream: a message that counts as written counts as lost when its session breaks before
//! it was acknowledged, and the other way round when a later session delivers it. So each figure is counted up to the highest value so far.
//! Only another stream in the same slot begins anew; its publisher's messages begin anew, too, and these never go down within a stream.

use std::collections::HashMap;
use std::time::Duration;

use liveedgecast_common::control::{Session, SessionState, UpstreamCounts, UpstreamReport};

use super::metrics::EngineMetrics;
use super::table::StreamSlot;

/// The counters, and the newest report of each stream.
#[derive(Debug)]
pub(super) struct StreamCounters {
    metrics: EngineMetrics,
    /// By label.
    lags: HashMap<String, DestinationLags>,
    /// Ages of the last keyframes, under the name of no destination.
    keyframes: DestinationLags,
    streams: HashMap<StreamSlot, Known>,
}

/// The lags of streams at one destination, in milliseconds.
#[derive(Debug, Default)]
struct DestinationLags {
    streams: HashMap<(StreamSlot, String), u64>,
    worst: u64,
}

impl DestinationLags {
    /// Notes the lag of a stream, or that it is gone; returns the worst one. All streams are looked at only when the worst one gets better.
    fn note(&mut self, (slot, name): (StreamSlot, &str), lag: Option<u64>) -> u64 {
        let key = (slot, name.to_owned());
        let before = match lag {
            Some(lag) => self.streams.insert(key, lag),
            None => self.streams.remove(&key),
        };
        if before == Some(self.worst) {
            self.worst = self.streams.values().max().copied().unwrap_or_default();
        }
        self.worst = self.worst.max(lag.unwrap_or_default());
        self.worst
    }
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
        Self { metrics, lags: HashMap::new(), keyframes: DestinationLags::default(), streams: HashMap::new() }
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
        // Before the first list of destinations, upstreams have no names; they are counted once they have.
        upstreams.retain(|upstream| !upstream.name.is_empty());
        for upstream in &mut upstreams {
            let label = self.metrics.labels.of(&upstream.name);
            // Upstreams come and go while a stream runs.
            let known = before.upstreams.iter().find(|known| known.name == upstream.name);
            let known = known.filter(|known| !anew && known.host == upstream.host);
            let last = known.map(|known| known.counts).unwrap_or_default();
            for (figure, counter) in UpstreamCounts::FIGURES.iter().zip(&self.metrics.figures) {
                let grown = (figure.of)(&upstream.counts).saturating_sub((figure.of)(&last));
                counter.with_label_values(&[label]).inc_by(grown);
            }
            let skipped = Duration::from_millis(upstream.counts.skipped.saturating_sub(last.skipped));
            self.metrics.skipped_time.with_label_values(&[label]).inc_by(skipped.as_secs_f64());
            upstream.counts = upstream.counts.highest(&last);
        }
        self.note_keyframe(slot, (!ended).then_some(session.figures.keyframe_age));
        self.note_lags(slot, &before.upstreams, &upstreams);
        self.count(&before.upstreams, -1);
        self.count(&upstreams, 1);
        let (messages, bytes) = (session.messages, session.figures.bytes.max(bytes));
        self.streams.insert(slot, Known { ended, messages, bytes, upstreams });
    }

    /// Notes that a stream has ended.
    pub(super) fn closed(&mut self, slot: StreamSlot) {
        let known = self.streams.remove(&slot).unwrap_or_default();
        self.note_keyframe(slot, None);
        self.note_lags(slot, &known.upstreams, &[]);
        self.count(&known.upstreams, -1);
    }

    fn count(&self, upstreams: &[UpstreamReport], by: i64) {
        for upstream in upstreams {
            let label = self.metrics.labels.of(&upstream.name);
            self.metrics.upstreams.with_label_values(&[label, upstream.state.as_str()]).add(by);
        }
    }

    /// Notes the age of a stream's last keyframe, or that the stream is over.
    fn note_keyframe(&mut self, slot: StreamSlot, age: Option<u64>) {
        let worst = self.keyframes.note((slot, ""), age);
        self.metrics.keyframe_age.set(Duration::from_millis(worst).as_secs_f64());
    }

    /// Puts the lags of a stream in the place of those that it had.
    fn note_lags(&mut self, slot: StreamSlot, before: &[UpstreamReport], now: &[UpstreamReport]) {
        let gone = before.iter().filter(|old| !now.iter().any(|new| new.name == old.name));
        let gone = gone.map(|old| (old.name.as_str(), None));
        let there = now.iter().map(|new| (new.name.as_str(), Some(new.counts.lag)));
        for (name, lag) in there.chain(gone) {
            let label = self.metrics.labels.of(name);
            let worst = self.lags.entry(label.to_owned()).or_default().note((slot, name), lag);
            self.metrics.lag.with_label_values(&[label]).set(Duration::from_millis(worst).as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use liveedgecast_common::control::{StreamFigures, UpstreamState};

    fn session(bytes: u64, state: UpstreamState) -> Session {
        let counts = UpstreamCounts { bytes, messages: bytes / 10, reconnects: 1, ..UpstreamCounts::default() };
        let (name, host) = ("a".into(), "a:1935".into());
        let upstream = UpstreamReport { name, host, state, counts, ..UpstreamReport::default() };
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
            metrics.figures[at].with_label_values(&["a"]).get()
        };
        let now = |state| metrics.upstreams.with_label_values(&["a", state]).get();
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
        let count = |name| metrics.figures[at].with_label_values(&[name]).get();
        assert_eq!((count("one"), count("two"), count("new")), (20, 400, 7));
    }

    #[test]
    fn a_figure_that_goes_down_within_a_stream_is_counted_up_to_its_highest_value() {
        let metrics = EngineMetrics::unregistered();
        let mut counters = StreamCounters::new(metrics.clone());
        let counted = || {
            let of = |at: usize| metrics.figures[at].with_label_values(&["a"]).get();
            let place = |metric| UpstreamCounts::FIGURES.iter().position(|figure| figure.metric == metric).unwrap();
            (of(place("upstream_sent_messages_total")), of(place("upstream_lost_messages_total")))
        };
        let report = |state, received, messages, lost| {
            let counts = UpstreamCounts { messages, lost, ..UpstreamCounts::default() };
            let (name, host) = ("a".into(), "a:1935".into());
            let upstream = UpstreamReport { name, host, counts, ..UpstreamReport::default() };
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

    #[test]
    fn skipped_time_grows_and_the_oldest_keyframe_counts() {
        let metrics = EngineMetrics::unregistered();
        let mut counters = StreamCounters::new(metrics.clone());
        let report = |skipped, keyframe_age| {
            let counts = UpstreamCounts { skipped, ..UpstreamCounts::default() };
            let upstream =
                UpstreamReport { name: "a".into(), host: "a:1935".into(), counts, ..UpstreamReport::default() };
            let figures = StreamFigures { keyframe_age, ..StreamFigures::default() };
            Session { upstreams: vec![upstream], figures, ..Session::default() }
        };
        let shown = || (metrics.skipped_time.with_label_values(&["a"]).get(), metrics.keyframe_age.get());
        counters.reported(StreamSlot(1), &report(1500, 2000));
        counters.reported(StreamSlot(2), &report(250, 40_000));
        assert_eq!(shown(), (1.75, 40.0));
        counters.reported(StreamSlot(1), &report(2000, 500));
        counters.reported(StreamSlot(2), &report(250, 1000));
        assert_eq!(shown(), (2.25, 1.0));
        counters.closed(StreamSlot(2));
        assert_eq!(shown(), (2.25, 0.5));
        counters.closed(StreamSlot(1));
        assert_eq!(shown(), (2.25, 0.0));
    }

    #[test]
    fn worst_lag_of_a_destination_is_shown_until_it_gets_better() {
        let metrics = EngineMetrics::unregistered();
        let mut counters = StreamCounters::new(metrics.clone());
        let report = |lag| {
            let counts = UpstreamCounts { lag, ..UpstreamCounts::default() };
            let upstream = UpstreamReport { name: "a".into(), counts, ..UpstreamReport::default() };
            Session { upstreams: vec![upstream], ..Session::default() }
        };
        let table = [(1, 40, 40), (2, 1500, 1500), (1, 60, 1500), (2, 20, 60), (1, 0, 20), (3, 250, 250)];
        for (slot, lag, worst) in table {
            counters.reported(StreamSlot(slot), &report(lag));
            let shown = metrics.lag.with_label_values(&["a"]).get();
            assert!((shown * 1000.0 - f64::from(worst)).abs() < 0.5, "{slot} {lag}: {shown}");
        }
        counters.closed(StreamSlot(3));
        assert!((metrics.lag.with_label_values(&["a"]).get() - 0.02).abs() < 1e-6);
        counters.closed(StreamSlot(2));
        counters.closed(StreamSlot(1));
        assert!(metrics.lag.with_label_values(&["a"]).get() < 1e-6);
    }
}
