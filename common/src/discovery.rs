//! The rules of finding activators: which addresses to dial and when, which of them lead to the same process, when to give one up. Pure.
//!
//! In: addresses that the name leads to, that the introducer or an activator tells of; what became of attempts. Out: questions, dials,
//! hang-ups. Workers find activators by it and activators each other; both keep what is said in a call to themselves.
//!
//! ```text
//!             listed, told of           Answered             Connected
//!  (unknown) ───────────────▶ Dialing ──────────▶ Greeting ────────────▶ Connected
//!                              ▲  │ Failed, late      │ Failed, late        │ Failed
//!                              │  ▼                   ▼                     ▼
//!                             Waiting ◀─────────────────────────────────────┘
//!                              └─ neither listed nor told of any more, too many failures: forgotten
//!  Dialing, Greeting ─▶ Alias   the process that answered is connected by another address, or is ourselves
//!  Alias ─▶ Dialing             that other address does not work any more
//! ```
//! One such picture per address. [`Connected`](Input::Connected) may follow on a dial at once.
//!
//! Note: a name in DNS may vanish while its activator works, so a call that answered is never ended for that. `localhost` is two addresses
//! of one activator; without aliases the two calls would replace each other for ever. Name servers remember for half a minute that a name
//! has no or other addresses, hence the introducer and what activators tell of each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Addresses of one name at most, and as many that were only told of: a site has a few activators; a wrong name must not make us dial the
/// world.
pub const MAX_ADDRESSES: usize = 64;
/// Pause after each of the first failures in a row of an address, doubled from there on.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest pause between two attempts: what an activator that comes back costs at most in waiting.
pub const MOST_DELAY: Duration = Duration::from_secs(2);
/// Pause between two questions for the name's addresses.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// The same while the answer is awaited most: the name may have appeared just now.
pub const RESOLVE_EAGERLY: Duration = Duration::from_millis(500);

/// Differences between the two users of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Failures in a row that are followed by [`FIRST_DELAY`].
    pub eager_attempts: u32,
    /// Longest time from a dial to [`Input::Answered`] or [`Input::Connected`], if the shell has no limit of its own.
    pub dial_timeout: Option<Duration>,
    /// Number of activators that are enough.
    pub wanted: Wanted,
    /// Failures in a row after which an address that was only told of is forgotten.
    pub told_failures: u32,
    /// The same for an address that was listed and is not any more; 0: it is forgotten at once, unless the call has been answered.
    pub unlisted_failures: u32,
    /// Failures in a row of an address that has worked, the loss included, after which its aliases are dialed.
    pub alias_patience: u32,
}

/// How many activators are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A single one, since activators tell of each other: the introducer is not asked while one is connected, and the name seldom.
    One,
    /// Every activator: the introducer is asked for ever, and the name often until its first answer.
    All,
}

/// An attempt at an address, from its first SYN to its end. Numbers are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// Inputs from the owner.
#[derive(Clone, Debug)]
pub enum Input {
    /// Every address of the name.
    Resolved(Vec<SocketAddr>),
    /// The name could not be resolved just now.
    Unresolved,
    /// The introducer's answer, empty if it had none, and when it is to be asked again.
    Introduced(Vec<SocketAddr>, Instant),
    /// An activator is said to be at this address.
    Told(SocketAddr),
    /// The dialed process has proved itself; the rest is due by then.
    Answered(AttemptId, Instant),
    /// The call serves its purpose.
    Connected(AttemptId),
    /// The call led to a process that is connected by this other address; `None`: to ourselves, or to one that is not wanted.
    Alias(AttemptId, Option<SocketAddr>),
    /// The call has to be made again after this time, without having failed.
    Again(AttemptId, Duration),
    /// The call has ended, or never came about. The pause may be another than that after a failure.
    Failed(AttemptId, Option<Duration>),
    /// The end: calls are hung up, and nothing is done any more.
    Stop,
}

/// Orders to the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask for the name's addresses.
    Resolve,
    /// Ask the introducer.
    Ask,
    /// Make a call.
    Dial {
        /// The number that its events are reported with.
        attempt: AttemptId,
        /// The address to call.
        address: SocketAddr,
        /// How long the connection may take.
        patience: Duration,
    },
    /// End the call. The machine has forgotten this attempt.
    HangUp(AttemptId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Dialing { until: Option<Instant> },
    Greeting { until: Instant },
    Connected,
    Alias { of: Option<SocketAddr> },
}

/// The source of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressSource {
    /// The name leads to it.
    Listed,
    /// An activator or the introducer has told of it.
    Told,
    /// The name led to it once.
    Unlisted,
}

#[derive(Debug)]
struct Candidate {
    source: AddressSource,
    state: State,
    attempt: AttemptId,
    failures: u32,
    /// True once it has been connected.
    worked: bool,
}

/// See the picture above.
#[derive(Debug)]
pub struct Discovery {
    rules: Rules,
    candidates: BTreeMap<SocketAddr, Candidate>,
    /// `None` before the first answer.
    resolved: Option<BTreeSet<SocketAddr>>,
    resolve_at: Option<Instant>,
    /// If there is an introducer: when to ask it, while it is not being asked.
    ask_at: Option<Instant>,
    introduced: bool,
    next_attempt: u64,
    stopped: bool,
    outputs: VecDeque<Output>,
}

impl Discovery {
    /// Begins by asking for the name's addresses. `ask_at`: when to ask the introducer first; `None` if there is none.
    #[must_use]
    pub fn new(now: Instant, rules: Rules, ask_at: Option<Instant>) -> Self {
        Self {
            rules,
            candidates: BTreeMap::new(),
            resolved: None,
            resolve_at: match rules.wanted {
                Wanted::One => Some(now + RESOLVE_EAGERLY),
                Wanted::All => None,
            },
            ask_at,
            introduced: false,
            next_attempt: 0,
            stopped: false,
            outputs: VecDeque::from([Output::Resolve]),
        }
    }

    /// Calls that serve their purpose.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.candidates.values().filter(|candidate| candidate.state == State::Connected).count()
    }

    /// Addresses that lead to nobody, as far as is known.
    #[must_use]
    pub fn unreachable(&self) -> usize {
        self.candidates.values().filter(|candidate| !candidate.is_settled()).count()
    }

    /// True if every address of the name is connected, or an alias.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let settled = |address| self.candidates.get(address).is_some_and(Candidate::is_settled);
        self.resolved.as_ref().is_some_and(|resolved| resolved.iter().all(settled))
    }

    /// True once the name or the introducer has told which activators there are.
    #[must_use]
    pub fn is_informed(&self) -> bool {
        self.resolved.is_some() || self.introduced
    }

    /// The address of an attempt that has not ended.
    #[must_use]
    pub fn address(&self, attempt: AttemptId) -> Option<SocketAddr> {
        self.candidates.iter().find(|(_, candidate)| candidate.is_trying(attempt)).map(|(address, _)| *address)
    }

    /// True while the address is dialed now and then.
    #[must_use]
    pub fn has(&self, address: SocketAddr) -> bool {
        self.candidates.contains_key(&address)
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.stopped {
            return;
        }
        match input {
            Input::Resolved(addresses) => self.resolved(now, addresses),
            Input::Unresolved => self.resolve_later(now),
            Input::Introduced(addresses, again) => {
                self.introduced |= !addresses.is_empty();
                addresses.into_iter().for_each(|address| self.told(now, address));
                self.ask_at = Some(again);
            }
            Input::Told(address) => self.told(now, address),
            Input::Answered(attempt, until) => {
                self.change(attempt, |candidate| candidate.state = State::Greeting { until });
            }
            Input::Connected(attempt) => self.connect(now, attempt),
            Input::Alias(attempt, of) => {
                self.change(attempt, |candidate| (candidate.state, candidate.failures) = (State::Alias { of }, 0));
                self.outputs.push_back(Output::HangUp(attempt));
            }
            Input::Again(attempt, wait) => {
                self.change(attempt, |candidate| candidate.state = State::Waiting { until: now + wait });
                self.outputs.push_back(Output::HangUp(attempt));
            }
            Input::Failed(attempt, wait) => self.failed(now, attempt, wait),
            Input::Stop => {
                let trying = self.candidates.values().filter(|candidate| candidate.is_trying(candidate.attempt));
                self.outputs.extend(trying.map(|candidate| Output::HangUp(candidate.attempt)));
                self.candidates.clear();
                self.stopped = true;
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stopped {
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
        let is_due = |candidate: &Candidate| candidate.due().is_some_and(|at| at <= now);
        let due = self.candidates.iter().filter(|(_, candidate)| is_due(candidate));
        let due: Vec<(SocketAddr, State, AttemptId)> =
            due.map(|(address, candidate)| (*address, candidate.state, candidate.attempt)).collect();
        for (address, state, attempt) in due {
            if let State::Waiting { .. } = state {
                self.dial(now, address);
            } else {
                self.outputs.push_back(Output::HangUp(attempt));
                self.failed(now, attempt, None);
            }
        }
    }

    /// Time at which [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        self.candidates.values().filter_map(Candidate::due).chain(self.resolve_at).chain(self.asks_at()).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn resolved(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        let resolved: BTreeSet<SocketAddr> = addresses.into_iter().take(MAX_ADDRESSES).collect();
        for (address, candidate) in &mut self.candidates {
            candidate.source = match candidate.source {
                _ if resolved.contains(address) => AddressSource::Listed,
                AddressSource::Listed | AddressSource::Unlisted => AddressSource::Unlisted,
                AddressSource::Told => AddressSource::Told,
            };
        }
        let unlisted = self.candidates.iter().filter(|(_, candidate)| candidate.source == AddressSource::Unlisted);
        let unlisted: Vec<SocketAddr> = unlisted.map(|(address, _)| *address).collect();
        unlisted.into_iter().for_each(|address| self.forget_unless_used(now, address));
        for address in &resolved {
            self.add(now, *address, AddressSource::Listed);
        }
        self.resolved = Some(resolved);
        self.resolve_later(now);
    }

    fn forget_unless_used(&mut self, now: Instant, address: SocketAddr) {
        let Some(candidate) = self.candidates.get(&address) else { return };
        let patient = candidate.failures < self.limit(candidate.source);
        match candidate.state {
            State::Greeting { .. } | State::Connected => return,
            State::Waiting { .. } | State::Dialing { .. } if patient => return,
            State::Dialing { .. } => self.outputs.push_back(Output::HangUp(candidate.attempt)),
            State::Waiting { .. } | State::Alias { .. } => {}
        }
        self.forget(now, address);
    }

    /// An address that has worked leaves its aliases, which are the ways to try now.
    fn forget(&mut self, now: Instant, address: SocketAddr) {
        if self.candidates.remove(&address).is_some_and(|candidate| candidate.worked) {
            self.dial_aliases(now, address);
        }
    }

    /// Failures in a row after which an address is forgotten.
    fn limit(&self, source: AddressSource) -> u32 {
        match source {
            AddressSource::Listed => u32::MAX,
            AddressSource::Told => self.rules.told_failures,
            AddressSource::Unlisted => self.rules.unlisted_failures,
        }
    }

    fn resolve_later(&mut self, now: Instant) {
        let content = match self.rules.wanted {
            Wanted::One => self.connected() > 0,
            Wanted::All => self.resolved.is_some(),
        };
        self.resolve_at = Some(now + if content { RESOLVE_EVERY } else { RESOLVE_EAGERLY });
    }

    fn asks_at(&self) -> Option<Instant> {
        self.ask_at.filter(|_| self.rules.wanted == Wanted::All || self.connected() == 0)
    }

    fn told(&mut self, now: Instant, address: SocketAddr) {
        if let Some(candidate) = self.candidates.get_mut(&address) {
            if candidate.source == AddressSource::Unlisted {
                candidate.source = AddressSource::Told;
            }
            return;
        }
        if self.candidates.values().filter(|candidate| candidate.source == AddressSource::Told).count() < MAX_ADDRESSES
        {
            self.add(now, address, AddressSource::Told);
        }
    }

    fn add(&mut self, now: Instant, address: SocketAddr, source: AddressSource) {
        if !self.candidates.contains_key(&address) && self.candidates.len() < 2 * MAX_ADDRESSES {
            let state = State::Waiting { until: now };
            let candidate = Candidate { source, state, attempt: AttemptId(0), failures: 0, worked: false };
            self.candidates.insert(address, candidate);
            self.dial(now, address);
        }
    }

    fn dial(&mut self, now: Instant, address: SocketAddr) {
        let Some(candidate) = self.candidates.get_mut(&address) else { return };
        self.next_attempt += 1;
        let attempt = AttemptId(self.next_attempt);
        let until = self.rules.dial_timeout.map(|timeout| now + timeout);
        (candidate.attempt, candidate.state) = (attempt, State::Dialing { until });
        let patience = delay(candidate.failures, self.rules.eager_attempts);
        self.outputs.push_back(Output::Dial { attempt, address, patience });
    }

    fn dial_aliases(&mut self, now: Instant, lost: SocketAddr) {
        let is_alias = |candidate: &Candidate| match candidate.state {
            // Where several listen on one port, or a balancer is in between, an address that led to ourselves may lead to another now.
            State::Alias { of } => of.is_none_or(|of| of == lost),
            _ => false,
        };
        let aliases = self.candidates.iter().filter(|(_, candidate)| is_alias(candidate));
        let aliases: Vec<SocketAddr> = aliases.map(|(address, _)| *address).collect();
        aliases.into_iter().for_each(|address| self.dial(now, address));
    }

    fn change(&mut self, attempt: AttemptId, change: impl FnOnce(&mut Candidate)) {
        self.candidates.values_mut().find(|candidate| candidate.is_trying(attempt)).map(change);
    }

    fn connect(&mut self, now: Instant, attempt: AttemptId) {
        self.change(attempt, |candidate| {
            (candidate.state, candidate.failures, candidate.worked) = (State::Connected, 0, true);
        });
        if self.rules.wanted == Wanted::One {
            self.resolve_later(now);
        }
    }

    fn failed(&mut self, now: Instant, attempt: AttemptId, wait: Option<Duration>) {
        let eager_attempts = self.rules.eager_attempts;
        let trying = self.candidates.iter_mut().find(|(_, candidate)| candidate.is_trying(attempt));
        let Some((address, candidate)) = trying.map(|(address, candidate)| (*address, candidate)) else { return };
        candidate.failures = candidate.failures.saturating_add(1);
        let wait = wait.unwrap_or_else(|| delay(candidate.failures, eager_attempts));
        candidate.state = State::Waiting { until: now + wait };
        let (failures, source, worked) = (candidate.failures, candidate.source, candidate.worked);
        if failures >= self.limit(source) {
            self.forget(now, address);
        } else if worked && failures == self.rules.alias_patience {
            self.dial_aliases(now, address);
        }
    }
}

impl Candidate {
    /// True if nothing is left to find out about it.
    fn is_settled(&self) -> bool {
        matches!(self.state, State::Connected | State::Alias { .. })
    }

    fn is_trying(&self, attempt: AttemptId) -> bool {
        let trying = matches!(self.state, State::Dialing { .. } | State::Greeting { .. } | State::Connected);
        trying && self.attempt == attempt
    }

    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Greeting { until } => Some(until),
            State::Dialing { until } => until,
            State::Connected | State::Alias { .. } => None,
        }
    }
}

/// Pause after so many failures in a row. Without jitter: each process dials a handful of addresses, and a hundred workers that come back
/// together are a hundred small calls.
fn delay(failures: u32, eager_attempts: u32) -> Duration {
    let doublings = failures.saturating_sub(eager_attempts).min(16);
    (FIRST_DELAY * (1 << doublings)).min(MOST_DELAY)
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
