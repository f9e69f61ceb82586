//! Beside the path: all that is asked of the Kubernetes API (DESIGN 4.8, 4.9). In: what all activators know ([`crate::peers`]). Out: more
//! workers when KEDA does not act (`watchdog`); pods that are told what they cost to lose (`cost`); idle workers taken out of use, so
//! that the HPA removes exactly those (`scale_in`). Next: the API server; nothing on a stream's way waits for it.
//!
//! Of several activators one acts: the smallest name of those that say they can; who gets an error says that he cannot, for a while.
//! What surprised us: KEDA's client of our scaler has no deadline, so one activator that is stopped can keep it from acting for a
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
