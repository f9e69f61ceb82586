//! The sources of the workspace as the rules read them. In: paths and texts. Out: per file its crate, room and module, its production tokens
//! (without what `#[cfg(test)]` marks), its comments, and every path that it names. Next: `rules`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::tokens::{Comment, Token, split};

/// The crates that have rooms, with the names by which other crates import them.
pub(crate) const CRATES: [&str; 3] = ["activator", "worker", "common"];

/// Texts of a repository by path, as a test makes them up or as they are on the disk.
#[derive(Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, String>);

impl Tree {
    /// Reads what the rules read: sources, scripts, manifests, documents.
    pub(crate) fn read(root: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.add(root, root);
        tree
    }

    fn add(&mut self, root: &Path, directory: &Path) {
        for entry in fs::read_dir(directory).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                if !["target", ".git", ".tools", "corpus", "golden", "schemas"].contains(&name.as_str()) {
                    self.add(root, &path);
                }
            } else if name == "Dockerfile"
                || [".rs", ".md", ".sh", ".yml", ".yaml", ".toml", ".proto"].iter().any(|end| name.ends_with(end))
            {
                let path_in = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                self.0.insert(path_in, fs::read_to_string(&path).expect("text"));
            }
        }
    }

    /// The Rust files of the four crates.
    pub(crate) fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = self
            .0
            .iter()
            .filter(|(path, _)| path.ends_with(".rs"))
            .map(|(path, text)| Source::new(path, text))
            .collect();
        let tests: BTreeSet<String> = sources.iter().flat_map(|source| source.test_modules.iter().cloned()).collect();
        for source in &mut sources {
            let below = |test: &String| {
                source.path == format!("{test}.rs")
                    || source.path.starts_with(&format!("{test}/"))
                    || source.path == *test
            };
            source.test |= tests.iter().any(below);
        }
        sources
    }
}

/// A path that code names, resolved from the root of its crate.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// The crate and then the modules, such as `common`, `control`, `wire`; what begins with neither is as it was written.
    pub(crate) path: Vec<String>,
    /// True if the path was found from a root (`crate`, `super`, `self`, or a crate's name).
    pub(crate) rooted: bool,
    /// True if the path is what a `pub use` exports.
    pub(crate) exported: bool,
    pub(crate) line: usize,
}

/// A type that a file defines.
#[derive(Clone, Debug)]
pub(crate) struct Defined {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// A Rust file.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) crate_name: String,
    /// The top-level module that the file belongs to; `lib` and `main` are above all rooms.
    pub(crate) room: String,
    /// The modules from the root of the crate to this file.
    pub(crate) module: Vec<String>,
    /// True if the file is compiled for tests only.
    pub(crate) test: bool,
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Comment>,
    /// The lines that are neither blank nor comment nor test.
    pub(crate) lines: usize,
    /// Files and directories (without `.rs`) of the modules that `#[cfg(test)]` marks here.
    test_modules: Vec<String>,
}

impl Source {
    /// Reads a file.
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let (all, comments) = split(text);
        let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
        let crate_name = parts[0].to_owned();
        // A file outside `src`, such as `build.rs`, is in no room.
        let inside = parts.iter().position(|part| *part == "src").map_or(&[][..], |at| &parts[at + 1..]);
        let mut module: Vec<String> = inside.iter().map(|part| (*part).to_owned()).collect();
        if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            module.pop();
        }
        let room = module.first().cloned().unwrap_or_else(|| parts[parts.len() - 1].to_owned());
        let file = parts[parts.len() - 1];
        let whole = all.windows(5).any(|five| {
            five[0].is("!") && five[1].is("[") && five[2].is("cfg") && five[3].is("(") && five[4].is("test")
        });
        let test = whole || parts.contains(&"tests") || file.ends_with("_tests");
        let (tokens, test_modules) = without_tests(&all, path);
        let lines: BTreeSet<usize> = tokens.iter().flat_map(|token| token.line..=token.last_line).collect();
        Source {
            path: path.to_owned(),
            crate_name,
            room,
            module,
            test,
            tokens,
            comments,
            lines: lines.len(),
            test_modules,
        }
    }

    /// The crate and the room, such as `activator/lobby`.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.crate_name, self.room)
    }

    /// Every path of the production code, with groups of `use` taken apart.
    pub(crate) fn paths(&self) -> Vec<Named> {
        let mut named = Vec::new();
        let mut modules = Modules::default();
        let mut exported = false;
        let mut at = 0;
        while at < self.tokens.len() {
            modules.pass(&self.tokens, at);
            let token = &self.tokens[at];
            if token.is("use") {
                exported = at > 0 && (self.tokens[at - 1].is("pub") || self.tokens[at - 1].is(")"));
            } else if token.is(";") {
                exported = false;
            }
            let begins = token.kind == crate::tokens::Kind::Word
                && self.tokens.get(at + 1).is_some_and(|next| next.is("::"))
                && !(at > 0 && self.tokens[at - 1].is("::"));
            if begins {
                let mut found = Vec::new();
                let end = tree(&self.tokens, at, &mut Vec::new(), &mut found);
                let module: Vec<String> = self.module.iter().chain(&modules.inline()).cloned().collect();
                for (path, line) in found {
                    let (path, rooted) = self.resolve(&path, &module);
                    named.push(Named { path, rooted, exported, line });
                }
                for between in at + 1..end {
                    modules.pass(&self.tokens, between);
                }
                at = end;
            } else {
                at += 1;
            }
        }
        named
    }

    fn resolve(&self, path: &[String], module: &[String]) -> (Vec<String>, bool) {
        let first = path[0].as_str();
        let (above, rest) = match first {
            "crate" => (0, &path[1..]),
            "self" => (module.len(), &path[1..]),
            "super" => {
                let supers = path.iter().take_while(|part| *part == "super").count();
                (module.len().saturating_sub(supers), &path[supers..])
            }
            _ => {
                let crate_name = first.strip_prefix("liveedgecast_").filter(|name| CRATES.contains(name));
                let Some(crate_name) = crate_name else { return (path.to_vec(), false) };
                let path = std::iter::once(crate_name.to_owned()).chain(path[1..].iter().cloned());
                return (path.collect(), true);
            }
        };
        let path = std::iter::once(&self.crate_name).chain(&module[..above]).chain(rest).cloned();
        (path.collect(), true)
    }

    /// The types that production code of this file defines outside of `impl` and `trait` blocks.
    pub(crate) fn types(&self) -> Vec<Defined> {
        let mut types = Vec::new();
        let mut blocks: Vec<bool> = Vec::new();
        let mut associated = false;
        for (at, token) in self.tokens.iter().enumerate() {
            let next = self.tokens.get(at + 1);
            match token.text.as_str() {
                _ if token.kind == crate::tokens::Kind::Literal => {}
                "impl" | "trait" if is_item(&self.tokens, at) => associated = true,
                "{" => blocks.push(std::mem::take(&mut associated)),
                "}" => drop(blocks.pop()),
                ";" => associated = false,
                _ => {}
            }
            let defines = ["struct", "enum", "trait", "union", "type"].iter().any(|keyword| token.is(keyword));
            if let Some(name) = next.filter(|name| defines && name.text.starts_with(|c: char| c.is_ascii_uppercase()))
                && is_item(&self.tokens, at)
                && !blocks.contains(&true)
            {
                types.push(Defined { name: name.text.clone(), line: name.line });
            }
        }
        types
    }

    /// The modules into which this file includes generated protobuf code, from the name of the crate on.
    pub(crate) fn generated(&self) -> Vec<Vec<String>> {
        let mut generated = Vec::new();
        let mut modules = Modules::default();
        for at in 0..self.tokens.len() {
            modules.pass(&self.tokens, at);
            if self.tokens[at].is("include_proto") {
                let path =
                    std::iter::once(&self.crate_name).chain(&self.module).chain(&modules.inline()).cloned().collect();
                generated.push(path);
            }
        }
        generated
    }
}

/// True if the keyword at `at` begins an item: what is before it ends another one, or belongs to this one. `impl Trait` in a signature does not.
fn is_item(tokens: &[Token], at: usize) -> bool {
    at == 0
        || ["pub", "unsafe", "}", "{", ";", "]", "auto"].iter().any(|before| tokens[at - 1].is(before))
        || (tokens[at - 1].is(")") && at > 2 && tokens[at - 3].is("("))
}

/// The in-line modules around a token.
#[derive(Default)]
struct Modules(Vec<Option<String>>);

impl Modules {
    fn pass(&mut self, tokens: &[Token], at: usize) {
        if tokens[at].is("{") {
            let module = at >= 2 && tokens[at - 2].is("mod");
            self.0.push(module.then(|| tokens[at - 1].text.clone()));
        } else if tokens[at].is("}") {
            self.0.pop();
        }
    }

    fn inline(&self) -> Vec<String> {
        self.0.iter().flatten().cloned().collect()
    }
}

/// Reads a path, or a tree of them as `use` has it, from `at`; returns where it ends.
fn tree(tokens: &[Token], mut at: usize, before: &mut Vec<String>, found: &mut Vec<(Vec<String>, usize)>) -> usize {
    let depth = before.len();
    let line = tokens[at].line;
    while let Some(token) = tokens.get(at) {
        if token.is("{") && at > 0 && tokens[at - 1].is("::") {
            at += 1;
            while tokens.get(at).is_some_and(|token| !token.is("}")) {
                if tokens[at].is(",") {
                    at += 1;
                } else {
                    at = tree(tokens, at, before, found).max(at + 1);
                }
            }
            before.truncate(depth);
            return at + 1;
        }
        if token.is("*") && at > 0 && tokens[at - 1].is("::") {
            at += 1;
            break;
        }
        if token.kind != crate::tokens::Kind::Word {
            break;
        }
        before.push(token.text.clone());
        at += 1;
        if tokens.get(at).is_some_and(|next| next.is("::")) {
            at += 1;
        } else {
            if tokens.get(at).is_some_and(|next| next.is("as")) {
                at += 2;
            }
            break;
        }
    }
    if before.len() > depth {
        found.push((before.clone(), line));
    }
    before.truncate(depth);
    at
}

/// The tokens that are compiled without `cfg(test)`, and the files of the modules that are not.
fn without_tests(all: &[Token], path: &str) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut files) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < all.len() {
        let Some(mut item) = test_attribute(all, at) else {
            kept.push(all[at].clone());
            at += 1;
            continue;
        };
        let mut from = None;
        while all.get(item).is_some_and(|token| token.is("#")) {
            if all.get(item + 2).is_some_and(|token| token.is("path")) {
                from = all.get(item + 4).map(|token| token.text.clone());
            }
            item = closing(all, item + 1);
        }
        let end = item_end(all, item);
        let words: Vec<&str> = all[item..end].iter().map(|token| token.text.as_str()).collect();
        if let Some(["mod", name, ";"]) = words.get(words.len().saturating_sub(3)..).and_then(|last| last.first_chunk())
        {
            let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
            let own = ["mod.rs", "lib.rs", "main.rs"].contains(&file);
            files.push(match from {
                Some(from) => format!("{directory}/{from}"),
                None if own => format!("{directory}/{name}"),
                None => format!("{directory}/{}/{name}", file.trim_end_matches(".rs")),
            });
        }
        at = end;
    }
    (kept, files)
}

/// End of the attribute `#[cfg(test)]` (or one with `all(test, …)` or `any(test, …)`, or `#[test]`) that begins at `at`, if one does.
fn test_attribute(all: &[Token], at: usize) -> Option<usize> {
    if !(all[at].is("#") && all.get(at + 1)?.is("[")) {
        return None;
    }
    let end = closing(all, at + 1);
    let words: Vec<&str> = all[at + 2..end - 1].iter().map(|token| token.text.as_str()).collect();
    let whole = words == ["test"] || words == ["cfg", "(", "test", ")"];
    let either = |word| words.starts_with(&["cfg", "(", word, "(", "test"]);
    let test = whole || either("all") || either("any") || words.ends_with(&["::", "test"]);
    test.then_some(end)
}

/// Index behind the bracket that closes the one at `at`.
fn closing(all: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in all.iter().enumerate().skip(at) {
        if ["(", "[", "{"].iter().any(|open| token.is(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
            depth -= 1;
            if depth == 0 {
                return index + 1;
            }
        }
    }
    all.len()
}

/// Index behind the item, field, arm or statement that begins at `at`.
fn item_end(all: &[Token], mut at: usize) -> usize {
    let items =
        ["fn", "struct", "enum", "mod", "impl", "trait", "const", "static", "type", "async", "unsafe", "extern"];
    let mut start = at;
    if all.get(start).is_some_and(|token| token.is("pub")) {
        start += 1;
        if all.get(start).is_some_and(|token| token.is("(")) {
            start = closing(all, start);
        }
    }
    let is_use = all.get(start).is_some_and(|token| token.is("use"));
    let item = is_use || all.get(start).is_some_and(|token| token.is("let") || items.iter().any(|word| token.is(word)));
    let mut angles = 0_i32;
    while let Some(token) = all.get(at) {
        if token.is(";") {
            return at + 1;
        }
        if token.is("}") || (token.is(",") && !item && angles <= 0) {
            return if token.is(",") { at + 1 } else { at };
        }
        if token.is("<") {
            angles += 1;
        } else if token.is(">") && !all[at - 1].is("-") && !all[at - 1].is("=") {
            angles -= 1;
        }
        if token.is("{") && !is_use && !all.get(start).is_some_and(|token| token.is("let")) {
            return closing(all, at);
        }
        at = if ["(", "[", "{"].iter().any(|open| token.is(open)) { closing(all, at) } else { at + 1 };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        let source = Source::new("activator/src/a.rs", text);
        source.tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn code_for_tests_is_left_out() {
        assert_eq!(kept("a; #[cfg(test)] mod tests { use x; } b;"), "a ; b ;");
        assert_eq!(kept("a; #[cfg(test)] #[path = \"x\"] mod t; b;"), "a ; b ;");
        assert_eq!(kept("struct A { #[cfg(test)] pub c: Map<A, B>, d: E }"), "struct A { d : E }");
        assert_eq!(kept("#[cfg(test)] use x::{a, b}; c;"), "c ;");
        assert_eq!(kept("#[cfg(test)] pub(crate) fn x<A, B>(a: [u8; 2]) -> X<A, B> { y; } c;"), "c ;");
        assert_eq!(kept("a; #[cfg(any(test, feature = \"x\"))] pub mod t; b;"), "a ; b ;");
        assert_eq!(kept("#[cfg(not(test))] const A: u8 = 1;"), "# [ cfg ( not ( test ) ) ] const A : u8 = 1 ;");
        assert_eq!(kept("match a { #[cfg(test)] A => {} B => {} }"), "match a { B = > { } }");
    }

    #[test]
    fn files_of_test_modules_are_tests() {
        let mut tree = Tree::default();
        tree.0.insert("activator/src/lib.rs".into(), "#[cfg(test)]\nmod kit;\nmod a;".into());
        tree.0.insert("activator/src/kit/mod.rs".into(), "mod deep;".into());
        tree.0.insert("activator/src/kit/deep.rs".into(), String::new());
        tree.0.insert(
            "activator/src/a.rs".into(),
            "#[cfg(test)] #[path = \"seen.rs\"] mod tests; #[cfg(test)] mod b;".into(),
        );
        tree.0.insert("activator/src/seen.rs".into(), String::new());
        tree.0.insert("activator/src/a/b.rs".into(), String::new());
        tree.0.insert("activator/src/a/c.rs".into(), String::new());
        let tests: Vec<String> =
            tree.sources().into_iter().filter(|source| source.test).map(|source| source.path).collect();
        let expected =
            ["activator/src/a/b.rs", "activator/src/kit/deep.rs", "activator/src/kit/mod.rs", "activator/src/seen.rs"];
        assert_eq!(tests, expected);
    }

    #[test]
    fn paths_are_resolved_through_groups_supers_and_modules() {
        let text = "use crate::{a::b, c}; use liveedgecast_common::key::{self, X as Y}; mod m { use super::super::d::*; } super::e::f();";
        let source = Source::new("activator/src/room/file.rs", text);
        let paths: Vec<String> = source.paths().iter().map(|named| named.path.join("::")).collect();
        let expected = [
            "activator::a::b",
            "activator::c",
            "common::key::self",
            "common::key::X",
            "activator::room::d",
            "activator::room::e::f",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn types_are_those_of_items() {
        let text = "pub struct A; pub(crate) enum B {} impl I for A { type Out = A; } trait T { type Z; } type C = u8; fn f(x: impl T) {}";
        let names: Vec<String> =
            Source::new("a/src/b.rs", text).types().into_iter().map(|defined| defined.name).collect();
        assert_eq!(names, ["A", "B", "T", "C"]);
    }
}
