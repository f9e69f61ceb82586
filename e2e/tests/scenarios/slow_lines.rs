//! Publishers on slow lines: a long keyframe leaves for the upstreams before its last byte has come.

use std::fs;

use liveedgecast_e2e::compare::{assert_decodes, assert_time_goes_forward};
use liveedgecast_e2e::encoder::Encoder;
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::process::Program;
use liveedgecast_e2e::publish::heavy_clip;
use liveedgecast_e2e::record::{Message, read_flv};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, now, until};

by_descriptor_and_by_link! {
    a_publisher_that_dies_in_the_middle_of_a_long_keyframe_costs_that_keyframe_alone
}

/// Messages that are no headers.
fn frames(messages: &[Message]) -> Vec<&Message> {
    messages.iter().filter(|message| message.is_frame()).collect()
}

#[track_caller]
fn assert_same(published: &[&Message], arrived: &[&Message], at: &str) {
    let differs = published.iter().zip(arrived).position(|(sent, got)| !sent.carries_the_same_as(got));
    assert_eq!(differs, None, "the first message that differs at {at}");
    assert_eq!(published.len(), arrived.len(), "messages at {at}");
}

fn a_publisher_that_dies_in_the_middle_of_a_long_keyframe_costs_that_keyframe_alone(handoff: &str) {
    let nginx = Nginx::recording();
    let tap = Tap::before(nginx.address());
    let listening = loopback::socket(1935);
    let listening_url = format!("rtmp://{listening}/live/only");
    let program = Program::new("ffmpeg -listen", "ffmpeg");
    let file = program.directory().join("arrived.flv");
    let words = "-hide_banner -nostdin -v info -nostats -listen 1 -i";
    let mut ffmpeg = program.words(words).args([&listening_url]).words("-c copy -f flv").args([&file]).start();
    let urls = format!("{} {listening_url}", tap.url("live/{key}"));
    let activator = ActivatorProcess::pushing_to(&urls).with("HANDOFF", handoff).with("COOLDOWN", "1s").start();
    let name = key("slow");
    let clip = heavy_clip(4);
    let keyframes: Vec<usize> = (0..clip.len()).filter(|at| clip[*at].is_keyframe()).collect();
    assert!(clip[keyframes[1]].payload.len() > 50_000 && clip[keyframes[2]].payload.len() > 50_000);

    let mut publisher = Encoder::connect(activator.rtmp(), "live");
    publisher.start(&name);
    until("both upstreams to be live", || {
        let streams = activator.streams();
        let upstreams = streams.first().and_then(|stream| stream["upstreams"].as_array().cloned()).unwrap_or_default();
        upstreams.len() == 2 && upstreams.iter().all(|upstream| upstream["state"] == "live")
    });
    let arrived = |count: usize| {
        until(format!("{count} messages at nginx"), || {
            tap.last().is_some_and(|session| session.publisher.media.len() >= count)
        });
        tap.only().publisher.bytes
    };
    clip[..keyframes[1]].iter().for_each(|message| publisher.send(message));
    let before = arrived(keyframes[1]);
    let left = publisher
        .send_until(&clip[keyframes[1]], "the keyframe's first bytes at nginx", || tap.only().publisher.bytes > before);
    assert!(left.len() > 40_000, "only {} bytes are left of the keyframe", left.len());
    publisher.write(&left);
    clip[keyframes[1] + 1..keyframes[2]].iter().for_each(|message| publisher.send(message));
    let before = arrived(keyframes[2]);
    publisher.send_until(&clip[keyframes[2]], "the next keyframe's first bytes at nginx", || {
        tap.only().publisher.bytes > before
    });
    drop(publisher);
    activator.has_a_stream_that_is("grace");

    let mut publisher = Encoder::connect(activator.rtmp(), "live");
    publisher.start(&name);
    clip.iter().for_each(|message| publisher.send(message));
    let wanted: Vec<&Message> = frames(&clip[..keyframes[2]]).into_iter().chain(frames(&clip)).collect();
    until("all frames at nginx", || frames(&tap.only().publisher.media).len() >= wanted.len());
    publisher.goodbye(&name);
    activator.is_back_to_zero();
    until("the end of the recording", || !nginx.statistics().contains("<publishing/>"));
    ffmpeg.wait(SOON);

    let session = tap.only().publisher;
    assert!(session.broken.is_none(), "{:?}", session.broken);
    assert_same(&wanted, &frames(&session.media), "the wire");
    assert_time_goes_forward(&session.media);
    let recorded = read_flv(&fs::read(nginx.recorded(&name)).expect("the recording"), now());
    assert_same(&wanted, &frames(&recorded), "nginx");
    assert_decodes(&recorded);
    let copied = read_flv(&fs::read(&file).expect("the copy"), now());
    assert_eq!(frames(&copied).len(), wanted.len(), "messages at ffmpeg");
    assert_decodes(&copied);
}
