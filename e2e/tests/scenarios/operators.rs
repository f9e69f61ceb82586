//! What happens around the processes: their log, their limits, the people who run them.

use liveedgecast_e2e::http;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{Activator, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{SOON, until};
use rustix::process::Signal;

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
