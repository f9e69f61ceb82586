//! The metrics of workers. In: the rows that workers tell over their calls. Out: the same, added up, on the activator's page. Next: `control`,
//! which passes the rows on; `metrics`, whose registry shows them.
//!
//! A counter stays when its worker has gone, because the sum over all activators is what all workers have ever counted. A gauge goes with the call
//! of its worker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use liveedgecast_common::control::totals::{FAMILIES, Total, TotalFamily, TotalKey, TotalKind, TotalRow};
use liveedgecast_common::metrics::{PREFIX, register};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, Result};

/// Rows of counters that are kept: some 60, and 20 for each of some 800 destinations. Further ones are counted under [`OTHER`]: destinations come
/// from configuration files and the API, and would otherwise fill the memory of whoever scrapes us.
const MAX_ROWS: usize = 16 << 10;
/// Rows of gauges of one worker, of which further ones are left out.
const MAX_GAUGES: usize = 4 << 10;
/// Bytes of the gauges of all workers together. Further ones are left out, unless they have no labels. A row takes some 200 bytes, so this is a
/// thousand workers' with 300 rows each; one worker that is taken over can register hundreds.
const GAUGE_BYTES: usize = 64 << 20;
/// Rows on the page, beyond which no gauge is shown that has labels. Those of the oldest calls come first.
const MAX_SHOWN: usize = 2 * MAX_ROWS;
/// The value of the labels of all other rows.
const OTHER: &str = "other";

/// The metrics of all workers that tell them here.
#[derive(Clone, Debug)]
pub struct WorkerTotals {
    shared: Arc<SharedTotals>,
}

#[derive(Debug)]
struct SharedTotals {
    descriptions: Vec<Desc>,
    /// A lock, because every call's task adds to them and a scrape reads them; held while a message is added, or the page is made.
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// Counters and histograms of all workers together.
    sums: BTreeMap<TotalKey, Total>,
    /// Gauges of each call.
    gauges: BTreeMap<u64, BTreeMap<TotalKey, Total>>,
    /// Bytes of the gauges.
    gauge_bytes: usize,
    calls: u64,
}

/// The metrics of one call. Its gauges are forgotten when this is dropped.
#[derive(Debug)]
pub struct CallTotals {
    shared: Arc<SharedTotals>,
    call: u64,
}

impl WorkerTotals {
    /// Registers them; those without labels are there from the start, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> Result<Self> {
        let describe = |family: &TotalFamily| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(format!("{PREFIX}{}", family.name), family.help.to_owned(), labels, HashMap::new())
        };
        let descriptions = FAMILIES.iter().map(describe).collect::<Result<_>>()?;
        let mut counted = Counted::default();
        let unlabelled = FAMILIES.iter().enumerate().filter(|(_, family)| family.labels.is_empty());
        for (family, _) in unlabelled.filter(|(_, family)| family.kind == TotalKind::Counter) {
            counted.sums.insert(TotalKey { family, labels: Vec::new() }, Total::Number(0.0));
        }
        register(registry, Self { shared: Arc::new(SharedTotals { descriptions, counted: Mutex::new(counted) }) })
    }

    /// The sum of a counter over all its labels; 0 for a family that is none of ours.
    #[must_use]
    pub fn sum(&self, name: &str) -> u64 {
        let counted = self.shared.lock();
        let rows = counted.sums.iter().filter(|(key, _)| FAMILIES[key.family].name == name);
        let numbers = rows.map(|(_, total)| if let Total::Number(number) = total { *number } else { 0.0 });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are whole and not negative"
        )]
        let sum = numbers.sum::<f64>() as u64;
        sum
    }

    /// Begins a call.
    #[must_use]
    pub fn call(&self) -> CallTotals {
        let mut counted = self.shared.lock();
        counted.calls += 1;
        CallTotals { shared: Arc::clone(&self.shared), call: counted.calls }
    }
}

impl CallTotals {
    /// Adds the rows of a message.
    pub fn add(&self, rows: Vec<TotalRow>) {
        let mut counted = self.shared.lock();
        for (key, total) in rows {
            counted.add(self.call, key, total);
        }
    }
}

impl Drop for CallTotals {
    fn drop(&mut self) {
        self.shared.lock().forget(self.call);
    }
}

impl SharedTotals {
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn add(&mut self, call: u64, mut key: TotalKey, total: Total) {
        if Total::is_momentary(FAMILIES[key.family].kind) {
            self.set(call, key, total);
            return;
        }
        if self.sums.len() >= MAX_ROWS && !self.sums.contains_key(&key) {
            key.labels.iter_mut().for_each(|value| OTHER.clone_into(value));
        }
        match self.sums.get_mut(&key) {
            Some(sum) => sum.add(&total),
            None => drop(self.sums.insert(key, total)),
        }
    }

    fn set(&mut self, call: u64, key: TotalKey, total: Total) {
        let gauges = self.gauges.entry(call).or_default();
        if let Some(known) = gauges.get_mut(&key) {
            *known = total;
            return;
        }
        let bytes = self.gauge_bytes + weight(&key);
        if key.labels.is_empty() || gauges.len() < MAX_GAUGES && bytes <= GAUGE_BYTES {
            self.gauge_bytes = bytes;
            gauges.insert(key, total);
        }
    }

    /// Forgets the gauges of a call.
    fn forget(&mut self, call: u64) {
        let gone = self.gauges.remove(&call).unwrap_or_default();
        self.gauge_bytes -= gone.keys().map(weight).sum::<usize>();
    }

    /// Every row, with the gauges of all calls.
    fn rows(&self) -> BTreeMap<&TotalKey, Total> {
        let mut rows: BTreeMap<&TotalKey, Total> = self.sums.iter().map(|(key, total)| (key, total.clone())).collect();
        for (key, total) in self.gauges.values().flatten() {
            let has_room = rows.len() < MAX_SHOWN || key.labels.is_empty();
            match rows.get_mut(key) {
                Some(highest) if FAMILIES[key.family].kind == TotalKind::Highest => highest.raise(total),
                Some(sum) => sum.add(total),
                None if has_room => drop(rows.insert(key, total.clone())),
                None => {}
            }
        }
        rows
    }
}

impl Collector for WorkerTotals {
    fn desc(&self) -> Vec<&Desc> {
        self.shared.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counted = self.shared.lock();
        let mut shown: BTreeMap<usize, Vec<Metric>> = BTreeMap::new();
        for (key, total) in counted.rows() {
            shown.entry(key.family).or_default().push(metric(key, total));
        }
        let family = |(at, metrics): (usize, Vec<Metric>)| {
            let mut family = MetricFamily::default();
            family.set_name(format!("{PREFIX}{}", FAMILIES[at].name));
            family.set_help(FAMILIES[at].help.to_owned());
            family.set_field_type(match FAMILIES[at].kind {
                TotalKind::Counter => MetricType::COUNTER,
                TotalKind::Gauge | TotalKind::Highest => MetricType::GAUGE,
                TotalKind::Histogram(_) => MetricType::HISTOGRAM,
            });
            family.set_metric(metrics);
            family
        };
        shown.into_iter().map(family).collect()
    }
}

/// Bytes that a gauge takes.
fn weight(key: &TotalKey) -> usize {
    size_of::<(TotalKey, Total)>() + key.labels.iter().map(|value| size_of::<String>() + value.len()).sum::<usize>()
}

fn metric(key: &TotalKey, total: Total) -> Metric {
    let family = &FAMILIES[key.family];
    let pair = |(name, value): (&&str, &String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    let mut metric = Metric::from_label(family.labels.iter().zip(&key.labels).map(pair).collect());
    match (total, family.kind) {
        (Total::Number(value), TotalKind::Gauge | TotalKind::Highest) => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        (Total::Number(value), _) => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        (Total::Histogram { buckets, count, sum }, kind) => {
            let bounds = if let TotalKind::Histogram(bounds) = kind { bounds } else { &[] };
            let bucket = |(bound, count): (&f64, u64)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(count);
                bucket
            };
            let mut histogram = Histogram::default();
            histogram.set_bucket(bounds.iter().zip(buckets).map(bucket).collect());
            histogram.set_sample_count(count);
            histogram.set_sample_sum(sum);
            metric.set_histogram(histogram);
        }
    }
    metric
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::control::totals::START_BUCKETS;
    use liveedgecast_common::metrics::text;

    use super::*;

    fn row(name: &str, labels: &[&str], value: f64) -> TotalRow {
        let (family, _) = TotalFamily::named(name).unwrap();
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        (TotalKey { family, labels }, Total::Number(value))
    }

    #[test]
    fn counters_add_up_and_stay_and_gauges_go_with_their_call() {
        let registry = Registry::new();
        let totals = WorkerTotals::new(&registry).unwrap();
        let has = |rows: &[&str]| {
            let page = text(&registry);
            rows.iter().for_each(|row| assert!(page.lines().any(|line| line == *row), "{row}: {page}"));
        };
        has(&["# TYPE liveedgecast_received_bytes_total counter", "liveedgecast_received_bytes_total 0"]);
        let (one, two) = (totals.call(), totals.call());
        let histogram = Total::Histogram { buckets: vec![1; START_BUCKETS.len()], count: 2, sum: 40.0 };
        let (start, _) = row("worker_start_seconds", &["upstream"], 0.0);
        one.add(vec![
            row("received_bytes_total", &[], 5.0),
            row("worker_streams", &[], 2.0),
            (start.clone(), histogram),
        ]);
        one.add(vec![row("received_bytes_total", &[], 2.0), row("worker_streams", &[], 1.0)]);
        two.add(vec![row("received_bytes_total", &[], 3.0), row("worker_streams", &[], 4.0)]);
        two.add(vec![row("upstreams", &["youtube", "live"], 4.0), row("upstream_lag_seconds", &["youtube"], 0.5)]);
        one.add(vec![row("upstream_lag_seconds", &["youtube"], 0.25)]);
        has(&[
            "liveedgecast_received_bytes_total 10",
            "liveedgecast_worker_streams 5",
            "liveedgecast_upstreams{destination=\"youtube\",state=\"live\"} 4",
            "liveedgecast_upstream_lag_seconds{destination=\"youtube\"} 0.5",
            "liveedgecast_worker_start_seconds_bucket{phase=\"upstream\",le=\"30\"} 1",
            "liveedgecast_worker_start_seconds_bucket{phase=\"upstream\",le=\"+Inf\"} 2",
            "liveedgecast_worker_start_seconds_sum{phase=\"upstream\"} 40",
        ]);
        drop(two);
        has(&[
            "liveedgecast_received_bytes_total 10",
            "liveedgecast_worker_streams 1",
            "liveedgecast_upstream_lag_seconds{destination=\"youtube\"} 0.25",
        ]);
        assert!(!text(&registry).contains("liveedgecast_upstreams{"));
    }

    #[test]
    fn rows_are_bounded_and_nothing_is_lost_of_counters() {
        let registry = Registry::new();
        let totals = WorkerTotals::new(&registry).unwrap();
        let call = totals.call();
        let destinations = MAX_ROWS + 10;
        for number in 0..destinations {
            call.add(vec![row("upstream_sent_bytes_total", &[&format!("d{number}")], 1.0)]);
            call.add(vec![row("upstreams", &[&format!("d{number}"), "live"], 1.0)]);
        }
        let counted = totals.shared.lock();
        assert!(counted.sums.len() <= MAX_ROWS + 1);
        let (family, _) = TotalFamily::named("upstream_sent_bytes_total").unwrap();
        let named = counted.sums.iter().filter(|(key, _)| key.family == family);
        let sum: f64 = named.map(|(_, total)| if let Total::Number(value) = total { *value } else { 0.0 }).sum();
        assert!((sum - f64::from(u32::try_from(destinations).unwrap())).abs() < 0.5, "{sum}");
        assert_eq!(counted.gauges.values().map(BTreeMap::len).sum::<usize>(), MAX_GAUGES);
    }

    #[test]
    fn gauges_of_many_workers_are_bounded_and_those_without_labels_are_all_counted() {
        let registry = Registry::new();
        let totals = WorkerTotals::new(&registry).unwrap();
        let long = "z".repeat(256);
        let calls: Vec<CallTotals> = (0..40).map(|_| totals.call()).collect();
        for (number, call) in calls.iter().enumerate() {
            call.add((0..MAX_GAUGES).map(|at| row("upstreams", &[&format!("{number}-{at}"), &long], 1.0)).collect());
            call.add(vec![row("worker_streams", &[], 1.0)]);
        }
        let counted = totals.shared.lock();
        let kept: usize = counted.gauges.values().flat_map(BTreeMap::keys).map(weight).sum();
        assert!(kept == counted.gauge_bytes && kept < GAUGE_BYTES + 40 * 256, "{kept} bytes");
        let rows = counted.rows();
        assert!(rows.len() <= MAX_SHOWN + FAMILIES.len(), "{} rows", rows.len());
        let (streams, _) = row("worker_streams", &[], 0.0);
        assert_eq!(rows.get(&streams), Some(&Total::Number(40.0)));
        drop(rows);
        drop(counted);
        drop(calls);
        assert_eq!(totals.shared.lock().gauge_bytes, 0);
    }
}
