//! Tests of [`super`]: the table of publishers, cut and saved at every point; holding and refusing; floods; rml_rtmp as the publisher.

use super::*;

use crate::rtmp::limits;
use crate::rtmp::tables::amf0::{number, text};
use crate::rtmp::tables::chunk::{bytes, ext, fmt0, fmt1, fmt3};
use crate::rtmp::tables::client::null;
use crate::rtmp::tables::session::{
    self as table, Row, audio, command, message, plain_connect, publish, rows, up_to_publish,
};

/// The result of a publisher's bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    events: Vec<String>,
    open: Vec<(MessageHeader, Vec<u8>)>,
    output: Vec<u8>,
    error: Option<SessionError>,
}

/// Accepts every publish at once.
fn accept(session: &mut ServerSession) {
    session.accept_publish();
}

impl Heard {
    fn take(&mut self, event: &Event, session: &ServerSession, stream: &[u8]) {
        let text = match event {
            Event::Connected => "connected".to_owned(),
            Event::Publish => {
                let publish = session.publish().unwrap();
                format!("publish {} on {}", publish.key.expose(), publish.message_stream)
            }
            Event::Ended(by) => format!("ended by {by:?}"),
            Event::Pong(milliseconds) => format!("pong {milliseconds}"),
            Event::Media(Scanned::Begin { header, .. }) => return self.open.push((*header, Vec::new())),
            Event::Media(Scanned::Payload { csid, at, len, last }) => {
                let index =
                    self.open.iter().position(|(header, _)| header.csid == *csid).expect("payload has a beginning");
                self.open[index].1.extend_from_slice(&stream[*at as usize..][..*len as usize]);
                if !last {
                    return;
                }
                let (header, payload) = self.open.remove(index);
                assert_eq!(payload.len(), header.length as usize);
                format!("media {} {} {}", header.type_id, header.timestamp, payload.len())
            }
            Event::Media(Scanned::Aborted { csid, .. }) => {
                let index = self.open.iter().position(|(header, _)| header.csid == *csid).expect("it has a beginning");
                self.open.remove(index);
                "aborted".to_owned()
            }
        };
        self.events.push(text);
    }

    /// Handles the input up to `end`; `decide` is called at every publish.
    fn feed(&mut self, session: &mut ServerSession, stream: &[u8], end: usize, decide: fn(&mut ServerSession)) {
        while self.error.is_none() {
            match session.next(&stream[session.position() as usize..end]) {
                Ok(Some(event)) => {
                    self.take(&event, session, stream);
                    if event == Event::Publish {
                        decide(session);
                    }
                }
                Ok(None) => break,
                Err(error) => self.error = Some(error),
            }
        }
        self.output.extend(session.take_output());
    }
}

fn hear(stream: &[u8], ends: impl IntoIterator<Item = usize>) -> (Heard, ServerSession) {
    let (mut heard, mut session) = (Heard::default(), ServerSession::new(0));
    for end in ends {
        heard.feed(&mut session, stream, end, accept);
    }
    (heard, session)
}

/// The messages of the session, in words.
fn told(output: &[u8]) -> Vec<String> {
    let mut ingest = Ingest::new(0);
    let mut told = Vec::new();
    while let Some(ingested) = ingest.next(&output[ingest.position() as usize..]).unwrap() {
        let Ingested::Message { header, payload } = ingested else { panic!("we send no media") };
        if header.type_id == type_id::COMMAND_AMF0 {
            told.push(said(&header, &Command::parse(header.type_id, &payload).unwrap()));
        } else {
            told.push(match Control::parse(header.type_id, &payload).unwrap() {
                Control::SetChunkSize(size) => format!("chunk size {size}"),
                Control::WindowAckSize(size) => format!("window {size}"),
                Control::SetPeerBandwidth { size, .. } => format!("bandwidth {size}"),
                Control::Acknowledgement(_) => "acknowledged".to_owned(),
                Control::UserControl(UserControl::StreamBegin(stream)) => format!("begin {stream}"),
                Control::UserControl(UserControl::PingRequest(at)) => format!("ping {at}"),
                Control::UserControl(UserControl::PingResponse(at)) => format!("pong {at}"),
                other => panic!("{other:?}"),
            });
        }
    }
    assert_eq!((ingest.position() as usize, ingest.open_messages()), (output.len(), 0), "only whole messages");
    told
}

fn said(header: &MessageHeader, command: &Command) -> String {
    let of = |name| command.argument(0).and_then(|value| value.property(name)).and_then(Value::as_str);
    let (level, code) = (of("level").unwrap_or_default(), of("code").unwrap_or_default());
    match command.name.as_str() {
        "onStatus" => {
            assert_eq!(command.transaction, 0.0);
            format!("onStatus {} {level} {code}", header.stream_id)
        }
        "_result" if !code.is_empty() => format!("_result {} {code}", command.transaction),
        "_result" => {
            let value = command.argument(0).and_then(Value::as_f64).map(|number| format!(" {number}"));
            format!("_result {}{}", command.transaction, value.unwrap_or_default())
        }
        name => format!("{name} {code}"),
    }
}

const CONNECTED: [&str; 4] =
    ["window 2500000", "bandwidth 2500000", "chunk size 65536", "_result 1 NetConnection.Connect.Success"];

#[test]
fn every_publisher_of_the_table_gets_its_answers() {
    for Row { name, bytes, events, told: expected, error } in rows() {
        let (heard, session) = hear(&bytes, [bytes.len()]);
        assert_eq!(heard.events, events, "{name}");
        let connected = events.contains(&"connected");
        let expected: Vec<_> = CONNECTED.iter().filter(|_| connected).chain(&expected).copied().collect();
        // A client may send more than connect first; the answers to that would come first.
        assert_eq!(told(&heard.output), expected, "{name}");
        match (heard.error, error) {
            (Some(heard), Some(expected)) => assert!(heard.to_string().contains(expected), "{name}: {heard}"),
            (heard, expected) => assert_eq!((heard.is_some(), expected), (false, None), "{name}: {heard:?}"),
        }
        assert_eq!(session.is_started(), events.iter().any(|event| event.starts_with("publish")), "{name}");
        assert_eq!(session.is_ended(), events.iter().any(|event| event.starts_with("ended")), "{name}");
    }
}

/// An event in the life of a session: a command of the publisher, or a decision of ours.
enum Step {
    Hears(Vec<u8>),
    Accepts,
    Refuses,
    Reopens,
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    use SessionPhase::{Connected, Ended, Held, New, Started};
    const STATES: [SessionPhase; 5] = [New, Connected, Held, Started, Ended];
    let session_in = |phase: SessionPhase| {
        let whole = up_to_publish();
        let asks = whole.len() - publish(1, "key").len();
        let mut session = ServerSession::new(0);
        let end = match phase {
            New => 0,
            Connected => asks,
            Held | Started | Ended => whole.len(),
        };
        Heard::default().feed(&mut session, &whole, end, |_| {});
        if phase >= Started {
            session.accept_publish();
        }
        if phase == Ended {
            session.refuse_publish(Refusal::Denied, "kicked");
        }
        assert_eq!(session.now.phase, phase);
        session
    };
    let to_stream = |name, rest: &[Vec<u8>]| Step::Hears(command(3, 1, name, 0.0, &[&[null()], rest].concat()));
    let (none, ended) = (None, [Some(New), Some(Connected), Some(Ended), Some(Ended), Some(Ended)]);
    // A step, and the state after it from each state; without one it is an error.
    let table = [
        ("connect", Step::Hears(plain_connect()), [Some(Connected), none, Some(Held), Some(Started), Some(Ended)]),
        ("publish", Step::Hears(publish(1, "key")), [none, Some(Held), Some(Held), Some(Started), Some(Ended)]),
        ("another publish", Step::Hears(publish(1, "b")), [none, Some(Held), Some(Held), Some(Started), Some(Ended)]),
        ("accept", Step::Accepts, [Some(New), Some(Connected), Some(Started), Some(Started), Some(Ended)]),
        ("refuse", Step::Refuses, ended),
        ("FCUnpublish", to_stream("FCUnpublish", &[text("key")]), ended),
        ("deleteStream", to_stream("deleteStream", &[number(1.0)]), ended),
        ("closeStream", to_stream("closeStream", &[]), ended),
        ("reopen", Step::Reopens, [none, none, none, none, Some(Connected)]),
    ];
    for (name, step, expected) in &table {
        for (from, expected) in STATES.into_iter().zip(expected) {
            let mut session = session_in(from);
            let mut result = Ok(());
            match step {
                Step::Hears(bytes) => result = session.next(bytes).map(drop),
                Step::Accepts => session.accept_publish(),
                Step::Refuses => session.refuse_publish(Refusal::BadName, "taken"),
                Step::Reopens => result = ServerSession::reopen(&session.state()).map(|again| session = again),
            }
            assert_eq!(result.ok().map(|()| session.now.phase), *expected, "{name} when {from:?}");
        }
    }
}

/// Long rows are cut at fewer points: they are repetitions.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).step_by(if length > 2500 { length / 80 } else { 1 })
}

fn saved(state: &ServerSessionState) -> ServerSession {
    let bytes = postcard::to_stdvec(state).unwrap();
    let read: ServerSessionState = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(read, *state);
    ServerSession::restore(&read).unwrap()
}

#[test]
fn every_split_point_gives_the_same_also_through_a_saved_state() {
    for Row { name, bytes, .. } in rows() {
        let (whole, at_once) = hear(&bytes, [bytes.len()]);
        for cut in cuts(bytes.len()) {
            let (mut heard, session) = hear(&bytes, [cut]);
            let mut session = saved(&session.state());
            heard.feed(&mut session, &bytes, bytes.len(), accept);
            assert_eq!(heard, whole, "{name} cut at {cut}");
            assert!(whole.error.is_some() || session.state() == at_once.state(), "{name} cut at {cut}");
        }
    }
}

#[test]
fn feeding_byte_by_byte_gives_the_same() {
    for Row { name, bytes, .. } in rows() {
        assert_eq!(hear(&bytes, 0..=bytes.len()).0, hear(&bytes, [bytes.len()]).0, "{name}");
    }
}

#[test]
fn output_that_was_not_taken_is_saved() {
    let stream = up_to_publish();
    let mut session = ServerSession::new(0);
    while session.next(&stream[session.position() as usize..]).unwrap().is_some() {}
    session.accept_publish();
    session.ping(5);
    let mut again = saved(&session.state());
    assert_eq!(again.take_output(), session.take_output());
    assert!(!again.has_output());
}

/// Reading again from the beginning of the last message gives the same events, and does not ask for our decisions again.
#[test]
fn session_restored_from_before_a_chunk_reads_the_same_events() {
    for Row { name, bytes, error, .. } in rows() {
        if error.is_some() {
            continue;
        }
        let (whole, _) = hear(&bytes, [bytes.len()]);
        for cut in cuts(bytes.len()) {
            let (_, session) = hear(&bytes, [cut]);
            let before = session.state_before_chunk();
            assert!(before.position() <= session.position());
            let mut again = saved(&before);
            let (mut heard, asked) = (Heard::default(), session.is_started());
            // Messages that were open then have their beginning in the past.
            let begun = before.ingest.open().filter(|(header, _)| !before.facts.dropping.contains(&header.csid));
            heard.open = begun.map(|(header, received)| (header, vec![0; received as usize])).collect();
            heard.feed(&mut again, &bytes, bytes.len(), accept);
            assert_eq!(
                again.is_started(),
                whole.events.iter().any(|event| event.starts_with("publish")),
                "{name} {cut}"
            );
            assert!(whole.events.ends_with(&heard.events), "{name} cut at {cut}: {:?}", heard.events);
            let output = told(&[table_chunk_size(65_536), heard.output].concat());
            let starts = output.iter().filter(|told| told.contains("Publish.Start")).count();
            let fc = output.iter().filter(|told| told.starts_with("onFCPublish")).count();
            assert!(!asked || starts == fc, "{name} cut at {cut}: told to start again");
        }
    }
}

#[test]
fn a_state_from_before_a_keyframes_chunk_has_the_session_of_that_time() {
    // A keyframe begins; a command that was open completes within it and ends the stream; the state before does not know that yet.
    let end = table::command(3, 0, "FCUnpublish", 0.0, &[vec![5], crate::rtmp::tables::amf0::text("key")]);
    let split = end.len() - 10;
    let mut begins = fmt0(3, 0, (end.len() - 12) as u32, 20, 0);
    begins.extend(&end[12..]);
    let open = set_small_chunks(&begins[12..split], &begins[split..]);
    let keyframe = [fmt0(6, 40, 600, 9, 1), bytes(100)].concat();
    let stream = [up_to_publish(), audio(0, 4), open.0, keyframe.clone(), open.1].concat();
    let (heard, session) = hear(&stream, [stream.len()]);
    assert_eq!(heard.events.last().unwrap(), "ended by FcUnpublish");
    assert!(session.is_ended());

    let before = session.state_before_chunk();
    assert_eq!(&stream[before.position() as usize..][..keyframe.len()], keyframe);
    let mut again = saved(&before);
    assert!(!again.is_ended() && again.is_started());
    let mut replayed = Heard::default();
    replayed.feed(&mut again, &stream, stream.len(), accept);
    assert_eq!(replayed.events, ["ended by FcUnpublish"]);
    assert_eq!(again.state(), session.state());
}

/// A command in two chunks of chunk stream 3: the header with the first part (exactly one chunk), and the continuation.
fn set_small_chunks(first: &[u8], second: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = (first.len() + second.len()) as u32;
    let begin =
        [table_chunk_size(first.len()), fmt0(3, 0, length, 20, 0), first.to_vec(), table_chunk_size(100)].concat();
    (begin, [fmt3(3), second.to_vec()].concat())
}

fn table_chunk_size(size: usize) -> Vec<u8> {
    crate::rtmp::tables::chunk::set_chunk_size(size as u32)
}

#[test]
fn media_before_the_decision_is_an_event_and_pings_go_on() {
    let stream = [up_to_publish(), audio(0, 10), audio(1, 10)].concat();
    let (mut heard, mut session) = (Heard::default(), ServerSession::new(0));
    heard.feed(&mut session, &stream, stream.len(), |_| {});
    assert_eq!(heard.events, ["connected", "publish key on 1", "media 8 0 10", "media 8 1 10"]);
    assert!(!session.is_started() && !told(&heard.output).iter().any(|told| told.starts_with("onStatus")));
    for at in 0..3 {
        session.ping(at * 5000);
    }
    session.accept_publish();
    session.accept_publish();
    assert_eq!(
        told(&session.take_output()),
        ["ping 0", "ping 5000", "ping 10000", "begin 1", "onStatus 1 status NetStream.Publish.Start"]
    );
    assert!(session.is_started() && !session.is_ended());
    assert_eq!(session.dropped(), Dropped::default());
}

#[test]
fn refused_publish_is_answered_once_and_ends() {
    for (refusal, code) in [(Refusal::BadName, "BadName"), (Refusal::Denied, "Denied")] {
        let stream = [up_to_publish(), audio(0, 10), publish(1, "key")].concat();
        let mut session = ServerSession::new(0);
        session.refuse_publish(refusal, "nothing was asked");
        session.accept_publish();
        assert!(!session.has_output());
        let mut heard = Heard::default();
        heard.feed(&mut session, &stream, up_to_publish().len(), |session| {
            session.refuse_publish(Refusal::Denied, &"é".repeat(4000));
        });
        assert_eq!(told(&heard.output).last().unwrap(), "onStatus 1 error NetStream.Publish.Denied");
        assert!(heard.output.len() < 2000);
        session.refuse_publish(refusal, "again");
        session.accept_publish();
        assert!(session.is_ended() && !session.is_started() && !session.has_output());
        heard.feed(&mut session, &stream, stream.len(), accept);
        assert_eq!(heard.events, ["connected", "publish key on 1"]);
        assert_eq!(session.dropped(), Dropped { messages: 1, bytes: 10 });

        let mut live = hear(&stream[..up_to_publish().len()], [up_to_publish().len()]).1;
        live.refuse_publish(refusal, "kicked");
        assert_eq!(told(&live.take_output()), [format!("onStatus 1 error NetStream.Publish.{code}")]);
        assert!(live.is_ended() && live.is_started());
        assert!(saved(&live.state()).is_ended());
    }
}

#[test]
fn media_of_no_stream_is_counted_and_bounded() {
    let other = |length: usize| [fmt0(6, 0, length as u32, 9, 2), bytes(length)].concat();
    let set = table_chunk_size(0xFF_FFFF);
    let stream = [set.clone(), up_to_publish_in_one(), other(100_000), other(5)].concat();
    let (heard, session) = hear(&stream, [stream.len()]);
    assert_eq!((heard.error, session.dropped()), (None, Dropped { messages: 2, bytes: 100_005 }));

    let stream = [set, other(600_000), other(600_000)].concat();
    let (heard, _) = hear(&stream, [stream.len()]);
    assert_eq!(heard.error, Some(SessionError::TooMuchMedia));
}

fn up_to_publish_in_one() -> Vec<u8> {
    // The commands of the table are cut at 128 bytes; with a larger chunk size the longest one, connect, must still fit into one.
    let stream = up_to_publish();
    assert!(plain_connect().len() < 128 + 12);
    stream
}

#[test]
fn peer_cannot_make_us_send_more_than_it_sends() {
    // The smallest ping takes 7 bytes: fmt3 repeats everything.
    let first = message(128, 2, 4, 0, &[&[0, 6][..], &ext(1)].concat());
    let more = [fmt3(2), vec![0, 6], ext(1)].concat().repeat(100_000);
    let stream = [up_to_publish(), first, more].concat();
    let mut session = ServerSession::new(0);
    let mut sent = 0;
    for part in 1..=stream.len() / 5000 {
        loop {
            match session.next(&stream[session.position() as usize..part * 5000]) {
                Ok(Some(Event::Publish)) => session.accept_publish(),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let output = session.take_output();
        assert!(output.len() < 64 << 10);
        sent += output.len() as u64;
    }
    // Publish.Start is our own decision.
    let own = answer::started(1).len() as u64;
    assert!(sent <= session.position() + limits::ANSWER_CREDIT + own, "{sent} for {}", session.position());
    assert!(sent > session.position() / 2, "honest pings are answered");
}

#[test]
fn a_connection_whose_publish_has_ended_can_publish_again() {
    // The rest of an audio message comes behind the goodbye, as does what belongs to the publish before; then all of it once more.
    let goodbye = message(128, 3, 20, 0, &[text("FCUnpublish"), number(6.0), null(), text("key")].concat());
    let again = up_to_publish()[plain_connect().len()..].to_vec();
    let first = [up_to_publish(), [fmt0(6, 0, 200, 8, 1), bytes(128)].concat(), goodbye.clone()].concat();
    let second = [
        [fmt3(6), bytes(72)].concat(),
        command(3, 0, "deleteStream", 7.0, &[null(), number(1.0)]),
        again,
        audio(9, 10),
        goodbye,
    ]
    .concat();
    let (heard, session) = hear(&first, [first.len()]);
    assert_eq!(heard.events, ["connected", "publish key on 1", "ended by FcUnpublish"]);
    for cut in 0..=second.len() {
        let mut again = ServerSession::reopen(&session.state()).unwrap();
        assert_eq!((again.connect(), again.publish(), again.is_ended()), (session.connect(), None, false));
        let stream = [&first[..], &second].concat();
        let mut heard = Heard::default();
        heard.feed(&mut again, &stream, first.len() + cut, accept);
        heard.feed(&mut again, &stream, stream.len(), accept);
        assert_eq!(heard.events, ["publish key on 1", "media 8 9 10", "ended by FcUnpublish"], "cut at {cut}");
        assert!(told(&heard.output).contains(&"onStatus 1 status NetStream.Publish.Start".to_owned()));
        assert!(ServerSession::reopen(&again.state()).is_ok());
    }
    let live = hear(&up_to_publish(), [up_to_publish().len()]).1;
    assert!(ServerSession::reopen(&live.state()).is_err(), "it has not ended");
}

#[test]
fn output_is_bounded_when_the_peer_never_reads() {
    let least = message(128, 2, 5, 0, &ext(limits::MIN_WINDOW));
    let ping = message(128, 2, 4, 0, &[&[0, 6][..], &ext(1)].concat());
    let acknowledged = [table_chunk_size(65_536), audio(0, 4_000)].concat().repeat(10_000);
    for flood in [acknowledged, ping.repeat(10_000)] {
        let stream = [up_to_publish(), least.clone(), flood].concat();
        let mut session = ServerSession::new(0);
        while session.next(&stream[session.position() as usize..]).unwrap().is_some() {}
        assert_eq!(session.position(), stream.len() as u64);
        for at in 0..10_000 {
            session.ping(at);
        }
        assert!(session.output().len() < limits::MAX_OUTPUT + 1000);
        told(&session.take_output());
    }
}

#[test]
fn an_acknowledgement_takes_the_place_of_one_that_a_full_output_holds() {
    let stream = [
        up_to_publish(),
        message(128, 2, 5, 0, &ext(limits::MIN_WINDOW)),
        [table_chunk_size(65_536), audio(0, 4_000)].concat().repeat(2_000),
    ]
    .concat();
    let mut session = ServerSession::new(0);
    while session.next(&stream[session.position() as usize..]).unwrap().is_some() {}
    let output = session.take_output();
    assert!(output.len() < limits::FULL_OUTPUT + 1000, "{}", output.len());
    let last = u32::from_be_bytes(*output.last_chunk().unwrap());
    assert!(u64::from(last) + 5_000 > session.position(), "the last one says all: {last} of {}", session.position());
}

#[test]
fn answers_hold_null_and_none_looks_like_the_answer_to_connect() {
    // xiu's push numbers its commands so, and stops at undefined (marker 6).
    let stream = [
        plain_connect(),
        command(3, 0, "releaseStream", 1.0, &[null(), text("key")]),
        command(3, 0, "FCPublish", 1.0, &[null(), text("key")]),
        command(3, 0, "releaseStream", 2.0, &[null(), text("key")]),
        command(3, 0, "FCPublish", 3.0, &[null(), text("key")]),
    ]
    .concat();
    let (heard, _) = hear(&stream, [stream.len()]);
    assert_eq!(
        told(&heard.output)[4..],
        ["onFCPublish NetStream.Publish.Start", "_result 2", "onFCPublish NetStream.Publish.Start", "_result 3"]
    );
    let mut ingest = Ingest::new(0);
    let mut values = Vec::new();
    while let Some(Ingested::Message { header, payload }) =
        ingest.next(&heard.output[ingest.position() as usize..]).unwrap()
    {
        if header.type_id == type_id::COMMAND_AMF0 {
            let Command { name, transaction, arguments, .. } = Command::parse(header.type_id, &payload).unwrap();
            values.extend(arguments.into_iter().filter(|_| name == "_result" && transaction > 1.0));
        }
    }
    assert_eq!(values, [Value::Null, Value::Null]);
}

/// Total of the acknowledgements, and how many.
fn acknowledgements(window: Option<u32>, start: u64, length: usize, step: usize) -> Vec<u32> {
    let window = window.map(|size| message(128, 2, 5, 0, &ext(size))).unwrap_or_default();
    let media = [fmt0(4, 0, 1000, 8, 1), bytes(1000), [fmt3(4), bytes(1000)].concat().repeat(length / 1001)].concat();
    let stream = [window, up_to_publish(), table_chunk_size(65_536), media].concat();
    let mut session = ServerSession::new(start);
    let mut totals = Vec::new();
    let mut end = 0;
    while end < stream.len() {
        end = stream.len().min(end + step);
        while session.next(&stream[(session.position() - start) as usize..end]).unwrap().is_some() {}
        let output = session.take_output();
        let mut ingest = Ingest::new(0);
        while let Some(Ingested::Message { header, payload }) =
            ingest.next(&output[ingest.position() as usize..]).unwrap()
        {
            if let Ok(Control::Acknowledgement(total)) = Control::parse(header.type_id, &payload) {
                totals.push(total);
            }
        }
    }
    totals
}

#[test]
fn acknowledgements_come_at_half_the_window_and_never_in_floods() {
    let length = 3_000_000;
    let count = |window| acknowledgements(window, 3073, length, 10_000).len();
    // Whatever was named, an acknowledgement of 16 bytes follows at least 2048 bytes.
    assert!((900..=length / 2048).contains(&count(Some(1))));
    assert_eq!(count(Some(u32::MAX)), 0);
    assert_eq!((count(Some(0)), count(None), count(Some(2_500_000))), (2, 2, 2));
    assert_eq!(count(Some(1_000_000)), 5);
    let totals = acknowledgements(Some(1_000_000), 3073, length, 10_000);
    assert!(totals.windows(2).all(|pair| pair[1] - pair[0] >= 500_000 && pair[1] - pair[0] < 502_000), "{totals:?}");
    assert_eq!(totals, acknowledgements(Some(1_000_000), 3073, length, 777), "however it was cut");
}

#[test]
fn the_count_of_an_acknowledgement_wraps_at_4_gib() {
    let start = (1 << 32) - 1_000_000;
    let totals = acknowledgements(Some(1_000_000), start, 3_000_000, 10_000);
    assert!(totals[0] > u32::MAX - 600_000 && totals[1] < 600_000 && totals[2] < 1_200_000, "{totals:?}");
}

#[test]
fn a_whole_window_within_one_message_is_acknowledged_before_its_end() {
    let stream = [
        message(128, 2, 5, 0, &ext(10_000)),
        up_to_publish(),
        table_chunk_size(1 << 20),
        fmt0(6, 0, 500_000, 9, 1),
        bytes(30_000),
    ]
    .concat();
    let ends: Vec<_> = (0..stream.len()).step_by(100).chain([stream.len()]).collect();
    let (heard, _) = hear(&stream, ends);
    assert_eq!(told(&heard.output).iter().filter(|told| *told == "acknowledged").count(), 3);
}

#[test]
fn enhanced_rtmp_is_answered_when_asked_for() {
    use crate::rtmp::tables::amf0::{number, object, property, text};
    let answer = |properties: &[Vec<u8>]| {
        let (heard, session) = hear(&table::connect(properties), [table::connect(properties).len()]);
        let mut ingest = Ingest::new(0);
        loop {
            match ingest.next(&heard.output[ingest.position() as usize..]).unwrap() {
                Some(Ingested::Message { header, payload }) if header.type_id == type_id::COMMAND_AMF0 => {
                    return (Command::parse(header.type_id, &payload).unwrap(), session.connect().unwrap().clone());
                }
                Some(_) => {}
                None => panic!("no answer"),
            }
        }
    };
    let (plain, info) = answer(&[property("app", &text("live"))]);
    assert!(!info.enhanced);
    let information = plain.argument(0).unwrap();
    assert_eq!(information.property("fourCcList"), None);

    let (command, info) = answer(&[
        property("app", &text("live")),
        property("fourCcList", &[&[10, 0, 0, 0, 1][..], &text("hvc1")].concat()),
        property("videoFourCcInfoMap", &object(&[3], &[property("hvc1", &number(2.0))])),
        property("capsEx", &number(15.0)),
    ]);
    assert!(info.enhanced && info.caps_ex == 15);
    for object in [&command.object, command.argument(0).unwrap()] {
        assert_eq!(object.property("videoFourCcInfoMap").unwrap().property("*"), Some(&Value::Number(4.0)));
        assert_eq!(object.property("audioFourCcInfoMap").unwrap().property("*"), Some(&Value::Number(4.0)));
        assert_eq!(object.property("fourCcList"), Some(&Value::StrictArray(vec![Value::string("*")])));
        assert_eq!(object.property("capsEx"), Some(&Value::Number(14.0)), "we ask nobody to reconnect");
    }
}

#[test]
fn connect_is_kept_within_bounds_and_secrets_are_not_shown() {
    use crate::rtmp::tables::amf0::{property, text};
    let long = |name: &str| property(name, &text(&"é".repeat(9000)));
    let stream = [
        table_chunk_size(65_536),
        message(
            65_536,
            3,
            20,
            0,
            &[
                text("connect"),
                crate::rtmp::tables::amf0::number(1.0),
                crate::rtmp::tables::amf0::object(&[3], &["app", "tcUrl", "flashVer"].map(long)),
            ]
            .concat(),
        ),
    ]
    .concat();
    let (_, session) = hear(&stream, [stream.len()]);
    let info = session.connect().unwrap();
    assert_eq!((info.app.len(), info.tc_url.len()), (limits::MAX_APP_TEXT, limits::MAX_CONNECT_TEXT));
    assert!(crate::key::AppName::parse(&info.app).is_err());

    let connect = table::connect(&[
        property("app", &text("live?token=s3cret")),
        property("tcUrl", &text("rtmp://localhost/live?token=s3cret")),
        property("swfUrl", &text("s3cret")),
    ]);
    let stream = [connect, publish(1, "s3cret?pass=s3cret"), audio(0, 1)[..4].to_vec(), publish(1, "s3cret")].concat();
    for cut in 0..stream.len() {
        let (_, session) = hear(&stream[..cut], [cut]);
        let shown = format!("{session:?} {:?} {:?} {:?}", session.state(), session.publish(), session.connect());
        assert!(!shown.contains("s3cret") && !shown.contains("115, 51, 99"), "{shown}");
    }
}

#[test]
fn impossible_states_are_refused() {
    let stream = [up_to_publish(), [fmt0(6, 5, 200, 9, 2), bytes(128)].concat()].concat();
    let (_, session) = hear(&stream, [stream.len()]);
    let good = session.state();
    assert!(ServerSession::restore(&good).is_ok());
    type Break = fn(&mut ServerSessionState);
    let table: [(&str, Break); 17] = [
        ("connect", |state| state.facts.connect = None),
        ("publish", |state| state.facts.publish = None),
        ("connect", |state| state.facts.phase = SessionPhase::New),
        ("publish", |state| state.facts.phase = SessionPhase::Connected),
        ("start", |state| state.facts.started = false),
        ("start", |state| state.facts.phase = SessionPhase::Held),
        ("app", |state| {
            state.facts.connect = Some(Arc::new(ConnectInfo { app: "a".repeat(10_000), ..ConnectInfo::default() }));
        }),
        ("text of connect", |state| {
            state.facts.connect = Some(Arc::new(ConnectInfo { page_url: "a".repeat(1025), ..ConnectInfo::default() }));
        }),
        ("type of the publish", |state| {
            let request = state.facts.publish.as_deref().unwrap().clone();
            state.facts.publish = Some(Arc::new(PublishRequest { kind: "x".repeat(300), ..request }));
        }),
        ("transaction", |state| {
            let request = state.facts.publish.as_deref().unwrap().clone();
            state.facts.publish = Some(Arc::new(PublishRequest { transaction: f64::NAN, ..request }));
        }),
        ("number of commands", |state| state.facts.commands = 65),
        ("number of message streams", |state| state.facts.streams = 9),
        ("acknowledged position", |state| state.facts.acknowledged = u64::MAX),
        ("credit for answers", |state| state.facts.answered = u64::MAX),
        ("dropped message", |state| state.facts.dropping = vec![4]),
        ("dropped message", |state| state.facts.dropping = vec![6, 6]),
        ("output", |state| state.output = vec![0; 200_000]),
    ];
    for (what, change) in table {
        let mut state = good.clone();
        change(&mut state);
        assert_eq!(ServerSession::restore(&state).err(), Some(SessionError::State(what)));
    }
    let early = [plain_connect(), [fmt1(6, 5, 200, 9), bytes(128)].concat()].concat();
    let mut state = hear(&early, [early.len()]).1.state();
    state.facts.dropping.clear();
    assert_eq!(ServerSession::restore(&state).err(), Some(SessionError::State("media of no publish")));
}

#[test]
fn stream_key_in_a_restored_state_is_checked_again() {
    let (_, session) = hear(&up_to_publish(), [up_to_publish().len()]);
    let mut bytes = postcard::to_stdvec(&session.state()).unwrap();
    let at = bytes.windows(4).rposition(|window| window == b"\x03key").unwrap();
    bytes[at + 1..at + 4].copy_from_slice(b"../");
    let state: ServerSessionState = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(ServerSession::restore(&state).err(), Some(SessionError::State("stream key")));
}

mod with_rml_rtmp {
    //! rml_rtmp's client publishes into our session.

    use rml_rtmp::sessions::{
        ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, StreamMetadata,
    };
    use rml_rtmp::time::RtmpTimestamp;

    use super::*;

    struct Pair {
        client: ClientSession,
        session: ServerSession,
        sent: Vec<u8>,
        heard: Heard,
        events: Vec<ClientSessionEvent>,
    }

    impl Pair {
        fn take(&mut self, results: Vec<ClientSessionResult>) {
            for result in results {
                match result {
                    ClientSessionResult::OutboundResponse(packet) => self.sent.extend(packet.bytes),
                    ClientSessionResult::RaisedEvent(event) => self.events.push(event),
                    ClientSessionResult::UnhandleableMessageReceived(payload) => {
                        assert_eq!(payload.type_id, type_id::SET_PEER_BANDWIDTH, "the one thing that it does not know");
                    }
                }
            }
        }

        /// Exchanges bytes until neither side has any.
        fn settle(&mut self) {
            loop {
                let end = self.sent.len();
                self.heard.feed(&mut self.session, &self.sent, end, |_| {});
                assert_eq!(self.heard.error, None);
                let output = std::mem::take(&mut self.heard.output);
                if output.is_empty() {
                    return;
                }
                let results = self.client.handle_input(&output).unwrap();
                self.take(results);
            }
        }
    }

    #[test]
    fn rml_rtmp_client_publishes_and_its_media_arrives() {
        let mut config = ClientSessionConfig::new();
        config.tc_url = Some("rtmp://localhost/live".to_owned());
        let (client, results) = ClientSession::new(config).unwrap();
        let mut pair = Pair {
            client,
            session: ServerSession::new(0),
            sent: Vec::new(),
            heard: Heard::default(),
            events: Vec::new(),
        };
        pair.take(results);
        let result = pair.client.request_connection("live".to_owned()).unwrap();
        pair.take(vec![result]);
        pair.settle();
        assert_eq!(pair.events, [ClientSessionEvent::ConnectionRequestAccepted]);
        assert_eq!(pair.session.connect().unwrap().app, "live");
        assert_eq!(pair.session.connect().unwrap().tc_url, "rtmp://localhost/live");

        let result = pair.client.request_publishing("key?a=b".to_owned(), PublishRequestType::Live).unwrap();
        pair.take(vec![result]);
        pair.settle();
        assert_eq!(pair.heard.events.last().unwrap(), "publish key?a=b on 1");
        assert_eq!(pair.session.publish().unwrap().kind, "live");
        pair.session.ping(5000);
        pair.settle();
        assert_eq!(pair.heard.events.last().unwrap(), "pong 5000", "it answers while it is held");
        assert_eq!(pair.events.len(), 1, "and does not know yet");
        pair.session.accept_publish();
        pair.settle();
        assert_eq!(pair.events.last(), Some(&ClientSessionEvent::PublishRequestAccepted));

        let results = pair.client.publish_metadata(&StreamMetadata::new()).unwrap();
        pair.take(vec![results]);
        let mut expected = Vec::new();
        for at in 0..50_u32 {
            let video = bytes(3000 + at as usize * 1000);
            let audio = bytes(100 + at as usize);
            expected.push(format!("media 9 {} {}", at * 40, video.len()));
            expected.push(format!("media 8 {} {}", at * 40 + 5, audio.len()));
            let results = pair.client.publish_video_data(video.into(), RtmpTimestamp::new(at * 40), false).unwrap();
            pair.take(vec![results]);
            let results = pair.client.publish_audio_data(audio.into(), RtmpTimestamp::new(at * 40 + 5), false).unwrap();
            pair.take(vec![results]);
            pair.settle();
        }
        assert!(pair.heard.events.ends_with(&expected), "{:?}", pair.heard.events);
        assert!(matches!(pair.events.last(), Some(ClientSessionEvent::AcknowledgementReceived { .. })), "over 1.25 MB");

        let results = pair.client.stop_publishing().unwrap();
        pair.take(results);
        let sent = pair.sent.len();
        let mut heard = Heard::default();
        heard.feed(&mut pair.session, &pair.sent, sent, |_| {});
        assert_eq!(heard.events, ["ended by DeleteStream"]);
    }

    #[test]
    fn rml_rtmp_server_and_ours_agree_on_a_publisher() {
        use rml_rtmp::sessions::{
            ServerSession as Oracle, ServerSessionConfig, ServerSessionEvent, ServerSessionResult,
        };
        // Only rows that it survives: no interleaving, no command of the live phase that it panics on.
        let stream = [up_to_publish(), audio(7, 100), audio(9, 20)].concat();
        let (mut oracle, _) = Oracle::new(ServerSessionConfig::new()).unwrap();
        let mut media = Vec::new();
        for part in stream.chunks(10) {
            let mut results = oracle.handle_input(part).unwrap();
            while !results.is_empty() {
                let mut more = Vec::new();
                for result in results {
                    let ServerSessionResult::RaisedEvent(event) = result else { continue };
                    match event {
                        ServerSessionEvent::ConnectionRequested { request_id, app_name } => {
                            assert_eq!(app_name, "live");
                            more.extend(oracle.accept_request(request_id).unwrap());
                        }
                        ServerSessionEvent::PublishStreamRequested { request_id, stream_key, .. } => {
                            assert_eq!(stream_key, "key");
                            more.extend(oracle.accept_request(request_id).unwrap());
                        }
                        ServerSessionEvent::AudioDataReceived { data, timestamp, .. } => {
                            media.push(format!("media 8 {} {}", timestamp.value, data.len()));
                        }
                        _ => {}
                    }
                }
                results = more;
            }
        }
        let (heard, _) = hear(&stream, [stream.len()]);
        assert!(heard.events.ends_with(&media) && media.len() == 2, "{media:?}");
    }
}
