//! The files of the configuration, with one owner. In: the questions of admission, of the reload and of `/readyz`. Out: the [`Book`] in force, the
//! mistakes of files that are not in force; events. Next: `task`, and `reload`.
//!
//! Admission looks at the files when a publisher comes, the reload when the kernel reports a change, and each of them sees what the other has read.
//!
//! Note: the largest file that is allowed takes long enough to read that streams of this thread would notice, so another thread reads files that have
//! changed. A publisher that comes meanwhile waits for them.
#![expect(clippy::disallowed_methods, reason = "shell: it has another thread read files")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::book::Book;
use super::metrics::AdmissionMetrics;
use super::verdict::Admitted;
use crate::config::{FileNews, Reloaded, Settings};
use crate::events::{Events, Fact};

/// The files of the configuration, shared by clones.
#[derive(Clone)]
pub struct ConfigFiles(Arc<SharedFiles>);

struct SharedFiles {
    /// Held while changed files are read, so it is a lock that tasks wait for and threads do not.
    files: Arc<tokio::sync::Mutex<Reloaded>>,
    // A lock for a copy of what is in force, held for no longer.
    in_force: Mutex<InForce>,
    /// Files that were read again are events.
    events: Events,
    metrics: AdmissionMetrics,
    /// Streams may have to follow a file.
    unfollowed: Notify,
}

/// The outcome of the last reading.
struct InForce {
    book: Book,
    rejected: Vec<(&'static str, String)>,
    paths: Vec<PathBuf>,
}

impl InForce {
    fn of(files: &Reloaded) -> Self {
        let rejected = files.rejected().iter().map(|(setting, mistakes)| (*setting, mistakes.clone())).collect();
        Self { book: Book::of(files), rejected, paths: files.paths() }
    }
}

impl ConfigFiles {
    pub(super) fn new(settings: &Settings, events: Events, metrics: AdmissionMetrics) -> Self {
        let files = Reloaded::new(settings);
        let in_force = Mutex::new(InForce::of(&files));
        let files = Arc::new(tokio::sync::Mutex::new(files));
        Self(Arc::new(SharedFiles { files, in_force, events, metrics, unfollowed: Notify::new() }))
    }

    /// Looks whether files have changed, and returns the book in force. Cancel safe: files that are being read come into force all the same.
    pub async fn look(&self) -> Book {
        self.read(Reloaded::refresh, Reloaded::is_stale).await
    }

    /// Reads every file again, and returns the book in force. Cancel safe as [`Self::look`].
    pub async fn reread(&self) -> Book {
        self.read(Reloaded::reread, |_| true).await
    }

    /// Returns when streams may have to follow a file: one was read again, or a publisher has entered that an earlier one had let in. Cancel safe.
    pub async fn unfollowed(&self) {
        self.0.unfollowed.notified().await;
    }

    /// Notes that an admitted publisher has entered the lobby. The files may have changed since its verdict, and streams that were in the lobby have
    /// followed them.
    pub(crate) fn entered(&self, admitted: &Admitted) {
        if admitted.files != self.lock().book.revision() {
            self.0.unfollowed.notify_one();
        }
    }

    /// The book in force.
    pub(super) fn book(&self) -> Book {
        self.lock().book.clone()
    }

    /// The mistakes of the files that are not in force as they are on the disk, by the setting that names them.
    pub fn rejected(&self) -> Vec<(&'static str, String)> {
        self.lock().rejected.clone()
    }

    /// Every file that is followed.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().paths.clone()
    }

    /// Has another thread read the files, if that is `needed`.
    async fn read(&self, read: fn(&mut Reloaded) -> Vec<FileNews>, needed: fn(&Reloaded) -> bool) -> Book {
        let mut files = Arc::clone(&self.0.files).lock_owned().await;
        if needed(&files) {
            let here = self.clone();
            let reading = spawn_blocking(move || {
                let news = read(&mut files);
                here.put_in_force(&files, news);
            });
            // A panic there leaves the last files in force.
            let _ = reading.await;
        }
        self.book()
    }

    fn put_in_force(&self, files: &Reloaded, news: Vec<FileNews>) {
        let in_force = InForce::of(files);
        let rejected = in_force.rejected.len();
        *self.lock() = in_force;
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
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        self.0.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test writes the file that a setting names")]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use clap::Parser;
    use liveedgecast_common::clock::now;
    use liveedgecast_common::config::MAX_FILE_BYTES;
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
        let book = files.look().await;
        assert!(is_unfollowed(files) && !is_unfollowed(files), "once for the file");
        files.entered(&admitted);
        assert!(is_unfollowed(files), "and once for the publisher, which that file does not have");
        let (names, origin) = admitted.destinations.source().unwrap();
        assert_eq!(book.standing(names, origin), FileStanding::Removed);
    }

    /// The largest configuration file that is allowed, one byte less; each entry of it is good.
    fn largest(key: &str) -> String {
        let end = format!(
            "  - {{name: last, key: {key}}}\nroutes: {{default: {{destinations: [{{name: o, url: 'rtmp://a/b/{{key}}'}}]}}}}\n"
        );
        let mut text = "publishers:\n".to_owned();
        for number in 0.. {
            let entry = format!("  - {{name: p{number}, key: k{number}}}\n");
            if text.len() + entry.len() + end.len() >= usize::try_from(MAX_FILE_BYTES).unwrap() {
                break;
            }
            text += &entry;
        }
        text + &end
    }

    #[tokio::test]
    async fn thread_serves_others_while_the_largest_file_is_read_and_a_publisher_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "publishers: []\nroutes: {default: {destinations: [{name: o, url: 'rtmp://a/b/c'}]}}\n")
            .unwrap();
        let args = Args::try_parse_from(["x", "--config", path.to_str().unwrap()]).unwrap();
        let settings = Settings::resolve(&args, [1; 32]).unwrap();
        let admission = Admission::new(&settings, Events::default(), AdmissionMetrics::unregistered());
        let files = admission.files();
        assert_eq!(files.look().await.revision(), 0);
        std::fs::write(&path, largest("omega")).unwrap();

        let begun = now();
        let mut reading = pin!(files.look());
        let mut context = Context::from_waker(Waker::noop());
        assert!(reading.as_mut().poll(&mut context).is_pending(), "it was read by this thread");
        let asked = now();
        // Others read what is in force meanwhile, and wait for nothing.
        assert!(files.book().revision() == 0 && files.rejected().is_empty() && files.paths().len() == 1);
        let request = AdmissionRequest {
            client: "10.0.0.1".parse().unwrap(),
            app: "live".into(),
            key: StreamKey::parse("omega").unwrap(),
            facts: ClientFacts::default(),
        };
        let (book, verdict) = tokio::join!(reading, admission.judge(request));
        println!("{} bytes: asked after {:?}, read after {:?}", MAX_FILE_BYTES, asked - begun, now() - begun);
        assert_eq!(book.revision(), 1);
        assert!(matches!(verdict, Verdict::Admit { .. }), "a publisher came while its file was read");
        // A reader that goes away does not stop the reading.
        std::fs::write(&path, largest("other")).unwrap();
        assert!(pin!(files.look()).poll(&mut context).is_pending());
        assert_eq!(files.look().await.revision(), 2);
    }
}
