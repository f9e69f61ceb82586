//! The routes of workers. In: requests that have the right. Out: answers; orders to workers, through the lobby. Every worker is registered with
//! every activator, so no request is passed on.

use liveedgecast_common::event;
use liveedgecast_common::http::{Answer, Request};
use liveedgecast_common::key::LogSafe;
use serde::Serialize;

use super::HttpContext;
use super::problem::ApiProblem;

/// Lists all workers.
pub(super) fn list(shown: &HttpContext, _: &Request) -> Result<Answer, ApiProblem> {
    Ok(Answer::json(&shown.views.workers()))
}

/// Has a worker take nothing more and give its streams to other workers.
pub(super) fn drain(shown: &HttpContext, request: &Request) -> Result<Answer, ApiProblem> {
    order(shown, request, true)
}

/// Has a worker take streams again.
pub(super) fn undrain(shown: &HttpContext, request: &Request) -> Result<Answer, ApiProblem> {
    order(shown, request, false)
}

/// The answer to an order.
#[derive(Serialize)]
struct DrainReport<'a> {
    name: &'a str,
    drain: bool,
}

fn order(shown: &HttpContext, request: &Request, drain: bool) -> Result<Answer, ApiProblem> {
    let name = request.captures.first().map(String::as_str).unwrap_or_default();
    if !shown.views.drain_worker(name, drain) {
        return Err(ApiProblem::WorkerUnknown);
    }
    tracing::info!(event = event::WORKER_DRAIN_ORDERED, worker = %LogSafe(name), drain, peer = %request.peer, "drain of a worker ordered over HTTP");
    Ok(Answer::json(&DrainReport { name, drain }))
}
