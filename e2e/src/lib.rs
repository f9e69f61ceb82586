//! Scenarios, benchmark and experiments.
#![forbid(unsafe_code)]

pub mod bench;
