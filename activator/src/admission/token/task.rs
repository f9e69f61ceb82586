//! The shell of tokens. In: a [`Presented`] token, and the rules in force. Out: the verdict of `check`. Owns the keys of the server, and fetches them. Next:
//! `rules`.
//!
//! A fetch is a task of its own: it goes on when the publisher that has caused it leaves.
#![expect(clippy::disallowed_methods, reason = "shell: the clocks of tokens, a task for each fetch")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveedgecast_common::clock::{now, utc};
use liveedgecast_common::event;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::check::{TokenError, TokenGrant, check};
use super::keyring::{KeyAnswer, KeyNeed, Keyring, fresh_for};
use super::presented::Presented;
use crate::admission::metrics::AdmissionMetrics;
use crate::config::{HttpUrl, Jwt, JwtKey, JwtKeys};
use crate::net::{HttpClient, HttpGet};

/// Time for the whole fetch. A publisher waits for 10 s for a verdict.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// Most bytes of a JWK Set: 64 keys of RSA with their certificates.
const MOST_SET: usize = 256 << 10;

/// The checks of all publishers.
pub(in crate::admission) struct TokenDesk {
    client: HttpClient,
    metrics: AdmissionMetrics,
    // A lock for a short look; held across no await.
    server: Mutex<Option<Arc<KeyServer>>>,
}

/// A server with keys, and those that it has given.
struct KeyServer {
    url: HttpUrl,
    // As above.
    ring: Mutex<Keyring>,
    /// Changes at the end of each fetch.
    ends: watch::Sender<()>,
}

impl TokenDesk {
    /// A desk without keys.
    pub(in crate::admission) fn new(metrics: AdmissionMetrics) -> Self {
        Self { client: HttpClient::new(), metrics, server: Mutex::default() }
    }

    /// Checks a token. Cancel safe.
    pub(in crate::admission) async fn check(&self, jwt: &Jwt, presented: &Presented) -> Result<TokenGrant, TokenError> {
        let url = match &jwt.keys {
            JwtKeys::Fixed(keys) => return check(jwt, keys, presented, utc()),
            JwtKeys::Served(url) => url,
        };
        let server = self.server(url);
        let (keys, _) = self.keys(&server, KeyNeed::Present).await.ok_or(TokenError::KeysAway)?;
        match check(jwt, &keys, presented, utc()) {
            // The issuer may have changed its key.
            Err(error @ (TokenError::UnknownKey | TokenError::Signature)) => {
                match self.keys(&server, KeyNeed::Other).await {
                    Some((others, _)) if others != keys => check(jwt, &others, presented, utc()),
                    // The signature alone may be wrong for good: a key of that id is there.
                    Some((_, fetched)) if !fetched && error == TokenError::UnknownKey => Err(TokenError::KeyUnfetched),
                    _ => Err(error),
                }
            }
            checked => checked,
        }
    }

    /// The server at an address; another address forgets the keys of the one before.
    fn server(&self, url: &HttpUrl) -> Arc<KeyServer> {
        let mut server = lock(&self.server);
        match &*server {
            Some(known) if known.url == *url => Arc::clone(known),
            _ => Arc::clone(server.insert(Arc::new(KeyServer {
                url: url.clone(),
                ring: Mutex::default(),
                ends: watch::Sender::new(()),
            }))),
        }
    }

    /// The keys for a need; true: after a fetch.
    async fn keys(&self, server: &Arc<KeyServer>, need: KeyNeed) -> Option<(Arc<[JwtKey]>, bool)> {
        // Before the question, so that no end is missed.
        let mut ends = server.ends.subscribe();
        let (answer, begins) = lock(&server.ring).ask(now(), need);
        if begins {
            let (server, client, metrics) = (Arc::clone(server), self.client.clone(), self.metrics.clone());
            tokio::spawn(async move { server.fetch(&client, &metrics).await });
        }
        let fetched = answer == KeyAnswer::Wait;
        let answer = match answer {
            KeyAnswer::Wait => {
                let _ = ends.changed().await;
                lock(&server.ring).present(now())
            }
            answer => answer,
        };
        match answer {
            KeyAnswer::Use(keys) => Some((keys, fetched)),
            KeyAnswer::Wait | KeyAnswer::Away => None,
        }
    }
}

impl KeyServer {
    async fn fetch(&self, client: &HttpClient, metrics: &AdmissionMetrics) {
        let get = HttpGet { from: &self.url, within: FETCH_TIME, most: MOST_SET };
        let (result, fresh) = match client.get(get).await {
            Ok(reply) if reply.status == 200 => {
                let fresh = reply.cache_control.as_deref().and_then(fresh_for);
                (JwtKey::parse_set(&reply.body).map_err(|error| (true, error.to_string())), fresh)
            }
            Ok(reply) => (Err((false, format!("status {}", reply.status))), None),
            Err(error) => (Err((false, error.to_string())), None),
        };
        let server = &self.url;
        match &result {
            Ok(keys) => debug!(event = event::JWKS_FETCHED, %server, keys = keys.len(), "keys of tokens fetched"),
            Err((_, error)) => {
                warn!(event = event::JWKS_FAILED, %server, error, "keys of tokens not fetched: the last good ones count for an hour");
            }
        }
        metrics.fetched(match &result {
            Ok(_) => "fetched",
            Err((true, _)) => "unusable",
            Err((false, _)) => "away",
        });
        lock(&self.ring).fetched(now(), result.ok(), fresh);
        self.ends.send_replace(());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
