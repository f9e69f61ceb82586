//! The keys of a server's JWK Set, as far as they are known. In: publishers' tokens that need keys, the ends of fetches. Out: the keys, and the orders to
//! fetch. Pure. Next: `task`, which fetches.
//!
//! ```text
//!            a token       fetched                    the keys' time is over, or a token has another key
//!  unknown ─────────▶ asked ─────▶ fresh ──────────────────────────────────────────────────────────────▶ asked
//!     ▲                 │ failed, and no keys are left         failed, with keys: they count for an hour
//!     └─────────────────┘
//! ```
//!
//! Keys are fetched when a token needs them, and by no timer: an idle activator wakes for nothing. One fetch serves everybody who waits. The first
//! token after the keys' time waits for a fetch, so a key that the issuer has withdrawn is not believed any longer. Once a fetch has failed, the last good
//! keys count at once, while the next fetch is under way, so that a dead server delays nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::JwtKey;

/// Time for which keys are fresh, if the server says nothing.
pub(super) const FRESH: Duration = Duration::from_secs(600);
/// Shortest time, whatever the server says: each fetch delays a publisher.
pub(super) const LEAST_FRESH: Duration = Duration::from_secs(60);
/// Longest time, whatever the server says: a key that is withdrawn counts no longer than this.
pub(super) const MOST_FRESH: Duration = Duration::from_secs(3600);
/// Time from a good fetch for which its keys count while the server does not answer.
const USABLE: Duration = Duration::from_secs(3600);
/// Pause between the beginnings of two fetches, if the first has failed, or if a token has a key that is not known: strangers can make such
/// tokens as often as they like.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// Time after which a fetch that has not ended counts as lost: more than one takes.
const LOST: Duration = Duration::from_secs(15);

/// The need of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyNeed {
    /// Any keys that are in force.
    Present,
    /// Other keys than the present ones, of which none fits.
    Other,
}

/// The answer to a need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyAnswer {
    /// These.
    Use(Arc<[JwtKey]>),
    /// Wait for the end of a fetch, and look again.
    Wait,
    /// There are none.
    Away,
}

/// The keys of one server.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    fetched: Option<FetchedKeys>,
    /// The beginning of the last fetch.
    began: Option<Instant>,
    is_fetching: bool,
    /// The last fetch has failed.
    has_failed: bool,
}

#[derive(Debug)]
struct FetchedKeys {
    keys: Arc<[JwtKey]>,
    fresh_until: Instant,
    usable_until: Instant,
}

impl Keyring {
    /// The answer to a need; `true`: begin a fetch.
    pub(super) fn ask(&mut self, now: Instant, need: KeyNeed) -> (KeyAnswer, bool) {
        let since = self.began.map(|began| now.saturating_duration_since(began));
        let is_fetching = self.is_fetching && since.is_some_and(|since| since < LOST);
        let may_fetch = !is_fetching && since.is_none_or(|since| since >= PAUSE);
        let is_fresh = self.fetched.as_ref().is_some_and(|fetched| now < fetched.fresh_until);
        let present = self.present(now);
        let (answer, wants) = match (need, present) {
            (KeyNeed::Present, KeyAnswer::Use(keys)) if is_fresh => (KeyAnswer::Use(keys), false),
            (KeyNeed::Present, KeyAnswer::Use(keys)) if self.has_failed => (KeyAnswer::Use(keys), true),
            // The pause is for failures: the first fetch after the keys' time needs none.
            (KeyNeed::Present, KeyAnswer::Use(_)) => {
                return (KeyAnswer::Wait, !is_fetching && self.begin(now));
            }
            (_, present) if is_fetching || may_fetch => {
                debug_assert!(present != KeyAnswer::Wait, "nobody waits for the keys that are there");
                (KeyAnswer::Wait, true)
            }
            (_, present) => (present, false),
        };
        (answer, wants && may_fetch && self.begin(now))
    }

    /// The keys that count now, at the end of a fetch.
    pub(super) fn present(&self, now: Instant) -> KeyAnswer {
        match &self.fetched {
            Some(fetched) if now < fetched.usable_until => KeyAnswer::Use(Arc::clone(&fetched.keys)),
            _ => KeyAnswer::Away,
        }
    }

    /// A fetch has ended; `fresh`: the time that the server gives its keys.
    pub(super) fn fetched(&mut self, now: Instant, keys: Option<Vec<JwtKey>>, fresh: Option<Duration>) {
        self.is_fetching = false;
        self.has_failed = keys.is_none();
        if let Some(keys) = keys {
            let fresh = fresh.unwrap_or(FRESH).clamp(LEAST_FRESH, MOST_FRESH);
            let usable_until = now + USABLE.max(fresh);
            self.fetched = Some(FetchedKeys { keys: keys.into(), fresh_until: now + fresh, usable_until });
        }
    }

    /// Has the last fetch have begun this much earlier.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        self.began = self.began.and_then(|began| began.checked_sub(by));
    }

    fn begin(&mut self, now: Instant) -> bool {
        (self.began, self.is_fetching) = (Some(now), true);
        true
    }
}

/// The time that a header `Cache-Control` gives an answer (RFC 9111, 5.2.2).
pub(super) fn fresh_for(cache_control: &str) -> Option<Duration> {
    let mut directives = cache_control.split(',').map(|directive| directive.trim().to_ascii_lowercase());
    if directives.clone().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Some(Duration::ZERO);
    }
    let age = directives.find_map(|directive| directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    age.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::key::Secret;
    use liveedgecast_common::testkit::origin;

    use super::*;

    fn keys(secret: &str) -> Vec<JwtKey> {
        vec![JwtKey::shared(Secret::new(secret.repeat(32))).unwrap()]
    }

    fn used(secret: &str) -> KeyAnswer {
        KeyAnswer::Use(keys(secret).into())
    }

    #[test]
    fn one_fetch_serves_everybody_who_waits() {
        let (mut ring, now) = (Keyring::default(), origin());
        assert_eq!(ring.ask(now, KeyNeed::Present), (KeyAnswer::Wait, true));
        assert_eq!(ring.ask(now, KeyNeed::Present), (KeyAnswer::Wait, false));
        ring.fetched(now, Some(keys("a")), None);
        assert_eq!(ring.ask(now + FRESH - Duration::from_millis(1), KeyNeed::Present), (used("a"), false));
    }

    #[test]
    fn keys_are_fetched_again_when_their_time_is_over_and_the_publisher_waits() {
        for (said, fresh) in [
            (None, FRESH),
            (Some(Duration::from_secs(90)), Duration::from_secs(90)),
            (Some(Duration::ZERO), LEAST_FRESH),
            (Some(Duration::MAX), MOST_FRESH),
        ] {
            let (mut ring, now) = (Keyring::default(), origin());
            ring.ask(now, KeyNeed::Present);
            ring.fetched(now, Some(keys("a")), said);
            assert_eq!(ring.ask(now + fresh - Duration::from_millis(1), KeyNeed::Present), (used("a"), false));
            if fresh < USABLE {
                assert_eq!(ring.ask(now + fresh, KeyNeed::Present), (KeyAnswer::Wait, true), "{said:?}");
                assert_eq!(ring.ask(now + fresh, KeyNeed::Present), (KeyAnswer::Wait, false), "{said:?}");
            }
        }
    }

    #[test]
    fn unknown_key_causes_one_fetch_in_each_pause() {
        let (mut ring, now) = (Keyring::default(), origin());
        ring.ask(now, KeyNeed::Present);
        ring.fetched(now, Some(keys("a")), None);
        assert_eq!(ring.ask(now + PAUSE / 2, KeyNeed::Other), (used("a"), false));
        let later = now + PAUSE;
        assert_eq!(ring.ask(later, KeyNeed::Other), (KeyAnswer::Wait, true));
        assert_eq!(ring.ask(later, KeyNeed::Other), (KeyAnswer::Wait, false));
        assert_eq!(ring.ask(later, KeyNeed::Present), (used("a"), false), "tokens with a known key do not wait");
        ring.fetched(later, Some(keys("b")), None);
        assert_eq!(ring.ask(later, KeyNeed::Other), (used("b"), false));
    }

    #[test]
    fn last_good_keys_count_for_an_hour_while_the_server_is_away_and_nobody_waits() {
        let (mut ring, now) = (Keyring::default(), origin());
        ring.ask(now, KeyNeed::Present);
        ring.fetched(now, Some(keys("a")), None);
        let stale = now + FRESH;
        assert_eq!(ring.ask(stale, KeyNeed::Present), (KeyAnswer::Wait, true));
        ring.fetched(stale, None, None);
        assert_eq!(ring.present(stale), used("a"));
        assert_eq!(ring.ask(stale + PAUSE / 2, KeyNeed::Present), (used("a"), false));
        assert_eq!(ring.ask(stale + PAUSE, KeyNeed::Present), (used("a"), true), "it is tried again");
        ring.fetched(stale + PAUSE, None, None);
        let gone = now + USABLE;
        assert_eq!(ring.ask(gone, KeyNeed::Present), (KeyAnswer::Wait, true));
        ring.fetched(gone, None, None);
        assert_eq!(ring.present(gone), KeyAnswer::Away);
        assert_eq!(ring.ask(gone + PAUSE / 2, KeyNeed::Present), (KeyAnswer::Away, false));
    }

    #[test]
    fn server_that_was_never_there_is_tried_again_after_a_pause() {
        let (mut ring, now) = (Keyring::default(), origin());
        assert_eq!(ring.ask(now, KeyNeed::Present), (KeyAnswer::Wait, true));
        ring.fetched(now, None, None);
        assert_eq!(ring.ask(now + PAUSE / 2, KeyNeed::Present), (KeyAnswer::Away, false));
        assert_eq!(ring.ask(now + PAUSE, KeyNeed::Present), (KeyAnswer::Wait, true));
    }

    #[test]
    fn fetch_that_never_ends_is_made_again() {
        let (mut ring, now) = (Keyring::default(), origin());
        ring.ask(now, KeyNeed::Present);
        assert_eq!(ring.ask(now + LOST - Duration::from_millis(1), KeyNeed::Present), (KeyAnswer::Wait, false));
        assert_eq!(ring.ask(now + LOST, KeyNeed::Present), (KeyAnswer::Wait, true));
    }

    #[test]
    fn cache_control_gives_a_time() {
        for (header, seconds) in [
            ("public, max-age=300, must-revalidate", Some(300)),
            ("Max-Age=\"60\"", Some(60)),
            ("max-age=300, no-store", Some(0)),
            ("public", None),
            ("max-age=-1", None),
            ("max-age=99999999999999999999999", None),
        ] {
            assert_eq!(fresh_for(header), seconds.map(Duration::from_secs), "{header}");
        }
    }
}
