//! Settings that may change while we run. In: the files of `LIVEEDGECAST_CONFIG`, `RTMP_PUSH_URL_FILE` and `PUBLISH_KEYS_FILE`. Out: their contents
//! in force, and the mistakes of those that are not. Next: `admission`, which asks for each publish, and `reload`, which tells live streams.
//!
//! Nothing here waits: `admission` looks at the files when a publisher comes, and `reload` when the kernel says that one has changed. Both have another
//! thread read them then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use liveedgecast_common::config::{Problems, PublishKeys, Watched, read_file};
use liveedgecast_common::event;
use liveedgecast_common::url::PushTemplate;

use super::file::{ConfigFile, Given};
use super::hook::Hooks;
use super::jwt::{Jwt, JwtArgs};
use super::proxies::TrustedProxies;
use super::resolve::{Settings, parse_push, read_config};

/// Most bytes of mistakes that are told: they are kept in events, and a file can have one in each of its lines.
const MOST_TOLD: usize = 8 << 10;

/// The mistakes for which a file is rejected, if they are not too long.
fn told(mistakes: &impl fmt::Display) -> String {
    let mut text = mistakes.to_string();
    if text.len() > MOST_TOLD {
        let end = (0..=MOST_TOLD).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text +=
            " …\n  and more: `liveedgecast-activator check --config FILE` prints every mistake of a configuration file";
    }
    text
}

/// A file that was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNews {
    /// The setting that names the file.
    pub setting: &'static str,
    /// The mistakes for which the last good file stays in force; `None`: this one is.
    pub rejected: Option<String>,
}

/// The files that say who may publish and where it goes, as they are now.
pub struct Reloaded {
    file: Option<Arc<ConfigFile>>,
    /// The configuration file.
    config_file: Option<Watched>,
    /// The files that it names.
    named: Vec<Watched>,
    push: Arc<[PushTemplate]>,
    keys: Option<Arc<PublishKeys>>,
    /// The hooks of the variables, which do not change.
    hooks: Hooks,
    /// The rules of tokens of the variables.
    jwt: Option<Arc<Jwt>>,
    jwt_args: JwtArgs,
    /// The file with their keys, and the name of its setting.
    jwt_file: Option<(&'static str, Watched)>,
    push_file: Option<Watched>,
    keys_file: Option<Watched>,
    proxies: TrustedProxies,
    /// The mistakes of the files that are not in force as they are on the disk, by setting.
    rejected: BTreeMap<&'static str, String>,
    revision: u64,
}

impl Reloaded {
    /// Starts from the settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            named: settings.entries.as_deref().map(watched).unwrap_or_default(),
            file: settings.entries.clone(),
            config_file: settings.config_file.as_deref().map(Watched::new),
            push: settings.push.clone().into(),
            keys: settings.keys.clone().map(Arc::new),
            hooks: settings.hooks.clone(),
            jwt: settings.jwt.clone(),
            jwt_file: settings.jwt_args.file().map(|(setting, path)| (setting, Watched::new(&path))),
            jwt_args: settings.jwt_args.clone(),
            push_file: settings.push_file.as_deref().map(Watched::new),
            keys_file: settings.keys_file.as_deref().map(Watched::new),
            proxies: settings.proxies.clone(),
            rejected: BTreeMap::new(),
            revision: 0,
        }
    }

    /// Reads every file again, changed or not: see [`Self::refresh`].
    pub fn reread(&mut self) -> Vec<FileNews> {
        let jwt = self.jwt_file.as_mut().map(|(_, file)| file);
        let files = self.config_file.iter_mut().chain(&mut self.push_file).chain(&mut self.keys_file).chain(jwt);
        files.for_each(Watched::forget);
        self.refresh()
    }

    /// True if a file has changed since it was read, so that [`Self::refresh`] would read it. Nothing is read for that.
    pub fn is_stale(&self) -> bool {
        let one = self.config_file.iter().chain(&self.push_file).chain(&self.keys_file);
        one.chain(self.jwt_file.as_ref().map(|(_, file)| file)).chain(&self.named).any(Watched::is_stale)
    }

    /// Reads changed files again. A file that cannot be used is logged, and its last good values stay in force. Returns the files that were read.
    pub fn refresh(&mut self) -> Vec<FileNews> {
        let news = self.read_changed();
        for FileNews { setting, rejected } in &news {
            match rejected {
                Some(mistakes) => {
                    self.rejected.insert(setting, mistakes.clone());
                }
                None => {
                    self.rejected.remove(setting);
                    self.revision += 1;
                }
            }
        }
        news
    }

    fn read_changed(&mut self) -> Vec<FileNews> {
        let mut news: Vec<FileNews> = self.refresh_config().into_iter().collect();
        if let Some(text) = self.push_file.as_mut().and_then(Watched::changed) {
            let mut problems = Problems::new();
            let text = problems.check("RTMP_PUSH_URL_FILE", text);
            let push = text.map(|text| parse_push(&text, "RTMP_PUSH_URL_FILE", &mut problems)).unwrap_or_default();
            match problems.into_result() {
                Ok(()) => {
                    tracing::info!(
                        event = event::FILE_RELOADED,
                        setting = "RTMP_PUSH_URL_FILE",
                        urls = push.len(),
                        "push URLs read again, for publishers from now on"
                    );
                    self.push = push.into();
                    news.push(FileNews { setting: "RTMP_PUSH_URL_FILE", rejected: None });
                }
                Err(problems) => {
                    let problems = told(&problems);
                    tracing::error!(event = event::FILE_REJECTED, setting = "RTMP_PUSH_URL_FILE", %problems, "push URLs rejected, the last ones stay in force");
                    news.push(FileNews { setting: "RTMP_PUSH_URL_FILE", rejected: Some(problems) });
                }
            }
        }
        let keys = self.keys_file.as_mut().and_then(Watched::changed);
        let keys = keys.map(|text| text.and_then(|text| PublishKeys::parse(&text).map_err(|error| error.to_string())));
        if let Some(keys) = keys {
            let rejected = keys.as_ref().err().cloned();
            match keys {
                Ok(keys) => {
                    tracing::info!(
                        event = event::FILE_RELOADED,
                        setting = "PUBLISH_KEYS_FILE",
                        keys = keys.len(),
                        "publish keys read again"
                    );
                    self.keys = Some(Arc::new(keys));
                }
                Err(error) => tracing::error!(
                    event = event::FILE_REJECTED,
                    setting = "PUBLISH_KEYS_FILE",
                    error,
                    "publish keys rejected, the last ones stay in force"
                ),
            }
            news.push(FileNews { setting: "PUBLISH_KEYS_FILE", rejected });
        }
        news.extend(self.refresh_jwt());
        news
    }

    fn refresh_jwt(&mut self) -> Option<FileNews> {
        let (setting, file) = self.jwt_file.as_mut()?;
        if !file.is_another() {
            return None;
        }
        let mut problems = Problems::new();
        let jwt = self.jwt_args.resolve(&mut problems);
        let mut news = FileNews { setting, rejected: None };
        match problems.into_result() {
            Ok(()) => {
                tracing::info!(event = event::FILE_RELOADED, setting, "keys of tokens read again");
                self.jwt = jwt.map(Arc::new);
            }
            Err(problems) => {
                let problems = told(&problems);
                tracing::error!(event = event::FILE_REJECTED, setting, %problems, "keys of tokens rejected, the last ones stay in force");
                news.rejected = Some(problems);
            }
        }
        Some(news)
    }

    fn refresh_config(&mut self) -> Option<FileNews> {
        let config = self.config_file.as_mut()?;
        // Each is asked, so that a change of several is one change.
        let changed = self.named.iter_mut().fold(config.is_another(), |changed, file| file.is_another() | changed);
        if !changed {
            return None;
        }
        let mut news = FileNews { setting: "LIVEEDGECAST_CONFIG", rejected: None };
        let given = Given {
            default_route: !self.push.is_empty(),
            publishers: self.keys.is_some(),
            jwt: self.jwt.is_some(),
            hook: self.hooks.publish.is_some(),
        };
        let (mut problems, named) = (Problems::new(), RefCell::new(Vec::new()));
        let read = |path: &Path| {
            // Before it is read, so that a change in between is seen the next time.
            named.borrow_mut().push(Watched::new(path));
            read_file(path)
        };
        let file = read_config(config.path(), given, read, &mut problems);
        // Also those of a file with mistakes: one that it names may be the mistake.
        self.named = named.into_inner();
        match problems.into_result().map(|()| file.unwrap_or_default()) {
            Ok(file) => {
                tracing::info!(
                    event = event::FILE_RELOADED,
                    setting = "LIVEEDGECAST_CONFIG",
                    publishers = file.publishers.len(),
                    routes = file.routes.len(),
                    "configuration file read again"
                );
                self.proxies.list(&file.trusted_proxies);
                self.file = Some(Arc::new(file));
            }
            Err(problems) => {
                let problems = told(&problems);
                tracing::error!(event = event::FILE_REJECTED, setting = "LIVEEDGECAST_CONFIG", %problems, "configuration file rejected, the last one stays in force");
                news.rejected = Some(problems);
            }
        }
        Some(news)
    }

    /// Every file that is followed.
    pub fn paths(&self) -> Vec<PathBuf> {
        let one = self.config_file.iter().chain(&self.push_file).chain(&self.keys_file);
        let jwt = self.jwt_file.as_ref().map(|(_, file)| file);
        one.chain(jwt).chain(&self.named).map(|file| file.path().to_owned()).collect()
    }

    /// The mistakes of the files that are not in force as they are on the disk, by setting.
    pub fn rejected(&self) -> &BTreeMap<&'static str, String> {
        &self.rejected
    }

    /// Number of files that were read again and are in force.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The configuration file in force.
    pub fn file(&self) -> Option<&Arc<ConfigFile>> {
        self.file.as_ref()
    }

    /// Push URLs in force.
    pub fn push(&self) -> &Arc<[PushTemplate]> {
        &self.push
    }

    /// Hooks in force.
    pub fn hooks(&self) -> Hooks {
        self.file.as_ref().map_or_else(|| self.hooks.clone(), |file| file.hooks.or(&self.hooks))
    }

    /// Rules of tokens in force; `None` if tokens let nobody in.
    pub fn jwt(&self) -> Option<&Arc<Jwt>> {
        self.file.as_ref().and_then(|file| file.jwt.as_ref()).or(self.jwt.as_ref())
    }

    /// Publish keys in force; `None` if nobody is listed by them.
    pub fn keys(&self) -> Option<&Arc<PublishKeys>> {
        self.keys.as_ref()
    }
}

fn watched(file: &ConfigFile) -> Vec<Watched> {
    file.files.iter().map(|path| Watched::new(path)).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write the files that settings name")]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::config::Args;

    fn hosts(reloaded: &Reloaded) -> String {
        reloaded.push().iter().map(|url| url.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_changed_file_counts_from_the_next_publisher_and_a_wrong_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (urls, keys) = (dir.path().join("urls"), dir.path().join("keys"));
        fs::write(&urls, "rtmp://one/live/{key}").unwrap();
        fs::write(&keys, "alpha").unwrap();
        let args = Args::try_parse_from([
            "x",
            "--push-url-file",
            urls.to_str().unwrap(),
            "--publish-keys-file",
            keys.to_str().unwrap(),
        ]);
        let settings = Settings::resolve(&args.unwrap(), [0; 32]).unwrap();
        let mut reloaded = Reloaded::new(&settings);
        assert!(!reloaded.is_stale());
        assert_eq!(reloaded.refresh(), []);
        assert_eq!(hosts(&reloaded), "rtmp://one:1935/live/…");

        fs::write(&urls, "rtmp://two/live/{key} rtmps://three/live/{key}").unwrap();
        fs::write(&keys, "alpha beta").unwrap();
        assert!(reloaded.is_stale());
        let news = reloaded.refresh();
        assert!(!reloaded.is_stale());
        assert!(news.len() == 2 && news.iter().all(|news| news.rejected.is_none()), "{news:?}");
        assert_eq!(hosts(&reloaded), "rtmp://two:1935/live/… rtmps://three:443/live/…");
        assert_eq!(reloaded.keys().unwrap().len(), 2);

        fs::write(&urls, "nonsense").unwrap();
        fs::remove_file(&keys).unwrap();
        let news = reloaded.refresh();
        assert!(news.len() == 2 && news.iter().all(|news| news.rejected.is_some()), "{news:?}");
        assert_eq!(hosts(&reloaded), "rtmp://two:1935/live/… rtmps://three:443/live/…");
        assert_eq!(reloaded.keys().unwrap().len(), 2);

        // Swapped by rename, as a mounted secret is.
        let next = dir.path().join("next");
        fs::write(&next, "rtmp://four/live/{key}").unwrap();
        fs::rename(&next, &urls).unwrap();
        reloaded.refresh();
        assert_eq!(hosts(&reloaded), "rtmp://four:1935/live/…");
        assert_eq!(reloaded.rejected().keys().collect::<Vec<_>>(), [&"PUBLISH_KEYS_FILE"]);
        assert_eq!(reloaded.revision(), 3);
    }

    #[test]
    fn file_with_mistakes_is_named_until_it_is_mended_and_so_is_one_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let text = |publisher: &str| {
            format!(
                "publishers: [{publisher}]\nroutes: {{default: {{destinations: [{{name: o, url: 'rtmp://a/b/{{key}}'}}]}}}}\n"
            )
        };
        fs::write(path("config"), text("{name: a, key: alpha}")).unwrap();
        let config = path("config");
        let args = Args::try_parse_from(["x", "--config", config.to_str().unwrap()]);
        let mut reloaded = Reloaded::new(&Settings::resolve(&args.unwrap(), [0; 32]).unwrap());
        let keys = |reloaded: &Reloaded| reloaded.file().unwrap().publishers.len();
        assert_eq!(reloaded.paths(), std::slice::from_ref(&config));

        fs::write(&config, text("{name: a, key: alpha}, {name: b, key_file: b-key}")).unwrap();
        assert!(reloaded.refresh()[0].rejected.as_ref().is_some_and(|mistakes| mistakes.contains("b-key")));
        assert_eq!((keys(&reloaded), reloaded.rejected().len(), reloaded.revision()), (1, 1, 0));
        assert_eq!(reloaded.paths(), [config.clone(), path("b-key")]);
        fs::write(path("b-key"), "beta").unwrap();
        assert_eq!(reloaded.refresh(), [FileNews { setting: "LIVEEDGECAST_CONFIG", rejected: None }]);
        assert_eq!((keys(&reloaded), reloaded.rejected().len(), reloaded.revision()), (2, 0, 1));

        assert_eq!(reloaded.refresh(), []);
        assert_eq!(reloaded.reread().len(), 1, "it is read although nothing has changed");

        // A mistake in each of its lines: events keep the text.
        fs::write(&config, (0..20_000).map(|at| format!("é{at}: 1\n")).collect::<String>()).unwrap();
        let news = reloaded.refresh();
        let told = news[0].rejected.as_ref().unwrap();
        assert!(told.contains("é0: is not known here") && told.len() < 2 * MOST_TOLD, "{} bytes", told.len());
    }
}
