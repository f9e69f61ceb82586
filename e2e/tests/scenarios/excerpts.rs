//! The last seconds of a stream as a file, by both handoffs: a real decoder reads it, and the stream does not notice.

use std::fs;

use liveedgecast_common::rtmp::type_id;
use liveedgecast_e2e::http;
use liveedgecast_e2e::process::{Program, kill, signal};
use liveedgecast_e2e::publish::{Media, ffmpeg, newer_ffmpeg};
use liveedgecast_e2e::record::{Message, read_flv};
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{LONG, now, until, until_some};
use rustix::process::Signal;

use serde_json::Value;

use crate::api::{ADMIN, call, good, pair};

by_descriptor_and_by_link! {
    last_seconds_of_a_stream_are_a_file_that_a_decoder_reads_while_the_stream_goes_on
    whole_replay_window_is_the_file_and_each_destination_shows_what_it_was_sent_last
    last_seconds_are_there_again_after_the_death_of_a_worker
    worker_that_hangs_or_dies_in_the_middle_of_a_question_is_no_obstacle
    death_of_a_worker_and_loss_of_a_destination_leave_files_of_the_last_seconds
}

/// The id of the only stream.
fn id(activator: &ActivatorProcess) -> String {
    until_some("the stream", || {
        let streams = good(&call(activator, "GET", "/api/v1/streams", ADMIN, ""));
        Some(streams[0]["id"].as_str()?.to_owned())
    })
}

/// A file of the stream, as soon as there is one.
fn file(activator: &ActivatorProcess, id: &str, name: &str) -> Vec<u8> {
    let path = format!("/api/v1/streams/{id}/{name}");
    until_some("a file", || {
        let (status, body) = http::download(activator.http(), &path, ADMIN).expect("an answer");
        assert!(status == 200 || status == 503, "{status}: {}", String::from_utf8_lossy(&body));
        (status == 200).then_some(body)
    })
}

/// Asserts that a decoder reads the file without a word, and returns the number of pictures.
fn pictures(bytes: &[u8]) -> usize {
    let decoder = Program::new("decoder", newer_ffmpeg());
    let (from, to) = (decoder.directory().join("in.flv"), decoder.directory().join("out.txt"));
    fs::write(&from, bytes).expect("the file");
    let decoder = decoder.words("-hide_banner -nostdin -v warning -xerror -i").arg(&from);
    let audible = |message: &Message| message.type_id == type_id::AUDIO && message.inspection().is_frame();
    // The decoder warns of sound that never comes: a file may end before its first.
    let sound = if read_flv(bytes, now()).iter().any(audible) { "-map 0:a" } else { "" };
    let mut decoder = decoder.words(&format!("-map 0:v {sound} -f framecrc")).arg(&to).start();
    assert!(decoder.wait(LONG).success(), "{}", decoder.log());
    assert_eq!(decoder.log(), "", "the decoder complains");
    let lines = fs::read_to_string(to).expect("the list of frames");
    lines.lines().filter(|line| line.starts_with("0,")).count()
}

fn last_seconds_of_a_stream_are_a_file_that_a_decoder_reads_while_the_stream_goes_on(handoff: &str) {
    for media in [Media::Both, Media::Hevc, Media::Heavy] {
        let sink = Sink::start();
        let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff);
        let activator = settings.with("ADMIN_TOKEN", ADMIN).start();
        let mut publisher = ffmpeg(media, &activator.url(&format!("live/{}", key("shown"))));
        sink.receives(100);
        let id = id(&activator);
        let mut most = 0;
        for _ in 0..10 {
            let whole = file(&activator, &id, "ring.flv");
            // The whole key: compressed pictures contain every three bytes now and then.
            assert!(!String::from_utf8_lossy(&whole).contains(&key("shown")), "the key is in the file");
            let count = pictures(&whole);
            assert!(count >= 1, "{media:?}: no picture");
            most = most.max(count);
            assert_eq!(pictures(&file(&activator, &id, "keyframe.flv")), 1, "{media:?}");
        }
        // The worker keeps messages that nobody needs while there is room for them.
        assert!(most > PICTURES_OF_A_GROUP, "{media:?}: {most} pictures");
        let whole = read_flv(&file(&activator, &id, "ring.flv"), now());
        let sent = sink.only();
        let known = sent.media().iter().any(|sent| whole.iter().any(|kept| kept.payload == sent.payload));
        assert!(known, "{media:?}: the file has other messages than the destination got");
        // Many at once are answered or sent away.
        let path = format!("/api/v1/streams/{id}/ring.flv");
        let answers = std::thread::scope(|scope| {
            let ask = || http::download(activator.http(), &path, ADMIN).expect("an answer").0;
            let threads: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a status")).collect::<Vec<_>>()
        });
        assert!(answers.iter().all(|status| [200, 503].contains(status)) && answers.contains(&200), "{answers:?}");
        let arrived = sink.only().recording.frames();
        sink.receives(arrived + 50);
        let streams = good(&call(&activator, "GET", "/api/v1/streams", ADMIN, ""));
        assert_eq!(streams[0]["upstreams"][0]["lost"], 0, "{streams}");
        assert_eq!(http::request(activator.http(), "GET", &path).expect("an answer").status, 401);
        publisher.interrupt();
        until("the end of the stream", || call(&activator, "GET", &path, ADMIN, "").status == 404);
    }
}

/// Pictures from one keyframe to the next.
const PICTURES_OF_A_GROUP: usize = 25;
/// Frames that a second of the test picture has.
const RATE: usize = 25;

fn whole_replay_window_is_the_file_and_each_destination_shows_what_it_was_sent_last(handoff: &str) {
    let (near, far, never) = (Sink::start(), Sink::start(), Sink::start());
    never.go_away();
    let all = [&near, &far, &never].map(|sink| sink.url("live/{key}")).join(" ");
    let settings = ActivatorProcess::pushing_to(&all).with("HANDOFF", handoff);
    let settings = settings.with("LIVEEDGECAST_REPLAY_WINDOW", "30s,8MiB");
    let activator = settings.with("ADMIN_TOKEN", ADMIN).start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("shown"))));
    far.receives(120);
    let id = id(&activator);
    let path = format!("/api/v1/streams/{id}/destinations");
    let named = |sink: &Sink| {
        let host = sink.address().to_string();
        let all = good(&call(&activator, "GET", &path, ADMIN, ""));
        let of_host = all.as_array().expect("a list").iter().find(|it| it["host"] == host.as_str());
        format!("destinations/{}/keyframe.flv", of_host.expect("the destination")["name"].as_str().expect("a name"))
    };
    assert_eq!(pictures(&file(&activator, &id, &named(&far))), 1);
    far.go_away();
    // The worker keeps everything for it from its last keyframe on.
    let before = near.only().recording.frames();
    near.receives(before + 16 * RATE);
    let whole = file(&activator, &id, "ring.flv");
    let count = pictures(&whole);
    assert!(count > 4 * RATE, "{count} pictures of some seconds");
    let last = read_flv(&whole, now()).last().map(|message| message.timestamp).expect("a message") as usize;
    assert!(last.abs_diff(count * 1000 / RATE) < 300, "{last} ms, {count} pictures");
    let picture = |name: &str| -> Vec<u8> {
        let all = read_flv(&file(&activator, &id, name), now());
        all.into_iter().find(Message::is_keyframe).expect("a keyframe").payload.to_vec()
    };
    let of_far = picture(&named(&far));
    let session = far.last().expect("a session");
    let sent: Vec<_> = session.media().iter().filter(|message| message.is_keyframe()).collect();
    let at = sent.iter().position(|message| message.payload == of_far).expect("a keyframe that it has received");
    // A keyframe that was on its way when the connection broke counts as not sent.
    assert!(at + 2 >= sent.len(), "number {at} of {}", sent.len());
    let of_near = picture(&named(&near));
    assert_ne!(of_near, of_far);
    until("the newest keyframe", || near.only().media().iter().rev().any(|message| message.payload == of_near));
    let answer = |name: &str| call(&activator, "GET", &format!("/api/v1/streams/{id}/{name}"), ADMIN, "");
    let none = answer(&named(&never));
    assert!(
        none.status == 404 && none.body.contains("excerpt-none") && none.body.contains("no keyframe yet"),
        "{}",
        none.body
    );
    let unknown = answer("destinations/nobody/keyframe.flv");
    assert!(unknown.status == 404 && unknown.body.contains("destination-unknown"), "{}", unknown.body);
    assert_eq!(
        http::request(activator.http(), "GET", &format!("/api/v1/streams/{id}/{}", named(&near)))
            .expect("an answer")
            .status,
        401
    );
    // It goes on where it was, and its picture is as new as the other one's.
    far.come_back();
    far.receives_in_session(2, 20);
    until("a newer picture", || picture(&named(&far)) != of_far);
    let streams = good(&call(&activator, "GET", "/api/v1/streams", ADMIN, ""));
    assert_eq!(streams[0]["upstreams"][0]["lost"], 0, "{streams}");
}

fn worker_that_hangs_or_dies_in_the_middle_of_a_question_is_no_obstacle(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff);
    let activator = settings.with("ADMIN_TOKEN", ADMIN).start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("shown"))));
    sink.receives(60);
    let id = id(&activator);
    let worker = activator.worker_processes()[0];
    // The bytes that the activator has are read in place of the worker's.
    signal(worker, Signal::STOP);
    pictures(&file(&activator, &id, "ring.flv"));
    let path = format!("/api/v1/streams/{id}/ring.flv");
    let status = std::thread::scope(|scope| {
        let asked = scope.spawn(|| http::download(activator.http(), &path, ADMIN).expect("an answer").0);
        kill(worker);
        asked.join().expect("a status")
    });
    assert!([200, 503].contains(&status), "{status}");
    until("the next worker", || activator.worker_processes().iter().any(|id| *id != worker));
    let arrived = sink.last().expect("a session").recording.frames();
    sink.receives_in_session(2, arrived.min(50));
    pictures(&file(&activator, &id, "ring.flv"));
}

#[test]
fn stream_of_sound_alone_says_so_and_its_codec_is_known_without_a_header() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("ADMIN_TOKEN", ADMIN).start();
    let mut publisher = ffmpeg(Media::Mp3, &activator.url(&format!("live/{}", key("heard"))));
    sink.receives(50);
    let id = id(&activator);
    let none = call(&activator, "GET", &format!("/api/v1/streams/{id}/keyframe.flv"), ADMIN, "");
    assert!(none.status == 404 && none.body.contains("the stream has sent no video"), "{}", none.body);
    let whole = read_flv(&file(&activator, &id, "ring.flv"), now());
    // As much as a worker keeps of sound alone, which is needed for no keyframe.
    assert!(!whole.is_empty() && whole.iter().all(|message| message.type_id != type_id::VIDEO), "{}", whole.len());
    let audio = until_some("the codec", || {
        let streams = good(&call(&activator, "GET", "/api/v1/streams", ADMIN, ""));
        Some(streams[0]["audio"].clone()).filter(|audio| !audio["sample_rate"].is_null())
    });
    assert_eq!(
        (&audio["codec"], &audio["channels"], &audio["sample_rate"]),
        (&"mp3".into(), &1.into(), &48_000.into())
    );
    publisher.interrupt();
}

fn last_seconds_are_there_again_after_the_death_of_a_worker(handoff: &str) {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff);
    let activator = settings.with("ADMIN_TOKEN", ADMIN).start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("shown"))));
    sink.receives(60);
    let id = id(&activator);
    pictures(&file(&activator, &id, "ring.flv"));
    let worker = activator.worker_processes()[0];
    kill(worker);
    // Before, while and after another worker takes the stream.
    until("the next worker", || {
        pictures(&file(&activator, &id, "ring.flv"));
        sink.sessions().len() == 2 && activator.worker_processes().iter().any(|id| *id != worker)
    });
    let arrived = sink.last().expect("a session").recording.frames();
    sink.receives(arrived + 50);
    pictures(&file(&activator, &id, "ring.flv"));
}

#[test]
fn any_activator_has_the_files_of_a_stream_once_a_worker_has_it() {
    let sink = Sink::start();
    let activators = pair("descriptor", &sink.url("live/{key}"));
    let _publisher = ffmpeg(Media::Both, &activators[0].url(&format!("live/{}", key("there"))));
    let id = id(&activators[1]);
    let path = format!("/api/v1/streams/{id}/ring.flv");
    let elsewhere = call(&activators[1], "GET", &path, ADMIN, "");
    assert!(elsewhere.status == 409 && elsewhere.body.contains("excerpt-elsewhere"), "{}", elsewhere.body);
    let held = call(&activators[0], "GET", &path, ADMIN, "");
    assert!(held.status == 503 && held.body.contains("excerpt-not-now"), "{}", held.body);
    let _worker = WorkerProcess::of(&activators[0]);
    sink.receives(50);
    pictures(&file(&activators[0], &id, "ring.flv"));
    for name in ["ring.flv", "keyframe.flv"] {
        assert!(pictures(&file(&activators[1], &id, name)) >= 1, "{name}");
    }
    let streams = good(&call(&activators[1], "GET", "/api/v1/streams", ADMIN, ""));
    let destination = streams[0]["upstreams"][0]["name"].as_str().expect("a name").to_owned();
    assert_eq!(pictures(&file(&activators[1], &id, &format!("destinations/{destination}/keyframe.flv"))), 1);
}

fn death_of_a_worker_and_loss_of_a_destination_leave_files_of_the_last_seconds(handoff: &str) {
    let (sink, folder) = (Sink::start(), tempfile::tempdir().expect("a folder"));
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("HANDOFF", handoff);
    let settings = settings.with("LIVEEDGECAST_INCIDENT_DIR", folder.path().to_str().expect("a path"));
    let activator = settings.with("ADMIN_TOKEN", ADMIN).start();
    let _first = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("first"))));
    sink.receives(60);
    let files = |ending: &str| {
        let entries = fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("an entry").path());
        let mut found: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        found.sort();
        found
    };
    kill(activator.worker_processes()[0]);
    until("the files of the lost worker", || files(".json").len() == 1 && files(".flv").len() == 1);
    let report: Value = serde_json::from_slice(&fs::read(&files(".json")[0]).expect("the report")).expect("JSON");
    assert_eq!(report["incident"]["type"], "stream.taken_over", "{report}");
    let types: Vec<&str> =
        report["events"].as_array().expect("events").iter().filter_map(|it| it["type"].as_str()).collect();
    assert!(types.contains(&"stream.live") && types.contains(&"process.failed"), "{types:?}");
    assert!(report["after"].is_array() && report["after_until"].is_null(), "it is being followed: {report}");
    // Another stream, so that the two incidents are not one.
    let _second = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("second"))));
    sink.receives_in_session(3, 60);
    sink.drop_connections();
    until("the files of the lost destination", || files(".json").len() >= 2 && files(".flv").len() >= 2);
    // The destination of both streams is back, and so is what came after in the file of the one that was lost.
    let after = until_some("the events that followed", || {
        let reports = files(".json").into_iter().filter_map(|path| fs::read(path).ok());
        let mut reports = reports.filter_map(|report| serde_json::from_slice::<Value>(&report).ok());
        reports.find(|report| report["after_until"] == "destination_back")
    });
    let last = after["after"].as_array().and_then(|after| after.last()).expect("an event");
    assert!(after["incident"]["type"] == "upstream.lost" && last["type"] == "upstream.back", "{after}");
    assert_eq!(last["data"]["stream"], after["incident"]["data"]["stream"]);
    for path in files(".flv") {
        assert!(pictures(&fs::read(&path).expect("the file")) >= 1);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).expect("the file"));
        assert_eq!(mode & 0o777, 0o600, "others may read it");
    }
    assert!(files(".part").is_empty());
    assert!(!fs::read_to_string(&files(".json")[0]).expect("the report").contains("k3y"), "a key is in the report");
}

#[test]
fn crash_of_a_worker_that_the_activator_has_not_started_is_an_incident_by_link_too() {
    let (sink, folder) = (Sink::start(), tempfile::tempdir().expect("a folder"));
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
    let settings = settings.with("HANDOFF", "link").with("ADMIN_TOKEN", ADMIN);
    let settings = settings.with("LIVEEDGECAST_INCIDENT_DIR", folder.path().to_str().expect("a path"));
    let activator = settings.start();
    let mut workers = ["one", "two"].map(|name| (name, WorkerProcess::with(&activator, &[("WORKER_NAME", name)])));
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("first"))));
    sink.receives(60);
    let reports = || {
        let entries = fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("an entry").path());
        let reports = entries.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        let read = |path| serde_json::from_slice::<Value>(&fs::read(path).expect("the report")).expect("JSON");
        reports.map(read).collect::<Vec<_>>()
    };
    let busy = |activator: &ActivatorProcess| {
        let all = good(&call(activator, "GET", "/api/v1/workers", ADMIN, ""));
        let serving =
            all.as_array()?.iter().find(|worker| worker["streams"].as_u64().is_some_and(|streams| streams > 0))?;
        Some(serving["name"].as_str()?.to_owned())
    };
    // A planned move is none.
    let first = until_some("the worker", || busy(&activator));
    assert_eq!(call(&activator, "POST", &format!("/api/v1/workers/{first}/drain"), ADMIN, "").status / 100, 2);
    sink.receives_in_session(2, 50);
    assert!(reports().is_empty(), "{:?}", reports());
    assert_eq!(call(&activator, "POST", &format!("/api/v1/workers/{first}/undrain"), ADMIN, "").status / 100, 2);
    let second = until_some("the other worker", || busy(&activator).filter(|name| *name != first));
    let serving = workers.iter_mut().find(|(name, _)| *name == second);
    serving.expect("one of both").1.process.kill();
    until("the incident", || !reports().is_empty());
    let report = &reports()[0];
    assert_eq!((&report["incident"]["type"], &report["without_media"]), (&"stream.taken_over".into(), &Value::Null));
    assert_eq!(report["incident"]["data"]["from"], second.as_str());
}
