//! Room 8, registration: the worker dials in to every activator and stays (DESIGN 4.3).
//!
//! In: the activator's name, what the engine serves. Out: offers that were taken, to `receive` and on to the engine.
//! [`machine`] has the rules; `call` is one call to one activator; [`task`] does what the machine asks.

mod call;
pub mod machine;
pub mod task;

pub use task::{Ending, Registration, Request};
