//! What the task of a stream does with the bytes of its publisher: receive, make room, find messages, keep a snapshot for a successor.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use liveedgecast_common::handoff::{Close, Snapshot};
use liveedgecast_common::rtmp::Scanned;
use liveedgecast_common::rtmp::server::Event;

use super::Stream;
use crate::stream::Report;
use crate::stream::index::{LeftOut, Noted};
use crate::stream::leg::Leg;
use crate::stream::machine::Input;
use crate::stream::resume::read_room;
use crate::stream::source::Arrival;

/// Snapshots that wait for an upstream: what it lags is bounded by time, and a keyframe comes every second or two.
const MAX_SNAPSHOTS: usize = 4;
/// Between two log lines about the clock of one publisher: a broken one jumps at every frame.
const JUMPS_INTERVAL: Duration = Duration::from_secs(10);

impl Stream {
    /// Takes one arrival of the publisher; `false`: there is none.
    pub(super) fn poll_source(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(source) = &mut self.source else { return false };
        let Poll::Ready(arrival) = source.poll(cx, now) else { return false };
        match arrival {
            Arrival::Readable => self.receive(now),
            Arrival::Bytes(bytes) => {
                let room = self.rings.current().map_or(1, |ring| read_room(ring.capacity()));
                for part in bytes.chunks(room.max(1)) {
                    self.make_room(now, part.len());
                    if let (Some(source), Some(ring)) = (&mut self.source, self.rings.current_mut()) {
                        ring.space(source.head, part.len()).copy_from_slice(part);
                        source.head += part.len() as u64;
                    }
                    self.scan(now);
                }
            }
            Arrival::Lost(why, how) => self.machine.handle(now, Input::Lost { why, how }),
            Arrival::Kick(reason) => self.machine.handle(now, Input::Kick(reason)),
        }
        true
    }

    fn receive(&mut self, now: Instant) {
        let room = self.rings.current().map_or(0, |ring| read_room(ring.capacity()));
        self.make_room(now, room);
        let (Some(source), Some(ring)) = (&mut self.source, self.rings.current_mut()) else { return };
        match source.receive(ring, room) {
            Ok(None) => {}
            Ok(Some(_)) => self.scan(now),
            Err(Arrival::Lost(why, how)) => self.machine.handle(now, Input::Lost { why, how }),
            Err(_) => {}
        }
    }

    /// Before so many bytes are received: what they will overwrite is forgotten.
    fn make_room(&mut self, now: Instant, room: usize) {
        let until = self.index.keeps_from(now, 0);
        self.evict(until, 0);
        let needed = self.index.needs_from();
        let (Some(source), Some(ring)) = (&self.source, self.rings.current_mut()) else { return };
        let (head, from) = (source.head, source.needs_from(needed));
        let end = head + room as u64;
        while end - from > ring.capacity() as u64 && head - from <= ring.capacity() as u64 && ring.grow(from, head) {}
        let floor = end.saturating_sub(ring.capacity() as u64);
        if from < floor {
            let until = self.index.keeps_from(now, floor);
            self.evict(until, floor);
        }
    }

    pub(super) fn evict(&mut self, until: u64, floor: u64) {
        if until > self.index.front() {
            for leg in &mut self.legs {
                leg.before_eviction(until, &self.index, &self.rings);
            }
        }
        self.index.evict(until, floor, &self.rings);
        self.rings.forget(self.index.oldest_ring());
    }

    /// Takes in what has been received.
    pub(super) fn scan(&mut self, now: Instant) {
        self.machine.heard(now);
        loop {
            let (Some(source), Some(ring)) = (&mut self.source, self.rings.current()) else { return };
            if source.session.is_ended() {
                // The bytes after a goodbye are for the activator to read.
                return;
            }
            let position = source.session.position();
            let input = ring.bytes(position, (source.head - position) as usize);
            match source.session.next(input) {
                Ok(None) => {
                    let passed = source.session.passed_over() + self.index.unfit();
                    if passed != self.passed {
                        self.note_passed(passed);
                    }
                    return self.snapshot_if_far(now);
                }
                Ok(Some(Event::Media(scanned))) => self.media(now, scanned),
                Ok(Some(Event::Ended(_))) => {
                    self.machine.handle(now, Input::Ended);
                    return;
                }
                Ok(Some(Event::Connected | Event::Publish | Event::Pong(_))) => {}
                Err(error) => {
                    tracing::debug!(%error, stream = %self.assignment.stream_id, "the publisher erred");
                    self.machine.handle(now, Input::Lost { why: "protocol error", how: Close::Graceful });
                    return;
                }
            }
        }
    }

    /// Messages have been passed over: so many by now, of this session and this index.
    fn note_passed(&mut self, passed: u64) {
        if !self.told_of_passed {
            self.told_of_passed = true;
            let stream = &self.assignment.stream_id;
            let ring = self.assignment.policy.replay_bytes;
            tracing::warn!(
                event = "stream.message_skipped", %stream, app = %self.assignment.app, ring,
                "the publisher sent a message that is too long for the replay window or of an unknown type, and it was skipped; said once"
            );
        }
        let more = passed.saturating_sub(self.passed);
        self.passed = passed;
        let waiting = self.outbox.iter_mut().find_map(|report| match report {
            Report::Skipped(messages) => Some(messages),
            _ => None,
        });
        match waiting {
            Some(messages) => *messages += more,
            None => self.outbox.push_back(Report::Skipped(more)),
        }
    }

    fn media(&mut self, now: Instant, scanned: Scanned) {
        let Some(source) = &mut self.source else { return };
        let scanned = match scanned {
            // Complete before the connection was handed over again: it is in the index.
            Scanned::Payload { csid, at, len, last: true } if at + u64::from(len) <= source.known_before => {
                Scanned::Aborted { csid, missing: 0 }
            }
            scanned => scanned,
        };
        let coming = if let Scanned::Begin { header, .. } = scanned { header.length } else { 0 };
        let noted = self.index.media(now, scanned, &self.rings);
        if self.index.jumps() > self.jumps_told.0 {
            self.tell_of_jumps(now, false);
        }
        if let Some(LeftOut { slot, bytes }) = self.index.take_left_out() {
            tracing::warn!(
                event = "publisher.header_left_out",
                stream = %self.assignment.stream_id,
                app = %self.assignment.app,
                header = ?slot,
                bytes,
                "a header of the publisher is too long to be kept: upstream sessions that begin later will lack it"
            );
        }
        if noted.begins || noted.keyframe {
            self.snapshot_if_due(now, noted, coming);
        }
    }

    /// Logs and reports that the publisher's clock has jumped; `now_or_never`: the stream ends.
    pub(super) fn tell_of_jumps(&mut self, now: Instant, now_or_never: bool) {
        let (told, at) = self.jumps_told;
        let early = at.is_some_and(|at| now.saturating_duration_since(at) < JUMPS_INTERVAL);
        let count = self.index.jumps() - told;
        let Some(last) = self.index.last_jump().filter(|_| count > 0 && (now_or_never || !early)) else { return };
        self.jumps_told = (self.index.jumps(), Some(now));
        tracing::info!(
            event = "publisher.clock_jumped",
            stream = %self.assignment.stream_id,
            app = %self.assignment.app,
            kind = ?last.kind,
            expected_ms = last.expected,
            got_ms = last.timestamp,
            jumps = count,
            "the publisher's clock jumped: upstreams get timestamps without the jump"
        );
        self.outbox.push_back(Report::ClockJumps { count });
    }

    /// A successor is to begin where the slowest upstream needs it: what this one has written can be lost with its sockets, and what it has
    /// not written is. So a snapshot is published only when every upstream that is there has acknowledged what came before it.
    fn snapshot_if_due(&mut self, now: Instant, noted: Noted, coming: u32) {
        if noted.begins {
            self.begun_at = self.index.end();
        }
        self.publish_acknowledged(now);
        let Some(source) = &mut self.source else { return };
        if source.wants_snapshot(now, noted.keyframe, self.index.has_video()) && self.snapshots.len() < MAX_SNAPSHOTS {
            source.snapshot_made(now);
            let snapshot = self.snapshot(noted.keyframe);
            self.snapshots.extend(snapshot.map(|snapshot| (self.begun_at, snapshot)));
            self.publish_acknowledged(now);
        }
        let (Some(source), Some(ring)) = (&self.source, self.rings.current()) else { return };
        if source.needs_snapshot(ring, coming)
            && let Some(snapshot) = self.waiting_snapshot(coming).or_else(|| self.snapshot(noted.keyframe))
        {
            self.publish(now, snapshot);
        }
    }

    /// Wherever the publisher is in a message, or in none that is media: a successor finds no more than so much. What has come of a long message
    /// is not in the snapshot, so that one is lost should a successor come before its end.
    fn snapshot_if_far(&mut self, now: Instant) {
        let (Some(source), Some(ring)) = (&self.source, self.rings.current()) else { return };
        if source.reaches(ring, source.snapshot_position(), 0) {
            return;
        }
        let snapshot = self.waiting_snapshot(0).or_else(|| {
            let session = self.source.as_ref()?.session.state();
            let stream = Some(self.index.state_now(&self.rings));
            Some(Snapshot { session, stream, unread: Vec::new() })
        });
        if let Some(snapshot) = snapshot {
            self.publish(now, snapshot);
        }
    }

    /// The oldest waiting snapshot that is not far back; otherwise the newest, if a successor can begin at it. Those before it are dropped.
    fn waiting_snapshot(&mut self, coming: u32) -> Option<Snapshot> {
        let (source, ring) = (self.source.as_ref()?, self.rings.current()?);
        let mut last = None;
        while let Some((_, snapshot)) = self.snapshots.pop_front() {
            let far = source.goes_far(ring, snapshot.session.position());
            last = Some(snapshot);
            if !far {
                break;
            }
        }
        last.filter(|snapshot| source.reaches(ring, snapshot.session.position(), coming))
    }

    /// As of the chunk that began the last message.
    fn snapshot(&self, keyframe: bool) -> Option<Snapshot> {
        let session = self.source.as_ref()?.session.state_before_chunk();
        let stream = Some(self.index.state(keyframe, &self.rings));
        Some(Snapshot { session, stream, unread: Vec::new() })
    }

    fn publish_acknowledged(&mut self, now: Instant) {
        if self.snapshots.is_empty() {
            return;
        }
        let owed = self.legs.iter_mut().filter_map(Leg::owes_from).min().unwrap_or(u64::MAX);
        let mut newest = None;
        while self.snapshots.front().is_some_and(|(before, _)| *before <= owed) {
            newest = self.snapshots.pop_front();
        }
        if let Some((_, snapshot)) = newest {
            self.publish(now, snapshot);
        }
    }

    fn publish(&mut self, now: Instant, snapshot: Snapshot) {
        if let (Some(source), Some(ring)) = (&mut self.source, self.rings.current_mut()) {
            source.publish(now, snapshot, ring);
        }
    }

    /// Tells a successor that the publisher has been told to start; no media has come yet, or it is of the past.
    pub(super) fn snapshot_of_start(&mut self, now: Instant) {
        let Some(source) = &mut self.source else { return };
        if source.owes_snapshot() && self.index.end() == 0 {
            let session = source.session.state();
            if let Some(ring) = self.rings.current_mut() {
                source.publish(now, Snapshot { session, stream: None, unread: Vec::new() }, ring);
            }
        }
    }
}
