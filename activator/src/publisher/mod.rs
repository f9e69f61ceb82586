//! Room 2. In: a connection that was let in. Out: a publisher held just before `NetStream.Publish.Start`, then handed to a worker.
//! Next: `admission`, `lobby`, `handoff`.

mod limits;
mod machine;
mod metrics;
mod socket;
mod task;

pub use metrics::PublisherMetrics;
pub use task::{Context, run};
