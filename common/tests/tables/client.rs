//! Answers of upstreams: for the client's tests, for the corpus, and as seeds for fuzzing.

use super::chunk::fmt0;

/// The end of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Live, on this message stream.
    Live(u32),
    /// Refused, with the name of the class.
    Refused(&'static str),
    /// Credentials are asked for.
    Asked,
    /// Sent to [`REDIRECT`].
    Redirected,
    /// Ended by the upstream once it was live, or about to be.
    Ended,
    /// Waiting, with the name of the stage.
    Waiting(&'static str),
}

/// An upstream.
pub struct Row {
    /// Name of the row, which says its peculiarity.
    pub name: &'static str,
    /// Bytes of the upstream after the handshake.
    pub bytes: Vec<u8>,
    /// End of the session.
    pub end: End,
}

/// AMF0.
pub fn string(text: &str) -> Vec<u8> {
    [&[2], &(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// AMF0.
pub fn number(value: f64) -> Vec<u8> {
    [&[0], &value.to_be_bytes()[..]].concat()
}

/// AMF0.
pub fn null() -> Vec<u8> {
    vec![5]
}

/// AMF0, an object of strings.
pub fn object(properties: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![3];
    for (name, value) in properties {
        bytes.extend((name.len() as u16).to_be_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(string(value));
    }
    bytes.extend([0, 0, 9]);
    bytes
}

/// A message in chunks of 128.
pub fn message(type_id: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = fmt0(3, 0, payload.len() as u32, type_id, stream);
    for (index, chunk) in payload.chunks(128).enumerate() {
        if index > 0 {
            bytes.push(0xC3);
        }
        bytes.extend(chunk);
    }
    bytes
}

/// A command.
pub fn command(name: &str, transaction: f64, values: &[Vec<u8>]) -> Vec<u8> {
    message(20, 0, &[string(name), number(transaction), values.concat()].concat())
}

/// `onStatus`, or an answer with an information object.
pub fn status(name: &str, transaction: f64, level: &str, code: &str, description: &str) -> Vec<u8> {
    let info = object(&[("level", level), ("code", code), ("description", description)]);
    command(name, transaction, &[null(), info])
}

/// The target of the rows that redirect.
pub const REDIRECT: &str = "rtmp://other.example/live";

/// A refusal that names another server, as Flash Media Server and SRS send it; with the given code of the redirect.
fn redirected(name: &str, transaction: f64, code: Vec<u8>) -> Vec<u8> {
    let mut info =
        object(&[("level", "error"), ("code", "NetConnection.Connect.Rejected"), ("description", "RTMP 302")]);
    let mut ex = vec![3, 0, 4];
    ex.extend(b"code");
    ex.extend(code);
    ex.extend([0, 8]);
    ex.extend(b"redirect");
    ex.extend(string(REDIRECT));
    ex.extend([0, 0, 9]);
    info.truncate(info.len() - 3);
    info.extend([0, 2]);
    info.extend(b"ex");
    info.extend(ex);
    info.extend([0, 0, 9]);
    command(name, transaction, &[null(), info])
}

/// The answer to `connect`.
pub fn connected() -> Vec<u8> {
    status("_result", 1.0, "status", "NetConnection.Connect.Success", "Connection succeeded.")
}

/// The answer to `createStream`.
pub fn created(transaction: f64, id: f64) -> Vec<u8> {
    command("_result", transaction, &[null(), number(id)])
}

/// The answer to `publish`.
pub fn started() -> Vec<u8> {
    status("onStatus", 0.0, "status", "NetStream.Publish.Start", "Start publishing")
}

fn refused_publish(code: &str) -> Vec<u8> {
    [connected(), created(4.0, 1.0), status("onStatus", 0.0, "error", code, "no")].concat()
}

fn refused_connect(code: &str, description: &str) -> Vec<u8> {
    status("_error", 1.0, "error", code, description)
}

/// Every upstream.
pub fn rows() -> Vec<Row> {
    let mut rows = live();
    rows.extend(refusing());
    rows.extend(waiting());
    rows
}

fn live() -> Vec<Row> {
    let live = |name, parts: &[Vec<u8>]| Row { name, bytes: parts.concat(), end: End::Live(1) };
    let on_stream = |name, id: u32| Row {
        name,
        bytes: [connected(), created(4.0, f64::from(id)), started()].concat(),
        end: End::Live(id),
    };
    let release = |name: &str| status(name, 2.0, "error", "NetConnection.Call.Failed", "Method not found");
    vec![
        live("nothing but the answers", &[connected(), created(4.0, 1.0), started()]),
        live(
            "everything that servers say",
            &[
                message(5, 0, &2_500_000_u32.to_be_bytes()),
                message(6, 0, &[0, 38, 37, 160, 2]),
                message(4, 0, &[0, 0, 0, 0, 0, 0]),
                connected(),
                command("onBWDone", 0.0, &[null(), number(8192.0)]),
                command("onBWDone", 0.0, &[null()]),
                command("_result", 2.0, &[null(), vec![6]]),
                command("onFCPublish", 0.0, &[null(), object(&[("code", "NetStream.Publish.Start")])]),
                command("_result", 3.0, &[null(), vec![6]]),
                created(4.0, 1.0),
                message(4, 0, &[0, 0, 0, 0, 0, 1]),
                message(4, 0, &[0, 6, 0, 0, 1, 2]),
                started(),
            ],
        ),
        live(
            "larger chunks",
            &[
                message(1, 0, &65_536_u32.to_be_bytes()),
                {
                    // Longer than 128 bytes, and in one chunk.
                    let info = object(&[
                        ("code", "NetConnection.Connect.Success"),
                        ("description", &"x".repeat(200)),
                        ("level", "status"),
                    ]);
                    let payload = [string("_result"), number(1.0), null(), info].concat();
                    [fmt0(3, 0, payload.len() as u32, 20, 0), payload].concat()
                },
                created(4.0, 1.0),
                started(),
            ],
        ),
        live(
            "transaction 0 everywhere",
            &[status("_result", 0.0, "status", "NetConnection.Connect.Success", ""), created(0.0, 1.0), started()],
        ),
        live("transaction 1 once more", &[connected(), created(1.0, 1.0), started()]),
        live("no such method as releaseStream", &[connected(), release("_error"), created(4.0, 1.0), started()]),
        live("releaseStream answered with a number", &[connected(), created(2.0, 9.0), created(4.0, 1.0), started()]),
        live(
            "an error without a transaction",
            &[
                connected(),
                status("_error", 0.0, "error", "NetConnection.Call.Failed", ""),
                created(4.0, 1.0),
                started(),
            ],
        ),
        live(
            "a result without information",
            &[command("_result", 1.0, &[]), command("_result", 4.0, &[null(), number(1.0)]), started()],
        ),
        live(
            "information where the object should be",
            &[
                connected(),
                created(4.0, 1.0),
                command("onStatus", 0.0, &[object(&[("level", "status"), ("code", "NetStream.Publish.Start")])]),
            ],
        ),
        live(
            "commands as AMF3",
            &[
                message(17, 0, &[&[0][..], &string("_result"), &number(1.0), &null()].concat()),
                message(17, 0, &[&[0][..], &string("_result"), &number(4.0), &null(), &number(1.0)].concat()),
                started(),
            ],
        ),
        live(
            "started without a level",
            &[
                connected(),
                created(4.0, 1.0),
                command("onStatus", 0.0, &[null(), object(&[("code", "NetStream.Publish.Start")])]),
            ],
        ),
        live("started twice", &[connected(), created(4.0, 1.0), started(), started()]),
        live(
            "media from the server",
            &[
                connected(),
                message(18, 0, &string("onMetaData")),
                message(9, 1, &[0x17, 1, 0, 0, 0]),
                created(4.0, 1.0),
                started(),
            ],
        ),
        live(
            "what cannot be read",
            &[
                message(20, 0, &[0xFF; 10]),
                message(20, 0, &[]),
                message(5, 0, &[0]),
                message(4, 0, &[]),
                message(99, 0, &[1]),
                connected(),
                created(4.0, 1.0),
                started(),
            ],
        ),
        live(
            "an error after the start that concerns nothing",
            &[
                connected(),
                created(4.0, 1.0),
                started(),
                status("_error", 6.0, "error", "NetConnection.Call.Failed", "_checkbw"),
            ],
        ),
        live(
            "bandwidth measured",
            &[connected(), command("_onbwcheck", 7.0, &[null(), string("xxxx")]), created(4.0, 1.0), started()],
        ),
        on_stream("message stream 5", 5),
        on_stream("highest message stream", u32::MAX),
        live("recording that fails before the start", &[connected(), created(4.0, 1.0), no_record(), started()]),
        live("recording that fails when it is live", &[connected(), created(4.0, 1.0), started(), no_record()]),
        live("playing that fails when it is live", &{
            let failed = status("onStatus", 0.0, "error", "NetStream.Play.StreamNotFound", "");
            [connected(), created(4.0, 1.0), started(), failed]
        }),
        live("a call that fails when it is live", &{
            let failed = status("onStatus", 0.0, "error", "NetConnection.Call.Failed", "");
            [connected(), created(4.0, 1.0), started(), failed]
        }),
        live("an error without a code when it is live", &{
            [connected(), created(4.0, 1.0), started(), status("onStatus", 0.0, "error", "", "oh")]
        }),
        live("createStream that fails when it is live", &{
            let failed = status("_error", 4.0, "error", "NetConnection.Connect.Failed", "");
            [connected(), created(4.0, 1.0), started(), failed]
        }),
        live("another message stream that is refused when it is live", &{
            let info = object(&[("level", "error"), ("code", "NetStream.Publish.BadName")]);
            let other = message(20, 9, &[string("onStatus"), number(0.0), null(), info].concat());
            [connected(), created(4.0, 1.0), started(), other]
        }),
        live("another message stream that is unpublished when it is live", &{
            let info = object(&[("level", "status"), ("code", "NetStream.Unpublish.Success")]);
            let other = message(20, 9, &[string("onStatus"), number(0.0), null(), info].concat());
            [connected(), created(4.0, 1.0), started(), other]
        }),
    ]
}

fn no_record() -> Vec<u8> {
    status("onStatus", 0.0, "error", "NetStream.Record.NoAccess", "disk full")
}

fn refusing() -> Vec<Row> {
    let refused = |name, class, bytes| Row { name, bytes, end: End::Refused(class) };
    let need = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ";
    let proof = "[ AccessManager.Reject ] : [ authmod=llnw ] : ?reason=needauth&user=foo&nonce=abc";
    let wrong = "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed&opaque=xyz";
    let asked = |name, description| Row {
        name,
        bytes: refused_connect("NetConnection.Connect.Rejected", description),
        end: End::Asked,
    };
    vec![
        refused("name taken", "bad_name", refused_publish("NetStream.Publish.BadName")),
        refused("denied", "denied", refused_publish("NetStream.Publish.Denied")),
        refused("unauthorized, by MediaMTX", "denied", refused_publish("NetStream.Publish.Unauthorized")),
        refused("failed", "refused", refused_publish("NetStream.Publish.Failed")),
        refused("an error without a code", "refused", refused_publish("")),
        refused("rejected", "denied", refused_connect("NetConnection.Connect.Rejected", "no such app")),
        refused("no such app", "denied", refused_connect("NetConnection.Connect.InvalidApp", "")),
        refused("shut down", "refused", refused_connect("NetConnection.Connect.AppShutdown", "")),
        refused("an error and nothing else", "denied", command("_error", 1.0, &[])),
        refused("wrong password", "denied", refused_connect("NetConnection.Connect.Rejected", wrong)),
        refused(
            "unknown way to ask",
            "denied",
            refused_connect("NetConnection.Connect.Rejected", "[ code=403 need auth; authmod=kerberos ]"),
        ),
        refused(
            "a result that says no",
            "denied",
            status("_result", 1.0, "error", "NetConnection.Connect.Rejected", "no"),
        ),
        refused(
            "a status instead of an answer to connect",
            "denied",
            status("onStatus", 0.0, "error", "NetConnection.Connect.Rejected", "no"),
        ),
        refused(
            "no stream to be had",
            "refused",
            [connected(), status("_error", 4.0, "error", "NetConnection.Call.Failed", "")].concat(),
        ),
        refused("stream id 0", "protocol", [connected(), created(4.0, 0.0)].concat()),
        refused("stream id below 0", "protocol", [connected(), created(4.0, -1.0)].concat()),
        refused("stream id of a half", "protocol", [connected(), created(4.0, 1.5)].concat()),
        refused("stream id that is none", "protocol", [connected(), created(4.0, f64::NAN)].concat()),
        refused("stream id beyond 32 bits", "protocol", [connected(), created(4.0, 4_294_967_296.0)].concat()),
        refused("no stream id", "protocol", [connected(), command("_result", 4.0, &[null(), null()])].concat()),
        refused(
            "refused as an answer to publish",
            "bad_name",
            [connected(), created(4.0, 1.0), status("_error", 5.0, "error", "NetStream.Publish.BadName", "")].concat(),
        ),
        refused(
            "refused when it was live",
            "denied",
            [
                connected(),
                created(4.0, 1.0),
                started(),
                status("onStatus", 0.0, "error", "NetStream.Publish.Denied", ""),
            ]
            .concat(),
        ),
        asked("credentials asked for", need),
        asked("proof asked for", proof),
        Row { name: "redirected at connect", bytes: redirected("_error", 1.0, number(302.0)), end: End::Redirected },
        Row {
            name: "redirected by a status, with the code as a text",
            bytes: redirected("onStatus", 0.0, string("302")),
            end: End::Redirected,
        },
        Row {
            name: "redirected at publish",
            bytes: [connected(), created(4.0, 1.0), redirected("onStatus", 0.0, number(302.0))].concat(),
            end: End::Redirected,
        },
        refused("a redirect of another code", "denied", redirected("_error", 1.0, number(301.0))),
        refused(
            "redirected when it is live",
            "denied",
            [connected(), created(4.0, 1.0), started(), redirected("onStatus", 0.0, number(302.0))].concat(),
        ),
        refused("a wrong signature", "denied", refused_publish("NetStream.Publish.InvalidSign")),
        refused("forbidden", "denied", refused_publish("NetStream.Publish.Forbidden")),
        refused("a wrong key", "denied", refused_publish("NetStream.Publish.InvalidKey")),
        refused("a code of nobody else", "refused", refused_publish("NetStream.Publish.WrongPlanet")),
        refused("connect failed", "refused", refused_connect("NetConnection.Connect.Failed", "")),
        refused("a no that is called a status", "bad_name", {
            let taken = status("onStatus", 0.0, "status", "NetStream.Publish.BadName", "");
            [connected(), created(4.0, 1.0), taken].concat()
        }),
        refused(
            "failed as an answer to publish",
            "refused",
            [connected(), created(4.0, 1.0), status("_error", 5.0, "error", "NetConnection.Call.Failed", "")].concat(),
        ),
        refused("the application shut down when it was live", "refused", {
            let shut_down = status("onStatus", 0.0, "error", "NetConnection.Connect.AppShutdown", "");
            [connected(), created(4.0, 1.0), started(), shut_down].concat()
        }),
    ]
}

fn waiting() -> Vec<Row> {
    let ended =
        |name, last| Row { name, bytes: [connected(), created(4.0, 1.0), started(), last].concat(), end: End::Ended };
    let waiting = |name, stage, bytes| Row { name, bytes, end: End::Waiting(stage) };
    vec![
        ended("closed by a command", command("close", 0.0, &[null()])),
        ended("unpublished", status("onStatus", 0.0, "status", "NetStream.Unpublish.Success", "")),
        ended(
            "asked to come again",
            command(
                "onStatus",
                0.0,
                &[
                    null(),
                    object(&[
                        ("level", "status"),
                        ("code", "NetConnection.Connect.ReconnectRequest"),
                        ("tcUrl", "rtmp://other.example/live"),
                    ]),
                ],
            ),
        ),
        waiting("silent after the handshake", "connect", vec![]),
        waiting("silent after connect", "create_stream", connected()),
        waiting("silent after createStream", "publish", [connected(), created(4.0, 1.0)].concat()),
        waiting("createStream before connect", "connect", created(4.0, 1.0)[..20].to_vec()),
        waiting("started before publish", "create_stream", [connected(), started()].concat()),
        waiting("another status", "publish", {
            let idle = status("onStatus", 0.0, "status", "NetStream.Publish.Idle", "");
            [connected(), created(4.0, 1.0), idle].concat()
        }),
    ]
}
