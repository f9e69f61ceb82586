//! The overlay `edge`: one activator on the node's own ports, workers that get the publishers' sockets. Streams outlive every rollout and
//! every kill but the death of the worker's and the activator's pods at once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::pods::Pod;
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::cluster::{kubectl, not_run, said};
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_resumed};
use liveedgecast_e2e::process::{kill, signal};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, now, until};
use rustix::process::Signal;
use serde_json::Value;

use crate::activators::{held_and_then, kill_activator};
use crate::{Relays, ended, published, receives, receives_more, sessions_of};

on_a_cluster! {
    a_killed_activator_takes_no_live_stream_with_it
    a_publisher_at_the_nodes_address_wakes_a_worker_that_gets_its_socket
    a_rolled_activator_leaves_its_ports_to_the_next_and_keeps_its_streams
    a_worker_that_hangs_is_replaced
    a_worker_that_drains_hands_its_streams_to_another
    the_held_publisher_of_a_killed_edge_activator_reconnects
    the_held_publisher_of_a_rolled_edge_activator_is_asked_to_reconnect
}

fn edge() -> Installation {
    Installation::default().with("--overlay edge")
}

fn stream(relay: &ClusterRelay<'_>, state: &str) -> Option<Value> {
    relay.streams().into_iter().find(|stream| stream["state"] == state)
}

/// The worker that has all streams.
#[track_caller]
fn worker(relay: &ClusterRelay<'_>) -> Pod {
    let mut workers: Vec<Pod> = relay.workers().into_iter().filter(|pod| !pod.is_going()).collect();
    assert_eq!(workers.len(), 1, "workers");
    workers.remove(0)
}

/// Asserts that the publisher kept its connection, and that a second session at the upstream continues its stream.
#[track_caller]
fn goes_on_in_a_second_session(relay: &ClusterRelay<'_>, tap: &Tap, name: &str) {
    until(format!("a second session of {name}"), || sessions_of(&relay.sink, name).len() == 2);
    let resumed = receives(&relay.sink, name, 50);
    assert!(tap.only().left.is_none() && tap.only().closed.is_none(), "the publisher of {name} noticed");
    assert_resumed(&tap.only().publisher.media, resumed.media());
    assert_decodes(resumed.media());
}

fn a_publisher_at_the_nodes_address_wakes_a_worker_that_gets_its_socket(relays: &Relays<'_>) {
    let relay = relays.installed(&edge());
    let nodes = relay
        .api()
        .list("/api/v1/nodes")
        .iter()
        .map(|node| node["status"]["addresses"].to_string())
        .collect::<String>();
    assert!(nodes.contains(&format!("\"{}\"", relay.address())), "{} is no node's address: {nodes}", relay.address());
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "edge");
    receives(&relay.sink, "edge", 50);
    let live = stream(&relay, "live").expect("a live stream");
    assert_eq!(live["handoff"], "descriptor", "{live}");
    assert_eq!(live["worker"], worker(&relay).name.as_str(), "{live}");
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, ended(&relay.sink, "edge").media());
    relay.is_back_to_zero();
}

/// Begins a handshake; returns whether the server answers.
fn is_answered(at: SocketAddr) -> bool {
    let Ok(mut connection) = TcpStream::connect(at) else { return false };
    let mut first = vec![0; 1537];
    first[0] = 3;
    let mut version = [0];
    connection.set_read_timeout(Some(SOON)).expect("a socket takes a time");
    connection.write_all(&first).is_ok() && connection.read_exact(&mut version).is_ok() && version == [3]
}

fn a_rolled_activator_leaves_its_ports_to_the_next_and_keeps_its_streams(relays: &Relays<'_>) {
    let relay = relays.installed(&edge());
    let tap = Tap::before(relay.socket());
    let mut first = published(&tap, "first");
    receives(&relay.sink, "first", 50);
    let old = relay.holder();

    relay.restart("activator");
    let mut answered = 0;
    until("the old one to have left all its ports", || {
        for _ in 0..20 {
            assert!(is_answered(relay.socket()), "the connection after {answered} is lost");
            answered += 1;
        }
        said(&kubectl(&["logs", &old.name])).contains("\"phase\":\"finish_streams\"")
    });
    println!("{answered} connections meanwhile");
    let new: Vec<Pod> = relay.activators().into_iter().filter(|pod| pod.uid() != old.uid()).collect();
    assert!(new.len() == 1 && new[0].is_ready(), "the new one is ready");

    // The new activator accepts publishers and knows both streams; the old one remains for its own.
    let second_tap = Tap::before(relay.socket());
    let mut second = published(&second_tap, "second");
    receives(&relay.sink, "second", 100);
    assert_eq!(relay.ask(&new[0], "demand").map(|demand| demand["demand"].clone()), Some(2.into()));
    until("KEDA to listen to the new one", || relay.keda_listens());
    assert!(tap.only().closed.is_none() && sessions_of(&relay.sink, "first").len() == 1, "the first one noticed");
    assert!(relay.activators().iter().any(|pod| pod.uid() == old.uid() && pod.is_going()), "the old one has gone");

    // A worker's death ends neither of the two streams.
    receives_more(&relay.sink, "first", 50);
    let lost = worker(&relay);
    match lost.process() {
        Some(process) => kill(process),
        None => relay.kill(&lost),
    }
    goes_on_in_a_second_session(&relay, &tap, "first");
    goes_on_in_a_second_session(&relay, &second_tap, "second");
    first.interrupt();
    second.interrupt();
    ended(&relay.sink, "first");
    ended(&relay.sink, "second");
    relay.is_rolled_out();
    relay.is_back_to_zero();
}

fn a_killed_activator_takes_no_live_stream_with_it(relays: &Relays<'_>) {
    let relay = relays.installed(&edge());
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "stays");
    receives(&relay.sink, "stays", 50);
    kill_activator(&relay, &relay.holder());
    receives_more(&relay.sink, "stays", 100);
    // The successor learns of the stream from the worker, and refuses a second publisher.
    until("the next one to know of it", || stream(&relay, "live").is_some());
    let mut twin = published(&Tap::before(relay.socket()), "stays");
    assert!(!twin.wait(SOON).success(), "a second publisher is taken");
    receives_more(&relay.sink, "stays", 50);
    publisher.interrupt();
    let session = ended(&relay.sink, "stays");
    assert_eq!(sessions_of(&relay.sink, "stays").len(), 1, "sessions at the upstream");
    assert_arrived_whole(&tap.only().publisher.media, session.media());
    relay.is_rolled_out();
    relay.is_back_to_zero();
}

fn a_worker_that_hangs_is_replaced(relays: &Relays<'_>) {
    let relay = relays.installed(&edge());
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "hangs");
    receives(&relay.sink, "hangs", 100);
    let Some(process) = worker(&relay).process() else {
        return not_run("a worker that hangs", "its node is another machine, where it cannot be stopped from here");
    };
    let hung = now();
    signal(process, Signal::STOP);
    goes_on_in_a_second_session(&relay, &tap, "hangs");
    println!("replaced within {:?}", now().saturating_duration_since(hung));
    publisher.interrupt();
    ended(&relay.sink, "hangs");
}

fn a_worker_that_drains_hands_its_streams_to_another(relays: &Relays<'_>) {
    let relay = relays.installed(&edge());
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "moves");
    receives(&relay.sink, "moves", 100);
    let old = worker(&relay);
    relay.restart("worker");
    goes_on_in_a_second_session(&relay, &tap, "moves");
    relay.is_gone(&old);
    publisher.interrupt();
    ended(&relay.sink, "moves");
}

fn the_held_publisher_of_a_killed_edge_activator_reconnects(relays: &Relays<'_>) {
    let relay = relays.installed(&edge());
    held_and_then(&relay, |holder| kill_activator(&relay, holder));
}

fn the_held_publisher_of_a_rolled_edge_activator_is_asked_to_reconnect(relays: &Relays<'_>) {
    let relay = relays.installed(&edge());
    held_and_then(&relay, |holder| relay.delete(holder));
}
