//! The cost of losing a pod. In: the workers and their streams, time, results of patches. Out: patches. Pure.
//!
//! A ReplicaSet that shrinks takes pods of the lowest cost first, among those that are ready. The levels are few (idle, then by powers of
//! two), so that a patch goes out only when a worker becomes another one to Kubernetes: soon when it is dearer than it says, later when
//! it is cheaper, at once when it is to go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A worker that may go.
const LEAVING: i32 = -1000;
/// Cost of an idle worker's pod. A pod without the annotation counts as 0.
const IDLE: i32 = -100;
/// A worker with one stream; one more for each doubling.
const BUSY: i32 = 100;
/// How long a worker has been dearer than its pod says before that is told.
const SOON: Duration = Duration::from_secs(1);
/// Time for which a pod has been cheaper before it is told: encoders come back.
const LATER: Duration = Duration::from_secs(10);

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PodLoad {
    /// Streams of the worker.
    pub(super) streams: usize,
    /// True if the pod is to cost least.
    pub(super) may_go: bool,
}

impl PodLoad {
    fn cost(self) -> i32 {
        match self.streams {
            _ if self.may_go => LEAVING,
            0 => IDLE,
            streams => BUSY + i32::try_from(streams.ilog2()).unwrap_or(0),
        }
    }
}

/// The cost that a pod announces.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// `None` before the first patch, and after one of which nothing is known.
    cost: Option<i32>,
    /// Time since which another cost is due, and that cost.
    differs: Option<(Instant, i32)>,
    /// No pod has the worker's name: the worker runs elsewhere, or the pod was removed.
    missing: bool,
}

/// The costs of all pods.
#[derive(Debug, Default)]
pub(super) struct Costs {
    told: BTreeMap<String, Told>,
    ours: bool,
    /// The patch under way.
    calling: Option<(String, i32)>,
}

/// The result of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patched {
    /// The pod announces the cost.
    Done,
    /// No such pod exists.
    Missing,
    /// The result is unknown.
    Failed,
}

impl Costs {
    /// Takes the workers as they are now, and whether this activator is the one to tell pods.
    pub(super) fn handle(&mut self, now: Instant, seen: &BTreeMap<String, PodLoad>, ours: bool) {
        // Whoever told meanwhile may have told otherwise.
        if ours && !self.ours {
            self.told.clear();
        }
        self.ours = ours;
        self.told.retain(|name, _| seen.contains_key(name));
        for (name, seen) in seen {
            let told = self.told.entry(name.clone()).or_default();
            let cost = seen.cost();
            let since = told.differs.filter(|(_, wanted)| *wanted == cost).map_or(now, |(since, _)| since);
            told.differs = (told.cost != Some(cost)).then_some((since, cost));
        }
    }

    /// The pods that say that they may go.
    pub(super) fn may_go(&self) -> BTreeSet<String> {
        let said = |told: &Told| told.cost == Some(LEAVING) && told.differs.is_none();
        self.told.iter().filter(|(_, told)| said(told)).map(|(name, _)| name.clone()).collect()
    }

    /// A patch to send now; [`Self::patched`] tells how it went, and then comes the next.
    pub(super) fn poll_output(&mut self, now: Instant) -> Option<(String, i32)> {
        if !self.ours || self.calling.is_some() {
            return None;
        }
        let due = |told: &Told| told.due().filter(|at| *at <= now).map(|at| (at, told.differs));
        let next = self.told.iter().filter_map(|(name, told)| Some((due(told)?, name))).min()?;
        let ((_, Some((_, cost))), name) = next else { return None };
        self.calling = Some((name.clone(), cost));
        self.calling.clone()
    }

    /// The patch under way has ended.
    pub(super) fn patched(&mut self, now: Instant, how: Patched) {
        let Some((name, cost)) = self.calling.take() else { return };
        let Some(told) = self.told.get_mut(&name) else { return };
        match how {
            Patched::Done => {
                told.cost = Some(cost);
                told.differs = told.differs.filter(|(_, wanted)| *wanted != cost);
            }
            Patched::Missing => told.missing = true,
            Patched::Failed => {
                told.cost = None;
                told.differs = told.differs.map(|(_, wanted)| (now, wanted));
            }
        }
    }

    /// The time at which [`Self::poll_output`] has a patch.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if !self.ours || self.calling.is_some() { None } else { self.told.values().filter_map(Told::due).min() }
    }
}

impl Told {
    fn due(&self) -> Option<Instant> {
        let (since, wanted) = self.differs.filter(|_| !self.missing)?;
        let after = match self.cost {
            _ if wanted == LEAVING => Duration::ZERO,
            Some(cost) if wanted < cost => LATER,
            None if wanted == IDLE => LATER,
            _ => SOON,
        };
        Some(since + after)
    }
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
