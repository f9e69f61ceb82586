//! The client for servers that are asked (`admission`) or told something by HTTP. In: an address and a body. Out: the answer, or the reason why there
//! is none; within a time and a size that the caller gives. Next: the caller.
//!
//! Connections are kept for the next call. They are looked at when a call needs one and by no timer, so an idle client wakes for nothing: a server
//! that closes its end is noticed by the connection itself. Note: a connection that a firewall has forgotten is not noticed at all, so one that has
//! been idle for [`KEPT`] is not used again.
#![expect(clippy::disallowed_methods, reason = "shell: the deadline of a call")]

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, DATE, HeaderName, LINK, LOCATION, USER_AGENT};
use hyper::http::request::Builder;
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::config::HttpUrl;

/// Time for which an idle connection is kept: less than the five minutes after which common firewalls forget one.
const KEPT: Duration = Duration::from_secs(60);
/// Idle connections to one server that are kept.
const MOST_KEPT: usize = 8;
/// Longest header that is looked at.
const MOST_HEADER: usize = 4096;

type TlsCalls = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client. Clones share their connections.
#[derive(Clone, Default)]
pub(crate) struct HttpClient {
    plain: Arc<OnceLock<Client<HttpConnector, Full<Bytes>>>>,
    /// Made at the first call by TLS, because reading the system's authorities takes milliseconds.
    tls: Arc<OnceLock<Result<TlsCalls, String>>>,
}

/// A call.
pub(crate) struct HttpPost<'a> {
    /// The address.
    pub(crate) to: &'a HttpUrl,
    /// The kind of body.
    pub(crate) content_type: &'a str,
    /// Further headers.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub(crate) body: Bytes,
    /// Time for the whole call.
    pub(crate) within: Duration,
    /// Most bytes of the answer's body.
    pub(crate) most: usize,
}

/// A call by any method, with any headers.
pub(crate) struct HttpCall<'a> {
    /// The method.
    pub(crate) method: Method,
    /// The address.
    pub(crate) to: &'a HttpUrl,
    /// The headers.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub(crate) body: Bytes,
    /// Time for the whole call; for [`HttpClient::open`], until the answer begins.
    pub(crate) within: Duration,
    /// Most bytes of the answer's body; [`HttpClient::open`] has no such bound.
    pub(crate) most: usize,
}

/// A question without a body.
pub(crate) struct HttpGet<'a> {
    /// The address.
    pub(crate) from: &'a HttpUrl,
    /// Time for the whole call.
    pub(crate) within: Duration,
    /// Most bytes of the answer's body.
    pub(crate) most: usize,
}

/// An answer, whatever its status is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpReply {
    /// The status.
    pub(crate) status: u16,
    /// The header `Location`, if it is a text.
    pub(crate) location: Option<String>,
    /// The header `Cache-Control`, if it is a text.
    pub(crate) cache_control: Option<String>,
    /// The header `Link`, if it is a text.
    pub(crate) link: Option<String>,
    /// The header `Date`, if it is a text.
    pub(crate) date: Option<String>,
    /// The body.
    pub(crate) body: Bytes,
}

/// An answer that goes on until its server or its reader ends it.
pub(crate) struct HttpAnswerStream {
    /// The status.
    pub(crate) status: u16,
    /// The answer is a stream of server-sent events.
    pub(crate) has_events: bool,
    body: Incoming,
}

impl HttpAnswerStream {
    /// The next bytes; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// The connection has failed.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, HttpCallError>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(part) => return Some(Ok(part)),
                    Err(_) => continue,
                },
                Err(error) => return Some(Err(HttpCallError::Cut(causes(&error)))),
            }
        }
    }

    /// The bytes that come until the end, until `most` of them are there, or `within` a time.
    pub(crate) async fn rest(mut self, within: Duration, most: usize) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = timeout(within, async {
            while let Some(Ok(part)) = self.next().await {
                rest.extend_from_slice(&part);
                if rest.len() >= most {
                    break;
                }
            }
        })
        .await;
        rest
    }
}

/// The reason why there is no answer. Shows no more of the address than its host and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpCallError {
    /// The answer did not come in time.
    #[error("no answer came in time")]
    Late,
    /// There is no connection, or it has ended.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The answer has begun, and its connection has ended before it.
    #[error("the answer broke off: {0}")]
    Cut(String),
    /// The answer is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// A header cannot be sent.
    #[error("a header of the request cannot be sent")]
    Header,
}

impl HttpClient {
    /// A client without connections.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Posts, and waits for the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn post(&self, post: HttpPost<'_>) -> Result<HttpReply, HttpCallError> {
        let mut request = request(Method::POST, post.to).header(CONTENT_TYPE, post.content_type);
        for (name, value) in post.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(post.body)).map_err(|_| HttpCallError::Header)?;
        timeout(post.within, self.call(request, post.most)).await.unwrap_or(Err(HttpCallError::Late))
    }

    /// Asks, and waits for the answer. A redirect is an answer like any other.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn get(&self, get: HttpGet<'_>) -> Result<HttpReply, HttpCallError> {
        let request = request(Method::GET, get.from).body(Full::default()).map_err(|_| HttpCallError::Header)?;
        timeout(get.within, self.call(request, get.most)).await.unwrap_or(Err(HttpCallError::Late))
    }

    /// Calls, and waits for the whole answer.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn send(&self, call: HttpCall<'_>) -> Result<HttpReply, HttpCallError> {
        let (within, most) = (call.within, call.most);
        timeout(within, self.call(any_request(call)?, most)).await.unwrap_or(Err(HttpCallError::Late))
    }

    /// Calls, and waits for the beginning of the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn open(&self, call: HttpCall<'_>) -> Result<HttpAnswerStream, HttpCallError> {
        let within = call.within;
        let answer = timeout(within, self.begin(any_request(call)?)).await.unwrap_or(Err(HttpCallError::Late))?;
        let (head, body) = answer.into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let has_events = content_type.starts_with("text/event-stream");
        Ok(HttpAnswerStream { status: head.status.as_u16(), has_events, body })
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, HttpCallError> {
        let answer = if request.uri().scheme() == Some(&Scheme::HTTPS) {
            let client = self.tls.get_or_init(|| Ok(client(with_tls()?)));
            client.as_ref().map_err(|why| HttpCallError::Unreachable(why.clone()))?.request(request)
        } else {
            self.plain.get_or_init(|| client(connector())).request(request)
        };
        answer.await.map_err(|error| HttpCallError::Unreachable(causes(&error)))
    }

    async fn call(&self, request: Request<Full<Bytes>>, most: usize) -> Result<HttpReply, HttpCallError> {
        let (head, mut body) = self.begin(request).await?.into_parts();
        let text = |name: HeaderName| {
            let text = head.headers.get(name).and_then(|value| value.to_str().ok());
            text.filter(|text| text.len() <= MOST_HEADER).map(str::to_owned)
        };
        let (location, cache_control, link, date) = (text(LOCATION), text(CACHE_CONTROL), text(LINK), text(DATE));
        let mut bytes = BytesMut::new();
        // The rest of a body that is too long is not read, so its connection is not used again.
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| HttpCallError::Cut(causes(&error)))?;
            let Ok(part) = frame.into_data() else { continue };
            if bytes.len() + part.len() > most {
                return Err(HttpCallError::TooLong(most));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(HttpReply { status: head.status.as_u16(), location, cache_control, link, date, body: bytes.freeze() })
    }
}

fn any_request(call: HttpCall<'_>) -> Result<Request<Full<Bytes>>, HttpCallError> {
    let mut request = request(call.method, call.to);
    for (name, value) in call.headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(call.body)).map_err(|_| HttpCallError::Header)
}

fn request(method: Method, to: &HttpUrl) -> Builder {
    let agent = concat!("liveedgecast/", env!("CARGO_PKG_VERSION"));
    Request::builder().method(method).uri(to.expose()).header(USER_AGENT, agent)
}

fn client<C>(connector: C) -> Client<C, Full<Bytes>>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    // Without a timer for the pool; see above.
    Client::builder(TokioExecutor::new()).pool_idle_timeout(KEPT).pool_max_idle_per_host(MOST_KEPT).build(connector)
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector
}

/// Connections that trust the system's authorities, or those of `SSL_CERT_FILE`.
fn with_tls() -> Result<HttpsConnector<HttpConnector>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine has no certificates of authorities: set SSL_CERT_FILE".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector({
        let mut connector = connector();
        connector.enforce_http(false);
        connector
    }))
}

/// An error with its causes: hyper's own text says no more than that something failed.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "http_client_tests.rs"]
mod tests;
