//! A second activator on the same host and ports, which the first one leaves to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use liveedgecast_common::event;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_resumed};
use liveedgecast_e2e::http;
use liveedgecast_e2e::process::{kill, signal};
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, Settings, WorkerProcess, key};
use liveedgecast_e2e::sink::{Sink, SinkSession};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};
use rustix::process::Signal;

/// Settings that both activators are started with.
fn shared(settings: Settings) -> Settings {
    let settings = settings.with_external_workers().with("REUSE_PORT", "yes");
    settings.with("HANDOFF", "descriptor").with("DRAIN_TIMEOUT", "600s").with("LINK_LISTEN", "127.0.0.1:0")
}

/// Connects as a publisher and begins the handshake; returns whether the server answers.
fn is_answered(activator: &ActivatorProcess) -> bool {
    let Ok(mut connection) = TcpStream::connect(activator.rtmp()) else { return false };
    let mut first = vec![0; 1537];
    first[0] = 3;
    let mut version = [0];
    connection.set_read_timeout(Some(SOON)).expect("a socket takes a time");
    connection.write_all(&first).is_ok() && connection.read_exact(&mut version).is_ok() && version == [3]
}

fn session(sink: &Sink, name: &str, number: usize, frames: usize) -> SinkSession {
    until_some(format!("{frames} messages of session {number} of {name}"), || {
        let sessions = sink.sessions().into_iter().filter(|session| session.key == key(name));
        sessions.into_iter().nth(number - 1).filter(|session| session.recording.frames() >= frames)
    })
}

#[test]
fn an_activator_leaves_its_ports_to_the_next_and_keeps_its_streams() {
    let sink = Sink::start();
    let mut elder = shared(ActivatorProcess::pushing_to(&sink.url("live/{key}"))).start();
    let worker = WorkerProcess::of(&elder);
    let taps = [Tap::before(elder.rtmp()), Tap::before(elder.rtmp())];
    let mut first = ffmpeg(Media::Both, &taps[0].url(&format!("live/{}", key("first"))));
    session(&sink, "first", 1, 50);
    assert_eq!(elder.streams()[0]["handoff"], "descriptor");

    let younger = shared(elder.beside(&sink.url("live/{key}"))).start();
    until("the activators to find each other", || !younger.events(event::PEER_SYNCED).is_empty());
    until("the worker to find both activators", || !younger.events(event::WORKER_REGISTERED).is_empty());
    signal(elder.id(), Signal::TERM);
    // No connection may be lost while the ports change hands.
    let mut answered = 0;
    until("the elder to have left all its ports", || {
        assert!(is_answered(&elder), "the connection after {answered} is lost");
        answered += 1;
        elder.process.log().contains("\"phase\":\"finish_streams\"")
    });
    println!("{answered} connections meanwhile");

    let mut second = ffmpeg(Media::Both, &taps[1].url(&format!("live/{}", key("second"))));
    session(&sink, "second", 1, 50);
    let mine = |activator: &ActivatorProcess| activator.events(event::STREAM_PUBLISHED).len();
    assert_eq!((mine(&elder), mine(&younger)), (1, 1));
    assert_eq!(
        younger.demand(),
        Some((0, 2, 2)),
        "the younger activator answers for both, on ports that it alone has now"
    );
    assert!(http::request(younger.http(), "GET", "/readyz").is_ok_and(|answer| answer.status == 200));
    assert!(taps[0].only().left.is_none() && sink.sessions().len() == 2, "the first stream's session goes on");

    // A new worker finds both activators, so the elder's streams can still be handed to it.
    let _another = WorkerProcess::of(&younger);
    until("the new worker to find both activators", || {
        [&elder, &younger].iter().all(|activator| activator.events(event::WORKER_REGISTERED).len() == 2)
    });
    // Enough messages to pass the first keyframe, where a resumed session looks like a new one.
    session(&sink, "second", 1, 100);
    kill(worker.process.id());
    for (tap, name) in taps.iter().zip(["first", "second"]) {
        let resumed = session(&sink, name, 2, 50);
        assert!(tap.only().left.is_none() && tap.only().closed.is_none(), "the publisher of {name} noticed");
        assert_resumed(&tap.only().publisher.media, resumed.media());
        assert_decodes(resumed.media());
    }
    first.interrupt();
    second.interrupt();
    let status = elder.process.wait(SOON);
    assert!(status.success(), "the elder left with {status}");
    until("the last stream to be forgotten", || younger.demand() == Some((0, 0, 0)));
}

#[test]
fn a_stream_outlives_the_drain_of_its_activator_if_its_worker_stays() {
    let sink = Sink::start();
    let settings = shared(ActivatorProcess::pushing_to(&sink.url("live/{key}"))).with("DRAIN_TIMEOUT", "0s");
    let mut activator = settings.start();
    let _worker = WorkerProcess::of(&activator);
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("stays"))));
    sink.receives(50);
    assert!(activator.process.terminate().success());
    let arrived = sink.only().recording.frames();
    sink.receives(arrived + 50);

    // The successor learns of the stream from the worker.
    let next = shared(activator.beside(&sink.url("live/{key}"))).start();
    next.has_a_stream_that_is("live");
    let mut twin = ffmpeg(Media::Both, &next.url(&format!("live/{}", key("stays"))));
    assert!(!twin.wait(SOON).success(), "a second publisher is taken");
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, sink.ended().media());
    until("the last stream to be forgotten", || next.demand() == Some((0, 0, 0)));
}

#[test]
fn an_activator_that_was_started_by_mistake_gets_no_port() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let mut mistake = activator.beside(&sink.url("live/{key}")).start_anyhow();
    assert!(!mistake.wait(SOON).success());
    let log = mistake.log();
    assert!(log.contains("RTMP_LISTEN: cannot listen on") && log.contains("in use"), "{log}");
}
