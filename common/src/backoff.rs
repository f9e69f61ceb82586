//! Longer and longer delays after failures in a row, with jitter, without a clock or randomness of its own.
//!
//! In: failures and successes, reported by a shell. Out: the delay before the next attempt. Upstream connections, the worker's links and
//! the process fleet use it.

use std::time::Duration;

/// Exponential back-off: each delay is uniformly within the upper half of `first × 2^n`, which never exceeds `most`.
///
/// Half of the delay is fixed so that a retry is never immediate; the other half is spread so that many streams that one upstream cut off
/// do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    chance: u64,
}

impl Backoff {
    /// Delays from `first` (at least 1 ms: never a hot loop) up to `most` (at least `first`). The same seed gives the same delays.
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self { first, most: most.max(first), failures: 0, chance: seed }
    }

    /// Counts a failure and returns the delay before the next attempt.
    pub fn failed(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(self.most);
        let half = whole / 2;
        whole - half + half.mul_f64(self.fraction())
    }

    /// Starts again at the first delay: call it after a stable period, not at the first success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The next random number from 0 to below 1: splitmix64, of which 53 bits are used.
    fn fraction(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(10);

    #[test]
    fn delay_doubles_within_its_bounds() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(FIRST, MOST, seed);
            for n in 0..80_u32 {
                let whole = FIRST.saturating_mul(1 << n.min(20)).min(MOST);
                let delay = backoff.failed();
                assert!(delay >= whole / 2 && delay <= whole, "seed {seed}, failure {n}: {delay:?} of {whole:?}");
            }
            backoff.reset();
            assert!(backoff.failed() <= FIRST);
        }
    }

    #[test]
    fn different_seeds_spread_and_equal_seeds_repeat() {
        let third = |seed| {
            let mut backoff = Backoff::new(FIRST, MOST, seed);
            (backoff.failed(), backoff.failed(), backoff.failed()).2
        };
        let mut delays: Vec<_> = (0..64).map(third).collect();
        assert_eq!(delays[5], third(5));
        delays.sort();
        delays.dedup();
        assert!(delays.len() > 60, "{delays:?}");
    }

    #[test]
    fn delay_is_never_zero() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO, 1);
        assert!(backoff.failed() >= Duration::from_micros(500));
    }
}
