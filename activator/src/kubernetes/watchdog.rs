//! Workers that this activator adds itself. In: the shortage, whether this activator is the one to act, the wanted number of pods, time.
//! Out: look, patch. Pure. Next: `task`, which calls the API.
//!
//! ```text
//!        a stream waits, and no worker has a place for it     5 s, and this one acts              fewer than needed
//!  Calm ───────────────────────────────────────────────▶ Waiting ────────────────────────▶ Looking ─────────────────▶ Patching
//!   ▲                                                     ▲    │ a worker registers:          │ enough are on           │
//!   │                                                     │    │ 5 s from now                 │ their way, or an error  │
//!   │                                                     └────┴──────────────────────────────┴─────────────────────────┘
//!   └── all have their places                                   then after 5, 10, 20, 40, 60 s
//! ```
//! The watchdog asks for the same number of pods that KEDA is told, so the HPA agrees with it afterwards. It never lowers the number.

use std::time::{Duration, Instant};

use super::api::Scale;
use super::metrics::WatchdogOutcome;

/// Time for which a stream waits before the watchdog looks. KEDA's push takes a tenth of a second and its poll five.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Time between the first look and the second; doubled from there on: a pod that fetches its image takes as long.
const FIRST_AGAIN: Duration = Duration::from_secs(5);
/// Longest time between two looks.
const MOST_AGAIN: Duration = Duration::from_secs(60);

/// Streams without a place, and the workers for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Streams that wait and for which no worker has a place.
    pub(super) unplaced: usize,
    /// Workers that are registered.
    pub(super) workers: usize,
    /// Wanted number of workers.
    pub(super) wanted: usize,
}

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Read the number of pods.
    Look,
    /// Set the number of pods to `to`, unless it has changed since `from` was read.
    Patch { from: Scale, to: i32 },
    /// Log and count the outcome, with the shortage that caused the look.
    Note(WatchdogOutcome, Shortage),
}

/// An answer of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScaleAnswer {
    /// The number of pods that was read.
    Scale(Scale),
    /// The number was changed.
    Patched,
    /// The number was not changed, because another client has changed it.
    Changed,
    /// The call failed.
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Time of the last progress.
    since: Instant,
    /// The earliest time of the next look; `None` before the first one.
    again: Option<Instant>,
    looks: u32,
}

/// See the picture above.
#[derive(Debug)]
pub(super) struct Watchdog {
    most: usize,
    asked: Shortage,
    ours: bool,
    waiting: Option<Waiting>,
    /// A look or a patch is under way.
    calling: bool,
    outputs: Vec<Output>,
}

impl Watchdog {
    /// A calm watchdog. `most`: most pods.
    pub(super) fn new(most: usize) -> Self {
        Self { most, asked: Shortage::default(), ours: false, waiting: None, calling: false, outputs: Vec::new() }
    }

    /// Takes a new shortage, and whether this activator is the one to act.
    pub(super) fn handle(&mut self, now: Instant, asked: Shortage, ours: bool) {
        let last = std::mem::replace(&mut self.asked, asked);
        self.ours = ours;
        if asked.unplaced == 0 {
            self.waiting = None;
        } else {
            let waiting = self.waiting.get_or_insert(Waiting { since: now, again: None, looks: 0 });
            if asked.workers > last.workers {
                waiting.since = now;
            }
        }
        self.handle_timeout(now);
    }

    /// Takes the answer to a look or a patch.
    pub(super) fn answered(&mut self, now: Instant, answer: ScaleAnswer) {
        self.calling = false;
        let outcome = match answer {
            ScaleAnswer::Patched => WatchdogOutcome::Patched,
            ScaleAnswer::Changed => WatchdogOutcome::Changed,
            ScaleAnswer::Failed => WatchdogOutcome::Failed,
            ScaleAnswer::Scale(_) if self.waiting.is_none() => return,
            ScaleAnswer::Scale(scale) => {
                let there = usize::try_from(scale.wanted).unwrap_or(0);
                let to = self.asked.wanted.min(self.most);
                if there >= self.most {
                    WatchdogOutcome::AtMost
                } else if there >= to {
                    WatchdogOutcome::Enough
                } else {
                    self.calling = true;
                    self.outputs.push(Output::Patch { from: scale, to: i32::try_from(to).unwrap_or(i32::MAX) });
                    return;
                }
            }
        };
        self.outputs.push(Output::Note(outcome, self.asked));
        if let Some(waiting) = &mut self.waiting {
            let after = FIRST_AGAIN.saturating_mul(1 << waiting.looks.min(10)).min(MOST_AGAIN);
            waiting.looks += 1;
            waiting.again = Some(now + after);
        }
    }

    /// Orders a look, if one is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.calling = true;
            self.outputs.push(Output::Look);
        }
    }

    /// The time at which [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.filter(|_| self.ours && !self.calling)?;
        let patient = waiting.since + PATIENCE;
        Some(waiting.again.map_or(patient, |again| again.max(patient)))
    }

    /// The next order to the shell.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        (!self.outputs.is_empty()).then(|| self.outputs.remove(0))
    }
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
