//! The values of a table. In: a [`Node`], the name that a value should have. Out: the value, or a mistake with its place and its fix, so that all
//! mistakes of a file are found at once. Next: `read`, which knows what a file may say. Pure.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use liveedgecast_common::config::parse_duration;
use liveedgecast_common::key::LogSafe;

use super::yaml::{FilePlace, Node, NodeValue};

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Mistake {
    place: FilePlace,
    /// The value, as a path through the file: `routes.church.destinations[0].url`. Empty for the file itself.
    path: String,
    /// The mistake and its fix; without keys.
    text: String,
}

impl Mistake {
    /// Line and column, from 1.
    pub(in crate::config) fn place(&self) -> impl fmt::Display + use<> {
        self.place
    }

    /// The value, the mistake and its fix.
    pub(in crate::config) fn words(&self) -> String {
        let Self { path, text, .. } = self;
        if path.is_empty() { text.clone() } else { format!("{path}: {text}") }
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn add(&mut self, place: FilePlace, path: impl Into<String>, text: impl fmt::Display) {
        self.0.push(Mistake { place, path: path.into(), text: text.to_string() });
    }

    /// The mistakes in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Mistake> {
        self.0.sort_by_key(|mistake| mistake.place);
        self.0
    }
}

/// A value with its place and its path.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) place: FilePlace,
    pub(super) path: String,
    pub(super) value: T,
}

impl<T> Found<T> {
    /// Turns the value into another one, or notes why that cannot be.
    pub(super) fn check<U, E: fmt::Display>(
        self,
        mistakes: &mut Mistakes,
        turn: impl FnOnce(T) -> Result<U, E>,
    ) -> Option<Found<U>> {
        match turn(self.value) {
            Ok(value) => Some(Found { place: self.place, path: self.path, value }),
            Err(error) => {
                mistakes.add(self.place, self.path, error);
                None
            }
        }
    }
}

/// A table of the file, of which names are asked one by one.
pub(super) struct FileTable<'a> {
    pub(super) place: FilePlace,
    pub(super) path: String,
    entries: &'a [(FilePlace, String, Node)],
    asked: Vec<&'static str>,
}

impl<'a> FileTable<'a> {
    /// The table at a node; a node of nothing is an empty one.
    pub(super) fn at(found: Found<&'a Node>, mistakes: &mut Mistakes) -> Option<Self> {
        let Found { place, path, value } = found;
        let entries = match &value.value {
            NodeValue::Table(entries) => entries.as_slice(),
            NodeValue::Nothing => &[],
            NodeValue::Scalar(_) | NodeValue::List(_) => {
                mistakes.add(place, path, "must be a table: lines of `name: value`");
                return None;
            }
        };
        let table = Self { place, path, entries, asked: Vec::new() };
        let mut before = HashSet::new();
        for (place, name, _) in entries {
            if !before.insert(name) {
                mistakes.add(*place, table.inner(name), "stands here twice: remove one of them");
            }
        }
        Some(table)
    }

    /// The path of an entry. Its name may be anything, and mistakes are shown on terminals.
    fn inner(&self, name: &str) -> String {
        let name = LogSafe(name).to_string();
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    /// Returns whether something is written there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(_, known, node)| known == name && !matches!(node.value, NodeValue::Nothing))
    }

    /// A value that is not nothing.
    pub(super) fn node(&mut self, name: &'static str) -> Option<Found<&'a Node>> {
        self.asked.push(name);
        let (_, _, node) = self.entries.iter().find(|(_, known, _)| known == name)?;
        if matches!(node.value, NodeValue::Nothing) {
            return None;
        }
        Some(Found { place: node.place, path: self.inner(name), value: node })
    }

    /// A scalar.
    pub(super) fn text(&mut self, name: &'static str, mistakes: &mut Mistakes) -> Option<Found<&'a str>> {
        let Found { place, path, value } = self.node(name)?;
        match &value.value {
            NodeValue::Scalar(text) if !text.is_empty() => Some(Found { place, path, value: text }),
            NodeValue::Scalar(_) => {
                mistakes.add(place, path, "is empty: write a value, or leave the line out");
                None
            }
            _ => {
                mistakes.add(place, path, "must be one value, no list and no table");
                None
            }
        }
    }

    /// A scalar without which the table has no meaning.
    pub(super) fn required(
        &mut self,
        name: &'static str,
        such_as: &str,
        mistakes: &mut Mistakes,
    ) -> Option<Found<&'a str>> {
        if !self.has(name) {
            mistakes.add(self.place, self.inner(name), format_args!("is missing: write {name}: {such_as}"));
        }
        self.text(name, mistakes)
    }

    /// `true` or `false`.
    pub(super) fn answer(&mut self, name: &'static str, mistakes: &mut Mistakes) -> Option<bool> {
        let turn = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("must be true or false"),
        };
        Some(self.text(name, mistakes)?.check(mistakes, turn)?.value)
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let turn = |text: &str| match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(format!("must be one of {}", words.join(", ")))
            }
        };
        Some(self.text(name, mistakes)?.check(mistakes, turn)?.value)
    }

    /// A time such as `30s`, of at least and at most so much.
    pub(super) fn time(
        &mut self,
        name: &'static str,
        least: Duration,
        most: Duration,
        mistakes: &mut Mistakes,
    ) -> Option<Duration> {
        let time = self.text(name, mistakes)?.check(mistakes, parse_duration)?;
        let turn = |time: Duration| match time {
            time if time < least => Err(format!("must be at least {}", show(least))),
            time if time > most => Err(format!("must be at most {}", show(most))),
            time => Ok(time),
        };
        Some(time.check(mistakes, turn)?.value)
    }

    /// A whole number of at least and at most so much.
    pub(super) fn number(&mut self, name: &'static str, least: u32, most: u32, mistakes: &mut Mistakes) -> Option<u32> {
        let turn = |text: &str| match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number from {least} to {most}")),
        };
        Some(self.text(name, mistakes)?.check(mistakes, turn)?.value)
    }

    /// The parts of a list.
    pub(super) fn list(&mut self, name: &'static str, mistakes: &mut Mistakes) -> Vec<Found<&'a Node>> {
        let Some(Found { place, path, value }) = self.node(name) else { return Vec::new() };
        let NodeValue::List(nodes) = &value.value else {
            mistakes.add(place, path, "must be a list: lines that begin with `- `");
            return Vec::new();
        };
        let part =
            |(at, node): (usize, &'a Node)| Found { place: node.place, path: format!("{path}[{at}]"), value: node };
        nodes.iter().enumerate().map(part).collect()
    }

    /// The entries of a table whose names are the user's.
    pub(super) fn named(
        &mut self,
        name: &'static str,
        mistakes: &mut Mistakes,
    ) -> Vec<(Found<&'a str>, Found<&'a Node>)> {
        let Some(table) = self.node(name).and_then(|node| FileTable::at(node, mistakes)) else { return Vec::new() };
        let entry = |(place, name, node): &'a (FilePlace, String, Node)| {
            let path = table.inner(name);
            let key = Found { place: *place, path: path.clone(), value: name.as_str() };
            (key, Found { place: node.place, path, value: node })
        };
        table.entries.iter().map(entry).collect()
    }

    /// Notes the names that nobody has asked for.
    pub(super) fn finish(self, mistakes: &mut Mistakes) {
        for (place, name, _) in self.entries {
            if !self.asked.contains(&name.as_str()) {
                let known = self.asked.join(", ");
                mistakes.add(*place, self.inner(name), format_args!("is not known here: there are {known}"));
            }
        }
    }
}

fn show(time: Duration) -> String {
    liveedgecast_common::config::show_duration(time)
}
