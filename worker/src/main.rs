//! `liveedgecast-worker`: reads its configuration, then serves until it is asked to stop. In: arguments, signals. Out: the exit code.
//! Next: `config`, then `task`.
//!
//! The order is that of a cold start, in which a publisher waits for every millisecond: nothing is loaded here that the first stream may
//! not need.

#![expect(clippy::disallowed_methods, reason = "shell: the beginning of the process")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use liveedgecast_common::clock::now;
use liveedgecast_common::runtime::{host_name, raise_open_files, wake_soon};
use liveedgecast_common::{environment, event, health};
use liveedgecast_worker::config::{Args, Here, Settings, http_address};
use liveedgecast_worker::metrics::WorkerMetrics;
use liveedgecast_worker::{receive, stream, task, upstream};

/// Exit code for a mistake in the configuration, which a supervisor cannot cure by a restart.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let began = now();
    let (args, mut problems) = environment::parse::<Args>();
    if args.health {
        return health(&args);
    }
    let log = args.log.resolve(&mut problems);
    let settings = Settings::judge(&args, &here(began), &mut problems);
    if let Err(problems) = problems.into_result() {
        eprintln!("{problems}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    let _writing = match log.start() {
        Ok(writing) => writing,
        Err(error) => {
            eprintln!("the log cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(event = event::WORKER_STOPPED, error = format!("{error:#}"), "worker failed");
            ExitCode::FAILURE
        }
    }
}

/// Checks health, for images without another HTTP client.
fn health(args: &Args) -> ExitCode {
    let ask = |address| match address {
        Some(address) => health::ask(address, health::ALIVE),
        None => health::ask_within(health::ALIVE),
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

fn here(began: Instant) -> Here {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Here { host: host_name(), pid: std::process::id(), cores, began }
}

/// Most streams with so many open files. A stream that a worker has no room for waits, or goes to another worker; one that it takes and
/// has no descriptor for comes again ten times a second.
fn most_streams(files: Option<u64>) -> u32 {
    /// Publisher, ring, the connection to its activator, and a handful of upstreams.
    const EACH: u64 = 8;
    /// Descriptors for everything else: libraries, activators, scrapers.
    const RESERVED: u64 = 256;
    let files = files.unwrap_or(u64::MAX);
    u32::try_from((files - (files / 4).min(RESERVED)) / EACH).unwrap_or(u32::MAX).max(1)
}

fn run(mut settings: Settings) -> anyhow::Result<()> {
    let files = raise_open_files();
    let most = most_streams(files.now);
    if most < settings.capacity {
        let asked = settings.capacity;
        tracing::warn!(
            event = event::LIMIT_LOWERED,
            asked,
            capacity = most,
            "CAPACITY lowered to the room that RLIMIT_NOFILE has: raise it"
        );
        settings.capacity = most;
    }
    let metrics = WorkerMetrics::new().context("metrics")?;
    let upstreams = upstream::UpstreamContext::new().counting(metrics.upstream.clone());
    wake_soon();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let spares = receive::SpareRings::new(metrics.spares.clone(), runtime.handle().clone());
    let shared = Arc::new(stream::StreamContext { upstreams, gather: settings.gather, spares: spares.clone() });
    let start = Arc::new(move |incoming, reports| stream::spawn(incoming, Arc::clone(&shared), reports));
    let served = runtime.block_on(async {
        let stops = task::signals().context("signals")?;
        task::run(settings, start, spares, metrics, stops).await.context("serving")
    });
    // A question to a name server that does not answer is not waited for.
    runtime.shutdown_background();
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_takes_no_more_streams_than_it_has_open_files_for() {
        for (files, most) in [(None, u32::MAX), (Some(1 << 20), 131_040), (Some(1024), 96), (Some(64), 6), (Some(1), 1)]
        {
            assert_eq!(most_streams(files), most, "{files:?}");
        }
    }
}
