//! The cursor of one upstream: where it is in the stream, and what is to be written to it next.
//!
//! In: the [`Index`], what the upstream has taken, how its sessions begin and end. Out: slices of the ring with chunk headers between
//! them, for one vectored write; counts. Next room: [`crate::upstream`].
//!
//! ```text
//!            start                 a keyframe; or no video; or none for 2 s
//!  Away ───────────▶ Seeking ──────────────────────────────────────────────▶ Flowing
//!   ▲                   ▲                                                      │
//!   │ session_over      └───────────── its messages have left the ring ────────┤
//!   └──────────────────────────────────────────────────────────────────────────┘
//! ```
//! While flowing, a cursor that lags too far jumps to the newest keyframe. Video that is no keyframe never flows before one does; a new
//! publisher closes that gate again.
//!
//! QueuedBytes surprised us: a message that is partly written has to be finished, whatever becomes of its bytes, its publisher or the lag: the
//! receiver counts. Its rest is copied aside.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use liveedgecast_common::rtmp::media::{HeaderSlot, Kind};
use liveedgecast_common::rtmp::writer::ChunkHeader;

use super::index::{Index, IndexEntry, Memory};
use super::ledger::Ledger;
use super::queue::{QueueItem, WritePart, WriteQueue};
use super::timeline::Timeline;

/// Without a keyframe for this long, audio goes alone: SRS ends a silent session after 7 s, players give up earlier.
pub const AUDIO_ALONE_AFTER: Duration = Duration::from_secs(2);
/// Slices in one write. A message takes a header and one or two slices per publisher's chunk; the kernel takes 1024.
pub const MAX_SLICES: usize = 64;
/// Messages prepared for writing: as many as one write can hold.
const MAX_PLANNED: usize = MAX_SLICES / 2;
/// After this many unconfirmed messages the upstream is asked what has been acknowledged: a few seconds of a stream.
const ASK_AFTER: usize = 256;

/// How far an upstream may lag.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A message that has not been written for this long is given up for a newer keyframe.
    pub time: Duration,
    /// The same for bytes of the ring.
    pub bytes: u64,
}

/// QueuedBytes a cursor has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorCounters {
    /// Messages delivered, each counted once.
    pub messages: u64,
    /// Bytes written, chunk headers and repetitions included.
    pub bytes: u64,
    /// Messages that no session of the upstream got. Can go down by what a later session delivers after all.
    pub lost: u64,
    /// Messages written again in a later session.
    pub replayed: u64,
    /// Times that a lagging upstream was taken to a newer keyframe.
    pub jumps: u64,
}

/// One session of the upstream.
#[derive(Debug)]
struct CursorSession {
    message_stream: u32,
    since: Instant,
    /// Nothing has been planned yet.
    fresh: bool,
    flowing: bool,
    /// A keyframe of the current publisher has been planned: other video may follow.
    video: bool,
    clock: u32,
    timeline: Timeline,
    /// Numbers below were planned or passed over in this session.
    next: u64,
    /// Numbers below were written or passed over in this session, and are in the ledger.
    passed: u64,
    queue: WriteQueue,
    /// The headers that this session has: slot and message.
    headers: Vec<(HeaderSlot, Option<u64>)>,
}

/// See the file's header.
#[derive(Debug)]
pub struct Cursor {
    bounds: Bounds,
    session: Option<CursorSession>,
    ledger: Ledger,
    bytes: u64,
    jumps: u64,
    parts: Vec<WritePart>,
    heads: Vec<ChunkHeader>,
}

impl Cursor {
    /// A cursor at the first message there will be.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            session: None,
            ledger: Ledger::default(),
            bytes: 0,
            jumps: 0,
            parts: Vec::new(),
            heads: Vec::new(),
        }
    }

    /// A session of the upstream has begun.
    pub fn start(&mut self, now: Instant, message_stream: u32, chunk_size: u32) {
        self.session_over(0, 0);
        self.session = Some(CursorSession {
            message_stream,
            since: now,
            fresh: true,
            flowing: false,
            video: false,
            clock: 0,
            timeline: Timeline::default(),
            next: self.ledger.settled(),
            passed: self.ledger.settled(),
            queue: WriteQueue::new(chunk_size),
            headers: Vec::new(),
        });
    }

    /// The session is gone. `unacknowledged`: bytes that were written and did not reach the peer; `front`: see [`Index::front`].
    pub fn session_over(&mut self, unacknowledged: u64, front: u64) {
        let Some(mut session) = self.session.take() else { return };
        self.bytes += session.queue.written();
        session.queue.acknowledged(unacknowledged, |number| self.ledger.confirm(number, true));
        session.queue.unacknowledged().for_each(|number| self.ledger.confirm(number, false));
        self.ledger.session_over();
        let first = session.queue.unacknowledged().next().unwrap_or(session.passed);
        self.ledger.settle(first);
        self.away(front);
    }

    /// Without a session: what leaves the ring is lost.
    fn away(&mut self, front: u64) {
        let from = self.ledger.settled();
        self.ledger.pass(from..front, std::iter::empty());
        self.ledger.settle(front);
        self.ledger.forget(front);
    }

    /// Chunks of the connection itself, to be written as soon as no message is in the way.
    pub fn push_control(&mut self, bytes: Vec<u8>) {
        if let Some(session) = &mut self.session {
            session.queue.push_control(bytes);
        }
    }

    /// Entries before `until` are about to be forgotten: see [`Index::evict`]. Their bytes are still there.
    pub fn before_eviction(&mut self, until: u64, index: &Index, memory: &impl Memory) {
        let Some(session) = &mut self.session else { return self.away(until) };
        session.queue.save_started(until, index, memory);
        if session.first_unwritten() < until {
            session.take_back();
            session.leave(until, &mut self.ledger);
        }
        let queued = session.queue.numbers().min();
        let needed = [Some(until), queued, session.queue.oldest_unconfirmed(), Some(session.passed)];
        self.ledger.forget(needed.into_iter().flatten().min().unwrap_or(0));
    }

    /// Prepares the next write. Afterwards [`Self::slices`] has it; see [`Self::wants_write`].
    pub fn plan(&mut self, now: Instant, index: &Index, head: u64, memory: &impl Memory) {
        self.parts.clear();
        self.heads.clear();
        let Some(session) = &mut self.session else { return };
        if session.flowing && session.lags(now, &self.bounds, index, head) {
            self.jumps += u64::from(session.jump(index, &mut self.ledger, memory));
        }
        if !session.flowing {
            session.seek(now, index, &mut self.ledger, memory);
        }
        while session.flowing && session.queue.len() < MAX_PLANNED {
            let Some(entry) = index.entry(session.next) else { break };
            session.next += 1;
            if session.lets_pass(entry) {
                session.push(entry, index);
            }
        }
        session.queue.parts(index, &mut self.parts, &mut self.heads, MAX_SLICES);
    }

    /// Whether [`Self::plan`] has found something to write.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.parts.is_empty()
    }

    /// QueuedBytes was planned, as slices; returns how many. Empty ones are left out.
    pub fn slices<'a>(&'a self, memory: &'a impl Memory, out: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let Some(session) = &self.session else { return 0 };
        for (part, slice) in self.parts.iter().zip(out.iter_mut()) {
            *slice = IoSlice::new(match part {
                WritePart::Head { at, from } => &self.heads[*at][*from..],
                WritePart::Ring { ring, segment } => memory.bytes(*ring, segment.position, segment.len as usize),
                WritePart::Bytes { at, from } => session.queue.bytes(*at, *from),
            });
        }
        self.parts.len().min(MAX_SLICES)
    }

    /// The upstream took `count` bytes of what was planned.
    pub fn wrote(&mut self, count: usize) {
        self.parts.clear();
        let Some(session) = &mut self.session else { return };
        session.queue.wrote(count as u64);
        while let Some(item) = session.queue.pop_written() {
            if let Some(header) = item.header_of {
                session.headers.retain(|(slot, _)| *slot != header.0);
                session.headers.push(header);
            }
            match item.number {
                Some(number) if item.injected => self.ledger.complete_injected(number),
                Some(number) => {
                    self.ledger.complete(number, session.passed);
                    session.passed = session.passed.max(number + 1);
                }
                None => {}
            }
        }
    }

    /// Whether it is time to say what has been [`Self::acknowledged`].
    #[must_use]
    pub fn wants_acknowledgement(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.queue.unconfirmed() >= ASK_AFTER)
    }

    /// All but this many of the bytes written have reached the peer.
    pub fn acknowledged(&mut self, unacknowledged: u64) {
        if let Some(session) = &mut self.session {
            session.queue.acknowledged(unacknowledged, |number| self.ledger.confirm(number, true));
        }
    }

    /// The lowest number that the session has not been heard to have delivered; `None` without a session. Say first what has been
    /// [`Self::acknowledged`].
    #[must_use]
    pub fn owes_from(&self) -> Option<u64> {
        let session = self.session.as_ref()?;
        Some(session.queue.unacknowledged().next().unwrap_or(session.passed))
    }

    /// Whether the last message was written to its end.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.session.as_ref().is_none_or(|session| !session.queue.is_started())
    }

    /// Whether everything there is has been written, or there is no session to write it to.
    #[must_use]
    pub fn is_drained(&self, index: &Index) -> bool {
        self.session.as_ref().is_none_or(|session| session.queue.len() == 0 && session.next >= index.end())
    }

    /// Nothing more will be written: what has not been is lost.
    pub fn finish(&mut self, index: &Index) {
        let from = match self.session.take() {
            Some(session) => {
                self.bytes += session.queue.written();
                session.passed
            }
            None => self.ledger.settled(),
        };
        self.ledger.session_over();
        self.ledger.pass(from..index.end(), std::iter::empty());
        self.ledger.settle(index.end());
    }

    /// When to plan again, even if nothing comes.
    #[must_use]
    pub fn poll_timeout(&self, index: &Index) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let waiting = !session.flowing && session.next < index.end();
        index.without_keyframe_since().filter(|_| waiting).map(|since| since + AUDIO_ALONE_AFTER)
    }

    /// See [`CursorCounters`].
    #[must_use]
    pub fn counters(&self) -> CursorCounters {
        CursorCounters {
            messages: self.ledger.delivered(),
            bytes: self.bytes + self.session.as_ref().map_or(0, |session| session.queue.written()),
            lost: self.ledger.lost(),
            replayed: self.ledger.replayed(),
            jumps: self.jumps,
        }
    }
}

impl CursorSession {
    /// The first message that no byte has been written of.
    fn first_unwritten(&self) -> u64 {
        self.queue.first_unstarted().unwrap_or(self.next)
    }

    fn lags(&self, now: Instant, bounds: &Bounds, index: &Index, head: u64) -> bool {
        // QueuedBytes came while there was no session is a burst that may take as long as any lag.
        let busy_for = now.saturating_duration_since(self.since);
        let Some(entry) = index.entry(self.first_unwritten()).filter(|_| busy_for > bounds.time) else { return false };
        let bytes = if entry.place.ring == index.place().ring { head.saturating_sub(entry.start) } else { head };
        now.saturating_duration_since(entry.arrived) > bounds.time || bytes > bounds.bytes
    }

    /// To the newest keyframe, or without video to the newest message; `false` if that is no progress.
    fn jump(&mut self, index: &Index, ledger: &mut Ledger, memory: &impl Memory) -> bool {
        let target = if index.has_video() { index.last_join() } else { index.end().checked_sub(1) };
        let Some(target) = target.filter(|target| *target > self.first_unwritten()) else { return false };
        self.take_back();
        self.join(target, index, ledger, memory);
        true
    }

    /// QueuedBytes was planned and not started will not be written.
    fn take_back(&mut self) {
        self.timeline = self.queue.drop_unstarted().unwrap_or(self.timeline);
    }

    /// QueuedBytes was planned has been taken back, and everything before `until` is gone.
    fn leave(&mut self, until: u64, ledger: &mut Ledger) {
        self.flowing = false;
        self.video = false;
        self.next = self.next.max(until);
        self.pass_to(until, ledger, &[]);
    }

    /// Everything before `number` that is not on its way is passed over.
    fn pass_to(&mut self, number: u64, ledger: &mut Ledger, still_to_come: &[u64]) {
        let coming = self.queue.numbers().chain(still_to_come.iter().copied());
        ledger.pass(self.passed..number, coming.clone());
        ledger.only_still_to_come(coming);
        self.passed = self.passed.max(number);
    }

    fn seek(&mut self, now: Instant, index: &Index, ledger: &mut Ledger, memory: &impl Memory) {
        let from = self.next.max(index.front());
        let audio_alone = || {
            let since = index.without_keyframe_since();
            let due = since.is_some_and(|since| now.saturating_duration_since(since) >= AUDIO_ALONE_AFTER);
            (due && from < index.end()).then_some(from)
        };
        let target = if from == 0 || !index.has_video() {
            // From the very beginning nothing has to be left out, not even audio before the first keyframe.
            (from < index.end()).then_some(from)
        } else if self.fresh {
            let same = |join: &u64| clock(index, *join) == clock(index, from);
            index.join_at_or_before(from).filter(same).or_else(|| index.join_from(from)).or_else(audio_alone)
        } else {
            index.last_join().filter(|join| *join >= from).or_else(audio_alone)
        };
        if let Some(target) = target {
            self.join(target, index, ledger, memory);
        }
    }

    /// Goes on at this message, with the headers that are new to the session in front of it.
    fn join(&mut self, target: u64, index: &Index, ledger: &mut Ledger, memory: &impl Memory) {
        let Some(entry) = index.entry(target) else { return };
        let mut headers = index.headers_before(target, memory);
        headers.retain(|header| {
            let known = (header.slot, header.number);
            !self.headers.contains(&known) && !self.queue.holds_header(known)
        });
        if self.fresh {
            // A replay begins before what has been passed in the session before.
            self.passed = self.passed.min(target);
        }
        let numbers: Vec<u64> = headers.iter().filter_map(|header| header.number).collect();
        self.pass_to(target, ledger, &numbers);
        self.next = target;
        self.enter(entry);
        let before = self.timeline;
        // The receiver takes headers at 0 for headers; within a session, time goes on.
        let timestamp = if self.timeline.is_fresh() { 0 } else { self.timestamp(entry, index) };
        for header in headers {
            self.queue.push(QueueItem::injected(header, timestamp, self.message_stream, before));
        }
        self.fresh = false;
        self.flowing = true;
        // Opened by the target, if it is a keyframe.
        self.video = false;
    }

    /// A publisher's first message in this session closes the gate for video.
    fn enter(&mut self, entry: &IndexEntry) {
        if self.clock != entry.place.clock || !self.flowing {
            self.clock = entry.place.clock;
            self.video = false;
        }
    }

    fn lets_pass(&mut self, entry: &IndexEntry) -> bool {
        self.enter(entry);
        if !entry.whole {
            return false;
        }
        if entry.inspection.kind != Kind::Video || entry.inspection.header.is_some() {
            return true;
        }
        self.video |= entry.join;
        self.video
    }

    fn push(&mut self, entry: &IndexEntry, index: &Index) {
        let before = self.timeline;
        let timestamp = self.timestamp(entry, index);
        self.queue.push(QueueItem::entry(entry, timestamp, self.message_stream, before));
    }

    /// The first frame of a publisher decides where all of it lies in the session.
    fn timestamp(&mut self, entry: &IndexEntry, index: &Index) -> u32 {
        let clock = entry.place.clock;
        if !self.timeline.has_begun(clock) && entry.inspection.is_frame() {
            self.timeline.begin(clock, entry.time, index.lowest_time_from(entry), entry.arrived);
        }
        self.timeline.map(clock, entry.time, entry.arrived)
    }
}

/// Whose message it is, or will be.
fn clock(index: &Index, number: u64) -> u32 {
    index.entry(number).map_or(index.place().clock, |entry| entry.place.clock)
}

#[cfg(test)]
#[path = "cursor_tests.rs"]
mod tests;
