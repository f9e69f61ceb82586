//! Waits for conditions. In: a condition. Out: the value that it found, or a panic that names the condition that never became true. No
//! scenario sleeps for a fixed time: limits are generous, because they only decide how long a failure takes to show.
#![expect(clippy::disallowed_methods, reason = "shell: owns the clock of the scenarios")]

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// Limit for actions that take milliseconds when they succeed. Seconds were measured on a loaded machine with two cores.
pub const SOON: Duration = Duration::from_secs(30);
/// Limit for actions that contain a period of their own: a hold, a cool-down, a grace time.
pub const LONG: Duration = Duration::from_secs(120);

/// Interval between looks at a condition: far shorter than a scenario, far longer than a look takes.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The clock of the scenarios.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time of an [`Instant`], for comparison with times that other programs wrote down.
#[must_use]
pub fn wall(at: Instant) -> SystemTime {
    SystemTime::now() - at.elapsed()
}

/// Waits until `condition` returns a value.
///
/// # Errors
/// The condition returned none within `limit`.
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

/// Waits until `condition` returns a value, at most [`LONG`].
///
/// # Panics
/// The condition returned none; `what` completes "waited for {what}".
#[track_caller]
pub fn until_some<T>(what: impl Display, condition: impl FnMut() -> Option<T>) -> T {
    until_some_within(LONG, what, condition)
}

/// Waits like [`until_some`], with the given limit.
///
/// # Panics
/// The condition returned none; the message names `what`.
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
/// The condition stayed false; the message names `what`.
#[track_caller]
pub fn until(what: impl Display, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Asserts that a condition stays true for a while, for the few guarantees that are about a period.
///
/// # Panics
/// The condition became false; the message names `what`.
#[track_caller]
pub fn stays_true_for(time: Duration, what: impl Display, mut condition: impl FnMut() -> bool) {
    let broken = try_until(time, || (!condition()).then_some(()));
    assert!(broken.is_err(), "no longer so: {what}");
}
