//! Helpers for the metrics of both binaries. In: a registry, names without the prefix that all metrics have. Out: metrics whose rows are
//! there from the start, and a whole registry in the Prometheus text format. The names themselves are in each room's `metrics`.

mod open;
mod process;

use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result, TextEncoder,
};

use crate::control::totals::{Total, TotalFamily, TotalKey, TotalKind, TotalRow};
use crate::{event, stderr, trace};

pub use self::open::{Exemplar, Exemplars, OPEN_METRICS};
pub use process::{ProcessUsage, register_process};

/// The beginning of the name of every metric.
pub const PREFIX: &str = "liveedgecast_";

/// Options of a metric: its name, with the prefix, and its help text.
#[must_use]
pub fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), help)
}

/// Registers a collector.
///
/// # Errors
/// A collector of that name is registered already.
pub fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// A value that only rises.
///
/// # Errors
/// See [`register`].
pub fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    register(registry, IntCounter::with_opts(opts(name, help))?)
}

/// A value that rises and falls.
///
/// # Errors
/// See [`register`].
pub fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    register(registry, IntGauge::with_opts(opts(name, help))?)
}

/// Counters with a row for every known value of a label, so that a rate is right from the first event on.
///
/// # Errors
/// See [`register`].
pub fn counters(registry: &Registry, name: &str, help: &str, label: &str, values: &[&str]) -> Result<IntCounterVec> {
    let vec = IntCounterVec::new(opts(name, help), &[label])?;
    values.iter().for_each(|value| drop(vec.with_label_values(&[value])));
    register(registry, vec)
}

/// Gauges with a row for every known value of a label.
///
/// # Errors
/// See [`register`].
pub fn gauges(registry: &Registry, name: &str, help: &str, label: &str, values: &[&str]) -> Result<IntGaugeVec> {
    let vec = IntGaugeVec::new(opts(name, help), &[label])?;
    values.iter().for_each(|value| drop(vec.with_label_values(&[value])));
    register(registry, vec)
}

/// A histogram of durations; `buckets` are upper bounds in seconds.
///
/// # Errors
/// See [`register`].
pub fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
    register(registry, Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec()))?)
}

/// Histograms of durations, with a row for every known value of a label.
///
/// # Errors
/// See [`register`].
pub fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    (label, values): (&str, &[&str]),
    buckets: &[f64],
) -> Result<HistogramVec> {
    let vec = HistogramVec::new(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec()), &[label])?;
    values.iter().for_each(|value| drop(vec.with_label_values(&[value])));
    register(registry, vec)
}

/// Lines of this process's log that were dropped; call [`measure_log`] before it is read.
///
/// # Errors
/// See [`register`].
pub fn dropped_log_lines(registry: &Registry, name: &str) -> Result<IntCounter> {
    counter(registry, name, "Lines of the log that were dropped because the reader of standard error was too slow")
}

/// Brings the counter of dropped log lines up to date.
pub fn measure_log(dropped: &IntCounter) {
    dropped.inc_by(stderr::dropped_lines().saturating_sub(dropped.get()));
}

/// The counter of spans that did not reach the collector.
///
/// # Errors
/// A metric has this name already.
pub fn dropped_spans(registry: &Registry) -> Result<IntCounter> {
    counter(
        registry,
        "trace_spans_dropped_total",
        "Spans of traces that the collector did not take, or that waited in vain",
    )
}

/// Brings the counter of dropped spans up to date.
pub fn measure_traces(dropped: &IntCounter) {
    dropped.inc_by(trace::left_out().saturating_sub(dropped.get()));
}

/// The whole registry in the Prometheus text format.
#[must_use]
pub fn text(registry: &Registry) -> String {
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut out) {
        tracing::error!(event = event::METRICS_FAILED, %error, "metrics were not text");
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The rows of a worker's registry as they are now. A metric that is not in [`FAMILIES`](crate::control::totals::FAMILIES) is the worker's own business.
#[must_use]
pub fn gathered(registry: &Registry) -> Vec<TotalRow> {
    let mut rows = Vec::new();
    for metrics in registry.gather() {
        let name = metrics.name().strip_prefix(PREFIX).unwrap_or_default();
        let Some((at, family)) = TotalFamily::named(name) else { continue };
        rows.extend(metrics.get_metric().iter().map(|metric| row(at, family, metric)));
    }
    rows
}

fn row(at: usize, family: &TotalFamily, metric: &Metric) -> TotalRow {
    let value = |label: &&str| {
        let pair = metric.get_label().iter().find(|pair| pair.name() == *label);
        pair.map(|pair| pair.value().to_owned()).unwrap_or_default()
    };
    let key = TotalKey { family: at, labels: family.labels.iter().map(value).collect() };
    let total = match family.kind {
        TotalKind::Counter => Total::Number(metric.get_counter().get_value()),
        TotalKind::Gauge | TotalKind::Highest => Total::Number(metric.get_gauge().get_value()),
        TotalKind::Histogram(_) => {
            let histogram = metric.get_histogram();
            Total::Histogram {
                buckets: histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count()).collect(),
                count: histogram.get_sample_count(),
                sum: histogram.get_sample_sum(),
            }
        }
    };
    (key, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::totals::START_BUCKETS;

    #[test]
    fn every_row_is_there_before_the_first_event() {
        let registry = Registry::new();
        counters(&registry, "refused_total", "Told no", "reason", &["key", "app"]).unwrap();
        histograms(&registry, "publish_start_seconds", "A start", ("kind", &["cold"]), &[0.5]).unwrap();
        let text = text(&registry);
        for row in [
            "# HELP liveedgecast_refused_total Told no",
            "liveedgecast_refused_total{reason=\"app\"} 0",
            "liveedgecast_refused_total{reason=\"key\"} 0",
            "liveedgecast_publish_start_seconds_bucket{kind=\"cold\",le=\"0.5\"} 0",
        ] {
            assert!(text.lines().any(|line| line == row), "{row}: {text}");
        }
        assert!(counter(&registry, "refused_total", "Told no again").is_err());
    }

    #[test]
    fn rows_of_the_families_are_gathered_and_no_others() {
        let registry = Registry::new();
        counter(&registry, "received_bytes_total", "x").unwrap().inc_by(7);
        counter(&registry, "worker_other_total", "The worker's own business").unwrap();
        gauge(&registry, "worker_streams", "x").unwrap().set(-1);
        let ends = counters(&registry, "worker_calls_ended_total", "x", "reason", &["broken", "refused"]).unwrap();
        ends.with_label_values(&["broken"]).inc();
        let start = ("phase", ["upstream"].as_slice());
        let start = histograms(&registry, "worker_start_seconds", "x", start, START_BUCKETS).unwrap();
        start.with_label_values(&["upstream"]).observe(0.003);

        let rows = gathered(&registry);
        assert_eq!(rows.len(), 5);
        let of = |name: &str, labels: &[&str]| {
            let (family, _) = TotalFamily::named(name)?;
            let found = rows.iter().find(|(key, _)| key.family == family && key.labels == labels)?;
            Some(found.1.clone())
        };
        assert_eq!(of("received_bytes_total", &[]), Some(Total::Number(7.0)));
        assert_eq!(of("worker_streams", &[]), Some(Total::Number(-1.0)));
        assert_eq!(of("worker_calls_ended_total", &["refused"]), Some(Total::Number(0.0)));
        let Some(Total::Histogram { buckets, count, sum }) = of("worker_start_seconds", &["upstream"]) else {
            panic!("{rows:?}")
        };
        assert_eq!((buckets[4], buckets[5], count), (0, 1, 1));
        assert!((sum - 0.003).abs() < 1e-9);
    }
}
