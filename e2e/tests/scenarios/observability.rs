//! The dashboards and the rules of `deploy/observability`, with a real Prometheus that scrapes a relay at work.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use liveedgecast_e2e::http;
use liveedgecast_e2e::prometheus::Prometheus;
use liveedgecast_e2e::publish::{Media, ffmpeg, root};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::until;
use serde_json::Value;

use crate::Relay;

/// Panels without data here: KEDA asks only where it is, and names of publishers need a setting and a file.
const WITHOUT_DATA: [&str; 2] = ["KEDA asked", "Publishers by name"];

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
    assert!(panels.len() > 40, "{}", panels.len());
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
fn publishers_of_the_file_are_counted_by_name_and_no_others() {
    let sink = Sink::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let text = format!(
        "admission: {{open: true}}\npublishers: [{{name: studio, key: studio-k3y}}]\nroutes: {{default: {{destinations: [{{name: good, url: '{}'}}]}}}}\n",
        sink.url("live/{key}"),
    );
    std::fs::write(&file, text).expect("the file");
    let settings = ActivatorProcess::pushing_to("").with("LIVEEDGECAST_CONFIG", file.to_str().expect("a path"));
    let activator = settings
        .with("LIVEEDGECAST_PUBLISHER_METRICS", "yes")
        .with("LIVEEDGECAST_BASELINE_WORKERS", "3")
        .with("COOLDOWN", "1s")
        .start();
    let mut listed = ffmpeg(Media::Both, &activator.url("live/studio-k3y"));
    let mut other = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("nameless"))));
    sink.receives_in_session(2, 50);
    let metric = |name: &str, label: &str| activator.metric(&format!("liveedgecast_{name}"), &[label]);
    let studio = "publisher=\"studio\"";
    until("the publisher's bytes", || metric("publisher_received_bytes_total", studio) > Some(10_000.0));
    assert_eq!(activator.metric("liveedgecast_publisher_streams", &[studio, "state=\"live\""]), Some(1.0));
    let page = http::get(activator.http(), "/metrics").expect("metrics");
    let rows = page.lines().filter(|line| line.starts_with("liveedgecast_publisher_received_bytes_total{")).count();
    assert_eq!(rows, 1, "{page}");
    assert!(!page.contains("k3y") && !page.contains(&key("nameless")), "a key is shown: {page}");
    // One of three workers that would always run does.
    let seconds = |result: &str| metric("worker_seconds_total", &format!("result=\"{result}\"")).expect("seconds");
    until("a second of a worker", || seconds("used") > 1.0);
    assert!(seconds("avoided") > 2.0 * (seconds("used") - 0.1), "{} of {}", seconds("avoided"), seconds("used"));
    listed.interrupt();
    other.interrupt();
    until("both to have left", || metric("stream_duration_seconds_count", "") == Some(2.0));
    activator.is_back_to_zero();
    let used = seconds("used");
    let avoided = seconds("avoided");
    until("time to pass without a worker", || seconds("avoided") > avoided + 0.5);
    assert!((seconds("used") - used).abs() < 1e-9, "nothing is used without a worker");
    let sum = metric("publisher_received_bytes_total", studio);
    assert!(sum <= activator.metric("liveedgecast_received_bytes_total", &[]), "{sum:?}");
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
