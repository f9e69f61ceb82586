//! The answer to a `publish`. Everything that later rooms need to know about an admitted stream is in [`Admitted`], so that none of them
//! reads the process's settings. Next: `publisher`, which carries the answer out.

use std::time::{Duration, Instant};

use liveedgecast_common::handoff::Policy;
use liveedgecast_common::key::{AppName, Identity, StreamKey};

use super::hook::EndNotice;
use super::seats::Seat;
use crate::config::{Handoff, ReplayWindow};
use crate::destinations::StreamDestinations;

/// The reason for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// App or stream key is not a valid name.
    Name,
    /// The key is neither in the configuration file nor among `PUBLISH_KEYS`.
    Key,
    /// A push URL is not valid with these names in it.
    Destination,
    /// Too many publishers come from the address in a short time.
    Rate,
    /// The address has as many streams as one may have.
    Share,
    /// The verdict did not come in time.
    Unanswered,
    /// The server that decides has refused.
    Hook,
    /// The server that decides does not answer.
    HookAway,
    /// The answer of the server that decides cannot be used.
    HookAnswer,
    /// The token is none that an accepted key has signed.
    Token,
    /// There is no token.
    TokenMissing,
    /// The token has expired.
    TokenExpired,
    /// The token is for something else.
    TokenClaim,
    /// The keys of tokens cannot be fetched.
    TokenKeys,
}

impl Verdict {
    /// A refusal in the words of its reason.
    pub(super) fn refuse(why: RefusalReason, after: Duration) -> Self {
        Self::Refuse { why, after, says: None }
    }
}

impl RefusalReason {
    /// Every reason, for metrics that exist before the first event.
    pub const ALL: [Self; 14] = [
        Self::Name,
        Self::Key,
        Self::Destination,
        Self::Rate,
        Self::Share,
        Self::Unanswered,
        Self::Hook,
        Self::HookAway,
        Self::HookAnswer,
        Self::Token,
        Self::TokenMissing,
        Self::TokenExpired,
        Self::TokenClaim,
        Self::TokenKeys,
    ];

    /// The reason as logs and metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Key => "key",
            Self::Destination => "destination",
            Self::Rate => "rate",
            Self::Share => "share",
            Self::Unanswered => "unanswered",
            Self::Hook => "hook",
            Self::HookAway => "hook_away",
            Self::HookAnswer => "hook_answer",
            Self::Token => "token",
            Self::TokenMissing => "token_missing",
            Self::TokenExpired => "token_expired",
            Self::TokenClaim => "token_claim",
            Self::TokenKeys => "token_keys",
        }
    }

    /// Tells whether the same publisher may be admitted later.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Rate | Self::Share | Self::Unanswered | Self::HookAway | Self::TokenKeys)
    }

    /// Advice for the operator.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Name => "let the encoder use a plain app and stream key, without slashes or blanks at their ends",
            Self::Key => {
                "correct the stream key or the application in the encoder, or add them to the configuration file or to PUBLISH_KEYS"
            }
            Self::Destination => "this app and key do not make a valid push URL: check RTMP_PUSH_URL and the encoder",
            Self::Rate => "raise PUBLISH_BURST or PUBLISH_RATE, or list keys in PUBLISH_KEYS, which are not counted",
            Self::Share => "raise MAX_STREAMS_PER_ADDRESS, or list keys in PUBLISH_KEYS, which are not counted",
            Self::Unanswered => {
                "look why admission takes so long: a slow on_publish, a disk that hangs under a *_FILE, or a process without CPU"
            }
            Self::Hook => "ask the server of on_publish, or list the key",
            Self::HookAway => "let the server of on_publish answer in time, or set on_error to accept",
            Self::HookAnswer => {
                "correct what the server of on_publish answers; the line hook.answer_unusable has the mistake"
            }
            Self::Token => "compare the token's header (alg, kid) with the keys and algorithms of jwt",
            Self::TokenMissing => "give the encoder a token, as ?token=TOKEN behind its stream key, or list the key",
            Self::TokenExpired => "give the encoder a new token, and look at the clocks of issuer and activator",
            Self::TokenClaim => {
                "compare the claim that is said with jwt: issuer, audience, app, name, route, and its times"
            }
            Self::TokenKeys => "let the server of jwks_url answer; the line jwks.failed has the mistake",
        }
    }

    /// The text for the publisher; its operator reads it in OBS.
    pub fn description(self) -> &'static str {
        match self {
            Self::Name => "this app or stream key cannot be used",
            Self::Key => "this stream key may not publish here",
            Self::Destination => "this stream key does not fit the upstream's address",
            Self::Rate => "too many publishers from this address, try again later",
            Self::Share => "too many streams from this address, try again later",
            Self::Unanswered => "nobody has decided about this stream key, try again later",
            Self::Hook => "this stream key may not publish here, says the server that decides",
            Self::HookAway => "the server that decides about stream keys does not answer, try again later",
            Self::HookAnswer => "the server that decides about stream keys has given no usable answer",
            Self::Token => "the token is not accepted here",
            Self::TokenMissing => "there is no token",
            Self::TokenExpired => "the token has expired",
            Self::TokenClaim => "the token is for something else",
            Self::TokenKeys => "the keys of tokens cannot be fetched, try again later",
        }
    }
}

/// The settings of one stream: its times, its sizes, and the ways by which a worker may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPolicy {
    /// End of the hold; the wait for a turn is part of it.
    pub deadline: Instant,
    /// Longest hold, also once a worker has lost the stream.
    pub hold: Duration,
    /// The ways by which a worker may get the stream.
    pub handoff: Handoff,
    /// Time that the upstream sessions are kept after the publisher was lost.
    pub grace: Duration,
    /// The part of the stream that an upstream gets again after an absence; the ring is as large.
    pub replay: ReplayWindow,
    /// Longest lag of an upstream.
    pub upstream_lag: Duration,
    /// Time for which arrivals gather before they go by link; by descriptor the worker's setting counts.
    pub gather: Duration,
}

impl StreamPolicy {
    /// The policy as a worker gets it at `now`.
    pub fn on_wire(&self, now: Instant) -> Policy {
        Policy {
            hold_left: self.deadline.saturating_duration_since(now),
            grace: self.grace,
            replay_time: self.replay.time,
            replay_bytes: self.replay.bytes,
            lag_time: self.upstream_lag,
            lag_bytes: self.replay.bytes,
        }
    }
}

/// A stream that may be published.
#[derive(Debug)]
pub struct Admitted {
    /// The app.
    pub app: AppName,
    /// The stream key, byte for byte.
    pub key: StreamKey,
    /// The publisher's name in the configuration file.
    pub publisher: Option<String>,
    /// The stream's own identity, then those of upstreams that take no `{key}`.
    pub identities: Vec<Identity>,
    /// The stream's destinations.
    pub destinations: StreamDestinations,
    /// The stream's times, sizes and ways.
    pub policy: StreamPolicy,
    /// The seat in the address's share; `None` with a listed key.
    pub seat: Option<Seat>,
    /// The notice of the end, to the server that has let the publisher in.
    pub notice: Option<EndNotice>,
    /// Revision of the files that have let the publisher in.
    pub files: u64,
}

/// The decision about a publisher.
#[derive(Debug)]
pub enum Verdict {
    /// The publisher is held until a worker takes its stream.
    Admit {
        /// The stream.
        admitted: Box<Admitted>,
        /// Wait before the publisher enters the lobby, because many publishers come from its address.
        after: Duration,
    },
    /// The publisher is refused and closed.
    Refuse {
        /// The reason.
        why: RefusalReason,
        /// Wait for the answer, if the publisher guesses keys, or too many come from its address.
        after: Duration,
        /// The text for the publisher in place of [`RefusalReason::description`].
        says: Option<Box<str>>,
    },
}
