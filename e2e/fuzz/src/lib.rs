//! The fuzz targets. The ordinary tests run the same functions on the committed corpus (`common/tests/corpus.rs` includes this file), so
//! that a finding, once added to the corpus, stays found without a fuzzer.
//!
//! To run a target, from the root of the repository: `cargo +nightly fuzz run --fuzz-dir e2e/fuzz scanner -- -max_total_time=60`.

use liveedgecast_common::proxy::{MAX_BINARY, ProxyProgress, decode};
use liveedgecast_common::rtmp::{
    ChunkError, Ingest, IngestState, Ingested, MessageHeader, Scanned, aggregate, amf0,
    handshake::{HANDSHAKE_BYTES, Handshake, HandshakeError},
    is_media, limits, media,
    message::{Command, Control},
    server::{Event, Refusal, RunEvent, ServerSession, ServerSessionState, SessionError},
    type_id,
};

mod client;
mod handoff;

pub use client::client;
pub use handoff::{frames, page, preface};

/// A fuzz target: takes any bytes and panics on a bug.
pub type FuzzTarget = fn(&[u8]);

/// Every target with its name, for the corpus.
pub const TARGETS: &[(&str, FuzzTarget)] = &[
    ("scanner", scanner),
    ("amf0", amf0),
    ("snapshot", snapshot),
    ("handshake", handshake),
    ("session", session),
    ("session_state", session_state),
    ("page", page),
    ("frames", frames),
    ("preface", preface),
    ("client", client),
    ("proxy", proxy),
];

/// First byte: the size of the pieces. The rest: bytes of a peer after the handshake.
///
/// Every size of pieces, also with a saved and restored state after each piece, gives the same messages; payloads have the announced
/// length; limits hold; the messages are parsed.
pub fn scanner(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = hear(stream, stream.len().max(1), false);
    let parts = hear(stream, usize::from(cut) + 1, true);
    assert_eq!(parts.error, whole.error);
    assert_eq!(parts.complete, whole.complete);
    for (header, payload) in &whole.complete {
        assert_eq!(payload.len(), header.length as usize);
        assert!(header.length <= limits::max_message(header.type_id));
        look_into(header, payload);
    }
}

/// Result of parsing a byte stream.
#[derive(Default)]
struct Parsed {
    complete: Vec<(MessageHeader, Vec<u8>)>,
    open: Vec<(MessageHeader, Vec<u8>)>,
    error: Option<ChunkError>,
}

impl Parsed {
    fn take(&mut self, ingested: Ingested, stream: &[u8]) {
        match ingested {
            Ingested::Message { header, payload } => {
                assert!(!is_media(header.type_id));
                self.complete.push((header, payload));
            }
            Ingested::Media(Scanned::Begin { header, .. }) => {
                assert!(is_media(header.type_id));
                assert!(self.open.iter().all(|(open, _)| open.csid != header.csid));
                self.open.push((header, Vec::new()));
                assert!(self.open.len() <= limits::MAX_CHUNK_STREAMS);
            }
            Ingested::Media(Scanned::Payload { csid, at, len, last }) => {
                let index =
                    self.open.iter().position(|(open, _)| open.csid == csid).expect("payload of an open message");
                let payload = &stream[at as usize..][..len as usize];
                self.open[index].1.extend_from_slice(payload);
                if last {
                    self.complete.push(self.open.remove(index));
                }
            }
            Ingested::Media(Scanned::Aborted { csid, missing }) => {
                let index = self.open.iter().position(|(open, _)| open.csid == csid).expect("an open message");
                let (header, payload) = self.open.remove(index);
                assert_eq!(payload.len() + missing as usize, header.length as usize);
            }
        }
    }
}

fn hear(stream: &[u8], step: usize, save: bool) -> Parsed {
    let mut ingest = Ingest::new(0);
    let mut heard = Parsed::default();
    let mut begun = None;
    let mut end = 0;
    while end < stream.len() {
        end = stream.len().min(end + step);
        loop {
            match ingest.next(&stream[ingest.position() as usize..end]) {
                Ok(Some(ingested)) => {
                    if let Ingested::Media(Scanned::Begin { at, .. }) = ingested {
                        begun = Some((ingested.clone(), at));
                    } else if matches!(ingested, Ingested::Message { .. }) {
                        begun = None;
                    }
                    heard.take(ingested, stream);
                }
                Ok(None) => break,
                Err(error) => {
                    heard.error = Some(error);
                    return heard;
                }
            }
        }
        if save {
            let mut before = Ingest::restore(&ingest.state_before_chunk()).expect("a state of ours is valid");
            // The last media message begins here, unless a small message has begun since, which is not reported.
            if let Some((message, at)) = begun.take().filter(|(_, at)| *at == before.position()) {
                assert!(before.next(&stream[at as usize..]).ok().flatten() == Some(message));
            }
            let saved = postcard::to_stdvec(&ingest.state()).expect("a state can be saved");
            let state: IngestState = postcard::from_bytes(&saved).expect("a saved state can be read");
            ingest = Ingest::restore(&state).expect("a state of ours is valid");
        }
    }
    heard
}

fn look_into(header: &MessageHeader, payload: &[u8]) {
    let prefix = &payload[..payload.len().min(media::INSPECT_BYTES)];
    let inspection = media::inspect(header.type_id, prefix);
    assert!(!(inspection.keyframe && inspection.header.is_some()));
    if header.type_id == type_id::AGGREGATE {
        for sub in aggregate::split(header, payload).flatten() {
            assert_eq!(payload[sub.payload].len(), sub.header.length as usize);
        }
    }
    let _ = Control::parse(header.type_id, payload);
    let _ = Command::parse(header.type_id, payload);
}

/// The bytes: an AMF0 payload. Values that can be read can be written, and then read back the same.
pub fn amf0(data: &[u8]) {
    if let Ok(values) = amf0::read_all(data) {
        let mut written = Vec::new();
        values.iter().for_each(|value| amf0::write(&mut written, value));
        let again = amf0::read_all(&written).expect("what we write can be read");
        let mut rewritten = Vec::new();
        again.iter().for_each(|value| amf0::write(&mut rewritten, value));
        assert_eq!(written, rewritten);
    }
    for type_id in [type_id::COMMAND_AMF0, type_id::COMMAND_AMF3] {
        if let Ok(command) = Command::parse(type_id, data) {
            // The Debug form must not panic, nor show arguments.
            let _ = format!("{command:?}");
            assert!(Command::parse(type_id::COMMAND_AMF0, &command.encode()).is_ok());
        }
    }
    for type_id in 0..=type_id::SET_PEER_BANDWIDTH {
        if let Ok(control) = Control::parse(type_id, data) {
            assert!(Control::parse(type_id, &control.payload()).as_ref() == Ok(&control));
        }
    }
    for type_id in [type_id::AUDIO, type_id::VIDEO, type_id::DATA_AMF3, type_id::DATA_AMF0] {
        let prefix = &data[..data.len().min(media::INSPECT_BYTES)];
        let _ = media::inspect(type_id, prefix);
    }
}

/// First two bytes: the length of the first part. First part: a reader's state as a broken writer may have left it in a shared page. The
/// rest: the bytes behind it. An accepted state behaves, and leaves only states that are accepted again.
pub fn snapshot(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((saved, stream)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else { return };
    let Ok(state) = postcard::from_bytes::<IngestState>(saved) else { return };
    let Ok(mut ingest) = Ingest::restore(&state) else { return };
    assert!(ingest.state() == state);
    let start = ingest.position();
    // A position of 2^63 is refused, although a reader can reach one from a little below it: after 9 million terabytes.
    if start > u64::MAX / 2 - stream.len() as u64 {
        return;
    }
    while let Ok(Some(ingested)) = ingest.next(&stream[(ingest.position() - start) as usize..]) {
        if let Ingested::Media(Scanned::Payload { at, len, .. }) = ingested {
            assert!((at - start) as usize + len as usize <= stream.len());
        }
        assert!(Ingest::restore(&ingest.state()).is_ok());
        assert!(Ingest::restore(&ingest.state_before_chunk()).is_ok());
    }
}

/// First byte: the size of the pieces, and in its highest bit the side of the handshake. The rest: bytes of the peer.
///
/// Every size of pieces uses, answers and refuses the same; no byte behind the handshake is used; a wrong version gets no answer.
pub fn handshake(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let shake = |step: usize| {
        let mut handshake = if cut & 0x80 == 0 { Handshake::server() } else { Handshake::client() };
        let started = handshake.start().len();
        let (mut used, mut answered, mut error): (usize, usize, Option<HandshakeError>) = (0, 0, None);
        while used < stream.len() && !handshake.is_done() && error.is_none() {
            let end = stream.len().min(used + step);
            match handshake.handle(&stream[used..end]) {
                Ok(progress) => {
                    assert_eq!(progress.done, handshake.is_done());
                    used += progress.used;
                    answered += progress.output.len();
                }
                Err(refused) => error = Some(refused),
            }
        }
        assert!(used <= HANDSHAKE_BYTES as usize);
        assert_eq!(handshake.is_done(), used == HANDSHAKE_BYTES as usize);
        assert!(started + answered <= HANDSHAKE_BYTES as usize);
        assert!(error.is_none() || answered == 0);
        (used, answered, error)
    };
    assert_eq!(shake(usize::from(cut & 0x7F) + 1), shake(stream.len().max(1)));
}

/// First byte: the size of the pieces. Second byte: the decision at `publish`. The rest: bytes of a publisher after the handshake.
///
/// Every size of pieces, with a saved and restored state after each piece, or by runs, gives the same events and answers
/// (acknowledgements within long messages aside); the output never becomes much longer than the input; a state from before a message can be
/// resumed.
pub fn session(data: &[u8]) {
    let Some((&[cut, decision], stream)) = data.split_first_chunk::<2>() else { return };
    let step = usize::from(cut) + 1;
    let whole = converse(stream, stream.len().max(1), decision, false, single_event);
    for (save, next) in [(true, single_event as NextEvents), (false, run_events)] {
        let parts = converse(stream, step, decision, save, next);
        assert_eq!(parts.error, whole.error);
        assert_eq!(parts.events, whole.events);
        assert!(parts.told == whole.told);
    }
}

/// Takes the next events of a session; none: it needs more bytes.
type NextEvents = fn(&mut ServerSession, &[u8]) -> Result<Vec<Event>, SessionError>;

fn single_event(session: &mut ServerSession, input: &[u8]) -> Result<Vec<Event>, SessionError> {
    Ok(session.next(input)?.into_iter().collect())
}

/// A run as the events that it stands for.
fn run_events(session: &mut ServerSession, input: &[u8]) -> Result<Vec<Event>, SessionError> {
    let mut pieces = Vec::new();
    let run = match session.next_run(input, &mut pieces)? {
        None => return Ok(Vec::new()),
        Some(RunEvent::Other(event)) => return Ok(vec![event]),
        Some(RunEvent::Run(run)) => run,
    };
    let mut events = Vec::new();
    if let Some(at) = run.begins {
        assert_eq!(run.received, pieces.iter().map(|piece| piece.len).sum::<u32>());
        events.push(Event::Media(Scanned::Begin { header: run.header, at }));
    }
    let csid = run.header.csid;
    for (index, piece) in pieces.iter().enumerate() {
        let last = run.last && index + 1 == pieces.len();
        events.push(Event::Media(Scanned::Payload { csid, at: piece.position, len: piece.len, last }));
    }
    assert_eq!(run.last, run.received == run.header.length);
    if run.last && pieces.is_empty() {
        events.push(Event::Media(Scanned::Payload { csid, at: 0, len: 0, last: true }));
    }
    Ok(events)
}

/// Result of a publisher's bytes.
#[derive(Default)]
struct SessionResult {
    /// Events other than media unchanged; media as complete messages only.
    events: Vec<Result<(MessageHeader, Vec<u8>), Event>>,
    open: Vec<(MessageHeader, Vec<u8>)>,
    /// Type and payload of the server's messages, acknowledgements aside.
    told: Vec<(u8, Vec<u8>)>,
    error: Option<SessionError>,
}

impl SessionResult {
    fn take(&mut self, event: Event, stream: &[u8]) {
        match event {
            Event::Media(Scanned::Begin { header, .. }) => {
                assert!(self.open.iter().all(|(open, _)| open.csid != header.csid));
                self.open.push((header, Vec::new()));
            }
            Event::Media(Scanned::Payload { csid, at, len, last }) => {
                let index = self.open.iter().position(|(open, _)| open.csid == csid).expect("an open message");
                self.open[index].1.extend_from_slice(&stream[at as usize..][..len as usize]);
                if last {
                    self.events.push(Ok(self.open.remove(index)));
                }
            }
            Event::Media(Scanned::Aborted { csid, .. }) => {
                let index = self.open.iter().position(|(open, _)| open.csid == csid).expect("an open message");
                self.events.push(Ok(self.open.remove(index)));
            }
            other => {
                assert!(matches!(other, Event::Pong(_)) || !self.events.contains(&Err(other.clone())), "told once");
                self.events.push(Err(other));
            }
        }
    }
}

fn converse(stream: &[u8], step: usize, decision: u8, save: bool, next: NextEvents) -> SessionResult {
    let mut session = ServerSession::new(0);
    let mut conversation = SessionResult::default();
    let mut output = Vec::new();
    let mut end = 0;
    // Decisions and acknowledgements of the server are not answers.
    let mut own = 0;
    while end < stream.len() && conversation.error.is_none() {
        end = stream.len().min(end + step);
        loop {
            let input = &stream[session.position() as usize..end];
            match next(&mut session, input) {
                Ok(events) if events.is_empty() => break,
                Ok(events) => {
                    let asked = events.contains(&Event::Publish);
                    events.into_iter().for_each(|event| conversation.take(event, stream));
                    if asked {
                        assert!(session.connect().is_some() && session.publish().is_some());
                        output.extend(session.take_output());
                        match decision % 4 {
                            0 | 1 => session.accept_publish(),
                            2 => session.refuse_publish(Refusal::BadName, "no"),
                            _ => session.ping(1),
                        }
                        let decided = session.take_output();
                        own += decided.len() as u64;
                        output.extend(decided);
                    }
                }
                Err(error) => {
                    conversation.error = Some(error);
                    break;
                }
            }
        }
        output.extend(session.take_output());
        if save && conversation.error.is_none() {
            let before = session.state_before_chunk();
            let mut again = ServerSession::restore(&before).expect("a state of ours is valid");
            assert_eq!(again.is_started(), session.is_started());
            while let Ok(Some(_)) = again.next(&stream[again.position() as usize..end]) {}
            assert_eq!(again.position(), session.position());
            assert!(session.is_ended() == again.is_ended());

            let saved = postcard::to_stdvec(&session.state()).expect("a state can be saved");
            let state: ServerSessionState = postcard::from_bytes(&saved).expect("a saved state can be read");
            session = ServerSession::restore(&state).expect("a state of ours is valid");
            // The Debug form must not panic.
            let _ = format!("{session:?}");
        }
    }
    let acknowledged = 16 * (session.position() / u64::from(limits::MIN_WINDOW / 2));
    assert!(output.len() as u64 <= session.position() + limits::ANSWER_CREDIT + own + acknowledged);
    let mut ingest = Ingest::new(0);
    while let Some(ingested) = ingest.next(&output[ingest.position() as usize..]).expect("we write chunks") {
        let Ingested::Message { header, payload } = ingested else { panic!("we send no media") };
        if header.type_id != type_id::ACKNOWLEDGEMENT {
            conversation.told.push((header.type_id, payload));
        }
    }
    assert_eq!((ingest.position() as usize, ingest.open_messages()), (output.len(), 0));
    conversation
}

/// First two bytes: the length of the first part. First part: a session's state as a broken writer may have left it in a shared page. The
/// rest: the bytes behind it. An accepted state behaves, and leaves only states that are accepted again.
pub fn session_state(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((saved, stream)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else { return };
    let Ok(state) = postcard::from_bytes::<ServerSessionState>(saved) else { return };
    let Ok(mut session) = ServerSession::restore(&state) else { return };
    assert!(session.state() == state);
    let start = session.position();
    loop {
        match session.next(&stream[(session.position() - start) as usize..]) {
            Ok(Some(Event::Media(Scanned::Payload { at, len, .. }))) => {
                assert!((at - start) as usize + len as usize <= stream.len());
            }
            Ok(Some(Event::Publish)) => session.accept_publish(),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
        assert!(ServerSession::restore(&session.state()).is_ok());
        assert!(ServerSession::restore(&session.state_before_chunk()).is_ok());
    }
    session.ping(1);
    session.accept_publish();
    session.refuse_publish(Refusal::Denied, "no");
    let _ = (session.take_output(), format!("{session:?}"));
}

/// The first bytes of a connection from a proxy.
///
/// A header is the same in pieces of the sizes that the reader asks for and as a whole; the reader is told to take no byte behind it; limits hold.
pub fn proxy(data: &[u8]) {
    let whole = decode(data);
    let mut known = 0;
    let pieces = loop {
        match decode(&data[..known]) {
            Ok(ProxyProgress::More(more)) => {
                assert!(more > 0 && known + more <= MAX_BINARY);
                if known + more > data.len() {
                    break None;
                }
                known += more;
            }
            Ok(ProxyProgress::Whole(header)) => {
                assert_eq!(header.length, known);
                break Some(Ok(header));
            }
            Err(error) => break Some(Err(error)),
        }
    };
    match (whole, pieces) {
        (Ok(ProxyProgress::Whole(whole)), Some(Ok(pieces))) => assert_eq!(whole, pieces),
        (Ok(ProxyProgress::More(_)), None) | (Err(_), Some(Err(_)) | None) => {}
        different => panic!("{different:?}"),
    }
}
