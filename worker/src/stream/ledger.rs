//! What has become of each message on the way to one upstream: delivered, lost or repeated. Numbers of messages come in, counts go out.
//!
//! What surprised us: "lost" is not final. A message that was skipped to catch up can be delivered by the next session, which begins at
//! an earlier keyframe; then it is taken back.

use std::collections::VecDeque;
use std::ops::Range;

/// See the file's header. Every number below [`Self::end`] is delivered, lost or owed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// All below it have been dealt with.
    end: u64,
    /// All below it have reached their final state: an older session's peer has acknowledged them, or they were lost.
    settled: u64,
    /// Counted as lost; ascending and apart. Those that nothing can refer to any more are forgotten.
    lost_ranges: VecDeque<Range<u64>>,
    /// Passed over, but on their way all the same: headers that are put in front of a keyframe, messages saved from a ring.
    owed: Vec<u64>,
    lost: u64,
    replayed: u64,
}

impl Ledger {
    /// Delivered, each counted once.
    pub(super) fn delivered(&self) -> u64 {
        self.end - self.lost - self.owed.len() as u64
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Messages written again in a later session.
    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }

    /// The first number that a new session should deliver.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Everything below has been acknowledged, or lost for good.
    pub(super) fn settle(&mut self, below: u64) {
        self.settled = self.settled.max(below);
    }

    /// The session has written this message, and passes over those from `passed` on.
    pub(super) fn complete(&mut self, number: u64, passed: u64) {
        self.lose(passed..number);
        if number >= self.end {
            self.end = number + 1;
        } else if !self.take_owed(number) && !self.find(number) {
            self.replayed += 1;
        }
    }

    /// The session has written a header in front of a keyframe: a message of its own only if it was passed over.
    pub(super) fn complete_injected(&mut self, number: u64) {
        if !self.take_owed(number) {
            self.find(number);
        }
    }

    /// These numbers are passed over. Those settled or lost before do not count; those that are still to come are not lost, but owed.
    pub(super) fn pass(&mut self, range: Range<u64>, still_to_come: impl Iterator<Item = u64>) {
        let before = self.end;
        let owed = std::mem::take(&mut self.owed);
        for number in still_to_come {
            let due = owed.contains(&number) || (number >= before && number < range.end);
            if due && !self.owed.contains(&number) {
                self.owed.push(number);
            }
        }
        self.lose(range);
        for number in owed {
            if !self.owed.contains(&number) {
                self.lose_at(number..number + 1);
            }
        }
    }

    /// The session is gone with what was on its way.
    pub(super) fn session_over(&mut self) {
        for number in std::mem::take(&mut self.owed) {
            self.lose_at(number..number + 1);
        }
    }

    fn lose(&mut self, range: Range<u64>) {
        let range = range.start.max(self.settled)..range.end;
        if range.is_empty() {
            return;
        }
        self.end = self.end.max(range.end);
        let mut from = range.start;
        // Few: a handful of headers.
        let mut owed: Vec<u64> = self.owed.iter().copied().filter(|number| range.contains(number)).collect();
        owed.sort_unstable();
        for number in owed {
            self.lose_at(from..number);
            from = number + 1;
        }
        self.lose_at(from..range.end);
    }

    /// Adds the range; counts what of it is new.
    fn lose_at(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.lost_ranges.partition_point(|known| known.end < range.start);
        let mut joined = range.clone();
        let mut known = 0;
        while let Some(next) = self.lost_ranges.get(from).filter(|next| next.start <= range.end) {
            known += next.end.min(range.end).saturating_sub(next.start.max(range.start));
            joined = joined.start.min(next.start)..joined.end.max(next.end);
            self.lost_ranges.remove(from);
        }
        self.lost_ranges.insert(from, joined);
        self.lost += range.end - range.start - known;
    }

    /// A lost one has been delivered after all.
    fn find(&mut self, number: u64) -> bool {
        let at = self.lost_ranges.partition_point(|known| known.end <= number);
        let Some(range) = self.lost_ranges.get(at).filter(|range| range.contains(&number)).cloned() else {
            return false;
        };
        self.lost_ranges.remove(at);
        for part in [number + 1..range.end, range.start..number] {
            if !part.is_empty() {
                self.lost_ranges.insert(at, part);
            }
        }
        self.lost -= 1;
        true
    }

    fn take_owed(&mut self, number: u64) -> bool {
        let at = self.owed.iter().position(|owed| *owed == number);
        at.map(|at| self.owed.swap_remove(at)).is_some()
    }

    /// Nothing will refer to numbers below this one any more.
    pub(super) fn forget(&mut self, below: u64) {
        while self.lost_ranges.front().is_some_and(|range| range.end <= below) {
            self.lost_ranges.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ledger: &Ledger) -> (u64, u64, u64) {
        (ledger.delivered(), ledger.lost(), ledger.replayed())
    }

    #[test]
    fn what_is_passed_over_is_lost() {
        let mut ledger = Ledger::default();
        ledger.complete(0, 0);
        ledger.complete(3, 1);
        assert_eq!(counts(&ledger), (2, 2, 0));
        ledger.pass(4..10, [5, 99].into_iter());
        assert_eq!(counts(&ledger), (2, 7, 0));
        ledger.complete_injected(5);
        assert_eq!(counts(&ledger), (3, 7, 0));
        ledger.complete_injected(5);
        assert_eq!(counts(&ledger), (3, 7, 0));
    }

    #[test]
    fn a_later_session_repeats_and_finds() {
        let mut ledger = Ledger::default();
        ledger.complete(0, 0);
        ledger.complete(1, 1);
        ledger.pass(2..5, std::iter::empty());
        ledger.complete(5, 5);
        assert_eq!(counts(&ledger), (3, 3, 0));
        (1..7).for_each(|number| ledger.complete(number, number));
        assert_eq!(counts(&ledger), (7, 0, 2));
    }

    #[test]
    fn what_was_on_its_way_is_lost_with_its_session() {
        let mut ledger = Ledger::default();
        ledger.pass(0..4, [1, 2].into_iter());
        assert_eq!(counts(&ledger), (0, 2, 0));
        // A newer header takes the place of one of them.
        ledger.pass(4..6, [2, 5].into_iter());
        assert_eq!(counts(&ledger), (0, 4, 0));
        ledger.session_over();
        assert_eq!(counts(&ledger), (0, 6, 0));
    }

    #[test]
    fn what_is_settled_is_not_lost() {
        let mut ledger = Ledger::default();
        (0..10).for_each(|number| ledger.complete(number, number));
        ledger.settle(7);
        ledger.pass(4..10, std::iter::empty());
        assert_eq!(counts(&ledger), (7, 3, 0));
        ledger.pass(4..12, std::iter::empty());
        assert_eq!(counts(&ledger), (7, 5, 0));
    }
}
