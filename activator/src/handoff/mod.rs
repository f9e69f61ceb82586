//! The handoff of a held publisher to a worker. In: the publisher, its place in the lobby, an offer that a worker was sent. Out: the worker's
//! connection, which gets the publisher by [`descriptor`] or by `link`; in the end an [`HandoffOutcome`]. Next: `link`, and the worker's `receive`.
//!
//! Workers do not listen: they dial our [`listener`] with the offer's token. The memory of a stream that has ended waits in [`spare`] for the
//! next one.

mod claim;
pub(crate) mod descriptor;
pub(crate) mod limits;
mod listener;
mod metrics;
mod place;
pub(crate) mod progress;
mod release;
mod spare;
#[cfg(test)]
pub(crate) mod testing;

use liveedgecast_common::handoff::frame::Writer;
use liveedgecast_common::handoff::{Assignment, Close, Decline, DestinationList, Frame, FrameError};

pub use listener::{ExpectedWorker, HandoffConnection, HandoffListener};
pub use metrics::HandoffMetrics;
pub(crate) use place::{ClaimedPlace, ExpectedOffer, FollowUp, Interruption};
pub(crate) use spare::PeerProcess;
pub use spare::SpareMemories;

/// A stream for a worker: its assignment, and the names of its destinations if the worker takes them.
pub(crate) struct AssignedStream {
    /// The first frame.
    pub(crate) assignment: Assignment,
    /// The second frame.
    pub(crate) destinations: Option<DestinationList>,
}

impl AssignedStream {
    /// Appends the frames to `out`.
    pub(crate) fn write(self, writer: &mut Writer, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let Self { assignment, destinations } = self;
        writer.write(out, &Frame::Assign(Box::new(assignment)))?;
        match destinations {
            Some(list) => writer.write(out, &Frame::Destinations(Box::new(list))),
            None => Ok(()),
        }
    }
}

/// The outcome of a handoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandoffOutcome {
    /// The worker gave the stream back.
    Returned {
        /// The worker's reason.
        why: Decline,
        /// Only a worker can go on, because one has read from the connection.
        touched: bool,
        /// The publisher was told to start.
        started: bool,
    },
    /// The stream is live elsewhere.
    Duplicate,
    /// The connection to the worker ended, and this process alone has the publisher now.
    Lost {
        /// The worker had accepted the stream.
        accepted: bool,
        /// Only a worker can go on, because one has read from the connection.
        touched: bool,
        /// The publisher was told to start.
        started: bool,
    },
    /// The connection by link to a worker that had accepted the stream ended without a word. The worker may be alive, and then it keeps the
    /// upstream sessions for a while.
    Broken {
        /// The publisher was told to start.
        started: bool,
    },
    /// The connection to the worker ended, and the worker may have the socket still.
    NotReleased,
    /// The publisher has said goodbye, its stream has ended, and its connection is ours: in the state that the worker has left behind.
    Parted,
    /// The publisher has said goodbye and has closed its side: its stream has ended, and its connection with it.
    PartedForGood,
    /// The stream is over, and the publisher's connection with it.
    Done {
        /// The end of the connection.
        how: Close,
        /// The publisher was told to start in this handoff.
        started: bool,
        /// The publisher has broken RTMP.
        erred: bool,
    },
    /// The publisher is gone and the worker knows.
    PublisherGone,
}

impl HandoffOutcome {
    /// The outcome of a handoff in which nothing was done.
    pub(crate) fn untouched() -> Self {
        Self::Lost { accepted: false, touched: false, started: false }
    }
}
