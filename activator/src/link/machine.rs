//! The rules of a stream by link. In: the publisher's bytes and its end, the worker's frames. Out: bytes for both, and in the end an
//! [`Outcome`]. The activator does not look into the media: it keeps what came since the last checkpoint, for the worker's successor.
//!
//! ```text
//!             Accepted                the publisher ends              Done
//!  Assigned ───────────▶ Carrying ──────────────────────▶ Ending ────────────▶ over
//!     │                     │                                │
//!     │ given back, silent  │ no sign of the worker for 2 s, │ 5 s, or the worker dies
//!     ▼                     ▼ or 2 s at the bound            ▼
//!   over                  over: for the next worker        over: the publisher is gone
//! ```
//!
//! A publisher that reads nothing is no less live: its answers are whole messages, frame by frame, and of those that wait the last is enough.
//!
//! The publisher is read from `Accepted` on: what is given back before then must be where it was.
//!
//! What surprised us: a publisher that sends faster than real time, a file over a fast network, reaches the bound between two
//! checkpoints of a healthy worker. So the bound stops the reading at once, but kills the worker only after 2 s at it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{Buf, Bytes};
use liveedgecast_common::handoff::frame::{Writer, data_header};
use liveedgecast_common::handoff::limits::MAX_DATA_BYTES;
use liveedgecast_common::handoff::{Frame, PublisherEnd, Snapshot};

use super::kept::Kept;
use super::limits::{DEAD_AFTER, END_TIME, KEPT_HEAD, MAX_KEPT, MAX_REPLIES, MAX_SLICES, TICK};
use crate::handoff::Outcome;
use crate::handoff::progress::{End, Heard, Loss, Progress, Stage};

/// What outlives a worker: where its successor begins.
#[derive(Debug)]
pub(crate) struct Carried {
    /// The state at the first kept byte.
    pub(crate) checkpoint: Snapshot,
    /// The bytes since.
    pub(crate) kept: Kept,
    /// The worker's answers that the publisher's socket has not taken yet; the checkpoint counts them as sent.
    replies: VecDeque<Bytes>,
}

impl Carried {
    /// Of a publisher that no worker had so far.
    pub(crate) fn new(mut snapshot: Snapshot) -> Self {
        let mut kept = Kept::new(snapshot.session.position());
        kept.push(std::mem::take(&mut snapshot.unread).into());
        Self { checkpoint: snapshot, kept, replies: VecDeque::new() }
    }
}

impl Carried {
    /// The session as the worker left it at the publisher's goodbye: its state, the bytes since, and the answers not sent yet.
    pub(crate) fn parted(self) -> Snapshot {
        let mut snapshot = self.checkpoint;
        snapshot.unread = self.kept.into_bytes();
        snapshot.session.set_output(self.replies.into_iter().flatten().collect());
        snapshot
    }

    /// Takes an answer to the publisher. Where too many wait, it takes the place of the last one; the first may be half written.
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

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Tell the lobby that the worker has it.
    Taken,
    /// Tell the lobby that the publisher was told to start.
    Started,
    /// It is over. The last output.
    Over(Outcome),
}

/// How the publisher's bytes ended, and whether the worker knows.
#[derive(Clone, Copy, Debug)]
struct Ending {
    how: PublisherEnd,
    said: bool,
    until: Instant,
}

/// One handoff by link.
pub(crate) struct Link<'a> {
    carried: &'a mut Carried,
    writer: Writer,
    progress: Progress,
    /// Frames, and then perhaps the header of a data frame: on their way.
    head: Vec<u8>,
    head_sent: usize,
    /// Bytes of the publisher that follow `head`.
    body: usize,
    /// Frames that go before the next data.
    control: Vec<u8>,
    ending: Option<Ending>,
    heard_at: Instant,
    /// Since when the bound has been reached.
    full_since: Option<Instant>,
    /// Whether the worker got something since the last tick.
    said: bool,
    tick: Instant,
    /// Why the worker was given up, for the log.
    lost: Option<Loss>,
    over: bool,
    outputs: VecDeque<Output>,
}

impl<'a> Link<'a> {
    /// Begins with the assignment, written already.
    pub(crate) fn new(now: Instant, carried: &'a mut Carried, writer: Writer, assignment: Vec<u8>) -> Self {
        carried.kept.rewind();
        let full_since = (carried.kept.len() >= MAX_KEPT).then_some(now);
        Self {
            carried,
            writer,
            progress: Progress::new(now),
            head: assignment,
            head_sent: 0,
            body: 0,
            control: Vec::new(),
            ending: None,
            heard_at: now,
            full_since,
            said: true,
            tick: now + TICK,
            lost: None,
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// Whether the publisher is to be read.
    pub(crate) fn reads(&self) -> bool {
        !self.over && self.ending.is_none() && self.is_accepted() && self.carried.kept.len() < MAX_KEPT
    }

    /// Whether the worker has the stream.
    pub(crate) fn is_accepted(&self) -> bool {
        self.progress.stage() >= Stage::Accepted
    }

    /// Why the worker was given up.
    pub(crate) fn lost(&self) -> Option<Loss> {
        self.lost
    }

    /// Takes bytes of the publisher.
    pub(crate) fn handle_publisher(&mut self, now: Instant, bytes: Bytes) {
        self.carried.kept.push(bytes);
        if self.carried.kept.len() >= MAX_KEPT {
            self.full_since.get_or_insert(now);
        }
    }

    /// The publisher will send no more.
    pub(crate) fn handle_publisher_end(&mut self, now: Instant, how: PublisherEnd) {
        if self.ending.is_some() || self.over {
            return;
        }
        if self.is_accepted() {
            self.ending = Some(Ending { how, said: false, until: now + END_TIME });
        } else {
            // The worker sees its connection end, and has begun nothing.
            self.finish(Outcome::PublisherGone);
        }
    }

    /// Takes a frame of the worker.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: Frame) {
        if self.over {
            return;
        }
        self.heard_at = now;
        let heard = self.progress.handle(&frame);
        let frame = match (&heard, frame) {
            (Heard::Over(End::Parted), Frame::Parted(snapshot)) => return self.parted(now, *snapshot),
            (_, frame) => frame,
        };
        self.heard(now, heard);
        match frame {
            Frame::Reply(bytes) if !self.over => self.carried.answered(bytes),
            Frame::Checkpoint(snapshot) if !self.over => self.checkpoint(now, *snapshot),
            _ => {}
        }
    }

    /// The connection to the worker ended, or cannot be understood.
    pub(crate) fn handle_lost(&mut self, now: Instant, how: Loss) {
        if !self.over {
            self.heard(now, Heard::Over(End::Lost(how)));
        }
    }

    /// The stream is to end, for this reason.
    pub(crate) fn kick(&mut self, now: Instant, reason: String) {
        self.say(&Frame::Kick(reason));
        self.progress.kicked(now);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let times = [Some(self.tick), self.progress.poll_timeout(), self.ending.map(|ending| ending.until)];
        times.into_iter().flatten().min().filter(|_| !self.over)
    }

    /// Whether [`Self::handle_timeout`] would give the worker up: first everything that it has said is to be read. This process may have
    /// been stopped, or too busy to read it.
    pub(crate) fn gives_up(&self, now: Instant) -> bool {
        let late = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let over = late(self.progress.poll_timeout()) || late(self.ending.map(|ending| ending.until));
        !self.over && (over || (self.is_accepted() && self.silent_or_full(now).is_some()))
    }

    fn silent_or_full(&self, now: Instant) -> Option<Loss> {
        let silent = now >= self.heard_at + DEAD_AFTER;
        let full = self.full_since.is_some_and(|since| now >= since + DEAD_AFTER);
        if silent { Some(Loss::Silent) } else { full.then_some(Loss::Behind) }
    }

    /// The time has come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let heard = self.progress.handle_timeout(now);
        if let Heard::Over(_) = heard {
            if self.is_accepted() {
                // It was told to end the stream: it is ended without it.
                self.finish(Outcome::Done(liveedgecast_common::handoff::Close::Graceful));
            } else {
                self.heard(now, heard);
            }
            return;
        }
        if self.ending.is_some_and(|ending| ending.until <= now) {
            self.finish(Outcome::PublisherGone);
            return;
        }
        if self.tick > now {
            return;
        }
        self.tick = now + TICK;
        if !std::mem::take(&mut self.said) {
            self.say(&Frame::Alive);
        }
        // Before it accepts it has its own, longer time.
        if let Some(how) = self.silent_or_full(now).filter(|_| self.is_accepted()) {
            self.heard(now, Heard::Over(End::Lost(how)));
        }
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether there is something for the worker; makes it ready for [`Self::slices`].
    pub(crate) fn transmit(&mut self) -> bool {
        if self.head_sent == self.head.len() && self.body == 0 {
            self.next_frames();
        }
        self.head_sent < self.head.len() || self.body > 0
    }

    /// What [`Self::transmit`] has made ready, or the first part of it.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(4);
        if self.head_sent < self.head.len() {
            slices.push(IoSlice::new(&self.head[self.head_sent..]));
        }
        self.carried.kept.slices(self.body, MAX_SLICES, &mut slices);
        slices
    }

    /// So much of it was written.
    pub(crate) fn transmitted(&mut self, written: usize) {
        let head = written.min(self.head.len() - self.head_sent);
        self.head_sent += head;
        self.body -= written - head;
        self.carried.kept.gave(written - head);
        self.said = true;
    }

    /// What is to be written to the publisher next.
    pub(crate) fn reply(&self) -> Option<&[u8]> {
        self.carried.replies.front().map(AsRef::as_ref)
    }

    /// So much of it was written.
    pub(crate) fn replied(&mut self, written: usize) {
        let replies = &mut self.carried.replies;
        if let Some(first) = replies.front_mut() {
            first.advance(written);
            if first.is_empty() {
                replies.pop_front();
            }
        }
    }

    /// What goes to the worker after what is on its way: what we say, then a data frame, or the end when all data was given.
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
        let waiting = self.carried.kept.waiting().min(MAX_DATA_BYTES);
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
        if !self.carried.kept.forget_before(snapshot.session.position()) {
            self.heard(now, Heard::Over(End::Lost(Loss::Unfit)));
            return;
        }
        snapshot.unread = Vec::new();
        self.carried.checkpoint = snapshot;
        if self.carried.kept.len() < MAX_KEPT {
            self.full_since = None;
        }
    }

    /// The publisher has said goodbye: what came behind that is ours to read.
    fn parted(&mut self, now: Instant, snapshot: Snapshot) {
        self.checkpoint(now, snapshot);
        if !self.over {
            // One that has closed its side already reads the last words, and says no more.
            let ended = self.ending.is_some();
            self.finish(if ended {
                Outcome::Done(liveedgecast_common::handoff::Close::Graceful)
            } else {
                Outcome::Parted
            });
        }
    }

    fn heard(&mut self, now: Instant, heard: Heard) {
        let stage = self.progress.stage();
        let (accepted, started) = (stage >= Stage::Accepted, stage >= Stage::Started);
        let outcome = match heard {
            Heard::Nothing => return,
            Heard::Taken => {
                // From here on its silence counts, and so does the time that it makes no checkpoint: it was given nothing before.
                self.heard_at = now;
                self.full_since = self.full_since.map(|_| now);
                self.outputs.push_back(Output::Taken);
                return;
            }
            Heard::Started => {
                self.outputs.push_back(Output::Started);
                return;
            }
            Heard::Over(End::Done(how, _)) => Outcome::Done(how),
            Heard::Over(End::Parted) => Outcome::Parted,
            Heard::Over(End::Duplicate) => Outcome::Duplicate,
            // There is nothing to move when the publisher is gone.
            Heard::Over(End::Returned(_) | End::Lost(_)) if self.ending.is_some() => Outcome::PublisherGone,
            Heard::Over(End::Returned(why)) => Outcome::Returned { why, touched: accepted, started },
            Heard::Over(End::Lost(how)) => {
                self.lost = Some(how);
                if accepted && how == Loss::Ended {
                    return self.finish(Outcome::Broken { started });
                }
                Outcome::Lost { accepted, touched: accepted, started }
            }
        };
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.over = true;
        self.outputs.push_back(Output::Over(outcome));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
