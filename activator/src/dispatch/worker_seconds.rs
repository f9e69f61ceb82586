//! The time that workers have run, and the time that an always-on fleet would have run in vain. In: the number of registered workers whenever it
//! changes, the time. Out: both times so far, when somebody asks. Pure: nothing wakes up for it.

use std::time::{Duration, Instant};

/// Worker-seconds since this activator began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerSeconds {
    /// Workers of the always-on fleet that is compared.
    baseline: u32,
    /// Registered workers since `since`.
    count: u32,
    since: Instant,
    used: Duration,
    avoided: Duration,
}

impl WorkerSeconds {
    /// Begins, without workers.
    pub(crate) fn new(now: Instant, baseline: u32) -> Self {
        Self { baseline, count: 0, since: now, used: Duration::ZERO, avoided: Duration::ZERO }
    }

    /// Notes that there are so many workers from now on.
    pub(crate) fn note(&mut self, now: Instant, count: usize) {
        (self.used, self.avoided) = self.so_far(now);
        self.since = self.since.max(now);
        self.count = u32::try_from(count).unwrap_or(u32::MAX);
    }

    /// Worker-seconds used and avoided. Those are avoided in which fewer workers run than the baseline has, for each worker that is missing; more workers than
    /// the baseline take nothing away again, because a fleet of that size could not have done their work.
    pub(crate) fn so_far(&self, now: Instant) -> (Duration, Duration) {
        let time = now.saturating_duration_since(self.since);
        let spared = self.baseline.saturating_sub(self.count);
        (
            self.used.saturating_add(time.saturating_mul(self.count)),
            self.avoided.saturating_add(time.saturating_mul(spared)),
        )
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn times_follow_the_number_of_workers_and_never_fall() {
        let start = origin();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seconds = WorkerSeconds::new(start, 2);
        let told = |seconds: &WorkerSeconds, time| {
            let (used, avoided) = seconds.so_far(at(time));
            (used.as_secs(), avoided.as_secs())
        };
        assert_eq!(told(&seconds, 100), (0, 200), "two workers would have idled");
        seconds.note(at(100), 1);
        assert_eq!(told(&seconds, 110), (10, 210));
        seconds.note(at(110), 5);
        assert_eq!(told(&seconds, 110), (10, 210));
        assert_eq!(told(&seconds, 120), (60, 210), "more than the baseline");
        seconds.note(at(120), 0);
        seconds.note(at(90), 0);
        assert_eq!(told(&seconds, 130), (60, 230), "no clock runs back");
    }
}
