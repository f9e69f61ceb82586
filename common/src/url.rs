//! Push URLs: where a stream goes, as people write it.
//!
//! In: `RTMP_PUSH_URL` and routes. Out: a [`PushTemplate`], and for one publisher the [`PushUrl`] that a worker dials. Next rooms:
//! the offer to a worker, `upstream`.
//!
//! What surprised us: no two clients split a URL into app and key the same way (librtmp, ffmpeg and nginx-rtmp all differ), services
//! put queries on either side (Facebook's belongs to the key, YouTube's `live2?backup=1` to the app, a Bilibili key *is* a query), and
//! a key must never be decoded or normalised. So: one table of rows, at the end of this file, and `#` to say it outright.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::key::{NameError, Secret, StreamKey};

/// Longest URL in the configuration, in bytes: keys with signatures (Facebook) take a few hundred.
pub const MAX_URL_BYTES: usize = 4096;
/// Longest app or key after substitution, in bytes: twice a whole URL; far below the 65535 of an AMF0 string.
pub const MAX_RESOLVED_BYTES: usize = 2 * MAX_URL_BYTES;
/// Most URLs in one list: every one is a copy of the stream, so more is a slip.
pub const MAX_URLS: usize = 32;

/// Default port of RTMP.
const RTMP_PORT: u16 = 1935;
/// Default port of RTMPS.
const RTMPS_PORT: u16 = 443;

/// What is wrong with a push URL, and what to write instead. Shows nothing of the URL but its scheme and host: the rest can be a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither `rtmp://` nor `rtmps://`.
    #[error("a push URL begins with rtmp:// or rtmps://")]
    Scheme,
    /// A quotation mark at the beginning: env files that are read without a shell keep theirs.
    #[error("a quotation mark stands before the scheme and is part of the value: remove the quotation marks")]
    Quoted,
    /// A second URL within the first: separated by a comma or a semicolon, or not at all.
    #[error("another :// stands inside the URL: separate several URLs by white space, not by commas or semicolons")]
    Joined,
    /// A comma or a semicolon before the white space that ends it: it would be the last character of the key.
    #[error(
        "a comma or semicolon ends the URL and would belong to its key: separate several URLs by white space alone"
    )]
    Separator,
    /// Longer than [`MAX_URL_BYTES`].
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// White space or a control character.
    #[error(
        "the URL holds white space or a control character; inside a key, write what the service shows, nothing more"
    )]
    Character,
    /// No host, or not one.
    #[error("the host is not a name, an IPv4 address or an IPv6 address in brackets (rtmp://[::1]/app/KEY)")]
    Host,
    /// Not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// `{app}` or `{key}` before the path: publishers would choose where we connect to, or as whom.
    #[error("{{app}} and {{key}} may stand in the path only")]
    PlaceholderHost,
    /// `{something}`.
    #[error("{{{0}}} is not known: only {{app}} and {{key}} are replaced")]
    Placeholder(String),
    /// No path, or one segment alone.
    #[error(
        "{0}/… has an app but no stream key: append /{{key}} to pass on the publisher's key, or /YOUR-KEY; if the key is there, put the app before it: {0}/APP/YOUR-KEY"
    )]
    NoKey(String),
    /// The part before the key is empty.
    #[error(
        "{0}/… has a stream key but no app: write {0}/APP/KEY (KEY may be {{key}}), or APP#KEY where the key holds a slash"
    )]
    NoApp(String),
    /// The same URL twice in one list: the second would be refused by the upstream as a duplicate.
    #[error("the URL is the same as number {0}: remove one of them")]
    Twice(usize),
    /// More than [`MAX_URLS`].
    #[error("more than {MAX_URLS} URLs")]
    TooMany,
    /// None at all.
    #[error("no URL: write one or several, such as rtmp://a.example/live/{{key}}")]
    None,
}

/// Why an upstream's redirect is not followed. Shows nothing of its text, which may hold the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// Not `rtmp[s]://host[:port][/app]`.
    #[error("it redirects to an address that is no RTMP URL")]
    Malformed,
    /// From RTMPS to RTMP.
    #[error("it redirects from rtmps:// to rtmp://, where everybody on the way can read the stream key")]
    Downgrade,
}

/// User and password for an upstream that asks (Adobe `authmod`, Limelight).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Who.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Text with `{app}` and `{key}` in it.
#[derive(Clone, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Self, UrlError> {
        for (at, _) in text.match_indices('{') {
            let name = text[at + 1..].split_once('}').map(|(name, _)| name);
            match name {
                None | Some("app" | "key") => {}
                // Braces around anything that is not a word stay as they are: keys are not ours to judge.
                Some(name) if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_') => {
                    return Err(UrlError::Placeholder(name.to_owned()));
                }
                Some(_) => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    fn holds(&self, placeholder: &str) -> bool {
        self.0.contains(placeholder)
    }

    /// In one pass, so that a key which holds `{app}` stays as it is.
    fn fill(&self, app: &str, key: &str) -> String {
        let mut out = String::with_capacity(self.0.len() + app.len() + key.len());
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('{') {
            out.push_str(&rest[..at]);
            let tail = &rest[at..];
            if let Some(after) = tail.strip_prefix("{app}") {
                out.push_str(app);
                rest = after;
            } else if let Some(after) = tail.strip_prefix("{key}") {
                out.push_str(key);
                rest = after;
            } else {
                out.push('{');
                rest = &tail[1..];
            }
        }
        out.push_str(rest);
        out
    }
}

/// One configured push URL, split into its parts, with the placeholders still in it.
#[derive(Clone, PartialEq, Eq)]
pub struct PushTemplate {
    tls: bool,
    host: String,
    port: u16,
    app: Pattern,
    key: Pattern,
    credentials: Option<Credentials>,
}

impl PushTemplate {
    /// Parses one URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::Character);
        }
        if text.starts_with(['"', '\'']) {
            return Err(UrlError::Quoted);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(UrlError::Scheme),
        };
        if holds_another_url(rest) {
            return Err(UrlError::Joined);
        }
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        if authority.contains("{app}") || authority.contains("{key}") {
            return Err(UrlError::PlaceholderHost);
        }
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        let (host, port) = split_address(address)?;
        let port = match port {
            None if tls => RTMPS_PORT,
            None => RTMP_PORT,
            Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?,
        };
        let credentials = userinfo.map(|userinfo| {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            Credentials { user: percent_decoded(user), password: Secret::new(percent_decoded(password)) }
        });
        let shown = format!("{}://{address}", if tls { "rtmps" } else { "rtmp" });
        let (app, key) = split_path(path.strip_prefix('/').unwrap_or(path), &shown)?;
        Ok(Self { tls, host, port, app: Pattern::parse(app)?, key: Pattern::parse(key)?, credentials })
    }

    /// Parses a white space separated list. Every mistake is reported, with the number of its URL counted from 1 (0: the list itself).
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Vec<(usize, UrlError)>> {
        let mut templates: Vec<Self> = Vec::new();
        let mut numbers = Vec::new();
        let mut errors = Vec::new();
        let mut urls = text.split_whitespace().enumerate().peekable();
        while let Some((index, url)) = urls.next() {
            if index == MAX_URLS {
                errors.push((0, UrlError::TooMany));
                break;
            }
            if url.ends_with([',', ';']) && urls.peek().is_some() {
                errors.push((index + 1, UrlError::Separator));
                continue;
            }
            match Self::parse(url) {
                Ok(template) => match templates.iter().position(|known| known.same_place(&template)) {
                    Some(known) => errors.push((index + 1, UrlError::Twice(numbers[known]))),
                    None => {
                        templates.push(template);
                        numbers.push(index + 1);
                    }
                },
                Err(error) => errors.push((index + 1, error)),
            }
        }
        if templates.is_empty() && errors.is_empty() {
            errors.push((0, UrlError::None));
        }
        if errors.is_empty() { Ok(templates) } else { Err(errors) }
    }

    fn same_place(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host)
            && self.port == other.port
            && self.app == other.app
            && self.key == other.key
    }

    /// Whether every stream key has its own place there. Where not, the upstream itself is an identity (a second key is a duplicate).
    pub fn takes_key(&self) -> bool {
        self.app.holds("{key}") || self.key.holds("{key}")
    }

    /// Whether `{app}` is in it.
    pub fn takes_app(&self) -> bool {
        self.app.holds("{app}") || self.key.holds("{app}")
    }

    /// Where the publisher's stream goes: `app` and `key` as the publisher sent them, byte for byte with their queries.
    pub fn resolve(&self, app: &str, key: &StreamKey) -> Result<PushUrl, NameError> {
        let filled_app = self.app.fill(app, key.expose());
        if filled_app.is_empty() {
            return Err(NameError::Empty);
        }
        if filled_app.len() > MAX_RESOLVED_BYTES {
            return Err(NameError::TooLong);
        }
        if filled_app.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        Ok(PushUrl {
            tls: self.tls,
            host: self.host.clone(),
            port: self.port,
            app: filled_app,
            app_holds_key: self.app.holds("{key}"),
            key: StreamKey::joined(self.key.fill(app, key.expose()))?,
            credentials: self.credentials.clone(),
        })
    }
}

impl fmt::Display for PushTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.tls, &self.host, self.port, &self.app.0)
    }
}

impl fmt::Debug for PushTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushTemplate({self})")
    }
}

/// One place a stream is pushed to. Serialised in full, secrets too: only our own wire may carry it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushUrl {
    /// RTMPS rather than RTMP.
    pub tls: bool,
    /// A name or an address, without brackets; also the name that TLS verifies.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The app with its query.
    pub app: String,
    /// The template had `{key}` in its app, so the app is not to be seen either.
    pub app_holds_key: bool,
    /// The publishing name with its query.
    pub key: StreamKey,
    /// For upstreams that ask.
    pub credentials: Option<Credentials>,
}

impl PushUrl {
    /// The `tcUrl` of `connect`: scheme, host, port unless it is the default, app with its query. CDNs choose the virtual host by it.
    pub fn tc_url(&self) -> String {
        format!("{}/{}", Origin { tls: self.tls, host: &self.host, port: self.port, always_port: false }, self.app)
    }

    /// Whether both lead to one stream of one upstream, which takes one publisher at a time.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.host, self.port, &self.app, &self.key) == (&other.host, other.port, &other.app, &other.key)
    }
}

impl PushUrl {
    /// Where an upstream sends this stream that answers `connect` with a redirect: scheme, host, port and app of `target`, the `tcUrl` of
    /// the other server, and our key. `target` is untrusted. An app that ends with the key (some give the whole URL) loses it; without an
    /// app ours stays. User and password go to no other host.
    ///
    /// # Errors
    /// The target is no RTMP URL, or gives up TLS.
    pub fn redirected(&self, target: &str) -> Result<Self, RedirectError> {
        let malformed = target.len() > MAX_URL_BYTES || target.chars().any(|c| c.is_whitespace() || c.is_control());
        let (scheme, rest) = target.split_once("://").filter(|_| !malformed).ok_or(RedirectError::Malformed)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(RedirectError::Malformed),
        };
        if self.tls && !tls {
            return Err(RedirectError::Downgrade);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_address(authority).map_err(|_| RedirectError::Malformed)?;
        let port = match port {
            None if tls => RTMPS_PORT,
            None => RTMP_PORT,
            Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or(RedirectError::Malformed)?,
        };
        let path = path.strip_prefix('/').unwrap_or(path).trim_end_matches('/');
        let with_key = [self.key.expose(), self.key.name()].into_iter().filter(|key| !key.is_empty());
        let without_key = with_key.filter_map(|key| path.strip_suffix(key)?.strip_suffix('/')).next();
        let app = without_key.unwrap_or(path);
        let app = if app.is_empty() { self.app.clone() } else { app.to_owned() };
        let holds_key = !self.key.name().is_empty() && app.contains(self.key.name());
        let same_host = host.eq_ignore_ascii_case(&self.host);
        Ok(Self {
            tls,
            host,
            port,
            app_holds_key: self.app_holds_key || holds_key,
            app,
            key: self.key.clone(),
            credentials: self.credentials.clone().filter(|_| same_host),
        })
    }
}

impl fmt::Display for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.tls, &self.host, self.port, if self.app_holds_key { "…" } else { &self.app })
    }
}

impl fmt::Debug for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushUrl({self})")
    }
}

/// `scheme://host:port/app/…`: what logs and metrics may show. The app's query can be a token, an app that is the key is one, and what
/// follows the app's first segment is one if somebody put a slash too many into or behind the key.
fn show(f: &mut fmt::Formatter<'_>, tls: bool, host: &str, port: u16, app: &str) -> fmt::Result {
    let app = app.split_once('?').map_or(app, |(name, _)| name).trim_start_matches('/');
    let app = app.split_once('/').map_or(app, |(first, _)| first);
    let origin = Origin { tls, host, port, always_port: true };
    if app == "…" { write!(f, "{origin}/…") } else { write!(f, "{origin}/{}/…", crate::key::LogSafe(app)) }
}

struct Origin<'a> {
    tls: bool,
    host: &'a str,
    port: u16,
    always_port: bool,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.tls { ("rtmps", RTMPS_PORT) } else { ("rtmp", RTMP_PORT) };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]", self.host)?;
        } else {
            write!(f, "{scheme}://{}", self.host)?;
        }
        if self.always_port || self.port != default { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

/// Whether what follows the scheme holds a scheme of its own. A query may hold any but ours: `?auth=1&back=http://…` is a key that exists.
fn holds_another_url(rest: &str) -> bool {
    let path = &rest[..rest.find('?').unwrap_or(rest.len())];
    let lower = rest.to_ascii_lowercase();
    path.contains("://") || lower.contains("rtmp://") || lower.contains("rtmps://")
}

/// Splits `host[:port]`; an IPv6 address stands in brackets and loses them.
fn split_address(address: &str) -> Result<(String, Option<&str>), UrlError> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or(UrlError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?;
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host.to_owned(), Some(port))),
            None if tail.is_empty() => Ok((host.to_owned(), None)),
            None => Err(UrlError::Host),
        };
    }
    let (host, port) = match address.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.chars().all(plain) || port.is_some_and(|port| port.contains(':')) {
        return Err(UrlError::Host);
    }
    Ok((host.to_owned(), port))
}

/// Splits what follows `host/` into app and key, by DESIGN 4.11's rules in their order. `shown` is what an error may show.
fn split_path<'a>(path: &'a str, shown: &str) -> Result<(&'a str, &'a str), UrlError> {
    let (app, key) = if let Some(at) = path.find('#') {
        (&path[..at], &path[at + 1..])
    } else {
        let before_query = path.find('?').unwrap_or(path.len());
        // A slash before the query makes two segments, even if the second is empty: `live-bvc/?streamname=…` (Bilibili).
        let slash = path[..before_query].rfind('/').or_else(|| path.rfind('/'));
        let missing = if path.contains("{key}") { UrlError::NoApp } else { UrlError::NoKey };
        let at = slash.ok_or_else(|| missing(shown.to_owned()))?;
        (&path[..at], &path[at + 1..])
    };
    if key.is_empty() {
        return Err(UrlError::NoKey(shown.to_owned()));
    }
    if app.trim_matches('/').is_empty() {
        return Err(UrlError::NoApp(shown.to_owned()));
    }
    Ok((app, key))
}

/// Decodes `%40` and the like, which user names and passwords need for `@`, `:` and `/`; text that is no escape, or not UTF-8, stays as it is.
fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of DESIGN 4.11: URL, then scheme, host, port, app and key.
    const ROWS: &[(&str, bool, &str, u16, &str, &str)] = &[
        ("rtmp://h/live/KEY", false, "h", 1935, "live", "KEY"),
        ("RTMP://h/live/KEY", false, "h", 1935, "live", "KEY"),
        ("rtmp://h:1936/live/KEY", false, "h", 1936, "live", "KEY"),
        ("rtmps://h/live/KEY", true, "h", 443, "live", "KEY"),
        ("rtmps://h:1935/live/KEY", true, "h", 1935, "live", "KEY"),
        ("rtmp://127.0.0.1/live/KEY", false, "127.0.0.1", 1935, "live", "KEY"),
        ("rtmp://[::1]/live/KEY", false, "::1", 1935, "live", "KEY"),
        ("rtmps://[2001:db8::1]:8443/live/KEY", true, "2001:db8::1", 8443, "live", "KEY"),
        // More segments: the last slash before the query.
        ("rtmp://h/app/instance/KEY", false, "h", 1935, "app/instance", "KEY"),
        ("rtmp://h/a/_definst_/KEY?x=1", false, "h", 1935, "a/_definst_", "KEY?x=1"),
        // Facebook: the query belongs to the key, slashes in it too.
        (
            "rtmps://live-api-s.facebook.com:443/rtmp/FB-1?s_bl=1&s=a/b",
            true,
            "live-api-s.facebook.com",
            443,
            "rtmp",
            "FB-1?s_bl=1&s=a/b",
        ),
        // YouTube's backup: the query belongs to the app.
        ("rtmps://b.rtmps.youtube.com/live2?backup=1/KEY", true, "b.rtmps.youtube.com", 443, "live2?backup=1", "KEY"),
        ("rtmp://h/live2?backup=1/KEY?x=1", false, "h", 1935, "live2?backup=1", "KEY?x=1"),
        ("rtmps://a.rtmps.youtube.com:443/live2/KEY", true, "a.rtmps.youtube.com", 443, "live2", "KEY"),
        // Twitch.
        (
            "rtmp://x.contribute.live-video.net/app/KEY?bandwidthtest=true",
            false,
            "x.contribute.live-video.net",
            1935,
            "app",
            "KEY?bandwidthtest=true",
        ),
        // Bilibili: the key is a query.
        ("rtmp://h/live-bvc/?streamname=1&key=2", false, "h", 1935, "live-bvc", "?streamname=1&key=2"),
        // `#` says it outright, and wins over everything.
        ("rtmp://h/app#KEY", false, "h", 1935, "app", "KEY"),
        ("rtmp://h/app/instance#path/KEY?x=1", false, "h", 1935, "app/instance", "path/KEY?x=1"),
        ("rtmp://h/app?token=1/2#KEY", false, "h", 1935, "app?token=1/2", "KEY"),
        ("rtmp://h/app#a#b", false, "h", 1935, "app", "a#b"),
        // Nothing is decoded or normalised.
        ("rtmp://h/app/K%2FY+%20&=;", false, "h", 1935, "app", "K%2FY+%20&=;"),
        ("rtmp://h/a//b", false, "h", 1935, "a/", "b"),
        ("rtmp://h/app/k{1}", false, "h", 1935, "app", "k{1}"),
        ("rtmp://h/app/KEY?back=http://i/j", false, "h", 1935, "app", "KEY?back=http://i/j"),
        // Placeholders are split like text.
        ("rtmp://h/{app}/{key}", false, "h", 1935, "{app}", "{key}"),
        ("rtmp://h/live/{app}-{key}", false, "h", 1935, "live", "{app}-{key}"),
        ("rtmp://h/live2?backup=1/{key}", false, "h", 1935, "live2?backup=1", "{key}"),
        ("rtmp://h/live#{app}/{key}", false, "h", 1935, "live", "{app}/{key}"),
    ];

    #[test]
    fn rows() {
        for (url, tls, host, port, app, key) in ROWS {
            let template = PushTemplate::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((template.tls, template.host.as_str(), template.port), (*tls, *host, *port), "{url}");
            assert_eq!((template.app.0.as_str(), template.key.0.as_str()), (*app, *key), "{url}");
        }
    }

    #[test]
    fn mistakes() {
        let no_key = || UrlError::NoKey("rtmp://h".to_owned());
        let no_app = || UrlError::NoApp("rtmp://h".to_owned());
        let long = format!("rtmp://h/a/{}", "k".repeat(MAX_URL_BYTES));
        let table = [
            ("", UrlError::Scheme),
            ("h/live/KEY", UrlError::Scheme),
            ("http://h/live/KEY", UrlError::Scheme),
            ("rtmpt://h/live/KEY", UrlError::Scheme),
            (long.as_str(), UrlError::TooLong),
            ("rtmp://h/live/K EY", UrlError::Character),
            ("rtmp://h/live/K\0Y", UrlError::Character),
            ("rtmp:///live/KEY", UrlError::Host),
            ("rtmp://:1935/live/KEY", UrlError::Host),
            ("rtmp://::1/live/KEY", UrlError::Host),
            ("rtmp://[::1/live/KEY", UrlError::Host),
            ("rtmp://[::g]/live/KEY", UrlError::Host),
            ("rtmp://[::1]x/live/KEY", UrlError::Host),
            ("rtmp://h%41/live/KEY", UrlError::Host),
            ("rtmp://h:/live/KEY", UrlError::Port),
            ("rtmp://h:0/live/KEY", UrlError::Port),
            ("rtmp://h:65536/live/KEY", UrlError::Port),
            ("rtmp://h:x/live/KEY", UrlError::Port),
            ("rtmp://{app}/live/KEY", UrlError::PlaceholderHost),
            ("rtmp://u:{key}@h/live/KEY", UrlError::PlaceholderHost),
            ("rtmp://h/live/{name}", UrlError::Placeholder("name".to_owned())),
            ("rtmp://h/{stream_key}/x", UrlError::Placeholder("stream_key".to_owned())),
            ("rtmp://h", no_key()),
            ("rtmp://h/", no_key()),
            ("rtmp://h/live", no_key()),
            ("rtmp://h/live/", no_key()),
            ("rtmp://h/live?x=1", no_key()),
            ("rtmp://h/live#", no_key()),
            ("rtmp://h/{key}", no_app()),
            ("rtmp://h/{key}?x=1", no_app()),
            ("rtmp://h//KEY", no_app()),
            ("\"rtmp://h/live/KEY\"", UrlError::Quoted),
            ("'rtmp://h/live/KEY'", UrlError::Quoted),
            ("rtmp://h/live/K1,rtmp://i/live/K2", UrlError::Joined),
            ("rtmp://h/live/K1;RTMPS://i/live/K2", UrlError::Joined),
            ("rtmp://h/live/K1,http://i/live/K2", UrlError::Joined),
            ("rtmp://h/live/K1?x=1,rtmp://i/live/K2", UrlError::Joined),
            ("rtmp://h/live#K1,rtmp://i/live#K2", UrlError::Joined),
            ("rtmp://h,rtmp://i/live/K2", UrlError::Joined),
            ("rtmp://rtmp://h/live/K1", UrlError::Joined),
            ("rtmp://h/#KEY", no_app()),
        ];
        for (url, error) in table {
            assert_eq!(PushTemplate::parse(url).err(), Some(error), "{url:?}");
        }
    }

    #[test]
    fn one_segment_alone_is_offered_a_key_and_not_shown() {
        let error = PushTemplate::parse("rtmp://u:pw@h:99/S3CRET").unwrap_err().to_string();
        assert!(error.contains("/{key}") && error.contains("rtmp://h:99"), "{error}");
        assert!(!error.contains("S3CRET") && !error.contains("pw"), "{error}");
    }

    fn resolved(template: &str, app: &str, key: &str) -> PushUrl {
        PushTemplate::parse(template).unwrap().resolve(app, &StreamKey::parse(key).unwrap()).unwrap()
    }

    #[test]
    fn substitution_is_byte_for_byte() {
        let table = [
            ("rtmp://h/{app}/{key}", "live", "k?x=1&y=%2f/z", "live", "k?x=1&y=%2f/z"),
            ("rtmp://h/{app}/{key}", "a/b?t=1", "k", "a/b?t=1", "k"),
            ("rtmp://h/x/{app}_{key}_{key}", "live", "k", "x", "live_k_k"),
            ("rtmp://h/{key}/fixed", "live", "k?q", "k?q", "fixed"),
            ("rtmp://h/live2?backup=1/{key}", "a", "k#1", "live2?backup=1", "k#1"),
            // What a publisher writes is not a template.
            ("rtmp://h/{app}/{key}", "{key}", "{app}", "{key}", "{app}"),
            ("rtmp://h/live/KEY", "a", "k", "live", "KEY"),
        ];
        for (template, app, key, to_app, to_key) in table {
            let url = resolved(template, app, key);
            assert_eq!((url.app.as_str(), url.key.expose()), (to_app, to_key), "{template}");
        }
    }

    #[test]
    fn knows_which_placeholders_it_takes() {
        let table = [
            ("rtmp://h/live/KEY", false, false),
            ("rtmp://h/{app}/KEY", true, false),
            ("rtmp://h/{key}/x", false, true),
        ];
        for (url, app, key) in table {
            let template = PushTemplate::parse(url).unwrap();
            assert_eq!((template.takes_app(), template.takes_key()), (app, key), "{url}");
        }
    }

    #[test]
    fn credentials_come_from_the_url_and_are_not_shown() {
        let url = resolved("rtmp://us%40er:p%3Aa%2Fs@s%zz@h:99/live?token=t0k/S3CRET", "a", "k");
        let credentials = url.credentials.clone().unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.expose()), ("us@er", "p:a/s@s%zz"));
        assert_eq!((url.host.as_str(), url.port, url.app.as_str()), ("h", 99, "live?token=t0k"));
        let shown =
            format!("{url} {url:?} {:?} {}", PushTemplate::parse("rtmp://u:p4ss@h/live/S3CRET"), credentials.password);
        for secret in ["S3CRET", "t0k", "p4ss", "p:a"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(url.to_string(), "rtmp://h:99/live/…");
        assert_eq!(resolved("rtmp://h/{key}/fixed", "a", "S3CRET").to_string(), "rtmp://h:1935/…");
        assert_eq!(resolved("rtmp://user@h/live/x", "a", "k").credentials.unwrap().password.expose(), "");
    }

    #[test]
    fn nothing_after_the_application_is_shown() {
        for url in
            ["rtmp://h/live/S3CRET/", "rtmp://h/live/S3CRET/x", "rtmp://h//live/S3CRET/x?y", "rtmp://h/live/S3CRET#x"]
        {
            let shown = match PushTemplate::parse(url) {
                Ok(template) => {
                    let resolved = template.resolve("a", &StreamKey::parse("k").unwrap()).unwrap();
                    assert_eq!(template.to_string(), "rtmp://h:1935/live/…");
                    format!("{template:?} {resolved} {resolved:?}")
                }
                Err(error) => error.to_string(),
            };
            assert!(!shown.contains("S3CRET"), "{shown}");
        }
    }

    #[test]
    fn tc_url_leaves_out_key_and_default_port() {
        let table = [
            ("rtmp://h/live/KEY", "rtmp://h/live"),
            ("rtmp://u:p@h:1935/live/KEY?x", "rtmp://h/live"),
            ("rtmps://h/live2?backup=1/KEY", "rtmps://h/live2?backup=1"),
            ("rtmps://h:1935/live/KEY", "rtmps://h:1935/live"),
            ("rtmp://[::1]:443/a/b/KEY", "rtmp://[::1]:443/a/b"),
        ];
        for (url, tc_url) in table {
            assert_eq!(resolved(url, "a", "k").tc_url(), tc_url, "{url}");
        }
    }

    #[test]
    fn a_comma_before_the_next_url_is_no_part_of_a_key() {
        for text in ["rtmp://h/live/{key}, rtmp://i/live/{key}", "rtmp://h/live/K;\nrtmp://i/live/K"] {
            assert_eq!(PushTemplate::parse_list(text), Err(vec![(1, UrlError::Separator)]), "{text:?}");
        }
        assert_eq!(PushTemplate::parse_list("rtmp://h/live/K;").unwrap().len(), 1, "a key may end with anything");
    }

    #[test]
    fn a_list_reports_every_mistake() {
        let urls = PushTemplate::parse_list(" rtmp://a/live/{key}\n\trtmps://b/live2/KEY ").unwrap();
        assert_eq!(
            urls.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["rtmp://a:1935/live/…", "rtmps://b:443/live2/…"]
        );
        let errors = PushTemplate::parse_list("rtmp://a/live http://b/c/d rtmp://h/l/k rtmp://H:1935/l/k").unwrap_err();
        assert_eq!(
            errors,
            [(1, UrlError::NoKey("rtmp://a".to_owned())), (2, UrlError::Scheme), (4, UrlError::Twice(3))]
        );
        assert_eq!(PushTemplate::parse_list(" \n").unwrap_err(), [(0, UrlError::None)]);
        let many: String = (0..=MAX_URLS).map(|n| format!("rtmp://h/a/{n} ")).collect();
        assert_eq!(PushTemplate::parse_list(&many).unwrap_err(), [(0, UrlError::TooMany)]);
    }

    #[test]
    fn our_wire_carries_it_in_full() {
        let url = resolved("rtmps://u:p@h/live/{key}", "a", "k?x");
        let bytes = postcard::to_stdvec(&url).unwrap();
        assert_eq!(postcard::from_bytes::<PushUrl>(&bytes).unwrap(), url);
    }

    #[test]
    fn redirects_keep_the_key_and_never_give_up_tls() {
        use RedirectError::{Downgrade, Malformed};
        let from = |text: &str| {
            let key = StreamKey::parse("unused").unwrap();
            PushTemplate::parse(text).unwrap().resolve("unused", &key).unwrap()
        };
        type Row = (&'static str, &'static str, Result<(bool, &'static str, u16, &'static str), RedirectError>);
        const PLAIN: &str = "rtmp://user:pass@h/live/KEY?t=1";
        const TLS: &str = "rtmps://h/live/KEY";
        let rows: [Row; 20] = [
            (PLAIN, "rtmp://other:1936/app", Ok((false, "other", 1936, "app"))),
            (PLAIN, "RTMP://192.0.2.1/a/b?x=1", Ok((false, "192.0.2.1", 1935, "a/b?x=1"))),
            (PLAIN, "rtmp://[2001:db8::1]:1936/app/", Ok((false, "2001:db8::1", 1936, "app"))),
            (PLAIN, "rtmp://other", Ok((false, "other", 1935, "live"))),
            (PLAIN, "rtmp://other/", Ok((false, "other", 1935, "live"))),
            // SRS once gave the whole URL.
            (PLAIN, "rtmp://other/app/KEY", Ok((false, "other", 1935, "app"))),
            (PLAIN, "rtmp://other/app/KEY?t=1", Ok((false, "other", 1935, "app"))),
            (PLAIN, "rtmps://other/app", Ok((true, "other", 443, "app"))),
            (TLS, "rtmps://other:8443/app", Ok((true, "other", 8443, "app"))),
            (TLS, "rtmp://other/app", Err(Downgrade)),
            (PLAIN, "", Err(Malformed)),
            (PLAIN, "other/app", Err(Malformed)),
            (PLAIN, "http://other/app", Err(Malformed)),
            (PLAIN, "rtmp://", Err(Malformed)),
            (PLAIN, "rtmp:///app", Err(Malformed)),
            (PLAIN, "rtmp://other:0/app", Err(Malformed)),
            (PLAIN, "rtmp://other:99999/app", Err(Malformed)),
            (PLAIN, "rtmp://me:secret@other/app", Err(Malformed)),
            (PLAIN, "rtmp://other/app\r\nx", Err(Malformed)),
            (PLAIN, "rtmp://a b/app", Err(Malformed)),
        ];
        for (url, target, expected) in rows {
            let from = from(url);
            let got = from.redirected(target);
            let parts = got.as_ref().map(|url| (url.tls, url.host.as_str(), url.port, url.app.as_str()));
            assert_eq!(parts, expected.as_ref().map(|parts| *parts), "{target}");
            if let Ok(got) = got {
                assert_eq!((got.key, got.credentials), (from.key, None), "{target}");
            }
        }
        let from = from(PLAIN);
        assert!(from.redirected(&format!("rtmp://other/{}", "x".repeat(MAX_URL_BYTES))).is_err());
        assert_eq!(from.redirected("rtmp://h:1936/app").unwrap().credentials, from.credentials);
        let shown = from.redirected("rtmp://other/KEY/app").unwrap().to_string();
        assert!(!shown.contains("KEY"), "{shown}");
    }
}
