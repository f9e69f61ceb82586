//! Timestamps, as real upstreams interpret them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::process::Program;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::record::{Message, flv_of_session};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::replay::{Cue, Replay, cues};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::{Tap, TapSession};
use liveedgecast_e2e::wait::{LONG, until, until_some};

/// Milliseconds of uptime, 40 days, of a machine whose encoder uses its uptime as the clock.
const UPTIME: u32 = 3_456_000_000;
/// Delay of audio behind the video of the same time.
const LATE: Duration = Duration::from_millis(800);

/// Media whose audio is interleaved late, on the clock of a machine that has run for long.
fn late_audio(seconds: u32) -> Vec<Cue> {
    let mut cues = cues(seconds);
    for cue in &mut cues {
        let header = cue.message.is_header();
        if cue.message.type_id == 8 && !header {
            cue.due += LATE;
        }
        if !header {
            cue.message.timestamp = cue.message.timestamp.wrapping_add(UPTIME);
        }
    }
    cues.sort_by_key(|cue| cue.due);
    cues
}

/// Sizes of the fragments that nginx has made of a stream, and the longest duration in its playlist, in seconds.
fn fragments(directory: &Path, key: &str) -> (Vec<u64>, f64) {
    let playlist = fs::read_to_string(directory.join(format!("{key}.m3u8"))).unwrap_or_default();
    let names = playlist.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let sizes = names.map(|name| fs::metadata(directory.join(name)).map_or(0, |file| file.len())).collect();
    let seconds = playlist.lines().filter_map(|line| line.strip_prefix("#EXTINF:")?.trim_end_matches(',').parse().ok());
    (sizes, seconds.fold(0.0, f64::max))
}

#[test]
fn nginx_makes_whole_fragments_of_a_session_that_joins_in_mid_stream_with_late_audio() {
    let nginx = Nginx::with_hls();
    let tap = Tap::before(nginx.address());
    let activator = ActivatorProcess::pushing_to(&tap.url("live/{key}")).start();
    let name = key("late");
    let _publisher = Replay::start(activator.rtmp(), &name, late_audio(90));
    let made = |count: usize| {
        until_some(format!("{count} fragments"), || {
            let found = fragments(nginx.hls(), &name);
            (found.0.len() >= count).then_some(found)
        })
    };
    let first = made(3);
    tap.sessions().iter().for_each(TapSession::cut);
    let sessions = || tap.sessions().into_iter().filter(|session| session.publisher.frames() > 0).collect::<Vec<_>>();
    until("another session", || sessions().len() > 1);
    // nginx starts a new playlist.
    let second = made(first.0.len() + 3);
    for (sizes, longest) in [first, second] {
        assert!(sizes.iter().all(|size| *size > 1_000) && longest < 3.0, "{sizes:?}, at most {longest} s");
    }
    for session in sessions() {
        let wrong = session.publisher.media.iter().find(|message| message.timestamp > 120_000);
        assert!(wrong.is_none(), "{wrong:?}");
    }
}

#[test]
fn ffmpeg_sees_audio_and_video_and_nothing_else_after_an_upstream_was_away() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("tracks"))));
    sink.receives(100);
    sink.drop_connections();
    let session = sink.receives_in_session(2, 100);
    assert_eq!(streams(session.media()), ["audio", "video"]);
}

/// Stream types that ffprobe finds in a session.
fn streams(session: &[Message]) -> Vec<String> {
    let probe = Program::new("ffprobe", "ffprobe");
    let file = probe.directory().join("session.flv");
    fs::write(&file, flv_of_session(session)).expect("the file");
    let mut probe = probe.words("-v error -show_entries stream=codec_type -of csv=p=0").arg(&file).start();
    assert!(probe.wait(LONG).success(), "{}", probe.log());
    let mut streams: Vec<String> = probe.log().lines().map(str::to_owned).collect();
    streams.sort();
    streams
}
