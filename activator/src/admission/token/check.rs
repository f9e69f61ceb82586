//! The rules of a token. In: the rules of the configuration, the issuer's keys, a [`Presented`] token, the time of day. Out: a [`TokenGrant`], or the reason
//! for the refusal. Pure. Next: `rules`.
//!
//! The signature comes first, so nothing of a claim is believed, or told, before. The algorithm is one of those that the rules list, and one that the key
//! is for: a token cannot have a public key taken for a shared secret, and `none` is no algorithm.
//!
//! A stream's identity is its app and the publisher's name, never the token's text: a publisher that returns with a renewed token finds its stream.

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::key::AppName;
use serde_json::{Map, Value};

use super::presented::{MOST_TOKEN, Presented};
use super::provider;
use crate::admission::hook::Granted;
use crate::admission::verdict::RefusalReason;
use crate::config::{Jwt, JwtKey, name_of};

/// Difference of two clocks that is forgiven (RFC 7519, 4.1.4).
const LEEWAY: Duration = Duration::from_secs(60);
/// Keys that a token without `kid` is tried with: a signature costs some 100 µs.
const MOST_TRIES: usize = 8;

/// The terms on which a token lets a publisher in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    /// The app without the token.
    pub app: AppName,
    /// Name, key without the token, and route.
    pub granted: Granted,
}

/// The reason why a token lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There is none.
    Missing,
    /// It is no JWT, or longer than 4 KiB.
    Malformed,
    /// The rules do not list its algorithm.
    Algorithm,
    /// No key is of its id and algorithm.
    UnknownKey,
    /// The signature is another key's.
    Signature,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    Early,
    /// It has no `exp`, or a time that is no number.
    Time,
    /// `iss` is another.
    Issuer,
    /// `aud` is another.
    Audience,
    /// It is for another app.
    App,
    /// It has no name, or none that can be used.
    NoName,
    /// It is for another stream name.
    OtherName,
    /// Its route is none.
    Route,
    /// The keys cannot be fetched.
    KeysAway,
    /// Its key is not among the present ones, which were fetched too short a time ago to be fetched again.
    KeyUnfetched,
}

impl TokenError {
    /// The class of the refusal.
    pub(in crate::admission) fn reason(self) -> RefusalReason {
        match self {
            Self::Missing => RefusalReason::TokenMissing,
            Self::Malformed | Self::Algorithm | Self::UnknownKey | Self::Signature => RefusalReason::Token,
            Self::Expired => RefusalReason::TokenExpired,
            Self::Early
            | Self::Time
            | Self::Issuer
            | Self::Audience
            | Self::App
            | Self::NoName
            | Self::OtherName
            | Self::Route => RefusalReason::TokenClaim,
            Self::KeysAway | Self::KeyUnfetched => RefusalReason::TokenKeys,
        }
    }

    /// The text for the publisher; its operator reads it in OBS.
    pub(in crate::admission) fn description(self) -> &'static str {
        match self {
            Self::Missing => "there is no token: write ?token=TOKEN behind the stream key",
            Self::Malformed => "the token is no signed JWT",
            Self::Algorithm => "the token's algorithm is not accepted here",
            Self::UnknownKey => "the token is signed by an unknown key",
            Self::Signature => "the token's signature is wrong",
            Self::Expired => "the token has expired",
            Self::Early => "the token is not valid yet",
            Self::Time => "the token has no usable time of expiry",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for another audience",
            Self::App => "the token is for another application",
            Self::NoName => "the token has no name that a publisher can have",
            Self::OtherName => "the token is for another stream key",
            Self::Route => "the token is for a route that does not exist",
            Self::KeysAway => "the keys of tokens cannot be fetched, try again later",
            Self::KeyUnfetched => "the token is signed by a key that is not known yet, try again later",
        }
    }
}

/// Checks a token with these keys.
///
/// # Errors
/// The reason why it lets nobody in.
pub fn check(jwt: &Jwt, keys: &[JwtKey], presented: &Presented, now: UtcTime) -> Result<TokenGrant, TokenError> {
    let claims = verified(jwt, keys, &presented.token)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    check_times(&claims, now)?;
    if jwt.issuer.as_deref().is_some_and(|issuer| text("iss") != Some(issuer)) {
        return Err(TokenError::Issuer);
    }
    // A token that is meant for somebody is not for those who have no name (RFC 7519, 4.1.3).
    if !has(claims.get("aud"), jwt.audience.as_deref(), jwt.audience.is_some()) {
        return Err(TokenError::Audience);
    }
    if !has(claims.get(&jwt.app_claim), Some(presented.app.name()), false) {
        return Err(TokenError::App);
    }
    let publisher = text(&jwt.name_claim).and_then(|name| name_of(name).ok()).ok_or(TokenError::NoName)?;
    if presented.name.as_ref().is_some_and(|name| *name != publisher) {
        return Err(TokenError::OtherName);
    }
    let route = match jwt.route_claim.as_ref().and_then(|name| claims.get(name)) {
        None | Some(Value::Null) => None,
        Some(route) => Some(route.as_str().and_then(|route| name_of(route).ok()).ok_or(TokenError::Route)?),
    };
    let key = Some(presented.key_of(&publisher).ok_or(TokenError::NoName)?);
    let granted = Granted { publisher: Some(publisher), key, route, destinations: Vec::new() };
    Ok(TokenGrant { app: presented.app.clone(), granted })
}

/// The claims of a token whose signature is right. They are no longer than the token, and no deeper than `serde_json` goes, which is 128.
fn verified(jwt: &Jwt, keys: &[JwtKey], token: &str) -> Result<Map<String, Value>, TokenError> {
    provider::install();
    if token.len() > MOST_TOKEN || token.split('.').count() != 3 {
        return Err(TokenError::Malformed);
    }
    let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
    if !jwt.algorithms.contains(&header.alg) {
        return Err(TokenError::Algorithm);
    }
    let is_named = |key: &&JwtKey| key.id.is_none() || header.kid.is_none() || key.id == header.kid;
    let mut validation = Validation::new(header.alg);
    // The claims are judged above, by the time that is given there.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    let mut why = TokenError::UnknownKey;
    for key in keys.iter().filter(|key| key.fits(header.alg)).filter(is_named).take(MOST_TRIES) {
        let Some(key) = key.decoding() else { continue };
        match decode::<Map<String, Value>>(token, &key, &validation) {
            Ok(token) => return Ok(token.claims),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => why = TokenError::Signature,
            Err(_) => return Err(TokenError::Malformed),
        }
    }
    Err(why)
}

fn check_times(claims: &Map<String, Value>, now: UtcTime) -> Result<(), TokenError> {
    let (now, leeway) = (now.0 as f64 / 1000.0, LEEWAY.as_secs_f64());
    let time = |name: &str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenError::Time),
    };
    let (expiry, start) = (time("exp")?.ok_or(TokenError::Time)?, time("nbf")?);
    if expiry + leeway <= now {
        return Err(TokenError::Expired);
    }
    if start.is_some_and(|start| start > now + leeway) {
        return Err(TokenError::Early);
    }
    Ok(())
}

/// Tells whether a claim is the wanted text, or a list that has it. A claim that is not there will do unless it is `required`.
fn has(claim: Option<&Value>, wanted: Option<&str>, required: bool) -> bool {
    let is_wanted = |value: &Value| wanted.is_some() && value.as_str() == wanted;
    match claim {
        None | Some(Value::Null) => !required,
        Some(Value::Array(all)) => all.iter().any(is_wanted),
        Some(one) => is_wanted(one),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
