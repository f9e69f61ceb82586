//! The HTTP API as operators use it: tokens, and changes of live streams.

use std::fs;

use liveedgecast_common::event;
use liveedgecast_e2e::http::{self, HttpAnswer};
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, Settings, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};
use serde_json::Value;

use crate::Relay;

/// The token of operators.
pub(crate) const ADMIN: &str = "the-token-of-operators";
const VIEW: &str = "the-token-of-readers";

by_descriptor_and_by_link! {
    a_live_stream_is_kicked_with_the_admin_token_alone
    a_stream_is_kicked_through_the_activator_that_does_not_hold_it
    destinations_are_changed_through_either_activator_while_the_others_go_on
    a_drained_worker_gives_its_streams_away_and_takes_none_until_it_is_undrained
}

/// The answer to a request with a token.
pub(crate) fn call(activator: &ActivatorProcess, method: &str, path: &str, token: &str, body: &str) -> HttpAnswer {
    http::authorized(activator.http(), method, path, token, body).expect("an answer")
}

/// The JSON of an answer that has to be good.
pub(crate) fn good(answer: &HttpAnswer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

#[test]
fn a_stream_is_shown_with_its_publisher_its_figures_and_the_times_of_its_destinations() {
    let sink = Sink::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let text = format!(
        "publishers: [{{name: studio, key: studio-k3y}}]\nroutes: {{default: {{destinations: [{{name: good, url: '{}'}}, \
         {{name: away, url: 'rtmp://127.0.0.1:9/live/x'}}]}}}}\n",
        sink.url("live/{key}"),
    );
    fs::write(&file, text).expect("the file");
    let activator =
        ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", file.to_str().expect("a path")).start();
    let _publisher = ffmpeg(Media::Both, &activator.url("live/studio-k3y"));
    sink.receives(50);
    let stream = until_some("all figures of the stream", || {
        let stream = activator.streams().into_iter().next()?;
        let known = stream["bitrate"].as_u64()? > 0 && stream["video"]["keyframe_interval"].as_f64()? > 0.0;
        (known && !stream["upstreams"][1]["failed"].is_null()).then_some(stream)
    });
    assert_eq!((&stream["publisher"], &stream["audio"]["codec"]), (&"studio".into(), &"aac".into()), "{stream}");
    let video = &stream["video"];
    assert_eq!(
        (&video["codec"], &video["width"], &video["height"]),
        (&"h264".into(), &320.into(), &180.into()),
        "{stream}"
    );
    assert_eq!(video["frame_rate"].as_f64(), Some(25.0), "{stream}");
    assert!(stream["peer"].as_str().is_some_and(|peer| peer.starts_with("127.")), "{stream}");
    assert!(stream["bytes"].as_u64() > Some(10_000) && stream["bitrate"].as_u64() > Some(10_000), "{stream}");
    let upstreams = &stream["upstreams"];
    assert!(upstreams[0]["state"] == "live" && upstreams[0]["lag"].as_f64() < Some(10.0), "{stream}");
    assert!(upstreams[0]["failed"].is_null() && upstreams[1]["error"] != "", "{stream}");
    // The order of the texts is that of the times: RFC 3339 sorts as text.
    let times = [&stream["since"], &upstreams[0]["since"]].map(|time| time.as_str().unwrap_or_default().to_owned());
    assert!(times[0].starts_with("20") && times[0] <= times[1], "{stream}");
    assert!(!stream.to_string().contains("k3y"), "a key is shown");
}

/// Two activators that know each other, without a worker.
pub(crate) fn pair(handoff: &str, upstream: &str) -> [ActivatorProcess; 2] {
    let settings = || {
        let settings = ActivatorProcess::pushing_to(upstream).with_external_workers();
        settings.with("HANDOFF", handoff).with("ADMIN_TOKEN", ADMIN)
    };
    introduced([settings(), settings()])
}

/// The activators of these settings, which know each other.
fn introduced(settings: [Settings; 2]) -> [ActivatorProcess; 2] {
    let all = settings.iter().map(|settings| settings.control().to_string()).collect::<Vec<_>>().join(" ");
    let activators = settings.map(|settings| settings.with("ACTIVATOR_PEERS", &all).start());
    for activator in &activators {
        let heard = || activator.metric("liveedgecast_peers", &["state=\"synced\""]) == Some(1.0);
        until("the activators to hear each other", heard);
    }
    activators
}

fn destinations_are_changed_through_either_activator_while_the_others_go_on(handoff: &str) {
    let (sink, second, third) = (Sink::start(), Sink::start(), Sink::start());
    let activators = pair(handoff, &sink.url("live/{key}"));
    let _worker = WorkerProcess::of(&activators[0]);
    let mut publisher = ffmpeg(Media::Both, &activators[0].url(&format!("live/{}", key("changed"))));
    sink.receives(50);
    for (by, name) in [(0, "near"), (1, "far")] {
        let (second, third) = if by == 0 { (&second, &third) } else { (&third, &second) };
        let streams = good(&call(&activators[by], "GET", "/api/v1/streams", ADMIN, ""));
        let all = format!("/api/v1/streams/{}/destinations", streams[0]["id"].as_str().expect("an id"));
        let one = format!("{all}/{name}");
        let before = (second.sessions().len(), third.sessions().len());
        let added = format!(r#"{{"name":"{name}","url":"{}"}}"#, second.url("live/{key}"));
        assert_eq!(call(&activators[by], "POST", &all, ADMIN, &added).status, 201);
        second.receives_in_session(before.0 + 1, 50);
        let listed = good(&call(&activators[by], "GET", &all, ADMIN, ""));
        assert!(listed[1]["name"] == name && listed[1]["by_api"] == true, "{listed}");
        let moved = format!(r#"{{"url":"{}"}}"#, third.url("live/{key}"));
        good(&call(&activators[by], "PATCH", &one, ADMIN, &moved));
        third.receives_in_session(before.1 + 1, 50);
        good(&call(&activators[by], "POST", &format!("{one}/restart"), ADMIN, ""));
        third.receives_in_session(before.1 + 2, 50);
        good(&call(&activators[by], "DELETE", &one, ADMIN, ""));
        until("the end of the destination", || {
            second.sessions().iter().chain(&third.sessions()).all(|session| session.ended.is_some())
        });
        let answer = call(&activators[by], "DELETE", &one, ADMIN, "");
        assert!(answer.status == 404 && answer.body.contains("destination-unknown"), "{}", answer.body);
    }
    assert_eq!(sink.sessions().len(), 1, "the first destination was disturbed");
    let arrived = sink.only().recording.frames();
    sink.receives(arrived + 50);
    publisher.interrupt();
    for activator in &activators {
        assert!(!activator.process.log().contains("k3y"), "a key is in the log");
    }
}

fn a_stream_is_kicked_through_the_activator_that_does_not_hold_it(handoff: &str) {
    let sink = Sink::start();
    let activators = pair(handoff, &sink.url("live/{key}"));
    let mut publisher = ffmpeg(Media::Both, &activators[0].url(&format!("live/{}", key("there"))));
    let shown = |by: usize| {
        let streams = good(&call(&activators[by], "GET", "/api/v1/streams", ADMIN, ""));
        streams.as_array().and_then(|streams| streams.first().cloned())
    };
    // Held, without a worker, and then live.
    let held = until_some("the held publisher at the other activator", || shown(1));
    assert_eq!((&held["state"], &held["peer"]), (&"waiting".into(), &shown(0).expect("a stream")["peer"]), "{held}");
    let _worker = WorkerProcess::of(&activators[0]);
    sink.receives(50);
    until("the live stream at the other activator", || shown(1).is_some_and(|stream| stream["state"] == "live"));
    let path = format!("/api/v1/streams/{}/kick", held["id"].as_str().expect("an id"));
    assert_eq!(good(&call(&activators[1], "POST", &path, ADMIN, r#"{"reason":"over there"}"#))["reason"], "over there");
    assert!(!publisher.wait(SOON).success());
    assert!(activators[1].events(event::STREAM_KICKED_OVER_HTTP).is_empty(), "it was passed on");
    assert_eq!(activators[0].events(event::STREAM_KICKED_OVER_HTTP)[0]["reason"], "over there");
    until("the stream to be gone", || call(&activators[1], "POST", &path, ADMIN, "").status == 404);
}

fn a_drained_worker_gives_its_streams_away_and_takes_none_until_it_is_undrained(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
    let activator = settings.with("HANDOFF", handoff).with("ADMIN_TOKEN", ADMIN).start();
    let _first = WorkerProcess::with(&activator, &[("WORKER_NAME", "first")]);
    let workers = || good(&call(&activator, "GET", "/api/v1/workers", ADMIN, ""));
    let state = |name: &str| {
        let workers = workers();
        let worker = workers.as_array().into_iter().flatten().find(|worker| worker["name"] == name).cloned();
        worker.map(|worker| (worker["state"].clone(), worker["streams"].clone()))
    };
    until("the first worker", || state("first").is_some());
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("moved"))));
    sink.receives(50);
    let _second = WorkerProcess::with(&activator, &[("WORKER_NAME", "second")]);
    until("the second worker", || state("second").is_some());
    let order =
        |name: &str, order: &str| call(&activator, "POST", &format!("/api/v1/workers/{name}/{order}"), ADMIN, "");
    assert_eq!(order("nobody", "drain").status, 404);
    assert_eq!(good(&order("first", "drain"))["drain"], true);
    until("the stream to have moved", || {
        state("first") == Some(("drained".into(), 0.into())) && state("second") == Some(("ready".into(), 1.into()))
    });
    let arrived = sink.last().expect("a session").recording.frames();
    sink.receives(arrived + 50);
    let another = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("another"))));
    until("the other stream to be live beside it", || state("second") == Some(("ready".into(), 2.into())));
    drop(another);
    assert_eq!(good(&order("first", "undrain"))["drain"], false);
    until("the first worker to be ready again", || state("first") == Some(("ready".into(), 0.into())));
    good(&order("second", "drain"));
    until("the stream to have moved back", || state("first").is_some_and(|(_, streams)| streams == 1));
    assert!(publisher.is_running() && tap.sessions().len() == 1, "the publisher was dropped");
    publisher.interrupt();
}

fn a_live_stream_is_kicked_with_the_admin_token_alone(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff);
    let activator = settings.with("ADMIN_TOKEN", ADMIN).with("VIEW_TOKEN", VIEW).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("kicked"))));
    sink.receives(50);
    assert!(activator.api("streams").is_none(), "streams are shown without a token");
    let streams = good(&call(&activator, "GET", "/api/v1/streams", VIEW, ""));
    let path = format!("/api/v1/streams/{}/kick", streams[0]["id"].as_str().expect("an id"));
    for (token, status) in [(VIEW, 403), ("another-token-of-some-length", 401)] {
        let answer = call(&activator, "POST", &path, token, "");
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    assert!(publisher.is_running());
    assert_eq!(good(&call(&activator, "POST", &path, ADMIN, r#"{"reason":"too late"}"#))["reason"], "too late");
    assert!(!publisher.wait(SOON).success());
    sink.ended();
    assert_eq!(activator.events(event::STREAM_KICKED_OVER_HTTP)[0]["reason"], "too late");
    assert!(activator.events(event::API_LIMITED).is_empty());
    let log = activator.process.log();
    assert!(!log.contains(ADMIN) && !log.contains(VIEW), "a token is in the log");
}

#[test]
fn changed_tokens_count_without_a_restart_and_activators_bridge_the_time_between() {
    const NEXT: &str = "the-next-token-of-operators";
    let files = [(); 2].map(|()| tempfile::NamedTempFile::new().expect("a file"));
    let write = |by: usize, token: &str| fs::write(files[by].path(), token).expect("the token");
    let settings = [0, 1].map(|by| {
        write(by, ADMIN);
        let settings = ActivatorProcess::pushing_to("rtmp://localhost/live/{key}").with_external_workers();
        settings.with("ADMIN_TOKEN_FILE", files[by].path().to_str().expect("a path"))
    });
    let activators = introduced(settings);
    let mut streams: Vec<String> = Vec::new();
    let mut publishers = [0, 1].map(|by: usize| {
        let publisher = ffmpeg(Media::Both, &activators[by].url(&format!("live/{}", key(&format!("held-{by}")))));
        let new = until_some("the held publisher", || {
            let listed = good(&call(&activators[0], "GET", "/api/v1/streams", ADMIN, ""));
            let ids = listed.as_array()?.iter().filter_map(|stream| stream["id"].as_str());
            ids.map(str::to_owned).find(|id| !streams.contains(id))
        });
        streams.push(new);
        publisher
    });
    let kick = |by: usize, stream: usize, token: &str| {
        call(&activators[by], "POST", &format!("/api/v1/streams/{}/kick", streams[stream]), token, "").status
    };

    write(0, NEXT);
    // No request makes the activator look: the kernel tells of the change.
    until("the file to be read", || !activators[0].events(event::FILE_RELOADED).is_empty());
    assert_eq!(kick(0, 0, ADMIN), 401, "the old token opens nothing any more");
    // The second activator has not got the new token yet. Each passes a request on to the other.
    assert_eq!(kick(0, 1, NEXT), 200, "{}", activators[1].process.log());
    assert!(!publishers[1].wait(SOON).success());
    assert_eq!(kick(1, 0, ADMIN), 200, "{}", activators[0].process.log());
    assert!(!publishers[0].wait(SOON).success());

    write(1, NEXT);
    until("the file to be read", || !activators[1].events(event::FILE_RELOADED).is_empty());
    assert_eq!((kick(1, 0, ADMIN), kick(1, 0, NEXT)), (401, 404));
    for activator in &activators {
        let log = activator.process.log();
        assert!(!log.contains(ADMIN) && !log.contains(NEXT), "a token is in the log");
    }
}

#[test]
fn without_a_token_streams_are_shown_here_and_nothing_changes() {
    let relay = Relay::by("auto");
    let mut publisher = relay.published(Media::Both, "kept");
    relay.sink.receives(50);
    assert_eq!(relay.activator.events(event::API_LIMITED).len(), 1, "the start-up log does not say so");
    let stream = relay.activator.has_a_stream_that_is("live");
    let path = format!("/api/v1/streams/{}", stream["id"].as_str().expect("an id"));
    let answer = call(&relay.activator, "DELETE", &path, ADMIN, "");
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.body.contains("urn:liveedgecast:problem:changes-closed"), "{}", answer.body);
    let before = relay.sink.last().expect("a session").recording.frames();
    relay.sink.receives(before + 50);
    assert!(publisher.is_running());
}
