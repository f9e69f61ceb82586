//! The terminal of the live view. In: lines, keys. Out: a screen of its own, which is left as it was found, however the view ends.
#![expect(clippy::disallowed_methods, reason = "shell: a thread waits for keys")]

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use crate::commandline::failure::CommandFailure;

/// The size of a terminal that does not tell it.
const USUAL: (usize, usize) = (120, 40);

/// Width and height of the terminal; the usual ones if it does not tell them.
pub(super) fn size() -> (usize, usize) {
    let told = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    told.map_or(USUAL, |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Width of one frame: that of the terminal; in a pipe that of `COLUMNS`, and without it no line is cut. A program reads the pipe.
pub(super) fn width_of_one() -> usize {
    if io::stdout().is_terminal() {
        return size().0;
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok());
    columns.filter(|columns| *columns > 0).unwrap_or(usize::MAX)
}

/// The terminal, with a screen of its own and without echo; `Drop` gives it back.
#[derive(Debug)]
pub(super) struct Screen {
    before: Option<Termios>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> Result<Self, CommandFailure> {
        if !io::stdout().is_terminal() {
            let text =
                "the live view needs a terminal: `top --once` prints one frame, and `streams --json` is for programs";
            return Err(CommandFailure::Usage(text.to_owned()));
        }
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut now = before.clone();
            // Ctrl-C comes as a key, so that the screen is given back.
            now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &now);
        }
        let screen = Self { before };
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Draws a frame.
    pub(super) fn draw(&self, lines: &[String]) -> Result<(), CommandFailure> {
        let mut text = "\x1b[H".to_owned();
        for (at, line) in lines.iter().enumerate() {
            // No line feed behind the last line, which would move the whole screen.
            text += if at > 0 { "\r\n" } else { "" };
            text += line;
            text += "\x1b[K";
        }
        write(&(text + "\x1b[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write(text: &str) -> Result<(), CommandFailure> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|_| CommandFailure::Unread)
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PressedKey {
    /// q, Ctrl-C, Ctrl-D.
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    Other,
}

/// The keys of the terminal, if standard input is one.
#[derive(Debug)]
pub(super) struct Keyboard {
    keys: Option<mpsc::Receiver<PressedKey>>,
}

impl Keyboard {
    /// Begins to read keys. A thread of its own waits for them until the process ends.
    pub(super) fn open() -> Self {
        if !io::stdin().is_terminal() {
            return Self { keys: None };
        }
        // A person types less than is drawn.
        let (typed, received) = mpsc::channel(8);
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(read @ 1..) = io::stdin().read(&mut bytes) {
                if keys(&bytes[..read]).into_iter().any(|key| typed.blocking_send(key).is_err()) {
                    return;
                }
            }
        });
        Self { keys: Some(received) }
    }

    /// The next key; waits while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> PressedKey {
        let Some(keys) = &mut self.keys else { return std::future::pending().await };
        match keys.recv().await {
            Some(key) => key,
            None => {
                // The terminal is gone; SIGHUP ends the view.
                self.keys = None;
                PressedKey::Other
            }
        }
    }
}

/// The keys in what was read at once, which may be several.
fn keys(mut bytes: &[u8]) -> Vec<PressedKey> {
    /// Sequences of terminals, in both of their modes.
    const SEQUENCES: [(&[u8], PressedKey); 6] = [
        (b"\x1b[A", PressedKey::Up),
        (b"\x1bOA", PressedKey::Up),
        (b"\x1b[B", PressedKey::Down),
        (b"\x1bOB", PressedKey::Down),
        (b"\x1b[5~", PressedKey::PageUp),
        (b"\x1b[6~", PressedKey::PageDown),
    ];
    let mut keys = Vec::new();
    while let Some(first) = bytes.first() {
        let sequence = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence));
        let (length, key) = match sequence {
            Some((sequence, key)) => (sequence.len(), *key),
            None => (1, letter(*first)),
        };
        keys.push(key);
        bytes = &bytes[length..];
    }
    keys
}

fn letter(byte: u8) -> PressedKey {
    match byte {
        b'q' | b'Q' | 3 | 4 => PressedKey::Quit,
        b'k' => PressedKey::Up,
        b'j' => PressedKey::Down,
        b' ' => PressedKey::PageDown,
        _ => PressedKey::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_however_many_come_at_once() {
        use PressedKey::{Down, Other, PageDown, PageUp, Quit, Up};
        let rows: [(&[u8], &[PressedKey]); 7] = [
            (b"q", &[Quit]),
            (&[3], &[Quit]),
            (b"\x1b[Ax", &[Up, Other]),
            (b"\x1bOB\x1b[B", &[Down, Down]),
            (b"\x1b[5~ ", &[PageUp, PageDown]),
            (b"\x1b[B\x03", &[Down, Quit]),
            (b"", &[]),
        ];
        for (bytes, expected) in rows {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }
}
