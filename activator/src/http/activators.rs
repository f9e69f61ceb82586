//! The activators as this one knows them, and the last question of KEDA. In: requests that have the right. Out: answers.

use liveedgecast_common::http::{Answer, Request};
use serde::Serialize;

use super::HttpContext;
use super::problem::ApiProblem;
use crate::scaler::KedaAnswer;

/// The answer to [`list`].
#[derive(Serialize)]
pub(super) struct ActivatorsView {
    /// Name of the activator that answers.
    pub(super) name: String,
    /// The others.
    pub(super) peers: Vec<PeerView>,
    /// The last answer of this activator to KEDA; null if it was never asked.
    pub(super) keda: Option<KedaAnswer>,
}

/// Another activator.
#[derive(Serialize)]
pub(super) struct PeerView {
    /// Its name.
    pub(super) name: String,
    /// synced or unreachable, as in the metric `peers`.
    pub(super) state: &'static str,
}

/// Shows this activator and those that it knows.
pub(super) fn list(shown: &HttpContext, _: &Request) -> Result<Answer, ApiProblem> {
    let peer = |(name, heard)| PeerView { name, state: if heard { "synced" } else { "unreachable" } };
    Ok(Answer::json(&ActivatorsView {
        name: shown.name.clone(),
        peers: shown.cluster.peer_names().into_iter().map(peer).collect(),
        keda: shown.metrics.scaler.last_answer(),
    }))
}
