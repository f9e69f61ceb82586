//! Destinations that change while an encoder is live: the other destinations receive every message once, and a change outlives the worker.

use liveedgecast_common::event;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_resumed, assert_time_goes_forward};
use liveedgecast_e2e::process::{RunningProgram, kill};
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::record::Message;
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::{Sink, SinkSession};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{until, until_some};
use rustix::process::Signal;
use serde_json::Value;

use crate::RETURNS;
use crate::api::{ADMIN, call, good};

by_descriptor_and_by_link! {
    destinations_change_and_the_others_receive_every_message_once
    a_destination_stays_where_it_is_until_its_new_place_is_live
    changes_of_destinations_outlive_their_worker
    changes_outlive_a_lost_connection_of_the_publisher_and_end_with_its_stream
    changes_outlive_a_publisher_that_another_one_replaces
    backup_goes_on_where_the_primary_was_lost_and_the_other_way_round
}

/// A live stream to two destinations, with its id.
struct LiveRelay {
    activator: ActivatorProcess,
    tap: Tap,
    publisher: RunningProgram,
    /// The destinations that the configuration gives.
    kept: [Sink; 2],
    stream: String,
}

impl LiveRelay {
    fn by(handoff: &str) -> Self {
        let kept = [(); 2].map(|()| Sink::start());
        let urls = kept.each_ref().map(|sink| sink.url("live/{key}")).join(" ");
        let settings = ActivatorProcess::pushing_to(&urls).with("HANDOFF", handoff).with("COOLDOWN", "1s");
        let activator = settings.with("ADMIN_TOKEN", ADMIN).with("GRACE", RETURNS).start();
        let tap = Tap::before(activator.rtmp());
        let publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("changing"))));
        kept.iter().for_each(|sink| {
            sink.receives(50);
        });
        let streams = good(&call(&activator, "GET", "/api/v1/streams", ADMIN, ""));
        let stream = streams[0]["id"].as_str().expect("an id").to_owned();
        Self { activator, tap, publisher, kept, stream }
    }

    /// Sends a change of a destination; `path` follows `destinations`.
    #[track_caller]
    fn change(&self, method: &str, path: &str, body: &str) {
        let path = format!("/api/v1/streams/{}/destinations{path}", self.stream);
        let answer = call(&self.activator, method, &path, ADMIN, body);
        assert_eq!(answer.status, if method == "POST" && !body.is_empty() { 201 } else { 200 }, "{}", answer.body);
    }

    fn add(&self, name: &str, sink: &Sink) {
        self.change("POST", "", &format!(r#"{{"name":"{name}","url":"{}"}}"#, sink.url("rec/{key}")));
    }

    fn shift(&self, name: &str, sink: &Sink) {
        self.change("PATCH", &format!("/{name}"), &format!(r#"{{"url":"{}"}}"#, sink.url("rec/{key}")));
    }

    /// The destinations in force: name, on or off, changed by the API.
    fn destinations(&self) -> Vec<(String, bool, bool)> {
        let path = format!("/api/v1/streams/{}/destinations", self.stream);
        let all = good(&call(&self.activator, "GET", &path, ADMIN, ""));
        let is = |one: &Value, what: &str| one[what].as_bool().expect("true or false");
        let row =
            |one: &Value| (one["name"].as_str().unwrap_or_default().to_owned(), is(one, "enabled"), is(one, "by_api"));
        all.as_array().into_iter().flatten().map(row).collect()
    }

    fn published(&self) -> Vec<Message> {
        self.tap.only().publisher.media
    }

    /// Asserts that the publisher was told nothing but its start, and ends it.
    fn end(&mut self) {
        let said = self.tap.only();
        assert!(said.left.is_none() && said.closed.is_none(), "the publisher noticed");
        assert_eq!(said.server.statuses().len(), 1, "the publisher was told something: {:?}", said.server.statuses());
        self.publisher.interrupt();
    }
}

/// Asserts that a session is a part of the stream, which begins with headers and a keyframe, or with the stream's own beginning. Returns the indexes of
/// its first message and of the one behind its last.
#[track_caller]
fn part(published: &[Message], session: &[Message]) -> (usize, usize) {
    let begins = |media: &[Message]| media.iter().position(|message| !message.is_header()).unwrap_or(media.len());
    let (at, to) = (begins(published), begins(session));
    if session.get(to).zip(published.get(at)).is_some_and(|(got, sent)| sent.carries_the_same_as(got)) {
        let end = at + session.len() - to;
        assert!(published[at..end].iter().zip(&session[to..]).all(|(sent, got)| sent.carries_the_same_as(got)));
        return (0, end);
    }
    let span = assert_resumed(published, session);
    (span.first, span.end)
}

/// Waits for the end of a session, counted from 1, and asserts that it is a part of the published stream which begins with headers and a
/// keyframe. Returns the indexes of its first message and of the one behind its last.
#[track_caller]
fn ended(relay: &LiveRelay, sink: &Sink, number: usize) -> (SinkSession, usize, usize) {
    let session = until_some(format!("the end of session {number}"), || {
        sink.sessions().into_iter().nth(number - 1).filter(|session| session.ended.is_some())
    });
    assert!(session.said_goodbye(), "no goodbye at the end of session {number}");
    let span = part(&relay.published(), session.media());
    assert_time_goes_forward(session.media());
    assert_decodes(session.media());
    (session, span.0, span.1)
}

fn destinations_change_and_the_others_receive_every_message_once(handoff: &str) {
    let (added, moved) = (Sink::start(), Sink::start());
    let mut relay = LiveRelay::by(handoff);
    relay.add("archive", &added);
    added.receives_in_session(1, 50);
    relay.change("PATCH", "/archive", r#"{"enabled":false}"#);
    let (_, begins, _) = ended(&relay, &added, 1);
    assert!(begins > 0, "the destination was not added in the middle of the stream");
    relay.change("PATCH", "/archive", r#"{"enabled":true}"#);
    added.receives_in_session(2, 50);
    relay.change("POST", "/archive/restart", "");
    added.receives_in_session(3, 50);
    let (before, _, end) = ended(&relay, &added, 2);
    let after = added.sessions()[2].clone();
    assert!(before.ended <= after.started, "two sessions at one place at a time");
    let first = part(&relay.published(), after.media()).0;
    assert!(first <= end, "messages {end}..{first} are lost at the restart");
    relay.shift("archive", &moved);
    moved.receives_in_session(1, 50);
    let (before, _, end) = ended(&relay, &added, 3);
    let after = moved.sessions()[0].clone();
    assert!(after.started <= before.ended, "the old session ended before the new place was live");
    let first = part(&relay.published(), after.media()).0;
    assert!(first <= end, "messages {end}..{first} are lost at the move");
    relay.change("DELETE", "/archive", "");
    ended(&relay, &moved, 1);
    relay.end();
    for sink in &relay.kept {
        sink.ended();
        assert_arrived_whole(&relay.published(), sink.only().media());
    }
    assert_eq!((added.sessions().len(), moved.sessions().len()), (3, 1));
    relay.activator.is_back_to_zero();
}

fn a_destination_stays_where_it_is_until_its_new_place_is_live(handoff: &str) {
    let mut relay = LiveRelay::by(handoff);
    let later = Sink::start();
    later.go_away();
    let name = relay.destinations()[1].0.clone();
    let from = &relay.kept[1];
    relay.shift(&name, &later);
    let error = || {
        let streams = good(&call(&relay.activator, "GET", "/api/v1/streams", ADMIN, ""));
        let upstreams = streams[0]["upstreams"].as_array().cloned().unwrap_or_default();
        let error = upstreams.into_iter().find(|one| one["name"] == name.as_str())?["error"].as_str()?.to_owned();
        error.starts_with("not moved to ").then_some(error)
    };
    until_some("the failure of the new place", error);
    let arrived = from.only().recording.frames();
    from.receives(arrived + 50);
    later.come_back();
    later.receives_in_session(1, 50);
    let (before, first, end) = ended(&relay, from, 1);
    assert_eq!(first, 0, "the old session has the stream from its beginning");
    let after = later.sessions()[0].clone();
    assert!(after.started <= before.ended, "the old session ended before the new place was live");
    let first = part(&relay.published(), after.media()).0;
    assert!(first <= end, "messages {end}..{first} are lost at the move");
    relay.end();
    ended(&relay, &later, 1);
    relay.kept[0].ended();
    assert_arrived_whole(&relay.published(), relay.kept[0].only().media());
    relay.activator.is_back_to_zero();
}

fn changes_of_destinations_outlive_their_worker(handoff: &str) {
    let (added, moved) = (Sink::start(), Sink::start());
    let mut relay = LiveRelay::by(handoff);
    let names: Vec<String> = relay.destinations().into_iter().map(|(name, ..)| name).collect();
    relay.add("archive", &added);
    added.receives_in_session(1, 50);
    relay.shift(&names[0], &moved);
    moved.receives_in_session(1, 50);
    relay.change("PATCH", &format!("/{}", names[1]), r#"{"enabled":false}"#);
    relay.kept.iter().for_each(|sink| {
        sink.ended();
    });
    let changed =
        vec![(names[0].clone(), true, true), (names[1].clone(), false, true), ("archive".to_owned(), true, true)];
    assert_eq!(relay.destinations(), changed);
    for number in 2..4 {
        let worker = relay.activator.worker_processes()[0];
        kill(worker);
        for sink in [&added, &moved] {
            let after = sink.receives_in_session(number, 50);
            let before = until_some("the end of the session before", || {
                sink.sessions().into_iter().nth(number - 2).filter(|session| session.ended.is_some())
            });
            let end = part(&relay.published(), before.media()).1;
            let first = part(&relay.published(), after.media()).0;
            assert!(first <= end, "messages {end}..{first} are lost");
        }
        until("the worker to be another one", || !relay.activator.worker_processes().contains(&worker));
        assert_eq!(relay.destinations(), changed);
    }
    // The successor can change them, so it has got the list.
    relay.change("PATCH", &format!("/{}", names[1]), r#"{"enabled":true}"#);
    relay.kept[1].receives_in_session(2, 50);
    relay.change("DELETE", "/archive", "");
    ended(&relay, &added, 3);
    relay.end();
    ended(&relay, &moved, 3);
    assert_eq!((relay.kept[0].sessions().len(), relay.kept[1].sessions().len()), (1, 2));
    relay.activator.is_back_to_zero();
    assert_eq!(relay.activator.events(event::STREAM_TAKEN_OVER).len(), 2, "one line for each takeover");
}

/// A live stream whose second destination is switched off and that has one more, `archive`.
fn changed(handoff: &str) -> (LiveRelay, Sink, Vec<(String, bool, bool)>) {
    let (relay, added) = (LiveRelay::by(handoff), Sink::start());
    relay.add("archive", &added);
    added.receives_in_session(1, 50);
    let names: Vec<String> = relay.destinations().into_iter().map(|(name, ..)| name).collect();
    relay.change("PATCH", &format!("/{}", names[1]), r#"{"enabled":false}"#);
    relay.kept[1].ended();
    let all = vec![(names[0].clone(), true, false), (names[1].clone(), false, true), (names[2].clone(), true, true)];
    assert_eq!(relay.destinations(), all);
    (relay, added, all)
}

impl LiveRelay {
    /// Starts a publisher of the same stream, and waits for its own stream to be live.
    fn publish_again(&mut self) {
        let url = self.tap.url(&format!("live/{}", key("changing")));
        self.publisher = ffmpeg(Media::Both, &url);
        let stream = until_some("the next stay of the publisher", || {
            let streams = good(&call(&self.activator, "GET", "/api/v1/streams", ADMIN, ""));
            let mut all = streams.as_array().into_iter().flatten();
            let next = all.find(|stream| stream["state"] == "live" && stream["id"] != self.stream.as_str())?;
            Some(next["id"].as_str()?.to_owned())
        });
        self.stream = stream;
    }
}

fn changes_outlive_a_lost_connection_of_the_publisher_and_end_with_its_stream(handoff: &str) {
    let (mut relay, added, changed) = changed(handoff);
    relay.publisher.kill();
    until("the grace time to run", || {
        let streams = good(&call(&relay.activator, "GET", "/api/v1/streams", ADMIN, ""));
        streams[0]["state"] == "grace"
    });
    relay.publish_again();
    assert_eq!(relay.destinations(), changed);
    for sink in [&relay.kept[0], &added] {
        let arrived = sink.only().recording.frames();
        sink.receives(arrived + 50);
        assert!(sink.only().ended.is_none(), "the session was not continued");
        assert_time_goes_forward(sink.only().media());
    }
    assert_eq!(relay.kept[1].sessions().len(), 1, "the destination that is switched off was dialed");
    relay.publisher.interrupt();
    added.ended();
    relay.publish_again();
    for sink in &relay.kept {
        sink.receives_in_session(2, 50);
    }
    assert!(relay.destinations().iter().all(|(_, enabled, by_api)| *enabled && !by_api), "{:?}", relay.destinations());
    assert_eq!(added.sessions().len(), 1, "a change has outlived its stream");
    relay.publisher.interrupt();
    relay.activator.is_back_to_zero();
}

fn changes_outlive_a_publisher_that_another_one_replaces(handoff: &str) {
    let (mut relay, added, changed) = changed(handoff);
    relay.publisher.signal(Signal::STOP);
    // The activator refuses the second publisher while the old one has been silent for less than 5 s: encoders try again.
    let url = relay.tap.url(&format!("live/{}", key("changing")));
    let mut second = ffmpeg(Media::Both, &url);
    until("a second publisher to be taken", || {
        if !second.is_running() {
            second = ffmpeg(Media::Both, &url);
        }
        relay.activator.events(event::PUBLISHER_REPLACED).len() == 1
    });
    for sink in [&relay.kept[0], &added] {
        let arrived = sink.only().recording.frames();
        sink.receives(arrived + 50);
        assert!(sink.only().ended.is_none(), "the session was not continued");
    }
    assert_eq!(relay.kept[1].sessions().len(), 1, "the destination that is switched off was dialed");
    let streams = good(&call(&relay.activator, "GET", "/api/v1/streams", ADMIN, ""));
    relay.stream = streams[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(relay.destinations(), changed);
    relay.publisher.signal(Signal::CONT);
    second.interrupt();
    added.ended();
}

fn backup_goes_on_where_the_primary_was_lost_and_the_other_way_round(handoff: &str) {
    let (primary, backup) = (Sink::start(), Sink::start());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let key = key("backed-up");
    let text = format!(
        "publishers: [{{name: studio, key: {key}}}]\nroutes: {{default: {{destinations: [{{name: tube, url: '{}', \
         backup_url: '{}', backup_after: 1s}}]}}}}\n",
        primary.url("live/{key}"),
        backup.url("live/{key}"),
    );
    std::fs::write(&file, text).expect("the file");
    let settings = ActivatorProcess::pushing_to("").with("HANDOFF", handoff).with("COOLDOWN", "1s");
    let activator = settings.with("LIVEEDGECAST_CONFIG", file.to_str().expect("a path")).start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{key}")));
    primary.receives(50);
    let shown = || activator.streams().first().map(|stream| stream["upstreams"][0]["backup"].clone());
    assert_eq!(shown(), Some(false.into()));
    primary.go_away();
    backup.receives_in_session(1, 50);
    until("the backup to be shown", || shown() == Some(true.into()));
    primary.come_back();
    let arrived = backup.only().recording.frames();
    backup.receives(arrived + 100);
    assert_eq!(primary.sessions().len(), 1, "the session stays at the backup while that is there");
    backup.go_away();
    primary.receives_in_session(2, 50);
    until("the primary to be shown", || shown() == Some(false.into()));
    publisher.interrupt();
    primary.ended();
    let published = tap.only().publisher.media;
    let sessions = [primary.sessions()[0].clone(), backup.only(), primary.sessions()[1].clone()];
    let parts = sessions.each_ref().map(|session| part(&published, session.media()));
    println!("the sessions have {parts:?} of {} messages", published.len());
    for pair in parts.windows(2) {
        assert!(pair[1].0 <= pair[0].1, "messages {}..{} are lost", pair[0].1, pair[1].0);
    }
    assert_eq!(parts[2].1, published.len(), "the last messages");
    for session in &sessions[1..] {
        assert_time_goes_forward(session.media());
        assert_decodes(session.media());
    }
    let turns = activator.events(event::UPSTREAM_TURNED);
    let turns: Vec<_> = turns.iter().map(|line| (&line["destination"], &line["backup"])).collect();
    assert_eq!(turns, [(&Value::from("tube"), &Value::from(true)), (&Value::from("tube"), &Value::from(false))]);
    let lines = activator.events(event::STREAM_LIVE);
    assert_eq!(lines[0]["publisher"], "studio", "{lines:?}");
    activator.is_back_to_zero();
}
