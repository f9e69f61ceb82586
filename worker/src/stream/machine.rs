//! The life of a stream, as rules: when its publisher is told to start, which publisher may take its place, when it ends.
//!
//! In: events of publisher and upstreams, commands of the engine, time. Out: actions of the shell. No media comes here: see [`super::index`]
//! and [`super::cursor`].
//!
//! ```text
//!              an upstream has started              lost
//!  Starting ─────────────────────────────▶ Live ───────────▶ Grace
//!   │   ▲ taken over                       │  ▲              │  │
//!   │   └── (when the publisher is silent) │  └── came back ─┘  │ time is up
//!   │                                      │                    │
//!   │ lost, ended, kicked, all refused,    │ ended, kicked,     │
//!   │ hold time spent, given back          │ silent, given back │
//!   └──────────────────────────────────────┴────────────────────┴──▶ Closing ──▶ Ended
//!                                                       upstreams and publisher are closed
//! ```
//!
//! Note: a stream that was handed over again after its worker's death is not a duplicate, though its identity is still here (in grace, if
//! it came by link): its stream id and a higher epoch show that. And another stream may want one of the upstreams, one that leads to the same
//! place for every publisher. The stream gives that upstream up in the states in which it would give way to a publisher of its own name, and
//! goes on with the others; without any upstream it ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use liveedgecast_common::control::SessionState;
use liveedgecast_common::handoff::Close;

/// Interval of pings to a publisher that is held. The documented bound is 5 s; the answer must come before the publisher counts as silent.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// A publisher that has been silent for this long gives way to another one of the same name.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);
/// A publisher that has been silent for this long counts as lost, though its connection is open: encoders send audio all the time.
pub const SILENCE_ENDS_AFTER: Duration = Duration::from_secs(60);
/// Time after the end in which upstreams may take the rest of the stream.
pub const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Time after which the stream has ended, even if a connection was not closed in order: each is given 2 s, and upstreams [`DRAIN_TIME`] before.
const CLOSE_TIME: Duration = Duration::from_secs(6);
/// The same time when the next publisher of the name is there: an upstream's 2 s for its goodbye, and a little more.
const HURRIED_CLOSE_TIME: Duration = Duration::from_millis(2_500);

/// See the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The publisher is held until an upstream has started.
    Starting,
    /// The publisher streams.
    Live,
    /// The publisher is lost, and may come back.
    Grace,
    /// The rest is written, connections are closed.
    Closing,
    /// Every connection is closed.
    Ended,
}

impl State {
    /// The word of logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Grace => "grace",
            Self::Closing => "closing",
            Self::Ended => "ended",
        }
    }
}

/// Times of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Rest of the time for which the publisher may be held.
    pub hold_left: Duration,
    /// Time for which a lost publisher is waited for.
    pub grace: Duration,
}

/// A publisher that wants to be this stream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The publisher that the stream has (had), handed over again with a higher epoch.
    pub same: bool,
    /// The publisher was told to start, and has sent media.
    pub started: bool,
    /// Time for which it may be held.
    pub hold_left: Duration,
    /// `true`: if this stream is about to end, a new one may begin with this publisher afterwards, because it wants no upstream that another
    /// stream may have by then.
    pub may_follow: bool,
    /// The memory that its ring is in.
    pub memory: NewcomerMemory,
}

/// The memory that a publisher's ring is in. An activator takes memory for each stay of a publisher, new or from a stream that has ended, and
/// passes the same memory along whenever it hands that stay over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewcomerMemory {
    /// Memory that came with this publisher alone.
    Own,
    /// The memory of the stream's own ring, which can be mapped once at a time: usable for the same publisher, and for a stream that
    /// begins when this one has ended.
    Same,
}

/// Events that the shell tells the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Media may be written to the upstream of this number.
    UpstreamLive(usize),
    /// The upstream of this number has clearly refused.
    UpstreamRefused(usize),
    /// The stream has an upstream of this number from now on, or knows anew whether it is required for the start.
    UpstreamJoined {
        /// Number of the upstream.
        at: usize,
        /// The stream starts only when this upstream has started.
        required: bool,
    },
    /// The upstream of this number begins anew: what it has refused before does not count.
    UpstreamRenewed(usize),
    /// The upstream of this number is not the stream's any more. A stream may have none: its publisher stays.
    UpstreamLeft(usize),
    /// Every upstream is closed.
    UpstreamsClosed,
    /// The publisher's connection is closed, as [`Output::EndPublisher`] said.
    PublisherClosed,
    /// The publisher has ended the stream.
    Ended,
    /// The publisher was lost without a goodbye.
    Lost {
        /// Reason for the log.
        why: &'static str,
        /// The way to close its connection: in order, if that is still possible.
        how: Close,
    },
    /// A publisher wants to be attached; answered by [`Output::Decide`].
    Attach(Newcomer),
    /// A contender wants upstreams of this stream; answered by [`Output::GiveUp`].
    Contend,
    /// The upstream of this number was given up.
    GivenUp(usize),
    /// The stream and its publisher are another worker's now.
    Fence,
    /// `true`: no activator is there through which a lost publisher could return, so it is not waited for.
    Alone(bool),
    /// The activator or an operator ends the stream.
    Kick(String),
    /// The worker goes down.
    HandBack {
        /// An activator is there to give the publisher to.
        possible: bool,
    },
}

/// Actions of the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the publisher `Publish.Start`, and the activator.
    Start,
    /// Tell the publisher `Publish.Start` and not the activator: it is closed next, and comes again.
    SendAway,
    /// Refuse the publisher.
    Refuse(String),
    /// Ping the publisher.
    Ping,
    /// End the publisher's connection, and tell the activator. [`Input::PublisherClosed`] follows.
    EndPublisher {
        /// The way to close it.
        how: Close,
        /// Reason for the log.
        reason: String,
    },
    /// Leave the publisher's connection to the activator: it has said goodbye, and may publish again. [`Input::PublisherClosed`] follows.
    PartPublisher,
    /// Give the publisher back to the activator as it is.
    GiveBack,
    /// Attach or refuse the publisher that came.
    Decide(AttachDecision),
    /// Close the upstreams that another stream wants, or keep them.
    GiveUp(bool),
    /// Close each upstream when everything has been written to it.
    CloseUpstreams,
    /// Close every upstream now.
    CutUpstreams,
    /// Log and report the new state.
    State(State),
}

/// The answer to a publisher that was to be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachDecision {
    /// The stream's publisher from now on; the one before was ended.
    Adopt,
    /// A new stream begins with it when this one has ended.
    Follow,
    /// Refused: the stream's own publisher is there, or another one follows already.
    Duplicate,
    /// Given back to its activator, for another attempt: this stream is about to end and the publisher cannot follow it, or it is another
    /// publisher than the stream's and came with the stream's own memory.
    Return,
}

/// An upstream, as far as the stream's life depends on it.
#[derive(Clone, Copy, Debug, Default)]
struct StreamUpstream {
    /// Required for the start.
    required: bool,
    /// A session has been live.
    live: bool,
    refused: bool,
    /// Another stream has it.
    given_up: bool,
}

/// See the picture above.
#[derive(Debug)]
pub struct Machine {
    state: State,
    times: Times,
    /// Upstreams by number.
    upstreams: Vec<Option<StreamUpstream>>,
    /// End of the hold time, of the grace time, or of the time for closing.
    deadline: Option<Instant>,
    cut_at: Option<Instant>,
    ping_at: Instant,
    heard: Instant,
    publisher_open: bool,
    upstreams_open: bool,
    /// The next stream is waiting for the end of this one.
    succeeded: bool,
    /// No activator is there.
    alone: bool,
    reason: String,
    /// Only this worker's part of the stream has ended.
    goes_on: bool,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// Creates a stream with a publisher that has just come. `started`: it streams already, from another worker.
    #[must_use]
    pub fn new(now: Instant, times: Times, required: Vec<bool>, started: bool) -> Self {
        let upstream = |required| Some(StreamUpstream { required, ..StreamUpstream::default() });
        let mut machine = Self {
            state: State::Starting,
            times,
            upstreams: required.into_iter().map(upstream).collect(),
            deadline: Some(now + times.hold_left),
            cut_at: None,
            ping_at: now + PING_INTERVAL,
            heard: now,
            publisher_open: true,
            upstreams_open: true,
            succeeded: false,
            alone: false,
            reason: String::new(),
            goes_on: false,
            outputs: VecDeque::new(),
        };
        if started {
            machine.deadline = None;
            machine.enter(State::Live);
        } else {
            machine.enter(State::Starting);
            machine.start_if_ready(now);
        }
        machine
    }

    /// The stream's state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The state that activators are told. A stream that goes on with another worker is live, and not about to end.
    #[must_use]
    pub fn told(&self) -> SessionState {
        match self.state {
            State::Starting => SessionState::Starting,
            State::Closing if !self.goes_on => SessionState::Ending,
            State::Live | State::Closing => SessionState::Live,
            State::Grace => SessionState::Grace,
            State::Ended => SessionState::Ended,
        }
    }

    /// The reason why its publisher was lost, or why it ends; otherwise empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns whether the stream goes on without this worker, which has given it back or has lost it to another one.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Returns whether no activator is there, as the engine told last.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Notes that bytes of the publisher have come.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::UpstreamLive(at) => self.upstream_live(now, at),
            Input::UpstreamRefused(at) => self.upstream_refused(now, at),
            Input::UpstreamJoined { at, required } => self.upstream_joined(at, required),
            Input::UpstreamRenewed(at) => {
                self.upstream(at).into_iter().for_each(|upstream| upstream.refused = false);
            }
            Input::UpstreamLeft(at) => self.upstream_left(now, at),
            Input::UpstreamsClosed => {
                self.upstreams_open = false;
                self.end_if_closed();
            }
            Input::PublisherClosed => {
                self.publisher_open = false;
                self.end_if_closed();
            }
            Input::Ended => self.part(now),
            Input::Lost { why, how } => self.lost(now, why, how),
            Input::Attach(newcomer) => self.attach(now, newcomer),
            Input::Contend => self.contend(now),
            Input::GivenUp(at) => self.given_up(now, at),
            Input::Fence => self.fence(now),
            Input::Alone(alone) => {
                self.alone = alone;
                if alone && self.state == State::Grace {
                    self.close(now, Close::Abort, "no activator is there for the publisher to come back through");
                }
            }
            Input::Kick(reason) => self.kick(now, &reason),
            Input::HandBack { possible } => self.hand_back(now, possible),
        }
    }

    /// Handles the deadlines of the state.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Starting => {
                if self.deadline.is_some_and(|at| at <= now) {
                    self.come_back_later(now, "hold time spent");
                } else if self.ping_at <= now {
                    self.ping_at = now + PING_INTERVAL;
                    self.outputs.push_back(Output::Ping);
                }
            }
            State::Live if self.heard + SILENCE_ENDS_AFTER <= now => {
                self.close(now, Close::Abort, "the publisher is silent");
            }
            State::Grace if self.deadline.is_some_and(|at| at <= now) => {
                self.close(now, Close::Abort, "the publisher did not come back");
            }
            State::Closing => {
                if self.cut_at.is_some_and(|at| at <= now) {
                    self.cut_at = None;
                    self.outputs.push_back(Output::CutUpstreams);
                }
                if self.deadline.is_some_and(|at| at <= now) {
                    (self.publisher_open, self.upstreams_open) = (false, false);
                    self.end_if_closed();
                }
            }
            State::Live | State::Grace | State::Ended => {}
        }
    }

    /// Deadline of the next [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Starting => [Some(self.ping_at), self.deadline].into_iter().flatten().min(),
            State::Live => Some(self.heard + SILENCE_ENDS_AFTER),
            State::Grace => self.deadline,
            State::Closing => [self.cut_at, self.deadline].into_iter().flatten().min(),
            State::Ended => None,
        }
    }

    /// The next action.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.outputs.push_back(Output::State(state));
    }

    fn upstream(&mut self, at: usize) -> Option<&mut StreamUpstream> {
        self.upstreams.get_mut(at)?.as_mut()
    }

    /// The upstreams that the stream has.
    fn all(&self) -> impl Iterator<Item = &StreamUpstream> {
        self.upstreams.iter().flatten()
    }

    fn upstream_live(&mut self, now: Instant, at: usize) {
        // Its answer was on the way when the upstream was given up.
        let Some(upstream) = self.upstream(at).filter(|upstream| !upstream.given_up) else { return };
        (upstream.live, upstream.refused) = (true, false);
        self.start_if_ready(now);
    }

    fn upstream_joined(&mut self, at: usize, required: bool) {
        if self.upstreams.len() <= at {
            self.upstreams.resize(at + 1, None);
        }
        self.upstreams[at].get_or_insert_default().required = required;
    }

    fn upstream_left(&mut self, now: Instant, at: usize) {
        if self.upstreams.get_mut(at).and_then(Option::take).is_some() {
            self.start_if_ready(now);
            self.refuse_if_all_have(now);
        }
    }

    /// Starts the publisher when an upstream is live, and every required one; without any upstream there is nothing to wait for.
    fn start_if_ready(&mut self, now: Instant) {
        let required = self.all().all(|upstream| !upstream.required || upstream.live);
        let any = self.all().any(|upstream| upstream.live) || self.all().next().is_none();
        if self.state == State::Starting && required && any {
            self.start(now);
        }
    }

    fn start(&mut self, now: Instant) {
        self.deadline = None;
        self.heard = now;
        self.outputs.push_back(Output::Start);
        self.enter(State::Live);
    }

    /// Notes a refusal. Only the first start can be refused: a publisher that was told to start is not dropped for an upstream's sake.
    fn upstream_refused(&mut self, now: Instant, at: usize) {
        if let Some(upstream) = self.upstream(at) {
            upstream.refused = true;
            self.refuse_if_all_have(now);
        }
    }

    fn refuse_if_all_have(&mut self, now: Instant) {
        let all = self.all().all(|upstream| upstream.refused) && self.all().next().is_some();
        let needed = self.all().any(|upstream| upstream.required && upstream.refused);
        if self.state == State::Starting && (all || needed) {
            self.outputs.push_back(Output::Refuse("refused by the upstream".to_owned()));
            self.close(now, Close::Graceful, "refused by the upstream");
        }
    }

    fn lost(&mut self, now: Instant, why: &str, how: Close) {
        match self.state {
            State::Starting => self.close(now, how, why),
            State::Live if self.times.grace.is_zero() || self.alone => self.close(now, how, why),
            State::Live => {
                self.reason = why.to_owned();
                self.outputs.push_back(Output::EndPublisher { how, reason: why.to_owned() });
                self.deadline = Some(now + self.times.grace);
                self.enter(State::Grace);
            }
            State::Grace | State::Closing | State::Ended => {}
        }
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.heard + SILENT_AFTER <= now
    }

    /// Answers a contender, by the same rule as for a second publisher of the stream's own name.
    fn contend(&mut self, now: Instant) {
        let gives_up = match self.state {
            State::Grace => true,
            State::Starting | State::Live => self.is_silent(now),
            State::Closing | State::Ended => !self.succeeded,
        };
        self.outputs.push_back(Output::GiveUp(gives_up));
        if gives_up && self.state == State::Closing {
            self.hurry(now);
        }
    }

    fn given_up(&mut self, now: Instant, at: usize) {
        let Some(upstream) = self.upstream(at) else { return };
        upstream.given_up = true;
        let needed = self.all().any(|upstream| upstream.required && upstream.given_up);
        if !needed && self.all().any(|upstream| !upstream.given_up) {
            return self.upstream_refused(now, at);
        }
        let reason = "another stream took over its upstream";
        if self.state == State::Starting {
            self.outputs.push_back(Output::Refuse(reason.to_owned()));
        }
        self.close(now, Close::Abort, reason);
        self.hurry(now);
    }

    /// Stops draining: another publisher waits for the end of this stream, and its activator withdraws an offer after 3 s.
    fn hurry(&mut self, now: Instant) {
        if self.state == State::Closing {
            self.cut_at = None;
            self.deadline = self.deadline.map(|at| at.min(now + HURRIED_CLOSE_TIME));
            self.outputs.push_back(Output::CutUpstreams);
        }
    }

    fn attach(&mut self, now: Instant, newcomer: Newcomer) {
        let silent = self.is_silent(now);
        let foreign = newcomer.memory == NewcomerMemory::Same && !newcomer.same;
        match self.state {
            State::Starting | State::Live | State::Grace if foreign => {
                self.outputs.push_back(Output::Decide(AttachDecision::Return));
            }
            State::Grace => self.adopt(now, newcomer),
            State::Starting | State::Live if newcomer.same || silent => {
                // By descriptor, the connection of the same publisher must not be ended: the newcomer has the same one.
                if !newcomer.same {
                    let reason = "another publisher took over".to_owned();
                    self.outputs.push_back(Output::EndPublisher { how: Close::Abort, reason });
                }
                self.adopt(now, newcomer);
            }
            State::Closing if !self.succeeded && newcomer.may_follow => {
                self.succeeded = true;
                self.outputs.push_back(Output::Decide(AttachDecision::Follow));
                self.hurry(now);
            }
            State::Closing if !newcomer.may_follow => self.outputs.push_back(Output::Decide(AttachDecision::Return)),
            State::Starting | State::Live | State::Closing => {
                self.outputs.push_back(Output::Decide(AttachDecision::Duplicate));
            }
            State::Ended => self.outputs.push_back(Output::Decide(AttachDecision::Return)),
        }
    }

    fn adopt(&mut self, now: Instant, newcomer: Newcomer) {
        let was_started = self.state != State::Starting;
        self.publisher_open = true;
        self.heard = now;
        self.deadline = None;
        self.reason.clear();
        self.outputs.push_back(Output::Decide(AttachDecision::Adopt));
        if newcomer.started {
            self.enter(State::Live);
        } else if was_started {
            // Its upstreams have started once; the publisher need not know whether they are there just now.
            self.start(now);
        } else {
            self.deadline = Some(now + newcomer.hold_left);
            self.ping_at = now + PING_INTERVAL;
            self.enter(State::Starting);
        }
    }

    /// Closes at once: the other worker's session must find the name free.
    fn fence(&mut self, now: Instant) {
        match self.state {
            State::Starting | State::Live => {
                self.outputs.push_back(Output::GiveBack);
                self.publisher_open = false;
                self.reason = "another worker has it".to_owned();
                self.goes_on = true;
                self.begin_closing(now, now);
            }
            State::Grace => {
                self.publisher_open = false;
                self.reason = "another worker has it".to_owned();
                self.goes_on = true;
                self.begin_closing(now, now);
            }
            State::Closing if !self.succeeded => self.hurry(now),
            State::Closing | State::Ended => {}
        }
    }

    fn kick(&mut self, now: Instant, reason: &str) {
        if self.state == State::Starting {
            self.outputs.push_back(Output::Refuse(reason.to_owned()));
        }
        self.close(now, Close::Graceful, reason);
    }

    /// Sends the publisher away for now: `Publish.Start` and then the end make encoders try again by themselves (architecture.md, "Saying no").
    fn come_back_later(&mut self, now: Instant, reason: &str) {
        if self.state == State::Starting {
            self.outputs.push_back(Output::SendAway);
        }
        self.close(now, Close::Graceful, reason);
    }

    fn hand_back(&mut self, now: Instant, possible: bool) {
        match self.state {
            State::Starting | State::Live if possible => {
                self.outputs.push_back(Output::GiveBack);
                self.publisher_open = false;
                self.reason = "given back".to_owned();
                self.goes_on = true;
                // The successor's session must find the name free at the upstream, so the rest of the stream is not waited for.
                self.begin_closing(now, now);
            }
            State::Grace => self.close(now, Close::Graceful, "this worker goes down"),
            State::Starting | State::Live | State::Closing | State::Ended => {}
        }
    }

    /// Ends the stream after its publisher's goodbye. Its upstreams end at once; the publisher ends its connection itself.
    fn part(&mut self, now: Instant) {
        if matches!(self.state, State::Starting | State::Live) {
            self.reason = "ended by the publisher".to_owned();
            self.outputs.push_back(Output::PartPublisher);
            self.begin_closing(now, now + DRAIN_TIME);
        } else {
            self.close(now, Close::Graceful, "ended by the publisher");
        }
    }

    fn close(&mut self, now: Instant, how: Close, reason: &str) {
        if matches!(self.state, State::Closing | State::Ended) {
            return;
        }
        self.reason = reason.to_owned();
        if self.state == State::Grace {
            self.publisher_open = false;
        } else {
            self.outputs.push_back(Output::EndPublisher { how, reason: reason.to_owned() });
        }
        self.begin_closing(now, now + DRAIN_TIME);
    }

    fn begin_closing(&mut self, now: Instant, cut_at: Instant) {
        self.deadline = Some(now + CLOSE_TIME);
        self.outputs.push_back(Output::CloseUpstreams);
        if cut_at <= now {
            self.outputs.push_back(Output::CutUpstreams);
        } else {
            self.cut_at = Some(cut_at);
        }
        self.enter(State::Closing);
    }

    fn end_if_closed(&mut self) {
        if self.state == State::Closing && !self.publisher_open && !self.upstreams_open {
            self.deadline = None;
            self.enter(State::Ended);
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
