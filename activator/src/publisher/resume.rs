//! The rules of a handover: whether one can begin, which upstreams it names, and what it leaves for the next worker. In: the offer, the state of
//! the connection, the outcome. Out: yes or no, destinations, [`Remains`]. Pure. Next: `handover`, which acts by them.

use std::os::fd::OwnedFd;

use liveedgecast_common::handoff::{Destination, DestinationList, Snapshot};

use super::outgoing::BufferedConnection;
use crate::excerpt;
use crate::handoff::HandoffOutcome;
use crate::link::Carried;

/// The part of a stream that a worker left behind, for the next one.
pub(super) enum Resume {
    /// The ring with its state page, by descriptor, and the first worker's beginning.
    Descriptor(OwnedFd, Box<Snapshot>),
    /// The last checkpoint and the bytes since, by link.
    Link(Box<Carried>),
    /// The connection alone, for this process to read on after the publisher's goodbye.
    Parted(Box<Snapshot>),
}

impl Resume {
    /// Tells whether a worker that gets the stream this way can go on.
    pub(super) fn fits(resume: Option<&Self>, descriptor: bool) -> bool {
        match resume {
            None => true,
            Some(Self::Descriptor(..)) => descriptor,
            Some(Self::Link(_)) => !descriptor,
            Some(Self::Parted(_)) => false,
        }
    }
}

impl Resume {
    /// The bytes that are lost if no worker gets the stream any more: those behind the last state that a worker has left, and those that no worker has
    /// read. Upstreams may have some of them. By descriptor the connection knows; `started` tells whether its publisher was told to start.
    pub(super) fn at_stake(&self, connection: Option<&BufferedConnection>, started: bool) -> u64 {
        match (self, connection) {
            (Self::Link(carried), Some(connection)) if carried.is_started() => {
                carried.at_stake() + connection.waiting()
            }
            (Self::Descriptor(memory, first), Some(connection)) if started => {
                let from = excerpt::position(memory).unwrap_or(first.session.position());
                connection.position().unwrap_or_default().saturating_sub(from) + connection.waiting()
            }
            _ => 0,
        }
    }
}

/// The state of things when the offered worker has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    /// Every byte for the publisher is written: our last words must not come after the worker's first.
    pub(super) flushed: bool,
    /// The connection can be passed to another process.
    pub(super) movable: bool,
    /// The worker has dialed the Unix socket, over which descriptors go.
    pub(super) unix: bool,
    /// The offer was by descriptor, else by link.
    pub(super) descriptor: bool,
}

impl Readiness {
    /// Tells whether the handover can begin.
    pub(super) fn can_begin(self) -> bool {
        self.flushed && self.unix == self.descriptor && (self.movable || !self.descriptor)
    }
}

/// The remains of a handover, for this process or the next worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    /// The stream, which only a worker can go on with: one has read from the connection.
    Stream,
    /// The connection after the publisher's goodbye, in the state that the worker has reported.
    Connection,
    /// Nothing that was not there before.
    Nothing,
}

impl Remains {
    /// The remains of a handover with this outcome; `resumed` if it went on from what an earlier worker had left.
    pub(super) fn of(outcome: &HandoffOutcome, resumed: bool) -> Self {
        match outcome {
            HandoffOutcome::Returned { touched, .. } | HandoffOutcome::Lost { touched, .. } if *touched || resumed => {
                Self::Stream
            }
            HandoffOutcome::Broken { .. } => Self::Stream,
            HandoffOutcome::Parted => Self::Connection,
            HandoffOutcome::Returned { .. }
            | HandoffOutcome::Lost { .. }
            | HandoffOutcome::Duplicate
            | HandoffOutcome::PartedForGood
            | HandoffOutcome::NotReleased
            | HandoffOutcome::Done { .. }
            | HandoffOutcome::PublisherGone => Self::Nothing,
        }
    }
}

/// Tells whether the memory of a stream by descriptor can be that of another stream of the same worker: the stream has ended or was declined,
/// and no other worker has ever had the memory. `resumed`: as in [`Remains::of`].
///
/// Note: memory that two workers have had must stay out. A worker that gave a stream back unmaps it late, and what it writes then would say
/// that its successor has unmapped it.
pub(super) fn may_be_reused(outcome: &HandoffOutcome, resumed: bool) -> bool {
    let ended = matches!(outcome, HandoffOutcome::Done { .. } | HandoffOutcome::Parted | HandoffOutcome::PartedForGood);
    !resumed && (ended || matches!(outcome, HandoffOutcome::Returned { touched: false, .. }))
}

/// The destinations of a list as an assignment has them: without their names.
pub(super) fn unnamed(list: &DestinationList) -> Vec<Destination> {
    list.destinations.iter().map(|to| Destination { url: to.url.clone(), required: to.required }).collect()
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::handoff::{Close, Decline};
    use liveedgecast_common::rtmp::server::ServerSession;
    use liveedgecast_common::sys::RingMemory;

    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot { session: ServerSession::new(3073).state(), stream: None, unread: Vec::new() }
    }

    #[test]
    fn every_outcome_has_its_remains() {
        let returned = |touched| HandoffOutcome::Returned { why: Decline::Full, touched, started: false };
        let lost = |touched| HandoffOutcome::Lost { accepted: touched, touched, started: false };
        let done = |how| HandoffOutcome::Done { how, started: true, erred: false };
        // The outcome, its remains of a first handover, of a resumed one.
        let table = [
            (returned(false), Remains::Nothing, Remains::Stream),
            (returned(true), Remains::Stream, Remains::Stream),
            (lost(false), Remains::Nothing, Remains::Stream),
            (lost(true), Remains::Stream, Remains::Stream),
            (HandoffOutcome::Broken { started: true }, Remains::Stream, Remains::Stream),
            (HandoffOutcome::Parted, Remains::Connection, Remains::Connection),
            (HandoffOutcome::Duplicate, Remains::Nothing, Remains::Nothing),
            (HandoffOutcome::NotReleased, Remains::Nothing, Remains::Nothing),
            (done(Close::Graceful), Remains::Nothing, Remains::Nothing),
            (done(Close::Abort), Remains::Nothing, Remains::Nothing),
            (HandoffOutcome::PartedForGood, Remains::Nothing, Remains::Nothing),
            (HandoffOutcome::PublisherGone, Remains::Nothing, Remains::Nothing),
        ];
        for (outcome, first, resumed) in table {
            let remains = (Remains::of(&outcome, false), Remains::of(&outcome, true));
            assert_eq!(remains, (first, resumed), "{outcome:?}");
            let ended =
                matches!(outcome, HandoffOutcome::Done { .. } | HandoffOutcome::Parted | HandoffOutcome::PartedForGood);
            let ended = ended || outcome == returned(false);
            let reused = (may_be_reused(&outcome, false), may_be_reused(&outcome, true));
            assert_eq!(reused, (ended, false), "{outcome:?}");
        }
    }

    #[test]
    fn stream_resumes_only_by_the_way_that_it_went() {
        let memory = RingMemory::create(1 << 16).unwrap();
        let table = [
            (None, [true, true]),
            (Some(Resume::Descriptor(memory, Box::new(snapshot()))), [true, false]),
            (Some(Resume::Link(Box::new(Carried::new(snapshot())))), [false, true]),
            (Some(Resume::Parted(Box::new(snapshot()))), [false, false]),
        ];
        for (row, (resume, fits)) in table.iter().enumerate() {
            assert_eq!([true, false].map(|descriptor| Resume::fits(resume.as_ref(), descriptor)), *fits, "row {row}");
        }
    }

    #[test]
    fn handover_begins_when_all_is_written_and_the_worker_has_come_by_the_offered_way() {
        for bits in 0..16_u8 {
            let [flushed, movable, unix, descriptor] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let readiness = Readiness { flushed, movable, unix, descriptor };
            let expected =
                matches!((flushed, movable, unix, descriptor), (true, true, true, true) | (true, _, false, false));
            assert_eq!(readiness.can_begin(), expected, "{readiness:?}");
        }
    }
}
