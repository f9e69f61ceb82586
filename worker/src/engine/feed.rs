//! The sessions that have changed, from the engine's task to the registration's. In: each changed session. Out: of each stream the newest session
//! that the reader does not know. Next: `register`.
//!
//! Note: a start changes its session four times within two milliseconds. With a list of all sessions instead of the changed ones, each of these
//! changes cost as much as the worker had streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use liveedgecast_common::control::Session;
use tokio::sync::Notify;

/// The changed sessions that were not read yet. There is one reader.
#[derive(Clone, Debug, Default)]
pub struct SessionFeed(Arc<UnreadSessions>);

#[derive(Debug, Default)]
struct UnreadSessions {
    /// Sessions by stream: no more than there are streams and streams that ended since the reader looked. There is a lock, because a channel
    /// would keep every change of a session or make the engine wait; it is held for one map operation.
    unread: Mutex<BTreeMap<String, Arc<Session>>>,
    changed: Notify,
}

impl SessionFeed {
    /// Waits until a session has changed that the reader should know at once.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Takes the changed sessions.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<Session>> {
        std::mem::take(&mut *self.unread()).into_values().collect()
    }

    /// Adds a changed session.
    pub(super) fn put(&self, session: Arc<Session>) {
        self.unread().insert(session.stream_id.clone(), session);
    }

    /// Wakes the reader. Changes of counters alone wait until it looks by itself.
    pub(super) fn wake(&self) {
        self.0.changed.notify_one();
    }

    fn unread(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.0.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reader_gets_the_newest_session_of_each_stream_once() {
        let feed = SessionFeed::default();
        let put = |id: &str, messages| {
            feed.put(Arc::new(Session { stream_id: id.into(), messages, ..Session::default() }));
        };
        put("b", 1);
        put("a", 1);
        put("b", 2);
        feed.wake();
        feed.changed().await;
        let taken: Vec<_> = feed.take().iter().map(|session| (session.stream_id.clone(), session.messages)).collect();
        assert_eq!(taken, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(feed.take(), []);
    }
}
