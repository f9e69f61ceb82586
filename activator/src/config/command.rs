//! The commands: what the program does in place of serving. In: arguments, environment. Out: text, not judged yet. Next: `commandline`, which carries
//! them out.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueHint};
use liveedgecast_common::setting::Hidden;

/// The things that the program does in place of serving.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Checks the settings, ports, certificates, destinations and servers of a gateway, or one configuration file alone
    Check(CheckArgs),
    /// Lists the streams of a running gateway, or shows one with its destinations
    Streams {
        /// A stream: its id, the beginning of its id, or its publisher's name
        stream: Option<String>,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        api: ApiArgs,
    },
    /// Shows the streams, destinations and workers of a running gateway live
    Top(TopArgs),
    /// Lists the workers of a running gateway
    Workers {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        api: ApiArgs,
    },
    /// Prints the events that a running gateway keeps, and with --follow those that come
    Events(EventsArgs),
    /// Has a worker take nothing more and give its streams to other workers
    Drain {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        worker: WorkerArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        wait: WaitArgs,
    },
    /// Has a worker take streams again
    Undrain {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        worker: WorkerArgs,
    },
    /// Ends a stream
    Kick {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
        /// The reason, for the log and the events
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Lists or changes the destinations of a stream while it is live
    #[command(subcommand)]
    Destination(DestinationCommand),
    /// Computes what other ways of keeping workers would have cost, from a history of streams
    Simulate(SimulateArgs),
    /// Prints the completions for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes the pages of all commands to a folder
    Man {
        /// The folder
        #[arg(value_hint = ValueHint::DirPath)]
        folder: Option<PathBuf>,
    },
}

/// The things to check.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct CheckArgs {
    /// A configuration file to check alone: nothing else is looked at, because it may be for another machine [default: the file of the settings is checked with
    /// everything else]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Dial no destination and ask no server
    #[arg(long)]
    pub offline: bool,
    /// Also publish to every destination whose URL has a stream key of its own, without media, and end the stream after a second: some platforms start a broadcast by
    /// that, and some end a stream that is live under the key
    #[arg(long, conflicts_with_all = ["offline", "config"])]
    pub publish: bool,
    /// A ScaledObject (YAML) whose numbers are compared with the settings, or - to read it from standard input
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub scaled_object: Option<PathBuf>,
    /// The same with the ScaledObject that is in force, read from the Kubernetes API, also with --offline: by KUBECONFIG or ~/.kube/config, otherwise by the
    /// account of the pod, which needs the right to `get` `scaledobjects` of the group `keda.sh`
    #[arg(long, value_name = "[NAMESPACE/]NAME", conflicts_with = "scaled_object")]
    pub kubernetes: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The live view.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct TopArgs {
    /// Print one frame, and end
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub api: ApiArgs,
}

/// A history, and the numbers that it is computed with.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct SimulateArgs {
    /// A table with commas: START,END or START,END,SITE; times as 2025-01-31T12:00:00Z or in seconds since 1970; - reads standard input
    #[arg(value_name = "TABLE", value_hint = ValueHint::FilePath, conflicts_with = "prometheus")]
    pub history: Option<PathBuf>,
    /// Prometheus, whose samples of a gauge are the history
    #[arg(long, value_name = "URL", help_heading = "History from Prometheus")]
    pub prometheus: Option<String>,
    /// The gauge of streams [default: sum(liveedgecast_streams)]
    #[arg(long, value_name = "QUERY", help_heading = "History from Prometheus")]
    pub query: Option<String>,
    /// The label that tells sites apart [default: all labels together]
    #[arg(long, value_name = "NAME", help_heading = "History from Prometheus")]
    pub site_label: Option<String>,
    /// Beginning of the time [default: 30 days before its end]
    #[arg(long, value_name = "TIME", help_heading = "History from Prometheus")]
    pub from: Option<String>,
    /// End of the time [default: now]
    #[arg(long, value_name = "TIME", help_heading = "History from Prometheus")]
    pub to: Option<String>,
    /// Time between two samples [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "History from Prometheus")]
    pub step: Option<String>,
    /// Starter of workers: process or external (KEDA) [default: that of the settings]
    #[arg(long, value_name = "KIND")]
    pub fleet: Option<String>,
    /// Streams per worker [default: that of the settings]
    #[arg(long, value_name = "STREAMS")]
    pub capacity: Option<String>,
    /// Most workers of a site [default: that of the settings]
    #[arg(long, value_name = "WORKERS")]
    pub max_workers: Option<String>,
    /// Idle time after which a worker ends [default: that of the settings; with external KEDA's 300s]
    #[arg(long, value_name = "TIME")]
    pub cooldown: Option<String>,
    /// Time that a worker takes to start [default: 50ms; with external 450ms]
    #[arg(long, value_name = "TIME")]
    pub start_time: Option<String>,
    /// A window in which workers are kept, in UTC, such as 'mon-fri 08:00-20:00=2' for two; may be given several times [default: 08:00-22:00]
    #[arg(long, value_name = "WINDOW")]
    pub cron: Vec<String>,
    /// Write a chart to this file
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The gateway that a command asks, and the form of the answer.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct ApiArgs {
    /// Address of the gateway's HTTP port, with the prefix of a proxy if there is one [default: this machine, at the port of HTTP_LISTEN]
    #[arg(long, env = "LIVEEDGECAST_API", value_name = "URL", help_heading = "Gateway")]
    pub api: Option<String>,
    /// A file with the token of the API [default: what ADMIN_TOKEN, ADMIN_TOKEN_FILE, VIEW_TOKEN or VIEW_TOKEN_FILE say]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Gateway")]
    pub token_file: Option<PathBuf>,
    /// Print JSON, as the API has it
    #[arg(long)]
    pub json: bool,
}

/// The events to print.
#[derive(Clone, Debug, ClapArgs)]
pub struct EventsArgs {
    /// Go on with the events that come
    #[arg(long, short)]
    pub follow: bool,
    /// Leave out those that have happened (with --follow)
    #[arg(long, requires = "follow")]
    pub new: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub api: ApiArgs,
}

/// A worker.
#[derive(Clone, Debug, ClapArgs)]
pub struct WorkerArgs {
    /// A worker: its name, or the beginning of its name
    pub worker: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub api: ApiArgs,
}

/// A stream.
#[derive(Clone, Debug, ClapArgs)]
pub struct StreamArgs {
    /// A stream: its id, the beginning of its id, or its publisher's name
    pub stream: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented by its own arguments")]
    pub api: ApiArgs,
}

/// Whether a command waits until its order has been carried out.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct WaitArgs {
    /// Wait until it is done, at most for this time, which is a minute unless it is given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "60s")]
    pub wait: Option<String>,
}

/// The URL of a destination, which holds a key more often than not.
#[derive(Clone, Debug, ClapArgs)]
pub struct DestinationUrlArgs {
    /// The push URL, or - to read it from standard input; other users of this machine can see what is written here
    #[arg(value_name = "URL", required_unless_present = "url_file", conflicts_with = "url_file")]
    pub url: Option<Hidden>,
    /// A file with the push URL instead
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub url_file: Option<PathBuf>,
}

/// A command about the destinations of a stream.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DestinationCommand {
    /// Lists the destinations of a stream
    List {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
    },
    /// Adds a destination
    Add {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
        /// The name of the destination
        name: String,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        url: DestinationUrlArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        wait: WaitArgs,
    },
    /// Removes a destination
    Remove {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
        /// The name of the destination
        name: String,
    },
    /// Switches a destination on
    Enable {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
        /// The name of the destination
        name: String,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        wait: WaitArgs,
    },
    /// Switches a destination off
    Disable {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
        /// The name of the destination
        name: String,
    },
    /// Gives a destination another URL
    Move {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
        /// The name of the destination
        name: String,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        url: DestinationUrlArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        wait: WaitArgs,
    },
    /// Begins the session at a destination anew
    Restart {
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        stream: StreamArgs,
        /// The name of the destination
        name: String,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        wait: WaitArgs,
    },
}
