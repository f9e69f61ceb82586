//! The rules of the structure test. In: a tree of files and the order of rooms. Out: every place that breaks a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::source::{CRATES, Named, Source, Tree};
use crate::tokens::Token;

/// The declared structure of the workspace.
pub(crate) struct Order {
    /// The rooms of each crate, lowest first. A room imports those before it.
    pub(crate) rooms: &'static [(&'static str, &'static [&'static str])],
    /// The files, or directories with a `/` at the end, that may touch generated protobuf types.
    pub(crate) entry_points: &'static [&'static str],
    /// The names of types that may be defined in several files.
    pub(crate) conventions: &'static [&'static str],
}

/// The rules, each of which has a row in `rules_tests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// The declared rooms are those that exist.
    Rooms,
    /// A room imports lower ones only.
    Upward,
    /// No rooms import each other, also through others.
    Cycle,
    /// `#[path]` is for tests.
    PathAttribute,
    /// Generated protobuf types stay at the entry points.
    Generated,
    /// Comments and documents name rooms, not their numbers.
    RoomNumber,
    /// Comments cite documents, and sections of the design page, that exist.
    Citation,
    /// A type name stands in one file.
    TypeName,
    /// The event of a log line is a constant.
    EventLiteral,
    /// Every log line has an event.
    EventMissing,
    /// The constants of events are unique, dotted and used.
    EventConstant,
    /// Less than 5 % of the lines of doc comments begin with a pronoun, a relative or a preposition.
    Words,
}

/// A place that breaks a rule.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// The subject, as an exception names it: an edge, a room, a file, a type or a crate.
    pub(crate) key: String,
    pub(crate) at: String,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{}] {}: {}", self.rule, self.key, self.at, self.text)
    }
}

/// The most of the lines of doc comments that may begin with a weak word, in percent.
const MOST_WEAK: f64 = 5.0;

/// The design page, whose sections comments cite.
const DESIGN_PAGE: &str = "deploy/docs/architecture.md";

/// Places that break a rule, in the order of the rules.
pub(crate) fn violations(tree: &Tree, order: &Order) -> Vec<Violation> {
    let sources = tree.sources();
    let rooms: Vec<&Source> = sources.iter().filter(|source| CRATES.contains(&source.crate_name.as_str())).collect();
    let mut found = Found(Vec::new());
    imports(&mut found, &rooms, order);
    for source in rooms.iter().filter(|source| !source.test) {
        path_attributes(&mut found, source);
        log_lines(&mut found, source);
    }
    generated(&mut found, &rooms, order);
    citations(&mut found, tree, &sources);
    type_names(&mut found, &sources, order);
    event_constants(&mut found, &rooms);
    for (name, share) in words(tree) {
        if share.percent() >= MOST_WEAK {
            let text = format!("{} of {} lines begin with a weak word", share.weak, share.lines);
            found.add(Rule::Words, &name, &name, text);
        }
    }
    found.0.sort_by(|a, b| (a.rule, &a.key, &a.at).cmp(&(b.rule, &b.key, &b.at)));
    found.0
}

struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, rule: Rule, key: &str, at: &str, text: impl Into<String>) {
        self.0.push(Violation { rule, key: key.to_owned(), at: at.to_owned(), text: text.into() });
    }

    fn on_line(&mut self, rule: Rule, key: &str, path: &str, line: usize, text: impl Into<String>) {
        self.add(rule, key, &format!("{path}:{line}"), text);
    }
}

/// True if the file is the root of a crate, which is above all rooms.
fn is_root(source: &Source) -> bool {
    source.module.is_empty()
}

fn imports(found: &mut Found, sources: &[&Source], order: &Order) {
    for (crate_name, declared) in order.rooms {
        let here: Vec<&&Source> = sources
            .iter()
            .filter(|source| source.crate_name == *crate_name && !source.test && !is_root(source))
            .collect();
        let existing: BTreeSet<&str> = here.iter().map(|source| source.room.as_str()).collect();
        let listed: BTreeSet<&str> = declared.iter().copied().collect();
        for room in existing.symmetric_difference(&listed) {
            let key = format!("{crate_name}/{room}");
            let text = if listed.contains(room) { "declared, but there is none" } else { "not in the order" };
            found.add(Rule::Rooms, &key, &key, text);
        }
        let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for source in here {
            for named in source.paths() {
                let Some(room) = imported(source, &named) else { continue };
                let key = format!("{}: {} → {room}", crate_name, source.room);
                let position = |room: &str| declared.iter().position(|declared| *declared == room);
                let text = named.path.join("::");
                match (position(&source.room), position(&room)) {
                    _ if !existing.contains(room.as_str()) => {
                        found.on_line(
                            Rule::Upward,
                            &key,
                            &source.path,
                            named.line,
                            format!("{text}, of the crate's root"),
                        );
                    }
                    (Some(own), Some(other)) if other > own => {
                        found.on_line(Rule::Upward, &key, &source.path, named.line, text);
                    }
                    _ => {}
                }
                edges.entry(&source.room).or_default().insert(room);
            }
        }
        for knot in knots(&edges) {
            let key = format!("{crate_name}: {}", knot.join(", "));
            found.add(Rule::Cycle, &key, crate_name, "import each other");
        }
    }
}

/// The other room that a path leads to.
fn imported(source: &Source, named: &Named) -> Option<String> {
    let room = named.path.get(1).filter(|_| named.rooted && named.path[0] == source.crate_name)?;
    (*room != source.room && room != "self" && room != "super").then(|| room.clone())
}

/// The sets of rooms each of which reaches all others of its set.
fn knots(edges: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reach = |from: &str| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(room) = left.pop() {
            for next in edges.get(room.as_str()).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    left.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = edges.keys().map(|room| (*room, reach(room))).collect();
    let knot = |room: &str| -> Vec<String> {
        let back = |other: &&String| reached.get(other.as_str()).is_some_and(|rooms| rooms.contains(room));
        reached[room].iter().filter(back).cloned().collect()
    };
    edges.keys().map(|room| knot(room)).filter(|knot| knot.len() > 1).collect()
}

fn path_attributes(found: &mut Found, source: &Source) {
    for three in source.tokens.windows(3) {
        if three[0].is("#") && three[1].is("[") && three[2].is("path") {
            found.on_line(Rule::PathAttribute, &source.path, &source.path, three[0].line, "#[path] outside tests");
        }
    }
}

fn generated(found: &mut Found, sources: &[&Source], order: &Order) {
    let modules: Vec<(Vec<String>, &str)> = sources
        .iter()
        .flat_map(|source| source.generated().into_iter().map(|module| (module, source.path.as_str())))
        .collect();
    for source in sources.iter().filter(|source| !source.test) {
        let entry = order
            .entry_points
            .iter()
            .any(|entry| if entry.ends_with('/') { source.path.starts_with(entry) } else { source.path == *entry });
        for named in source.paths() {
            let hit = modules.iter().any(|(module, definer)| {
                let own = *definer == source.path && !named.exported;
                let rooted = named.rooted && named.path.starts_with(module);
                // After `use …::control`, `control::wire::Offer`.
                let tail = !named.rooted && module.len() > 2 && named.path.starts_with(&module[module.len() - 2..]);
                let alone = !named.rooted
                    && named.path.len() > 1
                    && module.last() == named.path.first()
                    && named.path[0] == "proto";
                !own && (rooted || tail || alone)
            });
            if hit && (!entry || named.exported) {
                let text = format!("{}{}", if named.exported { "exports " } else { "" }, named.path.join("::"));
                found.on_line(Rule::Generated, &source.path, &source.path, named.line, text);
            }
        }
    }
}

/// The comments of a file as runs of text, each with its first line: what a citation may be broken over.
fn comments(path: &str, text: &str, source: Option<&Source>) -> Vec<(usize, String)> {
    let lines: Vec<(usize, String)> = match source {
        Some(source) => source.comments.iter().map(|comment| (comment.line, comment.text.clone())).collect(),
        None if path.ends_with(".md") => {
            text.lines().enumerate().map(|(number, line)| (number + 1, line.to_owned())).collect()
        }
        None => {
            let sign = if path.ends_with(".proto") { "//" } else { "#" };
            let comment =
                |(number, line): (usize, &str)| Some((number + 1, line.split_once(sign)?.1.trim().to_owned()));
            text.lines().enumerate().filter_map(comment).collect()
        }
    };
    let mut runs: Vec<(usize, String)> = Vec::new();
    let mut last = 0;
    for (line, text) in lines {
        match runs.last_mut() {
            Some((_, run)) if line == last + 1 => {
                run.push(' ');
                run.push_str(&text);
            }
            _ => runs.push((line, text)),
        }
        last = line;
    }
    runs
}

fn citations(found: &mut Found, tree: &Tree, sources: &[Source]) {
    let by_path: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let sections: BTreeSet<&str> = tree.0.get(DESIGN_PAGE).map_or_else(BTreeSet::new, |page| {
        page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim()).collect()
    });
    for (path, text) in &tree.0 {
        // This test's own sources have to say what they look for.
        if path.starts_with("e2e/tests/structure") {
            continue;
        }
        let source = by_path.get(path.as_str()).copied();
        let key = source.map_or_else(|| path.clone(), Source::place);
        // `8. [`receive`]`, in the list of a crate's rooms.
        for comment in source.iter().flat_map(|source| &source.comments) {
            let item = comment.text.trim_start_matches(|c: char| c.is_ascii_digit());
            if item.len() < comment.text.len() && item.starts_with(". [") {
                found.on_line(Rule::RoomNumber, &key, path, comment.line, &comment.text);
            }
        }
        for (line, run) in comments(path, text, source) {
            if let Some(number) = room_number(&run) {
                found.on_line(Rule::RoomNumber, &key, path, line, number);
            }
            for cited in missing(&run, path, tree, &sections) {
                found.on_line(Rule::Citation, &key, path, line, cited);
            }
        }
    }
}

/// The first number of a room in a text, such as `Room 3`.
fn room_number(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let room = word.trim_start_matches(|c: char| !c.is_alphanumeric()).eq_ignore_ascii_case("room");
        if let Some(next) = words.peek().filter(|next| room && next.starts_with(|c: char| c.is_ascii_digit())) {
            return Some(format!("{word} {next}"));
        }
    }
    None
}

/// The documents and sections that a text cites and that are not there.
fn missing(text: &str, path: &str, tree: &Tree, sections: &BTreeSet<&str>) -> Vec<String> {
    let is_word = |character: char| character.is_alphanumeric() || "_-./".contains(character);
    let mut missing = Vec::new();
    for word in text.split(|character| !is_word(character)) {
        let word = word.trim_end_matches('.');
        if word == "DESIGN" || word == "STYLE" {
            missing.push(word.to_owned());
        }
        if word.ends_with(".md") && !text.contains(&format!("://{word}")) && !is_document(word, path, tree) {
            missing.push(word.to_owned());
        }
    }
    let titles = text.split("architecture.md, \"").skip(1).filter_map(|rest| rest.split_once('"'));
    for (title, _) in titles.filter(|(title, _)| !sections.contains(title)) {
        missing.push(format!("architecture.md, \"{title}\""));
    }
    missing
}

fn is_document(cited: &str, path: &str, tree: &Tree) -> bool {
    let name = cited.trim_start_matches(['.', '/']);
    if path.ends_with(".md") {
        // A link's target, whose way is the documents' own test to follow.
        return tree.0.keys().any(|known| known.ends_with(name));
    }
    tree.0.keys().any(|known| known == name || known.ends_with(&format!("/{name}")))
}

fn type_names(found: &mut Found, sources: &[Source], order: &Order) {
    let mut places: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.test && source.path.contains("/src/")) {
        for defined in source.types() {
            places.entry(defined.name).or_default().entry(&source.path).or_insert(defined.line);
        }
    }
    for (name, files) in places {
        if files.len() > 1 && !order.conventions.contains(&name.as_str()) {
            let files: Vec<String> = files.iter().map(|(path, line)| format!("{path}:{line}")).collect();
            found.add(Rule::TypeName, &name, &files.join(", "), format!("{name} is defined in {} files", files.len()));
        }
    }
}

fn log_lines(found: &mut Found, source: &Source) {
    let tokens = &source.tokens;
    for at in 0..tokens.len() {
        let level = ["trace", "debug", "info", "warn", "error"].iter().any(|level| tokens[at].is(level));
        if !(level && tokens.get(at + 1).is_some_and(|next| next.is("!"))) {
            continue;
        }
        let (key, line) = (source.place(), tokens[at].line);
        match event(&tokens[at + 2..]) {
            Event::Constant => {}
            Event::Literal(text) => {
                found.on_line(Rule::EventLiteral, &key, &source.path, line, format!("event = \"{text}\""))
            }
            Event::Missing => {
                let text = tokens[at + 2..].iter().find(|token| token.kind == crate::tokens::Kind::Literal);
                found.on_line(Rule::EventMissing, &key, &source.path, line, text.map_or("", |token| &token.text));
            }
        }
    }
}

enum Event {
    Constant,
    Literal(String),
    Missing,
}

/// The event among the arguments of a log macro, from its bracket on.
fn event(arguments: &[Token]) -> Event {
    let mut depth = 0;
    for (at, token) in arguments.iter().enumerate() {
        if ["(", "[", "{"].iter().any(|open| token.is(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
            depth -= 1;
            if depth == 0 {
                break;
            }
        } else if depth == 1 && token.is("event") && (arguments[at - 1].is("(") || arguments[at - 1].is(",")) {
            let value = arguments.get(at + 1).filter(|next| next.is("=")).and(arguments.get(at + 2));
            return match value {
                Some(value) if value.kind == crate::tokens::Kind::Literal => Event::Literal(value.text.clone()),
                _ => Event::Constant,
            };
        }
    }
    Event::Missing
}

fn event_constants(found: &mut Found, sources: &[&Source]) {
    let Some(events) = sources.iter().find(|source| source.path == "common/src/event.rs") else { return };
    let mut values: BTreeSet<&str> = BTreeSet::new();
    let used: BTreeSet<&str> = sources
        .iter()
        .filter(|source| !source.test && source.path != events.path)
        .flat_map(|source| source.tokens.iter().map(|token| token.text.as_str()))
        .collect();
    for eight in events.tokens.windows(8).filter(|eight| eight[0].is("const")) {
        let (name, value) = (&eight[1].text, &eight[6]);
        let mut wrong = Vec::new();
        if !values.insert(&value.text) {
            wrong.push("has another one's value");
        }
        let dotted = value.text.split('.').count() == 2
            && value.text.chars().all(|character| character.is_ascii_lowercase() || "._".contains(character));
        if !dotted {
            wrong.push("is not `thing.past_tense`");
        }
        if !used.contains(name.as_str()) {
            wrong.push("is used nowhere");
        }
        for wrong in wrong {
            found.on_line(Rule::EventConstant, name, &events.path, value.line, format!("{name} {wrong}"));
        }
    }
}

/// How many lines of doc comments there are, and how many begin with a weak word.
#[derive(Clone, Copy, Default)]
pub(crate) struct Share {
    pub(crate) weak: usize,
    pub(crate) lines: usize,
}

impl Share {
    #[expect(clippy::cast_precision_loss, reason = "some thousands of lines")]
    pub(crate) fn percent(self) -> f64 {
        100.0 * self.weak as f64 / self.lines.max(1) as f64
    }
}

/// Pronouns, relatives and prepositions: a line that begins with one leans on what is around it.
const WEAK: &str = "it its itself he him his she they them their we us our ours you your i this that these those who whom whose what \
    which where when whoever whatever whenever whether same such one ones none nobody somebody someone anybody anyone everybody everyone \
    everything nothing something others another both each either neither all any some of by in into on onto at to toward towards from \
    for with without within under over after before until till since as about above below between through during per via beside behind \
    beyond against among like out up off than";

/// The share of weak beginnings among the `///` lines of each crate.
pub(crate) fn words(tree: &Tree) -> BTreeMap<String, Share> {
    let weak: BTreeSet<&str> = WEAK.split_whitespace().collect();
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for (path, text) in tree.0.iter().filter(|(path, _)| path.ends_with(".rs")) {
        let share = shares.entry(path.split('/').next().unwrap_or_default().to_owned()).or_default();
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("///")) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let word =
                line.trim_start_matches('[').split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            share.lines += 1;
            share.weak += usize::from(weak.contains(word.to_ascii_lowercase().as_str()));
        }
    }
    shares
}
