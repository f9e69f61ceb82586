//! Changes of the destinations of a stream that has a place here. In: a [`Change`], from the API or a changed file. Out: the destinations that are
//! in force from then on, which whoever has the stream is told; or the reason why they stay as they are. Pure.
//!
//! An upstream that takes no `{key}` is the stream's from the moment of the change on, as it is from the start for those that admission gave it.
//! Here nobody contends for one: a change of the API that wants what another stream has or waits for is refused, and a changed file is followed
//! without that destination.

use std::sync::Arc;

use liveedgecast_common::handoff::DestinationList;
use liveedgecast_common::key::Identity;

use super::dispatcher::{Dispatcher, PublisherRecord};
use super::messages::{Key, Output};
use crate::destinations::{Change, ChangeError, DestinationView, RouteOrigin, StreamNames};

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
        let is_claimed = |identity: &Identity| !before.contains(identity) && self.is_claimed(key, identity);
        let claimed: Vec<Identity> = changed.identities().filter(is_claimed).collect();
        match change {
            _ if claimed.is_empty() => {}
            Change::Route(_) => changed.lose(&claimed),
            _ => return Err(ChangeError::InUse),
        }
        let identities: Vec<Identity> = own.into_iter().chain(changed.identities()).collect();
        let gone: Vec<Identity> = before.into_iter().filter(|identity| !identities.contains(identity)).collect();
        self.forget_identities(key, &gone);
        for identity in &identities {
            self.by_identity.entry(*identity).or_default().insert(key);
        }
        let revision = changed.revision();
        if let Some(held) = self.places.get_mut(&key) {
            (held.entry.identities, held.entry.destinations) = (identities, changed);
        }
        self.revision += 1;
        if told {
            self.outputs.push_back(Output::Changed(key));
        }
        Ok(revision)
    }

    /// Tells whether another stream has the upstream of an identity, or waits for it.
    fn is_claimed(&self, key: Key, identity: &Identity) -> bool {
        let id = self.places.get(&key).map_or("", |held| held.entry.stream_id.as_str());
        let one = std::slice::from_ref(identity);
        self.by_identity.get(identity).is_some_and(|keys| keys.iter().any(|other| *other != key))
            || self.workers.holder(one, id).is_some()
            || self.others.twins(one).next().is_some()
    }
}
