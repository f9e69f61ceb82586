//! The right to read or to change by HTTP. In: the tokens of the configuration, a request. Out: nothing, or the problem that is answered.
//! Next: the handler of the route. Pure.
//!
//! Where no token is configured, requests from this machine may read. Note: an address does not identify a client. Behind a reverse proxy on
//! the same machine every request comes from this machine, and so does one from every web page that its users look at. A proxy betrays
//! itself by its headers, and a page whose name leads to loopback by its `Host`. But nginx with nothing but `proxy_pass` adds no header and
//! puts the activator's own address into `Host`; where such a proxy runs, a token has to be configured, which every request then needs. A
//! change always needs a token in the header `Authorization`, which no page can send to us: we answer no request for permission (CORS).

use std::net::IpAddr;

use liveedgecast_common::http::{HeaderMap, Request};

use super::problem::ApiProblem;
use crate::config::ApiTokens;

/// The rights that a route may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// To see streams and workers.
    Read,
    /// To change them.
    Change,
}

/// Headers by which proxies name the client or themselves, besides those that begin with `x-forwarded-`.
const FORWARDED: [&str; 9] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "true-client-ip",
    "cf-connecting-ip",
    "cdn-loop",
];

/// Refuses a request that lacks a right.
pub(super) fn check(tokens: &ApiTokens, right: Right, request: &Request) -> Result<(), ApiProblem> {
    if tokens.admin.is_none() && tokens.view.is_none() {
        return match right {
            Right::Read if is_local(request) => Ok(()),
            Right::Read => Err(ApiProblem::ReadingClosed),
            Right::Change => Err(ApiProblem::ChangesClosed),
        };
    }
    let bearer = request.bearer.as_ref().ok_or(ApiProblem::TokenMissing)?;
    // Both are compared, so that the time does not tell which one there is.
    let is = |token: &Option<_>| token.as_ref().is_some_and(|token| token == bearer);
    match (is(&tokens.admin), is(&tokens.view), right) {
        (true, _, _) | (_, true, Right::Read) => Ok(()),
        (false, true, Right::Change) if tokens.admin.is_none() => Err(ApiProblem::ChangesClosed),
        (false, true, Right::Change) => Err(ApiProblem::TokenReadsOnly),
        (false, false, _) => Err(ApiProblem::TokenUnknown),
    }
}

/// As [`check`], for the routes in the form of nginx-rtmp: their clients have a URL to fill in and no header, so that the token may be the password of
/// that URL. Note: a browser that was once given such a URL sends the password along with whatever any page asks of this host, so requests that a page
/// of another site causes are refused. Browsers say so to HTTPS and to this machine alone. Elsewhere the protection is that no answer asks for a password:
/// the one challenge is `Bearer`, so a browser has none to send unless its user has typed the URL with the password in it.
pub(super) fn check_url(tokens: &ApiTokens, right: Right, request: &Request) -> Result<(), ApiProblem> {
    let site = request.headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return Err(ApiProblem::OtherSite);
    }
    let bearer = request.bearer.clone().or_else(|| request.password.clone());
    check(tokens, right, &Request { bearer, ..request.clone() })
}

/// Returns whether a request was made on this machine, as far as its address and its headers tell.
fn is_local(request: &Request) -> bool {
    let mut names = request.headers.keys().map(|name| name.as_str());
    let forwarded = names.any(|name| name.starts_with("x-forwarded-") || FORWARDED.contains(&name));
    request.peer.to_canonical().is_loopback() && !forwarded && is_addressed_here(&request.headers)
}

/// Returns whether the one header `Host` names loopback.
fn is_addressed_here(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all("host").iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::key::Secret;

    use super::*;

    const ADMIN: &str = "the token of operators";
    const VIEW: &str = "the token of readers";

    fn tokens(admin: bool, view: bool) -> ApiTokens {
        ApiTokens { admin: admin.then(|| Secret::new(ADMIN)), view: view.then(|| Secret::new(VIEW)) }
    }

    fn request(peer: &str, headers: &[(&'static str, &'static str)], bearer: Option<&str>) -> Request {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Request {
            path: String::new(),
            query: String::new(),
            captures: Vec::new(),
            body: bytes::Bytes::new(),
            peer: peer.parse().unwrap(),
            bearer: bearer.map(Secret::new),
            password: None,
            headers: map,
        }
    }

    /// Address of the client, headers, whether it may read.
    type ReadingRow = (&'static str, &'static [(&'static str, &'static str)], bool);

    #[test]
    fn this_machine_alone_reads_where_no_token_is_configured_and_nobody_changes() {
        let rows: &[ReadingRow] = &[
            ("127.0.0.1", &[("host", "localhost:8080")], true),
            ("127.0.0.1", &[("host", "LOCALHOST")], true),
            ("127.8.7.6", &[("host", "127.8.7.6:8080")], true),
            ("::1", &[("host", "[::1]:8080")], true),
            ("::ffff:127.0.0.1", &[("host", "127.0.0.1")], true),
            ("10.0.0.1", &[("host", "localhost:8080")], false),
            ("::ffff:10.0.0.1", &[("host", "localhost")], false),
            ("127.0.0.1", &[], false),
            ("127.0.0.1", &[("host", "evil.example:8080")], false),
            ("127.0.0.1", &[("host", "localhost.evil.example")], false),
            ("127.0.0.1", &[("host", "10.0.0.1:8080")], false),
            ("127.0.0.1", &[("host", "[::1")], true),
            ("127.0.0.1", &[("host", "")], false),
            ("127.0.0.1", &[("host", "localhost"), ("host", "evil.example")], false),
            ("127.0.0.1", &[("host", "localhost"), ("x-forwarded-for", "10.0.0.1")], false),
            ("127.0.0.1", &[("host", "localhost"), ("x-forwarded-proto", "https")], false),
            ("127.0.0.1", &[("host", "localhost"), ("forwarded", "for=10.0.0.1")], false),
            ("127.0.0.1", &[("host", "localhost"), ("via", "1.1 proxy")], false),
            ("127.0.0.1", &[("host", "localhost"), ("x-real-ip", "10.0.0.1")], false),
        ];
        for (peer, headers, reads) in rows {
            for bearer in [None, Some(ADMIN)] {
                let request = request(peer, headers, bearer);
                let read = check(&tokens(false, false), Right::Read, &request);
                assert_eq!(read, if *reads { Ok(()) } else { Err(ApiProblem::ReadingClosed) }, "{peer} {headers:?}");
                let change = check(&tokens(false, false), Right::Change, &request);
                assert_eq!(change, Err(ApiProblem::ChangesClosed), "{peer} {headers:?}");
            }
        }
    }

    #[test]
    fn each_token_gives_its_own_right_wherever_the_request_comes_from() {
        use ApiProblem::{ChangesClosed, TokenMissing, TokenReadsOnly, TokenUnknown};
        let rows = [
            (tokens(true, true), None, Err(TokenMissing), Err(TokenMissing)),
            (tokens(true, true), Some(ADMIN), Ok(()), Ok(())),
            (tokens(true, true), Some(VIEW), Ok(()), Err(TokenReadsOnly)),
            (tokens(true, true), Some("another token"), Err(TokenUnknown), Err(TokenUnknown)),
            (tokens(true, true), Some(""), Err(TokenUnknown), Err(TokenUnknown)),
            (tokens(true, false), Some(ADMIN), Ok(()), Ok(())),
            (tokens(true, false), Some(VIEW), Err(TokenUnknown), Err(TokenUnknown)),
            (tokens(false, true), Some(ADMIN), Err(TokenUnknown), Err(TokenUnknown)),
            (tokens(false, true), Some(VIEW), Ok(()), Err(ChangesClosed)),
            (tokens(false, true), None, Err(TokenMissing), Err(TokenMissing)),
        ];
        for (tokens, bearer, read, change) in rows {
            for peer in ["127.0.0.1", "10.0.0.1"] {
                let request = request(peer, &[("host", "localhost:8080")], bearer);
                assert_eq!(check(&tokens, Right::Read, &request), read, "{tokens:?} {bearer:?}");
                assert_eq!(check(&tokens, Right::Change, &request), change, "{tokens:?} {bearer:?}");
            }
        }
    }
    #[test]
    fn password_of_a_url_counts_where_nginx_has_its_routes_and_for_no_page_of_another_site() {
        use ApiProblem::{OtherSite, TokenReadsOnly, TokenUnknown};
        let with = |headers: &[(&'static str, &'static str)], password: &str| Request {
            password: Some(Secret::new(password)),
            ..request("10.0.0.1", headers, None)
        };
        let tokens = tokens(true, true);
        assert_eq!(check_url(&tokens, Right::Change, &with(&[], ADMIN)), Ok(()));
        assert_eq!(check_url(&tokens, Right::Read, &with(&[], VIEW)), Ok(()));
        assert_eq!(check_url(&tokens, Right::Change, &with(&[], VIEW)), Err(TokenReadsOnly));
        assert_eq!(check_url(&tokens, Right::Read, &with(&[], "another")), Err(TokenUnknown));
        assert_eq!(check(&tokens, Right::Read, &with(&[], ADMIN)), Err(ApiProblem::TokenMissing));
        for (site, answer) in [("none", Ok(())), ("same-origin", Ok(())), ("cross-site", Err(OtherSite))] {
            assert_eq!(check_url(&tokens, Right::Change, &with(&[("sec-fetch-site", site)], ADMIN)), answer, "{site}");
        }
        let bearer = Request { bearer: Some(Secret::new(ADMIN)), ..with(&[], "another") };
        assert_eq!(check_url(&tokens, Right::Change, &bearer), Ok(()), "the header of the API comes first");
    }
}
