//! The destinations of one stream, while it runs. In: those that admission gave it, [`Change`]s of a file or of the API. Out: the list in force, for
//! workers, and [`DestinationView`]s. Next: `dispatch`, which keeps them with the stream's place, so that every worker that gets the stream gets
//! them as they are then. Pure.
//!
//! A change is made whole or not at all. What the API has changed is marked, so that a changed file does not undo it; it ends with the stream.

mod change;

use std::collections::BTreeSet;
use std::sync::Arc;

use liveedgecast_common::handoff::{BackupDestination, DestinationList, ListedDestination};
use liveedgecast_common::key::{AppName, Identity, KeyDigest, NameError, Secret, StreamKey};
use liveedgecast_common::url::{PushTemplate, PushUrl};
use serde::Serialize;

pub use change::{Change, ChangeError};

use crate::config::RouteBackup;

/// A destination of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDestination {
    /// A name that is unique within the stream and the same for all of its publishers: that of the configuration file, else the host, with a number
    /// if it is not the first there.
    pub name: String,
    /// The push URL, credentials included.
    pub url: PushUrl,
    /// The stream starts only when a required upstream has started, and ends if that one refuses. `RTMP_PUSH_URL` requires none.
    pub required: bool,
    /// The identity of an upstream that takes no `{key}`: one stream at a time has it.
    pub identity: Option<Identity>,
    /// `false`: nothing is sent there.
    pub enabled: bool,
    /// The API has changed it.
    pub by_api: bool,
    /// Another stream has taken the upstream.
    pub lost: bool,
    /// Revision by which its session was to begin anew; 0: it never was.
    pub renewed: u64,
    /// The server that is asked while the first one fails.
    pub backup: Option<BackupDestination>,
}

impl NamedDestination {
    /// Tells whether the stream is sent there.
    pub fn is_in_force(&self) -> bool {
        self.enabled && !self.lost
    }
}

/// The names by which the URLs of a stream's destinations are filled in.
#[derive(Clone, Debug)]
pub struct StreamNames {
    /// The app.
    pub app: AppName,
    /// The stream key.
    pub key: StreamKey,
    /// The publisher's name in the configuration file; empty if it has none.
    pub publisher: String,
    /// The secret of identities.
    pub secret: Secret,
}

impl StreamNames {
    /// The backup of a destination; `None` also if its URL is not valid with these names in it.
    pub fn resolve_backup(&self, backup: Option<&RouteBackup>) -> Option<BackupDestination> {
        let RouteBackup { url, after } = backup?;
        let (url, _) = self.resolve(url).ok()?;
        Some(BackupDestination { url, after: *after })
    }

    /// The destination of a template, and its identity if it takes no `{key}`.
    ///
    /// # Errors
    /// The URL is not valid with these names in it.
    pub fn resolve(&self, template: &PushTemplate) -> Result<(PushUrl, Option<Identity>), NameError> {
        let url = template.resolve_for(self.app.expose(), &self.key, &self.publisher)?;
        let identity = (!template.takes_key()).then(|| url.identity(&self.secret));
        Ok((url, identity))
    }
}

/// The source of a stream's destinations, which tells what a changed file means to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteOrigin {
    /// The publisher has an entry with this key in the configuration file: the route of that entry, as long as there is one. The stream's own key may
    /// lack a part of it, a token.
    Entry(KeyDigest),
    /// A route of the configuration file, without an entry.
    Route(String),
    /// No file: push URLs, or the answer of another program.
    #[default]
    Fixed,
}

/// The destinations of one stream.
#[derive(Clone, Debug, Default)]
pub struct StreamDestinations {
    /// `None`: they cannot be changed.
    names: Option<Arc<StreamNames>>,
    origin: RouteOrigin,
    all: Vec<NamedDestination>,
    /// Names that the API has removed: a changed file does not bring them back.
    removed: BTreeSet<String>,
    revision: u64,
}

/// A destination, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationView {
    /// Name of the destination.
    pub name: String,
    /// Host and port.
    pub host: String,
    /// False if nothing is sent there.
    pub enabled: bool,
    /// True if the stream starts only when it has started.
    pub required: bool,
    /// True if the API has added or changed it.
    pub by_api: bool,
}

impl StreamDestinations {
    /// The destinations that admission gave a stream.
    pub fn new(names: StreamNames, origin: RouteOrigin, all: Vec<NamedDestination>) -> Self {
        Self { names: Some(Arc::new(names)), origin, all, removed: BTreeSet::new(), revision: 0 }
    }

    /// The names of the stream, and the source of its destinations; `None`: they cannot be changed.
    pub fn source(&self) -> Option<(&Arc<StreamNames>, &RouteOrigin)> {
        Some((self.names.as_ref()?, &self.origin))
    }

    /// The names of the destinations that are there, or as they are, in one of the two alone.
    pub fn differing<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a str> {
        let lacks = |others: &[NamedDestination], one: &NamedDestination| !others.contains(one);
        let ours = self.all.iter().filter(|one| lacks(&other.all, one));
        let theirs = other.all.iter().filter(|one| lacks(&self.all, one));
        ours.chain(theirs).map(|one| one.name.as_str()).collect()
    }

    /// Returns whether they are those of a publisher that the configuration file lists.
    pub fn is_of_entry(&self) -> bool {
        matches!(self.origin, RouteOrigin::Entry(_))
    }

    /// Every destination, in order.
    pub fn all(&self) -> &[NamedDestination] {
        &self.all
    }

    /// Number of changes so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Tells whether the API has changed them.
    pub fn is_changed(&self) -> bool {
        !self.removed.is_empty() || self.all.iter().any(|destination| destination.by_api)
    }

    /// The identities of the upstreams in force that take no `{key}`.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        self.in_force().filter_map(|destination| destination.identity)
    }

    /// Notes that other streams have taken the upstreams of these identities.
    pub fn lose(&mut self, identities: &[Identity]) {
        for destination in &mut self.all {
            destination.lost |= destination.identity.is_some_and(|identity| identities.contains(&identity));
        }
    }

    /// The destinations in force, as a worker gets them.
    pub fn list(&self) -> DestinationList {
        let listed = |destination: &NamedDestination| {
            let NamedDestination { name, url, required, identity, renewed, backup, .. } = destination.clone();
            ListedDestination { name, url, required, identity, renewed, backup }
        };
        let publisher = self.names.as_ref().map_or(String::new(), |names| names.publisher.clone());
        DestinationList { revision: self.revision, publisher, destinations: self.in_force().map(listed).collect() }
    }

    /// Every destination, to be shown.
    pub fn views(&self) -> Vec<DestinationView> {
        let view = |destination: &NamedDestination| DestinationView {
            name: destination.name.clone(),
            host: destination.url.authority(),
            enabled: destination.enabled,
            required: destination.required,
            by_api: destination.by_api,
        };
        self.all.iter().map(view).collect()
    }

    fn in_force(&self) -> impl Iterator<Item = &NamedDestination> {
        self.all.iter().filter(|destination| destination.is_in_force())
    }
}
