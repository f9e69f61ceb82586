//! The control service, over real connections.

use clap::Parser;
use liveedgecast_common::clock;
use liveedgecast_common::control::wire::activator_says::Say as ActivatorSay;
use liveedgecast_common::control::wire::control_client::ControlClient;
use liveedgecast_common::control::wire::session::State as SessionState;
use liveedgecast_common::control::wire::{Hello, Load, Session};
use liveedgecast_common::encryption::Encryption;
use liveedgecast_common::greet::{Greeted, connect as connect_to, greet};
use liveedgecast_common::introduce;
use liveedgecast_common::listen::listen;
use prometheus::Registry;
use tokio_util::sync::DropGuard;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use super::*;
use crate::config::{Args, Handoff, Settings};
use crate::destinations::StreamDestinations;
use crate::dispatch::{Entry, PlaceEvent, Rules};
use crate::events::Events;
use crate::lobby::{Lobby, LobbyMetrics};
use liveedgecast_common::key::{AppName, StreamId};

const SECRET: &str = "0123456789abcdef";

struct Server {
    address: SocketAddr,
    lobby: Lobby,
    metrics: ControlMetrics,
    _stop: DropGuard,
}

fn server() -> Server {
    server_for(MAX_WORKERS)
}

fn server_for(most: usize) -> Server {
    server_with(most, Encryption::Auto)
}

fn server_with(most: usize, encryption: Encryption) -> Server {
    let args = Args::try_parse_from(["x", "--open", "--push-url", "rtmp://a/live/{key}"]).unwrap();
    let settings = Settings::resolve(&args, [1; 32]).unwrap();
    let registry = Registry::new();
    let metrics = ControlMetrics::new(&registry).unwrap();
    let lobby = Lobby::new(
        Rules::default(),
        None,
        LobbyMetrics::new(&registry, metrics.excess(), metrics.disbelieved()).unwrap(),
        Events::default(),
    );
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let welcome = Welcome {
        activator: "a-1".into(),
        handoff_socket: "socket".into(),
        link_port: 6002,
        counters: true,
        totals: true,
    };
    let handler = RequestHandler(Arc::new(|_| unreachable!("no activator passes a request on")));
    let totals = WorkerTotals::new(&registry).unwrap();
    let terms = Terms {
        welcome,
        protection: encryption.into(),
        secret: Secret::new(SECRET),
        activators: CurrentTokens::without_tokens(Secret::new("of activators")),
        network: "here".into(),
        totals,
        handler,
    };
    let stop = CancellationToken::new();
    let (serving, counted) = (Cluster::alone(lobby.peers.clone(), settings.fleet), metrics.clone());
    let (workers, stopped) = (lobby.workers.clone(), stop.clone());
    tokio::spawn(async move {
        serve_up_to(most, listener.into(), terms, workers, serving, counted, stopped).await.unwrap();
    });
    Server { address, lobby, metrics, _stop: stop.drop_guard() }
}

async fn connect(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

/// A call: the way to speak, and what is said.
struct Line {
    words: mpsc::Sender<WorkerSays>,
    heard: Streaming<ActivatorSays>,
}

async fn call(server: &Server) -> Result<Line, Status> {
    let channel = connect(server).await;
    let greeted = greet(channel.clone(), &Secret::new(SECRET), Purpose::Join).await?;
    let (words, spoken) = mpsc::channel(16);
    let answer = ControlClient::new(channel).join(greeted.request(ReceiverStream::new(spoken))?).await?;
    Ok(Line { words, heard: greeted.proved(answer)? })
}

/// A call with this proof, on a connection of its own or on this one.
async fn call_with(channel: Channel, proof: &str) -> Result<Response<Streaming<ActivatorSays>>, Status> {
    let mut request = Request::new(tokio_stream::pending());
    request.metadata_mut().insert(proof::METADATA, proof.parse().unwrap());
    ControlClient::new(channel).join(request).await
}

/// The proof that a request carries.
fn proof_of(greeted: &Greeted) -> String {
    let request = greeted.request(()).unwrap();
    request.metadata().get(proof::METADATA).unwrap().to_str().unwrap().to_owned()
}

impl Line {
    async fn say(&self, say: WorkerSay) {
        self.words.send(WorkerSays { say: Some(say) }).await.unwrap();
    }

    async fn hear(&mut self) -> Result<Option<ActivatorSay>, Status> {
        Ok(self.heard.message().await?.and_then(|says| says.say))
    }
}

fn hello(name: &str) -> Hello {
    Hello { name: name.into(), capacity: 5, network: "here".into(), ..Hello::default() }
}

async fn joined(server: &Server, name: &str) -> Line {
    let mut line = call(server).await.unwrap();
    line.say(WorkerSay::Hello(hello(name))).await;
    let said = line.hear().await.unwrap();
    assert!(matches!(&said, Some(ActivatorSay::Welcome(welcome)) if welcome.activator == "a-1"), "{said:?}");
    until(|| server.lobby.views.workers().iter().any(|worker| worker.name == name)).await;
    line
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

fn entry() -> Entry {
    Entry {
        stream_id: StreamId("s".into()),
        identities: vec![],
        app: AppName::parse("live").unwrap(),
        publisher: None,
        shown_key: None,
        connected: None,
        client: "10.0.0.1:1".parse().unwrap(),
        deadline: clock::now() + Duration::from_secs(600),
        hold: Duration::from_secs(600),
        handoff: Handoff::Auto,
        movable: true,
        destinations: StreamDestinations::default(),
    }
}

#[tokio::test]
async fn a_worker_joins_is_offered_a_stream_and_leaves() {
    let server = server();
    let mut line = joined(&server, "w").await;
    let mut place = server.lobby.places.enter(entry());
    let Ok(Some(ActivatorSay::Offer(offer))) = line.hear().await else { panic!() };
    let PlaceEvent::Offered { epoch, token, descriptor, .. } = place.event().await else { panic!() };
    assert_eq!((offer.epoch, offer.token, descriptor), (epoch, token.presented.to_vec(), true));
    line.say(WorkerSay::Load(Load { streams: 3, capacity: 5, draining: false, ..Load::default() })).await;
    until(|| server.lobby.views.workers()[0].streams == 3).await;
    drop(line);
    assert_eq!(place.event().await, PlaceEvent::Withdrawn { epoch });
    assert!(server.lobby.views.workers().is_empty());
}

#[tokio::test]
async fn a_stranger_is_told_the_addresses_of_activators() {
    let server = server();
    let other: SocketAddr = "10.0.0.2:6001".parse().unwrap();
    server.lobby.peers.met(other, true);
    let ask = |port, secret| async move {
        introduce::ask("127.0.0.1", port, &Encryption::Auto.into(), &Secret::new(secret)).await
    };
    // A caller asks again where no answer comes in time, as on a busy machine.
    let told = async || loop {
        let told = ask(server.address.port(), SECRET).await;
        if !told.is_empty() {
            break told;
        }
    };
    assert_eq!(told().await, [server.address, other], "itself first, and others");
    server.lobby.peers.met(other, false);
    assert_eq!(told().await, [server.address]);
    assert_eq!(ask(server.address.port(), "another secret, not ours").await, []);
    let stopped = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(ask(stopped.local_addr().unwrap().port(), SECRET).await, [], "connected, and no answer");
}

#[tokio::test]
async fn a_proof_is_good_once_on_the_connection_and_at_the_activator_that_it_was_made_for() {
    let (server, other) = (server(), server());
    let secret = Secret::new(SECRET);
    let channel = connect(&server).await;
    let greeted = greet(channel.clone(), &secret, Purpose::Join).await.unwrap();
    let captured = proof_of(&greeted);

    // On another connection, at another activator, for another call: made for another challenge.
    for there in [&server, &other] {
        let elsewhere = connect(there).await;
        greet(elsewhere.clone(), &secret, Purpose::Join).await.unwrap();
        let status = call_with(elsewhere, &captured).await.unwrap_err();
        assert!(status.code() == Code::Unauthenticated && status.message().contains("another secret"), "{status:?}");
        // And without a challenge.
        let elsewhere = connect(there).await;
        assert_eq!(call_with(elsewhere, &captured).await.unwrap_err().code(), Code::Aborted);
    }
    let introduce = greet(connect(&server).await, &secret, Purpose::Introduce).await.unwrap();
    assert_ne!(proof_of(&introduce), captured);

    let answer = call_with(channel.clone(), &captured).await.unwrap();
    assert!(greeted.proved(answer).is_ok(), "the activator proves itself, too");
    assert_eq!(call_with(channel, &captured).await.unwrap_err().code(), Code::Aborted, "it is good once");
}

#[tokio::test]
async fn a_caller_without_the_secret_or_of_another_version_is_refused_and_counted() {
    let server = server();
    let old =
        "1800000000.30313233343536373839616263646566.658ec194065c23d160b8adc85d77c599537aa6dac6dcc31101e8e4d7a6071e20";
    for (proof, text) in [("nonsense", "cannot be read"), (old, "run one version of both")] {
        let status = call_with(connect(&server).await, proof).await.unwrap_err();
        assert!(status.code() == Code::Unauthenticated && status.message().contains(text), "{status:?}");
    }
    let refused = |why| server.metrics.refused(why).get();
    assert_eq!((refused(CallRefusal::Proof), refused(CallRefusal::Replay)), (2, 0));
    let channel = connect(&server).await;
    let other = greet(channel.clone(), &Secret::new("another secret"), Purpose::Join).await.unwrap();
    let status = call_with(channel, &proof_of(&other)).await.unwrap_err();
    assert!(status.message().contains("another secret"), "{status:?}");
    assert_eq!(refused(CallRefusal::Proof), 3);
}

#[tokio::test]
async fn a_worker_beyond_the_limit_is_refused_and_counted() {
    let server = server_for(1);
    let _first = joined(&server, "w-1").await;
    let status = call(&server).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(server.metrics.refused(CallRefusal::Full).get(), 1);
}

#[tokio::test]
async fn connections_with_a_proof_are_bounded() {
    let server = server_for(1);
    let ask = async || {
        let channel = connect(&server).await;
        let greeted = greet(channel.clone(), &Secret::new(SECRET), Purpose::Introduce).await.unwrap();
        let request = greeted.request(Stranger::default()).unwrap();
        ControlClient::new(channel.clone()).introduce(request).await.map(|_| channel)
    };
    let mut open = Vec::new();
    for _ in 0..PROVED_PER_WORKER {
        open.push(ask().await.unwrap());
    }
    assert_eq!(ask().await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(server.metrics.refused(CallRefusal::Full).get(), 1);
    // One that is closed leaves its room to the next.
    open.pop();
    while ask().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_worker_may_be_called_like_the_pod_with_the_longest_name() {
    let server = server();
    let _line = joined(&server, &"x".repeat(253)).await;
}

#[tokio::test]
async fn a_second_call_under_a_registered_name_gets_a_welcome_and_ends() {
    let server = server();
    let first = joined(&server, "w").await;
    let mut second = call(&server).await.unwrap();
    second.say(WorkerSay::Hello(hello("w"))).await;
    assert!(matches!(second.hear().await, Ok(Some(ActivatorSay::Welcome(_)))));
    let status = second.hear().await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert_eq!(server.lobby.views.workers().len(), 1);
    drop(first);
    until(|| server.lobby.views.workers().is_empty()).await;
    joined(&server, "w").await;
}

#[tokio::test]
async fn a_malformed_hello_is_refused_with_the_reason() {
    let server = server();
    let rows = [
        (WorkerSay::Load(Load::default()), "first message"),
        (WorkerSay::Hello(Hello { name: "a b".into(), ..hello("w") }), "name"),
        (WorkerSay::Hello(Hello { name: String::new(), ..hello("w") }), "name"),
        (
            WorkerSay::Hello(Hello { name: "x".repeat(liveedgecast_common::key::MAX_INSTANCE_NAME + 1), ..hello("w") }),
            "name",
        ),
        (WorkerSay::Hello(Hello { capacity: 0, ..hello("w") }), "capacity"),
        (WorkerSay::Hello(Hello { capacity: 10_001, ..hello("w") }), "capacity"),
    ];
    for (say, text) in rows {
        let mut line = call(&server).await.unwrap();
        line.say(say).await;
        let status = line.hear().await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(text), "{status:?}");
    }
    assert!(server.lobby.views.workers().is_empty());
}

#[tokio::test]
async fn a_second_hello_is_ignored_good_or_bad() {
    let server = server();
    let line = joined(&server, "w").await;
    line.say(WorkerSay::Hello(Hello { capacity: 0, ..hello("w") })).await;
    line.say(WorkerSay::Hello(Hello { capacity: 9, ..hello("other") })).await;
    line.say(WorkerSay::Load(Load { streams: 3, capacity: 5, ..Load::default() })).await;
    let workers = || server.lobby.views.workers();
    until(|| workers().iter().any(|worker| worker.streams == 3)).await;
    assert_eq!(workers().iter().map(|worker| worker.name.as_str()).collect::<Vec<_>>(), ["w"]);
}

#[tokio::test]
async fn a_malformed_load_ends_the_call() {
    let server = server();
    let rows = [(0, 0, "capacity"), (0, u32::MAX, "capacity"), (0, 10_001, "capacity"), (11, 5, "streams")];
    for (streams, capacity, text) in rows {
        let mut line = joined(&server, "w").await;
        line.say(WorkerSay::Load(Load { streams, capacity, ..Load::default() })).await;
        let status = line.hear().await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(text), "{status:?}");
        assert!(server.lobby.views.workers().is_empty());
    }
    assert_eq!(server.metrics.refused(CallRefusal::Load).get(), 4);
}

#[tokio::test]
async fn sessions_beyond_the_capacity_are_left_out_and_counted() {
    let server = server();
    let session = |number: u32| Session {
        stream_id: number.to_string(),
        app: "live".into(),
        state: SessionState::Live.into(),
        ..Session::default()
    };
    let mut line = call(&server).await.unwrap();
    let told = 5 + 64 + 900;
    line.say(WorkerSay::Hello(Hello { sessions: (0..told).map(session).collect(), ..hello("w") })).await;
    assert!(matches!(line.hear().await, Ok(Some(ActivatorSay::Welcome(_)))));
    line.say(WorkerSay::Session(session(told))).await;
    let refused = |why| server.metrics.refused(why).get();
    until(|| refused(CallRefusal::Excess) == 901).await;
    assert_eq!(server.lobby.views.streams().len(), 5 + 64);
    line.say(WorkerSay::Session(Session { epoch: u64::MAX, ..session(0) })).await;
    until(|| refused(CallRefusal::Session) == 1).await;
    // The sessions that a worker invents count as one worker's.
    assert_eq!(Cluster::alone(server.lobby.peers.clone(), crate::config::Fleet::Process).known(None).live, 50);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_proves_nothing_is_closed() {
    use tokio::io::AsyncReadExt;
    let server = server();
    let mut stranger = TcpStream::connect(server.address).await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut rest = Vec::new();
    let _ = stranger.read_to_end(&mut rest).await;
    assert!(begun.elapsed() >= PROOF_TIMEOUT && begun.elapsed() < PROOF_TIMEOUT * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stops_within_its_handshake_is_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server();
    let mut stranger = TcpStream::connect(server.address).await.unwrap();
    let begun = tokio::time::Instant::now();
    // The head of a ClientHello that does not come.
    stranger.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196]).await.unwrap();
    let _ = stranger.read_to_end(&mut Vec::new()).await;
    assert!(begun.elapsed() >= PROOF_TIMEOUT && begun.elapsed() < PROOF_TIMEOUT * 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn calls_are_proved_by_the_secret_of_their_own_encrypted_connection_alone() {
    let server = server_with(MAX_WORKERS, Encryption::On);
    let (on, off) = (Encryption::On.into(), Encryption::Off.into());
    let secret = Secret::new(SECRET);
    let dialed = || connect_to(server.address, Duration::from_secs(5), &on, &secret, |endpoint| endpoint);
    let introduced = async |channel: Channel, secret: &Secret| {
        let greeted = greet(channel.clone(), secret, Purpose::Introduce).await?;
        greeted.proved(ControlClient::new(channel).introduce(greeted.request(Stranger {})?).await?)
    };
    let (channel, bound) = dialed().await.unwrap();
    assert!(introduced(channel.clone(), &bound).await.is_ok());
    let (_other, of_another) = dialed().await.unwrap();
    for wrong in [&secret, &of_another] {
        assert_eq!(introduced(channel.clone(), wrong).await.unwrap_err().code(), Code::Unauthenticated);
    }
    assert!(introduced(channel, &bound).await.is_ok(), "the connection goes on");
    let plain = connect_to(server.address, Duration::from_secs(5), &off, &secret, |endpoint| endpoint).await;
    let refused = match plain {
        Ok((channel, secret)) => introduced(channel, &secret).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a plain connection");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_sends_and_never_reads_is_closed_too() {
    use tokio::io::AsyncWriteExt;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";
    let server = server();
    let mut stranger = TcpStream::connect(server.address).await.unwrap();
    let begun = tokio::time::Instant::now();
    stranger.write_all(PREFACE).await.unwrap();
    let pings = PING.repeat(1000);
    // Until the answers that nobody reads have filled every buffer, and then until the end.
    while stranger.write_all(&pings).await.is_ok() {}
    assert!(begun.elapsed() < PROOF_TIMEOUT + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn undecided_connections_keep_no_worker_out() {
    let server = server();
    let mut undecided = Vec::new();
    for _ in 0..2 * MAX_STRANGERS {
        undecided.push(TcpStream::connect(server.address).await.unwrap());
    }
    let before = tokio::time::Instant::now();
    let _line = joined(&server, "w-1").await;
    assert!(before.elapsed() < PROOF_TIMEOUT, "it did not wait for them to be closed");
}

#[tokio::test]
async fn a_caller_that_has_proved_itself_is_not_evicted() {
    let server = server();
    let line = joined(&server, "w-1").await;
    tokio::time::pause();
    tokio::time::advance(PROOF_TIMEOUT + Duration::from_millis(1)).await;
    tokio::time::resume();
    let mut undecided = Vec::new();
    for _ in 0..2 * MAX_STRANGERS {
        undecided.push(TcpStream::connect(server.address).await.unwrap());
    }
    let _other = joined(&server, "w-2").await;
    line.say(WorkerSay::Load(Load { streams: 3, capacity: 5, draining: false, ..Load::default() })).await;
    until(|| server.lobby.views.workers().iter().any(|worker| worker.name == "w-1" && worker.streams == 3)).await;
}
