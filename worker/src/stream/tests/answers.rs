//! Publishers that are answered all the time, or read no answer: a successor must find a snapshot all the same.

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use liveedgecast_common::handoff::limits::{MAX_KEPT_BYTES, MAX_UNCHECKED_BYTES};
use liveedgecast_common::handoff::{Frame, Snapshot, page};
use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::{Command, Control, UserControl};
use liveedgecast_common::sys;

use super::kit::*;
use crate::stream::resume::reach;

/// A window that common phone libraries announce: half of it is less than one frame of [`frames`].
const WINDOW: u32 = 100_000;

fn control(control: &Control) -> Vec<u8> {
    let mut bytes = Vec::new();
    control.write(&mut bytes, 128);
    bytes
}

fn ping() -> Vec<u8> {
    control(&Control::UserControl(UserControl::PingRequest(7)))
}

/// Large frames, a keyframe every two seconds.
fn frames(count: u32) -> Vec<Message> {
    let frame = |at: u32| video(at * 33, at.is_multiple_of(60), 65_000);
    [metadata(), video_header()].into_iter().chain((0..count).map(frame)).collect()
}

/// Gives bytes by link as an activator does: it reads no further than it may keep. Each piece ends in the middle of a message.
pub(super) async fn carry(activator: &Activator, bytes: &[u8]) {
    for (piece, at) in bytes.chunks(50_000).zip((0..).step_by(50_000)) {
        let checkpoint = || activator.checkpoint().map_or(0, |snapshot| snapshot.session.position());
        until("a checkpoint", || at as u64 <= checkpoint() + (MAX_KEPT_BYTES - 50_000) as u64).await;
        activator.tell(Frame::Data(Bytes::copy_from_slice(piece))).await;
    }
}

#[test]
fn publisher_with_a_small_window_by_link_never_fills_what_the_activator_keeps() {
    run(async {
        let LiveStream { sink, encoder, activator, engine: _engine, .. } = live_by_link().await;
        let sent = frames(150);
        let window = control(&Control::WindowAckSize(WINDOW));
        carry(&activator, &[window, encoder.encode(&sent)].concat()).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        assert_eq!(sink.messages(0), sent);
    });
}

#[test]
fn publisher_that_pings_at_every_message_by_link_never_fills_what_the_activator_keeps() {
    run(async {
        let LiveStream { sink, encoder, activator, engine: _engine, .. } = live_by_link().await;
        let sent = frames(100);
        let each = |message: &Message| [encoder.encode(std::slice::from_ref(message)), ping()].concat();
        carry(&activator, &sent.iter().flat_map(each).collect::<Vec<u8>>()).await;
        until("all messages", || sink.count(0) == sent.len()).await;
    });
}

#[test]
fn publisher_that_sends_no_media_by_link_never_fills_what_the_activator_keeps() {
    run(async {
        let LiveStream { sink: _sink, activator, engine: _engine, .. } = live_by_link().await;
        carry(&activator, &ping().repeat((MAX_KEPT_BYTES + MAX_KEPT_BYTES / 2) / ping().len())).await;
        let far = |snapshot: Snapshot| snapshot.session.position() >= MAX_UNCHECKED_BYTES;
        until("a checkpoint", || activator.checkpoint().is_some_and(far)).await;
    });
}

#[test]
fn publisher_that_begins_many_long_messages_by_link_gets_no_checkpoint_for_each() {
    run(async {
        let LiveStream { sink, encoder, activator, engine: _engine, .. } = live_by_link().await;
        let (before, after) = ([metadata(), video_header(), video(0, true, 1000)], [video(33, false, 1000)]);
        // Video of 16 MiB on every chunk stream, and one byte of each.
        let begin = |csid: u8| [&[csid, 0, 0, 0, 0xFF, 0xFF, 0xFF, 9][..], &1_u32.to_le_bytes(), &[0x27]].concat();
        let mut bytes = [encoder.encode(&before), control(&Control::SetChunkSize(1))].concat();
        bytes.extend((10..60).flat_map(begin));
        Control::SetChunkSize(encoder.client.chunk_size()).write(&mut bytes, 1);
        bytes.extend(encoder.encode(&after));
        activator.tell(Frame::Data(Bytes::from(bytes))).await;
        until("what comes after them", || sink.count(0) == before.len() + after.len()).await;
        let checkpoints =
            activator.frames.borrow().iter().filter(|frame| matches!(frame, Frame::Checkpoint(_))).count();
        assert!(checkpoints < 10, "{checkpoints} checkpoints");
    });
}

/// A command with a long answer.
fn announce() -> Vec<u8> {
    let (name, arguments) = ("FCPublish".to_owned(), vec![Value::string("key")]);
    let mut bytes = Vec::new();
    Command { name, transaction: 9.0, object: Value::Null, arguments }.write(&mut bytes, 3, 0, 128);
    bytes
}

/// The last snapshot in a stream's memory.
fn published(memory: &std::os::fd::OwnedFd) -> u64 {
    // The stream has it mapped, and a process maps a memory only once.
    let mut page = vec![0; sys::STATE_BYTES];
    std::fs::File::from(memory.try_clone().unwrap()).read_exact_at(&mut page, 0).unwrap();
    page::read(&page).map_or(0, |snapshot| snapshot.session.position())
}

/// Bytes of a ring that are in use: the last word of the state page.
fn lap(memory: &std::os::fd::OwnedFd) -> usize {
    let mut word = [0; size_of::<u64>()];
    let at = (sys::STATE_BYTES - word.len()) as u64;
    std::fs::File::from(memory.try_clone().unwrap()).read_exact_at(&mut word, at).unwrap();
    usize::try_from(u64::from_ne_bytes(word)).unwrap()
}

#[test]
fn publisher_with_a_small_window_by_descriptor_has_a_snapshot_within_its_ring() {
    run(async {
        let LiveStream { sink, mut encoder, memory, socket, engine: _engine, .. } = live_by_descriptor().await;
        let window = control(&Control::WindowAckSize(WINDOW));
        let sent = frames(20);
        let bytes = [window, encoder.encode(&sent)].concat();
        tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes).await.unwrap();
        until("all messages", || sink.count(0) == sent.len()).await;
        let (socket, memory) = (socket.unwrap(), memory.unwrap());
        let head = sys::bytes_received(&socket).unwrap();
        assert!(published(&memory) + RING as u64 > head, "{} of {head}", published(&memory));
    });
}

#[test]
fn successor_finds_everything_after_every_read_while_the_ring_grows() {
    run(async {
        let LiveStream { sink, mut encoder, memory, socket, engine: _engine, .. } = live_by_descriptor().await;
        let (socket, memory) = (socket.unwrap(), memory.unwrap());
        // One long group of pictures, in frames that cross the end of every lap somewhere within the room of a read.
        let sent: Vec<_> = [metadata(), video_header(), video(0, true, 1000)]
            .into_iter()
            .chain((1..400).map(|frame| video(frame * 33, false, 1000)))
            .collect();
        let mut laps = std::collections::BTreeSet::new();
        for (number, message) in sent.iter().enumerate() {
            encoder.send(std::slice::from_ref(message)).await;
            until("the message", || sink.count(0) == number + 1).await;
            let (lap, head) = (lap(&memory), sys::bytes_received(&socket).unwrap());
            laps.insert(lap);
            let behind = head - published(&memory);
            assert!(behind <= reach(lap), "{behind} bytes behind the snapshot in a lap of {lap}, message {number}");
        }
        assert!(laps.len() > 2, "{laps:?}");
    });
}

#[test]
fn publisher_that_reads_nothing_stays_and_has_a_successor() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, memory, socket, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        socket2::SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
        let sent: Vec<Message> = (0..4_000).map(|at| video(at * 33, at % 60 == 0, 2_048)).collect();
        let (first, rest) = sent.split_at(3_900);
        killed(incoming, async || {
            encoder.started().await;
            for part in first.chunks(100) {
                let before = sink.count(0);
                let answered = |message: &Message| [encoder.encode(std::slice::from_ref(message)), announce()].concat();
                let bytes: Vec<u8> = part.iter().flat_map(answered).collect();
                tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes).await.unwrap();
                until("the part", || sink.count(0) >= before + part.len()).await;
            }
        })
        .await;
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let _engine = Engine::start(incoming);
        encoder.send(rest).await;
        until("the rest", || ends_like(&sink.messages(1), &sent)).await;
    });
}
