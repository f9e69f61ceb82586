//! Realistic sessions and assignments, for the tests of the handoff, its golden bytes and its fuzz seeds.
#![allow(unreachable_pub, dead_code, reason = "shared by several test binaries, each of which uses a part")]
#![allow(clippy::unwrap_used, reason = "a sample that cannot be made fails its test")]

use std::time::Duration;

use liveedgecast_common::handoff::{
    ActivatorSide, Assignment, BackupDestination, Destination, DestinationList, LastTimestamps, ListedDestination,
    OpenMessage, Policy, SessionKeys, Snapshot, StoredHeader, StreamState, Transport, WorkerSide, preface::Step,
};
use liveedgecast_common::key::{AppName, Identity, Secret, StreamId, StreamKey};
use liveedgecast_common::rtmp::amf0::{self, Value};
use liveedgecast_common::rtmp::media::HeaderSlot;
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::server::{Event, ServerSession};
use liveedgecast_common::rtmp::{MessageHeader, type_id, writer};
use liveedgecast_common::url::PushTemplate;

/// Bytes of the handshake: the position at which a session begins.
pub const START: u64 = 3073;
/// Text that must not be shown anywhere.
pub const SECRETS: [&str; 4] = ["s3cr3t-key", "t0ken", "p4ssw0rd", "pushk3y"];

/// The control secret of the tests.
pub fn secret() -> Secret {
    Secret::new("control secret")
}

fn command(
    out: &mut Vec<u8>,
    chunk_size: u32,
    csid: u32,
    name: &str,
    transaction: f64,
    object: Value,
    arguments: &[Value],
) {
    let command = Command { name: name.to_owned(), transaction, object, arguments: arguments.to_vec() };
    command.write(out, csid, 0, chunk_size);
}

/// The bytes of a publisher from the handshake to `publish`.
pub fn until_publish() -> Vec<u8> {
    let text = |text: &str| Value::string(text);
    let connect = Value::Object(vec![
        ("app".to_owned(), text("live")),
        ("type".to_owned(), text("nonprivate")),
        ("flashVer".to_owned(), text("FMLE/3.0 (compatible; Lavf61)")),
        ("tcUrl".to_owned(), text("rtmp://edge:1935/live?t=t0ken")),
    ]);
    let mut bytes = Vec::new();
    Control::SetChunkSize(4096).write(&mut bytes, 128);
    command(&mut bytes, 4096, 3, "connect", 1.0, connect, &[]);
    command(&mut bytes, 4096, 3, "releaseStream", 2.0, Value::Null, &[text("s3cr3t-key?t=t0ken")]);
    command(&mut bytes, 4096, 3, "FCPublish", 3.0, Value::Null, &[text("s3cr3t-key?t=t0ken")]);
    command(&mut bytes, 4096, 3, "createStream", 4.0, Value::Null, &[]);
    let publish = Command {
        name: "publish".to_owned(),
        transaction: 5.0,
        object: Value::Null,
        arguments: vec![text("s3cr3t-key?t=t0ken"), text("live")],
    };
    publish.write(&mut bytes, 4, 1, 4096);
    bytes
}

fn media(csid: u32, timestamp: u32, type_id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = MessageHeader { csid, timestamp, length: 0, type_id, stream_id: 1 };
    writer::write_message(&mut bytes, &header, payload, 4096);
    bytes
}

/// `@setDataFrame`, `onMetaData`.
pub fn metadata() -> Vec<u8> {
    let mut payload = Vec::new();
    let values = [
        Value::string("@setDataFrame"),
        Value::string("onMetaData"),
        Value::EcmaArray(vec![
            ("width".to_owned(), Value::Number(1280.0)),
            ("encoder".to_owned(), Value::string("Lavf61")),
        ]),
    ];
    values.iter().for_each(|value| amf0::write(&mut payload, value));
    payload
}

/// AVC decoder configuration.
pub fn video_header() -> Vec<u8> {
    [&[0x17, 0, 0, 0, 0, 1, 0x42, 0xC0, 0x1F, 0xFF, 0xE1, 0, 4][..], &[0x67, 0x42, 0xC0, 0x1F, 1, 0, 2, 0x68, 0xCE]]
        .concat()
}

/// AAC-LC, 48 kHz, stereo.
pub const AUDIO_HEADER: [u8; 4] = [0xAF, 0, 0x11, 0x90];

/// A keyframe of three chunks.
pub fn keyframe() -> Vec<u8> {
    let mut payload = vec![0x17, 1, 0, 0, 0];
    payload.extend((0..9000_u32).map(|n| (n * 7) as u8));
    payload
}

/// Media from `Publish.Start` on: headers, an audio message that is half there when the keyframe begins, and the rest. The keyframe's
/// position in it, too.
pub fn media_bytes() -> (Vec<u8>, usize) {
    let mut bytes = media(4, 0, type_id::DATA_AMF0, &metadata());
    bytes.extend(media(6, 0, type_id::VIDEO, &video_header()));
    bytes.extend(media(4, 0, type_id::AUDIO, &AUDIO_HEADER));
    bytes.extend(media(4, 21, type_id::AUDIO, &[0xAF, 1, 2, 3]));
    let audio = media(4, 42, type_id::AUDIO, &[0xAF; 4296]);
    let (first, second) = audio.split_at(12 + 4096);
    bytes.extend_from_slice(first);
    let at = bytes.len();
    let key = media(6, 40, type_id::VIDEO, &keyframe());
    // One chunk of the keyframe, the rest of the audio, the rest of the keyframe.
    bytes.extend_from_slice(&key[..12 + 4096]);
    bytes.extend_from_slice(second);
    bytes.extend_from_slice(&key[12 + 4096..]);
    bytes.extend(media(6, 73, type_id::VIDEO, &[0x27, 1, 0, 0, 0, 9, 9, 9]));
    (bytes, at)
}

/// Feeds all bytes; returns the events.
pub fn feed(session: &mut ServerSession, bytes: &[u8]) -> Vec<Event> {
    let start = session.position();
    let mut events = Vec::new();
    while let Some(event) = session.next(&bytes[(session.position() - start) as usize..]).unwrap() {
        events.push(event);
    }
    events
}

/// A session that waits for `Publish.Start`.
pub fn held() -> ServerSession {
    let mut session = ServerSession::new(START);
    let events = feed(&mut session, &until_publish());
    assert!(events.contains(&Event::Publish));
    session
}

/// The activator's snapshot of a publisher that has just been admitted; some of its bytes came early.
pub fn fresh() -> Snapshot {
    let mut session = held();
    session.take_output();
    Snapshot { session: session.state(), stream: None, unread: media_bytes().0[..100].to_vec() }
}

/// The snapshot at the keyframe that begins while an audio message is open.
pub fn mid_message() -> Snapshot {
    let mut session = held();
    session.accept_publish();
    session.take_output();
    let (bytes, at) = media_bytes();
    feed(&mut session, &bytes[..at]);
    let stored =
        |slot, type_id, payload: &[u8]| StoredHeader { slot, type_id, timestamp: 0, payload: payload.to_vec() };
    let stream = StreamState {
        headers: vec![
            stored(HeaderSlot::Metadata, type_id::DATA_AMF0, &metadata()),
            stored(HeaderSlot::Audio { track: 0 }, type_id::AUDIO, &AUDIO_HEADER),
            stored(HeaderSlot::Video { track: 0 }, type_id::VIDEO, &video_header()),
        ],
        last_timestamp: LastTimestamps { audio: Some(21), video: Some(0), data: Some(0) },
        began_with_keyframe: true,
        open: vec![OpenMessage { csid: 4, received: vec![0xAF; 4096] }],
    };
    Snapshot { session: session.state(), stream: Some(stream), unread: Vec::new() }
}

/// A stream for a worker.
pub fn assignment(transport: Transport, resumed: bool) -> Assignment {
    let (app, key) = (AppName::parse("live").unwrap(), StreamKey::parse("s3cr3t-key?t=t0ken").unwrap());
    let destination = |url: &str, required| {
        let url = PushTemplate::parse(url).unwrap().resolve(app.expose(), &key).unwrap();
        Destination { url, required }
    };
    let destinations = vec![
        destination("rtmp://origin:1936/{app}/{key}", true),
        destination("rtmps://user:p4ssw0rd@cdn.example/live2?backup=1/pushk3y", false),
    ];
    Assignment {
        stream_id: StreamId::from_bytes(*b"\x01\x23\x45\x67\x89\xAB\xCD\xEF"),
        epoch: 7,
        activator: "edge-0".to_owned(),
        client: "[2001:db8::1]:50000".parse().unwrap(),
        identities: vec![Identity::of_stream(&secret(), &app, &key), destinations[1].url.identity(&secret())],
        destinations,
        app,
        key,
        policy: Policy {
            hold_left: Duration::from_millis(118_250),
            grace: Duration::from_secs(10),
            replay_time: Duration::from_secs(4),
            replay_bytes: 8 << 20,
            lag_time: Duration::from_secs(2),
            lag_bytes: 4 << 20,
        },
        transport,
        resumed,
        snapshot: if resumed { mid_message() } else { fresh() },
    }
}

/// The same destinations with their names and a backup of the first; the session of the second was to begin anew.
pub fn destinations() -> DestinationList {
    let mut list = destinations_of_version_1();
    let key = StreamKey::parse("s3cr3t-key?t=t0ken").unwrap();
    let url = PushTemplate::parse("rtmps://backup.example/live/{key}").unwrap().resolve("live", &key).unwrap();
    list.publisher = "studio-a".to_owned();
    list.destinations[0].backup = Some(BackupDestination { url, after: Duration::from_secs(10) });
    list
}

/// The same without what version 1 cannot say.
pub fn destinations_of_version_1() -> DestinationList {
    let Assignment { destinations, identities, .. } = assignment(Transport::Link, false);
    let parts = ["origin", "cdn"].into_iter().zip(destinations).zip([(None, 0), (Some(identities[1]), 3)]);
    let destinations = parts.map(|((name, Destination { url, required }), (identity, renewed))| ListedDestination {
        name: name.to_owned(),
        url,
        required,
        identity,
        renewed,
        backup: None,
    });
    DestinationList { revision: 4, publisher: String::new(), destinations: destinations.collect() }
}

/// A whole preface with given nonces: the worker's bytes, the activator's bytes, the keys.
pub fn preface() -> (Vec<u8>, Vec<u8>, SessionKeys) {
    let mut activator = ActivatorSide::new(&secret(), [2; 32]);
    let (mut worker, mut sent) = WorkerSide::new(&secret(), *b"0123456789abcdef", [1; 32]);
    let mut answered = activator.handle(&sent).output;
    let proof = worker.handle(&answered).output;
    let last = activator.handle(&proof);
    sent.extend(proof);
    let end = worker.handle(&last.output);
    answered.extend(last.output);
    let (Step::Done(keys), Step::Done(same)) = (end.step, last.step) else { panic!("both are done") };
    assert_eq!(keys, same);
    (sent, answered, keys)
}
