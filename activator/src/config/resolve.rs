//! The resolved configuration. In: [`Args`], and 32 random bytes for a secret of our own. Out: [`Settings`] or
//! all [`Problems`]. Reads the files that `*_FILE` settings name, and touches nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use liveedgecast_common::config::{
    ByteSize, FileError, Problems, PublishKeys, parse_duration, read_file, read_whole_file, show_duration, source_of,
    value_or_file,
};
use liveedgecast_common::encryption::{CertificateFiles, Encryption, Protection};
use liveedgecast_common::key::Secret;
use liveedgecast_common::url::PushTemplate;

use liveedgecast_common::setting::{
    Handoff, Hidden, LEAST_SECRET, MAX_CAPACITY, MOST_TIME, address, choice, file, gather, is_host, number, set, shown,
    time,
};
use liveedgecast_common::trace::Collector;

use super::args::Args;
use super::file::{ConfigFile, Given, parse as parse_file};
use super::hook::Hooks;
use super::incidents::{self, IncidentFolder};
use super::jwt::{Jwt, JwtArgs};
use super::kubernetes::{self, Kubernetes};
use super::proxies::{AddressRange, TrustedProxies};
use super::rtmps::RtmpsTls;
use super::tls::{ScalerTls, TlsFiles};
use super::tokens::{self, ApiTokens, TokenSources};
use super::webhook::{self, EventHook};

/// Smallest replay window, in bytes: a keyframe of 5 MB must fit with what follows it. A message that does not is skipped.
const LEAST_REPLAY: u64 = 8 << 20;
/// Largest replay window: it is memory per stream.
const MOST_REPLAY: u64 = 1 << 30;

/// Default of the most workers with `FLEET=external`.
const EXTERNAL_WORKERS: u32 = 20;
/// Default address for HTTP.
const HTTP_LISTEN: &str = "[::]:8080";
/// The words of a setting that is asked for or not.
pub(super) const ANSWERS: [(&str, bool); 4] = [("no", false), ("yes", true), ("false", false), ("true", true)];

/// The starter of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fleet {
    /// The activator itself, as processes on this machine.
    Process,
    /// A program outside, such as Kubernetes.
    External,
}

impl Fleet {
    /// The value of the setting `FLEET`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::External => "external",
        }
    }
}

/// The addresses to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Publishers.
    pub rtmp: SocketAddr,
    /// Publishers by TLS, if at all.
    pub rtmps: Option<SocketAddr>,
    /// Metrics, health, API.
    pub http: SocketAddr,
    /// Workers register here.
    pub control: SocketAddr,
    /// Workers fetch streams here.
    pub link: SocketAddr,
    /// KEDA calls here, if at all.
    pub scaler: Option<SocketAddr>,
    /// True if a successor of this activator may listen there too.
    pub shared: bool,
}

impl Listen {
    /// True if publishers come from this machine alone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.rtmp.ip().is_loopback() && self.rtmps.is_none_or(|rtmps| rtmps.ip().is_loopback())
    }
}

/// Part of a stream that is kept for an upstream that was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayWindow {
    /// Longest time.
    pub time: Duration,
    /// Most bytes; a power of two.
    pub bytes: u64,
}

/// The address of other activators: every address that the name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// A name, or an address.
    pub host: String,
    /// The control port.
    pub port: u16,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Connections that may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections. 16384: ten thousand held publishers and room for undecided connections; at a few KiB each.
    pub total: usize,
    /// Most connections from one address. 4096: a load balancer that hides its clients' addresses must still fit.
    pub per_address: usize,
    /// Most connections from one address that are not admitted yet. 1024: a venue of a thousand encoders that reconnect in the same moment, and no more.
    pub strangers_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 16_384, per_address: 4_096, strangers_per_address: 1024 }
    }
}

/// How often one address may publish where anyone may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishRate {
    /// Publishers at once …
    pub burst: u32,
    /// … and one more after each of these.
    pub every: Duration,
}

/// How many streams one address may have where anyone may publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Most streams of one address.
    pub most: usize,
    /// True if the bound holds for this machine's own addresses too, through which a proxy may bring others.
    pub here_too: bool,
}

impl Share {
    /// True if an address with so many streams may have one more.
    pub fn has_room(&self, address: IpAddr, streams: usize) -> bool {
        streams < self.most || (!self.here_too && address.to_canonical().is_loopback())
    }
}

/// The configuration, good.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The content of the configuration file, if there is one.
    pub entries: Option<Arc<ConfigFile>>,
    /// The configuration file.
    pub config_file: Option<PathBuf>,
    /// Templates of the upstreams' URLs.
    pub push: Vec<PushTemplate>,
    /// File from which `push` was read, if any.
    pub push_file: Option<PathBuf>,
    /// Keys of publishers; `None` if anyone may publish.
    pub keys: Option<PublishKeys>,
    /// File from which `keys` were read, if any.
    pub keys_file: Option<PathBuf>,
    /// Servers that are asked about publishers, of the variables.
    pub hooks: Hooks,
    /// The rules of tokens, of the variables.
    pub jwt: Option<Arc<Jwt>>,
    /// The variables that they come from, whose files may change.
    pub jwt_args: JwtArgs,
    /// Addresses.
    pub listen: Listen,
    /// Addresses of the other activators; none if this is the only one.
    pub peers: Vec<PeerAddress>,
    /// Address of any one of them.
    pub introducer: Option<PeerAddress>,
    /// Proxies whose PROXY header counts.
    pub proxies: TrustedProxies,
    /// Certificates for publishers by TLS; with [`Listen::rtmps`] alone.
    pub rtmps_tls: Option<RtmpsTls>,
    /// Certificate of the scaler, and authorities of its clients.
    pub scaler_tls: Option<ScalerTls>,
    /// `/stat` shows the keys of publishers at this activator.
    pub stat_shows_keys: bool,
    /// Connections with workers and other activators that are encrypted, and the certificates of both sides.
    pub protection: Protection,
    /// Shared with workers.
    pub secret: Secret,
    /// Tokens of the HTTP API, as they were at the start.
    pub tokens: ApiTokens,
    /// The settings and files that they come from.
    pub token_sources: TokenSources,
    /// The starter of workers.
    pub fleet: Fleet,
    /// Ways in which streams are handed over.
    pub handoff: Handoff,
    /// Settings for calls to the Kubernetes API, if it is called.
    pub kubernetes: Option<Kubernetes>,
    /// Streams per worker.
    pub capacity: u32,
    /// Most workers that this activator starts or asks for.
    pub max_workers: u32,
    /// Workers of the always-on fleet that worker-seconds are compared with.
    pub baseline: u32,
    /// Metrics have rows by the names of publishers that the configuration file lists.
    pub names_publishers: bool,
    /// Idle time after which a worker may end.
    pub cooldown: Duration,
    /// Longest hold of a publisher.
    pub hold: Duration,
    /// Time for which a lost publisher's upstream sessions are kept.
    pub grace: Duration,
    /// Part of a stream that is replayed to an upstream that was away.
    pub replay: ReplayWindow,
    /// Most lag of an upstream.
    pub upstream_lag: Duration,
    /// Time for which what a publisher sends gathers before it is relayed.
    pub gather: Duration,
    /// Time that live streams have when the process is asked to stop.
    pub drain: Duration,
    /// Bounds on connections.
    pub limits: Limits,
    /// Bound on publishers of one address in a time.
    pub publish: PublishRate,
    /// Bound on streams of one address.
    pub share: Share,
    /// The receiver of events, if there is one.
    pub events: Option<EventHook>,
    /// The collector of traces.
    pub traces: Option<Collector>,
    /// The folder of incidents, if there is to be one.
    pub incidents: Option<IncidentFolder>,
}

impl Settings {
    /// Judges the arguments.
    ///
    /// # Errors
    /// Every mistake, each with its fix.
    pub fn resolve(args: &Args, random: [u8; 32]) -> Result<Self, Problems> {
        let (settings, problems) = Self::read(args, random);
        problems.into_result().map(|()| settings)
    }

    /// Judges the arguments, and returns the mistakes beside settings in which each mistake has a harmless stand-in: for a check of everything else.
    #[must_use]
    pub fn read(args: &Args, random: [u8; 32]) -> (Self, Problems) {
        let mut problems = Problems::new();
        let p = &mut problems;
        let config_file = file(&args.config);
        let push = push_urls(args, config_file.is_some(), p);
        let keys = value_or_file("PUBLISH_KEYS", shown(&args.publish_keys), args.publish_keys_file.as_deref(), p)
            .and_then(|text| {
                p.check(&source_of("PUBLISH_KEYS", args.publish_keys_file.as_deref()), PublishKeys::parse(&text))
            });
        let hooks = Hooks::resolve(args, p);
        let jwt = args.jwt.resolve(p).map(Arc::new);
        let given = Given {
            default_route: !push.is_empty(),
            publishers: keys.is_some(),
            jwt: args.jwt.is_given(),
            hook: hooks.publish.is_some(),
        };
        let entries = config_file.as_deref().and_then(|path| read_entries(path, given, p));

        let events = webhook::resolve(args, entries.as_ref().and_then(|file| file.events.as_ref()), p);

        let fleet = choice("FLEET", &args.fleet, &[("process", Fleet::Process), ("external", Fleet::External)], p);
        let handoff = choice("HANDOFF", &args.handoff, &Handoff::CHOICES, p);
        let listen = addresses(args, fleet, p);
        let secret = secret(args, fleet, &listen, random, p);
        let token_sources = TokenSources::new(args, secret.clone(), p);
        let asked_to_be_open = choice("LIVEEDGECAST_OPEN", &args.open, &ANSWERS, p);
        let somebody_decides =
            keys.is_some() || hooks.publish.is_some() || args.jwt.is_given() || config_file.is_some();
        if !asked_to_be_open && !somebody_decides && !listen.is_local() {
            nobody_was_named(args, &listen, p);
        }

        let kubernetes = kubernetes::resolve(args, fleet, p);
        let second = Duration::from_secs(1);
        let most_workers = if fleet == Fleet::External { EXTERNAL_WORKERS } else { 4 };
        let max_workers = number("MAX_WORKERS", &args.max_workers, most_workers, 1, 256, p);
        let capacity = number("CAPACITY", &args.capacity, 50, 1, MAX_CAPACITY, p);
        let encryption = choice("ENCRYPTION", &args.encryption, &Encryption::CHOICES, p);
        let listed = entries.as_ref().map(|file| file.trusted_proxies.clone()).unwrap_or_default();
        let settings = Self {
            proxies: TrustedProxies::new(trusted_proxies(args, p), listed),
            entries: entries.map(Arc::new),
            config_file,
            push,
            push_file: file(&args.push_url_file),
            keys,
            keys_file: file(&args.publish_keys_file),
            hooks,
            jwt,
            jwt_args: args.jwt.clone(),
            listen,
            peers: peer_addresses(args, fleet, &listen, p),
            introducer: introducer(args, &listen, p),
            rtmps_tls: rtmps_tls(args, handoff, p),
            scaler_tls: scaler_tls(args, &listen, p),
            stat_shows_keys: choice("STAT_NAMES", &args.stat_names, &[("publisher", false), ("key", true)], p),
            tokens: tokens::resolve(&token_sources, p),
            token_sources,
            protection: args.internal_tls.resolve(encryption, p),
            secret,
            fleet,
            handoff,
            max_workers,
            baseline: number("LIVEEDGECAST_BASELINE_WORKERS", &args.baseline_workers, 1, 0, 100_000, p),
            names_publishers: choice("LIVEEDGECAST_PUBLISHER_METRICS", &args.publisher_metrics, &ANSWERS, p),
            kubernetes,
            capacity,
            cooldown: time("COOLDOWN", &args.cooldown, "30s", Duration::ZERO, p),
            hold: time("HOLD_TIMEOUT", &args.hold_timeout, "120s", second, p),
            grace: time("GRACE", &args.grace, "10s", Duration::ZERO, p),
            replay: replay_window(args, p),
            upstream_lag: time("UPSTREAM_LAG", &args.upstream_lag, "2s", Duration::from_millis(100), p),
            gather: gather(&args.gather, p),
            drain: time("DRAIN_TIMEOUT", &args.drain_timeout, "8s", Duration::ZERO, p),
            limits: limits(args, p),
            publish: PublishRate {
                burst: number("PUBLISH_BURST", &args.publish_burst, 1000, 1, 1_000_000, p),
                every: second / number("PUBLISH_RATE", &args.publish_rate, 4, 1, 100_000, p),
            },
            share: share(args, capacity * max_workers, p),
            events,
            traces: args.traces.resolve(p),
            incidents: incidents::resolve(args, p),
        };
        (settings, problems)
    }

    /// True if anyone who reaches the RTMP or RTMPS port may publish, from other machines too.
    pub fn is_open_to_strangers(&self) -> bool {
        let asks = self.hooks.publish.is_some() || self.jwt.is_some();
        let open = self.entries.as_ref().map_or(self.keys.is_none() && !asks, |file| file.is_open() && !asks);
        open && !self.listen.is_local()
    }
}

/// Parses the push URLs of a text.
pub(super) fn parse_push(text: &str, setting: &str, problems: &mut Problems) -> Vec<PushTemplate> {
    PushTemplate::parse_list(text).unwrap_or_else(|errors| {
        for (number, error) in errors {
            match number {
                0 => problems.add(setting, error),
                number => problems.add(setting, format_args!("URL {number}: {error}")),
            }
        }
        Vec::new()
    })
}

/// Reads a configuration file.
pub(super) fn read_entries(path: &Path, given: Given, problems: &mut Problems) -> Option<ConfigFile> {
    read_config(path, given, read_file, problems)
}

/// Reads a configuration file; `read` reads the files that it names.
pub(super) fn read_config(
    path: &Path,
    given: Given,
    read: impl Fn(&Path) -> Result<String, FileError>,
    problems: &mut Problems,
) -> Option<ConfigFile> {
    let text = problems.check("LIVEEDGECAST_CONFIG", read_whole_file(path))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    match parse_file(&text, folder, given, read) {
        Ok(file) => Some(file),
        Err(mistakes) => {
            for mistake in mistakes {
                problems.add(format!("{}:{}", path.display(), mistake.place()), mistake.words());
            }
            None
        }
    }
}

/// Judges a configuration file alone.
///
/// # Errors
/// Every mistake, each with its place and its fix.
pub fn check_file(path: &Path, given: Given) -> Result<ConfigFile, Problems> {
    let mut problems = Problems::new();
    let file = read_entries(path, given, &mut problems);
    problems.into_result().map(|()| file.unwrap_or_default())
}

/// Judges the text of a configuration file. `read` reads the files that it names.
///
/// # Errors
/// Every mistake, each with its place and its fix.
pub fn check_text(text: &str, read: impl Fn(&Path) -> Result<String, FileError>) -> Result<ConfigFile, Problems> {
    let mut problems = Problems::new();
    let file = parse_file(text, Path::new(""), Given::default(), read);
    let file = file.map_err(|mistakes| {
        mistakes.iter().for_each(|mistake| problems.add(mistake.place().to_string(), mistake.words()));
    });
    problems.into_result().map(|()| file.unwrap_or_default())
}

fn push_urls(args: &Args, has_file: bool, problems: &mut Problems) -> Vec<PushTemplate> {
    let urls: Vec<&str> = args.push_url.iter().map(|Hidden(text)| text.as_str()).collect();
    let before = problems.iter().count();
    match value_or_file("RTMP_PUSH_URL", Some(&urls.join(" ")), args.push_url_file.as_deref(), problems) {
        Some(text) => parse_push(&text, &source_of("RTMP_PUSH_URL", args.push_url_file.as_deref()), problems),
        None => {
            if problems.iter().count() == before && !has_file {
                let text = "is required: where streams are pushed, such as rtmp://a.example/live/{key}";
                problems.add("RTMP_PUSH_URL", text);
            }
            Vec::new()
        }
    }
}

/// Notes that strangers could publish, which nobody has asked for; nothing if the keys have a mistake of their own.
fn nobody_was_named(args: &Args, listen: &Listen, problems: &mut Problems) {
    let keys = [
        shown(&args.publish_keys).is_some_and(|keys| !keys.trim().is_empty()),
        file(&args.publish_keys_file).is_some(),
    ];
    if keys.contains(&true) {
        return;
    }
    let reached = listen.rtmps.filter(|_| listen.rtmp.ip().is_loopback()).unwrap_or(listen.rtmp);
    let text = format_args!(
        "nobody is listed, so anyone who can reach {reached} could publish: set PUBLISH_KEYS, list publishers in a file \
         (--config FILE), have a server decide (--on-publish-url URL), admit bearers of tokens (--jwt-jwks-url URL), or ask for just that with --open (LIVEEDGECAST_OPEN=yes)"
    );
    problems.add("PUBLISH_KEYS", text);
}

/// The address at which a process on this machine reaches a listener.
#[must_use]
pub fn dialed(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // Bound to every address, which is IPv4 too, and IPv4 alone where there is nothing else.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// The address of HTTP, whatever the other arguments are: a health check needs no more. `None` if the address leads to other processes
/// too.
///
/// # Errors
/// It is no address.
pub fn http_address(args: &Args) -> Result<Option<SocketAddr>, Problems> {
    let mut problems = Problems::new();
    let http = address("HTTP_LISTEN", &args.http_listen, HTTP_LISTEN, &mut problems);
    let shared = reuse_port(args, &mut problems);
    problems.into_result().map(|()| (!shared && http.port() != 0).then_some(http))
}

fn reuse_port(args: &Args, problems: &mut Problems) -> bool {
    choice("REUSE_PORT", &args.reuse_port, &[("no", false), ("yes", true)], problems)
}

fn addresses(args: &Args, fleet: Fleet, problems: &mut Problems) -> Listen {
    let (control, link) = match fleet {
        Fleet::Process => ("127.0.0.1:6001", "127.0.0.1:6002"),
        Fleet::External => ("[::]:6001", "[::]:6002"),
    };
    let listen = Listen {
        rtmp: address("RTMP_LISTEN", &args.rtmp_listen, "[::]:1935", problems),
        rtmps: (is_given(&args.rtmps_cert_file) || set(&args.rtmps_listen).is_some())
            .then(|| address("RTMPS_LISTEN", &args.rtmps_listen, "[::]:1936", problems)),
        http: address("HTTP_LISTEN", &args.http_listen, HTTP_LISTEN, problems),
        control: address("CONTROL_LISTEN", &args.control_listen, control, problems),
        link: address("LINK_LISTEN", &args.link_listen, link, problems),
        scaler: (fleet == Fleet::External || set(&args.scaler_listen).is_some())
            .then(|| address("SCALER_LISTEN", &args.scaler_listen, "[::]:6000", problems)),
        shared: reuse_port(args, problems),
    };
    if listen.shared && listen.control.port() == 0 {
        problems.add("REUSE_PORT", "has nothing to share with CONTROL_LISTEN at port 0: choose a port");
    }
    if listen.shared && fleet == Fleet::Process {
        problems.add("REUSE_PORT", "is about activators that share workers: set FLEET=external, or remove it");
    }
    let mut all = vec![
        ("RTMP_LISTEN", listen.rtmp),
        ("HTTP_LISTEN", listen.http),
        ("CONTROL_LISTEN", listen.control),
        ("LINK_LISTEN", listen.link),
    ];
    all.extend(listen.rtmps.map(|rtmps| ("RTMPS_LISTEN", rtmps)));
    all.extend(listen.scaler.map(|scaler| ("SCALER_LISTEN", scaler)));
    for (at, (name, one)) in all.iter().enumerate() {
        for (other_name, other) in &all[..at] {
            let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            if one.port() != 0 && one.port() == other.port() && overlap {
                problems.add(*name, format_args!("has the port of {other_name}, {}: choose another", one.port()));
            }
        }
    }
    listen
}

fn secret(args: &Args, fleet: Fleet, listen: &Listen, random: [u8; 32], problems: &mut Problems) -> Secret {
    const MAKE: &str = "make one with `openssl rand -hex 32` and give the same to every worker";
    let before = problems.iter().count();
    let file = args.control_secret_file.as_deref();
    let given = value_or_file("CONTROL_SECRET", shown(&args.control_secret), file, problems);
    let loopback = listen.control.ip().is_loopback() && listen.link.ip().is_loopback();
    match &given {
        Some(secret) if !loopback && secret.len() < LEAST_SECRET => {
            let setting = source_of("CONTROL_SECRET", file);
            problems.add(setting, format_args!("is shorter than {LEAST_SECRET} bytes: {MAKE}"));
        }
        None if problems.iter().count() > before => {}
        None if !loopback => problems.add(
            "CONTROL_SECRET",
            format_args!(
                "is required when control or link listen off loopback (workers get streams and keys there): {MAKE}"
            ),
        ),
        None if fleet == Fleet::External => {
            problems.add("CONTROL_SECRET", format_args!("is required with FLEET=external: {MAKE}"));
        }
        _ => {}
    }
    Secret::new(given.unwrap_or_else(|| HEXLOWER.encode(&random)))
}

fn peer_addresses(args: &Args, fleet: Fleet, listen: &Listen, problems: &mut Problems) -> Vec<PeerAddress> {
    let text = set(&args.activator_peers).unwrap_or_default();
    let parts: Vec<&str> =
        text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty()).collect();
    if fleet == Fleet::Process && !parts.is_empty() {
        problems.add("ACTIVATOR_PEERS", "is about activators that share workers: set FLEET=external, or remove it");
        return Vec::new();
    }
    if listen.shared && !parts.is_empty() {
        problems
            .add("ACTIVATOR_PEERS", "is about other hosts; with REUSE_PORT=yes the other one is on this: remove it");
        return Vec::new();
    }
    if listen.shared {
        let here = dialed(listen.control);
        return vec![PeerAddress { host: here.ip().to_string(), port: here.port() }];
    }
    let mut addresses = Vec::new();
    for part in parts {
        match peer_address(part, listen.control.port()) {
            Some(address) => addresses.push(address),
            None => problems.add(
                "ACTIVATOR_PEERS",
                format_args!("{part:?} is not where activators are: write HOST:PORT, such as activator-control:6001"),
            ),
        }
    }
    addresses
}

fn introducer(args: &Args, listen: &Listen, problems: &mut Problems) -> Option<PeerAddress> {
    let text = set(&args.introducer)?;
    if set(&args.activator_peers).is_none() && !listen.shared {
        problems
            .add("INTRODUCER", "is about activators that look for each other: set ACTIVATOR_PEERS too, or remove it");
    }
    let address = peer_address(text, listen.control.port());
    if address.is_none() {
        let text =
            format_args!("{text:?} is not where an activator is: write HOST:PORT, such as activator-introducer:6001");
        problems.add("INTRODUCER", text);
    }
    address
}

fn peer_address(text: &str, default_port: u16) -> Option<PeerAddress> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| PeerAddress { host: address.ip().to_string(), port: address.port() });
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return Some(PeerAddress { host: address.to_string(), port: default_port });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default_port),
    };
    is_host(host).then(|| PeerAddress { host: host.to_ascii_lowercase(), port })
}

fn trusted_proxies(args: &Args, problems: &mut Problems) -> Vec<AddressRange> {
    let text = set(&args.trusted_proxies).unwrap_or_default();
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    parts.filter_map(|part| problems.check("TRUSTED_PROXIES", part.parse::<AddressRange>())).collect()
}

/// True if the list names a file: an empty variable is not set.
fn is_given(files: &[PathBuf]) -> bool {
    files.iter().any(|path| !path.as_os_str().is_empty())
}

fn rtmps_tls(args: &Args, handoff: Handoff, problems: &mut Problems) -> Option<RtmpsTls> {
    let given = |files: &[PathBuf]| -> Vec<PathBuf> {
        files.iter().filter(|path| !path.as_os_str().is_empty()).cloned().collect()
    };
    let (certificates, keys) = (given(&args.rtmps_cert_file), given(&args.rtmps_key_file));
    if certificates.is_empty() {
        if set(&args.rtmps_listen).is_some() || !keys.is_empty() {
            problems.add("RTMPS_CERT_FILE", "is required with RTMPS_LISTEN and RTMPS_KEY_FILE: a certificate in PEM");
        }
        return None;
    }
    if certificates.len() != keys.len() {
        let text = format_args!(
            "names {} files for {} certificates: name the key of each of RTMPS_CERT_FILE, in the same order",
            keys.len(),
            certificates.len()
        );
        problems.add("RTMPS_KEY_FILE", text);
        return None;
    }
    if handoff == Handoff::Descriptor {
        problems.add(
            "HANDOFF",
            "descriptor cannot carry RTMPS, whose keys stay in this process: use auto, or remove RTMPS_CERT_FILE",
        );
    }
    let pairs = certificates.into_iter().zip(keys).map(|(certificate, key)| CertificateFiles { certificate, key });
    let files = RtmpsTls(pairs.collect());
    if let Err(flaw) = files.config() {
        problems.add(flaw.setting, flaw.sentence);
    }
    Some(files)
}

fn scaler_tls(args: &Args, listen: &Listen, problems: &mut Problems) -> Option<ScalerTls> {
    let certificate = file(&args.scaler_tls_cert_file);
    let (key, client_ca) = (file(&args.scaler_tls_key_file), file(&args.scaler_tls_client_ca_file));
    if certificate.is_none() && key.is_none() && client_ca.is_none() {
        return None;
    }
    let Some(certificate) = certificate else {
        problems.add("SCALER_TLS_CERT_FILE", "is required with the scaler's other TLS files");
        return None;
    };
    let Some(key) = key else {
        problems.add("SCALER_TLS_KEY_FILE", "is required with SCALER_TLS_CERT_FILE");
        return None;
    };
    if listen.scaler.is_none() {
        problems.add("SCALER_TLS_CERT_FILE", "is about the scaler, which is off: set SCALER_LISTEN, or remove this");
        return None;
    }
    let files = ScalerTls { certificate, key, client_ca };
    if let Err(flaw) = files.config() {
        problems.add(flaw.setting, flaw.sentence);
    }
    Some(files)
}

/// `fleet`: streams that all workers take.
fn share(args: &Args, fleet: u32, problems: &mut Problems) -> Share {
    let most =
        number("MAX_STREAMS_PER_ADDRESS", &args.max_streams_per_address, (fleet / 2).max(1), 1, 1_000_000, problems);
    let here_too = set(&args.max_streams_per_address).is_some();
    Share { most: usize::try_from(most).unwrap_or(usize::MAX), here_too }
}

fn limits(args: &Args, problems: &mut Problems) -> Limits {
    let default = Limits::default();
    let mut count = |setting: &str, text: &Option<String>, default: usize| {
        let number = number(setting, text, u32::try_from(default).unwrap_or(u32::MAX), 1, 1_000_000, problems);
        usize::try_from(number).unwrap_or(default)
    };
    Limits {
        total: count("MAX_CONNECTIONS", &args.max_connections, default.total),
        per_address: count("MAX_CONNECTIONS_PER_ADDRESS", &args.max_connections_per_address, default.per_address),
        strangers_per_address: count(
            "MAX_STRANGERS_PER_ADDRESS",
            &args.max_strangers_per_address,
            default.strangers_per_address,
        ),
    }
}

fn replay_window(args: &Args, problems: &mut Problems) -> ReplayWindow {
    let mut window = ReplayWindow { time: Duration::from_secs(4), bytes: 8 << 20 };
    let text = set(&args.replay_window).unwrap_or_default();
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    let (mut times, mut sizes) = (0, 0);
    for part in parts {
        if let Ok(time) = parse_duration(part) {
            window.time = time;
            times += 1;
        } else if let Ok(ByteSize(bytes)) = part.parse() {
            window.bytes = bytes;
            sizes += 1;
        } else {
            let text = format_args!("{part:?} is neither a time nor a size: write 4s, 8MiB or 4s,8MiB");
            problems.add("REPLAY_WINDOW", text);
        }
    }
    if times > 1 || sizes > 1 {
        problems.add("REPLAY_WINDOW", "one time and one size at most: write 4s,8MiB");
    }
    if window.time > MOST_TIME {
        problems.add("REPLAY_WINDOW", format_args!("the time is more than {}", show_duration(MOST_TIME)));
    }
    if !(LEAST_REPLAY..=MOST_REPLAY).contains(&window.bytes) {
        let text = format_args!(
            "the size is {}: from {} (two of the largest messages) to {}",
            ByteSize(window.bytes),
            ByteSize(LEAST_REPLAY),
            ByteSize(MOST_REPLAY)
        );
        problems.add("REPLAY_WINDOW", text);
    }
    window.bytes = window.bytes.clamp(LEAST_REPLAY, MOST_REPLAY).next_power_of_two();
    window
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
