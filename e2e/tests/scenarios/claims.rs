//! Claims on streams and upstreams: two keys that share an upstream, a worker whose connection breaks, a worker without an activator.

use std::time::Duration;

use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_resumed, assert_time_goes_forward};
use liveedgecast_e2e::process::{RunningProgram, signal};
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::record::Message;
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::{Sink, SinkSession};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};
use liveedgecast_e2e::wire::CuttableWire;
use rustix::process::Signal;

use crate::RETURNS;

by_descriptor_and_by_link! {
    a_publisher_that_returns_after_its_activator_died_is_not_refused
    a_second_key_takes_over_a_shared_upstream_in_a_session_of_its_own
    a_second_key_for_a_shared_upstream_is_refused_while_the_first_is_alive
}

/// An upstream per key, an upstream that all keys share, and an activator that pushes to both.
struct Shared {
    own: Sink,
    shared: Sink,
    activator: ActivatorProcess,
}

impl Shared {
    fn by(handoff: &str) -> Self {
        Self::with_capacity(handoff, "50")
    }

    fn with_capacity(handoff: &str, capacity: &str) -> Self {
        let (own, shared) = (Sink::start(), Sink::start());
        shared.take_one_publisher_per_name();
        let urls = format!("{} {}", own.url("live/{key}"), shared.url(&format!("live/{}", key("fixed"))));
        let activator = ActivatorProcess::pushing_to(&urls).with("HANDOFF", handoff).with("CAPACITY", capacity);
        Self { own, shared, activator: activator.with("COOLDOWN", "1s").with("GRACE", RETURNS).start() }
    }

    /// Waits for the session of this key at the upstream of its own to have `frames` messages, and returns it.
    fn of(&self, name: &str, frames: usize) -> SinkSession {
        until_some(format!("{frames} messages of {name}"), || {
            let sessions = self.own.sessions().into_iter().filter(|session| session.key == key(name));
            sessions.last().filter(|session| session.recording.frames() >= frames)
        })
    }
}

/// Asserts that the session has no message that only the other publisher sent.
#[track_caller]
fn assert_nothing_of(other: &[Message], session: &SinkSession, own: &[Message]) {
    let foreign = |message: &&Message| {
        let sent_by = |media: &[Message]| media.iter().any(|sent| sent.carries_the_same_as(message));
        sent_by(other) && !sent_by(own)
    };
    let found = session.media().iter().find(foreign);
    assert!(found.is_none(), "media of another publisher in the session of {}: {found:?}", session.key);
}

/// Asserts that the first session ended before the second one started.
#[track_caller]
fn assert_in_turn(first: &SinkSession, second: &SinkSession) {
    let (Some(ended), Some(started)) = (first.ended, second.started) else {
        panic!("the first session ended at {:?}, the second one started at {:?}", first.ended, second.started)
    };
    assert!(ended < started, "two sessions at a time");
}

fn a_second_key_takes_over_a_shared_upstream_in_a_session_of_its_own(handoff: &str) {
    let relay = Shared::by(handoff);
    let taps = [(); 3].map(|()| Tap::before(relay.activator.rtmp()));
    let mut first = ffmpeg(Media::Both, &taps[0].url(&format!("live/{}", key("first"))));
    relay.of("first", 50);
    relay.shared.receives(50);
    first.kill();
    relay.activator.has_a_stream_that_is("grace");

    let mut second = ffmpeg(Media::Heavy, &taps[1].url(&format!("live/{}", key("second"))));
    relay.of("second", 50);
    let taken_over = relay.shared.receives_in_session(2, 50);
    // The first key's publisher returns to the rest of its stream: the upstream of its own, in the same session.
    let before = relay.of("first", 50).recording.frames();
    let mut again = ffmpeg(Media::Both, &taps[2].url(&format!("live/{}", key("first"))));
    let continued = relay.of("first", before + 50);
    again.interrupt();
    second.interrupt();
    until("the last stream to be forgotten", || relay.activator.demand() == Some((0, 0, 0)));

    let published = taps.map(|tap| tap.only().publisher.media);
    let firsts = [&published[0][..], &published[2]].concat();
    assert_eq!(relay.own.sessions().len(), 2, "one session for each key at the upstream of its own");
    assert!(continued.ended.is_none(), "the session of the first was ended");
    assert_nothing_of(&published[1], &relay.of("first", 50), &firsts);
    assert_nothing_of(&firsts, &relay.of("second", 50), &published[1]);
    let shared = relay.shared.sessions();
    let in_turn: Vec<&SinkSession> = shared.iter().filter(|session| !session.refused).collect();
    assert_eq!(in_turn.len(), 2, "one session after the other at the upstream that is shared");
    assert_in_turn(in_turn[0], &taken_over);
    assert_nothing_of(&published[1], in_turn[0], &firsts);
    assert_nothing_of(&firsts, in_turn[1], &published[1]);
    for session in [relay.of("first", 50), relay.of("second", 50), in_turn[1].clone()] {
        assert_time_goes_forward(session.media());
        assert_decodes(session.media());
    }
}

fn a_second_key_for_a_shared_upstream_is_refused_while_the_first_is_alive(handoff: &str) {
    // The worker is full, and must still answer with the claim rather than with its lack of capacity.
    let relay = Shared::with_capacity(handoff, "1");
    let tap = Tap::before(relay.activator.rtmp());
    let mut first = ffmpeg(Media::Both, &relay.activator.url(&format!("live/{}", key("first"))));
    relay.shared.receives(50);
    let mut second = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("second"))));
    assert!(!second.wait(SOON).success(), "the second key is taken");
    let told = tap.only().server.statuses();
    assert!(told.iter().any(|(_, status)| status == "NetStream.Publish.BadName"), "{told:?}");
    let arrived = relay.of("first", 50).recording.frames();
    relay.of("first", arrived + 50);
    first.interrupt();
    assert!(relay.shared.ended().said_goodbye());
    assert_eq!((relay.own.sessions().len(), relay.shared.sessions().len()), (1, 1));
}

/// An activator with two workers by link, and an upstream that accepts one publisher per name. The grace time for a lost publisher is
/// longer than any scenario: the rest of a session does not end by itself.
struct Linked {
    sink: Sink,
    activator: ActivatorProcess,
    tap: Tap,
    wires: [CuttableWire; 2],
    workers: [WorkerProcess; 2],
    publisher: RunningProgram,
}

impl Linked {
    fn live() -> Self {
        let sink = Sink::start();
        sink.take_one_publisher_per_name();
        let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
        let activator = settings.with("HANDOFF", "link").with("GRACE", RETURNS).start();
        let wires = [(); 2].map(|()| CuttableWire::to(&activator));
        let workers = [0, 1].map(|number| {
            let name = number.to_string();
            WorkerProcess::with(&activator, &[("ACTIVATOR", &wires[number].control()), ("WORKER_NAME", &name)])
        });
        until("two workers", || activator.workers().len() == 2);
        let tap = Tap::before(activator.rtmp());
        let publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("linked"))));
        sink.receives(100);
        Self { sink, activator, tap, wires, workers, publisher }
    }

    /// Index of the worker that has the stream.
    fn holder(&self) -> usize {
        let stream = self.activator.has_a_stream_that_is("live");
        stream["worker"].as_str().and_then(|name| name.parse().ok()).expect("a worker of ours")
    }

    /// Waits until `messages` further messages were published.
    fn published_more(&self, messages: usize) {
        let at = self.tap.only().publisher.media.len();
        until("more of the publisher", || self.tap.only().publisher.media.len() > at + messages);
    }

    /// Waits until the publisher has sent a further `time` of media.
    fn publishes_for(&self, time: Duration) {
        let clock =
            || self.tap.only().publisher.media.iter().map(|message| message.timestamp).max().unwrap_or_default();
        let until_then = u128::from(clock()) + time.as_millis();
        until("more of the publisher's time", || u128::from(clock()) > until_then);
    }

    /// Ends the publisher, and asserts that its connection was never closed and that its stream was a single session at the upstream.
    fn ends_in_one_session(mut self) {
        let arrived = self.sink.only().recording.frames();
        self.sink.receives(arrived + 100);
        assert!(self.tap.only().left.is_none() && self.tap.only().closed.is_none(), "the publisher noticed");
        self.publisher.interrupt();
        let session = self.sink.ended();
        assert!(session.said_goodbye());
        assert_eq!(
            (self.sink.sessions().len(), self.sink.refusals()),
            (1, 0),
            "sessions at the upstream, and refusals"
        );
        assert_arrived_whole(&self.tap.only().publisher.media, session.media());
        assert_time_goes_forward(session.media());
        assert_decodes(session.media());
    }
}

#[test]
fn a_stream_whose_link_is_cut_continues_in_the_same_session() {
    let relay = Linked::live();
    let holder = relay.holder();
    for breaks in 1..=3 {
        relay.wires.iter().for_each(CuttableWire::cut_links);
        until("the break to be noticed", || {
            let back = |why| relay.activator.metric("liveedgecast_streams_back_total", &[why]).unwrap_or(0.0);
            back("reason=\"broken\"") + back("reason=\"died\"") >= f64::from(breaks)
        });
        // Longer than a second: the activator gives a stream whose link breaks again at once to another worker.
        relay.activator.has_a_stream_that_is("live");
        relay.publishes_for(Duration::from_millis(1_500));
        assert_eq!(relay.holder(), holder, "another worker has it");
    }
    relay.ends_in_one_session();
}

#[test]
fn an_activator_that_was_stopped_for_six_seconds_keeps_its_workers() {
    let relay = Linked::live();
    signal(relay.activator.id(), Signal::STOP);
    // A second has 25 video messages and 43 audio messages.
    relay.published_more(6 * 68);
    signal(relay.activator.id(), Signal::CONT);
    relay.ends_in_one_session();
}

#[test]
fn a_stopped_worker_leaves_its_upstream_to_its_successor() {
    let mut relay = Linked::live();
    let stopped = relay.workers[relay.holder()].process.id();
    signal(stopped, Signal::STOP);
    until("the next worker to be refused", || relay.sink.refusals() > 0);
    signal(stopped, Signal::CONT);
    let resumed = until_some("the session of the next worker", || {
        relay
            .sink
            .sessions()
            .into_iter()
            .find(|it| it.connected > relay.sink.sessions()[0].connected && it.recording.frames() > 50)
    });
    relay.publisher.interrupt();
    let session = until_some("the end of that session", || {
        relay.sink.sessions().into_iter().find(|it| it.connected == resumed.connected && it.ended.is_some())
    });
    assert_in_turn(&relay.sink.sessions()[0], &session);
    assert_resumed(&relay.tap.only().publisher.media, session.media());
    assert_decodes(session.media());
}

fn a_publisher_that_returns_after_its_activator_died_is_not_refused(handoff: &str) {
    let sink = Sink::start();
    sink.take_one_publisher_per_name();
    let url = sink.url("live/{key}");
    let settings = ActivatorProcess::pushing_to(&url).with("HANDOFF", handoff).with("GRACE", RETURNS);
    let mut activator = settings.with("COOLDOWN", "1s").start();
    let taps = [(); 2].map(|()| Tap::before(activator.rtmp()));
    let mut first = ffmpeg(Media::Both, &taps[0].url(&format!("live/{}", key("returns"))));
    sink.receives(50);
    let orphan = activator.worker_processes()[0];
    activator.process.kill();
    // With a descriptor the publisher stays with the worker until the publisher itself is lost.
    if handoff == "link" {
        assert!(!first.wait(SOON).success());
    } else {
        first.kill();
    }
    let next = activator.beside(&url).with("HANDOFF", handoff).with("COOLDOWN", "1s").start();
    let mut second = ffmpeg(Media::Both, &taps[1].url(&format!("live/{}", key("returns"))));
    until("the publisher to be back at the upstream", || {
        assert!(second.is_running(), "the publisher was refused: {:?}", taps[1].last().map(|it| it.server.statuses()));
        let started: Vec<SinkSession> = sink.sessions().into_iter().filter(|it| it.started.is_some()).collect();
        started.len() == 2 && started[1].recording.frames() > 50
    });
    second.interrupt();
    until("the orphaned worker to go", || !liveedgecast_e2e::process::is_alive(orphan));
    next.is_back_to_zero();
}
