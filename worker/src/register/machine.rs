//! The rules of registration: what activators are told, which offers are taken. Pure.
//!
//! In: what [`Discovery`] and the calls find out, what activators say, what the engine serves. Out: what the shell does. Next:
//! `receive`, with an offer that was taken.
//!
//! ```text
//!           Connected                    Welcome
//!  Dialing ───────────▶ Greeted (Hello) ─────────▶ Joined (offers, Load, Session)
//!                          │ another call has        │
//!                          │ joined this activator   │ lost, hung up
//!                          ▼                         ▼
//!                       hung up: an alias         dialed again
//! ```
//! One such picture per call; when and where calls are made is [`Discovery`]'s.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::control::{
    ActivatorMessage, Availability, Cordon, DeclineReason, Declined, ExcerptOrder, Hello, InstanceKey, Load, Offer,
    Session, SessionCounters, SessionState, Welcome, WorkerMessage,
};
use liveedgecast_common::discovery::{self, AttemptId, Discovery, Wanted};

use crate::config::Handoff;

/// How this machine finds activators.
const DISCOVERY: discovery::Rules = discovery::Rules {
    // One second in which an activator that starts together with the worker is found at once. A SYN that got lost would be repeated only
    // after that second.
    eager_attempts: 10,
    // The call has deadlines of its own.
    dial_timeout: None,
    wanted: Wanted::One,
    told_failures: 10,
    unlisted_failures: 0,
    alias_patience: 5,
};
/// Pause after a refused proof: the secret will not become right by asking often.
const REFUSED_DELAY: Duration = Duration::from_secs(10);
/// Longest time from the activator's proof to Welcome. A call that hangs longer is given up.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// The load is repeated this often while anything is served: the activator tells a hung worker by its silence (architecture.md, "Workers
/// dial in").
const LOAD_INTERVAL: Duration = Duration::from_millis(500);
/// Counters that have grown are told this often, in one message; states of sessions are told at once.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// An activator that takes no such message is told all sessions each time this many would have been sent.
const SESSIONS_EVERY: u32 = 5;
/// Streams in one message: a third of the bytes that an activator takes, with two upstreams each.
const COUNTED: usize = 10_000;
/// The introducer is asked when this has passed without an activator: most often the name's addresses are good and the worker is joined …
const ASK_AFTER: Duration = Duration::from_millis(50);
/// … and again after each answer that did not help.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A worker that was started by an activator and has been without it and without a stream for this long has no reason to be.
const ORPHANED_AFTER: Duration = Duration::from_secs(5);
/// Time without an activator after which a worker that was started by one stops waiting for lost publishers: they return through an
/// activator, and a new one may have another secret. The first attempts are over by then, so a call that only broke is there again.
const ALONE_AFTER: Duration = Duration::from_secs(1);
/// A worker whose pod might have gone takes nothing for this long after that was taken back: an activator or Kubernetes that heard the
/// lower number just before has acted on it by then, or will not.
const RETURN_AFTER: Duration = Duration::from_secs(6);

/// A worker's account of itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name, unique among the workers of its activators.
    pub name: String,
    /// Streams at most.
    pub capacity: u32,
    /// Name of the host's network namespace; empty when it cannot be told.
    pub network: String,
    /// Handoffs that fit.
    pub handoff: Handoff,
    /// True if the worker ends by itself when it has no activator and serves nothing.
    pub exit_when_orphaned: bool,
    /// The key of this process, by which activators know it again.
    pub key: InstanceKey,
    /// True if there is an introducer, which tells the addresses of activators.
    pub introducer: bool,
    /// Beginning of the process.
    pub began: Instant,
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// No activator answered, or the connection broke.
    Broken,
    /// The activator did not accept our proof, or has not proved itself.
    Refused,
}

/// Inputs from the shell.
#[derive(Clone, Debug)]
pub enum Input {
    /// Every address of the activator's name.
    Resolved(Vec<SocketAddr>),
    /// The name could not be resolved just now.
    Unresolved,
    /// Addresses of the introducer's answer; none if it had no answer.
    Introduced(Vec<SocketAddr>),
    /// The call is open and the activator has proved that it knows the secret.
    Connected(AttemptId),
    /// A message of the activator.
    Said(AttemptId, ActivatorMessage),
    /// The call has ended, or never came about.
    Ended(AttemptId, CallEnd),
    /// Sessions of the engine that have changed, of each stream one.
    Sessions(Vec<Arc<Session>>),
    /// A taken offer ended well: the engine has the stream.
    Taken(String),
    /// A taken offer could not be fetched: its call, stream and epoch.
    NotTaken(AttemptId, String, u64),
    /// The drain has begun: nothing more is taken.
    Drain,
    /// Say goodbye and end all calls.
    Leave,
}

/// Orders to the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Ask for the addresses.
    Resolve,
    /// Ask the introducer.
    Ask,
    /// Open a call.
    Dial {
        /// The number that the call's events are reported with.
        attempt: AttemptId,
        /// The activator's control listener.
        address: SocketAddr,
        /// How long the connection may take.
        patience: Duration,
    },
    /// Say this in the call.
    Say(AttemptId, WorkerMessage),
    /// End the call; nothing more is reported for it. Messages before this one are still sent.
    HangUp(AttemptId),
    /// Fetch the stream and answer with [`Input::Taken`] or [`Input::NotTaken`].
    Take {
        /// The call of the activator that offered it.
        attempt: AttemptId,
        /// The address at which that activator was dialed.
        address: SocketAddr,
        /// The activator's word about itself.
        welcome: Welcome,
        /// The offer.
        offer: Offer,
    },
    /// End a stream.
    Kick {
        /// Id of the stream.
        stream_id: String,
        /// Cause, for the log and the publisher.
        reason: String,
    },
    /// Ask every stream to go back to its activator, which gives it to another worker.
    GiveBack,
    /// End what there is of a stream under a lower epoch than this: another worker has it.
    Fence {
        /// Id of the stream.
        stream_id: String,
        /// The other worker's claim.
        epoch: u64,
    },
    /// Make an excerpt of a stream, for the activator of this call.
    Excerpt(AttemptId, ExcerptOrder),
    /// The activator of this call has taken a piece of the excerpt that it asked for under this number.
    ExcerptNext {
        /// The call.
        attempt: AttemptId,
        /// Number of the question.
        number: u64,
        /// The rest is not wanted.
        drop: bool,
    },
    /// Tell this worker's metrics in the call; `anew`: its activator knows none of them yet.
    TellTotals {
        /// The call.
        attempt: AttemptId,
        /// The activator is another one than that of the last time.
        anew: bool,
    },
    /// True if no activator is left through which a lost publisher could return.
    Alone(bool),
    /// There is no activator any more for which the worker runs, and nothing to do.
    Orphaned,
}

/// A call whose activator has proved itself, so that it was told Hello.
#[derive(Clone, Debug)]
struct Call {
    address: SocketAddr,
    /// `None` until the activator says it.
    welcome: Option<Welcome>,
    cordon: Cordon,
}

/// See the picture above.
#[derive(Debug)]
pub struct Register {
    settings: Settings,
    discovery: Discovery,
    /// Calls that can be spoken into.
    calls: BTreeMap<AttemptId, Call>,
    /// Sessions as activators were told last, by stream.
    sessions: BTreeMap<String, Arc<Session>>,
    /// Streams whose counters have grown since activators were told of them.
    grown: BTreeSet<String>,
    /// Offers taken that the engine does not list yet: epochs by stream.
    taking: BTreeMap<String, u64>,
    told: Load,
    load_at: Instant,
    counters_at: Instant,
    /// How often [`Self::counters_at`] has passed.
    counted: u32,
    /// The call whose activator shows this worker's metrics.
    teller: Option<AttemptId>,
    /// Time at which that activator is told them, if anything may have changed.
    totals_at: Option<Instant>,
    draining: bool,
    /// An operator wants the streams to go to other workers.
    drained: bool,
    /// Cordoned, without a stream, and told that our pod may go.
    leaving: bool,
    /// End of the cordon that outlasts `leaving`, once that was taken back.
    returns_at: Option<Instant>,
    left: bool,
    /// Time since which no activator is joined for which the worker runs, and nothing is served.
    alone_since: Option<Instant>,
    /// Time at which streams that are served without an activator are told so.
    alone_at: Option<Instant>,
    /// Streams were told so.
    alone: bool,
    /// The first activator that has welcomed this worker: if an activator started the worker, that one.
    starter: Option<String>,
    outputs: VecDeque<Output>,
}

impl Register {
    /// Begins by asking for addresses.
    #[must_use]
    pub fn new(now: Instant, settings: Settings) -> Self {
        let ask_at = settings.introducer.then(|| now + ASK_AFTER);
        let mut register = Self {
            told: Load { capacity: settings.capacity, ..Load::default() },
            settings,
            discovery: Discovery::new(now, DISCOVERY, ask_at),
            calls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            grown: BTreeSet::new(),
            taking: BTreeMap::new(),
            load_at: now,
            counters_at: now,
            counted: 0,
            teller: None,
            totals_at: None,
            draining: false,
            drained: false,
            leaving: false,
            returns_at: None,
            left: false,
            alone_since: Some(now),
            alone_at: None,
            alone: false,
            starter: None,
            outputs: VecDeque::new(),
        };
        register.dial();
        register
    }

    /// Streams that count against the capacity: served or being fetched.
    #[must_use]
    pub fn streams(&self) -> u32 {
        let fetched = self.taking.keys().filter(|id| !self.sessions.contains_key(*id)).count();
        u32::try_from(self.sessions.len() + fetched).unwrap_or(u32::MAX)
    }

    /// Activators at which the worker is registered.
    #[must_use]
    pub fn joined(&self) -> usize {
        self.discovery.connected()
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Resolved(addresses) => self.discover(now, discovery::Input::Resolved(addresses)),
            Input::Unresolved => self.discover(now, discovery::Input::Unresolved),
            Input::Introduced(addresses) => {
                self.discover(now, discovery::Input::Introduced(addresses, now + ASK_EVERY));
            }
            Input::Connected(attempt) => self.connected(now, attempt),
            Input::Said(attempt, message) => self.said(now, attempt, message),
            Input::Ended(attempt, end) => {
                self.calls.remove(&attempt);
                let wait = (end == CallEnd::Refused).then_some(REFUSED_DELAY);
                self.discover(now, discovery::Input::Failed(attempt, wait));
            }
            Input::Sessions(sessions) => self.sessions(now, sessions),
            Input::Taken(stream_id) => {
                self.taking.remove(&stream_id);
                if self.drained {
                    // It was on its way when the order came.
                    self.outputs.push_back(Output::GiveBack);
                }
            }
            Input::NotTaken(attempt, stream_id, epoch) => {
                // A newer offer of the same stream may be on its way by now.
                if self.taking.get(&stream_id) == Some(&epoch) {
                    self.taking.remove(&stream_id);
                }
                self.decline(attempt, stream_id, epoch, DeclineReason::Unreachable);
            }
            Input::Drain => self.draining = true,
            Input::Leave => self.leave(now),
        }
        self.note_teller();
        // Whatever has happened may have been counted.
        if self.teller.is_some() && !self.left {
            self.totals_at.get_or_insert(now + COUNTERS_INTERVAL);
        }
        self.note_leaving(now);
        self.tell_load(now);
        self.note_company(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.left {
            return;
        }
        self.discovery.handle_timeout(now);
        self.dial();
        self.returns_at = self.returns_at.filter(|at| *at > now);
        self.tell_load(now);
        if self.streams() > 0 && self.load_at <= now {
            self.repeat_load(now);
        }
        if self.streams() > 0 && self.counters_at <= now {
            self.counters_at = now + COUNTERS_INTERVAL;
            self.tell_counters();
        }
        if self.totals_at.is_some_and(|at| at <= now) {
            self.totals_at = None;
            self.tell_totals(false);
        }
        if self.alone_at.is_some_and(|at| at <= now) {
            self.alone_at = None;
            self.alone = true;
            self.outputs.push_back(Output::Alone(true));
        }
        if self.orphaned_at().is_some_and(|at| at <= now) {
            // Said once: the shell ends the process. An activator that has gone on with the streams is told the last counters.
            self.leave(now);
            self.outputs.push_back(Output::Orphaned);
        }
    }

    /// Time at which [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let serving = (self.streams() > 0).then_some([self.load_at, self.counters_at]).into_iter().flatten();
        let rest = self.returns_at.into_iter().chain(self.orphaned_at()).chain(self.alone_at).chain(self.totals_at);
        serving.chain(self.discovery.poll_timeout()).chain(rest).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn discover(&mut self, now: Instant, input: discovery::Input) {
        self.discovery.handle(now, input);
        self.dial();
    }

    /// Passes on what discovery asks for.
    fn dial(&mut self) {
        while let Some(output) = self.discovery.poll_output() {
            self.outputs.push_back(match output {
                discovery::Output::Resolve => Output::Resolve,
                discovery::Output::Ask => Output::Ask,
                discovery::Output::Dial { attempt, address, patience } => Output::Dial { attempt, address, patience },
                discovery::Output::HangUp(attempt) => {
                    self.calls.remove(&attempt);
                    Output::HangUp(attempt)
                }
            });
        }
    }

    fn connected(&mut self, now: Instant, attempt: AttemptId) {
        let Some(address) = self.discovery.address(attempt).filter(|_| !self.calls.contains_key(&attempt)) else {
            return;
        };
        self.discover(now, discovery::Input::Answered(attempt, now + WELCOME_TIMEOUT));
        self.calls.insert(attempt, Call { address, welcome: None, cordon: Cordon::default() });
        self.outputs.push_back(Output::Say(attempt, WorkerMessage::Hello(self.hello(now))));
    }

    fn hello(&self, now: Instant) -> Hello {
        Hello {
            name: self.settings.name.clone(),
            capacity: self.settings.capacity,
            availability: self.availability(),
            sessions: self.sessions.values().map(|session| Session::clone(session)).collect(),
            network: match self.settings.handoff {
                // Without a name nobody can find that we share one.
                Handoff::Link => String::new(),
                Handoff::Auto | Handoff::Descriptor => self.settings.network.clone(),
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            takes_lists: true,
            key: Some(self.settings.key),
            age: Some(now.saturating_duration_since(self.settings.began)),
            excerpts: true,
        }
    }

    fn said(&mut self, now: Instant, attempt: AttemptId, message: ActivatorMessage) {
        match message {
            ActivatorMessage::Welcome(welcome) => self.welcomed(now, attempt, welcome),
            ActivatorMessage::Offer(offer) => self.offered(attempt, offer),
            ActivatorMessage::UnreadableOffer { stream_id, epoch } => {
                self.decline(attempt, stream_id, epoch, DeclineReason::Other);
            }
            ActivatorMessage::Cordon(cordon) => {
                let joined = self.calls.get_mut(&attempt).filter(|call| call.welcome.is_some());
                joined.into_iter().for_each(|call| call.cordon = cordon);
            }
            ActivatorMessage::Drain(on) => {
                if on && !self.drained {
                    self.outputs.push_back(Output::GiveBack);
                }
                self.drained = on;
            }
            ActivatorMessage::Meet(address) => self.discover(now, discovery::Input::Told(address)),
            ActivatorMessage::Kick { stream_id, reason } => {
                self.outputs.push_back(Output::Kick { stream_id, reason });
            }
            ActivatorMessage::Fence { stream_id, epoch } => {
                self.outputs.push_back(Output::Fence { stream_id, epoch });
            }
            ActivatorMessage::Excerpt(order) => self.outputs.push_back(Output::Excerpt(attempt, order)),
            ActivatorMessage::ExcerptNext { number, drop } => {
                self.outputs.push_back(Output::ExcerptNext { attempt, number, drop });
            }
        }
    }

    fn welcomed(&mut self, now: Instant, attempt: AttemptId, welcome: Welcome) {
        let same = |call: &&Call| call.welcome.as_ref().is_some_and(|known| known.activator == welcome.activator);
        let joined = self.calls.values().find(same).filter(|_| !welcome.activator.is_empty()).map(|call| call.address);
        let Some(call) = self.calls.get_mut(&attempt).filter(|call| call.welcome.is_none()) else { return };
        if joined.is_some() {
            self.discover(now, discovery::Input::Alias(attempt, joined));
            return;
        }
        self.starter.get_or_insert_with(|| welcome.activator.clone());
        call.welcome = Some(welcome);
        self.discover(now, discovery::Input::Connected(attempt));
    }

    /// The worker is the authority on what it can take (architecture.md, "Workers dial in").
    fn offered(&mut self, attempt: AttemptId, offer: Offer) {
        let judged = self.judge(&offer);
        let Some(Call { address, welcome: Some(welcome), .. }) = self.calls.get(&attempt) else { return };
        match judged {
            Err(reason) => self.decline(attempt, offer.stream_id, offer.epoch, reason),
            Ok(()) => {
                let (address, welcome) = (*address, welcome.clone());
                self.taking.insert(offer.stream_id.clone(), offer.epoch);
                self.outputs.push_back(Output::Take { attempt, address, welcome, offer });
            }
        }
    }

    /// Tells whether the offer can be taken. The activator's `dispatch/placing.rs` decides where a stream goes; this is a worker's veto, by its
    /// own count.
    fn judge(&self, offer: &Offer) -> Result<(), DeclineReason> {
        let id = &offer.stream_id;
        let newest = self.sessions.get(id).map(|session| session.epoch).max(self.taking.get(id).copied());
        let unfit = match self.settings.handoff {
            Handoff::Auto => false,
            Handoff::Descriptor => !offer.descriptor,
            Handoff::Link => offer.descriptor,
        };
        // A stream that it has comes back to a cordoned worker: its connection broke, or its activator lost the place.
        if self.draining || self.drained || (self.cordoned() && newest.is_none()) {
            Err(DeclineReason::Draining)
        } else if newest.is_some_and(|newest| newest >= offer.epoch) {
            Err(DeclineReason::Other)
        } else if unfit {
            Err(DeclineReason::Unreachable)
        } else if newest.is_none() && !offer.known && self.streams() >= self.room() {
            Err(DeclineReason::Full)
        } else {
            Ok(())
        }
    }

    /// Streams that may be served. A stream in grace gets its publisher back under a new stream id (architecture.md, "When the publisher
    /// goes") and then holds one place, not two.
    fn room(&self) -> u32 {
        let grace = self.sessions.values().filter(|session| session.state == SessionState::Grace).count();
        self.settings.capacity.saturating_add(u32::try_from(grace).unwrap_or(u32::MAX))
    }

    fn decline(&mut self, attempt: AttemptId, stream_id: String, epoch: u64, reason: DeclineReason) {
        if self.calls.contains_key(&attempt) {
            let declined = WorkerMessage::Declined(Declined { stream_id, epoch, reason });
            self.outputs.push_back(Output::Say(attempt, declined));
        }
    }

    fn sessions(&mut self, now: Instant, sessions: Vec<Arc<Session>>) {
        let serving = !self.sessions.is_empty();
        // A stream that has a new name is told under that name before the old one ends, or its place would be free in between.
        let (ended, served): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|session| session.state == SessionState::Ended);
        for session in served {
            let last = self.sessions.insert(session.stream_id.clone(), Arc::clone(&session));
            if last.is_none_or(|last| last.differs_beyond_counters(&session)) {
                self.grown.remove(&session.stream_id);
                self.say_to_all(&WorkerMessage::Session(Session::clone(&session)));
            } else {
                self.grown.insert(session.stream_id.clone());
            }
        }
        for session in ended {
            // A stream that ended before anybody was told of it is not told of.
            self.grown.remove(&session.stream_id);
            if self.sessions.remove(&session.stream_id).is_some() {
                self.say_to_all(&WorkerMessage::Session(Session::clone(&session)));
            }
        }
        if !serving {
            self.counters_at = now + COUNTERS_INTERVAL;
        }
    }

    /// Tells activators the counters that have grown, and those of an earlier version all sessions now and then.
    fn tell_counters(&mut self) {
        self.counted = self.counted.wrapping_add(1);
        let grown: Vec<String> = std::mem::take(&mut self.grown).into_iter().collect();
        let sessions = &self.sessions;
        let counters = |ids: &[String]| {
            let known = ids.iter().filter_map(|id| sessions.get(id));
            WorkerMessage::Counters(known.map(|session| SessionCounters::of(session)).collect())
        };
        for (attempt, call) in &self.calls {
            let takes = |welcome: &Welcome| welcome.counters;
            if call.welcome.as_ref().is_some_and(takes) {
                let messages = grown.chunks(COUNTED).map(|ids| Output::Say(*attempt, counters(ids)));
                self.outputs.extend(messages);
            } else if self.counted.is_multiple_of(SESSIONS_EVERY) {
                let all = sessions.values().map(|session| WorkerMessage::Session(Session::clone(session)));
                self.outputs.extend(all.map(|message| Output::Say(*attempt, message)));
            }
        }
    }

    /// Chooses the activator that shows this worker's metrics: the one that it has been registered at for longest.
    fn note_teller(&mut self) {
        if self.teller.is_some_and(|attempt| self.calls.contains_key(&attempt)) {
            return;
        }
        let takes = |call: &Call| call.welcome.as_ref().is_some_and(|welcome| welcome.totals);
        self.teller = self.calls.iter().find(|(_, call)| takes(call)).map(|(attempt, _)| *attempt);
        self.totals_at = None;
        self.tell_totals(true);
    }

    fn tell_totals(&mut self, anew: bool) {
        self.outputs.extend(self.teller.map(|attempt| Output::TellTotals { attempt, anew }));
    }

    fn leave(&mut self, now: Instant) {
        self.draining = true;
        self.left = true;
        // A growth after this is lost.
        self.tell_totals(false);
        self.say_to_all(&WorkerMessage::Goodbye);
        self.discover(now, discovery::Input::Stop);
    }

    fn availability(&self) -> Availability {
        match (self.draining, self.leaving, self.cordoned()) {
            (true, ..) => Availability::Draining,
            (false, true, _) => Availability::Leaving,
            // Without streams there is no difference, and the activator that cordons workers waits for this word.
            (false, false, true) if !self.drained || self.streams() == 0 => Availability::Cordoned,
            _ if self.drained => Availability::Drained,
            _ => Availability::Open,
        }
    }

    /// True if an activator's cordon alone is why offers are declined.
    fn cordoned(&self) -> bool {
        !self.draining && (self.returns_at.is_some() || self.calls.values().any(|call| call.cordon.is_on()))
    }

    fn note_leaving(&mut self, now: Instant) {
        let told = self.calls.values().any(|call| call.cordon == Cordon::Leaving);
        let leaving = !self.draining && self.streams() == 0 && told;
        if std::mem::replace(&mut self.leaving, leaving) && !leaving {
            self.returns_at = Some(now + RETURN_AFTER);
        }
    }

    fn load(&self) -> Load {
        Load { streams: self.streams(), capacity: self.settings.capacity, availability: self.availability() }
    }

    fn tell_load(&mut self, now: Instant) {
        if self.told != self.load() {
            self.repeat_load(now);
        }
    }

    fn repeat_load(&mut self, now: Instant) {
        self.load_at = now + LOAD_INTERVAL;
        self.told = self.load();
        self.say_to_all(&WorkerMessage::Load(self.told));
    }

    fn say_to_all(&mut self, message: &WorkerMessage) {
        self.outputs.extend(self.calls.keys().map(|attempt| Output::Say(*attempt, message.clone())));
    }

    fn note_company(&mut self, now: Instant) {
        if self.joined() > 0 {
            self.alone_at = None;
            if std::mem::take(&mut self.alone) {
                self.outputs.push_back(Output::Alone(false));
            }
        } else if self.settings.exit_when_orphaned && !self.alone && !self.left {
            self.alone_at.get_or_insert(now + ALONE_AFTER);
        }
        if self.is_kept() || self.streams() > 0 {
            self.alone_since = None;
        } else if self.alone_since.is_none() {
            self.alone_since = Some(now);
        }
    }

    /// True if there is an activator for which the worker runs. One that was started by an activator runs for that one: any other activator that it
    /// finds when the first has crashed goes on with its streams, and does not know when to end its process.
    fn is_kept(&self) -> bool {
        let starter = |call: &Call| call.welcome.as_ref().map(|welcome| &welcome.activator) == self.starter.as_ref();
        self.joined() > 0 && (!self.settings.exit_when_orphaned || self.calls.values().any(starter))
    }

    fn orphaned_at(&self) -> Option<Instant> {
        self.alone_since.filter(|_| self.settings.exit_when_orphaned).map(|since| since + ORPHANED_AFTER)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
