//! Publishers and upstreams of every kind that people use.

use std::process::Command;

use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes};
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::process::Program;
use liveedgecast_e2e::publish::{Gst, Media, Obs, ffmpeg, gstreamer};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::wait::{SOON, until};

use crate::Relay;

by_descriptor_and_by_link! {
    rtmp2sink_publishes
    rtmpsink_publishes
    obs_studio_publishes
    nginx_push_keeps_its_first_keyframe_through_a_cold_start
    nginx_is_pushed_to
    a_listening_ffmpeg_is_pushed_to
}

fn gstreamer_publishes(handoff: &str, sink: Gst) {
    let relay = Relay::by(handoff);
    let mut publisher = gstreamer(sink, &relay.tap.url(&format!("live/{}", key("gst"))));
    relay.sink.receives(100);
    publisher.interrupt();
    relay.sink.ended();
    assert_arrived_whole(&relay.tap.only().publisher.media, relay.sink.only().media());
    assert_decodes(relay.sink.only().media());
}

fn rtmp2sink_publishes(handoff: &str) {
    gstreamer_publishes(handoff, Gst::Rtmp2Sink);
}

fn rtmpsink_publishes(handoff: &str) {
    gstreamer_publishes(handoff, Gst::RtmpSink);
}

fn obs_studio_publishes(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut obs = Obs::streaming_to(&relay.tap.url("live"), &key("obs"));
    relay.sink.receives(100);
    obs.quit();
    let session = relay.sink.ended();
    assert_eq!(session.key, key("obs"));
    assert_arrived_whole(&relay.tap.only().publisher.media, session.media());
    assert_decodes(session.media());
}

fn nginx_push_keeps_its_first_keyframe_through_a_cold_start(handoff: &str) {
    let relay = Relay::by(handoff);
    // nginx sends media right behind its `publish`, before any worker exists.
    let nginx = Nginx::pushing_to(&relay.tap.url("live"));
    let mut publisher = ffmpeg(Media::Both, &nginx.url(&format!("live/{}", key("pushed"))));
    relay.sink.receives(100);
    publisher.interrupt();
    let session = relay.sink.ended();
    assert_eq!(session.key, key("pushed"));
    let published = relay.tap.only().publisher.media;
    assert_arrived_whole(&published, session.media());
    assert_decodes(session.media());
}

fn nginx_is_pushed_to(handoff: &str) {
    let nginx = Nginx::upstream();
    let settings = ActivatorProcess::pushing_to(&nginx.url("live/{key}"));
    let activator = settings.with("HANDOFF", handoff).with("COOLDOWN", "1s").start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("pulled"))));
    activator.has_a_stream_that_is("live");
    until("the stream at nginx", || nginx.statistics().contains(&key("pulled")));
    let pulled = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-xerror", "-i", &nginx.url(&format!("live/{}", key("pulled")))])
        .args(["-t", "2", "-f", "null", "-"])
        .output()
        .expect("ffmpeg runs");
    let said = String::from_utf8_lossy(&pulled.stderr);
    assert!(pulled.status.success() && said.is_empty(), "what nginx has cannot be played: {said}");
    publisher.interrupt();
    until("the stream to leave nginx", || !nginx.statistics().contains("<publishing/>"));
    activator.is_back_to_zero();
}

fn a_listening_ffmpeg_is_pushed_to(handoff: &str) {
    let address = loopback::socket(1935);
    let url = format!("rtmp://{address}/live/only");
    let program = Program::new("ffmpeg -listen", "ffmpeg");
    let file = program.directory().join("arrived.flv");
    let mut upstream = program
        .words("-hide_banner -nostdin -v info -nostats -listen 1 -i")
        .args([&url])
        .words("-c copy -f flv")
        .args([&file])
        .start();
    let activator = ActivatorProcess::pushing_to(&url).with("HANDOFF", handoff).with("COOLDOWN", "1s").start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("listened"))));
    activator.has_a_stream_that_is("live");
    until("a second of the stream in the file", || file.metadata().is_ok_and(|file| file.len() > 50_000));
    publisher.interrupt();
    upstream.wait(SOON);
    let decoded = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-xerror", "-i"])
        .arg(&file)
        .args(["-f", "null", "-"])
        .output()
        .expect("ffmpeg runs");
    let said = String::from_utf8_lossy(&decoded.stderr);
    assert!(decoded.status.success() && said.is_empty(), "what arrived cannot be played: {said}");
    activator.is_back_to_zero();
}
