//! The document, read as its readers read it.

use liveedgecast_common::key::{Identity, StreamKey};
use serde::Deserialize;

use super::*;

/// A reader that refuses the document when an element is missing or is not a number: that of programs that switch scenes. It has whole numbers
/// where others take decimals, too.
#[derive(Debug, Deserialize)]
struct StrictStat {
    server: StrictServer,
}

#[derive(Debug, Deserialize)]
struct StrictServer {
    application: Vec<StrictApplication>,
}

#[derive(Debug, Deserialize)]
struct StrictApplication {
    name: String,
    live: StrictLive,
}

#[derive(Debug, Deserialize)]
struct StrictLive {
    stream: Option<Vec<StrictStream>>,
    nclients: u32,
}

#[derive(Debug, Deserialize)]
struct StrictStream {
    name: String,
    bw_video: u32,
    meta: Option<StrictMeta>,
}

#[derive(Debug, Deserialize)]
struct StrictMeta {
    video: StrictVideo,
    audio: StrictAudio,
}

#[derive(Debug, Deserialize)]
struct StrictVideo {
    width: u32,
    height: u32,
    frame_rate: u32,
    codec: String,
    profile: Option<String>,
    compat: Option<u32>,
    level: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct StrictAudio {
    codec: String,
    profile: Option<String>,
    channels: Option<u32>,
    sample_rate: Option<u32>,
}

const GATEWAY: GatewayFigures = GatewayFigures {
    uptime: Duration::from_secs(90),
    utc: UtcTime(1_000_000),
    accepted: 7,
    bytes_in: 4_000_000_000,
    bytes_out: 8_000_000_000,
};

fn live(id: &str, publisher: Option<&str>) -> StreamView {
    StreamView {
        id: id.into(),
        app: "live".into(),
        publisher: publisher.map(str::to_owned),
        peer: Some("[::ffff:10.0.0.1]:5000".parse().unwrap()),
        since: Some(UtcTime(940_000)),
        state: "live",
        bytes: 3000,
        bitrate: 2_600_000,
        video: Some(VideoView {
            codec: Some("h264".into()),
            width: Some(1280),
            height: Some(720),
            frame_rate: Some(29.97),
            keyframe_interval: None,
            bitrate: 2_400_000,
            profile: [100, 0, 31],
        }),
        audio: Some(AudioView {
            codec: "aac".into(),
            bitrate: 128_000,
            channels: Some(2),
            sample_rate: Some(48_000),
            object_type: 2,
        }),
        upstreams: vec![
            UpstreamView { host: "a.example:1935".into(), state: "live", bytes: 2500, ..UpstreamView::default() },
            UpstreamView { host: "b.example:1935".into(), state: "backoff", lost: 3, ..UpstreamView::default() },
        ],
        ..StreamView::default()
    }
}

fn read(streams: Vec<StreamView>) -> (String, StrictStat) {
    let xml = document(&GATEWAY, streams, 0).unwrap();
    let read = quick_xml::de::from_str(&xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
    (xml, read)
}

#[test]
fn strict_reader_finds_a_live_stream_and_its_codecs() {
    let (xml, stat) = read(vec![live("1f00ab01cc", Some("studio-a"))]);
    let [app] = &stat.server.application[..] else { panic!("{xml}") };
    let [stream] = &app.live.stream.as_ref().unwrap()[..] else { panic!("{xml}") };
    assert_eq!((app.name.as_str(), stream.name.as_str(), stream.bw_video), ("live", "studio-a", 2_400_000));
    let StrictMeta { video, audio } = stream.meta.as_ref().unwrap();
    assert_eq!((video.width, video.height, video.frame_rate, video.codec.as_str()), (1280, 720, 30, "H264"));
    assert_eq!((video.profile.as_deref(), video.compat, video.level), (Some("High"), Some(0), Some(3.1)));
    assert_eq!((audio.codec.as_str(), audio.profile.as_deref()), ("AAC", Some("LC")));
    assert_eq!((audio.channels, audio.sample_rate), (Some(2), Some(48_000)));
    for part in [
        "<uptime>90</uptime>",
        "<naccepted>7</naccepted>",
        "<bytes_in>4000000000</bytes_in>",
        "<time>60000</time><bw_in>2600000</bw_in><bytes_in>3000</bytes_in><bw_out>2600000</bw_out><bytes_out>2500</bytes_out>\
         <bw_audio>128000</bw_audio><bw_video>2400000</bw_video>",
        "<address>10.0.0.1</address><port>5000</port>",
        "<address>a.example</address><port>1935</port>",
        "<dropped>3</dropped>",
        "<nclients>3</nclients><publishing/><active/></stream>",
    ] {
        assert!(xml.contains(part), "{part} is missing in {xml}");
    }
}

#[test]
fn strict_reader_reads_every_state_and_what_is_not_known() {
    let sound = StreamView { video: None, ..live("1", Some("sound")) };
    let bare = StreamView { id: "2".into(), app: "live".into(), state: "waiting", ..StreamView::default() };
    let odd =
        VideoView { codec: None, width: None, frame_rate: None, profile: [0; 3], ..live("3", None).video.unwrap() };
    let odd = StreamView { app: "a<&\"b".into(), video: Some(odd), audio: None, ..live("3", Some("<&>'\"")) };
    for (stream, active) in [(sound, true), (bare, false), (odd, true)] {
        let (app, name) = (stream.app.clone(), stream.publisher.clone());
        let (xml, stat) = read(vec![stream]);
        assert_eq!(stat.server.application[0].name, app, "{xml}");
        let streams = stat.server.application[0].live.stream.as_ref().unwrap();
        assert_eq!(streams[0].name, name.unwrap_or("2".into()), "{xml}");
        assert_eq!(xml.contains("<publishing/><active/></stream>"), active, "{xml}");
    }
    let (xml, stat) = read(vec![]);
    assert!(stat.server.application[0].live.stream.is_none(), "{xml}");
    assert_eq!(stat.server.application[0].live.nclients, 0, "{xml}");
}

#[test]
fn stream_is_named_once_and_by_no_key_unless_that_is_wanted() {
    let anonymous = StreamView { identity: Some(Identity([0xAB; 16])), ..live("1", None) };
    let shown = StreamView { shown_key: Some(StreamKey::parse("cam-1?token=x").unwrap()), ..live("2", Some("b")) };
    let moving = StreamView { state: "starting", video: None, ..live("3", Some("c")) };
    let gone = StreamView { state: "grace", ..live("4", Some("d")) };
    let (xml, stat) = read(vec![anonymous, shown, moving, live("3", Some("c")), gone]);
    let streams = stat.server.application[0].live.stream.as_ref().unwrap();
    let names: Vec<(&str, u32)> = streams.iter().map(|stream| (stream.name.as_str(), stream.bw_video)).collect();
    assert_eq!(names, [("abababababab", 2_400_000), ("c", 2_400_000), ("cam-1", 2_400_000)], "{xml}");
}

#[test]
fn question_by_app_and_name_takes_that_stream_alone() {
    let takes = |app: Option<&str>, name: Option<&str>| {
        let filter = StatFilter { app: app.map(str::to_owned), name: name.map(str::to_owned) };
        filter.takes(&live("1", Some("studio-a")))
    };
    assert!(takes(None, None) && takes(Some("live"), Some("studio-a")) && takes(None, Some("studio-a")));
    assert!(!takes(Some("other"), Some("studio-a")) && !takes(Some("live"), Some("studio-b")));
    let xml = document(&GATEWAY, vec![live("1", None)], 5).unwrap();
    assert!(xml.ends_with("<!-- 5 more streams: ask for one by ?app= and ?name= -->\n"), "{xml}");
}

#[test]
fn publisher_cannot_make_the_document_unreadable() {
    let odd = StreamView { app: "a\u{FFFE}".into(), ..live("1", Some("b\u{FFFF}\u{1}c")) };
    let (xml, stat) = read(vec![odd.clone(), live("2", Some("studio-a"))]);
    assert!(!xml.contains(['\u{FFFE}', '\u{FFFF}', '\u{1}']), "{xml:?}");
    let name = stat.server.application[0].live.stream.as_ref().unwrap()[0].name.clone();
    assert_eq!((stat.server.application[0].name.as_str(), name.as_str()), ("a\u{FFFD}", "b\u{FFFD}\u{FFFD}c"));
    // The name in the document finds the stream, and so does its own.
    for (app, name) in [("a\u{FFFD}", name.as_str()), ("a\u{FFFE}", "b\u{FFFF}\u{1}c")] {
        assert!(StatFilter { app: Some(app.into()), name: Some(name.into()) }.takes(&odd), "{app:?}");
    }
}

#[test]
fn figures_that_cannot_be_stay_within_their_numbers() {
    let mut stream = live("1", Some("boasting"));
    (stream.bitrate, stream.bytes) = (u64::MAX, u64::MAX);
    stream.upstreams.iter_mut().for_each(|upstream| (upstream.state, upstream.bytes) = ("live", u64::MAX));
    let other = StreamView { id: "2".into(), publisher: Some("other".into()), ..stream.clone() };
    let (xml, _) = read(vec![stream, other]);
    assert!(xml.contains(&format!("<bw_out>{0}</bw_out><bytes_out>{0}</bytes_out>", u64::MAX)), "{xml}");
}
