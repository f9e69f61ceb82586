//! A client for the HTTP of activators and workers. In: an address and a path. Out: status and body. Each request has a connection of its
//! own, as with curl.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest time for an answer: every answer of an activator or a worker comes sooner.
const LIMIT: Duration = Duration::from_secs(10);

/// Status and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code, such as 200.
    pub status: u16,
    /// The whole body.
    pub body: String,
}

/// Sends a request without a body.
///
/// # Errors
/// No process listens, or the answer is not HTTP.
pub fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<HttpAnswer> {
    request_with(address, method, path, "text/plain", "")
}

/// Sends a request with a body of the content type `sort`.
///
/// # Errors
/// No process listens, or the answer is not HTTP.
pub fn request_with(address: SocketAddr, method: &str, path: &str, sort: &str, body: &str) -> io::Result<HttpAnswer> {
    send(address, method, path, &format!("content-type: {sort}\r\n"), body)
}

/// Sends a request with a token and JSON.
///
/// # Errors
/// No process listens, or the answer is not HTTP.
pub fn authorized(address: SocketAddr, method: &str, path: &str, token: &str, body: &str) -> io::Result<HttpAnswer> {
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    send(address, method, path, &headers, body)
}

/// Status and body of a GET with a token, for answers that are not text.
///
/// # Errors
/// No process listens, or the answer is not HTTP.
pub fn download(address: SocketAddr, path: &str, token: &str) -> io::Result<(u16, Vec<u8>)> {
    let answer = exchange(address, "GET", path, &format!("authorization: Bearer {token}\r\n"), "")?;
    let (head, body) = split(&answer)?;
    Ok((status(head).ok_or_else(|| unlike(&answer))?, body.to_vec()))
}

/// Sends a request with further header lines, each with its end.
///
/// # Errors
/// No process listens, or the answer is not HTTP.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> io::Result<HttpAnswer> {
    let answer = exchange(address, method, path, headers, body)?;
    let (head, body) = split(&answer)?;
    let (status, body) = (status(head).ok_or_else(|| unlike(&answer))?, String::from_utf8_lossy(body));
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(&body).ok_or_else(|| unlike(&answer))? } else { body.into_owned() };
    Ok(HttpAnswer { status, body })
}

fn unlike(answer: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP answer: {:?}", String::from_utf8_lossy(answer)))
}

/// Head and body of an answer.
fn split(answer: &[u8]) -> io::Result<(&str, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| unlike(answer))?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| unlike(answer))?;
    Ok((head, &answer[end + 4..]))
}

fn status(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.parse().ok()
}

/// The whole answer to a request.
fn exchange(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}");
    write!(socket, "{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// The body of a GET; `None` when nobody answers, or the status is not 200.
#[must_use]
pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    request(address, "GET", path).ok().filter(|answer| answer.status == 200).map(|answer| answer.body)
}

/// The JSON of a GET.
#[must_use]
pub fn json(address: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_str(&get(address, path)?).ok()
}

/// The value of a metric: the sum over all its series whose labels contain each of `labels`, written `name="value"`.
#[must_use]
pub fn metric(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut sum = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (found, has) = series.split_once('{').unwrap_or((series, ""));
        if found == name && labels.iter().all(|label| has.contains(label)) {
            *sum.get_or_insert(0.0) += value.parse::<f64>().unwrap_or(f64::NAN);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{metric, unchunk};

    #[test]
    fn metrics_are_summed_over_the_labels_that_are_not_asked_for() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\na{x=\"2\"} 8\nab 16\nplain 5\n";
        assert_eq!(metric(text, "a", &["x=\"1\""]), Some(7.0));
        assert_eq!(metric(text, "a", &[]), Some(15.0));
        assert_eq!(metric(text, "plain", &[]), Some(5.0));
        assert_eq!(metric(text, "b", &[]), None);
    }

    #[test]
    fn chunked_bodies_are_joined() {
        assert_eq!(unchunk("3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n").as_deref(), Some("abcd"));
    }
}
