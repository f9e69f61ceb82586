//! A changed configuration file under live streams.
#![expect(clippy::disallowed_methods, reason = "a shell of its own: fifty publishers in one thread")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread::JoinHandle;

use liveedgecast_common::event;
use liveedgecast_e2e::bench::BenchClock;
use liveedgecast_e2e::bench::pacer::Pacer;
use liveedgecast_e2e::bench::payload::PayloadCheck;
use liveedgecast_e2e::bench::publisher::{PacedPublisher, PublishResult};
use liveedgecast_e2e::bench::schedule::MediaRate;
use liveedgecast_e2e::http;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess};
use liveedgecast_e2e::sink::{Sink, SinkSession};
use liveedgecast_e2e::wait::{SOON, until};
use rustix::process::Signal;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

by_descriptor_and_by_link! {
    changed_file_reaches_fifty_live_streams_and_disturbs_none
    changed_file_reaches_held_and_live_streams_of_two_activators_once
}

/// Publishers of the first scenario.
const STREAMS: u32 = 50;
/// The stream whose publisher the changed file does not have.
const REMOVED: u32 = 7;
/// A stream without audio.
const RATE: MediaRate = MediaRate { bits: 200_000, fps: 10 };
/// Messages that show that a stream goes on: three seconds.
const MORE: usize = 30;

/// Publishers that send until they are asked to stop.
struct Publishers {
    stop: CancellationToken,
    thread: JoinHandle<Vec<PublishResult>>,
}

impl Publishers {
    fn start(address: SocketAddr) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async {
                let clock = BenchClock::new();
                let pacer = Pacer::start(clock).expect("a timer");
                let mut running = Vec::new();
                for stream in 0..STREAMS {
                    let publisher = PacedPublisher::start(address, "live", stream, clock).await.expect("a publisher");
                    let (pacer, stopped) = (pacer.clone(), stopped.clone());
                    running.push(tokio::task::spawn_local(async move { publisher.run(RATE, &pacer, stopped).await }));
                }
                let mut results = Vec::new();
                for publisher in running {
                    results.push(publisher.await.expect("a result"));
                }
                results
            })
        });
        Self { stop, thread }
    }

    /// Ends all of them; their results in the order of the streams.
    fn end(self) -> Vec<PublishResult> {
        self.stop.cancel();
        self.thread.join().expect("the results")
    }
}

/// The numbers of the messages that an upstream got.
fn numbers(session: &SinkSession) -> Vec<u64> {
    let number = |payload: &[u8]| {
        let mut check = PayloadCheck::default();
        check.take(payload);
        check.stamp().map(|stamp| stamp.expect("a message with its own bytes").number)
    };
    session.media().iter().filter_map(|message| number(&message.payload)).collect()
}

/// Every message once, in order.
fn is_whole(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|two| two[1] == two[0] + 1)
}

/// Headers, then a keyframe.
fn begins_as_a_stream(session: &SinkSession) -> bool {
    let headers = session.media().iter().take_while(|message| message.is_header()).count();
    headers >= 2 && session.media().get(headers).is_some_and(|message| message.is_keyframe())
}

fn key(stream: u32) -> String {
    format!("s{stream}")
}

fn all_but_the_removed() -> BTreeSet<String> {
    (0..STREAMS).filter(|stream| *stream != REMOVED).map(key).collect()
}

/// Waits until each stream has one session here, with so many messages.
fn all_arrive(sink: &Sink, streams: &BTreeSet<String>, messages: usize, place: &str) {
    until(format!("{messages} messages of each stream at {place}"), || {
        let sessions = sink.sessions();
        streams
            .iter()
            .all(|key| sessions.iter().any(|session| session.key == *key && session.recording.frames() >= messages))
    });
}

/// The file takes its place by a rename, as careful programs write.
fn replace(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).expect("the file");
    fs::rename(&next, file).expect("the file in its place");
}

fn changed_file_reaches_fifty_live_streams_and_disturbs_none(handoff: &str) {
    let [origin, disabled, added, before, after] = [(); 5].map(|()| Sink::start());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let text = |removed: Option<u32>, destinations: &[(&str, &Sink, &str)]| {
        let listed = (0..STREAMS).filter(|stream| Some(*stream) != removed);
        let publishers: String = listed.map(|stream| format!("  - {{name: p{stream}, key: s{stream}}}\n")).collect();
        let destinations: String = destinations
            .iter()
            .map(|(name, sink, more)| format!("      - {{name: {name}, url: '{}'{more}}}\n", sink.url("live/{key}")))
            .collect();
        format!("publishers:\n{publishers}routes:\n  default:\n    destinations:\n{destinations}")
    };
    let first = [("origin", &origin, ""), ("second", &disabled, ""), ("third", &before, "")];
    fs::write(&file, text(None, &first)).expect("the file");
    let settings = ActivatorProcess::pushing_to("").with("HANDOFF", handoff);
    let activator = settings.with("LIVEEDGECAST_CONFIG", file.to_str().expect("a path")).start();
    let publishers = Publishers::start(activator.rtmp());
    let everyone: BTreeSet<String> = (0..STREAMS).map(key).collect();
    for (sink, place) in [(&origin, "the origin"), (&disabled, "the second"), (&before, "the third")] {
        all_arrive(sink, &everyone, MORE, place);
    }

    let second = [
        ("origin", &origin, ""),
        ("second", &disabled, ", enabled: false"),
        ("third", &after, ""),
        ("fourth", &added, ""),
    ];
    replace(&file, &text(Some(REMOVED), &second));
    let others = all_but_the_removed();
    all_arrive(&added, &others, MORE, "the added destination");
    all_arrive(&after, &others, MORE, "the new place");
    until("the sessions at the disabled destination and at the old place to end", || {
        let ended = |sink: &Sink| sink.sessions().iter().all(|session| session.ended.is_some());
        ended(&disabled) && ended(&before)
    });
    let most = origin.sessions().iter().map(|session| session.recording.frames()).max().unwrap_or_default();
    all_arrive(&origin, &others, most + MORE, "the origin, after the change");

    let results = publishers.end();
    let cut: Vec<usize> = (0..results.len()).filter(|stream| results[*stream].cut).collect();
    assert_eq!(cut, [REMOVED as usize], "the publishers that were disconnected");
    until("all streams to end", || activator.demand() == Some((0, 0, 0)));

    for session in origin.sessions() {
        let numbers = numbers(&session);
        assert!(numbers.first() == Some(&0) && is_whole(&numbers), "{} at the origin: {numbers:?}", session.key);
    }
    assert_eq!(origin.sessions().len(), everyone.len(), "sessions at the origin");
    for sink in [&disabled, &before] {
        assert_eq!(sink.sessions().len(), everyone.len());
        assert!(sink.sessions().iter().all(SinkSession::said_goodbye), "a destination was left without a goodbye");
    }
    for (sink, place) in [(&added, "the added destination"), (&after, "the new place")] {
        let sessions = sink.sessions();
        assert_eq!(sessions.iter().map(|session| session.key.clone()).collect::<BTreeSet<_>>(), others);
        assert_eq!(sessions.len(), others.len(), "sessions at {place}");
        for session in sessions {
            assert!(begins_as_a_stream(&session), "{} at {place}: {:?}", session.key, session.media().get(..4));
            assert!(is_whole(&numbers(&session)), "{} at {place}", session.key);
        }
    }
    for session in after.sessions() {
        let left = before.sessions().into_iter().find(|left| left.key == session.key).expect("its old place");
        let (last, first) = (numbers(&left).last().copied(), numbers(&session).first().copied());
        assert!(first.zip(last).is_some_and(|(first, last)| first <= last + 1), "{}: {last:?} {first:?}", session.key);
    }
    let counted =
        |result: &str| activator.metric("liveedgecast_config_streams_total", &[&format!("result=\"{result}\"")]);
    assert_eq!((counted("changed"), counted("removed"), counted("failed")), (Some(49.0), Some(1.0), Some(0.0)));
    assert_eq!(activator.events(event::PUBLISHER_REMOVED)[0]["publisher"], format!("p{REMOVED}"));
    let named = activator.events(event::DESTINATIONS_CHANGED);
    assert!(named.len() == 49 && named.iter().all(|line| line["destination"] == "fourth second third"), "{named:?}");
}

fn changed_file_reaches_held_and_live_streams_of_two_activators_once(handoff: &str) {
    let [first, second, third] = [(); 3].map(|()| Sink::start());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let text = |destinations: &[(&str, &Sink)]| {
        let destination = |(name, sink): &(&str, &Sink)| format!("{{name: {name}, url: '{}'}}", sink.url("live/{key}"));
        let destinations: Vec<String> = destinations.iter().map(destination).collect();
        format!(
            "publishers: [{{name: a, key: alpha}}, {{name: b, key: beta}}]\nroutes: {{default: {{destinations: [{}]}}}}\n",
            destinations.join(", ")
        )
    };
    fs::write(&file, text(&[("first", &first)])).expect("the file");
    let settings = || {
        let settings = ActivatorProcess::pushing_to("").with_external_workers().with("HANDOFF", handoff);
        settings.with("LIVEEDGECAST_CONFIG", file.to_str().expect("a path"))
    };
    let settings = [settings(), settings()];
    let all = settings.iter().map(|settings| settings.control().to_string()).collect::<Vec<_>>().join(" ");
    let activators = settings.map(|settings| settings.with("ACTIVATOR_PEERS", &all).start());
    let mut publishers = [("alpha", &activators[0]), ("beta", &activators[1])]
        .map(|(key, activator)| ffmpeg(Media::Both, &activator.url(&format!("live/{key}"))));
    let changed = |activator: &ActivatorProcess| {
        activator.metric("liveedgecast_config_streams_total", &["result=\"changed\""]).unwrap_or_default()
    };
    for activator in &activators {
        until("both publishers to be held", || activator.streams().len() == 2);
    }

    replace(&file, &text(&[("second", &second)]));
    for activator in &activators {
        until("the held stream to follow", || changed(activator) == 1.0);
    }
    let _worker = WorkerProcess::of(&activators[0]);
    let both: BTreeSet<String> = ["alpha", "beta"].map(str::to_owned).into();
    all_arrive(&second, &both, 50, "the second");
    assert_eq!(first.connections(), 0, "the destination that was removed in time was dialed");

    replace(&file, &text(&[("second", &second), ("third", &third)]));
    all_arrive(&third, &both, 50, "the third");
    assert!(third.sessions().iter().all(begins_as_a_stream));
    for activator in &activators {
        assert_eq!(changed(activator), 2.0);
    }
    assert_eq!((second.sessions().len(), third.sessions().len()), (2, 2), "a destination was disturbed");
    assert!(second.sessions().iter().all(|session| session.ended.is_none()));
    assert!(publishers.iter_mut().all(|publisher| publisher.is_running()), "a publisher was dropped");
}

/// A folder as Kubernetes mounts a secret: the file is a link through `..data`, which is swapped.
struct MountedSecret(tempfile::TempDir);

impl MountedSecret {
    fn of(text: &str) -> Self {
        let mounted = Self(tempfile::tempdir().expect("a folder"));
        mounted.swap("v1", text);
        symlink("..data/config.yaml", mounted.0.path().join("config.yaml")).expect("a link");
        mounted
    }

    fn swap(&self, version: &str, text: &str) {
        let (folder, link) = (self.0.path().join(format!("..{version}")), self.0.path().join("..data_tmp"));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("config.yaml"), text).expect("the file");
        symlink(format!("..{version}"), &link).expect("a link");
        fs::rename(&link, self.0.path().join("..data")).expect("the swap");
    }
}

#[test]
fn wrong_file_changes_nothing_is_told_and_is_mended_by_a_swap_or_by_sighup() {
    let (origin, added) = (Sink::start(), Sink::start());
    let text = |publisher: &str, more: &str| {
        let origin = origin.url("live/{key}");
        format!(
            "publishers: [{publisher}]\nroutes: {{default: {{destinations: [{{name: origin, url: '{origin}'}}{more}]}}}}\n"
        )
    };
    let studio = "{name: studio, key: studio-s3cret}";
    let mounted = MountedSecret::of(&text(studio, ""));
    let path = mounted.0.path().join("config.yaml");
    let settings = ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", path.to_str().expect("a path"));
    let mut activator = settings.start();
    let mut publisher = ffmpeg(Media::Both, &activator.url("live/studio-s3cret"));
    origin.receives(50);
    let address = activator.http();
    let ready = || {
        let answer = http::request(address, "GET", "/readyz").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let reloads = |activator: &ActivatorProcess, result: &str| {
        let label = format!("result=\"{result}\"");
        activator.metric("liveedgecast_config_reloads_total", &[&label]).unwrap_or_default()
    };
    let rejected = |activator: &ActivatorProcess| activator.metric("liveedgecast_config_files_rejected", &[]);
    assert_eq!(ready(), "ready\n");

    let wrong = text("{name: studio, key: studio-s3cret, route: nowhere}", "");
    mounted.swap("v2", &wrong);
    until("the mistake on /readyz", || {
        ready().contains("config.yaml:1:56: publishers[0].route: there is no route `nowhere`")
    });
    assert_eq!((rejected(&activator), reloads(&activator, "rejected")), (Some(1.0), 1.0));
    assert_eq!(activator.events(event::FILE_REJECTED).len(), 1);
    let arrived = origin.only().recording.frames();
    origin.receives(arrived + 50);

    let added_url = format!(", {{name: added, url: '{}'}}", added.url("live/{key}"));
    mounted.swap("v3", &text(studio, &added_url));
    assert!(begins_as_a_stream(&added.receives(50)));
    until("the end of the warning", || ready() == "ready\n");
    assert_eq!((rejected(&activator), reloads(&activator, "applied")), (Some(0.0), 1.0));

    activator.process.signal(Signal::HUP);
    until("the file to be read again", || reloads(&activator, "applied") == 2.0);
    assert_eq!((activator.events(event::RELOAD_ASKED).len(), reloads(&activator, "rejected")), (1, 1.0));
    let arrived = added.only().recording.frames();
    added.receives(arrived + 50);
    assert!(publisher.is_running() && activator.process.is_running());
    assert_eq!((origin.sessions().len(), added.sessions().len()), (1, 1), "a destination was disturbed");

    mounted.swap("v4", &text("{name: other, key: other-s3cret}", &added_url));
    assert!(!publisher.wait(SOON).success(), "the removed publisher stays");
    origin.ended();
    assert_eq!(activator.events(event::PUBLISHER_REMOVED)[0]["publisher"], "studio");
    assert!(!activator.process.log().contains("s3cret"), "the log shows a key");
}

#[test]
fn sighup_ends_nothing_where_there_is_no_file() {
    let sink = Sink::start();
    let mut activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url("live/alpha"));
    sink.receives(50);
    activator.process.signal(Signal::HUP);
    until("the signal in the log", || activator.events(event::RELOAD_ASKED).len() == 1);
    let arrived = sink.only().recording.frames();
    sink.receives(arrived + 50);
    assert!(publisher.is_running() && activator.process.is_running());
}
