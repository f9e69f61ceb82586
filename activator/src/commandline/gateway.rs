//! The calls of a gateway's HTTP API. In: an address, a token, a request. Out: JSON, or a failure in a sentence. Next: `listing`, `events`, `orders`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use liveedgecast_common::config::read_file;
use liveedgecast_common::key::Secret;
use liveedgecast_common::setting::{file, set};
use serde_json::Value;

use super::failure::CommandFailure;
use super::terminal::Terminal;
use crate::config::{ApiArgs, Args, HttpUrl, dialed, http_address, token_of_settings};
use crate::net::{HttpAnswerStream, HttpCall, HttpCallError, HttpClient};

/// Time for one call: an activator answers within milliseconds, and one that passes the request on to another within seconds.
const WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of one answer: a page of streams has 4 MiB.
const MOST: usize = 16 << 20;
/// Most pages of one list: more streams than a fleet has.
const MOST_PAGES: usize = 256;
/// The address of HTTP that no setting changes.
const HERE: &str = "http://127.0.0.1:8080";

/// A gateway.
pub(super) struct GatewayClient {
    client: HttpClient,
    /// The address, without a slash at its end.
    base: String,
    token: Option<Secret>,
    /// The terminal of the command.
    pub(super) terminal: Terminal,
}

impl GatewayClient {
    /// The gateway that the arguments name; nothing is called yet.
    pub(super) fn new(args: &Args, api: &ApiArgs, terminal: &Terminal) -> Result<Self, CommandFailure> {
        let base = match set(&api.api) {
            Some(base) => base.trim_end_matches('/').to_owned(),
            None => match http_address(args).map_err(|problems| CommandFailure::Usage(problems.to_string()))? {
                Some(address) => of(dialed(address)),
                None => HERE.to_owned(),
            },
        };
        if base.contains(['?', '#']) {
            let text = "--api: the address has a query: write http://HOST[:PORT][/PREFIX]".to_owned();
            return Err(CommandFailure::Usage(text));
        }
        HttpUrl::parse(&base)
            .map_err(|error| CommandFailure::Usage(format!("--api: {} {error}", shown_base(&base))))?;
        let token = token(args, api)?;
        Ok(Self { client: HttpClient::new(), base, token, terminal: *terminal })
    }

    /// The address without a path, which may hold anything.
    pub(super) fn base(&self) -> String {
        shown_base(&self.base)
    }

    /// Asks for JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CommandFailure> {
        let (json, _) = self.call(Method::GET, path, None).await?;
        Ok(json)
    }

    /// Asks for a list that may come in pages.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, CommandFailure> {
        let (mut all, mut next) = (Vec::new(), Some(path.to_owned()));
        let mut pages = 0;
        while let Some(path) = next {
            pages += 1;
            if pages > MOST_PAGES {
                return Err(self.not_a_gateway());
            }
            let (json, link) = self.call(Method::GET, &path, None).await?;
            let Value::Array(page) = json else { return Err(self.not_a_gateway()) };
            // A page without streams has no next one that would be worth asking for.
            next = link.filter(|_| !page.is_empty());
            all.extend(page);
        }
        Ok(all)
    }

    /// Asks for a change.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, CommandFailure> {
        let (json, _) = self.call(method, path, body).await?;
        Ok(json)
    }

    /// Opens the events behind the one of the id `last`.
    pub(super) async fn events(&self, last: Option<&str>) -> Result<HttpAnswerStream, CommandFailure> {
        let url = self.url("/api/v1/events")?;
        let bearer = self.bearer();
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(last.map(|last| ("last-event-id", last)));
        let call = HttpCall {
            method: Method::GET,
            to: &url,
            headers: &headers,
            body: Bytes::new(),
            within: WITHIN,
            most: MOST,
        };
        let what = format!("waiting for {}", self.base());
        let answer = self.terminal.watching(&what, self.client.open(call)).await;
        let answer = answer.map_err(|error| self.away(&error))?;
        let status = answer.status;
        match status {
            200 if answer.has_events => return Ok(answer),
            200 => return Err(self.not_a_gateway()),
            _ => {}
        }
        let body = self.terminal.watching(&what, answer.rest(WITHIN, MOST)).await;
        Err(CommandFailure::of_answer(status, &body, &self.base()))
    }

    /// JSON, and the path of the next page.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(Value, Option<String>), CommandFailure> {
        let url = self.url(path)?;
        let bearer = self.bearer();
        let mut headers = vec![("accept", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(body.as_ref().map(|_| ("content-type", "application/json")));
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let call = HttpCall { method, to: &url, headers: &headers, body, within: WITHIN, most: MOST };
        let what = format!("waiting for {}", self.base());
        let reply = self.terminal.watching(&what, self.client.send(call)).await;
        let reply = reply.map_err(|error| self.away(&error))?;
        if !(200..300).contains(&reply.status) {
            return Err(CommandFailure::of_answer(reply.status, &reply.body, &self.base()));
        }
        let json = serde_json::from_slice(&reply.body).map_err(|_| self.not_a_gateway())?;
        let next = reply.link.as_deref().and_then(next_page);
        Ok((json, next))
    }

    fn url(&self, path: &str) -> Result<HttpUrl, CommandFailure> {
        let mistake = |error| CommandFailure::Usage(format!("{path}: {error}"));
        HttpUrl::parse(&format!("{}{path}", self.base)).map_err(mistake)
    }

    fn bearer(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {}", token.expose()))
    }

    fn away(&self, error: &HttpCallError) -> CommandFailure {
        let base = self.base();
        match error {
            HttpCallError::TooLong(_) => self.not_a_gateway(),
            HttpCallError::Header => {
                CommandFailure::Usage("the token has characters that no HTTP header takes: look at its file".to_owned())
            }
            HttpCallError::Cut(_) => CommandFailure::Away(format!(
                "{base} did not end its answer ({error}): try again, and look at the activator's log, or at a proxy in between"
            )),
            HttpCallError::Late | HttpCallError::Unreachable(_) => CommandFailure::Away(format!(
                "no gateway answers at {base} ({error}): start it, or name its HTTP port with --api or LIVEEDGECAST_API"
            )),
        }
    }

    fn not_a_gateway(&self) -> CommandFailure {
        CommandFailure::Refused(format!(
            "{} does not answer as a gateway does: --api has to name the HTTP port of an activator",
            self.base()
        ))
    }
}

/// The address of a listener.
fn of(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Scheme, host and port of an address; the rest may hold a token.
fn shown_base(base: &str) -> String {
    HttpUrl::parse(base).map_or_else(|_| "the address".to_owned(), |url| url.to_string())
}

/// The path of the next page, from the header `Link` (RFC 8288): behind a proxy with a prefix the gateway's own path is wanted.
fn next_page(link: &str) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    (rest.contains("rel=\"next\"") && target.starts_with('/')).then(|| target.to_owned())
}

/// The token: of the command's own file, else the one for changes, else the one for reading.
fn token(args: &Args, api: &ApiArgs) -> Result<Option<Secret>, CommandFailure> {
    if let Some(path) = file(&api.token_file) {
        let token = read_file(&path).map_err(|error| CommandFailure::Usage(format!("--token-file: {error}")))?;
        return Ok(Some(Secret::new(token)));
    }
    token_of_settings(args).map_err(|problems| CommandFailure::Usage(problems.to_string()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests over real sockets: a task of a server")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn list_whose_pages_never_end_is_none_of_a_gateway() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = ApiArgs { api: Some(format!("http://{}", listener.local_addr().unwrap())), ..ApiArgs::default() };
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            while socket.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nLink: </a?from=1>; rel=\"next\"\r\nContent-Length: 3\r\n\r\n[1]";
                socket.write_all(answer).await.unwrap();
            }
        });
        let gateway = GatewayClient::new(&Args::default(), &api, &Terminal::of_process()).unwrap();
        assert_eq!(gateway.list("/a").await.map(|all| all.len()), Err(gateway.not_a_gateway()));
    }

    #[test]
    fn next_page_is_read_from_the_link() {
        assert_eq!(next_page("</api/v1/streams?from=3>; rel=\"next\"").as_deref(), Some("/api/v1/streams?from=3"));
        for other in ["", "</a>; rel=\"prev\"", "<http://elsewhere/>; rel=\"next\"", "/a; rel=\"next\""] {
            assert_eq!(next_page(other), None, "{other}");
        }
    }

    #[test]
    fn gateway_is_this_machine_unless_something_names_another() {
        let terminal = Terminal::of_process();
        let base = |listen: Option<&str>, api: Option<&str>| {
            let args = Args { http_listen: listen.map(str::to_owned), ..Args::default() };
            let api = ApiArgs { api: api.map(str::to_owned), ..ApiArgs::default() };
            GatewayClient::new(&args, &api, &terminal).map(|gateway| gateway.base)
        };
        assert_eq!(base(None, None).as_deref(), Ok("http://127.0.0.1:8080"));
        assert_eq!(base(Some("127.0.0.7:80"), Some(" ")).as_deref(), Ok("http://127.0.0.7:80"));
        assert_eq!(base(Some("[::]:81"), None).as_deref(), Ok("http://127.0.0.1:81"));
        assert_eq!(base(Some("[::]:81"), Some("https://a/relay/")).as_deref(), Ok("https://a/relay"));
        for bad in ["a:1", "http://user:s3cret@a", "http://a?token=s3cret"] {
            let failure = base(None, Some(bad)).unwrap_err();
            assert!(failure.code() == 2 && !format!("{failure:?}").contains("s3cret"), "{failure:?}");
        }
    }
}
