//! The files of the configuration, with one owner. In: the questions of admission, of the reload and of `/readyz`. Out: the [`Book`] in force, the
//! mistakes of files that are not in force; events. Next: `task`, and `reload`.
//!
//! Admission looks at the files when a publisher comes, the reload when the kernel reports a change, and each of them sees what the other has read.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::book::Book;
use super::metrics::AdmissionMetrics;
use super::verdict::Admitted;
use crate::config::{FileNews, Reloaded, Settings};
use crate::events::{Events, Fact};

/// The files of the configuration, shared by clones.
#[derive(Clone)]
pub struct ConfigFiles(Arc<SharedFiles>);

struct SharedFiles {
    // A lock of its own, because files are read under it: a slow disk delays the publishers that come next, not the rules.
    files: Mutex<Reloaded>,
    /// Files that were read again are events.
    events: Events,
    metrics: AdmissionMetrics,
    /// Streams may have to follow a file.
    unfollowed: Notify,
}

impl ConfigFiles {
    pub(super) fn new(settings: &Settings, events: Events, metrics: AdmissionMetrics) -> Self {
        let files = Mutex::new(Reloaded::new(settings));
        Self(Arc::new(SharedFiles { files, events, metrics, unfollowed: Notify::new() }))
    }

    /// Looks whether files have changed, and returns the book in force.
    pub fn look(&self) -> Book {
        self.read(Reloaded::refresh)
    }

    /// Reads every file again, and returns the book in force.
    pub fn reread(&self) -> Book {
        self.read(Reloaded::reread)
    }

    /// Returns when streams may have to follow a file: one was read again, or a publisher has entered that an earlier one had let in. Cancel safe.
    pub async fn unfollowed(&self) {
        self.0.unfollowed.notified().await;
    }

    /// Notes that an admitted publisher has entered the lobby. The files may have changed since its verdict, and streams that were in the lobby have
    /// followed them.
    pub(crate) fn entered(&self, admitted: &Admitted) {
        if admitted.files != self.lock().revision() {
            self.0.unfollowed.notify_one();
        }
    }

    /// The book in force.
    pub(super) fn book(&self) -> Book {
        Book::of(&self.lock())
    }

    /// The mistakes of the files that are not in force as they are on the disk, by the setting that names them.
    pub fn rejected(&self) -> Vec<(&'static str, String)> {
        self.lock().rejected().iter().map(|(setting, mistakes)| (*setting, mistakes.clone())).collect()
    }

    /// Every file that is followed.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().paths()
    }

    fn read(&self, read: impl FnOnce(&mut Reloaded) -> Vec<FileNews>) -> Book {
        let mut files = self.lock();
        let news = read(&mut files);
        let (book, rejected) = (Book::of(&files), files.rejected().len());
        drop(files);
        if !news.is_empty() {
            self.0.metrics.rejected_files(rejected);
        }
        for FileNews { setting, rejected } in news {
            self.0.metrics.read_again(rejected.is_none());
            self.0.events.tell(match rejected {
                None => Fact::FileReloaded { setting },
                Some(reason) => Fact::FileRejected { setting, reason },
            });
            self.0.unfollowed.notify_one();
        }
        book
    }

    fn lock(&self) -> MutexGuard<'_, Reloaded> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test writes the file that a setting names")]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use clap::Parser;
    use liveedgecast_common::key::StreamKey;

    use super::*;
    use crate::admission::{Admission, AdmissionRequest, ClientFacts, FileStanding, Verdict};
    use crate::config::Args;

    fn is_unfollowed(files: &ConfigFiles) -> bool {
        pin!(files.unfollowed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn publisher_that_an_earlier_file_has_let_in_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let text = |key: &str| {
            format!(
                "publishers: [{{name: a, key: {key}}}]\nroutes: {{default: {{destinations: [{{name: o, url: 'rtmp://a/b/c'}}]}}}}\n"
            )
        };
        std::fs::write(&path, text("alpha")).unwrap();
        let args = Args::try_parse_from(["x", "--config", path.to_str().unwrap()]).unwrap();
        let settings = Settings::resolve(&args, [1; 32]).unwrap();
        let admission = Admission::new(&settings, Events::default(), AdmissionMetrics::unregistered());
        let key = StreamKey::parse("alpha").unwrap();
        let request = AdmissionRequest {
            client: "10.0.0.1".parse().unwrap(),
            app: "live".into(),
            key,
            facts: ClientFacts::default(),
        };
        let Verdict::Admit { admitted, .. } = admission.judge(request).await else { panic!("not admitted") };
        let files = admission.files();
        files.entered(&admitted);
        assert!(!is_unfollowed(files), "its file is in force");

        std::fs::write(&path, text("beta")).unwrap();
        let book = files.look();
        assert!(is_unfollowed(files) && !is_unfollowed(files), "once for the file");
        files.entered(&admitted);
        assert!(is_unfollowed(files), "and once for the publisher, which that file does not have");
        let (names, origin) = admitted.destinations.source().unwrap();
        assert_eq!(book.standing(names, origin), FileStanding::Removed);
    }
}
