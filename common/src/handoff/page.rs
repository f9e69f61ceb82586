//! The state page: a stream's last snapshot in memory that outlives its worker. The worker publishes at keyframes; its successor, or
//! nobody, reads. Whoever wrote to the page last may have been killed in the middle, or be hostile: nothing in it is trusted.
//!
//! Two slots, written in turns:
//! ```text
//!  magic 4 | length u32 | sequence u64 | SHA-256 of all the rest, 16 bytes of it | snapshot
//! ```
//!
//! What surprised us: "the slot with the lower sequence" is not always the one to overwrite. A writer that died in the middle may leave a
//! slot whose sequence is the higher one and whose rest is torn; then the lower one is all there is.

use super::limits::MAX_SNAPSHOT_BYTES;
use super::snapshot::Snapshot;

/// Bytes of one slot: the largest snapshot, rounded up to a multiple of every page size that Linux has.
pub const SLOT_BYTES: usize = (MAX_SNAPSHOT_BYTES + 4096).next_multiple_of(64 << 10);

/// Writes the snapshot into the slot that does not hold the last valid one. `false`: it is larger than a slot, nothing was written.
pub fn publish(page: &mut [u8], snapshot: &Snapshot) -> bool {
    let _ = (page, snapshot);
    todo!()
}

/// The newest snapshot that is wholly there.
#[must_use]
pub fn read(page: &[u8]) -> Option<Snapshot> {
    let _ = page;
    todo!()
}
