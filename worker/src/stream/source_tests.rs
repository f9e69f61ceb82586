//! A publisher's connection, over real sockets, with a clock of the test's own.

use std::future::poll_fn;

use liveedgecast_common::handoff::Transport;
use liveedgecast_common::sys::UnmappedRing;
use liveedgecast_common::sys::ring_memory::MIN_RING_BYTES;
use liveedgecast_common::testkit::origin;

use super::*;
use crate::stream::link_watch::SILENT_AFTER;
use crate::testkit::{assignment, fetched_stream, frame, publisher, say};

fn ask(source: &mut PublisherSource, cx: &mut Context<'_>, now: Instant) -> Poll<SourceEvent> {
    source.poll(cx, &Wakes::default(), &mut Sources::ALL.clone(), now)
}

/// Takes what the link has brought; the event that is left, if any.
async fn settled(source: &mut PublisherSource, ring: &mut RingMemory, now: Instant) -> Poll<SourceEvent> {
    loop {
        match poll_fn(|cx| Poll::Ready(ask(source, cx, now))).await {
            Poll::Ready(SourceEvent::Readable) => {
                let received = source.receive(now, ring, MIN_RING_BYTES / 4);
                assert!(matches!(received, Ok(None)), "{received:?}");
            }
            event => return event,
        }
    }
}

#[tokio::test]
async fn activator_is_heard_before_the_silence_of_its_link_is_judged() {
    let (fetched, mut activator) = fetched_stream(assignment("a", "a", Transport::Link)).await;
    let mut control = fetched.connection.attach().unwrap();
    say(&mut activator, &Frame::Assign(Box::new(fetched.assignment))).await;
    assert!(matches!(frame(&mut control).await, Ok(Frame::Assign(_))));
    let publisher = PublisherHandoff::Link { control };
    let start = origin();
    let mut source = PublisherSource::new(start, publisher, ServerSession::new(3073), 3073, MIN_RING_BYTES);
    let mut ring = UnmappedRing::create(MIN_RING_BYTES).unwrap().map().unwrap();
    assert!(settled(&mut source, &mut ring, start).await.is_pending());
    // In one go: as in a process that was stopped, the runtime has not been told of it when the time is up.
    tokio::task::unconstrained(say(&mut activator, &Frame::Alive)).await;
    let late = start + SILENT_AFTER;
    assert!(settled(&mut source, &mut ring, late).await.is_pending(), "what it had said was not read");
    let silent = poll_fn(|cx| ask(&mut source, cx, late + SILENT_AFTER)).await;
    assert!(matches!(silent, SourceEvent::Lost("link silent", _)), "{silent:?}");
}

#[tokio::test]
async fn answers_that_a_full_output_had_no_room_for_are_written_in_the_same_flush() {
    let (fetched, _activator) = fetched_stream(assignment("a", "a", Transport::Descriptor)).await;
    let (held, _client) = publisher().await;
    let socket = TcpStream::from_std(held.into()).unwrap();
    socket.writable().await.unwrap();
    let publisher = PublisherHandoff::Descriptor { socket, control: fetched.connection.attach().unwrap() };
    let start = origin();
    let mut source = PublisherSource::new(start, publisher, ServerSession::new(3073), 3073, MIN_RING_BYTES);
    source.output = vec![0; FULL_OUTPUT];
    source.session.ping(7);
    let flushed = poll_fn(|cx| Poll::Ready(source.flush(cx, start))).await;
    assert!(flushed.is_ok(), "{flushed:?}");
    assert!(source.unsent().is_empty(), "nothing would wake the stream for {} bytes", source.unsent().len());
}
