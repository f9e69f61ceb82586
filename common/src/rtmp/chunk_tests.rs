//! Tests of [`super`]: one table of byte streams, fed whole, byte by byte, at every split point, and through a saved state.

use super::*;

use crate::rtmp::tables::chunk::{End, Message, Row, bytes, fmt0, fmt2, fmt3, rows, set_chunk_size};

/// The result of a byte stream, however it was fed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub(super) messages: Vec<Message>,
    pub(super) aborted: Vec<(u32, u32)>,
    open: Vec<Message>,
    pub(super) error: Option<ChunkError>,
}

impl Heard {
    fn take(&mut self, scanned: Scanned, stream: &[u8]) {
        match scanned {
            Scanned::Begin { header, at } => {
                assert!((at as usize) < stream.len());
                self.open.push((header.csid, header.timestamp, header.type_id, header.stream_id, Vec::new()));
            }
            Scanned::Payload { csid, at, len, last } => {
                let index = self.open.iter().position(|open| open.0 == csid).unwrap();
                self.open[index].4.extend_from_slice(&stream[at as usize..][..len as usize]);
                if last {
                    let message = self.open.remove(index);
                    self.messages.push(message);
                }
            }
            Scanned::Aborted { csid, missing } => {
                self.open.retain(|open| open.0 != csid);
                self.aborted.push((csid, missing));
            }
        }
    }

    /// Feeds the input up to `end`.
    fn feed(&mut self, scanner: &mut ChunkScanner, stream: &[u8], end: usize) {
        while self.error.is_none() {
            match scanner.scan(&stream[scanner.position() as usize..end]) {
                Ok(Some(scanned)) => self.take(scanned, stream),
                Ok(None) => return,
                Err(error) => {
                    // A refused Set Chunk Size may have been heard in part.
                    self.open.iter_mut().filter(|open| open.2 == 1).for_each(|open| open.4.clear());
                    self.error = Some(error);
                }
            }
        }
    }
}

pub(super) fn hear(stream: &[u8], ends: impl IntoIterator<Item = usize>) -> (Heard, ChunkScanner) {
    let mut scanner = ChunkScanner::new(0);
    let mut heard = Heard::default();
    for end in ends {
        heard.feed(&mut scanner, stream, end);
    }
    (heard, scanner)
}

#[test]
fn every_row_scans_to_its_messages() {
    for Row { name, bytes, messages, aborted, end } in rows() {
        let (heard, scanner) = hear(&bytes, [bytes.len()]);
        assert_eq!(heard.messages, messages, "{name}");
        assert_eq!(heard.aborted, aborted, "{name}");
        match end {
            End::Clean => {
                assert_eq!(heard.error, None, "{name}");
                assert_eq!(scanner.position(), bytes.len() as u64, "{name}");
                assert_eq!((heard.open.len(), scanner.open_messages()), (0, 0), "{name}");
            }
            End::Open(count) => {
                assert_eq!(heard.error, None, "{name}");
                assert_eq!((heard.open.len(), scanner.open_messages()), (count, count), "{name}");
            }
            End::Refused(why) => assert!(heard.error.unwrap().to_string().contains(why), "{name}"),
        }
    }
}

#[test]
fn feeding_byte_by_byte_gives_the_same() {
    for Row { name, bytes, .. } in rows() {
        let (whole, at_once) = hear(&bytes, [bytes.len()]);
        let (parts, one_by_one) = hear(&bytes, 0..=bytes.len());
        assert_eq!(parts, whole, "{name}");
        if whole.error.is_none() {
            assert_eq!(one_by_one.state(), at_once.state(), "{name}");
        }
    }
}

#[test]
fn every_split_point_gives_the_same_also_through_a_saved_state() {
    for Row { name, bytes, .. } in rows() {
        let (whole, at_once) = hear(&bytes, [bytes.len()]);
        for split in 0..=bytes.len().min(1200) {
            let (mut heard, scanner) = hear(&bytes, [split]);
            let saved = postcard::to_stdvec(&scanner.state()).unwrap();
            let mut restored = ChunkScanner::restore(&postcard::from_bytes(&saved).unwrap()).unwrap();
            heard.feed(&mut restored, &bytes, bytes.len());
            assert_eq!(heard, whole, "{name} at {split}");
            if whole.error.is_none() {
                assert_eq!(restored.state(), at_once.state(), "{name} at {split}");
            }
        }
    }
}

#[test]
fn any_event_can_be_the_last_before_a_saved_state() {
    for Row { name, bytes, .. } in rows() {
        let (whole, _) = hear(&bytes, [bytes.len()]);
        let mut scanner = ChunkScanner::new(0);
        let mut heard = Heard::default();
        while let Ok(Some(scanned)) = scanner.scan(&bytes[scanner.position() as usize..]) {
            heard.take(scanned, &bytes);
            scanner = ChunkScanner::restore(&scanner.state()).unwrap();
        }
        heard.feed(&mut scanner, &bytes, bytes.len());
        assert_eq!(heard, whole, "{name}");
    }
}

#[test]
fn the_state_before_a_chunk_begins_that_message_again() {
    for Row { name, bytes, .. } in rows() {
        let mut scanner = ChunkScanner::new(0);
        let mut begun = None;
        let mut position = 0;
        while let Ok(Some(scanned)) = scanner.scan(&bytes[scanner.position() as usize..]) {
            if let Scanned::Begin { at, .. } = scanned {
                begun = Some(scanned);
                position = at;
            }
            // Whatever has come since, the state is the one before that `Begin`.
            let Some(begun) = begun else { continue };
            let before = scanner.state_before_chunk();
            assert_eq!(before.position(), position, "{name}");
            let mut again = ChunkScanner::restore(&before).unwrap();
            assert_eq!(again.scan(&bytes[position as usize..]), Ok(Some(begun)), "{name}");
        }
    }
}

#[test]
fn positions_count_from_the_given_start() {
    let stream = [fmt0(4, 0, 2, 8, 1), b"ab".to_vec()].concat();
    let mut scanner = ChunkScanner::new(3073);
    assert!(matches!(scanner.scan(&stream), Ok(Some(Scanned::Begin { at: 3073, .. }))));
    let payload = Scanned::Payload { csid: 4, at: 3085, len: 2, last: true };
    assert_eq!(scanner.scan(&stream[12..]), Ok(Some(payload)));
    assert_eq!(scanner.position(), 3087);
}

#[test]
fn payload_is_reported_as_it_arrives() {
    let stream = [fmt0(4, 0, 200, 9, 1), bytes(100)].concat();
    let mut scanner = ChunkScanner::new(0);
    scanner.scan(&stream).unwrap();
    let part = |at, len| Ok(Some(Scanned::Payload { csid: 4, at, len, last: false }));
    assert_eq!(scanner.scan(&stream[12..13]), part(12, 1));
    assert_eq!(scanner.scan(&[]), Ok(None));
    assert_eq!(scanner.scan(&stream[13..]), part(13, 99));
}

#[test]
fn last_chunk_without_repeated_timestamp_does_not_wait_for_the_next_message() {
    // Old librtmp, past 4 h 39 min: one byte of payload is left, and nothing else is on the way.
    let stream =
        [fmt0(6, 0xFF_FFFF, 129, 9, 1), 0x0100_0010_u32.to_be_bytes().to_vec(), bytes(128), fmt3(6), vec![9]].concat();
    let (heard, _) = hear(&stream, [stream.len()]);
    assert_eq!(heard.messages.len(), 1);
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    // A message of 200 bytes in chunks of 128, cut off by another one of 4 bytes.
    let stream = [fmt0(4, 0, 200, 8, 1), bytes(128), fmt0(4, 0, 4, 8, 1), bytes(4), fmt3(4), bytes(4)].concat();
    let mut scanner = ChunkScanner::new(0);
    let mut walked = Vec::new();
    while let Some(scanned) = scanner.scan(&stream[scanner.position() as usize..]).unwrap() {
        let found = match scanned {
            Scanned::Begin { .. } => "Begin",
            Scanned::Payload { .. } => "Payload",
            Scanned::Aborted { .. } => "Aborted",
        };
        walked.push((found, if scanner.state().chunk.is_some() { "InChunk" } else { "Between" }));
    }
    let message = [("Begin", "InChunk"), ("Payload", "Between")];
    assert_eq!(walked, [&message[..], &[("Aborted", "Between")], &message, &message].concat());
}

#[test]
fn error_is_returned_again() {
    let stream = fmt3(9);
    let mut scanner = ChunkScanner::new(0);
    let error = Err(ChunkError::NeverBegan { csid: 9 });
    assert_eq!(scanner.scan(&stream), error);
    assert_eq!(scanner.scan(&stream), error);
    assert_eq!(scanner.position(), 0);
}

#[test]
fn claimed_lengths_take_no_memory() {
    let many: Vec<u8> = (2..66).flat_map(|csid| [fmt0(csid, 0, 0xFF_FFFF, 9, 1), bytes(128)].concat()).collect();
    let (heard, scanner) = hear(&many, [many.len()]);
    assert_eq!(heard.open.len(), 64);
    assert!(scanner.streams.capacity() * size_of::<StreamLine>() < 8 << 10);
}

#[test]
fn impossible_states_are_refused() {
    let stream = [set_chunk_size(64), fmt0(4, 5, 100, 9, 1), bytes(64), fmt0(5, 5, 10, 8, 1), bytes(3)].concat();
    let (_, scanner) = hear(&stream, [stream.len()]);
    let good = scanner.state();
    assert!(ChunkScanner::restore(&good).is_ok());
    type Spoil = fn(&mut ScannerState);
    let table: &[(&str, Spoil)] = &[
        ("position", |state| state.position = u64::MAX),
        ("chunk size", |state| state.chunk_size = 0),
        ("chunk size", |state| state.chunk_size = 0x0100_0000),
        ("number of chunk streams", |state| {
            state.streams = (0..65).filter_map(|csid| PackedStream::new(csid + 2).unpack()).collect()
        }),
        ("chunk stream id", |state| state.streams[0].csid = 1),
        ("chunk stream id", |state| state.streams[0].csid = 65_600),
        ("chunk stream twice", |state| state.streams[1].csid = 2),
        ("message length", |state| state.streams[1].length = 0x0100_0000),
        ("message length", |state| state.streams[1].type_id = 20),
        ("received bytes", |state| state.streams[1].received = 101),
        ("open message without rest", |state| state.streams[1].received = 100),
        ("rest of the chunk", |state| state.chunk = Some(Chunk { stream: 1, remaining: 37 })),
        ("rest of the chunk", |state| state.chunk = Some(Chunk { stream: 2, remaining: 65 })),
        ("empty chunk", |state| state.chunk = Some(Chunk { stream: 1, remaining: 0 })),
        ("chunk of a complete message", |state| state.chunk = Some(Chunk { stream: 0, remaining: 1 })),
        ("chunk of no chunk stream", |state| state.chunk = Some(Chunk { stream: 3, remaining: 1 })),
        ("aborted message", |state| state.aborted = Some((4, 1))),
        ("aborted message", |state| state.aborted = Some((9, 1))),
        ("length of a control message", |state| {
            state.streams[0].open = true;
            state.streams[0].length = 3;
            state.streams[0].received = 0;
        }),
    ];
    for (why, spoil) in table {
        let mut state = good.clone();
        spoil(&mut state);
        if *why == "message length" {
            state.streams[1].length = state.streams[1].length.max(70_000);
        }
        assert_eq!(ChunkScanner::restore(&state).map(|_| ()), Err(ChunkError::State(why)));
    }
}

#[test]
fn we_read_chunks_of_rml_rtmp() {
    use rml_rtmp::chunk_io::ChunkSerializer;
    use rml_rtmp::messages::MessagePayload;
    use rml_rtmp::time::RtmpTimestamp;

    let mut theirs = ChunkSerializer::new();
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    let sizes = [1, 127, 128, 129, 400, 400, 400, 4096, 5000];
    let packet = theirs.set_max_chunk_size(300, RtmpTimestamp::new(0)).unwrap();
    stream.extend_from_slice(&packet.bytes);
    for (count, length) in sizes.into_iter().cycle().take(40).enumerate() {
        let type_id = if count % 3 == 0 { 9 } else { 8 };
        // Past 2^24 too, but only ever forward: their encoder writes backward steps as huge deltas.
        let timestamp = count as u32 * 0x10_0000;
        let data = bytes(length);
        let timestamp_ = RtmpTimestamp::new(timestamp);
        let payload =
            MessagePayload { timestamp: timestamp_, type_id, message_stream_id: 1, data: data.clone().into() };
        stream.extend_from_slice(&theirs.serialize(&payload, false, false).unwrap().bytes);
        expected.push((timestamp, type_id, data));
    }
    let (heard, _) = hear(&stream, [stream.len()]);
    assert_eq!(heard.error, None);
    let ours: Vec<_> = heard
        .messages
        .into_iter()
        .filter(|message| message.2 != 1)
        .map(|(_, ts, kind, _, data)| (ts, kind, data))
        .collect();
    assert_eq!(ours, expected);
}

#[test]
fn rml_rtmp_reads_the_rows_as_we_do() {
    // Their reader panics on interleaving and mid-message headers, believes fmt3 always repeats the extended timestamp, refuses fresh fmt1
    // and fmt2, and has other limits: only rows without these.
    let not_theirs = [
        "middle",
        "fresh",
        "not repeated",
        "between",
        "within",
        "chunk by chunk",
        "Abort",
        "chunk streams",
        "two forms",
        "below its range",
        "too long",
        "longest",
        "16777215",
        "chunk size",
        "Chunk Size",
    ];
    let mut compared = 0;
    for Row { name, bytes, messages, end, .. } in rows() {
        if end != End::Clean || not_theirs.iter().any(|what| name.contains(what)) {
            continue;
        }
        let mut theirs = rml_rtmp::chunk_io::ChunkDeserializer::new();
        let mut input: &[u8] = &bytes;
        for (_, timestamp, type_id, stream_id, payload) in &messages {
            let message = theirs.get_next_message(input).unwrap().unwrap();
            input = &[];
            assert_eq!(message.timestamp.value, *timestamp, "{name}");
            assert_eq!((message.type_id, message.message_stream_id), (*type_id, *stream_id), "{name}");
            assert_eq!(&message.data[..], payload, "{name}");
        }
        compared += 1;
    }
    assert!(compared >= 40, "only {compared}");
}

mod random {
    use proptest::prelude::*;

    use super::*;
    use crate::rtmp::writer;

    fn message() -> impl Strategy<Value = (MessageHeader, Vec<u8>)> {
        let header = (2_u32..40, any::<u32>(), 3_u8..=25, any::<u32>());
        (header, prop::collection::vec(any::<u8>(), 0..700)).prop_map(
            |((csid, timestamp, type_id, stream_id), payload)| {
                let length = payload.len() as u32;
                (MessageHeader { csid, timestamp, length, type_id, stream_id }, payload)
            },
        )
    }

    proptest! {
        #[test]
        fn written_messages_are_read(messages in prop::collection::vec(message(), 1..12), chunk_size in 1_u32..600, cut in any::<prop::sample::Index>()) {
            let mut stream = set_chunk_size(chunk_size);
            for (header, payload) in &messages {
                writer::write_message(&mut stream, header, payload, chunk_size);
            }
            let (heard, _) = hear(&stream, [cut.index(stream.len()), stream.len()]);
            prop_assert_eq!(heard.error, None);
            let expected: Vec<Message> = messages.into_iter().map(|(header, payload)| (header.csid, header.timestamp, header.type_id, header.stream_id, payload)).collect();
            prop_assert_eq!(&heard.messages[1..], &expected[..]);
        }

        #[test]
        fn messages_compressed_by_rml_rtmp_are_read(
            messages in prop::collection::vec((3_u8..=25, 0_u32..0x0200_0000, prop::collection::vec(any::<u8>(), 1..400)), 1..20),
            uncompressed in any::<bool>(),
        ) {
            use rml_rtmp::{chunk_io::ChunkSerializer, messages::MessagePayload, time::RtmpTimestamp};

            let mut theirs = ChunkSerializer::new();
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            let mut timestamp = 0_u32;
            for (count, (type_id, step, data)) in messages.into_iter().enumerate() {
                // Every other step small, so that all four formats occur; forward only, as their encoder needs it.
                timestamp = timestamp.saturating_add(if count % 2 == 0 { step % 3 } else { step });
                let time = RtmpTimestamp::new(timestamp);
                let message = MessagePayload { timestamp: time, type_id, message_stream_id: 1, data: data.clone().into() };
                // Their uncompressed form repeats fmt0 in every chunk, which is no message any more.
                let force = uncompressed && data.len() <= 128;
                stream.extend_from_slice(&theirs.serialize(&message, force, false).unwrap().bytes);
                expected.push((timestamp, type_id, data));
            }
            let (heard, _) = hear(&stream, [stream.len()]);
            prop_assert_eq!(heard.error, None);
            let ours: Vec<_> = heard.messages.into_iter().map(|(_, timestamp, type_id, _, data)| (timestamp, type_id, data)).collect();
            prop_assert_eq!(ours, expected);
        }

        #[test]
        fn interleaved_chunks_are_put_together(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 2..8),
            order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let mut stream = Vec::new();
            let mut waiting: Vec<(u32, usize)> = (0..messages.len()).map(|index| (index as u32 + 4, 0)).collect();
            let mut order = order.into_iter();
            while !waiting.is_empty() {
                let at = order.next().map_or(0, |index| index.index(waiting.len()));
                let (csid, sent) = waiting[at];
                let payload = &messages[csid as usize - 4];
                let end = payload.len().min(sent + 128);
                stream.extend(if sent == 0 { fmt0(csid, 1, payload.len() as u32, 9, 1) } else { fmt3(csid) });
                stream.extend_from_slice(&payload[sent..end]);
                waiting[at].1 = end;
                if end == payload.len() {
                    waiting.remove(at);
                }
            }
            let (mut heard, _) = hear(&stream, [stream.len()]);
            prop_assert_eq!(heard.error, None);
            heard.messages.sort_by_key(|message| message.0);
            let read: Vec<Vec<u8>> = heard.messages.into_iter().map(|message| message.4).collect();
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_splits_make_no_difference(
            noise in prop::collection::vec(any::<u8>(), 0..2000), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            // A few real beginnings, so that the noise is not refused at once.
            let stream = [fmt0(4, 0, 100, 9, 1), bytes(100), fmt0(3, 0, 1, 20, 0), vec![1], fmt2(4, 1), noise].concat();
            let (whole, _) = hear(&stream, [stream.len()]);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).chain([stream.len()]).collect();
            ends.sort_unstable();
            let (parts, _) = hear(&stream, ends);
            prop_assert_eq!(parts, whole);
        }
    }
}
