//! Messages that leave before their last byte has come.

use tokio::io::AsyncWriteExt;

use super::answers::carry;
use super::kit::*;
use crate::stream::{Report, StreamCommand};

/// Bytes of the keyframes here.
const LONG: usize = 120_000;

/// Headers and a short group, then a long keyframe and a frame after it.
fn sent() -> Vec<Message> {
    let long = [video(2_000, true, LONG), audio(2_007, 300), video(2_040, false, 900)];
    [metadata(), audio_header(), video_header(), video(0, true, 900), audio(7, 300)].into_iter().chain(long).collect()
}

/// Sends a few bytes at a time until the sink has part of a message, and returns the bytes that are left.
async fn trickle<'a>(encoder: &mut Encoder, sink: &Sink, session: usize, mut bytes: &'a [u8]) -> &'a [u8] {
    while sink.with(session, |got| got.open) == Some(0) {
        let (now, later) = bytes.split_at(1_000);
        encoder.socket.write_all(now).await.unwrap();
        bytes = later;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    bytes
}

#[test]
fn long_keyframe_by_descriptor_leaves_before_its_last_byte() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        let sent = sent();
        encoder.send(&sent[..5]).await;
        until("the first group", || sink.count(0) == 5).await;
        let keyframe = encoder.encode(&sent[5..6]);
        let rest = trickle(&mut encoder, &sink, 0, &keyframe).await;
        encoder.socket.write_all(rest).await.unwrap();
        encoder.send(&sent[6..]).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        assert_eq!(sink.messages(0), sent);
        encoder.goodbye().await;
        engine.ended().await;
        assert_eq!(sink.with(0, |got| (got.ended.is_some(), got.closed)), Some((true, true)));
    });
}

#[test]
fn long_keyframe_by_link_leaves_before_its_last_byte() {
    run(async {
        let sink = Sink::start().await;
        let Linked { encoder, activator, incoming, .. } = give_link("a", &[&sink]).await;
        let _engine = Engine::start(incoming);
        let sent = sent();
        carry(&activator, &encoder.encode(&sent[..5])).await;
        until("the first group", || sink.count(0) == 5).await;
        let keyframe = encoder.encode(&sent[5..6]);
        let mut pieces = keyframe.chunks(1_000);
        while sink.with(0, |got| got.open) == Some(0) {
            carry(&activator, pieces.next().expect("the message to leave early")).await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        for piece in pieces {
            carry(&activator, piece).await;
        }
        carry(&activator, &encoder.encode(&sent[6..])).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        assert_eq!(sink.messages(0), sent);
    });
}

#[test]
fn keyframe_that_cannot_fit_into_the_ring_is_not_begun_at_the_upstream() {
    run(async {
        let LiveStream { sink, mut encoder, .. } = live_by_descriptor().await;
        let sent = sent();
        encoder.send(&sent[..5]).await;
        until("the first group", || sink.count(0) == 5).await;
        let keyframe = encoder.encode(&[video(2_000, true, RING)]);
        for piece in keyframe[..40_000].chunks(1_000) {
            encoder.socket.write_all(piece).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        encoder.socket.write_all(&keyframe[40_000..]).await.unwrap();
        let next = [video(4_000, true, 900), audio(4_007, 300)];
        encoder.send(&next).await;
        until("the next group", || ends_like(&sink.messages(0), &next)).await;
        assert_eq!((sink.count(0), sink.with(0, |got| got.open)), (7, Some(0)));
    });
}

#[test]
fn stream_that_is_kicked_in_the_middle_of_a_long_keyframe_says_goodbye_to_its_upstream() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        let sent = sent();
        encoder.send(&sent[..5]).await;
        until("the first group", || sink.count(0) == 5).await;
        let keyframe = encoder.encode(&sent[5..6]);
        trickle(&mut encoder, &sink, 0, &keyframe).await;
        engine.command(StreamCommand::Kick("enough".to_owned()));
        engine.ended().await;
        assert_eq!(sink.with(0, |got| (got.ended.is_some(), got.closed)), Some((true, true)));
        assert_eq!(sink.messages(0), sent[..5]);
    });
}

#[test]
fn message_that_comes_at_once_leaves_as_a_whole() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        let sent = sent();
        encoder.send(&sent[..5]).await;
        until("the first group", || sink.count(0) == 5).await;
        encoder.send(&sent[5..]).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        assert_eq!(sink.messages(0), sent);
        encoder.goodbye().await;
        let lost = |report: &Report| match report {
            Report::Session(session) if session.messages == sent.len() as u64 => {
                session.upstreams.first().map(|upstream| upstream.counts.lost)
            }
            _ => None,
        };
        assert_eq!(engine.report("the counts", lost).await, 0);
    });
}
