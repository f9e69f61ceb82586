//! Room 1. In: TCP connections from strangers. Out: a socket with its options set and a [`Permit`], in a task of its
//! own. Next: `publisher`.
//!
//! The loop never awaits a peer: permit, accept, spawn. What surprised us: a process without free descriptors gets
//! EMFILE from `accept` again and again while the connection stays in the backlog, so a loop that "just retries" spins
//! a core; and an IPv4 publisher on a dual-stack socket is `::ffff:a.b.c.d`, a different address to every limit unless
//! it is unmapped first.

mod limits;
mod metrics;
mod socket;
mod task;

pub use limits::{Doorman, Permit, TurnedAway};
pub use metrics::AcceptMetrics;
pub use task::{Accepted, run};
