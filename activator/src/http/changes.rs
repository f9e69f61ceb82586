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
use crate::lobby::{Streams, Views};
use crate::net::CurrentTokens;
use crate::peers::{ForwardedAnswer, ForwardedRequest, RequestHandler};

mod destinations;

/// The reason of a kick that names none.
const KICKED: &str = "kicked over HTTP";

/// A change that the API can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamAction {
    /// The stream ends.
    Kick,
    /// The destinations are listed, which changes nothing.
    List,
    /// A destination is added.
    Add,
    /// A destination is switched on or off, or moved.
    Patch,
    /// A destination is removed.
    Remove,
    /// The session at a destination begins anew.
    Restart,
}

impl StreamAction {
    /// Every action.
    const ALL: [Self; 6] = [Self::Kick, Self::List, Self::Add, Self::Patch, Self::Remove, Self::Restart];

    /// The word between activators.
    fn as_str(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::List => "list",
            Self::Add => "add",
            Self::Patch => "patch",
            Self::Remove => "remove",
            Self::Restart => "restart",
        }
    }
}

/// The handles that a change of a stream needs.
#[derive(Clone)]
pub struct StreamChanges {
    /// Streams.
    pub views: Views,
    /// Destinations of the streams whose publishers are here.
    pub streams: Streams,
}

/// A change of one stream, as it was asked for.
struct StreamChange<'a> {
    action: StreamAction,
    stream_id: &'a str,
    /// Name of the destination; empty if the change is about none.
    destination: &'a str,
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
    let destination = request.captures.get(1).map(String::as_str).unwrap_or_default();
    let change = StreamChange { action, stream_id, destination, body: &request.body, client: request.peer };
    let Some(Holder::Peer(peer)) = shown.changes.views.holder(stream_id) else { return here(&shown.changes, &change) };
    let body = std::str::from_utf8(&request.body).map_err(|_| malformed("the body is not UTF-8"))?;
    let passed_on = ForwardedRequest {
        action: action.as_str().to_owned(),
        stream_id: stream_id.to_owned(),
        destination: destination.to_owned(),
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

/// Carries out the requests that other activators pass on; changes only if this activator has a token for them.
#[must_use]
pub fn handler(changes: StreamChanges, tokens: CurrentTokens) -> RequestHandler {
    RequestHandler(Arc::new(move |request: &ForwardedRequest| {
        let known = StreamAction::ALL.into_iter().find(|action| action.as_str() == request.action);
        let answer = known.ok_or_else(|| malformed("this activator does not know the action")).and_then(|action| {
            if action != StreamAction::List && tokens.tokens().admin.is_none() {
                return Err(ApiProblem::ChangesClosed);
            }
            let ForwardedRequest { stream_id, destination, body, client, .. } = request;
            here(&changes, &StreamChange { action, stream_id, destination, body: body.as_bytes(), client: *client })
        });
        let answer = answer.unwrap_or_else(|problem| problem.answer());
        ForwardedAnswer { status: answer.status.as_u16(), body: String::from_utf8_lossy(&answer.body).into_owned() }
    }))
}

fn here(changes: &StreamChanges, change: &StreamChange<'_>) -> Result<Answer, ApiProblem> {
    match change.action {
        StreamAction::Kick => kick(changes, change),
        StreamAction::List => destinations::list(changes, change.stream_id),
        StreamAction::Add => destinations::add(changes, change),
        StreamAction::Patch => destinations::patch(changes, change),
        StreamAction::Remove => destinations::remove(changes, change),
        StreamAction::Restart => destinations::restart(changes, change),
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

/// The JSON that a request carries; that of an empty object if the request has no body.
fn body<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ApiProblem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    if !body.trim_ascii().starts_with(b"{") {
        return Err(malformed("the body is to be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| malformed(&format!("the body: {}", flaw(&error))))
}

/// The mistake in a body, without the text that was found: it may be a push URL with its key.
fn flaw(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.contains("invalid type") || text.contains("invalid value") {
        true => format!("a value in line {} has another type than it should", error.line()),
        false => text,
    }
}

fn malformed(why: &str) -> ApiProblem {
    ApiProblem::Malformed(why.to_owned())
}
