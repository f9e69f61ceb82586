//! Each rule of the cursor, on virtual time.

use super::*;
use Sort::{Audio, AudioHeader, Cue, Inter, Keyframe, Metadata, VideoHeader};

const EVERYTHING: Action = Action::Write { bytes: usize::MAX, most: usize::MAX };

fn arrive(sorts: &[Sort]) -> Action {
    arrive_every(40, sorts)
}

fn arrive_every(milliseconds: u64, sorts: &[Sort]) -> Action {
    Action::Arrive { messages: sorts.iter().map(|sort| (*sort, milliseconds, 20)).collect(), interleaved: false }
}

impl World {
    fn after(actions: &[Action]) -> Self {
        let mut world = Self::new();
        actions.iter().for_each(|action| world.act(action));
        world
    }

    /// Messages with these timestamps arrive 40 ms apart.
    fn send(&mut self, messages: &[(Sort, u32)]) {
        for (sort, timestamp) in messages {
            self.now += Duration::from_millis(40);
            self.timestamp = *timestamp;
            let message = self.message(*sort, 20);
            chunks(&message, 4).iter().for_each(|chunk| self.receive(chunk));
        }
    }

    /// Numbers of the messages that a session got.
    fn got(&self, session: usize) -> Vec<usize> {
        let (bytes, chunk_size, _) = &self.sessions[session];
        self.numbers(&read(bytes, *chunk_size))
    }

    fn times(&self, session: usize) -> Vec<u32> {
        let (bytes, chunk_size, _) = &self.sessions[session];
        read(bytes, *chunk_size).iter().map(|message| message.timestamp).collect()
    }

    fn lost_and_replayed(&self) -> (u64, u64) {
        let counters = self.cursor.counters();
        (counters.lost, counters.replayed)
    }
}

#[test]
fn every_edge_of_the_picture_is_walked() {
    const START: Action = Action::Start(100);
    let (keyframe, audio, late) = (arrive(&[Keyframe]), arrive(&[Audio]), Action::Pass(2_000));
    let begun = [
        START,
        Action::Arrive { messages: vec![(Keyframe, 0, 600)], interleaved: false },
        Action::Write { bytes: 250, most: 250 },
    ];
    // More than the ring holds, and no keyframe in it.
    let flood = Action::Arrive { messages: vec![(Inter, 10, 600); 18], interleaved: false };
    let after_flood = |actions: &[Action]| [&begun[..], std::slice::from_ref(&flood), actions].concat();
    let table = [
        (vec![], "Away"),
        (vec![START], "Seeking"),
        (vec![START, EVERYTHING], "Seeking"),
        (vec![START, Action::Lose(0)], "Away"),
        (vec![START, keyframe.clone(), EVERYTHING], "Flowing"),
        // No video.
        (vec![START, audio.clone(), EVERYTHING], "Flowing"),
        (vec![START, audio.clone(), EVERYTHING, Action::Lose(0)], "Away"),
        (vec![START, audio.clone(), EVERYTHING, START, EVERYTHING], "Seeking"),
        (begun.to_vec(), "Flowing"),
        // Its messages have left the ring.
        (after_flood(&[]), "Seeking"),
        (after_flood(&[audio.clone(), EVERYTHING]), "Seeking"),
        (after_flood(&[audio.clone(), EVERYTHING, Action::Lose(0)]), "Away"),
        (after_flood(&[audio.clone(), keyframe, EVERYTHING]), "Flowing"),
        // No keyframe for 2 s.
        (after_flood(&[late, audio, EVERYTHING]), "Flowing"),
    ];
    for (actions, state) in table {
        let world = World::after(&actions);
        let found = match &world.cursor.session {
            None => "Away",
            Some(session) if session.flowing => "Flowing",
            Some(_) => "Seeking",
        };
        assert_eq!(found, state, "{actions:?}");
    }
}

#[test]
fn session_from_the_streams_beginning_leaves_nothing_out() {
    let world = World::after(&[
        Action::Start(128),
        arrive(&[Metadata, AudioHeader, Audio, VideoHeader, Keyframe, Inter]),
        EVERYTHING,
    ]);
    assert_eq!(world.got(0), [0, 1, 2, 3, 4, 5]);
    world.finish();
}

#[test]
fn relay_that_begins_between_keyframes_gives_audio_until_there_is_one() {
    let world =
        World::after(&[Action::Start(128), arrive(&[VideoHeader, Inter, Audio, Inter, Keyframe, Inter]), EVERYTHING]);
    assert_eq!(world.got(0), [0, 2, 4, 5]);
    assert_eq!(world.lost_and_replayed(), (2, 0));
    world.finish();
}

#[test]
fn late_upstream_gets_headers_and_then_the_first_keyframe_that_is_left() {
    let mut world = World::after(&[arrive(&[Metadata, AudioHeader, VideoHeader, Keyframe, Inter, Audio, Keyframe])]);
    world.act(&Action::Pass(4_000));
    world.act(&arrive(&[Inter, Keyframe]));
    world.act(&Action::Start(128));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 2, 6, 7, 8]);
    assert_eq!(world.lost_and_replayed().0, 3 + 1 + 2, "headers too: they came as headers, not in their place");
    world.finish();
}

#[test]
fn session_after_a_flap_begins_at_the_keyframe_before_the_first_unacknowledged_message() {
    let first = arrive(&[VideoHeader, Keyframe, Inter, Audio, Keyframe, Inter, Audio]);
    let mut world = World::after(&[Action::Start(128), first, EVERYTHING]);
    // The last message and a part of the one before.
    world.act(&Action::Lose(40));
    world.act(&arrive(&[Inter, Audio]));
    world.act(&Action::Start(128));
    world.act(&EVERYTHING);
    assert_eq!(world.got(1), [0, 4, 5, 6, 7, 8]);
    assert_eq!(world.lost_and_replayed(), (0, 3));
    world.finish();
}

#[test]
fn messages_that_left_the_ring_are_lost_and_the_next_keyframe_is_waited_for() {
    let mut world = World::after(&[Action::Start(128), arrive(&[Keyframe, Inter, Audio]), EVERYTHING]);
    world.act(&Action::Lose(60));
    world.act(&arrive(&[Inter]));
    world.act(&Action::Pass(34_100));
    // All that was there is too old now, for a group of pictures too.
    world.act(&arrive_every(0, &[Audio]));
    world.act(&Action::Start(128));
    world.act(&arrive(&[Keyframe, Inter]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(1), [5, 6], "not even audio before it, if it comes at once");
    assert_eq!(world.lost_and_replayed(), (4, 0));
    world.finish();
}

#[test]
fn outage_shorter_than_the_window_loses_nothing() {
    // A keyframe every two seconds.
    let seconds = |count: u64| {
        (0..count * 10).map(|at| Action::Arrive {
            messages: vec![(if at % 20 == 0 { Keyframe } else { Inter }, 100, 20)],
            interleaved: false,
        })
    };
    let mut world = World::after(&[Action::Start(128), arrive(&[VideoHeader]), EVERYTHING]);
    for message in seconds(6) {
        world.act(&message);
        world.act(&EVERYTHING);
    }
    // The last message of a group is lost. When the upstream is back, the group's keyframe is older than the window.
    world.act(&Action::Lose(10));
    seconds(3).for_each(|message| world.act(&message));
    world.act(&Action::Start(128));
    world.act(&EVERYTHING);
    let expected: Vec<usize> = std::iter::once(0).chain(41..91).collect();
    assert_eq!(world.got(1), expected, "the header, and the group from its keyframe on");
    assert_eq!(world.lost_and_replayed(), (0, 20));
    world.finish();
}

#[test]
fn audio_goes_alone_after_two_seconds_without_a_keyframe() {
    let mut world = World::after(&[arrive(&[AudioHeader, VideoHeader, Keyframe]), Action::Pass(1_500)]);
    world.index.evict(3, 0, &world.memory);
    world.cursor.before_eviction(3, &world.index, &world.memory);
    world.act(&Action::Start(128));
    world.act(&arrive_every(0, &[Audio, Inter, Audio]));
    world.act(&EVERYTHING);
    assert!(world.got(0).is_empty());
    let due = world.cursor.poll_timeout(&world.index).unwrap();
    assert_eq!(due - world.now, Duration::from_millis(500));
    world.act(&Action::Pass(500));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 3, 5]);
    world.act(&arrive(&[Inter, Audio, Keyframe, Inter]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 3, 5, 7, 8, 9]);
    world.finish();
}

#[test]
fn session_without_video_waits_for_nothing() {
    let mut world = World::after(&[Action::Start(128), arrive(&[AudioHeader, Audio, Audio]), EVERYTHING]);
    world.act(&Action::Lose(0));
    world.act(&arrive(&[Audio, Audio]));
    world.act(&Action::Start(128));
    world.act(&EVERYTHING);
    assert_eq!(world.got(1), [0, 3, 4], "what had arrived is not repeated");
    world.finish();
}

#[test]
fn upstream_that_lags_is_taken_to_the_newest_keyframe() {
    let slow = Action::Write { bytes: 10, most: 10 };
    let mut world = World::after(&[Action::Start(128), arrive(&[VideoHeader, Keyframe, Inter, Audio]), EVERYTHING]);
    world.act(&Action::Pass(2_000));
    world.act(&arrive(&[Inter, Audio]));
    world.act(&slow);
    world.act(&arrive(&[Keyframe, Inter, Audio, Keyframe, Inter]));
    world.act(&Action::Pass(1_900));
    world.act(&slow);
    assert_eq!(world.cursor.counters().jumps, 1);
    world.act(&EVERYTHING);
    // The message that was begun is finished; whole groups are left out.
    assert_eq!(world.got(0), [0, 1, 2, 3, 4, 9, 10]);
    assert_eq!(world.lost_and_replayed(), (4, 0));
    let times = world.times(0);
    let sent: Vec<u32> = world.got(0).iter().map(|number| world.messages[*number].timestamp).collect();
    assert_eq!(times, sent, "time is not shifted by it");
    world.finish();
}

#[test]
fn time_that_an_upstream_does_not_get_is_counted() {
    let mut world = World::after(&[Action::Start(128), arrive(&[VideoHeader, Keyframe]), EVERYTHING]);
    let slowly = |world: &mut World, milliseconds, (sort, length), count| {
        for _ in 0..count {
            world.act(&Action::Pass(milliseconds));
            world.act(&Action::Arrive { messages: vec![(sort, 0, length)], interleaved: false });
        }
    };
    slowly(&mut world, 500, (Inter, 20), 5);
    slowly(&mut world, 500, (Keyframe, 20), 1);
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 7], "it lagged");
    assert_eq!(world.cursor.counters().skipped, Duration::from_millis(2_500));
    world.act(&Action::Lose(0));
    slowly(&mut world, 100, (Inter, 600), 18);
    // The session that was lost is repeated from the keyframe if that is still there; it is not.
    assert!(world.index.front() > 9, "messages have left the ring while the upstream was away");
    slowly(&mut world, 100, (Keyframe, 20), 1);
    world.act(&Action::Start(128));
    world.act(&EVERYTHING);
    let away = world.cursor.counters().skipped - Duration::from_millis(2_500);
    assert!(
        away >= Duration::from_millis(1_800) && away < Duration::from_millis(2_500),
        "up to the keyframe: {away:?}"
    );
    world.finish();
}

#[test]
fn lagging_upstream_gets_the_headers_that_it_has_missed() {
    let mut world = World::after(&[Action::Start(128), arrive(&[Metadata, VideoHeader, Keyframe]), EVERYTHING]);
    world.act(&Action::Pass(2_000));
    world.act(&arrive(&[Inter, VideoHeader, Inter, Keyframe]));
    world.act(&Action::Pass(2_100));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 2, 4, 6], "and not those that it has");
    assert_eq!(world.lost_and_replayed(), (2, 0));
    world.finish();
}

#[test]
fn burst_after_an_absence_is_no_lag() {
    let mut world = World::after(&[arrive_every(700, &[VideoHeader, Keyframe, Inter, Inter, Keyframe])]);
    world.act(&Action::Start(128));
    world.act(&Action::Write { bytes: 30, most: 30 });
    world.act(&arrive(&[Inter]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 2, 3, 4, 5]);
    assert_eq!(world.cursor.counters().jumps, 0);
    world.finish();
}

#[test]
fn message_that_was_begun_is_finished_though_the_ring_has_overwritten_it() {
    let long = Action::Arrive { messages: vec![(Keyframe, 0, 600)], interleaved: false };
    let mut world = World::after(&[Action::Start(100), long, Action::Write { bytes: 250, most: 250 }]);
    for _ in 0..6 {
        world.act(&Action::Arrive { messages: vec![(Inter, 10, 600); 3], interleaved: false });
    }
    assert!(world.index.front() > 0);
    world.act(&arrive(&[Keyframe]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 19]);
    assert_eq!(world.lost_and_replayed(), (18, 0));
    world.finish();
}

#[test]
fn another_publisher_continues_the_session_at_a_keyframe() {
    let mut world = World::after(&[Action::Start(128), arrive(&[VideoHeader, Keyframe, Inter])]);
    world.act(&EVERYTHING);
    world.act(&Action::Pass(1_000));
    world.act(&Action::Publisher);
    world.act(&arrive(&[VideoHeader, Inter, Audio, Keyframe, Inter]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 2, 3, 5, 6, 7]);
    let times = world.times(0);
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    // All of it came 1.2 s after the last message of the publisher before; frames after their header.
    assert_eq!([times[3] - times[2], times[4] - times[2]], [1_200, 1_201]);
    assert_eq!(world.lost_and_replayed(), (1, 0));
    world.finish();
}

#[test]
fn rest_of_a_publisher_that_was_replaced_is_still_sent() {
    let mut world = World::after(&[Action::Start(128), arrive(&[Keyframe, Inter])]);
    world.act(&Action::Write { bytes: 20, most: 20 });
    world.act(&Action::Publisher);
    world.act(&arrive(&[Keyframe, Inter]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 2, 3]);
    world.finish();
}

#[test]
fn new_session_begins_near_0() {
    let mut world = World::after(&[Action::Publisher, arrive(&[VideoHeader, Keyframe, Inter])]);
    assert!(world.messages[0].timestamp > 1_000_000);
    world.act(&Action::Start(128));
    world.act(&EVERYTHING);
    assert_eq!(world.times(0), [0, 250, 290]);
    world.finish();
}

#[test]
fn control_messages_go_between_two_messages() {
    let mut world = World::after(&[Action::Start(128), arrive(&[Keyframe, Inter, Cue])]);
    world.act(&Action::Write { bytes: 5, most: 5 });
    world.act(&Action::Control);
    world.act(&Action::Control);
    assert!(!world.cursor.is_between_messages());
    world.act(&EVERYTHING);
    assert!(world.cursor.is_between_messages() && world.cursor.is_drained(&world.index));
    assert_eq!(world.got(0), [0, 1, 2]);
    let mut control = Vec::new();
    Control::Acknowledgement(7).write(&mut control, 65_536);
    let bytes = &world.sessions[0].0;
    let first = 12 + world.messages[0].payload.len();
    assert_eq!(&bytes[first..first + 2 * control.len()], [&control[..], &control].concat());
    world.finish();
}

/// A step of the timestamps between two messages that no receiver can make sense of.
fn has_wild_steps(times: &[u32]) -> bool {
    let wild = |pair: &[u32]| pair[0].abs_diff(pair[1]) > 15_000;
    times.windows(2).any(wild) || times.first().is_some_and(|first| *first > 1_000)
}

#[test]
fn session_that_joins_in_mid_stream_has_room_for_audio_that_comes_late() {
    let mut world = World::new();
    world.act(&Action::Start(128));
    // Audio is interleaved 800 ms late, and the clock is that of a machine that has run for 40 days.
    let from = 3_456_000_000;
    let at = |index: u32| {
        [(if index.is_multiple_of(10) { Keyframe } else { Inter }, from + index * 40), (Audio, from + index * 40 - 800)]
    };
    let before: Vec<(Sort, u32)> = (0..25).flat_map(at).collect();
    world.send(&[(AudioHeader, 0), (VideoHeader, 0)]);
    world.send(&before);
    world.act(&EVERYTHING);
    for late in [false, true] {
        world.act(&Action::Lose(0));
        world.act(&Action::Start(128));
        if late {
            // The keyframe came last: the times of the audio that will follow are known only by the audio before it.
            world.send(&[(Keyframe, from + 1_300)]);
            world.act(&EVERYTHING);
        }
        let index = if late { 33 } else { 25 };
        world.send(&(index..index + 5).flat_map(at).collect::<Vec<_>>());
        world.act(&EVERYTHING);
    }
    assert!(!has_wild_steps(&world.times(0)), "the beginning: {:?}", world.times(0));
    for session in [1, 2] {
        let times = world.times(session);
        assert!(!has_wild_steps(&times), "session {session}: {times:?}");
        assert_eq!(times[..2], [0, 0], "headers");
        let (bytes, chunk_size, _) = &world.sessions[session];
        world.check_session(&read(bytes, *chunk_size));
    }
}

#[test]
fn audio_that_is_unexpectedly_early_is_sent_at_the_beginning() {
    let mut world = World::new();
    world.act(&Action::Start(128));
    world.send(&[(VideoHeader, 0), (Keyframe, 900_000)]);
    world.act(&EVERYTHING);
    world.send(&[(Audio, 899_200), (Inter, 900_040), (VideoHeader, 0), (Audio, 899_990)]);
    world.act(&EVERYTHING);
    assert_eq!(world.times(0), [0, 250, 0, 290, 0, 240]);
}

#[test]
fn clock_that_jumps_is_counted_and_no_upstream_notices() {
    let mut world = World::new();
    world.act(&Action::Start(128));
    world.send(&[(VideoHeader, 0), (Keyframe, 900_000), (Audio, 900_010), (Inter, 900_040)]);
    world.act(&EVERYTHING);
    world.send(&[(Keyframe, 0), (Audio, 10), (Inter, 40), (VideoHeader, 0), (Inter, 80)]);
    world.act(&EVERYTHING);
    assert_eq!(world.times(0), [0, 250, 260, 290, 330, 340, 370, 330, 410]);
    assert_eq!(world.index.jumps(), 1);
    // And a session that begins afterwards.
    world.act(&Action::Lose(0));
    world.send(&[(Keyframe, 120), (Audio, 110)]);
    world.act(&Action::Start(128));
    world.act(&EVERYTHING);
    assert!(!has_wild_steps(&world.times(1)), "{:?}", world.times(1));
}

#[test]
fn clocks_of_different_origins_reach_an_upstream_as_one() {
    let mut world = World::new();
    world.act(&Action::Start(128));
    let at =
        |index: u32| [(if index == 0 { Keyframe } else { Inter }, 3_000_000_000 + index * 40), (Audio, index * 40)];
    world.send(&(0..20).flat_map(at).collect::<Vec<_>>());
    world.act(&EVERYTHING);
    assert!(!has_wild_steps(&world.times(0)), "{:?}", world.times(0));
    assert_eq!(world.index.jumps(), 1);
}

impl World {
    /// Chunk streams of the early messages that a session began, in their order.
    fn early(&self, session: usize) -> Vec<u32> {
        let (bytes, chunk_size, _) = &self.sessions[session];
        begun_early(bytes, *chunk_size)
    }
}

/// A stream that is flowing, and a keyframe of which all but `held` bytes have come.
fn with_open_keyframe(held: usize) -> World {
    World::after(&[
        Action::Start(100),
        arrive(&[Metadata, VideoHeader, AudioHeader, Keyframe, Inter, Audio]),
        EVERYTHING,
        Action::Hold(held),
        Action::Arrive { messages: vec![(Keyframe, 40, 600)], interleaved: false },
    ])
}

const REST: Action = Action::Trickle(usize::MAX);

#[test]
fn long_message_leaves_before_its_last_byte_in_whole_chunks() {
    let mut world = with_open_keyframe(250);
    let before = world.cursor.counters();
    world.act(&EVERYTHING);
    // Of 605 bytes in five chunks, 355 have come, three bytes of them chunk headers: three chunks of 100 bytes are there.
    let written = world.cursor.counters().bytes - before.bytes;
    assert_eq!((written, world.cursor.counters().messages), (12 + 100 + 2 * (1 + 100), 6));
    assert!(world.cursor.is_between_messages() && world.cursor.is_drained(&world.index));
    world.act(&REST);
    assert!(!world.cursor.is_drained(&world.index));
    world.act(&EVERYTHING);
    assert_eq!((world.got(0), world.early(0)), ((0..7).collect(), vec![7]));
    world.finish();
}

#[test]
fn complete_messages_go_between_the_chunks_of_a_message_whose_rest_does_not_come() {
    let mut world = with_open_keyframe(0);
    world.act(&EVERYTHING);
    world.act(&Action::Hold(300));
    world.act(&Action::Arrive { messages: vec![(Keyframe, 40, 500), (Audio, 0, 300)], interleaved: true });
    world.act(&EVERYTHING);
    world.act(&Action::Pass(1_000));
    world.act(&Action::Trickle(200));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), (0..8).collect::<Vec<_>>(), "the audio");
    world.act(&REST);
    world.act(&EVERYTHING);
    assert_eq!((world.got(0), world.early(0)), ((0..9).collect(), vec![7]));
    world.finish();
}

#[test]
fn message_after_one_that_was_left_has_a_chunk_stream_of_its_own() {
    let mut world = with_open_keyframe(250);
    world.act(&EVERYTHING);
    world.act(&Action::Abort);
    world.act(&arrive(&[Audio]));
    for _ in 0..30 {
        world.act(&Action::Hold(250));
        world.act(&Action::Arrive { messages: vec![(Keyframe, 40, 600)], interleaved: false });
        world.act(&EVERYTHING);
        world.act(&Action::Abort);
    }
    // nginx-rtmp takes no id above 31: after that, messages wait for their last byte.
    assert_eq!(world.early(0), (7..32).collect::<Vec<_>>());
    world.act(&arrive(&[Keyframe, Audio]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), (0..9).collect::<Vec<_>>());
    world.finish();
}

#[test]
fn message_of_a_publisher_that_is_gone_stays_open_and_the_next_publisher_goes_on() {
    let mut world = with_open_keyframe(250);
    world.act(&EVERYTHING);
    world.act(&Action::Publisher);
    world.act(&arrive(&[VideoHeader, Inter, Keyframe, Inter]));
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 2, 3, 4, 5, 6, 8, 9]);
    assert_eq!((world.early(0), world.lost_and_replayed()), (vec![7], (1, 0)));
    world.finish();
}

#[test]
fn upstream_that_takes_no_more_in_the_middle_of_an_early_message_is_taken_to_the_newest_keyframe() {
    let mut world = with_open_keyframe(250);
    world.act(&Action::Write { bytes: 150, most: 150 });
    assert!(!world.cursor.is_between_messages(), "the rest of a chunk comes before anything else");
    world.act(&REST);
    for sort in [Inter, Inter, Inter, Inter, Keyframe, Inter] {
        world.act(&arrive_every(700, &[sort]));
    }
    world.act(&EVERYTHING);
    assert_eq!(world.got(0), [0, 1, 2, 3, 4, 5, 6, 11, 12], "what was begun is finished");
    assert_eq!(world.lost_and_replayed(), (4, 0));
    world.finish();
}

#[test]
fn header_waits_for_its_last_byte() {
    let mut world = World::after(&[
        Action::Start(100),
        arrive(&[VideoHeader, Keyframe]),
        EVERYTHING,
        Action::Hold(100),
        Action::Arrive { messages: vec![(VideoHeader, 40, 600)], interleaved: false },
    ]);
    let before = world.cursor.counters();
    world.act(&EVERYTHING);
    assert_eq!(world.cursor.counters(), before);
    world.act(&REST);
    world.act(&EVERYTHING);
    assert_eq!((world.got(0), world.early(0)), (vec![0, 1, 2], vec![]));
    world.finish();
}

#[test]
fn message_that_is_cut_anywhere_survives_every_event() {
    let events: [&[Action]; 10] = [
        &[],
        &[Action::Publisher],
        &[Action::Abort],
        &[Action::Control],
        &[Action::Lose(300), Action::Start(77)],
        &[Action::Start(100)],
        &[Action::Pass(2_500)],
        // More than the ring holds, before the rest.
        &[Action::Arrive { messages: vec![(Inter, 10, 650); 12], interleaved: false }],
        &[Action::Arrive {
            messages: vec![(Audio, 900, 30), (Keyframe, 900, 300), (Inter, 900, 30)],
            interleaved: true,
        }],
        &[Action::Write { bytes: usize::MAX, most: 13 }],
    ];
    let mut early = 0;
    for held in (1..700).step_by(13) {
        for event in &events {
            for bytes in [0, 50, 112, 113, 230, usize::MAX] {
                let mut world = World::after(&[
                    Action::Start(100),
                    arrive(&[Metadata, VideoHeader, AudioHeader, Keyframe, Inter, Audio]),
                    EVERYTHING,
                    Action::Hold(held),
                    Action::Arrive { messages: vec![(Keyframe, 40, 600), (Audio, 5, 90)], interleaved: true },
                ]);
                world.act(&Action::Write { bytes, most: bytes });
                event.iter().for_each(|action| world.act(action));
                world.act(&Action::Write { bytes, most: bytes });
                [REST, EVERYTHING, arrive(&[Keyframe, Audio]), EVERYTHING].iter().for_each(|action| world.act(action));
                early += world.early(0).len();
                world.finish();
            }
        }
    }
    assert!(early > 700, "{early} messages left early");
}

/// Chunks of one byte that a long message begins with.
const TINY_CHUNKS: usize = 1_500;

/// A stream that is flowing at an upstream with this chunk size, and a message of which so many bytes have come in chunks of one byte. Its other
/// bytes are returned: they are one chunk, which has begun.
fn with_message_in_tiny_chunks(sort: Sort, length: usize, chunk_size: u32) -> (World, Vec<u8>) {
    let mut world = World::after(&[
        Action::Start(chunk_size),
        arrive(&[VideoHeader, AudioHeader, Keyframe, Audio]),
        EVERYTHING,
        Action::Pass(40),
    ]);
    let Message { type_id, timestamp, payload, .. } = world.message(sort, length);
    let header = MessageHeader { csid: 4, timestamp, length: payload.len() as u32, type_id, stream_id: 1 };
    let (tiny, rest) = payload.split_at(TINY_CHUNKS);
    let mut wire = Vec::new();
    Control::SetChunkSize(1).write(&mut wire, 128);
    for (at, byte) in tiny.iter().enumerate() {
        wire.extend_from_slice(&if at == 0 { first_header(&header) } else { continuation_header(&header) });
        wire.push(*byte);
    }
    let mut larger = Vec::new();
    Control::SetChunkSize(0xFF_FFFF).write(&mut larger, 1);
    wire.extend(larger);
    wire.extend_from_slice(&continuation_header(&header));
    wire.chunks(ROOM as usize).for_each(|part| world.receive(part));
    (world, rest.to_vec())
}

#[test]
fn work_at_an_arrival_does_not_grow_with_the_chunks_of_an_open_message() {
    // The chunks of the upstream fit into a write, with the first chunk size.
    for (sort, chunk_size) in [(Keyframe, 16), (Keyframe, 100), (Cue, 16), (VideoHeader, 16)] {
        let (mut world, rest) = with_message_in_tiny_chunks(sort, TINY_CHUNKS + 500, chunk_size);
        world.act(&EVERYTHING);
        let arrivals = &rest[..400];
        let looks = looks(|| {
            for byte in arrivals {
                world.receive(&[*byte]);
                world.act(&EVERYTHING);
            }
        });
        // The first bytes are looked at, and what goes into two writes.
        let most = arrivals.len() * (64 + 2 * MAX_SLICES) + 2 * TINY_CHUNKS;
        assert!(looks <= most as u64, "{looks} looks at segments for {} arrivals of a {sort:?}", arrivals.len());
        world.receive(&rest[400..]);
        world.act(&EVERYTHING);
        let early = if chunk_size == 16 && sort != VideoHeader { vec![7] } else { vec![] };
        assert_eq!((world.got(0), world.early(0)), ((0..5).collect(), early), "{sort:?} {chunk_size}");
        world.finish();
    }
}

#[test]
fn work_of_a_write_does_not_grow_with_the_chunks_before_it() {
    let (mut world, rest) = with_message_in_tiny_chunks(Keyframe, TINY_CHUNKS + 100, 4_096);
    world.receive(&rest);
    let (most, length) = (7, TINY_CHUNKS + 100);
    let looks = looks(|| world.act(&Action::Write { bytes: usize::MAX, most }));
    let bound = (length.div_ceil(most) + 3) * MAX_SLICES + 2 * length;
    assert!(looks <= bound as u64, "{looks} looks at segments");
    assert_eq!(world.got(0), (0..5).collect::<Vec<_>>());
    world.finish();
}
