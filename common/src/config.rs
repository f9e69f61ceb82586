//! Parts of both binaries' configuration: sizes, durations, secrets from files, publish keys, and a list of all mistakes.
//!
//! In: text from flags, the environment and files. Out: values, or every mistake at once, each with its fix. Next: the `config` of each
//! binary. No error shows a key or a secret.

mod watched;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

pub use self::watched::Watched;
use crate::key::{NameError, StreamKey};

/// Largest file that a setting is read from: 1 MiB holds ten thousand keys; a wrong path (`/dev/zero`) must not fill the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A number of bytes, written as `8MiB`, `64k`, `1000000`. Units of one letter are binary, as in nginx and Docker; `kB`, `MB`, `GB`
/// are decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// Text that is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a size in bytes: write a whole number with a unit, such as 8MiB or 512KiB")]
pub struct SizeError;

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim() {
            "" | "B" | "b" => 1,
            "k" | "K" | "KiB" | "Ki" | "kiB" => 1 << 10,
            "m" | "M" | "MiB" | "Mi" => 1 << 20,
            "g" | "G" | "GiB" | "Gi" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(SizeError),
        };
        let number: u64 = number.parse().map_err(|_| SizeError)?;
        number.checked_mul(unit).map(Self).ok_or(SizeError)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Text that is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write whole numbers with units, such as 30s, 500ms, 2m or 1m30s")]
pub struct DurationError;

/// Parses `30s`, `500ms`, `1m30s`, `2h`, `0`. A bare number has no unit and is a mistake: people mean seconds or milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut previous = u64::MAX;
    if rest.is_empty() {
        return Err(DurationError);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return Err(DurationError),
        };
        // `30s5m` is more likely a mistake than an intention.
        if unit >= previous {
            return Err(DurationError);
        }
        previous = unit;
        let number: u64 = number.parse().map_err(|_| DurationError)?;
        let millis = number.checked_mul(unit).ok_or(DurationError)?;
        total = total.checked_add(Duration::from_millis(millis)).ok_or(DurationError)?;
        rest = tail;
    }
    Ok(total)
}

/// Writes a duration so that [`parse_duration`] reads it back (whole milliseconds).
pub fn show_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
        if millis >= unit {
            out += &format!("{}{name}", millis / unit);
            millis %= unit;
        }
    }
    out
}

/// A mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Setting as people write it: `RTMP_PUSH_URL`.
    pub setting: String,
    /// The mistake and its fix; without secrets.
    pub text: String,
}

/// The mistakes of a configuration, to be shown all at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a mistake in `setting`.
    pub fn add(&mut self, setting: impl Into<String>, text: impl fmt::Display) {
        self.0.push(Problem { setting: setting.into(), text: text.to_string() });
    }

    /// The value, or `None` after noting the mistake.
    pub fn check<T, E: fmt::Display>(&mut self, setting: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(setting, error)).ok()
    }

    /// True if there are no mistakes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// `Ok` when there are no mistakes.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in the configuration:",
            if self.0.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", self.0.len()) }
        )?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {}: {}", problem.setting, problem.text))
    }
}

impl std::error::Error for Problems {}

/// Reads the file that a `*_FILE` setting names, without the newlines around its content.
pub fn read_file(path: &Path) -> Result<String, FileError> {
    Ok(read_whole_file(path)?.trim().to_owned())
}

/// Reads a file of settings as it is, so that the numbers of its lines stay right.
pub fn read_whole_file(path: &Path) -> Result<String, FileError> {
    use std::io::Read as _;
    let shown = || path.display().to_string();
    let file = open_at_once(path).map_err(|error| FileError::Unreadable(shown(), error))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| FileError::Unreadable(shown(), error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge(shown()));
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText(shown()))?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() { Err(FileError::Empty(shown())) } else { Ok(text.to_owned()) }
}

/// Opens a file without waiting, and nothing but a file: a named pipe whose writer is silent would hold the thread of the streams for ever.
fn open_at_once(path: &Path) -> std::io::Result<std::fs::File> {
    use rustix::fs::{FileType, Mode, OFlags, fcntl_setfl, fstat, open};
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        // A pipe, also a shell's `<(…)`, is read as long as its writer likes, and a second time never.
        return Err(std::io::Error::other("it is no regular file, and settings are read from nothing else"));
    }
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file.into())
}

/// The reason why a file that a setting names could not be used. Never shows its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Missing file, one that may not be read, or no file.
    #[error("can not read {0}: {1}")]
    Unreadable(String, #[source] std::io::Error),
    /// File of more than [`MAX_FILE_BYTES`].
    #[error("{0} is larger than 1 MiB: is it the right file?")]
    TooLarge(String),
    /// File that is not UTF-8.
    #[error("{0} is not a text in UTF-8")]
    NotText(String),
    /// File of nothing but white space.
    #[error("{0} is empty")]
    Empty(String),
}

/// The mistake of a value that begins and ends with a quotation mark: env files that no shell reads keep theirs.
pub(crate) const QUOTED: &str = "in quotation marks, which are part of the value: remove them";

/// True if a value stands in quotation marks.
pub(crate) fn is_quoted(text: &str) -> bool {
    text.len() > 1 && ['"', '\''].iter().any(|quote| text.starts_with(*quote) && text.ends_with(*quote))
}

/// The value of a setting that can also come from a file (`NAME` or `NAME_FILE`). Both at once is a mistake; an empty variable counts as
/// not set, because compose files and shells pass "nothing" that way.
pub fn value_or_file(
    setting: &str,
    value: Option<&str>,
    file: Option<&Path>,
    problems: &mut Problems,
) -> Option<String> {
    let value = value.map(str::trim).filter(|text| !text.is_empty());
    let file = file.filter(|path| !path.as_os_str().is_empty());
    match (value, file) {
        (Some(_), Some(_)) => {
            problems.add(setting, format_args!("given both directly and as {setting}_FILE: remove one of them"));
            None
        }
        (Some(value), None) if is_quoted(value) => {
            problems.add(setting, format_args!("stands {QUOTED}"));
            None
        }
        (Some(value), None) => Some(value.to_owned()),
        (None, Some(path)) => problems.check(&format!("{setting}_FILE"), read_file(path)),
        (None, None) => None,
    }
}

/// The name of the setting that a text came from: with `_FILE` if a file is named, so that a mistake leads to where it is.
#[must_use]
pub fn source_of(setting: &str, file: Option<&Path>) -> String {
    match file.filter(|path| !path.as_os_str().is_empty()) {
        Some(_) => format!("{setting}_FILE"),
        None => setting.to_owned(),
    }
}

/// The keys that may be published (`PUBLISH_KEYS`): entries `key` (in any app) or `app/key`, separated by white space or commas; in a file,
/// a line that begins with `#` is a comment. An entry without a query fits every query; an entry with one must equal the whole key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishKeys(Vec<StreamKey>);

impl PublishKeys {
    /// Parses a list. An empty list is a mistake: it would lock everybody out.
    pub fn parse(text: &str) -> Result<Self, PublishKeysError> {
        let mut keys = Vec::new();
        let entries = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .flat_map(|line| line.split(|c: char| c == ',' || c.is_whitespace()))
            .filter(|entry| !entry.is_empty());
        for (index, entry) in entries.enumerate() {
            let key = StreamKey::parse(entry).map_err(|error| PublishKeysError::Entry(index + 1, error))?;
            if key.slip().is_some() {
                return Err(PublishKeysError::Quoted(index + 1));
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(PublishKeysError::Empty) } else { Ok(Self(keys)) }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Always false: an empty list does not parse.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if `key` may be published in `app` (as the publisher wrote it; its query does not count). Every entry is compared, so that the
    /// time does not tell which one fitted.
    pub fn allows(&self, app: &str, key: &StreamKey) -> bool {
        let app = app.split_once('?').map_or(app, |(name, _)| name).trim_matches('/');
        let mut allowed = false;
        for entry in &self.0 {
            let offered = if entry.query().is_some() { key.expose() } else { key.name() };
            let whole = format!("{app}/{offered}");
            let entry_text = entry.expose().as_bytes();
            // Both comparisons are always made; an entry without '/' cannot equal `whole`, and a key with '/' only as `app/key`.
            let any_app = bool::from(entry_text.ct_eq(offered.as_bytes())) && !entry.name().contains('/');
            allowed |= any_app | bool::from(entry_text.ct_eq(whole.as_bytes()));
        }
        allowed
    }
}

/// The mistake in a list of publish keys. Entries are named by their position, never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishKeysError {
    /// Empty list.
    #[error(
        "the list is empty, so nobody could publish: list keys as `key` or `app/key`, or leave the setting out to let anyone publish"
    )]
    Empty,
    /// An entry that begins or ends with a quotation mark.
    #[error("entry {0} begins or ends with a quotation mark, which would be part of the key: remove it")]
    Quoted(usize),
    /// An entry that no publisher could use.
    #[error("entry {0}: {1}; write `key` or `app/key`, separated by commas or white space")]
    Entry(usize, NameError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_with_binary_and_decimal_units() {
        for (text, bytes) in
            [("0", 0), ("8MiB", 8 << 20), (" 8 MiB ", 8 << 20), ("64k", 65536), ("1GB", 1_000_000_000), ("5B", 5)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "8 mib", "8XB", "99999999999GiB", "1 2"] {
            assert_eq!(text.parse::<ByteSize>(), Err(SizeError), "{text}");
        }
        for bytes in [0, 1, 1000, 1024, 8 << 20, (8 << 20) + 1, 1 << 40] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn durations_parse_and_print_with_units() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("30s", 30_000), ("500ms", 500), ("1m30s", 90_000), ("2h", 7_200_000), (" 1s ", 1000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(
                parse_duration(&show_duration(Duration::from_millis(millis))),
                Ok(Duration::from_millis(millis))
            );
        }
        for text in
            ["", "30", "s", "1.5s", "-1s", "30s5m", "1s1s", "1 s", "1d", "99999999999999999999s", "999999999999999999h"]
        {
            assert_eq!(parse_duration(text), Err(DurationError), "{text}");
        }
    }

    #[test]
    fn quotation_marks_around_a_value_are_named() {
        for value in ["\"alpha beta\"", "'alpha'"] {
            let mut problems = Problems::new();
            assert_eq!(value_or_file("PUBLISH_KEYS", Some(value), None, &mut problems), None);
            let text = problems.to_string();
            assert!(text.contains("quotation marks") && !text.contains("alpha"), "{text}");
        }
        assert_eq!(PublishKeys::parse("alpha \"beta\""), Err(PublishKeysError::Quoted(2)));
        let slash = PublishKeys::parse("alpha /beta").unwrap_err().to_string();
        assert!(slash.contains("entry 2") && slash.contains("slash") && !slash.contains("beta"), "{slash}");
    }

    #[test]
    fn publish_keys_allow_by_key_and_by_app() {
        let keys = PublishKeys::parse("alpha, live/beta\n# gamma\n\tdelta?pass=1  a/b/epsilon").unwrap();
        assert_eq!(keys.len(), 4);
        let table = [
            ("live", "alpha", true),
            ("other", "alpha?x=1", true),
            ("live", "beta", true),
            ("live?token=1", "beta?x", true),
            ("live/", "beta", true),
            ("other", "beta", false),
            ("other", "live/beta", false),
            ("live", "gamma", false),
            ("live", "delta?pass=1", true),
            ("live", "delta", false),
            ("live", "delta?pass=2", false),
            ("a/b", "epsilon", true),
            ("a", "epsilon", false),
            ("live", "alph", false),
            ("live", "alphaa", false),
        ];
        for (app, key, allowed) in table {
            assert_eq!(keys.allows(app, &StreamKey::parse(key).unwrap()), allowed, "{app} {key}");
        }
        assert!(!format!("{keys:?}").contains("alpha"));
    }

    #[test]
    fn malformed_publish_keys_are_refused() {
        assert_eq!(PublishKeys::parse(" ,\n# all gone\n"), Err(PublishKeysError::Empty));
        assert_eq!(PublishKeys::parse("good /s3cret"), Err(PublishKeysError::Entry(2, NameError::Path)));
        assert!(!PublishKeys::parse("good /s3cret").unwrap_err().to_string().contains("s3cret"));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut problems = Problems::new();
        assert_eq!(problems.check("A", "8MiB".parse::<ByteSize>()), Some(ByteSize(8 << 20)));
        assert_eq!(problems.check("CAPACITY", "x".parse::<ByteSize>()), None);
        assert_eq!(problems.check("GRACE", parse_duration("10")), None);
        let shown = problems.clone().into_result().unwrap_err().to_string();
        assert!(
            shown.starts_with("2 mistakes in the configuration:\n  CAPACITY: ") && shown.contains("\n  GRACE: "),
            "{shown}"
        );
        assert!(Problems::new().into_result().is_ok());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test writes the files that a setting names")]
    fn value_comes_from_the_setting_or_its_file_never_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "\u{feff}hunter2\r\n").unwrap();
        let mut problems = Problems::new();
        assert_eq!(value_or_file("S", Some(" v "), None, &mut problems).as_deref(), Some("v"));
        assert_eq!(value_or_file("S", Some(""), Some(&path), &mut problems).as_deref(), Some("hunter2"));
        assert_eq!(value_or_file("S", None, None, &mut problems), None);
        assert!(problems.is_empty());
        assert_eq!(value_or_file("S", Some("v"), Some(&path), &mut problems), None);
        assert_eq!(value_or_file("S", None, Some(&dir.path().join("none")), &mut problems), None);
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(value_or_file("S", None, Some(&path), &mut problems), None);
        std::fs::write(&path, vec![b'x'; MAX_FILE_BYTES as usize + 1]).unwrap();
        assert_eq!(value_or_file("S", None, Some(&path), &mut problems), None);
        assert_eq!(problems.iter().count(), 4);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread that may be stuck")]
    fn named_pipe_is_refused_at_once_with_and_without_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for writer in [None, Some(std::fs::File::options().read(true).write(true).open(&path).unwrap())] {
            let (read, result) = std::sync::mpsc::channel();
            let link = link.clone();
            std::thread::spawn(move || read.send(read_whole_file(&link)));
            let read = result.recv_timeout(Duration::from_secs(10)).expect("it does not wait for a writer");
            let refused = read.as_ref().is_err_and(|error| error.to_string().contains("no regular file"));
            assert!(refused, "{read:?}, with a writer: {}", writer.is_some());
        }
        for other in [dir.path(), Path::new("/dev/null"), Path::new("/dev/zero")] {
            assert!(matches!(read_whole_file(other), Err(FileError::Unreadable(..))), "{}", other.display());
        }
    }
}
