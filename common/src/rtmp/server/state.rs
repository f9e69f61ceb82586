//! A session as data. In: the state of [`super`]. Out: a part of every snapshot, and back, trusting nothing: any process may have written
//! to the page that it comes from.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::ingest::IngestState;
use super::super::limits::{
    ANSWER_CREDIT, MAX_APP_TEXT, MAX_CHUNK_STREAMS, MAX_COMMANDS_BEFORE_PUBLISH, MAX_CONNECT_TEXT, MAX_MESSAGE_STREAMS,
    MAX_OUTPUT, MAX_STATUS_TEXT,
};
use super::super::{MessageHeader, is_media};
use super::{ConnectInfo, Dropped, PublishRequest, SessionError};
use crate::key::StreamKey;

/// The states in the picture of [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum SessionPhase {
    New,
    Connected,
    Held,
    Started,
    Ended,
}

/// The state of a session beside its chunk streams. Cheap to copy: it is copied whenever a message begins after a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) phase: SessionPhase,
    /// True once `Publish.Start` has been queued, ended or not.
    pub(super) started: bool,
    #[serde(with = "shared")]
    pub(super) connect: Option<Arc<ConnectInfo>>,
    #[serde(with = "shared")]
    pub(super) publish: Option<Arc<PublishRequest>>,
    /// Commands before `publish`.
    pub(super) commands: u32,
    /// Message streams created; the last one's id.
    pub(super) streams: u32,
    /// Window of the peer; 0: it named none.
    pub(super) window: u32,
    /// Position in the last acknowledgement.
    pub(super) acknowledged: u64,
    /// Position up to which the peer's bytes have paid for answers; at most [`ANSWER_CREDIT`] beyond the current one.
    pub(super) answered: u64,
    pub(super) dropped: Dropped,
    /// Chunk streams whose open message is dropped.
    pub(super) dropping: Vec<u32>,
}

/// Holds `Arc`s, which are serialised as their content.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Option<Arc<T>>, to: S) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(to)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Arc<T>>, D::Error> {
        Ok(Option::<T>::deserialize(from)?.map(Arc::new))
    }
}

/// The whole state of a [`super::ServerSession`], as data: a part of every snapshot. Comes back through [`super::ServerSession::restore`],
/// which trusts nothing. `Debug` shows no secret of it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerSessionState {
    pub(super) ingest: IngestState,
    pub(super) facts: Facts,
    /// Output that was not taken yet.
    pub(super) output: Vec<u8>,
}

impl ServerSessionState {
    /// Position of the next byte, counted from the start of the connection.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.ingest.position()
    }

    /// The state with this output: bytes that the publisher has not been sent when the state is handed on.
    pub fn set_output(&mut self, output: Vec<u8>) {
        self.output = output;
    }

    /// Headers of the incomplete media messages of the published stream, with the number of bytes received of each.
    pub fn open_media(&self) -> impl Iterator<Item = (MessageHeader, u32)> + '_ {
        let media = self.ingest.open().filter(|(header, _)| is_media(header.type_id));
        media.filter(|(header, _)| !self.facts.dropping.contains(&header.csid))
    }
}

impl fmt::Debug for ServerSessionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerSessionState")
            .field("position", &self.position())
            .field("open_messages", &self.ingest.open_messages())
            .field("facts", &self.facts)
            .field("output", &self.output.len())
            .finish()
    }
}

/// Checks that a session can have been in that state; its chunk streams have been checked already.
pub(super) fn validate(state: &ServerSessionState) -> Result<(), SessionError> {
    let check = |good: bool, what: &'static str| if good { Ok(()) } else { Err(SessionError::State(what)) };
    let facts = &state.facts;
    let position = state.position();
    check(facts.connect.is_some() == (facts.phase > SessionPhase::New), "connect")?;
    check(facts.publish.is_some() == (facts.phase > SessionPhase::Connected), "publish")?;
    let started = match facts.phase {
        SessionPhase::New | SessionPhase::Connected | SessionPhase::Held => !facts.started,
        SessionPhase::Started => facts.started,
        SessionPhase::Ended => true,
    };
    check(started, "start")?;
    if let Some(connect) = &facts.connect {
        let texts = [&connect.tc_url, &connect.flash_ver, &connect.swf_url, &connect.page_url];
        check(connect.app.len() <= MAX_APP_TEXT, "app")?;
        check(texts.iter().all(|text| text.len() <= MAX_CONNECT_TEXT), "text of connect")?;
    }
    if let Some(publish) = &facts.publish {
        check(StreamKey::parse(publish.key.expose()).is_ok(), "stream key")?;
        check(publish.kind.len() <= MAX_STATUS_TEXT, "type of the publish")?;
        check(publish.transaction.is_finite(), "transaction")?;
    }
    check(facts.commands <= MAX_COMMANDS_BEFORE_PUBLISH, "number of commands")?;
    check(facts.streams <= MAX_MESSAGE_STREAMS, "number of message streams")?;
    check(facts.acknowledged <= position, "acknowledged position")?;
    check(facts.answered <= position + ANSWER_CREDIT, "credit for answers")?;
    check(facts.dropping.len() <= MAX_CHUNK_STREAMS, "number of dropped messages")?;
    for (index, csid) in facts.dropping.iter().enumerate() {
        let open = state.ingest.open().any(|(header, _)| header.csid == *csid && is_media(header.type_id));
        check(open && !facts.dropping[..index].contains(csid), "dropped message")?;
    }
    if facts.phase < SessionPhase::Held {
        let mut media = state.ingest.open().filter(|(header, _)| is_media(header.type_id));
        check(media.all(|(header, _)| facts.dropping.contains(&header.csid)), "media of no publish")?;
    }
    check(state.output.len() <= 2 * MAX_OUTPUT, "output")?;
    Ok(())
}
