//! The token of a `publish`. In: an app and a stream key, as a publisher brings them. Out: [`Presented`], the token and the names without it. Pure. Next:
//! `check`.
//!
//! A token is in a query, as `token=` or `jwt=`: of the key, or else of the app. Or it is the key itself, if it fits into a name. Either way the names
//! that later rooms get have no token: what is in `{key}` goes to other people's servers.

use std::borrow::Cow;
use std::fmt;

use liveedgecast_common::key::{AppName, StreamKey};
use percent_encoding::percent_decode_str;

/// Longest token, in bytes. Those of big issuers, with RSA of 4096 bits and lists of groups, have 2 KiB; cookies end at 4 KiB, too.
pub const MOST_TOKEN: usize = 4096;
/// The names of a query's field with a token.
const FIELDS: [&str; 2] = ["token", "jwt"];
/// The beginning of every token: `{"` in base64.
const BEGINNING: &str = "eyJ";

/// A token, and the names of its publisher without it. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    pub(super) token: String,
    /// The app.
    pub(super) app: AppName,
    /// The name of the key; `None`: the publisher has given none, or the token in its place.
    pub(super) name: Option<String>,
    /// The rest of the key's query.
    query: String,
}

impl Presented {
    /// Finds the token; `None`: there is none.
    #[must_use]
    pub fn find(app: &AppName, key: &StreamKey) -> Option<Self> {
        let (of_key, query) = split(key.query());
        let (of_app, app_query) = split(app.query());
        let app = AppName::parse(&joined(app.name(), &app_query)).ok()?;
        let is_token = is_token(key.name());
        let token = of_key.or(of_app).or_else(|| is_token.then(|| key.name().to_owned()))?;
        let name = (!key.name().is_empty() && !is_token).then(|| key.name().to_owned());
        Some(Self { token, app, name, query })
    }

    /// The stream key of a stream with that name.
    #[must_use]
    pub fn key_of(&self, name: &str) -> Option<StreamKey> {
        StreamKey::parse(&joined(name, &self.query)).ok()
    }

    /// App and key of the publisher without the token; `None` if the key has no name but the token.
    #[must_use]
    pub fn without_token(&self) -> Option<(AppName, StreamKey)> {
        let name = self.name.as_deref().or((!self.query.is_empty()).then_some(""))?;
        Some((self.app.clone(), self.key_of(name)?))
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

/// The first token of a query, and the query without the fields of tokens.
fn split(query: Option<&str>) -> (Option<String>, String) {
    let (mut token, mut rest) = (None, Vec::new());
    for field in query.unwrap_or_default().split('&') {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        if !FIELDS.contains(&&*decoded(name)) {
            rest.push(field);
        } else if token.is_none() && !value.is_empty() {
            token = Some(decoded(value).into_owned());
        }
    }
    (token, rest.join("&"))
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

fn joined(name: &str, query: &str) -> String {
    if query.is_empty() { name.to_owned() } else { format!("{name}?{query}") }
}

/// Tells whether a key's name has the form of a token: three parts in base64.
fn is_token(name: &str) -> bool {
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let mut parts = name.split('.');
    name.starts_with(BEGINNING)
        && parts.by_ref().take(3).filter(|part| plain(part)).count() == 3
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(app: &str, key: &str) -> Option<Presented> {
        Presented::find(&AppName::parse(app).unwrap(), &StreamKey::parse(key).unwrap())
    }

    #[test]
    fn token_is_found_and_taken_out_of_the_names() {
        // App, key; token, app and key of the stream `cam` without it.
        let table = [
            ("live", "cam?token=T", "T", "live", "cam"),
            ("live", "cam?jwt=T&x=1", "T", "live", "cam?x=1"),
            ("live", "cam?x=1&token=T&y=2", "T", "live", "cam?x=1&y=2"),
            ("live", "cam?token=T&token=U&jwt=V", "T", "live", "cam"),
            ("live", "cam?token=&jwt=V", "V", "live", "cam"),
            ("live", "cam?%74oken=T%2E", "T.", "live", "cam"),
            ("live?token=T", "cam", "T", "live", "cam"),
            ("live?room=7&jwt=T/", "cam?a", "T", "live?room=7", "cam?a"),
            ("live?token=U", "cam?token=T", "T", "live", "cam"),
            ("live", "?token=T", "T", "live", "cam"),
            ("live", "?streamname=1&token=T", "T", "live", "cam?streamname=1"),
            ("live", "eyJh.b_-9.c", "eyJh.b_-9.c", "live", "cam"),
            ("live", "eyJh.b.c?x=1", "eyJh.b.c", "live", "cam?x=1"),
            ("live", "eyJh.b.c?token=T", "T", "live", "cam"),
        ];
        for (app, key, token, bare_app, bare_key) in table {
            let found = find(app, key).unwrap_or_else(|| panic!("{app} {key}"));
            assert_eq!((found.token.as_str(), found.app.expose()), (token, bare_app), "{app} {key}");
            assert_eq!(found.key_of("cam").unwrap().expose(), bare_key, "{app} {key}");
            assert!(!format!("{found:?}").contains(token));
        }
    }

    #[test]
    fn publisher_without_a_token_has_none() {
        for (app, key) in [
            ("live", "cam"),
            ("live?tokens=1", "cam?x=token"),
            ("live", "cam?token="),
            ("live", "cam?token"),
            ("live", "eyJh.b"),
            ("live", "eyJh.b.c.d"),
            ("live", "eyJh..c"),
            ("live", "a.b.c"),
            ("live", "eyJh.b/x.c"),
        ] {
            assert_eq!(find(app, key), None, "{app} {key}");
        }
    }

    #[test]
    fn names_without_the_token_are_the_publishers_own() {
        let of = |key: &str| find("live?token=U", key).and_then(|found| found.without_token());
        let (app, key) = of("cam?token=T&x=1").unwrap();
        assert_eq!((app.expose(), key.expose()), ("live", "cam?x=1"));
        assert_eq!(of("?streamname=1").unwrap().1.expose(), "?streamname=1");
        assert!(of("eyJh.b.c").is_none() && of("?token=T").is_none());
    }

    #[test]
    fn token_of_the_longest_length_fits_into_a_key() {
        let token = "t".repeat(MOST_TOKEN);
        assert_eq!(find("live", &format!("{}?token={token}", "k".repeat(255))).unwrap().token, token);
        assert_eq!(find(&format!("live?jwt={token}"), "cam").unwrap().token, token);
    }
}
