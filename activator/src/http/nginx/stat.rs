//! The document of `/stat`, in the XML of nginx-rtmp's module. In: streams. Out: text. Pure.
//!
//! It is as strict as the strictest of its readers. Note: some read a whole number where nginx writes one with decimals, and refuse the whole document
//! otherwise; some need `<video>` and `<audio>` with a codec wherever there is a `<meta>`, and `<application>` at least once. Elements of one name
//! stand together, and every element that nginx always has is there.
//!
//! The name of a stream is its publisher's. A publisher without a name in the configuration file has the beginning of a keyed hash of app and key, which stays
//! the same while the control secret does. Keys are shown where that is configured.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::environment::COMMIT;
use quick_xml::se::SeError;
use serde::Serialize;

use crate::dispatch::{AudioView, StreamView, UpstreamView, VideoView};

/// The release of nginx-rtmp's module whose document this is.
const FORM: &str = "1.2.2";
/// The application of a document that has no stream: readers need one.
const SOME_APP: &str = "live";
/// Characters of the name of a publisher that has none.
const HASH: usize = 12;

/// The activator as the document's head has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct GatewayFigures {
    /// Age of the process.
    pub(super) uptime: Duration,
    /// The present.
    pub(super) utc: UtcTime,
    /// Connections of publishers so far.
    pub(super) accepted: u64,
    /// Bytes received from publishers so far, by all workers that tell this activator.
    pub(super) bytes_in: u64,
    /// Bytes sent to upstreams so far, by the same workers.
    pub(super) bytes_out: u64,
}

/// The streams that a client asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct StatFilter {
    /// The app.
    pub(super) app: Option<String>,
    /// The name, as the document has it.
    pub(super) name: Option<String>,
}

impl StatFilter {
    /// Returns whether the client asks for this stream.
    pub(super) fn takes(&self, stream: &StreamView) -> bool {
        self.takes_app(stream) && self.name.as_ref().is_none_or(|name| is_shown_as(&name_of(stream), name))
    }

    /// Returns whether the client asks for streams of this stream's app.
    pub(super) fn takes_app(&self, stream: &StreamView) -> bool {
        self.app.as_ref().is_none_or(|app| is_shown_as(&stream.app, app))
    }
}

/// Returns whether a client that has read `shown` in the document, or knows the text itself, means `text`.
fn is_shown_as(text: &str, shown: &str) -> bool {
    text == shown || writable(text) == shown
}

/// Text without the characters that no XML can have (XML 1.0, 2.2). Publishers choose app and key, and one of them must not make the document unreadable.
fn writable(text: &str) -> Cow<'_, str> {
    let is_writable = |c: char| !matches!(c, '\u{FFFE}' | '\u{FFFF}') && (c >= ' ' || matches!(c, '\t' | '\n' | '\r'));
    if text.chars().all(is_writable) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if is_writable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The name of a stream in the document.
fn name_of(stream: &StreamView) -> String {
    if let Some(key) = &stream.shown_key {
        return key.name().to_owned();
    }
    if let Some(publisher) = &stream.publisher {
        return publisher.clone();
    }
    let hash = stream.identity.map_or_else(|| stream.id.clone(), |identity| identity.to_string());
    hash.chars().take(HASH).collect()
}

/// The document of these streams.
///
/// # Errors
/// None that a stream can cause: every text is escaped.
pub(super) fn document(gateway: &GatewayFigures, streams: Vec<StreamView>, left_out: usize) -> Result<String, SeError> {
    let mut apps: BTreeMap<String, BTreeMap<String, StreamElement>> = BTreeMap::new();
    for stream in streams {
        // The publisher has gone. A worker that still has the stream keeps its upstreams, for the publisher to return, or for the rest.
        if matches!(stream.state, "grace" | "ending") {
            continue;
        }
        let element = StreamElement::new(&stream, gateway.utc);
        let known = apps.entry(stream.app).or_default().entry(element.name.clone());
        // Two workers may know a stream while it moves from one to the other.
        known.and_modify(|known| known.join(&element)).or_insert(element);
    }
    if apps.is_empty() {
        apps.insert(SOME_APP.to_owned(), BTreeMap::new());
    }
    let all = || apps.values().flat_map(BTreeMap::values);
    let head = Head {
        nginx_version: concat!("LiveEdgeCast/", env!("CARGO_PKG_VERSION")),
        nginx_rtmp_version: FORM,
        compiler: "rustc",
        built: COMMIT,
        pid: std::process::id(),
        uptime: gateway.uptime.as_secs(),
        naccepted: gateway.accepted,
        bw_in: all().fold(0, |sum, stream| sum.saturating_add(stream.bw_in)),
        bytes_in: gateway.bytes_in,
        bw_out: all().fold(0, |sum, stream| sum.saturating_add(stream.bw_out)),
        bytes_out: gateway.bytes_out,
        server: Server {
            application: apps
                .into_iter()
                .map(|(name, streams)| {
                    let nclients = streams.values().map(|stream| stream.nclients).sum();
                    Application { name, live: Live { stream: streams.into_values().collect(), nclients } }
                })
                .collect(),
        },
    };
    let left_out = match left_out {
        0 => String::new(),
        more => format!("<!-- {more} more streams: ask for one by ?app= and ?name= -->\n"),
    };
    let xml = quick_xml::se::to_string_with_root("rtmp", &head)?;
    Ok(format!("<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n{}\n{left_out}", writable(&xml)))
}

/// An element without content whose presence means yes.
type Flag = Option<()>;

#[derive(Serialize)]
struct Head {
    nginx_version: &'static str,
    nginx_rtmp_version: &'static str,
    compiler: &'static str,
    built: &'static str,
    pid: u32,
    uptime: u64,
    naccepted: u64,
    bw_in: u64,
    bytes_in: u64,
    bw_out: u64,
    bytes_out: u64,
    server: Server,
}

#[derive(Serialize)]
struct Server {
    application: Vec<Application>,
}

#[derive(Serialize)]
struct Application {
    name: String,
    live: Live,
}

#[derive(Serialize)]
struct Live {
    stream: Vec<StreamElement>,
    nclients: usize,
}

#[derive(Serialize)]
struct StreamElement {
    name: String,
    time: u64,
    bw_in: u64,
    bytes_in: u64,
    bw_out: u64,
    bytes_out: u64,
    bw_audio: u32,
    bw_video: u32,
    bw_data: u32,
    client: Vec<Client>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
    nclients: usize,
    publishing: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Flag,
}

/// A peer of the stream: the publisher, or an upstream.
#[derive(Serialize)]
struct Client {
    id: u32,
    address: String,
    port: u16,
    time: u64,
    flashver: &'static str,
    bytes_in: u64,
    bytes_out: u64,
    dropped: u64,
    avsync: u8,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    publishing: Flag,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Flag,
}

#[derive(Serialize)]
struct Meta {
    video: Video,
    audio: Audio,
}

#[derive(Serialize)]
struct Video {
    width: u32,
    height: u32,
    frame_rate: u32,
    codec: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compat: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<String>,
}

#[derive(Serialize)]
struct Audio {
    codec: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_rate: Option<u32>,
}

impl StreamElement {
    fn new(stream: &StreamView, now: UtcTime) -> Self {
        let time = stream.since.map_or(0, |since| now.0.saturating_sub(since.0));
        let live = (stream.state == "live").then_some(());
        let whole = |rate: u64| u32::try_from(rate).unwrap_or(u32::MAX);
        let id = number_of(&stream.id);
        let (address, port) =
            stream.peer.map_or_else(Default::default, |peer| (peer.ip().to_canonical().to_string(), peer.port()));
        let publisher = Client {
            id,
            address,
            port,
            time,
            flashver: "",
            bytes_in: stream.bytes,
            bytes_out: 0,
            dropped: 0,
            avsync: 0,
            timestamp: time,
            publishing: Some(()),
            active: live,
        };
        let upstreams = stream.upstreams.iter().enumerate().map(|(at, upstream)| {
            let at = u32::try_from(at + 1).unwrap_or_default();
            Client::of_upstream(id.wrapping_add(at), upstream, now)
        });
        let client: Vec<Client> = std::iter::once(publisher).chain(upstreams).collect();
        let sending = stream.upstreams.iter().filter(|upstream| upstream.state == "live").count() as u64;
        Self {
            name: name_of(stream),
            time,
            bw_in: stream.bitrate,
            bytes_in: stream.bytes,
            // Each upstream that is live gets what the publisher sends.
            bw_out: stream.bitrate.saturating_mul(sending),
            bytes_out: stream.upstreams.iter().fold(0, |sum, upstream| sum.saturating_add(upstream.bytes)),
            bw_audio: whole(stream.audio.as_ref().map_or(0, |audio| audio.bitrate)),
            bw_video: whole(stream.video.as_ref().map_or(0, |video| video.bitrate)),
            bw_data: 0,
            nclients: client.len(),
            client,
            meta: meta(stream),
            publishing: (),
            active: live,
        }
    }

    /// Adds what another worker knows of the same stream.
    fn join(&mut self, other: &Self) {
        self.bw_in = self.bw_in.max(other.bw_in);
        self.bw_out = self.bw_out.max(other.bw_out);
        self.bw_audio = self.bw_audio.max(other.bw_audio);
        self.bw_video = self.bw_video.max(other.bw_video);
        self.active = self.active.or(other.active);
    }
}

impl Client {
    fn of_upstream(id: u32, upstream: &UpstreamView, now: UtcTime) -> Self {
        let (host, port) = upstream.host.rsplit_once(':').unwrap_or((&upstream.host, ""));
        let time = upstream.since.map_or(0, |since| now.0.saturating_sub(since.0));
        Self {
            id,
            address: host.to_owned(),
            port: port.parse().unwrap_or_default(),
            time,
            flashver: "upstream",
            bytes_in: 0,
            bytes_out: upstream.bytes,
            dropped: upstream.lost,
            avsync: 0,
            timestamp: time,
            publishing: None,
            active: (upstream.state == "live").then_some(()),
        }
    }
}

/// A number for readers that want one, the same for the whole life of the stream. An id is random hexadecimal digits.
fn number_of(id: &str) -> u32 {
    let digits = id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    // Numbers of upstreams follow it.
    digits.unwrap_or_default() & 0x7FFF_FF00
}

/// The codecs, once one of them is known.
fn meta(stream: &StreamView) -> Option<Meta> {
    (stream.video.is_some() || stream.audio.is_some())
        .then(|| Meta { video: video(stream.video.as_ref()), audio: audio(stream.audio.as_ref()) })
}

fn video(video: Option<&VideoView>) -> Video {
    let codec = video.and_then(|video| video.codec.as_deref()).unwrap_or_default();
    let [profile, constraints, level] = video.map(|video| video.profile).unwrap_or_default();
    let is_known = profile > 0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a frame rate is small and not negative"
    )]
    let frame_rate = video.and_then(|video| video.frame_rate).unwrap_or_default().round() as u32;
    Video {
        width: video.and_then(|video| video.width).unwrap_or_default(),
        height: video.and_then(|video| video.height).unwrap_or_default(),
        frame_rate,
        codec: codec.to_uppercase(),
        profile: is_known.then(|| avc_profile(profile)),
        compat: is_known.then_some(constraints),
        level: is_known.then(|| format!("{}.{}", level / 10, level % 10)),
    }
}

/// Names of profiles (ISO 14496-10, A.2).
fn avc_profile(profile: u8) -> &'static str {
    match profile {
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 => "High 10",
        122 => "High 4:2:2",
        244 => "High 4:4:4",
        _ => "",
    }
}

fn audio(audio: Option<&AudioView>) -> Audio {
    Audio {
        codec: audio.map(|audio| audio.codec.to_uppercase()).unwrap_or_default(),
        profile: audio.filter(|audio| audio.object_type > 0).map(|audio| aac_profile(audio.object_type)),
        channels: audio.and_then(|audio| audio.channels),
        sample_rate: audio.and_then(|audio| audio.sample_rate),
    }
}

/// Names of object types (ISO 14496-3, 1.5.1.1).
fn aac_profile(object_type: u8) -> &'static str {
    match object_type {
        1 => "Main",
        2 => "LC",
        3 => "SSR",
        4 => "LTP",
        5 => "HE",
        29 => "HEv2",
        _ => "",
    }
}

#[cfg(test)]
#[path = "stat_tests.rs"]
mod tests;
