//! The handles of the lobby, with one hub behind them.

use std::time::Duration;

use liveedgecast_common::clock;
use liveedgecast_common::control::{Availability, DeclineReason, Declined, Load, WorkerMessage};
use liveedgecast_common::key::{AppName, Identity, StreamId};

use super::*;
use crate::config::Handoff;
use crate::destinations::StreamDestinations;
use crate::dispatch::{Demand, Entry, Introduction, PlaceRefusal, WorkerState};
use crate::events::Events;
use crate::lobby::Lobby;

fn lobby(processes: Option<processes::Rules>) -> Lobby {
    let rules = Rules::default();
    Lobby::new(rules, processes, LobbyMetrics::unregistered(), Events::default())
}

fn process_rules() -> processes::Rules {
    let cooldown = Duration::from_secs(30);
    processes::Rules {
        prefix: "worker".to_owned(),
        most: 1,
        capacity: 2,
        cooldown,
        drain: Duration::from_secs(8),
        seed: 1,
    }
}

fn entry(id: &str, identity: u8) -> Entry {
    Entry {
        stream_id: StreamId(id.to_owned()),
        identities: vec![Identity([identity; 16])],
        app: AppName::parse("live").unwrap(),
        publisher: None,
        shown_key: None,
        connected: None,
        client: "10.0.0.1:1".parse().unwrap(),
        deadline: clock::now() + Duration::from_secs(60),
        hold: Duration::from_secs(600),
        handoff: Handoff::Auto,
        movable: true,
        destinations: StreamDestinations::default(),
    }
}

fn introduction(name: &str) -> Introduction {
    let name = name.to_owned();
    Introduction {
        name,
        capacity: 2,
        availability: Availability::Open,
        same_host: true,
        sessions: vec![],
        takes_lists: true,
        key: None,
        age: None,
        excerpts: true,
    }
}

fn running(lobby: &Lobby) -> tokio::task::JoinHandle<()> {
    tokio::spawn(lobby.keep_time())
}

#[tokio::test]
async fn an_offer_reaches_both_sides_with_one_token() {
    let lobby = lobby(None);
    let mut place = lobby.places.enter(entry("a", 1));
    let (outbox, mut inbox) = mpsc::channel(MAX_UNREAD);
    lobby.workers.join(introduction("w"), outbox).unwrap();
    let PlaceEvent::Offered { epoch, token, worker, descriptor } = place.event().await else { panic!() };
    assert_eq!((worker.as_str(), descriptor), ("w", true));
    let Some(ActivatorMessage::Offer(offer)) = inbox.recv().await else { panic!() };
    assert_eq!((offer.stream_id.as_str(), offer.epoch, offer.token), ("a", epoch, token.presented));
    assert_eq!(offer.challenge, Some(token.challenge));
    place.taken(epoch);
    place.started();
    assert_eq!(lobby.views.demand(), Demand { waiting: 0, live: 1, demand: 1 });
    lobby.views.measure();
    assert_eq!(lobby.views.0.metrics.streams.with_label_values(&["live"]).get(), 1);
    drop(place);
    assert_eq!(lobby.views.demand().demand, 0);
    assert!(lobby.views.0.lock().mail.is_empty());
    lobby.drain.emptied().await;
}

#[tokio::test]
async fn an_offer_that_was_never_read_and_its_end_cancel_each_other_out() {
    let lobby = lobby(None);
    let mut place = lobby.places.enter(entry("a", 1));
    let (outbox, _inbox) = mpsc::channel(MAX_UNREAD);
    let first = lobby.workers.join(introduction("w"), outbox).unwrap();
    lobby.workers.lost(first);
    let (outbox, mut inbox) = mpsc::channel(MAX_UNREAD);
    let second = lobby.workers.join(introduction("w"), outbox).unwrap();
    let PlaceEvent::Offered { epoch, .. } = place.event().await else { panic!() };
    assert!(inbox.recv().await.is_some());
    // The end of an offer that was read is reported.
    let reason = DeclineReason::Full;
    lobby.workers.said(second, WorkerMessage::Declined(Declined { stream_id: "a".into(), epoch, reason }));
    assert_eq!(place.event().await, PlaceEvent::Withdrawn { epoch });
}

#[tokio::test]
async fn worker_that_does_not_read_its_messages_is_given_up() {
    let lobby = lobby(None);
    let (outbox, _inbox) = mpsc::channel(1);
    let call = lobby.workers.join(introduction("w"), outbox).unwrap();
    let places = [lobby.places.enter(entry("a", 1)), lobby.places.enter(entry("b", 2))];
    assert!(lobby.views.workers().is_empty());
    assert_eq!(lobby.views.demand().waiting, places.len());
    lobby.workers.said(call, WorkerMessage::Load(Load::default()));
    let (outbox, _inbox) = mpsc::channel(MAX_UNREAD);
    assert!(lobby.workers.join(introduction("w"), outbox.clone()).is_some(), "and its name is free again");
    assert!(lobby.workers.join(introduction("w"), outbox).is_none(), "once");
}

#[tokio::test(start_paused = true)]
async fn held_publisher_is_refused_when_its_hold_is_spent() {
    let lobby = lobby(None);
    let running = running(&lobby);
    let mut place = lobby.places.enter(entry("a", 1));
    let begun = tokio::time::Instant::now();
    assert_eq!(place.event().await, PlaceEvent::Refused(PlaceRefusal::HoldSpent));
    assert!(begun.elapsed() >= Duration::from_secs(60) && begun.elapsed() < Duration::from_secs(61));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_process_is_ordered_at_once_and_stopped_after_its_cool_down() {
    let lobby = lobby(Some(process_rules()));
    let running = running(&lobby);
    let mut place = lobby.places.enter(entry("a", 1));
    assert_eq!(lobby.processes.order().await, Order::Spawn("worker-1".into()));
    lobby.processes.process(processes::Input::Spawned("worker-1".into()));
    assert_eq!(lobby.views.workers()[0].state, WorkerState::Starting);
    tokio::time::advance(Duration::from_millis(30)).await;
    let (outbox, _inbox) = mpsc::channel(MAX_UNREAD);
    lobby.workers.join(introduction("worker-1"), outbox).unwrap();
    let PlaceEvent::Offered { epoch, .. } = place.event().await else { panic!() };
    place.taken(epoch);
    place.started();
    assert_eq!(lobby.views.0.metrics.start.with_label_values(&["cold"]).get_sample_count(), 1);
    drop(place);
    assert_eq!(lobby.processes.order().await, Order::Stop("worker-1".into()));
    assert_eq!(lobby.views.workers()[0].state, WorkerState::Draining);
    let end = processes::ProcessEnd { status: "exit status: 0".into(), in_order: true, last_words: vec![] };
    lobby.processes.process(processes::Input::Ended("worker-1".into(), end));
    lobby.drain.without_processes().await;
    assert_eq!(lobby.views.0.lock().armed, None, "idle wakes for nothing");
    running.abort();
}

#[tokio::test]
async fn a_kick_and_a_close_reach_the_publisher() {
    let lobby = lobby(None);
    let mut place = lobby.places.enter(entry("a", 1));
    assert!(lobby.views.kick("a", "enough") && !lobby.views.kick("b", "enough"));
    assert_eq!(place.event().await, PlaceEvent::Kicked("enough".into()));
    lobby.drain.close();
    assert_eq!(place.event().await, PlaceEvent::Refused(PlaceRefusal::Draining));
    lobby.drain.emptied().await;
}
