//! The shell of the reload. In: the kernel's word, SIGHUP, files that admission has read again. Out: orders to the lobby for each stream that a file
//! means.
//!
//! No timer runs while nothing changes: an idle activator wakes for nothing. Note: who changes several files at once, or writes one in parts,
//! causes several wake-ups, so the files are read after a moment of silence.
#![expect(clippy::disallowed_methods, reason = "shell: its timer")]

use std::future::pending;
use std::io;
use std::time::Duration;

use liveedgecast_common::event;
use tokio::signal::unix::Signal;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{info, warn};

use super::metrics::{ReloadMetrics, StreamResult};
use super::watch::FileWatch;
use crate::admission::{Book, ConfigFiles, FileStanding};
use crate::dispatch::RoutedStream;
use crate::lobby::{Streams, Views};
use crate::net::CurrentTokens;

/// Silence after which changed files are read.
const QUIET: Duration = Duration::from_millis(50);
/// Most waits for silence: a file that is written without end is read all the same.
const MOST_WAITS: usize = 20;
/// Streams that are changed in one go: the thread has others to serve.
const AT_ONCE: usize = 64;
/// The reason for which a removed publisher is disconnected; it reads this.
const REMOVED: &str = "this publisher was removed from the configuration";

/// The handles of the task.
pub struct Reload {
    /// The files, and the book that follows from them.
    pub files: ConfigFiles,
    /// The tokens of the API, whose files are followed, too.
    pub tokens: CurrentTokens,
    /// The streams whose destinations follow a file.
    pub streams: Streams,
    /// The means to end a stream.
    pub views: Views,
    /// The counters of this room.
    pub metrics: ReloadMetrics,
}

/// Follows the files until dropped; `hangup` is SIGHUP.
pub async fn run(room: Reload, mut hangup: Signal) {
    loop {
        let watch = room.watch();
        // A change may have come before the watch.
        room.files.look().await;
        room.tokens.look();
        tokio::select! {
            biased;
            () = room.files.unfollowed() => room.apply(&room.files.look().await).await,
            _ = hangup.recv() => {
                info!(event = event::RELOAD_ASKED, files = room.files.paths().len(), "files are read again, because SIGHUP came");
                room.files.reread().await;
            }
            stirred = stirred(watch.as_ref()) => match stirred {
                Ok(()) => settled(watch.as_ref()).await,
                Err(error) => {
                    warn!(event = event::FILE_UNWATCHED, %error, "files not watched any more");
                    // SIGHUP, or a publisher, has them read.
                    tokio::select! {
                        () = room.files.unfollowed() => room.apply(&room.files.look().await).await,
                        _ = hangup.recv() => drop(room.files.reread().await),
                    }
                }
            },
        }
    }
}

/// Returns when something has happened to the files; never if they are not watched.
async fn stirred(watch: Option<&FileWatch>) -> io::Result<()> {
    match watch {
        Some(watch) => watch.stirred().await,
        None => pending().await,
    }
}

/// Returns when nothing has happened to the files for a moment.
async fn settled(watch: Option<&FileWatch>) {
    for _ in 0..MOST_WAITS {
        if timeout(QUIET, stirred(watch)).await.is_err() {
            return;
        }
    }
}

impl Reload {
    /// A watch over the files as they are found now; `None`: there are none, or they cannot be watched.
    fn watch(&self) -> Option<FileWatch> {
        let mut paths = self.files.paths();
        paths.extend(self.tokens.paths());
        if paths.is_empty() {
            return None;
        }
        match FileWatch::over(&paths) {
            Ok(watch) => Some(watch),
            Err(error) => {
                warn!(event = event::FILE_UNWATCHED, %error, "files not watched: they are read when a publisher comes, and on SIGHUP");
                None
            }
        }
    }

    /// Brings the streams to what the book says.
    async fn apply(&self, book: &Book) {
        let (mut changed, mut removed, mut failed) = (0, 0, 0);
        for (number, stream) in self.streams.routed().into_iter().enumerate() {
            if number % AT_ONCE == AT_ONCE - 1 {
                yield_now().await;
            }
            let Some(result) = self.apply_to(book, &stream) else { continue };
            self.metrics.count(result);
            *match result {
                StreamResult::Changed => &mut changed,
                StreamResult::Removed => &mut removed,
                StreamResult::Failed => &mut failed,
            } += 1;
        }
        if changed + removed + failed > 0 {
            info!(event = event::STREAMS_FOLLOWED, changed, removed, failed, "streams follow the configuration file");
        }
    }

    /// Brings one stream to what the book says; `None`: nothing changes for it.
    fn apply_to(&self, book: &Book, stream: &RoutedStream) -> Option<StreamResult> {
        let id = stream.id.as_str();
        match book.standing(&stream.names, &stream.origin) {
            FileStanding::Kept => None,
            FileStanding::Routed(destinations) => match self.streams.follow(id, destinations) {
                Ok(true) => Some(StreamResult::Changed),
                Ok(false) => None,
                Err(error) => {
                    warn!(event = event::DESTINATIONS_KEPT, stream = id, change = "file", %error, "stream does not follow the configuration file");
                    Some(StreamResult::Failed)
                }
            },
            FileStanding::Removed if self.views.kick(id, REMOVED) => {
                let publisher = &stream.names.publisher;
                info!(
                    event = event::PUBLISHER_REMOVED,
                    stream = id,
                    publisher,
                    "publisher disconnected: it was removed from the configuration file"
                );
                Some(StreamResult::Removed)
            }
            // It has left meanwhile.
            FileStanding::Removed => None,
        }
    }
}
