//! The worker: takes streams from activators and retransmits each of them to its upstreams.
//!
//! The rooms, in the order of the bytes:
//!
//! - [`register`] dials in to every activator and takes offers,
//! - [`receive`] fetches an offered stream, over a Unix socket or TCP that it dials,
//! - [`engine`] gives it to a thread, where [`stream`] reads the publisher into its ring,
//! - [`upstream`] is the way out of the ring, one per destination.
//!
//! Around them: [`config`] (arguments → settings), [`drain`], [`http`], [`metrics`]; [`task`] puts them together.
//!
//! | task | started by | ended by | owns |
//! | --- | --- | --- | --- |
//! | the drain, [`task::run`] | `main` | signals, or being orphaned | the list of going down |
//! | registration | the drain | its phase `Leave` | the register machine |
//! | call, one per activator | registration | its peer, registration | one control call |
//! | fetch, one per offer | registration | its deadline | one handoff connection, up to its assignment |
//! | engine | the drain | the process | the table of streams, the threads |
//! | thread, N at most | engine, when first needed | the process | a `LocalSet` |
//! | stream | thread | its publisher, its activator, a kick, the drain | publisher, ring, upstreams, handoff connection |
//! | HTTP | the drain | its last phase | the HTTP listener |

#![forbid(unsafe_code)]

pub mod config;
pub mod drain;
pub mod engine;
pub mod http;
pub mod metrics;
pub mod receive;
pub mod register;
pub mod stream;
pub mod task;
#[cfg(test)]
mod testkit;
pub mod upstream;
