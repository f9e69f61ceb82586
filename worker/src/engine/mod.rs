//! The engine: where streams run. In: [`FetchedStream`](crate::receive::FetchedStream)s from `receive`, kicks from `register`, the drain.
//! Out: what is served, for `register` and `http`; counts in the reports, for [`EngineMetrics`]. Next room: `stream`, one task per stream on one of
//! N single-threaded runtimes.
//!
//! [`table`] has the rules: which stream an identity belongs to, which thread a new one goes to. [`task`] owns the table;
//! [`thread`] is one thread with its streams.

mod counters;
mod metrics;
pub mod table;
mod task;
mod thread;

pub use metrics::EngineMetrics;
pub use task::{Engine, Settings, TakeOutcome};
pub use thread::StartStream;
