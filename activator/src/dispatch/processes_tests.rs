//! The rules of the process fleet, on virtual time.

use liveedgecast_common::testkit::origin;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(30);

struct World {
    now: Instant,
    processes: Processes,
    registered: BTreeMap<String, bool>,
}

impl World {
    fn new(most: usize) -> Self {
        let rules = Rules {
            prefix: "worker".to_owned(),
            most,
            capacity: 2,
            cooldown: COOLDOWN,
            drain: Duration::from_secs(8),
            seed: 1,
        };
        Self { now: origin(), processes: Processes::new(rules), registered: BTreeMap::new() }
    }

    fn look(&mut self, shortage: usize) -> Vec<Output> {
        let registered = self.registered.iter().map(|(name, busy)| (name.as_str(), *busy));
        self.processes.look(self.now, shortage, registered);
        self.outputs()
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.processes.handle(self.now, input);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.processes.poll_output()).collect()
    }

    /// Moves time to the next thing that is due.
    fn wait(&mut self) -> Vec<Output> {
        self.now = self.processes.poll_timeout().expect("something is due").max(self.now);
        self.processes.handle_timeout(self.now);
        self.outputs()
    }

    fn end(&mut self, name: &str) -> Vec<Output> {
        self.registered.remove(name);
        let end = ProcessEnd { status: "signal 9".into(), in_order: false, last_words: vec!["oh".into()] };
        self.tell(Input::Ended(name.into(), end))
    }

    fn run(&mut self, name: &str, busy: bool, shortage: usize) {
        assert_eq!(self.tell(Input::Spawned(name.into())), []);
        self.registered.insert(name.into(), busy);
        assert_eq!(self.look(shortage), []);
    }
}

fn spawns(names: &[&str]) -> Vec<Output> {
    names.iter().map(|name| Output::Spawn((*name).to_owned())).collect()
}

#[test]
fn demand_starts_a_worker_from_zero_and_idling_stops_it() {
    let mut world = World::new(4);
    assert_eq!(world.look(0), []);
    assert_eq!(world.processes.poll_timeout(), None, "idle wakes for nothing");
    assert_eq!(world.look(1), spawns(&["worker-1"]), "the prefix and a number");
    assert_eq!(world.look(2), [], "the one that comes takes both");
    world.run("worker-1", true, 0);
    assert_eq!(world.processes.poll_timeout(), None);
    world.registered.insert("worker-1".into(), false);
    assert_eq!(world.look(0), []);
    let idle = world.now;
    assert_eq!(world.wait(), [Output::Stop("worker-1".into())]);
    assert_eq!(world.now - idle, COOLDOWN);
    assert_eq!(world.end("worker-1"), [Output::Gone("worker-1".into())]);
    assert!(world.processes.is_empty() && world.processes.poll_timeout().is_none());
    assert_eq!(world.look(1), spawns(&["worker-2"]), "and at once from zero again");
}

#[test]
fn shortage_starts_as_many_workers_as_needed_up_to_the_limit() {
    let mut world = World::new(3);
    assert_eq!(world.look(3), spawns(&["worker-1", "worker-2"]));
    assert_eq!(world.look(100), spawns(&["worker-3"]));
    assert!(world.processes.is_full());
    world.run("worker-1", true, 98);
    assert_eq!(world.look(98), []);
}

#[test]
fn publisher_that_comes_in_the_cool_down_keeps_the_worker() {
    let mut world = World::new(1);
    world.look(1);
    world.run("worker-1", false, 0);
    world.now += COOLDOWN / 2;
    world.registered.insert("worker-1".into(), true);
    world.look(0);
    assert_eq!(world.processes.poll_timeout(), None);
    world.registered.insert("worker-1".into(), false);
    world.look(0);
    assert_eq!(world.processes.poll_timeout(), Some(world.now + COOLDOWN));
}

#[test]
fn a_worker_that_dies_at_start_is_reported_and_retried_ever_more_slowly() {
    let mut world = World::new(1);
    let (mut name, mut last) = (1, Duration::ZERO);
    assert_eq!(world.look(1), spawns(&["worker-1"]));
    for _ in 0..12 {
        let begun = world.now;
        world.tell(Input::Spawned(format!("worker-{name}")));
        let outputs = world.end(&format!("worker-{name}"));
        let [Output::Failed { how: ProcessOutcome::AtStart, last_words, pause, why, .. }] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert!(why.contains("signal 9") && last_words == &["oh"]);
        assert_eq!(world.look(1), [], "not in a hot loop");
        name += 1;
        assert_eq!(world.wait(), spawns(&[&format!("worker-{name}")]));
        assert_eq!(world.now - begun, *pause);
        assert!(*pause >= last.min(MOST_PAUSE / 2) || *pause * 2 > last, "{pause:?} after {last:?}");
        last = *pause;
    }
    assert!(last >= MOST_PAUSE / 2);
    // One that works and is asked to go later ends the pauses.
    world.run(&format!("worker-{name}"), false, 0);
    while world.processes.poll_timeout().is_some() {
        if !world.wait().is_empty() {
            break;
        }
    }
    world.end(&format!("worker-{name}"));
    assert_eq!(world.look(1).len(), 1);
}

#[test]
fn a_worker_that_never_registers_is_killed() {
    let mut world = World::new(1);
    world.look(1);
    world.tell(Input::Spawned("worker-1".into()));
    let begun = world.now;
    assert_eq!(world.wait(), [Output::Kill("worker-1".into())]);
    assert_eq!(world.now - begun, REGISTER_TIMEOUT);
    assert_eq!(world.processes.poll_timeout(), None, "killed once");
    let outputs = world.end("worker-1");
    assert!(matches!(&outputs[..], [Output::Failed { how: ProcessOutcome::NeverRegistered, .. }]), "{outputs:?}");
}

#[test]
fn worker_that_hangs_is_killed_unless_it_registers_again() {
    let mut world = World::new(1);
    world.look(1);
    world.run("worker-1", true, 0);
    world.now += SOUND_AFTER;
    world.registered.clear();
    world.look(0);
    world.now += SILENT_TIMEOUT / 2;
    world.registered.insert("worker-1".into(), true);
    world.look(0);
    assert_eq!(world.processes.poll_timeout(), None, "it came again");
    world.registered.clear();
    world.look(0);
    let begun = world.now;
    assert_eq!(world.wait(), [Output::Kill("worker-1".into())]);
    assert_eq!(world.now - begun, SILENT_TIMEOUT);
    let outputs = world.end("worker-1");
    assert!(matches!(&outputs[..], [Output::Failed { how: ProcessOutcome::Silent, .. }]), "{outputs:?}");
}

#[test]
fn a_worker_that_registers_and_dies_young_is_a_failure() {
    let mut world = World::new(1);
    world.look(1);
    let mut pauses = Vec::new();
    for name in 1..=5 {
        world.run(&format!("worker-{name}"), true, 0);
        world.now += Duration::from_millis(20);
        let outputs = world.end(&format!("worker-{name}"));
        let [Output::Failed { how: ProcessOutcome::Crashed, pause, .. }] = outputs[..] else { panic!("{outputs:?}") };
        pauses.push(pause);
        assert_eq!(world.look(1), []);
        world.wait();
    }
    assert!(pauses[4] > pauses[0] * 4, "{pauses:?}");
    world.run("worker-6", true, 0);
    world.wait();
    assert_eq!(world.processes.backoff.failures(), 0, "it has lived long enough");
    let outputs = world.end("worker-6");
    assert!(matches!(outputs[..], [Output::Failed { pause, .. }] if pause <= FIRST_PAUSE), "{outputs:?}");
}

#[test]
fn a_worker_that_somebody_else_terminates_is_no_failure() {
    let mut world = World::new(1);
    let end = |name: &str| {
        let end = ProcessEnd { status: "exit status: 0".into(), in_order: true, last_words: vec![] };
        Input::Ended(name.to_owned(), end)
    };
    world.look(1);
    world.run("worker-1", true, 0);
    world.now += SOUND_AFTER;
    world.registered.clear();
    assert_eq!(world.tell(end("worker-1")), [Output::Terminated("worker-1".into())]);
    assert_eq!(world.look(1), spawns(&["worker-2"]), "its streams wait for another one");
    world.run("worker-2", true, 0);
    world.registered.clear();
    assert_eq!(world.tell(end("worker-2")), [Output::Terminated("worker-2".into())]);
    assert_eq!(world.look(1), [], "not in a hot loop");
    assert_eq!(world.wait(), spawns(&["worker-3"]));
    let outputs = world.tell(end("worker-3"));
    assert!(
        matches!(&outputs[..], [Output::Failed { how: ProcessOutcome::AtStart, .. }]),
        "it was never ready: {outputs:?}"
    );
}

#[test]
fn a_process_that_cannot_be_spawned_is_a_failure() {
    let mut world = World::new(2);
    world.look(1);
    let outputs = world.tell(Input::NotSpawned("worker-1".into(), "no such file".into()));
    assert!(matches!(&outputs[..], [Output::Failed { how: ProcessOutcome::AtStart, .. }]), "{outputs:?}");
    assert_eq!(world.wait(), spawns(&["worker-2"]));
}

#[test]
fn a_stop_asks_all_processes_to_go_and_kills_overdue_ones() {
    let mut world = World::new(2);
    world.look(3);
    world.run("worker-1", true, 1);
    world.tell(Input::Spawned("worker-2".into()));
    assert_eq!(world.tell(Input::Stop), [Output::Stop("worker-1".into()), Output::Stop("worker-2".into())]);
    assert_eq!(world.look(5), [], "nothing new");
    assert_eq!(world.end("worker-1"), [Output::Gone("worker-1".into())]);
    assert_eq!(world.wait(), [Output::Kill("worker-2".into())]);
    assert_eq!(world.end("worker-2"), [Output::Gone("worker-2".into())]);
}

/// The state of the first worker, by the words of the picture at the top.
fn state_of(world: &World) -> &'static str {
    match world.processes.all.get("worker-1").map(|process| process.state) {
        None => "none",
        Some(State::Asked) => "asked",
        Some(State::Starting { .. }) => "starting",
        Some(State::Ready { .. }) => "ready",
        Some(State::Stopping { .. }) => "stopping",
        Some(State::Killed(_)) => "killed",
    }
}

fn world_in(state: &str) -> World {
    let mut world = World::new(1);
    let steps: [fn(&mut World); 5] = [
        |world| drop(world.look(1)),
        |world| drop(world.tell(Input::Spawned("worker-1".into()))),
        |world| {
            world.registered.insert("worker-1".into(), false);
            world.look(0);
        },
        |world| drop(world.tell(Input::Stop)),
        |world| drop(world.wait()),
    ];
    for step in steps {
        if state_of(&world) == state {
            return world;
        }
        step(&mut world);
    }
    world
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    type Edge = fn(&mut World);
    const ENDED: Edge = |world| drop(world.end("worker-1"));
    const OVERDUE: Edge = |world| drop(world.wait());
    const SILENT: Edge = |world| {
        world.registered.clear();
        world.look(0);
        world.wait();
    };
    let table: [(&str, &str, Edge, &str, bool); 14] = [
        ("none", "shortage", |world| drop(world.look(1)), "asked", false),
        ("asked", "spawned", |world| drop(world.tell(Input::Spawned("worker-1".into()))), "starting", false),
        (
            "asked",
            "failed",
            |world| drop(world.tell(Input::NotSpawned("worker-1".into(), "no such file".into()))),
            "none",
            true,
        ),
        (
            "starting",
            "registered",
            |world| {
                world.registered.insert("worker-1".into(), true);
                world.look(0);
            },
            "ready",
            false,
        ),
        ("starting", "not registered in time", OVERDUE, "killed", false),
        ("starting", "ended", ENDED, "none", true),
        ("ready", "idle for the cool-down", OVERDUE, "stopping", false),
        ("ready", "all are to go", |world| drop(world.tell(Input::Stop)), "stopping", false),
        ("ready", "ended by itself", ENDED, "none", true),
        ("ready", "not registered any more", SILENT, "killed", false),
        ("stopping", "ended", ENDED, "none", false),
        ("stopping", "overdue", OVERDUE, "killed", false),
        ("killed", "ended as it was asked to", ENDED, "none", false),
        ("killed", "killed once", |world| drop(world.tell(Input::Kill)), "killed", false),
    ];
    for (from, edge, take, to, pauses) in table {
        let mut world = world_in(from);
        assert_eq!(state_of(&world), from, "before {edge}");
        take(&mut world);
        assert_eq!((state_of(&world), world.processes.pause_until.is_some()), (to, pauses), "{from}, {edge}");
    }
}
