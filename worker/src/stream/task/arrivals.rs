//! The bytes of a stream's publisher: receive them, make room, find messages, keep a snapshot for a successor. Part of the shell; the rules
//! of snapshots are those of [`crate::stream::snapshots`].

use std::cell::Cell;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use liveedgecast_common::event;
use liveedgecast_common::handoff::{Assignment, Close, PROTOCOL_ERROR, Snapshot};
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::rtmp::server::{Event, RunEvent, SessionError};
use liveedgecast_common::rtmp::{Run, Scanned};
use liveedgecast_common::sys::{RingMemory, prefetch};

use super::StreamTask;
use crate::stream::feed::UpstreamFeed;
use crate::stream::index::{IndexProgress, LEAVES_WHOLE, LeftOut, Segment};
use crate::stream::machine::Input;
use crate::stream::resume::{READ_BYTES, reach, read_room};
use crate::stream::source::{PublisherSource, SourceEvent};
use crate::stream::wakes::Sources;

/// Pieces that a thread keeps room for: twice as many as one read has in chunks of 128 bytes.
const MAX_KEPT_PIECES: usize = 1 << 10;

/// Limits the lines about publishers that break the protocol: one may come again at once, for ever. A metric counts them.
static ERRED: LogLimiter = LogLimiter::several(10, Duration::from_secs(1));

/// Part of a lap that is made free at once where messages leave it that nobody needs.
const KEPT_STEPS: u64 = 4;

/// Interval at which messages that are older than the replay window are forgotten, while there is room for more.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

thread_local! {
    /// Room for the pieces of a message: all streams of a thread use the same, so that it stays in the cache.
    static PIECES: Cell<Vec<Segment>> = const { Cell::new(Vec::new()) };
}

/// The number of pieces that this thread has room for.
#[cfg(test)]
pub(in crate::stream) fn room_for_pieces() -> usize {
    let pieces = PIECES.take();
    let room = pieces.capacity();
    PIECES.set(pieces);
    room
}

/// Bytes in front of the head that a ring has for certain after the next read. A successor does not count on the room of a read
/// ([`reach`]), so a lap that it may have to resume in grows one read earlier. The longest lap cannot grow: there the rules of snapshots keep
/// the distance.
fn lasting(ring: &RingMemory) -> u64 {
    let capacity = ring.capacity();
    if ring.is_private() || capacity == ring.most() { capacity as u64 } else { reach(capacity) }
}

impl StreamTask {
    /// Takes one event of the publisher or its activator; `false`: there is none. `first`: the first of this wake-up, which is nearly always
    /// that bytes have come.
    pub(super) fn poll_source(&mut self, cx: &mut Context<'_>, now: Instant, first: bool) -> bool {
        let likely = first && !self.woken.has(Sources::ACTIVATOR);
        if likely && self.source.as_ref().is_some_and(PublisherSource::is_read_at_once) && self.receive(now) {
            return true;
        }
        let Some(source) = &mut self.source else {
            self.woken.take(Sources::ACTIVATOR);
            return false;
        };
        let Poll::Ready(arrival) = source.poll(cx, &self.wakes, &mut self.woken, now) else { return false };
        match arrival {
            SourceEvent::Readable => {
                self.receive(now);
            }
            SourceEvent::Lost(why, how) => self.tell(now, Input::Lost { why, how }),
            SourceEvent::Kick(reason) => self.tell(now, Input::Kick(reason)),
            SourceEvent::Destinations(list) => self.listed(now, *list),
        }
        true
    }

    /// Receives the bytes that have come; returns whether there were any.
    fn receive(&mut self, now: Instant) -> bool {
        self.expire_if_due(now);
        // The room is that of the lap as it is now: that of the lap before would make one that has just become shorter grow again.
        let room = self.rings.current().map_or(0, |ring| read_room(ring.capacity()));
        self.make_room(now, room);
        self.prefetch_behind();
        let (Some(source), Some(ring)) = (&mut self.source, self.rings.current_mut()) else { return false };
        match source.receive(now, ring, room) {
            Ok(None) | Err(SourceEvent::Readable) => return false,
            Ok(Some(_)) => self.scan(now),
            Err(SourceEvent::Lost(why, how)) => self.tell(now, Input::Lost { why, how }),
            Err(SourceEvent::Kick(reason)) => self.tell(now, Input::Kick(reason)),
            Err(SourceEvent::Destinations(list)) => self.listed(now, *list),
        }
        true
    }

    /// Lets the processor fetch the places that a message will be noted in, while the kernel receives it.
    fn prefetch_behind(&self) {
        if let Some(source) = &self.source {
            prefetch(source.session.chunk_streams());
        }
        self.index.prefetch_behind();
        self.feeds.iter().for_each(UpstreamFeed::prefetch_behind);
    }

    /// Forgets old messages once a second, and uses less of the ring if that is enough.
    fn expire_if_due(&mut self, now: Instant) {
        if self.source.is_some() && now >= self.expires_at {
            self.expire(now);
            self.note_need(now);
            self.leave_old_rings(now);
            self.shorten(now);
        }
    }

    /// Makes certain that the next `room` bytes overwrite nothing that is needed. Nearly always there is room.
    fn make_room(&mut self, now: Instant, room: usize) {
        let Some(head) = self.source.as_ref().map(|source| source.head) else { return };
        if head + room as u64 > self.room_until || self.index.is_crowded() {
            self.reclaim(now, room);
        }
    }

    /// Forgets the messages that are older than the replay window.
    pub(super) fn expire(&mut self, now: Instant) {
        self.expires_at = now + EXPIRY_INTERVAL;
        let until = self.index.keeps_from(now, 0);
        self.evict(until, 0);
    }

    /// Forgets messages that nobody needs, the oldest first, until there is room. If that makes none, more of the ring is used, and in the end messages
    /// are overwritten.
    fn reclaim(&mut self, now: Instant, room: usize) {
        let unneeded = self.unneeded_until(now);
        let needed = self.index.needs_from(unneeded);
        let (Some(source), Some(ring)) = (&self.source, self.rings.current()) else { return };
        let (end, lasting) = (source.head + room as u64, lasting(ring));
        let fits = end - source.needs_from(needed) <= lasting;
        // Excerpts show messages that nobody needs, so these stay while there is room. One call makes room for several reads.
        let kept = (end + lasting / KEPT_STEPS).saturating_sub(lasting);
        let until = if fits && !self.index.is_crowded() { self.index.group_from(kept).min(unneeded) } else { unneeded };
        self.evict(until, 0);
        if fits {
            let needed = self.index.needs_from(self.index.front());
            let Some(source) = &self.source else { return };
            self.room_until = source.needs_from(needed) + lasting;
        } else {
            self.lengthen(now, room);
        }
    }

    /// Uses more of the ring for what is needed, and forgets what is overwritten if the whole ring is in use. What is not needed was forgotten.
    fn lengthen(&mut self, now: Instant, room: usize) {
        let needed = self.index.needs_from(self.index.front());
        let (Some(source), Some(ring)) = (&self.source, self.rings.current_mut()) else { return };
        let (head, from) = (source.head, source.needs_from(needed));
        let end = head + room as u64;
        while end - from > lasting(ring) && head - from <= ring.capacity() as u64 && ring.grow(from, head) {}
        self.room_until = from + lasting(ring);
        let floor = end.saturating_sub(ring.capacity() as u64);
        if from < floor {
            let until = self.index.keeps_from(now, floor);
            self.evict(until, floor);
        }
    }

    /// The first message that is neither too old nor unneeded: no session of an upstream may begin before it.
    fn unneeded_until(&mut self, now: Instant) -> u64 {
        self.index.keeps_from(now, 0).max(self.needs_from())
    }

    /// Notes how much of the ring is needed.
    fn note_need(&mut self, now: Instant) {
        let unneeded = self.unneeded_until(now);
        let needed = self.index.needs_from(unneeded);
        if let Some(source) = &self.source {
            self.need.note(now, source.head - source.needs_from(needed));
        }
    }

    /// Forgets the messages in rings of earlier publishers that nobody needs, and gives such rings away.
    fn leave_old_rings(&mut self, now: Instant) {
        if self.rings.len() > 1 {
            let unneeded = self.unneeded_until(now);
            self.evict(unneeded.min(self.index.group_from(0)), 0);
        }
    }

    /// Uses less of the ring, where a shorter lap has been enough for a while. What is not needed is forgotten then: its bytes do not stay.
    fn shorten(&mut self, now: Instant) {
        let Some(longest) = self.need.longest() else { return };
        if !self.rings.current().is_some_and(|ring| ring.is_long_for(longest)) {
            return;
        }
        let unneeded = self.unneeded_until(now);
        self.evict(unneeded, 0);
        let needed = self.index.needs_from(self.index.front());
        let (Some(source), Some(ring)) = (&self.source, self.rings.current_mut()) else { return };
        let (head, from) = (source.head, source.needs_from(needed));
        if ring.shorten(longest, from, head) {
            self.room_until = from + lasting(ring);
        }
    }

    /// The first message that a session of any upstream may begin with: the last keyframe, or that before the first message that the upstream is
    /// not known to have.
    fn needs_from(&mut self) -> u64 {
        let newest = self.index.last_join().unwrap_or(self.index.end());
        let index = &self.index;
        self.feeds.iter_mut().map(|feed| feed.needs_from(index)).fold(newest, u64::min)
    }

    pub(super) fn evict(&mut self, until: u64, floor: u64) {
        if until > self.index.front() {
            for feed in &mut self.feeds {
                feed.before_eviction(until, &self.index, &self.rings);
            }
        }
        self.index.evict(until, floor, &self.rings);
        self.rings.forget(self.index.oldest_ring());
    }

    /// Scans the bytes that have been received for messages.
    pub(super) fn scan(&mut self, now: Instant) {
        self.machine.heard(now);
        let mut pieces = PIECES.take();
        self.scan_into(now, &mut pieces);
        if pieces.capacity() > MAX_KEPT_PIECES {
            pieces = Vec::new();
        }
        PIECES.set(pieces);
    }

    fn scan_into(&mut self, now: Instant, pieces: &mut Vec<Segment>) {
        let goes_on = self.scan_steps(now, pieces);
        // Also after the last event of a publisher: nothing counts what was skipped before it later.
        let passed_over = self.source.as_ref().map_or(0, |source| source.session.passed_over());
        let skipped = passed_over + self.index.unfit();
        if skipped > 0 && self.reports.push_skipped(skipped) && !std::mem::replace(&mut self.logged_skipped, true) {
            self.log_skipped();
        }
        if goes_on {
            self.snapshot_if_far(now);
        }
    }

    /// Takes the events of the bytes that have been received, no more than a read at a time; `false`: the publisher's session is over.
    ///
    /// A takeover by descriptor finds all bytes behind the snapshot at once. Messages in tiny chunks are to be found in many parts then too: the
    /// bound on their segments holds for messages that come in parts.
    fn scan_steps(&mut self, now: Instant, pieces: &mut Vec<Segment>) -> bool {
        let Some(source) = &self.source else { return false };
        let (head, mut until) = (source.head, source.session.position());
        loop {
            until = head.min(until + READ_BYTES as u64);
            if !self.scan_events(now, until, pieces) {
                return false;
            }
            if until == head {
                return true;
            }
        }
    }

    /// Takes the events of the bytes up to `until`; `false`: the publisher's session is over.
    fn scan_events(&mut self, now: Instant, until: u64, pieces: &mut Vec<Segment>) -> bool {
        loop {
            let (Some(source), Some(ring)) = (&mut self.source, self.rings.current()) else { return false };
            if source.session.is_ended() {
                // The activator reads the bytes after a goodbye.
                return false;
            }
            let position = source.session.position();
            let input = ring.bytes(position, (until - position) as usize);
            match source.session.next_run(input, pieces) {
                Ok(Some(RunEvent::Run(run))) => {
                    self.media(now, &run, pieces);
                    if self.source.as_ref().is_some_and(|source| source.session.position() == until) {
                        return true;
                    }
                }
                Ok(Some(RunEvent::Other(Event::Media(Scanned::Aborted { csid, .. })))) => self.index.abort(csid),
                Ok(Some(RunEvent::Other(Event::Ended(_)))) => {
                    self.tell(now, Input::Ended);
                    return false;
                }
                Ok(Some(RunEvent::Other(_))) => {}
                Ok(None) => return true,
                Err(error) => {
                    self.log_error(now, &error);
                    self.tell(now, Input::Lost { why: PROTOCOL_ERROR, how: Close::Graceful });
                    return false;
                }
            }
        }
    }

    /// Logs why the publisher is disconnected.
    fn log_error(&self, now: Instant, error: &SessionError) {
        if ERRED.is_due(now) {
            let Assignment { stream_id: stream, app, client, .. } = &self.assignment;
            let publisher = self.wanted.publisher();
            tracing::warn!(event = event::PUBLISHER_ERRED, %stream, %app, publisher, %client, %error, "publisher broke the protocol and is disconnected");
        }
    }

    fn log_skipped(&self) {
        tracing::warn!(
            event = event::MESSAGE_SKIPPED,
            stream = %self.assignment.stream_id,
            app = %self.assignment.app,
            ring = self.assignment.policy.replay_bytes,
            "message skipped: too long for the replay window, of an unknown type, or begun at a worker that was lost; logged once per stream"
        );
    }

    fn media(&mut self, now: Instant, run: &Run, pieces: &[Segment]) {
        let before = self.index.end();
        let progress = self.index.receive(run, pieces, &self.rings);
        if progress.begins || progress.keyframe {
            if progress.begins {
                self.begun_at = before;
            }
            self.snapshot_if_due(now, progress, run.header.length - run.received);
        }
        if !run.last {
            if run.header.length > LEAVES_WHOLE {
                let reach = self.rings.current().map_or(0, |ring| reach(ring.most()));
                self.index.offer(now, run.header.csid, reach, &self.rings);
            }
            return;
        }
        let Some(source) = &self.source else { return };
        let end = pieces.last().map_or(source.session.position(), |piece| piece.position + u64::from(piece.len));
        if end <= source.known_before {
            // A message that was complete before the connection was handed over again is in the index already.
            return self.index.abort(run.header.csid);
        }
        self.index.complete(now, run, pieces, &self.rings);
        if self.index.jumps() > 0 {
            self.report_jumps(now, false);
        }
        if let Some(LeftOut { slot, bytes }) = self.index.take_left_out() {
            tracing::warn!(
                event = event::HEADER_LEFT_OUT,
                stream = %self.assignment.stream_id,
                app = %self.assignment.app,
                header = ?slot,
                bytes,
                "header of the publisher left out: it is too long to be kept, and upstream sessions that begin later will lack it"
            );
        }
    }

    /// Logs and reports jumps of the publisher's clock; `last`: the stream ends.
    pub(super) fn report_jumps(&mut self, now: Instant, last: bool) {
        let Some(jumps) = self.reports.push_jumps(now, self.index.jumps(), last) else { return };
        let Some(last) = self.index.last_jump() else { return };
        tracing::debug!(
            event = event::CLOCK_JUMPED,
            stream = %self.assignment.stream_id,
            app = %self.assignment.app,
            kind = ?last.kind,
            expected_ms = last.expected,
            got_ms = last.timestamp,
            jumps,
            "publisher's clock jumped: upstreams get timestamps without the jump"
        );
    }

    /// Makes a snapshot of the beginning of the last message and publishes one, where the rules say so.
    fn snapshot_if_due(&mut self, now: Instant, progress: IndexProgress, coming: u32) {
        self.publish_acknowledged(now);
        let Some(source) = &mut self.source else { return };
        let position = source.session.position();
        if source.snapshots.wants(now, position, progress.keyframe, self.index.has_video()) {
            // Nothing in front of this message has left the ring for it, so that the need is at its longest.
            self.note_need(now);
            let Some(source) = &mut self.source else { return };
            let session = source.session.state_before_chunk();
            let stream = Some(self.index.state(progress.keyframe, &self.rings));
            source.snapshots.made(now, self.begun_at, Snapshot { session, stream, unread: Vec::new() });
            self.publish_acknowledged(now);
        }
        let Some(source) = &mut self.source else { return };
        let position = source.session.position();
        if source.snapshots.is_needed(position, coming) {
            let snapshot = source.snapshots.take_waiting(position, coming).unwrap_or_else(|| {
                let session = source.session.state_before_chunk();
                let stream = Some(self.index.state(progress.keyframe, &self.rings));
                Snapshot { session, stream, unread: Vec::new() }
            });
            self.publish(now, snapshot);
        }
    }

    /// Publishes a snapshot when the last one is out of reach, wherever the publisher is in a message, or in none that is media. The part of a
    /// long message that has come is not in the snapshot, so that message is lost if a successor comes before its end.
    fn snapshot_if_far(&mut self, now: Instant) {
        let Some(source) = &mut self.source else { return };
        let position = source.session.position();
        if !source.snapshots.is_out_of_reach(position) {
            return;
        }
        let snapshot = source.snapshots.take_waiting(position, 0).unwrap_or_else(|| {
            let session = source.session.state();
            let stream = Some(self.index.state_now(&self.rings));
            Snapshot { session, stream, unread: Vec::new() }
        });
        self.publish(now, snapshot);
    }

    fn publish_acknowledged(&mut self, now: Instant) {
        let Some(source) = self.source.as_mut().filter(|source| source.snapshots.has_waiting()) else { return };
        // A successor repeats what lies behind the snapshot to upstreams that have it, so those that are away hold nothing up while another is
        // live. If none is, the successor is to begin where they left.
        let live = self.feeds.iter_mut().filter_map(UpstreamFeed::owes_from).min();
        let owed = live.or_else(|| self.feeds.iter().filter_map(UpstreamFeed::returns_to).min()).unwrap_or(u64::MAX);
        if let Some(snapshot) = source.snapshots.acknowledged(owed) {
            self.publish(now, snapshot);
        }
    }

    fn publish(&mut self, now: Instant, snapshot: Snapshot) {
        if let (Some(source), Some(ring)) = (&mut self.source, self.rings.current_mut()) {
            source.publish(now, snapshot, ring);
        }
    }

    /// Tells a successor that the publisher has been told to start, if no media has come yet.
    pub(super) fn snapshot_of_start(&mut self, now: Instant) {
        let Some(source) = &self.source else { return };
        if source.snapshots.owes_start() && self.index.end() == 0 {
            let session = source.session.state();
            self.publish(now, Snapshot { session, stream: None, unread: Vec::new() });
        }
    }
}
