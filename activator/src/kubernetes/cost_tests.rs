//! Patches of pods and their times, on virtual time.

use liveedgecast_common::testkit::origin;

use super::*;

struct World {
    start: Instant,
    now: Instant,
    costs: Costs,
    workers: BTreeMap<String, PodLoad>,
    told: Vec<(u64, String, i32)>,
    how: Patched,
}

impl World {
    fn new() -> Self {
        let now = origin();
        let costs = Costs::default();
        Self { start: now, now, costs, workers: BTreeMap::new(), told: vec![], how: Patched::Done }
    }

    fn set(&mut self, name: &str, streams: usize, may_go: bool) {
        self.workers.insert(name.to_owned(), PodLoad { streams, may_go });
        self.look(true);
    }

    fn look(&mut self, ours: bool) {
        self.costs.handle(self.now, &self.workers, ours);
        while let Some((name, cost)) = self.costs.poll_output(self.now) {
            assert_eq!(self.costs.poll_output(self.now), None, "one at a time");
            self.told.push(((self.now - self.start).as_millis() as u64, name, cost));
            self.costs.patched(self.now, self.how);
            self.costs.handle(self.now, &self.workers, ours);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.costs.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.look(true);
        }
        self.now = end;
    }

    fn told(&self) -> Vec<(u64, &str, i32)> {
        self.told.iter().map(|(at, name, cost)| (*at, name.as_str(), *cost)).collect()
    }
}

#[test]
fn pod_is_patched_only_when_its_worker_reaches_another_level() {
    let mut world = World::new();
    world.set("a", 0, false);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.told(), [(10_000, "a", -100)]);
    world.set("a", 1, false);
    world.pass(Duration::from_secs(60));
    for streams in [2, 3, 2, 4, 7, 8] {
        world.set("a", streams, false);
        world.pass(Duration::from_secs(60));
    }
    let costs: Vec<i32> = world.told.iter().map(|(_, _, cost)| *cost).collect();
    assert_eq!(costs, [-100, 100, 101, 102, 103], "by powers of two");
    assert_eq!(world.told()[1], (61_000, "a", 100), "dearer: soon");
}

#[test]
fn pod_is_not_patched_when_a_change_of_load_is_short() {
    let mut world = World::new();
    world.set("a", 4, false);
    world.pass(Duration::from_secs(5));
    for _ in 0..10 {
        world.set("a", 0, false);
        world.pass(Duration::from_secs(9));
        world.set("a", 4, false);
        world.pass(Duration::from_millis(900));
    }
    assert_eq!(world.told(), [(1000, "a", 102)]);
}

#[test]
fn pod_is_patched_at_once_when_its_worker_may_go() {
    let mut world = World::new();
    world.set("a", 0, false);
    world.set("b", 1, false);
    world.pass(Duration::from_millis(1500));
    world.set("a", 0, true);
    assert_eq!(world.told(), [(1000, "b", 100), (1500, "a", -1000)]);
    assert_eq!(world.costs.may_go(), BTreeSet::from(["a".to_owned()]));
    world.set("a", 0, false);
    assert!(world.costs.may_go().is_empty());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.told().last(), Some(&(2500, "a", -100)));
}

#[test]
fn failed_patch_is_repeated_unless_the_pod_is_missing() {
    let mut world = World::new();
    world.how = Patched::Failed;
    world.set("a", 1, false);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.told.len(), 3);
    assert!(world.costs.may_go().is_empty());
    world.how = Patched::Missing;
    world.pass(Duration::from_secs(100));
    assert_eq!(world.told.len(), 4);
    world.set("a", 8, false);
    world.pass(Duration::from_secs(100));
    assert_eq!((world.told.len(), world.costs.poll_timeout()), (4, None));
}

#[test]
fn all_pods_are_patched_again_when_this_activator_begins_to_act() {
    let mut world = World::new();
    world.set("a", 1, false);
    world.pass(Duration::from_secs(5));
    world.look(false);
    assert_eq!(world.costs.poll_timeout(), None);
    world.look(true);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.told(), [(1000, "a", 100), (6000, "a", 100)]);
}
