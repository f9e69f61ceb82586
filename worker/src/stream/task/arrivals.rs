//! What the task of a stream does with the bytes of its publisher: receive, make room, find messages, keep a snapshot for a successor.

use std::task::{Context, Poll};
use std::time::Instant;

use liveedgecast_common::handoff::{Close, Snapshot};
use liveedgecast_common::rtmp::Scanned;
use liveedgecast_common::rtmp::server::Event;

use super::Stream;
use crate::stream::index::Noted;
use crate::stream::machine::Input;
use crate::stream::resume::read_room;
use crate::stream::source::Arrival;

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
        let (Some(source), Some(ring)) = (&self.source, self.rings.current()) else { return };
        let floor = (source.head + room as u64).saturating_sub(ring.capacity() as u64);
        let until = self.index.keeps_from(now, floor);
        self.evict(until, floor);
        let needed = self.index.needs_from();
        if let (Some(source), Some(ring)) = (&mut self.source, self.rings.current_mut()) {
            source.release(needed, floor, ring);
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
            let position = source.session.position();
            let input = ring.bytes(position, (source.head - position) as usize);
            match source.session.next(input) {
                Ok(None) => return,
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

    fn media(&mut self, now: Instant, scanned: Scanned) {
        let Some(source) = &mut self.source else { return };
        let scanned = match scanned {
            // Complete before the connection was handed over again: it is in the index.
            Scanned::Payload { csid, at, len, last: true } if at + u64::from(len) <= source.known_before => {
                Scanned::Aborted { csid, missing: 0 }
            }
            scanned => scanned,
        };
        let noted = self.index.media(now, scanned, &self.rings);
        if noted.begins || noted.keyframe {
            self.snapshot_if_due(now, noted);
        }
    }

    fn snapshot_if_due(&mut self, now: Instant, noted: Noted) {
        let (Some(source), Some(ring)) = (&mut self.source, self.rings.current()) else { return };
        let position = source.session.position();
        if source.wants_snapshot(now, position, noted.keyframe, self.index.has_video(), ring) {
            let session = source.session.state_before_chunk();
            let stream = Some(self.index.state(noted.keyframe, &self.rings));
            let Some(ring) = self.rings.current_mut() else { return };
            source.publish(now, Snapshot { session, stream, unread: Vec::new() }, ring);
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
