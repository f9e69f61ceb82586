//! Rollouts and deaths of activators. Streams pass through the activators here, so their publishers notice.

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::pods::Pod;
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::compare::{assert_arrived_whole, assert_decodes, assert_time_goes_forward};
use liveedgecast_e2e::process::{RunningProgram, kill};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until};
use serde_json::json;

use crate::{Relays, ended, published, receives, receives_more, sessions_of};

on_a_cluster! {
    a_rolled_activator_ends_its_streams_when_its_time_is_over
    a_rolled_activator_keeps_its_streams_until_they_end
    the_held_publisher_of_a_killed_activator_reconnects
    the_held_publisher_of_a_rolled_activator_is_asked_to_reconnect
    the_publisher_of_a_killed_activator_continues_through_another
}

fn a_rolled_activator_keeps_its_streams_until_they_end(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let tap = Tap::before(relay.socket());
    let mut live = published(&tap, "live");
    receives(&relay.sink, "live", 50);
    let old = relay.holder();

    relay.restart("activator");
    until("the activator to take no more publishers", || {
        relay.activators().iter().any(|it| it.uid() == old.uid() && it.is_going()) && !takes_publishers(&relay, &old)
    });
    until("the other one to be replaced, too", || {
        relay.activators().iter().filter(|pod| pod.is_ready() && !pod.is_going()).count() == 2
    });
    receives_more(&relay.sink, "live", 100);
    assert!(tap.only().closed.is_none(), "the publisher noticed");

    // New activators serve new publishers.
    let tap_of_new = Tap::before(relay.socket());
    let mut new = published(&tap_of_new, "new");
    receives(&relay.sink, "new", 50);
    receives_more(&relay.sink, "live", 50);
    let holders: Vec<Pod> = relay.activators().into_iter().filter(|pod| relay.publishers(pod) > 0).collect();
    assert_eq!(holders.len(), 2);
    assert!(holders.iter().all(|pod| pod.is_going() == (pod.uid() == old.uid())), "who holds the publishers");

    for (publisher, tap, name) in [(&mut live, &tap, "live"), (&mut new, &tap_of_new, "new")] {
        publisher.interrupt();
        assert_arrived_whole(&tap.only().publisher.media, ended(&relay.sink, name).media());
    }
    relay.is_rolled_out();
}

fn takes_publishers(relay: &ClusterRelay<'_>, pod: &Pod) -> bool {
    relay.api().of_pod(&pod.name, 8080, "/readyz").is_some()
}

fn a_rolled_activator_ends_its_streams_when_its_time_is_over(relays: &Relays<'_>) {
    let containers = json!([{"name": "activator", "env": [{"name": "DRAIN_TIMEOUT", "value": "5s"}]}]);
    let spec = json!({"template": {"spec": {"terminationGracePeriodSeconds": 15, "containers": containers}}});
    let metadata = json!({"name": "liveedgecast-activator"});
    let patch = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
    let relay = relays.installed(&Installation::default().patch(patch));
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "cut");
    receives(&relay.sink, "cut", 50);
    relay.delete(&relay.holder());
    publisher.wait(SOON);
    assert!(ended(&relay.sink, "cut").said_goodbye());
    // Encoders reconnect by themselves; ffmpeg is started again.
    let mut publisher = comes_again(&tap, "cut");
    until("a session of its own", || sessions_of(&relay.sink, "cut").len() == 2);
    receives(&relay.sink, "cut", 100);
    publisher.interrupt();
    assert_decodes(ended(&relay.sink, "cut").media());
    relay.is_rolled_out();
}

fn the_publisher_of_a_killed_activator_continues_through_another(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "cut");
    receives(&relay.sink, "cut", 50);
    kill_activator(&relay, &relay.holder());
    publisher.wait(SOON);
    let mut publisher = comes_again(&tap, "cut");
    receives_more(&relay.sink, "cut", 100);
    publisher.interrupt();
    let session = ended(&relay.sink, "cut");
    assert_eq!(sessions_of(&relay.sink, "cut").len(), 1, "sessions at the upstream");
    assert_time_goes_forward(session.media());
    assert_decodes(session.media());
    relays.are_used_up();
}

fn the_held_publisher_of_a_killed_activator_reconnects(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default().without_watchdog());
    held_and_then(&relay, |holder| kill_activator(&relay, holder));
    relays.are_used_up();
}

fn the_held_publisher_of_a_rolled_activator_is_asked_to_reconnect(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default().without_watchdog());
    held_and_then(&relay, |holder| relay.delete(holder));
}

/// Lets something happen to the activator that holds a publisher; the publisher then returns and is served.
pub(crate) fn held_and_then(relay: &ClusterRelay<'_>, happens: impl Fn(&Pod)) {
    let tap = Tap::before(relay.socket());
    relay.pause_keda(true);
    let mut publisher = published(&tap, "held");
    tap.publish_asked();
    happens(&relay.holder());
    publisher.wait(SOON);
    assert!(relay.sink.sessions().is_empty(), "no worker was woken");
    relay.pause_keda(false);
    let mut publisher = comes_again(&tap, "held");
    receives(&relay.sink, "held", 50);
    publisher.interrupt();
    ended(&relay.sink, "held");
    let connection = tap.last().expect("a connection");
    assert_arrived_whole(&connection.publisher.media, sessions_of(&relay.sink, "held")[0].media());
    relay.is_rolled_out();
}

pub(crate) fn kill_activator(relay: &ClusterRelay<'_>, pod: &Pod) {
    match pod.process() {
        Some(process) => kill(process),
        // The pod's node is another machine: a kill without grace is the closest that the API offers.
        None => relay.kill(pod),
    }
}

/// Publishes again until the publisher is accepted: the Service may lead to the dead activator for a moment.
fn comes_again(tap: &Tap, name: &str) -> RunningProgram {
    let before = tap.sessions().len();
    let mut publisher = published(tap, name);
    until("another connection to start", || {
        if !publisher.is_running() {
            publisher = published(tap, name);
        }
        tap.sessions().len() > before
            && tap.last().is_some_and(|it| it.server.started_at().is_some() && it.closed.is_none())
    });
    publisher
}
