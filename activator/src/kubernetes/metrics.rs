//! Metrics of this room. In: calls to the Kubernetes API and the decisions of the machines. Out: the registry.

use liveedgecast_common::metrics::counters;
use prometheus::{IntCounterVec, Registry};

use super::error::ApiError;

/// The outcome of a look of the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchdogOutcome {
    /// Workers were added.
    Patched,
    /// Enough pods are on their way.
    Enough,
    /// The largest allowed number of pods is wanted already.
    AtMost,
    /// The number was changed by another client meanwhile.
    Changed,
    /// The call to the API failed.
    Failed,
}

impl WatchdogOutcome {
    /// Every outcome, for metrics that exist before the first event.
    pub(super) const ALL: [Self; 5] = [Self::Patched, Self::Enough, Self::AtMost, Self::Changed, Self::Failed];

    /// Label of the outcome in logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Enough => "enough",
            Self::AtMost => "at_most",
            Self::Changed => "changed",
            Self::Failed => "failed",
        }
    }
}

/// A call to the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiCall {
    GetScale,
    PatchScale,
    PatchPod,
    Watch,
}

impl ApiCall {
    const ALL: [Self; 4] = [Self::GetScale, Self::PatchScale, Self::PatchPod, Self::Watch];

    fn as_str(self) -> &'static str {
        match self {
            Self::GetScale => "get_scale",
            Self::PatchScale => "patch_scale",
            Self::PatchPod => "patch_pod",
            Self::Watch => "watch",
        }
    }
}

/// A step in the removal of an idle worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScaleInStep {
    Cordoned,
    Leaving,
    Returned,
}

impl ScaleInStep {
    const ALL: [Self; 3] = [Self::Cordoned, Self::Leaving, Self::Returned];

    fn as_str(self) -> &'static str {
        match self {
            Self::Cordoned => "cordoned",
            Self::Leaving => "leaving",
            Self::Returned => "returned",
        }
    }
}

/// Counters of calls to the Kubernetes API and of the decisions behind them.
#[derive(Clone, Debug)]
pub struct KubernetesMetrics {
    watchdog: IntCounterVec,
    calls: IntCounterVec,
    errors: IntCounterVec,
    scale_in: IntCounterVec,
}

impl KubernetesMetrics {
    /// Registers the counters, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let r = registry;
        Ok(Self {
            watchdog: counters(
                r,
                "watchdog_total",
                "Looks of the watchdog at streams that had waited without a new worker",
                "result",
                &WatchdogOutcome::ALL.map(WatchdogOutcome::as_str),
            )?,
            calls: counters(
                r,
                "kubernetes_calls_total",
                "Calls to the Kubernetes API",
                "call",
                &ApiCall::ALL.map(ApiCall::as_str),
            )?,
            errors: counters(
                r,
                "kubernetes_errors_total",
                "Calls to the Kubernetes API that failed",
                "reason",
                &ApiError::WORDS,
            )?,
            scale_in: counters(
                r,
                "scale_in_total",
                "Workers cordoned, released, recalled",
                "state",
                &ScaleInStep::ALL.map(ScaleInStep::as_str),
            )?,
        })
    }

    /// Counts a look of the watchdog, by its outcome.
    pub(super) fn watched(&self, outcome: WatchdogOutcome) {
        self.watchdog.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a call to the API.
    pub(super) fn called(&self, call: ApiCall) {
        self.calls.with_label_values(&[call.as_str()]).inc();
    }

    /// Counts a call that failed.
    pub(super) fn failed(&self, error: &ApiError) {
        self.errors.with_label_values(&[error.as_str()]).inc();
    }

    /// Counts a step in the removal of an idle worker.
    pub(super) fn stepped(&self, step: ScaleInStep) {
        self.scale_in.with_label_values(&[step.as_str()]).inc();
    }
}
