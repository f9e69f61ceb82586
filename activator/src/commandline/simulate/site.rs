//! One site in virtual time. In: its streams, a policy. Out: what its workers would have cost, and what its publishers would have waited. Pure.
//!
//! The rules are the activator's own: [`Processes`] starts and stops the workers of a process fleet, [`Trigger`] says how many KEDA is told, and
//! [`rank`] chooses the worker of a stream. What KEDA itself does is written down here: it adds what it is told, and removes all workers when there has
//! been no demand for its cool-down.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::history::Broadcast;
use super::policy::KeepingPolicy;
use crate::dispatch::processes::{
    Input as ProcessInput, Output as ProcessOutput, ProcessEnd, Processes, Rules as ProcessRules,
};
use crate::dispatch::{Need, rank};
use crate::scaler::Trigger;

/// How workers are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SimulatedFleet {
    /// As processes of the activator.
    Process,
    /// By KEDA.
    External,
}

/// The numbers that hold for every site.
#[derive(Clone, Debug)]
pub(super) struct SimulationRules {
    pub(super) fleet: SimulatedFleet,
    pub(super) capacity: usize,
    pub(super) most: usize,
    pub(super) cooldown: Duration,
    /// Time from the order to the registration of a worker.
    pub(super) start_time: Duration,
    /// The beginning and the end of the time that counts, in milliseconds since 1970.
    pub(super) from: u64,
    pub(super) to: u64,
    /// The moment of `from` by the machines' clock.
    pub(super) origin: Instant,
}

/// The cost of one site, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct SiteCost {
    /// Milliseconds of all workers together.
    #[serde(skip)]
    pub(super) worker_millis: u64,
    /// Streams that began without a free place on a worker.
    pub(super) cold_starts: u64,
    /// Milliseconds that publishers waited.
    #[serde(skip)]
    pub(super) waited_millis: u64,
    /// The longest wait, in milliseconds.
    #[serde(skip)]
    pub(super) longest_millis: u64,
    /// Streams that ended before a worker was there.
    pub(super) unserved: u64,
    /// The most workers at once, over all sites if each had its most at once.
    pub(super) most_workers: u64,
}

impl SiteCost {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            worker_millis: self.worker_millis + other.worker_millis,
            cold_starts: self.cold_starts + other.cold_starts,
            waited_millis: self.waited_millis + other.waited_millis,
            longest_millis: self.longest_millis.max(other.longest_millis),
            unserved: self.unserved + other.unserved,
            most_workers: self.most_workers + other.most_workers,
        }
    }
}

/// The most streams at once.
pub(super) fn peak(streams: &[Broadcast]) -> usize {
    let mut ends = BinaryHeap::new();
    let mut most = 0;
    for stream in streams.iter().filter(|stream| stream.end > stream.start) {
        while ends.peek().is_some_and(|Reverse(end)| *end <= stream.start) {
            ends.pop();
        }
        ends.push(Reverse(stream.end));
        most = most.max(ends.len());
    }
    most
}

#[derive(Clone, Debug)]
struct SimulatedWorker {
    since: u64,
    streams: usize,
    /// It runs in any case, by the policy.
    kept: bool,
    /// Its window is over: it goes when it is idle. Until then it takes streams, as a worker does that KEDA has no reason to remove.
    leaving: bool,
}

struct Site<'a> {
    rules: &'a SimulationRules,
    policy: &'a KeepingPolicy,
    peak: usize,
    trigger: Trigger,
    processes: Processes,
    now: u64,
    /// Registered workers by the number of their arrival.
    workers: BTreeMap<u64, SimulatedWorker>,
    arrived: u64,
    /// Workers that have been ordered: the time of their registration, that of the order, and their name in the machine.
    starting: VecDeque<(u64, u64, String)>,
    /// The names that the machine of processes has for workers.
    names: BTreeMap<String, u64>,
    waiting: BTreeSet<usize>,
    /// Streams that are served: end, number, worker.
    live: BinaryHeap<Reverse<(u64, usize, u64)>>,
    /// Ends of streams that wait.
    patience: BinaryHeap<Reverse<(u64, usize)>>,
    idle_since: Option<u64>,
    cost: SiteCost,
}

/// The cost of a site under a policy.
pub(super) fn simulate(streams: &[Broadcast], policy: &KeepingPolicy, rules: &SimulationRules) -> SiteCost {
    let capacity = rules.capacity.max(1);
    let peak = peak(streams).div_ceil(capacity).min(rules.most);
    let processes = Processes::new(ProcessRules {
        prefix: "w".to_owned(),
        // Workers that run in any case count, too.
        most: rules.most.saturating_sub(policy.most_kept(peak)),
        capacity,
        cooldown: rules.cooldown,
        drain: Duration::from_secs(8),
        seed: 1,
    });
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let trigger = Trigger { app: None, target: capacity as f64, idle_may_go: false };
    let mut site = Site {
        rules,
        policy,
        peak,
        trigger,
        processes,
        now: rules.from,
        workers: BTreeMap::new(),
        arrived: 0,
        starting: VecDeque::new(),
        names: BTreeMap::new(),
        waiting: BTreeSet::new(),
        live: BinaryHeap::new(),
        patience: BinaryHeap::new(),
        idle_since: None,
        cost: SiteCost::default(),
    };
    site.run(streams);
    site.cost
}

impl Site<'_> {
    fn run(&mut self, streams: &[Broadcast]) {
        self.keep();
        let mut next = 0;
        loop {
            let start = streams.get(next).map(|stream| stream.start.max(self.rules.from));
            let Some(then) = start.into_iter().chain(self.due()).min().filter(|then| *then < self.rules.to) else {
                break;
            };
            self.now = self.now.max(then);
            self.ends(streams);
            while let Some(stream) = streams.get(next).filter(|stream| stream.start <= self.now) {
                if stream.end > stream.start {
                    self.waiting.insert(next);
                    self.patience.push(Reverse((stream.end, next)));
                    if !self.has_room() {
                        self.cost.cold_starts += 1;
                    }
                    self.place(streams);
                }
                next += 1;
            }
            self.keep();
            self.registrations();
            self.place(streams);
            self.order();
        }
        self.now = self.rules.to;
        for worker in std::mem::take(&mut self.workers).into_values() {
            self.pay(worker.since);
        }
        for (_, ordered, _) in std::mem::take(&mut self.starting) {
            self.pay(ordered);
        }
    }

    /// The moment by the machines' clock.
    fn moment(&self) -> Instant {
        self.rules.origin + Duration::from_millis(self.now - self.rules.from)
    }

    /// The next time at which something happens by itself.
    fn due(&self) -> Option<u64> {
        let millis = |at: Instant| {
            // Rounded up: the machine is not due before.
            let after = at.saturating_duration_since(self.rules.origin);
            self.rules.from + u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
        };
        let machine = match self.rules.fleet {
            SimulatedFleet::Process => self.processes.poll_timeout().map(millis),
            SimulatedFleet::External => {
                let has_some = self.workers.values().any(|worker| !worker.kept);
                self.idle_since.filter(|_| has_some).map(|since| since + self.cooldown())
            }
        };
        let live = self.live.peek().map(|Reverse((end, _, _))| *end);
        let patience = self.patience.peek().map(|Reverse((end, _))| *end);
        let registration = self.starting.front().map(|(at, _, _)| *at);
        [machine, live, patience, registration, self.policy.next_change(self.now)].into_iter().flatten().min()
    }

    fn cooldown(&self) -> u64 {
        u64::try_from(self.rules.cooldown.as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends the streams that are over.
    fn ends(&mut self, streams: &[Broadcast]) {
        while let Some(Reverse((_, _, worker))) =
            self.live.peek().filter(|Reverse((end, _, _))| *end <= self.now).copied()
        {
            self.live.pop();
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.streams -= 1;
            }
        }
        while let Some(Reverse((_, stream))) =
            self.patience.peek().filter(|Reverse((end, _))| *end <= self.now).copied()
        {
            self.patience.pop();
            if self.waiting.remove(&stream) {
                self.cost.unserved += 1;
                self.waited(streams[stream].length());
            }
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() <= self.workers.values().map(|worker| self.room(worker)).sum()
    }

    fn room(&self, worker: &SimulatedWorker) -> usize {
        self.rules.capacity.saturating_sub(worker.streams)
    }

    /// Gives the streams that wait to workers, the first one first.
    fn place(&mut self, streams: &[Broadcast]) {
        while let Some(stream) = self.waiting.first().copied() {
            let free = self.workers.iter().filter(|(_, worker)| self.room(worker) > 0);
            let Some(number) =
                free.max_by_key(|(number, worker)| rank(worker.streams, **number)).map(|(number, _)| *number)
            else {
                return;
            };
            self.waiting.remove(&stream);
            let Broadcast { start, end } = streams[stream];
            self.waited(Duration::from_millis(self.now.saturating_sub(start.max(self.rules.from))));
            if let Some(worker) = self.workers.get_mut(&number) {
                worker.streams += 1;
            }
            self.live.push(Reverse((end, stream, number)));
        }
    }

    fn waited(&mut self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.cost.waited_millis += millis;
        self.cost.longest_millis = self.cost.longest_millis.max(millis);
    }

    /// Has as many workers run in any case as the policy says.
    fn keep(&mut self) {
        let wanted = self.policy.kept(self.now, self.peak).min(self.rules.most);
        let kept = self.workers.values().filter(|worker| worker.kept && !worker.leaving).count();
        for _ in kept..wanted {
            self.joins(self.now, true);
        }
        let mut surplus = kept.saturating_sub(wanted);
        for worker in self.workers.values_mut().filter(|worker| worker.kept && !worker.leaving) {
            if surplus == 0 {
                break;
            }
            worker.leaving = true;
            surplus -= 1;
        }
        let over: Vec<u64> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.leaving && worker.streams == 0)
            .map(|(number, _)| *number)
            .collect();
        over.into_iter().for_each(|number| self.goes(number));
    }

    fn joins(&mut self, since: u64, kept: bool) -> u64 {
        self.arrived += 1;
        self.workers.insert(self.arrived, SimulatedWorker { since, streams: 0, kept, leaving: false });
        self.cost.most_workers = self.cost.most_workers.max(self.workers.len() as u64);
        self.arrived
    }

    fn goes(&mut self, number: u64) {
        if let Some(worker) = self.workers.remove(&number) {
            self.pay(worker.since);
        }
    }

    fn pay(&mut self, since: u64) {
        self.cost.worker_millis += self.now.saturating_sub(since);
    }

    /// Lets the workers in that have started.
    fn registrations(&mut self) {
        while self.starting.front().is_some_and(|(at, _, _)| *at <= self.now) {
            let Some((_, ordered, name)) = self.starting.pop_front() else { return };
            let number = self.joins(ordered, false);
            if !name.is_empty() {
                self.names.insert(name, number);
            }
        }
    }

    /// Asks the rules of the fleet.
    fn order(&mut self) {
        match self.rules.fleet {
            SimulatedFleet::Process => self.order_processes(),
            SimulatedFleet::External => self.order_replicas(),
        }
    }

    fn order_processes(&mut self) {
        let now = self.moment();
        let shortage = self.waiting.len();
        let Self { names, workers, processes, .. } = self;
        let busy = names.iter().filter_map(|(name, number)| Some((name.as_str(), workers.get(number)?.streams > 0)));
        processes.look(now, shortage, busy);
        processes.handle_timeout(now);
        while let Some(output) = self.processes.poll_output() {
            match output {
                ProcessOutput::Spawn(name) => {
                    self.processes.handle(now, ProcessInput::Spawned(name.clone()));
                    self.starts(name);
                }
                ProcessOutput::Stop(name) | ProcessOutput::Kill(name) => {
                    let end = ProcessEnd { status: String::new(), in_order: true, last_words: Vec::new() };
                    if let Some(number) = self.names.remove(&name) {
                        self.goes(number);
                    }
                    self.processes.handle(now, ProcessInput::Ended(name, end));
                }
                ProcessOutput::Failed { .. } | ProcessOutput::Gone(_) | ProcessOutput::Terminated(_) => {}
            }
        }
    }

    fn starts(&mut self, name: String) {
        let at = self.now + u64::try_from(self.rules.start_time.as_millis()).unwrap_or(u64::MAX);
        self.starting.push_back((at, self.now, name));
    }

    fn order_replicas(&mut self) {
        let live = self.live.len();
        let demand = self.waiting.len() + live;
        let need = Need {
            waiting: self.waiting.len(),
            live,
            unplaced: self.waiting.len(),
            workers: self.workers.len(),
            busy: self.workers.values().filter(|worker| worker.streams > 0).count(),
            ..Need::default()
        };
        let wanted = self.trigger.workers(&need).min(self.rules.most);
        for _ in self.workers.len() + self.starting.len()..wanted {
            self.starts(String::new());
        }
        match (demand, self.idle_since) {
            (0, None) => self.idle_since = Some(self.now),
            (0, Some(since)) if self.now >= since + self.cooldown() => {
                let all: Vec<u64> =
                    self.workers.iter().filter(|(_, worker)| !worker.kept).map(|(number, _)| *number).collect();
                all.into_iter().for_each(|number| self.goes(number));
            }
            (0, Some(_)) => {}
            _ => self.idle_since = None,
        }
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
