//! Going down, as a numbered list. In: signals, and whether any publisher is left. Out: the [`Phase`] that everything else
//! follows. Pure; the shell is in `main`.
//!
//! ```text
//! 1 Serving ──signal──▶ 2 Unready ──┬──▶ 3 StopAccepting ─▶ 4 FinishStreams ──┬──▶ 5 StopWorkers ──┬──▶ 6 StopServing
//!                        time, signal ┘                 none left, time, signal ┘      done, signal ┘
//! ```
//!
//! Every further signal ends the wait that is on. In 3 the held publishers are let go so that their clients come again
//! (to whoever listens then); the live ones stay until 5.

use std::time::{Duration, Instant};

/// How long worker processes may take to go.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Where we are on the list. The order is the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// All is open.
    Serving,
    /// `/readyz` says no; those who look at it stop sending publishers.
    Unready,
    /// The RTMP port is closed, held publishers are told to come again.
    StopAccepting,
    /// Live streams go on until they end.
    FinishStreams,
    /// Those that are left are closed; worker processes end.
    StopWorkers,
    /// Control, link and HTTP end.
    StopServing,
}

impl Phase {
    /// The list.
    pub const ALL: [Self; 6] =
        [Self::Serving, Self::Unready, Self::StopAccepting, Self::FinishStreams, Self::StopWorkers, Self::StopServing];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Unready => "unready",
            Self::StopAccepting => "stop_accepting",
            Self::FinishStreams => "finish_streams",
            Self::StopWorkers => "stop_workers",
            Self::StopServing => "stop_serving",
        }
    }
}

/// What moves the list on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// SIGTERM or SIGINT.
    Signal,
    /// The step of this phase has been done: the port is closed, no publisher is left, the workers are gone.
    Done(Phase),
}

/// The list and where we are on it.
#[derive(Debug)]
pub struct Drain {
    phase: Phase,
    propagation: Duration,
    streams: Duration,
    /// End of the wait of this phase.
    until: Option<Instant>,
    /// End of the wait for streams, counted from the first signal.
    streams_until: Option<Instant>,
}

impl Drain {
    /// `propagation`: how long others need to notice that we are unready. `streams`: how long live streams may take,
    /// counted from the first signal.
    pub fn new(propagation: Duration, streams: Duration) -> Self {
        Self { phase: Phase::Serving, propagation: propagation.min(streams), streams, until: None, streams_until: None }
    }

    /// Where we are.
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
            (_, Input::Signal) => self.next(now),
            (phase, Input::Done(done)) if phase == done && phase != Phase::Serving => self.next(now),
            (_, Input::Done(_)) => false,
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
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
            Phase::Unready => Some(now + self.propagation),
            Phase::FinishStreams => self.streams_until,
            Phase::StopWorkers => Some(now + WORKERS_TIMEOUT),
            Phase::Serving | Phase::StopAccepting | Phase::StopServing => None,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::testkit::origin;

    use super::*;

    fn drain() -> Drain {
        Drain::new(Duration::from_secs(1), Duration::from_secs(8))
    }

    #[test]
    fn left_alone_it_walks_the_list() {
        let (mut drain, start) = (drain(), origin());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!drain.handle_timeout(at(0)) && !drain.handle(at(0), Input::Done(Phase::Serving)));
        assert!(drain.handle(at(0), Input::Signal));
        assert!(!drain.handle(at(0), Input::Done(Phase::FinishStreams)), "done before it began");
        assert!(!drain.handle_timeout(at(0)));
        assert!(drain.handle_timeout(at(1)));
        assert_eq!(drain.phase(), Phase::StopAccepting);
        assert!(drain.handle(at(1), Input::Done(Phase::StopAccepting)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::FinishStreams, Some(at(8))));
        assert!(drain.handle_timeout(at(8)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::StopWorkers, Some(at(8) + WORKERS_TIMEOUT)));
        assert!(drain.handle(at(9), Input::Done(Phase::StopWorkers)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::StopServing, None));
        assert!(!drain.handle(at(9), Input::Signal));
    }

    #[test]
    fn every_further_signal_ends_the_wait_that_is_on() {
        let (mut drain, start) = (drain(), origin());
        for phase in &Phase::ALL[1..] {
            assert!(drain.handle(start, Input::Signal));
            assert_eq!(drain.phase(), *phase);
        }
    }

    #[test]
    fn no_publisher_no_wait() {
        let (mut drain, start) = (Drain::new(Duration::ZERO, Duration::from_secs(8)), origin());
        drain.handle(start, Input::Signal);
        assert!(drain.handle_timeout(start));
        drain.handle(start, Input::Done(Phase::StopAccepting));
        drain.handle(start, Input::Done(Phase::FinishStreams));
        assert_eq!(drain.phase(), Phase::StopWorkers);
    }
}
