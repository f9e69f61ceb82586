//! Upstreams: an [`Upstream`] is the connection to one destination, from the DNS question to the last byte.
//!
//! In: a resolved [`PushUrl`] and, once live, chunks of media. Out: a connection that is live or on its way to be again, and
//! [`UpstreamEvent`]s for the stream's task, which owns and polls it: it has no task, no channel and no clock of its own. This is the last
//! room; behind it is the upstream server.
//!
//! [`machine`] has the rules with `patience`, [`fault`] the classes of failures, `dial`, `tls` (with `common`'s `trust`) and `connection` the IO; the RTMP
//! session is [`ClientSession`].

use std::fmt;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use liveedgecast_common::control::{UpstreamCounts, UpstreamReport, UpstreamTimes};
use liveedgecast_common::event;
use liveedgecast_common::handoff::BackupDestination;
use liveedgecast_common::key::StreamId;
use liveedgecast_common::rtmp::client::{ClientSession, Stage};
use liveedgecast_common::sys::prefetch;
use liveedgecast_common::trace::{self, StartSpan};
use liveedgecast_common::url::PushUrl;
use tokio::net::TcpStream;

use self::connection::Connection;
use self::dial::{Dial, Lookup};
use self::machine::{DialId, Input, Machine, Output};
use self::tls::Secure;

mod connection;
mod dial;
pub mod fault;
pub mod machine;
mod metrics;
mod patience;
mod tls;

pub use self::fault::Fault;
pub use self::metrics::{DestinationLabels, UpstreamMetrics};
pub use self::tls::UpstreamContext;

/// Bytes read from an upstream at once: its whole handshake.
const READ_BYTES: usize = 4096;
/// Reads in one poll; then the other upstreams and the publisher have their turn. An upstream has little to say.
const READS_PER_POLL: usize = 16;

/// Events for the owner of an [`Upstream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// A new session is live: media may be written, beginning with headers and a keyframe, timestamps near 0.
    Live,
    /// The live session was lost; the next attempt follows by itself.
    Lost {
        /// Bytes taken by [`Upstream::poll_write_vectored`] in that session that the peer has not acknowledged.
        unacknowledged: u64,
        /// Reason for the log, without secrets.
        why: String,
    },
    /// The upstream clearly refused before it was live: in words, or by closing again and again. A taken name counts only when it has been
    /// taken for some time. The next attempt follows by itself all the same.
    Refused {
        /// Class of the refusal.
        fault: Fault,
    },
    /// The upstream is closed, after [`Upstream::close`], and can be dropped.
    Closed,
}

/// Counts since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCounters {
    /// Bytes taken by [`Upstream::poll_write_vectored`].
    pub bytes: u64,
    /// Attempts, from the question for addresses on.
    pub attempts: u64,
    /// Sessions that were live.
    pub sessions: u64,
}

/// The connection to one destination. Poll it whenever it has woken the task, when [`Self::next_timeout`] is due, after [`Self::close`], and when
/// [`Self::wants_poll`]. The fields that every write needs come first.
#[repr(C)]
pub struct Upstream {
    /// Media may be written.
    live: bool,
    /// The last write has left bytes with TLS.
    unflushed: bool,
    connection: Option<Connection>,
    /// Bytes of media taken from the owner in this session.
    media: u64,
    counters: UpstreamCounters,
    url: PushUrl,
    /// The server in use: the primary, which `url` names, or the backup.
    server: PushUrl,
    on_backup: bool,
    shared: UpstreamContext,
    machine: Machine,
    lookup: Option<Lookup>,
    dials: Vec<(DialId, Dial)>,
    /// The connection that was told to the machine; the next output says what to do with it.
    dialed: Option<(DialId, TcpStream)>,
    securing: Option<Secure>,
    session: Option<ClientSession>,
    /// Stage that was told to the machine.
    stage: Stage,
    /// Bytes of the session that are being written; media never goes this way.
    outgoing: SessionBytes,
    farewell: Option<Farewell>,
    /// [`Self::close`] was called, and the machine does not know yet. `true`: between messages.
    closing: Option<bool>,
    /// A failed write that the machine does not know yet.
    broken: Option<(Fault, String)>,
    logged: &'static str,
    /// Beginning of the attempt to reach it, for traces.
    attempted: Option<Instant>,
    /// The class of failure that was logged last and is not over; `true`: the upstream is asked again rarely.
    trouble: Option<(Fault, bool)>,
    /// The stream, for the log.
    stream: String,
    /// The destination's name, for the log; empty if it is not known.
    destination: String,
    /// Server of the redirect that was logged last: an upstream that spreads its load redirects each attempt.
    redirected_to: String,
}

/// Progress of the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// The last commands are being written.
    Speaking,
    /// FIN is sent, input is discarded.
    Listening,
}

/// Bytes being written; the first `written` of them are.
#[derive(Debug, Default)]
struct SessionBytes {
    bytes: Vec<u8>,
    written: usize,
}

impl SessionBytes {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }
}

impl Upstream {
    /// Creates an upstream that begins to dial at the first [`Self::poll`]. `seed`: of the chance in its back-off and in its answers to challenges.
    #[must_use]
    pub fn new(url: PushUrl, shared: &UpstreamContext, seed: u64, now: Instant) -> Self {
        Self {
            live: false,
            unflushed: false,
            machine: Machine::new(now, url.clone(), seed),
            server: url.clone(),
            on_backup: false,
            url,
            shared: shared.clone(),
            lookup: None,
            dials: Vec::new(),
            dialed: None,
            securing: None,
            connection: None,
            session: None,
            stage: Stage::Handshake,
            outgoing: SessionBytes::default(),
            farewell: None,
            closing: None,
            broken: None,
            media: 0,
            counters: UpstreamCounters::default(),
            logged: "",
            attempted: None,
            trouble: None,
            stream: String::new(),
            destination: String::new(),
            redirected_to: String::new(),
        }
    }

    /// The upstream of a stream that has been live with another worker: it has worked, so that an apparent refusal is rather a stale session of
    /// that worker's.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        self.machine.has_worked();
        self
    }

    /// Sets the stream's id in the log lines.
    #[must_use]
    pub fn of_stream(mut self, id: &StreamId) -> Self {
        self.rename_stream(id);
        self
    }

    /// The stream's id in the log lines.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Renames the stream in the log lines: a publisher that returns has an id of its own.
    pub fn rename_stream(&mut self, id: &StreamId) {
        self.stream.clone_from(&id.0);
    }

    /// Sets the destination's name in the log lines.
    pub fn rename_destination(&mut self, name: &str) {
        name.clone_into(&mut self.destination);
    }

    /// Gives the destination another backup, or none.
    pub fn set_backup(&mut self, now: Instant, backup: Option<&BackupDestination>) {
        self.machine.set_backup(now, backup.map(|backup| (backup.url.clone(), backup.after)));
        // The machine returns to the first server at once, without an output.
        if self.on_backup != self.machine.is_on_backup() {
            self.turned(false);
        }
    }

    /// Lets the processor fetch what every write needs.
    pub fn prefetch(&self) {
        prefetch(&self.live);
        prefetch(&self.connection);
        prefetch(&self.counters);
    }

    /// Makes progress and returns the next event. After `Ready`, poll again until `Pending`; then write what
    /// [`Self::take_control`] has, if it is live.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<UpstreamEvent> {
        self.unflushed = false;
        let polled = self.advance(cx, now);
        self.live = self.machine.is_live();
        polled
    }

    fn advance(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<UpstreamEvent> {
        if let Some(between_messages) = self.closing.take() {
            self.machine.handle(now, Input::Close { between_messages });
        }
        self.machine.handle_timeout(now);
        loop {
            self.log(now);
            while let Some(output) = self.machine.poll_output() {
                if let Some(event) = self.perform(output) {
                    return Poll::Ready(event);
                }
            }
            let input = ready!(self.poll_input(cx));
            self.machine.handle(now, input);
        }
    }

    /// Deadline of the next poll, even if nothing wakes the task.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        // An upstream that failed is logged as back when its session has lasted.
        let back = self.machine.lasts_at().filter(|_| self.trouble.is_some());
        back.or(self.machine.poll_timeout())
    }

    /// Returns whether media may be written.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Returns whether [`Self::poll`] is due after a write: the rest of what was written goes out there.
    #[must_use]
    pub const fn wants_poll(&self) -> bool {
        self.unflushed
    }

    /// Message stream id for media of this session.
    #[must_use]
    pub fn message_stream(&self) -> u32 {
        self.session.as_ref().map_or(0, ClientSession::message_stream)
    }

    /// Bytes of payload in each chunk of this session.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.session.as_ref().map_or(liveedgecast_common::rtmp::client::CHUNK_SIZE, ClientSession::chunk_size)
    }

    /// Whole chunks (acknowledgements, pongs) to be written between two messages, in full, through [`Self::poll_write_vectored`]. Empty
    /// nearly always. Look for them after each poll and write them even when there is no media.
    pub fn take_control(&mut self) -> Vec<u8> {
        match &mut self.session {
            Some(session) if self.machine.is_live() => session.take_output(),
            _ => Vec::new(),
        }
    }

    /// Writes part of the slices, and returns how many bytes. On `Pending` the task is woken when it can be tried again. An error means that
    /// the next [`Self::poll`] tells `Lost`. Without TLS the kernel takes the bytes from where they lie.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(connection) = self.connection.as_mut().filter(|_| self.live) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut result = ready!(connection.poll_write_vectored(cx, slices));
        if matches!(result, Ok(0)) && slices.iter().any(|slice| !slice.is_empty()) {
            result = Err(io::ErrorKind::WriteZero.into());
        }
        match &result {
            Ok(taken) => {
                self.media += *taken as u64;
                self.counters.bytes += *taken as u64;
                self.unflushed = connection.is_unflushed();
            }
            Err(error) => self.broken = Some((Fault::of_io(error), error.to_string())),
        }
        Poll::Ready(result)
    }

    /// Bytes taken by [`Self::poll_write_vectored`] in this session that the peer's kernel has not acknowledged; with TLS rather too many than
    /// too few.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        let held = self.connection.as_ref().and_then(Connection::unacknowledged);
        held.map_or(self.media, |held| held.min(self.media))
    }

    /// Ends the session for good: `FCUnpublish`, `deleteStream`, FIN, then at most 2 s for the peer's. Poll until `Closed`.
    /// `between_messages`: the last message was written to its end; otherwise no command may be put into it, and the FIN alone ends the session.
    pub fn close(&mut self, between_messages: bool) {
        self.closing = Some(between_messages);
        self.live = false;
    }

    /// The destination.
    #[must_use]
    pub fn url(&self) -> &PushUrl {
        &self.url
    }

    /// The part of the report that is known here; message counters are the stream's to fill.
    #[must_use]
    pub fn report(&self) -> UpstreamReport {
        UpstreamReport {
            host: self.url.authority(),
            backup: self.on_backup,
            state: self.machine.state(),
            name: self.destination.clone(),
            error: self.machine.fault().map(|(_, why)| why.to_owned()).unwrap_or_default(),
            fault: self.machine.fault().map(|(fault, _)| fault.as_str().to_owned()).unwrap_or_default(),
            counts: UpstreamCounts {
                bytes: self.counters.bytes,
                reconnects: self.counters.sessions.saturating_sub(1),
                ..UpstreamCounts::default()
            },
            // The stream's to fill.
            times: UpstreamTimes::default(),
        }
    }

    fn perform(&mut self, output: Output) -> Option<UpstreamEvent> {
        match output {
            Output::Resolve => {
                self.counters.attempts += 1;
                let url = self.machine.url();
                self.lookup = Some(self.shared.resolver.lookup(&url.host, url.port));
            }
            Output::Dial(id, address) => self.dials.push((id, dial::dial(address))),
            Output::Undial(id) => self.dials.retain(|(dialing, _)| *dialing != id),
            Output::Secure(id) => {
                let stream = self.take_dialed(id)?;
                self.securing = Some(tls::secure(&self.shared, &self.machine.url().host, stream));
            }
            Output::Begin(id, answer) => {
                if let Some(id) = id {
                    self.connection = Some(Connection::plain(self.take_dialed(id)?));
                }
                let mut session = ClientSession::new(self.machine.url(), answer);
                session.start();
                self.session = Some(session);
                self.stage = Stage::Handshake;
            }
            Output::Redirected(to) => {
                if self.redirected_to != to {
                    let (stream, destination) = (self.stream.as_str(), shown(&self.destination));
                    tracing::debug!(event = event::UPSTREAM_REDIRECTED, stream, destination, upstream = %self.server, to, "upstream redirected");
                    self.redirected_to = to;
                }
            }
            Output::Turned { again } => self.turned(again),
            Output::Drop => self.drop_all(),
            Output::Live => {
                self.counters.sessions += 1;
                self.media = 0;
                return Some(UpstreamEvent::Live);
            }
            Output::Lost(why) => {
                let unacknowledged = self.unacknowledged();
                self.drop_all();
                return Some(UpstreamEvent::Lost { unacknowledged, why });
            }
            Output::Refused(fault) => {
                return Some(UpstreamEvent::Refused { fault });
            }
            Output::Farewell { speak } => {
                if let Some(session) = self.session.as_mut().filter(|_| speak) {
                    session.end();
                    self.outgoing = SessionBytes { bytes: session.take_output(), written: 0 };
                }
                self.session = None;
                self.farewell = Some(Farewell::Speaking);
            }
            Output::Closed => return Some(UpstreamEvent::Closed),
        }
        None
    }

    /// Goes on with the other server.
    fn turned(&mut self, again: bool) {
        self.server = self.machine.server().clone();
        self.on_backup = self.machine.is_on_backup();
        let (stream, destination, upstream) = (self.stream.as_str(), shown(&self.destination), &self.server);
        let backup = self.on_backup;
        if again {
            tracing::debug!(event = event::UPSTREAM_TURNED, stream, destination, %upstream, backup, "upstream turned to its other server once more");
        } else {
            tracing::info!(event = event::UPSTREAM_TURNED, stream, destination, %upstream, backup, "upstream turned to its other server");
        }
    }

    /// The connection that was dialed last, if it has this id; the other dials are dropped.
    fn take_dialed(&mut self, id: DialId) -> Option<TcpStream> {
        self.dials.clear();
        self.dialed.take().filter(|(dialed, _)| *dialed == id).map(|(_, stream)| stream)
    }

    fn drop_all(&mut self) {
        self.lookup = None;
        self.dials.clear();
        self.dialed = None;
        self.securing = None;
        self.connection = None;
        self.session = None;
        self.outgoing = SessionBytes::default();
        self.farewell = None;
        self.broken = None;
    }

    /// The next input for the machine.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if let Some(lookup) = &mut self.lookup
            && let Poll::Ready(result) = lookup.as_mut().poll(cx)
        {
            self.lookup = None;
            return Poll::Ready(match result {
                Ok(addresses) => Input::Resolved(addresses),
                Err(why) => Input::Unresolved(why),
            });
        }
        for index in 0..self.dials.len() {
            let (id, dial) = &mut self.dials[index];
            let id = *id;
            if let Poll::Ready(result) = dial.as_mut().poll(cx) {
                drop(self.dials.swap_remove(index));
                return Poll::Ready(match result {
                    Ok(stream) => {
                        self.dialed = Some((id, stream));
                        Input::Connected(id)
                    }
                    Err(error) => Input::NotConnected(id, Fault::of_io(&error), error.to_string()),
                });
            }
        }
        if let Some(securing) = &mut self.securing
            && let Poll::Ready(result) = securing.as_mut().poll(cx)
        {
            self.securing = None;
            return Poll::Ready(match result {
                Ok(stream) => {
                    self.connection = Some(Connection::tls(stream));
                    Input::Secured
                }
                Err(not) => Input::NotSecured(not.fault, not.why),
            });
        }
        if self.connection.is_none() {
            return Poll::Pending;
        }
        let result = if self.farewell.is_some() { self.poll_farewell(cx) } else { self.poll_session(cx) };
        result.map(|result| result.unwrap_or_else(|error| Input::Broken(Fault::of_io(&error), error.to_string())))
    }

    fn poll_session(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        for _ in 0..READS_PER_POLL {
            if let Some((fault, why)) = self.broken.take() {
                return Poll::Ready(Ok(Input::Broken(fault, why)));
            }
            let Some(session) = &mut self.session else { return Poll::Pending };
            let stage = session.stage();
            if stage != self.stage {
                self.stage = stage;
                if stage < Stage::Live {
                    return Poll::Ready(Ok(Input::Reached(stage)));
                }
            }
            let written = self.machine.is_live() || self.poll_outgoing(cx)?.is_ready();
            let Some(session) = &mut self.session else { return Poll::Pending };
            // Media must not overtake bytes that the session has begun to write.
            if (written || stage != Stage::Live)
                && let Some(event) = session.poll_event()
            {
                return Poll::Ready(Ok(Input::Session(event)));
            }
            if let Some(connection) = &mut self.connection {
                // With TLS, the last write may have left media behind.
                let _ = connection.poll_flush(cx)?;
            }
            let read = ready!(self.poll_read(cx))?;
            if let Some(input) = read {
                return Poll::Ready(Ok(input));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once and gives the bytes to the session; returns an input if that was the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Input>>> {
        let (Some(connection), Some(session)) = (&mut self.connection, &mut self.session) else { return Poll::Pending };
        ready!(connection.poll_readable(cx))?;
        let mut buffer = [0; READ_BYTES];
        let length = ready!(connection.poll_read(cx, &mut buffer))?;
        if length == 0 {
            return Poll::Ready(Ok(Some(Input::Broken(Fault::Closed, "closed by the upstream".to_owned()))));
        }
        if self.stage < Stage::Live {
            connection.quick_ack();
        }
        Poll::Ready(Ok(match session.handle(&buffer[..length]) {
            Ok(()) => None,
            Err(error) => Some(Input::Broken(Fault::Protocol, error.to_string())),
        }))
    }

    /// Writes the session's bytes for the upstream, in one write.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(connection) = &mut self.connection else { return Poll::Pending };
        loop {
            if self.outgoing.rest().is_empty() {
                let bytes = self.session.as_mut().map(ClientSession::take_output).unwrap_or_default();
                self.outgoing = SessionBytes { bytes, written: 0 };
            }
            if self.outgoing.rest().is_empty() {
                return connection.poll_flush(cx);
            }
            let written = ready!(connection.poll_write_vectored(cx, &[IoSlice::new(self.outgoing.rest())]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.written += written;
        }
    }

    /// Writes the last commands and FIN, then discards everything up to the peer's FIN: closing with unread bytes would be a reset, which takes
    /// back media that is still on its way.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        if self.farewell == Some(Farewell::Speaking) {
            ready!(self.poll_outgoing(cx))?;
            let Some(connection) = &mut self.connection else { return Poll::Pending };
            ready!(connection.poll_shutdown(cx))?;
            self.farewell = Some(Farewell::Listening);
        }
        let Some(connection) = &mut self.connection else { return Poll::Pending };
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_PER_POLL {
            if ready!(connection.poll_read(cx, &mut buffer))? == 0 {
                return Poll::Ready(Ok(Input::Broken(Fault::Closed, "closed by the upstream".to_owned())));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the span of each attempt up to the first session.
    fn trace(&mut self, now: Instant, word: &str) {
        let failed = match word {
            "dialing" => return self.attempted = Some(now),
            "live" => None,
            _ => match self.machine.fault() {
                Some((fault, why)) => Some(format!("{}: {why}", fault.as_str())),
                None => return,
            },
        };
        let Some(begin) = self.attempted.take() else { return };
        let span = StartSpan::new(&self.stream, "upstream", begin, now);
        let span = span.with("destination", self.destination.as_str()).with("host", self.server.authority());
        trace::record(StartSpan { failed, ..span });
    }

    /// Logs each new state once, in the words of the machine's picture. At info: a session was lost or not
    /// reached, and one is back; as a warning: an upstream that waiting alone does not bring back. A failure of the same class is debug.
    fn log(&mut self, now: Instant) {
        let word = self.machine.state().as_str();
        let proven = self.trouble.is_some() && self.machine.has_lasted(now);
        if word == self.logged && !proven {
            return;
        }
        let was_live = std::mem::replace(&mut self.logged, word) == "live";
        if trace::is_on() && self.counters.sessions == 0 {
            self.trace(now, word);
        }
        let (stream, destination, upstream) = (self.stream.as_str(), shown(&self.destination), &self.server);
        let backup = self.on_backup.then_some(true);
        match (word, self.machine.fault()) {
            ("backoff" | "failed", Some((fault, why))) => {
                // A destination has its name soon after the start, before anything can have failed.
                let of = if self.destination.is_empty() { self.url.authority() } else { self.destination.clone() };
                self.shared.failed(&of, fault);
                let (class, advice) = (fault.as_str(), fault.advice(self.machine.has_lived()));
                let trouble = Some((fault, word == "failed"));
                let changed = std::mem::replace(&mut self.trouble, trouble) != trouble;
                if changed && word == "failed" {
                    tracing::warn!(event = event::UPSTREAM_FAILED, stream, destination, %upstream, backup, fault = class, why, advice, "upstream failed: asked again, rarely");
                } else if changed && was_live {
                    tracing::info!(event = event::UPSTREAM_LOST, stream, destination, %upstream, backup, fault = class, why, advice, "upstream lost: asked again");
                } else if changed {
                    tracing::info!(event = event::UPSTREAM_AWAY, stream, destination, %upstream, backup, fault = class, why, advice, "upstream not reached: asked again");
                } else {
                    tracing::debug!(event = event::UPSTREAM_MOVED, stream, destination, %upstream, backup, fault = class, why, "upstream {word}");
                }
            }
            // An upstream whose sessions never last is live for a moment at each attempt.
            ("live", _) => match self.trouble.take_if(|(fault, _)| *fault != Fault::NeverLasted || proven) {
                Some((fault, _)) => {
                    let attempts = self.counters.attempts;
                    tracing::info!(event = event::UPSTREAM_BACK, stream, destination, %upstream, backup, fault = fault.as_str(), attempts, "upstream back");
                }
                None if self.counters.sessions == 0 => {
                    tracing::debug!(event = event::UPSTREAM_LIVE, stream, destination, %upstream, backup, "upstream live for the first time");
                }
                None => {
                    tracing::debug!(event = event::UPSTREAM_MOVED, stream, destination, %upstream, backup, "upstream live")
                }
            },
            (_, Some((fault, why))) => {
                tracing::debug!(event = event::UPSTREAM_MOVED, stream, destination, %upstream, backup, fault = fault.as_str(), why, "upstream {word}")
            }
            (_, None) => {
                tracing::debug!(event = event::UPSTREAM_MOVED, stream, destination, %upstream, backup, "upstream {word}")
            }
        }
    }
}

/// The destination's name as a field of log lines, which lack it where it is not known.
fn shown(destination: &str) -> Option<&str> {
    Some(destination).filter(|name| !name.is_empty())
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("url", &self.url).field("state", &self.machine.state()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
