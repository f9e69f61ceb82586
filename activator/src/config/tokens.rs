//! The tokens of the HTTP API. In: [`Args`], the control secret. Out: [`ApiTokens`], or mistakes with their fix. Reads the files that the
//! settings name. Next: `net`, which reads them again when they change, then `http`, which asks for the tokens.

use std::io;
use std::path::{Path, PathBuf};

use liveedgecast_common::config::{Problems, source_of, value_or_file};
use liveedgecast_common::key::Secret;
use liveedgecast_common::setting::{Hidden, choice, file, shown};

use super::args::Args;
use super::resolve::ANSWERS;

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
    /// The sentence for the log that says what the API does not do with these tokens; `None`: it does everything.
    #[must_use]
    pub fn limits(&self) -> Option<&'static str> {
        match (&self.admin, &self.view) {
            (None, None) => {
                Some("API changes nothing and is read from this machine alone: set ADMIN_TOKEN, or VIEW_TOKEN")
            }
            (None, Some(_)) => Some("API changes nothing: set ADMIN_TOKEN"),
            (Some(_), _) => None,
        }
    }

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
    /// True if a file may be missing, and then means that there is no such token.
    optional: bool,
    /// The control secret, which is no token, and from which the secret of activators is derived.
    pub control: Secret,
}

impl TokenSources {
    pub(super) fn new(args: &Args, control: Secret, problems: &mut Problems) -> Self {
        Self {
            admin: (args.admin_token.clone(), file(&args.admin_token_file)),
            view: (args.view_token.clone(), file(&args.view_token_file)),
            optional: choice("LIVEEDGECAST_TOKEN_FILES_OPTIONAL", &args.token_files_optional, &ANSWERS, problems),
            control,
        }
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.admin, &self.view].into_iter().filter_map(|(_, file)| file.as_deref())
    }

    /// The settings whose files are missing as they may be, with their paths.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let settings = [("ADMIN_TOKEN_FILE", &self.admin), ("VIEW_TOKEN_FILE", &self.view)];
        let files = settings.into_iter().filter_map(|(setting, (_, file))| Some((setting, file.as_deref()?)));
        files.filter(|(_, path)| self.optional && is_missing(path))
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

    /// The value of a token, unjudged; `None` if there is no such token.
    fn value(
        &self,
        setting: &str,
        (value, file): &(Option<Hidden>, Option<PathBuf>),
        problems: &mut Problems,
    ) -> Option<String> {
        let missing = file.as_deref().filter(|path| self.optional && is_missing(path));
        if let Some(path) = missing {
            self.judge_folder(&format!("{setting}_FILE"), path, problems);
        }
        value_or_file(setting, shown(value), file.as_deref().filter(|_| missing.is_none()), problems)
    }

    /// Judges the folder of a missing file. It must be there, and hold nothing that could be the file under another name: the mount of a Secret that is
    /// missing, too, is an empty folder, and that of a Secret whose key has another name is not.
    fn judge_folder(&self, setting: &str, path: &Path, problems: &mut Problems) {
        let known: Vec<_> = self.paths().filter_map(Path::file_name).collect();
        match names_beside(path) {
            Err(error) => {
                problems.add(setting, format_args!("the folder of {} can not be read: {error}", path.display()));
            }
            Ok(names) => {
                if let Some(name) = names.iter().find(|name| !known.contains(&name.as_os_str())) {
                    let text = format_args!(
                        "{} is missing, but {} is there: rename one of them",
                        path.display(),
                        name.display()
                    );
                    problems.add(setting, text);
                }
            }
        }
    }
}

/// True if there is no file, while a file that cannot be reached is not missing.
fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// The names in the folder of a file. Names that begin with a dot are left out: Kubernetes has its own among the files of a Secret.
#[expect(clippy::disallowed_methods, reason = "shell: it looks into a folder")]
fn names_beside(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    names.filter(|name| name.as_ref().map_or(true, |name| !name.as_encoded_bytes().starts_with(b"."))).collect()
}

/// The token that a command of this program sends, as the settings have it: that for changes, else that for reading.
///
/// # Errors
/// Every mistake, with its fix.
pub fn token_of_settings(args: &Args) -> Result<Option<Secret>, Problems> {
    let mut problems = Problems::new();
    let sources = TokenSources::new(args, Secret::new(""), &mut problems);
    let mut token = sources.value("ADMIN_TOKEN", &sources.admin, &mut problems);
    if token.is_none() {
        token = sources.value("VIEW_TOKEN", &sources.view, &mut problems);
    }
    problems.into_result().map(|()| token.map(Secret::new))
}

/// Judges the sources.
pub(super) fn resolve(sources: &TokenSources, problems: &mut Problems) -> ApiTokens {
    let secret = &sources.control;
    let mut read = |setting: &str, source: &(Option<Hidden>, Option<PathBuf>)| {
        let token = Secret::new(sources.value(setting, source, problems)?);
        let setting = source_of(setting, source.1.as_deref());
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
        problems.add(
            source_of("VIEW_TOKEN", sources.view.1.as_deref()),
            "is the same as ADMIN_TOKEN, so readers could change everything: make another one",
        );
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test over files")]
    fn file_of_a_token_may_be_missing_where_that_is_asked_for_and_its_folder_has_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let read = |optional: bool, file: &Path| {
            let none = (None, None);
            let admin = (None, Some(file.to_owned()));
            TokenSources { admin, view: none, optional, control: Secret::new("c") }.read().map_err(|it| it.to_string())
        };
        assert!(read(false, &at("token")).unwrap_err().contains("ADMIN_TOKEN_FILE: can not read"));
        assert_eq!(read(true, &at("token")), Ok(ApiTokens::default()));
        let error = read(true, &at("missing").join("token")).unwrap_err();
        assert!(error.contains("ADMIN_TOKEN_FILE: the folder of"), "{error}");
        std::fs::create_dir(at("..data")).unwrap();
        assert_eq!(read(true, &at("token")), Ok(ApiTokens::default()), "Kubernetes' own names do not count");
        std::fs::write(at("tokne"), "a-token-under-another-name").unwrap();
        let error = read(true, &at("token")).unwrap_err();
        assert!(error.contains("ADMIN_TOKEN_FILE") && error.contains("but tokne is there: rename"), "{error}");
        std::fs::rename(at("tokne"), at("token")).unwrap();
        assert!(read(true, &at("token")).unwrap().admin.is_some());
        std::fs::write(at("token"), "").unwrap();
        assert!(read(true, &at("token")).unwrap_err().contains("is empty"), "an empty file is a mistake");
    }

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
