//! The rules on virtual time, with settings as they are typed.

use std::cell::RefCell;

use clap::Parser;
use liveedgecast_common::testkit::origin;

use super::*;
use crate::config::{Args, Reloaded};

/// Rules with what is listed.
struct Fixture {
    rules: RefCell<Rules>,
    book: Book,
}

fn admission(args: &[&str]) -> Fixture {
    let args = Args::try_parse_from(["x", "--open"].iter().chain(args)).unwrap();
    let settings = Settings::resolve(&args, [1; 32]).unwrap();
    let files = Reloaded::new(&settings);
    Fixture { rules: RefCell::new(Rules::new(&settings)), book: Book::of(&files) }
}

fn judge(admission: &Fixture, now: Instant, app: &str, key: &str) -> Verdict {
    judge_from(admission, now, "10.0.0.1", app, key)
}

fn judge_from(admission: &Fixture, now: Instant, from: &str, app: &str, key: &str) -> Verdict {
    let key = StreamKey::parse(key).unwrap();
    let request =
        AdmissionRequest { client: from.parse().unwrap(), app: app.to_owned(), key, facts: ClientFacts::default() };
    match admission.rules.borrow_mut().judge(now, &request, &admission.book, None) {
        Judgement::Decided(verdict) => verdict,
        other => panic!("somebody is to be asked: {other:?}"),
    }
}

fn admitted(verdict: Verdict) -> Admitted {
    match verdict {
        Verdict::Admit { admitted, after: Duration::ZERO } => *admitted,
        other => panic!("{other:?}"),
    }
}

/// The seconds that an admitted publisher waits for its turn.
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
    let keys: Vec<&str> = one.destinations.all().iter().map(|destination| destination.url.key.expose()).collect();
    assert_eq!(keys, ["alpha?x=1", "FIXED"], "the third template comes to the first one's place, for this app");
    assert_eq!(one.identities.len(), 2);
    let other = admitted(judge(&open, now, "show", "beta"));
    assert_eq!(other.destinations.all().len(), 3);
    assert_ne!(one.identities[0], other.identities[0]);
    assert_eq!(one.identities[1], other.identities[1], "the fixed upstream is one stream for everybody");
    let again = admitted(judge(&open, now, "live?token=2", "alpha?y=2"));
    assert_eq!(one.identities[0], again.identities[0], "queries are not part of a stream's identity");
}

#[test]
fn only_listed_keys_publish_and_a_publisher_that_guesses_waits() {
    let closed = admission(&["--push-url", "rtmp://a/live/{key}", "--publish-keys", "alpha show/beta"]);
    let now = origin();
    admitted(judge(&closed, now, "live", "alpha"));
    admitted(judge(&closed, now, "show", "beta"));
    for miss in 0..MISS_BURST + 5 {
        let expected = if miss < MISS_BURST { Duration::ZERO } else { MISS_PENALTY };
        match judge(&closed, now, "live", "beta") {
            Verdict::Refuse { why: RefusalReason::Key, after, .. } => assert_eq!(after, expected),
            other => panic!("{other:?}"),
        }
    }
    admitted(judge(&closed, now, "live", "alpha"));
}

#[test]
fn invalid_names_are_refused() {
    let open = admission(&["--push-url", "rtmp://a/live/{key}"]);
    let now = origin();
    for app in ["", "/", "a/../b", "a\nb", "\u{fffd}"] {
        assert!(matches!(judge(&open, now, app, "k"), Verdict::Refuse { why: RefusalReason::Name, .. }), "{app:?}");
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
        Verdict::Refuse { why: RefusalReason::Rate, after, .. } => assert_eq!(after, LATER_PAUSE),
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

/// The stream, if this address may publish it.
fn room(admission: &Fixture, now: Instant, from: &str, key: &str) -> Option<Admitted> {
    match judge_from(admission, now, from, "live", key) {
        Verdict::Admit { admitted, .. } => Some(*admitted),
        Verdict::Refuse { why: RefusalReason::Share, after, .. } => {
            assert_eq!(after, LATER_PAUSE);
            None
        }
        other => panic!("{other:?}"),
    }
}

/// `count` streams of one address.
fn streams(admission: &Fixture, from: &str, count: usize) -> Vec<Admitted> {
    (0..count).map(|n| room(admission, origin(), from, &format!("k{n}")).unwrap()).collect()
}

#[test]
fn one_address_gets_half_of_an_open_fleet_unless_it_is_loopback() {
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
                assert_eq!((after.as_secs(), admitted.policy.deadline - now), (turn, Duration::from_secs(4)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn destinations_have_names_that_are_unique_within_a_stream() {
    let urls = "rtmp://a/live/{key} rtmps://b/live2/FIXED rtmp://a/backup/{key}";
    let one = admitted(judge(&admission(&["--push-url", urls]), origin(), "live", "alpha"));
    let names: Vec<&str> = one.destinations.all().iter().map(|destination| destination.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "a (2)"]);
    assert!(one.destinations.all().iter().all(|destination| !destination.required));
}

#[test]
fn a_place_that_a_fixed_url_leads_to_has_an_identity_in_either_order() {
    for urls in ["rtmp://a/live/{key} rtmp://a/live/alpha", "rtmp://a/live/alpha rtmp://a/live/{key}"] {
        let one = admitted(judge(&admission(&["--push-url", urls]), origin(), "live", "alpha"));
        assert_eq!((one.destinations.all().len(), one.identities.len()), (1, 2), "{urls}");
        assert_eq!(one.destinations.all()[0].identity, Some(one.identities[1]), "{urls}");
    }
}

/// The verdict on a publisher without an entry after an answer of the server that decides.
fn answered(admission: &Fixture, key: &str, answer: &HookAnswer) -> Verdict {
    let key = StreamKey::parse(key).unwrap();
    let client = "10.0.0.1".parse().unwrap();
    let request = AdmissionRequest { client, app: "live".to_owned(), key, facts: ClientFacts::default() };
    let mut rules = admission.rules.borrow_mut();
    let asks = rules.judge(origin(), &request, &admission.book, None);
    assert!(matches!(asks, Judgement::Ask(_)), "{asks:?}");
    match rules.judge(origin(), &request, &admission.book, Some(&RulesAnswer::Hook(answer.clone()))) {
        Judgement::Decided(verdict) => verdict,
        other => panic!("it was asked: {other:?}"),
    }
}

const HOOK: [&str; 4] = ["--push-url", "rtmp://a/live/{key}", "--on-publish-url", "http://h/x"];

#[test]
fn server_decides_about_publishers_without_an_entry_and_about_no_others() {
    let asking = admission(
        &[&HOOK[..], &["--publish-keys", "alpha", "--publish-burst", "1", "--max-streams-per-address", "1"]].concat(),
    );
    assert!(admitted(judge(&asking, origin(), "live", "alpha")).seat.is_none(), "nobody is asked about a listed key");
    let accept = HookAnswer::Accept(Box::default());
    for _ in 0..3 {
        let stream = admitted(answered(&asking, "beta", &accept));
        assert!(stream.seat.is_none(), "a publisher that the server lets in has no rate and no share");
    }
    for miss in 0..MISS_BURST + 1 {
        let refused = HookAnswer::Refuse(Some("unpaid".to_owned()));
        let Verdict::Refuse { why, after, says } = answered(&asking, "beta", &refused) else { panic!() };
        let expected = if miss < MISS_BURST { Duration::ZERO } else { MISS_PENALTY };
        assert_eq!((why, after, says.as_deref()), (RefusalReason::Hook, expected, Some("unpaid")));
    }
    let unusable = answered(&asking, "beta", &HookAnswer::Unusable("x".to_owned()));
    assert!(matches!(unusable, Verdict::Refuse { why: RefusalReason::HookAnswer, .. }));
}

#[test]
fn answer_may_rename_and_give_destinations() {
    let asking = admission(&HOOK);
    let granted = |granted: crate::admission::Granted| HookAnswer::Accept(Box::new(granted));
    let renamed = granted(crate::admission::Granted { key: StreamKey::parse("other").ok(), ..Default::default() });
    let stream = admitted(answered(&asking, "beta", &renamed));
    assert_eq!((stream.key.expose(), stream.destinations.all()[0].url.key.expose()), ("other", "other"));
    let elsewhere = crate::admission::read_answer(crate::config::HookFormat::Form, 302, Some("rtmp://c/app"), b"");
    let stream = admitted(answered(&asking, "beta", &elsewhere));
    assert_eq!((stream.destinations.all()[0].url.host.as_str(), stream.destinations.all().len()), ("c", 1));
    assert_eq!(stream.destinations.all()[0].url.key.expose(), "beta");
    let named = granted(crate::admission::Granted { publisher: Some("studio".to_owned()), ..Default::default() });
    assert_eq!(admitted(answered(&asking, "beta", &named)).publisher.as_deref(), Some("studio"));
    let nowhere = granted(crate::admission::Granted { route: Some("nowhere".to_owned()), ..Default::default() });
    let verdict = answered(&asking, "beta", &nowhere);
    assert!(matches!(verdict, Verdict::Refuse { why: RefusalReason::HookAnswer, .. }), "{verdict:?}");
}

#[test]
fn server_that_is_away_refuses_for_now_or_accepts_as_an_open_activator_would() {
    let away = HookAnswer::Away("late".to_owned());
    match answered(&admission(&HOOK), "beta", &away) {
        Verdict::Refuse { why: RefusalReason::HookAway, after, .. } => assert_eq!(after, AWAY_PAUSE),
        other => panic!("{other:?}"),
    }
    let open = admission(&[&HOOK[..], &["--on-publish-on-error", "accept", "--max-streams-per-address", "1"]].concat());
    let _first = admitted(answered(&open, "beta", &away));
    assert!(matches!(answered(&open, "gamma", &away), Verdict::Refuse { why: RefusalReason::Share, .. }));
    let refused = answered(&open, "gamma", &HookAnswer::Refuse(None));
    assert!(matches!(refused, Verdict::Refuse { why: RefusalReason::Hook, says: None, .. }));
}

const TOKENS: [&str; 4] = ["--push-url", "rtmp://a/{app}/{key}", "--jwt-secret", "0123456789abcdef0123456789abcdef"];

/// The first judgement on a publisher.
fn first(admission: &Fixture, app: &str, key: &str) -> Judgement {
    let (client, key) = ("10.0.0.1".parse().unwrap(), StreamKey::parse(key).unwrap());
    let request = AdmissionRequest { client, app: app.to_owned(), key, facts: ClientFacts::default() };
    admission.rules.borrow_mut().judge(origin(), &request, &admission.book, None)
}

/// The verdict on a publisher whose token was checked with this result.
fn checked(admission: &Fixture, key: &str, result: Result<TokenGrant, TokenError>) -> Verdict {
    let (client, key) = ("10.0.0.1".parse().unwrap(), StreamKey::parse(key).unwrap());
    let request = AdmissionRequest { client, app: "live".to_owned(), key, facts: ClientFacts::default() };
    let answer = RulesAnswer::Token(result.map(Box::new));
    match admission.rules.borrow_mut().judge(origin(), &request, &admission.book, Some(&answer)) {
        Judgement::Decided(verdict) => verdict,
        other => panic!("it was checked: {other:?}"),
    }
}

fn grant(app: &str, name: &str, route: Option<&str>) -> Result<TokenGrant, TokenError> {
    let granted = crate::admission::Granted {
        publisher: Some(name.to_owned()),
        key: StreamKey::parse(name).ok(),
        route: route.map(str::to_owned),
        destinations: Vec::new(),
    };
    Ok(TokenGrant { app: AppName::parse(app).unwrap(), granted })
}

#[test]
fn bearer_of_a_token_is_a_listed_publisher_with_the_name_of_its_token() {
    let limits = ["--publish-burst", "1", "--max-streams-per-address", "1"];
    let tokens = admission(&[&TOKENS[..], &limits].concat());
    let mut identities = Vec::new();
    for key in ["cam?token=a.b.c", "cam?token=a.b.renewed", "?jwt=a.b.c"] {
        assert!(matches!(first(&tokens, "live", key), Judgement::Check(..)), "{key}");
        let stream = admitted(checked(&tokens, key, grant("live", "cam", None)));
        assert_eq!((stream.publisher.as_deref(), stream.key.expose()), (Some("cam"), "cam"));
        assert_eq!(stream.destinations.all()[0].url.key.expose(), "cam");
        assert!(stream.seat.is_none());
        identities.push(stream.identities[0]);
    }
    identities.dedup();
    assert_eq!(identities.len(), 1, "a renewed token is the same stream");
    let nowhere = checked(&tokens, "cam?token=a.b.c", grant("live", "cam", Some("nowhere")));
    assert!(matches!(nowhere, Verdict::Refuse { why: RefusalReason::TokenClaim, .. }), "{nowhere:?}");
}

#[test]
fn token_that_is_refused_is_told_in_words_and_guessing_costs_time() {
    let tokens = admission(&TOKENS);
    for miss in 0..MISS_BURST + 1 {
        let expired = checked(&tokens, "cam?token=a.b.c", Err(TokenError::Expired));
        let Verdict::Refuse { why, after, says } = expired else { panic!("{expired:?}") };
        let wait = if miss < MISS_BURST { Duration::ZERO } else { MISS_PENALTY };
        assert_eq!((why, after, says.as_deref()), (RefusalReason::TokenExpired, wait, Some("the token has expired")));
    }
    match checked(&tokens, "cam?token=a.b.c", Err(TokenError::KeysAway)) {
        Verdict::Refuse { why, after, .. } => assert_eq!((why, after), (RefusalReason::TokenKeys, AWAY_PAUSE)),
        other => panic!("{other:?}"),
    }
    assert!(RefusalReason::TokenKeys.is_temporary());
}

#[test]
fn publisher_without_a_token_is_refused_or_asked_about() {
    let missing = first(&admission(&TOKENS), "live", "cam");
    let Judgement::Decided(Verdict::Refuse { why, .. }) = missing else { panic!("{missing:?}") };
    assert_eq!(why, RefusalReason::TokenMissing);
    let both = admission(&[&TOKENS[..], &["--on-publish-url", "http://h/x"]].concat());
    assert!(matches!(first(&both, "live", "cam"), Judgement::Ask(_)));
    assert!(matches!(first(&both, "live", "cam?token=a.b.c"), Judgement::Check(..)), "no token goes to the hook");
}

#[test]
fn listed_key_needs_no_token_and_passes_none_on() {
    let both = admission(&[&TOKENS[..], &["--publish-keys", "alpha"]].concat());
    let Judgement::Decided(verdict) = first(&both, "live?jwt=s3cret", "alpha?token=s3cret&x=1") else { panic!() };
    let stream = admitted(verdict);
    assert_eq!((stream.app.expose(), stream.key.expose()), ("live", "alpha?x=1"));
    let url = &stream.destinations.all()[0].url;
    assert_eq!((url.app.as_str(), url.key.expose()), ("live", "alpha?x=1"));
    let without = admission(&["--push-url", "rtmp://a/{app}/{key}", "--publish-keys", "alpha"]);
    let Judgement::Decided(verdict) = first(&without, "live", "alpha?token=t") else { panic!() };
    assert_eq!(
        admitted(verdict).key.expose(),
        "alpha?token=t",
        "without rules of tokens a query is the publisher's own"
    );
}
