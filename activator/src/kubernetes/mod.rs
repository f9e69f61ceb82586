//! All calls to the Kubernetes API (architecture.md, "Demand and KEDA" and "Scale-in"). In: the view of all activators
//! ([`crate::peers`]). Out: more workers when KEDA does not act (`watchdog`); deletion costs of pods (`cost`); cordons of idle workers, so
//! that the HPA removes exactly those (`scale_in`); a ScaledObject for the command `check` (`scaled_object`). Next: the API server; no stream waits for it.
//!
//! One of several activators acts: the one with the smallest name among those that can. An activator whose call fails announces for a
//! while that it cannot.
//!
//! Note: KEDA's client of the external scaler has no deadline, so one activator that hangs can keep KEDA from acting for a
//! quarter of an hour. A ReplicaSet that shrinks removes pods that are not ready first, then pods of the lowest deletion cost, then the
//! newest pod, which may be the only busy one.

#[cfg(feature = "kubernetes")]
mod api;
#[cfg(feature = "kubernetes")]
mod cost;
mod error;
#[cfg(feature = "kubernetes")]
mod health;
#[cfg_attr(
    not(feature = "kubernetes"),
    expect(dead_code, reason = "registered in every build, so that no dashboard misses a metric")
)]
mod metrics;
#[cfg(feature = "kubernetes")]
mod pods;
#[cfg(feature = "kubernetes")]
mod scale_in;
#[cfg(feature = "kubernetes")]
mod scaled_object;
#[cfg(feature = "kubernetes")]
mod task;
#[cfg(test)]
#[cfg(feature = "kubernetes")]
mod testing;
#[cfg(feature = "kubernetes")]
mod watchdog;

#[cfg(feature = "kubernetes")]
pub use api::{Api, Scale};
pub use error::ApiError;
pub use metrics::KubernetesMetrics;
#[cfg(feature = "kubernetes")]
pub use pods::watch_pods;
#[cfg(feature = "kubernetes")]
pub use scaled_object::ScaledObjectReader;
#[cfg(feature = "kubernetes")]
pub use task::{Room, run};
