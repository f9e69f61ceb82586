//! The number of workers when not only KEDA sets it: the activators' watchdog, and idle workers that leave while others are busy.

use std::time::Duration;

use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::not_run;
use liveedgecast_e2e::cluster::pods::Pod;
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::process::{RunningProgram, signal};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{until, until_some};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{Relays, ended, published, receives, receives_more, sessions_of};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

on_a_cluster! {
    a_publisher_gets_a_worker_while_keda_does_nothing
    an_idle_worker_leaves_and_the_busy_one_stays_although_it_is_newer
    an_idle_worker_that_may_leave_is_reused_before_another_is_started
    while_an_activator_is_stopped_the_other_one_wakes_a_worker
}

fn a_publisher_gets_a_worker_while_keda_does_nothing(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let patched = || relay.sum("liveedgecast_watchdog_total", &["result=\"patched\""]);
    let before = patched();
    relay.pause_keda(true);
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "unseen");
    receives(&relay.sink, "unseen", 50);
    let held = tap.only().held().expect("it was held");
    println!("held for {held:?}");
    assert!(held >= Duration::from_secs(5), "the watchdog acted too early: {held:?}");
    assert_eq!(patched() - before, 1.0, "one activator has acted, once");
    assert_eq!((relay.wanted_workers(), relay.workers().len()), (Some(1), 1));

    publisher.interrupt();
    ended(&relay.sink, "unseen");
    relay.pause_keda(false);
    relay.is_back_to_zero();
}

/// A stream, and the worker that has it.
struct Busy {
    name: String,
    tap: Tap,
    publisher: RunningProgram,
    worker: String,
}

/// Publishes another stream and waits until a worker other than `other` has it.
fn publish(relay: &ClusterRelay<'_>, name: String, other: &str) -> Busy {
    let tap = Tap::before(relay.socket());
    let publisher = published(&tap, &name);
    receives(&relay.sink, &name, 50);
    let worker = until_some("the worker of a stream", || {
        let streams = relay.streams();
        streams.iter().filter_map(|stream| stream["worker"].as_str()).find(|worker| *worker != other).map(str::to_owned)
    });
    Busy { name, tap, publisher, worker }
}

fn while_an_activator_is_stopped_the_other_one_wakes_a_worker(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let mut activators = relay.activators();
    activators.sort_by(|one, other| one.name.cmp(&other.name));
    let [first, other] = &activators[..] else { panic!("two activators, not {}", activators.len()) };
    // The activator with the smaller name acts.
    let Some(process) = first.process() else {
        return not_run("the stopped activator", "this machine is not its node");
    };
    relay.pause_keda(true);
    let way = other.way(1935);
    let tap = Tap::before(way.address);
    signal(process, Signal::STOP);
    let mut publisher = published(&tap, "other");
    receives(&relay.sink, "other", 50);
    signal(process, Signal::CONT);
    println!("held for {:?}", tap.only().held());
    assert_eq!(relay.metric(other, "liveedgecast_watchdog_total", &["result=\"patched\""]), Some(1.0));
    assert_eq!(relay.wanted_workers(), Some(1));
    publisher.interrupt();
    ended(&relay.sink, "other");
    relay.pause_keda(false);
    relay.is_back_to_zero();
    relays.are_used_up();
}

/// Workers for a single stream each, and the component `thrifty`, with `down` as the HPA's `scaleDown`.
fn thrifty<'a>(relays: &'a Relays<'a>, down: &Value) -> ClusterRelay<'a> {
    let wanted = Installation::default()
        .with("--with thrifty")
        .activator("CAPACITY", "1")
        .activator("COOLDOWN", "2s")
        .worker("CAPACITY", "1");
    let relay = relays.installed(&wanted);
    let scaled = format!("{}/liveedgecast-worker", path("scaledobjects"));
    let mut spec = relay.api().get(&scaled).expect("the ScaledObject")["spec"].take();
    assert_eq!(spec["triggers"][0]["metadata"]["scaleIn"], "idle");
    spec["triggers"][0]["metadata"]["target"] = json!("1");
    spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] = down.clone();
    relay.change_keda(&spec);
    relay
}

fn an_idle_worker_that_may_leave_is_reused_before_another_is_started(relays: &Relays<'_>) {
    // The HPA does not act on the lower number, so the worker stays although it may leave.
    let relay = thrifty(relays, &json!({"selectPolicy": "Disabled"}));
    let mut first = publish(&relay, "first".to_owned(), "");
    let mut second = publish(&relay, "second".to_owned(), &first.worker);
    first.publisher.interrupt();
    ended(&relay.sink, "first");
    let says = |state: &str| {
        let all = relay.activators().into_iter().map(|pod| relay.ask(&pod, "workers").unwrap_or_default());
        all.clone().count() == 2
            && all.into_iter().all(|workers| {
                let workers = workers.as_array().cloned().unwrap_or_default();
                workers.iter().any(|worker| worker["name"] == *first.worker && worker["state"] == state)
            })
    };
    until("the idle worker to be one that may go", || says("leaving"));
    let cost = |pod: &Pod| pod.object["metadata"]["annotations"][DELETION_COST].as_str().map(str::to_owned);
    let costs: Vec<_> = relay.workers().iter().map(|pod| (pod.name == first.worker, cost(pod))).collect();
    assert!(costs.contains(&(true, Some("-1000".to_owned()))), "{costs:?}");

    let mut again = publish(&relay, "again".to_owned(), &second.worker);
    println!("held for {:?}", again.tap.only().held());
    assert_eq!(again.worker, first.worker);
    assert_eq!(relay.workers().len(), 2, "no other one was started");
    assert!(says("ready"));
    for busy in [&mut second, &mut again] {
        busy.publisher.interrupt();
        ended(&relay.sink, &busy.name);
    }
    relay.is_back_to_zero();
}

fn an_idle_worker_leaves_and_the_busy_one_stays_although_it_is_newer(relays: &Relays<'_>) {
    // The policy of the component, with a shorter period.
    let down = json!({"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}]});
    let relay = thrifty(relays, &down);
    let mut old = publish(&relay, "round-0".to_owned(), "");
    for round in 1..=5 {
        let mut new = publish(&relay, format!("round-{round}"), &old.worker);
        let created =
            |name: &str| relay.workers().iter().find(|pod| pod.name == name).map(|pod| pod.created().to_owned());
        assert!(created(&old.worker) <= created(&new.worker), "the busy one is the newest");
        old.publisher.interrupt();
        ended(&relay.sink, &old.name);
        until("the idle worker to go", || {
            let workers = relay.workers();
            let of = |name: &str| workers.iter().find(|pod| pod.name == name);
            assert!(of(&new.worker).is_some_and(|pod| !pod.is_going()), "round {round}: the busy one goes");
            of(&old.worker).is_none_or(Pod::is_going)
        });
        receives_more(&relay.sink, &new.name, 100);
        assert_eq!(sessions_of(&relay.sink, &new.name).len(), 1, "sessions of the one that stays");
        assert!(new.tap.only().left.is_none() && new.tap.only().closed.is_none(), "its publisher noticed");
        println!("round {round}: {} went, {} stayed", old.worker, new.worker);
        std::mem::swap(&mut old, &mut new);
    }
    old.publisher.interrupt();
    ended(&relay.sink, &old.name);
    relay.is_back_to_zero();
}
