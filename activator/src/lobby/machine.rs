//! The rules of the lobby: who waits, in which order, and who is offered to which worker.
//!
//! In: publishers that come, go and answer, what workers say, time. Out: what to tell publishers' tasks and workers.
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
//! A stream that a worker loses waits at the front. Surprises: of two publishers with one identity the worker that has one decides
//! (it knows whether the old one is silent), so the second is offered to it whatever its load; and a worker that declines everything
//! must not be asked again at once, or two of them keep a publisher flying between them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use liveedgecast_common::control::declined::Reason as Declined;
use liveedgecast_common::control::session::State as SessionState;
use liveedgecast_common::control::worker_says::Say;
use liveedgecast_common::key::Identity;

use super::elsewhere::{Elsewhere, Others, Ourselves, YIELD_AFTER};
use super::{Back, Entry, Reason};
use crate::config::Handoff;
use crate::fleet::workers::{Call, Introduction, Worker, Workers};

/// An offer that was not fetched within this is withdrawn: fetching takes milliseconds, and the publisher's client waits.
pub(super) const OFFER_TIMEOUT: Duration = Duration::from_secs(3);
/// A worker that did not fetch, or said that it is full, is offered nothing for this long.
const AVOID_WORKER: Duration = Duration::from_secs(1);
/// A stream that a worker did not take or keep is not offered to the same one for this long.
const AVOID_FOR_STREAM: Duration = Duration::from_secs(1);
/// A held publisher that has answered nothing for this long gives way to a second one: it is pinged every 5 s, so an answer may be
/// that old by rights, and a slow network's two seconds more (DESIGN 4.7 has 5 s, for publishers that send media).
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(7);

/// A place. Never used twice; of two the smaller one came first.
pub type Key = u64;

/// What the machine is told once.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Longest hold, also of a stream that lost its worker.
    pub hold: Duration,
    /// How streams may be handed over.
    pub handoff: Handoff,
    /// Workers do not end with us: what they have by descriptor goes on without us.
    pub workers_stay: bool,
}

/// What the shell tells the machine.
#[derive(Debug)]
pub(crate) enum Input {
    /// The publisher or its task has gone.
    Left(Key),
    /// The publisher has answered.
    Heard(Key),
    /// A worker has accepted.
    Taken(Key, u64),
    /// The publisher was told to start.
    Started(Key),
    /// The worker has not kept it.
    Back(Key, u64, Back),
    /// A worker has registered. Its name is not that of another, see [`Matching::is_joined`].
    Joined(Call, Introduction),
    /// A worker has said something else than Hello.
    Said(Call, Say),
    /// A worker's call has ended.
    Lost(Call),
    /// The process fleet stops this worker.
    Retire(String),
    /// Whether there are as many workers as may be.
    FleetFull(bool),
    /// Who we are among activators.
    Ourselves(Ourselves),
    /// Another activator's publisher, as it is now; or it is gone.
    Elsewhere(String, u64, Option<Elsewhere>),
    /// Nothing of this activator stands any more.
    ForgetPeer(String),
    /// A number that others look at has changed.
    Changed,
    /// Nobody is held any more.
    Drain,
    /// Nobody is served any more.
    Close,
}

/// What the machine asks of the shell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Tell both sides, the publisher's task first.
    Offer {
        /// Whose place.
        key: Key,
        /// Which worker.
        call: Call,
        /// Its name.
        worker: String,
        /// Its process, if known.
        pid: u32,
        /// The stream.
        stream_id: String,
        /// The claim.
        epoch: u64,
        /// By descriptor.
        descriptor: bool,
    },
    /// The offer does not stand any more.
    Withdrawn(Key, u64),
    /// The place is gone.
    Refused(Key, Reason),
    /// End the stream, says who holds its publisher.
    Kicked(Key, String),
    /// End the stream of another activator's publisher, or of one that has gone.
    KickOnWorker(Call, String, String),
    /// A stream runs for the first time.
    Started(Box<Started>),
    /// What became of an offer, for metrics.
    Outcome(&'static str),
    /// A worker has been silent though it serves something.
    Suspect(String),
}

/// How a stream came to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Started {
    /// The stream.
    pub(crate) stream_id: String,
    /// The worker that has it.
    pub(crate) worker: String,
    /// When the publisher entered,
    pub(crate) entered: Instant,
    /// its worker registered (before, if it was there),
    pub(crate) joined: Instant,
    /// took the stream,
    pub(crate) taken: Instant,
    /// and started it.
    pub(crate) started: Instant,
}

#[derive(Clone, Debug)]
enum State {
    Waiting,
    Offered { call: Call, epoch: u64, until: Instant },
    Starting { call: Call, epoch: u64 },
    Live { call: Call, epoch: u64 },
}

impl State {
    fn on(&self) -> Option<(Call, u64)> {
        match *self {
            Self::Waiting => None,
            Self::Offered { call, epoch, .. } | Self::Starting { call, epoch } | Self::Live { call, epoch } => {
                Some((call, epoch))
            }
        }
    }

    fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    fn is_taken(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Live { .. })
    }
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    state: State,
    /// At the front: a worker has lost it.
    front: bool,
    /// It was live: it is not let go by a drain.
    was_live: bool,
    /// It was offered by descriptor.
    by_descriptor: bool,
    heard: Instant,
    /// Workers that did not take or keep it, and until when they are not asked again.
    avoid: BTreeMap<Call, Instant>,
    entered: Instant,
    taken: Option<Instant>,
    /// An earlier one waits at another activator: it goes then, if that one has not.
    yields_at: Option<Instant>,
    timer: Option<Instant>,
}

/// Who may take a waiting stream.
enum Owner {
    Nobody,
    /// This worker has the identity and decides.
    Worker(Call),
    /// Somebody has it whom we can not ask now.
    Wait,
}

/// See the picture above.
#[derive(Debug)]
pub(crate) struct Matching {
    rules: Rules,
    places: BTreeMap<Key, Held>,
    next_key: Key,
    epoch: u64,
    /// Those that wait for any worker; the front ones first.
    queue: BTreeSet<(bool, Key)>,
    /// Those that wait for a certain worker.
    bound: BTreeSet<Key>,
    by_id: HashMap<String, Key>,
    by_identity: HashMap<Identity, BTreeSet<Key>>,
    timers: BTreeSet<(Instant, Key)>,
    workers: Workers,
    fleet_full: bool,
    draining: bool,
    closing: bool,
    ourselves: Option<Ourselves>,
    others: Others,
    revision: u64,
    outputs: VecDeque<Output>,
}

impl Matching {
    /// An empty lobby.
    pub(crate) fn new(rules: Rules) -> Self {
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
            fleet_full: false,
            draining: false,
            closing: false,
            ourselves: None,
            others: Others::default(),
            revision: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes a publisher in; drain [`Self::poll_output`] afterwards.
    pub(crate) fn enter(&mut self, now: Instant, entry: Entry) -> Key {
        self.next_key += 1;
        let key = self.next_key;
        self.by_id.insert(entry.stream_id.0.clone(), key);
        for identity in &entry.identities {
            self.by_identity.entry(*identity).or_default().insert(key);
        }
        let held = Held {
            entry,
            state: State::Waiting,
            front: false,
            was_live: false,
            by_descriptor: false,
            heard: now,
            avoid: BTreeMap::new(),
            entered: now,
            taken: None,
            yields_at: None,
            timer: None,
        };
        self.places.insert(key, held);
        if self.draining {
            self.refuse(key, Reason::Draining);
        } else if self.wait(now, key) {
            // Those ahead of it could not be matched before it came, and its coming changes nothing for them.
            self.match_one(now, key);
        }
        key
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Left(key) => {
                self.forget(key);
                self.fill(now);
            }
            // Many and often: nothing else is to be done.
            Input::Heard(key) => self.places.get_mut(&key).into_iter().for_each(|held| held.heard = now),
            Input::Taken(key, epoch) => self.taken(now, key, epoch),
            Input::Started(key) => self.started(now, key),
            Input::Back(key, epoch, why) => self.back(now, key, epoch, why),
            Input::Joined(call, introduction) => self.joined(now, call, introduction),
            Input::Said(call, say) => self.said(now, call, say),
            Input::Lost(call) => self.lost(now, call),
            Input::Retire(name) => {
                let call = self.workers.named(&name);
                call.into_iter().for_each(|call| self.workers.retire(call));
            }
            Input::FleetFull(full) => self.fleet_full = full,
            Input::Ourselves(ourselves) => self.ourselves = Some(ourselves),
            Input::Elsewhere(peer, number, held) => {
                self.epoch = self.epoch.max(held.as_ref().map_or(0, |held| held.epoch));
                let affected = self.others.set(&peer, number, held);
                self.look_again(now, &affected);
            }
            Input::ForgetPeer(peer) => {
                let affected = self.others.forget(&peer);
                self.look_again(now, &affected);
            }
            Input::Changed => self.revision += 1,
            Input::Drain => self.drain(),
            Input::Close => self.close(),
        }
    }

    /// Does what is due.
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

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at).into_iter().chain(self.workers.poll_timeout()).min()
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether a worker of this name is registered.
    pub(crate) fn is_joined(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// The call of the worker of this name.
    pub(crate) fn named(&self, name: &str) -> Option<Call> {
        self.workers.named(name)
    }

    /// Streams that wait and for which no registered worker has a place.
    pub(crate) fn shortage(&self, now: Instant) -> usize {
        self.queue.len().saturating_sub(self.workers.room(now, |worker| self.fits(worker)))
    }

    /// The registered workers' names, and whether they have anything to do.
    pub(crate) fn busy(&self) -> impl Iterator<Item = (&str, bool)> {
        let heard = self.workers.iter().filter(|(_, worker)| !worker.is_suspect());
        heard.map(|(_, worker)| (worker.name.as_str(), worker.streams() > 0))
    }

    /// Ends a stream; false when nobody has it.
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
        self.workers.taken(call, key);
        self.outputs.push_back(Output::Outcome("accepted"));
        self.arm(key);
        self.fill(now);
    }

    fn started(&mut self, now: Instant, key: Key) {
        let Some(held) = self.places.get_mut(&key) else { return };
        let State::Starting { call, epoch } = held.state else { return };
        held.state = State::Live { call, epoch };
        let first = !std::mem::replace(&mut held.was_live, true);
        if let Some(worker) = self.workers.get(call).filter(|_| first) {
            self.outputs.push_back(Output::Started(Box::new(Started {
                stream_id: held.entry.stream_id.0.clone(),
                worker: worker.name.clone(),
                entered: held.entered,
                joined: worker.joined,
                taken: held.taken.unwrap_or(now),
                started: now,
            })));
        }
    }

    fn back(&mut self, now: Instant, key: Key, epoch: u64, why: Back) {
        let Some(held) = self.places.get_mut(&key) else { return };
        let Some((call, _)) = held.state.on().filter(|(_, current)| *current == epoch) else { return };
        let taken = held.state.is_taken();
        if taken {
            held.front = true;
            // It was alive a moment ago: its worker read it.
            held.heard = now;
        } else {
            self.outputs.push_back(Output::Outcome(match why {
                Back::Declined => "declined",
                Back::Unreachable | Back::Died => "unreachable",
                Back::Moving => "withdrawn",
            }));
        }
        if held.was_live {
            held.entry.deadline = held.entry.deadline.max(now + self.rules.hold);
        }
        if why == Back::Moving {
            self.workers.drain(call);
        }
        self.avoid_for_stream(now, key, call);
        self.wait(now, key);
        self.fill(now);
    }

    fn joined(&mut self, now: Instant, call: Call, introduction: Introduction) {
        let told: Vec<_> = introduction.sessions.clone();
        self.workers.join(now, call, introduction);
        told.iter().for_each(|session| self.adopt(now, call, session));
        self.fill(now);
    }

    fn said(&mut self, now: Instant, call: Call, say: Say) {
        if self.workers.get(call).is_none() {
            return;
        }
        self.workers.heard(now, call);
        match say {
            // The shell has taken it for Joined.
            Say::Hello(_) => {}
            Say::Load(load) => self.workers.load(call, &load),
            Say::Goodbye(_) => self.workers.drain(call),
            Say::Session(session) => {
                self.workers.session(call, session.clone());
                self.adopt(now, call, &session);
            }
            Say::Declined(declined) => {
                self.declined(now, call, &declined.stream_id, declined.epoch, declined.reason());
            }
        }
        self.fill(now);
    }

    /// A session may be a stream of ours whose worker has dialed in again; and it binds those who wait with its identity.
    fn adopt(&mut self, now: Instant, call: Call, session: &liveedgecast_common::control::Session) {
        let ended = session.state == SessionState::Ended as i32;
        if let Some(key) = self.by_id.get(&session.stream_id).copied().filter(|_| !ended)
            && let Some(held) = self.places.get_mut(&key)
            && let State::Starting { call: on, epoch } | State::Live { call: on, epoch } = &mut held.state
            && *epoch == session.epoch
            && *on != call
        {
            self.workers.release(*on, &session.stream_id);
            *on = call;
            self.revision += 1;
            self.workers.reserve(call, &session.stream_id, key, false);
        }
        let same = session.identities.iter().filter_map(|bytes| bytes.as_slice().try_into().ok().map(Identity));
        let waiting: BTreeSet<Key> =
            same.filter_map(|identity| self.by_identity.get(&identity)).flatten().copied().collect();
        for key in waiting {
            if self.places.get(&key).is_some_and(|held| held.state.is_waiting()) {
                self.match_one(now, key);
            }
        }
    }

    fn declined(&mut self, now: Instant, call: Call, stream_id: &str, epoch: u64, reason: Declined) {
        let Some(key) = self.by_id.get(stream_id).copied() else { return };
        let offered = |held: &Held| matches!(held.state, State::Offered { call: on, epoch: current, .. } if on == call && current == epoch);
        if !self.places.get(&key).is_some_and(offered) {
            return;
        }
        match reason {
            Declined::Full => self.workers.avoid(call, now + AVOID_WORKER),
            Declined::Draining => self.workers.drain(call),
            Declined::Unreachable | Declined::Other => {}
        }
        self.avoid_for_stream(now, key, call);
        self.withdraw(now, key, if reason == Declined::Unreachable { "unreachable" } else { "declined" });
    }

    fn lost(&mut self, now: Instant, call: Call) {
        for key in self.workers.leave(call) {
            self.withdraw(now, key, "withdrawn");
        }
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
        held.into_iter().for_each(|key| self.refuse(key, Reason::Draining));
    }

    fn close(&mut self) {
        self.drain();
        self.closing = true;
        let stays = |held: &Held| self.rules.workers_stay && held.by_descriptor && held.state.is_taken();
        let ending = self.places.iter().filter(|(_, held)| !stays(held));
        let rest: Vec<(Key, bool)> = ending.map(|(key, held)| (*key, held.state.is_taken())).collect();
        for (key, taken) in rest {
            if taken {
                self.outputs.push_back(Output::Kicked(key, "the server goes down".to_owned()));
            } else {
                self.refuse(key, Reason::Draining);
            }
        }
    }

    fn place_due(&mut self, now: Instant, key: Key) {
        let Some(held) = self.places.get_mut(&key) else { return };
        held.timer = None;
        held.avoid.retain(|_, until| *until > now);
        match held.state {
            State::Waiting if held.entry.deadline <= now => {
                self.refuse(key, if self.fleet_full { Reason::FleetFull } else { Reason::HoldSpent });
            }
            State::Waiting if held.yields_at.is_some_and(|at| at <= now) => {
                if self.settle_elsewhere(now, key) && self.places.get(&key).is_some_and(|held| held.yields_at.is_some())
                {
                    self.refuse(key, Reason::Duplicate);
                }
            }
            State::Offered { call, until, .. } if until <= now => {
                self.workers.avoid(call, now + AVOID_WORKER);
                self.avoid_for_stream(now, key, call);
                self.withdraw(now, key, "expired");
            }
            _ => self.arm(key),
        }
    }

    fn withdraw(&mut self, now: Instant, key: Key, outcome: &'static str) {
        let Some((_, epoch)) = self.places.get(&key).and_then(|held| held.state.on()) else { return };
        self.outputs.push_back(Output::Outcome(outcome));
        self.outputs.push_back(Output::Withdrawn(key, epoch));
        self.wait(now, key);
    }

    fn avoid_for_stream(&mut self, now: Instant, key: Key, call: Call) {
        if let Some(held) = self.places.get_mut(&key).filter(|_| self.workers.get(call).is_some()) {
            held.avoid.insert(call, now + AVOID_FOR_STREAM);
        }
    }

    /// It waits from here on, unless another one has its identity: then false, if it was the one to go.
    fn wait(&mut self, now: Instant, key: Key) -> bool {
        let Some(held) = self.places.get_mut(&key) else { return false };
        if let Some((call, _)) = held.state.on() {
            self.workers.release(call, &held.entry.stream_id.0);
        }
        held.state = State::Waiting;
        self.revision += 1;
        let front = held.front;
        if self.closing {
            self.refuse(key, Reason::Draining);
            return false;
        }
        if !self.settle_twins(now, key) || !self.settle_elsewhere(now, key) {
            return false;
        }
        let owned = self.places.get(&key).is_some_and(|held| !matches!(self.owner(key, held), Owner::Nobody));
        if owned {
            self.bound.insert(key);
        } else {
            self.queue.insert((!front, key));
        }
        self.arm(key);
        true
    }

    /// Of two that wait with one identity one has to go. Whether `key` stays.
    fn settle_twins(&mut self, now: Instant, key: Key) -> bool {
        let Some(held) = self.places.get(&key) else { return false };
        let twins: BTreeSet<Key> = held
            .entry
            .identities
            .iter()
            .filter_map(|identity| self.by_identity.get(identity))
            .flatten()
            .copied()
            .collect();
        for other in twins {
            let Some((one, two)) = self.places.get(&key).zip(self.places.get(&other)) else { continue };
            if other == key || two.state.is_taken() {
                continue;
            }
            // Who was live is the stream; else who came first.
            let (first, second) =
                if (!one.was_live, key) < (!two.was_live, other) { (key, other) } else { (other, key) };
            let silent = self.places.get(&first).is_some_and(|held| held.heard + SILENT_AFTER <= now);
            let goes = if silent { first } else { second };
            self.refuse(goes, Reason::Duplicate);
            if goes == key {
                return false;
            }
        }
        true
    }

    /// The same with those that wait at other activators. Whether `key` stays.
    fn settle_elsewhere(&mut self, now: Instant, key: Key) -> bool {
        let Some((held, ourselves)) = self.places.get(&key).zip(self.ourselves.as_ref()) else { return true };
        // Who was live is the stream.
        if !held.state.is_waiting() || held.was_live {
            return true;
        }
        let ours = (ourselves.wall(held.entered), ourselves.name.as_str());
        let waiting = self.others.twins(&held.entry.identities).filter(|(_, twin)| twin.waiting);
        let (mut earlier, mut later) = (false, false);
        for (peer, twin) in waiting {
            let first = (twin.entered, peer) < ours;
            (earlier, later) = (earlier || first, later || !first);
        }
        if later && held.heard + SILENT_AFTER <= now {
            self.refuse(key, Reason::Duplicate);
            return false;
        }
        if let Some(held) = self.places.get_mut(&key) {
            held.yields_at = if earlier { held.yields_at.or(Some(now + YIELD_AFTER)) } else { None };
        }
        self.arm(key);
        true
    }

    /// Something is different elsewhere for those of ours that wait with one of these identities.
    fn look_again(&mut self, now: Instant, identities: &BTreeSet<Identity>) {
        self.revision += 1;
        let ours: BTreeSet<Key> =
            identities.iter().filter_map(|identity| self.by_identity.get(identity)).flatten().copied().collect();
        for key in ours {
            if self.places.get(&key).is_some_and(|held| held.state.is_waiting()) && self.settle_elsewhere(now, key) {
                self.match_one(now, key);
            }
        }
    }

    /// Offers what can be offered, in order.
    fn fill(&mut self, now: Instant) {
        for key in self.bound.clone() {
            self.match_one(now, key);
        }
        let mut after = None;
        while self.workers.busiest(now, |_, worker| self.fits(worker)).is_some() {
            let next = match after {
                None => self.queue.first(),
                Some(last) => self.queue.range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded)).next(),
            };
            let Some(next) = next.copied() else { break };
            after = Some(next);
            self.match_one(now, next.1);
        }
    }

    fn match_one(&mut self, now: Instant, key: Key) {
        let Some(held) = self.places.get(&key).filter(|held| held.state.is_waiting()) else { return };
        let rank = (!held.front, key);
        let open = |call: Call| held.avoid.get(&call).is_none_or(|until| *until <= now);
        let (bound, call) = match self.owner(key, held) {
            Owner::Nobody => (false, self.workers.busiest(now, |call, worker| self.fits(worker) && open(call))),
            Owner::Wait => (true, None),
            Owner::Worker(call) => {
                let can = |worker: &Worker| worker.can_be_offered(now) && self.fits(worker) && open(call);
                (true, self.workers.get(call).is_some_and(can).then_some(call))
            }
        };
        if bound {
            self.queue.remove(&rank);
            self.revision += u64::from(self.bound.insert(key));
        } else {
            self.revision += u64::from(self.bound.remove(&key));
            self.queue.insert(rank);
        }
        if let Some(call) = call {
            self.offer(now, key, call);
        }
    }

    fn owner(&self, key: Key, held: &Held) -> Owner {
        let id = held.entry.stream_id.as_str();
        for identity in &held.entry.identities {
            for other in self.by_identity.get(identity).into_iter().flatten().filter(|other| **other != key) {
                let Some(twin) = self.places.get(other).filter(|twin| twin.state.is_taken()) else { continue };
                let there = twin.state.on().and_then(|(call, _)| Some((call, self.workers.get(call)?)));
                return match there {
                    Some((call, worker)) if !worker.is_draining() => Owner::Worker(call),
                    // It moves, or its worker is lost: where it goes will be known in a moment.
                    _ => Owner::Wait,
                };
            }
            if let Some((call, session)) = self.workers.holder(std::slice::from_ref(identity), id) {
                let draining = self.workers.get(call).is_none_or(Worker::is_draining);
                match session.state() {
                    // Nobody will continue it there, so somebody else may begin anew.
                    SessionState::Grace if draining => {}
                    _ if draining => return Owner::Wait,
                    _ => return Owner::Worker(call),
                }
            }
        }
        let Some(ourselves) = &self.ourselves else { return Owner::Nobody };
        let ours = (ourselves.wall(held.entered), ourselves.name.as_str());
        for (peer, twin) in self.others.twins(&held.entry.identities) {
            let there = self.workers.named(&twin.worker).and_then(|call| Some((call, self.workers.get(call)?)));
            match there {
                Some((call, worker)) if !worker.is_draining() => return Owner::Worker(call),
                // The later one waits for us.
                None if twin.waiting && twin.worker.is_empty() && ours < (twin.entered, peer) => {}
                _ => return Owner::Wait,
            }
        }
        Owner::Nobody
    }

    fn offer(&mut self, now: Instant, key: Key, call: Call) {
        self.epoch = self.epoch.max(self.workers.epoch()) + 1;
        let epoch = self.epoch;
        let Some((held, worker)) = self.places.get_mut(&key).zip(self.workers.get(call)) else { return };
        held.state = State::Offered { call, epoch, until: now + OFFER_TIMEOUT };
        held.by_descriptor = worker.same_host && self.rules.handoff != Handoff::Link;
        self.revision += 1;
        self.queue.remove(&(!held.front, key));
        self.bound.remove(&key);
        let stream_id = held.entry.stream_id.0.clone();
        self.outputs.push_back(Output::Offer {
            key,
            call,
            worker: worker.name.clone(),
            pid: worker.pid,
            stream_id: stream_id.clone(),
            epoch,
            descriptor: held.by_descriptor,
        });
        self.workers.reserve(call, &stream_id, key, true);
        self.arm(key);
    }

    /// Whether streams can be handed over to it.
    fn fits(&self, worker: &Worker) -> bool {
        self.rules.handoff != Handoff::Descriptor || worker.same_host
    }

    fn refuse(&mut self, key: Key, reason: Reason) {
        self.outputs.push_back(Output::Refused(key, reason));
        self.forget(key);
    }

    fn forget(&mut self, key: Key) {
        let Some(held) = self.places.remove(&key) else { return };
        self.revision += 1;
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
        for identity in held.entry.identities {
            if let Some(keys) = self.by_identity.get_mut(&identity) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_identity.remove(&identity);
                }
            }
        }
    }

    /// Sets the place's one timer.
    fn arm(&mut self, key: Key) {
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

#[path = "told.rs"]
mod told;
pub(crate) use told::Told;

#[path = "view.rs"]
mod view;
pub use view::{Demand, StreamView, UpstreamView, WorkerView};

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
