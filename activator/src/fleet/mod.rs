//! Room 5. In: demand, and workers that dial in. Out: workers that can take a stream; on one machine, the processes themselves. Next:
//! `lobby`, which matches the two.
//!
//! A worker is usable the moment it has dialed in (DESIGN 4.3): no probe, no endpoint. Without Kubernetes the activator is its own
//! autoscaler (4.10): the same demand starts and stops worker processes, from none and back to none.

mod metrics;
pub mod processes;
pub mod service;
pub(crate) mod workers;

pub use metrics::ControlMetrics;
pub use workers::{Call, Closed, Introduction};
