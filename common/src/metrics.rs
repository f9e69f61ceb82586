//! Helpers for the metrics of both binaries. In: a registry, names without the prefix that all metrics have. Out: metrics whose rows are
//! there from the start, and a whole registry in the Prometheus text format. The names themselves are in each room's `metrics`.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result, TextEncoder,
};

use crate::{event, stderr};

/// Options of a metric: its name, with the prefix, and its help text.
#[must_use]
pub fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("liveedgecast_{name}"), help)
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

/// The whole registry in the Prometheus text format.
#[must_use]
pub fn text(registry: &Registry) -> String {
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut out) {
        tracing::error!(event = event::METRICS_FAILED, %error, "metrics were not text");
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_there_before_the_first_event() {
        let registry = Registry::new();
        counters(&registry, "refused_total", "Told no", "why", &["key", "app"]).unwrap();
        histograms(&registry, "start_seconds", "A start", ("start", &["cold"]), &[0.5]).unwrap();
        let text = text(&registry);
        for row in [
            "# HELP liveedgecast_refused_total Told no",
            "liveedgecast_refused_total{why=\"app\"} 0",
            "liveedgecast_refused_total{why=\"key\"} 0",
            "liveedgecast_start_seconds_bucket{start=\"cold\",le=\"0.5\"} 0",
        ] {
            assert!(text.lines().any(|line| line == row), "{row}: {text}");
        }
        assert!(counter(&registry, "refused_total", "Told no again").is_err());
    }
}
