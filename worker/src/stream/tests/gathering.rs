//! Arrivals that gather before they are read.

use std::time::Duration;

use super::kit::*;
use crate::stream::{StreamCommand, StreamContext};

fn gathering(milliseconds: u64) -> StreamContext {
    StreamContext { gather: Duration::from_millis(milliseconds), ..StreamContext::default() }
}

#[test]
fn messages_that_gather_arrive_whole_and_the_end_after_them() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
        let mut engine = Engine::with(incoming, gathering(20));
        encoder.started().await;
        let sent = stream(12);
        let (before, after) = sent.split_at(sent.len() / 2);
        encoder.send(before).await;
        until("the first half", || sink.count(0) == before.len()).await;
        // Nothing comes for longer than arrivals gather, and then something more.
        tokio::time::sleep(Duration::from_millis(50)).await;
        encoder.send(after).await;
        encoder.goodbye().await;
        engine.ended().await;
        assert!(sink.messages(0) == sent);
    });
}

#[test]
fn more_than_a_read_is_not_waited_for() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
        // Longer than the test may take.
        let engine = Engine::with(incoming, gathering(1_000_000));
        encoder.started().await;
        let mut sent = vec![video_header()];
        sent.extend((0..40).map(|at| video(at * 40, at % 10 == 0, 10_000)));
        encoder.send(&sent).await;
        until("most of the messages", || sink.count(0) >= sent.len() - 10).await;
        drop(encoder);
        until("the rest, with the end of the connection", || sink.count(0) == sent.len()).await;
        assert!(sink.messages(0) == sent);
        engine.command(StreamCommand::Kick("enough".to_owned()));
    });
}

#[test]
fn publisher_that_is_given_back_wakes_its_next_reader_at_every_byte() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, activator, .. } = give_descriptor("a", &[&sink]).await;
        let mut engine = Engine::with(incoming, gathering(20));
        encoder.started().await;
        encoder.send(&stream(1)).await;
        until("the messages", || sink.count(0) == stream(1).len()).await;
        engine.command(StreamCommand::HandBack);
        engine.ended().await;
        drop(activator);
        let waiting = || rustix::io::ioctl_fionread(&socket).unwrap();
        let before = waiting();
        encoder.send(&stream(1)[..1]).await;
        until("a byte", || waiting() > before).await;
        let mut fds = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN)];
        let nothing = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&nothing)).unwrap(), 1);
    });
}
