//! The shell of events: the clock, the locks, the readers that wait. In: facts and inputs of the chronicle, from every room. Out: to each reader the
//! events after those that it has. Next: `subscription`.
//!
//! There are locks, because facts come from wherever they are learned, places given back in `Drop` among them; each is held for one step and
//! never across an await.
#![expect(clippy::disallowed_methods, reason = "shell: both clocks")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use liveedgecast_common::clock::now;
use liveedgecast_common::key::Identity;
use liveedgecast_common::random;
use tokio::sync::watch;

use super::fact::{Fact, StreamLabel};
use super::journal::{Journal, JournalEntry, KEPT};
use super::machine::{Chronicle, Input};
use super::notice::{EventNotice, NoticeId};

/// The events of this process. One handle for all rooms, cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<SharedEvents>);

struct SharedEvents {
    chronicle: Mutex<Chronicle>,
    journal: Mutex<Journal>,
    /// The number of the next event, or `None` when there will be none.
    next: watch::Sender<Option<u64>>,
}

impl Default for Events {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl Events {
    /// Events of which the newest `most` are kept.
    pub(super) fn keeping(most: usize) -> Self {
        let journal = Journal::new(u64::from_be_bytes(random::bytes()), most);
        let next = watch::channel(Some(journal.next())).0;
        Self(Arc::new(SharedEvents { chronicle: Mutex::default(), journal: Mutex::new(journal), next }))
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<impl Sized> {
        &self.0
    }

    /// Tells a fact.
    pub fn tell(&self, fact: Fact) {
        self.tell_all([fact]);
    }

    /// Notes something from which events may follow.
    pub(crate) fn note(&self, input: Input<'_>) {
        let facts: Vec<Fact> = {
            let mut chronicle = lock(&self.0.chronicle);
            chronicle.handle(now(), input);
            std::iter::from_fn(|| chronicle.poll_output()).collect()
        };
        if !facts.is_empty() {
            self.tell_all(facts);
        }
    }

    /// Notes a publisher that gets a place. The guard is to be dropped after the place.
    #[must_use]
    pub fn entered(&self, label: StreamLabel, identity: Option<Identity>, destinations: Vec<String>) -> StreamEvents {
        let stream = label.stream.clone();
        self.note(Input::Entered(label, identity, destinations));
        StreamEvents { events: self.clone(), stream }
    }

    /// A reader of the events that follow the one with the id `last`; without an id, of those from now on.
    #[must_use]
    pub fn reader(&self, last: Option<&str>) -> EventReader {
        let journal = lock(&self.0.journal);
        let (at, unknown) = match last {
            None => (journal.next(), false),
            Some(text) => match NoticeId::parse(text).and_then(|id| journal.after(id)) {
                Some(next) => (next, false),
                None => (journal.first(), true),
            },
        };
        drop(journal);
        EventReader { events: self.clone(), at, unknown, next: self.0.next.subscribe() }
    }

    /// Lets readers end when they have read everything.
    pub fn end(&self) {
        self.0.next.send_replace(None);
    }

    fn tell_all(&self, facts: impl IntoIterator<Item = Fact>) {
        let at = SystemTime::now();
        let mut journal = lock(&self.0.journal);
        for fact in facts {
            journal.push(at, fact);
        }
        let next = journal.next();
        drop(journal);
        self.0.next.send_if_modified(|known| match known {
            Some(known) => std::mem::replace(known, next.max(*known)) < next,
            None => false,
        });
    }
}

/// A publisher that has a place here. Dropping it notes that the publisher has given the place back.
pub struct StreamEvents {
    events: Events,
    stream: String,
}

impl Drop for StreamEvents {
    fn drop(&mut self) {
        self.events.note(Input::Left(&self.stream));
    }
}

/// One reader of events, with its place among them.
pub struct EventReader {
    events: Events,
    /// The number of the event to read.
    at: u64,
    /// The reader has an event that is not of this process.
    unknown: bool,
    next: watch::Receiver<Option<u64>>,
}

/// The next event of a reader.
#[derive(Clone, Debug)]
pub enum Heard {
    /// An event.
    Event(Arc<EventNotice>),
    /// Events before the next one are not kept any more: an event that tells so.
    Gap(Arc<EventNotice>),
}

impl EventReader {
    /// The next event; `None` when there will be none. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            // What follows a look at the buffer is seen by the wait.
            let ended = self.next.borrow_and_update().is_none();
            if let Some(heard) = self.read() {
                return Some(heard);
            }
            if ended || self.next.changed().await.is_err() {
                return None;
            }
        }
    }

    fn read(&mut self) -> Option<Heard> {
        let journal = lock(&self.events.0.journal);
        if std::mem::take(&mut self.unknown) {
            return Some(Heard::Gap(Arc::new(journal.gap(SystemTime::now(), self.at, None))));
        }
        match journal.read(self.at) {
            JournalEntry::Next(notice) => {
                self.at += 1;
                Some(Heard::Event(notice))
            }
            JournalEntry::Missed { next, missed } => {
                self.at = next;
                Some(Heard::Gap(Arc::new(journal.gap(SystemTime::now(), next, Some(missed)))))
            }
            JournalEntry::End => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reloaded(events: &Events) {
        events.tell(Fact::FileReloaded { setting: "PUBLISH_KEYS_FILE" });
    }

    async fn heard(reader: &mut EventReader) -> (bool, String) {
        match reader.next().await {
            Some(Heard::Event(notice)) => (true, notice.id()),
            Some(Heard::Gap(notice)) => (false, notice.id()),
            None => (false, String::new()),
        }
    }

    #[tokio::test]
    async fn reader_goes_on_after_the_last_event_that_it_has_and_learns_of_gaps() {
        let events = Events::keeping(3);
        let mut reader = events.reader(None);
        (0..2).for_each(|_| reloaded(&events));
        let (first, second) = (heard(&mut reader).await, heard(&mut reader).await);
        assert!(first.0 && second.0);
        let mut resumed = events.reader(Some(&first.1));
        assert_eq!(heard(&mut resumed).await, second);
        (0..4).for_each(|_| reloaded(&events));
        let gap = heard(&mut resumed).await;
        assert!(!gap.0, "one event is gone");
        assert_eq!(heard(&mut events.reader(Some(&gap.1))).await, heard(&mut resumed).await, "a gap has an id, too");
        // An id of another process: a gap, and everything that there is.
        let mut stranger = events.reader(Some("0000000000000001-9"));
        assert!(!heard(&mut stranger).await.0);
        for _ in 0..3 {
            assert!(heard(&mut stranger).await.0);
        }
        events.end();
        assert!(heard(&mut reader).await.1.ends_with("-3"), "what was told before the end is read");
        while reader.next().await.is_some() {}
        assert!(stranger.next().await.is_none());
    }
}
