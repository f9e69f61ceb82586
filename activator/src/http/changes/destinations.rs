//! Changes of the destinations of one stream whose publisher is here. In: a change as it was asked for. Out: the change in the words of
//! `destinations`, and the answer.

use liveedgecast_common::event;
use liveedgecast_common::http::{Answer, StatusCode};
use liveedgecast_common::key::LogSafe;
use liveedgecast_common::url::PushTemplate;
use serde::{Deserialize, Serialize};

use super::{StreamChange, StreamChanges, body};
use crate::config::RouteDestination;
use crate::destinations::{Change, ChangeError};
use crate::http::problem::ApiProblem;

/// A destination to add.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDestination {
    name: String,
    url: String,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

/// A change of a destination.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DestinationPatch {
    enabled: Option<bool>,
    url: Option<String>,
}

/// The answer to a change.
#[derive(Serialize)]
struct ChangeReport<'a> {
    id: &'a str,
    destination: &'a str,
    revision: u64,
}

/// Lists the destinations in force.
pub(super) fn list(changes: &StreamChanges, stream_id: &str) -> Result<Answer, ApiProblem> {
    let destinations = changes.streams.destinations(stream_id).ok_or(ApiProblem::StreamUnknown)?;
    Ok(Answer::json(&destinations))
}

pub(super) fn add(changes: &StreamChanges, change: &StreamChange<'_>) -> Result<Answer, ApiProblem> {
    let NewDestination { name, url, enabled } = body(change.body)?;
    let given = RouteDestination { name: name.clone(), url: template(&url)?, required: false, enabled, backup: None };
    let answer = carry_out(changes, &StreamChange { destination: &name, ..*change }, &Change::Add(given))?;
    Ok(answer.with(StatusCode::CREATED))
}

pub(super) fn patch(changes: &StreamChanges, change: &StreamChange<'_>) -> Result<Answer, ApiProblem> {
    let DestinationPatch { enabled, url } = body(change.body)?;
    if enabled.is_none() && url.is_none() {
        return Err(ApiProblem::Malformed("the body has neither `enabled` nor `url`".to_owned()));
    }
    let url = url.map(|url| template(&url)).transpose()?;
    carry_out(changes, change, &Change::Patch { name: change.destination.to_owned(), url, enabled })
}

pub(super) fn remove(changes: &StreamChanges, change: &StreamChange<'_>) -> Result<Answer, ApiProblem> {
    carry_out(changes, change, &Change::Remove { name: change.destination.to_owned() })
}

pub(super) fn restart(changes: &StreamChanges, change: &StreamChange<'_>) -> Result<Answer, ApiProblem> {
    carry_out(changes, change, &Change::Restart { name: change.destination.to_owned() })
}

/// A push URL; the error's text shows no key.
fn template(url: &str) -> Result<PushTemplate, ApiProblem> {
    PushTemplate::parse_of_route(url).map_err(|error| ApiProblem::DestinationUnfit(error.to_string()))
}

fn carry_out(changes: &StreamChanges, change: &StreamChange<'_>, what: &Change) -> Result<Answer, ApiProblem> {
    let (id, destination, peer) = (change.stream_id, change.destination, change.client);
    let revision = changes.streams.change(id, what).map_err(problem)?;
    let (what, _) = what.shown();
    tracing::info!(event = event::DESTINATION_CHANGED_OVER_HTTP, stream = %LogSafe(id), destination = %LogSafe(destination), change = what, revision, %peer, "destination changed over HTTP");
    Ok(Answer::json(&ChangeReport { id, destination, revision }))
}

fn problem(error: ChangeError) -> ApiProblem {
    match error {
        ChangeError::UnknownStream => ApiProblem::StreamUnknown,
        ChangeError::UnknownDestination => ApiProblem::DestinationUnknown,
        ChangeError::Name(_) | ChangeError::Url(_) | ChangeError::Nameless => {
            ApiProblem::DestinationUnfit(error.to_string())
        }
        _ => ApiProblem::DestinationConflict(error.to_string()),
    }
}
