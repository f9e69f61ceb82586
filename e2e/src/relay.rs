//! Activators and workers, started as operators start them: by environment variables. In: settings. Out: a guard that knows all addresses.
//!
//! Note: every address here belongs to one scenario (see [`crate::loopback`]), so the usual ports are free and no port has to be read from
//! a log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::certificate::ServerFiles;
use crate::process::{Program, RunningProgram, cpu_time, descendants, program};
use crate::receiver::{EventReceiver, SIGNING_SECRET};
use crate::wait::{until, until_some};
use crate::{http, loopback};

/// The control secret of scenarios that start workers themselves.
const SECRET: &str = "a secret of the scenarios";

/// Path of one of the project's binaries.
///
/// # Panics
/// The binary has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let directory = std::env::var_os("LIVEEDGECAST_BIN_DIR").map(PathBuf::from);
    // target/debug/deps/scenario-0123 or target/debug/bench
    let own = std::env::current_exe().expect("the path of this program");
    let beside = own.ancestors().skip(1).find(|directory| directory.join(name).exists()).map(PathBuf::from);
    let found = directory.or(beside).map(|directory| directory.join(name)).filter(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} has not been built; ./tools/test.sh does, or cargo build --workspace --all-targets")
    })
}

/// Gives the program the runner's own `ENCRYPTION`: with `on` all scenarios run over TLS, loopback or not.
fn encrypting(program: Program) -> Program {
    match std::env::var("ENCRYPTION") {
        Ok(value) => program.env("ENCRYPTION", value),
        Err(_) => program,
    }
}

/// An activator that has not been started yet.
#[derive(Debug)]
pub struct Settings {
    program: Program,
    address: std::net::Ipv4Addr,
}

/// A running activator.
#[derive(Debug)]
pub struct ActivatorProcess {
    /// The process.
    pub process: RunningProgram,
    address: std::net::Ipv4Addr,
}

impl ActivatorProcess {
    /// Prepares an activator that pushes to `upstreams`: URLs, separated by white space.
    #[must_use]
    pub fn pushing_to(upstreams: &str) -> Settings {
        Self::at(loopback::address(&[1935, 1936, 6000, 6001, 6002, 8080]), upstreams)
    }

    /// Prepares an activator that pushes to `upstreams` and listens on the addresses of this one.
    #[must_use]
    pub fn beside(&self, upstreams: &str) -> Settings {
        Self::at(self.address, upstreams)
    }

    fn at(address: std::net::Ipv4Addr, upstreams: &str) -> Settings {
        let program = Program::new("activator", binary("liveedgecast-activator"))
            .clear_env()
            .env("RTMP_PUSH_URL", upstreams)
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG")
                    .unwrap_or_else(|_| "info,liveedgecast_activator=debug,liveedgecast_worker=debug".to_owned()),
            )
            .env("RTMP_LISTEN", format!("{address}:1935"))
            .env("HTTP_LISTEN", format!("{address}:8080"))
            .env("CONTROL_LISTEN", format!("{address}:6001"))
            .env("LINK_LISTEN", format!("{address}:6002"));
        Settings { program: encrypting(program), address }
    }

    /// Address of the RTMP listener.
    #[must_use]
    pub fn rtmp(&self) -> SocketAddr {
        SocketAddr::from((self.address, 1935))
    }

    /// Address of the RTMPS listener, after [`Settings::with_certificates`].
    #[must_use]
    pub fn rtmps(&self) -> SocketAddr {
        SocketAddr::from((self.address, 1936))
    }

    /// Address of the HTTP listener: `/metrics`, `/api/v1`, probes.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.address, 8080))
    }

    /// Address of the control listener, where workers register.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        SocketAddr::from((self.address, 6001))
    }

    /// The URL for a publisher.
    #[must_use]
    pub fn url(&self, app_and_key: &str) -> String {
        format!("rtmp://{}/{app_and_key}", self.rtmp())
    }

    /// The URL for a publisher by RTMPS.
    #[must_use]
    pub fn secure_url(&self, app_and_key: &str) -> String {
        format!("rtmps://{}/{app_and_key}", self.rtmps())
    }

    /// Id of the activator's process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ids of the activator's worker processes that run now.
    #[must_use]
    pub fn worker_processes(&self) -> Vec<u32> {
        let is_worker = |id: &u32| program(*id).is_some_and(|path| path.ends_with("liveedgecast-worker"));
        descendants(self.id()).into_iter().filter(is_worker).collect()
    }

    /// Ids of all descendants of the activator that run now.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        descendants(self.id())
    }

    /// CPU time of the activator, without its workers.
    #[must_use]
    pub fn cpu_time(&self) -> std::time::Duration {
        cpu_time(self.id())
    }

    /// The answer to `GET /api/v1/…`.
    #[must_use]
    pub fn api(&self, what: &str) -> Option<Value> {
        http::json(self.http(), &format!("/api/v1/{what}"))
    }

    /// `/api/v1/demand` as (waiting, live, demand).
    #[must_use]
    pub fn demand(&self) -> Option<(u64, u64, u64)> {
        let demand = self.api("demand")?;
        Some((demand["waiting"].as_u64()?, demand["live"].as_u64()?, demand["demand"].as_u64()?))
    }

    /// `/api/v1/streams`.
    #[must_use]
    pub fn streams(&self) -> Vec<Value> {
        self.api("streams").and_then(|streams| streams.as_array().cloned()).unwrap_or_default()
    }

    /// `/api/v1/workers`.
    #[must_use]
    pub fn workers(&self) -> Vec<Value> {
        self.api("workers").and_then(|workers| workers.as_array().cloned()).unwrap_or_default()
    }

    /// A metric of the activator or of a worker, whose metrics the activator serves as well.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        http::metric(&http::get(self.http(), "/metrics")?, name, labels)
    }

    /// Lines of the activator's log, its workers' lines included, that have this event.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Value> {
        let log = self.process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// Waits until a stream is in `state`.
    #[track_caller]
    pub fn has_a_stream_that_is(&self, state: &str) -> Value {
        until_some(format!("a stream that is {state}"), || {
            self.streams().into_iter().find(|stream| stream["state"] == state)
        })
    }

    /// Waits until no stream is left and no process but the activator.
    #[track_caller]
    pub fn is_back_to_zero(&self) {
        until("the last stream to be forgotten", || self.demand() == Some((0, 0, 0)));
        until("the last worker to go", || self.processes().is_empty());
    }
}

impl Drop for ActivatorProcess {
    fn drop(&mut self) {
        // Every key of the scenarios contains this mark; keys may appear nowhere but on the way to their upstream.
        if !std::thread::panicking() {
            let log = self.process.log();
            let told = log.lines().find(|line| line.contains(KEY_MARK));
            assert!(told.is_none(), "a stream key is in the log: {told:?}");
        }
    }
}

/// Part of every stream key of the scenarios.
pub const KEY_MARK: &str = "k3y";

/// A stream key that contains `name`.
#[must_use]
pub fn key(name: &str) -> String {
    format!("{name}-{KEY_MARK}")
}

impl Settings {
    /// Sets a setting by its environment variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.program = self.program.env(name, value);
        self
    }

    /// Lets the activator serve RTMPS with these certificates.
    #[must_use]
    pub fn with_certificates(self, files: &[&ServerFiles]) -> Self {
        let list = |path: fn(&ServerFiles) -> &Path| {
            files.iter().map(|files| path(files).display().to_string()).collect::<Vec<_>>().join(",")
        };
        let listen = format!("{}:1936", self.address);
        self.with("RTMPS_LISTEN", &listen)
            .with("RTMPS_CERT_FILE", &list(|files| &files.certificate))
            .with("RTMPS_KEY_FILE", &list(|files| &files.key))
    }

    /// The control address, where workers and other activators will find the activator.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        SocketAddr::from((self.address, 6001))
    }

    /// Lets the scenario start the workers itself; see [`WorkerProcess`].
    #[must_use]
    pub fn with_external_workers(self) -> Self {
        let scaler = format!("{}:6000", self.address);
        self.with("FLEET", "external").with("CONTROL_SECRET", SECRET).with("SCALER_LISTEN", &scaler)
    }

    /// Starts workers from the activator's own directory, in which the worker is `worker`, a shell script.
    ///
    /// # Panics
    /// The files cannot be written.
    #[must_use]
    pub fn with_worker_script(self, worker: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.program.directory().to_owned();
        let copy = directory.join("liveedgecast-activator");
        // `cp` copies the file: a program that the child of another thread still has open for writing cannot be started.
        let copied = std::process::Command::new("cp").arg(binary("liveedgecast-activator")).arg(&copy).status();
        assert!(copied.is_ok_and(|status| status.success()), "no copy of the activator");
        let script = directory.join("liveedgecast-worker");
        std::fs::write(&script, worker).expect("the script");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("its permissions");
        Self { program: self.program.instead(&copy), address: self.address }
    }

    /// Lets the activator post its events to a receiver.
    #[must_use]
    pub fn delivering_to(self, receiver: &EventReceiver) -> Self {
        self.with("LIVEEDGECAST_EVENTS_URL", &receiver.url()).with("LIVEEDGECAST_EVENTS_SECRET", SIGNING_SECRET)
    }

    /// Limits the activator to `most` open files.
    #[must_use]
    pub fn with_open_files(self, most: u32) -> Self {
        let shell = self.program.instead(std::path::Path::new("/bin/sh"));
        let script = format!("ulimit -n {most} && exec \"$0\"");
        Self { program: shell.arg("-c").arg(script).arg(binary("liveedgecast-activator")), address: self.address }
    }

    /// Connects standard error to a pipe that is full and that nobody reads.
    #[must_use]
    pub fn with_unread_errors(mut self) -> Self {
        self.program = self.program.with_unread_errors();
        self
    }

    /// Starts the activator and waits until it serves.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> ActivatorProcess {
        let process = self.program.start();
        let mut this = ActivatorProcess { process, address: self.address };
        until("the activator to serve", || {
            assert!(this.process.is_running(), "the activator has ended:\n{}", this.process.log());
            http::get(this.http(), "/healthz").is_some()
        });
        this
    }

    /// Starts the activator without waiting, for scenarios in which it does not serve.
    #[must_use]
    pub fn start_anyhow(self) -> RunningProgram {
        self.program.start()
    }
}

/// A worker that the scenario starts itself.
#[derive(Debug)]
pub struct WorkerProcess {
    /// The process.
    pub process: RunningProgram,
    http: SocketAddr,
}

impl WorkerProcess {
    /// Starts a worker that dials `activator`.
    #[must_use]
    pub fn of(activator: &ActivatorProcess) -> Self {
        Self::with(activator, &[])
    }

    /// Starts a worker with further settings, by environment variables.
    #[must_use]
    pub fn with(activator: &ActivatorProcess, settings: &[(&str, &str)]) -> Self {
        let http = loopback::socket(8081);
        let mut program = Program::new("worker", binary("liveedgecast-worker"))
            .clear_env()
            .env("ACTIVATOR", activator.control().to_string())
            .env("CONTROL_SECRET", SECRET)
            .env("RUST_LOG", "info,liveedgecast_worker=debug")
            .env("HTTP_LISTEN", http.to_string());
        program = encrypting(program);
        for (name, value) in settings {
            program = program.env(name, value);
        }
        Self { process: program.start(), http }
    }

    /// Address of the worker's `/metrics`.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }
}
