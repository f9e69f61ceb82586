//! When worker processes are started, stopped and killed.
//!
//! In: the shortage, registrations, ends of processes, time. Out: orders for the shell of `processes`. A worker that runs dials in by
//! itself.
//!
//! ```text
//!         shortage            spawned             registered           idle for the cool-down, or all are to go
//!  (none) ────────▶ Asked ─────────────▶ Starting ───────────▶ Ready ─────────────────────────▶ Stopping ─▶ (ended)
//!                     │ failed              │ not within 10 s    │ ended by itself               │ overdue: killed
//!                     ▼                     ▼                    ▼
//!                  (ended) + pause       Killed ─▶ (ended)    (ended) + pause, if it was young
//!                                         + pause ◀───── not registered any more, or silent, for 3 s: killed
//! ```
//! Note: a worker that registers and dies with its first stream would be a hot loop as tight as one that never registers, so a
//! registration alone does not end the pauses: living for a while, or having been asked to go, does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use liveedgecast_common::backoff::Backoff;

/// Longest time from a process's start to its registration. It takes some ten milliseconds; a loaded machine may need a second.
pub(super) const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Life time after which a worker counts as sound.
const SOUND_AFTER: Duration = Duration::from_secs(10);
/// First pause after a worker that failed: short, because publishers wait, and a worker that was killed is not a broken one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// Longest time from the end of a worker's registration to its own end, if it was not asked to go; and from the time at which it became
/// suspect, which takes two seconds of silence. A worker that lives dials again within a fraction of a second, and says what it serves
/// twice in one; one that hangs (stopped, swapped out, deadlocked) holds its publishers' sockets, which nobody else may touch before, and
/// OBS gives up after 15 s.
const SILENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time beyond its own drain time after which a worker that was asked to go is killed.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// The settings of the process fleet.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Processes at most.
    pub most: usize,
    /// Streams each of them takes.
    pub capacity: usize,
    /// Idle time after which a process is stopped.
    pub cooldown: Duration,
    /// Longest time that a process may take to end when asked.
    pub drain: Duration,
    /// Seed of the jitter of pauses.
    pub seed: u64,
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// The exit status in words.
    pub status: String,
    /// The exit status is that of a worker which was asked to go and completed its drain.
    pub in_order: bool,
    /// The last lines that the process wrote to standard error.
    pub last_words: Vec<String>,
}

/// An event that the shell reports.
#[derive(Clone, Debug)]
pub enum Input {
    /// The process of this name was spawned.
    Spawned(String),
    /// The process of this name could not be spawned, for this reason.
    NotSpawned(String, String),
    /// The process of this name ended and was reaped.
    Ended(String, ProcessEnd),
    /// Every process is asked to go, and no more are started.
    Stop,
    /// Every process that is left is killed, and no more are started.
    Kill,
}

/// An order to the shell, or an event to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start a process of this name; answer with [`Input::Spawned`] or [`Input::NotSpawned`].
    Spawn(String),
    /// Offer it nothing more, then ask it to go (SIGTERM).
    Stop(String),
    /// SIGKILL.
    Kill(String),
    /// Tell the operator that a worker failed.
    Failed {
        /// The name of the worker.
        name: String,
        /// The label of the failure in metrics.
        how: &'static str,
        /// The cause in words.
        why: String,
        /// The last lines of its standard error.
        last_words: Vec<String>,
        /// Pause before another process is started.
        pause: Duration,
    },
    /// A worker ended as asked.
    Gone(String),
    /// A worker that was ready ended in order, and not because we asked: an operator's SIGTERM ended it, or `--exit-when-orphaned` after this
    /// activator had stood still for some seconds.
    Terminated(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Starting {
        until: Instant,
    },
    Ready {
        since: Instant,
        idle_since: Option<Instant>,
        /// Since then the process runs but is not registered, or serves streams and is silent.
        silent_since: Option<Instant>,
    },
    Stopping {
        until: Instant,
    },
    Killed(KillReason),
}

/// Why a process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KillReason {
    NeverRegistered,
    Silent,
    /// The process was asked to go, and did not end in time.
    Asked,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    state: State,
    asked: Instant,
    spawned: Option<Instant>,
}

/// The machine of the picture above.
#[derive(Debug)]
pub struct Processes {
    rules: Rules,
    all: BTreeMap<String, Process>,
    started: u64,
    backoff: Backoff,
    pause_until: Option<Instant>,
    shortage: usize,
    stopping: bool,
    outputs: VecDeque<Output>,
}

impl Processes {
    /// A process fleet without processes.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, MOST_PAUSE, rules.seed);
        Self {
            rules,
            all: BTreeMap::new(),
            started: 0,
            backoff,
            pause_until: None,
            shortage: 0,
            stopping: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input; drain [`Self::poll_output`] afterwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Spawned(name) => {
                if let Some(process) = self.all.get_mut(&name) {
                    process.spawned = Some(now);
                    if process.state == State::Asked {
                        process.state = State::Starting { until: now + REGISTER_TIMEOUT };
                    }
                }
            }
            Input::NotSpawned(name, why) => {
                self.all.remove(&name);
                self.failed(now, name, "at_start", why, Vec::new());
            }
            Input::Ended(name, end) => self.ended(now, name, end),
            Input::Stop => self.stop_all(now),
            Input::Kill => {
                self.stopping = true;
                let names: Vec<String> = self.all.keys().cloned().collect();
                names.into_iter().for_each(|name| self.kill(&name, KillReason::Asked));
            }
        }
        self.start_what_is_needed(now);
    }

    /// How things are: streams that wait without a place, and the registered workers that can be heard, with whether they have anything
    /// to do.
    pub fn look<'a>(&mut self, now: Instant, shortage: usize, registered: impl Iterator<Item = (&'a str, bool)>) {
        self.shortage = shortage;
        let mut silent: BTreeSet<String> = self.all.keys().cloned().collect();
        for (name, busy) in registered {
            silent.remove(name);
            let Some(process) = self.all.get_mut(name) else { continue };
            match &mut process.state {
                State::Asked | State::Starting { .. } => {
                    process.state = State::Ready { since: now, idle_since: (!busy).then_some(now), silent_since: None };
                }
                State::Ready { idle_since, silent_since, .. } => {
                    *silent_since = None;
                    if busy {
                        *idle_since = None;
                    } else {
                        idle_since.get_or_insert(now);
                    }
                }
                State::Stopping { .. } | State::Killed(_) => {}
            }
        }
        for name in silent {
            if let Some(Process { state: State::Ready { silent_since, .. }, .. }) = self.all.get_mut(&name) {
                silent_since.get_or_insert(now);
            }
        }
        self.start_what_is_needed(now);
    }

    /// Carries out everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.pause_until.is_some_and(|until| until <= now) {
            self.pause_until = None;
        }
        if self.sound_at().is_some_and(|at| at <= now) {
            self.backoff.reset();
        }
        let due: Vec<(String, State)> = self
            .all
            .iter()
            .filter(|(_, process)| self.due(process).is_some_and(|at| at <= now))
            .map(|(name, process)| (name.clone(), process.state))
            .collect();
        for (name, state) in due {
            match state {
                State::Starting { .. } => self.kill(&name, KillReason::NeverRegistered),
                State::Stopping { .. } => self.kill(&name, KillReason::Asked),
                State::Ready { silent_since: Some(_), .. } => self.kill(&name, KillReason::Silent),
                State::Ready { .. } => self.stop(now, &name),
                State::Asked | State::Killed(_) => {}
            }
        }
        self.start_what_is_needed(now);
    }

    /// The time at which [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let processes = self.all.values().filter_map(|process| self.due(process));
        let pause = self.pause_until.filter(|_| self.shortage > 0);
        processes.chain(pause).chain(self.sound_at()).min()
    }

    /// The next order or event.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells whether there are as many processes as may be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.all.len() >= self.rules.most
    }

    /// Tells whether there is no process.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Streams each of them takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rules.capacity
    }

    /// The processes that are not registered yet.
    pub fn starting(&self) -> impl Iterator<Item = &str> {
        let starting = |process: &Process| matches!(process.state, State::Asked | State::Starting { .. });
        self.all.iter().filter(move |(_, process)| starting(process)).map(|(name, _)| name.as_str())
    }

    /// The times at which a process was ordered and was spawned.
    #[must_use]
    pub fn times(&self, name: &str) -> Option<(Instant, Instant)> {
        let process = self.all.get(name)?;
        Some((process.asked, process.spawned?))
    }

    fn start_what_is_needed(&mut self, now: Instant) {
        // Processes that are being started will take some of the waiting streams.
        let mut coming = self.starting().count() * self.rules.capacity;
        while !self.stopping && self.shortage > coming && !self.is_full() && self.pause_until.is_none() {
            self.started += 1;
            coming += self.rules.capacity;
            let name = format!("worker-{}", self.started);
            self.all.insert(name.clone(), Process { state: State::Asked, asked: now, spawned: None });
            self.outputs.push_back(Output::Spawn(name));
        }
    }

    fn ended(&mut self, now: Instant, name: String, end: ProcessEnd) {
        let Some(process) = self.all.remove(&name) else { return };
        let ProcessEnd { status, in_order, last_words } = end;
        match process.state {
            State::Asked | State::Starting { .. } => {
                self.failed(now, name, "at_start", format!("it ended before it had registered: {status}"), last_words);
            }
            State::Killed(KillReason::NeverRegistered) => {
                let why = format!("it had not registered within {} s and was killed", REGISTER_TIMEOUT.as_secs());
                self.failed(now, name, "never_registered", why, last_words);
            }
            State::Killed(KillReason::Silent) => {
                let why = format!(
                    "it gave no sign of life any more, for {} s at last, and was killed",
                    SILENT_TIMEOUT.as_secs()
                );
                self.failed(now, name, "silent", why, last_words);
            }
            State::Ready { since, .. } if in_order => {
                if now.saturating_duration_since(since) >= SOUND_AFTER {
                    self.backoff.reset();
                } else {
                    // A worker that registers and leaves at once, again and again, must not be a hot loop either.
                    self.pause_until = Some(now + self.backoff.failed());
                }
                self.outputs.push_back(Output::Terminated(name));
            }
            State::Ready { since, .. } => {
                if now.saturating_duration_since(since) >= SOUND_AFTER {
                    self.backoff.reset();
                }
                self.failed(now, name, "crashed", format!("it ended by itself: {status}"), last_words);
            }
            State::Stopping { .. } | State::Killed(KillReason::Asked) => {
                self.backoff.reset();
                self.outputs.push_back(Output::Gone(name));
            }
        }
    }

    fn failed(&mut self, now: Instant, name: String, how: &'static str, why: String, last_words: Vec<String>) {
        let pause = self.backoff.failed();
        self.pause_until = Some(now + pause);
        self.outputs.push_back(Output::Failed { name, how, why, last_words, pause });
    }

    fn stop_all(&mut self, now: Instant) {
        self.stopping = true;
        let going = |process: &Process| matches!(process.state, State::Stopping { .. } | State::Killed(_));
        let names: Vec<String> =
            self.all.iter().filter(|(_, process)| !going(process)).map(|(name, _)| name.clone()).collect();
        names.into_iter().for_each(|name| self.stop(now, &name));
    }

    fn stop(&mut self, now: Instant, name: &str) {
        if let Some(process) = self.all.get_mut(name) {
            process.state = State::Stopping { until: now + self.rules.drain + STOP_MARGIN };
            self.outputs.push_back(Output::Stop(name.to_owned()));
        }
    }

    fn kill(&mut self, name: &str, why: KillReason) {
        if let Some(process) = self.all.get_mut(name).filter(|process| !matches!(process.state, State::Killed(_))) {
            process.state = State::Killed(why);
            self.outputs.push_back(Output::Kill(name.to_owned()));
        }
    }

    fn due(&self, process: &Process) -> Option<Instant> {
        match process.state {
            State::Starting { until } | State::Stopping { until } => Some(until),
            State::Ready { silent_since: Some(since), .. } => Some(since + SILENT_TIMEOUT),
            // While a stream waits without a place, a free worker is about to be used, or cannot take it: it is not stopped now.
            State::Ready { idle_since, .. } if self.shortage == 0 => {
                idle_since.map(|since| since + self.rules.cooldown)
            }
            State::Ready { .. } | State::Asked | State::Killed(_) => None,
        }
    }

    /// The time at which a worker will have lived long enough to end the pauses.
    fn sound_at(&self) -> Option<Instant> {
        let sound = |process: &Process| match process.state {
            State::Ready { since, .. } => Some(since + SOUND_AFTER),
            _ => None,
        };
        self.all.values().filter_map(sound).min().filter(|_| self.backoff.failures() > 0)
    }
}

#[cfg(test)]
mod tests {
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
            let rules = Rules { most, capacity: 2, cooldown: COOLDOWN, drain: Duration::from_secs(8), seed: 1 };
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
        assert_eq!(world.look(1), spawns(&["worker-1"]));
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
    fn work_that_comes_in_the_cool_down_keeps_the_worker() {
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
            let [Output::Failed { how: "at_start", last_words, pause, why, .. }] = &outputs[..] else {
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
        assert!(matches!(&outputs[..], [Output::Failed { how: "never_registered", .. }]), "{outputs:?}");
    }

    #[test]
    fn a_worker_that_hangs_is_killed_and_one_that_comes_again_is_not() {
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
        assert!(matches!(&outputs[..], [Output::Failed { how: "silent", .. }]), "{outputs:?}");
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
            let [Output::Failed { how: "crashed", pause, .. }] = outputs[..] else { panic!("{outputs:?}") };
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
        assert!(matches!(&outputs[..], [Output::Failed { how: "at_start", .. }]), "it was never ready: {outputs:?}");
    }

    #[test]
    fn a_process_that_cannot_be_spawned_is_a_failure() {
        let mut world = World::new(2);
        world.look(1);
        let outputs = world.tell(Input::NotSpawned("worker-1".into(), "no such file".into()));
        assert!(matches!(&outputs[..], [Output::Failed { how: "at_start", .. }]), "{outputs:?}");
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
}
