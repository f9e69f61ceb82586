//! Files of an index that scanned bytes fill, read back tag by tag.

use std::time::{Duration, Instant};

use liveedgecast_common::rtmp::writer::write_message;
use liveedgecast_common::rtmp::{Ingest, Ingested, MessageHeader};
use liveedgecast_common::testkit::origin;

use super::*;
use crate::stream::index::Continue;

const VIDEO_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1];
const AUDIO_HEADER: &[u8] = &[0xAF, 0, 0x12, 0x10];
const METADATA: &[u8] = b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x05";

struct Bytes(Vec<u8>);

impl Memory for Bytes {
    fn bytes(&self, _ring: u32, position: u64, len: usize) -> &[u8] {
        &self.0[position as usize..][..len]
    }
}

struct Publisher {
    index: Index,
    bytes: Bytes,
    ingest: Ingest,
    now: Instant,
}

impl Publisher {
    fn new() -> Self {
        let index = Index::new(Duration::from_secs(60));
        Self { index, bytes: Bytes(Vec::new()), ingest: Ingest::new(0), now: origin() }
    }

    /// Headers, as encoders begin.
    fn with_headers() -> Self {
        let mut publisher = Self::new();
        publisher.send(0, type_id::DATA_AMF0, METADATA);
        publisher.send(0, type_id::AUDIO, AUDIO_HEADER);
        publisher.send(0, type_id::VIDEO, VIDEO_HEADER);
        publisher
    }

    fn send(&mut self, timestamp: u32, type_id: u8, payload: &[u8]) {
        let header = MessageHeader { csid: 4, timestamp, length: payload.len() as u32, type_id, stream_id: 1 };
        write_message(&mut self.bytes.0, &header, payload, self.ingest.chunk_size());
        while let Some(found) = self.ingest.next(&self.bytes.0[self.ingest.position() as usize..]).unwrap() {
            if let Ingested::Media(found) = found {
                self.index.media(self.now, found, &self.bytes);
            }
        }
    }

    fn video(&mut self, timestamp: u32, keyframe: bool, length: usize) {
        let mut payload = vec![if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        payload.resize(length, 7);
        self.send(timestamp, type_id::VIDEO, &payload);
    }

    fn audio(&mut self, timestamp: u32) {
        self.send(timestamp, type_id::AUDIO, &[0xAF, 1, 2, 3]);
    }

    fn group(&mut self, timestamp: u32, length: usize) {
        self.video(timestamp, true, length);
        self.audio(timestamp + 7);
        self.video(timestamp + 40, false, 100);
    }

    fn file(&self, part: &ExcerptPart, sent: Option<SentKeyframe>) -> Result<Vec<(u8, u32, usize)>, ExcerptRefusal> {
        let mut file = ExcerptFile::begin(part, sent, &self.index, &self.bytes)?;
        loop {
            if let ControlFlow::Break(ended) = file.step(&self.index, &self.bytes) {
                ended?;
                break;
            }
        }
        let pieces = file.into_pieces();
        let (last, others) = pieces.split_last().unwrap();
        assert!(others.iter().all(|piece| piece.len() == MAX_PIECE) && last.len() <= MAX_PIECE);
        Ok(tags(&pieces.concat()))
    }
}

/// Type, timestamp and length of each tag.
fn tags(file: &[u8]) -> Vec<(u8, u32, usize)> {
    let mut rest = file.strip_prefix(b"FLV\x01").and_then(|rest| rest.get(9..)).expect("the head of a file");
    let mut tags = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize;
        tags.push((rest[0], u32::from_be_bytes([rest[7], rest[4], rest[5], rest[6]]), length));
        assert_eq!(rest[11 + length..][..4], (length as u32 + 11).to_be_bytes());
        rest = &rest[15 + length..];
    }
    tags
}

const HEADERS: [(u8, u32, usize); 3] = [(18, 0, 14), (8, 0, 4), (9, 0, 6)];

#[test]
fn file_has_all_from_the_oldest_keyframe_on_with_the_headers_in_force() {
    let mut publisher = Publisher::with_headers();
    publisher.video(960, false, 50);
    publisher.group(1000, 100_000);
    publisher.audio(990);
    publisher.group(2000, 200_000);
    let groups = [(9, 0, 100_000), (8, 7, 4), (9, 40, 100), (9, 1000, 200_000), (8, 1007, 4), (9, 1040, 100)];
    assert_eq!(publisher.file(&ExcerptPart::All, None).unwrap(), [&HEADERS[..], &groups].concat());
    let pictures = [HEADERS[0], HEADERS[2], (9, 0, 200_000)];
    assert_eq!(publisher.file(&ExcerptPart::LastKeyframe, None).unwrap(), pictures);
    // A group has left the ring.
    let second = publisher.index.last_join().unwrap();
    let floor = publisher.index.entry(second).unwrap().start;
    publisher.index.evict(second, floor, &publisher.bytes);
    let rest = [(9, 0, 200_000), (8, 7, 4), (9, 40, 100)];
    assert_eq!(publisher.file(&ExcerptPart::All, None).unwrap(), [&HEADERS[..], &rest].concat());
}

#[test]
fn destination_is_shown_what_it_was_sent_or_the_reason_is_told() {
    let mut publisher = Publisher::with_headers();
    let asked = |publisher: &Publisher, sent| publisher.file(&ExcerptPart::SentKeyframe("main".into()), sent);
    publisher.audio(0);
    assert_eq!(asked(&publisher, Some(SentKeyframe::Never)), Err(ExcerptRefusal::NeverSent));
    publisher.group(1000, 300);
    publisher.group(2000, 400);
    let first = publisher.index.join_from(0).unwrap();
    let pictures = [HEADERS[0], HEADERS[2], (9, 0, 300)];
    assert_eq!(asked(&publisher, Some(SentKeyframe::Kept(first))).unwrap(), pictures);
    assert_eq!(asked(&publisher, None), Err(ExcerptRefusal::DestinationUnknown));
    assert_eq!(asked(&publisher, Some(SentKeyframe::NotKept)), Err(ExcerptRefusal::NotKept));
}

#[test]
fn stream_without_keyframes_says_whether_there_will_be_any() {
    let mut publisher = Publisher::new();
    assert_eq!(publisher.file(&ExcerptPart::LastKeyframe, None), Err(ExcerptRefusal::NoKeyframe), "nothing has come");
    publisher.send(0, type_id::AUDIO, AUDIO_HEADER);
    publisher.audio(70);
    publisher.audio(90);
    assert_eq!(publisher.file(&ExcerptPart::LastKeyframe, None), Err(ExcerptRefusal::NoVideo));
    let sent = Some(SentKeyframe::NotKept);
    assert_eq!(publisher.file(&ExcerptPart::SentKeyframe("main".into()), sent), Err(ExcerptRefusal::NoVideo));
    assert_eq!(publisher.file(&ExcerptPart::All, None).unwrap(), [(8, 0, 4), (8, 0, 4), (8, 20, 4)]);
    publisher.send(0, type_id::VIDEO, VIDEO_HEADER);
    for part in [ExcerptPart::All, ExcerptPart::LastKeyframe] {
        assert_eq!(publisher.file(&part, None), Err(ExcerptRefusal::NoKeyframe), "video is announced");
    }
}

#[test]
fn file_is_bounded_and_its_steps_are_short() {
    let mut publisher = Publisher::with_headers();
    let third = MOST_BYTES as usize / 3;
    (0..5).for_each(|group| publisher.group(group * 1000, third - 1000));
    let found = publisher.file(&ExcerptPart::All, None).unwrap();
    assert_eq!(
        found.iter().filter(|tag| tag.2 == third - 1000).count(),
        3,
        "whole groups at the beginning are left out"
    );
    assert_eq!(found.last(), Some(&(9, 2040, 100)), "the end is there");
    // One group that is longer than a file: the file ends.
    let mut endless = Publisher::with_headers();
    endless.video(0, true, 1000);
    (1..40).for_each(|at| endless.video(at, false, MOST_BYTES as usize / 20));
    let found = endless.file(&ExcerptPart::All, None).unwrap();
    assert!(found.len() > 20 && found.len() < 26, "{}", found.len());
    let mut file = ExcerptFile::begin(&ExcerptPart::All, None, &endless.index, &endless.bytes).unwrap();
    let before = file.written;
    assert!(file.step(&endless.index, &endless.bytes).is_continue());
    assert!(file.written - before < STEP_BYTES + MOST_BYTES / 20 + 100);
    // It has left the ring meanwhile.
    let until = endless.index.end() - 1;
    endless.index.evict(until, 0, &endless.bytes);
    assert_eq!(file.step(&endless.index, &endless.bytes), ControlFlow::Break(Err(ExcerptRefusal::NoKeyframe)));
}

#[test]
fn file_is_of_one_publisher() {
    let mut publisher = Publisher::with_headers();
    publisher.group(1000, 300);
    let mut file = ExcerptFile::begin(&ExcerptPart::All, None, &publisher.index, &publisher.bytes).unwrap();
    publisher.index.begin(Continue::OtherPublisher);
    assert_eq!(publisher.file(&ExcerptPart::LastKeyframe, None), Err(ExcerptRefusal::NoKeyframe), "the other one's");
    publisher.send(0, type_id::VIDEO, VIDEO_HEADER);
    publisher.group(0, 500);
    assert!(file.step(&publisher.index, &publisher.bytes).is_break());
    let first = tags(&file.into_pieces().concat());
    assert_eq!(first.last(), Some(&(9, 40, 100)), "no message of the other publisher");
    let second = publisher.file(&ExcerptPart::All, None).unwrap();
    assert_eq!(second, [HEADERS[2], (9, 0, 500), (8, 7, 4), (9, 40, 100)]);
}
