//! The sources of a stream's events, each with a waker of its own: a wake-up says which of them have news, so that the task looks at nothing
//! else.
//!
//! In: the waker of the stream's task. Out: a [`Waker`] per source, and the [`Sources`] that were woken since the last look. The shell is
//! `task`.
//!
//! Note: the connection that brings media is the exception. It wakes the task itself, and is asked at every wake-up: that costs less than a
//! waker of its own at each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use liveedgecast_common::handoff::limits::MAX_DESTINATIONS;

/// A set of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sources(u64);

impl Sources {
    pub(super) const NONE: Self = Self(0);
    /// The engine's commands.
    pub(super) const COMMANDS: Self = Self(1);
    /// The timer.
    pub(super) const TIMER: Self = Self(1 << 1);
    /// The connection to the activator, where it does not bring media.
    pub(super) const ACTIVATOR: Self = Self(1 << 2);
    /// The sockets that answers and frames are written to.
    pub(super) const OUTPUT: Self = Self(1 << 3);
    /// Publishers' connections that are being ended.
    pub(super) const ENDINGS: Self = Self(1 << 4);
    /// Every source.
    pub(super) const ALL: Self = Self((1 << COUNT) - 1);
    /// Every source that belongs to a connection.
    pub(super) const CONNECTIONS: Self = Self(Self::ALL.0 & !(Self::COMMANDS.0 | Self::TIMER.0));

    /// The upstream of this number.
    pub(super) const fn upstream(at: usize) -> Self {
        Self(1 << (FIRST_UPSTREAM + at))
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether any of `sources` is in the set.
    pub(super) const fn has(self, sources: Self) -> bool {
        self.0 & sources.0 != 0
    }

    pub(super) const fn add(&mut self, sources: Self) {
        self.0 |= sources.0;
    }

    /// Removes the sources, and returns whether any of them was in the set.
    pub(super) const fn take(&mut self, sources: Self) -> bool {
        let had = self.has(sources);
        self.0 &= !sources.0;
        had
    }

    /// Removes the upstreams, and returns them.
    pub(super) const fn take_upstreams(&mut self) -> Self {
        let upstreams = Self(self.0 & UPSTREAMS);
        self.0 &= !UPSTREAMS;
        upstreams
    }
}

const FIRST_UPSTREAM: usize = 5;
const COUNT: usize = FIRST_UPSTREAM + MAX_DESTINATIONS;
const UPSTREAMS: u64 = Sources::ALL.0 & !((1 << FIRST_UPSTREAM) - 1);
const _: () = assert!(COUNT < u64::BITS as usize);

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    woken: Option<Arc<Woken>>,
    /// A waker for each source, by the number of its bit.
    wakers: Vec<Waker>,
}

/// The sources that were woken since the last look, and the task to wake.
#[derive(Debug)]
struct Woken {
    sources: AtomicU64,
    task: Waker,
}

#[derive(Debug)]
struct SourceWaker {
    bit: u64,
    woken: Arc<Woken>,
}

impl Wakes {
    /// Removes and returns the sources that were woken. All of them, if the task has another waker than before: then none of theirs is in use
    /// any more.
    pub(super) fn take(&mut self, cx: &Context<'_>, upstreams: usize) -> Sources {
        match &self.woken {
            Some(woken) if woken.task.will_wake(cx.waker()) => woken.take(),
            _ => {
                self.renew(cx.waker(), upstreams);
                Sources::ALL
            }
        }
    }

    fn renew(&mut self, task: &Waker, upstreams: usize) {
        let woken = Arc::new(Woken { sources: AtomicU64::new(0), task: task.clone() });
        let waker = |at: usize| Waker::from(Arc::new(SourceWaker { bit: 1 << at, woken: Arc::clone(&woken) }));
        self.wakers = (0..FIRST_UPSTREAM + upstreams).map(waker).collect();
        self.woken = Some(woken);
    }

    /// The waker of one source. Valid after [`Self::take`].
    pub(super) fn of(&self, source: Sources) -> &Waker {
        self.wakers.get(source.0.trailing_zeros() as usize).unwrap_or(Waker::noop())
    }
}

impl Woken {
    fn take(&self) -> Sources {
        // Whoever sets a bit wakes the task afterwards, and that wake-up makes the bit visible here.
        if self.sources.load(Ordering::Relaxed) == 0 {
            return Sources::NONE;
        }
        Sources(self.sources.swap(0, Ordering::AcqRel))
    }
}

impl Wake for SourceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A bit that is set already woke the task, which has not looked yet.
        if self.woken.sources.fetch_or(self.bit, Ordering::AcqRel) & self.bit == 0 {
            self.woken.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A task that counts its wake-ups.
    #[derive(Default)]
    struct CountedTask(AtomicUsize);

    impl Wake for CountedTask {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl CountedTask {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    const NAMED: [Sources; 5] =
        [Sources::COMMANDS, Sources::TIMER, Sources::ACTIVATOR, Sources::OUTPUT, Sources::ENDINGS];

    #[test]
    fn each_source_wakes_the_task_once_and_is_found_alone() {
        let task = Arc::new(CountedTask::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let mut wakes = Wakes::default();
        assert_eq!(wakes.take(&cx, MAX_DESTINATIONS), Sources::ALL, "nothing is registered yet");
        assert_eq!(wakes.take(&cx, MAX_DESTINATIONS), Sources::NONE);
        for (at, source) in NAMED.into_iter().chain((0..MAX_DESTINATIONS).map(Sources::upstream)).enumerate() {
            wakes.of(source).wake_by_ref();
            wakes.of(source).wake_by_ref();
            assert_eq!((task.count(), wakes.take(&cx, MAX_DESTINATIONS)), (at + 1, source), "{source:?}");
        }
        wakes.of(Sources::TIMER).wake_by_ref();
        wakes.of(Sources::upstream(3)).wake_by_ref();
        let mut both = Sources::TIMER;
        both.add(Sources::upstream(3));
        assert_eq!(wakes.take(&cx, MAX_DESTINATIONS), both);
    }

    #[test]
    fn task_with_another_waker_looks_at_everything_and_gets_wakers_that_wake_it() {
        let (first, second) = (Arc::new(CountedTask::default()), Arc::new(CountedTask::default()));
        let (one, two) = (Waker::from(Arc::clone(&first)), Waker::from(Arc::clone(&second)));
        let mut wakes = Wakes::default();
        wakes.take(&Context::from_waker(&one), 1);
        let old = wakes.of(Sources::TIMER).clone();
        assert_eq!(wakes.take(&Context::from_waker(&two), 1), Sources::ALL);
        old.wake();
        wakes.of(Sources::TIMER).wake_by_ref();
        assert_eq!((first.count(), second.count()), (1, 1));
        assert_eq!(wakes.take(&Context::from_waker(&two), 1), Sources::TIMER);
    }

    #[test]
    fn set_of_sources_gives_each_of_them_once() {
        let mut sources = Sources::ALL;
        assert!(sources.take(Sources::COMMANDS) && !sources.take(Sources::COMMANDS));
        let upstreams = sources.take_upstreams();
        assert!((0..MAX_DESTINATIONS).all(|at| upstreams.has(Sources::upstream(at))));
        assert!(!upstreams.has(Sources::ENDINGS) && sources.has(Sources::ENDINGS));
        sources.take(Sources::CONNECTIONS);
        assert_eq!(sources, Sources::TIMER);
    }
}
