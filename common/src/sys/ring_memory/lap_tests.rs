//! Laps that grow and shrink against a model, and the successors of workers that are killed at every step of it.

use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use rustix::fs::fstat;
use rustix::io::{pread, pwrite};

use super::super::{MAX_RING_BYTES, UnmappedRing};
use super::*;

const FIRST: u64 = FIRST_LAP_BYTES as u64;

fn mapped(memory: &OwnedFd) -> RingMemory {
    UnmappedRing::check(memory.try_clone().unwrap()).unwrap().map().unwrap()
}

/// Bytes of a repeated pattern whose length has no factor in common with a lap: they tell their positions.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(32 * FIRST_LAP_BYTES).collect());

fn pattern(from: u64, to: u64) -> &'static [u8] {
    &PATTERN[(from % 251) as usize..][..(to - from) as usize]
}

fn fill(ring: &mut RingMemory, from: u64, to: u64) {
    ring.space(from, (to - from) as usize).copy_from_slice(pattern(from, to));
}

fn is_filled(ring: &RingMemory, from: u64, to: u64) -> bool {
    ring.bytes(from, (to - from) as usize) == pattern(from, to)
}

/// Bytes that the kernel has given to a memory.
fn taken(memory: &OwnedFd) -> u64 {
    fstat(memory).unwrap().st_blocks.cast_unsigned() * 512
}

/// The memory as a worker leaves it that is killed now.
fn left_behind(memory: &OwnedFd, ring_bytes: usize) -> OwnedFd {
    let copy = RingMemory::create(ring_bytes).unwrap();
    let mut bytes = vec![0; STATE_BYTES + ring_bytes];
    assert_eq!(pread(memory, &mut bytes, 0).unwrap(), bytes.len());
    assert_eq!(pwrite(&copy, &bytes, 0).unwrap(), bytes.len());
    copy
}

/// A generator of numbers, xorshift64.
fn chance(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    }
}

#[test]
fn lap_grows_and_keeps_the_received_bytes() {
    // A window in the lower half of the next lap, one in the upper half, one across both.
    for start in [0, FIRST - 5, FIRST, 3 * FIRST + 77, 4 * FIRST, 1000 * FIRST + 12_345] {
        let memory = RingMemory::create(4 * FIRST_LAP_BYTES).unwrap();
        let mut ring = mapped(&memory);
        assert_eq!((ring.capacity(), ring.most()), (FIRST_LAP_BYTES, 4 * FIRST_LAP_BYTES));
        let mut head = start + FIRST;
        fill(&mut ring, start, head);
        for lap in [2 * FIRST, 4 * FIRST] {
            assert!(ring.grow(start, head));
            assert_eq!(ring.capacity() as u64, lap);
            assert!(is_filled(&ring, start, head), "from {start}, lap {lap}");
            // The successor of a worker that died here.
            drop(ring);
            ring = mapped(&memory);
            assert!(ring.capacity() as u64 == lap && is_filled(&ring, start, head));
            fill(&mut ring, head, start + lap);
            head = start + lap;
            assert!(is_filled(&ring, start, head), "from {start}, lap {lap}");
        }
        assert!(!ring.grow(start, head), "all is in use");
        assert!(is_filled(&ring, start, head));
    }
}

#[test]
fn lap_shrinks_when_the_received_bytes_fit_with_room() {
    let most = FIRST - FIRST / 4;
    for start in [0, 1, FIRST - 5, FIRST, 2 * FIRST - 1, 3 * FIRST + 77, 1000 * FIRST + 12_345] {
        let memory = RingMemory::create(2 * FIRST_LAP_BYTES).unwrap();
        let mut ring = mapped(&memory);
        assert!(!ring.shrink(start, start), "no lap is shorter than that of a new ring");
        assert!(ring.grow(start, start));
        fill(&mut ring, start, start + most + 1);
        assert!(!ring.shrink(start, start + most + 1) && ring.capacity() as u64 == 2 * FIRST);
        assert!(ring.shrink(start, start + most) && ring.capacity() as u64 == FIRST);
        assert!(is_filled(&ring, start, start + most), "from {start}");
        drop(ring);
        let mut ring = mapped(&memory);
        assert!(ring.capacity() as u64 == FIRST && is_filled(&ring, start, start + most), "from {start}");
        fill(&mut ring, start + most, start + FIRST);
        assert!(is_filled(&ring, start, start + FIRST));
    }
}

#[test]
fn lap_that_grows_and_shrinks_at_random_keeps_what_a_model_says() {
    let ring_bytes = 16 * FIRST_LAP_BYTES;
    for seed in 1..=20 {
        let mut chance = chance(seed);
        let memory = RingMemory::create(ring_bytes).unwrap();
        let mut ring = mapped(&memory);
        let mut from = chance(1 << 40);
        let mut head = from;
        let (mut grown, mut shrunk) = (0, 0);
        for _ in 0..200 {
            match chance(4) {
                0 => {
                    let room = ring.capacity() as u64 - (head - from);
                    let next = head + chance(room + 1);
                    fill(&mut ring, head, next);
                    head = next;
                }
                1 => from += chance(head - from + 1),
                2 => grown += u32::from(ring.grow(from, head)),
                _ => {
                    let (lap, fits) = (ring.capacity(), head - from <= ring.capacity() as u64 * 3 / 8);
                    let may = fits && lap > FIRST_LAP_BYTES;
                    assert_eq!(ring.shrink(from, head), may, "seed {seed}: {from} to {head} of {lap}");
                    shrunk += u32::from(may);
                }
            }
            assert!(is_filled(&ring, from, head), "seed {seed}: {from} to {head} of {}", ring.capacity());
            if chance(8) == 0 {
                let lap = ring.capacity();
                drop(ring);
                ring = mapped(&memory);
                assert!(ring.capacity() == lap && is_filled(&ring, from, head), "seed {seed}: the successor's");
            }
        }
        assert!(grown > 3 && shrunk > 3, "seed {seed}: hardly anything was tried");
        // The kernel holds the lap and the page with its length.
        assert!(taken(&memory) <= (ring.capacity() + MIN_RING_BYTES) as u64, "seed {seed}");
    }
}

#[test]
fn successor_finds_everything_wherever_in_a_change_of_the_lap_the_worker_was_killed() {
    let ring_bytes = 4 * FIRST_LAP_BYTES;
    for seed in 1..=40 {
        let mut chance = chance(seed);
        let memory = RingMemory::create(ring_bytes).unwrap();
        let mut ring = mapped(&memory);
        // Half of the ring, or all of it.
        for _ in 0..=chance(2) {
            assert!(ring.grow(0, 0));
        }
        let grows = chance(2) == 0 && ring.capacity() < ring_bytes;
        let lap = ring.capacity() as u64;
        let from = chance(1 << 30);
        let head = from + if grows { chance(lap + 1) } else { chance(lap * 3 / 8 + 1) };
        fill(&mut ring, from, head);
        let check = |step: &str| {
            let successor = mapped(&left_behind(&memory, ring_bytes));
            assert!(is_filled(&successor, from, head), "seed {seed}, grows: {grows}, killed {step}: {from} to {head}");
            successor.capacity() as u64
        };
        assert_eq!(check("before"), lap);
        // The steps of `grow` and `shrink`, in their order.
        let (next, half, target) = if grows {
            ring.map_lap(2 * lap as usize).unwrap();
            (2 * lap, lap, LapHalf::Upper)
        } else {
            (lap / 2, lap / 2, LapHalf::Lower)
        };
        for part in 0..8 {
            // A copy that was killed: any part of it.
            let end = from + (head - from) * part / 8;
            ring.copy_between_halves(from, end, half as usize, target);
            assert_eq!(check("in the copy"), lap);
        }
        ring.copy_between_halves(from, head, half as usize, target);
        assert_eq!(check("behind the copy"), lap);
        if !grows {
            ring.map_lap(half as usize).unwrap();
            assert_eq!(check("behind the mapping"), lap);
        }
        ring.write_lap(next as usize);
        assert_eq!(check("behind the word"), next);
        if !grows {
            ring.give_back(half as usize, lap as usize);
            assert_eq!(check("at the end"), next);
        }
        assert!(is_filled(&ring, from, head), "seed {seed}");
    }
}

#[test]
fn small_window_takes_no_more_memory_than_its_lap() {
    let memory = RingMemory::create(16 * FIRST_LAP_BYTES).unwrap();
    let mut ring = mapped(&memory);
    for position in (0..64 * FIRST).step_by(1000) {
        ring.space(position, 1000).fill(1);
    }
    // The lap, and the page with its length.
    assert!(taken(&memory) <= (FIRST_LAP_BYTES + MIN_RING_BYTES) as u64, "{}", taken(&memory));
}

#[test]
fn lap_that_shrinks_gives_its_memory_back() {
    let memory = RingMemory::create(16 * FIRST_LAP_BYTES).unwrap();
    let mut ring = mapped(&memory);
    while ring.grow(0, 0) {}
    fill(&mut ring, 0, 16 * FIRST);
    assert!(taken(&memory) >= 16 * FIRST);
    while ring.shrink(16 * FIRST - 100, 16 * FIRST) {}
    assert_eq!(ring.capacity() as u64, FIRST);
    assert!(is_filled(&ring, 16 * FIRST - 100, 16 * FIRST));
    assert!(taken(&memory) <= (FIRST_LAP_BYTES + MIN_RING_BYTES) as u64, "{}", taken(&memory));
}

#[test]
fn lap_of_a_stranger_is_within_the_ring() {
    let ring_bytes = 16 * FIRST_LAP_BYTES;
    let whole = ring_bytes as u64;
    // Written, used: a lap without a name is that of earlier versions.
    for (written, used) in [
        (0, UNNAMED_LAP_BYTES as u64),
        (FIRST, FIRST),
        (whole, whole),
        (1, whole),
        (3 << 16, whole),
        (u64::MAX, whole),
        (1 << 40, whole),
        (2 * whole, whole),
    ] {
        let memory = RingMemory::create(ring_bytes).unwrap();
        assert_eq!(pwrite(&memory, &written.to_ne_bytes(), LAP_AT as u64).unwrap(), 8);
        assert_eq!(mapped(&memory).capacity() as u64, used, "{written}");
    }
}

#[test]
fn lap_grows_where_memory_is_mapped_by_its_descriptor() {
    let memory = RingMemory::create(4 * FIRST_LAP_BYTES).unwrap();
    let mut ring = mapped(&memory);
    assert!(ring.memory.is_none(), "Linux maps shared memory a second time without a descriptor");
    ring.memory = Some(memory.try_clone().unwrap());
    let head = FIRST + 77;
    fill(&mut ring, 78, head);
    for lap in [2 * FIRST_LAP_BYTES, 4 * FIRST_LAP_BYTES] {
        assert!(ring.grow(78, head) && ring.capacity() == lap && is_filled(&ring, 78, head));
    }
}

/// A ring that no other process has.
fn private(ring_bytes: usize) -> RingMemory {
    UnmappedRing::create(ring_bytes).unwrap().map().unwrap()
}

#[test]
fn private_ring_grows_in_small_steps_up_to_half_of_it_and_then_to_all_of_it() {
    let mut ring = private(4 << 20);
    let mut laps = vec![ring.capacity() >> 10];
    while ring.grow(0, 0) {
        laps.push(ring.capacity() >> 10);
    }
    assert_eq!(laps, [64, 128, 256, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 4096]);
    let mut small = private(2 * FIRST_LAP_BYTES);
    assert!(small.grow(0, 0) && small.capacity() == 2 * FIRST_LAP_BYTES && !small.grow(0, 0));
}

#[test]
fn lap_is_fitted_to_a_need_with_room_for_a_read() {
    for (need, lap) in
        [(0, 64), (44, 64), (48, 128), (128, 192), (180, 256), (181, 320), (610, 768), (640, 768), (4096, 4416)]
    {
        assert_eq!(fitted(need << 10) >> 10, lap, "{need}");
        // No shorter lap would do.
        let most = |lap: u64| lap - READ_ROOM.min(lap / 4);
        assert!(need << 10 <= most((lap << 10) as u64), "{need}");
    }
    assert!(fitted(u64::MAX / 8) > MAX_RING_BYTES);
}

#[test]
fn private_lap_that_grows_and_is_shortened_at_random_keeps_what_a_model_says() {
    let ring_bytes = 16 * FIRST_LAP_BYTES;
    for seed in 1..=20 {
        let mut chance = chance(seed);
        let mut ring = private(ring_bytes);
        let mut from = chance(1 << 40);
        let mut head = from;
        let (mut grown, mut shortened) = (0, 0);
        for _ in 0..300 {
            match chance(5) {
                0 => {
                    let room = ring.capacity() as u64 - (head - from);
                    let next = head + chance(room + 1);
                    fill(&mut ring, head, next);
                    head = next;
                }
                1 => from += chance(head - from + 1),
                2 => grown += u32::from(ring.grow(from, head)),
                3 => from = head - chance(head - from + 1).min(1000),
                _ => {
                    let longest = head - from + chance(6 * FIRST);
                    shortened += u32::from(ring.shorten(longest, from, head));
                }
            }
            let lap = ring.capacity();
            assert!(lap.is_multiple_of(FIRST_LAP_BYTES) && (2 * lap <= ring_bytes || lap == ring_bytes), "{lap}");
            assert!(is_filled(&ring, from, head), "seed {seed}: {from} to {head} of {lap}");
            // A window across the end of the lap, wherever that is.
            ring.space(head, lap - (head - from) as usize).fill(9);
            assert!(is_filled(&ring, from, head), "seed {seed}: {from} to {head} of {lap}, after a read");
        }
        assert!(grown > 3 && shortened > 3, "seed {seed}: hardly anything was tried: {grown} {shortened}");
    }
}

#[test]
fn private_lap_that_is_shortened_gives_its_memory_back() {
    let unmapped = UnmappedRing::create(16 << 20).unwrap();
    let mut ring = unmapped.map().unwrap();
    while ring.capacity() < 2 << 20 && ring.grow(0, 0) {}
    ring.space(0, 2 << 20).fill(1);
    assert!(taken(&unmapped.memory) >= 2 << 20);
    assert!(!ring.shorten(640 << 10, 0, 500 << 10), "too much is kept now");
    assert!(ring.shorten(640 << 10, 0, 100) && ring.capacity() == 768 << 10);
    assert!(taken(&unmapped.memory) <= (768 << 10) + MIN_RING_BYTES as u64, "{}", taken(&unmapped.memory));
    assert!(!ring.shorten(640 << 10, 0, 100), "it fits");
    assert!(ring.shorten(100, 0, 100) && ring.capacity() == FIRST_LAP_BYTES);
}
