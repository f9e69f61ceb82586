//! KEDA itself stops and starts again; its object is compared with the settings of activators.

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::{NAMESPACE, kubectl, said};
use liveedgecast_e2e::compare::assert_arrived_whole;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::until;
use serde_json::{Value, json};

use crate::{Relays, ended, published, receives, receives_more};

on_a_cluster! {
    a_publisher_is_held_over_a_restart_of_keda
    check_compares_the_scaled_object_that_is_in_force
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

fn check_compares_the_scaled_object_that_is_in_force(relays: &Relays<'_>) {
    // The other scenarios' cool-down is shorter than the time for which a lost publisher is waited for, which is a finding.
    let relay = relays.installed(&Installation::default().keda("cooldownPeriod", json!(300)));
    let activator = relay.activators().remove(0).name;
    // In the pod the settings, the account and its rights are those of the gateway.
    let check = |object: &str| {
        let words = [
            "exec",
            &activator,
            "--",
            "/liveedgecast-activator",
            "check",
            "--offline",
            "--json",
            "--kubernetes",
            object,
        ];
        let output = kubectl(&words);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        let of_object = |finding: &&Value| finding["part"] == "scaledobject";
        let texts = found["findings"].as_array().into_iter().flatten().filter(of_object);
        let lines = texts.map(|finding| format!("{} {}", finding["subject"], finding["text"])).collect::<Vec<_>>();
        (lines, found["good"].to_string())
    };
    for object in ["liveedgecast-worker".to_owned(), format!("{NAMESPACE}/liveedgecast-worker")] {
        let (lines, good) = check(&object);
        assert!(lines.is_empty(), "{lines:?}");
        assert!(good.contains("scaledobject: fits") && good.contains("was read from the Kubernetes API"), "{good}");
    }
    relay.change_keda(&json!({"maxReplicaCount": 7}));
    let (lines, _) = check("liveedgecast-worker");
    assert!(lines.len() == 1 && lines[0].contains("maxReplicaCount") && lines[0].contains("is 7"), "{lines:?}");
    // The role lets activators read this one object.
    let (lines, _) = check("another");
    assert!(
        lines.len() == 1 && lines[0].contains("refuses") && lines[0].contains("`get` `scaledobjects`"),
        "{lines:?}"
    );
}
