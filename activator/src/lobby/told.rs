//! What the other activators are told of this lobby. In: what one of them was told already. Out: what it is to be told now. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Held, Key, Matching};
use crate::peers::WorkerTally;
use crate::peers::proto::says::Say;
use crate::peers::proto::{Held as HeldSaid, Worker as WorkerSaid};

/// What a follower knows.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// With the number of its identities: a stream can lose upstreams to others.
    held: BTreeMap<Key, (bool, bool, String, u64, usize)>,
    workers: BTreeMap<String, WorkerTally>,
}

impl Matching {
    /// The difference between what is and what was told; it counts as told from here on.
    pub(crate) fn tell(&self, now: Instant, told: &mut Told) -> Vec<Say> {
        let mut says = Vec::new();
        told.held.retain(|key, _| {
            let stays = self.places.contains_key(key);
            if !stays {
                says.push(Say::Gone(*key));
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
            let count = held.entry.identities.len();
            if known
                .is_some_and(|(a, b, c, d, e)| (*a, *b, c.as_str(), *d, *e) == (waiting, provided, name, epoch, count))
            {
                continue;
            }
            told.held.insert(*key, (waiting, provided, name.to_owned(), epoch, count));
            says.push(Say::Held(self.held_said(*key, held, (waiting, provided, name, epoch))));
        }
        let workers = self.tally(now).workers;
        let gone = told.workers.keys().filter(|name| !workers.contains_key(*name));
        says.extend(gone.cloned().map(Say::WorkerGone));
        let news = workers.iter().filter(|(name, worker)| told.workers.get(*name) != Some(worker));
        says.extend(news.map(|(name, worker)| Say::Worker(worker_said(name, worker))));
        told.workers = workers;
        says
    }

    fn held_said(
        &self,
        key: Key,
        held: &Held,
        (waiting, provided, worker, epoch): (bool, bool, &str, u64),
    ) -> HeldSaid {
        HeldSaid {
            number: key,
            identities: held.entry.identities.iter().map(|identity| identity.0.to_vec()).collect(),
            app: held.entry.app.name().to_owned(),
            entered: self.ourselves.as_ref().map_or(0, |ourselves| ourselves.wall(held.entered)),
            waiting,
            provided,
            worker: worker.to_owned(),
            epoch,
        }
    }
}

fn worker_said(name: &str, worker: &WorkerTally) -> WorkerSaid {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    WorkerSaid {
        name: name.to_owned(),
        draining: worker.draining,
        cordoned: worker.cordoned,
        leaving: worker.leaving,
        room: count(worker.room),
        streams: worker.streams.iter().map(|(app, streams)| (app.clone(), count(*streams))).collect(),
    }
}
