//! Rings of streams by link that have ended, for the next streams. In: mapped rings that no other process has. Out: the same rings, with the
//! memory that they have taken. Next: `fetch`.
//!
//! Fresh memory is expensive, and the thread of the streams pays for it. A ring that was used before has its pages and its mappings, and a lap
//! as long as its last stream needed, which the next one makes shorter if it needs less. A ring that is not used again goes back to the kernel
//! after a while, in the thread of the registration; a task waits for that only while there is a ring. A ring that makes room for another one
//! goes back at once, in the thread of the stream that has ended.
//!
//! Memory by descriptor belongs to the activator, which keeps it in the same way.
#![expect(clippy::disallowed_methods, reason = "shell: the time until memory is given back")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::metrics::{counter, gauge};
use liveedgecast_common::sys::RingMemory;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::runtime::Handle;

/// Rings that are kept for the next streams: more than end and begin within a quarter of a minute where it matters.
const MAX_SPARES: usize = 16;

/// Bytes of all these rings together. Sixteen streams of 2.5 Mbps have so much.
const MAX_SPARE_BYTES: usize = 16 << 20;

/// Time for which a ring is kept.
const SPARE_TIME: Duration = Duration::from_secs(20);

/// The counter and the gauge of rings that are used again.
#[derive(Clone, Debug)]
pub struct SpareMetrics {
    reused: IntCounter,
    bytes: IntGauge,
}

impl SpareMetrics {
    /// Registers them, at zero.
    ///
    /// # Errors
    /// A metric has the name of another one.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            reused: counter(
                registry,
                "worker_rings_reused_total",
                "Rings of ended streams that were taken for another stream by link, also if that was declined",
            )?,
            bytes: gauge(
                registry,
                "worker_spare_ring_bytes",
                "Memory of ended streams by link, kept for the next streams",
            )?,
        })
    }
}

/// The rings that wait, the oldest first, each with the time at which it is given back.
#[derive(Debug, Default)]
struct WaitingRings {
    spares: VecDeque<(Instant, RingMemory)>,
    /// A task waits until the oldest is to be given back.
    awaited: bool,
}

impl WaitingRings {
    fn bytes(&self) -> usize {
        self.spares.iter().map(|(_, ring)| ring.capacity()).sum()
    }

    /// Keeps a ring; returns those that make room for it.
    fn put(&mut self, now: Instant, ring: RingMemory) -> Vec<(Instant, RingMemory)> {
        // It would push all others out, and then itself.
        if ring.capacity() > MAX_SPARE_BYTES {
            return vec![(now, ring)];
        }
        self.spares.push_back((now + SPARE_TIME, ring));
        let mut gone = Vec::new();
        while self.spares.len() > MAX_SPARES || self.bytes() > MAX_SPARE_BYTES {
            gone.extend(self.spares.pop_front());
        }
        gone
    }

    /// The ring of that size that was used last.
    fn take(&mut self, bytes: usize) -> Option<RingMemory> {
        let at = self.spares.iter().rposition(|(_, ring)| ring.most() == bytes)?;
        self.spares.remove(at).map(|(_, ring)| ring)
    }

    /// The rings whose time is over.
    fn expired(&mut self, now: Instant) -> Vec<(Instant, RingMemory)> {
        let over = self.spares.partition_point(|(until, _)| *until <= now);
        self.spares.drain(..over).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.spares.front().map(|(until, _)| *until)
    }
}

/// Rings of ended streams, shared by the threads of the streams and by the fetches.
#[derive(Clone, Debug, Default)]
pub struct SpareRings {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    // A lock, because streams end in several threads; held for a few moves.
    pool: Mutex<WaitingRings>,
    metrics: SpareMetrics,
    /// The runtime whose thread gives rings back.
    runtime: Handle,
}

impl SpareRings {
    /// No ring yet; `runtime` gives them back. The default value keeps none.
    #[must_use]
    pub fn new(metrics: SpareMetrics, runtime: Handle) -> Self {
        Self { shared: Some(Arc::new(Shared { pool: Mutex::default(), metrics, runtime })) }
    }

    /// A ring of that size. Its lap may be longer than that of a new one.
    pub(super) fn take(&self, bytes: usize) -> Option<RingMemory> {
        let shared = self.shared.as_ref()?;
        let ring = shared.change(|pool| pool.take(bytes))?;
        shared.metrics.reused.inc();
        Some(ring)
    }

    /// Keeps the ring of a stream that has ended, if no other process has it.
    pub(crate) fn put(&self, ring: RingMemory) {
        let Some(shared) = self.shared.as_ref().filter(|_| ring.is_private()) else { return };
        let gone = shared.change(|pool| {
            let gone = pool.put(now(), ring);
            if !std::mem::replace(&mut pool.awaited, true) {
                shared.runtime.spawn(Arc::clone(shared).give_back());
            }
            gone
        });
        // Takes the kernel as long as there are pages: without the lock.
        drop(gone);
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, WaitingRings> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut WaitingRings) -> T) -> T {
        let mut pool = self.pool();
        let result = change(&mut pool);
        self.metrics.bytes.set(i64::try_from(pool.bytes()).unwrap_or(i64::MAX));
        result
    }

    /// Gives rings back when their time is over, until there is none.
    async fn give_back(self: Arc<Self>) {
        loop {
            let next = self.change(|pool| {
                let next = pool.poll_timeout();
                pool.awaited = next.is_some();
                next
            });
            let Some(at) = next else { return };
            sleep_until(Some(at)).await;
            drop(self.change(|pool| pool.expired(now())));
        }
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::sys::UnmappedRing;
    use liveedgecast_common::testkit::origin;

    use super::*;

    const RING: usize = 4 << 20;

    fn ring(lap: usize) -> RingMemory {
        let mut ring = UnmappedRing::create(RING).unwrap().map().unwrap();
        while ring.capacity() < lap && ring.grow(0, 0) {}
        ring
    }

    #[test]
    fn ring_that_was_used_last_is_used_next() {
        let mut pool = WaitingRings::default();
        for lap in [64 << 10, 128 << 10] {
            assert!(pool.put(origin(), ring(lap)).is_empty());
        }
        assert!(pool.take(RING / 2).is_none(), "another window");
        let mut taken = || pool.take(RING).map(|ring| ring.capacity());
        assert_eq!([taken(), taken(), taken()], [Some(128 << 10), Some(64 << 10), None]);
    }

    #[test]
    fn no_more_rings_are_kept_than_the_bounds() {
        let mut pool = WaitingRings::default();
        let gone: usize = (0..MAX_SPARES + 3).map(|_| pool.put(origin(), ring(64 << 10)).len()).sum();
        assert_eq!((gone, pool.spares.len()), (3, MAX_SPARES));
        for _ in 0..5 {
            pool.put(origin(), ring(RING));
        }
        assert_eq!((pool.spares.len(), pool.bytes()), (4, MAX_SPARE_BYTES));
    }

    #[test]
    fn ring_is_given_back_when_its_time_is_over() {
        let now = origin();
        let mut pool = WaitingRings::default();
        let later = Duration::from_secs(1);
        pool.put(now, ring(64 << 10));
        pool.put(now + later, ring(64 << 10));
        assert_eq!(pool.poll_timeout(), Some(now + SPARE_TIME));
        assert_eq!(pool.expired(now + SPARE_TIME).len(), 1);
        assert_eq!(pool.poll_timeout(), Some(now + SPARE_TIME + later));
        assert_eq!(pool.expired(now + SPARE_TIME + later).len(), 1);
        assert_eq!(pool.poll_timeout(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_rings_of_this_process_are_kept_and_not_for_ever() {
        let metrics = SpareMetrics::new(&Registry::new()).unwrap();
        let spares = SpareRings::new(metrics.clone(), Handle::current());
        let passed = RingMemory::create(RING).unwrap();
        spares.put(UnmappedRing::check(passed).unwrap().map().unwrap());
        assert_eq!(metrics.bytes.get(), 0, "the activator has it, too");
        spares.put(ring(RING / 2));
        assert_eq!(metrics.bytes.get(), RING as i64 / 2);
        assert_eq!(spares.take(RING).map(|ring| ring.capacity()), Some(RING / 2));
        assert_eq!((metrics.bytes.get(), metrics.reused.get()), (0, 1));
        spares.put(ring(RING / 2));
        tokio::time::sleep(2 * SPARE_TIME).await;
        let awaited = spares.shared.as_ref().is_some_and(|shared| shared.pool().awaited);
        assert_eq!((metrics.bytes.get(), awaited), (0, false));
        SpareRings::default().put(ring(RING / 2));
    }
}
