//! The settings about Kubernetes. In: [`Args`]. Out: [`Kubernetes`], or mistakes with their fix. Pure.

use liveedgecast_common::config::Problems;
use liveedgecast_common::setting::{choice, set};

use super::args::Args;
use super::resolve::Fleet;

/// Longest name of an object (RFC 1123, as Kubernetes has it).
const MOST_NAME: usize = 253;

/// Settings for calls to the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// The Deployment of the workers, in this activator's namespace.
    pub deployment: String,
    /// True if idle workers are released while others are busy.
    pub idle_may_go: bool,
}

/// Judges the arguments. With workers that this activator does not start, the settings about its own have no meaning unless it asks for
/// workers.
pub(super) fn resolve(args: &Args, fleet: Fleet, problems: &mut Problems) -> Option<Kubernetes> {
    let idle_may_go = choice("SCALE_IN", &args.scale_in, &[("none", false), ("idle", true)], problems);
    let name = set(&args.worker_deployment);
    if fleet == Fleet::External {
        let ours = [
            ("MAX_WORKERS", &args.max_workers, name.is_some(), "WORKER_DEPLOYMENT"),
            ("COOLDOWN", &args.cooldown, idle_may_go, "SCALE_IN=idle"),
        ];
        for (setting, value, meaningful, with) in ours {
            if set(value).is_some() && !meaningful {
                let text = format_args!("is about workers that we start, or that come by {with}; here remove it");
                problems.add(setting, text);
            }
        }
    }
    let Some(name) = name else {
        if idle_may_go {
            problems.add("SCALE_IN", "idle needs WORKER_DEPLOYMENT: pods are told that they cost least to lose");
        }
        return None;
    };
    if fleet == Fleet::Process {
        problems.add("WORKER_DEPLOYMENT", "is about workers in pods: set FLEET=external, or remove it");
    }
    if !cfg!(feature = "kubernetes") {
        problems.add("WORKER_DEPLOYMENT", "this program was built without its feature `kubernetes`: remove it");
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.len() > MOST_NAME || !name.chars().all(plain) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let text = format_args!("{name:?} is no name of a Deployment: write one such as liveedgecast-worker");
        problems.add("WORKER_DEPLOYMENT", text);
    }
    Some(Kubernetes { deployment: name.to_owned(), idle_may_go })
}
