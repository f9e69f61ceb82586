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

/// Table of one load; `repetitions` holds one list of rows each.
#[must_use]
pub fn table(repetitions: &[Vec<Row>]) -> String {
    let mut kinds: Vec<RelayKind> = repetitions.iter().flatten().map(|row| row.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut out = String::from(
        "| relay | started | CPU s/GB | x HAProxy | x nginx-rtmp | kB/stream | replay window kB/stream | p50 ms | p99 ms | +p50 | +p99 \
         | start ms | first media ms | lost at start/stream | lost | repeated | corrupt | cut | not decodable at start |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
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
        let ratio = |other| {
            if kind == RelayKind::Direct {
                "-".into()
            } else {
                span(against(other, |row| row.cpu_per_gb, |a, b| a / b), 2)
            }
        };
        let added = |value| span(against(RelayKind::Direct, value, |a, b| a - b), 2);
        let sum = |value: fn(&Row) -> u64| rows.iter().map(|row| value(row)).sum::<u64>();
        let cells = [
            kind.as_str().to_owned(),
            all(|row| f64::from(row.started), 0),
            if kind == RelayKind::Direct { "-".into() } else { all(|row| row.cpu_per_gb, 2) },
            ratio(RelayKind::Haproxy),
            ratio(RelayKind::Nginx),
            all(|row| row.kb_per_stream, 0),
            all(|row| row.window_kb_per_stream, 0),
            all(|row| row.p50, 2),
            all(|row| row.p99, 2),
            added(|row| row.p50),
            added(|row| row.p99),
            all(|row| row.start, 1),
            all(|row| row.first, 1),
            all(|row| row.lost_at_start, 1),
            sum(|row| row.lost).to_string(),
            sum(|row| row.repeated).to_string(),
            sum(|row| row.corrupt).to_string(),
            sum(|row| u64::from(row.cut)).to_string(),
            sum(|row| u64::from(row.undecodable)).to_string(),
        ];
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out
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
