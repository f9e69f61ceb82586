//! The benchmark: paced publishers → a relay → a counting sink, with the relays side by side in every repetition.
//!
//! In: relays, number of streams, duration. Out: a table of each relay's costs and losses, with ratios taken within a repetition. The relay
//! has one core to itself, generator and sink share the other one, as in the measurements of the peers that the numbers are compared with.
//! The row `floor` is a relay that only receives and sends, as [`floor`] says: the least that the same work can cost on this machine.
//! Latency is from the publisher's write to the sink's complete read of the message; "added" latency is less that of the row `direct`,
//! where publishers talk to the sink without a relay.
//!
//! Note: a publisher that reads nothing is blocked by a relay whose acknowledgements fill its window, so the generator reads too.

pub mod chart;
pub mod cluster;
pub mod cold;
pub mod floor;
pub mod load;
pub mod machine;
pub mod most;
pub mod pacer;
pub mod payload;
pub mod procfs;
pub mod publisher;
pub mod relay;
pub mod report;
pub mod schedule;
pub mod sink;
pub mod starts;
pub mod watchers;

use std::time::Instant;

/// The single clock of generator and sink, which share one process: nanoseconds since its start.
#[derive(Clone, Copy, Debug)]
pub struct BenchClock(Instant);

impl BenchClock {
    /// Starts the clock at 0.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "shell: a benchmark measures time")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// The moment at a time of this clock.
    #[must_use]
    pub fn instant(self, nanoseconds: u64) -> Instant {
        self.0 + std::time::Duration::from_nanos(nanoseconds)
    }

    /// Nanoseconds since the start.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "shell: a benchmark measures time")]
    pub fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for BenchClock {
    fn default() -> Self {
        Self::new()
    }
}
