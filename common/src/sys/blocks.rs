//! Memory in blocks of one size, for bytes that many streams keep for seconds each. In: takes and drops. Out: [`MemoryBlock`]s. User: the
//! activator's `link`, which receives into them and sends from them.
//!
//! Free blocks wait for the next stream while they are few, and otherwise go back to the kernel at once: a process whose streams have ended
//! holds next to nothing, and needs no timer for that.
//!
//! Note: an allocator gives such memory back only when everything behind it is free too. And the kernel makes huge pages of memory that is
//! used in part, which would take again what was given back; hence no huge pages here.
#![allow(unsafe_code, reason = "mapping memory")]

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// Bytes of a block: a few messages of a usual stream. A stream wastes half of a block at either end of the bytes that it keeps.
pub const BLOCK_BYTES: usize = 16 << 10;

/// Bytes that are mapped at once. Mappings stay; memory that was given back takes no room in them.
const MAPPED_BYTES: usize = 1 << 20;

/// Free blocks that stay however few are in use: a few streams free as many at a keyframe, and take them again at once.
const LEAST_WARM: usize = 32;

/// Blocks in use for each free block that stays. Streams take and free blocks at their own times, so that a hundred of them vary by a tenth.
const WARM_SHARE: usize = 16;

/// The blocks of this process. Locked for the time of a push or a pop, and for a call of the kernel where blocks are many or few.
static POOL: Mutex<Pool> = Mutex::new(Pool { warm: VecDeque::new(), cold: Vec::new(), used: 0 });

struct Pool {
    /// Free blocks that have memory; the one that was used last is the last one.
    warm: VecDeque<Address>,
    /// Free blocks without memory.
    cold: Vec<Address>,
    /// Blocks in use.
    used: usize,
}

/// Start of a block, which the holder of this value alone refers to.
struct Address(NonNull<u8>);

// SAFETY: a block belongs to one value at a time, like the memory of a `Box`; it is not tied to a thread.
unsafe impl Send for Address {}
// SAFETY: a shared address gives nothing but reads of the block.
unsafe impl Sync for Address {}

impl Pool {
    fn take(&mut self) -> Address {
        self.used += 1;
        if let Some(address) = self.warm.pop_back() {
            return address;
        }
        if self.cold.is_empty() {
            self.map();
        }
        let Some(address) = self.cold.pop() else { unreachable!("a mapping is several blocks") };
        address
    }

    fn map(&mut self) {
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let mapped = unsafe {
            mmap_anonymous(std::ptr::null_mut(), MAPPED_BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let Some(start) = mapped.ok().and_then(|start| NonNull::new(start.cast::<u8>())) else {
            panic!("the kernel has no memory for another {MAPPED_BYTES} bytes of blocks")
        };
        // SAFETY: the mapping that was just made. A kernel without huge pages refuses, which is as good.
        let _ = unsafe { madvise(start.as_ptr().cast(), MAPPED_BYTES, Advice::LinuxNoHugepage) };
        // SAFETY: every offset is within the mapping, which stays.
        let blocks = (0..MAPPED_BYTES).step_by(BLOCK_BYTES).map(|at| Address(unsafe { start.add(at) }));
        // The first address is taken first.
        self.cold.extend(blocks.rev());
    }

    fn put(&mut self, address: Address) {
        self.used -= 1;
        self.warm.push_back(address);
        while self.warm.len() > LEAST_WARM + self.used / WARM_SHARE
            && let Some(address) = self.warm.pop_front()
        {
            address.give_back();
            self.cold.push(address);
        }
    }
}

impl Address {
    /// Gives the memory back to the kernel; the block reads as zeros then.
    fn give_back(&self) {
        // A larger page holds several blocks.
        if BLOCK_BYTES.is_multiple_of(rustix::param::page_size()) {
            // SAFETY: whole pages of a private mapping of ours, to which nothing refers but this address. A failure leaves them as they are.
            let _ = unsafe { madvise(self.0.as_ptr().cast(), BLOCK_BYTES, Advice::LinuxDontNeed) };
        }
    }
}

/// A block of memory, of [`BLOCK_BYTES`] bytes. Its first contents are any bytes. Dropping it makes it free for others.
pub struct MemoryBlock(Option<Address>);

impl MemoryBlock {
    /// Takes a free block.
    ///
    /// # Panics
    /// The kernel has no memory.
    #[must_use]
    pub fn take() -> Self {
        Self(Some(POOL.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }

    fn start(&self) -> *mut u8 {
        let Some(address) = &self.0 else { unreachable!("the address is there until the drop") };
        address.0.as_ptr()
    }
}

impl Drop for MemoryBlock {
    fn drop(&mut self) {
        if let Some(address) = self.0.take() {
            POOL.lock().unwrap_or_else(PoisonError::into_inner).put(address);
        }
    }
}

impl Deref for MemoryBlock {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block's bytes are mapped as long as the process lives, initialised (zeros at first), and this value's alone.
        unsafe { std::slice::from_raw_parts(self.start(), BLOCK_BYTES) }
    }
}

impl DerefMut for MemoryBlock {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start(), BLOCK_BYTES) }
    }
}

impl std::fmt::Debug for MemoryBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryBlock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool { warm: VecDeque::new(), cold: Vec::new(), used: 0 }
    }

    /// Pages of a block that have memory.
    fn resident(address: &Address) -> usize {
        let pages = BLOCK_BYTES / rustix::param::page_size();
        let mut found = vec![0_u8; pages];
        // SAFETY: a mapped range, and a byte for each of its pages.
        let result = unsafe { libc::mincore(address.0.as_ptr().cast(), BLOCK_BYTES, found.as_mut_ptr()) };
        assert_eq!(result, 0);
        found.iter().filter(|page| **page & 1 == 1).count()
    }

    fn touch(address: &Address) {
        // SAFETY: the block is the caller's.
        unsafe { address.0.as_ptr().write_bytes(7, BLOCK_BYTES) };
    }

    #[test]
    fn blocks_do_not_overlap_and_keep_what_is_written() {
        let mut blocks: Vec<MemoryBlock> = (0..200).map(|_| MemoryBlock::take()).collect();
        for (number, block) in blocks.iter_mut().enumerate() {
            block.fill(number as u8);
        }
        assert!(blocks.iter().enumerate().all(|(number, block)| block.iter().all(|byte| *byte == number as u8)));
        assert_eq!(blocks[0].len(), BLOCK_BYTES);
    }

    #[test]
    fn free_blocks_go_back_to_the_kernel_when_few_are_in_use() {
        let mut pool = pool();
        let mut blocks: Vec<Address> = (0..200).map(|_| pool.take()).collect();
        blocks.iter().for_each(touch);
        let all: Vec<Address> = blocks.iter().map(|address| Address(address.0)).collect();
        let memory = || all.iter().filter(|address| resident(address) > 0).count();
        assert_eq!(memory(), 200);
        blocks.drain(..50).for_each(|address| pool.put(address));
        assert_eq!((pool.used, pool.warm.len()), (150, LEAST_WARM + 150 / WARM_SHARE));
        assert_eq!(memory(), 150 + LEAST_WARM + 150 / WARM_SHARE);
        blocks.drain(..).for_each(|address| pool.put(address));
        assert_eq!((pool.used, pool.warm.len(), memory()), (0, LEAST_WARM, LEAST_WARM));
        // They come again, those that have memory first.
        let last = pool.warm.back().map(|address| address.0);
        let again: Vec<Address> = (0..LEAST_WARM + 1).map(|_| pool.take()).collect();
        assert_eq!(Some(again[0].0), last);
        assert_eq!((pool.warm.len(), resident(&again[LEAST_WARM])), (0, 0));
    }

    #[test]
    fn memory_is_mapped_only_when_no_block_is_free() {
        let mut pool = pool();
        let blocks: Vec<Address> = (0..MAPPED_BYTES / BLOCK_BYTES).map(|_| pool.take()).collect();
        assert!(pool.cold.is_empty(), "one mapping was enough");
        blocks.into_iter().for_each(|address| pool.put(address));
        for _ in 0..1000 {
            let address = pool.take();
            pool.put(address);
        }
        assert_eq!(pool.warm.len() + pool.cold.len(), MAPPED_BYTES / BLOCK_BYTES);
    }
}
