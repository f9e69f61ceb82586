//! The things that a process needs before its first room opens: its log, its limit of open files, its signals.
//!
//! In: flags, environment, the kernel. Out: a tracing subscriber, a raised limit, a stream of stop requests. Next: `stderr` for the log's
//! lines, each binary's `main` for the rest.
//!
//! Note: a process started by another inherits the soft limit of open files, often 1024, which is 500 streams; the hard limit is usually a
//! thousand times higher, and raising the soft limit to it harms nobody.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal};
use std::panic::{self, Location, PanicHookInfo};

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::config::Problems;
use crate::event;
use crate::setting::{choice, set};
use crate::stderr::{self, LineWriter, Writing};
use crate::sys::time_slice;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// JSON, an object per line.
    Json,
}

/// Settings of the log, the same in both binaries, as typed.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// How log lines look: text or json [default: text on a terminal, json otherwise]
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Log filter, as tracing's EnvFilter reads it, e.g. info,liveedgecast_worker=debug [default: info]
    #[arg(long, env = "RUST_LOG", value_name = "FILTER")]
    pub log_filter: Option<String>,
}

/// A log whose settings are known to be good and which has not started, so that all mistakes of a configuration are reported at once.
pub struct Log {
    format: LogFormat,
    filter: EnvFilter,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("format", &self.format).finish_non_exhaustive()
    }
}

impl LogArgs {
    /// Reads the settings; mistakes are noted.
    pub fn resolve(&self, problems: &mut Problems) -> Log {
        let formats = [("auto", None), ("text", Some(LogFormat::Text)), ("json", Some(LogFormat::Json))];
        let format = choice("LOG_FORMAT", &self.log_format, &formats, problems);
        let text = set(&self.log_filter).unwrap_or("info");
        let filter = EnvFilter::try_new(with_quiet_libraries(text)).unwrap_or_else(|error| {
            let fix = "write it like info,liveedgecast_worker=debug";
            problems.add("RUST_LOG", format_args!("{text:?} is not a log filter ({error}): {fix}"));
            EnvFilter::default()
        });
        Log { format: format.unwrap_or_else(LogFormat::of_stderr), filter }
    }
}

/// Libraries that log the input of strangers, frame by frame: 30 MB/s with one that sends HTTP/2 frames. The default level raises them to `info`
/// at most; a directive that names one applies in full.
const LIBRARIES: [&str; 6] = ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower"];
/// The most detailed level of these libraries in that case.
const LIBRARIES_LEVEL: &str = "info";

/// The filter, with directives added for libraries that it does not name.
fn with_quiet_libraries(filter: &str) -> String {
    let talkative =
        |directive: &str| ["debug", "trace", "4", "5"].iter().any(|level| directive.eq_ignore_ascii_case(level));
    if !filter.split(',').any(talkative) {
        return filter.to_owned();
    }
    // The last of two directives for one target counts.
    LIBRARIES.iter().map(|library| format!("{library}={LIBRARIES_LEVEL},")).chain([filter.to_owned()]).collect()
}

impl LogFormat {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    fn of_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

impl Log {
    /// The format of its lines.
    #[must_use]
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Starts logging to standard error, panics included. A second call in one process does nothing. Keep the returned value until the
    /// process ends.
    ///
    /// # Errors
    /// The thread that writes cannot be started.
    pub fn start(self) -> io::Result<Writing> {
        let writing = stderr::start()?;
        let builder = tracing_subscriber::fmt().with_env_filter(self.filter).log_internal_errors(false);
        let builder = builder.with_writer(LineWriter::default);
        let started = match self.format {
            LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
            LogFormat::Json => {
                builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
            }
        };
        match started {
            // The standard library's own hook writes to standard error by itself, and waits for its reader.
            Ok(()) => panic::set_hook(Box::new(log_panic)),
            Err(error) => tracing::debug!(event = event::LOG_KEPT, %error, "earlier log kept"),
        }
        Ok(writing)
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    // `RUST_BACKTRACE` decides whether there is one.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(&backtrace);
    tell_of_panic(text, info.location(), backtrace, stderr::write_line);
}

/// Logs a panic. `write` takes the line that no filter can switch off: a filter without a level for everything has none for this file.
fn tell_of_panic(
    panic: Option<&str>,
    place: Option<&Location<'_>>,
    backtrace: Option<&Backtrace>,
    write: impl FnOnce(&[u8]),
) {
    if tracing::enabled!(Level::ERROR) {
        let (place, backtrace) = (place.map(tracing::field::display), backtrace.map(tracing::field::display));
        tracing::error!(event = event::TASK_PANICKED, panic, place, backtrace, "task panicked");
        return;
    }
    let place = place.map_or_else(String::new, |place| format!(" at {place}"));
    let backtrace = backtrace.map_or_else(String::new, |backtrace| format!("\n{backtrace}"));
    write(format!("task panicked{place}: {}{backtrace}\n", panic.unwrap_or("no text")).as_bytes());
}

/// The limit of open files, as found and as raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// Limit as found; `None` is no limit.
    pub found: Option<u64>,
    /// Limit as raised; `None` is no limit.
    pub now: Option<u64>,
}

/// Raises the soft limit of open files to the hard one, and logs both.
pub fn raise_open_files() -> OpenFiles {
    let Rlimit { current: found, maximum } = getrlimit(Resource::Nofile);
    let mut limit = OpenFiles { found, now: found };
    if found != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => limit.now = maximum,
            Err(error) => {
                tracing::warn!(event = event::OPEN_FILES_NOT_RAISED, %error, "limit of open files not raised")
            }
        }
    }
    let words = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |files| files.to_string());
    // Logged also where there was nothing to raise: both numbers are what an operator looks for.
    tracing::info!(
        event = event::OPEN_FILES_CHECKED,
        found = words(limit.found),
        now = words(limit.now),
        "limit of open files checked"
    );
    limit
}

/// Lets the calling thread run soon after it wakes up, also on a busy core: see [`time_slice`]. For threads that have little to do, and on which
/// publishers wait.
pub fn wake_soon() {
    // Without it everything works, and a start on a busy core takes some milliseconds longer.
    let _ = time_slice::set_time_slice(time_slice::SHORT_SLICE);
}

/// A request from outside to stop the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM, which orchestrators send.
    Terminate,
    /// SIGINT, which Ctrl-C sends.
    Interrupt,
}

impl Stop {
    /// The signal's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The signals that ask the process to stop. The first starts the drain, every further one shortens it: the owner decides, this type only
/// hands them out and swallows none.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over. From here on they no longer end the process by themselves.
    ///
    /// # Errors
    /// The runtime has no signal driver, or the kernel refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next request to stop. Cancel safe.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

/// The host name of this machine, for processes that were given no name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_reported_with_the_fix() {
        let mut problems = Problems::new();
        let args = LogArgs { log_format: Some("xml".into()), log_filter: Some("info,worker=loudly".into()) };
        args.resolve(&mut problems);
        let text = problems.into_result().unwrap_err().to_string();
        assert!(text.contains("auto, text, json") && text.contains("liveedgecast_worker=debug"), "{text}");
    }

    #[test]
    fn an_empty_filter_means_the_default() {
        let mut problems = Problems::new();
        LogArgs { log_format: Some("json".into()), log_filter: Some("  ".into()) }.resolve(&mut problems);
        assert!(problems.is_empty());
    }

    #[test]
    fn default_level_does_not_reach_libraries_that_log_frames_of_strangers() {
        use tracing_subscriber::layer::SubscriberExt;

        for (text, ours, h2) in [
            ("debug", true, false),
            ("TRACE", true, false),
            ("debug,h2=trace", true, true),
            ("debug,h2", true, true),
            ("info", false, false),
            ("info,h2=debug", false, true),
        ] {
            let log = LogArgs { log_format: None, log_filter: Some(text.into()) }.resolve(&mut Problems::new());
            let subscriber = tracing_subscriber::registry().with(log.filter);
            tracing::subscriber::with_default(subscriber, || {
                let enabled = (
                    tracing::enabled!(target: "liveedgecast_activator::http", tracing::Level::DEBUG),
                    tracing::enabled!(target: "h2::codec::framed_read", tracing::Level::DEBUG),
                );
                assert_eq!(enabled, (ours, h2), "{text}");
            });
        }
    }

    #[test]
    fn panic_is_logged_whatever_the_filter_is() {
        use tracing_subscriber::layer::SubscriberExt;

        for (filter, logged) in [("info", true), ("liveedgecast_worker=debug", false), ("off", false)] {
            let log = LogArgs { log_format: None, log_filter: Some(filter.into()) }.resolve(&mut Problems::new());
            let mut written = Vec::new();
            tracing::subscriber::with_default(tracing_subscriber::registry().with(log.filter), || {
                tell_of_panic(Some("out of luck"), Some(Location::caller()), None, |line| written.extend(line));
            });
            let written = String::from_utf8(written).unwrap();
            assert_eq!(written.is_empty(), logged, "{filter}: {written}");
            assert!(logged || (written.contains("runtime.rs") && written.ends_with(": out of luck\n")), "{written}");
        }
    }

    #[test]
    fn limit_of_open_files_is_raised_to_the_hard_one() {
        let limit = raise_open_files();
        assert_eq!(limit.now, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_open_files().found, limit.now);
    }

    #[tokio::test]
    async fn every_signal_is_handed_out() {
        let mut signals = Signals::listen().unwrap();
        for (signal, stop) in
            [(rustix::process::Signal::TERM, Stop::Terminate), (rustix::process::Signal::INT, Stop::Interrupt)]
        {
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
            assert_eq!(signals.next().await, stop);
        }
    }
}
