//! The other activators: the calls to them, their facts, and the completeness of these. Pure.
//!
//! In: results of [`Discovery`] and of calls, messages of peers. Out: orders to the shell, news for the lobby. Next: `lobby`.
//!
//! ```text
//!           Welcome, changes      Synced             ended: vanished, its facts count for 60 s
//!  Telling ──────────────────────────────▶ Synced ──────────────────────────────────────────▶ dialed again
//!     │ leads to ourselves, or a peer        │ Goodbye: its facts are forgotten, the call ends
//!     │ that is synced by another address    ▼
//!     └─▶ hung up: an alias
//! ```
//! The picture is that of one call; [`Discovery`] decides about the times and addresses of calls.
//!
//! Note: where two activators listen on one port, dialing it leads to either. So an activator that finds itself there tries again a few
//! times, and every activator tells the others a port of its own, at which workers find it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use liveedgecast_common::discovery::{self, AttemptId, Discovery, RESOLVE_EVERY, Wanted};

use super::facts::{PeerFacts, PeerMessage, PeerWelcome};
use super::limits::{
    ASK_EAGERLY, KEEP_VANISHED, MAX_ALL_FACTS, MAX_FAILURES, MAX_LAG, MAX_PEERS, SELF_DELAY, SELF_MEETINGS, SYNC_TIME,
    SYNC_TIMEOUT,
};
use crate::dispatch::{BaselineCounter, Elsewhere, Tally};

/// How this machine finds activators.
const DISCOVERY: discovery::Rules = discovery::Rules {
    eager_attempts: 1,
    dial_timeout: Some(SYNC_TIMEOUT),
    wanted: Wanted::All,
    told_failures: MAX_FAILURES,
    unlisted_failures: MAX_FAILURES,
    // When a peer is lost, every other address that led to it is dialed at once.
    alias_patience: 1,
};

/// Inputs from the shell.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Every address of the name of all.
    Resolved(Vec<SocketAddr>),
    /// The name could not be resolved just now.
    Unresolved,
    /// Addresses of the introducer's answer; none if it had no answer.
    Introduced(Vec<SocketAddr>),
    /// Address at which an activator that follows this one can be followed.
    Met(SocketAddr),
    /// A message of a peer.
    Said(AttemptId, PeerMessage),
    /// The call has ended, or never came about.
    Ended(AttemptId),
}

/// Orders to the shell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// Ask for the addresses.
    Resolve,
    /// Ask the introducer.
    Ask,
    /// Follow the activator at this address.
    Follow(AttemptId, SocketAddr),
    /// End the call; nothing of it is reported after that.
    HangUp(AttemptId),
    /// A turn of the peer of this name, for the log.
    Turned(String, Turn),
    /// A peer's publisher, for the lobby: the peer's name, the publisher's number there, and the publisher or `None` once it is gone.
    Held(String, u64, Option<Elsewhere>),
    /// No publisher of this peer stands any more, for the lobby.
    Forget(String),
    /// An activator is at this address (true) or is not any more, for workers.
    Met(SocketAddr, bool),
    /// The demand may have changed.
    Changed,
}

/// Turns in the life of a peer, as seen from this activator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The peer has told everything.
    Synced,
    /// The call to the peer broke.
    Vanished,
    /// The peer has said goodbye.
    Left,
}

/// A call to a peer.
#[derive(Clone, Debug, PartialEq)]
enum Following {
    /// The peer has not told everything yet.
    Telling { address: SocketAddr, welcome: Option<PeerWelcome>, facts: PeerFacts },
    /// The peer has told everything and tells changes.
    Synced {
        name: String,
        /// Address at which workers find the peer.
        at: SocketAddr,
    },
}

/// The identity of this activator among its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Name, unique among activators.
    pub name: String,
    /// The control listener where this activator alone is found; port 0 for none.
    pub control: SocketAddr,
    /// Start of the process, in microseconds since 1970.
    pub started: u64,
    /// True if others listen on the same ports, so that dialing the address of all leads to any of them.
    pub shares_ports: bool,
    /// True if there is an introducer, which tells the addresses of the others.
    pub introducer: bool,
}

impl Me {
    /// The address of a peer that has this control port and was met at `ip`; `None` for port 0. A peer on shared ports has this activator's
    /// host and addresses, whereas `ip` may be a loopback address, from which all peers seem to come.
    pub(super) fn find(&self, ip: IpAddr, control_port: u16) -> Option<SocketAddr> {
        let ip = if self.shares_ports { self.control.ip() } else { ip };
        (control_port != 0).then(|| SocketAddr::new(ip, control_port))
    }
}

/// A peer that has told everything at least once.
#[derive(Debug)]
struct KnownPeer {
    facts: PeerFacts,
    /// Start of its process, in microseconds since 1970 by its clock.
    started: u64,
    /// Time of its loss, if it is not heard any more.
    vanished: Option<Instant>,
}

/// See the picture above.
#[derive(Debug)]
pub(super) struct Peers {
    me: Me,
    started: Instant,
    discovery: Discovery,
    calls: BTreeMap<AttemptId, Following>,
    /// Number of dials in a row that led back to this activator, by address, while these are repeated.
    selves: BTreeMap<SocketAddr, u32>,
    /// Answers of the introducer, good or not.
    answers: u32,
    /// Peers by name.
    peers: BTreeMap<String, KnownPeer>,
    outputs: VecDeque<Output>,
}

impl Peers {
    /// No peer is known yet.
    pub(super) fn new(now: Instant, me: Me) -> Self {
        let ask_at = me.introducer.then_some(now);
        let mut peers = Self {
            me,
            started: now,
            discovery: Discovery::new(now, DISCOVERY, ask_at),
            calls: BTreeMap::new(),
            selves: BTreeMap::new(),
            answers: 0,
            peers: BTreeMap::new(),
            outputs: VecDeque::new(),
        };
        peers.dial();
        peers
    }

    /// The identity that peers are told.
    pub(super) fn me(&self) -> &Me {
        &self.me
    }

    /// True if a peer can be heard that was started after this activator. Shared ports are left to it.
    pub(super) fn has_heir(&self) -> bool {
        let ours = (self.me.started, self.me.name.as_str());
        self.heard().any(|(name, peer)| (peer.started, name.as_str()) > ours)
    }

    /// The activator that counts the time of missing workers: the oldest. An older peer that has vanished may live, out of reach, until it is
    /// forgotten; and while the peers are still looked for, there may be one.
    pub(super) fn baseline_counter(&self, now: Instant) -> BaselineCounter {
        let ours = (self.me.started, self.me.name.as_str());
        let older = || self.peers.iter().filter(|(name, peer)| (peer.started, name.as_str()) < ours);
        if older().any(|(_, peer)| peer.vanished.is_none()) {
            BaselineCounter::Another
        } else if older().next().is_some() || !self.is_ready(now) {
            BaselineCounter::Unsure
        } else {
            BaselineCounter::Ours
        }
    }

    /// Names of workers that peers have told of and that are not about to go.
    pub(super) fn workers(&self) -> impl Iterator<Item = &str> {
        self.heard().flat_map(|(_, peer)| peer.facts.staying_workers())
    }

    /// True once the time to find all activators is over.
    pub(super) fn had_time(&self, now: Instant) -> bool {
        now >= self.started + SYNC_TIME
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub(super) fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Resolved(addresses) => self.discover(now, discovery::Input::Resolved(addresses)),
            Input::Unresolved => self.discover(now, discovery::Input::Unresolved),
            Input::Introduced(addresses) => {
                let again = self.ask_again(now);
                self.discover(now, discovery::Input::Introduced(addresses, again));
            }
            Input::Met(address) => self.discover(now, discovery::Input::Told(address)),
            Input::Said(attempt, message) => self.said(now, attempt, message),
            Input::Ended(attempt) => self.ended(now, attempt),
        }
    }

    /// Ends calls that take too long, forgets vanished peers, and makes the dials that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.discovery.handle_timeout(now);
        self.dial();
        let before = self.peers.len();
        self.peers.retain(|_, peer| peer.vanished.is_none_or(|at| now < at + KEEP_VANISHED));
        if self.peers.len() != before {
            self.outputs.push_back(Output::Changed);
        }
    }

    /// Time at which [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let vanished = self.peers.values().filter_map(|peer| peer.vanished.map(|at| at + KEEP_VANISHED));
        vanished.chain(self.discovery.poll_timeout()).min()
    }

    /// The next order to the shell.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Views of the peers that can be heard.
    pub(super) fn fresh(&self) -> Vec<Tally> {
        self.heard().map(|(_, peer)| peer.facts.tally()).collect()
    }

    /// Last views of the peers that have vanished.
    pub(super) fn last(&self) -> Vec<Tally> {
        self.peers.values().filter(|peer| peer.vanished.is_some()).map(|peer| peer.facts.tally()).collect()
    }

    /// True if no peer that can be heard and that can act has a smaller name.
    #[cfg(feature = "kubernetes")]
    pub(super) fn is_first(&self) -> bool {
        let acting = self.heard().filter(|(_, peer)| peer.facts.acts);
        acting.map(|(name, _)| name).min().is_none_or(|name| *name > self.me.name)
    }

    /// Number of peers that can be heard, and of addresses that no activator answers at.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.heard().count(), self.discovery.unreachable())
    }

    /// The peers that have told what they know, and whether they can be heard now.
    pub(super) fn known(&self) -> impl Iterator<Item = (&str, bool)> {
        self.peers.iter().map(|(name, peer)| (name.as_str(), peer.vanished.is_none()))
    }

    /// True if publishers may be sent here: every activator that the name leads to can be heard, or the time for that is over.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.had_time(now) || self.discovery.is_complete()
    }

    /// True if an empty view proves that there is no demand. Without an answer of a name server or an introducer, the unheard peers stay
    /// unknown, however long that lasts. Without a peer, workers get the time to dial in: they may serve streams that no activator tells
    /// of.
    pub(super) fn is_sure(&self, now: Instant) -> bool {
        let all_heard = self.heard().next().is_some() && self.discovery.is_complete();
        self.discovery.is_informed() && (self.had_time(now) || all_heard)
    }

    fn heard(&self) -> impl Iterator<Item = (&String, &KnownPeer)> {
        self.peers.iter().filter(|(_, peer)| peer.vanished.is_none())
    }

    fn discover(&mut self, now: Instant, input: discovery::Input) {
        self.discovery.handle(now, input);
        self.dial();
    }

    /// Passes on the outputs of discovery.
    fn dial(&mut self) {
        while let Some(output) = self.discovery.poll_output() {
            self.outputs.push_back(match output {
                discovery::Output::Resolve => Output::Resolve,
                discovery::Output::Ask => Output::Ask,
                discovery::Output::Dial { attempt, address, .. } => {
                    self.calls
                        .insert(attempt, Following::Telling { address, welcome: None, facts: PeerFacts::default() });
                    Output::Follow(attempt, address)
                }
                discovery::Output::HangUp(attempt) => {
                    // A dial that took too long has led nowhere, so it ends the row.
                    if let Some(Following::Telling { address, .. }) = self.calls.remove(&attempt) {
                        self.selves.remove(&address);
                    }
                    Output::HangUp(attempt)
                }
            });
        }
        self.selves.retain(|address, _| self.discovery.has(*address));
    }

    /// Time of the next question to the introducer. The introducer may lead back to this activator, and any other activator knows only
    /// those that it has found; while all start, the question is therefore repeated often.
    fn ask_again(&mut self, now: Instant) -> Instant {
        self.answers = self.answers.wrapping_add(1);
        let after = match self.had_time(now) {
            // Every second question follows at once, because a round-robin introducer may lead every other one back to this activator.
            _ if self.answers % 2 == 1 => Duration::ZERO,
            false => ASK_EAGERLY,
            true => RESOLVE_EVERY,
        };
        now + after + self.lag()
    }

    /// A delay that differs between activators, as names are random. Behind a round-robin introducer, two activators that ask in step would
    /// each be led to itself for ever.
    fn lag(&self) -> Duration {
        let sum = self.me.name.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        MAX_LAG * u32::from(sum) / u32::from(u8::MAX)
    }

    /// The address at which the peer of this name alone is found, while it can be heard.
    pub(super) fn address_of(&self, peer: &str) -> Option<SocketAddr> {
        self.calls.values().find_map(|call| match call {
            Following::Synced { name, at } if name == peer => Some(*at),
            _ => None,
        })
    }

    /// The dialed address by which a peer is synced.
    fn synced_by(&self, peer: &str) -> Option<SocketAddr> {
        let is_it = |call: &Following| matches!(call, Following::Synced { name, .. } if name == peer);
        let (attempt, _) = self.calls.iter().find(|(_, call)| is_it(call))?;
        self.discovery.address(*attempt)
    }

    /// Bytes that the facts of all peers take.
    fn bytes(&self) -> usize {
        let half_told = self.calls.values().map(|call| match call {
            Following::Telling { facts, .. } => facts.bytes,
            Following::Synced { .. } => 0,
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

    fn said(&mut self, now: Instant, attempt: AttemptId, message: PeerMessage) {
        let room = MAX_ALL_FACTS.saturating_sub(self.bytes());
        let Some(call) = self.calls.get_mut(&attempt) else { return };
        match (call, message) {
            (Following::Telling { welcome: told, .. }, PeerMessage::Welcome(welcome)) => {
                let name = welcome.name.clone();
                *told = Some(welcome);
                if name == self.me.name {
                    self.found_ourselves(now, attempt);
                } else if let Some(other) = self.synced_by(&name) {
                    self.alias(now, attempt, Some(other));
                }
            }
            (Following::Telling { welcome: Some(welcome), facts, .. }, PeerMessage::Synced) => {
                let (welcome, facts) = (std::mem::take(welcome), std::mem::take(facts));
                self.synced(now, attempt, welcome, facts);
            }
            (Following::Telling { facts, .. }, PeerMessage::Change(change)) => drop(facts.take(change, room)),
            (Following::Telling { facts, .. }, PeerMessage::Acts(acts)) => facts.acts = acts,
            (Following::Telling { .. }, PeerMessage::Synced | PeerMessage::Goodbye) => {}
            (Following::Synced { name, .. }, PeerMessage::Goodbye) => {
                let name = name.clone();
                self.peers.remove(&name);
                self.outputs.push_back(Output::Turned(name.clone(), Turn::Left));
                self.outputs.push_back(Output::Forget(name));
                self.outputs.push_back(Output::Changed);
            }
            (Following::Synced { name, .. }, message) => {
                let name = name.clone();
                let Some(peer) = self.peers.get_mut(&name) else { return };
                match message {
                    PeerMessage::Change(change) => {
                        let held = peer.facts.take(change, room);
                        self.outputs.extend(held.map(|(number, held)| Output::Held(name, number, held)));
                    }
                    PeerMessage::Acts(acts) => peer.facts.acts = acts,
                    PeerMessage::Welcome(_) | PeerMessage::Synced | PeerMessage::Goodbye => {}
                }
                self.outputs.push_back(Output::Changed);
            }
        }
    }

    fn synced(&mut self, now: Instant, attempt: AttemptId, welcome: PeerWelcome, facts: PeerFacts) {
        let PeerWelcome { name, control_port, started } = welcome;
        let Some(address) = self.discovery.address(attempt) else { return };
        // Calls to two addresses of this peer were under way at once, and the other call was faster.
        let other = self.synced_by(&name);
        if other.is_some() || !self.has_room(&name) {
            return self.alias(now, attempt, other);
        }
        let at = self.me.find(address.ip(), control_port).unwrap_or(address);
        self.selves.remove(&address);
        self.calls.insert(attempt, Following::Synced { name: name.clone(), at });
        self.discover(now, discovery::Input::Connected(attempt));
        self.outputs.push_back(Output::Turned(name.clone(), Turn::Synced));
        self.outputs.push_back(Output::Forget(name.clone()));
        let held = facts.held().map(|(number, held)| Output::Held(name.clone(), number, Some(held.clone())));
        self.outputs.extend(held);
        self.peers.insert(name, KnownPeer { facts, started, vanished: None });
        self.outputs.push_back(Output::Changed);
        self.outputs.push_back(Output::Met(at, true));
    }

    /// Ends a call of no use: it leads to this activator or to a peer that another call has reached, or there is no room for the peer.
    fn alias(&mut self, now: Instant, attempt: AttemptId, of: Option<SocketAddr>) {
        self.discovery.address(attempt).map(|address| self.selves.remove(&address));
        self.discover(now, discovery::Input::Alias(attempt, of));
    }

    /// Handles a call that has led back to this activator. On a shared port another activator may listen all the same.
    fn found_ourselves(&mut self, now: Instant, attempt: AttemptId) {
        let Some(address) = self.discovery.address(attempt) else { return };
        let meetings = self.selves.get(&address).copied().unwrap_or_default() + 1;
        if self.me.shares_ports && meetings < SELF_MEETINGS {
            self.selves.insert(address, meetings);
            // Its hang-up is part of the row.
            self.calls.remove(&attempt);
            self.discover(now, discovery::Input::Again(attempt, SELF_DELAY));
        } else {
            self.alias(now, attempt, None);
        }
    }

    fn ended(&mut self, now: Instant, attempt: AttemptId) {
        self.discovery.address(attempt).map(|address| self.selves.remove(&address));
        if let Some(Following::Synced { name, at }) = self.calls.remove(&attempt) {
            self.outputs.push_back(Output::Met(at, false));
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.vanished = Some(now);
                self.outputs.push_back(Output::Turned(name.clone(), Turn::Vanished));
                self.outputs.push_back(Output::Forget(name));
                self.outputs.push_back(Output::Changed);
            }
        }
        self.discover(now, discovery::Input::Failed(attempt, None));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
