//! YAML as a tree of nodes that know their places. In: the text of a configuration file. Out: a [`Node`], or the mistake that makes the text no
//! YAML. Next: `table`, which asks the tree for values. Pure.
//!
//! Note: a plain `0123` or `1e3` is a number to YAML and may be a stream key to us, so a scalar is taken as it was written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Options, Spanned};

/// Most events of YAML (beginnings and ends of lists and tables, scalars) that aliases may repeat in one file.
const MOST_REPEATED: usize = 20_000;

/// A place in the file: line and column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FilePlace {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl From<Location> for FilePlace {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A node of the tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: FilePlace,
    pub(super) value: NodeValue,
}

/// The value of a node.
#[derive(Debug)]
pub(super) enum NodeValue {
    /// Nothing is written there, or `~`, or `null`.
    Nothing,
    /// A scalar, as it was written.
    Scalar(String),
    List(Vec<Node>),
    /// Names with their places, in the order of the file; a name may stand there twice.
    Table(Vec<(FilePlace, String, Node)>),
}

/// The mistake in a text that is no YAML.
#[derive(Debug)]
pub(super) struct NotYaml {
    pub(super) place: FilePlace,
    pub(super) why: String,
}

/// Parses a text.
pub(super) fn parse(text: &str) -> Result<Node, NotYaml> {
    let mut options = Options::default();
    // A name that stands there twice is found later, with all other mistakes. The lines around a mistake may hold a key.
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    options.with_snippet = false;
    // An alias repeats what its anchor has, and aliases of aliases multiply: ten short lines would be a million nodes. A hundred
    // routes that share a list of ten destinations by an alias need half of this.
    options.alias_limits.max_total_replayed_events = MOST_REPEATED;
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(raw, text)),
        Err(error) => {
            let place = error.location().map_or(FilePlace { line: 1, column: 1 }, FilePlace::from);
            Err(NotYaml { place, why: without_place(&error.to_string()) })
        }
    }
}

/// The parser puts the place in front of its words.
fn without_place(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    match first.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, words)) => words.to_owned(),
        None => first.to_owned(),
    }
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let value = match raw.value {
        Raw::Nothing => NodeValue::Nothing,
        Raw::Text(text) => NodeValue::Scalar(text),
        Raw::Typed => NodeValue::Scalar(written(raw.defined, text).to_owned()),
        Raw::List(nodes) => NodeValue::List(nodes.into_iter().map(|raw| node(raw, text)).collect()),
        Raw::Table(entries) => {
            let entry = |(name, raw): (Spanned<String>, Spanned<Raw>)| {
                (FilePlace::from(name.referenced), name.value, node(raw, text))
            };
            NodeValue::Table(entries.into_iter().map(entry).collect())
        }
    };
    Node { place: raw.referenced.into(), value }
}

/// The text of a scalar that the parser has taken for a number or an answer.
fn written(location: Location, text: &str) -> &str {
    let span = location.span();
    let part = span.byte_offset().zip(span.byte_len()).and_then(|(from, len)| {
        let from = usize::try_from(from).ok()?;
        text.get(from..from.checked_add(usize::try_from(len).ok()?)?)
    });
    part.unwrap_or_default()
}

/// A node as the parser gives it.
enum Raw {
    Nothing,
    Text(String),
    /// A number, or true or false.
    Typed,
    List(Vec<Spanned<Raw>>),
    Table(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a table")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Raw::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = table.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Table(entries))
    }
}
