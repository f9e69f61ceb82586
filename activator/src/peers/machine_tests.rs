//! The rules between activators, on virtual time.

use std::time::Duration;

use liveedgecast_common::testkit::origin;

use liveedgecast_common::control::limits::MAX_IDENTITIES;
use liveedgecast_common::discovery::MAX_ADDRESSES;
use liveedgecast_common::key::Identity;

use super::super::limits::{MAX_FACTS, MAX_HELD, MAX_WORKERS};
use super::*;
use crate::dispatch::{PeerChange, WorkerTally};

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn me(shares_ports: bool) -> Me {
    Me { name: "me".to_owned(), control: at(7), started: 1000, shares_ports, introducer: false }
}

fn welcome(activator: &str) -> PeerMessage {
    PeerMessage::Welcome(PeerWelcome { name: activator.to_owned(), ..PeerWelcome::default() })
}

fn gone(number: u64) -> PeerMessage {
    PeerMessage::Change(PeerChange::Gone(number))
}

fn worker(name: &str, tally: WorkerTally) -> PeerMessage {
    PeerMessage::Change(PeerChange::Worker(name.to_owned(), tally))
}

struct World {
    start: Instant,
    now: Instant,
    peers: Peers,
}

impl World {
    fn new() -> Self {
        Self::with_introducer(false)
    }

    fn with_introducer(introducer: bool) -> Self {
        let start = origin();
        let mut world = Self { start, now: start, peers: Peers::new(start, Me { introducer, ..me(false) }) };
        assert_eq!(world.outputs(), [Output::Resolve]);
        world
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.peers.poll_output()).collect()
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.peers.handle(self.now, input);
        self.outputs()
    }

    fn say(&mut self, link: u64, message: PeerMessage) -> Vec<Output> {
        self.tell(Input::Said(AttemptId(link), message))
    }

    /// Lets time pass, with every timeout handled when it is due. Returns the outputs and their times, in milliseconds from the start.
    fn pass(&mut self, milliseconds: u64) -> Vec<(u64, Output)> {
        let end = self.now + Duration::from_millis(milliseconds);
        let mut all = Vec::new();
        while let Some(due) = self.peers.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.peers.handle_timeout(self.now);
            let when = u64::try_from((self.now - self.start).as_millis()).unwrap();
            all.extend(self.outputs().into_iter().map(|output| (when, output)));
        }
        self.now = end;
        all
    }

    fn resolved(&mut self, ports: &[u16]) -> Vec<Output> {
        self.tell(Input::Resolved(ports.iter().copied().map(at).collect()))
    }

    /// The peer of this call tells its name and all its facts: a publisher that waits, and a worker.
    fn sync(&mut self, link: u64, name: &str) -> Vec<Output> {
        let mut outputs = self.say(link, welcome(name));
        outputs.extend(self.say(link, waiting(1)));
        let streams = [("live".to_owned(), 2)].into();
        outputs.extend(self.say(link, worker("w", WorkerTally { streams, ..WorkerTally::default() })));
        outputs.extend(self.say(link, PeerMessage::Synced));
        outputs
    }

    fn count(&self, tallies: &[Tally]) -> (usize, usize) {
        let waiting = tallies.iter().flat_map(|tally| tally.waiting.values()).sum();
        (tallies.len(), waiting)
    }
}

fn waiting(number: u64) -> PeerMessage {
    held(number, Elsewhere { identities: vec![Identity([7; 16])], app: "live".into(), ..Elsewhere::default() })
}

fn held(number: u64, held: Elsewhere) -> PeerMessage {
    PeerMessage::Change(PeerChange::Held(number, Elsewhere { waiting: true, ..held }))
}

fn follow(link: u64, port: u16) -> Output {
    Output::Follow(AttemptId(link), at(port))
}

#[test]
fn facts_count_when_the_peer_has_told_all_of_them() {
    let mut world = World::new();
    assert_eq!(world.resolved(&[1]), [follow(1, 1)]);
    world.say(1, welcome("a"));
    assert_eq!(world.say(1, waiting(1)), [], "half a picture is none");
    assert_eq!(world.peers.fresh(), []);
    let outputs = world.say(1, PeerMessage::Synced);
    assert_eq!(outputs[..2], [Output::Turned("a".into(), Turn::Synced), Output::Forget("a".into())]);
    assert!(matches!(&outputs[2], Output::Held(peer, 1, Some(held)) if peer == "a" && held.waiting));
    assert_eq!(outputs.last(), Some(&Output::Met(at(1), true)));
    assert_eq!(world.count(&world.peers.fresh()), (1, 1));
    let outputs = world.say(1, gone(1));
    assert_eq!(outputs, [Output::Held("a".into(), 1, None), Output::Changed]);
    assert_eq!(world.count(&world.peers.fresh()), (1, 0));
}

#[test]
fn call_is_ended_when_it_leads_to_this_activator_or_a_synced_peer() {
    let mut world = World::new();
    world.resolved(&[1, 2, 3]);
    let hangup = world.say(1, welcome("me"));
    assert_eq!(hangup, [Output::HangUp(AttemptId(1))]);
    // Both calls lead to the same peer at once.
    world.say(2, welcome("a"));
    world.say(3, welcome("a"));
    world.say(3, PeerMessage::Synced);
    assert_eq!(world.say(2, PeerMessage::Synced), [Output::HangUp(AttemptId(2))]);
    assert!(world.peers.discovery.is_complete());
    assert_eq!(world.peers.count(), (1, 0));
    // The call ends: the other addresses are dialed, this activator's own too, which costs nothing.
    let outputs = world.tell(Input::Ended(AttemptId(3)));
    assert_eq!(outputs[outputs.len() - 2..], [follow(4, 1), follow(5, 2)]);
}

#[test]
fn absent_peer_is_dialed_again_after_growing_delays() {
    let mut world = World::new();
    world.resolved(&[1]);
    let (mut link, mut times) = (1, Vec::new());
    for _ in 0..7 {
        world.tell(Input::Ended(AttemptId(link)));
        let outputs = world.pass(2000);
        let (when, next) = outputs
            .iter()
            .find_map(|(when, output)| match output {
                Output::Follow(next, _) => Some((*when, next.0)),
                _ => None,
            })
            .unwrap();
        times.push(when % 2000);
        link = next;
        if outputs.iter().any(|(_, output)| *output == Output::Resolve) {
            world.resolved(&[1]);
        }
    }
    assert_eq!(times, [100, 200, 400, 800, 1600, 0, 0]);
}

#[test]
fn peer_is_dialed_again_when_it_hangs_before_it_has_told_all() {
    let mut world = World::new();
    world.resolved(&[1]);
    world.say(1, welcome("a"));
    let outputs = world.pass(5200);
    assert!(outputs.contains(&(5000, Output::HangUp(AttemptId(1)))), "{outputs:?}");
    assert!(outputs.contains(&(5100, follow(2, 1))), "{outputs:?}");
}

#[test]
fn vanished_peer_counts_for_a_minute_unless_it_said_goodbye() {
    let mut world = World::new();
    world.resolved(&[1, 2]);
    world.sync(1, "a");
    world.sync(2, "b");
    let outputs = world.tell(Input::Ended(AttemptId(1)));
    let vanished = [Output::Turned("a".into(), Turn::Vanished), Output::Forget("a".into()), Output::Changed];
    assert_eq!(outputs[0], Output::Met(at(1), false));
    assert_eq!(outputs[1..], vanished);
    world.pass(59_999);
    assert_eq!((world.count(&world.peers.fresh()), world.count(&world.peers.last())), ((1, 1), (1, 1)));
    world.pass(1);
    assert_eq!(world.peers.last(), []);
    let outputs = world.say(2, PeerMessage::Goodbye);
    assert!(outputs.contains(&Output::Forget("b".into())), "{outputs:?}");
    world.tell(Input::Ended(AttemptId(2)));
    assert_eq!((world.peers.fresh(), world.peers.last()), (vec![], vec![]));
}

#[test]
fn peer_counts_by_its_new_facts_when_it_comes_back() {
    let mut world = World::new();
    world.resolved(&[1]);
    world.sync(1, "a");
    world.tell(Input::Ended(AttemptId(1)));
    world.pass(100);
    world.say(2, welcome("a"));
    assert_eq!(world.count(&world.peers.last()), (1, 1), "its last word counts until there is a new one");
    world.say(2, PeerMessage::Synced);
    assert_eq!((world.count(&world.peers.fresh()), world.peers.last()), ((1, 0), vec![]));
}

#[test]
fn follower_is_followed_before_the_name_leads_to_it() {
    let mut world = World::new();
    world.resolved(&[]);
    assert_eq!(world.tell(Input::Met(at(9))), [follow(1, 9)]);
    assert_eq!(world.tell(Input::Met(at(9))), []);
    world.sync(1, "a");
    world.resolved(&[]);
    assert_eq!(world.peers.count(), (1, 0), "a name that does not know it does not end it");
    world.tell(Input::Ended(AttemptId(1)));
    for link in 2..6 {
        world.pass(2000);
        world.tell(Input::Ended(AttemptId(link)));
    }
    world.pass(20_000);
    assert_eq!(world.peers.count(), (0, 0), "it does not come back");
}

#[test]
fn activator_is_ready_and_sure_when_all_peers_are_heard_or_time_is_over() {
    let check = |world: &World| (world.peers.is_ready(world.now), world.peers.is_sure(world.now));
    let mut world = World::new();
    assert_eq!(check(&world), (false, false));
    world.resolved(&[1, 2]);
    world.say(1, welcome("me"));
    assert_eq!(check(&world), (false, false), "one is missing");
    world.sync(2, "a");
    assert_eq!(check(&world), (true, true), "all are heard");

    let mut world = World::new();
    world.resolved(&[1]);
    world.say(1, welcome("me"));
    assert_eq!(check(&world), (true, false), "alone: workers may serve what nobody tells of");
    world.pass(3000);
    assert_eq!(check(&world), (true, true), "they had the time");

    let mut world = World::new();
    world.resolved(&[1]);
    world.pass(2999);
    assert_eq!(check(&world), (false, false));
    world.pass(1);
    assert_eq!(check(&world), (true, true), "it had the time");

    let mut world = World::new();
    world.tell(Input::Unresolved);
    world.pass(60_000);
    assert_eq!(check(&world), (true, false), "whom have we not heard?");
}

#[test]
fn introducer_is_asked_often_at_first_and_its_addresses_are_followed() {
    let mut world = World::with_introducer(true);
    world.tell(Input::Unresolved);
    let mut asked = Vec::new();
    for _ in 0..900 {
        for (when, output) in world.pass(10) {
            if output == Output::Ask {
                asked.push(when);
                // The introducer leads back to this activator, or to none yet.
                world.tell(Input::Introduced(vec![]));
            }
        }
    }
    let gaps: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let at_first = asked.iter().filter(|when| **when < 3000).count();
    assert!(at_first >= 14, "often at first: {asked:?}");
    assert!(gaps[..at_first - 1].iter().any(|gap| *gap <= 110), "twice in a row: {asked:?}");
    assert!(gaps[at_first..].iter().any(|gap| *gap >= 5000), "then as seldom as for names: {asked:?}");
    assert!(!world.peers.is_sure(world.now), "whom have we not heard?");
    let outputs = world.tell(Input::Introduced(vec![at(1), at(2)]));
    assert_eq!(outputs, [follow(1, 1), follow(2, 2)]);
    assert!(world.peers.is_sure(world.now), "it knows, as a name server would");
    world.say(1, welcome("me"));
    world.sync(2, "a");
    assert_eq!(world.tell(Input::Introduced(vec![at(1), at(2)])), [], "we know both");
}

#[test]
fn activators_ask_the_introducer_at_different_times() {
    let lag = |name: String| Peers::new(origin(), Me { name, introducer: true, ..me(false) }).lag();
    let lags: std::collections::BTreeSet<Duration> = (0..32).map(|number| lag(format!("a~{number:08x}"))).collect();
    assert!(lags.len() > 16, "{lags:?}");
}

#[test]
fn machine_wakes_for_names_alone_when_nothing_changes() {
    let mut world = World::new();
    world.resolved(&[1]);
    world.sync(1, "a");
    assert_eq!(world.peers.poll_timeout(), Some(world.now + RESOLVE_EVERY));
}

#[test]
fn facts_are_bounded_in_number_when_a_peer_is_broken() {
    let mut world = World::new();
    world.resolved(&[1]);
    world.sync(1, "a");
    for number in 0..u64::try_from(MAX_HELD).unwrap() + 10 {
        world.say(1, waiting(number));
    }
    for number in 0..MAX_WORKERS + 10 {
        world.say(1, worker(&number.to_string(), WorkerTally::default()));
    }
    let facts = &world.peers.peers["a"].facts;
    assert_eq!(facts.count(), (MAX_HELD, MAX_WORKERS));
    let ports: Vec<u16> = (1..1000).collect();
    world.resolved(&ports);
    assert_eq!(world.peers.count(), (1, MAX_ADDRESSES - 1));
}

#[test]
fn shared_port_is_dialed_again_when_it_led_to_this_activator() {
    let mut world = World::new();
    world.peers = Peers::new(world.now, me(true));
    world.outputs();
    assert_eq!(world.resolved(&[1]), [Output::Follow(AttemptId(1), at(1))]);
    for link in 1..u64::from(SELF_MEETINGS) {
        assert_eq!(world.say(link, welcome("me")), [Output::HangUp(AttemptId(link))]);
        assert!(!world.peers.is_ready(world.now), "the other one may be there");
        let next = world.pass(SELF_DELAY.as_millis().try_into().unwrap());
        assert_eq!(next.len(), 1, "{next:?}");
        assert_eq!(next[0].1, Output::Follow(AttemptId(link + 1), at(1)));
    }
    world.say(u64::from(SELF_MEETINGS), welcome("me"));
    assert!(world.peers.is_ready(world.now), "nobody else is there");
    assert!(world.pass(1000).is_empty());
}

#[test]
fn timed_out_dial_or_a_forgotten_address_ends_the_row_of_dials_that_led_back() {
    let mut world = World::new();
    world.peers = Peers::new(world.now, me(true));
    world.outputs();
    world.resolved(&[1]);
    world.say(1, welcome("me"));
    assert_eq!(world.peers.selves, [(at(1), 1)].into());
    world.pass(u64::try_from((SELF_DELAY + SYNC_TIMEOUT).as_millis()).unwrap());
    assert_eq!(world.peers.selves, [].into(), "the second dial was not answered");

    let mut world = World::new();
    world.peers = Peers::new(world.now, me(true));
    world.outputs();
    world.resolved(&[1]);
    for link in 1..=u64::from(MAX_FAILURES) {
        world.tell(Input::Ended(AttemptId(link)));
        world.pass(2000);
    }
    world.say(u64::from(MAX_FAILURES) + 1, welcome("me"));
    assert_eq!(world.peers.selves, [(at(1), 1)].into());
    world.resolved(&[]);
    assert_eq!(world.peers.selves, [].into(), "the name leads there no longer");
}

#[test]
fn oldest_activator_counts_missing_workers_and_one_that_has_vanished_is_awaited() {
    for (started, is_older) in [(999, true), (1001, false)] {
        let mut world = World::new();
        world.peers = Peers::new(world.now, me(false));
        world.outputs();
        let counter = |world: &World| world.peers.baseline_counter(world.now);
        assert_eq!(counter(&world), BaselineCounter::Unsure, "the peers are not known yet");
        world.resolved(&[1]);
        let told = PeerWelcome { name: "a".into(), control_port: 77, started };
        world.say(1, PeerMessage::Welcome(told));
        world.say(1, PeerMessage::Synced);
        let expected = |there| if is_older { there } else { BaselineCounter::Ours };
        assert_eq!(counter(&world), expected(BaselineCounter::Another));
        world.tell(Input::Ended(AttemptId(1)));
        world.now += SYNC_TIME;
        assert_eq!(counter(&world), expected(BaselineCounter::Unsure), "it may live");
        world.now += KEEP_VANISHED;
        world.peers.handle_timeout(world.now);
        assert_eq!(counter(&world), BaselineCounter::Ours);
    }
}

#[test]
fn peer_on_a_shared_port_is_known_by_its_own_port_and_the_younger_is_the_heir() {
    for (started, is_heir) in [(999, false), (1001, true)] {
        let mut world = World::new();
        world.peers = Peers::new(world.now, me(true));
        world.outputs();
        world.resolved(&[1]);
        let told = PeerWelcome { name: "a".into(), control_port: 77, started };
        world.say(1, PeerMessage::Welcome(told));
        assert!(!world.peers.has_heir(), "it has not told everything");
        let outputs = world.say(1, PeerMessage::Synced);
        assert!(outputs.contains(&Output::Met(at(77), true)), "workers are told its own port: {outputs:?}");
        assert_eq!(world.peers.has_heir(), is_heir);
        let outputs = world.tell(Input::Ended(AttemptId(1)));
        assert!(outputs.contains(&Output::Met(at(77), false)), "{outputs:?}");
        assert!(!world.peers.has_heir(), "it has vanished");
    }
}

#[test]
fn facts_are_bounded_in_bytes_until_some_are_gone() {
    let mut world = World::new();
    world.resolved(&[1]);
    world.sync(1, "a");
    let own = world.peers.bytes();
    let heavy = |number| {
        let (app, worker) = ("x".repeat(255), "w".repeat(253));
        held(
            number,
            Elsewhere { identities: vec![Identity([7; 16]); MAX_IDENTITIES], app, worker, ..Elsewhere::default() },
        )
    };
    let mut number = 2;
    while !world.say(1, heavy(number)).iter().all(|output| *output == Output::Changed) {
        number += 1;
    }
    assert!(number > 10_000 && world.peers.bytes() <= MAX_FACTS, "{number}");
    world.say(1, heavy(2));
    for number in 2..number {
        world.say(1, gone(number));
    }
    assert_eq!(world.peers.bytes(), own);
}

#[test]
fn peers_are_bounded_when_they_come_and_go_under_new_names() {
    let mut world = World::new();
    let mut link = 0;
    for number in 0..2 * MAX_PEERS {
        world.resolved(&[1]);
        link += 1;
        world.sync(link, &format!("a{number}"));
        world.tell(Input::Ended(AttemptId(link)));
        world.pass(100);
    }
    assert!(world.peers.peers.len() <= MAX_PEERS, "{}", world.peers.peers.len());
}

/// A step of the call to address 1, which is call 1.
#[derive(Clone, Copy, Debug)]
enum Step {
    Welcome(&'static str),
    Waiting,
    Acts,
    Synced,
    Goodbye,
    Ended,
    Late,
    Pass(u64),
    /// The peer `a` is synced by address 2.
    OtherSynced,
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    use Step::*;
    type Row = (&'static [Step], (&'static str, usize, usize));
    let rows: &[Row] = &[
        (&[], ("Telling", 0, 0)),
        (&[Welcome("a"), Waiting, Acts], ("Telling", 0, 0)),
        (&[Synced], ("Telling", 0, 0)),
        (&[Goodbye], ("Telling", 0, 0)),
        (&[Welcome("a"), Waiting, Synced], ("Synced", 1, 0)),
        (&[Welcome("a"), Synced, Waiting, Acts, Welcome("b"), Synced], ("Synced", 1, 0)),
        (&[Welcome("a"), Synced, Ended], ("over", 0, 1)),
        (&[Welcome("a"), Synced, Ended, Pass(59_999)], ("over", 0, 1)),
        (&[Welcome("a"), Synced, Ended, Pass(60_000)], ("over", 0, 0)),
        (&[Welcome("a"), Synced, Goodbye], ("Synced", 0, 0)),
        (&[Welcome("a"), Synced, Goodbye, Ended], ("over", 0, 0)),
        (&[Welcome("a"), Synced, Late], ("Synced", 1, 0)),
        (&[Welcome("a"), Ended], ("over", 0, 0)),
        (&[Welcome("a"), Late], ("over", 0, 0)),
        (&[Welcome("me")], ("over", 0, 0)),
        (&[OtherSynced, Welcome("a")], ("over", 1, 0)),
        (&[Welcome("a"), OtherSynced], ("Telling", 1, 0)),
        (&[Welcome("a"), OtherSynced, Synced], ("over", 1, 0)),
        (&[OtherSynced, Welcome("b"), Synced], ("Synced", 2, 0)),
    ];
    for (steps, expected) in rows {
        let mut world = World::new();
        world.resolved(&[1, 2]);
        for step in *steps {
            match step {
                Welcome(name) => drop(world.say(1, welcome(name))),
                Waiting => drop(world.say(1, waiting(1))),
                Acts => drop(world.say(1, PeerMessage::Acts(true))),
                Synced => drop(world.say(1, PeerMessage::Synced)),
                Goodbye => drop(world.say(1, PeerMessage::Goodbye)),
                Ended => drop(world.tell(Input::Ended(AttemptId(1)))),
                Late => drop(world.pass(SYNC_TIMEOUT.as_millis().try_into().unwrap())),
                Pass(milliseconds) => drop(world.pass(*milliseconds)),
                OtherSynced => drop(world.sync(2, "a")),
            }
        }
        let call = match world.peers.calls.get(&AttemptId(1)) {
            Some(Following::Telling { .. }) => "Telling",
            Some(Following::Synced { .. }) => "Synced",
            None => "over",
        };
        assert_eq!((call, world.peers.fresh().len(), world.peers.last().len()), *expected, "{steps:?}");
    }
}
