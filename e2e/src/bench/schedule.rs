//! The times and lengths of a publisher's messages. In: a rate, the number of the stream, the time of its start. Out: each next message with
//! the time at which it is due.
//!
//! The first keyframe is due at once. Behind it each publisher has a phase of its own within the frame interval, another one for its audio, and
//! a first GOP of its own length: publishers that began at the same time would otherwise send in the same moment for ever, and relays that
//! take several arrivals at once would look cheaper than they are.

use super::payload::{self, Shape};

/// Seconds from keyframe to keyframe.
const GOP_SECONDS: u64 = 2;
/// A keyframe is as long as this many other frames.
const KEY_FACTOR: u64 = 8;
/// AAC at 44.1 kHz: 1024 samples a message; 128 kbps.
const AUDIO_NANOS: u64 = 23_220_000;
const AUDIO_BYTES: usize = 371;
/// Slower streams have no audio: it would be most of them.
const LEAST_WITH_AUDIO: u64 = 256_000;
const SECOND: u64 = 1_000_000_000;

/// The media of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct MediaRate {
    /// Video and audio together, bits per second.
    pub bits: u64,
    /// Frames per second.
    pub fps: u64,
}

impl Default for MediaRate {
    /// 2.5 Mbps, 30 frames a second.
    fn default() -> Self {
        Self { bits: 2_500_000, fps: 30 }
    }
}

impl MediaRate {
    /// True if the stream has audio.
    #[must_use]
    pub fn has_audio(self) -> bool {
        self.bits >= LEAST_WITH_AUDIO
    }

    fn gop(self) -> u64 {
        GOP_SECONDS * self.fps
    }

    /// Bytes of an inter frame.
    fn inter(self) -> usize {
        let audio = if self.has_audio() { AUDIO_BYTES as u64 * 8 * SECOND / AUDIO_NANOS } else { 0 };
        let per_gop = self.bits.saturating_sub(audio) / 8 * GOP_SECONDS;
        usize::try_from(per_gop / (self.gop() - 1 + KEY_FACTOR)).unwrap_or(usize::MAX).max(payload::LEAST)
    }
}

/// A message that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueMessage {
    /// Nanoseconds since the start of the stream.
    pub at: u64,
    /// Kind of the message.
    pub shape: Shape,
    /// Length of its payload, bytes.
    pub len: usize,
}

/// The messages of one publisher.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate: MediaRate,
    frame: u64,
    sound: u64,
    /// Time from the first frame to the second, nanoseconds.
    video_phase: u64,
    /// Time from the first frame to the first audio, nanoseconds.
    audio_phase: u64,
    /// Frames of the first GOP.
    first_gop: u64,
}

impl Schedule {
    /// A schedule from its beginning; streams differ by their number.
    #[must_use]
    pub fn new(rate: MediaRate, stream: u32) -> Self {
        let any = |salt: u64, below: u64| 1 + scramble(u64::from(stream) << 8 | salt) % below;
        Self {
            rate,
            frame: 0,
            sound: 0,
            video_phase: any(0, SECOND / rate.fps),
            audio_phase: any(1, AUDIO_NANOS),
            first_gop: any(2, rate.gop()),
        }
    }

    fn video_at(&self) -> u64 {
        let intervals = |frames: u64| frames * SECOND / self.rate.fps;
        self.frame.checked_sub(1).map_or(0, |frames| self.video_phase + intervals(frames))
    }

    fn audio_at(&self) -> u64 {
        if self.rate.has_audio() { self.audio_phase + self.sound * AUDIO_NANOS } else { u64::MAX }
    }

    /// The message that is due next.
    #[must_use]
    pub fn next(&self) -> DueMessage {
        let (video, audio) = (self.video_at(), self.audio_at());
        if audio < video {
            return DueMessage { at: audio, shape: Shape::Audio, len: AUDIO_BYTES };
        }
        let since = self.frame.checked_sub(self.first_gop);
        let key = self.frame == 0 || since.is_some_and(|frames| frames.is_multiple_of(self.rate.gop()));
        let (shape, factor) = if key { (Shape::Keyframe, KEY_FACTOR as usize) } else { (Shape::Inter, 1) };
        DueMessage { at: video, shape, len: self.rate.inter() * factor }
    }

    /// Goes on to the message behind the next one.
    pub fn advance(&mut self) {
        match self.next().shape {
            Shape::Audio => self.sound += 1,
            Shape::Keyframe | Shape::Inter => self.frame += 1,
        }
    }
}

/// Bits that depend on all bits of `value` (splitmix64).
#[must_use]
pub fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(rate: MediaRate, stream: u32, until: u64) -> Vec<DueMessage> {
        let mut schedule = Schedule::new(rate, stream);
        let mut all = Vec::new();
        while schedule.next().at < until {
            all.push(schedule.next());
            schedule.advance();
        }
        all
    }

    #[test]
    fn stream_has_its_rate_and_begins_with_a_keyframe() {
        for (rate, per_second) in [(MediaRate::default(), 73), (MediaRate { bits: 32_000, fps: 5 }, 5)] {
            for stream in 0..20 {
                let all = messages(rate, stream, 60 * SECOND);
                assert_eq!((all[0].at, all[0].shape), (0, Shape::Keyframe));
                assert!(all.is_sorted_by_key(|message| message.at));
                assert!((all.len() as u64).abs_diff(60 * per_second) < 60, "{}", all.len());
                let bits = all.iter().map(|message| message.len as u64 * 8).sum::<u64>() / 60;
                assert!(bits.abs_diff(rate.bits) < rate.bits / 20, "{bits}");
                assert!(all.iter().filter(|message| message.shape == Shape::Keyframe).count().abs_diff(31) < 2);
            }
        }
    }

    #[test]
    fn publishers_that_began_together_do_not_send_together() {
        // The messages of 100 streams, by the millisecond in which they are due, in a second with all of them.
        let mut bins = vec![0_u32; 1000];
        for stream in 0..100 {
            for message in messages(MediaRate::default(), stream, 4 * SECOND) {
                if message.at >= 3 * SECOND {
                    bins[((message.at - 3 * SECOND) / 1_000_000) as usize] += 1;
                }
            }
        }
        // 7.3 on average: together they would be 100 in some and 0 in most.
        assert!(bins.iter().all(|bin| *bin < 25) && bins.iter().filter(|bin| **bin == 0).count() < 20, "{bins:?}");
    }
}
