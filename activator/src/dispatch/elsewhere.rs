//! Publishers that other activators hold, as far as they matter to ours: who waits with the same identity, and whose worker is known.
//! In: what peers tell. Out: the twins of an identity. Pure.
//!
//! Of two that wait with one identity at two activators the earlier wins, ties by the activator's name. Both sides compare the same two
//! numbers (wall clocks, as told), so they agree even if their clocks do not. The later one is refused only after a moment, because
//! the earlier one may have been silent for long: that only its own activator knows, and then it is the one to go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use liveedgecast_common::key::Identity;

/// How long the later of two waits for the earlier one's activator to give up a silent publisher.
pub(super) const YIELD_AFTER: Duration = Duration::from_secs(1);

/// A publisher of another activator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Who it is.
    pub identities: Vec<Identity>,
    /// The app it publishes to.
    pub app: String,
    /// When it came: microseconds since 1970 by that activator's clock.
    pub entered: u64,
    /// Whether it waits for a worker, an offer on its way included.
    pub waiting: bool,
    /// It waits and needs no capacity: an offer is on its way, or a worker has its identity.
    pub provided: bool,
    /// The worker that it is offered to, or that has it; empty for none.
    pub worker: String,
    /// The claim.
    pub epoch: u64,
}

impl Elsewhere {
    /// About as many as it takes.
    pub(crate) fn bytes(&self) -> usize {
        // An entry's share of a tree's node, and what the allocator adds.
        const ENTRY: usize = 64;
        size_of::<Self>() + ENTRY + self.identities.len() * size_of::<Identity>() + self.app.len() + self.worker.len()
    }
}

/// Who we are among activators.
#[derive(Clone, Debug)]
pub struct Ourselves {
    /// Our name, unique among activators.
    pub name: String,
    /// A moment, and its microseconds since 1970.
    pub origin: (Instant, u64),
}

impl Ourselves {
    /// Microseconds since 1970.
    pub(super) fn wall(&self, at: Instant) -> u64 {
        let (origin, micros) = self.origin;
        let since = at.saturating_duration_since(origin).as_micros();
        micros.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

type Number = (String, u64);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Others {
    held: BTreeMap<Number, Elsewhere>,
    by_identity: HashMap<Identity, BTreeSet<Number>>,
}

impl Others {
    /// Notes one, or that it is gone; gives the identities for which something may be different now.
    pub(super) fn set(&mut self, peer: &str, number: u64, held: Option<Elsewhere>) -> BTreeSet<Identity> {
        let number = (peer.to_owned(), number);
        let mut affected = self.remove(&number);
        if let Some(held) = held {
            for identity in &held.identities {
                self.by_identity.entry(*identity).or_default().insert(number.clone());
                affected.insert(*identity);
            }
            self.held.insert(number, held);
        }
        affected
    }

    /// Forgets all of a peer.
    pub(super) fn forget(&mut self, peer: &str) -> BTreeSet<Identity> {
        let from = (peer.to_owned(), 0);
        let theirs: Vec<Number> =
            self.held.range(from..).map(|(number, _)| number.clone()).take_while(|(name, _)| name == peer).collect();
        theirs.iter().flat_map(|number| self.remove(number)).collect()
    }

    /// Who has one of these identities, and with which activator.
    pub(super) fn twins(&self, identities: &[Identity]) -> impl Iterator<Item = (&str, &Elsewhere)> {
        let numbers: BTreeSet<&Number> =
            identities.iter().filter_map(|identity| self.by_identity.get(identity)).flatten().collect();
        numbers.into_iter().filter_map(|number| Some((number.0.as_str(), self.held.get(number)?)))
    }

    fn remove(&mut self, number: &Number) -> BTreeSet<Identity> {
        let Some(held) = self.held.remove(number) else { return BTreeSet::new() };
        for identity in &held.identities {
            if let Some(numbers) = self.by_identity.get_mut(identity) {
                numbers.remove(number);
                if numbers.is_empty() {
                    self.by_identity.remove(identity);
                }
            }
        }
        held.identities.into_iter().collect()
    }
}
