//! The rules of the engine: who has which stream, where a new one goes, what is told of them. Pure; the shell is `task`.
//!
//! In: claims on streams, what streams report, that a stream's task is gone. Out: a [`Placing`], the list of sessions.
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
//! Note: only its own identity makes a claim a stream's. One that shares nothing but an upstream is another stream: its media must
//! never leave in the session of the first one, under that one's key. A stream that is known goes on with the upstreams that it
//! has, so a claim on it contends for none. A stream's goodbye and the end of its task are two messages: only the second frees the
//! place, and where the first is missing the task died. And who looks at the list now and then would miss why a stream ended,
//! so its last word stays on the list for a while.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use liveedgecast_common::control::{Session, SessionState};
use liveedgecast_common::handoff::Decline;
use liveedgecast_common::key::{Identity, StreamId};

/// Attachments that one stream has not decided yet, at most: activators offer one stream once, several only after they lost
/// each other. More are declined.
pub const MAX_UNDECIDED: usize = 4;

/// How long the last word of a stream stays on the list: whoever tells it on looks at every list that he is shown, within
/// milliseconds.
pub const LAST_WORD: Duration = Duration::from_secs(1);

/// The place of one stream, from its start to the end of its task. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSlot(pub u64);

/// What somebody wants to bring.
#[derive(Clone, Debug)]
pub struct StreamClaim {
    /// This stay of the publisher.
    pub stream_id: StreamId,
    /// The number of the claim.
    pub epoch: u64,
    /// The application's name, without its query.
    pub app: String,
    /// The stream's own identity, then those of its upstreams.
    pub identities: Vec<Identity>,
}

/// Where a claim goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// A new stream, on this thread.
    Start {
        /// Its place.
        slot: StreamSlot,
        /// Its thread.
        thread: usize,
    },
    /// To the stream that has the claim's own identity; it decides.
    Attach {
        /// Its place.
        slot: StreamSlot,
        /// Its thread.
        thread: usize,
    },
    /// This stream has an upstream that the claim wants too. It is asked to give it up, and the claim is placed again, or refused.
    Contend {
        /// Its place.
        slot: StreamSlot,
        /// Its thread.
        thread: usize,
    },
    /// Not here.
    Decline(Decline),
}

/// How a stream's task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// After it had said so.
    Ended,
    /// Without a word: it panicked.
    Died,
}

/// What a report brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionChange {
    /// Whose it is.
    pub slot: StreamSlot,
    /// More than counters has changed.
    pub loud: bool,
    /// How long the start took, if it has just ended.
    pub took: Option<Duration>,
}

#[derive(Debug)]
struct ServedStream {
    thread: usize,
    session: Session,
    undecided: Vec<StreamClaim>,
    /// Streams that wait for one of its upstreams.
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
    /// Last words, the oldest first, with the time that they are forgotten. No more than the capacity.
    last_words: VecDeque<(Instant, Session)>,
    next: u64,
    draining: bool,
}

impl Table {
    /// Nothing served yet.
    #[must_use]
    pub fn new(capacity: usize, threads: usize) -> Self {
        Self {
            capacity,
            threads: vec![0; threads.max(1)],
            places: BTreeMap::new(),
            identities: HashMap::new(),
            names: HashMap::new(),
            last_words: VecDeque::new(),
            next: 0,
            draining: false,
        }
    }

    /// Streams whose tasks run.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.places.len()
    }

    /// What is served, and with the state `Ended` what was a moment ago.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        let served = self.places.values().map(|place| &place.session);
        served.chain(self.last_words.iter().map(|(_, session)| session)).cloned().collect()
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.last_words.front().map(|(until, _)| *until)
    }

    /// Forgets last words.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.poll_timeout().is_some_and(|until| until <= now) {
            self.last_words.pop_front();
        }
    }

    /// From now on nothing more is taken.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Judges a claim and, where it is taken, notes it.
    pub fn place(&mut self, now: Instant, claim: StreamClaim) -> Placing {
        if self.draining {
            return Placing::Decline(Decline::Draining);
        }
        if let Some(slot) = self.known(&claim) {
            return self.attach(slot, claim);
        }
        // Before the capacity: a publisher that is one too many at an upstream is to hear so.
        if let Some(slot) = self.contended(&claim) {
            return self.contend(slot, claim.stream_id);
        }
        if self.places.len() >= self.capacity {
            return Placing::Decline(Decline::Full);
        }
        self.last_words.retain(|(_, session)| session.stream_id != claim.stream_id.0);
        self.next += 1;
        let slot = StreamSlot(self.next);
        let thread = self.idlest();
        self.threads[thread] += 1;
        self.names.insert(claim.stream_id.clone(), slot);
        for identity in &claim.identities {
            self.identities.entry(*identity).or_insert(slot);
        }
        let session = Session {
            stream_id: claim.stream_id.0,
            identities: claim.identities,
            state: SessionState::Starting,
            epoch: claim.epoch,
            app: claim.app,
            ..Session::default()
        };
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

    /// The stream that a claim belongs to: the one of this very stay, or of its own identity.
    fn known(&self, claim: &StreamClaim) -> Option<StreamSlot> {
        let by_name = || self.names.get(&claim.stream_id).copied();
        let undecided = || self.undecided(&claim.stream_id).map(|(slot, _)| slot);
        let by_identity = || claim.identities.first().and_then(|own| self.identities.get(own)).copied();
        by_name().or_else(undecided).or_else(by_identity)
    }

    /// The stream that has an upstream which a new one wants. Of several, the one that is the least likely to give it up: were that one
    /// asked last, the others would have given theirs up for nothing.
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

    /// A stream has answered a contender, and has nothing to do any more with the upstreams of these identities.
    pub fn answered(&mut self, slot: StreamSlot, contender: &StreamId, given_up: &[Identity]) {
        let Some(place) = self.places.get_mut(&slot) else { return };
        let waiting = place.contenders.iter().position(|waiting| waiting == contender);
        waiting.into_iter().for_each(|at| drop(place.contenders.remove(at)));
        if given_up.is_empty() {
            return;
        }
        let kept = place.session.identities.iter().filter(|identity| !given_up.contains(identity)).copied().collect();
        self.rename(slot, kept);
    }

    /// Which stream has not decided about this one yet, and its number there.
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

    /// A stream said what it is doing; `None` if nobody knows it.
    pub fn reported(&mut self, now: Instant, mut session: Session) -> Option<SessionChange> {
        let slot = *self.names.get(&StreamId(session.stream_id.clone()))?;
        let place = self.places.get_mut(&slot)?;
        let starts = session.state == SessionState::Live && !place.started;
        place.started |= starts;
        let took = starts.then(|| now.saturating_duration_since(place.placed));
        // A stream need not repeat its identities.
        let identities = std::mem::replace(&mut session.identities, place.session.identities.clone());
        let loud = place.session.without_counters() != session.without_counters();
        place.session = session;
        if !identities.is_empty() && identities != place.session.identities {
            self.rename(slot, identities);
        }
        Some(SessionChange { slot, loud, took })
    }

    /// A stream decided on a claim that was attached to it.
    pub fn decided(&mut self, stream_id: &StreamId, accepted: bool) {
        let Some((slot, at)) = self.undecided(stream_id) else { return };
        let Some(place) = self.places.get_mut(&slot) else { return };
        let claim = place.undecided.remove(at);
        if !accepted {
            return;
        }
        let before = std::mem::replace(&mut place.session.stream_id, claim.stream_id.0.clone());
        (place.session.epoch, place.session.app) = (claim.epoch, claim.app);
        // The identities stay what they are: it is the same stream, with the upstreams that it has.
        self.last_words.retain(|(_, session)| session.stream_id != claim.stream_id.0);
        self.names.remove(&StreamId(before));
        self.names.insert(claim.stream_id, slot);
    }

    fn rename(&mut self, slot: StreamSlot, identities: Vec<Identity>) {
        self.forget_identities(slot);
        for identity in &identities {
            self.identities.entry(*identity).or_insert(slot);
        }
        if let Some(place) = self.places.get_mut(&slot) {
            place.session.identities = identities;
        }
    }

    fn forget_identities(&mut self, slot: StreamSlot) {
        self.identities.retain(|_, holder| *holder != slot);
    }

    /// A stream said goodbye; its task will be gone soon.
    pub fn ended(&mut self, stream_id: &StreamId) {
        if let Some(place) = self.names.get(stream_id).and_then(|slot| self.places.get_mut(slot)) {
            place.ended = true;
        }
    }

    /// A stream's task is gone; `None` if that was known.
    pub fn gone(&mut self, now: Instant, slot: StreamSlot) -> Option<(StreamId, TaskEnd)> {
        let place = self.places.remove(&slot)?;
        self.threads[place.thread] = self.threads[place.thread].saturating_sub(1);
        self.names.retain(|_, holder| *holder != slot);
        self.forget_identities(slot);
        let gone = if place.ended { TaskEnd::Ended } else { TaskEnd::Died };
        let mut session = place.session;
        session.state = SessionState::Ended;
        if gone == TaskEnd::Died {
            session.reason = "its task died".to_owned();
        }
        let stream_id = StreamId(session.stream_id.clone());
        self.last_words.push_back((now + LAST_WORD, session));
        if self.last_words.len() > self.capacity {
            self.last_words.pop_front();
        }
        Some((stream_id, gone))
    }

    /// Which stream has this name.
    #[must_use]
    pub fn find(&self, stream_id: &StreamId) -> Option<(StreamSlot, usize)> {
        let slot = *self.names.get(stream_id)?;
        self.places.get(&slot).map(|place| (slot, place.thread))
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
