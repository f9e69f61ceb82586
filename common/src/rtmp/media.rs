//! The information in the first bytes of an audio, video or data message: keyframe, header that every later session needs, end of sequence.
//! In: the prefix of a payload. Out: an [`Inspection`], for the stream ring's index. Codecs are not parsed and need not be known.
//!
//! Legacy FLV (E.4.2.1, E.4.3.1) and Enhanced RTMP v1 and v2 (ex headers, FourCC, multitrack, ModEx chains).
//!
//! Note:
//! - The frame type of an ex header has three bits: the fourth says that it is one. nginx-rtmp masks it as four and never sees an
//!   HEVC keyframe.
//! - A sequence header has the frame type of a keyframe, and is none.
//! - OBS sends track 0 in legacy form and the others as multitrack: keyframes of all tracks come one after the other, so that only those
//!   of the lowest track are points to join at. Hence [`Inspection::track`].
//! - Some devices announce codecs that do not exist any more (DJI: audio 15, video 2). Frame types still mean what they say.

use serde::{Deserialize, Serialize};

use super::{amf0, type_id};

/// A prefix that suffices to inspect any honest message: multitrack behind ten timestamp modifiers.
pub const INSPECT_BYTES: usize = 64;

/// The kind of content of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Type 8.
    Audio,
    /// Type 9.
    Video,
    /// Data messages: metadata, cue points, and aggregates, which [`super::aggregate::split`] takes apart.
    Data,
}

/// The slot of a header that every new session needs before anything else. The order is the one to send them in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HeaderSlot {
    /// `onMetaData`, with or without `@setDataFrame`.
    Metadata,
    /// Audio sequence header.
    Audio {
        /// Track; 0 outside of multitrack; the first one of several.
        track: u8,
    },
    /// Enhanced RTMP v2: order of the audio channels.
    AudioChannels {
        /// Track, as in [`HeaderSlot::Audio`].
        track: u8,
    },
    /// Video sequence header.
    Video {
        /// Track, as in [`HeaderSlot::Audio`].
        track: u8,
    },
    /// Enhanced RTMP: colour information, in force until it is replaced.
    VideoMetadata {
        /// Track, as in [`HeaderSlot::Audio`].
        track: u8,
    },
}

/// The result of looking at a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Audio, video or data.
    pub kind: Kind,
    /// Track id of multitrack, the first of several; 0 without multitrack.
    pub track: u8,
    /// Video that can be decoded without earlier frames (and is not a header).
    pub keyframe: bool,
    /// Slot whose header this message replaces.
    pub header: Option<HeaderSlot>,
    /// The codec's end of sequence.
    pub end_of_sequence: bool,
}

impl Inspection {
    const fn plain(kind: Kind) -> Self {
        Self { kind, track: 0, keyframe: false, header: None, end_of_sequence: false }
    }

    /// True for audio or video proper: no header and no data.
    #[must_use]
    pub const fn is_frame(&self) -> bool {
        !matches!(self.kind, Kind::Data) && self.header.is_none()
    }
}

/// Looks at the first [`INSPECT_BYTES`] of a payload, or at all of it. A message that they do not identify counts as ordinary media.
#[must_use]
pub fn inspect(type_id: u8, prefix: &[u8]) -> Inspection {
    match type_id {
        type_id::AUDIO => audio(prefix),
        type_id::VIDEO => video(prefix),
        type_id::DATA_AMF0 => data(prefix),
        type_id::DATA_AMF3 => data(prefix.strip_prefix(&[0]).unwrap_or(prefix)),
        _ => Inspection::plain(Kind::Data),
    }
}

/// AAC is the only legacy audio codec with a header (E.4.2.1).
const LEGACY_AAC: u8 = 10;
/// Sound format that announces an ex header (Enhanced RTMP v2).
const EX_AUDIO: u8 = 9;
/// Legacy video codecs whose second byte is the packet type: AVC, and its copies for HEVC and AV1 by Chinese CDNs.
const LEGACY_PACKETED: [u8; 3] = [7, 12, 13];

const FRAME_KEY: u8 = 1;
const FRAME_COMMAND: u8 = 5;

mod packet {
    //! Packet types of Enhanced RTMP v2; where audio and video share a number, the name is shared.
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const SEQUENCE_END: u8 = 2;
    pub(super) const CODED_FRAMES_X: u8 = 3;
    /// Video: metadata. Audio: multichannel configuration.
    pub(super) const CONFIG: u8 = 4;
    /// Video: sequence start in MPEG-2 TS form. Audio: multitrack.
    pub(super) const MPEG2TS_SEQUENCE_START: u8 = 5;
    pub(super) const AUDIO_MULTITRACK: u8 = 5;
    pub(super) const VIDEO_MULTITRACK: u8 = 6;
    pub(super) const MODIFIER: u8 = 7;
}

fn audio(prefix: &[u8]) -> Inspection {
    let mut found = Inspection::plain(Kind::Audio);
    let Some(&first) = prefix.first() else { return found };
    match first >> 4 {
        LEGACY_AAC if prefix.get(1) == Some(&0) => found.header = Some(HeaderSlot::Audio { track: 0 }),
        EX_AUDIO => {
            let Some((packet, track)) = ex_packet(first & 0x0F, packet::AUDIO_MULTITRACK, &prefix[1..]) else {
                return found;
            };
            found.track = track;
            match packet {
                packet::SEQUENCE_START => found.header = Some(HeaderSlot::Audio { track }),
                packet::CONFIG => found.header = Some(HeaderSlot::AudioChannels { track }),
                packet::SEQUENCE_END => found.end_of_sequence = true,
                _ => {}
            }
        }
        _ => {}
    }
    found
}

fn video(prefix: &[u8]) -> Inspection {
    let mut found = Inspection::plain(Kind::Video);
    let Some(&first) = prefix.first() else { return found };
    if first & 0x80 == 0 {
        let key = first >> 4 == FRAME_KEY;
        if !LEGACY_PACKETED.contains(&(first & 0x0F)) {
            found.keyframe = key;
            return found;
        }
        match prefix.get(1) {
            _ if first >> 4 == FRAME_COMMAND => {}
            Some(0) => found.header = Some(HeaderSlot::Video { track: 0 }),
            Some(1) => found.keyframe = key,
            Some(2) => found.end_of_sequence = true,
            _ => {}
        }
        return found;
    }
    let frame = first >> 4 & 0x07;
    let Some((packet, track)) = ex_packet(first & 0x0F, packet::VIDEO_MULTITRACK, &prefix[1..]) else { return found };
    found.track = track;
    match packet {
        packet::CONFIG => found.header = Some(HeaderSlot::VideoMetadata { track }),
        // A command (seek, …) has one byte more and no media, whatever its packet type.
        _ if frame == FRAME_COMMAND => {}
        packet::SEQUENCE_START | packet::MPEG2TS_SEQUENCE_START => found.header = Some(HeaderSlot::Video { track }),
        packet::CODED_FRAMES | packet::CODED_FRAMES_X => found.keyframe = frame == FRAME_KEY,
        packet::SEQUENCE_END => found.end_of_sequence = true,
        _ => {}
    }
    found
}

/// The real packet type and the first track behind modifiers and the multitrack header. `None`: the prefix does not tell.
fn ex_packet(mut packet: u8, multitrack: u8, mut rest: &[u8]) -> Option<(u8, u8)> {
    while packet == packet::MODIFIER {
        let (&short, after) = rest.split_first()?;
        let (size, after) = match short {
            0xFF => {
                let (long, after) = after.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*long)) + 1, after)
            }
            short => (usize::from(short) + 1, after),
        };
        let (&kind_and_packet, after) = after.get(size..)?.split_first()?;
        packet = kind_and_packet & 0x0F;
        rest = after;
    }
    if packet != multitrack {
        return Some((packet, 0));
    }
    // Kind of multitrack and the real packet type; then the FourCC, once for all tracks or in front of each; then the track id.
    let (&kind_and_packet, rest) = rest.split_first()?;
    let track = *rest.get(4)?;
    Some((kind_and_packet & 0x0F, track))
}

fn data(prefix: &[u8]) -> Inspection {
    let mut found = Inspection::plain(Kind::Data);
    let mut name = amf0::leading_string(prefix);
    if let Some((b"@setDataFrame", used)) = name {
        name = amf0::leading_string(&prefix[used..]);
    }
    if let Some((b"onMetaData", _)) = name {
        found.header = Some(HeaderSlot::Metadata);
    }
    found
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod tests;
