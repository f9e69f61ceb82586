//! Metrics of this room. In: streams to which a changed file was applied. Out: the registry.

use liveedgecast_common::metrics::counters;
use prometheus::{IntCounterVec, Registry};

/// The effect of a changed file on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamResult {
    /// Its destinations have changed.
    Changed,
    /// Its publisher was disconnected.
    Removed,
    /// It could not follow the file.
    Failed,
}

impl StreamResult {
    const ALL: [Self; 3] = [Self::Changed, Self::Removed, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Failed => "failed",
        }
    }
}

/// Counters of streams that had to follow a file.
#[derive(Clone, Debug)]
pub struct ReloadMetrics {
    streams: IntCounterVec,
}

impl ReloadMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let results = StreamResult::ALL.map(StreamResult::as_str);
        let help = "Live and waiting streams that a changed file has changed, has removed, or should have changed";
        Ok(Self { streams: counters(registry, "config_streams_total", help, "result", &results)? })
    }

    pub(super) fn count(&self, result: StreamResult) {
        self.streams.with_label_values(&[result.as_str()]).inc();
    }
}
