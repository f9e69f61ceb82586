//! Tables of arguments and the settings or mistakes that follow from them.

use clap::Parser;
use liveedgecast_common::testkit::origin;

use super::*;

const SECRET: &str = "0123456789abcdef";

fn here() -> Here {
    Here { host: "edge".into(), pid: 7, cores: 4, began: origin() }
}

fn parse(args: &[&str]) -> Args {
    Args::try_parse_from(["liveedgecast-worker"].iter().chain(args)).unwrap()
}

fn resolve(args: &[&str]) -> Result<Settings, String> {
    Settings::resolve(&parse(args), &here()).map_err(|problems| problems.to_string())
}

fn good(args: &[&str]) -> Settings {
    let args: Vec<&str> = ["--control-secret", SECRET].iter().chain(args).copied().collect();
    resolve(&args).unwrap()
}

#[test]
fn variables_have_names_with_the_prefix() {
    for argument in <Args as clap::CommandFactory>::command().get_arguments() {
        let Some(name) = argument.get_env() else { continue };
        let listed = liveedgecast_common::environment::variable(&name.to_string_lossy());
        assert!(listed.is_some(), "common/src/environment.rs does not list {name:?}");
    }
}

#[test]
fn secret_alone_is_enough_and_the_rest_are_the_documented_defaults() {
    let settings = good(&[]);
    assert_eq!(settings.activator, Activator::Address("127.0.0.1:6001".parse().unwrap()));
    assert_eq!(settings.http, "[::]:8081".parse().unwrap());
    assert_eq!((settings.capacity, settings.threads, settings.handoff), (50, 4, Handoff::Auto));
    assert_eq!((settings.name.as_str(), settings.drain), ("edge-7", Duration::from_secs(8)));
    assert_eq!(settings.secret.expose(), SECRET);
    assert!(!settings.exit_when_orphaned);
    assert_eq!(settings.introducer, None);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test writes the file that a setting names")]
fn values() {
    let name = |host: &str, port| Activator::Name { host: host.into(), port };
    assert_eq!(good(&["--activator", "Edge-1.example:6001"]).activator, name("edge-1.example", 6001));
    assert_eq!(good(&["--introducer", "any.svc:6001"]).introducer, Some(name("any.svc", 6001)));
    assert_eq!(good(&["--activator", "localhost:1"]).activator, name("localhost", 1));
    assert_eq!(good(&["--activator", "[::1]:6001"]).activator, Activator::Address("[::1]:6001".parse().unwrap()));
    assert_eq!(good(&["--activator", " "]).activator, Activator::Address("127.0.0.1:6001".parse().unwrap()));
    assert_eq!(good(&["--http-listen", "localhost:0"]).http, "127.0.0.1:0".parse().unwrap());
    assert_eq!(good(&["--handoff", "Link"]).handoff, Handoff::Link);
    assert_eq!(good(&["--name", "worker-1.a:b_c"]).name, "worker-1.a:b_c");
    assert_eq!(good(&["--stream-threads", "2"]).threads, 2);
    assert!(good(&["--exit-when-orphaned"]).exit_when_orphaned);
    // A process that listens on loopback could as well read this one's memory.
    assert_eq!(resolve(&["--control-secret", "short"]).unwrap().secret.expose(), "short");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(resolve(&["--control-secret-file", path]).unwrap().secret.expose(), SECRET);
    let none = Here { cores: 0, ..here() };
    assert_eq!(Settings::resolve(&parse(&["--control-secret", SECRET]), &none).unwrap().threads, 1);
}

/// Arguments, and a part of the sentence about the mistake in them.
const MISTAKES: &[(&[&str], &str)] = &[
    (&[], "CONTROL_SECRET: is required: give it the same as the activator's"),
    (&["--control-secret", SECRET, "--control-secret-file", "/x"], "CONTROL_SECRET: given both directly and as"),
    (&["--control-secret-file", "/does/not/exist"], "CONTROL_SECRET_FILE: can not read /does/not/exist"),
    (&["--control-secret", "short", "--activator", "edge:6001"], "CONTROL_SECRET: is shorter than 16 bytes"),
    (&["--control-secret", "short", "--activator", "10.0.0.1:6001"], "CONTROL_SECRET: is shorter than 16 bytes"),
    (&["--control-secret", "short", "--introducer", "any:6001"], "CONTROL_SECRET: is shorter than 16 bytes"),
    (&["--control-secret", SECRET, "--introducer", "any"], "INTRODUCER: \"any\" is not where an activator is"),
    (&["--control-secret", SECRET, "--activator", "edge"], "ACTIVATOR: \"edge\" is not where an activator is"),
    (&["--control-secret", SECRET, "--activator", "edge:0"], "ACTIVATOR: \"edge:0\" is not where"),
    (&["--control-secret", SECRET, "--activator", "127.0.0.1:0"], "ACTIVATOR: \"127.0.0.1:0\" is not where"),
    (&["--control-secret", SECRET, "--activator", ":6001"], "ACTIVATOR: \":6001\" is not where"),
    (&["--control-secret", SECRET, "--activator", "http://edge:6001"], "ACTIVATOR: \"http://edge:6001\" is not where"),
    (&["--control-secret", SECRET, "--activator", "::1:6001:70000"], "ACTIVATOR: \"::1:6001:70000\" is not where"),
    (&["--control-secret", SECRET, "--http-listen", "8081"], "HTTP_LISTEN: \"8081\" is not an address"),
    (&["--control-secret", SECRET, "--capacity", "0"], "CAPACITY: \"0\" is not a whole number from 1 to 10000"),
    (
        &["--control-secret", SECRET, "--handoff", "x"],
        "HANDOFF: \"x\" is not known: write one of auto, descriptor, link",
    ),
    (&["--control-secret", SECRET, "--drain-timeout", "8"], "DRAIN_TIMEOUT: \"8\" is not a duration"),
    (
        &["--control-secret", SECRET, "--stream-threads", "0"],
        "STREAM_THREADS: \"0\" is not a whole number from 1 to 256",
    ),
    (&["--control-secret", SECRET, "--name", "a b"], "WORKER_NAME: \"a b\" is no name"),
];

#[test]
fn every_mistake_is_told_with_its_fix() {
    for (args, part) in MISTAKES {
        let text = resolve(args).expect_err(part);
        assert!(text.starts_with("1 mistake in the configuration:"), "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn resolving_reports_all_mistakes_at_once_and_shows_no_secret() {
    let args =
        ["--control-secret", "S3CRET", "--activator", "edge:1", "--capacity", "x", "--name", "?", "--handoff", "y"];
    let text = resolve(&args).unwrap_err();
    assert!(text.starts_with("4 mistakes in the configuration:"), "{text}");
    assert!(!text.contains("S3CRET"), "{text}");
    assert!(!format!("{:?}", parse(&args)).contains("S3CRET"));
    assert!(!format!("{:?}", resolve(&["--control-secret", "S3CRET"]).unwrap()).contains("S3CRET"));
}
