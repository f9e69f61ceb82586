//! The tokens of the HTTP API in force, and the secret that activators derive from them. In: the sources that the configuration names, the kernel's word that
//! a file may have changed. Out: the tokens; secrets for the calls between activators. Next: `reload`, which has the files looked at; `http`, `peers` and
//! `control`, which ask.
//!
//! ```text
//!                     the files change                 PREVIOUS_FOR later
//!  old token in force ────────────────▶ new token ───────────────────────▶ new token
//!  secret of the old                     secrets of both                    secret of the new
//! ```
//! No token is a state like any other, where the files may be missing. A new token is in force at once for clients of the API, and the old one is not. Activators get the files at different times, as the kubelets of their
//! nodes bring them, so for a while activators take each other's proofs of the secret before, too, and offer that one where the new one is refused.
#![expect(clippy::disallowed_methods, reason = "shell: a clock")]

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use liveedgecast_common::clock::now;
use liveedgecast_common::config::Watched;
use liveedgecast_common::event;
use liveedgecast_common::key::Secret;

use crate::config::{ApiTokens, Settings, TokenSources};

/// Time for which the secret of the tokens before counts among activators: kubelets bring a changed Secret within two minutes, and people change files of
/// several machines one after the other.
const PREVIOUS_FOR: Duration = Duration::from_secs(600);

/// The tokens in force, shared by clones.
#[derive(Clone)]
pub struct CurrentTokens(Arc<SharedTokens>);

struct SharedTokens {
    sources: Option<TokenSources>,
    // A lock, because requests and calls look at the files; held while they are looked at, and read if they have changed.
    present: Mutex<PresentTokens>,
}

struct PresentTokens {
    watched: Vec<Watched>,
    tokens: ApiTokens,
    /// The mistakes of the files, if there are any. The files are then read at every look: something else in their folder may be the remedy.
    rejected: Option<String>,
    /// The secret of activators that follows from the tokens.
    secret: Secret,
    previous: Option<PreviousSecret>,
}

/// The secret before the one in force.
struct PreviousSecret {
    secret: Secret,
    /// True if it followed from a token. Workers know the other one.
    of_token: bool,
    /// End of its time.
    until: Instant,
}

impl fmt::Debug for CurrentTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentTokens")
    }
}

impl CurrentTokens {
    /// The tokens of the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (sources, tokens) = (settings.token_sources.clone(), settings.tokens.clone());
        let watched = sources.paths().map(Watched::new).collect();
        let secret = tokens.activator_secret(&sources.control);
        let present = PresentTokens { watched, tokens, rejected: None, secret, previous: None };
        Self(Arc::new(SharedTokens { sources: Some(sources), present: Mutex::new(present) }))
    }

    /// No tokens, and this secret among activators.
    #[cfg(test)]
    pub(crate) fn without_tokens(secret: Secret) -> Self {
        let (watched, tokens) = (Vec::new(), ApiTokens::default());
        let present = PresentTokens { watched, tokens, rejected: None, secret, previous: None };
        Self(Arc::new(SharedTokens { sources: None, present: Mutex::new(present) }))
    }

    /// The files of the tokens.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.sources.iter().flat_map(TokenSources::paths).map(PathBuf::from).collect()
    }

    /// Looks whether the files have changed.
    pub fn look(&self) {
        drop(self.present(now()));
    }

    /// The tokens in force.
    pub(crate) fn tokens(&self) -> ApiTokens {
        self.present(now()).tokens.clone()
    }

    /// The secrets that activators prove to each other: the one in force, and the one before while it counts.
    pub(crate) fn of_activators(&self) -> Vec<Secret> {
        self.secrets_at(now(), false)
    }

    /// The secrets under which activators pass requests on to each other. The one before is left out if workers know it, since it followed from no token:
    /// in the first minutes of a token a worker could otherwise change another one's stream, or pass for an activator and read a request.
    pub(crate) fn of_acting_activators(&self) -> Vec<Secret> {
        self.secrets_at(now(), true)
    }

    fn secrets_at(&self, now: Instant, to_act: bool) -> Vec<Secret> {
        let mut present = self.present(now);
        present.previous.take_if(|previous| previous.until <= now);
        let previous = present.previous.as_ref().filter(|previous| previous.of_token || !to_act);
        let previous = previous.map(|previous| previous.secret.clone());
        [present.secret.clone()].into_iter().chain(previous).collect()
    }

    fn present(&self, now: Instant) -> MutexGuard<'_, PresentTokens> {
        let mut present = self.0.present.lock().unwrap_or_else(PoisonError::into_inner);
        // Every file is looked at, or the second of two changed files would be found changed the next time again.
        let changed = present.watched.iter_mut().fold(false, |before, file| file.is_another() | before);
        if let Some(sources) = self.0.sources.as_ref().filter(|_| changed || present.rejected.is_some()) {
            present.read(sources, now);
        }
        present
    }
}

impl PresentTokens {
    fn read(&mut self, sources: &TokenSources, now: Instant) {
        let tokens = match sources.read() {
            Ok(tokens) => tokens,
            Err(problems) => {
                let problems = problems.to_string();
                if self.rejected.as_ref() == Some(&problems) {
                    return;
                }
                tracing::error!(event = event::FILE_REJECTED, setting = SETTING, %problems, "tokens of the API rejected, the last ones stay in force");
                self.rejected = Some(problems);
                return;
            }
        };
        self.rejected = None;
        let word = |token: &Option<Secret>| if token.is_some() { "set" } else { "none" };
        let (admin, view) = (word(&tokens.admin), word(&tokens.view));
        tracing::info!(event = event::FILE_RELOADED, setting = SETTING, admin, view, "tokens of the API read again");
        tell_limits(sources, &tokens);
        let secret = tokens.activator_secret(&sources.control);
        if secret != self.secret {
            let secret = std::mem::replace(&mut self.secret, secret);
            let of_token = self.tokens != ApiTokens::default();
            self.previous = Some(PreviousSecret { secret, of_token, until: now + PREVIOUS_FOR });
        }
        self.tokens = tokens;
    }
}

/// Tells the log which tokens are missing, and what the API does not do without them.
pub(crate) fn tell_limits(sources: &TokenSources, tokens: &ApiTokens) {
    for (setting, path) in sources.missing() {
        tracing::info!(
            event = event::TOKEN_MISSING,
            setting,
            path = %path.display(),
            "file of a token missing: there is no such token until it appears"
        );
    }
    if let Some(limits) = tokens.limits() {
        tracing::info!(event = event::API_LIMITED, "{limits}");
    }
}

/// The setting that the log names.
const SETTING: &str = "ADMIN_TOKEN_FILE";

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
