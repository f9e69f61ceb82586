//! How far a handoff is, by what the worker says. In: its frames. Out: what the lobby is to be told, and how it ends.
//!
//! ```text
//!  Assigned ──Accepted──▶ Accepted ──Started──▶ Started
//!     │                       │                    │
//!     └─ Returned, Done, a frame that does not fit, silence, the end of the connection ─▶ over
//!        (Duplicate: from Assigned alone)
//! ```
//!
//! Surprise: a worker that goes down mid-stream gives the stream back with the frame that it declines one with; what tells them apart is
//! whether it had accepted.

use std::time::Instant;

use liveedgecast_common::handoff::{Close, Decline, Frame};

use super::limits::{ACCEPT_TIME, KICK_TIME};

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// The worker was given it and has not answered.
    Assigned,
    /// It is the worker's.
    Accepted,
    /// The publisher has been told to start.
    Started,
}

/// What a frame means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing new here: for whoever carries the bytes.
    Nothing,
    /// The worker has it.
    Taken,
    /// The publisher has been told to start.
    Started,
    /// The handoff is over.
    Over(End),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The worker gave the stream back.
    Returned(Decline),
    /// The stream lives elsewhere.
    Duplicate,
    /// The stream has ended, and the publisher's connection is ours again.
    Parted,
    /// The stream has ended.
    Done(Close, String),
    /// The worker is dead, or as good as that.
    Lost(Loss),
}

/// How a worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its connection ended: mostly with its process, which `fleet` tells of.
    Ended,
    /// The lobby has taken the offer back.
    Withdrawn,
    /// What it says cannot be read.
    Unreadable,
    /// What it says does not fit.
    Unfit,
    /// It did not say whether it takes the stream.
    NotAccepted,
    /// It did not end a stream that it was told to end.
    NotEnded,
    /// By link: it gives no sign of life.
    Silent,
    /// By link: it makes no checkpoint, and too much would have to be kept.
    Behind,
}

impl Loss {
    /// The word in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Withdrawn => "withdrawn",
            Self::Unreadable => "unreadable",
            Self::Unfit => "unfit",
            Self::NotAccepted => "not_accepted",
            Self::NotEnded => "not_ended",
            Self::Silent => "silent",
            Self::Behind => "behind",
        }
    }

    /// Whether something is wrong with the worker that nobody else tells of.
    pub(crate) fn is_fault(self) -> bool {
        !matches!(self, Self::Ended | Self::Withdrawn)
    }
}

/// One handoff.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    stage: Stage,
    until: Option<Instant>,
}

impl Progress {
    /// The assignment is on its way.
    pub(crate) fn new(now: Instant) -> Self {
        Self { stage: Stage::Assigned, until: Some(now + ACCEPT_TIME) }
    }

    /// How far it is.
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes a frame of the worker.
    pub(crate) fn handle(&mut self, frame: &Frame) -> Heard {
        match (self.stage, frame) {
            (Stage::Assigned, Frame::Accepted) => {
                self.stage = Stage::Accepted;
                self.until = None;
                Heard::Taken
            }
            (Stage::Accepted, Frame::Started) => {
                self.stage = Stage::Started;
                Heard::Started
            }
            (Stage::Assigned, Frame::Duplicate) => Heard::Over(End::Duplicate),
            (_, Frame::Returned { why }) => Heard::Over(End::Returned(*why)),
            (Stage::Accepted | Stage::Started, Frame::Parted(_)) => Heard::Over(End::Parted),
            (_, Frame::Done { how, reason }) => Heard::Over(End::Done(*how, reason.clone())),
            (_, Frame::Alive) | (Stage::Accepted | Stage::Started, Frame::Reply(_) | Frame::Checkpoint(_)) => {
                Heard::Nothing
            }
            _ => Heard::Over(End::Lost(Loss::Unfit)),
        }
    }

    /// The worker was told to end the stream.
    pub(crate) fn kicked(&mut self, now: Instant) {
        self.until.get_or_insert(now + KICK_TIME);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// The time has come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Heard {
        match self.until {
            Some(until) if until <= now => Heard::Over(End::Lost(match self.stage {
                Stage::Assigned => Loss::NotAccepted,
                Stage::Accepted | Stage::Started => Loss::NotEnded,
            })),
            _ => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liveedgecast_common::testkit::origin;

    use super::*;

    fn at(stage: Stage, now: Instant) -> Progress {
        let mut progress = Progress::new(now);
        for (reached, frame) in [(Stage::Accepted, Frame::Accepted), (Stage::Started, Frame::Started)] {
            if stage >= reached {
                progress.handle(&frame);
            }
        }
        assert_eq!(progress.stage(), stage);
        progress
    }

    #[test]
    fn the_table() {
        let now = origin();
        let done = Frame::Done { how: Close::Graceful, reason: "ended".to_owned() };
        let returned = Frame::Returned { why: Decline::Full };
        let reply = Frame::Reply(bytes::Bytes::from_static(b"x"));
        let over = |heard: &Heard| match heard {
            Heard::Over(End::Returned(_)) => "returned",
            Heard::Over(End::Duplicate) => "duplicate",
            Heard::Over(End::Parted) => "parted",
            Heard::Over(End::Done(..)) => "done",
            Heard::Over(End::Lost(_)) => "lost",
            Heard::Taken => "taken",
            Heard::Started => "started",
            Heard::Nothing => "nothing",
        };
        // One row per frame: what it means when assigned, accepted, started.
        let table = [
            (Frame::Accepted, ["taken", "lost", "lost"]),
            (Frame::Started, ["lost", "started", "lost"]),
            (Frame::Duplicate, ["duplicate", "lost", "lost"]),
            (returned, ["returned"; 3]),
            (done, ["done"; 3]),
            (Frame::Alive, ["nothing"; 3]),
            (reply, ["lost", "nothing", "nothing"]),
            (Frame::Parted(Box::new(super::super::testing::snapshot(3073))), ["lost", "parted", "parted"]),
            (Frame::Kick("ours to say".to_owned()), ["lost"; 3]),
        ];
        for (frame, meanings) in &table {
            for (stage, meaning) in [Stage::Assigned, Stage::Accepted, Stage::Started].into_iter().zip(meanings) {
                assert_eq!(over(&at(stage, now).handle(frame)), *meaning, "{frame:?} when {stage:?}");
            }
        }
    }

    #[test]
    fn a_worker_that_says_nothing_is_given_up_only_before_it_accepts_or_after_a_kick() {
        let now = origin();
        let later = now + Duration::from_secs(3600);
        let mut silent = at(Stage::Assigned, now);
        assert_eq!(silent.handle_timeout(now), Heard::Nothing);
        assert!(matches!(silent.handle_timeout(now + ACCEPT_TIME), Heard::Over(End::Lost(_))));
        for stage in [Stage::Accepted, Stage::Started] {
            let mut progress = at(stage, now);
            assert_eq!((progress.poll_timeout(), progress.handle_timeout(later)), (None, Heard::Nothing));
            progress.kicked(later);
            progress.kicked(later + Duration::from_secs(1));
            assert_eq!(progress.poll_timeout(), Some(later + KICK_TIME));
            assert!(matches!(progress.handle_timeout(later + KICK_TIME), Heard::Over(End::Lost(_))));
        }
    }
}
