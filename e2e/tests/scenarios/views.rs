//! The commands that draw: the live view on a terminal of its own, and the comparison of policies.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use liveedgecast_common::event;
use liveedgecast_e2e::publish::root;
use liveedgecast_e2e::relay::binary;
use liveedgecast_e2e::wait::{SOON, try_until, until};
use serde_json::Value;

use crate::api::ADMIN;
use crate::checks::answering;
use crate::commands::{Place, Typed, file, url};

/// The live view in a terminal of its own, which `script` of util-linux makes.
struct Viewed {
    script: Child,
    folder: tempfile::TempDir,
}

impl Viewed {
    fn of(place: &Place) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = binary("liveedgecast-activator");
        // The settings of the terminal, before and after.
        let typed = format!("stty -g; {} top; echo \"code $?\"; stty -g", program.display());
        let mut command = Command::new("script");
        command.args(["-q", "-f", "-e", "-c", &typed]).arg(folder.path().join("typescript"));
        command
            .env("LIVEEDGECAST_API", url(place.activator.http()))
            .env("LIVEEDGECAST_ADMIN_TOKEN", ADMIN)
            .env("TERM", "xterm");
        command.env("SHELL", "/bin/sh");
        let script = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("script");
        Self { script, folder }
    }

    fn screen(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("typescript")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn types(&mut self, keys: &[u8]) {
        let input = self.script.stdin.as_mut().expect("a terminal");
        input.write_all(keys).and_then(|()| input.flush()).expect("keys");
    }

    /// Asserts that the view has ended, and the terminal is as it was.
    #[track_caller]
    fn gave_the_terminal_back(mut self) {
        let ended = try_until(SOON, || self.script.try_wait().ok().flatten());
        assert!(ended.is_ok(), "the view does not end: {}", self.screen());
        let screen = self.screen();
        let (before, after) = (screen.find("\x1b[?1049h"), screen.rfind("\x1b[?1049l"));
        assert!(before.is_some() && before < after && screen.contains("\x1b[?25h"), "{screen:?}");
        let is_setting = |line: &&str| line.split(':').count() > 10 && line.split(':').all(|part| !part.is_empty());
        let lines: Vec<&str> = screen.lines().map(str::trim).collect();
        let settings: Vec<&str> = lines.iter().copied().filter(is_setting).collect();
        assert!(settings.len() == 2 && settings[0] == settings[1], "{settings:?}: {screen:?}");
        assert!(lines.iter().any(|line| line.ends_with("code 0")), "{screen:?}");
    }
}

impl Drop for Viewed {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn live_view_shows_what_happens_and_gives_the_terminal_back_on_q() {
    let place = Place::new();
    let mut view = Viewed::of(&place);
    until("the first frame", || view.screen().contains("no streams"));
    let _publisher = place.published("studio");
    place.sink.receives(50);
    until("the stream", || view.screen().contains("studio") && view.screen().contains("1 of 1 live"));
    until("the bitrate of its destination", || view.screen().contains("lag ") && view.screen().contains("b/s"));
    until("the event", || view.screen().contains(event::UPSTREAM_LIVE));
    view.types(b"q");
    view.gave_the_terminal_back();
}

#[test]
fn live_view_gives_the_terminal_back_on_ctrl_c() {
    let place = Place::new();
    let mut view = Viewed::of(&place);
    until("the first frame", || view.screen().contains("no streams"));
    view.types(b"\x1b[B\x03");
    view.types(b"\x03");
    view.gave_the_terminal_back();
}

#[test]
fn one_frame_is_printed_for_scripts_and_the_live_view_needs_a_terminal() {
    let place = Place::new();
    let _publisher = place.published("studio");
    place.sink.receives(50);
    let frame = place.typed("top --once").run().good();
    for word in ["liveedgecast http://", "studio", "  main", "WORKER", "streams 1 of 1 live"] {
        assert!(frame.contains(word), "{word}: {frame}");
    }
    place.typed("top").run().fails(2, &["needs a terminal", "top --once"]);
    place.typed("top --once --json").run().fails(2, &["has no JSON", "streams --json"]);
}

#[test]
fn policies_are_compared_from_a_table_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("chart.svg");
    let history = root().join("deploy/docs/history.csv");
    let json = Typed::new("simulate --json --svg")
        .arg(&picture.display().to_string())
        .arg(&history.display().to_string())
        .run()
        .json();
    let policies = json["policies"].as_array().expect("policies");
    let seconds = |at: usize| policies[at]["worker_seconds"].as_f64().expect("a number");
    assert_eq!(policies.len(), 4, "{json}");
    assert!(seconds(0) < seconds(2) && seconds(2) < seconds(3), "{json}");
    assert!(policies[0]["cold_starts"].as_u64() > policies[2]["cold_starts"].as_u64(), "{json}");
    let svg = std::fs::read_to_string(&picture).expect("the chart");
    let shown = root().join("deploy/docs/images/simulate.svg");
    assert_eq!(
        std::fs::read_to_string(shown).ok(),
        Some(svg),
        "the guide shows another chart: draw it again with --svg"
    );
    let table = Typed::new("simulate").arg(&history.display().to_string()).run().good();
    assert!(table.contains("zero ") && table.contains("WORKER-HOURS"), "{table}");
    let broken = file(folder.path(), "broken.csv", "start,end\n2025-01-01T00:00:00Z,later\n");
    Typed::new("simulate").arg(&broken).run().fails(2, &["line 2", "\"later\" is no time", "2025-01-31T12:00:00Z"]);
    Typed::new("simulate").run().fails(2, &["there is no history", "--prometheus"]);
    let said = Typed::new("simulate --start-time 30s").arg(&history.display().to_string()).run();
    assert!(said.code == Some(2) && said.errors.contains("--start-time: is 10s or more"), "{said:?}");
}

#[test]
fn history_is_read_from_prometheus() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 138\r\nConnection: close\r\n\r\n\
        {\"status\":\"success\",\"data\":{\"result\":[{\"metric\":{\"site\":\"a\"},\"values\":[[0,\"0\"],[3600,\"2\"],[7200,\"0\"]]},{\"metric\":{},\"values\":[[9,\"1\"]]}]}}";
    let prometheus = url(answering(ANSWER));
    let words = "simulate --site-label site --from 1970-01-01T00:00:00Z --to 1970-01-01T06:00:00Z --json --prometheus";
    let json = Typed::new(words).arg(&prometheus).run().json();
    assert_eq!(
        (&json["sites"], &json["streams"], &json["stream_seconds"]),
        (&2.into(), &3.into(), &7200.0.into()),
        "{json}"
    );
    let refused = url(answering(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 32\r\nConnection: close\r\n\r\n{\"status\":\"error\",\"error\":\"bad\"}",
    ));
    Typed::new("simulate --prometheus").arg(&refused).run().fails(1, &["\"bad\"", "--query"]);
    Typed::new("simulate --from 2025 --prometheus")
        .arg(&prometheus)
        .run()
        .fails(2, &["--from", "2025-01-31T12:00:00Z"]);
}

#[test]
fn ten_thousand_sites_are_computed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = "site,start,end\n".to_owned();
    for site in 0..10_000 {
        text += &format!("{site},{},{}\n", site % 1000, 5000 + site % 100);
    }
    let history = file(folder.path(), "sites.csv", &text);
    let json: Value = Typed::new("simulate --json").arg(&history).run().json();
    assert_eq!((&json["sites"], &json["policies"][0]["cold_starts"]), (&10_000.into(), &10_000.into()), "{json}");
}
