//! The task of this room beside a lobby with publishers and workers, and an API server.

use liveedgecast_common::control::ActivatorMessage;
use liveedgecast_common::control::{Availability, Cordon, Load, Session, SessionState, WorkerMessage};
use liveedgecast_common::key::{AppName, StreamId};
use liveedgecast_common::metrics::text;
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::super::testing::{Mood, Server};
use super::*;
use crate::config::{Fleet, Handoff};
use crate::destinations::StreamDestinations;
use crate::dispatch::{CallId, Entry, Introduction, Rules};
use crate::events::Events;
use crate::lobby::{Lobby, LobbyMetrics, MAX_UNREAD, Place};

struct House {
    server: Server,
    lobby: Lobby,
    cluster: Cluster,
    registry: Registry,
    _room: Ends,
}

struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn house(idle_go_after: Option<Duration>) -> House {
    let registry = Registry::new();
    let rules = Rules::default();
    let lobby = Lobby::new(rules, None, LobbyMetrics::unregistered(), Events::default());
    let cluster = Cluster::alone(lobby.peers.clone(), Fleet::External);
    let server = Server::default();
    let room = Room {
        api: Api::with_client("workers", server.client()),
        cluster: cluster.clone(),
        views: lobby.views.clone(),
        workers: lobby.workers.clone(),
        capacity: 1,
        most: 20,
        idle_go_after,
        metrics: KubernetesMetrics::new(&registry).unwrap(),
    };
    let room = Ends(tokio::spawn(run(room)).abort_handle());
    House { server, lobby, cluster, registry, _room: room }
}

struct Worker {
    call: CallId,
    hears: mpsc::Receiver<ActivatorMessage>,
}

impl House {
    fn publisher(&self, id: &str) -> Place {
        self.lobby.places.enter(Entry {
            stream_id: StreamId(id.to_owned()),
            identities: vec![],
            app: AppName::parse("live").unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: now() + Duration::from_secs(600),
            hold: Duration::from_secs(600),
            handoff: Handoff::Auto,
            movable: true,
            destinations: StreamDestinations::default(),
        })
    }

    fn worker(&self, name: &str) -> Worker {
        self.server.objects().pods.insert(name.to_owned(), None);
        self.server.objects().replicas += 1;
        let introduction = Introduction {
            name: name.to_owned(),
            capacity: 1,
            availability: Availability::Open,
            same_host: true,
            sessions: vec![],
            takes_lists: true,
            key: None,
            age: None,
            excerpts: true,
        };
        let (outbox, hears) = mpsc::channel(MAX_UNREAD);
        Worker { call: self.lobby.workers.join(introduction, outbox).unwrap(), hears }
    }

    fn says(&self, worker: &Worker, streams: u32, cordoned: bool, leaving: bool) {
        let availability = match (cordoned, leaving) {
            (_, true) => Availability::Leaving,
            (true, false) => Availability::Cordoned,
            (false, false) => Availability::Open,
        };
        let load = Load { streams, capacity: 1, availability };
        self.lobby.workers.said(worker.call, WorkerMessage::Load(load));
    }

    fn has(&self, row: &str) -> bool {
        text(&self.registry).lines().any(|line| line == format!("liveedgecast_{row}"))
    }

    fn cost(&self, pod: &str) -> Option<String> {
        self.server.objects().pods[pod].clone()
    }
}

/// The report of a worker that a stream is live.
fn session(id: &str) -> WorkerMessage {
    let state = SessionState::Live;
    WorkerMessage::Session(Session { stream_id: id.into(), app: "live".into(), state, ..Session::default() })
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn cordon(worker: &mut Worker) -> Cordon {
    loop {
        if let ActivatorMessage::Cordon(cordon) = worker.hears.recv().await.unwrap() {
            return cordon;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_pod_is_added_when_a_stream_waits_and_no_worker_comes() {
    let house = house(None);
    pass(3600).await;
    assert_eq!(house.server.objects().requests, [], "idle: nothing is asked");
    let _place = house.publisher("x");
    pass(4).await;
    assert_eq!(house.server.objects().replicas, 0);
    pass(2).await;
    assert_eq!(house.server.objects().replicas, 1);
    assert!(house.has("watchdog_total{result=\"patched\"} 1"));
    pass(120).await;
    assert_eq!(house.server.count("PATCH"), 1, "a pod that does not come is not replaced by ever more");
    assert_eq!(house.server.objects().replicas, 1);
}

#[tokio::test(start_paused = true)]
async fn api_is_not_called_when_a_worker_registers_in_time() {
    let house = house(None);
    let _place = house.publisher("x");
    pass(4).await;
    let _worker = house.worker("w");
    pass(5).await;
    assert_eq!(house.server.count("GET"), 0);
}

#[tokio::test(start_paused = true)]
async fn activator_pauses_and_retries_when_the_api_forbids_or_hangs() {
    for (mood, word) in [(Mood::Forbidding, "forbidden"), (Mood::Hanging, "late")] {
        let house = house(None);
        house.server.objects().mood = mood;
        let place = house.publisher("x");
        pass(11).await;
        assert!(!house.cluster.is_ours_to_act(), "another one acts");
        assert!(house.has(&format!("kubernetes_errors_total{{reason=\"{word}\"}} 1")), "{}", text(&house.registry));
        assert!(house.has("watchdog_total{result=\"failed\"} 1"));
        house.server.objects().mood = Mood::Well;
        // A hanging call makes the task build a new client, which finds no API in a test: only the forbidding server is asked again.
        if mood == Mood::Forbidding {
            pass(20).await;
            assert_eq!(house.server.objects().replicas, 1);
            assert!(house.cluster.is_ours_to_act());
        }
        drop(place);
    }
}

#[tokio::test(start_paused = true)]
async fn pod_is_patched_and_activator_stays_able_when_it_is_missing() {
    let house = house(None);
    let worker = house.worker("w");
    house.lobby.workers.said(worker.call, session("x"));
    pass(3).await;
    assert_eq!(house.cost("w").as_deref(), Some("100"));
    house.server.objects().pods.clear();
    house.lobby.workers.said(worker.call, session("y"));
    pass(20).await;
    assert!(house.has("kubernetes_errors_total{reason=\"missing\"} 1"));
    assert!(house.cluster.is_ours_to_act());
}

#[tokio::test(start_paused = true)]
async fn watchdog_adds_workers_when_patches_of_pods_are_forbidden() {
    let house = house(None);
    house.server.objects().mood = Mood::ForbiddingPods;
    let worker = house.worker("w");
    house.lobby.workers.said(worker.call, session("x"));
    pass(30).await;
    assert!(house.has("kubernetes_errors_total{reason=\"forbidden\"} 2"), "at first, and 10 s later");
    let _place = house.publisher("y");
    pass(6).await;
    assert_eq!(house.server.objects().replicas, 2);
    assert!(house.has("watchdog_total{result=\"patched\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn idle_worker_is_released_and_recalled_when_a_stream_comes() {
    let house = house(Some(Duration::from_secs(30)));
    let busy = house.worker("busy");
    let mut idle = house.worker("idle");
    house.says(&busy, 1, false, false);
    assert_eq!(cordon(&mut idle).await, Cordon::On);
    assert_eq!(house.cluster.known(None).leaving, 0);
    house.says(&idle, 0, true, false);
    let heard = cordon(&mut idle).await;
    assert_eq!(heard, Cordon::Leaving);
    assert_eq!(house.cost("idle").as_deref(), Some("-1000"), "before it may go");
    house.says(&idle, 0, true, true);
    let need = house.cluster.known(None);
    assert_eq!((need.workers, need.leaving, need.cut_off), (2, 1, 0));
    let _place = house.publisher("x");
    assert_eq!(house.cluster.known(None).unplaced, 0, "no other pod is needed");
    assert_eq!(cordon(&mut idle).await, Cordon::Off);
    house.says(&idle, 0, true, false);
    house.says(&idle, 0, false, false);
    let offered = async { while !matches!(idle.hears.recv().await.unwrap(), ActivatorMessage::Offer(_)) {} };
    offered.await;
    for step in ["cordoned", "leaving", "returned"] {
        assert!(house.has(&format!("scale_in_total{{state=\"{step}\"}} 1")), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn cordoned_worker_gets_no_offer() {
    let house = house(None);
    let mut worker = house.worker("w");
    house.says(&worker, 0, true, false);
    let _place = house.publisher("x");
    pass(60).await;
    let mut offers = 0;
    while let Ok(said) = worker.hears.try_recv() {
        offers += usize::from(matches!(said, ActivatorMessage::Offer(_)));
    }
    assert_eq!(offers, 0);
    assert_eq!(house.server.count("GET"), 0, "whoever has cordoned it takes it back; no pod is added");
}

/// Streams never wait for the API: a lobby gives places as ever while this room hangs.
#[tokio::test(start_paused = true)]
async fn stream_is_offered_at_once_while_the_api_hangs() {
    let house = house(Some(Duration::ZERO));
    house.server.objects().mood = Mood::Hanging;
    let _first = house.publisher("x");
    pass(6).await;
    assert_eq!(house.server.count("GET"), 1, "a call is under way");
    let start = now();
    let mut worker = house.worker("w");
    assert!(matches!(worker.hears.recv().await.unwrap(), ActivatorMessage::Offer(_)));
    assert_eq!(now(), start);
}
