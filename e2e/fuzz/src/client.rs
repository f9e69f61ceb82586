//! The fuzz target of an RTMP client session. In: answers of an upstream.

use liveedgecast_common::key::StreamKey;
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession, Stage};
use liveedgecast_common::rtmp::handshake::HANDSHAKE_BYTES;
use liveedgecast_common::rtmp::message::Command;
use liveedgecast_common::rtmp::{Ingest, Ingested};
use liveedgecast_common::url::{PushTemplate, PushUrl};

/// First byte: the size of the pieces. The rest: bytes of an upstream after a plain handshake.
///
/// Every size of pieces gives the same result; the session's output can be parsed and stays short; nothing shown contains the key.
pub fn client(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = publish(stream, stream.len().max(1));
    let parts = publish(stream, usize::from(cut) + 1);
    assert_eq!(parts, whole);
}

/// Result of a session towards an upstream.
#[derive(Debug, Default, PartialEq)]
struct Published {
    events: Vec<ClientEvent>,
    /// Commands that the session sent; its answers to the upstream depend on the moment of asking.
    commands: Vec<Vec<u8>>,
    broken: bool,
    stage: Option<Stage>,
    message_stream: u32,
}

const FUZZ_KEY: &str = "KEY-OF-THE-STREAM?token=TOKEN-OF-THE-STREAM";

fn publish(stream: &[u8], step: usize) -> Published {
    let key = StreamKey::parse(FUZZ_KEY).expect("a key");
    let template = PushTemplate::parse("rtmp://upstream.example/live/{key}").expect("a URL");
    let url: PushUrl = template.resolve("app", &key).expect("a URL");
    let mut session = ClientSession::new(&url, None);
    session.start();
    let mut greeting = vec![0; HANDSHAKE_BYTES as usize];
    greeting[0] = 3;
    session.handle(&greeting).expect("a plain handshake");
    // C0, C1 and C2.
    let mut output = session.take_output().split_off(HANDSHAKE_BYTES as usize);
    let mut published = Published::default();
    for part in stream.chunks(step) {
        published.broken = session.handle(part).is_err();
        let said = session.take_output();
        // Commands are few; answers are bounded by the queue, which is emptied here.
        assert!(said.len() < 16 << 10);
        output.extend(said);
        while let Some(event) = session.poll_event() {
            let shown = format!("{event:?} {session:?}");
            // Parts of the key and the token are no secret: anyone can compose them.
            assert!(!shown.contains("KEY-OF-THE-STREAM") && !shown.contains("TOKEN-OF-THE-STREAM"), "{shown}");
            if !matches!(event, ClientEvent::Acknowledged(_)) {
                published.events.push(event);
            }
        }
        if published.broken {
            break;
        }
    }
    published.stage = Some(session.stage());
    published.message_stream = session.message_stream();
    assert!(!matches!(session.stage(), Stage::Publish | Stage::Live) || session.message_stream() > 0);
    session.end();
    output.extend(session.take_output());
    let mut ingest = Ingest::new(0);
    while let Some(ingested) = ingest.next(&output[ingest.position() as usize..]).expect("we write chunks") {
        let Ingested::Message { header, payload } = ingested else { panic!("we send no media") };
        let ours = |command: &Command| !matches!(command.name.as_str(), "_result");
        if Command::parse(header.type_id, &payload).is_ok_and(|command| ours(&command)) {
            published.commands.push(payload);
        }
    }
    assert_eq!((ingest.position() as usize, ingest.open_messages()), (output.len(), 0));
    published
}
