//! The history of streams. In: a table of starts and ends, or the samples of a gauge. Out: the streams of each site, in the order of their starts. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use liveedgecast_common::key::LogSafe;

use crate::commandline::times::parse_time;

/// One stream: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Broadcast {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Broadcast {
    /// The time from start to end.
    pub(super) fn length(self) -> Duration {
        Duration::from_millis(self.end.saturating_sub(self.start))
    }
}

/// The history of all sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamHistory {
    /// The streams of each site, sorted.
    pub(super) sites: BTreeMap<String, Vec<Broadcast>>,
    /// The beginning of the time that counts …
    pub(super) from: u64,
    /// … and its end.
    pub(super) to: u64,
}

/// A mistake in a history, with its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HistoryError {
    #[error("line {0}: {1:?} is no time: write it as 2025-01-31T12:00:00Z, or in seconds since 1970")]
    Time(usize, String),
    #[error(
        "line {0}: it has {1} columns: a line is START,END or START,END,SITE, and the first line may name the columns"
    )]
    Columns(usize, usize),
    #[error("line {0}: the stream ends before it starts")]
    Backwards(usize),
    #[error("line 1: there is no column {0}: the first line names start, end, and site if there is one")]
    Heading(&'static str),
    #[error("there is no stream in it")]
    Empty,
}

/// The places of the columns.
#[derive(Clone, Copy, Debug)]
struct Columns {
    start: usize,
    end: usize,
    site: Option<usize>,
    all: usize,
}

/// Reads a table with commas: start, end, and site if there are several. A stream without an end lasts to the end of the history.
pub(super) fn from_table(text: &str) -> Result<StreamHistory, HistoryError> {
    let mut columns = None;
    let mut open = Vec::new();
    let mut history = StreamHistory { from: u64::MAX, ..StreamHistory::default() };
    for (at, line) in text.lines().enumerate() {
        let (number, line) = (at + 1, line.trim_start_matches('\u{feff}').trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
        let columns = match columns {
            Some(columns) => columns,
            None => {
                let (found, is_heading) = columns_of(&cells)?;
                columns = Some(found);
                if is_heading {
                    continue;
                }
                found
            }
        };
        if cells.len() != columns.all {
            return Err(HistoryError::Columns(number, cells.len()));
        }
        let start = time(cells[columns.start], number)?;
        let site = columns.site.map_or("", |site| cells[site]);
        history.from = history.from.min(start);
        history.to = history.to.max(start);
        if cells[columns.end].is_empty() {
            open.push((site.to_owned(), start));
            continue;
        }
        let end = time(cells[columns.end], number)?;
        if end < start {
            return Err(HistoryError::Backwards(number));
        }
        history.to = history.to.max(end);
        add(&mut history, site, Broadcast { start, end });
    }
    let to = history.to;
    open.iter().for_each(|(site, start)| add(&mut history, site, Broadcast { start: *start, end: to }));
    finished(history)
}

/// Reads the answer of Prometheus to a range query: each row is a site, and its samples the number of streams at that time. Of streams that end, the
/// oldest ends first.
pub(super) fn from_samples(rows: &[(String, Vec<(u64, u64)>)]) -> Result<StreamHistory, HistoryError> {
    let mut history = StreamHistory { from: u64::MAX, ..StreamHistory::default() };
    for (site, samples) in rows {
        let mut open = std::collections::VecDeque::new();
        let mut last = 0;
        for (at, count) in samples {
            history.from = history.from.min(*at);
            history.to = history.to.max(*at);
            last = *at;
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            while open.len() > count {
                let start = open.pop_front().unwrap_or(*at);
                add(&mut history, site, Broadcast { start, end: *at });
            }
            // More than one machine could hold is a sample that cannot be.
            while open.len() < count.min(1_000_000) {
                open.push_back(*at);
            }
        }
        open.iter().for_each(|start| add(&mut history, site, Broadcast { start: *start, end: last }));
    }
    finished(history)
}

fn add(history: &mut StreamHistory, site: &str, broadcast: Broadcast) {
    match history.sites.get_mut(site) {
        Some(all) => all.push(broadcast),
        None => drop(history.sites.insert(site.to_owned(), vec![broadcast])),
    }
}

fn finished(mut history: StreamHistory) -> Result<StreamHistory, HistoryError> {
    history.sites.values_mut().for_each(|all| all.sort_unstable());
    if history.sites.is_empty() { Err(HistoryError::Empty) } else { Ok(history) }
}

/// The columns by the first line, and whether that names them.
fn columns_of(cells: &[&str]) -> Result<(Columns, bool), HistoryError> {
    let place = |name: &str| cells.iter().position(|cell| cell.eq_ignore_ascii_case(name));
    let is_heading =
        cells.iter().any(|cell| cell.chars().any(|c| c.is_ascii_alphabetic()) && parse_time(cell).is_none());
    let looks_like_times = time(cells[0], 1).is_ok();
    if !is_heading || looks_like_times {
        let site = (cells.len() > 2).then_some(2);
        if !(2..=3).contains(&cells.len()) {
            return Err(HistoryError::Columns(1, cells.len()));
        }
        return Ok((Columns { start: 0, end: 1, site, all: cells.len() }, false));
    }
    let start = place("start").ok_or(HistoryError::Heading("start"))?;
    let end = place("end").ok_or(HistoryError::Heading("end"))?;
    Ok((Columns { start, end, site: place("site"), all: cells.len() }, true))
}

fn time(text: &str, line: usize) -> Result<u64, HistoryError> {
    let seconds = || text.parse::<f64>().ok().filter(|seconds| (0.0..1e11).contains(seconds));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds above")]
    let millis = |seconds: f64| (seconds * 1000.0).round() as u64;
    parse_time(text)
        .or_else(|| seconds().map(millis))
        .ok_or_else(|| HistoryError::Time(line, LogSafe(text).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_with_and_without_headings_sites_and_ends() {
        let one = from_table("1970-01-01T00:00:10Z,1970-01-01T00:00:20Z\n5,7.5\n\n# remark\n6,\n").unwrap();
        assert_eq!((one.from, one.to), (5000, 20_000));
        let pairs: Vec<(u64, u64)> = one.sites[""].iter().map(|stream| (stream.start, stream.end)).collect();
        assert_eq!(pairs, [(5000, 7500), (6000, 20_000), (10_000, 20_000)]);
        let two = from_table("site,end,other,start\nb,2,x,1\na,4,,3\n").unwrap();
        assert_eq!(two.sites.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(two.sites["a"], [Broadcast { start: 3000, end: 4000 }]);
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, error) in [
            ("", HistoryError::Empty),
            ("start,end\n", HistoryError::Empty),
            ("1,2\n3,x\n", HistoryError::Time(2, "x".into())),
            ("1,2\n3\n", HistoryError::Columns(2, 1)),
            ("start,end\n4,3\n", HistoryError::Backwards(2)),
            ("begin,end\n1,2\n", HistoryError::Heading("start")),
            ("start,stop\n1,2\n", HistoryError::Heading("end")),
            ("1,2,3,4\n", HistoryError::Columns(1, 4)),
        ] {
            assert_eq!(from_table(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn samples_become_streams_of_which_the_oldest_ends_first() {
        let rows = [("a".to_owned(), vec![(0, 0), (1000, 2), (2000, 3), (3000, 1), (4000, 1)])];
        let history = from_samples(&rows).unwrap();
        let pairs: Vec<(u64, u64)> = history.sites["a"].iter().map(|stream| (stream.start, stream.end)).collect();
        assert_eq!(pairs, [(1000, 3000), (1000, 3000), (2000, 4000)]);
        assert_eq!((history.from, history.to), (0, 4000));
    }
}
