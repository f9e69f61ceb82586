//! Events as server-sent events (WHATWG HTML, 9.2). In: the id of the last event that a client has. Out: pieces of text, for as long as the client is
//! there. Next: `http`, which carries them.
#![expect(clippy::disallowed_methods, reason = "shell: a task for each client, its timer")]

use std::time::Duration;

use bytes::Bytes;
use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::event;
use tokio::sync::mpsc;

use super::notice::EventNotice;
use super::task::{EventReader, Events, Heard};

/// Clients at once; one more costs the oldest its connection. A dashboard and a few programs are a handful, and each costs a connection.
pub const MAX_SUBSCRIBERS: usize = 32;
/// Silence after which a comment is sent, so that proxies keep the connection, and a client that is gone is noticed: nginx waits 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pieces that wait for a client which reads slowly; the events behind them wait in the journal.
const UNREAD: usize = 16;

/// The first piece: the head of the answer leaves with it, and clients connect again after a second. Its comment announces [`TOLD`].
pub const HELLO: &str = ":keeps\nretry: 1000\n\n";
/// The piece behind the last event that was kept when the client came. A client that wants no more knows by it that it has everything.
pub const TOLD: &str = ":told\n\n";
const COMMENT: &str = ":\n\n";

/// The events for one client that has the event of the id `last`. The channel closes when there will be none.
#[must_use]
pub fn subscribe(events: &Events, last: Option<&str>) -> mpsc::Receiver<Bytes> {
    let (pieces, unread) = mpsc::channel(UNREAD);
    tokio::spawn(serve(events.reader(last), pieces));
    unread
}

async fn serve(mut reader: EventReader, pieces: mpsc::Sender<Bytes>) {
    let mut piece = Bytes::from_static(HELLO.as_bytes());
    let mut kept = Some(reader.end_of_kept());
    while pieces.send(piece).await.is_ok() {
        if kept.is_some_and(|end| reader.has_reached(end)) {
            kept = None;
            piece = Bytes::from_static(TOLD.as_bytes());
            continue;
        }
        piece = tokio::select! {
            heard = reader.next() => match heard {
                Some(Heard::Event(notice)) => framed(&notice),
                Some(Heard::Gap(notice)) => {
                    tracing::debug!(event = event::EVENTS_MISSED, notice = notice.json(), "a reader missed events");
                    framed(&notice)
                }
                None => return,
            },
            () = sleep_until(Some(now() + KEEP_ALIVE)) => Bytes::from_static(COMMENT.as_bytes()),
            () = pieces.closed() => return,
        };
    }
}

/// JSON has no line feeds, so the data is one line.
fn framed(notice: &EventNotice) -> Bytes {
    format!("id: {}\nevent: {}\ndata: {}\n\n", notice.id(), notice.event(), notice.json()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Fact;

    async fn text(unread: &mut mpsc::Receiver<Bytes>) -> Option<String> {
        unread.recv().await.map(|piece| String::from_utf8(piece.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn client_gets_events_and_comments_between_them_until_the_end() {
        let events = Events::default();
        let mut unread = subscribe(&events, None);
        assert_eq!(text(&mut unread).await.as_deref(), Some(HELLO));
        assert_eq!(text(&mut unread).await.as_deref(), Some(TOLD), "nothing was kept");
        // The clock of the test goes on while everything waits.
        assert_eq!(text(&mut unread).await.as_deref(), Some(COMMENT));
        events.tell(Fact::FileReloaded { setting: "PUBLISH_KEYS_FILE" });
        let piece = text(&mut unread).await.unwrap();
        let lines: Vec<&str> = piece.lines().collect();
        assert!(lines[0].starts_with("id: ") && lines[0].ends_with("-1"), "{piece}");
        assert_eq!(lines[1], "event: file.reloaded");
        assert!(lines[2].starts_with("data: {\"id\":") && piece.ends_with("}\n\n"), "{piece}");
        events.end();
        assert_eq!(text(&mut unread).await, None);
    }

    #[tokio::test]
    async fn end_of_the_kept_events_is_told_once_behind_the_last_of_them_however_many_follow() {
        for (after, kept) in [(None, 41), (Some(38), 2), (Some(40), 0)] {
            let events = Events::default();
            let tell = || events.tell(Fact::FileReloaded { setting: "PUBLISH_KEYS_FILE" });
            (0..40).for_each(|_| tell());
            let stranger = "0000000000000000-0";
            let last = match after {
                None => stranger.to_owned(),
                Some(number) => {
                    let Some(Heard::Gap(notice)) = events.reader(Some(stranger)).next().await else { panic!("no gap") };
                    format!("{}-{number}", notice.id().split('-').next().unwrap())
                }
            };
            let mut unread = subscribe(&events, Some(&last));
            assert_eq!(text(&mut unread).await.as_deref(), Some(HELLO), "{last}");
            let mut before = 0;
            loop {
                // More events come than the client reads.
                (0..2).for_each(|_| tell());
                match text(&mut unread).await.unwrap() {
                    piece if piece == TOLD => break,
                    _ => before += 1,
                }
            }
            assert_eq!(before, kept, "{last}");
            let next = text(&mut unread).await.unwrap();
            assert!(next.starts_with("id: "), "{next}");
        }
    }

    #[tokio::test]
    async fn task_ends_with_its_client() {
        let events = Events::default();
        let unread = subscribe(&events, None);
        drop(unread);
        while std::sync::Arc::strong_count(events.shared()) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
