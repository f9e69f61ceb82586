//! The kernel's word that a file may have changed. In: the paths of files. Out: a wake-up when something has happened to one of them. Next: `task`,
//! which looks whether it is another file.
//!
//! A path leads through folders and symbolic links, and the file that it means changes with each of them. Note: Kubernetes mounts a secret as
//! `file -> ..data/file`, `..data -> ..2026_11_30_…`, and replaces `..data` by a rename, so nothing happens to the file or to its own link. A file
//! that Docker mounts by itself has its folder on the host, where this process does not see renames; it sees that the file was written.
#![expect(clippy::disallowed_methods, reason = "shell: it looks at links, and asks the kernel")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf, absolute};

use liveedgecast_common::event;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe;

/// Most symbolic links of one path, as the kernel has it (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Room for the events that one call reads: a name has at most 255 bytes.
const EVENT_BYTES: usize = 4096;
/// Bytes of an event before its name: watch, mask, cookie, length of the name (inotify(7)).
const EVENT_HEAD: usize = 16;

/// The places on the way to files.
#[derive(Debug, Default, PartialEq, Eq)]
struct FilePlaces {
    /// Files and folders on the way, with the events that matter there.
    watched: BTreeMap<PathBuf, WatchFlags>,
    /// Names in folders that matter.
    names: BTreeSet<OsString>,
}

impl FilePlaces {
    /// The places on the way to these files, as the links are now.
    fn of(paths: &[PathBuf]) -> Self {
        let mut places = Self::default();
        for path in paths {
            // Without a current folder a relative path leads nowhere.
            if let Ok(path) = absolute(path) {
                places.follow(&path, MAX_LINKS);
            }
        }
        places
    }

    fn follow(&mut self, path: &Path, links: usize) {
        let mut at = PathBuf::from("/");
        let mut components = path.components();
        while let Some(component) = components.next() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    at.pop();
                    continue;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            let folder = at.clone();
            at.push(name);
            let rest = components.as_path();
            match std::fs::read_link(&at) {
                Ok(target) if links > 0 => {
                    self.name_in(folder.clone(), name.to_owned());
                    return self.follow(&folder.join(target).join(rest), links - 1);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && !rest.as_os_str().is_empty() => {
                    self.add(at.clone(), WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF);
                }
                // The file, or the first thing that is missing on the way to it.
                _ => {
                    self.name_in(folder, name.to_owned());
                    // A file may be mounted by itself; it is written where nothing happens in its folder.
                    self.add(at, WatchFlags::CLOSE_WRITE);
                    return;
                }
            }
        }
    }

    /// Notes that another thing of this name may come into the folder.
    fn name_in(&mut self, folder: PathBuf, name: OsString) {
        let comes = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        self.add(folder, comes | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF);
        self.names.insert(name);
    }

    fn add(&mut self, path: PathBuf, flags: WatchFlags) {
        *self.watched.entry(path).or_insert(WatchFlags::empty()) |= flags;
    }
}

/// A watch over files, for one change: the links may lead elsewhere after it.
pub(super) struct FileWatch {
    /// The kernel's events. No pipe, but read like one.
    kernel: pipe::Receiver,
    names: BTreeSet<OsString>,
}

impl FileWatch {
    /// Watches these files. A place that cannot be watched is logged and left out.
    ///
    /// # Errors
    /// The user has too many watches of this kind (`fs.inotify.max_user_instances`).
    pub(super) fn over(paths: &[PathBuf]) -> io::Result<Self> {
        let kernel = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let FilePlaces { watched, names } = FilePlaces::of(paths);
        for (path, flags) in watched {
            match inotify::add_watch(&kernel, &path, flags) {
                // A place that is missing is told by the folder that it appears in.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    tracing::warn!(event = event::FILE_UNWATCHED, path = %path.display(), %error, "place on the way to a file not watched");
                }
            }
        }
        Ok(Self { kernel: pipe::Receiver::from_owned_fd_unchecked(kernel)?, names })
    }

    /// Returns when something has happened to one of the files, or on the way to it. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn stirred(&self) -> io::Result<()> {
        loop {
            self.kernel.readable().await?;
            if self.read()? {
                return Ok(());
            }
        }
    }

    /// Reads events that have come; true if one of them matters.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [0; EVENT_BYTES];
        match self.kernel.try_read(&mut buffer) {
            // An event without a name is about a watched thing itself, or says that events were lost.
            Ok(length) => Ok(names(&buffer[..length]).any(|name| name.is_none_or(|name| self.names.contains(&name)))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The name that each event is about; `None`: the event is about the watched thing itself.
fn names(mut events: &[u8]) -> impl Iterator<Item = Option<OsString>> {
    std::iter::from_fn(move || {
        let (head, rest) = events.split_at_checked(EVENT_HEAD)?;
        let length = head.last_chunk().map(|length| u32::from_ne_bytes(*length))?;
        let (name, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        events = rest;
        // The name ends with zeros.
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Some((!name.is_empty()).then(|| OsString::from_vec(name.to_vec())))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Longer than the kernel takes to tell, and not waited for where it tells.
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn every_way_in_which_a_file_changes_is_noticed() {
        type Make = fn(&Path);
        let table: [(&str, Make); 9] = [
            ("it is written", |at| fs::write(at.join("etc/config.yaml"), "b").unwrap()),
            ("another one takes its name", |at| {
                fs::write(at.join("etc/next"), "b").unwrap();
                fs::rename(at.join("etc/next"), at.join("etc/config.yaml")).unwrap();
            }),
            ("it is removed", |at| fs::remove_file(at.join("etc/config.yaml")).unwrap()),
            ("its folder is replaced", |at| {
                fs::rename(at.join("etc"), at.join("old")).unwrap();
                fs::create_dir(at.join("etc")).unwrap();
                fs::write(at.join("etc/config.yaml"), "b").unwrap();
            }),
            ("the link to its folder leads elsewhere", |at| {
                symlink("v2", at.join("next")).unwrap();
                fs::rename(at.join("next"), at.join("..data")).unwrap();
            }),
            ("the file behind the links is written", |at| fs::write(at.join("v1/secret.yaml"), "b").unwrap()),
            ("the link itself is replaced", |at| {
                symlink("v2/secret.yaml", at.join("next")).unwrap();
                fs::rename(at.join("next"), at.join("secret.yaml")).unwrap();
            }),
            ("a missing file comes", |at| fs::write(at.join("later.yaml"), "b").unwrap()),
            ("a missing folder comes", |at| fs::create_dir(at.join("missing")).unwrap()),
        ];
        for (change, make) in table {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path();
            for folder in ["etc", "v1", "v2"] {
                fs::create_dir(at.join(folder)).unwrap();
            }
            for file in ["etc/config.yaml", "v1/secret.yaml", "v2/secret.yaml"] {
                fs::write(at.join(file), "a").unwrap();
            }
            symlink("v1", at.join("..data")).unwrap();
            symlink("..data/secret.yaml", at.join("secret.yaml")).unwrap();
            let files =
                ["etc/config.yaml", "secret.yaml", "later.yaml", "missing/folder/file"].map(|file| at.join(file));
            let watch = FileWatch::over(&files).unwrap();
            make(at);
            timeout(SOON, watch.stirred()).await.unwrap_or_else(|_| panic!("unnoticed: {change}")).unwrap();
        }
    }

    #[tokio::test]
    async fn other_files_of_the_folder_do_not_wake_anyone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        fs::write(&file, "a").unwrap();
        let watch = FileWatch::over(std::slice::from_ref(&file)).unwrap();
        for (name, text) in [("other", "a"), ("other", "b"), ("config.yaml.swp", "c")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::remove_file(dir.path().join("other")).unwrap();
        watch.kernel.readable().await.unwrap();
        assert!(!watch.read().unwrap());
        fs::write(&file, "b").unwrap();
        timeout(SOON, watch.stirred()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn links_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let watch = FileWatch::over(&[dir.path().join("a")]).unwrap();
        assert_eq!(watch.names.len(), 2);
    }
}
