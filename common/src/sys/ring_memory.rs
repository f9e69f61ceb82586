//! The memory of one stream: a memfd that the activator creates and keeps, and that a worker maps and receives into. When the worker dies
//! the bytes are still there, for its successor.
//!
//! In: a size, or a descriptor that came with a handoff. Out: [`RingMemory`], whose windows are slices. Users: `worker::receive` checks the
//! descriptor, `worker::stream` maps it.
//!
//! ```text
//!  memfd:    [ state page, STATE_BYTES ][ ring, a power of two ]
//!  mapping:  [ state page              ][ ring                 ][ the same ring again ]
//! ```
//!
//! The ring is mapped twice in a row, so any window of it is one slice, wherever the window begins. A byte is addressed by its position in
//! the publisher's connection.
//!
//! A stream uses only the first part of its ring, the *lap*, round and round. It grows and shrinks with the stream's window: see [`lap`]. The
//! memory of a stream that has ended can be that of another one: see [`reuse`]. A process that only looks into a memory reads it by calls of the
//! kernel: see [`peek`].
//!
//! Two mappings of one memfd in one process would give slices that alias each other in safe code. A process therefore maps a memory at most
//! once at a time: a set of the memories that are mapped is kept here, and [`UnmappedRing::map`] refuses the second mapping.
//!
//! One assumption remains that neither this file nor the kernel enforces: **while a memory is mapped, nothing else writes to it**, neither
//! another process nor this one through a descriptor (`pwrite`). A write would change bytes under a `&[u8]`, which is undefined behaviour in
//! safe code. It holds for the processes of this project: an activator keeps its descriptor only to pass it on. It passes it to a second
//! worker only when the first one is dead ([`super::ProcessHandle`] makes certain of that), or has given the stream back and so neither receives
//! nor publishes any more. It passes it to the same worker for another stream only when that has unmapped it ([`reuse`]). A worker gives its
//! descriptor to [`UnmappedRing::check`] and keeps no other.
//!
//! Note: one write is left over. A worker that has given a stream back unmaps the memory a little later, and then writes the word of [`reuse`],
//! which a second worker may have in its mapping by then. Nothing reads that word in memory that two workers have had.
//!
//! Only a process that knows `CONTROL_SECRET` and runs as root or as our user can pass memory to a worker at all. `F_SEAL_FUTURE_WRITE` would enforce it, and would forbid the successor's mapping as well, which has to write.
//!
//! Note: giving memory behind a window back to the kernel and taking it again in front cost a fifth of all that a relay does. A lap that
//! stays costs nothing, and the shorter it is, the more of it is still in the cache when it is written again.
//!
//! Note: a process with a descriptor of ordinary shared memory can shrink it and so kill every process that has it mapped, by SIGBUS. Seals
//! forbid that, so they are checked, not assumed.
#![allow(unsafe_code, reason = "mapping memory")]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat, ftruncate, memfd_create,
};
use rustix::io::pwrite;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mremap_fixed, munmap};

use self::lap::{FIRST_LAP_BYTES, LAP_AT};
use crate::handoff::page;

mod lap;
pub mod peek;
pub mod reuse;

/// Bytes of the state page: both slots. Untouched pages cost nothing; a usual snapshot touches one or two in each slot.
pub const STATE_BYTES: usize = 2 * page::SLOT_BYTES;

/// Smallest ring: a multiple of every page size that Linux has.
pub const MIN_RING_BYTES: usize = 64 << 10;

/// Largest ring: beyond it a setting is a mistake.
pub const MAX_RING_BYTES: usize = 1 << 30;

const _: () = assert!(STATE_BYTES.is_multiple_of(MIN_RING_BYTES));

/// The seals that fix the size for good.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Memories that this process has mapped. Locked when a stream begins and ends, never for a message.
static MAPPED: Mutex<BTreeSet<MemoryId>> = Mutex::new(BTreeSet::new());

/// Device and inode of a memfd: the same for every descriptor of one memory, and of no other memory as long as one of them is open or it is
/// mapped.
type MemoryId = (u64, u64);

/// Proof that no other mapping of this memory exists in this process. Dropping it allows the next one.
#[derive(Debug)]
struct SoleMapping(MemoryId);

impl SoleMapping {
    fn claim(id: MemoryId) -> io::Result<Self> {
        // `Self` is made behind the check: its drop removes the id.
        if !MAPPED.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            let why = "the ring's memory is mapped by this process already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Ok(Self(id))
    }
}

impl Drop for SoleMapping {
    fn drop(&mut self) {
        MAPPED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// A ring's memory whose size and seals were checked, and that is not mapped yet.
#[derive(Debug)]
pub struct UnmappedRing {
    memory: OwnedFd,
    id: MemoryId,
    ring_bytes: usize,
    /// No other process has it.
    private: bool,
}

impl UnmappedRing {
    /// Memory of a new ring, for this process alone.
    ///
    /// # Errors
    /// See [`RingMemory::create`].
    pub fn create(ring_bytes: usize) -> io::Result<Self> {
        Ok(Self { private: true, ..Self::check(RingMemory::create(ring_bytes)?)? })
    }

    /// Memory that came by descriptor, checked for its seals and its size. By passing it on, the caller states that nothing writes to it while
    /// it is mapped (see this file's header): that cannot be checked.
    ///
    /// # Errors
    /// The descriptor is not of memory as [`RingMemory::create`] makes it; or the kernel's.
    pub fn check(memory: OwnedFd) -> io::Result<Self> {
        // A descriptor of anything but a memfd has no seals.
        let seals = fcntl_get_seals(&memory).map_err(|_| wrong("the ring's descriptor is not memory"))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(wrong("the ring's memory is not sealed"));
        }
        let writable = fcntl_getfl(&memory)?.contains(OFlags::RDWR);
        if !writable || seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(wrong("the ring's memory cannot be written to"));
        }
        let stat = fstat(&memory)?;
        let size = usize::try_from(stat.st_size).unwrap_or(0);
        let ring_bytes = size.checked_sub(STATE_BYTES).filter(|ring_bytes| valid(*ring_bytes));
        let ring_bytes = ring_bytes.ok_or_else(|| wrong("the ring's memory has a wrong size"))?;
        Ok(Self { memory, id: (stat.st_dev, stat.st_ino), ring_bytes, private: false })
    }

    /// Bytes of the whole ring.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes
    }

    /// Maps the ring, and uses as much of it as its state page says. Safe under the assumption of this file's header: nothing else writes to
    /// the memory meanwhile.
    ///
    /// # Errors
    /// `AlreadyExists`: this process has it mapped; or the kernel's.
    pub fn map(&self) -> io::Result<RingMemory> {
        let sole = SoleMapping::claim(self.id)?;
        // SAFETY: `sole` is the proof that no other mapping of the memory exists in this process, and is kept as long as the mapping;
        // `check` has seen the size, and the seals that fix it. That nothing else writes to it is not proven: it is the assumption about the
        // peer and about this process's other descriptors that the file's header states.
        let mut ring = unsafe { RingMemory::map(&self.memory, self.ring_bytes, sole)? };
        ring.private = self.private;
        ring.write_entered();
        ring.use_lap()?;
        Ok(ring)
    }
}

/// The mapped memory of one stream: the only mapping of it in this process. Nothing else writes to it; see the file's header.
#[derive(Debug)]
pub struct RingMemory {
    /// The state page, then the ring twice.
    base: NonNull<u8>,
    whole: usize,
    /// Bytes of the ring that are in use, at most `whole`; a power of two, unless no other process has the memory.
    lap: usize,
    /// The descriptor, kept only where shared memory cannot be mapped a second time without it.
    memory: Option<OwnedFd>,
    /// No other process has the memory.
    private: bool,
    /// The whole range is mapped.
    is_mapped: bool,
    /// Dropped after the memory was unmapped.
    sole: SoleMapping,
}

// SAFETY: the mapping belongs to this value alone, like the memory of a `Box<[u8]>`; `SoleMapping` keeps it so.
unsafe impl Send for RingMemory {}
// SAFETY: `&self` only reads. Every method that writes to the memory or remaps it takes `&mut self`.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Creates the memory, sealed and not mapped, for a process to pass on. It is all zeros but for the length of its lap, and takes a page.
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
        pwrite(&memory, &(FIRST_LAP_BYTES as u64).to_ne_bytes(), LAP_AT as u64)?;
        Ok(memory)
    }

    /// Maps the state page once and the ring twice.
    ///
    /// # Safety
    /// `sole` is of this memory: two mappings in one process would alias. The memory has the state page and `ring_bytes` bytes behind it,
    /// which is sealed: an access behind the end would kill the process. Nothing else writes to it while it is mapped: no other process, and no
    /// descriptor of this one.
    unsafe fn map(memory: &OwnedFd, ring_bytes: usize, sole: SoleMapping) -> io::Result<Self> {
        let reserved = STATE_BYTES + 2 * ring_bytes;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| wrong("the kernel mapped nothing"))?;
        let mut this =
            Self { base, whole: ring_bytes, lap: ring_bytes, memory: None, private: false, is_mapped: false, sole };
        this.map_at(memory, 0, STATE_BYTES + ring_bytes, 0)?;
        if let Err(error) = this.map_ring_again(memory) {
            // SAFETY: the range that was mapped just now, of which no slice was given out.
            let _ = unsafe { munmap(base.as_ptr().cast(), STATE_BYTES + ring_bytes) };
            return Err(error);
        }
        this.is_mapped = true;
        Ok(this)
    }

    /// Maps the ring behind itself.
    fn map_ring_again(&mut self, memory: &OwnedFd) -> io::Result<()> {
        let (from, len) = (STATE_BYTES, self.whole);
        if self.map_again(from, len, from + len).is_ok() {
            return Ok(());
        }
        // Linux can; valgrind, in which the guard of costs runs, cannot.
        self.memory = Some(memory.try_clone()?);
        self.map_at(memory, from + len, len, from as u64)
    }

    /// Returns whether this is the mapping of that memory.
    #[must_use]
    pub fn is_of(&self, unmapped: &UnmappedRing) -> bool {
        self.sole.0 == unmapped.id
    }

    /// Returns whether no other process has the memory: it was made by [`UnmappedRing::create`].
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Maps `len` bytes, mapped at `from`, at `to` again.
    fn map_again(&mut self, from: usize, len: usize, to: usize) -> io::Result<()> {
        let start = self.base.as_ptr();
        // SAFETY: both ranges lie within the range that `map` has reserved for this value alone, of which no slice exists while `self` is
        // borrowed exclusively. A length of 0 maps shared memory a second time and leaves the first mapping (mremap(2)).
        unsafe { mremap_fixed(start.add(from).cast(), 0, len, MremapFlags::MAYMOVE, start.add(to).cast())? };
        Ok(())
    }

    fn map_at(&mut self, memory: impl AsFd, at: usize, len: usize, offset: u64) -> io::Result<()> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: `at..at + len` lies within the range that `map` has reserved for this value alone; FIXED replaces just that.
        unsafe { mmap(self.base.as_ptr().add(at).cast(), len, access, flags, memory, offset)? };
        Ok(())
    }

    /// Bytes of the ring that are in use.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.lap
    }

    /// Bytes of the ring that can be in use.
    #[must_use]
    pub fn most(&self) -> usize {
        self.whole
    }

    /// Offset of a window in the mapping.
    fn window(&self, position: u64, len: usize) -> usize {
        assert!(len <= self.lap, "a window is no longer than the ring");
        let lap = self.lap as u64;
        // Only a ring that no other process has uses laps of other lengths.
        let place = if lap.is_power_of_two() { position & (lap - 1) } else { position % lap };
        STATE_BYTES + place as usize
    }

    /// The `len` bytes from a position of the connection on. The caller knows whether they have been received and not been overwritten.
    ///
    /// # Panics
    /// `len` is more than [`Self::capacity`].
    #[must_use]
    pub fn bytes(&self, position: u64, len: usize) -> &[u8] {
        let at = self.window(position, len);
        // SAFETY: `at` is less than the capacity behind the page, so `at + len` is within the two mappings of the ring, which are
        // readable as long as `self` lives. The memory is initialised (the kernel's zeros at least), and nobody writes while `self` is
        // borrowed: this is the only mapping of it in use (`SoleMapping`), and nothing writes by other ways (the contract of `map`). The
        // size is sealed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), len) }
    }

    /// The `len` bytes from a position of the connection on, to receive into.
    ///
    /// # Panics
    /// `len` is more than [`Self::capacity`].
    #[must_use]
    pub fn space(&mut self, position: u64, len: usize) -> &mut [u8] {
        let at = self.window(position, len);
        // SAFETY: as in `bytes`; and a window no longer than the ring holds no byte twice, so the slice does not alias itself.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), len) }
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
        // The kernel may have taken the range away before it refused to map the memory there. Another thread may have something else there
        // by now, so the rest of such a range stays reserved, which costs no memory.
        if !self.is_mapped {
            return;
        }
        // SAFETY: the range that `map` has reserved, but for the state page; no slice outlives `self`. It fails only for wrong arguments.
        let _ = unsafe { munmap(self.base.as_ptr().add(STATE_BYTES).cast(), 2 * self.whole) };
        self.write_left();
        // SAFETY: the rest of that range.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), STATE_BYTES) };
    }
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn valid(ring_bytes: usize) -> bool {
    ring_bytes.is_power_of_two() && (MIN_RING_BYTES..=MAX_RING_BYTES).contains(&ring_bytes)
}

#[cfg(test)]
#[path = "ring_memory_tests.rs"]
mod tests;
