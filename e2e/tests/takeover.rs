//! A stream outlives its readers: real ffmpeg publishes once, readers are killed at random moments, each successor continues from the
//! kernel's counters, the ring and the state page, and a real nginx-rtmp records the stream.
//!
//! `TAKEOVER_KILLS` and `TAKEOVER_SEED` set the number and the moments of the kills.
#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use liveedgecast_common::handoff::{OpenMessage, Snapshot, StoredHeader, StreamState, snapshot};
use liveedgecast_common::random;
use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::handshake::HANDSHAKE_BYTES;
use liveedgecast_common::rtmp::limits::DEFAULT_CHUNK_SIZE;
use liveedgecast_common::rtmp::media::inspect;
use liveedgecast_common::rtmp::server::ServerSession;
use liveedgecast_common::rtmp::{self, MessageHeader, type_id, writer};
use liveedgecast_e2e::compare::{SessionSpan, assert_resumed, assert_time_goes_forward};
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::process::{Program, RunningProgram};
use liveedgecast_e2e::publish;
use liveedgecast_e2e::record::{Message, read_flv};
use liveedgecast_e2e::takeover::LogLine;
use liveedgecast_e2e::takeover::holder::TakeoverHolder;
use liveedgecast_e2e::tap::{Tap, TapSession};
use liveedgecast_e2e::wait::{SOON, now, until};

/// Number of kills in an ordinary run, which has to be quick.
const FEW: u64 = 8;
/// Longest life of a reader. Most live for less than a group of pictures, so that some never publish a page.
const LONGEST_LIFE: Duration = Duration::from_millis(700);

#[test]
fn a_stream_outlives_its_readers() {
    outlive(REAL_TIME, 1, setting("TAKEOVER_KILLS").unwrap_or(FEW));
}

#[test]
#[ignore = "takes minutes: run it after a change of handoff, sys or snapshots"]
fn a_stream_outlives_two_hundred_readers() {
    outlive(REAL_TIME, 1, 200);
}

/// ffmpeg publishes as fast as it encodes: a reader always has bytes to read.
#[test]
#[ignore = "takes minutes and all of the machine: run it after a change of handoff, sys or snapshots"]
fn a_stream_faster_than_real_time_outlives_two_hundred_readers() {
    outlive("", 1, 200);
}

/// Every stream but the first begins in the memory of the one before, with its snapshots and its media, at about the same positions.
#[test]
fn streams_in_the_memory_of_ended_ones_outlive_their_readers() {
    outlive(REAL_TIME, 3, 3);
}

/// As above. Two hundred kills are of readers whose ring had been used before.
#[test]
#[ignore = "takes minutes: run it after a change of handoff, sys or snapshots"]
fn streams_in_the_memory_of_ended_ones_outlive_two_hundred_readers() {
    outlive(REAL_TIME, 51, 4);
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// ffmpeg's option for an input that is read no faster than it plays.
const REAL_TIME: &str = "-re";

fn publisher(pace: &str, url: &str) -> RunningProgram {
    Program::new("ffmpeg", "ffmpeg")
        .words("-hide_banner -nostdin -v info -nostats")
        .words(&format!("{pace} -f lavfi -i testsrc2=size=640x360:rate=30"))
        .words(&format!("{pace} -f lavfi -i sine=frequency=440:sample_rate=44100"))
        .words("-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 30 -b:v 1500k -c:a aac -b:a 96k")
        .args(["-f", "flv", url])
        .start()
}

/// Publishes one stream after the other, each in the memory of the one before, and kills so many readers of each.
fn outlive(pace: &str, streams: u64, kills: u64) {
    let mut seed = setting("TAKEOVER_SEED").unwrap_or_else(|| u64::from_be_bytes(random::bytes()) | 1);
    println!("TAKEOVER_SEED={seed} TAKEOVER_KILLS={kills} in each of {streams} streams");
    let mut chance = move |below: u64| {
        // xorshift64
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let (mut memory, mut from_pages, mut decoded) = (None, 0, 0);
    for _ in 0..streams {
        let outlived = outlive_one(pace, kills, &mut chance, memory);
        memory = Some(outlived.memory);
        from_pages += outlived.from_pages;
        decoded += outlived.decoded;
    }
    assert!(from_pages > 0 && decoded > 1, "hardly anything was tried: {from_pages} state pages, {decoded} recordings");
    println!("{} kills in all, {} of them in memory that was used before", streams * kills, (streams - 1) * kills);
}

/// What is left of a stream.
struct Outlived {
    memory: OwnedFd,
    from_pages: usize,
    decoded: usize,
}

fn outlive_one(pace: &str, kills: u64, chance: &mut impl FnMut(u64) -> u64, memory: Option<OwnedFd>) -> Outlived {
    let nginx = Nginx::recording();
    let upstream = Tap::before(nginx.address());
    let listener = TcpListener::bind(loopback::socket(1935)).unwrap();
    let tap = Tap::before(listener.local_addr().unwrap());
    let mut ffmpeg = publisher(pace, &tap.url("live/key"));
    let log = ffmpeg.directory().join("readers");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let memory = runtime.block_on(async {
        let mut held = TakeoverHolder::accept(&listener, memory).unwrap();
        let program = env!("CARGO_BIN_EXE_takeover-reader");
        for number in 0..kills {
            let url = upstream.url(&format!("live/session-{number}"));
            let reader = held.start_reader(program, &url, &log).await.unwrap();
            // A quarter of the readers dies during its start.
            let longest = if chance(4) == 0 { LONGEST_LIFE / 20 } else { LONGEST_LIFE };
            let life = Duration::from_micros(chance(longest.as_micros() as u64));
            let ended = reader.kill_after(life).await.unwrap();
            assert_eq!(ended, None, "reader {number} ended by itself");
        }
        let mut last = held.start_reader(program, &upstream.url("live/last"), &log).await.unwrap();
        last.started().await.unwrap();
        let keyframes = upstream.last().map_or(0, |session| session.publisher.keyframes());
        until("two more keyframes", || upstream.last().is_some_and(|it| it.publisher.keyframes() > keyframes + 1));
        ffmpeg.interrupt();
        last.end(SOON).await.unwrap();
        held.into_memory().unwrap()
    });

    until("the upstream to have everything", || upstream.sessions().iter().all(|session| session.closed.is_some()));
    let published = tap.only();
    let (read, from_pages) = assert_read_whole(&published, &log);
    let sessions = assert_delivered_whole(&published.publisher.media, &upstream.sessions());
    let decoded = assert_recordings_decode(&nginx, &upstream.sessions());
    println!(
        "{kills} kills: {} bytes and {read} messages of the publisher, none lost or changed; {from_pages} readers began from a state \
         page; {sessions} sessions had media, {decoded} of them recorded and decoded without an error",
        published.publisher.bytes
    );
    Outlived { memory, from_pages, decoded }
}

/// Versions of a snapshot with golden bytes: in the middle of a real stream, just before a keyframe, with an audio message half received.
const VERSIONS: [u16; 1] = [1];

fn golden(version: u16, what: &str) -> PathBuf {
    publish::root().join(format!("common/tests/golden/{what}-{version}-mid-stream"))
}

#[test]
fn a_stream_resumes_from_golden_bytes_of_every_version() {
    assert!(VERSIONS.contains(&snapshot::VERSION), "there are no golden bytes of this version");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for version in VERSIONS {
        let nginx = Nginx::recording();
        let upstream = Tap::before(nginx.address());
        let snapshot = Snapshot::decode(&fs::read(golden(version, "snapshot")).unwrap()).unwrap();
        let following = fs::read(golden(version, "bytes")).unwrap();
        let log = nginx.process.directory().join("readers");
        runtime.block_on(async {
            let mut held = TakeoverHolder::left_behind(snapshot, &following).unwrap();
            let program = env!("CARGO_BIN_EXE_takeover-reader");
            let reader = held.start_reader(program, &upstream.url("live/golden"), &log).await.unwrap();
            reader.end(SOON).await.unwrap();
        });
        let session = upstream.only();
        until("the upstream to have everything", || upstream.only().closed.is_some());
        let media = &session.publisher.media;
        let headers: Vec<_> = media.iter().map_while(|message| message.inspection().header).collect();
        assert!(headers.len() == 3 && media[3].is_keyframe(), "it begins with {:?}", &media[..4]);
        // The keyframe and the rest of its second, and the audio of the same time.
        let frames = media.iter().filter(|message| message.is_frame() && !message.inspection().end_of_sequence);
        assert_eq!(frames.count(), 30);
        assert!(media.iter().filter(|message| message.type_id == type_id::AUDIO).count() > 40);
        assert_eq!(assert_recordings_decode(&nginx, &[session]), 1);
    }
}

#[test]
#[ignore = "writes files: run it for a new version"]
fn write_golden_bytes_of_the_newest_version() {
    let encoded = Program::new("ffmpeg", "ffmpeg");
    let path = encoded.directory().join("two-seconds.flv");
    let mut encoded = encoded
        .words("-hide_banner -nostdin -v error -f lavfi -i testsrc2=size=160x90:rate=30")
        .words("-f lavfi -i sine=frequency=440:sample_rate=44100 -t 2 -c:v libx264 -preset ultrafast -tune zerolatency")
        .words("-pix_fmt yuv420p -g 30 -b:v 60k -c:a aac -b:a 48k")
        .arg(&path)
        .start();
    assert!(encoded.wait(SOON).success());
    let messages = read_flv(&fs::read(&path).unwrap(), now());

    let mut session = ServerSession::new(HANDSHAKE_BYTES);
    let said = |session: &mut ServerSession, bytes: &[u8]| {
        let start = session.position();
        while session.next(&bytes[(session.position() - start) as usize..]).unwrap().is_some() {}
    };
    let (before, after) = interleaved(&messages);
    said(&mut session, &commands());
    session.accept_publish();
    said(&mut session, &before);
    session.take_output();
    // State of a worker's stream at the keyframe.
    let mut stream = StreamState { began_with_keyframe: true, ..StreamState::default() };
    for Message { timestamp, type_id, payload, .. } in messages {
        if let Some(slot) = inspect(type_id, &payload).header {
            stream.headers.push(StoredHeader { slot, type_id, timestamp, payload: payload.to_vec() });
        }
    }
    stream.headers.sort_by_key(|header| header.slot);
    let (header, received) = session.state().open_media().next().unwrap();
    let received = before[before.len() - received as usize..].to_vec();
    stream.open.push(OpenMessage { csid: header.csid, received });
    let snapshot = Snapshot { session: session.state(), stream: Some(stream), unread: Vec::new() };
    fs::write(golden(snapshot::VERSION, "snapshot"), snapshot.encode()).unwrap();
    fs::write(golden(snapshot::VERSION, "bytes"), after).unwrap();
}

/// Commands from `connect` to `publish`.
fn commands() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut command = |name: &str, transaction: f64, object: Value, arguments: &[&str]| {
        let arguments = arguments.iter().map(|text| Value::string(*text)).collect();
        let message_stream = u32::from(name == "publish");
        let command = rtmp::message::Command { name: name.to_owned(), transaction, object, arguments };
        command.write(&mut bytes, 3, message_stream, DEFAULT_CHUNK_SIZE);
    };
    let app = [("app", "live"), ("tcUrl", "rtmp://edge/live")];
    let app = app.map(|(name, value)| (name.to_owned(), Value::string(value)));
    command("connect", 1.0, Value::Object(app.to_vec()), &[]);
    command("createStream", 2.0, Value::Null, &[]);
    command("publish", 3.0, Value::Null, &["golden", "live"]);
    bytes
}

/// Writes messages in chunks of the smallest usual size. First part: the messages before the second keyframe, and the first chunk of the
/// audio message behind it. Second part: all the rest, in which that audio message continues between the chunks of the keyframe.
fn interleaved(messages: &[Message]) -> (Vec<u8>, Vec<u8>) {
    let chunks = |message: &Message| {
        let csid = if message.type_id == type_id::VIDEO { 6 } else { 4 };
        let Message { timestamp, type_id, payload, .. } = message;
        let header = MessageHeader { csid, timestamp: *timestamp, length: 0, type_id: *type_id, stream_id: 1 };
        let mut bytes = Vec::new();
        writer::write_message(&mut bytes, &header, payload, DEFAULT_CHUNK_SIZE);
        bytes
    };
    let keyframe = messages.iter().enumerate().filter(|(_, message)| message.is_keyframe()).nth(1).unwrap().0;
    let audio =
        messages.iter().skip(keyframe).position(|message| message.type_id == type_id::AUDIO).unwrap() + keyframe;
    let first_chunk = 12 + DEFAULT_CHUNK_SIZE as usize;
    let (key, sound) = (chunks(&messages[keyframe]), chunks(&messages[audio]));
    let mut before: Vec<u8> = messages[..keyframe].iter().flat_map(chunks).collect();
    before.extend_from_slice(&sound[..first_chunk]);
    let mut after = [&key[..first_chunk], &sound[first_chunk..], &key[first_chunk..]].concat();
    for (index, message) in messages.iter().enumerate().skip(keyframe + 1) {
        if index != audio {
            after.extend(chunks(message));
        }
    }
    (before, after)
}

/// Asserts that the readers together have read every message as it was sent, however often. Returns the number of readers, and the number
/// of those that began with a state page.
fn assert_read_whole(published: &TapSession, log: &Path) -> (usize, usize) {
    let log = fs::read_to_string(log).unwrap();
    let (mut read, mut from_pages, mut end, mut last_head) = (BTreeMap::new(), 0, None, 0);
    for line in log.lines() {
        match line.parse().unwrap() {
            LogLine::Begin { position, head, from_page } => {
                assert!(position <= head && last_head <= head, "positions go back: {line}");
                last_head = head;
                from_pages += usize::from(from_page);
            }
            LogLine::Message { begins, type_id, timestamp, payload } => {
                let message = (type_id, timestamp, payload);
                let before = read.insert(begins, message);
                assert!(before.is_none_or(|before| before == message), "at {begins}: {before:?}, then {message:?}");
            }
            LogLine::End { position } => end = Some(position),
        }
    }
    let said = published.publisher.media.iter();
    let said: Vec<_> = said.map(|it| (it.type_id, it.timestamp, LogLine::digest(&it.payload))).collect();
    let read: Vec<_> = read.into_values().collect();
    let differs = said.iter().zip(&read).position(|(said, read)| said != read);
    assert_eq!(differs, None, "the first message that was read otherwise than said");
    assert_eq!((said.len(), end), (read.len(), Some(published.publisher.bytes)), "messages, and bytes");
    (read.len(), from_pages)
}

/// Asserts that every message is in at least one session, and that each session begins with headers and a keyframe, or with the stream, and
/// has no gap. Returns the number of sessions.
fn assert_delivered_whole(published: &[Message], sessions: &[TapSession]) -> usize {
    let (mut covered, mut count) = (0, 0);
    for session in sessions {
        let media = &session.publisher.media;
        if media.iter().all(Message::is_header) {
            continue;
        }
        count += 1;
        assert_time_goes_forward(media);
        let from_the_start = media.iter().zip(published).all(|(got, sent)| sent.carries_the_same_as(got));
        let place =
            if from_the_start { SessionSpan { first: 0, end: media.len() } } else { assert_resumed(published, media) };
        assert!(place.first <= covered, "messages {covered} to {} are in no session", place.first);
        covered = covered.max(place.end);
    }
    assert_eq!(covered, published.len(), "the last session has all that was said last");
    count
}

/// Asserts that nginx-rtmp has recorded the messages that it received, and that ffmpeg decodes the recordings without a message. Returns
/// the number of recordings.
fn assert_recordings_decode(nginx: &Nginx, sessions: &[TapSession]) -> usize {
    let mut count = 0;
    for session in sessions {
        let sent: Vec<_> = session.publisher.media.iter().filter(|it| it.type_id != 18 && !it.is_header()).collect();
        // nginx-rtmp records nothing before the first keyframe of a session.
        if session.publisher.keyframes() == 0 {
            continue;
        }
        let key = session.publisher.commands.iter().find(|(_, command)| command.name == "publish");
        let key = key.and_then(|(_, command)| command.argument(0)?.as_str()).unwrap();
        let path = nginx.recorded(key);
        let recorded = read_flv(&fs::read(&path).unwrap(), now());
        let recorded: Vec<_> = recorded.iter().filter(|it| it.type_id != 18 && !it.is_header()).collect();
        let Some(first) = recorded.first() else { continue };
        let start = sent.iter().position(|it| it.carries_the_same_as(first)).unwrap();
        let same = sent[start..].iter().zip(&recorded).all(|(sent, got)| sent.carries_the_same_as(got));
        assert!(same && recorded.len() <= sent.len() - start, "{key} was recorded otherwise than sent");
        let mut decoder = Command::new("ffmpeg");
        decoder.args(["-hide_banner", "-nostdin", "-v", "error", "-xerror", "-i"]).arg(&path).args(["-f", "null", "-"]);
        let output = decoder.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{key}: the decoder says {said}");
        count += 1;
    }
    count
}
