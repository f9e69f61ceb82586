//! Aggregate messages and the messages in them: for the splitter's tests, and as seeds for fuzzing.

/// Type, rebased timestamp, payload.
pub type Sub = (u8, u32, &'static [u8]);

/// A tag with its back pointer.
pub fn tag(type_id: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l2, l1, l0] = (payload.len() as u32).to_be_bytes();
    let [t3, t2, t1, t0] = timestamp.to_be_bytes();
    let back = (payload.len() as u32 + 11).to_be_bytes();
    [&[type_id, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0], payload, &back].concat()
}

/// `{name, timestamp of the aggregate, payload, messages, name of the error}`.
pub type Row = (&'static str, u32, Vec<u8>, Vec<Sub>, Option<&'static str>);

/// The rows.
pub fn rows() -> Vec<Row> {
    let two = || [tag(9, 500, b"video"), tag(8, 520, b"audio")].concat();
    let subs: fn(u32, u32) -> Vec<Sub> = |first, second| vec![(9, first, b"video"), (8, second, b"audio")];
    vec![
        ("two messages", 1000, two(), subs(1000, 1020), None),
        ("nothing", 1000, vec![], vec![], None),
        ("without the last back pointer", 1000, two()[..two().len() - 4].to_vec(), subs(1000, 1020), None),
        ("half a back pointer", 1000, two()[..two().len() - 2].to_vec(), subs(1000, 1020), None),
        ("an empty message", 7, [tag(8, 0, b""), tag(8, 3, b"x")].concat(), vec![(8, 7, b""), (8, 10, b"x")], None),
        (
            "past 24 bits",
            0xFF_FFF0,
            [tag(8, 0xFF_FFF0, b"a"), tag(8, 0x0100_0010, b"b")].concat(),
            vec![(8, 0xFF_FFF0, b"a"), (8, 0x0100_0010, b"b")],
            None,
        ),
        (
            "over 2^32",
            0xFFFF_FFF0,
            [tag(8, 0, b"a"), tag(8, 0x20, b"b")].concat(),
            vec![(8, 0xFFFF_FFF0, b"a"), (8, 0x10, b"b")],
            None,
        ),
        ("backwards", 100, [tag(8, 50, b"a"), tag(9, 40, b"b")].concat(), vec![(8, 100, b"a"), (9, 90, b"b")], None),
        (
            "other types",
            0,
            [tag(18, 0, b"data"), tag(255, 0, b"?")].concat(),
            vec![(18, 0, b"data"), (255, 0, b"?")],
            None,
        ),
        (
            "an aggregate inside",
            0,
            [tag(8, 0, b"a"), tag(22, 0, &two()), tag(8, 0, b"b")].concat(),
            vec![(8, 0, b"a")],
            Some("Nested"),
        ),
        ("header cut short", 0, [tag(8, 0, b"a"), vec![9, 0, 0]].concat(), vec![(8, 0, b"a")], Some("Truncated")),
        (
            "payload cut short",
            0,
            [&tag(8, 0, b"a"), &tag(9, 0, b"bcdef")[..13]].concat(),
            vec![(8, 0, b"a")],
            Some("Truncated"),
        ),
        ("payload of 16 MB with none", 0, vec![9, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0], vec![], Some("Truncated")),
    ]
}
