//! Several workers, and workers that fail.

use liveedgecast_e2e::compare::assert_arrived_whole;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, Settings, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{until, until_some};

use crate::Relay;

#[test]
fn three_workers_serve_three_streams() {
    let sink = Sink::start();
    // Scenarios always set HTTP_LISTEN: the workers must not take the same port.
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("CAPACITY", "1").with("MAX_WORKERS", "3");
    let activator = settings.with("COOLDOWN", "1s").start();
    let names = ["one", "two", "three"];
    let taps = names.map(|_| Tap::before(activator.rtmp()));
    let publish = |index: usize| ffmpeg(Media::Both, &taps[index].url(&format!("live/{}", key(names[index]))));
    let mut publishers = [publish(0), publish(1), publish(2)];
    let of = |name: &str| sink.sessions().into_iter().find(|session| session.key == key(name));
    for name in names {
        until_some(format!("{name} at the upstream"), || of(name).filter(|it| it.recording.frames() > 50));
    }
    assert_eq!(activator.worker_processes().len(), 3);
    until("the streams of three workers in /metrics", || {
        let text = liveedgecast_e2e::http::get(activator.http(), "/metrics").unwrap_or_default();
        text.lines().any(|line| line == "liveedgecast_worker_streams 3")
    });
    publishers.iter_mut().for_each(|publisher| publisher.interrupt());
    for (tap, name) in taps.iter().zip(names) {
        let session = until_some(format!("the end of {name}"), || of(name).filter(|it| it.ended.is_some()));
        assert_arrived_whole(&tap.only().publisher.media, session.media());
    }
    activator.is_back_to_zero();
}

#[test]
fn a_stream_above_capacity_waits_until_a_worker_is_free() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("CAPACITY", "1").with("MAX_WORKERS", "1");
    let activator = settings.with("COOLDOWN", "1s").start();
    let mut first = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("first"))));
    sink.receives(20);
    let _second = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("second"))));
    until("the second publisher to wait", || activator.demand() == Some((1, 1, 2)));
    assert_eq!(activator.worker_processes().len(), 1);
    first.interrupt();
    until("the second stream at the upstream", || sink.last().is_some_and(|it| it.key == key("second")));
    sink.receives(20);
}

#[test]
fn a_worker_that_dies_at_start_is_restarted_with_back_off_and_logged() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_worker_script("#!/bin/sh\nexit 3\n");
    let activator = settings.start();
    let publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("held"))));
    let started = || activator.metric("liveedgecast_worker_processes_started_total", &[]).unwrap_or(0.0);
    until("a worker to be started", || started() >= 1.0);
    let first = liveedgecast_e2e::wait::now();
    until("a worker to be started three times", || started() >= 3.0);
    let spent = first.elapsed_since();
    assert!(spent.as_millis() > 100, "three starts in {spent:?} are a hot loop");
    until("the failed starts to be counted", || {
        activator.metric("liveedgecast_worker_processes_ended_total", &["reason=\"at_start\""]) >= Some(2.0)
    });
    assert!(
        activator.process.log().contains("WARN") || activator.process.log().contains("ERROR"),
        "no warning is logged"
    );
    assert_eq!(activator.demand(), Some((1, 0, 1)), "the publisher is still held");
    drop(publisher);
}

trait Since {
    fn elapsed_since(self) -> std::time::Duration;
}

impl Since for std::time::Instant {
    fn elapsed_since(self) -> std::time::Duration {
        liveedgecast_e2e::wait::now().saturating_duration_since(self)
    }
}

#[test]
fn a_worker_that_another_activator_goes_on_with_ends_after_its_last_stream() {
    let sink = Sink::start();
    let secret =
        |settings: Settings| settings.with("CONTROL_SECRET", "the same for both").with("HANDOFF", "descriptor");
    let mut first = secret(ActivatorProcess::pushing_to(&sink.url("live/{key}"))).start();
    let mut publisher = ffmpeg(Media::Both, &first.url(&format!("live/{}", key("adopted"))));
    sink.receives(20);
    let worker = first.worker_processes()[0];
    first.process.kill();
    let next = secret(first.beside(&sink.url("live/{key}"))).start();
    next.has_a_stream_that_is("live");
    publisher.interrupt();
    assert!(sink.ended().said_goodbye());
    until("the worker to go", || !liveedgecast_e2e::process::is_alive(worker));
    until("nothing but the activator", || next.workers().is_empty() && next.demand() == Some((0, 0, 0)));
}

#[test]
fn a_stream_outlives_its_activator_and_its_worker_ends_after_it() {
    let mut relay = Relay::by("descriptor");
    let mut publisher = relay.published(Media::Both, "orphan");
    relay.sink.receives(20);
    let worker = relay.activator.worker_processes()[0];
    relay.activator.process.kill();
    let arrived = relay.sink.only().recording.frames();
    relay.sink.receives(arrived + 100);
    publisher.interrupt();
    assert!(relay.sink.ended().said_goodbye());
    assert_arrived_whole(&relay.tap.only().publisher.media, relay.sink.only().media());
    until("the orphaned worker to go", || !liveedgecast_e2e::process::is_alive(worker));
}
