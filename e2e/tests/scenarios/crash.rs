//! A worker dies in the middle of a stream.

use liveedgecast_common::event;
use liveedgecast_e2e::compare::{assert_decodes, assert_resumed, assert_time_goes_forward};
use liveedgecast_e2e::process::{kill, signal};
use liveedgecast_e2e::publish::{Media, Obs, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{now, until, until_some};
use rustix::process::Signal;

use crate::Relay;

by_descriptor_and_by_link! {
    a_killed_worker_is_replaced_and_the_publisher_does_not_notice
    a_stream_in_the_memory_of_an_ended_one_outlives_its_worker
    obs_studio_does_not_notice_a_killed_worker
    the_last_bytes_of_a_publisher_that_has_left_outlive_their_worker
}

/// Kills the worker and compares its successor's session with the published messages.
fn kill_and_compare(relay: &Relay, number: usize) {
    end_and_compare(relay, number, kill);
}

fn end_and_compare(relay: &Relay, number: usize, end: impl Fn(u32)) {
    let session = relay.sink.receives_in_session(number, 100);
    let worker = relay.activator.worker_processes()[0];
    end(worker);
    relay.sink.receives_in_session(number + 1, 100);
    let first = until_some("the end of the old session", || {
        relay.sink.sessions().into_iter().nth(number - 1).filter(|session| session.ended.is_some())
    });
    assert!(first.media().len() >= session.media().len());
    let said = relay.tap.only();
    assert!(said.left.is_none() && said.closed.is_none(), "the publisher noticed");
    assert_eq!(said.server.statuses().len(), 1, "the publisher was told something: {:?}", said.server.statuses());

    let second = relay.sink.receives_in_session(number + 1, 100);
    let published = relay.tap.only().publisher.media;
    let headers = first.media().iter().take_while(|message| message.is_header()).count();
    let place = assert_resumed(&published, second.media());
    let before = assert_resumed_or_first(&published, first.media(), headers);
    println!("the old session ended at message {before}, the new one begins at {}", place.first);
    assert!(place.first <= before, "messages {before}..{} are lost", place.first);
    assert_time_goes_forward(second.media());
    assert_decodes(second.media());
}

/// Index behind the last published message of a session.
fn assert_resumed_or_first(
    published: &[liveedgecast_e2e::record::Message],
    session: &[liveedgecast_e2e::record::Message],
    headers: usize,
) -> usize {
    let first = &session[headers];
    let begins = |at: &usize| published[*at].carries_the_same_as(first);
    let at = (0..published.len()).find(begins).expect("the session begins with something published");
    at + session.len() - headers
}

fn a_killed_worker_is_replaced_and_the_publisher_does_not_notice(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut publisher = relay.published(Media::Both, "killed");
    kill_and_compare(&relay, 1);
    kill_and_compare(&relay, 2);
    publisher.interrupt();
    let last = until_some("the end", || relay.sink.sessions().into_iter().nth(2).filter(|it| it.ended.is_some()));
    assert!(last.said_goodbye());
    let place = assert_resumed(&relay.tap.only().publisher.media, last.media());
    assert_eq!(place.end, relay.tap.only().publisher.media.len(), "the last messages");
    relay.activator.is_back_to_zero();
    let lines = |event| relay.activator.events(event).len();
    assert_eq!(lines(event::STREAM_TAKEN_OVER), 2, "one line for each takeover");
    assert_eq!((lines(event::STREAM_PUBLISHED), lines(event::STREAM_ENDED)), (1, 1));
}

fn the_last_bytes_of_a_publisher_that_has_left_outlive_their_worker(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut publisher = relay.published(Media::Both, "left");
    relay.sink.receives_in_session(1, 100);
    let worker = relay.activator.worker_processes()[0];
    signal(worker, Signal::STOP);
    let published = || relay.tap.only().publisher.media.len();
    let before = published();
    until("messages that the worker does not read", || published() > before + 20);
    publisher.interrupt();
    kill(worker);
    let last = until_some("the end", || relay.sink.sessions().into_iter().nth(1).filter(|it| it.ended.is_some()));
    assert!(last.said_goodbye());
    let place = assert_resumed(&relay.tap.only().publisher.media, last.media());
    assert_eq!(place.end, published(), "the last messages");
    relay.activator.is_back_to_zero();
    assert!(relay.activator.events(event::STREAM_REST_LOST).is_empty());
}

fn a_stream_in_the_memory_of_an_ended_one_outlives_its_worker(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}"));
    // The worker that has had the memory stays.
    let activator = settings.with("HANDOFF", handoff).with("COOLDOWN", "5m").start();
    let tap = Tap::before(activator.rtmp());
    let relay = Relay { sink, activator, tap };
    let (spare, reused) = match handoff {
        "link" => ("liveedgecast_worker_spare_ring_bytes", "liveedgecast_worker_rings_reused_total"),
        _ => ("liveedgecast_spare_ring_bytes", "liveedgecast_rings_reused_total"),
    };
    let metric = |name| relay.activator.metric(name, &[]).unwrap_or_default();

    let mut first = ffmpeg(Media::Both, &relay.activator.url(&format!("live/{}", key("before"))));
    relay.sink.receives_in_session(1, 100);
    first.interrupt();
    until("the end of the first stream", || relay.activator.demand() == Some((0, 0, 0)));
    until("memory that waits", || metric(spare) > 0.0);

    let mut publisher = relay.published(Media::Both, "after");
    until("a stream in that memory", || metric(reused) == 1.0);
    kill_and_compare(&relay, 2);
    publisher.interrupt();
    let last = until_some("the end", || relay.sink.sessions().into_iter().nth(2).filter(|it| it.ended.is_some()));
    let place = assert_resumed(&relay.tap.only().publisher.media, last.media());
    assert_eq!(place.end, relay.tap.only().publisher.media.len(), "the last messages");
}

#[test]
fn a_worker_that_hangs_is_replaced_before_obs_studio_gives_up() {
    let relay = Relay::by("descriptor");
    let mut obs = Obs::streaming_to(&relay.tap.url("live"), &key("hangs"));
    let hung = now();
    end_and_compare(&relay, 1, |worker| signal(worker, Signal::STOP));
    println!("replaced within {:?}", now().saturating_duration_since(hung));
    obs.quit();
    relay.activator.is_back_to_zero();
}

fn obs_studio_does_not_notice_a_killed_worker(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut obs = Obs::streaming_to(&relay.tap.url("live"), &key("obs"));
    kill_and_compare(&relay, 1);
    obs.quit();
    relay.activator.is_back_to_zero();
}
