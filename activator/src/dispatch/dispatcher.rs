//! The states of the publishers that have a place, and the changes from one to the next.
//!
//! In: publishers that come, go and answer, messages of workers, time. Out: decisions for publishers' tasks and workers, to `lobby`. The
//! inputs and outputs are in `messages`; `placing` decides which worker gets a stream; `news` and `view` show the state to others.
//!
//! ```text
//!            enter              matched               Accepted            started
//!  publisher ─────▶ Waiting ───────────────▶ Offered ──────────▶ Starting ───────▶ Live
//!                    ▲    ▲                     │                    │               │
//!                    │    └─ declined, expired, ┘                    │               │
//!                    │       withdrawn, unreachable                  │               │
//!                    └────── died, moving, declined ─────────────────┴───────────────┘
//!  any ─▶ gone   left, refused
//! ```
//! A stream that a worker loses waits at the front. If nothing but the connection to the worker broke, the stream goes back to that
//! worker, which keeps the upstream sessions for a while; if the stream has to go to another worker, the first is told to end them.
//!
//! Note: of two publishers with one identity the worker that serves one decides (it knows whether the old one is silent), so the second is
//! offered to it whatever its load. A worker that declines everything is not asked again at once, or two such workers would pass a
//! publisher back and forth.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use liveedgecast_common::control::{DeclineReason, Declined, Session, SessionState, WorkerMessage};
use liveedgecast_common::key::Identity;

use super::credit::DepartedWorkers;
use super::elsewhere::{Others, Ourselves};
use super::kept_changes::KeptChanges;
use super::messages::{Input, Key, Output, Rules, Started};
use super::phases::ColdStartPhases;
use super::placing::Owner;
use super::pods::PodBook;
use super::publisher_totals::PublisherTotals;
use super::worker_seconds::WorkerSeconds;
use super::workers::{CallId, Introduction, Workers, learned};
use super::{Back, Entry, OfferOutcome, PlaceRefusal};

/// An offer that was not fetched within this is withdrawn: fetching takes milliseconds, and the publisher's client waits.
pub(super) const OFFER_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before the next offer to a worker that did not fetch, or reported that it is full.
const AVOID_WORKER: Duration = Duration::from_secs(1);
/// Pause before a stream is offered again to a worker that did not take or keep it.
const AVOID_FOR_STREAM: Duration = Duration::from_secs(1);
/// Time without an answer after which a held publisher gives way to a second one of the same identity. A held publisher is pinged every 5 s,
/// so the last answer of a living one may be 5 s old; 2 s are added for a slow network. (A worker waits 5 s, as its publisher sends media.)
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(7);

#[derive(Clone, Debug)]
pub(super) enum State {
    Waiting,
    Offered { call: CallId, epoch: u64, until: Instant },
    Starting { call: CallId, epoch: u64 },
    Live { call: CallId, epoch: u64 },
}

impl State {
    pub(super) fn on(&self) -> Option<(CallId, u64)> {
        match *self {
            Self::Waiting => None,
            Self::Offered { call, epoch, .. } | Self::Starting { call, epoch } | Self::Live { call, epoch } => {
                Some((call, epoch))
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Live { .. })
    }
}

/// A publisher that has a place, with its state in the picture above.
#[derive(Debug)]
pub(super) struct PublisherRecord {
    pub(super) entry: Entry,
    pub(super) state: State,
    /// The stream waits at the front, because a worker lost it.
    pub(super) front: bool,
    /// The stream was live: a drain does not let it go.
    pub(super) was_live: bool,
    /// The newest offer was by descriptor.
    pub(super) by_descriptor: bool,
    /// The worker of the newest offer takes lists of destinations.
    pub(super) takes_lists: bool,
    pub(super) heard: Instant,
    /// The publisher's connection has ended; the rest of its stream waits for a worker.
    pub(super) gone: bool,
    /// Workers that did not take or keep the stream, and the end of the time in which they are not asked again.
    pub(super) avoid: BTreeMap<CallId, Instant>,
    pub(super) entered: Instant,
    /// KEDA was told of the demand while the publisher waited.
    pub(super) pushed: Option<Instant>,
    /// The start, if a worker had to come up for it and the first media have not been told.
    pub(super) cold: Option<Started>,
    /// The time at which the publisher was told to start.
    live_since: Option<Instant>,
    /// The call whose worker reported bytes last, and how many.
    pub(super) counted: Option<(CallId, u64)>,
    pub(super) taken: Option<Instant>,
    /// The newest worker that took the stream, with its name: it may be gone by the time that another one does.
    pub(super) taken_by: Option<(CallId, String)>,
    /// The newest worker did not give the stream back: it died, or its connection broke.
    pub(super) fault: bool,
    /// The time at which the newest worker took the stream.
    pub(super) taken_last: Instant,
    /// The stream with the same identity that the worker of the newest offer had.
    pub(super) returns_to: Option<String>,
    /// The time at which this publisher is refused, if an earlier one still waits at another activator then.
    pub(super) yields_at: Option<Instant>,
    /// The publisher is lost, and may come back within this time.
    pub(super) lost_for: Option<Duration>,
    /// The calls of the workers that were offered the stream, each with the number of its newest offer.
    pub(super) offered_to: BTreeMap<CallId, u64>,
    pub(super) timer: Option<Instant>,
}

/// The machine of the picture above.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(super) rules: Rules,
    pub(super) places: BTreeMap<Key, PublisherRecord>,
    pub(super) next_key: Key,
    pub(super) epoch: u64,
    /// Places that wait for any worker; those at the front first.
    pub(super) queue: BTreeSet<(bool, Key)>,
    /// Places that wait for one certain worker.
    pub(super) bound: BTreeSet<Key>,
    pub(super) by_id: HashMap<String, Key>,
    pub(super) by_identity: HashMap<Identity, BTreeSet<Key>>,
    pub(super) timers: BTreeSet<(Instant, Key)>,
    pub(super) workers: Workers,
    /// Workers that died with streams of ours, until they take one again.
    lost_workers: BTreeSet<CallId>,
    pub(super) fleet_full: bool,
    pub(super) draining: bool,
    pub(super) closing: bool,
    pub(super) ourselves: Option<Ourselves>,
    pub(super) others: Others,
    pub(super) kept_changes: KeptChanges,
    pub(super) departed: DepartedWorkers,
    /// Worker-seconds, once they are counted.
    pub(super) seconds: Option<WorkerSeconds>,
    pub(super) publisher_totals: PublisherTotals,
    pods: PodBook,
    /// The end of the time in which workers are believed.
    pub(super) trusting_until: Option<Instant>,
    pub(super) revision: u64,
    pub(super) outputs: VecDeque<Output>,
}

impl Dispatcher {
    /// A dispatcher without publishers and workers.
    pub(crate) fn new(rules: Rules) -> Self {
        let publisher_totals = PublisherTotals::new(rules.names_publishers);
        Self {
            rules,
            places: BTreeMap::new(),
            next_key: 0,
            epoch: 0,
            queue: BTreeSet::new(),
            bound: BTreeSet::new(),
            by_id: HashMap::new(),
            by_identity: HashMap::new(),
            timers: BTreeSet::new(),
            workers: Workers::default(),
            lost_workers: BTreeSet::new(),
            fleet_full: false,
            draining: false,
            closing: false,
            ourselves: None,
            others: Others::default(),
            kept_changes: KeptChanges::default(),
            departed: DepartedWorkers::default(),
            seconds: None,
            publisher_totals,
            pods: PodBook::default(),
            trusting_until: None,
            revision: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Gives a publisher a place; drain [`Self::poll_output`] afterwards.
    pub(crate) fn enter(&mut self, now: Instant, mut entry: Entry) -> Key {
        self.inherit_changes(now, &mut entry);
        self.next_key += 1;
        let key = self.next_key;
        self.by_id.insert(entry.stream_id.0.clone(), key);
        for identity in &entry.identities {
            self.by_identity.entry(*identity).or_default().insert(key);
        }
        // No worker could take it; without this it would wait until the hold is spent.
        let unmovable = entry.way_to(true).is_none();
        let held = PublisherRecord {
            entry,
            state: State::Waiting,
            front: false,
            was_live: false,
            by_descriptor: false,
            takes_lists: false,
            heard: now,
            gone: false,
            avoid: BTreeMap::new(),
            entered: now,
            pushed: None,
            cold: None,
            live_since: None,
            counted: None,
            taken: None,
            taken_by: None,
            fault: false,
            taken_last: now,
            returns_to: None,
            yields_at: None,
            lost_for: None,
            offered_to: BTreeMap::new(),
            timer: None,
        };
        held.entry.listed_name().into_iter().for_each(|name| self.publisher_totals.add(name, 0));
        self.places.insert(key, held);
        if self.draining {
            self.refuse(key, PlaceRefusal::Draining);
        } else if unmovable {
            self.refuse(key, PlaceRefusal::Unmovable);
        } else if self.wait(now, key) {
            // The places ahead could not be matched before this one came, and it changes nothing for them.
            self.match_one(now, key);
        }
        key
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        self.begin(now);
        match input {
            Input::Left(key) => {
                self.note_failed_start(key);
                self.keep_changes(now, key);
                self.forget(key);
                self.fill(now);
            }
            Input::PublisherLost(key, grace) => {
                self.places.get_mut(&key).into_iter().for_each(|held| held.lost_for = Some(grace));
            }
            // Publishers answer often, and nothing else follows.
            Input::Heard(key) => self.places.get_mut(&key).into_iter().for_each(|held| held.heard = now),
            Input::Gone(key) => self.places.get_mut(&key).into_iter().for_each(|held| held.gone = true),
            Input::Taken(key, epoch) => self.taken(now, key, epoch),
            Input::Started(key) => self.started(now, key),
            Input::Back(key, epoch, why) => self.back(now, key, epoch, why),
            Input::Joined(call, introduction) => self.joined(now, call, introduction),
            Input::Said(call, message) => self.said(now, call, message),
            Input::Lost(call) => self.lost(now, call),
            Input::Retire(name) => {
                let call = self.workers.named(&name);
                call.into_iter().for_each(|call| self.workers.retire(call));
            }
            Input::FleetFull(full) => self.fleet_full = full,
            Input::Ourselves(ourselves) => self.ourselves = Some(ourselves),
            Input::Elsewhere(peer, number, held) => {
                self.epoch = self.epoch.max(held.as_ref().map_or(0, |held| learned(held.epoch)));
                let named = held.as_ref().map(|held| (held.worker.clone(), held.stream.id.clone()));
                let affected = self.others.set(&peer, number, held);
                self.look_again(now, &affected);
                named.into_iter().for_each(|(worker, stream_id)| self.vouch(now, &worker, &stream_id));
            }
            Input::ForgetPeer(peer) => {
                let affected = self.others.forget(&peer);
                self.look_again(now, &affected);
            }
            Input::Pushed(app) => self.pushed(now, app.as_deref()),
            Input::Pod(news) => self.pods.note(now, news),
            Input::Tells(call) => self.tells(now, call),
            Input::Counts(counter) => self.counts_baseline(now, counter),
            Input::Changed => self.revision += 1,
            Input::Drain => self.drain(),
            Input::Close => self.close(),
        }
    }

    /// Carries out everything that is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for call in self.workers.handle_timeout(now) {
            let name = self.workers.get(call).map(|worker| worker.name.clone());
            self.outputs.extend(name.map(Output::Suspect));
        }
        while let Some((at, key)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, key));
            self.place_due(now, key);
        }
        self.fill(now);
    }

    /// The time at which [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at).into_iter().chain(self.workers.poll_timeout()).min()
    }

    /// The next decision.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells whether a worker of this name is registered.
    pub(crate) fn is_joined(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// The name of the worker with this call.
    pub(crate) fn name_of(&self, call: CallId) -> Option<&str> {
        self.workers.get(call).map(|worker| worker.name.as_str())
    }

    /// The call of the worker of this name.
    pub(crate) fn named(&self, name: &str) -> Option<CallId> {
        self.workers.named(name)
    }

    /// The names of the workers that are not silent, and whether each serves streams.
    pub(crate) fn busy(&self) -> impl Iterator<Item = (&str, bool)> {
        let heard = self.workers.iter().filter(|(_, worker)| !worker.is_suspect());
        heard.map(|(_, worker)| (worker.name.as_str(), worker.streams() > 0))
    }

    /// Ends a stream; false when neither a publisher here nor a worker has it.
    pub(crate) fn kick(&mut self, stream_id: &str, reason: &str) -> bool {
        if let Some(key) = self.by_id.get(stream_id) {
            self.outputs.push_back(Output::Kicked(*key, reason.to_owned()));
            return true;
        }
        let holder = self.workers.iter().find(|(_, worker)| worker.sessions.contains_key(stream_id));
        let Some((call, _)) = holder else { return false };
        self.outputs.push_back(Output::KickOnWorker(call, stream_id.to_owned(), reason.to_owned()));
        true
    }

    fn taken(&mut self, now: Instant, key: Key, epoch: u64) {
        let Some(held) = self.places.get_mut(&key) else { return };
        let State::Offered { call, epoch: offered, .. } = held.state else { return };
        if offered != epoch {
            return;
        }
        held.state = State::Starting { call, epoch };
        self.revision += 1;
        held.taken.get_or_insert(now);
        held.taken_last = now;
        let to = self.workers.get(call).map(|worker| worker.name.clone()).unwrap_or_default();
        let before = held.taken_by.replace((call, to.clone()));
        let fault = std::mem::take(&mut held.fault);
        if let Some((_, from)) = before.filter(|(before, _)| *before != call) {
            let stream_id = held.entry.stream_id.0.clone();
            self.outputs.push_back(Output::TakenOver { stream_id, from, to, fault });
        }
        self.workers.taken(call, key);
        self.lost_workers.remove(&call);
        self.outputs.push_back(Output::Outcome(OfferOutcome::Accepted));
        self.arm(key);
        self.fill(now);
    }

    fn started(&mut self, now: Instant, key: Key) {
        let Some(held) = self.places.get_mut(&key) else { return };
        let State::Starting { call, epoch } = held.state else { return };
        held.state = State::Live { call, epoch };
        let first = !std::mem::replace(&mut held.was_live, true);
        held.live_since.get_or_insert(now);
        if let Some(worker) = self.workers.get(call).filter(|_| first) {
            self.outputs.push_back(Output::Started(Box::new(Started {
                stream_id: held.entry.stream_id.0.clone(),
                worker: worker.name.clone(),
                connected: held.entry.connected,
                entered: held.entered,
                pushed: held.pushed,
                joined: worker.joined,
                began: worker.began,
                taken: held.taken.unwrap_or(now),
                started: now,
                process: None,
                pod: self.pods.times(&worker.name),
                returns_to: held.returns_to.clone(),
            })));
        }
    }

    /// Reports a failed start: the publisher leaves, and the worker that took its stream has not told it to start.
    fn note_failed_start(&mut self, key: Key) {
        let Some(held) = self.places.get(&key).filter(|held| !held.was_live) else { return };
        let State::Starting { call, .. } = held.state else { return };
        let worker = self.workers.get(call).map(|worker| worker.name.clone()).unwrap_or_default();
        let (stream_id, entered) = (held.entry.stream_id.0.clone(), held.entered);
        self.outputs.push_back(Output::NeverStarted { stream_id, worker, entered });
    }

    fn back(&mut self, now: Instant, key: Key, epoch: u64, why: Back) {
        let Some(held) = self.places.get_mut(&key) else { return };
        let Some((call, _)) = held.state.on().filter(|(_, current)| *current == epoch) else { return };
        let taken = held.state.is_taken();
        let brief = now < held.taken_last + AVOID_FOR_STREAM;
        if taken {
            held.fault = matches!(why, Back::Died | Back::Broken);
            held.front = true;
            // The publisher was alive a moment ago: its worker read from it.
            held.heard = now;
        } else {
            self.outputs.push_back(Output::Outcome(match why {
                Back::Declined => OfferOutcome::Declined,
                Back::Unreachable | Back::Died | Back::Broken => OfferOutcome::Unreachable,
                Back::Moving => OfferOutcome::Withdrawn,
            }));
        }
        let died = (taken && why == Back::Died).then(|| held.taken_by.as_ref().map(|(_, name)| name.clone()));
        if held.was_live {
            held.entry.deadline = held.entry.deadline.max(now + held.entry.hold);
        }
        if why == Back::Moving {
            self.workers.drain(call);
        }
        if let Some(worker) = died.flatten() {
            self.note_lost_worker(call, worker);
        }
        // A connection that breaks at once every time is as good as a worker that does not take the stream.
        if why != Back::Broken || brief {
            self.avoid_for_stream(now, key, call);
        }
        self.wait(now, key);
        self.fill(now);
    }

    /// Reports a worker that died, once, with the number of its streams that are ours: each of them comes back by itself.
    fn note_lost_worker(&mut self, call: CallId, worker: String) {
        if !self.lost_workers.insert(call) {
            return;
        }
        let calls: Vec<CallId> = self.places.values().filter_map(|held| held.state.on()).map(|(on, _)| on).collect();
        self.lost_workers.retain(|lost| calls.contains(lost) || self.workers.get(*lost).is_some());
        let streams = calls.iter().filter(|on| **on == call).count();
        self.outputs.push_back(Output::WorkerLost(worker, streams));
    }

    fn joined(&mut self, now: Instant, call: CallId, mut introduction: Introduction) {
        self.recognise(now, call, &mut introduction);
        let told: Vec<_> = introduction.sessions.clone();
        let name = introduction.name.clone();
        let excess = self.workers.join(now, call, introduction);
        self.count_workers(now);
        self.outputs.extend((excess > 0).then_some(Output::Excess(name, excess)));
        told.iter().for_each(|session| self.adopt(now, call, session));
        self.fill(now);
    }

    fn said(&mut self, now: Instant, call: CallId, message: WorkerMessage) {
        if self.workers.get(call).is_none() {
            return;
        }
        self.workers.heard(now, call);
        match message {
            // The shell has taken the first for Joined; the others are of metrics and of those who ask for excerpts.
            WorkerMessage::Hello(_) | WorkerMessage::Totals(_) | WorkerMessage::Excerpt(_) => {}
            WorkerMessage::Load(load) => self.workers.load(call, &load),
            WorkerMessage::Goodbye => self.workers.drain(call),
            WorkerMessage::Session(session) => self.session(now, call, &session),
            WorkerMessage::Counters(streams) => {
                self.workers.counted(now, call, &streams);
                streams.iter().for_each(|counters| self.note_bytes(call, &counters.stream_id, counters.bytes));
            }
            WorkerMessage::Declined(declined) => self.declined(now, call, &declined),
        }
        self.fill(now);
    }

    fn session(&mut self, now: Instant, call: CallId, session: &Session) {
        let Some(name) = self.workers.get(call).map(|worker| worker.name.clone()) else { return };
        match self.credited(now, call, session) {
            None => self.disbelieve(call, name, session),
            Some(session) if self.workers.session(now, call, session.clone()) => self.adopt(now, call, &session),
            Some(_) => self.outputs.push_back(Output::Excess(name, 1)),
        }
    }

    /// Takes a reported session into account: it may be a stream of ours whose worker has dialed in again, and it binds publishers that wait with its identity.
    pub(super) fn adopt(&mut self, now: Instant, call: CallId, session: &Session) {
        self.note_media(call, session);
        self.note_bytes(call, &session.stream_id, session.figures.bytes);
        let ended = session.state == SessionState::Ended;
        if !ended {
            self.note_lost_upstreams(session);
        } else if !session.identities.is_empty() {
            self.kept_changes.ended(&session.stream_id);
        }
        if let Some(key) = self.by_id.get(&session.stream_id).copied().filter(|_| !ended)
            && let Some(held) = self.places.get_mut(&key)
            && let State::Starting { call: on, epoch } | State::Live { call: on, epoch } = &mut held.state
            && *epoch == session.epoch
            && held.offered_to.get(&call) == Some(epoch)
            && *on != call
        {
            self.workers.release(*on, &session.stream_id);
            *on = call;
            self.revision += 1;
            self.workers.reserve(call, &session.stream_id, key, false);
        }
        let newer =
            |held: &PublisherRecord| held.state.on().filter(|(on, epoch)| *on != call && session.epoch < *epoch);
        let held = self.by_id.get(&session.stream_id).and_then(|key| self.places.get(key)).filter(|_| !ended);
        if let Some((_, epoch)) = held.and_then(newer) {
            self.outputs.push_back(Output::Fence(call, session.stream_id.clone(), epoch));
        }
        let same = session.identities.iter().filter_map(|identity| self.by_identity.get(identity));
        let waiting: BTreeSet<Key> = same.flatten().copied().collect();
        for key in waiting {
            if self.places.get(&key).is_some_and(|held| held.state.is_waiting()) {
                self.match_one(now, key);
            }
        }
    }

    /// A stream of ours has lost an upstream to another stream: from here on it does not claim that one, wherever it goes. Otherwise one of
    /// two live streams would have to go as soon as both of them wait.
    fn note_lost_upstreams(&mut self, session: &Session) {
        let Some(key) = self.by_id.get(&session.stream_id).copied() else { return };
        let has = |identity: &Identity| session.identities.contains(identity);
        // A session of an earlier list of destinations says nothing of the upstreams that were added since.
        let listed =
            |held: &PublisherRecord| !held.takes_lists || session.revision == held.entry.destinations.revision();
        let newest =
            |held: &PublisherRecord| listed(held) && held.state.on().is_none_or(|(_, epoch)| epoch <= session.epoch);
        let same = |held: &PublisherRecord| held.entry.identities.first().is_some_and(has);
        let Some(held) = self.places.get_mut(&key).filter(|held| newest(held) && same(held)) else { return };
        let lost: Vec<Identity> = held.entry.identities.extract_if(.., |identity| !has(identity)).collect();
        held.entry.destinations.lose(&lost);
        self.revision += u64::from(!lost.is_empty());
        self.forget_identities(key, &lost);
    }

    pub(super) fn forget_identities(&mut self, key: Key, identities: &[Identity]) {
        for identity in identities {
            if let Some(keys) = self.by_identity.get_mut(identity) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_identity.remove(identity);
                }
            }
        }
    }

    fn declined(&mut self, now: Instant, call: CallId, Declined { stream_id, epoch, reason }: &Declined) {
        let Some(key) = self.by_id.get(stream_id).copied() else { return };
        let offered = |held: &PublisherRecord| matches!(held.state, State::Offered { call: on, epoch: current, .. } if on == call && current == *epoch);
        if !self.places.get(&key).is_some_and(offered) {
            return;
        }
        match reason {
            DeclineReason::Full => self.workers.avoid(call, now + AVOID_WORKER),
            DeclineReason::Draining => self.workers.drain(call),
            DeclineReason::Unreachable | DeclineReason::Other => {}
        }
        self.avoid_for_stream(now, key, call);
        let unreachable = *reason == DeclineReason::Unreachable;
        self.withdraw(now, key, if unreachable { OfferOutcome::Unreachable } else { OfferOutcome::Declined });
    }

    fn lost(&mut self, now: Instant, call: CallId) {
        let name = self.workers.get(call).map(|worker| worker.name.clone());
        self.outputs.extend(name.map(Output::WorkerGone));
        self.remember(now, call);
        for key in self.workers.leave(call) {
            self.withdraw(now, key, OfferOutcome::Withdrawn);
        }
        self.count_workers(now);
        for held in self.places.values_mut() {
            held.avoid.remove(&call);
        }
        self.fill(now);
    }

    fn drain(&mut self) {
        self.draining = true;
        let held: Vec<Key> = self
            .places
            .iter()
            .filter(|(_, held)| !held.state.is_taken() && !held.was_live)
            .map(|(key, _)| *key)
            .collect();
        held.into_iter().for_each(|key| self.refuse(key, PlaceRefusal::Draining));
    }

    fn close(&mut self) {
        self.drain();
        self.closing = true;
        let stays = |held: &PublisherRecord| self.rules.workers_stay && held.by_descriptor && held.state.is_taken();
        let ending = self.places.iter().filter(|(_, held)| !stays(held));
        let rest: Vec<(Key, bool)> = ending.map(|(key, held)| (*key, held.state.is_taken())).collect();
        for (key, taken) in rest {
            if taken {
                self.outputs.push_back(Output::Kicked(key, "the server goes down".to_owned()));
            } else {
                self.refuse(key, PlaceRefusal::Draining);
            }
        }
    }

    fn place_due(&mut self, now: Instant, key: Key) {
        let Some(held) = self.places.get_mut(&key) else { return };
        held.timer = None;
        held.avoid.retain(|_, until| *until > now);
        match held.state {
            State::Waiting if held.entry.deadline <= now => {
                self.refuse(key, if self.fleet_full { PlaceRefusal::FleetFull } else { PlaceRefusal::HoldSpent });
            }
            State::Waiting if held.yields_at.is_some_and(|at| at <= now) => {
                if self.settle_elsewhere(now, key) && self.places.get(&key).is_some_and(|held| held.yields_at.is_some())
                {
                    self.refuse(key, PlaceRefusal::Duplicate);
                }
            }
            State::Offered { call, until, .. } if until <= now => {
                self.workers.avoid(call, now + AVOID_WORKER);
                self.avoid_for_stream(now, key, call);
                self.withdraw(now, key, OfferOutcome::Expired);
            }
            _ => self.arm(key),
        }
    }

    fn withdraw(&mut self, now: Instant, key: Key, outcome: OfferOutcome) {
        let Some((_, epoch)) = self.places.get(&key).and_then(|held| held.state.on()) else { return };
        self.outputs.push_back(Output::Outcome(outcome));
        self.outputs.push_back(Output::Withdrawn(key, epoch));
        self.wait(now, key);
    }

    fn avoid_for_stream(&mut self, now: Instant, key: Key, call: CallId) {
        if let Some(held) = self.places.get_mut(&key).filter(|_| self.workers.get(call).is_some()) {
            held.avoid.insert(call, now + AVOID_FOR_STREAM);
        }
    }

    /// Makes a place wait. Returns false if the publisher was refused instead, for another one with its identity.
    pub(super) fn wait(&mut self, now: Instant, key: Key) -> bool {
        let Some(held) = self.places.get_mut(&key) else { return false };
        if let Some((call, _)) = held.state.on() {
            self.workers.release(call, &held.entry.stream_id.0);
        }
        held.state = State::Waiting;
        self.revision += 1;
        let front = held.front;
        if self.closing {
            self.refuse(key, PlaceRefusal::Draining);
            return false;
        }
        if !self.settle_twins(now, key) || !self.settle_elsewhere(now, key) {
            return false;
        }
        let owned = self.places.get(&key).is_some_and(|held| !matches!(self.owner(now, key, held), Owner::Nobody));
        if owned {
            self.bound.insert(key);
        } else {
            self.queue.insert((!front, key));
        }
        self.arm(key);
        true
    }

    pub(super) fn refuse(&mut self, key: Key, reason: PlaceRefusal) {
        self.outputs.push_back(Output::Refused(key, reason));
        self.forget(key);
    }

    fn forget(&mut self, key: Key) {
        let Some(mut held) = self.places.remove(&key) else { return };
        self.revision += 1;
        let silent = held.cold.take().map(|start| Output::ColdStart(Box::new(ColdStartPhases::of(start, None))));
        self.outputs.extend(silent);
        self.outputs.extend(held.live_since.map(Output::Over));
        if let Some((call, _)) = held.state.on() {
            self.workers.release(call, &held.entry.stream_id.0);
        }
        self.queue.remove(&(!held.front, key));
        self.bound.remove(&key);
        held.timer.into_iter().for_each(|at| {
            self.timers.remove(&(at, key));
        });
        if self.by_id.get(&held.entry.stream_id.0) == Some(&key) {
            self.by_id.remove(&held.entry.stream_id.0);
        }
        self.forget_identities(key, &held.entry.identities);
        self.pass_changes_on(&held.entry);
    }

    /// Sets the place's one timer.
    pub(super) fn arm(&mut self, key: Key) {
        let Some(held) = self.places.get_mut(&key) else { return };
        let at = match held.state {
            State::Waiting => held.avoid.values().copied().chain([held.entry.deadline]).chain(held.yields_at).min(),
            State::Offered { until, .. } => Some(until),
            State::Starting { .. } | State::Live { .. } => None,
        };
        if held.timer == at {
            return;
        }
        if let Some(last) = held.timer {
            self.timers.remove(&(last, key));
        }
        held.timer = at;
        self.timers.extend(at.map(|at| (at, key)));
    }
}

#[cfg(test)]
#[path = "dispatcher_tests.rs"]
mod tests;
