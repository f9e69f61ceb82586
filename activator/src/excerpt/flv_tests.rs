//! Files of synthetic streams, read back tag by tag.

use liveedgecast_common::handoff::StreamState;
use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::Command;
use liveedgecast_common::rtmp::writer;

use super::*;
use flv::SET_DATA_FRAME;

const CHUNK: u32 = 128;
const CONFIGURATION: &[u8] = &[0x17, 0, 0, 0, 0, 1, 66, 0, 30];
const AAC: &[u8] = &[0xAF, 0, 0x12, 0x10];

fn chunks(csid: u32, type_id: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = MessageHeader { csid, timestamp, length: 0, type_id, stream_id: 1 };
    writer::write_message(&mut bytes, &header, payload, CHUNK);
    bytes
}

fn picture(timestamp: u32, key: bool, length: usize) -> Vec<u8> {
    chunks(6, type_id::VIDEO, timestamp, &frame(key, length))
}

fn frame(key: bool, length: usize) -> Vec<u8> {
    let mut payload = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    payload.resize(length, 7);
    payload
}

pub(in crate::excerpt) fn sound(timestamp: u32) -> Vec<u8> {
    chunks(4, type_id::AUDIO, timestamp, &[0xAF, 1, 2, 3])
}

/// A session that publishes, without media so far.
fn session() -> ServerSession {
    let mut session = ServerSession::new(3073);
    let mut bytes = Vec::new();
    let app = Value::Object(vec![("app".to_owned(), Value::string("live"))]);
    let publish = vec![Value::string("alpha"), Value::string("live")];
    for (number, (name, stream, object, arguments)) in
        [("connect", 0, app, vec![]), ("createStream", 0, Value::Null, vec![]), ("publish", 1, Value::Null, publish)]
            .into_iter()
            .enumerate()
    {
        let command = Command { name: name.to_owned(), transaction: number as f64 + 1.0, object, arguments };
        command.write(&mut bytes, 3, stream, CHUNK);
    }
    let start = session.position();
    while let Some(event) = session.next(&bytes[(session.position() - start) as usize..]).unwrap() {
        if event == Event::Publish {
            session.accept_publish();
        }
    }
    session
}

/// A snapshot of a stream with these headers.
pub(in crate::excerpt) fn snapshot() -> Snapshot {
    let metadata = [SET_DATA_FRAME, b"\x02\x00\x0aonMetaData\x05"].concat();
    let stored =
        |slot, type_id, payload: &[u8]| StoredHeader { slot, type_id, timestamp: 0, payload: payload.to_vec() };
    let headers = vec![
        stored(HeaderSlot::Metadata, type_id::DATA_AMF0, &metadata),
        stored(HeaderSlot::Audio { track: 0 }, type_id::AUDIO, AAC),
        stored(HeaderSlot::Video { track: 0 }, type_id::VIDEO, CONFIGURATION),
    ];
    Snapshot {
        session: session().state(),
        stream: Some(StreamState { headers, ..StreamState::default() }),
        unread: Vec::new(),
    }
}

/// The media of two groups of pictures, the first of them without its keyframe.
pub(in crate::excerpt) fn media() -> Vec<u8> {
    let parts = [
        picture(960, false, 300),
        sound(990),
        picture(1000, true, 5000),
        sound(995),
        sound(1013),
        picture(1040, false, 400),
    ];
    parts.concat()
}

/// Type, timestamp and payload of each tag.
fn tags(file: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut rest = file.strip_prefix(b"FLV\x01").and_then(|rest| rest.get(9..)).expect("the head of a file");
    let mut tags = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize;
        let timestamp = u32::from_be_bytes([rest[7], rest[4], rest[5], rest[6]]);
        tags.push((rest[0], timestamp, rest[11..11 + length].to_vec()));
        assert_eq!(rest[11 + length..][..4], (length as u32 + 11).to_be_bytes());
        rest = &rest[15 + length..];
    }
    tags
}

fn file(snapshot: &Snapshot, extent: Extent, bytes: &[u8], piece: usize) -> Option<Vec<u8>> {
    let mut excerpt = FlvExcerpt::new(snapshot, extent).expect("a live stream");
    for piece in bytes.chunks(piece) {
        excerpt.push(piece);
    }
    excerpt.finish()
}

#[test]
fn file_begins_with_the_headers_and_a_keyframe_wherever_the_bytes_are_cut() {
    let snapshot = snapshot();
    let whole = file(&snapshot, Extent::All, &media(), usize::MAX).expect("a file");
    assert_eq!(whole[4], 5, "sound and pictures");
    let found = tags(&whole);
    let shape: Vec<_> = found.iter().map(|(kind, timestamp, payload)| (*kind, *timestamp, payload.len())).collect();
    // The sound of 995 belongs before the first picture.
    assert_eq!(shape, [(18, 0, 14), (8, 0, 4), (9, 0, 9), (9, 0, 5000), (8, 13, 4), (9, 40, 400)]);
    assert_eq!(
        (found[0].2.as_slice(), found[3].2.as_slice()),
        (&b"\x02\x00\x0aonMetaData\x05"[..], &frame(true, 5000)[..])
    );
    for piece in [1, 2, 7, 127, 128, 129, 1000] {
        assert_eq!(file(&snapshot, Extent::All, &media(), piece).as_ref(), Some(&whole), "pieces of {piece}");
    }
}

#[test]
fn last_keyframe_comes_with_the_headers_that_are_in_force_then() {
    let other = [0x17, 0, 0, 0, 0, 1, 77, 0, 31];
    let bytes =
        [media(), chunks(6, type_id::VIDEO, 1080, &other), picture(1080, true, 900), picture(1120, false, 80)].concat();
    let found = tags(&file(&snapshot(), Extent::LastKeyframe, &bytes, 100).expect("a file"));
    assert!(found.iter().all(|(kind, ..)| *kind != type_id::AUDIO), "there is no sound to come");
    let pictures: Vec<_> = found.iter().filter(|(kind, ..)| *kind == type_id::VIDEO).collect();
    assert_eq!(pictures.len(), 2, "{found:?}");
    assert_eq!((pictures[0].2.as_slice(), pictures[1].2.len()), (&other[..], 900));
}

#[test]
fn stream_without_a_keyframe_makes_no_file_and_one_without_video_makes_one() {
    let snapshot = snapshot();
    assert!(file(&snapshot, Extent::All, &[picture(0, false, 50), sound(1)].concat(), 99).is_none());
    assert!(file(&snapshot, Extent::All, &[], 99).is_none());
    let mut heard = snapshot;
    heard.stream.as_mut().expect("media").headers.pop();
    let found = tags(&file(&heard, Extent::All, &[sound(70), sound(90)].concat(), 99).expect("a file"));
    assert_eq!(found.iter().map(|(_, timestamp, _)| *timestamp).collect::<Vec<_>>(), [0, 0, 0, 20]);
    assert!(file(&heard, Extent::LastKeyframe, &sound(70), 99).is_none());
}

#[test]
fn message_that_is_half_received_at_the_snapshot_is_whole_in_the_file() {
    let mut before = session();
    let bytes = picture(1000, true, 5000);
    let start = before.position();
    let mut received = Vec::new();
    // Up to a place within the keyframe.
    let input = &bytes[..2000];
    while let Some(event) = before.next(&input[(before.position() - start) as usize..]).unwrap() {
        if let Event::Media(Scanned::Payload { at, len, .. }) = event {
            received.extend_from_slice(&input[(at - start) as usize..][..len as usize]);
        }
    }
    let mut snapshot = snapshot();
    snapshot.session = before.state();
    let rest = bytes[(before.position() - start) as usize..].to_vec();
    assert!(file(&snapshot, Extent::All, &rest, 50).is_none(), "its beginning is missing");
    snapshot.stream.as_mut().expect("media").open = vec![OpenMessage { csid: 6, received }];
    let found = tags(&file(&snapshot, Extent::All, &rest, 50).expect("a file"));
    assert_eq!(found.last().map(|(_, _, payload)| payload), Some(&frame(true, 5000)));
}

#[test]
fn file_is_bounded_and_loses_whole_groups_at_its_beginning() {
    let group =
        |number: u32| [picture(number * 1000, true, MOST_KEPT / 3), picture(number * 1000 + 40, false, 1000)].concat();
    let bytes: Vec<u8> = (0..7).flat_map(group).collect();
    let found = file(&snapshot(), Extent::All, &bytes, 1 << 16).expect("a file");
    assert!(found.len() <= MOST_KEPT + 10_000, "{}", found.len());
    let last = tags(&found).last().map(|(_, _, payload)| payload.len());
    assert_eq!(last, Some(1000), "the end is there");
    // One group that is longer than that: the file ends.
    let endless: Vec<u8> = std::iter::once(picture(0, true, 1000))
        .chain((1..90).map(|at| picture(at, false, MOST_KEPT / 20)))
        .flatten()
        .collect();
    assert!(file(&snapshot(), Extent::All, &endless, 1 << 16).expect("a file").len() <= 2 * MOST_KEPT + 10_000);
}

#[test]
fn messages_without_bytes_count_too() {
    let group = |number: u32| {
        let more = std::iter::repeat_n(chunks(6, type_id::VIDEO, number, &[]), 20_000).flatten();
        [picture(number, true, 500), more.collect()].concat()
    };
    let groups = (0..10).flat_map(group).collect::<Vec<_>>();
    let found = tags(&file(&snapshot(), Extent::All, &groups, 1 << 16).expect("a file"));
    // The bound is looked at where a group begins.
    assert!(found.len() < MOST_KEPT / PER_MESSAGE + 20_010, "{}", found.len());
    assert!(found.iter().any(|(_, timestamp, _)| *timestamp > 0), "the end is there");
    // A publisher that sends nothing else has no second group.
    let endless = [picture(0, true, 500), chunks(6, type_id::VIDEO, 0, &[]).repeat(400_000)].concat();
    let found = tags(&file(&snapshot(), Extent::All, &endless, 1 << 16).expect("a file"));
    assert!(found.len() < 2 * MOST_KEPT / PER_MESSAGE + 10, "{}", found.len());
}
