//! Operations: the processes' log, their limits, the signals that operators send.

use liveedgecast_common::event;
use liveedgecast_e2e::bench::BenchClock;
use liveedgecast_e2e::bench::publisher::PacedPublisher;
use liveedgecast_e2e::http;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::process::signal;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::RETURNS;

/// A log level at which a stream writes more lines than the queue holds.
const EVERYTHING: &str = "trace,h2=trace,hyper=trace,tokio_util=trace";

#[test]
fn streams_and_the_drain_do_not_block_on_an_unread_log() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("RUST_LOG", EVERYTHING);
    let mut activator = settings.with("DRAIN_TIMEOUT", "1s").with_unread_errors().start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("unread"))));
    sink.receives(100);
    let dropped = || activator.metric("liveedgecast_log_lines_dropped_total", &[]);
    until("lines to be dropped", || {
        // Every request logs a line at this level.
        assert!(http::get(activator.http(), "/healthz").is_some(), "/healthz is not answered");
        dropped().is_some_and(|dropped| dropped > 0.0)
    });
    let before = sink.last().expect("a session").recording.frames();
    sink.receives(before + 50);
    activator.process.signal(Signal::TERM);
    assert!(activator.process.wait(SOON).success(), "SIGTERM does not end it in order");
    publisher.wait(SOON);
}

#[test]
fn probes_are_answered_while_publishers_use_up_256_descriptors() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", "descriptor");
    let activator = settings.with_open_files(256).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let publishers = runtime.block_on(async {
        let (mut starting, clock) = (JoinSet::new(), BenchClock::new());
        for stream in 0..100 {
            starting.spawn(PacedPublisher::start(activator.rtmp(), "live", stream, clock));
        }
        starting.join_all().await
    });
    let started = publishers.iter().filter(|publisher| publisher.is_ok()).count();
    assert!(started >= 20, "{started} of them were started");
    assert!(http::get(activator.http(), "/healthz").is_some(), "/healthz is not answered");
    assert_eq!(activator.metric("liveedgecast_accept_exhausted_total", &[]), Some(0.0));
    assert!(
        activator.metric("liveedgecast_connections_turned_away_total", &["reason=\"connections_full\""]) > Some(0.0)
    );
}

#[test]
fn a_worker_that_an_operator_terminates_is_not_counted_as_crashed() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("moved"))));
    sink.receives(50);
    let first = activator.worker_processes();
    first.iter().for_each(|id| signal(*id, Signal::TERM));
    let ended =
        |how: &str| activator.metric("liveedgecast_worker_processes_ended_total", &[&format!("reason=\"{how}\"")]);
    until("the worker's end to be counted", || ended("terminated") == Some(1.0));
    assert_eq!(ended("crashed"), Some(0.0));
    sink.receives_in_session(2, 50);
    assert!(publisher.is_running() && tap.sessions().len() == 1, "the publisher was dropped");
}

#[test]
fn an_upstream_that_is_lost_and_returns_is_logged_once_per_change() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("RUST_LOG", "info").start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("away"))));
    sink.receives(50);
    sink.go_away();
    let failures = |class: &str| {
        let label = format!("reason=\"{class}\"");
        activator.metric("liveedgecast_upstream_failures_total", &[&label]).unwrap_or_default()
    };
    until("several attempts to fail", || failures("connection_refused") >= 3.0);
    sink.come_back();
    sink.receives_in_session(2, 50);
    until("its return to be logged", || activator.events(event::UPSTREAM_BACK).len() == 1);
    let refused =
        activator.events(event::UPSTREAM_AWAY).into_iter().filter(|line| line["fault"] == "connection_refused");
    let refused: Vec<Value> = refused.collect();
    assert_eq!(refused.len(), 1, "one line for many attempts: {refused:?}");
    let stream = activator.has_a_stream_that_is("live");
    assert_eq!(refused[0]["stream"], stream["id"]);
    assert!(refused[0]["upstream"].as_str().is_some_and(|shown| shown.ends_with("/live/…")), "{refused:?}");
    assert!(refused[0]["advice"].is_string(), "{refused:?}");
}

#[test]
fn an_upstream_is_logged_under_the_id_of_the_publisher_that_returned() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("RUST_LOG", "info");
    let activator = settings.with("GRACE", RETURNS).start();
    let url = activator.url(&format!("live/{}", key("returns")));
    let mut first = ffmpeg(Media::Both, &url);
    sink.receives(50);
    let before = activator.has_a_stream_that_is("live");
    first.kill();
    activator.has_a_stream_that_is("grace");
    let _second = ffmpeg(Media::Both, &url);
    let after = activator.has_a_stream_that_is("live");
    assert_ne!(before["id"], after["id"]);
    sink.go_away();
    until("its absence to be logged", || !activator.events(event::UPSTREAM_AWAY).is_empty());
    for line in activator.events(event::UPSTREAM_AWAY) {
        assert_eq!(line["stream"], after["id"], "{line}");
    }
}

#[test]
fn an_upstream_that_closes_after_each_start_is_logged_once() {
    let nginx = Nginx::denying();
    let activator = ActivatorProcess::pushing_to(&nginx.url("live/{key}")).with("RUST_LOG", "info").start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("rule"))));
    let label = r#"reason="never_lasted""#;
    let times = || activator.metric("liveedgecast_upstream_failures_total", &[label]).unwrap_or_default();
    until("the upstream to have closed after several starts", || times() >= 3.0);
    let failed = activator.events(event::UPSTREAM_FAILED);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["fault"], "never_lasted");
}

#[test]
fn a_failed_start_is_not_logged_as_a_cold_start() {
    let sink = Sink::start();
    sink.go_away();
    // A cold start is logged at debug.
    let settings =
        ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("RUST_LOG", "info,liveedgecast_activator=debug");
    let activator = settings.with("HOLD_TIMEOUT", "2s").start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("failed"))));
    until("the failed start to be logged", || !activator.events(event::START_FAILED).is_empty());
    assert!(activator.events(event::START_COLD).is_empty(), "it is logged as a cold start");
    assert!(activator.metric("liveedgecast_starts_failed_total", &[]) >= Some(1.0));
    // The reason is in the worker's own log.
    until("the reason to be logged", || {
        activator.events(event::STREAM_ENDED).iter().any(|line| line["reason"] == "hold time spent")
    });
}

#[test]
fn a_refused_publisher_is_logged_with_advice() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("RUST_LOG", "info");
    let activator = settings.with("PUBLISH_KEYS", &key("listed")).start();
    let mut wrong = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("wrong"))));
    assert!(!wrong.wait(SOON).success());
    until("the refusal to be logged", || !activator.events(event::PUBLISHER_REFUSED).is_empty());
    let refused = &activator.events(event::PUBLISHER_REFUSED)[0];
    assert!(refused["class"] == "key" && refused["app"] == "live" && refused["advice"].is_string(), "{refused}");
}

#[test]
fn publishers_above_the_rate_of_their_address_are_delayed_and_not_refused() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("PUBLISH_BURST", "1");
    let activator = settings.with("PUBLISH_RATE", "1").start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let publishers = runtime.block_on(async {
        let (mut starting, clock) = (JoinSet::new(), BenchClock::new());
        for stream in 0..6 {
            starting.spawn(PacedPublisher::start(activator.rtmp(), "live", stream, clock));
        }
        starting.join_all().await
    });
    assert!(publishers.iter().all(Result::is_ok), "{publishers:?}");
    until("all to be live", || activator.demand() == Some((0, 6, 6)));
    assert!(activator.metric("liveedgecast_publishers_delayed_total", &[]) >= Some(1.0));
    assert_eq!(activator.metric("liveedgecast_publishers_refused_total", &["reason=\"rate\""]), Some(0.0));
}
