//! The rules of taking a socket back from a worker by descriptor. In: what the kernel shows of the worker's process. Out: when to look again,
//! whether to kill the process, and in the end whether this process alone has the socket. Pure. Next: `descriptor`, which looks and kills.
//!
//! ```text
//!              let go, ended                                   ended
//!  Waiting ────────────────────▶ Released ◀──────────────────────────────── Killed
//!     │ │ time is over, on this host: kill                                   ▲  │
//!     │ └────────────────────────────────────────────────────────────────────┘  │ time is over, or the kill failed
//!     │ time is over, in another container                                      ▼
//!     └────────────────────────────────────────────────────────────────▶ NotReleased
//! ```
//!
//! Of two processes that read one connection, each would get a part of the stream, and neither would notice. So a worker whose connection
//! ended does not count as dead. This process takes the socket back only when the worker's process has ended, or lives and no longer holds
//! the socket, or was killed, or when the worker has said that it gave the stream back; where none of that can be known there is no takeover. A worker in another container can be neither looked into
//! nor killed. The end of its process is still seen.
//!
//! A worker's word that it gave a stream back is believed, because a worker closes the socket before it says so. To look all the same at every
//! goodbye of a publisher held up all starts: the list of a worker's descriptors takes this thread 1 to 3 ms for a hundred streams.
//!
//! Note: the connection of a dying process closes before the process has ended, and a worker whose one task has died lives on with all the
//! others' streams: killing it at the first sign would take them all.

use std::time::Instant;

use liveedgecast_common::handoff::PROTOCOL_ERROR;

use super::HandoffOutcome;
use super::limits::{DEATH_TIME, RELEASE_LOOK, RELEASE_TIME};
use super::progress::{HandoffEnd, HandoffStage};

/// A look at the worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The process has ended.
    Ended,
    /// The process lives and holds the socket no longer.
    LetGo,
    /// The process lives, and holds the socket or may hold it.
    Holds,
    /// The process cannot be killed.
    NotKilled,
}

/// An order to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Look again at this time, or as soon as the process has ended.
    Look(Instant),
    /// Kill the process, then look.
    Kill,
    /// The socket is in this process alone.
    Released,
    /// The worker may have the socket still.
    NotReleased,
}

/// The release of one socket.
#[derive(Debug)]
pub(super) struct Machine {
    is_elsewhere: bool,
    killed: bool,
    until: Instant,
}

impl Machine {
    /// The release by a worker on this host, or in another container.
    pub(super) fn new(now: Instant, is_elsewhere: bool) -> Self {
        let until = now + if is_elsewhere { RELEASE_TIME + DEATH_TIME } else { RELEASE_TIME };
        Self { is_elsewhere, killed: false, until }
    }

    /// Takes a look at the process.
    pub(super) fn handle(&mut self, now: Instant, input: Input) -> Output {
        let is_late = now >= self.until;
        match input {
            Input::Ended => Output::Released,
            Input::LetGo if !self.killed && !self.is_elsewhere => Output::Released,
            Input::NotKilled => Output::NotReleased,
            Input::LetGo | Input::Holds if is_late && (self.killed || self.is_elsewhere) => Output::NotReleased,
            Input::LetGo | Input::Holds if is_late => {
                (self.killed, self.until) = (true, now + DEATH_TIME);
                Output::Kill
            }
            Input::LetGo | Input::Holds if self.killed => Output::Look(self.until),
            Input::LetGo | Input::Holds => Output::Look(self.until.min(now + RELEASE_LOOK)),
        }
    }
}

/// Tells whether the end of a handoff by descriptor leaves the socket in doubt, so that its release has to be seen.
pub(super) fn is_in_doubt(end: &HandoffEnd) -> bool {
    match end {
        HandoffEnd::Lost(_) => true,
        HandoffEnd::Duplicate
        | HandoffEnd::Done(..)
        | HandoffEnd::KickIgnored
        | HandoffEnd::Returned(_)
        | HandoffEnd::Parted => false,
    }
}

/// The outcome of a handoff by descriptor. `was_read`: the kernel has handed out bytes of the publisher since the handoff began, perhaps to a
/// worker that then gave the stream back without accepting it.
pub(super) fn outcome(end: &HandoffEnd, stage: HandoffStage, is_released: bool, was_read: bool) -> HandoffOutcome {
    let (accepted, started) = (stage >= HandoffStage::Accepted, stage >= HandoffStage::Started);
    let touched = accepted || was_read;
    match end {
        HandoffEnd::Duplicate => HandoffOutcome::Duplicate,
        HandoffEnd::Done(how, why) => HandoffOutcome::Done { how: *how, started, erred: why == PROTOCOL_ERROR },
        // The publisher's end tells the worker again.
        HandoffEnd::KickIgnored => {
            HandoffOutcome::Done { how: liveedgecast_common::handoff::Close::Abort, started, erred: false }
        }
        HandoffEnd::Returned(_) | HandoffEnd::Parted | HandoffEnd::Lost(_) if !is_released => {
            HandoffOutcome::NotReleased
        }
        HandoffEnd::Parted => HandoffOutcome::Parted,
        HandoffEnd::Returned(why) => HandoffOutcome::Returned { why: *why, touched, started },
        HandoffEnd::Lost(_) => HandoffOutcome::Lost { accepted, touched, started },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liveedgecast_common::handoff::{Close, Decline};
    use liveedgecast_common::testkit::origin;

    use super::*;
    use crate::handoff::progress::WorkerLoss;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn every_look_has_its_order() {
        let start = origin();
        let elsewhere = RELEASE_TIME + DEATH_TIME;
        // In another container, killed, time of the look, the look, its order.
        let table = [
            (false, false, MOMENT, Input::Ended, Output::Released),
            (false, false, MOMENT, Input::LetGo, Output::Released),
            (false, false, MOMENT, Input::Holds, Output::Look(start + MOMENT + RELEASE_LOOK)),
            (false, false, RELEASE_TIME - MOMENT, Input::Holds, Output::Look(start + RELEASE_TIME)),
            (false, false, RELEASE_TIME, Input::Holds, Output::Kill),
            (false, false, RELEASE_TIME, Input::LetGo, Output::Released),
            (false, true, MOMENT, Input::Ended, Output::Released),
            (false, true, MOMENT, Input::LetGo, Output::Look(start + DEATH_TIME)),
            (false, true, MOMENT, Input::Holds, Output::Look(start + DEATH_TIME)),
            (false, true, MOMENT, Input::NotKilled, Output::NotReleased),
            (false, true, DEATH_TIME, Input::Holds, Output::NotReleased),
            (false, true, DEATH_TIME, Input::Ended, Output::Released),
            (true, false, MOMENT, Input::Ended, Output::Released),
            (true, false, MOMENT, Input::Holds, Output::Look(start + MOMENT + RELEASE_LOOK)),
            (true, false, elsewhere - MOMENT, Input::LetGo, Output::Look(start + elsewhere)),
            (true, false, elsewhere, Input::Holds, Output::NotReleased),
            (true, false, elsewhere, Input::Ended, Output::Released),
        ];
        for (is_elsewhere, killed, after, input, output) in table {
            let begun = if killed { start - RELEASE_TIME } else { start };
            let mut release = Machine::new(begun, is_elsewhere);
            if killed {
                assert_eq!(release.handle(start, Input::Holds), Output::Kill);
            }
            let name = format!("elsewhere: {is_elsewhere}, killed: {killed}, after {after:?}, {input:?}");
            assert_eq!(release.handle(start + after, input), output, "{name}");
        }
    }

    #[test]
    fn every_end_has_its_outcome() {
        use HandoffStage::{Accepted, Assigned, Started};
        let (returned, lost) = (HandoffEnd::Returned(Decline::Full), HandoffEnd::Lost(WorkerLoss::Ended));
        let done = |how| HandoffEnd::Done(how, String::new());
        let over = |how, started| HandoffOutcome::Done { how, started, erred: false };
        let back = |touched, started| HandoffOutcome::Returned { why: Decline::Full, touched, started };
        let gone = |accepted, touched, started| HandoffOutcome::Lost { accepted, touched, started };
        // The end, whether it leaves the socket in doubt; then stage, released, read: the outcome.
        let table = [
            (HandoffEnd::Duplicate, false, Assigned, true, false, HandoffOutcome::Duplicate),
            (done(Close::Graceful), false, Started, true, true, over(Close::Graceful, true)),
            (done(Close::Graceful), false, Accepted, true, true, over(Close::Graceful, false)),
            (done(Close::Abort), false, Started, true, true, over(Close::Abort, true)),
            (HandoffEnd::KickIgnored, false, Started, true, true, over(Close::Abort, true)),
            (HandoffEnd::Parted, false, Started, true, true, HandoffOutcome::Parted),
            (HandoffEnd::Parted, false, Started, false, true, HandoffOutcome::NotReleased),
            (returned.clone(), false, Assigned, true, false, back(false, false)),
            (returned.clone(), false, Assigned, true, true, back(true, false)),
            (returned.clone(), false, Accepted, true, false, back(true, false)),
            (returned.clone(), false, Started, true, true, back(true, true)),
            (returned, false, Started, false, true, HandoffOutcome::NotReleased),
            (lost.clone(), true, Assigned, true, false, gone(false, false, false)),
            (lost.clone(), true, Assigned, true, true, gone(false, true, false)),
            (lost.clone(), true, Accepted, true, false, gone(true, true, false)),
            (lost.clone(), true, Started, true, true, gone(true, true, true)),
            (lost, true, Started, false, true, HandoffOutcome::NotReleased),
        ];
        for (end, doubts, stage, is_released, was_read, expected) in table {
            let name = format!("{end:?} when {stage:?}, released: {is_released}, read: {was_read}");
            assert_eq!(is_in_doubt(&end), doubts, "{name}");
            assert_eq!(outcome(&end, stage, is_released, was_read), expected, "{name}");
        }
    }
}
