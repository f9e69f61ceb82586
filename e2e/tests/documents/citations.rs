//! Comments cite sections of the architecture page by title. In: every source, script and manifest. Out: citations of titles that are not there.

use super::files;
use super::markdown::{Document, documents};

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

/// The titles behind each `architecture.md` in a comment, which may go on in the next line.
fn citations(text: &str) -> Vec<String> {
    let one_line: String = text
        .lines()
        .map(|line| line.trim_start().trim_start_matches(['/', '!', '#']).trim())
        .collect::<Vec<_>>()
        .join(" ");
    let cited = one_line.split("architecture.md").skip(1);
    cited.filter_map(|rest| rest.strip_prefix(", \"")?.split_once('"').map(|(title, _)| title.to_owned())).collect()
}

#[test]
fn comments_cite_sections_that_exist() {
    let documents = documents();
    let page = documents
        .iter()
        .find(|document| document.path == "deploy/docs/architecture.md")
        .map(Document::headings)
        .expect("the page");
    for title in STABLE {
        assert!(page.contains(&title), "comments may cite the section {title:?}, which is missing");
    }
    let sources = [
        "activator",
        "worker",
        "common",
        "e2e/src",
        "e2e/tests/cluster",
        "e2e/tests/scenarios",
        "e2e/fuzz",
        "tools",
        "deploy",
        ".ci",
        "Dockerfile",
        "docker-compose.yml",
        "Cargo.toml",
        "clippy.toml",
    ];
    for (path, text) in files(&sources, &[".rs", ".proto", ".sh", ".yaml", ".yml", ".toml", "run", "Dockerfile"]) {
        for title in citations(&text) {
            assert!(
                page.contains(&title.as_str()),
                "{path} cites architecture.md, {title:?}, which is not there; {page:?} are"
            );
        }
    }
}

#[test]
fn citations_are_read_across_lines() {
    let text = "/// Why: architecture.md, \"Saying\n    /// no\".\n# architecture.md,\n# \"Scale-in\" and so on; architecture.md itself";
    assert_eq!(citations(text), ["Saying no", "Scale-in"]);
}
