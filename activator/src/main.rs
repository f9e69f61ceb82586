//! `liveedgecast-activator`: reads its configuration, then serves until it is asked to stop. In: arguments, signals. Out: the exit code.
//! Next: `config`, then `task`.

use std::process::ExitCode;

use anyhow::Context as _;
use liveedgecast_activator::commandline;
use liveedgecast_activator::config::{Args, Fleet, Handoff, Settings, http_address};
use liveedgecast_activator::processes::program_beside;
use liveedgecast_activator::task::{self, Startup};
use liveedgecast_common::config::Problems;
use liveedgecast_common::runtime::{Signals, raise_open_files, wake_soon};
use liveedgecast_common::{environment, event, health, random};

/// Exit code for a mistake in the configuration, which a supervisor cannot cure by a restart.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let (args, mut problems) = environment::parse::<Args>();
    if let Some(code) = commandline::run(&args, &problems) {
        return code;
    }
    if args.health || args.ready {
        return health(&args, if args.ready { health::READY } else { health::ALIVE });
    }
    let log = args.log.resolve(&mut problems);
    let settings = Settings::resolve(&args, random::bytes());
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
    let start = Startup { settings, program, log: (log.format().as_str(), args.log.log_filter.clone()) };
    let _writing = match log.start() {
        Ok(writing) => writing,
        Err(error) => {
            eprintln!("the log cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(event = event::ACTIVATOR_STOPPED, error = format!("{error:#}"), "activator failed");
            ExitCode::FAILURE
        }
    }
}

/// Checks health, for images without another HTTP client.
fn health(args: &Args, path: &str) -> ExitCode {
    let ask = |address| match address {
        Some(address) => health::ask(address, path),
        None => health::ask_within(path),
    };
    match http_address(args).map(ask) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

/// Most connections of publishers with so many open files: strangers and live streams must not take the descriptors that starting a
/// worker and answering probes need.
fn most_connections(files: Option<u64>, handoff: Handoff) -> usize {
    /// Listeners, HTTP, KEDA, workers' calls and pipes, peers, libraries.
    const RESERVED: usize = 4096;
    let each = match handoff {
        // The publisher, the connection to its worker.
        Handoff::Link => 2,
        // The same two, the ring, and the worker as a process that may have to be killed.
        Handoff::Auto | Handoff::Descriptor => 4,
    };
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    ((files - (files / 2).min(RESERVED)) / each).max(1)
}

fn run(mut start: Startup) -> anyhow::Result<()> {
    let files = raise_open_files();
    let (asked, most) = (start.settings.limits.total, most_connections(files.now, start.settings.handoff));
    if most < asked {
        tracing::info!(
            event = event::LIMIT_LOWERED,
            asked,
            connections = most,
            "MAX_CONNECTIONS lowered to the room that RLIMIT_NOFILE has"
        );
        start.settings.limits.total = most;
    }
    if start.settings.handoff != Handoff::Link {
        // By link this thread carries media, too, and bursts are better handled in one go.
        wake_soon();
    }
    // One thread: what it does is wait, and hand over. Streams run in workers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let served = runtime.block_on(async {
        let signals = Signals::listen().context("signals")?;
        task::run(start, signals).await
    });
    runtime.shutdown_background();
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_get_the_last_open_file() {
        let rows = [
            (Some(1 << 20), 261_120, 522_240),
            (Some(20_000), 3_976, 7_952),
            (Some(1024), 128, 256),
            (Some(256), 32, 64),
            (Some(1), 1, 1),
        ];
        for (files, by_descriptor, by_link) in rows {
            assert_eq!(most_connections(files, Handoff::Auto), by_descriptor, "{files:?}");
            assert_eq!(most_connections(files, Handoff::Link), by_link, "{files:?}");
        }
        assert!(most_connections(None, Handoff::Descriptor) > 1 << 30);
    }
}
