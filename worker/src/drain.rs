//! Going down: this process's list of phases. In: the settings. Out: the list for [`common::drain`](liveedgecast_common::drain); the
//! [`WorkerPhase`] that readiness and metrics follow. Next: [`crate::task`], which takes the steps. Pure.
//!
//! ```text
//! 1 Serving ──signal──▶ 2 Unready ──said──▶ 3 HandBack ──asked──▶ 4 AwaitStreams ──┬──▶ 5 Leave ──┬──▶ 6 StopServing
//!    │                                                     none left, time, signal ┘   said, time ┘
//!    └──orphaned──▶ 5 (from 2, 3 and 4 too)
//! ```
//!
//! In 2 every activator is told that this worker takes no more, so that no offer comes while streams are handed back. A stream that no
//! worker has taken at the end of 4 is not closed: the process ends, which is a crash to the activator, so the stream continues at the
//! next worker (architecture.md, "Workers dial in"). Every further signal ends the wait of the current phase.

use std::time::Duration;

use liveedgecast_common::drain::{Drain, Wait};

/// The time in which activators have to hear the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// A phase of the list. The order is the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkerPhase {
    /// Offers are taken.
    Serving,
    /// `/readyz` says no, activators are told that this worker takes no more.
    Unready,
    /// Every stream is asked to return to its activator.
    HandBack,
    /// Streams that have not returned yet go on until they have.
    AwaitStreams,
    /// Activators are told goodbye.
    Leave,
    /// HTTP ends.
    StopServing,
}

impl WorkerPhase {
    /// Every phase, for metrics that exist before the first event.
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

/// The list at its beginning. `streams`: the time that live streams have to move, counted from the first signal.
#[must_use]
pub fn list(streams: Duration) -> Drain<WorkerPhase, 6> {
    let waits = [
        Wait::Step,
        // Goodbyes and requests go into channels that may be full for a moment, never for longer than this.
        Wait::Streams,
        Wait::Streams,
        Wait::Streams,
        Wait::AtMost(GOODBYE_TIMEOUT),
        Wait::Step,
    ];
    Drain::new(std::array::from_fn(|at| (WorkerPhase::ALL[at], waits[at])), streams)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use liveedgecast_common::drain::Input;
    use liveedgecast_common::testkit::origin;

    use super::*;

    /// A drain in this phase, reached by signals.
    fn drain_in(phase: WorkerPhase, now: Instant) -> Drain<WorkerPhase, 6> {
        let mut drain = list(Duration::from_secs(8));
        while drain.phase() != phase {
            assert!(drain.handle(now, Input::Signal));
        }
        drain
    }

    #[test]
    fn every_edge_of_the_picture_is_walked() {
        use WorkerPhase::{AwaitStreams, HandBack, Leave, Serving, StopServing, Unready};
        let start = origin();
        // A phase; the phase after its step, after a signal, after its time, and when the worker is orphaned.
        let table = [
            (Serving, [Serving, Unready, Serving, Leave]),
            (Unready, [HandBack, HandBack, HandBack, Leave]),
            (HandBack, [AwaitStreams, AwaitStreams, AwaitStreams, Leave]),
            (AwaitStreams, [Leave; 4]),
            (Leave, [StopServing, StopServing, StopServing, Leave]),
            (StopServing, [StopServing; 4]),
        ];
        for (from, expected) in table {
            let mut drains: [_; 4] = std::array::from_fn(|_| drain_in(from, start));
            drains[0].handle(start, Input::Done(from));
            drains[1].handle(start, Input::Signal);
            drains[2].handle_timeout(start + Duration::from_secs(8));
            drains[3].handle(start, Input::Skip(Leave));
            assert_eq!(drains.map(|drain| drain.phase()), expected, "{from:?}");
        }
    }

    #[test]
    fn phases_follow_each_other_by_their_steps_and_times() {
        let (mut drain, start) = (list(Duration::from_secs(8)), origin());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(drain.handle(at(0), Input::Signal));
        assert!(drain.handle(at(0), Input::Done(WorkerPhase::Unready)));
        assert!(drain.handle(at(1), Input::Done(WorkerPhase::HandBack)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (WorkerPhase::AwaitStreams, Some(at(8))));
        assert!(!drain.handle_timeout(at(7)) && drain.handle_timeout(at(8)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (WorkerPhase::Leave, Some(at(8) + GOODBYE_TIMEOUT)));
        assert!(drain.handle(at(8), Input::Done(WorkerPhase::Leave)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (WorkerPhase::StopServing, None));
    }

    #[test]
    fn orphaned_worker_hands_nothing_back() {
        let (mut drain, start) = (list(Duration::from_secs(8)), origin());
        assert!(drain.handle(start, Input::Skip(WorkerPhase::Leave)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (WorkerPhase::Leave, Some(start + GOODBYE_TIMEOUT)));
    }
}
