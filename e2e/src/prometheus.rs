//! A real Prometheus. In: addresses of pages, or pods through the cluster's API. Out: the address at which it is reached, and its answers to
//! queries.
//!
//! The server runs on this machine, so that it works with any cluster; Debian has it as a package.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::NAMESPACE;
use crate::cluster::api::ClusterApi;
use crate::cluster::pods::Pod;
use crate::http;
use crate::process::{Program, RunningProgram};
use crate::wait::{until, until_some};

const CONFIGURATION: &str = "prometheus.yml";

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: RunningProgram,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts a Prometheus that listens at `host` and scrapes nothing yet.
    ///
    /// # Panics
    /// Prometheus does not start.
    #[must_use]
    pub fn start(host: IpAddr) -> Self {
        let program = Program::new("Prometheus", "prometheus");
        let directory = program.directory().display().to_string();
        fs::write(program.directory().join(CONFIGURATION), "scrape_configs: []\n").expect("the configuration");
        let program = program.words(&format!(
            "--config.file={directory}/{CONFIGURATION} --storage.tsdb.path={directory}/data --enable-feature=exemplar-storage --web.listen-address={}",
            SocketAddr::new(host, 0)
        ));
        let mut process = program.start();
        let address = until_some("Prometheus to listen", || {
            assert!(process.is_running(), "Prometheus has ended: {}", process.log());
            process.log().split_once("msg=\"Listening on\" address=")?.1.split_whitespace().next()?.parse().ok()
        });
        until("Prometheus to be ready", || http::get(address, "/-/ready").is_some());
        Self { process, address }
    }

    /// Scrapes `/metrics` of each of these addresses every second from now on.
    ///
    /// # Panics
    /// The configuration cannot be written.
    pub fn scrapes(&mut self, targets: &[SocketAddr]) {
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        self.follows(&format!("{{job_name: liveedgecast, static_configs: [{{targets: [{}]}}]}}", targets.join(", ")));
    }

    /// Scrapes each of `pods` every second from now on.
    ///
    /// # Panics
    /// The configuration cannot be written.
    pub fn asks(&mut self, pods: &[Pod], api: &ClusterApi) {
        let job = |pod: &Pod| {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:8080/proxy/metrics", pod.name);
            let target = api.address;
            format!("{{job_name: {}, metrics_path: '{path}', static_configs: [{{targets: ['{target}']}}]}}", pod.name)
        };
        let jobs: Vec<String> = pods.iter().map(job).collect();
        self.follows(&jobs.join(", "));
    }

    fn follows(&mut self, jobs: &str) {
        let configuration = format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs: [{jobs}]\n");
        fs::write(self.process.directory().join(CONFIGURATION), configuration).expect("the configuration");
        self.process.signal(Signal::HUP);
    }

    /// The URL at which pods reach Prometheus.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value of a query, if it has one.
    #[must_use]
    pub fn knows(&self, query: &str) -> Option<f64> {
        self.query(query)?["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// The number of series that a query has now.
    ///
    /// # Panics
    /// The query is not valid.
    #[must_use]
    pub fn series(&self, query: &str) -> usize {
        let Some(answer) = self.query(query) else { return 0 };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }

    /// The answer about exemplars of a metric, as JSON: each names its trace.
    #[must_use]
    pub fn exemplars(&self, metric: &str) -> String {
        let ever = "start=0&end=9999999999";
        let answer = http::json(self.address, &format!("/api/v1/query_exemplars?query={metric}&{ever}"));
        answer.map(|answer| answer.to_string()).unwrap_or_default()
    }

    fn query(&self, query: &str) -> Option<Value> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        http::json(self.address, &format!("/api/v1/query?query={query}"))
    }
}
