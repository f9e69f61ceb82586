//! The rules of delivery: what follows from the answer to one attempt. In: answers. Out: a [`NextStep`]. Pure. Next: `delivery`, which posts and waits.
//!
//! ```text
//!            2xx                       anything else, no answer
//!  Posting ───────▶ the next event    Posting ──────────────────▶ Pausing ──▶ Posting
//!  Posting ── 410 ──▶ Stopped         Pausing ── the event is an hour old, or the process ends ──▶ dropped
//! ```

use std::time::Duration;

use liveedgecast_common::backoff::Backoff;

/// Pause after the first failure, and the longest one. A receiver that is started again is asked within a second; one that is away for a night is
/// asked once a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// Age at which an event is given up, so that a receiver that refuses one certain event gets the ones behind it.
const MOST_AGE: Duration = Duration::from_secs(3600);

/// The answer to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A status.
    Status(u16),
    /// There was none.
    Nothing,
}

/// The reason for which an event is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// Newer events needed its room.
    Full,
    /// It was an hour old.
    Late,
    /// The receiver wants no more events.
    Gone,
    /// The process ended.
    Ended,
}

impl DropCause {
    /// Every cause, for metrics that exist before the first event.
    pub const ALL: [Self; 4] = [Self::Full, Self::Late, Self::Gone, Self::Ended];

    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Late => "late",
            Self::Gone => "gone",
            Self::Ended => "ended",
        }
    }
}

/// The step that follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// The event is delivered; `again`: the first one after failures.
    Next { again: bool },
    /// The same event again, after this time; `first`: it is the first failure after a success.
    Again { pause: Duration, first: bool },
    /// The event is dropped, and the next one is sent.
    Drop(DropCause),
    /// No event is sent any more.
    Stop(DropCause),
}

/// See the picture above.
#[derive(Debug)]
pub(super) struct DeliveryRules {
    backoff: Backoff,
}

impl DeliveryRules {
    /// Rules without failures. `seed`: of the chance in the pauses.
    pub(super) fn new(seed: u64) -> Self {
        Self { backoff: Backoff::new(FIRST_PAUSE, MOST_PAUSE, seed) }
    }

    /// Judges the answer to an event of this age. `ending`: the process waits for nothing else.
    pub(super) fn judge(&mut self, reply: Reply, age: Duration, ending: bool) -> NextStep {
        match reply {
            Reply::Status(200..=299) => {
                let again = self.backoff.failures() > 0;
                self.backoff.reset();
                NextStep::Next { again }
            }
            Reply::Status(410) => NextStep::Stop(DropCause::Gone),
            Reply::Status(_) | Reply::Nothing if ending => NextStep::Stop(DropCause::Ended),
            Reply::Status(_) | Reply::Nothing if age >= MOST_AGE => {
                // The next event is as old, or tried after a pause of its own.
                NextStep::Drop(DropCause::Late)
            }
            Reply::Status(_) | Reply::Nothing => {
                let first = self.backoff.failures() == 0;
                NextStep::Again { pause: self.backoff.failed(), first }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_step() {
        let mut rules = DeliveryRules::new(7);
        let minute = Duration::from_secs(60);
        assert_eq!(rules.judge(Reply::Status(204), minute, false), NextStep::Next { again: false });
        let mut last = Duration::ZERO;
        for (number, reply) in
            [Reply::Status(500), Reply::Nothing, Reply::Status(301), Reply::Status(404)].iter().enumerate()
        {
            let NextStep::Again { pause, first } = rules.judge(*reply, minute, false) else { panic!("{reply:?}") };
            assert_eq!(first, number == 0);
            assert!(pause > last / 2 && pause <= FIRST_PAUSE * 8, "{pause:?} after {last:?}");
            last = pause;
        }
        assert_eq!(rules.judge(Reply::Nothing, MOST_AGE, false), NextStep::Drop(DropCause::Late));
        assert_eq!(rules.judge(Reply::Status(200), MOST_AGE, false), NextStep::Next { again: true });
        assert_eq!(rules.judge(Reply::Nothing, minute, true), NextStep::Stop(DropCause::Ended));
        assert_eq!(rules.judge(Reply::Status(410), minute, false), NextStep::Stop(DropCause::Gone));
        for _ in 0..20 {
            let NextStep::Again { pause, .. } = rules.judge(Reply::Nothing, minute, false) else { panic!() };
            assert!(pause <= MOST_PAUSE);
        }
    }
}
