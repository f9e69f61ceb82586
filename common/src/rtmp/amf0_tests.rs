//! Tests of [`super`]: one table for both directions, one of what is refused, rml_amf0 as the second opinion.

use super::*;

use crate::rtmp::tables::amf0 as table;

fn text(text: &str) -> Value {
    Value::string(text)
}

fn pairs(properties: &[(&str, Value)]) -> Vec<(String, Value)> {
    properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// `{name, value, bytes}`, both ways.
fn rows() -> Vec<(&'static str, Value, Vec<u8>)> {
    let long = "x".repeat(65_536);
    vec![
        ("number", Value::Number(1.0), vec![0, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0]),
        ("negative zero", Value::Number(-0.0), vec![0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("infinity", Value::Number(f64::INFINITY), vec![0, 0x7F, 0xF0, 0, 0, 0, 0, 0, 0]),
        ("true", Value::Boolean(true), vec![1, 1]),
        ("false", Value::Boolean(false), vec![1, 0]),
        ("string", text("live"), vec![2, 0, 4, b'l', b'i', b'v', b'e']),
        ("empty string", text(""), vec![2, 0, 0]),
        ("string beyond ASCII", text("ж"), vec![2, 0, 2, 0xD0, 0xB6]),
        ("longest short string", text(&long[1..]), [&[2, 255, 255], &long.as_bytes()[1..]].concat()),
        ("long string", Value::LongString("ab".into()), vec![12, 0, 0, 0, 2, b'a', b'b']),
        ("long string that has to be", Value::LongString(long.clone()), [&[12, 0, 1, 0, 0], long.as_bytes()].concat()),
        ("object", Value::Object(pairs(&[("a", Value::Null)])), vec![3, 0, 1, b'a', 5, 0, 0, 9]),
        ("empty object", Value::Object(vec![]), vec![3, 0, 0, 9]),
        (
            "a property twice",
            Value::Object(pairs(&[("a", Value::Null), ("a", Value::Undefined)])),
            vec![3, 0, 1, b'a', 5, 0, 1, b'a', 6, 0, 0, 9],
        ),
        ("property without a name", Value::Object(pairs(&[("", Value::Null)])), vec![3, 0, 0, 5, 0, 0, 9]),
        ("null", Value::Null, vec![5]),
        ("undefined", Value::Undefined, vec![6]),
        ("reference", Value::Reference(258), vec![7, 1, 2]),
        ("ECMA array", Value::EcmaArray(pairs(&[("a", Value::Null)])), vec![8, 0, 0, 0, 1, 0, 1, b'a', 5, 0, 0, 9]),
        ("strict array", Value::StrictArray(vec![Value::Null, text("")]), vec![10, 0, 0, 0, 2, 5, 2, 0, 0]),
        ("empty strict array", Value::StrictArray(vec![]), vec![10, 0, 0, 0, 0]),
        ("date", Value::Date { milliseconds: 1.0, zone: -60 }, vec![11, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0, 0xFF, 0xC4]),
        ("unsupported", Value::Unsupported, vec![13]),
        ("XML", Value::Xml("<a/>".into()), vec![15, 0, 0, 0, 4, b'<', b'a', b'/', b'>']),
        (
            "typed object",
            Value::TypedObject { class: "c".into(), properties: pairs(&[("a", Value::Null)]) },
            vec![16, 0, 1, b'c', 0, 1, b'a', 5, 0, 0, 9],
        ),
        ("AMF3", Value::Amf3(vec![1, 2, 3]), vec![17, 1, 2, 3]),
        ("16 arrays in each other", nested(16), [&[10, 0, 0, 0, 1].repeat(16)[..], &[5]].concat()),
    ]
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| Value::StrictArray(vec![inner]))
}

fn written(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

#[test]
fn every_row_is_read_and_written() {
    for (name, value, bytes) in rows() {
        assert_eq!(read(&bytes), Ok((value.clone(), bytes.len())), "{name}");
        assert_eq!(written(&value), bytes, "{name}");
    }
}

#[test]
fn bytes_after_a_value_are_left_alone() {
    for (name, value, mut bytes) in rows().into_iter().filter(|(name, ..)| *name != "AMF3") {
        let length = bytes.len();
        bytes.extend_from_slice(&[0xFF; 3]);
        assert_eq!(read(&bytes), Ok((value, length)), "{name}");
    }
}

#[test]
fn every_row_cut_short_is_truncated() {
    for (name, _, bytes) in rows().into_iter().filter(|(name, ..)| *name != "AMF3") {
        for end in 0..bytes.len().min(300) {
            assert_eq!(read(&bytes[..end]), Err(Amf0Error::Truncated), "{name} at {end}");
        }
    }
}

#[test]
fn malformed_values_are_refused() {
    for (name, bytes, error) in table::refused() {
        let refused = read(&bytes).unwrap_err();
        assert_eq!(format!("{refused:?}"), error, "{name}");
        if !bytes.is_empty() {
            assert_eq!(read_all(&bytes), Err(refused), "{name}");
        }
    }
}

#[test]
fn counts_of_ecma_arrays_are_not_believed() {
    for count in [0, 7, u32::MAX] {
        let bytes = [&[8][..], &count.to_be_bytes(), &[0, 1, b'a', 5, 0, 0, 9]].concat();
        assert_eq!(read(&bytes), Ok((Value::EcmaArray(pairs(&[("a", Value::Null)])), bytes.len())));
    }
}

#[test]
fn strings_that_are_not_utf8_are_read() {
    assert_eq!(read(&[2, 0, 3, b'a', 0xFF, b'b']), Ok((text("a\u{FFFD}b"), 6)));
    assert_eq!(read(&[3, 0, 1, 0xC3, 5, 0, 0, 9]), Ok((Value::Object(pairs(&[("\u{FFFD}", Value::Null)])), 8)));
}

#[test]
fn any_byte_but_zero_is_true() {
    assert_eq!(read(&[1, 0x80]), Ok((Value::Boolean(true), 2)));
}

#[test]
fn values_are_counted_over_the_whole_message() {
    assert_eq!(read_all(&[5; MAX_AMF0_VALUES]).map(|values| values.len()), Ok(MAX_AMF0_VALUES));
    assert_eq!(read_all(&[5; MAX_AMF0_VALUES + 1]), Err(Amf0Error::TooMany));
}

#[test]
fn amf3_value_takes_the_rest_of_the_message() {
    assert_eq!(read_all(&[5, 17, 9, 9]), Ok(vec![Value::Null, Value::Amf3(vec![9, 9])]));
}

#[test]
fn texts_too_long_for_their_place_are_cut_between_characters() {
    let name = format!("{}ж", "x".repeat(65_534));
    let object = Value::Object(vec![(name, Value::Null)]);
    assert_eq!(read(&written(&object)).unwrap().0, Value::Object(vec![("x".repeat(65_534), Value::Null)]));
    // A long text is a long string, and reads as one.
    let long = "ж".repeat(40_000);
    assert_eq!(read(&written(&text(&long))).unwrap().0, Value::LongString(long));
}

#[test]
fn accessors_return_only_values_of_their_type() {
    let object = Value::EcmaArray(pairs(&[("a", Value::Number(1.0)), ("a", Value::Number(2.0)), ("b", text("x"))]));
    assert_eq!(object.property("a").and_then(Value::as_f64), Some(2.0));
    assert_eq!(object.property("b").and_then(Value::as_str), Some("x"));
    assert_eq!(object.property("c"), None);
    assert_eq!(Value::Null.property("a"), None);
    assert_eq!(Value::Boolean(true).as_bool(), Some(true));
    assert_eq!(text("1").as_f64(), None);
}

#[test]
fn a_leading_string_is_found_without_copying() {
    assert_eq!(leading_string(b"\x02\x00\x02abc"), Some((&b"ab"[..], 5)));
    assert_eq!(leading_string(b"\x02\x00\x02a"), None);
    assert_eq!(leading_string(b"\x03\x00\x02ab"), None);
    assert_eq!(leading_string(&[]), None);
}

mod differential {
    use proptest::prelude::*;
    use rml_rtmp::rml_amf0::{self, Amf0Value};

    use super::*;

    /// Values that both implementations know: rml_rtmp's objects are maps, and it knows no dates, long strings, typed objects or XML.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_filter("equal to itself", |number| !number.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            "[ -~ж]{0,40}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::btree_map("[a-z]{1,6}", inner.clone(), 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
                prop::collection::vec(inner, 0..5).prop_map(Value::StrictArray),
            ]
        })
    }

    fn theirs(value: &Value) -> Amf0Value {
        match value {
            Value::Number(number) => Amf0Value::Number(*number),
            Value::Boolean(truth) => Amf0Value::Boolean(*truth),
            Value::String(text) => Amf0Value::Utf8String(text.clone()),
            Value::Object(properties) => {
                Amf0Value::Object(properties.iter().map(|(name, value)| (name.clone(), theirs(value))).collect())
            }
            Value::StrictArray(values) => Amf0Value::StrictArray(values.iter().map(theirs).collect()),
            Value::Undefined => Amf0Value::Undefined,
            _ => Amf0Value::Null,
        }
    }

    fn sorted(mut value: Value) -> Value {
        match &mut value {
            Value::Object(properties) => {
                properties.iter_mut().for_each(|(_, value)| *value = sorted(value.clone()));
                properties.sort_by(|left, right| left.0.cmp(&right.0));
            }
            Value::StrictArray(values) => values.iter_mut().for_each(|value| *value = sorted(value.clone())),
            _ => {}
        }
        value
    }

    proptest! {
        #[test]
        fn rml_rtmp_reads_our_values(values in prop::collection::vec(value(), 1..5)) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| write(&mut bytes, value));
            let read: Vec<Amf0Value> = rml_amf0::deserialize(&mut &bytes[..]).unwrap();
            prop_assert_eq!(read, values.iter().map(theirs).collect::<Vec<_>>());
        }

        #[test]
        fn we_read_values_of_rml_rtmp(values in prop::collection::vec(value(), 1..5)) {
            let bytes = rml_amf0::serialize(&values.iter().map(theirs).collect::<Vec<_>>()).unwrap();
            let read: Vec<Value> = read_all(&bytes).unwrap().into_iter().map(sorted).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_read_values_can_be_written(bytes in prop::collection::vec(prop_oneof![0_u8..20, any::<u8>()], 0..300)) {
            if let Ok((value, length)) = read(&bytes) {
                prop_assert!(length <= bytes.len());
                let again = written(&value);
                let (repeated, _) = read(&again).unwrap();
                prop_assert_eq!(written(&repeated), again);
            }
        }
    }
}
