//! Memory of streams by descriptor that have ended, for the next streams. In: a stream's memory and the worker that has had it. Out: the
//! same memory, for another stream of the same worker. Next: `publisher`, which hands it over.
//!
//! A memory is given out when its worker has said, in the memory itself, that it has unmapped it: at the end of a stream the worker may
//! need it for the grace time still, and a worker that was killed never says so. It is given to that worker alone. A worker that
//! has had the memory can have kept it, so another worker would have to trust the first one, and would find the first one's media in it.
//!
//! Memory that is not used again goes back to the kernel after a while. A task waits for that only while there is something to give back.
#![expect(clippy::disallowed_methods, reason = "shell: the time until memory is given back")]

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::sys::ProcessHandle;
use liveedgecast_common::sys::ring_memory::reuse;

use super::limits::{MAX_SPARE_BYTES, MAX_SPARES, SPARE_TIME};
use super::metrics::HandoffMetrics;

/// The process of a worker by descriptor.
#[derive(Debug)]
pub(crate) struct PeerProcess {
    /// `None`: the kernel does not tell which process it is.
    pub(super) handle: Option<ProcessHandle>,
    /// 0: the worker runs in another container, whose processes are not visible here.
    pub(super) pid: u32,
}

impl PeerProcess {
    /// Tells whether a worker that is connected now is this process.
    fn is(&self, other: &Self) -> bool {
        // The process has not ended, so that its number was not given to another one.
        let lives = self.handle.as_ref().is_some_and(|process| !process.has_ended().unwrap_or(true));
        self.pid != 0 && self.pid == other.pid && lives
    }
}

/// Memory that waits for a stream.
#[derive(Debug)]
struct Spare<W> {
    memory: OwnedFd,
    ring_bytes: usize,
    bytes: u64,
    worker: W,
    until: Instant,
}

/// The memories that wait, the oldest first.
#[derive(Debug)]
struct WaitingMemories<W> {
    spares: VecDeque<Spare<W>>,
    /// A task waits until the oldest is to be given back.
    awaited: bool,
}

impl<W> WaitingMemories<W> {
    fn new() -> Self {
        Self { spares: VecDeque::new(), awaited: false }
    }

    fn bytes(&self) -> u64 {
        self.spares.iter().map(|spare| spare.bytes).sum()
    }

    /// Keeps a memory; returns those that make room for it.
    fn put(&mut self, now: Instant, memory: OwnedFd, worker: W) -> Vec<Spare<W>> {
        let Ok(ring_bytes) = reuse::ring_bytes(&memory) else { return Vec::new() };
        let bytes = reuse::taken_bytes(&memory);
        let spare = Spare { memory, ring_bytes, bytes, worker, until: now + SPARE_TIME };
        // It would push all others out, and then itself.
        if bytes > MAX_SPARE_BYTES {
            return vec![spare];
        }
        self.spares.push_back(spare);
        let mut gone = Vec::new();
        while self.spares.len() > MAX_SPARES || self.bytes() > MAX_SPARE_BYTES {
            gone.extend(self.spares.pop_front());
        }
        gone
    }

    /// Memory with a ring of that size that its worker has left, the one that was used last, for the worker that `is` it.
    fn take(&mut self, now: Instant, ring_bytes: usize, is: impl Fn(&W) -> bool) -> Option<OwnedFd> {
        let fits = |spare: &Spare<W>| {
            spare.until > now && spare.ring_bytes == ring_bytes && is(&spare.worker) && reuse::is_left(&spare.memory)
        };
        let at = self.spares.iter().rposition(fits)?;
        let memory = self.spares.remove(at)?.memory;
        reuse::clear(&memory).ok().map(|()| memory)
    }

    /// The memories whose time is over.
    fn expired(&mut self, now: Instant) -> Vec<Spare<W>> {
        let over = self.spares.partition_point(|spare| spare.until <= now);
        self.spares.drain(..over).collect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.spares.front().map(|spare| spare.until)
    }
}

/// Memories of ended streams, shared by all publishers' tasks.
#[derive(Clone, Debug)]
pub struct SpareMemories {
    // A lock, because tasks of all publishers put and take; held for a few calls of the kernel, which do not wait.
    pool: Arc<Mutex<WaitingMemories<PeerProcess>>>,
    metrics: HandoffMetrics,
}

impl SpareMemories {
    /// No memory yet.
    pub fn new(metrics: HandoffMetrics) -> Self {
        Self { pool: Arc::new(Mutex::new(WaitingMemories::new())), metrics }
    }

    fn pool(&self) -> MutexGuard<'_, WaitingMemories<PeerProcess>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory with a ring of that size, which this worker has had for a stream that ended.
    pub(crate) fn take(&self, worker: &PeerProcess, ring_bytes: usize) -> Option<OwnedFd> {
        let mut pool = self.pool();
        let memory = pool.take(now(), ring_bytes, |owner| owner.is(worker))?;
        self.metrics.spare_bytes.set(i64::try_from(pool.bytes()).unwrap_or(i64::MAX));
        self.metrics.reused.inc();
        Some(memory)
    }

    /// Keeps the memory of a stream that has ended, and that no other process than this worker has ever had.
    pub(crate) fn put(&self, memory: OwnedFd, worker: PeerProcess) {
        if worker.pid == 0 || worker.handle.is_none() {
            return;
        }
        let gone = self.change(|pool| {
            let gone = pool.put(now(), memory, worker);
            if !std::mem::replace(&mut pool.awaited, true) {
                tokio::spawn(self.clone().give_back());
            }
            gone
        });
        // Takes the kernel as long as there are pages: without the lock.
        drop(gone);
    }

    fn change<T>(&self, change: impl FnOnce(&mut WaitingMemories<PeerProcess>) -> T) -> T {
        let mut pool = self.pool();
        let result = change(&mut pool);
        self.metrics.spare_bytes.set(i64::try_from(pool.bytes()).unwrap_or(i64::MAX));
        result
    }

    /// Gives memories back when their time is over, until there is none.
    async fn give_back(self) {
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
    use std::time::Duration;

    use liveedgecast_common::sys::{RingMemory, UnmappedRing};
    use liveedgecast_common::testkit::origin;

    use super::*;

    const RING: usize = 2 << 20;

    fn mapped(memory: &OwnedFd) -> RingMemory {
        UnmappedRing::check(memory.try_clone().unwrap()).unwrap().map().unwrap()
    }

    /// Memory that was mapped, grown to `lap`, and left.
    fn left(ring_bytes: usize, lap: usize) -> OwnedFd {
        let memory = RingMemory::create(ring_bytes).unwrap();
        let mut ring = mapped(&memory);
        while ring.capacity() < lap && ring.grow(0, 0) {}
        ring.space(0, lap).fill(1);
        memory
    }

    #[test]
    fn memory_goes_to_its_worker_once_that_has_left_it() {
        let now = origin();
        let mut pool = WaitingMemories::new();
        let memory = RingMemory::create(RING).unwrap();
        let ring = mapped(&memory);
        assert!(pool.put(now, memory, 'a').is_empty());
        assert!(pool.take(now, RING, |_| true).is_none(), "its worker has it mapped");
        drop(ring);
        assert!(pool.take(now, RING, |worker| *worker == 'b').is_none(), "another worker");
        assert!(pool.take(now, RING / 2, |_| true).is_none(), "another window");
        assert!(pool.take(now + SPARE_TIME, RING, |_| true).is_none(), "its time is over");
        let memory = pool.take(now, RING, |worker| *worker == 'a').unwrap();
        assert!(!reuse::is_left(&memory), "it is another stream's");
        assert!(pool.spares.is_empty());
    }

    #[test]
    fn memory_that_was_used_last_is_used_next() {
        let now = origin();
        let mut pool = WaitingMemories::new();
        for (worker, lap) in [('a', 64 << 10), ('a', 128 << 10), ('b', 256 << 10)] {
            pool.put(now, left(RING, lap), worker);
        }
        let mut taken = || pool.take(now, RING, |worker| *worker == 'a').map(|memory| mapped(&memory).capacity());
        assert_eq!([taken(), taken(), taken()], [Some(128 << 10), Some(64 << 10), None]);
    }

    #[test]
    fn no_more_memory_is_kept_than_the_bounds() {
        let now = origin();
        let mut pool = WaitingMemories::new();
        let gone: usize = (0..MAX_SPARES + 3).map(|_| pool.put(now, left(RING, 64 << 10), 'a').len()).sum();
        assert_eq!((gone, pool.spares.len()), (3, MAX_SPARES));
        let lap = 4 << 20;
        let gone: Vec<usize> = (0..5).map(|_| pool.put(now, left(lap, lap), 'a').len()).collect();
        assert!(pool.bytes() <= MAX_SPARE_BYTES && pool.spares.len() == 3, "{gone:?}: {pool:?}");
        assert_eq!(pool.put(now, left(32 << 20, 32 << 20), 'a').len(), 1);
        assert_eq!(pool.spares.len(), 3, "memory above the bound pushes nothing out");
    }

    #[test]
    fn memory_is_given_back_when_its_time_is_over() {
        let now = origin();
        let mut pool = WaitingMemories::new();
        let later = Duration::from_secs(1);
        pool.put(now, left(RING, 64 << 10), 'a');
        pool.put(now + later, left(RING, 64 << 10), 'a');
        assert_eq!(pool.poll_timeout(), Some(now + SPARE_TIME));
        assert_eq!(pool.expired(now + SPARE_TIME - later).len(), 0);
        assert_eq!(pool.expired(now + SPARE_TIME).len(), 1);
        assert_eq!(pool.poll_timeout(), Some(now + SPARE_TIME + later));
        assert_eq!(pool.expired(now + SPARE_TIME + later).len(), 1);
        assert_eq!(pool.poll_timeout(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn task_that_gives_memory_back_ends_with_the_last_one() {
        let spares = SpareMemories::new(HandoffMetrics::unregistered());
        let ours = || PeerProcess { handle: ProcessHandle::open(std::process::id()).ok(), pid: std::process::id() };
        let elsewhere = PeerProcess { handle: None, pid: 0 };
        spares.put(left(RING, RING / 2), elsewhere);
        assert_eq!(spares.metrics.spare_bytes.get(), 0, "that worker could not be recognised");
        spares.put(left(RING, RING / 2), ours());
        assert!(spares.metrics.spare_bytes.get() >= RING as i64 / 2);
        assert!(spares.take(&ours(), RING).is_some());
        assert_eq!((spares.metrics.spare_bytes.get(), spares.metrics.reused.get()), (0, 1));
        spares.put(left(RING, RING / 2), ours());
        tokio::time::sleep(2 * SPARE_TIME).await;
        assert_eq!((spares.metrics.spare_bytes.get(), spares.pool().awaited), (0, false));
    }
}
