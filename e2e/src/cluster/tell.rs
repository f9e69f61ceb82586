//! The state of the cluster, for a scenario that failed. In: the API. Out: text.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cluster::api::{ClusterApi, path};
use crate::cluster::{kubectl, said};

/// Lines of each log.
const LINES: usize = 60;

/// Pods, events, the state of KEDA's objects, logs of LiveEdgeCast and of KEDA's operator.
#[must_use]
pub fn everything(api: &ClusterApi) -> String {
    let mut text = "---- the cluster:\n".to_owned();
    text += &said(&kubectl(&["get", "pods,deployments,replicasets,services,scaledobjects,hpa", "-o", "wide"]));
    let scaled = api.get(&path("scaledobjects"));
    for object in scaled.iter().flat_map(|list| list["items"].as_array()).flatten() {
        let _ = writeln!(text, "---- ScaledObject {}: {}", object["metadata"]["name"], object["spec"]);
        let _ = writeln!(text, "status: {}", object["status"]);
    }
    text += "---- events:\n";
    text += &tail(&said(&kubectl(&["get", "events", "--sort-by=.metadata.creationTimestamp"])), LINES);
    let pods = api.get(&path("pods"));
    for pod in pods.iter().flat_map(|list| list["items"].as_array()).flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let _ = writeln!(text, "---- {name}: {}", pod["status"]["containerStatuses"]);
        if name.contains("activator") {
            for what in ["streams", "workers"] {
                let answer = api.within_pod(name, 8080, &format!("/api/v1/{what}"));
                let _ = writeln!(text, "{what}: {}", answer.as_deref().unwrap_or("no answer"));
            }
        }
        text += &log(api, pod, "");
        if pod["status"]["containerStatuses"][0]["restartCount"].as_u64() > Some(0) {
            text += "---- before it was restarted:\n";
            text += &log(api, pod, "&previous=true");
        }
    }
    let operators = api.get("/api/v1/pods?labelSelector=app%3Dkeda-operator");
    for pod in operators.iter().flat_map(|list| list["items"].as_array()).flatten() {
        text += "---- KEDA's operator:\n";
        // Lines without their stack traces, which are longer than everything else.
        let trace =
            |line: &&str| line.starts_with('\t') || line.starts_with("sigs.k8s.io") || line.starts_with("github.com");
        text += &log(api, pod, "").lines().filter(|line| !trace(line)).collect::<Vec<_>>().join("\n");
    }
    text + "----"
}

fn log(api: &ClusterApi, pod: &Value, which: &str) -> String {
    let word = |name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
    let target = format!("/api/v1/namespaces/{}/pods/{}/log?tailLines={LINES}{which}", word("namespace"), word("name"));
    api.text(&target).unwrap_or_else(|| "no log\n".to_owned())
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n") + "\n"
}
