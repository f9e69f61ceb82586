//! Compares arrived messages with published ones. In: two lists of messages. Out: nothing, or a panic that shows the first difference.

use std::fmt::Write as _;

use crate::process::Program;
use crate::record::{Message, Recording, flv};
use crate::wait::LONG;

/// Asserts that every message arrived, in its order, with its bytes, and with its timestamp moved by the same offset as all others.
///
/// # Panics
/// A message differs, is missing or is too many.
#[track_caller]
pub fn assert_arrived_whole(published: &[Message], arrived: &[Message]) {
    assert!(!published.is_empty(), "nothing was published");
    for (index, (sent, got)) in published.iter().zip(arrived).enumerate() {
        let context = || around(published, arrived, index);
        assert!(sent.carries_the_same_as(got), "message {index} differs\n{}", context());
    }
    let offsets: Vec<u32> =
        published.iter().zip(arrived).map(|(sent, got)| got.timestamp.wrapping_sub(sent.timestamp)).collect();
    if let Some(index) = offsets.iter().position(|offset| *offset != offsets[0]) {
        panic!("message {index} has another offset of time\n{}", around(published, arrived, index));
    }
    let (sent, got) = (published.len(), arrived.len());
    assert_eq!(sent, got, "as many messages\n{}", around(published, arrived, sent.min(got)));
}

/// Messages around one, side by side.
fn around(published: &[Message], arrived: &[Message], index: usize) -> String {
    let mut text = String::new();
    for at in index.saturating_sub(4)..index + 5 {
        let show = |messages: &[Message]| messages.get(at).map_or("-".to_owned(), |message| format!("{message:?}"));
        let _ = writeln!(text, "{at:5}  published {:60} arrived {}", show(published), show(arrived));
    }
    text
}

/// How one session at an upstream relates to what was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSpan {
    /// Index, among the published messages, of the session's first message behind the headers that were put before it.
    pub first: usize,
    /// Index of the session's last message, plus one.
    pub end: usize,
}

/// Asserts that a session began in the middle of a stream: every header that was in force, then a keyframe, then everything that was
/// published after it, in order.
///
/// # Panics
/// The session differs from that.
#[track_caller]
pub fn assert_resumed(published: &[Message], session: &[Message]) -> SessionSpan {
    let headers = session.iter().take_while(|message| message.is_header()).count();
    let rest = &session[headers..];
    let Some(first) = rest.first() else { panic!("the session has headers alone: {session:?}") };
    assert!(first.is_keyframe(), "the session begins with {first:?}");
    let begins = |at: &usize| {
        let from = &published[*at..];
        rest.iter().take(8).zip(from).all(|(got, sent)| sent.carries_the_same_as(got))
    };
    let place = (0..published.len()).find(begins);
    let Some(at) = place else { panic!("the session does not begin with anything that was published: {rest:?}") };
    for (index, (got, sent)) in rest.iter().zip(&published[at..]).enumerate() {
        let context = || around(&published[at..], rest, index);
        assert!(sent.carries_the_same_as(got), "message {index} of the session differs\n{}", context());
    }
    let mut slots: Vec<_> = published[..at].iter().filter_map(|message| message.inspection().header).collect();
    slots.sort_unstable();
    slots.dedup();
    for slot in slots {
        let of_slot = |message: &&Message| message.inspection().header == Some(slot);
        let in_force = published[..at].iter().rfind(of_slot);
        let given = session[..headers].iter().rfind(of_slot);
        let same = in_force.zip(given).is_some_and(|(sent, got)| sent.carries_the_same_as(got));
        assert!(same, "the header {slot:?} in force was {in_force:?}, the session has {given:?}");
    }
    SessionSpan { first: at, end: at + rest.len() }
}

/// Asserts that timestamps never go back within a session, other than as the publisher's own did.
///
/// # Panics
/// A timestamp goes back.
#[track_caller]
pub fn assert_time_goes_forward(session: &[Message]) {
    for kind in [8, 9] {
        let times: Vec<u32> = session.iter().filter(|message| message.type_id == kind).map(|m| m.timestamp).collect();
        for pair in times.windows(2) {
            assert!(pair[0] <= pair[1], "time of type {kind} goes from {} to {}", pair[0], pair[1]);
        }
    }
}

/// Asserts that ffmpeg decodes every frame without a message.
///
/// # Panics
/// The decoder complains.
#[track_caller]
pub fn assert_decodes(session: &[Message]) {
    assert_decodes_with("ffmpeg", session);
}

/// Decodes like [`assert_decodes`], with the given ffmpeg binary.
///
/// # Panics
/// The decoder complains.
#[track_caller]
pub fn assert_decodes_with(ffmpeg: impl AsRef<std::ffi::OsStr>, session: &[Message]) {
    let decoder = Program::new("decoder", ffmpeg);
    // The decoder reads a file: with a pipe, its input and its output would have to be served at the same time.
    let file = decoder.directory().join("session.flv");
    std::fs::write(&file, flv(session)).expect("the file");
    let decoder = decoder.words("-hide_banner -v error -xerror -i").arg(&file).words("-f null -");
    let mut decoder = decoder.start();
    let status = decoder.wait(LONG);
    let said = decoder.log();
    // GStreamer sends two frames within one millisecond now and then; the comparison judges that, a decoder does not.
    let of_time =
        |line: &&str| line.contains("non monotonically increasing dts") || line.contains("Last message repeated");
    let said: String = said.lines().filter(|line| !of_time(line)).collect();
    assert!(status.success() && said.is_empty(), "the decoder ends with {status} and says: {said}");
}

/// Describes the arrival of a recording in one line, for failure messages.
#[must_use]
pub fn summary(recording: &Recording) -> String {
    let frames = recording.media.iter().filter(|message| message.is_frame()).count();
    let last = recording.media.last().map_or(0, |message| message.timestamp);
    format!("{} messages, {frames} video, last at {last} ms, broken: {:?}", recording.media.len(), recording.broken)
}
