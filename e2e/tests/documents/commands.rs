//! The commands in the documents. In: fences of `sh`. Out: commands that name a script, flag, setting, crate, object or path that is not there;
//! those marked `run` are run against an activator, those marked `ci` stand in `.ci/run`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use liveedgecast_e2e::publish::{Media, ffmpeg, root};
use liveedgecast_e2e::relay::{ActivatorProcess, binary, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{SOON, until};

use super::markdown::{Document, Fence, documents};
use super::tables::{arguments, programs, variables};
use super::{around, file, files};

/// Programs of others, whose arguments are not checked.
const OTHERS: [&str; 5] = ["cp", "ffmpeg", "grep", "jq", "printf"];

/// The token of the activator that commands are run against.
const ADMIN_TOKEN: &str = "the-token-of-the-documents";

/// Splits a line into commands and words, as a shell does: quotes, `|`, `&&` and `;`.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ' | '|' | '&' | ';') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                if c != ' ' && !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    commands.extend((!words.is_empty()).then_some(words));
    commands
}

/// The names that a command may use.
struct Known {
    /// Variables and flags of the programs.
    settings: BTreeSet<String>,
    /// Scripts, manifests, compose file, image.
    around: String,
    /// Paths of the HTTP API.
    routes: String,
    /// The `--help` of scripts, by path.
    helps: BTreeMap<String, String>,
}

impl Known {
    fn new() -> Self {
        let mut settings = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
        for (_, command) in programs() {
            for argument in arguments(&command) {
                settings.extend(variables(argument));
                settings.extend(argument.get_long().map(|flag| format!("--{flag}")));
            }
        }
        let routes = files(&["activator/src"], &[".rs"]).into_iter().map(|(_, text)| text).collect();
        Self { settings, around: around(), routes, helps: BTreeMap::new() }
    }

    /// Asserts that the words of one command name what exists.
    fn check(&mut self, place: &str, words: &[String]) {
        // A variable of the example itself: its command is checked like any other.
        if let Some((_, command)) = words.first().and_then(|word| word.split_once("=$(")) {
            let inner: Vec<String> = [command.to_owned()].into_iter().chain(words[1..].iter().cloned()).collect();
            return self.check(place, &inner);
        }
        let assigned = words
            .iter()
            .take_while(|word| word.split('=').next().is_some_and(is_variable) && word.contains('='))
            .count();
        for word in &words[..assigned] {
            let name = word.split('=').next().unwrap_or_default();
            let known = self.settings.contains(name)
                || self.around.contains(name)
                || ["UPDATE_DOCUMENTS", "UPDATE_SCREENSHOTS"].contains(&name);
            assert!(known, "{place}: nothing reads {name}");
        }
        let Some((program, rest)) = words[assigned..].split_first() else { return };
        let flags =
            rest.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap_or_default());
        let after =
            |flag: &str| rest.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].clone()).collect::<Vec<_>>();
        match program.trim_start_matches("./").rsplit('/').next().unwrap_or_default() {
            "liveedgecast-activator" | "liveedgecast-worker" => {
                flags.for_each(|flag| assert!(self.settings.contains(flag), "{place}: the programs have no {flag}"));
            }
            "run" => assert!(root().join(program).exists(), "{place}: {program}"),
            script if Path::new(script).extension().is_some_and(|ending| ending == "sh") => {
                let help = self.help(place, program.trim_start_matches("./"));
                flags.for_each(|flag| assert!(help.contains(flag), "{place}: {program} has no {flag}"));
                for (flag, folder) in [("--with", "components"), ("--overlay", "overlays")] {
                    for name in after(flag) {
                        assert!(root().join("deploy").join(folder).join(&name).exists(), "{place}: {flag} {name}");
                    }
                }
            }
            "cargo" => {
                for package in after("-p") {
                    let own = package
                        .strip_prefix("liveedgecast-")
                        .is_some_and(|name| root().join(name).join("Cargo.toml").exists());
                    assert!(own, "{place}: no crate {package}");
                }
                for test in after("--test") {
                    let tests = root().join("e2e/tests");
                    assert!(
                        tests.join(&test).join("main.rs").exists() || tests.join(format!("{test}.rs")).exists(),
                        "{place}: no test {test}"
                    );
                }
            }
            "docker-compose" | "docker" => {
                let known = ["compose", "--profile", "observability", "up", "-d", "down", "logs"];
                rest.iter()
                    .for_each(|word| assert!(known.contains(&word.as_str()), "{place}: {word:?} is not checked"));
            }
            "kubectl" => {
                for name in rest.iter().filter_map(|word| {
                    Some(word.rsplit('/').next()?.trim()).filter(|name| name.starts_with("liveedgecast"))
                }) {
                    // A Secret that somebody else makes is there as `secretName`.
                    assert!(self.around.contains(&format!("ame: {name}\n")), "{place}: no object {name}");
                }
            }
            "curl" => {
                for url in rest.iter().filter_map(|word| word.split_once(":8080").map(|(_, path)| path)) {
                    let path = url.split('?').next().unwrap_or_default().trim_end_matches("/ID");
                    let path =
                        path.replace("$STREAM", "{id}").replace("$WORKER", "{name}").replace("/archive", "/{name}");
                    assert!(self.routes.contains(&format!("\"{path}")), "{place}: no route {path}");
                }
            }
            other => assert!(OTHERS.contains(&other), "{place}: {program:?} is unknown here"),
        }
    }

    /// The help text of a script, which shows at once that it can be run.
    fn help(&mut self, place: &str, script: &str) -> &str {
        if !self.helps.contains_key(script) {
            let meta = root().join(script).metadata().unwrap_or_else(|error| panic!("{place}: {script}: {error}"));
            assert!(meta.permissions().mode() & 0o111 != 0, "{place}: {script} cannot be executed");
            let output = Command::new(root().join(script))
                .arg("--help")
                .output()
                .unwrap_or_else(|error| panic!("{script}: {error}"));
            assert!(output.status.success(), "{script} --help: {}", output.status);
            self.helps.insert(script.to_owned(), String::from_utf8_lossy(&output.stdout).into_owned());
        }
        &self.helps[script]
    }
}

/// True if this can be the name of an environment variable.
pub(super) fn is_variable(word: &str) -> bool {
    word.len() > 2
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        && !word.starts_with(|c: char| c.is_ascii_digit())
}

/// The fences of commands with one of these marks, and their lines; a line may go on behind a backslash.
fn marked(marks: &[&str]) -> Vec<(Fence, Vec<String>)> {
    let fences = documents().iter().flat_map(Document::fences).collect::<Vec<_>>();
    let fences = fences.into_iter().filter(|fence| marks.contains(&fence.info.as_str()));
    let lines = |fence: &Fence| {
        let joined = fence.body.replace("\\\n", " ");
        joined
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(ToOwned::to_owned)
            .collect()
    };
    fences.map(|fence| (lines(&fence), fence)).map(|(lines, fence)| (fence, lines)).collect()
}

#[test]
fn commands_name_what_exists() {
    let mut known = Known::new();
    let fences = marked(&["sh", "sh run", "sh ci"]);
    assert!(fences.len() > 10, "only {} fences of commands", fences.len());
    for (fence, lines) in fences {
        lines.iter().flat_map(|line| commands(line)).for_each(|words| known.check(&fence.place, &words));
    }
}

#[test]
fn commands_that_ci_runs_are_in_its_script() {
    let ci = file(".ci/run");
    for (fence, lines) in marked(&["sh ci"]) {
        for line in lines {
            assert!(ci.contains(line.trim_start_matches("./")), "{}: .ci/run does not run {line}", fence.place);
        }
    }
}

#[test]
fn commands_that_can_run_here_do() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}"));
    let activator = settings.with("ADMIN_TOKEN", ADMIN_TOKEN).start();
    let publish = || ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("shown"))));
    let mut publisher = publish();
    sink.receives(10);
    let programs = binary("liveedgecast-activator");
    let mut path = programs.parent().expect("a folder").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let fences = marked(&["sh run"]);
    assert!(fences.len() > 1, "no document has commands to run");
    for (fence, _) in fences {
        // A page may end the stream, and the next one has its own.
        if !publisher.is_running() {
            until("the end of the stream", || activator.demand() == Some((0, 0, 0)));
            let sessions = sink.sessions().len();
            publisher = publish();
            sink.receives_in_session(sessions + 1, 10);
        }
        let script = fence.body.replace("localhost:8080", &activator.http().to_string());
        let output = Command::new("bash")
            .args(["-eu", "-o", "pipefail", "-c", &script])
            .current_dir(root())
            .env("PATH", &path)
            .env("ADMIN_TOKEN", ADMIN_TOKEN)
            .env("LIVEEDGECAST_API", format!("http://{}", activator.http()))
            .output();
        let output = output.unwrap_or_else(|error| panic!("{}: bash: {error}", fence.place));
        assert!(output.status.success(), "{}: {}\n{script}", fence.place, String::from_utf8_lossy(&output.stderr));
        if fence.body.contains("kick") {
            publisher.wait(SOON);
        }
    }
}

#[test]
fn lines_are_split_as_a_shell_does() {
    let words = commands("A='b c' x --y \"d e\" | grep f && z");
    assert_eq!(words, [vec!["A=b c", "x", "--y", "d e"], vec!["grep", "f"], vec!["z"]]);
}
