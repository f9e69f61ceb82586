//! The bounds on a stream by link: a name, a value, a reason.

use std::time::Duration;

use liveedgecast_common::handoff::limits::MAX_DATA_BYTES;
use liveedgecast_common::sys::blocks::BLOCK_BYTES;

/// Most bytes kept since the last checkpoint. At this bound nothing more is read from the publisher, and the worker has [`DEAD_AFTER`] to
/// make a checkpoint.
pub(crate) const MAX_KEPT: usize = liveedgecast_common::handoff::limits::MAX_KEPT_BYTES;

/// Time without a sign of the worker, or at the bound, after which the worker counts as dead.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);

/// Most reads, of 16 KiB each, from a worker that is about to be given up: enough for what its socket holds and what it sends meanwhile.
pub(crate) const ARRIVED_READS: usize = 256;

/// Longest time between two signs of life to the worker, and between two checks of the worker's own. A worker that hears nothing for 2 s
/// takes this process for lost.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// Most bytes of answers that wait for the publisher's socket. A publisher is sent a hundred bytes now and then; for one that reads nothing,
/// the newest answer takes the place of the one before.
pub(crate) const MAX_REPLIES: usize = 64 << 10;

/// Time from the publisher's end to the worker's `Done`: the worker passes the last bytes on and says so.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);

/// Time from the publisher's end in which other workers get the rest of its stream if one is lost: a worker that is lost is noticed after 2 s, and
/// another one may have to be started.
pub(crate) const REST_TIME: Duration = Duration::from_secs(30);

/// Least room for a read of the publisher's bytes: a usual frame of video.
pub(crate) const LEAST_READ: usize = BLOCK_BYTES;

/// Room for a read that follows on some that have filled theirs.
pub(crate) const MOST_READ: usize = 64 << 10;

/// Reads of one publisher before the others have their turn.
pub(crate) const ARRIVALS_PER_POLL: usize = 16;

/// Reads of a worker's frames before the others have their turn. A worker sends a few frames a second; one that sends without end
/// would otherwise hold the thread of all links.
pub(crate) const FRAME_READS_PER_POLL: usize = 16;

/// Most pieces in one vectored write: frame headers, and a frame of 64 KiB that begins and ends within a block.
pub(crate) const MAX_SLICES: usize = 2 + MAX_DATA_BYTES.div_ceil(BLOCK_BYTES);

/// Largest buffer for the worker's frames that is kept for the next one; a checkpoint may need a larger one, every second or two.
pub(crate) const KEPT_FRAMES: usize = 1 << 10;

/// Largest buffer for frame headers that is kept for the next one; the assignment needs a larger one, once.
pub(crate) const KEPT_HEAD: usize = 256;
