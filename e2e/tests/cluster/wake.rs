//! From zero to a stream in a pod, and back to zero.

use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Wanted;
use liveedgecast_e2e::cluster::watch::Watch;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes};
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::tap::Tap;
use serde_json::json;

use crate::Relays;

on_a_cluster! {
    the_first_publisher_wakes_a_pod_by_push
}

fn the_first_publisher_wakes_a_pod_by_push(relays: &Relays<'_>) {
    let relay = relays.installed(&Wanted::default());
    // A poll in five minutes: what wakes the worker is the push.
    relay.change_keda(&json!({"pollingInterval": 300}));
    assert!(relay.workers().is_empty());
    let pods = Watch::new(
        relay.api(),
        &format!("{}?labelSelector=app.kubernetes.io%2Fname%3Dliveedgecast-worker", path("pods")),
    );
    let tap = Tap::before(relay.socket());

    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("first"))));
    relay.sink.receives(100);
    let asked = tap.only().publisher.command_at("publish").expect("publish");
    let added = pods.first("a worker pod", |event| event.what == "ADDED");
    assert!(added.at > asked, "the worker's pod was there before publish");
    println!("publish to pod {:?}, to Publish.Start {:?}", added.at - asked, tap.only().held());
    assert_eq!(relay.workers().len(), 1);

    publisher.interrupt();
    let session = relay.sink.ended();
    assert!(session.said_goodbye(), "a clean end is passed on");
    assert_eq!((session.app.as_str(), &session.key), ("live", &key("first")));
    assert_arrived_whole(&tap.only().publisher.media, relay.sink.only().media());
    assert_decodes(relay.sink.only().media());

    relay.change_keda(&json!({"pollingInterval": 2}));
    relay.is_back_to_zero();
}
