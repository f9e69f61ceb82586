//! The last seconds of a stream as a file, by both handoffs: a real decoder reads it, and the stream does not notice.

use std::fs;

use liveedgecast_common::rtmp::type_id;
use liveedgecast_e2e::http;
use liveedgecast_e2e::process::{Program, kill};
use liveedgecast_e2e::publish::{Media, ffmpeg, newer_ffmpeg};
use liveedgecast_e2e::record::{Message, read_flv};
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{LONG, now, until, until_some};

use serde_json::Value;

use crate::api::{ADMIN, call, good, pair};

by_descriptor_and_by_link! {
    last_seconds_of_a_stream_are_a_file_that_a_decoder_reads_while_the_stream_goes_on
    last_seconds_are_there_again_after_the_death_of_a_worker
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
        // A group has 25 pictures, and half of one is kept on average.
        assert!(most > 5, "{media:?}: {most} pictures");
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
fn activator_that_does_not_keep_a_stream_says_which_one_does() {
    let sink = Sink::start();
    let activators = pair("descriptor", &sink.url("live/{key}"));
    let _publisher = ffmpeg(Media::Both, &activators[0].url(&format!("live/{}", key("there"))));
    let id = id(&activators[1]);
    let path = format!("/api/v1/streams/{id}/ring.flv");
    let held = call(&activators[0], "GET", &path, ADMIN, "");
    assert!(held.status == 503 && held.body.contains("excerpt-not-now"), "{}", held.body);
    let _worker = WorkerProcess::of(&activators[0]);
    sink.receives(50);
    pictures(&file(&activators[0], &id, "ring.flv"));
    let elsewhere = call(&activators[1], "GET", &path, ADMIN, "");
    assert!(elsewhere.status == 409 && elsewhere.body.contains("excerpt-elsewhere"), "{}", elsewhere.body);
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
    // Another stream, so that the two incidents are not one.
    let _second = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("second"))));
    sink.receives_in_session(3, 60);
    sink.drop_connections();
    until("the files of the lost destination", || files(".json").len() >= 2 && files(".flv").len() >= 2);
    for path in files(".flv") {
        assert!(pictures(&fs::read(&path).expect("the file")) >= 1);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).expect("the file"));
        assert_eq!(mode & 0o777, 0o600, "others may read it");
    }
    assert!(files(".part").is_empty());
    assert!(!fs::read_to_string(&files(".json")[0]).expect("the report").contains("k3y"), "a key is in the report");
}
