//! The messages of one side of an RTMP connection. In: bytes, as they arrive. Out: a [`Recording`], to compare with another one or to give
//! to a decoder. Next: [`crate::compare`].

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use liveedgecast_common::rtmp::media::{Inspection, inspect};
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::{ChunkError, Ingest, Ingested, MessageHeader, Scanned, type_id};

/// C0, C1 and C2, or S0, S1 and S2.
pub const HANDSHAKE: usize = 1 + 1536 + 1536;

/// `@setDataFrame` as an AMF0 string, which publishers put in front of metadata.
const SET_DATA_FRAME: &[u8] = b"\x02\0\x0d@setDataFrame";

/// An audio, video or data message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Milliseconds.
    pub timestamp: u32,
    /// 8, 9, 15 or 18.
    pub type_id: u8,
    /// The whole payload.
    pub payload: Bytes,
    /// Time at which the last byte arrived.
    pub at: Instant,
}

impl Message {
    /// The media kind and header of the payload.
    #[must_use]
    pub fn inspection(&self) -> Inspection {
        inspect(self.type_id, &self.payload)
    }

    /// True if the message is metadata or a sequence header.
    #[must_use]
    pub fn is_header(&self) -> bool {
        self.inspection().header.is_some()
    }

    /// True if the message is video that can be decoded without earlier messages.
    #[must_use]
    pub fn is_keyframe(&self) -> bool {
        self.inspection().keyframe
    }

    /// True if the message is video and no header.
    #[must_use]
    pub fn is_frame(&self) -> bool {
        self.type_id == type_id::VIDEO && !self.is_header()
    }

    /// True if type and bytes are the same.
    #[must_use]
    pub fn carries_the_same_as(&self, other: &Self) -> bool {
        self.type_id == other.type_id && self.payload == other.payload
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = match self.type_id {
            type_id::AUDIO => "audio",
            type_id::VIDEO => "video",
            _ => "data",
        };
        let is = if self.is_header() {
            " header"
        } else if self.is_keyframe() {
            " keyframe"
        } else {
            ""
        };
        let begins: String = self.payload.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        write!(f, "{sort}{is} at {} ms, {} bytes {begins}…", self.timestamp, self.payload.len())
    }
}

/// The messages and bytes of one side of a connection.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Audio, video and data, in the order in which they became complete.
    pub media: Vec<Message>,
    /// Commands, with the time of their last byte.
    pub commands: Vec<(Instant, Command)>,
    /// Protocol and user control messages.
    pub controls: Vec<(Instant, Control)>,
    /// Bytes, including the handshake.
    pub bytes: u64,
    /// The error at which reading stopped; nothing behind it was read.
    pub broken: Option<ChunkError>,
}

impl Recording {
    /// Arrival of the first command of this name.
    #[must_use]
    pub fn command_at(&self, name: &str) -> Option<Instant> {
        self.commands.iter().find(|(_, command)| command.name == name).map(|(at, _)| *at)
    }

    /// The codes of all `onStatus`, with their times.
    #[must_use]
    pub fn statuses(&self) -> Vec<(Instant, String)> {
        let statuses = self.commands.iter().filter(|(_, command)| command.name == "onStatus");
        let code = |command: &Command| command.argument(0)?.property("code")?.as_str().map(str::to_owned);
        statuses.filter_map(|(at, command)| Some((*at, code(command)?))).collect()
    }

    /// Arrival of `NetStream.Publish.Start`.
    #[must_use]
    pub fn started_at(&self) -> Option<Instant> {
        self.statuses().into_iter().find(|(_, code)| code == "NetStream.Publish.Start").map(|(at, _)| at)
    }

    /// Number of messages that are no headers.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.media.iter().filter(|message| !message.is_header()).count()
    }

    /// Number of keyframes.
    #[must_use]
    pub fn keyframes(&self) -> usize {
        self.media.iter().filter(|message| message.is_keyframe()).count()
    }
}

/// Reads one side of a connection.
#[derive(Debug)]
pub struct Recorder {
    /// Bytes of the handshake that are still to come.
    handshake: usize,
    ingest: Ingest,
    /// Bytes that the ingest has not used yet.
    unread: Vec<u8>,
    open: Vec<(MessageHeader, Vec<u8>)>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { handshake: HANDSHAKE, ingest: Ingest::new(HANDSHAKE as u64), unread: Vec::new(), open: Vec::new() }
    }
}

impl Recorder {
    /// Reads the next bytes and adds the messages that they complete to `recording`.
    pub fn read(&mut self, now: Instant, bytes: &[u8], recording: &mut Recording) {
        recording.bytes += bytes.len() as u64;
        let skipped = self.handshake.min(bytes.len());
        self.handshake -= skipped;
        if recording.broken.is_some() {
            return;
        }
        self.unread.extend_from_slice(&bytes[skipped..]);
        let start = self.ingest.position();
        loop {
            let used = (self.ingest.position() - start) as usize;
            match self.ingest.next(&self.unread[used..]) {
                Ok(Some(Ingested::Media(Scanned::Begin { header, .. }))) => self.open.push((header, Vec::new())),
                Ok(Some(Ingested::Media(Scanned::Payload { csid, at, len, last }))) => {
                    let from = (at - start) as usize;
                    let payload = &self.unread[from..from + len as usize];
                    let Some(index) = self.open.iter().position(|(header, _)| header.csid == csid) else { continue };
                    self.open[index].1.extend_from_slice(payload);
                    if last {
                        let (header, payload) = self.open.remove(index);
                        let MessageHeader { timestamp, type_id, .. } = header;
                        recording.media.push(Message { timestamp, type_id, payload: payload.into(), at: now });
                    }
                }
                Ok(Some(Ingested::Media(Scanned::Aborted { csid, .. }))) => {
                    self.open.retain(|(header, _)| header.csid != csid);
                }
                Ok(Some(Ingested::Message { header, payload })) => {
                    if let Ok(command) = Command::parse(header.type_id, &payload) {
                        recording.commands.push((now, command));
                    } else if let Ok(control) = Control::parse(header.type_id, &payload) {
                        recording.controls.push((now, control));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    recording.broken = Some(error);
                    break;
                }
            }
        }
        let used = (self.ingest.position() - start) as usize;
        self.unread.drain(..used);
    }
}

/// The messages as an FLV file that begins at 0, for a decoder. Data messages are left out: ffmpeg does not need them.
#[must_use]
pub fn flv(media: &[Message]) -> Vec<u8> {
    let first = media.first().map_or(0, |message| message.timestamp);
    let needed = media.iter().filter(|message| matches!(message.type_id, type_id::AUDIO | type_id::VIDEO));
    file(needed, first)
}

/// The messages at their own timestamps as an FLV file, as a server writes it: without `@setDataFrame` in front of metadata.
#[must_use]
pub fn flv_of_session(session: &[Message]) -> Vec<u8> {
    let plain = |message: &Message| match message.payload.strip_prefix(SET_DATA_FRAME) {
        Some(metadata) => Message { payload: message.payload.slice_ref(metadata), ..message.clone() },
        None => message.clone(),
    };
    let session: Vec<Message> = session.iter().map(plain).collect();
    file(session.iter(), 0)
}

fn file<'a>(media: impl Iterator<Item = &'a Message>, first: u32) -> Vec<u8> {
    let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for message in media {
        let length = (message.payload.len() as u32).to_be_bytes();
        let time = message.timestamp.wrapping_sub(first).to_be_bytes();
        file.push(message.type_id);
        file.extend_from_slice(&length[1..]);
        file.extend_from_slice(&[time[1], time[2], time[3], time[0], 0, 0, 0]);
        file.extend_from_slice(&message.payload);
        file.extend_from_slice(&(message.payload.len() as u32 + 11).to_be_bytes());
    }
    file
}

/// Reads the messages of an FLV file, up to the first incomplete one.
#[must_use]
pub fn read_flv(file: &[u8], at: Instant) -> Vec<Message> {
    let mut media = Vec::new();
    let mut rest = file.get(13..).unwrap_or_default();
    while let Some((head, tail)) = rest.split_first_chunk::<11>() {
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let Some(payload) = tail.get(..length) else { break };
        let timestamp = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        media.push(Message { timestamp, type_id: head[0], payload: Bytes::copy_from_slice(payload), at });
        // The length of the tag stands behind it once more.
        rest = tail.get(length + 4..).unwrap_or_default();
    }
    media
}
