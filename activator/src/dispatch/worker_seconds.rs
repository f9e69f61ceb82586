//! The time that workers have run, and the time that an always-on fleet would have run in vain. In: the numbers of registered workers whenever they
//! change, and which activator counts missing workers. Out: both times so far, when somebody asks. Pure: nothing wakes up for it.
//!
//! Every activator sees every worker, so each has two accounts: what it sees, for its page and API; and its share, for the metric, whose sum over all
//! activators counts each second once. The share of used time is that of the workers that tell their counters here, as for all counters of workers.
//! The share of avoided time is all of it at one activator and nothing at the others: see [`BaselineCounter`].

use std::time::{Duration, Instant};

/// The activator that counts the time in which workers of the baseline are missing: the oldest one that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaselineCounter {
    /// This activator.
    #[default]
    Ours,
    /// Another one, which can be heard.
    Another,
    /// Another one if it still runs, which is not known just now. This one keeps the time apart until it is.
    Unsure,
}

/// Worker-seconds, used and avoided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerTime {
    pub(crate) used: Duration,
    pub(crate) avoided: Duration,
}

/// Worker-seconds since this activator began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerSeconds {
    /// Workers of the always-on fleet that is compared.
    baseline: u32,
    /// Registered workers since `since`.
    count: u32,
    /// The number of registered workers that tell their counters here.
    telling: u32,
    counter: BaselineCounter,
    since: Instant,
    seen: WorkerTime,
    share: WorkerTime,
    /// Time avoided that another activator may have counted.
    unsure: Duration,
}

impl WorkerSeconds {
    /// Begins, without workers.
    pub(crate) fn new(now: Instant, baseline: u32) -> Self {
        Self {
            baseline,
            count: 0,
            telling: 0,
            counter: BaselineCounter::default(),
            since: now,
            seen: WorkerTime::default(),
            share: WorkerTime::default(),
            unsure: Duration::ZERO,
        }
    }

    /// Notes that there are so many workers from now on, and that so many of them tell their counters here.
    pub(crate) fn note(&mut self, now: Instant, count: usize, telling: usize) {
        *self = self.at(now);
        self.count = u32::try_from(count).unwrap_or(u32::MAX);
        self.telling = u32::try_from(telling).unwrap_or(u32::MAX);
    }

    /// Notes which activator counts missing workers from now on. The time that was kept apart is this one's if no other activator was there, and
    /// otherwise the other's.
    pub(crate) fn counts(&mut self, now: Instant, counter: BaselineCounter) {
        *self = self.at(now);
        self.counter = counter;
        match counter {
            BaselineCounter::Ours => self.share.avoided += std::mem::take(&mut self.unsure),
            BaselineCounter::Another => self.unsure = Duration::ZERO,
            BaselineCounter::Unsure => {}
        }
    }

    /// The time of all workers. Time is avoided while fewer workers run than the baseline has, for each worker that is missing; more workers than
    /// the baseline take nothing away again, because a fleet of that size could not have done their work.
    pub(crate) fn seen(&self, now: Instant) -> WorkerTime {
        self.at(now).seen
    }

    /// This activator's share.
    pub(crate) fn share(&self, now: Instant) -> WorkerTime {
        self.at(now).share
    }

    /// The accounts as of this time.
    fn at(mut self, now: Instant) -> Self {
        let time = now.saturating_duration_since(self.since);
        let avoided = time.saturating_mul(self.baseline.saturating_sub(self.count));
        self.seen.used = self.seen.used.saturating_add(time.saturating_mul(self.count));
        self.seen.avoided = self.seen.avoided.saturating_add(avoided);
        self.share.used = self.share.used.saturating_add(time.saturating_mul(self.telling));
        match self.counter {
            BaselineCounter::Ours => self.share.avoided = self.share.avoided.saturating_add(avoided),
            BaselineCounter::Another => {}
            BaselineCounter::Unsure => self.unsure = self.unsure.saturating_add(avoided),
        }
        self.since = self.since.max(now);
        self
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    fn at(seconds: u64) -> Instant {
        origin() + Duration::from_secs(seconds)
    }

    fn told(time: WorkerTime) -> (u64, u64) {
        (time.used.as_secs(), time.avoided.as_secs())
    }

    #[test]
    fn times_follow_the_number_of_workers_and_never_fall() {
        let mut seconds = WorkerSeconds::new(at(0), 2);
        assert_eq!(told(seconds.seen(at(100))), (0, 200), "two workers would have idled");
        seconds.note(at(100), 1, 1);
        assert_eq!(told(seconds.seen(at(110))), (10, 210));
        seconds.note(at(110), 5, 5);
        assert_eq!(told(seconds.seen(at(110))), (10, 210));
        assert_eq!(told(seconds.seen(at(120))), (60, 210), "more than the baseline");
        seconds.note(at(120), 0, 0);
        seconds.note(at(90), 0, 0);
        assert_eq!(told(seconds.seen(at(130))), (60, 230), "no clock runs back");
        let now = at(130);
        assert_eq!(seconds.share(now), seconds.seen(now), "one activator counts everything");
    }

    #[test]
    fn shares_of_several_activators_are_each_second_once() {
        let (mut one, mut two) = (WorkerSeconds::new(at(0), 1), WorkerSeconds::new(at(0), 1));
        let sum = |one: &WorkerSeconds, two: &WorkerSeconds, time| {
            let ((used, avoided), (more, spared)) = (told(one.share(at(time))), told(two.share(at(time))));
            (used + more, avoided + spared)
        };
        two.counts(at(0), BaselineCounter::Another);
        assert_eq!(sum(&one, &two, 10), (0, 10));
        // A worker is registered at both, and tells its counters to the second.
        one.note(at(10), 1, 0);
        two.note(at(10), 1, 1);
        assert_eq!(sum(&one, &two, 15), (5, 10));
        one.note(at(15), 0, 0);
        two.note(at(15), 0, 0);
        // The first one cannot be heard for a while, and lives.
        two.counts(at(20), BaselineCounter::Unsure);
        assert_eq!(sum(&one, &two, 30), (5, 25));
        two.counts(at(30), BaselineCounter::Another);
        assert_eq!(sum(&one, &two, 30), (5, 25));
        // It is killed: nobody counts until that is certain, and then the second one has counted all along.
        two.counts(at(40), BaselineCounter::Unsure);
        one = one.at(at(40));
        let last = told(one.share(at(40)));
        two.counts(at(100), BaselineCounter::Ours);
        let (used, avoided) = told(two.share(at(110)));
        assert_eq!((last.0 + used, last.1 + avoided), (5, 105));
    }
}
