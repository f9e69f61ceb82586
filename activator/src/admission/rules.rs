//! The rules of admission. In: a `publish`, its address, and the [`Book`] of the moment. Out: a [`Verdict`]. Pure, but for the
//! clock of a seat that is dropped. Next: `task`, which asks.
//!
//! Without `PUBLISH_KEYS` an address has a rate and a share: a publisher above the rate waits for its turn, which costs nobody a worker,
//! and is told to come again only when that would take longer than half a hold. Note: the alternative was to tell every publisher above the
//! rate to come again, by a start and a close. It was tried and rejected: of 2000 encoders behind one address, 1360 showed their users a
//! live stream for a moment, and were back within seconds.
//!
//! Note: locking an address out after wrong keys locks out everybody behind the same load balancer, and lets a neighbour do that on
//! purpose. So a publisher that guesses waits longer for each "no", and one that has a key never does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::key::{AppName, Identity, Secret, StreamKey};

use super::book::{Book, BookEntry};
use super::hook::{ClientFacts, HookAnswer};
use super::rate::AddressRate;
use super::seats::Seats;
use super::token::{Presented, TokenError, TokenGrant};
use super::verdict::{Admitted, RefusalReason, StreamPolicy, Verdict};
use crate::config::{Handoff, Hook, Jwt, OnHookError, PublishRate, ReplayWindow, Settings, Share};
use crate::destinations::{StreamDestinations, StreamNames};

/// Wrong keys of one address that are answered at once, in a burst.
const MISS_BURST: u32 = 20;
/// Time after which one more wrong key of an address is answered at once. An encoder with a wrong key tries every few seconds.
const MISS_EVERY: Duration = Duration::from_secs(3);
/// Wait of any other wrong key for its "no". With the bound on strangers per address that makes guessing slow.
const MISS_PENALTY: Duration = Duration::from_secs(4);
/// Wait before a publisher is told to come again, if too many publishers come from its address: it comes again within seconds.
const LATER_PAUSE: Duration = Duration::from_secs(10);
/// Wait before a publisher is told to come again, if the server that decides does not answer.
const AWAY_PAUSE: Duration = Duration::from_secs(3);

/// A publisher's `publish`.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// The publisher's address.
    pub client: IpAddr,
    /// The app as it came.
    pub app: String,
    /// The stream key.
    pub key: StreamKey,
    /// The words of the publisher about itself, for hooks.
    pub facts: ClientFacts,
}

/// A judgement, as far as the rules come.
#[derive(Debug)]
pub(super) enum Judgement {
    /// A verdict.
    Decided(Verdict),
    /// This server has to be asked first.
    Ask(Arc<Hook>),
    /// This token has to be checked first, by these rules.
    Check(Arc<Jwt>, Box<Presented>),
}

/// The answer that the rules have asked for.
#[derive(Debug)]
pub(super) enum RulesAnswer {
    /// The answer of the server that was asked.
    Hook(HookAnswer),
    /// The result of the check of a token.
    Token(Result<Box<TokenGrant>, TokenError>),
}

/// The rules, with what they remember of addresses.
pub(super) struct Rules {
    secret: Secret,
    /// Bound on the streams of one address.
    share: Share,
    /// The streams that count against it.
    seats: Seats,
    /// Longest hold.
    hold: Duration,
    handoff: Handoff,
    grace: Duration,
    replay: ReplayWindow,
    upstream_lag: Duration,
    gather: Duration,
    publish: PublishRate,
    publishes: AddressRate,
    misses: AddressRate,
}

impl Rules {
    /// The rules of these settings.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            secret: settings.secret.clone(),
            share: settings.share,
            seats: Seats::new(settings.grace),
            hold: settings.hold,
            handoff: settings.handoff,
            grace: settings.grace,
            replay: settings.replay,
            upstream_lag: settings.upstream_lag,
            gather: settings.gather,
            publish: settings.publish,
            publishes: AddressRate::new(settings.publish.burst, settings.publish.every),
            misses: AddressRate::new(MISS_BURST, MISS_EVERY),
        }
    }

    /// Judges one `publish`; `answer` is the one that an earlier judgement has asked for.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        request: &AdmissionRequest,
        book: &Book,
        answer: Option<&RulesAnswer>,
    ) -> Judgement {
        let &AdmissionRequest { client, ref app, ref key, .. } = request;
        let Ok(app) = AppName::parse(app) else {
            return Judgement::Decided(Verdict::refuse(RefusalReason::Name, Duration::ZERO));
        };
        // No token goes on to other servers where tokens count, whatever has let its publisher in.
        let presented = book.jwt().and_then(|_| Presented::find(&app, key));
        let Some(answer) = answer else {
            if let Some(entry) = book.entry(&app, key) {
                let bare = presented.and_then(|presented| presented.without_token());
                let (app, key) = bare.unwrap_or_else(|| (app, key.clone()));
                return Judgement::Decided(self.admit(now, client, app, key, book, entry));
            }
            return match (book.jwt(), presented, &book.hooks().publish) {
                (Some(jwt), Some(presented), _) => Judgement::Check(Arc::clone(jwt), Box::new(presented)),
                (_, _, Some(hook)) => Judgement::Ask(Arc::clone(hook)),
                (Some(_), None, None) => Judgement::Decided(self.refuse_token(now, client, TokenError::Missing)),
                (None, _, None) => Judgement::Decided(Verdict::refuse(RefusalReason::Key, self.miss(now, client))),
            };
        };
        Judgement::Decided(match answer {
            RulesAnswer::Hook(answer) => self.answered(now, client, app, key, book, answer),
            RulesAnswer::Token(Err(error)) => self.refuse_token(now, client, *error),
            RulesAnswer::Token(Ok(grant)) => match (book.granted(&grant.granted), &grant.granted.key) {
                (Some(entry), Some(key)) => self.admit(now, client, grant.app.clone(), key.clone(), book, entry),
                (None, _) => self.refuse_token(now, client, TokenError::Route),
                (_, None) => self.refuse_token(now, client, TokenError::NoName),
            },
        })
    }

    /// The verdict after the answer of a server.
    fn answered(
        &mut self,
        now: Instant,
        client: IpAddr,
        app: AppName,
        key: &StreamKey,
        book: &Book,
        answer: &HookAnswer,
    ) -> Verdict {
        match answer {
            HookAnswer::Accept(granted) => match book.granted(granted) {
                Some(entry) => {
                    let key = granted.key.as_ref().unwrap_or(key).clone();
                    self.admit(now, client, app, key, book, entry)
                }
                None => Verdict::refuse(RefusalReason::HookAnswer, Duration::ZERO),
            },
            HookAnswer::Away(_) => {
                let on_error = book.hooks().publish.as_ref().map(|hook| hook.on_error).unwrap_or_default();
                match on_error {
                    OnHookError::Refuse => Verdict::refuse(RefusalReason::HookAway, AWAY_PAUSE),
                    OnHookError::Accept => self.admit(now, client, app, key.clone(), book, book.nameless(false)),
                }
            }
            HookAnswer::Unusable(_) => Verdict::refuse(RefusalReason::HookAnswer, Duration::ZERO),
            HookAnswer::Refuse(reason) => {
                let says = reason.as_deref().map(Box::from);
                Verdict::Refuse { why: RefusalReason::Hook, after: self.miss(now, client), says }
            }
        }
    }

    /// Refuses the bearer of a token, or one that has none.
    fn refuse_token(&mut self, now: Instant, client: IpAddr, error: TokenError) -> Verdict {
        let after = if error == TokenError::KeysAway { AWAY_PAUSE } else { self.miss(now, client) };
        Verdict::Refuse { why: error.reason(), after, says: Some(error.description().into()) }
    }

    /// The identity of a stream.
    pub(super) fn identity(&self, app: &AppName, key: &StreamKey) -> Identity {
        Identity::of_stream(&self.secret, app, key)
    }

    /// The verdict on a publisher with an entry: rate, share and destinations are left to judge.
    fn admit(
        &mut self,
        now: Instant,
        client: IpAddr,
        app: AppName,
        key: StreamKey,
        book: &Book,
        entry: BookEntry<'_>,
    ) -> Verdict {
        let PublishRate { burst, every } = book.rate(self.publish);
        self.publishes.set(burst, every);
        let is_listed = entry.is_listed;
        let stream = self.identity(&app, &key);
        // A stream that counts already is one that returns, perhaps before the end of its dead connection was noticed.
        let others = self.seats.others(now, client, &stream);
        if !is_listed && others.is_some_and(|others| !self.share.has_room(client, others)) {
            return Verdict::refuse(RefusalReason::Share, LATER_PAUSE);
        }
        let publisher = entry.publisher.unwrap_or_default().to_owned();
        let names = StreamNames { app: app.clone(), key: key.clone(), publisher, secret: self.secret.clone() };
        let destinations = match book.destinations(&names, &entry) {
            Ok(destinations) if !destinations.is_empty() => destinations,
            _ => return Verdict::refuse(RefusalReason::Destination, Duration::ZERO),
        };
        let destinations = StreamDestinations::new(names, entry.origin.clone(), destinations);
        let identities = std::iter::once(stream).chain(destinations.identities()).collect();
        // The turn comes last, so that only publishers that may enter take one.
        let Some(after) = self.turn(now, client, is_listed) else {
            return Verdict::refuse(RefusalReason::Rate, LATER_PAUSE);
        };
        let policy = StreamPolicy {
            deadline: now + self.hold,
            hold: self.hold,
            handoff: self.handoff,
            grace: entry.route.and_then(|route| route.grace).unwrap_or(self.grace),
            replay: self.replay,
            upstream_lag: entry.route.and_then(|route| route.upstream_lag).unwrap_or(self.upstream_lag),
            gather: self.gather,
        };
        let seat = (!is_listed).then(|| self.seats.take(client, stream));
        let publisher = entry.publisher.map(str::to_owned);
        let files = book.revision();
        let admitted = Admitted { app, key, publisher, identities, destinations, policy, seat, notice: None, files };
        Verdict::Admit { admitted: Box::new(admitted), after }
    }

    /// The wait for the "no" to a publisher that may be guessing.
    fn miss(&mut self, now: Instant, client: IpAddr) -> Duration {
        if self.misses.take(now, client) { Duration::ZERO } else { MISS_PENALTY }
    }

    /// The wait for a turn; `None` when it is too long: the other half of a hold is for a worker to come.
    fn turn(&mut self, now: Instant, client: IpAddr, is_listed: bool) -> Option<Duration> {
        if is_listed { Some(Duration::ZERO) } else { self.publishes.reserve(now, client, self.hold / 2) }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
