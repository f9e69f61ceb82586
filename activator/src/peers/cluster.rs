//! The handle to what all activators know. In: questions. Out: answers from memory, at once: nobody is asked while KEDA waits.
#![expect(clippy::disallowed_methods, reason = "shell: the clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::tally::Need;
use crate::config::Fleet;
use crate::lobby::Lobby;
use crate::metrics::Metrics;

/// How long workers need to dial in to an activator that has just started: they try every two seconds.
const WORKERS_TIME: Duration = Duration::from_secs(3);

/// What all activators know. Clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    lobby: Lobby,
    shared: Arc<Shared>,
}

struct Shared {
    /// From here on those who have something to tell have had the time.
    sure_from: Instant,
}

/// We cannot know enough yet; whoever gets this must not take it for "nothing".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("started a moment ago: what workers serve is not known yet")]
pub struct Unsure;

impl Cluster {
    /// Of one activator. Workers that it starts itself cannot be older than itself; others may be.
    #[must_use]
    pub fn new(lobby: Lobby, fleet: Fleet) -> Self {
        let wait = match fleet {
            Fleet::Process => Duration::ZERO,
            Fleet::External => WORKERS_TIME,
        };
        Self { lobby, shared: Arc::new(Shared { sure_from: now() + wait }) }
    }

    /// What is needed as far as we know; of one app, or of all.
    #[must_use]
    pub fn known(&self, app: Option<&str>) -> Need {
        Need::of([&self.lobby.tally()], [], app)
    }

    /// What is needed.
    ///
    /// # Errors
    /// We know of nothing, and cannot be sure that there is nothing. What we know of is told in any case: it is there.
    pub fn need(&self, app: Option<&str>) -> Result<Need, Unsure> {
        let need = self.known(app);
        if need.demand() == 0 && now() < self.shared.sure_from {
            return Err(Unsure);
        }
        Ok(need)
    }

    /// Puts the gauges right; called when somebody looks.
    pub fn measure(&self, metrics: &Metrics) {
        metrics.scaler.measure(now());
        metrics.lobby.demand.set(i64::try_from(self.known(None).demand()).unwrap_or(i64::MAX));
    }

    /// Changes when [`Self::known`] may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.lobby.changes()
    }
}

/// The runtime's clock, which tests can turn on.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
