//! Changes of the API to streams whose publishers are lost. In: the destinations of a stream whose publisher's connection broke. Out: the same,
//! for the publisher's next stay, as long as its grace time runs. Pure.
//!
//! Note: nothing is kept for a publisher that said goodbye or was ended: its stream is over, and a change ends with the stream.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use liveedgecast_common::key::Identity;

use crate::destinations::StreamDestinations;

/// Destinations that wait for their publisher.
#[derive(Debug)]
struct KeptDestinations {
    /// The id of the stay that ended.
    stream_id: String,
    destinations: StreamDestinations,
    until: Instant,
}

/// The destinations of lost publishers, by the stream's own identity. Of each stream there is one, and none without a change by the API.
#[derive(Debug, Default)]
pub(super) struct KeptChanges(HashMap<Identity, KeptDestinations>);

impl KeptChanges {
    /// Keeps the destinations of a lost publisher for the grace time; those that nothing has changed, and those of a time that is over, are not kept.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        own: Identity,
        stream_id: &str,
        destinations: &StreamDestinations,
        grace: Duration,
    ) {
        self.0.retain(|_, kept| now < kept.until);
        self.0.remove(&own);
        if destinations.is_changed() && !grace.is_zero() {
            let (stream_id, destinations) = (stream_id.to_owned(), destinations.clone());
            self.0.insert(own, KeptDestinations { stream_id, destinations, until: now + grace });
        }
    }

    /// The destinations of a stream's last stay.
    pub(super) fn get(&self, now: Instant, own: &Identity) -> Option<&StreamDestinations> {
        self.0.get(own).filter(|kept| now < kept.until).map(|kept| &kept.destinations)
    }

    /// Forgets the destinations of a stream that has ended, by its own identity.
    pub(super) fn forget(&mut self, own: &Identity) {
        self.0.remove(own);
    }

    /// Forgets the destinations of a stay whose stream has ended.
    pub(super) fn ended(&mut self, stream_id: &str) {
        if !self.0.is_empty() {
            self.0.retain(|_, kept| kept.stream_id != stream_id);
        }
    }
}
