//! Excerpts of streams that run: what is in them, and that the stream goes on.

use liveedgecast_common::control::{ExcerptPart, ExcerptRefusal};
use tokio::sync::oneshot;

use super::answers::carry;
use super::kit::*;
use crate::stream::{ExcerptAnswer, ExcerptRequest, StreamCommand};

/// Asks a stream; `None`: it has ended.
async fn excerpt(engine: &Engine, part: ExcerptPart) -> Option<ExcerptAnswer> {
    let (answer, made) = oneshot::channel();
    engine.command(StreamCommand::Excerpt(ExcerptRequest { part, answer }));
    made.await.ok()
}

/// The number of the messages whose payload is in the file.
fn found(file: &[u8], messages: &[Message]) -> usize {
    let is_there = |message: &&Message| file.windows(message.payload.len()).any(|part| part == message.payload);
    messages.iter().filter(is_there).count()
}

/// Asserts what there is of a stream of three groups, all of which the upstream has.
async fn has_its_messages(engine: &Engine, sent: &[Message]) {
    let whole = excerpt(engine, ExcerptPart::All).await.unwrap().unwrap().concat();
    assert_eq!(found(&whole, sent), sent.len(), "everything is kept of so little");
    // The name of the upstream: before a list it has none.
    for part in [ExcerptPart::LastKeyframe, ExcerptPart::SentKeyframe(String::new())] {
        let picture = excerpt(engine, part).await.unwrap().unwrap().concat();
        let video = |timestamp| [video(timestamp, true, 900)];
        assert_eq!([0, 200, 400].map(|timestamp| found(&picture, &video(timestamp))), [0, 0, 1]);
    }
    let unknown = excerpt(engine, ExcerptPart::SentKeyframe("nobody".to_owned())).await.unwrap();
    assert_eq!(unknown, Err(ExcerptRefusal::DestinationUnknown));
}

#[test]
fn stream_by_descriptor_gives_excerpts_while_it_goes_on() {
    run(async {
        let LiveStream { sink, mut engine, mut encoder, .. } = live_by_descriptor().await;
        let sent = stream(3);
        assert_eq!(excerpt(&engine, ExcerptPart::All).await.unwrap(), Err(ExcerptRefusal::NoKeyframe));
        encoder.send(&sent).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        has_its_messages(&engine, &sent).await;
        encoder.send(&group_of_frames(600)).await;
        until("the next group", || sink.count(0) == sent.len() + group_of_frames(600).len()).await;
        encoder.goodbye().await;
        engine.ended().await;
        let (answer, made) = oneshot::channel();
        let _ = engine.commands.try_send(StreamCommand::Excerpt(ExcerptRequest { part: ExcerptPart::All, answer }));
        assert!(made.await.is_err(), "the stream is over");
    });
}

#[test]
fn stream_by_link_gives_excerpts() {
    run(async {
        let LiveStream { sink, engine, encoder, activator, .. } = live_by_link().await;
        let sent = stream(3);
        carry(&activator, &encoder.encode(&sent)).await;
        until("all messages", || sink.count(0) == sent.len()).await;
        has_its_messages(&engine, &sent).await;
    });
}

/// A group of ten frames: 1 kB of a ring whose shortest lap is 64 kB. The groups of 200 ms, which is the time between two snapshots, fit into that.
fn small_group(number: u32) -> Vec<Message> {
    (0..10).map(|at| video(number * 1000 + at * 100, at == 0, 100)).collect()
}

/// Sends groups of a stream whose upstream keeps up, through many snapshots and a look at how much of the ring is needed, and asserts that there are
/// many groups in each file: what nobody needs stays while the lap has room for it.
async fn has_several_groups(sink: &Sink, engine: &Engine, send: impl AsyncFn(&[Message])) {
    send(&[video_header()]).await;
    let (begun, mut sent, mut number) = (std::time::Instant::now(), 1, 0);
    while begun.elapsed() < std::time::Duration::from_millis(1500) || number < 100 {
        send(&small_group(number)).await;
        (number, sent) = (number + 1, sent + 10);
        until("the group", || sink.count(0) == sent).await;
        let file = excerpt(engine, ExcerptPart::All).await.unwrap().unwrap().concat();
        let groups = (0..number).filter(|number| found(&file, &small_group(*number)[..1]) == 1).count();
        assert!(groups >= 10.min(number as usize), "{groups} of {number} groups are in the file");
        assert!(groups <= 60, "{groups} of {number} groups are in the file, which is more than the lap can hold");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[test]
fn stream_whose_upstream_keeps_up_has_several_groups_by_descriptor() {
    run(async {
        let LiveStream { sink, engine, encoder, .. } = live_by_descriptor().await;
        let encoder = tokio::sync::Mutex::new(encoder);
        has_several_groups(&sink, &engine, async |sent| encoder.lock().await.send(sent).await).await;
    });
}

#[test]
fn stream_whose_upstream_keeps_up_has_several_groups_by_link() {
    run(async {
        let LiveStream { sink, engine, encoder, activator, .. } = live_by_link().await;
        has_several_groups(&sink, &engine, async |sent| carry(&activator, &encoder.encode(sent)).await).await;
    });
}
