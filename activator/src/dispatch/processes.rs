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
    /// Beginning of every process's name. No other activator uses it: after a crash the workers of the one before still run, and are
    /// registered with their names.
    pub prefix: String,
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

/// The way in which a worker process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessOutcome {
    /// It was asked to go.
    Asked,
    /// It went in order without being asked.
    Terminated,
    /// It ended by itself after it had registered.
    Crashed,
    /// It ended, or could not be started, before it had registered.
    AtStart,
    /// It did not register in time and was killed.
    NeverRegistered,
    /// It was silent and was killed.
    Silent,
}

impl ProcessOutcome {
    /// Every outcome, for metrics that exist before the first event.
    pub const ALL: [Self; 6] =
        [Self::Asked, Self::Terminated, Self::Crashed, Self::AtStart, Self::NeverRegistered, Self::Silent];

    /// Label of the outcome in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Terminated => "terminated",
            Self::Crashed => "crashed",
            Self::AtStart => "at_start",
            Self::NeverRegistered => "never_registered",
            Self::Silent => "silent",
        }
    }
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
        /// The kind of the failure.
        how: ProcessOutcome,
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
                self.failed(now, name, ProcessOutcome::AtStart, why, Vec::new());
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
            let name = format!("{}-{}", self.rules.prefix, self.started);
            self.all.insert(name.clone(), Process { state: State::Asked, asked: now, spawned: None });
            self.outputs.push_back(Output::Spawn(name));
        }
    }

    fn ended(&mut self, now: Instant, name: String, end: ProcessEnd) {
        let Some(process) = self.all.remove(&name) else { return };
        let ProcessEnd { status, in_order, last_words } = end;
        match process.state {
            State::Asked | State::Starting { .. } => {
                self.failed(
                    now,
                    name,
                    ProcessOutcome::AtStart,
                    format!("it ended before it had registered: {status}"),
                    last_words,
                );
            }
            State::Killed(KillReason::NeverRegistered) => {
                let why = format!("it had not registered within {} s and was killed", REGISTER_TIMEOUT.as_secs());
                self.failed(now, name, ProcessOutcome::NeverRegistered, why, last_words);
            }
            State::Killed(KillReason::Silent) => {
                let why = format!(
                    "it gave no sign of life any more, for {} s at last, and was killed",
                    SILENT_TIMEOUT.as_secs()
                );
                self.failed(now, name, ProcessOutcome::Silent, why, last_words);
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
                let why = format!("it ended without being asked: {status}");
                self.failed(now, name, ProcessOutcome::Crashed, why, last_words);
            }
            State::Stopping { .. } | State::Killed(KillReason::Asked) => {
                self.backoff.reset();
                self.outputs.push_back(Output::Gone(name));
            }
        }
    }

    fn failed(&mut self, now: Instant, name: String, how: ProcessOutcome, why: String, last_words: Vec<String>) {
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
#[path = "processes_tests.rs"]
mod tests;
