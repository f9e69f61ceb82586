//! As much of Markdown as the documents use: fences, headings, links, code spans. In: files. Out: their parts, with line numbers.

use std::collections::HashMap;

use liveedgecast_e2e::publish::root;

use super::{file, files};

/// A document.
pub(super) struct Document {
    /// The path from the root of the repository.
    pub(super) path: String,
    /// The whole text.
    pub(super) text: String,
}

/// A block between two lines of three backticks.
pub(super) struct Fence {
    /// The words behind the opening backticks.
    pub(super) info: String,
    /// The lines between.
    pub(super) body: String,
    /// The place of its first line, for messages: `path:line`.
    pub(super) place: String,
}

/// The README and every guide.
pub(super) fn documents() -> Vec<Document> {
    let readme = ("README.md".to_owned(), file("README.md"));
    let guides = files(&["deploy/docs"], &[".md"]);
    std::iter::once(readme).chain(guides).map(|(path, text)| Document { path, text }).collect()
}

impl Document {
    /// Every fence, in order.
    pub(super) fn fences(&self) -> Vec<Fence> {
        let (mut fences, mut open): (Vec<Fence>, Option<Fence>) = (Vec::new(), None);
        for (number, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    let place = format!("{}:{}", self.path, number + 1);
                    open = Some(Fence { info: info.trim().to_owned(), body: String::new(), place });
                }
                (Some(_), Some(_)) => fences.extend(open.take()),
                (None, Some(fence)) => fence.body.extend([line, "\n"]),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.path);
        fences
    }

    /// Every line outside fences, with `path:line`.
    pub(super) fn prose(&self) -> Vec<(String, &str)> {
        let mut fenced = false;
        let lines = self.text.lines().enumerate().filter(|(_, line)| {
            let mark = line.starts_with("```");
            fenced ^= mark;
            !fenced && !mark
        });
        lines.map(|(number, line)| (format!("{}:{}", self.path, number + 1), line)).collect()
    }

    /// The titles of its headings.
    pub(super) fn headings(&self) -> Vec<&str> {
        let lines = self.prose().into_iter().map(|(_, line)| line);
        lines.filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim()).collect()
    }

    /// The anchors that GitHub gives to its headings.
    fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, u32> = HashMap::new();
        let anchors = self.headings().into_iter().map(|title| {
            let kept = title.to_lowercase().replace(' ', "-");
            let anchor: String = kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
            let before = seen.entry(anchor.clone()).or_default();
            *before += 1;
            if *before == 1 { anchor } else { format!("{anchor}-{}", *before - 1) }
        });
        anchors.collect()
    }

    /// Every piece of prose between backticks, with `path:line`.
    pub(super) fn code_spans(&self) -> Vec<(String, &str)> {
        let mut spans = Vec::new();
        for (place, line) in self.prose() {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (place.clone(), span)));
        }
        spans
    }
}

#[test]
fn links_lead_to_files_and_sections_that_exist() {
    let documents = documents();
    for document in &documents {
        let folder = root().join(&document.path).parent().expect("a folder").to_path_buf();
        for (place, line) in document.prose() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if target.contains("://") {
                    continue;
                }
                let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = if path.is_empty() { root().join(&document.path) } else { folder.join(path) };
                assert!(path.exists(), "{place}: {target} leads nowhere");
                if !anchor.is_empty() {
                    let path = path.canonicalize().expect("a path");
                    let linked = documents
                        .iter()
                        .find(|other| root().join(&other.path).canonicalize().is_ok_and(|other| other == path));
                    let anchors = linked.unwrap_or_else(|| panic!("{place}: {target} is no document")).anchors();
                    assert!(
                        anchors.iter().any(|known| known == anchor),
                        "{place}: {target}: no such section, but {anchors:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn fences_say_what_they_are() {
    for fence in documents().iter().flat_map(Document::fences) {
        let known = ["text", "json", "yaml", "sh", "sh run", "sh ci"];
        assert!(
            known.contains(&fence.info.as_str()),
            "{}: a fence of kind {:?}; known: {known:?}",
            fence.place,
            fence.info
        );
    }
}

#[test]
fn readme_links_to_every_guide() {
    let readme = file("README.md");
    for (path, _) in files(&["deploy/docs"], &[".md"]) {
        assert!(readme.contains(&format!("]({path}")), "the README does not link to {path}");
    }
}
