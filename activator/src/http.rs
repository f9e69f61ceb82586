//! The HTTP routes: metrics, health, readiness, demand; and the API, which shows and changes streams and workers (architecture.md, "Seen from
//! outside"). In: requests. Out: answers. `access` decides which requests are answered.
#![expect(clippy::disallowed_methods, reason = "shell: the clock of its log lines")]

mod access;
mod activators;
mod changes;
mod excerpts;
mod nginx;
mod page;
mod problem;
mod streams;
mod workers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::clock::now;
use liveedgecast_common::encryption::Protection;
use liveedgecast_common::event;
use liveedgecast_common::http::{Answer, MethodFilter, Request, Routes, StatusCode, Streamed};
use liveedgecast_common::key::LogSafe;
use liveedgecast_common::log_limiter::LogLimiter;
use liveedgecast_common::metrics::OPEN_METRICS;
use liveedgecast_common::trace;
use serde::Serialize;
use tokio::sync::watch;

use self::access::Right;
use self::changes::StreamAction;
pub use self::changes::{StreamChanges, handler};
use self::excerpts::FileKind;
use self::problem::ApiProblem;
use crate::accept::RtmpsListener;
use crate::admission::Admission;
use crate::config::ApiTokens;
use crate::dispatch::{Demand, WorkerSecondsView};
use crate::drain::Phase;
use crate::events::{Events, MAX_SUBSCRIBERS, subscribe};
use crate::excerpt::Extent;
use crate::lobby::Views;
use crate::metrics::ActivatorMetrics;
use crate::net::CurrentTokens;
use crate::peers::{Cluster, Courier};
use crate::scaler::{ScalerCertificates, Trigger};

/// The sources of all answers.
#[derive(Clone)]
pub struct HttpContext {
    /// Name of this activator.
    pub name: String,
    /// Streams and workers.
    pub views: Views,
    /// The demand of all activators.
    pub cluster: Cluster,
    /// The means to change streams.
    pub changes: StreamChanges,
    /// The way to the other activators.
    pub courier: Courier,
    /// Streams for each worker, for scaling.
    pub target: u32,
    /// Tells if anyone may publish.
    pub admission: Arc<Admission>,
    /// True if publishers can only connect from this machine.
    pub is_local: bool,
    /// Tokens for reading and changing.
    pub tokens: CurrentTokens,
    /// The events.
    pub events: Events,
    /// Metrics of this process.
    pub metrics: ActivatorMetrics,
    /// The certificates of RTMPS, if there are any.
    pub rtmps: Option<Arc<RtmpsListener>>,
    /// The certificates of the scaler, if there are any.
    pub scaler: Option<Arc<ScalerCertificates>>,
    /// The protection of connections between our own processes.
    pub protection: Protection,
    /// The phase of going down.
    pub phase: watch::Receiver<Phase>,
    /// Start of the process.
    pub started: Instant,
}

/// The warning of an activator at which anyone may publish.
pub const OPEN: &str = "anyone who can reach the RTMP port may publish, because that was asked for (--open, LIVEEDGECAST_OPEN, or open in the \
    configuration file): set PUBLISH_KEYS to let in listed keys alone";

const DESTINATIONS: &str = "/api/v1/streams/{id}/destinations";
const DESTINATION: &str = "/api/v1/streams/{id}/destinations/{name}";

/// The description of the API, which a test compares with the routes.
const OPENAPI: &str = include_str!("../../deploy/openapi.json");

/// Lines about refused requests, which a stranger can cause at will.
static REFUSALS: LogLimiter = LogLimiter::new(Duration::from_secs(1));

/// The table of routes.
pub fn routes(shown: HttpContext) -> Routes {
    let with = |answer: fn(&HttpContext, &Request) -> Answer| {
        let shown = shown.clone();
        move |request: Request| {
            let answer = answer(&shown, &request);
            async move { answer }
        }
    };
    let api = |right: Right, answer: fn(&HttpContext, &Request) -> Result<Answer, ApiProblem>| {
        let shown = shown.clone();
        move |request: Request| {
            let answer = allowed(&shown, right, &request).and_then(|()| answer(&shown, &request));
            async move { answer.unwrap_or_else(|problem| problem.answer()) }
        }
    };
    let change = |right: Right, action: StreamAction| {
        let shown = shown.clone();
        move |request: Request| {
            let shown = shown.clone();
            async move {
                let answer = match allowed(&shown, right, &request) {
                    Ok(()) => changes::carry_out(shown, request, action).await,
                    Err(problem) => Err(problem),
                };
                answer.unwrap_or_else(|problem| problem.answer())
            }
        }
    };
    let excerpt = |kind: FileKind| {
        let shown = shown.clone();
        move |request: Request| {
            let shown = shown.clone();
            async move {
                let answer = match allowed(&shown, Right::Read, &request) {
                    Ok(()) => excerpts::answer(&shown, &request, kind).await,
                    Err(problem) => Err(problem),
                };
                answer.unwrap_or_else(|problem| problem.answer())
            }
        }
    };
    let subscribed = shown.clone();
    page::routes(Routes::new())
        .get("/metrics", with(page_of_metrics))
        .get("/healthz", with(|_, _| Answer::text("ok\n")))
        .get("/readyz", with(ready))
        .get("/stat", {
            let shown = shown.clone();
            move |request: Request| {
                let shown = shown.clone();
                async move {
                    match allowed_by(access::check_url, &shown, Right::Read, &request) {
                        Ok(()) => nginx::stat(&shown, &request).await,
                        Err(problem) => problem.answer(),
                    }
                }
            }
        })
        .changed_by_get("/control/drop/publisher", {
            let shown = shown.clone();
            move |request: Request| {
                let shown = shown.clone();
                async move {
                    match allowed_by(access::check_url, &shown, Right::Change, &request) {
                        Ok(()) => nginx::drop_publishers(shown, &request).await,
                        Err(problem) => problem.answer(),
                    }
                }
            }
        })
        .get("/api/v1/openapi.json", |_| async { Answer::typed("application/json", OPENAPI) })
        // KEDA asks for these two without a token; they have counts alone.
        .get("/api/v1/demand", with(|shown, _| demand(shown)))
        .get("/api/v1/scale", with(scale))
        .get("/api/v1/streams", api(Right::Read, streams::list))
        .stream("/api/v1/events", MAX_SUBSCRIBERS, move |request| {
            let streamed = allowed(&subscribed, Right::Read, &request);
            let streamed = streamed.map(|()| event_stream(&subscribed.events, &request));
            async move { streamed.map_err(|problem| problem.answer()) }
        })
        .get("/api/v1/streams/{id}/ring.flv", excerpt(FileKind::OfStream(Extent::All)))
        .get("/api/v1/streams/{id}/keyframe.flv", excerpt(FileKind::OfStream(Extent::LastKeyframe)))
        .get("/api/v1/streams/{id}/destinations/{name}/keyframe.flv", excerpt(FileKind::OfDestination))
        .get("/api/v1/activators", api(Right::Read, activators::list))
        .get("/api/v1/workers", api(Right::Read, workers::list))
        .on(MethodFilter::POST, "/api/v1/workers/{name}/drain", api(Right::Change, workers::drain))
        .on(MethodFilter::POST, "/api/v1/workers/{name}/undrain", api(Right::Change, workers::undrain))
        .on(MethodFilter::DELETE, "/api/v1/streams/{id}", change(Right::Change, StreamAction::Kick))
        .on(MethodFilter::POST, "/api/v1/streams/{id}/kick", change(Right::Change, StreamAction::Kick))
        .get(DESTINATIONS, change(Right::Read, StreamAction::List))
        .on(MethodFilter::POST, DESTINATIONS, change(Right::Change, StreamAction::Add))
        .on(MethodFilter::PATCH, DESTINATION, change(Right::Change, StreamAction::Patch))
        .on(MethodFilter::DELETE, DESTINATION, change(Right::Change, StreamAction::Remove))
        .on(
            MethodFilter::POST,
            "/api/v1/streams/{id}/destinations/{name}/restart",
            change(Right::Change, StreamAction::Restart),
        )
}

/// Decides whether a request has a right.
type Check = fn(&ApiTokens, Right, &Request) -> Result<(), ApiProblem>;

/// Refuses a request that lacks a right, and logs that.
fn allowed(shown: &HttpContext, right: Right, request: &Request) -> Result<(), ApiProblem> {
    allowed_by(access::check, shown, right, request)
}

fn allowed_by(check: Check, shown: &HttpContext, right: Right, request: &Request) -> Result<(), ApiProblem> {
    let checked = check(&shown.tokens.tokens(), right, request);
    if let Err(problem) = &checked
        && REFUSALS.is_due(now())
    {
        let (class, path) = (problem.as_str(), LogSafe(&request.path));
        tracing::info!(event = event::API_REFUSED, peer = %request.peer, class, %path, "API request refused");
    }
    checked
}

/// The events after the one that the client has by its header `Last-Event-ID`, or those from now on.
fn event_stream(events: &Events, request: &Request) -> Streamed {
    let last = request.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    Streamed { content_type: "text/event-stream", pieces: subscribe(events, last) }
}

/// The metrics: as OpenMetrics, which alone can name traces, where there are traces and the client takes it; in Prometheus' text format elsewhere.
fn page_of_metrics(shown: &HttpContext, request: &Request) -> Answer {
    shown.views.measure();
    shown.cluster.measure(&shown.metrics.peers);
    shown.metrics.certificate_ends("internal", shown.protection.certificate_end());
    shown.metrics.certificate_ends("rtmps", shown.rtmps.as_ref().and_then(|listener| listener.end()));
    shown.metrics.certificate_ends("scaler", shown.scaler.as_ref().and_then(|certificates| certificates.end()));
    let text = shown.metrics.text();
    let accepts = request.headers.get_all("accept").iter().filter_map(|value| value.to_str().ok());
    if trace::is_on() && accepts.into_iter().any(|value| value.contains("application/openmetrics-text")) {
        return Answer::typed(OPEN_METRICS, shown.metrics.lobby.open_page(&text));
    }
    Answer::metrics(text)
}

/// The plain demand, for KEDA's `metrics-api` trigger where that is enough.
fn demand(shown: &HttpContext) -> Answer {
    match shown.cluster.need(None) {
        Ok(need) => Answer::json(&DemandReport { demand: need.shown(), worker_seconds: shown.views.worker_seconds() }),
        Err(unsure) => ApiProblem::Unsure(unsure.to_string()).answer(),
    }
}

/// The answer to [`demand`].
#[derive(Serialize)]
struct DemandReport {
    #[serde(flatten)]
    demand: Demand,
    worker_seconds: WorkerSecondsView,
}

/// The number of the external scaler, for KEDA's `metrics-api` trigger: `?target=…&app=…` is the trigger's metadata.
fn scale(shown: &HttpContext, request: &Request) -> Answer {
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    let metadata = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let trigger = match Trigger::parse(&metadata, shown.target) {
        Ok(trigger) => trigger,
        Err(error) => return ApiProblem::Malformed(error.to_string()).answer(),
    };
    match shown.cluster.need(trigger.app.as_deref()) {
        Ok(need) => Answer::json(&ScaleReport {
            active: need.demand() > 0,
            workers: trigger.workers(&need),
            target: trigger.target,
            value: trigger.value(&need),
        }),
        Err(unsure) => ApiProblem::Unsure(unsure.to_string()).answer(),
    }
}

/// The answer to [`scale`].
#[derive(Serialize)]
struct ScaleReport {
    active: bool,
    workers: usize,
    target: f64,
    value: f64,
}

/// Readiness. A file with mistakes takes no activator out of service, because the last good one is in force. The answer has the mistakes for those who
/// may read, and says to everyone that there are some.
fn ready(shown: &HttpContext, request: &Request) -> Answer {
    let phase = *shown.phase.borrow();
    if phase != Phase::Serving {
        return Answer::text(format!("going down: {}\n", phase.as_str())).with(StatusCode::SERVICE_UNAVAILABLE);
    }
    if !shown.cluster.is_ready() {
        let text = "not in touch with the other activators yet\n";
        return Answer::text(text).with(StatusCode::SERVICE_UNAVAILABLE);
    }
    let mut text = "ready\n".to_owned();
    if shown.admission.is_open() && !shown.is_local {
        text += &format!("WARNING: {OPEN}\n");
    }
    let may_read = access::check(&shown.tokens.tokens(), Right::Read, request).is_ok();
    for (setting, mistakes) in shown.admission.files().rejected() {
        let mistakes = if may_read { mistakes.as_str() } else { "the log line file.rejected has the mistakes" };
        text += &format!("WARNING: the file of {setting} is not in force, the last good one is: {mistakes}\n");
    }
    Answer::text(text)
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
