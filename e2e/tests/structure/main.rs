//! The structure of the workspace is what the design page says: rooms import downwards only, generated types stay at the entry points, comments
//! cite what exists, names and events are unique. `cargo test -p liveedgecast-e2e --test structure -- --nocapture report` prints the numbers.

mod rules;
#[cfg(test)]
mod rules_tests;
mod source;
mod tokens;

use std::collections::BTreeMap;

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
                "events",
                "destinations",
                "excerpt",
                "dispatch",
                "lobby",
                "incidents",
                "accept",
                "admission",
                "reload",
                "handoff",
                "link",
                "publisher",
                "processes",
                "peers",
                "scaler",
                "totals",
                "control",
                "kubernetes",
                "metrics",
                "http",
                "ports",
                "task",
                "commandline",
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
                "gather",
                "wakes",
                "key",
                "url",
                "rtmp",
                "handoff",
                "sys",
                "trust",
                "config",
                "setting",
                "trace",
                "environment",
                "control",
                "discovery",
                "proxy",
                "proof",
                "socket",
                "encryption",
                "greet",
                "introduce",
                "stderr",
                "runtime",
                "drain",
                "listen",
                "metrics",
                "http",
                "health",
            ],
        ),
    ],
    entry_points: &[
        "activator/src/control/",
        "activator/src/peers/courier.rs",
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

#[test]
fn sources_keep_the_structure() {
    let found = violations(&Tree::read(root()), &ORDER);
    let report: String = found.iter().map(|violation| format!("{violation}\n")).collect();
    assert!(found.is_empty(), "\n{report}");
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
