//! Worker processes on this machine. In: orders of the process fleet in `dispatch`. Out: processes, and what became of them. Next: the
//! workers dial in like any other.

mod metrics;
mod task;

pub use metrics::ProcessMetrics;
pub use task::{Launch, program_beside, run};
