//! The one file that decides which worker gets a stream, and which of several publishers with one identity stays. In: the places and
//! workers of [`Dispatcher`]. Out: offers, refusals. Pure.
//!
//! The demand ([`Dispatcher::tally`]), the shortage that starts worker processes and `fill` ask the same functions for the places that are
//! free. A worker has a veto, in `judge` of its `register/machine.rs` and `place` of its `engine/table.rs`: it declines an offer that it has no
//! place for, by its own count, and is left alone for a second then.
//!
//! Note: a stream's own identity, the first one, says whose stream it is; the others say which upstreams it wants that take one publisher
//! at a time. A worker that has the stream goes on with it, with the upstreams that it has. A worker that has nothing but a wanted
//! upstream is the only one that can take that over, so the stream goes there. No worker can take over an upstream of another worker's:
//! a stream that wants upstreams of two of them waits until one is free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

use liveedgecast_common::control::SessionState;
use liveedgecast_common::key::Identity;

use super::PlaceRefusal;
use super::dispatcher::{Dispatcher, OFFER_TIMEOUT, PublisherRecord, SILENT_AFTER, State};
use super::elsewhere::YIELD_AFTER;
use super::messages::{Key, Output};
use super::workers::{CLAIMED_EPOCH, CallId, MAX_OFFERS, Worker, Workers};

/// The workers that may take a waiting stream.
pub(super) enum Owner {
    Nobody,
    /// Only this worker: it has the stream, or an upstream that the stream wants, and decides.
    Worker(CallId),
    /// Only this worker: it has lost nothing but the connection to the publisher's activator.
    Keeper(CallId),
    /// No worker for now: one has the stream that cannot be asked.
    Wait,
}

impl Dispatcher {
    /// Refuses one of two publishers that wait here for one stream, or for one upstream. Returns whether `key` stays.
    pub(super) fn settle_twins(&mut self, now: Instant, key: Key) -> bool {
        let Some(held) = self.places.get(&key) else { return false };
        let twins: BTreeSet<Key> = held
            .entry
            .identities
            .iter()
            .filter_map(|identity| self.by_identity.get(identity))
            .flatten()
            .copied()
            .collect();
        for other in twins {
            let Some((one, two)) = self.places.get(&key).zip(self.places.get(&other)) else { continue };
            if other == key || two.state.is_taken() {
                continue;
            }
            // A publisher that has been live keeps the stream; otherwise the one that arrived first does.
            let (first, second) =
                if (!one.was_live, key) < (!two.was_live, other) { (key, other) } else { (other, key) };
            let silent = self.places.get(&first).is_some_and(|held| {
                // A publisher that was live is not heard while it waits; a publisher of another stream cannot end its stream by that.
                let same = held.entry.identities.first() == second_own(&self.places, second);
                (held.gone || held.heard + SILENT_AFTER <= now) && (same || !held.was_live)
            });
            let goes = if silent { first } else { second };
            self.refuse(goes, PlaceRefusal::Duplicate);
            if goes == key {
                return false;
            }
        }
        true
    }

    /// Refuses or delays a publisher because of one that waits at another activator. Returns whether `key` stays.
    pub(super) fn settle_elsewhere(&mut self, now: Instant, key: Key) -> bool {
        let Some((held, ourselves)) = self.places.get(&key).zip(self.ourselves.as_ref()) else { return true };
        // A publisher that has been live keeps the stream.
        if !held.state.is_waiting() || held.was_live {
            return true;
        }
        let ours = (ourselves.wall(held.entered), ourselves.name.as_str());
        let waiting = self.others.twins(&held.entry.identities).filter(|(_, twin)| twin.waiting);
        let (mut earlier, mut later) = (false, false);
        for (peer, twin) in waiting {
            let first = (twin.entered, peer) < ours;
            (earlier, later) = (earlier || first, later || !first);
        }
        if later && held.heard + SILENT_AFTER <= now {
            self.refuse(key, PlaceRefusal::Duplicate);
            return false;
        }
        if let Some(held) = self.places.get_mut(&key) {
            held.yields_at = if earlier { held.yields_at.or(Some(now + YIELD_AFTER)) } else { None };
        }
        self.arm(key);
        true
    }

    /// Looks again at the publishers that wait here with one of these identities, after a change at another activator.
    pub(super) fn look_again(&mut self, now: Instant, identities: &BTreeSet<Identity>) {
        self.revision += 1;
        let ours: BTreeSet<Key> =
            identities.iter().filter_map(|identity| self.by_identity.get(identity)).flatten().copied().collect();
        for key in ours {
            if self.places.get(&key).is_some_and(|held| held.state.is_waiting()) && self.settle_elsewhere(now, key) {
                self.match_one(now, key);
            }
        }
    }

    /// Offers every waiting stream that can be offered, in order.
    pub(super) fn fill(&mut self, now: Instant) {
        for key in self.bound.clone() {
            self.match_one(now, key);
        }
        let mut after = None;
        loop {
            let has_room = |same_host| self.workers.busiest(now, |_, worker| worker.same_host == same_host).is_some();
            let (here, elsewhere) = (has_room(true), has_room(false));
            if !here && !elsewhere {
                break;
            }
            let can_go = |held: &PublisherRecord| here && held.fits(true) || elsewhere && held.fits(false);
            let mut rest = self.queue.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
            let next = rest.find(|(_, key)| self.places.get(key).is_some_and(can_go)).copied();
            let Some(next) = next else { break };
            after = Some(next);
            self.match_one(now, next.1);
        }
    }

    pub(super) fn match_one(&mut self, now: Instant, key: Key) {
        let Some(held) = self.places.get(&key).filter(|held| held.state.is_waiting()) else { return };
        let rank = (!held.front, key);
        let open = |call: CallId| held.avoid.get(&call).is_none_or(|until| *until <= now);
        let (bound, call) = match self.owner(now, key, held) {
            Owner::Nobody => {
                (false, self.workers.busiest(now, |call, worker| held.fits(worker.same_host) && open(call)))
            }
            Owner::Wait => (true, None),
            Owner::Worker(call) => {
                let can = |worker: &Worker| worker.can_be_offered(now) && held.fits(worker.same_host) && open(call);
                (true, self.workers.get(call).is_some_and(can).then_some(call))
            }
            Owner::Keeper(call) => {
                let can = |worker: &Worker| worker.can_be_given_back(now) && held.fits(worker.same_host);
                (true, self.workers.get(call).is_some_and(can).then_some(call))
            }
        };
        if bound {
            self.queue.remove(&rank);
            self.revision += u64::from(self.bound.insert(key));
        } else {
            self.revision += u64::from(self.bound.remove(&key));
            self.queue.insert(rank);
        }
        if let Some(call) = call {
            self.offer(now, key, call, bound);
        }
    }

    pub(super) fn owner(&self, now: Instant, key: Key, held: &PublisherRecord) -> Owner {
        if let Some(call) = self.keeper(now, held) {
            return Owner::Keeper(call);
        }
        let Some((own, upstreams)) = held.entry.identities.split_first() else { return Owner::Nobody };
        let stream = self.owner_of(key, held, own);
        if !matches!(stream, Owner::Nobody) {
            return stream;
        }
        let mut holder = None;
        for identity in upstreams {
            match self.owner_of(key, held, identity) {
                Owner::Nobody => {}
                Owner::Worker(call) if holder.is_none_or(|other| other == call) => holder = Some(call),
                Owner::Worker(_) | Owner::Keeper(_) | Owner::Wait => return Owner::Wait,
            }
        }
        holder.map_or(Owner::Nobody, Owner::Worker)
    }

    /// The worker that has the session of a stream which came back here, if it is alive and has not failed to take it.
    fn keeper(&self, now: Instant, held: &PublisherRecord) -> Option<CallId> {
        if !held.front {
            return None;
        }
        let alive = |call: CallId, worker: &Worker| {
            let avoided = held.avoid.get(&call).is_some_and(|until| now < *until);
            !worker.is_draining() && !worker.is_suspect() && !avoided
        };
        let all = self.workers.serving(held.entry.stream_id.as_str());
        let alive = all.filter(|(call, worker, _)| alive(*call, worker));
        alive.max_by_key(|(_, _, session)| session.epoch).map(|(call, ..)| call)
    }

    fn owner_of(&self, key: Key, held: &PublisherRecord, identity: &Identity) -> Owner {
        let id = held.entry.stream_id.as_str();
        for other in self.by_identity.get(identity).into_iter().flatten().filter(|other| **other != key) {
            let Some(twin) = self.places.get(other).filter(|twin| twin.state.is_taken()) else { continue };
            let there = twin.state.on().and_then(|(call, _)| Some((call, self.workers.get(call)?)));
            return match there {
                // The stream has lost this upstream to another stream.
                Some((_, worker)) if worker.has_without(twin.entry.stream_id.as_str(), identity) => continue,
                Some((call, worker)) if !worker.is_draining() => Owner::Worker(call),
                // The stream moves, or its worker is lost: its next worker will be known in a moment.
                _ => Owner::Wait,
            };
        }
        if let Some((call, session)) = self.workers.holder(std::slice::from_ref(identity), id) {
            let draining = self.workers.get(call).is_none_or(Worker::is_draining);
            match session.state {
                // The draining worker will not continue it, so another worker may begin anew.
                SessionState::Grace if draining => {}
                _ if draining => return Owner::Wait,
                _ => return Owner::Worker(call),
            }
        }
        let Some(ourselves) = &self.ourselves else { return Owner::Nobody };
        let ours = (ourselves.wall(held.entered), ourselves.name.as_str());
        for (peer, twin) in self.others.twins(std::slice::from_ref(identity)) {
            let there = self.workers.named(&twin.worker).and_then(|call| Some((call, self.workers.get(call)?)));
            match there {
                Some((call, worker)) if !worker.is_draining() => return Owner::Worker(call),
                // The later publisher waits for ours.
                None if twin.waiting && twin.worker.is_empty() && ours < (twin.entered, peer) => {}
                _ => return Owner::Wait,
            }
        }
        Owner::Nobody
    }

    fn offer(&mut self, now: Instant, key: Key, call: CallId, known: bool) {
        self.epoch = self.epoch.max(self.workers.epoch()).saturating_add(1);
        // The epoch is greater than every other claim on the same stream, also where that claim is too great to count on from; it is another
        // number each time; and it never exceeds what a worker may report.
        let identities = self.places.get(&key).map_or(&[][..], |held| &held.entry.identities);
        let elsewhere = self.others.twins(identities).map(|(_, twin)| twin.epoch).max().unwrap_or_default();
        let claimed = elsewhere.max(self.workers.claimed(identities)).min(CLAIMED_EPOCH);
        let epoch = if claimed < self.epoch { self.epoch } else { claimed.saturating_add(self.epoch) };
        let Some((held, worker)) = self.places.get_mut(&key).zip(self.workers.get(call)) else { return };
        held.state = State::Offered { call, epoch, until: now + OFFER_TIMEOUT };
        held.by_descriptor = held.entry.way_to(worker.same_host) == Some(true);
        let own = held.entry.identities.get(..1).unwrap_or_default();
        let before = self.workers.holder(own, held.entry.stream_id.as_str()).filter(|(holder, _)| *holder == call);
        held.returns_to = before.map(|(_, session)| session.stream_id.clone());
        held.takes_lists = worker.takes_lists;
        held.offered_to.insert(call, epoch);
        self.revision += 1;
        self.queue.remove(&(!held.front, key));
        self.bound.remove(&key);
        let stream_id = held.entry.stream_id.0.clone();
        // The fence goes before the offer: an upstream that takes one publisher per name is to be free by the time that the next worker asks.
        if held.front {
            let others = self.workers.serving(&stream_id).map(|(other, ..)| other).filter(|other| *other != call);
            self.outputs.extend(others.map(|other| Output::Fence(other, stream_id.clone(), epoch)));
        }
        self.outputs.push_back(Output::Offer {
            key,
            call,
            worker: worker.name.clone(),
            stream_id: stream_id.clone(),
            epoch,
            descriptor: held.by_descriptor,
            known,
        });
        self.workers.reserve(call, &stream_id, key, true);
        self.arm(key);
    }

    /// The number of streams in the queue that only workers on this host can take.
    fn bound_to_this_host(&self) -> usize {
        self.queue.iter().filter(|(_, key)| self.places.get(key).is_some_and(|held| !held.fits(false))).count()
    }

    /// The streams that wait and for which no registered worker has a place: what the process fleet starts workers for.
    pub(crate) fn shortage(&self, now: Instant) -> usize {
        let room = |same_host| {
            let workers = self.workers.iter().filter(|(_, worker)| worker.same_host == same_host);
            workers.map(|(_, worker)| worker.room(now)).sum::<usize>()
        };
        let (here, elsewhere) = (room(true), room(false));
        // Counted only when it matters: the queue may be long while workers elsewhere are full.
        let elsewhere = match elsewhere {
            0 => 0,
            room => room.min(self.queue.len() - self.bound_to_this_host()),
        };
        self.queue.len().saturating_sub(here + elsewhere)
    }

    /// The free places of each worker, as if it were not cordoned, for the demand of all activators. Places elsewhere count for none while
    /// a stream waits here that cannot go there: they are one number for all streams, and it would seem to have a place.
    pub(super) fn rooms(&self, now: Instant) -> impl Iterator<Item = (&Worker, usize)> {
        let only_here = self.bound_to_this_host() > 0;
        let room = move |worker: &Worker| if only_here && !worker.same_host { 0 } else { worker.room_if_open(now) };
        self.workers.iter().map(move |(_, worker)| (worker, room(worker)))
    }
}

impl PublisherRecord {
    /// Tells whether a worker can get the stream.
    fn fits(&self, same_host: bool) -> bool {
        self.entry.way_to(same_host).is_some()
    }
}

impl Workers {
    /// The busiest worker that has a free place and passes `fits`; of equals the one that has been there longest.
    pub(super) fn busiest(&self, now: Instant, fits: impl Fn(CallId, &Worker) -> bool) -> Option<CallId> {
        let free = self.iter().filter(|(_, worker)| worker.room(now) > 0 && worker.can_be_offered(now));
        let fitting = free.filter(|(call, worker)| fits(*call, worker));
        fitting.max_by_key(|(call, worker)| rank(worker.streams(), *call)).map(|(call, _)| call)
    }
}

/// The order in which workers with room are filled: the greatest rank is filled first. `arrival`: less for a worker that has been there for longer.
pub(crate) fn rank<A: Ord>(streams: usize, arrival: A) -> (usize, std::cmp::Reverse<A>) {
    (streams, std::cmp::Reverse(arrival))
}

impl Worker {
    /// The free places of a worker that takes streams.
    pub(super) fn room(&self, now: Instant) -> usize {
        if self.is_cordoned() { 0 } else { self.room_if_open(now) }
    }

    /// The free places, as if the worker were not cordoned.
    pub(super) fn room_if_open(&self, now: Instant) -> usize {
        let capacity = usize::try_from(self.capacity).unwrap_or(usize::MAX);
        if self.is_usable(now) { capacity.saturating_sub(self.streams()) } else { 0 }
    }

    /// Tells whether the worker can be made an offer, whatever its load.
    fn can_be_offered(&self, now: Instant) -> bool {
        !self.is_cordoned() && self.can_be_given_back(now)
    }

    /// Tells whether a stream that the worker has can be offered to it again: a cordoned worker takes that too.
    fn can_be_given_back(&self, now: Instant) -> bool {
        self.is_usable(now) && self.offers.len() < MAX_OFFERS
    }

    /// Tells whether the worker answers and is not about to go.
    fn is_usable(&self, now: Instant) -> bool {
        !self.is_draining() && !self.is_suspect() && !self.is_avoided(now)
    }
}

fn second_own(places: &BTreeMap<Key, PublisherRecord>, second: Key) -> Option<&Identity> {
    places.get(&second).and_then(|held| held.entry.identities.first())
}
