//! Whom to follow, what those have told, and whether that is all. In: addresses, what peers say, ends, time. Out: what the shell does,
//! what the lobby is told. Pure.
//!
//! ```text
//!            Resolved, Introduced, Met    Welcome, Synced
//!  (unknown) ─────────────▶ Following ─────────────────────▶ Synced
//!                            ▲   │ ended, no Synced within 5 s  │ ended: vanished, its last word counts 60 s
//!                            │   ▼                              │ goodbye: forgotten
//!                           Waiting ◀───────────────────────────┘
//!                            └─ not resolved any more, or met and five failures: forgotten
//!  Following ─▶ Known        it is ourselves, or a peer that is synced by another address
//! ```
//! One such picture per address. A name that vanishes never ends a link that works.
//!
//! What surprised us: where two of us listen on one port, dialing it leads to either. So who finds itself there tries again a few times,
//! and everybody tells a port of its own, which is the one that workers are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use liveedgecast_common::key::{Identity, MAX_NAME_BYTES, is_instance_name};
use liveedgecast_common::setting::MAX_CAPACITY;

use super::limits::{
    ASK_EAGERLY, FIRST_DELAY, KEEP_VANISHED, MAX_ADDRESSES, MAX_ALL_FACTS, MAX_FACTS, MAX_FAILURES, MAX_HELD,
    MAX_IDENTITIES, MAX_PEERS, MAX_WORKERS, MOST_DELAY, MOST_LAG, RESOLVE_EAGERLY, RESOLVE_EVERY, SELF_DELAY,
    SELF_MEETINGS, SYNC_TIME, SYNC_TIMEOUT,
};
use super::proto::says::Say;
use super::proto::{Held as HeldSaid, Welcome, Worker as WorkerSaid};
use crate::dispatch::{Elsewhere, Tally, WorkerTally};
use liveedgecast_common::control::limits::MAX_EPOCH;

/// One attempt to follow, from its first SYN to its end. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkId(pub(super) u64);

/// What the shell tells the machine.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Every address of the name of all.
    Resolved(Vec<SocketAddr>),
    /// There was no answer to the question for them.
    Unresolved,
    /// The introducer has told of these; of none if it had no answer.
    Introduced(Vec<SocketAddr>),
    /// Somebody follows us and has said where it can be followed.
    Met(SocketAddr),
    /// A peer spoke.
    Said(LinkId, Say),
    /// It is not followed any more.
    Ended(LinkId),
}

/// What the machine asks of the shell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// Ask for the addresses.
    Resolve,
    /// Ask the introducer.
    Ask,
    /// Follow who is there.
    Follow(LinkId, SocketAddr),
    /// Not any more; nothing of it is reported after that.
    Hangup(LinkId),
    /// A peer is synced, has vanished or has said goodbye: its name and the word for it.
    Note(String, &'static str),
    /// For the lobby: somebody else's publisher (or it is gone).
    Held(String, u64, Option<Elsewhere>),
    /// For the lobby: nothing of this peer stands any more.
    Forget(String),
    /// For workers: an activator is there, or is not any more.
    Met(SocketAddr, bool),
    /// For who looks at numbers.
    Changed,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Waiting {
        until: Instant,
    },
    Following {
        until: Instant,
        welcome: Option<Welcome>,
        facts: Box<Facts>,
    },
    Synced {
        name: String,
        /// Where workers find it.
        at: SocketAddr,
    },
    Known,
}

/// Who we are among peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Nobody else's name.
    pub name: String,
    /// The control listener where we alone are found; port 0 for none.
    pub control: SocketAddr,
    /// In microseconds since 1970.
    pub started: u64,
    /// Whether others listen on the same ports, so that dialing the address of all leads to any of us.
    pub shares_ports: bool,
    /// Whether there is somebody to ask where the others are.
    pub introducer: bool,
}

impl Me {
    /// Where another one is found, that has this control port and was met at `ip`. Who shares our ports shares the host and its addresses;
    /// and by loopback everybody seems to come from the same one.
    pub(super) fn find(&self, ip: IpAddr, control_port: u32) -> Option<SocketAddr> {
        let port = u16::try_from(control_port).ok().filter(|port| *port != 0)?;
        Some(SocketAddr::new(if self.shares_ports { self.control.ip() } else { ip }, port))
    }
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    state: State,
    failures: u32,
    /// How often in a row we have found ourselves there.
    selves: u32,
}

/// What a peer has told.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    held: BTreeMap<u64, Elsewhere>,
    workers: BTreeMap<String, WorkerTally>,
    acts: bool,
    /// About as many as they take.
    bytes: usize,
}

/// A peer that has told everything at least once.
#[derive(Debug)]
struct Peer {
    facts: Facts,
    /// In microseconds since 1970, by its clock.
    started: u64,
    /// Since when it is not heard any more.
    vanished: Option<Instant>,
}

/// See the picture above.
#[derive(Debug)]
pub(super) struct Peers {
    me: Me,
    started: Instant,
    links: BTreeMap<SocketAddr, Link>,
    /// By name; `None` before the first answer.
    resolved: Option<BTreeSet<SocketAddr>>,
    resolve_at: Option<Instant>,
    /// If there is an introducer: when to ask it.
    ask_at: Option<Instant>,
    /// It has told of somebody.
    introduced: bool,
    /// Of the introducer's, good or not.
    answers: u32,
    peers: BTreeMap<String, Peer>,
    next_id: u64,
    outputs: VecDeque<Output>,
}

impl Peers {
    /// Nobody is known yet.
    pub(super) fn new(now: Instant, me: Me) -> Self {
        let ask_at = me.introducer.then_some(now);
        Self {
            me,
            started: now,
            links: BTreeMap::new(),
            resolved: None,
            resolve_at: None,
            ask_at,
            introduced: false,
            answers: 0,
            peers: BTreeMap::new(),
            next_id: 0,
            outputs: VecDeque::from([Output::Resolve]),
        }
    }

    /// Who we are.
    pub(super) fn me(&self) -> &Me {
        &self.me
    }

    /// Whether somebody is there who was started after us. Where ports are shared, that is who they are left to.
    pub(super) fn has_heir(&self) -> bool {
        let ours = (self.me.started, self.me.name.as_str());
        self.peers.iter().any(|(name, peer)| peer.vanished.is_none() && (peer.started, name.as_str()) > ours)
    }

    /// Workers that others have told of and that are not about to go.
    pub(super) fn workers(&self) -> impl Iterator<Item = &str> {
        let fresh = self.peers.values().filter(|peer| peer.vanished.is_none());
        let all = fresh.flat_map(|peer| &peer.facts.workers);
        all.filter(|(_, worker)| !worker.draining).map(|(name, _)| name.as_str())
    }

    /// Whether there was the time to find everybody.
    pub(super) fn had_time(&self, now: Instant) -> bool {
        now >= self.started + SYNC_TIME
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub(super) fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Resolved(addresses) => self.resolved(now, addresses),
            Input::Unresolved => self.resolve_later(now),
            Input::Introduced(addresses) => self.introduced(now, &addresses),
            Input::Met(address) => self.follow_new(now, address),
            Input::Said(link, say) => self.said(now, link, say),
            Input::Ended(link) => self.ended(now, link),
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.resolve_at.is_some_and(|at| at <= now) {
            self.resolve_at = None;
            self.outputs.push_back(Output::Resolve);
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
            self.outputs.push_back(Output::Ask);
        }
        let due: Vec<SocketAddr> =
            self.links.iter().filter(|(_, link)| link.due().is_some_and(|at| at <= now)).map(|(at, _)| *at).collect();
        for address in due {
            let Some(link) = self.links.get(&address) else { continue };
            match link.state {
                State::Waiting { .. } => self.follow(now, address),
                State::Following { .. } => {
                    let id = link.id;
                    self.outputs.push_back(Output::Hangup(id));
                    self.ended(now, id);
                }
                State::Synced { .. } | State::Known => {}
            }
        }
        let before = self.peers.len();
        self.peers.retain(|_, peer| peer.vanished.is_none_or(|at| now < at + KEEP_VANISHED));
        if self.peers.len() != before {
            self.outputs.push_back(Output::Changed);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let vanished = self.peers.values().filter_map(|peer| peer.vanished.map(|at| at + KEEP_VANISHED));
        self.links.values().filter_map(Link::due).chain(vanished).chain(self.resolve_at).chain(self.ask_at).min()
    }

    /// The next thing to do.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What those tell that can be heard.
    pub(super) fn fresh(&self) -> Vec<Tally> {
        self.peers.values().filter(|peer| peer.vanished.is_none()).map(|peer| peer.facts.tally()).collect()
    }

    /// What those have told that have vanished.
    pub(super) fn last(&self) -> Vec<Tally> {
        self.peers.values().filter(|peer| peer.vanished.is_some()).map(|peer| peer.facts.tally()).collect()
    }

    /// Whether none of those that can be heard and that can act has a smaller name.
    #[cfg(feature = "kubernetes")]
    pub(super) fn is_first(&self) -> bool {
        let acting = self.peers.iter().filter(|(_, peer)| peer.vanished.is_none() && peer.facts.acts);
        acting.map(|(name, _)| name).min().is_none_or(|name| *name > self.me.name)
    }

    /// Peers that can be heard, and addresses that lead to nobody.
    pub(super) fn count(&self) -> (usize, usize) {
        let lost = |link: &&Link| matches!(link.state, State::Waiting { .. } | State::Following { .. });
        (self.peers.values().filter(|peer| peer.vanished.is_none()).count(), self.links.values().filter(lost).count())
    }

    /// Whether publishers may be sent here: all that the name leads to can be heard, or they had the time.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.had_time(now) || self.is_complete()
    }

    /// Whether "nothing" may be said. Without a name server or an introducer we do not know whom we have not heard, however long it
    /// lasts. When there is nobody else, workers need the time: they may serve streams that nobody tells of.
    pub(super) fn is_sure(&self, now: Instant) -> bool {
        let heard = self.peers.values().any(|peer| peer.vanished.is_none());
        (self.resolved.is_some() || self.introduced) && (self.had_time(now) || (heard && self.is_complete()))
    }

    fn is_complete(&self) -> bool {
        let known = |address| {
            self.links.get(address).is_some_and(|link| matches!(link.state, State::Synced { .. } | State::Known))
        };
        self.resolved.as_ref().is_some_and(|resolved| resolved.iter().all(known))
    }

    fn resolved(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        let resolved: BTreeSet<SocketAddr> = addresses.into_iter().take(MAX_ADDRESSES).collect();
        self.links.retain(|address, link| {
            let stays =
                resolved.contains(address) || matches!(link.state, State::Synced { .. } | State::Following { .. });
            stays || link.failures < MAX_FAILURES && matches!(link.state, State::Waiting { .. })
        });
        for address in &resolved {
            self.follow_new(now, *address);
        }
        self.resolved = Some(resolved);
        self.resolve_later(now);
    }

    fn resolve_later(&mut self, now: Instant) {
        let after = if self.resolved.is_some() { RESOLVE_EVERY } else { RESOLVE_EAGERLY };
        self.resolve_at = Some(now + after);
    }

    /// Whoever it leads to may be ourselves, and knows only those whom it has found: while all begin, each is asked often.
    fn introduced(&mut self, now: Instant, addresses: &[SocketAddr]) {
        self.introduced |= !addresses.is_empty();
        addresses.iter().for_each(|address| self.follow_new(now, *address));
        self.answers = self.answers.wrapping_add(1);
        let after = match self.had_time(now) {
            // Twice in a row: it may lead those who ask by turns.
            _ if self.answers % 2 == 1 => Duration::ZERO,
            false => ASK_EAGERLY,
            true => RESOLVE_EVERY,
        };
        self.ask_at = Some(now + after + self.lag());
    }

    /// Not that of others, as names are random: two that ask in step would be led, by who leads in turns, each to itself for ever.
    fn lag(&self) -> Duration {
        let sum = self.me.name.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        MOST_LAG * u32::from(sum) / u32::from(u8::MAX)
    }

    fn follow_new(&mut self, now: Instant, address: SocketAddr) {
        if !self.links.contains_key(&address) && self.links.len() < 2 * MAX_ADDRESSES {
            let state = State::Waiting { until: now };
            self.links.insert(address, Link { id: LinkId(0), state, failures: 0, selves: 0 });
            self.follow(now, address);
        }
    }

    fn follow(&mut self, now: Instant, address: SocketAddr) {
        self.next_id += 1;
        let id = LinkId(self.next_id);
        let Some(link) = self.links.get_mut(&address) else { return };
        link.id = id;
        link.state = State::Following { until: now + SYNC_TIMEOUT, welcome: None, facts: Box::default() };
        self.outputs.push_back(Output::Follow(id, address));
    }

    fn is_synced(&self, name: &str) -> bool {
        self.links.values().any(|link| matches!(&link.state, State::Synced { name: synced, .. } if synced == name))
    }

    fn find(&mut self, id: LinkId) -> Option<(SocketAddr, &mut Link)> {
        self.links.iter_mut().find(|(_, link)| link.id == id).map(|(address, link)| (*address, link))
    }

    /// Bytes that the facts of all peers take.
    fn bytes(&self) -> usize {
        let half_told = self.links.values().map(|link| match &link.state {
            State::Following { facts, .. } => facts.bytes,
            State::Waiting { .. } | State::Synced { .. } | State::Known => 0,
        });
        half_told.chain(self.peers.values().map(|peer| peer.facts.bytes)).sum()
    }

    /// Makes room for one more peer, at the cost of the one that has been away for longest. False when all are there.
    fn has_room(&mut self, name: &str) -> bool {
        if self.peers.len() < MAX_PEERS || self.peers.contains_key(name) {
            return true;
        }
        let away = self.peers.iter().filter_map(|(name, peer)| Some((peer.vanished?, name.clone()))).min();
        away.is_some_and(|(_, name)| self.peers.remove(&name).is_some())
    }

    fn said(&mut self, now: Instant, id: LinkId, say: Say) {
        let room = MAX_ALL_FACTS.saturating_sub(self.bytes());
        let Some((address, link)) = self.find(id) else { return };
        match (&mut link.state, say) {
            (State::Following { welcome: told, .. }, Say::Welcome(welcome)) => {
                if !is_instance_name(&welcome.activator) {
                    self.outputs.push_back(Output::Hangup(id));
                    self.ended(now, id);
                    return;
                }
                let name = welcome.activator.clone();
                *told = Some(welcome);
                if name == self.me.name {
                    self.found_ourselves(now, id);
                } else if self.is_synced(&name) {
                    self.know(id);
                }
            }
            (State::Following { welcome: Some(welcome), facts, .. }, Say::Synced(_)) => {
                let (welcome, facts) = (std::mem::take(welcome), std::mem::take(&mut **facts));
                let (name, started) = (welcome.activator, welcome.started);
                link.state = State::Known;
                let at = self.me.find(address.ip(), welcome.control_port).unwrap_or(address);
                // Two ways to it at once, and the other one was faster.
                if self.is_synced(&name) || !self.has_room(&name) {
                    self.outputs.push_back(Output::Hangup(id));
                    return;
                }
                let Some((_, link)) = self.find(id) else { return };
                (link.state, link.failures, link.selves) = (State::Synced { name: name.clone(), at }, 0, 0);
                self.outputs.push_back(Output::Note(name.clone(), "synced"));
                self.outputs.push_back(Output::Forget(name.clone()));
                let held =
                    facts.held.iter().map(|(number, held)| Output::Held(name.clone(), *number, Some(held.clone())));
                self.outputs.extend(held);
                self.peers.insert(name, Peer { facts, started, vanished: None });
                self.outputs.push_back(Output::Changed);
                self.outputs.push_back(Output::Met(at, true));
            }
            (State::Following { facts, .. }, say) => drop(facts.take(say, room)),
            (State::Synced { name, .. }, Say::Goodbye(_)) => {
                let name = name.clone();
                self.peers.remove(&name);
                self.outputs.push_back(Output::Note(name.clone(), "goodbye"));
                self.outputs.push_back(Output::Forget(name));
                self.outputs.push_back(Output::Changed);
            }
            (State::Synced { name, .. }, say) => {
                let name = name.clone();
                let Some(peer) = self.peers.get_mut(&name) else { return };
                if let Some((number, held)) = peer.facts.take(say, room) {
                    self.outputs.push_back(Output::Held(name, number, held));
                }
                self.outputs.push_back(Output::Changed);
            }
            (State::Waiting { .. } | State::Known, _) => {}
        }
    }

    /// The link has led to somebody for whom there is a better one.
    fn know(&mut self, id: LinkId) {
        if let Some((_, link)) = self.find(id) {
            (link.state, link.failures, link.selves) = (State::Known, 0, 0);
        }
        self.outputs.push_back(Output::Hangup(id));
    }

    /// The link has led to ourselves. On a shared port that says nothing about who else is there.
    fn found_ourselves(&mut self, now: Instant, id: LinkId) {
        let shares_ports = self.me.shares_ports;
        match self.find(id) {
            Some((_, link)) if shares_ports && link.selves + 1 < SELF_MEETINGS => {
                link.selves += 1;
                link.state = State::Waiting { until: now + SELF_DELAY };
                self.outputs.push_back(Output::Hangup(id));
            }
            _ => self.know(id),
        }
    }

    fn ended(&mut self, now: Instant, id: LinkId) {
        let Some((address, link)) = self.find(id) else { return };
        let last = std::mem::replace(&mut link.state, State::Waiting { until: now });
        if last == State::Known {
            link.state = last;
            return;
        }
        link.failures = link.failures.saturating_add(1);
        let failures = link.failures;
        let delay = FIRST_DELAY.saturating_mul(1 << (failures - 1).min(10)).min(MOST_DELAY);
        link.state = State::Waiting { until: now + delay };
        if let State::Synced { name, at } = last {
            self.outputs.push_back(Output::Met(at, false));
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.vanished = Some(now);
                self.outputs.push_back(Output::Note(name.clone(), "vanished"));
                self.outputs.push_back(Output::Forget(name));
                self.outputs.push_back(Output::Changed);
            }
            // What was another way to it is a way to try now.
            self.links.values_mut().filter(|link| link.state == State::Known).for_each(|link| {
                link.state = State::Waiting { until: now };
            });
        }
        let resolved = self.resolved.as_ref().is_some_and(|resolved| resolved.contains(&address));
        if !resolved && failures >= MAX_FAILURES {
            self.links.remove(&address);
        }
    }
}

impl Link {
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Following { until, .. } => Some(until),
            State::Synced { .. } | State::Known => None,
        }
    }
}

impl Facts {
    /// Notes what was said; gives what the lobby wants to know. Facts that cannot be are left out, and so are
    /// those beyond a bound or the `room` that is left: a peer that knows the secret may be broken all the same.
    fn take(&mut self, say: Say, room: usize) -> Option<(u64, Option<Elsewhere>)> {
        match say {
            Say::Held(said) => {
                let number = said.number;
                let held = elsewhere(said)?;
                let last = self.held.get(&number);
                let fits = last.is_some() || self.held.len() < MAX_HELD;
                let (less, more) = (last.map_or(0, Elsewhere::bytes), held.bytes());
                self.grow(less, more, room).filter(|()| fits)?;
                self.held.insert(number, held.clone());
                Some((number, Some(held)))
            }
            Say::Gone(number) => {
                self.bytes = self.bytes.saturating_sub(self.held.remove(&number)?.bytes());
                Some((number, None))
            }
            Say::Worker(worker) => {
                let (name, tally) = told(worker)?;
                let last = self.workers.get(&name);
                let fits = last.is_some() || self.workers.len() < MAX_WORKERS;
                let (less, more) = (last.map_or(0, WorkerTally::bytes), tally.bytes());
                self.grow(less, more, room).filter(|()| fits)?;
                self.workers.insert(name, tally);
                None
            }
            Say::WorkerGone(name) => {
                self.bytes = self.bytes.saturating_sub(self.workers.remove(&name)?.bytes());
                None
            }
            Say::Acts(acts) => {
                self.acts = acts;
                None
            }
            Say::Welcome(_) | Say::Synced(_) | Say::Goodbye(_) => None,
        }
    }

    /// Notes that something takes more or less than before; `None` when there is no room for it.
    fn grow(&mut self, less: usize, more: usize, room: usize) -> Option<()> {
        let others = self.bytes.saturating_sub(less);
        if more > less && (others + more > MAX_FACTS || more - less > room) {
            return None;
        }
        self.bytes = others + more;
        Some(())
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally { workers: self.workers.clone(), ..Tally::default() };
        for held in self.held.values() {
            if held.waiting {
                *tally.waiting.entry(held.app.clone()).or_default() += 1;
                tally.provided += usize::from(held.provided);
            } else if held.worker.is_empty() {
                *tally.loose.entry(held.app.clone()).or_default() += 1;
            } else {
                *tally.placed.entry(held.worker.clone()).or_default().entry(held.app.clone()).or_default() += 1;
            }
        }
        tally
    }
}

/// A publisher as it was told; `None` when it cannot be one.
fn elsewhere(said: HeldSaid) -> Option<Elsewhere> {
    let good = is_app(&said.app)
        && (said.worker.is_empty() || is_instance_name(&said.worker))
        && said.identities.len() <= MAX_IDENTITIES
        && said.epoch <= MAX_EPOCH;
    let identities = said.identities.iter();
    good.then(|| Elsewhere {
        identities: identities.filter_map(|bytes| bytes.as_slice().try_into().ok().map(Identity)).collect(),
        app: said.app,
        entered: said.entered,
        waiting: said.waiting,
        provided: said.provided,
        worker: said.worker,
        epoch: said.epoch,
    })
}

/// A worker as it was told; `None` when it cannot be one.
fn told(said: WorkerSaid) -> Option<(String, WorkerTally)> {
    let streams: u64 = said.streams.values().copied().map(u64::from).sum();
    let good = is_instance_name(&said.name)
        && said.room <= MAX_CAPACITY
        // Streams in grace come on top for a moment.
        && streams <= 2 * u64::from(MAX_CAPACITY)
        && said.streams.keys().all(|app| is_app(app));
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let WorkerSaid { draining, cordoned, leaving, .. } = said;
    good.then(|| {
        let streams = said.streams.into_iter().map(|(app, streams)| (app, count(streams))).collect();
        (said.name, WorkerTally { draining, cordoned, leaving, room: count(said.room), streams })
    })
}

/// Whether an app may be called this, as a worker's session has it: nothing if it was told by none.
fn is_app(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES + '…'.len_utf8() && !text.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
