//! The gRPC service that workers dial. In: their calls. Out: messages of workers, to `lobby`; offers, to workers.

mod addresses;
mod metrics;
mod service;

pub use metrics::ControlMetrics;
pub use service::{ControlListeners, Terms, serve};
