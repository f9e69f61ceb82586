//! Byte streams of chunks and the messages in them: for the scanner's tests, for the corpus, and as seeds for fuzzing.

/// Chunk stream, timestamp, type, message stream, payload.
pub type Message = (u32, u32, u8, u32, Vec<u8>);

/// The state at the end of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Complete: no message is open.
    Clean,
    /// So many messages are incomplete, or a header is.
    Open(usize),
    /// The scanner refuses; its error's text contains this.
    Refused(&'static str),
}

/// A byte stream.
pub struct Row {
    /// Name of the row, which says its peculiarity.
    pub name: &'static str,
    /// Bytes of the peer after the handshake.
    pub bytes: Vec<u8>,
    /// Complete messages, in the order of their completion.
    pub messages: Vec<Message>,
    /// (chunk stream, missing bytes) of messages that were given up.
    pub aborted: Vec<(u32, u32)>,
    /// State at the end.
    pub end: End,
}

/// Basic header.
pub fn basic(format: u8, csid: u32) -> Vec<u8> {
    match csid {
        2..=63 => vec![format << 6 | csid as u8],
        64..=319 => vec![format << 6, (csid - 64) as u8],
        _ => vec![format << 6 | 1, (csid - 64) as u8, ((csid - 64) >> 8) as u8],
    }
}

fn be24(value: u32) -> [u8; 3] {
    [(value >> 16) as u8, (value >> 8) as u8, value as u8]
}

/// fmt0 with a 24-bit timestamp field.
pub fn fmt0(csid: u32, timestamp: u32, length: u32, type_id: u8, stream_id: u32) -> Vec<u8> {
    let fields = [&be24(timestamp)[..], &be24(length), &[type_id], &stream_id.to_le_bytes()].concat();
    [basic(0, csid), fields].concat()
}

/// fmt1.
pub fn fmt1(csid: u32, delta: u32, length: u32, type_id: u8) -> Vec<u8> {
    [basic(1, csid), [&be24(delta)[..], &be24(length), &[type_id]].concat()].concat()
}

/// fmt2.
pub fn fmt2(csid: u32, delta: u32) -> Vec<u8> {
    [basic(2, csid), be24(delta).to_vec()].concat()
}

/// fmt3.
pub fn fmt3(csid: u32) -> Vec<u8> {
    basic(3, csid)
}

/// Extended timestamp.
pub fn ext(value: u32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// Set Chunk Size as a whole message.
pub fn set_chunk_size(size: u32) -> Vec<u8> {
    [fmt0(2, 0, 4, 1, 0), ext(size)].concat()
}

fn chunk_size_message(size: u32) -> Message {
    (2, 0, 1, 0, ext(size))
}

/// `length` different bytes.
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|byte| (byte * 7 + 3) as u8).collect()
}

fn row(name: &'static str, parts: &[&[u8]], messages: Vec<Message>, end: End) -> Row {
    Row { name, bytes: parts.concat(), messages, aborted: Vec::new(), end }
}

fn refused(name: &'static str, parts: &[&[u8]], messages: Vec<Message>, why: &'static str) -> Row {
    row(name, parts, messages, End::Refused(why))
}

/// The rows.
pub fn rows() -> Vec<Row> {
    [formats(), basic_headers(), chunk_sizes(), lengths(), interleaving(), aborts(), timestamps(), types()]
        .into_iter()
        .flatten()
        .collect()
}

fn formats() -> Vec<Row> {
    let first = |ts, payload: &[u8]| (4, ts, 8, 1, payload.to_vec());
    vec![
        row("fmt0", &[&fmt0(4, 9, 2, 8, 1), b"ab"], vec![first(9, b"ab")], End::Clean),
        row(
            "fmt1 keeps the message stream",
            &[&fmt0(4, 9, 2, 8, 1), b"ab", &fmt1(4, 10, 1, 9), b"c"],
            vec![first(9, b"ab"), (4, 19, 9, 1, b"c".to_vec())],
            End::Clean,
        ),
        row(
            "fmt2 keeps length and type",
            &[&fmt0(4, 9, 2, 8, 1), b"ab", &fmt2(4, 10), b"cd"],
            vec![first(9, b"ab"), first(19, b"cd")],
            End::Clean,
        ),
        row(
            "fmt3 begins a message with the last delta",
            &[&fmt0(4, 9, 2, 8, 1), b"ab", &fmt2(4, 10), b"cd", &fmt3(4), b"ef", &fmt3(4), b"gh"],
            vec![first(9, b"ab"), first(19, b"cd"), first(29, b"ef"), first(39, b"gh")],
            End::Clean,
        ),
        row(
            "fmt3 begins a message after fmt0: its timestamp is the delta",
            &[&fmt0(4, 9, 2, 8, 1), b"ab", &fmt3(4), b"cd"],
            vec![first(9, b"ab"), first(18, b"cd")],
            End::Clean,
        ),
        row(
            "fmt1 on a fresh chunk stream (librtmp)",
            &[&fmt1(2, 0, 4, 5), &ext(2_500_000)],
            vec![(2, 0, 5, 0, ext(2_500_000))],
            End::Clean,
        ),
        row(
            "fmt2 on a fresh chunk stream (DJI)",
            &[&fmt2(33, 7), &fmt0(4, 0, 1, 8, 1), b"a"],
            vec![(33, 7, 0, 0, vec![]), first(0, b"a")],
            End::Clean,
        ),
        refused("fmt3 on a fresh chunk stream", &[&fmt3(5), b"abc"], vec![], "never began"),
        row(
            "fmt3 continues",
            &[
                &fmt0(4, 9, 300, 8, 1),
                &bytes(300)[..128],
                &fmt3(4),
                &bytes(300)[128..256],
                &fmt3(4),
                &bytes(300)[256..],
            ],
            vec![first(9, &bytes(300))],
            End::Clean,
        ),
        Row {
            name: "fmt0 in the middle of a message",
            bytes: [&fmt0(4, 9, 300, 8, 1), &bytes(128)[..], &fmt0(4, 10, 2, 8, 1), b"ab"].concat(),
            messages: vec![first(10, b"ab")],
            aborted: vec![(4, 172)],
            end: End::Clean,
        },
        Row {
            name: "fmt1 in the middle of a message",
            bytes: [&fmt0(4, 9, 300, 8, 1), &bytes(128)[..], &fmt1(4, 5, 1, 9), b"a"].concat(),
            messages: vec![(4, 14, 9, 1, b"a".to_vec())],
            aborted: vec![(4, 172)],
            end: End::Clean,
        },
        Row {
            name: "fmt2 in the middle of a message",
            bytes: [&fmt0(4, 9, 129, 8, 1), &bytes(128)[..], &fmt2(4, 5), &bytes(128)[..], &fmt3(4), b"z"].concat(),
            messages: vec![first(14, &[&bytes(128)[..], b"z"].concat())],
            aborted: vec![(4, 1)],
            end: End::Clean,
        },
        Row {
            name: "length changes in the middle of a message",
            bytes: [&fmt0(4, 9, 300, 8, 1), &bytes(128)[..], &fmt0(4, 9, 3_000_000, 8, 1), &bytes(128)[..]].concat(),
            messages: vec![],
            aborted: vec![(4, 172)],
            end: End::Open(1),
        },
    ]
}

fn basic_headers() -> Vec<Row> {
    let mut rows: Vec<Row> = [2, 3, 63, 64, 65, 319, 320, 321, 575, 576, 65_598, 65_599]
        .into_iter()
        .map(|csid| {
            let bytes =
                [fmt0(csid, 1, 1, 8, 1), b"a".to_vec(), fmt2(csid, 1), b"b".to_vec(), fmt3(csid), b"c".to_vec()];
            let message = |ts, payload: &[u8]| (csid, ts, 8, 1, payload.to_vec());
            let messages = vec![message(1, b"a"), message(2, b"b"), message(3, b"c")];
            Row { name: "chunk stream id", bytes: bytes.concat(), messages, aborted: vec![], end: End::Clean }
        })
        .collect();
    rows.push(row(
        "one chunk stream in two forms of the basic header",
        &[&fmt0(64, 1, 1, 8, 1), b"a", &[3 << 6 | 1, 0, 0], b"b"],
        vec![(64, 1, 8, 1, b"a".to_vec()), (64, 2, 8, 1, b"b".to_vec())],
        End::Clean,
    ));
    rows.push(row("basic header cut short", &[&[0]], vec![], End::Open(0)));
    rows.push(row("long basic header cut short", &[&[1, 7]], vec![], End::Open(0)));
    let many = |count: u32| (0..count).flat_map(|csid| fmt0(2 + csid, 0, 1000, 9, 1).into_iter().chain(bytes(128)));
    rows.push(Row {
        name: "64 chunk streams, each with a part of a message",
        bytes: many(64).collect(),
        messages: vec![],
        aborted: vec![],
        end: End::Open(64),
    });
    rows.push(Row {
        name: "65 chunk streams",
        bytes: many(65).collect(),
        messages: vec![],
        aborted: vec![],
        end: End::Refused("chunk streams"),
    });
    rows
}

fn chunk_sizes() -> Vec<Row> {
    let audio = |payload: &[u8]| (4, 9, 8, 1, payload.to_vec());
    vec![
        row(
            "chunk size 1",
            &[&set_chunk_size(1), &fmt0(4, 9, 3, 8, 1), b"a", &fmt3(4), b"b", &fmt3(4), b"c"],
            vec![chunk_size_message(1), audio(b"abc")],
            End::Clean,
        ),
        row(
            "Set Chunk Size itself in chunks of 1",
            &[&set_chunk_size(1), &fmt0(2, 0, 4, 1, 0), &[0, 0xC2, 0, 0xC2, 0, 0xC2, 128], &fmt0(4, 9, 2, 8, 1), b"ab"],
            vec![chunk_size_message(1), chunk_size_message(128), audio(b"ab")],
            End::Clean,
        ),
        row(
            "chunk size 127",
            &[&set_chunk_size(127), &fmt0(4, 9, 128, 8, 1), &bytes(128)[..127], &fmt3(4), &bytes(128)[127..]],
            vec![chunk_size_message(127), audio(&bytes(128))],
            End::Clean,
        ),
        row(
            "chunk size 65536",
            &[&set_chunk_size(65_536), &fmt0(4, 9, 200, 8, 1), &bytes(200)],
            vec![chunk_size_message(65_536), audio(&bytes(200))],
            End::Clean,
        ),
        row(
            "chunk size 0x7fffffff",
            &[&set_chunk_size(0x7FFF_FFFF), &fmt0(4, 9, 200, 8, 1), &bytes(200)],
            vec![chunk_size_message(0x7FFF_FFFF), audio(&bytes(200))],
            End::Clean,
        ),
        refused("chunk size 0", &[&set_chunk_size(0), &fmt0(4, 9, 1, 8, 1), b"a"], vec![], "chunk size"),
        refused("chunk size with the highest bit", &[&set_chunk_size(0x8000_0080)], vec![], "chunk size"),
        refused("Set Chunk Size with 3 bytes", &[&fmt0(2, 0, 3, 1, 0), &[0, 1, 0]], vec![], "only 3 bytes"),
        refused("Set Chunk Size with no byte", &[&fmt0(2, 0, 0, 1, 0)], vec![], "only 0 bytes"),
        row(
            "Set Chunk Size with 6 bytes",
            &[&fmt0(2, 0, 6, 1, 0), &[0, 0, 0, 2, 9, 9], &fmt0(4, 9, 3, 8, 1), b"ab", &fmt3(4), b"c"],
            vec![(2, 0, 1, 0, vec![0, 0, 0, 2, 9, 9]), audio(b"abc")],
            End::Clean,
        ),
        row(
            "chunk size changes between two chunks of a message",
            &[
                &fmt0(4, 9, 131, 8, 1),
                &bytes(131)[..128],
                &set_chunk_size(2),
                &fmt3(4),
                &bytes(131)[128..130],
                &fmt3(4),
                &bytes(131)[130..],
            ],
            vec![chunk_size_message(2), audio(&bytes(131))],
            End::Clean,
        ),
    ]
}

fn lengths() -> Vec<Row> {
    vec![
        row("empty audio", &[&fmt0(4, 9, 0, 8, 1)], vec![(4, 9, 8, 1, vec![])], End::Clean),
        row(
            "empty messages by fmt3",
            &[&fmt0(4, 1, 0, 9, 1), &fmt3(4), &fmt3(4)],
            vec![(4, 1, 9, 1, vec![]), (4, 2, 9, 1, vec![]), (4, 3, 9, 1, vec![])],
            End::Clean,
        ),
        row("one byte of video", &[&fmt0(4, 9, 1, 9, 1), &[0x17]], vec![(4, 9, 9, 1, vec![0x17])], End::Clean),
        row(
            "exactly one chunk",
            &[&fmt0(4, 9, 128, 9, 1), &bytes(128), &fmt3(4), &bytes(128)],
            vec![(4, 9, 9, 1, bytes(128)), (4, 18, 9, 1, bytes(128))],
            End::Clean,
        ),
        row("longest media without a byte of it", &[&fmt0(4, 9, 0xFF_FFFF, 9, 1)], vec![], End::Open(1)),
        row(
            "longest message of an unknown type without a byte of it",
            &[&fmt0(4, 9, 0xFF_FFFF, 7, 1)],
            vec![],
            End::Open(1),
        ),
        row("longest command without a byte of it", &[&fmt0(3, 9, 64 << 10, 20, 0)], vec![], End::Open(1)),
        refused("command one byte too long", &[&fmt0(3, 9, (64 << 10) + 1, 20, 0)], vec![], "at most 65536"),
        refused("length too long by fmt1", &[&fmt1(3, 9, 0xFF_FFFF, 17)], vec![], "at most 65536"),
    ]
}

fn interleaving() -> Vec<Row> {
    let video = || (6, 20, 9, 1, bytes(300));
    vec![
        row(
            "audio between the chunks of a video message",
            &[
                &fmt0(6, 20, 300, 9, 1),
                &bytes(300)[..128],
                &fmt0(4, 21, 3, 8, 1),
                b"abc",
                &fmt3(6),
                &bytes(300)[128..256],
                &fmt2(4, 1),
                b"def",
                &fmt3(6),
                &bytes(300)[256..],
            ],
            vec![(4, 21, 8, 1, b"abc".to_vec()), (4, 22, 8, 1, b"def".to_vec()), video()],
            End::Clean,
        ),
        row(
            "two long messages, chunk by chunk",
            &[
                &fmt0(6, 20, 300, 9, 1),
                &bytes(300)[..128],
                &fmt0(4, 21, 200, 8, 1),
                &bytes(200)[..128],
                &fmt3(6),
                &bytes(300)[128..256],
                &fmt3(4),
                &bytes(200)[128..],
                &fmt3(6),
                &bytes(300)[256..],
            ],
            vec![(4, 21, 8, 1, bytes(200)), video()],
            End::Clean,
        ),
        row(
            "an acknowledgement within a video message",
            &[
                &fmt0(6, 20, 200, 9, 1),
                &bytes(200)[..128],
                &fmt0(2, 0, 4, 3, 0),
                &ext(77),
                &fmt3(6),
                &bytes(200)[128..],
            ],
            vec![(2, 0, 3, 0, ext(77)), (6, 20, 9, 1, bytes(200))],
            End::Clean,
        ),
        row(
            "a command begun before video and completed within it",
            &[
                &fmt0(3, 0, 130, 20, 0),
                &bytes(130)[..128],
                &fmt0(6, 20, 200, 9, 1),
                &bytes(200)[..128],
                &fmt3(3),
                &bytes(130)[128..],
                &fmt3(6),
                &bytes(200)[128..],
            ],
            vec![(3, 0, 20, 0, bytes(130)), (6, 20, 9, 1, bytes(200))],
            End::Clean,
        ),
    ]
}

fn aborts() -> Vec<Row> {
    let abort = |csid: u32| [fmt0(2, 0, 4, 2, 0), ext(csid)].concat();
    let message = |csid| (2, 0, 2, 0, ext(csid));
    vec![
        Row {
            name: "Abort of an open message",
            bytes: [&fmt0(6, 20, 300, 9, 1), &bytes(128)[..], &abort(6), &fmt3(6), &bytes(128)].concat(),
            messages: vec![message(6)],
            aborted: vec![(6, 172)],
            end: End::Open(1),
        },
        row(
            "Abort of a complete message",
            &[&fmt0(6, 20, 1, 9, 1), b"a", &abort(6)],
            vec![(6, 20, 9, 1, b"a".to_vec()), message(6)],
            End::Clean,
        ),
        row("Abort of an unknown chunk stream", &[&abort(9)], vec![message(9)], End::Clean),
        row("Abort of an impossible chunk stream", &[&abort(u32::MAX)], vec![message(u32::MAX)], End::Clean),
        row("Abort of itself", &[&abort(2), &fmt3(2), &ext(2)], vec![message(2), message(2)], End::Clean),
        Row {
            name: "Abort of a command",
            bytes: [&fmt0(3, 0, 200, 20, 0), &bytes(128)[..], &abort(3), &fmt0(3, 0, 1, 20, 0), b"a"].concat(),
            messages: vec![message(3), (3, 0, 20, 0, b"a".to_vec())],
            aborted: vec![(3, 72)],
            end: End::Clean,
        },
        refused("Abort with 3 bytes", &[&fmt0(2, 0, 3, 2, 0), &[0, 0, 6]], vec![], "only 3 bytes"),
        Row {
            name: "Abort of an Abort",
            bytes: [
                &set_chunk_size(2)[..],
                &fmt0(5, 0, 4, 2, 0),
                &[0, 0],
                &fmt0(2, 0, 4, 2, 0),
                &[0, 0],
                &fmt3(2),
                &[0, 5],
            ]
            .concat(),
            messages: vec![chunk_size_message(2), message(5)],
            aborted: vec![(5, 2)],
            end: End::Clean,
        },
    ]
}

fn timestamps() -> Vec<Row> {
    const FIELD: u32 = 0xFF_FFFF;
    let long = || bytes(200);
    let video = |timestamp| (6, timestamp, 9, 1, bytes(200));
    let small = |timestamp, payload: &[u8]| (4, timestamp, 8, 1, payload.to_vec());
    let after = |start: u32, delta: u32, name, result| {
        let first: &[u8] =
            &if start < FIELD { fmt0(4, start, 1, 8, 1) } else { [fmt0(4, FIELD, 1, 8, 1), ext(start)].concat() };
        let second: &[u8] = &if delta < FIELD { fmt2(4, delta) } else { [fmt2(4, FIELD), ext(delta)].concat() };
        row(name, &[first, b"a", second, b"b"], vec![small(start, b"a"), small(result, b"b")], End::Clean)
    };
    vec![
        row("last short timestamp", &[&fmt0(4, 0xFF_FFFE, 1, 8, 1), b"a"], vec![small(0xFF_FFFE, b"a")], End::Clean),
        row(
            "first extended timestamp",
            &[&fmt0(4, FIELD, 1, 8, 1), &ext(FIELD), b"a"],
            vec![small(FIELD, b"a")],
            End::Clean,
        ),
        row(
            "extended timestamp below its range",
            &[&fmt0(4, FIELD, 1, 8, 1), &ext(5), b"a"],
            vec![small(5, b"a")],
            End::Clean,
        ),
        row(
            "highest timestamp",
            &[&fmt0(4, FIELD, 1, 8, 1), &ext(u32::MAX), b"a"],
            vec![small(u32::MAX, b"a")],
            End::Clean,
        ),
        row(
            "extended timestamp repeated by fmt3",
            &[
                &fmt0(6, FIELD, 200, 9, 1),
                &ext(0x0100_0010),
                &long()[..128],
                &fmt3(6),
                &ext(0x0100_0010),
                &long()[128..],
            ],
            vec![video(0x0100_0010)],
            End::Clean,
        ),
        row(
            "extended timestamp not repeated by fmt3 (old librtmp)",
            &[&fmt0(6, FIELD, 200, 9, 1), &ext(0x0100_0010), &long()[..128], &fmt3(6), &long()[128..]],
            vec![video(0x0100_0010)],
            End::Clean,
        ),
        row(
            "extended timestamp not repeated, one byte left",
            &[&fmt0(6, FIELD, 129, 9, 1), &ext(0x0100_0010), &bytes(128), &fmt3(6), b"z"],
            vec![(6, 0x0100_0010, 9, 1, [&bytes(128)[..], b"z"].concat())],
            End::Clean,
        ),
        row(
            "extended delta repeated by fmt3",
            &[
                &fmt0(6, 1, 200, 9, 1),
                &long()[..128],
                &fmt3(6),
                &long()[128..],
                &fmt2(6, FIELD),
                &ext(0x0100_0000),
                &long()[..128],
                &fmt3(6),
                &ext(0x0100_0000),
                &long()[128..],
            ],
            vec![video(1), video(0x0100_0001)],
            End::Clean,
        ),
        row(
            "a short delta ends the extended form",
            &[&fmt0(4, FIELD, 1, 8, 1), &ext(0x0100_0000), b"a", &fmt2(4, 5), b"b", &fmt3(4), b"c"],
            vec![small(0x0100_0000, b"a"), small(0x0100_0005, b"b"), small(0x0100_000A, b"c")],
            End::Clean,
        ),
        row(
            "fmt3 begins a message with an extended delta",
            &[&fmt0(4, 0, 1, 8, 1), b"a", &fmt2(4, FIELD), &ext(0x0100_0000), b"b", &fmt3(4), &ext(0x0100_0000), b"c"],
            vec![small(0, b"a"), small(0x0100_0000, b"b"), small(0x0200_0000, b"c")],
            End::Clean,
        ),
        after(0xFF_FFF0, 0x20, "wrap of 24 bits, 4 h 39 min", 0x0100_0010),
        after(0x7FFF_FFF0, 0x20, "31 bits, 24.8 days", 0x8000_0010),
        after(0xFFFF_FFF0, 0x20, "wrap of 32 bits, 49.7 days", 0x10),
        after(1000, 0, "equal timestamps", 1000),
        after(1000, u32::MAX - 399, "backwards by an extended delta", 600),
        after(1000, 0x4000_0000, "a huge jump", 0x4000_03E8),
        row(
            "backwards by fmt0",
            &[&fmt0(4, 1000, 1, 8, 1), b"a", &fmt0(4, 500, 1, 8, 1), b"b", &fmt2(4, 23), b"c"],
            vec![small(1000, b"a"), small(500, b"b"), small(523, b"c")],
            End::Clean,
        ),
        row("extended timestamp cut short", &[&fmt0(4, FIELD, 1, 8, 1), &[1, 0]], vec![], End::Open(0)),
    ]
}

fn types() -> Vec<Row> {
    [0, 7, 10, 14, 16, 19, 21, 23, 100, 255]
        .into_iter()
        .map(|type_id| {
            let bytes = [&fmt0(5, 1, 2, type_id, 1)[..], b"ab"].concat();
            let messages = vec![(5, 1, type_id, 1, b"ab".to_vec())];
            Row { name: "unknown type", bytes, messages, aborted: vec![], end: End::Clean }
        })
        .collect()
}
