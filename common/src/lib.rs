//! The code that both processes need, or the wire between them. Without IO where that is possible.
//!
//! - [`rtmp`]: the protocol, bytes to messages and sessions, and back.
//! - [`handoff`]: the frames of an activator and a worker about one stream. [`control`]: their messages about all streams.
//! - [`proof`]: the proof that both sides of a call know the secret. [`greet`]: the caller's side of it.
//! - [`encryption`]: TLS between our own processes, to which the proofs are bound. [`trust`]: the verdict on the certificates of upstreams.
//! - [`discovery`], [`introduce`]: the addresses of activators.
//! - [`proxy`]: the header with which a proxy names its client.
//! - [`key`], [`url`]: names, secrets, and the destinations of a stream.
//! - [`config`], [`setting`], [`environment`], [`runtime`], [`stderr`], [`listen`], [`socket`], [`http`], [`metrics`], [`evicting_limit`]: the parts of a process.
//! - [`gather`]: the time at which a socket is read whose arrivals gather. [`wakes`]: which sources of a task have news.
//! - [`drain`]: going down, as a list.
//! - [`trace`]: traces of stream starts.
//! - [`event`]: the names of the events in the log.
//! - [`clock`]: the one clock of every shell; tests of machines get theirs from `testkit`.
//! - [`backoff`], [`random`], [`log_limiter`]: small values.
//! - [`sys`]: the kernel's calls that no library has. Unsafe code is there and nowhere else.
#![deny(unsafe_code)]

pub mod backoff;
pub mod clock;
pub mod config;
pub mod control;
pub mod discovery;
pub mod drain;
pub mod encryption;
pub mod environment;
pub mod event;
pub mod evicting_limit;
pub mod gather;
pub mod greet;
pub mod handoff;
pub mod health;
pub mod http;
pub mod introduce;
pub mod key;
pub mod listen;
pub mod log_limiter;
pub mod metrics;
pub mod proof;
pub mod proxy;
pub mod random;
pub mod rtmp;
pub mod runtime;
pub mod setting;
pub mod socket;
pub mod stderr;
pub mod sys;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod trace;
pub mod trust;
pub mod url;
pub mod wakes;
