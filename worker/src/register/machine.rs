//! The rules of registration: whom to dial and when, what to tell, which offers to take.
//!
//! In: addresses, ends of calls, what activators say, what the engine serves. Out: what the shell does. Next room:
//! `receive`, with an offer that was taken.
//!
//! ```text
//!             Resolved, Meet, Introduced  both proved         Welcome
//!  (unknown) ─────────▶ Dialing ───────────────────▶ Greeted ─────────────▶ Joined
//!                        ▲  │ lost                     │ lost, no Welcome     │ lost, hung up
//!                        │  ▼                          │ within 5 s           │
//!                       Waiting ◀──────────────────────┴──────────────────────┘
//!                        │
//!                        └─ the address is no longer resolved: forgotten
//!  Greeted ─▶ Alias      the activator that answered is joined already through another address (localhost is two)
//! ```
//! One such picture per address. Surprises: a name in DNS may vanish while its activator works, so a joined link is never
//! ended for that; and an activator that replaces a worker's older call by a newer one would make two addresses of one
//! activator take turns for ever, hence `Alias`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use liveedgecast_common::control::{
    ActivatorMessage, Availability, Cordon, DeclineReason, Declined, Hello, Load, Offer, Session, SessionState,
    Welcome, WorkerMessage,
};

use crate::config::Handoff;

/// Attempts that follow each other in [`FIRST_DELAY`]: one second in which an activator that starts together with us is
/// found at once. A SYN that got lost would be repeated only after that second.
const EAGER_ATTEMPTS: u32 = 10;
/// Between two of the first attempts, and how long each of them waits for the connection.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Between two attempts at most: what an activator that comes back costs at most in waiting.
const MOST_DELAY: Duration = Duration::from_secs(2);
/// After a refused proof: the secret will not become right by asking often.
const REFUSED_DELAY: Duration = Duration::from_secs(10);
/// From the activator's proof to Welcome. A call that hangs longer is given up.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// The load is repeated this often while anything is served (DESIGN 4.3): the activator tells a hung worker by its silence.
const LOAD_INTERVAL: Duration = Duration::from_millis(500);
/// Counters of sessions are repeated this often; their states are told at once.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(5);
/// Between two questions for the activator's addresses while one is joined.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// The same while none is: the name may have appeared just now.
const RESOLVE_EAGERLY: Duration = Duration::from_millis(500);
/// The introducer is asked when this has passed without an activator: most often the name's addresses are good and we are joined …
const ASK_AFTER: Duration = Duration::from_millis(50);
/// … and again after each answer that did not help.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Addresses of one name at most: a site has a few activators; a wrong name must not make us dial the world.
const MAX_ADDRESSES: usize = 64;
/// A worker that was started by an activator and has had none for this long has no reason to be.
const ORPHANED_AFTER: Duration = Duration::from_secs(5);
/// After so long without an activator, a worker that was started by one stops waiting for lost publishers: they return through an
/// activator, and a new one may have another secret. The first attempts are over by then, so a call that only broke is there again.
const ALONE_AFTER: Duration = Duration::from_secs(1);
/// After this many failures in a row of an address, its aliases are tried.
const ALIAS_PATIENCE: u32 = 5;
/// A worker whose pod might have gone takes nothing for this long after that was taken back: whoever heard the lower number just before
/// has acted on it by then, or will not.
const RETURN_AFTER: Duration = Duration::from_secs(6);

/// What a worker says of itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name; unique among the workers of its activators.
    pub name: String,
    /// Streams at most.
    pub capacity: u32,
    /// The host's network namespace; empty when it cannot be told.
    pub network: String,
    /// Where its metrics are; 0 for nowhere.
    pub http_port: u16,
    /// Its process id.
    pub pid: u32,
    /// Which offers fit.
    pub handoff: Handoff,
    /// Whether it ends by itself when it has no activator and serves nothing.
    pub exit_when_orphaned: bool,
    /// Whether there is somebody to ask where activators are.
    pub introducer: bool,
}

/// One attempt to join, from its first SYN to its end. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// Nobody there, or the connection broke.
    Broken,
    /// The activator did not accept our proof, or has not proved itself.
    Refused,
}

/// What the shell tells the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Every address of the activator's name.
    Resolved(Vec<SocketAddr>),
    /// The name could not be resolved just now.
    Unresolved,
    /// The introducer has told of these; of none if it had no answer.
    Introduced(Vec<SocketAddr>),
    /// The call is open and the activator has proved that it knows the secret: it can be spoken into.
    Connected(LinkId),
    /// The activator spoke.
    Said(LinkId, ActivatorMessage),
    /// The call has ended, or never came about.
    Ended(LinkId, LinkEnd),
    /// What the engine serves now: all of it.
    Sessions(Vec<Session>),
    /// A taken offer ended well: the engine has the stream.
    Taken(String),
    /// A taken offer could not be fetched.
    NotTaken(LinkId, String, u64),
    /// From now on nothing more is taken.
    Drain,
    /// Say goodbye and end all calls.
    Leave,
}

/// What the machine asks of the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Ask for the addresses.
    Resolve,
    /// Ask the introducer.
    Ask,
    /// Open a call.
    Dial {
        /// What events are to be reported for.
        link: LinkId,
        /// Where to.
        address: SocketAddr,
        /// How long the connection may take.
        patience: Duration,
    },
    /// Say this in the call.
    Say(LinkId, WorkerMessage),
    /// End the call; nothing more is reported for it. What was said before is still sent.
    Hangup(LinkId),
    /// Fetch the stream and answer with [`Input::Taken`] or [`Input::NotTaken`].
    Take {
        /// Who offered.
        link: LinkId,
        /// Where the activator was dialed.
        address: SocketAddr,
        /// What it said of itself.
        welcome: Welcome,
        /// The offer.
        offer: Offer,
    },
    /// End a stream.
    Kick {
        /// Which.
        stream_id: String,
        /// For the log and the publisher.
        reason: String,
    },
    /// End what there is of a stream under a lower epoch than this: another worker has it.
    Fence {
        /// Which.
        stream_id: String,
        /// The other worker's claim.
        epoch: u64,
    },
    /// Whether no activator is there through which a lost publisher could return.
    Alone(bool),
    /// There is no activator any more and nothing to do.
    Orphaned,
}

#[derive(Clone, Debug)]
enum State {
    Waiting { until: Instant },
    Dialing,
    Greeted { until: Instant },
    Joined { welcome: Welcome, cordon: Cordon },
    Alias { of: SocketAddr },
}

#[derive(Clone, Debug)]
struct Link {
    id: LinkId,
    state: State,
    failures: u32,
}

/// See the picture above.
#[derive(Debug)]
pub struct Register {
    settings: Settings,
    links: BTreeMap<SocketAddr, Link>,
    resolved: BTreeSet<SocketAddr>,
    /// Activators that others have told of and that the name does not lead to (yet).
    met: BTreeSet<SocketAddr>,
    resolve_at: Option<Instant>,
    /// When to ask the introducer, while it is not being asked.
    ask_at: Option<Instant>,
    next_id: u64,
    /// What activators were told last, by stream.
    sessions: BTreeMap<String, Session>,
    /// Offers taken that the engine does not list yet, by stream.
    taking: BTreeMap<String, u64>,
    told: Load,
    load_at: Instant,
    counters_at: Instant,
    draining: bool,
    /// Cordoned, without a stream, and told that our pod may go.
    leaving: bool,
    /// That was taken back; until then we are cordoned all the same.
    returns_at: Option<Instant>,
    left: bool,
    /// Since when no activator is joined and nothing is served.
    alone_since: Option<Instant>,
    /// When that is told to streams that are served without an activator.
    alone_at: Option<Instant>,
    /// It was told.
    alone: bool,
    outputs: VecDeque<Output>,
}

impl Register {
    /// Begins by asking for addresses.
    #[must_use]
    pub fn new(now: Instant, settings: Settings) -> Self {
        let ask_at = settings.introducer.then(|| now + ASK_AFTER);
        Self {
            told: Load { capacity: settings.capacity, ..Load::default() },
            settings,
            links: BTreeMap::new(),
            resolved: BTreeSet::new(),
            met: BTreeSet::new(),
            resolve_at: Some(now + RESOLVE_EAGERLY),
            ask_at,
            next_id: 0,
            sessions: BTreeMap::new(),
            taking: BTreeMap::new(),
            load_at: now,
            counters_at: now,
            draining: false,
            leaving: false,
            returns_at: None,
            left: false,
            alone_since: Some(now),
            alone_at: None,
            alone: false,
            outputs: VecDeque::from([Output::Resolve]),
        }
    }

    /// Streams that count against the capacity: served or being fetched.
    #[must_use]
    pub fn streams(&self) -> u32 {
        let fetched = self.taking.keys().filter(|id| !self.sessions.contains_key(*id)).count();
        u32::try_from(self.sessions.len() + fetched).unwrap_or(u32::MAX)
    }

    /// Activators that know us.
    #[must_use]
    pub fn joined(&self) -> usize {
        self.links.values().filter(|link| matches!(link.state, State::Joined { .. })).count()
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Resolved(addresses) => self.resolved(now, addresses),
            Input::Unresolved => self.resolve_later(now),
            Input::Introduced(addresses) => {
                addresses.iter().for_each(|address| self.meet(now, *address));
                self.ask_at = Some(now + ASK_EVERY);
            }
            Input::Connected(link) => self.connected(now, link),
            Input::Said(link, say) => self.said(now, link, say),
            Input::Ended(link, end) => self.ended(now, link, end),
            Input::Sessions(sessions) => self.sessions(now, sessions),
            Input::Taken(stream_id) => {
                self.taking.remove(&stream_id);
            }
            Input::NotTaken(link, stream_id, epoch) => {
                // A newer offer of the same stream may be on its way by now.
                if self.taking.get(&stream_id) == Some(&epoch) {
                    self.taking.remove(&stream_id);
                }
                self.decline(link, stream_id, epoch, DeclineReason::Unreachable);
            }
            Input::Drain => self.draining = true,
            Input::Leave => self.leave(),
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
        if self.resolve_at.is_some_and(|at| at <= now) {
            self.resolve_at = None;
            self.outputs.push_back(Output::Resolve);
        }
        if self.asks_at().is_some_and(|at| at <= now) {
            self.ask_at = None;
            self.outputs.push_back(Output::Ask);
        }
        let due: Vec<SocketAddr> = self.links.iter().filter(|(_, link)| link.is_due(now)).map(|(at, _)| *at).collect();
        for address in due {
            self.link_due(now, address);
        }
        self.returns_at = self.returns_at.filter(|at| *at > now);
        self.tell_load(now);
        if self.streams() > 0 && self.load_at <= now {
            self.repeat_load(now);
        }
        if self.streams() > 0 && self.counters_at <= now {
            self.counters_at = now + COUNTERS_INTERVAL;
            let all: Vec<Session> = self.sessions.values().cloned().collect();
            all.into_iter().for_each(|session| self.say_to_all(&WorkerMessage::Session(session)));
        }
        if self.alone_at.is_some_and(|at| at <= now) {
            self.alone_at = None;
            self.alone = true;
            self.outputs.push_back(Output::Alone(true));
        }
        if self.orphaned_at().is_some_and(|at| at <= now) {
            // Said once: the shell ends the process.
            self.left = true;
            self.outputs.push_back(Output::Orphaned);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let links = self.links.values().filter_map(Link::due);
        let serving = (self.streams() > 0).then_some([self.load_at, self.counters_at]).into_iter().flatten();
        let rest = self.asks_at().into_iter().chain(self.returns_at).chain(self.orphaned_at()).chain(self.alone_at);
        links.chain(serving).chain(self.resolve_at).chain(rest).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn resolved(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        self.resolved = addresses.into_iter().take(MAX_ADDRESSES).collect();
        self.resolve_later(now);
        self.met.retain(|at| !self.resolved.contains(at));
        let known = |at: &&SocketAddr| self.resolved.contains(*at) || self.met.contains(*at);
        let gone: Vec<SocketAddr> = self.links.keys().filter(|at| !known(at)).copied().collect();
        for address in gone {
            self.forget_unless_used(address);
        }
        for address in self.resolved.clone() {
            self.dial_new(now, address);
        }
    }

    fn dial_new(&mut self, now: Instant, address: SocketAddr) {
        if !self.left && !self.links.contains_key(&address) {
            self.links.insert(address, Link { id: LinkId(0), state: State::Waiting { until: now }, failures: 0 });
            self.dial(address);
        }
    }

    /// An activator has told of another one, or of itself: a name server may tell of it half a minute later.
    fn meet(&mut self, now: Instant, address: SocketAddr) {
        if !self.resolved.contains(&address) && self.met.len() < MAX_ADDRESSES {
            self.met.insert(address);
            self.dial_new(now, address);
        }
    }

    /// Who is joined needs nobody to ask: activators tell of each other.
    fn asks_at(&self) -> Option<Instant> {
        self.ask_at.filter(|_| self.joined() == 0)
    }

    fn resolve_later(&mut self, now: Instant) {
        let after = if self.joined() > 0 { RESOLVE_INTERVAL } else { RESOLVE_EAGERLY };
        self.resolve_at = Some(now + after);
    }

    fn forget_unless_used(&mut self, address: SocketAddr) {
        let Some(link) = self.links.get(&address) else { return };
        match link.state {
            State::Greeted { .. } | State::Joined { .. } => {}
            State::Dialing => {
                self.outputs.push_back(Output::Hangup(link.id));
                self.links.remove(&address);
            }
            State::Waiting { .. } | State::Alias { .. } => {
                self.links.remove(&address);
            }
        }
    }

    fn dial(&mut self, address: SocketAddr) {
        self.next_id += 1;
        let id = LinkId(self.next_id);
        let Some(link) = self.links.get_mut(&address) else { return };
        (link.id, link.state) = (id, State::Dialing);
        let patience = delay(link.failures);
        self.outputs.push_back(Output::Dial { link: id, address, patience });
    }

    fn find(&mut self, id: LinkId) -> Option<(SocketAddr, &mut Link)> {
        self.links.iter_mut().find(|(_, link)| link.id == id).map(|(address, link)| (*address, link))
    }

    fn connected(&mut self, now: Instant, id: LinkId) {
        let hello = self.hello();
        let Some((_, link @ Link { state: State::Dialing, .. })) = self.find(id) else { return };
        link.state = State::Greeted { until: now + WELCOME_TIMEOUT };
        self.outputs.push_back(Output::Say(id, WorkerMessage::Hello(hello)));
    }

    fn hello(&self) -> Hello {
        Hello {
            name: self.settings.name.clone(),
            capacity: self.settings.capacity,
            availability: self.availability(),
            sessions: self.sessions.values().cloned().collect(),
            network: match self.settings.handoff {
                // Without a name nobody can find that we share one.
                Handoff::Link => String::new(),
                Handoff::Auto | Handoff::Descriptor => self.settings.network.clone(),
            },
            http_port: self.settings.http_port,
            pid: self.settings.pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn said(&mut self, now: Instant, id: LinkId, say: ActivatorMessage) {
        match say {
            ActivatorMessage::Welcome(welcome) => self.welcomed(now, id, welcome),
            ActivatorMessage::Offer(offer) => self.offered(id, offer),
            ActivatorMessage::UnreadableOffer { stream_id, epoch } => {
                self.decline(id, stream_id, epoch, DeclineReason::Other);
            }
            ActivatorMessage::Cordon(said) => {
                if let Some((_, Link { state: State::Joined { cordon, .. }, .. })) = self.find(id) {
                    *cordon = said;
                }
            }
            ActivatorMessage::Meet(address) => self.meet(now, address),
            ActivatorMessage::Kick { stream_id, reason } => {
                self.outputs.push_back(Output::Kick { stream_id, reason });
            }
            ActivatorMessage::Fence { stream_id, epoch } => {
                self.outputs.push_back(Output::Fence { stream_id, epoch });
            }
        }
    }

    fn welcomed(&mut self, now: Instant, id: LinkId, welcome: Welcome) {
        let Some((address, Link { state: State::Greeted { .. }, .. })) = self.find(id) else { return };
        let twin = self.links.iter().find(|(other, link)| {
            **other != address
                && matches!(&link.state, State::Joined { welcome: known, .. } if known.activator == welcome.activator)
        });
        let twin = twin.map(|(other, _)| *other);
        let Some((_, link)) = self.find(id) else { return };
        if let Some(of) = twin.filter(|_| !welcome.activator.is_empty()) {
            link.state = State::Alias { of };
            self.outputs.push_back(Output::Hangup(id));
            return;
        }
        link.failures = 0;
        link.state = State::Joined { welcome, cordon: Cordon::default() };
        self.resolve_later(now);
    }

    fn ended(&mut self, now: Instant, id: LinkId, end: LinkEnd) {
        let Some((address, link)) = self.find(id) else { return };
        link.failures = link.failures.saturating_add(1);
        let wait = match end {
            LinkEnd::Broken => delay(link.failures),
            LinkEnd::Refused => REFUSED_DELAY,
        };
        link.state = State::Waiting { until: now + wait };
        let failures = link.failures;
        if failures >= EAGER_ATTEMPTS {
            self.met.remove(&address);
        }
        let known = self.resolved.contains(&address) || self.met.contains(&address);
        if !known || self.left {
            self.links.remove(&address);
        } else if failures == ALIAS_PATIENCE {
            self.wake_aliases(address);
        }
    }

    fn wake_aliases(&mut self, of: SocketAddr) {
        let aliases: Vec<SocketAddr> = self
            .links
            .iter()
            .filter(|(_, link)| matches!(link.state, State::Alias { of: other } if other == of))
            .map(|(address, _)| *address)
            .collect();
        aliases.into_iter().for_each(|address| self.dial(address));
    }

    fn link_due(&mut self, now: Instant, address: SocketAddr) {
        let Some(link) = self.links.get(&address) else { return };
        match link.state {
            State::Waiting { .. } => self.dial(address),
            State::Greeted { .. } => {
                let id = link.id;
                self.outputs.push_back(Output::Hangup(id));
                self.ended(now, id, LinkEnd::Broken);
            }
            State::Dialing | State::Joined { .. } | State::Alias { .. } => {}
        }
    }

    /// The worker is the authority on what it can take (DESIGN 4.3).
    fn offered(&mut self, id: LinkId, offer: Offer) {
        let judged = self.judge(&offer);
        let Some((address, Link { state: State::Joined { welcome, .. }, .. })) = self.find(id) else { return };
        match judged {
            Err(reason) => self.decline(id, offer.stream_id, offer.epoch, reason),
            Ok(()) => {
                let welcome = welcome.clone();
                self.taking.insert(offer.stream_id.clone(), offer.epoch);
                self.outputs.push_back(Output::Take { link: id, address, welcome, offer });
            }
        }
    }

    fn judge(&self, offer: &Offer) -> Result<(), DeclineReason> {
        let id = &offer.stream_id;
        let newest = self.sessions.get(id).map(|session| session.epoch).max(self.taking.get(id).copied());
        let unfit = match self.settings.handoff {
            Handoff::Auto => false,
            Handoff::Descriptor => !offer.descriptor,
            Handoff::Link => offer.descriptor,
        };
        // A stream that it has comes back to a cordoned worker: its connection broke, or its activator lost the place.
        if self.draining || (self.cordoned() && newest.is_none()) {
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

    /// A stream in grace gets its publisher back under a new stream id (DESIGN 4.7) and then holds one place, not two.
    fn room(&self) -> u32 {
        let grace = self.sessions.values().filter(|session| session.state == SessionState::Grace).count();
        self.settings.capacity.saturating_add(u32::try_from(grace).unwrap_or(u32::MAX))
    }

    fn decline(&mut self, link: LinkId, stream_id: String, epoch: u64, reason: DeclineReason) {
        self.say(link, WorkerMessage::Declined(Declined { stream_id, epoch, reason }));
    }

    fn sessions(&mut self, now: Instant, sessions: Vec<Session>) {
        let serving = !self.sessions.is_empty();
        let mut before = std::mem::take(&mut self.sessions);
        for session in sessions {
            let last = before.remove(&session.stream_id);
            let ended = session.state == SessionState::Ended;
            if last.as_ref().is_none_or(|last| last.without_counters() != session.without_counters())
                && !(last.is_none() && ended)
            {
                self.say_to_all(&WorkerMessage::Session(session.clone()));
            }
            if !ended {
                self.sessions.insert(session.stream_id.clone(), session);
            }
        }
        for (_, mut gone) in before {
            gone.state = SessionState::Ended;
            self.say_to_all(&WorkerMessage::Session(gone));
        }
        if !serving {
            self.counters_at = now + COUNTERS_INTERVAL;
        }
    }

    fn leave(&mut self) {
        self.draining = true;
        self.left = true;
        let links: Vec<(SocketAddr, LinkId, bool)> =
            self.links.iter().map(|(address, link)| (*address, link.id, link.is_open())).collect();
        for (address, id, open) in links {
            if open {
                self.outputs.push_back(Output::Say(id, WorkerMessage::Goodbye));
            }
            self.outputs.push_back(Output::Hangup(id));
            self.links.remove(&address);
        }
    }

    fn availability(&self) -> Availability {
        match (self.draining, self.leaving, self.cordoned()) {
            (true, ..) => Availability::Draining,
            (false, true, _) => Availability::Leaving,
            (false, false, true) => Availability::Cordoned,
            (false, false, false) => Availability::Open,
        }
    }

    /// Whether that is an activator's wish alone.
    fn cordoned(&self) -> bool {
        let cordoned = |link: &Link| matches!(link.state, State::Joined { cordon, .. } if cordon.is_on());
        !self.draining && (self.returns_at.is_some() || self.links.values().any(cordoned))
    }

    fn note_leaving(&mut self, now: Instant) {
        let told = |link: &Link| matches!(link.state, State::Joined { cordon: Cordon::Leaving, .. });
        let leaving = !self.draining && self.streams() == 0 && self.links.values().any(told);
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

    fn say_to_all(&mut self, say: &WorkerMessage) {
        let open = self.links.values().filter(|link| link.is_open()).map(|link| Output::Say(link.id, say.clone()));
        self.outputs.extend(open);
    }

    fn say(&mut self, id: LinkId, say: WorkerMessage) {
        if self.find(id).is_some_and(|(_, link)| link.is_open()) {
            self.outputs.push_back(Output::Say(id, say));
        }
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
        if self.joined() > 0 || self.streams() > 0 {
            self.alone_since = None;
        } else if self.alone_since.is_none() {
            self.alone_since = Some(now);
        }
    }

    fn orphaned_at(&self) -> Option<Instant> {
        self.alone_since.filter(|_| self.settings.exit_when_orphaned).map(|since| since + ORPHANED_AFTER)
    }
}

impl Link {
    /// Whether it can be spoken into: Hello was said.
    fn is_open(&self) -> bool {
        matches!(self.state, State::Greeted { .. } | State::Joined { .. })
    }

    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Greeted { until } => Some(until),
            State::Dialing | State::Joined { .. } | State::Alias { .. } => None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|until| until <= now)
    }
}

/// Between attempts, after so many failures in a row. Without jitter: a worker dials a handful of addresses, and a hundred
/// workers that come back together are a hundred small calls.
fn delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(EAGER_ATTEMPTS).min(16);
    (FIRST_DELAY * (1 << doublings)).min(MOST_DELAY)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
