//! Going down, as a numbered list. In: signals, and how far the others are. Out: the [`Phase`] that everything else
//! follows. Pure; the shell is in `main`.
//!
//! ```text
//! 1 Serving ──signal──▶ 2 Unready ──said──▶ 3 HandBack ──asked──▶ 4 AwaitStreams ──┬──▶ 5 Leave ──┬──▶ 6 StopServing
//!    │                                                     none left, time, signal ┘   said, time ┘
//!    └──orphaned──▶ 5 (from 2, 3 and 4 too)
//! ```
//!
//! 2 tells every activator that nothing more is taken, so that no offer comes while streams are handed back. A stream that
//! nobody has taken when the time of 4 is over is not closed: the process ends, and that is to the activator what a crash
//! is, so it goes on at the next worker (DESIGN 4.4). Every further signal ends the wait that is on.

use std::time::{Duration, Instant};

/// How long activators may take to hear our goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where we are on the list. The order is the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Offers are taken.
    Serving,
    /// `/readyz` says no, activators are told that we take no more.
    Unready,
    /// Every stream is asked to go back to its activator.
    HandBack,
    /// Streams that have not gone yet go on until they have.
    AwaitStreams,
    /// Goodbye is said to the activators.
    Leave,
    /// HTTP ends.
    StopServing,
}

impl Phase {
    /// The list.
    pub const ALL: [Self; 6] =
        [Self::Serving, Self::Unready, Self::HandBack, Self::AwaitStreams, Self::Leave, Self::StopServing];

    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Unready => "unready",
            Self::HandBack => "hand_back",
            Self::AwaitStreams => "await_streams",
            Self::Leave => "leave",
            Self::StopServing => "stop_serving",
        }
    }
}

/// What moves the list on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// SIGTERM or SIGINT.
    Signal,
    /// There is no activator any more and no stream.
    Orphaned,
    /// The step of this phase has been done: said, asked, no stream is left, goodbye was sent.
    Done(Phase),
}

/// The list and where we are on it.
#[derive(Debug)]
pub struct Drain {
    phase: Phase,
    streams: Duration,
    /// End of the wait of this phase.
    until: Option<Instant>,
    /// End of the wait for streams, counted from the first signal.
    streams_until: Option<Instant>,
}

impl Drain {
    /// `streams`: how long live streams may take to move, counted from the first signal.
    #[must_use]
    pub fn new(streams: Duration) -> Self {
        Self { phase: Phase::Serving, streams, until: None, streams_until: None }
    }

    /// Where we are.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes one input; true when the phase is another one now.
    pub fn handle(&mut self, now: Instant, input: Input) -> bool {
        match (self.phase, input) {
            (Phase::Serving, Input::Signal) => {
                self.streams_until = Some(now + self.streams);
                self.enter(now, Phase::Unready)
            }
            // Whoever is orphaned has no stream either.
            (phase, Input::Orphaned) if phase < Phase::Leave => self.enter(now, Phase::Leave),
            (_, Input::Signal) => self.next(now),
            (phase, Input::Done(done)) if phase == done && phase != Phase::Serving => self.next(now),
            (_, Input::Done(_) | Input::Orphaned) => false,
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// The time has come; true when the phase is another one now.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now) && self.next(now)
    }

    fn next(&mut self, now: Instant) -> bool {
        let at = Phase::ALL.iter().position(|phase| *phase == self.phase).unwrap_or_default();
        Phase::ALL.get(at + 1).is_some_and(|phase| self.enter(now, *phase))
    }

    fn enter(&mut self, now: Instant, phase: Phase) -> bool {
        self.phase = phase;
        self.until = match phase {
            // What is said and asked goes into channels that may be full for a moment, never for longer than this.
            Phase::Unready | Phase::HandBack | Phase::AwaitStreams => self.streams_until,
            Phase::Leave => Some(now + GOODBYE_TIMEOUT),
            Phase::Serving | Phase::StopServing => None,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn left_alone_it_walks_the_list() {
        let (mut drain, start) = (Drain::new(Duration::from_secs(8)), origin());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!drain.handle_timeout(at(0)) && !drain.handle(at(0), Input::Done(Phase::Serving)));
        assert!(drain.handle(at(0), Input::Signal));
        assert!(!drain.handle(at(0), Input::Done(Phase::AwaitStreams)), "done before it began");
        assert!(drain.handle(at(0), Input::Done(Phase::Unready)));
        assert!(drain.handle(at(1), Input::Done(Phase::HandBack)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::AwaitStreams, Some(at(8))));
        assert!(!drain.handle_timeout(at(7)) && drain.handle_timeout(at(8)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::Leave, Some(at(8) + GOODBYE_TIMEOUT)));
        assert!(drain.handle(at(8), Input::Done(Phase::Leave)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::StopServing, None));
        assert!(!drain.handle(at(9), Input::Signal));
    }

    #[test]
    fn every_further_signal_ends_the_wait_that_is_on() {
        let (mut drain, start) = (Drain::new(Duration::from_secs(8)), origin());
        for phase in &Phase::ALL[1..] {
            assert!(drain.handle(start, Input::Signal));
            assert_eq!(drain.phase(), *phase);
        }
    }

    #[test]
    fn orphaned_there_is_nobody_to_hand_back_to() {
        let (mut drain, start) = (Drain::new(Duration::from_secs(8)), origin());
        assert!(drain.handle(start, Input::Orphaned));
        assert_eq!(drain.phase(), Phase::Leave);
        assert!(!drain.handle(start, Input::Orphaned));
        let mut drain = Drain::new(Duration::from_secs(8));
        assert!(drain.handle(start, Input::Signal) && drain.handle(start, Input::Orphaned));
        assert_eq!(drain.phase(), Phase::Leave);
    }
}
