//! The changes of this activator that followers are told. In: the state that a follower knows. Out: each [`PeerChange`] since. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use super::dispatcher::{Dispatcher, PublisherRecord};
use super::elsewhere::{Elsewhere, PeerStream};
use super::messages::Key;
use super::tally::WorkerTally;

/// A change that another activator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// A publisher that has a place here, as it is now, with its number: unique here for ever.
    Held(u64, Elsewhere),
    /// The publisher of this number has none any more.
    Gone(u64),
    /// A registered worker, as it is now, with its name.
    Worker(String, WorkerTally),
    /// The worker of this name is not registered here any more.
    WorkerGone(String),
}

/// A publisher, as a follower was told of it.
type ToldPublisher = (bool, bool, String, u64, (usize, u64));

/// The state of this activator as one follower knows it.
#[derive(Debug, Default)]
pub(crate) struct FollowerView {
    /// Waiting, provided, worker, epoch, the number of identities and the revision of the destinations of each publisher: a stream can lose
    /// upstreams to others, and get others by a change.
    held: BTreeMap<Key, ToldPublisher>,
    workers: BTreeMap<String, WorkerTally>,
}

impl Dispatcher {
    /// The changes since `told`, which is brought up to date.
    pub(crate) fn tell(&self, now: Instant, told: &mut FollowerView) -> Vec<PeerChange> {
        let mut changes = Vec::new();
        told.held.retain(|key, _| {
            let stays = self.places.contains_key(key);
            if !stays {
                changes.push(PeerChange::Gone(*key));
            }
            stays
        });
        for (key, held) in &self.places {
            let (on, epoch) = match held.state.on() {
                Some((call, epoch)) => (self.workers.get(call), epoch),
                None => (None, 0),
            };
            let waiting = !held.state.is_taken();
            let provided = waiting && (!held.state.is_waiting() || self.bound.contains(key));
            let name = on.map_or("", |worker| &worker.name);
            let known = told.held.get(key);
            let count = (held.entry.identities.len(), held.entry.destinations.revision());
            if known
                .is_some_and(|(a, b, c, d, e)| (*a, *b, c.as_str(), *d, *e) == (waiting, provided, name, epoch, count))
            {
                continue;
            }
            told.held.insert(*key, (waiting, provided, name.to_owned(), epoch, count));
            changes.push(PeerChange::Held(*key, self.as_told(held, (waiting, provided, name, epoch))));
        }
        let workers = self.tally(now).workers;
        let gone = told.workers.keys().filter(|name| !workers.contains_key(*name));
        changes.extend(gone.cloned().map(PeerChange::WorkerGone));
        let news = workers.iter().filter(|(name, worker)| told.workers.get(*name) != Some(worker));
        changes.extend(news.map(|(name, worker)| PeerChange::Worker(name.clone(), worker.clone())));
        told.workers = workers;
        changes
    }

    fn as_told(
        &self,
        held: &PublisherRecord,
        (waiting, provided, worker, epoch): (bool, bool, &str, u64),
    ) -> Elsewhere {
        Elsewhere {
            identities: held.entry.identities.clone(),
            app: held.entry.app.name().to_owned(),
            entered: self.ourselves.as_ref().map_or(0, |ourselves| ourselves.wall(held.entered)),
            waiting,
            provided,
            worker: worker.to_owned(),
            epoch,
            stream: PeerStream {
                id: held.entry.stream_id.0.clone(),
                publisher: held.entry.publisher.clone().unwrap_or_default(),
                client: Some(held.entry.client),
            },
        }
    }
}
