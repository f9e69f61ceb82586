//! The shell of events: the clock, the locks, the readers that wait. In: facts and inputs of the chronicle, from every room. Out: to each reader the
//! events after those that it has. Next: `subscription`.
//!
//! There are locks, because facts come from wherever they are learned, places given back in `Drop` among them; each is held for one step and
//! never across an await.
#![expect(clippy::disallowed_methods, reason = "shell: both clocks")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use liveedgecast_common::clock::now;
use liveedgecast_common::key::Identity;
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::{event, random};
use tokio::sync::watch;

use super::delivery_rules::DropCause;
use super::fact::{Fact, StreamLabel};
use super::journal::{Journal, JournalEntry, KEPT};
use super::machine::{Chronicle, Input};
use super::metrics::EventMetrics;
use super::notice::{EventNotice, NoticeId};

/// The events of this process. One handle for all rooms, cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<SharedEvents>);

struct SharedEvents {
    chronicle: Mutex<Chronicle>,
    journal: Mutex<Journal>,
    /// The number of the next event, or `None` when there will be none.
    next: watch::Sender<Option<u64>>,
    /// The number of the first event that was not delivered by HTTP; [`NO_DELIVERY`] if none is to be.
    undelivered: AtomicU64,
    metrics: EventMetrics,
}

/// Events are not delivered by HTTP.
const NO_DELIVERY: u64 = u64::MAX;

/// Limits the lines about events that are dropped because the receiver is away or slow; a metric counts them.
static DROPPED: LogLimiter = LogLimiter::new(Duration::from_secs(10));

#[cfg(test)]
impl Default for Events {
    fn default() -> Self {
        Self::new(EventMetrics::unregistered())
    }
}

impl Events {
    /// No events yet.
    #[must_use]
    pub fn new(metrics: EventMetrics) -> Self {
        Self::keeping(KEPT, metrics)
    }

    /// Events of which the newest `most` are kept.
    pub(super) fn keeping(most: usize, metrics: EventMetrics) -> Self {
        let journal = Journal::new(u64::from_be_bytes(random::bytes()), most);
        let next = watch::channel(Some(journal.next())).0;
        Self(Arc::new(SharedEvents {
            chronicle: Mutex::default(),
            journal: Mutex::new(journal),
            next,
            undelivered: AtomicU64::new(NO_DELIVERY),
            metrics,
        }))
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

    /// The reader of the events from now on that are delivered by HTTP: those that leave the buffer before they were are dropped and counted.
    pub(super) fn delivery_reader(&self) -> EventReader {
        let reader = self.reader(None);
        self.0.undelivered.store(reader.at, Ordering::Relaxed);
        reader
    }

    /// The events before this number are delivered, on their way, or given up.
    pub(super) fn taken_for_delivery(&self, before: u64) {
        self.0.undelivered.fetch_max(before, Ordering::Relaxed);
        self.measure();
    }

    /// Counts events that are not delivered.
    pub(super) fn dropped(&self, cause: DropCause, events: u64) {
        self.0.metrics.dropped.with_label_values(&[cause.as_str()]).inc_by(events);
        if events > 0 && DROPPED.is_due(now()) {
            tracing::warn!(event = event::EVENTS_DROPPED, events, why = cause.as_str(), "events not delivered");
        }
    }

    /// Nothing is delivered any more; what waits is dropped, and so is what follows.
    pub(super) fn stop_delivery(&self, cause: DropCause) {
        let waiting = self.waiting();
        self.0.undelivered.store(NO_DELIVERY, Ordering::Relaxed);
        self.dropped(cause, waiting);
        self.0.metrics.waiting.set(0);
    }

    /// Events that wait for their delivery by HTTP.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        lock(&self.0.journal).next().saturating_sub(self.0.undelivered.load(Ordering::Relaxed))
    }

    pub(super) fn metrics(&self) -> &EventMetrics {
        &self.0.metrics
    }

    fn measure(&self) {
        self.0.metrics.waiting.set(i64::try_from(self.waiting()).unwrap_or(i64::MAX));
    }

    /// Lets readers end when they have read everything.
    pub fn end(&self) {
        self.0.next.send_replace(None);
    }

    fn tell_all(&self, facts: impl IntoIterator<Item = Fact>) {
        let at = SystemTime::now();
        let mut journal = lock(&self.0.journal);
        let mut gone = None;
        for fact in facts {
            gone = journal.push(at, fact).or(gone);
        }
        let next = journal.next();
        drop(journal);
        // Events that were not delivered in time.
        if let Some(gone) = gone {
            let before = self.0.undelivered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |undelivered| {
                (undelivered <= gone).then_some(gone + 1)
            });
            before.into_iter().for_each(|before| self.dropped(DropCause::Full, gone + 1 - before));
        }
        self.measure();
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
    /// The number of the event to read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The number behind the newest event that is kept now.
    pub(super) fn end_of_kept(&self) -> u64 {
        lock(&self.events.0.journal).next()
    }

    /// True if all events before this number have been read, or are known to be missed.
    pub(super) fn has_reached(&self, end: u64) -> bool {
        !self.unknown && self.at >= end
    }

    /// True when there will be no more events than those that are in the buffer.
    pub(super) fn is_ended(&self) -> bool {
        self.next.borrow().is_none()
    }

    /// Returns when that is so. Cancel safe.
    pub(super) async fn ended(&mut self) {
        while !self.is_ended() && self.next.changed().await.is_ok() {}
    }

    /// The next event; `None` when there will be none. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            // The wait sees every event behind the look at the buffer.
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
        let events = Events::keeping(3, EventMetrics::unregistered());
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

    #[tokio::test]
    async fn events_that_leave_the_buffer_before_they_were_delivered_are_dropped_and_counted() {
        let events = Events::keeping(3, EventMetrics::unregistered());
        let dropped = |cause: DropCause| events.metrics().dropped.with_label_values(&[cause.as_str()]).get();
        (0..5).for_each(|_| reloaded(&events));
        assert_eq!((dropped(DropCause::Full), events.waiting()), (0, 0), "nothing is delivered");
        let mut reader = events.delivery_reader();
        (0..3).for_each(|_| reloaded(&events));
        assert_eq!((dropped(DropCause::Full), events.waiting()), (0, 3));
        assert!(heard(&mut reader).await.0);
        events.taken_for_delivery(reader.at());
        (0..2).for_each(|_| reloaded(&events));
        assert_eq!((dropped(DropCause::Full), events.waiting()), (1, 3), "the one that was read is on its way");
        let gap = heard(&mut reader).await;
        assert!(!gap.0, "one that was never read");
        assert!(heard(&mut reader).await.0);
        events.taken_for_delivery(reader.at());
        assert_eq!((dropped(DropCause::Full), events.waiting(), events.metrics().waiting.get()), (1, 2, 2));
        events.stop_delivery(DropCause::Gone);
        (0..9).for_each(|_| reloaded(&events));
        assert_eq!((dropped(DropCause::Full), dropped(DropCause::Gone), events.waiting()), (1, 2, 0));
    }
}
