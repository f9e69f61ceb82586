//! Metrics of this room. In: the answers of hooks, the fetches of keys, files that are read again. Out: the registry.

use std::time::Duration;

use liveedgecast_common::metrics::{counters, gauge, histogram};
use prometheus::{Histogram, IntCounterVec, IntGauge, Registry};

use super::hook::HookAnswer;

/// Counters of hooks, fetches and files.
#[derive(Clone, Debug)]
pub struct AdmissionMetrics {
    answers: IntCounterVec,
    notices: IntCounterVec,
    seconds: Histogram,
    fetches: IntCounterVec,
    reloads: IntCounterVec,
    rejected: IntGauge,
}

impl AdmissionMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let answers = ["accepted", "refused", "away", "unusable"];
        Ok(Self {
            answers: counters(registry, "hook_answers_total", "Answers of on_publish", "result", &answers)?,
            notices: counters(
                registry,
                "hook_notices_total",
                "Ends of streams that on_publish_done was to be told of",
                "result",
                &["told", "failed", "dropped"],
            )?,
            fetches: counters(
                registry,
                "jwks_fetches_total",
                "Fetches of the keys that tokens are checked with",
                "result",
                &["fetched", "away", "unusable"],
            )?,
            // From a server on the same machine to the longest time that an answer may take.
            seconds: histogram(
                registry,
                "hook_answer_seconds",
                "Time from a question to on_publish until its answer, or until it was given up",
                &[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
            )?,
            reloads: counters(
                registry,
                "config_reloads_total",
                "Files of the configuration that were read again",
                "result",
                &["applied", "rejected"],
            )?,
            rejected: gauge(
                registry,
                "config_files_rejected",
                "Files of the configuration that have mistakes, so that the last good ones are in force",
            )?,
        })
    }

    /// Metrics that nobody sees.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        Self::new(&Registry::new()).unwrap()
    }

    pub(super) fn answered(&self, answer: &HookAnswer, time: Duration) {
        let answer = match answer {
            HookAnswer::Accept(_) => "accepted",
            HookAnswer::Refuse(_) => "refused",
            HookAnswer::Away(_) => "away",
            HookAnswer::Unusable(_) => "unusable",
        };
        self.answers.with_label_values(&[answer]).inc();
        self.seconds.observe(time.as_secs_f64());
    }

    pub(super) fn read_again(&self, applied: bool) {
        self.reloads.with_label_values(&[if applied { "applied" } else { "rejected" }]).inc();
    }

    pub(super) fn rejected_files(&self, count: usize) {
        self.rejected.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn told(&self, told: bool) {
        self.notices.with_label_values(&[if told { "told" } else { "failed" }]).inc();
    }

    pub(super) fn fetched(&self, result: &str) {
        self.fetches.with_label_values(&[result]).inc();
    }

    pub(super) fn dropped(&self) {
        self.notices.with_label_values(&["dropped"]).inc();
    }
}
