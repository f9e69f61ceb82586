//! The answer of a server that was asked about a publisher. In: status, `Location` and body, from a server that may err. Out: a [`HookAnswer`]. Pure.
//! Next: `rules`.
//!
//! ```text
//!  2xx ──────────────▶ accepted          JSON: its body may name the publisher, a route, destinations, another key
//!  3xx, rtmp:// ─────▶ accepted, to that URL alone          3xx, a bare name ─▶ accepted, under that key
//!  502, 503, 504 ────▶ away: a proxy speaks for a server that does not
//!  any other ────────▶ refused                             JSON: its body may give a reason
//! ```

use liveedgecast_common::key::StreamKey;
use liveedgecast_common::url::{MAX_URLS, PushTemplate};
use serde::Deserialize;

use crate::config::{HookFormat, RouteDestination, name_of};

/// Most bytes of an answer: 32 destinations with long URLs fit.
pub(super) const MOST_ANSWER: usize = 256 << 10;
/// Most characters of a reason that a publisher is shown: a line of OBS's dialog, and some more.
const MOST_REASON: usize = 200;

/// The decision of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookAnswer {
    /// The publisher may publish.
    Accept(Box<Granted>),
    /// The publisher may not, for this reason, if the server gives one; its text is cleaned and short.
    Refuse(Option<String>),
    /// There is no answer.
    Away(String),
    /// The answer makes no sense, for this reason. It is the operator's mistake, and no publisher's.
    Unusable(String),
}

/// The terms on which a publisher may publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Its name.
    pub publisher: Option<String>,
    /// The stream key that counts in place of its own.
    pub key: Option<StreamKey>,
    /// The name of its route; `None`: `default`.
    pub route: Option<String>,
    /// Its destinations in place of a route's.
    pub destinations: Vec<RouteDestination>,
}

/// The body of an answer in JSON. A name that is not known is a mistake: a misspelt `destinations` must not send a stream elsewhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerBody {
    publisher: Option<String>,
    name: Option<String>,
    route: Option<String>,
    destinations: Option<Vec<AnswerDestination>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerDestination {
    name: String,
    url: String,
    key: Option<String>,
    #[serde(default)]
    required: bool,
}

/// The body of a refusal in JSON. Other names may stand beside the reason: servers have bodies of their own for errors.
#[derive(Deserialize)]
struct RefusalBody {
    reason: String,
}

/// Reads an answer. `location` is the header, `body` has at most 256 KiB.
#[must_use]
pub fn read_answer(format: HookFormat, status: u16, location: Option<&str>, body: &[u8]) -> HookAnswer {
    let read = match status {
        200..=299 if format == HookFormat::Json => granted(body),
        200..=299 => Ok(Granted::default()),
        300..=399 => redirected(location),
        502..=504 => return HookAnswer::Away(format!("status {status}")),
        _ if format == HookFormat::Json => return HookAnswer::Refuse(reason(body)),
        _ => return HookAnswer::Refuse(None),
    };
    match read {
        Ok(granted) => HookAnswer::Accept(Box::new(granted)),
        Err(why) => HookAnswer::Unusable(why),
    }
}

fn redirected(location: Option<&str>) -> Result<Granted, String> {
    let location = location.map(str::trim).filter(|text| !text.is_empty());
    let location = location.ok_or("a redirect has no Location: write an rtmp:// URL, or the stream key to use")?;
    if location.contains("://") {
        let url = push_url(location).map_err(|why| format!("Location: {why}"))?;
        let destination =
            RouteDestination { name: "redirect".to_owned(), url, required: false, enabled: true, backup: None };
        return Ok(Granted { destinations: vec![destination], ..Granted::default() });
    }
    let key = StreamKey::parse(location).map_err(|why| format!("Location: {why}"))?;
    Ok(Granted { key: Some(key), ..Granted::default() })
}

/// The URL of a redirect. As with nginx-rtmp, one with an app alone goes on with the publisher's key.
fn push_url(text: &str) -> Result<PushTemplate, String> {
    let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let is_app = !path.is_empty() && !path.trim_end_matches('/').contains(['/', '#', '?']);
    let whole = if is_app { format!("{}/{{key}}", text.trim_end_matches('/')) } else { text.to_owned() };
    PushTemplate::parse_of_route(&whole).map_err(|error| error.to_string())
}

/// The reason that a refusal gives, fit to be shown: on one line, without characters that could rewrite it.
fn reason(body: &[u8]) -> Option<String> {
    let RefusalBody { reason } = serde_json::from_slice(body).ok()?;
    let plain = |c: char| c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric());
    let words = reason.split(|c: char| !plain(c)).filter(|word| !word.is_empty());
    let text: String = words.collect::<Vec<_>>().join(" ").chars().take(MOST_REASON).collect();
    (!text.is_empty()).then_some(text)
}

fn granted(body: &[u8]) -> Result<Granted, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Granted::default());
    }
    // serde's own text may show a value, which may be a key.
    let body: AnswerBody = serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "has names or values that do not belong there" } else { "is no JSON" };
        format!("the body {what}, at line {} column {}", error.line(), error.column())
    })?;
    let name = |text: Option<String>, what: &str| match text.map(|text| name_of(&text)) {
        None => Ok(None),
        Some(Ok(name)) => Ok(Some(name)),
        Some(Err(why)) => Err(format!("{what}: {why}")),
    };
    if body.route.is_some() && body.destinations.is_some() {
        return Err("both a route and destinations are given: choose one".to_owned());
    }
    let key = body.name.map(|key| StreamKey::parse(&key)).transpose().map_err(|why| format!("name: {why}"))?;
    Ok(Granted {
        publisher: name(body.publisher, "publisher")?,
        key,
        route: name(body.route, "route")?,
        destinations: body.destinations.map(destinations).transpose()?.unwrap_or_default(),
    })
}

fn destinations(given: Vec<AnswerDestination>) -> Result<Vec<RouteDestination>, String> {
    if given.is_empty() || given.len() > MAX_URLS {
        return Err(format!("destinations: must be from 1 to {MAX_URLS}"));
    }
    let mut all: Vec<RouteDestination> = Vec::new();
    for (at, AnswerDestination { name, url, key, required }) in given.into_iter().enumerate() {
        let name = name_of(&name).map_err(|why| format!("destinations[{at}].name: {why}"))?;
        let url = match &key {
            Some(key) => PushTemplate::with_key(&url, key),
            None => PushTemplate::parse_of_route(&url),
        };
        let url = url.map_err(|why| format!("destinations[{at}].url: {why}"))?;
        if all.iter().any(|before| before.name == name || before.url.same_place(&url)) {
            return Err(format!("destinations[{at}]: another destination has that name or that place"));
        }
        all.push(RouteDestination { name, url, required, enabled: true, backup: None });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(status: u16, location: Option<&str>) -> HookAnswer {
        read_answer(HookFormat::Form, status, location, b"anything")
    }

    fn json(body: &str) -> Result<Granted, String> {
        match read_answer(HookFormat::Json, 200, None, body.as_bytes()) {
            HookAnswer::Accept(granted) => Ok(*granted),
            HookAnswer::Unusable(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn statuses_are_read_as_nginx_rtmp_reads_them() {
        for status in [200, 204, 299] {
            assert_eq!(form(status, None), HookAnswer::Accept(Box::default()));
        }
        for status in [100, 199, 400, 401, 403, 404, 500, 501, 505] {
            assert_eq!(form(status, Some("rtmp://a/b/c")), HookAnswer::Refuse(None), "{status}");
        }
        for status in 502..=504 {
            assert!(matches!(form(status, None), HookAnswer::Away(_)));
        }
    }

    #[test]
    fn redirect_leads_to_a_url_or_renames() {
        let to = |location: &str| match form(302, Some(location)) {
            HookAnswer::Accept(granted) => *granted,
            other => panic!("{location}: {other:?}"),
        };
        for (location, filled) in [
            ("rtmp://a/app/name", "app/name"),
            ("rtmp://a/app", "app/own"),
            ("rtmp://a/app/", "app/own"),
            ("rtmps://a/x/y/z", "x/y/z"),
        ] {
            let granted = to(location);
            let url = granted.destinations[0].url.resolve("live", &StreamKey::parse("own").unwrap()).unwrap();
            assert_eq!(format!("{}/{}", url.app, url.key.expose()), filled, "{location}");
        }
        assert_eq!(to(" other ").key.unwrap().expose(), "other");
        for location in [None, Some(""), Some("http://a/b"), Some("rtmp://"), Some("/other"), Some("a/../b")] {
            assert!(matches!(form(301, location), HookAnswer::Unusable(_)), "{location:?}");
        }
    }

    #[test]
    fn json_may_name_the_publisher_a_route_or_destinations() {
        assert_eq!(json(" \n"), Ok(Granted::default()));
        assert_eq!(json("{}"), Ok(Granted::default()));
        let granted = json(r#"{"publisher": "studio-a", "route": "church", "name": "other?x=1"}"#).unwrap();
        assert_eq!((granted.publisher.as_deref(), granted.route.as_deref()), (Some("studio-a"), Some("church")));
        assert_eq!(granted.key.unwrap().expose(), "other?x=1");
        let text = r#"{"destinations": [{"name": "yt", "url": "rtmp://a/live2", "key": "s3cret", "required": true},
            {"name": "copy", "url": "rtmp://b/rec/{publisher}"}]}"#;
        let granted = json(text).unwrap();
        assert_eq!(
            granted.destinations.iter().map(|at| (at.name.as_str(), at.required)).collect::<Vec<_>>(),
            [("yt", true), ("copy", false)]
        );
    }

    #[test]
    fn refusal_in_json_may_give_a_reason_that_is_cleaned_and_cut() {
        let reason = |body: &str| match read_answer(HookFormat::Json, 403, None, body.as_bytes()) {
            HookAnswer::Refuse(reason) => reason,
            other => panic!("{other:?}"),
        };
        for (body, shown) in [
            ("", None),
            ("no JSON", None),
            (r#"{"error": "x"}"#, None),
            (r#"{"reason": 7}"#, None),
            (r#"{"reason": " \n "}"#, None),
            (
                r#"{"reason": "your plan\r\n has   ended: ünpaid \u202e!", "code": 7}"#,
                Some("your plan has ended: ünpaid !"),
            ),
        ] {
            assert_eq!(reason(body).as_deref(), shown, "{body}");
        }
        assert_eq!(reason(&format!(r#"{{"reason": "{}"}}"#, "é".repeat(300))).unwrap().chars().count(), 200);
        let form = read_answer(HookFormat::Form, 403, None, br#"{"reason": "a form has no reason"}"#);
        assert_eq!(form, HookAnswer::Refuse(None));
    }

    #[test]
    fn json_that_makes_no_sense_is_told_without_its_values() {
        for (text, part) in [
            ("s3cret", "is no JSON"),
            ("[]", "do not belong there"),
            (r#"{"destinatons": ["s3cret"]}"#, "do not belong there"),
            (r#"{"publisher": "s3cret "}"#, "publisher: a name has at most 63"),
            (r#"{"name": "/s3cret"}"#, "name: "),
            (r#"{"route": "a", "destinations": []}"#, "choose one"),
            (r#"{"destinations": []}"#, "must be from 1 to 32"),
            (
                r#"{"destinations": [{"name": "a", "url": "http://s3cret"}]}"#,
                "destinations[0].url: a push URL begins with",
            ),
            (
                r#"{"destinations": [{"name": "a", "url": "rtmp://a/b/s3cret"}, {"name": "a", "url": "rtmp://c/d/e"}]}"#,
                "destinations[1]: another",
            ),
        ] {
            let why = json(text).expect_err(text);
            assert!(why.contains(part) && !why.contains("s3cret"), "{text}: {why}");
        }
        let many: Vec<String> =
            (0..33).map(|at| format!(r#"{{"name": "n{at}", "url": "rtmp://h{at}/a/b"}}"#)).collect();
        assert!(json(&format!(r#"{{"destinations": [{}]}}"#, many.join(","))).is_err());
    }
}
