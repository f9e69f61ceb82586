//! One upstream of a stream: its connection and the cursor that feeds it. Part of the shell: every decision is the cursor's or the machine's.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use liveedgecast_common::control::{UpstreamCounts, UpstreamReport};
use liveedgecast_common::event;
use liveedgecast_common::handoff::BackupDestination;
use liveedgecast_common::key::StreamId;
use liveedgecast_common::sys::prefetch;
use liveedgecast_common::url::PushUrl;

use super::cursor::{Bounds, Cursor, SentKeyframe, WritePlan, WriteSlices};
use super::index::Index;
use super::lanes::Lane;
use super::rings::Rings;
use crate::upstream::{Upstream, UpstreamEvent};

/// The fields that every message needs come first.
#[repr(C, align(64))]
pub(super) struct UpstreamFeed {
    phase: FeedState,
    /// Close without waiting for the rest to be written.
    cut: bool,
    /// Media of the stream were written to the upstream.
    begun: bool,
    /// The upstream takes no more until it wakes the task. Until then its lag is judged at this time, not at each message.
    full_until: Option<Instant>,
    upstream: Upstream,
    cursor: Cursor,
    /// The upstream joins a stream that runs, and no session of it has been live: it begins with the newest keyframe then.
    late: bool,
    /// The time at which an upstream that is left is closed, even in the middle of a message.
    leaves_by: Option<Instant>,
    /// The upstream that begins when this one is closed.
    next: Option<Box<Upstream>>,
    /// Counts of upstreams that this one has replaced.
    before: UpstreamCounts,
    /// The time at which the first media were written to the upstream.
    first_media: Option<Instant>,
    /// The destination of the upstream.
    pub(super) lane: Lane,
}

/// Time for the rest of a message that is partly written, when an upstream is left.
const LEAVE_TIME: Duration = Duration::from_millis(500);

/// Interval in which the lag of an upstream that takes nothing is judged, far below any bound of it.
const JUDGE_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeedState {
    Open,
    /// Closes when everything is written.
    Draining,
    /// Closes when the message that is partly written has come to its end.
    Leaving,
    Closing,
    Closed,
}

/// Events of an upstream that the stream must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedEvent {
    Live,
    /// The upstream has clearly refused.
    Refused,
    Lost,
    Closed,
    /// The upstream that was to follow has begun.
    Renewed,
}

impl UpstreamFeed {
    pub(super) fn new(upstream: Upstream, bounds: Bounds, lane: Lane) -> Self {
        Self {
            upstream,
            cursor: Cursor::new(bounds),
            phase: FeedState::Open,
            cut: false,
            begun: false,
            full_until: None,
            late: false,
            leaves_by: None,
            next: None,
            before: UpstreamCounts::default(),
            first_media: None,
            lane,
        }
    }

    /// An upstream that joins a stream that runs.
    pub(super) fn late(self) -> Self {
        Self { late: true, ..self }
    }

    /// Lets the processor fetch what every write needs.
    pub(super) fn prefetch(&self) {
        prefetch(&self.full_until);
        self.upstream.prefetch();
        prefetch(&self.cursor);
    }

    /// Lets the processor fetch the places that the next message will be noted in.
    pub(super) fn prefetch_behind(&self) {
        self.cursor.prefetch_behind();
    }

    /// Renames the stream in the upstream's log lines.
    pub(super) fn rename_stream(&mut self, id: &StreamId) {
        self.upstream.rename_stream(id);
        self.next.iter_mut().for_each(|next| next.rename_stream(id));
    }

    /// The upstream's next event. After `Ready`, poll again; after `Pending`, write.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, index: &Index) -> Poll<FeedEvent> {
        if self.phase == FeedState::Closed {
            return Poll::Pending;
        }
        self.full_until = None;
        let Poll::Ready(event) = self.upstream.poll(cx, now) else {
            if self.takes_media() {
                self.cursor.push_control(self.upstream.take_control());
            }
            return Poll::Pending;
        };
        Poll::Ready(match event {
            UpstreamEvent::Live => {
                if std::mem::take(&mut self.late) {
                    self.cursor.begin_at(index.last_join().unwrap_or(index.end()));
                }
                self.cursor.start(now, self.upstream.message_stream(), self.upstream.chunk_size());
                FeedEvent::Live
            }
            UpstreamEvent::Lost { unacknowledged, .. } => {
                self.cursor.session_over(unacknowledged, index.front());
                FeedEvent::Lost
            }
            UpstreamEvent::Refused { .. } => FeedEvent::Refused,
            UpstreamEvent::Closed => match self.next.take() {
                Some(next) => {
                    let counts = self.report().counts;
                    self.before = UpstreamCounts { bytes: counts.bytes, reconnects: counts.reconnects, ..self.before };
                    // The first session of the next one is a further one of this feed.
                    self.before.reconnects += u64::from(counts.bytes > 0);
                    (self.upstream, self.phase) = (*next, FeedState::Open);
                    FeedEvent::Renewed
                }
                None => {
                    self.phase = FeedState::Closed;
                    FeedEvent::Closed
                }
            },
        })
    }

    /// Returns whether media may be written to the upstream.
    pub(super) fn is_live(&self) -> bool {
        self.phase == FeedState::Open && self.upstream.is_live()
    }

    fn takes_media(&self) -> bool {
        matches!(self.phase, FeedState::Open | FeedState::Draining | FeedState::Leaving) && self.upstream.is_live()
    }

    /// Returns whether to write what the publisher has sent, though the upstream has not woken the task.
    pub(super) fn is_worth_writing(&self, now: Instant) -> bool {
        self.full_until.is_none_or(|until| until <= now) && self.takes_media()
    }

    /// Writes messages until there are none or the upstream takes no more. `true`: poll again, since the write failed or left bytes with TLS.
    pub(super) fn write(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        index: &Index,
        head: u64,
        rings: &Rings,
    ) -> bool {
        if !self.takes_media() {
            return false;
        }
        let jumps = self.cursor.jumps();
        self.full_until = None;
        let mut plan = WritePlan::new();
        loop {
            self.cursor.plan(now, index, head, rings, &mut plan);
            if plan.is_empty() {
                break;
            }
            let mut slices = WriteSlices::new();
            self.cursor.slices(&plan, rings, &mut slices);
            let written = self.upstream.poll_write_vectored(cx, &slices);
            drop(slices);
            let taken = if let Poll::Ready(Ok(taken)) = written { taken } else { 0 };
            self.cursor.wrote(&mut plan, taken, rings);
            if !self.begun && taken > 0 {
                (self.begun, self.first_media) = (true, Some(now));
            }
            match written {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => {
                    self.full_until = Some(now + JUDGE_INTERVAL);
                    break;
                }
            }
        }
        if self.cursor.jumps() > jumps {
            let (host, counters) = (self.upstream.report().host, self.cursor.counters());
            let destination = Some(self.lane.name.as_str()).filter(|name| !name.is_empty());
            tracing::debug!(
                event = event::UPSTREAM_LAGGED,
                stream = self.upstream.stream(),
                destination,
                upstream = host,
                lost = counters.lost,
                "upstream lagged: messages up to a newer keyframe skipped"
            );
        }
        if self.cursor.wants_acknowledgement() {
            self.cursor.acknowledged(self.upstream.unacknowledged());
        }
        self.upstream.wants_poll()
    }

    /// Returns whether a deadline passes without a message: see [`Cursor::poll_timeout`].
    pub(super) fn waits_for_keyframe(&self, index: &Index) -> bool {
        self.cursor.poll_timeout(index).is_some()
    }

    /// The lowest number that the upstream's kernel has not acknowledged; `None` while the upstream is away.
    pub(super) fn owes_from(&mut self) -> Option<u64> {
        if self.upstream.is_live() {
            self.cursor.acknowledged(self.upstream.unacknowledged());
        }
        self.cursor.owes_from()
    }

    /// The first message that the next session of an upstream that is away should deliver; `None` if there will be none.
    pub(super) fn returns_to(&self) -> Option<u64> {
        let is_open = !matches!(self.phase, FeedState::Closing | FeedState::Closed);
        is_open.then(|| self.cursor.begins_from())
    }

    /// The first message that a later session of the upstream may begin with; the end of all numbers if there will be none.
    pub(super) fn needs_from(&mut self, index: &Index) -> u64 {
        let renews = self.next.is_some();
        if self.late || !renews && !matches!(self.phase, FeedState::Open | FeedState::Draining) {
            return u64::MAX;
        }
        let owed = self.owes_from().unwrap_or_else(|| self.cursor.begins_from());
        index.join_at_or_before(owed).unwrap_or(owed)
    }

    /// Prepares for the eviction of the entries before `until`.
    pub(super) fn before_eviction(&mut self, until: u64, index: &Index, rings: &Rings) {
        if !self.late {
            self.cursor.before_eviction(until, index, rings);
        }
    }

    /// Closes the upstream with a goodbye, as soon as no message is partly written: its destination has no more use for it.
    pub(super) fn leave(&mut self, now: Instant) {
        self.next = None;
        self.stop(now);
    }

    /// Closes the upstream in the same way, and begins with `next` then, where this one has ended.
    pub(super) fn renew(&mut self, now: Instant, next: Upstream) {
        self.next = Some(Box::new(next));
        self.stop(now);
    }

    /// Counts on where another upstream at the same host ends, whose place this one takes.
    pub(super) fn continue_counts(&mut self, ended: &UpstreamReport) {
        if ended.host == self.report().host {
            self.before = UpstreamCounts { reconnects: ended.counts.reconnects + 1, ..ended.counts };
        }
    }

    fn stop(&mut self, now: Instant) {
        if matches!(self.phase, FeedState::Open | FeedState::Draining) {
            self.phase = FeedState::Leaving;
            self.leaves_by = Some(now + LEAVE_TIME);
            self.cursor.stop();
        }
    }

    /// Closes the upstream when everything is written.
    pub(super) fn drain(&mut self) {
        self.next = None;
        if self.phase == FeedState::Open {
            self.phase = FeedState::Draining;
        }
    }

    /// Closes the upstream at once: another stream takes it over.
    pub(super) fn give_up(&mut self) {
        self.drain();
        self.cut = true;
    }

    /// Closes the upstream if that was asked for and everything is written, or `at_once`. `true`: poll it.
    pub(super) fn close(&mut self, now: Instant, index: &Index, at_once: bool) -> bool {
        let at_once = at_once || self.cut;
        let due = match self.phase {
            FeedState::Draining => at_once || self.cursor.is_drained(index),
            FeedState::Leaving => {
                at_once || self.cursor.is_between_messages() || self.leaves_by.is_some_and(|at| at <= now)
            }
            FeedState::Open | FeedState::Closing | FeedState::Closed => false,
        };
        if due {
            self.upstream.close(self.cursor.is_between_messages());
            match &self.next {
                // Messages that are on their way arrive: the goodbye comes behind them.
                Some(_) => self.cursor.session_over(0, index.front()),
                None if self.late => {}
                None => self.cursor.finish(index),
            }
            self.phase = FeedState::Closing;
            self.leaves_by = None;
        }
        due
    }

    /// The destination's URL: that of the upstream which follows, if one does.
    pub(super) fn url(&self) -> &PushUrl {
        self.next.as_deref().unwrap_or(&self.upstream).url()
    }

    /// Gives the destination's upstream its second server.
    pub(super) fn back_up(&mut self, now: Instant, backup: Option<&BackupDestination>) {
        self.next.as_deref_mut().unwrap_or(&mut self.upstream).set_backup(now, backup);
    }

    /// Names the destination, in the log lines too.
    pub(super) fn name(&mut self, lane: Lane) {
        for upstream in [Some(&mut self.upstream), self.next.as_deref_mut()].into_iter().flatten() {
            upstream.rename_destination(&lane.name);
        }
        self.lane = lane;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == FeedState::Closed
    }

    pub(super) fn next_timeout(&self, index: &Index) -> Option<Instant> {
        if self.phase == FeedState::Closed {
            return None;
        }
        [self.upstream.next_timeout(), self.cursor.poll_timeout(index), self.leaves_by].into_iter().flatten().min()
    }

    /// The time at which the first media were written to the upstream.
    pub(super) fn first_media(&self) -> Option<Instant> {
        self.first_media
    }

    /// The last keyframe that the destination has been sent.
    pub(super) fn sent_keyframe(&self, index: &Index) -> SentKeyframe {
        self.cursor.sent_keyframe(index)
    }

    /// Age of the oldest message that is to be written, in milliseconds.
    pub(super) fn lag(&self, now: Instant, index: &Index) -> u64 {
        u64::try_from(self.cursor.lag(now, index).as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn report(&self) -> UpstreamReport {
        let counters = self.cursor.counters();
        let report = self.upstream.report();
        let counts = UpstreamCounts {
            bytes: self.before.bytes + report.counts.bytes,
            messages: self.before.messages + counters.messages,
            lost: self.before.lost + counters.lost,
            replayed: self.before.replayed + counters.replayed,
            skipped: self.before.skipped + u64::try_from(counters.skipped.as_millis()).unwrap_or(u64::MAX),
            reconnects: self.before.reconnects + report.counts.reconnects,
            ..report.counts
        };
        UpstreamReport { name: self.lane.name.clone(), counts, ..report }
    }
}
