//! Programs that run beside a scenario. In: a command. Out: a guard with the program's log. Dropping the guard kills the program and all
//! its descendants, and so does the death of the test runner. The log is printed when the test has failed.
//!
//! Note: the children of a killed program keep its pipes open, so logs are files and never pipes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::orphans::Ward;
use crate::wait::{SOON, try_until};

/// Lines of a log that are shown when a test has failed.
const LAST_LINES: usize = 150;
/// Longest time between SIGTERM and the end of a program, before it is killed.
const POLITE: Duration = Duration::from_secs(5);

/// A running program.
#[derive(Debug)]
pub struct RunningProgram {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    directory: TempDir,
    /// The reading end of a pipe that nobody reads.
    _unread: Option<OwnedFd>,
    /// Dropped last, when no process is left to kill.
    _ward: Ward,
}

/// A program about to be started.
#[derive(Debug)]
pub struct Program {
    name: String,
    command: Command,
    directory: TempDir,
    unread: bool,
}

impl Program {
    /// Prepares `program`; `name` is used in messages.
    ///
    /// # Panics
    /// There is no temporary directory.
    #[must_use]
    pub fn new(name: &str, program: impl AsRef<OsStr>) -> Self {
        let directory = tempfile::Builder::new().prefix("liveedgecast-").tempdir().expect("a temporary directory");
        Self { name: name.to_owned(), command: Command::new(program), directory, unread: false }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds arguments as a person types them: separated by spaces, nothing quoted.
    #[must_use]
    pub fn words(self, arguments: &str) -> Self {
        self.args(arguments.split_whitespace())
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Clears the environment of the tests, except for `PATH`, `HOME` and `LANG`.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.command.env_clear();
        for name in ["PATH", "HOME", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                self.command.env(name, value);
            }
        }
        self
    }

    /// Replaces the program, with the same environment and directory. Call it before `arg`.
    #[must_use]
    pub fn instead(mut self, program: &Path) -> Self {
        let mut command = Command::new(program);
        command.env_clear();
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        self.command = command;
        self
    }

    /// The program's own directory, removed with the guard.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Connects standard error to a pipe that is full and that nobody reads.
    #[must_use]
    pub fn with_unread_errors(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Starts the program.
    ///
    /// # Panics
    /// The program cannot be started.
    #[must_use]
    pub fn start(mut self) -> RunningProgram {
        let log = File::create(self.directory.path().join(LOG)).expect("a log file");
        let (errors, unread) = if self.unread {
            let (reader, writer) = full_pipe();
            (Stdio::from(writer), Some(reader))
        } else {
            (Stdio::from(log.try_clone().expect("a log file")), None)
        };
        self.command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let child = self.command.spawn().unwrap_or_else(|error| {
            let program = self.command.get_program();
            panic!("{program:?} cannot be started ({error}); ./tools/test.sh installs what the tests need")
        });
        let ward = Ward::new(child.id());
        RunningProgram { name: self.name, child, status: None, directory: self.directory, _unread: unread, _ward: ward }
    }
}

const LOG: &str = "log";

/// A pipe without room for another byte, whose writer blocks until somebody reads.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe that does not wait");
    while rustix::io::write(&writer, &[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe that waits");
    (reader, writer)
}

impl RunningProgram {
    /// Id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The program's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The output of the program so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.path().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exit status, once the program has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// True if the program still runs.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// The program does not end within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let ended = try_until(limit, || self.ended());
        ended.unwrap_or_else(|_| panic!("{} did not end within {limit:?}", self.name))
    }

    /// Sends a signal to the program, and not to its children.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process(pid(self.id()), signal);
        }
    }

    /// Sends SIGINT and waits: ffmpeg and GStreamer then say goodbye to their server, as when a person ends them.
    #[track_caller]
    pub fn interrupt(&mut self) {
        self.signal(Signal::INT);
        self.wait(SOON);
    }

    /// Sends SIGTERM and waits.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(SOON)
    }

    /// Sends SIGKILL and waits.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait().map(|status| self.status = Some(status));
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        let descendants = descendants(self.id());
        self.signal(Signal::TERM);
        if try_until(POLITE, || self.ended()).is_err() {
            self.kill();
        }
        kill_all(self.id(), &descendants);
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!("---- {} ({:?}), last lines:\n{}\n----", self.name, self.status, shown.join("\n"));
        }
    }
}

/// # Panics
/// `id` is 0.
fn pid(id: u32) -> Pid {
    i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id")
}

/// Kills a process group and the descendants of its leader.
pub(crate) fn kill_all(id: u32, descendants: &[u32]) {
    let _ = kill_process_group(pid(id), Signal::KILL);
    for id in descendants.iter().copied().filter(|id| is_alive(*id)) {
        kill(id);
    }
}

/// Kills a process that is not a child of this one: a worker is the activator's child.
pub fn kill(id: u32) {
    let _ = kill_process(pid(id), Signal::KILL);
}

/// Sends a signal to a process that is not a child of this one.
pub fn signal(id: u32, signal: Signal) {
    let _ = kill_process(pid(id), signal);
}

/// The fields of `/proc/ID/stat` behind the name.
fn stat(id: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Parent of a process; `None` when the process has gone or is a zombie.
#[must_use]
pub fn parent(id: u32) -> Option<u32> {
    let fields = stat(id)?;
    if fields[0] == "Z" {
        return None;
    }
    fields[1].parse().ok()
}

/// Start time of a process in clock ticks since boot, which together with its id identifies the process. `None` when it has gone.
pub(crate) fn started_at(id: u32) -> Option<u64> {
    stat(id)?.get(19)?.parse().ok()
}

/// True if the process runs and is no zombie.
#[must_use]
pub fn is_alive(id: u32) -> bool {
    parent(id).is_some()
}

/// Running children of a process, their running children, and so on.
#[must_use]
pub fn descendants(id: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, parent(id)?)))
        .collect();
    let mut found = vec![id];
    let mut at = 0;
    while at < found.len() {
        let of = found[at];
        // An id that was reused during the walk could be its own ancestor.
        let new: Vec<u32> =
            all.iter().filter(|(id, parent)| *parent == of && !found.contains(id)).map(|it| it.0).collect();
        found.extend(new);
        at += 1;
    }
    found.split_off(1)
}

/// The program that a process runs.
#[must_use]
pub fn program(id: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{id}/exe")).ok()
}

/// CPU time that all threads of a process have used, by the scheduler's count, which is exact to the nanosecond.
#[must_use]
pub fn cpu_time(id: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let spent = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Resident memory in bytes.
#[must_use]
pub fn resident_memory(id: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
