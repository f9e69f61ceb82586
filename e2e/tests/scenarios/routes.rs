//! Publishers and routes of a configuration file.

use std::fs;

use liveedgecast_e2e::process::Program;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, binary};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{SOON, until};

#[test]
fn each_publisher_goes_to_its_route_and_a_changed_file_counts_for_the_next_one() {
    let (church, origin, archive) = (Sink::start(), Sink::start(), Sink::start());
    let folder = tempfile::tempdir().expect("a folder");
    let (file, key) = (folder.path().join("config.yaml"), folder.path().join("studio-key"));
    fs::write(&key, "studio-s3cret\n").expect("the key");
    let text = format!(
        "publishers:\n  - {{name: studio, key_file: studio-key, route: church}}\n  - {{name: other, app: show, key: other-s3cret}}\n\
         routes:\n  church:\n    destinations:\n      - {{name: youtube, url: '{}', key: youtube-s3cret}}\n      \
         - {{name: archive, url: '{}', enabled: false}}\n  default: {{destinations: [{{name: origin, url: '{}'}}]}}\n",
        church.url("live2"),
        archive.url("rec/{publisher}"),
        origin.url("live/{key}"),
    );
    fs::write(&file, &text).expect("the file");
    let path = file.to_str().expect("a path");
    let activator = ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", path).start();

    let mut stranger = ffmpeg(Media::Both, &activator.url("live/other-s3cret"));
    assert!(!stranger.wait(SOON).success(), "its entry is for another app");
    let studio = ffmpeg(Media::Both, &activator.url("live/studio-s3cret"));
    let other = ffmpeg(Media::Both, &activator.url("show/other-s3cret"));
    assert_eq!(church.receives(50).key, "youtube-s3cret");
    assert_eq!(origin.receives(50).key, "other-s3cret");
    assert_eq!(archive.connections(), 0);
    drop((studio, other));

    fs::write(&file, text.replace("route: church", "route: nowhere")).expect("the file");
    let mut refused = ffmpeg(Media::Both, &activator.url("live/nobody"));
    assert!(!refused.wait(SOON).success());
    until("the mistake in the log", || {
        activator.process.log().contains("config.yaml:2:49: publishers[0].route: there is no route `nowhere`")
    });
    fs::write(&file, text.replace(", enabled: false", "")).expect("the file");
    let _studio = ffmpeg(Media::Both, &activator.url("live/studio-s3cret"));
    assert_eq!(archive.receives(50).key, "studio");
    assert!(!activator.process.log().contains("s3cret"), "the log shows a key");
}

#[test]
fn file_is_checked_without_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let check = |text: &str| {
        fs::write(&file, text).expect("the file");
        let program = Program::new("check", binary("liveedgecast-activator")).clear_env();
        let mut process = program.arg("check").arg("--config").arg(&file).start();
        (process.wait(SOON).code(), process.log())
    };
    let good =
        "publishers: [{name: a, key: b}]\nroutes: {default: {destinations: [{name: o, url: 'rtmp://a/b/{key}'}]}}\n";
    assert_eq!(check(good).0, Some(0));
    let named = |name: bool, before: bool, variable: &str| {
        let mut program = Program::new("check", binary("liveedgecast-activator")).clear_env();
        if before {
            program = program.arg("--config").arg(&file);
        }
        if name {
            program = program.env(variable, file.to_str().expect("a path"));
        }
        // The check of a gateway's own file looks at the ports, too.
        for listener in ["RTMP_LISTEN", "HTTP_LISTEN", "CONTROL_LISTEN", "LINK_LISTEN"] {
            program = program.env(listener, "127.0.0.1:0");
        }
        let mut process = program.arg("check").arg("--offline").start();
        (process.wait(SOON).code(), process.log())
    };
    assert_eq!(named(true, false, "LIVEEDGECAST_CONFIG").0, Some(0), "the file of the variable");
    assert_eq!(named(false, true, "").0, Some(0), "the file of the activator's own flag");
    let (code, log) = named(false, false, "");
    assert!(code == Some(2) && log.contains("RTMP_PUSH_URL"), "{code:?}: {log}");
    let (code, log) = check("publishers: [{name: a, key: b, rout: c}]\n");
    assert_eq!(code, Some(2));
    assert!(log.contains("2 mistakes") && log.contains("config.yaml:1:32: publishers[0].rout"), "{log}");

    let ten = "publishers:
  - {name: 'a b', key: one}
  - {key: two}
  - {name: c, key_file: missing}
  - {name: d, key: four, route: nowhere}
  - {name: e, key_sha256: short}
routes:
  default:
    grace: soon
    destinations:
      - {name: one, url: 'http://a/b/c'}
      - {name: two, url: 'rtmps://a/live', key_file: missing}
      - {name: three, url: 'rtmp://a/b/{key}', enabled: maybe}
admission: {opne: true}
";
    let (code, log) = check(ten);
    assert_eq!(code, Some(2));
    assert!(log.contains("10 mistakes in the configuration"), "{log}");
    let lines: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("config.yaml:")?.1.split(':').next()).collect();
    assert_eq!(lines, ["2", "3", "4", "5", "6", "9", "11", "12", "13", "14"], "{log}");
}
