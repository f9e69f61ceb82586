//! The resolved configuration. In: [`Args`], and the machine's name and cores and the process id. Out:
//! [`Settings`] or all [`Problems`]. Reads the files that `CONTROL_SECRET_FILE` and `INTERNAL_TLS_…` name, and touches nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use liveedgecast_common::config::{Problems, source_of, value_or_file};
use liveedgecast_common::encryption::{Encryption, Protection};
use liveedgecast_common::key::{MAX_INSTANCE_NAME, Secret, instance_name, is_instance_name};
use liveedgecast_common::setting::{
    Handoff, LEAST_SECRET, MAX_CAPACITY, address, choice, gather, is_host, number, set, shown, time,
};
use liveedgecast_common::trace::Collector;

use super::args::Args;

/// Threads for streams at most: more than cores of any machine that this runs on, each of them with a stack.
const MOST_THREADS: u32 = 256;

/// Default address for HTTP.
const HTTP_LISTEN: &str = "[::]:8081";

/// The address of HTTP, whatever the other arguments are: a health check needs no more. `None` if the port is the kernel's choice.
///
/// # Errors
/// It is no address.
pub fn http_address(args: &Args) -> Result<Option<SocketAddr>, Problems> {
    let mut problems = Problems::new();
    let http = address("HTTP_LISTEN", &args.http_listen, HTTP_LISTEN, &mut problems);
    problems.into_result().map(|()| (http.port() != 0).then_some(http))
}

/// Activators to register at: a name is resolved again and again, an address stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activator {
    /// An address.
    Address(SocketAddr),
    /// A name; every address of it is an activator.
    Name {
        /// The name.
        host: String,
        /// The control port.
        port: u16,
    },
}

impl Activator {
    /// True if a connection to it stays on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().is_loopback(),
            Self::Name { host, .. } => host == "localhost",
        }
    }
}

impl fmt::Display for Activator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Facts about the process that do not come from its arguments.
#[derive(Clone, Debug)]
pub struct Here {
    /// The machine's name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Cores that the process may use.
    pub cores: usize,
    /// Beginning of the process.
    pub began: Instant,
}

/// The configuration, good.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this worker.
    pub name: String,
    /// Activators to register at.
    pub activator: Activator,
    /// Address of any one activator, which introduces the others.
    pub introducer: Option<Activator>,
    /// Connections to activators that are encrypted, and the certificates of both sides.
    pub protection: Protection,
    /// Shared with activators.
    pub secret: Secret,
    /// Metrics and health.
    pub http: SocketAddr,
    /// Streams at most.
    pub capacity: u32,
    /// Offers that are accepted.
    pub handoff: Handoff,
    /// Time that live streams have to move when the process is asked to stop.
    pub drain: Duration,
    /// Time for which what a publisher sends gathers before it is relayed.
    pub gather: Duration,
    /// Threads for streams at most.
    pub threads: usize,
    /// True if the process ends without an activator.
    pub exit_when_orphaned: bool,
    /// Beginning of the process.
    pub began: Instant,
    /// The collector of traces.
    pub traces: Option<Collector>,
}

impl Settings {
    /// Judges the arguments.
    ///
    /// # Errors
    /// Every mistake, each with its fix.
    pub fn resolve(args: &Args, here: &Here) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let settings = Self::judge(args, here, &mut problems);
        problems.into_result().map(|()| settings)
    }

    /// The same for a caller that has other settings to judge too; the result counts only when `problems` stayed empty.
    pub fn judge(args: &Args, here: &Here, p: &mut Problems) -> Self {
        let (activator, introducer) = (activator(args, p), introducer(args, p));
        let on_loopback = activator.is_loopback() && introducer.as_ref().is_none_or(Activator::is_loopback);
        let handoff = choice("HANDOFF", &args.handoff, &Handoff::CHOICES, p);
        let cores = u32::try_from(here.cores).unwrap_or(MOST_THREADS).clamp(1, MOST_THREADS);
        let threads = number("STREAM_THREADS", &args.stream_threads, cores, 1, MOST_THREADS, p);
        let encryption = choice("ENCRYPTION", &args.encryption, &Encryption::CHOICES, p);
        Self {
            name: name(args, here, p),
            protection: args.internal_tls.resolve(encryption, p),
            traces: args.traces.resolve(p),
            secret: secret(args, on_loopback, p),
            activator,
            introducer,
            http: address("HTTP_LISTEN", &args.http_listen, HTTP_LISTEN, p),
            capacity: number("CAPACITY", &args.capacity, 50, 1, MAX_CAPACITY, p),
            handoff,
            drain: time("DRAIN_TIMEOUT", &args.drain_timeout, "8s", Duration::ZERO, p),
            gather: gather(&args.gather, p),
            threads: usize::try_from(threads).unwrap_or(1),
            exit_when_orphaned: args.exit_when_orphaned,
            began: here.began,
        }
    }
}

fn name(args: &Args, here: &Here, problems: &mut Problems) -> String {
    let Some(name) = set(&args.name) else { return instance_name(&format!("{}-{}", here.host, here.pid)) };
    if !is_instance_name(name) {
        let text = format_args!("{name:?} is no name: write up to {MAX_INSTANCE_NAME} letters, digits, - _ . : or ~");
        problems.add("WORKER_NAME", text);
    }
    name.to_owned()
}

fn secret(args: &Args, on_loopback: bool, problems: &mut Problems) -> Secret {
    const SAME: &str = "give it the same as the activator's";
    let before = problems.iter().count();
    let file = args.control_secret_file.as_deref();
    let given = value_or_file("CONTROL_SECRET", shown(&args.control_secret), file, problems);
    match &given {
        Some(secret) if !on_loopback && secret.len() < LEAST_SECRET => {
            let setting = source_of("CONTROL_SECRET", file);
            problems.add(setting, format_args!("is shorter than {LEAST_SECRET} bytes: {SAME}"));
        }
        None if problems.iter().count() == before => {
            problems.add("CONTROL_SECRET", format_args!("is required: {SAME}"));
        }
        _ => {}
    }
    Secret::new(given.unwrap_or_default())
}

fn activator(args: &Args, problems: &mut Problems) -> Activator {
    let text = set(&args.activator).unwrap_or("127.0.0.1:6001");
    parse_activator(text).unwrap_or_else(|| {
        let text =
            format_args!("{text:?} is not where an activator is: write HOST:PORT, such as liveedgecast-activator:6001");
        problems.add("ACTIVATOR", text);
        Activator::Address(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0))
    })
}

fn introducer(args: &Args, problems: &mut Problems) -> Option<Activator> {
    let text = set(&args.introducer)?;
    let address = parse_activator(text);
    if address.is_none() {
        let text = format_args!(
            "{text:?} is not where an activator is: write HOST:PORT, such as liveedgecast-introducer:6001"
        );
        problems.add("INTRODUCER", text);
    }
    address
}

fn parse_activator(text: &str) -> Option<Activator> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(Activator::Address(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    is_host(host).then(|| Activator::Name { host: host.to_ascii_lowercase(), port })
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
