//! The handle to the knowledge of all activators. In: questions. Out: answers from memory, at once: no peer is asked while KEDA waits.
//! Next: `scaler`, the API, `kubernetes`, which ask.
#![expect(clippy::disallowed_methods, reason = "shell: the clock")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use liveedgecast_common::clock::now;
use tokio::sync::{Notify, watch};

use super::limits::SYNC_TIME;
use super::machine::{Input, Me, Peers};
use super::metrics::PeersMetrics;
use crate::config::Fleet;
#[cfg(feature = "kubernetes")]
use crate::dispatch::PodNews;
use crate::dispatch::{BaselineCounter, Need, Tally, WorkerTally, tallied_workers};
use crate::lobby::PeerNews;

/// The knowledge of all activators. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    pub(super) news: PeerNews,
    shared: Arc<ClusterState>,
}

struct ClusterState {
    /// End of the time that workers have to dial in.
    sure_from: Instant,
    /// The other activators; `None` for the cluster of one. A lock, because callers in many tasks want answers at once; held for one
    /// question or step of the machine, never across an await.
    peers: Option<Mutex<Peers>>,
    /// Wakes the task of the peers.
    stirred: Notify,
    /// True while this activator can act for all on the Kubernetes API.
    acts: AtomicBool,
}

/// The error of an activator that knows of no need and cannot tell yet that there is none; the caller must not read it as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not in touch with the other activators and with workers yet: what they have is not known")]
pub struct Unsure;

impl Cluster {
    /// The cluster of one activator. Workers that the activator starts itself cannot be older than it; other workers may be.
    #[must_use]
    pub fn alone(news: PeerNews, fleet: Fleet) -> Self {
        let wait = match fleet {
            Fleet::Process => Duration::ZERO,
            Fleet::External => SYNC_TIME,
        };
        Self::new(news, wait, None)
    }

    /// The cluster of several activators; [`run`](super::run) has to run.
    #[must_use]
    pub fn with_peers(news: PeerNews, me: Me) -> Self {
        news.meet(&me.name);
        news.counts(BaselineCounter::Unsure);
        Self::new(news, SYNC_TIME, Some(Mutex::new(Peers::new(now(), me))))
    }

    fn new(news: PeerNews, wait: Duration, peers: Option<Mutex<Peers>>) -> Self {
        Self {
            news,
            shared: Arc::new(ClusterState {
                sure_from: now() + wait,
                peers,
                stirred: Notify::new(),
                acts: AtomicBool::new(false),
            }),
        }
    }

    /// Control listener where this activator alone is found; `None` if it does not share its ports.
    pub(crate) fn found_at(&self) -> Option<SocketAddr> {
        self.peers().filter(|peers| peers.me().shares_ports).map(|peers| peers.me().control)
    }

    /// The known need, of one app or of all.
    #[must_use]
    pub fn known(&self, app: Option<&str>) -> Need {
        let (fresh, last) = self.tallies();
        Need::of(&fresh, &last, app)
    }

    /// The need of all apps, and the workers by name.
    #[must_use]
    pub fn known_workers(&self) -> (Need, BTreeMap<String, WorkerTally>) {
        let (fresh, last) = self.tallies();
        let workers = tallied_workers(&fresh, &last);
        let owned = workers.into_iter().map(|(name, worker)| (name.to_owned(), worker)).collect();
        (Need::of(&fresh, &last, None), owned)
    }

    /// Views of the activators that can be heard, this one included, and last views of those that have vanished.
    fn tallies(&self) -> (Vec<Tally>, Vec<Tally>) {
        let (mut fresh, last) = match self.peers() {
            Some(peers) => (peers.fresh(), peers.last()),
            None => (Vec::new(), Vec::new()),
        };
        fresh.push(self.news.tally());
        (fresh, last)
    }

    /// The need, of one app or of all.
    ///
    /// # Errors
    /// [`Unsure`] if no need is known and the other activators and workers have not been heard yet. A known need is always returned.
    pub fn need(&self, app: Option<&str>) -> Result<Need, Unsure> {
        let need = self.known(app);
        if need.demand() == 0 && !self.is_sure() {
            return Err(Unsure);
        }
        Ok(need)
    }

    /// Notes whether this activator can act for all on the Kubernetes API, and tells the others.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn set_acts(&self, acts: bool) {
        if self.shared.acts.swap(acts, Ordering::Relaxed) != acts {
            self.news.changed();
        }
    }

    /// True while this activator can act for all on the Kubernetes API.
    pub(super) fn acts(&self) -> bool {
        self.shared.acts.load(Ordering::Relaxed)
    }

    /// True if this activator has to act for all: of those that can, the one with the smallest name does.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn is_ours_to_act(&self) -> bool {
        self.acts() && self.peers().is_none_or(|peers| peers.is_first())
    }

    /// Readiness for publishers: true when every known activator can be heard and its workers are registered here too, or when the time
    /// for that is over.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let Some(peers) = self.peers() else { return true };
        if peers.had_time(now()) || !peers.is_ready(now()) {
            return peers.is_ready(now());
        }
        let theirs: Vec<String> = peers.workers().map(str::to_owned).collect();
        // The lobby has a lock of its own.
        drop(peers);
        let ours = self.news.tally().workers;
        theirs.iter().all(|name| ours.contains_key(name))
    }

    /// True if a younger activator can be heard, to which shared ports can be left.
    #[must_use]
    pub fn has_heir(&self) -> bool {
        self.peers().is_some_and(|peers| peers.has_heir())
    }

    fn is_sure(&self) -> bool {
        self.peers().map_or_else(|| now() >= self.shared.sure_from, |peers| peers.is_sure(now()))
    }

    /// The other activators by name, and whether each can be heard now.
    #[must_use]
    pub fn peer_names(&self) -> Vec<(String, bool)> {
        let named = |(name, heard): (&str, bool)| (name.to_owned(), heard);
        self.peers().map_or_else(Vec::new, |peers| peers.known().map(named).collect())
    }

    /// Updates the gauges; called at each scrape.
    pub fn measure(&self, metrics: &PeersMetrics) {
        metrics.demand.set(i64::try_from(self.known(None).demand()).unwrap_or(i64::MAX));
        let (heard, lost) = self.peers().map_or((0, 0), |peers| peers.count());
        for (state, count) in [("synced", heard), ("unreachable", lost)] {
            metrics.peers.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Notes that KEDA was told of the demand, of one app or of all: the cold starts of publishers that are connected here begin with it.
    pub(crate) fn pushed(&self, app: Option<&str>) {
        self.news.pushed(app);
    }

    /// Notes news of a worker's pod.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn pod_seen(&self, news: PodNews) {
        self.news.pod_seen(news);
    }

    /// Changes when [`Self::known`] may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.news.changes()
    }

    /// The other activators, if there may be any.
    pub(super) fn peers(&self) -> Option<MutexGuard<'_, Peers>> {
        self.shared.peers.as_ref().map(|peers| peers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the activator at this address, which follows this one.
    pub(super) fn met(&self, address: SocketAddr) {
        if let Some(mut peers) = self.peers() {
            peers.handle(now(), Input::Met(address));
        }
        self.shared.stirred.notify_one();
    }

    /// Returns when the machine has been given an input outside the task.
    pub(super) async fn stirred(&self) {
        self.shared.stirred.notified().await;
    }
}
