//! The README says what is so: its tables of settings are the programs' own, its metrics exist, its commands can be run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use clap::CommandFactory;
use liveedgecast_e2e::publish::root;

/// Names that begin like a metric's and are the log's targets.
const CRATES: [&str; 2] = ["liveedgecast_activator", "liveedgecast_worker"];

fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn readme() -> String {
    file("README.md")
}

/// The table of a program's settings, from the definitions that its command line is read with.
fn table(command: &clap::Command) -> String {
    let mut table = "| flag · variable | what | default |\n| --- | --- | --- |\n".to_owned();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(flag) = argument.get_long() else { continue };
        let variable = argument.get_env().map(|name| format!(" · `{}`", name.to_string_lossy()));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
        let (what, default) = match help.split_once("[default: ") {
            Some((what, default)) => (what.trim().to_owned(), default.trim_end_matches(']').to_owned()),
            None => (help, String::new()),
        };
        let _ = writeln!(table, "| `--{flag}`{} | {what} | {} |", variable.unwrap_or_default(), default);
    }
    table
}

fn assert_table(program: &str, command: &clap::Command) {
    let (begin, end) = (format!("<!-- settings: {program} -->\n"), "<!-- end -->".to_owned());
    let text = readme();
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("the README has no {begin}"));
    let (shown, after) = rest.split_once(&end).expect("an end of the table");
    let table = table(command);
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(root().join("README.md"), format!("{before}{begin}{table}{end}{after}")).expect("the README");
    } else {
        assert_eq!(shown, table, "\nUPDATE_DOCUMENTS=1 cargo test -p liveedgecast-e2e --test documents writes it anew");
    }
}

#[test]
fn the_tables_of_settings_are_the_programs_own() {
    assert_table("liveedgecast-activator", &liveedgecast_activator::config::Typed::command());
    assert_table("liveedgecast-worker", &liveedgecast_worker::config::Typed::command());
}

#[test]
fn the_metrics_that_the_readme_names_exist() {
    let activator = liveedgecast_activator::metrics::Metrics::new().expect("metrics").text();
    let worker = fs::read_to_string(root().join("worker/src/metrics.rs")).expect("the worker's metrics");
    let text = readme();
    let names: BTreeSet<&str> = text
        .split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.starts_with("liveedgecast_") && !CRATES.contains(word))
        .collect();
    assert!(names.len() > 5, "the README names only {names:?}");
    for name in names {
        let short = format!("\"{}\"", name.trim_start_matches("liveedgecast_"));
        assert!(activator.contains(&format!("# TYPE {name} ")) || worker.contains(&short), "there is no {name}");
    }
}

#[test]
fn the_scripts_that_the_readme_names_can_be_run() {
    let text = readme();
    let scripts: BTreeSet<&str> = text
        .split(|c: char| c.is_whitespace() || "`()".contains(c))
        .filter(|word| word.starts_with("./") && word.ends_with(".sh"))
        .collect();
    for needed in ["./tools/demo.sh", "./tools/test.sh", "./tools/run.sh"] {
        assert!(scripts.contains(needed), "the README does not mention {needed}");
    }
    for script in scripts {
        let meta = fs::metadata(root().join(script)).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(meta.permissions().mode() & 0o111 != 0, "{script} cannot be executed");
    }
}

#[test]
fn links_of_the_readme_lead_somewhere() {
    let text = readme();
    for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = target.split('#').next().unwrap_or_default();
        if !file.is_empty() && !file.contains("://") {
            assert!(root().join(file).exists(), "{target}");
        }
    }
}

#[test]
fn the_image_is_built_from_all_that_the_workspace_needs() {
    let (dockerfile, ignored) = (file("Dockerfile"), file(".dockerignore"));
    let manifest = file("Cargo.toml");
    let members = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("the members").0;
    for member in members.split(',').map(|member| member.trim().trim_matches('"')) {
        let copy = format!("COPY {member}/Cargo.toml {member}/\n");
        assert!(dockerfile.contains(&copy), "cargo reads every member's manifest: {copy}");
        let whole = dockerfile.contains(&format!("COPY {member} {member}\n"));
        let sent = ignored.lines().any(|line| line == format!("!{member}") || line == format!("!{member}/Cargo.toml"));
        assert!(sent, "{member} is not sent to the builder");
        if whole && root().join(member).join("build.rs").exists() {
            assert!(
                dockerfile.contains(&format!(" {member}/build.rs")),
                "{member}'s own dependencies for its build.rs come first too"
            );
        }
    }
}

#[test]
fn compose_passes_on_settings_that_exist() {
    let command = liveedgecast_activator::config::Typed::command();
    let known: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    let compose = file("docker-compose.yml");
    let passed = compose
        .split_once("environment:\n")
        .and_then(|(_, rest)| rest.split_once("    ports:"))
        .expect("an environment")
        .0;
    let names: Vec<&str> = passed
        .split_whitespace()
        .filter(|word| *word != "-")
        .map(|word| word.split('=').next().unwrap_or(word))
        .collect();
    assert!(names.contains(&"RTMP_PUSH_URL"), "{names:?}");
    for name in names {
        assert!(known.contains(name), "the activator has no setting {name}");
    }
}
