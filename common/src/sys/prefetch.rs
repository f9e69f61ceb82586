//! Memory that is about to be used. In: a value, or the value before it. Out: the processor fetches it into its cache and goes on meanwhile.
//!
//! Note: with hundreds of streams in a thread nothing of a stream is in the cache when it is woken. Looked at one after the other, a few
//! dozen places in memory cost more than the work done there; fetched all at once, while the kernel receives, they cost next to nothing.
#![allow(unsafe_code, reason = "an instruction that the standard library does not offer as safe")]

/// Bytes of a cache line. Where lines are longer, some are asked for twice.
const LINE: usize = 64;

/// Lets the processor fetch a value, without what it points to.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_range(std::ptr::from_ref(value).cast(), size_of_val(value));
}

/// Lets the processor fetch the first bytes of a value.
#[inline]
pub fn prefetch_start<T>(value: &T, bytes: usize) {
    prefetch_range(std::ptr::from_ref(value).cast(), bytes.min(size_of::<T>()));
}

/// Lets the processor fetch the place behind a value, as long as another one of its kind: the next one of a sequence goes there.
#[inline]
pub fn prefetch_behind<T>(value: &T) {
    prefetch_range(std::ptr::from_ref(value).wrapping_add(1).cast(), size_of::<T>());
}

#[inline]
fn prefetch_range(start: *const u8, len: usize) {
    let mut at = start.map_addr(|address| address & !(LINE - 1));
    let end = start.addr() + len;
    while at.addr() < end {
        prefetch_line(at);
        at = at.wrapping_add(LINE);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction is one of every processor of this architecture. It reads nothing that the program sees and does not fault,
    // whatever the address is.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn prefetch_line(line: *const u8) {
    // SAFETY: as above; it changes neither memory, nor registers, nor flags.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly))
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn prefetch_line(_line: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length_are_fetched_and_stay_as_they_are() {
        let values: Vec<u64> = (0..1000).collect();
        prefetch(&values);
        prefetch(values.as_slice());
        values.iter().for_each(prefetch_behind);
        prefetch_start(&values, 8);
        prefetch_start(&values, usize::MAX);
        prefetch(&());
        prefetch::<[u64]>(&[]);
        assert!(values.iter().copied().eq(0..1000));
    }
}
