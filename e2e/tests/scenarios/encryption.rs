//! Strangers between a worker and its activator, and programs whose settings do not fit together.

use liveedgecast_common::rtmp::type_id;
use liveedgecast_e2e::eavesdropper::Eavesdropper;
use liveedgecast_e2e::encoder::Encoder;
use liveedgecast_e2e::record::Message;
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{now, until};

/// A part of every frame of the publisher.
const MARK: &[u8] = b"a mark in every frame of this scenario";
/// Name in the publisher's key. Strangers look for the whole key: encrypted bytes contain every three bytes now and then.
const NAME: &str = "overheard";

fn activator(sink: &Sink, encryption: &str) -> ActivatorProcess {
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
    settings.with("HANDOFF", "link").with("ENCRYPTION", encryption).start()
}

fn frame(timestamp: u32) -> Message {
    let head = if timestamp.is_multiple_of(1000) { 0x17 } else { 0x27 };
    let payload = [&[head, 1, 0, 0, 0][..], &timestamp.to_be_bytes(), MARK, &[0; 500]].concat();
    Message { timestamp, type_id: type_id::VIDEO, payload: payload.into(), at: now() }
}

/// Publishes by link with a stranger in the path, and returns the stranger.
fn relayed(encryption: &str) -> Eavesdropper {
    let sink = Sink::start();
    let activator = activator(&sink, encryption);
    let stranger = Eavesdropper::before(&activator);
    let settings = [("ACTIVATOR", stranger.control()), ("ENCRYPTION", encryption.to_owned())];
    let _worker = WorkerProcess::with(&activator, &settings.each_ref().map(|(name, value)| (*name, value.as_str())));
    let mut encoder = Encoder::connect(activator.rtmp(), "live");
    encoder.publish(&key(NAME));
    let mut timestamp = 0;
    until("frames at the upstream", || {
        timestamp += 40;
        encoder.send(&frame(timestamp));
        sink.last().is_some_and(|session| session.recording.frames() > 50)
    });
    encoder.goodbye(&key(NAME));
    let session = sink.ended();
    assert!(session.media().iter().any(|message| message.payload.windows(MARK.len()).any(|part| part == MARK)));
    stranger
}

#[test]
fn stranger_in_the_path_reads_neither_key_nor_media() {
    let stranger = relayed("on");
    assert!(stranger.passed() > 50 * 500, "the stream did not pass the stranger");
    assert!(!stranger.has_read(MARK), "media in the clear");
    assert!(!stranger.has_read(key(NAME).as_bytes()), "a key in the clear");
}

#[test]
fn without_encryption_media_and_the_key_in_a_goodbye_are_in_the_clear() {
    let stranger = relayed("off");
    assert!(stranger.has_read(MARK), "the search finds nothing in the clear either");
    assert!(stranger.has_read(key(NAME).as_bytes()), "so is the key, in a publisher's goodbye");
}

#[test]
fn stranger_that_ends_tls_on_both_sides_gets_nowhere() {
    let sink = Sink::start();
    let activator = activator(&sink, "on");
    let stranger = Eavesdropper::ending_tls_before(&activator);
    let address = stranger.control();
    let worker = WorkerProcess::with(&activator, &[("ACTIVATOR", &address), ("ENCRYPTION", "on")]);
    until("the worker to be refused twice", || worker.process.log().matches("call.refused").count() >= 2);
    // The stranger has relayed real calls.
    assert!(stranger.has_read(b"liveedgecast-proof") || stranger.passed() > 500);
    let refused = activator.metric("liveedgecast_control_refused_total", &["reason=\"proof\""]);
    assert!(refused >= Some(1.0), "{refused:?}");
    assert!(!activator.events("control.refused").is_empty());
    assert!(activator.workers().is_empty());
}

#[test]
fn plain_worker_is_refused_with_a_line_that_names_the_setting() {
    let sink = Sink::start();
    let activator = activator(&sink, "on");
    let worker = WorkerProcess::with(&activator, &[("ENCRYPTION", "off")]);
    until("the line", || !activator.events("plain.refused").is_empty());
    // It dials ten times a second at first, and says so once.
    until("calls that are lost", || worker.process.log().matches("call.lost").count() >= 8);
    let log = worker.process.log();
    let told = log.lines().filter(|line| line.contains("call.lost") && line.contains("\"INFO\"")).count();
    assert!((1..=2).contains(&told), "{told} lines: {log}");
    let line = &activator.events("plain.refused")[0];
    assert!(line["advice"].as_str().is_some_and(|advice| advice.contains("ENCRYPTION")), "{line}");
    assert!(activator.workers().is_empty());
}
