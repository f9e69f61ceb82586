//! The bounds on a worker that comes for a stream, or has one: a name, a value, a reason.

use std::time::Duration;

/// Time from a connection at the listener to its proof. A worker has its bytes ready; a stranger waits no longer than this.
pub(super) const PREFACE_TIME: Duration = Duration::from_secs(5);

/// Connections at each of the two listeners that have not proved themselves: every stream of a large fleet at once, at some 2 KiB each. One
/// more, and the oldest is closed: a worker takes milliseconds, so strangers do not keep it out.
pub(super) const MAX_GREETINGS: usize = 512;

/// Time from the assignment to `Accepted`. The worker only looks whether it has room; one that takes longer hangs.
pub(crate) const ACCEPT_TIME: Duration = Duration::from_secs(5);

/// Time from a kick to the end of the stream: the worker says goodbye to its upstreams.
pub(crate) const KICK_TIME: Duration = Duration::from_secs(5);

/// Time from the end of a connection to the end of its process, when the process dies: its threads and memory go first.
pub(super) const DEATH_TIME: Duration = Duration::from_secs(2);

/// Time that a living worker may keep a socket that it has given back or whose connection it has closed. Both go in one drop, but a worker
/// that goes down has fifty of them to drop, and it is killed when this time is over.
pub(super) const RELEASE_TIME: Duration = Duration::from_secs(1);

/// Time between two looks whether a worker holds a socket.
pub(super) const RELEASE_LOOK: Duration = Duration::from_millis(10);

/// Memories of ended streams that are kept for the next ones: more than end and begin within a quarter of a minute where it matters.
pub(super) const MAX_SPARES: usize = 16;

/// Bytes of all these memories together. Twelve streams of 2.5 Mbps have so much.
pub(super) const MAX_SPARE_BYTES: u64 = 16 << 20;

/// Time for which a memory is kept. For the grace time its worker may need it still.
pub(super) const SPARE_TIME: Duration = Duration::from_secs(30);
