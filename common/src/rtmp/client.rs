//! An RTMP session towards an upstream, without IO: from the first byte of the handshake to the end.
//!
//! In: the upstream's bytes. Out: bytes for it, and [`ClientEvent`]s. Next: the worker's `upstream`, which owns socket and clock.
//!
//! ```text
//!              S0 S1 S2           _result            _result, id         Publish.Start
//!  Handshake ───────────▶ Connect ───────▶ CreateStream ───────▶ Publish ─────────────▶ Live
//!      │                     │                   │                  │                     │
//!      └─────────────────────┴───────────────────┴──────────────────┴─────────────────────┴──▶ Ended
//!         _error, onStatus of level error, close by the upstream, our own end
//! ```
//! Messages sent at each edge: C2, Set Chunk Size and `connect` in one piece; `releaseStream`, `FCPublish`, `createStream` in one piece;
//! `publish`. That is the order of FMLE, OBS and ffmpeg, which every ingest was built for.
//!
//! While live, only an error about this publishing or the whole connection ends the session: servers also report recordings, players and
//! calls that failed, and other message streams of the connection.
//!
//! Note: nginx-rtmp never answers `releaseStream` and `FCPublish`, others answer them with an error that means nothing; answers come with
//! transaction 0; the stream id is not always 1; a refused name does not mean that the connection is closed; and descriptions may repeat
//! the stream key, so they are checked before they are shown.

use std::collections::VecDeque;
use std::fmt;

use super::amf0::Value;
use super::auth::{self, Rejection};
use super::handshake::{HANDSHAKE_BYTES, Handshake, HandshakeError};
use super::limits::DEFAULT_CHUNK_SIZE;
use super::message::{Command, Control, UserControl};
use super::{ChunkError, Ingest, Ingested, MessageHeader, type_id};
use crate::key::{LogSafe, Secret, StreamKey};
use crate::url::PushUrl;

/// Bytes of payload in our chunks, from the first command to the last: what OBS announces. Every command and nearly every audio message fits
/// into one, and of a long message that much has to be there before a part of it can leave.
///
/// Note: it cannot be made smaller among the media. nginx-rtmp 1.2.2 then copies what it has read already into a buffer of the new size,
/// beyond its end.
pub const CHUNK_SIZE: u32 = 4096;

/// Flash version of FMLE, with our name where ffmpeg has its own: ingests look for the beginning.
const FLASH_VERSION: &str = "FMLE/3.0 (compatible; LiveEdgeCast)";

/// Answers (acknowledgements, pongs) that wait to be sent, in bytes: an upstream that exceeds it asks faster than it reads, and gets no
/// more.
const MAX_WAITING_ANSWERS: usize = 4096;

/// Chunk stream of commands on the connection, as in OBS and ffmpeg.
const COMMAND_CSID: u32 = 3;
/// Chunk stream of `publish`, as in OBS.
const PUBLISH_CSID: u32 = 4;

/// Transactions of our commands, in their order.
mod transaction {
    pub(super) const CONNECT: f64 = 1.0;
    pub(super) const RELEASE_STREAM: f64 = 2.0;
    pub(super) const FC_PUBLISH: f64 = 3.0;
    pub(super) const CREATE_STREAM: f64 = 4.0;
    pub(super) const PUBLISH: f64 = 5.0;
    pub(super) const CHECK_BANDWIDTH: f64 = 6.0;
    pub(super) const FC_UNPUBLISH: f64 = 7.0;
    pub(super) const DELETE_STREAM: f64 = 8.0;
}

/// The class of an upstream's refusal, which decides when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Name that is taken (`NetStream.Publish.BadName`): mostly our own stale session, so try again soon.
    BadName,
    /// Denied, unauthorized, forbidden, wrong credentials, unknown app: an operator has to change something, so try again slowly and warn.
    Denied,
    /// Error with another code, or none. That can be a stale session, too, or a server that restarts, so it takes several to believe it.
    Refused,
    /// Peer that does not speak RTMP as we understand it.
    Protocol,
}

impl Class {
    /// Name of the class in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadName => "bad_name",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
        }
    }

    /// Classifies the code of an `_error` or an `onStatus` of level error.
    fn of(code: &str) -> Self {
        // Vendors have codes of their own: InvalidSign, InvalidKey, Forbidden, AuthFailed, …
        const DENIED: [&str; 8] =
            ["Denied", "Unauthorized", "Rejected", "Invalid", "Auth", "Forbidden", "NotAllowed", "Expired"];
        if code == "NetStream.Publish.BadName" {
            Self::BadName
        } else if DENIED.iter().any(|word| code.contains(word)) {
            Self::Denied
        } else {
            Self::Refused
        }
    }
}

/// The stage that a session has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// C0, C1 are sent; S0, S1, S2 are awaited.
    Handshake,
    /// `connect` is sent.
    Connect,
    /// `releaseStream`, `FCPublish`, `createStream` are sent.
    CreateStream,
    /// `publish` is sent.
    Publish,
    /// `NetStream.Publish.Start` has come: media may be sent.
    Live,
    /// Refused, or ended by either side.
    Ended,
}

impl Stage {
    /// Name of the stage in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Connect => "connect",
            Self::CreateStream => "create_stream",
            Self::Publish => "publish",
            Self::Live => "live",
            Self::Ended => "ended",
        }
    }
}

/// An event for the owner of the session.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// Media may be sent from now on, on [`ClientSession::message_stream`].
    Started,
    /// The upstream refused; the text is for the log and holds no secret.
    Refused(Class, String),
    /// The upstream wants credentials on a new connection.
    AuthAsked(auth::Challenge),
    /// The upstream redirects us before the start: untrusted text, see [`PushUrl::redirected`]. Redacted, as it may hold the key.
    Redirected(Secret),
    /// The upstream ended the publishing, or asks us to come again; the text is for the log and holds no secret.
    Ended(String),
    /// Bytes that the upstream says it has received, wrapping at 2^32.
    Acknowledged(u32),
}

/// The error by which the upstream broke the protocol; the connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Error in the handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Error after the handshake.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// The session. Give bytes of the upstream to [`Self::handle`]; drain [`Self::poll_event`] and [`Self::take_output`] after it.
pub struct ClientSession {
    app: String,
    app_holds_key: bool,
    tc_url: String,
    key: StreamKey,
    stage: Stage,
    /// Handshake; `None` once it is done.
    handshake: Option<Box<Handshake>>,
    ingest: Ingest,
    /// The upstream's bytes that [`Ingest`] did not use yet: less than a chunk header.
    unread: Vec<u8>,
    output: Vec<u8>,
    events: VecDeque<ClientEvent>,
    message_stream: u32,
    /// The upstream's Window Acknowledgement Size; 0 before it has sent one.
    window: u32,
    /// Position of the last acknowledgement.
    acknowledged: u64,
    bandwidth_checked: bool,
}

impl ClientSession {
    /// A session that publishes to `url`. `auth` is the answer to the challenge of the connection before.
    #[must_use]
    pub fn new(url: &PushUrl, auth: Option<auth::AuthAnswer>) -> Self {
        let with_auth = |text: &str| auth.as_ref().map_or_else(|| text.to_owned(), |answer| answer.appended_to(text));
        Self {
            app: with_auth(&url.app),
            app_holds_key: url.app_holds_key,
            tc_url: with_auth(&url.tc_url()),
            key: url.key.clone(),
            stage: Stage::Handshake,
            handshake: Some(Box::new(Handshake::client())),
            // Acknowledgements count from the first byte of the connection.
            ingest: Ingest::new(HANDSHAKE_BYTES),
            unread: Vec::new(),
            output: Vec::new(),
            events: VecDeque::new(),
            message_stream: 0,
            window: 0,
            acknowledged: 0,
            bandwidth_checked: false,
        }
    }

    /// Queues C0 and C1. Call it once, first.
    pub fn start(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            self.output.extend(handshake.start());
        }
    }

    /// Handles bytes of the upstream, all of them. After the end they are ignored.
    ///
    /// # Errors
    /// The upstream broke the protocol.
    pub fn handle(&mut self, input: &[u8]) -> Result<(), ClientError> {
        let mut input = input;
        if let Some(handshake) = &mut self.handshake {
            let progress = handshake.handle(input)?;
            self.output.extend(progress.output);
            input = &input[progress.used..];
            if !progress.done {
                return Ok(());
            }
            self.handshake = None;
            if self.stage == Stage::Handshake {
                self.connect();
            }
        }
        if self.stage == Stage::Ended {
            return Ok(());
        }
        if self.unread.is_empty() {
            let used = self.read(input)?;
            self.unread.extend_from_slice(&input[used..]);
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(input);
            let used = self.read(&unread)?;
            unread.drain(..used);
            self.unread = unread;
        }
        if self.stage == Stage::Ended {
            self.unread = Vec::new();
        }
        self.acknowledge();
        Ok(())
    }

    /// Reads whole messages and returns the number of bytes used.
    fn read(&mut self, input: &[u8]) -> Result<usize, ClientError> {
        let start = self.ingest.position();
        loop {
            let used = (self.ingest.position() - start) as usize;
            let found = self.ingest.next(&input[used..])?;
            match found {
                Some(Ingested::Message { header, payload }) => self.message(&header, &payload),
                // An upstream has no media for a publisher.
                Some(Ingested::Media(_)) => {}
                None => return Ok((self.ingest.position() - start) as usize),
            }
            if self.stage == Stage::Ended {
                return Ok(input.len());
            }
        }
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Bytes for the upstream; empty when there are none. Whole chunks always.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// True if [`Self::take_output`] would return bytes.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The stage that the session has reached.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Bytes of the connection read so far, the handshake included.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.ingest.position()
    }

    /// The message stream id that `createStream` returned; 0 before.
    #[must_use]
    pub fn message_stream(&self) -> u32 {
        self.message_stream
    }

    /// Bytes of payload in each chunk that we send, as announced by Set Chunk Size before `connect`.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        CHUNK_SIZE
    }

    /// Queues `FCUnpublish` and `deleteStream`, if `publish` had been sent, and ends the session.
    pub fn end(&mut self) {
        if matches!(self.stage, Stage::Publish | Stage::Live) {
            let key = self.key();
            self.command("FCUnpublish", transaction::FC_UNPUBLISH, Value::Null, vec![key]);
            let stream = Value::Number(f64::from(self.message_stream));
            self.command("deleteStream", transaction::DELETE_STREAM, Value::Null, vec![stream]);
        }
        self.stage = Stage::Ended;
        self.unread = Vec::new();
    }

    fn connect(&mut self) {
        Control::SetChunkSize(CHUNK_SIZE).write(&mut self.output, DEFAULT_CHUNK_SIZE);
        let text = |name: &str, value: &str| (name.to_owned(), Value::string(value));
        let object = Value::Object(vec![
            text("app", &self.app),
            text("type", "nonprivate"),
            text("flashVer", FLASH_VERSION),
            text("swfUrl", &self.tc_url),
            text("tcUrl", &self.tc_url),
        ]);
        self.command("connect", transaction::CONNECT, object, Vec::new());
        self.stage = Stage::Connect;
    }

    fn create_stream(&mut self) {
        let key = self.key();
        self.command("releaseStream", transaction::RELEASE_STREAM, Value::Null, vec![key.clone()]);
        self.command("FCPublish", transaction::FC_PUBLISH, Value::Null, vec![key]);
        self.command("createStream", transaction::CREATE_STREAM, Value::Null, Vec::new());
        self.stage = Stage::CreateStream;
    }

    fn publish(&mut self, message_stream: u32) {
        self.message_stream = message_stream;
        let command = Command {
            name: "publish".to_owned(),
            transaction: transaction::PUBLISH,
            object: Value::Null,
            arguments: vec![self.key(), Value::string("live")],
        };
        command.write(&mut self.output, PUBLISH_CSID, message_stream, CHUNK_SIZE);
        self.stage = Stage::Publish;
    }

    fn key(&self) -> Value {
        Value::string(self.key.expose())
    }

    fn command(&mut self, name: &str, transaction: f64, object: Value, arguments: Vec<Value>) {
        let command = Command { name: name.to_owned(), transaction, object, arguments };
        command.write(&mut self.output, COMMAND_CSID, 0, CHUNK_SIZE);
    }

    /// A message that cannot be parsed is ignored: a deadline ends the wait for the one that should have come instead.
    fn message(&mut self, header: &MessageHeader, payload: &[u8]) {
        match header.type_id {
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => {
                if let Ok(command) = Command::parse(header.type_id, payload) {
                    self.answer(header.stream_id, &command);
                }
            }
            other => match Control::parse(other, payload) {
                Ok(Control::WindowAckSize(window)) => self.window = window,
                Ok(Control::UserControl(UserControl::PingRequest(timestamp))) => {
                    self.say(&Control::UserControl(UserControl::PingResponse(timestamp)));
                }
                Ok(Control::Acknowledgement(bytes)) => self.note_acknowledgement(bytes),
                // Set Chunk Size and Abort have been applied by the scanner; nothing else concerns a publisher.
                Ok(_) | Err(_) => {}
            },
        }
    }

    /// Replaces an acknowledgement that was not polled: only the last one is kept.
    fn note_acknowledgement(&mut self, bytes: u32) {
        match self.events.back_mut() {
            Some(ClientEvent::Acknowledged(last)) => *last = bytes,
            _ => self.events.push_back(ClientEvent::Acknowledged(bytes)),
        }
    }

    /// Queues an answer that the upstream asked for. Before `publish`, commands of ours wait in the same output; they are never left out.
    fn say(&mut self, control: &Control) {
        if self.output.len() < MAX_WAITING_ANSWERS {
            control.write(&mut self.output, CHUNK_SIZE);
        }
    }

    /// Acknowledges at half the window, as ffmpeg and SRS do: at its very end the upstream may be waiting already.
    fn acknowledge(&mut self) {
        if self.window == 0 || self.stage == Stage::Ended {
            return;
        }
        let position = self.ingest.position();
        if position - self.acknowledged >= u64::from(self.window / 2).max(1) {
            self.acknowledged = position;
            // Wraps at 2^32 (RTMP 1.0, 5.4.3).
            self.say(&Control::Acknowledgement(position as u32));
        }
    }

    fn answer(&mut self, stream: u32, command: &Command) {
        match command.name.as_str() {
            "_result" => self.result(command),
            "_error" => self.error(command),
            "onStatus" => self.status(stream, &Status::of(command)),
            "onBWDone" if !self.bandwidth_checked => {
                self.bandwidth_checked = true;
                self.command("_checkbw", transaction::CHECK_BANDWIDTH, Value::Null, Vec::new());
            }
            // Flash Media Server measures by this and waits for the answer.
            "_onbwcheck" if self.output.len() < MAX_WAITING_ANSWERS => {
                self.command("_result", command.transaction, Value::Null, vec![Value::Number(0.0)]);
            }
            "close" => self.ended(&Status::of(command).text("close")),
            _ => {}
        }
    }

    fn result(&mut self, command: &Command) {
        match self.stage {
            Stage::Connect => {
                // Some servers refuse in a result.
                let status = Status::of(command);
                if status.level == "error" { self.refused_connect(&status) } else { self.create_stream() }
            }
            Stage::CreateStream => {
                let foreign = [transaction::RELEASE_STREAM, transaction::FC_PUBLISH].contains(&command.transaction);
                let id = command.argument(0).and_then(Value::as_f64).filter(|_| !foreign);
                match id {
                    Some(id) if id >= 1.0 && id <= f64::from(u32::MAX) && id.fract() == 0.0 => self.publish(id as u32),
                    Some(_) => self.refused(Class::Protocol, "createStream returned no stream id"),
                    None if command.transaction == transaction::CREATE_STREAM => {
                        self.refused(Class::Protocol, "createStream returned no number");
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn error(&mut self, command: &Command) {
        let status = Status::of(command);
        let concerns_us = match self.stage {
            Stage::Handshake | Stage::Ended => false,
            Stage::Connect => true,
            // `releaseStream` and `FCPublish` fail where there is nothing to release, or no such command.
            Stage::CreateStream | Stage::Publish => {
                [transaction::CREATE_STREAM, transaction::PUBLISH].contains(&command.transaction)
            }
            // `publish` has been answered.
            Stage::Live => command.transaction == transaction::PUBLISH && status.ends_a_publish(),
        };
        if !concerns_us {
            return;
        }
        if self.stage == Stage::Connect {
            return self.refused_connect(&status);
        }
        self.refused_in_words(&status, "_error");
    }

    fn refused_in_words(&mut self, status: &Status<'_>, otherwise: &str) {
        if let Some(target) = status.redirect.filter(|_| self.stage < Stage::Live) {
            self.stage = Stage::Ended;
            self.events.push_back(ClientEvent::Redirected(Secret::new(target)));
            return;
        }
        self.refused(Class::of(status.code), &status.text(otherwise));
    }

    fn refused_connect(&mut self, status: &Status<'_>) {
        match Rejection::read(status.description) {
            Rejection::Asks(challenge) => {
                self.stage = Stage::Ended;
                self.events.push_back(ClientEvent::AuthAsked(challenge));
            }
            Rejection::Wrong(wrong) => self.refused(Class::Denied, &wrong.to_string()),
            Rejection::Unknown => self.refused(Class::Denied, "it asks for credentials in a way that is not known"),
            Rejection::Unrelated if status.redirect.is_some() => self.refused_in_words(status, "connect refused"),
            Rejection::Unrelated => {
                let class = if status.code.is_empty() { Class::Denied } else { Class::of(status.code) };
                self.refused(class, &status.text("connect refused"));
            }
        }
    }

    fn status(&mut self, stream: u32, status: &Status<'_>) {
        const RECONNECT: &str = "NetConnection.Connect.ReconnectRequest";
        // Before the start, some servers send it on message stream 0, 1 or any other.
        let ours = self.stage != Stage::Live || [0, self.message_stream].contains(&stream);
        if !ours {
            return;
        }
        match (self.stage, status.level, status.code) {
            (Stage::Publish, level, "NetStream.Publish.Start") if level != "error" => {
                self.stage = Stage::Live;
                self.events.push_back(ClientEvent::Started);
            }
            (Stage::Connect, "error", _) => self.refused_connect(status),
            (Stage::CreateStream | Stage::Publish, "error", _) if !status.is_about_something_else() => {
                self.refused_in_words(status, "onStatus");
            }
            // A clear refusal, whatever its level.
            (Stage::Publish, _, _) if status.says_no_to_publish() => self.refused_in_words(status, "onStatus"),
            (Stage::Live, "error", _) if status.ends_a_publish() => self.refused_in_words(status, "onStatus"),
            // Enhanced RTMP. Its new address is not followed: the configured server is asked again, and may redirect us.
            (Stage::Publish | Stage::Live, _, RECONNECT | "NetStream.Unpublish.Success") => {
                self.ended(&status.text("onStatus"));
            }
            _ => {}
        }
    }

    fn refused(&mut self, class: Class, text: &str) {
        self.stage = Stage::Ended;
        let text = self.shown(text);
        self.events.push_back(ClientEvent::Refused(class, text));
    }

    fn ended(&mut self, text: &str) {
        self.stage = Stage::Ended;
        let text = self.shown(text);
        self.events.push_back(ClientEvent::Ended(text));
    }

    /// A text of the upstream as logs and the API may show it: without control characters, short, and not at all if it repeats the key, its
    /// query or that of the app.
    fn shown(&self, text: &str) -> String {
        let app_query = self.app.split_once('?').map(|(_, query)| query);
        let parameters = [self.key.query(), app_query].into_iter().flatten().flat_map(|query| query.split('&'));
        let values = parameters.map(|parameter| parameter.split_once('=').map_or(parameter, |(_, value)| value));
        let app = if self.app_holds_key { self.app.as_str() } else { "" };
        let secrets = [self.key.expose(), self.key.name(), app];
        if secrets.into_iter().chain(values).any(|secret| !secret.is_empty() && text.contains(secret)) {
            return "a text that repeats the stream key".to_owned();
        }
        LogSafe(text).to_string()
    }
}

/// The outcome that an answer reports.
struct Status<'a> {
    level: &'a str,
    code: &'a str,
    description: &'a str,
    /// The other server that the answer names, by the convention of Flash Media Server, which SRS and others share: `ex.code` 302,
    /// `ex.redirect`.
    redirect: Option<&'a str>,
}

impl<'a> Status<'a> {
    /// Reads the first argument that is an object with a code; some servers put it where the command object should be.
    fn of(command: &'a Command) -> Self {
        let coded = |value: &&Value| value.property("code").is_some();
        let info = command.arguments.iter().chain([&command.object]).find(coded).or(command.argument(0));
        let text = |name| info.and_then(|info| info.property(name)).and_then(Value::as_str).unwrap_or_default();
        let ex = info.and_then(|info| info.property("ex"));
        let is_redirect = |ex: &&Value| ex.property("code").is_some_and(is_302);
        let redirect = ex.filter(is_redirect).and_then(|ex| ex.property("redirect")).and_then(Value::as_str);
        Self { level: text("level"), code: text("code"), description: text("description"), redirect }
    }

    /// True for a code about the publishing, or about the connection as a whole. Errors of recording, playing and calls are separate.
    fn ends_a_publish(&self) -> bool {
        ["NetStream.Publish.", "NetStream.Unpublish.", "NetStream.Failed", "NetConnection.Connect."]
            .iter()
            .any(|begin| self.code.starts_with(begin))
    }

    /// True for an error that answers neither `createStream` nor `publish`.
    fn is_about_something_else(&self) -> bool {
        ["NetStream.Record.", "NetStream.Play.", "NetStream.Seek.", "NetConnection.Call.", "SharedObject."]
            .iter()
            .any(|begin| self.code.starts_with(begin))
    }

    fn says_no_to_publish(&self) -> bool {
        self.code.starts_with("NetStream.Publish.") && matches!(Class::of(self.code), Class::BadName | Class::Denied)
    }

    fn text(&self, otherwise: &str) -> String {
        match (self.code, self.description) {
            ("", "") => otherwise.to_owned(),
            ("", description) => description.to_owned(),
            (code, "") => code.to_owned(),
            (code, description) => format!("{code}: {description}"),
        }
    }
}

/// True for 302 as a number or, as some servers write it, as text.
fn is_302(code: &Value) -> bool {
    code.as_f64() == Some(302.0) || code.as_str() == Some("302")
}

impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSession")
            .field("stage", &self.stage)
            .field("message_stream", &self.message_stream)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
