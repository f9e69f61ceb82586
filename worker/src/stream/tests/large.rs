//! Messages as long as a ring, and longer.

use liveedgecast_common::handoff::Frame;
use liveedgecast_common::rtmp::message::Control;
use liveedgecast_common::rtmp::writer::{first_header, write_message};
use liveedgecast_common::rtmp::{MessageHeader, type_id};
use liveedgecast_common::sys::RingMemory;
use tokio::io::AsyncWriteExt;

use super::answers::carry;
use super::kit::*;
use crate::stream::task::room_for_pieces;
use crate::stream::{IncomingStream, PublisherHandoff, Report};

/// The default replay window.
const WINDOW: usize = 8 << 20;

/// The stream with a ring of the default size.
fn with_window(incoming: IncomingStream, memory: &std::os::fd::OwnedFd) -> IncomingStream {
    let IncomingStream { mut assignment, publisher, .. } = incoming;
    assignment.policy.replay_bytes = WINDOW as u64;
    let ring = unmapped(memory);
    IncomingStream { assignment, publisher, ring }
}

fn memory() -> std::os::fd::OwnedFd {
    RingMemory::create(WINDOW).unwrap()
}

/// Two groups whose keyframes have this length.
fn groups(length: usize) -> Vec<Message> {
    let group = |from: u32| [video(from, true, length), video(from + 40, false, 3_000), audio(from + 47, 300)];
    [metadata(), audio_header(), video_header()].into_iter().chain(group(0)).chain(group(2_000)).collect()
}

/// Sends messages one after the other: the upstream is as fast as the publisher.
async fn send_all(encoder: &mut Encoder, sink: &Sink, session: usize, messages: &[Message]) {
    for message in messages {
        let before = sink.count(session);
        encoder.send(std::slice::from_ref(message)).await;
        until("the message", || sink.count(session) > before).await;
    }
}

#[test]
fn keyframe_of_five_megabytes_by_descriptor_arrives_bit_for_bit() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
        let mut engine = Engine::start(with_window(incoming, &memory()));
        encoder.started().await;
        let sent = groups(5_000_000);
        send_all(&mut encoder, &sink, 0, &sent).await;
        assert!(sink.messages(0) == sent);
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn keyframe_of_five_megabytes_by_link_arrives_bit_for_bit() {
    run(async {
        let sink = Sink::start().await;
        let Linked { encoder, activator, incoming, .. } = give_link("a", &[&sink]).await;
        let _engine = Engine::start(with_window(incoming, &memory()));
        until("start", || activator.has(|frame| *frame == Frame::Started)).await;
        let sent = groups(5_000_000);
        carry(&activator, &encoder.encode(&sent)).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        assert!(sink.messages(0) == sent);
    });
}

#[test]
fn message_longer_than_the_ring_is_skipped_and_counted_and_the_publisher_stays() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
        let mut engine = Engine::start(with_window(incoming, &memory()));
        encoder.started().await;
        let (small, large) = (groups(900), video(4_000, true, 9_000_000));
        let after = [video(4_040, false, 900), video(6_000, true, 900)];
        send_all(&mut encoder, &sink, 0, &small).await;
        encoder.send(&[large]).await;
        send_all(&mut encoder, &sink, 0, &after[1..]).await;
        assert_eq!(untimed(&sink.messages(0)), untimed(&[&small[..], &after[1..]].concat()));
        assert_eq!(engine.report("what was skipped", skipped).await, 1);
        encoder.goodbye().await;
        engine.ended().await;
    });
}

fn skipped(report: &Report) -> Option<u64> {
    if let Report::Skipped(count) = report { Some(*count) } else { None }
}

#[test]
fn message_that_is_skipped_right_before_the_publishers_end_is_counted() {
    // The next chunk of a message that never began.
    let error = |_: &mut Encoder| vec![0xC0 | 20];
    let goodbye = |encoder: &mut Encoder| {
        encoder.client.end();
        encoder.client.take_output()
    };
    let ends: [fn(&mut Encoder) -> Vec<u8>; 2] = [error, goodbye];
    for end in ends {
        run(async move {
            let LiveStream { mut encoder, mut engine, .. } = live_by_descriptor().await;
            // The message has no type that a worker knows, and is too long to be assembled.
            let length = 1 << 20;
            let header = MessageHeader { csid: 8, timestamp: 0, length, type_id: 19, stream_id: 1 };
            let chunk = vec![0; encoder.client.chunk_size() as usize];
            let wire = [&*first_header(&header), &chunk, &end(&mut encoder)].concat();
            encoder.socket.write_all(&wire).await.unwrap();
            assert_eq!(engine.report("what was skipped", skipped).await, 1);
        });
    }
}

#[test]
fn successor_skips_a_message_in_too_many_chunks_though_it_is_there_at_once() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, .. } = give_descriptor("a", &[&sink]).await;
        let memory = memory();
        let incoming = with_window(incoming, &memory);
        let given = incoming.assignment.clone();
        let (small, next) = (groups(900), [video(4_000, true, 900), video(4_040, false, 900)]);
        let (usual, stream_id) = (encoder.client.chunk_size(), encoder.client.message_stream());
        let tiny = video(2_080, false, 150_000).payload;
        let header = MessageHeader { csid: 4, timestamp: 2_080, length: 0, type_id: type_id::VIDEO, stream_id };
        let mut wire = Vec::new();
        Control::SetChunkSize(1).write(&mut wire, usual);
        write_message(&mut wire, &header, &tiny, 1);
        Control::SetChunkSize(usual).write(&mut wire, 1);
        killed(incoming, async || {
            encoder.started().await;
            send_all(&mut encoder, &sink, 0, &small).await;
            encoder.socket.write_all(&wire).await.unwrap();
            until("the publisher's kernel to be read", || rustix::io::ioctl_fionread(&socket).unwrap() == 0).await;
        })
        .await;
        let (_activator, again) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(with_window(again, &memory));
        assert_eq!(engine.report("what was skipped", skipped).await, 1);
        assert!(room_for_pieces() <= 1 << 10, "{} pieces", room_for_pieces());
        encoder.send(&next).await;
        until("the next group", || ends_like(&sink.messages(1), &next)).await;
        assert!(!sink.messages(1).iter().any(|message| message.payload == tiny));
    });
}

#[test]
fn successor_goes_on_in_the_middle_of_a_keyframe_of_five_megabytes() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, .. } = give_descriptor("a", &[&sink]).await;
        let memory = memory();
        let incoming = with_window(incoming, &memory);
        let given = incoming.assignment.clone();
        let sent = groups(5_000_000);
        let keyframe = encoder.encode(&sent[6..7]);
        let (head, tail) = keyframe.split_at(4_500_000);
        killed(incoming, async || {
            encoder.started().await;
            send_all(&mut encoder, &sink, 0, &sent[..6]).await;
            encoder.socket.write_all(head).await.unwrap();
            until("the publisher's kernel to be read", || rustix::io::ioctl_fionread(&socket).unwrap() == 0).await;
        })
        .await;
        let (_activator, again) = give_again(&socket, &memory, given).await;
        assert!(matches!(again.publisher, PublisherHandoff::Descriptor { .. }));
        let _engine = Engine::start(with_window(again, &memory));
        encoder.socket.write_all(tail).await.unwrap();
        let next = [video(4_000, true, 900), video(4_040, false, 900)];
        encoder.send(&sent[7..]).await;
        encoder.send(&next).await;
        until("the next group", || ends_like(&sink.messages(1), &next)).await;
    });
}
