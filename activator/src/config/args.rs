//! The arguments. In: flags, environment. Out: text, not judged yet. Next: `resolve`.
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments are the help text, in which [::] is an address")]

use std::path::PathBuf;

use clap::Parser;
use liveedgecast_common::encryption::InternalTlsArgs;
use liveedgecast_common::runtime::LogArgs;
use liveedgecast_common::setting::Hidden;
use liveedgecast_common::trace::TraceArgs;

use super::command::Subcommand;
use super::jwt::JwtArgs;

/// Takes RTMP publishers, holds them, wakes workers and hands the streams over.
///
/// Every setting is a flag and an environment variable. RTMP_PUSH_URL and PUBLISH_KEYS are enough to start.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "liveedgecast-activator", version, max_term_width = 120, mut_args = grouped())]
pub struct Args {
    /// The thing to do in place of serving.
    #[command(subcommand)]
    pub command: Option<Subcommand>,

    /// Upstreams of every stream: one or several rtmp:// or rtmps:// URLs, separated by white space; {app} and {key} in
    /// them are replaced by the publisher's (required)
    #[arg(long, env = "RTMP_PUSH_URL", value_name = "URLS", hide_env_values = true)]
    pub push_url: Vec<Hidden>,
    /// A file with the push URLs instead; read again when it changes
    #[arg(long, env = "RTMP_PUSH_URL_FILE", value_name = "PATH")]
    pub push_url_file: Option<PathBuf>,
    /// Keys of publishers: key, or app/key, separated by commas or white space [default: none]
    #[arg(long, env = "PUBLISH_KEYS", value_name = "KEYS", hide_env_values = true)]
    pub publish_keys: Option<Hidden>,
    /// A file with the publish keys instead, one or more a line, # begins a comment; read again when it changes
    #[arg(long, env = "PUBLISH_KEYS_FILE", value_name = "PATH")]
    pub publish_keys_file: Option<PathBuf>,

    /// Let anyone publish who can reach the RTMP port (yes or no). It counts where neither keys nor a file say who may publish, which is a mistake
    /// without it, unless the port is on loopback [default: no]
    #[arg(
        long,
        env = "LIVEEDGECAST_OPEN",
        value_name = "ANSWER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes"
    )]
    pub open: Option<String>,

    /// Server that is asked about each publisher that is not listed, as nginx-rtmp's on_publish: http:// or https:// [default: nobody is asked]
    #[arg(long, env = "LIVEEDGECAST_ON_PUBLISH_URL", value_name = "URL", hide_env_values = true)]
    pub on_publish_url: Option<Hidden>,
    /// Server that is told when the stream of such a publisher has ended, as nginx-rtmp's on_publish_done [default: nobody is told]
    #[arg(long, env = "LIVEEDGECAST_ON_PUBLISH_DONE_URL", value_name = "URL", hide_env_values = true)]
    pub on_publish_done_url: Option<Hidden>,
    /// Form of the question: form (nginx-rtmp's) or json [default: form]
    #[arg(long, env = "LIVEEDGECAST_ON_PUBLISH_FORMAT", value_name = "FORM")]
    pub on_publish_format: Option<String>,
    /// Time for the answer, up to 9s [default: 2s]
    #[arg(long, env = "LIVEEDGECAST_ON_PUBLISH_TIMEOUT", value_name = "TIME")]
    pub on_publish_timeout: Option<String>,
    /// Meaning of an answer that does not come: refuse (for now) or accept [default: refuse]
    #[arg(long, env = "LIVEEDGECAST_ON_PUBLISH_ON_ERROR", value_name = "WHICH")]
    pub on_publish_on_error: Option<String>,
    /// Bearer token that the question carries [default: none]
    #[arg(long, env = "LIVEEDGECAST_ON_PUBLISH_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub on_publish_secret: Option<Hidden>,
    /// A file with that token instead
    #[arg(long, env = "LIVEEDGECAST_ON_PUBLISH_SECRET_FILE", value_name = "PATH")]
    pub on_publish_secret_file: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub jwt: JwtArgs,

    /// A YAML file that lists publishers, routes and rules of admission; read again when it or a file that it names changes
    /// [default: there is none]
    #[arg(long, env = "LIVEEDGECAST_CONFIG", value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// Address for publishers [default: [::]:1935]
    #[arg(long, env = "RTMP_LISTEN", value_name = "ADDRESS")]
    pub rtmp_listen: Option<String>,
    /// Address for publishers by rtmps:// [default: none; [::]:1936 with RTMPS_CERT_FILE]
    #[arg(long, env = "RTMPS_LISTEN", value_name = "ADDRESS")]
    pub rtmps_listen: Option<String>,
    /// Certificates for rtmps:// (PEM), each with those that lead to its authority: one file, or several separated by commas, of
    /// which the name that a publisher asks for chooses one; read again when they change [default: no RTMPS]
    #[arg(long, env = "RTMPS_CERT_FILE", value_name = "PATHS", value_delimiter = ',')]
    pub rtmps_cert_file: Vec<PathBuf>,
    /// The keys of these certificates (PEM), in the same order
    #[arg(long, env = "RTMPS_KEY_FILE", value_name = "PATHS", value_delimiter = ',')]
    pub rtmps_key_file: Vec<PathBuf>,
    /// Proxies in front of both ports that name their clients by a PROXY header (version 1 or 2), without which their connections are refused:
    /// addresses or ranges such as 10.0.0.0/8, separated by commas or white space; those of the configuration file count too
    /// [default: there are none]
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "RANGES")]
    pub trusted_proxies: Option<String>,
    /// Address for /metrics, /healthz, /readyz, /api/v1/… [default: [::]:8080]
    #[arg(long, env = "HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// Address where workers register [default: 127.0.0.1:6001; [::]:6001 with --fleet external]
    #[arg(long, env = "CONTROL_LISTEN", value_name = "ADDRESS")]
    pub control_listen: Option<String>,
    /// Address where workers fetch streams [default: 127.0.0.1:6002; [::]:6002 with --fleet external]
    #[arg(long, env = "LINK_LISTEN", value_name = "ADDRESS")]
    pub link_listen: Option<String>,
    /// Let a successor of this activator listen on the same ports (yes or no); not with the process fleet
    /// [default: no]
    #[arg(long, env = "REUSE_PORT", value_name = "ANSWER")]
    pub reuse_port: Option<String>,
    /// Other activators, HOST[:PORT] of their control listeners, one or several separated by commas or white
    /// space; every address of a name is used, and may be this activator's own [default: there are none]
    #[arg(long, env = "ACTIVATOR_PEERS", value_name = "HOSTS")]
    pub activator_peers: Option<String>,
    /// Address of any one activator, HOST:PORT such as a Kubernetes Service's: it introduces the others, so that they are
    /// found before name servers list them [default: there is none]
    #[arg(long, env = "INTRODUCER", value_name = "HOST:PORT")]
    pub introducer: Option<String>,
    /// Address for KEDA (gRPC, triggers external and external-push) [default: none; [::]:6000 with --fleet external]
    #[arg(long, env = "SCALER_LISTEN", value_name = "ADDRESS")]
    pub scaler_listen: Option<String>,
    /// The scaler's certificate (PEM), with those that lead to its authority; like its other TLS files read again when it changes [default: no TLS]
    #[arg(long, env = "SCALER_TLS_CERT_FILE", value_name = "PATH")]
    pub scaler_tls_cert_file: Option<PathBuf>,
    /// The key of the scaler's certificate (PEM)
    #[arg(long, env = "SCALER_TLS_KEY_FILE", value_name = "PATH")]
    pub scaler_tls_key_file: Option<PathBuf>,
    /// Authorities (PEM) of clients that may call the scaler [default: anyone]
    #[arg(long, env = "SCALER_TLS_CLIENT_CA_FILE", value_name = "PATH")]
    pub scaler_tls_client_ca_file: Option<PathBuf>,
    /// The secret that workers share with activators [default: a random one for the process fleet; required off loopback]
    #[arg(long, env = "CONTROL_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub control_secret: Option<Hidden>,
    /// A file with the control secret instead
    #[arg(long, env = "CONTROL_SECRET_FILE", value_name = "PATH")]
    pub control_secret_file: Option<PathBuf>,
    /// Connections with workers and other activators that are encrypted: auto (all but those by loopback), on or off; workers have the same
    /// setting [default: auto]
    #[arg(long, env = "ENCRYPTION", value_name = "WHICH")]
    pub encryption: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub internal_tls: InternalTlsArgs,

    /// The token that lets its bearer read and change streams and workers by HTTP [default: nothing can be changed, and only this machine reads]
    #[arg(long, env = "ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<Hidden>,
    /// A file with the admin token instead
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "PATH")]
    pub admin_token_file: Option<PathBuf>,
    /// A second token, for reading alone [default: there is none]
    #[arg(long, env = "VIEW_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub view_token: Option<Hidden>,
    /// A file with the view token instead
    #[arg(long, env = "VIEW_TOKEN_FILE", value_name = "PATH")]
    pub view_token_file: Option<PathBuf>,
    /// Files of tokens may be missing (yes or no): as long as one is, in a folder that is there, there is no such token [default: no]
    #[arg(
        long,
        env = "LIVEEDGECAST_TOKEN_FILES_OPTIONAL",
        value_name = "ANSWER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes"
    )]
    pub token_files_optional: Option<String>,

    /// Names of streams in /stat: publisher (that of the configuration file, otherwise a hash of app and key) or key (keys of publishers at this activator)
    /// [default: publisher]
    #[arg(long, env = "STAT_NAMES", value_name = "WHICH")]
    pub stat_names: Option<String>,

    /// Starter of workers: process (this activator, on this machine) or external [default: process]
    #[arg(long, env = "FLEET", value_name = "KIND")]
    pub fleet: Option<String>,
    /// Way to hand a stream over: auto, descriptor (same host only) or link [default: auto]
    #[arg(long, env = "HANDOFF", value_name = "KIND")]
    pub handoff: Option<String>,
    /// Streams per worker [default: 50]
    #[arg(long, env = "CAPACITY", value_name = "STREAMS")]
    pub capacity: Option<String>,
    /// Most workers that this activator starts, or that its watchdog asks for [default: 4; 20 with --fleet external]
    #[arg(long, env = "MAX_WORKERS", value_name = "WORKERS")]
    pub max_workers: Option<String>,
    /// Workers of the always-on fleet that worker-seconds are compared with, in metrics and on the page; nothing is started for it
    /// [default: 1]
    #[arg(long, env = "LIVEEDGECAST_BASELINE_WORKERS", value_name = "WORKERS")]
    pub baseline_workers: Option<String>,
    /// Metrics with the names of publishers, of those alone that the configuration file lists, a thousand at most: yes or no [default: no]
    #[arg(long, env = "LIVEEDGECAST_PUBLISHER_METRICS", value_name = "WHETHER")]
    pub publisher_metrics: Option<String>,
    /// Idle time after which a worker may end: one that this activator started, or one that --scale-in idle releases
    /// [default: 30s]
    #[arg(long, env = "COOLDOWN", value_name = "TIME")]
    pub cooldown: Option<String>,
    /// The Kubernetes Deployment of the workers, in this activator's namespace: if a stream waits for 5 s and no worker is added, this
    /// activator adds one; and each pod is told the cost of losing it; for --fleet external [default: nothing is asked of Kubernetes]
    #[arg(long, env = "WORKER_DEPLOYMENT", value_name = "NAME")]
    pub worker_deployment: Option<String>,
    /// Workers that may be removed while streams are live: none, or idle (idle workers that are not needed are cordoned and the
    /// scaler's number falls by as many); the same for all activators [default: none]
    #[arg(long, env = "SCALE_IN", value_name = "WHICH")]
    pub scale_in: Option<String>,
    /// Longest time that a publisher is held [default: 120s]
    #[arg(long, env = "HOLD_TIMEOUT", value_name = "TIME")]
    pub hold_timeout: Option<String>,
    /// Time for which upstream sessions are kept when a publisher is lost [default: 10s]
    #[arg(long, env = "GRACE", value_name = "TIME")]
    pub grace: Option<String>,
    /// Part of the stream that is replayed to an upstream that was away: a time, a size (rounded up to a power of two), or both. A single message longer than the
    /// size is skipped
    /// [default: 4s,8MiB]
    #[arg(long, env = "REPLAY_WINDOW", value_name = "TIME,SIZE")]
    pub replay_window: Option<String>,
    /// Lag at which an upstream jumps to a keyframe [default: 2s]
    #[arg(long, env = "UPSTREAM_LAG", value_name = "TIME")]
    pub upstream_lag: Option<String>,
    /// Time for which what a publisher sends gathers before it is relayed, up to 1s: less CPU for that much more latency. 0s relays everything
    /// as it comes. Workers that the activator starts get the same
    /// [default: 0s]
    #[arg(long, env = "GATHER", value_name = "TIME")]
    pub gather: Option<String>,
    /// Longest wait for live streams when the activator is asked to stop [default: 8s]
    #[arg(long, env = "DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<String>,

    /// Most connections of publishers [default: 16384]
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "COUNT")]
    pub max_connections: Option<String>,
    /// Most connections of one address (IPv6: of one /64) [default: 4096]
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", value_name = "COUNT")]
    pub max_connections_per_address: Option<String>,
    /// Most connections of one address that are not admitted yet [default: 1024]
    #[arg(long, env = "MAX_STRANGERS_PER_ADDRESS", value_name = "COUNT")]
    pub max_strangers_per_address: Option<String>,

    /// Publishers that one address may start at once, without PUBLISH_KEYS; further ones wait for their turn [default: 1000]
    #[arg(long, env = "PUBLISH_BURST", value_name = "COUNT")]
    pub publish_burst: Option<String>,
    /// Turns of one address in each second after that [default: 4]
    #[arg(long, env = "PUBLISH_RATE", value_name = "COUNT")]
    pub publish_rate: Option<String>,
    /// Most streams of one address, without PUBLISH_KEYS [default: half of the streams that MAX_WORKERS take, 20 workers with
    /// --fleet external; any number from this machine's own addresses]
    #[arg(long, env = "MAX_STREAMS_PER_ADDRESS", value_name = "COUNT")]
    pub max_streams_per_address: Option<String>,

    /// Server that every event is posted to, http:// or https://; see deploy/docs/events.md [default: none]
    #[arg(long, env = "LIVEEDGECAST_EVENTS_URL", value_name = "URL", hide_env_values = true)]
    pub events_url: Option<Hidden>,
    /// The secret that events are signed with: whsec_ and 24 to 64 bytes in base64 (required with an address)
    #[arg(long, env = "LIVEEDGECAST_EVENTS_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub events_secret: Option<Hidden>,
    /// A file with that secret instead
    #[arg(long, env = "LIVEEDGECAST_EVENTS_SECRET_FILE", value_name = "PATH")]
    pub events_secret_file: Option<PathBuf>,

    /// Folder to which the last seconds of a stream go when it loses a destination or its worker, with the events before; see
    /// deploy/docs/operations.md [default: none]
    #[arg(long, env = "LIVEEDGECAST_INCIDENT_DIR", value_name = "PATH")]
    pub incident_dir: Option<PathBuf>,
    /// Most bytes of all files there; the oldest are removed [default: 256MiB]
    #[arg(long, env = "LIVEEDGECAST_INCIDENT_MAX_BYTES", value_name = "BYTES")]
    pub incident_max_bytes: Option<String>,

    /// Exit with 0 if the activator that runs here with the same settings is alive
    #[arg(long, hide = true)]
    pub health: bool,
    /// Exit with 0 if the activator that runs here with the same settings is ready
    #[arg(long, hide = true)]
    pub ready: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub log: LogArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub traces: TraceArgs,
}

/// The headings of the help, each with the first argument below it; the arguments behind that one belong to it, too.
const HEADINGS: [(&str, &str); 13] = [
    ("push_url", "Publishers and destinations"),
    ("on_publish_url", "A server that decides who may publish"),
    ("jwt_issuer", "Tokens of publishers (JWT)"),
    ("config", "Configuration file"),
    ("rtmp_listen", "Ports and certificates"),
    ("activator_peers", "Other activators and KEDA"),
    ("control_secret", "Secrets and tokens"),
    ("fleet", "Workers"),
    ("hold_timeout", "Streams"),
    ("max_connections", "Bounds"),
    ("events_url", "Events"),
    ("incident_dir", "Incidents"),
    ("log_format", "Log"),
];

/// Puts each argument below its heading.
fn grouped() -> impl FnMut(clap::Arg) -> clap::Arg {
    let mut heading = None;
    move |argument| {
        let first = HEADINGS.iter().find(|(first, _)| argument.get_id() == first);
        heading = first.map(|(_, heading)| *heading).or(heading);
        let is_own = ["help", "version"].iter().any(|own| argument.get_id() == own);
        match heading.filter(|_| !is_own) {
            Some(heading) => argument.help_heading(heading),
            None => argument,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_has_every_argument_below_a_heading_and_every_heading_has_some() {
        let command = Args::command();
        let arguments: Vec<_> = command.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
        for (first, heading) in HEADINGS {
            let below = arguments.iter().filter(|argument| argument.get_help_heading() == Some(heading));
            assert!(below.count() > 0, "{heading}: {first} is no argument");
        }
        for argument in arguments {
            assert!(argument.get_help_heading().is_some(), "{}", argument.get_id());
        }
    }

    #[test]
    fn help_of_a_command_lists_no_setting_of_serving() {
        let mut command = Args::command();
        command.build();
        for of_gateway in ["streams", "workers", "events", "drain", "kick", "destination", "check", "top", "simulate"] {
            let help = command.find_subcommand_mut(of_gateway).expect("the command").render_long_help().to_string();
            assert!(!help.contains("--push-url") && help.contains("--help"), "{help}");
        }
    }
}
