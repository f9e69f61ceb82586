//! Beside the path: what all activators know together. In: our own lobby's view. Out: the [`Need`] that the `scaler` and the API answer
//! with, and whether it can be relied on. Next: `scaler`.

mod cluster;
mod tally;

pub use cluster::{Cluster, Unsure};
pub use tally::{ByApp, Need, Tally, WorkerTally};
