//! Wakers of the sources of a task, one for each: a wake-up says which of them have news, so that the task looks at nothing else. In: the waker
//! of the task. Out: a [`Waker`] per source, and the sources that were woken since the last look, as bits. Users: the activator's `link`, the
//! worker's `stream`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

/// The wakers of one task.
#[derive(Debug, Default)]
pub struct SourceWakers {
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

impl SourceWakers {
    /// Removes and returns the sources that were woken, as bits. `None`, if the task has another waker than before: then none of the wakers of
    /// sources is in use any more, and there are `count` new ones, 64 at most.
    pub fn take(&mut self, cx: &Context<'_>, count: usize) -> Option<u64> {
        match &self.woken {
            Some(woken) if woken.task.will_wake(cx.waker()) => Some(woken.take()),
            _ => {
                self.renew(cx.waker(), count);
                None
            }
        }
    }

    fn renew(&mut self, task: &Waker, count: usize) {
        let woken = Arc::new(Woken { sources: AtomicU64::new(0), task: task.clone() });
        let waker = |at: usize| Waker::from(Arc::new(SourceWaker { bit: 1 << at, woken: Arc::clone(&woken) }));
        self.wakers = (0..count).map(waker).collect();
        self.woken = Some(woken);
    }

    /// Makes certain that there are wakers for `count` sources, 64 at most. The new sources have to be looked at once without having been woken.
    pub fn extend(&mut self, count: usize) {
        let Some(woken) = &self.woken else { return };
        let waker = |at: usize| Waker::from(Arc::new(SourceWaker { bit: 1 << at, woken: Arc::clone(woken) }));
        self.wakers.extend((self.wakers.len()..count).map(waker));
    }

    /// The waker of the source with this number. Valid after [`Self::take`].
    #[must_use]
    pub fn of(&self, source: usize) -> &Waker {
        self.wakers.get(source).unwrap_or(Waker::noop())
    }
}

impl Woken {
    fn take(&self) -> u64 {
        // Whoever sets a bit wakes the task afterwards, and that wake-up makes the bit visible here.
        if self.sources.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.sources.swap(0, Ordering::AcqRel)
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

    #[test]
    fn each_source_wakes_the_task_once_and_is_found_alone() {
        let task = Arc::new(CountedTask::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let mut wakes = SourceWakers::default();
        assert_eq!(wakes.take(&cx, 64), None, "nothing is registered yet");
        assert_eq!(wakes.take(&cx, 64), Some(0));
        for source in 0..64 {
            wakes.of(source).wake_by_ref();
            wakes.of(source).wake_by_ref();
            assert_eq!((task.count(), wakes.take(&cx, 64)), (source + 1, Some(1 << source)));
        }
        wakes.of(1).wake_by_ref();
        wakes.of(3).wake_by_ref();
        assert_eq!(wakes.take(&cx, 64), Some(0b1010));
    }

    #[test]
    fn task_with_another_waker_gets_wakers_that_wake_it() {
        let (first, second) = (Arc::new(CountedTask::default()), Arc::new(CountedTask::default()));
        let (one, two) = (Waker::from(Arc::clone(&first)), Waker::from(Arc::clone(&second)));
        let mut wakes = SourceWakers::default();
        wakes.take(&Context::from_waker(&one), 2);
        let old = wakes.of(1).clone();
        assert_eq!(wakes.take(&Context::from_waker(&two), 2), None);
        old.wake();
        wakes.of(1).wake_by_ref();
        assert_eq!((first.count(), second.count()), (1, 1));
        assert_eq!(wakes.take(&Context::from_waker(&two), 2), Some(0b10));
    }
}
