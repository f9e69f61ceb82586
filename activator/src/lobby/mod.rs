//! The shell of `dispatch`: its lock, its clock, its mail. In: calls of publishers' tasks, of the control service, of the process fleet,
//! of peers. Out: mail for publishers' places, messages for workers, orders for the process fleet. Next: `handoff`.

mod metrics;
mod task;

pub use metrics::LobbyMetrics;
pub use task::{Lobby, Place};
pub(crate) use task::{MAX_UNREAD, Order};
