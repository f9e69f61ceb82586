//! The API of a cluster. In: a path and a change. Out: JSON. Next: [`super::watch`].
//!
//! Requests go through `kubectl proxy`, which knows the cluster's address and the credentials, and not through a kubectl per request: that
//! takes a tenth of a second of CPU, and scenarios poll all the time. The API server also passes HTTP on to each pod.

use std::net::SocketAddr;

use serde_json::Value;

use crate::cluster::NAMESPACE;
use crate::cluster::forward::Forwards;
use crate::http::{self, HttpAnswer};
use crate::process::{Program, RunningProgram};
use crate::wait::until_some;

/// The API of a cluster. The proxy runs as long as this value lives.
#[derive(Debug)]
pub struct ClusterApi {
    _proxy: RunningProgram,
    /// Address of the proxy on this machine: plain HTTP, all rights.
    pub address: SocketAddr,
    forwards: Forwards,
}

impl ClusterApi {
    /// Starts `kubectl proxy`.
    ///
    /// # Panics
    /// No cluster answers.
    #[must_use]
    pub(super) fn start() -> Self {
        let mut proxy = Program::new("kubectl proxy", "kubectl").words("proxy --port 0").start();
        let address = until_some("kubectl proxy", || {
            assert!(proxy.is_running(), "kubectl proxy has ended: {}", proxy.log());
            proxy.log().split_once(" on ").and_then(|(_, rest)| rest.trim().parse().ok())
        });
        let this = Self { _proxy: proxy, address, forwards: Forwards::default() };
        let version = this.get("/version");
        assert!(version.is_some(), "no cluster answers by KUBECONFIG");
        this
    }

    fn request(&self, method: &str, path: &str, sort: &str, body: &str) -> Option<HttpAnswer> {
        http::request_with(self.address, method, path, sort, body).ok()
    }

    /// The object at a path; `None` if none exists.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(path)?).ok()
    }

    /// The text at a path, for answers that are not JSON.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.request("GET", path, "application/json", "")
            .filter(|answer| answer.status == 200)
            .map(|answer| answer.body)
    }

    /// The items of a list.
    ///
    /// # Panics
    /// The API does not answer for [`crate::wait::LONG`].
    #[must_use]
    #[track_caller]
    pub fn list(&self, path: &str) -> Vec<Value> {
        until_some(path, || self.get(path)?["items"].as_array().cloned())
    }

    /// Changes an object by a merge patch.
    ///
    /// # Panics
    /// The API does not accept the change.
    #[track_caller]
    pub fn patch(&self, path: &str, change: &Value) -> Value {
        let answer = self.request("PATCH", path, "application/merge-patch+json", &change.to_string());
        let answer = answer.unwrap_or_else(|| panic!("PATCH {path}: no answer"));
        assert_eq!(answer.status, 200, "PATCH {path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    /// Makes an object below the path of its kind, or puts it in the place of the one that has its name.
    ///
    /// # Panics
    /// The API does not accept the object.
    #[track_caller]
    pub fn put(&self, path: &str, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let send = |method: &str, path: &str| {
            let answer = self.request(method, path, "application/json", &object.to_string());
            answer.unwrap_or_else(|| panic!("{method} {path}: no answer"))
        };
        let mut answer = send("POST", path);
        if answer.status == 409 {
            answer = send("PUT", &format!("{path}/{name}"));
        }
        assert!(matches!(answer.status, 200 | 201), "{path}/{name}: {} {}", answer.status, answer.body);
    }

    /// Deletes an object, if it exists.
    ///
    /// # Panics
    /// The API does not accept the deletion.
    #[track_caller]
    pub fn delete(&self, path: &str, options: &Value) {
        let answer = self.request("DELETE", path, "application/json", &options.to_string());
        let answer = answer.unwrap_or_else(|| panic!("DELETE {path}: no answer"));
        assert!(matches!(answer.status, 200 | 202 | 404), "DELETE {path}: {} {}", answer.status, answer.body);
    }

    /// The answer of a LiveEdgeCast pod on one of its ports to a request from its own loopback.
    #[must_use]
    pub fn within_pod(&self, pod: &str, port: u16, path: &str) -> Option<String> {
        self.forwards.get(pod, port, path)
    }

    /// The answer of a LiveEdgeCast pod on one of its ports to a request from elsewhere.
    #[must_use]
    pub fn of_pod(&self, pod: &str, port: u16, path: &str) -> Option<String> {
        self.text(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy{path}"))
    }
}

/// Path of the objects of a kind in the namespace of LiveEdgeCast.
///
/// # Panics
/// The kind is unknown here.
#[must_use]
pub fn path(kind: &str) -> String {
    let group = match kind {
        "pods" | "services" | "secrets" | "events" => "/api/v1",
        "deployments" | "replicasets" => "/apis/apps/v1",
        "scaledobjects" => "/apis/keda.sh/v1alpha1",
        "horizontalpodautoscalers" => "/apis/autoscaling/v2",
        other => panic!("where {other} are is not known here"),
    };
    format!("{group}/namespaces/{NAMESPACE}/{kind}")
}
