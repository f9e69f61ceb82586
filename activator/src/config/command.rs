//! The commands: what the program does in place of serving. In: arguments, environment. Out: text, not judged yet. Next: `commandline`, which carries
//! them out.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueHint};
use liveedgecast_common::setting::Hidden;

/// The things that the program does in place of serving.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Checks a configuration file, prints every mistake with its line and its fix, and does nothing else
    Check {
        /// The file [default: that of LIVEEDGECAST_CONFIG, or of --config before the command]
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
    },
    /// Lists the streams of a running gateway, or shows one with its destinations
    Streams {
        /// A stream: its id, the beginning of its id, or its publisher's name
        stream: Option<String>,
        #[command(flatten)]
        #[expect(missing_docs, reason = "documented by its own arguments")]
        api: ApiArgs,
    },
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
    /// Wait until it is done, at most for this time
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
