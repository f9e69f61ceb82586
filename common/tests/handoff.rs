//! The handoff's machines from outside: preface, frames, state page and their content, whole and in pieces, honest and hostile.
#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use bytes::Bytes;
use liveedgecast_common::handoff::frame::{Reader, data_header};
use liveedgecast_common::handoff::limits::{
    MAX_ASSIGNMENT_BYTES, MAX_DATA_BYTES, MAX_DESTINATIONS, MAX_HEADER_BYTES, MAX_LIST_BYTES, MAX_METADATA_BYTES,
    MAX_SNAPSHOT_BYTES, MAX_TEXT_BYTES, MAX_UNREAD_BYTES,
};
use liveedgecast_common::handoff::page::{self, SLOT_BYTES};
use liveedgecast_common::handoff::preface::{PrefaceProgress, Step};
use liveedgecast_common::handoff::{
    ActivatorSide, Assignment, Close, Decline, Frame, FrameError, PrefaceError, PublisherEnd, SessionKeys, Snapshot,
    StoredHeader, Transport, WireError, WorkerSide,
};
use liveedgecast_common::key::Secret;
use liveedgecast_common::rtmp::media::HeaderSlot;
use liveedgecast_common::sys::{STATE_BYTES, UnmappedRing};
use proptest::prelude::*;

mod samples;

const TOKEN: [u8; 16] = *b"0123456789abcdef";

// The preface.

/// Gives a side its input in pieces; returns its answers and its state.
fn feed(input: &[u8], step: usize, mut handle: impl FnMut(&[u8]) -> PrefaceProgress) -> (Vec<u8>, Step) {
    let (mut at, mut output, mut last) = (0, Vec::new(), Step::More);
    while at < input.len() {
        let progress = handle(&input[at..input.len().min(at + step)]);
        output.extend(progress.output);
        last = progress.step;
        if progress.used == 0 {
            break;
        }
        at += progress.used;
    }
    (output, last)
}

/// Joins both sides; bytes go in pieces of `step`. Returns the final states of worker and activator.
fn join(worker_secret: &Secret, activator_secret: &Secret, step: usize) -> (Step, Step, Option<[u8; 16]>) {
    let (mut worker, hello) = WorkerSide::new(worker_secret, TOKEN, [1; 32]);
    let mut activator = ActivatorSide::new(activator_secret, [2; 32]);
    let (challenge, _) = feed(&hello, step, |piece| activator.handle(piece));
    let (proof, _) = feed(&challenge, step, |piece| worker.handle(piece));
    let (answer, activator_step) = feed(&proof, step, |piece| activator.handle(piece));
    let (_, worker_step) = feed(&answer, step, |piece| worker.handle(piece));
    (worker_step, activator_step, activator.token())
}

#[test]
fn both_sides_prove_themselves_however_the_bytes_are_cut() {
    for step in 1..200 {
        let (worker, activator, token) = join(&samples::secret(), &samples::secret(), step);
        assert!(matches!(worker, Step::Done(_)) && worker == activator, "{step}");
        assert_eq!(token, Some(TOKEN));
    }
}

#[test]
fn worker_that_was_told_the_challenge_proves_itself_in_its_first_message() {
    for step in 1..200 {
        let (mut worker, first) = WorkerSide::told(&samples::secret(), TOKEN, [1; 32], [2; 32]);
        let mut activator = ActivatorSide::challenging(&samples::secret(), |token| {
            assert_eq!(token, TOKEN);
            [2; 32]
        });
        let (answer, activator_step) = feed(&first, step, |piece| activator.handle(piece));
        let (nothing, worker_step) = feed(&answer, step, |piece| worker.handle(piece));
        assert!(matches!(worker_step, Step::Done(_)) && worker_step == activator_step && nothing.is_empty(), "{step}");
        // The bytes are those of the longer way.
        let (sent, answered, keys) = samples::preface();
        assert_eq!((first, answer, activator_step), (sent, answered, Step::Done(keys)));
    }
}

#[test]
fn challenge_that_was_told_is_good_for_the_activator_that_told_it_alone() {
    let told = || WorkerSide::told(&samples::secret(), TOKEN, [1; 32], [2; 32]);
    let (mut worker, first) = told();
    let progress = ActivatorSide::new(&samples::secret(), [3; 32]).handle(&first);
    assert_eq!(progress.step, Step::Failed(PrefaceError::Proof));
    assert_eq!(worker.handle(&progress.output).step, Step::Failed(PrefaceError::Proof));
    let (mut worker, _) = told();
    assert_eq!(worker.handle(b"LECH\x01\x00").step, Step::Failed(PrefaceError::Version { theirs: 256 }));
    // With another secret, both sides stay without a proof of the other.
    let (mut worker, first) = WorkerSide::told(&Secret::new("guess"), TOKEN, [1; 32], [2; 32]);
    let progress = ActivatorSide::new(&samples::secret(), [2; 32]).handle(&first);
    assert_eq!((progress.step, worker.handle(&progress.output).step), (Step::Failed(PrefaceError::Proof), Step::More));
}

#[test]
fn another_secret_fails_at_the_activator_and_learns_nothing() {
    for step in [1, 7, 1000] {
        let (worker, activator, _) = join(&Secret::new("guess"), &samples::secret(), step);
        assert_eq!(activator, Step::Failed(PrefaceError::Proof));
        // The worker got no proof to try secrets on.
        assert_eq!(worker, Step::More);
    }
}

#[test]
fn an_activator_with_another_secret_is_not_believed() {
    let (mut worker, hello) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
    let mut impostor = ActivatorSide::new(&Secret::new("guess"), [2; 32]);
    worker.handle(&impostor.handle(&hello).output);
    let progress = worker.handle(&[7; 32]);
    assert_eq!(progress, PrefaceProgress { used: 32, output: vec![], step: Step::Failed(PrefaceError::Proof) });
    // The error stays.
    assert_eq!(
        worker.handle(&[7; 32]),
        PrefaceProgress { used: 0, output: vec![], step: Step::Failed(PrefaceError::Proof) }
    );
}

#[test]
fn recorded_preface_is_refused() {
    let (sent, answered, keys) = samples::preface();
    // The same bytes to another connection of the activator.
    let progress = ActivatorSide::new(&samples::secret(), [3; 32]).handle(&sent);
    assert_eq!(progress.step, Step::Failed(PrefaceError::Proof));
    // And to another connection of the worker.
    let (mut worker, _) = WorkerSide::new(&samples::secret(), TOKEN, [9; 32]);
    assert_eq!(worker.handle(&answered).step, Step::Failed(PrefaceError::Proof));
    // A reflected preface: the worker's own bytes come back to it.
    let (mut worker, hello) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
    let proof = worker.handle(&answered[..38]).output;
    let _ = worker.handle(&proof);
    assert_eq!(worker.handle(&proof).step, Step::Failed(PrefaceError::Proof));
    let (mut worker, _) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
    assert!(matches!(worker.handle(&[&hello[..], &[0; 64]].concat()).step, Step::Failed(PrefaceError::Proof)));
    // Other nonces, other keys.
    let (mut worker, hello) = WorkerSide::new(&samples::secret(), TOKEN, [5; 32]);
    let mut activator = ActivatorSide::new(&samples::secret(), [2; 32]);
    let proof = worker.handle(&activator.handle(&hello).output).output;
    assert!(matches!(activator.handle(&proof).step, Step::Done(other) if other != keys));
}

#[test]
fn a_changed_byte_anywhere_fails() {
    let (sent, answered, _) = samples::preface();
    for at in 0..sent.len() {
        let mut changed = sent.clone();
        changed[at] ^= 1;
        let step = ActivatorSide::new(&samples::secret(), [2; 32]).handle(&changed).step;
        assert!(matches!(step, Step::Failed(_)), "{at}");
    }
    for at in 0..answered.len() {
        let mut changed = answered.clone();
        changed[at] ^= 1;
        let (mut worker, _) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
        assert!(matches!(worker.handle(&changed).step, Step::Failed(_)), "{at}");
    }
}

#[test]
fn truncated_preface_asks_for_more_bytes() {
    let (sent, answered, _) = samples::preface();
    for cut in 0..sent.len() {
        assert_eq!(ActivatorSide::new(&samples::secret(), [2; 32]).handle(&sent[..cut]).step, Step::More, "{cut}");
    }
    for cut in 0..answered.len() {
        let (mut worker, _) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
        assert_eq!(worker.handle(&answered[..cut]).step, Step::More, "{cut}");
    }
}

#[test]
fn strangers_and_other_versions_are_told_apart_at_once() {
    let activator = || ActivatorSide::new(&samples::secret(), [2; 32]);
    for stranger in [&b"GET / HTTP/1.1\r\n"[..], b"\x03", b"L\0", b"LECG"] {
        let progress = activator().handle(stranger);
        assert_eq!((progress.output, progress.step), (vec![], Step::Failed(PrefaceError::Magic)));
    }
    let mut newer = activator();
    let progress = newer.handle(b"LECH\x00\x02");
    assert_eq!(progress.step, Step::Failed(PrefaceError::Version { theirs: 2 }));
    // The other side finds out as well.
    let (mut worker, _) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
    assert_eq!(worker.handle(b"LECH\x01\x00").step, Step::Failed(PrefaceError::Version { theirs: 256 }));
    assert_eq!(&progress.output[..6], b"LECH\x00\x01");
}

#[test]
fn bytes_after_the_preface_are_left_alone() {
    let (sent, answered, _) = samples::preface();
    let progress = ActivatorSide::new(&samples::secret(), [2; 32]).handle(&[&sent[..], b"frames"].concat());
    assert_eq!(progress.used, sent.len());
    let (mut worker, _) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
    let progress = worker.handle(&[&answered[..], b"frames"].concat());
    assert_eq!(progress.used, answered.len());
    assert!(matches!(progress.step, Step::Done(_)));
}

#[test]
fn prefaces_and_keys_show_no_secret() {
    let (worker, _) = WorkerSide::new(&samples::secret(), TOKEN, [1; 32]);
    let mut activator = ActivatorSide::new(&samples::secret(), [2; 32]);
    activator.handle(&samples::preface().0);
    let shown = format!("{worker:?} {activator:?} {:?} {:?}", samples::preface().2, samples::preface().2.worker_end());
    for secret in ["control secret", "48, 49, 50", "0123456789abcdef"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

// Frames.

fn keys() -> SessionKeys {
    samples::preface().2
}

fn to_worker() -> Vec<Frame> {
    vec![
        Frame::Assign(Box::new(samples::assignment(Transport::Link, false))),
        Frame::Data(Bytes::from_static(b"some bytes of a publisher")),
        Frame::Alive,
        Frame::End(PublisherEnd::Fin),
        Frame::End(PublisherEnd::Reset),
        Frame::End(PublisherEnd::Silent),
        Frame::Kick("by somebody".to_owned()),
        Frame::Destinations(Box::new(samples::destinations())),
    ]
}

fn to_activator() -> Vec<Frame> {
    let returned = |why| Frame::Returned { why };
    vec![
        Frame::Accepted,
        Frame::Started,
        Frame::Reply(Bytes::from_static(b"Publish.Start")),
        Frame::Checkpoint(Box::new(samples::mid_message())),
        Frame::Checkpoint(Box::new(samples::fresh())),
        Frame::Alive,
        returned(Decline::Full),
        returned(Decline::Draining),
        returned(Decline::Other),
        returned(Decline::Moving),
        Frame::Duplicate,
        Frame::Done { how: Close::Graceful, reason: "deleteStream".to_owned() },
        Frame::Done { how: Close::Abort, reason: String::new() },
        Frame::Parted(Box::new(Snapshot { unread: b"what came behind".to_vec(), ..samples::fresh() })),
    ]
}

/// The bytes of frames, written by one end, and the reader of the other.
fn written(frames: &[Frame]) -> (Vec<u8>, Reader) {
    let by_activator = frames.iter().any(|frame| matches!(frame, Frame::Assign(_)));
    let (activator, worker) = (keys().activator_end(), keys().worker_end());
    let (mut writer, reader) = if by_activator { (activator.1, worker.0) } else { (worker.1, activator.0) };
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| writer.write(&mut bytes, frame).unwrap());
    (bytes, reader)
}

fn drain(reader: &mut Reader) -> Vec<Frame> {
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

#[test]
fn frames_come_through_however_they_are_cut() {
    for frames in [to_worker(), to_activator()] {
        let length = written(&frames).0.len();
        for split in 0..=length {
            let (bytes, mut reader) = written(&frames);
            reader.buffer().extend_from_slice(&bytes[..split]);
            let mut read = drain(&mut reader);
            reader.buffer().extend_from_slice(&bytes[split..]);
            read.extend(drain(&mut reader));
            assert!(read == frames, "{split}");
        }
        let (bytes, mut reader) = written(&frames);
        let mut read = Vec::new();
        for byte in bytes {
            reader.buffer().extend_from_slice(&[byte]);
            read.extend(drain(&mut reader));
        }
        assert!(read == frames);
    }
}

#[test]
fn data_is_split_and_can_be_written_from_where_it_lies() {
    let long: Vec<u8> = (0..3 * MAX_DATA_BYTES as u32 + 5).map(|n| n as u8).collect();
    let assign = to_worker().remove(0);
    let (bytes, mut reader) = written(&[assign.clone(), Frame::Data(long.clone().into()), Frame::Data(Bytes::new())]);
    reader.buffer().extend_from_slice(&bytes);
    let parts: Vec<_> = drain(&mut reader)
        .into_iter()
        .filter_map(|frame| match frame {
            Frame::Data(part) => Some(part),
            _ => None,
        })
        .collect();
    assert_eq!(parts.iter().map(Bytes::len).collect::<Vec<_>>(), [MAX_DATA_BYTES, MAX_DATA_BYTES, MAX_DATA_BYTES, 5]);
    assert!(parts.concat() == long);

    let (mut bytes, mut reader) = written(&[assign]);
    bytes.extend_from_slice(&data_header(4));
    bytes.extend_from_slice(b"abcd");
    reader.buffer().extend_from_slice(&bytes);
    assert_eq!(drain(&mut reader).pop(), Some(Frame::Data(Bytes::from_static(b"abcd"))));
}

/// What a worker has taken from a link: the publisher's bytes, and the other frames, each with the number of bytes before it.
#[derive(Debug, Default, PartialEq)]
struct Taken {
    data: Vec<u8>,
    frames: Vec<(usize, Frame)>,
}

impl Taken {
    /// Takes all of `input`, received in pieces of `piece` bytes at most, into a space of `room` bytes at most.
    fn all(reader: &mut Reader, mut input: &[u8], mut piece: impl FnMut() -> usize, room: usize) -> Self {
        let mut taken = Self::default();
        loop {
            // Bytes that were there before, which a receive does not change unless they are counted.
            let mut space = vec![0xEE; room];
            let mut data = reader.take_data(&mut space).unwrap();
            if data == 0 {
                let more = reader.has_more();
                if let Some(frame) = reader.next().unwrap() {
                    assert!(more);
                    taken.frames.push((taken.data.len(), frame));
                    continue;
                }
                assert!(!more);
                if input.is_empty() {
                    return taken;
                }
                let arrived = piece().min(input.len());
                match reader.parts(&mut space) {
                    Some(parts) => {
                        let mut left = &input[..arrived];
                        for mut part in parts {
                            let len = part.len().min(left.len());
                            part[..len].copy_from_slice(&left[..len]);
                            left = &left[len..];
                        }
                        let received = arrived - left.len();
                        data = reader.received(&mut space, received).unwrap();
                        input = &input[received..];
                    }
                    None => {
                        reader.buffer().extend_from_slice(&input[..arrived]);
                        input = &input[arrived..];
                    }
                }
            }
            taken.data.extend_from_slice(&space[..data]);
        }
    }
}

proptest! {
    /// However a link's bytes are cut, and whatever space there is: the publisher's bytes and the frames come whole and in order.
    #[test]
    fn publishers_bytes_are_received_into_the_space_that_is_given(
        lengths in proptest::collection::vec((0..8_u8, 0..3000_usize), 0..30),
        pieces in proptest::collection::vec(1..9000_usize, 1..20),
        room in 1..6000_usize,
        before in 0..8000_usize,
    ) {
        let mut frames = vec![to_worker().remove(0)];
        let mut expected = Taken::default();
        for (kind, length) in lengths {
            let other = match kind {
                0 => Frame::Alive,
                1 => Frame::Kick("k".repeat(length.min(MAX_TEXT_BYTES))),
                2 => Frame::End(PublisherEnd::Fin),
                _ => {
                    let from = expected.data.len();
                    expected.data.extend((from..from + length).map(|at| (at ^ (at >> 8)) as u8));
                    frames.push(Frame::Data(Bytes::copy_from_slice(&expected.data[from..])));
                    continue;
                }
            };
            frames.push(other.clone());
            expected.frames.push((expected.data.len(), other));
        }
        let (mut bytes, mut reader) = written(&frames);
        // An empty data frame is no news.
        bytes.extend_from_slice(&data_header(0));
        bytes.extend_from_slice(&data_header(1));
        bytes.push(7);
        expected.data.push(7);
        // The assignment comes into the buffer, with bytes behind it.
        let first = 5 + u32::from_be_bytes(*bytes[1..].first_chunk().unwrap()) as usize;
        let behind = bytes.len().min(first + before);
        reader.buffer().extend_from_slice(&bytes[..behind]);
        prop_assert!(matches!(reader.next(), Ok(Some(Frame::Assign(_)))));
        let mut pieces = pieces.iter().cycle();
        let taken = Taken::all(&mut reader, &bytes[behind..], || *pieces.next().unwrap(), room);
        prop_assert_eq!(taken, expected);
    }
}

#[test]
fn data_frame_that_arrives_whole_lands_at_the_beginning_of_the_space_and_leaves_no_buffer() {
    let (bytes, mut reader) = written(&[to_worker().remove(0)]);
    reader.buffer().extend_from_slice(&bytes);
    drain(&mut reader);
    let mut space = [0; 100];
    let parts = reader.parts(&mut space).unwrap();
    assert_eq!(parts.each_ref().map(|part| part.len()), [5, 100]);
    let [mut head, mut rest] = parts;
    head.copy_from_slice(&data_header(20));
    rest[..20].copy_from_slice(b"twenty bytes of data");
    assert_eq!(reader.received(&mut space, 25), Ok(20));
    assert!(space.starts_with(b"twenty bytes of data") && reader.buffer().is_empty() && !reader.has_more());
    // The rest of a longer frame: its payload, then the header of the next frame, and no more.
    reader.parts(&mut space).unwrap()[0].copy_from_slice(&data_header(60));
    assert_eq!(reader.received(&mut space, 5 + 10), Ok(10));
    assert_eq!(reader.parts(&mut space).unwrap().map(|part| part.len()), [50, 5]);
    assert_eq!(reader.parts(&mut space[..20]).unwrap().map(|part| part.len()), [20, 0]);
}

#[test]
fn data_frames_that_are_not_allowed_are_refused_where_they_are_received() {
    let mut space = [0; 100];
    // Before the assignment, and too long.
    for (assigned, length, error) in [
        (false, 0, FrameError::Type(2)),
        (
            true,
            MAX_DATA_BYTES + 1,
            FrameError::TooLong { type_id: 2, length: MAX_DATA_BYTES + 1, limit: MAX_DATA_BYTES },
        ),
    ] {
        let head = [&[2][..], &(length as u32).to_be_bytes()].concat();
        let reader = || {
            let (bytes, mut reader) = written(&[to_worker().remove(0)]);
            if assigned {
                reader.buffer().extend_from_slice(&bytes);
                drain(&mut reader);
            }
            reader
        };
        let mut received = reader();
        received.parts(&mut space).unwrap()[0].copy_from_slice(&head);
        assert_eq!(received.received(&mut space, 7), Err(error));
        let mut buffered = reader();
        buffered.buffer().extend_from_slice(&head);
        assert_eq!(buffered.take_data(&mut space), Err(error));
        for mut reader in [received, buffered] {
            assert!(reader.has_more());
            assert_eq!(reader.next(), Err(error), "it is of no further use");
        }
    }
}

#[test]
fn text_is_cut_between_characters() {
    let reason = format!("x{}", "é".repeat(MAX_TEXT_BYTES));
    let (bytes, mut reader) = written(&[Frame::Done { how: Close::Abort, reason: reason.clone() }]);
    reader.buffer().extend_from_slice(&bytes);
    let Some(Frame::Done { reason: read, .. }) = reader.next().unwrap() else { panic!("done") };
    assert!(read.len() == MAX_TEXT_BYTES - 1 && reason.starts_with(&read));
}

/// `{type, to worker, longest payload}`
const LIMITS: &[(u8, bool, usize)] = &[
    (1, true, MAX_ASSIGNMENT_BYTES + 16),
    (2, true, MAX_DATA_BYTES),
    (3, true, 1),
    (4, true, MAX_TEXT_BYTES),
    (5, true, MAX_LIST_BYTES + 16),
    (16, true, 0),
    (16, false, 0),
    (32, false, 0),
    (33, false, 1),
    (34, false, 0),
    (35, false, 0),
    (36, false, MAX_DATA_BYTES),
    (37, false, MAX_SNAPSHOT_BYTES + 16),
    (38, false, 1 + MAX_TEXT_BYTES),
    (39, false, MAX_SNAPSHOT_BYTES + 16),
];

#[test]
fn every_type_has_its_bound_before_anything_is_kept() {
    for type_id in 0..=255 {
        for worker in [true, false] {
            let (mut bytes, mut reader) =
                written(&if worker { vec![to_worker().remove(0)] } else { vec![Frame::Alive] });
            let limit = LIMITS.iter().find(|limit| (limit.0, limit.1) == (type_id, worker)).map(|limit| limit.2);
            let first = type_id == 1 && worker;
            if first {
                reader = keys().worker_end().0;
                bytes.clear();
            }
            let length = limit.map_or(0, |limit| limit as u32 + 1);
            bytes.push(type_id);
            bytes.extend_from_slice(&length.to_be_bytes());
            reader.buffer().extend_from_slice(&bytes);
            if !first {
                assert!(reader.next().unwrap().is_some());
            }
            let error = reader.next().unwrap_err();
            match limit {
                Some(_) => assert!(matches!(error, FrameError::TooLong { type_id: t, .. } if t == type_id), "{error}"),
                None => assert_eq!(error, FrameError::Type(type_id)),
            }
            assert_eq!(reader.next(), Err(error));
        }
    }
}

#[test]
fn the_assignment_is_first_and_comes_once() {
    let mut reader = keys().worker_end().0;
    reader.buffer().extend_from_slice(&data_header(0));
    assert_eq!(reader.next(), Err(FrameError::Type(2)));
    let assign = to_worker().remove(0);
    let (bytes, mut reader) = written(&[assign.clone(), assign]);
    reader.buffer().extend_from_slice(&bytes);
    assert!(reader.next().unwrap().is_some());
    assert_eq!(reader.next(), Err(FrameError::Type(1)));
}

#[test]
fn unknown_codes_and_malformed_text_are_refused() {
    for (type_id, payload) in [(33, &[4][..]), (33, &[]), (38, &[]), (38, &[2]), (38, &[0, 0xFF])] {
        let mut reader = keys().activator_end().0;
        reader.buffer().extend_from_slice(&[type_id, 0, 0, 0, payload.len() as u8]);
        reader.buffer().extend_from_slice(payload);
        assert_eq!(reader.next(), Err(FrameError::Malformed(type_id)), "{payload:?}");
    }
}

#[test]
fn changed_repeated_or_missing_sealed_frames_are_refused() {
    let checkpoints =
        [Frame::Checkpoint(Box::new(samples::fresh())), Frame::Checkpoint(Box::new(samples::mid_message()))];
    let (bytes, _) = written(&checkpoints);
    let first = 5 + u32::from_be_bytes(*bytes[1..].first_chunk().unwrap()) as usize;
    let read = |bytes: &[u8]| {
        let mut reader = keys().activator_end().0;
        reader.buffer().extend_from_slice(bytes);
        loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    };
    assert_eq!(read(&bytes), None);
    for at in (5..first).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert_eq!(read(&changed), Some(FrameError::Seal(37)), "{at}");
    }
    let wrong = Some(FrameError::Seal(37));
    assert_eq!(read(&bytes[first..]), wrong, "left out");
    assert_eq!(read(&[&bytes[..first], &bytes[..first]].concat()), wrong, "repeated");
    assert_eq!(read(&[&bytes[first..], &bytes[..first]].concat()), wrong, "in another order");
    // A frame of the other direction or of another session is refused, too.
    let mut reflected = bytes.clone();
    reflected[0] = 1;
    let mut worker = keys().worker_end().0;
    worker.buffer().extend_from_slice(&reflected);
    assert_eq!(worker.next(), Err(FrameError::Seal(1)));
    for (name, bytes) in [("to the worker", written(&to_worker()).0), ("to the activator", bytes)] {
        for secret in samples::SECRETS {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} can be read {name}");
        }
    }
}

#[test]
fn oversized_frames_are_not_written() {
    let (_, mut writer) = keys().worker_end();
    let mut out = b"before".to_vec();
    for snapshot in too_large() {
        let error = writer.write(&mut out, &Frame::Checkpoint(Box::new(snapshot))).unwrap_err();
        assert!(matches!(error, FrameError::Content(WireError::TooMuch(_))), "{error}");
        assert_eq!(out, b"before");
    }
    let (_, mut writer) = keys().activator_end();
    let mut assignment = samples::assignment(Transport::Link, false);
    assignment.destinations = vec![assignment.destinations[0].clone(); MAX_DESTINATIONS + 1];
    let error = writer.write(&mut out, &Frame::Assign(Box::new(assignment))).unwrap_err();
    assert_eq!((error, &out[..]), (FrameError::Content(WireError::TooMuch("destinations")), &b"before"[..]));
}

#[test]
fn debug_shows_no_secret_and_no_bytes() {
    let mut frames = to_worker();
    frames.extend(to_activator());
    frames.push(Frame::Data(Bytes::from_static(b"s3cr3t-key")));
    frames.push(Frame::Assign(Box::new(samples::assignment(Transport::Descriptor, true))));
    let shown = format!("{frames:?} {frames:#?}");
    for secret in samples::SECRETS {
        assert!(!shown.contains(secret), "{secret}");
    }
    // "s3cr3t", as bytes.
    assert!(!shown.contains("115, 51, 99"), "{shown}");
}

// Snapshots and assignments.

fn too_large() -> Vec<Snapshot> {
    let unread = Snapshot { unread: vec![0; MAX_UNREAD_BYTES + 1], ..samples::fresh() };
    let mut headers = samples::mid_message();
    headers.stream.as_mut().unwrap().headers.push(StoredHeader {
        slot: HeaderSlot::Video { track: 1 },
        type_id: 9,
        timestamp: 0,
        payload: vec![0; MAX_HEADER_BYTES],
    });
    let mut metadata = samples::mid_message();
    metadata.stream.as_mut().unwrap().headers[0].payload = vec![0; MAX_HEADER_BYTES + MAX_METADATA_BYTES];
    let mut many = samples::mid_message();
    let stream = many.stream.as_mut().unwrap();
    stream.headers = vec![StoredHeader { payload: vec![], ..stream.headers[0].clone() }; 66];
    let mut open = samples::mid_message();
    open.stream.as_mut().unwrap().open[0].received = vec![0; 40_000];
    vec![unread, headers, metadata, many, open]
}

#[test]
fn snapshots_and_assignments_come_back_as_they_were() {
    for snapshot in [samples::fresh(), samples::mid_message()] {
        assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
    }
    for (transport, resumed) in [(Transport::Link, false), (Transport::Descriptor, true)] {
        let assignment = samples::assignment(transport, resumed);
        assert_eq!(Assignment::decode(&assignment.encode()).unwrap(), assignment);
    }
}

#[test]
fn a_snapshot_holds_the_longest_headers_and_the_longest_metadata() {
    let mut snapshot = samples::mid_message();
    let headers = &mut snapshot.stream.as_mut().unwrap().headers;
    assert_eq!(headers[0].slot, HeaderSlot::Metadata);
    headers[0].payload = vec![1; MAX_METADATA_BYTES];
    headers[1].payload = vec![2; MAX_HEADER_BYTES / 2];
    headers[2].payload = vec![3; MAX_HEADER_BYTES / 2];
    assert!(Snapshot::decode(&snapshot.encode()).unwrap() == snapshot);
    let mut page = vec![0; STATE_BYTES];
    assert!(page::publish(&mut page, &snapshot));
    assert!(page::read(&page).unwrap() == snapshot);
}

#[test]
fn snapshots_of_another_version_or_with_too_much_are_refused() {
    let bytes = samples::mid_message().encode();
    for cut in 0..bytes.len() {
        assert!(Snapshot::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    assert_eq!(Snapshot::decode(&[&bytes[..], b"x"].concat()), Err(WireError::Malformed));
    let newer = [&[0, 2], &bytes[2..]].concat();
    assert_eq!(Snapshot::decode(&newer), Err(WireError::Version { theirs: 2, ours: 1 }));
    assert_eq!(Snapshot::decode(&vec![0; MAX_SNAPSHOT_BYTES + 1]), Err(WireError::TooMuch("snapshot")));
    for snapshot in too_large() {
        assert!(matches!(Snapshot::decode(&snapshot.encode()), Err(WireError::TooMuch(_))));
    }
}

// The state page.

fn numbered(number: u8) -> Snapshot {
    let mut snapshot = samples::mid_message();
    snapshot.stream.as_mut().unwrap().last_timestamp.audio = Some(number.into());
    // The messages have different lengths, all of them short: debug builds read slowly.
    snapshot.stream.as_mut().unwrap().open.clear();
    snapshot.unread = vec![number; 10 + 50 * usize::from(number % 3)];
    snapshot
}

#[test]
fn a_page_holds_the_last_snapshot() {
    let mut ring = UnmappedRing::create(64 << 10).unwrap().map().unwrap();
    assert_eq!(page::read(ring.page()), None);
    for number in 1..10 {
        assert!(page::publish(ring.page_mut(), &numbered(number)));
        assert_eq!(page::read(ring.page()).unwrap(), numbered(number));
    }
    for snapshot in too_large() {
        assert!(!page::publish(ring.page_mut(), &snapshot));
    }
    assert_eq!(page::read(ring.page()).unwrap(), numbered(9));
}

/// A writer that is killed after any byte of a slot leaves the snapshot before; and its successor publishes as if nothing had happened,
/// whatever bytes were left.
#[test]
fn a_page_torn_at_any_byte_has_the_snapshot_before() {
    let last = numbered(9);
    for number in 1..4_u8 {
        let mut before = vec![0; STATE_BYTES];
        (1..number).for_each(|earlier| assert!(page::publish(&mut before, &numbered(earlier))));
        let mut after = before.clone();
        assert!(page::publish(&mut after, &numbered(number)));
        let changed: Vec<usize> = (0..STATE_BYTES).filter(|at| before[*at] != after[*at]).collect();
        let first = changed[0] / SLOT_BYTES * SLOT_BYTES;
        assert!(changed[changed.len() - 1] < first + SLOT_BYTES, "one slot is written");
        let old = (number > 1).then(|| numbered(number - 1));
        // Forwards, and backwards as well: memory has no guaranteed order of writes.
        let (mut torn, mut backwards) = (before.clone(), before.clone());
        for (done, at) in changed.iter().copied().enumerate().take(changed.len() - 1) {
            torn[at] = after[at];
            assert!(page::read(&torn) == old, "{number} torn at {at}");
            let at = changed[changed.len() - 1 - done];
            backwards[at] = after[at];
            assert!(page::read(&backwards) == old, "{number} torn before {at}");
            if done % 64 == 0 || done < 40 {
                let mut next = torn.clone();
                assert!(page::publish(&mut next, &last));
                assert!(page::read(&next).as_ref() == Some(&last), "{number} torn at {at}");
                // The successor must not overwrite the only whole slot: it may be killed as well.
                let mut slots = (0..STATE_BYTES).step_by(SLOT_BYTES);
                let slot = slots.find(|slot| next[*slot..][..40] != torn[*slot..][..40]).unwrap();
                next[slot + 20] ^= 1;
                assert!(page::read(&next) == old);
            }
        }
    }
}

/// Two processes of one version of the preface have to agree on it.
#[test]
fn a_page_has_the_size_of_its_version() {
    assert_eq!((liveedgecast_common::handoff::preface::VERSION, STATE_BYTES), (1, 1 << 20));
}

#[test]
fn arbitrary_page_never_panics() {
    for bytes in [0, 1, 0x7F, 0xFF] {
        for length in [0, 1, SLOT_BYTES - 1, SLOT_BYTES, STATE_BYTES - 1, STATE_BYTES, STATE_BYTES + 9] {
            let mut page = vec![bytes; length];
            assert_eq!(page::read(&page), None);
            assert_eq!(page::publish(&mut page, &numbered(1)), length >= STATE_BYTES);
        }
    }
    // Lengths that lie, under a right name.
    let mut page = vec![0; STATE_BYTES];
    assert!(page::publish(&mut page, &numbered(1)));
    for length in [0, 1, SLOT_BYTES as u32, u32::MAX] {
        page[4..8].copy_from_slice(&length.to_be_bytes());
        assert_eq!(page::read(&page), None);
    }
    // The highest sequence there is, as a hostile writer might choose it.
    page[8..16].fill(0xFF);
    assert!(page::publish(&mut page, &numbered(2)));
    assert_eq!(page::read(&page).unwrap(), numbered(2));
}
