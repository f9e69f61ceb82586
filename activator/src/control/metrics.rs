//! Metrics of the control service. In: refused calls. Out: the registry.

use liveedgecast_common::metrics::counters;
use prometheus::{IntCounter, IntCounterVec, Registry};

/// The cause for which a call on the control listener is refused, or a part of a worker's report left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallRefusal {
    /// The proof of the control secret is missing or wrong.
    Proof,
    /// The proof was used before.
    Replay,
    /// The first message is not a Hello that can be accepted.
    Hello,
    /// A worker of this name is registered.
    Joined,
    /// There are as many workers or connections as may be.
    Full,
    /// A report of the worker's load cannot be right: the call ends.
    Load,
    /// A session in a worker's report cannot be right: it is left out, and the call goes on.
    Session,
    /// A worker reports more sessions than its capacity: they are left out, and the call goes on.
    Excess,
    /// A worker reports a session of a stream that it was not given: it is left out, and the call goes on.
    Disbelieved,
}

impl CallRefusal {
    const ALL: [Self; 9] = [
        Self::Proof,
        Self::Replay,
        Self::Hello,
        Self::Joined,
        Self::Full,
        Self::Load,
        Self::Session,
        Self::Excess,
        Self::Disbelieved,
    ];

    /// The word in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Proof => "proof",
            Self::Replay => "replay",
            Self::Hello => "hello",
            Self::Joined => "joined",
            Self::Full => "full",
            Self::Load => "load",
            Self::Session => "session",
            Self::Excess => "excess",
            Self::Disbelieved => "disbelieved",
        }
    }
}

/// Counters of the control service.
#[derive(Clone, Debug)]
pub struct ControlMetrics {
    refused: IntCounterVec,
}

impl ControlMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let values = CallRefusal::ALL.map(CallRefusal::as_str);
        Ok(Self { refused: counters(registry, "control_refused_total", "Control calls refused", "reason", &values)? })
    }

    /// The counter of one cause.
    pub(crate) fn refused(&self, why: CallRefusal) -> IntCounter {
        self.refused.with_label_values(&[why.as_str()])
    }

    /// The counter of reports that the lobby does not believe.
    #[must_use]
    pub fn disbelieved(&self) -> IntCounter {
        self.refused(CallRefusal::Disbelieved)
    }

    /// The counter of sessions beyond a worker's capacity, which the lobby leaves out.
    #[must_use]
    pub fn excess(&self) -> IntCounter {
        self.refused(CallRefusal::Excess)
    }
}
