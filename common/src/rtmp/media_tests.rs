//! Tests of [`super`]: one table of first bytes, legacy and enhanced.

use super::*;

use crate::rtmp::tables::media as table;

use crate::rtmp::tables::media::{Is, ROWS};

fn is(inspection: Inspection) -> Is {
    let header = match inspection.header {
        None => String::new(),
        Some(HeaderSlot::Metadata) => "Metadata".to_owned(),
        Some(HeaderSlot::Audio { track }) => format!("Audio {track}"),
        Some(HeaderSlot::AudioChannels { track }) => format!("AudioChannels {track}"),
        Some(HeaderSlot::Video { track }) => format!("Video {track}"),
        Some(HeaderSlot::VideoMetadata { track }) => format!("VideoMetadata {track}"),
    };
    Is {
        key: inspection.keyframe,
        header: String::leak(header),
        end: inspection.end_of_sequence,
        track: inspection.track,
    }
}

#[test]
fn every_row_is_inspected_as_listed() {
    for (name, type_id, prefix, expected) in ROWS {
        let inspection = inspect(*type_id, prefix);
        assert_eq!(is(inspection), *expected, "{name}");
        let kind = match type_id {
            8 => Kind::Audio,
            9 => Kind::Video,
            _ => Kind::Data,
        };
        assert_eq!(inspection.kind, kind, "{name}");
    }
}

#[test]
fn the_inspected_prefix_is_enough() {
    for (name, type_id, prefix, expected) in ROWS.iter().filter(|(_, _, prefix, _)| !prefix.is_empty()) {
        assert!(prefix.len() <= INSPECT_BYTES, "{name}");
        // More bytes change nothing, unless they complete something that was cut short.
        if *expected != table::PLAIN {
            let long = [prefix, &[0x55; 200][..]].concat();
            assert_eq!(is(inspect(*type_id, &long)), *expected, "{name}");
            assert_eq!(inspect(*type_id, &long[..INSPECT_BYTES]), inspect(*type_id, &long), "{name}");
        }
    }
}

#[test]
fn ten_modifiers_and_multitrack_fit_into_the_prefix() {
    let mut message = vec![0x97];
    for left in (0..10).rev() {
        message.extend_from_slice(&[2, 0, 0, 7, if left == 0 { 6 } else { 7 }]);
    }
    message.extend_from_slice(b"\x01hvc1\x05");
    assert!(message.len() <= INSPECT_BYTES);
    assert_eq!(is(inspect(9, &message)), Is { track: 5, ..table::KEY });
}

#[test]
fn headers_sort_in_the_order_of_sending() {
    let mut slots = [
        HeaderSlot::VideoMetadata { track: 0 },
        HeaderSlot::Video { track: 1 },
        HeaderSlot::Video { track: 0 },
        HeaderSlot::AudioChannels { track: 0 },
        HeaderSlot::Audio { track: 0 },
        HeaderSlot::Metadata,
    ];
    slots.sort_unstable();
    assert_eq!(slots[0], HeaderSlot::Metadata);
    assert_eq!(
        slots[3..],
        [HeaderSlot::Video { track: 0 }, HeaderSlot::Video { track: 1 }, HeaderSlot::VideoMetadata { track: 0 }]
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(type_id: u8, prefix in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
        for type_id in [type_id, 8, 9, 15, 18] {
            let _ = inspect(type_id, &prefix);
        }
    }
}
