//! The description of a stream for people: codecs, size, frame rate. In: the headers that every session begins with. Out: a
//! [`MediaDescription`]. Nothing is decided by it, so a header that cannot be read leaves its part unknown.
//!
//! The size is that of the video's own header (AVC: ISO 14496-10, 7.3.2.1.1; HEVC: ITU-T H.265, 7.3.2.2), where one of these codecs is used, and
//! else that of `onMetaData`. Note: encoders that change their size while live send a new header and often no new metadata.

use super::amf0::{self, Value};
use super::media::HeaderSlot;
use super::type_id;

/// Largest width, height or frame rate that is believed.
const MOST: f64 = 65_535.0;
/// Bytes of a parameter set that are read: real ones have some 30 to 100.
const MAX_PARAMETERS: usize = 1024;

/// Codecs and figures of a stream; empty and 0 where they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaDescription {
    /// Video codec: `h264`, `h265`, `av1`, `vp9` or another word in lower case.
    pub video: &'static str,
    /// Audio codec: `aac`, `opus`, `mp3` or another word in lower case.
    pub audio: &'static str,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Pictures in 1000 seconds, by the publisher's word.
    pub frame_rate: u32,
    /// Profile, constraint flags and level of H.264, as its header has them (ISO 14496-15, 5.3.3.1.2): 100, 0 and 31 are High at level 3.1.
    pub profile: [u8; 3],
    /// Object type of AAC (ISO 14496-3, 1.5.1.1): 2 is LC.
    pub object_type: u8,
    /// Channels of the audio.
    pub channels: u8,
    /// Samples of a channel in a second.
    pub sample_rate: u32,
}

impl MediaDescription {
    /// The description that follows from these headers: slot, message type and payload of each.
    #[must_use]
    pub fn of<'a>(headers: impl IntoIterator<Item = (HeaderSlot, u8, &'a [u8])>) -> Self {
        let (mut metadata, mut own) = (Self::default(), Self::default());
        for (slot, type_id, payload) in headers {
            match slot {
                HeaderSlot::Metadata => metadata = of_metadata(type_id, payload),
                // The first of several tracks is described.
                HeaderSlot::Video { .. } if own.video.is_empty() => {
                    let (video, record) = video(payload);
                    own.video = video;
                    (own.width, own.height) = record.and_then(|record| size(video, record)).unwrap_or_default();
                    own.profile = record.and_then(|record| avc_profile(video, record)).unwrap_or_default();
                }
                HeaderSlot::Audio { .. } if own.audio.is_empty() => {
                    let (audio, format) = audio(payload);
                    own.audio = audio;
                    (own.object_type, own.channels, own.sample_rate) = format.unwrap_or_default();
                }
                _ => {}
            }
        }
        let has_size = own.width > 0 && own.height > 0;
        Self {
            video: if own.video.is_empty() { metadata.video } else { own.video },
            audio: if own.audio.is_empty() { metadata.audio } else { own.audio },
            width: if has_size { own.width } else { metadata.width },
            height: if has_size { own.height } else { metadata.height },
            frame_rate: metadata.frame_rate,
            ..own
        }
    }
}

/// A codec whose sound has no header: its word, channels, samples of a channel in a second (0: not told).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainAudio {
    /// As in [`MediaDescription::audio`].
    pub codec: &'static str,
    /// Channels.
    pub channels: u8,
    /// Samples of a channel in a second.
    pub sample_rate: u32,
}

/// The format that the first bytes of a frame of sound tell; `None` for codecs that have a header, and for those that are not known.
///
/// Note: the first byte knows four rates, so that MP3 of 48 kHz is said to have 44.1. The head of its own frame follows and tells the truth.
#[must_use]
pub fn plain_audio(payload: &[u8]) -> Option<PlainAudio> {
    const FIXED_AT_8000: [u8; 3] = [7, 8, 14];
    let (&first, frame) = payload.split_first()?;
    let codec = match first >> 4 {
        9 | 10 => return None,
        format => Some(legacy_audio(format)).filter(|codec| !codec.is_empty())?,
    };
    let sample_rate = if FIXED_AT_8000.contains(&(first >> 4)) { 8000 } else { 44_100 >> (3 - (first >> 2 & 3)) };
    let told = PlainAudio { codec, channels: 1 + (first & 1), sample_rate };
    Some(match first >> 4 {
        2 | 14 => mpeg_audio(frame).map_or(told, |(channels, sample_rate)| PlainAudio { codec, channels, sample_rate }),
        // E.4.2.1: mono, whatever the flags say.
        4 | 11 => PlainAudio { codec, channels: 1, sample_rate: 16_000 },
        5 => PlainAudio { codec, channels: 1, sample_rate: 8000 },
        _ => told,
    })
}

/// Channels and rate in the head of a frame of MPEG audio (ISO 11172-3, 2.4.1.3; ISO 13818-3 has the lower rates).
fn mpeg_audio(frame: &[u8]) -> Option<(u8, u32)> {
    const RATES: [u32; 3] = [44_100, 48_000, 32_000];
    let head = frame.first_chunk::<4>()?;
    if head[0] != 0xFF || head[1] & 0xE0 != 0xE0 {
        return None;
    }
    let rate = RATES.get(usize::from(head[2] >> 2 & 3))?;
    let rate = match head[1] >> 3 & 3 {
        3 => *rate,
        2 => rate / 2,
        0 => rate / 4,
        _ => return None,
    };
    Some((if head[3] >> 6 == 3 { 1 } else { 2 }, rate))
}

fn of_metadata(type_id: u8, payload: &[u8]) -> MediaDescription {
    let payload = if type_id == type_id::DATA_AMF3 { payload.strip_prefix(&[0]).unwrap_or(payload) } else { payload };
    let values = amf0::read_all(payload).unwrap_or_default();
    let Some(object) = values.iter().find(|value| !value.properties().is_empty()) else {
        return MediaDescription::default();
    };
    let number =
        |name: &str| object.property(name).and_then(Value::as_f64).filter(|number| (0.0..=MOST).contains(number));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds, and not negative")]
    let whole = |name: &str, times: f64| (number(name).unwrap_or_default() * times).round() as u32;
    let codec = |name: &str, legacy: fn(u8) -> &'static str| match object.property(name) {
        Some(Value::String(text)) => text.as_bytes().try_into().map_or("", four_cc),
        Some(value) => match value.as_f64() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
            Some(number) if (0.0..256.0).contains(&number) => legacy(number as u8),
            // Enhanced RTMP: the FourCC as a number.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
            Some(number) if (256.0..=f64::from(u32::MAX)).contains(&number) => four_cc((number as u32).to_be_bytes()),
            _ => "",
        },
        None => "",
    };
    MediaDescription {
        video: codec("videocodecid", legacy_video),
        audio: codec("audiocodecid", legacy_audio),
        width: whole("width", 1.0),
        height: whole("height", 1.0),
        frame_rate: whole("framerate", 1000.0),
        ..MediaDescription::default()
    }
}

/// Codec ids of legacy FLV (E.4.3.1), and the inventions of CDNs beside them.
fn legacy_video(id: u8) -> &'static str {
    match id {
        2 => "h263",
        3 | 6 => "screen",
        4 | 5 => "vp6",
        7 => "h264",
        12 => "h265",
        13 => "av1",
        _ => "",
    }
}

/// Sound formats of legacy FLV (E.4.2.1).
fn legacy_audio(id: u8) -> &'static str {
    match id {
        0 | 3 => "pcm",
        1 => "adpcm",
        2 | 14 => "mp3",
        4..=6 => "nellymoser",
        7 | 8 => "g711",
        10 => "aac",
        11 => "speex",
        _ => "",
    }
}

/// FourCCs of Enhanced RTMP v2.
fn four_cc(code: [u8; 4]) -> &'static str {
    match &code {
        b"avc1" => "h264",
        b"hvc1" => "h265",
        b"av01" => "av1",
        b"vp08" => "vp8",
        b"vp09" => "vp9",
        b"mp4a" => "aac",
        b"Opus" => "opus",
        b"fLaC" => "flac",
        b".mp3" => "mp3",
        b"ac-3" => "ac3",
        b"ec-3" => "eac3",
        _ => "",
    }
}

/// Object type, channels and sample rate.
type AudioFormat = (u8, u8, u32);

/// The codec word of an audio header, and the format if the header tells it.
fn audio(payload: &[u8]) -> (&'static str, Option<AudioFormat>) {
    let Some(&first) = payload.first() else { return ("", None) };
    if first >> 4 == 9 {
        let Some((code, config)) = ex_body(payload, 5) else { return ("", None) };
        let codec = four_cc(code);
        return (codec, (codec == "aac").then(|| aac_format(config)).flatten());
    }
    match legacy_audio(first >> 4) {
        // The packet type comes first. The rate and the channels in the first byte mean nothing for AAC (FLV, E.4.2.1).
        "aac" => ("aac", payload.get(2..).and_then(aac_format)),
        "" => ("", None),
        codec => (codec, Some((0, 1 + (first & 1), 44_100 >> (3 - (first >> 2 & 3))))),
    }
}

/// The format in an AudioSpecificConfig (ISO 14496-3, 1.6.2.1).
fn aac_format(config: &[u8]) -> Option<AudioFormat> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];
    let rate = |bits: &mut BitReader<'_>| match bits.bits(4)? {
        15 => bits.bits(24),
        index => RATES.get(index as usize).copied(),
    };
    let mut bits = BitReader::new(config);
    let object_type = match bits.bits(5)? {
        31 => 32 + bits.bits(6)?,
        known => known,
    };
    let mut sample_rate = rate(&mut bits)?;
    let mut channels = match bits.bits(4)? {
        7 => 8,
        count => count,
    };
    // Spectral band replication says the rate of the sound anew; parametric stereo makes two channels of one.
    if matches!(object_type, 5 | 29) {
        sample_rate = rate(&mut bits)?;
    }
    if object_type == 29 {
        channels = 2;
    }
    Some((u8::try_from(object_type).ok()?, u8::try_from(channels).ok()?, sample_rate))
}

/// The codec word of a video header, and its decoder configuration record.
fn video(payload: &[u8]) -> (&'static str, Option<&[u8]>) {
    let Some(&first) = payload.first() else { return ("", None) };
    if first & 0x80 != 0 {
        return match ex_body(payload, 6) {
            Some((code, record)) => (four_cc(code), Some(record)),
            None => ("", None),
        };
    }
    // Packet type and composition time come first.
    (legacy_video(first & 0x0F), payload.get(5..))
}

/// The size in a decoder configuration record.
fn size(codec: &str, record: &[u8]) -> Option<(u32, u32)> {
    match codec {
        "h264" => avc_size(record),
        "h265" => hevc_size(record),
        _ => None,
    }
}

/// Profile, constraint flags and level of an AVCDecoderConfigurationRecord.
fn avc_profile(codec: &str, record: &[u8]) -> Option<[u8; 3]> {
    if codec != "h264" {
        return None;
    }
    record.get(1..4)?.try_into().ok()
}

/// FourCC and body of an ex header: behind modifiers, and of the first of several tracks.
fn ex_body(payload: &[u8], multitrack: u8) -> Option<([u8; 4], &[u8])> {
    const MODIFIER: u8 = 7;
    let (&first, mut rest) = payload.split_first()?;
    let mut packet = first & 0x0F;
    while packet == MODIFIER {
        let (&short, after) = rest.split_first()?;
        let (size, after) = match short {
            0xFF => {
                let (long, after) = after.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*long)) + 1, after)
            }
            short => (usize::from(short) + 1, after),
        };
        let (&kind_and_packet, after) = after.get(size..)?.split_first()?;
        (packet, rest) = (kind_and_packet & 0x0F, after);
    }
    let mut kind = None;
    if packet == multitrack {
        let (&kind_and_packet, after) = rest.split_first()?;
        kind = Some(kind_and_packet >> 4);
        rest = after;
    }
    let (code, mut body) = rest.split_first_chunk::<4>()?;
    if let Some(kind) = kind {
        // The track's id, and its size where other tracks follow.
        body = body.get(if kind == 0 { 1 } else { 4 }..)?;
    }
    Some((*code, body))
}

/// The size in the first sequence parameter set of an AVCDecoderConfigurationRecord.
fn avc_size(record: &[u8]) -> Option<(u32, u32)> {
    if record.get(5)? & 0x1F == 0 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*record.get(6)?, *record.get(7)?]));
    let unit = record.get(8..8 + length)?;
    let bytes = without_escapes(unit.get(1..)?);
    let mut bits = BitReader::new(&bytes);
    let profile = bits.bits(8)?;
    bits.bits(16)?;
    bits.golomb()?;
    let mut chroma = 1;
    if [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135].contains(&profile) {
        chroma = bits.golomb()?;
        if chroma == 3 {
            bits.bits(1)?;
        }
        bits.golomb()?;
        bits.golomb()?;
        bits.bits(1)?;
        if bits.bits(1)? == 1 {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bits(1)? == 1 {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.golomb()?;
    match bits.golomb()? {
        0 => {
            bits.golomb()?;
        }
        1 => {
            bits.bits(1)?;
            bits.golomb()?;
            bits.golomb()?;
            for _ in 0..bits.golomb()?.min(255) {
                bits.golomb()?;
            }
        }
        _ => {}
    }
    bits.golomb()?;
    bits.bits(1)?;
    let (width, height) = (bits.golomb()?.checked_add(1)?, bits.golomb()?.checked_add(1)?);
    let frames_only = bits.bits(1)?;
    if frames_only == 0 {
        bits.bits(1)?;
    }
    bits.bits(1)?;
    let fields = 2 - frames_only;
    let (mut width, mut height) = (width.checked_mul(16)?, height.checked_mul(16)?.checked_mul(fields)?);
    if bits.bits(1)? == 1 {
        let (wide, high) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 } else { 1 });
        let (left, right, top, bottom) = (bits.golomb()?, bits.golomb()?, bits.golomb()?, bits.golomb()?);
        width = width.checked_sub(left.checked_add(right)?.checked_mul(wide)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(high * fields)?)?;
    }
    believed(width, height)
}

fn skip_scaling_list(bits: &mut BitReader<'_>, size: usize) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..size {
        if next != 0 {
            let code = i64::from(bits.golomb()?);
            // se(v): 0, 1, -1, 2, -2, …
            let delta = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
            next = (last + delta).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// The size in the first sequence parameter set of an HEVCDecoderConfigurationRecord.
fn hevc_size(record: &[u8]) -> Option<(u32, u32)> {
    const SEQUENCE_PARAMETERS: u8 = 33;
    let (&arrays, mut rest) = record.get(22..)?.split_first()?;
    for _ in 0..arrays {
        let (&[kind, high, low], after) = rest.split_first_chunk::<3>()?;
        rest = after;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let unit = after.get(..length)?;
            if kind & 0x3F == SEQUENCE_PARAMETERS {
                return hevc_sequence_size(unit);
            }
            rest = &after[length..];
        }
    }
    None
}

fn hevc_sequence_size(unit: &[u8]) -> Option<(u32, u32)> {
    let bytes = without_escapes(unit.get(2..)?);
    let mut bits = BitReader::new(&bytes);
    bits.bits(4)?;
    let layers = bits.bits(3)?;
    bits.bits(1)?;
    // General profile, tier and level.
    bits.skip(96)?;
    let flags: Vec<(u32, u32)> = (0..layers).map(|_| Some((bits.bits(1)?, bits.bits(1)?))).collect::<Option<_>>()?;
    if layers > 0 {
        bits.skip(2 * (8 - layers as usize))?;
    }
    for (profile, level) in flags {
        bits.skip(if profile == 1 { 88 } else { 0 } + if level == 1 { 8 } else { 0 })?;
    }
    bits.golomb()?;
    let chroma = bits.golomb()?;
    if chroma == 3 {
        bits.bits(1)?;
    }
    let (mut width, mut height) = (bits.golomb()?, bits.golomb()?);
    if bits.bits(1)? == 1 {
        let (wide, high) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 } else { 1 });
        let (left, right, top, bottom) = (bits.golomb()?, bits.golomb()?, bits.golomb()?, bits.golomb()?);
        width = width.checked_sub(left.checked_add(right)?.checked_mul(wide)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(high)?)?;
    }
    believed(width, height)
}

fn believed(width: u32, height: u32) -> Option<(u32, u32)> {
    let good = |length: u32| length > 0 && f64::from(length) <= MOST;
    (good(width) && good(height)).then_some((width, height))
}

/// The bytes of a NAL unit without the bytes that prevent start codes (ISO 14496-10, 7.4.1).
fn without_escapes(unit: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(unit.len().min(MAX_PARAMETERS));
    let mut zeros = 0;
    for &byte in unit.iter().take(MAX_PARAMETERS) {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes.push(byte);
    }
    bytes
}

/// Reads bits, the highest of each byte first.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    /// A number of so many bits, 32 at most.
    fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |number: u32, _| Some(number << 1 | self.bit()?))
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= 8 * self.bytes.len()).then_some(())
    }

    /// A number in unsigned Exp-Golomb code (ISO 14496-10, 9.1).
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.bits(zeros)?;
        Some((1_u32 << zeros) - 1 + rest)
    }
}

#[cfg(test)]
#[path = "describe_tests.rs"]
mod tests;
