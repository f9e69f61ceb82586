//! The rules of an upstream: which stage may take how long, when to try again, what counts as what.
//!
//! In: what the shell found out. Out: what the shell does. Next room: the shell (`connection`), and through it the upstream server.
//!
//! ```text
//!               addresses            first of them           TLS                   Publish.Start
//!  Resolving ─────────────▶ Connecting ──────────▶ Securing ─────▶ Starting ───────────────────────▶ Live
//!     ▲  │                    ▲   │            (RTMP: ──────────▶) │    │                             │
//!     │  │                    │   │                   │            │    │ asked for credentials       │ close
//!     │  │                    └───┼───────────────────┼────────────┼────┘ (the same address again)    ▼
//!     │  │ none               │ none                  │ failed     │ refused, closed, too late      Closing
//!     │  ▼                        ▼                   ▼            ▼                                  │ FIN, 2 s
//!     └─ Backoff ◀─────────────────────────────────────────────────┴──────────────── Live, lost       ▼
//!                    every state but Live, when closed ───────────────────────────────────────▶ Closed
//! ```
//! Starting walks through the stages of the session (handshake, connect, create_stream, publish), each with its own deadline.
//!
//! What surprised us: an upstream that is away for some seconds must be asked several times a second to be back within one, and a SYN that
//! was dropped is repeated by the kernel only after 1, 3 and 7 s, so that we dial again while it waits; MediaMTX says Publish.Start before
//! it has looked whether it may, so that only a session that lasted a while proves anything; Twitch never refuses, it just closes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use liveedgecast_common::backoff::Backoff;
use liveedgecast_common::rtmp::auth::{Answer, Challenge};
use liveedgecast_common::rtmp::client::{Class, ClientEvent, Stage};
use liveedgecast_common::url::PushUrl;

/// For the answer of the resolver; beyond that it asks other servers, which are no quicker.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// For TCP, all addresses together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the next address is dialed too, while the earlier ones may still answer (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Until the addresses are dialed once more: before the kernel repeats a SYN for the second time, after 3 s.
const REDIAL: Duration = Duration::from_secs(1);
/// Sockets that dial at the same time. With more addresses, the oldest gives way: it has had two seconds.
const MAX_DIALS: usize = 8;
/// For TLS: two round trips and a certificate chain.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// For each answer of the session. GStreamer gives a server as much.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// For Publish.Start: some servers ask somebody else first, by HTTP.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// From the last word to the end of the connection (DESIGN 4.2).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session that lasted this long proves that the upstream works: what went wrong before is forgotten.
const STABLE: Duration = Duration::from_secs(10);
/// So long after something broke, it is taken for a flap: we ask often, to be back within a second of its return.
const FLAP: Duration = Duration::from_secs(15);
/// During a flap.
const EAGER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(800));
/// Afterwards, where nobody answers.
const UNREACHABLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Where the connection is closed without a reason given: it may be a refusal, so not as often as where nobody answers.
const GONE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// For a taken name: mostly a stale session of our own, which nginx-rtmp keeps for up to 90 s.
const BAD_NAME: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Where somebody has to change something first; asking often can lock an account.
const DENIED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Where somebody else than an RTMP server listens, or one with another idea of RTMP.
const PROTOCOL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Connections refused with a question for credentials, in one attempt: one for the user, one for the proof.
const MAX_CHALLENGES: u32 = 2;

/// Why an attempt or a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No address, nobody there, no answer in time.
    Unreachable,
    /// The certificate is not one that we trust for that name.
    Untrusted,
    /// The upstream said no, or broke the protocol, or closed.
    Refused(Class),
}

impl Fault {
    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Refused(class) => class.as_str(),
        }
    }

    /// Nothing gets better by waiting: somebody has to read about it.
    #[must_use]
    pub const fn is_loud(self) -> bool {
        matches!(self, Self::Untrusted | Self::Refused(Class::Denied | Class::Protocol))
    }
}

/// One TCP connection that is being dialed. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialId(pub u64);

/// What the shell tells the machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Every address of the name.
    Resolved(Vec<SocketAddr>),
    /// The name could not be resolved.
    Unresolved(String),
    /// TCP is there.
    Connected(DialId),
    /// It is not.
    NotConnected(DialId, String),
    /// TLS is there.
    Secured,
    /// It is not.
    NotSecured(Fault, String),
    /// The session is in another stage.
    Reached(Stage),
    /// The session has something to tell.
    Session(ClientEvent),
    /// The connection has ended, or broke the protocol.
    Broken(Fault, String),
    /// The stream has ended.
    Close {
        /// Commands may be written: the last message is whole.
        between_messages: bool,
    },
}

/// What the machine asks of the shell.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask for the addresses of the host.
    Resolve,
    /// Connect, besides those that are being dialed already.
    Dial(DialId, SocketAddr),
    /// Dial this one no longer.
    Undial(DialId),
    /// Go on with this connection, drop the others that are being dialed, and do TLS on it.
    Secure(DialId),
    /// Begin a session: on this connection, dropping the others, or on the one that is secured.
    Begin(Option<DialId>, Option<Answer>),
    /// Drop whatever there is: lookups, dials, the connection.
    Drop,
    /// Media may be written.
    Live,
    /// Say how much is not acknowledged, drop the connection, tell [`super::UpstreamEvent::Lost`].
    Lost(String),
    /// Tell [`super::UpstreamEvent::Refused`].
    Refused(Class),
    /// Write the end of the session (if it may speak) and FIN, then discard what comes.
    Farewell {
        /// See [`Input::Close`].
        speak: bool,
    },
    /// Tell [`super::UpstreamEvent::Closed`].
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resolving { until: Instant },
    Connecting { until: Instant, next_at: Instant },
    Securing { until: Instant },
    Starting { stage: Stage, until: Instant },
    Live { since: Instant },
    Backoff { until: Instant },
    Closing { until: Instant },
    Closed,
}

/// How long to wait, by what went wrong.
#[derive(Debug)]
struct Patience {
    eager: Backoff,
    unreachable: Backoff,
    gone: Backoff,
    bad_name: Backoff,
    denied: Backoff,
    protocol: Backoff,
}

impl Patience {
    fn new(seed: u64) -> Self {
        let backoff = |(first, most)| Backoff::new(first, most, seed);
        Self {
            eager: backoff(EAGER),
            unreachable: backoff(UNREACHABLE),
            gone: backoff(GONE),
            bad_name: backoff(BAD_NAME),
            denied: backoff(DENIED),
            protocol: backoff(PROTOCOL),
        }
    }

    fn all(&mut self) -> [&mut Backoff; 6] {
        let Self { eager, unreachable, gone, bad_name, denied, protocol } = self;
        [eager, unreachable, gone, bad_name, denied, protocol]
    }

    fn failed(&mut self, fault: Fault, flap: bool) -> Duration {
        let backoff = match fault {
            Fault::Unreachable if flap => &mut self.eager,
            Fault::Unreachable => &mut self.unreachable,
            Fault::Refused(Class::Gone) => &mut self.gone,
            Fault::Refused(Class::BadName) => &mut self.bad_name,
            Fault::Untrusted | Fault::Refused(Class::Denied) => &mut self.denied,
            Fault::Refused(Class::Protocol) => &mut self.protocol,
        };
        backoff.failed()
    }
}

/// See the picture above.
#[derive(Debug)]
pub struct Machine {
    url: PushUrl,
    state: State,
    /// Of this attempt, in the order in which they are dialed.
    addresses: Vec<SocketAddr>,
    /// Dials begun in this attempt.
    dialed: usize,
    dialing: Vec<(DialId, SocketAddr)>,
    next_id: u64,
    /// Of the connection.
    peer: Option<SocketAddr>,
    /// An address whose connection was of no use: the others come first next time.
    avoid: Option<SocketAddr>,
    /// What the upstream's first question was: answered unasked from then on, which saves a connection.
    asks_for_the_user: Option<Challenge>,
    /// What the next session says.
    answer: Option<Answer>,
    challenges: u32,
    patience: Patience,
    /// Since when it has not worked.
    broken_since: Option<Instant>,
    chance: u64,
    fault: Option<(Fault, String)>,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// Begins by asking for addresses. The same seed gives the same delays and answers.
    #[must_use]
    pub fn new(now: Instant, url: PushUrl, seed: u64) -> Self {
        Self {
            url,
            state: State::Resolving { until: now + RESOLVE_TIMEOUT },
            addresses: Vec::new(),
            dialed: 0,
            dialing: Vec::new(),
            next_id: 0,
            peer: None,
            avoid: None,
            asks_for_the_user: None,
            answer: None,
            challenges: 0,
            patience: Patience::new(seed),
            broken_since: None,
            chance: seed,
            fault: None,
            outputs: VecDeque::from([Output::Resolve]),
        }
    }

    /// Whether media may be written.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    /// For logs and the API: dialing, starting, live, backoff, failed or closed.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Resolving { .. } | State::Connecting { .. } | State::Securing { .. } => "dialing",
            State::Starting { .. } => "starting",
            State::Live { .. } => "live",
            State::Backoff { .. } if self.fault.as_ref().is_some_and(|(fault, _)| fault.is_loud()) => "failed",
            State::Backoff { .. } => "backoff",
            State::Closing { .. } | State::Closed => "closed",
        }
    }

    /// What went wrong last, until a session is live.
    #[must_use]
    pub fn fault(&self) -> Option<(Fault, &str)> {
        self.fault.as_ref().map(|(fault, why)| (*fault, why.as_str()))
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards. What does not fit the state is late news of something that was dropped.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match (self.state, input) {
            (State::Closed, _) => {}
            (_, Input::Close { between_messages }) => self.close(now, between_messages),
            (State::Closing { .. }, Input::Broken(..)) => self.closed(),
            (State::Closing { .. }, _) => {}
            (State::Resolving { .. }, Input::Resolved(addresses)) => self.resolved(now, addresses),
            (State::Resolving { .. }, Input::Unresolved(why)) => self.failed(now, Fault::Unreachable, why),
            (State::Connecting { .. }, Input::Connected(dial)) => self.connected(now, dial),
            (State::Connecting { until, .. }, Input::NotConnected(dial, why)) => {
                self.not_connected(now, until, dial, why);
            }
            (State::Securing { .. }, Input::Secured) => self.begin(now, None),
            (State::Securing { .. }, Input::NotSecured(fault, why)) => self.failed(now, fault, why),
            (State::Starting { .. }, Input::Reached(stage)) => self.reached(now, stage),
            (State::Starting { .. } | State::Live { .. }, Input::Session(event)) => self.session(now, event),
            (State::Starting { stage, .. }, Input::Broken(fault, why)) => {
                // A proxy whose server is away closes before it has said anything; closed later, it is a no without words.
                let wordless = fault == Fault::Unreachable && stage > Stage::Handshake;
                let fault = if wordless { Fault::Refused(Class::Gone) } else { fault };
                self.failed(now, fault, format!("{why} at {}", stage.as_str()));
            }
            (State::Live { since }, Input::Broken(fault, why)) => self.lost(now, since, fault, why),
            _ => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match self.state {
            State::Resolving { .. } => self.failed(now, Fault::Unreachable, "no answer of the resolver".to_owned()),
            State::Connecting { until, .. } if until <= now => {
                self.failed(now, Fault::Unreachable, "no answer to the connection".to_owned());
            }
            State::Connecting { until, .. } => self.dial(now, until),
            State::Securing { .. } => self.failed(now, Fault::Unreachable, "no answer to TLS".to_owned()),
            State::Starting { stage, .. } => {
                self.failed(now, Fault::Unreachable, format!("no answer at {}", stage.as_str()));
            }
            State::Backoff { .. } => self.resolve(now),
            State::Closing { .. } => self.closed(),
            State::Live { .. } | State::Closed => {}
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Connecting { until, next_at } => Some(next_at.min(until)),
            State::Resolving { until }
            | State::Securing { until }
            | State::Starting { until, .. }
            | State::Backoff { until }
            | State::Closing { until } => Some(until),
            State::Live { .. } | State::Closed => None,
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn resolve(&mut self, now: Instant) {
        self.challenges = 0;
        self.answer = None;
        self.state = State::Resolving { until: now + RESOLVE_TIMEOUT };
        self.outputs.push_back(Output::Resolve);
    }

    fn resolved(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        if addresses.is_empty() {
            return self.failed(now, Fault::Unreachable, "the name has no address".to_owned());
        }
        self.addresses = in_turns(addresses);
        if let Some(index) = self.addresses.iter().position(|address| Some(*address) == self.avoid) {
            let address = self.addresses.remove(index);
            self.addresses.push(address);
        }
        if let Some(challenge) = self.asks_for_the_user.clone() {
            self.answer(&challenge);
            self.challenges = 1;
        }
        self.connect(now);
    }

    fn connect(&mut self, now: Instant) {
        self.dialed = 0;
        self.dialing.clear();
        self.peer = None;
        self.dial(now, now + CONNECT_TIMEOUT);
    }

    /// Dials the next address and says when the one after it is due.
    fn dial(&mut self, now: Instant, until: Instant) {
        if self.dialing.len() == MAX_DIALS {
            let (oldest, _) = self.dialing.remove(0);
            self.outputs.push_back(Output::Undial(oldest));
        }
        let address = self.addresses[self.dialed % self.addresses.len()];
        self.dialed += 1;
        let id = DialId(self.next_id);
        self.next_id += 1;
        self.dialing.push((id, address));
        self.outputs.push_back(Output::Dial(id, address));
        let round_ends = self.dialed.is_multiple_of(self.addresses.len());
        self.state = State::Connecting { until, next_at: now + if round_ends { REDIAL } else { STAGGER } };
    }

    fn not_connected(&mut self, now: Instant, until: Instant, dial: DialId, why: String) {
        let Some(index) = self.dialing.iter().position(|(id, _)| *id == dial) else { return };
        self.dialing.remove(index);
        if self.dialed < self.addresses.len() {
            self.dial(now, until);
        } else if self.dialing.is_empty() {
            self.failed(now, Fault::Unreachable, why);
        }
    }

    fn connected(&mut self, now: Instant, dial: DialId) {
        let Some((_, address)) = self.dialing.iter().find(|(id, _)| *id == dial) else { return };
        self.peer = Some(*address);
        self.dialing.clear();
        if self.url.tls {
            self.state = State::Securing { until: now + TLS_TIMEOUT };
            self.outputs.push_back(Output::Secure(dial));
        } else {
            self.begin(now, Some(dial));
        }
    }

    fn begin(&mut self, now: Instant, dial: Option<DialId>) {
        self.state = State::Starting { stage: Stage::Handshake, until: now + ANSWER_TIMEOUT };
        self.outputs.push_back(Output::Begin(dial, self.answer.take()));
    }

    fn reached(&mut self, now: Instant, stage: Stage) {
        let timeout = if stage == Stage::Publish { PUBLISH_TIMEOUT } else { ANSWER_TIMEOUT };
        self.state = State::Starting { stage, until: now + timeout };
    }

    fn session(&mut self, now: Instant, event: ClientEvent) {
        match (self.state, event) {
            (_, ClientEvent::Acknowledged(_)) => {}
            (State::Starting { .. }, ClientEvent::Started) => {
                self.avoid = None;
                self.fault = None;
                self.state = State::Live { since: now };
                self.outputs.push_back(Output::Live);
            }
            (State::Starting { .. }, ClientEvent::AuthAsked(challenge)) => self.asked(now, challenge),
            (State::Starting { .. }, ClientEvent::Refused(class, why)) => {
                self.failed(now, Fault::Refused(class), why);
                if matches!(class, Class::BadName | Class::Denied) {
                    self.outputs.push_back(Output::Refused(class));
                }
            }
            (State::Starting { .. }, ClientEvent::Ended(why)) => self.failed(now, Fault::Refused(Class::Gone), why),
            (State::Live { since }, ClientEvent::Refused(class, why)) => {
                self.lost(now, since, Fault::Refused(class), why);
            }
            (State::Live { since }, ClientEvent::Ended(why)) => self.lost(now, since, Fault::Unreachable, why),
            _ => {}
        }
    }

    /// Answers a challenge on a new connection to the same address: another server may not know it.
    fn asked(&mut self, now: Instant, challenge: Challenge) {
        let refused = |why: &str| (Fault::Refused(Class::Denied), why.to_owned());
        let (fault, why) = if self.url.credentials.is_none() {
            refused("it asks for credentials: rtmp://USER:PASSWORD@host/…")
        } else if self.challenges == MAX_CHALLENGES {
            refused("it asks for credentials again and again")
        } else if let Some(peer) = self.peer {
            self.challenges += 1;
            self.answer(&challenge);
            if challenge.asks_for_the_user() {
                self.asks_for_the_user = Some(challenge);
            }
            self.outputs.push_back(Output::Drop);
            self.addresses = vec![peer];
            return self.connect(now);
        } else {
            return;
        };
        self.failed(now, fault, why);
        self.outputs.push_back(Output::Refused(Class::Denied));
    }

    fn answer(&mut self, challenge: &Challenge) {
        let nonce = self.nonce();
        let credentials = self.url.credentials.as_ref();
        self.answer = credentials.map(|credentials| Answer::new(challenge, credentials, &self.url.app, nonce));
    }

    /// Knuth's 64-bit linear congruential step; its high half is the good one.
    fn nonce(&mut self) -> u32 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 32) as u32
    }

    /// An attempt has failed before it was live.
    fn failed(&mut self, now: Instant, fault: Fault, why: String) {
        self.asks_for_the_user = None;
        // A taken name is taken at all addresses.
        if self.peer.is_some() && fault != Fault::Refused(Class::BadName) {
            self.avoid = self.peer;
        }
        self.outputs.push_back(Output::Drop);
        self.back_off(now, fault, why);
    }

    fn lost(&mut self, now: Instant, since: Instant, fault: Fault, why: String) {
        let stable = now.saturating_duration_since(since) >= STABLE;
        if stable {
            self.patience.all().into_iter().for_each(Backoff::reset);
            self.broken_since = None;
        }
        // A session that ends as soon as it is live is a refusal.
        let fault = if stable || fault != Fault::Unreachable { fault } else { Fault::Refused(Class::Gone) };
        self.outputs.push_back(Output::Lost(why.clone()));
        self.back_off(now, fault, why);
    }

    fn back_off(&mut self, now: Instant, fault: Fault, why: String) {
        let since = *self.broken_since.get_or_insert(now);
        let flap = now.saturating_duration_since(since) < FLAP;
        self.state = State::Backoff { until: now + self.patience.failed(fault, flap) };
        self.dialing.clear();
        self.peer = None;
        self.fault = Some((fault, why));
    }

    fn close(&mut self, now: Instant, between_messages: bool) {
        match self.state {
            State::Closing { .. } | State::Closed => {}
            State::Live { .. } => {
                self.state = State::Closing { until: now + CLOSE_TIMEOUT };
                self.outputs.push_back(Output::Farewell { speak: between_messages });
            }
            // It has been promised nothing, except by a `publish` without an answer, which the end of the connection takes back.
            State::Resolving { .. }
            | State::Connecting { .. }
            | State::Securing { .. }
            | State::Starting { .. }
            | State::Backoff { .. } => self.closed(),
        }
    }

    fn closed(&mut self) {
        self.state = State::Closed;
        self.outputs.push_back(Output::Drop);
        self.outputs.push_back(Output::Closed);
    }
}

/// Families in turns, beginning with the resolver's favourite (RFC 8305, 4): where one does not work, the other is not far.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (favourite, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|at| at.is_ipv6() == first_is_v6);
    let mut turns = Vec::with_capacity(favourite.len() + other.len());
    let (mut favourite, mut other) = (favourite.into_iter(), other.into_iter());
    loop {
        let (one, two) = (favourite.next(), other.next());
        if one.is_none() && two.is_none() {
            return turns;
        }
        turns.extend(one.into_iter().chain(two));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
