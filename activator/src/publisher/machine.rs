//! The rules of a publisher until a worker has it, and between two workers. In: the publisher's bytes and its end, the verdict on it, what the
//! lobby says, the outcome of a handoff. Out: bytes for the publisher, questions for other rooms, and in the end how to close. Pure. Next:
//! `admission`, `lobby`, then `handoff`, with [`Machine::snapshot`].
//!
//! ```text
//!             3073 bytes            publish          admitted          offer             worker came            done
//!  Handshake ───────────▶ Connecting ──────▶ Judged ─────────▶ Held ─────────▶ Offered ─────────────▶ Handed ────────▶ Closing
//!                              ▲               │ refused,       ▲ ▲  withdrawn, no worker came  │       │ │ ▲
//!                              │ goodbye,      ▼ later          │ └─────────────────────────────┘       │ │ │ worker came
//!                              │ held, offered Penalty          └──── declined, lost: untouched ────────┘ │ │
//!                              └ or handed                            Orphaned ⇄ Offered ◀────────────────┘ ┘
//!                                                                          moving, lost: a worker has read from it
//!  any ── its end, an error, a deadline, a refusal ──▶ Closing
//! ```
//!
//! `Judged` waits for a verdict that may take its time, because others may have to be asked; its deadline is a refusal for now.
//!
//! A publisher that says goodbye, held or handed, is `Connecting` again for two seconds: it ends its connection, or publishes once more. Its
//! stream has ended before that, in the lobby and at the worker.
//!
//! `Orphaned` is held, too, but a worker has read from the connection: only a worker can go on reading (the state is in the page or in
//! the last checkpoint), so nothing is read here, and after `Publish.Start` nothing is written either. The end of a publisher that was told to
//! start does not end its stream then: the next worker reads its last bytes first, and gives way at once to a publisher that comes again.
//!
//! Note: nginx-rtmp `push` and SRS `forward` send media without waiting for `Publish.Start`. At the first such message the session goes back
//! to the state before it and the reading stops; the kernel keeps the rest. From then on the socket is always readable, and the publisher's
//! end must be waited for as such ([`WatchFor::End`]).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use liveedgecast_common::handoff::{Close, Decline, Snapshot};
use liveedgecast_common::key::{NameError, StreamKey};
use liveedgecast_common::proxy::is_announced;
use liveedgecast_common::rtmp::Scanned;
use liveedgecast_common::rtmp::handshake::{Handshake, HandshakeError};
use liveedgecast_common::rtmp::server::{ConnectInfo, Event, Refusal, ServerSession, SessionError};

use super::limits::{
    HANDSHAKE_TIME, MAX_MISFITS, MAX_UNREAD, OFFER_TIME, PARTED_TIME, PING_EVERY, PUBLISH_TIME, VERDICT_TIME,
};
use crate::accept::{TLS_HANDSHAKE, WatchFor};
use crate::admission::{Admitted, RefusalReason, Verdict};
use crate::dispatch;
use crate::handoff::HandoffOutcome;

/// The answer to TLS on a port for plain RTMP, which its client can read: a fatal alert, `handshake_failure` (RFC 8446, 6.2).
const TLS_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// The state of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// RTMP's handshake.
    Handshake,
    /// Commands up to `publish`.
    Connecting,
    /// Admission was asked, and has not answered.
    Judged,
    /// Refused, and waiting for the answer because it guesses keys, or too many publishers come from its address.
    Penalty,
    /// Waiting in the lobby, or for its turn to enter.
    Held,
    /// Waiting in the lobby, after a worker has read from the connection.
    Orphaned,
    /// A worker was told to come.
    Offered,
    /// A worker has the publisher.
    Handed,
    /// The answer has been written, and the connection is closed.
    Closing,
}

impl State {
    /// The state as logs show it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Connecting => "connecting",
            Self::Judged => "judged",
            Self::Penalty => "penalty",
            Self::Held => "held",
            Self::Orphaned => "orphaned",
            Self::Offered => "offered",
            Self::Handed => "handed",
            Self::Closing => "closing",
        }
    }
}

/// The way in which the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The written bytes arrive: shutdown, a last read, close.
    Graceful,
    /// A reset.
    Abort,
    /// The connection has ended already, or a worker has ended it.
    Gone,
}

/// An event for the machine.
#[derive(Debug)]
pub(crate) enum Input {
    /// The publisher closed its side, or its network did.
    Ended,
    /// The connection's place was given to another one.
    Evicted,
    /// Admission has decided.
    Verdict(Verdict),
    /// The lobby has a worker.
    Offered {
        /// The number of the claim.
        epoch: u64,
        /// True if the connection, in its present state, can be handed over in the way of this offer.
        fits: bool,
    },
    /// The lobby takes its offer back.
    Withdrawn {
        /// The number of the claim.
        epoch: u64,
    },
    /// The lobby gives up.
    Refused(dispatch::PlaceRefusal),
    /// The API asks for the end of the stream.
    Kicked,
    /// The activator goes down.
    Draining,
    /// The worker that was told to come has come.
    Came,
    /// The handoff is over.
    Over(HandoffOutcome),
}

/// An order to the shell.
#[derive(Debug)]
pub(crate) enum Output {
    /// Write these bytes to the publisher.
    Write(Vec<u8>),
    /// Ask admission about [`Machine::asks`].
    Judge,
    /// Enter the lobby.
    Enter(Box<Admitted>),
    /// Tell the lobby that the publisher has answered.
    Heard,
    /// Tell the lobby that the publisher's connection has ended, and that a worker is to get the rest of its stream.
    Gone,
    /// Expect the worker of this offer, and no longer that of an earlier one.
    Expect,
    /// Expect no worker.
    Forget,
    /// Tell the lobby that the stream waits again.
    Back(u64, dispatch::Back),
    /// Leave the lobby: the stream has ended, for this reason. The connection is another stream's from now on.
    Part(CloseReason),
    /// Close the connection and leave. The last output.
    Close(Closing, CloseReason),
}

/// The reason for which a publisher's stream or connection has ended, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The publisher left before it published.
    Left,
    /// The publisher left while it was held.
    LeftHeld,
    /// The publisher was not decided about yet when its place was given to another connection.
    Evicted,
    /// The publisher broke RTMP or a limit of ours.
    Protocol,
    /// The publisher speaks TLS to a port for plain RTMP.
    Tls,
    /// The connection begins with a PROXY header, and its address is no trusted proxy's.
    Proxied,
    /// The publisher was too slow.
    Slow,
    /// The publisher was not admitted.
    Refused(RefusalReason),
    /// The lobby gave up.
    Lobby(dispatch::PlaceRefusal),
    /// The API asked for the end.
    Kicked,
    /// A worker had the stream and has ended it before the publisher was told to start.
    FailedStart,
    /// A worker has closed the connection in order: the stream is over.
    Done,
    /// A worker has ended the connection in order, because the publisher broke RTMP.
    Broke,
    /// A worker has broken the connection off: the publisher was silent, sent something wrong, or was replaced.
    Disconnected,
    /// The connection has ended while a worker had it.
    Gone,
    /// No worker can take the stream over.
    Stranded,
}

impl CloseReason {
    /// The ends of admitted publishers, for metrics that exist before the first event.
    pub(crate) const ENDS: [Self; 8] = [
        Self::LeftHeld,
        Self::Kicked,
        Self::FailedStart,
        Self::Done,
        Self::Broke,
        Self::Disconnected,
        Self::Gone,
        Self::Stranded,
    ];

    /// The usual ends of streams that no worker goes on with, for metrics that exist before the first event.
    pub(crate) const LOSSES: [Self; 4] = [
        Self::Gone,
        Self::Stranded,
        Self::Lobby(dispatch::PlaceRefusal::HoldSpent),
        Self::Lobby(dispatch::PlaceRefusal::Duplicate),
    ];

    /// Tells whether a publisher that has not said goodbye may come back to its stream.
    pub(crate) fn is_loss(self) -> bool {
        matches!(self, Self::Done | Self::Broke | Self::Disconnected | Self::Gone | Self::Stranded)
    }

    /// The reason as logs and metrics show it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::LeftHeld => "left_held",
            Self::Evicted => "evicted",
            Self::Protocol | Self::Broke => "protocol",
            Self::Tls => "tls",
            Self::Proxied => "proxied",
            Self::Slow => "slow",
            Self::Refused(reason) => reason.as_str(),
            Self::Lobby(reason) => reason.as_str(),
            Self::Kicked => "kicked",
            Self::FailedStart => "failed_start",
            Self::Done => "done",
            Self::Disconnected => "disconnected",
            Self::Gone => "gone",
            Self::Stranded => "stranded",
        }
    }
}

/// The rules of one publisher.
pub(crate) struct Machine {
    state: State,
    born: Instant,
    handshake: Option<Box<Handshake>>,
    session: Option<Box<ServerSession>>,
    /// Bytes that were read from the socket and not by the session.
    unread: Vec<u8>,
    /// Position of the first unread byte.
    base: u64,
    /// Media has come while the publisher was held.
    media: bool,
    /// A worker has read from the connection.
    touched: bool,
    /// The publisher was told to start.
    started: bool,
    /// The publisher has said goodbye, and has not published again.
    parted: bool,
    /// The API asked for the end of the stream while a worker had it.
    kicked: bool,
    /// The publisher's connection has ended while its stream waited for another worker.
    gone: bool,
    epoch: u64,
    misfits: u32,
    /// The refusal, whether its answer has been written or not; boxed, because few have one.
    refusal: Option<Box<(RefusalReason, Option<Box<str>>)>>,
    /// The mistake in a stream key that is no name.
    unnamed: Option<NameError>,
    /// The time at which a held publisher enters the lobby, because many publishers come from its address.
    turn: Option<(Instant, Box<Admitted>)>,
    /// Deadline of this state, if it has one.
    until: Option<Instant>,
    ping_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A connection without a byte so far.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Handshake,
            born: now,
            handshake: Some(Box::new(Handshake::server())),
            session: None,
            unread: Vec::new(),
            base: 0,
            media: false,
            touched: false,
            started: false,
            parted: false,
            kicked: false,
            gone: false,
            epoch: 0,
            misfits: 0,
            refusal: None,
            unnamed: None,
            turn: None,
            until: Some(now + HANDSHAKE_TIME),
            ping_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// The sign that the shell watches the connection for. It means nothing while a worker has the connection.
    pub(crate) fn watch(&self) -> WatchFor {
        match self.state {
            State::Handshake | State::Connecting => WatchFor::Bytes,
            _ if self.touched && self.started => WatchFor::End,
            _ if self.touched => WatchFor::Reset,
            State::Held | State::Offered if !self.media => WatchFor::Bytes,
            _ => WatchFor::End,
        }
    }

    /// Tells whether a worker that is lost, or has given the stream back, had told the publisher to start.
    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    /// Tells whether the publisher's connection is known to have ended, so that there is nothing to watch for.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// App and key that the publisher wants to publish, as they came.
    pub(crate) fn asks(&self) -> Option<(&str, &StreamKey)> {
        let session = self.session.as_deref()?;
        Some((session.connect()?.app.as_str(), &session.publish()?.key))
    }

    /// The words of the publisher's program about itself.
    pub(crate) fn connect_info(&self) -> Option<&ConnectInfo> {
        self.session.as_deref()?.connect()
    }

    /// Tells whether the publisher waits by our own doing, outside of the lobby: only then [`Input::Draining`] is for it.
    pub(crate) fn is_put_off(&self) -> bool {
        self.state == State::Penalty || self.turn.is_some()
    }

    /// The likely typing mistake in the name that the publisher wants to publish.
    pub(crate) fn slip(&self) -> Option<&'static str> {
        match self.unnamed {
            Some(NameError::Path) => Some("the stream key begins or ends with a slash, or has an empty part"),
            Some(NameError::Empty) => Some("there is no stream key"),
            Some(_) => Some("the stream key is no name"),
            None => self.asks().and_then(|(_, key)| key.slip()),
        }
    }

    /// The refusal's own text for the publisher, if it has one.
    pub(crate) fn says(&self) -> Option<&str> {
        self.refusal.as_deref()?.1.as_deref()
    }

    /// The session and bytes that a worker goes on from, as long as none has read from the connection.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let session = self.session.as_deref()?;
        Some(Snapshot { session: session.state(), stream: None, unread: self.unread.clone() })
    }

    /// Takes bytes of the publisher.
    pub(crate) fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.watch() != WatchFor::Bytes {
            debug_assert!(false, "bytes in state {}", self.state.as_str());
            return;
        }
        self.unread.extend_from_slice(bytes);
        if matches!(self.state, State::Held | State::Offered) {
            self.outputs.push_back(Output::Heard);
        }
        self.read(now);
        if self.state != State::Closing && self.unread.len() > MAX_UNREAD {
            self.close(Closing::Abort, CloseReason::Protocol);
        }
        if self.unread.is_empty() {
            // Ten thousand held publishers keep no buffers that they do not need.
            self.unread = Vec::new();
        }
    }

    /// Takes one input.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        match (self.state, input) {
            (State::Closing, _) => {}
            (_, Input::Ended) => self.ended(),
            (_, Input::Evicted) => self.close(Closing::Gone, CloseReason::Evicted),
            (State::Judged, Input::Verdict(verdict)) => self.judged(now, verdict),
            (State::Held | State::Orphaned | State::Offered, Input::Offered { epoch, fits }) => {
                self.offered(now, epoch, fits);
            }
            (State::Offered, Input::Withdrawn { epoch }) if epoch == self.epoch => {
                self.outputs.push_back(Output::Forget);
                self.wait();
            }
            (State::Offered, Input::Came) => {
                self.enter(State::Handed, None);
                self.misfits = 0;
                self.ping_at = None;
            }
            (State::Held | State::Orphaned | State::Offered, Input::Refused(reason)) => self.given_up(reason),
            (State::Held | State::Orphaned | State::Offered, Input::Kicked) => self.kick(),
            // The worker was told as well, and ends the stream.
            (State::Handed, Input::Kicked) => self.kicked = true,
            (State::Handed, Input::Over(outcome)) => self.over(now, outcome),
            (State::Penalty, Input::Draining) => self.penalty_over(),
            // The lobby refuses the publishers in it, and those that enter it later.
            (_, Input::Draining) => self.turn_comes(),
            // Such a message may have crossed one of ours; the worker's connection, or its end, tells the true state.
            (_, Input::Offered { .. } | Input::Withdrawn { .. } | Input::Refused(_) | Input::Kicked) => {}
            (state, Input::Verdict(_) | Input::Came | Input::Over(_)) => {
                debug_assert!(false, "an answer nobody asked for in state {}", state.as_str());
            }
        }
    }

    /// The time at which [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let turn = self.turn.as_ref().map(|(at, _)| *at);
        self.until.into_iter().chain(self.ping_at).chain(turn).min()
    }

    /// Acts on the deadlines that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            match self.state {
                State::Connecting if self.parted => self.close(Closing::Graceful, CloseReason::Left),
                State::Handshake | State::Connecting => self.close(Closing::Gone, CloseReason::Slow),
                State::Penalty => self.penalty_over(),
                State::Offered => {
                    self.outputs.push_back(Output::Forget);
                    self.back(dispatch::Back::Unreachable);
                }
                // A verdict that comes later is for nobody.
                State::Judged => self.come_again(CloseReason::Refused(RefusalReason::Unanswered)),
                State::Held | State::Orphaned | State::Handed | State::Closing => self.until = None,
            }
        }
        if self.turn.as_ref().is_some_and(|(at, _)| *at <= now) {
            self.turn_comes();
        }
        if self.ping_at.is_some_and(|at| at <= now) && self.state != State::Closing {
            let stamp = now.saturating_duration_since(self.born).as_millis();
            if let Some(session) = &mut self.session {
                // RTMP time wraps.
                session.ping(stamp as u32);
                let ping = session.take_output();
                self.write(ping);
            }
            self.ping_at = Some(now + PING_EVERY);
        }
    }

    /// The next order to the shell.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn enter(&mut self, state: State, until: Option<Instant>) {
        self.state = state;
        self.until = until;
    }

    fn write(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.outputs.push_back(Output::Write(bytes));
        }
    }

    fn close(&mut self, how: Closing, why: CloseReason) {
        self.enter(State::Closing, None);
        (self.ping_at, self.turn) = (None, None);
        self.outputs.push_back(Output::Close(how, why));
    }

    fn ended(&mut self) {
        let waits = matches!(self.state, State::Orphaned | State::Offered);
        if waits && self.touched && self.started {
            if !std::mem::replace(&mut self.gone, true) {
                self.outputs.push_back(Output::Gone);
            }
            return;
        }
        let why = match self.state {
            State::Held | State::Offered | State::Orphaned => CloseReason::LeftHeld,
            _ => CloseReason::Left,
        };
        self.close(Closing::Gone, why);
    }

    /// Reads the unread bytes, as far as this state reads.
    fn read(&mut self, now: Instant) {
        while self.watch() == WatchFor::Bytes {
            let more = match self.state {
                State::Handshake => self.read_handshake(),
                State::Connecting | State::Held | State::Offered => self.read_session(now),
                _ => false,
            };
            if !more {
                return;
            }
        }
    }

    /// Reads one step; false when more bytes are needed, or the connection is closed.
    fn read_handshake(&mut self) -> bool {
        let Some(handshake) = &mut self.handshake else { return false };
        let progress = match handshake.handle(&self.unread) {
            Ok(progress) => progress,
            Err(HandshakeError::Version(TLS_HANDSHAKE)) => {
                self.write(TLS_ALERT.to_vec());
                self.close(Closing::Graceful, CloseReason::Tls);
                return false;
            }
            // After a reset the proxy could not tell its own operator of an orderly end.
            Err(_) if is_announced(&self.unread) => {
                self.close(Closing::Graceful, CloseReason::Proxied);
                return false;
            }
            Err(_) => {
                self.close(Closing::Abort, CloseReason::Protocol);
                return false;
            }
        };
        self.unread.drain(..progress.used);
        self.base += progress.used as u64;
        self.write(progress.output);
        if progress.done {
            self.handshake = None;
            self.session = Some(Box::new(ServerSession::new(self.base)));
            // Both times count from the connection: a slow handshake leaves less for the commands.
            self.enter(State::Connecting, Some(self.born + PUBLISH_TIME));
        }
        progress.done
    }

    /// Reads one step; false when more bytes are needed, or the connection is closed.
    fn read_session(&mut self, now: Instant) -> bool {
        let Some(session) = &mut self.session else { return false };
        let event = session.next(&self.unread);
        let output = session.take_output();
        let position = session.position();
        let told = !output.is_empty();
        self.write(output);
        let event = match event {
            Ok(event) => event,
            Err(SessionError::Name(error)) => {
                // The session has told the publisher what is wrong.
                self.unnamed = Some(error);
                self.close(Closing::Graceful, CloseReason::Refused(RefusalReason::Name));
                return false;
            }
            Err(_) if self.parted => {
                self.close(Closing::Graceful, CloseReason::Left);
                return false;
            }
            Err(_) => {
                // The session may have told the publisher what is wrong.
                self.close(if told { Closing::Graceful } else { Closing::Abort }, CloseReason::Protocol);
                return false;
            }
        };
        let holding = self.state != State::Connecting;
        if let Some(Event::Media(Scanned::Begin { .. })) = event
            && holding
        {
            self.stop_before_media();
            return false;
        }
        self.unread.drain(..(position - self.base) as usize);
        self.base = position;
        match event {
            None => return false,
            Some(Event::Publish) if !holding => {
                self.parted = false;
                self.enter(State::Judged, Some(now + VERDICT_TIME));
                self.outputs.push_back(Output::Judge);
            }
            Some(Event::Ended(_)) if holding => {
                if let Some(snapshot) = self.snapshot() {
                    self.part(now, snapshot);
                }
                return false;
            }
            Some(Event::Connected | Event::Publish | Event::Media(_) | Event::Ended(_) | Event::Pong(_)) => {}
        }
        true
    }

    /// Tells whether the publisher has said goodbye, and has not published again.
    pub(crate) fn has_parted(&self) -> bool {
        self.parted
    }

    /// Ends the stream of a publisher that has said goodbye: to us while it was held, or to its worker, which has left the connection in
    /// this state.
    pub(crate) fn part(&mut self, now: Instant, snapshot: Snapshot) {
        let Snapshot { session, unread, .. } = snapshot;
        let ours = self.session.as_deref().and_then(ServerSession::connect);
        let mut reopened = match ServerSession::reopen(&session) {
            // A worker does not decide which publisher this is.
            Ok(reopened) if reopened.connect() == ours => reopened,
            _ => {
                self.parted = true;
                return self.close(Closing::Graceful, CloseReason::Done);
            }
        };
        let unsent = reopened.take_output();
        self.base = reopened.position();
        self.session = Some(Box::new(reopened));
        self.unread = unread;
        (self.media, self.touched, self.started, self.parted) = (false, false, false, true);
        self.gone = false;
        (self.misfits, self.ping_at, self.turn) = (0, None, None);
        if self.state == State::Offered {
            self.outputs.push_back(Output::Forget);
        }
        let why = match self.state {
            State::Handed if std::mem::take(&mut self.kicked) => CloseReason::Kicked,
            State::Handed => CloseReason::Done,
            _ => CloseReason::LeftHeld,
        };
        self.outputs.push_back(Output::Part(why));
        self.write(unsent);
        self.enter(State::Connecting, Some(now + PARTED_TIME));
        self.read(now);
    }

    /// Takes the session back to the beginning of the media, so that the worker reads it from its first chunk on.
    fn stop_before_media(&mut self) {
        let Some(session) = &mut self.session else { return };
        let state = session.state_before_chunk();
        let restored = ServerSession::restore(&state).ok();
        let skip = restored.as_ref().and_then(|session| session.position().checked_sub(self.base));
        match (restored, skip.and_then(|skip| usize::try_from(skip).ok())) {
            (Some(restored), Some(skip)) if skip <= self.unread.len() => {
                self.base = restored.position();
                **session = restored;
                self.unread.drain(..skip);
                self.media = true;
            }
            _ => self.close(Closing::Abort, CloseReason::Protocol),
        }
    }

    fn judged(&mut self, now: Instant, verdict: Verdict) {
        match verdict {
            Verdict::Admit { admitted, after } => {
                self.enter(State::Held, None);
                self.ping_at = Some(now + PING_EVERY);
                if after > Duration::ZERO {
                    self.turn = Some((now + after, admitted));
                } else {
                    self.outputs.push_back(Output::Enter(admitted));
                }
                // Bytes came behind `publish` in the same read.
                self.read(now);
            }
            Verdict::Refuse { why, after, says } => {
                self.refusal = Some(Box::new((why, says)));
                if after.is_zero() {
                    return self.penalty_over();
                }
                // A refused publisher costs a socket and a session from here on.
                self.unread = Vec::new();
                self.enter(State::Penalty, Some(now + after));
            }
        }
    }

    fn penalty_over(&mut self) {
        let (why, says) = self.refusal.as_deref().cloned().unwrap_or((RefusalReason::Key, None));
        self.refuse_by(why, says.as_deref());
    }

    fn turn_comes(&mut self) {
        if let Some((_, admitted)) = self.turn.take() {
            self.outputs.push_back(Output::Enter(admitted));
        }
    }

    /// Refuses; `says` is the text for the publisher in place of that of the reason.
    fn refuse_by(&mut self, why: RefusalReason, says: Option<&str>) {
        if why.is_temporary() {
            self.come_again(CloseReason::Refused(why));
        } else {
            let words = says.unwrap_or(why.description());
            let description = match self.slip() {
                Some(slip) => format!("{words} ({slip})"),
                None => words.to_owned(),
            };
            self.refuse(refusal_of(why), &description, CloseReason::Refused(why));
        }
    }

    fn offered(&mut self, now: Instant, epoch: u64, fits: bool) {
        self.epoch = epoch;
        if fits {
            self.enter(State::Offered, Some(now + OFFER_TIME));
            self.outputs.push_back(Output::Expect);
            return;
        }
        self.misfits += 1;
        if self.misfits >= MAX_MISFITS {
            self.come_again(CloseReason::Stranded);
        } else {
            self.back(dispatch::Back::Declined);
        }
    }

    /// Waits in the lobby, which has listed the publisher as waiting already.
    fn wait(&mut self) {
        let state = if self.touched { State::Orphaned } else { State::Held };
        self.enter(state, None);
    }

    /// Waits in the lobby again.
    fn back(&mut self, why: dispatch::Back) {
        self.outputs.push_back(Output::Back(self.epoch, why));
        self.wait();
    }

    fn over(&mut self, now: Instant, outcome: HandoffOutcome) {
        let because = |why| if self.kicked { CloseReason::Kicked } else { why };
        match outcome {
            // The stream ends all the same, although the worker did not end it.
            HandoffOutcome::Returned { touched, started, .. } | HandoffOutcome::Lost { touched, started, .. }
                if self.kicked =>
            {
                self.taken_back(now, touched, started);
                self.kick();
            }
            HandoffOutcome::Broken { started } if self.kicked => {
                self.taken_back(now, true, started);
                self.kick();
            }
            HandoffOutcome::Returned { why, touched, started } => {
                self.taken_back(now, touched, started);
                let moving = touched || why == Decline::Moving;
                self.back(if moving { dispatch::Back::Moving } else { dispatch::Back::Declined });
            }
            HandoffOutcome::Lost { accepted, touched, started } => {
                self.taken_back(now, touched, started);
                self.back(if accepted { dispatch::Back::Died } else { dispatch::Back::Unreachable });
            }
            HandoffOutcome::Broken { started } => {
                self.taken_back(now, true, started);
                self.back(dispatch::Back::Broken);
            }
            HandoffOutcome::Duplicate if self.started || self.touched => {
                self.close(Closing::Graceful, CloseReason::Stranded)
            }
            HandoffOutcome::Duplicate => self.given_up(dispatch::PlaceRefusal::Duplicate),
            HandoffOutcome::NotReleased => self.close(Closing::Gone, CloseReason::Stranded),
            HandoffOutcome::Done { how, started, erred } => {
                let (closing, why) = match how {
                    Close::Graceful if erred => (Closing::Graceful, CloseReason::Broke),
                    Close::Graceful => (Closing::Graceful, CloseReason::Done),
                    Close::Abort => (Closing::Abort, CloseReason::Disconnected),
                };
                let failed = !started && !self.started;
                self.close(closing, because(if failed { CloseReason::FailedStart } else { why }));
            }
            HandoffOutcome::PublisherGone => self.close(Closing::Gone, because(CloseReason::Gone)),
            // A stream that has parted comes without the state of its connection if that was lost on the way.
            HandoffOutcome::PartedForGood | HandoffOutcome::Parted => {
                self.parted = true;
                self.close(Closing::Graceful, because(CloseReason::Done));
            }
        }
    }

    fn taken_back(&mut self, now: Instant, touched: bool, started: bool) {
        self.touched |= touched;
        self.started |= started;
        if self.touched {
            // Reading goes on from the page or the checkpoint, not from here.
            self.unread = Vec::new();
        }
        // A publisher that sends media reads no pings (OBS), and waits for nothing.
        self.ping_at = (!self.started).then(|| now + PING_EVERY);
    }

    fn given_up(&mut self, reason: dispatch::PlaceRefusal) {
        match reason {
            dispatch::PlaceRefusal::Duplicate => {
                self.refuse(Refusal::BadName, "this stream is being published already", CloseReason::Lobby(reason));
            }
            dispatch::PlaceRefusal::Unmovable => {
                let text = "this server cannot pass on a connection of this kind";
                self.refuse(Refusal::Denied, text, CloseReason::Lobby(reason));
            }
            dispatch::PlaceRefusal::HoldSpent
            | dispatch::PlaceRefusal::FleetFull
            | dispatch::PlaceRefusal::Draining => {
                self.come_again(CloseReason::Lobby(reason));
            }
        }
    }

    /// Refuses for good, with one of the two codes that every client understands (architecture.md, "Saying no").
    fn refuse(&mut self, refusal: Refusal, description: &str, why: CloseReason) {
        self.last_words(why, |session| session.refuse_publish(refusal, description));
    }

    fn kick(&mut self) {
        self.refuse(Refusal::Denied, "closed by the operator", CloseReason::Kicked);
    }

    /// Refuses for now: OBS reconnects by itself only from a stream that was started (architecture.md, "Saying no").
    fn come_again(&mut self, why: CloseReason) {
        self.last_words(why, ServerSession::accept_publish);
    }

    fn last_words(&mut self, why: CloseReason, say: impl FnOnce(&mut ServerSession)) {
        if self.state == State::Offered {
            self.outputs.push_back(Output::Forget);
        }
        if let Some(session) = &mut self.session
            && !self.started
        {
            say(session);
            let words = session.take_output();
            self.write(words);
        }
        self.close(Closing::Graceful, why);
    }
}

/// The code of a refusal for good: `Denied` for a publisher that may not, `BadName` for a name that cannot be.
fn refusal_of(reason: RefusalReason) -> Refusal {
    match reason {
        RefusalReason::Key
        | RefusalReason::Hook
        | RefusalReason::HookAnswer
        | RefusalReason::Token
        | RefusalReason::TokenMissing
        | RefusalReason::TokenExpired
        | RefusalReason::TokenClaim => Refusal::Denied,
        RefusalReason::Name
        | RefusalReason::Destination
        | RefusalReason::Rate
        | RefusalReason::Share
        | RefusalReason::Unanswered
        | RefusalReason::HookAway
        | RefusalReason::TokenKeys => Refusal::BadName,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
