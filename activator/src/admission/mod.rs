//! Room 3. In: who wants to publish what, and from where. Out: a [`Verdict`]: the destinations and identities of the
//! stream, or one of the kinds of "no" (DESIGN 4.2). Next: `lobby`, which wakes workers; so everything that a stranger
//! can be refused for is decided here, before.
//!
//! Without `PUBLISH_KEYS` an address has a rate and a share: one that brings more than the rate waits for its turn, which costs nobody a
//! worker, and is told to come again only when that would take longer than a hold. Note: with a start and a close, which makes OBS come again,
//! 1360 of 2000 encoders behind one address looked live for a moment and were back within seconds.
//!
//! What surprised us: locking an address out after wrong keys locks out everybody behind the same load balancer, and
//! lets a neighbour do that on purpose. So who guesses waits longer for each "no", and who has a key never does.

mod rate;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use liveedgecast_common::key::{AppName, Identity, Secret, StreamKey};
use liveedgecast_common::url::PushUrl;

use crate::config::{Reloaded, Settings, Share};
pub use rate::Rate;

/// Wrong keys of one address that are answered at once …
const MISS_BURST: u32 = 20;
/// … and one more after each of these. An encoder with a wrong key tries every few seconds.
const MISS_EVERY: Duration = Duration::from_secs(3);
/// How long the others wait for their "no". With the bound on strangers' connections that makes guessing slow.
const MISS_PENALTY: Duration = Duration::from_secs(4);
/// How long a publisher waits before it is told to come again, if its address brings too many: it comes again within seconds.
const LATER_PAUSE: Duration = Duration::from_secs(10);

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// App or key can not be a name.
    Name,
    /// The key is not among `PUBLISH_KEYS`.
    Key,
    /// A push URL with these names in it is not one.
    Destination,
    /// Too many publishers of one address in a short time.
    Rate,
    /// Its address has as many streams as one may have.
    Share,
}

impl Reason {
    /// Every reason, for metrics that exist before the first event.
    pub const ALL: [Self; 5] = [Self::Name, Self::Key, Self::Destination, Self::Rate, Self::Share];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Key => "key",
            Self::Destination => "destination",
            Self::Rate => "rate",
            Self::Share => "share",
        }
    }

    /// Whether the same publisher may be admitted later.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Rate | Self::Share)
    }

    /// What the operator can do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Name => "let the encoder use a plain app and stream key, without slashes or blanks at their ends",
            Self::Key => "correct the stream key in the encoder, or add it to PUBLISH_KEYS",
            Self::Destination => "a push URL with this app and key in it is none: look at both",
            Self::Rate => "raise PUBLISH_BURST or PUBLISH_RATE, or list keys in PUBLISH_KEYS, which are not counted",
            Self::Share => "raise MAX_STREAMS_PER_ADDRESS, or list keys in PUBLISH_KEYS, which are not counted",
        }
    }

    /// What the publisher is told; its operator reads it in OBS.
    pub fn description(self) -> &'static str {
        match self {
            Self::Name => "this app or stream key cannot be used",
            Self::Key => "this stream key may not publish here",
            Self::Destination => "this stream key does not fit the upstream's address",
            Self::Rate => "too many publishers from this address, try again later",
            Self::Share => "too many streams from this address, try again later",
        }
    }
}

/// A stream that may be published.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The app.
    pub app: AppName,
    /// The key.
    pub key: StreamKey,
    /// The stream's own identity, then those of upstreams that take no `{key}`.
    pub identities: Vec<Identity>,
    /// Where it goes.
    pub destinations: Vec<PushUrl>,
}

/// What becomes of a publisher.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is held until a worker takes it.
    Admit {
        /// The stream.
        admitted: Box<Admitted>,
        /// How long it waits before it enters the lobby, because its address brings many.
        after: Duration,
    },
    /// It is told so, after a pause if it guesses or is one of too many, and closed.
    Refuse {
        /// Why.
        why: Reason,
        /// How long it waits for the answer.
        after: Duration,
    },
}

/// Decides. One per process, asked by every publisher's task.
pub struct Admission {
    secret: Secret,
    /// Streams of one address at most.
    share: Share,
    /// Longest wait for one's turn: a publisher is held no longer.
    patience: Duration,
    // A lock, because publishers' tasks ask from wherever they run; held for one decision, never across an await.
    state: Mutex<State>,
}

struct State {
    reloaded: Reloaded,
    publishes: Rate,
    misses: Rate,
}

impl Admission {
    /// By these settings, and by the files they name whenever those change.
    pub fn new(settings: &Settings) -> Self {
        let state = State {
            reloaded: Reloaded::new(settings),
            publishes: Rate::new(settings.publish.burst, settings.publish.every),
            misses: Rate::new(MISS_BURST, MISS_EVERY),
        };
        let (share, patience) = (settings.share, settings.hold);
        Self { secret: settings.secret.clone(), share, patience, state: Mutex::new(state) }
    }

    /// Whether anyone may publish, now.
    pub fn is_open(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).reloaded.keys().is_none()
    }

    /// Judges one `publish`. `admitted`: publishers of its address that were admitted and are still connected.
    pub fn judge(&self, now: Instant, (client, admitted): (IpAddr, usize), app: &str, key: &StreamKey) -> Verdict {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reloaded.refresh();
        let Ok(app) = AppName::parse(app) else {
            return Verdict::Refuse { why: Reason::Name, after: Duration::ZERO };
        };
        let listed = match state.reloaded.keys() {
            Some(keys) if !keys.allows(app.expose(), key) => {
                let after = if state.misses.take(now, client) { Duration::ZERO } else { MISS_PENALTY };
                return Verdict::Refuse { why: Reason::Key, after };
            }
            keys => keys.is_some(),
        };
        if !listed && !self.share.has_room(client, admitted) {
            return Verdict::Refuse { why: Reason::Share, after: LATER_PAUSE };
        }
        let mut identities = vec![Identity::of_stream(&self.secret, &app, key)];
        let mut destinations: Vec<PushUrl> = Vec::new();
        for template in state.reloaded.push().iter() {
            let Ok(url) = template.resolve(app.expose(), key) else {
                return Verdict::Refuse { why: Reason::Destination, after: Duration::ZERO };
            };
            if !template.takes_key() {
                identities.push(Identity::of_upstream(&self.secret, &url));
            }
            // Two templates can come to the same place for one app; the second session would be refused as a duplicate.
            if !destinations.contains(&url) {
                destinations.push(url);
            }
        }
        identities.dedup();
        // Last, so that only those who may enter take a turn.
        let turn = if listed { Some(Duration::ZERO) } else { state.publishes.reserve(now, client, self.patience) };
        match turn {
            Some(after) => {
                let admitted = Box::new(Admitted { app, key: key.clone(), identities, destinations });
                Verdict::Admit { admitted, after }
            }
            None => Verdict::Refuse { why: Reason::Rate, after: LATER_PAUSE },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Typed;

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn admission(args: &[&str]) -> Admission {
        let typed = Typed::try_parse_from(["x"].iter().chain(args)).unwrap();
        Admission::new(&Settings::meant(&typed, [1; 32]).unwrap())
    }

    fn judge(admission: &Admission, now: Instant, app: &str, key: &str) -> Verdict {
        judge_beside(admission, now, ("10.0.0.1", 0), app, key)
    }

    fn judge_beside(
        admission: &Admission,
        now: Instant,
        (from, others): (&str, usize),
        app: &str,
        key: &str,
    ) -> Verdict {
        admission.judge(now, (from.parse().unwrap(), others), app, &StreamKey::parse(key).unwrap())
    }

    fn admitted(verdict: Verdict) -> Admitted {
        match verdict {
            Verdict::Admit { admitted, after: Duration::ZERO } => *admitted,
            other => panic!("{other:?}"),
        }
    }

    /// How many seconds it waits for its turn.
    fn turn(verdict: Verdict) -> u64 {
        match verdict {
            Verdict::Admit { after, .. } => after.as_secs(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn destinations_are_resolved_for_each_publisher() {
        let open = admission(&["--push-url", "rtmp://a/{app}/{key} rtmps://b/live2/FIXED rtmp://a/live/{key}"]);
        let now = origin();
        let one = admitted(judge(&open, now, "live", "alpha?x=1"));
        let keys: Vec<&str> = one.destinations.iter().map(|url| url.key.expose()).collect();
        assert_eq!(keys, ["alpha?x=1", "FIXED"], "the third is the first, for this app");
        assert_eq!(one.identities.len(), 2);
        let other = admitted(judge(&open, now, "show", "beta"));
        assert_eq!(other.destinations.len(), 3);
        assert_ne!(one.identities[0], other.identities[0]);
        assert_eq!(one.identities[1], other.identities[1], "the fixed upstream is one stream for everybody");
        let again = admitted(judge(&open, now, "live?token=2", "alpha?y=2"));
        assert_eq!(one.identities[0], again.identities[0], "queries are not part of who a stream is");
    }

    #[test]
    fn only_listed_keys_publish_and_who_guesses_waits() {
        let closed = admission(&["--push-url", "rtmp://a/live/{key}", "--publish-keys", "alpha show/beta"]);
        let now = origin();
        admitted(judge(&closed, now, "live", "alpha"));
        admitted(judge(&closed, now, "show", "beta"));
        for miss in 0..MISS_BURST + 5 {
            let expected = if miss < MISS_BURST { Duration::ZERO } else { MISS_PENALTY };
            match judge(&closed, now, "live", "beta") {
                Verdict::Refuse { why: Reason::Key, after } => assert_eq!(after, expected),
                other => panic!("{other:?}"),
            }
        }
        admitted(judge(&closed, now, "live", "alpha"));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let open = admission(&["--push-url", "rtmp://a/live/{key}"]);
        let now = origin();
        for app in ["", "/", "a/../b", "a\nb", "\u{fffd}"] {
            assert!(matches!(judge(&open, now, app, "k"), Verdict::Refuse { why: Reason::Name, .. }), "{app:?}");
        }
    }

    #[test]
    fn publishers_above_the_rate_of_their_address_wait_for_their_turn() {
        let limits = ["--publish-burst", "3", "--publish-rate", "1", "--hold-timeout", "2s"];
        let open = admission(&[&["--push-url", "rtmp://a/live/{key}"][..], &limits].concat());
        let now = origin();
        let turns = [0; 5].map(|_| turn(judge(&open, now, "live", "k")));
        assert_eq!(turns, [0, 0, 0, 1, 2]);
        match judge(&open, now, "live", "k") {
            Verdict::Refuse { why: Reason::Rate, after } => assert_eq!(after, LATER_PAUSE),
            other => panic!("a turn that comes after the hold: {other:?}"),
        }
        assert_eq!(turn(judge(&open, now + Duration::from_secs(1), "live", "k")), 2);
        assert_eq!(turn(judge_beside(&open, now, ("10.0.0.2", 0), "live", "k")), 0);
    }

    #[test]
    fn listed_keys_are_not_charged_to_their_address() {
        let limits = ["--publish-burst", "1", "--publish-rate", "1", "--max-streams-per-address", "1"];
        let keys = ["--push-url", "rtmp://a/live/{key}", "--publish-keys", "alpha"];
        let closed = admission(&[&keys[..], &limits].concat());
        for others in 0..100 {
            admitted(judge_beside(&closed, origin(), ("10.0.0.1", others), "live", "alpha"));
        }
    }

    #[test]
    fn one_address_gets_half_of_an_open_fleet_unless_it_is_our_own() {
        let open = admission(&["--push-url", "rtmp://a/live/{key}", "--capacity", "10", "--max-workers", "2"]);
        let has_room = |open: &Admission, from: &str, others: usize| match judge_beside(
            open,
            origin(),
            (from, others),
            "live",
            "k",
        ) {
            Verdict::Admit { .. } => true,
            Verdict::Refuse { why: Reason::Share, after } => {
                assert_eq!(after, LATER_PAUSE);
                false
            }
            other => panic!("{other:?}"),
        };
        assert!(has_room(&open, "10.0.0.1", 9) && !has_room(&open, "10.0.0.1", 10));
        assert!(has_room(&open, "127.0.0.1", 10) && has_room(&open, "::1", 10));
        let told = admission(&["--push-url", "rtmp://a/live/{key}", "--max-streams-per-address", "3"]);
        assert!(has_room(&told, "127.0.0.1", 2) && !has_room(&told, "127.0.0.1", 3), "as set, for everybody");
    }
}
