//! The servers that are asked whether somebody may publish, and told when that has ended. In: variables, or a table of the configuration file. Out:
//! [`Hooks`]. Next: `admission`, which asks them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::config::{Problems, value_or_file};
use liveedgecast_common::key::Secret;
use liveedgecast_common::setting::{Hidden, choice, set, shown};

use super::args::Args;
use super::http_url::HttpUrl;

/// Time for an answer, if none is given.
pub(super) const HOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest time for an answer …
pub(super) const LEAST_HOOK_TIMEOUT: Duration = Duration::from_millis(50);
/// … and the longest: a publisher waits for 10 s for a verdict, and the answer has to come before.
pub(super) const MOST_HOOK_TIMEOUT: Duration = Duration::from_secs(9);

/// The verdict on a publisher when the server does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnHookError {
    /// It is told to come again.
    #[default]
    Refuse,
    /// It goes to the route `default`, with the rate and the share of an open activator.
    Accept,
}

impl OnHookError {
    /// The words of the setting.
    pub(super) const CHOICES: [(&str, Self); 2] = [("refuse", Self::Refuse), ("accept", Self::Accept)];
}

/// The form of questions and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookFormat {
    /// nginx-rtmp's: a form is posted, and the status and `Location` are the answer.
    #[default]
    Form,
    /// JSON both ways.
    Json,
}

impl HookFormat {
    /// The words of the setting.
    pub(super) const CHOICES: [(&str, Self); 2] = [("form", Self::Form), ("json", Self::Json)];
}

/// A server that is asked or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its address.
    pub url: HttpUrl,
    /// Time for its answer.
    pub timeout: Duration,
    /// The verdict when no answer comes.
    pub on_error: OnHookError,
    /// The form of question and answer.
    pub format: HookFormat,
    /// The bearer token by which the server knows us.
    pub secret: Option<Secret>,
}

/// The hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Asked about each publisher without an entry.
    pub publish: Option<Arc<Hook>>,
    /// Told when the stream of a publisher that was asked about has ended.
    pub done: Option<Arc<Hook>>,
}

impl Hooks {
    /// The hooks of the variables.
    pub(super) fn resolve(args: &Args, p: &mut Problems) -> Self {
        let before = p.iter().count();
        let secret_file = args.on_publish_secret_file.as_deref();
        let secret = value_or_file("LIVEEDGECAST_ON_PUBLISH_SECRET", shown(&args.on_publish_secret), secret_file, p);
        let shared = HookDefaults {
            timeout: timeout(args, p),
            on_error: choice("LIVEEDGECAST_ON_PUBLISH_ON_ERROR", &args.on_publish_on_error, &OnHookError::CHOICES, p),
            format: choice("LIVEEDGECAST_ON_PUBLISH_FORMAT", &args.on_publish_format, &HookFormat::CHOICES, p),
            secret: secret.map(Secret::new),
        };
        let publish = url("LIVEEDGECAST_ON_PUBLISH_URL", &args.on_publish_url, p).map(|url| shared.hook(url));
        let done = url("LIVEEDGECAST_ON_PUBLISH_DONE_URL", &args.on_publish_done_url, p).map(|url| shared.hook(url));
        if publish.is_none() && p.iter().count() == before {
            let others = [
                ("LIVEEDGECAST_ON_PUBLISH_TIMEOUT", set(&args.on_publish_timeout).is_some()),
                ("LIVEEDGECAST_ON_PUBLISH_ON_ERROR", set(&args.on_publish_on_error).is_some()),
                ("LIVEEDGECAST_ON_PUBLISH_FORMAT", set(&args.on_publish_format).is_some()),
                ("LIVEEDGECAST_ON_PUBLISH_SECRET", shared.secret.is_some()),
                ("LIVEEDGECAST_ON_PUBLISH_DONE_URL", done.is_some()),
            ];
            for (name, _) in others.iter().filter(|(_, given)| *given) {
                p.add(
                    *name,
                    "is about the server of LIVEEDGECAST_ON_PUBLISH_URL, which is not set: set it, or remove this",
                );
            }
        }
        Self { publish, done }
    }

    /// These hooks, and those of `others` where there is none.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self {
            publish: self.publish.clone().or_else(|| others.publish.clone()),
            done: self.done.clone().or_else(|| others.done.clone()),
        }
    }
}

/// The settings that both hooks of the variables share.
struct HookDefaults {
    timeout: Duration,
    on_error: OnHookError,
    format: HookFormat,
    secret: Option<Secret>,
}

impl HookDefaults {
    fn hook(&self, url: HttpUrl) -> Arc<Hook> {
        let Self { timeout, on_error, format, secret } = self;
        Arc::new(Hook { url, timeout: *timeout, on_error: *on_error, format: *format, secret: secret.clone() })
    }
}

fn url(setting: &str, text: &Option<Hidden>, problems: &mut Problems) -> Option<HttpUrl> {
    let text = value_or_file(setting, shown(text), None::<&Path>, problems)?;
    problems.check(setting, HttpUrl::parse(&text))
}

fn timeout(args: &Args, problems: &mut Problems) -> Duration {
    const NAME: &str = "LIVEEDGECAST_ON_PUBLISH_TIMEOUT";
    let Some(text) = set(&args.on_publish_timeout) else { return HOOK_TIMEOUT };
    match liveedgecast_common::config::parse_duration(text) {
        Ok(time) if (LEAST_HOOK_TIMEOUT..=MOST_HOOK_TIMEOUT).contains(&time) => time,
        Ok(_) => {
            problems.add(NAME, format_args!("{text} is not from 50ms to 9s"));
            HOOK_TIMEOUT
        }
        Err(error) => {
            problems.add(NAME, format_args!("{text:?} is {error}"));
            HOOK_TIMEOUT
        }
    }
}
