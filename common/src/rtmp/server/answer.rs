//! The answers to a publisher, as commands. In: the decisions of [`super`]. Out: messages, for its output.
//!
//! Note: OBS and librtmp understand a refused publish only as `onStatus` with the codes `BadName` or `Denied`, any other code hangs them
//! for 30 s; ffmpeg publishes in chunks of 128 bytes unless Set Chunk Size comes before the answer to `connect`; servers do not agree on
//! which of the two objects of that answer carries Enhanced RTMP's capabilities, so both do; xiu's push knows no AMF0 undefined and stops
//! there, and takes any answer with the number of `connect` for the answer to `connect`.

use super::super::amf0::Value;
use super::super::limits::{DEFAULT_CHUNK_SIZE, DEFAULT_WINDOW};
use super::super::message::{Command, Control, UserControl};
use super::ConnectInfo;

/// Chunk size of ours once the client has connected: no answer is longer, and ffmpeg adopts it for its media.
pub(super) const CHUNK_SIZE: u32 = 65_536;

/// Chunk stream of answers that belong to the connection.
const CONNECTION_CSID: u32 = 3;
/// Chunk stream of answers that belong to a stream.
const STREAM_CSID: u32 = 5;

/// Transaction of every client's `connect` (RTMP 1.0, 7.2.1.1).
const CONNECT_TRANSACTION: f64 = 1.0;

/// Enhanced RTMP: this server forwards codecs that it does not understand.
const CAN_FORWARD: f64 = 4.0;
/// `capsEx`: multitrack, ModEx and nanosecond offsets pass through as any payload does. Reconnect requests (1) are not sent.
const FORWARDED_CAPS: u32 = 2 | 4 | 8;

fn object(properties: Vec<(&str, Value)>) -> Value {
    Value::Object(properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn command(name: &str, transaction: f64, object: Value, arguments: Vec<Value>) -> Command {
    Command { name: name.to_owned(), transaction, object, arguments }
}

/// The whole answer to `connect`.
pub(super) fn connected(transaction: f64, info: &ConnectInfo) -> Vec<u8> {
    let mut out = Vec::new();
    Control::WindowAckSize(DEFAULT_WINDOW).write(&mut out, DEFAULT_CHUNK_SIZE);
    // 2 is dynamic, which binds no client; clients like FMLE wait for it.
    Control::SetPeerBandwidth { size: DEFAULT_WINDOW, limit: 2 }.write(&mut out, DEFAULT_CHUNK_SIZE);
    Control::SetChunkSize(CHUNK_SIZE).write(&mut out, DEFAULT_CHUNK_SIZE);
    let mut properties = vec![
        ("fmsVer", Value::string("FMS/3,5,7,7009")),
        ("capabilities", Value::Number(31.0)),
        ("mode", Value::Number(1.0)),
    ];
    let mut information = vec![
        ("level", Value::string("status")),
        ("code", Value::string("NetConnection.Connect.Success")),
        ("description", Value::string("Connection succeeded.")),
        // Always AMF0, whatever was asked for: we read no AMF3.
        ("objectEncoding", Value::Number(0.0)),
    ];
    if info.enhanced {
        let any = || object(vec![("*", Value::Number(CAN_FORWARD))]);
        let capabilities = vec![
            ("fourCcList", Value::StrictArray(vec![Value::string("*")])),
            ("videoFourCcInfoMap", any()),
            ("audioFourCcInfoMap", any()),
            ("capsEx", Value::Number(f64::from(info.caps_ex & FORWARDED_CAPS))),
        ];
        properties.extend(capabilities.clone());
        information.extend(capabilities);
    }
    command("_result", transaction, object(properties), vec![object(information)]).write(
        &mut out,
        CONNECTION_CSID,
        0,
        CHUNK_SIZE,
    );
    out
}

/// `_result` of a command whose only answer is that it was received. Transaction 0 asks for none (GStreamer's `releaseStream`), and
/// [`CONNECT_TRANSACTION`] would be understood as a second answer to `connect`.
pub(super) fn result(transaction: f64) -> Vec<u8> {
    let mut out = Vec::new();
    if transaction != 0.0 && transaction != CONNECT_TRANSACTION {
        command("_result", transaction, Value::Null, vec![Value::Null]).write(&mut out, CONNECTION_CSID, 0, CHUNK_SIZE);
    }
    out
}

/// `_result` of `createStream`, whatever its transaction.
pub(super) fn created(transaction: f64, stream: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let stream = Value::Number(f64::from(stream));
    command("_result", transaction, Value::Null, vec![stream]).write(&mut out, CONNECTION_CSID, 0, CHUNK_SIZE);
    out
}

/// `onFCPublish` or `onFCUnpublish`, then the `_result`.
pub(super) fn flash_media(name: &str, transaction: f64, code: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let information = object(vec![("level", Value::string("status")), ("code", Value::string(code))]);
    command(name, 0.0, Value::Null, vec![information]).write(&mut out, CONNECTION_CSID, 0, CHUNK_SIZE);
    out.extend(result(transaction));
    out
}

/// `onStatus` of a stream; its transaction is always 0 (RTMP 1.0, 7.2.2).
pub(super) fn status(stream: u32, level: &str, code: &str, description: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let information = object(vec![
        ("level", Value::string(level)),
        ("code", Value::string(code)),
        ("description", Value::string(description)),
    ]);
    command("onStatus", 0.0, Value::Null, vec![information]).write(&mut out, STREAM_CSID, stream, CHUNK_SIZE);
    out
}

/// The stream can be used, and may be sent.
pub(super) fn started(stream: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Control::UserControl(UserControl::StreamBegin(stream)).write(&mut out, CHUNK_SIZE);
    out.extend(status(stream, "status", "NetStream.Publish.Start", "Publishing."));
    out
}
