//! First bytes of media messages and their meaning: for inspection's tests, and as seeds for fuzzing.

/// The expected inspection: keyframe, header (its slot as text), end of sequence, track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Is {
    /// A keyframe.
    pub key: bool,
    /// `Video 0`, …
    pub header: &'static str,
    /// End of sequence.
    pub end: bool,
    /// Track.
    pub track: u8,
}

/// Ordinary media.
pub const PLAIN: Is = Is { key: false, header: "", end: false, track: 0 };
/// A keyframe.
pub const KEY: Is = Is { key: true, ..PLAIN };
/// An end of sequence.
pub const END: Is = Is { end: true, ..PLAIN };

const fn header(slot: &'static str) -> Is {
    Is { header: slot, ..PLAIN }
}

/// `{name, type, first bytes, expected inspection}`.
pub const ROWS: &[(&str, u8, &[u8], Is)] = &[
    // Legacy video.
    ("AVC sequence header", 9, &[0x17, 0, 0, 0, 0, 1, 0x64], header("Video 0")),
    ("AVC keyframe", 9, &[0x17, 1, 0, 0, 80, 0, 0, 0, 5], KEY),
    ("AVC frame", 9, &[0x27, 1, 0, 0, 0], PLAIN),
    ("AVC disposable frame", 9, &[0x37, 1, 0, 0, 0], PLAIN),
    ("AVC end of sequence", 9, &[0x17, 2, 0, 0, 0], END),
    ("AVC sequence header as a frame", 9, &[0x27, 0, 0, 0, 0], header("Video 0")),
    ("AVC keyframe of one byte", 9, &[0x17], PLAIN),
    ("AVC of an unknown packet type", 9, &[0x17, 3], PLAIN),
    ("AVC command frame", 9, &[0x57, 0], PLAIN),
    ("HEVC of Chinese CDNs, sequence header", 9, &[0x1C, 0, 0, 0, 0, 1], header("Video 0")),
    ("HEVC of Chinese CDNs, keyframe", 9, &[0x1C, 1, 0, 0, 0], KEY),
    ("H.263 keyframe (DJI's codec 2)", 9, &[0x12, 0, 0, 0x84], KEY),
    ("H.263 frame", 9, &[0x22, 0, 0, 0x84], PLAIN),
    ("VP6 keyframe of one byte", 9, &[0x14], KEY),
    ("generated keyframe", 9, &[0x42], PLAIN),
    ("empty video", 9, &[], PLAIN),
    // Enhanced video.
    ("HEVC sequence start", 9, b"\x90hvc1\x01", header("Video 0")),
    ("HEVC keyframe", 9, b"\x91hvc1\x00\x00\x00", KEY),
    ("HEVC keyframe without composition time", 9, b"\x93hvc1\x00", KEY),
    ("HEVC frame", 9, b"\xA1hvc1\x00\x00\x00", PLAIN),
    ("HEVC frame without composition time", 9, b"\xA3hvc1\x00", PLAIN),
    ("HEVC end of sequence", 9, b"\x92hvc1", END),
    ("AV1 sequence start", 9, b"\x90av01\x81", header("Video 0")),
    ("AV1 sequence start in MPEG-2 TS form", 9, b"\x95av01\x80", header("Video 0")),
    ("AV1 keyframe", 9, b"\x91av01\x12\x00", KEY),
    ("AV1 frame", 9, b"\xA1av01\x12\x00", PLAIN),
    ("VP9 sequence start", 9, b"\x90vp09", header("Video 0")),
    ("enhanced AVC keyframe", 9, b"\x91avc1\x00\x00\x00", KEY),
    ("unknown FourCC keyframe", 9, b"\x91zzzz", KEY),
    ("colour information", 9, b"\x94hvc1\x02\x00\x09colorInfo", header("VideoMetadata 0")),
    ("command with an ex header", 9, &[0xD1, 0], PLAIN),
    ("command with the packet type of a sequence start", 9, &[0xD0, 1], PLAIN),
    ("unknown packet type", 9, b"\x9Fhvc1", PLAIN),
    // Multitrack.
    ("one track, sequence start", 9, b"\x96\x00hvc1\x01\x01", Is { track: 1, header: "Video 1", ..PLAIN }),
    ("one track, keyframe", 9, b"\x96\x01hvc1\x02\x00", Is { track: 2, ..KEY }),
    ("one track, frame", 9, b"\xA6\x03hvc1\x02\x00", Is { track: 2, ..PLAIN }),
    ("one track, end of sequence", 9, b"\x96\x02hvc1\x02", Is { track: 2, ..END }),
    ("many tracks, keyframe", 9, b"\x96\x11hvc1\x00\x00\x00\x02ab\x01\x00\x00\x01c", KEY),
    (
        "many tracks, many codecs, keyframe",
        9,
        b"\x96\x21hvc1\x03\x00\x00\x02abav01\x01\x00\x00\x01c",
        Is { track: 3, ..KEY },
    ),
    (
        "many tracks, many codecs, sequence start",
        9,
        b"\x96\x20hvc1\x00\x00\x00\x02abav01\x01\x00\x00\x01c",
        header("Video 0"),
    ),
    ("highest track", 9, b"\x96\x00av01\xFF", Is { track: 255, header: "Video 255", ..PLAIN }),
    ("multitrack cut before the track", 9, b"\x96\x01hvc1", PLAIN),
    ("multitrack cut before its kind", 9, b"\x96", PLAIN),
    ("multitrack in multitrack", 9, b"\x96\x06hvc1\x00", PLAIN),
    // ModEx.
    ("nanoseconds, keyframe", 9, b"\x97\x02\x00\x00\x07\x01hvc1\x00\x00\x00", KEY),
    ("nanoseconds, sequence start", 9, b"\x97\x02\x00\x00\x07\x00hvc1", header("Video 0")),
    ("two modifiers, frame", 9, b"\xA7\x02\x00\x00\x07\x07\x00\x09\x11hvc1", PLAIN),
    ("two modifiers, keyframe", 9, b"\x97\x02\x00\x00\x07\x07\x00\x09\x11hvc1", KEY),
    ("modifier and multitrack", 9, b"\x97\x02\x00\x00\x07\x06\x01hvc1\x04", Is { track: 4, ..KEY }),
    ("modifier of 256 bytes and more, cut", 9, b"\x97\xFF\x01\x00abc", PLAIN),
    ("modifier of long form", 9, b"\x97\xFF\x00\x02abc\x01hvc1", KEY),
    ("modifier cut short", 9, b"\x97\x02\x00", PLAIN),
    ("modifier without a size", 9, b"\x97", PLAIN),
    ("modifiers for ever", 9, &[0x97, 0, 7, 7, 0, 7, 7, 0, 7, 7, 0, 7, 7, 0, 7, 7, 0, 7, 7], PLAIN),
    // Audio.
    ("AAC sequence header", 8, &[0xAF, 0, 0x12, 0x10], header("Audio 0")),
    ("AAC", 8, &[0xAF, 1, 0x21], PLAIN),
    ("AAC of one byte", 8, &[0xAF], PLAIN),
    ("MP3", 8, &[0x2F, 0], PLAIN),
    ("MP3 8 kHz", 8, &[0xEF, 0], PLAIN),
    ("Speex", 8, &[0xB2, 0], PLAIN),
    ("G.711 A-law", 8, &[0x72, 0], PLAIN),
    ("device-specific sound (DJI's codec 15)", 8, &[0xFF, 0], PLAIN),
    ("empty audio", 8, &[], PLAIN),
    ("Opus sequence start", 8, b"\x90OpusOpusHead", header("Audio 0")),
    ("Opus", 8, b"\x91Opus\x00", PLAIN),
    ("Opus end of sequence", 8, b"\x92Opus", END),
    ("channel order", 8, b"\x94Opus\x01\x02", header("AudioChannels 0")),
    ("audio, one track, sequence start", 8, b"\x95\x00mp4a\x01\x12", Is { track: 1, header: "Audio 1", ..PLAIN }),
    ("audio, one track", 8, b"\x95\x01mp4a\x01\x12", Is { track: 1, ..PLAIN }),
    (
        "audio, many tracks, many codecs, sequence start",
        8,
        b"\x95\x20mp4a\x02\x00\x00\x01aOpus\x03",
        Is { track: 2, header: "Audio 2", ..PLAIN },
    ),
    ("audio, nanoseconds, sequence start", 8, b"\x97\x02\x00\x00\x07\x00Opus", header("Audio 0")),
    ("ex header of one byte", 8, &[0x95], PLAIN),
    // Data.
    ("@setDataFrame onMetaData", 18, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x08", header("Metadata")),
    ("onMetaData", 18, b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x00", header("Metadata")),
    ("onMetaData as AMF3", 15, b"\x00\x02\x00\x0aonMetaData\x11\x0A", header("Metadata")),
    (
        "@setDataFrame onMetaData as AMF3 without its zero",
        15,
        b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData",
        header("Metadata"),
    ),
    ("@setDataFrame alone", 18, b"\x02\x00\x0d@setDataFrame", PLAIN),
    ("@setDataFrame onTextData", 18, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonTextData", PLAIN),
    ("@setDataFrame twice", 18, b"\x02\x00\x0d@setDataFrame\x02\x00\x0d@setDataFrame", PLAIN),
    ("@clearDataFrame", 18, b"\x02\x00\x0f@clearDataFrame\x02\x00\x0aonMetaData", PLAIN),
    ("onTextData", 18, b"\x02\x00\x0aonTextData\x03", PLAIN),
    ("|RtmpSampleAccess", 18, b"\x02\x00\x11|RtmpSampleAccess\x01\x00\x01\x00", PLAIN),
    ("onMetaData cut short", 18, b"\x02\x00\x0aonMetaDat", PLAIN),
    ("data that is a number", 18, &[0, 0, 0, 0, 0, 0, 0, 0, 0], PLAIN),
    ("empty data", 18, &[], PLAIN),
    ("empty AMF3 data", 15, &[], PLAIN),
    ("aggregate", 22, &[9, 0, 0, 1], PLAIN),
    ("command", 20, b"\x02\x00\x0aonMetaData", PLAIN),
];
