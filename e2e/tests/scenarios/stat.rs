//! `/stat` and `/control/drop/publisher`, as the programs use them that were written for nginx-rtmp.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use liveedgecast_e2e::http;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{until, until_some};
use serde::Deserialize;

use crate::api::ADMIN;

by_descriptor_and_by_link! {
    a_live_stream_is_in_every_document_whoever_is_asked_and_whoever_dies
}

/// The document as NOALBS reads it, which switches scenes by it: it refuses all of it when one of these is missing or of another type.
#[derive(Debug, Deserialize)]
struct Stat {
    server: StatServer,
}

#[derive(Debug, Deserialize)]
struct StatServer {
    application: Vec<StatApplication>,
}

#[derive(Debug, Deserialize)]
struct StatApplication {
    name: String,
    live: StatStreams,
}

#[derive(Debug, Deserialize)]
struct StatStreams {
    stream: Option<Vec<StatStream>>,
}

#[derive(Clone, Debug, Deserialize)]
struct StatStream {
    name: String,
    bw_video: u32,
    meta: Option<StatMeta>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct StatMeta {
    video: StatVideo,
    audio: StatAudio,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct StatVideo {
    width: u32,
    height: u32,
    frame_rate: f64,
    codec: String,
    profile: Option<String>,
    compat: Option<u32>,
    level: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct StatAudio {
    codec: String,
    profile: Option<String>,
    channels: Option<u32>,
    sample_rate: Option<u32>,
}

/// The streams of the app `live`.
fn streams(xml: &str) -> Vec<StatStream> {
    let stat: Stat = quick_xml::de::from_str(xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
    let live = stat.server.application.into_iter().find(|app| app.name == "live");
    live.and_then(|app| app.live.stream).unwrap_or_default()
}

fn stat(activator: &ActivatorProcess, query: &str) -> String {
    let answer = http::authorized(activator.http(), "GET", &format!("/stat{query}"), ADMIN, "").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// The elements of a document, each by its path.
fn elements(xml: &str) -> BTreeSet<String> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut path, mut found) = (Vec::new(), BTreeSet::new());
    loop {
        match reader.read_event().expect("XML") {
            Event::Start(start) => {
                path.push(String::from_utf8_lossy(start.name().as_ref()).into_owned());
                found.insert(path.join("/"));
            }
            Event::Empty(start) => {
                let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
                found.insert(format!("{}/{name}", path.join("/")));
            }
            Event::End(_) => drop(path.pop()),
            Event::Eof => return found,
            _ => {}
        }
    }
}

#[test]
fn document_says_what_a_real_nginx_says_of_the_same_stream() {
    let nginx = Nginx::upstream();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let name = key("stat");
    let text = format!(
        "publishers: [{{name: studio, key: {name}}}]\nroutes: {{default: {{destinations: [{{name: origin, url: '{}'}}]}}}}\n",
        nginx.url("live/{key}"),
    );
    std::fs::write(&file, text).expect("the file");
    let activator =
        ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", file.to_str().expect("a path")).start();
    assert!(streams(&stat(&activator, "")).is_empty());
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{name}")));
    let theirs = until_some("nginx to know the codecs", || {
        let stream = streams(&nginx.statistics()).into_iter().next()?;
        let known = stream.meta.as_ref().is_some_and(|meta| meta.audio.sample_rate.is_some() && meta.video.width > 0);
        known.then_some(stream)
    });
    let ours = until_some("the activator to know the rate", || {
        streams(&stat(&activator, "")).into_iter().find(|stream| stream.bw_video > 0)
    });
    assert_eq!((ours.name.as_str(), theirs.name.as_str()), ("studio", name.as_str()));
    assert_eq!(ours.meta, theirs.meta);
    // The rate of nginx is that of ten seconds: it is not waited for. That of the API is counted by the same worker.
    let by_api = &activator.streams()[0];
    let (video, all) = (f64::from(ours.bw_video), by_api["bitrate"].as_f64().expect("a rate"));
    assert!(video > 0.3 * all && video < 1.5 * all, "{video} of {all}");
    let ours = elements(&stat(&activator, ""));
    // nginx has `swfurl` where the publisher says one, which no activator asks for.
    let theirs = elements(&nginx.statistics()).into_iter().filter(|element| !element.ends_with("/client/swfurl"));
    let missing: Vec<String> = theirs.filter(|element| !ours.contains(element)).collect();
    assert!(missing.is_empty(), "nginx has these, and we do not: {missing:?}");
    assert!(!stat(&activator, "").contains(&name), "the key is shown");
    assert_eq!(streams(&stat(&activator, "?app=live&name=studio")).len(), 1);
    assert!(streams(&stat(&activator, "?app=live&name=other")).is_empty());
    publisher.interrupt();
    until("the stream to be gone", || streams(&stat(&activator, "")).is_empty());
}

fn a_live_stream_is_in_every_document_whoever_is_asked_and_whoever_dies(handoff: &str) {
    let sink = Sink::start();
    let settings = || {
        let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_external_workers();
        settings.with("HANDOFF", handoff).with("STAT_NAMES", "key")
    };
    let settings = [settings(), settings()];
    let all = settings.iter().map(|settings| settings.control().to_string()).collect::<Vec<_>>().join(" ");
    let activators = settings.map(|settings| settings.with("ACTIVATOR_PEERS", &all).start());
    let worker = |name: &str| (name.to_owned(), WorkerProcess::with(&activators[0], &[("WORKER_NAME", name)]));
    let mut workers = std::collections::BTreeMap::from([worker("one"), worker("two")]);
    let name = key("always");
    let mut publisher = ffmpeg(Media::Both, &activators[0].url(&format!("live/{name}")));
    let rate = |activator: &ActivatorProcess| {
        let listed = streams(&stat(activator, ""));
        assert!(listed.len() <= 1, "{listed:?}");
        listed.first().map(|stream| stream.bw_video)
    };
    for activator in &activators {
        until("the stream to have a rate", || rate(activator) > Some(0));
    }
    assert_eq!(streams(&stat(&activators[0], ""))[0].name, name, "the key was asked for");
    assert_ne!(streams(&stat(&activators[1], ""))[0].name, name, "another activator does not know the key");
    for number in 2..4 {
        let serving = activators[0].streams()[0]["worker"].as_str().expect("a worker").to_owned();
        workers.remove(&serving).expect("a worker of ours").process.kill();
        workers.extend([worker(&format!("next-{number}"))]);
        until("the next session", || {
            for activator in &activators {
                assert!(rate(activator).is_some(), "the stream is missing");
            }
            sink.sessions().len() >= number
        });
        until("the rate of the next worker", || {
            activators.iter().all(|activator| rate(activator).expect("the stream is missing") > 0)
        });
    }
    publisher.interrupt();
    for activator in &activators {
        until("the stream to be gone", || rate(activator).is_none());
    }
}

#[test]
fn publisher_is_dropped_by_its_name_or_its_key_and_the_password_of_a_url() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("ADMIN_TOKEN", ADMIN);
    let activator = settings.with("VIEW_TOKEN", "the-token-of-readers").start();
    let basic = |path: &str, password: &str, more: &str| {
        let credentials = BASE64.encode(format!("noalbs:{password}").as_bytes());
        let headers = format!("authorization: Basic {credentials}\r\n{more}");
        http::send(activator.http(), "GET", path, &headers, "").expect("an answer")
    };
    let drop = |query: &str| {
        let answer = basic(&format!("/control/drop/publisher?{query}"), ADMIN, "");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    for number in 1..=2 {
        let name = key(&format!("dropped-{number}"));
        let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{name}")));
        sink.receives_in_session(number, 25);
        let shown =
            until_some("the stream", || streams(&basic("/stat", "the-token-of-readers", "").body).into_iter().next());
        assert!(shown.name.len() == 12 && !name.contains(&shown.name), "{shown:?}");
        let path = format!("/control/drop/publisher?app=live&name={name}");
        assert_eq!(basic(&path, "the-token-of-readers", "").status, 403);
        assert_eq!(basic(&path, "another", "").status, 401);
        assert_eq!(basic(&path, ADMIN, "sec-fetch-site: cross-site\r\n").status, 403);
        assert_eq!(basic("/control/drop/publisher?app=live", ADMIN, "").status, 400);
        assert_eq!(drop(&format!("app=other&name={name}")), "0\n");
        assert_eq!(drop(&format!("app=live&name={name}&addr=10.9.9.9")), "0\n");
        assert_eq!(drop("app=live&name=nobody"), "0\n");
        let by = if number == 1 { &name } else { &shown.name };
        // A program that looks whether an address is there changes nothing by that.
        let credentials = format!("authorization: Bearer {ADMIN}\r\n");
        for method in ["HEAD", "POST", "OPTIONS"] {
            let path = format!("/control/drop/publisher?app=live&name={by}");
            let answer = http::send(activator.http(), method, &path, &credentials, "").expect("an answer");
            assert_eq!(answer.status, 405, "{method}: {}", answer.body);
        }
        assert!(publisher.is_running() && streams(&stat(&activator, "")).len() == 1, "HEAD drops a publisher");
        assert_eq!(drop(&format!("app=live&name={by}")), "1\n");
        until("the publisher to end", || !publisher.is_running());
        until("the stream to be gone", || streams(&stat(&activator, "")).is_empty());
    }
}
