//! The configuration as people type it. In: flags, environment. Out: text, not judged yet. Next: `meant`.
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments are the help text, in which [::] is an address")]

use std::path::PathBuf;

use clap::Parser;
use liveedgecast_common::runtime::LogArgs;
use liveedgecast_common::setting::Hidden;

/// Takes RTMP publishers, holds them, wakes workers and hands the streams over.
///
/// Every setting is a flag and an environment variable. RTMP_PUSH_URL alone is enough to start.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "liveedgecast-activator", version, max_term_width = 120)]
pub struct Args {
    /// Where streams are pushed: one or several rtmp:// or rtmps:// URLs, separated by white space; {app} and {key} in
    /// them are replaced by the publisher's (required)
    #[arg(long, env = "RTMP_PUSH_URL", value_name = "URLS", hide_env_values = true)]
    pub push_url: Vec<Hidden>,
    /// A file with the push URLs instead; read again when it changes
    #[arg(long, env = "RTMP_PUSH_URL_FILE", value_name = "PATH")]
    pub push_url_file: Option<PathBuf>,
    /// Who may publish: keys, or app/key, separated by commas or white space [default: anyone]
    #[arg(long, env = "PUBLISH_KEYS", value_name = "KEYS", hide_env_values = true)]
    pub publish_keys: Option<Hidden>,
    /// A file with the publish keys instead, one or more a line, # begins a comment; read again when it changes
    #[arg(long, env = "PUBLISH_KEYS_FILE", value_name = "PATH")]
    pub publish_keys_file: Option<PathBuf>,

    /// Where publishers connect [default: [::]:1935]
    #[arg(long, env = "RTMP_LISTEN", value_name = "ADDRESS")]
    pub rtmp_listen: Option<String>,
    /// /metrics, /healthz, /readyz, /api/v1/… [default: [::]:8080]
    #[arg(long, env = "HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// Where workers register [default: 127.0.0.1:6001; [::]:6001 with --fleet external]
    #[arg(long, env = "CONTROL_LISTEN", value_name = "ADDRESS")]
    pub control_listen: Option<String>,
    /// Where workers fetch streams [default: 127.0.0.1:6002; [::]:6002 with --fleet external]
    #[arg(long, env = "LINK_LISTEN", value_name = "ADDRESS")]
    pub link_listen: Option<String>,
    /// Whether an activator that is to follow this one may listen on the same ports (yes or no); not the process fleet
    /// [default: no]
    #[arg(long, env = "REUSE_PORT", value_name = "ANSWER")]
    pub reuse_port: Option<String>,
    /// Where the other activators are, HOST[:PORT] of their control listeners, one or several separated by commas or white
    /// space; every address of a name is used, and may be our own [default: there are none]
    #[arg(long, env = "ACTIVATOR_PEERS", value_name = "HOSTS")]
    pub activator_peers: Option<String>,
    /// Where one of the activators is, whichever, HOST:PORT such as a Kubernetes Service's: it tells of the others, so that they are
    /// found before name servers know [default: there is none]
    #[arg(long, env = "INTRODUCER", value_name = "HOST:PORT")]
    pub introducer: Option<String>,
    /// Where KEDA asks (gRPC, triggers external and external-push) [default: none; [::]:6000 with --fleet external]
    #[arg(long, env = "SCALER_LISTEN", value_name = "ADDRESS")]
    pub scaler_listen: Option<String>,
    /// The scaler's certificate (PEM), with those that lead to its authority; like its other TLS files read again when it changes [default: it speaks in the clear]
    #[arg(long, env = "SCALER_TLS_CERT_FILE", value_name = "PATH")]
    pub scaler_tls_cert_file: Option<PathBuf>,
    /// The key of the scaler's certificate (PEM)
    #[arg(long, env = "SCALER_TLS_KEY_FILE", value_name = "PATH")]
    pub scaler_tls_key_file: Option<PathBuf>,
    /// Authorities (PEM) of those who may ask the scaler [default: anyone]
    #[arg(long, env = "SCALER_TLS_CLIENT_CA_FILE", value_name = "PATH")]
    pub scaler_tls_client_ca_file: Option<PathBuf>,
    /// The secret that workers share with us [default: a random one for the process fleet; required off loopback]
    #[arg(long, env = "CONTROL_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub control_secret: Option<Hidden>,
    /// A file with the control secret instead
    #[arg(long, env = "CONTROL_SECRET_FILE", value_name = "PATH")]
    pub control_secret_file: Option<PathBuf>,

    /// Who starts workers: process (we do, on this machine) or external [default: process]
    #[arg(long, env = "FLEET", value_name = "KIND")]
    pub fleet: Option<String>,
    /// How to hand a stream over: auto, descriptor (same host only) or link [default: auto]
    #[arg(long, env = "HANDOFF", value_name = "KIND")]
    pub handoff: Option<String>,
    /// Streams per worker [default: 50]
    #[arg(long, env = "CAPACITY", value_name = "STREAMS")]
    pub capacity: Option<String>,
    /// Workers at most: that we start, or that the watchdog asks for [default: 4; 20 with --fleet external]
    #[arg(long, env = "MAX_WORKERS", value_name = "WORKERS")]
    pub max_workers: Option<String>,
    /// Workers may go after being idle for this long: those that we start, and those that --scale-in idle lets go
    /// [default: 30s]
    #[arg(long, env = "COOLDOWN", value_name = "TIME")]
    pub cooldown: Option<String>,
    /// The Kubernetes Deployment of the workers, in our namespace: if nobody adds a worker for 5 s though a stream waits, we
    /// do; and pods are told what they cost to lose; for --fleet external [default: nothing is asked of Kubernetes]
    #[arg(long, env = "WORKER_DEPLOYMENT", value_name = "NAME")]
    pub worker_deployment: Option<String>,
    /// Workers that may go while somebody is live: none, or idle (those that are not needed are taken out of use and the
    /// scaler's number falls by as many); the same for all activators [default: none]
    #[arg(long, env = "SCALE_IN", value_name = "WHICH")]
    pub scale_in: Option<String>,
    /// A publisher is held for this long at most [default: 120s]
    #[arg(long, env = "HOLD_TIMEOUT", value_name = "TIME")]
    pub hold_timeout: Option<String>,
    /// Upstream sessions are kept for this long when a publisher is lost [default: 10s]
    #[arg(long, env = "GRACE", value_name = "TIME")]
    pub grace: Option<String>,
    /// What an upstream that was away gets again: a time, a size (rounded up to a power of two), or both. A single message longer than the
    /// size is skipped
    /// [default: 4s,8MiB]
    #[arg(long, env = "REPLAY_WINDOW", value_name = "TIME,SIZE")]
    pub replay_window: Option<String>,
    /// How far an upstream may lag before it jumps to a keyframe [default: 2s]
    #[arg(long, env = "UPSTREAM_LAG", value_name = "TIME")]
    pub upstream_lag: Option<String>,
    /// How long we wait for live streams when told to go [default: 8s]
    #[arg(long, env = "DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<String>,

    /// Publishers' connections at most [default: 16384]
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "COUNT")]
    pub max_connections: Option<String>,
    /// Of one address (IPv6: of one /64) at most [default: 4096]
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", value_name = "COUNT")]
    pub max_connections_per_address: Option<String>,
    /// Of one address at most that were not admitted yet [default: 512]
    #[arg(long, env = "MAX_STRANGERS_PER_ADDRESS", value_name = "COUNT")]
    pub max_strangers_per_address: Option<String>,

    /// Publishers that one address may bring at once, where there are no PUBLISH_KEYS; further ones wait for their turn [default: 600]
    #[arg(long, env = "PUBLISH_BURST", value_name = "COUNT")]
    pub publish_burst: Option<String>,
    /// Turns of one address in a second, after that [default: 4]
    #[arg(long, env = "PUBLISH_RATE", value_name = "COUNT")]
    pub publish_rate: Option<String>,
    /// Streams of one address at most, where there are no PUBLISH_KEYS [default: half of what MAX_WORKERS take, of 20 workers where
    /// somebody else starts them; any number of this machine's own]
    #[arg(long, env = "MAX_STREAMS_PER_ADDRESS", value_name = "COUNT")]
    pub max_streams_per_address: Option<String>,

    /// Ask the activator that runs here with the same settings whether it is alive; the answer is the exit code
    #[arg(long, hide = true)]
    pub health: bool,
    /// The same, whether it is ready
    #[arg(long, hide = true)]
    pub ready: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub log: LogArgs,
}
