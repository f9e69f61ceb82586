//! The entry of a publisher, and the route that it leads to. In: the push URLs, the publish keys and the configuration file of the moment, an app and
//! a stream key. Out: the publisher's [`BookEntry`], if it may publish. Next: `rules`. Pure.

use std::sync::Arc;

use liveedgecast_common::config::PublishKeys;
use liveedgecast_common::handoff::BackupDestination;
use liveedgecast_common::key::{AppName, Identity, KeyDigest, NameError, StreamKey};
use liveedgecast_common::url::{PushTemplate, PushUrl};

use super::hook::Granted;
use crate::config::{ConfigFile, DEFAULT_ROUTE, Hooks, Jwt, PublishRate, Reloaded, Route, RouteDestination};
use crate::destinations::{NamedDestination, RouteOrigin, StreamNames};

/// The publishers and routes of the moment.
#[derive(Clone)]
pub struct Book {
    revision: u64,
    /// The push URLs of the route `default`, unless the file has that route.
    push: Arc<[PushTemplate]>,
    /// Keys that may publish to the route `default`.
    keys: Option<Arc<PublishKeys>>,
    file: Option<Arc<ConfigFile>>,
    hooks: Hooks,
    /// The rules of the tokens that let publishers without an entry in.
    jwt: Option<Arc<Jwt>>,
}

/// The meaning of changed files for a stream that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileStanding {
    /// They say nothing about it: it stays as it is.
    Kept,
    /// Its route has these destinations.
    Routed(Vec<RouteDestination>),
    /// Its publisher had an entry, and has none any more.
    Removed,
}

/// The entry of a publisher that may publish.
pub(super) struct BookEntry<'a> {
    /// Its name, if the file has one.
    pub(super) publisher: Option<&'a str>,
    /// Its key is listed, or a server has let it in, so that it does not count for its address.
    pub(super) is_listed: bool,
    /// Its route in the file; `None`: that of the push URLs.
    pub(super) route: Option<&'a Route>,
    /// Destinations that a server has given in place of the route's; none: the route's.
    given: &'a [RouteDestination],
    /// The source of the publisher's destinations.
    pub(super) origin: RouteOrigin,
}

impl Book {
    pub(super) fn of(files: &Reloaded) -> Self {
        Self {
            revision: files.revision(),
            push: files.push().clone(),
            keys: files.keys().cloned(),
            file: files.file().cloned(),
            hooks: files.hooks(),
            jwt: files.jwt().cloned(),
        }
    }

    /// Revision of the files.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The meaning of the files for a stream that was admitted by earlier ones.
    pub fn standing(&self, names: &StreamNames, origin: &RouteOrigin) -> FileStanding {
        let Some(file) = self.file.as_deref() else { return FileStanding::Kept };
        let route = match origin {
            RouteOrigin::Fixed => None,
            RouteOrigin::Route(name) => file.routes.get(name),
            RouteOrigin::Entry(key) => match named_by(file, &names.app, [*key; 2]) {
                Some(entry) => entry.route,
                None => return FileStanding::Removed,
            },
        };
        route.map_or(FileStanding::Kept, |route| FileStanding::Routed(route.destinations.clone()))
    }

    /// Returns whether a publisher without an entry may publish.
    pub(super) fn is_open(&self) -> bool {
        self.hooks.publish.is_none()
            && self.jwt.is_none()
            && self.file.as_ref().map_or(self.keys.is_none(), |file| file.open)
    }

    /// The servers that are asked and told.
    pub(super) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// The rules of tokens.
    pub(super) fn jwt(&self) -> Option<&Arc<Jwt>> {
        self.jwt.as_ref()
    }

    /// The rate of publishers without an entry; `usual` where the file says nothing.
    pub(super) fn rate(&self, usual: PublishRate) -> PublishRate {
        let Some(file) = self.file.as_deref() else { return usual };
        PublishRate {
            burst: file.publish_burst.unwrap_or(usual.burst),
            every: file.publish_every.unwrap_or(usual.every),
        }
    }

    /// The entry of a publisher; `None`: it may not publish. Every entry is compared, so that the time does not tell which one fitted.
    pub(super) fn entry(&self, app: &AppName, key: &StreamKey) -> Option<BookEntry<'_>> {
        let named = self.file.as_deref().and_then(|file| named(file, app, key));
        if named.is_some() {
            return named;
        }
        let is_listed = self.keys.as_ref().is_some_and(|keys| keys.allows(app.expose(), key));
        (is_listed || self.is_open()).then_some(self.nameless(is_listed))
    }

    /// The entry of a publisher without a name, which goes to the route `default`.
    pub(super) fn nameless(&self, is_listed: bool) -> BookEntry<'_> {
        let route = self.file.as_deref().and_then(|file| file.routes.get(DEFAULT_ROUTE));
        let origin = if route.is_some() { RouteOrigin::Route(DEFAULT_ROUTE.to_owned()) } else { RouteOrigin::Fixed };
        BookEntry { publisher: None, is_listed, route, given: &[], origin }
    }

    /// The entry of a publisher that a server or a token has let in; `None`: there is no such route.
    pub(super) fn granted<'a>(&'a self, granted: &'a Granted) -> Option<BookEntry<'a>> {
        let mut entry = self.nameless(true);
        if let Some(name) = &granted.route {
            let route = self.file.as_deref().and_then(|file| file.routes.get(name));
            if route.is_none() && name != DEFAULT_ROUTE {
                return None;
            }
            entry.route = route;
            entry.origin = if route.is_some() { RouteOrigin::Route(name.clone()) } else { RouteOrigin::Fixed };
        }
        if !granted.destinations.is_empty() {
            entry.origin = RouteOrigin::Fixed;
        }
        (entry.publisher, entry.given) = (granted.publisher.as_deref(), &granted.destinations);
        Some(entry)
    }

    /// The destinations of a publisher's stream, in the order in which they are written.
    pub(super) fn destinations(
        &self,
        names: &StreamNames,
        entry: &BookEntry<'_>,
    ) -> Result<Vec<NamedDestination>, NameError> {
        let mut destinations = Destinations { names, all: Vec::new() };
        let listed = match (entry.given, entry.route) {
            ([], route) => route.map(|route| route.destinations.as_slice()),
            (given, _) => Some(given),
        };
        match listed {
            Some(listed) => {
                listed.iter().try_for_each(|destination| destinations.add_of_route(destination))?;
            }
            None => self.push.iter().try_for_each(|template| destinations.add(template, None, false, None))?,
        }
        Ok(destinations.all)
    }
}

/// The entry with that key, one for that app before one for any.
fn named<'a>(file: &'a ConfigFile, app: &AppName, key: &StreamKey) -> Option<BookEntry<'a>> {
    named_by(file, app, [KeyDigest::of(key.expose()), KeyDigest::of(key.name())])
}

/// The entry with one of these digests of a key.
fn named_by<'a>(file: &'a ConfigFile, app: &AppName, [whole, name]: [KeyDigest; 2]) -> Option<BookEntry<'a>> {
    let mut found = None;
    for publisher in &file.publishers {
        let fits = (publisher.key == whole) | (publisher.key == name);
        let here = publisher.app.as_deref().is_none_or(|wanted| wanted == app.name());
        if fits && here && (found.is_none() || publisher.app.is_some()) {
            found = Some(publisher);
        }
    }
    let publisher = found?;
    let route = file.routes.get(&publisher.route);
    let origin = RouteOrigin::Entry(publisher.key);
    Some(BookEntry { publisher: Some(&publisher.name), is_listed: true, route, given: &[], origin })
}

struct Destinations<'a> {
    names: &'a StreamNames,
    all: Vec<NamedDestination>,
}

impl Destinations<'_> {
    fn add_of_route(&mut self, destination: &RouteDestination) -> Result<(), NameError> {
        let RouteDestination { name, url, required, enabled, backup } = destination;
        let backup = self.names.resolve_backup(backup.as_ref());
        if *enabled {
            return self.add(url, Some(name), *required, backup);
        }
        // It can be switched on while the stream is live, if it fits the publisher's names.
        if let Ok((url, identity)) = self.names.resolve(url) {
            self.push(name.clone(), (url, backup), *required, identity, false);
        }
        Ok(())
    }

    fn add(
        &mut self,
        template: &PushTemplate,
        name: Option<&str>,
        required: bool,
        backup: Option<BackupDestination>,
    ) -> Result<(), NameError> {
        let (url, identity) = self.names.resolve(template)?;
        // Two templates can come to the same place for one app; the second session would be refused as a duplicate.
        let same = |destination: &&mut NamedDestination| destination.enabled && destination.url.is_same_place(&url);
        if let Some(same) = self.all.iter_mut().find(same) {
            same.identity = same.identity.or(identity);
            same.required |= required;
            return Ok(());
        }
        let name = match (name, self.all.iter().filter(|destination| destination.url.host == url.host).count()) {
            (Some(name), _) => name.to_owned(),
            (None, 0) => url.host.clone(),
            (None, before) => format!("{} ({})", url.host, before + 1),
        };
        self.push(name, (url, backup), required, identity, true);
        Ok(())
    }

    fn push(
        &mut self,
        name: String,
        (url, backup): (PushUrl, Option<BackupDestination>),
        required: bool,
        identity: Option<Identity>,
        enabled: bool,
    ) {
        let (by_api, lost, renewed) = (false, false, 0);
        self.all.push(NamedDestination { name, url, required, identity, enabled, by_api, lost, renewed, backup });
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
