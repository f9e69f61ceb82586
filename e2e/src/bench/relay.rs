//! The measured relays, as processes. In: the relay's name, the sink's address. Out: the address to publish to, and the process id.
#![expect(clippy::disallowed_methods, reason = "shell: starts processes and waits for their ports")]

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;
use tokio::time::sleep;

use super::procfs;
use crate::orphans::Ward;

/// Relays between publishers and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum RelayKind {
    /// No relay: the cost of the machine itself.
    Direct,
    /// The bare loop: one receive into shared memory and one send.
    Floor,
    /// HAProxy, plain TCP, one thread.
    Haproxy,
    /// nginx-rtmp `push`, one worker.
    Nginx,
    /// LiveEdgeCast; the publishers' sockets are handed over.
    Descriptor,
    /// LiveEdgeCast with the activator in the path.
    Link,
}

impl RelayKind {
    /// Name of the relay's row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx-rtmp",
            Self::Descriptor => "liveedgecast descriptor",
            Self::Link => "liveedgecast link",
        }
    }

    /// True if the relay is LiveEdgeCast.
    #[must_use]
    pub fn ours(self) -> bool {
        matches!(self, Self::Descriptor | Self::Link)
    }
}

/// A relay as one row measures it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The relay.
    pub kind: RelayKind,
    /// Number of sinks that each stream is pushed to; more than one with LiveEdgeCast only.
    pub destinations: usize,
    /// True: the last sink reads nothing during the measurement.
    pub stall: bool,
    /// True: a configuration file has the sinks as a route, in place of push URLs.
    pub routes: bool,
    /// Further arguments of the activator.
    pub arguments: Vec<String>,
    /// True: pages are open and metrics are scraped during the measurement.
    pub watched: bool,
}

impl Subject {
    /// The relay as it is.
    #[must_use]
    pub fn plain(kind: RelayKind) -> Self {
        Self { kind, destinations: 1, stall: false, routes: false, arguments: Vec::new(), watched: false }
    }

    /// Name of the row.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = self.kind.as_str().to_owned();
        if self.destinations > 1 {
            name += &format!(", {} destinations", self.destinations);
        }
        if self.stall {
            name += ", one stalled";
        }
        if self.routes {
            name += ", by a route";
        }
        if self.watched {
            name += ", watched";
        }
        if !self.arguments.is_empty() {
            name += &format!(", {}", self.arguments.join(" "));
        }
        name
    }
}

/// A running relay; ended when dropped.
#[derive(Debug)]
pub struct BenchRelay {
    /// Address to which publishers connect.
    pub address: SocketAddr,
    /// Address of LiveEdgeCast's HTTP port.
    pub http: SocketAddr,
    /// The process, with the guard that ends it together with this one.
    child: Option<(Child, Ward)>,
    dir: TempDir,
}

/// Settings that a benchmark changes.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// Streams for which the floor makes rings beforehand.
    pub rings: u32,
    /// Idle time after which a worker of LiveEdgeCast ends.
    pub cooldown: String,
    /// Streams per worker of LiveEdgeCast.
    pub capacity: u32,
    /// Name the sinks as a route of a configuration file.
    pub routes: bool,
    /// Further arguments of the activator.
    pub arguments: Vec<String>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self { rings: 8, cooldown: "60s".into(), capacity: 10_000, routes: false, arguments: Vec::new() }
    }
}

impl BenchRelay {
    /// Starts a relay that pushes to the sinks, pinned to `core` if one is given. Peers push to the first one only.
    ///
    /// # Errors
    /// The relay's program is missing, or does not start.
    pub async fn start(
        kind: RelayKind,
        sinks: &[SocketAddr],
        core: Option<usize>,
        settings: &RelaySettings,
    ) -> anyhow::Result<Self> {
        let first = *sinks.first().context("a relay without a sink")?;
        let dir = tempfile::tempdir()?;
        if kind == RelayKind::Direct {
            return Ok(Self { address: first, http: first, child: None, dir });
        }
        // Another process may have taken a port since it was found free: then another port is tried.
        let mut last = None;
        for _ in 0..5 {
            let (address, http) = (free_address()?, free_address()?);
            let mut relay = Self { address, http, child: None, dir: tempfile::tempdir()? };
            relay.child = Some(pinned(core, || relay.spawn(kind, sinks, settings))?);
            match relay.ready().await {
                Ok(()) => return Ok(relay),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no relay was started")?)
    }

    fn spawn(&self, kind: RelayKind, sinks: &[SocketAddr], settings: &RelaySettings) -> anyhow::Result<(Child, Ward)> {
        let log = fs::File::create(self.dir.path().join("log"))?;
        let sink = *sinks.first().context("a relay without a sink")?;
        let mut command = match kind {
            RelayKind::Direct => bail!("direct is no process"),
            RelayKind::Floor => self.floor(sink, settings)?,
            RelayKind::Haproxy => self.haproxy(sink)?,
            RelayKind::Nginx => self.nginx(sink)?,
            RelayKind::Descriptor => self.ours(sinks, "descriptor", settings)?,
            RelayKind::Link => self.ours(sinks, "link", settings)?,
        };
        let name = command.get_program().to_owned();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).process_group(0);
        // The floor says what it drops, which belongs beside the benchmark's own complaints.
        command.stderr(if kind == RelayKind::Floor { Stdio::inherit() } else { log.into() });
        let child = command.spawn().with_context(|| format!("cannot start {}", name.display()))?;
        let ward = Ward::new(child.id());
        Ok((child, ward))
    }

    fn floor(&self, sink: SocketAddr, settings: &RelaySettings) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("bench-floor")?);
        command.args([self.address.to_string(), sink.to_string(), settings.rings.to_string()]);
        Ok(command)
    }

    fn haproxy(&self, sink: SocketAddr) -> anyhow::Result<Command> {
        let config = format!(
            "global\n  nbthread 1\n  maxconn 8000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen relay\n  bind {}\n  server sink {sink}\n",
            self.address
        );
        let path = self.dir.path().join("haproxy.cfg");
        fs::write(&path, config)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(path);
        Ok(command)
    }

    fn nginx(&self, sink: SocketAddr) -> anyhow::Result<Command> {
        let config = format!(
            "daemon off;\nuser root;\nmaster_process on;\nworker_processes 1;\npid nginx.pid;\nerror_log error.log warn;\n{}\
             events {{ worker_connections 8192; }}\n\
             rtmp {{ server {{ listen {}; chunk_size 4096; application live {{ live on; push rtmp://{sink}/live; }} }} }}\n",
            nginx_module(),
            self.address
        );
        fs::write(self.dir.path().join("nginx.conf"), config)?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(self.dir.path()).arg("-c").arg("nginx.conf");
        Ok(command)
    }

    fn ours(&self, sinks: &[SocketAddr], handoff: &str, settings: &RelaySettings) -> anyhow::Result<Command> {
        let program = binary("liveedgecast-activator")?;
        let mut command = Command::new(program);
        command
            .args(["--rtmp-listen", &self.address.to_string(), "--handoff", handoff])
            .args(["--http-listen", &self.http.to_string()])
            .args(["--control-listen", "127.0.0.1:0", "--link-listen", "127.0.0.1:0"])
            .args(self.destinations(sinks, settings)?)
            .args([
                "--capacity",
                &settings.capacity.to_string(),
                "--cooldown",
                &settings.cooldown,
                "--max-workers",
                "1",
                // All publishers come from one address, as no audience does.
                "--publish-burst",
                "100000",
            ])
            .args(&settings.arguments)
            .env("RUST_LOG", "warn");
        Ok(command)
    }

    /// The arguments that name the sinks.
    fn destinations(&self, sinks: &[SocketAddr], settings: &RelaySettings) -> io::Result<Vec<String>> {
        if !settings.routes {
            return Ok(sinks.iter().map(|sink| format!("--push-url=rtmp://{sink}/live/{{key}}")).collect());
        }
        let mut config = "admission: {open: true}\nroutes:\n  default:\n    destinations:\n".to_owned();
        for (at, sink) in sinks.iter().enumerate() {
            config += &format!("      - {{name: sink-{at}, url: \"rtmp://{sink}/live/{{key}}\"}}\n");
        }
        let path = self.dir.path().join("routes.yaml");
        fs::write(&path, config)?;
        Ok(vec![format!("--config={}", path.display())])
    }

    /// Waits until the relay listens on its port.
    async fn ready(&mut self) -> anyhow::Result<()> {
        for _ in 0..1000 {
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                return Ok(());
            }
            if let Some((child, _)) = &mut self.child {
                let ended = child.try_wait()?;
                ensure!(ended.is_none(), "the relay ended at once: {}", self.log());
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("the relay does not listen: {}", self.log())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Cost of the relay so far.
    #[must_use]
    pub fn cost(&self) -> procfs::Cost {
        self.child.as_ref().map(|(child, _)| procfs::cost(child.id())).unwrap_or_default()
    }

    /// Number of the relay's processes, descendants included.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.child.as_ref().map_or(0, |(child, _)| procfs::tree(child.id()).len())
    }
}

impl Drop for BenchRelay {
    fn drop(&mut self) {
        let Some((child, _)) = &mut self.child else { return };
        let processes = procfs::tree(child.id());
        for id in processes {
            if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
                // An error means that the process has already ended.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = child.wait();
    }
}

/// Path of a project binary in the directory of this one.
///
/// # Errors
/// The binary has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let beside = here.parent().context("a binary without a folder")?.join(name);
    ensure!(beside.exists(), "{} is not there: build the workspace with the same profile", beside.display());
    Ok(beside)
}

/// Directive that loads the RTMP module: Debian has the module beside the binary; elsewhere it may be built in.
fn nginx_module() -> &'static str {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
    if std::path::Path::new(MODULE).exists() { "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;\n" } else { "" }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Spawns with a CPU affinity, which the child inherits.
fn pinned<T>(core: Option<usize>, spawn: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let Some(core) = core else { return spawn() };
    let before = sched_getaffinity(None)?;
    pin(core)?;
    let spawned = spawn();
    sched_setaffinity(None, &before)?;
    spawned
}

/// Pins the calling thread, and all that it starts, to one core.
///
/// # Errors
/// The machine has no such core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
