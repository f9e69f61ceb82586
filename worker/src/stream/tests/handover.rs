//! A stream that changes hands: workers die, links break, publishers leave and return, a worker goes down.

use bytes::Bytes;
use liveedgecast_common::control::{SessionState, UpstreamState};
use liveedgecast_common::handoff::limits::MAX_UNREAD_BYTES;
use liveedgecast_common::handoff::{Close, Decline, Frame};
use liveedgecast_common::rtmp::client::ClientEvent;
use liveedgecast_common::sys::{self, UnmappedRing};

use super::kit::*;
use crate::stream::resume::{Prepared, PreparedRing, prepare};
use crate::stream::*;

#[test]
fn successor_goes_on_where_a_worker_died_by_descriptor() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let sent = stream(4);
        let bytes = encoder.encode(&sent);
        // In the middle of a message of the third group.
        let cut = encoder.encode(&sent[..3 + 25]).len() + 50;
        killed(incoming, async || {
            encoder.started().await;
            tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[..cut]).await.unwrap();
            until("the first part", || sink.count(0) == 3 + 25).await;
        })
        .await;
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[cut..]).await.unwrap();
        until("the rest", || ends_like(&sink.messages(1), &sent)).await;
        let got = sink.messages(1);
        assert_eq!(untimed(&got[..3]), untimed(&sent[..3]));
        // From a keyframe on; the last one, had they not come all at once.
        assert!(untimed(&sent).ends_with(&untimed(&got[3..])), "{got:?}");
        assert!(got[3].payload.starts_with(&[0x17, 1]), "{got:?}");
        encoder.goodbye().await;
        engine.ended().await;
        assert_eq!(encoder.event().await, None);
    });
}

#[test]
fn successor_takes_closing_for_a_stale_session_and_not_for_a_refusal() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let sent = stream(2);
        killed(incoming, async || {
            encoder.started().await;
            encoder.send(&sent).await;
            until("the first worker's part", || sink.count(0) == sent.len()).await;
        })
        .await;
        // As SRS does while it has not noticed that the first worker's session is over.
        sink.hangs_up.set(4);
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        let seen = std::cell::RefCell::new(Vec::new());
        engine
            .report("a live upstream", |report| {
                let Report::Session(session) = report else { return None };
                let upstream = session.upstreams.first()?;
                seen.borrow_mut().push(upstream.state);
                (upstream.state == UpstreamState::Live).then_some(())
            })
            .await;
        assert!(seen.borrow().iter().all(|state| *state != UpstreamState::Failed), "{seen:?}");
        assert_eq!(sink.sessions.borrow().len(), 5);
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn successors_session_has_room_for_audio_that_comes_late() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let at = |index: u32| {
            let time = 3_456_000_000 + index * 40;
            [video(time, index.is_multiple_of(10), 90), audio(time - 800, 40)]
        };
        let headers = [metadata(), audio_header(), video_header()];
        let first: Vec<Message> = headers.iter().cloned().chain((0..25).flat_map(at)).collect();
        let second: Vec<Message> = (25..40).flat_map(at).collect();
        killed(incoming, async || {
            encoder.started().await;
            encoder.send(&first).await;
            until("the first part", || sink.count(0) == first.len()).await;
        })
        .await;
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        encoder.send(&second).await;
        until("the rest", || ends_like(&sink.messages(1), &second)).await;
        let times = |session: usize| -> Vec<u32> { sink.messages(session).iter().map(|got| got.timestamp).collect() };
        assert_eq!(times(1)[..3], [0, 0, 0], "headers");
        for times in [times(0), times(1)] {
            assert!(times.iter().all(|time| *time < 20_000), "{times:?}");
        }
        encoder.goodbye().await;
        engine.ended().await;
    });
}

/// Two groups of large frames, a moment apart.
async fn two_groups(slow: bool) -> (Vec<Message>, Vec<Message>) {
    let sink = Sink::narrow().await;
    let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
    let given = incoming.assignment.clone();
    let large = |from: u32| (0..4).map(move |at| video(from + at * 40, at == 0, 9_000));
    let first: Vec<Message> = [metadata(), audio_header(), video_header()].into_iter().chain(large(0)).collect();
    let second: Vec<Message> = large(1_000).collect();
    killed(incoming, async || {
        encoder.started().await;
        sink.deaf.set(slow);
        encoder.send(&first).await;
        until("the first group", || slow || sink.count(0) == first.len()).await;
        // Snapshots are made five times a second at most.
        let begun = std::time::Instant::now();
        until("time for another snapshot", || begun.elapsed() > std::time::Duration::from_millis(250)).await;
        encoder.send(&second).await;
        let all = encoder.encode(&[first.clone(), second.clone()].concat()).len() as u64;
        let from = given.snapshot.session.position();
        until("the second group", || sys::bytes_received(&socket).unwrap() >= from + all).await;
        until("all of it", || slow || sink.count(0) == first.len() + second.len()).await;
    })
    .await;
    sink.deaf.set(false);
    let (_, incoming) = give_again(&socket, &memory, given).await;
    let _engine = Engine::start(incoming);
    until("the last message", || ends_like(&sink.messages(1), &second)).await;
    ([first, second].concat(), sink.messages(1))
}

#[test]
fn successor_begins_where_the_slowest_upstream_needs_it() {
    run(async {
        let (sent, got) = Box::pin(two_groups(true)).await;
        assert_eq!(untimed(&got), untimed(&sent), "what the upstream's kernel had not taken comes again");
    });
}

#[test]
fn successor_repeats_one_group_of_what_all_upstreams_have() {
    run(async {
        let (sent, got) = Box::pin(two_groups(false)).await;
        assert_eq!(untimed(&got[3..]), untimed(&sent[7..]));
    });
}

#[test]
fn successor_delivers_what_an_upstream_missed_while_it_was_away() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let group = |from: u32| (0..4).map(move |at| video(from + at * 40, at == 0, 900));
        let first: Vec<Message> = [metadata(), audio_header(), video_header()].into_iter().chain(group(0)).collect();
        let missed: Vec<Message> = group(1_000).chain(group(2_000)).chain(group(3_000)).collect();
        killed(incoming, async || {
            encoder.started().await;
            encoder.send(&first).await;
            until("the first group", || sink.count(0) == first.len()).await;
            sink.mute.set(true);
            sink.cut();
            until("the end of the session", || sink.with(0, |got| got.closed).unwrap_or_default()).await;
            for (number, group) in missed.chunks(4).enumerate() {
                // Snapshots are made five times a second at most.
                let begun = std::time::Instant::now();
                until("time for another snapshot", || begun.elapsed() > std::time::Duration::from_millis(250)).await;
                encoder.send(group).await;
                let sent = encoder.encode(&[&first, &missed[..(number + 1) * 4]].concat()).len() as u64;
                let from = given.snapshot.session.position();
                until("the group", || sys::bytes_received(&socket).unwrap() >= from + sent).await;
            }
        })
        .await;
        sink.mute.set(false);
        let before = sink.sessions.borrow().len();
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let _engine = Engine::start(incoming);
        let last = || (before..sink.sessions.borrow().len()).map(|number| sink.messages(number)).next_back();
        until("the last message", || last().is_some_and(|got| ends_like(&got, &missed[8..]))).await;
        let got = last().unwrap_or_default();
        assert!(untimed(&got).ends_with(&untimed(&missed)), "{got:?}");
    });
}

#[test]
fn successor_delivers_the_end_of_a_stream_whose_publisher_has_left_already() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let sent = stream(3);
        let bytes = encoder.encode(&sent);
        let cut = encoder.encode(&sent[..20]).len();
        killed(incoming, async || {
            encoder.started().await;
            tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[..cut]).await.unwrap();
            until("the first part", || sink.count(0) == 20).await;
        })
        .await;
        tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[cut..]).await.unwrap();
        encoder.goodbye().await;
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        engine.ended().await;
        assert!(ends_like(&sink.messages(1), &sent), "{:?}", sink.messages(1));
        assert!(sink.with(1, |got| got.closed).unwrap());
    });
}

#[test]
fn upstream_that_is_away_when_the_publisher_leaves_gets_the_end_of_the_stream() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        let sent = stream(3);
        encoder.send(&sent[..20]).await;
        until("the first part", || sink.count(0) == 20).await;
        sink.cut();
        until("the end of the session", || sink.with(0, |got| got.closed).unwrap_or_default()).await;
        encoder.send(&sent[20..]).await;
        encoder.goodbye().await;
        engine.ended().await;
        let last = sink.sessions.borrow().len() - 1;
        assert!(ends_like(&sink.messages(last), &sent), "{:?}", sink.messages(last));
    });
}

#[test]
fn successor_starts_the_publisher_of_a_worker_that_died_before_the_start() {
    run(async {
        let sink = Sink::start().await;
        sink.mute.set(true);
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        killed(incoming, async || until("an attempt", || !sink.sessions.borrow().is_empty()).await).await;
        sink.cut();
        sink.mute.set(false);
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        encoder.send(&stream(1)).await;
        let number = sink.sessions.borrow().iter().position(|got| got.published).unwrap();
        until("all messages", || sink.count(number) == stream(1).len()).await;
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn state_page_of_a_stranger_is_not_believed() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        drop(incoming);
        let mut stranger = UnmappedRing::check(memory.try_clone().unwrap()).unwrap().map().unwrap();
        let Held { session, .. } = hold().await;
        let mut wrong =
            liveedgecast_common::handoff::Snapshot { session: session.state(), stream: None, unread: vec![1; 99] };
        assert!(liveedgecast_common::handoff::page::publish(stranger.page_mut(), &wrong));
        wrong.unread.clear();
        drop(stranger);
        let (_, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        encoder.send(&stream(1)).await;
        until("all messages", || sink.count(0) == stream(1).len()).await;
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn publisher_is_ended_with_a_reason_when_no_page_tells_its_state() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, incoming, socket, memory, .. } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        drop(incoming);
        // More than the ring holds was read, and no page tells how.
        let bytes = vec![0; RING];
        let reader = TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
        let mut read = vec![0; RING];
        let (mut reader, _) = reader.into_split();
        let (written, taken) = tokio::join!(
            tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes),
            tokio::io::AsyncReadExt::read_exact(&mut reader, &mut read)
        );
        written.unwrap();
        taken.unwrap();
        drop(reader);
        let (activator, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        engine.ended().await;
        assert_eq!(encoder.event().await, None);
        until("done", || activator.has(|frame| matches!(frame, Frame::Done { how: Close::Abort, .. }))).await;
    });
}

#[test]
fn ring_grows_to_the_bytes_that_come_with_a_publisher() {
    run(async {
        let sink = Sink::start().await;
        let given = give_descriptor("a", &[&sink]).await;
        let linked = give_link("a", &[&sink]).await;
        for mut incoming in [given.incoming, linked.incoming] {
            // More than the first lap of a new ring.
            let unread: Vec<u8> = (0..=250).cycle().take(MAX_UNREAD_BYTES).collect();
            incoming.assignment.snapshot.unread.clone_from(&unread);
            let Ok(Prepared { ring: PreparedRing::Own(mut ring), point, .. }) = prepare(incoming, None) else {
                panic!("not prepared")
            };
            assert!(ring.capacity() <= MAX_UNREAD_BYTES);
            assert!(point.take_up(&mut ring).is_empty());
            assert_eq!(ring.bytes(point.session.position(), unread.len()), unread);
            assert_eq!(point.head, point.session.position() + unread.len() as u64);
        }
    });
}

#[test]
fn successor_by_link_goes_on_from_the_last_checkpoint() {
    run(async {
        let sink = Sink::start().await;
        let Linked { encoder, activator, incoming } = give_link("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let began = given.snapshot.session.position();
        let sent = stream(4);
        let bytes = encoder.encode(&sent);
        for cut in [40, 700, 1_500, 3_333, bytes.len() - 1] {
            let number = sink.sessions.borrow().len();
            let (activator, incoming) = link(given.clone()).await;
            killed(incoming, async || {
                activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[..cut])));
                let whole = |messages: &[Message]| encoder.encode(messages).len();
                let count = (0..=sent.len()).rev().find(|count| whole(&sent[..*count]) <= cut).unwrap();
                until("the first part", || sink.count(number) == count).await;
            })
            .await;
            // As an activator does: the checkpoint, the bytes kept since, then the new ones.
            let snapshot = activator.checkpoint().unwrap_or_else(|| given.snapshot.clone());
            let kept = (snapshot.session.position() - began) as usize;
            let again = Assignment { resumed: true, epoch: 2, snapshot, ..given.clone() };
            let (activator, incoming) = link(again).await;
            let mut engine = Engine::start(incoming);
            if cut > kept {
                activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[kept..cut])));
            }
            activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[cut..])));
            until("the rest", || ends_like(&sink.messages(number + 1), &sent)).await;
            let got = sink.messages(number + 1);
            let body = untimed(&sent[3..]);
            assert_eq!(untimed(&got[..3]), untimed(&sent[..3]), "cut at {cut}");
            assert!(body.ends_with(&untimed(&got[3..])), "cut at {cut}: {got:?}");
            engine.command(StreamCommand::Kick("enough".to_owned()));
            engine.ended().await;
        }
        drop((activator, incoming));
    });
}

#[test]
fn publisher_that_comes_back_continues_the_upstreams_session() {
    run(async {
        let LiveStream { sink, mut encoder, activator, mut engine, .. } = live_by_descriptor().await;
        encoder.send(&stream(1)).await;
        until("the first part", || sink.count(0) == stream(1).len()).await;
        // Gone without a word.
        drop(encoder);
        engine.report("grace", |report| in_state(report, SessionState::Grace)).await;
        until("done", || activator.is_done()).await;

        let Given { mut encoder, activator, incoming, .. } = give_descriptor("b", &[&sink]).await;
        engine.command(StreamCommand::Attach(Box::new(incoming)));
        let decided = engine
            .report("a decision", |report| match report {
                Report::AttachDecided { stream_id, accepted } => Some((stream_id.to_string(), *accepted)),
                _ => None,
            })
            .await;
        assert_eq!(decided, ("b".to_owned(), true));
        encoder.started().await;
        // A relay in the middle of a group: nothing can be made of its first frames.
        let mut second = vec![audio_header(), video_header(), video(7_000, false, 50), audio(7_005, 20)];
        second.extend(group_of_frames(7_040));
        encoder.send(&second).await;
        let expected: Vec<Message> = second
            .iter()
            .filter(|message| message.payload[..2] != [0x27, 1] || message.timestamp > 7_040)
            .cloned()
            .collect();
        until("the second part", || sink.count(0) == stream(1).len() + expected.len()).await;
        let got = sink.messages(0);
        assert_eq!(untimed(&got[stream(1).len()..]), untimed(&expected));
        let steps: Vec<u32> = got.windows(2).map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp)).collect();
        assert!(steps.iter().all(|step| *step < 20_000), "time does not jump: {steps:?}");
        encoder.goodbye().await;
        engine.ended().await;
        assert_eq!(sink.sessions.borrow().len(), 1);
        until("the connection", || activator.parted().is_some()).await;
    });
}

#[test]
fn upstream_that_is_given_up_is_the_streams_until_it_is_closed() {
    run(async {
        let (own, shared) = (Sink::start().await, Sink::start().await);
        let Given { mut encoder, mut incoming, .. } = give_descriptor("a", &[&own, &shared]).await;
        let wanted = Identity([9; 16]);
        incoming.assignment.identities.push(wanted);
        let identities = vec![Identity([8; 16]), wanted];
        let contest = Contest { stream_id: StreamId("b".to_owned()), identities, destinations: vec![shared.url()] };
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        encoder.send(&stream(1)).await;
        until("all messages", || own.count(0) == stream(1).len() && shared.count(0) == stream(1).len()).await;
        // It does not see the goodbye, so it takes its time.
        shared.deaf.set(true);
        drop(encoder);
        engine.report("grace", |report| in_state(report, SessionState::Grace)).await;
        engine.command(StreamCommand::Contend(contest));
        let has_it = |report: &Report| match report {
            Report::Session(session) => Some(session.identities.contains(&wanted)),
            _ => None,
        };
        let mut before = Vec::new();
        loop {
            let report = engine.report("any", |report| Some(report.clone())).await;
            before.extend(has_it(&report));
            if matches!(report, Report::ContestDecided { .. }) {
                break;
            }
        }
        assert!(!before.is_empty() && !before.contains(&false), "{before:?}");
        assert!(!engine.report("a session", has_it).await, "the upstream is closed");
    });
}

#[test]
fn upstreams_are_told_goodbye_as_soon_as_the_grace_time_is_over() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, mut incoming, .. } = give_descriptor("a", &[&sink]).await;
        incoming.assignment.policy.grace = std::time::Duration::from_millis(50);
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        encoder.send(&stream(1)).await;
        until("all messages", || sink.count(0) == stream(1).len()).await;
        let lost = std::time::Instant::now();
        drop(encoder);
        engine.ended().await;
        let took = lost.elapsed();
        assert_eq!(sink.with(0, |got| (got.ended.is_some(), got.closed)), Some((true, true)));
        // Later than that, unwritten messages are cut off.
        assert!(took < crate::stream::machine::DRAIN_TIME, "the end came {took:?} after the publisher was lost");
    });
}

fn in_state(report: &Report, state: SessionState) -> Option<()> {
    matches!(report, Report::Session(session) if session.state == state).then_some(())
}

#[test]
fn duplicate_is_refused_and_the_stream_goes_on() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        encoder.send(&stream(1)).await;
        let Given { encoder: _other, activator, incoming, .. } = give_descriptor("b", &[&sink]).await;
        engine.command(StreamCommand::Attach(Box::new(incoming)));
        until("the refusal", || activator.has(|frame| *frame == Frame::Duplicate)).await;
        encoder.send(&group_of_frames(200)).await;
        until("all messages", || sink.count(0) == stream(2).len()).await;
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn stream_is_given_back_with_its_connection_open() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, activator, incoming, socket, memory } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        let sent = stream(3);
        let bytes = encoder.encode(&sent);
        let cut = bytes.len() / 2;
        tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[..cut]).await.unwrap();
        until("some messages", || sink.count(0) > 10).await;
        engine.command(StreamCommand::HandBack);
        engine.ended().await;
        until("the return", || activator.has(|frame| *frame == Frame::Returned { why: Decline::Moving })).await;
        assert!(!activator.is_done());
        assert_eq!(sink.with(0, |got| got.closed), Some(true), "the name is free for the successor");

        let (_, incoming) = give_again(&socket, &memory, given).await;
        let mut engine = Engine::start(incoming);
        tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[cut..]).await.unwrap();
        until("the rest", || ends_like(&sink.messages(1), &sent)).await;
        assert!(untimed(&sent[3..]).ends_with(&untimed(&sink.messages(1)[3..])));
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn publisher_that_comes_again_while_its_stream_closes_is_read_on_from_the_same_memory() {
    run(async {
        let sink = Sink::start().await;
        let Given { mut encoder, activator, incoming, socket, memory } = give_descriptor("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let mut engine = Engine::start(incoming);
        encoder.started().await;
        let sent = stream(3);
        let bytes = encoder.encode(&sent);
        let cut = bytes.len() / 2;
        tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[..cut]).await.unwrap();
        until("some messages", || sink.count(0) > 10).await;
        let (_activator, again) = give_again(&socket, &memory, given).await;
        // In one poll: the stream is closing, and has the memory mapped still, when the publisher comes again.
        engine.command(StreamCommand::HandBack);
        engine.command(StreamCommand::Attach(Box::new(again)));
        until("the return", || activator.has(|frame| *frame == Frame::Returned { why: Decline::Moving })).await;
        tokio::io::AsyncWriteExt::write_all(&mut encoder.socket, &bytes[cut..]).await.unwrap();
        until("the rest", || ends_like(&sink.messages(1), &sent)).await;
        assert!(untimed(&sent[3..]).ends_with(&untimed(&sink.messages(1)[3..])));
        encoder.goodbye().await;
        let ended = |report: &Report| matches!(report, Report::Ended { .. }).then_some(());
        engine.report("the end of the first", ended).await;
        engine.report("the end of the second", ended).await;
    });
}

#[test]
fn another_publisher_with_the_streams_memory_is_given_back_and_nothing_is_written_to_it() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, memory, .. } = live_by_descriptor().await;
        encoder.send(&stream(1)).await;
        until("all messages", || sink.count(0) == stream(1).len()).await;
        let memory = memory.unwrap();
        let read = || {
            use std::os::unix::fs::FileExt;
            let mut bytes = vec![0; RING];
            let ring = std::fs::File::from(memory.try_clone().unwrap());
            ring.read_exact_at(&mut bytes, sys::STATE_BYTES as u64).unwrap();
            bytes
        };
        let before = read();
        let Given { encoder: _other, activator, mut incoming, .. } = give_descriptor("b", &[&sink]).await;
        incoming.ring = unmapped(&memory);
        incoming.assignment.snapshot.unread = vec![0xaa; 1000];
        engine.command(StreamCommand::Attach(Box::new(incoming)));
        until("the return", || activator.has(|frame| *frame == Frame::Returned { why: Decline::Other })).await;
        assert!(read() == before, "the live ring is as it was");
        encoder.goodbye().await;
        engine.ended().await;
    });
}

#[test]
fn lost_link_is_a_lost_publisher_and_may_come_back_as_it_was() {
    run(async {
        let sink = Sink::start().await;
        let Linked { encoder, activator, incoming } = give_link("a", &[&sink]).await;
        let given = incoming.assignment.clone();
        let began = given.snapshot.session.position();
        let mut engine = Engine::start(incoming);
        let sent = stream(3);
        let bytes = encoder.encode(&sent);
        let cut = bytes.len() / 2 + 7;
        activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[..cut])));
        let whole = (0..sent.len()).find(|count| encoder.encode(&sent[..*count]).len() > cut).unwrap() - 1;
        until("the first part", || sink.count(0) == whole).await;
        let snapshot = activator.checkpoint().unwrap();
        drop(activator);
        engine.report("grace", |report| in_state(report, SessionState::Grace)).await;
        // The same publisher, from the last checkpoint on: the upstream gets no message twice.
        let kept = (snapshot.session.position() - began) as usize;
        let (activator, incoming) = link(Assignment { resumed: true, epoch: 2, snapshot, ..given }).await;
        engine.command(StreamCommand::Attach(Box::new(incoming)));
        activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[kept..cut])));
        activator.say(Frame::Data(Bytes::copy_from_slice(&bytes[cut..])));
        until("the rest", || sink.count(0) == sent.len()).await;
        assert_eq!(sink.messages(0), sent);
        activator.say(Frame::Kick("enough".to_owned()));
        engine.ended().await;
    });
}

#[test]
fn next_publisher_waits_for_the_end_of_the_one_before() {
    run(async {
        let LiveStream { sink, mut encoder, mut engine, .. } = live_by_descriptor().await;
        encoder.send(&stream(1)).await;
        let Given { encoder: mut other, incoming, .. } = give_descriptor("b", &[&sink]).await;
        encoder.goodbye().await;
        engine.report("the end", |report| in_state(report, SessionState::Live)).await;
        until("the goodbye", || sink.with(0, |got| got.ended.is_some()) == Some(true)).await;
        // Still closing, or ended already: then no task takes commands.
        if engine.commands.try_send(StreamCommand::Attach(Box::new(incoming))).is_ok() {
            other.started().await;
            other.send(&stream(2)).await;
            until("the second stream", || sink.count(1) == stream(2).len()).await;
            other.goodbye().await;
            engine.ended().await;
        }
    });
}

#[test]
fn stream_that_follows_another_one_does_not_wait_for_its_publisher_without_an_activator_either() {
    run(async {
        let LiveStream { sink, encoder: _encoder, mut engine, .. } = live_by_descriptor().await;
        engine.command(StreamCommand::Alone(true));
        let Given { encoder: mut other, incoming, .. } = give_descriptor("b", &[&sink]).await;
        // In one poll: the stream is closing when the next publisher comes.
        engine.command(StreamCommand::Kick("enough".to_owned()));
        engine.command(StreamCommand::Attach(Box::new(incoming)));
        other.started().await;
        drop(other);
        let waits = |report: &Report| match report {
            Report::Ended { stream_id } => (stream_id.0 == "b").then_some(false),
            report => in_state(report, SessionState::Grace).map(|()| true),
        };
        assert!(!engine.report("grace or the end", waits).await, "there is a grace time");
    });
}

#[test]
fn publisher_that_waits_for_the_end_of_the_one_before_is_kicked_or_given_back_like_any_other() {
    run(async {
        for kicked in [true, false] {
            let sink = Sink::start().await;
            let Given { mut encoder, incoming, .. } = give_descriptor("a", &[&sink]).await;
            let mut engine = Engine::start(incoming);
            encoder.started().await;
            encoder.send(&stream(1)).await;
            until("all messages", || sink.count(0) == stream(1).len()).await;
            let Given { encoder: mut other, activator, incoming: next, .. } = give_descriptor("b", &[&sink]).await;
            // It does not see the goodbye, so the end takes its time.
            sink.deaf.set(true);
            encoder.goodbye().await;
            let reason = |report: &Report| match report {
                Report::Session(session) => (session.reason == "ended by the publisher").then_some(()),
                _ => None,
            };
            engine.report("the end to begin", reason).await;
            engine.command(StreamCommand::Attach(Box::new(next)));
            engine.command(if kicked { StreamCommand::Kick("enough".to_owned()) } else { StreamCommand::HandBack });
            let ended = |report: &Report| matches!(report, Report::Ended { stream_id } if stream_id.as_str() == "b");
            engine.report("the end of the second", |report| ended(report).then_some(())).await;
            if kicked {
                let event = other.event().await;
                assert!(matches!(event, Some(ClientEvent::Refused(..))), "{event:?}");
            } else {
                until("the return", || activator.has(|frame| *frame == Frame::Returned { why: Decline::Moving })).await;
            }
        }
    });
}
