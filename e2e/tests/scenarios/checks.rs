//! The command `check`: a set-up without faults, one with ten, and each of the ten alone.
#![expect(clippy::disallowed_methods, reason = "shell: a thread for a server of the scenario")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use liveedgecast_e2e::certificate::Authority;
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::relay::{ActivatorProcess, KEY_MARK, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{now, until, wall};
use serde_json::{Value, json};

use crate::commands::{Said, Typed};

/// A gateway's settings as variables, with nothing wrong.
pub(crate) struct Checked {
    variables: Vec<(String, String)>,
}

impl Checked {
    fn of(push: &str) -> Self {
        let address = loopback::address(&[1935, 1936, 6000, 6001, 6002, 8080]);
        let mut this = Self { variables: Vec::new() };
        for (name, port) in [
            ("RTMP_LISTEN", 1935),
            ("HTTP_LISTEN", 8080),
            ("CONTROL_LISTEN", 6001),
            ("LINK_LISTEN", 6002),
            ("SCALER_LISTEN", 6000),
        ] {
            this.set(name, &format!("{address}:{port}"));
        }
        this.set("RTMP_PUSH_URL", push).set("CONTROL_SECRET", "a secret of the scenarios");
        this
    }

    fn set(&mut self, name: &str, value: &str) -> &mut Self {
        let name = format!("LIVEEDGECAST_{name}");
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    fn typed(&self, words: &str) -> Typed {
        let typed = Typed::new(words);
        self.variables.iter().fold(typed, |typed, (name, value)| typed.with(name, value))
    }

    fn run(&self, words: &str) -> Said {
        self.typed(words).run()
    }
}

/// The lines of the findings, without the good ones.
fn findings(said: &Said) -> Vec<String> {
    said.output.lines().filter(|line| !line.starts_with("good ")).map(str::to_owned).collect()
}

/// A server that answers every request with this text.
pub(crate) fn answering(answer: &'static str) -> SocketAddr {
    let (address, listener) = loopback::listener(80, std::net::TcpListener::bind);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut socket, &mut request);
            let _ = std::io::Write::write_all(&mut socket, answer.as_bytes());
        }
    });
    address
}

/// An answer from the year 2000, with a key.
const OLD: &str = "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 27\r\nConnection: close\r\n\r\n{\"keys\":[{\"kty\":\"oct\"},{}]}";

/// A ScaledObject that fits the settings of [`Checked`], with one change.
fn scaled_object(from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(liveedgecast_e2e::publish::root().join("deploy/keda/scaled-object.yaml"))
        .expect("the manifest");
    let text = text.replace("maxReplicaCount: 20", "maxReplicaCount: 4");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

/// Each of ten faults: the words of its line, and how the settings come to have it.
pub(crate) type FaultRow = (&'static [&'static str], fn(&mut Checked, &Faulty));

/// The things that faults need.
pub(crate) struct Faulty {
    folder: tempfile::TempDir,
    sink: Sink,
    refusing: SocketAddr,
    secure: Sink,
    silent: std::net::TcpListener,
    old: SocketAddr,
}

pub(crate) const FAULTS: [FaultRow; 10] = [
    (&["mistake", "CAPACITY", "whole number"], |checked, _| {
        checked.set("CAPACITY", "many");
    }),
    (&["mistake", "LIVEEDGECAST_CAPACTY", "did you mean"], |checked, _| {
        checked.set("CAPACTY", "5");
    }),
    (&["fault", "port HTTP_LISTEN", "in use", "choose another"], |checked, faulty| {
        checked.set("HTTP_LISTEN", &faulty.silent.local_addr().expect("an address").to_string());
    }),
    (&["fault", "port LINK_LISTEN", "no address", "ip address"], |checked, _| {
        checked.set("LINK_LISTEN", "192.0.2.1:6002");
    }),
    (&["fault", "no server listens there", "correct the port"], |checked, faulty| {
        add(checked, &format!("rtmp://{}/a/{{key}}", faulty.refusing))
    }),
    (&["fault", "name has no address", "DNS"], |checked, _| add(checked, "rtmp://no-such-host.invalid/b/{key}")),
    (&["fault", "TLS", "SSL_CERT_FILE"], |checked, faulty| {
        add(checked, &format!("rtmps://{}/c/{{key}}", faulty.secure.address()))
    }),
    (&["fault", "does not speak RTMP", "correct"], |checked, faulty| {
        add(checked, &format!("rtmp://{}/d/{{key}}", faulty.old))
    }),
    (&["fault", "clock", "ahead of", "chrony"], |checked, faulty| {
        checked.set("JWT_JWKS_URL", &format!("http://{}/jwks", faulty.old));
    }),
    (&["fault", "scaledobject pollingInterval", "make it shorter"], |_, faulty| {
        let text = scaled_object("pollingInterval: 5", "pollingInterval: 600");
        std::fs::write(faulty.object(), text).expect("a file");
    }),
];

fn add(checked: &mut Checked, url: &str) {
    let (_, before) = checked.variables.iter().find(|(name, _)| name.ends_with("PUSH_URL")).expect("push URLs").clone();
    checked.set("RTMP_PUSH_URL", &format!("{before} {url}"));
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            sink: Sink::start(),
            refusing: loopback::socket(1935),
            secure: Sink::start_tls(|address| {
                liveedgecast_e2e::certificate::Authority::new().server(&address.ip().to_string())
            }),
            silent: std::net::TcpListener::bind((loopback::address(&[8080]), 8080)).expect("a listener"),
            old: answering(OLD),
        }
    }

    /// The command for settings that have these faults.
    pub(crate) fn typed(&self, faults: &[FaultRow]) -> Typed {
        let mut checked = Checked::of(&self.sink.url("live/{key}"));
        std::fs::write(self.object(), scaled_object("x", "x")).expect("a file");
        faults.iter().for_each(|(_, make)| make(&mut checked, self));
        checked.typed(&format!("check --scaled-object {}", self.object().display()))
    }

    fn object(&self) -> PathBuf {
        self.folder.path().join("object.yaml")
    }

    fn check(&self, faults: &[FaultRow]) -> Said {
        let said = self.typed(faults).run();
        // It has a session for each `publish`.
        assert!(self.sink.sessions().is_empty(), "a check publishes");
        said
    }
}

#[test]
fn check_of_a_good_set_up_finds_nothing_and_takes_the_dialogue_to_create_stream() {
    let faulty = Faulty::new();
    let said = faulty.check(&[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(findings(&said).is_empty(), "{said:?}");
    for word in
        ["configuration: no mistakes", "can be had", "takes streams (connect and createStream)", "scaledobject: fits"]
    {
        assert!(said.output.contains(word), "{word}: {said:?}");
    }
}

#[test]
fn ten_faults_are_ten_lines_each_with_its_fix() {
    let faulty = Faulty::new();
    let said = faulty.check(&FAULTS);
    let lines = findings(&said);
    assert_eq!((said.code, lines.len()), (Some(2), 10), "{}", said.output);
    for (words, _) in FAULTS {
        let has = |line: &&String| words.iter().all(|word| line.contains(word));
        assert_eq!(lines.iter().filter(has).count(), 1, "{words:?}:\n{}", said.output);
    }
}

#[test]
fn each_fault_alone_is_one_line_and_decides_the_exit_code() {
    let faulty = Faulty::new();
    for fault in FAULTS {
        let said = faulty.check(&[fault]);
        let lines = findings(&said);
        assert!(
            lines.len() == 1 && fault.0.iter().all(|word| lines[0].contains(word)),
            "{:?}:\n{}",
            fault.0,
            said.output
        );
        let code = if lines[0].starts_with("mistake") { 2 } else { 1 };
        assert_eq!(said.code, Some(code), "{}", said.output);
    }
}

#[test]
fn check_offline_dials_nobody_and_json_has_every_finding() {
    let faulty = Faulty::new();
    let mut checked = Checked::of(&format!("rtmp://{}/a/{{key}}", faulty.refusing));
    assert_eq!(checked.run("check --offline").code, Some(0));
    let said = checked.run("check --json");
    let json: Value = serde_json::from_str(&said.output).expect("JSON");
    assert_eq!((said.code, json["findings"][0]["part"].as_str()), (Some(1), Some("destination")), "{json}");
    assert!(json["findings"][0]["text"].as_str().is_some_and(|text| text.contains("correct the port")), "{json}");
    checked.set("RTMPS_CERT_FILE", "/nonexistent").set("RTMPS_KEY_FILE", "/nonexistent");
    let said = checked.run("check --offline");
    assert!(said.code == Some(2) && said.output.contains("RTMPS_CERT_FILE"), "{said:?}");
}

#[test]
fn check_beside_a_running_gateway_leaves_its_ports_alone() {
    let sink = Sink::start();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let mut checked = Checked::of(&sink.url("live/{key}"));
    let address = activator.http().ip();
    for (name, port) in [("RTMP_LISTEN", 1935), ("HTTP_LISTEN", 8080), ("CONTROL_LISTEN", 6001), ("LINK_LISTEN", 6002)]
    {
        checked.set(name, &format!("{address}:{port}"));
    }
    let said = checked.run("check");
    assert!(said.code == Some(0) && said.output.contains("a gateway runs here"), "{said:?}");
}

/// A fake Kubernetes API server: it gives one answer to every request, and keeps the first lines of the requests with their `Authorization`.
struct FakeKubernetesApi {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl FakeKubernetesApi {
    /// `answer`: status and body; nothing is answered without one.
    fn start(answer: Option<(u16, String)>) -> Self {
        let (address, listener) = loopback::listener(80, std::net::TcpListener::bind);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let keeps = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                let mut request = [0; 4096];
                let read = std::io::Read::read(&mut socket, &mut request).unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                let wanted = |line: &&str| line.starts_with("GET ") || line.starts_with("authorization:");
                keeps.lock().expect("the requests").push(text.lines().filter(wanted).collect::<Vec<_>>().join(" "));
                let Some((status, body)) = &answer else {
                    held.push(socket);
                    continue;
                };
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = std::io::Write::write_all(&mut socket, format!("{head}{body}").as_bytes());
            }
        });
        let this = Self { address, asked, folder: tempfile::tempdir().expect("a folder") };
        this.kubeconfig(address);
        this
    }

    /// Writes a kubeconfig that leads to an address.
    fn kubeconfig(&self, address: SocketAddr) -> std::path::PathBuf {
        let path = self.folder.path().join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a, namespace: edge}}}}]\n\
             clusters: [{{name: a, cluster: {{server: 'http://{address}'}}}}]\nusers: [{{name: a, user: {{token: {KEY_MARK}-token}}}}]\n"
        );
        std::fs::write(&path, text).expect("a kubeconfig");
        path
    }

    /// The lines of the ScaledObject that `check` prints for its settings, and what it was asked.
    fn check(&self, name: &str, change: impl FnOnce(&mut Checked)) -> (Said, Vec<String>) {
        let mut checked = Checked::of("rtmp://192.0.2.1/live/{key}");
        checked.variables.push(("KUBECONFIG".to_owned(), self.folder.path().join("config").display().to_string()));
        change(&mut checked);
        let said = checked.run(&format!("check --offline --kubernetes {name}"));
        (said, std::mem::take(&mut *self.asked.lock().expect("the requests")))
    }
}

/// The manifest of the ScaledObject as the API has it, for the settings of [`Checked`].
fn object_in_force() -> String {
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "worker", "namespace": "edge", "generation": 3, "annotations": {"a": "b"}},
        "spec": {
            "scaleTargetRef": {"name": "worker", "kind": "Deployment"},
            "pollingInterval": 5, "cooldownPeriod": 300, "idleReplicaCount": 0, "minReplicaCount": 1, "maxReplicaCount": 4,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}},
            "triggers": [{
                "type": "external-push", "metricType": "AverageValue",
                "metadata": {"scalerAddress": "scaler.edge.svc:6000", "target": "50"},
            }],
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "scaleTargetKind": "apps/v1.Deployment"},
    });
    object.to_string()
}

/// Status and body of a fake answer, or none; the words of the finding.
type RefusedRow = (Option<(u16, String)>, &'static [&'static str]);

/// A refusal as the API has it.
fn api_status(code: u16, message: &str) -> Option<(u16, String)> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": message});
    Some((code, body.to_string()))
}

#[test]
fn check_compares_the_object_that_a_fake_kubernetes_api_has() {
    let api = FakeKubernetesApi::start(Some((200, object_in_force())));
    let (said, asked) = api.check("edge/worker", |_| ());
    assert_eq!((said.code, findings(&said).len()), (Some(0), 0), "{said:?}");
    assert!(said.output.contains("scaledobject: fits"), "{said:?}");
    assert!(
        said.output.contains(&format!("edge/worker was read from the Kubernetes API at {}", api.address)),
        "{said:?}"
    );
    let line = "GET /apis/keda.sh/v1alpha1/namespaces/edge/scaledobjects/worker HTTP/1.1";
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with(line) && asked[0].ends_with(&format!("Bearer {KEY_MARK}-token")), "{asked:?}");
    // Without a namespace the kubeconfig's is meant.
    let (said, asked) = api.check("worker", |checked| {
        checked.set("CAPACITY", "40");
    });
    assert!(asked[0].starts_with(line), "{asked:?}");
    let lines = findings(&said);
    assert!(said.code == Some(1) && lines.len() == 1 && lines[0].contains("scaledobject target"), "{said:?}");
}

#[test]
fn refusals_of_a_fake_kubernetes_api_are_one_line_each_with_its_fix() {
    let forbidden = "scaledobjects.keda.sh \"worker\" is forbidden: User \"a\" cannot get resource";
    let rows: [RefusedRow; 8] = [
        (
            api_status(403, forbidden),
            &["refuses", "cannot get resource", "`get` `scaledobjects`", "`keda.sh`", "namespace edge"],
        ),
        (api_status(401, "Unauthorized"), &["refuses (Unauthorized)", "renew a credential"]),
        (
            api_status(404, "scaledobjects.keda.sh \"worker\" not found"),
            &["no ScaledObject worker in the namespace edge", "correct the name"],
        ),
        (Some((404, "404 page not found\n".to_owned())), &["knows no ScaledObjects: install KEDA"]),
        (api_status(500, "etcd \u{1b}[2J is away"), &["status 500", "etcd", "log"]),
        (Some((200, "<html>".to_owned())), &["status 200", "not JSON"]),
        (Some((200, "{\"kind\": \"Pod\"}".to_owned())), &["something else than a ScaledObject", "kubeconfig"]),
        (None, &["has not answered within 5 s"]),
    ];
    for (answer, words) in rows {
        let api = FakeKubernetesApi::start(answer);
        let (said, asked) = api.check("edge/worker", |_| ());
        let lines = findings(&said);
        assert_eq!((said.code, lines.len(), asked.len()), (Some(1), 1, 1), "{words:?}: {said:?}");
        assert!(words.iter().all(|word| lines[0].contains(word)), "{words:?}: {}", lines[0]);
    }
}

#[test]
fn kubernetes_api_that_is_away_or_has_no_way_to_it_is_one_line_with_its_fix() {
    let api = FakeKubernetesApi::start(None);
    let broken = |text: &str| {
        let path = api.folder.path().join(format!("broken-{}", text.len()));
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let away = |name: &str, kubeconfig: Option<String>| {
        let (said, asked) = api.check(name, |checked| {
            checked.variables.retain(|(name, _)| name != "KUBECONFIG");
            checked.variables.extend(kubeconfig.map(|path| ("KUBECONFIG".to_owned(), path)));
            checked.variables.push(("HOME".to_owned(), api.folder.path().display().to_string()));
        });
        assert!(asked.is_empty(), "{asked:?}");
        said
    };
    let closed = api.kubeconfig(loopback::socket(80)).display().to_string();
    for (kubeconfig, words) in [
        (None, vec!["there is no kubeconfig", "no pod with an account's token", "KUBECONFIG"]),
        (Some("/nonexistent/config".to_owned()), vec!["there is no kubeconfig /nonexistent/config", "KUBECONFIG"]),
        (Some(broken("clusters: [")), vec!["the kubeconfig cannot be used", "KUBECONFIG"]),
        (Some(broken("apiVersion: v1\nkind: Config\n")), vec!["the kubeconfig cannot be used", "context"]),
        (Some(closed), vec!["cannot be reached", "refused", "correct the address"]),
    ] {
        let said = away("edge/worker", kubeconfig);
        let lines = findings(&said);
        assert_eq!((said.code, lines.len()), (Some(1), 1), "{words:?}: {said:?}");
        assert!(words.iter().all(|word| lines[0].contains(word)), "{words:?}: {}", lines[0]);
    }
    let said = away("./object.yaml", None);
    assert!(said.code == Some(2) && said.errors.contains("--scaled-object"), "{said:?}");
}

/// The time so many hours and a half from now, or before now.
fn hours_from_now(hours: i64) -> SystemTime {
    let distance = Duration::from_secs(hours.unsigned_abs() * 3600 + 1800);
    let now = wall(now());
    if hours < 0 { now - distance } else { now + distance }
}

/// Hours from now at which a certificate ends; the weight of the finding and its words.
const ENDS: [(i64, Option<&str>, &str); 5] = [
    (-26, Some("fault"), "ended 26 hours ago"),
    (-24 * 40, Some("fault"), "ended 40 days ago"),
    (5, Some("warning"), "ends in 5 hours"),
    (24 * 13, Some("warning"), "ends in 13 days"),
    (24 * 15, None, ""),
];

#[test]
fn certificates_of_the_gateway_that_end_soon_or_have_ended_are_found_at_every_listener() {
    let authority = Authority::new();
    for (hours, weight, words) in ENDS {
        let files = authority.files_until("edge.example", hours_from_now(hours));
        let internal = authority.process_files(Duration::from_secs(24 * 3600));
        authority.renew_process_until(&internal, hours_from_now(hours), &[&authority]);
        let path = |path: &std::path::Path| path.display().to_string();
        let (certificate, key) = (path(&files.certificate), path(&files.key));
        let of_internal = internal.settings();
        let listener = |cert: &'static str, key_setting: &'static str| {
            vec![(cert, certificate.clone()), (key_setting, key.clone())]
        };
        for (setting, settings) in [
            ("RTMPS_CERT_FILE", listener("RTMPS_CERT_FILE", "RTMPS_KEY_FILE")),
            ("SCALER_TLS_CERT_FILE", listener("SCALER_TLS_CERT_FILE", "SCALER_TLS_KEY_FILE")),
            ("LIVEEDGECAST_INTERNAL_TLS_CERT_FILE", of_internal),
        ] {
            let mut checked = Checked::of("rtmp://192.0.2.1/live/{key}");
            for (name, value) in settings {
                checked.set(name.trim_start_matches("LIVEEDGECAST_"), &value);
            }
            if setting.starts_with("RTMPS") {
                let address = loopback::address(&[443]);
                checked.set("RTMPS_LISTEN", &format!("{address}:443"));
            }
            let said = checked.run("check --offline");
            let lines = findings(&said);
            match weight {
                None => {
                    assert!(lines.is_empty() && said.code == Some(0), "{setting} {hours}: {said:?}");
                    assert!(said.output.contains("lasts for 15 days"), "{setting} {hours}: {said:?}");
                }
                // With its internal certificate expired, a gateway does not start.
                Some("fault") if setting.ends_with("INTERNAL_TLS_CERT_FILE") => {
                    assert_eq!((lines.len(), said.code), (1, Some(2)), "{hours}: {said:?}");
                    assert!(lines[0].starts_with("mistake") && lines[0].contains("has expired: renew it"), "{said:?}");
                }
                Some(weight) => {
                    let code = if weight == "fault" { 1 } else { 0 };
                    assert_eq!((lines.len(), said.code), (1, Some(code)), "{setting} {hours}: {said:?}");
                    for word in [weight, &format!("certificate {setting}"), words, "renew it"] {
                        assert!(lines[0].contains(word), "{setting} {hours}: {word}: {}", lines[0]);
                    }
                }
            }
        }
    }
}

#[test]
fn certificate_of_a_destination_that_ends_soon_or_has_ended_is_found() {
    let authority = Authority::new();
    for (hours, weight, words) in ENDS {
        let sink = Sink::start_tls(|address| authority.server_until(&address.ip().to_string(), hours_from_now(hours)));
        let mut checked = Checked::of(&format!("rtmps://{}/live/{{key}}", sink.address()));
        checked.variables.push(("SSL_CERT_FILE".to_owned(), authority.file().display().to_string()));
        let said = checked.run("check");
        let lines = findings(&said);
        let Some(weight) = weight else {
            assert!(lines.is_empty() && said.code == Some(0), "{hours}: {said:?}");
            continue;
        };
        let code = if weight == "fault" { 1 } else { 0 };
        assert_eq!((lines.len(), said.code), (1, Some(code)), "{hours}: {said:?}");
        // TLS itself refuses one that has ended, in words of its own.
        let words = if weight == "fault" { "renew it" } else { words };
        let of = sink.address().to_string();
        for word in [weight, "destination RTMP_PUSH_URL 1", &of, words] {
            assert!(lines[0].contains(word), "{hours}: {word}: {}", lines[0]);
        }
    }
}

/// The finding of a check that publishes, or its good lines.
fn published(url: &str, words: &str) -> (Said, Vec<String>) {
    let said = Checked::of(url).run(words);
    let lines = findings(&said);
    (said, lines)
}

#[test]
fn check_publishes_when_asked_and_finds_a_key_that_nginx_refuses() {
    let own = key("of-the-url");
    for (nginx, words) in [
        (Nginx::refusing_by_hook(), ["in place of an answer to publish", "correct the stream key"]),
        // It answers that the stream may begin, and closes the connection.
        (Nginx::denying(), ["let the stream begin, and ended it at once", "correct the stream key"]),
    ] {
        let url = nginx.url(&format!("live/{own}"));
        let (said, lines) = published(&url, "check");
        assert!(said.code == Some(0) && lines.is_empty(), "nothing is published unasked: {said:?}");
        let (said, lines) = published(&url, "check --publish");
        assert_eq!((said.code, lines.len()), (Some(1), 1), "{said:?}");
        assert!(words.iter().all(|word| lines[0].contains(word)), "{words:?}: {}", lines[0]);
    }
}

#[test]
fn check_publishes_when_asked_and_ends_a_stream_that_nginx_takes() {
    let nginx = Nginx::accepting_by_hook();
    let own = key("of-the-url");
    let (said, lines) = published(&nginx.url(&format!("live/{own}")), "check --publish");
    assert!(said.code == Some(0) && lines.is_empty(), "{said:?}");
    assert!(
        said.output.contains("takes the stream (connect, createStream and publish), which was ended after a second"),
        "{said:?}"
    );
    let asked = nginx.hook_calls();
    assert!(asked.iter().any(|call| call.contains(&own)), "the hook was asked for the key of the URL: {asked:?}");
    until("nginx to have no stream any more", || !nginx.statistics().contains("<publishing/>"));
}

#[test]
fn check_publishes_with_the_keys_of_urls_alone_each_once_and_with_user_and_password() {
    let sink = Sink::start();
    let (first, second) = (key("first"), key("second"));
    let urls = [
        sink.url(&format!("a/{first}")),
        sink.url(&format!("a/{second}")),
        sink.url("a/{key}"),
        sink.url("{app}/fixed"),
    ];
    let said = Checked::of(&urls.join(" ")).run("check --publish");
    assert_eq!((said.code, findings(&said).len()), (Some(0), 0), "{said:?}");
    let mut keys: Vec<String> = sink.sessions().into_iter().map(|session| session.key).collect();
    keys.sort();
    let mut expected = vec![first, second];
    expected.sort();
    assert_eq!(keys, expected);
    assert_eq!(said.output.matches("connect, createStream and publish").count(), 2, "{said:?}");
    assert_eq!(said.output.matches("(connect and createStream)").count(), 2, "{said:?}");
    until("the sessions to end", || sink.sessions().iter().all(|session| session.ended.is_some()));
    for words in ["check --publish --offline", "check --publish --config a.yaml"] {
        let said = Typed::new(words).run();
        assert!(said.code == Some(2) && said.errors.contains("--publish"), "{words}: {said:?}");
    }
}

#[test]
fn refusals_of_publish_are_told_in_the_words_of_the_destination() {
    let own = key("of-the-url");
    for (code, words) in [
        ("NetStream.Publish.BadName", ["bad_name", "NetStream.Publish.BadName", "is live under this key"]),
        ("NetStream.Publish.Denied", ["denied", "NetStream.Publish.Denied", "correct the stream key"]),
    ] {
        let sink = Sink::start();
        sink.refuse(code);
        let (said, lines) = published(&sink.url(&format!("live/{own}")), "check --publish");
        assert_eq!((said.code, lines.len()), (Some(1), 1), "{said:?}");
        assert!(words.iter().all(|word| lines[0].contains(word)), "{words:?}: {}", lines[0]);
    }
}

#[test]
fn user_and_password_are_sent_where_a_check_publishes_and_nowhere_else() {
    let (sink, own) = (Sink::start(), key("of-the-url"));
    sink.ask_for_user();
    let url = format!("rtmp://foo:bar@{}/live/{own}", sink.address());
    let (said, lines) = published(&url, "check");
    assert!(said.code == Some(0) && lines.is_empty() && said.output.contains("which were not sent"), "{said:?}");
    assert!(sink.sessions().is_empty());
    let (said, lines) = published(&url, "check --publish");
    assert!(said.code == Some(0) && lines.is_empty(), "{said:?}");
    assert!(said.output.contains("createStream and publish") && !said.output.contains("bar@"), "{said:?}");
    let session = sink.only();
    assert!(session.app.contains("user=foo") && session.key == own, "{session:?}");
    let (said, lines) = published(&sink.url(&format!("live/{own}")), "check --publish");
    assert!(said.code == Some(1) && lines[0].contains("wants a user and a password"), "{said:?}");
}
