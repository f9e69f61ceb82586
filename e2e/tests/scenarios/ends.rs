//! Ends of publishers, second publishers of the same stream, and ends of activators and workers.

use std::time::Duration;

use liveedgecast_common::event;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_resumed, assert_time_goes_forward};
use liveedgecast_e2e::process::signal;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::record::Message;
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, now, stays_true_for, until, until_some};
use rustix::process::Signal;

use crate::{RETURNS, Relay};

by_descriptor_and_by_link! {
    a_publisher_that_returns_within_the_grace_time_continues_its_session
    a_publisher_that_does_not_return_ends_its_session
    a_stream_whose_destination_lingers_is_ending_and_not_live
    a_second_publisher_of_a_live_stream_is_refused
    a_second_publisher_takes_over_from_a_silent_one
    a_worker_that_drains_hands_its_stream_to_another
    an_activator_that_drains_waits_for_its_streams
}

fn a_stream_whose_destination_lingers_is_ending_and_not_live(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut publisher = relay.published(Media::Both, "lingers");
    relay.sink.receives(50);
    // It takes the goodbye, and does not close.
    relay.sink.stall();
    publisher.interrupt();
    relay.activator.has_a_stream_that_is("ending");
    relay.sink.go_on();
    relay.activator.is_back_to_zero();
}

fn a_publisher_that_returns_within_the_grace_time_continues_its_session(handoff: &str) {
    let relay = Relay::with_grace(handoff, RETURNS);
    let mut publisher = relay.published(Media::Both, "returns");
    relay.sink.receives(100);
    publisher.kill();
    until("its first connection to end", || relay.tap.last().is_some_and(|it| it.left.is_some()));
    let first = relay.tap.only().publisher.media;
    relay.activator.has_a_stream_that_is("grace");
    assert!(relay.sink.only().ended.is_none(), "the session at the upstream is kept");

    let mut publisher = relay.published(Media::Both, "returns");
    until("its second connection to start", || relay.tap.sessions().len() == 2 && relay.tap.started().left.is_none());
    let arrived = relay.sink.only().recording.frames();
    relay.sink.receives(arrived + 100);
    publisher.interrupt();
    let session = relay.sink.ended();
    assert_eq!(relay.sink.sessions().len(), 1, "one session at the upstream");
    assert!(session.said_goodbye());
    assert_time_goes_forward(session.media());
    assert_decodes(session.media());
    let second = relay.tap.sessions()[1].publisher.media.clone();
    assert_eq!(assert_continued(&first, &second, session.media()), first.len(), "all messages of the first connection");
    relay.activator.is_back_to_zero();
}

/// Asserts that the messages of a first connection arrived whole, and behind them those of a second one, whole, with an offset of their
/// own. Returns the number of the first connection's messages: the last ones may be missing, if they were in flight.
#[track_caller]
pub(crate) fn assert_continued(first: &[Message], second: &[Message], session: &[Message]) -> usize {
    let number = session.len().checked_sub(second.len()).expect("all messages of the second connection");
    let (before, after) = session.split_at(number);
    assert_arrived_whole(&first[..number.min(first.len())], before);
    assert_eq!(payloads(second), payloads(after));
    let without_headers =
        |media: &[Message]| -> Vec<Message> { media.iter().filter(|message| !message.is_header()).cloned().collect() };
    assert_arrived_whole(&without_headers(second), &without_headers(after));
    number
}

fn payloads(media: &[Message]) -> Vec<&[u8]> {
    media.iter().map(|message| &message.payload[..]).collect()
}

fn a_publisher_that_does_not_return_ends_its_session(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff).with("GRACE", "1s");
    let activator = settings.with("COOLDOWN", "1s").start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("lost"))));
    sink.receives(50);
    publisher.kill();
    assert!(sink.ended().said_goodbye());
    activator.is_back_to_zero();
}

fn a_second_publisher_of_a_live_stream_is_refused(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut publisher = relay.published(Media::Both, "same");
    relay.sink.receives(50);
    let mut second = ffmpeg(Media::Both, &relay.activator.url(&format!("live/{}?other=query", key("same"))));
    assert!(!second.wait(SOON).success(), "a second publisher is taken");
    let arrived = relay.sink.only().recording.frames();
    relay.sink.receives(arrived + 50);
    publisher.interrupt();
    relay.sink.ended();
    assert_arrived_whole(&relay.tap.only().publisher.media, relay.sink.only().media());
}

fn a_second_publisher_takes_over_from_a_silent_one(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut silent = relay.published(Media::Both, "stale");
    relay.sink.receives(50);
    silent.signal(Signal::STOP);
    // The activator refuses the second publisher while the old one has been silent for less than 5 s: encoders try again.
    let mut second = relay.published(Media::Both, "stale");
    until("a second publisher to be taken", || {
        if !second.is_running() {
            second = relay.published(Media::Both, "stale");
        }
        relay
            .tap
            .last()
            .is_some_and(|it| it.connected > relay.tap.sessions()[0].connected && it.server.started_at().is_some())
    });
    let arrived = relay.sink.only().recording.frames();
    relay.sink.receives(arrived + 100);
    assert_eq!(relay.sink.sessions().len(), 1, "one session at the upstream");
    assert_eq!(relay.activator.events(event::PUBLISHER_REPLACED).len(), 1, "one line for the turn");
    until("the silent publisher to be closed", || relay.tap.sessions()[0].closed.is_some());
    silent.signal(Signal::CONT);
    silent.wait(SOON);
    second.interrupt();
    assert_time_goes_forward(relay.sink.ended().media());
    assert_decodes(relay.sink.only().media());
}

fn a_worker_that_drains_hands_its_stream_to_another(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
    let activator = settings.with("HANDOFF", handoff).start();
    let tap = Tap::before(activator.rtmp());
    let mut first = WorkerProcess::of(&activator);
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("moves"))));
    sink.receives(100);
    let _second = WorkerProcess::of(&activator);
    until("the second worker to register", || activator.workers().len() == 2);
    let status = first.process.terminate();
    assert!(status.success(), "the worker left with {status}");
    sink.receives_in_session(2, 100);
    let said = tap.only();
    assert!(said.left.is_none() && said.closed.is_none(), "the publisher noticed");
    publisher.interrupt();
    let last = until_some("the end", || sink.sessions().into_iter().nth(1).filter(|it| it.ended.is_some()));
    let published = tap.only().publisher.media;
    let place = assert_resumed(&published, last.media());
    assert_decodes(last.media());
    let before = sink.sessions()[0].media().len();
    assert!(place.first <= before, "messages {before}..{} are lost", place.first);
}

fn an_activator_that_drains_waits_for_its_streams(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff);
    let mut activator = settings.with("DRAIN_TIMEOUT", "60s").start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("last"))));
    sink.receives(50);
    signal(activator.id(), Signal::TERM);
    until("the activator to be unready", || {
        liveedgecast_e2e::http::request(activator.http(), "GET", "/readyz").is_ok_and(|answer| answer.status == 503)
    });
    until("the RTMP port to be closed", || std::net::TcpStream::connect(activator.rtmp()).is_err());
    let arrived = sink.only().recording.frames();
    sink.receives(arrived + 50);
    assert!(activator.process.is_running());
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, sink.ended().media());
    let status = activator.process.wait(SOON);
    assert!(status.success(), "the activator left with {status}");
}

#[test]
fn a_second_signal_shortens_the_drain() {
    let sink = Sink::start();
    let mut activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("DRAIN_TIMEOUT", "600s").start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("last"))));
    sink.receives(50);
    signal(activator.id(), Signal::TERM);
    until("the RTMP port to be closed", || std::net::TcpStream::connect(activator.rtmp()).is_err());
    stays_true_for(Duration::from_millis(500), "it waits for its stream", || activator.process.is_running());
    // Each further signal ends one phase of the drain.
    until("the activator to exit", || {
        signal(activator.id(), Signal::TERM);
        !activator.process.is_running()
    });
    assert!(sink.ended().said_goodbye());
}

#[test]
fn an_idle_activator_exits_at_once_when_terminated() {
    let sink = Sink::start();
    let mut activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let asked = now();
    assert!(activator.process.terminate().success());
    println!("it took {:?}", now().saturating_duration_since(asked));
}
