//! Files as they are typed.

use jsonwebtoken::Algorithm;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::config::JwtKeys;

fn read(path: &Path) -> Result<String, FileError> {
    match path.to_str() {
        Some("/etc/relay/key-a") => Ok("alpha".to_owned()),
        Some("/run/secrets/youtube") => Ok("SECRET/with?signs".to_owned()),
        _ => Err(FileError::Empty(path.display().to_string())),
    }
}

fn parsed(text: &str) -> ConfigFile {
    parse(text, Path::new("/etc/relay"), Given::default(), read).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

/// The mistakes as `line:column words`.
fn mistakes(text: &str) -> Vec<String> {
    let mistakes = parse(text, Path::new("/etc/relay"), Given::default(), read).expect_err("there are mistakes");
    mistakes.iter().map(|mistake| format!("{} {}", mistake.place(), mistake.words())).collect()
}

/// CPU time of this thread, which other programs of a busy machine do not make longer.
fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time that has been spent")
}

#[test]
fn names_of_a_file_cannot_command_a_terminal() {
    let found = mistakes("{\"a\\e[2J\": 1, routes: {\"b\\e[2J\": {destinations: []}}}");
    assert!(found.len() > 2 && found.iter().all(|found| !found.contains('\x1b')), "{found:?}");
    assert!(found.iter().any(|found| found.contains("a\\u{1b}[2J: is not known here")), "{found:?}");
}

const GOOD: &str = "
publishers:
  - name: studio-a
    app: /live/
    key_file: key-a
    route: church
  - {name: b.2, key: 1e3}
routes:
  church:
    destinations:
      - name: youtube
        url: rtmps://a.example/live2
        backup_url: rtmps://b.example/live2?backup=1
        key_file: /run/secrets/youtube
        required: true
      - {name: archive, url: \"rtmp://10.0.0.5/rec/{publisher}\", enabled: false}
    grace: 60s
    upstream_lag: 1500ms
  default: {destinations: [{name: origin, url: \"rtmp://b.example/live/{key}\"}]}
admission:
  open: true
  publish_rate: {burst: 7, per_second: 2}
";

#[test]
fn file_without_mistakes_says_who_publishes_where() {
    let file = parsed(GOOD);
    let publisher = |name: &str, app: Option<&str>, key: &str, route: &str| ListedPublisher {
        name: name.to_owned(),
        app: app.map(str::to_owned),
        key: KeyDigest::of(key),
        route: route.to_owned(),
    };
    assert_eq!(
        file.publishers,
        [publisher("studio-a", Some("live"), "alpha", "church"), publisher("b.2", None, "1e3", "default")]
    );
    let church = &file.routes["church"];
    assert_eq!((church.grace, church.upstream_lag), (Some(Duration::from_secs(60)), Some(Duration::from_millis(1500))));
    let key = StreamKey::parse("k").unwrap();
    let url = church.destinations[0].url.resolve("live", &key).unwrap();
    assert_eq!((url.app.as_str(), url.key.expose()), ("live2", "SECRET/with?signs"));
    let backup = church.destinations[0].backup.as_ref().unwrap();
    let url = backup.url.resolve("live", &key).unwrap();
    assert_eq!(
        (url.host.as_str(), url.app.as_str(), url.key.expose()),
        ("b.example", "live2?backup=1", "SECRET/with?signs")
    );
    assert_eq!((backup.after, church.destinations[1].backup.is_none()), (Duration::from_secs(10), true));
    assert_eq!(church.destinations[1].url.resolve_for("live", &key, "studio-a").unwrap().key.expose(), "studio-a");
    let flags: Vec<_> = church.destinations.iter().map(|at| (at.name.as_str(), at.required, at.enabled)).collect();
    assert_eq!(flags, [("youtube", true, true), ("archive", false, false)]);
    assert_eq!((file.open, file.publish_burst, file.publish_every), (true, Some(7), Some(Duration::from_millis(500))));
    assert_eq!(file.files, [Path::new("/run/secrets/youtube"), Path::new("/etc/relay/key-a")]);
    assert!(!format!("{file:?}").contains("SECRET") && !format!("{file:?}").contains("alpha"));
}

#[test]
fn mistakes_are_found_all_at_once_each_with_its_place() {
    let text = "
publishers:
  - {name: \"no good\", key: a}
  - {key: b}
  - {name: c, key: d, key_file: e}
  - {name: f, key_file: /missing}
  - {name: g, key: h, rout: i}
  - {name: g, key: j, route: nowhere}
  - {name: k, key_sha256: 12}
routes:
  default:
    grace: 10
    destinations:
      - {name: one, url: http://a/b/c}
      - {name: two, url: \"rtmp://a/b/{key}\", enabled: perhaps}
      - {name: two, url: \"rtmp://a/c/{key}\"}
admission: {open: true, open: false, publish_rate: {burst: 0}}
";
    let found = mistakes(text);
    let wanted = [
        ("3:12 publishers[0].name", "63 letters"),
        ("4:5 publishers[1].name", "is missing"),
        ("5:33 publishers[2].key_file", "is given besides key"),
        ("6:25 publishers[3].key_file", "/missing is empty"),
        ("7:23 publishers[4].rout", "there are name, app, key, key_file, key_sha256, route"),
        ("8:5 publishers[5].name", "another publisher has that name"),
        ("8:30 publishers[5].route", "there is no route `nowhere`"),
        ("9:27 publishers[6].key_sha256", "64 hexadecimal digits"),
        ("12:12 routes.default.grace", "not a duration"),
        ("14:26 routes.default.destinations[0].url", "rtmp://"),
        ("15:55 routes.default.destinations[1].enabled", "true or false"),
        ("16:9 routes.default.destinations[2].name", "another destination"),
        ("17:25 admission.open", "twice"),
        ("17:60 admission.publish_rate.burst", "from 1 to"),
    ];
    for (at, (place, words)) in wanted.iter().enumerate() {
        let found = found.get(at).map_or("nothing", String::as_str);
        assert!(found.starts_with(place) && found.contains(words), "{place} {words}\n{found}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
}

#[test]
fn key_file_that_cannot_be_read_causes_no_mistake_but_its_own() {
    let text = "
publishers: [{name: a, key_file: /missing-1}]
routes:
  default:
    destinations:
      - {name: own, url: \"rtmps://a.example/live2\", key_file: /missing-2}
      - {name: off, url: \"rtmp://a.example/live/{key}\", enabled: false}
  other:
    destinations: [{name: both, url: \"http://a.example/live2\", key_file: /missing-3}]
";
    let found = mistakes(text);
    let wanted = [
        "2:34 publishers[0].key_file: /missing-1",
        "6:63 routes.default.destinations[0].key_file: /missing-2",
        "9:38 routes.other.destinations[0].url: ",
        "9:74 routes.other.destinations[0].key_file: /missing-3",
    ];
    let fits = found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| found.starts_with(wanted));
    assert!(fits, "{found:#?}");
}

#[test]
fn values_of_another_shape_are_mistakes() {
    let table = [
        ("[]", "1:1 must be a table"),
        ("publishers: {a: b}", "publishers: must be a list"),
        ("publishers: [a]", "publishers[0]: must be a table"),
        ("publishers: [{name: [a], key: b}]", "publishers[0].name: must be one value"),
        ("publishers: [{name: a, key: ''}]", "publishers[0].key: is empty"),
        ("publishers: [{name: a, key: ' b'}]", "blank"),
        ("routes: {'a b': {destinations: [{name: a, url: 'rtmp://a/b/c'}]}}", "63 letters"),
        (
            "routes: {a: {destinations: [{name: a, url: 'rtmp://a/b/{key}', backup_url: 'rtmp://A/b/{key}'}]}}",
            "backup_url: is the same place as url",
        ),
        (
            "routes: {a: {destinations: [{name: a, url: 'rtmp://a/b/{key}', backup_url: 'rtmp://b/b/c'}]}}",
            "backup_url: needs {key} as url has it",
        ),
        ("routes: {a: {destinations: [{name: a, url: 'rtmp://a/b/c', backup_url: 'http://b/b/c'}]}}", "backup_url: "),
        ("routes: {a: {destinations: [{name: a, url: 'rtmp://a/b/c', backup_after: 5s}]}}", "write backup_url, too"),
        ("routes: {a: {destinations: []}}", "from 1 to 32 destinations"),
        ("routes: {a: {}}", "from 1 to 32 destinations"),
        ("routes: {a: {destinations: [{name: a, url: 'rtmp://a/', key: b}]}}", "has a stream key but no app"),
        ("routes: {a: {destinations: [{name: a, url: 'rtmp://{publisher}/a/b'}]}}", "path only"),
        ("routes: {a: {destinations: [{name: a, url: 'rtmp://a/b/c', enabled: false}]}}", "no destination is enabled"),
        (
            "routes: {default: {destinations: [{name: a, url: 'rtmp://a/b/{publisher}'}]}}\nadmission: {open: true}",
            "no URL may contain {publisher}",
        ),
        ("admission: {open: true}", "routes.default"),
        ("", "nobody could publish"),
        ("a: b: c", "1:5 this is no YAML"),
        ("a: [", "this is no YAML"),
        ("a: 1\n---\nb: 2\n", "this is no YAML"),
        ("a: &a [*a]", "this is no YAML"),
    ];
    for (text, wanted) in table {
        let found = mistakes(text);
        assert!(found.iter().any(|found| found.contains(wanted)), "{text}: {found:#?}");
    }
}

#[test]
fn default_route_is_that_of_the_push_urls_or_that_of_the_file() {
    let given = Given { default_route: true, ..Given::default() };
    let text = "publishers: [{name: a, key: b}]";
    assert!(parse(text, Path::new(""), given, read).is_ok());
    assert!(mistakes(text).concat().contains("there is no route `default`"));
    let both = parse(GOOD, Path::new("/etc/relay"), given, read).unwrap_err();
    assert!(both.iter().any(|mistake| mistake.words().contains("RTMP_PUSH_URL is this route already")));
}

#[test]
fn trusted_proxies_are_addresses_and_ranges() {
    let text = "publishers: [{name: a, key: b}]\nroutes: {default: {destinations: [{name: a, url: 'rtmp://a/b/{key}'}]}}\ntrusted_proxies: [10.0.0.0/8, '::1']";
    let file = parse(text, Path::new(""), Given::default(), read).unwrap();
    let found: Vec<String> = file.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.0.0.0/8", "::1/128"]);
    let found = mistakes("trusted_proxies: [10.0.0.0/33, [a], proxy.example]").concat();
    for part in
        ["trusted_proxies[0]: \"10.0.0.0/33\"", "trusted_proxies[1]: must be an address", "trusted_proxies[2]: "]
    {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn rules_of_tokens_are_read() {
    let text = "routes: {default: {destinations: [{name: a, url: 'rtmp://a/b/{publisher}'}]}}\nadmission:\n  jwt: {jwks_url: 'https://a.example/jwks?s3cret', \
        issuer: me, audience: you, algorithms: [RS256, EdDSA], name_claim: name, app_claim: for, route_claim: route}";
    let file = parsed(text);
    let jwt = file.jwt.as_deref().unwrap();
    assert!(matches!(&jwt.keys, JwtKeys::Served(url) if url.to_string() == "https://a.example"));
    assert_eq!((jwt.issuer.as_deref(), jwt.audience.as_deref()), (Some("me"), Some("you")));
    assert_eq!(jwt.algorithms, [Algorithm::RS256, Algorithm::EdDSA]);
    let claims = (jwt.name_claim.as_str(), jwt.app_claim.as_str(), jwt.route_claim.as_deref());
    assert_eq!(claims, ("name", "for", Some("route")));
    assert!(!file.is_open() && !format!("{file:?}").contains("s3cret"));

    let short = parsed(
        "routes: {default: {destinations: [{name: a, url: 'rtmp://a/b/{key}'}]}}\nadmission: {open: true, jwt: {secret: 0123456789abcdef0123456789abcdef}}",
    );
    let jwt = short.jwt.as_deref().unwrap();
    assert_eq!(
        (jwt.name_claim.as_str(), jwt.app_claim.as_str(), jwt.algorithms.as_slice()),
        ("sub", "app", &[Algorithm::HS256][..])
    );
    assert!(!short.is_open(), "a token is wanted all the same");
    assert!(!format!("{short:?}").contains("0123456789"));
}

#[test]
fn mistakes_in_rules_of_tokens_are_told() {
    let table = [
        ("{}", "admission.jwt.jwks_url: is missing: write jwks_url"),
        ("{jwks_url: 'https://a/b', secret: x}", "admission.jwt.secret: is given besides jwks_url"),
        ("{jwks_url: 'ftp://a/b'}", "admission.jwt.jwks_url: is no address"),
        ("{secret: S3CRET}", "admission.jwt.secret: is shorter than 32 bytes"),
        ("{key_file: key-a}", "admission.jwt.key_file: has no public key"),
        ("{jwks_url: 'https://a/b', algorithms: [none]}", "admission.jwt.algorithms[0]: must be one of HS256"),
        ("{jwks_url: 'https://a/b', algorithms: [HS256]}", "admission.jwt.algorithms: HS256 is for a shared secret"),
        (
            "{secret: 0123456789abcdef0123456789abcdef, algorithms: [RS256]}",
            "admission.jwt.algorithms: a shared secret is for HS256 alone",
        ),
        ("{jwks_url: 'https://a/b'}", "routes.default: a publisher with a token goes to the route `default`"),
    ];
    for (jwt, wanted) in table {
        let found = mistakes(&format!("admission: {{jwt: {jwt}}}"));
        assert!(found.iter().any(|found| found.contains(wanted)), "{jwt}: {found:#?}");
        assert!(!found.concat().contains("S3CRET"), "{found:#?}");
    }
    let given = Given { jwt: true, ..Given::default() };
    let text = "admission: {jwt: {jwks_url: 'https://a/b', route_claim: r}}";
    let both = parse(text, Path::new(""), given, read).unwrap_err();
    assert!(both.iter().any(|mistake| mistake.words().contains("have rules of tokens already")), "{both:#?}");
}

#[test]
fn mistake_shows_no_key() {
    for text in ["publishers: [{name: a, key: 'S3CRET '}]", "publishers:\n  - {name: a, key: S3CRET", "a: S3CRET: b"] {
        let found = mistakes(text).concat();
        assert!(!found.contains("S3CRET"), "{found}");
    }
}

#[test]
fn schema_for_editors_knows_the_same_names() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../../deploy/config.schema.json")).unwrap();
    let table = [
        ("x: 1", "/properties"),
        ("publishers: [{x: 1}]", "/$defs/publisher/properties"),
        ("routes: {a: {x: 1}}", "/$defs/route/properties"),
        ("routes: {a: {destinations: [{x: 1}]}}", "/$defs/destination/properties"),
        ("events: {x: 1}", "/$defs/events/properties"),
        ("admission: {x: 1}", "/$defs/admission/properties"),
        ("admission: {on_publish: {x: 1}}", "/$defs/on_publish/properties"),
        ("admission: {on_publish_done: {x: 1}}", "/$defs/on_publish_done/properties"),
        ("admission: {jwt: {x: 1}}", "/$defs/jwt/properties"),
        ("admission: {publish_rate: {x: 1}}", "/$defs/admission/properties/publish_rate/properties"),
    ];
    for (text, pointer) in table {
        let found = mistakes(text);
        let known = found.iter().find_map(|found| found.split_once("is not known here: there are ")).unwrap().1;
        let mut known: Vec<&str> = known.split(", ").collect();
        known.sort_unstable();
        let properties = schema.pointer(pointer).unwrap().as_object().unwrap();
        let mut described: Vec<&String> = properties.keys().collect();
        described.sort_unstable();
        assert_eq!(known, described, "{pointer}");
    }
}

#[test]
fn file_of_ten_thousand_publishers_and_routes_is_read_in_a_moment() {
    let mut text = "publishers:\n".to_owned();
    for at in 0..10_000 {
        text += &format!("- {{name: p{at}, key: k{at}, route: r{at}}}\n");
    }
    text += "routes:\n";
    for at in 0..10_000 {
        text += &format!("  r{at}: {{destinations: [{{name: o, url: rtmp://a/b/c}}]}}\n");
    }
    let before = spent();
    assert_eq!(parsed(&text).publishers.len(), 10_000);
    // Each entry compared with each other one takes minutes.
    assert!(spent() - before < Duration::from_secs(30));
}

#[test]
fn aliases_repeat_a_list_for_a_hundred_routes_and_do_not_multiply() {
    let mut text = "publishers: [{name: p, key: k, route: r1}]\nroutes:\n  r0: &all {destinations: [{name: o, url: rtmp://a/b/c}]}\n".to_owned();
    for at in 1..100 {
        text += &format!("  r{at}: *all\n");
    }
    assert_eq!(parsed(&text).routes.len(), 100);

    // Ten times as many nodes with each line.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for at in 1..9 {
        let before = format!("*a{}", at - 1);
        bomb += &format!("a{at}: &a{at} [{}]\n", [before.as_str(); 10].join(","));
    }
    let before = spent();
    let found = mistakes(&bomb);
    assert!(found.len() == 1 && found[0].contains("alias"), "{found:?}");
    // A million nodes take seconds.
    assert!(spent() - before < Duration::from_secs(2), "{:?}", spent() - before);
}
