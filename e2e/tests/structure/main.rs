//! The structure of the workspace is what the design page says: rooms import downwards only, generated types stay at the entry points, comments
//! cite what exists, names and events are unique. `cargo test -p liveedgecast-e2e --test structure -- --nocapture report` prints the numbers.

mod rules;
#[cfg(test)]
mod rules_tests;
mod source;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use liveedgecast_e2e::publish::root;
use rules::{Order, Violation, violations, words};
use source::Tree;

const ORDER: Order = Order {
    rooms: &[
        (
            "activator",
            &[
                "config",
                "drain",
                "net",
                "dispatch",
                "lobby",
                "accept",
                "admission",
                "handoff",
                "link",
                "publisher",
                "processes",
                "peers",
                "scaler",
                "control",
                "kubernetes",
                "metrics",
                "http",
                "ports",
                "task",
            ],
        ),
        (
            "worker",
            &["config", "drain", "receive", "upstream", "stream", "engine", "register", "metrics", "http", "task"],
        ),
        (
            "common",
            &[
                "event",
                "clock",
                "random",
                "backoff",
                "log_limiter",
                "evicting_limit",
                "key",
                "url",
                "rtmp",
                "handoff",
                "sys",
                "config",
                "setting",
                "control",
                "discovery",
                "proof",
                "greet",
                "introduce",
                "stderr",
                "runtime",
                "drain",
                "socket",
                "listen",
                "metrics",
                "http",
                "health",
            ],
        ),
    ],
    entry_points: &[
        "activator/src/control/",
        "activator/src/peers/follow.rs",
        "activator/src/peers/service.rs",
        "activator/src/scaler/service.rs",
        "common/src/control/",
        "common/src/greet.rs",
        "common/src/introduce.rs",
        "worker/src/register/call.rs",
    ],
    conventions: &["Args", "Error", "Input", "Limits", "Machine", "Output", "Rules", "Settings", "State"],
};

/// The exceptions, one `rule key` per line. Each is a debt: the test fails on a line that is no longer needed, and the file goes when it is empty.
const NOT_YET: &str = "e2e/tests/structure/not_yet.txt";

fn key(violation: &Violation) -> String {
    format!("{:?} {}", violation.rule, violation.key)
}

#[test]
fn sources_keep_the_structure() {
    let found = violations(&Tree::read(root()), &ORDER);
    let keys: BTreeSet<String> = found.iter().map(key).collect();
    if std::env::var_os("UPDATE_NOT_YET").is_some() {
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        fs::write(root().join(NOT_YET), text).expect("the exceptions");
        return;
    }
    let text = fs::read_to_string(root().join(NOT_YET)).unwrap_or_default();
    let known: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let mut report = String::new();
    for violation in found.iter().filter(|violation| !known.contains(&key(violation))) {
        let _ = writeln!(report, "{violation}");
    }
    for stale in known.difference(&keys) {
        let _ = writeln!(report, "{NOT_YET}: take out `{stale}`, which is so no longer");
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn report() {
    let tree = Tree::read(root());
    println!("crate      production lines   doc lines   weak beginnings");
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for source in tree.sources().iter().filter(|source| !source.test && source.path.contains("/src/")) {
        *lines.entry(source.crate_name.clone()).or_default() += source.lines;
    }
    for (name, share) in words(&tree) {
        let production = lines.get(&name).copied().unwrap_or_default();
        println!("{name:10} {production:16} {:11} {:8} = {:.1} %", share.lines, share.weak, share.percent());
    }
    let mut rules: BTreeMap<String, Vec<Violation>> = BTreeMap::new();
    for violation in violations(&tree, &ORDER) {
        rules.entry(format!("{:?}", violation.rule)).or_default().push(violation);
    }
    for (rule, found) in rules {
        println!("{rule}: {}", found.len());
        found.iter().for_each(|violation| println!("  {violation}"));
    }
}
