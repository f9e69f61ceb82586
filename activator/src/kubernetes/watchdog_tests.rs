//! Looks and patches of the watchdog, on virtual time.

use liveedgecast_common::testkit::origin;

use super::*;

const WAITS: Shortage = Shortage { unplaced: 1, workers: 0, wanted: 1 };

fn scale(wanted: i32) -> Scale {
    Scale { wanted, there: wanted, version: Some("7".into()) }
}

/// A watchdog, an API with a number of pods (`None`: calls fail), and the events so far with their times in milliseconds.
struct World {
    now: Instant,
    start: Instant,
    dog: Watchdog,
    pods: Option<i32>,
    /// True if another client changes the number before every patch.
    raced: bool,
    seen: Vec<(u128, String)>,
}

impl World {
    fn new(pods: Option<i32>) -> Self {
        let now = origin();
        Self { now, start: now, dog: Watchdog::new(20), pods, raced: false, seen: Vec::new() }
    }

    fn asked(&mut self, asked: Shortage) {
        self.told(asked, true);
    }

    fn told(&mut self, asked: Shortage, ours: bool) {
        self.dog.handle(self.now, asked, ours);
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.dog.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.dog.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        while let Some(output) = self.dog.poll_output() {
            let at = (self.now - self.start).as_millis();
            match output {
                Output::Look => {
                    let answer = self.pods.map_or(ScaleAnswer::Failed, |pods| ScaleAnswer::Scale(scale(pods)));
                    self.dog.answered(self.now, answer);
                }
                Output::Patch { from, to } => {
                    assert!(to > from.wanted, "never lower: {from:?} {to}");
                    let answer = if self.raced { ScaleAnswer::Changed } else { ScaleAnswer::Patched };
                    self.pods = if self.raced { Some(to) } else { self.pods.map(|_| to) };
                    self.seen.push((at, format!("{} -> {to}", from.wanted)));
                    self.dog.answered(self.now, answer);
                }
                Output::Note(outcome, _) => self.seen.push((at, outcome.as_str().to_owned())),
            }
        }
    }

    fn seen(&self) -> Vec<(u128, &str)> {
        self.seen.iter().map(|(at, what)| (*at, what.as_str())).collect()
    }
}

#[test]
fn worker_is_added_once_after_five_seconds_without_progress() {
    let mut world = World::new(Some(0));
    world.asked(WAITS);
    world.pass(Duration::from_millis(4999));
    assert_eq!(world.seen(), []);
    world.pass(Duration::from_secs(120));
    let expected = [
        (5000, "0 -> 1"),
        (5000, "patched"),
        (10_000, "enough"),
        (20_000, "enough"),
        (40_000, "enough"),
        (80_000, "enough"),
    ];
    assert_eq!(world.seen(), expected, "a pod that does not come is not replaced by ever more");
}

#[test]
fn wait_starts_anew_when_a_worker_registers() {
    let mut world = World::new(Some(1));
    world.asked(Shortage { unplaced: 9, workers: 0, wanted: 2 });
    world.pass(Duration::from_secs(4));
    world.asked(Shortage { unplaced: 5, workers: 1, wanted: 3 });
    world.pass(Duration::from_millis(4999));
    assert_eq!(world.seen(), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.seen(), [(9000, "1 -> 3"), (9000, "patched")]);
}

#[test]
fn wait_ends_when_every_stream_has_a_place() {
    let mut world = World::new(Some(0));
    world.asked(WAITS);
    world.pass(Duration::from_secs(4));
    world.asked(Shortage { unplaced: 0, workers: 1, wanted: 1 });
    world.pass(Duration::from_secs(4));
    world.asked(Shortage { unplaced: 1, workers: 1, wanted: 2 });
    world.pass(Duration::from_millis(4999));
    assert_eq!((world.seen(), world.dog.poll_timeout().is_some()), (vec![], true));
    world.asked(Shortage { unplaced: 0, workers: 1, wanted: 1 });
    assert_eq!(world.dog.poll_timeout(), None, "nobody waits, nothing is due");
}

#[test]
fn watchdog_does_nothing_until_this_activator_is_the_one_to_act() {
    let mut world = World::new(Some(0));
    world.told(WAITS, false);
    assert_eq!(world.dog.poll_timeout(), None);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.seen(), []);
    world.told(WAITS, true);
    assert_eq!(world.seen(), [(60_000, "0 -> 1"), (60_000, "patched")], "at once: it has waited long enough");
}

#[test]
fn pods_are_added_up_to_the_need_and_the_maximum() {
    type Row = (&'static str, Option<i32>, Shortage, &'static [&'static str]);
    let rows: [Row; 6] = [
        ("enough are on their way", Some(2), Shortage { unplaced: 1, workers: 1, wanted: 2 }, &["enough"]),
        ("full up", Some(20), Shortage { unplaced: 1, workers: 20, wanted: 23 }, &["at_most"]),
        ("nearly full up", Some(19), Shortage { unplaced: 1, workers: 19, wanted: 21 }, &["19 -> 20", "patched"]),
        (
            "more than may be, by somebody else's wish",
            Some(30),
            Shortage { unplaced: 1, workers: 30, wanted: 34 },
            &["at_most"],
        ),
        ("no answer", None, WAITS, &["failed"]),
        ("a crowd", Some(1), Shortage { unplaced: 100, workers: 1, wanted: 3 }, &["1 -> 3", "patched"]),
    ];
    for (name, pods, asked, expected) in rows {
        let mut world = World::new(pods);
        world.asked(asked);
        world.pass(PATIENCE);
        let seen: Vec<&str> = world.seen.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn patch_changes_nothing_when_another_activator_was_first() {
    let mut world = World::new(Some(0));
    world.raced = true;
    world.asked(WAITS);
    world.pass(Duration::from_secs(11));
    assert_eq!(world.seen(), [(5000, "0 -> 1"), (5000, "changed"), (10_000, "enough")]);
}

/// The watchdog in a state of the picture.
fn dog_in(state: &str) -> (Watchdog, Instant) {
    let now = origin();
    let mut dog = Watchdog::new(20);
    if state != "calm" {
        dog.handle(now, WAITS, true);
    }
    if matches!(state, "looking" | "patching") {
        dog.handle_timeout(now + PATIENCE);
    }
    if state == "patching" {
        dog.answered(now + PATIENCE, ScaleAnswer::Scale(scale(0)));
    }
    (dog, now + PATIENCE)
}

/// The state of the picture that a watchdog is in.
fn state_of(dog: &mut Watchdog) -> &'static str {
    let mut order = "";
    while let Some(output) = dog.poll_output() {
        order = match output {
            Output::Look => "looking",
            Output::Patch { .. } => "patching",
            Output::Note(..) => order,
        };
    }
    match (dog.waiting, dog.calling) {
        (None, _) => "calm",
        (Some(_), false) => "waiting",
        (Some(_), true) => order,
    }
}

#[test]
fn watchdog_walks_every_edge_of_its_picture() {
    type Step = fn(&mut Watchdog, Instant);
    const PLACED: Shortage = Shortage { unplaced: 0, workers: 1, wanted: 1 };
    const PATCHED: Step = |dog, now| dog.answered(now, ScaleAnswer::Patched);
    const ALL_PLACED: Step = |dog, now| dog.handle(now, PLACED, true);
    let edges: [(&str, &str, Step, &str); 13] = [
        ("calm", "a stream waits", |dog, now| dog.handle(now, WAITS, true), "waiting"),
        ("waiting", "all have their places", ALL_PLACED, "calm"),
        (
            "waiting",
            "a worker registers",
            |dog, now| dog.handle(now, Shortage { workers: 1, ..WAITS }, true),
            "waiting",
        ),
        ("waiting", "5 s, and another one acts", |dog, now| dog.handle(now, WAITS, false), "waiting"),
        ("waiting", "5 s", |dog, now| dog.handle_timeout(now), "looking"),
        ("looking", "fewer than needed", |dog, now| dog.answered(now, ScaleAnswer::Scale(scale(0))), "patching"),
        ("looking", "enough", |dog, now| dog.answered(now, ScaleAnswer::Scale(scale(1))), "waiting"),
        ("looking", "an error", |dog, now| dog.answered(now, ScaleAnswer::Failed), "waiting"),
        ("looking", "all have their places", ALL_PLACED, "calm"),
        ("patching", "patched", PATCHED, "waiting"),
        ("patching", "changed by another client", |dog, now| dog.answered(now, ScaleAnswer::Changed), "waiting"),
        ("patching", "an error", |dog, now| dog.answered(now, ScaleAnswer::Failed), "waiting"),
        ("patching", "all have their places", ALL_PLACED, "calm"),
    ];
    for (from, edge, step, to) in edges {
        let (mut dog, now) = dog_in(from);
        assert_eq!(state_of(&mut dog), from, "{from}");
        step(&mut dog, now);
        assert_eq!(state_of(&mut dog), to, "{from}: {edge}");
    }
}
