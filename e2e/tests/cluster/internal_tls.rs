//! The component `internal-tls`: certificates of people's own authority between the pods, in a Secret as cert-manager writes it.

use std::time::Duration;

use liveedgecast_e2e::certificate::Authority;
use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::pods::Pod;
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::cluster::{kubectl, not_run, said};
use liveedgecast_e2e::compare::assert_arrived_whole;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{until, until_some};
use serde_json::json;

use crate::{Relays, ended, published, receives, receives_more, sessions_of};

on_a_cluster! {
    certificates_are_put_to_use_and_their_authority_replaced_under_live_streams
    workers_of_the_overlay_edge_show_certificates_and_get_sockets
}

const SECRET: &str = "liveedgecast-internal-tls";
const FOLDER: &str = "/etc/liveedgecast/internal-tls";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Puts a new certificate of an authority into the Secret; returns the content.
fn keep(relay: &ClusterRelay<'_>, secret: &str, by: &Authority, trusted: &[&Authority]) -> [(&'static str, String); 3] {
    let texts = by.process_texts(DAY, trusted);
    relay.keep_secret(secret, &texts.each_ref().map(|(name, text)| (*name, text.as_str())));
    texts
}

/// Puts a new certificate into the Secret and waits until all pods have the files.
fn renew(relay: &ClusterRelay<'_>, by: &Authority, trusted: &[&Authority]) {
    let texts = keep(relay, SECRET, by, trusted);
    let has = |pod: &Pod| {
        texts.iter().all(|(name, text)| pod.file(&format!("{FOLDER}/{name}")).is_some_and(|file| file == *text))
    };
    relay.secret_arrives("the certificate in all pods", || relay.activators().iter().chain(&relay.workers()).all(has));
}

/// Asserts that the stream has been live in one session and on one connection, ends it, and asserts that all of it has arrived.
fn ends_whole(
    relay: &ClusterRelay<'_>,
    tap: &Tap,
    name: &str,
    publisher: &mut liveedgecast_e2e::process::RunningProgram,
) {
    assert!(tap.only().closed.is_none(), "the publisher of {name} was disconnected");
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, ended(&relay.sink, name).media());
    assert_eq!(sessions_of(&relay.sink, name).len(), 1, "sessions of {name}");
}

/// The way of the handoff of the only stream, as the activator that holds its publisher tells it.
fn way_of_the_live_stream(relay: &ClusterRelay<'_>) -> String {
    until_some("the way of the handoff", || {
        let live = relay.streams().into_iter().find(|stream| stream["state"] == "live")?;
        Some(live["handoff"].as_str()?.to_owned())
    })
}

fn certificates_are_put_to_use_and_their_authority_replaced_under_live_streams(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let (ours, next) = (Authority::new(), Authority::new());
    let _ = keep(&relay, SECRET, &ours, &[&ours]);
    let output = relay.up_again(&["--with", "internal-tls"]);
    assert!(output.status.success(), "{}", said(&output));
    relay.is_rolled_out();

    // A worker from zero.
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "woken");
    receives(&relay.sink, "woken", 50);
    println!("held {:?}, with the files of a Secret in the worker's pod", tap.only().held());
    assert_eq!(way_of_the_live_stream(&relay), "link");
    if relay.activators().first().and_then(Pod::process).is_none() {
        return not_run(
            "the replacement of an authority",
            "pods run on another machine, where their files are not seen",
        );
    }

    // The authority is replaced in three steps, and streams begin and go on between them.
    renew(&relay, &ours, &[&ours, &next]);
    renew(&relay, &next, &[&ours, &next]);
    let between_tap = Tap::before(relay.socket());
    let mut between = published(&between_tap, "between");
    receives(&relay.sink, "between", 50);
    renew(&relay, &next, &[&next]);
    let later_tap = Tap::before(relay.socket());
    let mut later = published(&later_tap, "later");
    receives(&relay.sink, "later", 50);

    // A worker that knows the control secret and has a certificate of the former authority finds no activator.
    let _ = keep(&relay, "liveedgecast-stranger-tls", &ours, &[&ours, &next]);
    let stranger = stranger(&relay);
    let log = |pod: &str| said(&kubectl(&["logs", pod]));
    until("the stranger to be told", || log(&stranger).contains("\"certificate.refused\""));
    until("an activator to tell", || {
        relay.activators().iter().any(|pod| log(&pod.name).contains("\"certificate.refused\""))
    });
    for pod in relay.activators() {
        let workers = relay.ask(&pod, "workers").unwrap_or_default().to_string();
        assert!(workers.contains("liveedgecast-worker-") && !workers.contains(&stranger), "{workers}");
    }
    relay.api().delete(&format!("{}/{stranger}", path("pods")), &json!({"gracePeriodSeconds": 0}));

    for (name, tap, publisher) in
        [("later", &later_tap, &mut later), ("between", &between_tap, &mut between), ("woken", &tap, &mut publisher)]
    {
        receives_more(&relay.sink, name, 50);
        ends_whole(&relay, tap, name, publisher);
    }
    relays.are_used_up();
}

/// Starts a pod as the worker's Deployment does, with the certificate of another Secret; returns its name.
fn stranger(relay: &ClusterRelay<'_>) -> String {
    let deployment = relay.api().get(&format!("{}/liveedgecast-worker", path("deployments"))).expect("the Deployment");
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    for volume in spec["volumes"].as_array_mut().expect("volumes") {
        volume["secret"]["secretName"] = json!("liveedgecast-stranger-tls");
    }
    let name = "stranger";
    let metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": name}});
    relay.api().put(&path("pods"), &json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
    name.to_owned()
}

fn workers_of_the_overlay_edge_show_certificates_and_get_sockets(relays: &Relays<'_>) {
    // On loopback nothing is encrypted unless that is asked for.
    let wanted =
        Installation::default().with("--overlay edge").activator("ENCRYPTION", "on").worker("ENCRYPTION", "on");
    let relay = relays.installed(&wanted);
    let ours = Authority::new();
    let _ = keep(&relay, SECRET, &ours, &[&ours]);
    let output = relay.up_again(&["--overlay", "edge", "--with", "internal-tls"]);
    assert!(output.status.success(), "{}", said(&output));
    relay.is_rolled_out();
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "edge");
    receives(&relay.sink, "edge", 50);
    assert_eq!(way_of_the_live_stream(&relay), "descriptor");
    ends_whole(&relay, &tap, "edge", &mut publisher);
    relays.are_used_up();
}
