//! The rules of the dispatcher and of `placing`, on virtual time.

use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::control::limits::MAX_EPOCH;
use liveedgecast_common::control::{Availability, InstanceKey, Load, StreamFigures};
use liveedgecast_common::key::{AppName, Secret, StreamId, StreamKey};
use liveedgecast_common::testkit::origin;
use liveedgecast_common::url::PushTemplate;

use super::*;
use crate::config::{Handoff, RouteDestination};
use crate::destinations::{Change, ChangeError, RouteOrigin, StreamDestinations, StreamNames};
use crate::dispatch::elsewhere::{Elsewhere, PeerStream, YIELD_AFTER};
use crate::dispatch::news::{FollowerView, PeerChange};
use crate::dispatch::pods::PodTimes;
use crate::dispatch::view::{Holder, StreamView, WallClock};
use crate::dispatch::workers::SUSPECT_AFTER;

const HOLD: Duration = Duration::from_secs(120);

struct World {
    now: Instant,
    lobby: Dispatcher,
    /// The ways of publishers that enter.
    handoff: Handoff,
    movable: bool,
    calls: u64,
}

/// An offer as the worker sees it.
#[derive(Clone, Debug, PartialEq)]
struct Offered {
    key: Key,
    call: CallId,
    epoch: u64,
}

impl World {
    fn new() -> Self {
        Self::with(Handoff::Auto)
    }

    fn with(handoff: Handoff) -> Self {
        Self { now: origin(), lobby: Dispatcher::new(Rules::default()), handoff, movable: true, calls: 0 }
    }

    /// A publisher of stream `id`, whose identities are these numbers.
    fn enter(&mut self, id: &str, identities: &[u8]) -> (Key, Vec<Output>) {
        let entry = Entry {
            stream_id: StreamId(id.to_owned()),
            identities: identities.iter().map(|number| Identity([*number; 16])).collect(),
            app: AppName::parse("live").unwrap(),
            publisher: Some(format!("studio-{id}")),
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: self.now + HOLD,
            hold: HOLD,
            handoff: self.handoff,
            movable: self.movable,
            destinations: StreamDestinations::default(),
        };
        let key = self.lobby.enter(self.now, entry);
        (key, self.outputs())
    }

    /// A worker on this host or another one.
    fn worker_on(&mut self, same_host: bool, capacity: u32) -> Vec<Output> {
        self.calls += 1;
        let introduction = Introduction {
            name: format!("w{}", self.calls),
            capacity,
            availability: Availability::Open,
            same_host,
            sessions: vec![],
            takes_lists: true,
            key: None,
            age: None,
            excerpts: true,
        };
        self.tell(Input::Joined(CallId(self.calls), introduction))
    }

    fn worker(&mut self, capacity: u32, sessions: Vec<Session>) -> (CallId, Vec<Output>) {
        let name = format!("w{}", self.calls + 1);
        self.worker_named(&name, capacity, sessions)
    }

    /// A worker whose process is so old.
    fn worker_aged(&mut self, capacity: u32, age: Option<Duration>) -> (CallId, Vec<Output>) {
        self.calls += 1;
        let call = CallId(self.calls);
        let introduction = Introduction {
            name: format!("w{}", self.calls),
            capacity,
            availability: Availability::Open,
            same_host: true,
            sessions: vec![],
            takes_lists: true,
            key: None,
            age,
            excerpts: true,
        };
        (call, self.tell(Input::Joined(call, introduction)))
    }

    /// A worker that has made a key of its name for itself.
    fn worker_named(&mut self, name: &str, capacity: u32, sessions: Vec<Session>) -> (CallId, Vec<Output>) {
        self.calls += 1;
        let call = CallId(self.calls);
        let mut key = [0; 32];
        key.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        let introduction = Introduction {
            name: name.to_owned(),
            capacity,
            availability: Availability::Open,
            same_host: true,
            sessions,
            takes_lists: true,
            key: Some(InstanceKey(key)),
            age: None,
            excerpts: true,
        };
        let outputs = self.tell(Input::Joined(call, introduction));
        (call, outputs)
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.lobby.handle(self.now, input);
        self.outputs()
    }

    fn say(&mut self, call: CallId, say: WorkerMessage) -> Vec<Output> {
        self.tell(Input::Said(call, say))
    }

    fn streams(&self) -> Vec<StreamView> {
        self.lobby.streams(WallClock { now: self.now, utc: UtcTime(1_000_000) }).collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.lobby.poll_output()).collect()
    }

    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        while let Some(at) = self.lobby.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.lobby.handle_timeout(self.now);
        }
        self.now = end;
        self.outputs()
    }

    /// Has a stream offered and taken; gives its claim.
    fn live(&mut self, id: &str, identities: &[u8]) -> Offered {
        let (_, outputs) = self.enter(id, identities);
        let offer = one_offer(&outputs);
        self.take(&offer);
        offer
    }

    fn take(&mut self, offer: &Offered) {
        self.tell(Input::Taken(offer.key, offer.epoch));
        self.tell(Input::Started(offer.key));
    }
}

fn offers(outputs: &[Output]) -> Vec<Offered> {
    let offer = |output: &Output| match output {
        Output::Offer { key, call, epoch, .. } => Some(Offered { key: *key, call: *call, epoch: *epoch }),
        _ => None,
    };
    outputs.iter().filter_map(offer).collect()
}

fn one_offer(outputs: &[Output]) -> Offered {
    let offers = offers(outputs);
    assert_eq!(offers.len(), 1, "{outputs:?}");
    offers[0].clone()
}

fn withdrawn(outputs: &[Output]) -> Vec<(Key, u64)> {
    let gone = |output: &Output| if let Output::Withdrawn(key, epoch) = output { Some((*key, *epoch)) } else { None };
    outputs.iter().filter_map(gone).collect()
}

fn refused(outputs: &[Output]) -> Vec<(Key, PlaceRefusal)> {
    let gone = |output: &Output| if let Output::Refused(key, reason) = output { Some((*key, *reason)) } else { None };
    outputs.iter().filter_map(gone).collect()
}

fn session(id: &str, identity: u8, state: SessionState, epoch: u64) -> Session {
    let identities = vec![Identity([identity; 16])];
    Session { stream_id: id.into(), identities, state, epoch, app: "live".into(), ..Session::default() }
}

fn declined(id: &str, epoch: u64, reason: DeclineReason) -> WorkerMessage {
    WorkerMessage::Declined(Declined { stream_id: id.into(), epoch, reason })
}

#[test]
fn the_earliest_publishers_are_offered_first_up_to_the_capacity() {
    let mut world = World::new();
    let keys: Vec<Key> = (0..5).map(|n| world.enter(&format!("s{n}"), &[n]).0).collect();
    let (call, outputs) = world.worker(3, vec![]);
    let offered: Vec<Key> = offers(&outputs).iter().map(|offer| offer.key).collect();
    assert_eq!(offered, keys[..3]);
    let epochs: Vec<u64> = offers(&outputs).iter().map(|offer| offer.epoch).collect();
    assert!(epochs.is_sorted_by(|a, b| a < b));
    assert_eq!(world.lobby.demand().waiting, 5);
    assert_eq!(world.lobby.shortage(world.now), 2);
    // Accepting frees nothing; the end of one does.
    assert!(world.tell(Input::Taken(keys[0], epochs[0])).iter().all(|output| !matches!(output, Output::Offer { .. })));
    world.say(call, WorkerMessage::Load(Load { streams: 3, capacity: 3, ..Load::default() }));
    world.tell(Input::Left(keys[0]));
    let outputs = world.say(call, WorkerMessage::Load(Load { streams: 2, capacity: 3, ..Load::default() }));
    assert_eq!(one_offer(&outputs).key, keys[3]);
}

#[test]
fn the_busiest_worker_is_filled_first() {
    let mut world = World::new();
    world.worker(2, vec![]);
    let (second, _) = world.worker(3, vec![session("a", 1, SessionState::Live, 1)]);
    assert_eq!(one_offer(&world.enter("b", &[2]).1).call, second);
    assert_eq!(one_offer(&world.enter("c", &[3]).1).call, second);
    assert_eq!(one_offer(&world.enter("d", &[4]).1).call, CallId(1));
}

#[test]
fn an_offer_that_is_not_fetched_is_withdrawn_and_made_to_another() {
    let mut world = World::new();
    let (first, _) = world.worker(2, vec![]);
    let offer = one_offer(&world.enter("a", &[1]).1);
    let (second, _) = world.worker(2, vec![]);
    let outputs = world.pass(OFFER_TIMEOUT);
    assert_eq!((offer.call, withdrawn(&outputs)), (first, vec![(offer.key, offer.epoch)]));
    let again = one_offer(&outputs);
    assert_eq!(again.call, second);
    assert!(again.epoch > offer.epoch);
    assert_eq!(world.tell(Input::Taken(offer.key, offer.epoch)), [], "too late");
    assert_eq!(one_offer(&world.enter("b", &[2]).1).call, second, "the first is avoided for a moment");
}

#[test]
fn a_declined_stream_keeps_its_place_and_is_not_offered_again_at_once() {
    let mut world = World::new();
    let (call, _) = world.worker(1, vec![]);
    let offer = one_offer(&world.enter("a", &[1]).1);
    let (later, _) = world.enter("b", &[2]);
    let outputs = world.say(call, declined("a", offer.epoch, DeclineReason::Other));
    assert_eq!(withdrawn(&outputs), [(offer.key, offer.epoch)]);
    let other = one_offer(&outputs);
    assert_eq!(other.key, later, "the worker has a place, and who was declined is not tried again at once");
    let outputs = world.say(call, declined("b", other.epoch, DeclineReason::Full));
    assert_eq!(offers(&outputs), [], "full is full for everybody");
    let outputs = world.pass(AVOID_WORKER);
    assert_eq!(one_offer(&outputs).key, offer.key, "in its place: before the later one");
    assert_eq!(world.say(call, declined("a", offer.epoch, DeclineReason::Other)), [], "an old answer");
}

#[test]
fn two_workers_that_decline_everything_are_no_hot_loop() {
    let mut world = World::new();
    world.worker(1, vec![]);
    world.worker(1, vec![]);
    let mut pending = vec![one_offer(&world.enter("a", &[1]).1)];
    let mut made = 0;
    for _ in 0..100 {
        while let Some(offer) = pending.pop() {
            made += 1;
            let outputs = world.say(offer.call, declined("a", offer.epoch, DeclineReason::Unreachable));
            pending.extend(offers(&outputs));
        }
        pending.extend(offers(&world.pass(Duration::from_millis(100))));
    }
    assert!((10..=22).contains(&made), "{made} offers in 10 s");
}

#[test]
fn a_lost_worker_gives_back_what_it_had_not_taken() {
    let mut world = World::new();
    let (call, _) = world.worker(2, vec![]);
    let live = world.live("a", &[1]);
    let offer = one_offer(&world.enter("b", &[2]).1);
    let outputs = world.tell(Input::Lost(call));
    assert_eq!(withdrawn(&outputs), [(offer.key, offer.epoch)]);
    assert_eq!(
        (world.lobby.demand().waiting, world.lobby.demand().live),
        (1, 1),
        "the live one is its publisher's task's"
    );
    world.enter("c", &[3]);
    assert_eq!(offers(&world.tell(Input::Back(live.key, live.epoch, Back::Died))), []);
    let (_, outputs) = world.worker(1, vec![]);
    assert_eq!(one_offer(&outputs).key, live.key, "who was live is the first");
}

#[test]
fn a_stream_that_moves_goes_to_another_worker_and_keeps_its_hold() {
    let mut world = World::new();
    let (first, _) = world.worker(5, vec![]);
    let live = world.live("a", &[1]);
    world.pass(HOLD * 2);
    let (second, _) = world.worker(5, vec![]);
    world.say(first, WorkerMessage::Session(session("a", 1, SessionState::Live, live.epoch)));
    let again = one_offer(&world.tell(Input::Back(live.key, live.epoch, Back::Moving)));
    assert_eq!(again.call, second, "the first goes down");
    world.say(second, declined("a", again.epoch, DeclineReason::Draining));
    assert_eq!(refused(&world.pass(HOLD - Duration::from_secs(1))), []);
    assert_eq!(refused(&world.pass(Duration::from_secs(1))), [(live.key, PlaceRefusal::HoldSpent)]);
}

#[test]
fn held_publisher_is_refused_with_the_reason_at_the_end_of_its_hold() {
    for (full, reason) in [(false, PlaceRefusal::HoldSpent), (true, PlaceRefusal::FleetFull)] {
        let mut world = World::new();
        let (key, _) = world.enter("a", &[1]);
        world.tell(Input::FleetFull(full));
        assert_eq!(world.pass(HOLD - Duration::from_millis(1)), []);
        assert_eq!(refused(&world.pass(Duration::from_millis(1))), [(key, reason)]);
        assert_eq!(world.lobby.poll_timeout(), None, "idle wakes for nothing");
        assert!(world.lobby.is_empty() && world.lobby.by_identity.is_empty() && world.lobby.by_id.is_empty());
    }
}

#[test]
fn the_earlier_of_two_publishers_wins_unless_it_is_silent() {
    let mut world = World::new();
    let (first, _) = world.enter("a", &[1, 9]);
    world.pass(SILENT_AFTER - Duration::from_millis(1));
    let (second, outputs) = world.enter("b", &[2, 9]);
    assert_eq!(refused(&outputs), [(second, PlaceRefusal::Duplicate)]);
    world.pass(Duration::from_millis(1));
    world.tell(Input::Heard(first));
    let (third, outputs) = world.enter("c", &[1]);
    assert_eq!(refused(&outputs), [(third, PlaceRefusal::Duplicate)]);
    world.pass(SILENT_AFTER);
    let (fourth, outputs) = world.enter("d", &[1]);
    assert_eq!(refused(&outputs), [(first, PlaceRefusal::Duplicate)]);
    assert_eq!(one_offer(&world.worker(2, vec![]).1).key, fourth);
}

#[test]
fn a_second_publisher_goes_to_the_worker_that_has_the_stream() {
    for state in [SessionState::Starting, SessionState::Live, SessionState::Grace] {
        let mut world = World::new();
        let (full, _) = world.worker(1, vec![session("old", 1, state, 7)]);
        world.worker(5, vec![]);
        let offer = one_offer(&world.enter("new", &[1]).1);
        assert_eq!(offer.call, full, "whatever its load");
        assert_eq!(offer.epoch, 8, "more than any that was told");
        // The publisher was a duplicate: its task drops the place.
        world.tell(Input::Left(offer.key));
        assert!(world.lobby.is_empty());
    }
}

/// A session in grace with these identities, its own first.
fn in_grace(id: &str, identities: &[u8]) -> Session {
    let identities = identities.iter().map(|number| Identity([*number; 16])).collect();
    Session { identities, ..session(id, 0, SessionState::Grace, 1) }
}

#[test]
fn a_publisher_that_wants_an_upstream_goes_to_the_worker_that_has_it() {
    let mut world = World::new();
    world.worker(5, vec![session("other", 3, SessionState::Live, 1)]);
    let (holder, _) = world.worker(5, vec![in_grace("old", &[1, 9])]);
    let known = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Offer { known: true, .. }));
    let (_, outputs) = world.enter("new", &[2, 9]);
    assert_eq!(one_offer(&outputs).call, holder);
    assert!(known(&outputs), "it decides even if it is full");
    let (_, outputs) = world.enter("another", &[4]);
    assert!(offers(&outputs).len() == 1 && !known(&outputs));
}

#[test]
fn a_publisher_goes_to_the_worker_of_its_stream_before_that_of_its_upstreams() {
    let mut world = World::new();
    world.worker(5, vec![in_grace("other", &[2, 9])]);
    let (own, _) = world.worker(5, vec![in_grace("old", &[1])]);
    assert_eq!(one_offer(&world.enter("new", &[1, 9]).1).call, own);
}

#[test]
fn a_publisher_that_wants_upstreams_of_two_workers_waits_until_one_is_free() {
    let mut world = World::new();
    let (first, _) = world.worker(5, vec![in_grace("a", &[1, 8])]);
    let (second, _) = world.worker(5, vec![in_grace("b", &[2, 9])]);
    let (key, outputs) = world.enter("new", &[3, 8, 9]);
    assert_eq!(outputs, []);
    assert_eq!(world.lobby.shortage(world.now), 0, "no new worker would help");
    let ended = Session { state: SessionState::Ended, ..in_grace("a", &[1, 8]) };
    let offer = one_offer(&world.say(first, WorkerMessage::Session(ended)));
    assert_eq!((offer.key, offer.call), (key, second));
}

#[test]
fn an_upstream_that_a_stream_has_lost_binds_no_publisher_to_its_worker() {
    let mut world = World::new();
    let (first, _) = world.worker(1, vec![]);
    let live = world.live("a", &[1, 9]);
    world.say(first, WorkerMessage::Session(session("a", 1, SessionState::Live, live.epoch)));
    let (second, _) = world.worker(1, vec![]);
    assert_eq!(one_offer(&world.enter("b", &[2, 9]).1).call, second);
}

#[test]
fn a_stream_that_lost_its_worker_does_not_give_way_to_another_one_that_wants_its_upstream() {
    let mut world = World::new();
    let (first, _) = world.worker(1, vec![]);
    let live = world.live("a", &[1, 9]);
    world.tell(Input::Lost(first));
    world.tell(Input::Back(live.key, live.epoch, Back::Died));
    world.pass(SILENT_AFTER);
    let (other, outputs) = world.enter("b", &[2, 9]);
    assert_eq!(refused(&outputs), [(other, PlaceRefusal::Duplicate)]);
}

/// A live session with these identities, its own first.
fn live_with(offer: &Offered, id: &str, identities: &[u8]) -> WorkerMessage {
    let identities = identities.iter().map(|number| Identity([*number; 16])).collect();
    WorkerMessage::Session(Session { identities, ..session(id, 0, SessionState::Live, offer.epoch) })
}

/// Two live streams on one worker, the second of which has taken over the upstream 9 from the first.
fn live_after_a_takeover(mut world: World) -> (World, [Offered; 2]) {
    let (call, _) = world.worker(9, vec![]);
    let first = world.live("a", &[1, 9]);
    world.say(call, live_with(&first, "a", &[1, 9]));
    let second = one_offer(&world.enter("b", &[2, 9]).1);
    world.say(call, live_with(&first, "a", &[1]));
    world.take(&second);
    world.say(call, live_with(&second, "b", &[2, 9]));
    (world, [first, second])
}

#[test]
fn neither_of_two_live_streams_goes_for_an_upstream_that_one_took_over_from_the_other() {
    for why in [Back::Broken, Back::Died] {
        let (mut world, streams) = live_after_a_takeover(World::new());
        world.pass(AVOID_FOR_STREAM);
        let mut outputs = Vec::new();
        if why == Back::Died {
            outputs.extend(world.tell(Input::Lost(streams[0].call)));
        }
        for stream in &streams {
            outputs.extend(world.tell(Input::Back(stream.key, stream.epoch, why)));
        }
        outputs.extend(world.worker(9, vec![]).1);
        assert_eq!(refused(&outputs), [], "{why:?}");
        let offered: Vec<Key> = offers(&outputs).iter().map(|offer| offer.key).collect();
        assert_eq!(offered, streams.map(|stream| stream.key), "{why:?}");
        // The first stream does not claim the upstream any more, wherever it is now.
        let identities =
            |key| world.lobby.placed(key).unwrap().identities.iter().map(|it| it.0[0]).collect::<Vec<u8>>();
        assert_eq!((identities(offered[0]), identities(offered[1])), (vec![1], vec![2, 9]), "{why:?}");
    }
}

#[test]
fn a_session_under_an_older_epoch_takes_no_upstream_from_a_stream() {
    let mut world = World::new();
    let (first, _) = world.worker(1, vec![]);
    let live = world.live("a", &[1, 9]);
    world.pass(AVOID_FOR_STREAM);
    world.tell(Input::Back(live.key, live.epoch, Back::Died));
    let offer = one_offer(&world.worker(1, vec![]).1);
    world.take(&offer);
    world.say(first, live_with(&live, "a", &[1]));
    assert_eq!(world.lobby.placed(live.key).map(|stream| stream.identities.len()), Some(2));
}

fn fences(outputs: &[Output]) -> Vec<(CallId, u64)> {
    let fence = |output: &Output| if let Output::Fence(call, _, epoch) = output { Some((*call, *epoch)) } else { None };
    outputs.iter().filter_map(fence).collect()
}

/// A stream that is live on the first of two workers, the second of which has more to do.
fn live_on_one_of_two() -> (World, Offered, CallId) {
    let mut world = World::new();
    let (first, _) = world.worker(9, vec![]);
    let live = world.live("a", &[1]);
    world.say(first, WorkerMessage::Session(session("a", 1, SessionState::Live, live.epoch)));
    let (second, _) = world.worker(9, vec![in_grace("b", &[2]), in_grace("c", &[3])]);
    world.pass(AVOID_FOR_STREAM);
    (world, live, second)
}

#[test]
fn a_stream_whose_connection_to_its_worker_broke_goes_back_to_it() {
    let (mut world, live, _) = live_on_one_of_two();
    let outputs = world.tell(Input::Back(live.key, live.epoch, Back::Broken));
    let again = one_offer(&outputs);
    assert_eq!((again.call, fences(&outputs)), (live.call, vec![]));
    assert!(again.epoch > live.epoch);
    world.take(&again);
    world.pass(AVOID_FOR_STREAM);
    // Cordoned, it keeps what it has.
    let load = Load { streams: 1, capacity: 9, availability: Availability::Cordoned };
    world.say(live.call, WorkerMessage::Load(load));
    let outputs = world.tell(Input::Back(live.key, again.epoch, Back::Broken));
    assert_eq!(one_offer(&outputs).call, live.call);
}

#[test]
fn a_connection_that_breaks_at_once_every_time_is_no_hot_loop() {
    let (mut world, live, second) = live_on_one_of_two();
    let again = one_offer(&world.tell(Input::Back(live.key, live.epoch, Back::Broken)));
    world.take(&again);
    let outputs = world.tell(Input::Back(live.key, again.epoch, Back::Broken));
    assert_eq!(one_offer(&outputs).call, second);
}

#[test]
fn a_stream_that_has_to_move_is_ended_first_where_it_was() {
    for why in [Back::Died, Back::Broken] {
        let (mut world, live, second) = live_on_one_of_two();
        let mut outputs = world.tell(Input::Back(live.key, live.epoch, why));
        if why == Back::Broken {
            let again = one_offer(&outputs);
            outputs = world.say(live.call, declined("a", again.epoch, DeclineReason::Other));
        }
        let moved = one_offer(&outputs);
        assert_eq!((moved.call, fences(&outputs)), (second, vec![(live.call, moved.epoch)]), "{why:?}");
        let fence = outputs.iter().position(|output| matches!(output, Output::Fence(..)));
        let offer = outputs.iter().position(|output| matches!(output, Output::Offer { .. }));
        assert!(fence < offer, "the old one is told first: {outputs:?}");
    }
}

#[test]
fn a_stream_does_not_wait_for_a_worker_that_is_silent_or_goes_down() {
    for drains in [false, true] {
        let (mut world, live, second) = live_on_one_of_two();
        if drains {
            world.say(live.call, WorkerMessage::Goodbye);
        } else {
            world.pass(SUSPECT_AFTER - AVOID_FOR_STREAM - Duration::from_millis(1));
            world.say(second, WorkerMessage::Load(Load { streams: 2, capacity: 9, ..Load::default() }));
            world.pass(Duration::from_millis(1));
        }
        let outputs = world.tell(Input::Back(live.key, live.epoch, Back::Broken));
        assert_eq!(one_offer(&outputs).call, second, "drains: {drains}");
        assert_eq!(fences(&outputs).len(), 1, "drains: {drains}");
    }
}

#[test]
fn a_worker_that_joins_again_is_told_to_end_what_another_one_has() {
    let (mut world, live, second) = live_on_one_of_two();
    world.tell(Input::Lost(live.call));
    let moved = one_offer(&world.tell(Input::Back(live.key, live.epoch, Back::Broken)));
    assert_eq!(moved.call, second);
    world.take(&moved);
    let (again, outputs) = world.worker(9, vec![session("a", 1, SessionState::Grace, live.epoch)]);
    assert_eq!(fences(&outputs), [(again, moved.epoch)]);
}

#[test]
fn a_session_that_is_reported_later_binds_waiting_publishers() {
    let mut world = World::new();
    let (full, _) = world.worker(1, vec![session("other", 5, SessionState::Live, 1)]);
    let (_, outputs) = world.enter("new", &[1]);
    assert_eq!(outputs, []);
    assert_eq!(world.lobby.shortage(world.now), 1);
    let outputs = world.say(full, WorkerMessage::Session(session("old", 1, SessionState::Grace, 2)));
    assert_eq!(one_offer(&outputs).call, full);
    assert_eq!(world.lobby.shortage(world.now), 0, "no new worker is needed for it");
}

#[test]
fn a_second_publisher_of_a_live_stream_waits_while_that_moves() {
    let mut world = World::new();
    let (first, _) = world.worker(5, vec![]);
    let live = world.live("a", &[1]);
    world.say(first, WorkerMessage::Goodbye);
    let (_, outputs) = world.worker(5, vec![]);
    assert_eq!(outputs, []);
    let (twin, outputs) = world.enter("b", &[1]);
    assert_eq!(outputs, []);
    let outputs = world.tell(Input::Back(live.key, live.epoch, Back::Moving));
    assert_eq!(refused(&outputs), [(twin, PlaceRefusal::Duplicate)]);
    assert_eq!(one_offer(&outputs).key, live.key);
}

#[test]
fn session_in_grace_on_a_draining_worker_binds_no_publisher() {
    let mut world = World::new();
    let (first, _) = world.worker(5, vec![session("old", 1, SessionState::Grace, 1)]);
    world.say(first, WorkerMessage::Goodbye);
    let (second, _) = world.worker(5, vec![]);
    assert_eq!(one_offer(&world.enter("new", &[1]).1).call, second);
}

#[test]
fn a_publisher_that_leaves_while_offered_frees_the_place() {
    let mut world = World::new();
    let (call, _) = world.worker(1, vec![]);
    let offer = one_offer(&world.enter("a", &[1]).1);
    let (next, _) = world.enter("b", &[2]);
    let outputs = world.tell(Input::Left(offer.key));
    assert_eq!(one_offer(&outputs).key, next);
    assert_eq!(world.say(call, declined("a", offer.epoch, DeclineReason::Unreachable)), [], "nobody asks any more");
}

#[test]
fn a_worker_that_joins_again_has_its_streams() {
    let mut world = World::new();
    let (call, _) = world.worker(1, vec![]);
    let live = world.live("a", &[1]);
    world.tell(Input::Lost(call));
    let (again, _) = world.worker_named("w1", 1, vec![session("a", 1, SessionState::Live, live.epoch)]);
    assert_eq!(world.streams()[0].worker.as_deref(), Some("w1"));
    assert_eq!(world.lobby.demand().live, 1);
    let (_, outputs) = world.enter("b", &[2]);
    assert_eq!(offers(&outputs), [], "it is full");
    assert_eq!(one_offer(&world.enter("c", &[1]).1).call, again);
}

#[test]
fn a_drain_refuses_held_publishers_and_keeps_live_ones() {
    let mut world = World::new();
    let (first, _) = world.worker(1, vec![]);
    let live = world.live("a", &[1]);
    let (waiting, _) = world.enter("b", &[2]);
    assert_eq!(refused(&world.tell(Input::Drain)), [(waiting, PlaceRefusal::Draining)]);
    let (late, outputs) = world.enter("c", &[3]);
    assert_eq!(refused(&outputs), [(late, PlaceRefusal::Draining)]);
    world.tell(Input::Lost(first));
    world.tell(Input::Back(live.key, live.epoch, Back::Died));
    let again = one_offer(&world.worker(1, vec![]).1);
    assert_eq!(again.key, live.key, "it goes on elsewhere");
    world.take(&again);
    let outputs = world.tell(Input::Close);
    assert!(matches!(&outputs[..], [Output::Kicked(key, _)] if *key == live.key), "{outputs:?}");
    let outputs = world.tell(Input::Back(live.key, again.epoch, Back::Moving));
    assert_eq!(refused(&outputs), [(live.key, PlaceRefusal::Draining)]);
}

#[test]
fn stream_that_moves_between_two_workers_is_shown_once_at_the_newer_one() {
    let mut world = World::new();
    world.worker(5, vec![session("far", 9, SessionState::Live, 2)]);
    world.worker(5, vec![session("far", 9, SessionState::Live, 3)]);
    world.worker(5, vec![session("far", 9, SessionState::Live, 1)]);
    let shown: Vec<_> = world.streams().into_iter().map(|stream| (stream.id, stream.worker)).collect();
    assert_eq!(shown, [("far".to_owned(), Some("w2".to_owned()))]);
}

#[test]
fn a_kick_finds_the_publisher_or_the_worker() {
    let mut world = World::new();
    let (call, _) = world.worker(5, vec![session("far", 9, SessionState::Live, 1)]);
    let live = world.live("near", &[1]);
    assert!(world.lobby.kick("near", "why") && world.lobby.kick("far", "why") && !world.lobby.kick("none", "why"));
    assert_eq!(
        world.outputs(),
        [Output::Kicked(live.key, "why".into()), Output::KickOnWorker(call, "far".into(), "why".into())]
    );
}

#[test]
fn each_stream_goes_only_where_and_how_it_can() {
    // Handoff, movable, same host: by descriptor or by link, `None` if it waits.
    for (handoff, movable, same_host, descriptor) in [
        (Handoff::Auto, true, true, Some(true)),
        (Handoff::Auto, true, false, Some(false)),
        (Handoff::Auto, false, true, Some(false)),
        (Handoff::Link, true, true, Some(false)),
        (Handoff::Link, false, false, Some(false)),
        (Handoff::Descriptor, true, true, Some(true)),
        (Handoff::Descriptor, true, false, None),
    ] {
        let mut world = World { movable, ..World::with(handoff) };
        world.enter("a", &[1]);
        let outputs = world.worker_on(same_host, 1);
        let told = outputs.iter().find_map(|output| match output {
            Output::Offer { descriptor, .. } => Some(*descriptor),
            _ => None,
        });
        assert_eq!(told, descriptor, "{handoff:?}, movable: {movable}, same host: {same_host}");
        let unplaced = usize::from(descriptor.is_none());
        assert_eq!(world.lobby.shortage(world.now), unplaced, "{handoff:?}, same host: {same_host}");
        let need = crate::dispatch::Need::of([&world.lobby.tally(world.now)], [], None);
        assert_eq!(need.unplaced, unplaced, "{handoff:?}, same host: {same_host}");
    }
}

#[test]
fn stream_that_no_worker_could_take_is_refused_at_once() {
    let mut world = World { movable: false, ..World::with(Handoff::Descriptor) };
    let (key, outputs) = world.enter("a", &[1]);
    assert_eq!(refused(&outputs), [(key, PlaceRefusal::Unmovable)]);
    assert_eq!((world.lobby.shortage(world.now), world.lobby.demand().demand), (0, 0));
}

#[test]
fn streams_with_different_ways_wait_for_different_workers() {
    let mut world = World::with(Handoff::Descriptor);
    let (here, _) = world.enter("here", &[1]);
    world.handoff = Handoff::Auto;
    let (anywhere, _) = world.enter("anywhere", &[2]);
    assert_eq!(world.lobby.shortage(world.now), 2);
    let placed = |outputs: &[Output]| offers(outputs).iter().map(|offer| offer.key).collect::<Vec<_>>();
    assert_eq!(placed(&world.worker_on(false, 5)), [anywhere], "past the one that waits for this host");
    assert_eq!(world.lobby.shortage(world.now), 1);
    assert_eq!(placed(&world.worker_on(true, 5)), [here]);
    assert_eq!(world.lobby.shortage(world.now), 0);
}

#[test]
fn stream_that_lost_its_worker_is_held_for_its_own_time() {
    let mut world = World::new();
    let (call, _) = world.worker(1, vec![]);
    let live = world.live("x", &[1]);
    world.pass(HOLD);
    world.tell(Input::Lost(call));
    world.lobby.handle(world.now, Input::Back(live.key, live.epoch, Back::Died));
    assert_eq!(world.lobby.places[&live.key].entry.deadline, world.now + HOLD);
}

#[test]
fn a_start_is_reported_once_with_its_times() {
    let mut world = World::new();
    let (key, _) = world.enter("a", &[1]);
    let entered = world.now;
    world.pass(Duration::from_millis(30));
    let offer = one_offer(&world.worker(1, vec![]).1);
    let joined = world.now;
    world.pass(Duration::from_millis(5));
    world.tell(Input::Taken(key, offer.epoch));
    let taken = world.now;
    world.pass(Duration::from_millis(9));
    let outputs = world.tell(Input::Started(key));
    let worker = "w1".to_owned();
    let started = Started {
        stream_id: "a".into(),
        worker,
        connected: None,
        entered,
        pushed: None,
        joined,
        began: None,
        taken,
        started: world.now,
        process: None,
        pod: PodTimes::default(),
        returns_to: None,
    };
    assert_eq!(outputs, [Output::Started(Box::new(started))]);
    let again = one_offer(&{
        world.worker(1, vec![]);
        world.tell(Input::Back(key, offer.epoch, Back::Died))
    });
    world.tell(Input::Taken(key, again.epoch));
    assert_eq!(world.tell(Input::Started(key)), [], "a second worker is no start");
}

/// The phases in milliseconds of every cold start among these outputs.
fn cold_starts(outputs: Vec<Output>) -> Vec<Vec<(&'static str, u128)>> {
    let phases = |output| match output {
        Output::ColdStart(cold) => {
            Some(cold.phases.iter().map(|(phase, time)| (phase.as_str(), time.as_millis())).collect())
        }
        _ => None,
    };
    outputs.into_iter().filter_map(phases).collect()
}

#[test]
fn cold_start_is_told_with_its_first_media_or_at_the_end_of_the_stream() {
    for media_come in [true, false] {
        let mut world = World::new();
        let (key, _) = world.enter("a", &[1]);
        let (other_app, _) = world.enter("b", &[2]);
        world.pass(Duration::from_millis(3));
        world.tell(Input::Pushed(None));
        world.pass(Duration::from_millis(20));
        world.tell(Input::Pushed(Some("live".into())));
        world.pass(Duration::from_millis(7));
        let age = Some(Duration::from_millis(6));
        let (call, outputs) = world.worker_aged(1, age);
        let offer = one_offer(&outputs);
        assert_eq!(offer.key, key);
        world.pass(Duration::from_millis(5));
        world.tell(Input::Taken(key, offer.epoch));
        world.pass(Duration::from_millis(9));
        let outputs = world.tell(Input::Started(key));
        let started = outputs.iter().find_map(|output| match output {
            Output::Started(started) => Some(started.as_ref().clone()),
            _ => None,
        });
        world.lobby.await_media(&started.expect("a start"));
        let said = |first_media, epoch| {
            let figures = StreamFigures { first_media, ..StreamFigures::default() };
            WorkerMessage::Session(Session { figures, ..session("a", 1, SessionState::Live, epoch) })
        };
        assert_eq!(cold_starts(world.say(call, said(0, offer.epoch))), [[]; 0], "no media yet");
        let mut phases =
            vec![("pushed", 3), ("process_started", 21), ("registered", 6), ("handed_over", 5), ("live", 9)];
        if media_come {
            phases.push(("media", 3));
            assert_eq!(cold_starts(world.say(call, said(12_000, offer.epoch))), [phases]);
            assert_eq!(cold_starts(world.say(call, said(12_000, offer.epoch))), [[]; 0], "once");
            assert_eq!(cold_starts(world.tell(Input::Left(key))), [[]; 0], "once");
        } else {
            assert_eq!(cold_starts(world.tell(Input::Left(key))), [phases]);
        }
        assert_eq!(cold_starts(world.tell(Input::Left(other_app))), [[]; 0], "it never started");
    }
}

#[test]
fn a_takeover_is_told_once_with_both_workers() {
    let takeovers = |outputs: Vec<Output>| {
        let takeover = |output| match output {
            Output::TakenOver { stream_id, from, to, .. } => Some([stream_id, from, to]),
            _ => None,
        };
        outputs.into_iter().filter_map(takeover).collect::<Vec<_>>()
    };
    let mut world = World::new();
    let (first, _) = world.worker(1, vec![]);
    let offer = one_offer(&world.enter("a", &[1]).1);
    assert!(
        takeovers(world.tell(Input::Taken(offer.key, offer.epoch))).is_empty(),
        "the first worker takes nothing over"
    );
    world.tell(Input::Started(offer.key));
    world.worker(1, vec![]);
    world.tell(Input::Lost(first));
    let again = one_offer(&world.tell(Input::Back(offer.key, offer.epoch, Back::Died)));
    let taken = || Input::Taken(offer.key, again.epoch);
    assert_eq!(takeovers(world.tell(taken())), [["a", "w1", "w2"].map(str::to_owned)]);
    assert!(takeovers(world.tell(taken())).is_empty(), "told already");
}

#[test]
fn views_show_streams_of_other_activators_and_who_holds_them() {
    let mut world = World::new();
    world.worker(9, vec![session("served", 9, SessionState::Live, 1), session("alone", 8, SessionState::Grace, 1)]);
    world.enter("ours", &[1]);
    world.pass(Duration::from_secs(3));
    let client = "10.0.0.9:9".parse().ok();
    let elsewhere = |id: &str, number, waiting, worker: &str| {
        let stream = PeerStream { id: id.into(), publisher: format!("studio-{id}"), client };
        let (app, worker, identities) = ("live".into(), worker.into(), vec![Identity([number; 16])]);
        Elsewhere { identities, app, entered: 500_000_000, waiting, worker, stream, ..Elsewhere::default() }
    };
    world.tell(Input::Elsewhere("peer".into(), 1, Some(elsewhere("served", 9, false, "w1"))));
    world.tell(Input::Elsewhere("peer".into(), 2, Some(elsewhere("held", 7, true, ""))));
    world.tell(Input::Elsewhere("old".into(), 1, Some(Elsewhere::default())));
    let shown: Vec<_> =
        world.streams().into_iter().map(|it| (it.id, it.state, it.publisher, it.peer, it.since)).collect();
    let (studio, at) = (|id: &str| Some(format!("studio-{id}")), |millis| Some(UtcTime(millis)));
    assert_eq!(
        shown,
        [
            ("ours".into(), "waiting", studio("ours"), "10.0.0.1:1".parse().ok(), at(997_000)),
            ("alone".into(), "grace", None, None, None),
            ("served".into(), "live", studio("served"), client, at(500_000)),
            ("held".into(), "waiting", studio("held"), client, at(500_000)),
        ]
    );
    let holder = |world: &World, id: &str| world.lobby.holder(id);
    assert_eq!(holder(&world, "ours"), Some(Holder::Here));
    assert_eq!(holder(&world, "served"), Some(Holder::Peer("peer".into())));
    assert_eq!(holder(&world, "alone"), Some(Holder::Worker("w1".into())));
    assert_eq!(holder(&world, "none"), None);
    world.tell(Input::ForgetPeer("peer".into()));
    assert_eq!((holder(&world, "served"), holder(&world, "held")), (Some(Holder::Worker("w1".into())), None));
    assert_eq!(world.streams().len(), 3);
}

#[test]
fn views_show_states_in_the_words_of_the_interface() {
    let mut world = World::new();
    let (call, _) = world.worker(9, vec![session("far", 9, SessionState::Grace, 1)]);
    let live = world.live("a", &[1]);
    world.say(call, WorkerMessage::Session(session("a", 1, SessionState::Starting, live.epoch)));
    world.enter("b", &[2]);
    world.say(call, WorkerMessage::Goodbye);
    world.enter("c", &[3]);
    let states: Vec<(String, &str, Option<String>)> =
        world.streams().into_iter().map(|stream| (stream.id, stream.state, stream.worker)).collect();
    let w1 = || Some("w1".to_owned());
    assert_eq!(
        states,
        [
            ("a".into(), "starting", w1()),
            ("b".into(), "waiting", w1()),
            ("c".into(), "waiting", None),
            ("far".into(), "grace", w1())
        ]
    );
    let workers = serde_json::to_string(&world.lobby.workers()).unwrap();
    assert_eq!(workers, r#"[{"name":"w1","state":"draining","streams":3,"capacity":9}]"#);
    let demand = serde_json::to_string(&world.lobby.demand()).unwrap();
    assert_eq!(demand, r#"{"waiting":2,"live":2,"demand":4}"#);
}

#[test]
fn ten_thousand_waiting_publishers_are_placed_in_time() {
    let mut world = World::new();
    for n in 0..10_000_u32 {
        let entry = Entry {
            stream_id: StreamId(format!("s{n}")),
            identities: vec![Identity(u128::from(n).to_be_bytes())],
            app: AppName::parse("live").unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: world.now + HOLD,
            hold: HOLD,
            handoff: Handoff::Auto,
            movable: true,
            destinations: StreamDestinations::default(),
        };
        world.lobby.enter(world.now, entry);
    }
    let (_, mut outputs) = world.worker(10_000, vec![]);
    let mut placed = 0;
    while !offers(&outputs).is_empty() {
        let mut next = Vec::new();
        for offer in offers(&outputs) {
            placed += 1;
            next.extend(world.tell(Input::Taken(offer.key, offer.epoch)));
        }
        outputs = next;
    }
    assert_eq!(placed, 10_000);
    assert_eq!(world.lobby.demand().live, 10_000);
}

/// The lobby of `me`, whose clock began at 1,000,000 µs.
fn one_of_two() -> World {
    let mut world = World::new();
    let origin = (world.now, 1_000_000);
    world.tell(Input::Ourselves(Ourselves { name: "me".into(), origin }));
    world
}

/// A publisher at `peer` with this identity, since this time.
fn other(identity: u8, entered: u64, worker: &str) -> Option<Elsewhere> {
    let identities = vec![Identity([identity; 16])];
    let waiting = worker.is_empty();
    Some(Elsewhere { identities, entered, waiting, worker: worker.into(), epoch: 41, ..Elsewhere::default() })
}

#[test]
fn the_earlier_of_two_publishers_at_two_activators_stays() {
    for (peer, entered, stays) in
        [("peer", 999_999, false), ("peer", 1_000_001, true), ("aa", 1_000_000, false), ("zz", 1_000_000, true)]
    {
        for comes_first in [true, false] {
            let mut world = one_of_two();
            if comes_first {
                world.tell(Input::Elsewhere(peer.into(), 1, other(1, entered, "")));
            }
            let (key, mut outputs) = world.enter("x", &[1]);
            if !comes_first {
                outputs.extend(world.tell(Input::Elsewhere(peer.into(), 1, other(1, entered, ""))));
            }
            let (_, offered) = world.worker(1, vec![]);
            assert_eq!(offers(&offered).len(), usize::from(stays), "{peer} {entered} {comes_first}");
            outputs.extend(world.pass(YIELD_AFTER));
            let refused = outputs.contains(&Output::Refused(key, PlaceRefusal::Duplicate));
            assert_eq!(refused, !stays, "{peer} {entered} {comes_first}: {outputs:?}");
        }
    }
}

#[test]
fn a_silent_publisher_gives_way_to_the_later_one_elsewhere() {
    let mut world = one_of_two();
    let (key, _) = world.enter("x", &[1]);
    world.pass(SILENT_AFTER);
    let outputs = world.tell(Input::Elsewhere("peer".into(), 1, other(1, 9_000_000, "")));
    assert_eq!(outputs, [Output::Refused(key, PlaceRefusal::Duplicate)]);
}

#[test]
fn the_later_publisher_stays_when_the_earlier_one_leaves_in_time() {
    for vanishes in [true, false] {
        let mut world = one_of_two();
        world.tell(Input::Elsewhere("peer".into(), 1, other(1, 5, "")));
        world.enter("x", &[1]);
        world.worker(1, vec![]);
        let gone = if vanishes { Input::ForgetPeer("peer".into()) } else { Input::Elsewhere("peer".into(), 1, None) };
        assert_eq!(offers(&world.tell(gone)).len(), 1, "it is offered at once");
    }
}

#[test]
fn a_publisher_whose_twin_elsewhere_has_a_worker_goes_there_with_a_greater_epoch() {
    let mut world = one_of_two();
    let (theirs, _) = world.worker(5, vec![]);
    let (_busier, _) = world.worker(5, vec![]);
    world.live("other", &[9]);
    world.tell(Input::Elsewhere("peer".into(), 1, other(1, 5, "w1")));
    let (_, outputs) = world.enter("x", &[1]);
    let offer = one_offer(&outputs);
    assert_eq!((offer.call, offer.epoch > 41), (theirs, true));
    let mut world = one_of_two();
    world.worker(5, vec![]);
    world.tell(Input::Elsewhere("peer".into(), 1, other(1, 5, "unknown")));
    let (_, outputs) = world.enter("x", &[1]);
    assert_eq!(offers(&outputs), [], "the worker will dial in, or the twin will go");
    assert_eq!(world.lobby.tally(world.now).provided, 1, "it needs no capacity");
}

#[test]
fn followers_are_told_each_change_once() {
    let mut world = one_of_two();
    let mut told = FollowerView::default();
    assert_eq!(world.lobby.tell(world.now, &mut told), []);
    let (key, _) = world.enter("x", &[1]);
    let says = world.lobby.tell(world.now, &mut told);
    let [PeerChange::Held(number, held)] = says.as_slice() else { panic!("{says:?}") };
    assert_eq!((*number, held.entered, held.waiting, held.provided), (key, 1_000_000, true, false));
    assert_eq!(world.lobby.tell(world.now, &mut told), []);
    let (_, outputs) = world.worker(1, vec![]);
    let offer = one_offer(&outputs);
    let says = world.lobby.tell(world.now, &mut told);
    let [PeerChange::Held(_, held), PeerChange::Worker(name, worker)] = says.as_slice() else { panic!("{says:?}") };
    assert_eq!((held.waiting, held.provided, held.worker.as_str(), held.epoch), (true, true, "w1", offer.epoch));
    assert_eq!((name.as_str(), worker.room), ("w1", 0));
    world.tell(Input::Left(key));
    let says = world.lobby.tell(world.now, &mut told);
    assert!(says.contains(&PeerChange::Gone(key)), "{says:?}");
    world.tell(Input::Lost(offer.call));
    assert_eq!(world.lobby.tell(world.now, &mut told), [PeerChange::WorkerGone("w1".into())]);
}

#[test]
fn followers_are_told_that_a_stream_has_lost_an_upstream() {
    let mut world = one_of_two();
    let mut told = FollowerView::default();
    let (call, _) = world.worker(9, vec![]);
    let live = world.live("a", &[1, 9]);
    world.say(call, live_with(&live, "a", &[1, 9]));
    world.lobby.tell(world.now, &mut told);
    world.say(call, live_with(&live, "a", &[1]));
    let says = world.lobby.tell(world.now, &mut told);
    let [PeerChange::Held(_, held)] = says.as_slice() else { panic!("{says:?}") };
    assert_eq!(held.identities, [Identity([1; 16])]);
}

#[test]
fn silent_serving_worker_does_not_count_as_heard() {
    let mut world = World::new();
    let (call, _) = world.worker(2, vec![]);
    world.live("x", &[1]);
    world.tell(Input::Said(call, WorkerMessage::Load(Load { streams: 1, capacity: 2, ..Load::default() })));
    let heard = |world: &World| world.lobby.busy().map(|(name, busy)| (name.to_owned(), busy)).collect::<Vec<_>>();
    assert_eq!(heard(&world), [("w1".to_owned(), true)]);
    world.pass(crate::dispatch::workers::SUSPECT_AFTER);
    assert_eq!(heard(&world), [], "the process fleet's time for it runs");
    world.tell(Input::Said(call, WorkerMessage::Load(Load { streams: 1, capacity: 2, ..Load::default() })));
    assert_eq!(heard(&world), [("w1".to_owned(), true)]);
}

#[test]
fn a_close_keeps_streams_by_descriptor_on_workers_that_stay() {
    for (workers_stay, handoff, kicked) in
        [(false, Handoff::Auto, true), (true, Handoff::Auto, false), (true, Handoff::Link, true)]
    {
        let mut world = World::with(handoff);
        world.lobby = Dispatcher::new(Rules { workers_stay, ..Rules::default() });
        world.worker(2, vec![]);
        let live = world.live("x", &[1]);
        world.enter("y", &[2]);
        let outputs = world.tell(Input::Close);
        let told =
            |wanted: Key| outputs.iter().any(|output| matches!(output, Output::Kicked(key, _) if *key == wanted));
        assert_eq!(told(live.key), kicked, "{workers_stay} {handoff:?}: {outputs:?}");
    }
}

#[test]
fn offers_go_on_after_a_worker_claimed_an_invented_epoch() {
    for invented in [u64::MAX, MAX_EPOCH, 1 << 48] {
        let mut world = World::new();
        let rogue = session("rogue", 9, SessionState::Live, invented);
        world.worker(5, vec![rogue]);
        let twin = Elsewhere { epoch: invented, identities: vec![Identity([8; 16])], ..Elsewhere::default() };
        world.tell(Input::Elsewhere("peer".into(), 1, Some(twin)));
        let (_, outputs) = world.enter("a", &[1]);
        let first = offers(&outputs)[0].epoch;
        let (_, outputs) = world.enter("b", &[2]);
        let second = offers(&outputs)[0].epoch;
        assert!(0 < first && first < second && second < 1 << 49, "{invented}: {first}, {second}");
    }
}

#[test]
fn the_epoch_of_an_offer_is_greater_than_other_claims_on_the_stream() {
    let mut world = World::new();
    world.worker(5, vec![session("old", 1, SessionState::Grace, 1 << 60)]);
    let (_, outputs) = world.enter("a", &[1]);
    assert!(offers(&outputs)[0].epoch > 1 << 60);
    let (_, outputs) = world.enter("b", &[2]);
    assert_eq!(offers(&outputs)[0].epoch, 2, "but not for others");
}

#[test]
fn an_offer_after_the_greatest_claim_has_an_epoch_that_its_worker_may_tell() {
    let mut world = World::new();
    let (worker, _) = world.worker(5, vec![]);
    let rival = Elsewhere {
        entered: u64::MAX,
        waiting: true,
        epoch: MAX_EPOCH,
        identities: vec![Identity([1; 16])],
        ..Elsewhere::default()
    };
    world.tell(Input::Elsewhere("peer".into(), 1, Some(rival)));
    let (_, outputs) = world.enter("a", &[1]);
    let first = one_offer(&outputs);
    world.take(&first);
    world.tell(Input::Said(worker, WorkerMessage::Session(session("a", 1, SessionState::Live, first.epoch))));
    world.pass(AVOID_FOR_STREAM);
    let second = one_offer(&world.tell(Input::Back(first.key, first.epoch, Back::Broken)));
    assert!(first.epoch < second.epoch && second.epoch <= MAX_EPOCH, "{first:?}, {second:?}");
}

/// The state of a place, by the words of the picture in `dispatcher`.
fn state_of(world: &World, key: Key) -> &'static str {
    match world.lobby.places.get(&key).map(|held| &held.state) {
        None => "gone",
        Some(State::Waiting) => "waiting",
        Some(State::Offered { .. }) => "offered",
        Some(State::Starting { .. }) => "starting",
        Some(State::Live { .. }) => "live",
    }
}

/// A world with one worker and one publisher, which is brought to this state; `waiting` is before the worker comes.
fn world_in(state: &str) -> (World, Offered) {
    let mut world = World::new();
    if state == "waiting" {
        let (key, _) = world.enter("a", &[1]);
        return (world, Offered { key, call: CallId(0), epoch: 0 });
    }
    world.worker(1, vec![]);
    let (_, outputs) = world.enter("a", &[1]);
    let offer = one_offer(&outputs);
    if state != "offered" {
        world.tell(Input::Taken(offer.key, offer.epoch));
    }
    if state == "live" {
        world.tell(Input::Started(offer.key));
    }
    (world, offer)
}

#[test]
fn every_edge_of_the_picture_is_walked_and_no_other() {
    type Edge = fn(&mut World, &Offered) -> Vec<Output>;
    const LEAVE: Edge = |world, offer| world.tell(Input::Left(offer.key));
    const DIED: Edge = |world, offer| world.tell(Input::Back(offer.key, offer.epoch, Back::Died));
    const MOVING: Edge = |world, offer| world.tell(Input::Back(offer.key, offer.epoch, Back::Moving));
    const GIVEN_BACK: Edge = |world, offer| world.tell(Input::Back(offer.key, offer.epoch, Back::Declined));
    const OTHER_CLAIM: Edge = |world, offer| world.tell(Input::Back(offer.key, offer.epoch + 1, Back::Died));
    const TAKEN: Edge = |world, offer| world.tell(Input::Taken(offer.key, offer.epoch));
    const STARTED: Edge = |world, offer| world.tell(Input::Started(offer.key));
    const LOST: Edge = |world, offer| world.tell(Input::Lost(offer.call));
    const DRAIN: Edge = |world, _| world.tell(Input::Drain);
    let table: [(&str, &str, Edge, &str); 24] = [
        ("waiting", "matched", |world, _| world.worker(1, vec![]).1, "offered"),
        ("waiting", "hold spent", |world, _| world.pass(HOLD), "gone"),
        ("waiting", "refused by a drain", DRAIN, "gone"),
        ("waiting", "left", LEAVE, "gone"),
        ("waiting", "taken by no offer", TAKEN, "waiting"),
        ("offered", "accepted", TAKEN, "starting"),
        ("offered", "started before it was accepted", STARTED, "offered"),
        (
            "offered",
            "declined",
            |world, offer| world.say(offer.call, declined("a", offer.epoch, DeclineReason::Other)),
            "waiting",
        ),
        ("offered", "expired", |world, _| world.pass(OFFER_TIMEOUT), "waiting"),
        ("offered", "withdrawn", LOST, "waiting"),
        (
            "offered",
            "unreachable",
            |world, offer| world.tell(Input::Back(offer.key, offer.epoch, Back::Unreachable)),
            "waiting",
        ),
        ("offered", "refused by a drain", DRAIN, "gone"),
        ("offered", "left", LEAVE, "gone"),
        ("starting", "started", STARTED, "live"),
        ("starting", "died", DIED, "waiting"),
        ("starting", "declined", GIVEN_BACK, "waiting"),
        ("starting", "left", LEAVE, "gone"),
        ("starting", "worker's call lost", LOST, "starting"),
        ("live", "died", DIED, "waiting"),
        ("live", "moving", MOVING, "waiting"),
        ("live", "left", LEAVE, "gone"),
        ("live", "worker's call lost", LOST, "live"),
        ("live", "given back under another claim", OTHER_CLAIM, "live"),
        ("live", "drain", DRAIN, "live"),
    ];
    for (from, edge, take, to) in table {
        let (mut world, offer) = world_in(from);
        assert_eq!(state_of(&world, offer.key), from, "before {edge}");
        take(&mut world, &offer);
        assert_eq!(state_of(&world, offer.key), to, "{from}, {edge}");
    }
}

/// A change that adds an upstream whose URL takes no key.
fn adds(name: &str, host: &str) -> Change {
    let url = PushTemplate::parse(&format!("rtmp://{host}/rec/all")).unwrap();
    Change::Add(RouteDestination { name: name.into(), url, required: false, enabled: true, backup: None })
}

#[test]
fn stream_gets_an_upstream_that_no_other_stream_has_and_keeps_it() {
    let mut world = World::new();
    let names = |key: &str| StreamNames {
        app: AppName::parse("live").unwrap(),
        key: StreamKey::parse(key).unwrap(),
        publisher: String::new(),
        secret: Secret::new("secret"),
    };
    let mut enter = |id: &str, number| {
        let entry = Entry {
            stream_id: StreamId(id.to_owned()),
            identities: vec![Identity([number; 16])],
            app: AppName::parse("live").unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: world.now + HOLD,
            hold: HOLD,
            handoff: Handoff::Auto,
            movable: true,
            destinations: StreamDestinations::new(names(id), RouteOrigin::Fixed, Vec::new()),
        };
        world.lobby.enter(world.now, entry)
    };
    let (a, b) = (enter("a", 1), enter("b", 2));
    let (call, outputs) = world.worker(9, vec![]);
    let epoch = offers(&outputs).iter().find(|offer| offer.key == a).unwrap().epoch;
    world.tell(Input::Taken(a, epoch));
    world.tell(Input::Started(a));
    assert_eq!(world.lobby.change("a", &adds("rec", "one")), Ok(1));
    assert!(world.outputs().contains(&Output::Changed(a)));
    let identities = world.lobby.placed(a).unwrap().identities;
    assert_eq!(identities.len(), 2);
    assert_eq!(world.lobby.change("b", &adds("rec", "one")), Err(ChangeError::InUse));
    assert_eq!(world.lobby.change("b", &adds("rec", "two")), Ok(1));
    assert_eq!(world.lobby.placed(b).unwrap().identities.len(), 2);
    // A session from before the change says nothing of the new upstream; one of the changed list does.
    let told = |revision| {
        let session = Session { revision, ..session("a", 1, SessionState::Live, epoch) };
        Input::Said(call, WorkerMessage::Session(session))
    };
    world.tell(told(0));
    assert_eq!(world.lobby.placed(a).unwrap().identities, identities);
    world.tell(told(1));
    let placed = world.lobby.placed(a).unwrap();
    assert_eq!(
        (placed.identities.len(), placed.destinations.destinations.len()),
        (1, 0),
        "another stream has taken it"
    );
    assert_eq!(world.lobby.change("b", &adds("more", "one")), Ok(2));
    assert_eq!(world.lobby.change("a", &Change::Restart { name: "rec".into() }), Err(ChangeError::InUse));
    // A file that wants what another stream has is followed without that.
    let shared = RouteDestination {
        name: "shared".into(),
        url: PushTemplate::parse("rtmp://two/rec/all").unwrap(),
        required: false,
        enabled: true,
        backup: None,
    };
    let own = RouteDestination {
        name: "own".into(),
        url: PushTemplate::parse("rtmp://three/live/{key}").unwrap(),
        ..shared.clone()
    };
    let file = Change::Route(vec![shared, own]);
    assert_eq!((world.lobby.change("a", &file), world.lobby.change("a", &file)), (Ok(2), Ok(2)));
    let placed = world.lobby.placed(a).unwrap();
    let names: Vec<&str> = placed.destinations.destinations.iter().map(|to| to.name.as_str()).collect();
    assert_eq!((placed.identities.len(), names), (1, vec!["own"]));
    world.lobby.handle(world.now, Input::Left(b));
    assert_eq!(world.lobby.change("a", &Change::Restart { name: "rec".into() }), Ok(3));
    assert_eq!(world.lobby.change("c", &adds("rec", "one")), Err(ChangeError::UnknownStream));
}
