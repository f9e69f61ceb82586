//! Held publishers: between `publish` and `Publish.Start`.

use std::time::Duration;

use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes};
use liveedgecast_e2e::publish::{Gst, Media, Obs, ffmpeg, gstreamer};
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};

use crate::Relay;

/// Twice the time that OBS and librtmp wait for a silent server.
const HOLD: Duration = Duration::from_secs(60);

#[test]
fn every_encoder_survives_a_minute_of_hold_and_then_streams() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers().start();
    let names = ["ffmpeg", "rtmp2sink", "rtmpsink", "obs"];
    let taps = names.map(|_| Tap::before(activator.rtmp()));
    let url = |index: usize| taps[index].url(&format!("live/{}", key(names[index])));
    let mut programs =
        [ffmpeg(Media::Both, &url(0)), gstreamer(Gst::Rtmp2Sink, &url(1)), gstreamer(Gst::RtmpSink, &url(2))];
    let mut obs = Obs::streaming_to(&taps[3].url("live"), &key(names[3]));

    for (tap, name) in taps.iter().zip(names) {
        until(format!("{name} to be held for {HOLD:?}"), || tap.last().is_some_and(|it| it.held() > Some(HOLD)));
    }
    assert_eq!(activator.demand(), Some((4, 0, 4)));
    assert_eq!(sink.connections(), 0);

    let worker = WorkerProcess::of(&activator);
    let of = |name: &str| sink.sessions().into_iter().find(|session| session.key == key(name));
    for name in names {
        until_some(format!("{name} at the upstream"), || of(name).filter(|it| it.recording.frames() > 100));
    }
    programs.iter_mut().for_each(|program| program.interrupt());
    obs.quit();
    for (tap, name) in taps.iter().zip(names) {
        let session = until_some(format!("the end of {name}"), || of(name).filter(|it| it.ended.is_some()));
        let said = tap.only();
        println!("{name} was held for {:?} and got {} pings", said.held(), pings(&said.server));
        assert_arrived_whole(&said.publisher.media, session.media());
        assert_decodes(session.media());
        assert_eq!(session.media().iter().find(|it| it.is_frame()).map(|it| it.is_keyframe()), Some(true), "{name}");
    }
    until("the streams to be forgotten", || activator.demand() == Some((0, 0, 0)));
    drop(worker);
}

fn pings(server: &liveedgecast_e2e::record::Recording) -> usize {
    use liveedgecast_common::rtmp::message::{Control, UserControl};
    let ping = |control: &Control| matches!(control, Control::UserControl(UserControl::PingRequest(_)));
    server.controls.iter().filter(|(_, control)| ping(control)).count()
}

#[test]
fn a_publisher_that_leaves_while_held_is_forgotten() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers().start();
    let tap = Tap::before(activator.rtmp());
    let mut polite = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("polite"))));
    tap.publish_asked();
    until("the publisher to wait", || activator.demand() == Some((1, 0, 1)));
    let mut gone = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("gone"))));
    until("both publishers to wait", || activator.demand() == Some((2, 0, 2)));
    gone.kill();
    until("the killed publisher to be forgotten", || activator.demand() == Some((1, 0, 1)));
    polite.kill();
    until("both publishers to be forgotten", || activator.demand() == Some((0, 0, 0)));
    let _worker = WorkerProcess::of(&activator);
    until("the worker to register", || activator.workers().len() == 1);
    assert_eq!(sink.connections(), 0);
}

#[test]
fn nginx_push_that_leaves_while_held_is_forgotten() {
    // nginx has sent media, so the activator reads no further: it learns of the connection's end by other means.
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers().start();
    let nginx = liveedgecast_e2e::nginx::Nginx::pushing_to(&activator.url("live"));
    let publisher = ffmpeg(Media::Both, &nginx.url(&format!("live/{}", key("pushed"))));
    until("the publisher to wait", || activator.demand() == Some((1, 0, 1)));
    drop(nginx);
    drop(publisher);
    until("the publisher to be forgotten", || activator.demand() == Some((0, 0, 0)));
}

#[test]
fn a_client_reconnects_when_its_hold_expires() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
    let activator = settings.with("HOLD_TIMEOUT", "2s").start();
    let tap = Tap::before(activator.rtmp());
    let mut obs = Obs::streaming_to(&tap.url("live"), &key("obs"));
    // `Publish.Start` followed by a close is the only sequence after which OBS reconnects by itself.
    until("OBS to come a second time", || tap.sessions().len() >= 2);
    assert!(tap.sessions()[0].server.started_at().is_some());
    let _worker = WorkerProcess::of(&activator);
    sink.receives(50);
    obs.quit();
}

by_descriptor_and_by_link! {
    an_upstream_that_answers_late_holds_the_publisher
}

fn an_upstream_that_answers_late_holds_the_publisher(handoff: &str) {
    let relay = Relay::by(handoff);
    relay.sink.say_nothing();
    let mut publisher = relay.published(Media::Both, "late");
    relay.activator.has_a_stream_that_is("starting");
    until("five seconds of hold", || relay.tap.last().is_some_and(|it| it.held() > Some(Duration::from_secs(5))));
    let said = relay.tap.only();
    assert!(said.server.started_at().is_none(), "started before the upstream did");
    assert!(said.publisher.media.is_empty());
    relay.sink.answer();
    relay.sink.receives(50);
    publisher.interrupt();
    relay.sink.ended();
    assert_arrived_whole(&relay.tap.only().publisher.media, relay.sink.last().expect("a session").media());
}

#[test]
fn a_wrong_key_is_refused_and_wakes_nothing() {
    let sink = Sink::start();
    let good = key("good");
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("PUBLISH_KEYS", &good);
    let activator = settings.with("COOLDOWN", "1s").start();
    let tap = Tap::before(activator.rtmp());
    let mut wrong = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("wrong"))));
    assert!(!wrong.wait(SOON).success(), "ffmpeg goes on with a wrong key");
    assert_eq!(tap.only().server.statuses()[0].1, "NetStream.Publish.Denied");

    let tap = Tap::before(activator.rtmp());
    let obs = Obs::streaming_to(&tap.url("live"), &key("wrong"));
    until("OBS to be refused", || tap.last().is_some_and(|it| !it.server.statuses().is_empty()));
    until("OBS to give up", || {
        obs.log().contains("Output 'simple_stream' stopped") || obs.log().contains("==== Streaming Stop")
    });
    assert_eq!(tap.sessions().len(), 1, "OBS tries again");

    assert!(activator.processes().is_empty(), "a wrong key has woken something");
    assert_eq!(activator.metric("liveedgecast_worker_processes_started_total", &[]), Some(0.0));
    assert!(activator.metric("liveedgecast_publishers_refused_total", &["reason=\"key\""]) >= Some(2.0));

    let _right = ffmpeg(Media::Both, &activator.url(&format!("live/{good}")));
    sink.receives(20);
}
