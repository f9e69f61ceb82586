//! Index and cursor against a model: random publishers, partial writes, flaps, time. The model knows every sent message, and reads what the
//! upstream got.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use liveedgecast_common::rtmp::media::inspect;
use liveedgecast_common::rtmp::message::Control;
use liveedgecast_common::rtmp::writer::{continuation_header, first_header};
use liveedgecast_common::rtmp::{ChunkScanner, MessageHeader, Scanned, is_media, type_id};
use liveedgecast_common::testkit::origin;
use proptest::prelude::*;

use super::*;
use crate::stream::index::{Continue, EntryPlace, looks};

/// Ring of the tests.
const CAPACITY: u64 = 6 << 10;
const ROOM: u64 = CAPACITY / 8;
const PUBLISHER_CHUNK: usize = 128;
const REPLAY: Duration = Duration::from_secs(4);
const LAG: Bounds = Bounds { time: Duration::from_secs(2), bytes: 4 << 10 };

/// Every byte that was received; reading bytes that a ring would have overwritten is a failure.
#[derive(Default)]
struct Received {
    rings: Vec<Vec<u8>>,
    floor: u64,
}

impl Memory for Received {
    fn bytes(&self, ring: u32, position: u64, len: usize) -> &[u8] {
        let current = ring as usize + 1 == self.rings.len();
        assert!(!current || position >= self.floor, "position {position} has been overwritten");
        &self.rings[ring as usize][position as usize..][..len]
    }
}

#[derive(Clone, Debug)]
struct Message {
    type_id: u8,
    timestamp: u32,
    payload: Vec<u8>,
    clock: u32,
}

impl Message {
    fn is_header(&self) -> bool {
        inspect(self.type_id, &self.payload).header.is_some()
    }

    fn is_keyframe(&self) -> bool {
        inspect(self.type_id, &self.payload).keyframe
    }

    fn is_frame(&self) -> bool {
        self.type_id != type_id::DATA_AMF0 && !self.is_header()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Metadata,
    AudioHeader,
    VideoHeader,
    Keyframe,
    Inter,
    Audio,
    Cue,
}

#[derive(Clone, Debug)]
enum Action {
    /// Messages, each with milliseconds since the one before and length; `interleaved`: the last two share their time on the wire.
    Arrive {
        messages: Vec<(Sort, u64, usize)>,
        interleaved: bool,
    },
    /// The upstream takes this many bytes, in writes of at most so many.
    Write {
        bytes: usize,
        most: usize,
    },
    /// The session is lost with this many bytes.
    Lose(u64),
    Start(u32),
    /// The connection itself has something to say.
    Control,
    Acknowledge,
    Pass(u64),
    Publisher,
    /// So many bytes of the last messages come later.
    Hold(usize),
    /// So many of the bytes that were held come.
    Trickle(usize),
    /// The publisher aborts its open messages: no byte that is held comes, but for the rest of a chunk.
    Abort,
}

struct World {
    now: Instant,
    index: Index,
    memory: Received,
    scanner: ChunkScanner,
    cursor: Cursor,
    /// Upstreams by number.
    messages: Vec<Message>,
    clock: u32,
    timestamp: u32,
    next_id: u32,
    open: BTreeMap<u32, Vec<u8>>,
    headers: BTreeMap<u32, MessageHeader>,
    /// Bytes of each session, chunk size, and how many of them the peer has.
    sessions: Vec<(Vec<u8>, u32, usize)>,
    live: bool,
    /// Chunks that have not come, the first perhaps in part, and the bytes to hold of what comes next.
    held: VecDeque<Vec<u8>>,
    hold: usize,
    within_chunk: usize,
}

impl World {
    fn new() -> Self {
        let mut index = Index::new(REPLAY);
        index.offer_beyond(200);
        Self {
            now: origin(),
            index,
            memory: Received { rings: vec![Vec::new()], floor: 0 },
            scanner: scanner(),
            cursor: Cursor::new(LAG),
            messages: Vec::new(),
            clock: 0,
            timestamp: 0,
            next_id: 0,
            open: BTreeMap::new(),
            headers: BTreeMap::new(),
            sessions: Vec::new(),
            live: false,
            held: VecDeque::new(),
            hold: 0,
            within_chunk: 0,
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Arrive { messages, interleaved } => self.arrive(messages, *interleaved),
            Action::Write { bytes, most } => self.write(*bytes, *most),
            Action::Lose(bytes) => self.lose(*bytes),
            Action::Start(chunk_size) => {
                self.lose(0);
                self.cursor.start(self.now, 1, *chunk_size);
                self.sessions.push((Vec::new(), *chunk_size, 0));
                self.live = true;
            }
            Action::Control => {
                let mut bytes = Vec::new();
                Control::Acknowledgement(7).write(&mut bytes, 65_536);
                self.cursor.push_control(bytes);
            }
            Action::Acknowledge => {
                if let Some(session) = self.sessions.last_mut().filter(|_| self.live) {
                    session.2 = session.0.len();
                    self.cursor.acknowledged(0);
                }
            }
            Action::Pass(milliseconds) => self.now += Duration::from_millis(*milliseconds),
            Action::Publisher => {
                self.clock += 1;
                let place = self.index.begin(Continue::OtherPublisher);
                assert_eq!(place, EntryPlace { ring: self.clock, clock: self.clock });
                self.memory.rings.push(Vec::new());
                self.memory.floor = 0;
                self.scanner = scanner();
                self.open.clear();
                self.held.clear();
                self.within_chunk = 0;
                self.timestamp = 1_000_000_u32.wrapping_mul(self.clock * 77);
            }
            Action::Hold(bytes) => self.hold = *bytes,
            Action::Trickle(bytes) => self.trickle(*bytes),
            Action::Abort => {
                let within_chunk = self.within_chunk.min(1) * self.held.front().map_or(0, Vec::len);
                self.trickle(within_chunk);
                self.held.clear();
                let mut bytes = Vec::new();
                self.open.keys().for_each(|csid| Control::Abort(*csid).write(&mut bytes, 128));
                self.receive(&bytes);
            }
        }
        self.check_counts(false);
    }

    fn arrive(&mut self, sorts: &[(Sort, u64, usize)], interleaved: bool) {
        let mut encoded: Vec<Vec<Vec<u8>>> = Vec::new();
        for (sort, milliseconds, length) in sorts {
            self.now += Duration::from_millis(*milliseconds);
            self.timestamp = self.timestamp.wrapping_add(*milliseconds as u32);
            let message = self.message(*sort, *length);
            encoded.push(chunks(&message, 4 + (encoded.len() as u32 & 1)));
        }
        let mut chunks: VecDeque<Vec<u8>> = VecDeque::new();
        if interleaved && encoded.len() > 1 {
            let (last, before) = (encoded.pop().unwrap(), encoded.pop().unwrap());
            encoded.into_iter().for_each(|message| chunks.extend(message));
            let mut one = before.into_iter();
            let mut other = last.into_iter();
            loop {
                let (a, b) = (one.next(), other.next());
                if a.is_none() && b.is_none() {
                    break;
                }
                chunks.extend(a);
                chunks.extend(b);
            }
        } else {
            encoded.into_iter().for_each(|message| chunks.extend(message));
        }
        self.held.extend(chunks);
        let bytes: usize = self.held.iter().map(Vec::len).sum();
        let hold = std::mem::take(&mut self.hold);
        self.trickle(bytes.saturating_sub(hold));
    }

    /// Receives so many of the bytes that were held.
    fn trickle(&mut self, mut bytes: usize) {
        let mut come = Vec::new();
        while bytes > 0
            && let Some(mut chunk) = self.held.pop_front()
        {
            let rest = chunk.split_off(bytes.min(chunk.len()));
            bytes -= chunk.len();
            come.extend(chunk);
            self.within_chunk = rest.len();
            if !rest.is_empty() {
                self.held.push_front(rest);
            }
        }
        for part in come.chunks(ROOM as usize) {
            self.receive(part);
        }
    }

    fn message(&mut self, sort: Sort, length: usize) -> Message {
        self.next_id += 1;
        let (type_id, head): (u8, Vec<u8>) = match sort {
            Sort::Metadata => (type_id::DATA_AMF0, [&[2, 0, 10][..], b"onMetaData"].concat()),
            Sort::AudioHeader => (type_id::AUDIO, vec![0xAF, 0]),
            Sort::VideoHeader => (type_id::VIDEO, vec![0x17, 0, 0, 0, 0]),
            Sort::Keyframe => (type_id::VIDEO, vec![0x17, 1, 0, 0, 0]),
            Sort::Inter => (type_id::VIDEO, vec![0x27, 1, 0, 0, 0]),
            Sort::Audio => (type_id::AUDIO, vec![0xAF, 1]),
            Sort::Cue => (type_id::DATA_AMF0, [&[2, 0, 3][..], b"cue"].concat()),
        };
        let mut payload = head;
        payload.extend(self.next_id.to_be_bytes());
        payload.resize(payload.len().max(length), 0xEE);
        Message { type_id, timestamp: self.timestamp, payload, clock: self.clock }
    }

    fn receive(&mut self, part: &[u8]) {
        let ring = self.memory.rings.last_mut().unwrap();
        let floor = (ring.len() as u64 + ROOM).saturating_sub(CAPACITY);
        let until = self.index.keeps_from(self.now, floor);
        self.cursor.before_eviction(until, &self.index, &self.memory);
        self.index.evict(until, floor, &self.memory);
        self.memory.floor = floor;
        self.memory.rings.last_mut().unwrap().extend_from_slice(part);
        loop {
            let from = self.scanner.position() as usize;
            let Some(found) = self.scanner.scan(&self.memory.rings.last().unwrap()[from..]).unwrap() else { return };
            let concerns_media = match found {
                Scanned::Begin { header, .. } => is_media(header.type_id),
                Scanned::Payload { csid, .. } | Scanned::Aborted { csid, .. } => self.open.contains_key(&csid),
            };
            if !concerns_media {
                continue;
            }
            self.note(found);
            self.index.media(self.now, found, &self.memory);
            if let Scanned::Payload { csid, last: false, .. } = found {
                self.index.offer(self.now, csid, CAPACITY - ROOM, &self.memory);
            }
            assert_eq!(self.index.end(), self.messages.len() as u64);
        }
    }

    /// Complete messages, in the order of completion.
    fn note(&mut self, found: Scanned) {
        match found {
            Scanned::Begin { header, .. } => {
                self.headers.insert(header.csid, header);
                self.open.insert(header.csid, Vec::new());
            }
            Scanned::Payload { csid, at, len, last } => {
                let bytes = &self.memory.rings.last().unwrap()[at as usize..][..len as usize];
                self.open.get_mut(&csid).unwrap().extend_from_slice(bytes);
                if last {
                    let MessageHeader { type_id, timestamp, .. } = self.headers[&csid];
                    let payload = self.open.remove(&csid).unwrap();
                    self.messages.push(Message { type_id, timestamp, payload, clock: self.clock });
                }
            }
            Scanned::Aborted { csid, .. } => {
                self.open.remove(&csid);
            }
        }
    }

    fn write(&mut self, mut bytes: usize, most: usize) {
        while self.live && bytes > 0 {
            let head = self.memory.rings.last().unwrap().len() as u64;
            let mut plan = WritePlan::new();
            self.cursor.plan(self.now, &self.index, head, &self.memory, &mut plan);
            if plan.is_empty() {
                return;
            }
            let mut slices = WriteSlices::new();
            self.cursor.slices(&plan, &self.memory, &mut slices);
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            drop(slices);
            assert!(!all.is_empty());
            let taken = all.len().min(bytes).min(most);
            self.sessions.last_mut().unwrap().0.extend_from_slice(&all[..taken]);
            self.cursor.wrote(&mut plan, taken, &self.memory);
            bytes -= taken;
        }
    }

    fn lose(&mut self, bytes: u64) {
        if !self.live {
            return;
        }
        self.live = false;
        let session = self.sessions.last_mut().unwrap();
        let lost = bytes.min((session.0.len() - session.2) as u64);
        session.2 = session.0.len() - lost as usize;
        self.cursor.session_over(lost, self.index.front());
    }

    fn finish(mut self) {
        if self.live {
            let session = self.sessions.last_mut().unwrap();
            session.2 = session.0.len();
        }
        self.cursor.finish(&self.index);
        self.check_counts(true);
        for (bytes, chunk_size, _) in &self.sessions {
            self.check_session(&read(bytes, *chunk_size));
        }
    }

    /// Numbers in the order in which they came in a session.
    fn numbers(&self, got: &[Message]) -> Vec<usize> {
        let number = |got: &Message| {
            let sent = self.messages.iter().position(|sent| sent.payload == got.payload);
            sent.expect("something was received that nobody sent")
        };
        got.iter().map(number).collect()
    }

    fn check_counts(&self, finished: bool) {
        let counters = self.cursor.counters();
        let total = self.messages.len() as u64;
        assert!(counters.messages + counters.lost <= total, "{counters:?} of {total}");
        if !finished {
            return;
        }
        assert_eq!(counters.messages + counters.lost, total, "{counters:?}, {:?}", self.cursor);
        let mut reached = BTreeSet::new();
        let mut written = BTreeSet::new();
        let mut writes = 0;
        let mut received = 0;
        for (bytes, chunk_size, has) in &self.sessions {
            let numbers = self.numbers(&read(&bytes[..*has], *chunk_size));
            received += numbers.iter().filter(|number| !self.messages[**number].is_header()).count();
            reached.extend(numbers);
            let numbers = self.numbers(&read(bytes, *chunk_size));
            writes += numbers.len();
            written.extend(numbers);
        }
        // Headers are put in front of keyframes: long after they were given up, or in a session whose end they did not survive.
        let headers = written.iter().filter(|number| self.messages[**number].is_header()).count() as u64;
        let missing = total - reached.len() as u64;
        assert!(
            counters.lost.abs_diff(missing) <= headers,
            "{counters:?}, {missing} missing, {headers} headers were written"
        );
        let frames = reached.iter().filter(|number| !self.messages[**number].is_header()).count();
        assert!(counters.replayed >= (received - frames) as u64, "{counters:?}");
        assert!(counters.replayed <= (writes - written.len()) as u64, "{counters:?}");
        let bytes: usize = self.sessions.iter().map(|(bytes, ..)| bytes.len()).sum();
        assert_eq!(counters.bytes, bytes as u64);
    }

    fn check_session(&self, got: &[Message]) {
        let numbers = self.numbers(got);
        let distinct: BTreeSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len(), "something was repeated within a session: {numbers:?}");
        let mut last = None;
        let mut last_video: Option<usize> = None;
        let mut offsets = BTreeMap::new();
        let mut headers: BTreeMap<HeaderSlot, usize> = BTreeMap::new();
        for (received, number) in got.iter().zip(&numbers) {
            let sent = &self.messages[*number];
            assert_eq!(received.type_id, sent.type_id);
            if sent.is_header() {
                headers.insert(inspect(sent.type_id, &sent.payload).header.unwrap(), *number);
                continue;
            }
            assert!(last.is_none_or(|last| last < *number), "out of order: {numbers:?}");
            last = Some(*number);
            if sent.is_frame() {
                let offset = received.timestamp.wrapping_sub(sent.timestamp);
                assert_eq!(*offsets.entry(sent.clock).or_insert(offset), offset, "the offset changed");
            }
            self.check_headers(*number, &headers);
            if sent.type_id == type_id::VIDEO {
                let gap = match last_video {
                    None => true,
                    Some(before) => (before + 1..*number).any(|between| {
                        let between = &self.messages[between];
                        between.type_id == type_id::VIDEO && between.is_frame()
                    }),
                };
                let other = last_video.is_some_and(|before| self.messages[before].clock != sent.clock);
                assert!(sent.is_keyframe() || !(gap || other), "a frame that nothing can be made of: {number}");
                last_video = Some(*number);
            }
        }
    }

    /// The headers in force when this message was sent are the last ones that came.
    fn check_headers(&self, number: usize, came: &BTreeMap<HeaderSlot, usize>) {
        let clock = self.messages[number].clock;
        let mut in_force = BTreeMap::new();
        for (at, message) in self.messages[..number].iter().enumerate().filter(|(_, message)| message.clock == clock) {
            if let Some(slot) = inspect(message.type_id, &message.payload).header {
                in_force.insert(slot, at);
            }
        }
        for (slot, at) in in_force {
            assert_eq!(came.get(&slot), Some(&at), "{slot:?} before message {number}");
        }
    }
}

fn scanner() -> ChunkScanner {
    ChunkScanner::new(0)
}

fn chunks(message: &Message, csid: u32) -> Vec<Vec<u8>> {
    let header = MessageHeader {
        csid,
        timestamp: message.timestamp,
        length: message.payload.len() as u32,
        type_id: message.type_id,
        stream_id: 1,
    };
    let mut chunks = Vec::new();
    for (at, part) in message.payload.chunks(PUBLISHER_CHUNK).enumerate() {
        let head = if at == 0 { first_header(&header) } else { continuation_header(&header) };
        chunks.push([&*head, part].concat());
    }
    chunks
}

/// The lowest chunk stream of messages that leave before their last byte has come.
const EARLY: u32 = 7;

/// The whole media messages of a session. Those that leave early may have others between their chunks, or no end.
fn read(bytes: &[u8], chunk_size: u32) -> Vec<Message> {
    let mut wire = Vec::new();
    Control::SetChunkSize(chunk_size).write(&mut wire, 128);
    wire.extend_from_slice(bytes);
    let mut scanner = scanner();
    let mut open: BTreeMap<u32, (MessageHeader, Vec<u8>)> = BTreeMap::new();
    let mut messages = Vec::new();
    while let Some(found) = scanner.scan(&wire[scanner.position() as usize..]).unwrap() {
        match found {
            Scanned::Begin { header, .. } => {
                assert!(open.keys().all(|csid| *csid >= EARLY), "a message inside a message");
                let early = open.keys().copied().max().filter(|_| header.csid >= EARLY);
                assert!(early.is_none_or(|csid| csid < header.csid), "a chunk stream that was left is used again");
                open.insert(header.csid, (header, Vec::new()));
            }
            Scanned::Payload { csid, at, len, last } => {
                open.get_mut(&csid).unwrap().1.extend_from_slice(&wire[at as usize..][..len as usize]);
                if last {
                    let (MessageHeader { type_id, timestamp, .. }, payload) = open.remove(&csid).unwrap();
                    messages.push(Message { type_id, timestamp, payload, clock: 0 });
                }
            }
            Scanned::Aborted { .. } => panic!("a message was not finished"),
        }
    }
    messages.retain(|message| is_media(message.type_id));
    messages
}

/// Chunk streams of the early messages of a session, in the order in which they began.
fn begun_early(bytes: &[u8], chunk_size: u32) -> Vec<u32> {
    let mut wire = Vec::new();
    Control::SetChunkSize(chunk_size).write(&mut wire, 128);
    wire.extend_from_slice(bytes);
    let mut scanner = scanner();
    let mut begun = Vec::new();
    while let Some(found) = scanner.scan(&wire[scanner.position() as usize..]).unwrap() {
        if let Scanned::Begin { header, .. } = found
            && header.csid >= EARLY
        {
            begun.push(header.csid);
        }
    }
    begun
}

fn sorts(headers: bool) -> impl Strategy<Value = Sort> {
    let header = |sort: Sort| Just(if headers { sort } else { Sort::Cue });
    prop_oneof![
        1 => header(Sort::Metadata),
        1 => header(Sort::AudioHeader),
        1 => header(Sort::VideoHeader),
        4 => Just(Sort::Keyframe),
        12 => Just(Sort::Inter),
        12 => Just(Sort::Audio),
        1 => Just(Sort::Cue),
    ]
}

fn actions(headers: bool) -> impl Strategy<Value = Action> {
    let messages = prop::collection::vec((sorts(headers), 0..120_u64, 12..700_usize), 1..6);
    prop_oneof![
        30 => (messages, any::<bool>()).prop_map(|(messages, interleaved)| Action::Arrive { messages, interleaved }),
        20 => (1..4000_usize, 1..2000_usize).prop_map(|(bytes, most)| Action::Write { bytes, most }),
        5 => Just(Action::Write { bytes: usize::MAX, most: usize::MAX }),
        2 => (0..3000_u64).prop_map(Action::Lose),
        4 => prop_oneof![Just(128_u32), Just(1000), Just(65_536), Just(37)].prop_map(Action::Start),
        2 => Just(Action::Control),
        1 => Just(Action::Acknowledge),
        3 => (0..3000_u64).prop_map(Action::Pass),
        1 => Just(Action::Publisher),
        10 => (1..900_usize).prop_map(Action::Hold),
        15 => (1..900_usize).prop_map(Action::Trickle),
        1 => Just(Action::Abort),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_session_is_sound_and_the_counts_are_true_after_any_actions(
        actions in prop::collection::vec(actions(true), 1..120)
    ) {
        let mut world = World::new();
        actions.iter().for_each(|action| world.act(action));
        world.finish();
    }

    #[test]
    fn counts_are_exact_without_headers(actions in prop::collection::vec(actions(false), 1..120)) {
        let mut world = World::new();
        actions.iter().for_each(|action| world.act(action));
        world.finish();
    }
}

#[path = "cursor_rules_tests.rs"]
mod rules;
