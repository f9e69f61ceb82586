//! Publishers that other activators hold, as far as they matter here: those that wait with the same identity, and those whose worker is
//! known. In: reports of peers. Out: the twins of an identity. Pure.
//!
//! Of two that wait with one identity at two activators the earlier wins, ties by the activator's name. Both sides compare the same two
//! numbers (wall clocks, as told), so they agree even if their clocks do not. The later one is refused only after a moment, because
//! the earlier one may have been silent for long: only its own activator knows that, and refuses it then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use liveedgecast_common::key::Identity;

/// How long the later of two waits for the earlier one's activator to give up a silent publisher.
pub(super) const YIELD_AFTER: Duration = Duration::from_secs(1);

/// A publisher of another activator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// The stream's own identity, then those of its upstreams that take no `{key}`.
    pub identities: Vec<Identity>,
    /// The app that the publisher named.
    pub app: String,
    /// The time at which the publisher came: microseconds since 1970, by that activator's clock.
    pub entered: u64,
    /// The publisher waits for a worker, an open offer included.
    pub waiting: bool,
    /// The publisher waits and needs no capacity: an offer is open, or a worker has its identity.
    pub provided: bool,
    /// The worker that was offered the stream, or has it; empty for none.
    pub worker: String,
    /// The number of that claim.
    pub epoch: u64,
    /// The stream as it is shown.
    pub stream: PeerStream,
}

/// The stream of a publisher elsewhere as it is shown; of an activator of an earlier release nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStream {
    /// Id of the stream; empty: not known.
    pub id: String,
    /// The publisher's name in the configuration file; empty for none.
    pub publisher: String,
    /// The address of the publisher.
    pub client: Option<SocketAddr>,
}

impl Elsewhere {
    /// Bytes of memory that this takes, about.
    pub(crate) fn bytes(&self) -> usize {
        // An entry's share of a tree's node, and what the allocator adds.
        const ENTRY: usize = 64;
        let texts = self.app.len() + self.worker.len() + 2 * self.stream.id.len() + self.stream.publisher.len();
        size_of::<Self>() + 2 * ENTRY + self.identities.len() * size_of::<Identity>() + texts
    }
}

/// This activator, as the others know it.
#[derive(Clone, Debug)]
pub struct Ourselves {
    /// Name, unique among activators.
    pub name: String,
    /// A moment, and its microseconds since 1970, which convert all others.
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

/// The publishers of all other activators.
#[derive(Debug, Default)]
pub(super) struct Others {
    held: BTreeMap<Number, Elsewhere>,
    by_identity: HashMap<Identity, BTreeSet<Number>>,
    /// The newest publisher of each stream.
    by_stream: BTreeMap<String, Number>,
}

impl Others {
    /// Stores a publisher, or removes it. Returns the identities for which something may be different now.
    pub(super) fn set(&mut self, peer: &str, number: u64, held: Option<Elsewhere>) -> BTreeSet<Identity> {
        let number = (peer.to_owned(), number);
        let mut affected = self.remove(&number);
        if let Some(held) = held {
            for identity in &held.identities {
                self.by_identity.entry(*identity).or_default().insert(number.clone());
                affected.insert(*identity);
            }
            if !held.stream.id.is_empty() {
                self.by_stream.insert(held.stream.id.clone(), number.clone());
            }
            self.held.insert(number, held);
        }
        affected
    }

    /// Removes all publishers of a peer. Returns their identities.
    pub(super) fn forget(&mut self, peer: &str) -> BTreeSet<Identity> {
        let from = (peer.to_owned(), 0);
        let theirs: Vec<Number> =
            self.held.range(from..).map(|(number, _)| number.clone()).take_while(|(name, _)| name == peer).collect();
        theirs.iter().flat_map(|number| self.remove(number)).collect()
    }

    /// The publishers elsewhere with one of these identities, each with the name of its activator.
    pub(super) fn twins(&self, identities: &[Identity]) -> impl Iterator<Item = (&str, &Elsewhere)> {
        let numbers: BTreeSet<&Number> =
            identities.iter().filter_map(|identity| self.by_identity.get(identity)).flatten().collect();
        numbers.into_iter().filter_map(|number| Some((number.0.as_str(), self.held.get(number)?)))
    }

    /// The publisher elsewhere of the stream with this id, and the name of its activator.
    pub(super) fn holder(&self, stream_id: &str) -> Option<(&str, &Elsewhere)> {
        let number = self.by_stream.get(stream_id)?;
        Some((number.0.as_str(), self.held.get(number)?))
    }

    /// Every publisher elsewhere whose stream is known.
    pub(super) fn streams(&self) -> impl Iterator<Item = &Elsewhere> {
        self.by_stream.values().filter_map(|number| self.held.get(number))
    }

    fn remove(&mut self, number: &Number) -> BTreeSet<Identity> {
        let Some(held) = self.held.remove(number) else { return BTreeSet::new() };
        if self.by_stream.get(&held.stream.id) == Some(number) {
            self.by_stream.remove(&held.stream.id);
        }
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
