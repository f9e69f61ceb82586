//! Push URLs: the destinations of a stream, as people write them.
//!
//! In: `RTMP_PUSH_URL` and routes. Out: a [`PushTemplate`], and for one publisher the [`PushUrl`] that a worker dials. Next: the offer to a
//! worker, then `upstream`.
//!
//! Note: no two clients split a URL into app and key the same way (librtmp, ffmpeg and nginx-rtmp all differ), services put queries on
//! either side (Facebook's belongs to the key, YouTube's `live2?backup=1` to the app, a Bilibili key *is* a query), and a key must never be
//! decoded or normalised. Hence one table of rows, in this file's tests, and `#` to state the split outright.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::key::{Identity, MAX_RESOLVED_BYTES, NameError, Secret, StreamKey};

/// Longest URL in the configuration, in bytes: keys with signatures (Facebook) take a few hundred.
pub const MAX_URL_BYTES: usize = 4096;
// A filled app or key may be longer than the URL that it comes from, up to twice. `handoff::limits::MAX_ASSIGNMENT_BYTES` counts four URLs
// for each destination, an app and a key of the longest: with a higher bound here an assignment would not fit into its frame.
const _: () = assert!(MAX_RESOLVED_BYTES == 2 * MAX_URL_BYTES);
/// Most URLs in one list: every URL costs a copy of the stream, so a longer list is a mistake.
pub const MAX_URLS: usize = 32;

/// Default port of RTMP.
const RTMP_PORT: u16 = 1935;
/// Default port of RTMPS.
const RTMPS_PORT: u16 = 443;

/// The mistake in a push URL, and its fix. Shows nothing of the URL but its scheme and host: the rest can be a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Scheme is neither `rtmp://` nor `rtmps://`.
    #[error("a push URL begins with rtmp:// or rtmps://")]
    Scheme,
    /// A quotation mark at the beginning: env files that are read without a shell keep theirs.
    #[error("a quotation mark stands before the scheme and is part of the value: remove the quotation marks")]
    Quoted,
    /// A second URL within the first: separated by a comma or a semicolon, or not at all.
    #[error("another :// stands inside the URL: separate several URLs by white space, not by commas or semicolons")]
    Joined,
    /// A comma or a semicolon before the white space that ends the URL: it would be the last character of the key.
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
    /// Missing or malformed host.
    #[error("the host is not a name, an IPv4 address or an IPv6 address in brackets (rtmp://[::1]/app/KEY)")]
    Host,
    /// Port outside 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// `{app}` or `{key}` before the path: publishers would choose the host to connect to, or the user name.
    #[error("{{app}} and {{key}} may stand in the path only")]
    PlaceholderHost,
    /// `{something}` that is not known.
    #[error(
        "{{{0}}} is not known here: {{app}} and {{key}} are replaced, and {{publisher}} where publishers have names"
    )]
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
    /// Empty list.
    #[error("no URL: write one or several, such as rtmp://a.example/live/{{key}}")]
    None,
}

/// The reason why an upstream's redirect is not followed. Shows nothing of its text, which may hold the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// Target is not `rtmp[s]://host[:port][/app]`.
    #[error("it redirects to an address that is no RTMP URL")]
    Malformed,
    /// Redirect from RTMPS to RTMP.
    #[error("it redirects from rtmps:// to rtmp://, where everybody on the way can read the stream key")]
    Downgrade,
}

/// User and password for an upstream that asks for them (Adobe `authmod`, Limelight).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// Text that may contain `{app}`, `{key}` and `{publisher}`.
#[derive(Clone, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Self, UrlError> {
        for (at, _) in text.match_indices('{') {
            let name = text[at + 1..].split_once('}').map(|(name, _)| name);
            match name {
                None | Some("app" | "key" | "publisher") => {}
                // Braces around anything that is not a word stay as they are: a key may contain any text.
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

    /// Fills in all placeholders in one pass, so that a key which contains `{app}` stays as it is.
    fn fill(&self, app: &str, key: &str, publisher: &str) -> String {
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
            } else if let Some(after) = tail.strip_prefix("{publisher}") {
                out.push_str(publisher);
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

/// A configured push URL, split into its parts, with the placeholders still in it.
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
        let template = Self::parse_of_route(text)?;
        if template.takes_publisher() { Err(UrlError::Placeholder("publisher".to_owned())) } else { Ok(template) }
    }

    /// Parses one URL that may contain `{publisher}`, too: the name that the publisher has in the configuration file.
    pub fn parse_of_route(text: &str) -> Result<Self, UrlError> {
        Self::parse_by(text, split_path)
    }

    /// Parses a URL of a route whose path is an app alone, with the stream key given apart.
    pub fn with_key<'a>(text: &'a str, key: &'a str) -> Result<Self, UrlError> {
        if key.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        if key.chars().any(char::is_control) {
            return Err(UrlError::Character);
        }
        Self::parse_by(text, |path, shown| {
            let app = path.trim_end_matches('/');
            if app.trim_matches('/').is_empty() { Err(UrlError::NoApp(shown.to_owned())) } else { Ok((app, key)) }
        })
    }

    fn parse_by<'a>(
        text: &'a str,
        split: impl FnOnce(&'a str, &str) -> Result<(&'a str, &'a str), UrlError>,
    ) -> Result<Self, UrlError> {
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
        if ["{app}", "{key}", "{publisher}"].iter().any(|placeholder| authority.contains(placeholder)) {
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
        let (app, key) = split(path.strip_prefix('/').unwrap_or(path), &shown)?;
        Ok(Self { tls, host, port, app: Pattern::parse(app)?, key: Pattern::parse(key)?, credentials })
    }

    /// Parses a list separated by white space. Every mistake is reported, with the number of its URL counted from 1 (0: the list itself).
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

    /// True if both lead to the same place for every publisher.
    pub fn same_place(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host)
            && self.port == other.port
            && self.app == other.app
            && self.key == other.key
    }

    /// True if every stream key has a place of its own at the upstream. If not, the upstream itself is an identity: a second key is a
    /// duplicate.
    pub fn takes_key(&self) -> bool {
        self.app.holds("{key}") || self.key.holds("{key}")
    }

    /// True if the URL contains `{app}`.
    pub fn takes_app(&self) -> bool {
        self.app.holds("{app}") || self.key.holds("{app}")
    }

    /// True if the URL contains `{publisher}`.
    pub fn takes_publisher(&self) -> bool {
        self.app.holds("{publisher}") || self.key.holds("{publisher}")
    }

    /// The stream key of the URL, if it is the same for every publisher.
    pub fn fixed_key(&self) -> Option<Secret> {
        let holds = ["{key}", "{app}", "{publisher}"].iter().any(|placeholder| self.key.holds(placeholder));
        (!holds).then(|| Secret::new(self.key.0.as_str()))
    }

    /// The destination of a publisher's stream: `app` and `key` as the publisher sent them, byte for byte with their queries.
    pub fn resolve(&self, app: &str, key: &StreamKey) -> Result<PushUrl, NameError> {
        self.resolve_for(app, key, "")
    }

    /// The same for a publisher that has a name.
    pub fn resolve_for(&self, app: &str, key: &StreamKey, publisher: &str) -> Result<PushUrl, NameError> {
        if publisher.is_empty() && self.takes_publisher() {
            return Err(NameError::Empty);
        }
        let filled_app = self.app.fill(app, key.expose(), publisher);
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
            key: StreamKey::joined(self.key.fill(app, key.expose(), publisher))?,
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

/// A destination of a stream. Serialised in full, secrets too: only our own wire may carry it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushUrl {
    /// RTMPS rather than RTMP.
    pub tls: bool,
    /// Name or address of the host, without brackets; also the name that TLS verifies.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// App with its query.
    pub app: String,
    /// True if the template had `{key}` in its app, so the app must not be shown either.
    pub app_holds_key: bool,
    /// Publishing name with its query.
    pub key: StreamKey,
    /// User and password, for upstreams that ask for them.
    pub credentials: Option<Credentials>,
}

impl PushUrl {
    /// The `tcUrl` of `connect`: scheme, host, port unless it is the default, app with its query. CDNs choose the virtual host by it.
    pub fn tc_url(&self) -> String {
        format!("{}/{}", Origin { tls: self.tls, host: &self.host, port: self.port, always_port: false }, self.app)
    }

    /// The identity of this upstream, whose URL takes no `{key}`: all publishers there are one stream to it.
    pub fn identity(&self, secret: &Secret) -> Identity {
        Identity::keyed(secret, b"upstream", &[&self.host, &self.port.to_string(), &self.app, self.key.expose()])
    }

    /// True if both lead to one stream of one upstream, which takes one publisher at a time.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.host, self.port, &self.app, &self.key) == (&other.host, other.port, &other.app, &other.key)
    }
}

impl PushUrl {
    /// The destination after an upstream has answered `connect` with a redirect: scheme, host, port and app of `target`, the `tcUrl` of the
    /// other server, and our key. `target` is untrusted. An app that ends with the key (some servers give the whole URL) loses it; without
    /// an app ours stays. User and password go to no other host.
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

impl PushUrl {
    /// Host and port, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
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

/// Writes `scheme://host:port/app/…`, the part that logs and metrics may show. The app's query can be a token, the app itself can be the
/// key, and the text after the app's first segment is a key if somebody put a slash too many into it or behind it.
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

/// True if the text after the scheme contains another scheme. A query may contain any scheme but ours: `?auth=1&back=http://…` is a key
/// that exists.
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

/// Splits the text after `host/` into app and key, by the rules of the table in this file's tests, in their order. `shown` is the text that
/// an error may show.
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
#[path = "url_tests.rs"]
mod tests;
