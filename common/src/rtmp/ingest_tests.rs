//! Tests of [`super`]: the scanner's table again, with small messages assembled; saved states, also of the past; limits.

use super::*;
use crate::rtmp::type_id;

use crate::rtmp::tables::chunk as table;

use crate::rtmp::tables::chunk::{End, Message, Row, bytes, fmt0, fmt3, rows};

/// Small messages whole, and the bytes of media per message.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    small: Vec<Message>,
    media: Vec<Message>,
    open: Vec<Message>,
    error: Option<ChunkError>,
}

impl Heard {
    fn take(&mut self, ingested: Ingested, stream: &[u8]) {
        match ingested {
            Ingested::Message { header, payload } => {
                assert!(!is_media(header.type_id));
                assert_eq!(payload.len(), header.length as usize);
                self.small.push((header.csid, header.timestamp, header.type_id, header.stream_id, payload));
            }
            Ingested::Media(Scanned::Begin { header, .. }) => {
                assert!(is_media(header.type_id));
                self.open.push((header.csid, header.timestamp, header.type_id, header.stream_id, Vec::new()));
            }
            Ingested::Media(Scanned::Payload { csid, at, len, last }) => {
                let index = self.open.iter().position(|open| open.0 == csid).unwrap();
                self.open[index].4.extend_from_slice(&stream[at as usize..][..len as usize]);
                if last {
                    self.media.push(self.open.remove(index));
                }
            }
            Ingested::Media(Scanned::Aborted { csid, .. }) => self.open.retain(|open| open.0 != csid),
        }
    }

    fn feed(&mut self, ingest: &mut Ingest, stream: &[u8], end: usize) {
        while self.error.is_none() {
            match ingest.next(&stream[ingest.position() as usize..end]) {
                Ok(Some(ingested)) => self.take(ingested, stream),
                Ok(None) => return,
                Err(error) => self.error = Some(error),
            }
        }
    }
}

fn hear(stream: &[u8], ends: impl IntoIterator<Item = usize>) -> (Heard, Ingest) {
    let mut ingest = Ingest::new(0);
    let mut heard = Heard::default();
    for end in ends {
        heard.feed(&mut ingest, stream, end);
    }
    (heard, ingest)
}

#[test]
fn every_row_reads_to_its_messages() {
    for Row { name, bytes, messages, end, .. } in rows() {
        let (heard, ingest) = hear(&bytes, [bytes.len()]);
        let (media, small): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| is_media(message.2));
        assert_eq!(heard.small, small, "{name}");
        assert_eq!(heard.media, media, "{name}");
        match end {
            End::Refused(why) => assert!(heard.error.unwrap().to_string().contains(why), "{name}"),
            End::Clean => assert_eq!((heard.error, ingest.open_messages()), (None, 0), "{name}"),
            End::Open(count) => assert_eq!((heard.error, ingest.open_messages()), (None, count), "{name}"),
        }
    }
}

#[test]
fn every_split_point_gives_the_same_also_through_a_saved_state() {
    for Row { name, bytes, .. } in rows() {
        let (whole, at_once) = hear(&bytes, [bytes.len()]);
        for split in 0..=bytes.len().min(1200) {
            let (mut heard, ingest) = hear(&bytes, [split]);
            let saved = postcard::to_stdvec(&ingest.state()).unwrap();
            let mut restored = Ingest::restore(&postcard::from_bytes(&saved).unwrap()).unwrap();
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
        let mut ingest = Ingest::new(0);
        let mut heard = Heard::default();
        while let Ok(Some(ingested)) = ingest.next(&bytes[ingest.position() as usize..]) {
            heard.take(ingested, &bytes);
            ingest = Ingest::restore(&ingest.state()).unwrap();
        }
        heard.feed(&mut ingest, &bytes, bytes.len());
        assert_eq!(heard, whole, "{name}");
    }
}

#[test]
fn state_before_a_chunk_is_the_state_at_its_first_byte() {
    for Row { name, bytes, .. } in rows() {
        let mut ingest = Ingest::new(0);
        loop {
            let before = ingest.state_before_chunk();
            // A fresh one, stopped where the last message begins, saw the same; headers are whole there.
            let (heard, there) = hear(&bytes, [before.position() as usize]);
            if heard.error.is_none() && before.position() > 0 {
                assert_eq!(there.position(), before.position(), "{name}");
                let mut replaced = there.state();
                // A header in the middle of a message has aborted it by the time the new message begins.
                if let Ok(Some(Ingested::Media(Scanned::Aborted { .. }))) =
                    there.clone().next(&bytes[there.position() as usize..])
                {
                    let mut there = there.clone();
                    there.next(&bytes[before.position() as usize..]).unwrap();
                    replaced = there.state();
                }
                assert_eq!(before, replaced, "{name}");
                assert!(Ingest::restore(&before).is_ok(), "{name}");
            }
            match ingest.next(&bytes[ingest.position() as usize..]) {
                Ok(Some(_)) => {}
                _ => break,
            }
        }
    }
}

#[test]
fn long_message_of_unknown_type_is_skipped_wherever_it_is_cut() {
    // A shared object (type 19) of 70,000 bytes, with a frame and a command between its chunks; then one that is aborted.
    let part = |from: usize, to: usize| bytes(70_000)[from..to].to_vec();
    let stream = [
        crate::rtmp::tables::chunk::set_chunk_size(35_000),
        fmt0(5, 0, 70_000, 19, 0),
        part(0, 35_000),
        [fmt0(6, 40, 300, 9, 1), bytes(300), fmt0(3, 0, 40, 20, 0), bytes(40)].concat(),
        [fmt3(5), part(35_000, 70_000)].concat(),
        [fmt0(5, 0, 80_000, 16, 0), bytes(35_000), fmt0(5, 0, 10, 8, 1), bytes(10)].concat(),
    ]
    .concat();
    let (whole, ingest) = hear(&stream, [stream.len()]);
    assert_eq!((whole.error, ingest.open_messages(), ingest.passed()), (None, 0, 2));
    assert_eq!(whole.small.iter().map(|small| small.2).collect::<Vec<_>>(), [1, 20]);
    assert_eq!(whole.media.iter().map(|media| (media.2, media.4.len())).collect::<Vec<_>>(), [(9, 300), (8, 10)]);
    for split in (0..stream.len()).step_by(997) {
        let (mut heard, ingest) = hear(&stream, [split]);
        let mut restored = Ingest::restore(&ingest.state()).unwrap();
        heard.feed(&mut restored, &stream, stream.len());
        assert_eq!(heard, whole, "cut at {split}");
    }
}

#[test]
fn a_command_completed_within_a_keyframe_is_still_open_in_the_state_before_it() {
    let stream = [
        &fmt0(3, 0, 130, 20, 0)[..],
        &bytes(130)[..128],
        &fmt0(6, 20, 200, 9, 1),
        &bytes(200)[..128],
        &fmt3(3),
        &bytes(130)[128..],
    ]
    .concat();
    let (heard, ingest) = hear(&stream, [stream.len()]);
    assert_eq!(heard.small.len(), 1);
    let before = ingest.state_before_chunk();
    assert_eq!(before.open_messages(), 1);
    let mut again = Ingest::restore(&before).unwrap();
    let mut repeated = Heard::default();
    repeated.feed(&mut again, &stream, stream.len());
    assert_eq!(repeated.small, heard.small);
}

#[test]
fn unfinished_commands_are_bounded_together() {
    let part = |csid| [fmt0(csid, 0, 64 << 10, 20, 0), vec![0; 60_000]].concat();
    let stream = [table::set_chunk_size(60_000), part(3), part(4), part(5)].concat();
    let (heard, ingest) = hear(&stream, [stream.len()]);
    assert_eq!(heard.error, Some(ChunkError::TooMuchAssembly));
    assert!(ingest.partials.iter().map(|partial| partial.payload.capacity()).sum::<usize>() < 4 * MAX_ASSEMBLY);
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let stream: Vec<u8> = (2..66).flat_map(|csid| [fmt0(csid, 0, 64 << 10, 20, 0), bytes(128)].concat()).collect();
    let (_, ingest) = hear(&stream, [stream.len()]);
    assert!(ingest.partials.iter().map(|partial| partial.payload.capacity()).sum::<usize>() <= 64 * 256);
}

#[test]
fn impossible_states_are_refused() {
    let stream = [fmt0(3, 0, 200, type_id::COMMAND_AMF0, 0), bytes(128)].concat();
    let (_, ingest) = hear(&stream, [stream.len()]);
    let good = ingest.state();
    assert!(Ingest::restore(&good).is_ok());

    type Spoil = fn(&mut IngestState);
    let table: &[(&str, Spoil)] = &[
        ("payload of an open message", |state| state.partials.clear()),
        ("payload of an open message", |state| state.partials[0].payload.push(0)),
        ("payload of an open message", |state| state.partials[0].header.csid = 9),
        ("payload of an open message", |state| state.partials.push(state.partials[0].clone())),
        ("payload of no open message", |state| {
            let header = MessageHeader { csid: 9, ..state.partials[0].header };
            state.partials.push(Partial { header, payload: vec![0; 128] });
        }),
    ];
    for (why, spoil) in table {
        let mut state = good.clone();
        spoil(&mut state);
        assert_eq!(Ingest::restore(&state).map(|_| ()), Err(ChunkError::State(why)));
    }
}
