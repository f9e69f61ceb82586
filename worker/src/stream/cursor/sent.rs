//! The part of a cursor that tells which keyframe its upstream has been sent last.

use super::Cursor;
use crate::stream::index::Index;

/// The last keyframe that an upstream has been sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentKeyframe {
    /// The message of this number, which the index has.
    Kept(u64),
    /// A message that the index does not have any more.
    NotKept,
    /// None yet.
    Never,
}

impl Cursor {
    /// The last keyframe that the upstream has been sent. While the upstream is away, what its last session had not acknowledged counts as not sent.
    #[must_use]
    pub fn sent_keyframe(&self, index: &Index) -> SentKeyframe {
        let below = self.ledger.settled().max(self.session.as_ref().map_or(0, |session| session.passed));
        let mut joins = std::iter::successors(index.join_before(below), |join| index.join_before(*join));
        match joins.find(|join| self.ledger.has_delivered(*join)) {
            Some(number) => SentKeyframe::Kept(number),
            None if self.ledger.delivered() > 0 && index.front() > self.ledger.first() => SentKeyframe::NotKept,
            None => SentKeyframe::Never,
        }
    }
}
