//! The HTTP of a pod as its own node's programs see it. In: a pod, a path. Out: the answer. Next: [`super::api`].
//!
//! An activator shows streams and workers to requests from its own machine, or with a token. The API server's proxy takes the header
//! `Authorization` for itself, and a request that comes by it comes from elsewhere; `kubectl port-forward` ends in the pod's loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::cluster::NAMESPACE;
use crate::http;
use crate::process::{Program, RunningProgram};
use crate::wait::try_until;

/// Longest time for a forward to begin; a pod that is going has none.
const BEGIN: Duration = Duration::from_secs(10);

/// The ports of pods that are forwarded to this machine, by pod and port.
#[derive(Debug, Default)]
pub(super) struct Forwards(Mutex<BTreeMap<(String, u16), (RunningProgram, SocketAddr)>>);

impl Forwards {
    /// The answer at a path; `None` if there is none, or its status is not 200.
    pub(super) fn get(&self, pod: &str, port: u16, path: &str) -> Option<String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (pod.to_owned(), port);
        if let Some((_, address)) = open.get(&key)
            && let Some(answer) = http::get(*address, path)
        {
            return Some(answer);
        }
        // A forward may outlive the container that it led to.
        open.remove(&key);
        let begun = forward(pod, port)?;
        let answer = http::get(begun.1, path);
        open.insert(key, begun);
        answer
    }
}

fn forward(pod: &str, port: u16) -> Option<(RunningProgram, SocketAddr)> {
    let words = format!("port-forward --namespace {NAMESPACE} --address 127.0.0.1 pod/{pod} :{port}");
    let mut program = Program::new("kubectl port-forward", "kubectl").words(&words).start();
    let begun = try_until(BEGIN, || {
        let log = program.log();
        let line = log.lines().find_map(|line| line.strip_prefix("Forwarding from "));
        let address = line.and_then(|line| line.split(' ').next()?.parse().ok());
        (address.is_some() || !program.is_running()).then_some(address)
    });
    Some((program, begun.ok().flatten()?))
}
