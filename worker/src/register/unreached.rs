//! The time at which a worker that reaches no activator says so. In: the number of activators it is registered with. Out: whether the warning is
//! due. Pure.
//!
//! Note: each attempt that fails is a line at debug, as one failed attempt means nothing. A worker with a wrong address would be silent.

use std::time::{Duration, Instant};

use liveedgecast_common::log_limiter::LogLimiter;

/// Time without an activator after which the worker warns: several attempts have failed by then.
const UNREACHED_AFTER: Duration = Duration::from_secs(5);
/// Time between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks at the limiter.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The state of the warning.
#[derive(Debug)]
pub(super) struct UnreachedWarning {
    limiter: LogLimiter,
    since: Option<Instant>,
    look_at: Option<Instant>,
}

impl UnreachedWarning {
    pub(super) fn new() -> Self {
        Self { limiter: LogLimiter::new(WARN_EVERY), since: None, look_at: None }
    }

    /// Takes the number of activators; the time without one, if it has to be told now.
    pub(super) fn handle(&mut self, now: Instant, joined: usize) -> Option<Duration> {
        if joined > 0 {
            (self.since, self.look_at) = (None, None);
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let look_at = *self.look_at.get_or_insert(since + UNREACHED_AFTER);
        if now < look_at {
            return None;
        }
        self.look_at = Some(now + LOOK_EVERY);
        self.limiter.is_due(now).then(|| now.saturating_duration_since(since))
    }

    /// The time at which [`Self::handle`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use liveedgecast_common::testkit::origin;

    #[test]
    fn warning_comes_after_five_seconds_without_an_activator_and_then_once_a_minute() {
        let (mut warning, origin) = (UnreachedWarning::new(), origin());
        let mut told = Vec::new();
        for second in 0..150 {
            // Registered for one second: a new absence begins, and the minute goes on.
            let joined = usize::from(second == 100);
            let said = warning.handle(origin + Duration::from_secs(second), joined);
            told.extend(said.map(|time| (second, time.as_secs())));
        }
        assert_eq!(told, [(5, 5), (65, 65), (126, 25)]);
        warning.handle(origin + Duration::from_secs(200), 1);
        assert_eq!(warning.poll_timeout(), None);
    }
}
