//! The command `check`: a set-up without faults, one with ten, and each of the ten alone.
#![expect(clippy::disallowed_methods, reason = "shell: a thread for a server of the scenario")]

use std::net::SocketAddr;
use std::path::PathBuf;

use liveedgecast_e2e::loopback;
use liveedgecast_e2e::relay::ActivatorProcess;
use liveedgecast_e2e::sink::Sink;
use serde_json::Value;

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
