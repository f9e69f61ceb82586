//! The clock of every shell: the runtime's, which tests can pause and turn. Machines are given `now` and never call it; `clippy.toml`
//! bans it as it bans the clocks of `std` and `tokio`.
#![expect(clippy::disallowed_methods, reason = "shell: the one clock")]

use std::future::pending;
use std::time::Instant;

/// The time by the runtime's clock. Outside a runtime, and in one that is not paused, this is [`Instant::now`].
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns at `until`; never if there is none. Cancel safe.
pub async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => pending().await,
    }
}
