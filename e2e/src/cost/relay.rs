//! An activator and a worker, each under a tool that counts. In: a tool, a handoff, the upstream's address. Out: a guard with the ids of
//! both processes.
//!
//! The worker is no process of the activator's fleet, because under valgrind on a busy machine it would not register within the time that
//! the fleet gives it. It has one thread for streams.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::process::{Program, RunningProgram, descendants};
use crate::relay::binary;
use crate::wait::{LONG, try_until};
use crate::{http, loopback};

/// The secret of both processes.
const SECRET: &str = "a secret of the guard of costs";

/// A tool that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// valgrind's callgrind, which counts instructions and calls of functions. It counts nothing until it is told to.
    Callgrind,
    /// strace, which writes every system call down.
    Strace,
}

impl Tool {
    /// The command line before that of the program. The tool writes to `file`.
    fn words(self, file: &Path) -> Vec<String> {
        let file = file.display();
        let words = match self {
            Self::Callgrind => {
                format!("valgrind --tool=callgrind --instr-atstart=no -q --callgrind-out-file={file}")
            }
            Self::Strace => format!("strace -f -qq -s 0 -o {file}"),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// A process under a tool.
#[derive(Debug)]
struct CountedProcess {
    program: RunningProgram,
    tool: Tool,
    /// The tool's file.
    file: PathBuf,
}

impl CountedProcess {
    fn start(tool: Tool, name: &'static str, directory: &Path, settings: &[(&str, String)]) -> Self {
        let file = directory.join(name);
        let words = tool.words(&file);
        let program = Program::new(name, &words[0]).clear_env().args(&words[1..]);
        let log = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
        let mut program = program.arg(binary(&format!("liveedgecast-{name}"))).env("RUST_LOG", log);
        for (name, value) in settings {
            program = program.env(name, value);
        }
        Self { program: program.start(), tool, file }
    }

    /// Waits until something holds that follows from the process's start.
    fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
        let held = try_until(LONG, || {
            let held = holds();
            (held || !self.program.is_running()).then_some(held)
        });
        let tool = self.tool;
        ensure!(held == Ok(true), "under {tool:?}, {what} did not come:\n{}", self.program.log());
        Ok(())
    }

    fn id(&self) -> anyhow::Result<u32> {
        match self.tool {
            // valgrind runs the program in its own process.
            Tool::Callgrind => Ok(self.program.id()),
            Tool::Strace => descendants(self.program.id()).first().copied().context("the traced process has ended"),
        }
    }
}

/// An activator and a worker.
#[derive(Debug)]
pub struct CountedRelay {
    worker: CountedProcess,
    activator: CountedProcess,
    address: Ipv4Addr,
}

impl CountedRelay {
    /// Starts both, and waits until the worker is registered. `directory` gets the tool's files.
    ///
    /// # Errors
    /// The tool may not trace processes here.
    ///
    /// # Panics
    /// The tool or a program is not there.
    pub fn start(tool: Tool, handoff: &str, upstream: SocketAddr, directory: &Path) -> anyhow::Result<Self> {
        let address = loopback::address(&[1935, 6000, 6001, 6002, 8080, 8081]);
        let at = |port: u16| format!("{address}:{port}");
        let settings = [
            ("RTMP_PUSH_URL", format!("rtmp://{upstream}/live/{{key}}")),
            ("HANDOFF", handoff.to_owned()),
            ("FLEET", "external".to_owned()),
            ("CONTROL_SECRET", SECRET.to_owned()),
            ("RTMP_LISTEN", at(1935)),
            ("SCALER_LISTEN", at(6000)),
            ("CONTROL_LISTEN", at(6001)),
            ("LINK_LISTEN", at(6002)),
            ("HTTP_LISTEN", at(8080)),
        ];
        let mut activator = CountedProcess::start(tool, "activator", directory, &settings);
        let http = SocketAddr::from((address, 8080));
        activator.until("its health", || http::get(http, "/healthz").is_some())?;
        let settings = [
            ("ACTIVATOR", at(6001)),
            ("CONTROL_SECRET", SECRET.to_owned()),
            ("HTTP_LISTEN", at(8081)),
            ("STREAM_THREADS", "1".to_owned()),
        ];
        let mut worker = CountedProcess::start(tool, "worker", directory, &settings);
        let workers = || http::json(http, "/api/v1/workers").and_then(|workers| Some(workers.as_array()?.len()));
        worker.until("its registration", || workers() == Some(1))?;
        Ok(Self { worker, activator, address })
    }

    /// Address of the RTMP listener.
    #[must_use]
    pub fn rtmp(&self) -> SocketAddr {
        SocketAddr::from((self.address, 1935))
    }

    /// Ids of the activator and of the worker, each with the tool's file.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn processes(&self) -> anyhow::Result<[(u32, &Path); 2]> {
        Ok([(self.activator.id()?, &self.activator.file), (self.worker.id()?, &self.worker.file)])
    }

    /// The output of both processes so far.
    #[must_use]
    pub fn log(&self) -> String {
        format!("{}\n{}", self.activator.program.log(), self.worker.program.log())
    }
}

/// True once every thread of these processes sleeps, which it does only in a system call that has nothing for it.
fn all_sleep(processes: &[u32]) -> bool {
    let threads = |id: &u32| fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    processes.iter().flat_map(threads).all(|thread| {
        let text = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        text.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('S'))
    })
}

/// Waits until every thread of these processes sleeps.
///
/// # Errors
/// A thread is busy for minutes.
pub fn until_all_sleep(processes: &[u32]) -> anyhow::Result<()> {
    // They are about to sleep, and a wait of milliseconds for each message would be a long one.
    for _ in 0..1000 {
        if all_sleep(processes) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    let slept = try_until(LONG, || all_sleep(processes).then_some(()));
    slept.map_err(|limit| anyhow::anyhow!("a thread of the relay has been busy for {limit:?}"))
}
