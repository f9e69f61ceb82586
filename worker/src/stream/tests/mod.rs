//! Tests of the task, over real sockets.
#![expect(clippy::disallowed_methods, reason = "tests of a shell: sockets, tasks, and waiting for conditions")]

mod kit;

use bytes::Bytes;
use liveedgecast_common::handoff::Frame;

use self::kit::*;
use super::*;

#[test]
fn a_stream_by_descriptor_arrives_bit_for_bit_and_ends_cleanly() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, activator, incoming, .. } = give_descriptor("a", &[&sink]).await;
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        let sent = stream(3);
        encoder.send(&sent).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        assert_eq!(sink.messages(0), sent);
        assert!(activator.has(|frame| *frame == Frame::Accepted) && activator.has(|frame| *frame == Frame::Started));
        encoder.goodbye().await;
        engine.ended().await;
        assert_eq!(sink.with(0, |got| (got.ended.is_some(), got.closed)), Some((true, true)));
        assert_eq!(encoder.event().await, None);
        assert!(activator.is_done());
    });
}

#[test]
fn a_stream_by_link_arrives_wherever_its_bytes_are_cut() {
    run(async {
        let sink = Sink::start().await;
        let sent =
            vec![metadata(), audio_header(), video_header(), video(0, true, 60), audio(7, 20), video(40, false, 30)];
        let Linked { encoder, .. } = give_link("a", &[&sink]).await;
        let bytes = encoder.encode(&sent);
        for cut in 0..bytes.len() {
            let number = sink.sessions.borrow().len();
            let Linked { activator, incoming, .. } = give_link("a", &[&sink]).await;
            let mut engine = Engine::start(incoming);
            activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[..cut])));
            until("start", || activator.has(|frame| *frame == Frame::Started)).await;
            activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[cut..])));
            until(&format!("all messages, cut at {cut}"), || sink.count(number) >= sent.len()).await;
            assert_eq!(sink.messages(number), sent, "cut at {cut}");
            engine.command(Command::Kick("enough".to_owned()));
            engine.ended().await;
        }
    });
}
