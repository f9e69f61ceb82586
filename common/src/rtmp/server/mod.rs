//! A publisher's session: from the first byte after the handshake to the end of its connection. In: bytes of the publisher. Out: events,
//! and bytes for the publisher. The activator owns it while the publisher is held, a worker (as [`ServerSessionState`]) from then on.
//!
//! ```text
//!  New ──connect──▶ Connected ──publish──▶ Held ──accept_publish──▶ Started
//!                                           │                          │  FCUnpublish, deleteStream, closeStream,
//!                                           ▼                          ▼  or refuse_publish
//!                                         Ended ◀──────────────────────┘
//! ```
//!
//! One connection has one publish at a time: a second one beside it or after its end is answered with `BadName` and is no event, because
//! the stream's end is the session's end for all code behind this room. After its end the connection can be used again through
//! [`ServerSession::reopen`], which is `Connected` again. The same `publish` again (name and message stream) is ignored, which also makes
//! it harmless to read it twice after a crash.
//!
//! Note:
//! - nginx-rtmp's `push` sends media right behind `publish`, on message stream 1 whatever it was told; so media is an event from `publish`
//!   on, and 1 is the first id that is given.
//! - A chunk stream that begins with fmt1 or fmt2 (librtmp, DJI) has no message stream: media on 0 counts as the published stream's.
//! - Pings and commands can be smaller than their answers. Answers draw on a credit that the peer's own bytes fill.
//! - The point in the byte stream where an acknowledgement is due is not the end of a read: it is looked at when a message is complete, so
//!   that a session gives the same bytes however its input was cut; in between only when a whole window has come, lest the peer waits.
//! - Some encoders never read. They are live for weeks, so their acknowledgements must not pile up: each says all that the one before said.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::amf0::{self, Value};
use super::chunk::{ChunkError, Piece, Run, Scanned};
use super::ingest::{Ingest, Ingested};
use super::limits::{
    ANSWER_CREDIT, DEFAULT_CHUNK_SIZE, DEFAULT_WINDOW, FULL_OUTPUT, MAX_COMMANDS_BEFORE_PUBLISH,
    MAX_MEDIA_BEFORE_PUBLISH, MAX_MESSAGE_STREAMS, MAX_OUTPUT, MAX_STATUS_TEXT, MIN_WINDOW,
};
use super::message::{Command, Control, MessageError, UserControl};
use super::{MessageHeader, is_media, type_id};
use crate::key::{NameError, StreamKey};

mod answer;
mod request;
mod state;

pub use request::{ConnectInfo, EndedBy, PublishRequest, Refusal};
pub use state::ServerSessionState;
use state::{Facts, SessionPhase, validate};

/// An event for the owner of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `connect` has been answered: see [`ServerSession::connect`].
    Connected,
    /// The publisher wants to publish, see [`ServerSession::publish`], and waits for [`ServerSession::accept_publish`].
    Publish,
    /// Audio, video, data or an aggregate of the published stream.
    Media(Scanned),
    /// The publish has ended cleanly. Reported once.
    Ended(EndedBy),
    /// Answer to a [`ServerSession::ping`] of these milliseconds.
    Pong(u32),
}

/// An event for an owner that takes media by the run: see [`ServerSession::next_run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// A part of a media message of the published stream, or all of it.
    Run(Run),
    /// Any other event; of [`Event::Media`], [`Scanned::Aborted`] only.
    Other(Event),
}

/// An error of the publisher. Send the rest of [`ServerSession::take_output`], then close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Chunks that cannot be parsed.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Command before `publish` that cannot be parsed.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A name that no stream can have; the publisher has been told.
    #[error("stream key: {0}")]
    Name(#[from] NameError),
    /// Command out of place.
    #[error("{0}")]
    Order(&'static str),
    /// Commands before `publish` beyond [`MAX_COMMANDS_BEFORE_PUBLISH`].
    #[error("more than {MAX_COMMANDS_BEFORE_PUBLISH} commands without a publish")]
    TooManyCommands,
    /// Message streams beyond [`MAX_MESSAGE_STREAMS`].
    #[error("more than {MAX_MESSAGE_STREAMS} message streams")]
    TooManyStreams,
    /// Media before `publish` beyond [`MAX_MEDIA_BEFORE_PUBLISH`].
    #[error("more than {MAX_MEDIA_BEFORE_PUBLISH} bytes of media before a publish")]
    TooMuchMedia,
    /// Attempt to play; the publisher has been told that there is nothing.
    #[error("it wants to play, and this is a relay for publishers")]
    Play,
    /// A state that no session can have been in.
    #[error("session state is not valid: {0}")]
    State(&'static str),
}

/// Media that was not passed on, because it belongs to no published stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Messages begun.
    pub messages: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// A publisher's session. What every media message needs comes first and takes two cache lines; its chunk stream takes a third.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct ServerSession {
    /// Position from which the end of a message is acknowledged; valid while `ready`.
    due: u64,
    /// Message stream of the publish; valid while `ready`.
    published: u32,
    /// True if the publish is live and all media of it wanted: then runs need no look at the facts.
    ready: bool,
    /// True if `now` may differ from its value at the chunk that began the last message.
    changed: bool,
    output: Vec<u8>,
    ingest: Ingest,
    now: Facts,
    /// State as of the chunk that began the last message, but with our decisions since: reading that chunk again does not decide it again.
    before: Facts,
    /// Offset in the output at which the last acknowledgement begins, unless it has been taken.
    acknowledgement: Option<usize>,
}

impl fmt::Debug for ServerSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ServerSession").field(&self.state()).finish()
    }
}

impl ServerSession {
    /// A session whose first byte has this position in the connection: [`super::handshake::HANDSHAKE_BYTES`].
    #[must_use]
    pub fn new(position: u64) -> Self {
        let facts = Facts {
            phase: SessionPhase::New,
            started: false,
            connect: None,
            publish: None,
            commands: 0,
            streams: 0,
            window: 0,
            acknowledged: position,
            answered: position,
            dropped: Dropped::default(),
            dropping: Vec::new(),
        };
        Self::with(Ingest::new(position), facts, Vec::new())
    }

    /// Continues from a state, which may come from a page that any process wrote to: every bound is checked.
    ///
    /// # Errors
    /// The reason why the state is not valid.
    pub fn restore(state: &ServerSessionState) -> Result<Self, SessionError> {
        let ingest = Ingest::restore(&state.ingest)?;
        validate(state)?;
        Ok(Self::with(ingest, state.facts.clone(), state.output.clone()))
    }

    fn with(ingest: Ingest, now: Facts, output: Vec<u8>) -> Self {
        Self {
            due: 0,
            published: 0,
            ready: false,
            changed: false,
            output,
            ingest,
            before: now.clone(),
            now,
            acknowledgement: None,
        }
    }

    /// Continues a connection whose publish has ended, from its state on: it may publish again, and media of the publish before that is
    /// still to come is ignored.
    ///
    /// # Errors
    /// The reason why the state is not valid.
    pub fn reopen(state: &ServerSessionState) -> Result<Self, SessionError> {
        if state.facts.phase != SessionPhase::Ended {
            return Err(SessionError::State("a publish that has not ended"));
        }
        let mut state = state.clone();
        let media = state.ingest.open().filter(|(header, _)| is_media(header.type_id));
        let dropping = media.map(|(header, _)| header.csid).collect();
        let facts = &mut state.facts;
        (facts.phase, facts.started, facts.publish) = (SessionPhase::Connected, false, None);
        (facts.commands, facts.streams) = (0, 0);
        (facts.dropped, facts.dropping) = (Dropped::default(), dropping);
        Self::restore(&state)
    }

    /// The state between any two calls.
    #[must_use]
    pub fn state(&self) -> ServerSessionState {
        ServerSessionState { ingest: self.ingest.state(), facts: self.now.clone(), output: self.output.clone() }
    }

    /// The state as of the first byte of the chunk that began the last message, but with our decisions since. It has no output: everything
    /// due by then has been taken.
    #[must_use]
    pub fn state_before_chunk(&self) -> ServerSessionState {
        ServerSessionState { ingest: self.ingest.state_before_chunk(), facts: self.before.clone(), output: Vec::new() }
    }

    /// The memory that a message changes outside of the session itself.
    #[must_use]
    pub fn chunk_streams(&self) -> &[impl Sized + use<>] {
        self.ingest.chunk_streams()
    }

    /// Position of the next byte to handle.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.ingest.position()
    }

    /// Finds the next event in `input`, whose first byte is the one at [`Self::position`]. Used bytes are gone: the next call wants the
    /// bytes from the new position on. `None`: more bytes are needed than were given (some may have been used all the same).
    ///
    /// # Errors
    /// The connection is of no further use.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Event>, SessionError> {
        let start = self.ingest.position();
        loop {
            let used = (self.ingest.position() - start) as usize;
            let begun = self.ingest.begun();
            let found = self.ingest.next(&input[used..])?;
            if self.ingest.begun() != begun {
                self.remember();
            }
            let event = match found {
                None => {
                    self.acknowledge(self.window());
                    return Ok(None);
                }
                Some(Ingested::Media(scanned)) => self.media(scanned)?.then_some(Event::Media(scanned)),
                Some(Ingested::Message { header, payload }) => {
                    self.acknowledge(self.window() / 2);
                    self.message(&header, &payload)?
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Finds the next event in `input`, as [`Self::next`] does, but takes all of a media message that is there up to a chunk of another message
    /// as one event, with its payload in `pieces`, which is cleared first. Both methods may be called in turn.
    ///
    /// An owner need not call again for `None` when all of `input` is used: nothing is due then.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub fn next_run(&mut self, input: &[u8], pieces: &mut Vec<Piece>) -> Result<Option<RunEvent>, SessionError> {
        pieces.clear();
        let start = self.position();
        if self.ready {
            let published = self.published;
            let wanted = |stream| stream == published || stream == 0 || published == 0;
            if let Some(run) = self.ingest.run(input, pieces, wanted) {
                if run.begins.is_some() && self.changed {
                    self.remember();
                }
                let position = self.position();
                if position >= self.due && (run.last || position - start == input.len() as u64) {
                    self.acknowledge_run(run.last);
                }
                return Ok(Some(RunEvent::Run(run)));
            }
        }
        self.next_single(&input[(self.position() - start) as usize..], pieces)
    }

    #[cold]
    fn acknowledge_run(&mut self, last: bool) {
        self.acknowledge(if last { self.window() / 2 } else { self.window() });
        self.prepare();
    }

    /// Takes one event of [`Self::next`] for [`Self::next_run`].
    #[cold]
    fn next_single(&mut self, input: &[u8], pieces: &mut Vec<Piece>) -> Result<Option<RunEvent>, SessionError> {
        let start = self.position();
        let found = self.next(input)?;
        let used_up = self.position() - start == input.len() as u64;
        if used_up && matches!(found, Some(Event::Media(Scanned::Payload { last: false, .. }))) {
            self.acknowledge(self.window());
        }
        // The `Payload` of an empty message needs no more bytes.
        let empty = matches!(found, Some(Event::Media(Scanned::Begin { header, .. })) if header.length == 0);
        let last = empty && self.next(&input[(self.position() - start) as usize..])?.is_some();
        self.prepare();
        Ok(found.map(|event| match event {
            Event::Media(Scanned::Begin { header, at }) => {
                RunEvent::Run(Run { header, begins: Some(at), received: 0, last })
            }
            Event::Media(Scanned::Payload { csid, at, len, last }) => {
                if len > 0 {
                    pieces.push(Piece { position: at, len });
                }
                match self.ingest.progress(csid) {
                    Some((header, received)) => RunEvent::Run(Run { header, begins: None, received, last }),
                    None => RunEvent::Other(event),
                }
            }
            event => RunEvent::Other(event),
        }))
    }

    /// Looks at the facts for the next runs.
    fn prepare(&mut self) {
        let live = matches!(self.now.phase, SessionPhase::Held | SessionPhase::Started);
        self.ready = live && self.now.dropping.is_empty() && self.ingest.is_quiet();
        self.published = self.publish().map_or(0, |publish| publish.message_stream);
        self.due = self.now.acknowledged + self.window() / 2;
    }

    /// Bytes for the publisher, in order.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.acknowledgement = None;
        std::mem::take(&mut self.output)
    }

    /// The bytes that [`Self::take_output`] would give.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// True if [`Self::take_output`] has bytes.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Queues a PingRequest, unless the publisher's output is full.
    pub fn ping(&mut self, milliseconds: u32) {
        if self.output.len() < MAX_OUTPUT {
            self.control(&Control::UserControl(UserControl::PingRequest(milliseconds)));
        }
    }

    /// Tells the publisher to start. Does nothing unless the publisher waits for that.
    pub fn accept_publish(&mut self) {
        if self.now.phase == SessionPhase::Held
            && let Some(publish) = &self.now.publish
        {
            self.output.extend(answer::started(publish.message_stream));
            self.decide(SessionPhase::Started);
        }
    }

    /// Tells the publisher that it may not publish (any longer); the connection should be closed then. `description` is shown to people.
    /// Does nothing before `publish` or after the end.
    pub fn refuse_publish(&mut self, refusal: Refusal, description: &str) {
        let code = match refusal {
            Refusal::BadName => "NetStream.Publish.BadName",
            Refusal::Denied => "NetStream.Publish.Denied",
        };
        if matches!(self.now.phase, SessionPhase::Held | SessionPhase::Started)
            && let Some(publish) = &self.now.publish
        {
            let description = amf0::cut(description, MAX_STATUS_TEXT);
            self.output.extend(answer::status(publish.message_stream, "error", code, description));
            self.decide(SessionPhase::Ended);
        }
    }

    /// True once `Publish.Start` has been queued, on this side or before a restore.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.now.started
    }

    /// True once the publish has ended, or was refused. Another publish on this connection takes [`Self::reopen`].
    #[must_use]
    pub fn is_ended(&self) -> bool {
        !self.ready && self.now.phase == SessionPhase::Ended
    }

    /// The requested publish, from [`Event::Publish`] on.
    #[must_use]
    pub fn publish(&self) -> Option<&PublishRequest> {
        self.now.publish.as_deref()
    }

    /// The publisher's `connect`, from [`Event::Connected`] on.
    #[must_use]
    pub fn connect(&self) -> Option<&ConnectInfo> {
        self.now.connect.as_deref()
    }

    /// Media before `publish`, after the end, or of other message streams.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.now.dropped
    }

    /// Messages skipped since this session was made or restored: longer than the session reads, and of no type that is known here.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.ingest.passed()
    }

    /// Keeps the facts for [`Self::state_before_chunk`], now that a message has begun.
    fn remember(&mut self) {
        if std::mem::take(&mut self.changed) {
            self.before.clone_from(&self.now);
        }
    }

    fn change(&mut self) -> &mut Facts {
        (self.changed, self.ready) = (true, false);
        &mut self.now
    }

    /// Applies a decision of ours to the past state, too: no byte of the peer would bring it back.
    fn decide(&mut self, phase: SessionPhase) {
        self.ready = false;
        for facts in [&mut self.now, &mut self.before] {
            facts.phase = phase;
            facts.started |= phase == SessionPhase::Started;
        }
        self.before.connect.clone_from(&self.now.connect);
        self.before.publish.clone_from(&self.now.publish);
    }

    fn control(&mut self, control: &Control) {
        control.write(&mut self.output, DEFAULT_CHUNK_SIZE);
    }

    /// Queues an answer that the peer has paid for, if it reads answers at all.
    fn answer(&mut self, bytes: &[u8]) {
        let position = self.ingest.position();
        let answered = self.now.answered.max(position) + bytes.len() as u64;
        if answered <= position + ANSWER_CREDIT && self.output.len() < MAX_OUTPUT {
            self.change().answered = answered;
            self.output.extend_from_slice(bytes);
        }
    }

    /// The peer's window, within sane bounds.
    fn window(&self) -> u64 {
        u64::from(if self.now.window == 0 { DEFAULT_WINDOW } else { self.now.window.max(MIN_WINDOW) })
    }

    /// Acknowledges all bytes so far if they are at least `due` more than the last time.
    fn acknowledge(&mut self, due: u64) {
        let position = self.ingest.position();
        if position - self.now.acknowledged < due {
            return;
        }
        // The count wraps at 2^32 (RTMP 1.0, 5.4.3).
        let mut bytes = Vec::new();
        Control::Acknowledgement(position as u32).write(&mut bytes, DEFAULT_CHUNK_SIZE);
        if self.output.len() >= FULL_OUTPUT {
            match self.acknowledgement.filter(|at| at + bytes.len() == self.output.len()) {
                Some(at) => self.output.truncate(at),
                None if self.output.len() >= MAX_OUTPUT => return,
                None => {}
            }
        }
        self.change().acknowledged = position;
        self.acknowledgement = Some(self.output.len());
        self.output.extend(bytes);
    }

    /// True if a message belongs to the published stream; other messages are counted.
    fn media(&mut self, scanned: Scanned) -> Result<bool, SessionError> {
        match scanned {
            Scanned::Begin { header, .. } => {
                let wanted = self.wants(header.stream_id);
                if !wanted {
                    let facts = self.change();
                    facts.dropping.push(header.csid);
                    facts.dropped.messages += 1;
                }
                Ok(wanted)
            }
            Scanned::Payload { csid, len, last, .. } => {
                let wanted = !self.now.dropping.contains(&csid);
                if !wanted {
                    let facts = self.change();
                    facts.dropped.bytes += u64::from(len);
                    if facts.phase < SessionPhase::Held && facts.dropped.bytes > MAX_MEDIA_BEFORE_PUBLISH {
                        return Err(SessionError::TooMuchMedia);
                    }
                }
                if last {
                    self.forget(csid);
                    self.acknowledge(self.window() / 2);
                }
                Ok(wanted)
            }
            Scanned::Aborted { csid, .. } => Ok(!self.forget(csid)),
        }
    }

    fn wants(&self, stream: u32) -> bool {
        let live = matches!(self.now.phase, SessionPhase::Held | SessionPhase::Started);
        live && self.publish().is_some_and(|publish| stream == 0 || [0, stream].contains(&publish.message_stream))
    }

    /// True if the message of that chunk stream was dropped; it is over then.
    fn forget(&mut self, csid: u32) -> bool {
        let index = self.now.dropping.iter().position(|dropping| *dropping == csid);
        if let Some(index) = index {
            self.change().dropping.swap_remove(index);
        }
        index.is_some()
    }

    fn message(&mut self, header: &MessageHeader, payload: &[u8]) -> Result<Option<Event>, SessionError> {
        match header.type_id {
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => match Command::parse(header.type_id, payload) {
                Ok(command) => self.command(header.stream_id, &command),
                // A live publisher is not dropped for a command that is of no use.
                Err(_) if self.now.phase >= SessionPhase::Held => Ok(None),
                Err(error) => Err(error.into()),
            },
            // A command that is cut short says nothing; the chunk layer has refused the ones that matter. Unknown types are extensions of
            // others.
            _ => Ok(Control::parse(header.type_id, payload).ok().and_then(|control| self.hear(&control))),
        }
    }

    fn hear(&mut self, control: &Control) -> Option<Event> {
        match control {
            Control::WindowAckSize(size) => self.change().window = *size,
            Control::UserControl(UserControl::PingRequest(timestamp)) => {
                let mut pong = Vec::new();
                Control::UserControl(UserControl::PingResponse(*timestamp)).write(&mut pong, DEFAULT_CHUNK_SIZE);
                self.answer(&pong);
            }
            Control::UserControl(UserControl::PingResponse(timestamp)) => return Some(Event::Pong(*timestamp)),
            _ => {}
        }
        None
    }

    fn command(&mut self, stream: u32, command: &Command) -> Result<Option<Event>, SessionError> {
        if self.now.phase < SessionPhase::Held {
            if self.now.commands >= MAX_COMMANDS_BEFORE_PUBLISH {
                return Err(SessionError::TooManyCommands);
            }
            self.change().commands += 1;
        }
        let transaction = command.transaction;
        match (command.name.as_str(), self.now.phase) {
            ("connect", SessionPhase::New) => return Ok(Some(self.connected(command))),
            ("connect", SessionPhase::Connected) => return Err(SessionError::Order("connect twice")),
            ("releaseStream" | "FCPublish" | "createStream" | "publish" | "play" | "play2", SessionPhase::New) => {
                return Err(SessionError::Order("a command before connect"));
            }
            ("releaseStream" | "_checkbw", _) => {
                self.answer(&answer::result(transaction));
            }
            ("FCPublish", _) => {
                self.answer(&answer::flash_media("onFCPublish", transaction, "NetStream.Publish.Start"));
            }
            ("createStream", phase) => {
                if self.now.streams < MAX_MESSAGE_STREAMS {
                    self.change().streams += 1;
                    self.answer(&answer::created(transaction, self.now.streams));
                } else if phase == SessionPhase::Connected {
                    return Err(SessionError::TooManyStreams);
                }
            }
            ("publish", _) => return self.asked_to_publish(stream, command),
            ("play" | "play2", phase) => {
                self.answer(&answer::status(
                    stream,
                    "error",
                    "NetStream.Play.StreamNotFound",
                    "Nothing is played here.",
                ));
                if phase == SessionPhase::Connected {
                    return Err(SessionError::Play);
                }
            }
            ("FCUnpublish", _) => {
                let ended = self.is_named(command);
                self.answer(&answer::flash_media("onFCUnpublish", transaction, "NetStream.Unpublish.Success"));
                return Ok(ended.then(|| self.end(EndedBy::FcUnpublish)).flatten());
            }
            ("deleteStream", _) => {
                let named = command.argument(0).and_then(Value::as_f64).unwrap_or(f64::from(stream));
                if self.publish().is_some_and(|publish| f64::from(publish.message_stream) == named) {
                    return Ok(self.end(EndedBy::DeleteStream));
                }
            }
            ("closeStream", _) if self.wants(stream) => return Ok(self.end(EndedBy::CloseStream)),
            // Answers to requests that we never send, and commands that only other servers know.
            _ => {}
        }
        Ok(None)
    }

    fn connected(&mut self, command: &Command) -> Event {
        let info = ConnectInfo::read(&command.object);
        self.answer(&answer::connected(command.transaction, &info));
        let facts = self.change();
        facts.phase = SessionPhase::Connected;
        facts.connect = Some(Arc::new(info));
        Event::Connected
    }

    fn asked_to_publish(&mut self, stream: u32, command: &Command) -> Result<Option<Event>, SessionError> {
        let text = |index: usize| command.argument(index).and_then(Value::as_str).unwrap_or_default();
        let bad_name = |description: &str| answer::status(stream, "error", "NetStream.Publish.BadName", description);
        let key = match StreamKey::parse(text(0)) {
            Ok(key) => key,
            Err(error) => {
                self.answer(&bad_name(&error.to_string()));
                return if self.now.phase == SessionPhase::Connected { Err(error.into()) } else { Ok(None) };
            }
        };
        match (self.now.phase, self.publish()) {
            (SessionPhase::Connected, _) => {}
            (SessionPhase::Held | SessionPhase::Started, Some(old))
                if old.key == key && old.message_stream == stream =>
            {
                return Ok(None);
            }
            (SessionPhase::Ended, _) => {
                self.answer(&bad_name("The stream of this connection has ended; connect again."));
                return Ok(None);
            }
            _ => {
                self.answer(&bad_name("A connection publishes one stream."));
                return Ok(None);
            }
        }
        let request = PublishRequest {
            key,
            kind: amf0::cut(text(1), MAX_STATUS_TEXT).to_owned(),
            message_stream: stream,
            transaction: if command.transaction.is_finite() { command.transaction } else { 0.0 },
        };
        let facts = self.change();
        facts.phase = SessionPhase::Held;
        facts.publish = Some(Arc::new(request));
        Ok(Some(Event::Publish))
    }

    /// True if an `FCUnpublish` means the published stream: by its name, queries aside, or by having none.
    fn is_named(&self, command: &Command) -> bool {
        let without_query = |name: &str| name.split('?').next().unwrap_or_default().to_owned();
        let named = command.argument(0).and_then(Value::as_str).filter(|name| !name.is_empty());
        self.publish().is_some_and(|publish| {
            named.is_none_or(|named| without_query(named) == without_query(publish.key.expose()))
        })
    }

    /// Ends the publish, unless it has ended before.
    fn end(&mut self, by: EndedBy) -> Option<Event> {
        if !matches!(self.now.phase, SessionPhase::Held | SessionPhase::Started) {
            return None;
        }
        let stream = self.publish().map_or(0, |publish| publish.message_stream);
        self.answer(&answer::status(stream, "status", "NetStream.Unpublish.Success", "The stream has ended."));
        self.change().phase = SessionPhase::Ended;
        Some(Event::Ended(by))
    }
}

#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod tests;
