//! The index of a stream's ring: the place of each message, which messages are keyframes, which headers are in force.
//!
//! In: the messages that the publisher's session finds in its bytes. Out: [`IndexEntry`]s with numbers, which cursors follow; the stream's part of a
//! snapshot. Nothing is copied but headers that leave the ring while they are in force. Next room: [`super::cursor`].
//!
//! Note:
//! - Messages complete in another order than they begin, so the lowest byte that an entry needs may lie before that of the entry in
//!   front of it. `IndexEntry::hold` is the lowest of an entry and all behind it: the kept bytes are always one run of whole messages.
//! - The headers to begin at a keyframe with are those of *its* time, not the newest ones.
//! - A publisher that returns within its grace time comes with a ring of its own whose positions begin anew: hence [`EntryPlace::ring`].
//!   A publisher that was merely handed over again keeps its clock: hence [`EntryPlace::clock`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use liveedgecast_common::control::KindBytes;
use liveedgecast_common::handoff::LastTimestamps;
/// A run of payload bytes in the ring.
pub use liveedgecast_common::rtmp::Piece as Segment;
use liveedgecast_common::rtmp::media::{HeaderSlot, INSPECT_BYTES, Inspection, Kind, inspect};
use liveedgecast_common::rtmp::{MessageHeader, Run, aggregate, is_media, type_id};
use liveedgecast_common::sys::{prefetch, prefetch_behind};
use smallvec::SmallVec;

use self::describe::Keyframes;
use self::early::EarlyBounds;
use self::headers::StoredHeaders;
use self::open::{OpenEntry, SegmentList, first_bytes, note_look};
use super::clock::{Jump, PublisherClock, leaves_room};

mod describe;
mod early;
mod entry;
mod headers;
mod open;

pub use self::describe::HeaderMark;
pub use self::early::{EarlyMessage, LEAVES_WHOLE};
pub use self::entry::{EntryPlace, IndexEntry};
pub use self::headers::Header;
pub(super) use self::open::PayloadPlace;
#[cfg(test)]
pub(super) use self::open::looks;

/// Entries at most: a minute of any real stream. Messages of no bytes would otherwise take a hundred times their size in memory.
pub const MAX_ENTRIES: usize = 16 << 10;
/// Segments at most: 8 MiB in chunks of 128 bytes (the smallest that real clients send) are 65,536.
pub const MAX_SEGMENTS: usize = 128 << 10;
/// A group of pictures that reaches back further than this beyond the window is not kept whole: no upstream wants so much again, and a publisher
/// that has switched its video off never begins another one.
const LONGEST_GROUP: Duration = Duration::from_secs(30);
/// Segments of all open messages at most: the longest message in such chunks. A message in smaller chunks yet is not relayed.
const MAX_OPEN_SEGMENTS: usize = 128 << 10;
/// Room of a segment list that is kept for another message: 256 KiB in chunks of 128 bytes.
const MAX_SPARE_SEGMENTS: usize = 2 << 10;
/// Room for the segments of entries that is kept though they need much less: 1 MiB in chunks of 128 bytes.
const KEPT_SEGMENTS: usize = 8 << 10;

/// The memory in which payload lies. Implemented by the rings of a stream, and by plain vectors in tests.
pub trait Memory {
    /// `len` bytes from that position of the connection whose ring has this number.
    fn bytes(&self, ring: u32, position: u64, len: usize) -> &[u8];
}

/// The relation between a publisher that comes and the publisher before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    /// A new connection: a new ring, a new clock, other headers.
    OtherPublisher,
    /// The same connection, handed over again, in another ring.
    SamePublisher,
    /// The same connection, handed over again, in the ring it had.
    SameRing,
}

/// A header that is too long to be kept: sessions that begin later will lack it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The kind of header.
    pub slot: HeaderSlot,
    /// Length of its payload.
    pub bytes: u32,
}

/// The result of a call of [`Index::receive`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexProgress {
    /// A message has begun: a snapshot of the session before its chunk can be made.
    pub begins: bool,
    /// The message that began last turns out to be a keyframe to join at.
    pub keyframe: bool,
    /// Entries have been added.
    pub complete: bool,
}

/// See the file's header.
#[derive(Debug)]
pub struct Index {
    replay_time: Duration,
    place: EntryPlace,
    entries: VecDeque<IndexEntry>,
    /// Number of the first entry, and of the next one where there is none.
    front: u64,
    segments: VecDeque<Segment>,
    /// Number of the first segment.
    front_segment: u64,
    open: SmallVec<[OpenEntry; 2]>,
    /// Emptied segment lists that have memory of their own, to be used again.
    spare: Vec<SegmentList>,
    /// Headers in force before the first entry.
    base: Vec<Header>,
    kept: StoredHeaders,
    /// See [`Index::take_left_out`].
    left_out: Option<LeftOut>,
    /// Numbers of the entries that are headers, and of those to join at.
    headers: VecDeque<u64>,
    joins: VecDeque<u64>,
    /// Position before which the ring in use has been overwritten.
    floor: u64,
    /// Chunk stream of the message that began last, until it is known whether it is a keyframe.
    undecided: Option<u32>,
    last_begun: Option<u32>,
    lowest_track: Option<u8>,
    last: LastTimestamps,
    clock: PublisherClock,
    jumps: u64,
    last_jump: Option<Jump>,
    has_video: bool,
    keyframes: Option<Keyframes>,
    /// Beginning of the video that has no keyframe yet.
    without_keyframe_since: Option<Instant>,
    steps_back: u64,
    unfit: u64,
    kind_bytes: KindBytes,
    scratch: Vec<u8>,
    early_bounds: EarlyBounds,
}

/// Returns whether the bytes of one message came together: it is never open.
fn is_whole(run: &Run) -> bool {
    run.begins.is_some() && run.last
}

impl Index {
    /// Creates an index of messages that are kept for `replay_time`, as long as their bytes are in the ring.
    #[must_use]
    pub fn new(replay_time: Duration) -> Self {
        Self {
            replay_time,
            place: EntryPlace::default(),
            entries: VecDeque::new(),
            front: 0,
            segments: VecDeque::new(),
            front_segment: 0,
            open: SmallVec::new(),
            spare: Vec::new(),
            base: Vec::new(),
            kept: StoredHeaders::default(),
            left_out: None,
            headers: VecDeque::new(),
            joins: VecDeque::new(),
            floor: 0,
            undecided: None,
            last_begun: None,
            lowest_track: None,
            last: LastTimestamps::default(),
            clock: PublisherClock::default(),
            jumps: 0,
            last_jump: None,
            has_video: false,
            keyframes: None,
            without_keyframe_since: None,
            steps_back: 0,
            unfit: 0,
            kind_bytes: KindBytes::default(),
            scratch: Vec::new(),
            early_bounds: EarlyBounds::default(),
        }
    }

    /// Lets the processor fetch the fields that every message needs.
    pub fn prefetch(&self) {
        prefetch(self);
    }

    /// Lets the processor fetch the places that the next message will be noted in.
    pub fn prefetch_behind(&self) {
        self.entries.back().map(prefetch_behind);
        self.segments.back().map(prefetch_behind);
    }

    /// Goes on with a publisher that has come by another connection, or by the same one once more.
    pub fn begin(&mut self, how: Continue) -> EntryPlace {
        self.close_open();
        if how != Continue::SameRing {
            self.place.ring += 1;
            self.floor = 0;
        }
        if how == Continue::OtherPublisher {
            self.place.clock += 1;
            self.lowest_track = None;
            self.last = LastTimestamps::default();
            self.clock = PublisherClock::default();
            self.kept = StoredHeaders::default();
            self.has_video = false;
            self.without_keyframe_since = None;
        }
        self.place
    }

    /// Notes the bytes that have come of a message, before it is an entry. `memory` holds every byte received so far. If that was the rest of the message,
    /// [`Self::complete`] or [`Self::abort`] must follow.
    pub fn receive(&mut self, run: &Run, pieces: &[Segment], memory: &impl Memory) -> IndexProgress {
        let csid = run.header.csid;
        if run.begins.is_some() {
            self.drop_open(csid);
            self.last_begun = Some(csid);
            self.undecided = (run.header.type_id == type_id::VIDEO).then_some(csid);
        }
        let keyframe = if is_whole(run) {
            self.undecided == Some(csid) && self.begins_keyframe(run.header.type_id, pieces, memory)
        } else {
            if run.begins.is_some() {
                let segments = self.spare.pop().unwrap_or_default();
                self.open.push(OpenEntry::new(run.header, segments));
            }
            // Without an open message it began before this index did: its first bytes are unknown.
            let Some(at) = self.open_at(csid) else {
                return IndexProgress { complete: run.last, ..IndexProgress::default() };
            };
            let others = self.open.iter().map(|open| open.segments.len()).sum::<usize>() - self.open[at].segments.len();
            for piece in pieces {
                let room = others + self.open[at].segments.len() < MAX_OPEN_SEGMENTS;
                self.open[at].add(*piece, room);
            }
            let open = &self.open[at];
            self.undecided == Some(csid) && self.begins_keyframe(open.header.type_id, &open.segments, memory)
        };
        if run.last || keyframe {
            self.undecided = None;
        }
        IndexProgress { begins: run.begins.is_some(), keyframe, complete: run.last }
    }

    /// Adds the message whose rest was given to [`Self::receive`] last.
    pub fn complete(&mut self, now: Instant, run: &Run, pieces: &[Segment], memory: &impl Memory) {
        if is_whole(run) {
            // Pieces of one read are few, and ahead of whatever was overwritten.
            return self.add(now, &run.header, pieces, false, None, memory);
        }
        let Some(at) = self.open_at(run.header.csid) else {
            // It began before this index did, and its first part was lost with another worker: upstreams do not get it.
            return self.add(now, &run.header, &[], true, None, memory);
        };
        let open = self.open.swap_remove(at);
        let time = open.offer.made().map(|offer| offer.time);
        self.add(now, &open.header, &open.segments, open.given_up, time, memory);
        self.spare(open.segments);
    }

    /// Forgets the message that is open on a chunk stream: its rest will not come, or it is here already.
    pub fn abort(&mut self, csid: u32) {
        self.drop_open(csid);
    }

    fn open_at(&self, csid: u32) -> Option<usize> {
        self.open.iter().position(|open| open.header.csid == csid)
    }

    /// Returns whether the first bytes of a message tell that it is a keyframe to join at.
    fn begins_keyframe(&self, type_id: u8, segments: &[Segment], memory: &impl Memory) -> bool {
        let mut prefix = [0; INSPECT_BYTES];
        let found = inspect(type_id, first_bytes(&mut prefix, segments, self.place.ring, memory));
        found.keyframe && self.lowest_track.is_none_or(|lowest| found.track <= lowest)
    }

    fn drop_open(&mut self, csid: u32) {
        if let Some(at) = self.open_at(csid) {
            let segments = self.open.swap_remove(at).segments;
            self.spare(segments);
        }
    }

    /// Keeps an emptied segment list with memory of its own for another message, unless it was that of a very long one.
    fn spare(&mut self, mut segments: SegmentList) {
        if segments.spilled() && segments.capacity() <= MAX_SPARE_SEGMENTS {
            segments.clear();
            self.spare.push(segments);
        }
    }

    fn close_open(&mut self) {
        while let Some(csid) = self.open.last().map(|open| open.header.csid) {
            self.drop_open(csid);
        }
        (self.undecided, self.last_begun) = (None, None);
    }

    fn add(
        &mut self,
        now: Instant,
        header: &MessageHeader,
        segments: &[Segment],
        given_up: bool,
        time: Option<i64>,
        memory: &impl Memory,
    ) {
        let whole = !given_up && segments.iter().all(|segment| segment.position >= self.floor);
        self.unfit += u64::from(!whole);
        if whole && header.type_id == type_id::AGGREGATE {
            return self.add_aggregate(now, header, segments, memory);
        }
        self.push(now, header, segments, whole, time, memory);
    }

    /// Adds the messages in an aggregate, each with its own part of the bytes.
    fn add_aggregate(&mut self, now: Instant, header: &MessageHeader, segments: &[Segment], memory: &impl Memory) {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        for segment in segments {
            payload.extend_from_slice(memory.bytes(self.place.ring, segment.position, segment.len as usize));
        }
        let mut parts = Vec::new();
        let mut place = PayloadPlace::default();
        // The bytes behind an error in it cannot be read; the messages before it are good.
        for message in aggregate::split(header, &payload).map_while(Result::ok) {
            // A command or a control message would be obeyed by the upstream as if this relay had said it: with `publish` a publisher would
            // reach other keys than its own.
            if !is_media(message.header.type_id) {
                self.unfit += 1;
                continue;
            }
            place.skip_to(segments, message.payload.start as u64);
            parts.clear();
            parts.extend(std::iter::from_fn(|| place.take(segments, message.payload.end as u64)));
            self.push(now, &message.header, &parts, true, None, memory);
        }
        payload.clear();
        payload.shrink_to(INSPECT_BYTES);
        self.scratch = payload;
    }

    /// Adds a message. `time`: that of a message that has been offered before it was complete.
    fn push(
        &mut self,
        now: Instant,
        header: &MessageHeader,
        segments: &[Segment],
        whole: bool,
        time: Option<i64>,
        memory: &impl Memory,
    ) {
        let mut prefix = [0; INSPECT_BYTES];
        let known = if whole { segments } else { &[] };
        let inspection = inspect(header.type_id, first_bytes(&mut prefix, known, self.place.ring, memory));
        let time = time.unwrap_or_else(|| self.note_time(now, header.timestamp, &inspection));
        let join = whole && inspection.keyframe && self.is_lowest(inspection.track);
        match inspection.kind {
            Kind::Video => self.kind_bytes.video += u64::from(header.length),
            Kind::Audio => self.kind_bytes.audio += u64::from(header.length),
            Kind::Data => {}
        }
        if inspection.kind == Kind::Video && inspection.header.is_none() {
            self.has_video = true;
            self.without_keyframe_since.get_or_insert(now);
        }
        if join {
            self.without_keyframe_since = Some(now);
            if inspection.kind == Kind::Video {
                self.keyframes = Some(Keyframes::after(self.keyframes, self.place.clock, time));
            }
        }
        let number = self.end();
        if let Some(slot) = inspection.header.filter(|_| whole) {
            self.headers.push_back(number);
            if !self.kept.put(slot, header.length as usize) {
                self.left_out = Some(LeftOut { slot, bytes: header.length });
            }
        }
        if join {
            self.joins.push_back(number);
        }
        let start = segments.iter().map(|segment| segment.position).min().unwrap_or(self.floor);
        for entry in self.entries.iter_mut().rev() {
            if entry.place.ring != self.place.ring || !entry.hold_from(start) {
                break;
            }
        }
        let first_segment = self.front_segment + self.segments.len() as u64;
        let kept = if whole { segments } else { &[] };
        self.segments.extend(kept);
        let entry = IndexEntry::new(header, &inspection, now, time).joining(join);
        self.entries.push_back(entry.at(self.place, start, whole, first_segment, kept.len()));
    }

    fn is_lowest(&mut self, track: u8) -> bool {
        let lowest = self.lowest_track.get_or_insert(track);
        *lowest = track.min(*lowest);
        *lowest == track
    }

    fn note_time(&mut self, now: Instant, timestamp: u32, inspection: &Inspection) -> i64 {
        let kind = inspection.kind;
        if !inspection.is_frame() {
            // A header tells nothing of the clock of its kind's frames, which a successor continues.
            if kind == Kind::Data {
                self.last.data = Some(timestamp);
            }
            return self.clock.other(now, timestamp);
        }
        let last = if kind == Kind::Video { &mut self.last.video } else { &mut self.last.audio };
        if last.is_some_and(|last| (timestamp.wrapping_sub(last) as i32) < 0) {
            self.steps_back += 1;
        }
        *last = Some(timestamp);
        let (time, jump) = self.clock.frame(now, kind, timestamp);
        if jump.is_some() {
            self.jumps += 1;
            self.last_jump = jump;
        }
        time
    }

    /// Bytes of the payloads of all messages that were ever added, by kind.
    #[must_use]
    pub fn kind_bytes(&self) -> KindBytes {
        self.kind_bytes
    }

    /// The first number that stays when everything before `floor` in the ring in use is overwritten, and messages that are too old are forgotten. A
    /// group of pictures that is old in part stays whole: an upstream that needs its end can only begin at its keyframe.
    #[must_use]
    pub fn keeps_from(&self, now: Instant, floor: u64) -> u64 {
        let crowd = self.entries.len().saturating_sub(MAX_ENTRIES);
        // Once a message of the ring in use goes, so do all messages that came before it by another ring.
        let current = self.first_of_this_ring();
        let overwritten = match self.entries.get(current) {
            Some(first) if first.hold() < floor => {
                self.entries.partition_point(|entry| entry.place.ring < self.place.ring || entry.hold() < floor)
            }
            _ => 0,
        };
        let forced = crowd.max(overwritten);
        let old = self.old_until(now, forced);
        if self.segments.len() <= MAX_SEGMENTS {
            return self.front + old as u64;
        }
        let mut segments = self.segments.len();
        let kept = self.entries.iter().position(|entry| {
            let stays = segments <= MAX_SEGMENTS;
            segments -= entry.segments();
            stays
        });
        self.front + kept.map_or(self.entries.len(), |kept| self.old_until(now, forced.max(kept))) as u64
    }

    /// The number of leading entries that are too old to be kept; at least `gone`.
    fn old_until(&self, now: Instant, gone: usize) -> usize {
        let age = |entry: &IndexEntry| now.saturating_duration_since(entry.arrived);
        // The last keyframe before the edge of the window. Mostly that is the first entry's, and the scan stops at the next keyframe.
        let first = self.joins.partition_point(|join| *join < self.front + gone as u64);
        let joins = self.joins.range(first..).filter_map(|join| Some((*join, self.entry(*join)?)));
        let group = joins.take_while(|(_, join)| age(join) > self.replay_time).last();
        let whole = |(_, join): &(u64, &IndexEntry)| {
            age(join) <= self.replay_time + LONGEST_GROUP && join.place.clock == self.place.clock
        };
        match group.filter(whole) {
            Some((join, _)) => (join - self.front) as usize,
            None => {
                let old = self.entries.range(gone..).take_while(|entry| age(entry) > self.replay_time);
                gone + old.count()
            }
        }
    }

    /// Returns whether there are more entries or segments than may be kept.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.entries.len() > MAX_ENTRIES || self.segments.len() > MAX_SEGMENTS
    }

    /// Forgets the entries before `until`; `floor` as in [`Self::keeps_from`]. Their bytes must still be there: headers are copied.
    pub fn evict(&mut self, until: u64, floor: u64, memory: &impl Memory) {
        self.floor = self.floor.max(floor);
        while self.front < until {
            let Some(entry) = self.entries.front().copied() else { return };
            if self.headers.front() == Some(&self.front) {
                self.headers.pop_front();
                let mut base = std::mem::take(&mut self.base);
                self.put_entry(&mut base, self.front, &entry, memory);
                self.base = base;
            }
            if self.joins.front() == Some(&self.front) {
                self.joins.pop_front();
            }
            self.segments.drain(..entry.segments());
            self.front_segment += entry.segments() as u64;
            self.entries.pop_front();
            self.front += 1;
        }
        if self.segments.capacity() > KEPT_SEGMENTS && self.segments.len() < self.segments.capacity() / 4 {
            self.segments.shrink_to(KEPT_SEGMENTS.max(2 * self.segments.len()));
        }
        // A publisher without a message in the index needs no header.
        let oldest = self.entries.front().map_or(self.place.clock, |entry| entry.place.clock);
        if self.base.iter().any(|header| header.clock < oldest) {
            self.base.retain(|header| header.clock >= oldest);
        }
    }

    /// Number of the first entry that is still there.
    #[must_use]
    pub fn front(&self) -> u64 {
        self.front
    }

    /// Number that the next message will have.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.front + self.entries.len() as u64
    }

    /// An entry, if it is there.
    #[must_use]
    pub fn entry(&self, number: u64) -> Option<&IndexEntry> {
        self.entries.get(usize::try_from(number.checked_sub(self.front)?).ok()?)
    }

    /// The runs of bytes of an entry's payload.
    pub fn segments(&self, entry: &IndexEntry) -> impl Iterator<Item = Segment> + '_ {
        self.segments_from(entry, 0)
    }

    /// The runs of bytes of an entry's payload, without the first `count` of them.
    pub(super) fn segments_from(&self, entry: &IndexEntry, count: usize) -> impl Iterator<Item = Segment> + '_ {
        // An entry that is there has its segments there.
        let from = entry.first_segment.wrapping_sub(self.front_segment as u32) as usize;
        let to = (from + entry.segments()).min(self.segments.len());
        self.segments.range((from + count).min(to)..to).inspect(|_| note_look()).copied()
    }

    /// The last entry to join at that is not behind `number`.
    #[must_use]
    pub fn join_at_or_before(&self, number: u64) -> Option<u64> {
        let behind = self.joins.partition_point(|join| *join <= number);
        behind.checked_sub(1).and_then(|at| self.joins.get(at)).copied()
    }

    /// The last entry to join at that is in front of `number`.
    #[must_use]
    pub fn join_before(&self, number: u64) -> Option<u64> {
        self.join_at_or_before(number.checked_sub(1)?)
    }

    /// The first entry to join at from `number` on.
    #[must_use]
    pub fn join_from(&self, number: u64) -> Option<u64> {
        self.joins.get(self.joins.partition_point(|join| *join < number)).copied()
    }

    /// The last entry to join at.
    #[must_use]
    pub fn last_join(&self) -> Option<u64> {
        self.joins.back().copied()
    }

    /// Returns whether the publisher sends video (more than a header).
    #[must_use]
    pub fn has_video(&self) -> bool {
        self.has_video
    }

    /// The time since which video has come without a keyframe. `None`: no video.
    #[must_use]
    pub fn without_keyframe_since(&self) -> Option<Instant> {
        self.without_keyframe_since
    }

    /// Ring and publisher of new entries.
    #[must_use]
    pub fn place(&self) -> EntryPlace {
        self.place
    }

    /// Audio and video frames with a lower timestamp than the frame before of their kind.
    #[must_use]
    pub fn steps_back(&self) -> u64 {
        self.steps_back
    }

    /// The last header that is too long to be kept; returned once per kind of header and publisher.
    pub fn take_left_out(&mut self) -> Option<LeftOut> {
        self.left_out.take()
    }

    /// Frames at which the publisher's clock jumped.
    #[must_use]
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// The last of these jumps.
    #[must_use]
    pub fn last_jump(&self) -> Option<Jump> {
        self.last_jump
    }

    /// The earliest time of this frame and of all that follow, as far as can be known: within each kind, time goes forward.
    #[must_use]
    pub fn lowest_time_from(&self, number: u64, frame: &IndexEntry) -> i64 {
        let same_clock = frame.place.clock == self.place.clock;
        let first = |kind: Kind| {
            // The publisher may never have sent this kind.
            let last = self.clock.last(kind).filter(|_| same_clock);
            if same_clock && last.is_none() {
                return None;
            }
            let from = usize::try_from(number.checked_sub(self.front)?).ok()?;
            let mut behind = self.entries.range(from.min(self.entries.len())..);
            let found =
                behind.find(|entry| entry.place.clock == frame.place.clock && entry.kind == kind && entry.is_frame());
            found.map(|entry| entry.time).or(last)
        };
        let others = [Kind::Audio, Kind::Video].into_iter().filter_map(first);
        others.filter(|time| leaves_room(*time, frame.time)).fold(frame.time, i64::min)
    }

    /// Messages that did not fit into the ring, or came in too many pieces: no upstream gets them.
    #[must_use]
    pub fn unfit(&self) -> u64 {
        self.unfit
    }

    /// Lowest position in the ring in use that an entry from `number` on or an open message needs, if any does.
    #[must_use]
    pub fn needs_from(&self, number: u64) -> Option<u64> {
        let first = self.first_of_this_ring().max(number.saturating_sub(self.front) as usize);
        let entries = self.entries.get(first).map(IndexEntry::hold);
        let open = self.open.iter().filter_map(|open| open.segments.first()).map(|segment| segment.position);
        open.chain(entries).min()
    }

    /// Number of the first keyframe whose bytes, and all that follow, lie in the ring in use from `position` on; without one, of the first message.
    #[must_use]
    pub fn group_from(&self, position: u64) -> u64 {
        let first = self.first_of_this_ring();
        let kept = match self.entries.get(first) {
            Some(entry) if entry.hold() < position => {
                self.entries.partition_point(|entry| entry.place.ring < self.place.ring || entry.hold() < position)
            }
            _ => first,
        };
        let kept = self.front + kept as u64;
        self.join_from(kept).unwrap_or(kept)
    }

    /// The place in the entries at which those of the ring in use begin; nearly always there is no other ring.
    fn first_of_this_ring(&self) -> usize {
        match self.entries.front() {
            Some(first) if first.place.ring < self.place.ring => {
                self.entries.partition_point(|entry| entry.place.ring < self.place.ring)
            }
            _ => 0,
        }
    }

    /// Lowest ring number that an entry needs.
    #[must_use]
    pub fn oldest_ring(&self) -> u32 {
        self.entries.front().map_or(self.place.ring, |entry| entry.place.ring)
    }

    /// Number of the first entry that is not in this ring.
    #[must_use]
    pub fn first_of_ring_after(&self, ring: u32) -> u64 {
        self.front + self.entries.partition_point(|entry| entry.place.ring <= ring) as u64
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
