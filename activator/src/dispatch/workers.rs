//! The registered workers, as `placing` sees them. In: their reports, and the offers made to them. Out: their load, and the streams that
//! each has. Pure.
//!
//! A worker is the authority on its load; a stream that it was offered and does not count yet holds a place all the same. Note: the
//! worker's count and our own overlap in an unknown part (streams that come through other activators are in the worker's count alone), so
//! the larger of the two is right, and their sum never is.
//!
//! Reports of workers cost memory and are shown to everybody: see [`KEPT_BYTES`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use liveedgecast_common::control::{
    Availability, InstanceKey, Load, Session, SessionCounters, SessionState, UpstreamReport,
};
use liveedgecast_common::key::Identity;

use super::messages::Key;
use super::rates::{KindRates, ReceivedRate};

/// Silence after which a worker is offered nothing. One that serves streams reports twice a second (architecture.md, "Workers dial in").
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(2);
/// Delay of a timer after which a worker's silence proves nothing: this process was stopped or starved, and reports of the worker may wait
/// unread. They have this long again to be read.
const LATE: Duration = Duration::from_millis(500);
/// Offers to one worker that were not fetched yet. Fetching takes about a millisecond, so this does not slow a crowd down, and it
/// bounds what is in the channel to the worker.
pub(crate) const MAX_OFFERS: usize = 64;

/// Sessions that a worker may have beyond its capacity: a stream whose publisher has come back is told under its new id before the old one
/// is told to have ended, and as many may come back at once as may be offered at once.
const TAKEOVERS: usize = MAX_OFFERS;
/// Bytes of all workers' sessions together, upstreams included, as long as upstreams are kept. A session with two upstreams takes some
/// 900 bytes, so this is 70,000 streams'. Beyond it, sessions are kept without upstreams, which are only shown.
const DETAILED_BYTES: usize = 64 << 20;
/// Bytes of all workers' sessions together. One without upstreams takes some 500 bytes, so this is half a million streams'. Beyond it,
/// sessions are not taken note of.
const KEPT_BYTES: usize = 256 << 20;

/// The greatest epoch that our own counting goes on from. A greater one that a peer reports counts for its own stream alone, so that no peer
/// can use our numbers up: from here there are as many left as above.
const LEARNED_EPOCH: u64 = 1 << 48;
/// The greatest epoch that an offer of the same stream goes on from. From here to
/// [`MAX_EPOCH`](liveedgecast_common::control::limits::MAX_EPOCH) there is room for all our own numbers, so a worker may report any epoch
/// that it was offered, whatever others have claimed.
pub(crate) const CLAIMED_EPOCH: u64 = 1 << 61;

/// The number of a worker's call on the control listener, from its Hello to its end. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// The Hello of a worker, with what its connection tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Introduction {
    /// Name, unique among the registered workers.
    pub name: String,
    /// Streams at most.
    pub capacity: u32,
    /// Word of the worker on whether it takes streams.
    pub availability: Availability,
    /// True if the worker shares our network namespace, so that sockets can be passed to it.
    pub same_host: bool,
    /// Streams that the worker serves.
    pub sessions: Vec<Session>,
    /// The worker takes lists of destinations.
    pub takes_lists: bool,
    /// The key by which the worker is known again.
    pub key: Option<InstanceKey>,
    /// Age of the worker's process, by its own word.
    pub age: Option<Duration>,
    /// The worker answers questions for excerpts.
    pub excerpts: bool,
}

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) capacity: u32,
    pub(crate) same_host: bool,
    /// It takes lists of destinations.
    pub(crate) takes_lists: bool,
    /// It answers questions for excerpts.
    pub(crate) excerpts: bool,
    /// The key by which it is known again.
    pub(super) key: Option<InstanceKey>,
    pub(crate) joined: Instant,
    /// Beginning of its process, by its own word.
    pub(crate) began: Option<Instant>,
    /// Number of streams by the worker's own count.
    told: u32,
    availability: Availability,
    /// The process fleet is about to stop it.
    retired: bool,
    /// It tells its counters here.
    tells: bool,
    heard: Instant,
    suspect: bool,
    /// The silence was noticed too late to mean anything.
    excused: bool,
    /// The worker is offered nothing before this time.
    avoid_until: Option<Instant>,
    pub(crate) sessions: BTreeMap<String, Session>,
    /// Bit rates of the sessions, by stream id.
    rates: BTreeMap<String, ReceivedRate>,
    /// Offered, taken or live streams of ours, by stream id.
    ours: BTreeMap<String, Key>,
    /// Number of `ours` that are not among `sessions`.
    uncounted: usize,
    /// Places among `ours` that are offered and not taken.
    pub(crate) offers: BTreeSet<Key>,
}

impl Worker {
    /// Streams that hold a place.
    pub(crate) fn streams(&self) -> usize {
        usize::try_from(self.told).unwrap_or(usize::MAX).max(self.sessions.len() + self.uncounted)
    }

    /// Bits per second that the worker receives of a stream.
    pub(crate) fn bits_per_second(&self, now: Instant, stream_id: &str) -> u64 {
        self.rates.get(stream_id).map_or(0, |rate| rate.bits_per_second(now))
    }

    /// Bits per second of video and audio that the worker receives of a stream.
    pub(crate) fn kind_rates(&self, now: Instant, stream_id: &str) -> KindRates {
        self.rates.get(stream_id).map_or(KindRates::default(), |rate| rate.of_kinds(now))
    }

    /// Tells whether the worker serves streams and is silent.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Tells whether the worker takes nothing more and gives back what it has.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.availability, Availability::Draining | Availability::Drained) || self.retired
    }

    /// Tells whether an operator wants the worker to give its streams to others; it goes on running.
    pub(crate) fn is_drained(&self) -> bool {
        self.availability == Availability::Drained && !self.retired
    }

    pub(crate) fn is_cordoned(&self) -> bool {
        self.availability.is_cordoned()
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.availability == Availability::Leaving
    }

    /// Tells whether the worker serves the stream, but no longer the upstream of this identity.
    pub(crate) fn has_without(&self, stream_id: &str, identity: &Identity) -> bool {
        self.sessions.get(stream_id).is_some_and(|session| !session.identities.contains(identity))
    }

    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        self.avoid_until.is_some_and(|until| now < until)
    }

    fn is_busy(&self) -> bool {
        self.told > 0 || !self.sessions.is_empty()
    }

    /// The time at which the worker is to be looked at again.
    fn due(&self) -> Option<Instant> {
        let silence = (self.is_busy() && !self.suspect).then(|| self.heard + SUSPECT_AFTER);
        silence.into_iter().chain(self.avoid_until).min()
    }
}

/// All registered workers.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    all: BTreeMap<CallId, Worker>,
    /// Calls and stream ids by identity, as the workers report them.
    identities: HashMap<Identity, BTreeSet<(CallId, String)>>,
    /// The greatest epoch any of them has told, up to [`LEARNED_EPOCH`].
    epoch: u64,
    /// Bytes that all sessions take.
    kept: usize,
    /// Number of changes of places and sessions.
    revision: u64,
}

impl Workers {
    pub(crate) fn get(&self, call: CallId) -> Option<&Worker> {
        self.all.get(&call)
    }

    /// The number of workers, and of those that tell their counters here.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.all.len(), self.all.values().filter(|worker| worker.tells).count())
    }

    /// Notes that a worker tells its counters here; false if that was known.
    pub(super) fn tells(&mut self, call: CallId) -> bool {
        self.all.get_mut(&call).is_some_and(|worker| !std::mem::replace(&mut worker.tells, true))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (CallId, &Worker)> {
        self.all.iter().map(|(call, worker)| (*call, worker))
    }

    pub(crate) fn named(&self, name: &str) -> Option<CallId> {
        self.all.iter().find(|(_, worker)| worker.name == name).map(|(call, _)| *call)
    }

    /// The greatest epoch told so far that counts for all streams.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Counts changes that others may want to see.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The greatest epoch told of a session with one of these identities.
    pub(crate) fn claimed(&self, identities: &[Identity]) -> u64 {
        let holders = identities.iter().filter_map(|identity| self.identities.get(identity)).flatten();
        let sessions = holders.filter_map(|(call, id)| self.all.get(call)?.sessions.get(id));
        sessions.map(|session| session.epoch).max().unwrap_or_default()
    }

    /// Adds a worker. Returns the number of its sessions that were left out.
    pub(crate) fn join(&mut self, now: Instant, call: CallId, introduction: Introduction) -> usize {
        let Introduction { name, capacity, availability, same_host, sessions, takes_lists, key, age, excerpts } =
            introduction;
        let worker = Worker {
            name,
            capacity,
            same_host,
            takes_lists,
            excerpts,
            key,
            joined: now,
            began: age.and_then(|age| now.checked_sub(age)),
            told: 0,
            availability,
            retired: false,
            tells: false,
            heard: now,
            suspect: false,
            excused: false,
            avoid_until: None,
            sessions: BTreeMap::new(),
            rates: BTreeMap::new(),
            ours: BTreeMap::new(),
            uncounted: 0,
            offers: BTreeSet::new(),
        };
        self.all.insert(call, worker);
        self.revision += 1;
        sessions.into_iter().filter(|session| !self.session(now, call, session.clone())).count()
    }

    /// Forgets a worker and gives the streams that were offered to it and not taken.
    pub(crate) fn leave(&mut self, call: CallId) -> BTreeSet<Key> {
        let Some(worker) = self.all.remove(&call) else { return BTreeSet::new() };
        self.revision += 1;
        for session in worker.sessions.values() {
            self.forget_identities(call, session);
            self.kept = self.kept.saturating_sub(weight(session));
        }
        worker.offers
    }

    /// Notes that the worker was heard.
    pub(crate) fn heard(&mut self, now: Instant, call: CallId) {
        if let Some(worker) = self.all.get_mut(&call) {
            self.revision += u64::from(worker.suspect);
            (worker.heard, worker.suspect, worker.excused) = (now, false, false);
        }
    }

    pub(crate) fn load(&mut self, call: CallId, load: &Load) {
        if let Some(worker) = self.all.get_mut(&call) {
            let told = (load.streams, load.capacity, load.availability);
            self.revision += u64::from((worker.told, worker.capacity, worker.availability) != told);
            (worker.told, worker.capacity, worker.availability) = told;
        }
    }

    pub(crate) fn drain(&mut self, call: CallId) {
        self.revision += 1;
        self.all.get_mut(&call).into_iter().for_each(|worker| worker.availability = Availability::Draining);
    }

    pub(crate) fn retire(&mut self, call: CallId) {
        self.revision += 1;
        self.all.get_mut(&call).into_iter().for_each(|worker| worker.retired = true);
    }

    pub(crate) fn avoid(&mut self, call: CallId, until: Instant) {
        self.revision += 1;
        self.all.get_mut(&call).into_iter().for_each(|worker| worker.avoid_until = Some(until));
    }

    /// Stores a session as it is now. False when it is left out, because there are too many.
    pub(crate) fn session(&mut self, now: Instant, call: CallId, mut session: Session) -> bool {
        let Some(worker) = self.all.get_mut(&call) else { return true };
        self.epoch = self.epoch.max(learned(session.epoch));
        let ended = session.state == SessionState::Ended;
        let known = worker.sessions.get(&session.stream_id);
        let most = usize::try_from(worker.capacity).unwrap_or(usize::MAX).saturating_add(TAKEOVERS);
        let others = self.kept.saturating_sub(known.map_or(0, weight));
        if !ended && others + weight(&session) > DETAILED_BYTES {
            session.upstreams = Vec::new();
        }
        let fits = worker.sessions.len() < most && others + weight(&session) <= KEPT_BYTES;
        if !ended && known.is_none() && !fits {
            return false;
        }
        self.kept = others + if ended { 0 } else { weight(&session) };
        let ours = worker.ours.contains_key(&session.stream_id);
        let id = session.stream_id.clone();
        if ended {
            worker.rates.remove(&id);
        } else {
            let (bytes, kinds) = (session.figures.bytes, session.figures.kinds);
            let rate = worker.rates.entry(id.clone()).or_insert_with(|| ReceivedRate::new(now, bytes, kinds));
            rate.note(now, bytes, kinds);
        }
        let identities = session.identities.clone();
        let last = if ended { worker.sessions.remove(&id) } else { worker.sessions.insert(id.clone(), session) };
        self.revision += u64::from(last.is_some() == ended);
        match (&last, ended) {
            (None, false) if ours => worker.uncounted -= 1,
            (Some(_), true) if ours => worker.uncounted += 1,
            _ => {}
        }
        last.iter().for_each(|last| self.forget_identities(call, last));
        if !ended {
            for identity in identities {
                self.identities.entry(identity).or_default().insert((call, id.clone()));
            }
        }
        true
    }

    /// Stores counters of sessions that are known.
    pub(crate) fn counted(&mut self, now: Instant, call: CallId, streams: &[SessionCounters]) {
        let Some(worker) = self.all.get_mut(&call) else { return };
        for counters in streams {
            if let Some(session) = worker.sessions.get_mut(&counters.stream_id) {
                counters.bring_up_to_date(session);
                if let Some(rate) = worker.rates.get_mut(&counters.stream_id) {
                    rate.note(now, counters.bytes, counters.kinds);
                }
            }
        }
    }

    fn forget_identities(&mut self, call: CallId, session: &Session) {
        for identity in &session.identities {
            if let Some(holders) = self.identities.get_mut(identity) {
                holders.remove(&(call, session.stream_id.clone()));
                if holders.is_empty() {
                    self.identities.remove(identity);
                }
            }
        }
    }

    /// The worker that has a session of one of these identities, other than of this stream itself.
    pub(crate) fn holder(&self, wanted: &[Identity], except: &str) -> Option<(CallId, &Session)> {
        let holders = wanted.iter().filter_map(|identity| self.identities.get(identity)).flatten();
        let (call, id) = holders.into_iter().find(|(_, id)| id != except)?;
        Some((*call, self.all.get(call)?.sessions.get(id)?))
    }

    /// The sessions with this identity.
    pub(crate) fn holders(&self, identity: &Identity) -> impl Iterator<Item = &Session> {
        let holders = self.identities.get(identity).into_iter().flatten();
        holders.filter_map(|(call, id)| self.all.get(call)?.sessions.get(id))
    }

    /// The workers that have a session of this stream.
    pub(crate) fn serving(&self, stream_id: &str) -> impl Iterator<Item = (CallId, &Worker, &Session)> {
        self.iter().filter_map(move |(call, worker)| Some((call, worker, worker.sessions.get(stream_id)?)))
    }

    /// Gives a place to a stream of ours.
    pub(crate) fn reserve(&mut self, call: CallId, id: &str, key: Key, offered: bool) {
        let Some(worker) = self.all.get_mut(&call) else { return };
        if worker.ours.insert(id.to_owned(), key).is_none() && !worker.sessions.contains_key(id) {
            worker.uncounted += 1;
        }
        if offered {
            worker.offers.insert(key);
        }
    }

    /// The stream was taken: it is no longer an offer.
    pub(crate) fn taken(&mut self, call: CallId, key: Key) {
        self.all.get_mut(&call).into_iter().for_each(|worker| {
            worker.offers.remove(&key);
        });
    }

    /// The stream is not this worker's any more, as far as we are concerned.
    pub(crate) fn release(&mut self, call: CallId, id: &str) {
        let Some(worker) = self.all.get_mut(&call) else { return };
        let Some(key) = worker.ours.remove(id) else { return };
        worker.offers.remove(&key);
        if !worker.sessions.contains_key(id) {
            worker.uncounted -= 1;
        }
    }

    /// Carries out everything that is due. Returns the workers that have become suspect.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<CallId> {
        let mut suspects = Vec::new();
        for (call, worker) in &mut self.all {
            if worker.avoid_until.is_some_and(|until| until <= now) {
                worker.avoid_until = None;
                self.revision += 1;
            }
            if worker.is_busy() && !worker.suspect && worker.heard + SUSPECT_AFTER + LATE <= now && !worker.excused {
                // The worker gets the same time from now on, though it would have less without our own absence.
                (worker.heard, worker.excused) = (now + LATE - SUSPECT_AFTER, true);
            }
            if worker.is_busy() && !worker.suspect && worker.heard + SUSPECT_AFTER <= now {
                worker.suspect = true;
                self.revision += 1;
                suspects.push(*call);
            }
        }
        suspects
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.all.values().filter_map(Worker::due).min()
    }
}

/// A told epoch, as far as our own counting goes on from it.
pub(crate) fn learned(told: u64) -> u64 {
    if told <= LEARNED_EPOCH { told } else { 0 }
}

/// Bytes that a session takes, about: its own, its texts, and its places in maps.
fn weight(session: &Session) -> usize {
    // An entry's share of a tree's node, and what the allocator adds.
    const ENTRY: usize = 64;
    let upstream =
        |up: &UpstreamReport| size_of::<UpstreamReport>() + ENTRY + up.host.len() + up.error.len() + up.fault.len();
    let identity = 2 * size_of::<Identity>() + ENTRY + session.stream_id.len();
    let rate = size_of::<ReceivedRate>() + ENTRY + session.stream_id.len();
    let own = size_of::<Session>() + 2 * ENTRY + 2 * session.stream_id.len() + session.app.len() + session.reason.len();
    let own = own + session.publisher.len();
    let own = own + rate + session.figures.media.video.len() + session.figures.media.audio.len();
    own + session.identities.len() * identity + session.upstreams.iter().map(upstream).sum::<usize>()
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
