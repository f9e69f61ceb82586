//! The engine runs the streams. In: [`FetchedStream`](crate::receive::FetchedStream)s from `receive`, kicks from `register`, the drain.
//! Out: the sessions that change, for `register`; counts in the reports, for [`EngineMetrics`]. Next room: `stream`, one task per stream on one of
//! N single-threaded runtimes.
//!
//! [`table`] has the rules: the stream of an identity, the thread of a new stream. [`task`] owns the table;
//! [`thread`] is one thread with its streams; `forward` brings their reports to the engine's task.

mod counters;
mod feed;
mod forward;
mod metrics;
pub mod table;
mod task;
mod thread;

pub use feed::SessionFeed;
pub use metrics::EngineMetrics;
pub use task::{Engine, Settings, TakeOutcome};
pub use thread::StartStream;
