//! Tests of [`super`]: one table of exact bytes, and both readers (ours and rml_rtmp's) on what is written.

use super::*;
use crate::rtmp::{ChunkScanner, Scanned, type_id};

const fn header(csid: u32, timestamp: u32, length: u32) -> MessageHeader {
    MessageHeader { csid, timestamp, length, type_id: 9, stream_id: 1 }
}

/// `{name, header, first chunk header, continuation header}`.
const TABLE: &[(&str, MessageHeader, &[u8], &[u8])] = &[
    ("one byte csid", header(4, 0x01_02_03, 0x0A_0B_0C), &[4, 1, 2, 3, 0x0A, 0x0B, 0x0C, 9, 1, 0, 0, 0], &[0xC4]),
    ("highest one byte csid", header(63, 0, 1), &[63, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0], &[0xFF]),
    ("lowest two byte csid", header(64, 0, 1), &[0, 0, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0], &[0xC0, 0]),
    ("highest two byte csid", header(319, 0, 1), &[0, 255, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0], &[0xC0, 255]),
    ("lowest three byte csid", header(320, 0, 1), &[1, 0, 1, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0], &[0xC1, 0, 1]),
    ("highest csid", header(65_599, 0, 1), &[1, 255, 255, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0], &[0xC1, 255, 255]),
    ("last short timestamp", header(4, 0xFF_FFFE, 1), &[4, 255, 255, 254, 0, 0, 1, 9, 1, 0, 0, 0], &[0xC4]),
    (
        "first extended timestamp",
        header(4, 0xFF_FFFF, 1),
        &[4, 255, 255, 255, 0, 0, 1, 9, 1, 0, 0, 0, 0, 255, 255, 255],
        &[0xC4, 0, 255, 255, 255],
    ),
    (
        "highest timestamp",
        header(65_599, u32::MAX, 1),
        &[1, 255, 255, 255, 255, 255, 0, 0, 1, 9, 1, 0, 0, 0, 255, 255, 255, 255],
        &[0xC1, 255, 255, 255, 255, 255, 255],
    ),
    ("id that cannot be written", header(0, 0, 1), &[2, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0], &[0xC2]),
];

#[test]
fn headers_have_the_listed_bytes() {
    for (name, header, first, continuation) in TABLE {
        assert_eq!(&*first_header(header), *first, "{name}");
        assert_eq!(&*continuation_header(header), *continuation, "{name}");
        assert_eq!(first_header_len(header), first.len(), "{name}");
        assert_eq!(continuation_header_len(header), continuation.len(), "{name}");
    }
}

#[test]
fn length_of_a_message_is_known_before_it_is_written() {
    for (name, header, ..) in TABLE {
        for length in [0, 1, 127, 128, 129, 256, 257, 9_000] {
            for chunk_size in [0, 1, 127, 128, 4_096, 9_000, u32::MAX] {
                let (header, mut out) = (MessageHeader { length, ..*header }, Vec::new());
                write_message(&mut out, &header, &vec![7; length as usize], chunk_size);
                assert_eq!(message_len(&header, chunk_size), out.len() as u64, "{name} {length} {chunk_size}");
            }
        }
    }
}

#[test]
fn an_empty_message_is_one_header() {
    let mut out = Vec::new();
    write_message(&mut out, &header(4, 0, 99), &[], 128);
    assert_eq!(out, &*first_header(&header(4, 0, 0)));
}

#[test]
fn chunk_size_zero_does_not_hang() {
    let mut out = Vec::new();
    write_message(&mut out, &header(4, 0, 0), b"abc", 0);
    assert_eq!(out, [&*first_header(&header(4, 0, 3)), b"a", &[0xC4], b"b", &[0xC4], b"c"].concat());
}

#[test]
fn scanner_reads_written_messages() {
    for (name, header, ..) in TABLE.iter().filter(|(_, header, ..)| header.csid > 1) {
        for length in [0, 1, 127, 128, 129, 300] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut wire = Vec::new();
            write_message(&mut wire, header, &payload, 128);
            let mut scanner = ChunkScanner::new(0);
            let mut read = Vec::new();
            let mut begun = None;
            while let Some(found) = scanner.scan(&wire[scanner.position() as usize..]).unwrap() {
                match found {
                    Scanned::Begin { header, .. } => begun = Some(header),
                    Scanned::Payload { at, len, .. } => read.extend_from_slice(&wire[at as usize..][..len as usize]),
                    Scanned::Aborted { .. } => panic!("{name}"),
                }
            }
            assert_eq!(begun, Some(MessageHeader { length, ..*header }), "{name}");
            assert_eq!(read, payload, "{name}");
            assert_eq!(scanner.open_messages(), 0);
        }
    }
}

#[test]
fn rml_rtmp_reads_written_messages() {
    for (name, header, ..) in TABLE.iter().filter(|(_, header, ..)| header.csid > 1) {
        for length in [1, 127, 128, 129, 300] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut wire = Vec::new();
            write_message(&mut wire, header, &payload, 128);
            let mut theirs = rml_rtmp::chunk_io::ChunkDeserializer::new();
            let message = theirs.get_next_message(&wire).unwrap().unwrap();
            assert_eq!(message.timestamp.value, header.timestamp, "{name}");
            assert_eq!(message.type_id, type_id::VIDEO, "{name}");
            assert_eq!(message.message_stream_id, 1, "{name}");
            assert_eq!(message.data[..], payload, "{name}");
        }
    }
}
