//! The messages of a worker's call. In: a [`wire`] message. Out: [`WorkerMessage`] or [`ActivatorMessage`], bounded, or why it cannot be
//! one; and the way back. Next: the worker's `register`, the activator's `control`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use subtle::ConstantTimeEq;

use super::limits::{INSTANCE_KEY_BYTES, MAX_EPOCH, MAX_PIECE, MAX_TEXT};
use super::session::is_stream_id;
use super::totals::TotalRow;
use super::wire::activator_says::Say as ActivatorSay;
use super::wire::worker_says::Say as WorkerSay;
use super::{ExcerptOrder, ExcerptPiece, Session, SessionCounters, wire};
use crate::handoff::preface::{NONCE_BYTES, TOKEN_BYTES};
use crate::key::{MAX_INSTANCE_NAME, is_instance_name};
use crate::setting::MAX_CAPACITY;

/// A message of a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerMessage {
    /// The first message of a call.
    Hello(Hello),
    /// Sent on change, and twice a second while the worker serves anything.
    Load(Load),
    /// A stream, as it is now.
    Session(Session),
    /// The counters of every stream of which they have grown.
    Counters(Vec<SessionCounters>),
    /// Rows of the worker's metrics, see [`totals`](super::totals).
    Totals(Vec<TotalRow>),
    /// An offer was not taken.
    Declined(Declined),
    /// A part of the answer to [`ActivatorMessage::Excerpt`].
    Excerpt(ExcerptPiece),
    /// The worker leaves on purpose: nothing of it is to be waited for.
    Goodbye,
}

/// A message of an activator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivatorMessage {
    /// The first message of a call.
    Welcome(Welcome),
    /// Take this stream: dial back with the token.
    Offer(Offer),
    /// An offer whose token has another length than ours. It can only be declined.
    UnreadableOffer {
        /// Id of the offered stream.
        stream_id: String,
        /// Number of the offer.
        epoch: u64,
    },
    /// The activator's wish that the worker take streams, or not.
    Cordon(Cordon),
    /// An operator's order, to all activators' streams: take no more and give those that there are to other workers (true), or take streams
    /// again.
    Drain(bool),
    /// End this stream.
    Kick {
        /// Id of the stream.
        stream_id: String,
        /// Cause, for the log and the publisher.
        reason: String,
    },
    /// The control listener of another activator: dial in there too, though the name may not lead there yet.
    Meet(SocketAddr),
    /// The stream goes to another worker: end what is left of it under a lower epoch and close its upstreams at once. The publisher's
    /// connection is not touched.
    Fence {
        /// Id of the stream.
        stream_id: String,
        /// Number of the other worker's offer.
        epoch: u64,
    },
    /// Give the messages that are kept of a stream. For a worker that has said that it answers this ([`Hello::excerpts`]).
    Excerpt(ExcerptOrder),
    /// A piece of an excerpt was taken: send another one.
    ExcerptNext {
        /// Number of the question.
        number: u64,
        /// The rest is not wanted.
        drop: bool,
    },
}

/// Why a message of a worker cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The name could not be shown or stored.
    #[error("a worker's name has 1 to {MAX_INSTANCE_NAME} letters, digits, - _ . : or ~")]
    Name,
    /// The capacity is out of range.
    #[error("a worker's capacity is from 1 to {MAX_CAPACITY}")]
    Capacity,
    /// The load counts more streams than there may be.
    #[error("{streams} streams are more than a capacity of {capacity} allows")]
    Streams {
        /// Streams that it counts.
        streams: u32,
        /// Streams that it takes.
        capacity: u32,
    },
    /// A session whose stream or epoch is none.
    #[error("a session has the id of a stream and an epoch up to {MAX_EPOCH}")]
    Session,
    /// A declined offer whose stream is none.
    #[error("a declined offer has the id of a stream")]
    Declined,
    /// A piece of an excerpt that is too long.
    #[error("a piece of an excerpt has {MAX_PIECE} bytes at most")]
    Excerpt,
}

/// A worker's account of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name, unique among the workers of an activator.
    pub name: String,
    /// Streams at most.
    pub capacity: u32,
    /// Readiness to take streams.
    pub availability: Availability,
    /// Streams that it serves now, so that an activator that restarts learns them. Sessions that cannot be used are left out.
    pub sessions: Vec<Session>,
    /// Name of the host's network namespace; equal names make the descriptor handoff possible. Empty: not told.
    pub network: String,
    /// Version of the program.
    pub version: String,
    /// The worker takes lists of destinations ([`crate::handoff::DestinationList`]).
    pub takes_lists: bool,
    /// The key by which an activator knows a worker that dials in again; workers of earlier releases have none.
    pub key: Option<InstanceKey>,
    /// Age of the worker's process when it said this; workers of earlier releases do not tell it.
    pub age: Option<Duration>,
    /// The worker answers [`ActivatorMessage::Excerpt`].
    pub excerpts: bool,
}

/// A number that a worker makes for itself when it starts and tells its activators alone. Another process may take its name once its call has ended, but
/// not its place. Equality takes the same time for every wrong key.
#[derive(Clone, Copy, Eq)]
pub struct InstanceKey(pub [u8; INSTANCE_KEY_BYTES]);

impl PartialEq for InstanceKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceKey(…)")
    }
}

/// How much a worker has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Streams that hold a place.
    pub streams: u32,
    /// Streams at most.
    pub capacity: u32,
    /// Readiness to take streams.
    pub availability: Availability,
}

/// A worker's readiness to take streams, by its own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    /// The worker takes streams up to its capacity.
    #[default]
    Open,
    /// An activator has taken it out of use; it would take streams again.
    Cordoned,
    /// Cordoned, and it serves nothing, and an activator has said that its pod may go. It stays cordoned for some seconds when that is
    /// taken back, because Kubernetes may have acted on it already.
    Leaving,
    /// An operator wants it to give its streams to other workers; it would take streams again.
    Drained,
    /// The worker is about to go.
    Draining,
}

/// An offer that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// Id of the offered stream.
    pub stream_id: String,
    /// Number of the offer.
    pub epoch: u64,
    /// Cause.
    pub reason: DeclineReason,
}

/// Why a worker declines an offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeclineReason {
    /// Any other cause.
    #[default]
    Other,
    /// No place is left.
    Full,
    /// The worker drains, or is cordoned.
    Draining,
    /// The publisher could not be fetched, or not in the way that was offered.
    Unreachable,
}

/// An activator's account of itself when a worker joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Name of the activator.
    pub activator: String,
    /// Abstract Unix socket for the descriptor handoff, without its leading NUL; empty when it is not offered.
    pub handoff_socket: String,
    /// TCP port of the link listener on the host that was dialed; 0 for none.
    pub link_port: u16,
    /// The activator takes [`WorkerMessage::Counters`].
    pub counters: bool,
    /// The activator takes [`WorkerMessage::Totals`].
    pub totals: bool,
}

/// A stream that a worker may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Id of the publisher's stay.
    pub stream_id: String,
    /// Number of the offer; of two claims on one stream the greater wins.
    pub epoch: u64,
    /// Proof that the worker which dials back is the one that was asked.
    pub token: [u8; TOKEN_BYTES],
    /// Handoff by descriptor (the Unix socket) if true, or else by link.
    pub descriptor: bool,
    /// The worker has the stream, or an upstream that it wants: it decides even where it has no place left.
    pub known: bool,
    /// The activator's nonce on the handoff connection, if the activator tells it here.
    pub challenge: Option<[u8; NONCE_BYTES]>,
}

/// An activator's wish that a worker take streams, or not. Forgotten with the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cordon {
    /// The worker may take streams.
    #[default]
    Off,
    /// The worker may take no more.
    On,
    /// The worker may take no more, and is to expect its end.
    Leaving,
}

impl TryFrom<wire::Hello> for Hello {
    type Error = Malformed;

    fn try_from(hello: wire::Hello) -> Result<Self, Malformed> {
        if !is_instance_name(&hello.name) {
            return Err(Malformed::Name);
        }
        check_capacity(hello.capacity)?;
        Ok(Self {
            availability: Availability::told(hello.draining, hello.cordoned, hello.leaving, hello.drained),
            name: hello.name,
            capacity: hello.capacity,
            sessions: hello.sessions.into_iter().filter_map(|session| session.try_into().ok()).collect(),
            network: short(hello.network),
            version: short(hello.version),
            takes_lists: hello.destinations,
            key: hello.key.as_slice().try_into().ok().map(InstanceKey),
            age: (hello.age > 0).then(|| Duration::from_micros(hello.age)),
            excerpts: hello.excerpts,
        })
    }
}

impl Load {
    /// Streams in grace give their places to those that come back for them, so there may be twice the capacity.
    fn parse(load: wire::Load) -> Result<Self, Malformed> {
        let wire::Load { streams, capacity, draining, cordoned, leaving, drained } = load;
        check_capacity(capacity)?;
        if streams > 2 * capacity {
            return Err(Malformed::Streams { streams, capacity });
        }
        Ok(Self { streams, capacity, availability: Availability::told(draining, cordoned, leaving, drained) })
    }
}

impl Availability {
    /// `unavailable` is true for every reason.
    fn told(unavailable: bool, cordoned: bool, leaving: bool, drained: bool) -> Self {
        match (unavailable, cordoned, leaving) {
            (_, true, true) => Self::Leaving,
            (_, true, false) => Self::Cordoned,
            _ if drained => Self::Drained,
            (true, false, _) => Self::Draining,
            (false, false, _) => Self::Open,
        }
    }

    /// True while it is cordoned, leaving or not.
    #[must_use]
    pub fn is_cordoned(self) -> bool {
        matches!(self, Self::Cordoned | Self::Leaving)
    }
}

impl Cordon {
    /// True if the worker may take no more.
    #[must_use]
    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}

/// Checks a capacity; one that is told later has to be as good as the one in Hello.
/// A text that is logged; empty if it is longer than any that a worker says.
fn short(text: String) -> String {
    if text.len() <= MAX_TEXT { text } else { String::new() }
}

fn check_capacity(capacity: u32) -> Result<(), Malformed> {
    if (1..=MAX_CAPACITY).contains(&capacity) { Ok(()) } else { Err(Malformed::Capacity) }
}

impl TryFrom<WorkerSay> for WorkerMessage {
    type Error = Malformed;

    fn try_from(say: WorkerSay) -> Result<Self, Malformed> {
        Ok(match say {
            WorkerSay::Hello(hello) => Self::Hello(hello.try_into()?),
            WorkerSay::Load(load) => Self::Load(Load::parse(load)?),
            WorkerSay::Session(session) => Self::Session(session.try_into()?),
            WorkerSay::Counters(wire::Counters { streams }) => {
                Self::Counters(streams.into_iter().map(SessionCounters::from).collect())
            }
            WorkerSay::Totals(totals) => Self::Totals(totals.into()),
            WorkerSay::Declined(declined) if !is_stream_id(&declined.stream_id) => return Err(Malformed::Declined),
            WorkerSay::Declined(declined) => {
                let reason = declined.reason().into();
                Self::Declined(Declined { stream_id: declined.stream_id, epoch: declined.epoch, reason })
            }
            WorkerSay::Excerpt(piece) => Self::Excerpt(ExcerptPiece::parse(piece).ok_or(Malformed::Excerpt)?),
            WorkerSay::Goodbye(wire::Goodbye {}) => Self::Goodbye,
        })
    }
}

impl From<WorkerMessage> for wire::WorkerSays {
    fn from(message: WorkerMessage) -> Self {
        let say = match message {
            WorkerMessage::Hello(hello) => WorkerSay::Hello(hello.into()),
            WorkerMessage::Load(load) => WorkerSay::Load(load.into()),
            WorkerMessage::Session(session) => WorkerSay::Session(session.into()),
            WorkerMessage::Counters(streams) => {
                let streams = streams.into_iter().map(wire::StreamCounters::from).collect();
                WorkerSay::Counters(wire::Counters { streams })
            }
            WorkerMessage::Totals(rows) => WorkerSay::Totals(rows.into()),
            WorkerMessage::Declined(Declined { stream_id, epoch, reason }) => {
                let reason = wire::declined::Reason::from(reason).into();
                WorkerSay::Declined(wire::Declined { stream_id, epoch, reason })
            }
            WorkerMessage::Excerpt(piece) => WorkerSay::Excerpt(piece.into()),
            WorkerMessage::Goodbye => WorkerSay::Goodbye(wire::Goodbye {}),
        };
        Self { say: Some(say) }
    }
}

impl From<Hello> for wire::Hello {
    fn from(hello: Hello) -> Self {
        let Hello { name, capacity, availability, sessions, network, version, takes_lists, key, age, excerpts } = hello;
        Self {
            name,
            capacity,
            draining: availability != Availability::Open,
            sessions: sessions.into_iter().map(wire::Session::from).collect(),
            network,
            version,
            cordoned: availability.is_cordoned(),
            leaving: availability == Availability::Leaving,
            drained: availability == Availability::Drained,
            destinations: takes_lists,
            key: key.map_or(Vec::new(), |key| key.0.to_vec()),
            // An age of less than a microsecond is none that was told.
            age: age.map_or(0, |age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
            excerpts,
        }
    }
}

impl From<Load> for wire::Load {
    fn from(Load { streams, capacity, availability }: Load) -> Self {
        Self {
            streams,
            capacity,
            draining: availability != Availability::Open,
            cordoned: availability.is_cordoned(),
            leaving: availability == Availability::Leaving,
            drained: availability == Availability::Drained,
        }
    }
}

impl From<wire::declined::Reason> for DeclineReason {
    fn from(reason: wire::declined::Reason) -> Self {
        match reason {
            wire::declined::Reason::Other => Self::Other,
            wire::declined::Reason::Full => Self::Full,
            wire::declined::Reason::Draining => Self::Draining,
            wire::declined::Reason::Unreachable => Self::Unreachable,
        }
    }
}

impl From<DeclineReason> for wire::declined::Reason {
    fn from(reason: DeclineReason) -> Self {
        match reason {
            DeclineReason::Other => Self::Other,
            DeclineReason::Full => Self::Full,
            DeclineReason::Draining => Self::Draining,
            DeclineReason::Unreachable => Self::Unreachable,
        }
    }
}

impl ActivatorMessage {
    /// `None` for an address that is none, or an excerpt of no stream.
    #[must_use]
    pub fn parse(say: ActivatorSay) -> Option<Self> {
        Some(match say {
            ActivatorSay::Welcome(wire::Welcome { activator, handoff_socket, link_port, counters, totals }) => {
                // A port that cannot be is as good as none: what is offered by link cannot be fetched.
                let link_port = u16::try_from(link_port).unwrap_or_default();
                Self::Welcome(Welcome { activator, handoff_socket, link_port, counters, totals })
            }
            ActivatorSay::Offer(wire::Offer { stream_id, epoch, token, descriptor, known, challenge }) => {
                let challenge = challenge.as_slice().try_into().ok();
                match token.as_slice().try_into() {
                    Ok(token) => Self::Offer(Offer { stream_id, epoch, token, descriptor, known, challenge }),
                    Err(_) => Self::UnreadableOffer { stream_id, epoch },
                }
            }
            ActivatorSay::Cordon(wire::Cordon { on, leaving }) => Self::Cordon(match (on, leaving) {
                (false, _) => Cordon::Off,
                (true, false) => Cordon::On,
                (true, true) => Cordon::Leaving,
            }),
            ActivatorSay::Drain(wire::Drain { on }) => Self::Drain(on),
            ActivatorSay::Kick(wire::Kick { stream_id, reason }) => Self::Kick { stream_id, reason },
            ActivatorSay::Meet(wire::Meet { address }) => Self::Meet(address.parse().ok()?),
            ActivatorSay::Fence(wire::Fence { stream_id, epoch }) => Self::Fence { stream_id, epoch },
            ActivatorSay::Excerpt(order) => Self::Excerpt(ExcerptOrder::parse(order)?),
            ActivatorSay::ExcerptNext(wire::ExcerptNext { number, drop }) => Self::ExcerptNext { number, drop },
        })
    }
}

impl From<ActivatorMessage> for wire::ActivatorSays {
    fn from(message: ActivatorMessage) -> Self {
        let say = match message {
            ActivatorMessage::Welcome(Welcome { activator, handoff_socket, link_port, counters, totals }) => {
                let link_port = link_port.into();
                ActivatorSay::Welcome(wire::Welcome { activator, handoff_socket, link_port, counters, totals })
            }
            ActivatorMessage::Offer(Offer { stream_id, epoch, token, descriptor, known, challenge }) => {
                let (token, challenge) = (token.to_vec(), challenge.map_or(Vec::new(), Vec::from));
                ActivatorSay::Offer(wire::Offer { stream_id, epoch, token, descriptor, known, challenge })
            }
            ActivatorMessage::UnreadableOffer { stream_id, epoch } => {
                ActivatorSay::Offer(wire::Offer { stream_id, epoch, ..wire::Offer::default() })
            }
            ActivatorMessage::Cordon(cordon) => {
                ActivatorSay::Cordon(wire::Cordon { on: cordon.is_on(), leaving: cordon == Cordon::Leaving })
            }
            ActivatorMessage::Drain(on) => ActivatorSay::Drain(wire::Drain { on }),
            ActivatorMessage::Kick { stream_id, reason } => ActivatorSay::Kick(wire::Kick { stream_id, reason }),
            ActivatorMessage::Meet(address) => ActivatorSay::Meet(wire::Meet { address: address.to_string() }),
            ActivatorMessage::Fence { stream_id, epoch } => ActivatorSay::Fence(wire::Fence { stream_id, epoch }),
            ActivatorMessage::Excerpt(order) => ActivatorSay::Excerpt(order.into()),
            ActivatorMessage::ExcerptNext { number, drop } => {
                ActivatorSay::ExcerptNext(wire::ExcerptNext { number, drop })
            }
        };
        Self { say: Some(say) }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
