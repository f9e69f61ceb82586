//! The terminal of a command, or the pipe in its place. In: text. Out: text, colours and progress where a terminal takes them. Next: nothing.
#![expect(clippy::disallowed_methods, reason = "shell: its progress has a timer")]

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use liveedgecast_common::clock::{now, sleep_until};

use super::failure::CommandFailure;
use super::table::Tone;

/// Time after which a person wants to know what is waited for.
const UNNOTICED: Duration = Duration::from_millis(400);
/// Time between two pictures of the progress.
const TURN: Duration = Duration::from_millis(120);
const PICTURES: [char; 4] = ['|', '/', '-', '\\'];

/// The kinds of standard output and standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    /// Standard output takes colours.
    pub(super) coloured: bool,
    /// Standard error takes colours.
    errors_coloured: bool,
    /// Standard error is a terminal, on which a line can be written again.
    shows_progress: bool,
}

impl Terminal {
    /// The kinds of both for this process. `NO_COLOR` (no-color.org) and `TERM=dumb` switch colours off.
    pub(super) fn of_process() -> Self {
        let is = |name: &str, test: fn(&str) -> bool| std::env::var(name).is_ok_and(|value| test(&value));
        let dumb = is("TERM", |term| term == "dumb");
        let colours = !is("NO_COLOR", |value| !value.is_empty()) && !dumb;
        let errors = io::stderr().is_terminal();
        Self {
            coloured: colours && io::stdout().is_terminal(),
            errors_coloured: colours && errors,
            shows_progress: errors && !dumb,
        }
    }

    /// Writes to standard output.
    pub(super) fn print(self, text: &str) -> Result<(), CommandFailure> {
        let mut output = io::stdout().lock();
        let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CommandFailure::Unread,
            _ => CommandFailure::Refused(format!("standard output cannot be written: {error}")),
        })
    }

    /// Writes the sentence of a failure to standard error.
    pub(super) fn complain(self, text: &str) {
        let word = Tone::Bad.paint("error:", self.errors_coloured);
        let _ = writeln!(io::stderr(), "{word} {text}");
    }

    /// Writes a remark to standard error.
    pub(super) fn remark(self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Shows on a terminal how much of a long computation is done.
    pub(super) fn bar(self, what: &str, done: usize, all: usize) {
        /// Characters of the bar.
        const LENGTH: usize = 30;
        if self.shows_progress {
            let full = LENGTH * done / all.max(1);
            draw(&format!("{}{} {done} of {all} {what}", "█".repeat(full), "░".repeat(LENGTH - full)));
        }
    }

    /// Removes the bar.
    pub(super) fn clear_bar(self) {
        if self.shows_progress {
            draw("");
        }
    }

    /// Waits for `work`, and shows on a terminal that it does once that takes longer than a person overlooks. `what`: the thing that is waited for.
    pub(super) async fn watching<T>(self, what: &str, work: impl Future<Output = T>) -> T {
        if !self.shows_progress {
            return work.await;
        }
        let begun = now();
        let mut work = std::pin::pin!(work);
        let (mut next, mut turn) = (begun + UNNOTICED, 0);
        loop {
            tokio::select! {
                done = &mut work => {
                    if turn > 0 {
                        draw("");
                    }
                    return done;
                }
                () = sleep_until(Some(next)) => {
                    let seconds = now().saturating_duration_since(begun).as_secs();
                    draw(&format!("{} {what}, {seconds} s", PICTURES[turn % PICTURES.len()]));
                    turn += 1;
                    next = now() + TURN;
                }
            }
        }
    }
}

/// Writes the last line of standard error again.
fn draw(line: &str) {
    let mut errors = io::stderr();
    let _ = write!(errors, "\r\x1b[K{line}").and_then(|()| errors.flush());
}
