//! How many workers there are when it is not KEDA alone that says so: our own watchdog, and idle ones that go while others are busy.

use std::time::Duration;

use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Wanted;
use liveedgecast_e2e::cluster::pods::Pod;
use liveedgecast_e2e::cluster::relay::Relay;
use liveedgecast_e2e::process::Process;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{until, until_some};
use serde_json::json;

use crate::{Relays, ended, published, receives, receives_more, sessions_of};

on_a_cluster! {
    a_publisher_gets_a_worker_though_keda_does_nothing
    an_idle_worker_goes_and_the_busy_one_stays_though_it_is_the_newest
}

fn a_publisher_gets_a_worker_though_keda_does_nothing(relays: &Relays<'_>) {
    let relay = relays.installed(&Wanted::default());
    let patched = || relay.sum("liveedgecast_watchdog_total", &["outcome=\"patched\""]);
    let before = patched();
    relay.pause_keda(true);
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "unseen");
    receives(&relay.sink, "unseen", 50);
    let held = tap.only().held().expect("it was held");
    println!("held for {held:?}");
    assert!(held >= Duration::from_secs(5), "nobody else was given the time: {held:?}");
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
    publisher: Process,
    worker: String,
}

/// One more stream, on another worker than this one.
fn publish(relay: &Relay<'_>, name: String, other: &str) -> Busy {
    let tap = Tap::before(relay.socket());
    let publisher = published(&tap, &name);
    receives(&relay.sink, &name, 50);
    let worker = until_some("the worker of a stream", || {
        let streams = relay.streams();
        streams.iter().filter_map(|stream| stream["worker"].as_str()).find(|worker| *worker != other).map(str::to_owned)
    });
    Busy { name, tap, publisher, worker }
}

fn an_idle_worker_goes_and_the_busy_one_stays_though_it_is_the_newest(relays: &Relays<'_>) {
    let wanted = Wanted::default()
        .with("--with thrifty")
        .activator("CAPACITY", "1")
        .activator("COOLDOWN", "2s")
        .worker("CAPACITY", "1");
    let relay = relays.installed(&wanted);
    // As the component has it, but sooner.
    let scaled = format!("{}/liveedgecast-worker", path("scaledobjects"));
    let mut spec = relay.api().get(&scaled).expect("the ScaledObject")["spec"].take();
    assert_eq!(spec["triggers"][0]["metadata"]["scaleIn"], "idle");
    spec["triggers"][0]["metadata"]["target"] = json!("1");
    let down = json!({"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}]});
    spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] = down;
    relay.change_keda(&spec);

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
