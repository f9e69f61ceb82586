//! A program on a terminal, for the scenarios of the command line. In: a command, keys. Out: the screen as a person sees it, and a picture of it; a panic where
//! something is not shown. The driver is `e2e/terminal/screen.py`, with pyte, which `tools/setup.sh` installs.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::driver::PythonDriver;

/// A terminal in which one program runs. The program hears a hang-up when this is dropped.
#[derive(Debug)]
pub struct EmulatedTerminal {
    driver: PythonDriver,
}

impl EmulatedTerminal {
    /// Runs a command, with its own variables alone.
    ///
    /// # Panics
    /// pyte is missing; `tools/setup.sh tests` installs it.
    #[must_use]
    pub fn run(command: &Command, columns: u16, rows: u16) -> Self {
        let mut driver = PythonDriver::start("terminal/screen.py", "terminal");
        let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
        let words: Vec<_> = words.into_iter().map(|word| word.to_string_lossy()).collect();
        let mut variables = Map::new();
        variables.insert("TERM".to_owned(), "xterm-256color".into());
        for (name, value) in command.get_envs() {
            variables.insert(name.to_string_lossy().into_owned(), value.unwrap_or_default().to_string_lossy().into());
        }
        driver.order(&json!(["run", words, variables, columns, rows]));
        Self { driver }
    }

    #[track_caller]
    fn lines(&mut self, order: &Value) -> Vec<String> {
        serde_json::from_value(self.driver.order(order)).expect("lines")
    }

    /// Waits until the screen fits each of these regular expressions of Python while the program is silent. Returns its lines.
    #[track_caller]
    pub fn shows(&mut self, patterns: &[&str]) -> Vec<String> {
        self.lines(&json!(["shows", patterns]))
    }

    /// Waits for a state of a line that is written again and again, and stops the program there until the next order. Returns the lines of the screen.
    #[track_caller]
    pub fn passes(&mut self, patterns: &[&str]) -> Vec<String> {
        self.lines(&json!(["passes", patterns]))
    }

    /// Types keys.
    #[track_caller]
    pub fn types(&mut self, keys: &str) {
        self.driver.order(&json!(["types", keys]));
    }

    /// Waits for the end of the program. Returns its exit code, negative for a signal, and the last lines of the screen.
    #[track_caller]
    pub fn ends(&mut self) -> (i32, Vec<String>) {
        serde_json::from_value(self.driver.order(&json!(["ends"]))).expect("a code and lines")
    }

    /// Writes a picture of the screen, as SVG.
    #[track_caller]
    pub fn picture(&mut self, path: &Path, title: &str) {
        self.driver.order(&json!(["picture", path, title]));
    }
}
