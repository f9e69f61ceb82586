//! The fate of each message on the way to one upstream: delivered, lost or repeated. Numbers of messages come in, counts go out.
//!
//! Note: nothing is final before the peer has acknowledged it. A message that was skipped to catch up can be delivered by the
//! next session, which begins at an earlier keyframe; one that was written can be lost with its session.

use std::collections::VecDeque;
use std::ops::Range;

use liveedgecast_common::sys::prefetch_behind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// Delivered by a replay after it had been lost for good; not acknowledged yet.
    Found,
    Lost,
    /// Passed over, but on its way all the same: a header put in front of a keyframe, or a message saved from a ring. `again`: an earlier
    /// session has written it too.
    Owed {
        again: bool,
    },
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Fates of the numbers from `base` on: a byte each, and only for messages whose fate may still change.
    fates: VecDeque<Fate>,
    base: u64,
    /// The fate of every number below is final.
    settled: u64,
    owed: u64,
    lost: u64,
    replayed: u64,
    /// Messages from before the upstream was the stream's.
    before: u64,
}

impl Ledger {
    /// Leaves out every message below: the upstream joins a stream that runs. No message has a fate yet.
    pub(super) fn begin_at(&mut self, number: u64) {
        debug_assert!(self.fates.is_empty() && self.lost == 0);
        (self.base, self.settled, self.before) = (number, number, number);
    }

    /// Lets the processor fetch the place that the next message will be noted in.
    pub(super) fn prefetch_behind(&self) {
        self.fates.back().map(prefetch_behind);
    }

    /// The first message that the upstream could have been sent.
    pub(super) fn first(&self) -> u64 {
        self.before
    }

    /// The first number that has no fate yet.
    fn end(&self) -> u64 {
        self.base + self.fates.len() as u64
    }

    /// Messages delivered, each counted once.
    pub(super) fn delivered(&self) -> u64 {
        self.end() - self.before - self.lost - self.owed
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns whether a session has written this message; `false` also for one that is forgotten.
    pub(super) fn has_delivered(&self, number: u64) -> bool {
        matches!(self.fate(number), Some(Fate::Delivered | Fate::Found))
    }

    /// Messages written again in a later session.
    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }

    /// The first number that a new session should deliver.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Notes that every message below was acknowledged, or lost for good.
    pub(super) fn settle(&mut self, below: u64) {
        self.settled = self.settled.max(below);
    }

    /// Notes that the session has written this message, and passes over those from `passed` on.
    pub(super) fn complete(&mut self, number: u64, passed: u64) {
        self.pass(passed..number, std::iter::empty());
        let fate = match self.fate(number) {
            Some(Fate::Lost | Fate::Found) if number < self.settled => Fate::Found,
            _ => Fate::Delivered,
        };
        if let Some(Fate::Delivered | Fate::Found | Fate::Owed { again: true }) = self.set(number, fate) {
            self.replayed += 1;
        }
    }

    /// Notes that the peer has a message, or that it was lost with the session.
    pub(super) fn confirm(&mut self, number: u64, delivered: bool) {
        if self.fate(number) == Some(Fate::Found) {
            self.set(number, if delivered { Fate::Delivered } else { Fate::Lost });
        }
    }

    /// Notes that the session has written a header in front of a keyframe. That is no repetition: every session begins with headers.
    pub(super) fn complete_injected(&mut self, number: u64) {
        if number >= self.base {
            self.set(number, Fate::Delivered);
        }
    }

    /// Passes over these numbers: they are lost, except those that are still to come and those that are settled.
    pub(super) fn pass(&mut self, range: Range<u64>, still_to_come: impl Iterator<Item = u64> + Clone) {
        for number in range.start.max(self.settled).max(self.base)..range.end {
            let fate = match self.fate(number) {
                _ if !still_to_come.clone().any(|coming| coming == number) => Fate::Lost,
                Some(Fate::Delivered | Fate::Found) => Fate::Owed { again: true },
                Some(owed @ Fate::Owed { .. }) => owed,
                Some(Fate::Lost) | None => Fate::Owed { again: false },
            };
            self.set(number, fate);
        }
    }

    /// Notes that the session is lost, with every message that was on its way.
    pub(super) fn session_over(&mut self) {
        self.only_still_to_come(std::iter::empty());
    }

    /// Counts as lost every message on its way that is not among these.
    pub(super) fn only_still_to_come(&mut self, still_to_come: impl Iterator<Item = u64> + Clone) {
        for number in self.base..self.end() {
            if self.owed == 0 {
                return;
            }
            let owed = matches!(self.fate(number), Some(Fate::Owed { .. }));
            if owed && !still_to_come.clone().any(|coming| coming == number) {
                self.set(number, Fate::Lost);
            }
        }
    }

    /// Forgets the numbers below, which no call will name any more, except those that are on their way.
    pub(super) fn forget(&mut self, below: u64) {
        while self.base < below && self.fates.front().is_some_and(|fate| !matches!(fate, Fate::Owed { .. })) {
            self.fates.pop_front();
            self.base += 1;
        }
    }

    fn fate(&self, number: u64) -> Option<Fate> {
        self.fates.get(usize::try_from(number.checked_sub(self.base)?).ok()?).copied()
    }

    /// Sets a fate and returns the one before. Numbers come in order: those between the end and this one were passed over.
    fn set(&mut self, number: u64, fate: Fate) -> Option<Fate> {
        let before = self.fate(number);
        while self.end() <= number {
            self.fates.push_back(fate);
        }
        let at = number.checked_sub(self.base)? as usize;
        self.fates[at] = fate;
        match before {
            Some(Fate::Lost) => self.lost -= 1,
            Some(Fate::Owed { .. }) => self.owed -= 1,
            Some(Fate::Delivered | Fate::Found) | None => {}
        }
        match fate {
            Fate::Lost => self.lost += 1,
            Fate::Owed { .. } => self.owed += 1,
            Fate::Delivered | Fate::Found => {}
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ledger: &Ledger) -> (u64, u64, u64) {
        (ledger.delivered(), ledger.lost(), ledger.replayed())
    }

    #[test]
    fn passed_messages_are_lost_unless_they_still_come() {
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
    fn later_session_repeats_delivered_and_finds_lost_messages() {
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
    fn messages_on_their_way_are_lost_with_their_session() {
        let mut ledger = Ledger::default();
        ledger.pass(0..4, [1, 2].into_iter());
        assert_eq!(counts(&ledger), (0, 2, 0));
        // A newer header takes the place of one of them.
        ledger.pass(4..6, [2, 5].into_iter());
        ledger.only_still_to_come([2, 5].into_iter());
        assert_eq!(counts(&ledger), (0, 4, 0));
        ledger.forget(5);
        ledger.session_over();
        assert_eq!(counts(&ledger), (0, 6, 0));
    }

    #[test]
    fn messages_before_the_beginning_do_not_count() {
        let mut ledger = Ledger::default();
        ledger.begin_at(100);
        ledger.complete_injected(3);
        (100..104).for_each(|number| ledger.complete(number, number));
        ledger.pass(104..106, std::iter::empty());
        assert_eq!((counts(&ledger), ledger.settled()), ((4, 2, 0), 100));
    }

    #[test]
    fn settled_messages_are_not_lost() {
        let mut ledger = Ledger::default();
        (0..10).for_each(|number| ledger.complete(number, number));
        ledger.settle(7);
        ledger.pass(4..10, std::iter::empty());
        assert_eq!(counts(&ledger), (7, 3, 0));
        ledger.pass(4..12, std::iter::empty());
        assert_eq!(counts(&ledger), (7, 5, 0));
        ledger.forget(12);
        assert_eq!(counts(&ledger), (7, 5, 0));
    }

    #[test]
    fn message_half_written_in_a_replay_counts_as_repeated_once_it_is_whole() {
        let mut ledger = Ledger::default();
        (0..4).for_each(|number| ledger.complete(number, number));
        ledger.pass(2..8, [2].into_iter());
        assert_eq!(counts(&ledger), (2, 5, 0));
        ledger.complete(2, 8);
        assert_eq!(counts(&ledger), (3, 5, 1));
    }
}
