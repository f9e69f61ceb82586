//! The worker: takes streams from activators and retransmits each of them to its upstreams.
//!
//! The rooms, lowest first; a room imports those above it in this list, never one below:
//!
//! - [`config`] has all settings: arguments, judged and resolved,
//! - [`drain`] is the list of phases in which the process goes down,
//! - [`receive`] fetches an offered stream, over a Unix socket or TCP that it dials,
//! - [`upstream`] is the way out of a stream's ring, one per destination,
//! - [`stream`] reads the publisher into its ring,
//! - [`engine`] gives each stream to a thread,
//! - [`register`] dials in to every activator and takes offers,
//! - [`metrics`] gathers each room's metrics for one page,
//! - [`http`] serves that page, health and readiness,
//! - [`task`] starts all of them, and walks the list of going down.
//!
//! The bytes of a publisher pass `register` (the offer), `receive`, `engine`, `stream` and `upstream`.
//!
//! | task | started by | ended by | owns |
//! | --- | --- | --- | --- |
//! | the drain, [`task::run`] | `main` | signals, or being orphaned | the list of going down |
//! | registration | the drain | its phase `Leave` | the register machine |
//! | call, one per activator | registration | its peer, registration | one control call |
//! | fetch, one per offer | registration | its deadline | one handoff connection, up to its assignment |
//! | giving back, one at most | a stream that ends | the last ring that waits | the timer of the rings that wait for streams |
//! | engine | the drain | the process | the table of streams, the threads |
//! | thread, N at most | engine, when first needed | the process | a `LocalRuntime` |
//! | forwarding, one per thread | thread | the process | reports and notices of its streams on their way to the engine |
//! | stream | thread | its publisher, its activator, a kick, the drain | publisher, ring, upstreams, handoff connection |
//! | export of traces, if configured | the drain | the process | spans that wait for the collector |
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
