//! The rules of a change. In: the destinations as they are, and a [`Change`]. Out: the destinations as they are then, or the reason why the change
//! cannot be made. Pure.

use liveedgecast_common::handoff::BackupDestination;
use liveedgecast_common::handoff::limits::MAX_DESTINATIONS;
use liveedgecast_common::key::NameError;
use liveedgecast_common::url::PushTemplate;

use super::{NamedDestination, StreamDestinations};
use crate::config::{RouteDestination, check_name};

/// A change of the destinations of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The configuration file has these destinations now. Those that the API has changed stay as they are.
    Route(Vec<RouteDestination>),
    /// The API adds a destination.
    Add(RouteDestination),
    /// The API removes the destination of this name.
    Remove {
        /// Name of the destination.
        name: String,
    },
    /// The API moves a destination to another place, switches it on or off, or both at once.
    Patch {
        /// Name of the destination.
        name: String,
        /// The push URL from now on; `None`: as before.
        url: Option<PushTemplate>,
        /// `false`: nothing is sent there; `None`: as before.
        enabled: Option<bool>,
    },
    /// The API lets the session at a destination begin anew.
    Restart {
        /// Name of the destination.
        name: String,
    },
}

impl Change {
    /// The change as the log shows it: its kind, and the name of the destination.
    pub fn shown(&self) -> (&'static str, &str) {
        match self {
            Self::Route(_) => ("file", ""),
            Self::Add(given) => ("add", &given.name),
            Self::Remove { name } => ("remove", name),
            Self::Patch { name, url: Some(_), .. } => ("move", name),
            Self::Patch { name, enabled: Some(false), .. } => ("disable", name),
            Self::Patch { name, .. } => ("enable", name),
            Self::Restart { name } => ("restart", name),
        }
    }
}

/// The reason why a change cannot be made. Its text is for people, and shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No publisher of this activator has the stream.
    #[error("no publisher of this activator has a stream of this id")]
    UnknownStream,
    /// The stream has no destination of the name.
    #[error("the stream has no destination of this name")]
    UnknownDestination,
    /// The name is none.
    #[error("{0}")]
    Name(&'static str),
    /// The URL does not fit the stream's app and key.
    #[error("the URL is not valid with the stream's names in it: {0}")]
    Url(NameError),
    /// The URL takes the publisher's name, and the publisher has none.
    #[error("the publisher has no name, so the URL cannot contain {{publisher}}: write {{key}}")]
    Nameless,
    /// The name is in use.
    #[error("the stream has a destination of this name already")]
    NameTaken,
    /// Another destination goes to the same place, which would refuse a second session.
    #[error("the destination `{0}` of this stream goes to the same place")]
    SamePlace(String),
    /// Another stream has the upstream, which takes one publisher at a time.
    #[error("another stream has this upstream, whose URL takes no {{key}}")]
    InUse,
    /// The destination is switched off.
    #[error("the destination is switched off")]
    SwitchedOff,
    /// The stream has as many destinations as one may have.
    #[error("a stream has at most {MAX_DESTINATIONS} destinations")]
    TooMany,
    /// The worker that has the stream cannot change its destinations.
    #[error(
        "the worker that has the stream is of an earlier release, which cannot change the destinations of a live stream"
    )]
    OldWorker,
}

impl StreamDestinations {
    /// The destinations after a change; `None`: it changes nothing.
    ///
    /// # Errors
    /// The change cannot be made.
    pub fn changed(&self, change: &Change) -> Result<Option<Self>, ChangeError> {
        let mut next = Self { revision: self.revision + 1, ..self.clone() };
        match change {
            Change::Route(given) => next.follow(given),
            Change::Add(given) => next.add(given)?,
            Change::Remove { name } => {
                let at = next.find(name)?;
                next.all.remove(at);
                next.removed.insert(name.clone());
            }
            Change::Patch { name, url, enabled } => {
                let place = url.as_ref().map(|url| next.resolved(url)).transpose()?;
                let at = next.find(name)?;
                let patched = &mut next.all[at];
                if let Some((url, identity)) = place.filter(|(url, _)| patched.url != *url) {
                    let before = patched.clone();
                    *patched = NamedDestination { url, identity, by_api: true, lost: false, backup: None, ..before };
                }
                if let Some(enabled) = *enabled {
                    patched.by_api |= patched.enabled != enabled;
                    patched.enabled = enabled;
                    patched.lost &= !enabled;
                }
                next.check_place(at)?;
            }
            Change::Restart { name } => {
                let at = next.find(name)?;
                if !next.all[at].enabled {
                    return Err(ChangeError::SwitchedOff);
                }
                (next.all[at].renewed, next.all[at].lost) = (next.revision, false);
            }
        }
        if next.all.len() > MAX_DESTINATIONS {
            return Err(ChangeError::TooMany);
        }
        Ok((next.all != self.all).then_some(next))
    }

    /// These destinations, which admission has given the next stay of a publisher, with what the API has changed at the stay before.
    #[must_use]
    pub fn inheriting(&self, before: &Self) -> Self {
        let by_api = || before.all.iter().filter(|known| known.by_api);
        let mut all: Vec<NamedDestination> = Vec::new();
        for given in self.all.iter().filter(|given| !before.removed.contains(&given.name)) {
            let known = before.all.iter().find(|known| known.name == given.name);
            let same = |other: &NamedDestination| other.enabled && given.enabled && other.url.is_same_place(&given.url);
            match known.filter(|known| known.by_api) {
                Some(known) => all.push(known.clone()),
                None if by_api().any(same) => {}
                None => {
                    all.push(NamedDestination { renewed: known.map_or(0, |known| known.renewed), ..given.clone() });
                }
            }
        }
        let more = by_api().filter(|known| self.all.iter().all(|given| given.name != known.name));
        all.extend(more.cloned());
        let (removed, revision) = (before.removed.clone(), before.revision.max(self.revision));
        Self { all, removed, revision, ..self.clone() }
    }

    fn find(&self, name: &str) -> Result<usize, ChangeError> {
        self.all.iter().position(|known| known.name == name).ok_or(ChangeError::UnknownDestination)
    }

    fn resolved(
        &self,
        template: &PushTemplate,
    ) -> Result<(liveedgecast_common::url::PushUrl, Option<liveedgecast_common::key::Identity>), ChangeError> {
        let names = self.names.as_ref().ok_or(ChangeError::UnknownStream)?;
        if template.takes_publisher() && names.publisher.is_empty() {
            return Err(ChangeError::Nameless);
        }
        names.resolve(template).map_err(ChangeError::Url)
    }

    fn backup(&self, given: &RouteDestination) -> Option<BackupDestination> {
        self.names.as_ref()?.resolve_backup(given.backup.as_ref())
    }

    /// Checks that no other destination goes to the place of this one.
    fn check_place(&self, at: usize) -> Result<(), ChangeError> {
        let mine = &self.all[at];
        let same = |(number, other): &(usize, &NamedDestination)| {
            *number != at && mine.enabled && other.enabled && other.url.is_same_place(&mine.url)
        };
        match self.all.iter().enumerate().find(same) {
            Some((_, other)) => Err(ChangeError::SamePlace(other.name.clone())),
            None => Ok(()),
        }
    }

    fn add(&mut self, given: &RouteDestination) -> Result<(), ChangeError> {
        check_name(&given.name).map_err(ChangeError::Name)?;
        if self.find(&given.name).is_ok() {
            return Err(ChangeError::NameTaken);
        }
        let (url, identity) = self.resolved(&given.url)?;
        let RouteDestination { name, required, enabled, .. } = given.clone();
        // A worker that still ends a session of the same name begins another one.
        let renewed = self.revision;
        let backup = self.backup(given);
        let (by_api, lost) = (true, false);
        self.all.push(NamedDestination { name, url, required, identity, enabled, by_api, lost, renewed, backup });
        self.removed.remove(&given.name);
        self.check_place(self.all.len() - 1)
    }

    /// Takes the destinations of a changed file. One whose URL does not fit the stream's names is left out; of two that come to the same place for
    /// this stream the first one counts, as at the start.
    fn follow(&mut self, given: &[RouteDestination]) {
        let mut all: Vec<NamedDestination> = Vec::new();
        for given in given.iter().filter(|given| !self.removed.contains(&given.name)) {
            let known = self.all.iter().find(|known| known.name == given.name);
            if let Some(known) = known.filter(|known| known.by_api) {
                all.push(known.clone());
                continue;
            }
            let Ok((url, identity)) = self.resolved(&given.url) else { continue };
            let same = |other: &NamedDestination| {
                other.name != given.name && other.enabled && given.enabled && other.url.is_same_place(&url)
            };
            if self.all.iter().any(|known| known.by_api && same(known)) {
                continue;
            }
            if let Some(first) = all.iter_mut().find(|other| same(other)) {
                first.identity = first.identity.or(identity);
                first.required |= given.required;
                continue;
            }
            let lost = known.is_some_and(|known| known.lost && known.url == url && known.enabled);
            let renewed = known.map_or(0, |known| known.renewed);
            let RouteDestination { name, required, enabled, .. } = given.clone();
            let (by_api, backup) = (false, self.backup(given));
            all.push(NamedDestination { name, url, required, identity, enabled, by_api, lost, renewed, backup });
        }
        let listed = |name: &str| all.iter().any(|known| known.name == name);
        let more: Vec<_> = self.all.iter().filter(|known| known.by_api && !listed(&known.name)).cloned().collect();
        all.extend(more);
        self.all = all;
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
