//! Everything that the prose names between backticks exists: metrics, settings, flags, paths of the repository, rooms. Sections that comments may cite are
//! there; whether each citation has its section is the structure test's.

use std::collections::BTreeSet;
use std::fs;

use liveedgecast_e2e::publish::root;

use super::commands::is_variable;
use super::markdown::{Document, documents};
use super::tables::{PREFIX, arguments, metrics, programs, variables};
use super::{around, file, files};

/// Names that begin like a metric's and are the log's targets.
const CRATES: [&str; 2] = ["liveedgecast_activator", "liveedgecast_worker"];
/// Variables of libraries and of these tests, and the kernel's names.
const FOREIGN: [&str; 5] = ["NO_COLOR", "RLIMIT_NOFILE", "SSL_CERT_DIR", "SSL_CERT_FILE", "UPDATE_DOCUMENTS"];

/// Titles that comments may rely on, whether one cites them today or not.
const STABLE: [&str; 17] = [
    "Rooms and the direction of imports",
    "Where the publisher is held",
    "Saying no",
    "Workers dial in",
    "Two ways to hand over",
    "The stream ring",
    "RTMP code",
    "Upstream sessions",
    "When the publisher goes",
    "Demand and KEDA",
    "Scale-in",
    "The process fleet",
    "Configuration",
    "Untrusted input",
    "Seen from outside",
    "Numbers to reach",
    "Glossary",
];

/// Every code span of every document, with `path:line`.
fn spans(documents: &[Document]) -> Vec<(String, &str)> {
    documents.iter().flat_map(Document::code_spans).collect()
}

#[test]
fn metrics_exist() {
    let known = metrics();
    let mut named = BTreeSet::new();
    for document in documents() {
        let words = document.text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
        named.extend(
            words
                .filter(|word| word.starts_with(PREFIX) && *word != PREFIX && !CRATES.contains(word))
                .map(ToOwned::to_owned),
        );
    }
    assert!(named.len() > 20, "only {named:?}");
    for name in named {
        assert!(known.contains_key(&name), "there is no {name}");
    }
}

#[test]
fn settings_and_flags_exist() {
    let around = around();
    let mut known: BTreeSet<String> = FOREIGN.map(ToOwned::to_owned).into();
    for (_, command) in programs() {
        for argument in arguments(&command) {
            known.extend(variables(argument));
            known.extend(argument.get_long().map(|flag| format!("--{flag}")));
        }
    }
    for (place, span) in spans(&documents()) {
        let words = span.split([' ', '=', ',', '(', ')']).filter(|word| word.contains('_') || word.starts_with("--"));
        for word in words.filter(|word| word.starts_with("--") && word.len() > 2 || is_variable(word) && word.len() > 5)
        {
            let prefix = word.ends_with('_') || word.starts_with('_');
            assert!(prefix || known.contains(word) || around.contains(word), "{place}: nothing has {word}");
        }
    }
}

#[test]
fn paths_exist() {
    let top: BTreeSet<String> = fs::read_dir(root())
        .expect("the root")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    for (place, span) in spans(&documents()) {
        let path = span.trim_start_matches("./").split(' ').next().unwrap_or_default();
        let first = path.split('/').next().unwrap_or_default();
        if path.contains('/') && first != "target" && top.contains(first) {
            assert!(root().join(path).exists(), "{place}: {path} is not there");
        }
    }
}

/// The page for operators without its generated tables, which have every word by themselves.
fn operations() -> String {
    let text = file("deploy/docs/operations.md");
    let mut parts = text.split("<!-- end -->");
    let written = |part: &str| part.split("<!-- ").next().unwrap_or_default().to_owned();
    let first = parts.next().map(written).unwrap_or_default();
    first + &parts.map(written).collect::<String>()
}

#[test]
fn faults_of_upstreams_and_reasons_of_refusals_are_explained() {
    let page = operations();
    for (metric, label) in [("upstream_failures_total", "reason"), ("publishers_refused_total", "reason")] {
        let known = metrics();
        let values = &known[&format!("{PREFIX}{metric}")].labels[label];
        assert!(values.len() > 5, "{metric}: {values:?}");
        for value in values {
            assert!(page.contains(&format!("`{value}`")), "operations.md does not explain {label}={value} of {metric}");
        }
    }
}

#[test]
fn phases_of_going_down_are_listed() {
    let page = operations();
    for program in ["activator", "worker"] {
        let source = file(&format!("{program}/src/drain.rs"));
        let words: Vec<&str> =
            source.lines().filter_map(|line| line.split_once(" => \"")?.1.strip_suffix("\",")).collect();
        assert!(words.len() >= 6, "{program}: {words:?}");
        for word in words {
            assert!(
                page.contains(&format!("`{word}`")),
                "operations.md does not list the phase {word} of the {program}"
            );
        }
    }
}

#[test]
fn frames_of_a_handoff_are_listed() {
    let text = file("deploy/docs/architecture.md");
    let source = file("common/src/handoff/frame.rs");
    let frames =
        source.split_once("pub enum Frame {").and_then(|(_, rest)| rest.split_once("\n}")).expect("the frames").0;
    let names = frames
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    for name in names.map(|line| line.split(['(', ' ', ',']).next().unwrap_or_default()) {
        assert!(text.contains(&format!("`{name}`")), "architecture.md does not name the frame {name}");
    }
}

#[test]
fn architecture_page_has_the_sections_that_comments_cite() {
    let documents = documents();
    let page = documents.iter().find(|document| document.path.ends_with("/architecture.md")).expect("the page");
    for title in STABLE {
        assert!(page.headings().contains(&title), "comments may cite the section {title:?}, which is missing");
    }
}

#[test]
fn dashboards_and_rules_name_metrics_and_labels_that_exist() {
    let known = metrics();
    let texts = files(&["deploy/observability", "deploy/components"], &[".json", ".yaml"]);
    let mut found = 0;
    for (path, text) in &texts {
        for (at, _) in text.match_indices(PREFIX) {
            let rest = &text[at..];
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            // `liveedgecast_…`: only the beginning of a file's or a project's name.
            let name = name.trim_end_matches('_');
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            let metric = known.get(name).or_else(|| known.get(base));
            let Some(metric) = metric else { panic!("{path}: there is no {name}") };
            found += 1;
            let Some(labels) = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
                continue;
            };
            for label in labels.0.split(',').filter_map(|pair| pair.split('=').next()) {
                let label = label.trim_end_matches(['!', '~']).trim();
                let always = ["instance", "job"];
                assert!(
                    metric.labels.contains_key(label) || always.contains(&label),
                    "{path}: {name} has no label {label}"
                );
            }
        }
    }
    assert!(found > 60, "{found}");
}

#[test]
fn alerts_have_runbooks_that_exist() {
    let rules = file("deploy/observability/prometheus/rules.yaml");
    let page = file("deploy/docs/operations.md");
    let anchors: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    let runbooks: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: deploy/docs/operations.md#")).collect();
    assert_eq!(runbooks.len(), rules.matches("- alert: ").count(), "every alert has a runbook");
    for runbook in runbooks {
        assert!(anchors.iter().any(|anchor| anchor == runbook), "operations.md has no section {runbook}");
    }
}
