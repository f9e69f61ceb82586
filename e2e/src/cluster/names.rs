//! A DNS server that caches, as those of real clusters do. In: a cluster whose CoreDNS may be changed. Out: answers of its names, including
//! negative ones, are valid for half a minute, until the guard is dropped.
//!
//! Note: a starting activator resolves the name of all activators before its own address is in it, so the cached answer is that no
//! activator exists; after a rollout, the cached addresses are those of ended activators.

use serde_json::{Value, json};

use crate::cluster::KubernetesCluster;
use crate::cluster::pods::Pod;
use crate::wait::until;

const CONFIGURATION: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
const PODS: &str = "/api/v1/namespaces/kube-system/pods";

/// CoreDNS caches as long as this guard lives.
#[derive(Debug)]
pub struct Remembering<'a> {
    cluster: &'a KubernetesCluster,
    /// The configuration to restore, if it was changed.
    before: Option<Value>,
}

impl<'a> Remembering<'a> {
    /// Makes the cluster's CoreDNS cache, if it does not; `None` where that is impossible.
    #[must_use]
    #[track_caller]
    pub fn on(cluster: &'a KubernetesCluster) -> Option<Self> {
        let configuration = cluster.api.get(CONFIGURATION)?;
        let corefile = configuration["data"]["Corefile"].as_str()?;
        if corefile.contains("cache 30") {
            return Some(Self { cluster, before: None });
        }
        // Only the plugin is replaced, whose block takes one line or several; all other configuration stays.
        let (zone, rest) = corefile.split_once("kubernetes ")?;
        let (arguments, rest) = rest.split_once('{')?;
        let (options, rest) = rest.split_once('}')?;
        let options: Vec<&str> =
            options.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("ttl")).collect();
        let options = options.join("\n");
        let changed = format!("{zone}cache 30\nkubernetes {arguments} {{\nttl 30\n{options}\n}}{rest}");
        let this = Self { cluster, before: Some(json!({"data": {"Corefile": corefile}})) };
        this.change(&json!({"data": {"Corefile": changed}}));
        Some(this)
    }

    fn pods(&self) -> Vec<Pod> {
        let all = self.cluster.api.list(PODS).into_iter().map(Pod::new);
        all.filter(|pod| pod.name.starts_with("coredns")).collect()
    }

    /// Restarts CoreDNS instead of waiting for its own reload: that takes half a minute, and not every Corefile has it.
    fn change(&self, change: &Value) {
        let _ = self.cluster.api.patch(CONFIGURATION, change);
        let before = self.pods();
        for pod in &before {
            self.cluster.api.delete(&format!("{PODS}/{}", pod.name), &json!({"gracePeriodSeconds": 1}));
        }
        until("CoreDNS to begin anew", || {
            let now = self.pods();
            let is_old = |pod: &Pod| before.iter().any(|old| old.uid() == pod.uid());
            !now.is_empty() && now.iter().all(|pod| pod.is_ready() && !is_old(pod))
        });
    }
}

impl Drop for Remembering<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.change(&before);
        }
    }
}
