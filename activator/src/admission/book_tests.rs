//! Entries and routes, with files as they are typed.

use std::time::Duration;

use clap::Parser;
use liveedgecast_common::key::Secret;

use super::*;
use crate::config::{Args, Settings};

const FILE: &str = "
publishers:
  - {name: studio-a, app: live, key: 0123, route: church}
  - {name: anywhere, key: 0123}
  - {name: hashed, key_sha256: 8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8, route: church}
  - {name: signed, key: 'k?sign=1', route: church}
routes:
  church:
    destinations:
      - {name: youtube, url: 'rtmp://a/live2', key: SECRET, required: true}
      - {name: archive, url: 'rtmp://a/rec/{publisher}', enabled: false}
      - {name: copy, url: 'rtmp://a/copy/{publisher}'}
    grace: 60s
  default: {destinations: [{name: origin, url: 'rtmp://b/live/{key}'}]}
";

fn book(text: &str, more: &[&str]) -> Book {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    #[expect(clippy::disallowed_methods, reason = "the test writes the file that a setting names")]
    std::fs::write(&path, text).unwrap();
    let args = ["x", "--config", path.to_str().unwrap()];
    let args = Args::try_parse_from(args.iter().chain(more)).unwrap();
    Book::of(&Reloaded::new(&Settings::resolve(&args, [1; 32]).unwrap()))
}

/// The publisher's name and its destinations as `name url/key`, or that it may not publish.
fn shown(book: &Book, app: &str, key: &str) -> String {
    let (app, key) = (AppName::parse(app).unwrap(), StreamKey::parse(key).unwrap());
    let Some(entry) = book.entry(&app, &key) else { return "no".to_owned() };
    let publisher = entry.publisher.unwrap_or_default().to_owned();
    let names = StreamNames { app, key, publisher, secret: Secret::new("secret") };
    let destinations = book.destinations(&names, &entry).unwrap();
    let destinations = destinations.iter().filter(|destination| destination.enabled).map(|destination| {
        let NamedDestination { name, url, required, .. } = destination;
        format!("{name}{} {}/{}/{}", if *required { "!" } else { "" }, url.host, url.app, url.key.expose())
    });
    let of = entry.publisher.unwrap_or("?");
    format!("{of}{}: {}", if entry.is_listed { "" } else { " by chance" }, destinations.collect::<Vec<_>>().join(", "))
}

#[test]
fn publishers_are_found_by_app_and_key() {
    let book = book(FILE, &[]);
    let church = |name: &str| format!("{name}: youtube! a/live2/SECRET, copy a/copy/{name}");
    assert_eq!(shown(&book, "live", "0123"), church("studio-a"));
    assert_eq!(shown(&book, "live?token=1", "0123?x=1"), church("studio-a"));
    assert_eq!(shown(&book, "show", "0123"), "anywhere: origin b/live/0123");
    assert_eq!(shown(&book, "live", "alpha"), church("hashed"));
    assert_eq!(shown(&book, "live", "k?sign=1"), church("signed"));
    for key in ["k", "k?sign=2", "012", "01234", "123", "studio-a", "ALPHA"] {
        assert_eq!(shown(&book, "live", key), "no", "{key}");
    }
    assert!(!book.is_open());
}

#[test]
fn publisher_without_an_entry_goes_to_the_default_route_where_that_is_open() {
    let open = book(&format!("{FILE}admission: {{open: true}}\n"), &[]);
    assert_eq!(shown(&open, "live", "anything"), "? by chance: origin b/live/anything");
    assert_eq!(shown(&open, "show", "0123"), "anywhere: origin b/live/0123");
    let listed = book(FILE, &["--publish-keys", "beta"]);
    assert_eq!(shown(&listed, "live", "beta"), "?: origin b/live/beta");
    assert_eq!(shown(&listed, "live", "gamma"), "no");
}

#[test]
fn push_urls_are_the_default_route() {
    let text = "publishers: [{name: one, key: alpha}]\n";
    let book = book(text, &["--push-url", "rtmp://c/live/{key} rtmp://c/copy/{key}"]);
    assert_eq!(shown(&book, "live", "alpha"), "one: c c/live/alpha, c (2) c/copy/alpha");
    assert_eq!(shown(&book, "live", "beta"), "no");
}

#[test]
fn rate_of_the_file_counts_before_that_of_the_settings() {
    let usual = PublishRate { burst: 600, every: Duration::from_millis(250) };
    let file = format!("{FILE}admission: {{publish_rate: {{per_second: 2}}}}\n");
    assert_eq!(book(&file, &[]).rate(usual), PublishRate { burst: 600, every: Duration::from_millis(500) });
    assert_eq!(book(FILE, &[]).rate(usual), usual);
}

#[test]
fn changed_file_tells_what_becomes_of_a_stream() {
    let names = |app: &str, key: &str| StreamNames {
        app: AppName::parse(app).unwrap(),
        key: StreamKey::parse(key).unwrap(),
        publisher: String::new(),
        secret: Secret::new("secret"),
    };
    let standing =
        |book: &Book, app: &str, key: &str, origin: RouteOrigin| match book.standing(&names(app, key), &origin) {
            FileStanding::Kept => "kept".to_owned(),
            FileStanding::Routed(all) => all.iter().map(|to| to.name.as_str()).collect::<Vec<_>>().join(", "),
            FileStanding::Removed => "removed".to_owned(),
        };
    let (entry, route) =
        (|key: &str| RouteOrigin::Entry(KeyDigest::of(key)), |name: &str| RouteOrigin::Route(name.to_owned()));
    let changed = book(&FILE.replace("name: hashed, key_sha256: 8ed3f", "name: hashed, key_sha256: 00000"), &[]);
    let table = [
        ("live", "0123", entry("0123"), "youtube, archive, copy"),
        ("show", "0123", entry("0123"), "origin"),
        ("live", "k", entry("k?sign=1"), "youtube, archive, copy"),
        ("live", "alpha", entry("alpha"), "removed"),
        ("live", "anything", route("default"), "origin"),
        ("live", "anything", route("gone"), "kept"),
        ("live", "alpha", RouteOrigin::Fixed, "kept"),
    ];
    for (app, key, origin, shown) in table {
        assert_eq!(standing(&changed, app, key, origin.clone()), shown, "{app} {key} {origin:?}");
    }
    let push = book("publishers: [{name: one, key: alpha}]\n", &["--push-url", "rtmp://c/live/{key}"]);
    assert_eq!(standing(&push, "live", "alpha", entry("alpha")), "kept", "its route is that of the push URLs");
    assert_eq!(standing(&push, "live", "beta", entry("beta")), "removed");
}
