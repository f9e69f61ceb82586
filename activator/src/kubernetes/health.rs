//! The ability of this activator to act on the Kubernetes API. In: results of calls, time. Out: able or not; whether to log an error.
//! Pure. Next: `task`, which tells the other activators.
//!
//! ```text
//!         an error                             the time is over
//!  Able ───────────▶ Unable 10 s, 20 s … 1 min ─────────────────▶ Able (until the next error; a success forgets all)
//! ```
//! While this activator is unable, another one acts, if it can.

use std::time::{Duration, Instant};

use super::error::ApiError;

/// Pause after the first error; doubled from there on.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause between two attempts: half a hold, so that an API that is back is of use to publishers that are held.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// Time between two log lines about one kind of error.
const TOLD_EVERY: Duration = Duration::from_secs(300);

/// See the picture above.
#[derive(Debug, Default)]
pub(super) struct Health {
    errors: u32,
    unable_until: Option<Instant>,
    told: Option<(&'static str, Instant)>,
}

impl Health {
    /// Takes the result of a call; true if its error is to be logged as a warning.
    pub(super) fn handle(&mut self, now: Instant, error: Option<&ApiError>) -> bool {
        match error {
            None => {
                (self.errors, self.unable_until) = (0, None);
                return false;
            }
            // The API works: the conflict concerns one object alone.
            Some(ApiError::Changed(_)) => return false,
            Some(_) => {}
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.errors.min(10)).min(MOST_PAUSE);
        self.errors += 1;
        self.unable_until = Some(now + pause);
        let word = error.map_or("", ApiError::as_str);
        let due = self.told.is_none_or(|(last, at)| last != word || at + TOLD_EVERY <= now);
        if due {
            self.told = Some((word, now));
        }
        due
    }

    /// Ends the pause when its time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.unable_until = self.unable_until.filter(|until| *until > now);
    }

    /// The time at which [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.unable_until
    }

    /// True if this activator can act.
    pub(super) fn is_able(&self) -> bool {
        self.unable_until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn errors_lengthen_the_pause_until_a_call_succeeds() {
        let (mut health, start) = (Health::default(), origin());
        let forbidden = ApiError::Forbidden("no".into());
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            health.handle(now, Some(&forbidden));
            assert!(!health.is_able());
            let until = health.poll_timeout().unwrap();
            health.handle_timeout(until - Duration::from_millis(1));
            assert!(!health.is_able());
            health.handle_timeout(until);
            assert!(health.is_able() && health.poll_timeout().is_none());
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [10, 20, 40, 60, 60, 60, 60]);
        health.handle(now, None);
        health.handle(now, Some(&ApiError::Changed("x".into())));
        assert!(health.is_able(), "that somebody else was faster is no inability");
        health.handle(now, Some(&forbidden));
        assert_eq!(health.poll_timeout(), Some(now + FIRST_PAUSE));
    }

    #[test]
    fn repeated_error_is_logged_once_in_five_minutes() {
        let (mut health, start) = (Health::default(), origin());
        let at = |seconds| start + Duration::from_secs(seconds);
        let forbidden = ApiError::Forbidden("no".into());
        let told = [
            (0, Some(&forbidden)),
            (10, Some(&forbidden)),
            (20, Some(&ApiError::Late)),
            (30, None),
            (40, Some(&ApiError::Late)),
            (320, Some(&ApiError::Late)),
        ]
        .map(|(seconds, error)| health.handle(at(seconds), error));
        assert_eq!(told, [true, false, true, false, false, true]);
    }
}
