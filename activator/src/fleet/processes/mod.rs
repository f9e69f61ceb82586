//! Worker processes on this machine (DESIGN 4.10). In: how many streams wait without a place, which workers are registered and busy.
//! Out: processes, from none and back to none. Next: the workers dial in like any other.

mod machine;
mod metrics;
mod task;

pub use machine::{End, Input, Output, Processes, Rules};
pub use metrics::ProcessMetrics;
pub use task::{Launch, program_beside, run};
