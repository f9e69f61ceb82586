//! The commands that people type, against a gateway that runs: what they print, what they change, and what they say when they cannot.
#![expect(clippy::disallowed_methods, reason = "shell: a thread for a fake gateway")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use liveedgecast_common::event;
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::process::Program;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, KEY_MARK, WorkerProcess, binary, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::terminal::EmulatedTerminal;
use liveedgecast_e2e::wait::{SOON, until, until_some};
use serde_json::Value;

use crate::api::ADMIN;

const VIEW: &str = "the-token-of-readers-alone";

/// A command to be run against a gateway.
pub(crate) struct Typed {
    command: Command,
}

/// The output of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Typed {
    /// The command, with an environment of its own.
    pub(crate) fn new(words: &str) -> Self {
        let mut command = Command::new(binary("liveedgecast-activator"));
        command.env_clear().args(words.split_whitespace()).stdin(Stdio::null());
        Self { command }
    }

    /// The same with an environment variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// The same with a further argument.
    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Runs it on a terminal of this size.
    pub(crate) fn on_a_terminal(self, columns: u16, rows: u16) -> EmulatedTerminal {
        EmulatedTerminal::run(&self.command, columns, rows)
    }

    pub(crate) fn run(mut self) -> Said {
        let Output { status, stdout, stderr } = self.command.output().expect("the command");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let said = Said { code: status.code(), output: text(stdout), errors: text(stderr) };
        assert!(!said.output.contains('\x1b') && !said.errors.contains('\x1b'), "colours in a pipe: {said:?}");
        assert!(!said.output.contains(KEY_MARK) && !said.errors.contains(KEY_MARK), "a key is shown: {said:?}");
        said
    }
}

impl Said {
    /// The output of a command that has succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!((self.code, self.errors.as_str()), (Some(0), ""), "{self:?}");
        self.output
    }

    /// The JSON of a command that has succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.good()).expect("JSON")
    }

    /// Asserts that the command has failed with this code, nothing but one line, and each of `words` in it.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.output.as_str()), (Some(code), ""), "{self:?}");
        assert_eq!(self.errors.trim_end().lines().count(), 1, "{self:?}");
        assert!(self.errors.starts_with("error: "), "{self:?}");
        for word in words {
            assert!(self.errors.contains(word), "{word}: {self:?}");
        }
    }
}

/// A gateway with a configuration file, and the words that lead to it.
pub(crate) struct Place {
    pub(crate) activator: ActivatorProcess,
    pub(crate) sink: Sink,
    _folder: tempfile::TempDir,
}

impl Place {
    /// Two publishers have names that begin alike.
    pub(crate) fn new() -> Self {
        let sink = Sink::start();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.yaml");
        let text = format!(
            "publishers: [{{name: studio, key: {}}}, {{name: stage, key: {}}}]\nroutes: {{default: {{destinations: [{{name: main, url: '{}'}}]}}}}\n",
            key("studio"),
            key("stage"),
            sink.url("live/{key}"),
        );
        std::fs::write(&file, text).expect("the file");
        let settings = ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", &file.display().to_string());
        let activator = settings.with("ADMIN_TOKEN", ADMIN).with("VIEW_TOKEN", VIEW).with("COOLDOWN", "1s").start();
        Self { activator, sink, _folder: folder }
    }

    /// A command that asks this gateway with the admin token.
    pub(crate) fn typed(&self, words: &str) -> Typed {
        self.stranger(words).with("LIVEEDGECAST_ADMIN_TOKEN", ADMIN)
    }

    /// A command that asks this gateway without a token.
    fn stranger(&self, words: &str) -> Typed {
        Typed::new(words).with("LIVEEDGECAST_API", &url(self.activator.http()))
    }

    pub(crate) fn published(&self, name: &str) -> liveedgecast_e2e::process::RunningProgram {
        ffmpeg(Media::Both, &self.activator.url(&format!("live/{}", key(name))))
    }
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Writes a file and returns its path as text.
pub(crate) fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[test]
fn streams_and_workers_are_listed_as_tables_and_as_json() {
    let place = Place::new();
    let nothing = place.typed("streams").run().good();
    assert_eq!(nothing.lines().count(), 1, "{nothing}");
    let _publisher = place.published("studio");
    place.sink.receives(50);
    let stream = until_some("the bitrate", || {
        let streams = place.typed("streams --json").run().json();
        streams.as_array()?.first().filter(|stream| stream["bitrate"].as_u64() > Some(0)).cloned()
    });
    let id = stream["id"].as_str().expect("an id");
    let table = place.typed("streams").run().good();
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 2 && rows[0].starts_with("STREAM") && rows[1].starts_with(id), "{table}");
    for word in ["studio", "live", "h264 320x180@25", "aac", "1 of 1 live", "b/s"] {
        assert!(rows[1].contains(word), "{word}: {table}");
    }
    // By its name, by its id, by the beginning of its id; with a token from a file, and one that reads alone.
    let folder = tempfile::tempdir().expect("a folder");
    let token = file(folder.path(), "token", &format!("{VIEW}\n"));
    for name in ["studio", id, &id[..id.len() - 1]] {
        let one = place.stranger("streams --token-file").arg(&token).arg(name).run().good();
        assert!(one.contains("DESTINATION") && one.contains("main ") && one.contains(id), "{one}");
        assert_eq!(place.typed("streams --json").arg(name).run().json()["id"], id);
    }
    let workers = place.typed("workers --json").run().json();
    let worker = workers[0]["name"].as_str().expect("a name");
    let table = place.typed("workers").run().good();
    assert!(table.contains(worker) && table.contains("ready"), "{table}");
}

#[test]
fn commands_that_cannot_be_done_say_why_and_how_to_mend_it() {
    let place = Place::new();
    let (_first, _second) = (place.published("studio"), place.published("stage"));
    let ids = until_some("both streams", || {
        let streams = place.typed("streams --json").run().json();
        let ids: Vec<String> =
            streams.as_array()?.iter().filter_map(|stream| Some(stream["id"].as_str()?.to_owned())).collect();
        (ids.len() == 2).then_some(ids)
    });
    place.stranger("streams").run().fails(4, &["wants a token", "--token-file", "VIEW_TOKEN_FILE"]);
    let wrong = place.stranger("workers").with("VIEW_TOKEN", "some-other-token-of-that-length");
    wrong.run().fails(4, &["does not know the token", "ADMIN_TOKEN"]);
    place.stranger("kick studio").with("VIEW_TOKEN", VIEW).run().fails(4, &["for reading alone", "ADMIN_TOKEN"]);
    place.typed("kick nobody").run().fails(1, &["there is no stream \"nobody\"", "liveedgecast-activator streams"]);
    place.typed("drain nobody").run().fails(1, &["there is no worker \"nobody\"", "liveedgecast-activator workers"]);
    // Ids begin alike if it so happens; every id begins with nothing, which names none.
    place.typed("kick").arg("").run().fails(1, &["there is no stream"]);
    let common: String = ids[0].chars().zip(ids[1].chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    if !common.is_empty() {
        place.typed("kick").arg(&common).run().fails(1, &["names 2 streams", &ids[0], &ids[1], "studio"]);
    }
    place
        .typed("destination restart studio other")
        .run()
        .fails(1, &["no destination of this name", "destination list"]);
    place.typed("destination add studio main rtmp://127.0.0.1:9/live/x").run().fails(1, &["of this name already"]);
    place.typed("destination move studio main nonsense").run().fails(1, &["not valid"]);
    let missing = place.typed("streams --token-file /nonexistent").run();
    missing.fails(2, &["--token-file", "/nonexistent"]);
    Typed::new("streams --api localhost:1").run().fails(2, &["--api", "http://HOST"]);
    let away = url(loopback::socket(8080));
    Typed::new("streams --api").arg(&away).run().fails(3, &["no gateway answers", &away, "--api", "LIVEEDGECAST_API"]);
    // An RTMP port is no gateway.
    let other = url(place.activator.rtmp());
    assert_eq!(Typed::new("streams --api").arg(&other).run().code, Some(3));
    // Nothing of all that has touched a stream.
    assert_eq!(place.activator.events(event::STREAM_KICKED_OVER_HTTP).len(), 0);
    assert_eq!(place.activator.demand().map(|(_, _, all)| all), Some(2));
}

#[test]
fn several_workers_with_one_beginning_are_told_apart_by_the_whole_name() {
    let activator = ActivatorProcess::pushing_to("rtmp://127.0.0.1:9/live/{key}").with_external_workers();
    let activator = activator.with("ADMIN_TOKEN", ADMIN).start();
    let typed = |words: &str| {
        Typed::new(words).with("LIVEEDGECAST_API", &url(activator.http())).with("LIVEEDGECAST_ADMIN_TOKEN", ADMIN)
    };
    let _workers = ["w", "w-1", "w-2"].map(|name| WorkerProcess::with(&activator, &[("WORKER_NAME", name)]));
    until("three workers", || typed("workers --json").run().json().as_array().is_some_and(|all| all.len() == 3));
    typed("drain w-").run().fails(1, &["\"w-\" names 2 workers", "w-1, w-2"]);
    let said = typed("drain w --wait").run().good();
    assert!(said.contains("worker \"w\" has no streams"), "{said}");
    let state = || {
        let workers = typed("workers --json").run().json();
        let workers = workers.as_array().cloned().unwrap_or_default();
        let state =
            |name: &str| workers.iter().find(|worker| worker["name"] == name)?["state"].as_str().map(str::to_owned);
        ["w", "w-1", "w-2"].map(state)
    };
    until("the one to be drained", || state()[0].as_deref() == Some("drained"));
    assert!(state()[1..].iter().all(|state| state.as_deref() == Some("ready")), "{:?}", state());
    assert_eq!(typed("undrain w --json").run().json(), serde_json::json!({"name": "w", "drain": false}));
    until("the one to be ready", || state()[0].as_deref() == Some("ready"));
}

#[test]
fn destinations_are_changed_and_streams_are_ended_by_commands() {
    let place = Place::new();
    let second = Sink::start();
    let mut publisher = place.published("studio");
    place.sink.receives(50);
    let folder = tempfile::tempdir().expect("a folder");
    let target = file(folder.path(), "url", &format!("{}\n", second.url(&format!("live/{}", key("second")))));
    let added = place.typed("destination add studio second --wait --url-file").arg(&target).run().good();
    assert!(added.contains("destination \"second\" of stream") && added.contains("is live"), "{added}");
    second.receives(20);
    let listed = place.typed("destination list studio").run().good();
    assert!(listed.contains("second") && listed.contains("by the API"), "{listed}");
    let restarted = place.typed("destination restart studio second --wait").run().good();
    assert!(restarted.contains("restarted"), "{restarted}");
    second.receives_in_session(2, 20);
    place.typed("destination disable studio second").run().good();
    until("the end of the session", || second.sessions().iter().all(|session| session.ended.is_some()));
    let listed = place.typed("destination list studio --json").run().json();
    assert_eq!((&listed[1]["name"], &listed[1]["enabled"]), (&"second".into(), &false.into()), "{listed}");
    place.typed("destination enable studio second --wait=30s").run().good();
    let third = Sink::start();
    let moved = file(folder.path(), "url", &third.url(&format!("live/{}", key("third"))));
    place.typed("destination move studio second --wait --url-file").arg(&moved).run().good();
    third.receives(20);
    place.typed("destination remove studio second").run().good();
    // An order that is not carried out in its time.
    let late = place.typed("destination add studio away --wait=100ms rtmp://127.0.0.1:9/live/x").run();
    late.fails(1, &["not carried out in the time of --wait", "\"away\""]);
    assert_eq!(place.sink.sessions().len(), 1, "the first destination was disturbed");
    let said = place.typed("kick studio --reason").arg("too late").run().good();
    assert!(said.contains("has been ended") && said.contains("studio"), "{said}");
    assert!(!publisher.wait(SOON).success());
    assert_eq!(place.activator.events(event::STREAM_KICKED_OVER_HTTP)[0]["reason"], "too late");
}

#[test]
fn events_that_are_kept_and_those_that_come_are_printed() {
    let place = Place::new();
    let followed = |words: &str| {
        let program = Program::new("events", binary("liveedgecast-activator")).clear_env().words(words);
        program.env("LIVEEDGECAST_API", url(place.activator.http())).env("VIEW_TOKEN", VIEW).start()
    };
    let mut publisher = place.published("studio");
    place.sink.receives(50);
    let kept = until_some("the kept events", || {
        let kept = place.typed("events").run().good();
        kept.contains(event::UPSTREAM_LIVE).then_some(kept)
    });
    assert!(kept.lines().any(|line| line.contains(" stream.live ") && line.contains("app=live")), "{kept}");
    assert!(!kept.contains(event::EVENTS_MISSED), "{kept}");
    let json = place.typed("events --json").run().good();
    let types: Vec<Value> =
        json.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["type"].clone()).collect();
    assert!(types.contains(&event::STREAM_LIVE.into()), "{json}");
    let (following, new) = (followed("events --follow"), followed("events --follow --new"));
    until("the kept events to be printed", || following.log().contains(event::UPSTREAM_LIVE));
    publisher.interrupt();
    for program in [&following, &new] {
        until("the end to be printed", || program.log().contains(event::STREAM_ENDED));
    }
    assert!(!new.log().contains(event::STREAM_LIVE), "{}", new.log());
    assert_eq!(Typed::new("events --new").run().code, Some(2), "--new without --follow");
}

#[test]
fn help_completions_and_pages_of_the_manual_are_printed() {
    let help = Typed::new("--help").run().good();
    for word in ["Ports and certificates:", "Workers:", "streams", "destination", "--push-url"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let help = Typed::new("streams --help").run().good();
    assert!(help.contains("--api") && !help.contains("--push-url"), "{help}");
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let text = Typed::new("completions").arg(shell).run().good();
        assert!(text.contains(word) && text.contains("undrain"), "{shell}: {text}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("man");
    Typed::new("man").arg(&pages.display().to_string()).run().good();
    for page in
        ["liveedgecast-activator.1", "liveedgecast-activator-streams.1", "liveedgecast-activator-destination-add.1"]
    {
        let text = std::fs::read_to_string(pages.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".TH") && text.contains(".SH"), "{page}: {text}");
    }
    // The header has the title twice and the manual once, the footer source, date and title; each line has 80 columns.
    for page in std::fs::read_dir(&pages).expect("the pages") {
        let page = page.expect("a page").path();
        let text = std::fs::read_to_string(&page).expect("a page");
        let header = text.lines().find_map(|line| line.strip_prefix(".TH ")).expect("a header");
        let words: Vec<&str> = header.split_whitespace().map(|word| word.trim_matches('"')).collect();
        let [title, section, date, source, manual] = words[..] else { panic!("{}: {header}", page.display()) };
        let side = title.len() + section.len() + "()".len();
        for (left, middle) in [(side, manual.len()), (source.len(), date.len())] {
            let room = 80 - 2 * left.max(side);
            assert!(middle + "  ".len() <= room && middle > 0, "{}: {header}", page.display());
        }
    }
    assert!(Typed::new("man").run().good().contains(".TH"));
}

#[test]
fn reader_of_the_output_that_has_gone_is_no_error() {
    let program = binary("liveedgecast-activator");
    let script = format!("{} man | head -n 1; exit ${{PIPESTATUS[0]}}", program.display());
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// A fake gateway: it gives one answer to every request, byte for byte, and closes the connection.
fn fake_gateway(answer: &str) -> String {
    let (address, listener) = loopback::listener(8080, std::net::TcpListener::bind);
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut socket, &mut request);
            let _ = std::io::Write::write_all(&mut socket, answer.as_bytes());
        }
    });
    url(address)
}

/// An answer with a body, and the length that its head says.
fn answer(kind: &str, length: usize, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[test]
fn answers_that_no_gateway_gives_are_one_line_with_the_fix_in_every_command() {
    let whole = |kind: &str, body: &str| answer(kind, body.len(), body);
    let rows = [
        ("a page", whole("text/html", "<html>hello</html>"), 1, "does not answer as a gateway does"),
        (
            "half of its JSON",
            whole("application/json", "[{\"id\":\"a\",\"app\""),
            1,
            "does not answer as a gateway does",
        ),
        ("JSON of another kind", whole("application/json", "{\"id\":\"a\"}"), 1, "does not answer as a gateway does"),
        ("an answer that breaks off", answer("application/json", 500, "[{\"id\":\"a\""), 3, "did not end its answer"),
        ("no answer", String::new(), 3, "no gateway answers"),
        ("no HTTP", "220 mail ESMTP\r\n".to_owned(), 3, "no gateway answers"),
        (
            "a redirect",
            "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
            1,
            "status 302",
        ),
    ];
    let commands = [
        "streams",
        "streams a --json",
        "workers",
        "top --once",
        "drain w",
        "undrain w",
        "kick a",
        "destination list a",
        "destination restart a b --wait",
        "events",
    ];
    for (what, answer, code, words) in rows {
        let base = fake_gateway(&answer);
        for command in commands {
            // Another kind of JSON is another kind of content for events.
            let (code, words) = match command {
                "events" if what == "an answer that breaks off" => (1, "does not answer as a gateway does"),
                _ => (code, words),
            };
            let said = Typed::new(command).arg("--api").arg(&base).run();
            println!("{what}: {command}: {said:?}");
            said.fails(code, &[words, &base]);
        }
    }
}

#[test]
fn events_end_where_the_gateway_says_so_and_never_silently_before() {
    let event = |number: u32| format!("id: a-{number}\nevent: x.y\ndata: {{\"timestamp\":\"t\",\"data\":{{}}}}\n\n");
    let stream = |pieces: &[&str]| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        fake_gateway(&format!("{head}{}", pieces.concat()))
    };
    let (hello, told) = (":keeps\nretry: 1000\n\n", ":told\n\n");
    let lines = |said: &Said| said.output.lines().count();
    let typed = |base: &str| Typed::new("events --api").arg(base).run();
    // The events behind the mark are new.
    let said = typed(&stream(&[hello, &event(1), &event(2), told, &event(3)]));
    assert_eq!((said.code, lines(&said)), (Some(0), 2), "{said:?}");
    let said = typed(&stream(&[hello, told]));
    assert_eq!((said.code, lines(&said)), (Some(0), 0), "{said:?}");
    // The connection breaks before the mark.
    let said = typed(&stream(&[hello, &event(1)]));
    assert_eq!((said.code, lines(&said)), (Some(3), 1), "{said:?}");
    assert!(said.errors.contains("has not told all events"), "{said:?}");
    // A gateway of an earlier version sets no mark.
    let said = typed(&stream(&["retry: 1000\n\n", &event(1), &event(2)]));
    assert_eq!((said.code, lines(&said)), (Some(0), 2), "{said:?}");
}

#[test]
fn one_frame_in_a_pipe_is_whole_unless_columns_say_otherwise() {
    let place = Place::new();
    let _publisher = place.published("studio");
    place.sink.receives(50);
    let widest = |typed: Typed| {
        let frame = typed.run().good();
        frame.lines().map(|line| line.chars().count()).max().unwrap_or_default()
    };
    until("a stream in the frame", || place.typed("top --once").run().good().contains("studio"));
    // The line of the gateway alone is longer than 120 characters.
    assert!(widest(place.typed("top --once")) > 120, "a line is cut");
    assert_eq!(widest(place.typed("top --once").with("COLUMNS", "70")), 70);
    for nothing in ["0", "wide", ""] {
        assert!(widest(place.typed("top --once").with("COLUMNS", nothing)) > 120, "{nothing}");
    }
}
