//! Worker processes on this machine. In: orders of the process fleet in `dispatch`. Out: processes, and reports of their ends. A worker
//! that runs dials in like any other (architecture.md, "The process fleet").

mod metrics;
mod task;

pub use metrics::ProcessMetrics;
pub use task::{Launch, program_beside, run};
