//! Two activators of which KEDA polls one: the demand of the other one is known to both, and served all the same.

use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::names::Remembering;
use liveedgecast_e2e::cluster::not_run;
use liveedgecast_e2e::cluster::pods::{Pod, Way};
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::cluster::watch::ObjectWatch;
use liveedgecast_e2e::process::{RunningProgram, is_alive, signal};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, now, until, until_some};
use rustix::process::Signal;
use serde_json::json;

use crate::{Relays, ended, published, receives, receives_more};

on_a_cluster! {
    a_publisher_at_the_activator_that_keda_does_not_listen_to_is_served_by_push
    a_publisher_is_served_while_the_activator_that_keda_listens_to_is_stopped
    activators_that_start_together_find_each_other_although_names_are_cached
}

/// The activator that has KEDA's push stream, and the other one.
struct Two {
    asked: Pod,
    other: Pod,
}

impl Two {
    #[track_caller]
    fn of(relay: &ClusterRelay<'_>) -> Self {
        until_some("two activators, one of them with KEDA's push stream", || {
            let pods = relay.activators();
            let [one, two] = <[Pod; 2]>::try_from(pods).ok()?;
            let streams = |pod: &Pod| relay.metric(pod, "liveedgecast_scaler_push_streams", &[]);
            match (streams(&one)? >= 1.0, streams(&two)? >= 1.0) {
                (true, false) => Some(Self { asked: one, other: two }),
                (false, true) => Some(Self { asked: two, other: one }),
                _ => None,
            }
        })
    }
}

/// A route to one activator, with a tap in front of it.
struct Entrance {
    tap: Tap,
    _way: Way,
}

impl Entrance {
    fn of(activator: &Pod) -> Self {
        let way = activator.way(1935);
        Self { tap: Tap::before(way.address), _way: way }
    }

    fn published(&self, name: &str) -> RunningProgram {
        published(&self.tap, name)
    }
}

/// Waiting and live streams that an activator reports.
fn demand(relay: &ClusterRelay<'_>, activator: &Pod) -> Option<(u64, u64)> {
    let demand = relay.ask(activator, "demand")?;
    Some((demand["waiting"].as_u64()?, demand["live"].as_u64()?))
}

fn a_publisher_at_the_activator_that_keda_does_not_listen_to_is_served_by_push(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    // KEDA polls every five minutes, so the push wakes the worker.
    relay.change_keda(&json!({"pollingInterval": 300}));
    let two = Two::of(&relay);
    let entrance = Entrance::of(&two.other);
    let mut publisher = entrance.published("other");
    receives(&relay.sink, "other", 20);
    println!("publish to Publish.Start {:?}", entrance.tap.only().held());
    for activator in [&two.asked, &two.other] {
        until("each to count it once", || demand(&relay, activator) == Some((0, 1)));
    }
    // The other activator refuses a second publisher of the stream.
    let second_entrance = Entrance::of(&two.asked);
    let mut second = second_entrance.published("other");
    assert!(!second.wait(SOON).success(), "a second publisher is taken");
    receives_more(&relay.sink, "other", 20);
    publisher.interrupt();
    ended(&relay.sink, "other");
    for activator in [&two.asked, &two.other] {
        until("both to forget it", || demand(&relay, activator) == Some((0, 0)));
    }
}

/// KEDA waits for answers without a deadline, so it does nothing while the activator that it polls is stopped. The watchdog scales instead.
fn a_publisher_is_served_while_the_activator_that_keda_listens_to_is_stopped(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let two = Two::of(&relay);
    let Some(stopped) = two.asked.process() else {
        not_run("an activator that is stopped", "its process is not to be seen from this machine");
        return;
    };
    let entrance = Entrance::of(&two.other);
    let workers = format!("{}?labelSelector=app.kubernetes.io%2Fname%3Dliveedgecast-worker", path("pods"));
    let pods = ObjectWatch::new(relay.api(), &workers);
    let halt = Halt::of(stopped);
    let mut publisher = entrance.published("stopped");
    receives(&relay.sink, "stopped", 20);
    let tapped = entrance.tap.only();
    let asked = tapped.publisher.command_at("publish").expect("publish");
    let waited = pods.first("a worker's pod", |event| event.what == "ADDED").at.saturating_duration_since(asked);
    println!("publish to pod {waited:?}, to Publish.Start {:?}", tapped.held());
    // KEDA alone would take until kubelet kills the activator, which does not answer its probes.
    assert!(waited.as_secs() < 10, "{waited:?}");
    drop(halt);
    for activator in [&two.asked, &two.other] {
        until("both to count it once, in touch again", || {
            demand(&relay, activator) == Some((0, 1))
                && relay.metric(activator, "liveedgecast_peers", &["state=\"synced\""]) == Some(1.0)
        });
    }
    publisher.interrupt();
    ended(&relay.sink, "stopped");
    for activator in [&two.asked, &two.other] {
        until("both to forget it", || demand(&relay, activator) == Some((0, 0)));
    }
}

/// A process that stays stopped until the guard is dropped.
struct Halt(u32);

impl Halt {
    fn of(process: u32) -> Self {
        signal(process, Signal::STOP);
        Self(process)
    }
}

impl Drop for Halt {
    fn drop(&mut self) {
        if is_alive(self.0) {
            signal(self.0, Signal::CONT);
        }
    }
}

fn activators_that_start_together_find_each_other_although_names_are_cached(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let Some(_names) = Remembering::on(relays.cluster) else {
        not_run(
            "names that are remembered for half a minute",
            "the cluster's names do not come from a CoreDNS that we know",
        );
        return;
    };
    relay.scale_activators(0);
    until("the last activator to go", || relay.activators().is_empty());
    relay.scale_activators(2);
    let pods = until_some("two activators that serve", || {
        let pods = relay.activators();
        let serve = |pod: &Pod| relay.ask(pod, "workers").is_some();
        (pods.len() == 2 && pods.iter().all(serve)).then_some(pods)
    });
    let begun = now();
    let entrances = [Entrance::of(&pods[0]), Entrance::of(&pods[1])];
    let names = ["one", "two"];
    let _publishers = [0, 1].map(|number| entrances[number].published(names[number]));
    for name in names {
        receives(&relay.sink, name, 20);
    }
    let held: Vec<_> = entrances.iter().map(|entrance| entrance.tap.only().held()).collect();
    println!("held {held:?}");
    for pod in &pods {
        until("activators to hear each other", || {
            relay.metric(pod, "liveedgecast_peers", &["state=\"synced\""]) == Some(1.0)
        });
        until("each to count both", || demand(&relay, pod) == Some((0, 2)));
    }
    let spent = now() - begun;
    assert!(spent.as_secs() < 28, "by names alone: {spent:?}");
}
