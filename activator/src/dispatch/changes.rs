//! Changes of the destinations of a stream that has a place here. In: a [`Change`], from the API or a changed file. Out: the destinations that are
//! in force from then on, which whoever has the stream is told; or the reason why they stay as they are. Pure.
//!
//! An upstream that takes no `{key}` is the stream's from the moment of the change on, as it is from the start for those that admission gave it.
//! Here nobody contends for one: a change of the API that wants what another stream has or waits for is refused, and a changed file is followed
//! without that destination.
//!
//! A change of the API belongs to the stream, which may have several stays of its publisher: one that is replaced by another, and one that comes back
//! within its grace time. The next stay comes with the destinations of the configuration and inherits what the API has changed.

use std::sync::Arc;
use std::time::Instant;

use liveedgecast_common::handoff::DestinationList;
use liveedgecast_common::key::Identity;

use super::Entry;
use super::dispatcher::{Dispatcher, PublisherRecord};
use super::messages::{Key, Output};
use crate::destinations::{Change, ChangeError, DestinationView, RouteOrigin, StreamDestinations, StreamNames};

/// A stream as the next worker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedStream {
    /// The stream's own identity, then those of upstreams in force that take no `{key}`.
    pub identities: Vec<Identity>,
    /// The destinations in force.
    pub destinations: DestinationList,
    /// The worker takes such a list.
    pub takes_lists: bool,
}

/// A stream whose destinations can follow a changed file.
#[derive(Clone, Debug)]
pub struct RoutedStream {
    /// Id of the stream.
    pub id: String,
    /// The names by which its URLs are filled in.
    pub names: Arc<StreamNames>,
    /// The source of its destinations.
    pub origin: RouteOrigin,
}

impl Dispatcher {
    /// The streams whose publishers have a place here, without those whose destinations cannot be changed.
    pub(crate) fn routed(&self) -> Vec<RoutedStream> {
        let routed = |held: &PublisherRecord| {
            let (names, origin) = held.entry.destinations.source()?;
            let (id, names, origin) = (held.entry.stream_id.0.clone(), Arc::clone(names), origin.clone());
            Some(RoutedStream { id, names, origin })
        };
        self.places.values().filter_map(routed).collect()
    }

    /// The place of a stream's publisher; `None`: no publisher has a place here.
    pub(crate) fn place_of(&self, stream_id: &str) -> Option<Key> {
        self.by_id.get(stream_id).copied()
    }

    /// Number of changes of a stream's destinations; `None`: no publisher has a place here.
    pub(crate) fn changes_of(&self, stream_id: &str) -> Option<u64> {
        Some(self.places.get(self.by_id.get(stream_id)?)?.entry.destinations.revision())
    }

    /// The stream of a place; `None` once the place is gone.
    pub(crate) fn placed(&self, key: Key) -> Option<PlacedStream> {
        let held = self.places.get(&key)?;
        let (identities, destinations) = (held.entry.identities.clone(), held.entry.destinations.list());
        Some(PlacedStream { identities, destinations, takes_lists: held.takes_lists })
    }

    /// The destinations of a stream whose publisher has a place here.
    pub(crate) fn destinations(&self, stream_id: &str) -> Option<Vec<DestinationView>> {
        let held = self.places.get(self.by_id.get(stream_id)?)?;
        Some(held.entry.destinations.views())
    }

    /// The destinations of a stream as they were given, in order; `None`: no publisher of this activator has it.
    pub(crate) fn listed(&self, stream_id: &str) -> Option<&StreamDestinations> {
        Some(&self.places.get(self.by_id.get(stream_id)?)?.entry.destinations)
    }

    /// Changes the destinations of a stream whose publisher has a place here; returns the revision in force.
    pub(crate) fn change(&mut self, stream_id: &str, change: &Change) -> Result<u64, ChangeError> {
        let key = *self.by_id.get(stream_id).ok_or(ChangeError::UnknownStream)?;
        let held = self.places.get(&key).ok_or(ChangeError::UnknownStream)?;
        let Some(mut changed) = held.entry.destinations.changed(change)? else {
            return Ok(held.entry.destinations.revision());
        };
        let told = held.state.on().is_some();
        if told && !held.takes_lists {
            return Err(ChangeError::OldWorker);
        }
        let own = held.entry.identities.first().copied();
        let before = held.entry.identities.clone();
        let is_claimed = |identity: &Identity| !before.contains(identity) && self.is_claimed(own, identity);
        let claimed: Vec<Identity> = changed.identities().filter(is_claimed).collect();
        match change {
            _ if claimed.is_empty() => {}
            Change::Route(_) => changed.lose(&claimed),
            _ => return Err(ChangeError::InUse),
        }
        let revision = changed.revision();
        self.replace_destinations(key, changed);
        if told {
            self.outputs.push_back(Output::Changed(key));
        }
        Ok(revision)
    }

    /// Gives a place other destinations.
    fn replace_destinations(&mut self, key: Key, changed: StreamDestinations) {
        let Some(held) = self.places.get_mut(&key) else { return };
        let own = held.entry.identities.first().copied();
        let identities: Vec<Identity> = own.into_iter().chain(changed.identities()).collect();
        let before = std::mem::replace(&mut held.entry.identities, identities.clone());
        held.entry.destinations = changed;
        let gone: Vec<Identity> = before.into_iter().filter(|identity| !identities.contains(identity)).collect();
        self.forget_identities(key, &gone);
        for identity in &identities {
            self.by_identity.entry(*identity).or_default().insert(key);
        }
        self.revision += 1;
    }

    /// Tells whether another stream than the one whose own identity this is has the upstream of an identity, or waits for it.
    fn is_claimed(&self, own: Option<Identity>, identity: &Identity) -> bool {
        let foreign = |identities: &[Identity]| identities.first().copied() != own;
        let here = self.by_identity.get(identity).into_iter().flatten().filter_map(|key| self.places.get(key));
        here.map(|held| &held.entry.identities).any(|identities| foreign(identities))
            || self.workers.holders(identity).any(|session| foreign(&session.identities))
            || self.others.twins(std::slice::from_ref(identity)).any(|(_, twin)| foreign(&twin.identities))
    }

    /// Gives a publisher that enters what the API has changed at the stream: at an earlier stay that another place is about, or at one that was lost.
    pub(super) fn inherit_changes(&self, now: Instant, entry: &mut Entry) {
        let Some(own) = entry.identities.first().copied() else { return };
        let stays = self.stays(own).filter_map(|key| self.places.get(&key)).map(|held| &held.entry.destinations);
        let stays = stays.chain(self.kept_changes.get(now, &own));
        let Some(before) = stays.filter(|stay| stay.is_changed()).max_by_key(|stay| stay.revision()) else { return };
        entry.destinations = self.inherited(own, &entry.destinations, before);
        entry.identities = std::iter::once(own).chain(entry.destinations.identities()).collect();
    }

    /// Gives the place that goes on with a stream the changes of a place that is gone, as far as it has not got them when it entered.
    pub(super) fn pass_changes_on(&mut self, gone: &Entry) {
        let Some(own) = gone.identities.first().copied().filter(|_| gone.destinations.is_changed()) else { return };
        for key in self.stays(own).collect::<Vec<_>>() {
            let Some(held) = self.places.get(&key) else { continue };
            let told = held.state.on().is_some();
            if gone.destinations.revision() <= held.entry.destinations.revision() || told && !held.takes_lists {
                continue;
            }
            let inherited = self.inherited(own, &held.entry.destinations, &gone.destinations);
            self.replace_destinations(key, inherited);
            self.outputs.extend(told.then_some(Output::Changed(key)));
        }
    }

    /// Keeps the changes of a stream whose publisher is lost, and forgets those of one that has ended.
    pub(super) fn keep_changes(&mut self, now: Instant, key: Key) {
        let Some(held) = self.places.get(&key).filter(|held| held.was_live || held.state.is_taken()) else { return };
        let Some(own) = held.entry.identities.first().filter(|own| self.stays(**own).all(|stay| stay == key)) else {
            return;
        };
        match held.lost_for {
            Some(grace) => {
                let Entry { stream_id, destinations, .. } = &held.entry;
                self.kept_changes.keep(now, *own, stream_id.as_str(), destinations, grace);
            }
            None => self.kept_changes.forget(own),
        }
    }

    /// The places of one stream: of the publisher, and of one that replaces it or is about to be refused.
    fn stays(&self, own: Identity) -> impl Iterator<Item = Key> {
        let keys = self.by_identity.get(&own).into_iter().flatten().copied();
        keys.filter(move |key| self.places.get(key).is_some_and(|held| held.entry.identities.first() == Some(&own)))
    }

    /// The destinations of a new stay with the changes of an earlier one. An upstream that another stream has taken meanwhile stays with that one.
    fn inherited(&self, own: Identity, new: &StreamDestinations, before: &StreamDestinations) -> StreamDestinations {
        let mut all = new.inheriting(before);
        let known: Vec<Identity> = new.identities().collect();
        let added = all.identities().filter(|identity| !known.contains(identity));
        let taken: Vec<Identity> = added.filter(|identity| self.is_claimed(Some(own), identity)).collect();
        all.lose(&taken);
        all
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
