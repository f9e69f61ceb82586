//! Metrics of this room. In: faults of attempts and sessions. Out: the registry. (Bytes and messages are in the reports of streams, and
//! `engine` counts them.)
//!
//! Note: names of destinations come from the configuration files of activators and from their API, which may change as often as somebody likes while
//! this worker runs. The number of names is bounded here, or they could fill a metrics server with labels.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use liveedgecast_common::metrics::{opts, register};
use prometheus::{IntCounterVec, Registry};

use super::Fault;

/// Most destinations that get rows of their own. All others share one row.
const MOST_DESTINATIONS: usize = 256;
/// The row of all others.
const OTHER_DESTINATIONS: &str = "other";

/// The destinations that have rows of their own in the metrics of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct DestinationLabels {
    /// A lock, because streams of several threads and the engine ask; held for one look.
    known: Arc<Mutex<HashSet<String>>>,
}

impl DestinationLabels {
    /// The label of a destination.
    #[must_use]
    pub fn of<'a>(&self, name: &'a str) -> &'a str {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(name) {
            return name;
        }
        if known.len() >= MOST_DESTINATIONS {
            return OTHER_DESTINATIONS;
        }
        known.insert(name.to_owned());
        name
    }
}

/// Counters of upstream sessions.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    /// Labels of all metrics that name a destination.
    pub labels: DestinationLabels,
    /// Attempts and sessions that failed, by destination and [`Fault`].
    failures: IntCounterVec,
}

impl UpstreamMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Attempts and sessions of upstreams that failed";
        let failures = IntCounterVec::new(opts("upstream_failures_total", help), &["destination", "reason"])?;
        Ok(Self { labels: DestinationLabels::default(), failures: register(registry, failures)? })
    }

    /// Counts a failure at a destination.
    pub fn failed(&self, destination: &str, fault: Fault) {
        let destination = self.labels.of(destination);
        // Every reason has a row from the first failure on, so that rates of the others are right.
        for reason in Fault::ALL {
            self.failures.with_label_values(&[destination, reason.as_str()]).inc_by(u64::from(reason == fault));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_destinations_are_bounded() {
        let labels = DestinationLabels::default();
        for number in 0..MOST_DESTINATIONS {
            let name = format!("destination-{number}");
            assert_eq!(labels.of(&name), name);
        }
        assert_eq!(labels.of("one-more"), OTHER_DESTINATIONS);
        assert_eq!(labels.clone().of("destination-0"), "destination-0");
    }

    #[test]
    fn failures_count_by_destination_and_reason() {
        let metrics = UpstreamMetrics::new(&Registry::new()).unwrap();
        metrics.failed("youtube", Fault::Lost);
        metrics.failed("youtube", Fault::Lost);
        let count = |fault: Fault| metrics.failures.with_label_values(&["youtube", fault.as_str()]).get();
        assert_eq!((count(Fault::Lost), count(Fault::Denied)), (2, 0));
    }
}
