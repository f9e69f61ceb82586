//! Publishers over real sockets, with the real lobby and handoff listener; the worker's side of the handoff is played here.
#![expect(clippy::disallowed_methods, reason = "tests over real sockets: clock, timers, tasks")]

use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;

use clap::Parser;
use liveedgecast_common::control::ActivatorMessage;
use liveedgecast_common::handoff::{Decline, Frame, page};
use liveedgecast_common::key::StreamKey;
use liveedgecast_common::listen;
use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession, Stage};
use liveedgecast_common::rtmp::message::Command;
use liveedgecast_common::rtmp::server::{Event, Refusal, ServerSession};
use liveedgecast_common::rtmp::writer::write_message;
use liveedgecast_common::rtmp::{MessageHeader, Scanned, type_id};
use liveedgecast_common::url::PushTemplate;
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

#[path = "death_tests.rs"]
mod death;

use liveedgecast_common::handoff::{Assignment, Close, Snapshot, Transport};
use liveedgecast_common::sys::{RingMemory, UnmappedRing};
use tokio::net::TcpStream;

use super::*;
use crate::accept::{self, AcceptMetrics, ConnectionLimits};
use crate::admission::AdmissionMetrics;
use crate::config::{Args, Limits, RouteDestination, Settings};
use crate::destinations::{Change, ChangeError};
use crate::dispatch::{CallId, Introduction, Rules};
use crate::handoff::HandoffMetrics;
use crate::handoff::testing::WorkerEnd;
use crate::lobby::{Lobby, LobbyMetrics};

/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it does not come")
}

/// Waits until something is so.
async fn when(mut so: impl FnMut() -> bool) {
    soon(async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The activator's rooms from accept to the handoff listener.
struct House {
    lobby: Lobby,
    listener: HandoffListener,
    settings: Arc<Settings>,
    metrics: PublisherMetrics,
    admission: Arc<Admission>,
    address: SocketAddr,
    workers: u32,
    /// Workers that register take lists of destinations.
    lists: bool,
    draining: CancellationToken,
    _tasks: JoinSet<()>,
}

impl House {
    fn new(args: &[&str]) -> Self {
        Self::pushing_to("rtmp://127.0.0.1:1/live/{key}", args)
    }

    fn pushing_to(urls: &str, args: &[&str]) -> Self {
        let always = ["x", "--push-url", urls, "--rtmp-listen", "127.0.0.1:0"];
        let args = Args::try_parse_from(always.iter().chain(args)).unwrap();
        let settings = Arc::new(Settings::resolve(&args, [7; 32]).unwrap());
        let registry = Registry::new();
        let metrics = PublisherMetrics::new(&registry).unwrap();
        let rules = Rules::default();
        let events = Events::default();
        let lobby = Lobby::new(rules, None, LobbyMetrics::unregistered(), events.clone());
        let link = listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let for_workers = HandoffListener::open(link, settings.protection.clone(), settings.secret.clone()).unwrap();
        let listener = listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let metrics_of_hooks = AdmissionMetrics::unregistered();
        let admission = Arc::new(Admission::new(&settings, events.clone(), metrics_of_hooks));
        let draining = CancellationToken::new();
        let context = Arc::new(Context {
            admission: Arc::clone(&admission),
            places: lobby.places.clone(),
            listener: for_workers.clone(),
            events,
            spares: SpareMemories::new(HandoffMetrics::unregistered()),
            name: "test".to_owned(),
            stat_shows_keys: false,
            metrics: metrics.clone(),
            draining: draining.clone(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(lobby.keep_time());
        let counted = AcceptMetrics::new(&registry).unwrap();
        tasks.spawn(accept::run(
            listener,
            None,
            settings.proxies.clone(),
            ConnectionLimits::new(Limits::default()),
            counted,
            move |accepted| {
                tokio::spawn(run(accepted, Arc::clone(&context)));
            },
        ));
        Self {
            lobby,
            listener: for_workers,
            settings,
            metrics,
            admission,
            address,
            workers: 0,
            lists: false,
            draining,
            _tasks: tasks,
        }
    }

    /// A worker registers.
    fn worker(&mut self, descriptor: bool) -> Employee {
        self.workers += 1;
        let introduction = Introduction {
            name: format!("worker-{}", self.workers),
            capacity: 10,
            availability: liveedgecast_common::control::Availability::Open,
            same_host: descriptor,
            sessions: Vec::new(),
            takes_lists: self.lists,
            key: None,
            age: None,
            excerpts: true,
        };
        let (outbox, offers) = mpsc::channel(16);
        let call = self.lobby.workers.join(introduction, outbox).unwrap();
        Employee {
            lobby: self.lobby.clone(),
            listener: self.listener.clone(),
            settings: Arc::clone(&self.settings),
            call,
            offers,
        }
    }

    /// Waits until so many wait and so many are live.
    async fn until(&self, waiting: usize, live: usize) {
        when(|| {
            let demand = self.lobby.views.demand();
            (demand.waiting, demand.live) == (waiting, live)
        })
        .await;
    }

    /// Waits until no publisher's task is left.
    async fn until_empty(&self) {
        when(|| self.metrics.connections.get() == 0).await;
        self.until(0, 0).await;
    }
}

/// A worker that has registered.
struct Employee {
    lobby: Lobby,
    listener: HandoffListener,
    settings: Arc<Settings>,
    call: CallId,
    offers: mpsc::Receiver<ActivatorMessage>,
}

impl Employee {
    async fn offer(&mut self) -> liveedgecast_common::control::Offer {
        match soon(self.offers.recv()).await {
            Some(ActivatorMessage::Offer(offer)) => offer,
            other => panic!("{other:?}"),
        }
    }

    /// Fetches what it is offered next.
    async fn fetch(&mut self) -> Hands {
        let offer = self.offer().await;
        let token = offer.token;
        let mut end = soon(WorkerEnd::dial(&self.listener, &self.settings.secret, token, offer.descriptor)).await;
        let assignment = soon(end.assignment()).await;
        assert_eq!(assignment.epoch, offer.epoch);
        Hands::new(end, assignment).await
    }

    /// The worker's process is gone, as the control service notices it.
    fn dies(self) {
        self.lobby.workers.lost(self.call);
    }
}

/// A worker's hands on a stream.
struct Hands {
    end: WorkerEnd,
    assignment: Assignment,
    session: ServerSession,
    /// The bytes from the session's position on.
    unread: Vec<u8>,
    publisher: Option<TcpStream>,
    memory: Option<RingMemory>,
    /// Begins of media messages.
    media: Vec<MessageHeader>,
}

impl Hands {
    async fn new(mut end: WorkerEnd, assignment: Assignment) -> Self {
        let mut fds: Vec<OwnedFd> = std::mem::take(&mut end.fds);
        let memory = fds.pop().map(|memory| UnmappedRing::check(memory).unwrap().map().unwrap());
        let publisher = fds.pop().map(|socket| TcpStream::from_std(socket.into()).unwrap());
        assert_eq!(publisher.is_some(), assignment.transport == Transport::Descriptor);
        let mut snapshot = assignment.snapshot.clone();
        if let (true, Some(memory)) = (assignment.resumed, &memory)
            && let Some(newer) = page::read(memory.page())
        {
            snapshot = newer;
        }
        let session = ServerSession::restore(&snapshot.session).unwrap();
        Self { end, assignment, session, unread: snapshot.unread, publisher, memory, media: Vec::new() }
    }

    /// Accepts the stream and tells the publisher to start.
    async fn take(&mut self) {
        self.end.say(Frame::Accepted).await;
        self.session.accept_publish();
        self.answer().await;
        self.end.say(Frame::Started).await;
    }

    async fn answer(&mut self) {
        let output = self.session.take_output();
        if output.is_empty() {
            return;
        }
        match &mut self.publisher {
            Some(publisher) => publisher.write_all(&output).await.unwrap(),
            None => self.end.say(Frame::Reply(output.into())).await,
        }
    }

    /// Reads until so many media messages have begun.
    async fn read_media(&mut self, messages: usize) {
        loop {
            self.scan();
            if self.media.len() >= messages {
                return;
            }
            assert!(soon(self.more()).await, "the publisher has ended");
        }
    }

    fn scan(&mut self) {
        let (start, mut used) = (self.session.position(), 0);
        while let Some(event) = self.session.next(&self.unread[used..]).unwrap() {
            used = (self.session.position() - start) as usize;
            if let Event::Media(Scanned::Begin { header, .. }) = event {
                self.media.push(header);
            }
        }
        used = (self.session.position() - start) as usize;
        self.unread.drain(..used);
    }

    /// More bytes of the publisher; false: its end.
    async fn more(&mut self) -> bool {
        if let Some(publisher) = &mut self.publisher {
            return matches!(publisher.read_buf(&mut self.unread).await, Ok(1..));
        }
        match self.end.hear_news().await {
            Some(Frame::Data(bytes)) => self.unread.extend_from_slice(&bytes),
            Some(Frame::End(_)) => return false,
            other => panic!("{other:?}"),
        }
        true
    }

    /// Says where it is, for its successor. Between two messages only.
    async fn checkpoint(&mut self) {
        assert!(self.unread.is_empty());
        let snapshot = Snapshot { session: self.session.state(), stream: None, unread: Vec::new() };
        match &mut self.memory {
            Some(memory) => assert!(page::publish(memory.page_mut(), &snapshot)),
            None => self.end.say(Frame::Checkpoint(Box::new(snapshot))).await,
        }
    }

    /// Reads to the publisher's goodbye, and leaves the connection to the activator.
    async fn part(mut self) {
        self.scan();
        while !self.session.is_ended() {
            assert!(soon(self.more()).await, "the publisher has ended");
            self.scan();
        }
        self.answer().await;
        // By link the activator has what is unread.
        let unread = if self.publisher.is_some() { self.unread } else { Vec::new() };
        self.publisher = None;
        let snapshot = Snapshot { session: self.session.state(), stream: None, unread };
        self.end.say(Frame::Parted(Box::new(snapshot))).await;
        while let Some(frame) = soon(self.end.hear_news()).await {
            assert!(matches!(frame, Frame::Data(_)), "{frame:?}");
        }
    }

    async fn done(mut self, how: Close) {
        if let (Some(publisher), Close::Graceful) = (&mut self.publisher, how) {
            publisher.shutdown().await.unwrap();
        }
        self.publisher = None;
        self.end.say(Frame::Done { how, reason: "test".to_owned() }).await;
        while let Some(frame) = soon(self.end.hear_news()).await {
            assert!(matches!(frame, Frame::Data(_) | Frame::End(_)), "{frame:?}");
        }
    }
}

/// A publisher.
struct Encoder {
    session: ClientSession,
    stream: TcpStream,
}

impl Encoder {
    async fn connect(house: &House, key: &str) -> Self {
        let template = PushTemplate::parse("rtmp://here/live/{key}").unwrap();
        let url = template.resolve("live", &StreamKey::parse(key).unwrap()).unwrap();
        let mut session = ClientSession::new(&url, None);
        session.start();
        Self { session, stream: TcpStream::connect(house.address).await.unwrap() }
    }

    /// Speaks and listens once; false is the end of the connection.
    async fn step(&mut self) -> bool {
        let output = self.session.take_output();
        if self.stream.write_all(&output).await.is_err() {
            return false;
        }
        let mut input = [0; 4096];
        let Ok(read @ 1..) = self.stream.read(&mut input).await else { return false };
        self.session.handle(&input[..read]).unwrap();
        true
    }

    async fn until(&mut self, stage: Stage) {
        while self.session.stage() != stage {
            assert!(soon(self.step()).await, "ended in {:?} before {stage:?}", self.session.stage());
        }
        let output = self.session.take_output();
        self.stream.write_all(&output).await.unwrap();
    }

    async fn publish(house: &House, key: &str) -> Self {
        let mut encoder = Self::connect(house, key).await;
        encoder.until(Stage::Publish).await;
        encoder
    }

    async fn media(&mut self, messages: u32) {
        self.stream.write_all(&media(messages)).await.unwrap();
    }

    /// Says a command.
    async fn command(&mut self, name: &str, transaction: f64, stream: u32, arguments: &[Value]) {
        let (name, arguments) = (name.to_owned(), arguments.to_vec());
        let mut bytes = Vec::new();
        Command { name, transaction, object: Value::Null, arguments }.write(
            &mut bytes,
            3,
            stream,
            liveedgecast_common::rtmp::client::CHUNK_SIZE,
        );
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Reads until it has been told this.
    async fn is_told(&mut self, what: &str) {
        let mut told = Vec::new();
        while !told.windows(what.len()).any(|window| window == what.as_bytes()) {
            assert!(soon(self.stream.read_buf(&mut told)).await.unwrap() > 0, "ended before {what}");
        }
    }

    /// The events until the end of the connection.
    async fn last_words(&mut self) -> Vec<ClientEvent> {
        soon(async { while self.step().await {} }).await;
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }
}

fn media(messages: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..messages {
        let header =
            MessageHeader { csid: 6, timestamp: 40 * number, length: 3000, type_id: type_id::VIDEO, stream_id: 1 };
        write_message(&mut bytes, &header, &[number as u8; 3000], liveedgecast_common::rtmp::client::CHUNK_SIZE);
    }
    bytes
}

/// Runs a scenario by both transports.
async fn both<F: Future<Output = ()>>(scenario: impl Fn(bool) -> F) {
    for descriptor in [true, false] {
        Box::pin(scenario(descriptor)).await;
    }
}

#[tokio::test]
async fn publisher_is_held_handed_over_and_closed() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        house.until(1, 0).await;
        let mut hands = house.worker(descriptor).fetch().await;
        assert!(!hands.assignment.resumed);
        assert_eq!(hands.assignment.destinations[0].url.key.expose(), "alpha");
        assert!(hands.assignment.policy.hold_left <= house.settings.hold);
        assert_eq!(encoder.session.stage(), Stage::Publish);
        hands.take().await;
        encoder.until(Stage::Live).await;
        house.until(0, 1).await;
        encoder.media(20).await;
        hands.read_media(20).await;
        hands.done(Close::Graceful).await;
        encoder.last_words().await;
        drop(encoder);
        house.until_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_publisher_that_says_goodbye_may_publish_again_on_its_connection() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        let mut hands = house.worker(descriptor).fetch().await;
        hands.take().await;
        encoder.until(Stage::Live).await;
        encoder.media(3).await;
        hands.read_media(3).await;
        let first = hands.assignment.stream_id.clone();
        encoder.command("FCUnpublish", 6.0, 0, &[Value::string("alpha")]).await;
        hands.part().await;
        encoder.is_told("NetStream.Unpublish.Success").await;
        house.until(0, 0).await;
        assert_eq!(house.metrics.connections.get(), 1, "its connection is there");

        encoder.command("deleteStream", 7.0, 0, &[Value::Number(1.0)]).await;
        encoder.command("createStream", 8.0, 0, &[]).await;
        encoder.command("publish", 9.0, 1, &[Value::string("beta")]).await;
        house.until(1, 0).await;
        let mut hands = house.worker(descriptor).fetch().await;
        assert_eq!(hands.assignment.key.expose(), "beta");
        assert!(!hands.assignment.resumed && hands.assignment.stream_id != first);
        hands.take().await;
        encoder.is_told("NetStream.Publish.Start").await;
        encoder.media(5).await;
        hands.read_media(5).await;
        drop(encoder);
        hands.done(Close::Graceful).await;
        house.until_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_publisher_that_does_not_wait_for_its_start_loses_nothing() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        // More than is kept, less than the kernel takes.
        encoder.media(15).await;
        house.until(1, 0).await;
        let mut hands = house.worker(descriptor).fetch().await;
        hands.take().await;
        hands.read_media(15).await;
        encoder.until(Stage::Live).await;
        encoder.media(5).await;
        hands.read_media(20).await;
        let stamps: Vec<u32> = hands.media.iter().map(|header| header.timestamp).collect();
        assert_eq!(stamps[..15], (0..15).map(|number| number * 40).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn publisher_that_leaves_while_held_leaves_the_lobby() {
    for early_media in [0, 15] {
        let house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        encoder.media(early_media).await;
        house.until(1, 0).await;
        drop(encoder);
        house.until_empty().await;
    }
}

#[tokio::test]
async fn worker_gets_nothing_when_the_publisher_left_while_offered() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let encoder = Encoder::publish(&house, "alpha").await;
        let mut worker = house.worker(descriptor);
        let offer = worker.offer().await;
        drop(encoder);
        house.until_empty().await;
        let token = offer.token;
        let end = soon(WorkerEnd::try_dial(&house.listener, &house.settings.secret, token, descriptor)).await;
        assert!(end.is_none(), "a token that nobody expects any more is no worker's");
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_gives_it_back_leaves_it_as_it_was() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        let mut worker = house.worker(descriptor);
        let mut hands = worker.fetch().await;
        hands.end.say(Frame::Returned { why: Decline::Full }).await;
        drop(hands);
        let mut hands = house.worker(descriptor).fetch().await;
        assert!(!hands.assignment.resumed);
        hands.take().await;
        encoder.until(Stage::Live).await;
        encoder.media(3).await;
        hands.read_media(3).await;
    })
    .await;
}

#[tokio::test]
async fn a_duplicate_is_refused_for_good() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        let mut hands = house.worker(descriptor).fetch().await;
        hands.end.say(Frame::Duplicate).await;
        drop(hands);
        assert!(matches!(&encoder.last_words().await[..], [ClientEvent::Refused(_, text)] if text.contains("BadName")));
        drop(encoder);
        house.until_empty().await;
    })
    .await;
}

#[tokio::test]
async fn refusal_of_an_upstream_reaches_the_publisher() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        let mut hands = house.worker(descriptor).fetch().await;
        hands.end.say(Frame::Accepted).await;
        hands.session.refuse_publish(Refusal::BadName, "the upstream says no");
        hands.answer().await;
        hands.done(Close::Graceful).await;
        assert!(matches!(&encoder.last_words().await[..], [ClientEvent::Refused(_, text)] if text.contains("BadName")));
        drop(encoder);
        house.until_empty().await;
    })
    .await;
}

/// How far a worker gets before it dies.
#[derive(Clone, Copy, Debug)]
enum Step {
    Offered,
    Assigned,
    Accepted,
    Started,
    Media,
    Checkpoint,
}

#[tokio::test]
async fn a_worker_may_die_at_every_step() {
    for step in [Step::Offered, Step::Assigned, Step::Accepted, Step::Started, Step::Media, Step::Checkpoint] {
        both(|descriptor| async move {
            let mut house = House::new(&[]);
            let mut encoder = Encoder::publish(&house, "alpha").await;
            let mut first = house.worker(descriptor);
            if let Step::Offered = step {
                first.offer().await;
            } else {
                let mut hands = first.fetch().await;
                match step {
                    Step::Offered | Step::Assigned => {}
                    Step::Accepted => {
                        hands.end.say(Frame::Accepted).await;
                        house.until(0, 1).await;
                    }
                    Step::Started | Step::Media | Step::Checkpoint => {
                        hands.take().await;
                        encoder.until(Stage::Live).await;
                        house.until(0, 1).await;
                    }
                }
                if let Step::Media | Step::Checkpoint = step {
                    encoder.media(10).await;
                    hands.read_media(10).await;
                }
                if let Step::Checkpoint = step {
                    while hands.session.state().position() < position_after(10, &hands) {
                        assert!(soon(hands.more()).await);
                        hands.scan();
                    }
                    hands.checkpoint().await;
                }
                drop(hands);
            }
            first.dies();
            let mut hands = house.worker(descriptor).fetch().await;
            let taken = !matches!(step, Step::Offered | Step::Assigned);
            assert_eq!(hands.assignment.resumed, taken, "{step:?}, descriptor {descriptor}");
            hands.take().await;
            encoder.until(Stage::Live).await;
            house.until(0, 1).await;
            encoder.media(5).await;
            // By descriptor the bytes that the first one read are in the ring, where this one would find them; these tests have none.
            let before = match step {
                Step::Media if !descriptor => 10,
                _ => 0,
            };
            if !(descriptor && matches!(step, Step::Media)) {
                hands.read_media(before + 5).await;
                assert_eq!(hands.media.len(), before + 5, "{step:?}, descriptor {descriptor}");
            }
        })
        .await;
    }
}

/// The position of a session that has read so many media messages of [`media`] to their end.
fn position_after(messages: u32, hands: &Hands) -> u64 {
    let start = hands.assignment.snapshot.session.position();
    start + media(messages).len() as u64
}

#[tokio::test]
async fn a_worker_that_goes_down_gives_its_stream_to_another_one() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut encoder = Encoder::publish(&house, "alpha").await;
        let mut first = house.worker(descriptor);
        let mut hands = first.fetch().await;
        hands.take().await;
        encoder.until(Stage::Live).await;
        encoder.media(4).await;
        hands.read_media(4).await;
        while hands.session.position() < position_after(4, &hands) {
            assert!(soon(hands.more()).await);
            hands.scan();
        }
        hands.checkpoint().await;
        // The process of the first worker ends, and its mapping with it.
        (hands.publisher, hands.memory) = (None, None);
        hands.end.say(Frame::Returned { why: Decline::Moving }).await;
        first.dies();
        let mut next = house.worker(descriptor).fetch().await;
        drop(hands);
        assert!(next.assignment.resumed && next.session.is_started());
        next.end.say(Frame::Accepted).await;
        encoder.media(6).await;
        next.read_media(6).await;
        house.until(0, 1).await;
    })
    .await;
}

/// A live publisher whose worker has just died.
async fn orphan(descriptor: bool) -> (House, Encoder) {
    let mut house = House::new(&[]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let mut worker = house.worker(descriptor);
    let mut hands = worker.fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    house.until(0, 1).await;
    drop(hands);
    worker.dies();
    house.until(1, 0).await;
    (house, encoder)
}

#[tokio::test]
async fn a_publisher_that_ends_between_two_workers_is_read_to_its_end() {
    both(|descriptor| async move {
        let (mut house, mut encoder) = orphan(descriptor).await;
        encoder.media(5).await;
        drop(encoder);
        let mut hands = house.worker(descriptor).fetch().await;
        hands.end.say(Frame::Accepted).await;
        hands.read_media(5).await;
        while soon(hands.more()).await {
            hands.scan();
        }
        hands.done(Close::Graceful).await;
        house.until_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_publisher_that_breaks_between_two_workers_is_read_to_its_end() {
    both(|descriptor| async move {
        let (mut house, mut encoder) = orphan(descriptor).await;
        encoder.media(5).await;
        socket2::SockRef::from(&encoder.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(encoder);
        let mut hands = house.worker(descriptor).fetch().await;
        hands.end.say(Frame::Accepted).await;
        hands.read_media(5).await;
        while soon(hands.more()).await {
            hands.scan();
        }
        hands.done(Close::Abort).await;
        house.until_empty().await;
    })
    .await;
}

#[tokio::test]
async fn publisher_that_comes_again_does_not_wait_for_the_rest_of_its_stream_which_is_counted_as_lost() {
    both(|descriptor| async move {
        let (house, mut encoder) = orphan(descriptor).await;
        encoder.media(5).await;
        let lost = house.metrics.rest_lost.with_label_values(&["duplicate"]);
        drop(encoder);
        let again = Encoder::publish(&house, "alpha").await;
        when(|| lost.get() >= media(5).len() as u64).await;
        house.until(1, 0).await;
        drop(again);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_publisher_by_link_is_told_after_its_last_byte() {
    let mut house = House::new(&[]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let mut hands = house.worker(false).fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    encoder.media(7).await;
    drop(encoder);
    hands.read_media(7).await;
    while soon(hands.more()).await {
        hands.scan();
    }
    hands.done(Close::Graceful).await;
    house.until_empty().await;
}

#[tokio::test]
async fn arrivals_by_link_gather_and_reach_the_worker_before_the_end() {
    let mut house = House::new(&["--gather", "20ms"]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let mut hands = house.worker(false).fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    let sent = media(40);
    let (before, after) = sent.split_at(sent.len() / 2);
    for piece in before.chunks(500) {
        encoder.stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    hands.read_media(20).await;
    // Nothing comes for longer than arrivals gather, and then something more.
    tokio::time::sleep(Duration::from_millis(50)).await;
    encoder.stream.write_all(after).await.unwrap();
    drop(encoder);
    hands.read_media(40).await;
    while soon(hands.more()).await {
        hands.scan();
    }
    hands.done(Close::Graceful).await;
    house.until_empty().await;
}

#[tokio::test]
async fn kicks_end_the_held_and_the_live() {
    both(|descriptor| async move {
        let mut house = House::new(&[]);
        let mut held = Encoder::publish(&house, "held").await;
        house.until(1, 0).await;
        let id = house.lobby.views.streams()[0].id.clone();
        assert!(house.lobby.views.kick(&id, "go"));
        assert!(matches!(held.last_words().await[..], [ClientEvent::Refused(..)]));
        drop(held);
        house.until_empty().await;

        let mut live = Encoder::publish(&house, "live").await;
        let mut hands = house.worker(descriptor).fetch().await;
        hands.take().await;
        live.until(Stage::Live).await;
        house.until(0, 1).await;
        let id = house.lobby.views.streams()[0].id.clone();
        assert!(house.lobby.views.kick(&id, "go"));
        assert_eq!(soon(hands.end.hear_news()).await, Some(Frame::Kick("go".to_owned())));
        hands.done(Close::Graceful).await;
        live.last_words().await;
        drop(live);
        house.until_empty().await;
    })
    .await;
}

#[tokio::test]
async fn wrong_key_is_refused_and_nothing_waits() {
    let house = House::new(&["--publish-keys", "alpha"]);
    let mut encoder = Encoder::connect(&house, "beta").await;
    assert!(matches!(&encoder.last_words().await[..], [ClientEvent::Refused(_, text)] if text.contains("Denied")));
    assert_eq!(house.lobby.views.demand().demand, 0);
    drop(encoder);
    house.until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn spent_hold_is_a_start_and_a_close() {
    let house = House::new(&["--hold-timeout", "20s"]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let started = tokio::time::Instant::now();
    assert_eq!(encoder.last_words().await, [ClientEvent::Started]);
    assert!(started.elapsed() >= Duration::from_secs(19));
}

#[tokio::test]
async fn publishers_that_wait_for_their_turn_are_told_to_come_again_when_the_activator_goes_down() {
    let house = House::new(&["--publish-burst", "1", "--publish-rate", "1", "--hold-timeout", "24h"]);
    // Others of their address, so that their turn is further away than this test waits.
    for _ in 0..10 * PATIENCE.as_secs() {
        let key = StreamKey::parse("other").unwrap();
        let facts = ClientFacts::default();
        let request = AdmissionRequest { client: house.address.ip(), app: "live".to_owned(), key, facts };
        let _ = house.admission.judge(request).await;
    }
    let mut encoders = [Encoder::publish(&house, "first").await, Encoder::publish(&house, "second").await];
    when(|| house.metrics.delayed.get() == 2).await;
    assert_eq!(house.metrics.admitted.get(), 2, "they may publish");
    house.until(0, 0).await;
    house.lobby.drain.drain();
    house.draining.cancel();
    for encoder in &mut encoders {
        assert_eq!(encoder.last_words().await, [ClientEvent::Started]);
    }
    house.until_empty().await;
}

#[tokio::test]
async fn silent_link_worker_is_lost() {
    let mut house = House::new(&[]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let mut first = house.worker(false);
    let mut hands = first.fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    encoder.media(2).await;
    first.dies();
    // It is not gone: it says nothing for 2 s.
    let mut next = house.worker(false).fetch().await;
    assert!(next.assignment.resumed);
    next.take().await;
    next.read_media(2).await;
    drop(hands);
}

/// The state after a stop of this process: its timers are due, and what the worker has said meanwhile waits in the kernel.
#[tokio::test]
async fn a_link_worker_is_heard_before_its_silence_is_judged() {
    let mut house = House::new(&[]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let mut hands = house.worker(false).fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    for round in 1..=20 {
        encoder.media(2).await;
        hands.read_media(2 * round).await;
        // In one go, so that the activator reads nothing of it before its clock is late.
        tokio::task::unconstrained(hands.end.say(Frame::Alive)).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3)).await;
        tokio::time::resume();
    }
    house.until(0, 1).await;
}

/// The worker lives and has kept its upstream sessions: with another one they would begin anew, where they may.
#[tokio::test]
async fn a_stream_whose_link_broke_goes_back_to_its_worker() {
    let mut house = House::new(&[]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let (mut first, mut second) = (house.worker(false), house.worker(false));
    let mut hands = first.fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    let Assignment { stream_id, epoch, .. } = hands.assignment.clone();
    let session = |epoch| liveedgecast_common::control::Session {
        stream_id: stream_id.0.clone(),
        state: liveedgecast_common::control::SessionState::Grace,
        epoch,
        ..Default::default()
    };
    first.lobby.workers.said(first.call, liveedgecast_common::control::WorkerMessage::Session(session(epoch)));
    // One that breaks at once is not tried again.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    drop(hands);
    let mut again = first.fetch().await;
    assert!(again.assignment.resumed && again.assignment.epoch > epoch);
    again.take().await;
    encoder.media(2).await;
    again.read_media(2).await;
    assert!(second.offers.try_recv().is_err(), "the other one was offered it");
}

#[tokio::test]
async fn a_stream_goes_to_its_next_worker_without_an_upstream_that_it_has_lost() {
    let mut house = House::pushing_to("rtmp://127.0.0.1:1/live/{key} rtmp://127.0.0.1:1/live/fixed", &[]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let (mut first, mut second) = (house.worker(false), house.worker(false));
    let mut hands = first.fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    let Assignment { stream_id, epoch, identities, destinations, .. } = hands.assignment.clone();
    assert_eq!((identities.len(), destinations.len()), (2, 2));
    let session = liveedgecast_common::control::Session {
        stream_id: stream_id.0.clone(),
        identities: vec![identities[0]],
        state: liveedgecast_common::control::SessionState::Live,
        epoch,
        ..Default::default()
    };
    first.lobby.workers.said(first.call, liveedgecast_common::control::WorkerMessage::Session(session));
    // It breaks at once, so the stream is given to the other worker.
    drop(hands);
    let again = second.fetch().await.assignment;
    assert_eq!((&again.identities[..], &again.destinations[..]), (&identities[..1], &destinations[..1]));
}

/// The names and hosts of a list.
fn named(frame: Option<Frame>) -> (u64, Vec<(String, String)>) {
    match frame {
        Some(Frame::Destinations(list)) => {
            let names = list.destinations.iter().map(|to| (to.name.clone(), to.url.host.clone()));
            (list.revision, names.collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn changed_destinations_reach_the_worker_and_every_later_one() {
    for descriptor in [true, false] {
        let mut house = House::new(&[]);
        house.lists = true;
        let mut encoder = Encoder::publish(&house, "alpha").await;
        let (mut first, mut second) = (house.worker(descriptor), house.worker(descriptor));
        let mut hands = first.fetch().await;
        assert_eq!(named(soon(hands.end.hear_news()).await), (0, vec![("127.0.0.1".into(), "127.0.0.1".into())]));
        hands.take().await;
        encoder.until(Stage::Live).await;
        let id = hands.assignment.stream_id.0.clone();
        let url = PushTemplate::parse("rtmp://two/live/{key}").unwrap();
        let given = RouteDestination { name: "two".into(), url, required: false, enabled: true, backup: None };
        let streams = &house.lobby.streams;
        assert_eq!(streams.change(&id, &Change::Add(given.clone())), Ok(1));
        assert_eq!(streams.change("nobody", &Change::Add(given.clone())), Err(ChangeError::UnknownStream));
        assert_eq!(streams.change(&id, &Change::Add(given)), Err(ChangeError::NameTaken));
        let both = vec![("127.0.0.1".to_owned(), "127.0.0.1".to_owned()), ("two".to_owned(), "two".to_owned())];
        assert_eq!(named(soon(hands.end.hear_news()).await), (1, both.clone()));
        assert_eq!(streams.change(&id, &Change::Remove { name: "127.0.0.1".into() }), Ok(2));
        assert_eq!(named(soon(hands.end.hear_news()).await), (2, both[1..].to_vec()));
        assert_eq!(streams.destinations(&id).map(|all| all.len()), Some(1));
        // It breaks at once, so the stream is given to the other worker.
        drop(hands);
        let mut again = second.fetch().await;
        assert_eq!(again.assignment.destinations.len(), 1);
        assert_eq!(again.assignment.destinations[0].url.host, "two");
        assert_eq!(named(soon(again.end.hear_news()).await), (2, both[1..].to_vec()));
    }
}

#[tokio::test]
async fn worker_of_an_earlier_release_gets_no_list_and_its_stream_no_change() {
    let mut house = House::new(&[]);
    let mut encoder = Encoder::publish(&house, "alpha").await;
    let mut first = house.worker(false);
    let mut hands = first.fetch().await;
    hands.take().await;
    encoder.until(Stage::Live).await;
    let id = hands.assignment.stream_id.0.clone();
    let change = Change::Restart { name: "127.0.0.1".into() };
    assert_eq!(house.lobby.streams.change(&id, &change), Err(ChangeError::OldWorker));
    assert!(house.lobby.views.kick(&id, "enough"));
    assert_eq!(soon(hands.end.hear_news()).await, Some(Frame::Kick("enough".into())));
}

#[test]
fn publisher_task_is_small() {
    fn size<F>(_: impl FnOnce(PublisherTask) -> F) -> usize {
        size_of::<F>()
    }
    let size = size(PublisherTask::serve);
    assert!(size < 2048, "{size}");
}

#[tokio::test]
async fn undecided_connections_keep_no_publisher_out() {
    let house = House::new(&[]);
    let mut undecided = Vec::new();
    for _ in 0..Limits::default().strangers_per_address {
        undecided.push(TcpStream::connect(house.address).await.unwrap());
    }
    when(|| house.metrics.connections.get() == undecided.len() as i64).await;
    let _held = Encoder::publish(&house, "alpha").await;
    house.until(1, 0).await;
    assert!(
        !matches!(soon(undecided[0].read(&mut [0; 1])).await, Ok(1..)),
        "the oldest undecided connection has made room"
    );
    let errors = &house.metrics.errors;
    when(|| errors.with_label_values(&["evicted"]).get() == 1).await;
}

/// Counts log lines.
struct LineCount(std::sync::atomic::AtomicUsize);

impl tracing::Subscriber for LineCount {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn published_line_is_written_once_however_many_workers_accept_the_stream() {
    let lines = Arc::new(LineCount(0.into()));
    let mut published = PublishedLine {
        stream_id: StreamId("s".to_owned()),
        client: "10.0.0.1:1".parse().unwrap(),
        app: AppName::parse("live").unwrap(),
        publisher: None,
        upstreams: "a".to_owned(),
        written: false,
    };
    tracing::subscriber::with_default(Arc::clone(&lines), || {
        published.write();
        published.write();
    });
    assert_eq!(lines.0.load(std::sync::atomic::Ordering::Relaxed), 1);
}
