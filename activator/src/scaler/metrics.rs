//! Metrics of this room. In: KEDA's calls and their answers. Out: the registry.
#![expect(clippy::disallowed_methods, reason = "shell: the clock")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use liveedgecast_common::clock::{UtcTime, utc};
use liveedgecast_common::metrics::{counter, counters, gauge, opts, register};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Registry};
use serde::Serialize;

/// A call of KEDA, by the name that the external scaler's protocol gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KedaCall {
    IsActive,
    StreamIsActive,
    GetMetricSpec,
    GetMetrics,
}

impl KedaCall {
    const ALL: [Self; 4] = [Self::IsActive, Self::StreamIsActive, Self::GetMetricSpec, Self::GetMetrics];

    /// Label of the call in logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::IsActive => "IsActive",
            Self::StreamIsActive => "StreamIsActive",
            Self::GetMetricSpec => "GetMetricSpec",
            Self::GetMetrics => "GetMetrics",
        }
    }
}

/// Counters and gauges of the external scaler.
#[derive(Clone, Debug)]
pub struct ScalerMetrics {
    calls: IntCounterVec,
    errors: IntCounterVec,
    /// Push streams that are open.
    pub(super) push_streams: IntGauge,
    /// Number of `true`s that were pushed.
    pub(super) pushed: IntCounter,
    last_poll: Gauge,
    /// The last answer to KEDA. A lock, because the time and the value belong together; held for a copy.
    last_answer: Arc<Mutex<Option<KedaAnswer>>>,
}

/// The metric as KEDA was told it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KedaAnswer {
    /// Time of the question.
    pub asked: UtcTime,
    /// The value.
    pub value: f64,
}

impl ScalerMetrics {
    /// Registers the metrics, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let (r, calls) = (registry, KedaCall::ALL.map(KedaCall::as_str));
        Ok(Self {
            calls: counters(r, "scaler_calls_total", "Calls of KEDA", "call", &calls)?,
            errors: counters(r, "scaler_errors_total", "Calls of KEDA answered with an error", "call", &calls)?,
            push_streams: gauge(r, "scaler_push_streams", "Open push streams of KEDA")?,
            pushed: counter(r, "scaler_pushed_total", "Times that true was pushed to KEDA")?,
            last_poll: register(
                r,
                Gauge::with_opts(opts(
                    "scaler_last_poll_timestamp_seconds",
                    "Time at which KEDA was last told the metric, since the Unix epoch; 0 if it never was",
                ))?,
            )?,
            last_answer: Arc::default(),
        })
    }

    /// The last answer, if KEDA has asked.
    #[must_use]
    pub fn last_answer(&self) -> Option<KedaAnswer> {
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call of KEDA. `well`: false if the answer is an error.
    pub(super) fn called(&self, call: KedaCall, well: bool) {
        self.calls.with_label_values(&[call.as_str()]).inc();
        if !well {
            self.errors.with_label_values(&[call.as_str()]).inc();
        }
    }

    /// Notes that KEDA was told the metric.
    pub(super) fn polled(&self, value: f64) {
        let asked = utc();
        let since = Duration::from_millis(asked.0);
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(KedaAnswer { asked, value });
        self.last_poll.set(since.as_secs_f64());
    }
}
