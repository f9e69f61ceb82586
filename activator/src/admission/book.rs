//! The entry of a publisher, and the route that it leads to. In: the push URLs, the publish keys and the configuration file of the moment, an app and
//! a stream key. Out: the publisher's [`BookEntry`], if it may publish. Next: `rules`. Pure.

use std::sync::Arc;

use liveedgecast_common::config::PublishKeys;
use liveedgecast_common::key::{AppName, KeyDigest, NameError, Secret, StreamKey};
use liveedgecast_common::url::PushTemplate;

use super::verdict::NamedDestination;
use crate::config::{ConfigFile, DEFAULT_ROUTE, PublishRate, Reloaded, Route};

/// The publishers and routes of the moment.
#[derive(Clone)]
pub(super) struct Book {
    /// The push URLs of the route `default`, unless the file has that route.
    push: Arc<[PushTemplate]>,
    /// Keys that may publish to the route `default`.
    keys: Option<Arc<PublishKeys>>,
    file: Option<Arc<ConfigFile>>,
}

/// The entry of a publisher that may publish.
pub(super) struct BookEntry<'a> {
    /// Its name, if the file has one.
    pub(super) publisher: Option<&'a str>,
    /// Its key is listed, so that it does not count for its address.
    pub(super) is_listed: bool,
    /// Its route in the file; `None`: that of the push URLs.
    pub(super) route: Option<&'a Route>,
}

impl Book {
    pub(super) fn of(files: &Reloaded) -> Self {
        Self { push: files.push().clone(), keys: files.keys().cloned(), file: files.file().cloned() }
    }

    /// Returns whether a publisher without an entry may publish.
    pub(super) fn is_open(&self) -> bool {
        self.file.as_ref().map_or(self.keys.is_none(), |file| file.open)
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
        let route = self.file.as_deref().and_then(|file| file.routes.get(DEFAULT_ROUTE));
        (is_listed || self.is_open()).then_some(BookEntry { publisher: None, is_listed, route })
    }

    /// The upstreams of a publisher's stream, in the order in which they are written.
    pub(super) fn destinations(
        &self,
        secret: &Secret,
        entry: &BookEntry<'_>,
        app: &AppName,
        key: &StreamKey,
    ) -> Result<Vec<NamedDestination>, NameError> {
        let mut destinations =
            Destinations { secret, app, key, publisher: entry.publisher.unwrap_or(""), all: Vec::new() };
        match entry.route {
            Some(route) => {
                for destination in route.destinations.iter().filter(|destination| destination.enabled) {
                    destinations.add(&destination.url, Some(&destination.name), destination.required)?;
                }
            }
            None => {
                for template in self.push.iter() {
                    destinations.add(template, None, false)?;
                }
            }
        }
        Ok(destinations.all)
    }
}

/// The entry with that key, one for that app before one for any.
fn named<'a>(file: &'a ConfigFile, app: &AppName, key: &StreamKey) -> Option<BookEntry<'a>> {
    let (whole, name) = (KeyDigest::of(key.expose()), KeyDigest::of(key.name()));
    let mut found = None;
    for publisher in &file.publishers {
        let fits = (publisher.key == whole) | (publisher.key == name);
        let here = publisher.app.as_deref().is_none_or(|wanted| wanted == app.name());
        if fits && here && (found.is_none() || publisher.app.is_some()) {
            found = Some(publisher);
        }
    }
    let publisher = found?;
    Some(BookEntry { publisher: Some(&publisher.name), is_listed: true, route: file.routes.get(&publisher.route) })
}

struct Destinations<'a> {
    secret: &'a Secret,
    app: &'a AppName,
    key: &'a StreamKey,
    publisher: &'a str,
    all: Vec<NamedDestination>,
}

impl Destinations<'_> {
    fn add(&mut self, template: &PushTemplate, name: Option<&str>, required: bool) -> Result<(), NameError> {
        let url = template.resolve_for(self.app.expose(), self.key, self.publisher)?;
        let identity = (!template.takes_key()).then(|| url.identity(self.secret));
        // Two templates can come to the same place for one app; the second session would be refused as a duplicate.
        if let Some(same) = self.all.iter_mut().find(|destination| destination.url == url) {
            same.identity = same.identity.or(identity);
            same.required |= required;
            return Ok(());
        }
        let name = match (name, self.all.iter().filter(|destination| destination.url.host == url.host).count()) {
            (Some(name), _) => name.to_owned(),
            (None, 0) => url.host.clone(),
            (None, before) => format!("{} ({})", url.host, before + 1),
        };
        self.all.push(NamedDestination { name, url, required, identity });
        Ok(())
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
