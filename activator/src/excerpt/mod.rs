//! The last seconds of a stream as a file. In: the bytes that this process keeps of a publisher anyway, for the successor of its worker: the ring's
//! memory, or the link's buffer. Out: an FLV file, or the last keyframe as one. Next: `lobby`, and the folder of incidents.
//!
//! It serves where the worker, which sees more of the stream, cannot be asked. Nothing is kept for this room, and nothing runs until somebody asks. The
//! worker notices nothing: its ring is read by calls of the kernel, and what it may have overwritten meanwhile is thrown away and read once more.

mod flv;
mod read;

use std::fmt;
use std::os::fd::OwnedFd;

use liveedgecast_common::handoff::Snapshot;

pub use flv::Extent;
pub(crate) use read::position;
pub use read::{ExcerptError, read};

/// The bytes that this process keeps of a stream.
pub enum KeptBytes {
    /// By descriptor: the memory that the worker receives into, and the position up to which it has received.
    Memory {
        /// A duplicate of the memory's descriptor.
        memory: OwnedFd,
        /// Position of the next byte.
        head: u64,
    },
    /// By link: a copy of the bytes behind a snapshot.
    Copied {
        /// The state at the first byte.
        snapshot: Box<Snapshot>,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// Shows no bytes: a command among them may hold the key.
impl fmt::Debug for KeptBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { head, .. } => write!(f, "Memory(up to {head})"),
            Self::Copied { bytes, .. } => write!(f, "Copied({} bytes)", bytes.len()),
        }
    }
}
