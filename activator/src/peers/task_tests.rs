//! Activators in one process, over real connections.

use std::net::SocketAddr;
use std::sync::Arc;

use liveedgecast_common::control::wire::control_server::{Control, ControlServer};
use liveedgecast_common::control::wire::{ActivatorSays, Activators, Challenge, Greeting, Stranger, WorkerSays};
use liveedgecast_common::control::{ActivatorMessage, Welcome as ControlWelcome};
use liveedgecast_common::key::{AppName, Identity, StreamId};
use liveedgecast_common::listen::{listen, listen_shared};
use liveedgecast_common::proof::{Exchange, Purpose};
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use liveedgecast_common::encryption::Encryption;

use super::*;
use crate::config::Handoff;
use crate::control::{self, ControlMetrics};
use crate::destinations::StreamDestinations;
use crate::dispatch::{Entry, Introduction, Need, PlaceEvent, PlaceRefusal, Rules};
use crate::drain::Phase;
use crate::events::Events;
use crate::lobby::{Lobby, LobbyMetrics, MAX_UNREAD, Place};
use crate::peers::facts::PeerMessage;
use crate::peers::service as service_of_peers;
use crate::peers::{Courier, CourierError, ForwardedAnswer, ForwardedRequest, Me, PeersMetrics, RequestHandler};
use crate::scaler::proto::ScaledObjectRef;
use crate::scaler::proto::external_scaler_client::ExternalScalerClient;
use crate::scaler::{self, ScalerMetrics};
use crate::totals::WorkerTotals;

const SECRET: &str = "0123456789abcdef";
/// The secret of activators among themselves.
const ACTIVATORS: &str = "a secret that no worker has";

/// A port that is not served yet.
struct Door(TcpListener, SocketAddr);

fn door() -> Door {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    Door(listener, address)
}

struct House {
    lobby: Lobby,
    cluster: Cluster,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

/// An activator on the listener `door` that looks for others at the addresses `others`.
fn house(name: &str, door: Door, others: &[SocketAddr]) -> House {
    let port = door.1.port();
    house_found_at(port, name, door, others)
}

/// An activator that tells the others `port` as its control port; 0 for none.
fn house_found_at(port: u16, name: &str, door: Door, others: &[SocketAddr]) -> House {
    let control = SocketAddr::new(door.1.ip(), port);
    let me = Me { name: name.to_owned(), control, started: 0, shares_ports: false, introducer: false };
    house_of(me, door.0, others)
}

fn house_of(me: Me, listeners: impl Into<control::ControlListeners>, others: &[SocketAddr]) -> House {
    house_with(me, listeners, others, None)
}

fn house_with(
    me: Me,
    listeners: impl Into<control::ControlListeners>,
    others: &[SocketAddr],
    introducer: Option<SocketAddr>,
) -> House {
    let control = ControlMetrics::new(&Registry::new()).unwrap();
    let rules = Rules::default();
    let lobby = Lobby::new(rules, None, LobbyMetrics::unregistered(), Events::default());
    let cluster = Cluster::with_peers(lobby.peers.clone(), me.clone());
    let stop = CancellationToken::new();
    let welcome = ControlWelcome { activator: me.name, ..ControlWelcome::default() };
    let totals = WorkerTotals::new(&Registry::new()).unwrap();
    let terms = control::Terms {
        welcome,
        protection: Encryption::Auto.into(),
        secret: Secret::new(SECRET),
        activators: CurrentTokens::without_tokens(Secret::new(ACTIVATORS)),
        network: String::new(),
        totals,
        handler: handler(),
    };
    let at = |address: &SocketAddr| PeerAddress { host: address.ip().to_string(), port: address.port() };
    let search = Search {
        addresses: others.iter().map(at).collect(),
        introducer: introducer.as_ref().map(at),
        protection: Encryption::On.into(),
        secret: Secret::new(SECRET),
        activators: CurrentTokens::without_tokens(Secret::new(ACTIVATORS)),
    };
    let mut tasks = JoinSet::new();
    let served = control::serve(listeners.into(), terms, lobby.workers.clone(), cluster.clone(), control, stop.clone());
    tasks.spawn(async move { served.await.unwrap() });
    tasks.spawn(run(cluster.clone(), search));
    tasks.spawn(lobby.keep_time());
    House { lobby, cluster, stop, _tasks: tasks }
}

/// Answers a request with its own words; `aa` is no stream of anybody.
fn handler() -> RequestHandler {
    RequestHandler(Arc::new(|request| {
        let ForwardedRequest { action, stream_id, destination, body, client } = request;
        let status = if stream_id == "aa" { 404 } else { 200 };
        ForwardedAnswer { status, body: format!("{action} {stream_id} {destination} {body} {client}") }
    }))
}

fn two() -> (House, House) {
    let (one, two) = (door(), door());
    let all = [one.1, two.1];
    (house("a", one, &all), house("b", two, &all))
}

impl House {
    fn publisher(&self, id: &str, identity: u8) -> Place {
        self.lobby.places.enter(Entry {
            stream_id: StreamId(id.to_owned()),
            identities: vec![Identity([identity; 16])],
            app: AppName::parse("live").unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: now() + std::time::Duration::from_secs(600),
            hold: std::time::Duration::from_secs(600),
            handoff: Handoff::Auto,
            movable: true,
            destinations: StreamDestinations::default(),
        })
    }

    fn worker(&self, name: &str, capacity: u32) -> mpsc::Receiver<ActivatorMessage> {
        let name = name.to_owned();
        let introduction = Introduction {
            name,
            capacity,
            availability: liveedgecast_common::control::Availability::Open,
            same_host: true,
            sessions: vec![],
            takes_lists: true,
            key: None,
            age: None,
            excerpts: true,
        };
        let (outbox, inbox) = mpsc::channel(MAX_UNREAD);
        self.lobby.workers.join(introduction, outbox).unwrap();
        inbox
    }

    fn known(&self) -> (usize, usize) {
        let need = self.cluster.known(None);
        (need.waiting, need.live)
    }

    fn peers(&self) -> (usize, usize) {
        self.cluster.peers().unwrap().count()
    }
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn each_activator_answers_for_all() {
    let (a, b) = two();
    // Each dials its own address too. That call and the one to the peer are made at once, and either may be the faster one.
    until(|| a.peers() == (1, 0) && b.peers() == (1, 0)).await;
    assert!(a.cluster.is_ready() && b.cluster.is_ready());
    assert_eq!(a.cluster.need(None), Ok(Need::default()), "both are heard: nothing is nothing");
    let place = a.publisher("x", 1);
    let _other = b.publisher("y", 2);
    until(|| a.known() == (2, 0) && b.known() == (2, 0)).await;
    let _worker = a.worker("w", 1);
    until(|| b.cluster.known(None).workers == 1).await;
    assert_eq!(b.cluster.known(None).unplaced, 1, "one of two has a place");
    drop(place);
    until(|| a.known() == (1, 0) && b.known() == (1, 0)).await;
    let metrics = PeersMetrics::new(&Registry::new()).unwrap();
    b.cluster.measure(&metrics);
    assert_eq!((metrics.demand.get(), metrics.peers.with_label_values(&["synced"]).get()), (1, 1));
}

#[tokio::test]
async fn facts_are_forgotten_at_a_goodbye_and_kept_at_a_death() {
    let (a, b) = two();
    let _place = a.publisher("x", 1);
    until(|| b.known() == (1, 0)).await;
    a.stop.cancel();
    until(|| b.known() == (0, 0)).await;

    let (a, b, way) = two_with_a_way_between().await;
    let _place = a.publisher("x", 1);
    until(|| b.known() == (1, 0)).await;
    way.send_replace(Way::Dead);
    until(|| b.peers() == (0, 1)).await;
    assert_eq!(b.known(), (1, 0), "its publishers come back to somebody");
}

#[tokio::test]
async fn a_request_is_answered_by_the_activator_of_that_name() {
    let (a, b) = two();
    until(|| a.peers().0 == 1 && b.peers().0 == 1).await;
    let request = |stream_id: &str| ForwardedRequest {
        action: "move".into(),
        stream_id: stream_id.into(),
        destination: "youtube".into(),
        body: "{\"url\":\"rtmp://a/live/\u{e9}\"}".into(),
        client: "10.0.0.7".parse().unwrap(),
    };
    let courier =
        Courier::new(b.cluster.clone(), Encryption::On.into(), CurrentTokens::without_tokens(Secret::new(ACTIVATORS)));
    let answer = courier.ask("a", &request("x")).await;
    let body = "move x youtube {\"url\":\"rtmp://a/live/\u{e9}\"} 10.0.0.7".to_owned();
    assert_eq!(answer, Ok(ForwardedAnswer { status: 200, body }));
    assert_eq!(courier.ask("a", &request("aa")).await.map(|answer| answer.status), Ok(404));
    assert_eq!(courier.ask("c", &request("x")).await, Err(CourierError::Unreachable), "nobody has this name");
    // A stranger, and a worker, which knows the control secret and no token of the API.
    for secret in ["another secret of 16", SECRET] {
        let other =
            Courier::new(b.cluster.clone(), Encryption::On.into(), CurrentTokens::without_tokens(Secret::new(secret)));
        assert_eq!(other.ask("a", &request("x")).await, Err(CourierError::Refused));
    }
    assert!(!format!("{:?}", request("x")).contains("live"), "the body may hold a key");
    drop(a);
    assert_eq!(courier.ask("a", &request("x")).await, Err(CourierError::Unreachable));
}

#[tokio::test]
async fn follower_is_followed_back() {
    let (one, two) = (door(), door());
    let (at_one, at_two) = (one.1, two.1);
    let a = house("a", one, &[at_one, at_two]);
    let b = house("b", two, &[at_two]);
    let _place = a.publisher("x", 1);
    until(|| b.known() == (1, 0)).await;
}

/// An address that leads to each of these in turns, as a Kubernetes Service's may.
async fn service(targets: Vec<SocketAddr>) -> SocketAddr {
    let Door(listener, address) = door();
    tokio::spawn(async move {
        for target in targets.iter().cycle() {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    address
}

#[tokio::test]
async fn activators_without_a_name_find_each_other_by_the_introducer() {
    let (one, two) = (door(), door());
    let introducer = Some(service(vec![one.1, two.1]).await);
    // The name server still remembers the addresses of earlier activators.
    let gone = door().1;
    let built = [("a~1", one), ("b~2", two)].map(|(name, door)| {
        let me = Me { name: name.to_owned(), control: door.1, started: 0, shares_ports: false, introducer: true };
        house_with(me, door.0, &[gone], introducer)
    });
    let _place = built[0].publisher("x", 1);
    until(|| built[1].known() == (1, 0) && built[0].peers().0 == 1).await;
}

#[tokio::test]
async fn follower_learns_nothing_when_its_secret_is_wrong() {
    let (one, two) = (door(), door());
    let (at_one, at_two) = (one.1, two.1);
    let a = house("a", one, &[at_one]);
    let _place = a.publisher("x", 1);
    // A stranger, and a worker, which knows the control secret.
    for secret in ["another secret, not ours", SECRET] {
        let (events, mut happened) = mpsc::channel(EVENTS);
        call(at_one, secret, at_two.port(), events).run().await;
        assert!(matches!(happened.recv().await, Some(Input::Ended(_))), "not a word before the end");
        assert!(happened.recv().await.is_none());
    }
}

fn call(address: SocketAddr, secret: &str, control_port: u16, events: mpsc::Sender<Input>) -> PeerCall {
    let (protection, secrets) = (Encryption::Auto.into(), CurrentTokens::without_tokens(Secret::new(secret)));
    PeerCall { attempt: AttemptId(1), address, protection, secrets, name: "b".into(), control_port, events }
}

/// An activator that does not know the secret: it lets everybody in, and shows a proof made with another one.
struct Impostor;

impl service_of_peers::Gate for Impostor {
    fn admit<T>(
        &self,
        _: &tonic::Request<T>,
        purpose: Purpose,
    ) -> Result<service_of_peers::ProvedCaller, tonic::Status> {
        let exchange = Exchange { purpose, caller: [0; 32], challenge: [0; 32], activator: "impostor".into() };
        let (address, proof) = ([127, 0, 0, 1].into(), "0".repeat(64).parse().unwrap());
        Ok(service_of_peers::ProvedCaller { address, secret: Secret::new(SECRET), proof, exchange })
    }

    fn full(&self, _: std::net::IpAddr, text: String) -> tonic::Status {
        tonic::Status::resource_exhausted(text)
    }
}

#[tonic::async_trait]
impl Control for Impostor {
    type JoinStream = tokio_stream::Empty<Result<ActivatorSays, tonic::Status>>;

    async fn greet(&self, _: tonic::Request<Greeting>) -> Result<tonic::Response<Challenge>, tonic::Status> {
        Ok(tonic::Response::new(Challenge { nonce: vec![0; 32], activator: "a".into() }))
    }

    async fn join(
        &self,
        _: tonic::Request<tonic::Streaming<WorkerSays>>,
    ) -> Result<tonic::Response<Self::JoinStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("join"))
    }

    async fn introduce(&self, _: tonic::Request<Stranger>) -> Result<tonic::Response<Activators>, tonic::Status> {
        Err(tonic::Status::unimplemented("introduce"))
    }
}

#[tokio::test]
async fn peer_is_not_listened_to_when_it_does_not_prove_the_secret() {
    let (own, Door(listener, address)) = (door(), door());
    let at_own = own.1;
    let rumours = house("rumours", own, &[at_own]);
    let _place = rumours.publisher("x", 1);
    let stop = CancellationToken::new();
    let peers = service_of_peers::server(Arc::new(Impostor), rumours.cluster.clone(), handler(), stop);
    let server = tonic::transport::Server::builder().add_service(ControlServer::new(Impostor)).add_service(peers);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await });
    let (events, mut happened) = mpsc::channel(EVENTS);
    tokio::spawn(call(address, ACTIVATORS, 0, events).run());
    assert!(matches!(happened.recv().await, Some(Input::Ended(_))), "not a word before the end");
}

/// The fate of the bytes between two activators.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Open,
    /// Connections stay, and nothing comes through.
    Hole,
    /// Connections are closed, as when a process is killed.
    Dead,
}

/// A way to an address.
async fn proxy(to: SocketAddr) -> (SocketAddr, watch::Sender<Way>) {
    let Door(listener, address) = door();
    let (way, state) = watch::channel(Way::Open);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut state = state.clone();
            tokio::spawn(async move {
                if *state.borrow() == Way::Dead {
                    return;
                }
                let mut server = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = async { drop(state.wait_for(|way| *way != Way::Open).await) } => {
                        drop(state.wait_for(|way| *way == Way::Dead).await);
                    }
                }
            });
        }
    });
    (address, way)
}

/// The second follows the first by way of the proxy alone.
async fn two_with_a_way_between() -> (House, House, watch::Sender<Way>) {
    let (one, two) = (door(), door());
    let (at_one, at_two) = (one.1, two.1);
    let (to_one, way) = proxy(at_one).await;
    let a = house_found_at(0, "a", one, &[at_one]);
    let b = house("b", two, &[at_two, to_one]);
    (a, b, way)
}

#[tokio::test]
async fn peer_delays_no_answer_and_its_last_facts_count_when_packets_are_lost() {
    let (a, b, way) = two_with_a_way_between().await;
    let _place = a.publisher("x", 1);
    until(|| b.known() == (1, 0)).await;
    way.send_replace(Way::Hole);
    let _own = b.publisher("y", 2);
    // Without an await the answer can come from memory alone.
    assert_eq!(b.cluster.need(None).map(|need| need.waiting), Ok(2));
    until(|| b.peers() == (0, 1)).await;
    assert_eq!(b.known(), (2, 0), "what it said last");
}

#[tokio::test]
async fn activator_is_unsure_until_it_has_heard_a_peer() {
    let Door(silent, address) = door();
    let own = door();
    let at_own = own.1;
    let a = house("a", own, &[at_own, address]);
    // The peer accepts the connection and never sends a byte.
    let (mut socket, _) = silent.accept().await.unwrap();
    assert!(a.cluster.need(None).is_err() && !a.cluster.is_ready());
    let _place = a.publisher("x", 1);
    assert_eq!(a.cluster.need(None).map(|need| need.waiting), Ok(1), "what it holds itself is there");
    let _ = socket.read(&mut [0; 16]).await;
    let _ = socket.shutdown().await;
}

#[tokio::test]
async fn earlier_of_two_publishers_with_one_identity_waits_and_the_later_is_refused() {
    let (a, b) = two();
    until(|| a.peers().0 == 1 && b.peers().0 == 1).await;
    let mut first = a.publisher("x", 1);
    until(|| b.known() == (1, 0)).await;
    let mut second = b.publisher("x2", 1);
    assert_eq!(second.event().await, PlaceEvent::Refused(PlaceRefusal::Duplicate));
    let _worker = a.worker("w", 1);
    assert!(matches!(first.event().await, PlaceEvent::Offered { .. }));
}

#[tokio::test]
async fn publisher_at_another_activator_goes_to_the_worker_that_has_its_stream() {
    let (a, b) = two();
    until(|| a.peers().0 == 1 && b.peers().0 == 1).await;
    // Both know both workers, as workers dial every activator.
    let _workers = [a.worker("w", 5), b.worker("w", 5)];
    let mut first = a.publisher("x", 1);
    let PlaceEvent::Offered { epoch, worker, .. } = first.event().await else { panic!() };
    assert_eq!(worker, "w");
    first.taken(epoch);
    until(|| b.cluster.known(None).live == 1).await;
    let _busier = b.worker("busier", 5);
    let mut taken = b.publisher("y", 9);
    let PlaceEvent::Offered { .. } = taken.event().await else { panic!() };
    let mut second = b.publisher("x2", 1);
    let PlaceEvent::Offered { worker, epoch: claim, .. } = second.event().await else { panic!() };
    assert_eq!(worker, "w");
    assert!(claim > epoch, "a later claim is a greater one, whoever makes it");
}

#[tokio::test]
async fn keda_learns_from_one_activator_of_a_stream_that_waits_at_the_other() {
    let (a, b) = two();
    let Door(listener, address) = door();
    let (_phase, phases) = watch::channel(Phase::Serving);
    let desk = scaler::ScalerContext {
        cluster: b.cluster.clone(),
        target: 50,
        tls: None,
        phase: phases,
        metrics: ScalerMetrics::new(&Registry::new()).unwrap(),
    };
    let stop = CancellationToken::new();
    tokio::spawn(scaler::serve(listener, desk, stop.clone()));
    let _stop = stop.drop_guard();
    let mut keda = ExternalScalerClient::connect(format!("http://{address}")).await.unwrap();
    let mut pushed = keda.stream_is_active(ScaledObjectRef::default()).await.unwrap().into_inner();
    let _place = Arc::new(a.publisher("x", 1));
    assert!(pushed.message().await.unwrap().unwrap().result);
    assert!(keda.is_active(ScaledObjectRef::default()).await.unwrap().into_inner().result);
}

#[tokio::test]
async fn workers_are_told_of_every_activator() {
    let (one, two) = (door(), door());
    let (at_one, at_two) = (one.1, two.1);
    let a = house("a", one, &[at_one]);
    let mut early = a.worker("early", 1);
    let _b = house("b", two, &[at_one, at_two]);
    let meet = |say: Option<ActivatorMessage>| matches!(say, Some(ActivatorMessage::Meet(meet)) if meet == at_two);
    assert!(meet(early.recv().await), "it came before the second activator");
    assert!(meet(a.worker("late", 1).recv().await), "it came after it");
}

#[cfg(feature = "kubernetes")]
#[tokio::test]
async fn exactly_one_activator_acts_of_those_that_can() {
    let (a, b) = two();
    until(|| a.peers().0 == 1 && b.peers().0 == 1).await;
    assert!(!a.cluster.is_ours_to_act() && !b.cluster.is_ours_to_act(), "neither has said that it can");
    b.cluster.set_acts(true);
    assert!(b.cluster.is_ours_to_act());
    a.cluster.set_acts(true);
    until(|| !b.cluster.is_ours_to_act()).await;
    assert!(a.cluster.is_ours_to_act(), "the smaller name");
    a.cluster.set_acts(false);
    until(|| b.cluster.is_ours_to_act()).await;
    a.cluster.set_acts(true);
    until(|| !b.cluster.is_ours_to_act()).await;
    a.stop.cancel();
    until(|| b.cluster.is_ours_to_act()).await;
}

/// An activator on a port that others share.
fn house_on(shared: SocketAddr, name: &str, started: u64) -> (House, CancellationToken) {
    let own = door();
    let me = Me { name: name.to_owned(), control: own.1, started, shares_ports: true, introducer: false };
    let release = CancellationToken::new();
    let all = listen_shared(shared).unwrap();
    let address = all.local_addr().unwrap();
    let listeners = control::ControlListeners { all, ours: Some(own.0), release: release.clone() };
    (house_of(me, listeners, &[address]), release)
}

#[tokio::test]
async fn activators_on_one_port_find_each_other_and_the_younger_gets_it() {
    // A socket that is bound and does not listen reserves the port for this test.
    let port = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    port.set_reuse_port(true).unwrap();
    port.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let shared = port.local_addr().unwrap().as_socket().unwrap();

    let (elder, release) = house_on(shared, "elder", 1);
    let mut words = elder.worker("w", 5);
    let (younger, _) = house_on(shared, "younger", 2);
    until(|| elder.peers().0 == 1 && younger.peers().0 == 1).await;
    assert!(elder.cluster.has_heir() && !younger.cluster.has_heir());
    assert!(!younger.cluster.is_ready(), "a worker is there that it does not know");

    // The worker is told the address at which the younger activator alone is found.
    let Some(ActivatorMessage::Meet(met)) = words.recv().await else { panic!() };
    let at = met;
    assert_ne!(at, shared);
    assert_eq!(Some(at), younger.cluster.peers().map(|peers| peers.me().control));
    let _same = younger.worker("w", 5);
    until(|| younger.cluster.is_ready()).await;

    // A publisher that waits at either is known to both.
    let _place = elder.publisher("x", 1);
    until(|| younger.known() == (1, 0)).await;

    // The elder leaves the port: a dial finds the younger alone, and the two are in touch all the same.
    release.cancel();
    let mut found = 0;
    while found < 32 {
        let (events, mut happened) = mpsc::channel(EVENTS);
        let call = tokio::spawn(call(shared, ACTIVATORS, 0, events).run());
        match happened.recv().await {
            Some(Input::Said(_, PeerMessage::Welcome(welcome))) if welcome.name == "younger" => found += 1,
            // The elder may not have closed its listener yet.
            _ => found = 0,
        }
        call.abort();
    }
    let _second = elder.publisher("y", 2);
    until(|| younger.known() == (2, 0)).await;
}
