//! The bit rate of a publisher's stream, from the bytes that its worker reports. In: numbers of bytes and times. Out: the rate. Pure.

use std::time::{Duration, Instant};

use liveedgecast_common::control::KindBytes;

/// Shortest time over which a rate is measured: reports come once a second, and a change of the stream brings one in between.
const SHORTEST: Duration = Duration::from_millis(500);
/// Silence of the counters after which nothing is received.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Time over which the rates of video and of audio are levelled. The video of one second has a keyframe in it or none, and what reads these rates
/// acts on low ones.
const LEVELLED_OVER: Duration = Duration::from_secs(2);

/// Bits per second of each kind of message, payloads alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindRates {
    pub(crate) video: u64,
    pub(crate) audio: u64,
}

/// The rate of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedRate {
    bytes: u64,
    kinds: KindBytes,
    at: Instant,
    bits_per_second: u64,
    of_kinds: Option<KindRates>,
}

impl ReceivedRate {
    /// The rate of a stream of which so many bytes have come so far.
    pub(crate) fn new(now: Instant, bytes: u64, kinds: KindBytes) -> Self {
        Self { bytes, kinds, at: now, bits_per_second: 0, of_kinds: None }
    }

    /// Notes that so many bytes have come by now. Fewer than before are those of another publisher.
    pub(crate) fn note(&mut self, now: Instant, bytes: u64, kinds: KindBytes) {
        let time = now.saturating_duration_since(self.at);
        let (video, audio) = (kinds.video.checked_sub(self.kinds.video), kinds.audio.checked_sub(self.kinds.audio));
        let (Some(more), Some(video), Some(audio)) = (bytes.checked_sub(self.bytes), video, audio) else {
            return *self = Self::new(now, bytes, kinds);
        };
        if time < SHORTEST {
            return;
        }
        let of_kinds = match self.of_kinds {
            Some(last) => KindRates {
                video: levelled(last.video, rate(video, time), time),
                audio: levelled(last.audio, rate(audio, time), time),
            },
            None => KindRates { video: rate(video, time), audio: rate(audio, time) },
        };
        *self = Self { bytes, kinds, at: now, bits_per_second: rate(more, time), of_kinds: Some(of_kinds) };
    }

    /// Bits per second.
    pub(crate) fn bits_per_second(&self, now: Instant) -> u64 {
        if self.is_silent(now) { 0 } else { self.bits_per_second }
    }

    /// Bits per second of each kind, levelled over [`LEVELLED_OVER`].
    pub(crate) fn of_kinds(&self, now: Instant) -> KindRates {
        if self.is_silent(now) { KindRates::default() } else { self.of_kinds.unwrap_or_default() }
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) > SILENT_AFTER
    }
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 8000 / time.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The last level, moved towards the newest rate by the share that its time has of both times together.
fn levelled(last: u64, newest: u64, time: Duration) -> u64 {
    let (new, old) = (time.as_millis(), LEVELLED_OVER.as_millis());
    let level = (u128::from(last) * old + u128::from(newest) * new) / (old + new);
    u64::try_from(level).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn rate_is_that_of_the_last_reports_and_falls_with_silence() {
        let start = origin();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rate = ReceivedRate::new(at(0), 1000, KindBytes::default());
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
            rate.note(at(millis), bytes, KindBytes::default());
            assert_eq!(rate.bits_per_second(at(millis)), bits, "at {millis} ms");
        }
        assert_eq!((rate.bits_per_second(at(9000)), rate.bits_per_second(at(9001))), (8000, 0));
    }
    #[test]
    fn rates_of_kinds_are_levelled_and_fall_with_silence() {
        let start = origin();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = ReceivedRate::new(at(0), 0, KindBytes::default());
        let mut kinds = KindBytes::default();
        // Second, bytes of video and audio that came in it; levelled bits per second of both.
        for (second, video, audio, rates) in [
            (1, 150_000, 1000, (1_200_000, 8000)),
            (2, 0, 1000, (800_000, 8000)),
            (3, 150_000, 4000, (933_333, 16_000)),
            (4, 0, 0, (622_222, 10_666)),
        ] {
            kinds = KindBytes { video: kinds.video + video, audio: kinds.audio + audio };
            rate.note(at(second), 0, kinds);
            let KindRates { video, audio } = rate.of_kinds(at(second));
            assert_eq!((video, audio), rates, "in second {second}");
        }
        assert_eq!(rate.of_kinds(at(7)).video, 622_222);
        assert_eq!(rate.of_kinds(at(8)), KindRates::default());
        rate.note(at(8), 0, KindBytes::default());
        assert_eq!(rate.of_kinds(at(8)), KindRates::default(), "the bytes of another publisher begin at zero");
    }
}
