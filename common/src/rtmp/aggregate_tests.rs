//! Tests of [`super`].

use super::*;

use crate::rtmp::tables::aggregate as table;

fn header(timestamp: u32, payload: &[u8]) -> MessageHeader {
    MessageHeader { csid: 6, timestamp, length: payload.len() as u32, type_id: 22, stream_id: 1 }
}

#[test]
fn every_row_splits_into_its_messages() {
    for (name, timestamp, payload, subs, error) in table::rows() {
        let all: Vec<_> = split(&header(timestamp, &payload), &payload).collect();
        let good: Vec<_> = all.iter().flatten().collect();
        assert_eq!(good.len(), subs.len(), "{name}");
        for (sub, (type_id, timestamp, bytes)) in good.into_iter().zip(subs) {
            assert_eq!((sub.header.type_id, sub.header.timestamp), (type_id, timestamp), "{name}");
            assert_eq!((sub.header.csid, sub.header.stream_id), (6, 1), "{name}");
            assert_eq!(&payload[sub.payload.clone()], bytes, "{name}");
            assert_eq!(sub.header.length as usize, bytes.len(), "{name}");
        }
        let failed: Vec<_> =
            all.iter().filter_map(|sub| sub.as_ref().err()).map(|error| format!("{error:?}")).collect();
        assert_eq!(failed, error.into_iter().collect::<Vec<_>>(), "{name}");
        assert!(all.last().is_none_or(|last| last.is_err() == error.is_some()), "{name}: nothing comes after an error");
    }
}

#[test]
fn empty_messages_are_limited() {
    let payload = table::tag(8, 0, b"").repeat(MAX_AGGREGATE_MESSAGES + 1);
    let all: Vec<_> = split(&header(0, &payload), &payload).collect();
    assert_eq!(all.len(), MAX_AGGREGATE_MESSAGES + 1);
    assert_eq!(all.last(), Some(&Err(AggregateError::TooMany)));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(timestamp: u32, payload in proptest::collection::vec(proptest::prelude::prop_oneof![0_u8..4, proptest::prelude::any::<u8>()], 0..300)) {
        for sub in split(&header(timestamp, &payload), &payload).flatten() {
            assert!(sub.payload.end <= payload.len());
        }
    }
}
