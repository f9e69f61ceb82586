//! Takes an aggregate message (type 22) apart. In: its whole payload. Out: the audio, video and data messages in it, with the range of
//! their payloads. Flash Media Server and Wowza relays send these; we never do.
//!
//! Note: the timestamps inside are the sender's own; only their differences count, and the first message gets the aggregate's timestamp
//! (RTMP 1.0, 7.1.6). The size behind each message serves readers that go backwards; some senders write 0, so it is ignored.

use std::ops::Range;

use super::limits::MAX_AGGREGATE_MESSAGES;
use super::{MessageHeader, type_id};

/// FLV tag header: type, three bytes of length, timestamp with its highest byte last, stream id.
const TAG_HEADER: usize = 11;
/// Size of the tag before, behind every tag.
const BACK_POINTER: usize = 4;

/// A message of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubMessage {
    /// Header of the message: chunk stream and message stream are the aggregate's; the timestamp is rebased.
    pub header: MessageHeader,
    /// Range of its payload in the aggregate's.
    pub payload: Range<usize>,
}

/// The peer's aggregate cannot be parsed from here on; the messages before are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// Aggregate that ends inside a message.
    #[error("aggregate message is cut short")]
    Truncated,
    /// Aggregate in an aggregate, which no server needs and which would recurse.
    #[error("aggregate message inside an aggregate message")]
    Nested,
    /// More than [`MAX_AGGREGATE_MESSAGES`].
    #[error("more than {MAX_AGGREGATE_MESSAGES} messages in one aggregate")]
    TooMany,
}

/// The messages of an aggregate, in their order. After an error nothing more comes.
#[must_use]
pub fn split<'a>(header: &MessageHeader, payload: &'a [u8]) -> Split<'a> {
    Split { header: *header, payload, at: 0, first: None, left: MAX_AGGREGATE_MESSAGES, failed: false }
}

/// See [`split`].
#[derive(Clone, Debug)]
pub struct Split<'a> {
    header: MessageHeader,
    payload: &'a [u8],
    at: usize,
    /// Timestamp of the first message, by its sender's clock.
    first: Option<u32>,
    left: usize,
    failed: bool,
}

impl Split<'_> {
    fn message(&mut self) -> Result<SubMessage, AggregateError> {
        self.left = self.left.checked_sub(1).ok_or(AggregateError::TooMany)?;
        let tag = self.payload[self.at..].first_chunk::<TAG_HEADER>().ok_or(AggregateError::Truncated)?;
        let &[type_id, l2, l1, l0, t2, t1, t0, t3, ..] = tag;
        if type_id == type_id::AGGREGATE {
            return Err(AggregateError::Nested);
        }
        let length = u32::from_be_bytes([0, l2, l1, l0]);
        let theirs = u32::from_be_bytes([t3, t2, t1, t0]);
        let from = self.at + TAG_HEADER;
        let to = from + length as usize;
        if to > self.payload.len() {
            return Err(AggregateError::Truncated);
        }
        // Some senders leave out the last back pointer.
        self.at = self.payload.len().min(to + BACK_POINTER);
        let since_first = theirs.wrapping_sub(*self.first.get_or_insert(theirs));
        let timestamp = self.header.timestamp.wrapping_add(since_first);
        Ok(SubMessage { header: MessageHeader { timestamp, length, type_id, ..self.header }, payload: from..to })
    }
}

impl Iterator for Split<'_> {
    type Item = Result<SubMessage, AggregateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at >= self.payload.len() {
            return None;
        }
        let message = self.message();
        self.failed = message.is_err();
        Some(message)
    }
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
