//! The installation of LiveEdgeCast on the cluster, for one scenario. In: names of pods, metrics, changes. Out: answers of each activator,
//! the state of KEDA and of the Deployments.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cluster::api::{ClusterApi, path};
use crate::cluster::install::{Standing, up};
use crate::cluster::pods::Pod;
use crate::cluster::watch::ObjectWatch;
use crate::cluster::{KubernetesCluster, door, kubectl, said};
use crate::http;
use crate::sink::Sink;
use crate::wait::{try_until, until, until_some};

/// LiveEdgeCast on the cluster, for one scenario.
#[derive(Clone, Debug)]
pub struct ClusterRelay<'a> {
    cluster: &'a KubernetesCluster,
    /// The upstream, unless [`Self::pushes_to`] has set another.
    pub sink: Sink,
    /// Output of `up.sh`.
    pub told: String,
    copy: PathBuf,
}

impl<'a> ClusterRelay<'a> {
    pub(super) fn of(cluster: &'a KubernetesCluster, standing: &Standing, sink: &Sink) -> Self {
        let copy = standing.copy.clone();
        Self { cluster, sink: sink.clone(), told: standing.told.clone(), copy }
    }

    /// The API of the cluster.
    #[must_use]
    pub fn api(&self) -> &'a ClusterApi {
        &self.cluster.api
    }

    /// Sets another upstream on this machine.
    pub fn pushes_to(&self, upstream: SocketAddr) {
        let _ = door::to(upstream, self.cluster.host);
    }

    /// `HOST:PORT` or `HOST` at which `up.sh` told people to publish.
    ///
    /// # Panics
    /// The output names no address.
    #[must_use]
    #[track_caller]
    pub fn address(&self) -> &str {
        let told = self.told.lines().find_map(|line| line.strip_prefix("publish to    rtmp://"));
        told.and_then(|rest| rest.split('/').next()).unwrap_or_else(|| panic!("no address: {}", self.told))
    }

    /// The URL for a publisher.
    #[must_use]
    #[track_caller]
    pub fn url(&self, app_and_key: &str) -> String {
        format!("rtmp://{}/{app_and_key}", self.address())
    }

    /// The address to publish to, resolved, for a [`crate::tap::Tap`].
    ///
    /// # Panics
    /// The name does not resolve.
    #[must_use]
    #[track_caller]
    pub fn socket(&self) -> SocketAddr {
        let address = self.address();
        let with_port = if address.contains(':') { address.to_owned() } else { format!("{address}:1935") };
        with_port.to_socket_addrs().ok().and_then(|mut all| all.next()).expect("an address to publish to")
    }

    /// Runs `up.sh` again with the same arguments and further ones.
    #[must_use]
    pub fn up_again(&self, arguments: &[&str]) -> Output {
        let open: &[&str] = if self.told.contains("everybody may publish") { &["--open"] } else { &[] };
        let arguments = [&["--image", &self.cluster.image][..], open, arguments].concat();
        up(&self.copy.join("tools"), &arguments, &[])
    }

    fn pods(&self, of: &str) -> Vec<Pod> {
        self.cluster.api.list(&pods_of(of)).into_iter().map(Pod::new).collect()
    }

    /// The activators, including those that are terminating.
    #[must_use]
    pub fn activators(&self) -> Vec<Pod> {
        self.pods("activator")
    }

    /// The workers, including those that are terminating.
    #[must_use]
    pub fn workers(&self) -> Vec<Pod> {
        self.pods("worker")
    }

    /// The answer of an activator at `/api/v1/…`.
    #[must_use]
    pub fn ask(&self, activator: &Pod, what: &str) -> Option<Value> {
        serde_json::from_str(&self.cluster.api.within_pod(&activator.name, 8080, &format!("/api/v1/{what}"))?).ok()
    }

    /// A metric of an activator.
    #[must_use]
    pub fn metric(&self, activator: &Pod, name: &str, labels: &[&str]) -> Option<f64> {
        http::metric(&self.cluster.api.of_pod(&activator.name, 8080, "/metrics")?, name, labels)
    }

    /// A metric, summed over all activators that answer.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.activators().iter().filter_map(|pod| self.metric(pod, name, labels)).sum()
    }

    /// The streams that the activators report: each reports all live ones.
    #[must_use]
    pub fn streams(&self) -> Vec<Value> {
        let mut streams: Vec<Value> = Vec::new();
        for told in self.activators().iter().filter_map(|pod| self.ask(pod, "streams")) {
            for stream in told.as_array().into_iter().flatten() {
                // Every activator lists every stream, and the one that holds the publisher knows the way of its handoff.
                match streams.iter_mut().find(|known| known["id"] == stream["id"]) {
                    Some(known) if known["handoff"].is_null() => *known = stream.clone(),
                    Some(_) => {}
                    None => streams.push(stream.clone()),
                }
            }
        }
        streams
    }

    /// Number of publishers that are connected to an activator, waiting or live.
    #[must_use]
    pub fn publishers(&self, activator: &Pod) -> u64 {
        let states = ["state=\"waiting\"", "state=\"live\""];
        states.iter().filter_map(|state| self.metric(activator, "liveedgecast_streams", &[state])).sum::<f64>() as u64
    }

    /// The activator that the publishers are connected to, if it is the only one with publishers.
    ///
    /// # Panics
    /// No activator has a publisher, or several have.
    #[must_use]
    #[track_caller]
    pub fn holder(&self) -> Pod {
        let mut holders = until_some("an activator that has a publisher", || {
            let holders: Vec<Pod> = self.activators().into_iter().filter(|pod| self.publishers(pod) > 0).collect();
            (!holders.is_empty()).then_some(holders)
        });
        assert_eq!(holders.len(), 1, "activators that have publishers");
        holders.remove(0)
    }

    /// True if every activator is ready, none is terminating, and each reports no demand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let activators = self.activators();
        let zero = |pod: &Pod| self.ask(pod, "demand").is_some_and(|demand| demand["demand"] == 0);
        !activators.is_empty() && activators.iter().all(|pod| !pod.is_going() && pod.is_ready() && zero(pod))
    }

    /// True if KEDA has its push stream open and knows the metric.
    #[must_use]
    pub fn keda_listens(&self) -> bool {
        let object = self.cluster.api.get(&format!("{}/liveedgecast-worker", path("scaledobjects")));
        let knows =
            object.is_some_and(|it| it["status"]["externalMetricNames"].as_array().is_some_and(|it| !it.is_empty()));
        knows && self.sum("liveedgecast_scaler_push_streams", &[]) >= 1.0
    }

    /// Changes the spec of the ScaledObject, and waits until KEDA applies it. The next scenario finds the spec as `up.sh` left it.
    ///
    /// # Panics
    /// KEDA does not accept the change.
    #[track_caller]
    pub fn change_keda(&self, spec: &Value) {
        let calls = || self.sum("liveedgecast_scaler_calls_total", &["call=\"StreamIsActive\""]);
        let before = calls();
        let scaled = format!("{}/liveedgecast-worker", path("scaledobjects"));
        let generation = |object: &Value| object["metadata"]["generation"].as_u64();
        let was = self.cluster.api.get(&scaled).as_ref().and_then(generation);
        let is = self.cluster.api.patch(&scaled, &json!({"spec": spec}));
        if generation(&is) != was {
            // KEDA starts its scaler anew, and with it the push stream.
            until("KEDA to take a changed ScaledObject", || calls() > before && self.keda_listens());
        }
    }

    /// Replicas that the Deployment of workers should have.
    #[must_use]
    pub fn wanted_workers(&self) -> Option<u64> {
        let deployment = self.cluster.api.get(&format!("{}/liveedgecast-worker", path("deployments")))?;
        deployment["spec"]["replicas"].as_u64()
    }

    /// Sets the replicas of the workers' Deployment to 0, as `kubectl scale` does.
    pub fn scale_to_zero(&self) {
        if self.wanted_workers() != Some(0) {
            let scale = format!("{}/liveedgecast-worker/scale", path("deployments"));
            let _ = self.cluster.api.patch(&scale, &json!({"spec": {"replicas": 0}}));
        }
    }

    /// Waits until KEDA has scaled to zero: no live stream, no worker.
    #[track_caller]
    pub fn is_back_to_zero(&self) {
        until("the last stream to be forgotten", || self.is_idle());
        until("the last worker to go", || self.wanted_workers() == Some(0) && self.workers().is_empty());
    }

    /// Waits until no activator is terminating and as many as wanted are ready.
    #[track_caller]
    pub fn is_rolled_out(&self) {
        until("activators to be rolled out", || {
            let deployment = self.cluster.api.get(&format!("{}/liveedgecast-activator", path("deployments")));
            let wanted = deployment.and_then(|it| it["spec"]["replicas"].as_u64());
            let pods = self.activators();
            wanted == Some(pods.len() as u64) && pods.iter().all(|pod| pod.is_ready() && !pod.is_going())
        });
    }

    /// Deletes a pod as `kubectl delete` does, with the grace period that it has.
    #[track_caller]
    pub fn delete(&self, pod: &Pod) {
        self.cluster.api.delete(&format!("{}/{}", path("pods"), pod.name), &json!({}));
    }

    /// Deletes a pod without a grace period: its processes are killed.
    #[track_caller]
    pub fn kill(&self, pod: &Pod) {
        self.cluster.api.delete(&format!("{}/{}", path("pods"), pod.name), &json!({"gracePeriodSeconds": 0}));
    }

    /// Makes a Secret, or gives an existing one other content.
    #[track_caller]
    pub fn keep_secret(&self, name: &str, content: &[(&str, &str)]) {
        let content: Map<String, Value> = content.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
        // With this label `down.sh` removes the Secret with everything else, also after a scenario that has failed.
        let metadata = json!({"name": name, "labels": {"app.kubernetes.io/managed-by": "liveedgecast-up"}});
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content});
        self.cluster.api.put(&path("secrets"), &object);
    }

    /// Removes a Secret.
    #[track_caller]
    pub fn remove_secret(&self, name: &str) {
        self.cluster.api.delete(&format!("{}/{name}", path("secrets")), &json!({}));
    }

    /// Waits for an effect of a changed Secret. A kubelet looks at the Secrets of a pod once a minute or so, and whenever the pod's object changes, so an
    /// annotation shortens the wait.
    ///
    /// # Panics
    /// The effect does not come.
    #[track_caller]
    pub fn secret_arrives(&self, what: &str, has_come: impl Fn() -> bool) {
        for number in 0..60 {
            for pod in self.activators().into_iter().chain(self.workers()) {
                let annotation = json!({"metadata": {"annotations": {"liveedgecast-secrets": number.to_string()}}});
                let _ = self.cluster.api.patch(&format!("{}/{}", path("pods"), pod.name), &annotation);
            }
            if try_until(Duration::from_secs(2), || has_come().then_some(())).is_ok() {
                return;
            }
        }
        panic!("waited in vain for {what}");
    }

    /// Sets the number of activators.
    #[track_caller]
    pub fn scale_activators(&self, replicas: u32) {
        let scale = format!("{}/liveedgecast-activator/scale", path("deployments"));
        let _ = self.cluster.api.patch(&scale, &json!({"spec": {"replicas": replicas}}));
    }

    /// Waits until a pod is gone.
    #[track_caller]
    pub fn is_gone(&self, pod: &Pod) {
        until(format!("{} to be gone", pod.name), || {
            self.cluster
                .api
                .get(&format!("{}/{}", path("pods"), pod.name))
                .is_none_or(|it| it["metadata"]["uid"] != pod.uid())
        });
    }

    /// Pauses KEDA, which then leaves the number of workers alone, or resumes it: for publishers that a scenario holds.
    #[track_caller]
    pub fn pause_keda(&self, pause: bool) {
        let scaled = format!("{}/liveedgecast-worker", path("scaledobjects"));
        let annotation = if pause { json!("true") } else { Value::Null };
        let _ = self.cluster.api.patch(&scaled, &json!({"metadata": {"annotations": {PAUSED: annotation}}}));
        let told = if pause { "True" } else { "False" };
        until(format!("KEDA's pause to be {told}"), || {
            let object = self.cluster.api.get(&scaled).unwrap_or_default();
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|it| it["type"] == "Paused" && it["status"] == told)
        });
    }

    /// `kubectl rollout restart` of `activator` or `worker`.
    ///
    /// # Panics
    /// kubectl fails.
    #[track_caller]
    pub fn restart(&self, of: &str) {
        let output = kubectl(&["rollout", "restart", "deployment", &format!("liveedgecast-{of}")]);
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Watches the pods of `activator` or `worker`.
    #[must_use]
    pub fn watch(&self, of: &str) -> ObjectWatch {
        ObjectWatch::new(&self.cluster.api, &pods_of(of))
    }
}

/// Annotation that makes KEDA pause at once.
const PAUSED: &str = "autoscaling.keda.sh/paused";

fn pods_of(of: &str) -> String {
    format!("{}?labelSelector=app.kubernetes.io%2Fname%3Dliveedgecast-{of}", path("pods"))
}
