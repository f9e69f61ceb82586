//! One destination of a stream, as its worker reports it. In: reports and counters. Out: its turns. Pure.
//!
//! ```text
//!               live                    not live
//!   New ─────────────────▶ Live ─────────────────────▶ Lost
//!    │ away, failed         ▲ │ lagged, closed           │
//!    ▼                      │ └──▶ (Live)               │ live
//!   Away ───────────────────┼────────▶ Returned ◀────────┘
//!               live        │             │
//!                           └─────────────┘ its figures are known
//! ```
//! A session that is closed in order is no loss: the stream ends, or moves to another worker, which is the loss, or the API has asked for another
//! session.
//!
//! Note: an upstream that is back gets the messages that it missed within a moment, and only then it is known how many it got twice and how
//! many never. So its return is told with the first report that is at least a second younger.

use std::time::{Duration, Instant};

use liveedgecast_common::control::{UpstreamCounts, UpstreamReport, UpstreamState};

use super::fact::UpstreamTurn;

/// Time after a return in which its figures still change.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// Shortest time between two events about skipped messages: an upstream that is too slow for its stream lags all the time.
const LAGGED_EVERY: Duration = Duration::from_secs(10);
/// The class of a loss that is the change of the stream's worker.
const TAKEN_OVER: &str = "taken_over";
/// The class of a loss that follows the orderly end of a session.
const RESTARTED: &str = "restarted";

/// The connection to a destination, as far as its events need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has not been live, and nothing was told.
    New,
    /// It has not been live, and that was told.
    Away {
        since: Instant,
    },
    Live {
        since: Instant,
    },
    /// It was lost.
    Lost {
        since: Instant,
    },
    /// It is live again, and its return was not told.
    Returned {
        since: Instant,
        away: Duration,
    },
}

/// See the picture above.
#[derive(Clone, Debug)]
pub(super) struct DestinationWatch {
    /// Name, by which it is known again when the list changes; empty as long as the worker does not tell it.
    pub(super) name: String,
    /// Host and port.
    pub(super) host: String,
    /// The last live session was with the backup.
    pub(super) backup: bool,
    state: State,
    /// The counters as of the last report of a live session whose events are told.
    counts: UpstreamCounts,
    /// Sessions after the first, by the last report.
    reconnects: u64,
    /// The last report was of a session that was closed in order.
    closed: bool,
    failed: bool,
    /// Skipped messages that were not told.
    skipped: u64,
    lagged: Option<Instant>,
}

impl DestinationWatch {
    /// A destination of a stream that has just got a worker.
    pub(super) fn new(name: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            backup: false,
            state: State::New,
            counts: UpstreamCounts::default(),
            reconnects: 0,
            closed: false,
            failed: false,
            skipped: 0,
            lagged: None,
        }
    }

    /// Takes a report of the destination.
    pub(super) fn reported(&mut self, now: Instant, report: &UpstreamReport, turns: &mut Vec<UpstreamTurn>) {
        let (class, error) = (report.fault.as_str(), report.error.as_str());
        match report.state {
            UpstreamState::Live => self.live(now, report, turns),
            UpstreamState::Dialing | UpstreamState::Starting | UpstreamState::Backoff | UpstreamState::Failed => {
                let cause = if self.closed && class.is_empty() { (RESTARTED, error) } else { (class, error) };
                self.lost(now, &report.counts, cause, turns);
                let (class, error) = (class.to_owned(), error.to_owned());
                let first = self.state == State::New;
                if first && matches!(report.state, UpstreamState::Backoff | UpstreamState::Failed) {
                    self.state = State::Away { since: now };
                }
                if report.state == UpstreamState::Failed && !self.failed {
                    self.failed = true;
                    turns.push(UpstreamTurn::Failed { class, error });
                } else if report.state == UpstreamState::Backoff && first {
                    turns.push(UpstreamTurn::Away { class, error });
                }
            }
            UpstreamState::Closed => self.ended(now, turns),
            UpstreamState::Unknown => {}
        }
        self.closed = report.state == UpstreamState::Closed;
        self.reconnects = report.counts.reconnects;
    }

    /// Takes counters of the destination.
    pub(super) fn counted(&mut self, now: Instant, counts: &UpstreamCounts, turns: &mut Vec<UpstreamTurn>) {
        match self.state {
            State::New | State::Away { .. } | State::Lost { .. } => {}
            State::Returned { since, .. } if now < since + SETTLED_AFTER => {}
            State::Returned { .. } => self.settle(counts, turns),
            State::Live { .. } => {
                self.skipped += counts.lost.saturating_sub(self.counts.lost);
                self.counts = *counts;
                if self.lagged.is_none_or(|at| now >= at + LAGGED_EVERY) {
                    self.tell_lag(now, turns);
                }
            }
        }
    }

    /// Another worker has the stream: it counts from zero, in sessions of its own.
    pub(super) fn moved(&mut self, now: Instant, turns: &mut Vec<UpstreamTurn>) {
        let counts = self.counts;
        self.lost(now, &counts, (TAKEN_OVER, ""), turns);
        (self.counts, self.reconnects) = (UpstreamCounts::default(), 0);
    }

    /// The stream is over, or has no such destination any more, or its session was closed in order.
    pub(super) fn ended(&mut self, now: Instant, turns: &mut Vec<UpstreamTurn>) {
        let counts = self.counts;
        self.settle(&counts, turns);
        self.tell_lag(now, turns);
    }

    fn live(&mut self, now: Instant, report: &UpstreamReport, turns: &mut Vec<UpstreamTurn>) {
        self.backup = report.backup;
        self.failed = false;
        match self.state {
            State::New => {
                turns.push(UpstreamTurn::Live);
                self.counts = report.counts;
                self.state = State::Live { since: now };
            }
            State::Lost { since } | State::Away { since } => {
                let away = now.saturating_duration_since(since);
                self.state = State::Returned { since: now, away };
            }
            // It was lost and back between two reports.
            State::Live { .. } | State::Returned { .. } if report.counts.reconnects > self.reconnects => {
                self.lost(now, &report.counts, (&report.fault, &report.error), turns);
                self.state = State::Returned { since: now, away: Duration::ZERO };
            }
            State::Live { .. } | State::Returned { .. } => self.counted(now, &report.counts, turns),
        }
    }

    fn lost(
        &mut self,
        now: Instant,
        counts: &UpstreamCounts,
        (class, error): (&str, &str),
        turns: &mut Vec<UpstreamTurn>,
    ) {
        self.settle(counts, turns);
        let State::Live { since } = self.state else { return };
        let live = now.saturating_duration_since(since);
        turns.push(UpstreamTurn::Lost { class: class.to_owned(), error: error.to_owned(), live });
        self.state = State::Lost { since: now };
    }

    /// Tells a return that was not told, with the figures as they are now.
    fn settle(&mut self, counts: &UpstreamCounts, turns: &mut Vec<UpstreamTurn>) {
        let State::Returned { since, away } = self.state else { return };
        let replayed = counts.replayed.saturating_sub(self.counts.replayed);
        let lost = counts.lost.saturating_sub(self.counts.lost);
        turns.push(UpstreamTurn::Back { away, replayed, lost });
        self.counts = *counts;
        self.state = State::Live { since };
    }

    fn tell_lag(&mut self, now: Instant, turns: &mut Vec<UpstreamTurn>) {
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 0 {
            self.lagged = Some(now);
            turns.push(UpstreamTurn::Lagged { skipped });
        }
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    fn report(state: UpstreamState, (lost, replayed, reconnects): (u64, u64, u64)) -> UpstreamReport {
        let counts = UpstreamCounts { lost, replayed, reconnects, ..UpstreamCounts::default() };
        let (error, fault) = match state {
            UpstreamState::Backoff | UpstreamState::Failed => ("reset".to_owned(), "lost".to_owned()),
            _ => (String::new(), String::new()),
        };
        UpstreamReport { state, error, fault, counts, ..UpstreamReport::default() }
    }

    fn shown(turns: Vec<UpstreamTurn>) -> String {
        let show = |turn| match turn {
            UpstreamTurn::Live => "live".to_owned(),
            UpstreamTurn::Away { class, .. } => format!("away {class}"),
            UpstreamTurn::Failed { class, .. } => format!("failed {class}"),
            UpstreamTurn::Lost { class, live, .. } => format!("lost {class} after {}", live.as_secs()),
            UpstreamTurn::Back { away, replayed, lost } => format!("back {} +{replayed} -{lost}", away.as_secs()),
            UpstreamTurn::Lagged { skipped } => format!("lagged {skipped}"),
        };
        turns.into_iter().map(show).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn every_turn_is_told_once_with_its_figures() {
        use UpstreamState::{Backoff, Closed, Dialing, Failed, Live, Starting};
        // (second, state, (lost, replayed, reconnects), turns)
        let table = [
            (0, Dialing, (0, 0, 0), ""),
            (0, Backoff, (0, 0, 0), "away lost"),
            (1, Dialing, (0, 0, 0), ""),
            (1, Backoff, (0, 0, 0), ""),
            (2, Failed, (0, 0, 0), "failed lost"),
            (3, Dialing, (0, 0, 0), ""),
            (3, Failed, (0, 0, 0), ""),
            (4, Starting, (0, 0, 0), ""),
            (5, Live, (0, 0, 0), ""),
            (6, Live, (7, 0, 0), "back 5 +0 -7"),
            (7, Live, (9, 0, 0), "lagged 2"),
            (8, Live, (11, 0, 0), ""),
            (17, Live, (11, 0, 0), "lagged 2"),
            (20, Backoff, (30, 0, 0), "lost lost after 15"),
            (21, Backoff, (40, 0, 0), ""),
            (23, Live, (40, 0, 1), ""),
            (23, Live, (30, 5, 1), ""),
            (24, Live, (12, 20, 1), "back 3 +20 -1"),
            (25, Live, (12, 20, 1), ""),
            (26, Live, (20, 20, 2), "lost  after 3"),
            (26, Backoff, (20, 20, 2), "back 0 +0 -8, lost lost after 0"),
            (27, Live, (20, 20, 3), ""),
            (27, Closed, (20, 20, 3), "back 1 +0 -0"),
            (28, Closed, (20, 20, 3), ""),
        ];
        let mut watch = DestinationWatch::new("", "a:1935");
        for (second, state, counts, expected) in table {
            let mut turns = Vec::new();
            watch.reported(origin() + Duration::from_secs(second), &report(state, counts), &mut turns);
            assert_eq!(shown(turns), expected, "{second} s, {state:?}");
        }
    }

    #[test]
    fn stream_that_moves_twice_has_one_live_and_a_restart_is_a_loss() {
        use UpstreamState::{Closed, Dialing, Live};
        let mut watch = DestinationWatch::new("", "a:1935");
        let (mut turns, at) = (Vec::new(), |second| origin() + Duration::from_secs(second));
        for second in [0, 10] {
            watch.reported(at(second), &report(Live, (0, 0, 0)), &mut turns);
            watch.reported(at(second + 5), &report(Live, (0, 0, 0)), &mut turns);
            // A worker that gives the stream back closes its sessions first.
            watch.reported(at(second + 6), &report(Closed, (0, 0, 0)), &mut turns);
            watch.moved(at(second + 7), &mut turns);
        }
        watch.reported(at(20), &report(Live, (0, 0, 0)), &mut turns);
        watch.reported(at(22), &report(Closed, (0, 0, 0)), &mut turns);
        watch.reported(at(22), &report(Dialing, (0, 0, 0)), &mut turns);
        let (one, two) = ("lost taken_over after 7, back 3 +0 -0", "lost taken_over after 7, back 3 +0 -0");
        assert_eq!(shown(turns), format!("live, {one}, {two}, lost restarted after 2"));
    }

    #[test]
    fn another_worker_is_a_loss_and_a_return_whose_counters_begin_anew() {
        let mut watch = DestinationWatch::new("", "a:1935");
        let (mut turns, at) = (Vec::new(), |second| origin() + Duration::from_secs(second));
        watch.reported(at(0), &report(UpstreamState::Live, (5, 5, 2)), &mut turns);
        watch.moved(at(10), &mut turns);
        watch.reported(at(11), &report(UpstreamState::Dialing, (0, 0, 0)), &mut turns);
        watch.reported(at(12), &report(UpstreamState::Live, (0, 0, 0)), &mut turns);
        watch.counted(at(14), &UpstreamCounts { replayed: 3, ..UpstreamCounts::default() }, &mut turns);
        assert_eq!(shown(turns), "live, lost taken_over after 10, back 2 +3 -0");
    }
}
