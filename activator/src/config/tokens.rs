//! The tokens of the HTTP API. In: [`Args`], the control secret. Out: [`ApiTokens`], or mistakes with their fix. Reads the files that the
//! settings name. Next: `net`, which reads them again when they change, then `http`, which asks for the tokens.

use std::path::{Path, PathBuf};

use liveedgecast_common::config::{Problems, value_or_file};
use liveedgecast_common::key::Secret;
use liveedgecast_common::setting::{Hidden, file, shown};

use super::args::Args;

/// Fewest bytes of a token: whoever reaches the HTTP port can guess at leisure.
const LEAST_TOKEN: usize = 16;

/// The tokens that open the HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiTokens {
    /// The token for reading and changing; without it nothing can be changed.
    pub admin: Option<Secret>,
    /// The token for reading alone.
    pub view: Option<Secret>,
}

/// The purpose of the derived secret.
const AMONG_ACTIVATORS: &[u8] = b"among activators";

impl ApiTokens {
    /// The secret that activators prove to each other. Workers know the control secret, but no token: so no worker can pose as an activator, and pass on
    /// a change of another one's stream. Without any token there is no such difference, and no change either.
    #[must_use]
    pub fn activator_secret(&self, control: &Secret) -> Secret {
        let token = self.admin.as_ref().or(self.view.as_ref()).map_or("", Secret::expose);
        control.derived(&[AMONG_ACTIVATORS, token.as_bytes()])
    }
}

/// The sources of the tokens: settings, or files that may change.
#[derive(Clone, Debug)]
pub struct TokenSources {
    admin: (Option<Hidden>, Option<PathBuf>),
    view: (Option<Hidden>, Option<PathBuf>),
    /// The control secret, which is no token, and from which the secret of activators is derived.
    pub control: Secret,
}

impl TokenSources {
    pub(super) fn new(args: &Args, control: Secret) -> Self {
        Self {
            admin: (args.admin_token.clone(), file(&args.admin_token_file)),
            view: (args.view_token.clone(), file(&args.view_token_file)),
            control,
        }
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.admin, &self.view].into_iter().filter_map(|(_, file)| file.as_deref())
    }

    /// The tokens as they are now.
    ///
    /// # Errors
    /// Every mistake, with its fix.
    pub fn read(&self) -> Result<ApiTokens, Problems> {
        let mut problems = Problems::new();
        let tokens = resolve(self, &mut problems);
        problems.into_result().map(|()| tokens)
    }
}

/// Judges the sources.
pub(super) fn resolve(sources: &TokenSources, problems: &mut Problems) -> ApiTokens {
    let secret = &sources.control;
    let mut read = |setting, (value, file): &(Option<Hidden>, Option<PathBuf>)| {
        let token = Secret::new(value_or_file(setting, shown(value), file.as_deref(), problems)?);
        if token.expose().len() < LEAST_TOKEN || !token.expose().chars().all(|c| c.is_ascii_graphic()) {
            let text = format_args!(
                "needs {LEAST_TOKEN} characters or more of ASCII, without spaces: make one with `openssl rand -hex 32`"
            );
            problems.add(setting, text);
        } else if token == *secret {
            problems.add(setting, "is the control secret, which is for workers and activators alone: make another one");
        }
        Some(token)
    };
    let tokens = ApiTokens { admin: read("ADMIN_TOKEN", &sources.admin), view: read("VIEW_TOKEN", &sources.view) };
    if tokens.view.is_some() && tokens.view == tokens.admin {
        problems.add("VIEW_TOKEN", "is the same as ADMIN_TOKEN, so readers could change everything: make another one");
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_of_activators_takes_the_token_that_is_there_and_the_control_secret() {
        let tokens = |admin: &str, view: &str| {
            let token = |text: &str| (!text.is_empty()).then(|| Secret::new(text));
            ApiTokens { admin: token(admin), view: token(view) }
        };
        let of = |admin, view, control| tokens(admin, view).activator_secret(&Secret::new(control)).expose().to_owned();
        let all = [of("a", "v", "c"), of("", "v", "c"), of("", "", "c"), of("b", "v", "c"), of("a", "v", "d")];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(of("a", "v", "c"), of("a", "other", "c"), "the token of readers counts where there is no other");
    }
}
