//! The dashboards and the rules of `deploy/observability`, with a real Prometheus that scrapes a relay at work.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use liveedgecast_e2e::prometheus::Prometheus;
use liveedgecast_e2e::publish::{Media, root};
use liveedgecast_e2e::wait::until;
use serde_json::Value;

use crate::Relay;

/// Panels without data here: KEDA asks only where it is.
const WITHOUT_DATA: [&str; 1] = ["KEDA asked"];

/// The panels of both dashboards that have queries: their titles, and the queries with Grafana's variables filled in.
fn panels() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for name in ["fleet", "destinations"] {
        let path = root().join(format!("deploy/observability/dashboards/{name}.json"));
        let text = fs::read_to_string(&path).expect("a dashboard");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        for panel in dashboard["panels"].as_array().expect("panels") {
            let targets = panel["targets"].as_array().into_iter().flatten();
            let filled = |target: &Value| {
                let query = target["expr"].as_str().expect("a query");
                query.replace("$__rate_interval", "1m").replace("$destination", ".*")
            };
            let queries: Vec<String> = targets.map(filled).collect();
            if !queries.is_empty() {
                all.push((panel["title"].as_str().expect("a title").to_owned(), queries));
            }
        }
    }
    all
}

#[test]
fn every_panel_of_the_dashboards_has_data() {
    let relay = Relay::by("auto");
    let mut prometheus = Prometheus::start([127, 0, 0, 1].into());
    prometheus.scrapes(&[relay.activator.http()]);
    until("the first scrape", || prometheus.series("liveedgecast_build_info") == 1);
    let _publisher = relay.published(Media::Both, "shown");
    relay.sink.receives(50);
    // A destination that fails, and a stranger that does not speak RTMP, have rows of their own.
    relay.sink.go_away();
    until("a failure to be counted", || {
        relay.activator.metric("liveedgecast_upstream_failures_total", &[]) > Some(0.0)
    });
    relay.sink.come_back();
    let mut stranger = TcpStream::connect(relay.activator.rtmp()).expect("a connection");
    stranger.write_all(&[0x55; 4096]).expect("it takes bytes");
    let errors = || relay.activator.metric("liveedgecast_publisher_errors_total", &[]);
    until("the stranger to be counted", || errors() > Some(0.0));

    let panels = panels();
    assert!(panels.len() > 30, "{}", panels.len());
    for (title, queries) in panels {
        if WITHOUT_DATA.contains(&title.as_str()) {
            continue;
        }
        for query in queries {
            until(format!("data in {title}: {query}"), || prometheus.series(&query) > 0);
        }
    }
}

#[test]
fn rules_are_valid_and_their_own_tests_pass() {
    let folder = root().join("deploy/observability/prometheus");
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(&folder).output().expect("promtool");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
