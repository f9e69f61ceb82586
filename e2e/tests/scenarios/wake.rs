//! A whole cycle: from no worker to a stream, and back.

use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_decodes_with};
use liveedgecast_e2e::process::cpu_time;
use liveedgecast_e2e::publish::{Media, newer_ffmpeg};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::wait::{now, until};

use crate::Relay;

by_descriptor_and_by_link! {
    first_publisher_wakes_a_worker_from_zero
    phases_of_a_cold_start_add_up_to_the_whole
    audio_alone_reaches_the_upstream
    video_alone_reaches_the_upstream
    hevc_reaches_the_upstream
    av1_reaches_the_upstream
    a_second_stream_finds_a_warm_worker
}

fn first_publisher_wakes_a_worker_from_zero(handoff: &str) {
    let relay = Relay::by(handoff);
    assert!(relay.activator.processes().is_empty(), "while idle, no process but the activator exists");
    assert_eq!(relay.activator.demand(), Some((0, 0, 0)));

    let mut publisher = relay.published(Media::Both, "first");
    relay.sink.receives(100);
    assert_eq!(relay.activator.worker_processes().len(), 1);
    let stream = relay.activator.has_a_stream_that_is("live");
    assert_eq!(stream["app"], "live");
    assert!(!stream.to_string().contains(&key("first")), "a stream key is shown: {stream}");
    assert_eq!(relay.activator.demand(), Some((0, 1, 1)));
    let workers = relay.activator.workers();
    assert_eq!((&workers[0]["state"], &workers[0]["streams"]), (&"ready".into(), &1.into()), "{workers:?}");

    publisher.interrupt();
    let session = relay.sink.ended();
    assert!(session.said_goodbye(), "a clean end is passed on");
    assert_eq!((session.app.as_str(), &session.key), ("live", &key("first")));
    assert_arrived_whole(&relay.tap.only().publisher.media, relay.sink.only().media());
    assert_decodes(relay.sink.only().media());
    relay.activator.is_back_to_zero();
}

fn passes(handoff: &str, media: Media) -> Relay {
    let relay = Relay::by(handoff);
    let mut publisher = relay.published(media, "codec");
    relay.sink.receives(100);
    publisher.interrupt();
    relay.sink.ended();
    assert_arrived_whole(&relay.tap.only().publisher.media, relay.sink.only().media());
    relay
}

fn audio_alone_reaches_the_upstream(handoff: &str) {
    let relay = passes(handoff, Media::AudioOnly);
    assert!(relay.sink.only().media().iter().all(|message| message.type_id != 9));
    assert_decodes(relay.sink.only().media());
}

fn video_alone_reaches_the_upstream(handoff: &str) {
    let relay = passes(handoff, Media::VideoOnly);
    assert!(relay.sink.only().media().iter().all(|message| message.type_id != 8));
    assert_decodes(relay.sink.only().media());
}

fn hevc_reaches_the_upstream(handoff: &str) {
    let relay = passes(handoff, Media::Hevc);
    assert!(relay.sink.only().recording.keyframes() > 0);
    assert_decodes_with(newer_ffmpeg(), relay.sink.only().media());
}

fn av1_reaches_the_upstream(handoff: &str) {
    let relay = passes(handoff, Media::Av1);
    assert!(relay.sink.only().recording.keyframes() > 0);
    assert_decodes_with(newer_ffmpeg(), relay.sink.only().media());
}

fn a_second_stream_finds_a_warm_worker(handoff: &str) {
    let relay = Relay::by(handoff);
    let _first = relay.published(Media::Both, "first");
    relay.sink.receives(50);
    let _second = relay.published(Media::Both, "second");
    until("both streams at the upstream", || {
        relay.sink.sessions().iter().filter(|it| it.started.is_some()).count() == 2
    });
    let tap = relay.tap.started();
    let connect = tap.publisher.command_at("connect").expect("connect");
    let started = tap.server.started_at().expect("Publish.Start");
    // The duration depends on the machine, so it is printed and not asserted.
    println!(
        "{handoff}: connect to Publish.Start on a warm worker: {:?}; held: {:?}",
        started.saturating_duration_since(connect),
        tap.held()
    );
    assert_eq!(relay.activator.worker_processes().len(), 1);
}

#[test]
fn the_worker_holds_the_socket_and_the_activator_is_idle_by_descriptor() {
    let relay = Relay::by("descriptor");
    let _publisher = relay.published(Media::Both, "first");
    relay.sink.receives(50);
    let worker = relay.activator.worker_processes()[0];

    let listed = std::process::Command::new("ss").args(["-tnpH", "state", "established"]).output().expect("ss runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let port = relay.activator.rtmp().to_string();
    let line = listed.lines().find(|line| line.split_whitespace().nth(2) == Some(&port));
    let line = line.unwrap_or_else(|| panic!("no connection at {port}:\n{listed}"));
    assert!(line.contains(&format!("pid={worker},")), "the worker does not hold the publisher's socket: {line}");

    let (before, theirs) = (relay.activator.cpu_time(), cpu_time(worker));
    let began = now();
    let messages = relay.sink.only().recording.frames();
    relay.sink.receives(messages + 400);
    let (activator, worker) = (relay.activator.cpu_time() - before, cpu_time(worker) - theirs);
    let elapsed = now().saturating_duration_since(began);
    println!("over 400 messages, {elapsed:?}: activator {activator:?}, worker {worker:?}");
    // The activator does nothing per message. Its CPU time is for the worker's reports, several a second for any stream.
    assert!(activator < elapsed / 200, "the activator used {activator:?} of {elapsed:?}");
}

/// The phases of a cold start by the process fleet, in their order.
const PHASES: [&str; 6] = ["pushed", "process_started", "registered", "handed_over", "live", "media"];

fn phases_of_a_cold_start_add_up_to_the_whole(handoff: &str) {
    let relay = Relay::by(handoff);
    let _publisher = relay.published(Media::Both, "first");
    let metric = |what: &str, phase: &str| {
        let name = format!("liveedgecast_cold_start_seconds_{what}");
        relay.activator.metric(&name, &[&format!("phase=\"{phase}\"")]).expect("a phase")
    };
    until("the first media to be told", || metric("count", "media") > 0.0);
    for phase in PHASES {
        assert!((metric("count", phase) - 1.0).abs() < 0.5, "{phase}: {}", metric("count", phase));
    }
    let sum: f64 = PHASES.iter().map(|phase| metric("sum", phase)).sum();
    let start = relay.activator.metric("liveedgecast_publish_start_seconds_sum", &["kind=\"cold\""]).expect("a start");
    let media = metric("sum", "media");
    assert!((sum - media - start).abs() < 1e-5, "{sum} without {media} of media is not {start}");
    // The worker's time counts from the moment at which the activator heard of its acceptance, so the sum may end a little behind the sink's first media.
    let asked = relay.tap.only().publisher.command_at("publish").expect("publish");
    let seen = relay.sink.only().media()[0].at.saturating_duration_since(asked).as_secs_f64();
    let passed = now().saturating_duration_since(asked).as_secs_f64();
    assert!(sum <= passed && sum > 0.0, "phases of {sum} s, {passed} s after publish");
    let cold = &relay.activator.events("start.cold")[0];
    println!("{handoff}: publish to the first media at the upstream {seen:.4} s: {cold}");
    // The process fleet orders its worker at once, and nothing else comes before the process.
    assert!(metric("sum", "pushed") < metric("sum", "process_started") + metric("sum", "registered"), "{cold}");
}
