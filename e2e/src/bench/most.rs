//! The most streams that one core carries. In: a relay. Out: the number beyond which messages come late, are lost, or publishers are refused.

use std::time::Duration;

use super::load::{self, BenchLoad, Cores, Row};
use super::relay::Subject;
use super::schedule::MediaRate;
use super::{BenchClock, report};

/// The 99th percentile of latency, ms, that a relay must keep.
const BOUND: f64 = 100.0;
/// Length of one trial.
const TRIAL: Duration = Duration::from_secs(5);

/// The next number to try: doubling until one fails, then halving what is between, to one twentieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MostSearch {
    /// The greatest number that was carried.
    pub carried: u32,
    /// The least number that was not.
    pub failed: Option<u32>,
    first: u32,
}

impl MostSearch {
    /// Begins with a number.
    #[must_use]
    pub fn new(first: u32) -> Self {
        Self { carried: 0, failed: None, first: first.max(1) }
    }

    /// The next number to try; `None`: the answer is known.
    #[must_use]
    pub fn next(&self) -> Option<u32> {
        match self.failed {
            None if self.carried == 0 => Some(self.first),
            None => Some(self.carried * 2),
            Some(failed) => {
                let between = failed - self.carried;
                (between > (failed / 20).max(1)).then(|| self.carried + between / 2)
            }
        }
    }

    /// Notes whether a number was carried.
    pub fn note(&mut self, streams: u32, carried: bool) {
        if carried {
            self.carried = streams;
        } else {
            self.failed = Some(streams);
        }
    }
}

/// The most that a relay carried.
#[derive(Clone, Debug)]
pub struct Most {
    subject: Subject,
    carried: u32,
    /// Results at that number.
    at: Option<Row>,
    /// The reason why the next number was not carried, and that number.
    limit: String,
}

/// The reason why a relay does not carry a load; `None`: it does.
fn failure(row: &Row, streams: u32) -> Option<String> {
    let checks = &row.checks;
    if row.ground.full {
        return Some(format!(
            "generator {:.0} % and sink {:.0} % fill their core",
            row.ground.generator, row.ground.sink
        ));
    }
    if checks.started < streams {
        return Some(format!("{} of {streams} started", checks.started));
    }
    if checks.lost > 0 || checks.cut > 0 {
        return Some(format!("{} messages lost, {} publishers cut", checks.lost, checks.cut));
    }
    (row.p99 > BOUND).then(|| format!("p99 {:.0} ms", row.p99))
}

/// Finds the most streams that a relay carries.
///
/// # Errors
/// The relay does not start.
pub async fn run(
    subject: &Subject,
    (first, rate): (u32, MediaRate),
    clock: BenchClock,
    cores: Option<Cores>,
) -> anyhow::Result<Most> {
    let mut search = MostSearch::new(first);
    let (mut at, mut limit) = (None, String::new());
    while let Some(streams) = search.next() {
        let row = load::run(subject, BenchLoad { streams, rate, time: TRIAL }, clock, cores).await;
        // Publishers that a relay no longer ends in time are an answer too.
        let why = match &row {
            Ok(row) => failure(row, streams),
            Err(error) => Some(error.to_string()),
        };
        eprintln!("{}: {streams} streams: {}", subject.name(), why.as_deref().unwrap_or("carried"));
        search.note(streams, why.is_none());
        match why {
            Some(why) => limit = format!("{streams}: {why}"),
            None => at = row.ok(),
        }
    }
    Ok(Most { subject: subject.clone(), carried: search.carried, at, limit })
}

/// The table of the report.
#[must_use]
pub fn table(all: &[Most]) -> String {
    let columns = ["most streams", "carried", "p99 ms", "CPU s/GB", "generator %", "sink %", "not carried"];
    let mut out = report::head(&columns);
    for most in all {
        let value = |value: fn(&Row) -> f64, digits: usize| {
            most.at.as_ref().map_or_else(|| "-".into(), |row| format!("{:.digits$}", value(row)))
        };
        out += &report::line(&[
            most.subject.name(),
            most.carried.to_string(),
            value(|row| row.p99, 1),
            value(|row| row.cpu_per_gb, 2),
            value(|row| row.ground.generator, 0),
            value(|row| row.ground.sink, 0),
            most.limit.clone(),
        ]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_ends_within_a_twentieth() {
        for most in [0, 1, 7, 99, 100, 101, 150, 777, 1600, 5000] {
            let mut search = MostSearch::new(100);
            let mut trials = 0;
            while let Some(streams) = search.next() {
                search.note(streams, streams <= most);
                trials += 1;
            }
            let failed = search.failed.unwrap();
            assert!(search.carried <= most && most < failed, "{most}: {search:?}");
            assert!(failed - search.carried <= (failed / 20).max(1) && trials < 20, "{most}: {search:?}");
        }
    }

    #[test]
    fn full_generator_is_named_before_anything_else() {
        let mut row = Row::nothing(Subject::plain(super::super::relay::RelayKind::Floor));
        row.checks.started = 5;
        assert_eq!(failure(&row, 5), None);
        row.p99 = 101.0;
        assert_eq!(failure(&row, 5).unwrap(), "p99 101 ms");
        row.checks.cut = 1;
        assert_eq!(failure(&row, 5).unwrap(), "0 messages lost, 1 publishers cut");
        assert_eq!(failure(&row, 6).unwrap(), "5 of 6 started");
        row.ground.full = true;
        assert_eq!(failure(&row, 5).unwrap(), "generator 0 % and sink 0 % fill their core");
    }
}
