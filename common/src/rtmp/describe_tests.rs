//! Headers as encoders write them, and what is said about them.

use super::*;

/// Writes bits, the highest of each byte first.
#[derive(Default)]
struct BitWriter(Vec<u8>, u32);

impl BitWriter {
    fn bits(&mut self, count: u32, number: u32) -> &mut Self {
        for at in (0..count).rev() {
            if self.1.is_multiple_of(8) {
                self.0.push(0);
            }
            *self.0.last_mut().unwrap() |= u8::try_from(number >> at & 1).unwrap() << (7 - self.1 % 8);
            self.1 += 1;
        }
        self
    }

    fn golomb(&mut self, number: u32) -> &mut Self {
        let length = (number + 1).ilog2();
        self.bits(length, 0).bits(length + 1, number + 1)
    }

    /// The bytes with those that prevent start codes.
    fn unit(&self, header: &[u8]) -> Vec<u8> {
        let (mut unit, mut zeros) = (header.to_vec(), 0);
        for &byte in &self.0 {
            if zeros >= 2 && byte <= 3 {
                unit.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            unit.push(byte);
        }
        unit
    }
}

/// A sequence header of legacy AVC with this size, which is cropped by `crop` rows at the bottom.
fn avc(profile: u32, width: u32, height: u32, crop: u32) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.bits(8, profile).bits(16, 0x00_1F).golomb(0);
    if profile == 100 {
        // 4:2:0 of 8 bits, without scaling lists.
        bits.golomb(1).golomb(0).golomb(0).bits(2, 0);
    }
    bits.golomb(0).golomb(2).golomb(1).bits(1, 0);
    bits.golomb(width / 16 - 1).golomb((height + crop) / 16 - 1).bits(1, 1).bits(1, 1);
    match crop {
        0 => bits.bits(1, 0),
        crop => bits.bits(1, 1).golomb(0).golomb(0).golomb(0).golomb(crop / 2),
    };
    bits.bits(1, 1);
    let unit = bits.unit(&[0x67]);
    let length = u16::try_from(unit.len()).unwrap().to_be_bytes();
    [&[0x17, 0, 0, 0, 0, 1, 100, 0, 31, 0xFF, 0xE1][..], &length, &unit, &[1, 0, 0]].concat()
}

/// A sequence header of HEVC by Enhanced RTMP, with a set of other parameters before that of the sequence.
fn hevc(layers: u32, width: u32, height: u32, crop: u32) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.bits(4, 0).bits(3, layers).bits(1, 1);
    for _ in 0..12 {
        bits.bits(8, 0);
    }
    for _ in 0..layers {
        bits.bits(1, 1).bits(1, 1);
    }
    if layers > 0 {
        bits.bits(2 * (8 - layers), 0);
    }
    for _ in 0..12 * layers {
        bits.bits(8, 0x55);
    }
    bits.golomb(0).golomb(1).golomb(width).golomb(height + crop).bits(1, 1);
    bits.golomb(0).golomb(0).golomb(0).golomb(crop / 2).bits(8, 0xFF);
    let unit = bits.unit(&[0x42, 1]);
    let length = u16::try_from(unit.len()).unwrap().to_be_bytes();
    let record = [&[1; 22][..], &[2, 32, 0, 1, 0, 2, 9, 9, 33, 0, 1], &length, &unit].concat();
    [&[0x90][..], b"hvc1", &record].concat()
}

fn metadata(pairs: &[(&str, Value)]) -> Vec<u8> {
    let mut payload = Vec::new();
    amf0::write(&mut payload, &Value::string("@setDataFrame"));
    amf0::write(&mut payload, &Value::string("onMetaData"));
    let object = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    amf0::write(&mut payload, &Value::Object(object));
    payload
}

const VIDEO: HeaderSlot = HeaderSlot::Video { track: 0 };
const AUDIO: HeaderSlot = HeaderSlot::Audio { track: 0 };

fn of(headers: &[(HeaderSlot, &[u8])]) -> MediaDescription {
    MediaDescription::of(headers.iter().map(|(slot, payload)| (*slot, 18, *payload)))
}

#[test]
fn size_is_that_of_the_codecs_own_header() {
    let rows = [
        (avc(66, 640, 352, 0), "h264", 640, 352),
        (avc(100, 1280, 720, 0), "h264", 1280, 720),
        (avc(100, 1920, 1080, 8), "h264", 1920, 1080),
        (hevc(0, 3840, 2160, 8), "h265", 3840, 2160),
        (hevc(2, 1920, 1080, 8), "h265", 1920, 1080),
    ];
    let told =
        metadata(&[("width", Value::Number(1.0)), ("height", Value::Number(2.0)), ("framerate", Value::Number(29.97))]);
    for (header, codec, width, height) in rows {
        let found = of(&[(HeaderSlot::Metadata, &told), (VIDEO, &header), (AUDIO, &[0xAF, 0, 0x12, 0x10])]);
        let profile = if codec == "h264" { [100, 0, 31] } else { [0; 3] };
        let (object_type, channels, sample_rate) = (2, 2, 44_100);
        let frame_rate = 29_970;
        let expected = MediaDescription {
            video: codec,
            audio: "aac",
            width,
            height,
            frame_rate,
            profile,
            object_type,
            channels,
            sample_rate,
        };
        assert_eq!(found, expected);
        for end in 0..header.len() {
            let found = of(&[(VIDEO, &header[..end])]);
            assert!((found.width, found.height) == (width, height) || found.width == 0, "{end} bytes: {found:?}");
        }
    }
}

#[test]
fn metadata_tells_what_headers_do_not() {
    let number = Value::Number;
    let rows = [
        (
            metadata(&[("width", number(320.0)), ("height", number(240.0)), ("framerate", number(25.0))]),
            ("", "", 320, 240, 25_000),
        ),
        (metadata(&[("videocodecid", number(7.0)), ("audiocodecid", number(2.0))]), ("h264", "mp3", 0, 0, 0)),
        (metadata(&[("videocodecid", number(f64::from(u32::from_be_bytes(*b"av01"))))]), ("av1", "", 0, 0, 0)),
        (
            metadata(&[("videocodecid", Value::string("hvc1")), ("audiocodecid", Value::string("Opus"))]),
            ("h265", "opus", 0, 0, 0),
        ),
        (
            metadata(&[("width", number(-1.0)), ("height", number(f64::NAN)), ("framerate", number(1e12))]),
            ("", "", 0, 0, 0),
        ),
        (metadata(&[("width", Value::string("wide")), ("videocodecid", Value::Null)]), ("", "", 0, 0, 0)),
        (vec![1, 2, 3], ("", "", 0, 0, 0)),
        (vec![], ("", "", 0, 0, 0)),
    ];
    for (payload, (video, audio, width, height, frame_rate)) in rows {
        let expected = MediaDescription { video, audio, width, height, frame_rate, ..MediaDescription::default() };
        assert_eq!(of(&[(HeaderSlot::Metadata, &payload)]), expected);
    }
}

#[test]
fn audio_format_is_that_of_the_header() {
    // Payload; codec, object type, channels, sample rate.
    let rows: [(&[u8], &str, u8, u8, u32); 9] = [
        (&[0xAF, 0, 0x11, 0x90], "aac", 2, 2, 48_000),
        (&[0xAF, 0, 0x12, 0x08], "aac", 2, 1, 44_100),
        // The sample rate by number: 44,056.
        (&[0xAF, 0, 0x17, 0x80, 0x56, 0x0C, 0x10], "aac", 2, 2, 44_056),
        // HE-AAC of 24,000 and 48,000, and version 2 with one channel that becomes two.
        (&[0xAF, 0, 0x2B, 0x11, 0x88], "aac", 5, 2, 48_000),
        (&[0xAF, 0, 0xEB, 0x09, 0x88], "aac", 29, 2, 48_000),
        (&[0xAF, 0, 0x11], "aac", 0, 0, 0),
        (&[0x2F], "mp3", 0, 2, 44_100),
        (b"\x90mp4a\x11\x90", "aac", 2, 2, 48_000),
        (b"\x90OpusOpusHead", "opus", 0, 0, 0),
    ];
    for (payload, codec, object_type, channels, sample_rate) in rows {
        let found = of(&[(AUDIO, payload)]);
        let format = (found.audio, found.object_type, found.channels, found.sample_rate);
        assert_eq!(format, (codec, object_type, channels, sample_rate), "{payload:02X?}");
    }
}

#[test]
fn codecs_of_enhanced_rtmp_are_named_behind_modifiers_and_tracks() {
    let name = |payload: &[u8]| of(&[(VIDEO, payload)]).video;
    assert_eq!(name(b"\x90av01\x81\x05"), "av1");
    assert_eq!(name(b"\x90vp09"), "vp9");
    assert_eq!(name(b"\x90none"), "");
    // A modifier of three bytes, then the real packet type.
    assert_eq!(name(b"\x97\x02\x01\x02\x03\x00vp08"), "vp8");
    // One track of several: kind and packet type, FourCC, track.
    assert_eq!(name(b"\x96\x00hvc1\x01\x01"), "h265");
    assert_eq!(name(b"\x97\xFF"), "");
    let sound = |payload: &[u8]| of(&[(AUDIO, payload)]).audio;
    assert_eq!(
        (sound(b"\x90Opus"), sound(b"\x95\x00fLaC\x01"), sound(b"\x2F"), sound(b"")),
        ("opus", "flac", "mp3", "")
    );
}

#[test]
fn sound_without_a_header_is_described_by_its_frames() {
    let plain = |payload: &[u8]| plain_audio(payload).map(|it| (it.codec, it.channels, it.sample_rate));
    let rows: [(&[u8], _); 14] = [
        // The flags say 44,100; the head of an MP3 frame says 48,000, and that it is one channel.
        (&[0x2F, 0xFF, 0xFB, 0x94, 0xC0], Some(("mp3", 1, 48_000))),
        (&[0x2F, 0xFF, 0xF3, 0x40, 0x00], Some(("mp3", 2, 22_050))),
        // MPEG 2.5, and heads that are none.
        (&[0x22, 0xFF, 0xE3, 0x48, 0xC0], Some(("mp3", 1, 8000))),
        (&[0x2B, 0xFF, 0xFB, 0x9C, 0x00], Some(("mp3", 2, 22_050))),
        (&[0x2F, 0xFF, 0xEB, 0x90, 0x00], Some(("mp3", 2, 44_100))),
        (&[0x2E], Some(("mp3", 1, 44_100))),
        (&[0xEE], Some(("mp3", 1, 8000))),
        (&[0x3F], Some(("pcm", 2, 44_100))),
        (&[0x4F], Some(("nellymoser", 1, 16_000))),
        (&[0x82], Some(("g711", 1, 8000))),
        (&[0xB7], Some(("speex", 1, 16_000))),
        // These have headers, and nobody knows the last one.
        (&[0xAF, 1, 2], None),
        (b"\x91Opus", None),
        (&[0xCF, 1], None),
    ];
    for (payload, expected) in rows {
        assert_eq!(plain(payload), expected, "{payload:02X?}");
    }
    assert_eq!(plain(&[]), None);
}
