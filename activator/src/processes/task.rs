//! The shell of the process fleet: starts, signals and reaps worker processes. In: orders of the machine. Out: what became of them.
//!
//! Note: a terminal's Ctrl-C goes to the whole process group, so workers get a group of their own, or they would end before the activator.
//! A worker must outlive the activator with its streams, so its standard error is a pipe that it never waits for: when the activator is
//! stuck or gone, log lines are lost and nothing else.
#![expect(clippy::disallowed_methods, reason = "shell: processes and the tasks that watch them")]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use liveedgecast_common::config::show_duration;
use liveedgecast_common::event;
use liveedgecast_common::key::{LogSafe, Secret};
use liveedgecast_common::stderr;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::metrics::ProcessMetrics;
use crate::config::{Handoff, Settings, dialed};
use crate::dispatch::processes::{Input, ProcessEnd};
use crate::lobby::{Order, ProcessOrders};

/// The worker's program, beside our own.
const PROGRAM: &str = "liveedgecast-worker";
/// Variables of ours that a worker gets too: where certificates are, how many threads, how panics look.
const PASSED_ON: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "STREAM_THREADS", "RUST_BACKTRACE"];
/// Last lines of a worker's standard error that are kept for the report of its failure …
const LAST_LINES: usize = 10;
/// … and bytes of each.
const LAST_LINE_BYTES: usize = 400;
/// Bytes of one line that are passed on as one; a longer one is cut.
const MAX_LINE: usize = 16 << 10;
/// How long the rest of its standard error may take after a process has ended.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);
/// Signals to one process that wait for its task: it is stopped once and killed once.
const SIGNALS: usize = 4;

/// The way to start a worker.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Arguments of the program, without the name.
    pub arguments: Vec<String>,
    /// Environment of the program, complete.
    pub environment: Vec<(&'static str, Secret)>,
}

impl Launch {
    /// The launch by the settings. `control`: the control listener, as bound. `log`: format and filter of the workers' logs.
    #[must_use]
    pub fn new(settings: &Settings, program: PathBuf, control: SocketAddr, log: (&str, Option<&str>)) -> Self {
        let handoff = match settings.handoff {
            Handoff::Auto => "auto",
            Handoff::Descriptor => "descriptor",
            Handoff::Link => "link",
        };
        let arguments = [
            ("--activator", dialed(control).to_string()),
            ("--http-listen", "127.0.0.1:0".to_owned()),
            ("--capacity", settings.capacity.to_string()),
            ("--handoff", handoff.to_owned()),
            ("--drain-timeout", show_duration(settings.drain)),
            ("--gather", show_duration(settings.gather)),
            ("--log-format", log.0.to_owned()),
        ];
        let arguments =
            arguments.into_iter().chain(settings.protection.flags()).flat_map(|(flag, value)| [flag.to_owned(), value]);
        let passed = PASSED_ON.iter().filter_map(|name| Some((*name, Secret::new(std::env::var(name).ok()?))));
        let collector = settings.traces.iter().map(|collector| ("OTLP_ENDPOINT", Secret::new(collector.as_str())));
        let filter = log.1.map(|filter| ("RUST_LOG", Secret::new(filter)));
        Self {
            program,
            arguments: arguments.chain(["--exit-when-orphaned".to_owned()]).collect(),
            // The secret goes by the environment, because arguments can be read by everybody on the machine.
            environment: passed
                .chain(filter)
                .chain(collector)
                .chain([("CONTROL_SECRET", settings.secret.clone())])
                .collect(),
        }
    }
}

/// The path of the worker's program: beside ours, so that both are of one version.
///
/// # Errors
/// The program is not there; the text has the path.
pub fn program_beside(ours: &Path) -> io::Result<PathBuf> {
    let program = ours.with_file_name(PROGRAM);
    if program.is_file() {
        return Ok(program);
    }
    let text = format!(
        "there is no worker program at {}: put it there, or start workers yourself with --fleet external",
        program.display()
    );
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}

/// Carries out the orders of the process fleet, until dropped. The processes live on then.
pub async fn run(orders: ProcessOrders, launch: Launch, metrics: ProcessMetrics) {
    let mut running: HashMap<String, mpsc::Sender<Signal>> = HashMap::new();
    loop {
        match orders.order().await {
            Order::Spawn(name) => {
                running.retain(|_, signals| !signals.is_closed());
                match spawn(&launch, &name) {
                    Ok((child, pid, words)) => {
                        metrics.started.inc();
                        info!(event = event::PROCESS_STARTED, worker = name, pid, "worker process started");
                        let (signals, asked) = mpsc::channel(SIGNALS);
                        running.insert(name.clone(), signals);
                        orders.process(Input::Spawned(name.clone()));
                        tokio::spawn(watch(orders.clone(), name, child, pid, words, asked));
                    }
                    Err(error) => {
                        let why = format!("{} cannot be started: {error}", launch.program.display());
                        orders.process(Input::NotSpawned(name, why));
                    }
                }
            }
            Order::Stop(name) => send(&running, &name, Signal::TERM),
            Order::Kill(name) => send(&running, &name, Signal::KILL),
        }
    }
}

fn send(running: &HashMap<String, mpsc::Sender<Signal>>, name: &str, signal: Signal) {
    debug!(event = event::PROCESS_SIGNALLED, worker = name, ?signal, "worker process signalled");
    if let Some(signals) = running.get(name) {
        // A closed channel means that the process has ended by itself, a full one that it was killed already.
        let _ = signals.try_send(signal);
    }
}

fn spawn(launch: &Launch, name: &str) -> io::Result<(Child, i32, pipe::Receiver)> {
    // The activator reads one end and the worker writes the other; neither waits.
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let words = pipe::Receiver::from_owned_fd(ours)?;
    let child = Command::new(&launch.program)
        .args(&launch.arguments)
        .args(["--name", name])
        .env_clear()
        .envs(launch.environment.iter().map(|(name, value)| (name, value.expose())))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(theirs))
        .process_group(0)
        .spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
    Ok((child, pid, words))
}

/// A worker process, from its start until it was reaped.
async fn watch(
    orders: ProcessOrders,
    name: String,
    mut child: Child,
    pid: i32,
    words: pipe::Receiver,
    mut signals: mpsc::Receiver<Signal>,
) {
    let words = tokio::spawn(pass_on(words, name.clone()));
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status,
            Some(signal) = signals.recv() => {
                // Only this task reaps the process, so the pid was not reused.
                if let Some(Err(error)) = Pid::from_raw(pid).map(|pid| kill_process(pid, signal)) {
                    warn!(event = event::SIGNAL_FAILED, worker = name, %error, "signal to a worker process failed");
                }
            }
        }
    };
    signals.close();
    let stop = words.abort_handle();
    let last_words = tokio::time::timeout(LAST_WORDS_TIMEOUT, words).await;
    stop.abort();
    let last_words = last_words.ok().and_then(Result::ok).unwrap_or_default();
    let in_order = status.as_ref().is_ok_and(ExitStatus::success);
    let status = status.map_or_else(|error| error.to_string(), in_words);
    orders.process(Input::Ended(name, ProcessEnd { status, in_order, last_words }));
}

fn in_words(status: ExitStatus) -> String {
    // "exit status: 1" and "signal: 9 (SIGKILL)".
    status.to_string()
}

/// Passes a worker's standard error on to ours, line by line, and keeps the last ones.
async fn pass_on(mut from: pipe::Receiver, name: String) -> Vec<String> {
    let mut last: VecDeque<String> = VecDeque::new();
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let ended = !matches!(from.read_buf(&mut buffer).await, Ok(read) if read > 0);
        let whole = match buffer.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if ended || buffer.len() >= MAX_LINE => buffer.len(),
            None => 0,
        };
        let rest = buffer.split_off(if ended { buffer.len() } else { whole });
        for line in buffer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // A line is written as a whole, because lines of several workers must not mix. Lines that our own reader does not take are dropped
            // there and counted.
            stderr::write_line(&marked(line, &name));
            last.push_back(shortened(line));
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
        buffer = rest;
        if ended {
            return last.into();
        }
    }
}

/// The line, with the worker's name: as a field of JSON, else in front.
fn marked(line: &[u8], name: &str) -> Vec<u8> {
    match line.strip_prefix(b"{\"") {
        Some(rest) => [b"{\"process\":\"", name.as_bytes(), b"\",\"", rest, b"\n"].concat(),
        None => [name.as_bytes(), b": ", line, b"\n"].concat(),
    }
}

fn shortened(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(LAST_LINE_BYTES)]);
    // The worker is our own program, but its lines may quote strangers.
    text.split(' ').map(|word| LogSafe(word).to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
