//! LiveEdgeCast worker.
pub mod register;
pub mod upstream;
