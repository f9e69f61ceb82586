//! The commands that people type beside a gateway that runs. In: arguments, the environment. Out: tables, JSON, sentences; an exit code. Next: nothing;
//! `main` comes here in place of `task`.
//!
//! - `failure` has the reasons for which a command fails, and the exit codes,
//! - `gateway` calls the HTTP API; `answers` has what it answers, and the rules by which a name leads to one stream or worker,
//! - `listing`, `events`, `orders`, `top` carry out the commands that ask a gateway,
//! - `check` looks at everything that a gateway needs, and `simulate` computes what other ways of keeping workers would have cost,
//! - `terminal` knows what a terminal takes: colours, progress; `table` aligns columns; `times` reads and shows times,
//! - `manual` prints completions and pages of the manual.
//!
//! Note: text of publishers and destinations passes [`LogSafe`](liveedgecast_common::key::LogSafe) before it is shown: an escape sequence in a name
//! would otherwise command the terminal.

mod answers;
mod check;
mod events;
mod failure;
mod gateway;
mod listing;
mod manual;
mod orders;
mod simulate;
mod table;
mod terminal;
mod times;
mod top;

use std::process::ExitCode;

use liveedgecast_common::config::Problems;
use liveedgecast_common::environment;

use self::failure::CommandFailure;
use self::gateway::GatewayClient;
use self::terminal::Terminal;
use crate::config::{Args, Subcommand};

/// Carries out a command, if `args` has one. `mistakes`: those in the names of variables, which `check` shows.
#[must_use]
pub fn run(args: &Args, mistakes: &Problems) -> Option<ExitCode> {
    let command = args.command.as_ref()?;
    let terminal = Terminal::of_process();
    let done = match command {
        Subcommand::Check(own) => with_runtime(check::run(args, own, mistakes, &terminal)),
        Subcommand::Simulate(own) => with_runtime(simulate::run(args, own, &terminal)),
        Subcommand::Completions { shell } => manual::completions(*shell, environment::command::<Args>()),
        Subcommand::Man { folder } => manual::pages(folder.as_deref(), environment::command::<Args>()),
        asking => with_runtime(async { ask(args, asking, &terminal).await }),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                terminal.complain(&text);
            }
            ExitCode::from(failure.code())
        }
    })
}

/// Runs what waits for sockets and clocks.
fn with_runtime(work: impl Future<Output = Result<(), CommandFailure>>) -> Result<(), CommandFailure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CommandFailure::Refused(format!("the runtime cannot be started: {error}")))?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// Carries out a command that asks a gateway.
async fn ask(args: &Args, command: &Subcommand, terminal: &Terminal) -> Result<(), CommandFailure> {
    let gateway = |api| GatewayClient::new(args, api, terminal);
    match command {
        Subcommand::Streams { stream, api } => listing::streams(&gateway(api)?, stream.as_deref(), api.json).await,
        Subcommand::Workers { api } => listing::workers(&gateway(api)?, api.json).await,
        Subcommand::Top(top) => top::run(&gateway(&top.api)?, top).await,
        Subcommand::Events(events) => events::print(&gateway(&events.api)?, events).await,
        Subcommand::Drain { worker, wait } => orders::drain(&gateway(&worker.api)?, worker, Some(wait)).await,
        Subcommand::Undrain { worker } => orders::drain(&gateway(&worker.api)?, worker, None).await,
        Subcommand::Kick { stream, reason } => orders::kick(&gateway(&stream.api)?, stream, reason.as_deref()).await,
        Subcommand::Destination(destination) => {
            orders::destination(&gateway(orders::api_of(destination))?, destination).await
        }
        Subcommand::Check(_) | Subcommand::Simulate(_) | Subcommand::Completions { .. } | Subcommand::Man { .. } => {
            Ok(())
        }
    }
}
