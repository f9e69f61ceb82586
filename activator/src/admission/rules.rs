//! The rules of admission. In: a `publish`, its address, and the keys and push URLs of the moment. Out: a [`Verdict`]. Pure, but for the
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

use liveedgecast_common::config::PublishKeys;
use liveedgecast_common::key::{AppName, Identity, NameError, Secret, StreamKey};
use liveedgecast_common::url::PushTemplate;

use super::rate::AddressRate;
use super::seats::Seats;
use super::verdict::{Admitted, NamedDestination, RefusalReason, StreamPolicy, Verdict};
use crate::config::{Handoff, ReplayWindow, Settings, Share};

/// Wrong keys of one address that are answered at once, in a burst.
const MISS_BURST: u32 = 20;
/// Time after which one more wrong key of an address is answered at once. An encoder with a wrong key tries every few seconds.
const MISS_EVERY: Duration = Duration::from_secs(3);
/// Wait of any other wrong key for its "no". With the bound on strangers per address that makes guessing slow.
const MISS_PENALTY: Duration = Duration::from_secs(4);
/// Wait before a publisher is told to come again, if too many publishers come from its address: it comes again within seconds.
const LATER_PAUSE: Duration = Duration::from_secs(10);

/// A publisher's `publish`.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// The publisher's address.
    pub client: IpAddr,
    /// The app as it came.
    pub app: String,
    /// The stream key.
    pub key: StreamKey,
}

/// The keys and push URLs of the moment.
#[derive(Clone)]
pub(super) struct Listed {
    /// Templates of push URLs.
    pub(super) push: Arc<[PushTemplate]>,
    /// Keys that may publish; `None` is all.
    pub(super) keys: Option<Arc<PublishKeys>>,
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
            publishes: AddressRate::new(settings.publish.burst, settings.publish.every),
            misses: AddressRate::new(MISS_BURST, MISS_EVERY),
        }
    }

    /// Judges one `publish`.
    pub(super) fn judge(&mut self, now: Instant, request: &AdmissionRequest, listed: &Listed) -> Verdict {
        let &AdmissionRequest { client, ref app, ref key } = request;
        let Ok(app) = AppName::parse(app) else {
            return Verdict::Refuse { why: RefusalReason::Name, after: Duration::ZERO };
        };
        let is_listed = match &listed.keys {
            Some(keys) if !keys.allows(app.expose(), key) => {
                let after = if self.misses.take(now, client) { Duration::ZERO } else { MISS_PENALTY };
                return Verdict::Refuse { why: RefusalReason::Key, after };
            }
            keys => keys.is_some(),
        };
        let stream = Identity::of_stream(&self.secret, &app, key);
        // A stream that counts already is one that returns, perhaps before the end of its dead connection was noticed.
        let others = self.seats.others(now, client, &stream);
        if !is_listed && others.is_some_and(|others| !self.share.has_room(client, others)) {
            return Verdict::Refuse { why: RefusalReason::Share, after: LATER_PAUSE };
        }
        let Ok(destinations) = destinations(&self.secret, &listed.push, &app, key) else {
            return Verdict::Refuse { why: RefusalReason::Destination, after: Duration::ZERO };
        };
        let upstreams = destinations.iter().filter_map(|destination| destination.identity);
        let identities = std::iter::once(stream).chain(upstreams).collect();
        // The turn comes last, so that only publishers that may enter take one.
        let Some(after) = self.turn(now, client, is_listed) else {
            return Verdict::Refuse { why: RefusalReason::Rate, after: LATER_PAUSE };
        };
        let policy = StreamPolicy {
            deadline: now + self.hold,
            hold: self.hold,
            handoff: self.handoff,
            grace: self.grace,
            replay: self.replay,
            upstream_lag: self.upstream_lag,
            gather: self.gather,
        };
        let seat = (!is_listed).then(|| self.seats.take(client, stream));
        let admitted = Admitted { app, key: key.clone(), identities, destinations, policy, seat };
        Verdict::Admit { admitted: Box::new(admitted), after }
    }

    /// The wait for a turn; `None` when it is too long: the other half of a hold is for a worker to come.
    fn turn(&mut self, now: Instant, client: IpAddr, is_listed: bool) -> Option<Duration> {
        if is_listed { Some(Duration::ZERO) } else { self.publishes.reserve(now, client, self.hold / 2) }
    }
}

/// The upstreams of a stream, in the order of the templates.
fn destinations(
    secret: &Secret,
    templates: &[PushTemplate],
    app: &AppName,
    key: &StreamKey,
) -> Result<Vec<NamedDestination>, NameError> {
    let mut destinations: Vec<NamedDestination> = Vec::new();
    for template in templates {
        let url = template.resolve(app.expose(), key)?;
        let identity = (!template.takes_key()).then(|| url.identity(secret));
        // Two templates can come to the same place for one app; the second session would be refused as a duplicate.
        if let Some(same) = destinations.iter_mut().find(|destination| destination.url == url) {
            same.identity = same.identity.or(identity);
            continue;
        }
        let name = match destinations.iter().filter(|destination| destination.url.host == url.host).count() {
            0 => url.host.clone(),
            before => format!("{} ({})", url.host, before + 1),
        };
        destinations.push(NamedDestination { name, url, required: false, identity });
    }
    Ok(destinations)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
