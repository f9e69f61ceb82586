//! Reading one setting, for both binaries: text as typed in, a value out, mistakes noted with their fix.
//!
//! In: the text of a flag or variable. Out: a value; after a mistake a stand-in, so that the other settings are checked too. Next: the
//! `config` of each binary.
//!
//! Note: compose files and shells pass "nothing" as an empty variable, so empty means not set everywhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{Problems, QUOTED, is_quoted, parse_duration, show_duration};

/// Longest time that any setting may have: a day; a longer one is a mistake in the unit.
pub const MOST_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Streams that one worker may take at most, both in its settings and in its messages.
pub const MAX_CAPACITY: u32 = 10_000;

/// Fewest bytes of the control secret off loopback: messages signed with it travel in the clear, so a listener can guess it at leisure.
pub const LEAST_SECRET: usize = 16;

/// Most characters of a host's name (RFC 1035, 2.3.4).
const MOST_HOST: usize = 253;

/// The kinds of handoff that an activator offers and a worker accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handoff {
    /// Descriptor where the worker shares the activator's network namespace, otherwise by link.
    #[default]
    Auto,
    /// Descriptor only: the worker gets the publisher's own socket.
    Descriptor,
    /// Link only: frames over TCP, also on one host.
    Link,
}

impl Handoff {
    /// The words of the setting `HANDOFF`.
    pub const CHOICES: [(&str, Self); 3] =
        [("auto", Self::Auto), ("descriptor", Self::Descriptor), ("link", Self::Link)];
}

/// True if a text can be the name of a host.
#[must_use]
pub fn is_host(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= MOST_HOST && name.chars().all(plain)
}

/// Text that may hold a key: not shown by `Debug`.
#[derive(Clone, Default)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The text of a setting; empty means not set.
pub fn set(value: &Option<String>) -> Option<&str> {
    value.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// A hint for a value that cannot be parsed and stands in quotation marks.
fn quotes(text: &str) -> String {
    if is_quoted(text) { format!(" (it stands {QUOTED})") } else { String::new() }
}

/// The text of a setting that may hold a secret.
pub fn shown(value: &Option<Hidden>) -> Option<&str> {
    value.as_ref().map(|Hidden(text)| text.as_str())
}

/// The path of a setting; empty means not set.
pub fn file(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| !path.as_os_str().is_empty())
}

/// An address to listen on; after a mistake, which is noted, a harmless address.
pub fn address(setting: &str, typed: &Option<String>, default: &str, problems: &mut Problems) -> SocketAddr {
    let text = set(typed).unwrap_or(default);
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    // `:1935` is the form of Go programs; it means every address.
    let whole = if text.starts_with(':') { format!("[::]{text}") } else { text.clone() };
    SocketAddr::from_str(&whole).unwrap_or_else(|_| {
        let quotes = quotes(&text);
        problems.add(setting, format_args!("{text:?} is not an address: write IP:PORT, such as {default}{quotes}"));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

/// The value of one of `choices`, the first of which is the default; after a mistake, which is noted, the default.
pub fn choice<T: Copy>(setting: &str, typed: &Option<String>, choices: &[(&str, T)], problems: &mut Problems) -> T {
    let (_, default) = choices[0];
    let Some(text) = set(typed) else { return default };
    if let Some((_, value)) = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return *value;
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    problems.add(setting, format_args!("{text:?} is not known{}: write one of {}", quotes(text), names.join(", ")));
    default
}

/// A whole number; after a mistake, which is noted, the default.
pub fn number(
    setting: &str,
    typed: &Option<String>,
    default: u32,
    least: u32,
    most: u32,
    problems: &mut Problems,
) -> u32 {
    let Some(text) = set(typed) else { return default };
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => number,
        _ => {
            let quotes = quotes(text);
            problems.add(setting, format_args!("{text:?} is not a whole number from {least} to {most}{quotes}"));
            default
        }
    }
}

/// A time of at most [`MOST_TIME`]; after a mistake, which is noted, the default.
pub fn time(
    setting: &str,
    typed: &Option<String>,
    default: &str,
    least: Duration,
    problems: &mut Problems,
) -> Duration {
    let text = set(typed).unwrap_or(default);
    match parse_duration(text) {
        Ok(time) if (least..=MOST_TIME).contains(&time) => time,
        Ok(_) => {
            let (least, most) = (show_duration(least), show_duration(MOST_TIME));
            problems.add(setting, format_args!("{text} is not from {least} to {most}"));
            parsed(default)
        }
        Err(error) => {
            problems.add(setting, format_args!("{text:?} is {error}{}", quotes(text)));
            parsed(default)
        }
    }
}

/// Longest time that arrivals may gather: a stalled stream would look the same.
const MOST_GATHER: Duration = Duration::from_secs(1);

/// The setting `GATHER` of activators and workers: the time for which what a publisher sends gathers before it is relayed.
pub fn gather(typed: &Option<String>, problems: &mut Problems) -> Duration {
    let gather = time("GATHER", typed, "0s", Duration::ZERO, problems);
    if gather > MOST_GATHER {
        let (gather, most) = (show_duration(gather), show_duration(MOST_GATHER));
        problems.add("GATHER", format_args!("{gather} is not from 0s to {most}"));
    }
    gather.min(MOST_GATHER)
}

fn parsed(default: &str) -> Duration {
    parse_duration(default).unwrap_or_default()
}
