//! Destinations that are added, removed, moved and restarted while a stream runs.

use liveedgecast_common::control::{Session, UpstreamState};
use liveedgecast_common::handoff::{DestinationList, Frame, ListedDestination};
use liveedgecast_common::rtmp::server::Refusal;

use super::kit::*;
use crate::stream::*;

/// A list of destinations: name, upstream, revision by which it was to begin anew.
fn list(revision: u64, destinations: &[(&str, &Sink, u64)]) -> Frame {
    let listed = destinations.iter().map(|(name, sink, renewed)| ListedDestination {
        name: (*name).to_owned(),
        url: sink.url(),
        required: false,
        identity: None,
        renewed: *renewed,
        backup: None,
    });
    Frame::Destinations(Box::new(DestinationList {
        revision,
        publisher: String::new(),
        destinations: listed.collect(),
    }))
}

/// Returns whether a session begins with all headers and a keyframe.
fn begins_well(messages: &[Message]) -> bool {
    messages.len() > 3
        && untimed(&messages[..3]) == [metadata(), audio_header(), video_header()]
        && messages[3].payload.starts_with(&[0x17, 1])
}

/// Returns whether the upstream's only session has everything that was sent, bit for bit.
fn has_all(sink: &Sink, sent: &[Message]) -> bool {
    sink.sessions.borrow().len() == 1 && sink.count(0) == sent.len() && sink.messages(0) == sent
}

async fn reported(engine: &mut Engine, what: &str, wanted: impl Fn(&Session) -> bool) -> Session {
    engine
        .report(what, |report| match report {
            Report::Session(session) if wanted(session) => Some(session.clone()),
            _ => None,
        })
        .await
}

async fn both_ways(test: impl AsyncFn(LiveStream)) {
    test(live_by_descriptor().await).await;
    test(live_by_link().await).await;
}

/// Sends media, whichever way the stream came.
async fn send(live: &mut LiveStream, messages: &[Message]) {
    let bytes = live.encoder.encode(messages);
    match live.socket {
        Some(_) => live.encoder.send(messages).await,
        None => live.activator.tell(Frame::Data(bytes.into())).await,
    }
}

#[test]
fn added_destination_begins_with_headers_and_a_keyframe_and_the_other_notices_nothing() {
    run(both_ways(async |mut live| {
        let (added, mut sent) = (Sink::start().await, stream(2));
        send(&mut live, &sent).await;
        live.activator.tell(list(1, &[("first", &live.sink, 0), ("second", &added, 0)])).await;
        until("a second session", || added.with(0, |got| got.published) == Some(true)).await;
        let more = group_of_frames(400);
        send(&mut live, &more).await;
        sent.extend(more);
        until("all messages", || ends_like(&added.messages(0), &sent) && live.sink.count(0) == sent.len()).await;
        assert!(begins_well(&added.messages(0)), "{:?}", added.messages(0));
        assert!(untimed(&sent).ends_with(&untimed(&added.messages(0)[3..])));
        assert!(has_all(&live.sink, &sent));
        let session = reported(&mut live.engine, "both names", |session| session.upstreams.len() == 2).await;
        let names: Vec<&str> = session.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        assert_eq!((names, session.revision), (vec!["first", "second"], 1));
    }));
}

#[test]
fn removed_destination_gets_a_goodbye_at_once_and_the_other_notices_nothing() {
    run(both_ways(async |mut live| {
        let (first, other, mut sent) = (live.sink.clone(), Sink::start().await, stream(2));
        let both = [("first", &first, 0), ("second", &other, 0)];
        live.activator.tell(list(1, &both)).await;
        until("a second session", || other.with(0, |got| got.published) == Some(true)).await;
        send(&mut live, &sent).await;
        until("the first part", || ends_like(&other.messages(0), &sent)).await;
        live.activator.tell(list(2, &both[..1])).await;
        until("the end", || other.with(0, |got| got.ended.is_some() && got.closed) == Some(true)).await;
        // A list that comes late changes nothing.
        live.activator.tell(list(1, &both)).await;
        let more = group_of_frames(400);
        send(&mut live, &more).await;
        sent.extend(more);
        until("the rest", || live.sink.count(0) == sent.len()).await;
        assert!(has_all(&live.sink, &sent));
        assert_eq!((other.sessions.borrow().len(), other.count(0)), (1, stream(2).len()));
        let session = reported(&mut live.engine, "one name", |session| session.revision == 2).await;
        assert_eq!(session.upstreams.len(), 1);
    }));
}

#[test]
fn publisher_stays_without_any_destination_and_a_new_one_gets_the_stream() {
    run(both_ways(async |mut live| {
        let first = live.sink.clone();
        send(&mut live, &stream(1)).await;
        until("the first part", || first.count(0) == stream(1).len()).await;
        live.activator.tell(list(1, &[])).await;
        until("the end", || first.with(0, |got| got.ended.is_some()) == Some(true)).await;
        send(&mut live, &group_of_frames(200)).await;
        let session = reported(&mut live.engine, "no upstream", |session| session.upstreams.is_empty()).await;
        assert_eq!(session.state, liveedgecast_common::control::SessionState::Live);
        let next = Sink::start().await;
        live.activator.tell(list(2, &[("next", &next, 2)])).await;
        until("a session", || next.with(0, |got| got.published) == Some(true)).await;
        let last = group_of_frames(400);
        send(&mut live, &last).await;
        until("the rest", || ends_like(&next.messages(0), &last)).await;
        assert!(begins_well(&next.messages(0)));
        assert!(!live.activator.closed.get());
    }));
}

#[test]
fn restarted_destination_gets_a_goodbye_and_then_a_new_session() {
    run(both_ways(async |mut live| {
        let (other, mut sent) = (Sink::start().await, stream(2));
        live.activator.tell(list(1, &[("first", &live.sink, 0), ("second", &other, 0)])).await;
        until("a second session", || other.with(0, |got| got.published) == Some(true)).await;
        send(&mut live, &sent).await;
        until("the first part", || ends_like(&other.messages(0), &sent)).await;
        live.activator.tell(list(2, &[("first", &live.sink, 0), ("second", &other, 2)])).await;
        until("another session", || other.with(1, |got| got.published) == Some(true)).await;
        assert_eq!(other.with(0, |got| (got.ended.is_some(), got.open)), Some((true, 0)));
        let more = group_of_frames(400);
        send(&mut live, &more).await;
        sent.extend(more);
        until("the rest", || ends_like(&other.messages(1), &sent) && live.sink.count(0) == sent.len()).await;
        assert!(begins_well(&other.messages(1)));
        assert!(untimed(&sent).ends_with(&untimed(&other.messages(1)[3..])));
        assert!(has_all(&live.sink, &sent));
    }));
}

#[test]
fn moved_destination_keeps_its_old_place_until_the_new_one_is_live() {
    run(both_ways(async |mut live| {
        let (old, new, mut sent) = (live.sink.clone(), Sink::start().await, stream(2));
        live.activator.tell(list(1, &[("first", &old, 0)])).await;
        send(&mut live, &sent).await;
        until("the first part", || old.count(0) == sent.len()).await;
        new.refuse.set(Some(Refusal::Denied));
        live.activator.tell(list(2, &[("first", &new, 0)])).await;
        let failed =
            |session: &Session| session.upstreams.iter().any(|upstream| upstream.error.contains("not moved to"));
        let session = reported(&mut live.engine, "the failure", failed).await;
        assert_eq!((session.upstreams.len(), session.upstreams[0].state), (1, UpstreamState::Live), "{session:?}");
        let more = group_of_frames(400);
        send(&mut live, &more).await;
        sent.extend(more);
        until("more at the old place", || old.count(0) == sent.len()).await;
        assert!(old.with(0, |got| got.ended.is_none()).unwrap());
        // The new place is asked again rarely, unless it is told again.
        new.refuse.set(None);
        let third = Sink::start().await;
        live.activator.tell(list(3, &[("first", &third, 0)])).await;
        until("the end of the old session", || old.with(0, |got| got.ended.is_some()) == Some(true)).await;
        assert!(third.with(0, |got| got.published).unwrap());
        let more = group_of_frames(600);
        send(&mut live, &more).await;
        sent.extend(more);
        until("the rest", || ends_like(&third.messages(0), &sent)).await;
        assert!(begins_well(&third.messages(0)));
        // Between both places nothing is missing.
        let first = untimed(&third.messages(0)[3..4]).remove(0);
        let from = untimed(&sent).iter().position(|message| *message == first).unwrap();
        assert!(old.count(0) >= from, "a gap");
        // A report from before the end of the move has the list of the third revision, too, and the old place.
        let place = third.address.to_string();
        let moved = |session: &Session| session.upstreams.len() == 1 && session.upstreams[0].host == place;
        let session = reported(&mut live.engine, "the new place", moved).await;
        assert_eq!((session.revision, session.upstreams[0].error.as_str()), (3, ""));
    }));
}

#[test]
fn destination_that_is_removed_and_added_again_at_once_has_one_session_at_a_time() {
    run(both_ways(async |mut live| {
        let sink = live.sink.clone();
        live.activator.tell(list(1, &[("first", &sink, 0)])).await;
        send(&mut live, &stream(1)).await;
        until("the first part", || sink.count(0) == stream(1).len()).await;
        live.activator.tell(list(2, &[])).await;
        live.activator.tell(list(3, &[("again", &sink, 3)])).await;
        until("another session", || sink.with(1, |got| got.published) == Some(true)).await;
        assert_eq!(sink.with(0, |got| got.ended.is_some()), Some(true));
        let last = group_of_frames(400);
        send(&mut live, &last).await;
        until("the rest", || ends_like(&sink.messages(1), &last)).await;
        assert_eq!(sink.sessions.borrow().len(), 2);
    }));
}

#[test]
fn destinations_of_a_held_publisher_change_and_one_of_them_starts_it() {
    run(async {
        let (silent, other) = (Sink::start().await, Sink::start().await);
        silent.mute.set(true);
        let Given { mut encoder, activator, incoming, .. } = give_descriptor("a", &[&silent]).await;
        let engine = Engine::start(incoming);
        until("an attempt", || !silent.sessions.borrow().is_empty()).await;
        activator.tell(list(1, &[("other", &other, 1)])).await;
        encoder.started().await;
        encoder.send(&stream(1)).await;
        until("all messages", || other.count(0) == stream(1).len()).await;
        assert_eq!(other.messages(0), stream(1));
        engine.command(StreamCommand::Kick("enough".to_owned()));
    });
}
