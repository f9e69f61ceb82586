//! Kit of the task's tests: a publisher, an activator and upstreams, over real sockets on loopback, all in one thread.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::handoff::preface::Step;
use liveedgecast_common::handoff::{
    ActivatorSide, Assignment, Destination, Frame, Policy, SessionKeys, Snapshot, Transport, WorkerSide,
};
use liveedgecast_common::key::{AppName, Identity, Secret, StreamId, StreamKey};
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession, Stage};
use liveedgecast_common::rtmp::handshake::Handshake;
use liveedgecast_common::rtmp::server::{EndedBy, Event, Refusal, ServerSession};
use liveedgecast_common::rtmp::writer::write_message;
use liveedgecast_common::rtmp::{MessageHeader, Scanned, type_id};
use liveedgecast_common::sys::{RingMemory, UnmappedRing};
use liveedgecast_common::url::{PushTemplate, PushUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use crate::receive::{FetchedRing, HandoffStream};
use crate::stream::{IncomingStream, PublisherHandoff, Report, StreamCommand, StreamContext, spawn};

/// Ring of the tests: the longest message fits, and yet it is soon full.
pub(super) const RING: usize = 256 << 10;

/// Frames that an activator may say before its task runs: the assignment, or the two parts of a stream that was cut.
const SAID: usize = 2;

/// Runs a test in a thread like the worker's.
pub(super) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
        panic!("waited in vain for: {what}");
    }
}

/// A message as it was sent or received.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) type_id: u8,
    pub(super) timestamp: u32,
    pub(super) payload: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = &self.payload[..self.payload.len().min(4)];
        write!(f, "{}@{} {} {head:?}", self.type_id, self.timestamp, self.payload.len())
    }
}

/// The messages without their timestamps, which are another session's.
pub(super) fn untimed(messages: &[Message]) -> Vec<Message> {
    messages.iter().map(|message| Message { timestamp: 0, ..message.clone() }).collect()
}

pub(super) fn ends_like(got: &[Message], sent: &[Message]) -> bool {
    got.last().map(|last| &last.payload) == sent.last().map(|last| &last.payload)
}

pub(super) fn metadata() -> Message {
    let payload = [&[2, 0, 10][..], b"onMetaData", &[5]].concat();
    Message { type_id: type_id::DATA_AMF0, timestamp: 0, payload }
}

pub(super) fn audio_header() -> Message {
    Message { type_id: type_id::AUDIO, timestamp: 0, payload: vec![0xAF, 0, 0x12, 0x10] }
}

pub(super) fn video_header() -> Message {
    Message { type_id: type_id::VIDEO, timestamp: 0, payload: vec![0x17, 0, 0, 0, 0, 1, 2, 3] }
}

/// A frame with its timestamp in the payload.
pub(super) fn video(timestamp: u32, keyframe: bool, length: usize) -> Message {
    let mut payload = vec![if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    payload.extend(timestamp.to_be_bytes());
    payload.extend((payload.len()..length).map(|byte| byte as u8));
    Message { type_id: type_id::VIDEO, timestamp, payload }
}

pub(super) fn audio(timestamp: u32, length: usize) -> Message {
    let mut payload = vec![0xAF, 1];
    payload.extend(timestamp.to_be_bytes());
    payload.extend((payload.len()..length).map(|byte| byte as u8));
    Message { type_id: type_id::AUDIO, timestamp, payload }
}

/// Headers, then some groups of frames: a keyframe, inter frames, audio between them.
pub(super) fn stream(groups: u32) -> Vec<Message> {
    let mut messages = vec![metadata(), audio_header(), video_header()];
    for group in 0..groups {
        messages.extend(group_of_frames(group * 200));
    }
    messages
}

pub(super) fn group_of_frames(from: u32) -> Vec<Message> {
    let frame =
        |at: u32| [video(from + at * 40, at == 0, if at == 0 { 900 } else { 90 }), audio(from + at * 40 + 7, 40)];
    (0..5).flat_map(frame).collect()
}

/// The messages of one connection to an upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Got {
    pub(super) published: bool,
    pub(super) messages: Vec<Message>,
    /// Payload of messages whose last byte has not come.
    pub(super) open: usize,
    pub(super) ended: Option<EndedBy>,
    pub(super) closed: bool,
}

/// An upstream.
#[derive(Clone)]
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    pub(super) sessions: Rc<RefCell<Vec<Got>>>,
    /// Answer to `publish`; `None`: start.
    pub(super) refuse: Rc<Cell<Option<Refusal>>>,
    /// Connections numbered below this are closed instead of an answer to `publish`.
    pub(super) hangs_up: Rc<Cell<usize>>,
    /// `true`: the upstream answers nothing any more.
    pub(super) mute: Rc<Cell<bool>>,
    /// `true`: the upstream reads nothing any more.
    pub(super) deaf: Rc<Cell<bool>>,
    /// Connections made before are cut.
    pub(super) cut: Rc<Cell<usize>>,
}

impl Sink {
    pub(super) async fn start() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
    }

    /// Starts an upstream whose kernel takes a few kilobytes, no more, until it reads.
    pub(super) async fn narrow() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket2::SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        Self::on(listener)
    }

    fn on(listener: TcpListener) -> Self {
        let sink = Self {
            address: listener.local_addr().unwrap(),
            sessions: Rc::default(),
            refuse: Rc::default(),
            hangs_up: Rc::default(),
            mute: Rc::default(),
            deaf: Rc::default(),
            cut: Rc::default(),
        };
        let server = sink.clone();
        spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = server.sessions.borrow().len();
                server.sessions.borrow_mut().push(Got::default());
                spawn_local(server.clone().serve(socket, number));
            }
        });
        sink
    }

    pub(super) fn url(&self) -> PushUrl {
        let template = PushTemplate::parse(&format!("rtmp://{}/live/{{key}}", self.address)).unwrap();
        template.resolve("live", &StreamKey::parse("key").unwrap()).unwrap()
    }

    /// Cuts the connections so far.
    pub(super) fn cut(&self) {
        self.cut.set(self.sessions.borrow().len());
    }

    /// Messages of a connection.
    pub(super) fn messages(&self, number: usize) -> Vec<Message> {
        self.sessions.borrow().get(number).map(|got| got.messages.clone()).unwrap_or_default()
    }

    pub(super) fn count(&self, number: usize) -> usize {
        self.sessions.borrow().get(number).map_or(0, |got| got.messages.len())
    }

    pub(super) fn with<T>(&self, number: usize, look: impl FnOnce(&Got) -> T) -> Option<T> {
        self.sessions.borrow().get(number).map(look)
    }

    async fn serve(self, mut socket: TcpStream, number: usize) {
        let mut handshake = Handshake::server();
        let mut session: Option<ServerSession> = None;
        let mut received = Vec::new();
        let mut open: Vec<(MessageHeader, Vec<u8>)> = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = tokio::select! {
                read = socket.read(&mut buffer), if !self.deaf.get() => read.unwrap_or(0),
                () = tokio::time::sleep(Duration::from_millis(1)) => {
                    if self.cut.get() > number {
                        break;
                    }
                    continue;
                }
            };
            if read == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..read]);
            let mut answer = Vec::new();
            let mut hung_up = false;
            if session.is_none() {
                let progress = handshake.handle(&received).unwrap();
                answer.extend(progress.output);
                received.drain(..progress.used);
                if progress.done {
                    session = Some(ServerSession::new(0));
                }
            }
            if let Some(session) = &mut session {
                while let Some(event) = session.next(&received[session.position() as usize..]).expect("sane chunks") {
                    hung_up |= event == Event::Publish && self.hangs_up.get() > number;
                    self.event(event, session, &received, &mut open, number);
                }
                answer.extend(session.take_output());
            }
            if hung_up {
                break;
            }
            if !self.mute.get() && socket.write_all(&answer).await.is_err() {
                break;
            }
        }
        self.sessions.borrow_mut()[number].closed = true;
    }

    fn event(
        &self,
        event: Event,
        session: &mut ServerSession,
        received: &[u8],
        open: &mut Vec<(MessageHeader, Vec<u8>)>,
        number: usize,
    ) {
        let got = &mut self.sessions.borrow_mut()[number];
        match event {
            Event::Publish => match self.refuse.get() {
                Some(refusal) => session.refuse_publish(refusal, "no"),
                None => {
                    got.published = true;
                    session.accept_publish();
                }
            },
            Event::Media(Scanned::Begin { header, .. }) => open.push((header, Vec::new())),
            Event::Media(Scanned::Payload { csid, at, len, last }) => {
                let index = open.iter().position(|(header, _)| header.csid == csid).unwrap();
                open[index].1.extend_from_slice(&received[at as usize..][..len as usize]);
                got.open += len as usize;
                if last {
                    let (header, payload) = open.remove(index);
                    got.open -= payload.len();
                    got.messages.push(Message { type_id: header.type_id, timestamp: header.timestamp, payload });
                }
            }
            Event::Media(Scanned::Aborted { .. }) => panic!("a message was not finished"),
            Event::Ended(by) => got.ended = Some(by),
            Event::Connected | Event::Pong(_) => {}
        }
    }
}

/// A publisher, held by an activator.
pub(super) struct Held {
    pub(super) client: ClientSession,
    pub(super) socket: TcpStream,
    /// The activator's end of it, and the session there.
    pub(super) server: TcpStream,
    pub(super) session: ServerSession,
    pub(super) address: SocketAddr,
}

/// Brings a publisher up to `publish`.
pub(super) async fn hold() -> Held {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (socket, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut socket, (mut server, address)) = (socket.unwrap(), accepted.unwrap());
    socket.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let template = PushTemplate::parse(&format!("rtmp://{}/live/key", listener.local_addr().unwrap())).unwrap();
    let url = template.resolve("live", &StreamKey::parse("key").unwrap()).unwrap();
    let mut client = ClientSession::new(&url, None);
    client.start();
    let mut handshake = Handshake::server();
    let mut session = None;
    let mut unread = Vec::new();
    loop {
        let out = client.take_output();
        socket.write_all(&out).await.unwrap();
        let mut arrived = vec![0; out.len()];
        server.read_exact(&mut arrived).await.unwrap();
        unread.extend(arrived);
        let mut answer = Vec::new();
        if session.is_none() {
            let progress = handshake.handle(&unread).unwrap();
            unread.drain(..progress.used);
            answer.extend(progress.output);
            session = progress.done.then(|| ServerSession::new(liveedgecast_common::rtmp::handshake::HANDSHAKE_BYTES));
        }
        let mut published = false;
        if let Some(session) = &mut session {
            let start = session.position();
            while let Some(event) = session.next(&unread[(session.position() - start) as usize..]).unwrap() {
                published |= event == Event::Publish;
            }
            unread.drain(..(session.position() - start) as usize);
            answer.extend(session.take_output());
        }
        server.write_all(&answer).await.unwrap();
        let mut arrived = vec![0; answer.len()];
        socket.read_exact(&mut arrived).await.unwrap();
        client.handle(&arrived).unwrap();
        if published {
            assert!(unread.is_empty());
            return Held { client, socket, server, session: session.unwrap(), address };
        }
    }
}

/// A publisher's end, after it was held.
pub(super) struct Encoder {
    pub(super) client: ClientSession,
    pub(super) socket: TcpStream,
}

impl Encoder {
    /// Messages in its chunks.
    pub(super) fn encode(&self, messages: &[Message]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            let header = MessageHeader {
                csid: 4,
                timestamp: message.timestamp,
                length: 0,
                type_id: message.type_id,
                stream_id: self.client.message_stream(),
            };
            write_message(&mut bytes, &header, &message.payload, self.client.chunk_size());
        }
        bytes
    }

    pub(super) async fn send(&mut self, messages: &[Message]) {
        let bytes = self.encode(messages);
        self.socket.write_all(&bytes).await.unwrap();
    }

    /// The next event of the publisher's session; `None`: the connection has ended.
    pub(super) async fn event(&mut self) -> Option<ClientEvent> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(event) = self.client.poll_event() {
                return Some(event);
            }
            let read = self.socket.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.client.handle(&buffer[..read]).unwrap();
            // Pongs.
            let out = self.client.take_output();
            let _ = self.socket.write_all(&out).await;
        }
    }

    pub(super) async fn started(&mut self) {
        assert_eq!(self.event().await, Some(ClientEvent::Started));
        assert_eq!(self.client.stage(), Stage::Live);
    }

    /// Says goodbye.
    pub(super) async fn goodbye(&mut self) {
        self.client.end();
        let bytes = self.client.take_output();
        self.socket.write_all(&bytes).await.unwrap();
    }
}

/// The activator's end of a handoff.
#[derive(Clone)]
pub(super) struct Activator {
    pub(super) frames: Rc<RefCell<Vec<Frame>>>,
    say: mpsc::Sender<Frame>,
    pub(super) closed: Rc<Cell<bool>>,
}

impl Activator {
    /// A connection to a worker, after its preface.
    pub(super) async fn connection(assignment: &Assignment) -> (Self, HandoffStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let keys = keys();
        let (mut reader, mut writer) = keys.activator_end();
        let (say, mut said) = mpsc::channel::<Frame>(SAID);
        let activator = Self { frames: Rc::default(), say, closed: Rc::default() };
        let (frames, closed) = (activator.frames.clone(), activator.closed.clone());
        spawn_local(async move {
            let (mut read, mut write) = ours.into_split();
            loop {
                tokio::select! {
                    result = read.read_buf(reader.buffer()) => {
                        if result.unwrap_or(0) == 0 {
                            break;
                        }
                        while let Some(frame) = reader.next().unwrap() {
                            let over = matches!(
                                frame,
                                Frame::Done { .. } | Frame::Parted(_) | Frame::Returned { .. } | Frame::Duplicate
                            );
                            frames.borrow_mut().push(frame);
                            if over {
                                closed.set(true);
                                return;
                            }
                        }
                    }
                    frame = said.recv() => {
                        let Some(frame) = frame else { break };
                        let mut bytes = Vec::new();
                        writer.write(&mut bytes, &frame).unwrap();
                        let _ = write.write_all(&bytes).await;
                    }
                }
            }
            closed.set(true);
        });
        activator.say(Frame::Assign(Box::new(assignment.clone())));
        let mut theirs = HandoffStream::new(theirs, keys.worker_end());
        let assign = std::future::poll_fn(|cx| theirs.poll_frame(cx)).await.unwrap();
        assert!(matches!(assign, Frame::Assign(_)));
        (activator, theirs)
    }

    pub(super) fn say(&self, frame: Frame) {
        self.say.try_send(frame).expect("the activator is there and has not said too much at once");
    }

    /// The same when there is room for it.
    pub(super) async fn tell(&self, frame: Frame) {
        self.say.send(frame).await.expect("the activator is there");
    }

    pub(super) fn has(&self, wanted: impl Fn(&Frame) -> bool) -> bool {
        self.frames.borrow().iter().any(wanted)
    }

    pub(super) fn is_done(&self) -> bool {
        self.has(|frame| matches!(frame, Frame::Done { .. }))
    }

    /// The connection, if it is the activator's again.
    pub(super) fn parted(&self) -> Option<Snapshot> {
        self.frames.borrow().iter().find_map(|frame| match frame {
            Frame::Parted(snapshot) => Some((**snapshot).clone()),
            _ => None,
        })
    }

    /// The last checkpoint.
    pub(super) fn checkpoint(&self) -> Option<Snapshot> {
        self.frames.borrow().iter().rev().find_map(|frame| match frame {
            Frame::Checkpoint(snapshot) => Some((**snapshot).clone()),
            _ => None,
        })
    }
}

fn keys() -> SessionKeys {
    let secret = Secret::new("secret");
    let mut activator = ActivatorSide::new(&secret, [2; 32]);
    let (mut worker, hello) = WorkerSide::new(&secret, [1; 16], [3; 32]);
    let challenge = activator.handle(&hello).output;
    let proof = worker.handle(&challenge).output;
    match activator.handle(&proof).step {
        Step::Done(keys) => keys,
        step => panic!("{step:?}"),
    }
}

pub(super) fn policy() -> Policy {
    Policy {
        hold_left: Duration::from_secs(20),
        grace: Duration::from_secs(20),
        replay_time: Duration::from_secs(20),
        replay_bytes: RING as u64,
        lag_time: Duration::from_secs(20),
        lag_bytes: 1 << 30,
    }
}

pub(super) fn assignment(id: &str, session: &ServerSession, address: SocketAddr, sinks: &[&Sink]) -> Assignment {
    let (app, key) = (AppName::parse("live").unwrap(), StreamKey::parse("key").unwrap());
    Assignment {
        stream_id: StreamId(id.to_owned()),
        epoch: 1,
        activator: "activator".to_owned(),
        client: address,
        identities: vec![Identity::of_stream(&Secret::new("secret"), &app, &key)],
        app,
        key,
        destinations: sinks.iter().map(|sink| Destination { url: sink.url(), required: false }).collect(),
        policy: policy(),
        transport: Transport::Descriptor,
        resumed: false,
        snapshot: Snapshot { session: session.state(), stream: None, unread: Vec::new() },
    }
}

/// A stream of a worker, as the engine has it.
pub(super) struct Engine {
    pub(super) commands: mpsc::Sender<StreamCommand>,
    pub(super) reports: mpsc::Receiver<Report>,
}

impl Engine {
    pub(super) fn start(incoming: IncomingStream) -> Self {
        Self::with(incoming, StreamContext::default())
    }

    pub(super) fn with(incoming: IncomingStream, context: StreamContext) -> Self {
        let (sender, reports) = mpsc::channel(64);
        Self { commands: spawn(incoming, Arc::new(context), sender), reports }
    }

    pub(super) fn command(&self, command: StreamCommand) {
        self.commands.try_send(command).unwrap();
    }

    /// The next report that fits.
    pub(super) async fn report<T>(&mut self, what: &str, wanted: impl Fn(&Report) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let report = self.reports.recv().await.expect("a report");
                if let Some(found) = wanted(&report) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for: {what}"))
    }

    pub(super) async fn ended(&mut self) {
        self.report("the end", |report| matches!(report, Report::Ended { .. }).then_some(())).await;
    }
}

/// Runs a stream in a set of its own until the condition holds, then kills it as a SIGKILL would: sockets are closed, nothing is said.
pub(super) async fn killed(incoming: IncomingStream, condition: impl AsyncFnOnce()) {
    let worker = LocalSet::new();
    worker
        .run_until(async {
            let _engine = Engine::start(incoming);
            condition().await;
        })
        .await;
}

/// A publisher that is given to a worker by descriptor: the ends of publisher and activator, and the duplicates for a successor.
pub(super) struct Given {
    pub(super) encoder: Encoder,
    pub(super) activator: Activator,
    pub(super) incoming: IncomingStream,
    /// Duplicates that the activator keeps.
    pub(super) socket: std::net::TcpStream,
    pub(super) memory: std::os::fd::OwnedFd,
}

pub(super) async fn give_descriptor(id: &str, sinks: &[&Sink]) -> Given {
    let Held { client, socket, server, session, address } = hold().await;
    let assignment = assignment(id, &session, address, sinks);
    let server = server.into_std().unwrap();
    let kept = server.try_clone().unwrap();
    let memory = RingMemory::create(RING).unwrap();
    let ring = unmapped(&memory);
    let (activator, control) = Activator::connection(&assignment).await;
    let publisher = PublisherHandoff::Descriptor { socket: TcpStream::from_std(server).unwrap(), control };
    let incoming = IncomingStream { assignment, publisher, ring };
    Given { encoder: Encoder { client, socket }, activator, incoming, socket: kept, memory }
}

/// A stream that is live to one upstream, with everything that a test may look at.
pub(super) struct LiveStream {
    pub(super) sink: Sink,
    pub(super) engine: Engine,
    pub(super) encoder: Encoder,
    pub(super) activator: Activator,
    /// Duplicates that the activator keeps; by link none.
    pub(super) socket: Option<std::net::TcpStream>,
    pub(super) memory: Option<std::os::fd::OwnedFd>,
}

pub(super) async fn live_by_descriptor() -> LiveStream {
    live_by_descriptor_to(Sink::start().await).await
}

pub(super) async fn live_by_descriptor_to(sink: Sink) -> LiveStream {
    let Given { mut encoder, activator, incoming, socket, memory } = give_descriptor("a", &[&sink]).await;
    let engine = Engine::start(incoming);
    encoder.started().await;
    LiveStream { sink, engine, encoder, activator, socket: Some(socket), memory: Some(memory) }
}

pub(super) async fn live_by_link() -> LiveStream {
    live_by_link_to(Sink::start().await).await
}

pub(super) async fn live_by_link_to(sink: Sink) -> LiveStream {
    let Linked { encoder, activator, incoming } = give_link("a", &[&sink]).await;
    let engine = Engine::start(incoming);
    until("start", || activator.has(|frame| *frame == Frame::Started)).await;
    LiveStream { sink, engine, encoder, activator, socket: None, memory: None }
}

/// The ring of a stream whose memory the activator keeps.
pub(super) fn unmapped(memory: &std::os::fd::OwnedFd) -> FetchedRing {
    FetchedRing::Unmapped(UnmappedRing::check(memory.try_clone().unwrap()).unwrap())
}

/// Hands the same publisher over once more, to a successor.
pub(super) async fn give_again(
    given_socket: &std::net::TcpStream,
    memory: &std::os::fd::OwnedFd,
    assignment: Assignment,
) -> (Activator, IncomingStream) {
    let assignment = Assignment { resumed: true, epoch: assignment.epoch + 1, ..assignment };
    let ring = unmapped(memory);
    let (activator, control) = Activator::connection(&assignment).await;
    let socket = TcpStream::from_std(given_socket.try_clone().unwrap()).unwrap();
    (activator, IncomingStream { assignment, publisher: PublisherHandoff::Descriptor { socket, control }, ring })
}

/// A publisher by link: the activator passes its bytes and the answers to it.
pub(super) struct Linked {
    pub(super) encoder: Encoder,
    pub(super) activator: Activator,
    pub(super) incoming: IncomingStream,
}

pub(super) async fn give_link(id: &str, sinks: &[&Sink]) -> Linked {
    let Held { client, socket, session, address, .. } = hold().await;
    let assignment = Assignment { transport: Transport::Link, ..assignment(id, &session, address, sinks) };
    let (activator, incoming) = link(assignment).await;
    Linked { encoder: Encoder { client, socket }, activator, incoming }
}

pub(super) async fn link(assignment: Assignment) -> (Activator, IncomingStream) {
    let (activator, control) = Activator::connection(&assignment).await;
    let ring = FetchedRing::Unmapped(UnmappedRing::create(RING).unwrap());
    (activator, IncomingStream { assignment, publisher: PublisherHandoff::Link { control }, ring })
}
