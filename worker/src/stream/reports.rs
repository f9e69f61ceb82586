//! The reports of a stream that wait for room in the engine's channel: which are merged, and when the next is due. Pure; the shell is
//! `task`, which sends them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use liveedgecast_common::control;

use super::Report;

/// Interval of reports of counters, while there are arrivals.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a report that found no room is tried again.
const REPORT_RETRY: Duration = Duration::from_millis(50);
/// Interval of reports about the clock of one publisher: a broken clock jumps at every frame.
const JUMPS_INTERVAL: Duration = Duration::from_secs(10);

/// The outbox of one stream.
#[derive(Debug)]
pub(super) struct Reports {
    waiting: VecDeque<Report>,
    /// More than counters has changed since the last report of the session.
    changed: bool,
    session_at: Instant,
    retry_at: Option<Instant>,
    /// Jumps of the publisher's clock that have been reported, and when.
    jumps: (u64, Option<Instant>),
    /// Messages of the publisher that were skipped, as far as that was reported.
    skipped: u64,
}

impl Reports {
    /// Creates an empty outbox; the first report of the session is due.
    pub(super) fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), changed: true, session_at: now, retry_at: None, jumps: (0, None), skipped: 0 }
    }

    /// Adds a report that is merged with no other.
    pub(super) fn push(&mut self, report: Report) {
        self.waiting.push_back(report);
    }

    /// Asks for a report of the session: more than counters has changed.
    pub(super) fn session_changed(&mut self, now: Instant) {
        (self.session_at, self.changed) = (now, true);
    }

    /// Returns whether there is anything to send, or to be made and sent.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.is_session_due(now)
    }

    /// Returns whether a report of the session is due.
    pub(super) fn is_session_due(&self, now: Instant) -> bool {
        self.session_at <= now
    }

    /// Adds the session's state. The newest alone is of interest: it takes the place of one that waits.
    pub(super) fn push_session(&mut self, now: Instant, session: control::Session) {
        self.session_at = now + REPORT_INTERVAL;
        let mut changed = std::mem::take(&mut self.changed);
        self.waiting.retain(|report| {
            changed |= matches!(report, Report::Session(_));
            !matches!(report, Report::Session(_) | Report::Counters(_))
        });
        self.waiting.push_back(if changed { Report::Session(session) } else { Report::Counters(session) });
    }

    /// Adds the jumps of the publisher's clock that were not reported, if it is time; returns how many. `total`: all jumps so far; `last`:
    /// the stream ends, so that there is no later report.
    pub(super) fn push_jumps(&mut self, now: Instant, total: u64, last: bool) -> Option<u64> {
        let (reported, at) = self.jumps;
        let count = total.saturating_sub(reported);
        let early = || at.is_some_and(|at| now.saturating_duration_since(at) < JUMPS_INTERVAL);
        if count == 0 || !last && early() {
            return None;
        }
        self.jumps = (total, Some(now));
        self.waiting.push_back(Report::ClockJumps { count });
        Some(count)
    }

    /// Adds the messages that were skipped since the last call; `total`: all so far, of this session and this index. `false`: there are none.
    pub(super) fn push_skipped(&mut self, total: u64) -> bool {
        if total == self.skipped {
            return false;
        }
        let more = total.saturating_sub(self.skipped);
        self.skipped = total;
        let waiting = self.waiting.iter_mut().find_map(|report| match report {
            Report::Skipped(messages) => Some(messages),
            _ => None,
        });
        match waiting {
            Some(messages) => *messages += more,
            None => self.waiting.push_back(Report::Skipped(more)),
        }
        true
    }

    /// Counts skipped messages from this number on: another publisher's session begins at 0.
    pub(super) fn restart_skipped(&mut self, total: u64) {
        self.skipped = total;
    }

    /// The next report to send.
    pub(super) fn next(&mut self) -> Option<Report> {
        self.retry_at = None;
        self.waiting.pop_front()
    }

    /// Takes back a report that found no room.
    pub(super) fn put_back(&mut self, now: Instant, report: Report) {
        self.waiting.push_front(report);
        self.retry_at = Some(now + REPORT_RETRY);
    }

    /// Returns whether every report was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Deadline of the next attempt to send. Counters have no deadline of their own: they change only when the task is woken anyway.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    fn waiting(reports: &mut Reports) -> Vec<Report> {
        std::iter::from_fn(|| reports.next()).collect()
    }

    fn session(messages: u64) -> control::Session {
        control::Session { messages, ..control::Session::default() }
    }

    #[test]
    fn newest_session_takes_the_place_of_one_that_waits_and_skipped_messages_add_up() {
        let now = origin();
        let mut reports = Reports::new(now);
        assert!(reports.is_session_due(now) && reports.is_due(now));
        reports.push_session(now, session(1));
        assert!(reports.push_skipped(2) && !reports.push_skipped(2) && reports.push_skipped(5));
        reports.push_session(now, session(2));
        assert!(!reports.is_session_due(now + REPORT_INTERVAL / 2) && reports.is_session_due(now + REPORT_INTERVAL));
        assert!(reports.is_due(now + REPORT_INTERVAL / 2), "a report waits");
        reports.session_changed(now);
        assert!(reports.is_session_due(now));
        assert_eq!(waiting(&mut reports), [Report::Skipped(5), Report::Session(session(2))]);
        reports.push_session(now, session(3));
        assert_eq!(waiting(&mut reports), [Report::Session(session(3))], "it changed behind the last report");
        reports.push_session(now, session(4));
        assert_eq!(waiting(&mut reports), [Report::Counters(session(4))]);
        reports.session_changed(now);
        reports.push_session(now, session(5));
        reports.push_session(now, session(6));
        assert_eq!(waiting(&mut reports), [Report::Session(session(6))], "the change was not told yet");
        assert!(!reports.is_due(now + REPORT_INTERVAL / 2) && reports.is_due(now + REPORT_INTERVAL));
        reports.restart_skipped(0);
        assert!(reports.push_skipped(1));
    }

    #[test]
    fn jumps_are_reported_every_ten_seconds_and_at_the_end() {
        let (start, second) = (origin(), Duration::from_secs(1));
        let mut reports = Reports::new(start);
        // time, jumps so far, the stream ends; reported
        let table = [
            (0, 0, false, None),
            (0, 0, true, None),
            (1, 2, false, Some(2)),
            (10, 9, false, None),
            (11, 9, false, Some(7)),
            (12, 10, false, None),
            (12, 10, true, Some(1)),
        ];
        for (at, total, last, reported) in table {
            assert_eq!(reports.push_jumps(start + at * second, total, last), reported, "{at} s, {total}");
        }
    }

    #[test]
    fn report_that_found_no_room_is_tried_again() {
        let now = origin();
        let mut reports = Reports::new(now);
        reports.push(Report::Skipped(1));
        reports.push(Report::Skipped(2));
        let first = reports.next().unwrap();
        reports.put_back(now, first);
        assert_eq!(reports.poll_timeout(), Some(now + REPORT_RETRY));
        assert_eq!(waiting(&mut reports), [Report::Skipped(1), Report::Skipped(2)]);
        assert!(reports.is_empty() && reports.poll_timeout().is_none());
    }
}
