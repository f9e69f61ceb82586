//! Discovery on virtual time.

use proptest::prelude::*;

use super::*;
use crate::testkit::origin;

/// As workers look for activators.
const ONE: Rules = Rules {
    eager_attempts: 10,
    dial_timeout: None,
    wanted: Wanted::One,
    told_failures: 10,
    unlisted_failures: 0,
    alias_patience: 5,
};
/// As activators look for each other.
const ALL: Rules = Rules {
    eager_attempts: 1,
    dial_timeout: Some(Duration::from_secs(5)),
    wanted: Wanted::All,
    told_failures: 5,
    unlisted_failures: 5,
    alias_patience: 1,
};
const GREETING: Duration = Duration::from_secs(3);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

struct World {
    now: Instant,
    discovery: Discovery,
}

impl World {
    fn new(rules: Rules) -> Self {
        let now = origin();
        let mut world = Self { now, discovery: Discovery::new(now, rules, None) };
        assert_eq!(world.outputs(), [Output::Resolve]);
        world
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.discovery.poll_output()).collect()
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.discovery.handle(self.now, input);
        self.outputs()
    }

    fn resolved(&mut self, ports: &[u16]) -> Vec<Output> {
        self.tell(Input::Resolved(ports.iter().copied().map(at).collect()))
    }

    /// Lets time pass; what is due is done when it is due.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, Output)> {
        let (start, end) = (self.now, self.now + time);
        let mut all = Vec::new();
        while let Some(due) = self.discovery.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.discovery.handle_timeout(self.now);
            assert!(self.discovery.poll_timeout().is_none_or(|next| next > self.now), "a hot loop");
            all.extend(self.outputs().into_iter().map(|output| (self.now - start, output)));
        }
        self.now = end;
        all
    }

    fn attempt(&self, port: u16) -> AttemptId {
        self.discovery.candidates[&at(port)].attempt
    }

    fn state(&self, port: u16) -> &'static str {
        match self.discovery.candidates.get(&at(port)).map(|candidate| candidate.state) {
            None => "unknown",
            Some(State::Waiting { .. }) => "Waiting",
            Some(State::Dialing { .. }) => "Dialing",
            Some(State::Greeting { .. }) => "Greeting",
            Some(State::Connected) => "Connected",
            Some(State::Alias { .. }) => "Alias",
        }
    }
}

/// One step of address 1; address 2 is the one that an alias is of.
#[derive(Clone, Copy, Debug)]
enum Step {
    Listed,
    Unlisted,
    Told,
    Answered,
    Connected,
    Failed,
    Again,
    Pass(u64),
    /// Address 2 is told of and connected; address 1 turns out to be its alias.
    Alias,
    OtherFails,
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    use Step::*;
    let rows: &[(Rules, &[Step], &str)] = &[
        (ONE, &[], "unknown"),
        (ONE, &[Listed], "Dialing"),
        (ONE, &[Told], "Dialing"),
        (ONE, &[Listed, Answered], "Greeting"),
        (ONE, &[Listed, Answered, Connected], "Connected"),
        (ALL, &[Listed, Connected], "Connected"),
        (ONE, &[Listed, Failed], "Waiting"),
        (ONE, &[Listed, Pass(4999)], "Dialing"),
        (ALL, &[Listed, Pass(4999)], "Dialing"),
        (ALL, &[Listed, Pass(5000)], "Waiting"),
        (ONE, &[Listed, Answered, Failed], "Waiting"),
        (ONE, &[Listed, Answered, Pass(3000)], "Waiting"),
        (ONE, &[Listed, Answered, Connected, Pass(3000)], "Connected"),
        (ONE, &[Listed, Answered, Connected, Failed], "Waiting"),
        (ONE, &[Listed, Again], "Waiting"),
        (ONE, &[Listed, Again, Pass(50)], "Dialing"),
        (ONE, &[Listed, Failed, Pass(99)], "Waiting"),
        (ONE, &[Listed, Failed, Pass(100)], "Dialing"),
        // Neither listed nor told of any more.
        (ONE, &[Listed, Unlisted], "unknown"),
        (ONE, &[Listed, Failed, Unlisted], "unknown"),
        (ONE, &[Listed, Answered, Unlisted], "Greeting"),
        (ONE, &[Listed, Connected, Unlisted], "Connected"),
        (ONE, &[Listed, Connected, Unlisted, Failed], "unknown"),
        (ONE, &[Listed, Connected, Unlisted, Told, Failed], "Waiting"),
        (ONE, &[Told, Unlisted], "Dialing"),
        (ALL, &[Listed, Unlisted], "Dialing"),
        (ALL, &[Listed, Failed, Unlisted], "Waiting"),
        // Too many failures.
        (ALL, &[Told, Failed, Pass(100), Failed, Pass(200), Failed, Pass(400), Failed, Pass(800)], "Dialing"),
        (ALL, &[Told, Failed, Pass(100), Failed, Pass(200), Failed, Pass(400), Failed, Pass(800), Failed], "unknown"),
        (ALL, &[Listed, Failed, Pass(100), Failed, Pass(200), Failed, Pass(400), Failed, Pass(800), Failed], "Waiting"),
        // Aliases.
        (ONE, &[Listed, Alias], "Alias"),
        (ONE, &[Listed, Answered, Alias], "Alias"),
        (ONE, &[Listed, Alias, Failed, Pass(10_000)], "Alias"),
        (ONE, &[Listed, Alias, Unlisted], "unknown"),
        (ONE, &[Told, Alias, Unlisted], "Alias"),
        (ALL, &[Listed, Alias, OtherFails], "Dialing"),
        (ONE, &[Listed, Alias, OtherFails], "Alias"),
    ];
    for (rules, steps, state) in rows {
        let mut world = World::new(*rules);
        for step in *steps {
            let attempt = world.discovery.candidates.get(&at(1)).map_or(AttemptId(0), |candidate| candidate.attempt);
            match step {
                Listed => drop(world.resolved(&[1])),
                Unlisted => drop(world.resolved(&[])),
                Told => drop(world.tell(Input::Told(at(1)))),
                Answered => drop(world.tell(Input::Answered(attempt, world.now + GREETING))),
                Connected => drop(world.tell(Input::Connected(attempt))),
                Failed => drop(world.tell(Input::Failed(attempt, None))),
                Again => drop(world.tell(Input::Again(attempt, Duration::from_millis(50)))),
                Pass(milliseconds) => drop(world.pass(Duration::from_millis(*milliseconds))),
                Alias => {
                    world.tell(Input::Told(at(2)));
                    world.tell(Input::Connected(world.attempt(2)));
                    assert_eq!(world.tell(Input::Alias(attempt, Some(at(2)))), [Output::HangUp(attempt)]);
                }
                OtherFails => drop(world.tell(Input::Failed(world.attempt(2), None))),
            }
        }
        assert_eq!(world.state(1), *state, "{steps:?}");
    }
}

#[test]
fn pauses_are_short_at_first_then_doubled() {
    let waited = |rules: Rules| -> Vec<u128> {
        let mut world = World::new(rules);
        world.resolved(&[1]);
        let failing = |_| {
            world.tell(Input::Failed(world.attempt(1), None));
            let began = world.now;
            while world.state(1) != "Dialing" {
                let due = world.discovery.poll_timeout().unwrap();
                world.pass(due - world.now);
            }
            (world.now - began).as_millis()
        };
        (0..14).map(failing).collect()
    };
    assert_eq!(waited(ONE), [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 200, 400, 800, 1600]);
    assert_eq!(waited(ALL)[..7], [100, 200, 400, 800, 1600, 2000, 2000]);
}

#[test]
fn aliases_are_dialed_once_their_address_has_failed_often_enough_or_is_forgotten() {
    let mut world = World::new(ONE);
    world.resolved(&[1, 2, 3]);
    world.tell(Input::Connected(world.attempt(1)));
    world.tell(Input::Alias(world.attempt(2), Some(at(1))));
    world.tell(Input::Alias(world.attempt(3), Some(at(9))));
    for failures in 1..=5 {
        assert_eq!(world.state(2), "Alias", "{failures}");
        world.tell(Input::Failed(world.attempt(1), None));
        world.pass(FIRST_DELAY);
    }
    assert_eq!((world.state(2), world.state(3)), ("Dialing", "Alias"));

    let mut world = World::new(ONE);
    world.resolved(&[1, 2]);
    world.tell(Input::Connected(world.attempt(1)));
    world.tell(Input::Alias(world.attempt(2), Some(at(1))));
    world.resolved(&[2]);
    world.tell(Input::Failed(world.attempt(1), None));
    assert_eq!((world.state(1), world.state(2)), ("unknown", "Dialing"), "the only way that is left");
}

#[test]
fn name_and_introducer_are_asked_as_often_as_activators_are_wanted() {
    let asked = |rules: Rules, connects: bool| {
        let mut world = World::new(rules);
        world.discovery.ask_at = Some(world.now);
        world.resolved(&[1]);
        if connects {
            world.tell(Input::Connected(world.attempt(1)));
        }
        let (mut resolves, mut asks) = (0, 0);
        for _ in 0..1000 {
            for (_, output) in world.pass(Duration::from_millis(10)) {
                match output {
                    Output::Resolve => {
                        resolves += 1;
                        world.resolved(&[1]);
                    }
                    Output::Ask => {
                        asks += 1;
                        world.tell(Input::Introduced(vec![], world.now + Duration::from_secs(1)));
                    }
                    Output::Dial { .. } | Output::HangUp(_) => {}
                }
            }
        }
        (resolves, asks)
    };
    assert_eq!(asked(ONE, false), (20, 10));
    assert_eq!(asked(ONE, true), (2, 0));
    assert_eq!(asked(ALL, false), (2, 10));
    assert_eq!(asked(ALL, true), (2, 10));
}

#[test]
fn addresses_are_bounded() {
    let mut world = World::new(ONE);
    for port in 1..1000 {
        world.tell(Input::Told(at(port)));
    }
    assert_eq!(world.discovery.candidates.len(), MAX_ADDRESSES, "a rumour leaves room for the name's addresses");
    world.resolved(&(1000..2000).collect::<Vec<u16>>());
    assert_eq!(world.discovery.candidates.len(), 2 * MAX_ADDRESSES);
    assert!(!world.discovery.is_complete() && world.discovery.is_informed());
}

#[test]
fn nothing_is_done_after_the_stop() {
    let mut world = World::new(ALL);
    world.resolved(&[1, 2, 3]);
    world.tell(Input::Connected(world.attempt(1)));
    world.tell(Input::Failed(world.attempt(2), None));
    let open = [Output::HangUp(world.attempt(1)), Output::HangUp(world.attempt(3))];
    assert_eq!(world.tell(Input::Stop), open);
    assert_eq!(world.resolved(&[4]), []);
    assert_eq!((world.discovery.poll_timeout(), world.discovery.connected()), (None, 0));
}

proptest! {
    #[test]
    fn no_address_has_two_calls_and_no_call_is_ended_twice(
        all in any::<bool>(),
        steps in proptest::collection::vec((0..9_u8, 0..4_u16, 0..2000_u64), 0..200),
    ) {
        let mut world = World::new(if all { ALL } else { ONE });
        let mut calls: BTreeMap<AttemptId, SocketAddr> = BTreeMap::new();
        for (step, port, milliseconds) in steps {
            let attempt = world.discovery.candidates.get(&at(port)).map_or(AttemptId(0), |candidate| candidate.attempt);
            let outputs = match step {
                0 => world.resolved(&(0..port).collect::<Vec<u16>>()),
                1 => world.tell(Input::Told(at(port))),
                2 => world.tell(Input::Answered(attempt, world.now + GREETING)),
                3 => world.tell(Input::Connected(attempt)),
                4 if calls.contains_key(&attempt) => world.tell(Input::Alias(attempt, Some(at(port + 1)))),
                5 if calls.contains_key(&attempt) => world.tell(Input::Again(attempt, FIRST_DELAY)),
                6 => {
                    calls.remove(&attempt);
                    world.tell(Input::Failed(attempt, None))
                }
                7 => world.tell(Input::Introduced(vec![at(port)], world.now + FIRST_DELAY)),
                _ => world.pass(Duration::from_millis(milliseconds)).into_iter().map(|(_, output)| output).collect(),
            };
            for output in outputs {
                match output {
                    Output::Dial { attempt, address, patience } => {
                        prop_assert!(calls.values().all(|other| *other != address), "two calls to {address}");
                        prop_assert!((FIRST_DELAY..=MOST_DELAY).contains(&patience));
                        prop_assert!(calls.insert(attempt, address).is_none());
                    }
                    Output::HangUp(attempt) => prop_assert!(calls.remove(&attempt).is_some(), "{attempt:?} ended twice"),
                    Output::Resolve | Output::Ask => {}
                }
            }
            for (attempt, address) in &calls {
                prop_assert_eq!(world.discovery.address(*attempt), Some(*address));
            }
        }
    }
}
