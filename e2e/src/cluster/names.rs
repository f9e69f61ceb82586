//! A name server that remembers, as those of real clusters do. In: a cluster whose CoreDNS may be changed. Out: answers of its names, also
//! that there is none, are good for half a minute, until this is dropped.
//!
//! Surprise: an activator that begins asks for the name of all before its own address is in it, so what is remembered is that there is
//! nobody; and after a rollout it is those who are gone.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::pods::Pod;
use crate::wait::until;

const CONFIGURATION: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
const PODS: &str = "/api/v1/namespaces/kube-system/pods";

/// Names are remembered as long as this lives.
#[derive(Debug)]
pub struct Remembering<'a> {
    cluster: &'a Cluster,
    /// What was there before, if it was changed.
    before: Option<Value>,
}

impl<'a> Remembering<'a> {
    /// Makes the cluster's CoreDNS remember, if it does not; `None` where it cannot be made to.
    #[must_use]
    #[track_caller]
    pub fn on(cluster: &'a Cluster) -> Option<Self> {
        let configuration = cluster.api.get(CONFIGURATION)?;
        let corefile = configuration["data"]["Corefile"].as_str()?;
        if corefile.contains("cache 30") {
            return Some(Self { cluster, before: None });
        }
        // The plugin alone, its block in one line or in several; whatever else it is told stays.
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

    /// Not by its own reload: that takes half a minute, and not every Corefile has it.
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
