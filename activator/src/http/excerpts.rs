//! The last seconds of a stream, and its last keyframe, as FLV files. In: requests that have the right to read. Out: answers. The bytes come from the task
//! of the stream's publisher, and are made a file on a thread that serves no stream.
#![expect(clippy::disallowed_methods, reason = "shell: a thread for a copy, and its deadline")]

use std::time::Duration;

use liveedgecast_common::http::{Answer, Request};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::HttpContext;
use super::problem::ApiProblem;
use crate::dispatch::Holder;
use crate::excerpt::{self, ExcerptError, Extent};

/// Files that are made at once: each may need some 30 MiB and some milliseconds of a processor.
const AT_ONCE: usize = 2;
/// Time in which the task of a publisher answers: it has nothing to wait for.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// The turns of those files.
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The excerpt of the stream that the path names.
pub(super) async fn answer(shown: &HttpContext, request: &Request, extent: Extent) -> Result<Answer, ApiProblem> {
    let stream_id = request.captures.first().map(String::as_str).unwrap_or_default();
    match shown.views.holder(stream_id) {
        None => return Err(ApiProblem::StreamUnknown),
        Some(Holder::Here) => {}
        Some(Holder::Peer(peer)) => {
            let why = format!("the publisher is at the activator {peer}, which keeps the stream's bytes: ask that one");
            return Err(ApiProblem::ExcerptElsewhere(why));
        }
        Some(Holder::Worker(_)) => return Err(not_now("the publisher is lost, and its bytes with it")),
    }
    let Ok(_turn) = TURNS.try_acquire() else {
        return Err(not_now("other excerpts are being made: ask again in a second"));
    };
    let asked = shown.views.kept(stream_id).ok_or(ApiProblem::StreamUnknown)?;
    let Ok(Ok(kept)) = timeout(ANSWER_TIME, asked).await else {
        return Err(not_now("nothing is kept of the stream before a worker has it"));
    };
    let made = spawn_blocking(move || excerpt::read(&kept, extent)).await;
    match made {
        Ok(Ok(file)) => Ok(Answer::typed("video/x-flv", file)),
        Ok(Err(error @ (ExcerptError::NoKeyframe | ExcerptError::MovedOn))) => Err(not_now(&error.to_string())),
        Ok(Err(ExcerptError::Memory(_))) | Err(_) => Err(not_now("the stream's bytes cannot be read")),
    }
}

fn not_now(why: &str) -> ApiProblem {
    ApiProblem::ExcerptNotNow(why.to_owned())
}
