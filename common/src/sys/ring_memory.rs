//! A stream's memory: a memfd that the activator creates and keeps, and that the worker maps and receives into. When the worker dies the
//! bytes are still there, for its successor.
//!
//! ```text
//!  memfd:    [ state page, STATE_BYTES ][ ring, a power of two ]
//!  mapping:  [ state page              ][ ring                 ][ the same ring again ]
//! ```
//!
//! Mapped twice in a row, any window of the ring is one slice, wherever it begins. A byte is addressed by its position in the
//! publisher's connection.
//!
//! What surprised us: whoever holds a descriptor of ordinary shared memory can shrink it and so kill everybody who has it mapped, by
//! SIGBUS. Seals forbid it, so they are checked, not assumed.
#![allow(unsafe_code, reason = "mapping memory")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::handoff::page;

/// Bytes of the state page: both slots. Untouched pages cost nothing; a usual snapshot touches one or two in each slot.
pub const STATE_BYTES: usize = 2 * page::SLOT_BYTES;

/// Smallest ring: a multiple of every page size that Linux has.
pub const MIN_RING_BYTES: usize = 64 << 10;

/// Largest ring: beyond it a setting is a mistake.
pub const MAX_RING_BYTES: usize = 1 << 30;

const _: () = assert!(STATE_BYTES.is_multiple_of(MIN_RING_BYTES));

/// The seals that let nobody change the size any more.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The mapped memory of one stream. Nobody else writes to it: the activator does not map it, and a predecessor is dead, which
/// [`super::ProcessHandle`] makes certain.
#[derive(Debug)]
pub struct RingMemory {
    /// The state page, then the ring twice.
    base: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the mapping belongs to this value alone, like the memory of a `Box<[u8]>`.
unsafe impl Send for RingMemory {}
// SAFETY: `&self` only reads.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Creates the memory, sealed and not mapped. It is all zeros and takes no room yet.
    ///
    /// # Errors
    /// `ring_bytes` is not a power of two from [`MIN_RING_BYTES`] to [`MAX_RING_BYTES`]; or the kernel's.
    pub fn create(ring_bytes: usize) -> io::Result<OwnedFd> {
        if !valid(ring_bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ring is a power of two, 64 KiB to 1 GiB"));
        }
        let memory = memfd_create("liveedgecast-stream", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, (STATE_BYTES + ring_bytes) as u64)?;
        fcntl_add_seals(&memory, SEALS)?;
        Ok(memory)
    }

    /// Maps memory that somebody sent. Its size and seals are checked first.
    ///
    /// # Errors
    /// It is not memory as [`Self::create`] makes it; or the kernel's.
    pub fn map(memory: OwnedFd) -> io::Result<Self> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        // What is no memfd has no seals.
        let seals = fcntl_get_seals(&memory).map_err(|_| wrong("the ring's descriptor is not memory"))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(wrong("the ring's memory is not sealed"));
        }
        let size = usize::try_from(fstat(&memory)?.st_size).unwrap_or(0);
        let capacity = size.checked_sub(STATE_BYTES).filter(|capacity| valid(*capacity));
        let capacity = capacity.ok_or_else(|| wrong("the ring's memory has a wrong size"))?;

        let reserved = STATE_BYTES + 2 * capacity;
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| wrong("the kernel mapped nothing"))?;
        // From here on dropping unmaps it.
        let this = Self { base, capacity };
        this.map_at(&memory, 0, STATE_BYTES + capacity, 0)?;
        this.map_at(&memory, STATE_BYTES + capacity, capacity, STATE_BYTES as u64)?;
        Ok(this)
    }

    fn map_at(&self, memory: impl AsFd, at: usize, len: usize, offset: u64) -> io::Result<()> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: `at..at + len` lies within what `map` has reserved, which nobody else uses; FIXED replaces just that.
        unsafe { mmap(self.base.as_ptr().add(at).cast(), len, access, flags, memory, offset)? };
        Ok(())
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Offset of a window in the mapping.
    fn window(&self, position: u64, len: usize) -> usize {
        assert!(len <= self.capacity, "a window is no longer than the ring");
        STATE_BYTES + (position & (self.capacity as u64 - 1)) as usize
    }

    /// The `len` bytes from a position of the connection on. Whether they are still, or already, there is for the caller to know.
    ///
    /// # Panics
    /// `len` is more than [`Self::capacity`].
    #[must_use]
    pub fn bytes(&self, position: u64, len: usize) -> &[u8] {
        let at = self.window(position, len);
        // SAFETY: `at` is less than the capacity behind the page, so `at + len` is within the two mappings of the ring, which are
        // readable as long as `self` lives. The memory is initialised (the kernel's zeros at least), and nobody writes while `self` is
        // borrowed (see the type). The size cannot change: it is sealed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), len) }
    }

    /// The same, to receive into.
    ///
    /// # Panics
    /// `len` is more than [`Self::capacity`].
    #[must_use]
    pub fn space(&mut self, position: u64, len: usize) -> &mut [u8] {
        let at = self.window(position, len);
        // SAFETY: as in `bytes`; and a window no longer than the ring holds no byte twice, so the slice does not alias itself.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), len) }
    }

    /// Gives the memory of all whole pages of these positions back to the kernel; they read as zeros then. A stream takes no more memory
    /// than its window needs, however large its ring may be. The positions must not be older than one lap: those bytes are others by now.
    ///
    /// # Errors
    /// The kernel's; nothing is lost but the memory stays.
    ///
    /// # Panics
    /// More than [`Self::capacity`].
    pub fn release(&mut self, from: u64, to: u64) -> io::Result<()> {
        let page = rustix::param::page_size() as u64;
        let (first, end) = (from.next_multiple_of(page), to - to % page);
        let Some(len) = end.checked_sub(first).filter(|len| *len > 0) else { return Ok(()) };
        let at = self.window(first, len as usize);
        // SAFETY: as in `bytes`, the range is within the two mappings of the ring. It begins and ends with a page (the state page and the
        // capacity are whole pages), and nobody else looks at it while `self` is borrowed. What is left is initialised: zeros.
        unsafe { madvise(self.base.as_ptr().add(at).cast(), len as usize, Advice::LinuxRemove)? };
        Ok(())
    }

    /// The state page: see [`crate::handoff::page`].
    #[must_use]
    pub fn page(&self) -> &[u8] {
        // SAFETY: as in `bytes`; the page is the first part of the mapping.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), STATE_BYTES) }
    }

    /// The state page, to publish to.
    #[must_use]
    pub fn page_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `page`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), STATE_BYTES) }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` has reserved; no slice outlives `self`. It fails only for wrong arguments.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), STATE_BYTES + 2 * self.capacity) };
    }
}

fn valid(ring_bytes: usize) -> bool {
    ring_bytes.is_power_of_two() && (MIN_RING_BYTES..=MAX_RING_BYTES).contains(&ring_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> RingMemory {
        RingMemory::map(RingMemory::create(MIN_RING_BYTES).unwrap()).unwrap()
    }

    #[test]
    fn a_window_over_the_end_is_one_slice() {
        let mut ring = ring();
        let capacity = ring.capacity() as u64;
        // Far into a connection, ten bytes before the end.
        let position = 7 * capacity - 10;
        ring.space(position, 20).copy_from_slice(b"0123456789abcdefghij");
        assert_eq!(ring.bytes(position, 20), b"0123456789abcdefghij");
        assert_eq!(ring.bytes(position + 10, 10), b"abcdefghij");
        assert_eq!(ring.bytes(0, 10), b"abcdefghij");
        assert_eq!(ring.bytes(capacity - 10, 10), b"0123456789");
        // The whole ring, from the middle.
        assert_eq!(ring.bytes(capacity / 2, capacity as usize).len(), capacity as usize);
        ring.space(capacity - 1, capacity as usize).fill(7);
        assert!(ring.bytes(0, capacity as usize).iter().all(|byte| *byte == 7));
    }

    #[test]
    fn the_page_is_apart_and_outlives_the_mapping() {
        let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
        let kept = memory.try_clone().unwrap();
        let mut ring = RingMemory::map(memory).unwrap();
        assert!(ring.page().iter().all(|byte| *byte == 0) && ring.page().len() == STATE_BYTES);
        ring.page_mut().fill(1);
        ring.space(0, ring.capacity()).fill(2);
        assert!(ring.page().iter().all(|byte| *byte == 1));
        drop(ring);
        let again = RingMemory::map(kept).unwrap();
        assert!(again.page().iter().all(|byte| *byte == 1));
        assert!(again.bytes(5, again.capacity()).iter().all(|byte| *byte == 2));
    }

    #[test]
    fn released_pages_are_zeros_and_cost_nothing() {
        let memory = RingMemory::create(1 << 20).unwrap();
        let kept = memory.try_clone().unwrap();
        let blocks = || fstat(&kept).unwrap().st_blocks * 512;
        let mut ring = RingMemory::map(memory).unwrap();
        let capacity = ring.capacity();
        ring.page_mut()[0] = 1;
        ring.space(0, capacity).fill(2);
        let before = blocks();
        // Over the end of the ring, from and to the middle of a page. The kernel may keep pages that it holds as parts of larger ones.
        let (page, half) = (rustix::param::page_size() as u64, 256 << 10);
        let (from, to) = (3 * capacity as u64 - half - 10, 3 * capacity as u64 + half + 10);
        ring.release(from, to).unwrap();
        let freed = before - blocks();
        assert!(freed >= half as i64 && freed <= 2 * half as i64, "{freed}");
        let zeros = ring.bytes(0, capacity).iter().filter(|byte| **byte == 0).count();
        assert_eq!(zeros, 2 * half as usize);
        assert_eq!(ring.bytes(from, 10), [2; 10]);
        assert_eq!(ring.bytes(to - 10, 10), [2; 10]);
        assert_eq!(ring.page()[0], 1);
        // Less than a page is none.
        ring.release(half + 5, half + page - 1).unwrap();
        ring.release(7, 7).unwrap();
        assert_eq!(ring.bytes(half + 5, 1), [2]);
        ring.space(from, 20).fill(3);
        assert_eq!(ring.bytes(from, 20), [3; 20]);
    }

    #[test]
    #[should_panic(expected = "no longer than the ring")]
    fn a_window_is_bounded() {
        let _ = ring().bytes(0, MIN_RING_BYTES + 1);
    }

    #[test]
    fn only_powers_of_two() {
        for size in [0, 1, 4096, MIN_RING_BYTES - 1, MIN_RING_BYTES + 4096, 3 * MIN_RING_BYTES, 2 * MAX_RING_BYTES] {
            assert_eq!(RingMemory::create(size).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{size}");
        }
    }

    #[test]
    fn a_strangers_descriptor_is_refused() {
        let unsealed = || memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let refusal = |memory: OwnedFd| {
            let error = RingMemory::map(memory).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            error.to_string()
        };
        assert_eq!(refusal(tempfile::tempfile().unwrap().into()), "the ring's descriptor is not memory");
        assert_eq!(
            refusal(std::net::UdpSocket::bind("[::1]:0").unwrap().into()),
            "the ring's descriptor is not memory"
        );

        let memory = unsealed();
        ftruncate(&memory, (STATE_BYTES + MIN_RING_BYTES) as u64).unwrap();
        assert_eq!(refusal(memory.try_clone().unwrap()), "the ring's memory is not sealed");
        fcntl_add_seals(&memory, SealFlags::GROW).unwrap();
        assert_eq!(refusal(memory.try_clone().unwrap()), "the ring's memory is not sealed");
        fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        assert!(RingMemory::map(memory).is_ok());

        for size in [0, STATE_BYTES, STATE_BYTES + 4096, STATE_BYTES + 3 * MIN_RING_BYTES] {
            let memory = unsealed();
            ftruncate(&memory, size as u64).unwrap();
            fcntl_add_seals(&memory, SEALS).unwrap();
            assert_eq!(refusal(memory), "the ring's memory has a wrong size");
        }
    }

    #[test]
    fn nobody_can_take_the_memory_away() {
        let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
        assert!(ftruncate(&memory, 0).is_err() && ftruncate(&memory, 1 << 30).is_err());
        assert!(fcntl_add_seals(&memory, SealFlags::WRITE).is_err());
    }
}
