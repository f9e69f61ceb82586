//! Calls of the kernel that no library offers; the only module that may use `unsafe`. Each file gives its reason.
//!
//! - [`blocks`]: memory that goes back to the kernel block by block.
//! - [`ring_memory`]: a stream's memory, shared by descriptor, mapped twice in a row.
//! - [`socket`]: the kernel's knowledge of a connection: position, unsent bytes, the process at the other end, descriptors passed along.
//! - [`mod@prefetch`]: memory that is about to be used.
//! - [`process`]: a process that cannot be mistaken for another one.
//! - [`reuse_port`]: the choice of the listener, of several on one port, that gets the connections.
//! - [`time_slice`]: how soon a thread that wakes up runs on a busy core.

pub mod blocks;
pub mod prefetch;
pub mod process;
pub mod reuse_port;
pub mod ring_memory;
pub mod socket;
pub mod time_slice;

pub use blocks::MemoryBlock;
pub use prefetch::{prefetch, prefetch_behind, prefetch_start};
pub use process::ProcessHandle;
pub use ring_memory::peek::RingPeek;
pub use ring_memory::{RingMemory, STATE_BYTES, UnmappedRing};
pub use socket::{
    MAX_DESCRIPTORS, PeerCredentials, bytes_received, network_namespace, peer, quick_ack, read_now, recv_with_fds,
    send_with_fds, set_receive_low_water, unsent,
};
