//! The benchmark: paced publishers → a relay → a counting sink, the relays side by side in every repetition.
//!
//! In: which relays, how many streams, how long. Out: a table of what each cost and what it lost, with ratios taken within a repetition.
//! The relay has one core to itself, generator and sink share the other one, as in the measurements of the peers that the numbers are
//! compared with. Latency is from the publisher's write to the sink's complete read of the message, and "added" is less the row
//! `direct`, where publishers talk to the sink without a relay.
//!
//! What surprised us: a publisher that reads nothing is stopped by a relay whose acknowledgements fill its window, so that the generator
//! reads too; and CPU time by `/proc/PID/stat` counts in hundredths of a second, which is nothing over ten seconds of load, but
//! everything over one cold start.

pub mod cluster;
pub mod cold;
pub mod load;
pub mod payload;
pub mod procfs;
pub mod publisher;
pub mod relay;
pub mod report;
pub mod sink;

use std::time::Instant;

/// The one clock of generator and sink, which are one process: nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "shell: a benchmark measures time")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// The moment of a time of this clock.
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

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
