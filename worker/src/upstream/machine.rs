//! The rules of an upstream: the time of each stage, the next attempt, the meaning of each failure.
//!
//! In: results of the shell's lookups, dials and sessions. Out: actions of the shell. Next: the shell (`connection`), and through it the
//! upstream server.
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
//! Starting walks through the stages of the session (handshake, connect, create_stream, publish), each with its own deadline. A server that
//! redirects us leads from there to Resolving, once in an attempt.
//!
//! An upstream may have a second server, the backup, which is asked by the same picture: when the primary has had no session that lasted for the
//! backup's time, the next attempt goes to the backup, and from then on each failure leads to the other one. The session that is live stays where it
//! is until it is lost. Each server has a history of its own.
//!
//! Note: an upstream that is away for some seconds must be asked several times a second to be back within one, and a SYN that was dropped
//! is repeated by the kernel only after 1, 3 and 7 s, so that we dial again while it waits. MediaMTX, nginx-rtmp and others say
//! Publish.Start before they have looked whether we may publish, so that only a session that lasted a while proves anything. Twitch, SRS
//! and nginx-rtmp refuse by closing without a word: a few of those at the same stage are a refusal. A server whose hook asks somebody
//! else may need many seconds for an answer; giving up and asking again makes that worse, so that limits grow with each time-out. Each
//! stage's time-outs count for its own limits: a slow resolver says nothing of the server, nor a slow hook of the handshake before it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use liveedgecast_common::control::UpstreamState;
use liveedgecast_common::rtmp::auth::{AuthAnswer, Challenge};
use liveedgecast_common::rtmp::client::{ClientEvent, Stage};
use liveedgecast_common::url::PushUrl;

use super::fault::Fault;
use super::patience::{History, Patience};

/// Time for the resolver's answer at the first attempt; a resolver that takes longer asks other servers.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for TCP, all addresses together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until the next address is dialed too, while the earlier ones may still answer (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Time until the addresses are dialed once more: before the kernel repeats a SYN for the second time, after 3 s.
const REDIAL: Duration = Duration::from_secs(1);
/// Sockets that dial at the same time. With more addresses, the oldest gives way: it has had two seconds.
const MAX_DIALS: usize = 8;
/// Time for TLS at the first attempt: two round trips and a certificate chain.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the handshake at the first attempt: a server asks nobody for it. GStreamer gives a server as much.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the answers to `connect` and `createStream` at the first attempt: hooks of some servers ask another service first, by HTTP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for Publish.Start at the first attempt: nginx-rtmp gives its hook 10 s, and there may be two.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of times that a time-out doubles the limits of its kind for the attempts after it: 80 s for Publish.Start, within the usual hold time.
const MOST_DOUBLINGS: u32 = 2;
/// Time from the last command to the end of the connection (architecture.md, "Upstream sessions").
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session that lasted this long proves that the upstream works: earlier failures are forgotten.
const STABLE: Duration = Duration::from_secs(10);
/// Time after a failure in which it is taken for a flap: the upstream is asked often, to be back within a second of its return.
const FLAP: Duration = Duration::from_secs(15);
/// Closes without words, or with an unknown code, at the same stage that together are a refusal.
const REFUSALS: u32 = 3;
/// A session that ended within this time was never accepted. SRS closes after 7 s without media, which is no refusal.
const NEVER_LASTED: Duration = Duration::from_secs(5);
/// Time after the first refusal in which a taken name is a stale session and not a refusal (architecture.md, "Upstream sessions"): a worker
/// whose activator died keeps its sessions for the grace time, 10 s, and a server needs a moment to notice the end of one.
const STALE_NAME: Duration = Duration::from_secs(15);
/// Longest wait between two attempts in that time: a publisher is being held.
const STALE_NAME_RETRY: Duration = Duration::from_secs(2);
/// Connections refused with a question for credentials, in one attempt: one for the user, one for the proof.
const MAX_CHALLENGES: u32 = 2;

/// A TCP connection that is being dialed. No id is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialId(pub u64);

/// Results that the shell tells the machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Every address of the name.
    Resolved(Vec<SocketAddr>),
    /// The name could not be resolved.
    Unresolved(String),
    /// The TCP connection is there.
    Connected(DialId),
    /// The TCP connection failed.
    NotConnected(DialId, Fault, String),
    /// The connection has TLS.
    Secured,
    /// TLS failed.
    NotSecured(Fault, String),
    /// The session is in another stage.
    Reached(Stage),
    /// The session has an event.
    Session(ClientEvent),
    /// The connection has ended, or broke the protocol.
    Broken(Fault, String),
    /// The stream has ended.
    Close {
        /// Commands may be written: the last message is whole.
        between_messages: bool,
    },
}

/// Actions of the shell.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask for the addresses of the host.
    Resolve,
    /// Connect, besides those that are being dialed already.
    Dial(DialId, SocketAddr),
    /// Give up this dial.
    Undial(DialId),
    /// Go on with this connection, drop the others that are being dialed, and do TLS on it.
    Secure(DialId),
    /// Log that the upstream redirects to another server; its name is resolved next.
    Redirected(String),
    /// Log that the next attempts go to the other server.
    Turned {
        /// It is not the first turn since a session has lasted.
        again: bool,
    },
    /// Begin a session: on this connection, dropping the others, or on the one that is secured.
    Begin(Option<DialId>, Option<AuthAnswer>),
    /// Drop everything: lookups, dials, the connection.
    Drop,
    /// Media may be written.
    Live,
    /// Say how much is not acknowledged, drop the connection, tell [`super::UpstreamEvent::Lost`].
    Lost(String),
    /// Tell [`super::UpstreamEvent::Refused`].
    Refused(Fault),
    /// Write the end of the session (if it may speak) and FIN, then discard input.
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

/// Attempts that were not answered in time.
#[derive(Debug, Default)]
struct TimeOuts {
    /// Time-outs of the resolver.
    resolver: u32,
    /// Time-outs of the server at TLS or the handshake, for which it asks nobody: most often it hangs.
    connection: u32,
    /// Time-outs of the server later, where its hook may be slow.
    answers: u32,
}

/// The memory of one server.
#[derive(Debug)]
struct ServerHistory {
    /// Address of a connection that failed: the other addresses come first next time.
    avoid: Option<SocketAddr>,
    /// The server's first challenge: it is answered unasked from then on, which saves a connection.
    asks_for_the_user: Option<Challenge>,
    patience: Patience,
    /// Beginning of the time in which it has not worked.
    broken_since: Option<Instant>,
    timeouts: TimeOuts,
    /// The stage at which the server refused last without clear words, and the number of refusals in a row.
    refusals: (Stage, u32),
    /// Beginning of the time in which the name has been taken.
    taken_since: Option<Instant>,
    /// A session has been live.
    lived: bool,
    /// A session has lasted.
    lasted: bool,
    /// The server has clearly refused, and no session has been live since.
    refused: bool,
}

impl ServerHistory {
    fn new(seed: u64) -> Self {
        Self {
            avoid: None,
            asks_for_the_user: None,
            patience: Patience::new(seed),
            broken_since: None,
            timeouts: TimeOuts::default(),
            refusals: (Stage::Handshake, 0),
            taken_since: None,
            lived: false,
            lasted: false,
            refused: false,
        }
    }

    /// Forgets failures, after a session that lasted.
    fn forgive(&mut self) {
        self.patience.reset();
        self.broken_since = None;
    }
}

/// The server that is not in use.
#[derive(Debug)]
struct OtherServer {
    url: PushUrl,
    known: ServerHistory,
    /// Time without a session that lasted after which the backup is asked.
    after: Duration,
}

/// The last failure.
#[derive(Debug)]
struct UpstreamFailure {
    fault: Fault,
    why: String,
    /// Waiting alone does not help.
    failed: bool,
}

/// See the picture above.
#[derive(Debug)]
pub struct Machine {
    url: PushUrl,
    /// The server to which the upstream has redirected this attempt.
    redirected: Option<PushUrl>,
    /// The redirecting server is on this machine, so that its redirect may lead to this machine.
    redirected_from_here: bool,
    state: State,
    /// Addresses of this attempt, in the order in which they are dialed.
    addresses: Vec<SocketAddr>,
    /// Dials begun in this attempt.
    dialed: usize,
    dialing: Vec<(DialId, SocketAddr)>,
    next_id: u64,
    /// Address of the connection.
    peer: Option<SocketAddr>,
    /// AuthAnswer that the next session sends.
    answer: Option<AuthAnswer>,
    challenges: u32,
    /// The history of the server in use.
    known: ServerHistory,
    /// The server that is not in use, if there are two.
    other: Option<Box<OtherServer>>,
    /// The backup is in use.
    on_backup: bool,
    /// Beginning of the time without a session that lasted.
    failing_since: Instant,
    /// Each failure leads to the other server.
    alternates: bool,
    chance: u64,
    failure: Option<UpstreamFailure>,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// Creates a machine that begins by asking for addresses. The same seed gives the same delays and answers.
    #[must_use]
    pub fn new(now: Instant, url: PushUrl, seed: u64) -> Self {
        Self {
            url,
            redirected: None,
            redirected_from_here: false,
            state: State::Resolving { until: now + RESOLVE_TIMEOUT },
            addresses: Vec::new(),
            dialed: 0,
            dialing: Vec::new(),
            next_id: 0,
            peer: None,
            answer: None,
            challenges: 0,
            known: ServerHistory::new(seed),
            other: None,
            on_backup: false,
            failing_since: now,
            alternates: false,
            chance: seed,
            failure: None,
            outputs: VecDeque::from([Output::Resolve]),
        }
    }

    /// The server of this attempt: the configured one, or the one that it redirected to.
    #[must_use]
    pub fn url(&self) -> &PushUrl {
        self.redirected.as_ref().unwrap_or(&self.url)
    }

    /// The configured server of this attempt: the primary, or the backup.
    #[must_use]
    pub fn server(&self) -> &PushUrl {
        &self.url
    }

    /// Returns whether the backup is in use.
    #[must_use]
    pub const fn is_on_backup(&self) -> bool {
        self.on_backup
    }

    /// Gives the upstream another backup, which is asked when there has been no session that lasted for `after`; or none. A session with a backup that
    /// is none any more ends, and the primary is asked again.
    pub fn set_backup(&mut self, now: Instant, backup: Option<(PushUrl, Duration)>) {
        let current = if self.on_backup { Some(&self.url) } else { self.other.as_ref().map(|other| &other.url) };
        if current == backup.as_ref().map(|(url, _)| url) {
            if let Some((other, (_, after))) = self.other.as_mut().zip(backup) {
                other.after = after;
            }
            return;
        }
        let moves = self.on_backup;
        if moves {
            self.turn();
        }
        let known = ServerHistory::new(self.chance);
        self.other = backup.map(|(url, after)| Box::new(OtherServer { url, known, after }));
        self.alternates = false;
        match self.state {
            State::Closing { .. } | State::Closed | State::Backoff { .. } => return,
            _ if !moves => return,
            State::Live { .. } => self.outputs.push_back(Output::Lost("it is no longer the backup".to_owned())),
            _ => self.outputs.push_back(Output::Drop),
        }
        self.dialing.clear();
        self.peer = None;
        self.state = State::Backoff { until: now };
    }

    /// Notes that sessions have lived and lasted before, with another machine.
    pub fn has_worked(&mut self) {
        (self.known.lived, self.known.lasted) = (true, true);
    }

    /// Returns whether media may be written.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    /// The state as logs and activators are told.
    #[must_use]
    pub fn state(&self) -> UpstreamState {
        match self.state {
            State::Resolving { .. } | State::Connecting { .. } | State::Securing { .. } => UpstreamState::Dialing,
            State::Starting { .. } => UpstreamState::Starting,
            State::Live { .. } => UpstreamState::Live,
            State::Backoff { .. } if self.failure.as_ref().is_some_and(|failure| failure.failed) => {
                UpstreamState::Failed
            }
            State::Backoff { .. } => UpstreamState::Backoff,
            State::Closing { .. } | State::Closed => UpstreamState::Closed,
        }
    }

    /// Returns whether the session that is live has lasted long enough to prove that the upstream works.
    #[must_use]
    pub fn has_lasted(&self, now: Instant) -> bool {
        self.lasts_at().is_some_and(|at| at <= now)
    }

    /// The time at which the session that is live will have lasted that long.
    #[must_use]
    pub fn lasts_at(&self) -> Option<Instant> {
        if let State::Live { since } = self.state { Some(since + STABLE) } else { None }
    }

    /// The last failure, until a session is live.
    #[must_use]
    pub fn fault(&self) -> Option<(Fault, &str)> {
        self.failure.as_ref().map(|failure| (failure.fault, failure.why.as_str()))
    }

    /// Returns whether the upstream has taken the stream before.
    #[must_use]
    pub fn has_lived(&self) -> bool {
        self.known.lived
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards. An input that does not fit the state is late news of a lookup or
    /// dial that was dropped.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match (self.state, input) {
            (State::Closed, _) => {}
            (_, Input::Close { between_messages }) => self.close(now, between_messages),
            (State::Closing { .. }, Input::Broken(..)) => self.closed(),
            (State::Closing { .. }, _) => {}
            (State::Resolving { .. }, Input::Resolved(addresses)) => self.resolved(now, addresses),
            (State::Resolving { .. }, Input::Unresolved(why)) => self.failed(now, Fault::UnknownHost, why),
            (State::Connecting { .. }, Input::Connected(dial)) => self.connected(now, dial),
            (State::Connecting { until, .. }, Input::NotConnected(dial, fault, why)) => {
                self.not_connected(now, until, dial, fault, why);
            }
            (State::Securing { .. }, Input::Secured) => self.begin(now, None),
            (State::Securing { .. }, Input::NotSecured(fault, why)) => self.failed(now, fault, why),
            (State::Starting { .. }, Input::Reached(stage)) => self.reached(now, stage),
            (State::Starting { .. } | State::Live { .. }, Input::Session(event)) => self.session(now, event),
            (State::Starting { stage, .. }, Input::Broken(fault, why)) => {
                // A proxy without its server closes before it has said anything; a close at a later stage is a refusal without words.
                let fault =
                    if fault == Fault::Closed && stage == Stage::Handshake { Fault::Unreachable } else { fault };
                self.failed(now, fault, format!("{why} at {}", stage.as_str()));
            }
            (State::Live { since }, Input::Broken(fault, why)) => self.lost(now, since, fault, why),
            _ => {}
        }
    }

    /// Handles the deadline of the state.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match self.state {
            State::Resolving { .. } => self.timed_out(now, Fault::UnknownHost, "no answer of the resolver".to_owned()),
            State::Connecting { until, .. } if until <= now => {
                self.failed(now, Fault::Unreachable, "no answer to the connection".to_owned());
            }
            State::Connecting { until, .. } => self.dial(now, until),
            State::Securing { .. } => self.timed_out(now, Fault::NoAnswer, "no answer to TLS".to_owned()),
            State::Starting { stage, .. } => {
                self.timed_out(now, Fault::NoAnswer, format!("no answer at {}", stage.as_str()));
            }
            State::Backoff { .. } => self.resolve(now),
            State::Closing { .. } => self.closed(),
            State::Live { .. } | State::Closed => {}
        }
    }

    /// Deadline of the next [`Self::handle_timeout`].
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

    /// The next action.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn resolve(&mut self, now: Instant) {
        self.redirected = None;
        self.ask_for_addresses(now);
    }

    fn ask_for_addresses(&mut self, now: Instant) {
        self.challenges = 0;
        self.answer = None;
        self.state = State::Resolving { until: now + patient(RESOLVE_TIMEOUT, self.known.timeouts.resolver) };
        self.outputs.push_back(Output::Resolve);
    }

    fn resolved(&mut self, now: Instant, mut addresses: Vec<SocketAddr>) {
        if self.redirected.is_some() && !self.redirected_from_here && !addresses.is_empty() {
            addresses.retain(|address| !is_near(address.ip()));
            if addresses.is_empty() {
                let why = "an address of this machine or its link is for no other server to choose".to_owned();
                return self.failed(now, Fault::BadRedirect, why);
            }
        }
        if addresses.is_empty() {
            return self.failed(now, Fault::UnknownHost, "the name has no address".to_owned());
        }
        self.addresses = in_turns(addresses);
        if let Some(index) = self.addresses.iter().position(|address| Some(*address) == self.known.avoid) {
            let address = self.addresses.remove(index);
            self.addresses.push(address);
        }
        if self.redirected.is_none()
            && let Some(challenge) = self.known.asks_for_the_user.clone()
        {
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

    /// Dials the next address and sets the deadline of the one after it.
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

    fn not_connected(&mut self, now: Instant, until: Instant, dial: DialId, fault: Fault, why: String) {
        let Some(index) = self.dialing.iter().position(|(id, _)| *id == dial) else { return };
        self.dialing.remove(index);
        if self.dialed < self.addresses.len() {
            self.dial(now, until);
        } else if self.dialing.is_empty() {
            self.failed(now, fault, why);
        }
    }

    fn connected(&mut self, now: Instant, dial: DialId) {
        let Some((_, address)) = self.dialing.iter().find(|(id, _)| *id == dial) else { return };
        self.peer = Some(*address);
        self.dialing.clear();
        if self.url().tls {
            self.state = State::Securing { until: now + patient(TLS_TIMEOUT, self.known.timeouts.connection) };
            self.outputs.push_back(Output::Secure(dial));
        } else {
            self.begin(now, Some(dial));
        }
    }

    fn begin(&mut self, now: Instant, dial: Option<DialId>) {
        let until = now + patient(HANDSHAKE_TIMEOUT, self.known.timeouts.connection);
        self.state = State::Starting { stage: Stage::Handshake, until };
        self.outputs.push_back(Output::Begin(dial, self.answer.take()));
    }

    fn reached(&mut self, now: Instant, stage: Stage) {
        let timeout = if stage == Stage::Publish { PUBLISH_TIMEOUT } else { ANSWER_TIMEOUT };
        self.state = State::Starting { stage, until: now + patient(timeout, self.known.timeouts.answers) };
    }

    fn session(&mut self, now: Instant, event: ClientEvent) {
        match (self.state, event) {
            (_, ClientEvent::Acknowledged(_)) => {}
            (State::Starting { .. }, ClientEvent::Started) => {
                self.known.avoid = None;
                self.failure = None;
                self.known.taken_since = None;
                self.known.lived = true;
                self.known.refused = false;
                self.state = State::Live { since: now };
                self.outputs.push_back(Output::Live);
            }
            (State::Starting { .. }, ClientEvent::AuthAsked(challenge)) => self.asked(now, challenge),
            (State::Starting { .. }, ClientEvent::Redirected(target)) => self.redirect(now, target.expose()),
            (State::Starting { .. }, ClientEvent::Refused(class, why)) => {
                self.failed(now, Fault::of_answer(class), why)
            }
            (State::Starting { .. }, ClientEvent::Ended(why)) => self.failed(now, Fault::Closed, why),
            (State::Live { since }, ClientEvent::Refused(class, why)) => {
                self.lost(now, since, Fault::of_answer(class), why);
            }
            (State::Live { since }, ClientEvent::Ended(why)) => self.lost(now, since, Fault::Closed, why),
            _ => {}
        }
    }

    /// Answers a challenge on a new connection to the same address: another server may not know it.
    fn asked(&mut self, now: Instant, challenge: Challenge) {
        let why = if self.url.credentials.is_some() && self.url().credentials.is_none() {
            "it asks for credentials, which are given to no other host than that of the push URL"
        } else if self.url().credentials.is_none() {
            "it asks for credentials: rtmp://USER:PASSWORD@host/…"
        } else if self.challenges == MAX_CHALLENGES {
            "it asks for credentials again and again"
        } else if let Some(peer) = self.peer {
            self.challenges += 1;
            self.answer(&challenge);
            if challenge.asks_for_the_user() && self.redirected.is_none() {
                self.known.asks_for_the_user = Some(challenge);
            }
            self.outputs.push_back(Output::Drop);
            self.addresses = vec![peer];
            return self.connect(now);
        } else {
            return;
        };
        self.failed(now, Fault::Denied, why.to_owned());
    }

    fn answer(&mut self, challenge: &Challenge) {
        let nonce = self.nonce();
        let url = self.url();
        let answer = url.credentials.as_ref().map(|known| AuthAnswer::new(challenge, known, &url.app, nonce));
        self.answer = answer;
    }

    /// Follows the upstream to another server, once in an attempt: where that sends us on, they may point at each other. The next attempt
    /// begins at the configured server again.
    fn redirect(&mut self, now: Instant, target: &str) {
        if self.redirected.is_some() {
            return self.failed(now, Fault::BadRedirect, "it redirects once more".to_owned());
        }
        match self.url.redirected(target) {
            Err(error) => self.failed(now, Fault::BadRedirect, error.to_string()),
            Ok(url) => {
                self.outputs.push_back(Output::Drop);
                self.outputs.push_back(Output::Redirected(url.to_string()));
                self.redirected = Some(url);
                self.redirected_from_here = self.peer.take().is_some_and(|peer| is_near(peer.ip()));
                self.ask_for_addresses(now);
            }
        }
    }

    /// Knuth's 64-bit linear congruential step; its high half is the good one.
    fn nonce(&mut self) -> u32 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 32) as u32
    }

    /// Notes an attempt that failed before it was live.
    fn failed(&mut self, now: Instant, fault: Fault, why: String) {
        let why = match &self.redirected {
            Some(url) => format!("redirected to {url}: {why}"),
            None => why,
        };
        self.known.asks_for_the_user = None;
        // A taken name is taken at all addresses.
        if self.peer.is_some() && fault != Fault::BadName {
            self.known.avoid = self.peer;
        }
        self.outputs.push_back(Output::Drop);
        let repeated = match (fault, self.state) {
            (Fault::Closed | Fault::Refused, State::Starting { stage, .. }) => self.refused_again(stage),
            _ => false,
        };
        let clearly = match fault {
            Fault::BadName => {
                let since = *self.known.taken_since.get_or_insert(now);
                now.saturating_duration_since(since) >= STALE_NAME
            }
            Fault::Denied => true,
            _ => repeated,
        };
        let failed = fault.is_loud() || (clearly && !self.known.lived);
        self.known.refused |= clearly;
        let refused = clearly && self.other.as_ref().is_none_or(|other| other.known.refused);
        self.back_off(now, UpstreamFailure { fault, why, failed });
        if refused {
            self.outputs.push_back(Output::Refused(fault));
        }
    }

    /// Notes an attempt that failed because an answer took too long: the next one waits for longer.
    fn timed_out(&mut self, now: Instant, fault: Fault, why: String) {
        let timeouts = match self.state {
            State::Resolving { .. } => &mut self.known.timeouts.resolver,
            State::Securing { .. } | State::Starting { stage: Stage::Handshake, .. } => {
                &mut self.known.timeouts.connection
            }
            _ => &mut self.known.timeouts.answers,
        };
        *timeouts = timeouts.saturating_add(1);
        self.failed(now, fault, why);
    }

    /// Counts a refusal without clear words. `true`: it is the third in a row at that stage, so that it is meant.
    fn refused_again(&mut self, stage: Stage) -> bool {
        let (last, times) = self.known.refusals;
        let times = if stage == last { times.saturating_add(1) } else { 1 };
        self.known.refusals = (stage, times);
        times >= REFUSALS
    }

    fn lost(&mut self, now: Instant, since: Instant, fault: Fault, why: String) {
        let lived_for = now.saturating_duration_since(since);
        if lived_for >= STABLE {
            self.known.forgive();
            self.other.iter_mut().for_each(|other| other.known.forgive());
            self.known.refusals = (Stage::Handshake, 0);
            // The server hung for a while. A hook or a resolver that was slow once will be slow again.
            self.known.timeouts.connection = 0;
            self.known.lasted = true;
        }
        // A session that ended as soon as it was live is no end of the time without one.
        if lived_for >= NEVER_LASTED {
            (self.failing_since, self.alternates) = (now, self.on_backup);
        }
        let closed = matches!(fault, Fault::Closed | Fault::Refused);
        // A session that ends as soon as it is live is a refusal, unless such sessions have lasted before.
        let never_lasted = closed && lived_for < NEVER_LASTED && self.refused_again(Stage::Live) && !self.known.lasted;
        let (fault, why) = match fault {
            _ if never_lasted => {
                let times = self.known.refusals.1;
                (Fault::NeverLasted, format!("{why}, {times} times in a row right after Publish.Start"))
            }
            Fault::Closed | Fault::Unreachable if lived_for >= STABLE => (Fault::Lost, why),
            fault => (fault, why),
        };
        self.outputs.push_back(Output::Lost(why.clone()));
        self.back_off(now, UpstreamFailure { failed: fault.is_loud(), fault, why });
    }

    fn back_off(&mut self, now: Instant, failure: UpstreamFailure) {
        let since = *self.known.broken_since.get_or_insert(now);
        let flap = now.saturating_duration_since(since) < FLAP;
        let history = History { flap, lived: self.known.lived, failed: failure.failed };
        let mut wait = self.known.patience.failed(failure.fault, history);
        if failure.fault == Fault::BadName && !self.known.lived && !failure.failed {
            wait = wait.min(STALE_NAME_RETRY);
        }
        self.dialing.clear();
        self.peer = None;
        self.failure = Some(failure);
        let until = self.choose(now, now + wait);
        self.state = State::Backoff { until };
    }

    /// Chooses the server of the next attempt, which the server in use would have at `until`. Returns the time of the attempt.
    fn choose(&mut self, now: Instant, until: Instant) -> Instant {
        let Some(other) = &self.other else { return until };
        let due = if self.alternates { now } else { (self.failing_since + other.after).max(now) };
        if due > until {
            return until;
        }
        // One that has not failed lately need not wait for what the other one did.
        let at = if other.known.broken_since.is_none() { due } else { until };
        let again = std::mem::replace(&mut self.alternates, true);
        self.turn();
        self.outputs.push_back(Output::Turned { again });
        at
    }

    /// Takes the other server into use.
    fn turn(&mut self) {
        if let Some(other) = &mut self.other {
            std::mem::swap(&mut self.url, &mut other.url);
            std::mem::swap(&mut self.known, &mut other.known);
            self.on_backup = !self.on_backup;
        }
    }

    fn close(&mut self, now: Instant, between_messages: bool) {
        match self.state {
            State::Closing { .. } | State::Closed => {}
            State::Live { .. } => {
                self.state = State::Closing { until: now + CLOSE_TIMEOUT };
                self.outputs.push_back(Output::Farewell { speak: between_messages });
            }
            // Nothing was promised to the server, except by a `publish` without an answer, which the end of the connection takes back.
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

/// The limit of an answer after so many time-outs; `limit`: that of the first attempt.
fn patient(limit: Duration, timeouts: u32) -> Duration {
    limit.saturating_mul(1 << timeouts.min(MOST_DOUBLINGS))
}

/// Returns whether an address is this machine's, or one that only its link can reach: services there trust every client that can connect.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// The addresses with their families in turns, beginning with the resolver's favourite (RFC 8305, 4): if one family does not work, the other is near.
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
