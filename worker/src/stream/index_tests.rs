//! The index on messages that were made to be difficult.

use liveedgecast_common::handoff::limits::{MAX_HEADER_BYTES, MAX_METADATA_BYTES};
use liveedgecast_common::rtmp::media::HeaderSlot;
use liveedgecast_common::rtmp::message::Control;
use liveedgecast_common::rtmp::writer::{continuation_header, first_header, write_message};
use liveedgecast_common::testkit::origin;

use liveedgecast_common::rtmp::{Ingest, Ingested, Scanned, is_media};

use super::*;

const REPLAY: Duration = Duration::from_secs(4);
const VIDEO_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1];
const KEYFRAME: &[u8] = &[0x17, 1, 0, 0, 0, 2];
const INTER: &[u8] = &[0x27, 1, 0, 0, 0, 3];
const AUDIO: &[u8] = &[0xAF, 1, 4];
const AUDIO_HEADER: &[u8] = &[0xAF, 0, 0x12, 0x10];

impl Index {
    /// Takes one event of a scanner.
    pub(in crate::stream) fn media(&mut self, now: Instant, scanned: Scanned, memory: &impl Memory) -> IndexProgress {
        let (run, piece) = match scanned {
            Scanned::Begin { header, at } => (Run { header, begins: Some(at), received: 0, last: false }, None),
            Scanned::Payload { csid, at, len, last } => {
                let open = self.open.iter().find(|open| open.header.csid == csid);
                let header = open
                    .map_or(MessageHeader { csid, timestamp: 0, length: 0, type_id: 0, stream_id: 0 }, |open| {
                        open.header
                    });
                (Run { header, begins: None, received: len, last }, Some(Segment { position: at, len }))
            }
            Scanned::Aborted { csid, .. } => {
                self.abort(csid);
                return IndexProgress::default();
            }
        };
        let progress = self.receive(&run, piece.as_slice(), memory);
        if progress.complete {
            self.complete(now, &run, piece.as_slice(), memory);
        }
        progress
    }
}

/// A ring that never forgets.
struct Bytes(Vec<u8>);

impl Memory for Bytes {
    fn bytes(&self, _ring: u32, position: u64, len: usize) -> &[u8] {
        &self.0[position as usize..][..len]
    }
}

struct Fixture {
    index: Index,
    bytes: Bytes,
    ingest: Ingest,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        let index = Index::new(REPLAY);
        Self { index, bytes: Bytes(Vec::new()), ingest: Ingest::new(0), now: origin() }
    }

    /// The last thing noted of each kind.
    fn receive(&mut self, bytes: &[u8]) -> IndexProgress {
        self.bytes.0.extend_from_slice(bytes);
        let mut all = IndexProgress::default();
        while let Some(found) = self.ingest.next(&self.bytes.0[self.ingest.position() as usize..]).unwrap() {
            let Ingested::Media(found) = found else { continue };
            let noted = self.index.media(self.now, found, &self.bytes);
            all.begins |= noted.begins;
            all.keyframe |= noted.keyframe;
            all.complete |= noted.complete;
        }
        all
    }

    fn message(&mut self, type_id: u8, payload: &[u8]) -> IndexProgress {
        self.message_at(0, type_id, payload)
    }

    fn message_at(&mut self, timestamp: u32, type_id: u8, payload: &[u8]) -> IndexProgress {
        let mut wire = Vec::new();
        let header = MessageHeader { timestamp, ..header(4, type_id, payload) };
        write_message(&mut wire, &header, payload, self.ingest.chunk_size());
        self.receive(&wire)
    }

    fn payload(&self, number: u64) -> Vec<u8> {
        let entry = self.index.entry(number).unwrap();
        let segments = self.index.segments(entry);
        segments.flat_map(|segment| self.bytes.bytes(0, segment.position, segment.len as usize).to_vec()).collect()
    }

    fn evict(&mut self, until: u64) {
        let floor = self.index.floor;
        self.index.evict(until, floor, &self.bytes);
    }

    fn headers_before(&self, number: u64) -> Vec<Vec<u8>> {
        self.index.headers_before(number, &self.bytes).into_iter().map(|header| header.payload).collect()
    }
}

const fn header(csid: u32, type_id: u8, payload: &[u8]) -> MessageHeader {
    MessageHeader { csid, timestamp: 0, length: payload.len() as u32, type_id, stream_id: 1 }
}

#[test]
fn interleaved_messages_are_numbered_as_they_complete() {
    let mut fixture = Fixture::new();
    let (video, audio) = ([KEYFRAME, &[7; 300]].concat(), [AUDIO, &[8; 150]].concat());
    let (video_header, audio_header) = (header(6, type_id::VIDEO, &video), header(4, type_id::AUDIO, &audio));
    fixture.receive(&[&*first_header(&video_header), &video[..128]].concat());
    fixture.receive(&[&*first_header(&audio_header), &audio[..128]].concat());
    fixture.receive(&[&*continuation_header(&video_header), &video[128..256]].concat());
    fixture.receive(&[&*continuation_header(&audio_header), &audio[128..]].concat());
    fixture.receive(&[&*continuation_header(&video_header), &video[256..]].concat());
    assert_eq!((fixture.payload(0), fixture.payload(1)), (audio, video));
    let floor = fixture.index.entry(0).unwrap().start;
    assert_eq!(fixture.index.keeps_from(fixture.now, floor), 2, "what one needs, those before it keep too");
}

#[test]
fn group_is_found_by_the_position_that_its_bytes_begin_at() {
    let mut fixture = Fixture::new();
    // Keyframes: messages 1 and 4.
    for payload in [AUDIO, KEYFRAME, INTER, INTER, KEYFRAME, INTER] {
        fixture.message(type_id::VIDEO, payload);
    }
    let starts: Vec<u64> = (0..6).map(|number| fixture.index.entry(number).unwrap().start).collect();
    let groups = [0, starts[0], starts[1], starts[1] + 1, starts[4], starts[4] + 1, u64::MAX];
    assert_eq!(groups.map(|position| fixture.index.group_from(position)), [1, 1, 1, 4, 4, 5, 6]);
    assert_eq!(
        [0, 3, 5, 6].map(|number| fixture.index.needs_from(number)),
        [0, 3, 5, 6].map(|at| starts.get(at).copied())
    );
    fixture.evict(2);
    assert_eq!(fixture.index.needs_from(0), Some(starts[2]));
    assert_eq!((fixture.index.group_from(0), fixture.index.group_from(starts[3])), (4, 4));
    // The messages of a ring before are not of a group of this one.
    fixture.index.begin(Continue::OtherPublisher);
    assert_eq!((fixture.index.group_from(0), fixture.index.needs_from(2)), (6, None));
}

#[test]
fn keyframe_is_known_by_its_first_bytes() {
    let mut fixture = Fixture::new();
    let mut wire = Vec::new();
    write_message(&mut wire, &header(6, type_id::VIDEO, KEYFRAME), KEYFRAME, 128);
    let known: Vec<bool> = wire.iter().map(|byte| fixture.receive(&[*byte]).keyframe).collect();
    let first = wire.len() - KEYFRAME.len() + 1;
    assert_eq!(known.iter().position(|known| *known), Some(first));
    assert_eq!(known.iter().filter(|known| **known).count(), 1);
    assert!(fixture.index.entry(0).unwrap().is_join());
    assert!(!fixture.message(type_id::VIDEO, INTER).keyframe);
    assert!(!fixture.message(type_id::VIDEO, VIDEO_HEADER).keyframe);
    assert_eq!(fixture.index.last_join(), Some(0));
}

#[test]
fn keyframes_of_higher_tracks_are_not_joined_at() {
    let mut fixture = Fixture::new();
    // Enhanced RTMP, multitrack: one track, coded frames, FourCC, track id.
    let track = |id: u8| [&[0x96, 0x01][..], b"hvc1", &[id, 0, 0, 0]].concat();
    fixture.message(type_id::VIDEO, &track(1));
    fixture.message(type_id::VIDEO, &track(0));
    fixture.message(type_id::VIDEO, &track(1));
    let joins: Vec<bool> = (0..3).map(|number| fixture.index.entry(number).unwrap().is_join()).collect();
    assert_eq!(joins, [true, true, false]);
}

#[test]
fn aggregate_becomes_its_messages() {
    let mut fixture = Fixture::new();
    let tag = |type_id: u8, timestamp: u8, payload: &[u8]| {
        let head = [type_id, 0, 0, payload.len() as u8, 0, 0, timestamp, 0, 0, 0, 0];
        [&head[..], payload, &[0; 4]].concat()
    };
    // Longer than a chunk, so that the parts are scattered.
    let long = [INTER, &[9; 200]].concat();
    let aggregate = [
        tag(type_id::VIDEO, 50, KEYFRAME),
        tag(type_id::VIDEO, 60, &long),
        tag(type_id::AUDIO, 65, AUDIO),
        vec![type_id::AUDIO, 0, 0, 99],
    ]
    .concat();
    fixture.message(type_id::AGGREGATE, &aggregate);
    assert_eq!(fixture.index.end(), 3, "what is cut short is left out");
    assert_eq!([fixture.payload(0), fixture.payload(1), fixture.payload(2)], [KEYFRAME, &long, AUDIO]);
    let times: Vec<u32> = (0..3).map(|number| fixture.index.entry(number).unwrap().timestamp).collect();
    assert_eq!(times, [0, 10, 15]);
    assert_eq!(fixture.index.last_join(), Some(0));
}

#[test]
fn aggregate_brings_no_message_that_an_upstream_would_obey() {
    let mut fixture = Fixture::new();
    let tag = |type_id: u8, payload: &[u8]| {
        let head = [type_id, 0, 0, payload.len() as u8, 0, 0, 0, 0, 0, 0, 0];
        [&head[..], payload, &[0; 4]].concat()
    };
    let others: Vec<u8> =
        (0..=u8::MAX).filter(|type_id| *type_id != type_id::AGGREGATE && !is_media(*type_id)).collect();
    let smuggled = others.iter().flat_map(|type_id| tag(*type_id, &[0, 0, 0, 1]));
    let aggregate: Vec<u8> = smuggled.chain(tag(type_id::AUDIO, AUDIO)).collect();
    fixture.message(type_id::AGGREGATE, &aggregate);
    assert_eq!((fixture.index.end(), fixture.payload(0)), (1, AUDIO.to_vec()));
    assert_eq!(fixture.index.unfit(), others.len() as u64, "each is counted");
}

#[test]
fn work_of_an_aggregate_grows_no_faster_than_its_chunks() {
    let mut fixture = Fixture::new();
    let mut wire = Vec::new();
    Control::SetChunkSize(1).write(&mut wire, 128);
    fixture.receive(&wire);
    let tag = [&[type_id::AUDIO, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..], AUDIO, &[0; 4]].concat();
    let aggregate = tag.repeat(300);
    let looks = looks(|| {
        fixture.message(type_id::AGGREGATE, &aggregate);
    });
    assert_eq!((fixture.index.end(), fixture.payload(299)), (300, AUDIO.to_vec()));
    assert!(looks <= 4 * aggregate.len() as u64, "{looks} looks at {} segments", aggregate.len());
}

#[test]
fn headers_are_those_of_their_time_also_after_they_have_left_the_ring() {
    let mut fixture = Fixture::new();
    let (old, new) = ([VIDEO_HEADER, &[1]].concat(), [VIDEO_HEADER, &[2]].concat());
    fixture.message(type_id::VIDEO, &old);
    fixture.message(type_id::VIDEO, KEYFRAME);
    fixture.message(type_id::VIDEO, &new);
    fixture.message(type_id::VIDEO, KEYFRAME);
    let expected = [(0, vec![]), (1, vec![&old]), (3, vec![&new]), (4, vec![&new])];
    for until in [0, 1, 2] {
        fixture.evict(until);
        for (number, headers) in expected.iter().filter(|(number, _)| *number >= until) {
            let headers: Vec<Vec<u8>> = headers.iter().map(|header| (*header).clone()).collect();
            let expected = if *number == 0 && until > 0 { vec![] } else { headers };
            assert_eq!(fixture.headers_before(*number), expected, "before {number}, from {until} on");
        }
    }
    // Another publisher has none.
    fixture.index.begin(Continue::OtherPublisher);
    assert_eq!(fixture.headers_before(fixture.index.end()), Vec::<Vec<u8>>::new());
}

#[test]
fn interval_of_keyframes_is_known_when_messages_are_forgotten_and_ends_with_the_publisher() {
    let mut fixture = Fixture::new();
    let shown = |fixture: &Fixture| fixture.index.keyframe_interval();
    let second = Duration::from_secs(1);
    fixture.message_at(0, type_id::AUDIO, AUDIO);
    fixture.now += second;
    fixture.message_at(1000, type_id::AUDIO, AUDIO);
    assert_eq!(shown(&fixture), None, "audio has no keyframes");
    for (at, known) in [(2000, None), (3000, Some(1000)), (5000, Some(2000))] {
        fixture.now += second;
        fixture.message_at(at, type_id::VIDEO, KEYFRAME);
        fixture.message_at(at + 40, type_id::VIDEO, INTER);
        assert_eq!(shown(&fixture), known);
        fixture.evict(fixture.index.end());
        assert_eq!(shown(&fixture), known, "nothing is kept");
    }
}

#[test]
fn headers_are_kept_within_their_limit() {
    let mut fixture = Fixture::new();
    let mut wire = Vec::new();
    Control::SetChunkSize(0xFF_FFFF).write(&mut wire, 128);
    fixture.receive(&wire);
    let big = |slot: u8| [&[0x96, 0x00][..], b"hvc1", &[slot], &vec![0; MAX_HEADER_BYTES / 2]].concat();
    (0..3).for_each(|slot| {
        fixture.message(type_id::VIDEO, &big(slot));
    });
    let slots = |headers: &[Header]| headers.iter().map(|header| header.slot).collect::<Vec<_>>();
    let before = fixture.index.headers_before(fixture.index.end(), &fixture.bytes);
    assert_eq!(slots(&before), [HeaderSlot::Video { track: 0 }]);
    fixture.evict(fixture.index.end());
    assert_eq!(fixture.index.headers_before(fixture.index.end(), &fixture.bytes), before);
    let state = fixture.index.state(true, &fixture.bytes);
    assert!(state.headers.iter().map(|header| header.payload.len()).sum::<usize>() <= MAX_HEADER_BYTES);
}

/// Metadata of so many bytes.
fn metadata(length: usize) -> Vec<u8> {
    let mut payload = [&[2, 0, 10][..], b"onMetaData"].concat();
    payload.resize(length, 0);
    payload
}

#[test]
fn metadata_and_sequence_headers_do_not_crowd_each_other_out() {
    for metadata_first in [true, false] {
        let mut fixture = Fixture::new();
        let metadata = metadata(MAX_METADATA_BYTES);
        let mut video = VIDEO_HEADER.to_vec();
        video.resize(MAX_HEADER_BYTES, 0);
        let mut sent = [(type_id::DATA_AMF0, &metadata), (type_id::VIDEO, &video)];
        if !metadata_first {
            sent.reverse();
        }
        sent.iter().for_each(|(type_id, payload)| {
            fixture.message(*type_id, payload);
        });
        assert!(fixture.headers_before(2) == [metadata.clone(), video.clone()], "metadata first: {metadata_first}");
        fixture.evict(2);
        let state = fixture.index.state(true, &fixture.bytes);
        assert!(state.headers.iter().map(|header| &header.payload).eq([&metadata, &video]));
        assert_eq!(fixture.index.take_left_out(), None);
    }
}

#[test]
fn header_that_is_too_long_to_be_kept_is_told_once() {
    let mut fixture = Fixture::new();
    fixture.message(type_id::VIDEO, VIDEO_HEADER);
    for expected in [Some(()), None] {
        fixture.message(type_id::DATA_AMF0, &metadata(MAX_METADATA_BYTES + 1));
        let left_out = LeftOut { slot: HeaderSlot::Metadata, bytes: MAX_METADATA_BYTES as u32 + 1 };
        assert_eq!(fixture.index.take_left_out(), expected.map(|()| left_out));
        assert_eq!(fixture.headers_before(fixture.index.end()), [VIDEO_HEADER]);
    }
    fixture.message(type_id::DATA_AMF0, &metadata(20));
    assert_eq!(fixture.headers_before(fixture.index.end()), [metadata(20), VIDEO_HEADER.to_vec()]);
    fixture.message(type_id::DATA_AMF0, &metadata(MAX_METADATA_BYTES + 2));
    assert_eq!(fixture.index.take_left_out(), None, "after one that could be kept");
    let mut long = AUDIO_HEADER.to_vec();
    long.resize(MAX_HEADER_BYTES, 0);
    let sent = [&long, AUDIO_HEADER].into_iter().cycle().take(20);
    let told = sent.filter(|header| {
        fixture.message(type_id::AUDIO, header);
        fixture.index.take_left_out().is_some()
    });
    assert_eq!(told.count(), 1, "of another kind of header, long and short in turns");
    fixture.index.begin(Continue::OtherPublisher);
    fixture.message(type_id::DATA_AMF0, &metadata(MAX_METADATA_BYTES + 1));
    assert!(fixture.index.take_left_out().is_some(), "of another publisher");
}

#[test]
fn headers_of_a_publisher_that_has_gone_take_no_room_from_the_next_one() {
    let mut fixture = Fixture::new();
    let mut long = VIDEO_HEADER.to_vec();
    long.resize(MAX_HEADER_BYTES, 0);
    fixture.message(type_id::VIDEO, &long);
    fixture.message(type_id::VIDEO, KEYFRAME);
    fixture.evict(1);
    // The bytes of the tests' memory are those of one ring.
    fixture.index.begin(Continue::OtherPublisher);
    let audio = [&[0xAF, 0][..], &[0x12, 0x10]].concat();
    fixture.message(type_id::AUDIO, &audio);
    fixture.message(type_id::AUDIO, AUDIO);
    assert_eq!(fixture.headers_before(3), std::slice::from_ref(&audio));
    assert!(fixture.headers_before(1) == [long], "those of the one before are still there for its keyframe");
    fixture.evict(3);
    assert_eq!(fixture.headers_before(3), [audio]);
    assert_eq!(fixture.index.base.len(), 1);
}

#[test]
fn message_overwritten_before_it_was_complete_is_only_counted() {
    let mut fixture = Fixture::new();
    let video = [KEYFRAME, &[7; 300]].concat();
    let header = header(6, type_id::VIDEO, &video);
    fixture.receive(&[&*first_header(&header), &video[..128]].concat());
    let floor = fixture.ingest.position();
    fixture.index.evict(0, floor, &fixture.bytes);
    fixture.receive(&[&*continuation_header(&header), &video[128..256]].concat());
    fixture.receive(&[&*continuation_header(&header), &video[256..]].concat());
    let entry = fixture.index.entry(0).unwrap();
    assert!(!entry.is_whole() && !entry.is_join());
    assert_eq!(fixture.index.segments(entry).count(), 0);
    fixture.message(type_id::AUDIO, AUDIO);
    assert_eq!(fixture.payload(1), AUDIO);
}

#[test]
fn message_in_too_many_chunks_is_only_counted() {
    let mut fixture = Fixture::new();
    let mut wire = Vec::new();
    Control::SetChunkSize(1).write(&mut wire, 128);
    fixture.receive(&wire);
    let long = [INTER, &[7; MAX_OPEN_SEGMENTS]].concat();
    fixture.message(type_id::VIDEO, &long);
    assert!(!fixture.index.entry(0).unwrap().is_whole());
    fixture.message(type_id::VIDEO, KEYFRAME);
    assert_eq!(fixture.payload(1), KEYFRAME);
    assert!(fixture.index.spare.iter().all(|list| list.capacity() < 1024), "its list is not kept");
}

#[test]
fn message_that_cannot_fit_into_the_ring_does_not_leave_early() {
    const REACH: u64 = 1_000;
    // A sixteenth of the length is the most that the chunk headers take.
    for (length, leaves) in [(300, true), (942, true), (943, false), (5_000, false)] {
        let mut fixture = Fixture::new();
        fixture.index.offer_beyond(200);
        let video = [KEYFRAME, &vec![7; length - KEYFRAME.len()]].concat();
        let header = header(6, type_id::VIDEO, &video);
        fixture.receive(&[&*first_header(&header), &video[..128]].concat());
        fixture.index.offer(fixture.now, 6, REACH, &fixture.bytes);
        assert_eq!(fixture.index.early().is_some(), leaves, "{length}");
    }
}

#[test]
fn room_for_many_segments_is_given_back_when_their_messages_are_forgotten() {
    let mut fixture = Fixture::new();
    let mut wire = Vec::new();
    Control::SetChunkSize(1).write(&mut wire, 128);
    fixture.receive(&wire);
    fixture.message(type_id::VIDEO, &[KEYFRAME, &[7; 3 * KEPT_SEGMENTS]].concat());
    fixture.message(type_id::VIDEO, KEYFRAME);
    assert!(fixture.index.segments.capacity() > 3 * KEPT_SEGMENTS);
    fixture.evict(1);
    assert!(fixture.index.segments.capacity() <= 2 * KEPT_SEGMENTS, "{}", fixture.index.segments.capacity());
    assert_eq!(fixture.payload(1), KEYFRAME);
}

#[test]
fn messages_are_forgotten_by_age_and_by_number() {
    let mut fixture = Fixture::new();
    fixture.message(type_id::AUDIO, AUDIO);
    fixture.now += REPLAY;
    fixture.message(type_id::AUDIO, AUDIO);
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 0);
    fixture.now += Duration::from_millis(1);
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 1);
    for _ in 0..MAX_ENTRIES {
        fixture.message(type_id::AUDIO, &[]);
    }
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 2);
}

#[test]
fn group_that_the_edge_of_the_window_falls_into_is_kept_whole() {
    let mut fixture = Fixture::new();
    let second = Duration::from_secs(1);
    // A keyframe every three seconds: messages 0, 3, 6 and 9.
    for at in 0..10 {
        fixture.message(type_id::VIDEO, if at % 3 == 0 { KEYFRAME } else { INTER });
        fixture.now += second;
    }
    // The window reaches back to message 6 and a moment before; then to a moment after it.
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 3);
    fixture.now += Duration::from_millis(1);
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 6);
    fixture.evict(6);
    fixture.now += second * 2;
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 6);
    let floor = fixture.index.entry(7).unwrap().start;
    assert_eq!(
        fixture.index.keeps_from(fixture.now, floor),
        9,
        "without its keyframe, the rest of a group is of no use"
    );
    fixture.now += second;
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 9);
    // A publisher that sends no video any more.
    for _ in 0..40 {
        fixture.message(type_id::AUDIO, AUDIO);
        fixture.now += second;
    }
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), fixture.index.end() - 4);
    // Another publisher: nothing begins at the keyframe of the one before it.
    let mut fixture = Fixture::new();
    fixture.message(type_id::VIDEO, KEYFRAME);
    fixture.index.begin(Continue::OtherPublisher);
    fixture.now += REPLAY + second;
    assert_eq!(fixture.index.keeps_from(fixture.now, 0), 1);
}

#[test]
fn aborted_and_replaced_messages_get_no_entry() {
    let mut fixture = Fixture::new();
    let video = [KEYFRAME, &[7; 300]].concat();
    let header = header(6, type_id::VIDEO, &video);
    let begin = [&*first_header(&header), &video[..128]].concat();
    fixture.receive(&begin);
    let mut abort = Vec::new();
    Control::Abort(6).write(&mut abort, 128);
    fixture.receive(&abort);
    fixture.receive(&begin);
    fixture.receive(&begin);
    assert_eq!(fixture.index.end(), 0);
    fixture.receive(&[&*continuation_header(&header), &video[128..256]].concat());
    fixture.receive(&[&*continuation_header(&header), &video[256..]].concat());
    assert_eq!((fixture.index.end(), fixture.payload(0)), (1, video));
}

#[test]
fn successor_completes_what_was_open() {
    let mut fixture = Fixture::new();
    fixture.message(type_id::VIDEO, VIDEO_HEADER);
    let audio = [AUDIO, &[8; 150]].concat();
    let audio_header = header(5, type_id::AUDIO, &audio);
    fixture.receive(&[&*first_header(&audio_header), &audio[..128]].concat());
    let position = fixture.ingest.position();
    fixture.message(type_id::VIDEO, KEYFRAME);
    let state = {
        // As of the keyframe's beginning.
        let mut index = Index::new(REPLAY);
        std::mem::swap(&mut index, &mut fixture.index);
        index.state(true, &fixture.bytes)
    };
    assert_eq!(state.headers.len(), 1);
    assert_eq!(state.open[0].received, audio[..128]);
    assert!(state.began_with_keyframe);

    let mut successor = Index::new(REPLAY);
    let segment = Segment { position: position - 128, len: 128 };
    successor.restore(fixture.now, &state, &[(audio_header, Some(segment))]);
    assert!(successor.has_video());
    assert_eq!(successor.headers_before(0, &fixture.bytes)[0].payload, VIDEO_HEADER);
    let at = fixture.bytes.0.len() as u64;
    fixture.bytes.0.extend_from_slice(&audio[128..]);
    let rest = Scanned::Payload { csid: 5, at, len: (audio.len() - 128) as u32, last: true };
    assert!(successor.media(fixture.now, rest, &fixture.bytes).complete);
    fixture.index = successor;
    assert_eq!(fixture.payload(0), audio);
    // A message whose beginning is unknown has a number and no bytes: it counts as lost.
    let rest = Scanned::Payload { csid: 77, at, len: 1, last: true };
    assert!(fixture.index.media(fixture.now, rest, &fixture.bytes).complete);
    assert_eq!((fixture.index.end(), fixture.index.unfit()), (2, 1));
}

#[test]
fn successor_goes_on_with_the_clock_of_frames_though_a_header_came_last() {
    let mut fixture = Fixture::new();
    fixture.message_at(100_000, type_id::AUDIO, AUDIO);
    fixture.message_at(100_000, type_id::VIDEO, KEYFRAME);
    fixture.message(type_id::VIDEO, VIDEO_HEADER);
    fixture.message(type_id::AUDIO, AUDIO_HEADER);
    let state = fixture.index.state_now(&fixture.bytes);
    assert_eq!((state.last_timestamp.audio, state.last_timestamp.video), (Some(100_000), Some(100_000)));
    fixture.index = Index::new(REPLAY);
    fixture.index.restore(fixture.now, &state, &[]);
    fixture.message_at(100_040, type_id::VIDEO, INTER);
    fixture.message_at(100_040, type_id::AUDIO, AUDIO);
    assert_eq!(fixture.index.jumps(), 0, "{:?}", fixture.index.last_jump());
    let times = [0, 1].map(|number| fixture.index.entry(number).unwrap().time);
    assert_eq!(times, [100_040; 2]);
}

#[test]
fn steps_back_are_counted() {
    let mut fixture = Fixture::new();
    for timestamp in [10, 20, 5, 15, u32::MAX, 1] {
        fixture.message_at(timestamp, type_id::AUDIO, AUDIO);
    }
    assert_eq!(fixture.index.steps_back(), 2, "wrapping is none");
    fixture.message(type_id::AUDIO, AUDIO_HEADER);
    assert_eq!(fixture.index.steps_back(), 2, "headers often have timestamp 0");
}
