//! Removal of idle workers while others are busy (`SCALE_IN=idle`). In: the workers' reports, the need, the costs that pods announce,
//! time. Out: cordons. Pure. Next: `task`, which gives the orders to the workers.
//!
//! ```text
//!        not needed, idle for the cool-down        reports: cordoned, idle      its pod tells: costs least
//!  Open ─────────────────────────────────▶ Closing ──────────────────▶ Marking ─────────────────────────▶ Counting
//!   ▲                                        │                            │                                 │ as many pods as workers
//!   │ a stream waits for it, or it has one   │                            │                                 ▼
//!   ├────────────────────────────────────────┴────────────────────────────┴─────────────────────────────── Settling 2 s
//!   │ the same; the worker waits some seconds until neither KEDA nor the HPA can act on the lower number    │
//!   └───────────────────────────────────────────────────────────────────────────────────────────────── Leaving
//! ```
//! The number that KEDA gets falls only from Leaving on, by exactly these workers, so the HPA removes as many pods as there are workers
//! that cost least, take no streams and serve none. The worker is the authority: an offer that it got before the cordon makes it busy,
//! and it declines an offer that comes after. Workers go through the stages before Leaving one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::api::Scale;

/// Time that a worker has to report that it is cordoned. A worker of an older version never does.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a worker that did not report is not asked again.
const NOT_AGAIN: Duration = Duration::from_secs(300);
/// Time between two counts while pods and workers differ.
const COUNT_AGAIN: Duration = Duration::from_secs(10);
/// Time from the pod's announcement to the lower number: the ReplicaSet controller goes by a copy of the pods that is some milliseconds
/// old.
const SETTLE: Duration = Duration::from_secs(2);

/// The availability that a worker reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Word {
    /// The worker takes streams.
    #[default]
    Open,
    /// The worker takes none, because an activator cordoned it.
    Cordoned,
    /// The worker takes none, and its pod may be removed.
    Leaving,
    /// The worker goes down.
    Draining,
}

/// The load of a worker, by its own report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WorkerLoad {
    /// Streams of the worker, offers included.
    pub(super) streams: usize,
    /// Most streams of the worker.
    pub(super) capacity: usize,
    /// Availability by its own report.
    pub(super) word: Word,
}

/// The state on which removals depend.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkersView {
    /// Workers, by name.
    pub(super) workers: BTreeMap<String, WorkerLoad>,
    /// Number of workers that the waiting and live streams need.
    pub(super) needed: usize,
    /// Streams that wait until a cordoned worker is used again.
    pub(super) cut_off: usize,
    /// Streams that wait for more workers.
    pub(super) unplaced: usize,
    /// Pods that announce the lowest cost.
    pub(super) may_go: BTreeSet<String>,
    /// True if this activator is the one to begin with another worker.
    pub(super) ours: bool,
}

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Ask the worker to take no more streams.
    Cordon(String),
    /// Release the worker: its pod may be removed.
    Leave(String),
    /// Ask the worker to take streams again.
    Return(String),
    /// Count the pods.
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemovalStage {
    Closing { until: Instant },
    Marking,
    Counting { at: Instant, calling: bool },
    Settling { until: Instant },
    Leaving,
}

/// See the picture above.
#[derive(Debug)]
pub(super) struct ScaleIn {
    cooldown: Duration,
    view: WorkersView,
    /// Stages of the workers that this activator has cordoned.
    stages: BTreeMap<String, RemovalStage>,
    idle_since: BTreeMap<String, Instant>,
    /// Workers that have been recalled and do not report so yet.
    returning: BTreeSet<String>,
    /// The earliest time of the next cordon, for workers that did not obey the last one.
    not_before: BTreeMap<String, Instant>,
    outputs: Vec<Output>,
}

impl ScaleIn {
    /// A machine without removals. `cooldown`: idle time before a worker is removed.
    pub(super) fn new(cooldown: Duration) -> Self {
        Self {
            cooldown,
            view: WorkersView::default(),
            stages: BTreeMap::new(),
            idle_since: BTreeMap::new(),
            returning: BTreeSet::new(),
            not_before: BTreeMap::new(),
            outputs: Vec::new(),
        }
    }

    /// Workers whose pods are to announce the lowest cost.
    pub(super) fn marked(&self) -> impl Iterator<Item = &str> {
        let marked = self.stages.iter().filter(|(_, stage)| !matches!(stage, RemovalStage::Closing { .. }));
        marked.map(|(name, _)| name.as_str())
    }

    /// Takes a new view.
    pub(super) fn handle(&mut self, now: Instant, view: WorkersView) {
        self.view = view;
        let workers = &self.view.workers;
        self.stages.retain(|name, _| match workers.get(name).map(|seen| seen.word) {
            // A worker of an older version knows no cordon and reports that it drains.
            Some(Word::Draining) => {
                self.outputs.push(Output::Return(name.clone()));
                self.not_before.insert(name.clone(), now + NOT_AGAIN);
                false
            }
            seen => seen.is_some(),
        });
        let closed = |name: &String| workers.get(name).is_some_and(|seen| seen.word != Word::Open);
        self.returning.retain(closed);
        self.not_before.retain(|name, _| workers.contains_key(name));
        self.idle_since.retain(|name, _| workers.get(name).is_some_and(|seen| seen.streams == 0));
        for name in workers.iter().filter(|(_, seen)| seen.streams == 0).map(|(name, _)| name) {
            self.idle_since.entry(name.clone()).or_insert(now);
        }
        self.handle_timeout(now);
    }

    /// Takes the number of pods; `None` if the call failed.
    pub(super) fn counted(&mut self, now: Instant, scale: Option<&Scale>) {
        let workers = self.view.workers.values().filter(|seen| seen.word != Word::Draining).count();
        let equal = |pods: i32| usize::try_from(pods).is_ok_and(|pods| pods == workers);
        let all_known = scale.is_some_and(|scale| equal(scale.wanted) && equal(scale.there));
        for stage in self.stages.values_mut() {
            if let RemovalStage::Counting { calling: true, .. } = stage {
                *stage = match all_known {
                    true => RemovalStage::Settling { until: now + SETTLE },
                    false => RemovalStage::Counting { at: now + COUNT_AGAIN, calling: false },
                };
            }
        }
    }

    /// Recalls workers that are needed, advances the stages, and begins with the next worker.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.take_back(now);
        self.go_on(now);
        self.begin(now);
    }

    /// The time at which [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stages = self.stages.values().filter_map(|stage| match stage {
            RemovalStage::Closing { until } | RemovalStage::Settling { until } => Some(*until),
            RemovalStage::Counting { at, calling: false } => Some(*at),
            RemovalStage::Counting { calling: true, .. } | RemovalStage::Marking | RemovalStage::Leaving => None,
        });
        let begin = self.candidates().map(|(_, at)| at).min();
        stages.chain(begin).min()
    }

    /// The next order to the shell.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        (!self.outputs.is_empty()).then(|| self.outputs.remove(0))
    }

    /// Recalls workers that are needed again, those first that can take streams at once.
    fn take_back(&mut self, now: Instant) {
        let WorkersView { workers, cut_off, ours, .. } = &self.view;
        let seen = |name: &str| workers.get(name).copied().unwrap_or_default();
        let mut back: Vec<String> = Vec::new();
        for (name, stage) in &self.stages {
            let late =
                matches!(stage, RemovalStage::Closing { until } if *until <= now) && seen(name).word == Word::Open;
            if late {
                self.not_before.insert(name.clone(), now + NOT_AGAIN);
            }
            let busy = seen(name).streams > 0 && seen(name).word != Word::Open;
            // The activator that acts now cannot know of a removal that no pod announces yet.
            let unfinished = !ours && *stage != RemovalStage::Leaving;
            if late || busy || unfinished {
                back.push(name.clone());
            }
        }
        let coming: usize = self.returning.iter().chain(&back).map(|name| seen(name).capacity).sum();
        let mut short = cut_off.saturating_sub(coming);
        let mut rest: Vec<(bool, &String)> = self
            .stages
            .iter()
            .filter(|(name, _)| !back.contains(name))
            .map(|(name, stage)| (*stage == RemovalStage::Leaving, name))
            .collect();
        rest.sort();
        for (_, name) in rest {
            if short == 0 {
                break;
            }
            short = short.saturating_sub(seen(name).capacity);
            back.push(name.clone());
        }
        for name in back {
            self.stages.remove(&name);
            // The idle time starts anew, or the worker would be cordoned again before a stream came.
            self.idle_since.insert(name.clone(), now);
            self.outputs.push(Output::Return(name.clone()));
            self.returning.insert(name);
        }
    }

    fn go_on(&mut self, now: Instant) {
        for (name, stage) in &mut self.stages {
            let word = self.view.workers.get(name).map(|seen| seen.word).unwrap_or_default();
            if matches!(stage, RemovalStage::Closing { .. }) && word != Word::Open {
                *stage = RemovalStage::Marking;
            }
            if *stage == RemovalStage::Marking && self.view.may_go.contains(name) {
                *stage = RemovalStage::Counting { at: now, calling: false };
            }
            if let RemovalStage::Counting { at, calling: calling @ false } = stage
                && *at <= now
            {
                *calling = true;
                self.outputs.push(Output::Count);
            }
            if matches!(stage, RemovalStage::Settling { until } if *until <= now) {
                *stage = RemovalStage::Leaving;
                self.outputs.push(Output::Leave(name.clone()));
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        let next = self.candidates().filter(|(_, at)| *at <= now).min_by_key(|(_, at)| *at);
        let Some((name, _)) = next.map(|(name, at)| (name.clone(), at)) else { return };
        self.stages.insert(name.clone(), RemovalStage::Closing { until: now + CLOSING_TIMEOUT });
        self.outputs.push(Output::Cordon(name));
    }

    /// Idle workers that no stream needs, and the time at which the removal of each may begin.
    fn candidates(&self) -> impl Iterator<Item = (&String, Instant)> {
        let WorkersView { workers, needed, cut_off, unplaced, ours, .. } = &self.view;
        let open = || workers.iter().filter(|(name, seen)| seen.word == Word::Open && !self.stages.contains_key(*name));
        let under_way = self.stages.values().any(|stage| *stage != RemovalStage::Leaving);
        let busy = open().filter(|(_, seen)| seen.streams > 0).count();
        let spare = open().count() > (*needed).max(busy).max(1);
        let may = *ours && !under_way && spare && *cut_off == 0 && *unplaced == 0;
        let idle = open().filter(move |(_, seen)| may && seen.streams == 0);
        idle.filter_map(|(name, _)| {
            let idle = *self.idle_since.get(name)? + self.cooldown;
            Some((name, self.not_before.get(name).map_or(idle, |at| idle.max(*at))))
        })
    }
}

#[cfg(test)]
#[path = "scale_in_tests.rs"]
mod tests;
