//! The tokens (JWT, RFC 7519) that let publishers in. In: variables, or a table of the configuration file. Out: [`Jwt`], or mistakes with their fix. Next:
//! `admission`, which checks each publisher's token by it.

mod key;

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use liveedgecast_common::config::{Problems, source_of, value_or_file};
use liveedgecast_common::key::Secret;
use liveedgecast_common::setting::{Hidden, file, set, shown};

use super::http_url::HttpUrl;

pub use key::{JwtKey, JwtKeyError};

/// The claim that names the publisher, if the setting names no other.
pub(super) const NAME_CLAIM: &str = "sub";
/// The claim that names the app, if the setting names no other.
pub(super) const APP_CLAIM: &str = "app";
/// The algorithms of public keys that count if none are listed.
const PUBLIC: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// The words for algorithms. `none` is none of them.
pub(super) const ALGORITHMS: [(&str, Algorithm); 7] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The rules of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// The keys, or the place where they are.
    pub keys: JwtKeys,
    /// The issuer that a token must have.
    pub issuer: Option<String>,
    /// The audience that a token must have. Without it a token must have none.
    pub audience: Option<String>,
    /// The algorithms that count; each fits the kind of keys.
    pub algorithms: Vec<Algorithm>,
    /// The claim with the publisher's name.
    pub name_claim: String,
    /// The claim with the app, which a token need not have.
    pub app_claim: String,
    /// The claim with the name of the route, if tokens may choose one.
    pub route_claim: Option<String>,
}

/// The keys of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// These.
    Fixed(Vec<JwtKey>),
    /// The keys of the JWK Set at this address, as it is at the time.
    Served(HttpUrl),
}

impl JwtKeys {
    /// The algorithms that count, if `listed` are listed.
    ///
    /// # Errors
    /// One of them is for keys of another kind.
    pub(super) fn algorithms(&self, listed: Vec<Algorithm>) -> Result<Vec<Algorithm>, &'static str> {
        let is_shared = matches!(self, Self::Fixed(keys) if keys.iter().any(|key| key.fits(Algorithm::HS256)));
        if listed.is_empty() {
            return Ok(if is_shared { vec![Algorithm::HS256] } else { PUBLIC.to_vec() });
        }
        match listed.iter().all(|algorithm| (*algorithm == Algorithm::HS256) == is_shared) {
            true => Ok(listed),
            false if is_shared => Err("a shared secret is for HS256 alone: remove the others"),
            false => Err("HS256 is for a shared secret (secret_file), never for a public key: remove it"),
        }
    }
}

/// The settings of tokens, as typed. More can be said in the configuration file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct JwtArgs {
    /// Address of the JWK Set with the keys that sign publishers' tokens (JWT): http:// or https:// [default: no tokens]
    #[arg(long, env = "LIVEEDGECAST_JWT_JWKS_URL", value_name = "URL", hide_env_values = true)]
    pub jwt_jwks_url: Option<Hidden>,
    /// A file with the public keys that sign publishers' tokens instead (PEM, or a JWK Set); read again when it changes
    #[arg(long, env = "LIVEEDGECAST_JWT_KEY_FILE", value_name = "PATH")]
    pub jwt_key_file: Option<PathBuf>,
    /// The secret that signs publishers' tokens instead (HS256), 32 bytes or more
    #[arg(long, env = "LIVEEDGECAST_JWT_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub jwt_secret: Option<Hidden>,
    /// A file with that secret; read again when it changes
    #[arg(long, env = "LIVEEDGECAST_JWT_SECRET_FILE", value_name = "PATH")]
    pub jwt_secret_file: Option<PathBuf>,
    /// The issuer (iss) that tokens must have [default: any]
    #[arg(long, env = "LIVEEDGECAST_JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,
    /// The audience (aud) that tokens must have [default: tokens must have none]
    #[arg(long, env = "LIVEEDGECAST_JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,
}

impl JwtArgs {
    /// The file with keys, and the name of its setting.
    #[must_use]
    pub(super) fn file(&self) -> Option<(&'static str, PathBuf)> {
        let secret = file(&self.jwt_secret_file).map(|path| ("LIVEEDGECAST_JWT_SECRET_FILE", path));
        secret.or_else(|| file(&self.jwt_key_file).map(|path| ("LIVEEDGECAST_JWT_KEY_FILE", path)))
    }

    /// Tells whether a setting names keys.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.file().is_some() || [&self.jwt_jwks_url, &self.jwt_secret].iter().any(|text| text_of(text).is_some())
    }

    /// The rules of the variables.
    pub(super) fn resolve(&self, problems: &mut Problems) -> Option<Jwt> {
        const SECRET: &str = "LIVEEDGECAST_JWT_SECRET";
        const SECRET_FILE: &str = "LIVEEDGECAST_JWT_SECRET_FILE";
        const KEY_FILE: &str = "LIVEEDGECAST_JWT_KEY_FILE";
        const JWKS_URL: &str = "LIVEEDGECAST_JWT_JWKS_URL";
        let text = |text: &Option<String>| set(text).map(str::to_owned);
        let (issuer, audience) = (text(&self.jwt_issuer), text(&self.jwt_audience));
        if !self.is_given() {
            for (name, is_set) in
                [("LIVEEDGECAST_JWT_ISSUER", issuer.is_some()), ("LIVEEDGECAST_JWT_AUDIENCE", audience.is_some())]
            {
                if is_set {
                    problems.add(name, format_args!("is about tokens whose keys are not set: set {JWKS_URL}, {KEY_FILE} or {SECRET_FILE}, or remove this"));
                }
            }
            return None;
        }
        let ways = [
            (JWKS_URL, text_of(&self.jwt_jwks_url).is_some()),
            (KEY_FILE, file(&self.jwt_key_file).is_some()),
            (SECRET, text_of(&self.jwt_secret).is_some()),
            (SECRET_FILE, file(&self.jwt_secret_file).is_some()),
        ];
        let given: Vec<&str> = ways.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if let [first, others @ ..] = &given[..]
            && !others.is_empty()
        {
            others
                .iter()
                .for_each(|name| problems.add(*name, format_args!("is given besides {first}: remove one of them")));
            return None;
        }
        let keys = match given.first() {
            Some(&JWKS_URL) => {
                let url = text_of(&self.jwt_jwks_url).unwrap_or_default();
                JwtKeys::Served(problems.check(JWKS_URL, HttpUrl::parse(url))?)
            }
            Some(&SECRET | &SECRET_FILE) => {
                let path = file(&self.jwt_secret_file);
                let secret = value_or_file(SECRET, text_of(&self.jwt_secret), path.as_deref(), problems)?;
                let setting = source_of(SECRET, path.as_deref());
                JwtKeys::Fixed(vec![problems.check(&setting, JwtKey::shared(Secret::new(secret)))?])
            }
            _ => {
                let path = file(&self.jwt_key_file);
                let text = value_or_file("LIVEEDGECAST_JWT_KEY", None, path.as_deref(), problems)?;
                JwtKeys::Fixed(problems.check(KEY_FILE, JwtKey::parse_file(&text))?)
            }
        };
        let algorithms = keys.algorithms(Vec::new()).unwrap_or_default();
        let (name_claim, app_claim) = (NAME_CLAIM.to_owned(), APP_CLAIM.to_owned());
        Some(Jwt { keys, issuer, audience, algorithms, name_claim, app_claim, route_claim: None })
    }
}

/// The text of a setting that may hold a secret; empty means not set.
fn text_of(value: &Option<Hidden>) -> Option<&str> {
    shown(value).map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
