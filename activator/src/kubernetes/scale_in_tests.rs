//! Cordons, releases and recalls of workers, on virtual time.

use liveedgecast_common::testkit::origin;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(30);
/// Time for which a worker stays closed after its pod might have been removed.
const RETURN_AFTER: Duration = Duration::from_secs(6);

/// Workers that obey orders, and pods that announce the costs that are set, unless a test says otherwise.
struct World {
    start: Instant,
    now: Instant,
    machine: ScaleIn,
    view: WorkersView,
    opens_at: BTreeMap<String, Instant>,
    /// Number of waiting streams.
    waiting: usize,
    /// Number of pods without a registered worker.
    more_pods: i32,
    marking: bool,
    obeying: bool,
    done: Vec<(u64, Output)>,
}

impl World {
    fn new(workers: &[(&str, usize)]) -> Self {
        let now = origin();
        let workers = workers.iter().map(|(name, streams)| {
            ((*name).to_owned(), WorkerLoad { streams: *streams, capacity: 2, word: Word::Open })
        });
        let mut world = Self {
            start: now,
            now,
            machine: ScaleIn::new(COOLDOWN),
            view: WorkersView { workers: workers.collect(), ours: true, ..WorkersView::default() },
            opens_at: BTreeMap::new(),
            waiting: 0,
            more_pods: 0,
            marking: true,
            obeying: true,
            done: vec![],
        };
        world.look();
        world
    }

    fn change(&mut self, change: impl FnOnce(&mut WorkersView)) {
        change(&mut self.view);
        self.look();
    }

    fn wait(&mut self, streams: usize) {
        self.waiting = streams;
        self.look();
    }

    fn streams(&mut self, name: &str, streams: usize) {
        self.change(|view| view.workers.get_mut(name).unwrap().streams = streams);
    }

    fn look(&mut self) {
        loop {
            let streams: usize = self.view.workers.values().map(|seen| seen.streams).sum();
            let open = self.view.workers.values().filter(|seen| seen.word == Word::Open);
            let room: usize = open.map(|seen| seen.capacity - seen.streams).sum();
            self.view.cut_off = self.waiting.saturating_sub(room);
            self.view.needed = (streams + self.waiting + self.view.unplaced).div_ceil(2);
            self.view.may_go = self.machine.marked().filter(|_| self.marking).map(str::to_owned).collect();
            self.machine.handle(self.now, self.view.clone());
            let Some(output) = self.machine.poll_output() else {
                let marked = self.machine.marked().filter(|_| self.marking);
                if self.view.may_go.iter().map(String::as_str).eq(marked) {
                    return;
                }
                continue;
            };
            self.done.push(((self.now - self.start).as_millis() as u64, output.clone()));
            let obeying = self.obeying;
            let word = |view: &mut WorkersView, name: &str, word| {
                view.workers.get_mut(name).into_iter().filter(|_| obeying).for_each(|seen| seen.word = word);
            };
            match output {
                Output::Cordon(name) => word(&mut self.view, &name, Word::Cordoned),
                Output::Leave(name) => word(&mut self.view, &name, Word::Leaving),
                Output::Return(name) => {
                    let was = self.view.workers.get(&name).map(|seen| seen.word);
                    let after = if was == Some(Word::Leaving) { RETURN_AFTER } else { Duration::ZERO };
                    word(&mut self.view, &name, Word::Cordoned);
                    self.opens_at.insert(name, self.now + after);
                    self.open();
                }
                Output::Count => {
                    let workers = self.view.workers.values().filter(|seen| seen.word != Word::Draining).count();
                    let pods = i32::try_from(workers).unwrap() + self.more_pods;
                    self.machine.counted(self.now, Some(&Scale { wanted: pods, there: pods, version: None }));
                }
            }
        }
    }

    fn open(&mut self) {
        let due: Vec<String> =
            self.opens_at.iter().filter(|(_, at)| **at <= self.now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.opens_at.remove(&name);
            self.view.workers.get_mut(&name).into_iter().for_each(|seen| seen.word = Word::Open);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.machine.poll_timeout().into_iter().chain(self.opens_at.values().copied()).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.open();
            self.look();
        }
        self.now = end;
    }

    /// Outputs since the last look.
    fn done(&mut self) -> Vec<(u64, String)> {
        let done = std::mem::take(&mut self.done);
        let shown = |output| match output {
            Output::Cordon(name) => format!("Cordon {name}"),
            Output::Leave(name) => format!("Leave {name}"),
            Output::Return(name) => format!("Return {name}"),
            Output::Count => "Count".to_owned(),
        };
        done.into_iter().map(|(at, output)| (at, shown(output))).collect()
    }
}

fn rows(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
    rows.iter().map(|(at, what)| (*at, (*what).to_owned())).collect()
}

#[test]
fn idle_worker_is_released_after_its_pod_is_marked_and_pods_are_counted() {
    let mut world = World::new(&[("busy", 1), ("idle", 0)]);
    world.pass(COOLDOWN - Duration::from_millis(1));
    assert_eq!(world.done(), []);
    world.pass(Duration::from_secs(300));
    let expected = [(30_000, "Cordon idle"), (30_000, "Count"), (32_000, "Leave idle")];
    assert_eq!(world.done(), rows(&expected));
    world.change(|view| _ = view.workers.remove("idle"));
    world.pass(Duration::from_secs(300));
    assert_eq!(world.done(), [], "a last one stays, for KEDA to take");
}

#[test]
fn idle_workers_are_released_one_by_one_while_others_suffice() {
    let mut world = World::new(&[("a", 1), ("b", 0), ("c", 0), ("d", 1)]);
    world.pass(Duration::from_secs(60));
    let expected = [
        (30_000, "Cordon b"),
        (30_000, "Count"),
        (32_000, "Leave b"),
        (32_000, "Cordon c"),
        (32_000, "Count"),
        (34_000, "Leave c"),
    ];
    assert_eq!(world.done(), rows(&expected));
    // No stream is live, but one worker stays open.
    let mut world = World::new(&[("a", 0), ("b", 0)]);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.done().len(), 3);
}

#[test]
fn unreleased_workers_are_recalled_first_when_demand_rises() {
    let mut world = World::new(&[("a", 2), ("b", 0), ("c", 0)]);
    world.marking = false;
    world.pass(COOLDOWN);
    assert_eq!(world.done(), rows(&[(30_000, "Cordon b")]), "its pod does not say it yet");
    world.marking = true;
    world.pass(Duration::from_secs(1));
    world.look();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.done(), rows(&[(31_000, "Count"), (33_000, "Leave b"), (33_000, "Cordon c"), (33_000, "Count")]));
    world.wait(1);
    assert_eq!(world.done(), rows(&[(33_000, "Return c")]));
    world.wait(0);
    world.streams("c", 2);
    world.wait(1);
    assert_eq!(world.done(), rows(&[(33_000, "Return b")]));
    world.pass(RETURN_AFTER - Duration::from_millis(1));
    assert_eq!(world.view.workers["b"].word, Word::Cordoned);
    world.pass(Duration::from_millis(1));
    assert_eq!((world.view.workers["b"].word, world.done()), (Word::Open, vec![]));
}

#[test]
fn worker_is_recalled_when_an_offer_preceded_its_cordon() {
    let mut world = World::new(&[("a", 1), ("b", 0)]);
    world.obeying = false;
    world.pass(COOLDOWN);
    assert_eq!(world.done(), rows(&[(30_000, "Cordon b")]));
    world.change(|view| {
        *view.workers.get_mut("b").unwrap() = WorkerLoad { streams: 1, capacity: 2, word: Word::Cordoned }
    });
    assert_eq!(world.done(), rows(&[(30_000, "Return b")]));
}

#[test]
fn no_worker_is_released_while_pods_and_workers_differ() {
    let mut world = World::new(&[("a", 1), ("b", 0)]);
    world.more_pods = 1;
    world.pass(COOLDOWN + 2 * COUNT_AGAIN);
    assert_eq!(world.done(), rows(&[(30_000, "Cordon b"), (30_000, "Count"), (40_000, "Count"), (50_000, "Count")]));
    world.more_pods = 0;
    world.pass(COUNT_AGAIN + SETTLE);
    assert_eq!(world.done(), rows(&[(60_000, "Count"), (62_000, "Leave b")]));
}

#[test]
fn worker_is_not_cordoned_again_for_a_while_when_it_does_not_answer() {
    let mut world = World::new(&[("a", 1), ("b", 0)]);
    world.obeying = false;
    world.pass(COOLDOWN + CLOSING_TIMEOUT + NOT_AGAIN);
    assert_eq!(world.done(), rows(&[(30_000, "Cordon b"), (35_000, "Return b"), (335_000, "Cordon b")]));
}

#[test]
fn older_worker_is_recalled_when_it_drains_at_a_cordon() {
    let mut world = World::new(&[("a", 1), ("b", 0)]);
    world.obeying = false;
    world.pass(COOLDOWN);
    world.change(|view| view.workers.get_mut("b").unwrap().word = Word::Draining);
    assert_eq!(world.done(), rows(&[(30_000, "Cordon b"), (30_000, "Return b")]));
}

#[test]
fn activator_recalls_unreleased_workers_when_it_stops_acting() {
    let mut world = World::new(&[("a", 1), ("b", 0), ("c", 0)]);
    world.pass(COOLDOWN + SETTLE);
    assert_eq!(world.done().len(), 5, "b may go, c is closed");
    world.change(|view| view.ours = false);
    assert_eq!(world.done(), rows(&[(32_000, "Return c")]));
    world.wait(3);
    assert_eq!(world.done(), [], "there are a and c");
    world.wait(4);
    assert_eq!(world.done(), rows(&[(32_000, "Return b")]), "its own word is taken back by itself");
    world.wait(5);
    assert_eq!(world.done(), [], "b is coming, and there is no other");
    world.pass(Duration::from_secs(600));
    assert_eq!(world.done(), [], "it begins nothing new");
}

#[test]
fn no_worker_is_cordoned_while_streams_wait() {
    let mut world = World::new(&[("a", 2), ("b", 0), ("c", 0)]);
    world.change(|view| view.unplaced = 1);
    world.pass(Duration::from_secs(600));
    assert_eq!((world.done(), world.machine.poll_timeout()), (vec![], None));
}

/// The machine with an idle worker `a` in a stage of the picture, and a busy worker `b`.
fn machine_in(stage: &str) -> (ScaleIn, Instant, WorkersView) {
    let load = |streams| WorkerLoad { streams, capacity: 2, word: Word::Open };
    let workers = BTreeMap::from([("a".to_owned(), load(0)), ("b".to_owned(), load(1))]);
    let mut view = WorkersView { workers, needed: 1, ours: true, ..WorkersView::default() };
    let (mut machine, mut now) = (ScaleIn::new(COOLDOWN), origin());
    machine.handle(now, view.clone());
    type Step = fn(&mut ScaleIn, &mut Instant, &mut WorkersView);
    let steps: [(&str, Step); 5] = [
        ("closing", |_, now, _| *now += COOLDOWN),
        ("marking", |_, _, view| view.workers.get_mut("a").unwrap().word = Word::Cordoned),
        ("counting", |_, _, view| _ = view.may_go.insert("a".to_owned())),
        ("settling", |machine, now, _| machine.counted(*now, Some(&pods(2)))),
        ("leaving", |_, now, _| *now += SETTLE),
    ];
    for (reached, step) in steps {
        if stage_of(&machine) == stage {
            break;
        }
        step(&mut machine, &mut now, &mut view);
        machine.handle(now, view.clone());
        assert_eq!(stage_of(&machine), reached);
    }
    (machine, now, view)
}

fn pods(count: i32) -> Scale {
    Scale { wanted: count, there: count, version: None }
}

/// The stage of worker `a`.
fn stage_of(machine: &ScaleIn) -> &'static str {
    match machine.stages.get("a") {
        None => "open",
        Some(RemovalStage::Closing { .. }) => "closing",
        Some(RemovalStage::Marking) => "marking",
        Some(RemovalStage::Counting { .. }) => "counting",
        Some(RemovalStage::Settling { .. }) => "settling",
        Some(RemovalStage::Leaving) => "leaving",
    }
}

#[test]
fn removal_walks_every_edge_of_its_picture() {
    type Step = fn(&mut ScaleIn, Instant, WorkersView);
    const WAITS: Step = |machine, now, view| machine.handle(now, WorkersView { cut_off: 1, ..view });
    const SERVES: Step = |machine, now, mut view| {
        let a = view.workers.get_mut("a").unwrap();
        (a.streams, a.word) = (1, Word::Cordoned);
        machine.handle(now, view);
    };
    const CORDONED: Step = |machine, now, mut view| {
        view.workers.get_mut("a").unwrap().word = Word::Cordoned;
        machine.handle(now, view);
    };
    const MARKED: Step = |machine, now, mut view| {
        view.may_go.insert("a".to_owned());
        machine.handle(now, view);
    };
    let edges: [(&str, &str, Step, &str); 17] = [
        ("open", "idle for the cool-down", |machine, now, _| machine.handle_timeout(now + COOLDOWN), "closing"),
        ("closing", "reports: cordoned", CORDONED, "marking"),
        ("closing", "does not report", |machine, now, _| machine.handle_timeout(now + CLOSING_TIMEOUT), "open"),
        ("closing", "a stream waits", WAITS, "open"),
        ("closing", "it has a stream", SERVES, "open"),
        ("marking", "its pod tells", MARKED, "counting"),
        ("marking", "a stream waits", WAITS, "open"),
        ("marking", "it has a stream", SERVES, "open"),
        ("counting", "as many pods as workers", |machine, now, _| machine.counted(now, Some(&pods(2))), "settling"),
        ("counting", "more pods than workers", |machine, now, _| machine.counted(now, Some(&pods(3))), "counting"),
        ("counting", "a stream waits", WAITS, "open"),
        ("counting", "it has a stream", SERVES, "open"),
        ("settling", "2 s", |machine, now, _| machine.handle_timeout(now + SETTLE), "leaving"),
        ("settling", "a stream waits", WAITS, "open"),
        ("settling", "it has a stream", SERVES, "open"),
        ("leaving", "a stream waits", WAITS, "open"),
        ("leaving", "it has a stream", SERVES, "open"),
    ];
    for (from, edge, step, to) in edges {
        let (mut machine, now, view) = machine_in(from);
        assert_eq!(stage_of(&machine), from);
        step(&mut machine, now, view);
        assert_eq!(stage_of(&machine), to, "{from}: {edge}");
    }
}
