//! LiveEdgeCast worker.
pub mod register;
