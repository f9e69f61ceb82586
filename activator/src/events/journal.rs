//! The newest events, in a bounded buffer. In: facts with their times. Out: the events after a number, or how many of them are gone. Pure. Next:
//! `task`, which has the clock and wakes the readers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use super::fact::Fact;
use super::notice::{EventNotice, NoticeId};

/// Events that are kept. A thousand streams with two destinations that all start at once are 3000; at some 300 bytes each this is 1.2 MiB,
/// which is taken only when there are as many events.
pub(super) const KEPT: usize = 4096;

/// The buffer.
#[derive(Debug)]
pub(super) struct Journal {
    process: u64,
    most: usize,
    /// Number of the first event in `kept`.
    first: u64,
    kept: VecDeque<Arc<EventNotice>>,
}

/// The answer to a reader.
#[derive(Clone, Debug)]
pub(super) enum JournalEntry {
    /// The next event.
    Next(Arc<EventNotice>),
    /// The events before this number are gone; there were so many.
    Missed {
        /// The number of the next event that there is.
        next: u64,
        /// The number of events that are gone.
        missed: u64,
    },
    /// There is none yet.
    End,
}

impl Journal {
    /// An empty buffer. `process`: a number that no other process has.
    pub(super) fn new(process: u64, most: usize) -> Self {
        Self { process, most: most.max(1), first: 1, kept: VecDeque::new() }
    }

    /// Adds an event; the oldest one makes room. Returns the number of the event that is gone.
    pub(super) fn push(&mut self, at: SystemTime, fact: Fact) -> Option<u64> {
        let gone = (self.kept.len() >= self.most).then(|| {
            self.kept.pop_front();
            self.first += 1;
            self.first - 1
        });
        let notice = EventNotice { process: self.process, number: self.next(), at, fact };
        self.kept.push_back(Arc::new(notice));
        gone
    }

    /// The number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// The number of the first event for a reader that has the one of this id; `None` if that is not an event of this process.
    pub(super) fn after(&self, last: NoticeId) -> Option<u64> {
        (last.process == self.process && last.number < self.next()).then_some(last.number + 1)
    }

    /// The number of the oldest event that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The event of this number, if there is one.
    pub(super) fn read(&self, number: u64) -> JournalEntry {
        if number < self.first {
            return JournalEntry::Missed { next: self.first, missed: self.first - number };
        }
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        self.kept.get(at).map_or(JournalEntry::End, |notice| JournalEntry::Next(Arc::clone(notice)))
    }

    /// An event of the buffer itself, which tells of a gap before the event of number `next`. Whoever has it has everything before that one.
    pub(super) fn gap(&self, at: SystemTime, next: u64, missed: Option<u64>) -> EventNotice {
        EventNotice { process: self.process, number: next.saturating_sub(1), at, fact: Fact::EventsMissed { missed } }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn oldest_events_make_room_and_readers_learn_how_many_are_gone() {
        let mut journal = Journal::new(9, 3);
        assert!(matches!(journal.read(1), JournalEntry::End));
        let gone: Vec<_> =
            (0..5).map(|_| journal.push(UNIX_EPOCH, Fact::FileReloaded { setting: "PUBLISH_KEYS_FILE" })).collect();
        assert_eq!(gone, [None, None, None, Some(1), Some(2)]);
        assert!(matches!(journal.read(1), JournalEntry::Missed { next: 3, missed: 2 }));
        let read = |number| match journal.read(number) {
            JournalEntry::Next(notice) => notice.number,
            _ => 0,
        };
        assert_eq!([3, 4, 5, 6].map(read), [3, 4, 5, 0]);
        let id = |process, number| NoticeId { process, number };
        assert_eq!(journal.after(id(9, 4)), Some(5));
        assert_eq!(journal.after(id(9, 5)), Some(6), "nothing was missed");
        assert_eq!(journal.after(id(9, 1)), Some(2), "which is gone");
        assert_eq!((journal.after(id(9, 6)), journal.after(id(8, 4))), (None, None), "of another process");
        assert_eq!(journal.gap(UNIX_EPOCH, 3, Some(2)).id(), "0000000000000009-2");
    }
}
