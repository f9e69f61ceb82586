//! Waiting for things to become true. In: a condition. Out: what it found, or a panic that says what never happened.
//! No scenario sleeps for a time: limits are generous, because they only decide how long a failure takes to be told.
#![expect(clippy::disallowed_methods, reason = "shell: owns the clock of the scenarios")]

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// For what takes milliseconds when it works. A loaded machine with two cores has been seen to take seconds.
pub const SOON: Duration = Duration::from_secs(30);
/// For what has a time of its own in it: a hold, a cool-down, a grace time.
pub const LONG: Duration = Duration::from_secs(120);

/// How often a condition is looked at: far below what a scenario lasts, far above what looking costs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The clock of the scenarios.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// What [`now`] was on the clock of the world, for comparing with what other programs wrote down.
#[must_use]
pub fn wall(at: Instant) -> SystemTime {
    SystemTime::now() - at.elapsed()
}

/// Waits until `condition` has an answer.
///
/// # Errors
/// It had none within `limit`.
pub fn try_until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T, Duration> {
    let end = now() + limit;
    loop {
        if let Some(found) = condition() {
            return Ok(found);
        }
        if now() >= end {
            return Err(limit);
        }
        sleep(LOOK_EVERY);
    }
}

/// Waits until `condition` has an answer, at most [`LONG`].
///
/// # Panics
/// With `what`, which reads as "waited for {what}".
#[track_caller]
pub fn until_some<T>(what: impl Display, condition: impl FnMut() -> Option<T>) -> T {
    until_some_within(LONG, what, condition)
}

/// As [`until_some`], with a limit of its own.
///
/// # Panics
/// With `what`.
#[track_caller]
pub fn until_some_within<T>(limit: Duration, what: impl Display, condition: impl FnMut() -> Option<T>) -> T {
    match try_until(limit, condition) {
        Ok(found) => found,
        Err(limit) => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// Waits until `condition` is true, at most [`LONG`].
///
/// # Panics
/// With `what`.
#[track_caller]
pub fn until(what: impl Display, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Looks at something for a while in which it must stay true; for the few promises that are about a time.
///
/// # Panics
/// With `what`, as soon as it is not true.
#[track_caller]
pub fn stays_true_for(time: Duration, what: impl Display, mut condition: impl FnMut() -> bool) {
    let broken = try_until(time, || (!condition()).then_some(()));
    assert!(broken.is_err(), "no longer so: {what}");
}
