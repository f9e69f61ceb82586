//! Room 3. In: who wants to publish what, and from where. Out: a [`Verdict`]: the destinations and identities of the
//! stream, or one of the kinds of "no" (DESIGN 4.2). Next: `lobby`, which wakes workers; so everything that a stranger
//! can be refused for is decided here, before.
//!
//! What surprised us: locking an address out after wrong keys locks out everybody behind the same load balancer, and
//! lets a neighbour do that on purpose. So who guesses waits longer for each "no", and who has a key never does.

mod rate;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use liveedgecast_common::key::{AppName, Identity, Secret, StreamKey};
use liveedgecast_common::url::PushUrl;

use crate::config::{Reloaded, Settings};
pub use rate::Rate;

/// Publishers that one address may bring at once …
const PUBLISH_BURST: u32 = 600;
/// … and one more after each of these: a venue's encoders fit, a loop that wakes the fleet does not.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// Wrong keys of one address that are answered at once …
const MISS_BURST: u32 = 20;
/// … and one more after each of these. An encoder with a wrong key tries every few seconds.
const MISS_EVERY: Duration = Duration::from_secs(3);
/// How long the others wait for their "no". With the bound on strangers' connections that makes guessing slow.
const MISS_PENALTY: Duration = Duration::from_secs(4);

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
}

impl Reason {
    /// Every reason, for metrics that exist before the first event.
    pub const ALL: [Self; 4] = [Self::Name, Self::Key, Self::Destination, Self::Rate];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Key => "key",
            Self::Destination => "destination",
            Self::Rate => "rate",
        }
    }

    /// What the publisher is told; its operator reads it in OBS.
    pub fn description(self) -> &'static str {
        match self {
            Self::Name => "this app or stream key cannot be used",
            Self::Key => "this stream key may not publish here",
            Self::Destination => "this stream key does not fit the upstream's address",
            Self::Rate => "too many publishers from this address, try again later",
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
    Admit(Box<Admitted>),
    /// For good: it is told so, after a pause if it guesses, and closed.
    Refuse {
        /// Why.
        why: Reason,
        /// How long it waits for the answer.
        after: Duration,
    },
    /// For now: it is closed so that its client tries again.
    Later(Reason),
}

/// Decides. One per process, asked by every publisher's task.
pub struct Admission {
    secret: Secret,
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
            publishes: Rate::new(PUBLISH_BURST, PUBLISH_EVERY),
            misses: Rate::new(MISS_BURST, MISS_EVERY),
        };
        Self { secret: settings.secret.clone(), state: Mutex::new(state) }
    }

    /// Whether anyone may publish, now.
    pub fn is_open(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).reloaded.keys().is_none()
    }

    /// Judges one `publish`.
    pub fn judge(&self, now: Instant, client: IpAddr, app: &str, key: &StreamKey) -> Verdict {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reloaded.refresh();
        let Ok(app) = AppName::parse(app) else {
            return Verdict::Refuse { why: Reason::Name, after: Duration::ZERO };
        };
        if state.reloaded.keys().is_some_and(|keys| !keys.allows(app.expose(), key)) {
            let after = if state.misses.take(now, client) { Duration::ZERO } else { MISS_PENALTY };
            return Verdict::Refuse { why: Reason::Key, after };
        }
        if !state.publishes.take(now, client) {
            return Verdict::Later(Reason::Rate);
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
        Verdict::Admit(Box::new(Admitted { app, key: key.clone(), identities, destinations }))
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
        admission.judge(now, "10.0.0.1".parse().unwrap(), app, &StreamKey::parse(key).unwrap())
    }

    fn admitted(verdict: Verdict) -> Admitted {
        match verdict {
            Verdict::Admit(admitted) => *admitted,
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
    fn names_that_are_none_and_floods() {
        let open = admission(&["--push-url", "rtmp://a/live/{key}"]);
        let now = origin();
        for app in ["", "/", "a/../b", "a\nb", "\u{fffd}"] {
            assert!(matches!(judge(&open, now, app, "k"), Verdict::Refuse { why: Reason::Name, .. }), "{app:?}");
        }
        for _ in 0..PUBLISH_BURST {
            admitted(judge(&open, now, "live", "k"));
        }
        assert!(matches!(judge(&open, now, "live", "k"), Verdict::Later(Reason::Rate)));
        admitted(judge(&open, now + PUBLISH_EVERY, "live", "k"));
    }
}
