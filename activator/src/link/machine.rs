//! The rules of a stream by link. In: the publisher's bytes and its end, the worker's frames. Out: bytes for both, and in the end an
//! [`HandoffOutcome`]. The activator does not parse media: it keeps the bytes since the last checkpoint for the worker's successor. Pure. Next:
//! `task`, which owns both connections.
//!
//! ```text
//!             Accepted                the publisher ends              Done
//!  Assigned ───────────▶ Carrying ──────────────────────▶ Ending ────────────▶ over
//!     │                     │                                │
//!     │ given back, silent  │ no sign of the worker for 2 s, │ 5 s, or the worker dies
//!     ▼                     ▼ or 2 s at the bound            ▼
//!   over                  over: for the next worker        over: for the next worker, or the publisher is gone
//! ```
//! `Done` ends the handoff in every state. From `Carrying` a stream that is given back goes to the next worker, too, and `Parted` leaves the
//! publisher's connection with this process.
//!
//! The bytes of a publisher that has ended are its stream's still: where the worker is lost before it has said `Done`, the next one begins in
//! `Assigned` with an end that is known, and gets the rest. That ends 30 s after the publisher, so that a stream that kills its workers does not
//! go on for ever; a living worker has 5 s.
//!
//! A publisher that reads nothing is still live. Each frame of answers holds whole messages, so where too many wait the newest replaces the
//! one before.
//!
//! The publisher is read from `Carrying` on: a stream that is given back before then must be as it was.
//!
//! Note: a publisher that sends faster than real time, a file over a fast network, reaches the bound between two checkpoints of a healthy
//! worker. So the reading stops at the bound at once, but the worker loses the stream only after 2 s at it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{Buf, Bytes};
use liveedgecast_common::handoff::frame::{Writer, data_header};
use liveedgecast_common::handoff::limits::MAX_DATA_BYTES;
use liveedgecast_common::handoff::{Close, DestinationList, Frame, FrameError, PROTOCOL_ERROR, PublisherEnd, Snapshot};

use super::limits::{DEAD_AFTER, END_TIME, KEPT_HEAD, MAX_KEPT, MAX_REPLIES, MAX_SLICES, REST_TIME, TICK};
use super::replay_buffer::{ReplayBuffer, Space};
use crate::excerpt::KeptBytes;
use crate::handoff::HandoffOutcome;
use crate::handoff::limits::ACCEPT_TIME;
use crate::handoff::progress::{FrameEffect, HandoffEnd, HandoffProgress, HandoffStage, WorkerLoss};

/// The part of a stream that outlives a worker: its successor begins there.
#[derive(Debug)]
pub(crate) struct Carried {
    /// The state of the session at the first byte of `replay`.
    pub(crate) checkpoint: Snapshot,
    /// The bytes since the checkpoint.
    pub(crate) replay: ReplayBuffer,
    /// Answers of the worker that the publisher's socket has not taken yet; the checkpoint counts them as sent.
    replies: VecDeque<Bytes>,
    /// A worker has had the stream.
    taken: bool,
    /// The publisher was told to start.
    started: bool,
    /// The end of the publisher's connection, and its time.
    ended: Option<(PublisherEnd, Instant)>,
}

impl Carried {
    /// A stream that no worker had so far.
    pub(crate) fn new(mut snapshot: Snapshot) -> Self {
        let mut replay = ReplayBuffer::new(snapshot.session.position());
        replay.push(&std::mem::take(&mut snapshot.unread));
        Self { checkpoint: snapshot, replay, replies: VecDeque::new(), taken: false, started: false, ended: None }
    }

    /// The session as the worker left it at the publisher's goodbye: its state, the bytes since, and the answers not sent yet.
    pub(crate) fn parted(self) -> Snapshot {
        let mut snapshot = self.checkpoint;
        snapshot.unread = self.replay.into_bytes();
        snapshot.session.set_output(self.replies.into_iter().flatten().collect());
        snapshot
    }

    /// The bytes here that are lost if no worker gets the stream any more. Upstreams may have some of them.
    pub(crate) fn at_stake(&self) -> u64 {
        self.replay.len() as u64
    }

    /// Tells whether the publisher was told to start.
    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    /// A copy of the bytes that a successor would get.
    pub(crate) fn kept(&self) -> KeptBytes {
        KeptBytes::Copied { snapshot: Box::new(self.checkpoint.clone()), bytes: self.replay.copy() }
    }

    /// Queues an answer to the publisher. Where too many wait, it replaces the last one; the first may be half written.
    fn answered(&mut self, reply: Bytes) {
        let waiting = |replies: &VecDeque<Bytes>| replies.iter().map(Bytes::len).sum::<usize>();
        while waiting(&self.replies) + reply.len() > MAX_REPLIES {
            if self.replies.len() < 2 {
                return;
            }
            self.replies.pop_back();
        }
        self.replies.push_back(reply);
    }
}

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Tell the lobby that the worker has accepted the stream.
    Accepted,
    /// Tell the lobby that the publisher was told to start.
    Started,
    /// The handoff is over. The last output.
    Over(HandoffOutcome),
}

/// The end of the publisher's bytes.
#[derive(Clone, Copy, Debug)]
struct EndOfPublisher {
    how: PublisherEnd,
    /// The worker was told.
    said: bool,
    until: Instant,
}

/// The rules of one handoff by link.
pub(crate) struct Machine<'a> {
    carried: &'a mut Carried,
    writer: Writer,
    progress: HandoffProgress,
    /// Frames on their way, and then perhaps the header of a data frame.
    head: Vec<u8>,
    head_sent: usize,
    /// The number of the publisher's bytes that follow `head`.
    body: usize,
    /// Frames that go out before the next data.
    control: Vec<u8>,
    ending: Option<EndOfPublisher>,
    heard_at: Instant,
    /// The time at which the bound was reached.
    full_since: Option<Instant>,
    /// The worker got something since the last tick.
    said: bool,
    tick: Instant,
    /// The reason for which the worker was given up, for the log.
    lost: Option<WorkerLoss>,
    over: bool,
    outputs: VecDeque<Output>,
}

impl<'a> Machine<'a> {
    /// A handoff that begins with the assignment, which is encoded as a frame.
    pub(crate) fn new(now: Instant, carried: &'a mut Carried, writer: Writer, assignment: Vec<u8>) -> Self {
        carried.replay.rewind();
        let full_since = (carried.replay.len() >= MAX_KEPT).then_some(now);
        let ending =
            carried.ended.map(|(how, _)| EndOfPublisher { how, said: false, until: now + ACCEPT_TIME + END_TIME });
        Self {
            carried,
            writer,
            progress: HandoffProgress::new(now),
            head: assignment,
            head_sent: 0,
            body: 0,
            control: Vec::new(),
            ending,
            heard_at: now,
            full_since,
            said: true,
            tick: now + TICK,
            lost: None,
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// Tells whether the publisher is to be read now.
    pub(crate) fn reads(&self) -> bool {
        !self.over && self.ending.is_none() && self.is_accepted() && self.carried.replay.len() < MAX_KEPT
    }

    /// A copy of the bytes that a successor would get. It takes as long as some two thousand messages: up to [`MAX_KEPT`] bytes are copied.
    pub(crate) fn kept(&self) -> KeptBytes {
        self.carried.kept()
    }

    /// Tells whether the worker has the stream.
    pub(crate) fn is_accepted(&self) -> bool {
        self.progress.stage() >= HandoffStage::Accepted
    }

    /// The reason for which the worker was given up.
    pub(crate) fn lost(&self) -> Option<WorkerLoss> {
        self.lost
    }

    /// Room for the publisher's next bytes; [`Self::handle_publisher`] follows.
    pub(crate) fn space(&mut self) -> Space<'_> {
        self.carried.replay.space()
    }

    /// Takes the first `len` bytes of the last [`Self::space`], which the publisher has sent. `now` is asked for when the bound is reached.
    pub(crate) fn handle_publisher(&mut self, now: impl FnOnce() -> Instant, len: usize) {
        self.carried.replay.received(len);
        if self.carried.replay.len() >= MAX_KEPT {
            self.full_since.get_or_insert_with(now);
        }
    }

    /// Takes the end of the publisher's bytes.
    pub(crate) fn handle_publisher_end(&mut self, now: Instant, how: PublisherEnd) {
        if self.ending.is_some() || self.over {
            return;
        }
        if self.carried.taken {
            self.carried.ended = Some((how, now));
            let time = if self.is_accepted() { END_TIME } else { ACCEPT_TIME + END_TIME };
            self.ending = Some(EndOfPublisher { how, said: false, until: now + time });
        } else {
            // The worker sees its connection end, and has begun nothing.
            self.finish(HandoffOutcome::PublisherGone);
        }
    }

    /// Takes a frame of the worker.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: Frame) {
        if self.over {
            return;
        }
        self.heard_at = now;
        let effect = self.progress.handle(&frame);
        let frame = match (&effect, frame) {
            (FrameEffect::Over(HandoffEnd::Parted), Frame::Parted(snapshot)) => return self.parted(now, *snapshot),
            (_, frame) => frame,
        };
        self.apply(now, effect);
        match frame {
            Frame::Reply(bytes) if !self.over => self.carried.answered(bytes),
            Frame::Checkpoint(snapshot) if !self.over => self.checkpoint(now, *snapshot),
            _ => {}
        }
    }

    /// Takes the loss of the worker, as the shell sees it.
    pub(crate) fn handle_lost(&mut self, now: Instant, how: WorkerLoss) {
        if !self.over {
            self.apply(now, FrameEffect::Over(HandoffEnd::Lost(how)));
        }
    }

    /// Asks the worker to end the stream, for this reason.
    pub(crate) fn kick(&mut self, now: Instant, reason: String) {
        self.say(&Frame::Kick(reason));
        self.progress.kicked(now);
    }

    /// Tells the worker the destinations in force.
    pub(crate) fn change(&mut self, list: DestinationList) -> Result<(), FrameError> {
        self.writer.write(&mut self.control, &Frame::Destinations(Box::new(list)))
    }

    /// The time at which [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let times = [Some(self.tick), self.progress.poll_timeout(), self.ending.map(|ending| ending.until)];
        times.into_iter().flatten().min().filter(|_| !self.over)
    }

    /// Tells whether [`Self::handle_timeout`] would give the worker up. The shell then reads first what the worker has sent: this process may
    /// have been stopped, or too busy to read it.
    pub(crate) fn gives_up(&self, now: Instant) -> bool {
        let late = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let over = late(self.progress.poll_timeout()) || late(self.ending.map(|ending| ending.until));
        !self.over && (over || (self.is_accepted() && self.silent_or_full(now).is_some()))
    }

    fn silent_or_full(&self, now: Instant) -> Option<WorkerLoss> {
        let silent = now >= self.heard_at + DEAD_AFTER;
        let full = self.full_since.is_some_and(|since| now >= since + DEAD_AFTER);
        if silent { Some(WorkerLoss::Silent) } else { full.then_some(WorkerLoss::Behind) }
    }

    /// Acts on the deadlines that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.apply(now, self.progress.handle_timeout(now));
        if self.over {
            return;
        }
        if self.ending.is_some_and(|ending| ending.until <= now) {
            self.finish(HandoffOutcome::PublisherGone);
            return;
        }
        if self.tick > now {
            return;
        }
        self.tick = now + TICK;
        if !std::mem::take(&mut self.said) {
            self.say(&Frame::Alive);
        }
        // A worker that has not accepted yet has its own, longer time.
        if let Some(how) = self.silent_or_full(now).filter(|_| self.is_accepted()) {
            self.apply(now, FrameEffect::Over(HandoffEnd::Lost(how)));
        }
    }

    /// The next order to the shell.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells whether there are bytes for the worker; makes them ready for [`Self::slices`].
    pub(crate) fn transmit(&mut self) -> bool {
        if self.head_sent == self.head.len() && self.body == 0 {
            self.next_frames();
        }
        self.head_sent < self.head.len() || self.body > 0
    }

    /// Puts the bytes that [`Self::transmit`] has made ready into `out`, and returns the number of slices.
    pub(crate) fn slices<'s>(&'s self, out: &mut [IoSlice<'s>; MAX_SLICES]) -> usize {
        let mut used = 0;
        if self.head_sent < self.head.len() {
            out[0] = IoSlice::new(&self.head[self.head_sent..]);
            used = 1;
        }
        self.carried.replay.slices(self.body, out, used)
    }

    /// Counts bytes of [`Self::slices`] as written.
    pub(crate) fn transmitted(&mut self, written: usize) {
        let head = written.min(self.head.len() - self.head_sent);
        self.head_sent += head;
        self.body -= written - head;
        self.carried.replay.gave(written - head);
        self.said = true;
    }

    /// The bytes that are to be written to the publisher next.
    pub(crate) fn reply(&self) -> Option<&[u8]> {
        self.carried.replies.front().map(AsRef::as_ref)
    }

    /// Counts bytes of [`Self::reply`] as written.
    pub(crate) fn replied(&mut self, written: usize) {
        let replies = &mut self.carried.replies;
        if let Some(first) = replies.front_mut() {
            first.advance(written);
            if first.is_empty() {
                replies.pop_front();
            }
        }
    }

    /// Makes ready the frames that follow those on their way: ours, then a data frame, or the end when all data was given.
    fn next_frames(&mut self) {
        self.head.clear();
        self.head_sent = 0;
        if self.head.capacity() > KEPT_HEAD {
            self.head = Vec::new();
        }
        self.head.append(&mut self.control);
        if !self.is_accepted() {
            return;
        }
        let waiting = self.carried.replay.waiting().min(MAX_DATA_BYTES);
        if waiting > 0 {
            self.head.extend_from_slice(&data_header(waiting));
            self.body = waiting;
        } else if let Some(ending) = &mut self.ending
            && !ending.said
        {
            ending.said = true;
            let _ = self.writer.write(&mut self.head, &Frame::End(ending.how));
        }
    }

    fn say(&mut self, frame: &Frame) {
        // Only an assignment or a snapshot can be too long.
        let _ = self.writer.write(&mut self.control, frame);
    }

    fn checkpoint(&mut self, now: Instant, mut snapshot: Snapshot) {
        if !self.carried.replay.forget_before(snapshot.session.position()) {
            self.apply(now, FrameEffect::Over(HandoffEnd::Lost(WorkerLoss::Unfit)));
            return;
        }
        snapshot.unread = Vec::new();
        self.carried.checkpoint = snapshot;
        if self.carried.replay.len() < MAX_KEPT {
            self.full_since = None;
        }
    }

    /// Ends the handoff after the publisher's goodbye: the bytes behind it are ours to read.
    fn parted(&mut self, now: Instant, snapshot: Snapshot) {
        self.checkpoint(now, snapshot);
        if !self.over {
            // A publisher that has closed its side already can read the last answers, and cannot publish again.
            let ended = self.ending.is_some();
            self.finish(if ended { HandoffOutcome::PartedForGood } else { HandoffOutcome::Parted });
        }
    }

    fn apply(&mut self, now: Instant, effect: FrameEffect) {
        let stage = self.progress.stage();
        let (accepted, started) = (stage >= HandoffStage::Accepted, stage >= HandoffStage::Started);
        let end = match effect {
            FrameEffect::Nothing => return,
            FrameEffect::Accepted => {
                // The worker was given nothing before: its silence, and its time without a checkpoint, count from here on.
                self.heard_at = now;
                self.full_since = self.full_since.map(|_| now);
                self.ending.iter_mut().for_each(|ending| ending.until = now + END_TIME);
                self.carried.taken = true;
                self.outputs.push_back(Output::Accepted);
                return;
            }
            FrameEffect::Started => {
                self.carried.started = true;
                self.outputs.push_back(Output::Started);
                return;
            }
            FrameEffect::Over(end) => end,
        };
        let outcome = match end {
            HandoffEnd::Done(how, why) => HandoffOutcome::Done { how, started, erred: why == PROTOCOL_ERROR },
            HandoffEnd::Parted => HandoffOutcome::Parted,
            HandoffEnd::Duplicate => HandoffOutcome::Duplicate,
            // The stream is ended without the worker.
            HandoffEnd::KickIgnored => HandoffOutcome::Done { how: Close::Graceful, started, erred: false },
            HandoffEnd::Returned(_) | HandoffEnd::Lost(_) if self.is_rest_late(now) => HandoffOutcome::PublisherGone,
            HandoffEnd::Returned(why) => HandoffOutcome::Returned { why, touched: accepted, started },
            HandoffEnd::Lost(how) => {
                self.lost = Some(how);
                if accepted && how == WorkerLoss::Ended {
                    HandoffOutcome::Broken { started }
                } else {
                    HandoffOutcome::Lost { accepted, touched: accepted, started }
                }
            }
        };
        self.finish(outcome);
    }

    /// Tells whether the publisher has ended so long ago that no other worker gets the rest of its stream.
    fn is_rest_late(&self, now: Instant) -> bool {
        self.carried.ended.is_some_and(|(_, at)| now >= at + REST_TIME)
    }

    fn finish(&mut self, outcome: HandoffOutcome) {
        self.over = true;
        self.outputs.push_back(Output::Over(outcome));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
