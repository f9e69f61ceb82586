//! The shell around `watchdog`, `cost`, `scale_in` and `health`. In: changes of the view of all activators, answers of the API. Out: calls
//! to the API (`api`), cordons ([`crate::lobby`]), log lines.
//! Sleeps without a timer while no stream waits and no worker changes.
#![expect(clippy::disallowed_methods, reason = "shell: tasks, the clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::{Duration, Instant};

use liveedgecast_common::clock::now;
use liveedgecast_common::event;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::api::{Api, Scale};
use super::cost::{Costs, Patched, PodLoad};
use super::error::ApiError;
use super::health::Health;
use super::metrics::{ApiCall, KubernetesMetrics, ScaleInStep, WatchdogOutcome};
use super::scale_in::{self, ScaleIn, Word, WorkerLoad, WorkersView};
use super::watchdog::{self, PATIENCE, ScaleAnswer, Watchdog};
use crate::dispatch::{WorkerState, WorkerView};
use crate::lobby::{Views, WorkerCalls};
use crate::peers::Cluster;
use crate::scaler::Trigger;
use liveedgecast_common::control::Cordon;

/// Time between two looks at changes. Many changes at once are handled as one, because none of them is urgent.
const PAUSE: Duration = Duration::from_millis(200);

/// The handles and settings of the task.
pub struct Room {
    /// Client of the Kubernetes API.
    pub api: Api,
    /// View of all activators.
    pub cluster: Cluster,
    /// Workers that are registered at this activator.
    pub views: Views,
    /// Calls of the workers, to cordon them.
    pub workers: WorkerCalls,
    /// Streams for each worker, at most.
    pub capacity: u32,
    /// Workers at most.
    pub most: usize,
    /// Idle time after which a worker is removed while others are busy; `None` if idle workers stay.
    pub idle_go_after: Option<Duration>,
    /// Metrics of this room.
    pub metrics: KubernetesMetrics,
}

/// The result of a call.
enum Ended {
    Looked(Result<Scale, ApiError>),
    Patched(i32, Result<(), ApiError>),
    Counted(Result<Scale, ApiError>),
    Told(Result<(), ApiError>),
}

/// Runs the machines of this room until the future is dropped.
pub async fn run(room: Room) {
    let mut changes = room.cluster.changes();
    let mut task = Task::new(room);
    let mut quiet = now();
    loop {
        task.act();
        let due = task.poll_timeout();
        let due = async {
            match due {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Ok(()) = async { sleep_until(quiet.into()).await; changes.changed().await } => quiet = now() + PAUSE,
            Some(ended) = task.calls.join_next() => task.ended(ended),
            () = due => {}
        }
    }
}

struct Task {
    room: Room,
    trigger: Trigger,
    health: Health,
    /// Ability to tell pods their cost: an activator whose role forbids that can still add workers.
    telling: Health,
    watchdog: Watchdog,
    costs: Costs,
    scale_in: Option<ScaleIn>,
    /// Calls under way, at most one of each machine: a look or patch, a count, a cost.
    calls: JoinSet<Ended>,
}

impl Task {
    fn new(room: Room) -> Self {
        Self {
            trigger: Trigger { app: None, target: f64::from(room.capacity), idle_may_go: false },
            health: Health::default(),
            telling: Health::default(),
            watchdog: Watchdog::new(room.most),
            costs: Costs::default(),
            scale_in: room.idle_go_after.map(ScaleIn::new),
            calls: JoinSet::new(),
            room,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let scale_in = self.scale_in.as_ref().and_then(ScaleIn::poll_timeout);
        let health = self.health.poll_timeout().into_iter().chain(self.telling.poll_timeout()).min();
        let all = [health, self.watchdog.poll_timeout(), self.costs.poll_timeout(), scale_in];
        all.into_iter().flatten().min()
    }

    /// Gives the present view to every machine and carries out the outputs.
    fn act(&mut self) {
        let now = now();
        self.health.handle_timeout(now);
        self.telling.handle_timeout(now);
        self.room.cluster.set_acts(self.health.is_able());
        let ours = self.room.cluster.is_ours_to_act();
        let (need, workers) = self.room.cluster.known_workers();

        let wanted = self.trigger.workers(&need);
        let asked = watchdog::Shortage { unplaced: need.unplaced, workers: need.workers, wanted };
        self.watchdog.handle(now, asked, ours);
        while let Some(output) = self.watchdog.poll_output() {
            self.watch(output);
        }

        let mut marked = BTreeSet::new();
        if let Some(scale_in) = &mut self.scale_in {
            let view = WorkersView {
                workers: self.room.views.workers().into_iter().filter_map(seen).collect(),
                needed: self.trigger.for_streams(need.demand()),
                cut_off: need.cut_off,
                unplaced: need.unplaced,
                may_go: self.costs.may_go(),
                ours,
            };
            scale_in.handle(now, view);
            marked.extend(scale_in.marked().map(str::to_owned));
            while let Some(output) = scale_in.poll_output() {
                cordon(&self.room, &mut self.calls, output);
            }
        }

        let staying = workers.iter().filter(|(_, worker)| !worker.draining);
        let seen: BTreeMap<String, PodLoad> = staying
            .map(|(name, worker)| {
                let may_go = worker.leaving || marked.contains(name);
                (name.clone(), PodLoad { streams: worker.streams(), may_go })
            })
            .collect();
        self.costs.handle(now, &seen, ours && self.telling.is_able());
        if let Some((pod, cost)) = self.costs.poll_output(now) {
            debug!(event = event::POD_COST_SET, pod, cost, "cost of losing a pod set");
            self.room.metrics.called(ApiCall::PatchPod);
            let api = self.room.api.clone();
            self.calls.spawn(async move { Ended::Told(api.set_cost(&pod, cost).await) });
        }
    }

    fn watch(&mut self, output: watchdog::Output) {
        let api = self.room.api.clone();
        match output {
            watchdog::Output::Look => {
                self.room.metrics.called(ApiCall::GetScale);
                self.calls.spawn(async move { Ended::Looked(api.scale().await) });
            }
            watchdog::Output::Patch { from, to } => {
                self.room.metrics.called(ApiCall::PatchScale);
                self.calls.spawn(async move { Ended::Patched(to, api.change_scale(&from, to).await) });
            }
            watchdog::Output::Note(outcome, asked) => {
                self.room.metrics.watched(outcome);
                let (streams, workers, wanted) = (asked.unplaced, asked.workers, asked.wanted);
                let seconds = PATIENCE.as_secs();
                match outcome {
                    WatchdogOutcome::Patched => {
                        warn!(
                            event = event::WATCHDOG_ACTED,
                            streams,
                            workers,
                            wanted,
                            outcome = outcome.as_str(),
                            "watchdog added workers, because streams had waited {seconds} s: is KEDA well?"
                        );
                    }
                    WatchdogOutcome::AtMost => warn!(
                        event = event::WATCHDOG_ACTED,
                        streams,
                        workers,
                        wanted,
                        most = self.room.most,
                        outcome = outcome.as_str(),
                        "watchdog added no worker, because MAX_WORKERS are there"
                    ),
                    WatchdogOutcome::Enough => {
                        info!(
                            event = event::WATCHDOG_ACTED,
                            streams,
                            workers,
                            wanted,
                            outcome = outcome.as_str(),
                            "watchdog added no worker, because enough are on their way"
                        )
                    }
                    WatchdogOutcome::Changed | WatchdogOutcome::Failed => {
                        info!(
                            event = event::WATCHDOG_ACTED,
                            streams,
                            workers,
                            wanted,
                            outcome = outcome.as_str(),
                            "watchdog added no worker"
                        );
                    }
                }
            }
        }
    }

    /// Gives the result of a call to the machine that asked for it.
    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let now = now();
        // Calls neither panic nor are aborted.
        let Ok(ended) = ended else { return };
        match ended {
            Ended::Looked(looked) => {
                self.note(looked.as_ref().err());
                self.watchdog.answered(now, looked.map_or(ScaleAnswer::Failed, ScaleAnswer::Scale));
            }
            Ended::Patched(to, patched) => {
                self.note(patched.as_ref().err());
                let answer = match patched {
                    Ok(()) => ScaleAnswer::Patched,
                    Err(ApiError::Changed(_)) => ScaleAnswer::Changed,
                    Err(_) => ScaleAnswer::Failed,
                };
                debug!(event = event::WATCHDOG_ACTED, to, ?answer, "scale of the Deployment patched");
                self.watchdog.answered(now, answer);
            }
            Ended::Counted(counted) => {
                self.note(counted.as_ref().err());
                if let Some(scale_in) = &mut self.scale_in {
                    scale_in.counted(now, counted.ok().as_ref());
                }
            }
            Ended::Told(told) => {
                let how = match &told {
                    Ok(()) => Patched::Done,
                    Err(ApiError::Missing(_)) => Patched::Missing,
                    Err(_) => Patched::Failed,
                };
                self.costs.patched(now, how);
                match told {
                    Err(error @ ApiError::Forbidden(_)) => {
                        self.room.metrics.failed(&error);
                        if self.telling.handle(now, Some(&error)) {
                            warn!(event = event::POD_COST_FAILED, %error, "cost of losing a pod not set");
                        }
                    }
                    // A worker may run outside the cluster.
                    Err(error @ ApiError::Missing(_)) => {
                        self.room.metrics.failed(&error);
                        debug!(event = event::POD_COST_FAILED, %error, "worker without a pod of its name");
                    }
                    told => {
                        self.note(told.as_ref().err());
                        self.telling.handle(now, told.err().as_ref());
                    }
                }
            }
        }
        while let Some(output) = self.watchdog.poll_output() {
            self.watch(output);
        }
    }

    fn note(&mut self, error: Option<&ApiError>) {
        let due = self.health.handle(now(), error);
        let Some(error) = error else { return };
        self.room.metrics.failed(error);
        if due {
            warn!(event = event::KUBERNETES_FAILED, %error, "Kubernetes API call failed; another activator acts, if one can");
        } else {
            debug!(event = event::KUBERNETES_FAILED, %error, "Kubernetes API call failed");
        }
    }
}

fn cordon(room: &Room, calls: &mut JoinSet<Ended>, output: scale_in::Output) {
    let step = |step| room.metrics.stepped(step);
    match output {
        scale_in::Output::Cordon(worker) => {
            room.workers.cordon(&worker, Cordon::On);
            step(ScaleInStep::Cordoned);
            debug!(event = event::WORKER_CORDONED, worker, "idle worker cordoned");
        }
        scale_in::Output::Leave(worker) => {
            room.workers.cordon(&worker, Cordon::Leaving);
            step(ScaleInStep::Leaving);
            info!(event = event::WORKER_RELEASED, worker, "idle worker released");
        }
        scale_in::Output::Return(worker) => {
            room.workers.cordon(&worker, Cordon::Off);
            step(ScaleInStep::Returned);
            info!(event = event::WORKER_RECALLED, worker, "worker recalled");
        }
        scale_in::Output::Count => {
            room.metrics.called(ApiCall::GetScale);
            let api = room.api.clone();
            calls.spawn(async move { Ended::Counted(api.scale().await) });
        }
    }
}

/// The name and load that a worker reports; `None` while it is not registered.
fn seen(view: WorkerView) -> Option<(String, WorkerLoad)> {
    let word = match view.state {
        // A drained worker may go like an idle one once it serves nothing; until then it has no room.
        WorkerState::Ready | WorkerState::Drained => Word::Open,
        WorkerState::Cordoned => Word::Cordoned,
        WorkerState::Leaving => Word::Leaving,
        WorkerState::Draining => Word::Draining,
        WorkerState::Starting => return None,
    };
    let capacity = match view.state {
        WorkerState::Drained => view.streams,
        _ => usize::try_from(view.capacity).unwrap_or(usize::MAX),
    };
    Some((view.name, WorkerLoad { streams: view.streams, capacity, word }))
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
