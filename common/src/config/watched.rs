//! A file that may change while the process runs. In: its path. Out: whether it is another file than at the last look, and its text. Next: the
//! rooms that read settings again.
//!
//! Note: Kubernetes replaces a mounted secret by swapping a symbolic link, so the file that is followed has another inode
//! and often an older time; that is why inode, size and time are compared and not "is newer".
#![expect(clippy::disallowed_methods, reason = "shell: it looks at files")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::read_file;

/// Device, inode, size and time of a file when it was read.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// A file, and its stamp when it was looked at last.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
}

impl Watched {
    /// The file as it is now.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: stamp(path) }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the file has changed since the last call.
    pub fn is_another(&mut self) -> bool {
        let before = std::mem::replace(&mut self.seen, stamp(&self.path));
        before != self.seen
    }

    /// True if [`Self::is_another`] would be.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.seen != stamp(&self.path)
    }

    /// Lets the file count as another one at the next call.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// The text, if the file is another than last time.
    pub fn changed(&mut self) -> Option<Result<String, String>> {
        self.is_another().then(|| read_file(&self.path).map_err(|error| error.to_string()))
    }
}
