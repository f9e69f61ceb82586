//! The bytes that publishers of the configuration file have sent, by name. In: bytes of streams as workers report them. Out: sums by name, when somebody asks.
//! Pure. Off unless it is asked for, and names are those of the file alone, so strangers cannot make rows.

use std::collections::BTreeMap;

/// Names at most; the bytes of further ones are not counted. A Prometheus with ten thousand rows of one metric is in trouble.
const MOST_NAMES: usize = 1000;

/// Bytes by the publisher's name.
#[derive(Debug, Default)]
pub(crate) struct PublisherTotals {
    is_on: bool,
    bytes: BTreeMap<String, u64>,
}

impl PublisherTotals {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, bytes: BTreeMap::new() }
    }

    /// Returns whether rows by name are asked for.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Adds bytes of a publisher's stream. Its row is there from the first call on, at zero.
    pub(super) fn add(&mut self, name: &str, bytes: u64) {
        if !self.is_on {
            return;
        }
        if let Some(sum) = self.bytes.get_mut(name) {
            *sum = sum.saturating_add(bytes);
        } else if self.bytes.len() < MOST_NAMES {
            self.bytes.insert(name.to_owned(), bytes);
        }
    }

    /// The bytes of each publisher so far.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, u64)> {
        self.bytes.iter().map(|(name, bytes)| (name.as_str(), *bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_need_the_setting() {
        let mut off = PublisherTotals::new(false);
        off.add("studio", 7);
        assert_eq!(off.rows().count(), 0);
        let mut totals = PublisherTotals::new(true);
        totals.add("studio", 0);
        totals.add("studio", 7);
        totals.add("studio", 3);
        assert_eq!(totals.rows().collect::<Vec<_>>(), [("studio", 10)]);
        for number in 0..2 * MOST_NAMES {
            totals.add(&number.to_string(), 1);
        }
        totals.add("studio", 1);
        assert_eq!(totals.rows().count(), MOST_NAMES);
        assert!(totals.rows().any(|row| row == ("studio", 11)));
    }
}
