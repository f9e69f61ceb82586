//! The worker: takes streams from activators and retransmits each of them to its upstreams.
#![forbid(unsafe_code)]

pub mod config;
pub mod drain;
pub mod engine;
pub mod metrics;
pub mod receive;
pub mod register;
pub mod stream;
pub mod upstream;
