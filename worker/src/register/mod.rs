//! Registration: the worker dials in to every activator and stays (DESIGN 4.3).
//!
//! In: the activator's name, what the engine serves. Out: offers that were taken. Next room: `receive`.

pub mod machine;
