//! Changed files of the configuration, on their way to the streams that run. In: the kernel's word that a file may have changed, SIGHUP. Out: changes
//! of destinations and the ends of removed publishers, to `lobby`, which tells the workers.
//!
//! `watch` waits for the kernel, `task` reads and applies. The rules are elsewhere: [`Book::standing`](crate::admission::Book::standing) says what a
//! file means to a stream, [`Change::Route`](crate::destinations::Change::Route) what the stream's destinations become. Each activator does this for
//! the publishers that are connected to it.

mod metrics;
mod task;
mod watch;

pub use metrics::ReloadMetrics;
pub use task::{Reload, run};
