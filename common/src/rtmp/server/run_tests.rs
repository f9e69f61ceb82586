//! Tests of [`ServerSession::next_run`]: however the bytes are cut, runs say the same as single events, and leave the same states.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::rtmp::tables::chunk::{self, basic, bytes, ext, fmt0, fmt3, set_chunk_size};
use crate::rtmp::tables::session::{self as table, audio, up_to_publish};

/// A session that is asked for single events and one that is asked for runs, fed alike.
struct Twins {
    single: ServerSession,
    runs: ServerSession,
    ended: bool,
    /// Runs so far.
    count: usize,
}

impl Twins {
    fn new() -> Self {
        Self { single: ServerSession::new(0), runs: ServerSession::new(0), ended: false, count: 0 }
    }

    /// Feeds both up to `end` and compares everything that they say and keep.
    fn feed(&mut self, stream: &[u8], end: usize, why: &str) {
        if self.ended {
            return;
        }
        let (single, single_error) = self.singles(stream, end);
        let (runs, error) = self.runs(stream, end);
        assert_eq!(runs, single, "{why}");
        assert_eq!(error, single_error, "{why}");
        self.ended = error.is_some();
        if !self.ended {
            assert_eq!(self.runs.state(), self.single.state(), "{why}");
            assert_eq!(self.runs.state_before_chunk(), self.single.state_before_chunk(), "{why}");
            assert_eq!(self.runs.is_ended(), self.single.is_ended(), "{why}");
        }
        assert_eq!(self.runs.take_output(), self.single.take_output(), "{why}");
    }

    fn singles(&mut self, stream: &[u8], end: usize) -> (Vec<Event>, Option<SessionError>) {
        let (session, mut events) = (&mut self.single, Vec::new());
        loop {
            match session.next(&stream[session.position() as usize..end]) {
                Ok(Some(Event::Media(Scanned::Payload { csid, len: 0, last, .. }))) => {
                    events.push(Event::Media(Scanned::Payload { csid, at: 0, len: 0, last }));
                }
                Ok(Some(event)) => {
                    decide(session, &event);
                    events.push(event);
                }
                Ok(None) => return (events, None),
                Err(error) => return (events, Some(error)),
            }
        }
    }

    /// The runs as single events. Stops when all bytes are used, without asking whether there is more.
    fn runs(&mut self, stream: &[u8], end: usize) -> (Vec<Event>, Option<SessionError>) {
        let (mut events, mut pieces) = (Vec::new(), vec![Piece { position: 7, len: 7 }]);
        while self.runs.position() < end as u64 {
            let input = &stream[self.runs.position() as usize..end];
            match self.runs.next_run(input, &mut pieces) {
                Ok(Some(RunEvent::Run(run))) => {
                    self.count += 1;
                    spread(&run, &pieces, &mut events);
                }
                Ok(Some(RunEvent::Other(event))) => {
                    assert!(pieces.is_empty());
                    assert!(!matches!(event, Event::Media(Scanned::Begin { .. } | Scanned::Payload { .. })));
                    decide(&mut self.runs, &event);
                    events.push(event);
                }
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        (events, None)
    }
}

fn decide(session: &mut ServerSession, event: &Event) {
    if *event == Event::Publish {
        session.accept_publish();
    }
}

fn spread(run: &Run, pieces: &[Piece], events: &mut Vec<Event>) {
    let Run { header, begins, received, last } = *run;
    if let Some(at) = begins {
        events.push(Event::Media(Scanned::Begin { header, at }));
    }
    let taken: u32 = pieces.iter().map(|piece| piece.len).sum();
    if begins.is_some() {
        assert_eq!(taken, received);
    }
    assert_eq!(last, received == header.length);
    let mut payload = |at, len, last| {
        events.push(Event::Media(Scanned::Payload { csid: header.csid, at, len, last }));
    };
    for (index, piece) in pieces.iter().enumerate() {
        payload(piece.position, piece.len, last && index + 1 == pieces.len());
    }
    if pieces.is_empty() && last {
        payload(0, 0, true);
    }
}

/// The rows of both tables as bytes of one publisher: those of chunks come behind a publish.
fn streams() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let chunks = chunk::rows().into_iter().map(|row| (row.name, [up_to_publish(), row.bytes].concat()));
    table::rows().into_iter().map(|row| (row.name, row.bytes)).chain(chunks)
}

/// Every byte of short streams, and some hundred places of long ones.
fn steps_to(end: usize) -> impl Iterator<Item = usize> {
    (0..end).step_by(1 + end / 1000).chain([end])
}

#[test]
fn runs_say_the_same_as_single_events_at_any_split_point_near_the_end() {
    for (name, stream) in streams() {
        // The end is where rows differ; each session begins anew.
        let beginning = stream.len().saturating_sub(150);
        for split in beginning..=stream.len() {
            let mut twins = Twins::new();
            for end in [split, stream.len()] {
                twins.feed(&stream, end, name);
            }
        }
    }
}

#[test]
fn runs_say_the_same_as_single_events_in_small_parts() {
    for (name, stream) in streams() {
        let mut twins = Twins::new();
        steps_to(stream.len()).for_each(|end| twins.feed(&stream, end, name));
    }
}

#[test]
fn runs_go_on_from_any_saved_state() {
    for (name, stream) in streams() {
        let mut twins = Twins::new();
        for end in steps_to(stream.len()) {
            twins.feed(&stream, end, name);
            if twins.ended {
                break;
            }
            // Before the next message, the state of the past is the one that was saved.
            twins.single = ServerSession::restore(&twins.single.state()).unwrap();
            twins.runs = ServerSession::restore(&twins.runs.state()).unwrap();
        }
    }
}

#[test]
fn message_in_one_arrival_is_one_run_whatever_its_chunks_are() {
    let mut twins = Twins::new();
    let begin = [up_to_publish(), audio(0, 10), audio(20, 10)].concat();
    twins.feed(&begin, begin.len(), "publish");
    for (chunk_size, length) in [(128, 9_000_usize), (4_096, 9_000), (60_000, 371)] {
        let start = twins.runs.position() as usize;
        let message = table::message(chunk_size, 4, 8, 1, &bytes(length));
        let stream = [vec![0; start], set_chunk_size(chunk_size as u32), message].concat();
        // The Set Chunk Size is read together with the beginning of the message behind it, which may not be a run yet.
        twins.feed(&stream, stream.len(), "first");
        let start = twins.runs.position() as usize;
        let stream = [vec![0; start], table::message(chunk_size, 4, 8, 1, &bytes(length))].concat();
        let before = twins.count;
        twins.feed(&stream, stream.len(), "second");
        assert_eq!(twins.count - before, 1, "{chunk_size} {length}");
    }
}

#[test]
fn end_of_an_empty_message_needs_no_more_bytes() {
    let stream = [up_to_publish(), fmt0(4, 0, 0, 8, 1)].concat();
    let mut twins = Twins::new();
    twins.feed(&stream, stream.len(), "empty");
    assert_eq!(twins.count, 1);
}

#[test]
fn first_run_of_a_long_message_comes_before_its_end() {
    let short = [fmt0(6, 0, 9, 9, 1), bytes(9)].concat();
    let long = [fmt0(6, 5, 20_000, 9, 1), bytes(4_096), fmt3(6), bytes(1_000)].concat();
    let stream = [up_to_publish(), set_chunk_size(4_096), short.clone(), short, long].concat();
    let (mut session, mut pieces, mut found) = (ServerSession::new(0), Vec::new(), None);
    while let Some(event) = session.next_run(&stream[session.position() as usize..], &mut pieces).unwrap() {
        match event {
            RunEvent::Run(run) => found = Some((run, pieces.clone())),
            RunEvent::Other(event) => decide(&mut session, &event),
        }
    }
    let (run, pieces) = found.unwrap();
    let at = stream.len() as u64 - (12 + 4_096 + 1 + 1_000);
    let header = MessageHeader { csid: 6, timestamp: 5, length: 20_000, type_id: 9, stream_id: 1 };
    assert_eq!(run, Run { header, begins: Some(at), received: 5_096, last: false });
    let piece = |position, len| Piece { position, len };
    assert_eq!(pieces, [piece(at + 12, 4_096), piece(at + 12 + 4_097, 1_000)]);
    assert_eq!(session.state_before_chunk().position(), at);
}

/// One chunk: its stream by index, the format, the message that it may begin.
#[derive(Clone, Debug)]
struct Step {
    csid: usize,
    format: u8,
    timestamp: u32,
    length: u32,
    type_id: u8,
    stream_id: u32,
    repeat: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let timestamp = prop_oneof![4 => 0_u32..100, 1 => 0xFF_FFF0_u32..0x0100_0010];
    let length = prop_oneof![1 => Just(0_u32), 2 => 1_u32..40, 4 => 0_u32..700];
    let type_id = prop_oneof![3 => Just(8_u8), 4 => Just(9), 1 => Just(18), 1 => Just(22), 1 => Just(3), 1 => Just(20)];
    let stream_id = prop_oneof![4 => Just(1_u32), 1 => Just(0), 1 => Just(2)];
    let format = prop_oneof![1 => Just(0_u8), 5 => Just(3)];
    (
        prop_oneof![3 => Just(0_usize), 3 => Just(1), 1 => Just(2)],
        format,
        timestamp,
        length,
        type_id,
        stream_id,
        any::<bool>(),
    )
        .prop_map(|(csid, format, timestamp, length, type_id, stream_id, repeat)| Step {
            csid,
            format,
            timestamp,
            length,
            type_id,
            stream_id,
            repeat,
        })
}

/// The bytes of the steps: fmt3 where that goes on with a message, else fmt0.
fn write(steps: &[Step], chunk_size: u32) -> Vec<u8> {
    let mut out = [up_to_publish(), set_chunk_size(chunk_size)].concat();
    // Payload still to come, and the extended timestamp, of each chunk stream.
    let mut open: [(u32, Option<u32>); 3] = Default::default();
    for step in steps {
        let (csid, (missing, extended)) = ([4, 6, 70][step.csid], &mut open[step.csid]);
        if step.format == 3 && *missing > 0 {
            out.extend(basic(3, csid));
            out.extend(extended.filter(|_| step.repeat).map(ext).unwrap_or_default());
        } else {
            out.extend(fmt0(csid, step.timestamp.min(0xFF_FFFF), step.length, step.type_id, step.stream_id));
            *extended = (step.timestamp >= 0xFF_FFFF).then_some(step.timestamp);
            out.extend(extended.map(ext).unwrap_or_default());
            *missing = step.length;
        }
        let taken = chunk_size.min(*missing);
        *missing -= taken;
        out.extend((0..taken).map(|byte| 0x55 + (byte % 9) as u8));
    }
    out
}

proptest! {
    #[test]
    fn runs_say_the_same_as_single_events_of_any_publisher(
        steps in prop::collection::vec(step(), 1..60),
        chunk_size in prop_oneof![Just(1_u32), Just(128), 1_u32..300],
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let stream = write(&steps, chunk_size);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).chain([stream.len()]).collect();
        ends.sort_unstable();
        let mut twins = Twins::new();
        for end in ends {
            twins.feed(&stream, end, "any publisher");
        }
    }
}
