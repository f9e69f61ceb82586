//! The state page: a stream's last snapshot in memory that outlives its worker. In: the worker's snapshot at each keyframe. Out: the newest
//! whole snapshot, for the worker's successor. The last writer may have been killed in the middle of a write, or be hostile: nothing in the
//! page is trusted.
//!
//! The page has two slots, written in turns:
//!
//! ```text
//!  magic 4 | length u32 | sequence u64 | checksum 16: SHA-256 of all the rest, cut | snapshot
//! ```
//!
//! Note: "the slot with the lower sequence" is not always the one to overwrite. A writer that died in the middle may leave a slot with the
//! higher sequence whose rest is torn; then the slot with the lower sequence is the only valid one.

use ring::digest;

use super::limits::MAX_SNAPSHOT_BYTES;
use super::snapshot::Snapshot;

/// Bytes of one slot: the largest snapshot, rounded up to a multiple of every page size that Linux has.
pub const SLOT_BYTES: usize = (MAX_SNAPSHOT_BYTES + 4096).next_multiple_of(64 << 10);

/// First bytes of a written slot: our name and the version of the slots.
const MAGIC: [u8; 4] = *b"LEP1";
const CHECKSUM_BYTES: usize = 16;
/// Magic, length, sequence, checksum.
pub(crate) const HEAD_BYTES: usize = 4 + 4 + 8 + CHECKSUM_BYTES;

// Two words that belong to the ring stand behind the second slot's snapshot.
const _: () = assert!(HEAD_BYTES + MAX_SNAPSHOT_BYTES + 2 * size_of::<u64>() <= SLOT_BYTES);

/// Writes the snapshot into the slot that does not hold the last valid one. `false`: the snapshot is too large, or `page` is too small to
/// be a page; nothing was written.
pub fn publish(page: &mut [u8], snapshot: &Snapshot) -> bool {
    if snapshot.check().is_err() {
        return false;
    }
    let bytes = snapshot.encode();
    let Some((first, rest)) = page.split_at_mut_checked(SLOT_BYTES) else { return false };
    if bytes.len() > MAX_SNAPSHOT_BYTES || rest.len() < SLOT_BYTES {
        return false;
    }
    let (one, other) = (valid(first), valid(rest));
    let sequence = one.max(other).map_or(1, |(sequence, _)| sequence.saturating_add(1));
    let slot = if one > other { rest } else { first };
    let head = head(sequence, &bytes);
    slot[..HEAD_BYTES].copy_from_slice(&head);
    slot[HEAD_BYTES..][..bytes.len()].copy_from_slice(&bytes);
    true
}

/// The newest snapshot that was written whole.
#[must_use]
pub fn read(page: &[u8]) -> Option<Snapshot> {
    // A copy cannot change after its check, as the shared memory can.
    let slots = page.chunks_exact(SLOT_BYTES).take(2).filter_map(|slot| {
        let (_, length) = valid(slot)?;
        let copy = slot[..HEAD_BYTES + length].to_vec();
        let (sequence, length) = valid(&copy)?;
        let snapshot = Snapshot::decode(copy.get(HEAD_BYTES..HEAD_BYTES + length)?).ok()?;
        Some((sequence, snapshot))
    });
    slots.max_by_key(|(sequence, _)| *sequence).map(|(_, snapshot)| snapshot)
}

fn head(sequence: u64, snapshot: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&(snapshot.len() as u32).to_be_bytes());
    head[8..16].copy_from_slice(&sequence.to_be_bytes());
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(&head[..16]);
    digest.update(snapshot);
    head[16..].copy_from_slice(&digest.finish().as_ref()[..CHECKSUM_BYTES]);
    head
}

/// Sequence and length of the snapshot in a slot, if the slot still holds what was once written to it.
fn valid(slot: &[u8]) -> Option<(u64, usize)> {
    let (found, rest) = slot.split_first_chunk::<HEAD_BYTES>()?;
    let length = u32::from_be_bytes(*found[4..].first_chunk()?) as usize;
    let sequence = u64::from_be_bytes(*found[8..].first_chunk()?);
    let snapshot = rest.get(..length).filter(|_| found.starts_with(&MAGIC) && length <= MAX_SNAPSHOT_BYTES)?;
    (*found == head(sequence, snapshot)).then_some((sequence, length))
}
