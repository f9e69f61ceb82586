//! `liveedgecast-worker`: reads its configuration, then serves until it is told to go.
//!
//! The order is that of a cold start, in which every millisecond is somebody's waiting: nothing is loaded here that the first
//! stream may not need.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use liveedgecast_common::config::Problems;
use liveedgecast_common::runtime::{host_name, raise_open_files};
use liveedgecast_worker::config::{Here, Settings, Typed};
use liveedgecast_worker::metrics::Metrics;
use liveedgecast_worker::{stream, task, upstream};

/// What tells a mistake in the configuration from a failure while running, for whoever starts us: trying again will not help.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let typed = Typed::parse();
    let mut problems = Problems::new();
    let log = typed.log.meant(&mut problems);
    let settings = Settings::judge(&typed, &here(), &mut problems);
    if let Err(problems) = problems.into_result() {
        eprintln!("{problems}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    log.start();
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the worker ends");
            ExitCode::FAILURE
        }
    }
}

fn here() -> Here {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Here { host: host_name(), pid: std::process::id(), cores }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    raise_open_files();
    let metrics = Metrics::new().context("metrics")?;
    let shared = Arc::new(upstream::Shared::new());
    let start =
        Arc::new(move |incoming, reports| stream::spawn(incoming, Arc::clone(&shared), reports).into_commands());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let served = runtime.block_on(async {
        let stops = task::signals().context("signals")?;
        task::run(settings, start, metrics, stops).await.context("serving")
    });
    // A question to a name server that does not answer is not waited for.
    runtime.shutdown_background();
    served
}
