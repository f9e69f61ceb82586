//! Room 3. In: who wants to publish what, and from where. Out: a [`Verdict`]: the destinations and identities of the
//! stream, or one of the kinds of "no" (DESIGN 4.2). Next: `lobby`, which wakes workers; so everything that a stranger
//! can be refused for is decided here, before.
//!
//! Without `PUBLISH_KEYS` an address has a rate and a share: a publisher above the rate waits for its turn, which costs nobody a worker,
//! and is told to come again only when that would take longer than half a hold. Note: with a start and a close, which makes OBS come
//! again, 1360 of 2000 encoders behind one address looked live for a moment and were back within seconds.
//!
//! What surprised us: locking an address out after wrong keys locks out everybody behind the same load balancer, and
//! lets a neighbour do that on purpose. So who guesses waits longer for each "no", and who has a key never does.

mod rate;
mod seats;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use liveedgecast_common::key::{AppName, Identity, Secret, StreamKey};
use liveedgecast_common::url::PushUrl;

use crate::config::{Reloaded, Settings, Share};
pub use rate::Rate;
pub use seats::Seat;
use seats::Seats;

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

    /// Advice for the operator.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Name => "let the encoder use a plain app and stream key, without slashes or blanks at their ends",
            Self::Key => "correct the stream key in the encoder, or add it to PUBLISH_KEYS",
            Self::Destination => "this app and key do not make a valid push URL: check RTMP_PUSH_URL and the encoder",
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
#[derive(Debug)]
pub struct Admitted {
    /// The app.
    pub app: AppName,
    /// The key.
    pub key: StreamKey,
    /// The stream's own identity, then those of upstreams that take no `{key}`.
    pub identities: Vec<Identity>,
    /// Where it goes.
    pub destinations: Vec<PushUrl>,
    /// End of its hold; the wait for its turn is part of that.
    pub deadline: Instant,
    /// The seat in its address's share; `None` with a listed key.
    pub seat: Option<Seat>,
}

/// What becomes of a publisher.
#[derive(Debug)]
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
    /// The streams that count.
    seats: Seats,
    /// Longest hold.
    hold: Duration,
    /// Longest wait for one's turn: the other half of a hold is for a worker to come.
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
        Self {
            secret: settings.secret.clone(),
            share: settings.share,
            seats: Seats::new(settings.grace),
            hold: settings.hold,
            patience: settings.hold / 2,
            state: Mutex::new(state),
        }
    }

    /// Whether anyone may publish, now.
    pub fn is_open(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).reloaded.keys().is_none()
    }

    /// Judges one `publish` of a publisher at this address.
    pub fn judge(&self, now: Instant, client: IpAddr, app: &str, key: &StreamKey) -> Verdict {
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
        let stream = Identity::of_stream(&self.secret, &app, key);
        // A stream that counts already is one that returns, perhaps before the end of its dead connection was noticed.
        let others = self.seats.others(now, client, &stream);
        if !listed && others.is_some_and(|others| !self.share.has_room(client, others)) {
            return Verdict::Refuse { why: Reason::Share, after: LATER_PAUSE };
        }
        let mut identities = vec![stream];
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
                let (key, deadline) = (key.clone(), now + self.hold);
                let seat = (!listed).then(|| self.seats.take(client, stream));
                let admitted = Admitted { app, key, identities, destinations, deadline, seat };
                Verdict::Admit { admitted: Box::new(admitted), after }
            }
            None => Verdict::Refuse { why: Reason::Rate, after: LATER_PAUSE },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use liveedgecast_common::testkit::origin;

    use super::*;
    use crate::config::Args;

    fn admission(args: &[&str]) -> Admission {
        let args = Args::try_parse_from(["x"].iter().chain(args)).unwrap();
        Admission::new(&Settings::resolve(&args, [1; 32]).unwrap())
    }

    fn judge(admission: &Admission, now: Instant, app: &str, key: &str) -> Verdict {
        judge_from(admission, now, "10.0.0.1", app, key)
    }

    fn judge_from(admission: &Admission, now: Instant, from: &str, app: &str, key: &str) -> Verdict {
        admission.judge(now, from.parse().unwrap(), app, &StreamKey::parse(key).unwrap())
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
        let limits = ["--publish-burst", "3", "--publish-rate", "1", "--hold-timeout", "4s"];
        let open = admission(&[&["--push-url", "rtmp://a/live/{key}"][..], &limits].concat());
        let now = origin();
        let turns = [0; 5].map(|_| turn(judge(&open, now, "live", "k")));
        assert_eq!(turns, [0, 0, 0, 1, 2]);
        match judge(&open, now, "live", "k") {
            Verdict::Refuse { why: Reason::Rate, after } => assert_eq!(after, LATER_PAUSE),
            other => panic!("a turn that comes after half of the hold: {other:?}"),
        }
        assert_eq!(turn(judge(&open, now + Duration::from_secs(1), "live", "k")), 2);
        assert_eq!(turn(judge_from(&open, now, "10.0.0.2", "live", "k")), 0);
    }

    #[test]
    fn listed_keys_are_not_charged_to_their_address() {
        let limits = ["--publish-burst", "1", "--publish-rate", "1", "--max-streams-per-address", "1"];
        let keys = ["--push-url", "rtmp://a/live/{key}", "--publish-keys", "alpha"];
        let closed = admission(&[&keys[..], &limits].concat());
        let both = [0; 2].map(|_| admitted(judge(&closed, origin(), "live", "alpha")));
        assert!(both.iter().all(|admitted| admitted.seat.is_none()));
    }

    /// Whether this address may publish a stream; if so, what that is.
    fn room(admission: &Admission, now: Instant, from: &str, key: &str) -> Option<Admitted> {
        match judge_from(admission, now, from, "live", key) {
            Verdict::Admit { admitted, .. } => Some(*admitted),
            Verdict::Refuse { why: Reason::Share, after } => {
                assert_eq!(after, LATER_PAUSE);
                None
            }
            other => panic!("{other:?}"),
        }
    }

    /// As many streams as that, of one address.
    fn streams(admission: &Admission, from: &str, count: usize) -> Vec<Admitted> {
        (0..count).map(|n| room(admission, origin(), from, &format!("k{n}")).unwrap()).collect()
    }

    #[test]
    fn one_address_gets_half_of_an_open_fleet_unless_it_is_our_own() {
        let open = admission(&["--push-url", "rtmp://a/live/{key}", "--capacity", "10", "--max-workers", "2"]);
        let _ten = streams(&open, "10.0.0.1", 10);
        assert!(room(&open, origin(), "10.0.0.1", "more").is_none());
        let _eleven = [streams(&open, "127.0.0.1", 11), streams(&open, "::1", 11)];
        let told = admission(&["--push-url", "rtmp://a/live/{key}", "--max-streams-per-address", "3"]);
        let _three = streams(&told, "127.0.0.1", 3);
        assert!(room(&told, origin(), "127.0.0.1", "more").is_none(), "as set, for everybody");
    }

    #[test]
    fn a_stream_that_returns_has_room_while_its_dead_connection_still_counts() {
        let open = admission(&["--push-url", "rtmp://a/live/{key}", "--max-streams-per-address", "3"]);
        let dead = streams(&open, "10.0.0.1", 3);
        let returned = streams(&open, "10.0.0.1", 3);
        assert!(room(&open, origin(), "10.0.0.1", "k2?token=other").is_some());
        assert!(room(&open, origin(), "10.0.0.1", "more").is_none());
        drop(dead);
        assert!(room(&open, origin() + Duration::from_secs(3600), "10.0.0.1", "more").is_none(), "they are published");
        drop(returned);
    }

    #[test]
    fn a_stream_counts_for_the_grace_time_after_its_publisher_was_lost() {
        let grace = Duration::from_secs(10);
        let open = admission(&["--push-url", "rtmp://a/live/{key}", "--max-streams-per-address", "3"]);
        let before = origin();
        drop(streams(&open, "10.0.0.1", 3));
        let after = origin();
        let just_before = before + grace - Duration::from_millis(1);
        assert!(room(&open, just_before, "10.0.0.1", "more").is_none(), "their sessions hold places");
        assert!(room(&open, after + grace, "10.0.0.1", "more").is_some());
    }

    #[test]
    fn a_wait_for_a_turn_is_part_of_the_hold() {
        let limits = ["--publish-burst", "1", "--publish-rate", "1", "--hold-timeout", "4s"];
        let open = admission(&[&["--push-url", "rtmp://a/live/{key}"][..], &limits].concat());
        let now = origin();
        for turn in 0..=2 {
            match judge(&open, now, "live", "k") {
                Verdict::Admit { admitted, after } => {
                    assert_eq!((after.as_secs(), admitted.deadline - now), (turn, Duration::from_secs(4)));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
