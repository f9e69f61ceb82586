//! Tests of the task, over real sockets.
#![expect(clippy::disallowed_methods, reason = "tests of a shell: sockets, tasks, and waiting for conditions")]

mod answers;
mod destinations;
mod early;
mod events;
mod excerpts;
mod gathering;
mod handover;
mod kit;
mod large;

use bytes::Bytes;
use liveedgecast_common::control::SessionState;
use liveedgecast_common::handoff::Frame;
use liveedgecast_common::rtmp::client::{Class, ClientEvent};
use liveedgecast_common::rtmp::server::{Refusal, ServerSession};

use liveedgecast_common::sys::{self, RingMemory, UnmappedRing};

use self::kit::*;
use super::*;

#[test]
fn stream_by_descriptor_arrives_bit_for_bit_and_ends_cleanly() {
    run(async {
        let LiveStream { sink, mut encoder, activator, socket, mut engine, .. } = live_by_descriptor().await;
        let sent = stream(3);
        encoder.send(&sent).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        assert_eq!(sink.messages(0), sent);
        assert!(activator.has(|frame| *frame == Frame::Accepted) && activator.has(|frame| *frame == Frame::Started));
        encoder.goodbye().await;
        engine.ended().await;
        assert_eq!(sink.with(0, |got| (got.ended.is_some(), got.closed)), Some((true, true)));
        // The connection is the activator's again, to the byte.
        let parted = activator.parted().expect("what is left behind");
        assert!(
            parted.session.position() + parted.unread.len() as u64 == sys::bytes_received(socket.unwrap()).unwrap()
        );
        assert!(ServerSession::reopen(&parted.session).is_ok() && !activator.is_done());
    });
}

#[test]
fn stream_by_link_arrives_wherever_its_bytes_are_cut() {
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
            engine.command(StreamCommand::Kick("enough".to_owned()));
            engine.ended().await;
        }
    });
}

#[test]
fn held_publisher_gets_through_whatever_the_upstream_does_first() {
    run(async {
        let sink = Sink::start().await;
        sink.mute.set(true);
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
        let mut engine = Engine::start(incoming);
        until("an attempt", || !sink.sessions.borrow().is_empty()).await;
        sink.cut();
        sink.mute.set(false);
        encoder.started().await;
        encoder.send(&stream(1)).await;
        let number = sink.sessions.borrow().iter().position(|got| got.published).unwrap();
        until("all messages", || sink.count(number) == stream(1).len()).await;
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn media_that_came_before_the_start_is_not_lost() {
    run(async {
        // Relays do not wait: nginx-rtmp's push begins with the publish command.
        let sink = Sink::start().await;
        let Held { client, mut socket, server, session, address } = hold().await;
        let encoder = Encoder { client, socket: TcpStream::connect(sink.address).await.unwrap() };
        let bytes = encoder.encode(&stream(2));
        let mut given = assignment("a", &session, address, &[&sink]);
        let (unread, kernel) = bytes.split_at(333);
        tokio::io::AsyncWriteExt::write_all(&mut socket, &bytes).await.unwrap();
        let mut server = server;
        let mut read = vec![0; unread.len()];
        tokio::io::AsyncReadExt::read_exact(&mut server, &mut read).await.unwrap();
        given.snapshot.unread = read;
        until("the rest is with the kernel", || rustix::io::ioctl_fionread(&server).unwrap() == kernel.len() as u64)
            .await;
        let ring = FetchedRing::Unmapped(UnmappedRing::create(RING).unwrap());
        let (_activator, control) = Activator::connection(&given).await;
        let publisher = PublisherHandoff::Descriptor { socket: server, control };
        let engine = Engine::start(IncomingStream { assignment: given, publisher, ring });
        let number = 1; // 0 is the encoder's own idle connection.
        until("all messages", || sink.count(number) == stream(2).len()).await;
        assert_eq!(sink.messages(number), stream(2));
        engine.command(StreamCommand::Kick("enough".to_owned()));
    });
}

#[test]
fn publisher_is_refused_when_all_upstreams_have_refused() {
    run(async {
        let sinks = [Sink::start().await, Sink::start().await];
        sinks.iter().for_each(|sink| sink.refuse.set(Some(Refusal::Denied)));
        let Given { mut encoder, activator, incoming, .. } = give_descriptor("a", &[&sinks[0], &sinks[1]]).await;
        let mut engine = Engine::start(incoming);
        let event = encoder.event().await;
        assert!(matches!(event, Some(ClientEvent::Refused(Class::BadName, _))), "{event:?}");
        assert_eq!(encoder.event().await, None);
        drop(encoder);
        engine.ended().await;
        until("done", || activator.is_done()).await;
    });
}

#[test]
fn one_upstream_that_refuses_does_not_touch_the_other() {
    run(async {
        let (good, bad) = (Sink::start().await, Sink::start().await);
        bad.refuse.set(Some(Refusal::Denied));
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&bad, &good]).await;
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        encoder.send(&stream(2)).await;
        until("all messages", || good.count(0) == stream(2).len()).await;
        encoder.goodbye().await;
        engine.ended().await;
        assert_eq!(good.messages(0), stream(2));
    });
}

#[test]
fn after_a_flap_a_session_begins_with_headers_and_a_keyframe() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        let sent = stream(3);
        let (before, after) = sent.split_at(sent.len() - 4);
        encoder.send(before).await;
        until("the first part", || sink.count(0) == before.len()).await;
        sink.cut();
        until("the cut", || sink.with(0, |got| got.closed) == Some(true)).await;
        encoder.send(after).await;
        until("the rest", || ends_like(&sink.messages(1), &sent)).await;
        let got = sink.messages(1);
        assert_eq!(untimed(&got[..3]), untimed(&[metadata(), audio_header(), video_header()]));
        // The group in which the cut was, from its keyframe on; everything before had arrived.
        assert_eq!(untimed(&got[3..]), untimed(&sent[sent.len() - 10..]));
        assert!(got[3].timestamp <= 250, "a new session begins near 0: {}", got[3].timestamp);
        encoder.goodbye().await;
        let lost = engine
            .report("the end", |report| match report {
                Report::Session(session) if session.state == SessionState::Ended => {
                    let upstream = &session.upstreams[0];
                    Some((upstream.counts.messages, upstream.counts.lost, upstream.counts.reconnects))
                }
                _ => None,
            })
            .await;
        assert_eq!(lost, (sent.len() as u64, 0, 1));
    });
}

#[test]
fn session_that_begins_later_gets_long_metadata_and_long_sequence_headers() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        let long = |mut message: Message| {
            message.payload.resize(40 << 10, 7);
            message
        };
        let headers = [long(metadata()), audio_header(), long(video_header())];
        let before = [&headers[..], &group_of_frames(0)].concat();
        encoder.send(&before).await;
        until("the first part", || sink.count(0) == before.len()).await;
        sink.cut();
        until("the cut", || sink.with(0, |got| got.closed) == Some(true)).await;
        let after = group_of_frames(200);
        encoder.send(&after).await;
        until("the rest", || ends_like(&sink.messages(1), &after)).await;
        assert!(untimed(&sink.messages(1)[..3]) == untimed(&headers), "{:?}", sink.messages(1));
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn jump_of_the_publishers_clock_is_reported_and_reaches_no_upstream() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        let sent = [vec![audio_header(), video_header()], group_of_frames(900_000), group_of_frames(0)].concat();
        encoder.send(&sent).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        encoder.goodbye().await;
        let jumps = |report: &Report| if let Report::ClockJumps { count } = report { Some(*count) } else { None };
        assert_eq!(engine.report("the jump", jumps).await, 1);
        engine.ended().await;
        let times: Vec<u32> = sink.messages(0).iter().map(|message| message.timestamp).collect();
        assert!(times.iter().all(|time| *time < 20_000), "{times:?}");
    });
}

#[test]
fn ring_holds_what_an_upstream_may_need_and_grows_to_the_window_while_it_is_away() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
        let IncomingStream { mut assignment, publisher, .. } = incoming;
        assignment.policy.replay_time = std::time::Duration::from_secs(600);
        let memory = RingMemory::create(8 << 20).unwrap();
        let ring = unmapped(&memory);
        let mut engine = Engine::start(IncomingStream { assignment, publisher, ring });
        let taken = || rustix::fs::fstat(&memory).unwrap().st_blocks * 512;
        encoder.started().await;
        // Groups of 1 MB.
        let frames = |from: u32, to: u32| -> Vec<Message> {
            (from..to).map(|at| video(at * 40, at.is_multiple_of(10), 100_000)).collect()
        };
        let sent = [vec![video_header()], frames(0, 60)].concat();
        for (count, message) in sent.iter().enumerate() {
            encoder.send(std::slice::from_ref(message)).await;
            until("the message", || sink.count(0) == count + 1).await;
        }
        assert!(taken() < 9 << 19, "6 MB have come, and the window is ten minutes: {}", taken());

        sink.mute.set(true);
        sink.cut();
        until("the cut", || sink.with(0, |got| got.closed) == Some(true)).await;
        let away = frames(60, 105);
        encoder.send(&away).await;
        until("room for all that came", || taken() > 4_500_000).await;
        sink.mute.set(false);
        sink.cut();
        until("a session with everything that came", || {
            let last = sink.sessions.borrow().len() - 1;
            last > 0 && ends_like(&sink.messages(last), &away)
        })
        .await;
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn ring_takes_no_more_memory_than_its_window() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
        let IncomingStream { mut assignment, publisher, .. } = incoming;
        assignment.policy.replay_time = std::time::Duration::ZERO;
        let memory = RingMemory::create(8 << 20).unwrap();
        let ring = unmapped(&memory);
        let mut engine = Engine::start(IncomingStream { assignment, publisher, ring });
        encoder.started().await;
        let mut sent = vec![video_header()];
        sent.extend((0..39).map(|at| video(at * 40, at % 10 == 0, 100_000)));
        for (count, message) in sent.iter().enumerate() {
            encoder.send(std::slice::from_ref(message)).await;
            until("the message", || sink.count(0) == count + 1).await;
        }
        assert_eq!(sink.messages(0), sent);
        let taken = rustix::fs::fstat(&memory).unwrap().st_blocks * 512;
        // All that was sent, should the one snapshot be that of the first keyframe, fits into half of the ring.
        assert!(taken < 9 << 19, "{taken}");
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn ring_that_has_needed_less_for_a_while_becomes_smaller() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, .. } = give_descriptor("a", &[&sink]).await;
        let IncomingStream { assignment, publisher, .. } = incoming;
        let memory = RingMemory::create(8 << 20).unwrap();
        let (ring, given) = (unmapped(&memory), assignment.clone());
        let incoming = IncomingStream { assignment, publisher, ring };
        let taken = || rustix::fs::fstat(&memory).unwrap().st_blocks * 512;
        killed(incoming, async || {
            encoder.started().await;
            let frames = |from: u32, to: u32, length: usize| -> Vec<Message> {
                (from..to).map(|at| video(at * 40, at.is_multiple_of(10), length)).collect()
            };
            let mut sent = [vec![video_header()], frames(0, 30, 100_000)].concat();
            let mut at = 0;
            for message in &sent {
                encoder.send(std::slice::from_ref(message)).await;
                at += 1;
                until("the message", || sink.count(0) == at).await;
            }
            assert!(taken() > 1 << 20, "{}", taken());
            let mut number = 30;
            tokio::time::timeout(std::time::Duration::from_secs(20), async {
                while taken() > 256 << 10 {
                    let more = frames(number, number + 10, 300);
                    encoder.send(&more).await;
                    (number, at) = (number + 10, at + more.len());
                    sent.extend(more);
                    until("the group", || sink.count(0) == at).await;
                    // Snapshots follow each other 200 ms apart: what lies behind the last one is to be little.
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            })
            .await
            .expect("a smaller ring");
            assert_eq!(sink.messages(0), sent);
        })
        .await;
        // A successor finds everything where it is to be.
        let (_activator, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        let last = [video(40_000, true, 500), video(40_040, false, 400)];
        encoder.send(&last).await;
        until("a session with the last messages", || {
            sink.sessions.borrow().len() == 2 && ends_like(&sink.messages(1), &last)
        })
        .await;
        encoder.goodbye().await;
        engine.ended().await;
    });
}
