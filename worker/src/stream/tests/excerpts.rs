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
