//! The harness itself, without LiveEdgeCast: media that is published directly must arrive directly, or no scenario means anything.
#![expect(clippy::disallowed_methods, reason = "shell: a thread that starts a program and ends")]

use liveedgecast_e2e::certificate::Authority;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_decodes_with, assert_time_goes_forward};
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::process::{Program, is_alive};
use liveedgecast_e2e::publish::{Gst, Media, Obs, ffmpeg, gstreamer, newer_ffmpeg};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{until, until_some};

fn publish_directly(media: Media) -> (Tap, Sink) {
    let sink = Sink::start();
    let tap = Tap::before(sink.address());
    let mut publisher = ffmpeg(media, &tap.url(&format!("live/{}", key("direct"))));
    sink.receives(50);
    publisher.interrupt();
    let session = sink.ended();
    assert!(session.said_goodbye());
    assert_eq!((session.app.as_str(), &session.key), ("live", &key("direct")));
    assert_arrived_whole(&tap.only().publisher.media, session.media());
    assert_time_goes_forward(session.media());
    (tap, sink)
}

#[test]
fn a_tap_and_a_sink_record_the_same_of_ffmpeg() {
    let (tap, sink) = publish_directly(Media::Both);
    assert!(tap.only().held().is_some_and(|held| held.as_secs() < 5));
    assert_decodes(sink.only().media());
}

#[test]
fn audio_alone_and_video_alone_are_recorded() {
    let (_, sink) = publish_directly(Media::AudioOnly);
    assert!(sink.only().media().iter().all(|message| message.type_id != 9));
    let (_, sink) = publish_directly(Media::VideoOnly);
    assert!(sink.only().media().iter().all(|message| message.type_id != 8));
    assert!(sink.only().recording.keyframes() > 1);
}

#[test]
fn hevc_and_av1_are_recorded() {
    for media in [Media::Hevc, Media::Av1] {
        let (_, sink) = publish_directly(media);
        assert!(sink.only().recording.keyframes() > 0, "{media:?}");
        assert_decodes_with(newer_ffmpeg(), sink.only().media());
    }
}

#[test]
fn gstreamer_and_obs_publish() {
    for sink_element in [Gst::Rtmp2Sink, Gst::RtmpSink] {
        let sink = Sink::start();
        let tap = Tap::before(sink.address());
        let mut publisher = gstreamer(sink_element, &tap.url(&format!("live/{}", key("gst"))));
        sink.receives(50);
        publisher.interrupt();
        assert_arrived_whole(&tap.only().publisher.media, sink.ended().media());
        assert_decodes(sink.only().media());
    }
    let sink = Sink::start();
    let tap = Tap::before(sink.address());
    let mut obs = Obs::streaming_to(&tap.url("live"), &key("obs"));
    sink.receives(100);
    obs.quit();
    let session = sink.ended();
    assert_eq!(session.key, key("obs"));
    assert_arrived_whole(&tap.only().publisher.media, session.media());
    assert_decodes(session.media());
}

#[test]
fn nginx_pushes_the_stream_it_receives() {
    let sink = Sink::start();
    let tap = Tap::before(sink.address());
    let nginx = Nginx::pushing_to(&tap.url("live"));
    let mut publisher = ffmpeg(Media::Both, &nginx.url("live/pushed"));
    let session = sink.receives(50);
    assert_eq!(session.key, "pushed");
    assert!(nginx.statistics().contains("<name>pushed</name>"), "{}", nginx.statistics());
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, sink.ended().media());
}

#[test]
fn a_sink_that_is_gone_refuses_and_comes_back() {
    let sink = Sink::start();
    sink.go_away();
    let mut publisher = ffmpeg(Media::Both, &sink.url("live/x"));
    assert!(!publisher.wait(liveedgecast_e2e::wait::SOON).success());
    sink.come_back();
    let publisher = ffmpeg(Media::Both, &sink.url("live/y"));
    sink.receives(10);
    sink.refuse("NetStream.Publish.BadName");
    let mut refused = ffmpeg(Media::Both, &sink.url("live/z"));
    assert!(!refused.wait(liveedgecast_e2e::wait::SOON).success());
    drop(publisher);
}

#[test]
fn a_sink_speaks_tls() {
    let authority = Authority::new();
    let sink = Sink::start_tls(|_| authority.server("localhost"));
    let _publisher = ffmpeg(Media::Both, &sink.url("live/tls"));
    sink.receives(10);
}

#[test]
fn programs_do_not_outlive_a_runner_that_is_killed() {
    const THIS_TEST: &str = "programs_do_not_outlive_a_runner_that_is_killed";
    const AS_RUNNER: &str = "LIVEEDGECAST_E2E_RUNNER";
    if std::env::var_os(AS_RUNNER).is_some() {
        // The thread that starts the program ends, as most threads of a runner do; the program has a child in a process group of its own,
        // as workers are.
        let program = "set -m; sleep 600 & echo started $$ $!; wait";
        let start = || {
            let running = Program::new("sleeper", "bash").args(["-c", program]).start();
            (until_some("the program's child", || running.log().lines().next().map(str::to_owned)), running)
        };
        drop(std::thread::spawn(start).join().expect("a program that ends before the runner"));
        let (started, _running) = std::thread::spawn(start).join().expect("a program");
        println!("{started}");
        loop {
            std::thread::park();
        }
    }
    let own = std::env::current_exe().expect("this program");
    let runner = Program::new("runner", own).args(["--exact", THIS_TEST, "--nocapture"]).env(AS_RUNNER, "1");
    let mut runner = runner.start();
    let ids: Vec<u32> = until_some("the runner's programs", || {
        let log = runner.log();
        let ids = log
            .lines()
            .find_map(|line| line.split_once("started ")?.1.split(' ').map(|id| id.parse().ok()).collect())?;
        runner.is_running().then_some(ids)
    });
    assert!(ids.len() == 2 && ids.iter().copied().all(is_alive), "{}", runner.log());
    runner.kill();
    until("the programs to be gone", || !ids.iter().copied().any(is_alive));
}
