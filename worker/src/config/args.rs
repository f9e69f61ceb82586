//! The arguments. In: flags, environment. Out: text, not judged yet. Next: `resolve`.
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments are the help text, in which [::] is an address")]

use std::path::PathBuf;

use clap::Parser;
use liveedgecast_common::encryption::InternalTlsArgs;
use liveedgecast_common::runtime::LogArgs;
use liveedgecast_common::setting::Hidden;
use liveedgecast_common::trace::TraceArgs;

/// Takes streams from activators and retransmits each of them to its upstreams.
///
/// Every setting is a flag and an environment variable. The activator starts workers by itself on one machine; elsewhere
/// give every worker the activator's address and secret.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "liveedgecast-worker", version, max_term_width = 120)]
pub struct Args {
    /// Activators to register at, HOST:PORT of their control listener; every address of the name is used
    /// [default: 127.0.0.1:6001]
    #[arg(long, env = "ACTIVATOR", value_name = "HOST:PORT")]
    pub activator: Option<String>,
    /// Address of any one activator, HOST:PORT such as a Kubernetes Service's: it introduces the others, so that they are
    /// found before name servers list them [default: there is none]
    #[arg(long, env = "INTRODUCER", value_name = "HOST:PORT")]
    pub introducer: Option<String>,
    /// The secret that activators share with workers (required)
    #[arg(long, env = "CONTROL_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub control_secret: Option<Hidden>,
    /// A file with the control secret instead
    #[arg(long, env = "CONTROL_SECRET_FILE", value_name = "PATH")]
    pub control_secret_file: Option<PathBuf>,
    /// Connections to activators that are encrypted: auto (all but those to loopback), on or off; activators have the same setting
    /// [default: auto]
    #[arg(long, env = "ENCRYPTION", value_name = "WHICH")]
    pub encryption: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub internal_tls: InternalTlsArgs,
    /// Address for /metrics, /healthz, /readyz; port 0 takes any port [default: [::]:8081]
    #[arg(long, env = "HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// Most streams at once [default: 50]
    #[arg(long, env = "CAPACITY", value_name = "STREAMS")]
    pub capacity: Option<String>,
    /// Streams that are accepted: auto, descriptor (an activator on the same host only) or link [default: auto]
    #[arg(long, env = "HANDOFF", value_name = "KIND")]
    pub handoff: Option<String>,
    /// Longest wait for live streams to move to other workers when the worker is asked to stop [default: 8s]
    #[arg(long, env = "DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<String>,
    /// Time for which what a publisher sends gathers before it is relayed, up to 1s: less CPU for that much more latency. 0s relays everything
    /// as it comes. By link the activator's setting counts
    /// [default: 0s]
    #[arg(long, env = "GATHER", value_name = "TIME")]
    pub gather: Option<String>,
    /// Threads for streams; they are started when needed [default: one per core]
    #[arg(long, env = "STREAM_THREADS", value_name = "THREADS")]
    pub stream_threads: Option<String>,
    /// Name in logs, the API and metrics; unique among workers [default: host name and process id]
    #[arg(long, env = "WORKER_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// End after 5 s without a stream and without the activator that has started the worker, and keep no lost publisher's sessions without an activator; the process fleet sets it
    #[arg(long)]
    pub exit_when_orphaned: bool,

    /// Exit with 0 if the worker that runs here with the same settings is alive
    #[arg(long, hide = true)]
    pub health: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub log: LogArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub traces: TraceArgs,
}
