//! The metrics that activators have been told. In: the rows of this process's metrics. Out: those that activators do not know yet: growths of
//! counters, and gauges that have changed. Next: `task`, which tells them to the activator that the machine names. Pure.

use std::collections::BTreeMap;

use liveedgecast_common::control::totals::{FAMILIES, Total, TotalKey, TotalRow};

/// The rows as they were told last.
#[derive(Debug, Default)]
pub(super) struct TotalsLedger {
    told: BTreeMap<TotalKey, Total>,
}

impl TotalsLedger {
    /// The news since the last call. `anew`: the activator knows nothing of this worker, so it gets every row, those too that have not grown.
    pub(super) fn news(&mut self, rows: Vec<TotalRow>, anew: bool) -> Vec<TotalRow> {
        let mut news = Vec::new();
        for (key, total) in rows {
            let told = self.told.get(&key);
            if anew || told != Some(&total) {
                let is_momentary = Total::is_momentary(FAMILIES[key.family].kind);
                let growth = told.filter(|_| !is_momentary).map_or_else(|| total.clone(), |told| total.since(told));
                news.push((key.clone(), growth));
                self.told.insert(key, total);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::control::totals::TotalFamily;

    use super::*;

    fn row(name: &str, value: f64) -> TotalRow {
        let (family, _) = TotalFamily::named(name).unwrap();
        (TotalKey { family, labels: Vec::new() }, Total::Number(value))
    }

    #[test]
    fn each_growth_is_told_once_and_another_activator_gets_every_row() {
        let (bytes, streams) = ("received_bytes_total", "worker_streams");
        let mut ledger = TotalsLedger::default();
        let start = vec![row(bytes, 0.0), row(streams, 0.0)];
        assert_eq!(ledger.news(start.clone(), true), start);
        assert_eq!(ledger.news(start, false), []);
        assert_eq!(
            ledger.news(vec![row(bytes, 10.0), row(streams, 2.0)], false),
            [row(bytes, 10.0), row(streams, 2.0)]
        );
        assert_eq!(ledger.news(vec![row(bytes, 15.0), row(streams, 2.0)], false), [row(bytes, 5.0)]);
        // No activator was there to be told of the next growth.
        assert_eq!(ledger.news(vec![row(bytes, 18.0), row(streams, 2.0)], true), [row(bytes, 3.0), row(streams, 2.0)]);
        assert_eq!(ledger.news(vec![row(bytes, 18.0), row(streams, 1.0)], false), [row(streams, 1.0)]);
    }
}
