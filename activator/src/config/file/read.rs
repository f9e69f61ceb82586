//! The rules of a configuration file. In: its tree. Out: [`ConfigFile`], or all mistakes. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use liveedgecast_common::config::FileError;
use liveedgecast_common::key::{KeyDigest, Secret, StreamKey};
use liveedgecast_common::setting::MOST_TIME;
use liveedgecast_common::url::{MAX_URLS, PushTemplate};

use super::jwt;
use super::table::{FileTable, Found, Mistake, Mistakes};
use super::yaml::{self, Node, NodeValue};
use crate::config::hook::{HOOK_TIMEOUT, Hook, HookFormat, Hooks, LEAST_HOOK_TIMEOUT, MOST_HOOK_TIMEOUT, OnHookError};
use crate::config::http_url::HttpUrl;
use crate::config::jwt::Jwt;
use crate::config::proxies::AddressRange;
use crate::config::webhook::{EventHook, MAKE, SigningSecret};

/// Name of the route of publishers that name none, and of publishers without an entry.
pub const DEFAULT_ROUTE: &str = "default";
/// Longest name of a publisher, a route or a destination: names are labels of metrics and parts of paths.
const MOST_NAME: usize = 63;
/// Shortest lag at which an upstream jumps, as for `UPSTREAM_LAG`.
const LEAST_LAG: Duration = Duration::from_millis(100);
/// Time without a session that lasted after which the backup is asked: longer than a server's restart, shorter than viewers wait.
const BACKUP_AFTER: Duration = Duration::from_secs(10);

/// A configuration file without mistakes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// The publishers that have an entry.
    pub publishers: Vec<ListedPublisher>,
    /// The routes by name.
    pub routes: BTreeMap<String, Route>,
    /// A publisher without an entry goes to the route `default`.
    pub open: bool,
    /// The servers that are asked about publishers without an entry.
    pub hooks: Hooks,
    /// The rules of the tokens that let publishers without an entry in.
    pub jwt: Option<Arc<Jwt>>,
    /// Publishers without an entry that one address may start at once; `None`: `PUBLISH_BURST`.
    pub publish_burst: Option<u32>,
    /// Time after which one more of them may start; `None`: that of `PUBLISH_RATE`.
    pub publish_every: Option<Duration>,
    /// Proxies whose PROXY header counts, besides those of `TRUSTED_PROXIES`.
    pub trusted_proxies: Vec<AddressRange>,
    /// The receiver of events; it counts from the start of the process.
    pub events: Option<EventHook>,
    /// The files that it names.
    pub files: Vec<PathBuf>,
}

impl ConfigFile {
    /// Returns whether a publisher without an entry may publish, without a token and without anybody being asked about it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open && self.hooks.publish.is_none() && self.jwt.is_none()
    }
}

/// A publisher with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPublisher {
    /// The name that is shown in place of the key.
    pub name: String,
    /// The app in which it publishes; `None`: any.
    pub app: Option<String>,
    /// The digest of its stream key.
    pub key: KeyDigest,
    /// Name of its route, which exists.
    pub route: String,
}

/// The destinations of publishers, and how their streams are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations, in the order of the file.
    pub destinations: Vec<RouteDestination>,
    /// Time for which upstream sessions are kept when a publisher is lost; `None`: `GRACE`.
    pub grace: Option<Duration>,
    /// Lag at which an upstream jumps to a keyframe; `None`: `UPSTREAM_LAG`.
    pub upstream_lag: Option<Duration>,
}

/// A destination of a route.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteDestination {
    /// The name that logs, metrics and the API show; no other destination of the route has it.
    pub name: String,
    /// The push URL.
    pub url: PushTemplate,
    /// The publisher is refused if this destination clearly refuses at the start.
    pub required: bool,
    /// `false`: nothing is sent there.
    pub enabled: bool,
    /// The server that is asked while the first one fails.
    pub backup: Option<RouteBackup>,
}

/// The second server of a destination.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteBackup {
    /// The push URL.
    pub url: PushTemplate,
    /// Time without a session that lasted after which it is asked.
    pub after: Duration,
}

impl RouteDestination {
    /// Tells whether one of its URLs contains `{publisher}`.
    fn takes_publisher(&self) -> bool {
        self.url.takes_publisher() || self.backup.as_ref().is_some_and(|backup| backup.url.takes_publisher())
    }
}

impl fmt::Debug for RouteDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteDestination({} {})", self.name, self.url)
    }
}

/// The parts that other settings give, whatever the file says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// `RTMP_PUSH_URL` is the route `default`, so that the file must not have one.
    pub default_route: bool,
    /// `PUBLISH_KEYS` has publishers.
    pub publishers: bool,
    /// `LIVEEDGECAST_JWT_…` has the rules of tokens, so that the file must not have `jwt`.
    pub jwt: bool,
    /// `LIVEEDGECAST_ON_PUBLISH_URL` is asked about publishers, so that the file must not have `on_publish`.
    pub hook: bool,
}

/// Parses a configuration file. `folder` is the folder of the file, `read` reads the files that it names.
///
/// # Errors
/// Every mistake, in the order of the file.
pub(in crate::config) fn parse(
    text: &str,
    folder: &Path,
    given: Given,
    read: impl Fn(&Path) -> Result<String, FileError>,
) -> Result<ConfigFile, Vec<Mistake>> {
    let mut reading = Reading { folder, given, read: &read, mistakes: Mistakes::default(), files: Vec::new() };
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(malformed) => {
            reading.mistakes.add(malformed.place, "", format_args!("this is no YAML: {}", malformed.why));
            return Err(reading.mistakes.into_sorted());
        }
    };
    let file = reading.file(&root);
    let mistakes = reading.mistakes.into_sorted();
    match file {
        Some(file) if mistakes.is_empty() => Ok(ConfigFile { files: reading.files, ..file }),
        _ => Err(mistakes),
    }
}

struct Reading<'a> {
    folder: &'a Path,
    given: Given,
    read: &'a dyn Fn(&Path) -> Result<String, FileError>,
    mistakes: Mistakes,
    files: Vec<PathBuf>,
}

impl Reading<'_> {
    fn file(&mut self, root: &Node) -> Option<ConfigFile> {
        let mut table =
            FileTable::at(Found { place: root.place, path: String::new(), value: root }, &mut self.mistakes)?;
        let mut file = ConfigFile::default();
        if let Some(table) = table.node("admission").and_then(|node| FileTable::at(node, &mut self.mistakes)) {
            self.admission(table, &mut file);
        }
        for range in table.list("trusted_proxies", &mut self.mistakes) {
            let range = range.check(&mut self.mistakes, |node| match &node.value {
                NodeValue::Scalar(text) => text.parse::<AddressRange>(),
                _ => Err("must be an address or a range: 10.0.0.0/8".to_owned()),
            });
            file.trusted_proxies.extend(range.map(|range| range.value));
        }
        if let Some(table) = table.node("events").and_then(|node| FileTable::at(node, &mut self.mistakes)) {
            file.events = self.events(table);
        }
        let routes = self.routes(&mut table);
        let mut known: BTreeSet<&str> = routes.iter().map(|(name, _)| name.as_str()).collect();
        if self.given.default_route {
            known.insert(DEFAULT_ROUTE);
        }
        file.publishers = self.publishers(&mut table, &known);
        if file.open && !known.contains(DEFAULT_ROUTE) {
            let text = "a publisher without an entry goes to the route `default`, which is missing: add it";
            self.mistakes.add(table.place, "routes.default", text);
        }
        if file.jwt.as_ref().is_some_and(|jwt| jwt.route_claim.is_none()) && !known.contains(DEFAULT_ROUTE) {
            let text =
                "a publisher with a token goes to the route `default`, which is missing: add it, or name a route_claim";
            self.mistakes.add(table.place, "routes.default", text);
        }
        let nameless = file.open || self.given.publishers;
        let default = routes.iter().find(|(name, _)| name == DEFAULT_ROUTE).and_then(|(_, route)| route.as_ref());
        if nameless && default.is_some_and(|route| route.destinations.iter().any(RouteDestination::takes_publisher)) {
            let text = "publishers without a name come here, too, so no URL may contain {publisher}: write {key}";
            self.mistakes.add(table.place, "routes.default", text);
        }
        let asks = self.given.hook || file.hooks.publish.is_some() || self.given.jwt || file.jwt.is_some();
        if !file.open && !asks && !self.given.publishers && !table.has("publishers") {
            let text = "nobody could publish: add publishers, admission: {on_publish: {url: …}} to have a server decide, \
                admission: {jwt: {…}} to admit bearers of tokens, or admission: {open: true} to let anyone publish";
            self.mistakes.add(table.place, "publishers", text);
        }
        table.finish(&mut self.mistakes);
        file.routes = routes.into_iter().filter_map(|(name, route)| Some((name, route?))).collect();
        Some(file)
    }

    /// The routes by name; `None` for one with a mistake.
    fn routes(&mut self, table: &mut FileTable<'_>) -> Vec<(String, Option<Route>)> {
        let mut routes = Vec::new();
        for (name, node) in table.named("routes", &mut self.mistakes) {
            let route = FileTable::at(node, &mut self.mistakes).and_then(|table| self.route(table));
            if name.value == DEFAULT_ROUTE && self.given.default_route {
                let text = "RTMP_PUSH_URL is this route already: remove one of them";
                self.mistakes.add(name.place, name.path, text);
            } else if let Some(name) = name.check(&mut self.mistakes, name_of) {
                routes.push((name.value, route));
            }
        }
        routes
    }

    fn route(&mut self, mut table: FileTable<'_>) -> Option<Route> {
        let grace = table.time("grace", Duration::ZERO, MOST_TIME, &mut self.mistakes);
        let upstream_lag = table.time("upstream_lag", LEAST_LAG, MOST_TIME, &mut self.mistakes);
        let mut destinations: Vec<RouteDestination> = Vec::new();
        let nodes = table.list("destinations", &mut self.mistakes);
        if nodes.is_empty() || nodes.len() > MAX_URLS {
            let text = format_args!("must have from 1 to {MAX_URLS} destinations");
            self.mistakes.add(table.place, format!("{}.destinations", table.path), text);
        }
        let listed = nodes.len();
        for node in nodes {
            let (place, path) = (node.place, node.path.clone());
            let Some(destination) = FileTable::at(node, &mut self.mistakes).and_then(|table| self.destination(table))
            else {
                continue;
            };
            if destinations.iter().any(|before| before.name == destination.name) {
                self.mistakes.add(place, format!("{path}.name"), "another destination of this route has that name");
            } else if destinations.iter().any(|before| before.url.same_place(&destination.url)) {
                self.mistakes.add(place, format!("{path}.url"), "another destination of this route is the same place");
            } else {
                destinations.push(destination);
            }
        }
        // One with a mistake might be the one that is enabled.
        let all = !destinations.is_empty() && destinations.len() == listed;
        if all && !destinations.iter().any(|destination| destination.enabled) {
            let text = "no destination is enabled, so a publisher could never start: enable one";
            self.mistakes.add(table.place, format!("{}.destinations", table.path), text);
        }
        table.finish(&mut self.mistakes);
        Some(Route { destinations, grace, upstream_lag })
    }

    fn destination(&mut self, mut table: FileTable<'_>) -> Option<RouteDestination> {
        let name = table.required("name", "youtube", &mut self.mistakes);
        let name = name.and_then(|name| name.check(&mut self.mistakes, name_of));
        let url = table.required("url", "rtmp://a.example/live/{key}", &mut self.mistakes);
        let key = self.one_of(&mut table, ["key", "key_file"]);
        // The URL is judged as with another key if the key is the mistake.
        let is_keyed = table.has("key") || table.has("key_file");
        let given = key.as_ref().map(|key| key.value.as_str()).or(is_keyed.then_some("key"));
        let url = url.and_then(|url| self.push_url(url, given));
        let backup = self.backup(&mut table, given, url.as_ref().map(|url| &url.value));
        let required = table.answer("required", &mut self.mistakes).unwrap_or(false);
        let enabled = table.answer("enabled", &mut self.mistakes).unwrap_or(true);
        table.finish(&mut self.mistakes);
        if key.is_none() && is_keyed {
            return None;
        }
        Some(RouteDestination { name: name?.value, url: url?.value, required, enabled, backup })
    }

    fn push_url(&mut self, url: Found<&str>, key: Option<&str>) -> Option<Found<PushTemplate>> {
        match key {
            Some(key) => url.check(&mut self.mistakes, |url| PushTemplate::with_key(url, key)),
            None => url.check(&mut self.mistakes, PushTemplate::parse_of_route),
        }
    }

    /// The second server of a destination, whose first one is `primary`.
    fn backup(
        &mut self,
        table: &mut FileTable<'_>,
        key: Option<&str>,
        primary: Option<&PushTemplate>,
    ) -> Option<RouteBackup> {
        let url = table.text("backup_url", &mut self.mistakes);
        let after = table.time("backup_after", Duration::ZERO, MOST_TIME, &mut self.mistakes);
        if after.is_some() && !table.has("backup_url") {
            let text = "is the time after which backup_url is asked: write backup_url, too, or remove this";
            self.mistakes.add(table.place, format!("{}.backup_after", table.path), text);
        }
        let url = url.and_then(|url| self.push_url(url, key))?;
        let mistake = match primary {
            Some(primary) if primary.same_place(&url.value) => Some("is the same place as url"),
            Some(primary) if primary.takes_key() && !url.value.takes_key() => {
                Some("needs {key} as url has it: streams of two publishers would meet at one place")
            }
            _ => None,
        };
        mistake.into_iter().for_each(|text| self.mistakes.add(url.place, url.path.clone(), text));
        Some(RouteBackup { url: url.value, after: after.unwrap_or(BACKUP_AFTER) })
    }

    fn publishers(&mut self, table: &mut FileTable<'_>, routes: &BTreeSet<&str>) -> Vec<ListedPublisher> {
        let mut publishers: Vec<ListedPublisher> = Vec::new();
        // A file may list ten thousand, and is read by the thread of the streams.
        let (mut names, mut keys) = (HashSet::new(), HashSet::new());
        for node in table.list("publishers", &mut self.mistakes) {
            let (place, path) = (node.place, node.path.clone());
            let table = FileTable::at(node, &mut self.mistakes);
            let Some(publisher) = table.and_then(|table| self.publisher(table, routes)) else { continue };
            if names.contains(&publisher.name) {
                self.mistakes.add(place, format!("{path}.name"), "another publisher has that name");
            } else if !keys.insert((publisher.key.0, publisher.app.clone())) {
                self.mistakes.add(place, format!("{path}.key"), "another publisher has that key and that app");
            } else {
                names.insert(publisher.name.clone());
                publishers.push(publisher);
            }
        }
        publishers
    }

    fn publisher(&mut self, mut table: FileTable<'_>, routes: &BTreeSet<&str>) -> Option<ListedPublisher> {
        let name = table.required("name", "studio-a", &mut self.mistakes);
        let name = name.and_then(|name| name.check(&mut self.mistakes, name_of));
        let app = table.text("app", &mut self.mistakes).map(|app| app.value.trim_matches('/').to_owned());
        let key = match self.one_of(&mut table, ["key", "key_file", "key_sha256"]) {
            Some(key) if key.path.ends_with("key_sha256") => key.check(&mut self.mistakes, |hex| digest_of(&hex)),
            Some(key) => key.check(&mut self.mistakes, |key| key_of(&key)),
            None => None,
        };
        let route = table.text("route", &mut self.mistakes);
        let (route_place, route) = route.map_or((table.place, DEFAULT_ROUTE), |route| (route.place, route.value));
        if !routes.contains(route) {
            let text = format_args!("there is no route `{route}`: add it under routes, or name another");
            self.mistakes.add(route_place, format!("{}.route", table.path), text);
        }
        let route = route.to_owned();
        if key.is_none() && !["key", "key_file", "key_sha256"].iter().any(|name| table.has(name)) {
            let text = "is missing: write key_file: PATH, key_sha256: HEX, or key: KEY";
            self.mistakes.add(table.place, format!("{}.key", table.path), text);
        }
        table.finish(&mut self.mistakes);
        Some(ListedPublisher { name: name?.value, app, key: key?.value, route })
    }

    fn admission(&mut self, mut table: FileTable<'_>, file: &mut ConfigFile) {
        file.open = table.answer("open", &mut self.mistakes).unwrap_or(false);
        if let Some(mut rate) = table.node("publish_rate").and_then(|node| FileTable::at(node, &mut self.mistakes)) {
            file.publish_burst = rate.number("burst", 1, 1_000_000, &mut self.mistakes);
            let each_second = rate.number("per_second", 1, 100_000, &mut self.mistakes);
            file.publish_every = each_second.map(|count| Duration::from_secs(1) / count);
            rate.finish(&mut self.mistakes);
        }
        if let Some(node) = table.node("on_publish") {
            if self.given.hook {
                let text = "LIVEEDGECAST_ON_PUBLISH_URL is this hook already: remove one of them";
                self.mistakes.add(node.place, node.path.clone(), text);
            }
            file.hooks.publish = FileTable::at(node, &mut self.mistakes).and_then(|table| self.hook(table, true));
        }
        if let Some(node) = table.node("jwt") {
            if self.given.jwt {
                let text = "the variables LIVEEDGECAST_JWT_… have rules of tokens already: remove one of them";
                self.mistakes.add(node.place, node.path.clone(), text);
            }
            file.jwt = FileTable::at(node, &mut self.mistakes).and_then(|table| self.jwt(table)).map(Arc::new);
        }
        if let Some(node) = table.node("on_publish_done") {
            let done = FileTable::at(node, &mut self.mistakes);
            file.hooks.done = done.and_then(|table| self.hook(table, false));
        }
        table.finish(&mut self.mistakes);
    }

    fn jwt(&mut self, mut table: FileTable<'_>) -> Option<Jwt> {
        let keys = self.one_of(&mut table, jwt::KEY_NAMES);
        jwt::rules(table, keys, &mut self.mistakes)
    }

    fn events(&mut self, mut table: FileTable<'_>) -> Option<EventHook> {
        let url = table.required("url", "https://events.example.com/hook", &mut self.mistakes);
        let url = url.and_then(|url| url.check(&mut self.mistakes, HttpUrl::parse));
        let secret = self.one_of(&mut table, ["secret", "secret_file"]);
        if !table.has("secret") && !table.has("secret_file") {
            let text = format_args!("is missing: write secret_file: PATH; {MAKE}");
            self.mistakes.add(table.place, format!("{}.secret", table.path), text);
        }
        let secret = secret.and_then(|secret| secret.check(&mut self.mistakes, |text| SigningSecret::parse(&text)));
        table.finish(&mut self.mistakes);
        Some(EventHook { url: url?.value, secret: secret?.value })
    }

    /// A server that is asked, or told.
    fn hook(&mut self, mut table: FileTable<'_>, asks: bool) -> Option<Arc<Hook>> {
        let url = table.required("url", "https://auth.example.com/rtmp", &mut self.mistakes);
        let url = url.and_then(|url| url.check(&mut self.mistakes, HttpUrl::parse));
        let timeout = table.time("timeout", LEAST_HOOK_TIMEOUT, MOST_HOOK_TIMEOUT, &mut self.mistakes);
        let format = table.choice("format", &HookFormat::CHOICES, &mut self.mistakes);
        let on_error = if asks { table.choice("on_error", &OnHookError::CHOICES, &mut self.mistakes) } else { None };
        let secret = self.one_of(&mut table, ["secret", "secret_file"]);
        table.finish(&mut self.mistakes);
        Some(Arc::new(Hook {
            url: url?.value,
            timeout: timeout.unwrap_or(HOOK_TIMEOUT),
            on_error: on_error.unwrap_or_default(),
            format: format.unwrap_or_default(),
            secret: secret.map(|secret| Secret::new(secret.value)),
        }))
    }

    /// The value of the one name that is given, with the text of the file that a name ending in `_file` leads to.
    fn one_of<const N: usize>(&mut self, table: &mut FileTable<'_>, names: [&'static str; N]) -> Option<Found<String>> {
        let mut given = Vec::new();
        for name in names {
            if let Some(found) = table.text(name, &mut self.mistakes) {
                given.push((name, found));
            }
        }
        if given.len() > 1 {
            for (_, found) in &given[1..] {
                let text = format_args!("is given besides {}: remove one of them", given[0].0);
                self.mistakes.add(found.place, &found.path, text);
            }
            return None;
        }
        let (name, found) = given.pop()?;
        if !name.ends_with("_file") {
            return Some(Found { place: found.place, path: found.path, value: found.value.to_owned() });
        }
        let path = self.folder.join(found.value);
        let text = found.check(&mut self.mistakes, |_| (self.read)(&path));
        self.files.push(path);
        text
    }
}

/// Checks the name of a publisher, a route or a destination.
///
/// # Errors
/// It is none; the text says what a name is.
pub fn check_name(text: &str) -> Result<(), &'static str> {
    name_of(text).map(drop)
}

pub(crate) fn name_of(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > MOST_NAME || !text.chars().all(plain) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("a name has at most 63 letters, digits, '-', '_' and '.', and begins with a letter or digit");
    }
    Ok(text.to_owned())
}

fn key_of(text: &str) -> Result<KeyDigest, String> {
    let key = StreamKey::parse(text).map_err(|error| error.to_string())?;
    match key.slip() {
        Some(slip) => Err(format!("{slip}: remove it")),
        None => Ok(KeyDigest::of(text)),
    }
}

fn digest_of(hex: &str) -> Result<KeyDigest, &'static str> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(KeyDigest).ok_or("must be a SHA-256 in 64 hexadecimal digits: printf %s KEY | sha256sum")
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
