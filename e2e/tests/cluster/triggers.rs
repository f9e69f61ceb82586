//! Triggers beside the push, each as its component has it and each alone, under the running KEDA, and the push with TLS; the watchdog is
//! off.
#![expect(clippy::disallowed_methods, reason = "the hours of cron are of the wall clock")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::cluster::{NAMESPACE, not_run, said};
use liveedgecast_e2e::prometheus::Prometheus;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::wait::{until, until_some};
use serde_json::{Value, json};

use crate::Relays;

on_a_cluster! {
    a_worker_is_warm_in_the_hours_of_cron
    metrics_api_alone_wakes_a_pod_by_poll
    prometheus_alone_wakes_a_pod_whose_usage_is_measured
    with_tls_keda_is_pushed_to_and_plaintext_clients_are_not_answered
}

/// An installation without the watchdog, so that only KEDA scales.
fn unwatched() -> Installation {
    Installation::default().activator("WORKER_DEPLOYMENT", "").activator("MAX_WORKERS", "")
}

/// An installation with the triggers that need no further software.
fn wanted() -> Installation {
    unwatched().with("--with cron --with metrics-api")
}

/// The triggers as the components have them.
struct Triggers<'a> {
    relay: &'a ClusterRelay<'a>,
    all: Vec<Value>,
}

impl<'a> Triggers<'a> {
    fn of(relay: &'a ClusterRelay<'a>) -> Self {
        let all = object(relay)["spec"]["triggers"].as_array().cloned().unwrap_or_default();
        Self { relay, all }
    }

    /// The trigger of a type.
    fn one(&self, kind: &str) -> Value {
        self.all.iter().find(|it| it["type"] == kind).expect("the trigger of a component").clone()
    }

    /// Removes all other triggers, and waits until KEDA applies that: it has then named the first of them.
    fn only(&self, triggers: &[Value], first: &str) {
        let scaled = format!("{}/liveedgecast-worker", path("scaledobjects"));
        let _ = self.relay.api().patch(&scaled, &json!({"spec": {"triggers": triggers}}));
        until(format!("KEDA to take {first}"), || {
            let names = object(self.relay)["status"]["externalMetricNames"].clone();
            names
                .as_array()
                .is_some_and(|names| names.len() == 1 && names[0].as_str().is_some_and(|it| it.starts_with(first)))
        });
        until("the push to end", || self.relay.sum("liveedgecast_scaler_push_streams", &[]) == 0.0);
    }
}

fn object(relay: &ClusterRelay<'_>) -> Value {
    until_some("the ScaledObject", || relay.api().get(&format!("{}/liveedgecast-worker", path("scaledobjects"))))
}

/// Waits until KEDA reports the trigger as active, or as inactive.
fn is_active(relay: &ClusterRelay<'_>, trigger: &str, expected: bool) {
    until(format!("{trigger} to be shown as active: {expected}"), || {
        let status = object(relay)["status"].take();
        let activity = status["triggersActivity"].as_object().cloned().unwrap_or_default();
        let mut ours = activity.iter().filter(|(name, _)| name.starts_with(trigger));
        ours.next().is_some_and(|(_, it)| it["isActive"].as_bool().unwrap_or(false) == expected)
    });
}

/// The value of a trigger that the HPA receives.
fn external_metric(relay: &ClusterRelay<'_>, name: &str) -> Option<String> {
    let selector = "labelSelector=scaledobject.keda.sh%2Fname%3Dliveedgecast-worker";
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{name}?{selector}");
    Some(relay.api().get(&path)?["items"][0]["value"].as_str()?.to_owned())
}

fn metrics_api_alone_wakes_a_pod_by_poll(relays: &Relays<'_>) {
    let relay = relays.installed(&wanted());
    let triggers = Triggers::of(&relay);
    triggers.only(&[triggers.one("metrics-api")], "s0-metric-api-value");
    relay.is_back_to_zero();
    let calls = || relay.sum("liveedgecast_scaler_calls_total", &[]);
    let before = calls();

    let mut publisher = ffmpeg(Media::Both, &relay.url(&format!("live/{}", key("polled"))));
    relay.sink.receives(100);
    is_active(&relay, "s0-metric-api-value", true);
    until("the HPA to hear of one worker's streams", || {
        external_metric(&relay, "s0-metric-api-value").as_deref() == Some("50")
    });
    assert!((calls() - before).abs() < 0.5, "KEDA has asked by gRPC");

    publisher.interrupt();
    assert!(relay.sink.ended().said_goodbye());
    relay.is_back_to_zero();
    is_active(&relay, "s0-metric-api-value", false);
}

fn prometheus_alone_wakes_a_pod_whose_usage_is_measured(relays: &Relays<'_>) {
    let mut prometheus = Prometheus::start(relays.cluster.host);
    let from = "http://prometheus.monitoring.svc:9090";
    let wanted = unwatched().edited("prometheus/keda", from, &prometheus.url());
    let relay = relays.installed(&wanted.with("--with cpu --with prometheus"));
    let triggers = Triggers::of(&relay);
    prometheus.asks(&relay.activators(), relay.api());
    until("Prometheus to have asked", || prometheus.knows("max(liveedgecast_cluster_demand)") == Some(0.0));
    let asked = triggers.one("prometheus");
    triggers.only(std::slice::from_ref(&asked), "s0-prometheus");
    relay.is_back_to_zero();

    let mut publisher = ffmpeg(Media::Both, &relay.url(&format!("live/{}", key("scraped"))));
    relay.sink.receives(100);
    is_active(&relay, "s0-prometheus", true);
    until("the HPA to hear of one stream", || external_metric(&relay, "s0-prometheus").as_deref() == Some("1"));

    let available = relay.api().get("/apis/metrics.k8s.io/v1beta1/nodes").is_some();
    if available {
        triggers.only(&[asked, triggers.one("cpu"), triggers.one("memory")], "s0-prometheus");
        let hpa = format!("{}/keda-hpa-liveedgecast-worker", path("horizontalpodautoscalers"));
        until("the HPA to know what the worker uses", || {
            let current = relay.api().get(&hpa).map(|mut hpa| hpa["status"]["currentMetrics"].take());
            let current = current.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
            ["cpu", "memory"].into_iter().all(|what| {
                let is = |it: &&Value| {
                    it["resource"]["name"] == what && it["resource"]["current"]["averageValue"].is_string()
                };
                current.iter().any(|it| is(&it))
            })
        });
    } else {
        not_run("the CPU and memory triggers", "the cluster has no metrics-server");
    }
    publisher.interrupt();
    assert!(relay.sink.ended().said_goodbye());
    relay.is_back_to_zero();
    is_active(&relay, "s0-prometheus", false);
}

fn with_tls_keda_is_pushed_to_and_plaintext_clients_are_not_answered(relays: &Relays<'_>) {
    let relay = relays.installed(&unwatched().with("--with scaler-tls"));
    // KEDA polls every five minutes, so the push wakes the worker.
    relay.change_keda(&json!({"pollingInterval": 300}));
    let mut publisher = ffmpeg(Media::Both, &relay.url(&format!("live/{}", key("proven"))));
    relay.sink.receives(100);
    for activator in relay.activators() {
        let way = activator.way(6000);
        let mut stranger = TcpStream::connect(way.address).expect("the scaler");
        stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("a preface in the clear");
        let mut answer = [0];
        // The server answers with an alert of TLS, or closes.
        assert!(stranger.read(&mut answer).unwrap_or(0) == 0 || answer == [0x15], "{answer:?}");
    }
    publisher.interrupt();
    assert!(relay.sink.ended().said_goodbye());
    let again = relay.up_again(&["--with", "scaler-tls", "--take-over"]);
    assert!(again.status.success(), "up.sh again: {}", said(&again));
    assert!(!said(&again).contains("certificate"), "made anew: {}", said(&again));
}

fn a_worker_is_warm_in_the_hours_of_cron(relays: &Relays<'_>) {
    let relay = relays.installed(&wanted());
    let triggers = Triggers::of(&relay);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / 60;
    let between = |from: i64, to: i64| {
        let at = |hours: i64| {
            let minute = now.saturating_add_signed(hours * 60) % (24 * 60);
            format!("{} {} * * *", minute % 60, minute / 60)
        };
        let mut trigger = triggers.one("cron");
        trigger["metadata"]["start"] = at(from).into();
        trigger["metadata"]["end"] = at(to).into();
        trigger
    };
    triggers.only(&[between(10, 11)], "s0-cron");
    relay.is_back_to_zero();
    is_active(&relay, "s0-cron", false);

    triggers.only(&[between(-1, 1)], "s0-cron");
    until("a warm worker", || relay.workers().iter().any(|pod| pod.is_running() && !pod.is_going()));
    is_active(&relay, "s0-cron", true);
    assert!(relay.is_idle(), "a publisher is connected");

    triggers.only(&[between(10, 11)], "s0-cron");
    relay.is_back_to_zero();
    is_active(&relay, "s0-cron", false);
}
