//! The shell of `dispatch`: its lock, its clock, its mail. In: calls of seven kinds of callers, each with a handle of its own. Out: mail for
//! publishers' places, messages for workers, orders for worker processes. Next: `admission`, `handoff`.
//!
//! | handle | callers | purpose |
//! | --- | --- | --- |
//! | [`Places`] | publishers' tasks | take a [`Place`] |
//! | [`WorkerCalls`] | the control service, the scale-in | register workers, pass on what they report, cordon them |
//! | [`ProcessOrders`] | the process fleet's shell | carry out orders, report what became of them |
//! | [`PeerNews`] | peers | the demand as this activator knows it, and publishers elsewhere |
//! | [`Views`] | HTTP, metrics, Kubernetes | show streams and workers and excerpts of streams, end a stream by hand |
//! | [`Streams`] | the API, a changed configuration file | change the destinations of streams |
//! | [`DrainSwitch`] | the drain | let publishers go, end streams and worker processes |

mod excerpts;
mod handles;
mod hub;
mod metrics;
mod places;
mod report;
mod traces;

pub(crate) use excerpts::Unexcerpted;
pub use handles::{DrainSwitch, Lobby, PeerNews, ProcessOrders, Streams, Views, WorkerCalls};
pub(crate) use hub::{MAX_UNREAD, Order};
pub use metrics::LobbyMetrics;
pub use places::{Place, Places};
