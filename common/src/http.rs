//! The small HTTP server of both processes: metrics, health, readiness, JSON for people and tools.
//!
//! In: a listener and a table of routes. Out: answers, bounded in every direction. Next room: each binary's `http`.
//! What surprised us: hyper has no deadline of its own for a request's head, none for an idle connection and none for a
//! peer that never reads its answer, so each is bounded here. An answer is in memory until its reader has it, so large ones have few
//! readers: a reader too many costs the oldest one its connection, and is itself not turned away.
#![expect(clippy::disallowed_methods, reason = "shell: sockets, tasks and deadlines")]

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LINK};
use hyper::service::service_fn;
pub use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::evicting_limit::{EvictingLimit, Slot};
use crate::key::Secret;
use crate::listen::Listener;
use crate::socket::PeerSocket;

/// Connections at once. Scrapers, probes and a person or two need a handful; each may cost some 20 KiB. With one more, the oldest is
/// closed: an orchestrator whose probe finds no place kills the process.
pub const MAX_CONNECTIONS: usize = 128;
/// A request's head must be there within this; an idle connection is closed after it.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's body must be there within this.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives this long at most, so that a peer that does not read its answer does not keep a place for ever.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// Bytes of a request's head; hyper's least is 8 KiB.
pub const MAX_HEAD: usize = 16 << 10;
/// Bytes of a request's body: a kick's reason fits, a flood does not.
pub const MAX_BODY: usize = 64 << 10;
/// Bytes of an answer above which its readers are bounded. Below it, all connections together hold 8 MiB of answers.
const LARGE: usize = 64 << 10;
/// Readers of one route's large answers at once. A scraper and a few people need no more. With one more, the oldest loses its connection:
/// a reader at normal speed is done before so many others have come.
pub const MAX_READERS: usize = 8;
/// How long answers that are on their way may take when the server is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A request as a route sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET for HEAD too: the server leaves the body out by itself.
    pub method: Method,
    /// The path alone, as sent.
    pub path: String,
    /// What follows the `?`, undecoded; empty when nothing does.
    pub query: String,
    /// What stood at the `{}` segments of the route, in order, undecoded.
    pub captures: Vec<String>,
    /// The body; empty for GET.
    pub body: Bytes,
    /// Who asks, `::ffff:` taken off.
    pub peer: IpAddr,
    /// What follows `Bearer ` in its `Authorization`.
    pub bearer: Option<Secret>,
}

/// What a route answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// The address of the rest, if this is not all.
    pub next: Option<String>,
}

impl Answer {
    /// Text with 200; end it with a line feed.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: "text/plain; charset=utf-8", body: body.into(), next: None }
    }

    /// Metrics in the Prometheus text format.
    pub fn metrics(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: body.into(),
            next: None,
        }
    }

    /// Any other type with 200, e.g. XML or HTML.
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
                tracing::error!(%error, "an answer cannot be written as JSON");
                Self::text("this cannot be shown as JSON; the log says why\n").with(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// The same, as a part: the rest is at this path.
    #[must_use]
    pub fn and_next(mut self, path: Option<String>) -> Self {
        self.next = path;
        self
    }

    /// The same with another status.
    #[must_use]
    pub fn with(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Handler = Arc<dyn Fn(Request) -> Answering + Send + Sync>;

struct Route {
    method: Method,
    segments: Vec<&'static str>,
    handler: Handler,
    readers: Readers,
}

/// The readers of one route's large answers. No more than [`MAX_READERS`] of these are in memory, and the one that is being made.
struct Readers {
    /// Held from the question until the answer has room.
    making: Mutex<()>,
    limit: EvictingLimit,
    room: Arc<Semaphore>,
}

impl Readers {
    fn new() -> Self {
        Self {
            making: Mutex::new(()),
            limit: EvictingLimit::new(MAX_READERS),
            room: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// The body, with room that it gives back when it has been written. `lost` is cancelled if the reader has to make room before.
    async fn admit(&self, body: Bytes, lost: CancellationToken) -> Bytes {
        if body.len() <= LARGE {
            return body;
        }
        let place = self.limit.enter_with(lost);
        // The reader that has just lost its place holds its answer until its connection's task runs.
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        Bytes::from_owner(Held { body, _place: place, _room: room })
    }
}

/// A large body that somebody reads.
struct Held {
    body: Bytes,
    _place: Slot,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// The table of routes. A path that is not in it is 404, a method that its path does not have is 405.
#[derive(Default)]
pub struct Routes(Vec<Route>);

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|route| (&route.method, &route.segments))).finish()
    }
}

impl Routes {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route for GET and HEAD. A segment `{}` of `path` takes anything and is handed over in
    /// [`Request::captures`].
    #[must_use]
    pub fn get<F, A>(self, path: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        self.on(Method::GET, path, handler)
    }

    /// Adds a route for any method. It makes one answer at a time; further requests wait for their turn.
    #[must_use]
    pub fn on<F, A>(mut self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        self.0.push(Route { method, segments: path.split('/').collect(), handler, readers: Readers::new() });
        self
    }

    /// The route for a request, or the answer that says why there is none.
    fn find(&self, method: &Method, path: &str) -> Result<(&Route, Vec<String>), Refused> {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let mut allowed = Vec::new();
        for route in &self.0 {
            let Some(captures) = route.captures(path) else { continue };
            if route.method == *wanted {
                return Ok((route, captures));
            }
            allowed.push(route.method.clone());
        }
        if allowed.is_empty() { Err(Refused::NotFound(self.index())) } else { Err(Refused::Method(allowed)) }
    }

    fn index(&self) -> String {
        let mut paths: Vec<String> = self.0.iter().map(|route| route.segments.join("/")).collect();
        paths.dedup();
        paths.join(" ")
    }
}

impl Route {
    fn captures(&self, path: &str) -> Option<Vec<String>> {
        let mut captures = Vec::new();
        let mut sent = path.split('/');
        for segment in &self.segments {
            match (*segment, sent.next()?) {
                ("{}", given) if !given.is_empty() => captures.push(given.to_owned()),
                (segment, given) if segment == given => {}
                _ => return None,
            }
        }
        sent.next().is_none().then_some(captures)
    }
}

enum Refused {
    NotFound(String),
    Method(Vec<Method>),
}

/// Serves `routes` at `listener` until `stop`; then no connection is accepted, and answers on their way get a second.
pub async fn serve(listener: impl Into<Listener>, routes: Routes, stop: CancellationToken) {
    let (listener, routes) = (listener.into(), Arc::new(routes));
    let (limit, open) = (EvictingLimit::new(MAX_CONNECTIONS), TaskTracker::new());
    loop {
        let (socket, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept("http") => accepted,
        };
        open.spawn(converse(socket, peer.ip(), limit.enter(), Arc::clone(&routes), stop.clone()));
    }
    drop(listener);
    open.close();
    let _ = timeout(STOP_TIMEOUT, open.wait()).await;
}

async fn converse(socket: PeerSocket, peer: IpAddr, place: Slot, routes: Arc<Routes>, stop: CancellationToken) {
    // A reader that has to make room loses its connection, as one does that has to make room for connections.
    let lost = place.loss();
    let service = service_fn(move |request| {
        let (routes, lost) = (Arc::clone(&routes), lost.clone());
        async move { Ok::<_, Infallible>(answer(&routes, request, peer, lost).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = place.lost() => return,
        () = stop.cancelled() => None,
        () = sleep(MAX_CONNECTION_AGE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = timeout(STOP_TIMEOUT, connection) => ended.unwrap_or(Ok(())),
                () = place.lost() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP: connection ended");
    }
}

async fn answer(
    routes: &Routes,
    request: hyper::Request<Incoming>,
    peer: IpAddr,
    lost: CancellationToken,
) -> hyper::Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let (route, captures) = match routes.find(&head.method, head.uri.path()) {
        Ok(found) => found,
        Err(refused) => return refused.response(),
    };
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    let body = if method == Method::GET {
        Bytes::new()
    } else {
        match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_BODY} bytes of body\n")),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body took too long\n".to_owned()),
        }
    };
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = authorization.and_then(|text| text.strip_prefix("Bearer ")).map(Secret::new);
    // Until the answer has room: answers that wait for it would be in memory, too.
    let _making = route.readers.making.lock().await;
    let mut answer = (route.handler)(Request { method, path, query, captures, body, peer, bearer }).await;
    answer.body = route.readers.admit(answer.body, lost).await;
    response(answer)
}

impl Refused {
    fn response(self) -> hyper::Response<Full<Bytes>> {
        match self {
            Self::NotFound(paths) => plain(StatusCode::NOT_FOUND, format!("not found; there are: {paths}\n")),
            Self::Method(mut allowed) => {
                if allowed.contains(&Method::GET) {
                    allowed.push(Method::HEAD);
                }
                let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
                let names = names.join(", ");
                let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("only {names} here\n"));
                if let Ok(value) = HeaderValue::from_str(&names) {
                    answer.headers_mut().insert(ALLOW, value);
                }
                answer
            }
        }
    }
}

fn plain(status: StatusCode, body: String) -> hyper::Response<Full<Bytes>> {
    response(Answer::text(body).with(status))
}

fn response(answer: Answer) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let next = answer.next.and_then(|path| HeaderValue::from_str(&format!("<{path}>; rel=\"next\"")).ok());
    headers.extend(next.map(|next| (LINK, next)));
    response
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
            .get("/echo/{}/end", |request| async move { Answer::json(&(request.captures, request.query)) })
            .on(Method::POST, "/kick/{}", |request| async move { Answer::text(request.body) });
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

    #[tokio::test]
    async fn routes_answer_and_the_rest_is_told_clearly() {
        let stop = CancellationToken::new();
        let address = server(&stop).await;
        let rows = [
            ("GET", "/healthz", "HTTP/1.1 200", "\r\n\r\nok\n"),
            ("GET", "/healthz?x=1", "HTTP/1.1 200", "\r\n\r\nok\n"),
            ("HEAD", "/healthz", "HTTP/1.1 200", "content-length: 3"),
            ("GET", "/echo/a/end?b=c", "HTTP/1.1 200", "[[\"a\"],\"b=c\"]"),
            ("GET", "/echo//end", "HTTP/1.1 404", "not found"),
            ("GET", "/echo/a/end/more", "HTTP/1.1 404", "/healthz"),
            ("GET", "/nothing", "HTTP/1.1 404", "not found"),
            ("POST", "/healthz", "HTTP/1.1 405", "allow: GET, HEAD"),
            ("GET", "/kick/a", "HTTP/1.1 405", "only POST here"),
        ];
        for (method, path, status, part) in rows {
            let answer = simple(address, method, path).await;
            assert!(answer.starts_with(status) && answer.contains(part), "{method} {path}: {answer}");
        }
        let head = simple(address, "HEAD", "/healthz").await;
        assert!(head.ends_with("\r\n\r\n"), "HEAD has no body: {head}");
    }

    #[tokio::test]
    async fn a_body_is_handed_over_up_to_its_bound() {
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
    async fn a_head_that_never_ends_is_cut() {
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
    async fn who_only_holds_connections_keeps_nobody_out() {
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
        assert_eq!(idle[0].read(&mut [0; 64]).await.unwrap_or(0), 0, "the one who came first made room");
    }

    /// A body that is counted as long as it is in memory.
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
    async fn slow_readers_of_a_large_answer_hold_no_more_than_their_bound_and_keep_nobody_out() {
        // More than both sides' socket buffers take.
        const LENGTH: usize = 32 << 20;
        let (stop, alive, most) = (CancellationToken::new(), Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let listener = crate::listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (counted, made, body) = (Arc::clone(&alive), Arc::clone(&most), Bytes::from(vec![b'x'; LENGTH]));
        let routes = Routes::new().get("/metrics", move |_| {
            let answer = Counted { body: body.clone(), _alive: Arc::clone(&counted) };
            // The test's own and the route's are not answers.
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
        // The last of them is served, and so is an honest scraper after all of them.
        slow.last_mut().unwrap().read_exact(&mut [0; 15]).await.unwrap();
        let answer = simple(address, "GET", "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > LENGTH, "{} bytes", answer.len());
        let most = most.load(Ordering::Relaxed);
        assert!((2..=MAX_READERS + 1).contains(&most), "{most} answers were in memory");
        let mut first = Vec::new();
        let _ = slow[0].read_to_end(&mut first).await;
        assert!(first.len() < LENGTH, "the first reader made room");
        // Readers that go away give their room back.
        drop(slow);
        while Arc::strong_count(&alive) > 2 {
            tokio::task::yield_now().await;
        }
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
