//! A question of an activator for the messages that a worker keeps of a stream, and the pieces of the answer. In: [`super::wire`] messages. Out: types of
//! this domain, bounded; and the way back. Next: on a worker `register`, on an activator `lobby`.
//!
//! Pieces travel on the worker's call, between its reports. So that those do not wait for a whole file, no more than [`WINDOW`] pieces are on their
//! way: the activator asks for each further one when it has taken one.

use bytes::Bytes;

use super::limits::{MAX_PIECE, MAX_TEXT};
use super::session::is_stream_id;
use super::wire;

/// Pieces that a worker sends before it is asked for more.
pub const WINDOW: usize = 4;

/// A question for an excerpt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExcerptOrder {
    /// Number of the question, unique in its call.
    pub number: u64,
    /// Id of the stream.
    pub stream_id: String,
    /// The part of what is kept that is asked for.
    pub part: ExcerptPart,
}

/// The part of what a worker keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ExcerptPart {
    /// As much as there is, from a keyframe on.
    #[default]
    All,
    /// The stream's last keyframe, with its headers.
    LastKeyframe,
    /// The last keyframe that the destination of this name has been sent whole, with its headers.
    SentKeyframe(String),
}

/// A piece of an excerpt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcerptPiece {
    /// Number of the question.
    pub number: u64,
    /// The bytes, or the reason for which there are none.
    pub bytes: Result<Bytes, ExcerptRefusal>,
    /// No more pieces follow.
    pub last: bool,
}

/// The reason for which a worker gives no excerpt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExcerptRefusal {
    /// The worker makes another excerpt.
    #[error("the worker makes another excerpt: ask again in a second")]
    Busy,
    /// The worker does not have the stream.
    #[error("the worker does not have the stream any more")]
    StreamUnknown,
    /// No keyframe is kept.
    #[error("no keyframe of the stream is kept at the moment: ask again in a second or two")]
    NoKeyframe,
    /// The stream has no video.
    #[error("the stream has sent no video")]
    NoVideo,
    /// The stream has no such destination.
    #[error("the stream has no destination of this name")]
    DestinationUnknown,
    /// The destination has been sent no keyframe.
    #[error("the destination has been sent no keyframe yet")]
    NeverSent,
    /// The destination has been sent keyframes, and none of them is kept.
    #[error("the last keyframe that the destination was sent is older than what is kept of the stream")]
    NotKept,
}

impl ExcerptOrder {
    /// `None`: the id is none of a stream, or the name of the destination is too long.
    pub(super) fn parse(order: wire::Excerpt) -> Option<Self> {
        let wire::Excerpt { number, stream_id, last_keyframe, destination } = order;
        if !is_stream_id(&stream_id) || destination.len() > MAX_TEXT {
            return None;
        }
        let part = match (last_keyframe, destination.is_empty()) {
            (_, false) => ExcerptPart::SentKeyframe(destination),
            (true, true) => ExcerptPart::LastKeyframe,
            (false, true) => ExcerptPart::All,
        };
        Some(Self { number, stream_id, part })
    }
}

impl From<ExcerptOrder> for wire::Excerpt {
    fn from(ExcerptOrder { number, stream_id, part }: ExcerptOrder) -> Self {
        let last_keyframe = part != ExcerptPart::All;
        let destination = if let ExcerptPart::SentKeyframe(name) = part { name } else { String::new() };
        Self { number, stream_id, last_keyframe, destination }
    }
}

impl ExcerptPiece {
    /// `None`: the piece is longer than any that a worker sends.
    pub(super) fn parse(piece: wire::ExcerptPiece) -> Option<Self> {
        let refusal = match piece.refusal() {
            wire::excerpt_piece::Refusal::None => None,
            wire::excerpt_piece::Refusal::Busy => Some(ExcerptRefusal::Busy),
            wire::excerpt_piece::Refusal::StreamUnknown => Some(ExcerptRefusal::StreamUnknown),
            wire::excerpt_piece::Refusal::NoKeyframe => Some(ExcerptRefusal::NoKeyframe),
            wire::excerpt_piece::Refusal::NoVideo => Some(ExcerptRefusal::NoVideo),
            wire::excerpt_piece::Refusal::DestinationUnknown => Some(ExcerptRefusal::DestinationUnknown),
            wire::excerpt_piece::Refusal::NeverSent => Some(ExcerptRefusal::NeverSent),
            wire::excerpt_piece::Refusal::NotKept => Some(ExcerptRefusal::NotKept),
        };
        let wire::ExcerptPiece { number, bytes, last, .. } = piece;
        if bytes.len() > MAX_PIECE {
            return None;
        }
        let bytes = refusal.map_or_else(|| Ok(Bytes::from(bytes)), Err);
        Some(Self { number, last: last || bytes.is_err(), bytes })
    }
}

impl From<ExcerptPiece> for wire::ExcerptPiece {
    fn from(ExcerptPiece { number, bytes, last }: ExcerptPiece) -> Self {
        let refusal = match &bytes {
            Ok(_) => wire::excerpt_piece::Refusal::None,
            Err(ExcerptRefusal::Busy) => wire::excerpt_piece::Refusal::Busy,
            Err(ExcerptRefusal::StreamUnknown) => wire::excerpt_piece::Refusal::StreamUnknown,
            Err(ExcerptRefusal::NoKeyframe) => wire::excerpt_piece::Refusal::NoKeyframe,
            Err(ExcerptRefusal::NoVideo) => wire::excerpt_piece::Refusal::NoVideo,
            Err(ExcerptRefusal::DestinationUnknown) => wire::excerpt_piece::Refusal::DestinationUnknown,
            Err(ExcerptRefusal::NeverSent) => wire::excerpt_piece::Refusal::NeverSent,
            Err(ExcerptRefusal::NotKept) => wire::excerpt_piece::Refusal::NotKept,
        };
        Self { number, bytes: bytes.map(Vec::from).unwrap_or_default(), last, refusal: refusal.into() }
    }
}
