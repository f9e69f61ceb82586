//! The table `admission.jwt` of a configuration file. In: the table, and the text of its keys. Out: a [`Jwt`], or mistakes. Pure.

use super::table::{FileTable, Found, Mistakes};
use super::yaml::NodeValue;
use crate::config::http_url::HttpUrl;
use crate::config::jwt::{ALGORITHMS, APP_CLAIM, Jwt, JwtKey, JwtKeyError, JwtKeys, NAME_CLAIM};
use liveedgecast_common::key::Secret;

/// The names of the places where keys may be.
pub(super) const KEY_NAMES: [&str; 4] = ["jwks_url", "key_file", "secret", "secret_file"];

/// The rules of tokens. `keys`: the value of the one of [`KEY_NAMES`] that is given.
pub(super) fn rules(mut table: FileTable<'_>, keys: Option<Found<String>>, mistakes: &mut Mistakes) -> Option<Jwt> {
    if !KEY_NAMES.iter().any(|name| table.has(name)) {
        let text = "is missing: write jwks_url: URL, key_file: PATH, or secret_file: PATH";
        mistakes.add(table.place, format!("{}.jwks_url", table.path), text);
    }
    let keys = match keys {
        Some(url) if url.path.ends_with("jwks_url") => {
            url.check(mistakes, |url| HttpUrl::parse(&url).map(JwtKeys::Served))
        }
        Some(file) if file.path.ends_with("key_file") => {
            file.check(mistakes, |text| JwtKey::parse_file(&text).map(JwtKeys::Fixed))
        }
        Some(secret) => secret
            .check(mistakes, |text| Ok::<_, JwtKeyError>(JwtKeys::Fixed(vec![JwtKey::shared(Secret::new(text))?]))),
        None => None,
    };
    let (place, path) = (table.place, format!("{}.algorithms", table.path));
    let mut algorithms = Vec::new();
    for node in table.list("algorithms", mistakes) {
        let found = node.check(mistakes, |node| {
            let known = match &node.value {
                NodeValue::Scalar(text) => ALGORITHMS.iter().find(|(word, _)| word == text),
                _ => None,
            };
            known.ok_or_else(|| format!("must be one of {}", ALGORITHMS.map(|(word, _)| word).join(", ")))
        });
        algorithms.extend(found.map(|found| found.value.1));
    }
    let algorithms = keys.as_ref().map(|keys| keys.value.algorithms(algorithms)).unwrap_or(Ok(Vec::new()));
    let algorithms = algorithms.unwrap_or_else(|error| {
        mistakes.add(place, path, error);
        Vec::new()
    });
    let mut text = |name| table.text(name, mistakes).map(|found| found.value.to_owned());
    let (issuer, audience) = (text("issuer"), text("audience"));
    let (name_claim, app_claim, route_claim) = (text("name_claim"), text("app_claim"), text("route_claim"));
    table.finish(mistakes);
    Some(Jwt {
        keys: keys?.value,
        issuer,
        audience,
        algorithms,
        name_claim: name_claim.unwrap_or_else(|| NAME_CLAIM.to_owned()),
        app_claim: app_claim.unwrap_or_else(|| APP_CLAIM.to_owned()),
        route_claim,
    })
}
