//! LiveEdgeCast on the cluster, by `tools/up.sh` and `tools/down.sh`. In: the installation that a scenario wants. Out: a [`ClusterRelay`] that is
//! idle: no live stream, no worker, KEDA connected.
//!
//! Installing takes ten seconds, so a scenario that wants the same installation reuses the present one. Changes go into a copy of `deploy/`
//! and `tools/`: everything then exists at once, without a rollout, and `up.sh` knows of it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::api::path;
use crate::cluster::relay::ClusterRelay;
use crate::cluster::{NAMESPACE, Relays, door, said, script};
use crate::publish::root;
use crate::sink::Sink;
use crate::wait::{try_until, until};

/// Annotation of the namespace: its objects were made by scenarios, which may remove them.
const MARK: &str = "liveedgecast-scenarios";
/// True if this process has checked that the namespace belongs to scenarios.
static OURS: AtomicBool = AtomicBool::new(false);

/// The installation that a scenario wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Installation {
    /// Further arguments of `up.sh`, such as `--with cpu`.
    pub arguments: Vec<String>,
    /// Environment variables of activators.
    pub activator: Vec<(String, String)>,
    /// Environment variables of workers.
    pub worker: Vec<(String, String)>,
    /// Further changes of `deploy/base`: strategic merge patches.
    pub patches: Vec<Value>,
    /// Changes of the ScaledObject's spec.
    pub keda: Value,
    /// Replacements in components: the path below `deploy/components`, the old text, the new text.
    pub words: Vec<(String, String, String)>,
}

impl Default for Installation {
    /// The base, open to all publishers, with times that a scenario can wait for.
    fn default() -> Self {
        Self {
            arguments: vec!["--open".to_owned()],
            activator: vec![("RUST_LOG".to_owned(), "info,liveedgecast_activator=debug".to_owned())],
            worker: vec![("RUST_LOG".to_owned(), "info,liveedgecast_worker=debug".to_owned())],
            patches: Vec::new(),
            keda: json!({"pollingInterval": 2, "cooldownPeriod": 5}),
            words: Vec::new(),
        }
    }
}

impl Installation {
    /// Adds an argument of `up.sh`, with its value if it has one.
    #[must_use]
    pub fn with(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds a setting of activators.
    #[must_use]
    pub fn activator(mut self, name: &str, value: &str) -> Self {
        self.activator.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a setting of workers.
    #[must_use]
    pub fn worker(mut self, name: &str, value: &str) -> Self {
        self.worker.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Turns off the activators' watchdog, which would wake a worker for a publisher that a scenario holds.
    #[must_use]
    pub fn without_watchdog(self) -> Self {
        self.activator("WORKER_DEPLOYMENT", "").activator("MAX_WORKERS", "")
    }

    /// Adds another change of `deploy/base`.
    #[must_use]
    pub fn patch(mut self, patch: Value) -> Self {
        self.patches.push(patch);
        self
    }

    /// Adds a change of the ScaledObject.
    #[must_use]
    pub fn keda(mut self, name: &str, value: Value) -> Self {
        self.keda[name] = value;
        self
    }

    /// Replaces text in a component, as a person edits it.
    #[must_use]
    pub fn edited(mut self, component: &str, from: &str, to: &str) -> Self {
        self.words.push((component.to_owned(), from.to_owned(), to.to_owned()));
        self
    }

    /// Copies `deploy/` and `tools/`, with the changes in them.
    fn copy(&self) -> PathBuf {
        // The copy is no temporary directory: the installation outlives the scenario, and nothing is dropped when the process ends.
        let copy = root().join("target/cluster");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(&copy).expect("a directory");
        for directory in ["deploy", "tools"] {
            let copied = Command::new("cp").arg("-r").arg(root().join(directory)).arg(&copy).status();
            assert!(copied.is_ok_and(|status| status.success()), "{directory}/ cannot be copied");
        }
        for (component, from, to) in &self.words {
            let file = copy.join("deploy/components").join(component).join("kustomization.yaml");
            let text = fs::read_to_string(&file).expect("the component");
            assert!(text.contains(from), "{component} has no {from}");
            fs::write(file, text.replace(from, to)).expect("the component");
        }
        let settings = |name: &str, of: &[(String, String)]| {
            let env: Vec<Value> = of.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let containers = json!([{"name": name, "env": env}]);
            let metadata = json!({"name": format!("liveedgecast-{name}")});
            let spec = json!({"template": {"spec": {"containers": containers}}});
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        };
        let mut base = vec![settings("activator", &self.activator), settings("worker", &self.worker)];
        base.extend(self.patches.iter().cloned());
        let metadata = json!({"name": "liveedgecast-worker"});
        let keda =
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata, "spec": self.keda});
        for (kustomization, patches) in [("deploy/base", base), ("deploy/keda", vec![keda])] {
            let file = copy.join(kustomization).join("kustomization.yaml");
            // A patch is a string that contains a document; JSON is YAML.
            let patches: Vec<Value> = patches.iter().map(|patch| json!({"patch": patch.to_string()})).collect();
            let mut file = OpenOptions::new().append(true).open(file).expect("the kustomization");
            writeln!(file, "patches: {}", Value::from(patches)).expect("the kustomization");
        }
        copy
    }
}

/// The present installation.
#[derive(Debug)]
pub(super) struct Standing {
    wanted: Installation,
    pub(super) copy: PathBuf,
    /// Output of `up.sh`.
    pub(super) told: String,
    /// Spec of the ScaledObject after `up.sh`.
    keda: Value,
}

impl Relays<'_> {
    /// Installs LiveEdgeCast as `wanted`, idle, with an upstream for this scenario.
    ///
    /// # Panics
    /// The installation fails.
    #[must_use]
    #[track_caller]
    pub fn installed(&self, wanted: &Installation) -> ClusterRelay<'_> {
        let sink = Sink::start();
        let upstream = door::to(sink.address(), self.cluster.host);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = standing.as_ref().is_some_and(|standing| {
            standing.wanted == *wanted && settles(&ClusterRelay::of(self.cluster, standing, &sink), &standing.keda)
        });
        if !usable {
            *standing = None;
            self.remove();
            let copy = wanted.copy();
            let push_url = format!("rtmp://{upstream}/live/{{key}}");
            let mut arguments = vec!["--image", &self.cluster.image, "--timeout", "120"];
            arguments.extend(wanted.arguments.iter().map(String::as_str));
            let output = up(&copy.join("tools"), &arguments, &[("RTMP_PUSH_URL", &push_url)]);
            assert!(output.status.success(), "up.sh {arguments:?}: {}", said(&output));
            self.mark();
            let object = self.cluster.api.get(&format!("{}/liveedgecast-worker", path("scaledobjects")));
            let keda = object.expect("the ScaledObject")["spec"].take();
            *standing = Some(Standing { wanted: wanted.clone(), copy, told: said(&output), keda });
        }
        let standing = standing.as_ref().expect("something stands");
        ClusterRelay::of(self.cluster, standing, &sink)
    }

    /// Makes the next scenario install anew: activators remember the state of a killed one for a minute.
    pub fn are_used_up(&self) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Removes LiveEdgeCast from the cluster, for scenarios that run the scripts themselves.
    ///
    /// # Panics
    /// The removal fails, or the installation does not belong to scenarios.
    #[track_caller]
    pub fn nothing(&self) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.remove();
    }

    #[track_caller]
    fn remove(&self) {
        let namespace = self.cluster.api.get(&format!("/api/v1/namespaces/{NAMESPACE}"));
        if let Some(namespace) = namespace {
            let marked = namespace["metadata"]["annotations"][MARK].is_string();
            assert!(
                marked || OURS.load(Ordering::Relaxed),
                "the cluster has a namespace {NAMESPACE} that no scenario made; tools/down.sh removes what up.sh made"
            );
            let output = script("down.sh", &["--force"], &[]);
            assert!(output.status.success(), "down.sh --force: {}", said(&output));
            until("the namespace to be gone", || {
                self.cluster.api.get(&format!("/api/v1/namespaces/{NAMESPACE}")).is_none()
            });
        }
        OURS.store(true, Ordering::Relaxed);
    }

    /// Marks the installation on the cluster as made by scenarios.
    ///
    /// # Panics
    /// The namespace is missing.
    #[track_caller]
    pub fn mark(&self) {
        let change = json!({"metadata": {"annotations": {MARK: "made this"}}});
        let _ = self.cluster.api.patch(&format!("/api/v1/namespaces/{NAMESPACE}"), &change);
    }
}

/// Runs `up.sh` in a directory.
pub(super) fn up(tools: &std::path::Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(tools.join("up.sh"));
    command.args(arguments).env_remove("RTMP_PUSH_URL").env_remove("PUBLISH_KEYS").envs(environment.iter().copied());
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{}: {error}", tools.display()))
}

/// Brings an installation that an earlier scenario used back to idle; returns whether that worked.
fn settles(relay: &ClusterRelay<'_>, keda: &Value) -> bool {
    let within =
        |limit: u64, is: &dyn Fn() -> bool| try_until(Duration::from_secs(limit), || is().then_some(())).is_ok();
    // Activators wait ten seconds for a lost publisher.
    within(20, &|| relay.is_idle()) && {
        let scaled = format!("{}/liveedgecast-worker", path("scaledobjects"));
        if relay.api().get(&scaled).is_none_or(|object| object["spec"] != *keda) {
            relay.change_keda(keda);
        }
        relay.scale_to_zero();
        within(20, &|| relay.workers().is_empty()) && within(20, &|| relay.keda_listens())
    }
}
