//! Payloads of the generator: messages in the shape of H.264 and AAC, with their stream, number and time of sending, and a check of every
//! byte. In: stream, number, time. Out: payloads; the sink reads them back.

use std::sync::OnceLock;

use liveedgecast_common::rtmp::amf0::{self, Value};

/// FLV tag bytes in front of the stamp: frame type and codec, packet type, composition time.
const TAG: usize = 5;
/// Magic, stream, number, time.
const STAMP: usize = 4 + 4 + 8 + 8;
/// Shortest payload with a whole stamp.
pub const LEAST: usize = TAG + STAMP;
const MAGIC: [u8; 4] = *b"LECB";
/// Longest payload: a keyframe of the highest rate in use.
const MOST: usize = 2 << 20;
/// Number of places at which filler may begin, so that no two messages in a row have the same bytes.
const PLACES: u64 = 4093;

/// Origin of a message, written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadStamp {
    /// Number of the stream.
    pub stream: u32,
    /// Number of the message in its stream, from 0; audio and video together, headers not counted.
    pub number: u64,
    /// Time of writing, by [`super::BenchClock`].
    pub sent: u64,
}

fn filler() -> &'static [u8] {
    static FILLER: OnceLock<Vec<u8>> = OnceLock::new();
    FILLER.get_or_init(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..(MOST + PLACES as usize).div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect()
    })
}

/// Builds the filler, before the measurement begins.
pub fn prepare() {
    filler();
}

/// The place in the filler at which the bytes behind a stamp begin.
fn start(stamp: &PayloadStamp) -> usize {
    ((u64::from(stamp.stream) * 31 + stamp.number) % PLACES) as usize
}

fn rest(stamp: &PayloadStamp, len: usize) -> &'static [u8] {
    let at = start(stamp);
    &filler()[at..at + len]
}

/// The first bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// AVC, keyframe.
    Keyframe,
    /// AVC, inter frame.
    Inter,
    /// AAC, raw.
    Audio,
}

/// Writes a payload of `len` bytes (at least [`LEAST`]) into `out`.
pub fn write(out: &mut Vec<u8>, shape: Shape, stamp: &PayloadStamp, len: usize) {
    out.extend_from_slice(match shape {
        Shape::Keyframe => &[0x17, 1, 0, 0, 0],
        Shape::Inter => &[0x27, 1, 0, 0, 0],
        Shape::Audio => &[0xAF, 1, 0, 0, 0],
    });
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&stamp.stream.to_be_bytes());
    out.extend_from_slice(&stamp.number.to_be_bytes());
    out.extend_from_slice(&stamp.sent.to_be_bytes());
    out.extend_from_slice(rest(stamp, len.clamp(LEAST, MOST) - LEAST));
}

/// Reads a payload back, piece by piece, and compares it with the one that was sent.
#[derive(Clone, Debug)]
pub struct PayloadCheck {
    head: [u8; LEAST],
    len: usize,
    stamp: Option<PayloadStamp>,
    same: bool,
}

impl Default for PayloadCheck {
    fn default() -> Self {
        Self { head: [0; LEAST], len: 0, stamp: None, same: true }
    }
}

impl PayloadCheck {
    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(LEAST.saturating_sub(self.len)));
        if !head.is_empty() {
            self.head[self.len..self.len + head.len()].copy_from_slice(head);
        }
        self.len += head.len();
        if self.len == LEAST && self.stamp.is_none() {
            self.stamp = stamp(&self.head);
        }
        if let Some(stamp) = self.stamp {
            let at = start(&stamp) + self.len - LEAST;
            self.same &= filler().get(at..at + rest.len()) == Some(rest);
        }
        self.len += rest.len();
    }

    /// Bytes taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.len
    }

    /// The first byte: codec and frame type.
    #[must_use]
    pub fn tag(&self) -> u8 {
        self.head[0]
    }

    /// The stamp. `None`: a payload without one (a header). `Err`: a stamped payload whose bytes were changed.
    #[must_use]
    pub fn stamp(&self) -> Option<Result<PayloadStamp, PayloadStamp>> {
        self.stamp.map(|stamp| if self.same { Ok(stamp) } else { Err(stamp) })
    }
}

fn stamp(head: &[u8; LEAST]) -> Option<PayloadStamp> {
    let body = head[TAG..].strip_prefix(&MAGIC)?;
    let (stream, body) = body.split_first_chunk::<4>()?;
    let (number, body) = body.split_first_chunk::<8>()?;
    let sent = body.first_chunk::<8>()?;
    Some(PayloadStamp {
        stream: u32::from_be_bytes(*stream),
        number: u64::from_be_bytes(*number),
        sent: u64::from_be_bytes(*sent),
    })
}

/// AVC sequence header, AAC sequence header.
pub const VIDEO_HEADER: &[u8] = &[
    0x17, 0, 0, 0, 0, 1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 9, 0x67, 0x42, 0xC0, 0x1E, 0xDA, 0x02, 0x80, 0xF6, 0x80, 1,
    0, 4, 0x68, 0xCE, 0x3C, 0x80,
];
/// See [`VIDEO_HEADER`].
pub const AUDIO_HEADER: &[u8] = &[0xAF, 0, 0x12, 0x10];

/// `@setDataFrame` with the metadata that encoders send.
#[must_use]
pub fn metadata() -> Vec<u8> {
    let mut out = Vec::new();
    let number = |name: &str, value: f64| (name.to_owned(), Value::Number(value));
    let properties = vec![
        number("width", 1280.0),
        number("height", 720.0),
        number("framerate", 30.0),
        number("videocodecid", 7.0),
        number("audiocodecid", 10.0),
    ];
    for value in [Value::string("@setDataFrame"), Value::string("onMetaData"), Value::EcmaArray(properties)] {
        amf0::write(&mut out, &value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &[u8], piece: usize) -> Option<Result<PayloadStamp, PayloadStamp>> {
        let mut check = PayloadCheck::default();
        payload.chunks(piece).for_each(|piece| check.take(piece));
        assert_eq!((check.taken(), check.tag()), (payload.len(), payload[0]));
        check.stamp()
    }

    #[test]
    fn a_changed_byte_is_found_and_headers_are_not_ours() {
        let stamp = PayloadStamp { stream: 7, number: 99, sent: 123 };
        let mut payload = Vec::new();
        write(&mut payload, Shape::Inter, &stamp, 9000);
        assert_eq!(payload.len(), 9000);
        for piece in [1, 7, LEAST - 1, LEAST, LEAST + 1, 4096, 9000] {
            assert_eq!(read(&payload, piece), Some(Ok(stamp)), "{piece}");
            let mut changed = payload.clone();
            changed[5000] ^= 1;
            assert_eq!(read(&changed, piece), Some(Err(stamp)), "{piece}");
            changed.truncate(4000);
            assert_eq!(read(&changed, piece), Some(Ok(stamp)), "a length is the sink's business");
            assert!(read(VIDEO_HEADER, piece).is_none() && read(AUDIO_HEADER, piece).is_none());
        }
    }
}
