//! Streams with several upstreams, and upstreams that misbehave.

use std::net::TcpListener;

use liveedgecast_e2e::certificate::Authority;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_resumed, assert_time_goes_forward};
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::process::resident_memory;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::record::Message;
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};

by_descriptor_and_by_link! {
    upstreams_do_not_disturb_each_other
    an_upstream_that_flaps_receives_the_messages_it_missed
}

fn upstreams_do_not_disturb_each_other(handoff: &str) {
    let [good, flapping, stalled] = [(); 3].map(|()| Sink::start());
    let dead = loopback::socket(1935);
    // The kernel accepts connections into the backlog of this listener, and no server ever answers on them.
    let silent = TcpListener::bind(loopback::socket(1935)).expect("a free address");
    let silent_url = format!("rtmp://{}/live/x", silent.local_addr().expect("its address"));
    let urls = [
        format!("rtmp://{dead}/live/{{key}}"),
        silent_url,
        good.url("live/{key}"),
        flapping.url("live/{key}"),
        stalled.url("{app}/{key}"),
    ];
    let settings = ActivatorProcess::pushing_to(&urls.join(" ")).with("HANDOFF", handoff).with("COOLDOWN", "1s");
    let activator = settings.with("UPSTREAM_LAG", "1s").start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Heavy, &tap.url(&format!("live/{}", key("many"))));
    for sink in [&good, &flapping, &stalled] {
        sink.receives(50);
    }
    stalled.stall();
    for session in 2..4 {
        flapping.drop_connections();
        flapping.receives_in_session(session, 150);
    }
    let name = |sink: &Sink| {
        let streams = activator.streams();
        let upstreams = streams.first().and_then(|stream| stream["upstreams"].as_array())?;
        let upstream = upstreams.iter().find(|it| it["host"] == sink.address().to_string())?;
        Some(format!("destination=\"{}\"", upstream["name"].as_str()?))
    };
    let lost = |sink: &Sink| activator.metric("liveedgecast_upstream_lost_messages_total", &[&name(sink)?]);
    until("messages to be lost at the stalled upstream", || lost(&stalled) > Some(0.0));
    stalled.go_on();
    let arrived = stalled.only().recording.frames();
    stalled.receives(arrived + 200);
    assert_eq!(lost(&good), Some(0.0));
    publisher.interrupt();
    for sink in [&good, &flapping, &stalled] {
        sink.ended();
    }
    let published = tap.only().publisher.media;
    assert_arrived_whole(&published, good.only().media());
    for session in flapping.sessions().iter().skip(1) {
        assert_resumed(&published, session.media());
        assert_time_goes_forward(session.media());
        assert_decodes(session.media());
    }
    let skips = assert_skips_at_keyframes_only(&published, stalled.only().media());
    assert!(skips > 0, "nothing was skipped");
    assert_decodes(stalled.only().media());
    activator.is_back_to_zero();
}

/// Asserts that all messages arrived in order, and that every gap ends with headers or a keyframe.
#[track_caller]
fn assert_skips_at_keyframes_only(published: &[Message], arrived: &[Message]) -> usize {
    let mut at = 0;
    let mut skips = 0;
    for message in arrived {
        let found = published[at..].iter().position(|sent| sent.carries_the_same_as(message));
        match found {
            Some(0) => at += 1,
            Some(skipped) => {
                assert!(message.is_keyframe() || message.is_header(), "{skipped} messages skipped before {message:?}");
                skips += 1;
                at += skipped + 1;
            }
            // A header that the worker puts in front of a keyframe after a gap.
            None => assert!(message.is_header(), "{message:?} is not in its order"),
        }
    }
    skips
}

fn an_upstream_that_flaps_receives_the_messages_it_missed(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff);
    let activator = settings.with("REPLAY_WINDOW", "30s,16MiB").with("COOLDOWN", "1s").start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("flap"))));
    sink.receives(100);
    sink.go_away();
    let at = tap.only().publisher.media.len();
    until("two seconds more of the publisher", || tap.only().publisher.media.len() > at + 130);
    sink.come_back();
    let second = sink.receives_in_session(2, 200);
    publisher.interrupt();
    let ended = until_some("the end", || sink.sessions().into_iter().nth(1).filter(|it| it.ended.is_some()));
    let published = tap.only().publisher.media;
    let place = assert_resumed(&published, ended.media());
    let before = sink.sessions()[0].media().len();
    println!("{handoff}: the first session ended at message {before}, the second begins at {}", place.first);
    assert!(place.first <= before, "messages {before}..{} are lost, though the window has them", place.first);
    assert_eq!(place.end, published.len());
    assert!(!second.media().is_empty());
    assert_time_goes_forward(ended.media());
    assert_decodes(ended.media());
    activator.is_back_to_zero();
}

#[test]
fn memory_is_bounded_while_an_upstream_stalls() {
    let (good, stalled) = (Sink::start(), Sink::start());
    let urls = format!("{} {}", good.url("live/{key}"), stalled.url("live/{key}"));
    let activator = ActivatorProcess::pushing_to(&urls).with("REPLAY_WINDOW", "1s").with("UPSTREAM_LAG", "1s").start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Heavy, &tap.url(&format!("live/{}", key("slow"))));
    stalled.receives(50);
    stalled.stall();
    let worker = activator.worker_processes()[0];
    let before = resident_memory(worker);
    let arrived = good.only().recording.frames();
    good.receives(arrived + 500);
    let grown = resident_memory(worker).saturating_sub(before);
    println!("the worker has grown by {grown} bytes");
    // The ring of a stream, 8 MiB, exists whether an upstream stalls or not.
    assert!(grown < 12 << 20, "the worker has grown by {grown} bytes");
    publisher.interrupt();
    good.ended();
    assert_arrived_whole(&tap.only().publisher.media, good.only().media());
}

#[test]
fn app_key_and_query_reach_the_upstream_unchanged() {
    let sink = Sink::start();
    let url = format!("rtmp://{}/{{app}}/{{key}} {}", sink.address(), sink.url("fixed?backup=1/{key}"));
    let activator = ActivatorProcess::pushing_to(&url).start();
    let name = format!("{}?token=a%2Fb&x=1", key("query"));
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("studio/{name}")));
    until("two sessions", || sink.sessions().len() == 2);
    let mut sessions: Vec<_> = sink.sessions().into_iter().map(|session| (session.app, session.key)).collect();
    sessions.sort();
    assert_eq!(sessions, [("fixed?backup=1".to_owned(), name.clone()), ("studio".to_owned(), name)]);
}

#[test]
fn an_upstream_that_refuses_for_good_refuses_the_publisher() {
    let sink = Sink::start();
    sink.refuse("NetStream.Publish.Denied");
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("COOLDOWN", "1s").start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("denied"))));
    assert!(!publisher.wait(SOON).success());
    activator.is_back_to_zero();
}

#[test]
fn rtmps_upstreams_are_verified_by_name_and_by_address() {
    let authority = Authority::new();
    let by_name = Sink::start_tls_at_localhost(authority.server("localhost"));
    let by_address = Sink::start_tls(|address| authority.server(&address.ip().to_string()));
    let of_a_stranger = Sink::start_tls(|address| Authority::new().server(&address.ip().to_string()));
    let of_another_name = Sink::start_tls(|_| authority.server("example.com"));
    let mut urls = [&by_address, &of_a_stranger, &of_another_name].map(|sink| sink.url("live/{key}")).to_vec();
    urls.push(format!("rtmps://localhost:{}/live/{{key}}", by_name.address().port()));
    let activator = ActivatorProcess::pushing_to(&urls.join("\n"))
        .with("SSL_CERT_FILE", &authority.file().display().to_string())
        .with("COOLDOWN", "1s")
        .start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("tls"))));
    by_name.receives(100);
    by_address.receives(100);
    publisher.interrupt();
    let published = tap.only().publisher.media;
    for sink in [&by_name, &by_address] {
        let session = sink.ended();
        assert_resumed_or_whole(&published, session.media());
    }
    for sink in [&of_a_stranger, &of_another_name] {
        assert_eq!(sink.connections(), 0, "a wrong certificate was trusted");
    }
}

/// Asserts that the session has the whole stream, as at the upstream that starts first, or a resumed rest of it, from a keyframe on.
#[track_caller]
fn assert_resumed_or_whole(published: &[Message], arrived: &[Message]) {
    if published.len() == arrived.len() {
        assert_arrived_whole(published, arrived);
    } else {
        assert_resumed(published, arrived);
    }
}
