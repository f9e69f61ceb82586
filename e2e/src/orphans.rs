//! Programs whose runner was killed, or interrupted by a person: they are not to outlive it. In: ids of processes, by a pipe from the
//! runner. Out, when the pipe ends: those that the runner has not ended itself are killed, with all that they have started.
//!
//! Surprise: the kernel's own means, a signal at the parent's death, is sent when the thread that started the program ends, and most
//! scenarios are threads that end before their runner; and it reaches the program alone, not what that has started. So a process of
//! its own watches: `src/bin/orphans.rs`.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::process::{descendants, kill_all, started_at};

/// The binary that watches, beside this one.
const WATCHER: &str = "orphans";

/// To the watcher, which lives as long as we and a moment longer.
// A lock, because programs are started and ended by any thread; held for one short line.
static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// A program that is not to outlive this process. Drop it when the program and all that it has started are gone.
#[derive(Debug)]
pub struct Ward(u32);

impl Ward {
    /// The program with this id, which leads a process group of its own.
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
    // Whoever has killed the watcher will have to look for orphans himself.
    let _ = writeln!(pipe.lock().unwrap_or_else(PoisonError::into_inner), "{sign}{id}");
}

fn start_watcher() -> ChildStdin {
    let own = std::env::current_exe().expect("the path of this program");
    let beside = own.ancestors().skip(1).map(|directory| directory.join(WATCHER)).find(|path| path.is_file());
    let watcher =
        beside.unwrap_or_else(|| panic!("{WATCHER} has not been built; cargo build -p liveedgecast-e2e does"));
    // A group of its own: a person's Ctrl-C is for the runner. No output: who reads the runner's waits for its end.
    let mut command = Command::new(watcher);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().ok().and_then(|watcher| watcher.stdin).expect("a process that watches")
}

/// What the watcher does: listens until its runner is gone, then kills what is left.
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
        // Its number may be another's by now. That of a group that has lost its leader never is.
        let now = started_at(id);
        if now.is_none() || now == started {
            kill_all(id, &descendants(id));
        }
    }
}
