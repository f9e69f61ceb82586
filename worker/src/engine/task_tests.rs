//! The engine with tiny streams that behave as their key says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use liveedgecast_common::control::{Session, SessionState};
use liveedgecast_common::handoff::{Assignment, Frame, Transport};
use tokio::task::spawn_local;

use super::super::table::is_served;
use super::*;
use crate::receive::{HandoffError, HandoffStream};
use crate::stream::{IncomingStream, PublisherHandoff, StreamCommand};
use crate::testkit::{assignment, fetched_stream, frame, publisher, soon};

/// A stream of a few lines: live at once, taken over by any publisher with a higher epoch.
fn tiny() -> StartStream {
    Arc::new(|incoming: IncomingStream, reports| {
        let key = incoming.assignment.key.expose().to_owned();
        assert_ne!(key, "panics at the start", "as asked");
        let (sender, mut commands) = mpsc::channel(2);
        spawn_local(async move {
            let mut stream = incoming;
            control(&mut stream).queue(&Frame::Accepted).unwrap();
            std::future::poll_fn(|cx| control(&mut stream).poll_flush(cx)).await.unwrap();
            let _ = reports.send(Report::Session(session(&stream, SessionState::Live))).await;
            if key == "does not listen" {
                std::future::pending::<()>().await;
            }
            let mut contested: Option<Contest> = None;
            loop {
                match commands.recv().await {
                    None => std::future::pending().await,
                    Some(StreamCommand::Attach(next)) => {
                        let (stream_id, accepted) = (next.assignment.stream_id.clone(), next.assignment.epoch > 1);
                        if accepted {
                            stream = *next;
                        }
                        let _ = reports.send(Report::AttachDecided { stream_id, accepted }).await;
                    }
                    Some(StreamCommand::Kick(_)) => {
                        let Contest { stream_id, identities, .. } = contested.take().expect("it panics, as asked");
                        let given_up = Some(identities[1..].to_vec());
                        let _ = reports.send(Report::ContestDecided { stream_id, given_up }).await;
                    }
                    Some(StreamCommand::Contend(contest)) if key == "gives up when kicked" => contested = Some(contest),
                    Some(StreamCommand::Contend(contest)) => {
                        let gives_up = key == "gives up";
                        let given_up = gives_up.then(|| contest.identities[1..].to_vec());
                        let _ = reports.send(Report::ContestDecided { stream_id: contest.stream_id, given_up }).await;
                    }
                    Some(StreamCommand::HandBack | StreamCommand::Fence(_)) => break,
                    Some(StreamCommand::Alone(_) | StreamCommand::Excerpt(_)) => {}
                }
            }
            let _ = reports.send(Report::Ended { stream_id: stream.assignment.stream_id }).await;
        });
        sender
    })
}

fn control(stream: &mut IncomingStream) -> &mut HandoffStream {
    match &mut stream.publisher {
        PublisherHandoff::Descriptor { control, .. } | PublisherHandoff::Link { control } => control,
    }
}

fn session(stream: &IncomingStream, state: SessionState) -> Session {
    let assignment = &stream.assignment;
    Session { stream_id: assignment.stream_id.0.clone(), state, epoch: assignment.epoch, ..Session::default() }
}

fn engine(capacity: usize, start: StartStream) -> (Engine, EngineMetrics, Reader) {
    let metrics = EngineMetrics::unregistered();
    let engine = Engine::start(&Settings { capacity, threads: 2 }, start, &metrics);
    let reader = Reader { feed: engine.feed(), served: BTreeMap::new() };
    (engine, metrics, reader)
}

async fn take(engine: &Engine, id: &str, key: &str, epoch: u64) -> (TakeOutcome, HandoffStream) {
    let assignment = Assignment { epoch, ..assignment(id, key, Transport::Link) };
    let (fetched, activator) = fetched_stream(assignment).await;
    (soon(engine.take(fetched)).await, activator)
}

/// The sessions of an engine, as a reader of its feed knows them.
struct Reader {
    feed: SessionFeed,
    served: BTreeMap<String, SessionState>,
}

impl Reader {
    fn read(&mut self) -> Vec<(&str, SessionState)> {
        for session in self.feed.take() {
            if is_served(&session) {
                self.served.insert(session.stream_id.clone(), session.state);
            } else {
                self.served.remove(&session.stream_id);
            }
        }
        self.served.iter().map(|(id, state)| (id.as_str(), *state)).collect()
    }

    /// Waits until these sessions are served.
    async fn served(&mut self, wanted: &[(&str, SessionState)]) {
        while self.read() != wanted {
            let feed = self.feed.clone();
            soon(feed.changed()).await;
        }
    }
}

#[tokio::test]
async fn streams_are_started_served_and_handed_back() {
    let (engine, metrics, mut reader) = engine(2, tiny());
    let (verdict, mut a) = take(&engine, "a", "a", 1).await;
    assert_eq!(verdict, TakeOutcome::Started);
    assert_eq!(reader.read().len(), 1, "told of before the taker goes on");
    let (_, mut b) = take(&engine, "b", "b", 1).await;
    for activator in [&mut a, &mut b] {
        assert_eq!(frame(activator).await.unwrap(), Frame::Accepted);
    }
    reader.served(&[("a", SessionState::Live), ("b", SessionState::Live)]).await;
    assert_eq!(metrics.live.get(), 2);

    let (verdict, mut c) = take(&engine, "c", "c", 1).await;
    assert_eq!(verdict, TakeOutcome::Declined(Decline::Full));
    assert_eq!(frame(&mut c).await.unwrap(), Frame::Returned { why: Decline::Full });

    soon(engine.hand_back()).await;
    soon(engine.idle()).await;
    for activator in [&mut a, &mut b] {
        assert!(matches!(frame(activator).await, Err(HandoffError::Ended)));
    }
    let (_, mut d) = take(&engine, "d", "d", 1).await;
    assert_eq!(frame(&mut d).await.unwrap(), Frame::Returned { why: Decline::Draining });
    assert_eq!((metrics.live.get(), metrics.ended.get(), metrics.died.get()), (0, 2, 0));
}

#[tokio::test]
async fn known_identity_is_attached_and_its_stream_decides() {
    let (engine, _, mut reader) = engine(1, tiny());
    let (_, mut a) = take(&engine, "a", "key", 1).await;
    assert_eq!(frame(&mut a).await.unwrap(), Frame::Accepted);
    let (verdict, mut refused) = take(&engine, "b", "key", 1).await;
    assert_eq!(verdict, TakeOutcome::Attached);
    assert!(frame(&mut refused).await.is_err(), "this one refuses by hanging up");
    reader.served(&[("a", SessionState::Live)]).await;

    let (verdict, _c) = take(&engine, "c", "key", 2).await;
    assert_eq!(verdict, TakeOutcome::Attached);
    reader.served(&[("c", SessionState::Live)]).await;
    assert!(matches!(frame(&mut a).await, Err(HandoffError::Ended)));
}

/// Takes a stream that shares an upstream with every other one of these.
async fn take_sharing(engine: &Engine, id: &str, key: &str) -> (TakeOutcome, HandoffStream) {
    let mut assignment = assignment(id, key, Transport::Link);
    assignment.identities.push(Identity([7; 16]));
    let (fetched, activator) = fetched_stream(assignment).await;
    (soon(engine.take(fetched)).await, activator)
}

#[tokio::test]
async fn stream_that_shares_only_an_upstream_gets_it_for_a_session_of_its_own_or_is_refused() {
    let (engine, _, mut reader) = engine(9, tiny());
    let (_, _a) = take_sharing(&engine, "a", "gives up").await;
    reader.served(&[("a", SessionState::Live)]).await;
    let (verdict, mut b) = take_sharing(&engine, "b", "b").await;
    assert_eq!((verdict, frame(&mut b).await.unwrap()), (TakeOutcome::Started, Frame::Accepted));
    reader.served(&[("a", SessionState::Live), ("b", SessionState::Live)]).await;

    let (verdict, mut c) = take_sharing(&engine, "c", "c").await;
    assert_eq!((verdict, frame(&mut c).await.unwrap()), (TakeOutcome::Declined(Decline::Other), Frame::Duplicate));
    reader.served(&[("a", SessionState::Live), ("b", SessionState::Live)]).await;
}

#[tokio::test]
async fn contender_of_a_stream_that_does_not_listen_goes_back_to_its_activator() {
    let (engine, _, mut reader) = engine(9, tiny());
    let (_, _a) = take_sharing(&engine, "a", "does not listen").await;
    reader.served(&[("a", SessionState::Live)]).await;
    for _ in 0..3 {
        soon(engine.kick("a".into(), "unheard".into())).await;
    }
    let (verdict, mut b) = take_sharing(&engine, "b", "b").await;
    let returned = Frame::Returned { why: Decline::Other };
    assert_eq!((verdict, frame(&mut b).await.unwrap()), (TakeOutcome::Declined(Decline::Other), returned));
}

#[tokio::test]
async fn contender_that_has_waited_for_one_stream_does_not_wait_for_the_next() {
    for waits in [false, true] {
        let (engine, _, mut reader) = engine(9, tiny());
        let wants = |id: &str, key: &str, upstreams: &[u8]| {
            let mut assignment = assignment(id, key, Transport::Link);
            assignment.identities.extend(upstreams.iter().map(|upstream| Identity([*upstream; 16])));
            fetched_stream(assignment)
        };
        let (a, _a) = wants("a", "gives up when kicked", &[7]).await;
        let (b, _b) = wants("b", "gives up", &[8]).await;
        let (other, _other) = wants("other", "other", &[]).await;
        for stream in [a, b] {
            assert_eq!(soon(engine.take(stream)).await, TakeOutcome::Started);
        }
        reader.served(&[("a", SessionState::Live), ("b", SessionState::Live)]).await;
        let (contender, mut activator) = wants("c", "c", &[7, 8]).await;
        let (verdict, ()) = tokio::join!(soon(engine.take(contender)), async {
            // The engine does one thing after the other: by then it has asked the first stream.
            assert_eq!(soon(engine.take(other)).await, TakeOutcome::Started);
            if waits {
                tokio::time::pause();
                tokio::time::advance(ANOTHER_CONTEST).await;
                tokio::time::resume();
            }
            engine.kick("a".into(), "decide".into()).await;
        });
        let (verdict_then, frame_then) = match waits {
            true => (TakeOutcome::Declined(Decline::Other), Frame::Returned { why: Decline::Other }),
            false => (TakeOutcome::Started, Frame::Accepted),
        };
        assert_eq!((verdict, frame(&mut activator).await.unwrap()), (verdict_then, frame_then), "{waits}");
    }
}

#[tokio::test]
async fn contender_of_a_stream_that_dies_is_placed() {
    for _ in 0..50 {
        let (engine, _, mut reader) = engine(1, tiny());
        let (_, _a) = take_sharing(&engine, "a", "gives up").await;
        reader.served(&[("a", SessionState::Live)]).await;
        soon(engine.kick("a".into(), "now".into())).await;
        let (verdict, mut b) = take_sharing(&engine, "b", "b").await;
        assert_eq!((verdict, frame(&mut b).await.unwrap()), (TakeOutcome::Started, Frame::Accepted));
        reader.served(&[("b", SessionState::Live)]).await;
    }
}

#[tokio::test]
async fn stream_that_panics_takes_only_itself_along() {
    let (engine, metrics, mut reader) = engine(9, tiny());
    let mut activators = Vec::new();
    for id in ["a", "b", "c", "d"] {
        activators.push(take(&engine, id, id, 1).await.1);
    }
    reader
        .served(&[
            ("a", SessionState::Live),
            ("b", SessionState::Live),
            ("c", SessionState::Live),
            ("d", SessionState::Live),
        ])
        .await;
    // This stream panics when it is kicked.
    soon(engine.kick("b".into(), "why not".into())).await;
    reader.served(&[("a", SessionState::Live), ("c", SessionState::Live), ("d", SessionState::Live)]).await;
    assert_eq!(frame(&mut activators[1]).await.unwrap(), Frame::Accepted);
    assert!(matches!(frame(&mut activators[1]).await, Err(HandoffError::Ended)), "its activator knows at once");

    let (verdict, mut never) = take(&engine, "e", "panics at the start", 1).await;
    assert_eq!(verdict, TakeOutcome::Started);
    assert!(matches!(frame(&mut never).await, Err(HandoffError::Ended)));
    reader.served(&[("a", SessionState::Live), ("c", SessionState::Live), ("d", SessionState::Live)]).await;
    assert_eq!((metrics.died.get(), metrics.ended.get()), (2, 0));

    // The same stream again, on the same threads.
    let (verdict, mut again) = take(&engine, "b", "b", 2).await;
    assert_eq!((verdict, frame(&mut again).await.unwrap()), (TakeOutcome::Started, Frame::Accepted));
}

#[tokio::test]
async fn stream_that_comes_while_its_identity_dies_is_started_or_given_back() {
    for _ in 0..50 {
        let (engine, _, mut reader) = engine(1, tiny());
        let (_, _a) = take(&engine, "a", "key", 1).await;
        reader.served(&[("a", SessionState::Live)]).await;
        soon(engine.kick("a".into(), "now".into())).await;
        // The stream may be gone by now, dying, or not have heard.
        let (_, mut b) = take(&engine, "b", "key", 2).await;
        match frame(&mut b).await {
            Ok(said) => {
                assert_eq!(said, Frame::Accepted);
                reader.served(&[("b", SessionState::Live)]).await;
            }
            Err(error) => {
                assert!(matches!(error, HandoffError::Ended), "{error:?}");
                reader.served(&[]).await;
            }
        }
    }
}

#[tokio::test]
async fn streams_start_and_end_on_all_threads() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let start: StartStream = Arc::new(|incoming: IncomingStream, reports| {
        let (sender, mut commands) = mpsc::channel(2);
        RUNNING.fetch_add(1, Ordering::SeqCst);
        spawn_local(async move {
            let _ = reports.send(Report::Session(session(&incoming, SessionState::Live))).await;
            while !matches!(commands.recv().await, Some(StreamCommand::HandBack) | None) {}
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            let _ = reports.send(Report::Ended { stream_id: incoming.assignment.stream_id }).await;
        });
        sender
    });
    let (engine, metrics, mut reader) = engine(1000, start);
    let mut activators = Vec::new();
    for number in 0..200 {
        let id = number.to_string();
        let (verdict, activator) = take(&engine, &id, &id, 1).await;
        assert_eq!(verdict, TakeOutcome::Started);
        activators.push(activator);
    }
    while reader.read().iter().any(|(_, state)| *state != SessionState::Live) {
        let feed = reader.feed.clone();
        soon(feed.changed()).await;
    }
    assert_eq!(RUNNING.load(Ordering::SeqCst), 200);
    soon(engine.hand_back()).await;
    soon(engine.idle()).await;
    assert_eq!((RUNNING.load(Ordering::SeqCst), metrics.ended.get()), (0, 200));
}

#[tokio::test]
async fn publishers_socket_works_on_the_streams_thread() {
    let start: StartStream = Arc::new(|incoming: IncomingStream, _| {
        let (sender, commands) = mpsc::channel(2);
        spawn_local(async move {
            let _commands = commands;
            let PublisherHandoff::Descriptor { socket, .. } = &incoming.publisher else { panic!("no socket") };
            socket.writable().await.unwrap();
            socket.try_write(b"!").unwrap();
        });
        sender
    });
    let (engine, _, _) = engine(1, start);
    let (mut fetched, _activator) = fetched_stream(assignment("a", "a", Transport::Descriptor)).await;
    let (held, client) = publisher().await;
    let held = std::net::TcpStream::from(held);
    held.set_nonblocking(true).unwrap();
    fetched.publisher = Some(held);
    soon(engine.take(fetched)).await;
    soon(client.readable()).await.unwrap();
    assert_eq!(client.try_read(&mut [0; 8]).unwrap(), 1);
}
