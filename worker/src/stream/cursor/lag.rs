//! The part of a cursor that tells how far it is behind.

use std::time::{Duration, Instant};

use super::Cursor;
use crate::stream::index::Index;

impl Cursor {
    /// Age of the oldest message that is to be written; zero if there is none, or no session to write it to.
    #[must_use]
    pub fn lag(&self, now: Instant, index: &Index) -> Duration {
        let session = self.session.as_ref().filter(|session| session.flowing);
        let oldest = session.and_then(|session| index.entry(session.first_unwritten()));
        oldest.map(|entry| now.saturating_duration_since(entry.arrived)).unwrap_or_default()
    }
}
