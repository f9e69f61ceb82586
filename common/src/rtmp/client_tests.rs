//! Tests of [`super`]: one table of answers of upstreams, whole and split everywhere; and rml_rtmp's server at the other end.

use rml_rtmp::handshake::{Handshake as Packets, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    PublishMode, ServerSession as RmlSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult,
};

use super::*;
use crate::key::Secret;
use crate::rtmp::server::{EndedBy, Event, ServerSession};
use crate::rtmp::tables::client::{End, REDIRECT, Row, command, connected, created, message, rows, started, status};
use crate::rtmp::{Scanned, limits};
use crate::url::{Credentials, PushTemplate};

fn url(text: &str) -> PushUrl {
    let key = StreamKey::parse("unused").unwrap();
    PushTemplate::parse(text).unwrap().resolve("unused", &key).unwrap()
}

const URL: &str = "rtmp://ingest.example/live/SECRETKEY?token=TOKEN";

/// S0, S1, S2 of a plain handshake: nothing in them depends on the client, except an echo that nobody compares.
fn greeting() -> Vec<u8> {
    let mut bytes = vec![0; 3073];
    bytes[0] = 3;
    bytes
}

/// A session with the handshake behind it, and what it has said since.
fn connecting() -> (ClientSession, Heard) {
    let mut session = ClientSession::new(&url(URL), None);
    session.start();
    assert_eq!(session.take_output().len(), 1537);
    session.handle(&greeting()).unwrap();
    let mut heard = Heard::default();
    let output = session.take_output();
    heard.take(&output[1536..]);
    (session, heard)
}

fn live() -> (ClientSession, Heard) {
    let (mut session, mut heard) = connecting();
    session.handle(&[connected(), created(4.0, 1.0), started()].concat()).unwrap();
    assert_eq!(session.poll_event(), Some(ClientEvent::Started));
    heard.take(&session.take_output());
    (session, heard)
}

/// The messages that a client has sent, in order.
struct Heard {
    ingest: Ingest,
    unread: Vec<u8>,
    messages: Vec<(MessageHeader, Vec<u8>)>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { ingest: Ingest::new(0), unread: Vec::new(), messages: Vec::new() }
    }
}

impl Heard {
    fn take(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let start = self.ingest.position();
        let mut used = 0;
        while let Some(found) = self.ingest.next(&self.unread[used..]).unwrap() {
            used = (self.ingest.position() - start) as usize;
            let Ingested::Message { header, payload } = found else { panic!("{found:?}") };
            self.messages.push((header, payload));
        }
        self.unread.drain(..(self.ingest.position() - start) as usize);
        assert!(self.unread.is_empty(), "whole chunks always");
    }

    fn commands(&self) -> Vec<(MessageHeader, Command)> {
        let is_command = |(header, _): &&(MessageHeader, Vec<u8>)| header.type_id == type_id::COMMAND_AMF0;
        let parse =
            |(header, payload): &(MessageHeader, Vec<u8>)| (*header, Command::parse(header.type_id, payload).unwrap());
        self.messages.iter().filter(is_command).map(parse).collect()
    }

    fn controls(&self) -> Vec<Control> {
        self.messages.iter().filter_map(|(header, payload)| Control::parse(header.type_id, payload).ok()).collect()
    }

    fn names(&self) -> Vec<String> {
        self.commands().into_iter().map(|(_, command)| command.name).collect()
    }
}

fn events(session: &mut ClientSession) -> Vec<ClientEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn end_of(session: &ClientSession, events: &[ClientEvent]) -> End {
    match (events.last(), session.stage()) {
        (Some(ClientEvent::Refused(class, _)), Stage::Ended) => End::Refused(class.as_str()),
        (Some(ClientEvent::AuthAsked(_)), Stage::Ended) => End::Asked,
        (Some(ClientEvent::Redirected(target)), Stage::Ended) => {
            assert_eq!(target.expose(), REDIRECT);
            End::Redirected
        }
        (Some(ClientEvent::Ended(_)), Stage::Ended) => End::Ended,
        (Some(ClientEvent::Started), Stage::Live) => End::Live(session.message_stream()),
        (None, stage) => End::Waiting(stage.as_str()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_go_out_in_the_order_of_fmle() {
    let (mut session, mut heard) = connecting();
    assert_eq!(session.stage(), Stage::Connect);
    assert_eq!(heard.controls(), [Control::SetChunkSize(CHUNK_SIZE)]);
    assert_eq!(heard.messages[0].0.type_id, type_id::SET_CHUNK_SIZE, "before connect, which may be long");
    let (header, connect) = heard.commands().remove(0);
    assert_eq!((header.stream_id, connect.name.as_str(), connect.transaction), (0, "connect", 1.0));
    let text = |name| connect.object.property(name).and_then(Value::as_str).unwrap();
    assert_eq!(text("app"), "live");
    assert_eq!(text("type"), "nonprivate");
    assert_eq!(text("tcUrl"), "rtmp://ingest.example/live");
    assert_eq!(text("swfUrl"), "rtmp://ingest.example/live");
    assert!(text("flashVer").starts_with("FMLE/3.0 (compatible; "));

    session.handle(&connected()).unwrap();
    assert_eq!(session.stage(), Stage::CreateStream);
    heard.take(&session.take_output());
    session.handle(&created(4.0, 7.0)).unwrap();
    assert_eq!((session.stage(), session.message_stream()), (Stage::Publish, 7));
    heard.take(&session.take_output());
    session.handle(&started()).unwrap();
    assert_eq!(session.stage(), Stage::Live);
    assert!(!session.has_output());
    session.end();
    assert_eq!(session.stage(), Stage::Ended);
    heard.take(&session.take_output());

    let key = Value::string("SECRETKEY?token=TOKEN");
    let said: Vec<_> = heard
        .commands()
        .into_iter()
        .map(|(header, command)| (command.name, command.transaction, header.stream_id, command.arguments))
        .collect();
    let expected = |name: &str, transaction, stream, arguments| (name.to_owned(), transaction, stream, arguments);
    assert_eq!(
        said,
        [
            expected("connect", 1.0, 0, vec![]),
            expected("releaseStream", 2.0, 0, vec![key.clone()]),
            expected("FCPublish", 3.0, 0, vec![key.clone()]),
            expected("createStream", 4.0, 0, vec![]),
            expected("publish", 5.0, 7, vec![key.clone(), Value::string("live")]),
            expected("FCUnpublish", 7.0, 0, vec![key]),
            expected("deleteStream", 8.0, 0, vec![Value::Number(7.0)]),
        ]
    );
}

#[test]
fn every_upstream_of_the_table_leads_to_its_end() {
    for Row { name, bytes, end } in rows() {
        let (mut session, _) = connecting();
        session.handle(&bytes).unwrap();
        let events = events(&mut session);
        let last: Vec<_> =
            events.iter().filter(|event| !matches!(event, ClientEvent::Acknowledged(_))).cloned().collect();
        assert_eq!(end_of(&session, &last), end, "{name}: {events:?}");
    }
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    const STATES: [Stage; 6] =
        [Stage::Handshake, Stage::Connect, Stage::CreateStream, Stage::Publish, Stage::Live, Stage::Ended];
    let answers = [greeting(), connected(), created(4.0, 1.0), started()];
    let session_in = |stage: Stage| {
        let mut session = ClientSession::new(&url(URL), None);
        session.start();
        for answer in &answers {
            if session.stage() < stage {
                session.handle(answer).unwrap();
            }
        }
        if stage == Stage::Ended {
            session.end();
        }
        assert_eq!(session.stage(), stage);
        session
    };
    for (at, stage) in STATES.into_iter().enumerate() {
        let mut session = session_in(stage);
        session.end();
        assert_eq!(session.stage(), Stage::Ended, "our own end when {stage:?}");
        if stage == Stage::Ended {
            session.handle(&started()).unwrap();
            assert_eq!(session.stage(), Stage::Ended);
            continue;
        }
        if let Some(answer) = answers.get(at) {
            let mut session = session_in(stage);
            session.handle(answer).unwrap();
            assert_eq!(session.stage(), STATES[at + 1], "the answer when {stage:?}");
        }
        // Before the end of the handshake there are no messages.
        let Some(transaction) = [None, Some(1.0), Some(4.0), Some(5.0), Some(5.0)][at] else { continue };
        let refused = |name, transaction| status(name, transaction, "error", "NetStream.Publish.BadName", "taken");
        for input in [refused("_error", transaction), refused("onStatus", 0.0), command("close", 0.0, &[])] {
            let mut session = session_in(stage);
            session.handle(&input).unwrap();
            assert_eq!(session.stage(), Stage::Ended, "{input:?} when {stage:?}");
        }
    }
}

/// The output and events of a session that gets these parts.
fn run(mut session: ClientSession, parts: &[&[u8]]) -> (Vec<u8>, Vec<ClientEvent>, Stage, u32) {
    let (mut output, mut all) = (Vec::new(), Vec::new());
    for part in parts {
        session.handle(part).unwrap();
        output.extend(session.take_output());
        all.extend(events(&mut session));
    }
    (output, all, session.stage(), session.message_stream())
}

#[test]
fn every_upstream_leads_to_its_end_when_split_at_any_byte() {
    // Thousands of handshakes would take the time: theirs is another test.
    let after_handshake = || {
        let mut session = ClientSession::new(&url(URL), None);
        session.handshake = None;
        session.connect();
        session.take_output();
        session
    };
    for Row { name, bytes, .. } in rows() {
        let whole = run(after_handshake(), &[&bytes]);
        for split in 0..bytes.len() {
            let (one, two) = bytes.split_at(split);
            assert!(run(after_handshake(), &[one, two]) == whole, "{name} at {split}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert!(run(after_handshake(), &single) == whole, "{name} byte by byte");
    }
}

#[test]
fn handshake_completes_when_split_anywhere() {
    let all = [greeting(), connected(), created(4.0, 1.0), started()].concat();
    let greeted = || {
        let mut session = ClientSession::new(&url(URL), None);
        session.start();
        session.take_output();
        session
    };
    let whole = run(greeted(), &[&all]);
    for split in [1, 2, 1536, 1537, 1538, 2000, 3072, 3073, 3074] {
        let (one, two) = all.split_at(split);
        assert!(run(greeted(), &[one, two]) == whole, "at {split}");
    }
    let single: Vec<_> = all.chunks(1).collect();
    assert!(run(greeted(), &single) == whole, "byte by byte");
}

#[test]
fn c2_and_connect_leave_in_one_piece() {
    let mut session = ClientSession::new(&url(URL), None);
    session.start();
    assert!(session.has_output());
    session.take_output();
    // S2 glued to nothing, the usual case; C2 may come with S1, but never alone where all three arrive together.
    session.handle(&greeting()).unwrap();
    let output = session.take_output();
    assert!(output.len() > 1536 + 100);
    assert_eq!(session.stage(), Stage::Connect);
}

#[test]
fn another_version_is_refused() {
    for first in [0, 6, 8, b'G', b'H', 0x16] {
        let mut session = ClientSession::new(&url(URL), None);
        session.start();
        assert!(session.handle(&[first]).is_err());
    }
}

#[test]
fn chunks_that_cannot_be_read_are_an_error() {
    for bytes in [vec![0xC3], message(1, 0, &[0; 4]), message(2, 0, &[0; 3]), {
        let mut header = crate::rtmp::tables::chunk::fmt0(3, 0, limits::MAX_CONTROL_MESSAGE + 1, 20, 0);
        header.extend([0; 10]);
        header
    }] {
        let (mut session, _) = connecting();
        assert!(session.handle(&bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn bandwidth_is_checked_once() {
    let (mut session, mut heard) = live();
    for _ in 0..3 {
        session.handle(&command("onBWDone", 0.0, &[])).unwrap();
    }
    heard.take(&session.take_output());
    assert_eq!(heard.names().iter().filter(|name| *name == "_checkbw").count(), 1);
}

#[test]
fn pings_are_answered_but_not_without_end() {
    let (mut session, mut heard) = live();
    let ping = |timestamp: u32| message(4, 0, &[&[0, 6], &timestamp.to_be_bytes()[..]].concat());
    session.handle(&ping(0x0102_0304)).unwrap();
    heard.take(&session.take_output());
    assert_eq!(heard.controls().last(), Some(&Control::UserControl(UserControl::PingResponse(0x0102_0304))));
    for number in 0..10_000 {
        session.handle(&ping(number)).unwrap();
    }
    for _ in 0..10_000 {
        session.handle(&command("_onbwcheck", 9.0, &[])).unwrap();
    }
    let output = session.take_output();
    assert!((MAX_WAITING_ANSWERS..MAX_WAITING_ANSWERS + 200).contains(&output.len()), "{}", output.len());
    heard.take(&output);
    session.handle(&ping(5)).unwrap();
    assert!(session.has_output(), "goes on once that is taken");
}

#[test]
fn commands_are_never_left_out_for_answers() {
    let (mut session, mut heard) = connecting();
    for number in 0..1000_u32 {
        session.handle(&message(4, 0, &[&[0, 6], &number.to_be_bytes()[..]].concat())).unwrap();
    }
    session.handle(&[connected(), created(4.0, 1.0), started()].concat()).unwrap();
    heard.take(&session.take_output());
    assert_eq!(heard.names(), ["connect", "releaseStream", "FCPublish", "createStream", "publish"]);
}

#[test]
fn bytes_are_acknowledged_at_half_the_window() {
    let (mut session, mut heard) = live();
    session.handle(&message(5, 0, &10_000_u32.to_be_bytes())).unwrap();
    heard.take(&session.take_output());
    let before = heard.controls().len();
    let mut received = session.ingest.position();
    let filler = message(18, 0, &[0; 100]);
    for _ in 0..300 {
        session.handle(&filler).unwrap();
        received += filler.len() as u64;
        heard.take(&session.take_output());
    }
    let acknowledged: Vec<_> = heard.controls()[before..]
        .iter()
        .map(|control| match control {
            Control::Acknowledgement(bytes) => u64::from(*bytes),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!((5..=8).contains(&acknowledged.len()), "{acknowledged:?}");
    assert!(acknowledged.iter().all(|bytes| *bytes <= received));
    let gaps = acknowledged.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.into_iter().all(|gap| (5000..5000 + 2 * filler.len() as u64).contains(&gap)), "{acknowledged:?}");
}

#[test]
fn window_of_zero_is_ignored() {
    let (mut session, _) = live();
    session.handle(&message(5, 0, &[0; 4])).unwrap();
    assert!(!session.has_output());
    // The smallest that is one: an answer to each input at most.
    session.handle(&message(5, 0, &[0, 0, 0, 1])).unwrap();
    let first = session.take_output().len();
    session.handle(&[message(18, 0, &[0; 100]), message(18, 0, &[0; 100])].concat()).unwrap();
    assert_eq!(session.take_output().len(), first);
}

#[test]
fn last_of_several_acknowledgements_is_reported() {
    let (mut session, _) = live();
    session.handle(&[message(3, 0, &[0, 0, 0, 9]), message(3, 0, &[0xFF; 4])].concat()).unwrap();
    assert_eq!(events(&mut session), [ClientEvent::Acknowledged(u32::MAX)]);
}

#[test]
fn auth_answer_goes_into_app_and_tc_url() {
    let asked =
        status("_error", 1.0, "error", "NetConnection.Connect.Rejected", "[ code=403 need auth; authmod=adobe ] :");
    let (mut session, _) = connecting();
    session.handle(&asked).unwrap();
    let Some(ClientEvent::AuthAsked(challenge)) = session.poll_event() else { panic!("not asked") };
    let credentials = Credentials { user: "foo".to_owned(), password: Secret::new("bar") };
    let answer = auth::AuthAnswer::new(&challenge, &credentials, "live", 1);
    let mut session = ClientSession::new(&url(URL), Some(answer));
    session.start();
    session.take_output();
    session.handle(&greeting()).unwrap();
    let mut heard = Heard::default();
    heard.take(&session.take_output()[1536..]);
    let (_, connect) = heard.commands().remove(0);
    let text = |name| connect.object.property(name).and_then(Value::as_str).unwrap();
    assert_eq!(text("app"), "live?authmod=adobe&user=foo");
    assert_eq!(text("tcUrl"), "rtmp://ingest.example/live?authmod=adobe&user=foo");
}

#[test]
fn end_before_publish_sends_nothing() {
    let (mut session, _) = connecting();
    session.handle(&connected()).unwrap();
    session.take_output();
    session.end();
    assert!(!session.has_output());
    session.handle(&created(4.0, 1.0)).unwrap();
    assert!(!session.has_output() && session.poll_event().is_none());
}

#[test]
fn taken_name_ends_the_session_and_later_input_is_ignored() {
    let (mut session, _) = connecting();
    let refused = status("onStatus", 0.0, "error", "NetStream.Publish.BadName", "Already publishing");
    session.handle(&[connected(), created(4.0, 1.0), refused, started(), vec![0xFF; 50]].concat()).unwrap();
    let expected = "NetStream.Publish.BadName: Already publishing".to_owned();
    assert_eq!(events(&mut session), [ClientEvent::Refused(Class::BadName, expected)]);
    session.handle(&[0xFF; 50]).unwrap();
}

#[test]
fn texts_that_repeat_the_key_are_not_shown() {
    for (description, shown) in [
        ("stream in use", true),
        ("stream SECRETKEY in use", false),
        ("bad token TOKEN", false),
        ("SECRETKEY?token=TOKEN", false),
    ] {
        let (mut session, _) = connecting();
        let refused = status("onStatus", 0.0, "error", "NetStream.Publish.BadName", description);
        session.handle(&[connected(), created(4.0, 1.0), refused].concat()).unwrap();
        let events = events(&mut session);
        let [ClientEvent::Refused(_, text)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(text.contains(description), shown, "{text}");
        assert!(!text.contains("SECRETKEY") && !text.contains("TOKEN"));
    }
}

#[test]
fn texts_that_repeat_an_app_that_is_the_key_are_not_shown() {
    let template = PushTemplate::parse("rtmp://h/{key}/name").unwrap();
    let url = template.resolve("live", &StreamKey::parse("APPKEY").unwrap()).unwrap();
    let mut session = ClientSession::new(&url, None);
    session.start();
    session.handle(&greeting()).unwrap();
    session.handle(&status("_error", 1.0, "error", "NetConnection.Connect.InvalidApp", "no app APPKEY")).unwrap();
    let events = events(&mut session);
    assert!(!format!("{events:?}").contains("APPKEY"), "{events:?}");
}

#[test]
fn texts_cannot_break_a_log_line() {
    let (mut session, _) = connecting();
    session.handle(&status("_error", 1.0, "error", "a\nb", &"x".repeat(5000))).unwrap();
    let Some(ClientEvent::Refused(_, text)) = session.poll_event() else { panic!("not refused") };
    assert!(!text.contains('\n') && text.len() < 300, "{text}");
}

#[test]
fn debug_shows_no_secret() {
    let (session, _) = live();
    let shown = format!("{session:?}");
    assert!(shown.contains("Live") && !shown.contains("SECRET") && !shown.contains("TOKEN"), "{shown}");
}

/// rml_rtmp at the other end, from the first byte of the handshake; it accepts everything.
#[test]
fn rml_rtmp_takes_the_publish() {
    let mut session = ClientSession::new(&url("rtmp://h/live/KEY"), None);
    session.start();
    let mut packets = Packets::new(PeerType::Server);
    let mut server = None;
    let mut seen = Vec::new();
    let mut to_server = session.take_output();
    let mut to_client = Vec::new();
    for _ in 0..50 {
        if server.is_none() {
            match packets.process_bytes(&std::mem::take(&mut to_server)).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes } => to_client.extend(response_bytes),
                HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                    to_client.extend(response_bytes);
                    let (rml, results) = RmlSession::new(ServerSessionConfig::new()).unwrap();
                    let mut rml = rml;
                    answer_all(&mut rml, results, &mut to_client, &mut seen);
                    to_server = remaining_bytes;
                    server = Some(rml);
                }
            }
        }
        if let Some(rml) = &mut server {
            let results = rml.handle_input(&std::mem::take(&mut to_server)).unwrap();
            answer_all(rml, results, &mut to_client, &mut seen);
        }
        session.handle(&std::mem::take(&mut to_client)).unwrap();
        while let Some(event) = session.poll_event() {
            if event == ClientEvent::Started {
                // A message of several chunks, as the worker would write it, then the end.
                let header = MessageHeader {
                    csid: 6,
                    timestamp: 0,
                    length: 0,
                    type_id: type_id::VIDEO,
                    stream_id: session.message_stream(),
                };
                crate::rtmp::writer::write_message(&mut to_server, &header, &[0x17; 70_000], session.chunk_size());
                session.end();
            }
        }
        to_server.extend(session.take_output());
    }
    assert_eq!(seen, ["connect live", "publish KEY live", "video 70000", "finished KEY"]);
}

fn answer_all(
    rml: &mut RmlSession,
    results: Vec<ServerSessionResult>,
    to_client: &mut Vec<u8>,
    seen: &mut Vec<String>,
) {
    let mut accept = Vec::new();
    for result in results {
        match result {
            ServerSessionResult::OutboundResponse(packet) => to_client.extend(packet.bytes),
            ServerSessionResult::RaisedEvent(event) => match event {
                ServerSessionEvent::ConnectionRequested { request_id, app_name } => {
                    seen.push(format!("connect {app_name}"));
                    accept.push(request_id);
                }
                ServerSessionEvent::PublishStreamRequested { request_id, stream_key, mode, .. } => {
                    assert_eq!(mode, PublishMode::Live);
                    seen.push(format!("publish {stream_key} live"));
                    accept.push(request_id);
                }
                ServerSessionEvent::VideoDataReceived { data, .. } => seen.push(format!("video {}", data.len())),
                ServerSessionEvent::PublishStreamFinished { stream_key, .. } => {
                    seen.push(format!("finished {stream_key}"));
                }
                _ => {}
            },
            // `releaseStream`, `FCPublish` and `FCUnpublish`, which it does not know.
            ServerSessionResult::UnhandleableMessageReceived(_) => {}
        }
    }
    for request_id in accept {
        let results = rml.accept_request(request_id).unwrap();
        answer_all(rml, results, to_client, seen);
    }
}

/// Publishes to our own server.
#[test]
fn our_server_takes_the_publish() {
    let mut session = ClientSession::new(&url(URL), None);
    session.start();
    let mut handshake = Handshake::server();
    let progress = handshake.handle(&session.take_output()).unwrap();
    session.handle(&progress.output).unwrap();
    let output = session.take_output();
    let progress = handshake.handle(&output).unwrap();
    assert!(progress.done);
    let mut server = ServerSession::new(HANDSHAKE_BYTES);
    let mut to_server = output[progress.used..].to_vec();
    let mut seen = Vec::new();
    for _ in 0..20 {
        while let Some(event) = server.next(&to_server[(server.position() - HANDSHAKE_BYTES) as usize..]).unwrap() {
            match &event {
                Event::Connected => assert_eq!(server.connect().unwrap().app, "live"),
                Event::Publish => {
                    assert_eq!(server.publish().unwrap().key.expose(), "SECRETKEY?token=TOKEN");
                    server.accept_publish();
                    server.ping(77);
                }
                _ => {}
            }
            seen.push(event);
        }
        session.handle(&server.take_output()).unwrap();
        if session.poll_event() == Some(ClientEvent::Started) {
            assert_eq!(session.message_stream(), server.publish().unwrap().message_stream);
            to_server.extend(session.take_output());
            session.end();
        }
        to_server.extend(session.take_output());
    }
    assert_eq!(seen, [Event::Connected, Event::Publish, Event::Pong(77), Event::Ended(EndedBy::FcUnpublish)]);
}

/// Unused results of the scanner would mean that a payload was left in the input.
#[test]
fn media_of_the_upstream_is_skipped() {
    let (mut session, _) = live();
    let video = message(9, 1, &[0x17; 1000]);
    let mut ingest = Ingest::new(0);
    assert!(matches!(ingest.next(&video), Ok(Some(Ingested::Media(Scanned::Begin { .. })))));
    for byte in video.chunks(7) {
        session.handle(byte).unwrap();
    }
    assert!(session.unread.is_empty() && session.poll_event().is_none());
}
