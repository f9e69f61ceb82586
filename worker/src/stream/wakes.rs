//! The sources of a stream's events, each with a waker of its own: a wake-up says which of them have news, so that the task looks at nothing
//! else.
//!
//! In: the waker of the stream's task. Out: a [`Waker`] per source, and the [`Sources`] that were woken since the last look. The shell is
//! `task`.
//!
//! Note: the connection that brings media is the exception. It wakes the task itself, and is asked at every wake-up: that costs less than a
//! waker of its own at each message.

use std::task::{Context, Waker};

use liveedgecast_common::handoff::limits::MAX_DESTINATIONS;
use liveedgecast_common::wakes;

/// Upstreams of one stream at a time: every destination, and those that are being left or moved to meanwhile. Each has a bit.
pub(super) const MAX_FEEDS: usize = MAX_DESTINATIONS + 16;

/// A set of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sources(u64);

impl Sources {
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
const COUNT: usize = FIRST_UPSTREAM + MAX_FEEDS;
const UPSTREAMS: u64 = Sources::ALL.0 & !((1 << FIRST_UPSTREAM) - 1);
const _: () = assert!(COUNT < u64::BITS as usize);

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Wakes(wakes::SourceWakers);

impl Wakes {
    /// Removes and returns the sources that were woken. All of them, if the task has another waker than before: then none of theirs is in use
    /// any more.
    pub(super) fn take(&mut self, cx: &Context<'_>, upstreams: usize) -> Sources {
        self.0.take(cx, FIRST_UPSTREAM + upstreams).map_or(Sources::ALL, Sources)
    }

    /// Makes certain that there are wakers for so many upstreams. The new ones have to be looked at once without having been woken.
    pub(super) fn extend(&mut self, upstreams: usize) {
        self.0.extend(FIRST_UPSTREAM + upstreams);
    }

    /// The waker of one source. Valid after [`Self::take`].
    pub(super) fn of(&self, source: Sources) -> &Waker {
        self.0.of(source.0.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

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
        assert_eq!(wakes.take(&cx, MAX_FEEDS), Sources::ALL, "nothing is registered yet");
        assert!(wakes.take(&cx, MAX_FEEDS).is_empty());
        for (at, source) in NAMED.into_iter().chain((0..MAX_FEEDS).map(Sources::upstream)).enumerate() {
            wakes.of(source).wake_by_ref();
            wakes.of(source).wake_by_ref();
            assert_eq!((task.count(), wakes.take(&cx, MAX_FEEDS)), (at + 1, source), "{source:?}");
        }
        wakes.of(Sources::TIMER).wake_by_ref();
        wakes.of(Sources::upstream(3)).wake_by_ref();
        let mut both = Sources::TIMER;
        both.add(Sources::upstream(3));
        assert_eq!(wakes.take(&cx, MAX_FEEDS), both);
    }

    #[test]
    fn upstream_that_came_later_has_a_waker_of_its_own() {
        let task = Arc::new(CountedTask::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let mut wakes = Wakes::default();
        wakes.take(&cx, 1);
        wakes.of(Sources::upstream(1)).wake_by_ref();
        assert_eq!(task.count(), 0);
        wakes.extend(2);
        wakes.of(Sources::upstream(1)).wake_by_ref();
        assert_eq!((task.count(), wakes.take(&cx, 2)), (1, Sources::upstream(1)));
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
        assert!((0..MAX_FEEDS).all(|at| upstreams.has(Sources::upstream(at))));
        assert!(!upstreams.has(Sources::ENDINGS) && sources.has(Sources::ENDINGS));
        sources.take(Sources::CONNECTIONS);
        assert_eq!(sources, Sources::TIMER);
    }
}
