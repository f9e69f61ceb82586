//! The metrics of a worker on their way to the activator that shows them. In: rows of the worker's registry, or a [`wire::Totals`] of a peer. Out: the rows of
//! [`FAMILIES`], bounded, and back. Next: the worker's `register`, the activator's `totals`.
//!
//! A worker tells one activator at a time, the one that it has been registered at for longest, by how much its counters have grown since it last told
//! any activator. So each growth is shown by one activator, and the sum over all activators is what the workers have counted. A worker whose process
//! has ended takes nothing with it but the last second. Gauges are told as they are, and forgotten with the call.
//!
//! Note: growth needs no process identity to be counted once: a call delivers in order and once, and a new worker process begins at zero.

use super::limits::{MAX_LABEL, MAX_TOTALS};
use super::wire;
use crate::key::LogSafe;

/// A metric of workers that activators show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TotalFamily {
    /// Name, without the prefix of all metrics.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Names of its labels, in alphabetical order.
    pub labels: &'static [&'static str],
    /// Kind of metric.
    pub kind: TotalKind,
}

/// Kinds of metrics that workers tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TotalKind {
    /// A value that only rises; growths add up.
    Counter,
    /// A value of this moment; those of all workers add up.
    Gauge,
    /// A value of this moment; the highest one of all workers counts.
    Highest,
    /// Numbers of observations up to each of these bounds, which rise.
    Histogram(&'static [f64]),
}

/// A value of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Total {
    /// Growth of a counter, or the value of a gauge.
    Number(f64),
    /// Growth of a histogram.
    Histogram {
        /// Observations in each bucket and below, as many as there are bounds.
        buckets: Vec<u64>,
        /// All observations.
        count: u64,
        /// Sum of the observations.
        sum: f64,
    },
}

/// The place of a row: its family and the values of its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TotalKey {
    /// Index in [`FAMILIES`].
    pub family: usize,
    /// Values of the labels, in the order of the family.
    pub labels: Vec<String>,
}

/// A row.
pub type TotalRow = (TotalKey, Total);

/// From a handoff on one host to an upstream that had to be dialed several times.
pub const START_BUCKETS: &[f64] =
    &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

const fn family(
    name: &'static str,
    kind: TotalKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> TotalFamily {
    TotalFamily { name, help, labels, kind }
}

/// The most by which a counter grows from one message to the next: 40 Gbit/s for two days. Far greater ones would swallow what others count.
const MOST_GROWTH: f64 = 1e15;

/// Every metric that workers tell. No name is one of the activator's own.
pub const FAMILIES: &[TotalFamily] = &{
    use TotalKind::{Counter, Gauge, Highest, Histogram};
    [
        family("worker_streams", Gauge, &[], "Streams of workers: starting, live or in grace"),
        family("worker_capacity", Gauge, &[], "Most streams that the workers take"),
        family("received_bytes_total", Counter, &[], "Bytes of publishers' streams that workers have received"),
        family("received_messages_total", Counter, &[], "Audio, video and data messages from publishers"),
        family("publisher_clock_jumps_total", Counter, &[], "Frames at which a publisher's clock jumped"),
        family(
            "skipped_messages_total",
            Counter,
            &[],
            "Messages of publishers that are too long for the replay window, long and of an unknown type, or begun at a worker that was lost",
        ),
        family("worker_streams_ended_total", Counter, &[], "Streams that have ended"),
        family("worker_streams_died_total", Counter, &[], "Streams whose task panicked"),
        family("worker_start_seconds", Histogram(START_BUCKETS), &["phase"], "Time of each part of a stream's start"),
        family("upstream_sent_bytes_total", Counter, &["destination"], "Bytes of media written to upstreams"),
        family("upstream_sent_messages_total", Counter, &["destination"], "Messages written to upstreams"),
        family("upstream_lost_messages_total", Counter, &["destination"], "Messages that an upstream did not get"),
        family("upstream_replayed_messages_total", Counter, &["destination"], "Messages written again after a flap"),
        family(
            "upstream_skipped_seconds_total",
            Counter,
            &["destination"],
            "Time of streams that was passed over on the way to the destination, because it lagged or was away",
        ),
        family(
            "keyframe_age_seconds",
            Highest,
            &[],
            "Time since the last keyframe of a stream with video, the worst of all streams; streams without arrivals stay as they were",
        ),
        family("upstream_reconnects_total", Counter, &["destination"], "Upstream sessions after the first of a stream"),
        family(
            "upstream_failures_total",
            Counter,
            &["destination", "reason"],
            "Attempts and sessions of upstreams that failed",
        ),
        family("upstreams", Gauge, &["destination", "state"], "Upstreams by state"),
        family(
            "upstream_lag_seconds",
            Highest,
            &["destination"],
            "Age of the oldest message that waits to be written to the destination, the worst of all streams",
        ),
        family("worker_calls_ended_total", Counter, &["reason"], "Calls to activators that ended"),
        family("worker_offers_total", Counter, &["result"], "Offers that were taken"),
        family("worker_fetch_failures_total", Counter, &["reason"], "Streams that could not be fetched"),
        family(
            "worker_rings_reused_total",
            Counter,
            &[],
            "Rings of ended streams that were taken for another stream by link, also if that was declined",
        ),
        family("worker_spare_ring_bytes", Gauge, &[], "Memory of ended streams by link, kept for the next streams"),
    ]
};

impl TotalFamily {
    /// The family of a worker's metric by its name without the prefix, and its place in [`FAMILIES`].
    #[must_use]
    pub fn named(name: &str) -> Option<(usize, &'static Self)> {
        FAMILIES.iter().enumerate().find(|(_, family)| family.name == name)
    }
}

impl Total {
    /// Returns whether this can be a value of a family of that kind.
    fn fits(&self, kind: TotalKind) -> bool {
        match (self, kind) {
            (Self::Number(value), TotalKind::Counter) => (0.0..=MOST_GROWTH).contains(value),
            (Self::Number(value), TotalKind::Gauge | TotalKind::Highest) => value.is_finite(),
            (Self::Histogram { buckets, count, sum }, TotalKind::Histogram(bounds)) => {
                buckets.len() == bounds.len()
                    && buckets.is_sorted()
                    && buckets.last().is_none_or(|last| last <= count)
                    && (0.0..=MOST_GROWTH).contains(&(*count as f64))
                    && (0.0..=MOST_GROWTH).contains(sum)
            }
            _ => false,
        }
    }

    /// Growth since `before`, which counted the same. What counts less than before has begun anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        match (self, before) {
            (Self::Number(now), Self::Number(before)) if now >= before => Self::Number(now - before),
            (
                Self::Histogram { buckets, count, sum },
                Self::Histogram { buckets: old, count: old_count, sum: old_sum },
            ) if count >= old_count && buckets.len() == old.len() => Self::Histogram {
                buckets: buckets.iter().zip(old).map(|(now, before)| now.saturating_sub(*before)).collect(),
                count: count - old_count,
                sum: (sum - old_sum).max(0.0),
            },
            _ => self.clone(),
        }
    }

    /// Tells whether a value of this kind is one of the moment, which is told as it is, and not as a growth.
    #[must_use]
    pub fn is_momentary(kind: TotalKind) -> bool {
        matches!(kind, TotalKind::Gauge | TotalKind::Highest)
    }

    /// Takes the higher one of both.
    pub fn raise(&mut self, other: &Self) {
        if let (Self::Number(value), Self::Number(other)) = (self, other) {
            *value = value.max(*other);
        }
    }

    /// Adds a growth.
    pub fn add(&mut self, growth: &Self) {
        match (self, growth) {
            (Self::Number(all), Self::Number(more)) => *all += more,
            (
                Self::Histogram { buckets, count, sum },
                Self::Histogram { buckets: more, count: more_count, sum: more_sum },
            ) => {
                buckets.iter_mut().zip(more).for_each(|(all, more)| *all = all.saturating_add(*more));
                *count = count.saturating_add(*more_count);
                *sum += more_sum;
            }
            _ => {}
        }
    }
}

/// The rows of a message that can be used: of known families, with their labels and kinds, [`MAX_TOTALS`] at most. All others are left out.
impl From<wire::Totals> for Vec<TotalRow> {
    fn from(totals: wire::Totals) -> Self {
        totals.rows.into_iter().take(MAX_TOTALS).filter_map(received).collect()
    }
}

fn received(row: wire::TotalRow) -> Option<TotalRow> {
    let (at, family) = TotalFamily::named(&row.name)?;
    if row.labels.len() != family.labels.len() || row.labels.iter().any(|value| value.len() > MAX_LABEL) {
        return None;
    }
    let labels = row.labels.iter().map(|value| LogSafe(value).to_string()).collect();
    let total = match row.value? {
        wire::total_row::Value::Number(value) => Total::Number(value),
        wire::total_row::Value::Histogram(wire::TotalHistogram { buckets, count, sum }) => {
            Total::Histogram { buckets, count, sum }
        }
    };
    total.fits(family.kind).then_some((TotalKey { family: at, labels }, total))
}

impl From<Vec<TotalRow>> for wire::Totals {
    fn from(rows: Vec<TotalRow>) -> Self {
        let sent = |(TotalKey { family, labels }, total): TotalRow| {
            let value = match total {
                Total::Number(value) => wire::total_row::Value::Number(value),
                Total::Histogram { buckets, count, sum } => {
                    wire::total_row::Value::Histogram(wire::TotalHistogram { buckets, count, sum })
                }
            };
            wire::TotalRow { name: FAMILIES[family].name.to_owned(), labels, value: Some(value) }
        };
        Self { rows: rows.into_iter().map(sent).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn a_row(name: &str, labels: &[&str], total: Total) -> TotalRow {
        let (family, _) = TotalFamily::named(name).unwrap();
        (TotalKey { family, labels: labels.iter().map(|label| (*label).to_owned()).collect() }, total)
    }

    #[test]
    fn rows_come_through_the_wire() {
        let rows = vec![
            a_row("received_bytes_total", &[], Total::Number(7.0)),
            a_row("worker_streams", &[], Total::Number(-1.0)),
            a_row("upstreams", &["a:1935", "live"], Total::Number(2.0)),
            a_row(
                "worker_start_seconds",
                &["upstream"],
                Total::Histogram { buckets: vec![1; START_BUCKETS.len()], count: 2, sum: 31.5 },
            ),
        ];
        assert_eq!(Vec::<TotalRow>::from(wire::Totals::from(rows.clone())), rows);
    }

    #[test]
    fn rows_that_cannot_be_are_left_out() {
        let number = |name: &str, labels: &[&str], value| wire::TotalRow {
            name: name.into(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            value: Some(wire::total_row::Value::Number(value)),
        };
        let histogram = |buckets: Vec<u64>, count, sum| wire::TotalRow {
            value: Some(wire::total_row::Value::Histogram(wire::TotalHistogram { buckets, count, sum })),
            ..number("worker_start_seconds", &["upstream"], 0.0)
        };
        let bounds = START_BUCKETS.len();
        let bad = [
            number("streams", &["live"], 1.0),
            number("received_bytes_total", &[], -1.0),
            number("received_bytes_total", &[], f64::NAN),
            number("received_bytes_total", &[], 2.0 * MOST_GROWTH),
            number("worker_streams", &[], f64::INFINITY),
            number("received_bytes_total", &["more"], 1.0),
            number("upstream_failures_total", &["lost"], 1.0),
            number("upstream_failures_total", &["youtube", &"x".repeat(MAX_LABEL + 1)], 1.0),
            number("worker_start_seconds", &["upstream"], 1.0),
            histogram(vec![1; bounds - 1], 1, 1.0),
            histogram(vec![2; bounds], 1, 1.0),
            histogram((0..bounds as u64).rev().collect(), 99, 1.0),
            histogram(vec![1; bounds], 1, -1.0),
            histogram(vec![1; bounds], u64::MAX, 1.0),
            histogram(vec![1; bounds], 1, 2.0 * MOST_GROWTH),
            wire::TotalRow { value: None, ..number("received_bytes_total", &[], 1.0) },
        ];
        for row in bad {
            assert_eq!(received(row.clone()), None, "{row:?}");
        }
        assert!(received(histogram(vec![1; bounds], 1, 1.0)).is_some());
        let (key, _) = received(number("upstream_failures_total", &["a\nb", "lost"], 1.0)).unwrap();
        assert_eq!(key.labels, ["a\\u{a}b", "lost"]);
        let many = wire::Totals { rows: vec![number("received_bytes_total", &[], 1.0); MAX_TOTALS + 1] };
        assert_eq!(Vec::<TotalRow>::from(many).len(), MAX_TOTALS);
    }

    #[test]
    fn growths_add_up_to_the_whole() {
        let histogram = |buckets: [u64; 2], count, sum| Total::Histogram { buckets: buckets.to_vec(), count, sum };
        for values in [
            [Total::Number(0.0), Total::Number(3.0), Total::Number(3.0), Total::Number(8.0)],
            [
                histogram([0, 0], 0, 0.0),
                histogram([0, 1], 2, 1.0),
                histogram([0, 1], 2, 1.0),
                histogram([1, 3], 4, 1.5),
            ],
        ] {
            let mut all = values[0].clone();
            values.windows(2).for_each(|pair| all.add(&pair[1].since(&pair[0])));
            assert_eq!(all, values[3]);
            assert_eq!(values[1].since(&values[3]), values[1], "it began anew");
        }
    }
}
