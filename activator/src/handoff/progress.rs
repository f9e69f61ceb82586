//! The progress of one handoff, by what the worker says. In: its frames. Out: their effects, the end of the handoff among them. Pure. Next:
//! `descriptor` or `link`, which carry the stream.
//!
//! ```text
//!  Assigned ──Accepted──▶ Accepted ──Started──▶ Started
//!     │                       │                    │
//!     └─ Returned, Done, a frame that does not fit, silence ─▶ over
//!        (Duplicate: from Assigned alone; Parted: from the other two alone)
//! ```
//!
//! A worker that is silent loses the handoff in two cases: it has not accepted in time, or it has not ended the stream in time after a kick.
//! The end of the worker's connection ends the handoff at any time; `descriptor` and `link` notice that end, and it does not pass here.
//!
//! Note: `Returned` is the frame of a worker that declines the stream and of one that goes down mid-stream; the two differ in whether the
//! worker had accepted.

use std::time::Instant;

use liveedgecast_common::handoff::{Close, Decline, Frame};

use super::limits::{ACCEPT_TIME, KICK_TIME};

/// The state of a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HandoffStage {
    /// The worker was given the stream and has not answered.
    Assigned,
    /// The worker has accepted the stream.
    Accepted,
    /// The publisher has been told to start.
    Started,
}

/// The effect of a frame or a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FrameEffect {
    /// No effect on the progress; the frame may concern the transport.
    Nothing,
    /// The worker has accepted the stream.
    Accepted,
    /// The publisher has been told to start.
    Started,
    /// The handoff is over.
    Over(HandoffEnd),
}

/// The end of a handoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandoffEnd {
    /// The worker gave the stream back.
    Returned(Decline),
    /// The stream is live elsewhere.
    Duplicate,
    /// The stream has ended, and the publisher's connection is ours again.
    Parted,
    /// The stream has ended.
    Done(Close, String),
    /// The worker did not end a stream that it was told to end.
    KickIgnored,
    /// The worker is dead, or is treated as dead.
    Lost(WorkerLoss),
}

/// The reason for which a worker counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerLoss {
    /// The connection ended: mostly with the worker's process, which the process fleet or the control service notices.
    Ended,
    /// The lobby has taken the offer back.
    Withdrawn,
    /// The worker's bytes cannot be read as frames.
    Unreadable,
    /// A frame does not fit the stage.
    Unfit,
    /// The worker did not say whether it takes the stream.
    NotAccepted,
    /// The worker gives no sign of life by link.
    Silent,
    /// The worker makes no checkpoint by link, and too much would have to be kept.
    Behind,
}

impl WorkerLoss {
    /// The reason as logs show it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Withdrawn => "withdrawn",
            Self::Unreadable => "unreadable",
            Self::Unfit => "unfit",
            Self::NotAccepted => "not_accepted",
            Self::Silent => "silent",
            Self::Behind => "behind",
        }
    }

    /// Tells whether something is wrong with the worker that no other room reports.
    pub(crate) fn is_fault(self) -> bool {
        !matches!(self, Self::Ended | Self::Withdrawn)
    }
}

/// The progress of one handoff.
#[derive(Clone, Debug)]
pub(crate) struct HandoffProgress {
    stage: HandoffStage,
    until: Option<Instant>,
}

impl HandoffProgress {
    /// A handoff whose assignment is on its way.
    pub(crate) fn new(now: Instant) -> Self {
        Self { stage: HandoffStage::Assigned, until: Some(now + ACCEPT_TIME) }
    }

    /// The state of the handoff.
    pub(crate) fn stage(&self) -> HandoffStage {
        self.stage
    }

    /// Takes a frame of the worker.
    pub(crate) fn handle(&mut self, frame: &Frame) -> FrameEffect {
        use HandoffStage::{Accepted, Assigned, Started};
        match (self.stage, frame) {
            (Assigned, Frame::Accepted) => {
                self.stage = Accepted;
                self.until = None;
                FrameEffect::Accepted
            }
            (Accepted, Frame::Started) => {
                self.stage = Started;
                FrameEffect::Started
            }
            (Assigned, Frame::Duplicate) => FrameEffect::Over(HandoffEnd::Duplicate),
            (_, Frame::Returned { why }) => FrameEffect::Over(HandoffEnd::Returned(*why)),
            (Accepted | Started, Frame::Parted(_)) => FrameEffect::Over(HandoffEnd::Parted),
            (_, Frame::Done { how, reason }) => FrameEffect::Over(HandoffEnd::Done(*how, reason.clone())),
            (_, Frame::Alive) | (Accepted | Started, Frame::Reply(_) | Frame::Checkpoint(_)) => FrameEffect::Nothing,
            _ => FrameEffect::Over(HandoffEnd::Lost(WorkerLoss::Unfit)),
        }
    }

    /// Starts the deadline of a worker that was told to end the stream.
    pub(crate) fn kicked(&mut self, now: Instant) {
        self.until.get_or_insert(now + KICK_TIME);
    }

    /// The time at which [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Gives the worker up if its time is over.
    pub(crate) fn handle_timeout(&self, now: Instant) -> FrameEffect {
        match self.until {
            Some(until) if until <= now => FrameEffect::Over(match self.stage {
                HandoffStage::Assigned => HandoffEnd::Lost(WorkerLoss::NotAccepted),
                HandoffStage::Accepted | HandoffStage::Started => HandoffEnd::KickIgnored,
            }),
            _ => FrameEffect::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liveedgecast_common::testkit::origin;

    use super::*;
    use HandoffStage::{Accepted, Assigned, Started};

    fn at(stage: HandoffStage, now: Instant) -> HandoffProgress {
        let mut progress = HandoffProgress::new(now);
        for (reached, frame) in [(Accepted, Frame::Accepted), (Started, Frame::Started)] {
            if stage >= reached {
                progress.handle(&frame);
            }
        }
        assert_eq!(progress.stage(), stage);
        progress
    }

    /// The effect in a word.
    fn word(effect: &FrameEffect) -> &'static str {
        match effect {
            FrameEffect::Over(HandoffEnd::Returned(_)) => "returned",
            FrameEffect::Over(HandoffEnd::Duplicate) => "duplicate",
            FrameEffect::Over(HandoffEnd::Parted) => "parted",
            FrameEffect::Over(HandoffEnd::Done(..)) => "done",
            FrameEffect::Over(HandoffEnd::KickIgnored) => "kick ignored",
            FrameEffect::Over(HandoffEnd::Lost(_)) => "lost",
            FrameEffect::Accepted => "accepted",
            FrameEffect::Started => "started",
            FrameEffect::Nothing => "nothing",
        }
    }

    #[test]
    fn every_frame_and_silence_have_their_effect_in_every_stage() {
        let now = origin();
        let done = Frame::Done { how: Close::Graceful, reason: "ended".to_owned() };
        let returned = Frame::Returned { why: Decline::Full };
        let reply = Frame::Reply(bytes::Bytes::from_static(b"x"));
        let state = super::super::testing::snapshot(3073);
        // One row per frame: its effect when assigned, accepted, started.
        let table = [
            (Frame::Accepted, ["accepted", "lost", "lost"]),
            (Frame::Started, ["lost", "started", "lost"]),
            (Frame::Duplicate, ["duplicate", "lost", "lost"]),
            (returned, ["returned"; 3]),
            (done, ["done"; 3]),
            (Frame::Alive, ["nothing"; 3]),
            (reply, ["lost", "nothing", "nothing"]),
            (Frame::Checkpoint(Box::new(state.clone())), ["lost", "nothing", "nothing"]),
            (Frame::Parted(Box::new(state)), ["lost", "parted", "parted"]),
            (Frame::Kick("ours to say".to_owned()), ["lost"; 3]),
        ];
        for (frame, effects) in &table {
            for (stage, effect) in [Assigned, Accepted, Started].into_iter().zip(effects) {
                let mut progress = at(stage, now);
                assert_eq!(word(&progress.handle(frame)), *effect, "{frame:?} when {stage:?}");
                let reached = match *effect {
                    "accepted" => Accepted,
                    "started" => Started,
                    _ => stage,
                };
                assert_eq!(progress.stage(), reached, "{frame:?} when {stage:?}");
            }
        }
        let silence = [(false, ["lost", "nothing", "nothing"]), (true, ["lost", "kick ignored", "kick ignored"])];
        for (kicked, effects) in silence {
            for (stage, effect) in [Assigned, Accepted, Started].into_iter().zip(effects) {
                let mut progress = at(stage, now);
                if kicked {
                    progress.kicked(now);
                }
                let late = now + ACCEPT_TIME.max(KICK_TIME);
                assert_eq!(word(&progress.handle_timeout(late)), effect, "silence when {stage:?}, kicked: {kicked}");
            }
        }
    }

    #[test]
    fn silent_worker_is_given_up_only_before_it_accepts_or_after_a_kick() {
        let now = origin();
        let later = now + Duration::from_secs(3600);
        let silent = at(Assigned, now);
        assert_eq!(word(&silent.handle_timeout(now)), "nothing");
        assert_eq!(word(&silent.handle_timeout(now + ACCEPT_TIME)), "lost");
        for stage in [Accepted, Started] {
            let mut progress = at(stage, now);
            assert_eq!((progress.poll_timeout(), word(&progress.handle_timeout(later))), (None, "nothing"));
            progress.kicked(later);
            progress.kicked(later + Duration::from_secs(1));
            assert_eq!(progress.poll_timeout(), Some(later + KICK_TIME));
            assert_eq!(word(&progress.handle_timeout(later + KICK_TIME)), "kick ignored");
        }
        let mut kicked = at(Assigned, now);
        kicked.kicked(now + ACCEPT_TIME / 2);
        assert_eq!(kicked.poll_timeout(), Some(now + ACCEPT_TIME), "a kick gives no more time to accept");
    }
}
