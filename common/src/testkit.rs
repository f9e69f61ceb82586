//! Support for tests of this crate and, with the feature `testkit`, of the crates above it.
#![expect(clippy::disallowed_methods, reason = "the one clock of tests")]

use std::time::Instant;

/// An instant from which a test counts its virtual time.
#[must_use]
pub fn origin() -> Instant {
    Instant::now()
}
