//! The README and the guides in `deploy/docs` say what is so: their tables are the programs' own, their commands name what exists or are run,
//! their links lead somewhere, and the sections that comments cite are there.
//!
//! `UPDATE_DOCUMENTS=1 cargo test -p liveedgecast-e2e --test documents` writes the generated tables again.

mod commands;
mod image;
mod markdown;
mod names;
mod tables;

use std::fs;

use liveedgecast_e2e::publish::root;

/// The text of a file of the repository.
fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below these folders or files whose name ends in one of `endings`, as path and text. `target` is left out.
fn files(below: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<_> = below.iter().map(|path| root().join(path)).collect();
    while let Some(path) = open.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let entries = entries.map(|entry| entry.expect("an entry").path());
            open.extend(entries.filter(|entry| entry.file_name().is_some_and(|name| name != "target")));
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let relative = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{relative}: {error}"));
            found.push((relative, text));
        }
    }
    found.sort();
    found
}

/// The texts beside the programs that name settings and files: scripts, manifests, image, compose file.
fn around() -> String {
    let texts = files(
        &["tools", "deploy", ".ci/run", "Dockerfile", "docker-compose.yml"],
        &[".sh", ".yaml", "run", "Dockerfile", ".yml"],
    );
    texts.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn readme_is_short() {
    let bytes = file("README.md").len();
    assert!(bytes <= 10 << 10, "the README has {bytes} bytes; what is more goes to deploy/docs");
}

#[test]
fn readme_has_the_two_commands() {
    let readme = file("README.md");
    for command in ["\n./tools/demo.sh\n", "\n./tools/test.sh\n"] {
        assert!(readme.contains(command), "the README does not have the line {command:?}");
    }
}
