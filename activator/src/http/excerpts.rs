//! The last seconds of a stream, its last keyframe, and the last keyframe that a destination has been sent, as FLV files. In: requests that have the right to read. Out:
//! answers. The files come through `lobby`, from the worker that has the stream, or are made of what this process keeps.

use liveedgecast_common::control::ExcerptRefusal;
use liveedgecast_common::control::limits::MAX_TEXT;
use liveedgecast_common::http::{Answer, Request};
use tokio::sync::Semaphore;

use super::HttpContext;
use super::problem::ApiProblem;
use crate::dispatch::Holder;
use crate::excerpt::{ExcerptError, Extent};
use crate::lobby::Unexcerpted;

/// Files that are made at once: each may need some 30 MiB and some milliseconds of a processor.
const AT_ONCE: usize = 2;

/// The turns of those files.
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The file that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A file of the stream, whatever its destinations have been sent.
    OfStream(Extent),
    /// The last keyframe that the destination in the path has been sent.
    OfDestination,
}

/// The file of the stream that the path names.
pub(super) async fn answer(shown: &HttpContext, request: &Request, kind: FileKind) -> Result<Answer, ApiProblem> {
    let stream_id = request.captures.first().map(String::as_str).unwrap_or_default();
    let destination = request.captures.get(1).map(String::as_str).unwrap_or_default();
    let holder = shown.views.holder(stream_id).ok_or(ApiProblem::StreamUnknown)?;
    // No worker takes a question for a longer name.
    if destination.len() > MAX_TEXT {
        return Err(ApiProblem::DestinationUnknown);
    }
    let Ok(_turn) = TURNS.try_acquire() else {
        return Err(not_now("other excerpts are being made: ask again in a second"));
    };
    let made = match kind {
        FileKind::OfStream(extent) => shown.views.excerpt(stream_id, extent).await,
        FileKind::OfDestination => shown.views.sent_keyframe(stream_id, destination).await,
    };
    let why = match made {
        Ok(file) => return Ok(Answer::typed("video/x-flv", file)),
        Err(why) => why,
    };
    Err(match (&why, holder) {
        (Unexcerpted::Refused(ExcerptRefusal::DestinationUnknown), _) => ApiProblem::DestinationUnknown,
        (Unexcerpted::Refused(ExcerptRefusal::NoVideo), _) | (Unexcerpted::Kept(ExcerptError::NoVideo), _) => {
            ApiProblem::ExcerptNone(why.to_string())
        }
        (Unexcerpted::Refused(ExcerptRefusal::NeverSent | ExcerptRefusal::NotKept), _) => {
            ApiProblem::ExcerptNone(why.to_string())
        }
        (Unexcerpted::Unable | Unexcerpted::Nothing, Holder::Peer(peer)) => ApiProblem::ExcerptElsewhere(format!(
            "the publisher is at the activator {peer}, and the worker of the stream cannot be asked from here: ask that one"
        )),
        (Unexcerpted::Nothing, Holder::Here) => not_now("nothing is kept of the stream before a worker has it"),
        (Unexcerpted::Nothing, Holder::Worker(_)) => not_now("the publisher is lost, and its bytes with it"),
        (Unexcerpted::Kept(ExcerptError::Memory(_)), _) => not_now("the stream's bytes cannot be read"),
        _ => not_now(&why.to_string()),
    })
}

fn not_now(why: &str) -> ApiProblem {
    ApiProblem::ExcerptNotNow(why.to_owned())
}
