//! The rules of snapshots: when one of a publisher is made, which one is published, and how far back the last one may lie. Pure.
//!
//! In: positions of the publisher's connection, beginnings of messages, the message from which the slowest upstream needs the stream.
//! Out: whether to make a snapshot, and the one to publish. The shells are `source` (it writes them to the state page or to the link) and
//! `task::arrivals` (it makes them).
//!
//! A successor is to begin where the slowest upstream needs it: bytes that this worker has written can be lost with its sockets, and bytes
//! that it has not written are lost. So a snapshot waits until every connected upstream has acknowledged the messages before it. It does not
//! wait for too long: a successor must find everything from the last published snapshot on, in the ring or, by link, in the activator's
//! memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use liveedgecast_common::handoff::Snapshot;
use liveedgecast_common::handoff::limits::MAX_UNCHECKED_BYTES;

use super::resume::{read_room, with_chunk_headers};

/// Snapshots that wait for an upstream: its lag is bounded by time, and a keyframe comes every second or two.
const MAX_WAITING: usize = 4;
/// Bytes after which the next message by link brings a snapshot: a successor has that much less to read again.
const LINK_SNAPSHOT_BYTES: u64 = 1 << 20;
/// Bytes before another snapshot, however long the message is that begins: a publisher may begin one with every dozen bytes, and
/// the bytes behind the last snapshot are that many at most.
const SNAPSHOT_STEP: u64 = 64 << 10;
/// Interval of snapshots without a keyframe: a successor repeats that much of a stream that is audio alone.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// Streams in which every frame is a keyframe need no snapshot of each.
const MIN_SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes behind the last snapshot from which a keyframe is worth one at any time: what lies behind it cannot leave the ring.
const KEYFRAME_STEP: u64 = 512 << 10;

/// The snapshots of one publisher's connection.
#[derive(Debug)]
pub(super) struct SnapshotRules {
    link: bool,
    /// Bytes of the ring that can be in use.
    ring_bytes: usize,
    /// Position of the last snapshot that was published.
    published: u64,
    /// The time at which the last snapshot was made, published or not.
    made: Option<Instant>,
    /// Position of that snapshot.
    made_at: u64,
    /// The publisher was told to start, and no published snapshot says so.
    start_due: bool,
    /// Made and not published yet, each with the number of the first message behind it.
    waiting: VecDeque<(u64, Snapshot)>,
}

impl SnapshotRules {
    /// `position`: of the snapshot that the publisher was handed over with.
    pub(super) fn new(position: u64, link: bool, ring_bytes: usize) -> Self {
        Self {
            link,
            ring_bytes,
            published: position,
            made: None,
            made_at: position,
            start_due: false,
            waiting: VecDeque::new(),
        }
    }

    /// Position of the last snapshot that was published.
    pub(super) fn position(&self) -> u64 {
        self.published
    }

    /// Notes that the publisher is told to start: a snapshot is to say so as soon as the answer is written.
    pub(super) fn started(&mut self) {
        self.start_due = true;
    }

    /// Returns whether a successor does not know yet that the publisher was told to start.
    pub(super) fn owes_start(&self) -> bool {
        self.start_due
    }

    /// Returns whether to make a snapshot, now that the session is at `position` and a message has begun or turned out to be a keyframe.
    pub(super) fn wants(&self, now: Instant, position: u64, keyframe: bool, has_video: bool) -> bool {
        let age = || self.made.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let far = position.saturating_sub(self.made_at) >= KEYFRAME_STEP;
        let due = (keyframe && (far || age() >= MIN_SNAPSHOT_INTERVAL)) || (!has_video && age() >= SNAPSHOT_INTERVAL);
        due && self.waiting.len() < MAX_WAITING
    }

    /// Takes a snapshot that was made. `before`: number of the first message behind it.
    pub(super) fn made(&mut self, now: Instant, before: u64, snapshot: Snapshot) {
        self.made = Some(now);
        self.made_at = snapshot.session.position();
        self.waiting.push_back((before, snapshot));
    }

    /// Returns whether any snapshot waits for an upstream.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The newest snapshot such that every upstream has acknowledged all messages before it. `owed`: the lowest message that an upstream has
    /// not acknowledged.
    pub(super) fn acknowledged(&mut self, owed: u64) -> Option<Snapshot> {
        let mut newest = None;
        while self.waiting.front().is_some_and(|(before, _)| *before <= owed) {
            newest = self.waiting.pop_front();
        }
        newest.map(|(_, snapshot)| snapshot)
    }

    /// Returns whether a successor would have to go back too far, now that the session is at `position` and a message of `coming` bytes begins.
    pub(super) fn is_needed(&self, position: u64, coming: u32) -> bool {
        let since = position.saturating_sub(self.published);
        self.goes_far(position, self.published)
            || since >= SNAPSHOT_STEP && !self.reaches(position, self.published, coming)
    }

    /// Returns whether a successor would not find everything behind the last published snapshot, were it to come now.
    pub(super) fn is_out_of_reach(&self, position: u64) -> bool {
        !self.reaches(position, self.published, 0)
    }

    /// The oldest waiting snapshot that is not far back; otherwise the newest, if a successor can begin at it. Those before it are dropped.
    pub(super) fn take_waiting(&mut self, position: u64, coming: u32) -> Option<Snapshot> {
        let mut last = None;
        while let Some((_, snapshot)) = self.waiting.pop_front() {
            let far = self.goes_far(position, snapshot.session.position());
            last = Some(snapshot);
            if !far {
                break;
            }
        }
        last.filter(|snapshot| self.reaches(position, snapshot.session.position(), coming))
    }

    /// Notes that a snapshot of that position was published.
    pub(super) fn published(&mut self, position: u64) {
        self.published = position;
        self.start_due = false;
    }

    /// Returns whether there are enough bytes for another snapshot between the two positions.
    fn goes_far(&self, position: u64, from: u64) -> bool {
        let half = self.ring_bytes as u64 / 2;
        let most = if self.link { LINK_SNAPSHOT_BYTES.min(half) } else { half };
        position.saturating_sub(from) >= most
    }

    /// Returns whether a successor that begins at `from` finds everything, also when a message of `coming` bytes has come.
    fn reaches(&self, position: u64, from: u64, coming: u32) -> bool {
        let most = if self.link {
            MAX_UNCHECKED_BYTES
        } else {
            // A successor does not look into the room of the last read; and this is asked after a read.
            (self.ring_bytes - 2 * read_room(self.ring_bytes)) as u64
        };
        position.saturating_sub(from) + with_chunk_headers(coming) < most
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::rtmp::server::ServerSession;
    use liveedgecast_common::testkit::origin;

    use super::*;

    const RING: usize = 1 << 20;
    const MS: Duration = Duration::from_millis(1);

    fn snapshot(position: u64) -> Snapshot {
        Snapshot { session: ServerSession::new(position).state(), stream: None, unread: Vec::new() }
    }

    fn position(snapshot: Option<Snapshot>) -> Option<u64> {
        snapshot.map(|snapshot| snapshot.session.position())
    }

    #[test]
    fn snapshots_are_wanted_at_keyframes_and_without_video_once_a_second() {
        let table = [
            // age of the last one, bytes since, keyframe, has video, wanted
            (None, 0, true, true, true),
            (None, 0, false, true, false),
            (None, 0, false, false, true),
            (Some(199), KEYFRAME_STEP - 1, true, true, false),
            (Some(0), KEYFRAME_STEP, true, true, true),
            (Some(200), 0, true, true, true),
            (Some(5_000), KEYFRAME_STEP, false, true, false),
            (Some(999), KEYFRAME_STEP, false, false, false),
            (Some(1_000), 0, false, false, true),
        ];
        for (age, bytes, keyframe, has_video, wanted) in table {
            let (now, mut rules) = (origin() + 10_000 * MS, SnapshotRules::new(0, false, RING));
            rules.made = age.map(|age| now - age * MS);
            assert_eq!(rules.wants(now, bytes, keyframe, has_video), wanted, "{age:?} {bytes} {keyframe} {has_video}");
        }
    }

    #[test]
    fn no_more_snapshots_wait_than_the_bound() {
        let (now, mut rules) = (origin(), SnapshotRules::new(0, false, RING));
        for number in 0..MAX_WAITING {
            let now = now + 1_000 * MS * number as u32;
            assert!(rules.wants(now, 0, true, true), "{number}");
            rules.made(now, number as u64, snapshot(number as u64));
        }
        assert!(!rules.wants(now + 60_000 * MS, 0, true, true));
    }

    #[test]
    fn newest_snapshot_that_every_upstream_has_acknowledged_is_published() {
        for (owed, expected, left) in
            [(0, None, 3), (9, None, 3), (10, Some(100), 2), (29, Some(200), 1), (u64::MAX, Some(300), 0)]
        {
            let mut rules = SnapshotRules::new(0, false, RING);
            for (before, at) in [(10, 100), (20, 200), (30, 300)] {
                rules.made(origin(), before, snapshot(at));
            }
            assert_eq!(position(rules.acknowledged(owed)), expected, "{owed}");
            assert_eq!(rules.waiting.len(), left, "{owed}");
        }
    }

    #[test]
    fn snapshot_is_needed_when_a_successor_would_go_back_too_far() {
        let (half, reach) = (RING as u64 / 2, (RING - 2 * read_room(RING)) as u64);
        let table = [
            // link, position, length of the message that begins; needed now, out of reach already
            (false, 0, 0, false, false),
            (false, half - 1, 0, false, false),
            (false, half, 0, true, false),
            (false, reach - 1, 0, true, false),
            (false, reach, 0, true, true),
            // A long message, and too soon after the last snapshot.
            (false, SNAPSHOT_STEP, RING as u32, true, false),
            (false, SNAPSHOT_STEP - 1, RING as u32, false, false),
            (true, half, 0, true, false),
            (true, SNAPSHOT_STEP, MAX_UNCHECKED_BYTES as u32, true, false),
            (true, MAX_UNCHECKED_BYTES, 0, true, true),
        ];
        for (link, at, coming, needed, out_of_reach) in table {
            let rules = SnapshotRules::new(0, link, RING);
            assert_eq!(rules.is_needed(at, coming), needed, "{link} {at} {coming}");
            assert_eq!(rules.is_out_of_reach(at), out_of_reach, "{link} {at}");
        }
        let large = SnapshotRules::new(0, true, 64 << 20);
        assert!(
            large.is_needed(LINK_SNAPSHOT_BYTES, 0),
            "by link a successor reads less again than half of a large ring"
        );
    }

    #[test]
    fn oldest_waiting_snapshot_that_is_not_far_back_is_taken() {
        let end = RING as u64;
        for (at, coming, expected, left) in [
            (600_000, 0, Some(100_000), 2),
            (700_000, 0, Some(300_000), 1),
            (end + 400_000, 0, Some(900_000), 0),
            // Even the newest is out of reach.
            (2 * end + 900_000, 0, None, 0),
            (end + 400_000, RING as u32, None, 0),
        ] {
            let mut rules = SnapshotRules::new(0, false, RING);
            for at in [100_000, 300_000, 900_000] {
                rules.made(origin(), 0, snapshot(at));
            }
            assert_eq!(position(rules.take_waiting(at, coming)), expected, "{at} {coming}");
            assert_eq!(rules.waiting.len(), left, "{at} {coming}");
        }
    }

    #[test]
    fn start_is_owed_until_a_snapshot_is_published() {
        let mut rules = SnapshotRules::new(7, false, RING);
        assert!(!rules.owes_start());
        rules.started();
        assert!(rules.owes_start());
        rules.published(9);
        assert_eq!((rules.owes_start(), rules.position()), (false, 9));
    }
}
