//! Names and secrets: the names that a publisher gives its stream, and the text that must never be shown.
//!
//! In: strings from `connect`, `publish`, configuration and our own wire. Out: values that cannot be wrong once built. Next: admission, the
//! lobby, push URLs, every log line.
//!
//! Note: a Bilibili key *starts* with its query (`?streamname=…`), so a key may have an empty name; and an app may hold a query too
//! (`live2?backup=1`), which can be a token, so it is not shown either.

use std::borrow::Borrow;
use std::fmt;

use data_encoding::HEXLOWER;
use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize};
use subtle::ConstantTimeEq;

/// Longest name of an app or key without its query: 255 bytes, what nginx-rtmp takes at most; nobody's real name is longer.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest app or key with its query, in bytes: a token of 4 KiB (JWT) fits beside a name and other fields, and a held publisher stays within a few KiB.
pub const MAX_QUALIFIED_BYTES: usize = 4608;
/// Longest name of a worker or an activator, in bytes: it is a metric label and stands in every line about the process. A worker has the
/// name of its pod, which may have 253 characters (RFC 1123). Every side takes the bound from here.
pub const MAX_INSTANCE_NAME: usize = 253;
/// Longest app or key towards an upstream, in bytes: twice a whole URL of the configuration; far below the 65535 of an AMF0 string.
pub const MAX_RESOLVED_BYTES: usize = 8192;
/// Longest text from a stranger that goes into one log field, in bytes.
const MAX_LOGGED_BYTES: usize = 128;

/// The reason why a name cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty name.
    #[error("the name is empty: publish to rtmp://HOST/APP/KEY")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`], or with its query longer than [`MAX_QUALIFIED_BYTES`].
    #[error("the name is too long")]
    TooLong,
    /// NUL, CR, LF or another control character: it would be injected into headers, logs or file names downstream.
    #[error("the name holds a control character")]
    Control,
    /// `.` or `..` as a path segment, an empty segment or a leading `/`: servers that record build paths from names.
    #[error("the name begins or ends with a slash, or has an empty part, `.` or `..`: write it without")]
    Path,
    /// Bytes that are not UTF-8: they could not be passed on byte for byte.
    #[error("the name is not UTF-8")]
    Encoding,
}

/// The text before the first `?`.
fn without_query(text: &str) -> &str {
    text.split_once('?').map_or(text, |(name, _)| name)
}

fn check(text: &str, name: &str) -> Result<(), NameError> {
    if name.len() > MAX_NAME_BYTES || text.len() > MAX_QUALIFIED_BYTES {
        return Err(NameError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    // The AMF0 reader puts this character in the place of bytes that are not UTF-8.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(NameError::Encoding);
    }
    if !name.is_empty() && name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(NameError::Path);
    }
    Ok(())
}

/// The application that a publisher connected to, with its query if it had one. `Display` and `Debug` leave the query out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct AppName(String);

impl AppName {
    /// Parses the `app` of a connect command. Slashes around it are dropped: OBS sends `live/` when the server was typed so.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.trim_matches('/');
        let name = without_query(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        check(text, name)?;
        Ok(Self(text.to_owned()))
    }

    /// The whole app, query included: for the wire, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The app without its query.
    pub fn name(&self) -> &str {
        without_query(&self.0)
    }

    /// The text after the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_, query)| query)
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LogSafe(self.name()).fmt(f)
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppName({self})")
    }
}

impl<'de> Deserialize<'de> for AppName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A stream key: the publishing name with its query, byte for byte. It is a secret: `Debug` and `Display` redact it, and equality takes the
/// same time wherever two keys differ. It is serialised in full, because the worker needs it: only our own wire may carry it.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct StreamKey(String);

impl StreamKey {
    /// Parses the publishing name of a publisher.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text == "?" {
            return Err(NameError::Empty);
        }
        check(text, without_query(text))?;
        Ok(Self(text.to_owned()))
    }

    /// A key towards an upstream, joined from configuration and a publisher's names that were checked before: any path.
    pub(crate) fn joined(text: String) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_RESOLVED_BYTES {
            return Err(NameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        Ok(Self(text))
    }

    /// The whole key, query included: for the wire and for admission, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key without its query; empty for keys that are nothing but a query. Still a secret.
    pub fn name(&self) -> &str {
        without_query(&self.0)
    }

    /// The text after the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_, query)| query)
    }

    /// The likely typing mistake in the key. The key is used unchanged all the same: keys are passed on byte for byte.
    #[must_use]
    pub fn slip(&self) -> Option<&'static str> {
        let quotes: &[char] = &['"', '\''];
        if self.0.trim() != self.0 {
            Some("the stream key begins or ends with a blank")
        } else if self.0.starts_with(quotes) || self.0.ends_with(quotes) {
            Some("the stream key begins or ends with a quotation mark")
        } else {
            None
        }
    }

    /// The part that tells streams of one app apart: the name, or the whole key where the name is empty.
    fn distinct(&self) -> &str {
        if self.name().is_empty() { &self.0 } else { self.name() }
    }
}

/// The SHA-256 of a stream key, in place of the key. Equality takes the same time wherever two differ.
#[derive(Clone, Copy)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// The digest of a key's text.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, key.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyDigest {}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

impl PartialEq for StreamKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for StreamKey {}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamKey(…)")
    }
}

impl<'de> Deserialize<'de> for StreamKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::joined(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A secret that is no stream key: passwords, the control secret. Redacted, compared in constant time, serialised in full (our own wire only).
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes any text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// HMAC-SHA256 of the concatenated `parts` under this secret.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// Another secret, which nobody can compute who lacks this one or any of `parts`.
    #[must_use]
    pub fn derived(&self, parts: &[&[u8]]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&self.sign(parts)))
    }

    /// True if `proof` is [`Secret::sign`] of the same parts; constant time.
    pub fn verify(&self, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.sign(parts).ct_eq(proof).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The identity of a stream for processes that may not know its key: the first 16 bytes of an HMAC-SHA256 under the control secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// The identity of a stream: app and key, both without their queries.
    pub fn of_stream(secret: &Secret, app: &AppName, key: &StreamKey) -> Self {
        Self::keyed(secret, b"stream", &[app.name(), key.distinct()])
    }

    /// An identity of its own `domain`, over fields that contain no NUL.
    pub(crate) fn keyed(secret: &Secret, domain: &[u8], fields: &[&str]) -> Self {
        // NUL separates: no name can contain it.
        let mut parts: Vec<&[u8]> = vec![domain];
        for field in fields {
            parts.extend([b"\0".as_slice(), field.as_bytes()]);
        }
        let mut out = [0; 16];
        out.copy_from_slice(&secret.sign(&parts)[..16]);
        Self(out)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// The public name of one publisher's stream, for logs, traces and the HTTP API. A shell makes it, because machines have no randomness.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub String);

impl StreamId {
    /// Writes 8 given bytes (a shell's random ones) as 16 hex digits.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for StreamId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// True if a worker or an activator may have this name: see [`MAX_INSTANCE_NAME`], and no character that a log line, a metric label or a
/// URL would have to escape.
#[must_use]
pub fn is_instance_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_INSTANCE_NAME && text.chars().all(is_plain)
}

/// The closest name that is allowed: the kernel accepts any bytes for the host name from which ours are made.
#[must_use]
pub fn instance_name(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { '-' }).take(MAX_INSTANCE_NAME).collect()
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '~')
}

/// Shows text from a stranger on one line, printable, at most 128 bytes of it.
#[derive(Clone, Copy)]
pub struct LogSafe<'a>(pub &'a str);

impl fmt::Display for LogSafe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, c) in self.0.char_indices() {
            if at + c.len_utf8() > MAX_LOGGED_BYTES {
                return f.write_str("…");
            }
            // Only letters beyond ASCII pass: bidirectional marks and the like could rewrite the rest of a line.
            if c.is_ascii_graphic() || c == ' ' || (!c.is_ascii() && c.is_alphanumeric()) {
                write!(f, "{c}")?;
            } else {
                write!(f, "{}", c.escape_unicode())?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LogSafe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_names_are_refused() {
        let long = "k".repeat(256);
        let long_query = format!("k?{}", "q".repeat(MAX_QUALIFIED_BYTES));
        let table = [
            ("", NameError::Empty),
            ("?", NameError::Empty),
            (long.as_str(), NameError::TooLong),
            (long_query.as_str(), NameError::TooLong),
            ("a\0b", NameError::Control),
            ("a\r\nX-Admin: 1", NameError::Control),
            ("a?b\nc", NameError::Control),
            ("a\u{7f}", NameError::Control),
            ("a\u{85}b", NameError::Control),
            ("..", NameError::Path),
            ("a/../b", NameError::Path),
            ("./a", NameError::Path),
            ("/a", NameError::Path),
            ("a/", NameError::Path),
            ("a//b", NameError::Path),
            ("/", NameError::Path),
            ("a\u{fffd}", NameError::Encoding),
        ];
        for (text, error) in table {
            assert_eq!(StreamKey::parse(text).err(), Some(error), "{text:?}");
        }
    }

    #[test]
    fn valid_names_stay_byte_for_byte() {
        for text in [
            "a",
            "a/b",
            "a?b=../c//d",
            "?streamname=1&key=2",
            "100%25",
            "%2e%2e",
            "..a",
            "ключ",
            "a b",
            &"k".repeat(255),
        ] {
            assert_eq!(StreamKey::parse(text).unwrap().expose(), text);
        }
    }

    #[test]
    fn apps_lose_their_outer_slashes_and_show_no_query() {
        let app = AppName::parse("/live2?token=s3cret/").unwrap();
        assert_eq!((app.expose(), app.name(), app.query()), ("live2?token=s3cret", "live2", Some("token=s3cret")));
        assert_eq!(format!("{app} {app:?}"), "live2 AppName(live2)");
        assert_eq!(AppName::parse("a/b").unwrap().name(), "a/b");
        for text in ["", "/", "?a", "a/../b", "a\nb"] {
            assert!(AppName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn secrets_are_redacted_and_comparable() {
        let key = StreamKey::parse("s3cret?pass=word").unwrap();
        let secret = Secret::new("hunter2");
        let shown = format!("{key} {key:?} {secret} {secret:?} {:?}", Some((&key, &secret)));
        for part in ["s3cret", "word", "hunter2"] {
            assert!(!shown.contains(part), "{shown}");
        }
        assert_eq!(key, StreamKey::parse("s3cret?pass=word").unwrap());
        assert_ne!(key, StreamKey::parse("s3cret").unwrap());
        assert_ne!(secret, Secret::new("hunter3"));
        let proof = secret.sign(&[b"a", b"bc"]);
        assert!(
            secret.verify(&[b"ab", b"c"], &proof)
                && !secret.verify(&[b"abd"], &proof)
                && !secret.verify(&[b"abc"], &proof[..31])
        );
    }

    #[test]
    fn identity_is_app_and_key_without_queries() {
        let secret = Secret::new("s");
        let of = |app: &str, key: &str| {
            Identity::of_stream(&secret, &AppName::parse(app).unwrap(), &StreamKey::parse(key).unwrap())
        };
        assert_eq!(of("live", "a"), of("live?x", "a?y=1"));
        assert_ne!(of("live", "a"), of("live", "b"));
        assert_ne!(of("live/a", "b"), of("live", "a/b"));
        assert_ne!(of("live", "?streamname=1"), of("live", "?streamname=2"));
        assert_eq!(of("live", "a").to_string().len(), 32);
    }

    #[test]
    fn text_of_a_stranger_stays_on_its_line() {
        assert_eq!(LogSafe("a\r\nb\u{202e}c é").to_string(), "a\\u{d}\\u{a}b\\u{202e}c é");
        let long = LogSafe(&"é".repeat(200)).to_string();
        assert!(long.ends_with('…') && long.len() <= MAX_LOGGED_BYTES + 3);
    }

    #[test]
    fn our_wire_carries_keys_in_full_and_checks_them() {
        let key = StreamKey::parse("a?b").unwrap();
        let bytes = postcard::to_stdvec(&key).unwrap();
        assert_eq!(postcard::from_bytes::<StreamKey>(&bytes).unwrap(), key);
        assert!(postcard::from_bytes::<StreamKey>(&postcard::to_stdvec("a\nb").unwrap()).is_err());
        assert!(postcard::from_bytes::<AppName>(&postcard::to_stdvec("..").unwrap()).is_err());
    }
}
