//! More streams than a worker takes: the HPA adds workers, from one to one more and from ten to eleven, on a cluster without feature gates.

use std::time::Duration;

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::relay::ClusterRelay;
use liveedgecast_e2e::process::RunningProgram;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::wait::{now, until};
use serde_json::{Value, json};

use crate::Relays;

on_a_cluster! {
    the_hpa_alone_adds_the_second_and_the_eleventh_worker
}

/// Workers for a single stream each, small ones, and no watchdog that would be faster than the HPA.
fn one_stream_each() -> Installation {
    let triggers: Value = json!([{"type": "external-push", "metricType": "AverageValue", "metadata":
        {"scalerAddress": "liveedgecast-scaler.liveedgecast.svc:6000", "target": "1"}}]);
    let container = json!({"name": "worker", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
    let small = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "liveedgecast-worker"},
        "spec": {"template": {"spec": {"containers": [container]}}}});
    let wanted = Installation::default().worker("CAPACITY", "1").activator("WORKER_DEPLOYMENT", "").patch(small);
    wanted.activator("MAX_WORKERS", "").keda("triggers", triggers)
}

fn the_hpa_alone_adds_the_second_and_the_eleventh_worker(relays: &Relays<'_>) {
    let relay = relays.installed(&one_stream_each());
    let mut publishers: Vec<RunningProgram> = Vec::new();
    for live in [1, 2, 10, 11] {
        let begun = now();
        while publishers.len() < live {
            let number = publishers.len();
            publishers.push(ffmpeg(Media::AudioOnly, &relay.url(&format!("live/{}", key(&format!("n{number}"))))));
        }
        until(format!("{live} streams at the upstream"), || streams(&relay) == live);
        println!("{live} live after {:?}; {:?} workers", begun_since(begun), relay.wanted_workers());
        assert!(relay.workers().len() >= live, "one for each");
    }
    publishers.iter_mut().for_each(|publisher| publisher.interrupt());
    relay.is_back_to_zero();
}

/// Number of streams that have media at the upstream.
fn streams(relay: &ClusterRelay<'_>) -> usize {
    let sessions = relay.sink.sessions();
    sessions.iter().filter(|session| session.ended.is_none() && session.recording.frames() > 5).count()
}

fn begun_since(begun: std::time::Instant) -> Duration {
    now().saturating_duration_since(begun)
}
