//! The gRPC service that workers dial. In: their calls. Out: what they say, to the lobby; offers, to them. Next: `lobby`.

mod metrics;
mod service;

pub use metrics::ControlMetrics;
pub use service::{Doors, Terms, serve};
