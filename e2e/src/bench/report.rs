//! Tables of rows. In: repetitions of rows. Out: Markdown with medians, spans, and ratios that were taken within a repetition.

use super::load::Row;
use super::relay::RelayKind;

/// The value below which the share `q` of a sorted list lies; 0 of an empty one.
#[must_use]
pub fn quantile(sorted: &[u64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or(0) as f64
}

/// Median, with the span if several values exist.
fn span(mut values: Vec<f64>, digits: usize) -> String {
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
    "CPU s/stream-hour",
    "CPU ms/start",
    "kB/stream",
    "replay window kB/stream",
];
const LATENCY: &[&str] = &["latency", "p50 ms", "p99 ms", "+p50", "+p99", "start ms", "first media ms"];
const CHECKS: &[&str] =
    &["checks", "started", "lost at start/stream", "lost", "repeated", "corrupt", "cut", "not decodable at start"];

/// Tables of one load: costs, latencies, checks. `repetitions` holds one list of rows each.
#[must_use]
pub fn table(repetitions: &[Vec<Row>]) -> String {
    let mut kinds: Vec<RelayKind> = repetitions.iter().flatten().map(|row| row.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut tables = [COST, LATENCY, CHECKS]
        .map(|columns| format!("| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len())));
    for kind in kinds {
        let rows: Vec<&Row> = repetitions.iter().flatten().filter(|row| row.kind == kind).collect();
        let all = |value: fn(&Row) -> f64, digits| span(rows.iter().map(|row| value(row)).collect(), digits);
        let against = |other: RelayKind, value: fn(&Row) -> f64, join: fn(f64, f64) -> f64| -> Vec<f64> {
            let pairs = repetitions.iter().filter_map(|rows| {
                let of = |kind| rows.iter().find(|row| row.kind == kind).map(value);
                Some(join(of(kind)?, of(other)?))
            });
            pairs.collect()
        };
        let costs = kind != RelayKind::Direct;
        let ratio =
            |other| if costs { span(against(other, |row| row.cpu_per_gb, |a, b| a / b), 2) } else { "-".into() };
        let cost = |value: fn(&Row) -> f64, digits| if costs { all(value, digits) } else { "-".into() };
        let added = |value| span(against(RelayKind::Direct, value, |a, b| a - b), 2);
        let sum = |value: fn(&Row) -> u64| rows.iter().map(|row| value(row)).sum::<u64>();
        let name = || kind.as_str().to_owned();
        let cells = [
            vec![
                name(),
                cost(|row| row.cpu_per_gb, 2),
                ratio(RelayKind::Floor),
                ratio(RelayKind::Haproxy),
                ratio(RelayKind::Nginx),
                cost(|row| row.cpu_per_stream_hour, 2),
                cost(|row| row.start_cpu, 2),
                cost(|row| row.kb_per_stream, 0),
                cost(|row| row.window_kb_per_stream, 0),
            ],
            vec![
                name(),
                all(|row| row.p50, 2),
                all(|row| row.p99, 2),
                added(|row| row.p50),
                added(|row| row.p99),
                all(|row| row.start, 1),
                all(|row| row.first, 1),
            ],
            vec![
                name(),
                all(|row| f64::from(row.started), 0),
                all(|row| row.lost_at_start, 1),
                sum(|row| row.lost).to_string(),
                sum(|row| row.repeated).to_string(),
                sum(|row| row.corrupt).to_string(),
                sum(|row| u64::from(row.cut)).to_string(),
                sum(|row| u64::from(row.undecodable)).to_string(),
            ],
        ];
        for (table, cells) in tables.iter_mut().zip(cells) {
            *table += &format!("| {} |\n", cells.join(" | "));
        }
    }
    tables.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_spans() {
        assert_eq!((quantile(&[], 0.5), quantile(&[1, 2, 3], 0.5), quantile(&[1, 2, 3], 1.0)), (0.0, 2.0, 3.0));
        assert_eq!(span(vec![3.0, 1.0, 2.0], 1), "2.0 (1.0-3.0)");
        assert_eq!((span(vec![], 1), span(vec![1.25], 1)), ("-".into(), "1.2".into()));
    }
}
