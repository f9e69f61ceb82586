//! Going down: this process's list of phases. In: the settings. Out: the list for [`common::drain`](liveedgecast_common::drain); the
//! [`Phase`] that readiness, the scaler and the shared ports follow. Next: [`crate::task`], which takes the steps. Pure.
//!
//! ```text
//! 1 Serving ──signal──▶ 2 Unready ──┬──▶ 3 StopAccepting ─▶ 4 FinishStreams ──┬──▶ 5 StopWorkers ──┬──▶ 6 StopServing
//!                        time, signal ┘                 none left, time, signal ┘      done, signal ┘
//! ```
//!
//! Every further signal ends the wait of the current phase. In 3 the held publishers are closed so that their clients come again, to the
//! activator that listens then; the live ones stay until 5.

use std::time::Duration;

use liveedgecast_common::drain::{Drain, Wait};

/// The time that worker processes have to end.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(5);

/// A phase of the list. The order is the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Every listener is open.
    Serving,
    /// `/readyz` says no; load balancers that read it stop sending publishers.
    Unready,
    /// The RTMP port is closed, held publishers are told to come again.
    StopAccepting,
    /// Live streams go on until they end.
    FinishStreams,
    /// The streams that are left are closed; worker processes end.
    StopWorkers,
    /// Control, link and HTTP end.
    StopServing,
}

impl Phase {
    /// The word in logs and in the answer of `/readyz`.
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

/// The list at its beginning. `propagation`: the time in which load balancers notice that this process is unready. `streams`: the time
/// that live streams have, counted from the first signal.
pub fn list(propagation: Duration, streams: Duration) -> Drain<Phase, 6> {
    let list = [
        (Phase::Serving, Wait::Step),
        (Phase::Unready, Wait::AtMost(propagation.min(streams))),
        (Phase::StopAccepting, Wait::Step),
        (Phase::FinishStreams, Wait::Streams),
        (Phase::StopWorkers, Wait::AtMost(WORKERS_TIMEOUT)),
        (Phase::StopServing, Wait::Step),
    ];
    Drain::new(list, streams)
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::drain::Input;
    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn every_edge_of_the_picture_is_walked() {
        use Phase::{FinishStreams, Serving, StopAccepting, StopServing, StopWorkers, Unready};
        let start = origin();
        // A phase; the phase after its step, after a signal, and after its time.
        let table = [
            (Serving, [Serving, Unready, Serving]),
            (Unready, [StopAccepting; 3]),
            (StopAccepting, [FinishStreams, FinishStreams, StopAccepting]),
            (FinishStreams, [StopWorkers; 3]),
            (StopWorkers, [StopServing; 3]),
            (StopServing, [StopServing; 3]),
        ];
        for (from, expected) in table {
            let mut drains: [_; 3] = std::array::from_fn(|_| {
                let mut drain = list(Duration::from_secs(1), Duration::from_secs(8));
                while drain.phase() != from {
                    assert!(drain.handle(start, Input::Signal));
                }
                drain
            });
            drains[0].handle(start, Input::Done(from));
            drains[1].handle(start, Input::Signal);
            drains[2].handle_timeout(start + Duration::from_secs(8));
            assert_eq!(drains.map(|drain| drain.phase()), expected, "{from:?}");
        }
    }

    #[test]
    fn phases_follow_each_other_by_their_steps_and_times() {
        let (mut drain, start) = (list(Duration::from_secs(1), Duration::from_secs(8)), origin());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(drain.handle(at(0), Input::Signal));
        assert!(!drain.handle_timeout(at(0)) && drain.handle_timeout(at(1)));
        assert_eq!(drain.phase(), Phase::StopAccepting);
        assert!(drain.handle(at(1), Input::Done(Phase::StopAccepting)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::FinishStreams, Some(at(8))));
        assert!(drain.handle_timeout(at(8)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::StopWorkers, Some(at(8) + WORKERS_TIMEOUT)));
        assert!(drain.handle(at(9), Input::Done(Phase::StopWorkers)));
        assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::StopServing, None));
    }

    #[test]
    fn propagation_takes_no_longer_than_streams_may() {
        let (mut drain, start) = (list(Duration::from_secs(3), Duration::ZERO), origin());
        assert!(drain.handle(start, Input::Signal) && drain.handle_timeout(start));
        assert_eq!(drain.phase(), Phase::StopAccepting);
    }
}
