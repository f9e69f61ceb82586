//! Kills the programs of a test runner that was itself killed or interrupted. In: ids of processes, through a pipe from the runner. Out:
//! when the pipe ends, the programs that the runner has not ended are killed, with all their descendants.
//!
//! Note: the kernel sends its signal at a parent's death (`PR_SET_PDEATHSIG`) when the thread that started the program ends, and most
//! scenarios are threads that end before their runner; the signal also reaches the program alone and not its children. So a separate
//! process watches: `src/bin/orphans.rs`.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::process::{descendants, kill_all, started_at};

/// The binary of the watching process, in the directory of this one.
const WATCHER: &str = "orphans";

/// The pipe to the watcher, which outlives this process by a moment.
// A lock, because any thread starts and ends programs; held while one short line is written.
static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// A program that must not outlive this process. Drop the guard when the program and all its descendants have ended.
#[derive(Debug)]
pub struct Ward(u32);

impl Ward {
    /// Registers the program with this id, which leads a process group of its own.
    ///
    /// # Panics
    /// The watcher has not been built.
    #[must_use]
    pub fn new(id: u32) -> Self {
        say('+', id);
        Self(id)
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        say('-', self.0);
    }
}

fn say(sign: char, id: u32) {
    let pipe = PIPE.get_or_init(|| Mutex::new(start_watcher()));
    // A person who killed the watcher has to look for orphans by hand.
    let _ = writeln!(pipe.lock().unwrap_or_else(PoisonError::into_inner), "{sign}{id}");
}

fn start_watcher() -> ChildStdin {
    let own = std::env::current_exe().expect("the path of this program");
    let beside = own.ancestors().skip(1).map(|directory| directory.join(WATCHER)).find(|path| path.is_file());
    let watcher =
        beside.unwrap_or_else(|| panic!("{WATCHER} has not been built; cargo build -p liveedgecast-e2e does"));
    // The watcher has a process group of its own, because Ctrl-C is meant for the runner, and no output, because a reader of the runner's
    // output waits for its end.
    let mut command = Command::new(watcher);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().ok().and_then(|watcher| watcher.stdin).expect("a process that watches")
}

/// Runs the watcher: reads until the runner has gone, then kills the programs that are left.
pub fn watch(said: impl BufRead) {
    let mut running = HashMap::new();
    for line in said.lines().map_while(Result::ok) {
        let Some((sign, id)) = line.split_at_checked(1).and_then(|(sign, id)| Some((sign, id.parse::<u32>().ok()?)))
        else {
            continue;
        };
        match sign {
            "+" => _ = running.insert(id, started_at(id)),
            _ => _ = running.remove(&id),
        }
    }
    for (id, started) in running {
        // The id may have been reused by now. A group that has lost its leader keeps its id.
        let now = started_at(id);
        if now.is_none() || now == started {
            kill_all(id, &descendants(id));
        }
    }
}
