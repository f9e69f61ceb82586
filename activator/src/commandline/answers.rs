//! The answers of the API, as far as commands show them. In: JSON. Out: values; one stream or one worker for what a person typed. Pure.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::failure::{CommandFailure, named};

/// A stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedStream {
    pub(super) id: String,
    pub(super) app: String,
    pub(super) publisher: Option<String>,
    pub(super) since: Option<String>,
    pub(super) state: String,
    pub(super) worker: Option<String>,
    pub(super) bitrate: u64,
    pub(super) video: Option<ListedVideo>,
    pub(super) audio: Option<ListedAudio>,
    pub(super) upstreams: Vec<ListedUpstream>,
}

/// The video of a stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedVideo {
    pub(super) codec: Option<String>,
    pub(super) width: Option<u32>,
    pub(super) height: Option<u32>,
    pub(super) frame_rate: Option<f64>,
}

/// The audio of a stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedAudio {
    pub(super) codec: String,
}

/// A destination of a stream, by the word of its worker.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedUpstream {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) backup: bool,
    pub(super) state: String,
    pub(super) since: Option<String>,
    pub(super) lag: f64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) replayed: u64,
    pub(super) reconnects: u64,
    pub(super) error: String,
}

/// A destination of a stream, by the word of its activator.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WantedDestination {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) enabled: bool,
    pub(super) required: bool,
    pub(super) by_api: bool,
}

/// A worker.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedWorker {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) streams: usize,
    pub(super) capacity: u32,
}

impl ListedStream {
    /// The stream as a sentence names it: its id, and its publisher's name if it has one.
    pub(super) fn shown(&self) -> String {
        match &self.publisher {
            Some(publisher) => format!("{} ({})", self.id, named(publisher)),
            None => self.id.clone(),
        }
    }
}

/// The kinds of things that a person names.
#[derive(Clone, Copy, Debug)]
struct NameKind {
    one: &'static str,
    many: &'static str,
    list: &'static str,
}

/// The one stream that a text names: by its id, else by its publisher's name, else by the beginning of its id.
pub(super) fn stream<'a>(streams: &'a [ListedStream], text: &str) -> Result<&'a ListedStream, CommandFailure> {
    let ways: [&dyn Fn(&ListedStream) -> bool; 3] =
        [&|stream| stream.id == text, &|stream| stream.publisher.as_deref() == Some(text), &|stream| {
            !text.is_empty() && stream.id.starts_with(text)
        }];
    const KIND: NameKind = NameKind { one: "stream", many: "streams", list: "streams" };
    only(streams, text, &ways, ListedStream::shown, KIND)
}

/// The one worker that a text names: by its name, else by the beginning of its name.
pub(super) fn worker<'a>(workers: &'a [ListedWorker], text: &str) -> Result<&'a ListedWorker, CommandFailure> {
    let ways: [&dyn Fn(&ListedWorker) -> bool; 2] =
        [&|worker| worker.name == text, &|worker| !text.is_empty() && worker.name.starts_with(text)];
    const KIND: NameKind = NameKind { one: "worker", many: "workers", list: "workers" };
    only(workers, text, &ways, |worker| worker.name.clone(), KIND)
}

/// The only one that the first of `ways` finds which finds any.
fn only<'a, T>(
    all: &'a [T],
    text: &str,
    ways: &[&dyn Fn(&T) -> bool],
    shown: impl Fn(&T) -> String,
    kind: NameKind,
) -> Result<&'a T, CommandFailure> {
    /// Candidates that a sentence lists.
    const MOST: usize = 8;
    for way in ways {
        let mut found: Vec<&T> = all.iter().filter(|one| way(one)).collect();
        // Two workers may tell of one stream while it moves.
        let mut seen = BTreeSet::new();
        found.retain(|one| seen.insert(shown(one)));
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let mut candidates: Vec<String> = several.iter().map(|one| shown(one)).collect();
                candidates.sort();
                if candidates.len() > MOST {
                    candidates.truncate(MOST);
                    candidates.push("…".to_owned());
                }
                let NameKind { many, .. } = kind;
                return Err(CommandFailure::Refused(format!(
                    "{} names {} {many}, so nothing was done: name one of {}",
                    named(text),
                    several.len(),
                    candidates.join(", ")
                )));
            }
        }
    }
    let NameKind { one, list, .. } = kind;
    let advice = format!("`liveedgecast-activator {list}` lists those that there are");
    Err(CommandFailure::Refused(format!("there is no {one} {}: {advice}", named(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> Vec<ListedStream> {
        let stream = |id: &str, publisher: Option<&str>| ListedStream {
            id: id.to_owned(),
            publisher: publisher.map(str::to_owned),
            ..ListedStream::default()
        };
        vec![
            stream("a1", Some("studio")),
            stream("a2", Some("studio")),
            stream("b1", None),
            stream("b11", Some("a1")),
            stream("b11", Some("a1")),
        ]
    }

    #[test]
    fn text_names_one_stream_or_none() {
        let streams = streams();
        let found = |text| stream(&streams, text).map(|stream| stream.id.as_str());
        assert_eq!(found("a1"), Ok("a1"), "an id comes before a publisher's name");
        assert_eq!(found("b1"), Ok("b1"), "a whole id comes before the beginning of one");
        assert_eq!(found("b11"), Ok("b11"));
        for (text, words) in [
            ("studio", "\"studio\" names 2 streams, so nothing was done: name one of a1 (\"studio\"), a2 (\"studio\")"),
            ("a", "names 2 streams"),
            ("x", "there is no stream \"x\""),
            ("", "there is no stream"),
        ] {
            let failure = found(text).unwrap_err();
            assert!(failure.text().is_some_and(|text| text.contains(words)), "{text}: {failure:?}");
        }
    }
}
