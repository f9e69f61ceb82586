//! The facts that one peer has told of itself. In: its messages, read and bounded one by one. Out: its view of the demand, bounded as a
//! whole. Pure. Next: `machine`, which adds the views up.

use std::collections::BTreeMap;

use super::limits::{MAX_FACTS, MAX_HELD, MAX_WORKERS};
use crate::dispatch::{Elsewhere, PeerChange, Tally, WorkerTally};

/// A message of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerMessage {
    /// The first message of a call.
    Welcome(PeerWelcome),
    /// The present state of a publisher or a worker.
    Change(PeerChange),
    /// Ability to act for all on the Kubernetes API; a peer that never announces it cannot act.
    Acts(bool),
    /// End of the facts that were there at the beginning.
    Synced,
    /// The peer leaves on purpose: its facts are forgotten at once.
    Goodbye,
}

/// A peer, by its own word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerWelcome {
    /// Name of the activator.
    pub(super) name: String,
    /// Control port at which the peer alone is found; 0 for the dialed port.
    pub(super) control_port: u16,
    /// Start of the process, in microseconds since 1970 by its clock.
    pub(super) started: u64,
}

/// Publishers and workers of one peer, by its own messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PeerFacts {
    held: BTreeMap<u64, Elsewhere>,
    workers: BTreeMap<String, WorkerTally>,
    /// Ability to act for all on the Kubernetes API.
    pub(super) acts: bool,
    /// Approximate memory of the facts, in bytes.
    pub(super) bytes: usize,
}

impl PeerFacts {
    /// Notes a change, and returns it if it concerns a publisher, for the lobby. Changes beyond a bound or the remaining `room` in bytes are
    /// dropped: a peer that knows the secret may be broken all the same.
    pub(super) fn take(&mut self, change: PeerChange, room: usize) -> Option<(u64, Option<Elsewhere>)> {
        match change {
            PeerChange::Held(number, held) => {
                let last = self.held.get(&number);
                let fits = last.is_some() || self.held.len() < MAX_HELD;
                let (less, more) = (last.map_or(0, Elsewhere::bytes), held.bytes());
                self.grow(less, more, room).filter(|()| fits)?;
                self.held.insert(number, held.clone());
                Some((number, Some(held)))
            }
            PeerChange::Gone(number) => {
                self.bytes = self.bytes.saturating_sub(self.held.remove(&number)?.bytes());
                Some((number, None))
            }
            PeerChange::Worker(name, tally) => {
                let last = self.workers.get(&name);
                let fits = last.is_some() || self.workers.len() < MAX_WORKERS;
                let (less, more) = (last.map_or(0, WorkerTally::bytes), tally.bytes());
                self.grow(less, more, room).filter(|()| fits)?;
                self.workers.insert(name, tally);
                None
            }
            PeerChange::WorkerGone(name) => {
                self.bytes = self.bytes.saturating_sub(self.workers.remove(&name)?.bytes());
                None
            }
        }
    }

    /// Publishers that have a place there, with their numbers.
    pub(super) fn held(&self) -> impl Iterator<Item = (u64, &Elsewhere)> {
        self.held.iter().map(|(number, held)| (*number, held))
    }

    /// Names of its workers that are not about to go.
    pub(super) fn staying_workers(&self) -> impl Iterator<Item = &str> {
        self.workers.iter().filter(|(_, worker)| !worker.draining).map(|(name, _)| name.as_str())
    }

    /// Publishers and workers that are noted.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.held.len(), self.workers.len())
    }

    /// The peer's view of the demand.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally { workers: self.workers.clone(), ..Tally::default() };
        for held in self.held.values() {
            if held.waiting {
                *tally.waiting.entry(held.app.clone()).or_default() += 1;
                tally.provided += usize::from(held.provided);
            } else if held.worker.is_empty() {
                *tally.loose.entry(held.app.clone()).or_default() += 1;
            } else {
                *tally.placed.entry(held.worker.clone()).or_default().entry(held.app.clone()).or_default() += 1;
            }
        }
        tally
    }

    /// Notes that a fact takes `more` bytes after `less` before; `None` when the room does not suffice.
    fn grow(&mut self, less: usize, more: usize, room: usize) -> Option<()> {
        let others = self.bytes.saturating_sub(less);
        if more > less && (others + more > MAX_FACTS || more - less > room) {
            return None;
        }
        self.bytes = others + more;
        Some(())
    }
}
