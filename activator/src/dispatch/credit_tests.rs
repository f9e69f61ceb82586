//! Workers that say what is not so.

use liveedgecast_common::control::{Availability, Load, WorkerMessage};
use liveedgecast_common::key::{AppName, StreamId};
use liveedgecast_common::testkit::origin;

use super::*;
use crate::config::Handoff;
use crate::destinations::StreamDestinations;
use crate::dispatch::elsewhere::{Elsewhere, PeerStream};
use crate::dispatch::{Back, Entry, Input, Key, Rules};

const HONEST: u8 = 1;
const ROGUE: u8 = 2;
/// The load of the worker that is filled first.
const BUSY: Load = Load { streams: 6, capacity: 9, availability: Availability::Open };

/// A dispatcher whose first minute is over, unless it is asked for one that has just started.
struct World {
    now: Instant,
    dispatcher: Dispatcher,
    calls: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self::just_started();
        world.now += TRUSTING;
        world
    }

    fn just_started() -> Self {
        let mut world = Self { now: origin(), dispatcher: Dispatcher::new(Rules::default()), calls: 0 };
        world.tell(Input::Changed);
        world
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.dispatcher.handle(self.now, input);
        std::iter::from_fn(|| self.dispatcher.poll_output()).collect()
    }

    /// A worker whose own key is this number.
    fn join(&mut self, name: &str, key: u8, sessions: Vec<Session>) -> (CallId, Vec<Output>) {
        self.calls += 1;
        let call = CallId(self.calls);
        let introduction = Introduction {
            name: name.to_owned(),
            capacity: 9,
            availability: Availability::Open,
            same_host: true,
            sessions,
            takes_lists: true,
            key: (key > 0).then_some(InstanceKey([key; 32])),
            age: None,
            excerpts: true,
        };
        let outputs = self.tell(Input::Joined(call, introduction));
        (call, outputs)
    }

    fn say(&mut self, call: CallId, session: Session) -> Vec<Output> {
        self.tell(Input::Said(call, WorkerMessage::Session(session)))
    }

    fn enter(&mut self, id: &str, identities: &[u8]) -> Key {
        let entry = Entry {
            stream_id: StreamId(id.to_owned()),
            identities: identities.iter().map(|number| Identity([*number; 16])).collect(),
            app: AppName::parse("live").unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: self.now + Duration::from_secs(120),
            hold: Duration::from_secs(120),
            handoff: Handoff::Auto,
            movable: true,
            destinations: StreamDestinations::default(),
        };
        self.dispatcher.enter(self.now, entry)
    }

    /// The worker that the publisher is offered to, and the number of the offer.
    fn offered(&mut self, place: Key) -> Option<(CallId, u64)> {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.dispatcher.poll_output()).collect();
        offer_of(&outputs, place)
    }

    /// A stream that the worker has, and has told of.
    fn live(&mut self, id: &str, identities: &[u8]) -> (Key, CallId, u64) {
        let place = self.enter(id, identities);
        let (call, epoch) = self.offered(place).expect("an offer");
        self.tell(Input::Taken(place, epoch));
        self.tell(Input::Started(place));
        self.say(call, session(id, identities, SessionState::Live, epoch));
        (place, call, epoch)
    }

    fn worker_of(&self, place: Key) -> Option<CallId> {
        self.dispatcher.places[&place].state.on().map(|(call, _)| call)
    }
}

fn offer_of(outputs: &[Output], place: Key) -> Option<(CallId, u64)> {
    outputs.iter().find_map(|output| match output {
        Output::Offer { key, call, epoch, .. } if *key == place => Some((*call, *epoch)),
        _ => None,
    })
}

fn session(id: &str, identities: &[u8], state: SessionState, epoch: u64) -> Session {
    let identities = identities.iter().map(|number| Identity([*number; 16])).collect();
    Session { stream_id: id.to_owned(), identities, state, epoch, app: "live".to_owned(), ..Session::default() }
}

fn disbelieved(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Disbelieved(..))).count()
}

#[test]
fn worker_gets_no_publisher_by_naming_an_identity_that_nobody_gave_it() {
    for (state, trusted) in [(SessionState::Live, false), (SessionState::Grace, false), (SessionState::Grace, true)] {
        let mut world = if trusted { World::just_started() } else { World::new() };
        let (honest, _) = world.join("honest", HONEST, vec![]);
        world.live("other", &[7]);
        world.tell(Input::Said(honest, WorkerMessage::Load(BUSY)));
        // In its Hello, and later.
        let (rogue, _) = world.join("rogue", ROGUE, vec![session("invented", &[1, 9], state, 5)]);
        world.say(rogue, session("another", &[2, 9], state, 5));
        for (id, identities) in [("a", &[1][..]), ("b", &[2]), ("c", &[3, 9])] {
            let place = world.enter(id, identities);
            let to = world.offered(place).map(|(call, _)| call);
            assert_eq!(to, Some(if trusted { rogue } else { honest }), "{id} {state:?} in our first minute: {trusted}");
        }
        assert_eq!(world.dispatcher.demand().live, 3, "it counts as load all the same");
    }
}

#[test]
fn stream_stays_where_it_is_whatever_another_worker_says_of_it() {
    let mut world = World::new();
    let (honest, _) = world.join("honest", HONEST, vec![]);
    let (place, on, epoch) = world.live("a", &[1]);
    assert_eq!(on, honest);
    let (rogue, _) = world.join("rogue", ROGUE, vec![]);
    for (state, told) in [
        (SessionState::Live, epoch),
        (SessionState::Live, epoch + 1),
        (SessionState::Grace, 1 << 60),
        (SessionState::Live, epoch - 1),
        (SessionState::Ended, epoch),
    ] {
        let report = session("a", &[1], state, told);
        assert_eq!(world.dispatcher.reporter(world.now, rogue, &report), None, "{state:?} {told}");
        let outputs = world.say(rogue, report);
        assert_eq!((disbelieved(&outputs), world.worker_of(place)), (1, Some(honest)), "{state:?} {told}");
    }
    assert_eq!(
        world.dispatcher.reporter(world.now, honest, &session("a", &[1], SessionState::Live, epoch)),
        Some("honest")
    );
    // Nor does the stream go to that worker when its own connection breaks.
    world.now += Duration::from_secs(5);
    let outputs = world.tell(Input::Back(place, epoch, Back::Broken));
    assert_eq!(offer_of(&outputs, place).map(|(call, _)| call), Some(honest));
}

#[test]
fn worker_claims_no_upstream_beside_those_of_its_streams() {
    let mut world = World::new();
    let (rogue, _) = world.join("rogue", ROGUE, vec![]);
    let (_, on, epoch) = world.live("a", &[1, 8]);
    assert_eq!(on, rogue);
    world.say(rogue, session("a", &[1, 8, 9], SessionState::Live, epoch));
    let (honest, _) = world.join("honest", HONEST, vec![]);
    world.tell(Input::Said(rogue, WorkerMessage::Goodbye));
    let place = world.enter("b", &[2, 9]);
    assert_eq!(world.offered(place).map(|(call, _)| call), Some(honest));
    let place = world.enter("c", &[3, 8]);
    assert_eq!(world.offered(place), None, "that one is its own");
}

#[test]
fn lost_publisher_comes_back_to_the_worker_that_had_its_stream() {
    let mut world = World::new();
    let (first, _) = world.join("first", HONEST, vec![]);
    let (place, _, epoch) = world.live("a", &[1]);
    let (second, _) = world.join("second", ROGUE, vec![]);
    world.tell(Input::Left(place));
    world.say(first, session("a", &[1], SessionState::Grace, epoch));
    world.say(second, session("mine", &[1], SessionState::Grace, epoch + 1));
    let place = world.enter("b", &[1]);
    assert_eq!(world.offered(place).map(|(call, _)| call), Some(first));
}

#[test]
fn worker_that_dials_in_again_is_known_by_its_key_and_not_by_its_name() {
    // The key that is shown, the time until then, whether the worker has its streams again.
    let table = [
        (HONEST, Duration::ZERO, true),
        (ROGUE, Duration::ZERO, false),
        (0, Duration::ZERO, false),
        (HONEST, DEPARTED, false),
    ];
    for (key, later, known) in table {
        let name = format!("key {key} after {later:?}");
        let mut world = World::new();
        let (call, _) = world.join("w", HONEST, vec![]);
        let (place, _, epoch) = world.live("a", &[1]);
        let (lost, _, before) = world.live("b", &[2]);
        world.tell(Input::Left(lost));
        world.say(call, session("b", &[2], SessionState::Grace, before));
        world.tell(Input::Lost(call));
        let (busier, _) = world.join("busier", 9, vec![]);
        world.tell(Input::Said(busier, WorkerMessage::Load(BUSY)));
        world.now += later;
        let sessions =
            vec![session("a", &[1], SessionState::Live, epoch), session("b", &[2], SessionState::Grace, before)];
        let (again, outputs) = world.join("w", key, sessions);
        assert_eq!(disbelieved(&outputs), usize::from(!known), "{name}");
        assert_eq!(world.worker_of(place), Some(if known { again } else { call }), "{name}");
        let place = world.enter("c", &[2]);
        let to = world.offered(place).map(|(call, _)| call);
        assert_eq!(to, Some(if known { again } else { busier }), "{name}");
    }
}

#[test]
fn worker_is_believed_what_another_activator_says_of_it_before_or_after() {
    let elsewhere = |worker: &str| Elsewhere {
        identities: vec![Identity([1; 16])],
        worker: worker.to_owned(),
        epoch: 41,
        stream: PeerStream { id: "there".to_owned(), ..PeerStream::default() },
        ..Elsewhere::default()
    };
    for (named, first, believed) in [("w", true, true), ("w", false, true), ("other", true, false)] {
        let mut world = World::new();
        let (busy, _) = world.join("busy", HONEST, vec![]);
        world.tell(Input::Said(busy, WorkerMessage::Load(BUSY)));
        let (call, _) = world.join("w", ROGUE, vec![]);
        let there = |world: &mut World, held| _ = world.tell(Input::Elsewhere("peer".to_owned(), 1, held));
        if first {
            there(&mut world, Some(elsewhere(named)));
        }
        world.say(call, session("there", &[1, 9], SessionState::Live, 41));
        if !first {
            there(&mut world, Some(elsewhere(named)));
        }
        // Its publisher is lost, and comes back through us.
        there(&mut world, None);
        world.say(call, session("there", &[1, 9], SessionState::Grace, 41));
        let place = world.enter("here", &[1]);
        let to = world.offered(place).map(|(to, _)| to == call);
        assert_eq!(to, Some(believed), "named: {named}, first: {first}");
        let place = world.enter("next", &[2, 9]);
        assert_ne!(world.offered(place).map(|(to, _)| to), Some(call), "nobody has named this upstream");
    }
}

#[test]
fn remembered_workers_have_a_bound() {
    let mut departed = DepartedWorkers::default();
    let now = origin();
    for number in 0..=MAX_DEPARTED as u64 {
        let until = now + DEPARTED + Duration::from_millis(number);
        let worker =
            DepartedWorker { key: InstanceKey([1; 32]), call: CallId(number), sessions: BTreeMap::new(), until };
        departed.keep(now, format!("w{number}"), worker);
    }
    let key = Some(InstanceKey([1; 32]));
    assert_eq!(departed.0.len(), MAX_DEPARTED);
    assert!(departed.take(now, "w0", key).is_none(), "it left first");
    assert!(departed.take(now, "w1", None).is_none());
    assert!(departed.take(now, "w1", Some(InstanceKey([2; 32]))).is_none());
    assert!(departed.take(now, "w1", key).is_some());
}
