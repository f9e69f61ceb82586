//! Registration on virtual time.

use super::*;
use liveedgecast_common::control::{UpstreamReport, UpstreamState};
use liveedgecast_common::discovery::FIRST_DELAY;
use liveedgecast_common::testkit::origin;
use proptest::prelude::*;

const ONE: &str = "10.0.0.1:6001";
const TWO: &str = "10.0.0.2:6001";

/// A machine with its clock; every call returns the machine's outputs.
struct Desk {
    now: Instant,
    register: Register,
}

impl Desk {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            name: "w".into(),
            capacity: 2,
            network: "net".into(),
            handoff: Handoff::Auto,
            exit_when_orphaned: false,
            key: InstanceKey([7; 32]),
            introducer: false,
            began: origin(),
        };
        change(&mut settings);
        // The only reading of a clock: later times are added to it.
        let now = origin();
        Self { now, register: Register::new(now, settings) }
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.register.poll_output()).collect()
    }

    /// Tells of sessions that have changed.
    fn sessions(&mut self, changed: impl IntoIterator<Item = Session>) -> Vec<Output> {
        self.tell(Input::Sessions(changed.into_iter().map(Arc::new).collect()))
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.register.handle(self.now, input);
        self.outputs()
    }

    /// Lets time pass, doing what is due when it is due.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, Output)> {
        let (start, end) = (self.now, self.now + time);
        let mut all = Vec::new();
        while let Some(due) = self.register.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.register.handle_timeout(self.now);
            assert!(self.register.poll_timeout().is_none_or(|next| next > self.now), "a hot loop");
            all.extend(self.outputs().into_iter().map(|output| (self.now - start, output)));
        }
        self.now = end;
        all
    }

    fn resolve(&mut self, addresses: &[&str]) -> Vec<AttemptId> {
        let outputs = self.tell(Input::Resolved(addresses.iter().map(|text| text.parse().unwrap()).collect()));
        dials(&outputs)
    }

    fn welcome(&mut self, link: AttemptId, activator: &str) -> Vec<Output> {
        self.welcome_by(link, activator, true)
    }

    /// As [`Self::welcome`]; `counters`: the activator takes counters in one message.
    fn welcome_by(&mut self, link: AttemptId, activator: &str, counters: bool) -> Vec<Output> {
        self.tell(Input::Connected(link));
        let welcome = Welcome {
            activator: activator.into(),
            handoff_socket: "socket".into(),
            link_port: 6002,
            counters,
            totals: false,
        };
        self.tell(Input::Said(link, ActivatorMessage::Welcome(welcome)))
    }

    fn joined(change: impl FnOnce(&mut Settings)) -> (Self, AttemptId) {
        let mut desk = Self::new(change);
        desk.outputs();
        let link = desk.resolve(&[ONE])[0];
        desk.welcome(link, "a");
        (desk, link)
    }

    fn offer(&mut self, link: AttemptId, stream_id: &str, epoch: u64) -> Vec<Output> {
        let (token, challenge) = ([0; 16], None);
        let offer = Offer { stream_id: stream_id.into(), epoch, token, descriptor: true, known: false, challenge };
        self.tell(Input::Said(link, ActivatorMessage::Offer(offer)))
    }
}

fn dials(outputs: &[Output]) -> Vec<AttemptId> {
    let link = |output: &Output| if let Output::Dial { attempt, .. } = output { Some(*attempt) } else { None };
    outputs.iter().filter_map(link).collect()
}

fn declined(outputs: &[Output]) -> Option<DeclineReason> {
    outputs.iter().find_map(|output| match output {
        Output::Say(_, WorkerMessage::Declined(declined)) => Some(declined.reason),
        _ => None,
    })
}

fn took(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Take { .. }))
}

fn load(output: &Output) -> Option<(u32, bool)> {
    match output {
        Output::Say(_, WorkerMessage::Load(load)) => Some((load.streams, load.availability != Availability::Open)),
        _ => None,
    }
}

fn told_counters(outputs: &[(Duration, Output)]) -> Vec<(Duration, Vec<SessionCounters>)> {
    let told = |(at, output): &(Duration, Output)| match output {
        Output::Say(_, WorkerMessage::Counters(streams)) => Some((*at, streams.clone())),
        _ => None,
    };
    outputs.iter().filter_map(told).collect()
}

fn session(stream_id: &str, state: SessionState) -> Session {
    let upstream = UpstreamReport { host: "up:1935".into(), state: UpstreamState::Live, ..UpstreamReport::default() };
    Session {
        stream_id: stream_id.into(),
        state,
        epoch: 1,
        app: "live".into(),
        upstreams: vec![upstream],
        ..Session::default()
    }
}

fn told_sessions(outputs: &[Output]) -> Vec<(String, SessionState)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Say(_, WorkerMessage::Session(session)) => Some((session.stream_id.clone(), session.state)),
        _ => None,
    });
    told.collect()
}

#[test]
fn every_address_is_dialed_at_once_and_greeted_first() {
    let mut desk = Desk::new(|_| {});
    assert_eq!(desk.outputs(), [Output::Resolve]);
    let links = desk.resolve(&[ONE, TWO]);
    assert_eq!(links.len(), 2);
    for (link, activator) in links.iter().zip(["a", "b"]) {
        let outputs = desk.tell(Input::Connected(*link));
        let [Output::Say(to, WorkerMessage::Hello(hello))] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!((to, hello.name.as_str(), hello.capacity, hello.network.as_str()), (link, "w", 2, "net"));
        desk.welcome(*link, activator);
    }
    assert_eq!(desk.register.joined(), 2);
}

#[test]
fn attempts_are_eager_at_first_then_rare() {
    let mut desk = Desk::new(|_| {});
    let mut link = desk.resolve(&[ONE])[0];
    let mut waited = Vec::new();
    for _ in 0..16 {
        desk.tell(Input::Ended(link, CallEnd::Broken));
        let begun = desk.now;
        loop {
            let due = desk.register.poll_timeout().unwrap();
            let outputs = desk.pass(due - desk.now);
            let outputs: Vec<Output> = outputs.into_iter().map(|(_, output)| output).collect();
            if outputs.contains(&Output::Resolve) {
                desk.tell(Input::Unresolved);
            }
            if let Some(next) = dials(&outputs).first() {
                link = *next;
                break;
            }
        }
        waited.push((desk.now - begun).as_millis());
    }
    assert_eq!(waited, [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 200, 400, 800, 1600, 2000, 2000]);
}

#[test]
fn refused_proof_is_not_repeated_often() {
    let mut desk = Desk::new(|_| {});
    let link = desk.resolve(&[ONE])[0];
    desk.tell(Input::Ended(link, CallEnd::Refused));
    let dialed: Vec<Duration> = desk
        .pass(Duration::from_secs(11))
        .into_iter()
        .filter(|(_, output)| matches!(output, Output::Dial { .. }))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(dialed, [REFUSED_DELAY]);
}

#[test]
fn activator_that_does_not_welcome_is_given_up() {
    let mut desk = Desk::new(|_| {});
    let link = desk.resolve(&[ONE])[0];
    desk.tell(Input::Connected(link));
    let outputs = desk.pass(WELCOME_TIMEOUT);
    assert!(outputs.contains(&(WELCOME_TIMEOUT, Output::HangUp(link))), "{outputs:?}");
    assert_eq!(dials(&desk.pass(FIRST_DELAY).into_iter().map(|(_, output)| output).collect::<Vec<_>>()).len(), 1);
}

#[test]
fn vanishing_from_the_name_ends_no_working_link() {
    let mut desk = Desk::new(|_| {});
    let links = desk.resolve(&[ONE, TWO]);
    desk.welcome(links[0], "a");
    let outputs = desk.tell(Input::Resolved(vec![]));
    assert_eq!(outputs, [Output::HangUp(links[1])], "only the one that was being dialed");
    assert_eq!(desk.register.joined(), 1);
    desk.tell(Input::Ended(links[0], CallEnd::Broken));
    let later = desk.pass(Duration::from_secs(3));
    assert!(later.iter().all(|(_, output)| *output == Output::Resolve), "forgotten once it broke: {later:?}");
}

#[test]
fn two_addresses_of_one_activator_are_one_link() {
    let mut desk = Desk::new(|_| {});
    let links = desk.resolve(&[ONE, TWO]);
    desk.welcome(links[0], "a");
    assert_eq!(desk.welcome(links[1], "a"), [Output::HangUp(links[1])]);
    assert_eq!(desk.register.joined(), 1);
    // While the first one works, and while it is merely lost for a moment, the second stays untouched.
    let mut link = links[0];
    let mut dialed = Vec::new();
    for _ in 0..DISCOVERY.alias_patience {
        dialed = dials(&desk.tell(Input::Ended(link, CallEnd::Broken)));
        let again: Vec<Output> = desk.pass(FIRST_DELAY).into_iter().map(|(_, output)| output).collect();
        link = dials(&again)[0];
    }
    assert_eq!(dialed.len(), 1, "after some failures the other address is tried");
    desk.welcome(dialed[0], "a");
    assert_eq!(desk.register.joined(), 1);
}

#[test]
fn offers_are_taken_up_to_the_capacity() {
    let (mut desk, link) = Desk::joined(|_| {});
    let outputs = desk.offer(link, "1", 1);
    let Some(Output::Take { address, welcome, offer, .. }) = outputs.first() else { panic!("{outputs:?}") };
    assert_eq!((address.to_string().as_str(), welcome.link_port, offer.epoch), (ONE, 6002, 1));
    assert_eq!(outputs.iter().find_map(load), Some((1, false)), "the load is told with it");
    assert!(took(&desk.offer(link, "2", 1)));
    assert_eq!(declined(&desk.offer(link, "3", 1)), Some(DeclineReason::Full));

    // Served ones count once, however their fetching ends.
    desk.sessions([session("1", SessionState::Starting), session("2", SessionState::Live)]);
    desk.tell(Input::Taken("1".into()));
    assert_eq!(desk.register.streams(), 2);
    assert_eq!(declined(&desk.offer(link, "3", 1)), Some(DeclineReason::Full));

    // One that could not be fetched, and one that ended, give their places back.
    let outputs = desk.sessions([session("1", SessionState::Ended)]);
    assert_eq!(outputs.iter().find_map(load), Some((1, false)));
    assert!(took(&desk.offer(link, "4", 1)));
    assert_eq!(declined(&desk.tell(Input::NotTaken(link, "4".into(), 1))), Some(DeclineReason::Unreachable));
    assert_eq!(desk.register.streams(), 1);
}

#[test]
fn publisher_that_comes_back_in_grace_finds_a_place() {
    let (mut desk, link) = Desk::joined(|settings| settings.capacity = 1);
    desk.sessions([session("1", SessionState::Grace)]);
    assert!(took(&desk.offer(link, "2", 1)));
    assert_eq!(declined(&desk.offer(link, "3", 1)), Some(DeclineReason::Full));
}

#[test]
fn full_worker_decides_about_a_stream_or_an_upstream_that_it_has() {
    let (mut desk, link) = Desk::joined(|settings| settings.capacity = 1);
    desk.sessions([session("1", SessionState::Live)]);
    let offer = |stream_id: &str, known| {
        let token = [0; 16];
        let offer = Offer { stream_id: stream_id.into(), epoch: 1, token, descriptor: true, known, challenge: None };
        Input::Said(link, ActivatorMessage::Offer(offer))
    };
    assert_eq!(declined(&desk.tell(offer("2", false))), Some(DeclineReason::Full));
    assert!(took(&desk.tell(offer("3", true))));
}

#[test]
fn offers_that_do_not_fit_are_declined() {
    let offer = |desk: &mut Desk, link, change: fn(&mut Offer)| {
        let (token, challenge) = ([0; 16], None);
        let mut offer = Offer { stream_id: "9".into(), epoch: 1, token, descriptor: true, known: false, challenge };
        change(&mut offer);
        declined(&desk.tell(Input::Said(link, ActivatorMessage::Offer(offer))))
    };
    let (mut desk, link) = Desk::joined(|settings| settings.handoff = Handoff::Link);
    assert_eq!(offer(&mut desk, link, |_| {}), Some(DeclineReason::Unreachable));
    let (mut desk, link) = Desk::joined(|settings| settings.handoff = Handoff::Descriptor);
    assert_eq!(offer(&mut desk, link, |offer| offer.descriptor = false), Some(DeclineReason::Unreachable));
    let (mut desk, link) = Desk::joined(|_| {});
    let unreadable = ActivatorMessage::UnreadableOffer { stream_id: "9".into(), epoch: 1 };
    assert_eq!(declined(&desk.tell(Input::Said(link, unreadable))), Some(DeclineReason::Other));
    // A claim that is not newer than the worker's own is void; a newer one is not.
    desk.sessions([session("9", SessionState::Live)]);
    assert_eq!(offer(&mut desk, link, |_| {}), Some(DeclineReason::Other));
    assert_eq!(offer(&mut desk, link, |offer| offer.epoch = 2), None);
    assert_eq!(
        offer(&mut desk, link, |offer| offer.epoch = 2),
        Some(DeclineReason::Other),
        "while it is being fetched, too"
    );
}

#[test]
fn draining_or_cordoned_worker_takes_nothing_and_says_so() {
    let (mut desk, link) = Desk::joined(|_| {});
    let outputs = desk.tell(Input::Said(link, cordon(true, false)));
    assert_eq!(outputs.iter().find_map(load), Some((0, true)));
    assert_eq!(declined(&desk.offer(link, "1", 1)), Some(DeclineReason::Draining));
    desk.tell(Input::Said(link, cordon(false, false)));
    assert!(took(&desk.offer(link, "1", 1)));
    let outputs = desk.tell(Input::Drain);
    assert_eq!(outputs.iter().find_map(load), Some((1, true)));
    assert_eq!(declined(&desk.offer(link, "2", 1)), Some(DeclineReason::Draining));
}

fn cordon(on: bool, leaving: bool) -> ActivatorMessage {
    let cordoned = if leaving { Cordon::Leaving } else { Cordon::On };
    ActivatorMessage::Cordon(if on { cordoned } else { Cordon::Off })
}

/// The availability that the last load tells.
fn availability(outputs: &[Output]) -> Option<Availability> {
    let mut loads = outputs.iter().filter_map(|output| match output {
        Output::Say(_, WorkerMessage::Load(load)) => Some(load.availability),
        _ => None,
    });
    loads.next_back()
}

#[test]
fn idle_worker_that_may_go_says_so_and_stays_cordoned_while_kubernetes_may_act_on_it() {
    let (mut desk, link) = Desk::joined(|_| {});
    assert_eq!(availability(&desk.tell(Input::Said(link, cordon(true, false)))), Some(Availability::Cordoned));
    assert_eq!(availability(&desk.tell(Input::Said(link, cordon(true, true)))), Some(Availability::Leaving));
    assert_eq!(
        availability(&desk.tell(Input::Said(link, cordon(false, false)))),
        Some(Availability::Cordoned),
        "not yet"
    );
    assert_eq!(declined(&desk.offer(link, "1", 1)), Some(DeclineReason::Draining));
    let told = |outputs: Vec<(Duration, Output)>| -> Vec<Availability> {
        outputs.into_iter().filter_map(|(_, output)| availability(&[output])).collect()
    };
    assert_eq!(told(desk.pass(RETURN_AFTER - Duration::from_millis(1))), []);
    assert_eq!(told(desk.pass(Duration::from_millis(1))), [Availability::Open]);
    assert!(took(&desk.offer(link, "1", 2)));
}

#[test]
fn worker_that_has_a_stream_never_says_that_it_may_go() {
    let (mut desk, link) = Desk::joined(|_| {});
    assert!(took(&desk.offer(link, "1", 1)));
    assert_eq!(availability(&desk.tell(Input::Said(link, cordon(true, true)))), Some(Availability::Cordoned));
    assert_eq!(availability(&desk.tell(Input::Said(link, cordon(false, false)))), Some(Availability::Open), "at once");
    desk.tell(Input::NotTaken(link, "1".into(), 1));
    desk.tell(Input::Said(link, cordon(true, true)));
    assert_eq!(availability(&desk.tell(Input::Drain)), Some(Availability::Draining), "it goes for good");
}

#[test]
fn activator_that_is_lost_has_taken_its_leave_to_go_back() {
    let (mut desk, one) = Desk::joined(|_| {});
    let two = desk.resolve(&[ONE, TWO]);
    desk.welcome(two[0], "b");
    desk.tell(Input::Said(one, cordon(true, true)));
    let outputs = desk.tell(Input::Ended(one, CallEnd::Broken));
    assert_eq!(availability(&outputs), Some(Availability::Cordoned), "the other one is told");
    assert_eq!(declined(&desk.offer(two[0], "1", 1)), Some(DeclineReason::Draining));
    desk.pass(RETURN_AFTER);
    assert!(took(&desk.offer(two[0], "1", 2)));
}

#[test]
fn cordon_ends_with_the_activator_that_asked_for_it() {
    let (mut desk, link) = Desk::joined(|_| {});
    desk.tell(Input::Said(link, cordon(true, false)));
    desk.tell(Input::Ended(link, CallEnd::Broken));
    let again = desk.pass(FIRST_DELAY).into_iter().map(|(_, output)| output).collect::<Vec<_>>();
    let link = dials(&again)[0];
    desk.welcome(link, "a");
    assert!(took(&desk.offer(link, "1", 1)));
}

#[test]
fn load_is_repeated_while_serving_and_never_while_idle() {
    let (mut desk, _) = Desk::joined(|_| {});
    let loads = |outputs: Vec<(Duration, Output)>| -> Vec<u128> {
        outputs.into_iter().filter(|(_, output)| load(output).is_some()).map(|(at, _)| at.as_millis()).collect()
    };
    assert_eq!(loads(desk.pass(Duration::from_secs(4))), [0_u128; 0]);
    desk.sessions([session("1", SessionState::Live)]);
    assert_eq!(loads(desk.pass(Duration::from_secs(2))), [500, 1000, 1500, 2000]);
    desk.sessions([session("1", SessionState::Ended)]);
    assert_eq!(loads(desk.pass(Duration::from_secs(4))), [0_u128; 0]);
}

#[test]
fn states_are_told_at_once_and_counters_now_and_then() {
    let (mut desk, _) = Desk::joined(|_| {});
    let outputs = desk.sessions([session("1", SessionState::Starting)]);
    assert_eq!(told_sessions(&outputs), [("1".into(), SessionState::Starting)]);
    let outputs = desk.sessions([session("1", SessionState::Live)]);
    assert_eq!(told_sessions(&outputs), [("1".into(), SessionState::Live)]);
    let mut counted = session("1", SessionState::Live);
    counted.upstreams[0].counts.bytes = 1000;
    counted.messages = 10;
    let outputs = desk.sessions([counted.clone()]);
    assert_eq!(told_sessions(&outputs), []);
    let told = told_counters(&desk.pass(3 * COUNTERS_INTERVAL));
    assert_eq!(told, [(COUNTERS_INTERVAL, vec![SessionCounters::of(&counted)])], "once, as long as they do not grow");
    counted.messages = 11;
    counted.upstreams[0].state = UpstreamState::Backoff;
    assert_eq!(told_sessions(&desk.sessions([counted])).len(), 1);
    let outputs = desk.sessions([session("1", SessionState::Ended)]);
    assert_eq!(told_sessions(&outputs), [("1".into(), SessionState::Ended)]);
}

#[test]
fn counters_of_all_streams_travel_in_one_message() {
    let (mut desk, _) = Desk::joined(|_| {});
    let ids = ["1", "2", "3"];
    desk.sessions(ids.map(|id| session(id, SessionState::Live)));
    let grown = |id: &str, messages| Session { messages, ..session(id, SessionState::Live) };
    desk.sessions(ids.map(|id| grown(id, 1)));
    desk.sessions([grown("2", 2), session("3", SessionState::Ended)]);
    let expected: Vec<SessionCounters> = [grown("1", 1), grown("2", 2)].iter().map(SessionCounters::of).collect();
    assert_eq!(told_counters(&desk.pass(COUNTERS_INTERVAL)), [(COUNTERS_INTERVAL, expected)]);
}

#[test]
fn activator_of_an_earlier_version_is_told_all_sessions_every_five_seconds() {
    let mut desk = Desk::new(|_| {});
    desk.outputs();
    let link = desk.resolve(&[ONE])[0];
    desk.welcome_by(link, "a", false);
    desk.sessions(["1", "2"].map(|id| session(id, SessionState::Live)));
    let outputs = desk.pass(Duration::from_secs(10));
    assert_eq!(told_counters(&outputs), []);
    let told = outputs.iter().filter(|(_, output)| matches!(output, Output::Say(_, WorkerMessage::Session(_))));
    assert_eq!(told.map(|(at, _)| at.as_secs()).collect::<Vec<_>>(), [5, 5, 10, 10]);
}

#[test]
fn ended_session_is_told_once_with_its_reason_and_frees_its_place() {
    let (mut desk, _) = Desk::joined(|_| {});
    desk.sessions([session("1", SessionState::Live)]);
    let mut ended = session("1", SessionState::Ended);
    ended.reason = "the publisher finished".into();
    let outputs = desk.sessions([ended.clone()]);
    assert_eq!(told_sessions(&outputs), [("1".into(), SessionState::Ended)]);
    assert_eq!(desk.register.streams(), 0);
    assert_eq!(told_sessions(&desk.sessions([ended])), []);
}

#[test]
fn activator_that_comes_back_learns_every_session() {
    let (mut desk, link) = Desk::joined(|_| {});
    desk.sessions([session("1", SessionState::Live)]);
    desk.tell(Input::Ended(link, CallEnd::Broken));
    let again = desk.pass(FIRST_DELAY).into_iter().map(|(_, output)| output).collect::<Vec<_>>();
    let outputs = desk.tell(Input::Connected(dials(&again)[0]));
    let Some(Output::Say(_, WorkerMessage::Hello(hello))) = outputs.first() else { panic!("{outputs:?}") };
    assert_eq!(hello.sessions.len(), 1);
}

#[test]
fn orphan_without_streams_ends() {
    let orphaned = |outputs: Vec<(Duration, Output)>| {
        outputs.into_iter().find(|(_, output)| *output == Output::Orphaned).map(|(at, _)| at)
    };
    let (mut desk, link) = Desk::joined(|settings| settings.exit_when_orphaned = true);
    desk.sessions([session("1", SessionState::Live)]);
    desk.tell(Input::Ended(link, CallEnd::Broken));
    assert_eq!(orphaned(desk.pass(Duration::from_secs(60))), None, "not while it serves");
    desk.sessions([session("1", SessionState::Ended)]);
    assert_eq!(orphaned(desk.pass(Duration::from_secs(60))), Some(ORPHANED_AFTER));
    assert_eq!(desk.register.poll_timeout(), None);

    // Another activator, after a crash of the first one, has the streams and not the process.
    for exits in [true, false] {
        let (mut desk, link) = Desk::joined(|settings| settings.exit_when_orphaned = exits);
        desk.sessions([session("1", SessionState::Live)]);
        desk.tell(Input::Ended(link, CallEnd::Broken));
        let dialed = desk.pass(Duration::from_secs(1)).into_iter().find_map(|(_, output)| match output {
            Output::Dial { attempt, .. } => Some(attempt),
            _ => None,
        });
        desk.welcome(dialed.expect("another dial"), "another");
        assert_eq!(orphaned(desk.pass(Duration::from_secs(60))), None);
        desk.sessions([session("1", SessionState::Ended)]);
        assert_eq!(orphaned(desk.pass(Duration::from_secs(60))), exits.then_some(ORPHANED_AFTER), "{exits}");
    }

    let mut desk = Desk::new(|settings| settings.exit_when_orphaned = true);
    assert_eq!(orphaned(desk.pass(Duration::from_secs(60))), Some(ORPHANED_AFTER), "never had one");
    let mut desk = Desk::new(|_| {});
    assert_eq!(orphaned(desk.pass(Duration::from_secs(60))), None, "one that nobody started stays");
}

#[test]
fn goodbye_is_the_last_message_to_every_activator() {
    let mut desk = Desk::new(|_| {});
    let links = desk.resolve(&[ONE, TWO]);
    desk.welcome(links[0], "a");
    let goodbye = Output::Say(links[0], WorkerMessage::Goodbye);
    assert_eq!(desk.tell(Input::Leave), [goodbye, Output::HangUp(links[0]), Output::HangUp(links[1])]);
    assert_eq!(desk.pass(Duration::from_secs(60)), []);
    assert_eq!(desk.tell(Input::Resolved(vec![ONE.parse().unwrap()])), []);
}

#[test]
fn worker_that_an_activator_started_tells_its_streams_that_none_is_there() {
    let alone = |outputs: Vec<(Duration, Output)>| -> Vec<(Duration, bool)> {
        let told = |(at, output)| if let Output::Alone(alone) = output { Some((at, alone)) } else { None };
        outputs.into_iter().filter_map(told).collect()
    };
    let (mut desk, link) = Desk::joined(|settings| settings.exit_when_orphaned = true);
    desk.sessions([session("a", SessionState::Live)]);
    assert_eq!(alone(desk.pass(Duration::from_secs(60))), [], "not while one is there");
    desk.tell(Input::Ended(link, CallEnd::Broken));
    assert_eq!(alone(desk.pass(Duration::from_secs(60))), [(ALONE_AFTER, true)]);
    let (mut desk, link) = Desk::joined(|_| {});
    desk.tell(Input::Ended(link, CallEnd::Broken));
    assert_eq!(alone(desk.pass(Duration::from_secs(60))), [], "one that nobody started waits for its publishers");
}

#[test]
fn cordoned_worker_takes_back_a_stream_that_it_has() {
    let (mut desk, link) = Desk::joined(|_| {});
    desk.sessions([session("a", SessionState::Grace)]);
    desk.tell(Input::Said(link, ActivatorMessage::Cordon(Cordon::On)));
    assert!(took(&desk.offer(link, "a", 2)));
    assert!(!took(&desk.offer(link, "b", 2)));
}

#[test]
fn fence_is_passed_on() {
    let (mut desk, link) = Desk::joined(|_| {});
    let outputs = desk.tell(Input::Said(link, ActivatorMessage::Fence { stream_id: "1".into(), epoch: 7 }));
    assert_eq!(outputs, [Output::Fence { stream_id: "1".into(), epoch: 7 }]);
}

#[test]
fn kick_is_passed_on() {
    let (mut desk, link) = Desk::joined(|_| {});
    let outputs =
        desk.tell(Input::Said(link, ActivatorMessage::Kick { stream_id: "1".into(), reason: "asked for".into() }));
    assert_eq!(outputs, [Output::Kick { stream_id: "1".into(), reason: "asked for".into() }]);
}

#[derive(Clone, Debug)]
enum Act {
    Resolve(u8),
    Connect,
    Welcome(u8),
    End(bool),
    Offer(u8, u8),
    Sessions(u8, u8),
    Taken(u8),
    NotTaken(u8),
    Cordon(bool, bool),
    Pass(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        any::<u8>().prop_map(Act::Resolve),
        Just(Act::Connect),
        (0..3_u8).prop_map(Act::Welcome),
        any::<bool>().prop_map(Act::End),
        (0..6_u8, 0..4_u8).prop_map(|(id, epoch)| Act::Offer(id, epoch)),
        (any::<u8>(), 1..5_u8).prop_map(|(ids, state)| Act::Sessions(ids, state)),
        (0..6_u8).prop_map(Act::Taken),
        (0..6_u8).prop_map(Act::NotTaken),
        (any::<bool>(), any::<bool>()).prop_map(|(on, leaving)| Act::Cordon(on, leaving)),
        (0..9000_u16).prop_map(Act::Pass),
    ]
}

proptest! {
    /// Any inputs in any order: no hot loop (asserted in `pass`), nothing said into a call before its Hello or
    /// after its end, never two calls for one address, never more streams taken than there is room for.
    #[test]
    fn any_order_of_events_keeps_the_rules(acts in proptest::collection::vec(act(), 0..120)) {
        let mut desk = Desk::new(|_| {});
        let mut calls: BTreeMap<AttemptId, (SocketAddr, bool)> = BTreeMap::new();
        let mut last = AttemptId(0);
        for act in acts {
            let id = |n: u8| n.to_string();
            let any_call = calls.keys().nth(calls.len() / 2).copied().unwrap_or(last);
            let outputs = match act {
                Act::Resolve(bits) => {
                    let some = (0..8_u8).filter(|bit| bits & (1 << bit) != 0);
                    desk.tell(Input::Resolved(some.map(|n| SocketAddr::from(([10, 0, 0, n], 6001))).collect()))
                }
                Act::Connect => desk.tell(Input::Connected(any_call)),
                Act::Welcome(name) => {
                    let welcome = Welcome { activator: id(name), ..Welcome::default() };
                    desk.tell(Input::Said(any_call, ActivatorMessage::Welcome(welcome)))
                }
                Act::End(refused) => {
                    calls.remove(&any_call);
                    let end = if refused { CallEnd::Refused } else { CallEnd::Broken };
                    desk.tell(Input::Ended(any_call, end))
                }
                Act::Offer(stream, epoch) => {
                    let before = desk.register.streams();
                    let room = desk.register.room();
                    let outputs = desk.offer(any_call, &id(stream), epoch.into());
                    if desk.register.streams() > before {
                        prop_assert!(desk.register.streams() <= room);
                    }
                    outputs
                }
                Act::Sessions(ids, state) => {
                    let state = [SessionState::Unknown, SessionState::Starting, SessionState::Live, SessionState::Grace, SessionState::Ended][usize::from(state)];
                    let some = (0..6_u8).filter(|bit| ids & (1 << bit) != 0);
                    desk.sessions(some.map(|n| session(&id(n), state)))
                }
                Act::Taken(stream) => desk.tell(Input::Taken(id(stream))),
                Act::NotTaken(stream) => desk.tell(Input::NotTaken(any_call, id(stream), 1)),
                Act::Cordon(on, leaving) => desk.tell(Input::Said(any_call, cordon(on, leaving))),
                Act::Pass(millis) => {
                    let outputs = desk.pass(Duration::from_millis(millis.into()));
                    outputs.into_iter().map(|(_, output)| output).collect()
                }
            };
            for output in outputs {
                match output {
                    Output::Dial { attempt: link, address, .. } => {
                        prop_assert!(link > last);
                        last = link;
                        prop_assert!(calls.values().all(|(other, _)| *other != address), "two calls to {address}");
                        calls.insert(link, (address, false));
                    }
                    Output::Say(link, say) => {
                        let call = calls.get_mut(&link);
                        prop_assert!(call.is_some(), "spoken into an ended call: {say:?}");
                        let (_, greeted) = call.unwrap();
                        *greeted |= matches!(say, WorkerMessage::Hello(_));
                        prop_assert!(*greeted, "spoken before Hello: {say:?}");
                    }
                    Output::HangUp(link) => {
                        prop_assert!(calls.remove(&link).is_some());
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn activator_that_another_one_tells_of_is_joined_and_given_up_when_it_is_not_there() {
    let (mut desk, link) = Desk::joined(|_| {});
    let meet = |address: &str| ActivatorMessage::Meet(address.parse().unwrap());
    let second = dials(&desk.tell(Input::Said(link, meet(TWO))));
    assert_eq!((second.len(), desk.tell(Input::Said(link, meet(TWO)))), (1, vec![]), "once");
    assert_eq!(desk.resolve(&[ONE]), [], "its name does not lead there yet, and that does not end it");
    desk.welcome(second[0], "b");
    assert_eq!(desk.register.joined(), 2);
    desk.tell(Input::Ended(second[0], CallEnd::Broken));
    let mut attempts = 0;
    for _ in 0..60 {
        for again in dials(&desk.pass(Duration::from_secs(1)).into_iter().map(|(_, output)| output).collect::<Vec<_>>())
        {
            attempts += 1;
            desk.tell(Input::Ended(again, CallEnd::Broken));
        }
        desk.resolve(&[ONE]);
    }
    assert!((5..30).contains(&attempts), "{attempts}");
    assert_eq!(desk.register.discovery.unreachable(), 0, "the second one is forgotten");
}

#[test]
fn without_an_activator_the_introducer_is_asked_and_its_addresses_are_dialed() {
    let asked = |outputs: &[(Duration, Output)]| {
        let asks = outputs.iter().filter(|(_, output)| *output == Output::Ask);
        asks.map(|(when, _)| when.as_millis()).collect::<Vec<_>>()
    };
    let mut desk = Desk::new(|settings| settings.introducer = true);
    desk.outputs();
    // The name server remembers an address at which no activator is any more.
    desk.resolve(&[ONE]);
    assert_eq!(asked(&desk.pass(Duration::from_secs(1))), [50], "once, until there is an answer");
    assert_eq!(desk.tell(Input::Introduced(vec![])), []);
    assert_eq!(asked(&desk.pass(Duration::from_secs(1))), [250]);
    let link = dials(&desk.tell(Input::Introduced(vec![TWO.parse().unwrap()])))[0];
    desk.welcome(link, "b");
    desk.tell(Input::Introduced(vec![TWO.parse().unwrap()]));
    assert_eq!(asked(&desk.pass(Duration::from_secs(60))), [0; 0], "it tells us of others by itself");
    desk.resolve(&[ONE]);
    assert_eq!(desk.register.joined(), 1, "a name that does not know it does not end it");
    desk.tell(Input::Ended(link, CallEnd::Broken));
    assert_eq!(asked(&desk.pass(Duration::from_secs(1))), [0], "alone again");
}

#[test]
fn worker_that_finds_activators_by_name_asks_no_introducer() {
    let mut desk = Desk::new(|settings| settings.introducer = true);
    desk.outputs();
    let link = desk.resolve(&[ONE])[0];
    desk.welcome(link, "a");
    let outputs = desk.pass(Duration::from_secs(60));
    assert!(outputs.iter().all(|(_, output)| *output != Output::Ask), "{outputs:?}");
}

/// A step of the call to [`ONE`]; the call to [`TWO`] is the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    Connected,
    Welcome(&'static str),
    Ended,
    Late,
    OtherJoins,
    Leave,
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    use Step::*;
    let rows: &[(&[Step], &str)] = &[
        (&[], "none"),
        (&[Welcome("a")], "none"),
        (&[Connected], "Greeted"),
        (&[Connected, Connected], "Greeted"),
        (&[Connected, Late], "none"),
        (&[Connected, Ended], "none"),
        (&[Connected, Welcome("a")], "Joined"),
        (&[Connected, Welcome("a"), Welcome("b")], "Joined"),
        (&[Connected, Welcome("a"), Late], "Joined"),
        (&[Connected, Welcome("a"), Ended], "none"),
        (&[Connected, Welcome("a"), Leave], "none"),
        (&[OtherJoins, Connected, Welcome("a")], "none"),
        (&[OtherJoins, Connected, Welcome("b")], "Joined"),
        (&[OtherJoins, Connected, Welcome("")], "Joined"),
    ];
    for (steps, state) in rows {
        let mut desk = Desk::new(|_| {});
        let links = desk.resolve(&[ONE, TWO]);
        for step in *steps {
            match step {
                Connected => drop(desk.tell(Input::Connected(links[0]))),
                Welcome(activator) => {
                    let welcome = super::Welcome { activator: (*activator).into(), ..super::Welcome::default() };
                    desk.tell(Input::Said(links[0], ActivatorMessage::Welcome(welcome)));
                }
                Ended => drop(desk.tell(Input::Ended(links[0], CallEnd::Broken))),
                Late => drop(desk.pass(WELCOME_TIMEOUT)),
                OtherJoins => drop(desk.welcome(links[1], "a")),
                Leave => drop(desk.tell(Input::Leave)),
            }
        }
        let found = match desk.register.calls.get(&links[0]) {
            None => "none",
            Some(call) if call.welcome.is_none() => "Greeted",
            Some(_) => "Joined",
        };
        assert_eq!(found, *state, "{steps:?}");
    }
}

#[test]
fn metrics_are_told_to_the_activator_of_the_longest_call_a_second_after_something_happened() {
    let welcome = |desk: &mut Desk, link: AttemptId, activator: &str, totals: bool| {
        desk.tell(Input::Connected(link));
        let welcome = Welcome { activator: activator.into(), totals, ..Welcome::default() };
        told_totals(&desk.tell(Input::Said(link, ActivatorMessage::Welcome(welcome))))
    };
    let later = |outputs: Vec<(Duration, Output)>| {
        let told = |(at, output): (Duration, Output)| told_totals(&[output]).map(|told| (at, told));
        outputs.into_iter().filter_map(told).collect::<Vec<_>>()
    };
    let mut desk = Desk::new(|_| {});
    desk.outputs();
    let links = desk.resolve(&[ONE, TWO, "10.0.0.3:6001"]);
    let [old, one, two] = links[..] else { panic!("{links:?}") };
    assert_eq!(welcome(&mut desk, old, "old", false), None, "it takes none");
    assert_eq!(welcome(&mut desk, two, "two", true), Some((two, true)));
    assert_eq!(welcome(&mut desk, one, "one", true), None, "another one has them");
    assert_eq!(later(desk.pass(Duration::from_secs(60))), [(COUNTERS_INTERVAL, (two, false))]);
    desk.sessions([session("a", SessionState::Live)]);
    assert_eq!(later(desk.pass(COUNTERS_INTERVAL)), [(COUNTERS_INTERVAL, (two, false))]);

    let ended = desk.tell(Input::Ended(two, CallEnd::Broken));
    assert_eq!(told_totals(&ended), Some((one, true)), "the next activator knows none of them");
    let left = desk.tell(Input::Leave);
    let place = |wanted: fn(&Output) -> bool| left.iter().position(wanted).unwrap();
    let goodbye = place(|output| matches!(output, Output::Say(_, WorkerMessage::Goodbye)));
    assert!(place(|output| matches!(output, Output::TellTotals { anew: false, .. })) < goodbye);
}

fn told_totals(outputs: &[Output]) -> Option<(AttemptId, bool)> {
    outputs.iter().find_map(|output| match output {
        Output::TellTotals { attempt, anew } => Some((*attempt, *anew)),
        _ => None,
    })
}
