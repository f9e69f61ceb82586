//! The HTTP server of both processes: metrics, health, readiness, JSON for people and tools.
//!
//! In: a listener and a table of routes. Out: answers, bounded in every direction. Next: the `http` room of each binary, which has the
//! routes. axum finds the route; connections, deadlines and bounds are ours, in front of it.
//!
//! Note: hyper has no deadline of its own for a request's head, none for an idle connection and none for a peer that never reads its
//! answer, so each is bounded here. An answer stays in memory until its reader has it, so large answers have few readers: one reader too
//! many costs the oldest reader its connection, and is not turned away itself.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, tasks and deadlines")]

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LINK, WWW_AUTHENTICATE};
use axum::http::{self, Method};
pub use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
pub use axum::routing::MethodFilter;
use axum::routing::on;
use axum::{Extension, Router};
use bytes::Bytes;
use data_encoding::BASE64;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::event;
use crate::evicting_limit::{EvictingLimit, Slot};
use crate::key::Secret;
use crate::listen::Listener;
use crate::socket::PeerSocket;

/// Connections at once. Scrapers, probes and a person or two need a handful; each may cost some 20 KiB. One connection more closes the
/// oldest: an orchestrator whose probe is refused kills the process.
pub const MAX_CONNECTIONS: usize = 128;
/// Time for a request's head to arrive; an idle connection is closed after it.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request's body to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection, so that a peer that does not read its answer does not keep a slot for ever.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// Bytes of a request's head; the least that hyper takes is 8 KiB.
pub const MAX_HEAD: usize = 16 << 10;
/// Bytes of a request's body: a kick's reason fits, a flood does not.
pub const MAX_BODY: usize = 64 << 10;
/// Bytes of an answer above which its readers are bounded. Below it, all connections together hold 8 MiB of answers.
const LARGE: usize = 64 << 10;
/// Readers of one route's large answers at once. A scraper and a few people need no more. One reader more costs the oldest its connection:
/// a reader at normal speed is done before so many others have come.
pub const MAX_READERS: usize = 8;
/// Time for answers that are on their way when the server is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A request as a route sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Path, percent escapes left as sent.
    pub path: String,
    /// Query without its `?`, percent escapes left as sent; empty when there is none.
    pub query: String,
    /// Segments of the path that stand at the `{name}` segments of the route, in order, percent escapes decoded; bytes that
    /// are not UTF-8 are replaced by U+FFFD.
    pub captures: Vec<String>,
    /// Body of the request; empty for GET.
    pub body: Bytes,
    /// Address of the client, `::ffff:` taken off.
    pub peer: IpAddr,
    /// Token that follows `Bearer ` in the header `Authorization`.
    pub bearer: Option<Secret>,
    /// Password of the header `Authorization` in the scheme `Basic` (RFC 7617), which programs make of `http://name:password@host/`.
    pub password: Option<Secret>,
    /// Headers, without `Authorization`.
    pub headers: HeaderMap,
}

/// The connection on which a request came.
#[derive(Clone)]
struct Arrival {
    peer: IpAddr,
    /// Cancelled to close the connection.
    lost: CancellationToken,
    /// Cancelled when the server stops.
    stop: CancellationToken,
    /// True while an answer without an end is on its way.
    streaming: Arc<AtomicBool>,
}

impl Request {
    /// Reads a request's body. `route`: the path of its route, with `{name}` segments.
    async fn read(request: http::Request<Body>, peer: IpAddr, route: &str) -> Result<Self, Response> {
        let (mut head, body) = request.into_parts();
        let body = if matches!(head.method, Method::GET | Method::HEAD) {
            Bytes::new()
        } else {
            match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
                Ok(Ok(body)) => body,
                Ok(Err(_)) => {
                    return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {MAX_BODY} bytes of body")));
                }
                Err(_) => return Err(problem(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
            }
        };
        let authorization = head.headers.remove(AUTHORIZATION);
        let authorization = authorization.as_ref().and_then(|value| value.to_str().ok());
        let bearer = authorization.and_then(|sent| credentials(sent, "Bearer")).map(Secret::new);
        let password = authorization.and_then(password).map(Secret::new);
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let captures = captures(route, &path);
        Ok(Self { path, query, captures, body, peer, bearer, password, headers: head.headers })
    }
}

/// The part of an `Authorization` header behind the scheme, if that is `wanted`. The name of a scheme has no case (RFC 9110, 11.1).
fn credentials<'a>(authorization: &'a str, wanted: &str) -> Option<&'a str> {
    let (scheme, sent) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then_some(sent)
}

/// The password of an `Authorization` header in the scheme `Basic`. A user name has no colon in it (RFC 7617, 2).
fn password(authorization: &str) -> Option<String> {
    let decoded = BASE64.decode(credentials(authorization, "Basic")?.trim().as_bytes()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// The segments of `path` that stand at the `{name}` segments of `route`, decoded. Bytes that are not UTF-8 become U+FFFD, so that the handler
/// answers, after its checks, that there is no such thing: axum's own extractor would answer before them.
fn captures(route: &str, path: &str) -> Vec<String> {
    let named = route.split('/').zip(path.split('/')).filter(|(segment, _)| segment.starts_with('{'));
    named.map(|(_, sent)| percent_decode_str(sent).decode_utf8_lossy().into_owned()).collect()
}

/// The answer of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status of the response.
    pub status: StatusCode,
    /// Value of the header `Content-Type`.
    pub content_type: &'static str,
    /// Body of the response.
    pub body: Bytes,
    /// Address of the next page, if there is one; sent as the header `Link`.
    pub next: Option<String>,
}

impl Answer {
    /// Text with 200; end it with a line feed.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::typed("text/plain; charset=utf-8", body)
    }

    /// Metrics in the Prometheus text format.
    pub fn metrics(body: impl Into<Bytes>) -> Self {
        Self::typed("text/plain; version=0.0.4; charset=utf-8", body)
    }

    /// A body of the given type with 200, e.g. XML or HTML.
    pub fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type, body: body.into(), next: None }
    }

    /// JSON with 200.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self::typed("application/json", body)
            }
            Err(error) => {
                tracing::error!(event = event::HTTP_ANSWER_FAILED, %error, "answer was not JSON");
                Self::text("this cannot be shown as JSON; the log says why\n").with(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// JSON that another process has written; a problem if the status is that of an error.
    pub fn of_json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let is_error = status.is_client_error() || status.is_server_error();
        Self::typed(if is_error { PROBLEM } else { "application/json" }, body).with(status)
    }

    /// An error, in the form of RFC 9457. `kind`: the type of the problem as a URI, and its title; `None` where the status says all.
    pub fn problem(status: StatusCode, kind: Option<(&str, &str)>, detail: &str) -> Self {
        let (problem_type, title) = kind.unwrap_or(("about:blank", status.canonical_reason().unwrap_or_default()));
        let document = ProblemDocument { problem_type, title, status: status.as_u16(), detail };
        let mut answer = Self::json(&document).with(status);
        answer.content_type = PROBLEM;
        answer
    }

    /// The same answer as one page of several: the next one is at `path`.
    #[must_use]
    pub fn and_next(mut self, path: Option<String>) -> Self {
        self.next = path;
        self
    }

    /// The same answer with another status.
    #[must_use]
    pub fn with(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

/// Content type of an error (RFC 9457, 6.1).
const PROBLEM: &str = "application/problem+json";

/// An error as RFC 9457 has it.
#[derive(Serialize)]
struct ProblemDocument<'a> {
    #[serde(rename = "type")]
    problem_type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // No answer is to be taken for another type, or shown inside another page.
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
        headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, 15.5.2: this status without a challenge is none.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let next = self.next.and_then(|path| HeaderValue::from_str(&format!("<{path}>; rel=\"next\"")).ok());
        headers.extend(next.map(|next| (LINK, next)));
        response
    }
}

/// An answer whose pieces are sent as they come. It ends with the channel, with the server, or when its client has to make room.
#[derive(Debug)]
pub struct Streamed {
    /// Value of the header `Content-Type`.
    pub content_type: &'static str,
    /// The pieces; the receiver is dropped when the client is gone.
    pub pieces: mpsc::Receiver<Bytes>,
}

/// The body of a [`Streamed`] answer.
struct StreamedBody {
    pieces: mpsc::Receiver<Bytes>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    streaming: Arc<AtomicBool>,
    _slot: Slot,
}

impl hyper::body::Body for StreamedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Ready(ready!(self.pieces.poll_recv(cx)).map(|piece| Ok(Frame::data(piece))))
    }
}

impl Drop for StreamedBody {
    fn drop(&mut self) {
        self.streaming.store(false, Ordering::Relaxed);
    }
}

impl Streamed {
    fn into_response(self, arrival: &Arrival, slot: Slot) -> Response {
        arrival.streaming.store(true, Ordering::Relaxed);
        let body = StreamedBody {
            pieces: self.pieces,
            stopped: Box::pin(arrival.stop.clone().cancelled_owned()),
            streaming: Arc::clone(&arrival.streaming),
            _slot: slot,
        };
        let mut response = Response::new(Body::new(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx gathers an answer otherwise.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    Answer::problem(status, None, detail).into_response()
}

/// Bounds the readers of one route's large answers: at most [`MAX_READERS`] of these answers are in memory, and the one that is being made.
struct Readers {
    /// Held from the request until the answer is admitted.
    turn: Mutex<()>,
    limit: EvictingLimit,
    admitted: Arc<Semaphore>,
}

impl Readers {
    fn new() -> Self {
        Self {
            turn: Mutex::new(()),
            limit: EvictingLimit::new(MAX_READERS),
            admitted: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// The body, with a permit that it gives back when it has been written. `lost` is cancelled if the reader has to make room before.
    async fn admit(&self, body: Bytes, lost: CancellationToken) -> Bytes {
        if body.len() <= LARGE {
            return body;
        }
        let slot = self.limit.enter_with(lost);
        // A reader that has just lost its slot holds its answer until its connection's task runs.
        let permit = Arc::clone(&self.admitted).acquire_owned().await.ok();
        Bytes::from_owner(HeldBody { body, _slot: slot, _permit: permit })
    }
}

/// A large body that is being read.
struct HeldBody {
    body: Bytes,
    _slot: Slot,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// The table of routes. A path that is not in it is 404, a method that its path does not have is 405.
#[derive(Debug, Default)]
pub struct Routes {
    router: Router,
    listed: Vec<(MethodFilter, &'static str)>,
    /// Paths whose GET changes something.
    changed_by_get: Vec<&'static str>,
}

impl Routes {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route for GET and HEAD. A segment `{name}` of `path` matches any text and is handed over in [`Request::captures`].
    #[must_use]
    pub fn get<F, A>(self, path: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        self.on(MethodFilter::GET, path, handler)
    }

    /// Adds a route without captures whose GET changes something, as clients of another program want it. HEAD, which must change nothing (RFC 9110, 9.2.1),
    /// is 405 there.
    #[must_use]
    pub fn changed_by_get<F, A>(mut self, path: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        self.changed_by_get.push(path);
        self.get(path, handler)
    }

    /// Adds a route for any method. It makes one answer at a time; further requests wait for their turn.
    #[must_use]
    pub fn on<F, A>(mut self, method: MethodFilter, path: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let route = Arc::new((handler, Readers::new()));
        let answer = move |Extension(arrival): Extension<Arrival>, request: http::Request<Body>| async move {
            let request = match Request::read(request, arrival.peer, path).await {
                Ok(request) => request,
                Err(refusal) => return refusal,
            };
            let (handler, readers) = &*route;
            // Held until the answer is admitted: answers that wait for it would be in memory, too.
            let _turn = readers.turn.lock().await;
            let mut answer = handler(request).await;
            answer.body = readers.admit(answer.body, arrival.lost).await;
            answer.into_response()
        };
        self.router = self.router.route(path, on(method, answer));
        self.listed.push((method, path));
        self
    }

    /// Method and path of every route, in the order in which they were added.
    #[must_use]
    pub fn listed(&self) -> &[(MethodFilter, &'static str)] {
        &self.listed
    }

    /// Adds a route for GET whose answers have no end. `most`: answers at once; one more costs the oldest its connection.
    #[must_use]
    pub fn stream<F, A>(mut self, path: &'static str, most: usize, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Streamed, Answer>> + Send + 'static,
    {
        let route = Arc::new((handler, EvictingLimit::new(most)));
        let answer = move |Extension(arrival): Extension<Arrival>, request: http::Request<Body>| async move {
            let request = match Request::read(request, arrival.peer, path).await {
                Ok(request) => request,
                Err(refusal) => return refusal,
            };
            let (handler, limit) = &*route;
            match handler(request).await {
                Ok(streamed) => streamed.into_response(&arrival, limit.enter_with(arrival.lost.clone())),
                Err(answer) => answer.into_response(),
            }
        };
        self.router = self.router.route(path, on(MethodFilter::GET, answer));
        self.listed.push((MethodFilter::GET, path));
        self
    }

    fn into_served(self) -> ServedRoutes {
        let mut paths: Vec<&str> = self.listed.iter().map(|(_, path)| *path).collect();
        paths.dedup();
        let missing: Arc<str> = format!("not found; there are: {}", paths.join(" ")).into();
        let detail = Arc::clone(&missing);
        let router = self.router.fallback(move || std::future::ready(problem(StatusCode::NOT_FOUND, &detail)));
        ServedRoutes { router, missing, changed_by_get: self.changed_by_get.into() }
    }
}

/// The routes as they are served.
#[derive(Clone)]
struct ServedRoutes {
    router: Router,
    /// Detail of a 404.
    missing: Arc<str>,
    changed_by_get: Arc<[&'static str]>,
}

/// Serves `routes` at `listener` until `stop`; then no connection is accepted, and answers on their way get a second.
pub async fn serve(listener: impl Into<Listener>, routes: Routes, stop: CancellationToken) {
    let (listener, served) = (listener.into(), routes.into_served());
    let (limit, open) = (EvictingLimit::new(MAX_CONNECTIONS), TaskTracker::new());
    loop {
        let (socket, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept("http") => accepted,
        };
        open.spawn(serve_connection(socket, peer.ip(), limit.enter(), served.clone(), stop.clone()));
    }
    drop(listener);
    open.close();
    let _ = timeout(STOP_TIMEOUT, open.wait()).await;
}

async fn serve_connection(socket: PeerSocket, peer: IpAddr, slot: Slot, served: ServedRoutes, stop: CancellationToken) {
    // A reader that has to make room loses its connection, as one that has to make room for another connection does.
    let streaming = Arc::new(AtomicBool::new(false));
    let arrival = Arrival { peer, lost: slot.loss(), stop: stop.clone(), streaming: Arc::clone(&streaming) };
    let service = service_fn(move |request| answer(served.clone(), arrival.clone(), request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = slot.lost() => return,
        () = stop.cancelled() => None,
        () = aged(&streaming) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = timeout(STOP_TIMEOUT, connection) => ended.unwrap_or(Ok(())),
                () = slot.lost() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(event = event::HTTP_CONNECTION_FAILED, %peer, %error, "HTTP connection failed");
    }
}

/// Returns when a connection is too old. One that carries an answer without an end may be, because these answers have a bound of their own.
async fn aged(streaming: &AtomicBool) {
    sleep(MAX_CONNECTION_AGE).await;
    while streaming.load(Ordering::Relaxed) {
        sleep(MAX_CONNECTION_AGE).await;
    }
}

async fn answer(
    served: ServedRoutes,
    arrival: Arrival,
    mut request: http::Request<Incoming>,
) -> Result<Response, Infallible> {
    // axum's `{name}` matches an empty segment, too. No route has one.
    if request.uri().path().contains("//") {
        return Ok(problem(StatusCode::NOT_FOUND, &served.missing));
    }
    let by_get = served.changed_by_get.contains(&request.uri().path());
    let allowed = if by_get && request.method() != Method::GET {
        "GET".to_owned()
    } else {
        request.extensions_mut().insert(arrival);
        let response = served.router.oneshot(request).await?;
        if response.status() != StatusCode::METHOD_NOT_ALLOWED {
            return Ok(response);
        }
        let allowed = response.headers().get(ALLOW).and_then(|allowed| allowed.to_str().ok()).unwrap_or_default();
        allowed.replace(',', ", ")
    };
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} here"));
    response.headers_mut().extend(HeaderValue::try_from(allowed).ok().map(|allowed| (ALLOW, allowed)));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn server(stop: &CancellationToken) -> std::net::SocketAddr {
        let listener = crate::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Routes::new()
            .get("/healthz", |_| async { Answer::text("ok\n") })
            .get("/echo/{word}/end", |request| async move { Answer::json(&(request.captures, request.query)) })
            .changed_by_get("/drop", |request| async move { Answer::text(request.query) })
            .on(MethodFilter::POST, "/kick/{id}", |request| async move { Answer::text(request.body) });
        tokio::spawn(serve(listener, routes, stop.clone()));
        address
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn simple(address: std::net::SocketAddr, method: &str, path: &str) -> String {
        ask(address, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    #[test]
    fn bearer_is_read_in_any_case_and_nothing_else_is() {
        let rows = [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER abc", Some("abc")),
            ("Bearer", None),
            ("abc", None),
            ("Basic abc", None),
            ("Bearerabc", None),
        ];
        for (authorization, token) in rows {
            assert_eq!(credentials(authorization, "Bearer"), token, "{authorization}");
        }
    }

    #[test]
    fn password_is_the_part_behind_the_first_colon() {
        let rows = [
            ("Basic eDp0b2tlbg==", Some("token")),
            ("basic eDp0b2s6ZW4=", Some("tok:en")),
            ("Basic OnRva2Vu", Some("token")),
            ("Basic dG9rZW4=", None),
            ("Basic ***", None),
            ("Basic", None),
            ("Bearer eDp0b2tlbg==", None),
        ];
        for (authorization, expected) in rows {
            assert_eq!(password(authorization).as_deref(), expected, "{authorization}");
        }
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_refused_by_name() {
        let stop = CancellationToken::new();
        let address = server(&stop).await;
        let rows = [
            ("GET", "/healthz", "HTTP/1.1 200", "\r\n\r\nok\n"),
            ("GET", "/healthz?x=1", "HTTP/1.1 200", "\r\n\r\nok\n"),
            ("HEAD", "/healthz", "HTTP/1.1 200", "content-length: 3"),
            ("GET", "/echo/a/end?b=c", "HTTP/1.1 200", "[[\"a\"],\"b=c\"]"),
            ("GET", "/echo/%C3%A9%2F/end", "HTTP/1.1 200", "[[\"é/\"],\"\"]"),
            // The handler answers, as for any other name that does not exist, and not axum.
            ("GET", "/echo/%FF/end", "HTTP/1.1 200", "cache-control: no-store"),
            ("POST", "/kick/%FF", "HTTP/1.1 200", "cache-control: no-store"),
            ("GET", "/echo//end", "HTTP/1.1 404", "not found; there are: /healthz"),
            ("POST", "/kick/", "HTTP/1.1 404", "not found; there are: /healthz"),
            ("POST", "/kick//", "HTTP/1.1 404", "not found; there are: /healthz"),
            ("POST", "//kick", "HTTP/1.1 404", "not found; there are: /healthz"),
            ("GET", "/echo/a/end/more", "HTTP/1.1 404", "/healthz"),
            ("GET", "/nothing", "HTTP/1.1 404", "not found"),
            ("POST", "/healthz", "HTTP/1.1 405", "allow: GET, HEAD"),
            ("GET", "/kick/a", "HTTP/1.1 405", "only POST here"),
            ("GET", "/drop?a", "HTTP/1.1 200", "\r\n\r\na"),
            ("HEAD", "/drop?a", "HTTP/1.1 405", "allow: GET\r\n"),
            ("POST", "/drop?a", "HTTP/1.1 405", "allow: GET\r\n"),
        ];
        for (method, path, status, part) in rows {
            let answer = simple(address, method, path).await;
            assert!(answer.starts_with(status) && answer.contains(part), "{method} {path}: {answer}");
        }
        // Before the body has come.
        let head = "POST /kick// HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n";
        assert!(ask(address, head).await.starts_with("HTTP/1.1 404"));
        let head = simple(address, "HEAD", "/healthz").await;
        assert!(head.ends_with("\r\n\r\n"), "HEAD has no body: {head}");
    }

    #[tokio::test]
    async fn body_over_its_bound_is_refused() {
        let stop = CancellationToken::new();
        let address = server(&stop).await;
        let post = |length: usize, body: &str| {
            format!("POST /kick/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        assert!(ask(address, &post(3, "why")).await.ends_with("why"));
        let long = "x".repeat(MAX_BODY + 1);
        assert!(ask(address, &post(long.len(), &long)).await.starts_with("HTTP/1.1 413"));
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_head_is_cut_at_its_deadline() {
        let stop = CancellationToken::new();
        let address = server(&stop).await;
        for begun in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: x\r\n"] {
            let answer = ask(address, begun).await;
            assert!(!answer.contains("200 OK"), "{begun:?}: {answer}");
        }
        // An idle connection after an answer, too.
        let answer = ask(address, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn idle_connections_do_not_keep_a_probe_out() {
        let stop = CancellationToken::new();
        let address = server(&stop).await;
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET /healthz HT").await.unwrap();
            idle.push(socket);
        }
        // Far below the deadline of a head that does not come.
        let answer = timeout(HEAD_TIMEOUT / 2, simple(address, "GET", "/healthz")).await.unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
        assert_eq!(idle[0].read(&mut [0; 64]).await.unwrap_or(0), 0, "the oldest connection made room");
    }

    /// A body that is counted while it is in memory.
    struct Counted {
        body: Bytes,
        _alive: Arc<()>,
    }

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.body
        }
    }

    #[tokio::test]
    async fn slow_readers_of_a_large_answer_are_bounded_and_keep_nobody_out() {
        // More than both sides' socket buffers take.
        const LENGTH: usize = 32 << 20;
        let (stop, alive, most) = (CancellationToken::new(), Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let listener = crate::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (counted, made, body) = (Arc::clone(&alive), Arc::clone(&most), Bytes::from(vec![b'x'; LENGTH]));
        let routes = Routes::new().get("/metrics", move |_| {
            let answer = Counted { body: body.clone(), _alive: Arc::clone(&counted) };
            // Two references are no answers: the test's own and the route's.
            made.fetch_max(Arc::strong_count(&counted) - 2, Ordering::Relaxed);
            async move { Answer::metrics(Bytes::from_owner(answer)) }
        });
        tokio::spawn(serve(listener, routes, stop.clone()));
        let mut slow = Vec::new();
        for _ in 0..5 * MAX_READERS {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            slow.push(socket);
        }
        // The last of them is served, and so is a scraper that comes after all of them.
        slow.last_mut().unwrap().read_exact(&mut [0; 15]).await.unwrap();
        let answer = simple(address, "GET", "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > LENGTH, "{} bytes", answer.len());
        let most = most.load(Ordering::Relaxed);
        assert!((2..=MAX_READERS + 1).contains(&most), "{most} answers were in memory");
        let mut first = Vec::new();
        let _ = slow[0].read_to_end(&mut first).await;
        assert!(first.len() < LENGTH, "the first reader made room");
        // Readers that close their connections give their room back.
        drop(slow);
        while Arc::strong_count(&alive) > 2 {
            tokio::task::yield_now().await;
        }
    }

    /// A server with one route whose answers are the pieces that the test sends, and the senders of the answers so far.
    async fn streaming(
        stop: &CancellationToken,
        most: usize,
    ) -> (std::net::SocketAddr, mpsc::Receiver<mpsc::Sender<Bytes>>) {
        let listener = crate::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, begun) = mpsc::channel(16);
        let routes = Routes::new().stream("/events", most, move |request| {
            let answers = answers.clone();
            async move {
                if request.query == "no" {
                    return Err(Answer::text("no\n").with(StatusCode::FORBIDDEN));
                }
                let (pieces, unread) = mpsc::channel(1);
                answers.send(pieces).await.unwrap();
                Ok(Streamed { content_type: "text/event-stream", pieces: unread })
            }
        });
        tokio::spawn(serve(listener, routes, stop.clone()));
        (address, begun)
    }

    async fn listening(address: std::net::SocketAddr) -> TcpStream {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        socket
    }

    async fn reads(socket: &mut TcpStream, wanted: &str) {
        let mut text = String::new();
        while !text.contains(wanted) {
            let mut buffer = [0; 256];
            let read = socket.read(&mut buffer).await.unwrap();
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    #[tokio::test]
    async fn pieces_of_a_streamed_answer_arrive_as_they_come_until_the_server_stops() {
        let stop = CancellationToken::new();
        let (address, mut begun) = streaming(&stop, 8).await;
        assert!(simple(address, "GET", "/events?no").await.starts_with("HTTP/1.1 403"));
        let mut socket = listening(address).await;
        let pieces = begun.recv().await.unwrap();
        reads(&mut socket, "content-type: text/event-stream").await;
        for piece in ["one", "two"] {
            pieces.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
            reads(&mut socket, piece).await;
        }
        stop.cancel();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "the answer ends in order: {rest:?}");
        pieces.closed().await;
    }

    #[tokio::test]
    async fn client_that_is_gone_is_noticed_and_one_too_many_costs_the_oldest_its_answer() {
        let stop = CancellationToken::new();
        let (address, mut begun) = streaming(&stop, 2).await;
        let (mut answers, mut sockets) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            sockets.push(listening(address).await);
            answers.push(begun.recv().await.unwrap());
        }
        answers[0].closed().await;
        assert!(!answers[1].is_closed() && !answers[2].is_closed());
        drop(sockets.pop());
        answers[2].closed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn streamed_answer_outlives_the_age_of_other_connections() {
        let stop = CancellationToken::new();
        let (address, mut begun) = streaming(&stop, 2).await;
        let mut socket = listening(address).await;
        let pieces = begun.recv().await.unwrap();
        sleep(3 * MAX_CONNECTION_AGE).await;
        pieces.send(Bytes::from_static(b"still")).await.unwrap();
        reads(&mut socket, "still").await;
    }

    #[tokio::test]
    async fn stop_ends_idle_connections_and_accepts_no_more() {
        let stop = CancellationToken::new();
        let listener = crate::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(
            listener,
            Routes::new().get("/healthz", |_| async { Answer::text("ok\n") }),
            stop.clone(),
        ));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 15];
        idle.read_exact(&mut first).await.unwrap();
        stop.cancel();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
