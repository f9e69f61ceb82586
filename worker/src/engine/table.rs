//! The rules of the engine: the stream of each identity, the thread of a new stream, the sessions that change. Pure; the shell is `task`.
//!
//! In: claims on streams, reports of streams, ends of their tasks. Out: a [`Placing`], each session that has changed.
//!
//! ```text
//!                 place           reported Live         gone
//!  (identity free) ────▶ Starting ────────────▶ Live ─────────▶ (free)
//!                          │  ▲ place, own identity known: Attach ▲
//!                          │  └──── attached: same place, the new publisher's name
//!                          └──────────────────────────────────────┘
//!  (an upstream's identity is another stream's) ── Contend: that stream gives the upstream up, or the claim is refused
//! ```
//!
//! Note: a claim belongs to a stream by its own identity alone. A claim that shares nothing but an upstream is another stream: its media must
//! never leave in the session of the first one, under that one's key. A stream that is known goes on with the upstreams that it
//! has, so a claim on it contends for none. A stream's goodbye and the end of its task are two messages: only the second frees its
//! slot, and where the first is missing the task died.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::control::{Session, SessionState};
use liveedgecast_common::handoff::Decline;
use liveedgecast_common::key::{Identity, StreamId};

/// Attachments that one stream has not decided yet, at most: activators offer one stream once, several only after they lost
/// each other. More are declined.
pub const MAX_UNDECIDED: usize = 4;

/// The slot of one stream, from its start to the end of its task. No number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSlot(pub u64);

/// A claim on a stream: an activator offers it.
#[derive(Clone, Debug)]
pub struct StreamClaim {
    /// Id of the stream, which is that of this stay of its publisher.
    pub stream_id: StreamId,
    /// Number of the claim.
    pub epoch: u64,
    /// The application's name, without its query.
    pub app: String,
    /// The stream's own identity, then those of its upstreams.
    pub identities: Vec<Identity>,
}

/// The place of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// A new stream, on this thread.
    Start {
        /// Slot of the stream.
        slot: StreamSlot,
        /// Thread of the stream.
        thread: usize,
    },
    /// The stream that has the claim's own identity decides.
    Attach {
        /// Slot of the stream.
        slot: StreamSlot,
        /// Thread of the stream.
        thread: usize,
    },
    /// Another stream has an upstream that the claim wants too. That stream is asked to give it up; after its answer the claim is placed again,
    /// or refused.
    Contend {
        /// Slot of the stream.
        slot: StreamSlot,
        /// Thread of the stream.
        thread: usize,
    },
    /// The claim is declined.
    Decline(Decline),
}

/// The way in which a stream's task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// The stream had reported its end.
    Ended,
    /// The task panicked.
    Died,
}

/// The change that a report brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionChange {
    /// Slot of the stream.
    pub slot: StreamSlot,
    /// More than counters has changed.
    pub loud: bool,
    /// Duration of the start, if it has just ended.
    pub took: Option<Duration>,
}

#[derive(Debug)]
struct ServedStream {
    thread: usize,
    session: Arc<Session>,
    undecided: Vec<StreamClaim>,
    /// Streams that wait for an upstream of this one.
    contenders: Vec<StreamId>,
    placed: Instant,
    started: bool,
    ended: bool,
}

/// See the picture above.
#[derive(Debug)]
pub struct Table {
    capacity: usize,
    /// Streams per thread.
    threads: Vec<usize>,
    places: BTreeMap<StreamSlot, ServedStream>,
    identities: HashMap<Identity, StreamSlot>,
    names: HashMap<StreamId, StreamSlot>,
    /// Places whose sessions have not ended.
    served: usize,
    /// Sessions that have changed since they were taken, in order. The shell takes them after every step.
    changed: Vec<Arc<Session>>,
    next: u64,
    draining: bool,
}

impl Table {
    /// Creates a table without streams.
    #[must_use]
    pub fn new(capacity: usize, threads: usize) -> Self {
        Self {
            capacity,
            threads: vec![0; threads.max(1)],
            places: BTreeMap::new(),
            identities: HashMap::new(),
            names: HashMap::new(),
            served: 0,
            changed: Vec::new(),
            next: 0,
            draining: false,
        }
    }

    /// Streams whose tasks run.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.places.len()
    }

    /// Streams whose sessions have not ended.
    #[must_use]
    pub fn served(&self) -> usize {
        self.served
    }

    /// The session of a stream, as it is now.
    #[must_use]
    pub fn session(&self, slot: StreamSlot) -> Option<&Session> {
        self.places.get(&slot).map(|place| &*place.session)
    }

    /// The sessions that have changed since the last call, in order. A stream whose task has ended has the state `Ended`, and so does a name
    /// that a stream no longer has.
    pub fn take_changed(&mut self) -> impl Iterator<Item = Arc<Session>> {
        self.changed.drain(..)
    }

    /// Declines every claim from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Places a claim, and notes it where it is taken. The activator's `dispatch/placing.rs` decides where a stream goes; this is a worker's
    /// veto, by the sessions that it has.
    pub fn place(&mut self, now: Instant, claim: StreamClaim) -> Placing {
        if self.draining {
            return Placing::Decline(Decline::Draining);
        }
        if let Some(slot) = self.known(&claim) {
            return self.attach(slot, claim);
        }
        // Before the capacity: a publisher that is one too many at an upstream must be refused as such.
        if let Some(slot) = self.contended(&claim) {
            return self.contend(slot, claim.stream_id);
        }
        if self.places.len() >= self.capacity {
            return Placing::Decline(Decline::Full);
        }
        self.next += 1;
        let slot = StreamSlot(self.next);
        let thread = self.idlest();
        self.threads[thread] += 1;
        self.names.insert(claim.stream_id.clone(), slot);
        for identity in &claim.identities {
            self.identities.entry(*identity).or_insert(slot);
        }
        let session = Arc::new(Session {
            stream_id: claim.stream_id.0,
            identities: claim.identities,
            state: SessionState::Starting,
            epoch: claim.epoch,
            app: claim.app,
            ..Session::default()
        });
        self.changed.push(Arc::clone(&session));
        self.served += 1;
        let place = ServedStream {
            thread,
            session,
            undecided: Vec::new(),
            contenders: Vec::new(),
            placed: now,
            started: false,
            ended: false,
        };
        self.places.insert(slot, place);
        Placing::Start { slot, thread }
    }

    /// The stream that a claim belongs to: that of the same stay, or of the claim's own identity.
    fn known(&self, claim: &StreamClaim) -> Option<StreamSlot> {
        let by_name = || self.names.get(&claim.stream_id).copied();
        let undecided = || self.undecided(&claim.stream_id).map(|(slot, _)| slot);
        let by_identity = || claim.identities.first().and_then(|own| self.identities.get(own)).copied();
        by_name().or_else(undecided).or_else(by_identity)
    }

    /// The stream that has an upstream which a new one wants. Of several, it is the one least likely to give it up: if that were asked last,
    /// the others would have given theirs up for nothing.
    fn contended(&self, claim: &StreamClaim) -> Option<StreamSlot> {
        let holders = claim.identities.iter().skip(1).filter_map(|identity| self.identities.get(identity)).copied();
        let waits =
            |slot: &StreamSlot| self.places.get(slot).is_some_and(|place| place.session.state == SessionState::Grace);
        holders.min_by_key(waits)
    }

    fn contend(&mut self, slot: StreamSlot, stream_id: StreamId) -> Placing {
        let Some(place) = self.places.get_mut(&slot) else { return Placing::Decline(Decline::Other) };
        if place.contenders.len() >= MAX_UNDECIDED {
            return Placing::Decline(Decline::Other);
        }
        let thread = place.thread;
        place.contenders.push(stream_id);
        Placing::Contend { slot, thread }
    }

    /// Notes a stream's answer to a contender: it no longer has the upstreams of these identities.
    pub fn answered(&mut self, slot: StreamSlot, contender: &StreamId, given_up: &[Identity]) {
        let Some(place) = self.places.get_mut(&slot) else { return };
        let waiting = place.contenders.iter().position(|waiting| waiting == contender);
        waiting.into_iter().for_each(|at| drop(place.contenders.remove(at)));
        if given_up.is_empty() {
            return;
        }
        let before = Arc::clone(&place.session);
        Arc::make_mut(&mut place.session).identities.retain(|identity| !given_up.contains(identity));
        self.changed.push(Arc::clone(&place.session));
        self.claim_identities(slot, &before.identities);
    }

    /// The slot of the stream that has not decided about this claim yet, and the claim's number there.
    fn undecided(&self, stream_id: &StreamId) -> Option<(StreamSlot, usize)> {
        let waits = |place: &ServedStream| place.undecided.iter().position(|claim| claim.stream_id == *stream_id);
        self.places.iter().find_map(|(slot, place)| waits(place).map(|at| (*slot, at)))
    }

    fn attach(&mut self, slot: StreamSlot, claim: StreamClaim) -> Placing {
        let Some(place) = self.places.get_mut(&slot) else { return Placing::Decline(Decline::Other) };
        if place.undecided.len() >= MAX_UNDECIDED {
            return Placing::Decline(Decline::Other);
        }
        let thread = place.thread;
        place.undecided.push(claim);
        Placing::Attach { slot, thread }
    }

    /// The thread with the fewest streams; of equals the first, so that one stream starts one thread.
    fn idlest(&self) -> usize {
        let threads = self.threads.iter().enumerate();
        threads.min_by_key(|(_, streams)| **streams).map(|(thread, _)| thread).unwrap_or_default()
    }

    /// Notes a stream's report; `None`: no stream has this id.
    pub fn reported(&mut self, now: Instant, mut session: Session) -> Option<SessionChange> {
        let slot = *self.names.get(session.stream_id.as_str())?;
        let place = self.places.get_mut(&slot)?;
        let starts = session.state == SessionState::Live && !place.started;
        place.started |= starts;
        let took = starts.then(|| now.saturating_duration_since(place.placed));
        // A stream need not repeat its identities.
        let renamed = !session.identities.is_empty() && session.identities != place.session.identities;
        if session.identities.is_empty() {
            session.identities.clone_from(&place.session.identities);
        }
        let loud = place.session.differs_beyond_counters(&session);
        if loud || *place.session != session {
            self.served -= usize::from(is_served(&place.session));
            self.served += usize::from(is_served(&session));
            let before = std::mem::replace(&mut place.session, Arc::new(session));
            self.changed.push(Arc::clone(&place.session));
            if renamed {
                self.claim_identities(slot, &before.identities);
            }
        }
        Some(SessionChange { slot, loud, took })
    }

    /// Notes a stream's decision about a claim that was attached to it.
    pub fn decided(&mut self, stream_id: &StreamId, accepted: bool) {
        let Some((slot, at)) = self.undecided(stream_id) else { return };
        let Some(place) = self.places.get_mut(&slot) else { return };
        let claim = place.undecided.remove(at);
        if !accepted {
            return;
        }
        let before = Arc::clone(&place.session);
        // The identities stay: it is the same stream, with the upstreams that it has.
        let session = Arc::make_mut(&mut place.session);
        session.stream_id.clone_from(&claim.stream_id.0);
        (session.epoch, session.app) = (claim.epoch, claim.app);
        self.changed.push(Arc::clone(&place.session));
        self.names.remove(before.stream_id.as_str());
        if before.stream_id != claim.stream_id.0 {
            self.changed.push(Arc::new(Session { state: SessionState::Ended, ..Session::clone(&before) }));
        }
        self.names.insert(claim.stream_id, slot);
    }

    /// Gives the stream the identities that its session lists and no other stream has, in place of those that it had `before`.
    fn claim_identities(&mut self, slot: StreamSlot, before: &[Identity]) {
        self.forget_identities(slot, before);
        for identity in self.places.get(&slot).into_iter().flat_map(|place| &place.session.identities) {
            self.identities.entry(*identity).or_insert(slot);
        }
    }

    fn forget_identities(&mut self, slot: StreamSlot, identities: &[Identity]) {
        for identity in identities {
            if self.identities.get(identity) == Some(&slot) {
                self.identities.remove(identity);
            }
        }
    }

    /// Notes that a stream has reported its end; its task will end soon.
    pub fn ended(&mut self, stream_id: &StreamId) {
        if let Some(place) = self.names.get(stream_id).and_then(|slot| self.places.get_mut(slot)) {
            place.ended = true;
        }
    }

    /// Notes that a stream's task has ended; `None`: that was known.
    pub fn gone(&mut self, slot: StreamSlot) -> Option<(StreamId, TaskEnd)> {
        let place = self.places.remove(&slot)?;
        self.threads[place.thread] = self.threads[place.thread].saturating_sub(1);
        self.names.remove(place.session.stream_id.as_str());
        self.forget_identities(slot, &place.session.identities);
        let gone = if place.ended { TaskEnd::Ended } else { TaskEnd::Died };
        self.served -= usize::from(is_served(&place.session));
        let mut session = place.session;
        let last = Arc::make_mut(&mut session);
        last.state = SessionState::Ended;
        if gone == TaskEnd::Died {
            last.reason = "its task died".to_owned();
        }
        let stream_id = StreamId(last.stream_id.clone());
        self.changed.push(session);
        Some((stream_id, gone))
    }

    /// Slot and thread of the stream that has this id.
    #[must_use]
    pub fn find(&self, stream_id: &StreamId) -> Option<(StreamSlot, usize)> {
        let slot = *self.names.get(stream_id)?;
        self.places.get(&slot).map(|place| (slot, place.thread))
    }
}

/// Returns whether a session has not ended.
pub(super) fn is_served(session: &Session) -> bool {
    session.state != SessionState::Ended
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
