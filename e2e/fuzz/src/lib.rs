//! What the fuzz targets do with their bytes. The ordinary tests do the same with the committed corpus (`common/tests/corpus.rs` includes this
//! file), so that a finding, once added to the corpus, stays found without a fuzzer.
//!
//! Run one from the top: `cargo +nightly fuzz run --fuzz-dir e2e/fuzz scanner -- -max_total_time=60`.

use liveedgecast_common::rtmp::{
    ChunkError, Ingest, IngestState, Ingested, MessageHeader, Scanned, aggregate, amf0, is_media, limits, media,
    message::{Command, Control},
    type_id,
};

/// Takes any bytes and panics if something is wrong with us.
pub type Target = fn(&[u8]);

/// Every target by its name, for the corpus.
pub const TARGETS: &[(&str, Target)] = &[("scanner", scanner), ("amf0", amf0), ("snapshot", snapshot)];

/// First byte: how the rest is cut. The rest: what a peer sends after the handshake.
///
/// However it is cut, and also through a saved state at each cut, the same messages come out; payloads are as long as announced; limits
/// hold; what is in the messages is looked into.
pub fn scanner(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = hear(stream, stream.len().max(1), false);
    let parts = hear(stream, usize::from(cut) + 1, true);
    assert_eq!(parts.error, whole.error);
    assert_eq!(parts.complete, whole.complete);
    for (header, payload) in &whole.complete {
        assert_eq!(payload.len(), header.length as usize);
        assert!(header.length <= limits::max_message(header.type_id));
        look_into(header, payload);
    }
}

/// What came out of a byte stream.
#[derive(Default)]
struct Heard {
    complete: Vec<(MessageHeader, Vec<u8>)>,
    open: Vec<(MessageHeader, Vec<u8>)>,
    error: Option<ChunkError>,
}

impl Heard {
    fn take(&mut self, ingested: Ingested, stream: &[u8]) {
        match ingested {
            Ingested::Message { header, payload } => {
                assert!(!is_media(header.type_id));
                self.complete.push((header, payload));
            }
            Ingested::Media(Scanned::Begin { header, .. }) => {
                assert!(is_media(header.type_id));
                assert!(self.open.iter().all(|(open, _)| open.csid != header.csid));
                self.open.push((header, Vec::new()));
                assert!(self.open.len() <= limits::MAX_CHUNK_STREAMS);
            }
            Ingested::Media(Scanned::Payload { csid, at, len, last }) => {
                let index =
                    self.open.iter().position(|(open, _)| open.csid == csid).expect("payload of an open message");
                let payload = &stream[at as usize..][..len as usize];
                self.open[index].1.extend_from_slice(payload);
                if last {
                    self.complete.push(self.open.remove(index));
                }
            }
            Ingested::Media(Scanned::Aborted { csid, missing }) => {
                let index = self.open.iter().position(|(open, _)| open.csid == csid).expect("an open message");
                let (header, payload) = self.open.remove(index);
                assert_eq!(payload.len() + missing as usize, header.length as usize);
            }
        }
    }
}

fn hear(stream: &[u8], step: usize, save: bool) -> Heard {
    let mut ingest = Ingest::new(0);
    let mut heard = Heard::default();
    let mut begun = None;
    let mut end = 0;
    while end < stream.len() {
        end = stream.len().min(end + step);
        loop {
            match ingest.next(&stream[ingest.position() as usize..end]) {
                Ok(Some(ingested)) => {
                    if let Ingested::Media(Scanned::Begin { at, .. }) = ingested {
                        begun = Some((ingested.clone(), at));
                    } else if matches!(ingested, Ingested::Message { .. }) {
                        begun = None;
                    }
                    heard.take(ingested, stream);
                }
                Ok(None) => break,
                Err(error) => {
                    heard.error = Some(error);
                    return heard;
                }
            }
        }
        if save {
            let mut before = Ingest::restore(&ingest.state_before_chunk()).expect("a state of ours is valid");
            // Unless a small message has begun since, which is not told, this is where the last media message begins.
            if let Some((message, at)) = begun.take().filter(|(_, at)| *at == before.position()) {
                assert!(before.next(&stream[at as usize..]).ok().flatten() == Some(message));
            }
            let saved = postcard::to_stdvec(&ingest.state()).expect("a state can be saved");
            let state: IngestState = postcard::from_bytes(&saved).expect("a saved state can be read");
            ingest = Ingest::restore(&state).expect("a state of ours is valid");
        }
    }
    heard
}

fn look_into(header: &MessageHeader, payload: &[u8]) {
    let prefix = &payload[..payload.len().min(media::INSPECT_BYTES)];
    let inspection = media::inspect(header.type_id, prefix);
    assert!(!(inspection.keyframe && inspection.header.is_some()));
    if header.type_id == type_id::AGGREGATE {
        for sub in aggregate::split(header, payload).flatten() {
            assert_eq!(payload[sub.payload].len(), sub.header.length as usize);
        }
    }
    let _ = Control::parse(header.type_id, payload);
    let _ = Command::parse(header.type_id, payload);
}

/// A payload of AMF0. What can be read can be written and is then read as the same.
pub fn amf0(data: &[u8]) {
    if let Ok(values) = amf0::read_all(data) {
        let mut written = Vec::new();
        values.iter().for_each(|value| amf0::write(&mut written, value));
        let again = amf0::read_all(&written).expect("what we write can be read");
        let mut rewritten = Vec::new();
        again.iter().for_each(|value| amf0::write(&mut rewritten, value));
        assert_eq!(written, rewritten);
    }
    for type_id in [type_id::COMMAND_AMF0, type_id::COMMAND_AMF3] {
        if let Ok(command) = Command::parse(type_id, data) {
            // The Debug form must not fail, nor show arguments.
            let _ = format!("{command:?}");
            assert!(Command::parse(type_id::COMMAND_AMF0, &command.encode()).is_ok());
        }
    }
    for type_id in 0..=type_id::SET_PEER_BANDWIDTH {
        if let Ok(control) = Control::parse(type_id, data) {
            assert!(Control::parse(type_id, &control.payload()).as_ref() == Ok(&control));
        }
    }
    for type_id in [type_id::AUDIO, type_id::VIDEO, type_id::DATA_AMF3, type_id::DATA_AMF0] {
        let prefix = &data[..data.len().min(media::INSPECT_BYTES)];
        let _ = media::inspect(type_id, prefix);
    }
}

/// Two bytes: how long the first part is. First part: the reader's state as somebody may have left it in a shared page. The rest: the bytes
/// that follow. What is accepted behaves, and leaves only states that are accepted again.
pub fn snapshot(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((saved, stream)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else { return };
    let Ok(state) = postcard::from_bytes::<IngestState>(saved) else { return };
    let Ok(mut ingest) = Ingest::restore(&state) else { return };
    assert!(ingest.state() == state);
    let start = ingest.position();
    while let Ok(Some(ingested)) = ingest.next(&stream[(ingest.position() - start) as usize..]) {
        if let Ingested::Media(Scanned::Payload { at, len, .. }) = ingested {
            assert!((at - start) as usize + len as usize <= stream.len());
        }
        assert!(Ingest::restore(&ingest.state()).is_ok());
        assert!(Ingest::restore(&ingest.state_before_chunk()).is_ok());
    }
}
