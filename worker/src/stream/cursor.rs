//! The cursor of one upstream: its place in the stream, and the messages to write to it next.
//!
//! In: the [`Index`], the bytes that the upstream has taken, beginnings and ends of its sessions. Out: slices of the ring with chunk headers between
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
//! Note: a message that is partly written has to be finished, even if its bytes leave the ring, its publisher leaves, or the upstream lags:
//! the receiver counts bytes. The rest of such a message is copied aside.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use liveedgecast_common::rtmp::media::{HeaderSlot, Kind};
use liveedgecast_common::rtmp::writer::ChunkHeader;
use smallvec::SmallVec;

use super::index::{Index, IndexEntry, Memory};
use super::ledger::Ledger;
use super::queue::{QueueItem, SingleItem, WritePart, WriteQueue, message_header};
use super::timeline::Timeline;

mod early;
mod lag;
mod sent;

pub use self::sent::SentKeyframe;

/// Time without a keyframe after which audio goes alone: SRS ends a silent session after 7 s, players give up earlier.
pub const AUDIO_ALONE_AFTER: Duration = Duration::from_secs(2);
/// Slices in one write. A message takes a header and one or two slices per publisher's chunk; the kernel takes 1024.
pub const MAX_SLICES: usize = 64;
/// Messages prepared for writing: as many as one write can hold.
const MAX_PLANNED: usize = MAX_SLICES / 2;
/// Unconfirmed messages after which the kernel is asked how much has been acknowledged: a few seconds of a stream.
const ASK_AFTER: usize = 256;

/// Bounds of an upstream's lag.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A message that has not been written for this long is given up for a newer keyframe.
    pub time: Duration,
    /// A message behind which so many bytes of the ring lie is given up, too.
    pub bytes: u64,
}

/// Counts of one cursor, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorCounters {
    /// Messages delivered, each counted once. The count goes down when a session breaks before some of them were acknowledged.
    pub messages: u64,
    /// Bytes written, chunk headers and repetitions included.
    pub bytes: u64,
    /// Messages that no session of the upstream got. The count goes down when a later session delivers some of them after all.
    pub lost: u64,
    /// Messages written again in a later session.
    pub replayed: u64,
    /// Times that a lagging upstream was taken to a newer keyframe.
    pub jumps: u64,
    /// Time of the stream that was passed over, by the arrivals of its messages: a lagging upstream was taken to a newer keyframe, or messages
    /// left the ring before they were written.
    pub skipped: Duration,
}

/// The state of the upstream's session.
#[derive(Debug)]
struct CursorSession {
    message_stream: u32,
    since: Instant,
    /// No message has been planned yet.
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
    /// The message that is partly written is the last one.
    stopped: bool,
}

/// See the file's header.
#[derive(Debug)]
pub struct Cursor {
    bounds: Bounds,
    session: Option<CursorSession>,
    ledger: Ledger,
    bytes: u64,
    jumps: u64,
    skipped: Duration,
}

/// The next write, laid out. It has no memory of its own unless it is long, and belongs on the stack: then a thread uses the same lines of the
/// cache for the writes of all of its streams.
#[derive(Debug, Default)]
pub struct WritePlan {
    pub(super) parts: SmallVec<[WritePart; MAX_SLICES]>,
    pub(super) heads: SmallVec<[ChunkHeader; MAX_SLICES / 4]>,
    /// The message, if it is the only one and nothing waits before it: then it does not go through the queue.
    pub(super) single: Option<SingleItem>,
    /// The first part of a message whose last byte has not come; it is behind everything else.
    pub(super) early: Option<usize>,
}

impl WritePlan {
    /// Creates an empty plan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.heads.clear();
        self.single = None;
        self.early = None;
    }
}

/// The bytes of a [`WritePlan`].
pub type WriteSlices<'a> = SmallVec<[IoSlice<'a>; MAX_SLICES]>;

impl Cursor {
    /// Creates a cursor at the first message there will be.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, session: None, ledger: Ledger::default(), bytes: 0, jumps: 0, skipped: Duration::ZERO }
    }

    /// Lets the processor fetch the places that the next message will be noted in.
    pub fn prefetch_behind(&self) {
        if let Some(session) = &self.session {
            session.queue.prefetch_behind();
        }
        self.ledger.prefetch_behind();
    }

    /// Notes that a session of the upstream has begun.
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
            stopped: false,
        });
    }

    /// Leaves out every message below this one, before the first session: the upstream joins a stream that runs.
    pub fn begin_at(&mut self, number: u64) {
        self.ledger.begin_at(number);
    }

    /// Ends the session's media with the message that is partly written.
    pub fn stop(&mut self) {
        if let Some(session) = &mut self.session {
            session.take_back();
            session.queue.leave_early();
            session.stopped = true;
        }
    }

    /// Notes that the session is lost. `unacknowledged`: bytes that were written and did not reach the peer; `front`: see [`Index::front`].
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

    /// Counts the messages that leave the ring as lost, while there is no session.
    fn away(&mut self, front: u64) {
        let from = self.ledger.settled();
        self.ledger.pass(from..front, std::iter::empty());
        self.ledger.settle(front);
        self.ledger.forget(front);
    }

    /// Adds chunks of the connection itself, to be written as soon as no message is in the way.
    pub fn push_control(&mut self, bytes: Vec<u8>) {
        if let Some(session) = &mut self.session {
            session.queue.push_control(bytes);
        }
    }

    /// Prepares for [`Index::evict`]: entries before `until` are about to be forgotten. Their bytes are still there.
    pub fn before_eviction(&mut self, until: u64, index: &Index, memory: &impl Memory) {
        let Some(session) = &mut self.session else {
            self.skipped += time_between(index, self.ledger.settled(), until);
            return self.away(until);
        };
        session.queue.save_started(until, index, memory);
        if session.first_unwritten() < until {
            self.skipped += time_between(index, session.first_unwritten(), until);
            session.take_back();
            session.leave(until, &mut self.ledger);
        }
        let queued = session.queue.numbers().min();
        let needed = [Some(until), queued, session.queue.oldest_unconfirmed(), Some(session.passed)];
        self.ledger.forget(needed.into_iter().flatten().min().unwrap_or(0));
    }

    /// Lays out the next write; [`Self::slices`] has its bytes. [`Self::wrote`] must follow, also if nothing was taken.
    pub fn plan(&mut self, now: Instant, index: &Index, head: u64, memory: &impl Memory, plan: &mut WritePlan) {
        plan.clear();
        let Some(session) = &mut self.session else { return };
        if session.stopped {
            return session.queue.parts(index, plan, MAX_SLICES);
        }
        if session.queue.len() == 0 && session.next >= index.end() {
            if index.has_open() || session.queue.early().is_some() {
                session.plan_early(index, plan);
            }
            return;
        }
        session.note_early(index);
        // The newest message alone may be late, but there is none to jump to.
        if !session.has_newest_alone(index) {
            if session.flowing && session.lags(now, &self.bounds, index, head) {
                let from = session.first_unwritten();
                if session.jump(index, &mut self.ledger, memory) {
                    self.jumps += 1;
                    self.skipped += time_between(index, from, session.next);
                }
            }
            if !session.flowing {
                let from = session.next.max(index.front());
                session.seek(now, index, &mut self.ledger, memory);
                if session.flowing {
                    self.skipped += time_between(index, from, session.next);
                }
            }
        }
        if session.has_newest_alone(index) {
            return session.plan_single(index, plan);
        }
        while session.flowing && session.queue.len() < MAX_PLANNED {
            let Some(entry) = index.entry(session.next).filter(|_| !session.is_early(session.next)) else { break };
            session.next += 1;
            if session.lets_pass(entry) {
                session.push(session.next - 1, entry, index);
            }
        }
        session.queue.parts(index, plan, MAX_SLICES);
        session.early_parts(index, plan);
    }

    /// Adds the planned bytes as slices.
    pub fn slices<'a>(&'a self, plan: &'a WritePlan, memory: &'a impl Memory, out: &mut WriteSlices<'a>) {
        let Some(session) = &self.session else { return };
        out.extend(plan.parts.iter().map(|part| {
            IoSlice::new(match part {
                WritePart::Head { at, from } => &plan.heads[*at][*from..],
                WritePart::Ring { ring, segment } => memory.bytes(*ring, segment.position, segment.len as usize),
                WritePart::Bytes { at, from } => session.queue.bytes(*at, *from),
            })
        }));
    }

    /// Notes that the upstream took `count` of the planned bytes.
    pub fn wrote(&mut self, plan: &mut WritePlan, count: usize, memory: &impl Memory) {
        let Some(session) = &mut self.session else { return };
        let mut count = count as u64;
        let early = plan.early.map(|from| (from, count.saturating_sub(session.queue.unwritten())));
        count -= early.map_or(0, |(_, early)| early);
        if let Some(single) = &plan.single {
            let number = single.number;
            let whole = session.queue.wrote_single(single, count);
            plan.single = None;
            if whole {
                return session.wrote_message(number, &mut self.ledger);
            }
        }
        session.queue.wrote(count);
        while let Some(item) = session.queue.pop_written() {
            if let Some(header) = item.header_of {
                session.headers.retain(|(slot, _)| *slot != header.0);
                session.headers.push(header);
            }
            match item.number {
                Some(number) if item.injected => self.ledger.complete_injected(number),
                Some(number) => session.wrote_message(number, &mut self.ledger),
                None => {}
            }
        }
        if let Some((from, count)) = early {
            session.queue.wrote_early(plan, from, count, memory);
        }
    }

    /// Returns whether a call of [`Self::acknowledged`] is due.
    #[must_use]
    pub fn wants_acknowledgement(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.queue.unconfirmed() >= ASK_AFTER)
    }

    /// Notes that all but this many of the bytes written have reached the peer.
    pub fn acknowledged(&mut self, unacknowledged: u64) {
        if let Some(session) = &mut self.session {
            session.queue.acknowledged(unacknowledged, |number| self.ledger.confirm(number, true));
        }
    }

    /// The lowest message that the session is not known to have delivered; `None` without a session. Call [`Self::acknowledged`] first.
    #[must_use]
    pub fn owes_from(&self) -> Option<u64> {
        let session = self.session.as_ref()?;
        Some(session.queue.unacknowledged().next().unwrap_or(session.passed))
    }

    /// The first message that the next session should deliver, while there is no session.
    #[must_use]
    pub fn begins_from(&self) -> u64 {
        self.ledger.settled()
    }

    /// Returns whether the last message was written to its end, or can be left as it is.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.session.as_ref().is_none_or(|session| !session.queue.is_started())
    }

    /// Returns whether every message was written. Without a session, the next one is to write what the last one left.
    #[must_use]
    pub fn is_drained(&self, index: &Index) -> bool {
        match &self.session {
            Some(session) => session.queue.len() == 0 && session.next >= index.end(),
            None => self.begins_from() >= index.end(),
        }
    }

    /// Ends the cursor: messages that were not written are lost.
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

    /// Deadline of the next plan, even if no message comes.
    #[must_use]
    pub fn poll_timeout(&self, index: &Index) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let waiting = !session.flowing && !session.stopped && session.next < index.end();
        index.without_keyframe_since().filter(|_| waiting).map(|since| since + AUDIO_ALONE_AFTER)
    }

    /// Times that the upstream was taken to a newer keyframe, because it lagged.
    #[must_use]
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// The counts so far.
    #[must_use]
    pub fn counters(&self) -> CursorCounters {
        CursorCounters {
            messages: self.ledger.delivered(),
            bytes: self.bytes + self.session.as_ref().map_or(0, |session| session.queue.written()),
            lost: self.ledger.lost(),
            replayed: self.ledger.replayed(),
            jumps: self.jumps,
            skipped: self.skipped,
        }
    }
}

impl CursorSession {
    /// Returns whether the newest message is the only one to be written, and none is partly written.
    fn has_newest_alone(&self, index: &Index) -> bool {
        self.flowing && self.queue.len() == 0 && self.next + 1 == index.end() && self.queue.early().is_none()
    }

    /// The first message of which no byte was written.
    fn first_unwritten(&self) -> u64 {
        self.queue.first_unstarted().unwrap_or(self.next)
    }

    fn lags(&self, now: Instant, bounds: &Bounds, index: &Index, head: u64) -> bool {
        // Messages that came while there was no session are a burst that may take as long as any lag.
        let busy_for = now.saturating_duration_since(self.since);
        let Some(entry) = index.entry(self.first_unwritten()).filter(|_| busy_for > bounds.time) else { return false };
        let bytes = if entry.place.ring == index.place().ring { head.saturating_sub(entry.start) } else { head };
        now.saturating_duration_since(entry.arrived) > bounds.time || bytes > bounds.bytes
    }

    /// Jumps to the newest keyframe, or without video to the newest message; `false` if that is no progress.
    fn jump(&mut self, index: &Index, ledger: &mut Ledger, memory: &impl Memory) -> bool {
        let target = if index.has_video() { index.last_join() } else { index.end().checked_sub(1) };
        let Some(target) = target.filter(|target| *target > self.first_unwritten()) else { return false };
        self.leave_early_before(target);
        self.take_back();
        self.join(target, index, ledger, memory);
        true
    }

    /// Takes back the planned messages that were not started.
    fn take_back(&mut self) {
        self.timeline = self.queue.drop_unstarted().unwrap_or(self.timeline);
    }

    /// Seeks again: the plan has been taken back, and everything before `until` has left the ring.
    fn leave(&mut self, until: u64, ledger: &mut Ledger) {
        self.queue.leave_early();
        self.flowing = false;
        self.video = false;
        self.next = self.next.max(until);
        self.pass_to(until, ledger, &[]);
    }

    /// Passes over every message before `number` that is not on its way.
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
            // At the very beginning of a stream nothing is left out, not even audio before the first keyframe.
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

    /// Continues at this message, with the headers that are new to the session in front of it.
    fn join(&mut self, target: u64, index: &Index, ledger: &mut Ledger, memory: &impl Memory) {
        let Some(entry) = index.entry(target) else { return };
        let mut headers = index.headers_before(target, memory);
        headers.retain(|header| {
            let known = (header.slot, header.number);
            !self.headers.contains(&known) && !self.queue.holds_header(known)
        });
        if self.fresh {
            // A replay begins before the messages that the session before had passed.
            self.passed = self.passed.min(target);
        }
        let numbers: Vec<u64> = headers.iter().filter_map(|header| header.number).collect();
        self.pass_to(target, ledger, &numbers);
        self.next = target;
        self.enter(entry);
        let before = self.timeline;
        // At the beginning of a session headers have time 0, as receivers expect; within a session, time goes on.
        let timestamp = if self.timeline.is_fresh() { 0 } else { self.timestamp(target, entry, index) };
        for header in headers {
            self.queue.push(QueueItem::injected(header, timestamp, self.message_stream, before));
        }
        self.fresh = false;
        self.flowing = true;
        // The target opens the gate, if it is a keyframe.
        self.video = false;
    }

    /// Closes the gate for video at a publisher's first message in this session.
    fn enter(&mut self, entry: &IndexEntry) {
        if self.clock != entry.place.clock || !self.flowing {
            self.clock = entry.place.clock;
            self.video = false;
        }
    }

    fn lets_pass(&mut self, entry: &IndexEntry) -> bool {
        self.enter(entry);
        if !entry.is_whole() {
            return false;
        }
        if entry.kind != Kind::Video || entry.header.is_some() {
            return true;
        }
        self.video |= entry.is_join();
        self.video
    }

    fn push(&mut self, number: u64, entry: &IndexEntry, index: &Index) {
        let before = self.timeline;
        let timestamp = self.timestamp(number, entry, index);
        self.queue.push(QueueItem::entry(number, entry, timestamp, self.message_stream, before));
    }

    /// Plans the newest message, which alone is to be written.
    fn plan_single(&mut self, index: &Index, plan: &mut WritePlan) {
        let number = self.next;
        let Some(entry) = index.entry(number) else { return };
        self.next += 1;
        if !self.lets_pass(entry) {
            return;
        }
        // A header changes what the session has: that is the queue's business.
        if entry.header.is_some() {
            self.push(number, entry, index);
            return self.queue.parts(index, plan, MAX_SLICES);
        }
        let before = self.timeline;
        let header = message_header(entry, self.timestamp(number, entry, index), self.message_stream);
        let length = self.queue.single(&header, entry, index, plan, MAX_SLICES);
        plan.single = Some(SingleItem { number, length, header, before });
    }

    fn wrote_message(&mut self, number: u64, ledger: &mut Ledger) {
        ledger.complete(number, self.passed);
        self.passed = self.passed.max(number + 1);
    }

    /// The timestamp to send. The first frame of a publisher decides where all of its frames lie in the session.
    fn timestamp(&mut self, number: u64, entry: &IndexEntry, index: &Index) -> u32 {
        let clock = entry.place.clock;
        if !self.timeline.has_begun(clock) && entry.is_frame() {
            self.timeline.begin(clock, entry.time, index.lowest_time_from(number, entry), entry.arrived);
        }
        self.timeline.map(clock, entry.time, entry.arrived)
    }
}

/// Time from the arrival of one message to that of a later one, or of the newest that there is; zero if the first has left the ring.
fn time_between(index: &Index, from: u64, to: u64) -> Duration {
    let to = to.min(index.end().saturating_sub(1));
    match (index.entry(from.max(index.front())), index.entry(to)) {
        (Some(from), Some(to)) => to.arrived.saturating_duration_since(from.arrived),
        _ => Duration::ZERO,
    }
}

/// The publisher of a message that is here or will come.
fn clock(index: &Index, number: u64) -> u32 {
    index.entry(number).map_or(index.place().clock, |entry| entry.place.clock)
}

#[cfg(test)]
#[path = "cursor_tests.rs"]
mod tests;
