//! Registration: the worker dials in to every activator and stays (architecture.md, "Workers dial in").
//!
//! In: the activators' name, the sessions that the engine serves. Out: offers that were taken. Next: `receive`, and through it `engine`.
//! [`machine`] has the rules; `call` is one call to one activator; [`task`] does what the machine asks.

mod call;
mod excerpts;
mod ledger;
pub mod machine;
mod metrics;
pub mod task;
mod unreached;

pub use metrics::RegisterMetrics;
pub use task::{Registration, RegistrationEnd, RegistrationRequest};
