//! What happens around the processes: their log, their limits, the people who run them.

use liveedgecast_e2e::bench::Clock;
use liveedgecast_e2e::bench::publisher::Publisher;
use liveedgecast_e2e::http;
use liveedgecast_e2e::process::signal;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{Activator, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until};
use rustix::process::Signal;
use tokio::task::JoinSet;

/// A level at which a stream writes more lines than the queue holds.
const EVERYTHING: &str = "trace,h2=trace,hyper=trace,tokio_util=trace";

#[test]
fn streams_and_the_end_do_not_wait_for_a_reader_of_the_log() {
    let sink = Sink::start();
    let settings = Activator::pushing_to(&sink.url("live/{key}")).with("RUST_LOG", EVERYTHING);
    let mut activator = settings.with("DRAIN_TIMEOUT", "1s").with_unread_errors().start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("unread"))));
    sink.receives(100);
    let dropped = || activator.metric("liveedgecast_activator_log_lines_dropped_total", &[]);
    until("lines to be dropped", || {
        // Every request logs something at this level.
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
fn a_hundred_publishers_leave_descriptors_for_probes_where_there_are_256() {
    let sink = Sink::start();
    let settings = Activator::pushing_to(&sink.url("live/{key}")).with("HANDOFF", "descriptor");
    let activator = settings.with_open_files(256).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let publishers = runtime.block_on(async {
        let (mut starting, clock) = (JoinSet::new(), Clock::new());
        for stream in 0..100 {
            starting.spawn(Publisher::start(activator.rtmp(), "live", stream, clock));
        }
        starting.join_all().await
    });
    let started = publishers.iter().filter(|publisher| publisher.is_ok()).count();
    assert!(started >= 20, "{started} of them were started");
    assert!(http::get(activator.http(), "/healthz").is_some(), "/healthz is not answered");
    assert_eq!(activator.metric("liveedgecast_accept_exhausted_total", &[]), Some(0.0));
    assert!(activator.metric("liveedgecast_connections_turned_away_total", &["why=\"connections_full\""]) > Some(0.0));
}

#[test]
fn a_worker_that_an_operator_terminates_has_not_crashed() {
    let sink = Sink::start();
    let activator = Activator::pushing_to(&sink.url("live/{key}")).start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("moved"))));
    sink.receives(50);
    let first = activator.worker_processes();
    first.iter().for_each(|id| signal(*id, Signal::TERM));
    let ended = |how: &str| activator.metric("liveedgecast_worker_processes_ended_total", &[&format!("how=\"{how}\"")]);
    until("the worker's end to be counted", || ended("terminated") == Some(1.0));
    assert_eq!(ended("crashed"), Some(0.0));
    sink.receives_in_session(2, 50);
    assert!(publisher.is_running() && tap.sessions().len() == 1, "the publisher was dropped");
}
