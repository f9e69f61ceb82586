//! An upstream that counts and keeps every message, and misbehaves on request. In: connections of workers or encoders. Out: a
//! [`SinkSession`] per connection.
//!
//! The sink is an RTMP server of its own, written against the specification and not with `common::rtmp::server`, so that one mistake cannot
//! be on both sides. Note: an upstream that is down must refuse connections at once, so the listener is really closed and not merely left
//! alone.
#![expect(clippy::disallowed_methods, reason = "shell: a thread per connection")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::{Command, Control};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use crate::loopback;
use crate::record::{Message, Recorder, Recording};
use crate::wait::{now, until_some};

/// A connection to the sink, as recorded.
#[derive(Clone, Debug)]
pub struct SinkSession {
    /// Time of accept.
    pub connected: Instant,
    /// `app` of its `connect`.
    pub app: String,
    /// `tcUrl` of its `connect`.
    pub tc_url: String,
    /// The stream key of its `publish`, byte for byte.
    pub key: String,
    /// Time of `NetStream.Publish.Start`.
    pub started: Option<Instant>,
    /// True if `publish` was refused.
    pub refused: bool,
    /// Time of the connection's end.
    pub ended: Option<Instant>,
    /// Messages that the client sent.
    pub recording: Recording,
}

impl SinkSession {
    /// Audio, video and data messages of the client.
    #[must_use]
    pub fn media(&self) -> &[Message] {
        &self.recording.media
    }

    /// True if the client said goodbye, by `FCUnpublish` or `deleteStream`.
    #[must_use]
    pub fn said_goodbye(&self) -> bool {
        ["FCUnpublish", "deleteStream"].iter().any(|name| self.recording.command_at(name).is_some())
    }
}

/// Behaviour of the sink towards its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manners {
    /// True if the sink accepts connections.
    listens: bool,
    /// True if the sink answers on connections.
    answers: bool,
    /// Code with which `publish` is refused.
    refuses: Option<&'static str>,
    /// True if a name that one client publishes is refused to all others.
    one_per_name: bool,
    /// A command that is answered with this delay, as by a server that asks a backend first.
    late: Option<(&'static str, Duration)>,
    /// True if the sink reads.
    reads: bool,
    /// True if `connect` is refused without a user and a proof of the password, in Adobe's way; which password is not looked at.
    asks_for_user: bool,
}

#[derive(Debug)]
struct State {
    manners: Manners,
    sessions: Vec<SinkSession>,
    sockets: Vec<TcpStream>,
}

#[derive(Debug)]
struct SharedSink {
    state: Mutex<State>,
    changed: Condvar,
    tls: Option<Arc<ServerConfig>>,
}

/// A running sink. It lives as long as the process.
#[derive(Clone, Debug)]
pub struct Sink {
    address: SocketAddr,
    shared: Arc<SharedSink>,
}

impl Sink {
    /// Starts a well-behaved sink.
    #[must_use]
    pub fn start() -> Self {
        let (address, listener) = loopback::listener(1935, listen);
        Self::new(address, listener, None)
    }

    /// Starts a sink that speaks RTMPS at an address of its own, which its certificate can name.
    #[must_use]
    pub fn start_tls(config: impl FnOnce(SocketAddr) -> Arc<ServerConfig>) -> Self {
        let (address, listener) = loopback::listener(443, listen);
        Self::new(address, listener, Some(config(address)))
    }

    /// Starts a sink that speaks RTMPS at `localhost`, for certificates with a name.
    ///
    /// # Panics
    /// No port is left.
    #[must_use]
    pub fn start_tls_at_localhost(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its port");
        Self::new(address, listener, Some(config))
    }

    fn new(address: SocketAddr, listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        let manners = Manners {
            listens: true,
            answers: true,
            refuses: None,
            one_per_name: false,
            late: None,
            reads: true,
            asks_for_user: false,
        };
        let state = Mutex::new(State { manners, sessions: Vec::new(), sockets: Vec::new() });
        let shared = Arc::new(SharedSink { state, changed: Condvar::new(), tls });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || serve(address, listener, &for_thread));
        Self { address, shared }
    }

    /// Address of the listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to push to.
    #[must_use]
    pub fn url(&self, app_and_key: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "rtmps" } else { "rtmp" };
        format!("{scheme}://{}/{app_and_key}", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state().manners);
        self.shared.changed.notify_all();
    }

    /// Accepts connections from now on without any answer, even to the handshake.
    pub fn say_nothing(&self) {
        self.behave(|manners| manners.answers = false);
    }

    /// Answers again from now on, also on connections that are waiting.
    pub fn answer(&self) {
        self.behave(|manners| manners.answers = true);
    }

    /// Refuses every `publish` from now on with this code.
    pub fn refuse(&self, code: &'static str) {
        self.behave(|manners| manners.refuses = Some(code));
    }

    /// Asks for a user and a password from now on.
    pub fn ask_for_user(&self) {
        self.behave(|manners| manners.asks_for_user = true);
    }

    /// Accepts every `publish` from now on.
    pub fn accept(&self) {
        self.behave(|manners| manners.refuses = None);
    }

    /// Refuses a `publish` with BadName from now on while another connection publishes that name.
    pub fn take_one_publisher_per_name(&self) {
        self.behave(|manners| manners.one_per_name = true);
    }

    /// Delays the answer to this command from now on.
    pub fn answer_late(&self, command: &'static str, by: Duration) {
        self.behave(|manners| manners.late = Some((command, by)));
    }

    /// Number of refused `publish` commands.
    #[must_use]
    pub fn refusals(&self) -> usize {
        self.state().sessions.iter().filter(|session| session.refused).count()
    }

    /// Stops reading on all connections.
    pub fn stall(&self) {
        self.behave(|manners| manners.reads = false);
    }

    /// Reads again on all connections.
    pub fn go_on(&self) {
        self.behave(|manners| manners.reads = true);
    }

    /// Closes the listener and resets all connections.
    pub fn go_away(&self) {
        self.behave(|manners| manners.listens = false);
        // The accept loop looks at `listens` only after a connection has arrived.
        let _ = TcpStream::connect(self.address);
        until_some("the sink to stop listening", || TcpStream::connect(self.address).is_err().then_some(()));
        self.drop_connections();
    }

    /// Opens the listener again.
    pub fn come_back(&self) {
        self.behave(|manners| manners.listens = true);
        until_some("the sink to listen again", || TcpStream::connect(self.address).is_ok().then_some(()));
    }

    /// Resets all connections.
    pub fn drop_connections(&self) {
        for socket in std::mem::take(&mut self.state().sockets) {
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    /// Sessions of all clients that published, in order of arrival.
    #[must_use]
    pub fn sessions(&self) -> Vec<SinkSession> {
        self.state().sessions.iter().filter(|session| !session.key.is_empty()).cloned().collect()
    }

    /// Number of connections with any data, whether they published or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state().sessions.len()
    }

    /// The latest session that published.
    #[must_use]
    pub fn last(&self) -> Option<SinkSession> {
        self.state().sessions.iter().rfind(|session| !session.key.is_empty()).cloned()
    }

    /// The only session that published.
    ///
    /// No session or several have published.
    /// There are none or several.
    #[must_use]
    #[track_caller]
    pub fn only(&self) -> SinkSession {
        let mut sessions = self.sessions();
        assert_eq!(sessions.len(), 1, "sessions at the upstream");
        sessions.remove(0)
    }

    /// Waits until the latest session has `frames` messages that are no headers.
    #[track_caller]
    pub fn receives(&self, frames: usize) -> SinkSession {
        until_some(format!("{frames} messages at the upstream"), || {
            self.last().filter(|session| session.recording.frames() >= frames)
        })
    }

    /// Waits until `count` sessions exist and the last has `frames` messages that are no headers.
    #[track_caller]
    pub fn receives_in_session(&self, count: usize, frames: usize) -> SinkSession {
        until_some(format!("{frames} messages in session {count} at the upstream"), || {
            self.sessions().into_iter().nth(count - 1).filter(|session| session.recording.frames() >= frames)
        })
    }

    /// Waits until the latest session has ended.
    #[track_caller]
    pub fn ended(&self) -> SinkSession {
        until_some("the end of the session at the upstream", || self.last().filter(|it| it.ended.is_some()))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // The kernel still knows connections of the earlier listener at this address.
    socket.set_reuse_address(true)?;
    // A small buffer: the kernel must not take megabytes for a stalled sink before the worker notices the stall.
    socket.set_recv_buffer_size(64 << 10)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn serve(address: SocketAddr, listener: TcpListener, shared: &Arc<SharedSink>) {
    let mut listener = Some(listener);
    loop {
        let Some(open) = &listener else {
            wait(shared, |manners| manners.listens);
            listener = listen(address).ok();
            continue;
        };
        let Ok((socket, _)) = open.accept() else { continue };
        if !shared.state.lock().unwrap_or_else(PoisonError::into_inner).manners.listens {
            listener = None;
            continue;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _ = session(socket, &shared);
        });
    }
}

/// Blocks until the sink's behaviour meets a condition.
fn wait(shared: &SharedSink, are: impl Fn(&Manners) -> bool) {
    let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = shared.changed.wait_while(state, |state| !are(&state.manners));
    drop(waited.unwrap_or_else(PoisonError::into_inner));
}

trait SinkStream: Read + Write {}
impl<T: Read + Write> SinkStream for T {}

fn session(socket: TcpStream, shared: &SharedSink) -> io::Result<()> {
    let connected = now();
    socket.set_nodelay(true)?;
    shared.state.lock().unwrap_or_else(PoisonError::into_inner).sockets.push(socket.try_clone()?);
    wait(shared, |manners| manners.answers);
    let mut stream: Box<dyn SinkStream> = match &shared.tls {
        None => Box::new(socket),
        Some(config) => {
            let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(connection, socket))
        }
    };
    let mut hello = [0; 1 + 1536];
    stream.read_exact(&mut hello)?;
    // S0, S1 (anything), S2 (an echo of C1): the simple handshake of the specification.
    let mut answer = vec![3; 1 + 1536];
    answer[1..9].fill(0);
    answer.extend_from_slice(&hello[1..]);
    stream.write_all(&answer)?;

    let number = {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.sessions.len();
        let (app, tc_url, key) = Default::default();
        let recording = Recording::default();
        state.sessions.push(SinkSession {
            connected,
            app,
            tc_url,
            key,
            started: None,
            refused: false,
            ended: None,
            recording,
        });
        number
    };
    let mut recorder = Recorder::default();
    let ended = converse(&mut *stream, &hello, &mut recorder, shared, number);
    shared.state.lock().unwrap_or_else(PoisonError::into_inner).sessions[number].ended = Some(now());
    ended
}

fn converse(
    stream: &mut dyn SinkStream,
    hello: &[u8],
    recorder: &mut Recorder,
    shared: &SharedSink,
    number: usize,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = hello.to_vec();
    let mut acknowledged = 0;
    loop {
        let mut late = Duration::ZERO;
        let answers = {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let manners = state.manners;
            let taken: Vec<(String, String)> = if manners.one_per_name {
                let publishes = |session: &&SinkSession| session.started.is_some() && session.ended.is_none();
                state.sessions.iter().filter(publishes).map(|it| (it.app.clone(), it.key.clone())).collect()
            } else {
                Vec::new()
            };
            let session = &mut state.sessions[number];
            let commands = session.recording.commands.len();
            recorder.read(now(), &bytes, &mut session.recording);
            let mut answers = Vec::new();
            for index in commands..session.recording.commands.len() {
                let command = session.recording.commands[index].1.clone();
                answer(&command, session, manners.refuses, manners.asks_for_user, &taken, &mut answers);
                if let Some((_, by)) = manners.late.filter(|(name, _)| *name == command.name) {
                    late = by;
                }
            }
            if session.recording.bytes - acknowledged > u64::from(WINDOW / 2) {
                acknowledged = session.recording.bytes;
                Control::Acknowledgement(acknowledged as u32).write(&mut answers, OUR_CHUNKS);
            }
            answers
        };
        if !late.is_zero() {
            thread::sleep(late);
        }
        stream.write_all(&answers)?;
        stream.flush()?;
        wait(shared, |manners| manners.reads);
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        bytes.clear();
        bytes.extend_from_slice(&buffer[..length]);
    }
}

/// Window of our acknowledgements, as nginx-rtmp has it.
const WINDOW: u32 = 5_000_000;
/// Chunk size of the sink: the default of the specification, since the sink never sends SetChunkSize.
const OUR_CHUNKS: u32 = 128;
/// Stream id that `createStream` returns: not 1, which some clients take for granted.
const STREAM_ID: u32 = 5;

/// The reason why an app is refused that lacks a user or a proof, in the words of Adobe's access manager.
fn refusal_of(app: &str) -> Option<&'static str> {
    match (app.contains("user="), app.contains("response=")) {
        (false, _) => Some("[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : "),
        (true, false) => {
            Some("[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=foo&salt=S&challenge=C&opaque=O")
        }
        (true, true) => None,
    }
}

fn answer(
    command: &Command,
    session: &mut SinkSession,
    refuses: Option<&'static str>,
    asks_for_user: bool,
    taken: &[(String, String)],
    out: &mut Vec<u8>,
) {
    let object = |pairs: &[(&str, &str)]| {
        Value::Object(pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::string(*value))).collect())
    };
    let result = |object: Value, argument: Value| Command {
        name: "_result".to_owned(),
        transaction: command.transaction,
        object,
        arguments: vec![argument],
    };
    match command.name.as_str() {
        "connect" => {
            let text = |name| command.object.property(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            (session.app, session.tc_url) = (text("app"), text("tcUrl"));
            if let Some(description) = asks_for_user.then(|| refusal_of(&session.app)).flatten() {
                let pairs =
                    [("level", "error"), ("code", "NetConnection.Connect.Rejected"), ("description", description)];
                let (name, transaction) = ("_error".to_owned(), command.transaction);
                let refused = Command { name, transaction, object: Value::Null, arguments: vec![object(&pairs)] };
                return refused.write(out, 3, 0, OUR_CHUNKS);
            }
            Control::WindowAckSize(WINDOW).write(out, OUR_CHUNKS);
            Control::SetPeerBandwidth { size: WINDOW, limit: 2 }.write(out, OUR_CHUNKS);
            let about = object(&[("fmsVer", "FMS/3,0,1,123"), ("capabilities", "31")]);
            let status = object(&[("level", "status"), ("code", "NetConnection.Connect.Success")]);
            result(about, status).write(out, 3, 0, OUR_CHUNKS);
        }
        "createStream" => {
            result(Value::Null, Value::Number(f64::from(STREAM_ID))).write(out, 3, 0, OUR_CHUNKS);
        }
        "publish" => {
            session.key = command.argument(0).and_then(Value::as_str).unwrap_or_default().to_owned();
            let is_taken = taken.iter().any(|(app, key)| (app, key) == (&session.app, &session.key));
            let refuses = refuses.or(is_taken.then_some("NetStream.Publish.BadName"));
            session.refused = refuses.is_some();
            let (level, code) = refuses.map_or(("status", "NetStream.Publish.Start"), |code| ("error", code));
            if refuses.is_none() {
                session.started = Some(now());
            }
            let status = object(&[("level", level), ("code", code), ("description", "by the sink")]);
            let said =
                Command { name: "onStatus".to_owned(), transaction: 0.0, object: Value::Null, arguments: vec![status] };
            said.write(out, 5, STREAM_ID, OUR_CHUNKS);
        }
        _ => {}
    }
}
