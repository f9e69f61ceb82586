//! The clock on publishers that were made to be difficult.

use std::time::Duration;

use liveedgecast_common::testkit::origin;
use proptest::prelude::*;

use super::*;
use Kind::{Audio, Video};

struct Publisher {
    clock: PublisherClock,
    now: Instant,
    jumps: usize,
}

impl Publisher {
    fn new() -> Self {
        Self { clock: PublisherClock::default(), now: origin(), jumps: 0 }
    }

    /// The times of frames that come 20 ms apart.
    fn sends(&mut self, frames: &[(Kind, u32)]) -> Vec<i64> {
        let time = |(kind, timestamp): &(Kind, u32)| {
            self.now += Duration::from_millis(20);
            let (time, jump) = self.clock.frame(self.now, *kind, *timestamp);
            self.jumps += usize::from(jump.is_some());
            time
        };
        frames.iter().map(time).collect()
    }

    fn pauses(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }
}

#[test]
fn clock_that_wraps_goes_on() {
    let mut publisher = Publisher::new();
    let times = publisher.sends(&[(Video, u32::MAX - 9), (Audio, u32::MAX), (Video, 10), (Audio, u32::MAX - 3)]);
    assert_eq!(times, [-10, -1, 10, -4].map(|time| time + (1 << 32)));
    assert_eq!(publisher.jumps, 0);
}

#[test]
fn frame_before_0_is_earlier_and_not_49_days_later() {
    let mut publisher = Publisher::new();
    assert_eq!(publisher.sends(&[(Video, 0), (Audio, 0_u32.wrapping_sub(40))]), [0, -40]);
}

#[test]
fn small_steps_back_and_long_pauses_keep_the_offset() {
    let mut publisher = Publisher::new();
    assert_eq!(publisher.sends(&[(Video, 10_000), (Audio, 7_100), (Video, 9_000)]), [10_000, 7_100, 9_000]);
    publisher.pauses(40_000);
    assert_eq!(publisher.sends(&[(Video, 50_100)]), [50_100], "its clock went on");
    publisher.pauses(40_000);
    assert_eq!(publisher.sends(&[(Video, 50_140)]), [50_140], "its clock stood still");
    assert_eq!(publisher.jumps, 0);
}

#[test]
fn clock_that_jumps_to_0_goes_on_by_the_wall_clock_and_audio_stays_with_video() {
    let mut publisher = Publisher::new();
    publisher.sends(&[(Video, 900_000), (Audio, 899_990)]);
    publisher.pauses(180);
    let times = publisher.sends(&[(Video, 5), (Audio, 900_010), (Audio, 0), (Video, 45), (Audio, 21)]);
    // 200 ms after the newest one but for the audio between them, and 5 ms before the video of the new clock.
    assert_eq!(times, [900_220, 900_010, 900_215, 900_260, 900_236]);
    assert_eq!(publisher.jumps, 1);
}

#[test]
fn clip_in_a_loop_goes_on() {
    let mut publisher = Publisher::new();
    let clip: Vec<(Kind, u32)> = (0..100).map(|at| (if at % 2 == 0 { Video } else { Audio }, at * 50)).collect();
    let times = publisher.sends(&clip.repeat(3));
    let each_kind = |first: usize| times.iter().skip(first).step_by(2).copied().collect::<Vec<_>>();
    for times in [each_kind(0), each_kind(1)] {
        assert!(times.windows(2).all(|pair| (1..=100).contains(&(pair[1] - pair[0]))), "{times:?}");
    }
    assert_eq!(publisher.jumps, 2);
}

#[test]
fn clocks_of_different_origins_are_brought_together() {
    let mut publisher = Publisher::new();
    let frames: Vec<(Kind, u32)> =
        (0..50).flat_map(|at| [(Video, 3_000_000_000 + at * 40), (Audio, at * 40)]).collect();
    let times = publisher.sends(&frames);
    for pair in times.chunks(2) {
        assert_eq!(pair[1] - pair[0], 20, "{times:?}");
    }
    assert_eq!(publisher.jumps, 1);
}

#[test]
fn one_wrong_timestamp_is_one_jump() {
    let mut publisher = Publisher::new();
    let times = publisher.sends(&[(Video, 1_000), (Audio, 1_010), (Video, 77_777_777), (Audio, 1_030), (Video, 1_080)]);
    assert_eq!(times, [1_000, 1_010, 1_030, 1_030, 1_080]);
    assert_eq!(publisher.jumps, 1);
}

#[test]
fn wrong_timestamp_that_could_be_right_does_not_part_audio_from_video() {
    for wrong in [9_800, 8_000, 4_000] {
        let mut publisher = Publisher::new();
        let mut frames: Vec<(Kind, u32)> =
            (0..50).flat_map(|at| [(Video, 20_000 + at * 40), (Audio, 19_200 + at * 40)]).collect();
        frames[20].1 += wrong;
        frames[41].1 += wrong;
        frames[60].1 -= wrong;
        let times = publisher.sends(&frames);
        let moved = times.iter().zip(&frames).filter(|(time, (_, timestamp))| **time != i64::from(*timestamp)).count();
        assert!(moved <= 1 && publisher.jumps <= 1, "{wrong} ms: {times:?}");
    }
}

#[test]
fn tracks_of_one_kind_with_clocks_of_their_own_do_not_drive_time_ahead() {
    for apart in [5_000, 50_000_000] {
        let mut publisher = Publisher::new();
        let frames: Vec<(Kind, u32)> = (0..100)
            .flat_map(|at| {
                [(Video, 90_000_000 + at * 60), (Audio, 90_000_000 + at * 60), (Video, 90_000_000 - apart + at * 60)]
            })
            .collect();
        let times = publisher.sends(&frames);
        let end = times[times.len() - 1] - times[0];
        assert!((5_000..7_000).contains(&end) && publisher.jumps == 1, "{apart} ms apart: {end}, {times:?}");
    }
}

#[test]
fn frames_that_an_encoder_left_out_are_no_jump() {
    let mut publisher = Publisher::new();
    publisher.sends(&[(Video, 1_000), (Audio, 1_010)]);
    // The network stood still; then all comes at once: audio of the whole time, and video from where the encoder had begun to leave it out.
    publisher.pauses(8_000);
    let audio: Vec<(Kind, u32)> = (0..350).map(|at| (Audio, 1_030 + at * 23)).collect();
    publisher.sends(&audio);
    assert_eq!(publisher.sends(&[(Video, 9_080), (Audio, 9_100), (Video, 9_120)]), [9_080, 9_100, 9_120]);
    assert_eq!(publisher.jumps, 0);
}

#[test]
fn audio_or_video_that_comes_back_with_a_clock_that_stood_still_is_brought_to_the_other() {
    let mut publisher = Publisher::new();
    publisher.sends(&[(Audio, 1_000)]);
    (0..500).for_each(|at| {
        publisher.pauses(20);
        publisher.sends(&[(Video, 1_000 + at * 40)]);
    });
    let time = publisher.sends(&[(Audio, 1_023)])[0];
    assert!((20_960..21_100).contains(&time), "{time}");
    assert_eq!(publisher.jumps, 1);
}

#[test]
fn file_that_is_sent_faster_than_it_plays_does_not_jump() {
    let mut publisher = Publisher::new();
    let frames: Vec<(Kind, u32)> = (0..500).map(|at| (Video, at * 1_000)).collect();
    assert_eq!(publisher.sends(&frames).last(), Some(&499_000));
    assert_eq!(publisher.jumps, 0);
}

#[test]
fn headers_and_data_do_not_move_the_clock() {
    let mut publisher = Publisher::new();
    assert_eq!(publisher.clock.other(publisher.now, 5_000), 5_000, "before any frame");
    publisher.sends(&[(Video, 3_000_000_000)]);
    assert_eq!(publisher.clock.other(publisher.now, 3_000_000_040), 3_000_000_040);
    assert_eq!(publisher.clock.other(publisher.now, 0), 3_000_000_000, "not ahead of the frames");
    assert_eq!(
        publisher.clock.other(publisher.now, 2_999_000_000),
        2_999_000_000,
        "a header may keep an early timestamp"
    );
    assert_eq!(publisher.sends(&[(Video, 3_000_000_040)]), [3_000_000_040]);
}

#[test]
fn successor_knows_how_far_audio_and_video_are_apart() {
    let last = LastTimestamps { audio: Some(899_200), video: Some(900_000), data: Some(0) };
    let mut clock = PublisherClock::restored(origin(), &last);
    assert_eq!((clock.last(Video), clock.last(Audio)), (Some(900_000), Some(899_200)));
    assert_eq!(clock.frame(origin(), Audio, 899_220), (899_220, None));
}

proptest! {
    #[test]
    fn time_never_jumps_whatever_the_timestamps(
        frames in prop::collection::vec((any::<bool>(), any::<u32>(), 0_u64..5_000, 0_u32..4), 1..200)
    ) {
        let mut publisher = Publisher::new();
        let (mut newest, mut lowest, mut last): (Option<i64>, i64, u32) = (None, 0, 0);
        for (audio, timestamp, pause, wild) in frames {
            last = if wild == 0 { timestamp } else { last.wrapping_add(pause as u32) };
            publisher.pauses(pause);
            let time = publisher.sends(&[(if audio { Audio } else { Video }, last)])[0];
            if let Some(newest) = newest {
                prop_assert!(time > lowest - FAR && time < newest + 5_020 + FAR, "{lowest} and {newest} to {time}");
            } else {
                lowest = time;
            }
            newest = newest.max(Some(time));
        }
    }
}
