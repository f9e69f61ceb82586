//! A whole cycle on a cluster: from zero to a stream in a pod, and back to zero.

use std::time::UNIX_EPOCH;

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{until, wall};
use serde_json::json;

use crate::{Relays, published};

on_a_cluster! {
    the_first_publisher_wakes_a_pod_by_push_and_back_to_zero
}

fn the_first_publisher_wakes_a_pod_by_push_and_back_to_zero(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    // KEDA polls every five minutes, so the push wakes the worker.
    relay.change_keda(&json!({"pollingInterval": 300}));
    assert!(relay.workers().is_empty());
    let pods = relay.watch("worker");
    let tap = Tap::before(relay.socket());

    let mut publisher = published(&tap, "first");
    relay.sink.receives(100);
    let asked = tap.only().publisher.command_at("publish").expect("publish");
    let added = pods.first("a worker pod", |event| event.what == "ADDED");
    assert!(added.at > asked, "the worker's pod was there before publish");
    let workers = relay.workers();
    assert_eq!(workers.len(), 1);
    let seconds = |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).expect("a time since 1970").as_secs();
    let (created, asked_at) = (seconds(workers[0].created()), seconds(wall(asked)));
    assert!(created >= asked_at, "the worker's pod was created at {created}, publish was at {asked_at}");
    println!("publish to pod {:?}, to Publish.Start {:?}", added.at - asked, tap.only().held());
    its_phases_add_up_to_the_whole(&relay, tap.only().held().expect("a start").as_secs_f64());

    publisher.interrupt();
    let session = relay.sink.ended();
    assert!(session.said_goodbye(), "a clean end is passed on");
    assert_eq!((session.app.as_str(), &session.key), ("live", &key("first")));
    assert_arrived_whole(&tap.only().publisher.media, relay.sink.only().media());
    assert_decodes(relay.sink.only().media());

    relay.change_keda(&json!({"pollingInterval": 2}));
    relay.is_back_to_zero();
}

/// The activator knows every phase of the cold start: most of the time is the pod's, which ends when the worker's process begins.
fn its_phases_add_up_to_the_whole(relay: &ClusterRelay<'_>, held: f64) {
    let sum = |what: &str, phase: &str| {
        relay.sum(&format!("liveedgecast_cold_start_seconds_{what}"), &[&format!("phase=\"{phase}\"")])
    };
    until("the first media to be told", || sum("count", "media") > 0.0);
    // The activator that the publisher came through knows the push only if KEDA listens to it.
    let phases = ["pod_created", "scheduled", "process_started", "registered", "handed_over", "live", "media"];
    for phase in phases {
        assert!((sum("count", phase) - 1.0).abs() < 0.5, "{phase}: {}", sum("count", phase));
    }
    // The Deployment may be scaled up before the watch has begun.
    let times = ["pushed", "scaled"].into_iter().chain(phases).map(|phase| (phase, sum("sum", phase)));
    let times: Vec<(&str, f64)> = times.collect();
    println!("phases of the cold start in seconds: {times:?}");
    let start: f64 = times.iter().filter(|(phase, _)| *phase != "media").map(|(_, time)| time).sum();
    assert!(start <= held && start > 0.5 * held, "phases of {start} s, held for {held} s: {times:?}");
    let ours = ["registered", "handed_over", "live"].iter().map(|phase| sum("sum", phase)).sum::<f64>();
    assert!(ours < sum("sum", "process_started"), "most of the time is the container's: {times:?}");
}
