//! The requests of a publisher, as types. In: commands. Out: the fields that admission, the lobby and hooks need, bounded.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::amf0::{self, Value};
use super::super::limits::{MAX_APP_TEXT, MAX_CONNECT_TEXT};
use crate::key::{LogSafe, StreamKey};

/// The `connect` of a publisher. `Debug` leaves out all fields that may hold a query.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectInfo {
    /// App as it came; [`crate::key::AppName::parse`] checks it.
    pub app: String,
    /// URL that the client believes it connected to, query included. Like the other texts, cut at [`MAX_CONNECT_TEXT`].
    pub tc_url: String,
    /// Name and version by which the client describes itself.
    pub flash_ver: String,
    /// `swfUrl`, for hooks.
    pub swf_url: String,
    /// `pageUrl`, for hooks.
    pub page_url: String,
    /// True if the client asked for Enhanced RTMP.
    pub enhanced: bool,
    /// `capsEx` of Enhanced RTMP: reconnect 1, multitrack 2, ModEx 4, nanoseconds 8.
    pub caps_ex: u32,
}

impl ConnectInfo {
    pub(super) fn read(object: &Value) -> Self {
        let text = |name: &str, limit: usize| {
            let text = object.property(name).and_then(Value::as_str).unwrap_or_default();
            amf0::cut(text, limit).to_owned()
        };
        let asks = ["fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap", "capsEx"];
        Self {
            app: text("app", MAX_APP_TEXT),
            tc_url: text("tcUrl", MAX_CONNECT_TEXT),
            flash_ver: text("flashVer", MAX_CONNECT_TEXT),
            swf_url: text("swfUrl", MAX_CONNECT_TEXT),
            page_url: text("pageUrl", MAX_CONNECT_TEXT),
            enhanced: asks.iter().any(|name| object.property(name).is_some()),
            // A float beyond the range becomes the nearest number, NaN becomes 0.
            caps_ex: object.property("capsEx").and_then(Value::as_f64).unwrap_or_default() as u32,
        }
    }
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let app = self.app.split('?').next().unwrap_or_default();
        formatter
            .debug_struct("ConnectInfo")
            .field("app", &LogSafe(app))
            .field("flash_ver", &LogSafe(&self.flash_ver))
            .field("enhanced", &self.enhanced)
            .finish_non_exhaustive()
    }
}

/// The `publish` of a publisher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// The publishing name with its query, byte for byte.
    pub key: StreamKey,
    /// Type, which is `live`, `record`, `append` or nothing: reported, never acted upon.
    pub kind: String,
    /// Message stream of the command; its media comes on it.
    pub message_stream: u32,
    /// Transaction of the command.
    pub transaction: f64,
}

/// The ways to refuse a publish: the two codes that every client measured understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `NetStream.Publish.BadName`.
    BadName,
    /// `NetStream.Publish.Denied`.
    Denied,
}

/// The command that ended the publish cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndedBy {
    /// `FCUnpublish`.
    FcUnpublish,
    /// `deleteStream`.
    DeleteStream,
    /// `closeStream`.
    CloseStream,
}
