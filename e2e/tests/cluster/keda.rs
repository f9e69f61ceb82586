//! KEDA itself stops and starts again.

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::compare::assert_arrived_whole;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::until;
use serde_json::json;

use crate::{Relays, ended, published, receives, receives_more};

on_a_cluster! {
    a_publisher_is_held_over_a_restart_of_keda
}

const OPERATORS: &str = "/api/v1/pods?labelSelector=app%3Dkeda-operator";

fn a_publisher_is_held_over_a_restart_of_keda(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default().without_watchdog());
    let tap = Tap::before(relay.socket());
    // KEDA is paused, so that the publisher is certainly held when KEDA stops.
    relay.pause_keda(true);
    let mut publisher = published(&tap, "held");
    tap.publish_asked();
    until("a stream that waits", || relay.streams().iter().any(|stream| stream["state"] == "waiting"));

    for pod in relay.api().list(OPERATORS) {
        let word = |name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
        let target = format!("/api/v1/namespaces/{}/pods/{}", word("namespace"), word("name"));
        relay.api().delete(&target, &json!({"gracePeriodSeconds": 0}));
    }
    relay.pause_keda(false);
    receives(&relay.sink, "held", 50);
    assert_eq!(tap.sessions().len(), 1, "connections of the publisher");
    println!("held for {:?}", tap.only().held());

    // KEDA, which has lost its state, sees the live stream and leaves its worker alone.
    until("KEDA to ask again", || relay.keda_listens());
    receives_more(&relay.sink, "held", 500);
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, ended(&relay.sink, "held").media());
    relay.is_back_to_zero();
}
