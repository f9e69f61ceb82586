//! The bit rate of a publisher's stream, from the bytes that its worker reports. In: numbers of bytes and times. Out: the rate. Pure.

use std::time::{Duration, Instant};

/// Shortest time over which a rate is measured: reports come once a second, and a change of the stream brings one in between.
const SHORTEST: Duration = Duration::from_millis(500);
/// Silence of the counters after which nothing is received.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// The rate of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedRate {
    bytes: u64,
    at: Instant,
    bits_per_second: u64,
}

impl ReceivedRate {
    /// The rate of a stream of which so many bytes have come so far.
    pub(crate) fn new(now: Instant, bytes: u64) -> Self {
        Self { bytes, at: now, bits_per_second: 0 }
    }

    /// Notes that so many bytes have come by now. Fewer than before are those of another publisher.
    pub(crate) fn note(&mut self, now: Instant, bytes: u64) {
        let time = now.saturating_duration_since(self.at);
        let Some(more) = bytes.checked_sub(self.bytes) else { return *self = Self::new(now, bytes) };
        if time >= SHORTEST {
            let rate = u128::from(more) * 8000 / time.as_millis().max(1);
            *self = Self { bytes, at: now, bits_per_second: u64::try_from(rate).unwrap_or(u64::MAX) };
        }
    }

    /// Bits per second.
    pub(crate) fn bits_per_second(&self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.at) > SILENT_AFTER { 0 } else { self.bits_per_second }
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn rate_is_that_of_the_last_reports_and_falls_with_silence() {
        let start = origin();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rate = ReceivedRate::new(at(0), 1000);
        // Milliseconds, bytes; bits per second.
        for (millis, bytes, bits) in [
            (100, 2000, 0),
            (1000, 126_000, 1_000_000),
            (1200, 200_000, 1_000_000),
            (2000, 251_000, 1_000_000),
            (4000, 251_000, 0),
            (5000, 1, 0),
            (6000, 1001, 8000),
        ] {
            rate.note(at(millis), bytes);
            assert_eq!(rate.bits_per_second(at(millis)), bits, "at {millis} ms");
        }
        assert_eq!((rate.bits_per_second(at(9000)), rate.bits_per_second(at(9001))), (8000, 0));
    }
}
