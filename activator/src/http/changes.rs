//! Changes of streams. In: requests that have the right, and those that other activators pass on. Out: answers; orders to the lobby. A change of a
//! stream whose publisher another activator holds is passed on to that activator, which answers.

use std::net::IpAddr;
use std::sync::Arc;

use liveedgecast_common::event;
use liveedgecast_common::http::{Answer, Request, StatusCode};
use liveedgecast_common::key::LogSafe;
use serde::{Deserialize, Serialize};

use super::HttpContext;
use super::problem::ApiProblem;
use crate::dispatch::Holder;
use crate::lobby::Views;
use crate::peers::{ForwardedAnswer, ForwardedRequest, RequestHandler};

/// The reason of a kick that names none.
const KICKED: &str = "kicked over HTTP";

/// A change that the API can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamAction {
    /// The stream ends.
    Kick,
}

impl StreamAction {
    /// Every action.
    const ALL: [Self; 1] = [Self::Kick];

    /// The word between activators.
    fn as_str(self) -> &'static str {
        match self {
            Self::Kick => "kick",
        }
    }
}

/// The handles that a change of a stream needs.
#[derive(Clone)]
pub struct StreamChanges {
    /// Streams.
    pub views: Views,
}

/// A change of one stream, as it was asked for.
struct StreamChange<'a> {
    action: StreamAction,
    stream_id: &'a str,
    body: &'a [u8],
    client: IpAddr,
}

/// Carries out a change, here or at the activator that holds the publisher.
pub(super) async fn carry_out(
    shown: HttpContext,
    request: Request,
    action: StreamAction,
) -> Result<Answer, ApiProblem> {
    let stream_id = request.captures.first().map(String::as_str).unwrap_or_default();
    let change = StreamChange { action, stream_id, body: &request.body, client: request.peer };
    let Some(Holder::Peer(peer)) = shown.changes.views.holder(stream_id) else { return here(&shown.changes, &change) };
    let body = std::str::from_utf8(&request.body).map_err(|_| malformed("the body is not UTF-8"))?;
    let passed_on = ForwardedRequest {
        action: action.as_str().to_owned(),
        stream_id: stream_id.to_owned(),
        destination: request.captures.get(1).cloned().unwrap_or_default(),
        body: body.to_owned(),
        client: request.peer,
    };
    match shown.courier.ask(&peer, &passed_on).await {
        Ok(ForwardedAnswer { status, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            Ok(Answer::of_json(status, body))
        }
        // The worker that has the stream may be within reach.
        Err(_) if action == StreamAction::Kick && shown.changes.views.is_served(stream_id) => {
            here(&shown.changes, &change)
        }
        Err(error) => Err(ApiProblem::HolderAway(error.to_string())),
    }
}

/// Carries out the requests that other activators pass on.
#[must_use]
pub fn handler(changes: StreamChanges) -> RequestHandler {
    RequestHandler(Arc::new(move |request: &ForwardedRequest| {
        let known = StreamAction::ALL.into_iter().find(|action| action.as_str() == request.action);
        let answer = known.ok_or_else(|| malformed("this activator does not know the action")).and_then(|action| {
            let (stream_id, body) = (request.stream_id.as_str(), request.body.as_bytes());
            here(&changes, &StreamChange { action, stream_id, body, client: request.client })
        });
        let answer = answer.unwrap_or_else(|problem| problem.answer());
        ForwardedAnswer { status: answer.status.as_u16(), body: String::from_utf8_lossy(&answer.body).into_owned() }
    }))
}

fn here(changes: &StreamChanges, change: &StreamChange<'_>) -> Result<Answer, ApiProblem> {
    match change.action {
        StreamAction::Kick => kick(changes, change),
    }
}

/// The body of a kick.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KickBody {
    #[serde(default)]
    reason: String,
}

/// The answer to a kick.
#[derive(Serialize)]
struct KickReport<'a> {
    id: &'a str,
    reason: &'a str,
}

fn kick(changes: &StreamChanges, change: &StreamChange<'_>) -> Result<Answer, ApiProblem> {
    let (id, KickBody { reason }) = (change.stream_id, body(change.body)?);
    let reason = if reason.trim().is_empty() { KICKED } else { reason.trim() };
    let reason = LogSafe(reason).to_string();
    if !changes.views.kick(id, &reason) {
        return Err(ApiProblem::StreamUnknown);
    }
    tracing::info!(event = event::STREAM_KICKED_OVER_HTTP, stream = %LogSafe(id), reason, peer = %change.client, "stream kicked over HTTP");
    Ok(Answer::json(&KickReport { id, reason: &reason }))
}

/// The JSON that a request carries; its default if the request has no body.
fn body<T: Default + for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ApiProblem> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    if !body.trim_ascii().starts_with(b"{") {
        return Err(malformed("the body is to be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| malformed(&format!("the body: {error}")))
}

fn malformed(why: &str) -> ApiProblem {
    ApiProblem::Malformed(why.to_owned())
}
