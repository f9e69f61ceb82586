//! The connections of strangers. In: a listener. Out: a [`PublisherConnection`] with its options set and a [`Permit`], in a task of its own.
//! Next: `publisher`.
//!
//! The loop never awaits a peer: accept, permit, spawn. Note: a process without free descriptors gets EMFILE from `accept` again and again
//! while the connection stays in the backlog, so a loop that "just retries" spins a core; and an IPv4 publisher on a dual-stack socket is
//! `::ffff:a.b.c.d`, a different address to every limit unless it is unmapped first.

mod connection;
mod limits;
mod metrics;
mod opening;
mod proxied;
mod secure;
mod socket;
mod task;

pub use connection::PublisherConnection;
pub(crate) use connection::{ConnectionEvent, WatchFor};
pub use limits::{ConnectionLimits, Permit, TurnedAway};
pub use metrics::AcceptMetrics;
pub(crate) use opening::UNTRUSTED;
pub(crate) use secure::TLS_HANDSHAKE;
pub use secure::{RtmpsListener, TlsFailure};
pub use task::{Accepted, run};
