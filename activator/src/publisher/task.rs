//! A publisher's task: from its first byte until nothing of it is ours any more.

use std::sync::Arc;

use crate::accept::Accepted;
use crate::admission::Admission;
use crate::config::Settings;
use crate::handoff::Desk;

/// What every publisher's task uses.
pub struct Context {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Who may publish.
    pub admission: Arc<Admission>,
    /// Where workers fetch what they were offered.
    pub desk: Desk,
    /// This activator's name, for workers' logs.
    pub name: String,
}

/// Serves one connection to its end.
pub async fn run(accepted: Accepted, context: Arc<Context>) {
    let _ = (accepted, context);
    todo!()
}
