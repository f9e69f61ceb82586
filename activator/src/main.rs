//! `liveedgecast-activator`: reads its configuration, then serves until it is told to go.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use liveedgecast_activator::config::{Fleet, Settings, Typed};
use liveedgecast_activator::fleet::processes::program_beside;
use liveedgecast_activator::task::{self, Start};
use liveedgecast_common::config::Problems;
use liveedgecast_common::random;
use liveedgecast_common::runtime::{Signals, raise_open_files};

/// What tells a mistake in the configuration from a failure while running, for whoever starts us: trying again will not help.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let typed = Typed::parse();
    let mut problems = Problems::new();
    let log = typed.log.meant(&mut problems);
    let settings = Settings::meant(&typed, random::bytes());
    let settings = match settings {
        Ok(settings) if problems.is_empty() => settings,
        settings => {
            for problem in settings.err().iter().flat_map(Problems::iter) {
                problems.add(problem.setting.clone(), &problem.text);
            }
            eprintln!("{problems}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let program = match settings.fleet {
        Fleet::External => None,
        Fleet::Process => match std::env::current_exe().and_then(|ours| program_beside(&ours)) {
            Ok(program) => Some(program),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(BAD_CONFIGURATION);
            }
        },
    };
    let start = Start { settings, program, log: (log.format().as_str(), typed.log.log_filter.clone()) };
    log.start();
    match run(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the activator ends");
            ExitCode::FAILURE
        }
    }
}

fn run(start: Start) -> anyhow::Result<()> {
    raise_open_files();
    // One thread: what it does is wait, and hand over. Streams run in workers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let served = runtime.block_on(async {
        let signals = Signals::listen().context("signals")?;
        task::run(start, signals).await
    });
    runtime.shutdown_background();
    served
}
