//! Tests of [`super`] on virtual time.

use std::collections::BTreeSet;

use liveedgecast_common::key::{Secret, StreamKey};
use liveedgecast_common::rtmp::auth::Rejection;
use liveedgecast_common::rtmp::client::Class;
use liveedgecast_common::testkit::origin;
use liveedgecast_common::url::PushTemplate;

use super::super::patience::{BAD_NAME, DENIED, DOUBTFUL, EAGER, GONE, PROTOCOL, SLOW, UNREACHABLE};
use super::*;

fn url(text: &str) -> PushUrl {
    let key = StreamKey::parse("unused").unwrap();
    PushTemplate::parse(text).unwrap().resolve("unused", &key).unwrap()
}

const PLAIN: &str = "rtmp://ingest.example/live/KEY";
const TLS: &str = "rtmps://ingest.example/live/KEY";
const WITH_CREDENTIALS: &str = "rtmp://foo:bar@ingest.example/live/KEY";

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 1935))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xDB8, 0, 0, 0, 0, 0, last], 1935))
}

/// A machine and its time.
struct Sim {
    machine: Machine,
    now: Instant,
}

impl Sim {
    fn new(text: &str) -> Self {
        let now = origin();
        Self { machine: Machine::new(now, url(text), 7), now }
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    /// Goes to the next deadline and says how long that took.
    fn wait(&mut self) -> (Duration, Vec<Output>) {
        let at = self.machine.poll_timeout().expect("something is due");
        let waited = at - self.now;
        self.now = at;
        self.machine.handle_timeout(at);
        (waited, self.outputs())
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now);
    }

    fn dial(outputs: &[Output]) -> (DialId, SocketAddr) {
        match outputs.last() {
            Some(Output::Dial(id, address)) => (*id, *address),
            other => panic!("{other:?}"),
        }
    }

    /// Goes from Resolving to Starting, over the first address.
    fn start(&mut self) -> Vec<Output> {
        let outputs = self.handle(Input::Resolved(vec![address(1)]));
        let (id, _) = Self::dial(&outputs);
        let outputs = self.handle(Input::Connected(id));
        if outputs == [Output::Secure(id)] { self.handle(Input::Secured) } else { outputs }
    }

    fn go_live(&mut self) {
        self.start();
        for stage in [Stage::Connect, Stage::CreateStream, Stage::Publish] {
            assert_eq!(self.handle(Input::Reached(stage)), []);
        }
        assert_eq!(self.handle(Input::Session(ClientEvent::Started)), [Output::Live]);
        assert!(self.machine.is_live());
    }

    fn state(&self) -> &'static str {
        match self.machine.state {
            State::Resolving { .. } => "Resolving",
            State::Connecting { .. } => "Connecting",
            State::Securing { .. } => "Securing",
            State::Starting { .. } => "Starting",
            State::Live { .. } => "Live",
            State::Backoff { .. } => "Backoff",
            State::Closing { .. } => "Closing",
            State::Closed => "Closed",
        }
    }

    fn word(&self) -> &'static str {
        self.machine.state().as_str()
    }
}

fn broken() -> Input {
    Input::Broken(Fault::Closed, "closed by the upstream".to_owned())
}

fn refused(class: Class) -> Input {
    Input::Session(ClientEvent::Refused(class, "no".to_owned()))
}

fn asked(description: &str) -> Input {
    match Rejection::read(description) {
        Rejection::Asks(challenge) => Input::Session(ClientEvent::AuthAsked(challenge)),
        other => panic!("{other:?}"),
    }
}

fn redirected(to: &str) -> Input {
    Input::Session(ClientEvent::Redirected(Secret::new(to)))
}

const NEED_USER: &str = "[ code=403 need auth; authmod=adobe ]";
const NEED_PROOF: &str = "[ authmod=adobe ] : ?reason=needauth&user=foo&salt=s&challenge=c";

const ARROWS: &str = "rtmps://foo:bar@ingest.example/live/KEY";

/// States of the picture by name, each reached from the beginning.
fn in_state(name: &str, text: &str) -> Sim {
    let mut sim = Sim::new(text);
    match name {
        "Resolving" => {}
        "Connecting" | "Securing" => {
            sim.handle(Input::Resolved(vec![address(1)]));
            if name == "Securing" {
                sim.handle(Input::Connected(DialId(0)));
            }
        }
        "Starting" => drop(sim.start()),
        "Live" => sim.go_live(),
        "Backoff" => drop(sim.handle(Input::Unresolved("no such host".to_owned()))),
        "Closing" | "Closed" => {
            sim.go_live();
            sim.handle(Input::Close { between_messages: true });
            if name == "Closed" {
                sim.handle(broken());
            }
        }
        other => panic!("{other}"),
    }
    assert_eq!(sim.state(), name);
    sim
}

/// Every arrow of the picture, and every input where there is none.
#[test]
fn every_input_leads_from_every_state_where_the_picture_says() {
    const STATES: [&str; 8] =
        ["Resolving", "Connecting", "Securing", "Starting", "Live", "Backoff", "Closing", "Closed"];
    let at = |states: &[(&str, &'static str)], from: &'static str| {
        states.iter().find(|(state, _)| *state == from).map_or(from, |(_, to)| *to)
    };
    type Act = Box<dyn Fn(&mut Sim)>;
    let input = |input: Input| -> Act {
        Box::new(move |sim: &mut Sim| {
            sim.handle(input.clone());
        })
    };
    let due: Act = Box::new(|sim: &mut Sim| {
        if let Some(at) = sim.machine.poll_timeout() {
            sim.now = at;
            // A name with one address is dialed again until the time is up.
            sim.pass(CONNECT_TIMEOUT);
        }
    });
    type Row = (&'static str, Act, &'static [(&'static str, &'static str)]);
    let rows: Vec<Row> = vec![
        ("addresses", input(Input::Resolved(vec![address(1)])), &[("Resolving", "Connecting")]),
        ("none", input(Input::Unresolved("none".into())), &[("Resolving", "Backoff")]),
        ("first of them", input(Input::Connected(DialId(0))), &[("Connecting", "Securing")]),
        (
            "none of them",
            input(Input::NotConnected(DialId(0), Fault::Unreachable, "no".into())),
            &[("Connecting", "Backoff")],
        ),
        ("TLS", input(Input::Secured), &[("Securing", "Starting")]),
        ("no TLS", input(Input::NotSecured(Fault::Untrusted, "no".into())), &[("Securing", "Backoff")]),
        ("next stage", input(Input::Reached(Stage::Connect)), &[]),
        ("Publish.Start", input(Input::Session(ClientEvent::Started)), &[("Starting", "Live")]),
        ("asked for credentials", input(asked(NEED_USER)), &[("Starting", "Connecting")]),
        ("redirected", input(redirected("rtmps://other.example/app")), &[("Starting", "Resolving")]),
        ("refused", input(refused(Class::Denied)), &[("Starting", "Backoff"), ("Live", "Backoff")]),
        ("broken", input(broken()), &[("Starting", "Backoff"), ("Live", "Backoff"), ("Closing", "Closed")]),
        (
            "close",
            input(Input::Close { between_messages: true }),
            &[
                ("Resolving", "Closed"),
                ("Connecting", "Closed"),
                ("Securing", "Closed"),
                ("Starting", "Closed"),
                ("Live", "Closing"),
                ("Backoff", "Closed"),
            ],
        ),
        (
            "time is up",
            due,
            &[
                ("Resolving", "Backoff"),
                ("Connecting", "Backoff"),
                ("Securing", "Backoff"),
                ("Starting", "Backoff"),
                ("Backoff", "Resolving"),
                ("Closing", "Closed"),
            ],
        ),
    ];
    for (name, act, arrows) in rows {
        for from in STATES {
            let mut sim = in_state(from, ARROWS);
            act(&mut sim);
            assert_eq!(sim.state(), at(arrows, from), "{name} in {from}");
        }
    }
    let mut plain = in_state("Connecting", PLAIN);
    plain.handle(Input::Connected(DialId(0)));
    assert_eq!(plain.state(), "Starting", "RTMP needs no securing");
}

#[test]
fn upstream_goes_live_and_closes_stage_by_stage() {
    let mut sim = Sim::new(PLAIN);
    assert_eq!(sim.outputs(), [Output::Resolve]);
    assert_eq!(sim.word(), "dialing");
    let outputs = sim.handle(Input::Resolved(vec![address(1)]));
    assert_eq!(outputs, [Output::Dial(DialId(0), address(1))]);
    assert_eq!(sim.handle(Input::Connected(DialId(0))), [Output::Begin(Some(DialId(0)), None)]);
    assert_eq!(sim.word(), "starting");
    for stage in [Stage::Connect, Stage::CreateStream, Stage::Publish] {
        sim.handle(Input::Reached(stage));
    }
    assert_eq!(sim.handle(Input::Session(ClientEvent::Started)), [Output::Live]);
    assert_eq!((sim.word(), sim.machine.poll_timeout()), ("live", None));
    assert_eq!(sim.handle(Input::Close { between_messages: true }), [Output::Farewell { speak: true }]);
    assert_eq!(sim.word(), "closed");
    assert_eq!(sim.handle(broken()), [Output::Drop, Output::Closed]);
    assert_eq!(sim.machine.poll_timeout(), None);
    assert_eq!(sim.handle(Input::Close { between_messages: true }), []);
}

#[test]
fn rtmps_is_secured_first() {
    let mut sim = Sim::new(TLS);
    sim.outputs();
    sim.handle(Input::Resolved(vec![address(1)]));
    assert_eq!(sim.handle(Input::Connected(DialId(0))), [Output::Secure(DialId(0))]);
    assert_eq!(sim.handle(Input::Secured), [Output::Begin(None, None)]);
    assert_eq!(sim.word(), "starting");
}

/// Every state of the picture, and where its deadline leads.
#[test]
fn every_stage_fails_at_its_deadline() {
    let to = |stages: &'static [Stage]| {
        move |sim: &mut Sim| {
            sim.start();
            for stage in stages {
                sim.handle(Input::Reached(*stage));
            }
        }
    };
    type Prepare = Box<dyn Fn(&mut Sim)>;
    let rows: Vec<(&str, &str, Prepare, Duration, &str)> = vec![
        ("resolving", PLAIN, Box::new(|_: &mut Sim| {}), RESOLVE_TIMEOUT, "no answer of the resolver"),
        (
            "securing",
            TLS,
            Box::new(|sim: &mut Sim| {
                sim.handle(Input::Resolved(vec![address(1)]));
                sim.handle(Input::Connected(DialId(0)));
            }),
            TLS_TIMEOUT,
            "no answer to TLS",
        ),
        ("handshake", PLAIN, Box::new(to(&[])), HANDSHAKE_TIMEOUT, "no answer at handshake"),
        ("connect", PLAIN, Box::new(to(&[Stage::Connect])), ANSWER_TIMEOUT, "no answer at connect"),
        (
            "create stream",
            PLAIN,
            Box::new(to(&[Stage::Connect, Stage::CreateStream])),
            ANSWER_TIMEOUT,
            "no answer at create_stream",
        ),
        (
            "publish",
            PLAIN,
            Box::new(to(&[Stage::Connect, Stage::CreateStream, Stage::Publish])),
            PUBLISH_TIMEOUT,
            "no answer at publish",
        ),
    ];
    for (name, url, prepare, timeout, why) in rows {
        let mut sim = Sim::new(url);
        sim.outputs();
        prepare(&mut sim);
        assert_eq!(sim.wait(), (timeout, vec![Output::Drop]), "{name}");
        let resolving = name == "resolving";
        let fault = if resolving { Fault::UnknownHost } else { Fault::NoAnswer };
        assert_eq!(sim.machine.fault(), Some((fault, why)), "{name}");
        assert_eq!(sim.word(), "backoff", "{name}");
        let (waited, outputs) = sim.wait();
        let (least, most) = if resolving { (EAGER.0 / 2, EAGER.1) } else { (SLOW.0 / 2, SLOW.0) };
        assert!(waited >= least && waited <= most, "{name}: {waited:?}");
        assert_eq!(outputs, [Output::Resolve], "{name}: by name again");
    }
}

#[test]
fn farewell_ends_at_its_deadline() {
    let mut sim = Sim::new(PLAIN);
    sim.go_live();
    assert_eq!(sim.handle(Input::Close { between_messages: false }), [Output::Farewell { speak: false }]);
    assert_eq!(sim.wait(), (CLOSE_TIMEOUT, vec![Output::Drop, Output::Closed]));
}

#[test]
fn upstream_that_closes_at_any_stage_is_asked_again() {
    for (stages, fault) in [
        (&[][..], Fault::Unreachable),
        (&[Stage::Connect], Fault::Closed),
        (&[Stage::Connect, Stage::CreateStream], Fault::Closed),
        (&[Stage::Connect, Stage::CreateStream, Stage::Publish], Fault::Closed),
    ] {
        let mut sim = Sim::new(PLAIN);
        sim.outputs();
        sim.start();
        for stage in stages {
            sim.handle(Input::Reached(*stage));
        }
        assert_eq!(sim.handle(broken()), [Output::Drop], "the first time is no refusal at {stages:?}");
        assert_eq!((sim.machine.fault().unwrap().0, sim.word()), (fault, "backoff"));
        let (waited, outputs) = sim.wait();
        assert!(waited <= DOUBTFUL.0, "{waited:?}");
        assert_eq!(outputs, [Output::Resolve]);
    }
}

#[test]
fn silent_first_address_gives_way_to_the_second() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    let outputs = sim.handle(Input::Resolved(vec![address(1), address(2), address(3)]));
    assert_eq!(outputs, [Output::Dial(DialId(0), address(1))]);
    assert_eq!(sim.wait(), (STAGGER, vec![Output::Dial(DialId(1), address(2))]));
    assert_eq!(sim.handle(Input::Connected(DialId(1))), [Output::Begin(Some(DialId(1)), None)]);
    // The first one is late.
    assert_eq!(sim.handle(Input::Connected(DialId(0))), []);
}

#[test]
fn refusing_first_address_gives_way_to_the_second_at_once() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    sim.handle(Input::Resolved(vec![address(1), address(2)]));
    let outputs = sim.handle(Input::NotConnected(DialId(0), Fault::ConnectionRefused, "refused".to_owned()));
    assert_eq!(outputs, [Output::Dial(DialId(1), address(2))], "at once");
    let outputs = sim.handle(Input::NotConnected(DialId(1), Fault::ConnectionRefused, "refused".to_owned()));
    assert_eq!(outputs, [Output::Drop]);
    assert_eq!(sim.word(), "backoff");
}

#[test]
fn lost_syn_is_repeated_before_the_kernel_does() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    sim.handle(Input::Resolved(vec![address(1)]));
    let began = sim.now;
    let mut dials = 1;
    loop {
        let (_, outputs) = sim.wait();
        match &outputs[..] {
            [Output::Dial(_, to)] => {
                assert_eq!(*to, address(1));
                dials += 1;
            }
            [Output::Drop] => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sim.now - began, CONNECT_TIMEOUT);
    assert_eq!(dials, 5, "one each second");
}

#[test]
fn many_silent_addresses_are_all_tried_with_few_sockets() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    let mut outputs = sim.handle(Input::Resolved((1..=16).map(address).collect()));
    let (mut open, mut tried) = (0, BTreeSet::new());
    while sim.word() == "dialing" {
        for output in &outputs {
            match output {
                Output::Dial(_, address) => {
                    open += 1;
                    tried.insert(*address);
                }
                Output::Undial(_) => open -= 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(open <= MAX_DIALS);
        outputs = sim.wait().1;
    }
    assert_eq!(tried.len(), 16);
}

#[test]
fn many_refusing_addresses_are_all_tried() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    let mut outputs = sim.handle(Input::Resolved((1..=16).map(address).collect()));
    let mut tried = Vec::new();
    while let [Output::Dial(id, address)] = outputs[..] {
        tried.push(address);
        outputs = sim.handle(Input::NotConnected(id, Fault::ConnectionRefused, "refused".to_owned()));
    }
    assert_eq!(tried, (1..=16).map(address).collect::<Vec<_>>());
    assert_eq!(outputs, [Output::Drop]);
}

#[test]
fn address_families_take_turns() {
    let (a, b, c) = (v6(1), v6(2), v6(3));
    assert_eq!(in_turns(vec![a, b, c, address(1)]), [a, address(1), b, c]);
    assert_eq!(in_turns(vec![address(1), a, address(2)]), [address(1), a, address(2)]);
    assert_eq!(in_turns(vec![]), []);
}

#[test]
fn address_that_failed_comes_last_next_time() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    let all = vec![address(1), address(2)];
    let (id, _) = Sim::dial(&sim.handle(Input::Resolved(all.clone())));
    sim.handle(Input::Connected(id));
    sim.handle(broken());
    sim.wait();
    let (id, to) = Sim::dial(&sim.handle(Input::Resolved(all.clone())));
    assert_eq!(to, address(2));
    // A taken name says nothing against the server.
    sim.handle(Input::Connected(id));
    sim.handle(refused(Class::BadName));
    sim.wait();
    assert_eq!(Sim::dial(&sim.handle(Input::Resolved(all))).1, address(2));
}

#[test]
fn name_that_does_not_resolve_is_asked_again() {
    for input in [Input::Unresolved("no such host".to_owned()), Input::Resolved(vec![])] {
        let mut sim = Sim::new(PLAIN);
        sim.outputs();
        assert_eq!(sim.handle(input), [Output::Drop]);
        assert_eq!(sim.word(), "backoff");
        assert_eq!(sim.wait().1, [Output::Resolve]);
    }
}

/// The first 30 waits after failures of one kind.
fn waits(text: &str, mut fail: impl FnMut(&mut Sim)) -> Vec<Duration> {
    let mut sim = Sim::new(text);
    sim.outputs();
    let mut waits = Vec::new();
    for _ in 0..30 {
        fail(&mut sim);
        sim.outputs();
        let (waited, outputs) = sim.wait();
        assert_eq!(outputs, [Output::Resolve]);
        waits.push(waited);
    }
    waits
}

#[test]
fn waits_grow_by_class() {
    let by_class = |class| {
        waits(PLAIN, move |sim| {
            sim.start();
            sim.handle(refused(class));
        })
    };
    let untrusted = waits(TLS, |sim| {
        sim.handle(Input::Resolved(vec![address(1)]));
        let (id, _) = sim.machine.dialing[0];
        sim.handle(Input::Connected(id));
        sim.handle(Input::NotSecured(Fault::Untrusted, "expired".to_owned()));
    });
    let unreachable = waits(PLAIN, |sim| {
        sim.handle(Input::Unresolved("no such host".to_owned()));
    });
    let no_answer = waits(PLAIN, |sim| {
        sim.start();
        sim.now = sim.machine.poll_timeout().unwrap();
        sim.machine.handle_timeout(sim.now);
    });
    let closed = waits(PLAIN, |sim| {
        sim.machine.has_worked();
        sim.start();
        sim.handle(Input::Reached(Stage::Connect));
        sim.handle(broken());
    });
    let rows = [
        ("bad name", by_class(Class::BadName), BAD_NAME),
        ("denied", by_class(Class::Denied), DENIED),
        // They begin in doubt.
        ("refused", by_class(Class::Refused), (DOUBTFUL.0, DENIED.1)),
        ("no answer", no_answer, SLOW),
        ("closed after it has worked", closed, GONE),
        ("protocol", by_class(Class::Protocol), PROTOCOL),
        ("untrusted", untrusted, DENIED),
        // It begins eagerly.
        ("unreachable", unreachable, (EAGER.0, UNREACHABLE.1)),
    ];
    for (name, waits, (first, most)) in rows {
        assert!(waits[0] <= first && waits[0] >= first / 2, "{name}: {waits:?}");
        let last = waits[29];
        assert!(last <= most && last >= most / 2, "{name}: {waits:?}");
    }
}

#[test]
fn upstream_is_asked_more_than_once_a_second_during_a_flap() {
    let mut sim = Sim::new(PLAIN);
    sim.go_live();
    sim.pass(STABLE);
    assert!(matches!(sim.handle(broken())[..], [Output::Lost(_)]));
    let began = sim.now;
    let mut asked = Vec::new();
    while sim.now - began < FLAP {
        let (waited, _) = sim.wait();
        asked.push(waited);
        let (id, _) = Sim::dial(&sim.handle(Input::Resolved(vec![address(1)])));
        sim.handle(Input::NotConnected(id, Fault::ConnectionRefused, "refused".to_owned()));
    }
    assert!(asked[0] <= Duration::from_millis(100), "{asked:?}");
    assert!(asked.iter().all(|waited| *waited <= EAGER.1), "{asked:?}");
    assert!(asked.len() > 20, "{asked:?}");
}

#[test]
fn session_that_lasted_forgets_the_failures_before_it() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    for _ in 0..10 {
        sim.start();
        sim.handle(refused(Class::BadName));
        sim.wait();
    }
    sim.go_live();
    assert_eq!(sim.machine.fault(), None);
    sim.pass(STABLE);
    sim.handle(broken());
    assert_eq!(sim.machine.fault().unwrap().0, Fault::Lost);
    assert!(sim.wait().0 <= EAGER.0);
    sim.start();
    sim.handle(refused(Class::BadName));
    assert!(sim.wait().0 <= BAD_NAME.0);
}

#[test]
fn publish_start_alone_proves_nothing() {
    // Sessions that never lasted, and those that did before.
    for (lasted, (fault, word), most) in
        [(false, (Fault::NeverLasted, "failed"), DENIED.1), (true, (Fault::Closed, "backoff"), GONE.1)]
    {
        let mut sim = Sim::new(PLAIN);
        if lasted {
            sim.go_live();
            sim.pass(STABLE);
            sim.handle(broken());
            sim.wait();
        }
        let (mut waits, mut words) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            sim.go_live();
            sim.pass(Duration::from_millis(5));
            assert!(matches!(sim.handle(broken())[..], [Output::Lost(_)]));
            words.push((sim.machine.fault().unwrap().0, sim.word()));
            waits.push(sim.wait().0);
        }
        assert_eq!(words[..2], [(Fault::Closed, "backoff"); 2], "lasted: {lasted}");
        assert_eq!(words[2..], [(fault, word); 10], "lasted: {lasted}");
        assert!(waits[11] >= most / 2, "lasted: {lasted}, {waits:?}");
    }
}

#[test]
fn upstream_that_closes_for_want_of_media_is_not_taken_to_refuse() {
    let mut sim = Sim::new(PLAIN);
    for _ in 0..5 {
        sim.go_live();
        sim.pass(NEVER_LASTED);
        sim.handle(broken());
        assert_eq!((sim.machine.fault().unwrap().0, sim.word()), (Fault::Closed, "backoff"));
        sim.wait();
    }
}

/// Makes an attempt that gets to a stage.
fn reach(sim: &mut Sim, stage: Stage) {
    sim.start();
    for reached in [Stage::Connect, Stage::CreateStream, Stage::Publish] {
        if reached <= stage {
            sim.handle(Input::Reached(reached));
        }
    }
}

#[test]
fn three_closes_at_the_same_stage_are_a_refusal() {
    for stage in [Stage::Connect, Stage::CreateStream, Stage::Publish] {
        let mut sim = Sim::new(PLAIN);
        let began = sim.now;
        sim.outputs();
        for time in 1..6 {
            reach(&mut sim, stage);
            let outputs = sim.handle(broken());
            if time < 3 {
                assert_eq!((&outputs[..], sim.word()), (&[Output::Drop][..], "backoff"), "{stage:?}, {time}");
            } else {
                let refused = [Output::Drop, Output::Refused(Fault::Closed)];
                assert_eq!((&outputs[..], sim.word()), (&refused[..], "failed"), "{stage:?}, {time}");
            }
            if time == 3 {
                let took = sim.now - began;
                assert!(took > Duration::from_secs(2) && took < Duration::from_secs(7), "{took:?}");
            }
            assert_eq!(sim.machine.fault().unwrap().0, Fault::Closed);
            sim.wait();
        }
    }
}

#[test]
fn closes_before_the_handshake_or_at_different_stages_are_no_refusal() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    for stage in [Stage::Handshake, Stage::Handshake, Stage::Handshake, Stage::Handshake] {
        reach(&mut sim, stage);
        assert_eq!(sim.handle(broken()), [Output::Drop]);
        sim.wait();
    }
    for stage in [Stage::Connect, Stage::Publish, Stage::Connect, Stage::Publish, Stage::Publish] {
        reach(&mut sim, stage);
        assert_eq!((sim.handle(broken()), sim.word()), (vec![Output::Drop], "backoff"));
        sim.wait();
    }
}

#[test]
fn upstream_that_has_worked_has_not_failed_by_closing() {
    for resumed in [false, true] {
        let mut sim = Sim::new(PLAIN);
        if resumed {
            sim.machine.has_worked();
            sim.outputs();
        } else {
            sim.go_live();
            sim.handle(broken());
            sim.wait();
        }
        for time in 0..5 {
            reach(&mut sim, Stage::Publish);
            sim.handle(broken());
            assert_eq!(sim.word(), "backoff");
            let (waited, _) = sim.wait();
            assert!(time > 0 || waited <= 2 * GONE.0, "{waited:?}");
        }
    }
}

#[test]
fn error_with_another_code_is_a_refusal_at_the_third_time() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    for time in 1..6 {
        reach(&mut sim, Stage::Publish);
        let outputs = sim.handle(refused(Class::Refused));
        let told = outputs.contains(&Output::Refused(Fault::Refused));
        let word = if time < 3 { "backoff" } else { "failed" };
        assert_eq!((told, sim.word()), (time >= 3, word), "{time}");
        sim.wait();
    }
}

#[test]
fn taken_name_is_a_stale_session_for_a_while_and_then_a_refusal() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    let began = sim.now;
    let mut attempts = 0;
    let told = loop {
        reach(&mut sim, Stage::Publish);
        attempts += 1;
        let outputs = sim.handle(refused(Class::BadName));
        if outputs.contains(&Output::Refused(Fault::BadName)) {
            assert_eq!(sim.word(), "failed");
            break sim.now - began;
        }
        assert_eq!((&outputs[..], sim.word()), (&[Output::Drop][..], "backoff"));
        let (waited, _) = sim.wait();
        assert!(waited <= STALE_NAME_RETRY, "{waited:?}");
    };
    assert!(told >= STALE_NAME && told <= STALE_NAME + STALE_NAME_RETRY, "{told:?}");
    assert!(attempts >= 9, "{attempts}");
}

#[test]
fn name_that_is_taken_anew_is_a_stale_session_again() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    reach(&mut sim, Stage::Publish);
    assert_eq!(sim.handle(refused(Class::BadName)), [Output::Drop]);
    sim.wait();
    sim.go_live();
    sim.pass(STALE_NAME);
    sim.handle(broken());
    sim.wait();
    reach(&mut sim, Stage::Publish);
    assert_eq!(sim.handle(refused(Class::BadName)), [Output::Drop]);
}

#[test]
fn limits_grow_with_each_time_out() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    for (answer, publish) in [(10, 20), (20, 40), (40, 80), (40, 80)] {
        let seconds = Duration::from_secs;
        sim.start();
        let mut limits = vec![sim.machine.poll_timeout().unwrap() - sim.now];
        for stage in [Stage::Connect, Stage::CreateStream, Stage::Publish] {
            sim.handle(Input::Reached(stage));
            limits.push(sim.machine.poll_timeout().unwrap() - sim.now);
        }
        assert_eq!(limits, [HANDSHAKE_TIMEOUT, seconds(answer), seconds(answer), seconds(publish)]);
        sim.wait();
        assert_eq!(sim.machine.fault().unwrap().0, Fault::NoAnswer);
        sim.wait();
    }
    // A server that was slow once will be slow again.
    sim.go_live();
    sim.pass(STABLE);
    sim.handle(broken());
    sim.wait();
    reach(&mut sim, Stage::Publish);
    assert_eq!(sim.machine.poll_timeout().unwrap() - sim.now, Duration::from_secs(80));
}

#[test]
fn time_outs_count_for_their_own_stage_and_a_server_that_hung_is_asked_as_before_after_a_session_that_lasted() {
    let mut sim = Sim::new(TLS);
    sim.outputs();
    for factor in [1, 2, 4] {
        assert_eq!(sim.wait().0, factor * RESOLVE_TIMEOUT);
        assert_eq!(sim.machine.fault().unwrap().0, Fault::UnknownHost);
        sim.wait();
    }
    for factor in [1, 2, 4] {
        sim.start();
        assert_eq!(sim.wait().0, factor * HANDSHAKE_TIMEOUT, "a slow resolver is no slow server");
        assert_eq!(sim.machine.fault().unwrap().0, Fault::NoAnswer);
        sim.wait();
    }
    sim.go_live();
    sim.pass(STABLE);
    sim.handle(broken());
    sim.wait();
    let outputs = sim.handle(Input::Resolved(vec![address(1)]));
    sim.handle(Input::Connected(Sim::dial(&outputs).0));
    assert_eq!(sim.machine.poll_timeout().unwrap() - sim.now, TLS_TIMEOUT);
    sim.handle(Input::Secured);
    assert_eq!(sim.wait().0, HANDSHAKE_TIMEOUT);
    sim.wait();
    assert_eq!(sim.wait().0, 4 * RESOLVE_TIMEOUT, "a resolver that was slow once will be slow again");
}

#[test]
fn upstream_that_answers_late_is_live_at_the_first_or_second_attempt() {
    let seconds = Duration::from_secs;
    for (late_at, late) in [
        (Stage::Connect, seconds(7)),
        (Stage::CreateStream, seconds(7)),
        (Stage::Publish, seconds(12)),
        (Stage::Publish, seconds(30)),
    ] {
        let mut sim = Sim::new(PLAIN);
        sim.outputs();
        let mut attempts = 0;
        while !sim.machine.is_live() {
            attempts += 1;
            assert!(attempts <= 2, "{late_at:?} after {late:?}");
            reach(&mut sim, late_at);
            if sim.machine.poll_timeout().unwrap() <= sim.now + late {
                sim.wait();
                sim.wait();
                continue;
            }
            sim.pass(late);
            sim.handle(Input::Session(ClientEvent::Started));
        }
    }
}

#[test]
fn server_that_never_answers_is_not_hammered() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    let (began, mut connections) = (sim.now, 0);
    while sim.now - began < Duration::from_secs(30) {
        reach(&mut sim, Stage::Connect);
        connections += 1;
        sim.wait();
        assert_eq!(sim.word(), "backoff");
        sim.wait();
    }
    assert!(connections <= 2, "{connections} connections in 30 s");
}

#[test]
fn live_session_is_lost_in_every_way() {
    for input in [
        broken(),
        refused(Class::Denied),
        Input::Session(ClientEvent::Ended("unpublished".to_owned())),
        Input::Broken(Fault::Protocol, "bad chunk".to_owned()),
    ] {
        let mut sim = Sim::new(PLAIN);
        sim.go_live();
        sim.pass(STABLE);
        let outputs = sim.handle(input.clone());
        assert!(matches!(&outputs[..], [Output::Lost(_)]), "{input:?}: {outputs:?}");
        assert!(!sim.machine.is_live());
        assert_eq!(sim.wait().1, [Output::Resolve]);
    }
}

#[test]
fn clear_refusals_are_told() {
    for (class, told) in
        [(Class::BadName, false), (Class::Denied, true), (Class::Refused, false), (Class::Protocol, false)]
    {
        let mut sim = Sim::new(PLAIN);
        sim.outputs();
        sim.start();
        let mut expected = vec![Output::Drop];
        expected.extend(told.then_some(Output::Refused(Fault::Denied)));
        assert_eq!(sim.handle(refused(class)), expected);
        assert_eq!(sim.word(), if matches!(class, Class::Denied | Class::Protocol) { "failed" } else { "backoff" });
    }
}

#[test]
fn credentials_take_three_connections_and_then_two() {
    let mut sim = Sim::new(WITH_CREDENTIALS);
    sim.outputs();
    let (id, _) = Sim::dial(&sim.handle(Input::Resolved(vec![address(1), address(2)])));
    assert_eq!(sim.handle(Input::Connected(id)), [Output::Begin(Some(id), None)]);
    let again = |sim: &mut Sim, description: &str, contains: &str| {
        let outputs = sim.handle(asked(description));
        let [Output::Drop, Output::Dial(id, to)] = outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(to, address(1), "where the challenge is known");
        let outputs = sim.handle(Input::Connected(id));
        let [Output::Begin(_, Some(answer))] = &outputs[..] else { panic!("{outputs:?}") };
        assert!(answer.appended_to("live").contains(contains));
    };
    again(&mut sim, NEED_USER, "?authmod=adobe&user=foo");
    again(&mut sim, NEED_PROOF, "&response=");
    assert_eq!(sim.handle(Input::Session(ClientEvent::Started)), [Output::Live]);

    sim.pass(STABLE);
    sim.handle(broken());
    sim.wait();
    let (id, _) = Sim::dial(&sim.handle(Input::Resolved(vec![address(1)])));
    let outputs = sim.handle(Input::Connected(id));
    let [Output::Begin(_, Some(answer))] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(answer.appended_to("live"), "live?authmod=adobe&user=foo");
    again(&mut sim, NEED_PROOF, "&response=");
}

#[test]
fn nonce_differs_for_each_answer() {
    let mut sim = Sim::new(WITH_CREDENTIALS);
    assert_ne!(sim.machine.nonce(), sim.machine.nonce());
}

#[test]
fn upstream_that_rejects_the_credentials_fails() {
    let mut sim = Sim::new(WITH_CREDENTIALS);
    sim.outputs();
    sim.start();
    for _ in 0..MAX_CHALLENGES {
        let (id, _) = Sim::dial(&sim.handle(asked(NEED_PROOF)));
        sim.handle(Input::Connected(id));
    }
    assert_eq!(sim.handle(asked(NEED_PROOF)), [Output::Drop, Output::Refused(Fault::Denied)]);
    assert_eq!(sim.word(), "failed");
    assert!(sim.wait().0 >= DENIED.0 / 2);
}

#[test]
fn one_redirect_is_followed_in_an_attempt() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    reach(&mut sim, Stage::Connect);
    let to = "rtmps://other.example:443/app/…".to_owned();
    let outputs = sim.handle(redirected("rtmps://other.example/app"));
    assert_eq!(outputs, [Output::Drop, Output::Redirected(to.clone()), Output::Resolve]);
    assert_eq!((sim.machine.url().host.as_str(), sim.machine.url().key.expose()), ("other.example", "KEY"));
    assert_eq!(sim.word(), "dialing");
    let (id, _) = Sim::dial(&sim.handle(Input::Resolved(vec![address(2)])));
    assert_eq!(sim.handle(Input::Connected(id)), [Output::Secure(id)], "the other server has TLS");
    sim.handle(Input::Secured);

    // It sends us on: that is no way to publish.
    assert_eq!(sim.handle(redirected("rtmps://third.example/app")), [Output::Drop]);
    assert_eq!(
        sim.machine.fault(),
        Some((Fault::BadRedirect, &*format!("redirected to {to}: it redirects once more")))
    );
    assert_eq!(sim.word(), "failed");
    // The next attempt begins where the operator wants it to.
    let (waited, outputs) = sim.wait();
    assert!(waited >= DENIED.0 / 2, "{waited:?}");
    assert_eq!((outputs, sim.machine.url().host.as_str()), (vec![Output::Resolve], "ingest.example"));
}

#[test]
fn redirect_that_gives_up_tls_or_is_malformed_is_a_failure() {
    for (url, to, why) in [(TLS, "rtmp://other.example/app", "everybody on the way"), (PLAIN, "KEY://x", "no RTMP URL")]
    {
        let mut sim = Sim::new(url);
        sim.outputs();
        sim.start();
        assert_eq!(sim.handle(redirected(to)), [Output::Drop]);
        let (fault, text) = sim.machine.fault().unwrap();
        assert!(fault == Fault::BadRedirect && text.contains(why) && !text.contains("KEY"), "{text}");
        assert_eq!(sim.word(), "failed");
    }
}

#[test]
fn redirect_from_elsewhere_does_not_lead_to_this_machine() {
    let near = [
        "127.0.0.1:1935",
        "0.0.0.0:1935",
        "169.254.169.254:80",
        "[::1]:1935",
        "[::ffff:127.0.0.1]:1935",
        "[fe80::1]:1935",
    ];
    let near: Vec<SocketAddr> = near.iter().map(|text| text.parse().unwrap()).collect();
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    sim.start();
    sim.handle(redirected("rtmp://other.example/app"));
    let mut all = near.clone();
    all.push(address(2));
    assert_eq!(Sim::dial(&sim.handle(Input::Resolved(all))).1, address(2));

    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    sim.start();
    sim.handle(redirected("rtmp://other.example/app"));
    assert_eq!(sim.handle(Input::Resolved(near.clone())), [Output::Drop]);
    assert_eq!(sim.machine.fault().unwrap().0, Fault::BadRedirect);

    // From this machine to this machine.
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    let (id, _) = Sim::dial(&sim.handle(Input::Resolved(vec![near[0]])));
    sim.handle(Input::Connected(id));
    sim.handle(redirected("rtmp://other.example/app"));
    assert_eq!(Sim::dial(&sim.handle(Input::Resolved(vec![near[3]]))).1, near[3]);
}

#[test]
fn credentials_are_not_given_to_a_server_that_we_were_redirected_to() {
    let mut sim = Sim::new(WITH_CREDENTIALS);
    sim.outputs();
    sim.start();
    sim.handle(redirected("rtmp://other.example/app"));
    sim.start();
    assert_eq!(sim.handle(asked(NEED_USER)), [Output::Drop, Output::Refused(Fault::Denied)]);
    assert!(sim.machine.fault().unwrap().1.contains("no other host"));
}

#[test]
fn upstream_that_asks_for_missing_credentials_fails() {
    let mut sim = Sim::new(PLAIN);
    sim.outputs();
    sim.start();
    assert_eq!(sim.handle(asked(NEED_USER)), [Output::Drop, Output::Refused(Fault::Denied)]);
    assert!(sim.machine.fault().unwrap().1.contains("USER:PASSWORD"));
}

#[test]
fn upstream_closed_before_it_is_live_gets_no_farewell() {
    let prepare: [fn(&mut Sim); 5] = [
        |_| {},
        |sim| {
            sim.handle(Input::Resolved(vec![address(1)]));
        },
        |sim| {
            sim.start();
        },
        |sim| {
            sim.start();
            sim.handle(Input::Reached(Stage::Publish));
        },
        |sim| {
            sim.handle(Input::Resolved(vec![]));
        },
    ];
    for prepare in prepare {
        let mut sim = Sim::new(PLAIN);
        prepare(&mut sim);
        sim.outputs();
        assert_eq!(sim.handle(Input::Close { between_messages: true }), [Output::Drop, Output::Closed]);
    }
}

/// However news and time come: outputs fit the state, there is always a way on, and nothing follows the end.
#[test]
fn machine_survives_any_input_in_any_state() {
    use proptest::prelude::*;
    let news = |choice: u8, value: u8| match choice % 16 {
        0 => Input::Resolved((0..value % 20).map(address).collect()),
        1 => Input::Unresolved("no".to_owned()),
        2 | 3 => Input::Connected(DialId(u64::from(value % 12))),
        4 => Input::NotConnected(DialId(u64::from(value % 12)), Fault::Unreachable, "no".to_owned()),
        5 => Input::Secured,
        6 => Input::NotSecured(Fault::Untrusted, "no".to_owned()),
        7 => Input::Reached([Stage::Connect, Stage::CreateStream, Stage::Publish][usize::from(value % 3)]),
        8 => Input::Session(ClientEvent::Started),
        9 => refused([Class::BadName, Class::Denied, Class::Refused, Class::Protocol][usize::from(value % 4)]),
        10 => asked(if value.is_multiple_of(2) { NEED_USER } else { NEED_PROOF }),
        11 => broken(),
        12 if value == 0 => Input::Close { between_messages: true },
        13 if value < 64 => redirected("rtmps://other.example/app"),
        13 if value < 128 => redirected("nonsense"),
        _ => Input::Session(ClientEvent::Acknowledged(1)),
    };
    proptest!(|(steps in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 0..300), text in 0..3_usize)| {
        let mut sim = Sim::new([PLAIN, TLS, WITH_CREDENTIALS][text]);
        let mut dials = BTreeSet::new();
        let mut closed = false;
        for (choice, value, wait) in steps {
            let outputs = if wait && sim.machine.poll_timeout().is_some() {
                sim.wait().1
            } else {
                sim.handle(news(choice, value))
            };
            for output in outputs {
                prop_assert!(!closed, "{output:?} after the end");
                match output {
                    Output::Undial(id) => prop_assert!(dials.remove(&id.0)),
                    Output::Dial(id, _) => prop_assert!(dials.insert(id.0)),
                    Output::Secure(id) | Output::Begin(Some(id), _) => {
                        prop_assert!(dials.contains(&id.0));
                        prop_assert_eq!(matches!(output, Output::Secure(_)), sim.machine.url().tls);
                    }
                    Output::Begin(None, _) => prop_assert!(sim.machine.url().tls),
                    Output::Drop | Output::Lost(_) => dials.clear(),
                    Output::Closed => closed = true,
                    Output::Live => prop_assert!(sim.machine.is_live()),
                    Output::Resolve
                    | Output::Redirected(_)
                    | Output::Turned { .. }
                    | Output::Refused(_)
                    | Output::Farewell { .. } => {}
                }
            }
            let waiting = sim.machine.poll_timeout().is_some();
            prop_assert!(waiting || sim.machine.is_live() || closed, "stuck as {}", sim.word());
        }
    });
}

const BACKUP: &str = "rtmp://backup.example/live/KEY";
const BACKUP_AFTER: Duration = Duration::from_secs(10);

impl Sim {
    fn with_backup() -> Self {
        let mut sim = Self::new(PLAIN);
        sim.machine.set_backup(sim.now, Some((url(BACKUP), BACKUP_AFTER)));
        sim.outputs();
        sim
    }

    /// Fails an attempt, and says what comes of it.
    fn fail(&mut self) -> Vec<Output> {
        let (dial, _) = Self::dial(&self.handle(Input::Resolved(vec![address(1)])));
        self.handle(Input::NotConnected(dial, Fault::ConnectionRefused, "refused".to_owned()))
    }

    /// The server in use, in a word.
    fn server(&self) -> &'static str {
        let wanted = if self.machine.is_on_backup() { BACKUP } else { PLAIN };
        assert_eq!((self.machine.server(), self.machine.url()), (&url(wanted), &url(wanted)));
        if self.machine.is_on_backup() { "backup" } else { "primary" }
    }

    /// Goes live on the backup, for the first time.
    fn live_on_backup() -> Self {
        let mut sim = Self::with_backup();
        while sim.server() == "primary" {
            sim.fail();
            sim.wait();
        }
        sim.go_live();
        sim
    }
}

#[test]
fn backup_is_asked_after_its_time_and_then_the_servers_take_turns() {
    let mut sim = Sim::with_backup();
    let (began, mut turns) = (sim.now, Vec::new());
    for _ in 0..60 {
        let server = sim.server();
        let turned = sim.fail().into_iter().find(|output| matches!(output, Output::Turned { .. }));
        let (_, outputs) = sim.wait();
        assert_eq!(outputs, [Output::Resolve]);
        let time = sim.now - began;
        assert_eq!(turned.is_some(), sim.server() != server);
        assert_eq!(sim.server() == "backup" && turns.is_empty(), time == BACKUP_AFTER, "{time:?}");
        turns.extend(turned.map(|turned| (sim.server(), turned)));
    }
    let turned = |again| Output::Turned { again };
    assert_eq!(turns[..3], [("backup", turned(false)), ("primary", turned(true)), ("backup", turned(true))]);
    assert!(sim.now - began < Duration::from_secs(300), "each failure has its usual wait");
    let again: Vec<_> = turns.windows(2).map(|pair| pair[0].0 != pair[1].0).collect();
    assert!(again.len() > 10 && again.iter().all(|other| *other), "{turns:?}");
}

#[test]
fn session_on_the_backup_stays_until_it_is_lost_and_then_the_primary_is_asked_at_once() {
    let mut sim = Sim::live_on_backup();
    sim.pass(Duration::from_secs(3600));
    assert!(sim.machine.is_live() && sim.server() == "backup");
    let outputs = sim.handle(broken());
    assert!(matches!(outputs[..], [Output::Lost(_), Output::Turned { again: true }]), "{outputs:?}");
    assert_eq!((sim.server(), sim.wait()), ("primary", (Duration::ZERO, vec![Output::Resolve])));
    sim.go_live();
    sim.pass(Duration::from_secs(3600));
    // The time of the backup begins with the loss.
    let lost = sim.now;
    sim.handle(broken());
    while sim.server() == "primary" {
        assert!(sim.now - lost < BACKUP_AFTER);
        sim.wait();
        sim.fail();
    }
    assert_eq!((sim.wait().1, sim.now - lost), (vec![Output::Resolve], BACKUP_AFTER));
}

#[test]
fn sessions_that_end_as_soon_as_they_are_live_do_not_keep_the_backup_waiting() {
    let mut sim = Sim::with_backup();
    let began = sim.now;
    while sim.server() == "primary" {
        sim.go_live();
        sim.pass(NEVER_LASTED / 2);
        sim.handle(broken());
        sim.wait();
        assert!(sim.now - began <= BACKUP_AFTER + NEVER_LASTED, "{:?}", sim.now - began);
    }
    assert!(sim.now - began >= BACKUP_AFTER);
}

#[test]
fn upstream_has_refused_when_both_servers_have() {
    let mut sim = Sim::with_backup();
    let refusals = |outputs: &[Output]| outputs.iter().filter(|output| matches!(output, Output::Refused(_))).count();
    while sim.server() == "primary" {
        sim.start();
        assert_eq!(refusals(&sim.handle(refused(Class::Denied))), 0, "the backup was not asked");
        sim.wait();
    }
    sim.start();
    assert_eq!(refusals(&sim.handle(refused(Class::Denied))), 1);
}

#[test]
fn backup_can_be_another_one_or_none_any_more() {
    let other = url("rtmp://other.example/live/KEY");
    for (to, stays) in [(Some(url(BACKUP)), true), (Some(other.clone()), false), (None, false)] {
        let mut sim = Sim::live_on_backup();
        sim.machine.set_backup(sim.now, to.clone().map(|url| (url, BACKUP_AFTER)));
        let outputs = sim.outputs();
        assert_eq!((sim.machine.is_live(), sim.machine.is_on_backup()), (stays, stays), "{to:?}");
        assert_eq!(matches!(outputs[..], [Output::Lost(_)]), !stays, "{outputs:?}");
        if !stays {
            assert_eq!(sim.wait(), (Duration::ZERO, vec![Output::Resolve]));
        }
    }
    let mut sim = Sim::with_backup();
    sim.go_live();
    sim.machine.set_backup(sim.now, Some((other, BACKUP_AFTER)));
    assert!(sim.machine.is_live() && sim.outputs().is_empty(), "a session with the primary does not notice");
}
