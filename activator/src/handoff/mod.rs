//! Room 6. In: a held publisher and an offer that a worker was sent. Out: the worker's connection, which gets the publisher by
//! descriptor ([`keeper`]) or by `link`; in the end an [`Outcome`]. Next: the worker's `receive`.
//!
//! Workers listen on nothing: they dial our [`desk`] with the offer's token.

pub(crate) mod claim;
mod desk;
pub(crate) mod keeper;
pub(crate) mod limits;
pub(crate) mod progress;
#[cfg(test)]
pub(crate) mod testing;

use liveedgecast_common::handoff::{Close, Decline};

pub use desk::{Desk, Expected, HandoffConnection};

/// How a handoff ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The worker gave it back.
    Returned {
        /// Why.
        why: Decline,
        /// Whether only a worker can go on, because one has read from it.
        touched: bool,
        /// Whether the publisher was told to start.
        started: bool,
    },
    /// The stream is live elsewhere.
    Duplicate,
    /// The connection to the worker ended, and nobody but us has the publisher now.
    Lost {
        /// Whether the worker had accepted it.
        accepted: bool,
        /// Whether only a worker can go on, because one has read from it.
        touched: bool,
        /// Whether the publisher was told to start.
        started: bool,
    },
    /// By link: the connection to a worker that had accepted the stream ended without a word. It may be alive, and then it keeps the
    /// upstream sessions for a while.
    Broken {
        /// Whether the publisher was told to start.
        started: bool,
    },
    /// The connection to the worker ended, and the worker may have the socket still.
    NotReleased,
    /// The publisher has said goodbye, its stream has ended, and its connection is ours: in the state that the worker has left behind.
    Parted,
    /// The publisher's stay is over.
    Done(Close),
    /// The publisher is gone and the worker knows.
    PublisherGone,
}

impl Outcome {
    /// Nothing came of it, and nothing was done.
    pub(crate) fn untouched() -> Self {
        Self::Lost { accepted: false, touched: false, started: false }
    }
}
