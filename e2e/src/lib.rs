//! Scenarios, benchmark and experiments.
