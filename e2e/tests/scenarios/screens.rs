//! The commands on a terminal, as people see them, and the pictures of them for the guide.

use std::path::PathBuf;

use liveedgecast_e2e::process::RunningProgram;
use liveedgecast_e2e::publish::{Media, ffmpeg, root};
use liveedgecast_e2e::relay::{ActivatorProcess, WorkerProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::terminal::EmulatedTerminal;
use tempfile::TempDir;

use crate::RETURNS;
use crate::api::ADMIN;
use crate::checks::{FAULTS, Faulty};
use crate::commands::{Typed, file, url};

/// Columns of a terminal that a person has made wide.
const WIDE: u16 = 150;

/// Three publishers at a worker with two places, and destinations of three states.
struct Shown {
    activator: ActivatorProcess,
    live: Sink,
    away: Sink,
    _refusing: Sink,
    _folder: TempDir,
}

impl Shown {
    fn new() -> Self {
        let [live, away, refusing] = [0; 3].map(|_| Sink::start());
        away.go_away();
        refusing.refuse("NetStream.Publish.Denied");
        let folder = tempfile::tempdir().expect("a folder");
        let publishers = ["studio", "stage", "van"].map(|name| format!("{{name: {name}, key: {}}}", key(name)));
        let destination = |(name, sink): (&str, &Sink)| format!("{{name: {name}, url: '{}'}}", sink.url("live/{key}"));
        let destinations = [("archive", &live), ("mirror", &away), ("partner", &refusing)].map(destination);
        let text = format!(
            "publishers: [{}]\nroutes: {{default: {{grace: {RETURNS}, destinations: [{}]}}}}\n",
            publishers.join(", "),
            destinations.join(", "),
        );
        let file = file(folder.path(), "config.yaml", &text);
        let settings = ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", &file).with("ADMIN_TOKEN", ADMIN);
        let activator = settings.with_external_workers().start();
        Self { activator, live, away, _refusing: refusing, _folder: folder }
    }

    fn worker(&self) -> WorkerProcess {
        WorkerProcess::with(&self.activator, &[("WORKER_NAME", "worker-7c9d-1"), ("CAPACITY", "2")])
    }

    fn typed(&self, words: &str) -> Typed {
        Typed::new(words).with("LIVEEDGECAST_API", &url(self.activator.http())).with("LIVEEDGECAST_ADMIN_TOKEN", ADMIN)
    }

    fn published(&self, name: &str) -> RunningProgram {
        ffmpeg(Media::Both, &self.activator.url(&format!("live/{}", key(name))))
    }
}

/// Draws a terminal for the guide, if `UPDATE_SCREENSHOTS` is set.
fn picture(terminal: &mut EmulatedTerminal, name: &str, title: &str) {
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        let path: PathBuf = root().join(format!("deploy/docs/images/terminal-{name}.svg"));
        terminal.picture(&path, title);
    }
}

#[test]
fn states_of_streams_and_destinations_are_seen_on_a_terminal() {
    let shown = Shown::new();
    let _worker = shown.worker();
    let mut followed = shown.typed("events --follow").on_a_terminal(WIDE, 40);
    let mut top = shown.typed("top").on_a_terminal(WIDE, 30);
    top.shows(&["no streams", r"worker-7c9d-1 +ready +0 +2"]);
    let _studio = shown.published("studio");
    shown.live.receives(50);
    let mut stage = shown.published("stage");
    shown.live.receives_in_session(2, 50);
    top.shows(&["stage +live +live +"]);
    stage.kill();
    top.shows(&[r"stage +live +grace "]);
    let _van = shown.published("van");
    let seen = top.shows(&[
        r"studio +live +live +\S+ +\S+ \wb/s +h264 320x180@25 +aac +worker-7c9d-1 +1 of 3 live",
        r"archive +127.* live .*lag \d+ ms",
        r"mirror +127.* backoff .* refused",
        r"partner +127.* failed .*NetStream.Publish.Denied",
        r"stage +live +grace ",
        r"van +live +waiting ",
        r"worker-7c9d-1 +ready +2 +2",
        "upstream.live",
    ]);
    // Every row is as wide as the terminal at most, and its last column is there.
    assert!(seen.iter().any(|line| line.ends_with("DESTINATIONS")), "{seen:#?}");
    picture(&mut top, "top", "liveedgecast-activator top");
    top.types("q");
    assert_eq!(top.ends().0, 0);

    let mut streams = shown.typed("streams").on_a_terminal(118, 30);
    let (code, seen) = streams.ends();
    assert!(code == 0 && seen[0].ends_with("DESTINATIONS"), "{seen:#?}");
    picture(&mut streams, "streams", "liveedgecast-activator streams");
    let mut studio = shown.typed("streams studio").on_a_terminal(130, 30);
    assert_eq!(studio.ends().0, 0);
    picture(&mut studio, "stream", "liveedgecast-activator streams studio");

    shown.away.come_back();
    followed.shows(&["stream.live", "upstream.failed", "publisher.lost", "upstream.back .*destination=mirror"]);
    picture(&mut followed, "events", "liveedgecast-activator events --follow");
    followed.types("\x03");
    followed.ends();
}

#[test]
fn ten_faults_are_seen_on_a_terminal() {
    let faulty = Faulty::new();
    let mut terminal = faulty.typed(&FAULTS).on_a_terminal(WIDE, 40);
    let (code, seen) = terminal.ends();
    assert_eq!(code, 2, "{seen:#?}");
    picture(&mut terminal, "check", "liveedgecast-activator check");
}

#[test]
fn a_long_computation_shows_how_far_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = "site,start,end\n".to_owned();
    for site in 0..10_000 {
        text += &format!("{site},{},{}\n", site % 1000, 5000 + site % 100);
    }
    let history = file(folder.path(), "sites.csv", &text);
    let mut terminal = Typed::new("simulate").arg(&history).on_a_terminal(126, 12);
    terminal.passes(&[r"█+░+ [4-7]\d\d\d of 10000 sites"]);
    picture(&mut terminal, "simulating", "liveedgecast-activator simulate sites.csv");
    let (code, seen) = terminal.ends();
    assert!(code == 0 && seen[2].starts_with("POLICY") && !seen.join("").contains('█'), "{seen:#?}");

    let history = root().join("deploy/docs/history.csv").display().to_string();
    let mut terminal = Typed::new("simulate").arg(&history).on_a_terminal(126, 12);
    let (code, seen) = terminal.ends();
    assert!(code == 0 && seen[2].starts_with("POLICY") && seen[3].starts_with("zero"), "{seen:#?}");
    picture(&mut terminal, "simulate", "liveedgecast-activator simulate history.csv");
}
