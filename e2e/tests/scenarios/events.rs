//! Events: what programs are told of publishers, destinations, workers and configuration while it happens.

use liveedgecast_common::event;
use liveedgecast_e2e::process::kill;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::receiver::EventReceiver;
use liveedgecast_e2e::relay::{ActivatorProcess, KEY_MARK, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::subscriber::{SentEvent, Subscriber};
use liveedgecast_e2e::wait::{SOON, until};
use rustix::process::Signal;
use serde_json::Value;

use crate::{RETURNS, Relay};

by_descriptor_and_by_link! {
    a_stream_is_told_from_its_cold_start_to_its_end
    a_lost_worker_and_its_takeover_are_told
}

fn names(events: &[SentEvent]) -> Vec<&str> {
    events.iter().map(|sent| sent.event.as_str()).collect()
}

fn a_stream_is_told_from_its_cold_start_to_its_end(handoff: &str) {
    let mut relay = Relay::by(handoff);
    let mut subscriber = Subscriber::of(relay.activator.http());
    let mut publisher = relay.published(Media::Both, "told");
    relay.sink.receives(50);
    let live = subscriber.hears(event::STREAM_LIVE);
    let stream = relay.activator.has_a_stream_that_is("live");
    let data = |sent: &SentEvent, field: &str| sent.document["data"][field].clone();
    assert_eq!((data(&live, "stream"), data(&live, "app")), (stream["id"].clone(), "live".into()));
    assert_eq!((data(&live, "worker"), data(&live, "cold")), (stream["worker"].clone(), true.into()));
    let cold = subscriber.hears(event::START_COLD);
    assert!(data(&cold, "whole_seconds").as_f64() > Some(0.0), "{cold:?}");
    let up = subscriber.hears(event::UPSTREAM_LIVE);
    assert_eq!(data(&up, "host"), relay.sink.address().to_string());
    assert_eq!(data(&up, "destination"), relay.sink.address().ip().to_string());

    relay.sink.go_away();
    let lost = subscriber.hears(event::UPSTREAM_LOST);
    assert!(data(&lost, "class").is_string() && data(&lost, "live_seconds").as_f64() > Some(0.0), "{lost:?}");
    relay.sink.come_back();
    let back = subscriber.hears(event::UPSTREAM_BACK);
    assert!(data(&back, "away_seconds").as_f64() > Some(0.0) && data(&back, "lost").is_u64(), "{back:?}");
    publisher.interrupt();
    let ended = subscriber.hears(event::STREAM_ENDED);
    assert!(data(&ended, "messages").as_u64() > Some(50), "{ended:?}");
    assert!(data(&ended, "bytes").as_u64() > Some(5000), "{ended:?}");

    let events = subscriber.events();
    let once =
        [event::STREAM_LIVE, event::UPSTREAM_LIVE, event::UPSTREAM_LOST, event::UPSTREAM_BACK, event::STREAM_ENDED];
    for name in once {
        assert_eq!(names(&events).iter().filter(|told| **told == name).count(), 1, "{name}: {events:#?}");
    }
    for sent in &events {
        assert_eq!(
            (&sent.document["id"], &sent.document["type"]),
            (&sent.id.clone().into(), &sent.event.clone().into())
        );
    }
    assert!(!subscriber.text().contains(KEY_MARK) && !subscriber.text().contains("rtmp://"), "{}", subscriber.text());

    // Behind the loss are the events that followed it, and they are the same.
    let resumed = Subscriber::behind(relay.activator.http(), &lost.id);
    until("the events that followed", || resumed.events().last() == events.last());
    let at = events.iter().position(|sent| *sent == lost).expect("the loss");
    assert_eq!(resumed.events(), events[at + 1..]);
    relay.activator.process.signal(Signal::TERM);
    assert!(subscriber.ends(), "the answer does not end in order");
}

fn a_lost_worker_and_its_takeover_are_told(handoff: &str) {
    let relay = Relay::by(handoff);
    let subscriber = Subscriber::of(relay.activator.http());
    let _publisher = relay.published(Media::Both, "taken");
    relay.sink.receives(50);
    subscriber.hears(event::UPSTREAM_LIVE);
    kill(relay.activator.worker_processes()[0]);
    relay.sink.receives_in_session(2, 50);
    let failed = subscriber.hears(event::PROCESS_FAILED);
    let taken = subscriber.hears(event::STREAM_TAKEN_OVER);
    assert_eq!(taken.document["data"]["from"], failed.document["data"]["worker"]);
    let lost = subscriber.hears(event::UPSTREAM_LOST);
    assert_eq!(lost.document["data"]["class"], "taken_over");
    subscriber.hears(event::UPSTREAM_BACK);
    assert_eq!(subscriber.named(event::STREAM_LIVE).len(), 1);
    if handoff == "descriptor" {
        let worker = subscriber.hears(event::WORKER_LOST);
        assert_eq!(
            (&worker.document["data"]["streams"], &worker.document["data"]["worker"]),
            (&1.into(), &taken.document["data"]["from"])
        );
    }
}

#[test]
fn a_publisher_that_returns_and_one_that_is_refused_are_told() {
    let sink = Sink::start();
    let keys = key("returns");
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("PUBLISH_KEYS", &keys);
    let activator = settings.with("GRACE", RETURNS).start();
    let subscriber = Subscriber::of(activator.http());
    let mut first = ffmpeg(Media::Both, &activator.url(&format!("live/{keys}")));
    sink.receives(50);
    first.kill();
    let lost = subscriber.hears(event::PUBLISHER_LOST);
    let mut second = ffmpeg(Media::Both, &activator.url(&format!("live/{keys}")));
    let back = subscriber.hears(event::PUBLISHER_BACK);
    assert_eq!(back.document["data"]["was"], lost.document["data"]["stream"]);
    assert_ne!(back.document["data"]["stream"], lost.document["data"]["stream"]);
    let mut stranger = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("wrong"))));
    let refused = subscriber.hears(event::PUBLISHER_REFUSED);
    assert_eq!((&refused.document["data"]["class"], &refused.document["data"]["app"]), (&"key".into(), &"live".into()));
    stranger.kill();
    second.interrupt();
    let ended = subscriber.hears(event::STREAM_ENDED);
    assert_eq!(ended.document["data"]["stream"], back.document["data"]["stream"], "{:#?}", subscriber.events());
}

#[test]
fn an_id_of_another_process_is_answered_with_a_gap_and_everything_that_is_kept() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let subscriber = Subscriber::of(activator.http());
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("kept"))));
    subscriber.hears(event::UPSTREAM_LIVE);
    let resumed = Subscriber::behind(activator.http(), "0000000000000001-7");
    until("what is kept", || resumed.events().len() > subscriber.events().len());
    let events = resumed.events();
    assert_eq!(
        (events[0].event.as_str(), &events[0].document["data"]["missed"]),
        (event::EVENTS_MISSED, &serde_json::Value::Null)
    );
    assert_eq!(events[1..], subscriber.events()[..events.len() - 1]);
}

#[test]
fn a_file_that_was_read_again_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    std::fs::write(&keys, key("listed")).expect("the file");
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}"));
    let activator = settings.with("PUBLISH_KEYS_FILE", &keys.display().to_string()).start();
    let subscriber = Subscriber::of(activator.http());
    std::fs::write(&keys, format!("{} {}", key("listed"), key("added"))).expect("the file");
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("added"))));
    let reloaded = subscriber.hears(event::FILE_RELOADED);
    assert_eq!(reloaded.document["data"]["setting"], "PUBLISH_KEYS_FILE");
    std::fs::remove_file(&keys).expect("the file");
    let _other = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("listed"))));
    let rejected = subscriber.hears(event::FILE_REJECTED);
    assert!(rejected.document["data"]["reason"].is_string(), "{rejected:?}");
}

#[test]
fn two_activators_together_tell_a_stream_once() {
    let sink = Sink::start();
    let settings = || ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
    let settings = [settings(), settings()].map(|settings| settings.with("GRACE", RETURNS));
    let all = settings.iter().map(|settings| settings.control().to_string()).collect::<Vec<_>>().join(" ");
    let [first, second] = settings.map(|settings| settings.with("ACTIVATOR_PEERS", &all).start());
    for activator in [&first, &second] {
        let heard = || activator.metric("liveedgecast_peers", &["state=\"synced\""]) == Some(1.0);
        until("activators to hear each other", heard);
    }
    let subscribers = [&first, &second].map(|activator| Subscriber::of(activator.http()));
    let _worker = WorkerProcess::of(&first);
    until("the worker to be known to both", || first.workers().len() == 1 && second.workers().len() == 1);
    let mut publisher = ffmpeg(Media::Both, &first.url(&format!("live/{}", key("once"))));
    sink.receives(50);
    subscribers[0].hears(event::STREAM_LIVE);
    // It returns to the other activator.
    publisher.kill();
    subscribers[0].hears(event::PUBLISHER_LOST);
    let mut publisher = ffmpeg(Media::Both, &second.url(&format!("live/{}", key("once"))));
    subscribers[1].hears(event::PUBLISHER_BACK);
    publisher.interrupt();
    subscribers[1].hears(event::STREAM_ENDED);
    let told: Vec<SentEvent> = subscribers.iter().flat_map(Subscriber::events).collect();
    for name in [event::STREAM_LIVE, event::PUBLISHER_LOST, event::PUBLISHER_BACK, event::STREAM_ENDED] {
        assert_eq!(names(&told).iter().filter(|event| **event == name).count(), 1, "{name}: {told:#?}");
    }
}

#[test]
fn every_event_is_posted_signed_and_in_order() {
    let receiver = EventReceiver::start();
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}"));
    let activator = settings.delivering_to(&receiver).start();
    let subscriber = Subscriber::of(activator.http());
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("posted"))));
    sink.receives(50);
    publisher.interrupt();
    receiver.takes(event::STREAM_ENDED);
    let told: Vec<Value> = subscriber.events().into_iter().map(|sent| sent.document).collect();
    assert_eq!(receiver.taken(), told, "the same documents as by the API");
    assert_eq!((receiver.wrong(), receiver.connections()), (vec![], 1));
    until("the queue to be empty", || activator.metric("liveedgecast_events_waiting", &[]) == Some(0.0));
}

#[test]
fn a_receiver_that_was_away_gets_everything_that_happened_meanwhile() {
    let receiver = EventReceiver::start();
    receiver.answer_with(503);
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}"));
    let activator = settings.delivering_to(&receiver).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("away"))));
    sink.receives(50);
    publisher.interrupt();
    sink.ended();
    until("several attempts", || receiver.requests() >= 2);
    assert!(activator.metric("liveedgecast_event_deliveries_total", &["result=\"failed\""]) >= Some(2.0));
    receiver.answer_with(200);
    receiver.takes(event::STREAM_LIVE);
    receiver.takes(event::STREAM_ENDED);
    assert_eq!(activator.metric("liveedgecast_events_dropped_total", &[]), Some(0.0));
    let lines = |event| activator.events(event).len();
    assert_eq!(
        (lines(event::EVENTS_UNDELIVERED), lines(event::EVENTS_DELIVERED_AGAIN)),
        (1, 1),
        "one line for each turn"
    );
}

#[test]
fn a_receiver_that_is_gone_is_asked_no_more() {
    let receiver = EventReceiver::start();
    receiver.answer_with(410);
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}"));
    let activator = settings.delivering_to(&receiver).start();
    let subscriber = Subscriber::of(activator.http());
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("gone"))));
    subscriber.hears(event::UPSTREAM_LIVE);
    until("the receiver's word", || activator.events(event::EVENTS_UNWANTED).len() == 1);
    assert_eq!(receiver.requests(), 1);
    assert!(activator.metric("liveedgecast_events_dropped_total", &["reason=\"gone\""]) >= Some(1.0));
}

#[test]
fn an_activator_that_ends_delivers_its_last_events() {
    let receiver = EventReceiver::start();
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("DRAIN_TIMEOUT", "0s");
    let mut activator = settings.delivering_to(&receiver).start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("ends"))));
    receiver.takes(event::UPSTREAM_LIVE);
    activator.process.signal(Signal::TERM);
    assert!(activator.process.wait(SOON).success());
    let taken = receiver.taken();
    assert!(taken.iter().any(|told| told["type"] == event::STREAM_ENDED), "{taken:#?}");
}
