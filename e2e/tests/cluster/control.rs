//! Changes of live streams, and the connections between pods, as strangers see them.

use std::fs;
use std::path::PathBuf;

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::not_run;
use liveedgecast_e2e::cluster::pods::Pod;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_time_goes_forward};
use liveedgecast_e2e::http;
use liveedgecast_e2e::process::{Program, RunningProgram};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};
use serde_json::Value;

use crate::{Relays, ended, published, receives, receives_more, sessions_of};

on_a_cluster! {
    connections_between_pods_show_neither_keys_nor_media
    the_other_activator_changes_a_live_stream_and_the_next_worker_keeps_the_change
}

const TOKEN: &str = "a-token-for-scenarios-only";

/// A capture of all packets of a pod, by tcpdump in its network namespace.
struct Capture {
    tcpdump: RunningProgram,
    file: PathBuf,
}

impl Capture {
    fn of(process: u32) -> Self {
        let program = Program::new("tcpdump", "nsenter");
        let file = program.directory().join("packets");
        let program = program.words(&format!(
            "--net=/proc/{process}/ns/net tcpdump --immediate-mode -U -n -i any -s 0 -w {} tcp port 6001 or tcp port 6002",
            file.display()
        ));
        let tcpdump = program.start();
        until("tcpdump to listen", || tcpdump.log().contains("listening on"));
        Self { tcpdump, file }
    }

    /// The bytes of all packets.
    fn end(mut self) -> Vec<u8> {
        self.tcpdump.interrupt();
        self.tcpdump.wait(SOON);
        fs::read(&self.file).expect("the capture")
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn connections_between_pods_show_neither_keys_nor_media(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let pods = relay.activators();
    let processes: Vec<u32> = pods.iter().filter_map(Pod::process).collect();
    if processes.len() < pods.len() {
        return not_run("connections_between_pods_show_neither_keys_nor_media", "pods run on another machine");
    }
    let captures: Vec<Capture> = processes.into_iter().map(Capture::of).collect();
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "captured");
    receives(&relay.sink, "captured", 200);
    publisher.interrupt();
    let arrived = ended(&relay.sink, "captured");
    let sent = tap.only().publisher.media;
    assert_arrived_whole(&sent, arrived.media());

    let packets: Vec<u8> = captures.into_iter().flat_map(Capture::end).collect();
    let media: usize = sent.iter().map(|message| message.payload.len()).sum();
    assert!(packets.len() > media, "{} bytes of packets, {media} of media: the link was captured", packets.len());
    let key = key("captured");
    assert!(!contains(&packets, key.as_bytes()), "the stream key is in the clear");
    // The middle of each large message, which a packet would hold as it is.
    for message in sent.iter().filter(|message| message.payload.len() > 400).take(50) {
        let middle = message.payload.len() / 2;
        assert!(!contains(&packets, &message.payload[middle..middle + 24]), "media is in the clear");
    }
}

fn the_other_activator_changes_a_live_stream_and_the_next_worker_keeps_the_change(relays: &Relays<'_>) {
    let wanted = Installation::default().activator("ADMIN_TOKEN_FILE", "").activator("LIVEEDGECAST_ADMIN_TOKEN", TOKEN);
    let relay = relays.installed(&wanted);
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "changed");
    receives(&relay.sink, "changed", 50);
    let asked = |pod: &Pod, method: &str, path: &str, body: &str| {
        let way = pod.way(8080);
        let answer = http::authorized(way.address, method, &format!("/api/v1/streams{path}"), TOKEN, body).ok()?;
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        serde_json::from_str::<Value>(&answer.body).ok()
    };
    // Both activators list the stream; the one that holds its publisher knows the address.
    let stream = |pod: &Pod| Some(asked(pod, "GET", "", "")?.as_array()?.first()?.clone());
    let [one, two] = relay.activators().try_into().expect("two activators");
    let holds = |pod: &Pod| stream(pod).is_some_and(|stream| !stream["handoff"].is_null());
    let (holder, other) = until_some("the holder", || match (holds(&one), holds(&two)) {
        (true, false) => Some((one.clone(), two.clone())),
        (false, true) => Some((two.clone(), one.clone())),
        _ => None,
    });
    let shown = until_some("the stream at the other activator", || stream(&other));
    let id = shown["id"].as_str().expect("an id").to_owned();
    let destinations = format!("/{id}/destinations");
    let name =
        asked(&other, "GET", &destinations, "").expect("destinations")[0]["name"].as_str().expect("a name").to_owned();
    let switch =
        |on: bool| asked(&other, "PATCH", &format!("{destinations}/{name}"), &format!(r#"{{"enabled":{on}}}"#));

    assert!(switch(false).is_some());
    assert!(ended(&relay.sink, "changed").said_goodbye());
    for pod in [&holder, &other] {
        until("both activators to know the change", || {
            asked(pod, "GET", &destinations, "").is_some_and(|all| all[0]["enabled"] == false)
        });
    }
    let worker = |pod: &Pod| Some(stream(pod)?["worker"].as_str()?.to_owned());
    let before = worker(&holder).expect("a worker");
    relay.kill(relay.workers().first().expect("its pod"));
    until("another worker to have the stream", || worker(&holder).is_some_and(|now| now != before));
    until("the other activator to know it", || worker(&other).is_some_and(|now| now != before));
    assert_eq!(sessions_of(&relay.sink, "changed").len(), 1, "the change was forgotten");

    assert!(switch(true).is_some());
    until("a second session", || sessions_of(&relay.sink, "changed").len() == 2);
    receives_more(&relay.sink, "changed", 50);
    publisher.interrupt();
    let again = ended(&relay.sink, "changed");
    assert_time_goes_forward(again.media());
    assert_decodes(again.media());
    assert_eq!(tap.sessions().len(), 1, "one connection of the publisher");
    relays.are_used_up();
}
