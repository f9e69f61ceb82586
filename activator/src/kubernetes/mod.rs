//! All calls to the Kubernetes API (architecture.md, "Demand and KEDA" and "Scale-in"). In: the view of all activators ([`crate::peers`]). Out: more
//! workers when KEDA does not act (`watchdog`); pods that are told the cost of losing them (`cost`); idle workers taken out of use, so
//! that the HPA removes exactly those (`scale_in`). Next: the API server; nothing on a stream's way waits for it.
//!
//! Of several activators one acts: the one with the smallest name among those that can; one whose call fails says for a while that it cannot.
//! Note: KEDA's client of our scaler has no deadline, so one activator that is stopped can keep it from acting for a
//! quarter of an hour; and a ReplicaSet that shrinks removes the pods first that are not ready, then by deletion cost, then the newest,
//! which may be the only one that is busy.

mod api;
mod cost;
mod health;
mod metrics;
mod scale_in;
mod task;
#[cfg(test)]
mod testing;
mod watchdog;

pub use api::{Api, ApiError, Scale};
pub use metrics::KubernetesMetrics;
pub use task::{Room, run};
