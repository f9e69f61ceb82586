//! A real Kubernetes with KEDA, on the cluster of `KUBECONFIG`, and LiveEdgeCast on it as `tools/` installs it.
//!
//! - [`api`]: the cluster's API, and through it the HTTP of each pod.
//! - `forward`: the same as programs within the pod have it.
//! - [`watch`]: changes of pods and other objects, with the time at which the API reported them.
//! - [`pods`]: properties of a pod; its process, if this machine is its node.
//! - [`install`]: `up.sh` and `down.sh`, with changes that a scenario wants; shared by scenarios that want the same.
//! - [`relay`]: the installation, for one scenario.
//! - [`names`]: a DNS server that caches.
//! - [`door`]: a single address on this machine for all upstreams, since pods keep their push URL.
//! - [`tell`]: the state of the cluster, for a scenario that failed.
//!
//! Scenarios are functions of a [`KubernetesCluster`], run by [`scenario`] one after the other: there is one cluster.
//!
//! Note: a test's output is shown only when it fails, so [`not_run`] writes skipped checks past the capture.

pub mod api;
pub mod door;
mod forward;
pub mod install;
pub mod names;
pub mod pods;
pub mod relay;
pub mod tell;
pub mod watch;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::cluster::api::ClusterApi;
use crate::cluster::install::Standing;
use crate::publish::root;
use crate::wait::now;

/// The namespace of LiveEdgeCast: `up.sh` uses no other.
pub const NAMESPACE: &str = "liveedgecast";

/// The present installation, as far as this process knows. Locked while a scenario runs: scenarios share it.
static STANDING: Mutex<Option<Standing>> = Mutex::new(None);

/// The cluster, for one scenario.
#[derive(Debug)]
pub struct KubernetesCluster {
    /// The API of the cluster.
    pub api: ClusterApi,
    /// Reference of the LiveEdgeCast image.
    pub image: String,
    /// Address of this machine as pods reach it.
    pub host: IpAddr,
}

impl KubernetesCluster {
    /// Connects to the cluster that the environment names, and installs KEDA if it is missing.
    ///
    /// # Panics
    /// The environment names no cluster, or the cluster cannot be used; the message says which variable to set.
    #[must_use]
    pub fn from_environment() -> Self {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        assert!(
            given("KUBECONFIG").is_some(),
            "KUBECONFIG is not set: the file of a cluster that scenarios may change"
        );
        let image = given("CLUSTER_IMAGE");
        let image =
            image.expect("CLUSTER_IMAGE is not set: our image, by a reference that the cluster has or can pull");
        let api = ClusterApi::start();
        let host = given("CLUSTER_HOST").map_or_else(
            || towards_nodes(&api),
            |host| host.parse().expect("CLUSTER_HOST is an address of this machine"),
        );
        let this = Self { api, image, host };
        let operators = this.api.list("/apis/apps/v1/deployments?labelSelector=app%3Dkeda-operator");
        if operators.is_empty() {
            let installed = script("install-keda.sh", &[], &[]);
            assert!(installed.status.success(), "KEDA cannot be installed: {}", said(&installed));
        }
        this
    }
}

/// The address from which this machine speaks to a node.
fn towards_nodes(api: &ClusterApi) -> IpAddr {
    let nodes = api.list("/api/v1/nodes");
    let addresses = nodes.iter().flat_map(|node| node["status"]["addresses"].as_array().cloned().unwrap_or_default());
    let internal: Vec<Value> = addresses.filter(|address| address["type"] == "InternalIP").collect();
    let node =
        internal.first().and_then(|address| address["address"].as_str()).and_then(|it| it.parse::<IpAddr>().ok());
    let node = node.expect("a node with an InternalIP; or set CLUSTER_HOST");
    let any: SocketAddr = if node.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    // No packet is sent: `connect` on a UDP socket only looks up the route.
    let local = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((node, 9))?;
        socket.local_addr()
    });
    local.expect("a route to the node; or set CLUSTER_HOST").ip()
}

/// Runs one scenario. The next scenario always finds a clean cluster: an installation that a failed one used is not reused.
///
/// # Panics
/// The scenario panics.
pub fn scenario(run: impl FnOnce(&Relays<'_>)) {
    let mut standing = STANDING.lock().unwrap_or_else(PoisonError::into_inner);
    let began = now();
    let cluster = KubernetesCluster::from_environment();
    let relays = Relays { cluster: &cluster, standing: Mutex::new(standing.take()) };
    let ended = catch_unwind(AssertUnwindSafe(|| run(&relays)));
    match ended {
        Ok(()) => {
            println!("it took {:?}", now().saturating_duration_since(began));
            *standing = relays.standing.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
        Err(panic) => {
            eprintln!("{}", tell::everything(&cluster.api));
            drop(cluster);
            resume_unwind(panic);
        }
    }
}

/// A cluster and the installation on it.
#[derive(Debug)]
pub struct Relays<'a> {
    /// The cluster.
    pub cluster: &'a KubernetesCluster,
    standing: Mutex<Option<Standing>>,
}

/// Runs a script of `tools/`.
///
/// # Panics
/// The script does not exist.
#[must_use]
pub fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(root().join("tools").join(name));
    command.args(arguments).env_remove("RTMP_PUSH_URL").env_remove("PUBLISH_KEYS").envs(environment.iter().copied());
    command.stdin(std::process::Stdio::null()).output().unwrap_or_else(|error| panic!("tools/{name}: {error}"))
}

/// Runs kubectl, for commands that a person would type; other requests use [`ClusterApi`].
///
/// # Panics
/// kubectl is missing.
#[must_use]
pub fn kubectl(arguments: &[&str]) -> Output {
    let mut command = Command::new("kubectl");
    command.args(["--namespace", NAMESPACE]).args(arguments);
    command.output().unwrap_or_else(|error| panic!("kubectl: {error}"))
}

/// The whole output of a program.
#[must_use]
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Prints a check that was skipped on this cluster, past the capture of a passing test's output.
pub fn not_run(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\nNOT RUN: {what}: {why}");
}
