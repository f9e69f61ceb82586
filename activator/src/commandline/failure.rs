//! The reasons for which a command fails. In: the answers of a gateway, or none. Out: a sentence with the fix, and the exit code. Pure.

use liveedgecast_common::key::LogSafe;
use serde::Deserialize;

/// Exit code: the gateway refused, or what was named is not there, or what was waited for did not come.
pub(super) const REFUSED: u8 = 1;
/// Exit code: a mistake in the command or in a setting; clap has the same.
pub(super) const USAGE: u8 = 2;
/// Exit code: no gateway answers.
pub(super) const AWAY: u8 = 3;
/// Exit code: the token is missing, unknown, or not enough.
pub(super) const TOKEN: u8 = 4;

/// The beginning of every type of a problem of the API.
const TYPE: &str = "urn:liveedgecast:problem:";

/// The reason for which a command fails, in a sentence with its fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommandFailure {
    /// The gateway refused, or what was named is not there, or what was waited for did not come.
    Refused(String),
    /// A mistake in the command or in a setting.
    Usage(String),
    /// No gateway answers.
    Away(String),
    /// The token is missing, unknown, or not enough.
    Token(String),
    /// Several mistakes, a line each.
    Listed(String),
    /// The findings have been printed; the exit code sums them up.
    Said(u8),
    /// The reader of the output is gone, which is its own affair: `head` does so.
    Unread,
}

impl CommandFailure {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Refused(_) => REFUSED,
            Self::Usage(_) | Self::Listed(_) => USAGE,
            Self::Away(_) => AWAY,
            Self::Token(_) => TOKEN,
            Self::Said(code) => *code,
            Self::Unread => 0,
        }
    }

    /// The sentence, if there is something to say.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Refused(text) | Self::Usage(text) | Self::Away(text) | Self::Token(text) | Self::Listed(text) => {
                Some(text.clone())
            }
            Self::Said(_) | Self::Unread => None,
        }
    }

    /// The failure that an answer with another status than 2xx means. `base`: the address of the gateway.
    pub(super) fn of_answer(status: u16, body: &[u8], base: &str) -> Self {
        let Ok(problem) = serde_json::from_slice::<ProblemDetails>(body) else {
            if matches!(status, 502..=504) {
                return Self::Away(format!(
                    "{base} answered with status {status}: the proxy there does not reach the activator now"
                ));
            }
            return Self::Refused(format!(
                "{base} answered with status {status}, and not as a gateway does: --api has to name the HTTP port of an activator"
            ));
        };
        let detail = safe(&problem.detail);
        match problem.kind.strip_prefix(TYPE).unwrap_or_default() {
            "token-missing" => Self::Token(format!(
                "{base} wants a token: name a file that has it with --token-file, or set ADMIN_TOKEN_FILE or VIEW_TOKEN_FILE"
            )),
            "token-unknown" => Self::Token(format!(
                "{base} does not know the token: give the one that the activator has as ADMIN_TOKEN or VIEW_TOKEN"
            )),
            "token-reads-only" => Self::Token(
                "the token is for reading alone: give the one that the activator has as ADMIN_TOKEN".to_owned(),
            ),
            "reading-closed" => Self::Token(format!(
                "{base} has no token, so it answers its own machine alone: set VIEW_TOKEN or ADMIN_TOKEN at the activator, and give it here with --token-file"
            )),
            "changes-closed" => Self::Token(format!(
                "{base} takes no changes, because it has no ADMIN_TOKEN: set one at the activator, and give it here with --token-file"
            )),
            "stream-unknown" => Self::Refused(
                "the stream is gone: `liveedgecast-activator streams` lists those that there are".to_owned(),
            ),
            "worker-unknown" => Self::Refused(
                "the worker is gone: `liveedgecast-activator workers` lists those that there are".to_owned(),
            ),
            "destination-unknown" => Self::Refused(
                "the stream has no destination of this name: `liveedgecast-activator destination list` lists those that it has"
                    .to_owned(),
            ),
            "" if status == 404 => Self::Refused(format!(
                "{base} has no such address: the activator is of another version, or --api lacks a part of its path"
            )),
            "" => Self::Refused(format!("{base} answered with status {status}: {detail}")),
            _ => Self::Refused(format!("{}: {detail}", safe(&problem.title))),
        }
    }
}

/// Text of a gateway on one line, printable.
fn safe(text: &str) -> String {
    /// Characters at most; a detail of ours is shorter.
    const MOST: usize = 1000;
    let line = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MOST).map(line).collect()
}

/// A name that a person typed, as a sentence shows it.
pub(super) fn named(name: &str) -> String {
    format!("{:?}", LogSafe(name))
}

/// An error of the API (RFC 9457).
#[derive(Deserialize)]
struct ProblemDetails {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_becomes_a_sentence_with_its_fix_and_a_code() {
        let answer = |kind: &str, status| {
            let body =
                format!(r#"{{"type":"{TYPE}{kind}","title":"the title","status":{status},"detail":"the detail"}}"#);
            CommandFailure::of_answer(status, body.as_bytes(), "http://a:1")
        };
        for (kind, status, code, words) in [
            ("token-missing", 401, TOKEN, "--token-file"),
            ("token-unknown", 401, TOKEN, "does not know the token"),
            ("token-reads-only", 403, TOKEN, "ADMIN_TOKEN"),
            ("reading-closed", 403, TOKEN, "VIEW_TOKEN"),
            ("changes-closed", 403, TOKEN, "takes no changes"),
            ("stream-unknown", 404, REFUSED, "`liveedgecast-activator streams`"),
            ("worker-unknown", 404, REFUSED, "`liveedgecast-activator workers`"),
            ("destination-unknown", 404, REFUSED, "destination list"),
            ("destination-conflict", 409, REFUSED, "the title: the detail"),
        ] {
            let failure = answer(kind, status);
            assert_eq!(failure.code(), code, "{kind}");
            assert!(failure.text().is_some_and(|text| text.contains(words)), "{failure:?}");
        }
        let other = CommandFailure::of_answer(200, b"<html>\x1b[2J", "http://a:1");
        assert!(other.text().is_some_and(|text| text.contains("--api") && !text.contains('\x1b')), "{other:?}");
    }
}
