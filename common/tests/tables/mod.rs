//! Tables of wire bytes, as plain data: for the unit tests, for the corpus, and as seeds for fuzzing.
#![allow(unreachable_pub, dead_code, reason = "shared by unit tests and the corpus, each of which uses a part")]

pub mod aggregate;
pub mod amf0;
pub mod chunk;
pub mod client;
pub mod media;
pub mod session;
