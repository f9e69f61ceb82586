//! The bounds on a stream by link: a name, a value, a reason.

use std::time::Duration;

/// Bytes kept since the last checkpoint. Reached, nothing more is read from the publisher, and the worker has [`DEAD_AFTER`] to say a
/// checkpoint.
pub(crate) const MAX_KEPT: usize = liveedgecast_common::handoff::limits::MAX_KEPT_BYTES;

/// Time without a sign of the worker, or at the bound, after which the worker counts as dead.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);

/// Reads of a worker that is about to be given up, of 16 KiB: what its socket keeps, which is bounded, and what it goes on to say.
pub(crate) const ARRIVED_READS: usize = 256;

/// Signs of ours, at least, and looks at the worker's: a worker that hears nothing for 2 s has lost us.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// Bytes for the publisher that its socket has not taken. It is sent a hundred bytes now and then; for one that reads nothing, the newest
/// answer takes the place of the one before.
pub(crate) const MAX_REPLIES: usize = 64 << 10;

/// Time from the publisher's end to the worker's `Done`: the worker passes the last bytes on and says so.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);

/// Room for reads of the publisher, made when the last one is used up; a read takes what is left of it. Doubled when a read has filled
/// it, from this …
pub(crate) const LEAST_BLOCK: usize = 8 << 10;

/// … to this.
pub(crate) const MOST_BLOCK: usize = 64 << 10;

/// Least room for a read.
pub(crate) const LEAST_READ: usize = 4 << 10;

/// Pieces in one vectored write: what a frame of 64 KiB is made of, when the publisher sends MTU by MTU.
pub(crate) const MAX_SLICES: usize = 48;

/// Room for frame headers that is kept for the next one; the assignment needs more, once.
pub(crate) const KEPT_HEAD: usize = 256;
