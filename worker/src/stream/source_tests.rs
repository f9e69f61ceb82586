//! A publisher by link, over a real socket, with a clock of the test's own.

use std::future::poll_fn;

use liveedgecast_common::handoff::Transport;

use super::*;
use crate::testkit::{assignment, frame, parcel, say};

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "an origin of time is needed; nothing is measured")]
async fn an_activator_is_heard_before_the_silence_of_its_link_is_judged() {
    let (parcel, mut activator) = parcel(assignment("a", "a", Transport::Link)).await;
    let mut control = parcel.connection.attach().unwrap();
    say(&mut activator, &Frame::Assign(Box::new(parcel.assignment))).await;
    assert!(matches!(frame(&mut control).await, Ok(Frame::Assign(_))));
    let publisher = Publisher::Link { control };
    let start = Instant::now();
    let mut source = Source::new(start, publisher, ServerSession::new(3073), 3073);
    assert!(poll_fn(|cx| Poll::Ready(source.poll(cx, start))).await.is_pending());
    // In one go: as in a process that was stopped, the runtime has not been told of it when the time is up.
    tokio::task::unconstrained(say(&mut activator, &Frame::Alive)).await;
    let late = start + LINK_SILENT_AFTER;
    assert!(poll_fn(|cx| Poll::Ready(source.poll(cx, late))).await.is_pending(), "what it had said was not read");
    let silent = poll_fn(|cx| source.poll(cx, late + LINK_SILENT_AFTER)).await;
    assert!(matches!(silent, Arrival::Lost("link silent", _)), "{silent:?}");
}
