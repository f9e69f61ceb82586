//! The cost of losing a pod. In: the workers and their streams, time, results of patches. Out: patches. Pure. Next: `task`, which sends
//! the patches.
//!
//! A ReplicaSet that shrinks removes pods of the lowest cost first, among those that are ready. The levels are few (idle, then by powers
//! of two), so that a pod is patched only when its worker reaches another level: soon when the cost rises, later when it falls, and at
//! once when the worker is to be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Cost of a worker that may be removed.
const LEAVING: i32 = -1000;
/// Cost of an idle worker. A pod without the annotation has cost 0.
const IDLE: i32 = -100;
/// Cost of a worker with one stream; one more for each doubling.
const BUSY: i32 = 100;
/// Time for which a worker has been dearer than its pod announces before the pod is patched.
const SOON: Duration = Duration::from_secs(1);
/// Time for which a worker has been cheaper than its pod announces before the pod is patched: encoders come back.
const LATER: Duration = Duration::from_secs(10);

/// The load of a worker, as far as it determines the cost of its pod.
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
    /// The cost of the last patch; `None` before the first one, and after a patch whose result is unknown.
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
    /// Takes the present workers by name, and whether this activator is the one to patch pods.
    pub(super) fn handle(&mut self, now: Instant, seen: &BTreeMap<String, PodLoad>, ours: bool) {
        // Another activator may have patched the pods differently meanwhile.
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

    /// The pods that announce the lowest cost.
    pub(super) fn may_go(&self) -> BTreeSet<String> {
        let said = |told: &Told| told.cost == Some(LEAVING) && told.differs.is_none();
        self.told.iter().filter(|(_, told)| said(told)).map(|(name, _)| name.clone()).collect()
    }

    /// The patch to send now, as pod and cost. The next one comes after [`Self::patched`] has taken its result.
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

    /// Takes the result of the patch under way.
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
