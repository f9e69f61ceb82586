//! Tables of rows. In: repetitions of rows. Out: Markdown with medians, spans, and ratios that were taken within a repetition.

use super::load::Row;
use super::relay::{RelayKind, Subject};

/// The value below which the share `q` of a sorted list lies; 0 of an empty one.
#[must_use]
pub fn quantile(sorted: &[u64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or(0) as f64
}

/// Median, with the span if several values exist.
#[must_use]
pub fn span(mut values: Vec<f64>, digits: usize) -> String {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return "-".into() };
    let median = values[values.len() / 2];
    if values.len() == 1 {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({least:.digits$}-{most:.digits$})")
}

const COST: &[&str] = &[
    "cost",
    "CPU s/GB",
    "x floor",
    "x HAProxy",
    "x nginx-rtmp",
    "x plain",
    "CPU s/stream-hour",
    "CPU ms/start",
    "kB/stream",
    "replay window kB/stream",
];
const LATENCY: &[&str] = &[
    "latency",
    "p50 ms",
    "p99 ms",
    "+p50",
    "+p99",
    "start ms",
    "first media ms",
    "generator %",
    "sink %",
    "late p99 ms",
    "their core",
];
const CHECKS: &[&str] =
    &["checks", "started", "lost at start/stream", "lost", "repeated", "corrupt", "cut", "not decodable at start"];

/// The head of a table.
#[must_use]
pub fn head(columns: &[&str]) -> String {
    format!("| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len()))
}

/// A line of a table.
#[must_use]
pub fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Rows of one repetition each, and the subjects in the order of the table.
#[derive(Clone, Copy, Debug)]
struct Compared<'a> {
    subject: &'a Subject,
    repetitions: &'a [Vec<Row>],
}

impl Compared<'_> {
    fn all(&self, value: fn(&Row) -> f64, digits: usize) -> String {
        span(self.rows().map(value).collect(), digits)
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.repetitions.iter().flatten().filter(|row| row.subject == *self.subject)
    }

    /// Joins the values of both subjects in each repetition that has both.
    fn against(&self, other: &Subject, value: fn(&Row) -> f64, join: fn(f64, f64) -> f64) -> String {
        let pairs = self.repetitions.iter().filter_map(|rows| {
            let of = |subject: &Subject| rows.iter().find(|row| row.subject == *subject).map(value);
            Some(join(of(self.subject)?, of(other)?))
        });
        span(pairs.collect(), 2)
    }

    fn cost(&self) -> Vec<String> {
        let mut cells = vec![self.subject.name()];
        if self.subject.kind == RelayKind::Direct {
            cells.resize(COST.len(), "-".into());
            return cells;
        }
        let ratio = |other: &Subject| self.against(other, |row| row.cpu_per_gb, |a, b| a / b);
        let plain = Subject::plain(self.subject.kind);
        cells.push(self.all(|row| row.cpu_per_gb, 2));
        cells.extend([RelayKind::Floor, RelayKind::Haproxy, RelayKind::Nginx].map(|kind| ratio(&Subject::plain(kind))));
        cells.push(if *self.subject == plain { "-".into() } else { ratio(&plain) });
        cells.extend([
            self.all(|row| row.cpu_per_stream_hour, 2),
            self.all(|row| row.start_cpu, 2),
            self.all(|row| row.kb_per_stream, 0),
            self.all(|row| row.window_kb_per_stream, 0),
        ]);
        cells
    }

    fn latency(&self) -> Vec<String> {
        let added = |value| self.against(&Subject::plain(RelayKind::Direct), value, |a, b| a - b);
        vec![
            self.subject.name(),
            self.all(|row| row.p50, 2),
            self.all(|row| row.p99, 2),
            added(|row| row.p50),
            added(|row| row.p99),
            self.all(|row| row.start, 1),
            self.all(|row| row.first, 1),
            self.all(|row| row.ground.generator, 0),
            self.all(|row| row.ground.sink, 0),
            self.all(|row| row.ground.late, 2),
            if self.rows().any(|row| row.ground.full) { "FULL" } else { "has time" }.into(),
        ]
    }

    fn checks(&self) -> Vec<String> {
        let sum = |value: fn(&Row) -> u64| self.rows().map(value).sum::<u64>().to_string();
        vec![
            self.subject.name(),
            self.all(|row| f64::from(row.checks.started), 0),
            self.all(|row| row.checks.lost_at_start, 1),
            sum(|row| row.checks.lost),
            sum(|row| row.checks.repeated),
            sum(|row| row.checks.corrupt),
            sum(|row| u64::from(row.checks.cut)),
            sum(|row| u64::from(row.checks.undecodable)),
        ]
    }
}

/// Tables of one load: costs, latencies, checks. `repetitions` holds one list of rows each.
#[must_use]
pub fn tables(subjects: &[Subject], repetitions: &[Vec<Row>]) -> String {
    let mut tables = [COST, LATENCY, CHECKS].map(head);
    for subject in subjects {
        let compared = Compared { subject, repetitions };
        for (table, cells) in tables.iter_mut().zip([compared.cost(), compared.latency(), compared.checks()]) {
            *table += &line(&cells);
        }
    }
    let full = repetitions.iter().flatten().any(|row| row.ground.full);
    let note = "\nFULL: the core of generator and sink had no time left, so the latencies of this row mean nothing.\n";
    tables.join("\n") + if full { note } else { "" }
}

#[cfg(test)]
mod tests {
    use super::super::load::Ground;
    use super::*;

    #[test]
    fn quantiles_and_spans() {
        assert_eq!((quantile(&[], 0.5), quantile(&[1, 2, 3], 0.5), quantile(&[1, 2, 3], 1.0)), (0.0, 2.0, 3.0));
        assert_eq!(span(vec![3.0, 1.0, 2.0], 1), "2.0 (1.0-3.0)");
        assert_eq!((span(vec![], 1), span(vec![1.25], 1)), ("-".into(), "1.2".into()));
    }

    #[test]
    fn ratios_are_taken_within_a_repetition() {
        let row = |kind, cpu_per_gb, full| Row {
            cpu_per_gb,
            ground: Ground { full, ..Ground::default() },
            ..Row::nothing(Subject::plain(kind))
        };
        let slow = [row(RelayKind::Floor, 10.0, false), row(RelayKind::Link, 20.0, false)];
        let fast = [row(RelayKind::Floor, 1.0, false), row(RelayKind::Link, 3.0, true)];
        let subjects = [RelayKind::Floor, RelayKind::Link].map(Subject::plain);
        let tables = tables(&subjects, &[slow.to_vec(), fast.to_vec()]);
        let line = |name: &str| tables.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        // Medians of 20 and 3 would be 11.5 over 5.5.
        assert!(line("| liveedgecast link | 20.00 (3.00-20.00) | 3.00 (2.00-3.00) | - | - | - |").len() > 10);
        assert!(line("| floor | 10.00 (1.00-10.00) | 1.00 (1.00-1.00) | - | - | - |").len() > 10);
        assert!(tables.contains("| FULL |") && tables.contains("| has time |") && tables.ends_with("nothing.\n"));
    }
}
