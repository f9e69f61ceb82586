//! The publisher's machine on virtual time, with our own client session as the publisher.

use std::time::Duration;

use liveedgecast_common::key::{AppName, Identity, Secret};
use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession, Stage};
use liveedgecast_common::rtmp::message::Command;
use liveedgecast_common::rtmp::server::Event as Found;
use liveedgecast_common::rtmp::writer::write_message;
use liveedgecast_common::rtmp::{MessageHeader, type_id};
use liveedgecast_common::testkit::origin;
use liveedgecast_common::url::PushTemplate;
use proptest::prelude::*;

use super::*;
use crate::admission::StreamPolicy;
use crate::config::{Handoff, ReplayWindow};
use crate::destinations::StreamDestinations;

fn admitted() -> Box<Admitted> {
    let app = AppName::parse("live").unwrap();
    let key = StreamKey::parse("alpha").unwrap();
    let identities = vec![Identity::of_stream(&Secret::new("s"), &app, &key)];
    let replay = ReplayWindow { time: Duration::from_secs(4), bytes: 8 << 20 };
    let policy = StreamPolicy {
        deadline: origin(),
        hold: Duration::from_secs(120),
        handoff: Handoff::Auto,
        grace: Duration::from_secs(10),
        replay,
        upstream_lag: Duration::from_secs(2),
        gather: Duration::ZERO,
    };
    Box::new(Admitted {
        app,
        key,
        publisher: None,
        identities,
        destinations: StreamDestinations::default(),
        policy,
        seat: None,
        notice: None,
        files: 0,
    })
}

/// Every state, for the walk of the table.
const ALL: [State; 9] = [
    State::Handshake,
    State::Connecting,
    State::Judged,
    State::Penalty,
    State::Held,
    State::Orphaned,
    State::Offered,
    State::Handed,
    State::Closing,
];

/// Position of the first byte that was not read from the socket.
fn position(machine: &Machine) -> u64 {
    machine.base + machine.unread.len() as u64
}

/// A publisher and the machine, joined by hand.
struct Pair {
    client: ClientSession,
    machine: Machine,
    now: Instant,
    outputs: Vec<Output>,
    /// The bytes that the client has sent.
    sent: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let template = PushTemplate::parse("rtmp://here/live/{key}").unwrap();
        let url = template.resolve("live", &StreamKey::parse("alpha").unwrap()).unwrap();
        let mut client = ClientSession::new(&url, None);
        client.start();
        let now = origin();
        Self { client, machine: Machine::new(now), now, outputs: Vec::new(), sent: Vec::new() }
    }

    /// Lets both speak until neither has anything to say. What the machine wants otherwise is kept.
    fn speak(&mut self) {
        loop {
            let said = self.client.take_output();
            if !said.is_empty() && self.machine.watch() == WatchFor::Bytes {
                self.sent.extend_from_slice(&said);
                self.machine.handle_bytes(self.now, &said);
            }
            let mut quiet = said.is_empty();
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Write(bytes) => {
                        quiet = false;
                        self.client.handle(&bytes).unwrap();
                    }
                    other => self.outputs.push(other),
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        self.speak();
    }

    /// The machine alone: what it writes reaches the client, which says nothing.
    fn hush(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Write(bytes) => self.client.handle(&bytes).unwrap(),
                other => self.outputs.push(other),
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now);
        self.speak();
    }

    fn events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The one `Close`, which must be the last output.
    fn closed(&mut self) -> (Closing, CloseReason) {
        match self.outputs().pop() {
            Some(Output::Close(how, why)) => (how, why),
            other => panic!("not closed: {other:?}"),
        }
    }

    fn judged() -> Self {
        let mut pair = Self::new();
        pair.speak();
        assert!(matches!(pair.outputs()[..], [Output::Judge]));
        assert_eq!(pair.machine.state, State::Judged);
        pair
    }

    fn held() -> Self {
        let mut pair = Self::judged();
        pair.handle(Input::Verdict(Verdict::Admit { admitted: admitted(), after: Duration::ZERO }));
        assert!(matches!(pair.outputs()[..], [Output::Enter(_)]));
        pair
    }

    fn offered() -> Self {
        let mut pair = Self::held();
        pair.handle(Input::Offered { epoch: 7, fits: true });
        assert!(matches!(pair.outputs()[..], [Output::Expect]));
        pair
    }

    fn handed() -> Self {
        let mut pair = Self::offered();
        pair.handle(Input::Came);
        assert!(pair.outputs().is_empty());
        pair
    }

    fn orphaned(started: bool) -> Self {
        let mut pair = Self::handed();
        pair.handle(Input::Over(HandoffOutcome::Lost { accepted: true, touched: true, started }));
        assert!(matches!(pair.outputs()[..], [Output::Back(7, dispatch::Back::Died)]));
        pair
    }

    /// A pair in a state.
    fn at(state: State) -> Self {
        let pair = match state {
            State::Handshake => Self::new(),
            State::Connecting => {
                let mut pair = Self::new();
                let hello = pair.client.take_output();
                pair.machine.handle_bytes(pair.now, &hello);
                pair.hush();
                let second = pair.client.take_output();
                pair.machine.handle_bytes(pair.now, &second[..1536]);
                pair
            }
            State::Judged => Self::judged(),
            State::Penalty => {
                let mut pair = Self::judged();
                let after = Duration::from_secs(4);
                pair.handle(Input::Verdict(Verdict::Refuse { why: RefusalReason::Key, after, says: None }));
                pair
            }
            State::Held => Self::held(),
            State::Orphaned => Self::orphaned(true),
            State::Offered => Self::offered(),
            State::Handed => Self::handed(),
            State::Closing => {
                let mut pair = Self::held();
                pair.handle(Input::Ended);
                pair
            }
        };
        assert_eq!(pair.machine.state, state);
        pair
    }
}

/// The words of a state, for the table.
fn state(word: &str) -> State {
    ALL.into_iter().find(|state| state.as_str() == word).unwrap()
}

#[test]
fn every_input_leads_to_its_state_from_every_state() {
    type Make = fn() -> Input;
    // An input, and the state it leads to from each state of `ALL` ("" is an answer that nobody asked for).
    let table: &[(&str, Make, [&str; 9])] = &[
        (
            "the publisher ends",
            || Input::Ended,
            ["closing", "closing", "closing", "closing", "closing", "orphaned", "closing", "closing", "closing"],
        ),
        (
            "admitted",
            || Input::Verdict(Verdict::Admit { admitted: admitted(), after: Duration::ZERO }),
            ["", "", "held", "", "", "", "", "", "closing"],
        ),
        (
            "refused at once",
            || Input::Verdict(Verdict::Refuse { why: RefusalReason::Name, after: Duration::ZERO, says: None }),
            ["", "", "closing", "", "", "", "", "", "closing"],
        ),
        (
            "refused, later",
            || Input::Verdict(Verdict::Refuse { why: RefusalReason::Key, after: Duration::from_secs(1), says: None }),
            ["", "", "penalty", "", "", "", "", "", "closing"],
        ),
        (
            "not now",
            || Input::Verdict(Verdict::Refuse { why: RefusalReason::Rate, after: Duration::from_secs(10), says: None }),
            ["", "", "penalty", "", "", "", "", "", "closing"],
        ),
        (
            "offered",
            || Input::Offered { epoch: 8, fits: true },
            ["handshake", "connecting", "judged", "penalty", "offered", "offered", "offered", "handed", "closing"],
        ),
        (
            "offered what does not fit",
            || Input::Offered { epoch: 8, fits: false },
            ["handshake", "connecting", "judged", "penalty", "held", "orphaned", "held", "handed", "closing"],
        ),
        (
            "withdrawn",
            || Input::Withdrawn { epoch: 7 },
            ["handshake", "connecting", "judged", "penalty", "held", "orphaned", "held", "handed", "closing"],
        ),
        (
            "another epoch withdrawn",
            || Input::Withdrawn { epoch: 6 },
            ["handshake", "connecting", "judged", "penalty", "held", "orphaned", "offered", "handed", "closing"],
        ),
        (
            "the lobby gives up",
            || Input::Refused(dispatch::PlaceRefusal::HoldSpent),
            ["handshake", "connecting", "judged", "penalty", "closing", "closing", "closing", "handed", "closing"],
        ),
        (
            "kicked",
            || Input::Kicked,
            ["handshake", "connecting", "judged", "penalty", "closing", "closing", "closing", "handed", "closing"],
        ),
        ("a worker came", || Input::Came, ["", "", "", "", "", "", "handed", "", "closing"]),
        (
            "given back untouched",
            || Input::Over(HandoffOutcome::Returned { why: Decline::Full, touched: false, started: false }),
            ["", "", "", "", "", "", "", "held", "closing"],
        ),
        (
            "given back by one that goes down",
            || Input::Over(HandoffOutcome::Returned { why: Decline::Moving, touched: true, started: true }),
            ["", "", "", "", "", "", "", "orphaned", "closing"],
        ),
        ("a duplicate", || Input::Over(HandoffOutcome::Duplicate), ["", "", "", "", "", "", "", "closing", "closing"]),
        (
            "lost before it was taken",
            || Input::Over(HandoffOutcome::untouched()),
            ["", "", "", "", "", "", "", "held", "closing"],
        ),
        (
            "lost",
            || Input::Over(HandoffOutcome::Lost { accepted: true, touched: true, started: true }),
            ["", "", "", "", "", "", "", "orphaned", "closing"],
        ),
        (
            "broken",
            || Input::Over(HandoffOutcome::Broken { started: true }),
            ["", "", "", "", "", "", "", "orphaned", "closing"],
        ),
        (
            "not released",
            || Input::Over(HandoffOutcome::NotReleased),
            ["", "", "", "", "", "", "", "closing", "closing"],
        ),
        (
            "done",
            || Input::Over(HandoffOutcome::Done { how: Close::Graceful, started: true, erred: false }),
            ["", "", "", "", "", "", "", "closing", "closing"],
        ),
        ("gone", || Input::Over(HandoffOutcome::PublisherGone), ["", "", "", "", "", "", "", "closing", "closing"]),
    ];
    for (name, input, leads_to) in table {
        for (from, to) in ALL.into_iter().zip(leads_to) {
            if !to.is_empty() {
                let mut pair = Pair::at(from);
                pair.machine.handle(pair.now, input());
                assert_eq!(pair.machine.state, state(to), "{name}, from {}", from.as_str());
            }
        }
    }
}

#[test]
fn every_state_has_its_deadline() {
    let times = [
        (State::Handshake, Some(HANDSHAKE_TIME), State::Closing),
        (State::Connecting, Some(PUBLISH_TIME), State::Closing),
        (State::Judged, Some(VERDICT_TIME), State::Closing),
        (State::Penalty, Some(Duration::from_secs(4)), State::Closing),
        (State::Offered, Some(OFFER_TIME), State::Held),
        (State::Handed, None, State::Handed),
        (State::Closing, None, State::Closing),
    ];
    for (state, time, then) in times {
        let mut pair = Pair::at(state);
        assert_eq!(pair.machine.poll_timeout(), time.map(|time| pair.now + time), "{}", state.as_str());
        if let Some(time) = time {
            pair.machine.handle_timeout(pair.now + time - Duration::from_millis(1));
            assert_eq!(pair.machine.state, state);
            pair.machine.handle_timeout(pair.now + time);
        }
        assert_eq!(pair.machine.state, then);
    }
}

#[test]
fn a_held_publisher_is_pinged_and_answers() {
    let mut pair = Pair::held();
    for _ in 0..100 {
        let at = pair.machine.poll_timeout().unwrap();
        assert_eq!(at - pair.now, PING_EVERY);
        pair.pass(PING_EVERY);
        assert!(matches!(pair.outputs()[..], [Output::Heard]), "the client answers a ping");
    }
    assert_eq!(pair.client.stage(), Stage::Publish);
    // Nothing is left over that ten thousand of them would hold.
    assert_eq!(pair.machine.unread.capacity(), 0);
}

#[test]
fn orphaned_publisher_is_pinged_only_while_it_waits_for_start() {
    assert_eq!(Pair::orphaned(true).machine.poll_timeout(), None);
    let mut waiting = Pair::orphaned(false);
    assert_eq!(waiting.machine.poll_timeout(), Some(waiting.now + PING_EVERY));
    waiting.pass(PING_EVERY);
    assert_eq!(waiting.machine.watch(), WatchFor::Reset, "its answers are the next worker's to read");
    for (mut pair, watch) in [(Pair::orphaned(true), WatchFor::End), (waiting, WatchFor::Reset)] {
        pair.handle(Input::Offered { epoch: 9, fits: true });
        assert_eq!((pair.machine.state, pair.machine.watch()), (State::Offered, watch));
        pair.handle(Input::Came);
        pair.handle(Input::Over(HandoffOutcome::untouched()));
        assert_eq!(pair.machine.state, State::Orphaned);
    }
}

#[test]
fn rest_of_a_publisher_that_ends_between_two_workers_waits_for_the_next_one() {
    let mut pair = Pair::orphaned(true);
    for _ in 0..2 {
        pair.handle(Input::Ended);
    }
    assert!(matches!(pair.outputs()[..], [Output::Gone]) && pair.machine.is_gone(), "the lobby is told once");
    pair.handle(Input::Offered { epoch: 9, fits: true });
    pair.handle(Input::Ended);
    pair.handle(Input::Came);
    assert!(matches!(pair.outputs()[..], [Output::Expect]));
    pair.handle(Input::Over(HandoffOutcome::PublisherGone));
    assert_eq!(pair.closed(), (Closing::Gone, CloseReason::Gone));
    // Nothing is lost of one that was not told to start, and no worker is to be started for it.
    let mut held = Pair::orphaned(false);
    held.handle(Input::Ended);
    assert_eq!(held.closed(), (Closing::Gone, CloseReason::LeftHeld));
}

#[test]
fn refusal_for_good_has_one_of_two_codes_and_closes() {
    let mut told: Vec<(Pair, &str, CloseReason)> = Vec::new();
    for (why, code) in [(RefusalReason::Key, "Denied"), (RefusalReason::Name, "BadName")] {
        let mut pair = Pair::judged();
        pair.handle(Input::Verdict(Verdict::Refuse { why, after: Duration::ZERO, says: None }));
        told.push((pair, code, CloseReason::Refused(why)));
    }
    let mut guessing = Pair::at(State::Penalty);
    assert!(guessing.events().is_empty());
    guessing.pass(Duration::from_secs(4));
    told.push((guessing, "Denied", CloseReason::Refused(RefusalReason::Key)));
    for state in [State::Held, State::Offered] {
        let mut pair = Pair::at(state);
        pair.handle(Input::Refused(dispatch::PlaceRefusal::Duplicate));
        told.push((pair, "BadName", CloseReason::Lobby(dispatch::PlaceRefusal::Duplicate)));
    }
    let mut duplicate = Pair::handed();
    duplicate.handle(Input::Over(HandoffOutcome::Duplicate));
    told.push((duplicate, "BadName", CloseReason::Lobby(dispatch::PlaceRefusal::Duplicate)));
    let mut kicked = Pair::held();
    kicked.handle(Input::Kicked);
    told.push((kicked, "Denied", CloseReason::Kicked));
    let lost = HandoffOutcome::Lost { accepted: true, touched: false, started: false };
    for outcome in [HandoffOutcome::Returned { why: Decline::Moving, touched: false, started: false }, lost] {
        let mut kicked = Pair::handed();
        kicked.handle(Input::Kicked);
        kicked.handle(Input::Over(outcome));
        told.push((kicked, "Denied", CloseReason::Kicked));
    }
    for (mut pair, code, why) in told {
        let events = pair.events();
        match &events[..] {
            [ClientEvent::Refused(_, text)] => assert!(text.contains(code), "{text}"),
            other => panic!("{why:?}: {other:?}"),
        }
        assert_eq!(pair.closed(), (Closing::Graceful, why));
    }
}

#[test]
fn refusals_for_now_are_a_start_and_a_close() {
    for reason in
        [dispatch::PlaceRefusal::HoldSpent, dispatch::PlaceRefusal::FleetFull, dispatch::PlaceRefusal::Draining]
    {
        for mut pair in [Pair::held(), Pair::offered(), Pair::orphaned(false)] {
            pair.handle(Input::Refused(reason));
            assert_eq!(pair.events(), [ClientEvent::Started]);
            assert_eq!(pair.closed(), (Closing::Graceful, CloseReason::Lobby(reason)));
        }
        let mut started = Pair::orphaned(true);
        started.handle(Input::Refused(reason));
        assert_eq!(started.events(), [], "it has been told already");
        assert_eq!(started.closed(), (Closing::Graceful, CloseReason::Lobby(reason)));
    }
    for why in [RefusalReason::Rate, RefusalReason::Share] {
        let mut flood = Pair::judged();
        flood.handle(Input::Verdict(Verdict::Refuse { why, after: Duration::from_secs(10), says: None }));
        assert_eq!(flood.events(), [], "it does not come again at once");
        flood.pass(Duration::from_secs(10));
        assert_eq!(flood.events(), [ClientEvent::Started]);
        assert_eq!(flood.closed(), (Closing::Graceful, CloseReason::Refused(why)));
    }
}

#[test]
fn refusal_in_words_of_its_own_is_told_at_once_and_after_a_wait() {
    for after in [Duration::ZERO, Duration::from_secs(4)] {
        let mut pair = Pair::judged();
        let says = Some(Box::from("your plan has ended"));
        pair.handle(Input::Verdict(Verdict::Refuse { why: RefusalReason::Hook, after, says }));
        pair.pass(after);
        let events = pair.events();
        let [ClientEvent::Refused(_, text)] = &events[..] else { panic!("{events:?}") };
        assert!(text.contains("Denied") && text.contains("your plan has ended"), "{text}");
    }
}

#[test]
fn a_publisher_that_waits_for_its_turn_is_held_and_then_enters() {
    let mut pair = Pair::judged();
    let after = 2 * PING_EVERY + PING_EVERY / 2;
    pair.handle(Input::Verdict(Verdict::Admit { admitted: admitted(), after }));
    assert_eq!(pair.machine.state, State::Held);
    assert!(pair.outputs().is_empty(), "it is in nobody's demand");
    pair.pass(PING_EVERY);
    let heard = |outputs: &[Output]| matches!(outputs, [Output::Heard]);
    assert!(heard(&pair.outputs()), "it is pinged, and does not enter");
    pair.pass(after);
    assert!(pair.outputs().iter().any(|output| matches!(output, Output::Enter(_))));
    let mut gone = Pair::judged();
    gone.handle(Input::Verdict(Verdict::Admit { admitted: admitted(), after }));
    gone.handle(Input::Ended);
    assert!(gone.machine.poll_timeout().is_none(), "its turn is nobody's");
}

#[test]
fn a_publisher_that_is_put_off_gets_its_answer_when_the_activator_goes_down() {
    let later = Duration::from_secs(60);
    let mut turn = Pair::judged();
    turn.handle(Input::Verdict(Verdict::Admit { admitted: admitted(), after: later }));
    assert!(turn.machine.is_put_off());
    turn.handle(Input::Draining);
    assert!(matches!(turn.outputs()[..], [Output::Enter(_)]), "the lobby answers");
    assert!(!turn.machine.is_put_off(), "it is told once");
    turn.handle(Input::Refused(dispatch::PlaceRefusal::Draining));
    assert_eq!(turn.events(), [ClientEvent::Started]);
    assert_eq!(turn.closed(), (Closing::Graceful, CloseReason::Lobby(dispatch::PlaceRefusal::Draining)));
    for why in [RefusalReason::Rate, RefusalReason::Share, RefusalReason::Key] {
        let mut refused = Pair::judged();
        refused.handle(Input::Verdict(Verdict::Refuse { why, after: later, says: None }));
        assert!(refused.machine.is_put_off());
        refused.handle(Input::Draining);
        assert_eq!(refused.events() == [ClientEvent::Started], why.is_temporary());
        assert_eq!(refused.closed(), (Closing::Graceful, CloseReason::Refused(why)));
    }
    for state in [State::Connecting, State::Held, State::Orphaned, State::Offered, State::Handed] {
        assert!(!Pair::at(state).machine.is_put_off(), "{}", state.as_str());
    }
}

#[test]
fn tls_on_a_port_for_plain_rtmp_is_answered_and_closed_in_order() {
    let mut machine = Machine::new(origin());
    machine.handle_bytes(origin(), &[0x16, 3, 1, 2, 0, 1, 0, 1, 252]);
    assert!(matches!(machine.poll_output(), Some(Output::Write(alert)) if alert == TLS_ALERT));
    assert!(matches!(machine.poll_output(), Some(Output::Close(Closing::Graceful, CloseReason::Tls))));
}

#[test]
fn proxy_header_of_a_stranger_is_closed_in_order() {
    for header in [&b"PROXY TCP4 198.51.100.7 203.0.113.1 51000 1935\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"] {
        let mut machine = Machine::new(origin());
        machine.handle_bytes(origin(), header);
        assert!(matches!(machine.poll_output(), Some(Output::Close(Closing::Graceful, CloseReason::Proxied))));
    }
}

#[test]
fn publisher_is_closed_after_some_offers_that_cannot_be_taken() {
    let mut pair = Pair::orphaned(false);
    for epoch in 1..MAX_MISFITS {
        pair.handle(Input::Offered { epoch: u64::from(epoch), fits: false });
        assert!(
            matches!(pair.outputs()[..], [Output::Back(back, dispatch::Back::Declined)] if back == u64::from(epoch))
        );
    }
    pair.handle(Input::Offered { epoch: 99, fits: false });
    assert_eq!(pair.events(), [ClientEvent::Started]);
    assert_eq!(pair.closed(), (Closing::Graceful, CloseReason::Stranded));
}

#[test]
fn a_publisher_that_says_goodbye_while_held_leaves_the_lobby_and_has_a_moment_to_close() {
    for mut pair in [Pair::held(), Pair::offered()] {
        let offered = pair.machine.state == State::Offered;
        pair.client.end();
        pair.speak();
        let outputs = pair.outputs();
        let forgotten = matches!(outputs[..], [Output::Heard, Output::Forget, Output::Part(CloseReason::LeftHeld)]);
        assert!(
            if offered {
                forgotten
            } else {
                matches!(outputs[..], [Output::Heard, Output::Part(CloseReason::LeftHeld)])
            },
            "{outputs:?}"
        );
        assert_eq!((pair.machine.state, pair.machine.watch()), (State::Connecting, WatchFor::Bytes));
        pair.pass(PARTED_TIME - Duration::from_millis(1));
        assert!(pair.outputs().is_empty());
        pair.pass(Duration::from_millis(1));
        assert_eq!(pair.closed(), (Closing::Graceful, CloseReason::Left));
    }
}

/// The snapshot of a worker that has read a goodbye, and these bytes behind it.
fn left_behind(pair: &Pair, unread: &[u8]) -> Snapshot {
    let mut session = ServerSession::restore(&pair.machine.snapshot().unwrap().session).unwrap();
    session.accept_publish();
    let bytes = command("FCUnpublish", 6.0, 0, &[Value::string("alpha")]);
    while session.next(&bytes[(session.position() - position(&pair.machine)) as usize..]).unwrap().is_some() {}
    session.take_output();
    assert!(session.is_ended());
    Snapshot { session: session.state(), stream: None, unread: unread.to_vec() }
}

fn command(name: &str, transaction: f64, stream: u32, arguments: &[Value]) -> Vec<u8> {
    let (name, arguments) = (name.to_owned(), arguments.to_vec());
    let mut bytes = Vec::new();
    Command { name, transaction, object: Value::Null, arguments }.write(
        &mut bytes,
        3,
        stream,
        liveedgecast_common::rtmp::client::CHUNK_SIZE,
    );
    bytes
}

#[test]
fn a_publisher_that_said_goodbye_to_a_worker_may_publish_again_wherever_its_bytes_are_cut() {
    let bytes = [
        command("deleteStream", 7.0, 0, &[Value::Number(1.0)]),
        command("createStream", 8.0, 0, &[]),
        command("publish", 9.0, 1, &[Value::string("beta")]),
    ]
    .concat();
    for cut in 0..=bytes.len() {
        let mut pair = Pair::handed();
        let (unread, later) = bytes.split_at(cut);
        let snapshot = left_behind(&pair, unread);
        pair.machine.part(pair.now, snapshot);
        if !later.is_empty() {
            pair.machine.handle_bytes(pair.now, later);
        }
        let outputs: Vec<Output> = std::iter::from_fn(|| pair.machine.poll_output()).collect();
        assert!(matches!(outputs.first(), Some(Output::Part(CloseReason::Done))), "{outputs:?}");
        assert!(matches!(outputs.last(), Some(Output::Judge)), "{outputs:?}");
        assert_eq!(pair.machine.asks().map(|(app, key)| (app, key.expose())), Some(("live", "beta")));
        pair.machine.handle(pair.now, Input::Verdict(Verdict::Admit { admitted: admitted(), after: Duration::ZERO }));
        assert_eq!((pair.machine.state, pair.machine.poll_timeout().is_some()), (State::Held, true));
    }
}

#[test]
fn a_worker_that_leaves_another_publishers_state_behind_is_not_believed() {
    let mut pair = Pair::handed();
    pair.machine
        .part(pair.now, Snapshot { session: ServerSession::new(3073).state(), stream: None, unread: Vec::new() });
    pair.speak();
    assert_eq!(pair.closed(), (Closing::Graceful, CloseReason::Done));
}

#[test]
fn rubbish_closes_with_a_reset() {
    for rubbish in [&b"GET / HTTP/1.1\r\n"[..], &[0xFF; 64]] {
        let mut machine = Machine::new(origin());
        machine.handle_bytes(origin(), rubbish);
        assert!(matches!(machine.poll_output(), Some(Output::Close(Closing::Abort, CloseReason::Protocol))));
    }
    // And after the handshake: a chunk stream that was never begun, with an impossible length.
    let mut pair = Pair::at(State::Connecting);
    pair.machine.handle_bytes(pair.now, &[3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 20, 0, 0, 0, 0]);
    pair.speak();
    assert_eq!(pair.closed().1, CloseReason::Protocol);
}

#[test]
fn invalid_key_is_refused_with_its_mistake() {
    let template = PushTemplate::parse("rtmp://here/live#a/../b").unwrap();
    let url = template.resolve("live", &StreamKey::parse("x").unwrap()).unwrap();
    let mut pair = Pair { client: ClientSession::new(&url, None), ..Pair::new() };
    pair.client.start();
    pair.speak();
    assert_eq!(pair.closed(), (Closing::Graceful, CloseReason::Refused(RefusalReason::Name)));
    assert!(matches!(pair.events()[..], [ClientEvent::Refused(..)]));
}

/// A video keyframe of 9000 bytes and an audio message, as a relay sends them right behind `publish`.
fn media() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (csid, type_id, length) in [(6, type_id::VIDEO, 9000), (4, type_id::AUDIO, 300)] {
        let header = MessageHeader { csid, timestamp: 0, length, type_id, stream_id: 1 };
        let payload: Vec<u8> = (0..length).map(|at| (at as u8) | 0x10).collect();
        write_message(&mut bytes, &header, &payload, liveedgecast_common::rtmp::client::CHUNK_SIZE);
    }
    bytes
}

/// The bytes of a publisher that waits for nothing after `createStream`.
fn impatient() -> (Vec<u8>, usize) {
    let pair = Pair::judged();
    let commands = pair.sent.len();
    ([pair.sent, media()].concat(), commands)
}

/// Feeds a publisher's bytes in pieces, as long as they are read; gives the machine and how much was read.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Machine, usize) {
    let now = origin();
    let mut machine = Machine::new(now);
    let mut read = 0;
    for piece in pieces {
        if machine.watch() != WatchFor::Bytes {
            break;
        }
        machine.handle_bytes(origin(), piece);
        read += piece.len();
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Judge => {
                    machine.handle(now, Input::Verdict(Verdict::Admit { admitted: admitted(), after: Duration::ZERO }))
                }
                Output::Close(_, why) => panic!("{why:?}"),
                _ => {}
            }
        }
    }
    (machine, read)
}

/// The media messages that a worker finds that goes on from a snapshot.
fn found(snapshot: &Snapshot, rest: &[u8]) -> Vec<MessageHeader> {
    let mut session = ServerSession::restore(&snapshot.session).unwrap();
    let bytes = [&snapshot.unread, rest].concat();
    let (start, mut headers) = (session.position(), Vec::new());
    while let Some(event) = session.next(&bytes[(session.position() - start) as usize..]).unwrap() {
        if let Found::Media(Scanned::Begin { header, .. }) = event {
            headers.push(header);
        }
    }
    assert_eq!(session.position() - start, bytes.len() as u64, "everything was read");
    headers
}

#[test]
fn media_is_left_for_the_worker_at_every_split_point() {
    let (bytes, commands) = impatient();
    // The cuts within the handshake's random bytes are all alike.
    let splits = (0..3).chain((3..3072).step_by(211)).chain(3072..commands + 400).chain([bytes.len() - 1, bytes.len()]);
    for split in splits {
        let (first, second) = bytes.split_at(split);
        let (machine, read) = feed([first, second].into_iter().filter(|piece| !piece.is_empty()));
        assert_eq!((machine.state, machine.watch()), (State::Held, WatchFor::End), "split at {split}");
        assert_eq!(position(&machine), read as u64);
        let snapshot = machine.snapshot().unwrap();
        assert_eq!(snapshot.session.position(), commands as u64, "split at {split}");
        let headers = found(&snapshot, &bytes[read..]);
        let kinds: Vec<(u8, u32)> = headers.iter().map(|header| (header.type_id, header.length)).collect();
        assert_eq!(kinds, [(type_id::VIDEO, 9000), (type_id::AUDIO, 300)], "split at {split}");
    }
}

#[test]
fn snapshot_is_the_same_however_the_publishers_bytes_are_cut() {
    let (bytes, commands) = impatient();
    for size in [1, 2, 3, 7, 100, 1460, READ] {
        let (machine, read) = feed(bytes.chunks(size));
        let snapshot = machine.snapshot().unwrap();
        assert_eq!(snapshot.session.position(), commands as u64);
        assert!(snapshot.unread.len() <= size.max(18), "{} bytes in pieces of {size}", snapshot.unread.len());
        assert_eq!(found(&snapshot, &bytes[read..]).len(), 2);
    }
}

const READ: usize = super::super::limits::READ_BYTES;

#[test]
fn a_held_publisher_with_media_is_pinged_and_its_worker_gets_the_same_state() {
    let (bytes, _) = impatient();
    let (mut machine, read) = feed(bytes.chunks(READ));
    let before = machine.snapshot().unwrap();
    let now = machine.poll_timeout().unwrap();
    machine.handle_timeout(now);
    assert!(matches!(machine.poll_output(), Some(Output::Write(_))));
    machine.handle(now, Input::Offered { epoch: 1, fits: true });
    assert_eq!(machine.watch(), WatchFor::End);
    machine.handle(now, Input::Came);
    machine.handle(now, Input::Over(HandoffOutcome::Returned { why: Decline::Full, touched: false, started: false }));
    assert_eq!((machine.state, machine.watch()), (State::Held, WatchFor::End));
    let after = machine.snapshot().unwrap();
    assert_eq!(found(&before, &bytes[read..]), found(&after, &bytes[read..]));
}

proptest! {
    /// The order of events is free: the machine closes once and is silent then, it is in the lobby before it is offered, nothing is read
    /// that is a worker's to read, and what it has read is in its snapshot.
    #[test]
    fn machine_keeps_its_rules_in_any_order_of_events(steps in proptest::collection::vec((0..12_u8, 1..3000_usize), 1..60)) {
        let (stream, _) = impatient();
        let mut now = origin();
        let mut machine = Machine::new(now);
        let (mut fed, mut epoch, mut touched) = (0, 0, false);
        let (mut entered, mut closed) = (false, false);
        for (step, amount) in steps {
            match step {
                0..=3 if machine.watch() == WatchFor::Bytes && machine.state != State::Closing => {
                    prop_assert!(!touched);
                    let piece = &stream[fed.min(stream.len())..(fed + amount).min(stream.len())];
                    fed += piece.len();
                    machine.handle_bytes(origin(), piece);
                }
                4 => {
                    now += Duration::from_millis(amount as u64 * 5);
                    machine.handle_timeout(now);
                }
                5 | 6 => {
                    epoch += 1;
                    machine.handle(now, Input::Offered { epoch, fits: amount % 5 > 0 });
                }
                7 if machine.state == State::Offered => machine.handle(now, Input::Came),
                8 => machine.handle(now, Input::Withdrawn { epoch }),
                9 if machine.state == State::Handed => {
                    // A worker that says that it has touched nothing has not.
                    touched |= amount % 4 == 0;
                    machine.handle(now, Input::Over(match amount % 4 {
                        3 if touched => HandoffOutcome::Broken { started: true },
                        0 => HandoffOutcome::Lost { accepted: touched, touched, started: touched },
                        1 => HandoffOutcome::Returned { why: Decline::Full, touched, started: touched },
                        _ => HandoffOutcome::untouched(),
                    }));
                    touched |= machine.state == State::Orphaned;
                }
                10 if amount < 60 => machine.handle(now, Input::Refused(dispatch::PlaceRefusal::HoldSpent)),
                11 if amount < 60 => machine.handle(now, Input::Ended),
                _ => {}
            }
            while let Some(output) = machine.poll_output() {
                prop_assert!(!closed, "{:?} after the end", output);
                match output {
                    Output::Judge => machine.handle(now, Input::Verdict(Verdict::Admit { admitted: admitted(), after: Duration::ZERO })),
                    Output::Enter(_) => {
                        prop_assert!(!entered);
                        entered = true;
                    }
                    Output::Part(_) => entered = false,
                    Output::Expect | Output::Forget | Output::Back(..) | Output::Heard | Output::Gone => prop_assert!(entered),
                    Output::Close(..) => closed = true,
                    Output::Write(bytes) => prop_assert!(!bytes.is_empty()),
                }
            }
            prop_assert_eq!(closed, machine.state == State::Closing);
            if machine.state == State::Offered && !machine.touched {
                let snapshot = machine.snapshot().unwrap();
                prop_assert_eq!(snapshot.session.position() + snapshot.unread.len() as u64, fed as u64);
            }
        }
    }
}

#[test]
fn a_held_publisher_is_small() {
    // The machine, its session and what both hold on the heap, well under 16 KiB with socket buffers left to the kernel.
    assert!(size_of::<Machine>() < 512, "{}", size_of::<Machine>());
    assert!(size_of::<ServerSession>() < 2048, "{}", size_of::<ServerSession>());
    let pair = Pair::held();
    assert!(pair.machine.handshake.is_none());
    let state = pair.machine.snapshot().unwrap().encode();
    assert!(state.len() < 2048, "{}", state.len());
}

#[test]
fn a_kick_while_a_worker_has_the_publisher_is_the_reason_of_its_end() {
    let ends = [
        (HandoffOutcome::Done { how: Close::Graceful, started: true, erred: false }, Closing::Graceful),
        (HandoffOutcome::Done { how: Close::Abort, started: false, erred: false }, Closing::Abort),
        (HandoffOutcome::PublisherGone, Closing::Gone),
        (HandoffOutcome::Broken { started: true }, Closing::Graceful),
        (HandoffOutcome::Lost { accepted: true, touched: true, started: true }, Closing::Graceful),
    ];
    for (outcome, how) in ends {
        let mut pair = Pair::handed();
        pair.handle(Input::Kicked);
        pair.handle(Input::Over(outcome));
        assert_eq!(pair.closed(), (how, CloseReason::Kicked));
    }
}

#[test]
fn publisher_that_broke_rtmp_ends_for_that_reason() {
    let mut pair = Pair::handed();
    pair.handle(Input::Over(HandoffOutcome::Done { how: Close::Graceful, started: true, erred: true }));
    let (closing, why) = pair.closed();
    assert_eq!((closing, why.as_str(), why.is_loss()), (Closing::Graceful, "protocol", true));
}

#[test]
fn stream_that_ends_before_its_publisher_is_told_to_start_is_a_failed_start() {
    use CloseReason::{Disconnected, Done, FailedStart};
    // Whether an earlier worker had told it, whether this one has; the end, and its reason.
    let table = [
        (false, false, Close::Graceful, FailedStart),
        (false, false, Close::Abort, FailedStart),
        (false, true, Close::Graceful, Done),
        (false, true, Close::Abort, Disconnected),
        (true, false, Close::Graceful, Done),
    ];
    for (before, started, how, why) in table {
        let mut pair = Pair::handed();
        if before {
            pair.handle(Input::Over(HandoffOutcome::Lost { accepted: true, touched: true, started: true }));
            pair.handle(Input::Offered { epoch: 2, fits: true });
            pair.handle(Input::Came);
        }
        pair.handle(Input::Over(HandoffOutcome::Done { how, started, erred: false }));
        assert_eq!(pair.closed().1, why, "{before} {started} {how:?}");
    }
}
