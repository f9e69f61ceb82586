//! Fetches a stream. In: an offer that was taken. Out: a [`FetchedStream`] (the stream with everything that belongs to it), or the reason why
//! it was not fetched. Next room: `engine`, which gives it to a stream's task; that goes on with the same [`HandoffStream`].
//!
//! A worker listens on nothing: it dials back, to the abstract Unix socket of an activator on its own host (by descriptor)
//! or to the link port of the host that it registered at.

mod connection;
mod fetch;
mod spare;

pub use connection::{Detached, HandoffError, HandoffStream, LinkArrival, MAX_QUEUED};
pub(crate) use fetch::refuse;
pub use fetch::{FAILURES, FETCH_TIMEOUT, FetchError, FetchedRing, FetchedStream, fetch};
pub use spare::{SpareMetrics, SpareRings};
