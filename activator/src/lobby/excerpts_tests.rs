//! Excerpts of a worker that a test plays.

use bytes::Bytes;
use liveedgecast_common::control::{Availability, Session, SessionState, WorkerMessage};

use super::*;
use crate::dispatch::{Introduction, Rules};
use crate::events::Events;
use crate::lobby::{Lobby, LobbyMetrics, MAX_UNREAD};

const STREAM: &str = "0123456789abcdef";

struct Worker {
    lobby: Lobby,
    call: CallId,
    inbox: mpsc::Receiver<ActivatorMessage>,
}

fn worker(excerpts: bool) -> Worker {
    let lobby = Lobby::new(Rules::default(), None, LobbyMetrics::unregistered(), Events::default());
    let session = Session { stream_id: STREAM.into(), state: SessionState::Live, epoch: 1, ..Session::default() };
    let introduction = Introduction {
        name: "w".into(),
        capacity: 2,
        availability: Availability::Open,
        same_host: true,
        sessions: vec![session],
        takes_lists: true,
        key: None,
        age: None,
        excerpts,
    };
    let (outbox, inbox) = mpsc::channel(MAX_UNREAD);
    let call = lobby.workers.join(introduction, outbox).expect("a call");
    Worker { lobby, call, inbox }
}

impl Worker {
    async fn order(&mut self) -> ExcerptOrder {
        match self.inbox.recv().await {
            Some(ActivatorMessage::Excerpt(order)) => order,
            other => panic!("{other:?}"),
        }
    }

    fn piece(&self, number: u64, bytes: &'static [u8], last: bool) {
        let piece = ExcerptPiece { number, bytes: Ok(Bytes::from_static(bytes)), last };
        self.lobby.workers.said(self.call, WorkerMessage::Excerpt(piece));
    }

    fn refuse(&self, number: u64, refusal: ExcerptRefusal) {
        let piece = ExcerptPiece { number, bytes: Err(refusal), last: true };
        self.lobby.workers.said(self.call, WorkerMessage::Excerpt(piece));
    }

    fn ask(&self, extent: Extent) -> tokio::task::JoinHandle<Result<Vec<u8>, Unexcerpted>> {
        let views = self.lobby.views.clone();
        tokio::spawn(async move { views.excerpt(STREAM, extent).await })
    }

    fn open(&self) -> usize {
        self.lobby.views.0.lock().excerpts.asked.len()
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_of_a_worker_become_a_file_and_each_one_is_acknowledged() {
    let mut worker = worker(true);
    let asked = worker.ask(Extent::All);
    let ExcerptOrder { number, stream_id, part } = worker.order().await;
    assert_eq!((stream_id.as_str(), part), (STREAM, ExcerptPart::All));
    worker.piece(number + 1, b"FLV\x01 of nobody", true);
    worker.piece(number, b"FLV\x01", false);
    assert_eq!(worker.inbox.recv().await, Some(ActivatorMessage::ExcerptNext { number, drop: false }));
    worker.piece(number, b"rest", true);
    assert_eq!(asked.await.unwrap().unwrap(), b"FLV\x01rest");
    assert_eq!(worker.open(), 0);
    assert!(worker.inbox.try_recv().is_err(), "there is no rest that would not be wanted");
}

#[tokio::test(start_paused = true)]
async fn worker_that_refuses_is_silent_sends_nonsense_or_too_much_or_is_gone_is_no_obstacle() {
    let mut worker = worker(true);
    let gone = |failed: Unexcerpted| matches!(failed, Unexcerpted::Silent);
    let asked = worker.ask(Extent::LastKeyframe);
    let order = worker.order().await;
    worker.refuse(order.number, ExcerptRefusal::NoVideo);
    assert!(matches!(asked.await.unwrap(), Err(Unexcerpted::Refused(ExcerptRefusal::NoVideo))));
    let asked = worker.ask(Extent::LastKeyframe);
    let number = worker.order().await.number;
    worker.refuse(number, ExcerptRefusal::Busy);
    let number = worker.order().await.number;
    worker.piece(number, b"FLV\x01", true);
    assert_eq!(asked.await.unwrap().unwrap(), b"FLV\x01", "it is asked again");
    for case in ["silent", "nonsense", "too much"] {
        let asked = worker.ask(Extent::All);
        let number = worker.order().await.number;
        match case {
            "silent" => {}
            "nonsense" => worker.piece(number, b"GIF", false),
            _ => (0..=WINDOW).for_each(|_| worker.piece(number, b"FLV\x01", false)),
        }
        assert!(gone(asked.await.unwrap().unwrap_err()), "{case}");
        let mut rest = std::iter::from_fn(|| worker.inbox.try_recv().ok());
        assert!(rest.any(|said| said == ActivatorMessage::ExcerptNext { number, drop: true }), "{case}");
        assert_eq!(worker.open(), 0);
    }
    let asked = worker.ask(Extent::All);
    let number = worker.order().await.number;
    worker.piece(number, b"FLV\x01", false);
    worker.lobby.workers.lost(worker.call);
    assert!(gone(asked.await.unwrap().unwrap_err()));
    assert_eq!(worker.open(), 0);
}

#[tokio::test]
async fn worker_of_an_earlier_release_is_not_asked() {
    let mut worker = worker(false);
    assert!(matches!(worker.ask(Extent::All).await.unwrap(), Err(Unexcerpted::Nothing)));
    let sent = worker.lobby.views.sent_keyframe(STREAM, "main").await;
    assert!(matches!(sent, Err(Unexcerpted::Unable)));
    assert!(worker.inbox.try_recv().is_err());
}

#[tokio::test]
async fn destination_is_named_in_the_question_and_a_caller_that_leaves_takes_it_back() {
    let mut worker = worker(true);
    let views = worker.lobby.views.clone();
    let asked = tokio::spawn(async move { views.sent_keyframe(STREAM, "main").await });
    let ExcerptOrder { number, part, .. } = worker.order().await;
    assert_eq!(part, ExcerptPart::SentKeyframe("main".into()));
    asked.abort();
    assert_eq!(worker.inbox.recv().await, Some(ActivatorMessage::ExcerptNext { number, drop: true }));
}
