//! The part of a cursor that writes a message before its last byte has come (architecture.md, "The stream ring").
//!
//! Such a message is begun when nothing else waits, and what is there of it is written whenever nothing else waits. Messages that complete
//! meanwhile are written between its chunks: they are in front of it in the stream's order, which is that of completion, and so nothing waits
//! for a message whose rest does not come. Once it is complete and its turn has come, it is an item of the queue like any other.
//!
//! Nothing of it is in the ledger before that. Where it cannot go on (its publisher is gone or has aborted it, its bytes have left the
//! ring, the cursor has jumped over it), it stays unfinished at the upstream, and counts as lost if it becomes complete all the same.

use liveedgecast_common::rtmp::media::Kind;

use super::{CursorSession, MAX_SLICES, WritePlan};
use crate::stream::index::Index;
use crate::stream::queue::Completed;

impl CursorSession {
    /// Plans what can be written while no complete message waits.
    pub(super) fn plan_early(&mut self, index: &Index, plan: &mut WritePlan) {
        self.note_early(index);
        if self.flowing && self.queue.takes_early() {
            self.begin_early(index);
        }
        if self.queue.early().is_some() {
            self.queue.parts(index, plan, MAX_SLICES);
            self.early_parts(index, plan);
        }
    }

    /// Lays out what is there of the early message, behind everything else that is planned.
    pub(super) fn early_parts(&mut self, index: &Index, plan: &mut WritePlan) {
        let Some(early) = self.queue.early() else { return };
        let message = index.early_at(early.place, early.start);
        if let Some(message) = message.filter(|_| plan.parts.len() < MAX_SLICES) {
            self.queue.early_parts(&message, plan, MAX_SLICES);
        }
    }

    /// Finds out what has become of the early message.
    #[inline]
    pub(super) fn note_early(&mut self, index: &Index) {
        if self.queue.early().is_some() {
            self.follow_early(index);
        }
    }

    // At every arrival of a long message, apart from the code that every message needs.
    #[inline(never)]
    fn follow_early(&mut self, index: &Index) {
        let (next, before) = (self.next, self.timeline);
        let Some(early) = self.queue.early_mut() else { return };
        if index.early_at(early.place, early.start).is_some() {
            return;
        }
        let complete = index.completed_early(next, early.place, early.start, early.length());
        let Some((number, entry)) = complete else { return self.queue.leave_early() };
        early.number = Some(number);
        if number > next {
            return;
        }
        match self.queue.complete_early(number, before) {
            Completed::Item => {
                self.next += 1;
                // It opens the gate, if it is a keyframe.
                self.lets_pass(entry);
            }
            Completed::Waits => {}
            Completed::Unwritten => self.queue.leave_early(),
        }
    }

    /// Leaves the early message unfinished if the cursor is about to go to `target`, which is that message or behind it.
    pub(super) fn leave_early_before(&mut self, target: u64) {
        if self.queue.early().is_some_and(|early| early.number.is_some_and(|number| number <= target)) {
            self.queue.leave_early();
        }
    }

    /// Returns whether the message of this number is the early one, which has its turn when everything before it is written.
    #[inline]
    pub(super) fn is_early(&self, number: u64) -> bool {
        self.queue.early().is_some_and(|early| early.number == Some(number))
    }

    #[inline(never)]
    fn begin_early(&mut self, index: &Index) {
        let Some(message) = index.early() else { return };
        let entry = message.entry;
        // The first frame of a publisher decides where all of its frames lie, and that takes more than is known here.
        if message.received < u64::from(self.queue.chunk_size()) || !self.timeline.has_begun(entry.place.clock) {
            return;
        }
        self.enter(&entry);
        // A keyframe opens the gate for other frames when it is complete.
        if entry.kind != Kind::Video || self.video || entry.is_join() {
            let timestamp = self.timestamp(self.next, &entry, index);
            self.queue.begin_early(&entry, timestamp, self.message_stream);
        }
    }
}
