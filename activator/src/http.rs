//! The HTTP routes: metrics, health, readiness, demand, streams, workers; and a kick (architecture.md, "Seen from outside"). In: requests.
//! Out: answers.
//!
//! A kick ends a stream, so it needs the control secret. Note: an address does not identify a client. Behind a reverse proxy on the same
//! machine every request comes from this machine, and so does one from every web page that its users look at; nginx adds no header that
//! says so and puts the activator's own address into `Host`.

use std::sync::Arc;

use liveedgecast_common::event;
use liveedgecast_common::http::{Answer, MethodFilter, Request, Routes, StatusCode};
use liveedgecast_common::key::{LogSafe, Secret};
use serde::Serialize;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::drain::Phase;
use crate::lobby::Views;
use crate::metrics::ActivatorMetrics;
use crate::peers::Cluster;
use crate::scaler::Trigger;

/// The sources of all answers.
#[derive(Clone)]
pub struct HttpContext {
    /// Streams and workers.
    pub views: Views,
    /// The demand of all activators.
    pub cluster: Cluster,
    /// Streams for each worker, for scaling.
    pub target: u32,
    /// Tells if anyone may publish.
    pub admission: Arc<Admission>,
    /// True if publishers can only connect from this machine.
    pub is_local: bool,
    /// The control secret, which a kick needs.
    pub secret: Secret,
    /// Metrics of this process.
    pub metrics: ActivatorMetrics,
    /// The phase of going down.
    pub phase: watch::Receiver<Phase>,
}

/// Bytes of one list of streams: 10,000 of one worker, at some 400 each. The rest is on further pages. Eight readers at most hold one.
const MAX_LIST: usize = 4 << 20;

/// The warning of an activator at which anyone may publish.
pub const OPEN: &str = "anyone who can reach the RTMP port may publish: set PUBLISH_KEYS";

/// The answer to a kick without the secret.
const SECRET_NEEDED: &str = "this needs the control secret: send `Authorization: Bearer` with the value of CONTROL_SECRET; \
    without that setting the secret is random, so set it first\n";

/// The table of routes.
pub fn routes(shown: HttpContext) -> Routes {
    let with = |answer: fn(&HttpContext, &Request) -> Answer| {
        let shown = shown.clone();
        move |request: Request| {
            let answer = answer(&shown, &request);
            async move { answer }
        }
    };
    let metrics = shown.clone();
    Routes::new()
        // One at a time, as all routes, so that many scrapers of the activator do not become many scrapers of the workers.
        .get("/metrics", move |_| {
            let shown = metrics.clone();
            async move { all_metrics(&shown).await }
        })
        .get("/healthz", with(|_, _| Answer::text("ok\n")))
        .get("/readyz", with(|shown, _| ready(shown)))
        .get("/api/v1/demand", with(|shown, _| demand(shown)))
        .get("/api/v1/scale", with(scale))
        .get("/api/v1/streams", with(streams))
        .get("/api/v1/workers", with(|shown, _| Answer::json(&shown.views.workers())))
        .on(MethodFilter::DELETE, "/api/v1/streams/{id}", with(kick))
        .on(MethodFilter::POST, "/api/v1/streams/{id}/kick", with(kick))
}

/// Lists streams from `?from=` on, as many as [`MAX_LIST`] allows; the header `Link` has the address of the rest.
fn streams(shown: &HttpContext, request: &Request) -> Answer {
    let from = request.query.split('&').find_map(|pair| pair.strip_prefix("from="));
    let Ok(from) = from.unwrap_or("0").parse::<usize>() else {
        return Answer::text("from is a number of streams to leave out\n").with(StatusCode::BAD_REQUEST);
    };
    let mut json = b"[".to_vec();
    let next = shown.views.each_stream(from, |stream| {
        let before = json.len();
        if before > 1 {
            json.push(b',');
        }
        let fits = serde_json::to_writer(&mut json, &stream).is_ok() && json.len() < MAX_LIST;
        if !fits {
            json.truncate(before);
        }
        fits
    });
    json.extend_from_slice(b"]\n");
    json.shrink_to_fit();
    let next = next.map(|next| format!("{}?from={next}", request.path));
    Answer::typed("application/json", json).and_next(next)
}

async fn all_metrics(shown: &HttpContext) -> Answer {
    let workers = shown.metrics.fetch(shown.views.scrapes()).await;
    shown.views.measure();
    shown.cluster.measure(&shown.metrics.peers);
    shown.metrics.scaler.measure();
    Answer::metrics(shown.metrics.merged(&workers))
}

/// The plain demand, for KEDA's `metrics-api` trigger where that is enough.
fn demand(shown: &HttpContext) -> Answer {
    match shown.cluster.need(None) {
        Ok(need) => Answer::json(&need.shown()),
        Err(unsure) => Answer::text(format!("{unsure}\n")).with(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// The number of the external scaler, for KEDA's `metrics-api` trigger: `?target=…&app=…` is the trigger's metadata.
fn scale(shown: &HttpContext, request: &Request) -> Answer {
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    let metadata = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let trigger = match Trigger::parse(&metadata, shown.target) {
        Ok(trigger) => trigger,
        Err(error) => return Answer::text(format!("{error}\n")).with(StatusCode::BAD_REQUEST),
    };
    match shown.cluster.need(trigger.app.as_deref()) {
        Ok(need) => Answer::json(&ScaleReport {
            active: need.demand() > 0,
            workers: trigger.workers(&need),
            target: trigger.target,
            value: trigger.value(&need),
        }),
        Err(unsure) => Answer::text(format!("{unsure}\n")).with(StatusCode::SERVICE_UNAVAILABLE),
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

fn ready(shown: &HttpContext) -> Answer {
    let phase = *shown.phase.borrow();
    if phase != Phase::Serving {
        return Answer::text(format!("going down: {}\n", phase.as_str())).with(StatusCode::SERVICE_UNAVAILABLE);
    }
    if !shown.cluster.is_ready() {
        let text = "not in touch with the other activators yet\n";
        return Answer::text(text).with(StatusCode::SERVICE_UNAVAILABLE);
    }
    if shown.admission.is_open() && !shown.is_local {
        return Answer::text(format!("ready\nWARNING: {OPEN}\n"));
    }
    Answer::text("ready\n")
}

fn kick(shown: &HttpContext, request: &Request) -> Answer {
    let known = request.bearer.as_ref().is_some_and(|bearer| *bearer == shown.secret);
    if !known {
        return Answer::text(SECRET_NEEDED).with(StatusCode::FORBIDDEN);
    }
    let id = request.captures.first().map(String::as_str).unwrap_or_default();
    let reason = String::from_utf8_lossy(&request.body);
    let reason = if reason.trim().is_empty() { "kicked over HTTP" } else { reason.trim() };
    if !shown.views.kick(id, &LogSafe(reason).to_string()) {
        return Answer::text("there is no such stream\n").with(StatusCode::NOT_FOUND);
    }
    tracing::info!(event = event::STREAM_KICKED_OVER_HTTP, stream = %LogSafe(id), reason = LogSafe(reason).to_string(), peer = %request.peer, "stream kicked over HTTP");
    Answer::text("kicked\n")
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
