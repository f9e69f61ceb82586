//! An FLV file (Video File Format Specification 10.1, annex E) of a publisher's bytes. In: a snapshot and the bytes behind it, in pieces. Out: the
//! file, from a keyframe on. Pure. Memory: twice [`MOST_KEPT`] bytes of media, and a message that is not complete.
//!
//! The bytes are understood as a worker's successor understands them, by a session that begins at the snapshot. A file begins with the headers in
//! force at its first frame: those of the snapshot, as later ones have replaced them.

use liveedgecast_common::handoff::{OpenMessage, Snapshot, StoredHeader};
use liveedgecast_common::rtmp::media::{HeaderSlot, Kind, inspect};
use liveedgecast_common::rtmp::server::{Event, ServerSession};
use liveedgecast_common::rtmp::{MessageHeader, Scanned, aggregate, flv, type_id};

/// Bytes of media in a file at most: a group of pictures of 16 Mbit/s and 4 s. Where more are kept, whole groups at the beginning are left out.
const MOST_KEPT: usize = 8 << 20;
/// Bytes that a message counts besides its payload: those of its [`KeptMessage`], and of its tag. A message of one byte on the wire has them, too.
const PER_MESSAGE: usize = 96;

/// The part of what is kept that goes into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As much as there is, from a keyframe on.
    All,
    /// The last keyframe alone, with its headers.
    LastKeyframe,
}

/// A message of the stream.
#[derive(Debug)]
struct KeptMessage {
    type_id: u8,
    timestamp: u32,
    payload: Vec<u8>,
    /// A picture that the file may begin with.
    keyframe: bool,
    header: Option<HeaderSlot>,
}

/// A file that is being made.
#[derive(Debug)]
pub(super) struct FlvExcerpt {
    session: ServerSession,
    extent: Extent,
    /// Bytes that the session wants again, with more behind them.
    unread: Vec<u8>,
    open: Vec<(MessageHeader, Vec<u8>)>,
    /// Headers in force before the first of `messages`.
    headers: Vec<KeptMessage>,
    messages: Vec<KeptMessage>,
    /// Bytes that `messages` count: payloads, and [`PER_MESSAGE`] for each.
    kept: usize,
    /// Lowest track of the video so far: only its keyframes are points to begin at.
    track: Option<u8>,
    /// Sound has come.
    heard: bool,
    /// Video came before the snapshot.
    seen: bool,
    over: bool,
}

impl FlvExcerpt {
    /// A file that begins behind this snapshot; `None` if the snapshot is of no live stream.
    pub(super) fn new(snapshot: &Snapshot, extent: Extent) -> Option<Self> {
        let session = ServerSession::restore(&snapshot.session).ok()?;
        let stream = snapshot.stream.as_ref();
        let stored = |header: &StoredHeader| KeptMessage {
            type_id: header.type_id,
            timestamp: header.timestamp,
            payload: header.payload.clone(),
            keyframe: false,
            header: Some(header.slot),
        };
        let headers = stream.map(|stream| stream.headers.iter().map(stored).collect()).unwrap_or_default();
        let received = |csid: u32| -> Option<&OpenMessage> {
            stream.and_then(|stream| stream.open.iter().find(|open| open.csid == csid))
        };
        let open = snapshot.session.open_media().filter_map(|(header, length)| {
            let bytes = received(header.csid).map(|open| open.received.clone()).unwrap_or_default();
            (bytes.len() == length as usize).then_some((header, bytes))
        });
        let open = open.collect();
        let mut this = Self {
            session,
            extent,
            unread: Vec::new(),
            open,
            headers,
            messages: Vec::new(),
            kept: 0,
            track: None,
            heard: false,
            seen: stream.is_some_and(|stream| stream.last_timestamp.video.is_some()),
            over: false,
        };
        this.track = this.headers.iter().filter_map(|header| video_track(header.header)).min();
        Some(this)
    }

    /// Takes the next bytes; false when the file takes no more.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        self.unread.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.unread);
        let start = self.session.position();
        let mut used = 0;
        while !self.over {
            let before = self.session.position() - start;
            let event = match self.session.next(&input[used..]) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                // The publisher has sent something else than RTMP: the file ends before it.
                Err(_) => {
                    self.over = true;
                    break;
                }
            };
            let first = start + before;
            match event {
                Event::Media(Scanned::Begin { header, .. }) => {
                    self.open.retain(|(open, _)| open.csid != header.csid);
                    self.open.push((header, Vec::new()));
                }
                Event::Media(Scanned::Payload { csid, at, len, last }) => {
                    let from = used + (at - first) as usize;
                    self.received(csid, &input[from..from + len as usize], last);
                }
                Event::Media(Scanned::Aborted { csid, .. }) => self.open.retain(|(open, _)| open.csid != csid),
                Event::Ended(_) => self.over = true,
                Event::Connected | Event::Publish | Event::Pong(_) => {}
            }
            used = (self.session.position() - start) as usize;
        }
        used = (self.session.position() - start) as usize;
        // Answers to the publisher: another process gives them.
        drop(self.session.take_output());
        self.unread.extend_from_slice(input.get(used..).unwrap_or_default());
        !self.over
    }

    fn received(&mut self, csid: u32, bytes: &[u8], last: bool) {
        let Some(at) = self.open.iter().position(|(open, _)| open.csid == csid) else { return };
        self.open[at].1.extend_from_slice(bytes);
        if !last {
            return;
        }
        let (header, payload) = self.open.swap_remove(at);
        if header.type_id != type_id::AGGREGATE {
            return self.complete(header.type_id, header.timestamp, payload);
        }
        for part in aggregate::split(&header, &payload).map_while(Result::ok) {
            self.complete(part.header.type_id, part.header.timestamp, payload[part.payload].to_vec());
        }
    }

    fn complete(&mut self, type_id: u8, timestamp: u32, payload: Vec<u8>) {
        let found = inspect(type_id, &payload);
        if found.kind == Kind::Video {
            self.track = Some(self.track.map_or(found.track, |track| track.min(found.track)));
        }
        let keyframe = found.keyframe && self.track == Some(found.track);
        self.heard |= found.kind == Kind::Audio;
        let message = KeptMessage { type_id, timestamp, payload, keyframe, header: found.header };
        let counted = message.payload.len() + PER_MESSAGE;
        if keyframe && (self.extent == Extent::LastKeyframe || self.kept + counted > MOST_KEPT) {
            self.begin_anew();
        }
        if self.extent == Extent::LastKeyframe && message.header.is_none() && !keyframe {
            return;
        }
        self.kept += counted;
        if self.kept > 2 * MOST_KEPT {
            self.over = true;
            return;
        }
        self.messages.push(message);
    }

    /// Leaves out all messages so far, but for the headers among them.
    fn begin_anew(&mut self) {
        self.kept = 0;
        for message in std::mem::take(&mut self.messages) {
            self.take_header(message);
        }
    }

    fn take_header(&mut self, message: KeptMessage) {
        if message.header.is_some() {
            self.headers.retain(|header| header.header != message.header);
            self.headers.push(message);
        }
    }

    /// Returns whether sound has come, and no video.
    pub(super) fn is_sound_alone(&self) -> bool {
        self.heard && !self.seen && self.track.is_none()
    }

    /// The file; `None` if it could begin with nothing.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        // A stream without video begins anywhere.
        let begins = |message: &KeptMessage| match self.track {
            Some(_) => message.keyframe,
            None => self.extent == Extent::All && message.header.is_none() && message.type_id == type_id::AUDIO,
        };
        let first = self.messages.iter().position(begins)?;
        for message in self.messages.drain(..first).collect::<Vec<_>>() {
            self.take_header(message);
        }
        if self.extent == Extent::LastKeyframe {
            self.headers.retain(|header| header.type_id != type_id::AUDIO);
        }
        self.headers.sort_by_key(|message| message.header);
        let origin = self.messages.first().map_or(0, |message| message.timestamp);
        let has = |kind: u8| self.headers.iter().chain(&self.messages).any(|message| message.type_id == kind);
        let mut file = Vec::with_capacity(self.kept + 20 * self.headers.len() + 64);
        file.extend_from_slice(&flv::file_head(has(type_id::AUDIO), has(type_id::VIDEO)));
        for header in &self.headers {
            tag(&mut file, 0, header);
        }
        for message in &self.messages {
            let since = message.timestamp.wrapping_sub(origin);
            // Sound that belongs before the first picture.
            if since <= u32::MAX / 2 || message.header.is_some() {
                tag(&mut file, if since <= u32::MAX / 2 { since } else { 0 }, message);
            }
        }
        Some(file)
    }
}

fn video_track(slot: Option<HeaderSlot>) -> Option<u8> {
    match slot? {
        HeaderSlot::Video { track } | HeaderSlot::VideoMetadata { track } => Some(track),
        HeaderSlot::Metadata | HeaderSlot::Audio { .. } | HeaderSlot::AudioChannels { .. } => None,
    }
}

/// Appends a tag and its back pointer.
fn tag(file: &mut Vec<u8>, timestamp: u32, message: &KeptMessage) {
    let payload = flv::tag_payload(message.type_id, &message.payload);
    let length = payload.len() as u32;
    file.extend_from_slice(&flv::tag_head(message.type_id, timestamp, length));
    file.extend_from_slice(payload);
    file.extend_from_slice(&flv::back_pointer(length));
}

#[cfg(test)]
#[path = "flv_tests.rs"]
pub(super) mod tests;
