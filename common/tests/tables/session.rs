//! Publishers after the handshake, good and bad, and the events and answers they cause: for the session's tests, for the corpus, and as
//! seeds for fuzzing. The publish is accepted as soon as it is requested.

use super::amf0::{number, object, property, text};
use super::chunk::{bytes, ext, fmt0, fmt1, fmt2, fmt3, set_chunk_size};

/// A publisher.
pub struct Row {
    /// Name of the row, which says its peculiarity.
    pub name: &'static str,
    /// Bytes of the publisher after the handshake.
    pub bytes: Vec<u8>,
    /// Events in words; a message of media when it is complete: type, timestamp, length.
    pub events: Vec<&'static str>,
    /// Answers in words, after the answer to `connect` (which begins them unless there was no connect).
    pub told: Vec<&'static str>,
    /// The error's text contains this.
    pub error: Option<&'static str>,
}

/// A message in chunks.
pub fn message(chunk_size: usize, csid: u32, type_id: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = fmt0(csid, 0, payload.len() as u32, type_id, stream);
    for (index, chunk) in payload.chunks(chunk_size).enumerate() {
        if index > 0 {
            out.extend(fmt3(csid));
        }
        out.extend(chunk);
    }
    out
}

/// A command in chunks of 128 bytes.
pub fn command(csid: u32, stream: u32, name: &str, transaction: f64, rest: &[Vec<u8>]) -> Vec<u8> {
    message(128, csid, 20, stream, &[text(name), number(transaction), rest.concat()].concat())
}

fn null() -> Vec<u8> {
    vec![5]
}

/// `connect` with these properties.
pub fn connect(properties: &[Vec<u8>]) -> Vec<u8> {
    command(3, 0, "connect", 1.0, &[object(&[3], properties)])
}

/// `connect` to `live`.
pub fn plain_connect() -> Vec<u8> {
    connect(&[property("app", &text("live")), property("tcUrl", &text("rtmp://localhost/live"))])
}

fn create(transaction: f64) -> Vec<u8> {
    command(3, 0, "createStream", transaction, &[null()])
}

/// `publish` on a message stream.
pub fn publish(stream: u32, key: &str) -> Vec<u8> {
    command(8, stream, "publish", 0.0, &[null(), text(key), text("live")])
}

/// The bytes up to and including `publish`.
pub fn up_to_publish() -> Vec<u8> {
    [plain_connect(), create(2.0), publish(1, "key")].concat()
}

/// Audio with a timestamp, on message stream 1.
pub fn audio(timestamp: u32, length: usize) -> Vec<u8> {
    [fmt0(4, timestamp, length as u32, 8, 1), bytes(length)].concat()
}

fn ping(timestamp: u32) -> Vec<u8> {
    message(128, 2, 4, 0, &[&[0, 6][..], &ext(timestamp)].concat())
}

const EVENTS: [&str; 2] = ["connected", "publish key on 1"];
const TOLD: [&str; 3] = ["_result 2 1", "begin 1", "onStatus 1 status NetStream.Publish.Start"];

fn row(name: &'static str, parts: &[Vec<u8>], events: &[&'static str], told: &[&'static str]) -> Row {
    Row { name, bytes: parts.concat(), events: events.to_vec(), told: told.to_vec(), error: None }
}

/// A row whose bytes come after a normal `publish` of `key` on 1.
fn live(name: &'static str, parts: &[Vec<u8>], events: &[&'static str], told: &[&'static str]) -> Row {
    let told = [&TOLD[..], told].concat();
    row(name, &[up_to_publish(), parts.concat()], &[&EVENTS[..], events].concat(), &told)
}

fn refused(
    name: &'static str,
    parts: &[Vec<u8>],
    events: &[&'static str],
    told: &[&'static str],
    error: &'static str,
) -> Row {
    Row { error: Some(error), ..row(name, parts, events, told) }
}

/// The rows.
pub fn rows() -> Vec<Row> {
    [clients(), order(), names(), media(), ends(), flow_control(), nonsense()].into_iter().flatten().collect()
}

/// Bytes of real clients, shortened.
fn clients() -> Vec<Row> {
    let in_4096 = |csid, stream, name: &str, transaction, rest: &[Vec<u8>]| {
        message(4096, csid, 20, stream, &[text(name), number(transaction), rest.concat()].concat())
    };
    let obs_connect = object(
        &[3],
        &[
            property("app", &text("live")),
            property("type", &text("nonprivate")),
            property("flashVer", &text("FMLE/3.0 (compatible; FMSc/1.0)")),
            property("swfUrl", &text("rtmp://localhost/live")),
            property("tcUrl", &text("rtmp://localhost/live")),
        ],
    );
    vec![
        row(
            "OBS",
            &[
                set_chunk_size(4096),
                in_4096(3, 0, "connect", 1.0, &[obs_connect]),
                in_4096(3, 0, "releaseStream", 2.0, &[null(), text("key")]),
                in_4096(3, 0, "FCPublish", 3.0, &[null(), text("key")]),
                in_4096(3, 0, "createStream", 4.0, &[null()]),
                in_4096(4, 1, "publish", 5.0, &[null(), text("key"), text("live")]),
                [fmt0(4, 0, 300, 9, 1), bytes(300), fmt1(4, 0, 4, 8), bytes(4), fmt3(4), bytes(4)].concat(),
                in_4096(3, 0, "FCUnpublish", 6.0, &[null(), text("key")]),
                in_4096(3, 0, "deleteStream", 7.0, &[null(), number(1.0)]),
            ],
            &["connected", "publish key on 1", "media 9 0 300", "media 8 0 4", "media 8 0 4", "ended by FcUnpublish"],
            &[
                "_result 2",
                "onFCPublish NetStream.Publish.Start",
                "_result 3",
                "_result 4 1",
                "begin 1",
                "onStatus 1 status NetStream.Publish.Start",
                "onFCUnpublish NetStream.Unpublish.Success",
                "_result 6",
                "onStatus 1 status NetStream.Unpublish.Success",
            ],
        ),
        row(
            "GStreamer: transaction 0, window after connect, chunk size after publish",
            &[
                plain_connect(),
                message(128, 2, 5, 0, &ext(2_500_000)),
                command(3, 0, "releaseStream", 0.0, &[null(), text("key")]),
                command(3, 0, "FCPublish", 0.0, &[null(), text("key")]),
                create(2.0),
                command(4, 1, "publish", 0.0, &[null(), text("key"), text("live")]),
                set_chunk_size(128),
                audio(0, 10),
            ],
            &["connected", "publish key on 1", "media 8 0 10"],
            &[
                "onFCPublish NetStream.Publish.Start",
                "_result 2 1",
                "begin 1",
                "onStatus 1 status NetStream.Publish.Start",
            ],
        ),
        row(
            "nginx-rtmp push: media right behind publish, message stream 1 whatever it was told",
            &[
                set_chunk_size(4096),
                message(4096, 2, 5, 0, &ext(5_000_000)),
                in_4096(3, 0, "connect", 1.0, &[object(&[3], &[property("app", &text("live"))])]),
                in_4096(3, 0, "createStream", 2.0, &[null()]),
                in_4096(5, 1, "publish", 0.0, &[null(), text("key"), text("live")]),
                [fmt0(4, 0, 20, 18, 1), bytes(20), fmt0(7, 0, 2000, 9, 1), bytes(2000), fmt0(6, 0, 9, 8, 1), bytes(9)]
                    .concat(),
            ],
            &["connected", "publish key on 1", "media 18 0 20", "media 9 0 2000", "media 8 0 9"],
            &TOLD,
        ),
        row(
            "librtmp: begins with fmt1 on a fresh chunk stream",
            &[[fmt1(2, 0, 4, 5), ext(2_500_000)].concat(), up_to_publish()],
            &EVENTS,
            &TOLD,
        ),
        row(
            "AMF3 commands: AMF0 behind a zero",
            &[
                message(
                    128,
                    3,
                    17,
                    0,
                    &[vec![0], text("connect"), number(1.0), object(&[3], &[property("app", &text("live"))])].concat(),
                ),
                message(128, 3, 17, 0, &[vec![0], text("createStream"), number(2.0), null()].concat()),
                message(128, 3, 17, 1, &[vec![0], text("publish"), number(0.0), null(), text("key")].concat()),
            ],
            &EVENTS,
            &TOLD,
        ),
        row(
            "everything at once, ids guessed",
            &[up_to_publish(), audio(7, 5), command(3, 0, "deleteStream", 3.0, &[null(), number(1.0)])],
            &["connected", "publish key on 1", "media 8 7 5", "ended by DeleteStream"],
            &[&TOLD[..], &["onStatus 1 status NetStream.Unpublish.Success"]].concat(),
        ),
        row(
            "_checkbw and unknown commands",
            &[
                command(3, 0, "hello", 1.0, &[]),
                plain_connect(),
                command(3, 0, "_checkbw", 5.0, &[null()]),
                command(3, 0, "getStreamLength", 6.0, &[null(), text("key")]),
                command(3, 0, "_result", 7.0, &[null()]),
            ],
            &["connected"],
            &["_result 5"],
        ),
    ]
}

fn order() -> Vec<Row> {
    let before = |name, what: &str| {
        refused(name, &[command(3, 0, what, 2.0, &[null(), text("key")])], &[], &[], "a command before connect")
    };
    vec![
        before("publish before connect", "publish"),
        before("createStream before connect", "createStream"),
        before("releaseStream before connect", "releaseStream"),
        before("play before connect", "play"),
        refused("connect twice", &[plain_connect(), plain_connect()], &["connected"], &[], "connect twice"),
        live("connect again while live", &[plain_connect(), audio(1, 1)], &["media 8 1 1"], &[]),
        row(
            "publish before createStream",
            &[plain_connect(), publish(1, "key"), audio(0, 1)],
            &["connected", "publish key on 1", "media 8 0 1"],
            &TOLD[1..],
        ),
        row(
            "publish on message stream 0: media on any",
            &[plain_connect(), publish(0, "key"), audio(0, 1)],
            &["connected", "publish key on 0", "media 8 0 1"],
            &["begin 0", "onStatus 0 status NetStream.Publish.Start"],
        ),
        row(
            "createStream twice, publish on the second",
            &[plain_connect(), create(2.0), create(3.0), publish(2, "key"), audio(0, 1)],
            &["connected", "publish key on 2"],
            &["_result 2 1", "_result 3 2", "begin 2", "onStatus 2 status NetStream.Publish.Start"],
        ),
        refused(
            "createStream flood",
            &[plain_connect(), create(2.0).repeat(9)],
            &["connected"],
            &[
                "_result 2 1",
                "_result 2 2",
                "_result 2 3",
                "_result 2 4",
                "_result 2 5",
                "_result 2 6",
                "_result 2 7",
                "_result 2 8",
            ],
            "message streams",
        ),
        live(
            "createStream flood while live",
            &[create(0.0).repeat(200), audio(1, 1)],
            &["media 8 1 1"],
            &["_result 0 2", "_result 0 3", "_result 0 4", "_result 0 5", "_result 0 6", "_result 0 7", "_result 0 8"],
        ),
        refused(
            "commands without end",
            &[plain_connect(), command(3, 0, "hello", 0.0, &[]).repeat(64)],
            &["connected"],
            &[],
            "commands without a publish",
        ),
        live("commands without end while live", &[command(3, 0, "hello", 0.0, &[]).repeat(300)], &[], &[]),
        live("publish again, the same", &[publish(1, "key"), audio(1, 1)], &["media 8 1 1"], &[]),
        live(
            "publish twice, another name",
            &[publish(1, "other"), audio(1, 1)],
            &["media 8 1 1"],
            &["onStatus 1 error NetStream.Publish.BadName"],
        ),
        live(
            "two streams on one connection",
            &[create(3.0), publish(2, "other"), [fmt0(6, 3, 5, 8, 2), bytes(5)].concat(), audio(1, 1)],
            &["media 8 1 1"],
            &["_result 3 2", "onStatus 2 error NetStream.Publish.BadName"],
        ),
        refused(
            "play on a relay for publishers",
            &[plain_connect(), create(2.0), command(8, 1, "play", 0.0, &[null(), text("key")])],
            &["connected"],
            &["_result 2 1", "onStatus 1 error NetStream.Play.StreamNotFound"],
            "wants to play",
        ),
        live(
            "play while publishing",
            &[command(8, 2, "play", 0.0, &[null(), text("key")]), audio(1, 1)],
            &["media 8 1 1"],
            &["onStatus 2 error NetStream.Play.StreamNotFound"],
        ),
    ]
}

fn names() -> Vec<Row> {
    let bad = |name, argument: Vec<u8>, error| {
        refused(
            name,
            &[plain_connect(), command(8, 1, "publish", 0.0, &[null(), argument, text("live")])],
            &["connected"],
            &["onStatus 1 error NetStream.Publish.BadName"],
            error,
        )
    };
    vec![
        bad("empty name", text(""), "empty"),
        bad("name of 256 bytes", text(&"k".repeat(256)), "too long"),
        bad("name with a query of 4608 bytes", text(&format!("k?{}", "q".repeat(4608))), "too long"),
        bad("long string of 60000 bytes", [&[12, 0, 0, 0xEA, 0x60][..], &[b'k'; 60_000]].concat(), "too long"),
        bad("slash", text("/"), "ends with a slash"),
        bad("dots", text("../key"), "`..`"),
        bad("question mark alone", text("?"), "empty"),
        bad("NUL", text("a\0b"), "control"),
        bad("CR LF", text("a\r\nX-Admin: 1"), "control"),
        bad("not UTF-8", vec![2, 0, 2, 0xC3, 0x28], "UTF-8"),
        bad("a number", number(1.0), "empty"),
        bad("a boolean", vec![1, 1], "empty"),
        bad("an object", object(&[3], &[]), "empty"),
        refused(
            "no arguments",
            &[plain_connect(), command(8, 1, "publish", 0.0, &[])],
            &["connected"],
            &["onStatus 1 error NetStream.Publish.BadName"],
            "empty",
        ),
        row(
            "percent, query, spaces: byte for byte",
            &[plain_connect(), publish(1, "a%2Fb c?x=../%00&y=/")],
            &["connected", "publish a%2Fb c?x=../%00&y=/ on 1"],
            &TOLD[1..],
        ),
        row(
            "a query without a name (Bilibili)",
            &[plain_connect(), publish(1, "?streamname=1&key=2")],
            &["connected", "publish ?streamname=1&key=2 on 1"],
            &TOLD[1..],
        ),
        row(
            "no type, not even an app",
            &[connect(&[]), command(8, 1, "publish", f64::NAN, &[null(), text("key")])],
            &["connected", "publish key on 1"],
            &TOLD[1..],
        ),
        live(
            "publish of a bad name while live",
            &[publish(1, "../x"), audio(1, 1)],
            &["media 8 1 1"],
            &["onStatus 1 error NetStream.Publish.BadName"],
        ),
    ]
}

fn media() -> Vec<Row> {
    vec![
        row(
            "media before connect",
            &[audio(0, 9), up_to_publish(), audio(1, 9)],
            &["connected", "publish key on 1", "media 8 1 9"],
            &TOLD,
        ),
        row(
            "media begun before publish and completed behind it",
            &[
                plain_connect(),
                create(2.0),
                [fmt0(6, 0, 200, 9, 1), bytes(128)].concat(),
                publish(1, "key"),
                [fmt3(6), bytes(72)].concat(),
                audio(1, 9),
            ],
            &["connected", "publish key on 1", "media 8 1 9"],
            &TOLD,
        ),
        live(
            "media of another message stream",
            &[[fmt0(6, 3, 5, 8, 2), bytes(5)].concat(), audio(1, 1)],
            &["media 8 1 1"],
            &[],
        ),
        live(
            "media without a message stream (fmt1, fmt2 first)",
            &[[fmt1(6, 3, 5, 8), bytes(5), fmt2(33, 0)].concat()],
            &["media 8 3 5"],
            &[],
        ),
        live(
            "empty audio, one byte of video",
            &[audio(0, 0), [fmt0(6, 0, 1, 9, 1), vec![0x17]].concat()],
            &["media 8 0 0", "media 9 0 1"],
            &[],
        ),
        live(
            "an acknowledgement and a command within a video message",
            &[
                [fmt0(6, 5, 200, 9, 1), bytes(128)].concat(),
                message(128, 2, 3, 0, &ext(77)),
                command(3, 0, "_checkbw", 9.0, &[null()]),
                [fmt3(6), bytes(72)].concat(),
            ],
            &["media 9 5 200"],
            &["_result 9"],
        ),
        live(
            "a video message that is aborted",
            &[[fmt0(6, 5, 200, 9, 1), bytes(128)].concat(), message(128, 2, 2, 0, &ext(6)), audio(6, 1)],
            &["aborted", "media 8 6 1"],
            &[],
        ),
        live(
            "a dropped message that is aborted, and the next one is not",
            &[
                [fmt0(6, 5, 200, 9, 2), bytes(128)].concat(),
                message(128, 2, 2, 0, &ext(6)),
                [fmt0(6, 6, 1, 9, 1), bytes(1)].concat(),
            ],
            &["media 9 6 1"],
            &[],
        ),
        live(
            "timestamps: extended, wrapping, backwards",
            &[
                [fmt0(4, 0xFF_FFFF, 1, 8, 1), ext(0xFFFF_FFFF), bytes(1), fmt1(4, 2, 1, 8), bytes(1)].concat(),
                audio(0x0100_0000 - 2, 1),
                audio(0, 1),
            ],
            &["media 8 4294967295 1", "media 8 1 1", "media 8 16777214 1", "media 8 0 1"],
            &[],
        ),
        live(
            "aggregate and AMF3 data",
            &[[fmt0(6, 0, 15, 22, 1), bytes(15)].concat(), [fmt0(4, 0, 3, 15, 1), bytes(3)].concat()],
            &["media 22 0 15", "media 15 0 3"],
            &[],
        ),
        live(
            "media behind the end",
            &[command(3, 0, "FCUnpublish", 0.0, &[null(), text("key")]), audio(1, 1)],
            &["ended by FcUnpublish"],
            &["onFCUnpublish NetStream.Unpublish.Success", "onStatus 1 status NetStream.Unpublish.Success"],
        ),
    ]
}

fn ends() -> Vec<Row> {
    const SUCCESS: &str = "onStatus 1 status NetStream.Unpublish.Success";
    const FC: &str = "onFCUnpublish NetStream.Unpublish.Success";
    let delete = |argument: &[Vec<u8>]| command(3, 0, "deleteStream", 7.0, &[&[null()], argument].concat());
    let fc = |rest: &[Vec<u8>]| command(3, 0, "FCUnpublish", 0.0, rest);
    vec![
        live("deleteStream 0", &[delete(&[number(0.0)]), audio(1, 1)], &["media 8 1 1"], &[]),
        live("deleteStream of an unknown stream", &[delete(&[number(7.0)]), audio(1, 1)], &["media 8 1 1"], &[]),
        live(
            "deleteStream of nonsense",
            &[
                delete(&[number(f64::NAN)]),
                delete(&[number(-1.0)]),
                delete(&[number(1.5)]),
                delete(&[number(1e300)]),
                delete(&[text("1")]),
                delete(&[]),
                audio(1, 1),
            ],
            &["media 8 1 1"],
            &[],
        ),
        live(
            "deleteStream on the stream itself, without a number",
            &[command(3, 1, "deleteStream", 0.0, &[])],
            &["ended by DeleteStream"],
            &[SUCCESS],
        ),
        live(
            "closeStream",
            &[command(8, 1, "closeStream", 0.0, &[null()]), audio(1, 1)],
            &["ended by CloseStream"],
            &[SUCCESS],
        ),
        live(
            "closeStream of another stream",
            &[command(8, 2, "closeStream", 0.0, &[null()]), audio(1, 1)],
            &["media 8 1 1"],
            &[],
        ),
        live("FCUnpublish of another name", &[fc(&[null(), text("other")]), audio(1, 1)], &["media 8 1 1"], &[FC]),
        live("FCUnpublish without a name", &[fc(&[])], &["ended by FcUnpublish"], &[FC, SUCCESS]),
        live(
            "FCUnpublish with another query",
            &[fc(&[null(), text("key?a=b")])],
            &["ended by FcUnpublish"],
            &[FC, SUCCESS],
        ),
        live(
            "every end at once: the first wins",
            &[fc(&[null(), text("key")]), command(8, 1, "closeStream", 0.0, &[null()]), delete(&[number(1.0)])],
            &["ended by FcUnpublish"],
            &[FC, SUCCESS],
        ),
        live(
            "FCUnpublish, then publish again on the same connection",
            &[fc(&[null(), text("key")]), publish(1, "key"), audio(1, 1)],
            &["ended by FcUnpublish"],
            &[FC, SUCCESS, "onStatus 1 error NetStream.Publish.BadName"],
        ),
        row(
            "FCUnpublish and deleteStream before publish",
            &[plain_connect(), fc(&[null(), text("key")]), delete(&[number(1.0)]), publish(1, "key")],
            &["connected", "publish key on 1"],
            &[FC, "begin 1", "onStatus 1 status NetStream.Publish.Start"],
        ),
    ]
}

fn flow_control() -> Vec<Row> {
    let window = |size| message(128, 2, 5, 0, &ext(size));
    let chunks =
        |count: usize| [set_chunk_size(4096), (0..count).flat_map(|at| audio(at as u32, 400)).collect()].concat();
    const MEDIA: [&str; 6] =
        ["media 8 0 400", "media 8 1 400", "media 8 2 400", "media 8 3 400", "media 8 4 400", "media 8 5 400"];
    vec![
        live("window 0", &[window(0), chunks(6)], &MEDIA, &[]),
        live("window 1", &[window(1), chunks(6)], &MEDIA, &["acknowledged"]),
        live("window 4096", &[window(4096), chunks(6)], &MEDIA, &["acknowledged"]),
        live("window 2^32 - 1", &[window(u32::MAX), chunks(6)], &MEDIA, &[]),
        live("window cut short", &[message(128, 2, 5, 0, &[0, 0]), audio(0, 1)], &["media 8 0 1"], &[]),
        live(
            "acknowledgements beyond reason",
            &[message(128, 2, 3, 0, &ext(u32::MAX)).repeat(3), message(128, 2, 3, 0, &[1])],
            &[],
            &[],
        ),
        live("ping", &[ping(0), ping(u32::MAX)], &[], &["pong 0", "pong 4294967295"]),
        live(
            "ping cut short, unknown user control, nothing at all",
            &[
                message(128, 2, 4, 0, &[0, 6, 0]),
                message(128, 2, 4, 0, &[0, 26, 1, 2, 3, 4]),
                message(128, 2, 4, 0, &[0, 33]),
                message(128, 2, 4, 0, &[]),
                message(128, 2, 4, 0, &[&[0, 3][..], &ext(1), &ext(3000)].concat()),
                message(128, 2, 6, 0, &[0, 0, 0, 1, 0]),
            ],
            &[],
            &[],
        ),
        live("pong", &[message(128, 2, 4, 0, &[&[0, 7][..], &ext(1234)].concat())], &["pong 1234"], &[]),
        refused("chunk size 0", &[plain_connect(), set_chunk_size(0)], &["connected"], &[], "chunk size"),
        refused(
            "chunk size with the high bit",
            &[plain_connect(), set_chunk_size(0x8000_0000)],
            &["connected"],
            &[],
            "chunk size",
        ),
    ]
}

fn nonsense() -> Vec<Row> {
    let raw = |payload: &[u8]| message(128, 3, 20, 0, payload);
    vec![
        refused("a command of nothing", &[raw(&[])], &[], &[], "without a name"),
        refused("a command of an object end", &[raw(&[9])], &[], &[], "0x09"),
        refused("a command without a name", &[raw(&number(1.0))], &[], &[], "without a name"),
        refused("10000 nested arrays", &[raw(&[10, 0, 0, 0, 1].repeat(10_000))], &[], &[], "nested"),
        refused(
            "array of 2^32 - 1",
            &[raw(&[&text("connect")[..], &number(1.0), &[10, 255, 255, 255, 255]].concat())],
            &[],
            &[],
            "cut short",
        ),
        refused("a command of 16 MB", &[fmt0(3, 0, 0xFF_FFFF, 20, 0)], &[], &[], "at most"),
        live(
            "commands that cannot be read, while live",
            &[raw(&[]), raw(&[9]), raw(&[10, 0, 0, 0, 1].repeat(100)), audio(1, 1)],
            &["media 8 1 1"],
            &[],
        ),
        live(
            "types 0, 7, 16, 19 and 255",
            &[0, 7, 16, 19, 255].map(|type_id| message(128, 7, type_id, 1, &[1, 2, 3])),
            &[],
            &[],
        ),
        row(
            "connect with odd values: date, long string, wrong types, twice the same, XML, references",
            &[connect(&[
                property("app", &[12, 0, 0, 0, 4, b'l', b'i', b'v', b'e']),
                property("time", &[&[11][..], &1.7e12_f64.to_be_bytes(), &[0, 0]].concat()),
                property("flashVer", &number(3.0)),
                property("tcUrl", &[7, 0, 1]),
                property("xml", &[15, 0, 0, 0, 3, b'<', b'a', b'>']),
                property("capsEx", &text("many")),
                property("capsEx", &number(-1e300)),
                property("", &null()),
            ])],
            &["connected"],
            &[],
        ),
        row("connect without an object", &[command(3, 0, "connect", 1.0, &[])], &["connected"], &[]),
        row("connect with AMF3", &[command(3, 0, "connect", 1.0, &[vec![17, 10, 11, 1]])], &["connected"], &[]),
    ]
}
