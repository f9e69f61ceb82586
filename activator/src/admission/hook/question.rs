//! The question about a publisher, in nginx-rtmp's form or as JSON. In: the facts that its `connect` and `publish` have. Out: a body. Pure. Next: `task`,
//! which posts it.
//!
//! Note: a form may have the same name twice, and most servers take the last one. So a field of the key's query that has a name of ours is left out: a
//! stranger could otherwise publish `key?name=another` and be judged as another. PHP reads `name[]` and ` name` as `name`, too.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use liveedgecast_common::key::{AppName, StreamKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::admission::rules::AdmissionRequest;
use crate::config::HookFormat;

/// Fields of a query that are passed on; a query has at most 4608 bytes.
const MOST_FIELDS: usize = 64;
/// Characters that a form shows as they are (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Facts about a publisher's program, as it told them. They may hold tokens, so `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientFacts {
    /// The id of its stream, by which both calls about it can be matched.
    pub id: String,
    /// The URL that it believes it connected to.
    pub tc_url: String,
    /// Name and version of the program.
    pub flash_ver: String,
    /// `swfUrl`.
    pub swf_url: String,
    /// `pageUrl`.
    pub page_url: String,
}

impl fmt::Debug for ClientFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientFacts({})", self.id)
    }
}

/// The thing that a server is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookCall {
    /// A publisher wants to publish.
    Publish,
    /// The stream has ended.
    PublishDone,
}

impl HookCall {
    /// nginx-rtmp's word, which metrics show too.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::PublishDone => "publish_done",
        }
    }
}

/// A publisher, as a server is told of it.
#[derive(Clone, Debug)]
pub(in crate::admission) struct Asked {
    pub(in crate::admission) client: IpAddr,
    pub(in crate::admission) app: AppName,
    pub(in crate::admission) key: StreamKey,
    pub(in crate::admission) facts: ClientFacts,
}

impl Asked {
    /// The publisher of a request; `None` if its app is no name.
    pub(in crate::admission) fn of(request: &AdmissionRequest) -> Option<Self> {
        let AdmissionRequest { client, app, key, facts } = request;
        Some(Self { client: *client, app: AppName::parse(app).ok()?, key: key.clone(), facts: facts.clone() })
    }

    /// The content type and the body of a call.
    pub(super) fn body(&self, call: HookCall, format: HookFormat) -> (&'static str, Bytes) {
        match format {
            HookFormat::Form => ("application/x-www-form-urlencoded", self.form(call).into()),
            HookFormat::Json => ("application/json", self.json(call).into()),
        }
    }

    fn own_fields(&self, call: HookCall) -> [(&'static str, String); 9] {
        let facts = &self.facts;
        [
            ("call", call.as_str().to_owned()),
            ("app", self.app.name().to_owned()),
            ("name", self.key.name().to_owned()),
            ("addr", self.client.to_canonical().to_string()),
            ("clientid", facts.id.clone()),
            ("tcurl", facts.tc_url.clone()),
            ("flashver", facts.flash_ver.clone()),
            ("pageurl", facts.page_url.clone()),
            ("swfurl", facts.swf_url.clone()),
        ]
    }

    /// The fields of the key's query, then those of the app's, decoded.
    fn fields_of_queries(&self) -> Vec<(String, String)> {
        let queries = [self.key.query(), self.app.query()].into_iter().flatten();
        let pairs = queries.flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let fields = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        fields.map(|(name, value)| (decoded(name), decoded(value))).take(MOST_FIELDS).collect()
    }

    fn form(&self, call: HookCall) -> String {
        let own = self.own_fields(call);
        let is_own = |name: &str| {
            let bare = name.trim_start().split(['[', '\0']).next().unwrap_or_default().trim_end();
            own.iter().any(|(known, _)| known.eq_ignore_ascii_case(bare)) || bare.eq_ignore_ascii_case("type")
        };
        let mut form = String::new();
        let mut add = |name: &str, value: &str| {
            let separator = if form.is_empty() { "" } else { "&" };
            let (name, value) = (utf8_percent_encode(name, ESCAPED), utf8_percent_encode(value, ESCAPED));
            form.push_str(&format!("{separator}{name}={value}"));
        };
        own.iter().for_each(|(name, value)| add(name, value));
        add("type", "live");
        for (name, value) in self.fields_of_queries().iter().filter(|(name, _)| !is_own(name)) {
            add(name, value);
        }
        form
    }

    fn json(&self, call: HookCall) -> String {
        let mut object: Map<String, Value> =
            self.own_fields(call).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        // In an object of their own, so that none can stand in for a field of ours. The first of two with one name counts: it is the key's.
        let mut args = Map::new();
        for (name, value) in self.fields_of_queries() {
            args.entry(name).or_insert(value.into());
        }
        object.insert("args".to_owned(), args.into());
        Value::Object(object).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(app: &str, key: &str) -> Asked {
        let facts = ClientFacts {
            id: "abc".to_owned(),
            tc_url: "rtmp://h/live?x".to_owned(),
            flash_ver: "FMLE/3.0 (compatible)".to_owned(),
            ..ClientFacts::default()
        };
        let client = "::ffff:10.0.0.1".parse().unwrap();
        Asked { client, app: AppName::parse(app).unwrap(), key: StreamKey::parse(key).unwrap(), facts }
    }

    #[test]
    fn form_is_that_of_nginx_rtmp() {
        let (kind, body) = asked("live", "k/e y?sign=a%2Fb&n=1").body(HookCall::Publish, HookFormat::Form);
        assert_eq!(kind, "application/x-www-form-urlencoded");
        assert_eq!(
            body,
            "call=publish&app=live&name=k%2Fe%20y&addr=10.0.0.1&clientid=abc&tcurl=rtmp%3A%2F%2Fh%2Flive%3Fx\
             &flashver=FMLE%2F3.0%20%28compatible%29&pageurl=&swfurl=&type=live&sign=a%2Fb&n=1"
        );
    }

    #[test]
    fn query_cannot_stand_in_for_a_field_of_ours() {
        let tricks = "k?name=another&NAME=x&%6eame=x&name[]=x&+addr=1.2.3.4&call%00=y&type=vod&token=t&app";
        let (_, body) = asked("live?name=app&room=7", tricks).body(HookCall::PublishDone, HookFormat::Form);
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.starts_with("call=publish_done&app=live&name=k&"), "{body}");
        assert!(body.ends_with("&type=live&token=t&room=7"), "{body}");
    }

    #[test]
    fn json_has_the_fields_of_the_query_apart() {
        let (kind, body) =
            asked("live?token=of-the-app", "k?name=another&token=of-the-key").body(HookCall::Publish, HookFormat::Json);
        assert_eq!(kind, "application/json");
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((value["name"].as_str(), value["call"].as_str()), (Some("k"), Some("publish")));
        assert_eq!(value["args"], serde_json::json!({"name": "another", "token": "of-the-key"}));
    }
}
