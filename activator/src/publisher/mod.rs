//! The publishers that no worker has. In: a connection that was let in. Out: a publisher held just before `NetStream.Publish.Start`, then handed
//! to a worker. Next: `handoff`, by way of `admission` and `lobby`.

mod handover;
mod limits;
mod machine;
mod metrics;
mod outgoing;
mod resume;
mod task;

pub use metrics::PublisherMetrics;
pub use task::{Context, run};
