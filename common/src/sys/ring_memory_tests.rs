//! Windows, laps that grow and shrink, successors, and descriptors of strangers.

use super::reuse::LEFT_AT;
use super::*;
use std::os::fd::AsRawFd as _;

fn ring() -> RingMemory {
    UnmappedRing::create(MIN_RING_BYTES).unwrap().map().unwrap()
}

/// Another descriptor of the memory, without the right to write.
fn read_only_again(memory: &OwnedFd) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap()
}

fn unmapped(memory: &OwnedFd) -> UnmappedRing {
    UnmappedRing::check(memory.try_clone().unwrap()).unwrap()
}

#[test]
fn window_across_the_end_is_one_slice() {
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
fn page_is_apart_from_the_ring_and_outlives_the_mapping() {
    let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
    let mut ring = unmapped(&memory).map().unwrap();
    assert!(ring.page()[..LEFT_AT].iter().all(|byte| *byte == 0) && ring.page().len() == STATE_BYTES);
    ring.page_mut()[..LEFT_AT].fill(1);
    ring.space(0, ring.capacity()).fill(2);
    assert!(ring.page()[..LEFT_AT].iter().all(|byte| *byte == 1));
    drop(ring);
    let again = unmapped(&memory).map().unwrap();
    assert!(again.page()[..LEFT_AT].iter().all(|byte| *byte == 1));
    assert!(again.bytes(5, again.capacity()).iter().all(|byte| *byte == 2));
}

#[test]
fn memory_is_mapped_at_most_once_at_a_time() {
    let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
    let ring = unmapped(&memory).map().unwrap();
    assert!(ring.is_of(&unmapped(&memory)) && !ring.is_of(&UnmappedRing::create(MIN_RING_BYTES).unwrap()));
    assert_eq!(unmapped(&memory).map().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    drop(ring);
    assert!(unmapped(&memory).map().is_ok());
}

#[test]
#[should_panic(expected = "no longer than the ring")]
fn window_longer_than_the_ring_panics() {
    let _ = ring().bytes(0, MIN_RING_BYTES + 1);
}

#[test]
fn ring_of_any_other_size_than_a_power_of_two_is_refused() {
    for size in [0, 1, 4096, MIN_RING_BYTES - 1, MIN_RING_BYTES + 4096, 3 * MIN_RING_BYTES, 2 * MAX_RING_BYTES] {
        assert_eq!(RingMemory::create(size).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{size}");
    }
}

#[test]
fn descriptor_that_is_no_sealed_memory_is_refused() {
    let unsealed = || memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let refusal = |memory: OwnedFd| {
        let error = UnmappedRing::check(memory).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        error.to_string()
    };
    assert_eq!(refusal(tempfile::tempfile().unwrap().into()), "the ring's descriptor is not memory");
    assert_eq!(refusal(std::net::UdpSocket::bind("[::1]:0").unwrap().into()), "the ring's descriptor is not memory");

    let memory = unsealed();
    ftruncate(&memory, (STATE_BYTES + MIN_RING_BYTES) as u64).unwrap();
    assert_eq!(refusal(memory.try_clone().unwrap()), "the ring's memory is not sealed");
    fcntl_add_seals(&memory, SealFlags::GROW).unwrap();
    assert_eq!(refusal(memory.try_clone().unwrap()), "the ring's memory is not sealed");
    fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
    assert!(UnmappedRing::check(memory.try_clone().unwrap()).is_ok());
    assert_eq!(refusal(read_only_again(&memory)), "the ring's memory cannot be written to");
    fcntl_add_seals(&memory, SealFlags::FUTURE_WRITE).unwrap();
    assert_eq!(refusal(memory), "the ring's memory cannot be written to");

    for size in [0, STATE_BYTES, STATE_BYTES + 4096, STATE_BYTES + 3 * MIN_RING_BYTES] {
        let memory = unsealed();
        ftruncate(&memory, size as u64).unwrap();
        fcntl_add_seals(&memory, SEALS).unwrap();
        assert_eq!(refusal(memory), "the ring's memory has a wrong size");
    }
}

#[test]
fn memory_that_the_kernel_does_not_map_harms_nothing() {
    let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
    let checked = unmapped(&memory);
    // The kernel refuses the mapping, as it does for a process that has too many.
    fcntl_add_seals(&memory, SealFlags::FUTURE_WRITE).unwrap_err();
    let refused = UnmappedRing { memory: read_only_again(&memory), ..checked };
    assert_eq!(refused.map().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    // The memory counts as not mapped.
    assert!(unmapped(&memory).map().is_ok());
}

#[test]
fn sealed_memory_cannot_be_resized() {
    let memory = RingMemory::create(MIN_RING_BYTES).unwrap();
    assert!(ftruncate(&memory, 0).is_err() && ftruncate(&memory, 1 << 30).is_err());
    assert!(fcntl_add_seals(&memory, SealFlags::WRITE).is_err());
}
