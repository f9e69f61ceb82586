//! All calls to the Kubernetes API (architecture.md, "Demand and KEDA" and "Scale-in"). In: the view of all activators
//! ([`crate::peers`]). Out: more workers when KEDA does not act (`watchdog`); deletion costs of pods (`cost`); cordons of idle workers, so
//! that the HPA removes exactly those (`scale_in`). Next: the API server; no stream waits for it.
//!
//! Of several activators one acts: the one with the smallest name among those that can. An activator whose call fails announces for a
//! while that it cannot.
//!
//! Note: KEDA's client of the external scaler has no deadline, so one activator that hangs can keep KEDA from acting for a
//! quarter of an hour. A ReplicaSet that shrinks removes pods that are not ready first, then pods of the lowest deletion cost, then the
//! newest pod, which may be the only busy one.

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
