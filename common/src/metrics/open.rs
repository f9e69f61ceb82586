//! The page of metrics in the OpenMetrics text format (version 1.0.0), which can name the trace of an observation. In: the page in Prometheus' own
//! format, the newest traced observation of each series. Out: the same page as OpenMetrics. Pure, but for the lock around the observations.
//!
//! The formats differ in the names of counters in their descriptions, in the escapes of help texts, in the exemplars and in the last line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::UtcTime;

/// The content type of the page.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An observation of a histogram that a trace explains.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The trace, in hexadecimal digits.
    pub trace_id: String,
    /// The value that was observed.
    pub value: f64,
    /// The time of the observation.
    pub at: UtcTime,
}

/// The newest traced observation of each series of one histogram.
#[derive(Clone, Debug, Default)]
pub struct Exemplars(Arc<Mutex<BTreeMap<String, Exemplar>>>);

impl Exemplars {
    /// Notes an observation. `labels`: those of the series as the page has them, such as `phase="live"`. There are as many as series.
    pub fn note(&self, labels: String, exemplar: Exemplar) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(labels, exemplar);
    }

    /// Returns the page as OpenMetrics. `histogram`: the full name of the one whose exemplars these are.
    #[must_use]
    pub fn page(&self, text: &str, histogram: &str) -> String {
        let exemplars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open_metrics(text, histogram, &exemplars)
    }
}

fn open_metrics(text: &str, histogram: &str, exemplars: &BTreeMap<String, Exemplar>) -> String {
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let counters: BTreeSet<&str> = typed.filter(|(_, kind)| *kind == "counter").map(|(name, _)| name).collect();
    // The name of a family, which for counters is that of their samples without the ending.
    let family = |name: &str| match counters.contains(name) {
        true => name.strip_suffix("_total").unwrap_or(name).to_owned(),
        false => name.to_owned(),
    };
    let bucket = format!("{histogram}_bucket{{");
    // Series whose bucket has been found: the first one that the value fits in.
    let mut placed = BTreeSet::new();
    let mut page = String::with_capacity(text.len() + 1024);
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let _ = writeln!(page, "# HELP {} {}", family(name), help.replace('"', "\\\""));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            // A counter by another ending is none here.
            let is_odd = kind == "counter" && !name.ends_with("_total");
            let _ = writeln!(page, "# TYPE {} {}", family(name), if is_odd { "unknown" } else { kind });
        } else {
            page.push_str(line);
            if let Some((labels, exemplar)) = line.strip_prefix(&bucket).and_then(|rest| in_bucket(rest, exemplars))
                && placed.insert(labels)
            {
                let Exemplar { trace_id, value, at: UtcTime(millis) } = exemplar;
                let (second, milli) = (millis / 1000, millis % 1000);
                let _ = write!(page, " # {{trace_id=\"{trace_id}\"}} {value} {second}.{milli:03}");
            }
            page.push('\n');
        }
    }
    page.push_str("# EOF\n");
    page
}

/// The exemplar of the series of a bucket, if its value is not above the bucket's bound. `rest`: the labels of the bucket and its count.
fn in_bucket<'a>(rest: &str, exemplars: &'a BTreeMap<String, Exemplar>) -> Option<(&'a str, &'a Exemplar)> {
    let (labels, _) = rest.rsplit_once('}')?;
    let (series, bound) = labels.rsplit_once("le=\"")?;
    let bound: f64 = bound.strip_suffix('"')?.parse().ok()?;
    let (labels, exemplar) = exemplars.get_key_value(series.trim_end_matches(','))?;
    (exemplar.value <= bound).then_some((labels.as_str(), exemplar))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_open_metrics_with_one_exemplar_for_each_series() {
        let text = "# HELP a_total Things \"so\" called\n# TYPE a_total counter\na_total{x=\"1\"} 3\n# HELP odd Odd\n# TYPE odd counter\nodd 1\n\
                    # HELP h_seconds Time\n# TYPE h_seconds histogram\nh_seconds_bucket{phase=\"live\",le=\"0.1\"} 0\n\
                    h_seconds_bucket{phase=\"live\",le=\"0.5\"} 1\nh_seconds_bucket{phase=\"live\",le=\"+Inf\"} 1\n\
                    h_seconds_sum{phase=\"live\"} 0.2\nh_seconds_count{phase=\"live\"} 1\nh_seconds_bucket{phase=\"media\",le=\"0.1\"} 0\n\
                    h_seconds_bucket{phase=\"media\",le=\"+Inf\"} 1\n";
        let exemplars = Exemplars::default();
        let note = |phase: &str, value| {
            let exemplar = Exemplar { trace_id: format!("{phase}1"), value, at: UtcTime(1_234_056) };
            exemplars.note(format!("phase=\"{phase}\""), exemplar);
        };
        note("live", 9.0);
        note("live", 0.2);
        note("media", 7.0);
        note("gone", 7.0);
        let expected = "# HELP a Things \\\"so\\\" called\n# TYPE a counter\na_total{x=\"1\"} 3\n# HELP odd Odd\n# TYPE odd unknown\nodd 1\n\
                        # HELP h_seconds Time\n# TYPE h_seconds histogram\nh_seconds_bucket{phase=\"live\",le=\"0.1\"} 0\n\
                        h_seconds_bucket{phase=\"live\",le=\"0.5\"} 1 # {trace_id=\"live1\"} 0.2 1234.056\n\
                        h_seconds_bucket{phase=\"live\",le=\"+Inf\"} 1\nh_seconds_sum{phase=\"live\"} 0.2\nh_seconds_count{phase=\"live\"} 1\n\
                        h_seconds_bucket{phase=\"media\",le=\"0.1\"} 0\n\
                        h_seconds_bucket{phase=\"media\",le=\"+Inf\"} 1 # {trace_id=\"media1\"} 7 1234.056\n# EOF\n";
        assert_eq!(exemplars.page(text, "h_seconds"), expected);
    }
}
